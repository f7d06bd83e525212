//! Jobs as Kubernetes Jobs, through the REST API.
//!
//! Order of writes: Job, then Secret, then the answer. A pod whose Secret does not exist yet waits, so no job runs
//! without its payload; all is owned by the Job, so nothing outlives it. The Role needs no more than `create` on Secrets.

pub mod api;
mod breaker;
mod client;
mod logs;
mod objects;
mod protobuf;
pub mod watch;
mod wire;

pub use client::{Access, AccessError, Client};
pub use objects::{APP_LABEL, COMPONENT_LABEL, MANAGED_BY_LABEL};

use crate::backend::{Backend, BackendError, CreateError, LogOptions, NewJob, Observer, Resend};
use crate::clock::Clock;
use crate::config::JobComponent;
use crate::job::{Job, JobName, JobRecord, Queued};
use crate::metrics::Metrics;
use api::{Api, ApiError, Calls};
use serde::Serialize;
use serde_json::{Value, json};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use watch::{Jobs, Pods, Watch, Watched};
use wire::{
    HIDDEN_ANNOTATION, JobObject, QUEUED_ANNOTATION, RESTARTED_ANNOTATION, STOPPED_ANNOTATION,
    queued_text,
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

/// A caller is told within this that the API server does not answer: all calls for one request together.
const PATIENCE: Duration = Duration::from_millis(1800);

/// The jobs of one component in one namespace.
pub struct Kubernetes {
    calls: Calls,
    clock: Clock,
    component: JobComponent,
    namespace: String,
    pull_secrets: Vec<String>,
    metrics: Arc<Metrics>,
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
        }
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

    fn jobs(&self) -> String {
        format!("/apis/batch/v1/namespaces/{}/jobs", self.namespace)
    }

    fn secrets(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets", self.namespace)
    }

    fn job_path(&self, name: &JobName) -> String {
        format!("{}/{name}", self.jobs())
    }

    /// Creates the Job. If an answer is lost, the same name is sent again: "exists already" then means that it was ours.
    fn create_job(
        &self,
        name: &JobName,
        object: &impl Serialize,
        resend: Resend,
        deadline: Instant,
    ) -> Result<Job, CreateError> {
        let mut resend = resend;
        for tries_left in (0..CREATE_TRIES).rev() {
            let error = match self
                .calls
                .create::<JobObject>(&self.jobs(), object, deadline)
            {
                Ok(created) => return read_job(created).map_err(CreateError::Leftover),
                Err(error) => error,
            };
            match (error.code(), resend) {
                (Some(409), Resend::First) => return Err(CreateError::NameTaken),
                (Some(409), Resend::Again) => {
                    let found = self.calls.get::<JobObject>(&self.job_path(name), deadline);
                    return found
                        .map_err(explain)
                        .and_then(read_job)
                        .map_err(CreateError::Leftover);
                }
                _ if outcome_unknown(&error) && tries_left > 0 => resend = Resend::Again,
                (_, Resend::First) if !outcome_unknown(&error) => {
                    return Err(CreateError::Nothing(explain(error)));
                }
                _ => return Err(CreateError::Leftover(explain(error))),
            }
        }
        let message = format!("POST {}: no answer", self.jobs());
        Err(CreateError::Leftover(BackendError::Unavailable { message }))
    }

    fn store_payload_until(
        &self,
        job: &Job,
        payload: &str,
        deadline: Instant,
    ) -> Result<(), BackendError> {
        let secret = objects::secret(&self.component, job, payload);
        let store = || self.calls.create_unread(&self.secrets(), &secret, deadline);
        let mut stored = store();
        if stored.as_ref().is_err_and(outcome_unknown) {
            stored = store();
        }
        match stored {
            Err(e) if e.code() != Some(409) => Err(explain(e)),
            // The name is this job's alone, so a Secret that exists already is its own.
            _ => Ok(()),
        }
    }

    /// Until when somebody who waits is kept waiting.
    fn deadline(&self) -> Instant {
        self.clock.instant() + PATIENCE
    }

    fn change_job(&self, job: &Job, change: &Value) -> Result<Job, BackendError> {
        let changed =
            self.calls
                .patch::<JobObject>(&self.job_path(&job.name), change, self.deadline());
        read_job(changed.map_err(explain)?)
    }
}

impl Backend for Kubernetes {
    fn create(&self, new: &NewJob, resend: Resend) -> Result<Job, CreateError> {
        let invalid = |message| CreateError::Nothing(BackendError::Invalid { message });
        let image = new
            .settings
            .image_reference()
            .map_err(|e| invalid(format!("image: {e}")))?;
        let deadline = self.deadline();
        let object = objects::job(new, &image, &self.pull_secrets);
        let job = self.create_job(&new.name, &object, resend, deadline)?;
        if let Some(payload) = new.payload {
            self.store_payload_until(&job, payload, deadline)
                .map_err(CreateError::Leftover)?;
        }
        Ok(job)
    }

    /// The new Job mounts the old one's Secret: the account may not read a Secret to copy it.
    fn recreate(
        &self,
        old: &Job,
        name: &JobName,
        queued: Option<Queued>,
    ) -> Result<Job, CreateError> {
        let deadline = self.deadline();
        let found = self
            .calls
            .get::<Value>(&self.job_path(&old.name), deadline)
            .map_err(explain);
        let object = found.map_err(CreateError::Nothing)?;
        let again = objects::job_again(&object, &self.component, name, queued);
        self.create_job(name, &again, Resend::First, deadline)
    }

    fn store_payload(&self, job: &Job, payload: &str) -> Result<(), BackendError> {
        self.store_payload_until(job, payload, self.deadline())
    }

    fn admit(&self, job: &Job) -> Result<Job, BackendError> {
        // With its version, so that a stop that comes between is not undone.
        self.change_job(
            job,
            &json!({
                "metadata": {
                    "resourceVersion": job.version.to_string(),
                    "annotations": {QUEUED_ANNOTATION: null},
                },
                "spec": {"suspend": false},
            }),
        )
    }

    fn stop(&self, job: &Job) -> Result<Job, BackendError> {
        let now = self.clock.now().to_string();
        self.change_job(
            job,
            &json!({
                "metadata": {"annotations": {STOPPED_ANNOTATION: now, QUEUED_ANNOTATION: null}},
                "spec": {"suspend": true},
            }),
        )
    }

    fn resume(&self, job: &Job, queued: Option<Queued>) -> Result<Job, BackendError> {
        let now = self.clock.now().to_string();
        self.change_job(
            job,
            &json!({
                "metadata": {"annotations": {
                    STOPPED_ANNOTATION: null,
                    RESTARTED_ANNOTATION: now,
                    QUEUED_ANNOTATION: queued.map(queued_text),
                }},
                "spec": {"suspend": queued.is_some()},
            }),
        )
    }

    fn hide(&self, job: &Job) -> Result<Job, BackendError> {
        let now = self.clock.now().to_string();
        self.change_job(
            job,
            &json!({"metadata": {"annotations": {HIDDEN_ANNOTATION: now}}}),
        )
    }

    fn expose(&self, job: &Job) -> Result<(), BackendError> {
        let Some(service) = objects::service(&self.component, job) else {
            return Ok(());
        };
        let path = format!("/api/v1/namespaces/{}/services", self.namespace);
        match self.calls.create_unread(&path, &service, self.deadline()) {
            Err(e) if e.code() != Some(409) => Err(explain(e)),
            _ => Ok(()),
        }
    }

    /// Asks with a create that is not carried out: 409 means that the Secret exists. So no right to read is needed.
    fn has_payload(&self, job: &Job) -> Result<bool, BackendError> {
        let path = format!("{}?dryRun=All", self.secrets());
        match self.calls.create_unread(
            &path,
            &objects::secret(&self.component, job, ""),
            self.deadline(),
        ) {
            Ok(_) => Ok(false),
            Err(e) if e.code() == Some(409) => Ok(true),
            Err(e) => Err(explain(e)),
        }
    }

    fn delete(&self, name: &JobName) -> Result<bool, BackendError> {
        // Background: the Job is gone at once, and the garbage collector ends its pods and removes what it owns.
        let options = json!({"propagationPolicy": "Background"});
        match self
            .calls
            .delete(&self.job_path(name), &options, self.deadline())
        {
            Ok(()) => Ok(true),
            Err(e) if e.code() == Some(404) => Ok(false),
            Err(e) => Err(explain(e)),
        }
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

fn read_job(object: JobObject) -> Result<Job, BackendError> {
    object.into_job().ok_or_else(|| BackendError::Unavailable {
        message: "Kubernetes answered with a Job without a name or a time".to_string(),
    })
}

/// Whether Kubernetes may have done what was asked although it did not say so.
fn outcome_unknown(error: &ApiError) -> bool {
    match error {
        ApiError::TimedOut { .. } | ApiError::Lost { .. } | ApiError::Malformed { .. } => true,
        // A gateway's or an overloaded server's: it may have passed the request on.
        ApiError::Status { code, .. } => matches!(code, 500 | 502 | 503 | 504),
        ApiError::Unreachable { .. } | ApiError::Late { .. } | ApiError::Token { .. } => false,
    }
}

fn explain(error: ApiError) -> BackendError {
    let text = error.to_string();
    match error {
        ApiError::Status {
            code: 400 | 413 | 422,
            message,
            ..
        } => BackendError::Invalid {
            message: format!("Kubernetes refuses the job: {message}"),
        },
        ApiError::Status {
            code: 404,
            reason,
            message,
            ..
        } if reason == "NotFound" => BackendError::Gone { message },
        ApiError::Status {
            code: 401 | 403 | 404,
            message,
            ..
        } => BackendError::Refused {
            message: format!("Kubernetes refuses: {message}"),
        },
        ApiError::Status { .. }
        | ApiError::Unreachable { .. }
        | ApiError::Late { .. }
        | ApiError::TimedOut { .. }
        | ApiError::Lost { .. }
        | ApiError::Malformed { .. }
        | ApiError::Token { .. } => BackendError::Unavailable { message: text },
    }
}
