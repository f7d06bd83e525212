//! What is sent for each write, and what is made of its answers. What follows, the simulation has.

use super::*;
use crate::config;
use crate::golden;
use crate::job::{AttemptState, RareFields, Timestamp};
use crate::sync::Lock;

/// An API server that gives these answers, one after the other.
pub(crate) struct Script {
    answers: Lock<Vec<Result<String, ApiError>>>,
    /// Method and path, and body, of what it was asked.
    pub(crate) calls: Lock<Vec<(String, Value)>>,
}

impl Api for Script {
    fn send(&self, call: &api::Call) -> Result<Vec<u8>, ApiError> {
        let (_, body) = call.body.unwrap_or_default();
        let body = serde_json::from_slice(body).unwrap_or_default();
        let name = format!("{} {}", call.method, call.path);
        self.calls.lock().push((name, body));
        self.answers.lock().remove(0).map(String::into_bytes)
    }

    fn open(&self, call: &api::Call) -> Result<(api::Format, Box<dyn Read + Send>), ApiError> {
        let bytes = self.send(call)?;
        Ok((api::Format::Json, Box::new(io::Cursor::new(bytes))))
    }
}

pub(crate) const NAME: &str = "compute-20210407115556-rkwaibwe";
const SINCE: Timestamp = Timestamp::at(1_617_796_556); // 2021-04-07T11:55:56Z

/// A Job as the API server tells of it, of version 8.
pub(crate) fn answer() -> String {
    let metadata = json!({
        "name": NAME, "uid": "u", "resourceVersion": "8", "creationTimestamp": "2021-04-07T11:55:56Z",
        "annotations": {"job-scheduler/job-id": "mine"},
    });
    json!({"metadata": metadata, "spec": {}, "status": {}}).to_string()
}

pub(crate) fn refusal(code: u16, reason: &str, field: &str) -> ApiError {
    ApiError::Status {
        call: "PATCH x".to_string(),
        code,
        reason: reason.to_string(),
        message: "no".to_string(),
        fields: vec![field.to_string()],
    }
}

fn lost() -> ApiError {
    let (call, cause) = ("POST x".to_string(), "cut".to_string());
    ApiError::Lost { call, cause }
}

/// A backend whose API server answers so.
pub(crate) fn scripted(answers: Vec<Result<String, ApiError>>) -> (Arc<Script>, Kubernetes) {
    let script = Arc::new(Script {
        answers: Lock::new(answers),
        calls: Lock::default(),
    });
    let config = config::load(&golden::testdata("objects/minimal.yaml")).unwrap();
    let component = config.job_components("dev").unwrap().remove(0);
    let (clock, metrics) = (Clock::real(), Arc::default());
    let backend = Kubernetes::new(script.clone(), clock, component, vec![], metrics);
    (script, backend)
}

struct Asked<T> {
    outcome: T,
    /// Method and path, and body.
    calls: Vec<(String, Value)>,
}

/// What `ask` asks of an API server that answers so.
fn asked<T>(
    answers: Vec<Result<String, ApiError>>,
    ask: impl FnOnce(&Kubernetes) -> T,
) -> Asked<T> {
    let (script, backend) = scripted(answers);
    let outcome = ask(&backend);
    let calls = std::mem::take(&mut *script.calls.lock());
    Asked { outcome, calls }
}

fn job(status: Status) -> Job {
    Job::sample(NAME, status, 7)
}

/// The one patch that `ask` sends: its version, `suspend`, and annotations.
fn patch(ask: impl FnOnce(&Kubernetes) -> Result<Job, BackendError>) -> (Value, Value, Value) {
    let asked = asked(vec![Ok(answer())], ask);
    assert_eq!(asked.outcome.unwrap().version, 8);
    let [(call, body)] = &asked.calls[..] else {
        panic!("{:?}", asked.calls);
    };
    assert!(
        call.starts_with("PATCH /apis/batch/v1/namespaces/"),
        "{call}"
    );
    assert!(call.ends_with(&format!("/jobs/{NAME}")), "{call}");
    assert_eq!(body["metadata"]["uid"], "u");
    let [version, suspend, annotations] = [
        &body["metadata"]["resourceVersion"],
        &body["spec"]["suspend"],
        &body["metadata"]["annotations"],
    ];
    (version.clone(), suspend.clone(), annotations.clone())
}

/// With these annotations but for those that tell the time.
#[track_caller]
fn check(
    ask: impl FnOnce(&Kubernetes) -> Result<Job, BackendError>,
    version: Value,
    suspend: Value,
    annotations: Value,
) {
    let (sent_version, sent_suspend, mut sent) = patch(ask);
    for time in ["stopped", "restarted", "deleted"] {
        if let Some(value) = sent.get_mut(format!("job-scheduler/{time}"))
            && value.is_string()
        {
            *value = json!("now");
        }
    }
    let mut expected = serde_json::Map::new();
    for (name, value) in annotations.as_object().unwrap() {
        expected.insert(format!("job-scheduler/{name}"), value.clone());
    }
    assert_eq!(sent, Value::Object(expected));
    assert_eq!((sent_version, sent_suspend), (version, suspend));
}

/// Let run over a suspension that the job controller may still have to notice.
fn let_run(is_earlier: bool) -> Job {
    Job {
        suspension: Some(SINCE),
        is_suspension_earlier: is_earlier,
        ..job(Status::Running)
    }
}

#[test]
fn a_stop_needs_the_version_where_the_job_may_just_have_been_let_run() {
    let since = json!("2021-04-07T11:55:56Z");
    let plain = json!({"stopped": "now", "stop-reason": null, "queued": null});
    let over = json!({
        "stopped": "now", "stop-reason": null, "queued": null, "earlier-suspension": since,
    });
    let stop = |job: Job| move |backend: &Kubernetes| backend.stop(&job, "");
    let any = Value::Null;
    check(
        stop(job(Status::Running)),
        any.clone(),
        json!(true),
        plain.clone(),
    );
    check(stop(let_run(true)), any, json!(true), plain.clone());
    check(stop(let_run(false)), json!("7"), json!(true), over);
    let waiting = Job {
        suspension: Some(SINCE),
        ..job(Status::Waiting)
    };
    check(stop(waiting), json!("7"), json!(true), plain);
    let why = json!({"stopped": "now", "stop-reason": "why", "queued": null});
    let stop = |backend: &Kubernetes| backend.stop(&job(Status::Running), "why");
    check(stop, Value::Null, json!(true), why);
}

#[test]
fn what_lets_a_job_run_needs_its_version() {
    let since = json!("2021-04-07T11:55:56Z");
    let waiting = Job {
        suspension: Some(SINCE),
        ..job(Status::Waiting)
    };
    let admitted = json!({"queued": null, "earlier-suspension": since});
    check(|b| b.admit(&waiting), json!("7"), json!(false), admitted);
    let stopped = Job {
        suspension: Some(SINCE),
        ..job(Status::Stopped)
    };
    let resumed = |queued: Value, earlier: Value| {
        json!({
            "stopped": null, "stop-reason": null, "progress": null, "restarted": "now",
            "queued": queued, "earlier-suspension": earlier,
        })
    };
    let at_once = resumed(Value::Null, since);
    check(
        |b| b.resume(&stopped, None),
        json!("7"),
        json!(false),
        at_once,
    );
    let queued = Queued {
        priority: -3,
        arrival: 5,
    };
    let in_line = resumed(json!("-3/5"), Value::Null);
    check(
        |b| b.resume(&stopped, Some(queued)),
        json!("7"),
        json!(true),
        in_line,
    );
}

#[test]
fn notes_change_nothing_but_themselves() {
    let noted = json!({"earlier-suspension": null});
    let stopping = job(Status::Stopping);
    check(|b| b.note_stop(&stopping), json!("7"), Value::Null, noted);
    let hidden =
        |job: Job, key| move |backend: &Kubernetes| backend.hide(&job, key, backend.clock.now());
    let (kept, forgotten) = (HiddenKey::Kept, HiddenKey::Forgotten);
    let mark = json!({"deleted": "now"});
    check(
        hidden(job(Status::Failed), kept),
        Value::Null,
        Value::Null,
        mark.clone(),
    );
    // It may be restarted at this moment.
    check(
        hidden(job(Status::Stopped), kept),
        json!("7"),
        Value::Null,
        mark,
    );
    let forgets = json!({"deleted": "now", "idempotency": null});
    check(
        hidden(job(Status::Failed), forgotten),
        Value::Null,
        Value::Null,
        forgets,
    );
}

#[test]
fn a_deletion_is_of_this_very_job() {
    let delete = |answer: Result<String, ApiError>, condition| {
        let asked = asked(vec![answer], |b| b.delete(&job(Status::Failed), condition));
        let (call, body) = &asked.calls[0];
        assert!(
            call.starts_with("DELETE ") && call.ends_with(NAME),
            "{call}"
        );
        assert_eq!(body["propagationPolicy"], "Background");
        (asked.outcome, body["preconditions"].clone())
    };
    let (whatever, unchanged) = (Condition::Whatever, Condition::Unchanged);
    let done = || Ok("{}".to_string());
    assert_eq!(delete(done(), whatever), (Ok(true), json!({"uid": "u"})));
    let with_version = json!({"uid": "u", "resourceVersion": "7"});
    assert_eq!(delete(done(), unchanged), (Ok(true), with_version));
    let refused = |code, reason| Err(refusal(code, reason, ""));
    assert_eq!(delete(refused(404, "NotFound"), whatever).0, Ok(false));
    assert_eq!(delete(refused(409, "Conflict"), whatever).0, Ok(false));
    let changed = delete(refused(409, "Conflict"), unchanged).0;
    assert!(
        matches!(changed, Err(BackendError::Changed { .. })),
        "{changed:?}"
    );
    let unknown = delete(Err(lost()), whatever).0;
    assert!(
        matches!(unknown, Err(BackendError::Unanswered { .. })),
        "{unknown:?}"
    );
}

#[test]
fn a_change_of_another_job_of_the_name_finds_none() {
    let stop = |error| asked(vec![Err(error)], |b| b.stop(&job(Status::Running), "")).outcome;
    let other = stop(refusal(422, "Invalid", "metadata.uid"));
    assert!(matches!(other, Err(BackendError::Gone { .. })), "{other:?}");
    let invalid = stop(refusal(422, "Invalid", "spec"));
    assert!(
        matches!(invalid, Err(BackendError::Invalid { .. })),
        "{invalid:?}"
    );
    let changed = stop(refusal(409, "Conflict", ""));
    assert!(
        matches!(changed, Err(BackendError::Changed { .. })),
        "{changed:?}"
    );
    let unknown = stop(lost());
    assert!(
        matches!(unknown, Err(BackendError::Unanswered { .. })),
        "{unknown:?}"
    );
    let refused = stop(refusal(403, "Forbidden", ""));
    assert!(
        matches!(refused, Err(BackendError::Refused { .. })),
        "{refused:?}"
    );
}

/// What comes of a create, and of how many calls.
fn create(
    resend: Resend,
    payload: Option<&str>,
    answers: Vec<Result<String, ApiError>>,
) -> (String, usize) {
    let asked = asked(answers, |backend| {
        let settings = backend.component.settings.clone();
        let new = NewJob {
            name: JobName::parse(NAME).unwrap(),
            component: &backend.component,
            settings: &settings,
            job_id: Some("mine"),
            payload,
            key: None,
            priority: 0,
            queued: None,
        };
        told(backend.create(&new, resend))
    });
    (asked.outcome, asked.calls.len())
}

fn told(created: Result<Created, CreateError>) -> String {
    match created {
        Ok(created) => format!("created, may come again: {}", created.may_come_again),
        Err(CreateError::NameTaken) => "taken".to_string(),
        Err(CreateError::Nothing(e)) => format!("nothing: {e}"),
        Err(CreateError::Incomplete(e)) => format!("incomplete: {e}"),
        Err(CreateError::Unanswered(e)) => format!("unanswered: {e}"),
    }
}

#[test]
fn a_create_is_sent_again_until_its_outcome_is_known() {
    let (first, again) = (Resend::First, Resend::Again);
    let exists = || Err(refusal(409, "AlreadyExists", ""));
    let ok = || Ok(answer());
    let check = |resend, answers, expected: &str, calls| {
        let (outcome, count) = create(resend, None, answers);
        assert!(outcome.starts_with(expected), "{outcome}: {expected}");
        assert_eq!(count, calls, "{expected}");
    };
    check(first, vec![ok()], "created, may come again: false", 1);
    check(
        first,
        vec![Err(lost()), ok()],
        "created, may come again: true",
        2,
    );
    check(again, vec![ok()], "created, may come again: true", 1);
    check(first, vec![exists()], "taken", 1);
    // It is what was sent, as far as can be seen.
    check(
        first,
        vec![Err(lost()), exists(), ok()],
        "created, may come again: true",
        3,
    );
    check(
        again,
        vec![exists(), ok()],
        "created, may come again: true",
        2,
    );
    let another = answer().replace("mine", "other");
    check(again, vec![exists(), Ok(another)], "taken", 2);
    let gone = Err(refusal(404, "NotFound", ""));
    check(again, vec![exists(), gone], "unanswered", 2);
    let three = vec![Err(lost()), Err(lost()), Err(lost())];
    check(first, three, "unanswered", 3);
    let quota = || Err(refusal(403, "Forbidden", ""));
    check(first, vec![quota()], "nothing", 1);
    // It is the caller's to mend, and not Kubernetes'.
    for (code, reason) in [(400, "BadRequest"), (413, ""), (422, "Invalid")] {
        let refused = Err(refusal(code, reason, "spec"));
        let expected = "nothing: Kubernetes refuses the job: no";
        check(first, vec![refused], expected, 1);
    }
    check(first, vec![Err(lost()), quota()], "unanswered", 2);
    // A quota that another used at the same time.
    let busy = Err(refusal(409, "Conflict", ""));
    check(first, vec![busy, ok()], "created, may come again: false", 2);
}

#[test]
fn a_job_is_made_with_its_payload() {
    let (first, again) = (Resend::First, Resend::Again);
    let done = || Ok("{}".to_string());
    let refused = |code, reason| Err(refusal(code, reason, ""));
    let check = |resend, mut secret: Vec<Result<String, ApiError>>, expected: &str| {
        let calls = secret.len() + 1;
        secret.insert(0, Ok(answer()));
        let (outcome, count) = create(resend, Some("x"), secret);
        assert!(outcome.starts_with(expected), "{outcome}: {expected}");
        assert_eq!(count, calls, "{expected}");
    };
    check(first, vec![done()], "created, may come again: false");
    check(first, vec![refused(409, "AlreadyExists")], "created");
    check(first, vec![Err(lost()), done()], "created");
    check(first, vec![refused(403, "Forbidden")], "incomplete");
    // An earlier one may have stored it.
    check(again, vec![refused(403, "Forbidden")], "unanswered");
    check(
        first,
        vec![Err(lost()), refused(403, "Forbidden")],
        "unanswered",
    );
    check(
        first,
        vec![Err(lost()), Err(lost()), Err(lost())],
        "unanswered",
    );
}

#[test]
fn a_job_is_made_again_from_this_very_one() {
    let name = JobName::parse("compute-20210407115600-00000000").unwrap();
    let again = |answers| {
        let asked = asked(answers, |backend| {
            told(backend.recreate(&job(Status::Failed), &name, None))
        });
        (asked.outcome, asked.calls)
    };
    let (outcome, calls) = again(vec![Ok(answer()), Ok(answer())]);
    assert_eq!(outcome, "created, may come again: false");
    let [(get, _), (post, body)] = &calls[..] else {
        panic!("{calls:?}");
    };
    assert!(get.starts_with("GET ") && get.ends_with(NAME), "{get}");
    assert!(
        post.starts_with("POST ") && post.ends_with("/jobs"),
        "{post}"
    );
    assert_eq!(body["metadata"]["name"], name.as_str());
    assert_eq!(
        body["metadata"]["annotations"]["job-scheduler/restart-of"],
        NAME
    );
    let another = answer().replace(r#""uid":"u""#, r#""uid":"v""#);
    let (outcome, calls) = again(vec![Ok(another)]);
    assert!(
        outcome.starts_with("nothing: ") && calls.len() == 1,
        "{outcome}"
    );
    // The one that is found is what was sent, or not.
    let exists = || Err(refusal(409, "AlreadyExists", ""));
    let found = |old: &str| {
        let annotation = format!(r#""job-scheduler/restart-of":"{old}","job-scheduler/job-id""#);
        Ok(answer().replace(r#""job-scheduler/job-id""#, &annotation))
    };
    let sent = again(vec![Ok(answer()), Err(lost()), exists(), found(NAME)]);
    assert_eq!(sent.0, "created, may come again: true");
    let other = again(vec![Ok(answer()), Err(lost()), exists(), found("other")]);
    assert_eq!(other.0, "taken");
}

#[test]
fn a_payload_is_looked_for_under_the_name_of_its_owner() {
    let look = |job: Job, answer| {
        let asked = asked(vec![answer], |backend| backend.has_payload(&job));
        let (call, body) = asked.calls[0].clone();
        assert!(call.ends_with("/secrets?dryRun=All"), "{call}");
        (asked.outcome, body["metadata"]["name"].clone())
    };
    let own = || job(Status::Running);
    let exists = || Err(refusal(409, "AlreadyExists", ""));
    assert_eq!(look(own(), exists()), (Ok(true), json!(NAME)));
    assert_eq!(look(own(), Ok("{}".to_string())), (Ok(false), json!(NAME)));
    let refused = look(own(), Err(refusal(403, "Forbidden", ""))).0;
    assert!(
        matches!(refused, Err(BackendError::Refused { .. })),
        "{refused:?}"
    );
    let other = Job {
        rare: RareFields {
            payload_of: JobName::parse("compute-1"),
            ..RareFields::NONE
        }
        .into(),
        ..own()
    };
    assert_eq!(look(other, exists()).1, json!("compute-1"));
}

#[test]
fn a_log_that_is_not_there_is_empty_or_gone() {
    let log = |attempt, answers| {
        let asked = asked(answers, |backend| {
            let attempts = vec![Attempt::sample("p", AttemptState::Failed, 1)];
            let record = JobRecord::new(job(Status::Failed), attempts);
            let mut text = String::new();
            let mut log = backend.logs(&record, attempt, LogOptions::default())?;
            log.read_to_string(&mut text).unwrap();
            Ok::<_, BackendError>(text)
        });
        (asked.outcome, asked.calls.len())
    };
    let refused = |code, reason| vec![Err(refusal(code, reason, ""))];
    let text = |text: &str| Ok(text.to_string());
    assert_eq!(log(0, vec![Ok("hello".to_string())]), (text("hello"), 1));
    assert_eq!(log(1, vec![]), (text(""), 0));
    assert_eq!(log(0, refused(400, "BadRequest")), (text(""), 1));
    let gone = log(0, refused(404, "NotFound")).0;
    assert!(matches!(gone, Err(BackendError::Gone { .. })), "{gone:?}");
    let forbidden = log(0, refused(403, "Forbidden")).0;
    assert!(
        matches!(forbidden, Err(BackendError::Refused { .. })),
        "{forbidden:?}"
    );
}

#[test]
fn who_is_about_to_delete_a_job_for_the_lack_of_a_payload_finds_it_stored() {
    let (stored, answered) = (|| Ok("{}".to_string()), || Ok(answer()));
    let store = |answers| {
        asked(answers, |backend| {
            backend.store_payload(&job(Status::Running), "p")
        })
    };
    let made = store(vec![answered(), stored(), answered()]);
    assert_eq!(made.outcome, Ok(()));
    let [(before, first), (secret, _), (after, last)] = &made.calls[..] else {
        panic!("{:?}", made.calls);
    };
    assert!(secret.starts_with("POST") && secret.ends_with("/secrets"));
    for note in [before, after] {
        assert!(note.starts_with("PATCH") && note.ends_with(NAME), "{note}");
    }
    let noted = |change: &Value| change["metadata"]["annotations"]["job-scheduler/stored"].clone();
    assert!(noted(first).is_string() && noted(last).is_string());
    assert_ne!(noted(first), noted(last), "that would be no change");
    // Nor is what an earlier send noted.
    let again = store(vec![answered(), stored(), answered()]);
    assert_ne!(noted(&again.calls[0].1), noted(first));
    // Deleted before that, it gets none; deleted since, nobody may be told of it.
    let gone = || Err(refusal(404, "NotFound", ""));
    for (answers, calls) in [(vec![gone()], 1), (vec![answered(), stored(), gone()], 3)] {
        let deleted = store(answers);
        let outcome = deleted.outcome;
        assert!(
            matches!(outcome, Err(BackendError::Gone { .. })),
            "{outcome:?}"
        );
        assert_eq!(deleted.calls.len(), calls);
    }
}

#[test]
fn the_attempts_of_a_job_are_its_own() {
    let pod = |name: &str, job: &str| {
        let labels = json!({
            "batch.kubernetes.io/job-name": job, "batch.kubernetes.io/controller-uid": "u",
        });
        json!({
            "metadata": {
                "name": name, "uid": name, "resourceVersion": "8", "labels": labels,
                "creationTimestamp": "2021-04-07T11:55:56Z",
            },
            "spec": {"nodeName": "n"},
            "status": {"phase": "Running"},
        })
    };
    let items = [pod("p", NAME), pod("q", "other")];
    let list = json!({"metadata": {"resourceVersion": "9"}, "items": items});
    let name = JobName::parse(NAME).unwrap();
    let asked = asked(vec![Ok(list.to_string())], |backend| {
        backend.attempts(&name)
    });
    let attempts = asked.outcome.unwrap();
    let names: Vec<&str> = attempts.iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["p"]);
    let (call, _) = &asked.calls[0];
    assert!(
        call.contains("/pods?labelSelector=batch.kubernetes.io%2Fjob-name%3D"),
        "{call}"
    );
}
