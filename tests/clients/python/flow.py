"""create, list, get, wait, report, stop, delete. The component sleeps for as many seconds as its payload says."""

import sys
import time

import openapi_client
from openapi_client import JobScheduleDescription, ProgressReport

jobs = openapi_client.JobApi(openapi_client.ApiClient(openapi_client.Configuration(host=sys.argv[1])))

request = JobScheduleDescription(payload="0", jobId="python", variables={"LANGUAGE": "python"})
key = f"python-{time.time_ns()}"
# The body first, as clients of Radix's documents have it.
job = jobs.create_job(request, key)
assert job.name.startswith("compute-") and job.job_id == "python", job
assert jobs.create_job(request, idempotency_key=key).name == job.name

assert job.name in [other.name for other in jobs.get_jobs(job_id="python", limit=9)]
assert jobs.get_job(job.name).created == job.created

done = jobs.get_job(job.name, wait="30s")
assert done.status == "Succeeded" and done.ended != "", done
assert done.pod_statuses[0].exit_code == 0 and done.result == "slept", done

other = jobs.create_job(JobScheduleDescription(payload="60"))
jobs.put_job_progress(other.name, ProgressReport(percent=25, message="a quarter"))
assert jobs.get_job(other.name).progress.percent == 25
assert jobs.stop_job(other.name).status == "Success"
stopped = jobs.get_job(other.name, wait="30s")
assert stopped.status == "Stopped" and stopped.ended != "", stopped

for name in job.name, other.name:
    assert jobs.delete_job(name).code == 200
try:
    jobs.get_job(job.name)
    raise AssertionError("a deleted job is there")
except openapi_client.ApiException as e:
    assert e.status == 404 and "NotFound" in str(e.body), e
