//! What must hold however the threads are interleaved: of requests, of workers, and of the two
//! watches. The use cases, the index and the queue are the real ones; the cluster below them
//! changes at once, and tells of it later.

use super::*;
use crate::backend::{
    Condition, CreateError, Created, CreatedBatch, HiddenKey, LogOptions, NewBatch, NewJob,
    Observer, Resend,
};
use crate::config;
use crate::index::Changed;
use crate::index::tests::check_tally;
use crate::job::{Attempt, AttemptState, Job, JobList, Progress, RequestKey, Sent, Timestamp};
use crate::request::{JobRequest, ProgressReport};
use crate::sync::schedules::{Time, check};
use shuttle::thread::{self, Thread};
use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::sync::Mutex;

const SCHEDULES: usize = 150;
/// No list of all jobs comes but the first.
const NEVER: usize = usize::MAX;
/// How often time passes until all must have come to rest.
const PATIENCE: usize = 1000;

struct Cluster {
    truth: Mutex<Truth>,
    /// Those that look at it when it has changed.
    watchers: Mutex<Vec<Thread>>,
    cap: usize,
}

#[derive(Default)]
struct Truth {
    /// Each change has its own.
    version: u64,
    jobs: BTreeMap<JobName, Job>,
    /// Pods that run, by their job, which may be gone.
    pods: BTreeMap<JobName, Attempt>,
    created: usize,
    job_events: VecDeque<(Job, Happened)>,
    pod_events: VecDeque<(JobName, Attempt, Happened)>,
    is_over: bool,
}

#[derive(Clone, Copy)]
enum Happened {
    Changed,
    Gone,
}

impl Truth {
    fn put(&mut self, job: Job) -> Job {
        let name = job.name.clone();
        let job = Job {
            version: self.version,
            ..job
        };
        self.job_events.push_back((job.clone(), Happened::Changed));
        self.jobs.insert(name.clone(), job.clone());
        if job.status == Status::Running {
            let pod = Attempt::sample(name.as_str(), AttemptState::Running, self.version);
            self.pods.insert(name.clone(), pod.clone());
            self.pod_events.push_back((name, pod, Happened::Changed));
        }
        job
    }

    /// A pod comes to its end, and its job with it. That of a deleted job goes.
    fn end_a_pod(&mut self) {
        let Some((name, pod)) = self.pods.pop_first() else {
            return;
        };
        let Some(job) = self.jobs.get(&name).cloned() else {
            return self.pod_events.push_back((name, pod, Happened::Gone));
        };
        let (state, version) = (AttemptState::Succeeded, self.version);
        let ended = Attempt {
            state,
            version,
            is_over: true,
            ..pod
        };
        (self.pod_events).push_back((name, ended, Happened::Changed));
        let status = match job.status {
            Status::Stopping => Status::Stopped,
            _ => Status::Succeeded,
        };
        self.put(Job { status, ..job });
    }
}

impl Cluster {
    /// Others may have changed it just before.
    fn change<T>(&self, change: impl FnOnce(&mut Truth) -> T) -> T {
        thread::sleep(Duration::ZERO);
        let changed = {
            let mut truth = self.truth.lock().unwrap();
            truth.version += 1;
            let changed = change(&mut truth);
            assert!(truth.pods.len() <= self.cap, "{:?}", truth.pods);
            changed
        };
        let watchers = self.watchers.lock().unwrap().clone();
        watchers.iter().for_each(Thread::unpark);
        // Its answer may come late.
        thread::sleep(Duration::ZERO);
        changed
    }

    fn change_job(
        &self,
        job: &Job,
        change: impl FnOnce(&mut Truth, Job) -> Result<Job, BackendError>,
    ) -> Result<Job, BackendError> {
        self.change(|truth| match truth.jobs.get(&job.name).cloned() {
            Some(job) => change(truth, job),
            None => Err(BackendError::Gone {
                message: "it is gone".to_string(),
            }),
        })
    }

    /// The next of what a watch waits for; `None` when all is over.
    fn next<T>(&self, mut look: impl FnMut(&mut Truth) -> Option<T>) -> Option<T> {
        loop {
            {
                let mut truth = self.truth.lock().unwrap();
                let next = look(&mut truth);
                if next.is_some() || truth.is_over {
                    return next;
                }
            }
            thread::park();
        }
    }

    fn watch(&self) {
        self.watchers.lock().unwrap().push(thread::current());
    }

    /// Tells of jobs, and of all at once after so many.
    fn watch_jobs(&self, observer: &Scheduler, relist_after: usize) {
        self.watch();
        let (mut told, mut listed) = (0, 0);
        while let Some((job, happened)) = self.next(|truth| truth.job_events.front().cloned()) {
            if told == relist_after {
                listed = self.relist(observer);
            }
            told += 1;
            match happened {
                _ if job.version <= listed => {}
                Happened::Changed => observer.job_seen(job),
                Happened::Gone => observer.job_gone(&job),
            }
            self.truth.lock().unwrap().job_events.pop_front();
            check_tally(&observer.index);
        }
    }

    /// Returns the list's version: what is older is not told.
    fn relist(&self, observer: &Scheduler) -> u64 {
        let begun = observer.jobs_relist_begins();
        let list = self.all_jobs();
        let version = list.version;
        observer.jobs_relisted(list, begun);
        version
    }

    fn all_jobs(&self) -> JobList {
        self.change(|truth| JobList {
            jobs: truth.jobs.values().cloned().collect(),
            version: truth.version,
        })
    }

    fn watch_pods(&self, observer: &Scheduler) {
        self.watch();
        while let Some((job, pod, happened)) = self.next(|truth| truth.pod_events.front().cloned())
        {
            match happened {
                Happened::Changed => observer.attempt_seen(&job, pod),
                Happened::Gone => observer.attempt_gone(&job, &pod.name),
            }
            self.truth.lock().unwrap().pod_events.pop_front();
            check_tally(&observer.index);
        }
    }

    fn run_pods(&self) {
        self.watch();
        while let Some(()) = self.next(|truth| (!truth.pods.is_empty()).then_some(())) {
            self.change(Truth::end_a_pod);
        }
    }
}

impl Backend for Cluster {
    fn create(&self, new: &NewJob, _: Resend) -> Result<Created, CreateError> {
        let job = self.change(|truth| {
            if truth.jobs.contains_key(&new.name) {
                return Err(CreateError::NameTaken);
            }
            truth.created += 1;
            let status = match new.queued {
                Some(_) => Status::Waiting,
                None => Status::Running,
            };
            Ok(truth.put(Job {
                key: new.key.map(Box::new),
                queued: new.queued,
                ..Job::sample(new.name.as_str(), status, 0)
            }))
        })?;
        Ok(Created {
            job,
            may_come_again: false,
        })
    }

    fn create_batch(&self, _: &NewBatch, _: Resend) -> Result<CreatedBatch, CreateError> {
        unreachable!()
    }

    fn admit(&self, job: &Job) -> Result<Job, BackendError> {
        self.change_job(job, |truth, job| match job.status {
            Status::Waiting => Ok(truth.put(Job {
                status: Status::Running,
                queued: None,
                ..job
            })),
            _ => Err(changed()),
        })
    }

    fn stop(&self, job: &Job, _: &str) -> Result<Job, BackendError> {
        self.change_job(job, |truth, job| {
            let status = match job.status {
                Status::Waiting => Status::Stopped,
                Status::Running => Status::Stopping,
                _ => return Ok(job),
            };
            Ok(truth.put(Job {
                status,
                queued: None,
                ..job
            }))
        })
    }

    fn note_stop(&self, _: &Job) -> Result<Job, BackendError> {
        unreachable!("each stop is noticed here")
    }

    fn keep_progress(&self, known: &Job, progress: &Progress) -> Result<Job, BackendError> {
        let progress = Some(Arc::new(progress.clone()));
        self.change_job(known, |truth, job| match job.version == known.version {
            true => Ok(truth.put(Job { progress, ..job })),
            false => Err(changed()),
        })
    }

    fn resume(&self, job: &Job, queued: Option<Queued>) -> Result<Job, BackendError> {
        self.change_job(job, |truth, job| match (job.status, queued) {
            (Status::Stopped, None) => Ok(truth.put(Job {
                status: Status::Running,
                progress: None,
                is_rerun: true,
                ..job
            })),
            (Status::Stopped, Some(_)) => Ok(truth.put(Job {
                status: Status::Waiting,
                progress: None,
                queued,
                is_rerun: true,
                ..job
            })),
            _ => Err(changed()),
        })
    }

    fn delete(&self, job: &Job, _: Condition) -> Result<bool, BackendError> {
        self.change(|truth| {
            // A deletion has a version of its own, as any change.
            truth.version += 1;
            let deleted = truth.jobs.remove(&job.name).map(|job| Job {
                version: truth.version,
                ..job
            });
            let is_there = deleted.is_some();
            if is_there && !truth.pods.contains_key(&job.name) {
                // It has ended, if there was one. One that runs goes when it has.
                let pod = Attempt::sample(job.name.as_str(), AttemptState::Succeeded, 0);
                let event = (job.name.clone(), pod, Happened::Gone);
                truth.pod_events.push_back(event);
            }
            (truth.job_events).extend(deleted.map(|job| (job, Happened::Gone)));
            Ok(is_there)
        })
    }

    fn look(&self, name: &JobName) -> Result<Option<Job>, BackendError> {
        Ok(self.change(|truth| truth.jobs.get(name).cloned()))
    }

    fn attempts(&self, name: &JobName) -> Result<Vec<Attempt>, BackendError> {
        Ok(self.change(|truth| truth.pods.get(name).cloned().into_iter().collect()))
    }

    fn all_attempts(&self) -> Result<Vec<(JobName, Attempt)>, BackendError> {
        Ok(self.change(|truth| truth.pods.clone().into_iter().collect()))
    }

    fn list(&self) -> Result<JobList, BackendError> {
        Ok(self.all_jobs())
    }

    fn calls_end_within(&self) -> Duration {
        Duration::ZERO
    }

    fn expose(&self, _: &Job) -> Result<(), BackendError> {
        Ok(())
    }

    fn has_payload(&self, _: &Job) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn store_payload(&self, _: &Job, _: &str) -> Result<(), BackendError> {
        unreachable!("no job here has one")
    }

    fn recreate(&self, _: &Job, _: &JobName, _: Option<Queued>) -> Result<Created, CreateError> {
        Err(CreateError::Nothing(changed()))
    }

    fn hide(&self, _: &Job, _: HiddenKey, _: Timestamp) -> Result<Job, BackendError> {
        unreachable!("nobody uses another's payload here")
    }

    fn logs(
        &self,
        _: &JobRecord,
        _: usize,
        _: LogOptions,
    ) -> Result<Box<dyn Read + Send>, BackendError> {
        unreachable!("nobody reads a log here")
    }
}

fn changed() -> BackendError {
    BackendError::Changed {
        message: "it has changed".to_string(),
    }
}

fn key() -> RequestKey {
    RequestKey {
        key: 7,
        body: 1,
        sent: Sent::default(),
    }
}

/// A scheduler over a cluster, and those that wait for its jobs.
struct World {
    scheduler: Scheduler,
    cluster: Arc<Cluster>,
    time: Arc<Time>,
    waiting: Arc<Mutex<Vec<Thread>>>,
}

impl World {
    fn start(cap: usize) -> World {
        let yaml = "metadata: {name: app}\nspec: {environments: [{name: dev}], \
             jobs: [{name: job, schedulerPort: 8080, image: image}]}";
        let config = config::parse("test", yaml.as_bytes()).unwrap();
        let component = config.job_component("dev", "job").unwrap();
        let limits = Limits {
            history: 99,
            bounds: Bounds {
                unfinished: 99,
                running: cap,
                waiting: 99,
            },
        };
        let (time, cluster) = (
            Time::start(),
            Arc::new(Cluster {
                truth: Mutex::default(),
                watchers: Mutex::default(),
                cap: if cap == 0 { usize::MAX } else { cap },
            }),
        );
        let metrics = Arc::new(Metrics::default());
        let backend = cluster.clone();
        let scheduler = Scheduler::new(component, backend, limits, time.clock(), metrics);
        let waiting = Arc::new(Mutex::new(Vec::<Thread>::new()));
        let told = waiting.clone();
        scheduler.on_settled(Box::new(move |_| {
            let waiting = told.lock().unwrap().clone();
            waiting.iter().for_each(Thread::unpark);
        }));
        scheduler.jobs_relisted(JobList::default(), scheduler.jobs_relist_begins());
        scheduler.attempts_relisted(Vec::new());
        World {
            scheduler,
            cluster,
            time,
            waiting,
        }
    }

    /// Runs `requests` at once with all else, until nothing is left to happen.
    fn run(&self, relist_after: usize, requests: &[fn(&World)]) {
        let World {
            scheduler, cluster, ..
        } = self;
        thread::scope(|scope| {
            scope.spawn(move || cluster.watch_jobs(scheduler, relist_after));
            scope.spawn(move || cluster.watch_pods(scheduler));
            scope.spawn(move || cluster.run_pods());
            scope.spawn(|| self.follow());
            for _ in 0..2 {
                scope.spawn(|| scheduler.work());
            }
            let requests: Vec<_> = requests
                .iter()
                .map(|request| scope.spawn(move || request(self)))
                .collect();
            let is_over =
                || requests.iter().all(|request| request.is_finished()) && self.is_settled();
            let mut patience = PATIENCE;
            while !is_over() {
                assert!(patience > 0, "{}", self.describe());
                patience -= 1;
                scheduler.queue.let_time_pass(&self.time);
            }
            if relist_after < NEVER {
                // What the list before left open, the next one settles.
                cluster.relist(scheduler);
            }
            assert!(scheduler.index.is_at_rest(), "{}", self.describe());
            scheduler.end();
            cluster.change(|truth| truth.is_over = true);
            scheduler.call_followers();
        });
    }

    /// Follows the changes to the end. Of no job an older state comes after a newer one, and the
    /// last one comes of each.
    fn follow(&self) {
        let follower = self.scheduler.follower().unwrap();
        let (mut number, mut known) = (0, BTreeMap::<JobName, Arc<JobRecord>>::new());
        let is_over = || self.cluster.truth.lock().unwrap().is_over;
        loop {
            let was_over = is_over();
            let mut changed = Vec::new();
            let look = |one: Changed| {
                changed.push((one.number, one.name.clone(), one.record.cloned()));
            };
            follower.changed_since(number, 2, look).unwrap();
            if changed.is_empty() {
                match was_over {
                    true => break,
                    false => follower.wait(number, Duration::from_secs(1), is_over),
                }
            }
            for (newer, name, record) in changed {
                assert!(newer > number);
                number = newer;
                let before = match record {
                    Some(record) => known.insert(name.clone(), record),
                    None => known.remove(&name),
                };
                if let (Some(before), Some(after)) = (before, known.get(&name)) {
                    assert!(after.job.version >= before.job.version, "{name} is older");
                }
            }
        }
        let shown = |record: &JobRecord| {
            let attempts = record.attempts.iter().map(|attempt| attempt.state);
            (record.job.status, attempts.collect::<Vec<_>>())
        };
        let listed = self.scheduler.index.list();
        let listed = listed
            .iter()
            .map(|record| (&record.job.name, shown(record)));
        let told = known.iter().map(|(name, record)| (name, shown(record)));
        assert_eq!(told.collect::<Vec<_>>(), listed.collect::<Vec<_>>());
    }

    /// Whether what the index holds is what there is, and nothing can run.
    fn is_settled(&self) -> bool {
        let truth = self.cluster.truth.lock().unwrap();
        let is_at_rest = truth.jobs.values().all(|job| job.status.is_finished())
            && truth.job_events.is_empty()
            && truth.pod_events.is_empty();
        let jobs: Vec<_> = truth.jobs.values().cloned().collect();
        drop(truth);
        let known = self.scheduler.index.list();
        let is_known = known.iter().map(|record| &record.job).eq(&jobs)
            && known.iter().all(|record| record.is_progress_kept());
        is_at_rest && is_known && self.scheduler.index.is_idle()
    }

    /// What is not at rest.
    fn describe(&self) -> String {
        // None of ours may run while the truth is locked.
        let index = self.scheduler.index.describe();
        let truth = self.cluster.truth.lock().unwrap();
        let shown = |job: &Job| format!("{} {} {}", job.name, job.status, job.version);
        let jobs: Vec<_> = truth.jobs.values().map(shown).collect();
        let pods: Vec<_> = truth.pods.keys().collect();
        format!("there are the jobs {jobs:?} and the pods {pods:?}; the index has {index}")
    }

    fn submit(&self, key: Option<RequestKey>) -> Result<JobView, SubmitError> {
        self.scheduler.submit(&JobRequest::default(), key)
    }

    fn any_job(&self) -> Option<JobName> {
        let jobs = self.scheduler.list().unwrap();
        jobs.first().map(|view| view.record.job.name.clone())
    }

    /// Waits for a job's end, as a request does.
    fn wait_for(&self, name: &JobName) {
        self.waiting.lock().unwrap().push(thread::current());
        let is_over = || match self.scheduler.get(name.as_str()) {
            Ok(view) => view.record.job.status.is_finished(),
            Err(_) => true,
        };
        while !is_over() {
            thread::park();
        }
    }
}

fn submits(world: &World) {
    match world.submit(None) {
        Ok(made) => world.wait_for(&made.record.job.name),
        // It was deleted at once.
        Err(SubmitError::Backend(BackendError::Gone { .. })) => {}
        Err(other) => panic!("{other:?}"),
    }
}

/// A job that says how far it is, as long as it is taken.
fn submits_and_reports(world: &World) {
    let made = match world.submit(None) {
        Ok(made) => made,
        Err(other) => panic!("{other:?}"),
    };
    let name = &made.record.job.name;
    for percent in [1, 2] {
        let message = String::new();
        match (world.scheduler).report(name.as_str(), ProgressReport { percent, message }) {
            Ok(_) => {}
            Err(JobError::BadState { .. }) => break,
            Err(other) => panic!("{other:?}"),
        }
    }
    world.wait_for(name);
}

fn deletes(world: &World) {
    if let Some(name) = world.any_job() {
        match world.scheduler.delete(name.as_str()) {
            // It is still being made.
            Err(JobError::Backend(BackendError::Unavailable { .. })) => {}
            _ => assert!(world.scheduler.get(name.as_str()).is_err(), "it is back"),
        }
    }
}

/// Of one that waits, if there is one: it is just being admitted, perhaps.
fn stops_and_restarts(world: &World) {
    let jobs = world.scheduler.list().unwrap();
    let mut jobs = jobs.iter().map(|view| &view.record.job);
    let first = jobs.clone().next();
    let Some(job) = jobs.find(|job| job.status == Status::Waiting).or(first) else {
        return;
    };
    if world.scheduler.stop(job.name.as_str()).is_ok() {
        world.wait_for(&job.name);
        let _ = world.scheduler.restart(job.name.as_str());
    }
}

#[test]
fn no_more_run_than_may_and_none_waits_for_ever() {
    check(SCHEDULES, || {
        World::start(1).run(NEVER, &[submits, submits, submits]);
        World::start(2).run(NEVER, &[submits, submits, submits]);
    });
}

#[test]
fn what_is_deleted_stays_gone_and_gives_its_place_back() {
    check(SCHEDULES, || {
        World::start(1).run(NEVER, &[submits, submits, deletes]);
        World::start(0).run(1, &[submits, submits, deletes, deletes]);
    });
}

#[test]
fn a_job_that_is_stopped_and_restarted_keeps_to_the_cap() {
    check(SCHEDULES, || {
        World::start(1).run(1, &[submits, submits, stops_and_restarts]);
        let world = World::start(1);
        let made = [world.submit(None), world.submit(None)];
        assert!(made.iter().all(Result::is_ok));
        world.run(NEVER, &[stops_and_restarts]);
    });
}

/// Whatever comes between: the end of the job, or a stop and a restart, after which it has said
/// nothing.
#[test]
fn how_far_a_job_is_is_kept_with_it() {
    check(SCHEDULES, || {
        World::start(0).run(1, &[submits_and_reports, submits_and_reports]);
        World::start(1).run(NEVER, &[submits_and_reports, stops_and_restarts]);
    });
}

#[test]
fn requests_of_one_key_make_one_job() {
    fn submits_with_key(world: &World) {
        match world.submit(Some(key())) {
            Ok(made) => world.wait_for(&made.record.job.name),
            Err(SubmitError::Backend(BackendError::Unavailable { .. })) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    check(SCHEDULES, || {
        let world = World::start(1);
        world.run(1, &[submits_with_key, submits_with_key, submits_with_key]);
        assert_eq!(world.cluster.truth.lock().unwrap().created, 1);
    });
}
