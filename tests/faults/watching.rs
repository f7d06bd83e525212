//! Watches that break, lie or fall behind: no transition is missed.

use crate::harness::cluster::Namespace;
use crate::harness::scheduler::Scheduler;
use crate::harness::{holds, within};
use crate::proxy::{Fault, FrameFault, Proxy};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Ends at once, or fails, by its number.
pub const SHORT: &str =
    "command: [\"sh\", \"-c\", \"exit $CODE\"]\nrunAsUser: 1000\nvariables:\n  CODE: \"0\"\n";

/// Submits `count` short jobs, every third of which fails; returns their names and the statuses
/// they must end in.
pub fn submit_short(scheduler: &Scheduler, count: usize) -> Vec<(String, &'static str)> {
    let submit = |number: usize| {
        let code = if number % 3 == 2 { "3" } else { "0" };
        let name = scheduler.submit(&json!({"payload": "p", "variables": {"CODE": code}}));
        (name, if code == "0" { "Succeeded" } else { "Failed" })
    };
    (0..count).map(submit).collect()
}

/// Waits until each job is in its final status, with the exit code of its pod.
#[track_caller]
pub fn wait_for_all(scheduler: &Scheduler, jobs: &[(String, &str)], limit: Duration) {
    within(limit, || {
        let listed = scheduler.list();
        let find = |name: &str| listed.iter().find(|job| job["name"] == name);
        let wrong = jobs.iter().find(|(name, status)| {
            let code = if *status == "Succeeded" { 0 } else { 3 };
            find(name).is_none_or(|job| {
                job["status"] != *status || job["podStatuses"][0]["exitCode"] != code
            })
        });
        holds(wrong.is_none(), || {
            let (name, status) = wrong.unwrap();
            format!(
                "{name} is not {status}: {}",
                find(name).unwrap_or(&Value::Null)
            )
        })
    });
}

#[test]
#[ignore = "takes a minute and a half"]
fn no_transition_is_missed_while_watches_are_cut_every_second_for_a_minute() {
    cut_every_second(60);
}

#[test]
fn no_transition_is_missed_while_watches_are_cut_every_second() {
    cut_every_second(8);
}

fn cut_every_second(seconds: usize) {
    let namespace = Namespace::new("cut", SHORT);
    let proxy = Proxy::start();
    let flags = ["--history-limit", "1000"];
    let scheduler = Scheduler::start(&namespace, &proxy.url(), &flags);
    let (mut jobs, mut cuts) = (Vec::new(), 0);
    for _ in 0..seconds {
        let second = Instant::now() + Duration::from_secs(1);
        jobs.extend(submit_short(&scheduler, 1));
        cuts += proxy.cut_watches();
        sleep(second.saturating_duration_since(Instant::now()));
    }
    assert!(cuts >= seconds, "only {cuts} watches were cut");
    let longest = backoffs(&scheduler).into_iter().max().unwrap_or(0);
    assert!(
        longest <= 100,
        "a pause of {longest} ms between watches that worked"
    );
    let asked = Instant::now();
    wait_for_all(&scheduler, &jobs, Duration::from_secs(60));
    println!(
        "{cuts} watches cut in {seconds} s under {} jobs: every one seen to its end, the last {:.1} s after the last cut",
        jobs.len(),
        asked.elapsed().as_secs_f64()
    );
}

/// The pauses between watches, in milliseconds.
fn backoffs(scheduler: &Scheduler) -> Vec<u64> {
    let log = scheduler.log();
    let pauses = log
        .lines()
        .filter_map(|line| line.split("backoff=").nth(1)?.split("ms").next());
    pauses.map(|pause| pause.parse().unwrap()).collect()
}

#[test]
fn watches_that_end_at_once_are_not_asked_for_without_pause() {
    let namespace = Namespace::new("ends", SHORT);
    let proxy = Proxy::start();
    let scheduler = Scheduler::start(&namespace, &proxy.url(), &["--history-limit", "1000"]);
    let ended = Arc::new(AtomicUsize::new(0));
    proxy.rule({
        let ended = ended.clone();
        move |asked| {
            asked.is_watch().then(|| {
                ended.fetch_add(1, Ordering::Relaxed);
                Fault::Answer {
                    code: 200,
                    headers: Vec::new(),
                    body: String::new(),
                }
            })
        }
    });
    proxy.cut_watches();
    let jobs = submit_short(&scheduler, 3);
    let seconds = 5;
    sleep(Duration::from_secs(seconds));
    let count = ended.load(Ordering::Relaxed);
    proxy.behave();
    wait_for_all(&scheduler, &jobs, Duration::from_secs(60));
    println!(
        "{count} watches ended at once in {seconds} s, {} jobs seen to their end afterwards",
        jobs.len()
    );
    // Of each of the two kinds: at 0, 0.1, 0.3, 0.7, 1.5 and 3.1 s at the earliest without jitter,
    // which may halve a pause.
    assert!((6..=20).contains(&count), "{count} watches");
}

#[test]
fn a_watch_that_is_dead_without_a_word_is_noticed_by_the_calls() {
    let namespace = Namespace::new("dead", SHORT);
    let proxy = Proxy::start();
    let scheduler = Scheduler::start(&namespace, &proxy.url(), &["--history-limit", "1000"]);
    let mut jobs = submit_short(&scheduler, 3);
    wait_for_all(&scheduler, &jobs, Duration::from_secs(60));
    proxy.forget_connections();
    let mut refused = 0;
    // Each connection that was kept for calls is found out by the first that uses it.
    let name = within(Duration::from_secs(40), || {
        let answer = scheduler.post(&json!({"payload": "p"}));
        match answer.code {
            200 => Ok(answer.json()["name"].as_str().unwrap().to_string()),
            _ => {
                assert_eq!(answer.code, 503, "{answer}");
                refused += 1;
                Err(answer.to_string())
            }
        }
    });
    let taken = Instant::now();
    jobs.push((name, "Succeeded"));
    wait_for_all(&scheduler, &jobs, Duration::from_secs(40));
    println!(
        "all connections dead without a word: {refused} POSTs answered 503, then {} jobs seen to their end {:.1} s after the first that \
         was taken",
        jobs.len(),
        taken.elapsed().as_secs_f64()
    );
}

#[test]
fn frames_repeated_lost_and_torn_change_nothing() {
    let namespace = Namespace::new("frames", SHORT);
    let proxy = Proxy::start();
    let scheduler = Scheduler::start(&namespace, &proxy.url(), &["--history-limit", "1000"]);
    let counts: Arc<[AtomicUsize; 4]> = Arc::default();
    proxy.frame_rule({
        let (counts, random) = (counts.clone(), Mutex::new(fastrand::Rng::with_seed(11)));
        move |_| {
            let (which, fault) = match random.lock().unwrap().u32(..10) {
                0 | 1 => (0, FrameFault::Repeat),
                2 => (1, FrameFault::Cut),
                3 => (2, FrameFault::CutInside),
                4 => (3, FrameFault::Expired),
                _ => return None,
            };
            counts[which].fetch_add(1, Ordering::Relaxed);
            Some(fault)
        }
    });
    let jobs = submit_short(&scheduler, 12);
    wait_for_all(&scheduler, &jobs, Duration::from_secs(60));
    proxy.behave();
    let counts = counts.each_ref().map(|count| count.load(Ordering::Relaxed));
    assert!(counts.iter().all(|count| *count >= 2), "{counts:?}");
    let [repeated, lost, torn, expired] = counts;
    println!(
        "{} jobs seen to their end; frames: {repeated} repeated, {lost} lost with their connection, {torn} torn, {expired} times 410",
        jobs.len()
    );
}

#[test]
fn a_version_that_is_too_old_is_listed_anew() {
    let namespace = Namespace::new("gone", SHORT);
    let proxy = Proxy::start();
    let scheduler = Scheduler::start(&namespace, &proxy.url(), &["--history-limit", "1000"]);
    let jobs = submit_short(&scheduler, 6);
    let refused = Arc::new(AtomicUsize::new(0));
    proxy.rule({
        let refused = refused.clone();
        move |asked| {
            let old = asked.is_watch() && refused.fetch_add(1, Ordering::Relaxed) < 4;
            old.then(|| Fault::status(410, "Expired", &[]))
        }
    });
    proxy.cut_watches();
    wait_for_all(&scheduler, &jobs, Duration::from_secs(60));
    let relists = scheduler.log().matches("listing again").count();
    assert!(relists >= 4, "{relists} relists");
    println!(
        "410 to 4 watches: {relists} relists, {} jobs seen to their end",
        jobs.len()
    );
}

#[test]
fn a_slow_list_and_a_busy_api_server_are_waited_for() {
    let namespace = Namespace::new("slow", SHORT);
    let proxy = Proxy::start();
    let count = Arc::new(AtomicUsize::new(0));
    proxy.rule({
        let count = count.clone();
        move |asked| {
            if asked.method != "GET" {
                return None;
            }
            match count.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => Some(Fault::status(429, "TooManyRequests", &["Retry-After: 1"])),
                2 | 3 => Some(Fault::status(500, "InternalError", &[])),
                4 => Some(Fault::CutAnswer(300)),
                5 | 6 => Some(Fault::Trickle(100, Duration::from_millis(20))),
                _ => None,
            }
        }
    });
    let scheduler = Scheduler::launch(&namespace, &proxy.url(), &["--history-limit", "1000"]);
    scheduler.wait_until_ready(Duration::from_secs(20));
    let jobs = submit_short(&scheduler, 3);
    wait_for_all(&scheduler, &jobs, Duration::from_secs(60));
    println!(
        "429, 500, a cut and a trickled answer to lists and watches: ready, {} jobs seen to their end",
        jobs.len()
    );
}
