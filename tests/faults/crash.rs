//! The scheduler is killed, and killed again.

use crate::harness::cluster::{Namespace, name_of};
use crate::harness::http::Connection;
use crate::harness::scheduler::{JOBS, Scheduler};
use crate::harness::{holds, within};
use crate::proxy::Proxy;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

const CLIENTS: usize = 8;

/// Nothing of it can be guessed from its number alone, and it has all that JSON and base64 could hurt.
fn payload(number: usize) -> String {
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

/// Sends one keyed request until it is answered with a job; returns the job's name and how often it was sent.
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
    kills_lose_nothing("kill", 1000, 50);
}

#[test]
fn a_hundred_keyed_submits_survive_eight_kills() {
    kills_lose_nothing("kills", 100, 8);
}

fn kills_lose_nothing(purpose: &str, orders: usize, kills: usize) {
    let namespace = Namespace::new(purpose, "");
    namespace.quota(json!({"pods": "0"}));
    let proxy = Proxy::start();
    // The proxy slows the API server down a little, so that kills meet every step between the two writes.
    let flags = ["--max-running", "1", "--max-waiting", "5000"];
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
                mine.push((number, submit_for_sure(port, number, deadline)));
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
    for number in [0, orders / 2, orders - 1] {
        let (name, _) = submit_for_sure(port, number, Instant::now() + Duration::from_secs(20));
        assert_eq!(Some(&name), names.get(&number));
    }
    // One that a killed scheduler's create made late is known for one too many, and is on its way out, with its Secret.
    within(Duration::from_secs(20), || {
        let (jobs, secrets) = (namespace.jobs().len(), namespace.payloads().len());
        holds((jobs, secrets) == (orders, orders), || {
            format!("{jobs} Jobs and {secrets} Secrets of {orders} orders")
        })
    });
    let jobs = namespace.jobs();
    let by_id = |job: &Value| {
        let id = job["metadata"]["annotations"]["job-scheduler/job-id"].clone();
        (id.as_str().unwrap().to_string(), name_of(job))
    };
    let stored: BTreeMap<String, String> = jobs.iter().map(by_id).collect();
    assert_eq!(stored.len(), orders, "orders in Kubernetes");
    let twice = jobs
        .iter()
        .map(by_id)
        .filter(|(id, name)| stored.get(id) != Some(name));
    let twice: Vec<_> = twice
        .map(|(id, name)| format!("{id}: {name} and {}", stored[&id]))
        .collect();
    assert!(twice.is_empty(), "orders with two Jobs: {twice:?}");
    let payloads: BTreeMap<String, Vec<u8>> = namespace.payloads().into_iter().collect();
    assert_eq!(payloads.len(), orders, "Secrets in Kubernetes");
    for (number, name) in &names {
        assert_eq!(stored.get(&format!("order-{number}")), Some(name));
        let intact = payloads.get(name).map(Vec::as_slice) == Some(payload(*number).as_bytes());
        assert!(intact, "the payload of order {number}, {name}");
    }
    assert_eq!(scheduler.list().len(), orders, "jobs listed");
    assert_eq!(
        namespace.api.list(&namespace.core_path("services")).len(),
        0
    );
    println!(
        "{orders} orders from {CLIENTS} clients, sent {sent} times, {killed} kills in {:.1} s: {} jobs, 0 lost, 0 doubled, {} payloads intact",
        took.as_secs_f64(),
        jobs.len(),
        payloads.len(),
    );
}
