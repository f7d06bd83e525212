//! A batch as Kubernetes objects: a parent Job that never runs, a few Secrets with the payloads, and
//! the Jobs, all owned by the parent, so that it goes whole with it.
//!
//! Order of writes: parent, Secrets, Jobs, then the parent's word that it is complete. Every name
//! follows from the batch's and the request, so that a request that is sent again goes on where it
//! ended.

use super::objects::{self, Place};
use super::wire::{
    ARRIVAL_ANNOTATION, BATCH_ID_ANNOTATION, BATCH_LABEL, BATCH_SIZE_ANNOTATION,
    COMPLETE_ANNOTATION, INDEX_ANNOTATION, KEY_ANNOTATION, key_text,
};
use super::{Kubernetes, exists, repeat};
use crate::backend::{
    BackendError, Condition, CreateError, Created, CreatedBatch, NewBatch, NewJob, Resend,
};
use crate::job::{Job, Queued};
use crate::sync::{Lock, STACK_BYTES};
use k8s_openapi::ByteString;
use k8s_openapi::api::batch::v1::{Job as JobObject, JobSpec};
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec, Secret};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Who sees to the parent Job instead of the job controller, which so makes nothing of it.
///
/// Source: <https://kubernetes.io/docs/concepts/workloads/controllers/job/#delegation-of-managing-a-job-object-to-external-controller>
const MANAGED_BY: &str = "job-scheduler/batch";
/// Bytes of payloads in one Secret: what one may have.
///
/// Source: <https://kubernetes.io/docs/concepts/configuration/secret/#restriction-data-size>
const SECRET_BYTES: usize = 1 << 20;
/// Writes of a batch at once: with so many the API server does as much as it can (measured).
pub const WRITES: usize = 8;
/// A caller is told within this that a batch could not be made.
const PATIENCE: Duration = Duration::from_secs(30);

/// The name of the Secret of this number that the batch's parent owns: of no earlier parent of its
/// name, whose Secrets may be there for a while after it.
fn secret_name(parent: &Job, number: usize) -> String {
    let of_parent = parent.uid.rsplit('-').next().unwrap_or_default();
    format!("{}-payloads-{of_parent}-{number}", parent.name)
}

/// In which Secret each payload goes, one filled after the other; `None` for a job without one.
fn places(sizes: impl Iterator<Item = Option<usize>>) -> Vec<Option<usize>> {
    let (mut number, mut filled) = (0, 0);
    let place = |size: Option<usize>| {
        let size = size?;
        if filled + size > SECRET_BYTES && filled > 0 {
            (number, filled) = (number + 1, 0);
        }
        filled += size;
        Some(number)
    };
    sizes.map(place).collect()
}

/// The Job that stands for the batch.
fn parent(batch: &NewBatch, image: &str) -> JobObject {
    let mut metadata = objects::metadata(batch.component, &batch.name);
    let annotations = [
        (BATCH_SIZE_ANNOTATION, Some(batch.jobs.len().to_string())),
        (ARRIVAL_ANNOTATION, Some(batch.arrival.to_string())),
        (BATCH_ID_ANNOTATION, batch.batch_id.map(str::to_string)),
        (KEY_ANNOTATION, batch.key.map(key_text)),
    ];
    let annotations = annotations.into_iter();
    let annotations = annotations.filter_map(|(key, value)| Some((key.to_string(), value?)));
    metadata.annotations = Some(annotations.collect());
    JobObject {
        metadata,
        spec: Some(JobSpec {
            // Either alone keeps it from running; clusters before 1.32 do not know the third.
            suspend: Some(true),
            parallelism: Some(0),
            managed_by: Some(MANAGED_BY.to_string()),
            template: PodTemplateSpec {
                spec: Some(PodSpec {
                    restart_policy: Some("Never".to_string()),
                    containers: vec![Container {
                        name: batch.component.name.clone(),
                        image: Some(image.to_string()),
                        ..Container::default()
                    }],
                    ..PodSpec::default()
                }),
                ..PodTemplateSpec::default()
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// One of the Secrets, with the payloads of the jobs whose place it is.
fn secret(batch: &NewBatch, parent: &Job, number: usize, places: &[Option<usize>]) -> Secret {
    let own = places.iter().zip(batch.jobs);
    let own = own.filter(|(place, _)| **place == Some(number));
    let data = own.filter_map(|(_, job)| {
        let payload = job.payload?.as_bytes().to_vec();
        Some((job.name.to_string(), ByteString(payload)))
    });
    let mut secret = objects::secret_of(batch.component, parent, data.collect());
    secret.metadata.name = Some(secret_name(parent, number));
    secret
}

/// When the job in this place of the batch came: one that is made later, by a request that is sent
/// again, has its place all the same.
fn arrival_of(parent: &Job, index: u32) -> u64 {
    parent.arrival + 1 + u64::from(index)
}

/// One of the Jobs, in the queue by its place in the batch.
fn member(
    batch: &NewBatch,
    parent: &Job,
    job: &NewJob,
    image: &str,
    (index, place): (u32, Option<usize>),
    pull_secrets: &[String],
) -> JobObject {
    let place = place.map(|number| Place {
        secret: secret_name(parent, number),
        key: job.name.to_string(),
    });
    let arrival = arrival_of(parent, index);
    let queued = Queued {
        priority: job.priority,
        arrival,
    };
    let mut object = objects::job_with(job, image, pull_secrets, arrival, Some(queued), place);
    let metadata = &mut object.metadata;
    metadata.owner_references = Some(vec![objects::owner(parent)]);
    let label = (BATCH_LABEL.to_string(), batch.name.to_string());
    metadata.labels.get_or_insert_default().extend([label]);
    let index = (INDEX_ANNOTATION.to_string(), index.to_string());
    metadata.annotations.get_or_insert_default().extend([index]);
    object
}

/// Of a batch whose parent is there.
fn of_a_part(error: CreateError) -> CreateError {
    match error {
        CreateError::Nothing(e) => CreateError::Incomplete(e),
        CreateError::NameTaken => CreateError::Incomplete(BackendError::Unavailable {
            message: "the name of one of the batch's jobs is taken".to_string(),
        }),
        error @ (CreateError::Incomplete(_) | CreateError::Unanswered(_)) => error,
    }
}

/// Why a batch is not complete whose parent is there.
fn cut_off(error: BackendError) -> CreateError {
    match error {
        BackendError::Unanswered { .. } => CreateError::Unanswered(error),
        error => CreateError::Incomplete(error),
    }
}

impl Kubernetes {
    /// See [`Backend::create_batch`](crate::backend::Backend::create_batch).
    pub(super) fn make_batch(
        &self,
        batch: &NewBatch,
        resend: Resend,
    ) -> Result<CreatedBatch, CreateError> {
        let invalid = |message| CreateError::Nothing(BackendError::Invalid { message });
        let image = |job: &NewJob| {
            let image = job.settings.image_reference();
            image.map_err(|e| invalid(format!("image of job {}: {e}", job.name)))
        };
        let images: Vec<String> = batch.jobs.iter().map(image).collect::<Result<_, _>>()?;
        let nothing = || invalid("a batch without a job".to_string());
        let first = images.first().ok_or_else(nothing)?;
        let deadline = self.clock.instant() + PATIENCE;
        let is_sent = |found: &Job| match (found.request(), batch.key) {
            (Some(found), Some(sent)) => found.is_same_request(&sent),
            (found, sent) => found.is_none() && sent.is_none(),
        };
        let object = parent(batch, first);
        let whole = self.create_job(&batch.name, &object, resend, is_sent, deadline)?;
        let filled = self.fill(batch, &images, &whole.job, resend, deadline);
        let completed = filled.and_then(|jobs| {
            let complete = json!({COMPLETE_ANNOTATION: self.clock.now().to_string()});
            let whole = self.change_job(&whole.job, Condition::Whatever, complete, None);
            Ok((whole.map_err(cut_off)?, jobs))
        });
        let (complete, jobs) = completed.map_err(|error| match error {
            // An earlier send may have completed it, and its jobs may run; or may make it again.
            CreateError::Incomplete(e) if resend == Resend::Again || whole.may_come_again => {
                let message = e.to_string();
                CreateError::Unanswered(BackendError::Unanswered { message })
            }
            error => error,
        })?;
        Ok(CreatedBatch {
            whole: complete,
            jobs,
            may_come_again: whole.may_come_again,
        })
    }

    /// Makes what the batch's parent owns, as far as it is not there.
    fn fill(
        &self,
        batch: &NewBatch,
        images: &[String],
        parent: &Job,
        resend: Resend,
        deadline: Instant,
    ) -> Result<Vec<Created>, CreateError> {
        let places = places(batch.jobs.iter().map(|job| job.payload.map(str::len)));
        let secrets = places.iter().flatten().max().map_or(0, |last| last + 1);
        self.side_by_side((0..secrets).collect(), |number| {
            let object = secret(batch, parent, *number, &places);
            let send = || self.calls.create_unread(&self.secrets(), &object, deadline);
            exists(repeat(Resend::First, send)).map_err(cut_off)
        })?;
        let jobs = batch.jobs.iter().zip(images).zip(places).zip(0..);
        self.side_by_side(jobs.collect(), |(((job, image), place), index)| {
            let object = member(
                batch,
                parent,
                job,
                image,
                (*index, *place),
                &self.pull_secrets,
            );
            // Not one of an earlier parent of its name, which may be there for a while after it.
            let is_sent = |found: &Job| {
                let arrival = arrival_of(parent, *index);
                found.batch_of() == Some(&batch.name) && found.arrival == arrival
            };
            let made = self.create_job(&job.name, &object, resend, is_sent, deadline);
            made.map_err(of_a_part)
        })
    }

    /// Does what is asked of each, several at once. The first failure ends it.
    fn side_by_side<T: Sync, R: Send>(
        &self,
        items: Vec<T>,
        work: impl Fn(&T) -> Result<R, CreateError> + Sync,
    ) -> Result<Vec<R>, CreateError> {
        let (next, failure) = (AtomicUsize::new(0), Lock::new(None));
        let done = Lock::new(Vec::with_capacity(items.len()));
        let run = || {
            while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                match work(item) {
                    Ok(made) => done.lock().push(made),
                    Err(e) => {
                        next.store(items.len(), Ordering::Relaxed);
                        // What may have been done counts for more than what was not.
                        let mut failure = failure.lock();
                        if failure.is_none() || matches!(e, CreateError::Unanswered(_)) {
                            *failure = Some(e);
                        }
                    }
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..self.writes.min(items.len()) {
                let builder = thread::Builder::new().name("batch".to_string());
                // Without them it takes longer.
                let _ = builder.stack_size(STACK_BYTES).spawn_scoped(scope, run);
            }
            run();
        });
        let (failure, done) = (failure.lock().take(), std::mem::take(&mut *done.lock()));
        failure.map_or(Ok(done), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::kubernetes::api::{self, Api, ApiError};
    use crate::clock::Clock;
    use crate::config::{self, JobComponent};
    use crate::golden;
    use crate::job::{JobName, Queued};
    use crate::metrics::Metrics;
    use serde_json::Value;
    use std::io::{self, Read};
    use std::sync::Arc;

    /// An API server that makes whatever it is asked for, but for what it refuses.
    #[derive(Default)]
    struct Server {
        /// Method and path, and body, of what it was asked.
        calls: Lock<Vec<(String, Value)>>,
        /// What it answers to an object of this name.
        refused: Option<(String, u16, &'static str)>,
        /// The arrival of the jobs that it has already, instead of making them.
        found: Option<u64>,
    }

    impl Api for Server {
        fn send(&self, call: &api::Call) -> Result<Vec<u8>, ApiError> {
            let (_, body) = call.body.unwrap_or_default();
            let body: Value = serde_json::from_slice(body).unwrap_or_default();
            let name = format!("{} {}", call.method, call.path);
            self.calls.lock().push((name, body.clone()));
            if let Some((name, code, reason)) = &self.refused
                && body["metadata"]["name"] == name.as_str()
            {
                return Err(ApiError::Status {
                    call: call.name(),
                    code: *code,
                    reason: reason.to_string(),
                    message: "exceeded quota: few".to_string(),
                    fields: vec![],
                });
            }
            let name = call.path.rsplit('/').next().unwrap();
            let is_member = body["metadata"]["labels"]["job-scheduler/batch"].is_string();
            if self.found.is_some() && call.method == "POST" && is_member {
                return Err(ApiError::Status {
                    call: call.name(),
                    code: 409,
                    reason: "AlreadyExists".to_string(),
                    message: "jobs.batch already exists".to_string(),
                    fields: vec![],
                });
            }
            let found = self.found.filter(|_| call.method == "GET");
            let arrival = found.unwrap_or(7).to_string();
            let annotations = json!({"job-scheduler/arrival": arrival});
            let labels = found.map(|_| json!({"job-scheduler/batch": BATCH}));
            let answer = json!({
                "metadata": {
                    "name": body["metadata"]["name"].as_str().unwrap_or(name),
                    "uid": "u", "resourceVersion": "8", "annotations": annotations,
                    "labels": labels.unwrap_or(json!({})),
                    "creationTimestamp": "2021-04-07T11:55:56Z",
                },
                "spec": {}, "status": {},
            });
            Ok(answer.to_string().into_bytes())
        }

        fn open(&self, call: &api::Call) -> Result<(api::Format, Box<dyn Read + Send>), ApiError> {
            let bytes = self.send(call)?;
            Ok((api::Format::Json, Box::new(io::Cursor::new(bytes))))
        }
    }

    const BATCH: &str = "batch-compute8f3kq9x2a-20260821092649-hrwl53mw";

    fn component() -> JobComponent {
        let config = config::load(&golden::testdata("objects/full.yaml")).unwrap();
        let mut components = config.job_components("dev").unwrap();
        components.retain(|component| component.payload_path.is_some());
        components.remove(0)
    }

    /// What is asked for a batch with these payloads, and what comes of it.
    fn asked(
        payloads: &[Option<&str>],
        server: Server,
    ) -> (Result<CreatedBatch, CreateError>, Server) {
        let component = component();
        let name = JobName::parse(BATCH).unwrap();
        let names = crate::batch::job_names(&name, payloads.len()).unwrap();
        let jobs = names.into_iter().zip(payloads).zip(0..);
        let jobs: Vec<NewJob> = jobs
            .map(|((name, payload), arrival)| NewJob {
                name,
                component: &component,
                settings: &component.settings,
                job_id: None,
                payload: *payload,
                key: None,
                priority: 0,
                queued: Some(Queued {
                    priority: 0,
                    arrival,
                }),
            })
            .collect();
        let batch = NewBatch {
            name,
            component: &component,
            batch_id: Some("mine"),
            jobs: &jobs,
            key: None,
            arrival: 7,
        };
        let server = Arc::new(server);
        let metrics = Arc::new(Metrics::default());
        let (api, clock) = (server.clone(), Clock::real());
        let backend = Kubernetes::new(api, clock, component.clone(), vec![], metrics);
        let backend = match server.refused {
            Some(_) => backend.one_write_at_a_time(),
            None => backend,
        };
        let resend = match server.found {
            Some(_) => Resend::Again,
            None => Resend::First,
        };
        let created = backend.make_batch(&batch, resend);
        drop(backend);
        (created, Arc::into_inner(server).unwrap())
    }

    #[test]
    fn payloads_fill_one_secret_after_the_other() {
        const MOST: Option<usize> = Some(SECRET_BYTES);
        let check = |sizes: &[Option<usize>], expected: &[Option<usize>]| {
            assert_eq!(places(sizes.iter().copied()), expected, "{sizes:?}");
        };
        check(&[], &[]);
        check(&[None, Some(0), None], &[None, Some(0), None]);
        check(&[MOST, Some(0), Some(1)], &[Some(0), Some(0), Some(1)]);
        check(&[Some(1), MOST, Some(1)], &[Some(0), Some(1), Some(2)]);
        check(&[MOST; 3], &[Some(0), Some(1), Some(2)]);
    }

    #[test]
    fn a_batch_is_complete_once_all_of_it_is_there() {
        let large = "x".repeat(SECRET_BYTES - 1);
        let (created, server) = asked(
            &[Some("a"), None, Some(&large), Some("b")],
            Server::default(),
        );
        assert_eq!(created.unwrap().whole.name.as_str(), BATCH);
        let calls = server.calls.lock();
        let kinds = calls.iter().map(|(call, _)| {
            let (method, path) = call.split_once(' ').unwrap();
            let path = path.trim_end_matches(&format!("/{BATCH}"));
            format!("{method} {}", path.rsplit('/').next().unwrap())
        });
        let kinds: Vec<String> = kinds.collect();
        let jobs = ["POST jobs"; 4];
        let expected = [
            &["POST jobs", "POST secrets", "POST secrets"][..],
            &jobs,
            &["PATCH jobs"],
        ];
        assert_eq!(kinds, expected.concat());

        let body = |name: &str| {
            let mut calls = calls.iter();
            let found = calls.find(|(_, body)| body["metadata"]["name"] == name);
            &found.unwrap().1
        };
        let parent = body(BATCH);
        assert_eq!(parent["spec"]["suspend"], true);
        assert_eq!(parent["spec"]["parallelism"], 0);
        assert_eq!(parent["spec"]["managedBy"], "job-scheduler/batch");
        assert_eq!(
            parent["metadata"]["annotations"],
            json!({
                "job-scheduler/batch-size": "4", "job-scheduler/batch-id": "mine",
                "job-scheduler/arrival": "7",
            })
        );
        let names = crate::batch::job_names(&JobName::parse(BATCH).unwrap(), 4).unwrap();
        let [first, second, third, fourth] = &names[..] else {
            panic!("four");
        };
        let member = body(first.as_str());
        assert_eq!(member["spec"]["suspend"], true);
        assert_eq!(member["metadata"]["labels"]["job-scheduler/batch"], BATCH);
        assert_eq!(member["metadata"]["ownerReferences"][0]["uid"], "u");
        assert_eq!(
            member["metadata"]["annotations"]["job-scheduler/index"],
            "0"
        );
        let payload = |job: &JobName| {
            let volumes = body(job.as_str()).pointer("/spec/template/spec/volumes");
            let mut volumes = volumes.and_then(Value::as_array).into_iter().flatten();
            let own = volumes.find(|volume| volume["name"] == "job-payload")?;
            let secret = own["secret"]["secretName"].as_str()?;
            let key = own.pointer("/secret/items/0/key")?.as_str()?;
            let data = body(secret)["data"][key].as_str()?;
            Some((secret.to_string(), data.len()))
        };
        let in_secret = |number: usize| format!("{BATCH}-payloads-u-{number}");
        assert_eq!(payload(first), Some((in_secret(0), 4)));
        assert_eq!(payload(second), None);
        assert_eq!(
            payload(third),
            Some((in_secret(0), (SECRET_BYTES - 1).div_ceil(3) * 4))
        );
        assert_eq!(payload(fourth), Some((in_secret(1), 4)));
        let (_, complete) = calls.last().unwrap();
        assert_eq!(complete["metadata"]["uid"], "u");
        let annotations = complete["metadata"]["annotations"].as_object().unwrap();
        assert_eq!(
            annotations.keys().collect::<Vec<_>>(),
            ["job-scheduler/complete"]
        );
    }

    #[test]
    fn jobs_that_are_there_are_of_the_batch_if_they_came_with_its_parent() {
        let found = |arrival| {
            let server = Server {
                found: Some(arrival),
                ..Server::default()
            };
            let (created, server) = asked(&[None], server);
            let calls = server.calls.lock();
            let is_complete = calls.iter().any(|(call, _)| call.starts_with("PATCH"));
            (created, is_complete)
        };
        let (created, is_complete) = found(8);
        assert!(created.is_ok() && is_complete, "{created:?}");
        // It was an earlier parent's, and goes.
        let (created, is_complete) = found(9);
        assert!(
            matches!(created, Err(CreateError::Unanswered(_))) && !is_complete,
            "{created:?}"
        );
    }

    #[test]
    fn a_batch_of_which_a_part_is_refused_is_never_complete() {
        let name = JobName::parse(BATCH).unwrap();
        let names = crate::batch::job_names(&name, 100).unwrap();
        let check = |name: &str, code: u16, reason: &'static str| {
            let refused = Some((name.to_string(), code, reason));
            let server = Server {
                refused,
                ..Server::default()
            };
            let (created, server) = asked(&[Some("a"); 100], server);
            let calls = server.calls.lock();
            assert!(!calls.iter().any(|(call, _)| call.starts_with("PATCH")));
            (created.unwrap_err(), calls.len())
        };
        let (error, calls) = check(names[50].as_str(), 403, "Forbidden");
        assert!(matches!(error, CreateError::Incomplete(e) if e.to_string().contains("few")));
        assert_eq!(calls, 2 + 51);
        let (error, _) = check(names[50].as_str(), 500, "InternalError");
        assert!(matches!(error, CreateError::Unanswered(_)), "{error:?}");
        let (error, calls) = check(BATCH, 403, "Forbidden");
        assert!(matches!(error, CreateError::Nothing(_)), "{error:?}");
        assert_eq!(calls, 1);
        let (error, calls) = check(&format!("{BATCH}-payloads-u-0"), 403, "Forbidden");
        assert!(matches!(error, CreateError::Incomplete(_)), "{error:?}");
        assert_eq!(calls, 2);
    }
}
