//! What is to be known of a name beside its record, or while it has none: the names that are not,
//! not yet, or no longer jobs of the index. An entry lives for as long as it says something.

use crate::job::{Attempt, JobName, JobRecord, RequestKey, Status};
use std::time::Instant;

#[derive(Default, PartialEq)]
pub struct Fate {
    /// What calls of this process that are in flight do to it.
    pub flights: Vec<Flight>,
    /// A stop was not answered, and may be carried out until then.
    pub stop_may_come: Option<Instant>,
    /// A deletion, or what takes a batch out of its users' sight, was not answered, and may be
    /// carried out until then.
    pub deletion_may_come: Option<Instant>,
    /// Jobs that had this name, and are gone: mostly one. Another comes of a create that was
    /// carried out late.
    pub tombstones: Vec<Tombstone>,
    /// The name was given up, or its job is gone: until then, another job that is reported under it
    /// comes from a create that was carried out late, and is to be deleted.
    pub closed: Option<Instant>,
    /// Until then a write that makes it, or its payload, and that was not answered may be carried
    /// out.
    pub late: Option<Instant>,
    /// The same of a create of a job that is held back, so that nothing of it runs.
    pub late_and_held: Option<Instant>,
    /// The outcome of a write is unknown: until then it may turn out to have let the job run.
    pub unanswered: Option<Instant>,
    /// The request whose create has an unknown outcome. Sent again, it takes the same name.
    pub request: Option<RequestKey>,
    /// The digest of the key whose request was given up here, until nothing of it is left.
    pub given_up: Option<u128>,
    /// The job was let run and then suspended or deleted: until then the backend may start an
    /// attempt all the same.
    pub may_start: Option<Instant>,
    /// Attempts whose job is not here: not seen yet, since jobs and attempts are watched apart, or
    /// gone before them.
    pub orphans: Vec<Attempt>,
}

/// A job that is gone: no report of this very one counts any more.
#[derive(PartialEq)]
pub struct Tombstone {
    pub uid: Box<str>,
    /// It was deleted here, and older reports of it may come until its end is reported or shown by
    /// a list.
    pub is_awaited: bool,
    /// How many lists had been begun when it went: a later one knows better.
    pub lists: u64,
}

impl Fate {
    /// Whether there is nothing to be known.
    pub fn is_empty(&self) -> bool {
        *self == Fate::default()
    }

    /// Whether something may run under this name that no record shows, or may come to: a job that
    /// has ended and is deleted may be made again by an earlier try of its create.
    pub fn may_run(&self) -> bool {
        self.in_doubt().is_some() || self.late.is_some() || is_live(&self.orphans)
    }

    /// Until when it must be thought that something may run here.
    pub fn in_doubt(&self) -> Option<Instant> {
        self.unanswered.max(self.may_start)
    }

    /// Until when it must be thought that something may run or stop here.
    pub fn doubt(&self) -> Option<Instant> {
        self.in_doubt().max(self.stop_may_come)
    }

    /// The name, if it has come to be in doubt whether an attempt will be started.
    pub fn doubtful_since(&self, before: Option<Instant>, name: &JobName) -> Option<JobName> {
        let is_news = self.may_start.is_some() && self.may_start != before;
        is_news.then(|| name.clone())
    }

    /// Whether such a call is in flight.
    pub fn has(&self, flight: Flight) -> bool {
        self.flights.contains(&flight)
    }

    /// Whether a call is in flight whose answer is a picture of the job.
    pub fn is_changing(&self) -> bool {
        use Flight::{Change, Create, Stop};
        [Create, Change, Stop].into_iter().any(|one| self.has(one))
    }

    /// Whether it is being deleted, or may come to be.
    pub fn is_going(&self) -> bool {
        self.has(Flight::Deletion) || self.deletion_may_come.is_some()
    }

    /// Whether an end that its attempts show may not be the job's, because a stop may come first.
    pub fn may_be_stopped(&self) -> bool {
        self.has(Flight::Stop) || self.stop_may_come.is_some()
    }

    /// Whether this very job is gone.
    pub fn is_gone(&self, uid: &str) -> bool {
        self.tombstones.iter().any(|gone| *gone.uid == *uid)
    }

    /// This very job is gone, as of when so many lists had been begun.
    pub fn entomb(&mut self, uid: &str, is_awaited: bool, lists: u64) {
        self.tombstones.retain(|gone| *gone.uid != *uid);
        let uid = uid.into();
        self.tombstones.push(Tombstone {
            uid,
            is_awaited,
            lists,
        });
    }

    /// No older report comes any more of those that are `shown` to be gone.
    pub fn settle(&mut self, shown: impl Fn(&Tombstone) -> bool) {
        for gone in &mut self.tombstones {
            gone.is_awaited &= !shown(gone);
        }
        self.settle_tombstones();
    }

    /// Forgets the tombstones that nothing needs any more: their end was reported, and no answer is
    /// due that could be older.
    pub fn settle_tombstones(&mut self) {
        let is_changing = self.is_changing();
        self.tombstones
            .retain(|gone| gone.is_awaited || is_changing);
    }

    /// Another job may come under this name, if a create was not answered: it must not be there,
    /// and may run until then, unless it is held back.
    pub fn close(&mut self) {
        self.closed = self.closed.max(self.late).max(self.late_and_held);
        self.unanswered = self.unanswered.max(self.late);
    }

    /// The record leaves the index. Its attempts that go on are kept until their end is reported,
    /// and if it may yet get one, that is in doubt until `until`.
    pub fn bury(&mut self, record: &JobRecord, until: Instant) {
        let live = |attempt: &&Attempt| !attempt.is_over;
        self.orphans
            .extend(record.attempts.iter().filter(live).cloned());
        if record.job.status == Status::Running || self.unanswered.is_some() {
            self.may_start = Some(until);
        }
    }
}

/// Whether something of the attempts can still run.
pub fn is_live(attempts: &[Attempt]) -> bool {
    attempts.iter().any(|attempt| !attempt.is_over)
}

/// What a call in flight does to the job.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Flight {
    /// Creates it: a report of it meanwhile is no news, and it must not be let go.
    Create,
    /// Changes it, or looks at it: it must not be let go.
    Change,
    /// Changes it so that it stops: it has no end before the answer.
    Stop,
    /// Deletes it: nobody may begin to use its payload.
    Deletion,
    /// Creates another job that uses its payload: it must not be deleted.
    Pin,
}

/// A call that is in flight, until this is dropped.
pub struct InFlight<'a> {
    pub(super) index: &'a super::Index,
    pub(super) name: JobName,
    pub(super) flight: Flight,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let flight = self.flight;
        self.index.state.write().change(&self.name, |_, fate| {
            let at = fate.flights.iter().position(|one| *one == flight);
            at.map(|at| fate.flights.swap_remove(at));
            fate.settle_tombstones();
        });
    }
}
