

# Appended by scripts/test-clients to the stub's generated controller: as much of a scheduler as a client needs while an
# application is being written. A job has succeeded as soon as it is created, unless its payload says that it takes time.

import datetime

_jobs = {}
_keys = {}


def _outcome(message):
    return {"status": "Success", "message": message, "code": 200}


def _not_found(name):
    return {"status": "Failure", "message": f"job {name} is not found", "reason": "NotFound", "code": 404}, 404


def _now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def create_job(idempotency_key=None, body=None):
    # Connexion gives headers to no function.
    key = connexion.request.headers.get("Idempotency-Key")
    if key in _keys:
        return _keys[key]
    body, now = body or {}, _now()
    name = f"compute-{now.translate({ord(c): None for c in '-:TZ'})}-{len(_jobs):08d}"
    runs = body.get("payload", "0") != "0"
    job = {"name": name, "created": now, "started": now, "ended": "" if runs else now,
           "status": "Running" if runs else "Succeeded",
           "podStatuses": [{"name": name, "created": now, "podIndex": 0, "restartCount": 0, "exitCode": 0,
                            "replicaStatus": {"status": "Running" if runs else "Succeeded"}}]}
    if not runs:
        job["result"] = "slept"
    if "jobId" in body:
        job["jobId"] = body["jobId"]
    _jobs[name] = job
    if key:
        _keys[key] = job
    return job


def get_jobs(status=None, job_id=None, limit=None):
    wanted = [job for job in _jobs.values() if job_id in (None, job.get("jobId")) and (not status or job["status"] in status)]
    return wanted[-limit:] if limit else wanted


def put_job_progress(job_name, body=None):
    if job_name not in _jobs:
        return _not_found(job_name)
    _jobs[job_name]["progress"] = {"message": "", **body, "updated": _now()}
    return _outcome(f"progress of job {job_name} noted")


def get_job(job_name, wait=None):
    return _jobs.get(job_name) or _not_found(job_name)


def stop_job(job_name):
    if job_name not in _jobs:
        return _not_found(job_name)
    _jobs[job_name].update(status="Stopped", ended=_now())
    return _outcome(f"job {job_name} successfully stopped")


def delete_job(job_name):
    if _jobs.pop(job_name, None) is None:
        return _not_found(job_name)
    return _outcome(f"job {job_name} successfully deleted")
