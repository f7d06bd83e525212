//! A panic is one request's; the death of a thread is the process's.

use crate::harness::http::Connection;
use job_scheduler::backend::{
    Backend, BackendError, Condition, CreateError, Created, CreatedBatch, HiddenKey, LogOptions,
    NewBatch, NewJob, Observer, Resend,
};
use job_scheduler::clock::Clock;
use job_scheduler::config;
use job_scheduler::http::{self, Guard};
use job_scheduler::index::Bounds;
use job_scheduler::job::{
    Attempt, Job, JobList, JobName, JobRecord, Progress, Queued, Rare, Status, Timestamp,
};
use job_scheduler::scheduler::{Limits, Scheduler};
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// A backend that has a bug: to delete a job that it has panics.
struct Buggy;

impl Backend for Buggy {
    fn create(&self, new: &NewJob, _: Resend) -> Result<Created, CreateError> {
        let job = Job {
            name: new.name.clone(),
            uid: "u".into(),
            job_id: None,
            created: Timestamp::now(),
            arrival: 0,
            started: None,
            finished: None,
            status: Status::Running,
            suspension: None,
            is_suspension_earlier: false,
            retries: None,
            failed: 0,
            has_payload: false,
            queued: None,
            key: None,
            is_rerun: false,
            hidden: false,
            progress: None,
            version: 1,
            rare: Rare::default(),
        };
        Ok(Created {
            job,
            may_come_again: false,
        })
    }
    fn delete(&self, _: &Job, _: Condition) -> Result<bool, BackendError> {
        panic!("a bug")
    }
    fn all_attempts(&self) -> Result<Vec<(JobName, Attempt)>, BackendError> {
        unreachable!()
    }
    fn create_batch(&self, _: &NewBatch, _: Resend) -> Result<CreatedBatch, CreateError> {
        unreachable!()
    }
    fn recreate(&self, _: &Job, _: &JobName, _: Option<Queued>) -> Result<Created, CreateError> {
        unreachable!()
    }
    fn expose(&self, _: &Job) -> Result<(), BackendError> {
        Ok(())
    }
    fn has_payload(&self, _: &Job) -> Result<bool, BackendError> {
        unreachable!()
    }
    fn store_payload(&self, _: &Job, _: &str) -> Result<(), BackendError> {
        unreachable!()
    }
    fn admit(&self, _: &Job) -> Result<Job, BackendError> {
        unreachable!()
    }
    fn calls_end_within(&self) -> Duration {
        Duration::ZERO
    }
    fn list(&self) -> Result<JobList, BackendError> {
        unreachable!()
    }
    fn stop(&self, _: &Job, _: &str) -> Result<Job, BackendError> {
        unreachable!()
    }
    fn note_stop(&self, _: &Job) -> Result<Job, BackendError> {
        unreachable!()
    }
    fn keep_progress(&self, _: &Job, _: &Progress) -> Result<Job, BackendError> {
        unreachable!()
    }
    fn resume(&self, _: &Job, _: Option<Queued>) -> Result<Job, BackendError> {
        unreachable!()
    }
    fn hide(&self, _: &Job, _: HiddenKey, _: Timestamp) -> Result<Job, BackendError> {
        unreachable!()
    }
    fn look(&self, _: &JobName) -> Result<Option<Job>, BackendError> {
        unreachable!()
    }
    fn attempts(&self, _: &JobName) -> Result<Vec<Attempt>, BackendError> {
        unreachable!()
    }
    fn logs(
        &self,
        _: &JobRecord,
        _: usize,
        _: LogOptions,
    ) -> Result<Box<dyn Read + Send>, BackendError> {
        unreachable!()
    }
}

#[test]
fn a_panic_is_a_500_for_its_request_alone() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/radixconfig.yaml");
    let config = config::load(file.as_ref()).unwrap();
    let limits = Limits {
        history: 10,
        bounds: Bounds {
            unfinished: 1000,
            running: 0,
            waiting: 0,
        },
    };
    let scheduler = Arc::new(Scheduler::new(
        config.job_component("dev", "compute").unwrap(),
        Arc::new(Buggy),
        limits,
        Clock::real(),
        Arc::default(),
    ));
    let begun = scheduler.jobs_relist_begins();
    scheduler.jobs_relisted(JobList::default(), begun);
    scheduler.attempts_relisted(Vec::new());
    let listener = http::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = http::Server::start(
        listener,
        &scheduler,
        &Guard::service("compute", "demo-dev", "cluster.local"),
    )
    .unwrap();
    let jobs = "/api/v1/jobs";
    let mut other = Connection::local(port, Duration::from_secs(5)).unwrap();
    let tries = 20;
    for _ in 0..tries {
        let mut connection = Connection::local(port, Duration::from_secs(5)).unwrap();
        let answer = connection.ask("POST", jobs, &[], b"{}").unwrap();
        assert_eq!(answer.code, 200, "{answer}");
        let path = format!("{jobs}/{}", answer.json()["name"].as_str().unwrap());
        let answer = connection.ask("DELETE", &path, &[], b"").unwrap();
        assert_eq!(
            (answer.code, answer.json()["reason"].as_str()),
            (500, Some("InternalError"))
        );
        // The same connection, and another, go on; the job is still there.
        assert_eq!(connection.ask("GET", &path, &[], b"").unwrap().code, 200);
        assert_eq!(other.ask("GET", jobs, &[], b"").unwrap().code, 200);
    }
    drop(other);
    server.stop();
    println!("{tries} panics in handlers: {tries} answers 500, every other request served");
}

const THREAD: &str = "JOB_SCHEDULER_TEST_THREAD";

#[test]
fn the_death_of_a_thread_that_matters_ends_the_process() {
    if let Some(thread) = std::env::var_os(THREAD) {
        // In the child: a process with a thread that dies while the main one waits for ever.
        job_scheduler::process::watch_foreign_threads();
        match thread.to_str() {
            Some("own") => drop(job_scheduler::sync::spawn("work-0", || panic!("a bug"))),
            _ => drop(std::thread::spawn(|| panic!("a library's bug"))),
        }
        loop {
            std::thread::park();
        }
    }
    for thread in ["own", "foreign"] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["the_death_of_a_thread", "--nocapture", "--test-threads=1"])
            .env(THREAD, thread)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let status = crate::harness::within(Duration::from_secs(10), || {
            child
                .try_wait()
                .unwrap()
                .ok_or_else(|| "still there".to_string())
        });
        assert_eq!(status.code(), Some(1), "{thread}");
    }
    println!(
        "a thread of our own and one of a library's died: both times the process ended with 1"
    );
}
