//! The concurrency cap holds at every instant, and who waits is let in in order and at once.

use crate::harness::cluster::Namespace;
use crate::harness::scheduler::{JOBS, Scheduler};
use crate::harness::{holds, percentile, within};
use crate::proxy::{Event, Fault, Proxy};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

/// Ends after a moment, or when it is told to.
const MOMENT: &str = "command: [\"sh\", \"-c\", \"trap 'exit 143' TERM; sleep $SECONDS_LONG & wait\"]\nrunAsUser: 1000\nvariables:\n  SECONDS_LONG: \"0.3\"\n";
const CAP: usize = 3;
/// How long after a start a scheduler with a cap lets no job run, and a little.
const OPENS_AFTER: Duration = Duration::from_millis(7500);

/// What a watch of pods tells: how many were not at their end, at most.
#[derive(Default)]
struct Pods {
    live: BTreeSet<String>,
    all: BTreeSet<String>,
    most: usize,
    most_were: BTreeSet<String>,
    /// Nothing is known of what came after.
    ended: bool,
}

fn watch_pods(namespace: &Namespace) -> Arc<Mutex<Pods>> {
    let pods: Arc<Mutex<Pods>> = Arc::default();
    let (api, path, told) = (
        namespace.api.clone(),
        namespace.core_path("pods"),
        pods.clone(),
    );
    // Ends with the namespace's last pod, or with the process.
    std::thread::spawn(move || {
        api.watch(&path, |frame| {
            let object = &frame["object"];
            let name = crate::harness::cluster::name_of(object);
            let phase = object["status"]["phase"].as_str().unwrap_or_default();
            let ended = frame["type"] == "DELETED" || phase == "Succeeded" || phase == "Failed";
            let mut pods = told.lock().unwrap();
            if frame["type"] != "BOOKMARK" {
                pods.all.insert(name.clone());
                match ended {
                    true => pods.live.remove(&name),
                    false => pods.live.insert(name),
                };
            }
            if pods.live.len() > pods.most {
                pods.most = pods.live.len();
                pods.most_were = pods.live.clone();
            }
            Arc::strong_count(&told) > 1
        });
        told.lock().unwrap().ended = true;
    });
    pods
}

/// Jobs in the order in which the scheduler let them run, as the proxy saw it.
fn admitted(proxy: &Proxy) -> Vec<(String, Instant)> {
    let journal = proxy.journal();
    let admits = journal.iter().filter_map(|entry| match &entry.what {
        Event::Asked(asked)
            if asked.method == "PATCH"
                && String::from_utf8_lossy(&asked.body).contains("\"suspend\":false") =>
        {
            let path = asked.path.split('?').next().unwrap();
            let name = path.rsplit('/').next().unwrap().to_string();
            Some((name, entry.at))
        }
        _ => None,
    });
    admits.collect()
}

#[test]
fn a_free_place_is_taken_within_50_milliseconds() {
    let namespace = Namespace::new("admit", MOMENT);
    let proxy = Proxy::start();
    let flags = ["--max-running", "1", "--history-limit", "1000"];
    let scheduler = Scheduler::start(&namespace, &proxy.url(), &flags);
    sleep(OPENS_AFTER);
    let names: Vec<String> = (0..10)
        .map(|_| scheduler.submit(&json!({"payload": "p"})))
        .collect();
    for job in scheduler.list() {
        let waits = job["status"] == "Waiting";
        assert_eq!(job["queuePosition"].is_u64(), waits, "{job}");
    }
    for name in &names {
        scheduler.wait_for(name, "Succeeded", Duration::from_secs(120));
    }
    let admitted = admitted(&proxy);
    let order: Vec<_> = admitted.iter().map(|(name, _)| name).collect();
    assert_eq!(order, names[1..].iter().collect::<Vec<_>>());
    // Each was let in after the event that told of the end of the one before.
    let mut ends: BTreeMap<String, Instant> = BTreeMap::new();
    for entry in proxy.journal().iter() {
        let Event::Frame(frame) = &entry.what else {
            continue;
        };
        // The phase of its pod.
        if frame.contains("\u{a}\u{9}Succeeded") {
            let name = names.iter().find(|name| frame.contains(name.as_str()));
            ends.entry(name.unwrap().clone()).or_insert(entry.at);
        }
    }
    let mut delays: Vec<Duration> = admitted
        .iter()
        .zip(&names)
        .map(|((_, at), before)| at.saturating_duration_since(ends[before]))
        .collect();
    let (median, slowest) = (percentile(&mut delays, 50), percentile(&mut delays, 100));
    println!(
        "{} admissions, each after the watch's event: median {median:.1?}, slowest {slowest:.1?}",
        delays.len()
    );
    assert!(median < Duration::from_millis(50), "{delays:?}");
}

#[test]
fn the_cap_holds_under_deletes_stops_and_restarts() {
    cap_holds(24, 0);
}

#[test]
fn the_cap_holds_under_deletes_stops_restarts_and_a_few_kills() {
    cap_holds(18, 3);
}

#[test]
#[ignore = "takes two minutes"]
fn the_cap_holds_under_deletes_stops_restarts_and_kills() {
    cap_holds(60, 8);
}

fn cap_holds(count: usize, kills: usize) {
    let namespace = Namespace::new("cap", MOMENT);
    let proxy = Proxy::start();
    let cap = CAP.to_string();
    let flags = ["--max-running", &cap, "--history-limit", "1000"];
    let mut scheduler = Scheduler::start(&namespace, &proxy.url(), &flags);
    let pods = watch_pods(&namespace);
    sleep(OPENS_AFTER);
    // The first ones run until all the others wait.
    let long = json!({"payload": "p", "variables": {"SECONDS_LONG": "6"}});
    let mut jobs: Vec<(String, i64)> = (0..CAP).map(|_| (scheduler.submit(&long), 0)).collect();
    for number in CAP..count {
        let priority = [0, 50, -50, 0][number % 4];
        let name = scheduler.submit(&json!({"payload": "p", "priority": priority}));
        jobs.push((name, priority));
    }
    let mut random = fastrand::Rng::with_seed(7);
    let (mut deleted, mut stopped, mut restarted, mut killed) = (0, 0, 0, 0);
    let mut touched: BTreeSet<String> = BTreeSet::new();
    let began = Instant::now();
    let unfinished = |scheduler: &Scheduler| {
        let listed = scheduler.list();
        let unfinished = listed.into_iter().filter(|job| {
            ["Waiting", "Running", "Stopping"].contains(&job["status"].as_str().unwrap())
        });
        unfinished.collect::<Vec<_>>()
    };
    loop {
        let left = unfinished(&scheduler);
        if left.is_empty() {
            break;
        }
        assert!(
            began.elapsed() < Duration::from_secs(240),
            "{} jobs left",
            left.len()
        );
        sleep(Duration::from_millis(300));
        if deleted + stopped >= count / 3 {
            continue;
        }
        let name = left[random.usize(..left.len())]["name"]
            .as_str()
            .unwrap()
            .to_string();
        let path = format!("{JOBS}/{name}");
        let answer = match random.u8(..3) {
            0 => {
                deleted += 1;
                scheduler.ask("DELETE", &path, &[], b"").unwrap()
            }
            _ => {
                stopped += 1;
                scheduler
                    .ask("POST", &format!("{path}/stop"), &[], b"")
                    .unwrap()
            }
        };
        assert!([200, 400, 404].contains(&answer.code), "{answer}");
        touched.insert(name.clone());
        let stopped_ones = scheduler.list();
        let stopped_one = stopped_ones.iter().find(|job| job["status"] == "Stopped");
        if let Some(job) = stopped_one {
            let name = job["name"].as_str().unwrap();
            let answer = scheduler
                .ask("POST", &format!("{JOBS}/{name}/restart"), &[], b"")
                .unwrap();
            assert_eq!(answer.code, 200, "{answer}");
            restarted += 1;
        }
        if killed < kills && random.u8(..2) == 0 {
            scheduler.kill();
            killed += 1;
            scheduler.start_again();
            scheduler.wait_until_ready(Duration::from_secs(20));
        }
    }
    // Those that nobody touched were let in by priority, then arrival.
    let mut expected: Vec<_> = jobs[CAP..]
        .iter()
        .filter(|(name, _)| !touched.contains(name))
        .collect();
    expected.sort_by_key(|(_, priority)| -priority);
    let expected: Vec<_> = expected.iter().map(|(name, _)| name.clone()).collect();
    let mut order: Vec<String> = Vec::new();
    for (name, _) in admitted(&proxy) {
        // One whose answer was lost with the process that asked is asked for again.
        if expected.contains(&name) && order.last() != Some(&name) {
            order.push(name);
        }
    }
    assert_eq!(order, expected, "admitted in another order");
    within(Duration::from_secs(40), || {
        let pods = pods.lock().unwrap();
        holds(pods.live.is_empty(), || format!("{:?} live", pods.live))
    });
    let pods = pods.lock().unwrap();
    assert!(!pods.ended, "the watch of pods ended: not all were seen");
    assert!(killed >= kills.min(1), "nothing was killed");
    println!(
        "{count} jobs, cap {CAP}, {deleted} deletes, {stopped} stops, {restarted} restarts, {killed} kills: {} pods, at most {} live at once; {} admitted in order",
        pods.all.len(),
        pods.most,
        order.len()
    );
    assert!(
        pods.most <= CAP,
        "{} pods at once: {:?}",
        pods.most,
        pods.most_were
    );
}

#[test]
fn a_place_that_comes_to_nothing_goes_to_who_waits() {
    let namespace = Namespace::new("place", MOMENT);
    let proxy = Proxy::start();
    let scheduler = Scheduler::start(&namespace, &proxy.url(), &["--max-running", "1"]);
    sleep(OPENS_AFTER);
    // The first create takes a while, and is refused.
    proxy.rule({
        let first = AtomicBool::new(true);
        move |asked| {
            let is_first = asked.creates("jobs") && first.swap(false, Ordering::AcqRel);
            let refusal = Fault::status(403, "Forbidden", &[]);
            is_first.then(|| Fault::Later(Duration::from_secs(1), Box::new(refusal)))
        }
    });
    scope(|scope| {
        let refused = scope.spawn(|| scheduler.post(&json!({"payload": "p"})).code);
        sleep(Duration::from_millis(300));
        let waits = scheduler.submit(&json!({"payload": "p"}));
        assert_eq!(scheduler.job(&waits)["status"], "Waiting");
        assert_eq!(refused.join().unwrap(), 503);
        let began = Instant::now();
        within(Duration::from_secs(5), || {
            let status = scheduler.job(&waits)["status"].clone();
            holds(status != "Waiting", || status.to_string())
        });
        println!("let in {:.1?} after the refusal", began.elapsed());
    });
}
