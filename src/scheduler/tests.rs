//! What the scheduler decides by itself. What follows from its calls, the simulation has.

use super::*;
use crate::backend::kubernetes::api::ApiError;
use crate::backend::kubernetes::tests::{NAME, Script, answer, refusal, scripted};
use crate::backend::{CreateError, Created, HiddenKey};
use crate::index::Flight;
use crate::job::{
    Attempt, AttemptState, BatchPart, Job, JobList, Rare, RareFields, RequestKey, Sent,
};
use crate::request::{JobRequest, MAX_PAYLOAD_BYTES, request_key};
use crate::{config, golden};

/// A scheduler that knows of one job, and its API server, which gives these answers.
fn with_job(status: Status, answers: Vec<String>) -> (Scheduler, Arc<Script>) {
    with_answers(status, answers.into_iter().map(Ok).collect())
}

fn with_answers(
    status: Status,
    answers: Vec<Result<String, ApiError>>,
) -> (Scheduler, Arc<Script>) {
    with_bounds(status, answers, 0, 9)
}

/// The same where so many may run, and so many be unfinished.
fn with_bounds(
    status: Status,
    answers: Vec<Result<String, ApiError>>,
    running: usize,
    unfinished: usize,
) -> (Scheduler, Arc<Script>) {
    let (script, backend) = scripted(answers);
    let config = config::load(&golden::testdata("objects/minimal.yaml")).unwrap();
    let component = config.job_components("dev").unwrap().remove(0);
    let bounds = Bounds {
        unfinished,
        running,
        waiting: 9,
    };
    let limits = Limits { history: 1, bounds };
    let (clock, metrics) = (Clock::real(), Arc::default());
    let scheduler = Scheduler::new(component, Arc::new(backend), limits, clock, metrics);
    let observer: &dyn crate::backend::Observer = &scheduler;
    let begun = observer.jobs_relist_begins();
    let jobs = vec![Job::sample(NAME, status, 7)];
    observer.jobs_relisted(JobList { jobs, version: 7 }, begun);
    assert!(!scheduler.is_ready(), "its attempts are not known");
    observer.attempts_relisted(Vec::new());
    assert!(scheduler.is_ready());
    (scheduler, script)
}

/// Does all that is due.
fn work_off(scheduler: &Scheduler) {
    let due = || scheduler.next_task_due();
    while due().is_some_and(|due| due <= scheduler.clock.instant()) {
        scheduler.work_once();
    }
}

#[test]
fn a_job_that_is_still_being_made_is_not_deleted() {
    let (scheduler, script) = with_job(Status::Running, vec!["{}".to_string()]);
    let name = JobName::parse(NAME).unwrap();
    let create = scheduler.index.begin(&name, Flight::Create);
    let refused = scheduler.delete(NAME).unwrap_err();
    let is_unavailable = matches!(refused, JobError::Backend(BackendError::Unavailable { .. }));
    assert!(
        is_unavailable && script.calls.lock().is_empty(),
        "{refused:?}"
    );
    drop(create);
    assert_eq!(scheduler.delete(NAME).unwrap(), name);
    assert_eq!(script.calls.lock().len(), 1);
    assert!(matches!(
        scheduler.get(NAME),
        Err(JobError::NotFound { .. })
    ));
}

#[test]
fn a_payload_may_have_a_mebibyte() {
    let (scheduler, script) = with_job(Status::Running, vec![]);
    let submit = |bytes: usize| {
        let request = JobRequest {
            payload: Some("x".repeat(bytes)),
            ..JobRequest::default()
        };
        scheduler.submit(&request, None).unwrap_err()
    };
    let too_large = submit(MAX_PAYLOAD_BYTES + 1);
    assert!(matches!(
        too_large,
        SubmitError::PayloadTooLarge {
            index: None,
            bytes: 1_048_577
        }
    ));
    let too_large = submit(MAX_PAYLOAD_BYTES + 2);
    assert!(matches!(too_large, SubmitError::PayloadTooLarge { .. }));
    // The component takes none.
    assert!(matches!(submit(MAX_PAYLOAD_BYTES), SubmitError::Fields(_)));
    assert!(script.calls.lock().is_empty());
}

#[test]
fn a_request_with_a_key_is_kept_with_when_it_was_sent() {
    let (scheduler, script) = with_job(Status::Running, vec![answer()]);
    let key = request_key("k", b"{}").unwrap();
    // Before all is known that was asked for earlier, none is taken.
    let early = scheduler
        .submit(&JobRequest::default(), Some(key))
        .unwrap_err();
    assert!(matches!(
        early,
        SubmitError::Backend(BackendError::Unavailable { .. })
    ));
    assert!(script.calls.lock().is_empty());
    scheduler.all_is_known.store(true, Ordering::Release);
    let before = scheduler.clock.micros();
    let _ = scheduler.submit(&JobRequest::default(), Some(key));
    let calls = script.calls.lock();
    let sent = calls[0].1["metadata"]["annotations"]["job-scheduler/idempotency"].as_str();
    let (_, sent) = sent.unwrap().split_once('/').unwrap();
    let (version, micros) = sent.split_once('/').unwrap();
    assert_eq!(version, "7");
    assert!(micros.parse::<u64>().unwrap() >= before);
    let unsent = RequestKey {
        sent: Sent::default(),
        ..key
    };
    assert_eq!(key, unsent);
}

#[test]
fn jobs_are_counted_by_status() {
    let (scheduler, _) = with_job(Status::Failed, vec![]);
    let gauges = scheduler.gauges();
    let counts = Status::ALL.iter().zip(gauges.jobs);
    for (status, count) in counts {
        assert_eq!(count, usize::from(*status == Status::Failed), "{status}");
    }
    assert_eq!(gauges.followers, 0);
    let follower = scheduler.follower().unwrap();
    assert_eq!(scheduler.gauges().followers, 1);
    drop(follower);
}

#[test]
fn what_cannot_be_is_refused_without_a_call() {
    let (scheduler, script) = with_job(Status::Running, vec![]);
    let refused = scheduler.restart(NAME).unwrap_err();
    assert!(matches!(refused, JobError::BadState { .. }), "{refused:?}");
    let unknown = scheduler.restart("other").unwrap_err();
    assert!(matches!(unknown, JobError::NotFound { .. }), "{unknown:?}");
    let _places: Vec<_> = (1..9).map(|_| scheduler.index.reserve().unwrap()).collect();
    let full = scheduler.submit(&JobRequest::default(), None).unwrap_err();
    assert!(matches!(
        full,
        SubmitError::Full(Full::Unfinished { limit: 9 })
    ));
    assert!(script.calls.lock().is_empty());
}

#[test]
fn one_that_somebody_let_run_is_looked_after_though_it_is_hidden() {
    let missing = "{}".to_string();
    let (scheduler, script) = with_job(Status::Stopped, vec![missing, answer()]);
    let observer: &dyn crate::backend::Observer = &scheduler;
    let hidden = |status, version| Job {
        hidden: true,
        has_payload: true,
        ..Job::sample(NAME, status, version)
    };
    observer.job_seen(hidden(Status::Stopped, 8));
    observer.job_seen(hidden(Status::Running, 9));
    let name = JobName::parse(NAME).unwrap();
    let pod = Attempt::sample("p", AttemptState::Pending, 10);
    observer.attempt_seen(&name, pod);
    scheduler.perform(&Task::FindPayload(name)).unwrap();
    let calls = script.calls.lock();
    let [(dry_run, _), (stop, body)] = &calls[..] else {
        panic!("{calls:?}");
    };
    assert!(dry_run.starts_with("POST") && dry_run.contains("/secrets?dryRun=All"));
    assert!(stop.starts_with("PATCH") && stop.ends_with(NAME));
    assert_eq!(body["spec"]["suspend"], true);
}

#[test]
fn what_has_changed_meanwhile_is_looked_at_and_tried_again() {
    let stopped = answer()
        .replace(
            "mine\"",
            "mine\",\"job-scheduler/stopped\":\"2021-04-07T11:56:00Z\"",
        )
        .replace("\"spec\":{}", "\"spec\":{\"suspend\":true}")
        .replace(
            "\"status\":{}",
            "\"status\":{\"conditions\":[{\"type\":\"Suspended\",\"status\":\"True\"}]}",
        );
    let resumed = answer().replace("\"resourceVersion\":\"8\"", "\"resourceVersion\":\"9\"");
    let changed = refusal(409, "Conflict", "");
    let answers = vec![Err(changed), Ok(stopped), Ok(resumed)];
    let (scheduler, script) = with_answers(Status::Stopped, answers);
    let view = scheduler.restart(NAME).unwrap();
    assert_eq!(view.record.job.status, Status::Running);
    let calls = script.calls.lock();
    let versions = calls.iter().filter_map(|(_, body)| {
        let version = body.pointer("/metadata/resourceVersion")?.as_str()?;
        Some(version.to_string())
    });
    let versions: Vec<_> = versions.collect();
    assert_eq!(versions, ["7", "8"]);
}

#[test]
fn a_payload_is_not_looked_for_while_it_may_come() {
    let (scheduler, script) = with_job(Status::Stopped, vec!["{}".to_string(), answer()]);
    let observer: &dyn crate::backend::Observer = &scheduler;
    observer.job_seen(Job {
        has_payload: true,
        ..Job::sample(NAME, Status::Running, 8)
    });
    let name = JobName::parse(NAME).unwrap();
    observer.attempt_seen(&name, Attempt::sample("p", AttemptState::Pending, 9));
    let look = |calls: usize| {
        scheduler.perform(&Task::FindPayload(name.clone())).unwrap();
        assert_eq!(script.calls.lock().len(), calls);
    };
    // It may be half of a submit, which is another task's to find out.
    look(0);
    scheduler.index.confirm(&name);
    scheduler.index.may_come_again(&name, false);
    look(0);
}

#[test]
fn a_payload_is_gone_with_the_job_that_had_it_and_nobody_is_asked() {
    let (scheduler, script) = with_job(Status::Running, vec!["{}".to_string()]);
    let of = |owner: &str| {
        let fields = RareFields {
            payload_of: JobName::parse(owner),
            ..RareFields::NONE
        };
        let rare = Rare::from(fields);
        Job {
            rare,
            ..Job::sample("copy", Status::Running, 8)
        }
    };
    assert!(!scheduler.has_payload(&of("gone")).unwrap());
    assert!(script.calls.lock().is_empty());
    // The dry run says that there is no such Secret.
    assert!(!scheduler.has_payload(&of(NAME)).unwrap());
    assert_eq!(script.calls.lock().len(), 1);
}

/// Its request, sent again, stores it anew.
#[test]
fn a_payload_is_not_looked_for_while_its_batch_is_made() {
    let (scheduler, script) = with_job(Status::Stopped, vec!["{}".to_string(), answer()]);
    let observer: &dyn crate::backend::Observer = &scheduler;
    let of = JobName::parse("whole").unwrap();
    let with = |batch| {
        let fields = RareFields::NONE;
        Rare::from(RareFields {
            batch: Some(batch),
            ..fields
        })
    };
    let whole = |is_complete, version| Job {
        rare: with(BatchPart::Whole {
            id: None,
            size: 1,
            is_complete,
        }),
        ..Job::sample("whole", Status::Waiting, version)
    };
    observer.job_seen(whole(false, 8));
    observer.job_seen(Job {
        has_payload: true,
        rare: with(BatchPart::Member {
            of,
            index: 0,
            payload: Some("whole-payloads-u-0".into()),
        }),
        ..Job::sample("whole-1", Status::Running, 9)
    });
    let name = JobName::parse("whole-1").unwrap();
    observer.attempt_seen(&name, Attempt::sample("p", AttemptState::Pending, 10));
    let look = || scheduler.perform(&Task::FindPayload(name.clone())).unwrap();
    look();
    assert!(script.calls.lock().is_empty());
    observer.job_seen(whole(true, 11));
    look();
    let calls = script.calls.lock();
    let calls: Vec<&str> = calls.iter().map(|(call, _)| &call[..4]).collect();
    assert_eq!(calls, ["POST", "PATC"]);
}

/// The part may become a job if this process ends.
#[test]
fn while_a_part_of_a_request_is_there_nothing_of_it_is_refused_for_certain() {
    let refused = || Err(refusal(403, "Forbidden", ""));
    let gone = Err(refusal(404, "NotFound", ""));
    let away = Err(refusal(503, "ServiceUnavailable", ""));
    let answers = vec![away, refused(), gone, refused()];
    let (scheduler, _) = with_answers(Status::Running, answers);
    scheduler.all_is_known.store(true, Ordering::Release);
    let key = request_key("k", b"{}").unwrap();
    let name = JobName::parse("half").unwrap();
    let message = "exceeded quota".to_string();
    let half = CreateError::Incomplete(BackendError::Refused { message });
    let met = scheduler.created(Err(half), &name, Some(key)).unwrap_err();
    assert!(matches!(met, BackendError::Unanswered { .. }), "{met:?}");
    let submit = || match scheduler.submit(&JobRequest::default(), Some(key)) {
        Err(SubmitError::Backend(e)) => e,
        other => panic!("{other:?}"),
    };
    let met = submit();
    assert!(matches!(met, BackendError::Unanswered { .. }), "{met:?}");
    scheduler.perform(&Task::Discard(name)).unwrap();
    let met = submit();
    assert!(matches!(met, BackendError::Refused { .. }), "{met:?}");
}

/// Another scheduler may store the payload between the look for it and the deletion.
#[test]
fn half_of_a_submit_is_deleted_only_as_it_was_before_its_payload_was_looked_for() {
    let own = format!("mine\",\"job-scheduler/payload\":\"{NAME}\"");
    let half = || answer().replace("mine\"", &own);
    let changed = || Err(refusal(409, "Conflict", ""));
    let missing = || Ok("{}".to_string());
    let pods = || Ok(r#"{"metadata":{},"items":[]}"#.to_string());
    let answers = vec![Ok(half()), missing(), pods(), changed()];
    let again = vec![Ok(half()), missing(), pods(), missing()];
    let answers = answers.into_iter().chain(again).collect();
    let (scheduler, script) = with_answers(Status::Running, answers);
    let observer: &dyn crate::backend::Observer = &scheduler;
    observer.job_seen(Job {
        has_payload: true,
        ..Job::sample(NAME, Status::Waiting, 8)
    });
    let name = JobName::parse(NAME).unwrap();
    let verify = || scheduler.perform(&Task::Verify(name.clone()));
    let met = verify().unwrap_err();
    assert!(matches!(met, BackendError::Changed { .. }), "{met:?}");
    assert!(scheduler.get(NAME).is_ok());
    verify().unwrap();
    assert!(scheduler.get(NAME).is_err());
    let calls = script.calls.lock();
    let deletions = calls.iter().filter(|(call, _)| call.starts_with("DELETE"));
    for (_, body) in deletions {
        assert_eq!(body["preconditions"]["resourceVersion"], "8");
    }
    assert_eq!(calls.len(), 8);
}

/// The watch may be late to tell of that, and another scheduler may have told its request.
#[test]
fn half_of_a_submit_that_has_ended_stays() {
    let ended = r#""status":{"conditions":[{"type":"Failed","status":"True"}]}"#;
    let own = format!("mine\",\"job-scheduler/payload\":\"{NAME}\"");
    let half = answer().replace("mine\"", &own);
    let half = half.replace(r#""status":{}"#, ended);
    let half = half.replace(r#"Version":"8""#, r#"Version":"9""#);
    let (scheduler, script) = with_answers(Status::Running, vec![Ok(half)]);
    let observer: &dyn crate::backend::Observer = &scheduler;
    observer.job_seen(Job {
        has_payload: true,
        ..Job::sample(NAME, Status::Running, 8)
    });
    let name = JobName::parse(NAME).unwrap();
    scheduler.perform(&Task::Verify(name)).unwrap();
    assert_eq!(script.calls.lock().len(), 1);
    assert_eq!(
        scheduler.get(NAME).unwrap().record.job.status,
        Status::Failed
    );
}

#[test]
fn a_stop_of_all_is_one_of_each_that_can_be_stopped() {
    let (scheduler, script) = with_job(Status::Running, vec![answer()]);
    let observer: &dyn crate::backend::Observer = &scheduler;
    observer.job_seen(Job::sample("done", Status::Succeeded, 8));
    observer.job_seen(Job::sample("going", Status::Stopping, 9));
    assert_eq!(scheduler.stop_all().unwrap(), 1);
    let calls = script.calls.lock();
    let [(call, body)] = &calls[..] else {
        panic!("{calls:?}");
    };
    assert!(call.starts_with("PATCH") && call.ends_with(NAME), "{call}");
    assert_eq!(body["spec"]["suspend"], true);
}

/// Whoever else would come for it was told that there is no place while this one held it.
#[test]
fn a_job_that_has_changed_is_admitted_as_it_is_by_then() {
    let queued = |version: u64| {
        let place = r#"mine","job-scheduler/queued":"0/5""#;
        let job = answer().replace("mine\"", place);
        let job = job.replace("\"spec\":{}", "\"spec\":{\"suspend\":true}");
        Ok(job.replace(r#""8""#, &format!("\"{version}\"")))
    };
    let changed = Err(refusal(409, "Conflict", ""));
    let admitted = Ok(answer().replace(r#""8""#, r#""10""#));
    let answers = vec![changed, queued(9), admitted];
    let (scheduler, script) = with_answers(Status::Succeeded, answers);
    let observer: &dyn crate::backend::Observer = &scheduler;
    let place = crate::job::Queued {
        priority: 0,
        arrival: 5,
    };
    observer.job_seen(Job {
        queued: Some(place),
        ..Job::sample(NAME, Status::Waiting, 8)
    });
    scheduler.perform(&Task::Admit).unwrap();
    let calls = script.calls.lock();
    let calls: Vec<&str> = calls.iter().map(|(call, _)| &call[..3]).collect();
    assert_eq!(calls, ["PAT", "GET", "PAT"]);
    let status = scheduler.get(NAME).unwrap().record.job.status;
    assert_eq!(status, Status::Running);
}

#[test]
fn a_batch_that_is_not_there_is_not_waited_for() {
    let (scheduler, _) = with_job(Status::Running, vec![]);
    for name in [NAME, "other"] {
        let name = JobName::parse(name).unwrap();
        assert!(!scheduler.is_batch_unfinished(&name));
    }
}

#[test]
fn workers_go_when_the_scheduler_ends() {
    let (scheduler, _) = with_job(Status::Succeeded, vec![]);
    let scheduler = Arc::new(scheduler);
    let (sender, ended) = std::sync::mpsc::channel();
    let worker = scheduler.clone();
    std::thread::spawn(move || {
        worker.work();
        sender.send(()).unwrap();
    });
    scheduler.end();
    ended.recv_timeout(Duration::from_secs(60)).unwrap();
}

#[test]
fn jobs_of_a_batch_arrive_one_after_the_other_and_before_all_that_come_later() {
    let (scheduler, _) = with_job(Status::Running, vec![]);
    let first = scheduler.arrivals(5);
    assert!(first > 0 && scheduler.clock.unique_micros() > first + 5);
}

#[test]
fn submits_are_counted_by_what_came_of_them() {
    let (scheduler, _) = with_job(Status::Running, vec![answer()]);
    scheduler.submit(&JobRequest::default(), None).unwrap();
    let payload = Some("x".repeat(MAX_PAYLOAD_BYTES + 1));
    let refused = JobRequest {
        payload,
        ..JobRequest::default()
    };
    scheduler.submit(&refused, None).unwrap_err();
    let process = crate::process::Process::read();
    let text = scheduler.metrics().render(&scheduler.gauges(), &process);
    for outcome in ["created", "refused"] {
        let line = format!("job_scheduler_submits_total{{outcome=\"{outcome}\"}} 1\n");
        assert!(text.contains(&line), "{outcome}");
    }
}

#[test]
fn jobs_and_pods_are_watched_from_the_start() {
    let refused = || Err(refusal(403, "Forbidden", ""));
    let (script, backend) = scripted((0..100).map(|_| refused()).collect());
    let (scheduler, _) = with_job(Status::Running, vec![]);
    let observer: Arc<dyn crate::backend::Observer> = Arc::new(scheduler);
    Arc::new(backend).watch(&observer).unwrap();
    let is_listed = |kind: &str| {
        let calls = script.calls.lock();
        calls.iter().any(|(call, _)| call.contains(kind))
    };
    let began = Instant::now();
    while !(is_listed("/jobs?") && is_listed("/pods?")) {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::yield_now();
    }
}

#[test]
fn a_batch_has_an_outcome_once_all_of_it_has_finished() {
    use Status::{Failed, Running, Stopped, Stopping, Succeeded};
    let outcome = |statuses: &[Status]| {
        let (scheduler, _) = with_job(Status::Running, vec![]);
        let records = statuses.iter().zip(1..).map(|(status, version)| {
            let record = crate::job::JobRecord::new(Job::sample("j", *status, version), vec![]);
            scheduler.view(Arc::new(record))
        });
        let jobs: Vec<JobView> = records.collect();
        let whole = scheduler.get(NAME).unwrap().record;
        BatchView { whole, jobs }.outcome()
    };
    assert_eq!(outcome(&[Succeeded, Succeeded]), Some(Succeeded));
    assert_eq!(outcome(&[Succeeded, Stopped]), Some(Stopped));
    assert_eq!(outcome(&[Failed, Stopped, Succeeded]), Some(Failed));
    assert_eq!(outcome(&[Failed, Running]), None);
    assert_eq!(outcome(&[Stopping, Succeeded]), None);
    // Somebody deleted its jobs.
    assert_eq!(outcome(&[]), Some(Succeeded));
}

/// A scheduler that knows of a batch, `b`, of jobs with these statuses, and its API server, which
/// has no answer.
fn with_batch(statuses: &[Status]) -> (Scheduler, Arc<Script>) {
    let (scheduler, script) = with_job(Status::Running, vec![]);
    scheduler.all_is_known.store(true, Ordering::Release);
    see_batch(&scheduler, "b", statuses, 8);
    (scheduler, script)
}

fn see_batch(scheduler: &Scheduler, batch: &str, statuses: &[Status], version: u64) {
    use crate::job::{BatchPart, RareFields};
    let observer: &dyn crate::backend::Observer = scheduler;
    let see = |name: &str, status: Status, part: BatchPart| {
        let rare = RareFields {
            batch: Some(part),
            ..RareFields::NONE
        };
        observer.job_seen(Job {
            rare: rare.into(),
            ..Job::sample(name, status, version)
        });
    };
    let whole = BatchPart::Whole {
        id: None,
        size: 2,
        is_complete: true,
    };
    see(batch, Status::Waiting, whole);
    for (index, status) in (0..).zip(statuses) {
        let member = BatchPart::Member {
            of: JobName::parse(batch).unwrap(),
            index,
            payload: None,
        };
        see(&format!("{batch}-{index}"), *status, member);
    }
}

#[test]
fn no_job_is_restarted_of_a_batch_that_is_on_its_way_out() {
    let (scheduler, script) = with_batch(&[Status::Failed]);
    let batch = JobName::parse("b").unwrap();
    let _deletion = scheduler.index.begin(&batch, Flight::Deletion);
    let refused = scheduler.restart("b-0").unwrap_err();
    let is_unavailable = matches!(refused, JobError::Backend(BackendError::Unavailable { .. }));
    assert!(is_unavailable, "{refused:?}");
    assert!(script.calls.lock().is_empty());
}

#[test]
fn of_a_batch_is_done_again_what_has_finished_without_success() {
    for statuses in [
        [Status::Succeeded, Status::Running],
        [Status::Waiting, Status::Stopping],
    ] {
        let (scheduler, script) = with_batch(&statuses);
        assert!(scheduler.is_batch_unfinished(&JobName::parse("b").unwrap()));
        let refused = scheduler.restart_batch("b", false).unwrap_err();
        assert!(matches!(refused, JobError::BadState { .. }), "{refused:?}");
        assert!(script.calls.lock().is_empty());
    }
}

#[test]
fn a_job_whose_payload_is_gone_is_not_restarted() {
    let restart = |answers| {
        let (scheduler, script) = with_answers(Status::Running, answers);
        scheduler.all_is_known.store(true, Ordering::Release);
        let observer: &dyn crate::backend::Observer = &scheduler;
        observer.job_seen(Job {
            has_payload: true,
            ..Job::sample(NAME, Status::Failed, 8)
        });
        let restarted = scheduler.restart(NAME).map(|_| ());
        let calls = script.calls.lock().len();
        (restarted, calls)
    };
    let (gone, calls) = restart(vec![Ok("{}".to_string())]);
    assert!(matches!(gone, Err(JobError::BadState { .. })), "{gone:?}");
    assert_eq!(calls, 1);
    // It is there, and of another job by the time that this one is looked at.
    let exists = Err(refusal(409, "AlreadyExists", ""));
    let (other, calls) = restart(vec![exists, Ok(answer().replace("\"u\"", "\"v\""))]);
    assert!(matches!(other, Err(JobError::NotFound { .. })), "{other:?}");
    assert_eq!(calls, 2);
}

/// Retention leaves it alone until then.
#[test]
fn one_that_is_deleted_while_it_is_done_again_goes_afterwards() {
    let again = answer().replace(NAME, "again");
    let answers = vec![Ok(answer()), Ok(again), Ok("{}".to_string())];
    let (scheduler, script) = with_answers(Status::Failed, answers);
    scheduler.all_is_known.store(true, Ordering::Release);
    let old = scheduler.get(NAME).unwrap().record.job.clone();
    let observer: &dyn crate::backend::Observer = &scheduler;
    let pin = scheduler.index.begin(&old.name, Flight::Pin);
    observer.job_seen(Job {
        hidden: true,
        version: 8,
        ..old.clone()
    });
    work_off(&scheduler);
    assert!(script.calls.lock().is_empty());
    drop(pin);
    scheduler.recreate(&old).unwrap();
    work_off(&scheduler);
    let calls = script.calls.lock();
    let calls: Vec<_> = calls.iter().map(|(call, _)| call.as_str()).collect();
    let [_, create, delete] = &calls[..] else {
        panic!("{calls:?}");
    };
    assert!(create.starts_with("POST"), "{create}");
    assert!(
        delete.starts_with("DELETE") && delete.ends_with(NAME),
        "{delete}"
    );
}

#[test]
fn a_job_of_a_batch_has_a_short_name_too() {
    let (scheduler, _) = with_batch(&[Status::Failed, Status::Running]);
    let named = |job: &str| {
        scheduler
            .job_in_batch("b", job)
            .map(|name| name.to_string())
    };
    assert_eq!(named("1").unwrap(), "b-1");
    assert_eq!(named("B-0").unwrap(), "b-0");
    assert!(matches!(named("2"), Err(JobError::NotFound { .. })));
    assert!(matches!(named("b"), Err(JobError::NotFound { .. })));
}

#[test]
fn the_latest_batch_of_an_outcome_is_kept() {
    let (scheduler, script) = with_answers(Status::Running, vec![Ok("{}".to_string())]);
    see_batch(&scheduler, "b", &[Status::Failed, Status::Succeeded], 8);
    see_batch(&scheduler, "c", &[Status::Succeeded], 9);
    see_batch(&scheduler, "d", &[Status::Stopped, Status::Failed], 10);
    see_batch(&scheduler, "e", &[Status::Failed, Status::Running], 11);
    scheduler.perform(&Task::Retain).unwrap();
    assert_eq!(scheduler.metrics.retired.load(Ordering::Relaxed), 2);
    let batches = scheduler.batches().unwrap();
    let names: Vec<&str> = batches
        .iter()
        .map(|one| one.whole.job.name.as_str())
        .collect();
    assert_eq!(names, ["c", "d", "e"]);
    let calls = script.calls.lock();
    let [(call, _)] = &calls[..] else {
        panic!("{calls:?}");
    };
    assert!(call.starts_with("DELETE") && call.ends_with("/b"), "{call}");
}

/// That its pod started shows it, of which the watch or its list may tell after its end.
#[test]
fn one_that_turns_out_to_have_been_whole_is_looked_at_by_retention() {
    let later = JobName::parse("later").unwrap();
    let started = Attempt {
        started: Some(Timestamp::at(1)),
        ..Attempt::sample("p", AttemptState::Failed, 9)
    };
    for is_listed in [true, false] {
        let (scheduler, script) = with_answers(Status::Stopped, vec![Ok("{}".to_string())]);
        let observer: &dyn crate::backend::Observer = &scheduler;
        observer.job_seen(Job {
            has_payload: true,
            ..Job::sample("later", Status::Stopped, 8)
        });
        let calls = || {
            work_off(&scheduler);
            script.calls.lock().len()
        };
        assert_eq!(calls(), 0);
        match is_listed {
            true => observer.attempts_relisted(vec![(later.clone(), started.clone())]),
            false => observer.attempt_seen(&later, started.clone()),
        }
        assert_eq!(calls(), 1);
    }
}

#[test]
fn a_batch_is_let_go_though_somebody_deleted_its_jobs() {
    let (scheduler, script) = with_answers(Status::Running, vec![Ok("{}".to_string())]);
    see_batch(&scheduler, "b", &[], 8);
    see_batch(&scheduler, "c", &[Status::Succeeded], 9);
    scheduler.perform(&Task::Retain).unwrap();
    assert_eq!(scheduler.batches().unwrap().len(), 1);
    let calls = script.calls.lock();
    let call = calls.first().map(|(call, _)| call.as_str());
    assert!(call.is_some_and(|call| call.starts_with("DELETE") && call.ends_with("/b")));
}

#[test]
fn no_job_is_restarted_of_a_batch_that_may_have_left_its_users_sight() {
    let away = Err(refusal(504, "Timeout", ""));
    let (scheduler, script) = with_answers(Status::Running, vec![away]);
    scheduler.all_is_known.store(true, Ordering::Release);
    see_batch(&scheduler, "b", &[Status::Stopped], 8);
    let whole = scheduler.batch("b").unwrap().whole;
    let hide = scheduler.hide(&whole.job, HiddenKey::Kept, scheduler.now());
    assert!(
        matches!(hide, Err(BackendError::Unanswered { .. })),
        "{hide:?}"
    );
    let refused = scheduler.restart("b-0").unwrap_err();
    let is_unavailable = matches!(refused, JobError::Backend(BackendError::Unavailable { .. }));
    assert!(is_unavailable, "{refused:?}");
    assert_eq!(script.calls.lock().len(), 1);
}

/// The process before this one may have let it go, which is known a moment after the start.
#[test]
fn no_job_is_restarted_of_a_batch_before_it_is_known_whether_that_is_let_go() {
    let (scheduler, script) = with_batch(&[Status::Stopped]);
    scheduler.all_is_known.store(false, Ordering::Release);
    let whole = scheduler.batch("b").unwrap().whole.job.clone();
    let restarted = std::thread::scope(|scope| {
        let restart = scope.spawn(|| scheduler.restart("b-0"));
        std::thread::sleep(std::time::Duration::from_millis(200));
        let observer: &dyn crate::backend::Observer = &scheduler;
        observer.job_seen(Job {
            hidden: true,
            version: 20,
            ..whole
        });
        scheduler.all_is_known.store(true, Ordering::Release);
        restart.join().unwrap()
    });
    assert!(
        matches!(restarted, Err(JobError::NotFound { .. })),
        "{restarted:?}"
    );
    assert!(script.calls.lock().is_empty());
}

#[test]
fn whether_a_deletion_was_carried_out_late_is_looked_at() {
    let gone = Err(refusal(404, "NotFound", ""));
    let (scheduler, script) = with_answers(Status::Failed, vec![gone]);
    let name = JobName::parse(NAME).unwrap();
    let forget = || scheduler.perform(&Task::Forget(name.clone())).unwrap();
    forget();
    assert!(script.calls.lock().is_empty());
    scheduler.index.deletion_unanswered(&name);
    forget();
    assert!(scheduler.get(NAME).is_err());
    assert_eq!(script.calls.lock().len(), 1);
}

/// And takes no place of another meanwhile: it would be held back.
#[test]
fn a_job_of_a_batch_that_may_come_again_is_unwanted_once_it_is_deleted() {
    let (scheduler, _) = with_bounds(Status::Succeeded, vec![], 1, 9);
    see_batch(&scheduler, "b", &[Status::Failed, Status::Waiting], 8);
    scheduler.index.conclude_all();
    scheduler.index.open();
    let job = scheduler.get("b-0").unwrap().record.job.clone();
    let observer: &dyn crate::backend::Observer = &scheduler;
    let created = Created {
        job: job.clone(),
        may_come_again: true,
    };
    observer.job_seen(Job {
        queued: Some(crate::job::Queued {
            priority: 0,
            arrival: 1,
        }),
        ..Job::sample("next", Status::Waiting, 9)
    });
    scheduler.note_late(&created, true);
    assert!(scheduler.index.could_come_late(&job.name));
    scheduler.index.deleted(&job);
    assert!(scheduler.index.may_admit());
    observer.job_seen(Job {
        uid: "late".into(),
        version: 20,
        ..job.clone()
    });
    assert!(scheduler.index.is_closed(&job.name));
    assert!(scheduler.get("b-0").is_err());
    // One that would run has a place.
    scheduler.note_late(&created, false);
    assert!(!scheduler.index.may_admit());
}

#[test]
fn who_waits_for_a_job_of_a_batch_that_is_given_up_is_told() {
    let (scheduler, _) = with_batch(&[Status::Waiting]);
    let settled = Arc::new(crate::sync::Lock::new(Vec::new()));
    let told = settled.clone();
    scheduler.on_settled(Box::new(move |name| told.lock().push(name.to_string())));
    scheduler.abort(&JobName::parse("b").unwrap());
    assert!(scheduler.get("b-0").is_err());
    assert_eq!(*settled.lock(), ["b", "b-0", "b"]);
}

#[test]
fn what_an_earlier_send_of_a_batch_made_has_its_places() {
    let refused = || Err(refusal(403, "Forbidden", ""));
    let (scheduler, script) = with_bounds(Status::Running, vec![refused()], 0, 3);
    scheduler.all_is_known.store(true, Ordering::Release);
    let body = br#"{"jobScheduleDescriptions": [{}, {}]}"#;
    let request = crate::batch::request::parse_batch(body).unwrap();
    let key = request_key("k", body).unwrap();
    see_batch(&scheduler, "b", &[Status::Waiting, Status::Waiting], 8);
    let observer: &dyn crate::backend::Observer = &scheduler;
    let half = BatchPart::Whole {
        id: None,
        size: 2,
        is_complete: false,
    };
    let rare = RareFields {
        batch: Some(half),
        ..RareFields::NONE
    };
    observer.job_seen(Job {
        rare: rare.into(),
        key: Some(Box::new(key)),
        ..Job::sample("b", Status::Waiting, 9)
    });
    let other = scheduler.submit_batch(&request, None).unwrap_err();
    assert!(matches!(other, SubmitError::Full(_)), "{other:?}");
    assert!(script.calls.lock().is_empty());
    let met = scheduler.submit_batch(&request, Some(key)).unwrap_err();
    assert!(matches!(met, SubmitError::Backend(_)), "{met:?}");
}

/// The watch may be late by any time, and a pod that it has not told of may run.
#[test]
fn no_job_is_let_run_before_all_is_known_that_may_run() {
    let pod = r#"{"metadata": {"name": "p", "resourceVersion": "9",
        "creationTimestamp": "2021-04-07T11:55:56Z",
        "labels": {"batch.kubernetes.io/job-name": "gone"}}, "status": {"phase": "Running"}}"#;
    let pods = || Ok(format!(r#"{{"metadata":{{}},"items":[{pod}]}}"#));
    let away = Err(refusal(503, "ServiceUnavailable", ""));
    let answers = vec![away, pods(), pods()];
    let (scheduler, script) = with_bounds(Status::Succeeded, answers, 1, 9);
    let observer: &dyn crate::backend::Observer = &scheduler;
    let queued = Some(crate::job::Queued {
        priority: 0,
        arrival: 1,
    });
    observer.job_seen(Job {
        queued,
        ..Job::sample("next", Status::Waiting, 8)
    });
    let open = || scheduler.perform(&Task::OpenCap);
    let is_told = || {
        scheduler
            .index
            .knows_attempt(&JobName::parse("gone").unwrap(), "p")
    };
    assert!(open().is_err());
    assert!(!is_told() && !scheduler.index.may_admit());
    assert!(open().is_err());
    assert!(!scheduler.index.may_admit());
    let gone = JobName::parse("gone").unwrap();
    observer.attempt_seen(&gone, Attempt::sample("p", AttemptState::Running, 9));
    open().unwrap();
    // It has the place until it ends.
    assert!(is_told() && !scheduler.index.may_admit());
    observer.attempt_gone(&gone, "p");
    assert!(scheduler.index.may_admit());
    assert_eq!(script.calls.lock().len(), 3);
}

#[test]
fn without_a_cap_nobody_is_asked_what_runs() {
    let (scheduler, script) = with_job(Status::Running, vec![]);
    scheduler.perform(&Task::OpenCap).unwrap();
    assert!(script.calls.lock().is_empty());
}

#[test]
fn where_there_is_no_doubt_nobody_is_asked() {
    let (scheduler, script) = with_job(Status::Running, vec![]);
    let name = JobName::parse(NAME).unwrap();
    scheduler.perform(&Task::Resolve(name)).unwrap();
    assert!(script.calls.lock().is_empty());
}

#[test]
fn an_attempt_that_is_gone_is_not_told_of_any_more() {
    let (scheduler, _) = with_job(Status::Running, vec![]);
    let observer: &dyn crate::backend::Observer = &scheduler;
    let name = JobName::parse(NAME).unwrap();
    observer.attempt_seen(&name, Attempt::sample("p", AttemptState::Running, 8));
    let count = || scheduler.get(NAME).unwrap().record.attempts.len();
    assert_eq!(count(), 1);
    observer.attempt_gone(&name, "p");
    assert_eq!(count(), 0);
}

#[test]
fn a_batch_is_taken_once_all_jobs_are_known() {
    let refused = Err(refusal(403, "Forbidden", ""));
    let (scheduler, script) = with_answers(Status::Running, vec![refused]);
    let request = br#"{"jobScheduleDescriptions": [{}]}"#;
    let request = crate::batch::request::parse_batch(request).unwrap();
    let met = scheduler.submit_batch(&request, None).unwrap_err();
    assert!(
        matches!(met, SubmitError::Backend(BackendError::Refused { .. })),
        "{met:?}"
    );
    assert_eq!(script.calls.lock().len(), 1);
    scheduler.jobs_listed.store(false, Ordering::Release);
    let met = scheduler.submit_batch(&request, None).unwrap_err();
    assert!(matches!(met, SubmitError::NotReady), "{met:?}");
    assert_eq!(script.calls.lock().len(), 1);
}
