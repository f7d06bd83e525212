"""All that the first version of the API has."""

import json
import sys
import time

import openapi_client
from openapi_client import JobScheduleDescription

jobs = openapi_client.JobApi(openapi_client.ApiClient(openapi_client.Configuration(host=sys.argv[1] + "/api/v1")))

name = jobs.create_job(JobScheduleDescription(payload="0")).name
# Its document has one job where there is a list: whoever uses it reads the list by hand.
if hasattr(jobs, "get_jobs_without_preload_content"):
    text = jobs.get_jobs_without_preload_content().read()
else:  # before generator 7
    text = jobs.get_jobs_with_http_info(_preload_content=False).raw_data
listed = json.loads(text)
assert name in [job["name"] for job in listed], listed

while (job := jobs.get_job(name)).status == "Running":
    time.sleep(0.05)
assert job.status == "Succeeded" and job.ended != "", job

assert jobs.delete_job(name).status == "Success"
try:
    jobs.get_job(name)
    raise AssertionError("a deleted job is there")
except openapi_client.ApiException as e:
    assert e.status == 404, e
