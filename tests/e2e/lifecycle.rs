//! A job from its start to its end.

use crate::api::{JOBS, SOON, Scheduler, name};
use crate::cluster::{Cluster, objects, signal, within};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub fn status_follows_the_exit_code(cluster: &Cluster) -> Vec<String> {
    let mut etl = cluster.scheduler("dev", "etl");
    let cases = [
        ("exit 0", "Succeeded", 0, ""),
        ("exit 3", "Failed", 3, "exit code 3"),
        ("no-such-command", "Failed", 127, "exit code 127"),
    ];
    let mut proved = Vec::new();
    for (script, status, code, message) in cases {
        let started = Instant::now();
        let job = etl.start(json!({"payload": script}));
        assert_eq!(job["status"], "Running", "{job}");
        let job = etl.wait(&name(&job), SOON, |job| job["status"] != "Running");
        let seconds = started.elapsed().as_secs_f64();
        assert_eq!(job["status"], status, "{script}: {job}");
        assert_eq!(job["podStatuses"][0]["exitCode"], code, "{script}: {job}");
        assert_eq!(
            job["message"].as_str().unwrap_or_default(),
            message,
            "{script}: {job}"
        );
        assert_eq!(
            is_time(&job["ended"]),
            status == "Succeeded",
            "only a job that succeeded has `ended`: {job}"
        );
        assert!(is_time(&job["started"]), "{job}");
        assert!(
            job["ended"] == "" || job["started"].as_str() <= job["ended"].as_str(),
            "{job}"
        );
        proved.push(format!(
            "`{script}`: {status}, exit code {code}, message \"{message}\" after {seconds:.1} s"
        ));
    }
    proved
}

/// Several come within a second, of which Kubernetes tells no more.
pub fn a_list_is_in_order_and_of_those_that_are_asked_for(cluster: &Cluster) -> Vec<String> {
    let mut etl = cluster.scheduler("dev", "etl");
    let started = Instant::now();
    let jobs: Vec<String> = (0..8)
        .map(|number| {
            let script = if number % 2 == 0 { "exit 0" } else { "exit 1" };
            name(&etl.start(json!({"payload": script, "jobId": "in order"})))
        })
        .collect();
    let seconds = started.elapsed().as_secs_f64();
    let ask = |etl: &mut Scheduler, query: &str| -> Vec<String> {
        let response = etl.call("GET", &format!("{JOBS}?{query}"), "");
        assert_eq!(response.code, 200, "{response}");
        response
            .json()
            .as_array()
            .unwrap()
            .iter()
            .map(name)
            .collect()
    };
    let known = ask(&mut etl, "");
    let known: Vec<&String> = known.iter().filter(|name| jobs.contains(name)).collect();
    assert_eq!(known, jobs.iter().collect::<Vec<_>>());
    assert_eq!(ask(&mut etl, "jobId=in%20order"), jobs);
    assert_eq!(ask(&mut etl, "jobId=in%20order&limit=3"), jobs[5..]);
    for (number, job) in jobs.iter().enumerate() {
        etl.wait_for(
            job,
            if number % 2 == 0 {
                "Succeeded"
            } else {
                "Failed"
            },
        );
    }
    let failed: Vec<String> = jobs.iter().skip(1).step_by(2).cloned().collect();
    assert_eq!(
        ask(&mut etl, "jobId=in+order&status=Failed,Stopped"),
        failed
    );
    // Its place among the others is its own.
    let again = etl.call("POST", &format!("{JOBS}/{}/restart", jobs[0]), "");
    let again = name(&again.json());
    assert_eq!(ask(&mut etl, "jobId=in%20order&limit=1"), [again.as_str()]);
    let refused = etl.call("GET", &format!("{JOBS}?status=Done"), "");
    assert_eq!(refused.code, 400, "{refused}");
    for job in jobs.iter().chain([&again]) {
        etl.delete(job);
    }
    vec![format!(
        "8 jobs in {seconds:.1} s are listed as they came, the repeated one last"
    )]
}

/// What a job leaves for its caller is told, and told of as nothing else.
pub fn a_job_leaves_a_result(cluster: &Cluster) -> Vec<String> {
    let mut etl = cluster.scheduler("dev", "etl");
    let cases = [
        // Written at once or bit by bit, by one that succeeds or not.
        ("printf done > $JOB_RESULT_FILE", "Succeeded", "done", false),
        (
            "for i in 1 2 3; do printf $i >> $JOB_RESULT_FILE; done; exit 3",
            "Failed",
            "123",
            false,
        ),
        (
            "printf 'a\\377b' > $JOB_RESULT_FILE",
            "Succeeded",
            "a\u{fffd}b",
            false,
        ),
        (
            "yes | head -n 2047 > $JOB_RESULT_FILE; printf x >> $JOB_RESULT_FILE",
            "Succeeded",
            &("y\n".repeat(2047) + "x"),
            false,
        ),
        (
            "yes | head -n 5000 > $JOB_RESULT_FILE; printf end >> $JOB_RESULT_FILE",
            "Succeeded",
            &("\n".to_string() + &"y\n".repeat(2046) + "end"),
            true,
        ),
        ("true", "Succeeded", "", false),
    ];
    let mut proved = Vec::new();
    for (script, status, result, is_truncated) in cases {
        let job = name(&etl.start(json!({"payload": script})));
        let job = etl.wait_for(&job, status);
        for told in [&job, &job["podStatuses"][0]] {
            assert_eq!(
                told["result"].as_str().unwrap_or_default(),
                result,
                "{script}: {job}"
            );
            assert_eq!(
                told["resultTruncated"] == true,
                is_truncated,
                "{script}: {job}"
            );
        }
        let message = job["message"].as_str().unwrap_or_default();
        assert_eq!(
            message,
            if status == "Failed" {
                "exit code 3"
            } else {
                ""
            },
            "{job}"
        );
        proved.push(format!("`{script}`: {status}, {} bytes", result.len()));
    }
    // What the container runtime says is no result.
    let mut compute = cluster.scheduler("dev", "compute");
    let job = compute.start(json!({"payload": "", "command": ["/no/such/program"]}));
    let job = compute.wait_for(&name(&job), "Failed");
    let message = job["message"].as_str().unwrap_or_default();
    assert!(message.contains("/no/such/program"), "{job}");
    assert!(job["result"].is_null(), "{job}");
    proved.push(format!("a program that is not there: {message}"));
    proved
}

/// RFC 3339 in UTC, to the second.
fn is_time(value: &Value) -> bool {
    let shape = |text: &str| {
        text.chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect::<String>()
    };
    value
        .as_str()
        .is_some_and(|text| shape(text) == "0000-00-00T00:00:00Z")
}

/// `<component>-<yyyymmddhhmmss>-<8 of a-z0-9>`.
fn is_job_name(name: &str, component: &str) -> bool {
    let Some((time, random)) = name
        .strip_prefix(component)
        .and_then(|rest| rest.strip_prefix('-')?.split_once('-'))
    else {
        return false;
    };
    time.len() == 14
        && time.bytes().all(|b| b.is_ascii_digit())
        && random.len() == 8
        && random
            .bytes()
            .all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
}

pub fn answers_have_the_documented_fields(cluster: &Cluster) -> Vec<String> {
    // The four of the first version are always there; the rest came later.
    let (seed, later) = (
        ["name", "started", "ended", "status"],
        [
            "created",
            "jobId",
            "message",
            "result",
            "progress",
            "failed",
            "restart",
            "restartOf",
            "podStatuses",
        ],
    );
    let check = |job: &Value| {
        let object = job.as_object().unwrap();
        for field in seed {
            assert!(job[field].is_string(), "{field} is missing: {job}");
        }
        for field in object.keys() {
            assert!(
                seed.contains(&field.as_str()) || later.contains(&field.as_str()),
                "{field} is new: {job}"
            );
        }
        for field in ["started", "ended"] {
            assert!(job[field] == "" || is_time(&job[field]), "{field}: {job}");
        }
        assert!(is_time(&job["created"]), "{job}");
        assert!(is_job_name(job["name"].as_str().unwrap(), "etl"), "{job}");
    };
    let mut etl = cluster.scheduler("dev", "etl");
    let created = etl.start(json!({"payload": "exit 0", "jobId": "mine"}));
    check(&created);
    assert_eq!(
        (&created["status"], &created["ended"]),
        (&json!("Running"), &json!("")),
        "{created}"
    );
    let failing = name(&etl.start(json!({"payload": "exit 1"})));
    let succeeded = etl.wait_for(&name(&created), "Succeeded");
    let failed = etl.wait_for(&failing, "Failed");

    let response = etl.call("GET", JOBS, "");
    assert!(
        response.head.contains("Content-Type: application/json"),
        "{response}"
    );
    let list: Vec<Value> = serde_json::from_slice(&response.body).unwrap();
    list.iter().for_each(check);
    for job in [&succeeded, &failed] {
        assert!(list.contains(job), "{job} is not in the list: {list:?}");
    }
    assert_eq!(succeeded["jobId"], "mine", "{succeeded}");
    let head = etl.call("HEAD", JOBS, "");
    assert!(head.code == 200 && head.body.is_empty(), "{head}");

    let deleted = etl.delete(&failing).json();
    let expected = json!({"status": "Success", "message": format!("job {failing} successfully deleted"), "code": 200});
    assert_eq!(deleted, expected);
    vec![
        format!("created: {created}"),
        format!("succeeded: {succeeded}"),
        format!("failed: {failed}"),
        format!("deleted: {deleted}"),
    ]
}

pub fn a_running_job_answers_by_its_name(cluster: &Cluster) -> Vec<String> {
    let mut compute = cluster.scheduler("dev", "compute");
    let started = Instant::now();
    let job = name(&compute.start(json!({"payload": "it is me"})));
    let response = within(SOON, || {
        compute
            .backend
            .get(&job, 3000, "/payload")
            .ok_or(format!("http://{job}:3000 does not answer"))
    });
    let seconds = started.elapsed().as_secs_f64();
    assert_eq!(
        (response.code, response.body.as_slice()),
        (200, b"it is me".as_slice()),
        "{response}"
    );
    assert_eq!(compute.get(&job)["status"], "Running");
    compute.delete(&job);
    within(SOON, || match compute.backend.get(&job, 3000, "/payload") {
        None => Ok(()),
        Some(response) => Err(format!("a deleted job still answers: {response}")),
    });
    vec![format!(
        "http://{job}:3000 answers {seconds:.1} s after its POST, and no more after its DELETE"
    )]
}

pub fn resources_are_reserved_while_a_job_runs_and_released_after(
    cluster: &Cluster,
) -> Vec<String> {
    let mut etl = cluster.scheduler("dev", "etl");
    let job = name(&etl.start(json!({
        "payload": "trap 'exit 0' USR1; while :; do sleep 0.1; done",
        "resources": {"requests": {"cpu": "125m", "memory": "24Mi"}, "limits": {"cpu": "250m", "memory": "48Mi"}},
    })));
    etl.wait_until_started(&job);
    let selector = format!("batch.kubernetes.io/job-name={job}");
    let pods = objects("dev", &["pods", "-l", &selector]);
    assert_eq!(pods.len(), 1, "{pods:?}");
    assert_eq!(
        pods[0]["status"]["phase"], "Running",
        "{}",
        pods[0]["status"]
    );
    let resources = &pods[0]["spec"]["containers"][0]["resources"];
    let expected = json!({"requests": {"cpu": "125m", "memory": "24Mi"}, "limits": {"cpu": "250m", "memory": "48Mi"}});
    assert_eq!(*resources, expected);

    signal("dev", &job);
    etl.wait_for(&job, "Succeeded");
    // What a node has reserved is for the pods that are neither Succeeded nor Failed; the end is
    // told a moment before.
    let unfinished = "status.phase!=Succeeded,status.phase!=Failed";
    within(SOON, || {
        let holding = objects(
            "dev",
            &["pods", "-l", &selector, "--field-selector", unfinished],
        );
        match holding.first() {
            None => Ok(()),
            Some(pod) => Err(pod["status"].to_string()),
        }
    });
    vec![format!(
        "while it ran: {resources}; after its end no pod of it holds any"
    )]
}

pub fn a_job_that_uses_too_much_memory_says_so(cluster: &Cluster) -> Vec<String> {
    let mut etl = cluster.scheduler("dev", "etl");
    let job = etl.start(json!({
        "payload": "x=0123456789abcdef; while :; do x=$x$x; done",
        "resources": {"limits": {"memory": "16Mi"}},
    }));
    let job = etl.wait_for(&name(&job), "Failed");
    let message = job["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("OOMKilled"), "{job}");
    vec![format!("message: {message}")]
}

pub fn a_deleted_job_leaves_nothing(cluster: &Cluster) -> Vec<String> {
    let mut compute = cluster.scheduler("dev", "compute");
    let job = name(&compute.start(json!({"payload": "x"})));
    compute.wait_until_started(&job);
    let left = || {
        let namespace = crate::cluster::namespace("dev");
        let all = crate::cluster::kubectl(&[
            "get",
            "jobs,pods,secrets,services",
            "-o",
            "name",
            "-n",
            &namespace,
        ]);
        all.lines()
            .filter(|line| line.contains(&job))
            .map(str::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        left().len(),
        4,
        "a running job has a Job, a pod, a Secret and a Service: {:?}",
        left()
    );

    let started = Instant::now();
    let response = compute.delete(&job);
    assert_eq!(response.code, 200, "{response}");
    assert!(
        !compute
            .list()
            .iter()
            .any(|other| other["name"] == job.as_str()),
        "a deleted job is in the list"
    );
    for again in [
        compute.delete(&job),
        compute.call("GET", &format!("{JOBS}/{job}"), ""),
    ] {
        assert_eq!(again.code, 404, "{again}");
        assert_eq!(again.json()["reason"], "NotFound", "{again}");
    }
    within(SOON, || {
        Some(left())
            .filter(Vec::is_empty)
            .ok_or_else(|| format!("{:?}", left()))
    });
    let seconds = started.elapsed().as_secs_f64();
    vec![format!(
        "gone from the list at once, a second DELETE is a 404; Job, pod, Secret and Service gone within {seconds:.1} s"
    )]
}

pub fn a_job_that_cannot_start_says_why_within_5_seconds(cluster: &Cluster) -> Vec<String> {
    const LIMIT: Duration = Duration::from_secs(5);
    let repository = cluster
        .job_image
        .rsplit_once(':')
        .map_or(cluster.job_image.as_str(), |(repository, _)| repository);
    let cases = [
        (
            "an image that is not there",
            "etl",
            json!({"payload": "", "image": format!("{repository}:not-there")}),
            "ImagePull",
        ),
        (
            "more CPU than any node has",
            "etl",
            json!({"payload": "", "resources": {"requests": {"cpu": "1000"}}}),
            "Unschedulable",
        ),
        (
            "a pool of nodes that is not there",
            "etl",
            json!({"payload": "", "runtime": {"nodeType": "no-such-pool"}}),
            "Unschedulable",
        ),
        (
            "an image that runs as root",
            "report",
            json!({}),
            "CreateContainerConfigError",
        ),
    ];
    let mut proved = Vec::new();
    for (what, component, request, reason) in cases {
        let mut scheduler = cluster.scheduler("dev", component);
        let job = name(&scheduler.start(request));
        let started = Instant::now();
        let job = scheduler.wait(&job, LIMIT, |job| {
            job["message"]
                .as_str()
                .is_some_and(|m| m.contains(reason) || m.contains("ErrImage"))
        });
        let seconds = started.elapsed().as_secs_f64();
        assert_eq!(job["status"], "Running", "{job}");
        assert_eq!(scheduler.delete(&name(&job)).code, 200);
        proved.push(format!(
            "{what}, after {seconds:.1} s: {}",
            job["message"].as_str().unwrap()
        ));
    }
    proved
}
