//! Any stream of a watch leaves the index whole: it counts what it has. The first byte says what is watched and how it is
//! written.

#![no_main]

use job_scheduler::backend::Observer;
use job_scheduler::backend::kubernetes::follow_stream;
use job_scheduler::clock::{Clock, Source};
use job_scheduler::http::Reply;
use job_scheduler::index::{Bounds, Index};
use job_scheduler::job::{Attempt, Job, JobList, JobName, ListBegun, Status, Timestamp};
use job_scheduler::scheduler::JobView;
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Tells the index, and that nothing is in doubt.
struct Told(Index, Clock);

impl Told {
    fn resolve(&self, name: &JobName) {
        self.1.sleep(Duration::from_secs(60));
        self.0.resolved(name);
        self.0.forget(name);
    }
}

/// Time that passes when it is told to, in seconds.
struct Time(Instant, AtomicU64);

impl Source for Time {
    fn micros(&self) -> u64 {
        self.1.load(Ordering::Relaxed) * 1_000_000
    }
    fn instant(&self) -> Instant {
        self.0 + Duration::from_secs(self.1.load(Ordering::Relaxed))
    }
    fn random(&self) -> u64 {
        0
    }
    fn sleep(&self, time: Duration) {
        self.1.fetch_add(time.as_secs(), Ordering::Relaxed);
    }
}

impl Observer for Told {
    fn jobs_relist_begins(&self) -> ListBegun {
        self.0.relist_begins()
    }
    fn jobs_relisted(&self, list: JobList, begun: ListBegun) {
        let (_, gone) = self.0.relisted(list, begun);
        gone.iter().for_each(|name| self.resolve(name));
    }
    fn job_seen(&self, job: Job) {
        self.0.job_seen(job);
    }
    fn job_gone(&self, job: &Job) {
        if self.0.job_gone(job) {
            self.resolve(&job.name);
        }
    }
    fn job_waited(&self, _: Duration) {}
    fn attempts_relisted(&self, attempts: Vec<(JobName, Attempt)>) {
        self.0.attempts_relisted(attempts);
    }
    fn attempt_seen(&self, job: &JobName, attempt: Attempt) {
        self.0.attempt_seen(job, attempt);
    }
    fn attempt_gone(&self, job: &JobName, attempt: &str) {
        self.0.attempt_gone(job, attempt);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, stream)) = bytes.split_first() else {
        return;
    };
    let clock = Clock::of(Arc::new(Time(Instant::now(), AtomicU64::new(0))));
    let bounds = Bounds {
        unfinished: 3,
        running: 2,
        waiting: 3,
    };
    let told = Told(Index::new(bounds, clock.clone()), clock);
    told.0.open();
    // The jobs, then the pods, or the other way round, as the two watches may.
    let in_protobuf = first & 2 != 0;
    follow_stream(stream, first & 1 == 0, in_protobuf, &told);
    follow_stream(stream, first & 1 != 0, in_protobuf, &told);
    let (index, jobs) = (&told.0, told.0.list());
    let listed = index.in_order(|_| true);
    let mut queue: Vec<_> = listed
        .iter()
        .filter_map(|(record, place)| Some(((*place)?, &record.job.name)))
        .collect();
    queue.sort();
    let places = queue.iter().map(|(place, _)| *place);
    assert!(places.eq(1..=queue.len()), "each place is one job's");
    let waiting = jobs
        .iter()
        .filter(|record| record.job.status == Status::Waiting && record.job.queued.is_some());
    assert_eq!(waiting.count(), queue.len());
    let running = jobs
        .iter()
        .filter(|record| matches!(record.job.status, Status::Running | Status::Stopping));
    if running.count() >= 2 {
        assert!(index.next_to_admit(|_| true).is_none());
    }
    for record in jobs {
        let position = index.position(&record.job);
        let queued = queue.iter().find(|(_, name)| **name == record.job.name);
        assert_eq!(position, queued.map(|(place, _)| *place));
        let reply = Reply::job(&JobView { record, position }, Timestamp::at(0));
        serde_json::from_slice::<serde_json::Value>(&reply.body).unwrap();
    }
    // All of it gone again leaves nothing counted.
    let begun = told.jobs_relist_begins();
    let version = u64::MAX;
    told.jobs_relisted(
        JobList {
            jobs: Vec::new(),
            version,
        },
        begun,
    );
    told.attempts_relisted(Vec::new());
    assert!(index.list().is_empty());
    assert!(index.reserve().is_ok_and(|place| place.runs));
});
