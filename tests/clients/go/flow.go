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
	check(err == nil && done.Status == "Succeeded" && done.GetEnded() != "", done, err)
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
	check(err == nil && stopped.Status == "Stopped" && stopped.GetEnded() != "", stopped, err)

	for _, name := range []string{job.Name, other.Name} {
		outcome, _, err := jobs.DeleteJob(ctx, name).Execute()
		check(err == nil && outcome.GetCode() == 200, outcome, err)
	}
	_, response, err := jobs.GetJob(ctx, job.Name).Execute()
	check(err != nil && response.StatusCode == 404, response, err)

	batches := client.NewAPIClient(configuration).BatchAPI
	one, two := client.NewJobScheduleDescription(), client.NewJobScheduleDescription()
	one.SetPayload("0")
	two.SetPayload("60")
	each := client.NewRadixJobComponentConfig()
	each.SetTimeLimitSeconds(100)
	many := client.NewBatchScheduleDescription([]client.JobScheduleDescription{*one, *two})
	many.SetBatchId("go")
	many.SetDefaultRadixJobComponentConfig(*each)
	batch, _, err := batches.CreateBatch(ctx).IdempotencyKey(key + "-batch").BatchCreation(*many).Execute()
	check(err == nil && batch.GetBatchId() == "go" && len(batch.JobStatuses) == 2, batch, err)
	first, second := batch.JobStatuses[0].Name, batch.JobStatuses[1].Name
	done, _, err = batches.GetBatchJob(ctx, batch.Name, first).Wait("30s").Execute()
	check(err == nil && done.Status == "Succeeded" && done.GetResult() == "slept", done, err)
	summary, _, err := batches.GetBatch(ctx, batch.Name).Summary(true).Execute()
	check(err == nil && summary.JobCounts["Succeeded"] == 1 && summary.Progress.Percent == 50, summary, err)
	short := second[strings.LastIndex(second, "-")+1:]
	_, _, err = batches.StopBatchJob(ctx, batch.Name, short).Execute()
	check(err == nil, err)
	over, _, err := batches.GetBatch(ctx, batch.Name).Wait("30s").Execute()
	check(err == nil && over.Status == "Completed" && over.Ended.IsSet(), over, err)
	restarted, _, err := batches.RestartBatch(ctx, batch.Name).Execute()
	check(err == nil && restarted.JobStatuses[1].Name == second, restarted, err)
	_, _, err = batches.DeleteBatch(ctx, batch.Name).Execute()
	check(err == nil, err)
	_, response, err = batches.GetBatch(ctx, batch.Name).Execute()
	check(err != nil && response.StatusCode == 404, response, err)
}

func check(holds bool, seen ...any) {
	if !holds {
		panic(fmt.Sprint(seen...))
	}
}
