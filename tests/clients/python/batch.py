"""A batch: create, list, get, wait, stop, restart, delete. The component sleeps for as many seconds as its payload says."""

import sys
import time

import openapi_client
from openapi_client import BatchScheduleDescription, JobScheduleDescription, RadixJobComponentConfig

batches = openapi_client.BatchApi(openapi_client.ApiClient(openapi_client.Configuration(host=sys.argv[1])))

request = BatchScheduleDescription(
    batchId="python",
    defaultRadixJobComponentConfig=RadixJobComponentConfig(timeLimitSeconds=100),
    jobScheduleDescriptions=[JobScheduleDescription(jobId="a", payload="0"), JobScheduleDescription(payload="60")],
)
key = f"python-batch-{time.time_ns()}"
batch = batches.create_batch(request, key)
assert batch.name.startswith("batch-compute") and batch.batch_id == "python", batch
assert batch.ended is None and len(batch.job_statuses) == 2, batch
assert batches.create_batch(request, idempotency_key=key).name == batch.name

first, second = [job.name for job in batch.job_statuses]
done = batches.get_batch_job(batch.name, first, wait="30s")
assert done.status == "Succeeded" and done.ended and done.result == "slept", done
summary = next(other for other in batches.get_batches(summary=True) if other.name == batch.name)
assert summary.job_counts["Succeeded"] == 1 and summary.progress.percent == 50 and not summary.job_statuses, summary

assert batches.stop_batch_job(batch.name, second.rsplit("-", 1)[1]).status == "Success"
over = batches.get_batch(batch.name, wait="30s")
assert over.status == "Completed" and over.ended is not None and over.progress.finished == 2, over
again = batches.restart_batch(batch.name)
assert again.ended is None and again.job_statuses[1].name == second, again
assert batches.stop_batch(batch.name).status == "Success"
assert batches.delete_batch(batch.name).code == 200
try:
    batches.get_batch(batch.name)
    raise AssertionError("a deleted batch is there")
except openapi_client.ApiException as e:
    assert e.status == 404 and "NotFound" in str(e.body), e
