//! What is read of Kubernetes' objects: only the fields that are used, since decoding whole Jobs is
//! slow and large.
//!
//! An object comes as JSON in the answer to a call, and in protobuf from a watch.

mod numbered;

pub use numbered::{Event, decode_object};

use crate::config::{ExitCodes, FailureAction, FailureRule};
use crate::finished::Retries;
use crate::job::{
    Attempt, AttemptState, BatchPart, Job, JobName, JobResult, MAX_RESULT_BYTES, Progress, Queued,
    RareFields, RequestKey, Sent, Status, Timestamp, uid_digest,
};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The name of the Secret with the job's payload: its own name, unless it uses the payload of
/// another. Tells a crash between the two writes.
pub const PAYLOAD_ANNOTATION: &str = "job-scheduler/payload";
/// That its request, sent again, is about to store the payload, and when it did: whoever is about
/// to delete the job for the lack of it finds it changed.
pub const STORED_ANNOTATION: &str = "job-scheduler/stored";
/// A place in the queue, `<priority>/<arrival>`: the scheduler suspended the job and will resume
/// it.
pub const QUEUED_ANNOTATION: &str = "job-scheduler/queued";
/// When somebody stopped the job: it is suspended for that.
pub const STOPPED_ANNOTATION: &str = "job-scheduler/stopped";
/// Why the scheduler stopped the job, where nobody had asked for it.
pub const STOP_REASON_ANNOTATION: &str = "job-scheduler/stop-reason";
/// The time of the condition Suspended that the job was last let run over: a condition of that time
/// is not the work of a later stop, which the job controller has then not noticed.
pub const EARLIER_SUSPENSION_ANNOTATION: &str = "job-scheduler/earlier-suspension";
/// When the job was last restarted in place.
pub const RESTARTED_ANNOTATION: &str = "job-scheduler/restarted";
/// The finished job that this one does again.
pub const RESTART_OF_ANNOTATION: &str = "job-scheduler/restart-of";
/// Deleted for its users; kept for its payload, which another job uses.
pub const HIDDEN_ANNOTATION: &str = "job-scheduler/deleted";
/// Digests of the request's idempotency key and body, 32 hexadecimal digits each, and when the job
/// was sent.
pub const KEY_ANNOTATION: &str = "job-scheduler/idempotency";
/// Orders jobs by when they came, within a second too: microseconds since 1970.
pub const ARRIVAL_ANNOTATION: &str = "job-scheduler/arrival";
/// How far the job is, by its own word: `<percent>/<when>/<message>`.
pub const PROGRESS_ANNOTATION: &str = "job-scheduler/progress";
/// Of the Job that stands for a batch: how many jobs it has.
pub const BATCH_SIZE_ANNOTATION: &str = "job-scheduler/batch-size";
/// The caller's own name for the batch.
pub const BATCH_ID_ANNOTATION: &str = "job-scheduler/batch-id";
/// Since when all of the batch is there: without it none of it is.
pub const COMPLETE_ANNOTATION: &str = "job-scheduler/complete";
/// Of a batch's job: its batch, and its place in it, from 0.
pub const BATCH_LABEL: &str = "job-scheduler/batch";
pub const INDEX_ANNOTATION: &str = "job-scheduler/index";
/// The caller's own name for the job.
pub const JOB_ID_ANNOTATION: &str = "job-scheduler/job-id";
/// Of a pod: its job component, which is also the name of the job's own container.
const CONTAINER_LABEL: &str = super::COMPONENT_LABEL;
/// The label by which Kubernetes ties a pod to its Job.
pub const JOB_NAME_LABEL: &str = "batch.kubernetes.io/job-name";
/// The same by the Job's uid.
const JOB_UID_LABEL: &str = "batch.kubernetes.io/controller-uid";

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    #[serde(deserialize_with = "time")]
    pub creation_timestamp: Option<Timestamp>,
    #[serde(deserialize_with = "time")]
    pub deletion_timestamp: Option<Timestamp>,
    #[serde(deserialize_with = "known")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "known")]
    pub annotations: BTreeMap<String, String>,
}

impl Metadata {
    /// What a Job has to do with a batch.
    fn batch_part(&self) -> Option<BatchPart> {
        let annotation = |name: &str| self.annotations.get(name).map(String::as_str);
        let number = |name: &str| annotation(name).map(|text| text.parse().unwrap_or(0));
        if let Some(size) = number(BATCH_SIZE_ANNOTATION) {
            return Some(BatchPart::Whole {
                id: annotation(BATCH_ID_ANNOTATION).map(Into::into),
                size,
                is_complete: annotation(COMPLETE_ANNOTATION).is_some(),
            });
        }
        Some(BatchPart::Member {
            of: JobName::parse(self.labels.get(BATCH_LABEL)?)?,
            index: number(INDEX_ANNOTATION).unwrap_or(0),
            payload: annotation(PAYLOAD_ANNOTATION).map(Into::into),
        })
    }
}

/// What every annotation of ours begins with.
const OWN_PREFIX: &str = "job-scheduler/";

/// Whether a label or annotation is read here, by its key.
fn is_read(key: &str) -> bool {
    [JOB_NAME_LABEL, JOB_UID_LABEL, CONTAINER_LABEL].contains(&key) || key.starts_with(OWN_PREFIX)
}

/// Those of the labels and annotations that are read here: the others are most, and to keep them
/// costs.
fn known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Known;

    impl<'de> Visitor<'de> for Known {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("an object of strings")
        }

        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
            let mut kept = BTreeMap::new();
            while let Some(Key(key)) = map.next_key()? {
                match key {
                    Some(key) => drop(kept.insert(key, map.next_value()?)),
                    None => drop(map.next_value::<IgnoredAny>()?),
                }
            }
            Ok(kept)
        }
    }

    deserializer.deserialize_map(Known)
}

/// A key, if it is one that is read here.
struct Key(Option<String>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E>(self, text: &str) -> Result<Key, E> {
                Ok(Key(is_read(text).then(|| text.to_string())))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct JobObject {
    pub metadata: Metadata,
    spec: JobSpec,
    status: JobStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct JobSpec {
    suspend: bool,
    backoff_limit: u32,
    pod_failure_policy: Option<Policy>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Policy {
    rules: Vec<PolicyRule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PolicyRule {
    action: String,
    on_exit_codes: Option<OnExitCodes>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OnExitCodes {
    container_name: Option<String>,
    operator: String,
    values: Vec<i32>,
}

impl JobSpec {
    /// What follows from failed attempts; `None` if a rule is of a kind that this scheduler does not
    /// write.
    fn retries(&self) -> Option<Retries> {
        let rules = self
            .pod_failure_policy
            .iter()
            .flat_map(|policy| &policy.rules);
        let rules = rules.map(PolicyRule::read).collect::<Option<Vec<_>>>()?;
        Some(Retries {
            backoff_limit: self.backoff_limit,
            rules: rules.into(),
        })
    }
}

impl PolicyRule {
    fn read(&self) -> Option<FailureRule> {
        let codes = self.on_exit_codes.as_ref()?;
        let actions = [
            FailureAction::FailJob,
            FailureAction::Ignore,
            FailureAction::Count,
        ];
        let action = actions.into_iter().find(|a| a.as_str() == self.action)?;
        let on_exit_codes = match (codes.container_name.as_ref(), codes.operator.as_str()) {
            (None, "In") => ExitCodes::In(codes.values.clone()),
            (None, "NotIn") => ExitCodes::NotIn(codes.values.clone()),
            _ => return None,
        };
        Some(FailureRule {
            action,
            on_exit_codes,
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct JobStatus {
    #[serde(deserialize_with = "time")]
    start_time: Option<Timestamp>,
    #[serde(deserialize_with = "time")]
    completion_time: Option<Timestamp>,
    failed: u32,
    active: u32,
    terminating: u32,
    conditions: Vec<Condition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Condition {
    r#type: String,
    status: String,
    reason: String,
    message: String,
    #[serde(deserialize_with = "time")]
    last_transition_time: Option<Timestamp>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodObject {
    pub metadata: Metadata,
    spec: PodSpec,
    status: PodStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodSpec {
    active_deadline_seconds: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodStatus {
    phase: String,
    reason: String,
    message: String,
    #[serde(deserialize_with = "time")]
    start_time: Option<Timestamp>,
    conditions: Vec<Condition>,
    container_statuses: Vec<ContainerStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ContainerStatus {
    name: String,
    state: ContainerState,
    restart_count: u32,
    image: String,
    #[serde(rename = "imageID")]
    image_id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerState {
    waiting: Option<Reason>,
    running: Option<Running>,
    terminated: Option<Terminated>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reason {
    reason: String,
    message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Running {
    #[serde(deserialize_with = "time")]
    started_at: Option<Timestamp>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Terminated {
    exit_code: i32,
    reason: String,
    message: String,
    #[serde(deserialize_with = "time")]
    started_at: Option<Timestamp>,
    #[serde(deserialize_with = "time")]
    finished_at: Option<Timestamp>,
}

/// What a container that ran comes to its end by. Any other reason is a runtime's or a kubelet's for
/// one that did not run, or was lost.
const ENDS_OF_ITS_OWN: [&str; 3] = ["Completed", "Error", "OOMKilled"];
/// What a kubelet says instead of the file's content.
const UNREADABLE: &str = "Error on reading termination log ";

impl Terminated {
    /// Whether the message is what the container wrote, and not what others say of its end: those
    /// that did not run, which began in 1970, have nothing written.
    fn is_written_by_itself(&self) -> bool {
        let has_run = self.started_at.is_some_and(|at| at > Timestamp::at(0));
        has_run
            && ENDS_OF_ITS_OWN.contains(&self.reason.as_str())
            && !self.message.starts_with(UNREADABLE)
    }

    /// A kubelet gives the last 4,096 bytes, and does not tell whether there were others.
    fn result(&self) -> Option<Box<JobResult>> {
        let may_be_cut = self.message.len() >= MAX_RESULT_BYTES;
        JobResult::new(&self.message, may_be_cut).filter(|_| self.is_written_by_itself())
    }

    /// Why it has ended, as far as somebody else tells.
    fn explanation(&self) -> &str {
        match self.is_written_by_itself() {
            true => "",
            false => &self.message,
        }
    }
}

/// RFC 3339; one that is not is none.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.as_deref().and_then(Timestamp::parse))
}

/// Kubernetes documents resourceVersion as a decimal number that grows with each change of an
/// object.
///
/// Source: <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>
fn version(metadata: &Metadata) -> u64 {
    metadata.resource_version.parse().unwrap_or(0)
}

/// A place in the queue as it is kept with the job.
pub fn queued_text(queued: Queued) -> String {
    format!("{}/{}", queued.priority, queued.arrival)
}

fn parse_queued(text: &str) -> Option<Queued> {
    let (priority, arrival) = text.split_once('/')?;
    Some(Queued {
        priority: priority.parse().ok()?,
        arrival: arrival.parse().ok()?,
    })
}

/// How far a job is, as it is kept with it.
pub fn progress_text(progress: &Progress) -> String {
    let Progress {
        percent,
        message,
        updated,
    } = progress;
    format!("{percent}/{updated}/{message}")
}

fn parse_progress(text: &str) -> Option<Progress> {
    let (percent, rest) = text.split_once('/')?;
    let (updated, message) = rest.split_once('/')?;
    Some(Progress {
        percent: percent.parse().ok().filter(|percent| *percent <= 100)?,
        message: message.into(),
        updated: Timestamp::parse(updated)?,
    })
}

/// A request's key as it is kept with the job.
pub fn key_text(key: RequestKey) -> String {
    let Sent { version, micros } = key.sent;
    format!("{:032x}{:032x}/{version}/{micros}", key.key, key.body)
}

fn parse_key(text: &str) -> Option<RequestKey> {
    let (text, sent) = text.split_once('/')?;
    let (version, micros) = sent.split_once('/')?;
    let hex = |part: Option<&str>| u128::from_str_radix(part?, 16).ok();
    Some(RequestKey {
        key: hex(text.get(..32))?,
        body: hex(text.get(32..))?,
        sent: Sent {
            version: version.parse().ok()?,
            micros: micros.parse().ok()?,
        },
    })
}

impl JobObject {
    /// The record of this Job; `None` if its name cannot be one of ours.
    pub fn into_job(self) -> Option<Job> {
        let name = JobName::parse(&self.metadata.name)?;
        let annotation = |name: &str| self.metadata.annotations.get(name).map(String::as_str);
        let batch = self.metadata.batch_part();
        let met = |kind: &str| {
            self.status
                .conditions
                .iter()
                .find(|c| c.r#type == kind && c.status == "True")
        };
        let condition_time = |c: Option<&Condition>| c.and_then(|c| c.last_transition_time);
        let (complete, failed, suspended) = (met("Complete"), met("Failed"), met("Suspended"));
        let stopped = annotation(STOPPED_ANNOTATION).map(Timestamp::parse);
        let queued = annotation(QUEUED_ANNOTATION).and_then(parse_queued);
        let has_pods = self.status.active + self.status.terminating > 0;
        let suspension = condition_time(suspended);
        let earlier = annotation(EARLIER_SUSPENSION_ANNOTATION).and_then(Timestamp::parse);
        let is_earlier = suspension.is_some() && suspension == earlier;
        let status = match (complete, failed, self.spec.suspend, stopped) {
            (Some(_), ..) => Status::Succeeded,
            (None, Some(_), ..) => Status::Failed,
            (None, None, true, Some(_)) if has_pods || suspended.is_none() || is_earlier => {
                Status::Stopping
            }
            (None, None, true, Some(_)) => Status::Stopped,
            (None, None, true, None) => Status::Waiting,
            (None, None, false, _) => Status::Running,
        };
        let finished = match status {
            Status::Succeeded => self.status.completion_time.or(condition_time(complete)),
            Status::Failed => condition_time(failed),
            // A job that was stopped in the queue had been suspended before.
            Status::Stopped => suspension.max(stopped.flatten()),
            // That of a batch is kept with it as it leaves its users' sight.
            Status::Waiting | Status::Running | Status::Stopping => batch
                .as_ref()
                .and(annotation(HIDDEN_ANNOTATION))
                .and_then(Timestamp::parse),
        };
        let message = match (status, failed) {
            (Status::Failed, Some(condition)) if condition.message.is_empty() => condition.reason.clone(),
            (Status::Failed, Some(condition)) => format!("{}: {}", condition.reason, condition.message),
            (Status::Waiting, _) if queued.is_none() => {
                "suspended by somebody else, as kubectl does: it goes on once its spec.suspend is false".to_string()
            }
            (Status::Stopping | Status::Stopped, _) => {
                annotation(STOP_REASON_ANNOTATION).unwrap_or_default().to_string()
            }
            _ => String::new(),
        };
        let secret = annotation(PAYLOAD_ANNOTATION);
        let hidden = annotation(HIDDEN_ANNOTATION).is_some();
        let created = self.metadata.creation_timestamp?;
        let arrival = annotation(ARRIVAL_ANNOTATION).and_then(|text| text.parse().ok());
        let rare = RareFields {
            message,
            payload_of: secret
                .filter(|secret| *secret != name.as_str() && batch.is_none())
                .and_then(JobName::parse),
            restarted: annotation(RESTARTED_ANNOTATION).and_then(Timestamp::parse),
            restart_of: annotation(RESTART_OF_ANNOTATION).and_then(JobName::parse),
            batch,
            ..RareFields::NONE
        };
        Some(Job {
            uid: self.metadata.uid.as_str().into(),
            job_id: annotation(JOB_ID_ANNOTATION).map(Into::into),
            created,
            // One of an earlier scheduler, or made by another hand, has none.
            arrival: arrival.unwrap_or(created.micros()),
            started: self.status.start_time,
            finished,
            status,
            suspension,
            is_suspension_earlier: is_earlier,
            failed: self.status.failed,
            retries: self.spec.retries(),
            has_payload: secret.is_some(),
            // One that its users do not see any more is not let run.
            queued: queued.filter(|_| status == Status::Waiting && !hidden),
            key: annotation(KEY_ANNOTATION).and_then(parse_key).map(Box::new),
            is_rerun: annotation(RESTARTED_ANNOTATION).is_some()
                || (stopped.is_some() && !self.spec.suspend),
            hidden,
            progress: annotation(PROGRESS_ANNOTATION)
                .and_then(parse_progress)
                .map(Arc::new),
            version: version(&self.metadata),
            rare: rare.into(),
            name,
        })
    }
}

/// Reasons for which a container waits and which are no more than its usual way.
const STARTING: [&str; 3] = ["", "ContainerCreating", "PodInitializing"];

impl PodObject {
    /// Whether the end of its own container is beyond doubt what becomes of the pod: nobody and
    /// nothing is ending it, its time was not over, and what was put beside it has ended well.
    fn ends_with(&self, own: &Terminated, is_over: bool) -> bool {
        let status = &self.status;
        let is_disrupted = |c: &Condition| c.r#type == "DisruptionTarget" && c.status == "True";
        let is_well = |c: &ContainerStatus| {
            let ended = c.state.terminated.as_ref();
            ended.is_some_and(|ended| ended.exit_code == 0 || std::ptr::eq(ended, own))
        };
        let is_in_time = match (self.spec.active_deadline_seconds, status.start_time) {
            (None, _) => true,
            (Some(seconds), Some(start)) => own
                .finished_at
                .is_some_and(|at| at.seconds() < start.seconds().saturating_add(seconds)),
            (Some(_), None) => false,
        };
        self.metadata.deletion_timestamp.is_none()
            && !status.conditions.iter().any(is_disrupted)
            && status.container_statuses.iter().all(is_well)
            && (is_in_time || is_over)
    }

    /// The job that this pod is an attempt of, and the attempt; `None` if it is no job's.
    pub fn into_attempt(self) -> Option<(JobName, Attempt)> {
        let job = JobName::parse(self.metadata.labels.get(JOB_NAME_LABEL)?)?;
        // Others may have been put beside it, and Kubernetes sorts them by name.
        let own = self.metadata.labels.get(CONTAINER_LABEL);
        let container = match self.status.container_statuses.as_slice() {
            [only] => Some(only),
            all => all.iter().find(|container| Some(&container.name) == own),
        };
        let state = container.map(|c| &c.state);
        let terminated = state.and_then(|s| s.terminated.as_ref());
        let waiting = state
            .and_then(|s| s.waiting.as_ref())
            .filter(|w| !STARTING.contains(&w.reason.as_str()));
        let unscheduled = self
            .status
            .conditions
            .iter()
            .find(|c| c.r#type == "PodScheduled" && c.status == "False");

        let is_over = matches!(self.status.phase.as_str(), "Succeeded" | "Failed");
        let is_certain = terminated.is_some_and(|t| self.ends_with(t, is_over));
        let (attempt_state, reason, message) = match self.status.phase.as_str() {
            "Succeeded" => (AttemptState::Succeeded, "", ""),
            // What the pod says goes first: it names a time limit or an eviction that the container
            // cannot know of.
            "Failed" if !self.status.reason.is_empty() => (
                AttemptState::Failed,
                self.status.reason.as_str(),
                self.status.message.as_str(),
            ),
            "Failed" => terminated.map_or((AttemptState::Failed, "", ""), |t| {
                (AttemptState::Failed, t.reason.as_str(), t.explanation())
            }),
            _ if is_certain && terminated.is_some_and(|t| t.exit_code == 0) => {
                (AttemptState::Succeeded, "", "")
            }
            _ if is_certain => terminated.map_or((AttemptState::Failed, "", ""), |t| {
                (AttemptState::Failed, t.reason.as_str(), t.explanation())
            }),
            // Its end is not the pod's yet.
            _ if terminated.is_some() => (AttemptState::Running, "", ""),
            _ => match (waiting, unscheduled, state.and_then(|s| s.running.as_ref())) {
                (Some(waiting), _, _) => (
                    AttemptState::Failing,
                    waiting.reason.as_str(),
                    waiting.message.as_str(),
                ),
                (_, Some(condition), _) => (
                    AttemptState::Failing,
                    condition.reason.as_str(),
                    condition.message.as_str(),
                ),
                (_, _, Some(_)) => (AttemptState::Running, "", ""),
                _ => (AttemptState::Pending, "", ""),
            },
        };
        let started = match state {
            Some(ContainerState {
                terminated: Some(t),
                ..
            }) => t.started_at,
            Some(ContainerState {
                running: Some(r), ..
            }) => r.started_at,
            _ => None,
        };
        let attempt = Attempt {
            name: self.metadata.name.as_str().into(),
            job_uid: self
                .metadata
                .labels
                .get(JOB_UID_LABEL)
                .map(|uid| uid_digest(uid)),
            created: self
                .metadata
                .creation_timestamp
                .or(self.status.start_time)?,
            started,
            finished: terminated.and_then(|t| t.finished_at),
            state: attempt_state,
            is_over,
            is_certain,
            exit_code: terminated.map(|t| t.exit_code),
            reason: reason.into(),
            message: message.into(),
            image: container.map_or("", |c| c.image.as_str()).into(),
            image_id: container.map_or("", |c| c.image_id.as_str()).into(),
            restarts: container.map_or(0, |c| c.restart_count),
            result: terminated.and_then(Terminated::result),
            version: version(&self.metadata),
        };
        Some((job, attempt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(spec: &str, status: &str) -> Job {
        let text = format!(
            r#"{{"metadata":{{"name":"compute-1","uid":"u","resourceVersion":"42",
                "creationTimestamp":"2021-04-07T09:08:37Z",
                "annotations":{{"job-scheduler/payload":"compute-1","job-scheduler/job-id":"mine"}}}},
                "spec":{spec},"status":{status}}}"#
        );
        serde_json::from_str::<JobObject>(&text)
            .unwrap()
            .into_job()
            .unwrap()
    }

    #[test]
    fn a_jobs_conditions_are_its_status() {
        let condition = |kind: &str, status: &str| {
            format!(
                r#"{{"startTime":"2021-04-07T09:08:37Z","conditions":[{{"type":"{kind}","status":"{status}",
                    "reason":"BackoffLimitExceeded","message":"too often",
                    "lastTransitionTime":"2021-04-07T09:08:45Z"}}]}}"#
            )
        };
        let check = |spec: &str, status: &str, expected: Status, ended: Option<i64>| {
            let job = job(spec, status);
            assert_eq!(
                (
                    job.status,
                    job.finished.map(|t| t.seconds_since(job.created))
                ),
                (expected, ended),
                "{status}"
            );
        };
        check("{}", "{}", Status::Running, None);
        check(r#"{"suspend":true}"#, "{}", Status::Waiting, None);
        check(
            "{}",
            &condition("Complete", "True"),
            Status::Succeeded,
            Some(8),
        );
        check("{}", &condition("Failed", "True"), Status::Failed, Some(8));
        check(
            "{}",
            &condition("FailureTarget", "True"),
            Status::Running,
            None,
        );
        check("{}", &condition("Failed", "False"), Status::Running, None);
        let failed = job("{}", &condition("Failed", "True"));
        assert_eq!(failed.rare.message, "BackoffLimitExceeded: too often");
        assert_eq!(
            (failed.version, failed.has_payload, failed.job_id.as_deref()),
            (42, true, Some("mine"))
        );
    }

    #[test]
    fn a_suspended_job_is_waiting_or_stopped() {
        let check = |annotations: &str, status: &str, expected: Status| {
            let text = format!(
                r#"{{"metadata":{{"name":"compute-1","resourceVersion":"42",
                    "creationTimestamp":"2021-04-07T09:08:37Z","annotations":{{{annotations}}}}},
                    "spec":{{"suspend":true}},"status":{status}}}"#
            );
            let job = serde_json::from_str::<JobObject>(&text)
                .unwrap()
                .into_job()
                .unwrap();
            assert_eq!(job.status, expected, "{annotations} {status}");
            job
        };
        let suspended = r#""conditions":[{"type":"Suspended","status":"True",
            "lastTransitionTime":"2021-04-07T09:08:45Z"}]"#;
        let stopped = r#""job-scheduler/stopped":"2021-04-07T09:08:40Z""#;
        let job = check(r#""job-scheduler/queued":"-5/123""#, "{}", Status::Waiting);
        assert_eq!(
            job.queued,
            Some(Queued {
                priority: -5,
                arrival: 123
            })
        );
        assert!(
            check("", "{}", Status::Waiting)
                .rare
                .message
                .contains("somebody else")
        );
        check(stopped, r#"{"active":1}"#, Status::Stopping);
        check(
            stopped,
            &format!(r#"{{"terminating":1,{suspended}}}"#),
            Status::Stopping,
        );
        let let_run = |over: &str| {
            format!(r#"{stopped},"job-scheduler/earlier-suspension":"2021-04-07T09:08:{over}Z""#)
        };
        let status = format!("{{{suspended}}}");
        let job = check(&let_run("45"), &status, Status::Stopping);
        assert!(
            job.is_stop_unnoticed(),
            "the condition is of before it was let run"
        );
        check(&let_run("44"), &status, Status::Stopped);
        let job = check(stopped, &status, Status::Stopped);
        assert_eq!(job.finished.map(|t| t.seconds_since(job.created)), Some(8));
    }

    #[test]
    fn a_jobs_own_texts_come_back() {
        let (queued, key) = (
            Queued {
                priority: -100,
                arrival: u64::MAX,
            },
            RequestKey {
                key: 1,
                body: u128::MAX,
                sent: Sent {
                    version: 7,
                    micros: u64::MAX,
                },
            },
        );
        assert_eq!(parse_queued(&queued_text(queued)), Some(queued));
        assert_eq!(parse_key(&key_text(key)), Some(key));
        for message in ["", "epoch 3/10", "ä"] {
            let progress = Progress {
                percent: 30,
                message: message.into(),
                updated: Timestamp::at(1_617_796_556),
            };
            let text = progress_text(&progress);
            assert_eq!(parse_progress(&text), Some(progress), "{text}");
        }
        for bad in ["", "30", "30/", "30/now/", "101/2021-04-07T09:08:37Z/"] {
            assert_eq!(parse_progress(bad), None, "{bad}");
        }
        for bad in ["", "1", "x/1", "1/x", "1000/1"] {
            assert_eq!(parse_queued(bad), None, "{bad}");
        }
        for bad in ["", "00", "ä".repeat(40).as_str()] {
            assert_eq!(parse_key(bad), None, "{bad}");
        }
    }

    #[test]
    fn jobs_are_ordered_by_arrival_and_without_one_by_the_second_they_were_made_in() {
        let arrival = |annotations: &str| {
            let text = format!(
                r#"{{"metadata":{{"name":"compute-2","creationTimestamp":"2021-04-07T09:08:37Z",
                    "annotations":{{{annotations}}}}}}}"#
            );
            let job = serde_json::from_str::<JobObject>(&text).unwrap();
            job.into_job().unwrap().arrival
        };
        let known = r#""job-scheduler/arrival":"1617786517123456""#;
        assert_eq!(arrival(known), 1_617_786_517_123_456);
        for none in ["", r#""job-scheduler/arrival":"soon""#] {
            assert_eq!(arrival(none), 1_617_786_517_000_000);
        }
    }

    #[test]
    fn a_job_that_is_hidden_stands_in_no_queue() {
        let queued = |mark: &str| {
            let text = format!(
                r#"{{"metadata":{{"name":"compute-2","creationTimestamp":"2021-04-07T09:08:37Z",
                    "annotations":{{"job-scheduler/queued":"0/5"{mark}}}}},"spec":{{"suspend":true}}}}"#
            );
            let job = serde_json::from_str::<JobObject>(&text).unwrap();
            let job = job.into_job().unwrap();
            (job.status, job.hidden, job.queued.is_some())
        };
        assert_eq!(queued(""), (Status::Waiting, false, true));
        let mark = r#","job-scheduler/deleted":"2021-04-07T09:08:37Z""#;
        assert_eq!(queued(mark), (Status::Waiting, true, false));
    }

    #[test]
    fn a_container_that_has_ended_in_a_pod_on_its_way_out_is_not_one_that_waits() {
        let state = |deleted: &str| {
            let text = format!(
                r#"{{"metadata":{{"name":"p","creationTimestamp":"2021-04-07T09:08:37Z"{deleted},
                    "labels":{{"{JOB_NAME_LABEL}":"compute-2"}}}},
                    "status":{{"phase":"Running","containerStatuses":[{{"name":"c",
                    "state":{{"terminated":{{"exitCode":3,"finishedAt":"2021-04-07T09:08:38Z"}}}}}}]}}}}"#
            );
            let pod = serde_json::from_str::<PodObject>(&text).unwrap();
            let (_, attempt) = pod.into_attempt().unwrap();
            (attempt.state, attempt.is_certain)
        };
        assert_eq!(state(""), (AttemptState::Failed, true));
        let deleted = r#","deletionTimestamp":"2021-04-07T09:08:39Z""#;
        assert_eq!(state(deleted), (AttemptState::Running, false));
    }

    #[test]
    fn a_job_may_stand_for_a_batch_or_be_one_of_its() {
        let part = |labels: &str, annotations: &str| {
            let job: JobObject = serde_json::from_str(&format!(
                r#"{{"metadata":{{"name":"b-1","creationTimestamp":"2021-04-07T11:55:56Z",
                    "labels":{{{labels}}},"annotations":{{{annotations}}}}},"spec":{{"suspend":true}}}}"#
            ))
            .unwrap();
            job.into_job().unwrap()
        };
        assert_eq!(part("", "").rare.batch, None);
        let whole = part(
            "",
            r#""job-scheduler/batch-size":"3","job-scheduler/batch-id":"x""#,
        );
        let expected = |is_complete| BatchPart::Whole {
            id: Some("x".into()),
            size: 3,
            is_complete,
        };
        assert_eq!(whole.rare.batch, Some(expected(false)));
        assert_eq!(whole.batch(), Some(false));
        let complete = r#""job-scheduler/batch-size":"3","job-scheduler/batch-id":"x",
                          "job-scheduler/complete":"2021-04-07T11:55:57Z""#;
        assert_eq!(part("", complete).rare.batch, Some(expected(true)));
        let annotations = r#""job-scheduler/index":"7","job-scheduler/payload":"b-payloads-0""#;
        let member = part(r#""job-scheduler/batch":"b""#, annotations);
        assert_eq!(member.batch_of(), JobName::parse("b").as_ref());
        let of = JobName::parse("b").unwrap();
        let payload = Some("b-payloads-0".into());
        let index = 7;
        let expected = BatchPart::Member { of, index, payload };
        assert_eq!(member.rare.batch, Some(expected));
        assert!(member.has_payload && member.rare.payload_of.is_none());
    }

    #[test]
    fn a_payload_may_be_anothers() {
        let owner = |secret: &str| {
            let text = format!(
                r#"{{"metadata":{{"name":"compute-2","creationTimestamp":"2021-04-07T09:08:37Z",
                    "annotations":{{"job-scheduler/payload":"{secret}"}}}}}}"#
            );
            serde_json::from_str::<JobObject>(&text)
                .unwrap()
                .into_job()
                .unwrap()
                .rare
                .payload_of
                .clone()
        };
        assert_eq!(owner("compute-2"), None);
        assert_eq!(owner("compute-1"), JobName::parse("compute-1"));
    }

    #[test]
    fn a_pod_says_how_its_attempt_goes() {
        let check = |status: &str, expected: &str| {
            let text = format!(
                r#"{{"metadata":{{"name":"p","resourceVersion":"7","creationTimestamp":"2021-04-07T09:08:37Z",
                    "labels":{{"batch.kubernetes.io/job-name":"compute-1","radix-component":"compute"}}}},
                    "status":{status}}}"#
            );
            let (job, a) = serde_json::from_str::<PodObject>(&text)
                .unwrap()
                .into_attempt()
                .unwrap();
            assert_eq!(job.as_str(), "compute-1");
            assert_eq!(
                format!("{:?} {:?} {} {}", a.state, a.exit_code, a.reason, a.message).trim(),
                expected
            );
        };
        let container = |phase: &str, state: &str| {
            let other = r#"{"name":"a-sidecar","state":{"running":{}}}"#;
            format!(
                r#"{{"phase":"{phase}","containerStatuses":[{other},{{"name":"compute","state":{state}}}]}}"#
            )
        };
        check(r#"{"phase":"Pending"}"#, "Pending None");
        check(
            &container("Pending", r#"{"waiting":{"reason":"ContainerCreating"}}"#),
            "Pending None",
        );
        check(
            &container(
                "Pending",
                r#"{"waiting":{"reason":"ErrImagePull","message":"no such image"}}"#,
            ),
            "Failing None ErrImagePull no such image",
        );
        check(
            r#"{"phase":"Pending","conditions":[{"type":"PodScheduled","status":"False",
                "reason":"Unschedulable","message":"0/1 nodes"}]}"#,
            "Failing None Unschedulable 0/1 nodes",
        );
        check(
            &container(
                "Running",
                r#"{"running":{"startedAt":"2021-04-07T09:08:38Z"}}"#,
            ),
            "Running None",
        );
        check(
            &container(
                "Succeeded",
                r#"{"terminated":{"exitCode":0,"reason":"Completed"}}"#,
            ),
            "Succeeded Some(0)",
        );
        check(
            &container(
                "Failed",
                r#"{"terminated":{"exitCode":3,"reason":"Error"}}"#,
            ),
            "Failed Some(3) Error",
        );
        check(
            &container(
                "Failed",
                r#"{"terminated":{"exitCode":137,"reason":"OOMKilled"}}"#,
            ),
            "Failed Some(137) OOMKilled",
        );
        check(
            r#"{"phase":"Failed","reason":"DeadlineExceeded","message":"too long",
                "containerStatuses":[{"name":"compute","state":{"terminated":{"exitCode":143,"reason":"Error"}}}]}"#,
            "Failed Some(143) DeadlineExceeded too long",
        );
    }

    /// The message and the result of an attempt whose container ended so.
    #[track_caller]
    fn check_result(end: &str, message: &str, expected: &str, of_pod: &str) {
        let of_pod = match of_pod {
            // The container ends first, and the pod's phase follows.
            "" => [r#""phase":"Running","#, r#""phase":"Failed","#].as_slice(),
            of_pod => &[of_pod],
        };
        for of_pod in of_pod {
            check_result_in(end, message, expected, of_pod);
        }
    }

    #[track_caller]
    fn check_result_in(end: &str, message: &str, expected: &str, of_pod: &str) {
        let text = format!(
            r#"{{"metadata":{{"name":"p","creationTimestamp":"2021-04-07T09:08:37Z",
                "labels":{{"batch.kubernetes.io/job-name":"compute-1"}}}},
                "status":{{{of_pod}"containerStatuses":[{{"name":"compute",
                "state":{{"terminated":{{{end},"message":{}}}}}}}]}}}}"#,
            serde_json::to_string(message).unwrap()
        );
        let pod = serde_json::from_str::<PodObject>(&text).unwrap();
        let (_, attempt) = pod.into_attempt().unwrap();
        let result = attempt.result.map_or(String::new(), |result| {
            let end = if result.is_truncated { "…" } else { "" };
            format!("{}{end}", result.text)
        });
        assert_eq!(format!("{}|{result}", attempt.message), expected);
    }

    const RAN: &str = r#""startedAt":"2021-04-07T09:08:38Z""#;

    #[test]
    fn what_a_container_wrote_is_its_result_and_not_why_it_failed() {
        let check = |reason: &str, message: &str, expected: &str| {
            let end = format!(r#""exitCode":3,"reason":"{reason}",{RAN}"#);
            check_result(&end, message, expected, "");
        };
        check("Error", "", "|");
        check("Completed", "done", "|done");
        check("Error", "done", "|done");
        check("OOMKilled", "done", "|done");
        let most = "x".repeat(4095);
        check("Error", &most, &format!("|{most}"));
        // As long as a kubelet reads: it may have been longer.
        check("Error", &format!("{most}y"), &format!("|{most}y…"));
        let end = format!(r#""exitCode":143,"reason":"Error",{RAN}"#);
        let of_pod = r#""phase":"Failed","reason":"DeadlineExceeded","message":"too long","#;
        check_result(&end, "done", "too long|done", of_pod);
    }

    #[test]
    fn what_others_say_of_a_containers_end_is_no_result() {
        let check = |end: &str, message: &str| {
            check_result(end, message, &format!("{message}|"), "");
        };
        let never = r#""startedAt":"1970-01-01T00:00:00Z""#;
        let start = format!(r#""exitCode":128,"reason":"StartError",{never}"#);
        check(&start, "exec: \"nosuch\": executable file not found");
        check(
            &format!(r#""exitCode":127,"reason":"Error",{never}"#),
            "no such file",
        );
        check(r#""exitCode":127,"reason":"Error""#, "no such file");
        let lost = format!(r#""exitCode":137,"reason":"ContainerStatusUnknown",{RAN}"#);
        check(
            &lost,
            "The container could not be located when the pod was terminated",
        );
        let ran = format!(r#""exitCode":1,"reason":"Error",{RAN}"#);
        check(
            &ran,
            "Error on reading termination log /var/lib/x: input/output error",
        );
    }

    #[test]
    fn a_pod_of_no_job_is_nobodys_attempt() {
        assert!(PodObject::default().into_attempt().is_none());
    }
}
