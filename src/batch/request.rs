//! The body of a request to start a batch.

use super::MAX_JOBS;
use crate::config::fields::{Item, Report};
use crate::config::tree::{Node, Value};
use crate::config::{FieldError, JobComponent, Settings, read_settings};
use crate::request::{
    JobRequest, MAX_PAYLOAD_BYTES, RequestError, description_bytes, job_id, job_request, priority,
};

/// The most bytes of all payloads of a batch.
pub const MAX_BATCH_PAYLOAD_BYTES: usize = 16 << 20;
/// The most bytes of variables, command and arguments of all jobs of a batch, with what is the same
/// for all of them: each job has its own copy of that, here and in the cluster.
const MAX_BATCH_DESCRIPTION_BYTES: usize = 8 << 20;
/// Jobs with mistakes that are told of. More help nobody.
const MAX_WRONG_JOBS: usize = 20;

const JOBS: &str = "jobScheduleDescriptions";
const DEFAULTS: &str = "defaultRadixJobComponentConfig";

/// A request to start a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchRequest {
    /// The caller's own id for the batch: 1 to 253 characters.
    pub batch_id: Option<String>,
    /// In their order, each with what the batch says for all of them: 1 to [`MAX_JOBS`].
    pub jobs: Vec<JobRequest>,
}

/// A batch whose payloads are too large.
#[derive(Debug, PartialEq)]
pub enum TooLarge {
    /// All payloads together.
    All { bytes: usize },
    /// That of one of its jobs, from 0.
    Job { index: usize, bytes: usize },
}

/// Reads the body of a request to start a batch. An empty one is a batch without a job.
pub fn parse_batch(body: &[u8]) -> Result<BatchRequest, RequestError> {
    let is_empty = body.iter().all(u8::is_ascii_whitespace);
    let node = Node::from_json(if is_empty { b"{}" } else { body })?;
    let report = Report::default();
    let batch = match &node.value {
        Value::Mapping(_) => read(Item::root(node, &report)),
        _ => {
            let message = format!(
                "the request body must be an object, such as {{\"{JOBS}\": [{{}}]}}, not {}",
                node.described()
            );
            report.error("", 0, message);
            None
        }
    };
    let (errors, _) = report.into_parts();
    match batch {
        Some(batch) if errors.is_empty() => Ok(batch),
        batch => Err(RequestError::Fields(named(errors, batch.as_ref()))),
    }
}

fn read(item: Item<'_>) -> Option<BatchRequest> {
    let mut fields = item.mapping()?;
    let batch_id = fields.take("batchId").and_then(job_id);
    let priority = fields.take("priority").and_then(priority).unwrap_or(0);
    let defaults = fields
        .take(DEFAULTS)
        .map(|item| (item.place(), defaults(item)));
    let fix = "give at least one job, such as {\"payload\": \"…\"}";
    let items = fields.require(JOBS, fix);
    let items = items.and_then(|item| item.items_within(1..=MAX_JOBS));
    fields.finish();
    // Before each job has a copy.
    let defaults = match defaults {
        Some(((report, field, line), Some(settings))) => {
            let count = items.as_ref().map_or(0, Vec::len);
            let bytes = description_bytes(&settings).saturating_mul(count);
            if bytes > MAX_BATCH_DESCRIPTION_BYTES {
                report.error(&field, line, too_long(bytes));
                return None;
            }
            settings
        }
        _ => Settings::default(),
    };
    let mut jobs = Vec::new();
    for item in items.into_iter().flatten() {
        let (report, field, line) = item.place();
        let Some(mut job) = item.mapping().map(|fields| job_request(fields, priority)) else {
            // It keeps its place, for those behind it to be called by theirs.
            jobs.push(JobRequest::default());
            continue;
        };
        job.settings = job.settings.over_batch(&defaults);
        for name in job.settings.over_limit() {
            let message =
                format!("is over its limit, which {DEFAULTS} has: give the job both of them");
            report.error(&format!("{field}.resources.requests.{name}"), line, message);
        }
        jobs.push(job);
    }
    Some(BatchRequest { batch_id, jobs })
}

/// What each job has unless it says otherwise.
fn defaults(item: Item<'_>) -> Option<Settings> {
    const OF_A_JOB: &str = "is each job's own: give it in jobScheduleDescriptions";
    let mut fields = item.mapping()?;
    let settings = read_settings(&mut fields);
    fields.refuse(&[
        ("payload", OF_A_JOB),
        ("jobId", OF_A_JOB),
        ("priority", "is the batch's: give it beside batchId"),
    ]);
    fields.finish();
    Some(settings)
}

impl BatchRequest {
    /// What of it this component's jobs cannot have, by job.
    pub fn check(&self, component: &JobComponent) -> Result<(), Vec<FieldError>> {
        let mut errors = Vec::new();
        for (index, job) in self.jobs.iter().enumerate() {
            for error in job.check(component).err().into_iter().flatten() {
                let field = format!("{JOBS}[{index}].{}", error.field);
                errors.push(FieldError { field, ..error });
            }
        }
        let own = self.jobs.iter().map(|job| description_bytes(&job.settings));
        let shared = description_bytes(&component.settings) * self.jobs.len();
        let bytes = own.sum::<usize>() + shared;
        if bytes > MAX_BATCH_DESCRIPTION_BYTES {
            errors.push(FieldError {
                field: JOBS.to_string(),
                line: None,
                message: too_long(bytes),
            });
        }
        match errors.is_empty() {
            true => Ok(()),
            false => Err(named(errors, Some(self))),
        }
    }

    /// Whether its payloads can be kept.
    pub fn check_size(&self) -> Result<(), TooLarge> {
        let sizes = self
            .jobs
            .iter()
            .map(|job| job.payload.as_ref().map_or(0, String::len));
        let mut all = 0;
        for (index, bytes) in sizes.enumerate() {
            if bytes > MAX_PAYLOAD_BYTES {
                return Err(TooLarge::Job { index, bytes });
            }
            all += bytes;
        }
        match all > MAX_BATCH_PAYLOAD_BYTES {
            true => Err(TooLarge::All { bytes: all }),
            false => Ok(()),
        }
    }
}

fn too_long(bytes: usize) -> String {
    format!(
        "variables, command and args of all jobs take {bytes} bytes together, and may take \
         {MAX_BATCH_DESCRIPTION_BYTES}: send what is long as payloads, or fewer jobs"
    )
}

/// Errors of the first jobs that have some, each with its job's own id, by which its caller knows
/// it.
fn named(errors: Vec<FieldError>, batch: Option<&BatchRequest>) -> Vec<FieldError> {
    let index = |error: &FieldError| -> Option<usize> {
        let rest = error.field.strip_prefix(JOBS)?.strip_prefix('[')?;
        rest.split_once(']')?.0.parse().ok()
    };
    let mut wrong: Vec<usize> = errors.iter().filter_map(index).collect();
    wrong.sort_unstable();
    wrong.dedup();
    let are_more = wrong.len() > MAX_WRONG_JOBS;
    wrong.truncate(MAX_WRONG_JOBS);
    let id = |index: usize| batch?.jobs.get(index)?.job_id.as_deref();
    let mut named: Vec<FieldError> = errors
        .into_iter()
        .filter(|error| index(error).is_none_or(|index| wrong.contains(&index)))
        .collect();
    for error in &mut named {
        if let Some(id) = index(error).and_then(id) {
            error.message.push_str(&format!(" (jobId {id})"));
        }
    }
    if are_more {
        named.push(FieldError {
            field: JOBS.to_string(),
            line: None,
            message: "others are wrong as well".to_string(),
        });
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(body: &str) -> BatchRequest {
        parse_batch(body.as_bytes()).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    #[track_caller]
    fn refused(body: &str, expected: &[&str]) {
        let error = parse_batch(body.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), expected.join("; "), "{body}");
    }

    #[test]
    fn a_batch_is_read_as_radix_documents_it() {
        let batch = parsed(
            r#"{"batchId": "my-batch-42",
                "defaultRadixJobComponentConfig": {
                    "imageTagName": "1.0.0", "timeLimitSeconds": 200, "backoffLimit": 5,
                    "resources": {"limits": {"memory": "200Mi"}}, "variables": {"EPOCHS": "5"}},
                "jobScheduleDescriptions": [
                    {"jobId": "my-job-1", "payload": "{\"x\":10}", "timeLimitSeconds": 120,
                     "variables": {"IN": "a"}},
                    {"jobId": "my-job-2", "payload": "{\"x\":20}", "runtime": {}, "command": []}]}"#,
        );
        assert_eq!(batch.batch_id.as_deref(), Some("my-batch-42"));
        let [first, second] = &batch.jobs[..] else {
            panic!("{batch:?}");
        };
        assert_eq!(first.job_id.as_deref(), Some("my-job-1"));
        assert_eq!(first.payload.as_deref(), Some(r#"{"x":10}"#));
        let settings = &first.settings;
        assert_eq!(settings.time_limit_seconds, Some(120));
        assert_eq!(settings.backoff_limit, Some(5));
        let variables: Vec<_> = settings.variables.iter().collect();
        assert_eq!(
            format!("{variables:?}"),
            r#"[("EPOCHS", "5"), ("IN", "a")]"#
        );
        let settings = &second.settings;
        assert_eq!(settings.time_limit_seconds, Some(200));
        assert_eq!(settings.command.as_deref(), Some(&[][..]));
        assert_eq!(settings.image_tag_name.as_deref(), Some("1.0.0"));
    }

    #[test]
    fn a_job_has_its_batchs_priority_or_its_own() {
        let batch = parsed(
            r#"{"priority": 7, "jobScheduleDescriptions": [{}, {"priority": 0}, {"priority": -3}]}"#,
        );
        let priorities: Vec<i8> = batch.jobs.iter().map(|job| job.priority).collect();
        assert_eq!(priorities, [7, 0, -3]);
    }

    #[test]
    fn all_that_is_wrong_is_told_by_job() {
        refused(
            r#"{"batchId": "", "jobScheduleDescriptions": [
                {"jobId": "a", "timeLimitSeconds": 0}, {"payload": 1}, {}, 5,
                {"jobId": "b", "name": "x"}]}"#,
            &[
                "batchId: must be 1 to 253 characters without control characters",
                "jobScheduleDescriptions[0].timeLimitSeconds: must be a whole number from 1 to \
                 2147483647, not 0 (jobId a)",
                "jobScheduleDescriptions[1].payload: must be a string, not a number: send an object as \
                 its JSON text, such as \"{\\\"x\\\": 10}\"",
                "jobScheduleDescriptions[3]: must be a mapping, not a number",
                "jobScheduleDescriptions[4].name: is the scheduler's to give: remove it, and send \
                 `jobId` to have an id of your own (jobId b)",
            ],
        );
        refused(
            r#"{"defaultRadixJobComponentConfig": {"payload": "x", "resources": {"limits": {"cpu": "1"}}},
                "jobScheduleDescriptions": [{"resources": {"requests": {"cpu": "2"}}}]}"#,
            &[
                "defaultRadixJobComponentConfig.payload: is each job's own: give it in \
                 jobScheduleDescriptions",
                "jobScheduleDescriptions[0].resources.requests.cpu: is over its limit, which \
                 defaultRadixJobComponentConfig has: give the job both of them",
            ],
        );
    }

    #[test]
    fn the_first_twenty_jobs_that_are_wrong_are_told() {
        let jobs = vec![r#"{"timeLimitSeconds": 0}"#; 30].join(",");
        let body = format!(r#"{{"jobScheduleDescriptions": [{jobs}]}}"#);
        let RequestError::Fields(errors) = parse_batch(body.as_bytes()).unwrap_err() else {
            panic!("it is JSON");
        };
        assert_eq!(errors.len(), MAX_WRONG_JOBS + 1);
        assert_eq!(
            errors[19].field,
            "jobScheduleDescriptions[19].timeLimitSeconds"
        );
        assert_eq!(errors[20].message, "others are wrong as well");
    }

    #[test]
    fn a_batch_has_one_job_to_a_thousand() {
        let missing = "jobScheduleDescriptions: is missing: give at least one job, such as \
                       {\"payload\": \"…\"}";
        refused("{}", &[missing]);
        let none = "jobScheduleDescriptions: must have 1 to 1000 items, not 0";
        refused(r#"{"jobScheduleDescriptions": []}"#, &[none]);
        let of = |count: usize| {
            let jobs = vec!["{}"; count].join(",");
            format!(r#"{{"jobScheduleDescriptions": [{jobs}]}}"#)
        };
        assert_eq!(parsed(&of(MAX_JOBS)).jobs.len(), MAX_JOBS);
        let many = "jobScheduleDescriptions: must have 1 to 1000 items, not 1001";
        refused(&of(MAX_JOBS + 1), &[many]);
        let list = "the request body must be an object, such as \
                    {\"jobScheduleDescriptions\": [{}]}, not a list";
        refused("[]", &[list]);
        refused(" ", &[missing]);
        assert!(matches!(
            parse_batch(b"{"),
            Err(RequestError::NotJson { .. })
        ));
    }

    #[test]
    fn what_is_the_same_for_all_is_bounded_as_often_as_there_are_jobs() {
        let of = |bytes: usize, count: usize| {
            let (value, jobs) = ("x".repeat(bytes - 1), vec!["{}"; count].join(","));
            let defaults =
                format!(r#""defaultRadixJobComponentConfig": {{"variables": {{"A": "{value}"}}}}"#);
            let body = format!(r#"{{{defaults}, "jobScheduleDescriptions": [{jobs}]}}"#);
            parse_batch(body.as_bytes())
        };
        assert!(of(8192, 1000).is_ok());
        let refused = of(8192 * 2, 1000).unwrap_err().to_string();
        assert!(
            refused.starts_with("defaultRadixJobComponentConfig: variables"),
            "{refused}"
        );
        let own = of(1024, 1000).unwrap();
        let file = crate::golden::testdata("radixconfig.yaml");
        let config = crate::config::load(&file).unwrap();
        let mut component = config.job_component("dev", "compute").unwrap();
        component.payload_path = None;
        assert_eq!(own.check(&component), Ok(()));
        let long = ("B".to_string(), "x".repeat(8 << 10));
        component.settings.variables.extend([long]);
        let errors = own.check(&component).unwrap_err();
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].field, "jobScheduleDescriptions");
    }

    #[test]
    fn payloads_are_bounded_each_and_together() {
        let of = |sizes: &[usize]| {
            let job = |bytes: &usize| JobRequest {
                payload: Some("x".repeat(*bytes)),
                ..JobRequest::default()
            };
            let jobs = sizes.iter().map(job).collect();
            let batch_id = None;
            BatchRequest { batch_id, jobs }.check_size()
        };
        assert_eq!(of(&[1 << 20; 16]), Ok(()));
        let bytes = (16 << 20) + 1;
        let mut sizes = vec![1 << 20; 16];
        sizes.push(1);
        assert_eq!(of(&sizes), Err(TooLarge::All { bytes }));
        let bytes = (1 << 20) + 1;
        assert_eq!(of(&[0, bytes]), Err(TooLarge::Job { index: 1, bytes }));
    }
}
