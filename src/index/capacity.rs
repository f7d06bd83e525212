//! How many jobs there may be, and places for those that are about to be.

use super::Index;
use super::state::State;
use crate::job::JobRecord;
use std::sync::Arc;

/// How many jobs there may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Unfinished jobs.
    pub unfinished: usize,
    /// Jobs running at once; 0 is no cap.
    pub running: usize,
    /// Jobs in the queue of those over the cap.
    pub waiting: usize,
}

/// There are as many jobs as there may be.
#[derive(Debug, PartialEq)]
pub enum Full {
    Unfinished { limit: usize },
    Waiting { limit: usize },
}

/// A place for one job to be created, resumed or admitted, or places for those of a batch, given
/// back when dropped.
pub struct Reservation<'a> {
    index: &'a Index,
    /// Whether the job may run at once; else it is for the queue.
    pub runs: bool,
    count: usize,
}

#[derive(Default)]
pub struct Reserved {
    running: usize,
    waiting: usize,
}

impl Index {
    /// Takes a place for a job that is about to be created or resumed: to run if there is room and
    /// nobody waits, else in the queue.
    pub fn reserve(&self) -> Result<Reservation<'_>, Full> {
        let mut state = self.state.write();
        let limit = self.bounds.unfinished;
        let reserved = state.reserved.running + state.reserved.waiting;
        if state.tally.unfinished + reserved >= limit {
            return Err(Full::Unfinished { limit });
        }
        let nobody_waits = state.waiting.is_empty() && state.reserved.waiting == 0;
        if self.bounds.running == 0 || (nobody_waits && self.has_room(&state)) {
            return Ok(self.place(&mut state, true, 1));
        }
        let limit = self.bounds.waiting;
        if state.waiting.len() + state.reserved.waiting >= limit {
            return Err(Full::Waiting { limit });
        }
        Ok(self.place(&mut state, false, 1))
    }

    /// Takes places in the queue for so many jobs of a batch, of which so many are `made` already:
    /// they are in the queue once the batch is complete.
    pub fn reserve_waiting(&self, count: usize, made: usize) -> Result<Reservation<'_>, Full> {
        let mut state = self.state.write();
        let limit = self.bounds.unfinished;
        let reserved = state.reserved.running + state.reserved.waiting;
        if state.tally.unfinished + reserved + count.saturating_sub(made) > limit {
            return Err(Full::Unfinished { limit });
        }
        let limit = self.bounds.waiting;
        let is_long = state.waiting.len() + state.reserved.waiting + count > limit;
        if self.bounds.running > 0 && is_long {
            return Err(Full::Waiting { limit });
        }
        Ok(self.place(&mut state, false, count))
    }

    /// Lets jobs run under the cap. Until then all places are taken: a create of the process before
    /// this one may yet be carried out.
    pub fn open(&self) {
        self.state.write().is_open = true;
    }

    /// The backend does at once what it is asked, and tells of it: nothing of it is in doubt.
    pub fn is_told_at_once(&self) {
        let mut state = self.state.write();
        (state.is_open, state.concludes, state.is_exact) = (true, true, true);
    }

    /// Whether a job waits and another may run.
    pub fn may_admit(&self) -> bool {
        self.next(&self.state.read(), |_| true).is_some()
    }

    /// The next job of the queue of those that are `wanted`, with a place to run in, if there is
    /// one.
    pub fn next_to_admit(
        &self,
        wanted: impl Fn(&JobRecord) -> bool,
    ) -> Option<(Arc<JobRecord>, Reservation<'_>)> {
        let mut state = self.state.write();
        let record = self.next(&state, wanted)?;
        let place = self.place(&mut state, true, 1);
        Some((record, place))
    }

    fn next(&self, state: &State, wanted: impl Fn(&JobRecord) -> bool) -> Option<Arc<JobRecord>> {
        let has_room = self.has_room(state);
        if !has_room && state.tally.unanswered == 0 {
            return None;
        }
        // One that may have been admitted without an answer has its place already, and is asked for
        // again.
        let may_run = |name| {
            state
                .fates
                .get(name)
                .is_some_and(|fate| fate.unanswered.is_some())
        };
        let mut queue = state.waiting.iter().map(|(_, name)| name);
        queue.find_map(|name| {
            let record = state.jobs.get(name).filter(|record| wanted(record))?;
            (has_room || may_run(name)).then(|| record.clone())
        })
    }

    fn has_room(&self, state: &State) -> bool {
        let cap = self.bounds.running;
        cap == 0 || (state.is_open && state.tally.busy + state.reserved.running < cap)
    }

    fn place(&self, state: &mut State, runs: bool, count: usize) -> Reservation<'_> {
        match runs {
            true => state.reserved.running += count,
            false => state.reserved.waiting += count,
        }
        Reservation {
            index: self,
            runs,
            count,
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let reserved = &mut self.index.state.write().reserved;
        match self.runs {
            true => reserved.running -= self.count,
            false => reserved.waiting -= self.count,
        }
    }
}
