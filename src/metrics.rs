//! Counters, gauges and histograms, in the Prometheus text form. Label values come from fixed lists, so their number is
//! bounded, and what is counted on every request takes no lock.
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>

use crate::job::{Status, Timestamp};
use crate::process::Process;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Everything that one scheduler counts.
#[derive(Default)]
pub struct Metrics {
    /// Submits by outcome.
    pub submits: Counters<4>,
    /// Jobs that came to their end, by how.
    pub finishes: Counters<3>,
    /// How long jobs waited in the queue.
    pub queue_wait: Histogram,
    /// Answered requests, by route and code.
    pub requests: Histograms<{ ROUTES.len() }, { CODES.len() }>,
    /// Calls of the Kubernetes API, by verb and code.
    pub calls: Histograms<{ VERBS.len() }, { CODES.len() }>,
    /// Watches that broke off or were ended, by kind.
    pub watch_restarts: Counters<2>,
    /// Lists of everything, by kind.
    pub relists: Counters<2>,
    /// When a watch last said something, in seconds since 1970, by kind.
    pub last_event: [AtomicI64; 2],
    /// Finished jobs that were let go.
    pub retired: AtomicU64,
    /// Ends that were told by a job's container and that the backend made another.
    pub contradictions: AtomicU64,
    /// Requests that wait for a job to finish, at this moment.
    pub parked: AtomicUsize,
}

/// How a submit ended, as a label: an index into [`Metrics::submits`].
pub const SUBMITS: [&str; 4] = ["created", "repeated", "refused", "failed"];
/// How a job ended: an index into [`Metrics::finishes`].
const FINISHES: [(&str, Status); 3] = [
    ("succeeded", Status::Succeeded),
    ("failed", Status::Failed),
    ("stopped", Status::Stopped),
];
/// Routes as labels.
pub const ROUTES: [&str; 25] = [
    "list",
    "create",
    "get",
    "wait",
    "delete",
    "stop",
    "stop-all",
    "restart",
    "list-batches",
    "create-batch",
    "get-batch",
    "wait-batch",
    "delete-batch",
    "stop-batch",
    "stop-all-batches",
    "restart-batch",
    "progress",
    "logs",
    "events",
    "health",
    "metrics",
    "document",
    "component",
    "console",
    "none",
];
/// Verbs of the Kubernetes API as labels.
pub const VERBS: [&str; 6] = ["get", "list", "watch", "create", "patch", "delete"];
/// Codes as labels; the last stands for any other, and 0 for no answer.
const CODES: [u16; 22] = [
    200, 201, 202, 400, 401, 403, 404, 405, 408, 409, 410, 413, 422, 429, 431, 500, 501, 502, 503,
    504, 505, 0,
];
/// Watched kinds as labels.
pub const KINDS: [&str; 2] = ["jobs", "pods"];

/// Upper bounds of the histograms' buckets, in seconds.
const BOUNDS: [f64; 9] = [0.0005, 0.002, 0.01, 0.05, 0.2, 1.0, 5.0, 60.0, 600.0];

/// Counters, one for each value of a label.
pub struct Counters<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Counters(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl<const N: usize> Counters<N> {
    /// Counts one for the label's value at `index`; one that is not in the list is not counted.
    pub fn count(&self, index: usize) {
        if let Some(counter) = self.0.get(index) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A distribution of durations.
#[derive(Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

impl Histogram {
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        if let Some(bucket) = self
            .buckets
            .iter()
            .zip(BOUNDS)
            .find(|(_, bound)| seconds <= *bound)
        {
            bucket.0.fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

/// A histogram for each pair of label values.
pub struct Histograms<const ROWS: usize, const COLUMNS: usize>([[Histogram; COLUMNS]; ROWS]);

impl<const ROWS: usize, const COLUMNS: usize> Default for Histograms<ROWS, COLUMNS> {
    fn default() -> Self {
        Histograms(std::array::from_fn(|_| {
            std::array::from_fn(|_| Histogram::default())
        }))
    }
}

impl<const ROWS: usize, const COLUMNS: usize> Histograms<ROWS, COLUMNS> {
    fn observe(&self, row: usize, code: u16, duration: Duration) {
        let column = CODES
            .iter()
            .position(|known| *known == code)
            .unwrap_or(COLUMNS - 1);
        if let Some(histogram) = self.0.get(row).and_then(|row| row.get(column)) {
            histogram.observe(duration);
        }
    }
}

/// What is read at the moment of asking rather than counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauges {
    /// Jobs by status, in the order of [`Status::ALL`].
    pub jobs: [usize; Status::ALL.len()],
    /// Who reads the events.
    pub followers: usize,
}

impl Metrics {
    /// A request was answered. `route` is one of [`ROUTES`].
    pub fn request(&self, route: &str, code: u16, duration: Duration) {
        let row = ROUTES
            .iter()
            .position(|known| *known == route)
            .unwrap_or(ROUTES.len() - 1);
        self.requests.observe(row, code, duration);
    }

    /// The Kubernetes API answered, or (code 0) did not. `verb` is one of [`VERBS`].
    pub fn call(&self, verb: &str, code: u16, duration: Duration) {
        if let Some(row) = VERBS.iter().position(|known| *known == verb) {
            self.calls.observe(row, code, duration);
        }
    }

    /// A submit ended, as one of [`SUBMITS`].
    pub fn submit(&self, outcome: &str) {
        if let Some(index) = SUBMITS.iter().position(|known| *known == outcome) {
            self.submits.count(index);
        }
    }

    /// A job came to its end.
    pub fn finish(&self, status: Status) {
        if let Some(index) = FINISHES.iter().position(|(_, known)| *known == status) {
            self.finishes.count(index);
        }
    }

    /// A list of everything of a kind, one of [`KINDS`], is asked for.
    pub fn relist(&self, kind: &str) {
        self.relists.count(index_of(kind));
    }

    /// A watch of a kind broke off or came to its end.
    pub fn watch_ended(&self, kind: &str) {
        self.watch_restarts.count(index_of(kind));
    }

    /// A watch of a kind said something.
    pub fn watch_heard(&self, kind: &str, now: Timestamp) {
        if let Some(last) = self.last_event.get(index_of(kind)) {
            last.store(now.seconds(), Ordering::Relaxed);
        }
    }

    /// All of it as text.
    pub fn render(&self, gauges: &Gauges, process: &Process) -> String {
        let mut text = Text(String::with_capacity(16 * 1024));
        text.family(
            "job_scheduler_build_info",
            "gauge",
            "The running version, as a label.",
        );
        let version = env!("CARGO_PKG_VERSION");
        text.sample("job_scheduler_build_info", &[("version", version)], 1);

        text.family(
            "job_scheduler_jobs",
            "gauge",
            "Jobs that are kept, by status.",
        );
        for (status, count) in Status::ALL.iter().zip(gauges.jobs) {
            text.sample("job_scheduler_jobs", &[("status", status.as_str())], count);
        }
        text.family(
            "job_scheduler_parked_requests",
            "gauge",
            "Requests that wait for a job to finish.",
        );
        text.sample(
            "job_scheduler_parked_requests",
            &[],
            self.parked.load(Ordering::Relaxed),
        );
        text.family(
            "job_scheduler_event_readers",
            "gauge",
            "Readers of the events.",
        );
        text.sample("job_scheduler_event_readers", &[], gauges.followers);

        text.counters(
            "job_scheduler_submits_total",
            "Submits, by outcome.",
            "outcome",
            &SUBMITS,
            &self.submits,
        );
        let outcomes = FINISHES.map(|(outcome, _)| outcome);
        text.counters(
            "job_scheduler_finishes_total",
            "Jobs that came to their end.",
            "outcome",
            &outcomes,
            &self.finishes,
        );
        let totals = [
            (
                "job_scheduler_retired_total",
                "Finished jobs that were let go for newer ones.",
                &self.retired,
            ),
            (
                "job_scheduler_contradictions_total",
                "Ends that a job's container told and Kubernetes made another.",
                &self.contradictions,
            ),
        ];
        for (name, help, count) in totals {
            text.family(name, "counter", help);
            text.sample(name, &[], count.load(Ordering::Relaxed));
        }

        let name = "job_scheduler_queue_wait_seconds";
        text.family(name, "histogram", "How long jobs waited in the queue.");
        text.histogram(name, &[], &self.queue_wait);
        let name = "job_scheduler_http_request_duration_seconds";
        text.histograms(name, "Answered requests.", "route", &ROUTES, &self.requests);
        let name = "job_scheduler_kubernetes_request_duration_seconds";
        text.histograms(
            name,
            "Calls of the Kubernetes API; code 0 is no answer.",
            "verb",
            &VERBS,
            &self.calls,
        );

        let help = "Watches that broke off or came to their end.";
        text.counters(
            "job_scheduler_watch_restarts_total",
            help,
            "kind",
            &KINDS,
            &self.watch_restarts,
        );
        let help = "Lists of everything that is watched.";
        text.counters(
            "job_scheduler_watch_relists_total",
            help,
            "kind",
            &KINDS,
            &self.relists,
        );
        let name = "job_scheduler_watch_last_event_timestamp_seconds";
        text.family(
            name,
            "gauge",
            "When a watch last said something; 0 if it never did.",
        );
        for (kind, last) in KINDS.iter().zip(&self.last_event) {
            text.sample(name, &[("kind", kind)], last.load(Ordering::Relaxed));
        }
        process.render(&mut text);
        text.0
    }
}

fn index_of(kind: &str) -> usize {
    KINDS
        .iter()
        .position(|known| *known == kind)
        .unwrap_or(KINDS.len())
}

impl Process {
    fn render(&self, text: &mut Text) {
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Resident memory size in bytes.",
                self.resident_bytes,
            ),
            (
                "process_open_fds",
                "Number of open file descriptors.",
                self.open_files,
            ),
            ("process_threads", "Number of threads.", self.threads),
        ];
        for (name, help, value) in gauges {
            text.family(name, "gauge", help);
            text.sample(name, &[], value);
        }
    }
}

/// The text form as it is written.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// Label values are from our own lists: none needs escaping.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (number, (label, value)) in labels.iter().enumerate() {
            let _ = write!(
                self.0,
                "{}{label}=\"{value}\"",
                if number == 0 { '{' } else { ',' }
            );
        }
        let _ = writeln!(
            self.0,
            "{} {value}",
            if labels.is_empty() { "" } else { "}" }
        );
    }

    fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: &[&str],
        counters: &Counters<N>,
    ) {
        self.family(name, "counter", help);
        for (value, counter) in values.iter().zip(&counters.0) {
            self.sample(name, &[(label, value)], counter.load(Ordering::Relaxed));
        }
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let mut below = 0;
        let mut bounds: Vec<(String, u64)> = Vec::new();
        for (bound, bucket) in BOUNDS.iter().zip(&histogram.buckets) {
            below += bucket.load(Ordering::Relaxed);
            bounds.push((bound.to_string(), below));
        }
        // A reader must not see more in a bucket than in all.
        let count = histogram.count.load(Ordering::Relaxed).max(below);
        bounds.push(("+Inf".to_string(), count));
        for (bound, below) in &bounds {
            let mut labels = labels.to_vec();
            labels.push(("le", bound));
            self.sample(&format!("{name}_bucket"), &labels, below);
        }
        let seconds = Duration::from_micros(histogram.micros.load(Ordering::Relaxed)).as_secs_f64();
        self.sample(&format!("{name}_sum"), labels, seconds);
        self.sample(&format!("{name}_count"), labels, count);
    }

    /// Only what has happened is written, for most pairs of labels never do.
    fn histograms<const ROWS: usize, const COLUMNS: usize>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: &[&str],
        histograms: &Histograms<ROWS, COLUMNS>,
    ) {
        self.family(name, "histogram", help);
        for (value, row) in values.iter().zip(&histograms.0) {
            for (code, histogram) in CODES.iter().zip(row) {
                if histogram.count.load(Ordering::Relaxed) > 0 {
                    self.histogram(
                        name,
                        &[(label, value), ("code", &code.to_string())],
                        histogram,
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_written() {
        let metrics = Metrics::default();
        metrics.request("list", 200, Duration::from_millis(1));
        metrics.request("list", 200, Duration::from_secs(100_000));
        metrics.request("unknown", 418, Duration::from_millis(1));
        metrics.call("create", 201, Duration::from_millis(3));
        metrics.submit("created");
        metrics.finish(Status::Failed);
        metrics.finish(Status::Running);
        let gauges = Gauges {
            jobs: [1, 2, 3, 4, 5, 6],
            followers: 7,
        };
        let text = metrics.render(
            &gauges,
            &Process {
                resident_bytes: 4096,
                open_files: 3,
                threads: 2,
            },
        );
        for line in [
            "job_scheduler_jobs{status=\"Waiting\"} 1",
            "job_scheduler_event_readers 7",
            "job_scheduler_submits_total{outcome=\"created\"} 1",
            "job_scheduler_finishes_total{outcome=\"failed\"} 1",
            "job_scheduler_finishes_total{outcome=\"succeeded\"} 0",
            "job_scheduler_http_request_duration_seconds_bucket{route=\"list\",code=\"200\",le=\"0.0005\"} 0",
            "job_scheduler_http_request_duration_seconds_bucket{route=\"list\",code=\"200\",le=\"0.002\"} 1",
            "job_scheduler_http_request_duration_seconds_bucket{route=\"list\",code=\"200\",le=\"+Inf\"} 2",
            "job_scheduler_http_request_duration_seconds_count{route=\"none\",code=\"0\"} 1",
            "job_scheduler_kubernetes_request_duration_seconds_sum{verb=\"create\",code=\"201\"} 0.003",
            "process_resident_memory_bytes 4096",
        ] {
            assert!(
                text.lines().any(|written| written == line),
                "{line} is not in\n{text}"
            );
        }
    }
}
