//! Local mode as its users meet it: the built binary on this machine, jobs that are real processes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};
use support::api::{self, JOBS};
use support::eventually;
use support::local::{Place, config, free_port};

/// Runs `sh -c script` unless the request says otherwise.
fn shell(script: &str) -> Value {
    json!({"command": ["sh", "-c", script]})
}

fn name_of(job: &Value) -> String {
    job["name"].as_str().unwrap().to_string()
}

const TRUE: &str = "command: ['true']\npayload: {path: /compute/args}";

/// What a job has printed.
fn log(place: &Place, component: &str, job: &str, attempt: usize) -> String {
    let path = format!("test-dev/{component}/logs/{job}.{attempt}.log");
    fs::read_to_string(place.data().join(path)).unwrap()
}

#[test]
fn the_api_is_that_of_every_backend() {
    let place = Place::new(&[("compute", TRUE)]);
    let scheduler = place.start(&[]);
    api::check(&mut scheduler.api(), &json!({"payload": "{\"x\": 10}"}));
    scheduler.end();
}

#[test]
fn a_job_gets_its_payload_to_the_byte_and_its_variables() {
    let place = Place::new(&[(
        "compute",
        "payload: {path: /compute/args}\n\
         variables: {A: one, B: $(A) two}\n\
         ports: [{name: http, port: 3000}]\n\
         command: [sh, -c]\n\
         args: ['cat \"$JOB_PAYLOAD_FILE\" > payload.copy; stat -c %a \"$JOB_PAYLOAD_FILE\"; echo $(B); env']",
    )]);
    let scheduler = place.start(&[]);
    let mut api = scheduler.api();
    let payload = "{\"x\": 1}\n\u{0}æ 𝄞\r\n";
    let name = name_of(&api.submit(&json!({"payload": payload, "variables": {"C": "3"}})));
    let done = api.wait_for(&name, "Succeeded");
    assert_eq!(done["podStatuses"][0]["exitCode"], 0, "{done}");

    let folder = place.data().join("test-dev/compute/jobs").join(&name);
    assert_eq!(
        fs::read_to_string(folder.join("payload.copy")).unwrap(),
        payload
    );
    let output = log(&place, "compute", &name, 1);
    assert!(output.starts_with("600\none two\n"), "{output}");
    let variables: BTreeSet<&str> = output.lines().collect();
    for expected in [
        "A=one",
        "B=one two",
        "C=3",
        "RADIX_APP=test",
        "RADIX_ENVIRONMENT=dev",
        "RADIX_COMPONENT=compute",
        "RADIX_PORTS=(3000)",
        "RADIX_PORT_NAMES=(http)",
        &format!("RADIX_JOB_NAME={name}"),
    ] {
        assert!(variables.contains(expected), "{expected} in {output}");
    }
    let scratch = |variable: &&str| variable.starts_with("SCRATCH=");
    assert!(
        !variables.iter().any(scratch),
        "the scheduler's own: {output}"
    );
    let mode = fs::metadata(place.data()).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}: others may look in");
    scheduler.end();
}

/// However many come within a second, also after the scheduler was killed.
#[test]
fn jobs_are_listed_in_the_order_in_which_they_came_or_those_that_are_asked_for() {
    let place = Place::new(&[("compute", TRUE)]);
    let scheduler = place.start(&["--cpus", "1", "--history-limit", "30"]);
    let mut api = scheduler.api();
    let mut submit = |number: usize| {
        let mut request = shell(["exit 0", "exit 3", "sleep 1000"][number / 10]);
        request["jobId"] = json!(format!("job {}", number % 10));
        // Within the queue they change places.
        request["priority"] = json!([number % 3, number % 3, 0][number / 10]);
        name_of(&api.submit(&request))
    };
    let names: Vec<String> = (0..30).map(&mut submit).collect();
    let ask = |api: &mut api::Api, query: &str| -> Vec<String> {
        let answer = api.ask("GET", &format!("{JOBS}?{query}"), "");
        assert_eq!(answer.code, 200, "{}", answer.json());
        answer
            .json()
            .as_array()
            .unwrap()
            .iter()
            .map(name_of)
            .collect()
    };
    for (number, name) in names.iter().enumerate().take(20) {
        api.wait_for(name, ["Succeeded", "Failed"][number / 10]);
    }
    let check = |api: &mut api::Api| {
        assert_eq!(ask(api, ""), names);
        assert_eq!(ask(api, "status=Failed"), names[10..20]);
        assert_eq!(ask(api, "status=Succeeded,Failed"), names[..20]);
        assert_eq!(ask(api, "status=Succeeded&status=Failed&x=y"), names[..20]);
        assert_eq!(
            ask(api, "jobId=job%207"),
            [7, 17, 27].map(|n| names[n].clone())
        );
        assert_eq!(
            ask(api, "jobId=job+7&limit=2"),
            [17, 27].map(|n| names[n].clone())
        );
        assert_eq!(ask(api, "jobId=none"), [""; 0]);
        assert_eq!(ask(api, "limit=5"), names[25..]);
        assert_eq!(ask(api, "limit=500"), names);
        assert_eq!(ask(api, "limit=3&status=Failed"), names[17..20]);
    };
    check(&mut api);
    for (query, allowed) in [
        (
            "status=Done",
            "Waiting, Running, Stopping, Stopped, Succeeded, Failed",
        ),
        ("status=", "Waiting, Running"),
        ("jobId=", "1 to 253 characters"),
        ("limit=0", "from 1 to 1000000"),
        ("limit=all", "from 1 to 1000000"),
        ("Limit=1", "did you mean `limit`?"),
    ] {
        let answer = api.ask("GET", &format!("{JOBS}?{query}"), "");
        let message = answer.json()["message"].to_string();
        assert_eq!(answer.code, 400, "{query}: {message}");
        assert!(message.contains(allowed), "{query}: {message}");
    }
    scheduler.kill();
    let scheduler = place.start(&["--cpus", "1", "--history-limit", "30"]);
    let mut api = scheduler.api();
    // The one that ran has failed.
    assert_eq!(ask(&mut api, ""), names);
    assert_eq!(ask(&mut api, "status=Succeeded"), names[..10]);
    scheduler.end();
}

/// What a list shows of a job is what the job shows of itself, at any time.
#[test]
fn a_list_is_as_new_as_its_jobs() {
    let place = Place::new(&[("compute", TRUE)]);
    let scheduler = place.start(&["--cpus", "1"]);
    let mut api = scheduler.api();
    let go = place.scratch.join("go");
    let script = format!("until [ -e {} ]; do sleep 0.01; done", go.display());
    let names = [0, 1, 2].map(|_| name_of(&api.submit(&shell(&script))));
    let check = |api: &mut api::Api, expected: [Value; 3]| {
        eventually("the list is as it is to be", || {
            let list = api.list();
            let shown: Vec<Value> = list
                .iter()
                .map(|job| json!([job["status"], job["queuePosition"]]))
                .collect();
            (shown == expected).then_some(())
        });
        for (listed, name) in api.list().iter().zip(&names) {
            assert_eq!(*listed, api.job(name));
        }
    };
    let running = || json!(["Running", null]);
    let stopped = || json!(["Stopped", null]);
    let waiting = |position: usize| json!(["Waiting", position]);
    check(&mut api, [running(), waiting(1), waiting(2)]);
    api.ask("POST", &format!("{JOBS}/{}/stop", names[1]), "");
    check(&mut api, [running(), stopped(), waiting(1)]);
    api.ask("POST", &format!("{JOBS}/{}/restart", names[1]), "");
    check(&mut api, [running(), waiting(2), waiting(1)]);
    fs::write(&go, "").unwrap();
    check(&mut api, [(); 3].map(|()| json!(["Succeeded", null])));
    scheduler.end();
}

/// The caller's trace is the job's, whenever it runs.
#[test]
fn a_job_is_part_of_its_requests_trace() {
    let place = Place::new(&[("compute", TRUE)]);
    let scheduler = place.start(&[]);
    let mut api = scheduler.api();
    let host = format!("localhost:{}", place.ports[0]);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut submit = |headers: &[(&str, &str)], request: &Value| {
        let headers = [&[("Host", host.as_str())], headers].concat();
        let answer = api.ask_with("POST", JOBS, &headers, &request.to_string());
        assert_eq!(answer.code, 200, "{}", answer.json());
        name_of(&answer.json())
    };
    let print = "echo \"[$TRACEPARENT][$TRACESTATE]\"";
    let valid = [
        ("Traceparent", parent),
        ("tracestate", "a=$(HOME)$$, b=2"),
        ("TraceState", "c=3"),
    ];
    let traced = submit(&valid, &shell(print));
    let only_state = submit(&valid[1..], &shell(print));
    let twice = submit(&[valid[0], valid[0]], &shell(print));
    let mut own = shell(print);
    own["variables"] = json!({"TRACESTATE": "mine"});
    let own = submit(&valid, &own);
    let stopped = submit(&valid, &shell(&format!("{print}; touch ready; sleep 1000")));
    let expected = format!("[{parent}][a=$(HOME)$$,b=2,c=3]\n");
    for (job, expected) in [
        (&traced, expected.as_str()),
        (&only_state, "[][]\n"),
        (&twice, "[][]\n"),
        (&own, "[][mine]\n"),
    ] {
        api.wait_for(job, "Succeeded");
        assert_eq!(log(&place, "compute", job, 1), expected);
    }

    let ready = place
        .data()
        .join(format!("test-dev/compute/jobs/{stopped}/ready"));
    eventually("the job is ready", || ready.exists().then_some(()));
    api.ask("POST", &format!("{JOBS}/{stopped}/stop"), "");
    api.wait_for(&stopped, "Stopped");
    // Another process, which has nothing but what is on disk.
    scheduler.end();
    let scheduler = place.start(&[]);
    let mut api = scheduler.api();
    let again = api
        .ask("POST", &format!("{JOBS}/{traced}/restart"), "")
        .json();
    let again = name_of(&again);
    api.wait_for(&again, "Succeeded");
    assert_eq!(log(&place, "compute", &again, 1), expected);
    api.ask("POST", &format!("{JOBS}/{stopped}/restart"), "");
    eventually("the second attempt has said it", || {
        let path = format!("test-dev/compute/logs/{stopped}.2.log");
        let said = fs::read_to_string(place.data().join(path)).ok()?;
        said.ends_with('\n').then(|| assert_eq!(said, expected))
    });
    scheduler.end();
}

/// What it writes to the file that `JOB_RESULT_FILE` names.
#[test]
fn a_job_leaves_a_result_that_is_told_with_each_attempt() {
    let place = Place::new(&[("compute", TRUE)]);
    let scheduler = place.start(&["--log-level", "debug"]);
    let mut api = scheduler.api();
    let check = |api: &mut api::Api, script: &str, status: &str, result: &str, is_cut: bool| {
        let name = name_of(&api.submit(&shell(script)));
        let job = api.wait_for(&name, status);
        for told in [&job, &job["podStatuses"][0]] {
            assert_eq!(told["result"].as_str().unwrap_or_default(), result, "{job}");
            assert_eq!(told["resultTruncated"] == true, is_cut, "{job}");
        }
        let message = job["message"].as_str().unwrap_or_default();
        assert_eq!(
            message,
            if status == "Failed" {
                "exit code 3"
            } else {
                ""
            }
        );
        name
    };
    let said = "printf 'a result' > $JOB_RESULT_FILE";
    check(&mut api, said, "Succeeded", "a result", false);
    check(
        &mut api,
        &format!("{said}; exit 3"),
        "Failed",
        "a result",
        false,
    );
    check(&mut api, "true", "Succeeded", "", false);
    check(&mut api, "mkdir $JOB_RESULT_FILE", "Succeeded", "", false);
    check(&mut api, "mkfifo $JOB_RESULT_FILE", "Succeeded", "", false);
    let binary = "printf 'a\\377b' > $JOB_RESULT_FILE";
    check(&mut api, binary, "Succeeded", "a\u{fffd}b", false);
    let (all, more) = ("y\n".repeat(2048), "yes | head -n 2048 > $JOB_RESULT_FILE");
    check(&mut api, more, "Succeeded", &all, false);
    let long = check(
        &mut api,
        &format!("{more}; printf abc >> $JOB_RESULT_FILE"),
        "Succeeded",
        &format!("\n{}abc", &all[4..]),
        true,
    );

    // Each attempt has its own, and the job that of the last.
    let script =
        "if [ -e tried ]; then exit 3; fi; touch tried; printf first > $JOB_RESULT_FILE; exit 1";
    let mut request = shell(script);
    request["backoffLimit"] = json!(1);
    let name = name_of(&api.submit(&request));
    let tried = api.wait_for(&name, "Failed");
    assert_eq!(tried["podStatuses"][0]["result"], "first", "{tried}");
    assert!(tried["podStatuses"][1]["result"].is_null(), "{tried}");
    assert!(tried["result"].is_null(), "{tried}");

    let before = [api.job(&long), tried];
    scheduler.kill();
    let scheduler = place.start(&[]);
    let mut api = scheduler.api();
    assert_eq!(
        [api.job(&long), api.job(&name)],
        before,
        "they outlive a kill"
    );
    scheduler.end();
    let log = place.log();
    assert!(log.contains("event=no-result"), "{log}");
    for secret in ["a result", "first"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

/// It had done its work, as far as it came.
#[test]
fn a_job_that_is_ended_leaves_its_result_too() {
    let place = Place::new(&[("compute", TRUE)]);
    let scheduler = place.start(&[]);
    let mut api = scheduler.api();
    let script = "printf half > $JOB_RESULT_FILE; touch ready; sleep 1000";
    let ready = |name: &str| {
        let ready = place
            .data()
            .join(format!("test-dev/compute/jobs/{name}/ready"));
        eventually("the job is ready", || ready.exists().then_some(()));
    };
    let stopped = name_of(&api.submit(&shell(script)));
    ready(&stopped);
    api.ask("POST", &format!("{JOBS}/{stopped}/stop"), "");
    let stopped = api.wait_for(&stopped, "Stopped");
    assert_eq!(stopped["result"], "half", "{stopped}");
    let running = name_of(&api.submit(&shell(script)));
    ready(&running);
    scheduler.kill();

    let scheduler = place.start(&[]);
    let killed = scheduler.api().job(&running);
    assert_eq!(
        (&killed["status"], &killed["result"]),
        (&json!("Failed"), &json!("half"))
    );
    scheduler.end();
}

/// Where a private mount namespace is allowed, as the table printed at start says.
#[test]
fn a_job_sees_its_payload_at_its_path_where_the_machine_allows_it() {
    let scratch = support::Scratch::new();
    let existing = scratch.join("args");
    fs::create_dir(&existing).unwrap();
    fs::write(existing.join("other"), "").unwrap();
    let lines = |path: &Path| {
        let print = "echo $JOB_PAYLOAD_FILE; cat $JOB_PAYLOAD_FILE; ls -d /usr /proc/self; pwd";
        format!(
            "payload: {{path: {}}}\ncommand: [sh, -c, '{print}']",
            path.display()
        )
    };
    // Not there, and in the root; there; not there, and in a folder that the job may write into.
    let paths = [
        Path::new("/job-scheduler-test/args"),
        &existing,
        &scratch.join("none/args"),
    ];
    let texts = paths.map(lines);
    let place = Place::new(&[("a", &texts[0]), ("b", &texts[1]), ("c", &texts[2])]);
    let scheduler = place.start(&[]);
    let is_allowed = !place
        .log()
        .contains("/job-scheduler-test/args cannot be made here");
    for (component, path) in paths.into_iter().enumerate() {
        let mut api = scheduler.api_of(component);
        let name = name_of(&api.submit(&json!({"payload": "here\n"})));
        api.wait_for(&name, "Succeeded");
        let own = ["a", "b", "c"][component];
        let folder = place.data().join(format!("test-dev/{own}/jobs/{name}"));
        let file = match is_allowed && component < 2 {
            true => path.join("payload"),
            false => folder.join(path.strip_prefix("/").unwrap()).join("payload"),
        };
        assert_eq!(
            log(&place, own, &name, 1),
            format!(
                "{}\nhere\n/proc/self\n/usr\n{}\n",
                file.display(),
                folder.display()
            )
        );
        // The machine's own folders are as before.
        assert_eq!(path.exists(), component == 1);
    }
    assert_eq!(fs::read_dir(&existing).unwrap().count(), 1);
    scheduler.end();
}

#[test]
fn a_failed_job_says_how_it_ended() {
    let place = Place::new(&[("compute", TRUE)]);
    let scheduler = place.start(&["--grace-seconds", "1"]);
    let mut api = scheduler.api();
    let cases = [
        (shell("exit 3"), 3, "exit code 3"),
        (shell("kill -9 $$$$"), 137, "killed by SIGKILL"),
        (
            json!({"command": ["/nowhere/to/be/found"]}),
            128,
            "StartError: /nowhere/to/be/found: No such file",
        ),
        (
            json!({"command": ["sleep", "100"], "timeLimitSeconds": 1}),
            143,
            "DeadlineExceeded: the job ran longer than its time limit",
        ),
        // It ignores SIGTERM.
        (
            json!({"command": ["sh", "-c", "trap '' TERM; sleep 100 & wait; sleep 100"], "timeLimitSeconds": 1}),
            137,
            "DeadlineExceeded",
        ),
    ];
    for (request, code, message) in cases {
        let name = name_of(&api.submit(&request));
        let job = api.wait_for(&name, "Failed");
        assert_eq!(job["podStatuses"][0]["exitCode"], code, "{job}");
        assert!(
            job["message"].as_str().unwrap().starts_with(message),
            "{job}"
        );
        assert_eq!(job["ended"], "", "as the first version has it");
    }
    scheduler.end();
    place.no_process_is_left();
}

#[test]
fn a_failed_job_is_tried_again_as_its_limits_and_policy_say() {
    let place = Place::new(&[("compute", TRUE)]);
    let scheduler = place.start(&[]);
    let mut api = scheduler.api();
    // The first attempt fails, the second one finds what it left.
    let request = |limit: u32| {
        let mut request = shell("mkdir tried");
        request["backoffLimit"] = limit.into();
        request
    };
    let mut again = shell("test -e tried || { touch tried; exit 1; }");
    again["backoffLimit"] = 1.into();
    let name = name_of(&api.submit(&again));
    let job = api.wait_for(&name, "Succeeded");
    assert_eq!(job["podStatuses"].as_array().unwrap().len(), 2, "{job}");
    assert_eq!(job["failed"], 1);

    let mut request = request(5);
    request["command"] = json!(["sh", "-c", "exit 42"]);
    request["failurePolicy"] = json!({"rules": [
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    ]});
    let name = name_of(&api.submit(&request));
    let job = api.wait_for(&name, "Failed");
    assert_eq!(job["podStatuses"].as_array().unwrap().len(), 1, "{job}");
    scheduler.end();
}

/// A job that is stopped before it is tried again, and restarted, runs once, in the room for one.
#[test]
fn a_restart_before_a_retry_takes_no_more_room() {
    let place = Place::new(&[("compute", TRUE)]);
    let scheduler = place.start(&["--cpus", "2"]);
    let mut api = scheduler.api();
    let mut request = shell("test -e tried && exec sleep 3; touch tried; exit 1");
    request["backoffLimit"] = 3.into();
    let name = name_of(&api.submit(&request));
    eventually("it has failed", || {
        (api.job(&name)["failed"] == 1).then_some(())
    });
    for what in ["stop", "restart"] {
        let answer = api.ask("POST", &format!("{JOBS}/{name}/{what}"), "");
        assert_eq!(answer.code, 200, "{}", answer.json());
    }
    let job = api.wait_for(&name, "Succeeded");
    assert_eq!(job["podStatuses"].as_array().unwrap().len(), 2, "{job}");
    for _ in 0..2 {
        let next = name_of(&api.submit(&shell("sleep 1000")));
        assert_eq!(api.job(&next)["status"], "Running");
    }
    scheduler.end();
}

/// What an attempt puts in the place of its payload is neither waited for nor written to.
#[test]
fn a_payload_is_written_anew_for_each_attempt() {
    let place = Place::new(&[("compute", TRUE)]);
    let scheduler = place.start(&[]);
    let mut api = scheduler.api();
    for replaced in ["mkfifo", "ln -s ../kept"] {
        let script = format!(
            "test -e tried && {{ cat \"$JOB_PAYLOAD_FILE\"; exit 0; }}; \
             touch tried; echo mine > ../kept; \
             for file in payload compute/args/payload; do \
             test -e $file && rm $file && {replaced} $file; done; exit 1"
        );
        let mut request = shell(&script);
        request["backoffLimit"] = 1.into();
        request["payload"] = "the payload".into();
        let name = name_of(&api.submit(&request));
        api.wait_for(&name, "Succeeded");
        assert_eq!(log(&place, "compute", &name, 2), "the payload");
    }
    let kept = place.data().join("test-dev/compute/jobs/kept");
    assert_eq!(fs::read_to_string(kept).unwrap(), "mine\n");
    scheduler.end();
}

#[test]
fn jobs_wait_for_what_others_have_reserved_and_start_in_order() {
    let lines = "command: ['true']\nresources: {requests: {cpu: 1, memory: 1Gi}}";
    let place = Place::new(&[("first", lines), ("second", lines)]);
    let scheduler = place.start(&["--cpus", "2", "--memory", "4Gi", "--grace-seconds", "1"]);
    let (mut first, mut second) = (scheduler.api_of(0), scheduler.api_of(1));
    let hold = json!({"command": ["sleep", "1000"]});
    let held = name_of(&first.submit(&hold));
    assert_eq!(first.job(&held)["status"], "Running");

    let mut large = hold.clone();
    large["resources"] = json!({"requests": {"cpu": 2}});
    let large = second.submit(&large);
    assert_eq!(large["status"], "Waiting");
    assert_eq!(
        large["message"],
        "position 1 of the queue: needs 2 CPU, 1 of 2 free"
    );
    assert_eq!(large["started"], "");
    assert_eq!(large["queuePosition"], 1);
    // One CPU is free, and this one would fit: it does not overtake.
    let small = first.submit(&hold);
    assert_eq!(
        small["message"],
        "position 2 of the queue: needs 1 CPU, 1 of 2 free; needs 1Gi of memory, 3Gi of 4Gi free"
    );
    assert_eq!(small["queuePosition"], 2);
    let urgent = json!({"command": ["sleep", "1000"], "priority": 1});
    let urgent = first.submit(&urgent);
    // At the head of the queue, it may have been let in before the answer.
    assert!(
        urgent["status"] == "Running" || urgent["queuePosition"] == 1,
        "{urgent}"
    );
    let urgent = name_of(&urgent);
    let urgent_runs = first.wait_for(&urgent, "Running");
    assert!(urgent_runs["queuePosition"].is_null(), "{urgent_runs}");
    assert_eq!(
        first.ask("DELETE", &format!("{JOBS}/{urgent}"), "").code,
        200
    );

    assert_eq!(first.ask("DELETE", &format!("{JOBS}/{held}"), "").code, 200);
    second.wait_for(&name_of(&large), "Running");
    let small = first.wait_for(&name_of(&small), "Waiting");
    eventually("its new place", || {
        let job = first.job(&name_of(&small));
        let message = job["message"].as_str().unwrap().to_string();
        message
            .starts_with("position 1 of the queue: needs 1 CPU, 0 of 2 free")
            .then_some(())
    });
    assert_eq!(
        second
            .ask("DELETE", &format!("{JOBS}/{}", name_of(&large)), "")
            .code,
        200
    );
    first.wait_for(&name_of(&small), "Running");

    for (resource, amount, there) in [("cpu", "3", "2"), ("memory", "5Gi", "4Gi")] {
        let request = json!({"resources": {"requests": {resource: amount}}});
        let response = first.ask("POST", JOBS, &request.to_string());
        let message = response.json()["message"].to_string();
        assert_eq!(response.code, 422, "{message}");
        assert!(
            message.contains(resource)
                && message.contains(&format!("more than the {there} that there is")),
            "{message}"
        );
    }
    scheduler.end();
    place.no_process_is_left();
}

#[test]
fn what_is_configured_is_told_and_of_secrets_the_names() {
    let lines = "image: a:{imageTagName}\n\
                 imageTagName: 1.2\n\
                 command: ['true']\n\
                 secrets: [DB_PASSWORD]\n\
                 variables: {LEVEL: info}\n\
                 ports: [{name: http, port: 3000}]\n\
                 resources: {requests: {cpu: 100m}}\n\
                 timeLimitSeconds: 60\n\
                 backoffLimit: 2\n\
                 failurePolicy: {rules: [{action: Ignore, onExitCodes: {operator: NotIn, values: [0, 2]}}]}\n\
                 safeToRestart: false\n\
                 node: {gpu: 'nvidia-v100, -nvidia-k80', gpuCount: 2}\n\
                 runtime: {architecture: arm64}\n\
                 runAsUser: 1000\n\
                 batchStatusRules: [{condition: Any, operator: In, jobStatuses: [Failed], batchStatus: Failed}]\n\
                 readOnlyFileSystem: true\n\
                 volumeMounts: [{name: tmp, path: /tmp, emptyDir: {}}, {name: s, path: /s, emptyDir: {sizeLimit: 1Gi}}]";
    let place = Place::new(&[("compute", lines), ("other", "command: ['true']")]);
    let scheduler = place.start_with(&[], &[("DB_PASSWORD", "hunter2")]);
    let url = |number: usize| format!("http://127.0.0.1:{}/", place.ports[number]);
    let siblings = json!([{"name": "compute", "url": url(0)}, {"name": "other", "url": url(1)}]);
    let limits = json!({"history": 10, "jobs": 10000, "running": 0, "waiting": 10000});
    let expected = json!({
        "app": "test", "environment": "dev", "name": "compute", "version": "0.1.0", "schedulerPort": place.ports[0],
        "image": "a:{imageTagName}", "imageTagName": "1.2", "command": ["true"], "secrets": ["DB_PASSWORD"],
        "variables": {"LEVEL": "info"}, "ports": {"http": 3000}, "resources": {"requests": {"cpu": "100m"}, "limits": {}},
        "timeLimitSeconds": 60, "backoffLimit": 2, "safeToRestart": false,
        "failurePolicy": {"rules": [{"action": "Ignore", "onExitCodes": {"operator": "NotIn", "values": [0, 2]}}]},
        "node": {"gpu": "nvidia-v100,-nvidia-k80", "gpuCount": "2"}, "runtime": {"architecture": "arm64"},
        "runAsUser": 1000, "readOnlyFileSystem": true,
        "volumeMounts": [
            {"name": "tmp", "path": "/tmp", "emptyDir": {}},
            {"name": "s", "path": "/s", "emptyDir": {"sizeLimit": "1Gi"}},
        ],
        "batchStatusRules": [
            {"condition": "Any", "operator": "In", "jobStatuses": ["Failed"], "batchStatus": "Failed"},
        ],
        "limits": limits, "siblings": siblings,
    });
    let told = scheduler.api().ask("GET", "/api/v1/component", "").json();
    assert_eq!(told, expected);
    let least = json!({
        "app": "test", "environment": "dev", "name": "other", "version": "0.1.0", "schedulerPort": place.ports[1],
        "command": ["true"], "secrets": [], "variables": {}, "ports": {}, "readOnlyFileSystem": false, "volumeMounts": [],
        "batchStatusRules": [],
        "limits": limits, "siblings": siblings,
    });
    let told = scheduler
        .api_of(1)
        .ask("GET", "/api/v1/component", "")
        .json();
    assert_eq!(told, least);
    scheduler.end();
}

#[test]
fn what_happens_is_counted() {
    let place = Place::new(&[("compute", TRUE)]);
    let scheduler = place.start(&["--cpus", "1"]);
    let mut api = scheduler.api();
    let first = api.submit(&shell("sleep 0.3"));
    let waited = api.submit(&shell("exit 3"));
    assert_eq!(waited["status"], "Waiting");
    api.wait_for(&name_of(&waited), "Failed");
    api.wait_for(&name_of(&first), "Succeeded");
    let text = api.ask("GET", "/metrics", "").body;
    let text = String::from_utf8(text).unwrap();
    for line in [
        "job_scheduler_build_info{version=\"0.1.0\"} 1",
        "job_scheduler_jobs{status=\"Failed\"} 1",
        "job_scheduler_submits_total{outcome=\"created\"} 2",
        "job_scheduler_finishes_total{outcome=\"failed\"} 1",
        "job_scheduler_finishes_total{outcome=\"succeeded\"} 1",
        "job_scheduler_retired_total 0",
        "job_scheduler_queue_wait_seconds_bucket{le=\"0.05\"} 0",
        "job_scheduler_queue_wait_seconds_bucket{le=\"+Inf\"} 1",
        "job_scheduler_queue_wait_seconds_count 1",
        "job_scheduler_http_request_duration_seconds_count{route=\"create\",code=\"200\"} 2",
        "job_scheduler_watch_restarts_total{kind=\"jobs\"} 0",
        "job_scheduler_watch_relists_total{kind=\"pods\"} 0",
        "job_scheduler_watch_last_event_timestamp_seconds{kind=\"pods\"} 0",
        "# TYPE job_scheduler_kubernetes_request_duration_seconds histogram",
        "# TYPE process_resident_memory_bytes gauge",
        "# TYPE process_open_fds gauge",
    ] {
        let there = text.lines().any(|written| written == line);
        assert!(there, "{line} is not in\n{text}");
    }
    scheduler.end();
}

/// The jobs themselves say when they begin and end, in one file.
#[test]
fn a_thousand_jobs_run_once_each_and_never_more_at_once_than_there_is_room_for() {
    const JOBS_IN_ALL: usize = 1000;
    const AT_ONCE: usize = 3;
    let place = Place::new(&[(
        "compute",
        "command: [sh, -c, 'echo \"+ $RADIX_JOB_NAME\" >> $RUNS; $THEN; echo \"- $RADIX_JOB_NAME\" >> $RUNS']\n\
         resources: {requests: {cpu: 1}}",
    )]);
    let runs = place.scratch.join("runs");
    let scheduler = place.start(&["--cpus", &AT_ONCE.to_string(), "--history-limit", "2000"]);
    let started = Instant::now();
    let names: BTreeSet<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut api = scheduler.api();
                    let submit = |number| {
                        // A few take long enough to meet, however slow the machine is.
                        let then = if number % 25 == 0 {
                            "sleep 0.5"
                        } else {
                            "true"
                        };
                        let variables = json!({"RUNS": runs, "THEN": then});
                        name_of(&api.submit(&json!({"variables": variables})))
                    };
                    (0..JOBS_IN_ALL / 4).map(submit).collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|t| t.join().unwrap())
            .collect()
    });
    assert_eq!(names.len(), JOBS_IN_ALL);
    let mut api = scheduler.api();
    eventually("all jobs end", || {
        let jobs = api.list();
        assert_eq!(jobs.len(), JOBS_IN_ALL, "none is lost");
        jobs.iter()
            .all(|job| job["status"] == "Succeeded")
            .then_some(())
    });
    let took = started.elapsed();
    let (mut running, mut most) = (BTreeSet::new(), 0);
    let mut ran = BTreeSet::new();
    for line in fs::read_to_string(&runs).unwrap().lines() {
        match line.split_once(' ').unwrap() {
            ("+", name) => {
                assert!(ran.insert(name.to_string()), "{name} ran twice");
                running.insert(name.to_string());
            }
            (_, name) => assert!(running.remove(name)),
        }
        most = most.max(running.len());
    }
    assert_eq!(ran, names);
    assert_eq!(most, AT_ONCE);
    println!("{JOBS_IN_ALL} jobs in {took:?}, at most {most} at once");
    scheduler.end();
}

/// A grandchild that left the group and the session, and ignores SIGTERM, as does its parent.
const STUBBORN: &str = "trap '' TERM; setsid sh -c \"trap '' TERM; sleep 1000 & while :; do sleep 1000; done\" & \
                        env -i setsid sleep 1000 & sleep 1000 & touch ready; while :; do sleep 1000; done";

#[test]
fn a_deleted_job_leaves_no_process_and_no_file() {
    let place = Place::new(&[("compute", TRUE)]);
    let scheduler = place.start(&["--grace-seconds", "1"]);
    let mut api = scheduler.api();
    let name = name_of(&api.submit(&shell(STUBBORN)));
    let folder = place.data().join("test-dev/compute/jobs").join(&name);
    eventually("the job is ready", || {
        folder.join("ready").exists().then_some(())
    });
    // Those that left the group may begin a moment after the job says that it is ready.
    let all = eventually("all of its processes are there", || {
        let all = descendants(scheduler.child.id());
        (all.len() >= 6).then_some(all)
    });
    assert_eq!(api.ask("DELETE", &format!("{JOBS}/{name}"), "").code, 200);
    assert_eq!(api.ask("GET", &format!("{JOBS}/{name}"), "").code, 404);
    eventually("its processes are gone", || {
        all.iter().all(|pid| !is_alive(*pid)).then_some(())
    });
    assert_eq!(descendants(scheduler.child.id()), [0; 0]);
    eventually("its folder is gone", || (!folder.exists()).then_some(()));
    scheduler.end();
    place.no_process_is_left();
}

/// As Go's module cache and others make theirs.
#[test]
fn a_deleted_job_leaves_no_folder_that_is_read_only() {
    let place = Place::new(&[("compute", TRUE)]);
    let scheduler = match rustix::process::geteuid().is_root() {
        // To root a folder is never read-only.
        true => place.start_by(&["setpriv", "--bounding-set=-dac_override"], &[]),
        false => place.start(&[]),
    };
    let mut api = scheduler.api();
    let script =
        "mkdir -p mod/a; touch mod/a/f; ln -s / mod/root; chmod 555 mod/a mod; ! touch mod/b";
    let name = name_of(&api.submit(&shell(script)));
    api.wait_for(&name, "Succeeded");
    let folder = place.data().join("test-dev/compute/jobs").join(&name);
    assert!(folder.join("mod/a/f").exists());
    assert_eq!(api.ask("DELETE", &format!("{JOBS}/{name}"), "").code, 200);
    assert!(!folder.exists());
    scheduler.end();
}

#[test]
fn a_job_that_ends_takes_its_processes_with_it() {
    let place = Place::new(&[("compute", TRUE)]);
    let scheduler = place.start(&[]);
    let mut api = scheduler.api();
    let script = "setsid sleep 1000 & (sleep 1000 &) ; sleep 1000 & env -i setsid sleep 1000 >/dev/null 2>&1 & exit 0";
    let name = name_of(&api.submit(&shell(script)));
    api.wait_for(&name, "Succeeded");
    assert_eq!(descendants(scheduler.child.id()), [0; 0]);
    scheduler.end();
    place.no_process_is_left();
}

fn stat(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// The living processes under another.
fn descendants(of: u32) -> Vec<u32> {
    let all: BTreeMap<u32, (char, u32)> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid)?)))
        .collect();
    let is_under = |pid: u32| {
        let mut at = pid;
        while let Some((_, parent)) = all.get(&at) {
            if *parent == of {
                return true;
            }
            at = *parent;
        }
        false
    };
    let alive = all.iter().filter(|(_, (state, _))| *state != 'Z');
    alive
        .map(|(pid, _)| *pid)
        .filter(|pid| is_under(*pid))
        .collect()
}

#[test]
fn a_stopped_job_keeps_its_record_and_runs_again() {
    let place = Place::new(&[("compute", TRUE)]);
    let scheduler = place.start(&["--grace-seconds", "1", "--cpus", "1"]);
    let mut api = scheduler.api();
    let running = name_of(&api.submit(&shell("sleep 1000")));
    let waiting = name_of(&api.submit(&json!({"payload": "kept"})));
    let post = |api: &mut api::Api, name: &str, what: &str| {
        api.ask("POST", &format!("{JOBS}/{name}/{what}"), "").code
    };
    assert_eq!(api.job(&waiting)["status"], "Waiting");
    assert_eq!(post(&mut api, &waiting, "stop"), 200);
    let withdrawn = api.job(&waiting);
    assert_eq!(withdrawn["status"], "Stopped");
    assert!(withdrawn["queuePosition"].is_null(), "{withdrawn}");
    assert_ne!(withdrawn["ended"], "", "{withdrawn}");
    assert_eq!(post(&mut api, &running, "stop"), 200);
    let stopped = api.wait_for(&running, "Stopped");
    assert_eq!(stopped["podStatuses"][0]["reason"], "Stopped", "{stopped}");
    assert_eq!(stopped["ended"], stopped["podStatuses"][0]["endTime"]);
    place.no_process_is_left();

    assert_eq!(post(&mut api, &running, "restart"), 200);
    api.wait_for(&running, "Running");
    assert_eq!(post(&mut api, &waiting, "restart"), 200);
    assert_eq!(api.job(&waiting)["status"], "Waiting");
    assert_eq!(
        api.ask("DELETE", &format!("{JOBS}/{running}"), "").code,
        200
    );
    api.wait_for(&waiting, "Succeeded");
    // A finished one is done again as a new job, with the same payload.
    let again = api
        .ask("POST", &format!("{JOBS}/{waiting}/restart"), "")
        .json();
    assert_eq!(again["restartOf"], waiting.as_str());
    api.wait_for(&name_of(&again), "Succeeded");
    let folder = place
        .data()
        .join("test-dev/compute/jobs")
        .join(name_of(&again));
    let payload = fs::read_to_string(folder.join("payload"));
    assert_eq!(payload.unwrap(), "kept");
    scheduler.end();
}

#[test]
fn a_killed_scheduler_loses_nothing() {
    let place = Place::new(&[("compute", TRUE)]);
    let arguments = ["--cpus", "1", "--grace-seconds", "1"];
    let scheduler = place.start(&arguments);
    let mut api = scheduler.api();
    let finished = name_of(&api.submit(&shell("echo said; exit 4")));
    let before = api.wait_for(&finished, "Failed");
    let folder = place.data().join("test-dev/compute/jobs");
    let running = name_of(&api.submit(&shell(STUBBORN)));
    let ready = folder.join(&running).join("ready");
    eventually("the job is ready", || ready.exists().then_some(()));
    let request = json!({
        "payload": "hello",
        "jobId": "mine",
        "command": ["sh", "-c", "cat $JOB_PAYLOAD_FILE"]
    });
    let waiting = name_of(&api.submit(&request));
    let processes = descendants(scheduler.child.id());
    scheduler.kill();

    let scheduler = place.start(&arguments);
    let mut api = scheduler.api();
    assert_eq!(api.job(&finished), before);
    assert_eq!(log(&place, "compute", &finished, 1), "said\n");
    let cut_off = api.job(&running);
    assert_eq!(cut_off["status"], "Failed");
    let message = cut_off["message"].as_str().unwrap();
    assert!(
        message.contains("the scheduler stopped while the job ran"),
        "{message}"
    );
    let left: Vec<_> = processes.iter().filter(|pid| is_alive(**pid)).collect();
    assert!(left.is_empty(), "{left:?}");
    let done = api.wait_for(&waiting, "Succeeded");
    assert_eq!(done["jobId"], "mine");
    assert_eq!(log(&place, "compute", &waiting, 1), "hello");
    scheduler.end();
    place.no_process_is_left();
}

#[test]
fn a_scheduler_that_is_asked_to_end_ends_its_jobs() {
    let place = Place::new(&[("compute", TRUE)]);
    let scheduler = place.start(&["--cpus", "1", "--grace-seconds", "30"]);
    let mut api = scheduler.api();
    let running = name_of(&api.submit(&shell(
        "trap 'echo term; exit 0' TERM; touch ready; sleep 1000 & wait",
    )));
    let ready = place
        .data()
        .join(format!("test-dev/compute/jobs/{running}/ready"));
    eventually("the job is ready", || ready.exists().then_some(()));
    let waiting = name_of(&api.submit(&shell("sleep 1000")));
    scheduler.end();
    place.no_process_is_left();
    assert!(
        place.log().contains("ending 1 running job(s)"),
        "{}",
        place.log()
    );
    assert_eq!(log(&place, "compute", &running, 1), "term\n");

    let scheduler = place.start(&["--cpus", "1", "--grace-seconds", "30"]);
    let mut api = scheduler.api();
    let job = api.job(&running);
    assert_eq!(job["status"], "Failed");
    let message = job["message"].as_str().unwrap();
    assert!(message.contains("the scheduler was stopped"), "{message}");
    api.wait_for(&waiting, "Running");
    // The second signal does not wait for the grace.
    let stubborn = name_of(&api.submit(&shell(STUBBORN)));
    assert_eq!(
        api.ask("DELETE", &format!("{JOBS}/{waiting}"), "").code,
        200
    );
    let ready = place
        .data()
        .join(format!("test-dev/compute/jobs/{stubborn}/ready"));
    eventually("the job is ready", || ready.exists().then_some(()));
    let before = Instant::now();
    scheduler.signal("INT");
    eventually("it says that it stops", || {
        (place.log().matches("press Ctrl-C again").count() == 2).then_some(())
    });
    scheduler.signal("INT");
    let mut scheduler = scheduler;
    eventually("the scheduler ends", || scheduler.child.try_wait().unwrap());
    assert!(
        before.elapsed() < Duration::from_secs(25),
        "{:?}",
        before.elapsed()
    );
    place.no_process_is_left();
}

#[test]
fn finished_jobs_go_with_their_files() {
    let place = Place::new(&[("compute", TRUE)]);
    let scheduler = place.start(&["--history-limit", "2"]);
    let mut api = scheduler.api();
    let mut names = Vec::new();
    for _ in 0..4 {
        for request in [json!({"payload": "x"}), shell("exit 1")] {
            let name = name_of(&api.submit(&request));
            let status = match request["payload"].is_string() {
                true => "Succeeded",
                false => "Failed",
            };
            eventually("it ends", || {
                let response = api.ask("GET", &format!("{JOBS}/{name}"), "");
                (response.code == 404 || response.json()["status"] == status).then_some(())
            });
            names.push(name);
        }
    }
    eventually("four are left", || (api.list().len() == 4).then_some(()));
    let left: BTreeSet<String> = api.list().iter().map(name_of).collect();
    let files = |folder: &str| -> BTreeSet<String> {
        let folder = place.data().join("test-dev/compute").join(folder);
        let entries = fs::read_dir(folder).unwrap();
        entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    eventually("the files of the others are gone", || {
        (files("records") == left && files("jobs") == left).then_some(())
    });
    scheduler.end();
}

#[test]
fn only_this_machines_names_are_answered_to() {
    let place = Place::new(&[("compute", TRUE)]);
    let scheduler = place.start(&[]);
    let mut api = scheduler.api();
    let port = place.ports[0];
    for (host, code) in [
        (format!("localhost:{port}"), 200),
        (format!("127.0.0.1:{port}"), 200),
        (format!("compute:{port}"), 200),
        (format!("rebound.example:{port}"), 403),
        ("localhost".to_string(), 403),
    ] {
        let origin = format!("http://{host}");
        let headers = [("Host", host.as_str()), ("Origin", origin.as_str())];
        for (method, body) in [("GET", ""), ("POST", "{}")] {
            let response = api.ask_with(method, JOBS, &headers, body);
            assert_eq!(response.code, code, "{method} {host}: {}", response.json());
        }
    }
    // The socket is not open to others at all.
    assert!(std::net::TcpStream::connect(("127.0.0.2", port)).is_err());
    scheduler.end();
}

/// Each is one line on stderr, with exit code 2, before anything is started.
#[test]
fn what_keeps_it_from_starting_is_said_in_a_line() {
    let check = |place: &Place, arguments: &[&str], expected: &str| {
        let output = place.fail(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        let line = said.strip_prefix("job-scheduler: ").unwrap_or(&said);
        assert!(line.contains(expected), "{said:?}\nhas not {expected:?}");
        assert_eq!(said.lines().count(), 1, "{said}");
    };
    let place = Place::new(&[("compute", TRUE)]);
    let scheduler = place.start(&[]);
    let pid = scheduler.child.id();
    check(
        &place,
        &[],
        &format!("another scheduler (process {pid}) uses "),
    );
    let elsewhere = place.scratch.join("elsewhere");
    let port = place.ports[0];
    let taken = format!("cannot listen on 127.0.0.1:{port}: ");
    let output = place
        .command(&[])
        .env("JOB_SCHEDULER_DATA_DIR", &elsewhere)
        .output();
    drop(output);
    let second = Place::new(&[("other", TRUE)]);
    let config = fs::read_to_string(second.scratch.join("radixconfig.yaml")).unwrap();
    let config = config.replace(&second.ports[0].to_string(), &port.to_string());
    fs::write(second.scratch.join("radixconfig.yaml"), config).unwrap();
    check(&second, &[], &taken);
    scheduler.end();

    check(
        &place,
        &["--environment", "prod"],
        "there is no environment `prod`: give one of dev",
    );
    check(
        &place,
        &["--cpus", "many"],
        "--cpus many: give a number of CPUs",
    );
    check(&place, &["--address", "0.0.0.0"], "add --allow-network");
    fs::write(place.scratch.join("file"), "").unwrap();
    let file = place.scratch.join("file/data");
    fs::remove_dir_all(place.data()).unwrap();
    std::os::unix::fs::symlink(&file, place.data()).unwrap();
    check(&place, &[], "the data folder cannot be used: ");

    let place = Place::new(&[("compute", "payload: {path: /x}")]);
    check(
        &place,
        &[],
        "spec.jobs[compute].command: is missing: on this machine there is no image",
    );
    let place = Place::new(&[("compute", "command: ['true']\nsecrets: [NOT_SET_ANYWHERE]")]);
    check(
        &place,
        &[],
        "the secret NOT_SET_ANYWHERE of the job component compute is nowhere",
    );
    let secrets = place.scratch.join("secrets");
    fs::write(&secrets, "# a comment\n\nnonsense\n").unwrap();
    check(
        &place,
        &["--secrets-file", secrets.to_str().unwrap()],
        "line 3 is not KEY=VALUE",
    );

    let port = free_port();
    let place = Place::new(&[]);
    fs::write(
        place.scratch.join("radixconfig.yaml"),
        support::local::config(&[("a", port, TRUE), ("b", port, TRUE)]),
    )
    .unwrap();
    check(
        &place,
        &[],
        &format!("spec.jobs[b].schedulerPort: {port} is a's as well"),
    );
    assert!(!place.data().exists(), "nothing was begun");
}

#[test]
fn secrets_come_from_a_file_and_are_not_kept() {
    let place = Place::new(&[(
        "compute",
        "command: [sh, -c, 'echo $DB_PASSWORD']\nsecrets: [DB_PASSWORD]",
    )]);
    let secrets = place.scratch.join("secrets");
    fs::write(&secrets, "DB_PASSWORD=s3cret=x\n").unwrap();
    let scheduler = place.start(&["--secrets-file", secrets.to_str().unwrap()]);
    let mut api = scheduler.api();
    let name = name_of(&api.submit(&json!({})));
    api.wait_for(&name, "Succeeded");
    assert_eq!(log(&place, "compute", &name, 1), "s3cret=x\n");
    let record = place.data().join("test-dev/compute/records").join(&name);
    assert!(!fs::read_to_string(record).unwrap().contains("s3cret"));
    scheduler.end();
}

#[test]
fn waiting_jobs_cost_no_threads() {
    let place = Place::new(&[("compute", TRUE)]);
    let scheduler = place.start(&["--cpus", "1"]);
    let mut api = scheduler.api();
    api.submit(&shell("sleep 1000"));
    let before = scheduler.status("Threads");
    for _ in 0..200 {
        assert_eq!(api.submit(&json!({"payload": "x"}))["status"], "Waiting");
    }
    assert_eq!(scheduler.status("Threads"), before);
    scheduler.signal("INT");
    scheduler.end();
}

#[test]
fn it_is_small() {
    let place = Place::new(&[("compute", TRUE), ("etl", TRUE)]);
    let scheduler = place.start(&[]);
    let mut api = scheduler.api();
    for _ in 0..10 {
        let name = name_of(&api.submit(&json!({"payload": "x"})));
        api.wait_for(&name, "Succeeded");
        let name = name_of(&api.submit(&shell("exit 1")));
        api.wait_for(&name, "Failed");
    }
    assert_eq!(api.list().len(), 20);
    let resident = scheduler.status("VmRSS");
    println!("{resident} kB resident with 20 finished jobs");
    // A debug build's code is larger.
    let limit = if cfg!(debug_assertions) { 24 } else { 8 };
    assert!(resident <= limit * 1024, "{resident} kB");
    scheduler.end();
}

/// Jobs are submitted while the scheduler is killed, again and again; `CRASHES` says how often.
#[test]
fn killed_at_any_moment_it_loses_no_job_and_runs_none_twice() {
    let crashes: usize = std::env::var("CRASHES").map_or(8, |n| n.parse().unwrap());
    let script = "echo \"$RADIX_JOB_NAME $(cat $JOB_PAYLOAD_FILE)\" >> $RUNS; sleep 0.02; \
                  case $(cat $JOB_PAYLOAD_FILE) in *7) setsid sleep 1000 & sleep 0.2;; esac";
    let place = Place::new(&[(
        "compute",
        "command: ['true']\npayload: {path: /compute/args}\nresources: {requests: {cpu: 1}}",
    )]);
    let runs = place.scratch.join("runs");
    let arguments = [
        "--cpus",
        "4",
        "--history-limit",
        "1000000",
        "--max-jobs",
        "1000000",
    ];
    let acknowledged = std::sync::Mutex::new(BTreeMap::<String, String>::new());
    let mut number = 0u64;
    for _ in 0..crashes {
        let scheduler = place.start(&arguments);
        let own = scheduler.child.id();
        for (pid, command) in place.processes() {
            let ours = descendants(own).contains(&pid) || !is_alive(pid);
            assert!(ours, "an orphan: {pid} {command}");
        }
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for client in 0..4u64 {
                let (stop, acknowledged, runs) = (&stop, &acknowledged, &runs);
                let mut api = scheduler.api();
                // Connected to this very scheduler: another test may have its port after its end.
                api.list();
                let host = format!("localhost:{}", place.ports[0]);
                let first = number + client;
                scope.spawn(move || {
                    let mut number = first;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let payload = format!("payload-{number}");
                        number += 4;
                        let request = json!({
                            "payload": payload,
                            "command": ["sh", "-c", script],
                            "variables": {"RUNS": runs}
                        });
                        let body = request.to_string();
                        let Ok(response) = api.try_ask("POST", JOBS, &[("Host", &host)], &body)
                        else {
                            return;
                        };
                        assert_eq!(response.code, 200, "{}", response.json());
                        let name = name_of(&response.json());
                        acknowledged.lock().unwrap().insert(name, payload);
                        std::thread::sleep(Duration::from_millis(fastrand::u64(0..20)));
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(fastrand::u64(0..400)));
            scheduler.kill();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        number += 100_000;
    }
    let scheduler = place.start(&arguments);
    let mut api = scheduler.api();
    let acknowledged = acknowledged.into_inner().unwrap();
    let jobs = eventually("all jobs end", || {
        let jobs = api.list();
        let ended = |job: &Value| matches!(job["status"].as_str(), Some("Succeeded" | "Failed"));
        jobs.iter().all(ended).then_some(jobs)
    });
    let by_name: BTreeMap<String, &Value> = jobs.iter().map(|j| (name_of(j), j)).collect();
    let mut ran = BTreeMap::<String, String>::new();
    for line in fs::read_to_string(&runs).unwrap().lines() {
        let (name, payload) = line.split_once(' ').unwrap();
        let before = ran.insert(name.to_string(), payload.to_string());
        assert!(before.is_none(), "{name} ran twice");
    }
    let mut cut_off = 0;
    for (name, payload) in &acknowledged {
        let job = by_name
            .get(name)
            .unwrap_or_else(|| panic!("{name} is lost"));
        match job["status"].as_str() {
            Some("Succeeded") => assert_eq!(ran.get(name), Some(payload)),
            _ => {
                let message = job["message"].as_str().unwrap();
                assert!(message.contains("the scheduler stopped"), "{job}");
                cut_off += 1;
            }
        }
        if let Some(seen) = ran.get(name) {
            assert_eq!(seen, payload);
        }
    }
    let records = place.data().join("test-dev/compute/records");
    assert_eq!(
        fs::read_dir(records).unwrap().count(),
        jobs.len(),
        "half records"
    );
    assert_eq!(descendants(scheduler.child.id()), [0; 0]);
    println!(
        "{crashes} crashes, {} jobs acknowledged, {} known, {cut_off} cut off, {} ran",
        acknowledged.len(),
        jobs.len(),
        ran.len()
    );
    scheduler.end();
    place.no_process_is_left();
}

#[test]
fn ports_and_names_may_be_others_than_the_files() {
    let place = Place::new(&[("compute", TRUE), ("etl", TRUE)]);
    let (compute, other) = (place.ports[0], free_port());
    let taken = std::net::TcpListener::bind(("127.0.0.1", compute)).unwrap();
    let refused = place.fail(&[]);
    let message = String::from_utf8(refused.stderr).unwrap();
    let expected = "another process has this port: stop it, or choose another port: it is the schedulerPort of compute: \
                    change it in the file, or give --port compute=PORT\n";
    assert!(message.ends_with(expected), "{message}");
    let unclear = place.fail(&["--port", "9"]);
    let message = String::from_utf8(unclear.stderr).unwrap();
    assert!(
        message.contains("say whose it is, as --port NAME=9"),
        "{message}"
    );

    let mut moved = place.ports.clone();
    moved[0] = other;
    let place = Place {
        ports: moved,
        ..place
    };
    let port = format!("compute={other}");
    let scheduler = place.start(&["--port", &port, "--allow-host", "scheduler"]);
    drop(taken);
    let mut api = scheduler.api();
    let code = |api: &mut api::Api, host: &str| {
        let answer = api.try_ask("GET", JOBS, &[("Host", host)], "");
        answer.unwrap().code
    };
    assert_eq!(code(&mut api, "scheduler:1234"), 200);
    assert_eq!(code(&mut api, "evil.example:1234"), 403);
    scheduler.end();
}

/// The job writes 40 MB, and its end is read.
#[test]
fn a_log_keeps_its_end_within_its_bound() {
    let place = Place::new(&[("compute", TRUE)]);
    let scheduler = place.start(&["--log-limit", "4Mi"]);
    let mut api = scheduler.api();
    let script = "i=0; while [ $i -lt 10 ]; do seq -f '%063.0f' 62500; i=$((i+1)); done; echo end; sleep 600";
    let name = name_of(&api.submit(&shell(script)));
    let file = place
        .data()
        .join(format!("test-dev/compute/logs/{name}.1.log"));
    eventually("the log is bounded", || {
        let metadata = fs::metadata(&file).ok()?;
        let kept = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
        (metadata.len() > 40_000_000 && kept <= 4 << 20).then_some(())
    });
    let log = std::process::Command::new(env!("CARGO_BIN_EXE_job-scheduler"))
        .args(["logs", &name, "--url"])
        .arg(format!("http://127.0.0.1:{}", place.ports[0]))
        .output()
        .unwrap();
    let text = String::from_utf8(log.stdout).unwrap();
    assert!(
        text.len() > 1 << 20 && text.len() <= 4 << 20,
        "{}",
        text.len()
    );
    assert!(text.starts_with("000") && text.ends_with("62500\nend\n"));
    scheduler.end();
}

#[test]
fn the_ports_of_jobs_are_named_at_the_start() {
    let (free, taken) = (
        free_port(),
        std::net::TcpListener::bind("127.0.0.1:0").unwrap(),
    );
    let taken = taken
        .local_addr()
        .map(|address| (address.port(), taken))
        .unwrap();
    let lines = format!(
        "{TRUE}\nports: [{{name: http, port: {free}}}, {{name: admin, port: {}}}]",
        taken.0
    );
    let place = Place::new(&[("compute", &lines)]);
    let scheduler = place.start(&[]);
    let expected = format!(
        "http://127.0.0.1:{free}, {} (admin) is taken by another process\n",
        taken.0
    );
    assert!(place.log().contains(&expected), "{}", place.log());
    scheduler.end();
}

/// The job is a scheduler itself, which listens.
#[test]
fn a_running_job_is_reached_at_the_ports_that_were_free_when_it_started() {
    let (port, taken) = (free_port(), free_port());
    let _taken = std::net::TcpListener::bind(("127.0.0.1", taken)).unwrap();
    let lines = format!(
        "command: [sleep, '600']\nresources: {{requests: {{cpu: 1m}}}}\n\
         ports: [{{name: http, port: {port}}}, {{name: admin, port: {taken}}}]"
    );
    let place = Place::new(&[("compute", &lines)]);
    let inner = place.scratch.join("inner.yaml");
    fs::write(&inner, config(&[("inner", port, TRUE)])).unwrap();
    let program = env!("CARGO_BIN_EXE_job-scheduler");
    let data = place.scratch.join("inner");
    let listens = json!({"command": [program, "local", inner, "--data-dir", data]});
    let urls = json!({"http": format!("http://127.0.0.1:{port}")});
    let scheduler = place.start(&[]);
    let mut api = scheduler.api();
    // What it is told begins with this.
    let said = |job: &str, why: &str| {
        let text = format!("job={job} event=port-not-free reason=\"{why}");
        eventually(&text, || place.log().contains(&text).then_some(()));
    };

    let first = name_of(&api.submit(&listens));
    let reached = |api: &mut api::Api| {
        eventually("its URL", || {
            let job = api.job(&first);
            (!job["urls"].is_null()).then_some(job)
        })
    };
    assert_eq!(reached(&mut api)["urls"], urls);
    said(
        &first,
        &format!("{taken} (admin) is taken by another process\""),
    );
    eventually("it answers there", || {
        let mut own = api::Api::new(&format!("127.0.0.1:{port}"));
        let host = format!("127.0.0.1:{port}");
        let answer = own.try_ask("GET", "/api/v1/component", &[("Host", &host)], "");
        let answer = answer.ok().filter(|response| response.code == 200)?;
        assert_eq!(answer.json()["name"], "inner");
        Some(())
    });
    let shown = std::process::Command::new(program)
        .args(["get", &first, "--url"])
        .arg(format!("http://127.0.0.1:{}", place.ports[0]))
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let line = format!("URLs:     http://127.0.0.1:{port} (http)\n");
    assert!(shown.contains(&line), "{shown}");

    // What is said of the third is said after the second has started.
    let [second, third] = [(), ()].map(|()| name_of(&api.submit(&json!({}))));
    said(
        &second,
        &format!("{port} (http) is a port of {first}, which runs\""),
    );
    said(&third, &format!("{port} (http) is a port of "));
    let second = api.job(&second);
    assert_eq!(second["status"], "Running");
    assert!(second["urls"].is_null(), "{second}");
    assert_eq!(api.job(&first)["urls"], urls);

    api.ask("POST", &format!("{JOBS}/stop"), "");
    let stopped = api.wait_for(&first, "Stopped");
    assert!(stopped["urls"].is_null(), "{stopped}");
    api.wait_for(&third, "Stopped");
    api.wait_for(&name_of(&second), "Stopped");

    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let fourth = name_of(&api.submit(&json!({})));
    said(
        &fourth,
        &format!("{port} (http) is taken by another process\""),
    );
    let fifth = name_of(&api.submit(&json!({})));
    said(
        &fifth,
        &format!("{port} (http) is a port of {fourth}, which runs\""),
    );
    assert!(api.job(&fourth)["urls"].is_null());
    api.ask("POST", &format!("{JOBS}/stop"), "");
    api.wait_for(&fourth, "Stopped");
    api.wait_for(&fifth, "Stopped");

    drop(listener);
    api.ask("POST", &format!("{JOBS}/{first}/restart"), "");
    assert_eq!(reached(&mut api)["urls"], urls);
    scheduler.end();
}

#[test]
fn a_job_without_a_payload_is_told_of_no_file() {
    let script = "command: [sh, -c, 'echo [${JOB_PAYLOAD_FILE-none}]; cat /dev/null $JOB_PAYLOAD_FILE']\n\
                  payload: {path: /compute/args}";
    let place = Place::new(&[("compute", script)]);
    let scheduler = place.start(&[]);
    let mut api = scheduler.api();
    let mut told = |request: &Value| {
        let name = name_of(&api.submit(request));
        api.wait_for(&name, "Succeeded");
        log(&place, "compute", &name, 1)
    };
    assert_eq!(told(&json!({})), "[none]\n");
    let empty = told(&json!({"payload": ""}));
    assert!(empty.ends_with("/compute/args/payload]\n"), "{empty}");
    scheduler.end();
}

/// What bash as another user is answered to a request for a job.
fn as_nobody(port: u16) -> String {
    use std::os::unix::process::CommandExt;
    let request = format!(
        "POST /api/v1/jobs HTTP/1.1\\r\\nHost: 127.0.0.1:{port}\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n"
    );
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; printf '{request}' >&3; cat <&3");
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn another_user_of_the_machine_starts_no_job() {
    if !rustix::process::geteuid().is_root() {
        // Only root can become another user.
        return eprintln!("not tested: needs root");
    }
    let place = Place::new(&[("compute", TRUE)]);
    let scheduler = place.start(&[]);
    let refused = as_nobody(place.ports[0]);
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
    assert!(
        refused.contains("the connection is the user 65534's"),
        "{refused}"
    );
    assert_eq!(scheduler.api().list(), [] as [Value; 0]);
    scheduler.end();

    let scheduler = place.start(&["--allow-other-users"]);
    let started = as_nobody(place.ports[0]);
    assert!(started.starts_with("HTTP/1.1 200 "), "{started}");
    assert_eq!(scheduler.api().list().len(), 1);
    scheduler.end();
}

/// One that leaves its session, clears its environment and closes its output, while another job
/// that began before it runs.
const HIDDEN: &str = "setsid env -i sh -c 'exec 0<&- 1>&- 2>&-; exec sleep 86399' & sleep 0.3";

/// The processes of this machine with this command line.
fn sleeping(seconds: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter(|entry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            line == format!("sleep\0{seconds}\0").as_bytes()
        })
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

#[test]
fn nothing_escapes_however_it_hides() {
    let place = Place::new(&[(
        "compute",
        "command: [sleep, '600']\nresources: {requests: {cpu: 1m}}",
    )]);
    let mut scheduler = place.start(&[]);
    let mut api = scheduler.api();
    let older = name_of(&api.submit(&json!({})));
    let hiding = |script: String, seconds: &str| shell(&script.replace("86399", seconds));

    let job = name_of(&api.submit(&hiding(HIDDEN.to_string(), "86391")));
    api.wait_for(&job, "Succeeded");
    assert_eq!(sleeping("86391"), [] as [String; 0], "it ended by itself");

    let job = name_of(&api.submit(&hiding(format!("{HIDDEN}; sleep 600"), "86392")));
    eventually("it hides", || (!sleeping("86392").is_empty()).then_some(()));
    api.ask("POST", &format!("{JOBS}/{job}/stop"), "");
    api.wait_for(&job, "Stopped");
    assert_eq!(sleeping("86392"), [] as [String; 0], "it was stopped");

    // The first process of the job is killed by the job itself.
    let job = name_of(&api.submit(&shell("sleep 86393 & kill -9 $PPID; sleep 86393")));
    api.wait_for(&job, "Failed");
    assert_eq!(sleeping("86393"), [] as [String; 0], "its init was killed");

    api.submit(&hiding(format!("{HIDDEN}; sleep 600"), "86394"));
    eventually("it hides", || (!sleeping("86394").is_empty()).then_some(()));
    scheduler.child.kill().unwrap();
    scheduler.child.wait().unwrap();
    // Nobody has started another scheduler.
    eventually("the killed scheduler's jobs are gone", || {
        sleeping("86394").is_empty().then_some(())
    });
    drop(scheduler);
    let scheduler = place.start(&[]);
    assert_eq!(scheduler.api().job(&older)["status"], "Failed");
    scheduler.end();
}

/// As in a container whose entrypoint starts a helper and then becomes the scheduler.
#[test]
fn what_is_of_no_job_is_left_alone() {
    let place = Place::new(&[("compute", TRUE)]);
    let helped = ["sh", "-c", "sleep 86395 & exec \"$@\"", "sh"];
    let scheduler = place.start_by(&helped, &[]);
    let mut api = scheduler.api();
    for script in ["exit 3", "kill -9 $$$$", "sleep 86396 & kill -9 $PPID"] {
        let job = name_of(&api.submit(&shell(script)));
        api.wait_for(&job, "Failed");
    }
    assert_eq!(sleeping("86396"), [] as [String; 0], "its init was killed");
    let helper = sleeping("86395");
    assert_eq!(helper.len(), 1, "{helper:?}");
    let pid = helper[0]
        .parse()
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::KILL).unwrap();
    scheduler.end();
}

#[test]
fn a_job_has_no_terminal_and_none_of_the_schedulers_descriptors_and_limits() {
    let place = Place::new(&[("compute", TRUE)]);
    let mut command = std::process::Command::new("bash");
    // A soft limit, and a descriptor that is not closed by exec.
    let scheduler = format!(
        "ulimit -Sn 777; exec 9</etc/hostname; exec {} local {} --data-dir {}",
        env!("CARGO_BIN_EXE_job-scheduler"),
        place.scratch.join("radixconfig.yaml").display(),
        place.data().display()
    );
    let mut child = command.args(["-c", &scheduler]).spawn().unwrap();
    let mut api = api::Api::new(&format!("localhost:{}", place.ports[0]));
    let host = format!("localhost:{}", place.ports[0]);
    eventually("the scheduler listens", || {
        let answer = api.try_ask("GET", "/health/ready", &[("Host", &host)], "");
        answer.ok().filter(|response| response.code == 200)
    });
    let script = "ulimit -Sn; ls /proc/self/fd; (: </dev/tty) 2>&1 | grep -o 'No such device'; \
                  cut -d' ' -f7 /proc/self/stat";
    let name = name_of(&api.submit(&shell(script)));
    api.wait_for(&name, "Succeeded");
    // `ls` has the folder open as 3; field 7 is the terminal.
    assert_eq!(
        log(&place, "compute", &name, 1),
        "777\n0\n1\n2\n3\nNo such device\n0\n"
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_job_knows_the_proxy_and_the_authorities_of_the_machine() {
    let place = Place::new(&[("compute", TRUE)]);
    let variables = [
        ("HTTPS_PROXY", "http://proxy:3128"),
        ("no_proxy", "localhost"),
        ("SSL_CERT_FILE", "/etc/company.pem"),
        ("GITHUB_TOKEN", "secret"),
    ];
    let scheduler = place.start_with(&[], &variables);
    let mut api = scheduler.api();
    let name = name_of(&api.submit(&shell(
        "echo $HTTPS_PROXY $no_proxy $SSL_CERT_FILE ${GITHUB_TOKEN:-none}",
    )));
    api.wait_for(&name, "Succeeded");
    assert_eq!(
        log(&place, "compute", &name, 1),
        "http://proxy:3128 localhost /etc/company.pem none\n"
    );
    scheduler.end();
}
