//! Jobs as Kubernetes Jobs, through the REST API.
//!
//! Order of writes: Job, then Secret, then the answer. A pod whose Secret does not exist yet waits, so no job runs
//! without its payload; all is owned by the Job, so nothing outlives it. The Role needs no more than `create` on Secrets.

mod client;
mod objects;
mod watch;
mod wire;

pub use client::{Access, AccessError, Client};
pub use objects::{APP_LABEL, COMPONENT_LABEL, MANAGED_BY_LABEL};

use crate::backend::{Backend, BackendError, CreateError, NewJob, Observer};
use crate::config::JobComponent;
use crate::job::{Job, JobName};
use client::ApiError;
use serde::de::IgnoredAny;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use watch::{Jobs, Pods, Watch};
use wire::JobObject;

/// How often a create whose answer was lost is sent again under the same name.
const CREATE_TRIES: u32 = 3;

/// The jobs of one component in one namespace.
pub struct Kubernetes {
    client: Arc<Client>,
    component: JobComponent,
    namespace: String,
    pull_secrets: Vec<String>,
}

impl Kubernetes {
    /// `pull_secrets` name the Secrets with which the nodes pull the jobs' images.
    pub fn new(client: Client, component: JobComponent, pull_secrets: Vec<String>) -> Kubernetes {
        let namespace = component.namespace();
        Kubernetes {
            client: Arc::new(client),
            component,
            namespace,
            pull_secrets,
        }
    }

    /// Starts to watch: a thread for jobs and one for pods, for as long as the process.
    pub fn watch(&self, observer: &Arc<dyn Observer>) -> std::io::Result<()> {
        self.watch_kind::<Jobs>("watch-jobs", observer)?;
        self.watch_kind::<Pods>("watch-pods", observer)
    }

    fn watch_kind<T: watch::Watched>(
        &self,
        thread: &str,
        observer: &Arc<dyn Observer>,
    ) -> std::io::Result<()> {
        let (client, observer) = (self.client.clone(), observer.clone());
        let (namespace, selector) = (self.namespace.clone(), objects::selector(&self.component));
        crate::sync::spawn(thread, move || {
            let stop = AtomicBool::new(false);
            Watch {
                client: &client,
                observer: &*observer,
                namespace: &namespace,
                selector: &selector,
                stop: &stop,
            }
            .run::<T>();
        })
        .map(|_| ())
    }

    fn jobs(&self) -> String {
        format!("/apis/batch/v1/namespaces/{}/jobs", self.namespace)
    }

    fn secrets(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets", self.namespace)
    }

    /// Creates the Job. If an answer is lost, the same name is sent again: "exists already" then means that it was ours.
    fn create_job(&self, new: &NewJob, image: &str) -> Result<Job, CreateError> {
        let object = objects::job(new, image, &self.pull_secrets);
        let mut perhaps_there = false;
        for tries_left in (0..CREATE_TRIES).rev() {
            match self.client.post::<JobObject>(&self.jobs(), &object) {
                Ok(created) => return read_job(created).map_err(CreateError::Leftover),
                Err(e) if e.code() == Some(409) && !perhaps_there => {
                    return Err(CreateError::NameTaken);
                }
                Err(e) if e.code() == Some(409) => {
                    let path = format!("{}/{}", self.jobs(), new.name);
                    let found = self
                        .client
                        .get::<JobObject>(&path)
                        .map_err(|e| CreateError::Leftover(explain(e)))?;
                    return read_job(found).map_err(CreateError::Leftover);
                }
                Err(e) if outcome_unknown(&e) && tries_left > 0 => perhaps_there = true,
                Err(e) if perhaps_there || outcome_unknown(&e) => {
                    return Err(CreateError::Leftover(explain(e)));
                }
                Err(e) => return Err(CreateError::Nothing(explain(e))),
            }
        }
        let message = format!("POST {}: no answer", self.jobs());
        Err(CreateError::Leftover(BackendError::Unavailable { message }))
    }
}

impl Backend for Kubernetes {
    fn create(&self, new: &NewJob) -> Result<Job, CreateError> {
        let image = new.settings.image_reference().map_err(|e| {
            CreateError::Nothing(BackendError::Invalid {
                message: format!("image: {e}"),
            })
        })?;
        let job = self.create_job(new, &image)?;
        if let Some(payload) = new.payload {
            let secret = objects::secret(new, &job, payload);
            let mut created = self.client.post::<IgnoredAny>(&self.secrets(), &secret);
            if created.as_ref().is_err_and(outcome_unknown) {
                created = self.client.post(&self.secrets(), &secret);
            }
            match created {
                Err(e) if e.code() != Some(409) => return Err(CreateError::Leftover(explain(e))),
                // The name is this job's alone, so a Secret that exists already is its own.
                _ => {}
            }
        }
        Ok(job)
    }

    fn expose(&self, job: &Job) -> Result<(), BackendError> {
        let Some(service) = objects::service(&self.component, job) else {
            return Ok(());
        };
        let path = format!("/api/v1/namespaces/{}/services", self.namespace);
        match self.client.post::<IgnoredAny>(&path, &service) {
            Err(e) if e.code() != Some(409) => Err(explain(e)),
            _ => Ok(()),
        }
    }

    /// Asks with a create that is not carried out: 409 means that the Secret exists. So no right to read is needed.
    fn has_payload(&self, job: &Job) -> Result<bool, BackendError> {
        let new = NewJob {
            name: job.name.clone(),
            component: &self.component,
            settings: &self.component.settings,
            job_id: None,
            payload: Some(""),
        };
        let path = format!("{}?dryRun=All", self.secrets());
        match self
            .client
            .post::<IgnoredAny>(&path, &objects::secret(&new, job, ""))
        {
            Ok(_) => Ok(false),
            Err(e) if e.code() == Some(409) => Ok(true),
            Err(e) => Err(explain(e)),
        }
    }

    fn delete(&self, name: &JobName) -> Result<bool, BackendError> {
        // Background: the Job is gone at once, and the garbage collector ends its pods and removes what it owns.
        let path = format!("{}/{name}?propagationPolicy=Background", self.jobs());
        match self.client.delete(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.code() == Some(404) => Ok(false),
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
        ApiError::Lost { .. } | ApiError::Malformed { .. } => true,
        // A gateway's or an overloaded server's: it may have passed the request on.
        ApiError::Status { code, .. } => matches!(code, 500 | 502 | 503 | 504),
        ApiError::Unreachable { .. } | ApiError::Token { .. } => false,
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
            code: 401 | 403 | 404,
            message,
            ..
        } => BackendError::Refused {
            message: format!("Kubernetes refuses: {message}"),
        },
        ApiError::Status { .. }
        | ApiError::Unreachable { .. }
        | ApiError::Lost { .. }
        | ApiError::Malformed { .. }
        | ApiError::Token { .. } => BackendError::Unavailable { message: text },
    }
}
