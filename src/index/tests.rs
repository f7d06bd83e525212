use super::state::Tally;
use super::*;
use crate::clock::Source;
use crate::job::AttemptState::{self, Failed as Ended, Running as Going};
use crate::job::Queued;
use crate::job::Status::{Failed, Running, Stopped, Stopping, Succeeded, Waiting};
use crate::job::{BatchPart, RareFields, Sent, Shown, Timestamp};
use crate::sync::Lock;
use std::collections::BTreeSet;
use std::time::Instant;

/// Time that passes when it is told to.
struct Time(Instant, Lock<Duration>);

impl Source for Time {
    fn micros(&self) -> u64 {
        0
    }
    fn instant(&self) -> Instant {
        self.0 + *self.1.lock()
    }
    fn random(&self) -> u64 {
        0
    }
    fn sleep(&self, time: Duration) {
        *self.1.lock() += time;
    }
}

fn name(text: &str) -> JobName {
    JobName::parse(text).unwrap()
}

fn job(name: &str, status: Status, version: u64) -> Job {
    Job::sample(name, status, version)
}

fn attempt(name: &str, state: AttemptState, version: u64) -> Attempt {
    Attempt::sample(name, state, version)
}

fn queued(name: &str, priority: i8, arrival: u64) -> Job {
    Job {
        queued: Some(Queued { priority, arrival }),
        ..job(name, Waiting, 1)
    }
}

fn with_key(name: &str, status: Status, version: u64, sent: u64) -> Job {
    let sent = Sent {
        version: sent,
        micros: 0,
    };
    Job {
        key: Some(Box::new(RequestKey {
            key: 7,
            body: 1,
            sent,
        })),
        ..job(name, status, version)
    }
}

/// An index that has just begun.
fn fresh(unfinished: usize, running: usize) -> Index {
    let bounds = Bounds {
        unfinished,
        running,
        waiting: 3,
    };
    let time = Time(Instant::now(), Lock::new(Duration::ZERO));
    Index::new(bounds, Clock::of(Arc::new(time)))
}

fn bounded(unfinished: usize, running: usize) -> Index {
    let index = fresh(unfinished, running);
    index.conclude_all();
    index.open();
    index
}

fn unbounded() -> Index {
    bounded(99, 0)
}

fn capped(running: usize) -> Index {
    bounded(99, running)
}

/// The index, once no attempt and no answer can come any more that is not here.
fn settled(index: &Index, names: &[&str]) {
    index.clock.sleep(CALLS_END_WITHIN);
    for text in names {
        index.resolved(&name(text));
        index.forget(&name(text));
    }
}

fn relisted(
    index: &Index,
    begun: ListBegun,
    jobs: Vec<Job>,
    version: u64,
) -> (Vec<Change>, Vec<JobName>) {
    index.relisted(JobList { jobs, version }, begun)
}

/// Whether another job could run at once.
fn has_room(index: &Index) -> bool {
    index.reserve().unwrap().runs
}

fn names(index: &Index) -> String {
    let list = index.list();
    let shown = list
        .iter()
        .map(|r| format!("{}:{}", r.job.name, r.job.status));
    shown.collect::<Vec<_>>().join(" ")
}

/// What is counted, as kept and as found anew from what is there.
#[track_caller]
pub fn check_tally(index: &Index) {
    let state = index.state.read();
    let mut found = Tally::default();
    let names: BTreeSet<_> = state.jobs.keys().chain(state.fates.keys()).collect();
    for name in names {
        let record = state.jobs.get(name).map(|record| &**record);
        found.replace(Tally::default(), Tally::of(record, state.fates.get(name)));
    }
    assert_eq!(state.tally, found);
    let waiting = state.jobs.values().filter(|r| r.queued().is_some());
    assert_eq!(state.waiting.len(), waiting.count());
}

#[cfg(feature = "shuttle")]
impl Index {
    /// Whether nothing runs, waits or is in flight.
    pub fn is_idle(&self) -> bool {
        let state = self.state.read();
        let is_idle = |fate: &Fate| {
            fate.flights.is_empty() && fate.in_doubt().is_none() && fate.orphans.is_empty()
        };
        state.tally == Tally::default()
            && state.waiting.is_empty()
            && state.fates.values().all(is_idle)
    }

    /// Whether, beyond that, no report is awaited.
    pub fn is_at_rest(&self) -> bool {
        let state = self.state.read();
        let is_awaited = state.fates.values().any(|fate| !fate.tombstones.is_empty());
        drop(state);
        self.is_idle() && !is_awaited
    }

    pub fn describe(&self) -> String {
        let state = self.state.read();
        let jobs = state.jobs.values().map(|record| {
            let (job, attempts) = (&record.job, record.attempts.len());
            format!(
                "{} {} {} attempts={attempts}",
                job.name, job.status, job.version
            )
        });
        let fates = state.fates.iter().map(|(name, fate)| {
            let is_awaited: Vec<bool> =
                fate.tombstones.iter().map(|gone| gone.is_awaited).collect();
            let (calls, orphans, in_doubt) = (&fate.flights, &fate.orphans, fate.in_doubt());
            format!(
                "{name} calls={calls:?} tombstone={is_awaited:?} orphans={} in_doubt={}",
                orphans.len(),
                in_doubt.is_some()
            )
        });
        let lines: Vec<String> = jobs.chain(fates).collect();
        format!("{lines:?} {:?}", state.tally)
    }
}

#[test]
fn a_created_job_is_not_undone_by_an_older_report() {
    let index = unbounded();
    index.answered(job("a", Succeeded, 5));
    assert_eq!(index.job_seen(job("a", Running, 4)), Change::default());
    assert_eq!(names(&index), "a:Succeeded");
}

#[test]
fn a_report_before_the_creators_answer_is_not_undone_by_it() {
    let index = unbounded();
    index.job_seen(job("a", Succeeded, 7));
    let (record, _) = index.answered(job("a", Running, 5));
    assert_eq!(record.unwrap().job.status, Succeeded);
}

#[test]
fn a_deleted_job_stays_out_until_it_is_reported_gone() {
    let index = unbounded();
    index.answered(job("a", Running, 1));
    index.deleted(&job("a", Running, 0));
    assert_eq!(index.job_seen(job("a", Failed, 2)), Change::default());
    assert_eq!(names(&index), "");
    assert!(!index.job_gone(&job("a", Running, 0)));
    settled(&index, &["a"]);
    assert!(index.state.read().fates.is_empty());
}

#[test]
fn a_job_that_goes_while_a_call_is_in_flight_is_not_brought_back_by_its_answer() {
    let index = unbounded();
    for is_seen_first in [true, false] {
        let flight = index.begin(&name("a"), Flight::Change);
        if is_seen_first {
            index.job_seen(job("a", Running, 1));
        }
        index.job_gone(&job("a", Running, 0));
        let (record, change) = index.answered(job("a", Running, 2));
        assert_eq!((record, change.transition), (None, None));
        assert_eq!(change.doubtful, Some(name("a")), "it may get a pod");
        drop(flight);
        settled(&index, &["a"]);
        assert!(index.state.read().fates.is_empty(), "{is_seen_first}");
    }
}

#[test]
fn another_job_of_the_same_name_is_another() {
    let index = unbounded();
    index.may_come_again(&name("a"), false);
    index.answered(job("a", Running, 1));
    index.deleted(&job("a", Running, 0));
    let other = |version| Job {
        uid: "other".into(),
        ..job("a", Waiting, version)
    };
    let unwanted = index.job_seen(other(3)).unwanted;
    assert_eq!(unwanted, Some(name("a")), "a create that came late");
    index.clock.sleep(CALLS_END_WITHIN);
    index.forget(&name("a"));
    index.job_seen(other(4));
    assert!(!index.job_gone(&job("a", Running, 0)), "the first one");
    assert_eq!(names(&index), "a:Waiting");
    assert!(index.job_gone(&other(5)));
    assert_eq!(names(&index), "");
}

#[test]
fn a_relist_leaves_no_ghosts_and_keeps_what_was_done_meanwhile() {
    let index = unbounded();
    for ghost in ["a", "b"] {
        index.job_seen(job(ghost, Running, 1));
    }
    let begun = index.relist_begins();
    index.answered(job("new", Running, 3));
    index.deleted(&job("b", Running, 0));
    let (_, gone) = relisted(
        &index,
        begun,
        vec![job("b", Running, 1), job("c", Failed, 2)],
        2,
    );
    assert_eq!(names(&index), "c:Failed new:Running");
    assert_eq!(gone, [name("a")]);
}

#[test]
fn the_first_list_is_taken_whole_although_reports_came_before_it() {
    let index = unbounded();
    let begun = index.relist_begins();
    index.job_seen(job("a", Running, 9));
    let listed = vec![job("a", Waiting, 1), job("b", Waiting, 2)];
    relisted(&index, begun, listed, 3);
    assert_eq!(names(&index), "a:Running b:Waiting");
}

#[test]
fn what_was_deleted_before_a_relist_needs_no_mark_after_it() {
    let index = unbounded();
    index.answered(job("a", Succeeded, 1));
    index.deleted(&job("a", Running, 0));
    let begun = index.relist_begins();
    index.job_seen(job("a", Running, 2));
    assert_eq!(names(&index), "", "a report of before the relist");
    relisted(&index, begun, vec![], 3);
    settled(&index, &["a"]);
    assert!(index.state.read().fates.is_empty());
}

#[test]
fn a_list_of_a_cluster_that_was_set_back_is_believed() {
    let index = unbounded();
    index.job_seen(job("a", Succeeded, 90));
    index.job_seen(job("b", Running, 91));
    let begun = index.relist_begins();
    let (_, gone) = relisted(&index, begun, vec![job("a", Running, 9)], 20);
    assert_eq!(names(&index), "a:Running");
    assert_eq!(gone.len(), 1);
    index.job_seen(job("a", Failed, 21));
    assert_eq!(names(&index), "a:Failed");
}

#[test]
fn a_job_that_was_given_up_is_unwanted_whenever_it_is_reported() {
    let index = capped(1);
    index.aborted(&name("a"));
    assert!(!has_room(&index), "it may run");
    settled(&index, &["a"]);
    assert!(has_room(&index));
    for version in 1..3 {
        let unwanted = Some(name("a"));
        assert_eq!(
            index.job_seen(job("a", Running, version)).unwanted,
            unwanted
        );
        index.job_gone(&job("a", Running, 0));
        let begun = index.relist_begins();
        let (changes, _) = relisted(&index, begun, vec![job("a", Running, version)], version);
        assert_eq!(changes[0].unwanted, unwanted);
    }
    assert_eq!(names(&index), "");
    assert!(!has_room(&index), "it may run");
    index.clock.sleep(ABORTED_FOR);
    settled(&index, &["a"]);
    assert!(index.state.read().fates.is_empty());
}

#[test]
fn transitions_are_told_once() {
    let index = unbounded();
    let seen = |version, status| {
        let transition = index.job_seen(job("a", status, version)).transition;
        transition.map(|t| (t.from, t.record.job.status))
    };
    assert_eq!(seen(1, Running), Some((None, Running)));
    assert_eq!(seen(2, Running), None);
    assert_eq!(seen(3, Failed), Some((Some(Running), Failed)));
    let begun = index.relist_begins();
    let (changes, gone) = relisted(&index, begun, vec![job("a", Failed, 3)], 3);
    assert_eq!((changes, gone), (vec![], vec![]));
}

#[test]
fn attempts_may_come_before_their_job() {
    let index = unbounded();
    index.attempt_seen(&name("a"), attempt("p", Going, 1));
    index.job_seen(job("a", Running, 1));
    assert_eq!(index.get(&name("a")).unwrap().attempts.len(), 1);
    index.attempt_seen(&name("b"), attempt("q", Going, 1));
    index.attempt_gone(&name("b"), "q");
    assert!(index.state.read().fates.is_empty());
    check_tally(&index);
}

#[test]
fn how_a_finished_attempt_ended_outlives_its_pod() {
    let index = unbounded();
    index.job_seen(job("a", Running, 1));
    index.attempt_seen(&name("a"), attempt("p", Ended, 1));
    index.attempt_seen(&name("a"), attempt("q", Going, 1));
    let known = || index.get(&name("a")).unwrap().attempts.len();
    index.attempt_gone(&name("a"), "p");
    assert_eq!(known(), 2);
    index.attempt_gone(&name("a"), "q");
    assert_eq!(known(), 1);
    index.attempts_relisted(vec![(name("a"), attempt("r", Going, 1))]);
    assert_eq!(&*index.get(&name("a")).unwrap().attempts[0].name, "r");
}

#[test]
fn an_end_beyond_doubt_outlives_the_deletion_of_its_pod() {
    let index = unbounded();
    index.job_seen(job("a", Running, 1));
    let a = name("a");
    let ended = Attempt {
        is_over: false,
        is_certain: true,
        ..attempt("p", Ended, 2)
    };
    index.attempt_seen(&a, ended);
    let check = |version, is_over| {
        let record = index.get(&a).unwrap();
        let known = &record.attempts[0];
        let shown = (known.state, known.version, known.is_over);
        assert_eq!(shown, (Ended, version, is_over));
    };
    index.attempt_seen(&a, attempt("p", Going, 3));
    check(3, false);
    index.attempts_relisted(vec![(a.clone(), attempt("p", Going, 4))]);
    check(4, false);
    index.attempt_gone(&a, "p");
    check(4, true);
}

#[test]
fn doubts_end_when_nothing_can_come_any_more() {
    let (calls, attempts) = (Some(CALLS_END_WITHIN), Some(ATTEMPTS_COME_WITHIN));
    let key = with_key("a", Running, 1, 0).request().unwrap();
    let a = name("a");
    let check = |change: &dyn Fn(&Index), doubt, forgotten| {
        let index = unbounded();
        change(&index);
        assert_eq!((index.doubt(&a), index.forget(&a)), (doubt, forgotten));
    };
    let seen = |index: &Index| drop(index.job_seen(job("a", Running, 1)));
    check(&|index| index.create_unanswered(&a, key), calls, calls);
    check(&|index| index.may_come_again(&a, false), None, calls);
    check(&|index| index.deletion_unanswered(&a), None, calls);
    let index = unbounded();
    index.deletion_unanswered(&a);
    assert!(index.begin(&a, Flight::Pin).is_none());
    settled(&index, &["a"]);
    assert!(index.begin(&a, Flight::Pin).is_some());
    check(&|index| index.aborted(&a), calls, Some(ABORTED_FOR));
    check(
        &|index| index.discarded(&job("a", Running, 1), ATTEMPTS_COME_WITHIN),
        attempts,
        None,
    );
    check(
        &|index| index.discarded(&job("a", Stopped, 1), ATTEMPTS_COME_WITHIN),
        None,
        None,
    );
    let unanswered = |version| {
        move |index: &Index| {
            seen(index);
            index.change_unanswered(&job("a", Waiting, version));
        }
    };
    check(&unanswered(1), calls, None);
    check(&unanswered(0), None, None);
    let unanswered_and_gone = |index: &Index| {
        index.answered(queued("a", 0, 1));
        index.deleted(&queued("a", 0, 1));
        index.change_unanswered(&queued("a", 0, 1));
    };
    check(&unanswered_and_gone, attempts, None);
    let deleted = |index: &Index| {
        seen(index);
        index.deleted(&job("a", Running, 1));
    };
    check(&deleted, attempts, None);
    let held_back = |index: &Index| {
        seen(index);
        index.job_seen(job("a", Stopping, 2));
    };
    check(&held_back, attempts, None);
}

#[test]
fn a_job_that_ends_while_it_is_stopped_has_ended_once_it_was_not() {
    let index = unbounded();
    let started = Job {
        started: Some(Timestamp::at(0)),
        ..job("a", Running, 1)
    };
    index.job_seen(started);
    let a = name("a");
    let ended = Attempt {
        finished: Some(Timestamp::at(1)),
        is_certain: true,
        ..attempt("p", AttemptState::Succeeded, 2)
    };
    let stop = index.begin(&a, Flight::Stop);
    assert_eq!(index.attempt_seen(&a, ended).transition, None);
    assert_eq!(index.conclude(&a).transition, None);
    drop(stop);
    let told = index.conclude(&a).transition.unwrap();
    assert_eq!(told.record.job.status, Succeeded);
    // Nor while one that was not answered may still be carried out.
    index.stop_unanswered(&a);
    assert!(index.doubt(&a).is_some());
    index.no_stop_comes(&a);
    assert!(index.doubt(&a).is_some(), "its time is not over");
    index.clock.sleep(CALLS_END_WITHIN);
    assert_eq!(index.doubt(&a), Some(Duration::ZERO));
    index.no_stop_comes(&a);
    assert_eq!(index.doubt(&a), None);
}

#[test]
fn a_job_that_somebody_else_lets_run_again_is_run_again() {
    let is_rerun = |held: Job| {
        let index = unbounded();
        index.job_seen(held);
        index.job_seen(job("a", Running, 2));
        index.job_seen(job("a", Running, 3));
        index.get(&name("a")).unwrap().job.is_rerun
    };
    assert!(is_rerun(job("a", Waiting, 1)));
    assert!(!is_rerun(queued("a", 0, 1)), "it was admitted");
    assert!(!is_rerun(job("a", Running, 1)));
}

#[test]
fn what_goes_before_all_is_known_may_be_brought_back() {
    let is_closed = |all_is_known: bool| {
        let index = fresh(9, 0);
        if all_is_known {
            index.conclude_all();
        }
        index.job_seen(job("a", Running, 1));
        index.deleted(&job("a", Running, 1));
        index.is_closed(&name("a"))
    };
    assert!(is_closed(false) && !is_closed(true));
}

#[test]
fn unfinished_jobs_are_bounded() {
    let index = bounded(2, 0);
    let first = index.reserve().ok().unwrap();
    index.answered(job("a", Running, 1));
    drop(first);
    let second = index.reserve().ok().unwrap();
    assert_eq!(index.reserve().err(), Some(Full::Unfinished { limit: 2 }));
    drop(second);
    index.answered(job("b", Running, 1));
    assert!(index.reserve().is_err());
    index.job_seen(job("a", Succeeded, 2));
    assert!(index.reserve().is_ok());
    index.deleted(&job("b", Running, 0));
    let begun = index.relist_begins();
    relisted(&index, begun, vec![], 2);
    assert_eq!(index.state.read().tally.unfinished, 0);
}

#[test]
fn the_cap_counts_what_runs_and_what_is_about_to() {
    let index = capped(2);
    let first = index.reserve().ok().unwrap();
    let second = index.reserve().ok().unwrap();
    let third = index.reserve().ok().unwrap();
    assert_eq!((first.runs, second.runs, third.runs), (true, true, false));
    index.answered(job("a", Running, 1));
    index.answered(queued("c", 0, 1));
    drop((first, second, third));
    let next = || index.next_to_admit(|_| true);
    let (record, place) = next().unwrap();
    assert_eq!(record.job.name, name("c"));
    assert!(
        next().is_none(),
        "the place is taken while c is being admitted"
    );
    index.job_seen(job("c", Running, 2));
    drop(place);
    assert!(!has_room(&index));
    index.job_seen(job("a", Stopping, 2));
    assert!(!has_room(&index), "a stopping job still runs");
    index.job_seen(job("a", Stopped, 3));
    assert!(has_room(&index));
    check_tally(&index);
}

#[test]
fn a_stop_that_the_backend_may_not_have_noticed_holds_the_place() {
    let index = capped(1);
    let unnoticed = |version| Job {
        is_suspension_earlier: true,
        ..job("a", Stopping, version)
    };
    index.job_seen(unnoticed(1));
    assert!(index.doubt(&name("a")).is_some());
    index.clock.sleep(ATTEMPTS_COME_WITHIN);
    index.job_seen(unnoticed(2));
    assert_eq!(index.doubt(&name("a")), Some(Duration::ZERO), "no longer");
    index.job_seen(job("a", Stopped, 3));
    assert!(has_room(&index));
}

#[test]
fn what_is_deleted_is_this_very_job() {
    let index = unbounded();
    index.job_seen(job("a", Running, 1));
    let other = Job {
        uid: "other".into(),
        ..job("a", Waiting, 3)
    };
    index.job_seen(other);
    index.deleted(&job("a", Running, 1));
    assert_eq!(names(&index), "a:Waiting");
}

#[test]
fn an_answer_of_a_job_that_is_gone_tells_that_it_was_let_run() {
    let index = capped(1);
    index.job_seen(queued("a", 0, 1));
    index.deleted(&queued("a", 0, 1));
    assert!(has_room(&index));
    assert!(index.answered(job("a", Running, 2)).0.is_none());
    assert!(!has_room(&index), "it may get a pod");
    settled(&index, &["a"]);
    assert!(has_room(&index));
}

#[test]
fn an_older_list_that_comes_later_does_not_bring_back_what_is_gone() {
    let index = unbounded();
    let (first, second) = (index.relist_begins(), index.relist_begins());
    index.answered(job("a", Running, 2));
    index.deleted(&job("a", Running, 2));
    index.job_gone(&job("a", Running, 3));
    relisted(&index, second, vec![], 3);
    relisted(&index, first, vec![], 1);
    index.job_seen(job("a", Running, 2));
    assert_eq!(names(&index), "");
}

#[test]
fn nothing_runs_before_it_is_opened() {
    let time = Time(Instant::now(), Lock::new(Duration::ZERO));
    let bounds = Bounds {
        unfinished: 9,
        running: 1,
        waiting: 9,
    };
    let index = Index::new(bounds, Clock::of(Arc::new(time)));
    index.answered(queued("a", 0, 1));
    assert!(!has_room(&index) && !index.may_admit());
    index.open();
    assert!(index.may_admit());
}

#[test]
fn whatever_the_status_says_a_live_attempt_holds_its_place() {
    for status in [Waiting, Stopped, Succeeded, Failed] {
        let index = capped(1);
        index.job_seen(job("a", status, 1));
        index.attempt_seen(&name("a"), attempt("p", Going, 1));
        assert!(!has_room(&index), "{status}");
        index.attempt_seen(&name("a"), attempt("p", Ended, 2));
        assert!(has_room(&index), "{status}");
        check_tally(&index);
    }
}

#[test]
fn jobs_are_listed_by_arrival_then_by_name() {
    let index = bounded(10, 0);
    let arrived = |name: &str, arrival: u64| Job {
        arrival,
        ..job(name, Running, 1)
    };
    for (name, arrival) in [("d", 1), ("c", 2), ("a", 2), ("b", 3)] {
        index.answered(arrived(name, arrival));
    }
    let hidden = Job {
        hidden: true,
        ..arrived("e", 0)
    };
    index.answered(hidden);
    let listed = |wanted: fn(&Job) -> bool| -> String {
        let list = index.in_order(wanted);
        list.iter()
            .map(|(record, _)| record.job.name.as_str())
            .collect()
    };
    assert_eq!(listed(|_| true), "dacb");
    assert_eq!(listed(|job| job.arrival == 2), "ac");
}

/// Whatever way a record changes, in its place or as another.
#[test]
fn what_a_record_is_shown_as_goes_when_it_changes() {
    let index = bounded(10, 0);
    index.answered(job("a", Running, 1));
    let shown = || Shown {
        beside: (None, false),
        bytes: Box::default(),
    };
    let show = || index.get(&name("a")).unwrap().shown.set(Arc::new(shown()));
    let is_shown = || index.get(&name("a")).unwrap().shown.get().is_some();
    let pod = |version| attempt("p", AttemptState::Running, version);
    let changes: [(&str, &dyn Fn()); 6] = [
        ("confirmed", &|| index.confirm(&name("a"))),
        ("noticed", &|| index.notice(&name("a"), "remark")),
        ("a newer report", &|| {
            drop(index.job_seen(job("a", Running, 2)))
        }),
        ("an attempt", &|| {
            drop(index.attempt_seen(&name("a"), pod(1)))
        }),
        ("a newer attempt", &|| {
            drop(index.attempt_seen(&name("a"), pod(2)))
        }),
        ("attempts", &|| drop(index.attempts_relisted(vec![]))),
    ];
    for (what, change) in changes {
        for is_read in [false, true] {
            show();
            assert!(is_shown());
            let reader = index.get(&name("a")).filter(|_| is_read);
            change();
            let is_same = reader.is_some_and(|r| Arc::ptr_eq(&r, &index.get(&name("a")).unwrap()));
            assert!(!is_shown() || is_same, "{what}");
        }
    }
}

#[test]
fn nobody_overtakes_the_queue() {
    let index = capped(1);
    index.answered(queued("a", 0, 1));
    assert!(!has_room(&index));
    let (record, _) = index.next_to_admit(|_| true).unwrap();
    assert_eq!(record.job.name, name("a"));
}

#[test]
fn the_queue_is_by_priority_then_arrival() {
    let index = capped(1);
    for (job, priority, arrival) in [("a", 0, 1), ("b", 0, 2), ("c", 5, 3), ("d", -5, 0)] {
        index.answered(queued(job, priority, arrival));
    }
    let mut order = index.in_order(|_| true);
    order.sort_by_key(|(_, position)| *position);
    let order = order
        .iter()
        .map(|(record, position)| (record.job.name.as_str(), *position));
    let expected = ["c", "a", "b", "d"].into_iter().zip((1..).map(Some));
    assert!(order.eq(expected));
    let places = [
        ("a", 0, 1),
        ("b", 0, 2),
        ("c", 5, 3),
        ("d", -5, 0),
        ("e", 0, 9),
    ]
    .map(|(job, priority, arrival)| index.position(&queued(job, priority, arrival)));
    assert_eq!(places, [Some(2), Some(3), Some(1), Some(4), None]);
    assert_eq!(index.position(&job("b", Running, 1)), None);
}

#[test]
fn one_that_cannot_be_admitted_holds_up_no_other() {
    let index = capped(1);
    index.answered(queued("a", 0, 1));
    index.answered(queued("b", 0, 2));
    let (record, _) = index.next_to_admit(|r| r.job.name != name("a")).unwrap();
    assert_eq!(record.job.name, name("b"));
}

#[test]
fn one_that_may_have_been_admitted_has_its_place_and_is_asked_for_again() {
    let index = capped(1);
    index.answered(queued("a", 0, 1));
    index.answered(queued("b", 0, 2));
    index.change_unanswered(&queued("a", 0, 1));
    let next = || {
        index
            .next_to_admit(|_| true)
            .map(|(record, _)| record.job.name.clone())
    };
    assert_eq!(next(), Some(name("a")));
    assert!(!has_room(&index));
    index.job_seen(job("a", Running, 2));
    assert_eq!(next(), None);
    index.job_seen(job("a", Succeeded, 3));
    assert_eq!(next(), Some(name("b")));
    check_tally(&index);
}

#[test]
fn the_queue_is_bounded() {
    let index = capped(1);
    for (arrival, job) in (0..3).zip(["a", "b", "c"]) {
        index.answered(queued(job, 0, arrival));
    }
    assert_eq!(index.reserve().err(), Some(Full::Waiting { limit: 3 }));
}

#[test]
fn a_deleted_job_holds_its_place_until_its_attempts_end() {
    let index = capped(1);
    index.answered(job("a", Running, 1));
    index.attempt_seen(&name("a"), attempt("p", Going, 1));
    index.deleted(&job("a", Running, 0));
    settled(&index, &["a"]);
    assert!(!has_room(&index));
    index.attempt_seen(&name("a"), attempt("p", Ended, 2));
    assert!(has_room(&index));
    index.attempt_gone(&name("a"), "p");
    index.job_gone(&job("a", Running, 0));
    assert!(index.state.read().fates.is_empty());
}

#[test]
fn a_job_that_went_before_its_pod_was_seen_holds_its_place_while_one_may_come() {
    let ways: [fn(&Index); 3] = [
        |index| index.deleted(&job("a", Running, 0)),
        |index| assert!(index.job_gone(&job("a", Running, 0))),
        |index| {
            let begun = index.relist_begins();
            assert_eq!(relisted(index, begun, vec![], 1).1, [name("a")]);
        },
    ];
    for goes in ways {
        let index = capped(1);
        index.job_seen(job("a", Running, 1));
        goes(&index);
        assert_eq!(index.doubt(&name("a")), Some(ATTEMPTS_COME_WITHIN));
        index.resolved(&name("a"));
        assert!(!has_room(&index), "it is too early to know");
        index.clock.sleep(ATTEMPTS_COME_WITHIN);
        index.attempt_seen(&name("a"), attempt("p", Going, 5));
        index.resolved(&name("a"));
        assert!(!has_room(&index), "a pod was there all the same");
        index.attempt_gone(&name("a"), "p");
        assert!(has_room(&index));
    }
}

#[test]
fn a_key_finds_its_job_until_that_is_gone_also_hidden() {
    let index = unbounded();
    let found = || match index.by_key(7) {
        Some(Keyed::Job(record)) => Some((record.job.name.to_string(), record.job.status)),
        _ => None,
    };
    index.answered(with_key("a", Running, 1, 1));
    index.job_seen(with_key("a", Failed, 2, 1));
    assert_eq!(found(), Some(("a".to_string(), Failed)));
    index.job_seen(Job {
        hidden: true,
        ..with_key("a", Failed, 3, 1)
    });
    assert_eq!(names(&index), "");
    assert_eq!(found(), Some(("a".to_string(), Failed)));
    index.deleted(&job("a", Running, 0));
    assert!(index.by_key(7).is_none() && index.state.read().keys.is_empty());
}

#[test]
fn a_key_in_doubt_keeps_its_name_until_that_is_resolved() {
    let index = unbounded();
    let request = with_key("a", Running, 1, 1).request();
    index.create_unanswered(&name("a"), request.unwrap());
    assert!(matches!(index.by_key(7), Some(Keyed::InDoubt { name: n, .. }) if n == name("a")));
    index.resolved(&name("a"));
    assert!(index.by_key(7).is_some(), "it is too early to know");
    settled(&index, &["a"]);
    assert_eq!(index.by_key(7), None);
    assert!(index.state.read().fates.is_empty() && index.state.read().keys.is_empty());
}

#[test]
fn of_two_jobs_of_one_key_the_one_sent_later_counts() {
    for order in [["early", "late"], ["late", "early"]] {
        let index = unbounded();
        let seen = order.map(|name| {
            let sent = if name == "late" { 2 } else { 1 };
            index.job_seen(with_key(name, Running, 1, sent)).unwanted
        });
        assert_eq!(seen, [None, Some(name("early"))], "{order:?}");
        let found = |index: &Index| match index.by_key(7) {
            Some(Keyed::Job(record)) => record.job.name.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(found(&index), name("late"), "{order:?}");
        index.deleted(&job("early", Running, 0));
        assert_eq!(found(&index), name("late"));
    }
    // Two that were sent at the same time are told apart alike by all who see them.
    for order in [["a", "b"], ["b", "a"]] {
        let index = unbounded();
        let seen = order.map(|name| index.job_seen(with_key(name, Running, 1, 1)).unwanted);
        assert_eq!(seen, [None, Some(name("a"))], "{order:?}");
    }
}

#[test]
fn a_hidden_job_is_kept_while_its_payload_is_used() {
    let index = unbounded();
    let unused = || {
        index
            .hidden_and_unused()
            .iter()
            .map(|r| r.job.name.clone())
            .collect::<Vec<_>>()
    };
    index.answered(Job {
        rare: RareFields {
            payload_of: Some(name("a")),
            ..RareFields::NONE
        }
        .into(),
        ..job("b", Running, 1)
    });
    index.answered(job("a", Failed, 1));
    index.job_seen(Job {
        hidden: true,
        ..job("a", Failed, 2)
    });
    assert_eq!(names(&index), "b:Running");
    assert_eq!(unused(), []);
    let being_created = index.begin(&name("a"), Flight::Pin);
    index.deleted(&job("b", Running, 0));
    assert_eq!(unused(), []);
    assert!(index.begin(&name("a"), Flight::Deletion).is_none());
    drop(being_created);
    assert_eq!(unused(), [name("a")]);
    let deletion = index.begin(&name("a"), Flight::Deletion);
    assert!(deletion.is_some() && index.begin(&name("a"), Flight::Pin).is_none());
    index.deleted(&job("a", Running, 0));
    assert!(index.state.read().jobs.is_empty());
}

/// What a follower who knows all up to this number is told, and up to which number it knows then.
fn told(index: &Index, number: u64) -> Option<(String, u64)> {
    let follower = index.follow().unwrap();
    let mut shown = Vec::new();
    let last = follower.changed_since(number, 1000, |changed| {
        shown.push(match &changed.record {
            Some(record) => format!("{}:{}", changed.name, record.job.status),
            None => format!("{} gone", changed.name),
        })
    })?;
    Some((shown.join(" "), last))
}

#[test]
fn followers_are_told_of_each_job_as_it_is_and_once() {
    let index = unbounded();
    let check = |number: u64, expected: &str| {
        let (shown, last) = told(&index, number).unwrap();
        assert_eq!(shown, expected);
        last
    };
    let none = check(0, "");
    index.job_seen(job("a", Running, 1));
    index.job_seen(job("b", Running, 2));
    let first = check(none, "a:Running b:Running");
    index.job_seen(job("a", Succeeded, 3));
    index.attempt_seen(&name("b"), attempt("p", Going, 1));
    let second = check(first, "a:Succeeded b:Running");
    check(none, "a:Succeeded b:Running");
    // What nobody sees of a job.
    index.job_seen(job("b", Running, 4));
    index.attempt_seen(&name("b"), attempt("p", Going, 2));
    index.confirm(&name("b"));
    drop(index.begin(&name("b"), Flight::Change));
    assert_eq!(check(second, ""), second);

    index.notice(&name("b"), "not reachable");
    index.deleted(&job("a", Succeeded, 3));
    let third = check(second, "b:Running a gone");
    let hidden = Job {
        hidden: true,
        ..job("b", Succeeded, 9)
    };
    index.job_seen(hidden);
    check(third, "b gone");
    // Hidden, it goes without another word.
    let last = check(second, "a gone b gone");
    index.job_gone(&job("b", Succeeded, 10));
    check(last, "");
    // Where a list shows what has changed.
    let begun = index.relist_begins();
    relisted(&index, begun, vec![job("c", Running, 11)], 12);
    check(last, "c:Running");
    assert_eq!(told(&index, last + 99), None, "nobody was ever there");
}

#[test]
fn a_follower_who_missed_that_a_job_is_gone_is_told_that_it_has() {
    let index = bounded(5000, 0);
    index.job_seen(job("kept", Running, 1));
    let (_, before) = told(&index, 0).unwrap();
    let mut version = 2;
    let mut make_and_delete = |count: usize| {
        for number in 0..count {
            let name = format!("j{number}");
            index.job_seen(job(&name, Running, version));
            index.deleted(&job(&name, Running, version));
            settled(&index, &[&name]);
            version += 1;
        }
    };
    make_and_delete(1000);
    assert!(told(&index, before).is_some());
    make_and_delete(4100);
    assert_eq!(told(&index, before), None);
    let follower = index.follow().unwrap();
    let state = index.state.read();
    assert_eq!(state.changes.len(), 4096);
    drop(state);
    assert!(told(&index, follower.last_change()).is_some());
}

#[test]
fn as_many_follow_as_may() {
    let index = unbounded();
    let followers: Vec<_> = (0..MAX_FOLLOWERS).map(|_| index.follow()).collect();
    assert!(followers.iter().all(Option::is_some) && index.follow().is_none());
    assert_eq!(index.followers(), MAX_FOLLOWERS);
    drop(followers);
    assert_eq!(index.followers(), 0);
}

#[test]
fn the_first_places_of_the_queue_are_told_now_and_then() {
    let index = bounded(5000, 1);
    for number in 0..300 {
        let name = format!("w{number:03}");
        index.job_seen(queued(&name, 0, number));
    }
    let follower = index.follow().unwrap();
    let wait = || follower.wait(u64::MAX - 1, Duration::ZERO, || false);
    wait();
    let all = follower.last_change();
    let admitted = |name: &str| index.job_seen(job(name, Running, 9));
    admitted("w000");
    wait();
    assert_eq!(told(&index, all).unwrap().0, "w000:Running", "not so soon");
    index.clock.sleep(Duration::from_secs(1));
    wait();
    let mut told = Vec::new();
    let look = |changed: Changed| told.push((changed.name.to_string(), changed.position()));
    follower.changed_since(all, 1000, look).unwrap();
    let expect = |at: usize, name: &str, position| {
        assert_eq!(told[at], (name.to_string(), position));
    };
    assert_eq!(told.len(), 101);
    expect(0, "w000", None);
    expect(1, "w001", Some(1));
    expect(100, "w100", Some(100));
    // It has not moved since.
    index.clock.sleep(Duration::from_secs(1));
    let last = follower.last_change();
    wait();
    assert_eq!(follower.last_change(), last);
}

/// What stands for a batch of two.
fn whole(is_complete: bool, version: u64) -> Job {
    let batch = BatchPart::Whole {
        id: None,
        size: 2,
        is_complete,
    };
    Job {
        rare: RareFields {
            batch: Some(batch),
            ..RareFields::NONE
        }
        .into(),
        ..job("b", Waiting, version)
    }
}

fn member(text: &str, status: Status, version: u64) -> Job {
    let batch = BatchPart::Member {
        of: name("b"),
        index: version as u32,
        payload: None,
    };
    Job {
        rare: RareFields {
            batch: Some(batch),
            ..RareFields::NONE
        }
        .into(),
        queued: (status == Waiting).then_some(Queued {
            priority: 0,
            arrival: version,
        }),
        ..job(text, status, version)
    }
}

#[test]
fn a_batch_is_there_once_it_is_complete_and_until_it_is_gone() {
    let index = capped(1);
    let next = || {
        index
            .next_to_admit(|_| true)
            .map(|(record, _)| record.job.name.clone())
    };
    let follower = index.follow().unwrap();
    let told = |since: u64| {
        let mut told = Vec::new();
        let look = |changed: Changed| told.push((changed.name.clone(), changed.record.is_some()));
        follower.changed_since(since, 99, look);
        told
    };
    index.job_seen(member("b-1", Waiting, 1));
    index.job_seen(whole(false, 2));
    index.job_seen(member("b-2", Waiting, 3));
    index.job_seen(job("bb", Succeeded, 4));
    let alone = vec![(name("bb"), true)];
    assert_eq!(
        (names(&index), next(), told(0)),
        ("bb:Succeeded".into(), None, alone)
    );
    assert!(index.get(&name("b-1")).is_none() && index.get(&name("b")).is_none());
    check_tally(&index);

    index.job_seen(whole(true, 5));
    assert_eq!(names(&index), "b-1:Waiting b-2:Waiting bb:Succeeded");
    assert!(index.get(&name("b-1")).is_some() && index.get(&name("b")).is_none());
    assert_eq!(next(), Some(name("b-1")));
    let shown = ["b-1", "b-2", "b"].map(|one| (name(one), true));
    assert_eq!(told(1), shown);
    index.job_seen(member("b-1", Running, 6));
    assert!(!has_room(&index) && next().is_none());
    check_tally(&index);
    // The batch changes with its job, and has its jobs with it.
    let last = ["b-2", "b-1", "b"].map(|one| (name(one), true));
    assert_eq!(told(1), last);
    let mut jobs = Vec::new();
    follower.changed_since(1, 99, |changed| jobs.push(changed.jobs().len()));
    assert_eq!(jobs, [0, 0, 2]);

    let since = follower.last_change();
    index.job_gone(&whole(true, 7));
    assert_eq!((names(&index), next()), ("bb:Succeeded".into(), None));
    let gone = ["b", "b-1", "b-2"].map(|one| (name(one), false));
    assert_eq!(told(since), gone);
    // What runs of it goes on until somebody collects it.
    assert!(!has_room(&index));
    index.job_gone(&member("b-1", Running, 8));
    index.job_gone(&member("b-2", Waiting, 9));
    settled(&index, &["b", "b-1", "b-2"]);
    assert!(has_room(&index));
    check_tally(&index);
}

#[test]
fn a_job_that_was_deleted_unseen_is_not_brought_back_by_an_earlier_list() {
    let index = unbounded();
    let early = index.relist_begins();
    index.deleted_unseen(&job("a", Running, 3));
    relisted(&index, early, vec![job("a", Running, 3)], 3);
    assert_eq!(names(&index), "");
    // One of its name is another.
    let other = Job {
        uid: "other".into(),
        ..job("a", Running, 4)
    };
    index.job_seen(other);
    assert_eq!(names(&index), "a:Running");
    // One that is known is not gone for that.
    index.deleted_unseen(&job("a", Running, 4));
    assert_eq!(names(&index), "a:Running");
    let later = index.relist_begins();
    relisted(&index, later, vec![job("a", Running, 5)], 5);
    assert_eq!(names(&index), "a:Running");
}

#[test]
fn of_a_job_that_goes_while_no_call_is_in_flight_nothing_is_remembered() {
    let index = unbounded();
    assert!(!index.job_gone(&job("a", Running, 5)));
    assert!(index.state.read().fates.is_empty());
}

#[test]
fn places_for_a_batch_are_beside_all_that_are_taken() {
    let index = bounded(6, 1);
    let running = index.reserve().unwrap();
    let waiting = [index.reserve().unwrap(), index.reserve().unwrap()];
    let full = |count| index.reserve_waiting(count, 0).err();
    // Three are taken of six, and two of the three that may wait.
    assert_eq!(full(4), Some(Full::Unfinished { limit: 6 }));
    assert_eq!(full(3), Some(Full::Waiting { limit: 3 }));
    assert_eq!(full(2), Some(Full::Waiting { limit: 3 }));
    // One that is made already is among those that there are, and not yet in the queue.
    let made_one = |count| index.reserve_waiting(count, 1).err();
    assert_eq!(made_one(5), Some(Full::Unfinished { limit: 6 }));
    assert_eq!(made_one(4), Some(Full::Waiting { limit: 3 }));
    let places = index.reserve_waiting(1, 0).unwrap();
    assert!(!places.runs);
    assert_eq!(full(1), Some(Full::Waiting { limit: 3 }));
    drop((places, running, waiting));
    assert_eq!(full(3), None);
    // Without a cap nothing has to wait.
    let index = bounded(6, 0);
    let _place = index.reserve().unwrap();
    assert_eq!(index.reserve_waiting(5, 0).err(), None);
    let full = Some(Full::Unfinished { limit: 6 });
    assert_eq!(index.reserve_waiting(6, 0).err(), full);
    assert_eq!(index.reserve_waiting(6, 1).err(), None);
}

#[test]
fn only_a_running_job_without_an_attempt_is_told_of_for_that() {
    let told = |job: Job, has_attempt: bool| {
        let index = unbounded();
        let name = job.name.clone();
        index.job_seen(job);
        if has_attempt {
            index.attempt_seen(&name, attempt("p", Going, 1));
        }
        let follower = index.follow().unwrap();
        let before = follower.last_change();
        index.remark(&name);
        follower.last_change() > before
    };
    assert!(told(job("a", Running, 1), false));
    assert!(!told(job("a", Running, 1), true));
    assert!(!told(job("a", Waiting, 1), false));
    let hidden = Job {
        hidden: true,
        ..job("a", Running, 1)
    };
    assert!(!told(hidden, false));
}

#[test]
fn a_list_of_attempts_ends_those_whose_job_is_not_here() {
    let index = capped(1);
    index.attempt_seen(&name("a"), attempt("p", Going, 1));
    assert!(!has_room(&index), "its job may be on its way");
    index.attempts_relisted(vec![(name("a"), attempt("q", Going, 2))]);
    assert!(!has_room(&index));
    index.attempts_relisted(vec![]);
    assert!(has_room(&index));
    assert!(index.state.read().fates.is_empty());
}

#[test]
fn a_job_that_went_without_a_word_may_yet_get_an_attempt() {
    let index = capped(1);
    index.job_seen(job("a", Running, 1));
    let other = Job {
        uid: "other".into(),
        ..job("a", Stopped, 3)
    };
    index.job_seen(other);
    assert_eq!(index.doubt(&name("a")), Some(ATTEMPTS_COME_WITHIN));
    assert!(!has_room(&index));
    settled(&index, &["a"]);
    assert!(has_room(&index));
}

#[test]
fn an_end_that_a_later_attempt_takes_back_is_told_of_as_a_contradiction() {
    let index = unbounded();
    let started = Job {
        started: Some(Timestamp::at(0)),
        ..job("a", Running, 1)
    };
    index.job_seen(started);
    let seen = |attempt: Attempt| {
        let change = index.attempt_seen(&name("a"), attempt);
        let to = change.transition.map(|t| t.record.job.status);
        (to, change.contradicts)
    };
    let at = Timestamp::at;
    let ended = Attempt {
        finished: Some(at(1)),
        is_certain: true,
        ..attempt("p", AttemptState::Succeeded, 2)
    };
    let next = Attempt {
        created: at(2),
        ..attempt("q", AttemptState::Pending, 3)
    };
    assert_eq!(seen(ended), (Some(Succeeded), false));
    assert_eq!(seen(next), (Some(Running), true));
}

#[test]
fn a_late_create_that_is_let_run_may_get_an_attempt() {
    let index = capped(1);
    let a = name("a");
    index.aborted(&a);
    index.clock.sleep(CALLS_END_WITHIN);
    index.resolved(&a);
    assert!(has_room(&index));
    let change = index.job_seen(job("a", Running, 3));
    let told = (change.unwanted, change.doubtful);
    assert_eq!(told, (Some(a.clone()), Some(a.clone())));
    assert_eq!(index.doubt(&a), Some(ATTEMPTS_COME_WITHIN));
    assert!(!has_room(&index));
    // The same of one that is gone before its answer comes.
    let index = capped(1);
    index.deleted_unseen(&job("a", Running, 2));
    assert!(index.answered(job("a", Running, 2)).0.is_none());
    assert_eq!(index.doubt(&a), Some(ATTEMPTS_COME_WITHIN));
}

#[test]
fn of_attempts_of_one_second_the_one_that_goes_on_is_the_last() {
    let index = unbounded();
    index.job_seen(job("a", Running, 1));
    let never_began = Attempt {
        is_over: true,
        finished: None,
        ..attempt("z", Ended, 2)
    };
    index.attempt_seen(&name("a"), attempt("b", Going, 3));
    index.attempt_seen(&name("a"), never_began);
    let record = index.get(&name("a")).unwrap();
    let names: Vec<&str> = record.attempts.iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["z", "b"]);
}

#[test]
fn a_job_of_a_batch_is_overtaken_by_the_one_that_does_it_again() {
    let index = unbounded();
    let in_place = |text, status, version, arrival| {
        let batch = BatchPart::Member {
            of: name("b"),
            index: 0,
            payload: None,
        };
        let rare = RareFields {
            batch: Some(batch),
            ..RareFields::NONE
        };
        Job {
            rare: rare.into(),
            arrival,
            ..job(text, status, version)
        }
    };
    let overtaken = || -> Vec<String> {
        let jobs = index.overtaken();
        jobs.iter().map(|one| one.job.name.to_string()).collect()
    };
    index.job_seen(whole(true, 1));
    index.job_seen(in_place("b-2", Failed, 2, 2));
    index.job_seen(member("b-3", Failed, 3));
    assert!(overtaken().is_empty());
    let create = index.begin(&name("b-1"), Flight::Create);
    index.job_seen(in_place("b-1", Running, 4, 4));
    assert!(overtaken().is_empty(), "it may yet be given up");
    drop(create);
    assert_eq!(overtaken(), ["b-2"]);
    index.job_seen(in_place("b-2", Running, 5, 2));
    assert!(overtaken().is_empty(), "what runs is not lost sight of");
}

/// By a change, and not by its own look at the time.
#[test]
fn who_waits_is_called_for_a_change_alone() {
    let index = Arc::new(unbounded());
    let (woken, called) = std::sync::mpsc::channel();
    let waiting = index.clone();
    let thread = std::thread::spawn(move || {
        let follower = waiting.follow().unwrap();
        let last = follower.last_change();
        woken.send(0).unwrap();
        for looks in 1.. {
            follower.wait(last, Duration::from_secs(600), || false);
            woken.send(looks).unwrap();
            if follower.last_change() != last {
                return;
            }
        }
    });
    let soon = Duration::from_secs(60);
    assert_eq!(called.recv_timeout(soon), Ok(0));
    // Nothing is told of it, so that nobody is called.
    index.relist_begins();
    index.job_seen(job("a", Running, 1));
    assert_eq!(called.recv_timeout(soon), Ok(1));
    thread.join().unwrap();
}

#[test]
fn a_call_is_in_flight_until_its_guard_goes() {
    let index = unbounded();
    let a = name("a");
    let state = || (index.is_changing(&a), index.is_being_created(&a));
    assert_eq!(state(), (false, false));
    for flight in [Flight::Change, Flight::Stop] {
        let _flight = index.begin(&a, flight);
        assert_eq!(state(), (true, false));
    }
    let create = index.begin(&a, Flight::Create);
    assert_eq!(state(), (true, true));
    drop(create);
    let _deletion = index.begin(&a, Flight::Deletion);
    assert_eq!(state(), (false, false));
}

#[test]
fn a_backend_that_tells_at_once_leaves_no_doubt() {
    let index = fresh(9, 1);
    assert!(!has_room(&index));
    index.is_told_at_once();
    assert!(has_room(&index));
    index.job_seen(job("a", Running, 1));
    index.job_seen(job("a", Stopping, 2));
    index.job_seen(job("a", Stopped, 3));
    assert_eq!(index.doubt(&name("a")), None);
    assert!(has_room(&index));
    let ended = Attempt {
        finished: Some(Timestamp::at(1)),
        is_certain: true,
        ..attempt("p", AttemptState::Succeeded, 2)
    };
    let started = Job {
        started: Some(Timestamp::at(0)),
        ..job("b", Running, 4)
    };
    index.job_seen(started);
    let told = index.attempt_seen(&name("b"), ended).transition.unwrap();
    assert_eq!(told.record.job.status, Succeeded);
}

#[test]
fn a_deletion_that_was_not_answered_may_come_for_a_while() {
    let index = unbounded();
    index.job_seen(job("a", Running, 1));
    let a = name("a");
    index.deletion_unanswered(&a);
    let may_be_used = || index.begin(&a, Flight::Pin).is_some();
    assert!(!may_be_used());
    assert_eq!(index.forget(&a), Some(CALLS_END_WITHIN));
    index.clock.sleep(CALLS_END_WITHIN);
    assert_eq!(index.forget(&a), None);
    assert!(may_be_used());
}

#[test]
fn who_has_something_to_read_does_not_wait() {
    let index = unbounded();
    index.job_seen(job("a", Running, 1));
    let (follower, began) = (index.follow().unwrap(), Instant::now());
    let long = Duration::from_secs(60);
    follower.wait(0, long, || false);
    follower.wait(follower.last_change(), long, || true);
    assert!(began.elapsed() < long / 2);
}

#[test]
fn a_job_is_told_to_be_in_doubt_once() {
    let index = unbounded();
    let doubtful = |job: Job| index.job_seen(job).doubtful;
    assert_eq!(doubtful(job("a", Running, 1)), None);
    assert_eq!(doubtful(job("a", Stopping, 2)), Some(name("a")));
    assert_eq!(doubtful(job("a", Stopping, 3)), None, "as before");
    assert_eq!(doubtful(job("a", Stopped, 4)), None, "no longer");
}

/// A create that was carried out late, and its deletion, may both be told of after an older report.
#[test]
fn two_jobs_of_a_name_that_are_gone_are_both_known_to_be() {
    let index = unbounded();
    index.job_seen(job("a", Running, 1));
    index.deleted(&job("a", Running, 1));
    let late = Job {
        uid: "late".into(),
        ..job("a", Running, 3)
    };
    index.deleted_unseen(&late);
    assert_eq!(index.job_seen(job("a", Running, 2)).transition, None);
    let seen = Job {
        version: 4,
        ..late.clone()
    };
    assert_eq!(index.job_seen(seen.clone()).transition, None);
    assert!(!index.job_gone(&job("a", Running, 5)));
    assert_eq!(index.job_seen(seen).transition, None);
    assert!(!index.job_gone(&late));
    let state = index.state.read();
    assert!(state.fates.values().all(|fate| fate.tombstones.is_empty()));
}
