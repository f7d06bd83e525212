//! What every backend does with batches: of a component whose jobs run their payload as a script.

use super::api::{Api, JOBS, Response};
use serde_json::{Value, json};

pub const BATCHES: &str = "/api/v1/batches";

/// A batch of jobs that run these scripts, with the ids `job-0`, `job-1` and so on.
pub fn of(scripts: &[&str]) -> Value {
    let numbered = scripts.iter().enumerate();
    let jobs = numbered.map(|(n, script)| json!({"jobId": format!("job-{n}"), "payload": script}));
    json!({"jobScheduleDescriptions": jobs.collect::<Vec<_>>()})
}

#[track_caller]
pub fn submit(api: &mut Api, batch: &Value) -> Value {
    done(api.ask("POST", BATCHES, &batch.to_string()))
}

#[track_caller]
pub fn done(response: Response) -> Value {
    assert_eq!(response.code, 200, "{}", response.json());
    response.json()
}

/// Who asks is refused so. Gives the message.
#[track_caller]
pub fn refused(response: Response, code: u16, reason: &str) -> String {
    let status = response.json();
    assert_eq!(
        (response.code, &status["reason"]),
        (code, &json!(reason)),
        "{status}"
    );
    status["message"].as_str().unwrap().to_string()
}

pub fn name(told: &Value) -> String {
    told["name"].as_str().unwrap().to_string()
}

pub fn path(batch: &Value, rest: &str) -> String {
    format!("{BATCHES}/{}{rest}", name(batch))
}

pub fn jobs(batch: &Value) -> &Vec<Value> {
    batch["jobStatuses"].as_array().unwrap()
}

pub fn statuses(batch: &Value) -> Vec<&str> {
    let jobs = jobs(batch).iter();
    jobs.map(|job| job["status"].as_str().unwrap()).collect()
}

/// The batch once all of its jobs have come to their end.
#[track_caller]
pub fn ended(api: &mut Api, batch: &Value) -> Value {
    let told = done(api.ask("GET", &path(batch, "?wait=60s"), ""));
    assert!(told["ended"].is_string(), "{told}");
    told
}

pub fn check(api: &mut Api) {
    a_batch_lives_and_goes(api);
    a_batch_is_stopped_and_run_again(api);
    a_request_that_comes_again_makes_no_second_batch(api);
    wrong_batches_are_refused_whole(api);
}

fn a_batch_lives_and_goes(api: &mut Api) {
    let request = json!({
        "batchId": "my-batch-42",
        "defaultRadixJobComponentConfig": {
            "timeLimitSeconds": 200, "backoffLimit": 1, "variables": {"EPOCHS": "5", "IN": "of all"}
        },
        "jobScheduleDescriptions": [
            {"jobId": "my-job-1", "payload": "echo $EPOCHS $IN > $JOB_RESULT_FILE; echo one", "variables": {"IN": "a"}},
            {"jobId": "my-job-2", "payload": "echo $EPOCHS $IN > $JOB_RESULT_FILE; exit 3", "backoffLimit": 0},
        ]
    });
    let new = submit(api, &request);
    let batch = name(&new);
    let parts: Vec<&str> = batch.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    assert!(lengths == [5, 16, 14, 8] && parts[0] == "batch", "{batch}");
    for (field, expected) in [
        ("batchId", json!("my-batch-42")),
        ("batchType", json!("batch")),
        ("updated", Value::Null),
        ("DeploymentName", json!("")),
    ] {
        assert_eq!(new.get(field), Some(&expected), "{field}: {new}");
    }
    for (number, job) in jobs(&new).iter().enumerate() {
        let full = name(job);
        let (of, short) = full.rsplit_once('-').unwrap();
        assert_eq!((of, short.len()), (batch.as_str(), 8), "{full}");
        assert_eq!(job["jobId"], format!("my-job-{}", number + 1));
        assert_eq!(job["batchName"], batch);
        assert_eq!(job.get("updated"), Some(&Value::Null));
    }
    let [one, two] = [0, 1].map(|number| name(&jobs(&new)[number]));

    let over = ended(api, &new);
    assert_eq!(over["status"], "Completed", "{over}");
    assert_eq!(statuses(&over), ["Succeeded", "Failed"]);
    assert_eq!(
        over["progress"],
        json!({"percent": 100, "finished": 2, "jobs": 2})
    );
    assert_eq!(jobs(&over)[0]["result"], "5 a\n");
    assert_eq!(jobs(&over)[1]["result"], "5 of all\n");
    assert_eq!(jobs(&over)[1]["podStatuses"][0]["exitCode"], 3);
    assert!(jobs(&over)[1]["ended"].is_string(), "{over}");
    let listed = done(api.ask("GET", BATCHES, ""));
    let listed = listed.as_array().unwrap();
    assert!(listed.contains(&over), "{listed:?} lacks {over}");
    let summary = done(api.ask("GET", &path(&new, "?summary=true"), ""));
    assert!(summary["jobStatuses"].is_null(), "{summary}");
    assert_eq!(summary["jobCounts"]["Failed"], 1);
    let listed = done(api.ask("GET", &format!("{BATCHES}?summary=true"), ""));
    assert!(listed.as_array().unwrap().contains(&summary), "{listed}");

    // A job of it by all its names.
    let short = one.strip_prefix(&format!("{batch}-")).unwrap();
    for job in [short, &one, &one.to_uppercase()] {
        let told = done(api.ask("GET", &path(&new, &format!("/jobs/{job}")), ""));
        assert_eq!(told, jobs(&over)[0]);
    }
    let as_job = api.job(&two);
    assert_eq!(
        (&as_job["ended"], &as_job["batchName"]),
        (&json!(""), &json!(batch))
    );
    assert!(as_job.get("updated").is_none(), "{as_job}");
    let singles = api.list();
    assert!(
        singles.iter().all(|job| job["batchName"].is_null()),
        "{singles:?}"
    );
    // On a connection of its own, since it comes in chunks.
    let mut other = Api::new(api.authority());
    let log = other.ask("GET", &format!("{JOBS}/{one}/logs"), "");
    assert_eq!(log.code, 200);
    let other = path(&new, "/jobs/none");
    assert!(refused(api.ask("GET", &other, ""), 404, "NotFound").contains("none"));

    // It goes whole, and none of it alone.
    let alone = api.ask("DELETE", &format!("{JOBS}/{one}"), "");
    assert!(refused(alone, 422, "Invalid").contains("not a single job"));
    let deleted = done(api.ask("DELETE", &path(&new, ""), ""));
    assert_eq!(
        deleted["message"],
        format!("batch {batch} successfully deleted")
    );
    let gone = refused(api.ask("GET", &path(&new, ""), ""), 404, "NotFound");
    assert!(gone.contains(&batch), "{gone}");
    refused(api.ask("DELETE", &path(&new, ""), ""), 404, "NotFound");
    refused(
        api.ask("GET", &format!("{JOBS}/{one}"), ""),
        404,
        "NotFound",
    );
}

fn a_batch_is_stopped_and_run_again(api: &mut Api) {
    let sleep = "trap 'exit 1' TERM; sleep 100 & wait";
    let batch = submit(api, &of(&["exit 0", "exit 3", sleep, sleep]));
    let first = name(&jobs(&batch)[0]);
    let early = done(api.ask("GET", &path(&batch, &format!("/jobs/{first}?wait=60s")), ""));
    assert_eq!(early["status"], "Succeeded", "{early}");
    let failed = name(&jobs(&batch)[1]);
    done(api.ask("GET", &format!("{JOBS}/{failed}?wait=60s"), ""));
    // A wait that is over before the batch is.
    let still = done(api.ask("GET", &path(&batch, "?wait=1"), ""));
    assert_eq!(
        (&still["status"], &still["ended"]),
        (&json!("Active"), &Value::Null)
    );

    let third = name(&jobs(&batch)[2]);
    let short = third.rsplit_once('-').unwrap().1;
    let stopped = done(api.ask("POST", &path(&batch, &format!("/jobs/{short}/stop")), ""));
    let expected = format!(
        "job {third} in the batch {} successfully stopped",
        name(&batch)
    );
    assert_eq!(stopped["message"], expected);
    let stopped = done(api.ask("POST", &path(&batch, "/stop"), ""));
    assert_eq!(
        stopped["message"],
        format!("batch {} successfully stopped", name(&batch))
    );
    let over = ended(api, &batch);
    assert_eq!(
        statuses(&over),
        ["Succeeded", "Failed", "Stopped", "Stopped"]
    );
    let again = refused(
        api.ask("POST", &path(&batch, "/stop"), ""),
        400,
        "BadRequest",
    );
    assert!(again.contains("with the status Completed"), "{again}");
    refused(
        api.ask("POST", &path(&batch, &format!("/jobs/{first}/stop")), ""),
        400,
        "BadRequest",
    );

    // What did not succeed runs again: the stopped ones under their names, in their places.
    let again = done(api.ask("POST", &path(&batch, "/restart"), ""));
    let ids: Vec<_> = jobs(&again)
        .iter()
        .map(|job| job["jobId"].clone())
        .collect();
    assert_eq!(ids, ["job-0", "job-1", "job-2", "job-3"]);
    assert_eq!(name(&jobs(&again)[0]), first);
    assert_eq!(name(&jobs(&again)[2]), third);
    assert_eq!(jobs(&again)[1]["restartOf"], failed);
    assert_eq!(again["ended"], Value::Null, "{again}");
    done(api.ask("POST", &format!("{BATCHES}/stop"), ""));
    let over = ended(api, &batch);
    assert_eq!(statuses(&over)[0], "Succeeded");
    assert_eq!(statuses(&over)[2..], ["Stopped", "Stopped"]);
    done(api.ask("POST", &path(&batch, &format!("/jobs/{first}/restart")), ""));
    let over = ended(api, &batch);
    assert_eq!(jobs(&over)[0]["restartOf"], first);
    let all = done(api.ask("POST", &path(&batch, "/restart?all=true"), ""));
    assert!(
        statuses(&all)
            .iter()
            .all(|s| matches!(*s, "Waiting" | "Running")),
        "{all}"
    );
    done(api.ask("DELETE", &path(&batch, ""), ""));
}

fn a_request_that_comes_again_makes_no_second_batch(api: &mut Api) {
    let key = format!("of-a-batch-{:x}", fastrand::u64(..));
    let host = api.authority().to_string();
    let headers = [("Host", host.as_str()), ("Idempotency-Key", &key)];
    let body = of(&["exit 0", "exit 0"]).to_string();
    let first = done(api.ask_with("POST", BATCHES, &headers, &body));
    let names: Vec<String> = jobs(&first).iter().map(name).collect();
    let over = ended(api, &first);
    let again = done(api.ask_with("POST", BATCHES, &headers, &body));
    assert_eq!(again, over);
    assert_eq!(jobs(&again).iter().map(name).collect::<Vec<_>>(), names);
    let other = of(&["exit 0"]).to_string();
    let other = api.ask_with("POST", BATCHES, &headers, &other);
    assert!(refused(other, 422, "Invalid").contains(&name(&first)));
    done(api.ask("DELETE", &path(&first, ""), ""));
    // With the batch its key is forgotten.
    let new = done(api.ask_with("POST", BATCHES, &headers, &body));
    assert_ne!(name(&new), name(&first));
    done(api.ask("DELETE", &path(&new, ""), ""));
}

fn wrong_batches_are_refused_whole(api: &mut Api) {
    let before = done(api.ask("GET", BATCHES, ""));
    let wrong = vec![json!({"jobId": "a", "timeLimitSeconds": 0}); 25];
    let wrong = json!({"jobScheduleDescriptions": wrong}).to_string();
    let many = json!({"jobScheduleDescriptions": vec![json!({}); 1001]}).to_string();
    let large = "x".repeat(1 << 20);
    let large = |count: usize| {
        let mut jobs = vec![json!({"payload": large}); count];
        jobs.push(json!({"payload": "x"}));
        json!({"jobScheduleDescriptions": jobs}).to_string()
    };
    let one_too_large = json!({"jobScheduleDescriptions": [
        {}, {"jobId": "b", "payload": "x".repeat((1 << 20) + 1)}
    ]});
    for (body, code, reason, named) in [
        ("{", 400, "BadRequest", "not JSON"),
        ("", 422, "Invalid", "jobScheduleDescriptions: is missing"),
        ("{}", 422, "Invalid", "jobScheduleDescriptions: is missing"),
        (
            r#"{"jobScheduleDescriptions": []}"#,
            422,
            "Invalid",
            "1 to 1000 items, not 0",
        ),
        ("[]", 422, "Invalid", "must be an object"),
        (&many, 422, "Invalid", "1 to 1000 items, not 1001"),
        (
            &wrong,
            422,
            "Invalid",
            "jobScheduleDescriptions[19].timeLimitSeconds",
        ),
        (&wrong, 422, "Invalid", "(jobId a)"),
        (&wrong, 422, "Invalid", "others are wrong as well"),
        (&large(16), 413, "RequestEntityTooLarge", "16777216"),
        (
            &one_too_large.to_string(),
            413,
            "RequestEntityTooLarge",
            "of job 1 (jobId b)",
        ),
        (
            &"x".repeat(27_262_977),
            413,
            "RequestEntityTooLarge",
            "27262976",
        ),
    ] {
        let message = refused(api.ask("POST", BATCHES, body), code, reason);
        assert!(message.contains(named), "{message}");
    }
    assert_eq!(done(api.ask("GET", BATCHES, "")), before);
    assert!(
        !refused(
            api.ask("POST", JOBS, &one_too_large.to_string()),
            422,
            "Invalid"
        )
        .is_empty()
    );
    let jobs_body = json!({"payload": "x".repeat(7 << 20)}).to_string();
    refused(
        api.ask("POST", JOBS, &jobs_body),
        413,
        "RequestEntityTooLarge",
    );
}
