//! The scheduler is killed, and killed again.

use crate::harness::cluster::{Namespace, name_of};
use crate::harness::http::Connection;
use crate::harness::scheduler::{JOBS, Scheduler};
use crate::harness::{holds, within};
use crate::proxy::Proxy;
use crate::watching::{SHORT, wait_for_all};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

const CLIENTS: usize = 8;

/// Nothing of it can be guessed from its number alone, and it has all that JSON and base64 could
/// hurt.
pub fn payload(number: usize) -> String {
    let mut random = fastrand::Rng::with_seed(number as u64);
    let length = random.usize(0..8000);
    let characters = [
        'a', '"', '\\', '\n', '\r', '\0', 'å', '€', '🦀', ' ', '\u{2028}', '0',
    ];
    let text: String = (0..length)
        .map(|_| characters[random.usize(..characters.len())])
        .collect();
    format!("{number}:{text}")
}

/// Sends one keyed request until it is answered with a job; returns the job's name and how often it
/// was sent.
fn submit_for_sure(port: u16, number: usize, deadline: Instant) -> (String, usize) {
    let key = format!("Idempotency-Key: order-{number}");
    let body = json!({"payload": payload(number), "jobId": format!("order-{number}")}).to_string();
    let mut sent = 0;
    loop {
        assert!(Instant::now() < deadline, "order {number} was not taken");
        sent += 1;
        let answer = Connection::local(port, Duration::from_secs(5))
            .and_then(|mut c| c.ask("POST", JOBS, &[&key], body.as_bytes()));
        match answer {
            Ok(answer) if answer.code == 200 => {
                return (answer.json()["name"].as_str().unwrap().to_string(), sent);
            }
            // Nothing but "try again" may be said to a good request.
            Ok(answer) => assert_eq!(answer.code, 503, "order {number}: {answer}"),
            Err(_) => {}
        }
        sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "takes a minute"]
fn a_thousand_keyed_submits_survive_fifty_kills() {
    kills_lose_nothing("kill", 1000, 50, Jobs::Stay);
}

#[test]
#[ignore = "takes two minutes"]
fn jobs_run_end_and_are_deleted_through_fifty_kills() {
    kills_lose_nothing("kill-run", 240, 50, Jobs::Run);
}

#[test]
fn jobs_run_end_and_are_deleted_through_eight_kills() {
    kills_lose_nothing("kills", 60, 8, Jobs::Run);
}

/// What becomes of the jobs that are submitted.
#[derive(Clone, Copy, PartialEq)]
enum Jobs {
    /// None gets a pod.
    Stay,
    /// Each runs once, and one in seven is deleted by its owner.
    Run,
}

impl Jobs {
    fn are_deleted(self, number: usize) -> bool {
        self == Jobs::Run && number % 7 == 3
    }
}

/// Deletes a job that was acknowledged; nothing but "try again" keeps it from that.
fn delete_for_sure(port: u16, name: &str, deadline: Instant) {
    loop {
        assert!(Instant::now() < deadline, "{name} was not deleted");
        let path = format!("{JOBS}/{name}");
        let answer = Connection::local(port, Duration::from_secs(5))
            .and_then(|mut c| c.ask("DELETE", &path, &[], b""));
        match answer {
            // Not found: an answer before was lost.
            Ok(answer) if [200, 404].contains(&answer.code) => return,
            Ok(answer) => assert_eq!(answer.code, 503, "{name}: {answer}"),
            Err(_) => {}
        }
        sleep(Duration::from_millis(20));
    }
}

fn kills_lose_nothing(purpose: &str, orders: usize, kills: usize, jobs_do: Jobs) {
    let namespace = Namespace::new(purpose, SHORT);
    if jobs_do == Jobs::Stay {
        namespace.quota(json!({"pods": "0"}));
    }
    let proxy = Proxy::start();
    // The proxy slows the API server down a little, so that kills meet every step between the two
    // writes.
    let flags = [
        "--max-running",
        "8",
        "--max-waiting",
        "5000",
        "--history-limit",
        "5000",
    ];
    let mut scheduler = Scheduler::start(&namespace, &proxy.url(), &flags);
    let port = scheduler.port;
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let all_taken = AtomicBool::new(false);
    let started = Instant::now();
    let deadline = started + Duration::from_secs(240);
    let mut names: BTreeMap<usize, String> = BTreeMap::new();
    let (mut sent, mut killed) = (0, 0);
    scope(|scope| {
        let work = || {
            let mut mine = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= orders {
                    return mine;
                }
                let taken = submit_for_sure(port, number, deadline);
                if jobs_do.are_deleted(number) {
                    delete_for_sure(port, &taken.0, deadline);
                }
                mine.push((number, taken));
                done.fetch_add(1, Ordering::Relaxed);
            }
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(work)).collect();
        // As many kills as asked for, spread over the orders; each at a moment of its own.
        while killed < kills {
            let due = orders * killed / kills;
            within(Duration::from_secs(60), || {
                holds(done.load(Ordering::Relaxed) >= due, || {
                    "no progress".to_string()
                })
            });
            sleep(Duration::from_micros(fastrand::u64(0..60_000)));
            scheduler.kill();
            killed += 1;
            scheduler.start_again();
            scheduler.wait_until_ready(Duration::from_secs(20));
        }
        for client in clients {
            for (number, (name, times)) in client.join().unwrap() {
                names.insert(number, name);
                sent += times;
            }
        }
        all_taken.store(true, Ordering::Relaxed);
    });
    let took = started.elapsed();

    // The same request again names the same job.
    for number in [0, orders / 2, orders - 2] {
        assert!(!jobs_do.are_deleted(number));
        let (name, _) = submit_for_sure(port, number, Instant::now() + Duration::from_secs(20));
        assert_eq!(Some(&name), names.get(&number));
    }
    // One that a killed scheduler's create made late is known for one too many, and is on its way
    // out, with its Secret.
    names.retain(|number, _| !jobs_do.are_deleted(*number));
    let kept = names.len();
    within(Duration::from_secs(60), || {
        let (jobs, secrets) = (namespace.jobs().len(), namespace.payloads().len());
        holds((jobs, secrets) == (kept, kept), || {
            format!("{jobs} Jobs and {secrets} Secrets of {kept} orders")
        })
    });
    if jobs_do == Jobs::Run {
        let ended: Vec<_> = names
            .values()
            .map(|name| (name.clone(), "Succeeded"))
            .collect();
        wait_for_all(&scheduler, &ended, Duration::from_secs(240));
        // Each ran once, as Kubernetes counts a moment after the end is told.
        within(Duration::from_secs(60), || {
            let jobs = namespace.jobs();
            let counts = |job: &Value, count: &str| job["status"][count].as_u64();
            let once = |job: &&Value| (counts(job, "succeeded"), counts(job, "failed"));
            let other = jobs.iter().find(|job| once(job) != (Some(1), None));
            holds(other.is_none(), || format!("{other:?}"))
        });
    }
    let jobs = namespace.jobs();
    let by_id = |job: &Value| {
        let id = job["metadata"]["annotations"]["job-scheduler/job-id"].clone();
        (id.as_str().unwrap().to_string(), name_of(job))
    };
    let stored: BTreeMap<String, String> = jobs.iter().map(by_id).collect();
    assert_eq!(stored.len(), kept, "orders in Kubernetes");
    let twice = jobs
        .iter()
        .map(by_id)
        .filter(|(id, name)| stored.get(id) != Some(name));
    let twice: Vec<_> = twice
        .map(|(id, name)| format!("{id}: {name} and {}", stored[&id]))
        .collect();
    assert!(twice.is_empty(), "orders with two Jobs: {twice:?}");
    let payloads: BTreeMap<String, Vec<u8>> = namespace.payloads().into_iter().collect();
    assert_eq!(payloads.len(), kept, "Secrets in Kubernetes");
    for (number, name) in &names {
        assert_eq!(stored.get(&format!("order-{number}")), Some(name));
        let intact = payloads.get(name).map(Vec::as_slice) == Some(payload(*number).as_bytes());
        assert!(intact, "the payload of order {number}, {name}");
    }
    assert_eq!(scheduler.list().len(), kept, "jobs listed");
    assert_eq!(
        namespace.api.list(&namespace.core_path("services")).len(),
        0
    );
    println!(
        "{orders} orders from {CLIENTS} clients, sent {sent} times, {killed} kills in {:.1} s: {} jobs kept, {} deleted, 0 lost, 0 doubled, {} payloads intact",
        took.as_secs_f64(),
        jobs.len(),
        orders - kept,
        payloads.len(),
    );
}
