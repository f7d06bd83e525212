// A batch's whole life, as clients of Radix have it. The component sleeps for as many seconds as its payload says.
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
	configuration.Servers = client.ServerConfigurations{{URL: os.Args[1] + "/api/v1"}}
	batches := client.NewAPIClient(configuration).BatchAPI
	ctx := context.Background()

	job := func(id, payload string) client.JobScheduleDescription {
		made := client.NewJobScheduleDescription()
		made.SetJobId(id)
		made.SetPayload(payload)
		return *made
	}
	all := client.NewRadixJobComponentConfig()
	all.SetTimeLimitSeconds(200)
	all.SetVariables(map[string]string{"EPOCHS": "5"})
	jobs := []client.JobScheduleDescription{job("my-job-1", "0"), job("my-job-2", "60")}
	request := client.NewBatchScheduleDescription(jobs)
	request.SetBatchId("my-batch-42")
	request.SetDefaultRadixJobComponentConfig(*all)
	batch, _, err := batches.CreateBatch(ctx).BatchCreation(*request).Execute()
	check(err == nil && batch.GetBatchId() == "my-batch-42" && batch.GetBatchType() == "batch", batch, err)
	check(!batch.HasEnded() && len(batch.JobStatuses) == 2, batch)
	first, second := batch.JobStatuses[0].Name, batch.JobStatuses[1].Name
	listed, _, err := batches.GetBatches(ctx).Execute()
	check(err == nil && len(listed) > 0 && listed[len(listed)-1].Name == batch.Name, listed, err)

	done := wait(func() bool {
		one, _, err := batches.GetBatchJob(ctx, batch.Name, first).Execute()
		check(err == nil, err)
		return one.GetStatus() == "Succeeded" && one.HasEnded() && one.GetBatchName() == batch.Name
	})
	check(done, "the first job")
	short := second[strings.LastIndex(second, "-")+1:]
	outcome, _, err := batches.StopBatchJob(ctx, batch.Name, short).Execute()
	check(err == nil && outcome.GetStatus() == "Success", outcome, err)
	over := wait(func() bool {
		batch, _, err := batches.GetBatch(ctx, batch.Name).Execute()
		check(err == nil, err)
		return batch.GetStatus() == "Completed" && batch.HasEnded()
	})
	check(over, "the batch")
	_, response, err := batches.StopBatch(ctx, batch.Name).Execute()
	check(err != nil && response.StatusCode == 400, response, err)
	outcome, _, err = batches.StopAllBatches(ctx).Execute()
	check(err == nil && outcome.GetStatus() == "Success", outcome, err)
	outcome, _, err = batches.DeleteBatch(ctx, batch.Name).Execute()
	check(err == nil && outcome.GetCode() == 200, outcome, err)
	_, response, err = batches.GetBatch(ctx, batch.Name).Execute()
	check(err != nil && response.StatusCode == 404, response, err)
}

func wait(isOver func() bool) bool {
	for tries := 0; tries < 600; tries++ {
		if isOver() {
			return true
		}
		time.Sleep(50 * time.Millisecond)
	}
	return false
}

func check(holds bool, seen ...any) {
	if !holds {
		panic(fmt.Sprint(seen...))
	}
}
