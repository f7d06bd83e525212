//! Batches as their callers meet them: local mode, jobs that are real processes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::api::{Api, JOBS};
use support::batches::{
    self, BATCHES, done, ended, jobs, name, of, path, refused, statuses, submit,
};
use support::events::Reader;
use support::eventually;
use support::local::Place;

/// A job runs its payload.
const SCRIPT: &str = "payload: {path: /compute/args}\ncommand: [sh, -c, '. \"$JOB_PAYLOAD_FILE\"']";

#[test]
fn batches_are_those_of_every_backend() {
    let place = Place::new(&[("compute", SCRIPT)]);
    let scheduler = place.start(&["--grace-seconds", "1"]);
    let mut api = scheduler.api();
    batches::check(&mut api);
    // What was deleted has left nothing.
    let records = place.data().join("test-dev/compute/records");
    let left = || fs::read_dir(&records).unwrap().flatten();
    eventually("nothing is left of batches", || {
        let mut names = left().map(|entry| entry.file_name().into_string().unwrap());
        (!names.any(|name| name.contains("batch"))).then_some(())
    });
    let metrics = api.ask("GET", "/metrics", "").body;
    let metrics = String::from_utf8(metrics).unwrap();
    for route in [
        "create-batch",
        "list-batches",
        "get-batch",
        "wait-batch",
        "delete-batch",
    ] {
        assert!(metrics.contains(&format!("route=\"{route}\"")), "{route}");
    }
    scheduler.end();
}

#[test]
fn a_batch_is_known_by_its_rules() {
    let rules = "batchStatusRules:\n\
                 - {condition: Any, operator: In, jobStatuses: [Failed], batchStatus: Failed}\n\
                 - {condition: All, operator: NotIn, jobStatuses: [Waiting, Active], batchStatus: Succeeded}";
    let place = Place::new(&[("compute", &format!("{SCRIPT}\n{rules}"))]);
    let scheduler = place.start(&[]);
    let mut api = scheduler.api();
    let well = submit(&mut api, &of(&["sleep 0.3", "exit 0"]));
    // A job that has no status yet waits, so that the second rule does not hold.
    assert_ne!(well["status"], "Succeeded");
    assert_eq!(ended(&mut api, &well)["status"], "Succeeded");
    let failed = submit(&mut api, &of(&["exit 3", "sleep 100"]));
    eventually("one has failed", || {
        let told = done(api.ask("GET", &path(&failed, ""), ""));
        (told["status"] == "Failed" && told["ended"].is_null()).then_some(())
    });
    scheduler.end();
    // With others, at its next start, batches are called anew.
    let config = place.scratch.join("radixconfig.yaml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        text.replace("batchStatus: Succeeded", "batchStatus: Stopped"),
    )
    .unwrap();
    let scheduler = place.start(&[]);
    let told = done(scheduler.api().ask("GET", &path(&well, ""), ""));
    assert_eq!(told["status"], "Stopped");
    scheduler.end();
}

#[test]
fn who_follows_is_told_of_batches_and_of_their_jobs() {
    let place = Place::new(&[("compute", SCRIPT)]);
    let scheduler = place.start(&[]);
    let mut api = scheduler.api();
    let before = submit(&mut api, &of(&["exit 0"]));
    ended(&mut api, &before);
    let mut reader = Reader::open(&place);
    reader.next();
    assert_eq!(reader.batches.keys().collect::<Vec<_>>(), [&name(&before)]);
    assert_eq!(reader.batches[&name(&before)]["status"], "Completed");
    assert!(reader.jobs.is_empty(), "single jobs alone");

    let report = r#"'{"percent": 50}'"#;
    let script = format!("curl -sf -X PUT -d {report} \"$JOB_PROGRESS_URL\"; sleep 100");
    let batch = submit(&mut api, &of(&["exit 0", &script]));
    let own = name(&batch);
    reader.until_batch(&own, |told| {
        told.is_some_and(|told| {
            told["progress"] == json!({"percent": 75, "finished": 1, "jobs": 2})
        })
    });
    assert!(reader.batches[&own].get("jobStatuses").is_none());
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for job in jobs(&batch) {
        let told = &reader.jobs[job["name"].as_str().unwrap()];
        assert_eq!(told["batchName"], own);
        known.insert(told["status"].as_str().unwrap());
    }
    assert_eq!(known, BTreeSet::from(["Running", "Succeeded"]));

    // Who comes again is told what it missed.
    let mut again = reader.again(&place);
    done(api.ask("DELETE", &path(&batch, ""), ""));
    again.until_batch(&own, |told| told.is_none());
    again.until("the jobs go with it", BTreeMap::is_empty);
    reader.until_batch(&own, |told| told.is_none());
    scheduler.end();
}

/// Beside each other, whichever comes first keeps its place.
#[test]
fn a_batch_has_its_places_in_the_queue_and_single_jobs_theirs() {
    let place = Place::new(&[(
        "compute",
        &format!("{SCRIPT}\nresources: {{requests: {{cpu: 1}}}}"),
    )]);
    let arguments = ["--cpus", "1", "--max-jobs", "8"];
    let scheduler = place.start(&arguments);
    let mut api = scheduler.api();
    let order = place.scratch.join("order");
    let says = |word: &str| format!("echo {word} >> {}", order.display());
    let gate = place.scratch.join("gate");
    let wait = format!("while [ ! -e {} ]; do sleep 0.05; done", gate.display());
    let first = api.submit(&json!({"payload": wait}));
    let scripts = [says("b0"), says("b1"), says("b2")];
    let mut batch = of(&scripts.each_ref().map(String::as_str));
    batch["jobScheduleDescriptions"][2]["priority"] = json!(-1);
    let batch = submit(&mut api, &batch);
    let single = api.submit(&json!({"payload": says("single")}));
    let urgent = api.submit(&json!({"payload": says("urgent"), "priority": 1}));
    eventually("all have their places", || {
        let told = done(api.ask("GET", &path(&batch, ""), ""));
        let single = api.job(&name(&single));
        let urgent = api.job(&name(&urgent));
        let all = jobs(&told).iter().chain([&single, &urgent]);
        let places: Vec<_> = all.map(|job| job["queuePosition"].clone()).collect();
        (places == [2, 3, 5, 4, 1]).then_some(())
    });

    // There is no room for all of another, and so for none of it.
    let full = api.ask("POST", BATCHES, &of(&["", "", ""]).to_string());
    let full = refused(full, 429, "TooManyRequests");
    assert!(full.contains('8'), "{full}");
    assert_eq!(
        done(api.ask("GET", BATCHES, "")).as_array().unwrap().len(),
        1
    );
    fs::write(&gate, "").unwrap();
    api.wait_for(&name(&first), "Succeeded");
    ended(&mut api, &batch);
    api.wait_for(&name(&single), "Succeeded");
    let order = fs::read_to_string(&order).unwrap();
    assert_eq!(
        order.split_whitespace().collect::<Vec<_>>(),
        ["urgent", "b0", "b1", "single", "b2"]
    );
    scheduler.end();
}

#[test]
fn of_each_outcome_the_latest_batches_are_kept_beside_single_jobs() {
    let place = Place::new(&[("compute", SCRIPT)]);
    let scheduler = place.start(&["--history-limit", "2", "--grace-seconds", "1"]);
    let mut api = scheduler.api();
    let single = api.submit(&json!({"payload": "exit 0"}));
    api.wait_for(&name(&single), "Succeeded");
    let mut made: Vec<(&str, String)> = Vec::new();
    for _ in 0..4 {
        for (outcome, scripts) in [
            ("succeeded", ["exit 0", "exit 0"]),
            ("failed", ["exit 0", "exit 3"]),
            ("stopped", ["exit 0", "sleep 100"]),
        ] {
            let batch = submit(&mut api, &of(&scripts));
            let one = name(&jobs(&batch)[0]);
            done(api.ask("GET", &format!("{JOBS}/{one}?wait=60s"), ""));
            if outcome == "stopped" {
                done(api.ask("POST", &path(&batch, "/stop"), ""));
            }
            ended(&mut api, &batch);
            made.push((outcome, name(&batch)));
        }
    }
    let latest = |outcome: &str| -> Vec<String> {
        let of_it = made.iter().rev().filter(|(one, _)| *one == outcome);
        of_it.take(2).map(|(_, name)| name.clone()).collect()
    };
    let expected = ["succeeded", "failed", "stopped"].map(latest).concat();
    let expected: BTreeSet<String> = expected.into_iter().collect();
    eventually("the latest two of each outcome are kept", || {
        let all = done(api.ask("GET", &format!("{BATCHES}?summary=true"), ""));
        let all: BTreeSet<String> = all.as_array().unwrap().iter().map(name).collect();
        (all == expected).then_some(())
    });
    assert_eq!(api.list().len(), 1, "single jobs have their own history");
    let gone = made.iter().map(|(_, name)| name);
    let gone: Vec<_> = gone.filter(|name| !expected.contains(*name)).collect();
    for folder in ["records", "jobs", "logs"] {
        let folder = place.data().join("test-dev/compute").join(folder);
        eventually("nothing is left of the others", || {
            let left = fs::read_dir(&folder).unwrap().flatten();
            let mut left = left.map(|entry| entry.file_name().into_string().unwrap());
            let is_left = left.any(|file| gone.iter().any(|batch| file.contains(*batch)));
            (!is_left).then_some(())
        });
    }
    scheduler.end();
}

#[test]
fn a_batch_of_a_thousand_jobs_and_one_of_sixteen_mebibytes_are_taken() {
    let place = Place::new(&[("compute", "payload: {path: /args}\ncommand: ['true']")]);
    let scheduler = place.start(&[]);
    let mut api = scheduler.api();
    let many = json!({"jobScheduleDescriptions": vec![json!({"payload": "x"}); 1000]});
    let many = submit(&mut api, &many);
    assert_eq!(jobs(&many).len(), 1000);
    let names: BTreeSet<String> = jobs(&many).iter().map(name).collect();
    assert_eq!(names.len(), 1000);
    done(api.ask("DELETE", &path(&many, ""), ""));
    // Half of it is escaped with another byte.
    let payload = "\"x".repeat(1 << 19);
    let large = json!({"jobScheduleDescriptions": vec![json!({"payload": payload}); 16]});
    let large = submit(&mut api, &large);
    let over = ended(&mut api, &large);
    assert_eq!(over["jobCounts"]["Succeeded"], 16);
    scheduler.end();
}

/// Lets the clients end, whatever comes.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Batches are submitted, with keys and again until they are answered, while the scheduler is
/// killed, again and again; `CRASHES` says how often.
#[test]
fn killed_at_any_moment_a_batch_is_whole_or_not_there() {
    const JOBS_OF_ONE: usize = 5;
    let crashes: usize = std::env::var("CRASHES").map_or(6, |n| n.parse().unwrap());
    let place = Place::new(&[("compute", SCRIPT)]);
    let arguments = ["--cpus", "4", "--history-limit", "100000"];
    let ran = place.scratch.join("ran");
    let given = Mutex::new(BTreeMap::<usize, Value>::new());
    let sent = Mutex::new(0);
    let round = |api: &mut Api, host: &str, number: usize| -> bool {
        let scripts = (0..JOBS_OF_ONE).map(|job| {
            format!(
                "echo \"$RADIX_JOB_NAME {number}.{job}\" >> {}",
                ran.display()
            )
        });
        let scripts: Vec<String> = scripts.collect();
        let scripts: Vec<&str> = scripts.iter().map(String::as_str).collect();
        let key = format!("batch-{number}");
        let headers = [("Host", host), ("Idempotency-Key", &key)];
        let answer = api.try_ask("POST", BATCHES, &headers, &of(&scripts).to_string());
        let Ok(answer) = answer.inspect_err(|_| thread::sleep(Duration::from_millis(2))) else {
            return false;
        };
        if answer.code == 503 {
            return false;
        }
        let batch = done(answer);
        if let Some(before) = given.lock().unwrap().insert(number, batch.clone()) {
            assert_eq!(name(&before), name(&batch), "the key has made two");
        }
        true
    };
    let host = format!("localhost:{}", place.ports[0]);
    let (stop, left) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut api = Api::new(&format!("http://{host}"));
                let mut number = None;
                while !stop.load(Ordering::Relaxed) {
                    let current = *number.get_or_insert_with(|| {
                        let mut sent = sent.lock().unwrap();
                        *sent += 1;
                        *sent
                    });
                    if round(&mut api, &host, current) {
                        number = None;
                    }
                }
                left.lock().unwrap().extend(number);
            });
        }
        let _ended = Ended(&stop);
        for _ in 0..crashes {
            let scheduler = place.start(&arguments);
            thread::sleep(Duration::from_millis(fastrand::u64(0..400)));
            scheduler.kill();
        }
    });
    let scheduler = place.start(&arguments);
    let mut api = scheduler.api();
    for number in left.into_inner().unwrap() {
        let deadline = Instant::now() + support::PATIENCE;
        while !round(&mut api, &host, number) {
            assert!(Instant::now() < deadline);
        }
    }
    let given = given.into_inner().unwrap();
    let all = done(api.ask("GET", BATCHES, ""));
    let all: BTreeMap<String, Value> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|batch| (name(batch), batch.clone()))
        .collect();
    assert_eq!(all.len(), given.len(), "each is there once, and no other");
    let (mut expected, mut succeeded) = (BTreeSet::new(), BTreeSet::new());
    for (number, batch) in &given {
        let over = ended(&mut api, &all[&name(batch)]);
        assert_eq!(jobs(&over).len(), JOBS_OF_ONE, "{over}");
        for (index, job) in jobs(&over).iter().enumerate() {
            assert_eq!(name(job), name(&jobs(batch)[index]));
            expected.insert(format!("{} {number}.{index}", name(job)));
        }
        for (index, job) in jobs(&over).iter().enumerate() {
            if job["status"] == "Succeeded" {
                succeeded.insert(format!("{} {number}.{index}", name(job)));
            }
        }
        // Whatever a kill has ended has failed, and was run all the same.
        assert!(
            statuses(&over)
                .iter()
                .all(|s| matches!(*s, "Succeeded" | "Failed"))
        );
    }
    let text = fs::read_to_string(&ran).unwrap();
    let lines: Vec<String> = text.lines().map(str::to_string).collect();
    let unique: BTreeSet<String> = lines.iter().cloned().collect();
    assert_eq!(unique.len(), lines.len(), "none ran twice");
    assert!(unique.is_subset(&expected), "each had its own payload");
    assert!(
        succeeded.is_subset(&unique),
        "what is said to have succeeded ran"
    );
    println!("{} batches, {} jobs ran", given.len(), lines.len());
    scheduler.end();
}

#[test]
fn however_often_a_restart_is_asked_for_at_once_each_job_is_done_again_once() {
    let place = Place::new(&[("compute", SCRIPT)]);
    let scheduler = place.start(&[]);
    let mut api = scheduler.api();
    let ran = place.scratch.join("ran");
    let scripts = (0..6).map(|job| format!("echo {job} >> {}; exit 3", ran.display()));
    let scripts: Vec<String> = scripts.collect();
    let scripts: Vec<&str> = scripts.iter().map(String::as_str).collect();
    let batch = submit(&mut api, &of(&scripts));
    ended(&mut api, &batch);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut api = scheduler.api();
                let answer = api.ask("POST", &path(&batch, "/restart"), "");
                // The others have found nothing left to do.
                assert!([200, 400].contains(&answer.code), "{}", answer.json());
            });
        }
    });
    // All of them were asked while the first jobs had failed: none sees the next ones.
    let over = ended(&mut api, &batch);
    let again: BTreeSet<String> = jobs(&over)
        .iter()
        .map(|job| job["restartOf"].to_string())
        .collect();
    assert_eq!(again.len(), 6, "{over}");
    let text = fs::read_to_string(&ran).unwrap();
    let mut counts = BTreeMap::<&str, usize>::new();
    text.lines()
        .for_each(|line| *counts.entry(line).or_default() += 1);
    assert_eq!(counts.len(), 6);
    println!("{counts:?}");
    // Whatever ran is in sight: of each job the last, and before it those that it did again.
    let all = done(api.ask("GET", &path(&batch, ""), ""));
    assert_eq!(jobs(&all).len(), 6);
    scheduler.end();
}

#[test]
fn to_stop_a_batch_lets_none_of_its_jobs_begin() {
    let place = Place::new(&[(
        "compute",
        &format!("{SCRIPT}\nresources: {{requests: {{cpu: 1}}}}"),
    )]);
    let scheduler = place.start(&["--cpus", "1", "--grace-seconds", "1"]);
    let mut api = scheduler.api();
    let began = place.scratch.join("began");
    let script = format!("echo x >> {}; exec sleep 100", began.display());
    let batch = submit(&mut api, &of(&[script.as_str(); 6]));
    eventually("the first has begun", || began.exists().then_some(()));
    done(api.ask("POST", &path(&batch, "/stop"), ""));
    let over = ended(&mut api, &batch);
    assert_eq!(over["jobCounts"]["Stopped"], 6);
    assert_eq!(fs::read_to_string(&began).unwrap(), "x\n");
    scheduler.end();
}
