//! The benchmark: what a scheduler costs beside what cannot be had for less.
//!
//! Every figure stands beside a yardstick that is measured in the same run, in turns with it, so that a busy machine slows
//! both: submits against the same two writes sent straight at the API server, reads against a bare tiny_http that
//! returns the same bytes. Jobs are suspended, so that thousands of them cost no pods; but for those
//! whose ends are timed, beside the Job's own condition.
//!
//! `make bench` runs it against `target/job-scheduler`, on the cluster of `KUBECONFIG`, and writes `target/bench.md`.
//! `JOB_SCHEDULER=target/job-scheduler cargo bench local-reads` needs no cluster.

// A benchmark fails by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../../tests/harness/mod.rs"]
#[allow(dead_code)] // the fault tests use more of it
mod harness;
#[path = "../../tests/faults/proxy.rs"]
#[allow(dead_code)] // as above
mod proxy;

mod batches;
mod ends;
mod load;
mod raw;
mod readers;
mod table;

use harness::cluster::{ApiServer, Namespace};
use harness::scheduler::{JOBS, Scheduler, binary};
use harness::{percentile, within};
use load::{Bare, Submitters, get_request};
use proxy::{Event, FrameFault, Proxy};
use raw::{Raw, Writes};
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};
use table::{Row, Table, median};

/// Pairs of runs whose median counts.
const PAIRS: usize = 3;
/// So often the two sides of a run of submits have their turns: see [`rates`].
const SLICES: usize = 4;
/// Jobs whose list and whose records are read.
const LISTED: usize = 20;
const SOME: usize = 1_000;
const MANY: usize = 10_000;
/// How long each run of reads takes.
const READING: Duration = Duration::from_secs(1);
const RELISTS: usize = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, port, file] = arguments.as_slice()
        && word == "bare"
    {
        return load::serve_bare(port.parse().unwrap(), std::fs::read(file).unwrap());
    }
    let wanted = |name: &str| {
        let mut names = arguments.iter().filter(|a| !a.starts_with('-')).peekable();
        names.peek().is_none() || names.any(|given| given == name)
    };
    assert!(
        std::env::var_os("JOB_SCHEDULER").is_some(),
        "JOB_SCHEDULER is not set: run make bench"
    );
    let mut table = Table::new();
    if wanted("local-reads") {
        local_reads(&mut table);
    }
    if wanted("reads") {
        reads(&mut table);
    }
    if wanted("submits") {
        submits(&mut table);
    }
    if wanted("batches") {
        batches::batches(&mut table);
    }
    if wanted("size") {
        size(&mut table);
    }
    if wanted("ends") {
        ends::ends(&mut table);
    }
    if wanted("readers") {
        readers::readers(&mut table);
    }
    let bytes = std::fs::metadata(binary()).unwrap().len();
    table.add(Row::figure(
        "binary",
        format!("{:.2} MB", bytes as f64 / 1e6),
    ));
    table.write();
}

/// The least that a job of this benchmark is.
const COMPONENT: &str = "image: localhost:5000/busybox:1";
/// One runs, or would if there were pods; the others wait.
const QUEUE: [&str; 6] = [
    "--max-running",
    "1",
    "--max-waiting",
    "1000000",
    "--max-jobs",
    "1000000",
];

fn namespace(purpose: &str) -> Namespace {
    let namespace = Namespace::new(purpose, COMPONENT);
    namespace.quota(json!({"pods": "0"}));
    namespace
}

/// A scheduler that reaches the API server as one in the cluster does, over TLS.
fn start_with(namespace: &Namespace, more: &[&str]) -> Scheduler {
    let api = ApiServer::of_kubeconfig();
    let ca = std::env::temp_dir().join(format!("{}-ca.crt", namespace.name));
    std::fs::write(&ca, api.ca()).unwrap();
    let mut flags = vec!["--kube-ca-file", ca.to_str().unwrap()];
    flags.extend(more);
    let scheduler = Scheduler::start(namespace, &format!("https://{}", api.address()), &flags);
    std::fs::remove_file(&ca).unwrap();
    scheduler
}

fn start(namespace: &Namespace) -> Scheduler {
    start_with(namespace, &QUEUE)
}

fn resident(scheduler: &Scheduler) -> f64 {
    scheduler.proc_status("VmRSS") as f64 * 1024.0 / 1e6
}

/// The processor time that a process has used, of `/proc`: its number, or `self`.
fn cpu_of(process: &str) -> Duration {
    const TICK_MILLIS: u64 = 10; // USER_HZ is 100 wherever Linux runs
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks = fields.split(' ').skip(11).take(2);
    let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * TICK_MILLIS)
}

/// What is in turns with what: A B B A, so that a machine that slows down or speeds up meanwhile favours neither.
fn in_turns(mut one: impl FnMut() -> f64, mut other: impl FnMut() -> f64) -> (f64, f64) {
    let (a1, b1) = (one(), other());
    let (b2, a2) = (other(), one());
    (a1 + a2, b1 + b2)
}

/// Jobs a second of either side, which takes the given time for `count` of them, and does that twice in each of `slices`
/// turns with the other.
///
/// Slices are to be short. Kubernetes' job controller writes a status for each job that was made, and falls behind who makes
/// them quickly by some hundred, so that in long runs a part of its work for one side would slow down the other. In short
/// turns both bear it alike.
fn rates(
    slices: usize,
    count: usize,
    mut one: impl FnMut() -> Duration,
    mut other: impl FnMut() -> Duration,
) -> (f64, f64) {
    let (mut seconds, mut other_seconds) = (0.0, 0.0);
    for _ in 0..slices {
        let (a, b) = in_turns(|| one().as_secs_f64(), || other().as_secs_f64());
        seconds += a;
        other_seconds += b;
    }
    let jobs = (2 * slices * count) as f64;
    (jobs / seconds, jobs / other_seconds)
}

fn reads(table: &mut Table) {
    let namespace = namespace("read");
    let scheduler = start(&namespace);
    let started = Instant::now();
    let names: Vec<String> = (0..LISTED)
        .map(|_| scheduler.submit(&json!({"payload": "p"})))
        .collect();
    sleep(Duration::from_secs(3).saturating_sub(started.elapsed()));
    read(table, &scheduler, &names[LISTED / 2], "");
}

/// The same of a scheduler on this machine, whose jobs have finished: it needs no cluster.
fn local_reads(table: &mut Table) {
    let scheduler = Scheduler::start_local("command: [sh, -c, exit $CODE]");
    let names: Vec<String> = (0..LISTED)
        .map(|number| {
            let code = if number % 2 == 0 { "0" } else { "3" };
            scheduler.submit(&json!({"jobId": number.to_string(), "variables": {"CODE": code}}))
        })
        .collect();
    for (number, name) in names.iter().enumerate() {
        let status = if number % 2 == 0 {
            "Succeeded"
        } else {
            "Failed"
        };
        scheduler.wait_for(name, status, Duration::from_secs(30));
    }
    read(table, &scheduler, &names[LISTED / 2], ", on one machine");
}

/// How quickly a scheduler of so many jobs answers from memory.
fn read(table: &mut Table, scheduler: &Scheduler, name: &str, place: &str) {
    assert_eq!(scheduler.list().len(), LISTED);
    for (what, path) in [
        (format!("list of {LISTED}"), JOBS.to_string()),
        ("get".to_string(), format!("{JOBS}/{name}")),
    ] {
        let body = scheduler.get(&path).body;
        let bare = Bare::start(&body);
        let request = get_request(&path);
        let mut pairs = Vec::new();
        for _ in 0..PAIRS {
            pairs.push(in_turns(
                || load::requests_per_second(scheduler.port, &request, READING) / 2.0,
                || load::requests_per_second(bare.port, &request, READING) / 2.0,
            ));
        }
        let label = format!("{what}{place}, requests/s ({} bytes)", body.len());
        table.add(Row::ratio(&label, "bare tiny_http", &pairs, 0.9));
    }
}

/// The two writes of a submit, as the scheduler sends them.
fn captured(namespace: &Namespace, body: &serde_json::Value) -> Writes {
    let proxy = Proxy::start();
    let scheduler = Scheduler::start(namespace, &proxy.url(), &QUEUE);
    scheduler.submit(body);
    scheduler.submit(body);
    let journal = proxy.journal();
    let last = |resource: &str| {
        let mut asked = journal.iter().rev().filter_map(|entry| match &entry.what {
            Event::Asked(asked) if asked.creates(resource) => Some(asked),
            _ => None,
        });
        asked.next().unwrap()
    };
    Writes::new(namespace, last("jobs"), last("secrets"))
}

fn submits(table: &mut Table) {
    // The yardstick's jobs are not the scheduler's: it would see to those that others have made in its namespace.
    let (ours, theirs) = (namespace("submit"), namespace("writes"));
    let body = json!({"payload": "x".repeat(100)});
    let writes = captured(&theirs, &body);
    let scheduler = start(&ours);
    table.add(Row::figure(
        "resident, no load yet",
        format!("{:.1} MB", resident(&scheduler)),
    ));
    let body = body.to_string();
    for clients in [1, 8, 32] {
        let raw = Raw::new(&theirs, clients);
        let mut submitters = Submitters::new(scheduler.port, &body, clients);
        let count = if clients == 1 { 50 } else { 120 };
        let process = scheduler.process().to_string();
        let (cpu, cpu_raw) = (cpu_of(&process), cpu_of("self"));
        let mut pairs = Vec::new();
        for _ in 0..PAIRS {
            pairs.push(rates(
                SLICES,
                count,
                || submitters.time(count),
                || raw.time_pairs(&writes, clients, count),
            ));
        }
        let label = format!("submit, {clients} clients, jobs/s");
        table.add(Row::ratio(&label, "the same two writes", &pairs, 0.9));
        let each = |time: Duration| {
            format!(
                "{:.2} ms",
                time.as_secs_f64() * 1e3 / (2 * PAIRS * SLICES * count) as f64
            )
        };
        let (cpu, cpu_raw) = (cpu_of(&process) - cpu, cpu_of("self") - cpu_raw);
        let label = format!("processor time of a submit, {clients} clients");
        table.add(Row::beside(
            &label,
            each(cpu),
            format!("the two writes, and the load: {}", each(cpu_raw)),
        ));
    }
    sleep(Duration::from_secs(2));
    table.add(Row::bound(
        "resident after the 32-client load",
        resident(&scheduler),
        20.0,
        "MB",
    ));

    let body = json!({"payload": "x".repeat(1 << 20)}).to_string();
    let raw = Raw::new(&theirs, 1);
    let large = writes.with_payload(&"x".repeat(1 << 20));
    let (mut submitter, count) = (Submitters::new(scheduler.port, &body, 1), 4);
    let mut pairs = Vec::new();
    for _ in 0..PAIRS {
        pairs.push(rates(
            1,
            count,
            || submitter.time(count),
            || raw.time_secrets(&large, count),
        ));
    }
    table.add(Row::ratio(
        "submit of 1 MiB, jobs/s",
        "the Secret alone",
        &pairs,
        0.0,
    ));
    table.add(Row::figure(
        "resident after payloads of 1 MiB",
        format!("{:.1} MB", resident(&scheduler)),
    ));
}

/// From its start to its first answer that it is ready.
fn time_to_ready(start: impl FnOnce() -> Scheduler) -> (Scheduler, Duration) {
    let began = Instant::now();
    let scheduler = start();
    (scheduler, began.elapsed())
}

fn size(table: &mut Table) {
    let namespace = namespace("size");
    let writes = captured(&namespace, &json!({"payload": "p"}));
    let raw = Raw::new(&namespace, 8);
    raw.jobs(&writes, LISTED - 2);
    let (scheduler, ready) = time_to_ready(|| start(&namespace));
    table.add(Row::figure(
        "time to ready, 20 jobs",
        format!("{} ms", ready.as_millis()),
    ));
    assert_eq!(scheduler.list().len(), LISTED);
    sleep(Duration::from_secs(2));
    table.add(Row::bound(
        "resident, 20 jobs",
        resident(&scheduler),
        8.0,
        "MB",
    ));
    for (count, bound) in [(SOME, 0.0), (MANY, 32.0)] {
        // A thousand at a time, and a GET between them: a scheduler that is called by nobody for 75 s ends.
        while scheduler.list().len() < count {
            raw.jobs(&writes, SOME.min(count - scheduler.list().len()));
            sleep(Duration::from_secs(1));
        }
        within(Duration::from_secs(60), || {
            let known = scheduler.list().len();
            harness::holds(known == count, || format!("{known} of {count} known"))
        });
        sleep(Duration::from_secs(2));
        let label = format!("resident, grown to {count} jobs");
        table.add(Row::bound(&label, resident(&scheduler), bound, "MB"));
    }
    drop(scheduler);
    let (scheduler, ready) = time_to_ready(|| start(&namespace));
    table.add(Row::figure(
        &format!("time to ready, {MANY} jobs"),
        format!("{} ms", ready.as_millis()),
    ));
    // By then it has listed them once more, for what was asked for before its start.
    sleep(Duration::from_secs(5));
    table.add(Row::bound(
        &format!("resident, started with {MANY} jobs"),
        resident(&scheduler),
        32.0,
        "MB",
    ));
    drop(scheduler);
    relists(table, &namespace);
}

/// The API server says that the version is too old, some times over, and GETs go on.
fn relists(table: &mut Table, namespace: &Namespace) {
    let proxy = Proxy::start();
    let scheduler = Scheduler::start(namespace, &proxy.url(), &QUEUE);
    let name = scheduler.list()[MANY / 2]["name"]
        .as_str()
        .unwrap()
        .to_string();
    let request = get_request(&format!("{JOBS}/{name}"));
    let over = AtomicBool::new(false);
    let gets: Mutex<Vec<(Instant, Duration)>> = Mutex::default();
    let expire = Arc::new(AtomicUsize::new(0));
    let (mut took, mut idle) = (Vec::new(), Vec::new());
    scope(|scope| {
        scope.spawn(|| load::time_each(scheduler.port, &request, &over, &gets));
        sleep(Duration::from_secs(2));
        proxy.frame_rule({
            let expire = expire.clone();
            move |frame| {
                let one_less = |left: usize| left.checked_sub(1);
                let of_job = frame.contains("batch/v1");
                let taken = || expire.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less);
                (of_job && taken().is_ok()).then_some(FrameFault::Expired)
            }
        });
        for number in 0..RELISTS {
            proxy.journal().clear();
            expire.store(1, Ordering::Release);
            // Any change of a job is a frame to expire.
            let change = json!({"metadata": {"labels": {"round": number.to_string()}}});
            let path = format!("{}/{name}", namespace.jobs_path());
            let changed = namespace.api.call("PATCH", &path, Some(&change));
            assert_eq!(changed.code, 200, "{changed}");
            took.push(within(Duration::from_secs(30), || relist_in(&proxy)));
            sleep(Duration::from_secs(1));
        }
        over.store(true, Ordering::Release);
    });
    let relisting = |at: Instant| took.iter().any(|(from, to)| (*from..=*to).contains(&at));
    let mut during = Vec::new();
    for (at, time) in gets.into_inner().unwrap() {
        match relisting(at) {
            true => during.push(time),
            false => idle.push(time),
        }
    }
    let mut times: Vec<f64> = took.iter().map(|(a, b)| (*b - *a).as_secs_f64()).collect();
    table.add(Row::bound(
        &format!("relist of {MANY} jobs"),
        median(&mut times),
        2.0,
        "s",
    ));
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    table.add(Row::bound(
        &format!("get during a relist, p99 of {}", during.len()),
        ms(percentile(&mut during, 99)),
        5.0,
        "ms",
    ));
    table.add(Row::figure(
        &format!("get without a relist, p99 of {}", idle.len()),
        format!("{:.2} ms", ms(percentile(&mut idle, 99))),
    ));
    table.add(Row::figure(
        "resident after the relists",
        format!("{:.1} MB", resident(&scheduler)),
    ));
}

/// From the first page asked for until the next watch is: then the list is swapped in.
fn relist_in(proxy: &Proxy) -> Result<(Instant, Instant), String> {
    let journal = proxy.journal();
    let mut asked = journal.iter().filter_map(|entry| match &entry.what {
        Event::Asked(asked) if asked.path.contains("/jobs?") => Some((entry.at, asked)),
        _ => None,
    });
    let begin = asked.find(|(_, asked)| !asked.is_watch());
    let end = asked.find(|(_, asked)| asked.is_watch());
    match (begin, end) {
        (Some((begin, _)), Some((end, _))) => Ok((begin, end)),
        _ => Err("no relist".to_string()),
    }
}
