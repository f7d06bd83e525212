//! The model of a cluster: its objects, and how the API server answers calls about them.

use crate::coroutine::{Asked, EPOCH};
use job_scheduler::job::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

pub const PAYLOAD: &str = "job-scheduler/payload";
pub const STOPPED: &str = "job-scheduler/stopped";
/// It was stopped of the scheduler's own accord.
const STOP_REASON: &str = "job-scheduler/stop-reason";
pub const EARLIER_SUSPENSION: &str = "job-scheduler/earlier-suspension";
pub const QUEUED: &str = "job-scheduler/queued";
pub const HIDDEN: &str = "job-scheduler/deleted";
pub const KEY: &str = "job-scheduler/idempotency";
pub const RESTART_OF: &str = "job-scheduler/restart-of";

/// The identity of an object. The world gives each number once.
pub type Uid = u64;

/// An error of the API server.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
}

pub fn refusal(code: u16, reason: &'static str, message: impl Into<String>) -> Refusal {
    Refusal {
        code,
        reason,
        message: message.into(),
    }
}

#[derive(Clone, Debug)]
pub struct Condition {
    pub kind: &'static str,
    pub met: bool,
    pub reason: &'static str,
    pub since: i64,
}

#[derive(Clone, Debug, Default)]
pub struct JobStatus {
    pub start: Option<i64>,
    pub completion: Option<i64>,
    pub active: u32,
    pub terminating: u32,
    pub failed: u32,
    pub succeeded: u32,
    pub conditions: Vec<Condition>,
}

impl JobStatus {
    pub fn met(&self, kind: &str) -> bool {
        self.conditions.iter().any(|c| c.kind == kind && c.met)
    }

    pub fn is_finished(&self) -> bool {
        self.met("Complete") || self.met("Failed")
    }
}

/// One rule of a podFailurePolicy.
#[derive(Clone, Debug)]
pub struct Rule {
    pub action: String,
    pub is_in: bool,
    pub values: Vec<i64>,
}

#[derive(Clone, Debug)]
pub struct Job {
    pub name: String,
    pub uid: Uid,
    pub version: u64,
    pub created: u64,
    /// In deletion: it goes once its pods have gone.
    pub deletion: Option<u64>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub suspend: bool,
    pub backoff_limit: u32,
    pub rules: Vec<Rule>,
    /// The Secret that its pods mount, and the key in it.
    pub mounts: Option<String>,
    pub mount_key: String,
    /// The Job that it goes with.
    pub owner: Option<Uid>,
    /// Somebody else than the job controller sees to it.
    pub is_managed: bool,
    pub pod_labels: Arc<str>,
    /// The first container of its pods.
    pub container: Arc<str>,
    /// Its spec's fields but for `suspend`, as JSON without the braces.
    pub spec: Arc<str>,
    /// The same without the pod's template, which is most of it and which no reader of many Jobs
    /// looks at.
    pub brief: Arc<str>,
    pub status: JobStatus,
    /// Somebody beside the scheduler has suspended or resumed it.
    pub touched: bool,
    /// It is somebody beside the scheduler who lets it run.
    pub runs_by_hand: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    pub fn is_terminal(self) -> bool {
        matches!(self, Phase::Succeeded | Phase::Failed)
    }

    fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Running => "Running",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Container {
    /// No status yet.
    Unknown,
    Creating,
    Running {
        since: i64,
    },
    Ended {
        since: i64,
        at: i64,
        code: i32,
    },
}

/// Another container of a pod that somebody's webhook added.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sidecar {
    None,
    /// Its name comes before the component's.
    First,
    Last,
}

#[derive(Clone, Debug)]
pub struct Pod {
    pub name: String,
    pub uid: Uid,
    pub version: u64,
    pub owner: Uid,
    pub job: String,
    pub created: u64,
    pub deletion: Option<u64>,
    pub phase: Phase,
    pub reason: &'static str,
    pub container: Container,
    pub container_name: Arc<str>,
    pub sidecar: Sidecar,
    pub mounts: Option<String>,
    pub mount_key: String,
    pub labels: Arc<str>,
    /// The job controller has not yet counted it.
    pub finalizer: bool,
    /// When the Secret it mounts is the only thing it waits for.
    pub excused: bool,
    /// When the kubelet took it.
    pub taken: Option<i64>,
    /// Seconds after that in which its containers are ended.
    pub time_limit: Option<i64>,
    /// Its container was ended for that.
    pub is_out_of_time: bool,
    pub is_disrupted: bool,
}

impl Pod {
    pub fn may_run(&self) -> bool {
        !self.phase.is_terminal()
    }
}

#[derive(Clone, Debug)]
pub struct Secret {
    pub owner: Uid,
    pub data: BTreeMap<String, Vec<u8>>,
}

/// A change of an object, as watches tell it.
#[derive(Clone)]
pub struct Event {
    pub version: u64,
    pub frame: Arc<[u8]>,
}

/// All changes of one kind.
#[derive(Default)]
pub struct Log {
    pub events: Vec<Event>,
    /// Older versions are too old to watch from.
    pub compacted: u64,
}

/// Who did something to an object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Who {
    Scheduler,
    Kubectl,
}

/// What happened to each Job that ever was: for the checks.
#[derive(Clone, Debug)]
pub struct Life {
    pub name: String,
    pub uid: Uid,
    pub key: Option<String>,
    pub created: u64,
    /// When the first container of it started.
    pub ran: Option<u64>,
    /// When its condition came.
    pub ended: Option<u64>,
    /// When its container ended, and what becomes of the job for that.
    pub exited: Option<u64>,
    pub coming: Option<&'static str>,
    pub outcome: Option<&'static str>,
    pub hidden: Option<u64>,
    pub gone: Option<(u64, Who)>,
    /// When its deletion was asked for.
    pub asked_to_go: u64,
    /// The payload that its first container saw.
    pub saw: Option<Vec<u8>>,
    pub mounted: bool,
    /// A person's hand was in how it ran.
    pub touched: bool,
    pub stopped: bool,
    pub stopped_at: Option<u64>,
    /// When it had stopped before it was let run again, and when it was.
    pub ended_before: Option<(u64, u64)>,
    /// Who asked for it.
    pub client: Option<usize>,
    pub restart_of: Option<String>,
    /// The batch that it stands for or is of.
    pub batch: Option<Uid>,
    pub job_id: Option<String>,
    /// All of the batch was there.
    pub was_complete: bool,
}

impl Life {
    /// What becomes of it, as its container tells or its condition.
    pub fn end(&self) -> Option<&'static str> {
        self.outcome.or(self.coming)
    }

    fn ends(&self) -> impl Iterator<Item = u64> {
        let exited = self.exited.filter(|_| self.end().is_some());
        self.ended.into_iter().chain(exited)
    }

    /// When its container ended or its condition came, whichever was first.
    pub fn first_end(&self) -> Option<u64> {
        self.ends().min()
    }

    pub fn last_end(&self) -> Option<u64> {
        self.ends().max()
    }
}

/// A Job as the job controller may still see it.
pub struct Stale {
    pub job: Job,
    pub until: u64,
}

/// A status that the job controller is about to write.
pub struct StatusWrite {
    pub uid: Uid,
    pub based_on: u64,
    pub status: JobStatus,
    pub counted: Vec<Uid>,
}

#[derive(Default)]
pub struct World {
    pub now: u64,
    /// When the call was sent that is being carried out.
    pub asked: u64,
    pub version: u64,
    pub last_uid: Uid,
    pub jobs: BTreeMap<String, Job>,
    pub pods: BTreeMap<String, Pod>,
    pub secrets: BTreeMap<String, Secret>,
    pub services: BTreeMap<String, Uid>,
    pub job_log: Log,
    pub pod_log: Log,
    pub lives: BTreeMap<Uid, Life>,
    pub stale: Vec<Stale>,
    pub writes: Vec<StatusWrite>,
    /// Objects that a page of a list has not shown yet, by continue token.
    pub pages: Vec<(u64, Vec<String>)>,
    /// Nobody may make Secrets or Services, or any Job.
    pub secret_quota: bool,
    pub service_quota: bool,
    pub job_quota: bool,
    /// Names of Jobs that a webhook refuses to change.
    pub guarded: Vec<String>,
    /// Names of Jobs whose Secret a person deleted.
    pub robbed: Vec<String>,
    /// Names of Jobs that were stopped of the scheduler's own accord, while their payload was
    /// there.
    pub stopped_with_payload: Vec<String>,
    pub sidecars: bool,
    /// A Job that is deleted goes once somebody has let it, whatever becomes of its pods.
    pub finalizers: bool,
    /// Containers exit with 0, unless they are told to end.
    pub all_well: bool,
    /// How long a container that is told to end takes, when nothing else decides.
    pub linger: u64,
    /// Objects on a page of a list.
    pub page: usize,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}

fn texts(value: Option<&Value>) -> BTreeMap<String, String> {
    let fields = value.and_then(Value::as_object).into_iter().flatten();
    fields
        .map(|(key, value)| (key.clone(), text(value)))
        .collect()
}

fn date(seconds: i64) -> Timestamp {
    Timestamp::at(seconds)
}

impl World {
    /// The world's wall clock in seconds.
    pub fn seconds(&self) -> i64 {
        i64::try_from(EPOCH + self.now / 1_000_000).unwrap_or(i64::MAX)
    }

    fn new_uid(&mut self) -> Uid {
        self.last_uid += 1;
        self.last_uid
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// Something else in the cluster changed.
    pub fn bump(&mut self, by: u64) {
        self.version += by;
    }

    pub fn job_of(&self, uid: Uid) -> Option<&Job> {
        self.jobs.values().find(|job| job.uid == uid)
    }

    pub fn pods_of(&self, uid: Uid) -> impl Iterator<Item = &Pod> {
        self.pods.values().filter(move |pod| pod.owner == uid)
    }

    /// Carries out a call, or says why not.
    pub fn call(&mut self, asked: &Asked) -> Result<Vec<u8>, Refusal> {
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let mut parts = path.trim_start_matches('/').split('/');
        let resource = parts.find(|part| ["jobs", "pods", "secrets", "services"].contains(part));
        let name = parts.next();
        let dry = query.contains("dryRun=All");
        match (asked.method, resource, name) {
            ("GET", Some("jobs" | "pods"), None) => self.list(resource == Some("pods"), query),
            ("GET", Some("jobs"), Some(name)) => match self.jobs.get(name) {
                Some(job) => Ok(render(job, &job.spec).into_bytes()),
                None => Err(not_found("jobs.batch", name)),
            },
            ("POST", Some("jobs"), None) => self.create_job(&asked.body),
            ("POST", Some("secrets"), None) => self.create_secret(&asked.body, dry),
            ("POST", Some("services"), None) => self.create_service(&asked.body),
            ("PATCH", Some("jobs"), Some(name)) => {
                let name = name.to_string();
                self.patch_job(&name, &asked.body)
            }
            ("DELETE", Some("jobs"), Some(name)) => {
                let name = name.to_string();
                self.delete_job(&name, &asked.body)
            }
            _ => panic!("the model knows no {} {}", asked.method, asked.path),
        }
    }

    fn list(&mut self, of_pods: bool, query: &str) -> Result<Vec<u8>, Refusal> {
        let field = |name: &str| {
            let mut fields = query.split('&');
            fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
        };
        let token = field("continue").unwrap_or_default();
        let (version, items) = match token.parse::<usize>() {
            Err(_) => (
                self.version,
                self.render_all(of_pods, field("labelSelector")),
            ),
            // A list is of one moment, however long its pages take.
            Ok(page) => self.pages.get(page).cloned().unwrap_or_default(),
        };
        let (now, later) = items.split_at(items.len().min(self.page.max(1)));
        let mut token = String::new();
        if !later.is_empty() {
            token = self.pages.len().to_string();
            self.pages.push((version, later.to_vec()));
        }
        let body = format!(
            r#"{{"kind":"List","metadata":{{"resourceVersion":"{version}","continue":"{token}"}},"items":[{}]}}"#,
            now.join(",")
        );
        Ok(body.into_bytes())
    }

    fn render_all(&self, of_pods: bool, selector: Option<&str>) -> Vec<String> {
        let selector = selector.unwrap_or_default();
        let selector = selector
            .replace("%3D", "=")
            .replace("%2F", "/")
            .replace("%2C", ",");
        let pairs = || selector.split(',').filter_map(|pair| pair.split_once('='));
        if of_pods {
            let has = |pod: &&Pod| {
                pairs().all(|(key, value)| pod.labels.contains(&format!("\"{key}\":\"{value}\"")))
            };
            return self.pods.values().filter(has).map(render_pod).collect();
        }
        let has = |job: &&Job| {
            pairs().all(|(key, value)| job.labels.get(key).is_some_and(|have| have == value))
        };
        self.jobs.values().filter(has).map(render_job).collect()
    }

    fn create_job(&mut self, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut object: Value = serde_json::from_slice(body).unwrap();
        let metadata = object["metadata"].take();
        let name = text(&metadata["name"]);
        if self.job_quota {
            return Err(over_quota("jobs.batch", &name));
        }
        if self.jobs.contains_key(&name) {
            return Err(already_exists("jobs.batch", &name));
        }
        let Value::Object(mut spec) = object["spec"].take() else {
            return Err(refusal(422, "Invalid", "spec: Required value"));
        };
        let suspend = spec.remove("suspend").is_some_and(|v| v == json!(true));
        let template = &spec["template"];
        let volumes = template["spec"]["volumes"].as_array();
        let mut volumes = volumes.into_iter().flatten();
        let mounted = volumes.find(|volume| volume["secret"]["secretName"].is_string());
        let mounted = mounted.map(|volume| &volume["secret"]);
        let owner = uid_of(&metadata["ownerReferences"][0]["uid"]);
        let job = Job {
            uid: self.new_uid(),
            version: 0,
            created: self.now,
            deletion: None,
            labels: texts(metadata.get("labels")),
            annotations: texts(metadata.get("annotations")),
            suspend,
            backoff_limit: spec
                .get("backoffLimit")
                .and_then(Value::as_u64)
                .and_then(|limit| limit.try_into().ok())
                .unwrap_or(6),
            rules: rules(&spec),
            mounts: mounted.map(|secret| text(&secret["secretName"])),
            mount_key: mounted.map_or(String::new(), |secret| text(&secret["items"][0]["key"])),
            owner,
            is_managed: spec.contains_key("managedBy"),
            pod_labels: template["metadata"]["labels"].to_string().into(),
            container: text(&template["spec"]["containers"][0]["name"]).into(),
            spec: fields_of(&spec).into(),
            brief: {
                spec.remove("template");
                fields_of(&spec).into()
            },
            status: JobStatus::default(),
            touched: false,
            runs_by_hand: false,
            name: name.clone(),
        };
        let life = Life {
            name: name.clone(),
            uid: job.uid,
            key: job
                .annotations
                .get(KEY)
                .and_then(|key| Some(key.get(..32)?.to_string())),
            created: self.now,
            ran: None,
            ended: None,
            exited: None,
            coming: None,
            ended_before: None,
            asked_to_go: 0,
            outcome: None,
            hidden: None,
            gone: None,
            saw: None,
            mounted: job.mounts.is_some(),
            touched: false,
            stopped: false,
            stopped_at: None,
            client: job
                .annotations
                .get("job-scheduler/job-id")
                .and_then(|id| id.strip_prefix('c')?.parse().ok()),
            restart_of: job.annotations.get(RESTART_OF).cloned(),
            batch: owner.or(job.is_managed.then_some(job.uid)),
            job_id: job.annotations.get("job-scheduler/job-id").cloned(),
            was_complete: false,
        };
        self.lives.insert(job.uid, life);
        Ok(self.store_job(job, "ADDED").into_bytes())
    }

    /// Stores a job under a new version, and tells the watches. Returns it as JSON.
    pub fn store_job(&mut self, mut job: Job, kind: &str) -> String {
        job.version = self.next_version();
        let rendered = render_job(&job);
        self.job_log.tell(kind, job.version, &rendered);
        match kind {
            "DELETED" => drop(self.jobs.remove(&job.name)),
            _ => drop(self.jobs.insert(job.name.clone(), job)),
        }
        rendered
    }

    pub fn store_pod(&mut self, mut pod: Pod, kind: &str) {
        pod.version = self.next_version();
        self.pod_log.tell(kind, pod.version, &render_pod(&pod));
        match kind {
            "DELETED" => drop(self.pods.remove(&pod.name)),
            _ => drop(self.pods.insert(pod.name.clone(), pod)),
        }
    }

    fn create_secret(&mut self, body: &[u8], dry: bool) -> Result<Vec<u8>, Refusal> {
        let object: Value = serde_json::from_slice(body).unwrap();
        let name = text(&object["metadata"]["name"]);
        if self.secret_quota {
            return Err(over_quota("secrets", &name));
        }
        if self.secrets.contains_key(&name) {
            return Err(already_exists("secrets", &name));
        }
        if !dry {
            let data = texts(object.get("data")).into_iter();
            let secret = Secret {
                owner: owner(&object),
                data: data.map(|(key, text)| (key, base64(&text))).collect(),
            };
            self.next_version();
            self.secrets.insert(name.clone(), secret);
        }
        Ok(partial(&name))
    }

    fn create_service(&mut self, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        let object: Value = serde_json::from_slice(body).unwrap();
        let name = text(&object["metadata"]["name"]);
        if self.service_quota {
            return Err(over_quota("services", &name));
        }
        if self.services.contains_key(&name) {
            return Err(already_exists("services", &name));
        }
        self.next_version();
        self.services.insert(name.clone(), owner(&object));
        Ok(partial(&name))
    }

    fn guard(&self, name: &str) -> Result<(), Refusal> {
        match self.guarded.iter().any(|guarded| guarded == name) {
            false => Ok(()),
            true => {
                let message = format!("admission webhook \"guard\" denied the request for {name}");
                Err(refusal(403, "Forbidden", message))
            }
        }
    }

    fn patch_job(&mut self, name: &str, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        let change: Value = serde_json::from_slice(body).unwrap();
        let Some(job) = self.jobs.get(name) else {
            return Err(not_found("jobs.batch", name));
        };
        self.guard(name)?;
        let mut job = job.clone();
        let before = job.clone();
        for (field, value) in change.as_object().into_iter().flatten() {
            match field.as_str() {
                "metadata" => patch_metadata(&mut job, value)?,
                "spec" => patch_spec(&mut job, value),
                _ => panic!("the model cannot patch {field} of a Job"),
            }
        }
        if job.suspend == before.suspend && job.annotations == before.annotations {
            return Ok(render_job(&before).into_bytes());
        }
        job.runs_by_hand &= job.suspend == before.suspend;
        self.note_change(&before, &job);
        self.note_status(&job);
        Ok(self.store_job(job, "MODIFIED").into_bytes())
    }

    fn note_change(&mut self, before: &Job, after: &Job) {
        if after.suspend && !before.suspend {
            self.remember_stale(before);
        }
        let is_news = !before.annotations.contains_key(STOP_REASON);
        if is_news && after.annotations.contains_key(STOP_REASON) {
            let secret = after.mounts.as_ref();
            let secret = secret.and_then(|name| self.secrets.get(name));
            // With the job that it belongs to, it goes.
            let owner = secret.and_then(|secret| self.job_of(secret.owner));
            if owner.is_some_and(|owner| owner.deletion.is_none()) {
                self.stopped_with_payload.push(after.name.clone());
            }
        }
        let now = self.now;
        if let Some(life) = self.lives.get_mut(&after.uid) {
            life.was_complete |= after.annotations.contains_key(crate::batches::COMPLETE);
            let hidden = after.annotations.contains_key(HIDDEN);
            life.hidden = life.hidden.filter(|_| hidden).or(hidden.then_some(now));
            life.stopped = after.annotations.contains_key(STOPPED);
            let stopped = after.annotations.get(STOPPED);
            let stopped = stopped.and_then(|text| Timestamp::parse(text));
            if let Some(seconds) = stopped.map(Timestamp::seconds) {
                let seconds = u64::try_from(seconds).unwrap_or(0).saturating_sub(EPOCH);
                life.stopped_at = Some(seconds * 1_000_000);
                if life.outcome == Some("Stopped") {
                    // Stopped again by somebody who did not know yet.
                    life.ended = life.ended.max(life.stopped_at);
                }
            }
            if !life.stopped && life.outcome == Some("Stopped") {
                let end = life.last_end().unwrap_or(0);
                life.ended_before = Some((end, now));
                (life.outcome, life.ended) = (None, None);
                (life.exited, life.coming) = (None, None);
            }
        }
    }

    /// The job controller may act on this for a while.
    pub fn remember_stale(&mut self, job: &Job) {
        if !job.suspend && !job.status.is_finished() && job.deletion.is_none() {
            let until = self.now + 4_000_000;
            self.stale.push(Stale {
                job: job.clone(),
                until,
            });
        }
    }

    fn delete_job(&mut self, name: &str, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        let options: Value = serde_json::from_slice(body).unwrap_or_default();
        let Some(job) = self.jobs.get(name) else {
            return Err(not_found("jobs.batch", name));
        };
        let precondition = |field: &str| options["preconditions"][field].as_str();
        if let Some(uid) = precondition("uid")
            && uid != uid_text(job.uid)
        {
            return Err(conflict("jobs.batch", name, "Precondition failed: UID"));
        }
        if let Some(version) = precondition("resourceVersion")
            && version != job.version.to_string()
        {
            let why = "Precondition failed: ResourceVersion";
            return Err(conflict("jobs.batch", name, why));
        }
        self.guard(name)?;
        match self.finalizers {
            true => self.begin_deletion(name, Who::Scheduler),
            false => self.remove_job(name, Who::Scheduler),
        }
        Ok(br#"{"kind":"Status","status":"Success"}"#.to_vec())
    }

    /// The Job is in deletion, and gone once nothing holds it.
    pub fn begin_deletion(&mut self, name: &str, who: Who) {
        let Some(mut job) = self.jobs.get(name).cloned() else {
            return;
        };
        if job.deletion.is_some() {
            return;
        }
        self.remember_stale(&job);
        let (now, asked) = (self.now, self.asked);
        job.deletion = Some(now);
        if let Some(life) = self.lives.get_mut(&job.uid) {
            life.gone = Some((now, who));
            life.asked_to_go = asked;
        }
        self.store_job(job, "MODIFIED");
    }

    /// The Job is gone at once; what it owns goes when the garbage collector comes to it.
    pub fn remove_job(&mut self, name: &str, who: Who) {
        let Some(job) = self.jobs.get(name).cloned() else {
            return;
        };
        self.remember_stale(&job);
        let (now, asked) = (self.now, self.asked);
        let is_news = job.deletion.is_none();
        if let Some(life) = self.lives.get_mut(&job.uid).filter(|_| is_news) {
            life.gone = Some((now, who));
            life.asked_to_go = asked;
        }
        self.store_job(job, "DELETED");
    }
}

fn patch_metadata(job: &mut Job, change: &Value) -> Result<(), Refusal> {
    for (field, value) in change.as_object().into_iter().flatten() {
        match field.as_str() {
            "uid" if text(value) != uid_text(job.uid) => {
                let message = format!("Job.batch \"{}\" is invalid: metadata.uid", job.name);
                return Err(refusal(422, "Invalid", message));
            }
            "resourceVersion" if text(value) != job.version.to_string() => {
                let why = "the object has been modified; please apply your changes to the latest \
                           version and try again";
                return Err(conflict("jobs.batch", &job.name, why));
            }
            "uid" | "resourceVersion" => {}
            "annotations" => merge(&mut job.annotations, value),
            "labels" => merge(&mut job.labels, value),
            _ => panic!("the model cannot patch metadata.{field} of a Job"),
        }
    }
    Ok(())
}

fn patch_spec(job: &mut Job, change: &Value) {
    for (field, value) in change.as_object().into_iter().flatten() {
        match field.as_str() {
            "suspend" => job.suspend = value.as_bool().unwrap_or(false),
            _ => panic!("the model cannot patch spec.{field} of a Job"),
        }
    }
}

fn merge(into: &mut BTreeMap<String, String>, change: &Value) {
    for (key, value) in change.as_object().into_iter().flatten() {
        match value {
            Value::Null => drop(into.remove(key)),
            value => drop(into.insert(key.clone(), text(value))),
        }
    }
}

fn rules(spec: &Map<String, Value>) -> Vec<Rule> {
    let rules = spec.get("podFailurePolicy").map(|policy| &policy["rules"]);
    let rules = rules.and_then(Value::as_array).into_iter().flatten();
    let read = |rule: &Value| Rule {
        action: text(&rule["action"]),
        is_in: rule["onExitCodes"]["operator"] == "In",
        values: rule["onExitCodes"]["values"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_i64)
            .collect(),
    };
    rules.map(read).collect()
}

fn fields_of(spec: &Map<String, Value>) -> String {
    let whole = serde_json::to_string(spec).unwrap_or_default();
    whole[1..whole.len() - 1].to_string()
}

fn owner(object: &Value) -> Uid {
    uid_of(&object["metadata"]["ownerReferences"][0]["uid"]).unwrap_or(0)
}

fn uid_of(text: &Value) -> Option<Uid> {
    text.as_str()?.strip_prefix("uid-")?.parse().ok()
}

pub fn uid_text(uid: Uid) -> String {
    format!("uid-{uid}")
}

fn partial(name: &str) -> Vec<u8> {
    format!(r#"{{"kind":"PartialObjectMetadata","metadata":{{"name":"{name}"}}}}"#).into_bytes()
}

pub fn not_found(resource: &str, name: &str) -> Refusal {
    refusal(404, "NotFound", format!("{resource} \"{name}\" not found"))
}

fn already_exists(resource: &str, name: &str) -> Refusal {
    let message = format!("{resource} \"{name}\" already exists");
    refusal(409, "AlreadyExists", message)
}

pub fn conflict(resource: &str, name: &str, why: &str) -> Refusal {
    let message = format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}");
    refusal(409, "Conflict", message)
}

fn over_quota(resource: &str, name: &str) -> Refusal {
    let message = format!("{resource} \"{name}\" is forbidden: exceeded quota: few");
    refusal(403, "Forbidden", message)
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bits, mut count, mut bytes) = (0u32, 0, Vec::new());
    for digit in text.bytes().filter_map(digit) {
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    bytes
}

impl Log {
    fn tell(&mut self, kind: &str, version: u64, object: &str) {
        let frame = format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n");
        self.events.push(Event {
            version,
            frame: frame.into_bytes().into(),
        });
    }

    /// Where a watch from a version begins; `None` if that is too old.
    pub fn after(&self, version: u64) -> Option<usize> {
        let begin = self
            .events
            .partition_point(|event| event.version <= version);
        (version >= self.compacted).then_some(begin)
    }
}

fn put_map(out: &mut String, name: &str, map: &BTreeMap<String, String>) {
    let _ = write!(out, r#","{name}":{{"#);
    for (at, (key, value)) in map.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        let _ = write!(out, r#"{comma}"{key}":"{value}""#);
    }
    out.push('}');
}

fn put_time(out: &mut String, name: &str, seconds: Option<i64>) {
    if let Some(seconds) = seconds {
        let _ = write!(out, r#","{name}":"{}""#, date(seconds));
    }
}

fn to_seconds(micros: u64) -> i64 {
    i64::try_from(EPOCH + micros / 1_000_000).unwrap_or(i64::MAX)
}

pub fn render_job(job: &Job) -> String {
    render(job, &job.brief)
}

fn render(job: &Job, spec: &str) -> String {
    let mut out = String::with_capacity(spec.len() + 900);
    let _ = write!(
        out,
        r#"{{"kind":"Job","apiVersion":"batch/v1","metadata":{{"name":"{}","uid":"uid-{}","resourceVersion":"{}""#,
        job.name, job.uid, job.version
    );
    put_time(&mut out, "creationTimestamp", Some(to_seconds(job.created)));
    put_time(&mut out, "deletionTimestamp", job.deletion.map(to_seconds));
    put_map(&mut out, "labels", &job.labels);
    if let Some(owner) = job.owner {
        let _ = write!(out, r#","ownerReferences":[{{"uid":"uid-{owner}"}}]"#);
    }
    put_map(&mut out, "annotations", &job.annotations);
    let _ = write!(
        out,
        r#"}},"spec":{{"suspend":{},{}}},"status":{{"active":{},"terminating":{},"failed":{},"succeeded":{}"#,
        job.suspend,
        spec,
        job.status.active,
        job.status.terminating,
        job.status.failed,
        job.status.succeeded
    );
    put_time(&mut out, "startTime", job.status.start);
    put_time(&mut out, "completionTime", job.status.completion);
    out.push_str(r#","conditions":["#);
    for (at, condition) in job.status.conditions.iter().enumerate() {
        let _ = write!(
            out,
            r#"{}{{"type":"{}","status":"{}","reason":"{}","message":"","lastTransitionTime":"{}"}}"#,
            if at > 0 { "," } else { "" },
            condition.kind,
            if condition.met { "True" } else { "False" },
            condition.reason,
            date(condition.since)
        );
    }
    out.push_str("]}}");
    out
}

/// What the container of a pod leaves for its job's caller.
pub fn left_by(pod: &str) -> String {
    format!("left by {pod}")
}

/// `left` is what it has left in its result file.
fn render_container(out: &mut String, name: &str, state: Container, left: &str) {
    let _ = write!(
        out,
        r#"{{"name":"{name}","image":"i","imageID":"d","restartCount":0,"state":{{"#
    );
    let _ = match state {
        Container::Unknown | Container::Creating => {
            write!(out, r#""waiting":{{"reason":"ContainerCreating"}}"#)
        }
        Container::Running { since } => {
            write!(out, r#""running":{{"startedAt":"{}"}}"#, date(since))
        }
        Container::Ended { since, at, code } => write!(
            out,
            r#""terminated":{{"exitCode":{code},"reason":"{}","message":"{left}","startedAt":"{}","finishedAt":"{}"}}"#,
            if code == 0 { "Completed" } else { "Error" },
            date(since),
            date(at)
        ),
    };
    out.push_str("}}");
}

pub fn render_pod(pod: &Pod) -> String {
    let mut out = String::with_capacity(900);
    let _ = write!(
        out,
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"{}","uid":"uid-{}","resourceVersion":"{}","labels":{},"ownerReferences":[{{"apiVersion":"batch/v1","kind":"Job","name":"{}","uid":"uid-{}","controller":true}}]"#,
        pod.name, pod.uid, pod.version, pod.labels, pod.job, pod.owner
    );
    put_time(&mut out, "creationTimestamp", Some(to_seconds(pod.created)));
    put_time(&mut out, "deletionTimestamp", pod.deletion.map(to_seconds));
    let _ = write!(out, r#"}},"spec":{{"nodeName":"n""#);
    if let Some(seconds) = pod.time_limit {
        let _ = write!(out, r#","activeDeadlineSeconds":{seconds}"#);
    }
    let _ = write!(
        out,
        r#"}},"status":{{"phase":"{}","reason":"{}""#,
        pod.phase.as_str(),
        pod.reason
    );
    put_time(&mut out, "startTime", pod.taken);
    if pod.is_disrupted {
        out.push_str(r#","conditions":[{"type":"DisruptionTarget","status":"True"}]"#);
    }
    out.push_str(r#","containerStatuses":["#);
    if pod.container != Container::Unknown {
        // The sidecar ends well whatever the job does, and some only with the pod.
        let beside = match pod.container {
            Container::Ended { since, .. } if pod.may_run() && pod.uid.is_multiple_of(4) => {
                Container::Running { since }
            }
            Container::Ended { since, at, .. } => Container::Ended { since, at, code: 0 },
            state => state,
        };
        if pod.sidecar == Sidecar::First {
            render_container(&mut out, "a-proxy", beside, "nothing");
            out.push(',');
        }
        let left = left_by(&pod.name);
        render_container(&mut out, &pod.container_name, pod.container, &left);
        if pod.sidecar == Sidecar::Last {
            out.push(',');
            render_container(&mut out, "zz-proxy", beside, "nothing");
        }
    }
    out.push_str("]}}");
    out
}

/// Of pods that have one, in seconds.
const TIME_LIMIT: i64 = 40;

impl World {
    pub fn make_pod(&mut self, job: &Job) {
        let uid = self.new_uid();
        let sidecar = match (self.sidecars, uid % 3) {
            (true, 0) => Sidecar::First,
            (true, 1) => Sidecar::Last,
            _ => Sidecar::None,
        };
        let mut labels = job.pod_labels.trim_end_matches('}').to_string();
        let _ = write!(
            labels,
            r#","batch.kubernetes.io/job-name":"{}","batch.kubernetes.io/controller-uid":"uid-{}"}}"#,
            job.name, job.uid
        );
        let pod = Pod {
            name: format!("{}-p{uid}", job.name),
            uid,
            version: 0,
            owner: job.uid,
            job: job.name.clone(),
            created: self.now,
            deletion: None,
            phase: Phase::Pending,
            reason: "",
            container: Container::Unknown,
            container_name: job.container.clone(),
            sidecar,
            mounts: job.mounts.clone(),
            mount_key: job.mount_key.clone(),
            labels: labels.into(),
            finalizer: true,
            excused: job.runs_by_hand,
            taken: None,
            time_limit: uid.is_multiple_of(2).then_some(TIME_LIMIT),
            is_out_of_time: false,
            is_disrupted: false,
        };
        self.store_pod(pod, "ADDED");
    }
}
