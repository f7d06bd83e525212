// create, list, get, wait, report, stop, delete. The component sleeps for as many seconds as its payload says.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"clients.test/client"
)

func main() {
	configuration := client.NewConfiguration()
	configuration.Servers = client.ServerConfigurations{{URL: os.Args[1]}}
	jobs := client.NewAPIClient(configuration).JobAPI
	ctx := context.Background()

	request := client.NewJobScheduleDescription()
	request.SetPayload("0")
	request.SetJobId("go")
	request.SetVariables(map[string]string{"LANGUAGE": "go"})
	key := fmt.Sprintf("go-%d", time.Now().UnixNano())
	job, _, err := jobs.CreateJob(ctx).IdempotencyKey(key).JobCreation(*request).Execute()
	check(err == nil && strings.HasPrefix(job.Name, "compute-") && job.GetJobId() == "go", job, err)
	again, _, err := jobs.CreateJob(ctx).IdempotencyKey(key).JobCreation(*request).Execute()
	check(err == nil && again.Name == job.Name, again, err)

	all, _, err := jobs.GetJobs(ctx).JobId("go").Limit(9).Execute()
	listed := false
	for _, other := range all {
		listed = listed || other.Name == job.Name
	}
	check(err == nil && listed, all, err)
	got, _, err := jobs.GetJob(ctx, job.Name).Execute()
	check(err == nil && got.Created.Equal(job.Created), got, err)

	done, _, err := jobs.GetJob(ctx, job.Name).Wait("30s").Execute()
	check(err == nil && done.Status == "Succeeded" && done.Ended != "", done, err)
	check(done.PodStatuses[0].GetExitCode() == 0 && done.GetResult() == "slept", done)

	request = client.NewJobScheduleDescription()
	request.SetPayload("60")
	other, _, err := jobs.CreateJob(ctx).JobCreation(*request).Execute()
	check(err == nil, err)
	report := client.NewProgressReport(25)
	_, _, err = jobs.PutJobProgress(ctx, other.Name).ProgressReport(*report).Execute()
	check(err == nil, err)
	reported, _, err := jobs.GetJob(ctx, other.Name).Execute()
	check(err == nil && reported.GetProgress().Percent == 25, reported, err)
	outcome, _, err := jobs.StopJob(ctx, other.Name).Execute()
	check(err == nil && outcome.GetStatus() == "Success", outcome, err)
	stopped, _, err := jobs.GetJob(ctx, other.Name).Wait("30s").Execute()
	check(err == nil && stopped.Status == "Stopped" && stopped.Ended != "", stopped, err)

	for _, name := range []string{job.Name, other.Name} {
		outcome, _, err := jobs.DeleteJob(ctx, name).Execute()
		check(err == nil && outcome.GetCode() == 200, outcome, err)
	}
	_, response, err := jobs.GetJob(ctx, job.Name).Execute()
	check(err != nil && response.StatusCode == 404, response, err)
}

func check(holds bool, seen ...any) {
	if !holds {
		panic(fmt.Sprint(seen...))
	}
}
