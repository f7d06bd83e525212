//! Batches: all of one or nothing of it, whatever becomes of the scheduler or the API server.

use crate::crash::payload;
use crate::harness::cluster::{Namespace, decode_base64, name_of};
use crate::harness::http::{Answer, Connection};
use crate::harness::scheduler::Scheduler;
use crate::harness::{holds, within};
use crate::proxy::Proxy;
use crate::watching::SHORT;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

pub const BATCHES: &str = "/api/v1/batches";
const CLIENTS: usize = 4;

fn ask(port: u16, method: &str, path: &str, headers: &[&str], body: &str) -> Option<Answer> {
    // Longer than a batch takes that waits for others.
    let connection = Connection::local(port, Duration::from_secs(60));
    let answer = connection.and_then(|mut c| c.ask(method, path, headers, body.as_bytes()));
    answer.ok()
}

#[track_caller]
fn done(scheduler: &Scheduler, method: &str, path: &str, body: &str) -> Value {
    let answer = ask(scheduler.port, method, path, &[], body).unwrap();
    assert_eq!(answer.code, 200, "{method} {path}: {answer}");
    answer.json()
}

fn name(told: &Value) -> String {
    told["name"].as_str().unwrap().to_string()
}

fn jobs_of(batch: &Value) -> &Vec<Value> {
    batch["jobStatuses"].as_array().unwrap()
}

/// What a batch's number and a job's place make of a payload.
fn payload_of(batch: usize, job: usize) -> String {
    payload(batch * 1000 + job)
}

/// Sends one keyed batch until it is answered; returns the answer and how often it was sent.
fn submit_for_sure(port: u16, number: usize, jobs: usize, deadline: Instant) -> (Value, usize) {
    let key = format!("Idempotency-Key: batch-{number}");
    let jobs = (0..jobs).map(|job| json!({"payload": payload_of(number, job)}));
    let jobs: Vec<Value> = jobs.collect();
    let body = json!({"batchId": number.to_string(), "jobScheduleDescriptions": jobs}).to_string();
    let mut sent = 0;
    loop {
        assert!(Instant::now() < deadline, "batch {number} was not taken");
        sent += 1;
        match ask(port, "POST", BATCHES, &[&key], &body) {
            Some(answer) if answer.code == 200 => return (answer.json(), sent),
            // Nothing but "try again" may be said to a good request.
            Some(answer) => assert_eq!(answer.code, 503, "batch {number}: {answer}"),
            None => {}
        }
        sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "takes four minutes"]
fn batches_are_whole_or_absent_through_fifty_kills() {
    kills_leave_no_part("batch-kill", 60, 8, 50);
}

#[test]
fn batches_are_whole_or_absent_through_six_kills() {
    kills_leave_no_part("batch-kills", 9, 6, 6);
}

fn kills_leave_no_part(purpose: &str, batches: usize, size: usize, kills: usize) {
    let namespace = Namespace::new(purpose, SHORT);
    // The proxy slows the API server down a little, so that kills meet every write.
    let proxy = Proxy::start();
    let flags = [
        "--max-running",
        "8",
        "--max-waiting",
        "5000",
        "--history-limit",
        "500",
    ];
    let mut scheduler = Scheduler::start(&namespace, &proxy.url(), &flags);
    let port = scheduler.port;
    let (next, done_so_far) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let started = Instant::now();
    let deadline = started + Duration::from_secs(400);
    let mut given: BTreeMap<usize, Value> = BTreeMap::new();
    let mut sent = 0;
    scope(|scope| {
        let work = || {
            let mut mine = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= batches {
                    return mine;
                }
                mine.push((number, submit_for_sure(port, number, size, deadline)));
                done_so_far.fetch_add(1, Ordering::Relaxed);
            }
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(work)).collect();
        for killed in 0..kills {
            let due = batches * killed / kills;
            within(Duration::from_secs(120), || {
                let done = done_so_far.load(Ordering::Relaxed);
                holds(done >= due, || format!("{done} of {due} are done"))
            });
            sleep(Duration::from_micros(fastrand::u64(0..150_000)));
            scheduler.kill();
            scheduler.start_again();
            scheduler.wait_until_ready(Duration::from_secs(20));
        }
        for client in clients {
            for (number, (batch, times)) in client.join().unwrap() {
                given.insert(number, batch);
                sent += times;
            }
        }
    });
    let took = started.elapsed();
    // The same request again names the same batch.
    for number in [0, batches / 2, batches - 1] {
        let deadline = Instant::now() + Duration::from_secs(30);
        let (batch, _) = submit_for_sure(port, number, size, deadline);
        assert_eq!(name(&batch), name(&given[&number]));
    }
    for batch in given.values() {
        let own = format!("{BATCHES}/{}?wait=240s", name(batch));
        let over = done(&scheduler, "GET", &own, "");
        assert_eq!(over["jobCounts"]["Succeeded"], size, "{over}");
    }
    let count = batches * (size + 1);
    within(Duration::from_secs(90), || {
        let (jobs, secrets) = (namespace.jobs(), namespace.payloads());
        // Each ran once, as Kubernetes counts a moment after the end is told.
        let count_of = |job: &Value, of: &str| job["status"][of].as_u64();
        let ran =
            |job: &&Value| (count_of(job, "succeeded"), count_of(job, "failed")) == (Some(1), None);
        let ran = jobs.iter().filter(ran).count();
        holds(
            (jobs.len(), ran, secrets.len()) == (count, count - batches, batches),
            || {
                let (jobs, secrets) = (jobs.len(), secrets.len());
                format!("{jobs} Jobs, of which {ran} ran once, and {secrets} Secrets of {batches}")
            },
        )
    });
    let payloads = stored(&namespace);
    assert_eq!(payloads.len(), batches * size);
    for (number, batch) in &given {
        assert_eq!(jobs_of(batch).len(), size, "{batch}");
        for (index, job) in jobs_of(batch).iter().enumerate() {
            let stored = payloads.get(&name(job)).map(Vec::as_slice);
            let intact = stored == Some(payload_of(*number, index).as_bytes());
            assert!(intact, "the payload of job {index} of batch {number}");
        }
    }
    println!(
        "{batches} batches of {size} jobs from {CLIENTS} clients, sent {sent} times, {kills} kills in {:.1} s: \
         all whole, {} payloads intact, each job ran once, nothing else is there",
        took.as_secs_f64(),
        payloads.len(),
    );
}

/// All payloads of batches that the cluster has, by the names of their jobs.
fn stored(namespace: &Namespace) -> BTreeMap<String, Vec<u8>> {
    let secrets = namespace.api.list(&namespace.core_path("secrets"));
    let of_batches = secrets
        .iter()
        .filter(|secret| name_of(secret).contains("-payloads-"));
    let data = of_batches.filter_map(|secret| secret["data"].as_object());
    data.flatten()
        .map(|(job, text)| (job.clone(), decode_base64(text.as_str().unwrap())))
        .collect()
}

/// A quota that lets in a part of the batch.
fn refused_in_the_middle(purpose: &str, quota: Value, jobs: Vec<Value>, limit: &str) {
    let namespace = Namespace::new(purpose, SHORT);
    let proxy = Proxy::start();
    let scheduler = Scheduler::start(&namespace, &proxy.url(), &[]);
    namespace.quota(quota);
    let body = json!({"jobScheduleDescriptions": jobs}).to_string();
    let key = "Idempotency-Key: once";
    let began = Instant::now();
    let answer = ask(scheduler.port, "POST", BATCHES, &[key], &body).unwrap();
    let answered = began.elapsed();
    assert_eq!(answer.code, 503, "{answer}");
    let message = answer.json()["message"].to_string();
    assert!(
        message.contains("exceeded quota") && message.contains(limit),
        "{message}"
    );
    within(Duration::from_secs(30), || {
        let jobs: Vec<String> = namespace.jobs().iter().map(name_of).collect();
        let secrets = stored(&namespace);
        holds(jobs.is_empty() && secrets.is_empty(), || {
            format!("left: {jobs:?}, {:?}", secrets.keys())
        })
    });
    println!(
        "{limit}: refused after {:.1} s, nothing left after {:.1} s: {message}",
        answered.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    assert_eq!(done(&scheduler, "GET", BATCHES, ""), json!([]));
    assert_eq!(scheduler.list().len(), 0);
    // With room it is made, by the same request.
    let path = format!("{}/bound", namespace.core_path("resourcequotas"));
    assert_eq!(namespace.api.call("DELETE", &path, None).code, 200);
    let again = within(Duration::from_secs(30), || {
        let answer = ask(scheduler.port, "POST", BATCHES, &[key], &body).unwrap();
        holds(answer.code == 200, || answer.to_string()).map(|()| answer.json())
    });
    assert_eq!(jobs_of(&again).len(), jobs.len());
    let own = format!("{BATCHES}/{}?wait=120s", name(&again));
    let over = done(&scheduler, "GET", &own, "");
    assert_eq!(over["jobCounts"]["Succeeded"], jobs.len(), "{over}");
}

#[test]
fn a_quota_that_refuses_in_the_middle_leaves_nothing() {
    let small = vec![json!({"payload": "p"}); 10];
    let quota = json!({"count/jobs.batch": "6"});
    refused_in_the_middle("batch-jobs", quota, small, "count/jobs.batch=6");
    let large = vec![json!({"payload": "x".repeat(700_000)}); 3];
    let quota = json!({"count/secrets": "2"});
    refused_in_the_middle("batch-secrets", quota, large, "count/secrets=2");
}

#[test]
#[ignore = "takes two minutes"]
fn of_forty_batches_the_right_ten_of_each_outcome_are_kept() {
    the_latest_are_kept("batch-kept-ten", 13, 10);
}

#[test]
fn of_ten_batches_the_right_two_of_each_outcome_are_kept() {
    the_latest_are_kept("batch-kept-two", 3, 2);
}

/// The latest of each outcome, and of the others no object: of so many rounds of the three, and one
/// more that succeeds.
fn the_latest_are_kept(purpose: &str, rounds: usize, kept: usize) {
    let ports = "ports: [{name: http, port: 3000}]\n";
    let namespace = Namespace::new(purpose, &format!("{SHORT}{ports}"));
    let proxy = Proxy::start();
    let scheduler = Scheduler::start(
        &namespace,
        &proxy.url(),
        &["--max-running", "8", "--history-limit", &kept.to_string()],
    );
    let mut made: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for round in 0..=rounds {
        for outcome in ["Succeeded", "Failed", "Stopped"] {
            if round == rounds && outcome != "Succeeded" {
                continue;
            }
            let code = if outcome == "Failed" { "3" } else { "0" };
            let command = match outcome {
                "Stopped" => "trap 'exit 1' TERM; sleep 600 & wait",
                _ => "exit $CODE",
            };
            let command = ["sh", "-c", command];
            let second = json!({"payload": "b", "variables": {"CODE": code}, "command": command});
            let body = json!({"jobScheduleDescriptions": [{"payload": "a"}, second]});
            let batch = done(&scheduler, "POST", BATCHES, &body.to_string());
            let own = format!("{BATCHES}/{}", name(&batch));
            if outcome == "Stopped" {
                let first = format!("{own}/jobs/{}?wait=60s", name(&jobs_of(&batch)[0]));
                done(&scheduler, "GET", &first, "");
                done(&scheduler, "POST", &format!("{own}/stop"), "");
            }
            let over = done(&scheduler, "GET", &format!("{own}?wait=60s"), "");
            assert_eq!(
                over["jobCounts"][outcome].as_u64().unwrap_or(0).min(1),
                1,
                "{over}"
            );
            made.entry(outcome).or_default().push(name(&batch));
        }
    }
    let latest = made
        .values()
        .flat_map(|names| names.iter().rev().take(kept));
    let expected: BTreeSet<String> = latest.cloned().collect();
    within(Duration::from_secs(60), || {
        let kept = done(&scheduler, "GET", &format!("{BATCHES}?summary=true"), "");
        let kept: BTreeSet<String> = kept.as_array().unwrap().iter().map(name).collect();
        holds(kept == expected, || format!("{kept:?}, not {expected:?}"))
    });
    // Two Jobs, one Secret and, of each job that ran, a Service.
    let members = done(&scheduler, "GET", BATCHES, "");
    let members = members.as_array().unwrap().iter().flat_map(jobs_of);
    let members: BTreeSet<String> = members.map(name).collect();
    within(Duration::from_secs(60), || {
        let jobs: BTreeSet<String> = namespace.jobs().iter().map(name_of).collect();
        let all: BTreeSet<String> = expected.union(&members).cloned().collect();
        let payloads: BTreeSet<String> = stored(&namespace).into_keys().collect();
        let services = namespace.api.list(&namespace.core_path("services"));
        let services: BTreeSet<String> = services.iter().map(name_of).collect();
        // One that is stopped as it begins has none.
        let all_have_run =
            |of: &BTreeSet<String>| of.is_subset(&members) && of.len() * 2 >= members.len();
        holds(
            jobs == all && payloads == members && all_have_run(&services),
            || {
                let other = |some: &BTreeSet<String>, all: &BTreeSet<String>| {
                    some.symmetric_difference(all).cloned().collect::<Vec<_>>()
                };
                let extra = other(&services, &members);
                format!(
                    "{:?} {:?} {extra:?}",
                    other(&jobs, &all),
                    other(&payloads, &members)
                )
            },
        )
    });
    println!(
        "{} batches of three outcomes: the latest {kept} of each are left, with {} Jobs of theirs, and nothing else",
        3 * rounds + 1,
        members.len()
    );
}
