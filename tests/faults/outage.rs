//! The API server is gone for a while, or silent.

use crate::harness::cluster::{Namespace, name_of};
use crate::harness::scheduler::{JOBS, Scheduler};
use crate::harness::{holds, percentile, within};
use crate::proxy::Proxy;
use crate::watching::{SHORT, submit_short, wait_for_all};
use serde_json::{Value, json};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
enum Outage {
    /// Connections break and are refused, as when the process is stopped.
    Refused,
    /// Nothing is answered; then the process is started anew, and what it was asked meanwhile is
    /// lost.
    StalledAndRestarted,
    /// Nothing is answered; then it goes on, and does all that it was asked meanwhile.
    StalledAndResumed,
}

#[test]
fn an_outage_of_refused_connections() {
    outage(Outage::Refused, 8);
}

#[test]
fn an_outage_of_silence_and_a_restart() {
    outage(Outage::StalledAndRestarted, 8);
}

#[test]
fn an_outage_of_silence_after_which_all_is_done() {
    outage(Outage::StalledAndResumed, 8);
}

#[test]
#[ignore = "takes half a minute"]
fn twenty_seconds_of_refused_connections() {
    outage(Outage::Refused, 20);
}

#[test]
#[ignore = "takes half a minute"]
fn twenty_seconds_of_silence_and_a_restart() {
    outage(Outage::StalledAndRestarted, 20);
}

#[test]
#[ignore = "takes half a minute"]
fn twenty_seconds_of_silence_after_which_all_is_done() {
    outage(Outage::StalledAndResumed, 20);
}

/// What callers saw.
#[derive(Default)]
struct Seen {
    gets: Vec<Duration>,
    /// POSTs during the outage and how long each took.
    refused: Vec<Duration>,
    created: Vec<String>,
}

fn outage(kind: Outage, seconds: u64) {
    let namespace = Namespace::new("out", SHORT);
    let proxy = Proxy::start();
    let flags = ["--history-limit", "1000"];
    let scheduler = Scheduler::start(&namespace, &proxy.url(), &flags);
    let begin = || match kind {
        Outage::Refused => proxy.refuse(),
        Outage::StalledAndRestarted | Outage::StalledAndResumed => proxy.stall(),
    };
    let end = || match kind {
        Outage::Refused => proxy.behave(),
        Outage::StalledAndRestarted => proxy.restart(),
        Outage::StalledAndResumed => proxy.go_on(),
    };
    endure(
        &format!("{kind:?}"),
        &namespace,
        &scheduler,
        seconds,
        begin,
        end,
    );
}

/// Has the API server go away for so long while jobs run and clients go on, and checks what they
/// see.
pub fn endure(
    what: &str,
    namespace: &Namespace,
    scheduler: &Scheduler,
    seconds: u64,
    begin: impl FnOnce(),
    end: impl FnOnce(),
) {
    // Some of these end while nobody can tell.
    let jobs = submit_short(scheduler, 9);
    let seen = Mutex::new(Seen::default());
    let over = AtomicBool::new(false);
    let back = scope(|scope| {
        // Also if something is not as it must be: or they would go on for ever, and take the
        // cluster's whole time.
        let _over = Over(&over);
        for _ in 0..4 {
            scope.spawn(|| post_until(scheduler, &over, &seen));
        }
        scope.spawn(|| get_until(scheduler, &over, &seen));
        sleep(Duration::from_millis(500));
        begin();
        sleep(Duration::from_secs(seconds));
        end();
        let back = Instant::now();
        within(Duration::from_secs(5), || {
            let answer = scheduler.post(&json!({"payload": "after", "variables": {"CODE": "0"}}));
            if answer.code == 200 {
                let name = answer.json()["name"].as_str().unwrap().to_string();
                seen.lock().unwrap().created.push(name);
            }
            holds(answer.code == 200, || answer.to_string())
        });
        back
    });
    // All that ended meanwhile is known, and ends as it must.
    within(
        Duration::from_secs(5).saturating_sub(back.elapsed()),
        || same_as_kubernetes(namespace, scheduler),
    );
    let well = back.elapsed();
    wait_for_all(scheduler, &jobs, Duration::from_secs(120));
    let mut seen = seen.into_inner().unwrap();
    for name in &seen.created {
        scheduler.wait_for(name, "Succeeded", Duration::from_secs(90));
    }
    // What was refused did not happen, or was taken back.
    let expected = jobs.len() + seen.created.len();
    within(Duration::from_secs(30), || {
        let there = namespace.jobs();
        holds(there.len() == expected, || {
            let unknown = there
                .iter()
                .map(name_of)
                .filter(|name| scheduler.job(name).is_null());
            format!(
                "{} Jobs instead of {expected}: {:?} were refused, and are there",
                there.len(),
                unknown.collect::<Vec<_>>()
            )
        })
    });
    let slowest = percentile(&mut seen.refused, 100);
    let (gets, refused) = (seen.gets.len(), seen.refused.len());
    let p99 = percentile(&mut seen.gets, 99);
    println!(
        "{what} for {seconds} s: {gets} GETs served (p99 {p99:.1?}), {refused} POSTs answered 503 with Retry-After (slowest {slowest:.1?}), \
         all well {well:.1?} after its return; {expected} jobs seen to their end, 0 lost, 0 doubled, 0 transitions missed",
    );
    // On a machine that has more to do than processors, a thread may have to wait for its turn.
    let usual = percentile(&mut seen.refused, 90);
    assert!(refused > 0 && usual < Duration::from_secs(2) && slowest < Duration::from_secs(3));
}

/// Ends the clients when dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the scheduler lists is what Kubernetes has, but for jobs that change at this moment.
fn same_as_kubernetes(namespace: &Namespace, scheduler: &Scheduler) -> Result<(), String> {
    let listed = scheduler.list();
    let ended = |job: &Value| {
        let conditions = job["status"]["conditions"].as_array().cloned();
        let has = |kind: &str| {
            let mut conditions = conditions.iter().flatten();
            conditions.any(|c| c["type"] == kind && c["status"] == "True")
        };
        match (has("Complete"), has("Failed")) {
            (true, _) => "Succeeded",
            (_, true) => "Failed",
            _ => "",
        }
    };
    for job in namespace.jobs() {
        let (name, ended) = (name_of(&job), ended(&job));
        let known = listed.iter().find(|job| job["name"] == name.as_str());
        let status = known.map_or("unknown", |job| job["status"].as_str().unwrap());
        if !ended.is_empty() && known.is_some() && status != ended {
            return Err(format!("{name} is {status}, and {ended} in Kubernetes"));
        }
    }
    Ok(())
}

fn post_until(scheduler: &Scheduler, over: &AtomicBool, seen: &Mutex<Seen>) {
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let answer = scheduler.post(&json!({"payload": "during", "variables": {"CODE": "0"}}));
        let took = began.elapsed();
        let mut seen = seen.lock().unwrap();
        match answer.code {
            200 => {
                let name = answer.json()["name"].as_str().unwrap().to_string();
                seen.created.push(name);
            }
            503 => {
                assert!(answer.head.header("Retry-After").is_some(), "{answer}");
                seen.refused.push(took);
            }
            _ => panic!("{answer}"),
        }
        drop(seen);
        sleep(Duration::from_millis(400));
    }
}

fn get_until(scheduler: &Scheduler, over: &AtomicBool, seen: &Mutex<Seen>) {
    let mut connection = scheduler.connect().unwrap();
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let answer = connection.ask("GET", JOBS, &[], b"").unwrap();
        assert_eq!(answer.code, 200, "{answer}");
        seen.lock().unwrap().gets.push(began.elapsed());
        sleep(Duration::from_millis(10));
    }
}
