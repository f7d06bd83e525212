//! What the API server does with a single request: answers are lost, refused, late; and what others
//! do to our jobs.

use crate::harness::cluster::{Namespace, kubectl, name_of};
use crate::harness::scheduler::{JOBS, Scheduler};
use crate::harness::{holds, within};
use crate::proxy::{Event, Fault, Proxy};
use crate::watching::{SHORT, submit_short, wait_for_all};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// No pods, so that jobs stay as they were made.
fn still(purpose: &str) -> (Namespace, Proxy, Scheduler) {
    let namespace = Namespace::new(purpose, "");
    namespace.quota(json!({"pods": "0"}));
    let proxy = Proxy::start();
    let scheduler = Scheduler::start(&namespace, &proxy.url(), &[]);
    (namespace, proxy, scheduler)
}

/// Meets the next `count` creates of a resource with a fault.
fn fault_creates(
    proxy: &Proxy,
    resource: &'static str,
    count: usize,
    fault: impl Fn() -> Fault + Send + 'static,
) {
    let left = AtomicUsize::new(count);
    proxy.rule(move |asked| {
        let one_less = |left: usize| left.checked_sub(1);
        let met = asked.creates(resource)
            && left
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less)
                .is_ok();
        met.then(&fault)
    });
}

#[test]
fn a_lost_answer_to_a_create_makes_no_second_job() {
    let (namespace, proxy, scheduler) = still("lost");
    let mut names = Vec::new();
    type Loss = (&'static str, usize, fn() -> Fault);
    let losses: [Loss; 5] = [
        ("jobs", 1, || Fault::LoseAnswer),
        ("jobs", 2, || Fault::LoseAnswer),
        ("secrets", 1, || Fault::LoseAnswer),
        ("jobs", 1, || Fault::CutAnswer(400)),
        ("jobs", 1, || Fault::Unsent),
    ];
    let tries = 4;
    for (resource, count, fault) in losses {
        for number in 0..tries {
            fault_creates(&proxy, resource, count, fault);
            names.push(scheduler.submit(&json!({"payload": format!("{resource} {number}")})));
            proxy.behave();
        }
    }
    names.sort();
    let mut there: Vec<_> = namespace.jobs().iter().map(name_of).collect();
    there.sort();
    assert_eq!(there, names, "Jobs in Kubernetes");
    assert_eq!(namespace.payloads().len(), names.len());
    println!(
        "{} answers to creates lost: {} submits, {} Jobs, 0 lost, 0 doubled",
        losses.len() * tries,
        names.len(),
        there.len()
    );
}

#[test]
fn a_submit_whose_outcome_stays_unknown_leaves_nothing() {
    let (namespace, proxy, scheduler) = still("unknown");
    let tries = 3;
    for _ in 0..tries {
        fault_creates(&proxy, "jobs", 50, || Fault::LoseAnswer);
        let answer = scheduler.post(&json!({"payload": "p"}));
        proxy.behave();
        assert_eq!(answer.code, 503, "{answer}");
        assert!(answer.head.header("Retry-After").is_some());
    }
    for _ in 0..tries {
        fault_creates(&proxy, "secrets", 50, || Fault::LoseAnswer);
        let answer = scheduler.post(&json!({"payload": "p"}));
        proxy.behave();
        assert_eq!(answer.code, 503, "{answer}");
    }
    // With a key, the same request finishes what it began.
    let key = ["Idempotency-Key: again"];
    let body = json!({"payload": "kept"}).to_string();
    fault_creates(&proxy, "jobs", 50, || Fault::LoseAnswer);
    let refused = scheduler.ask("POST", JOBS, &key, body.as_bytes()).unwrap();
    assert_eq!(refused.code, 503, "{refused}");
    proxy.behave();
    let answer = scheduler.ask("POST", JOBS, &key, body.as_bytes()).unwrap();
    assert_eq!(answer.code, 200, "{answer}");
    let name = answer.json()["name"].as_str().unwrap().to_string();
    alone_is_left(&namespace, &name, Duration::from_secs(10));
    println!(
        "{} submits of unknown outcome: nothing left; 1 sent again with its key: 1 job",
        2 * tries
    );
}

/// Waits until nothing is left in Kubernetes of jobs that were refused, and makes sure that they
/// were never listed.
fn nothing_comes_of(namespace: &Namespace, scheduler: &Scheduler) {
    within(Duration::from_secs(20), || {
        let listed = scheduler.list();
        assert!(listed.is_empty(), "refused, and listed: {listed:?}");
        let jobs: Vec<_> = namespace.jobs().iter().map(name_of).collect();
        let secrets = namespace.payloads();
        let services = namespace.api.list(&namespace.core_path("services"));
        let left = jobs.len() + secrets.len() + services.len();
        holds(left == 0, || {
            format!("left: {jobs:?}, {secrets:?}, {services:?}")
        })
    });
}

#[test]
fn a_create_that_is_carried_out_late_comes_to_nothing() {
    let ports = "ports:\n  - name: http\n    port: 3000\n";
    let namespace = Namespace::new("late", ports);
    namespace.quota(json!({"pods": "0"}));
    let proxy = Proxy::start();
    let scheduler = Scheduler::start(&namespace, &proxy.url(), &[]);
    let tries = 3;
    // What was given up is looked for, and deleted if it is there.
    let looked_for = |count: usize| {
        within(Duration::from_secs(10), || {
            let journal = proxy.journal();
            let looks = journal.iter().filter(|entry| match &entry.what {
                Event::Asked(asked) => asked.method == "GET" && asked.path.contains("/jobs/"),
                _ => false,
            });
            let seen = looks.count();
            holds(seen >= count, || format!("{seen} looked for"))
        });
    };
    for number in 0..tries {
        fault_creates(&proxy, "jobs", 50, || Fault::HoldBack);
        let answer = scheduler.post(&json!({"payload": "p"}));
        assert_eq!(answer.code, 503, "{answer}");
        proxy.behave();
        // It was looked for in vain, as there was nothing yet.
        looked_for(number + 1);
    }
    // The Secret's create comes late, too: its Job is gone by then.
    fault_creates(&proxy, "secrets", 50, || Fault::HoldBack);
    let answer = scheduler.post(&json!({"payload": "p"}));
    assert_eq!(answer.code, 503, "{answer}");
    proxy.behave();
    looked_for(tries + 1);
    let (mut created, mut by_list) = (0, 0);
    for round in 0..4 {
        let is_by_list = round % 2 == 1;
        if is_by_list {
            // No watch tells of it, but the list that follows.
            proxy.rule(|asked| {
                let fault = || Fault::status(410, "Expired", &[]);
                asked.is_watch().then(fault)
            });
            proxy.cut_watches();
        }
        let there = proxy.deliver().iter().filter(|code| **code == 201).count();
        assert!(there >= tries, "{there} creates carried out");
        created += there;
        by_list += if is_by_list { there } else { 0 };
        nothing_comes_of(&namespace, &scheduler);
        proxy.behave();
    }
    println!(
        "{} submits given up, their creates carried out afterwards, 4 times over: {created} objects created late, {by_list} of them told by a list: \
         0 listed, 0 left over",
        tries + 1
    );
}

#[test]
#[ignore = "takes 40 s"]
fn a_keyed_create_that_is_carried_out_late_is_finished_or_taken_back() {
    let (namespace, proxy, scheduler) = still("latekey");
    let ask = |key: &str| {
        let key = format!("Idempotency-Key: {key}");
        let body = json!({"payload": "kept"}).to_string();
        scheduler
            .ask("POST", JOBS, &[&key], body.as_bytes())
            .unwrap()
    };
    for key in ["never-again", "again"] {
        fault_creates(&proxy, "jobs", 50, || Fault::HoldBack);
        assert_eq!(ask(key).code, 503);
        proxy.behave();
    }
    // Later than anybody would still be about to store the payload.
    std::thread::sleep(Duration::from_secs(20));
    assert!(proxy.deliver().contains(&201));
    let again = ask("again");
    assert_eq!(again.code, 200, "{again}");
    let name = again.json()["name"].as_str().unwrap().to_string();
    alone_is_left(&namespace, &name, Duration::from_secs(40));
    println!(
        "2 keyed submits given up and carried out 20 s later: the one sent again is 1 job, the other was taken back"
    );
}

#[test]
fn a_busy_api_server_is_told_on() {
    let (namespace, proxy, scheduler) = still("busy");
    let (mut tries, mut refused) = (0, 0);
    for (code, reason) in [
        (429, "TooManyRequests"),
        (500, "InternalError"),
        (503, "ServiceUnavailable"),
        (504, "Timeout"),
    ] {
        for resource in ["jobs", "secrets"] {
            fault_creates(&proxy, resource, 50, move || {
                Fault::status(code, reason, &["Retry-After: 3"])
            });
            let began = Instant::now();
            let answer = scheduler.post(&json!({"payload": "p"}));
            assert_eq!(answer.code, 503, "{code} for {resource}: {answer}");
            assert!(answer.head.header("Retry-After").is_some(), "{answer}");
            assert!(began.elapsed() < Duration::from_secs(3));
            proxy.behave();
            tries += 1;
            refused += 1;
            scheduler.submit(&json!({"payload": "p"}));
            tries += 1;
        }
    }
    let expected = tries - refused;
    within(Duration::from_secs(15), || {
        let count = namespace.jobs().len();
        holds(count == expected, || {
            format!("{count} Jobs instead of {expected}")
        })
    });
    println!(
        "{tries} submits, {refused} of them met 429, 500, 503 or 504 and were told so: {expected} Jobs"
    );
}

#[test]
fn a_replaced_token_is_used() {
    let namespace = Namespace::new("token", SHORT);
    let proxy = Proxy::start();
    let scheduler = Scheduler::start(&namespace, &proxy.url(), &[]);
    let old = format!("Bearer {}", namespace.scheduler_token);
    // Tokens are told apart by the second they were made in.
    std::thread::sleep(Duration::from_secs(1));
    let new = namespace.new_scheduler_token();
    assert_ne!(namespace.scheduler_token, new);
    let refused = Arc::new(AtomicUsize::new(0));
    proxy.rule({
        let refused = refused.clone();
        move |asked| {
            let is_old = asked.authorization == old;
            is_old.then(|| {
                refused.fetch_add(1, Ordering::Relaxed);
                Fault::status(401, "Unauthorized", &[])
            })
        }
    });
    // The kubelet replaces the file whole, by a rename.
    let next = scheduler.token_file().with_extension("next");
    std::fs::write(&next, &new).unwrap();
    std::fs::rename(&next, scheduler.token_file()).unwrap();
    proxy.cut_watches();
    let jobs = submit_short(&scheduler, 3);
    wait_for_all(&scheduler, &jobs, Duration::from_secs(60));
    let refused = refused.load(Ordering::Relaxed);
    assert!(
        (1..10).contains(&refused),
        "{refused} requests with the old token"
    );
    println!(
        "token replaced: {refused} requests refused with the old one, {} jobs submitted and seen to their end, 0 errors",
        jobs.len()
    );
}

#[test]
fn a_secret_refused_by_quota_leaves_no_job() {
    let namespace = Namespace::new("quota", "");
    namespace.quota(json!({"pods": "0", "secrets": "2"}));
    let proxy = Proxy::start();
    let scheduler = Scheduler::start(&namespace, &proxy.url(), &[]);
    let mut names = vec![
        scheduler.submit(&json!({"payload": "one"})),
        scheduler.submit(&json!({"payload": "two"})),
    ];
    let tries = 5;
    for _ in 0..tries {
        let answer = scheduler.post(&json!({"payload": "three"}));
        assert!(answer.code >= 400, "{answer}");
        let message = answer.json()["message"].as_str().unwrap().to_string();
        assert!(message.contains("quota"), "{message}");
    }
    names.push(scheduler.submit(&json!({})));
    let listed = scheduler.list().len();
    assert_eq!(listed, names.len(), "jobs listed");
    within(Duration::from_secs(10), || {
        let there: Vec<_> = namespace.jobs().iter().map(name_of).collect();
        let same = there.len() == names.len() && names.iter().all(|name| there.contains(name));
        holds(same, || format!("{there:?} instead of {names:?}"))
    });
    println!(
        "{tries} Secrets refused by quota: {tries} errors that say so, no Job left; {} jobs as submitted",
        names.len()
    );
}

#[test]
fn what_others_do_to_a_job_is_seen() {
    let component =
        "command: [\"sh\", \"-c\", \"trap 'exit 0' TERM; sleep 60 & wait\"]\nrunAsUser: 1000";
    let namespace = Namespace::new("others", component);
    let proxy = Proxy::start();
    let scheduler = Scheduler::start(&namespace, &proxy.url(), &["--max-running", "1"]);
    let first = scheduler.submit(&json!({"payload": "first"}));
    let second = scheduler.submit(&json!({"payload": "second"}));
    assert_eq!(scheduler.job(&second)["status"], "Waiting");
    let parked = std::thread::scope(|scope| {
        let parked = scope.spawn(|| {
            let path = format!("{JOBS}/{first}?wait=8s");
            let began = Instant::now();
            (scheduler.get(&path).code, began.elapsed())
        });
        std::thread::sleep(Duration::from_millis(500));
        kubectl(
            &[
                "delete",
                "job",
                &first,
                "-n",
                &namespace.name,
                "--wait=false",
            ],
            "",
        );
        parked.join().unwrap()
    });
    within(Duration::from_secs(5), || {
        holds(scheduler.job(&first).is_null(), || {
            "still listed".to_string()
        })
    });
    assert_eq!(
        parked.0, 404,
        "who waited for it is told after {:?}",
        parked.1
    );
    // Its place goes to the next.
    scheduler.wait_for(&second, "Running", Duration::from_secs(40));
    let patch = |suspend: bool| {
        let patch = format!("{{\"spec\":{{\"suspend\":{suspend}}}}}");
        kubectl(
            &[
                "patch",
                "job",
                &second,
                "-n",
                &namespace.name,
                "--type=merge",
                "-p",
                &patch,
            ],
            "",
        );
    };
    patch(true);
    scheduler.wait_for(&second, "Waiting", Duration::from_secs(5));
    let message = scheduler.job(&second)["message"].clone();
    assert!(
        message
            .as_str()
            .unwrap()
            .contains("suspended by somebody else"),
        "{message}"
    );
    // It is not ours to resume, and stays so.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(scheduler.job(&second)["status"], "Waiting");
    let third = scheduler.submit(&json!({"payload": "third"}));
    patch(false);
    scheduler.wait_for(&second, "Running", Duration::from_secs(5));
    assert!(!scheduler.job(&third).is_null());
    println!(
        "a Job deleted and one suspended and resumed by kubectl: seen, who waited was told after {:.1?}",
        parked.1
    );
}

#[test]
fn a_get_asks_nothing_of_the_api_server() {
    let (_namespace, proxy, scheduler) = still("reads");
    let name = scheduler.submit(&json!({"payload": "p"}));
    std::thread::sleep(Duration::from_secs(1));
    let asked = || {
        let journal = proxy.journal();
        let asked = journal
            .iter()
            .filter(|entry| matches!(entry.what, Event::Asked(_)));
        asked.count()
    };
    let before = asked();
    let seen: Mutex<Vec<Value>> = Mutex::default();
    for _ in 0..200 {
        scheduler.get(JOBS);
        seen.lock().unwrap().push(scheduler.job(&name));
    }
    assert_eq!(asked(), before);
    println!("400 GETs, 0 calls of the API server");
}

/// Within `limit` the job is the only one, and then its payload, which is `kept`, too.
fn alone_is_left(namespace: &Namespace, name: &str, limit: Duration) {
    within(limit, || {
        let there: Vec<_> = namespace.jobs().iter().map(name_of).collect();
        holds(there == [name], || format!("{there:?} instead of {name}"))
    });
    let kept = [(name.to_string(), b"kept".to_vec())];
    // Kubernetes removes those of the Jobs that are gone in its own time.
    within(Duration::from_secs(20), || {
        let payloads = namespace.payloads();
        holds(payloads == kept, || format!("{payloads:?}"))
    });
}

#[test]
fn a_payload_is_not_asked_back() {
    let (_namespace, proxy, scheduler) = still("once");
    scheduler.submit(&json!({"payload": "p"}));
    let journal = proxy.journal();
    let accepts = journal.iter().filter_map(|entry| match &entry.what {
        Event::Asked(asked) if asked.creates("secrets") => Some(asked.accept.as_str()),
        _ => None,
    });
    let accepts: Vec<_> = accepts.collect();
    assert!(
        matches!(accepts[..], [accept] if accept.starts_with("application/json;as=PartialObjectMetadata;")),
        "{accepts:?}"
    );
}
