//! What is read of Kubernetes' objects: only the fields that are used, since decoding whole Jobs is slow and large.

use crate::job::{Attempt, AttemptState, Job, JobName, Status, Timestamp};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Marks that a job was created with a payload, so that a crash before its Secret can be told.
pub const PAYLOAD_ANNOTATION: &str = "job-scheduler/payload";
/// The caller's own name for the job.
pub const JOB_ID_ANNOTATION: &str = "job-scheduler/job-id";
/// The label by which Kubernetes ties a pod to its Job.
pub const JOB_NAME_LABEL: &str = "batch.kubernetes.io/job-name";

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    pub creation_timestamp: Option<String>,
    pub deletion_timestamp: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct JobObject {
    pub metadata: Metadata,
    spec: JobSpec,
    status: JobStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct JobSpec {
    suspend: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct JobStatus {
    start_time: Option<String>,
    completion_time: Option<String>,
    failed: u32,
    conditions: Vec<Condition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Condition {
    r#type: String,
    status: String,
    reason: String,
    message: String,
    last_transition_time: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodObject {
    pub metadata: Metadata,
    status: PodStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodStatus {
    phase: String,
    reason: String,
    message: String,
    start_time: Option<String>,
    conditions: Vec<Condition>,
    container_statuses: Vec<ContainerStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ContainerStatus {
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
    started_at: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Terminated {
    exit_code: i32,
    reason: String,
    message: String,
    started_at: Option<String>,
    finished_at: Option<String>,
}

fn time(text: &Option<String>) -> Option<Timestamp> {
    text.as_deref().and_then(Timestamp::parse)
}

/// Kubernetes documents resourceVersion as a decimal number that grows with each change of an object.
///
/// Source: <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>
fn version(metadata: &Metadata) -> u64 {
    metadata.resource_version.parse().unwrap_or(0)
}

impl JobObject {
    /// The record of this Job; `None` if its name cannot be one of ours.
    pub fn into_job(self) -> Option<Job> {
        let met = |kind: &str| {
            self.status
                .conditions
                .iter()
                .find(|c| c.r#type == kind && c.status == "True")
        };
        let (complete, failed) = (met("Complete"), met("Failed"));
        let status = match (complete, failed) {
            (Some(_), _) => Status::Succeeded,
            (None, Some(_)) => Status::Failed,
            (None, None) if self.spec.suspend => Status::Waiting,
            (None, None) => Status::Running,
        };
        let finished = match (complete, failed) {
            (Some(condition), _) => {
                time(&self.status.completion_time).or(time(&condition.last_transition_time))
            }
            (None, Some(condition)) => time(&condition.last_transition_time),
            (None, None) => None,
        };
        let message = match failed {
            Some(condition) if condition.message.is_empty() => condition.reason.clone(),
            Some(condition) => format!("{}: {}", condition.reason, condition.message),
            None => String::new(),
        };
        Some(Job {
            name: JobName::parse(&self.metadata.name)?,
            uid: self.metadata.uid.as_str().into(),
            job_id: self
                .metadata
                .annotations
                .get(JOB_ID_ANNOTATION)
                .map(|id| id.as_str().into()),
            created: time(&self.metadata.creation_timestamp)?,
            started: time(&self.status.start_time),
            finished,
            status,
            message: message.into(),
            failed: self.status.failed,
            has_payload: self.metadata.annotations.contains_key(PAYLOAD_ANNOTATION),
            version: version(&self.metadata),
        })
    }
}

/// Reasons for which a container waits and which are no more than its usual way.
const STARTING: [&str; 3] = ["", "ContainerCreating", "PodInitializing"];

impl PodObject {
    /// The job that this pod is an attempt of, and the attempt; `None` if it is no job's.
    pub fn into_attempt(self) -> Option<(JobName, Attempt)> {
        let job = JobName::parse(self.metadata.labels.get(JOB_NAME_LABEL)?)?;
        let container = self.status.container_statuses.first();
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

        let (attempt_state, reason, message) = match self.status.phase.as_str() {
            "Succeeded" => (AttemptState::Succeeded, "", ""),
            // What the pod says goes first: it names a time limit or an eviction that the container cannot know of.
            "Failed" if !self.status.reason.is_empty() => (
                AttemptState::Failed,
                self.status.reason.as_str(),
                self.status.message.as_str(),
            ),
            "Failed" => terminated.map_or((AttemptState::Failed, "", ""), |t| {
                (AttemptState::Failed, t.reason.as_str(), t.message.as_str())
            }),
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
            }) => time(&t.started_at),
            Some(ContainerState {
                running: Some(r), ..
            }) => time(&r.started_at),
            _ => None,
        };
        let attempt = Attempt {
            name: self.metadata.name.as_str().into(),
            created: time(&self.metadata.creation_timestamp).or(time(&self.status.start_time))?,
            started,
            finished: terminated.and_then(|t| time(&t.finished_at)),
            state: attempt_state,
            exit_code: terminated.map(|t| t.exit_code),
            reason: reason.into(),
            message: message.into(),
            image: container.map_or("", |c| c.image.as_str()).into(),
            image_id: container.map_or("", |c| c.image_id.as_str()).into(),
            restarts: container.map_or(0, |c| c.restart_count),
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
                "annotations":{{"job-scheduler/payload":"","job-scheduler/job-id":"mine"}}}},
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
        assert_eq!(&*failed.message, "BackoffLimitExceeded: too often");
        assert_eq!(
            (failed.version, failed.has_payload, failed.job_id.as_deref()),
            (42, true, Some("mine"))
        );
    }

    #[test]
    fn a_pod_says_how_its_attempt_goes() {
        let check = |status: &str, expected: &str| {
            let text = format!(
                r#"{{"metadata":{{"name":"p","resourceVersion":"7","creationTimestamp":"2021-04-07T09:08:37Z",
                    "labels":{{"batch.kubernetes.io/job-name":"compute-1"}}}},"status":{status}}}"#
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
            format!(r#"{{"phase":"{phase}","containerStatuses":[{{"state":{state}}}]}}"#)
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
                "containerStatuses":[{"state":{"terminated":{"exitCode":143,"reason":"Error"}}}]}"#,
            "Failed Some(143) DeadlineExceeded too long",
        );
    }

    #[test]
    fn a_pod_of_no_job_is_nobodys_attempt() {
        assert!(PodObject::default().into_attempt().is_none());
    }
}
