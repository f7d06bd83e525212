//! A batch beside its own writes, sent straight at the API server, and beside as many single jobs.

use crate::harness::cluster::Namespace;
use crate::harness::http::Connection;
use crate::harness::scheduler::Scheduler;
use crate::load::Submitters;
use crate::proxy::{Asked, Event, Proxy};
use crate::raw::{Raw, in_parallel};
use crate::table::{Row, Table};
use crate::{PAIRS, QUEUE, namespace, rates, start};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const JOBS_OF_ONE: usize = 500;
const PAYLOAD_BYTES: usize = 1024;
/// Writes that the scheduler has on their way at once.
const AT_ONCE: usize = 8;
/// Turns of each side in a pair.
const TURNS: usize = 1;
/// The scheduler's memory while it makes them.
const RESIDENT_MB: f64 = 32.0;
/// While it makes the largest: its pod may have 128 MiB.
const LARGE_RESIDENT_MB: f64 = 110.0;

fn body() -> String {
    let job = json!({"payload": "x".repeat(PAYLOAD_BYTES)});
    json!({"jobScheduleDescriptions": vec![job; JOBS_OF_ONE]}).to_string()
}

fn submit(scheduler: &Scheduler, body: &str) -> Duration {
    let began = Instant::now();
    let connection = Connection::local(scheduler.port, Duration::from_secs(60));
    let answer = connection
        .and_then(|mut connection| connection.ask("POST", "/api/v1/batches", &[], body.as_bytes()));
    let answer = answer.unwrap();
    assert_eq!(answer.code, 200, "{answer}");
    began.elapsed()
}

/// All writes of one batch, as the scheduler sends them.
struct Writes {
    batch: String,
    uid: String,
    parent: Asked,
    secrets: Vec<Asked>,
    jobs: Vec<Asked>,
    complete: Asked,
}

impl Writes {
    fn captured(namespace: &Namespace, body: &str) -> Writes {
        let proxy = Proxy::start();
        let scheduler = Scheduler::start(namespace, &proxy.url(), &QUEUE);
        submit(&scheduler, body);
        let journal = proxy.journal();
        let asked = journal.iter().filter_map(|entry| match &entry.what {
            Event::Asked(asked) => Some(asked.clone()),
            _ => None,
        });
        let asked: Vec<Asked> = asked.collect();
        let created = |resource: &str| -> Vec<Asked> {
            let of_it = asked.iter().filter(|asked| asked.creates(resource));
            of_it.cloned().collect()
        };
        let (mut jobs, secrets) = (created("jobs"), created("secrets"));
        let parent = jobs.remove(0);
        let complete = asked.iter().find(|asked| asked.method == "PATCH");
        let read = |asked: &Asked| serde_json::from_slice::<Value>(&asked.body).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_string();
        let owner = &read(&jobs[0])["metadata"]["ownerReferences"][0]["uid"];
        assert_eq!(jobs.len(), JOBS_OF_ONE);
        Writes {
            batch: text(&read(&parent)["metadata"]["name"]),
            uid: text(owner),
            complete: complete.unwrap().clone(),
            parent,
            secrets,
            jobs,
        }
    }

    /// Sends them for another batch, as many at once as the scheduler does.
    fn time(&self, raw: &Raw) -> Duration {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let batch = format!("{}{number:08}", &self.batch[..self.batch.len() - 8]);
        let began = Instant::now();
        let text = |asked: &Asked| {
            let text = String::from_utf8_lossy(&asked.body).replace(&self.batch, &batch);
            (asked.path.replace(&self.batch, &batch), text)
        };
        let (path, parent) = text(&self.parent);
        let uid = raw.make(&path, &parent, &self.parent.accept);
        let next = AtomicUsize::new(0);
        let all: Vec<&Asked> = self.secrets.iter().chain(&self.jobs).collect();
        in_parallel(AT_ONCE, all.len(), || {
            let asked = all[next.fetch_add(1, Ordering::Relaxed)];
            let (path, body) = text(asked);
            raw.post(&path, &body.replace(&self.uid, &uid), &asked.accept);
        });
        let (path, complete) = text(&self.complete);
        let complete = complete.replace(&self.uid, &uid);
        raw.patch(&path, &complete, &self.complete.accept);
        began.elapsed()
    }
}

/// Rates of batches and of as many jobs in another way, in turns.
fn pairs(
    scheduler: &Scheduler,
    body: &str,
    mut other: impl FnMut() -> Duration,
) -> Vec<(f64, f64)> {
    let mut pair = || rates(TURNS, JOBS_OF_ONE, || submit(scheduler, body), &mut other);
    (0..PAIRS).map(|_| pair()).collect()
}

pub fn batches(table: &mut Table) {
    let (ours, theirs) = (namespace("batch"), namespace("batch-writes"));
    let (body, raw) = (body(), Raw::new(&theirs, AT_ONCE));
    let writes = Writes::captured(&theirs, &body);
    let scheduler = start(&ours);
    // Its connections are there, as they are of one that has been asked before.
    submit(&scheduler, &body);
    writes.time(&raw);
    let beside_raw = pairs(&scheduler, &body, || writes.time(&raw));
    let label = format!("a batch of {JOBS_OF_ONE} jobs of 1 KiB, jobs/s");
    table.add(Row::ratio(&label, "its own writes", &beside_raw, 0.9));
    let peak = scheduler.proc_status("VmHWM") as f64 * 1024.0 / 1e6;
    let label = "peak resident while batches are made";
    table.add(Row::bound(label, peak, RESIDENT_MB, "MB"));

    let large = json!({"payload": "\"x".repeat(1 << 19)});
    let large = json!({"jobScheduleDescriptions": vec![large; 16]}).to_string();
    let another = start(&ours);
    submit(&another, &large);
    let peak = another.proc_status("VmHWM") as f64 * 1024.0 / 1e6;
    let label = "peak resident, a batch of 16 MiB, escaped";
    table.add(Row::bound(label, peak, LARGE_RESIDENT_MB, "MB"));
    drop(another);

    let single = json!({"payload": "x".repeat(PAYLOAD_BYTES)}).to_string();
    let mut submitter = Submitters::new(scheduler.port, &single, 1);
    let beside_single = pairs(&scheduler, &body, || submitter.time(JOBS_OF_ONE));
    let label = "the same beside single jobs, jobs/s";
    table.add(Row::ratio(
        label,
        "500 POSTs of one client",
        &beside_single,
        2.0,
    ));
}
