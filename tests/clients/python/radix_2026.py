"""A batch's whole life, as clients of Radix have it. The component sleeps for as many seconds as its payload says."""

import sys
import time

import openapi_client
from openapi_client import BatchScheduleDescription, JobScheduleDescription, RadixJobComponentConfig

client = openapi_client.ApiClient(openapi_client.Configuration(host=sys.argv[1] + "/api/v1"))
batches = openapi_client.BatchApi(client)

request = BatchScheduleDescription(
    batchId="my-batch-42",
    defaultRadixJobComponentConfig=RadixJobComponentConfig(timeLimitSeconds=200, backoffLimit=0, variables={"EPOCHS": "5"}),
    jobScheduleDescriptions=[
        JobScheduleDescription(jobId="my-job-1", payload="0", timeLimitSeconds=120),
        JobScheduleDescription(jobId="my-job-2", payload="60"),
        JobScheduleDescription(jobId="my-job-3", payload="60"),
    ],
)
batch = batches.create_batch(request)
assert batch.batch_id == "my-batch-42" and batch.batch_type == "batch", batch
assert batch.ended is None and batch.updated is None and batch.status in ("Waiting", "Active"), batch
assert [job.job_id for job in batch.job_statuses] == ["my-job-1", "my-job-2", "my-job-3"], batch
first, second = batch.job_statuses[:2]
assert batch.name in [other.name for other in batches.get_batches()]

while (job := batches.get_batch_job(batch.name, first.name)).status != "Succeeded":
    time.sleep(0.05)
assert job.ended is not None and job.batch_name == batch.name and job.pod_statuses[0].exit_code == 0, job
assert batches.get_batch(batch.name).status == "Active"

short = second.name.rsplit("-", 1)[1]
assert batches.stop_batch_job(batch.name, short).status == "Success"
assert batches.stop_batch(batch.name).status == "Success"
while (done := batches.get_batch(batch.name)).status != "Completed":
    time.sleep(0.05)
assert [job.status for job in done.job_statuses] == ["Succeeded", "Stopped", "Stopped"], done
assert done.started is not None and done.ended is not None, done
try:
    batches.stop_batch(batch.name)
    raise AssertionError("a batch is stopped that is over")
except openapi_client.ApiException as e:
    assert e.status == 400, e

assert batches.stop_all_batches().status == "Success"
assert batches.delete_batch(batch.name).code == 200
for ask in lambda: batches.get_batch(batch.name), lambda: batches.get_batch_job(batch.name, first.name):
    try:
        ask()
        raise AssertionError("a deleted batch is there")
    except openapi_client.ApiException as e:
        assert e.status == 404, e
try:
    batches.create_batch(BatchScheduleDescription(jobScheduleDescriptions=[]))
    raise AssertionError("a batch of no job is made")
except openapi_client.ApiException as e:
    assert e.status == 422, e
