//! Jobs as Kubernetes Jobs, through the REST API.
//!
//! Order of writes: Job, then Secret, then the answer. A pod whose Secret does not exist yet waits,
//! so no job runs without its payload; all is owned by the Job, so nothing outlives it. The Role
//! needs no more than `create` on Secrets.

pub mod api;
mod batch;
mod breaker;
mod client;
mod logs;
mod objects;
mod protobuf;
pub mod watch;
mod wire;

pub use client::{Access, AccessError, Client};
pub use objects::{APP_LABEL, COMPONENT_LABEL, MANAGED_BY_LABEL};

use crate::backend::{
    Backend, BackendError, Condition, CreateError, Created, CreatedBatch, HiddenKey, LogOptions,
    NewBatch, NewJob, Observer, Resend,
};
use crate::clock::Clock;
use crate::config::JobComponent;
use crate::job::{
    Attempt, BatchPart, Job, JobList, JobName, JobRecord, Progress, Queued, Status, Timestamp,
};
use crate::metrics::Metrics;
use api::{Api, ApiError, Calls, Patience};
use serde::Serialize;
use serde_json::{Value, json};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use watch::{Jobs, Pods, Watch, Watched};
use wire::{
    EARLIER_SUSPENSION_ANNOTATION, HIDDEN_ANNOTATION, JOB_NAME_LABEL, JobObject, KEY_ANNOTATION,
    PROGRESS_ANNOTATION, PodObject, QUEUED_ANNOTATION, RESTARTED_ANNOTATION,
    STOP_REASON_ANNOTATION, STOPPED_ANNOTATION, STORED_ANNOTATION, progress_text, queued_text,
};

/// A watch's stream, for the fuzzer: tells `observer` of the jobs in it, or of the pods.
#[cfg(fuzzing)]
pub fn follow_stream(stream: &[u8], of_pods: bool, in_protobuf: bool, observer: &dyn Observer) {
    let format = match in_protobuf {
        true => api::Format::Protobuf,
        false => api::Format::Json,
    };
    match of_pods {
        true => watch::follow_to_end::<Pods>(stream, format, observer),
        false => watch::follow_to_end::<Jobs>(stream, format, observer),
    }
}

/// How often a create whose answer was lost is sent again under the same name.
const CREATE_TRIES: u32 = 3;

/// A caller is told within this that the API server does not answer: all calls for one request
/// together.
const PATIENCE: Duration = Duration::from_millis(1800);

/// The calls of a process that was killed end with its connections.
const KILLED_CALLS_END_WITHIN: Duration = Duration::from_secs(2);

/// The jobs of one component in one namespace.
pub struct Kubernetes {
    calls: Calls,
    clock: Clock,
    component: JobComponent,
    namespace: String,
    pull_secrets: Vec<String>,
    metrics: Arc<Metrics>,
    /// Of one batch, at once.
    writes: usize,
}

impl Kubernetes {
    /// `pull_secrets` name the Secrets with which the nodes pull the jobs' images.
    pub fn new(
        api: Arc<dyn Api>,
        clock: Clock,
        component: JobComponent,
        pull_secrets: Vec<String>,
        metrics: Arc<Metrics>,
    ) -> Kubernetes {
        let namespace = component.namespace();
        Kubernetes {
            calls: Calls::new(api, clock.clone()),
            clock,
            component,
            namespace,
            pull_secrets,
            metrics,
            writes: batch::WRITES,
        }
    }

    /// With no thread of its own for the writes of a batch.
    pub fn one_write_at_a_time(self) -> Kubernetes {
        Kubernetes { writes: 1, ..self }
    }

    /// Starts to watch: a thread for jobs and one for pods, for as long as the process.
    pub fn watch(self: &Arc<Self>, observer: &Arc<dyn Observer>) -> std::io::Result<()> {
        self.watch_on_a_thread::<Jobs>("watch-jobs", observer)?;
        self.watch_on_a_thread::<Pods>("watch-pods", observer)
    }

    fn watch_on_a_thread<T: Watched>(
        self: &Arc<Self>,
        thread: &str,
        observer: &Arc<dyn Observer>,
    ) -> std::io::Result<()> {
        let (backend, observer) = (self.clone(), observer.clone());
        let run = move || backend.watch_kind::<T>(&*observer, &AtomicBool::new(false));
        crate::sync::spawn(thread, run).map(|_| ())
    }

    /// Lists and watches one kind until `stop`.
    pub fn watch_kind<T: Watched>(&self, observer: &dyn Observer, stop: &AtomicBool) {
        Watch {
            calls: &self.calls,
            clock: &self.clock,
            observer,
            namespace: &self.namespace,
            selector: &objects::selector(&self.component),
            metrics: &self.metrics,
            stop,
        }
        .run::<T>();
    }

    /// What orders a new job among others: as it does in the queue, if it is in it.
    fn arrival(&self, queued: Option<Queued>) -> u64 {
        queued.map_or_else(|| self.clock.unique_micros(), |queued| queued.arrival)
    }

    fn jobs(&self) -> String {
        format!("/apis/batch/v1/namespaces/{}/jobs", self.namespace)
    }

    fn secrets(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets", self.namespace)
    }

    fn job_path(&self, name: &JobName) -> String {
        format!("{}/{name}", self.jobs())
    }

    /// Creates the Job. If an answer is lost, the same name is sent again: "exists already" then
    /// means that it was ours, if it is what was sent.
    fn create_job(
        &self,
        name: &JobName,
        object: &impl Serialize,
        resend: Resend,
        is_sent: impl Fn(&Job) -> bool,
        deadline: Instant,
    ) -> Result<Created, CreateError> {
        let send = || {
            self.calls
                .create::<JobObject>(&self.jobs(), object, deadline)
        };
        let (sent, may_be_done) = repeat(resend, send);
        let created = |job| Created {
            job,
            may_come_again: may_be_done,
        };
        let error = match sent {
            Ok(job) => return read_job(job).map(created).map_err(CreateError::Unanswered),
            Err(error) => error,
        };
        match (error.reason(), may_be_done) {
            ("AlreadyExists", true) => match self.look_until(name, deadline) {
                Ok(Some(job)) if is_sent(&job) => Ok(created(job)),
                Ok(Some(_)) => Err(CreateError::NameTaken),
                Ok(None) => Err(CreateError::Unanswered(BackendError::Gone {
                    message: format!("job {name} was deleted while it was being made"),
                })),
                Err(e) => Err(CreateError::Unanswered(BackendError::Unanswered {
                    message: e.to_string(),
                })),
            },
            ("AlreadyExists", false) => Err(CreateError::NameTaken),
            (_, true) => Err(CreateError::Unanswered(unanswered(&error))),
            (_, false) => Err(CreateError::Nothing(explain(error))),
        }
    }

    /// Stores the payload. The name is this job's alone, so a Secret that exists already is its
    /// own.
    fn store_payload_until(
        &self,
        job: &Job,
        payload: &str,
        deadline: Instant,
    ) -> Result<(), BackendError> {
        let secret = objects::secret(&self.component, job, payload);
        let path = self.secrets();
        let send = || self.calls.create_unread(&path, &secret, deadline);
        exists(repeat(Resend::First, send))
    }

    /// Stores the payload of a job that may be on its way out for the lack of it. It is not stored
    /// for one that is gone, whose pod may be there for a while; and whoever looked for it before
    /// finds the job changed.
    fn store_payload_late(
        &self,
        job: &Job,
        payload: &str,
        deadline: Instant,
    ) -> Result<(), BackendError> {
        let note = |text: &str| {
            let annotations = json!({STORED_ANNOTATION: text});
            self.change_job(job, Condition::Whatever, annotations, None)
        };
        // A change that changes nothing gives the job no new version.
        note(&format!("about to be, {}", self.clock.unique_micros()))?;
        self.store_payload_until(job, payload, deadline)?;
        note(&self.clock.now().to_string()).map(drop)
    }

    fn look_until(&self, name: &JobName, deadline: Instant) -> Result<Option<Job>, BackendError> {
        let found = self.calls.get::<JobObject>(&self.job_path(name), deadline);
        match found.map_err(explain).and_then(read_job) {
            Ok(job) => Ok(Some(job)),
            Err(BackendError::Gone { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Until when somebody who waits is kept waiting.
    fn deadline(&self) -> Instant {
        self.clock.instant() + PATIENCE
    }

    /// Changes annotations and, where it is given, `suspend` of this very job.
    fn change_job(
        &self,
        job: &Job,
        condition: Condition,
        annotations: Value,
        suspend: Option<bool>,
    ) -> Result<Job, BackendError> {
        let is_unchanged = condition == Condition::Unchanged;
        let change = JobPatch {
            metadata: MetadataPatch {
                uid: &job.uid,
                resource_version: is_unchanged.then(|| job.version.to_string()),
                annotations,
            },
            spec: suspend.map(|suspend| SpecPatch { suspend }),
        };
        let path = self.job_path(&job.name);
        match self
            .calls
            .patch::<JobObject>(&path, &change, self.deadline())
        {
            Ok(changed) => read_job(changed),
            // It has another uid: it is another job of that name.
            Err(error) if error.is_about("metadata.uid") => Err(gone(job)),
            Err(error) => Err(explain_change(error)),
        }
    }
}

/// What tells the suspension that a job is let run over from a later one.
fn suspension_text(job: &Job) -> Option<String> {
    job.suspension.map(|since| since.to_string())
}

impl Backend for Kubernetes {
    fn create(&self, new: &NewJob, resend: Resend) -> Result<Created, CreateError> {
        let invalid = |message| CreateError::Nothing(BackendError::Invalid { message });
        let image = new
            .settings
            .image_reference()
            .map_err(|e| invalid(format!("image: {e}")))?;
        let deadline = self.deadline();
        let arrival = self.arrival(new.queued);
        let object = objects::job(new, &image, &self.pull_secrets, arrival);
        let is_sent = |found: &Job| match (&found.key, &new.key) {
            (Some(found), Some(sent)) => found.is_same_request(sent),
            (None, None) => {
                found.job_id.as_deref() == new.job_id && found.rare.restart_of.is_none()
            }
            _ => false,
        };
        let created = self.create_job(&new.name, &object, resend, is_sent, deadline)?;
        if let Some(payload) = new.payload {
            let stored = match resend {
                Resend::First => self.store_payload_until(&created.job, payload, deadline),
                Resend::Again => self.store_payload_late(&created.job, payload, deadline),
            };
            stored.map_err(|e| match e {
                BackendError::Unanswered { .. } => CreateError::Unanswered(e),
                // An earlier send may have stored it, or may yet make the job again.
                e if resend == Resend::Again || created.may_come_again => {
                    let message = e.to_string();
                    CreateError::Unanswered(BackendError::Unanswered { message })
                }
                e => CreateError::Incomplete(e),
            })?;
        }
        Ok(created)
    }

    fn create_batch(&self, batch: &NewBatch, resend: Resend) -> Result<CreatedBatch, CreateError> {
        self.make_batch(batch, resend)
    }

    /// The new Job mounts the old one's Secret: the account may not read a Secret to copy it.
    fn recreate(
        &self,
        old: &Job,
        name: &JobName,
        queued: Option<Queued>,
    ) -> Result<Created, CreateError> {
        let deadline = self.deadline();
        let found = self
            .calls
            .get::<Value>(&self.job_path(&old.name), deadline)
            .map_err(explain);
        let object = found.map_err(CreateError::Nothing)?;
        if object.pointer("/metadata/uid") != Some(&json!(&*old.uid)) {
            return Err(CreateError::Nothing(gone(old)));
        }
        // Whatever the clock said then: of a batch's place, the last to come has it.
        let arrival = self.arrival(queued).max(old.arrival + 1);
        let again = objects::job_again(&object, &self.component, name, queued, arrival);
        let is_sent = |found: &Job| found.rare.restart_of.as_ref() == Some(&old.name);
        self.create_job(name, &again, Resend::First, is_sent, deadline)
    }

    fn store_payload(&self, job: &Job, payload: &str) -> Result<(), BackendError> {
        self.store_payload_late(job, payload, self.deadline())
    }

    fn admit(&self, job: &Job) -> Result<Job, BackendError> {
        // Unchanged, so that a stop that comes between is not undone.
        let annotations = json!({
            QUEUED_ANNOTATION: null,
            EARLIER_SUSPENSION_ANNOTATION: suspension_text(job),
        });
        self.change_job(job, Condition::Unchanged, annotations, Some(false))
    }

    fn stop(&self, job: &Job, reason: &str) -> Result<Job, BackendError> {
        let mut annotations = json!({
            STOPPED_ANNOTATION: self.clock.now().to_string(),
            STOP_REASON_ANNOTATION: Some(reason).filter(|reason| !reason.is_empty()),
            QUEUED_ANNOTATION: null,
        });
        // Somebody else has just let it run.
        let is_let_run =
            job.status == Status::Running && job.suspension.is_some() && !job.is_suspension_earlier;
        if let Some(annotations) = annotations.as_object_mut().filter(|_| is_let_run) {
            let earlier = json!(suspension_text(job));
            annotations.insert(EARLIER_SUSPENSION_ANNOTATION.to_string(), earlier);
        }
        // A job that waits is so known to have been held back all the time.
        let condition = match is_let_run || job.status == Status::Waiting {
            true => Condition::Unchanged,
            false => Condition::Whatever,
        };
        self.change_job(job, condition, annotations, Some(true))
    }

    fn note_stop(&self, job: &Job) -> Result<Job, BackendError> {
        let annotations = json!({EARLIER_SUSPENSION_ANNOTATION: null});
        self.change_job(job, Condition::Unchanged, annotations, None)
    }

    fn keep_progress(&self, job: &Job, progress: &Progress) -> Result<Job, BackendError> {
        // Unchanged, so that it does not come late to a job that was restarted meanwhile.
        let annotations = json!({PROGRESS_ANNOTATION: progress_text(progress)});
        self.change_job(job, Condition::Unchanged, annotations, None)
    }

    fn resume(&self, job: &Job, queued: Option<Queued>) -> Result<Job, BackendError> {
        // Unchanged, so that of two restarts one does nothing.
        let annotations = json!({
            STOPPED_ANNOTATION: null,
            STOP_REASON_ANNOTATION: null,
            PROGRESS_ANNOTATION: null,
            RESTARTED_ANNOTATION: self.clock.now().to_string(),
            QUEUED_ANNOTATION: queued.map(queued_text),
            EARLIER_SUSPENSION_ANNOTATION: suspension_text(job).filter(|_| queued.is_none()),
        });
        self.change_job(
            job,
            Condition::Unchanged,
            annotations,
            Some(queued.is_some()),
        )
    }

    fn hide(&self, job: &Job, key: HiddenKey, at: Timestamp) -> Result<Job, BackendError> {
        let at = at.to_string();
        let annotations = match key {
            HiddenKey::Kept => json!({HIDDEN_ANNOTATION: at}),
            HiddenKey::Forgotten => json!({HIDDEN_ANNOTATION: at, KEY_ANNOTATION: null}),
        };
        // A stopped one may be restarted at this moment.
        let condition = match job.status {
            Status::Stopped => Condition::Unchanged,
            _ => Condition::Whatever,
        };
        self.change_job(job, condition, annotations, None)
    }

    fn expose(&self, job: &Job) -> Result<(), BackendError> {
        let Some(service) = objects::service(&self.component, job) else {
            return Ok(());
        };
        let path = format!("/api/v1/namespaces/{}/services", self.namespace);
        let deadline = self.deadline();
        let send = || self.calls.create_unread(&path, &service, deadline);
        exists(repeat(Resend::First, send))
    }

    /// Asks with a create that is not carried out: "exists already" means that the Secret does. So
    /// no right to read is needed.
    fn has_payload(&self, job: &Job) -> Result<bool, BackendError> {
        let path = format!("{}?dryRun=All", self.secrets());
        let mut secret = objects::secret(&self.component, job, "");
        let owner = job.rare.payload_of.as_ref().unwrap_or(&job.name);
        let of_batch = match &job.rare.batch {
            Some(BatchPart::Member { payload, .. }) => payload.as_deref(),
            _ => None,
        };
        secret.metadata.name = Some(of_batch.unwrap_or(owner.as_str()).to_string());
        match self.calls.create_unread(&path, &secret, self.deadline()) {
            Ok(()) => Ok(false),
            Err(e) if e.reason() == "AlreadyExists" => Ok(true),
            Err(e) => Err(explain(e)),
        }
    }

    fn delete(&self, job: &Job, condition: Condition) -> Result<bool, BackendError> {
        let version = job.version.to_string();
        let preconditions = match condition {
            Condition::Whatever => json!({"uid": &*job.uid}),
            Condition::Unchanged => json!({"uid": &*job.uid, "resourceVersion": version}),
        };
        // Background: the Job is gone at once, and the garbage collector ends its pods and removes
        // what it owns.
        let options = json!({"propagationPolicy": "Background", "preconditions": preconditions});
        let path = self.job_path(&job.name);
        let deleted = self.calls.delete(&path, &options, self.deadline());
        match deleted.map_err(explain_change) {
            Ok(()) => Ok(true),
            Err(BackendError::Gone { .. }) => Ok(false),
            // It has another uid.
            Err(BackendError::Changed { .. }) if condition == Condition::Whatever => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn calls_end_within(&self) -> Duration {
        KILLED_CALLS_END_WITHIN
    }

    fn list(&self) -> Result<JobList, BackendError> {
        let selector = objects::selector(&self.component);
        let listed = watch::list_all::<Jobs>(&self.calls, &self.namespace, &selector);
        let (jobs, version) = listed.map_err(explain)?;
        let version = watch::number(&version);
        Ok(JobList { jobs, version })
    }

    fn look(&self, name: &JobName) -> Result<Option<Job>, BackendError> {
        self.look_until(name, self.deadline())
    }

    fn attempts(&self, name: &JobName) -> Result<Vec<Attempt>, BackendError> {
        let label = JOB_NAME_LABEL.replace('/', "%2F");
        let path = format!(
            "/api/v1/namespaces/{}/pods?labelSelector={label}%3D{name}",
            self.namespace
        );
        let pods: watch::Page<PodObject> = self
            .calls
            .list(&path, Patience::Until(self.deadline()))
            .map_err(explain)?;
        let attempts = pods.items.into_iter().filter_map(PodObject::into_attempt);
        let own = attempts.filter(|(job, _)| job == name);
        Ok(own.map(|(_, attempt)| attempt).collect())
    }

    fn all_attempts(&self) -> Result<Vec<(JobName, Attempt)>, BackendError> {
        let selector = objects::selector(&self.component);
        let listed = watch::list_all::<Pods>(&self.calls, &self.namespace, &selector);
        listed.map(|(attempts, _)| attempts).map_err(explain)
    }

    fn logs(
        &self,
        record: &JobRecord,
        attempt: usize,
        options: LogOptions,
    ) -> Result<Box<dyn Read + Send>, BackendError> {
        let Some(attempt) = record.attempts.get(attempt) else {
            return Ok(Box::new(io::empty()));
        };
        let path = logs::path(
            &self.namespace,
            &attempt.name,
            &self.component.name,
            options,
        );
        match logs::PodLog::open(&self.calls, path) {
            Ok(log) => Ok(Box::new(log)),
            // Its container was never started.
            Err(e) if e.code() == Some(400) => Ok(Box::new(io::empty())),
            Err(e) if e.code() == Some(404) => Err(BackendError::Gone {
                message: format!("the pod {} is gone, and its log with it", attempt.name),
            }),
            Err(e) => Err(explain(e)),
        }
    }
}

/// A change of a Job. With its uid, no other job of that name is changed; with its version, nothing
/// that has changed.
#[derive(Serialize)]
struct JobPatch<'a> {
    metadata: MetadataPatch<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<SpecPatch>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MetadataPatch<'a> {
    uid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_version: Option<String>,
    annotations: Value,
}

#[derive(Serialize)]
struct SpecPatch {
    suspend: bool,
}

/// Sends a create until it is answered for certain, a few times at most: it can be done once alone,
/// since the name is taken then. Returns also whether one of the tries that were not answered may
/// yet be carried out.
fn repeat<T>(
    resend: Resend,
    send: impl Fn() -> Result<T, ApiError>,
) -> (Result<T, ApiError>, bool) {
    let mut may_be_done = resend == Resend::Again;
    let mut tries_left = CREATE_TRIES;
    loop {
        tries_left -= 1;
        let error = match send() {
            Ok(done) => return (Ok(done), may_be_done),
            Err(error) => error,
        };
        may_be_done |= is_outcome_unknown(&error);
        // "Conflict" is what a create is told whose quota was used by another at the same time.
        let is_final = !is_outcome_unknown(&error) && error.reason() != "Conflict";
        if is_final || tries_left == 0 {
            return (Err(error), may_be_done);
        }
    }
}

/// Whether an object exists after a create of it: also one that was there.
fn exists((sent, may_be_done): (Result<(), ApiError>, bool)) -> Result<(), BackendError> {
    match sent {
        Err(error) if error.reason() == "AlreadyExists" => Ok(()),
        Err(error) if may_be_done => Err(unanswered(&error)),
        sent => sent.map_err(explain),
    }
}

/// What an error says of a change that was sent once.
fn explain_change(error: ApiError) -> BackendError {
    match is_outcome_unknown(&error) {
        true => unanswered(&error),
        false => explain(error),
    }
}

fn unanswered(error: &ApiError) -> BackendError {
    let message = error.to_string();
    BackendError::Unanswered { message }
}

fn gone(job: &Job) -> BackendError {
    BackendError::Gone {
        message: format!("job {} is gone", job.name),
    }
}

fn read_job(object: JobObject) -> Result<Job, BackendError> {
    // One on its way out (its deletion waits for somebody's finalizer) is gone for us.
    if object.metadata.deletion_timestamp.is_some() {
        let message = format!("job {} is gone", object.metadata.name);
        return Err(BackendError::Gone { message });
    }
    object.into_job().ok_or_else(|| BackendError::Unavailable {
        message: "Kubernetes answered with a Job without a name or a time".to_string(),
    })
}

/// Whether Kubernetes may have done what was asked although it did not say so.
fn is_outcome_unknown(error: &ApiError) -> bool {
    match error {
        ApiError::TimedOut { .. } | ApiError::Lost { .. } | ApiError::Malformed { .. } => true,
        // A gateway's or an overloaded server's: it may have passed the request on.
        ApiError::Status { code, .. } => matches!(code, 500 | 502 | 503 | 504),
        ApiError::Unreachable { .. } | ApiError::Late { .. } | ApiError::Token { .. } => false,
    }
}

fn explain(error: ApiError) -> BackendError {
    let text = error.to_string();
    let ApiError::Status {
        code,
        reason,
        message,
        ..
    } = error
    else {
        return BackendError::Unavailable { message: text };
    };
    match (code, reason.as_str()) {
        (400 | 413 | 422, _) => BackendError::Invalid {
            message: format!("Kubernetes refuses the job: {message}"),
        },
        (404, "NotFound") => BackendError::Gone { message },
        (409, "Conflict") => BackendError::Changed { message },
        (401 | 403 | 404, _) => BackendError::Refused {
            message: format!("Kubernetes refuses: {message}"),
        },
        _ => BackendError::Unavailable { message: text },
    }
}

#[cfg(test)]
pub(crate) mod tests;
