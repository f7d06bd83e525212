//! Fails at once while the API server does not answer, so that callers are told in time and do not
//! queue up behind it.

use crate::sync::Lock;
use std::time::{Duration, Instant};

/// After a call that got no answer, calls fail at once for this long; then one is let through to
/// try.
const PAUSE: Duration = Duration::from_millis(500);

/// Knows whether the API server answered of late.
#[derive(Default)]
pub struct Breaker(Lock<State>);

#[derive(Default)]
struct State {
    /// When a call last got no answer, if none has had one since.
    failed: Option<Instant>,
    /// When a call was last answered.
    answered: Option<Instant>,
    /// When the last call began that got no answer.
    silent: Option<Instant>,
    /// One call is trying.
    trying: bool,
}

impl Breaker {
    /// Whether a call may be made. Each that is made must be told of with
    /// [`Breaker::answered`], [`Breaker::not_answered`] or [`Breaker::release`].
    pub fn lets_through(&self, now: Instant) -> bool {
        let mut state = self.0.lock();
        match state.failed {
            None => true,
            Some(failed) if state.trying || now.saturating_duration_since(failed) < PAUSE => false,
            Some(_) => {
                state.trying = true;
                true
            }
        }
    }

    /// Whether connections that have said nothing since `heard` are to be doubted: a call that
    /// began later got no answer, as on a connection whose other end is gone without a word, and
    /// others got theirs.
    pub fn doubts(&self, heard: Instant) -> bool {
        let state = self.0.lock();
        state
            .silent
            .is_some_and(|silent| silent >= heard && state.answered > Some(silent))
    }

    /// A call that was let through came to nothing that says how the API server is.
    pub fn release(&self) {
        self.0.lock().trying = false;
    }

    /// The API server answered a call, whatever it said.
    pub fn answered(&self, now: Instant) {
        let mut state = self.0.lock();
        state.failed = None;
        state.answered = Some(now);
        state.trying = false;
    }

    /// A call that began at `began` was not answered. One that is slow while others are answered
    /// says nothing.
    pub fn not_answered(&self, began: Instant, now: Instant) {
        let mut state = self.0.lock();
        state.trying = false;
        state.silent = state.silent.max(Some(began));
        if state.answered.is_none_or(|answered| answered < began) {
            state.failed = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_fail_at_once_after_one_without_an_answer_and_one_at_a_time_tries_again() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        assert!(breaker.lets_through(at(0)) && breaker.lets_through(at(0)));
        breaker.not_answered(at(0), at(0));
        assert!(!breaker.lets_through(at(499)));
        assert!(breaker.lets_through(at(500)));
        assert!(!breaker.lets_through(at(501)), "one tries already");
        breaker.not_answered(at(500), at(600));
        assert!(!breaker.lets_through(at(1000)));
        assert!(breaker.lets_through(at(1100)));
        breaker.answered(at(1200));
        assert!(breaker.lets_through(at(1200)) && breaker.lets_through(at(1200)));
    }

    #[test]
    fn a_silent_connection_is_doubted_once_another_answers() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        breaker.answered(at(100));
        assert!(!breaker.doubts(at(50)));
        breaker.not_answered(at(200), at(2000));
        assert!(!breaker.doubts(at(150)), "nothing answers");
        breaker.answered(at(2100));
        assert!(breaker.doubts(at(150)));
        assert!(!breaker.doubts(at(300)), "it was heard of since");
    }

    #[test]
    fn a_slow_call_stops_nobody_while_others_are_answered() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        breaker.answered(at(900));
        breaker.not_answered(at(0), at(1800));
        assert!(breaker.lets_through(at(1801)));
        breaker.not_answered(at(1000), at(2800));
        assert!(!breaker.lets_through(at(2801)));
    }
}
