// All that the first version of the API has.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"clients.test/client"
)

func main() {
	configuration := client.NewConfiguration()
	configuration.Servers = client.ServerConfigurations{{URL: os.Args[1] + "/api/v1"}}
	jobs := client.NewAPIClient(configuration).JobAPI
	ctx := context.Background()

	request := client.NewJobScheduleDescription()
	request.SetPayload("0")
	created, _, err := jobs.CreateJob(ctx).JobCreation(*request).Execute()
	check(err == nil, err)
	// Its document has one job where there is a list: whoever uses it reads the list by hand.
	_, response, _ := jobs.GetJobs(ctx).Execute()
	list, err := io.ReadAll(response.Body)
	check(err == nil && strings.Contains(string(list), created.Name), string(list), err)

	job, _, err := jobs.GetJob(ctx, created.Name).Execute()
	for err == nil && job.GetStatus() == "Running" {
		time.Sleep(50 * time.Millisecond)
		job, _, err = jobs.GetJob(ctx, created.Name).Execute()
	}
	check(err == nil && job.GetStatus() == "Succeeded" && job.GetEnded() != "", job, err)

	outcome, _, err := jobs.DeleteJob(ctx, created.Name).Execute()
	check(err == nil && outcome.GetStatus() == "Success", outcome, err)
	_, response, err = jobs.GetJob(ctx, created.Name).Execute()
	check(err != nil && response.StatusCode == 404, response, err)
}

func check(holds bool, seen ...any) {
	if !holds {
		panic(fmt.Sprint(seen...))
	}
}
