//! Whether a job has come to its end, as its attempts show: the job controller says so seconds
//! later, and minutes where it has much to do. Pure, so that the same facts give the same answer
//! whenever they are looked at.
//!
//! It goes by the job controller's own rules, and leaves to it whatever is doubtful.
//!
//! Source: <https://kubernetes.io/docs/concepts/workloads/controllers/job/>, "Pod failure policy" and
//! "Handling Pod and container failures".

use crate::config::{FailureAction, FailureRule};
use crate::job::{Attempt, AttemptState, Job, Status, Timestamp};

/// What follows from failed attempts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Retries {
    /// More failed attempts that count than this fail the job.
    pub backoff_limit: u32,
    /// The first that is about the exit code decides.
    pub rules: Box<[FailureRule]>,
}

impl Retries {
    /// What a failed attempt means. No rule is about exit code 0, which is a failure where something
    /// else ended the attempt.
    fn action(&self, exit_code: i32) -> FailureAction {
        let mut rules = self.rules.iter();
        let rule = rules.find(|rule| exit_code != 0 && rule.on_exit_codes.contain(exit_code));
        rule.map_or(FailureAction::Count, |rule| rule.action)
    }
}

/// How a job ended, and when its container did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct End {
    /// Succeeded or Failed.
    pub status: Status,
    pub at: Timestamp,
    /// Attempts that failed and count.
    pub failed: u32,
}

/// Whether another attempt began after one had ended, and goes on: somebody held the job back
/// meanwhile, so that the end did not count.
pub fn has_gone_on(attempts: &[Attempt], end: Option<Timestamp>) -> bool {
    let goes_on = |attempt: &Attempt| !attempt.state.is_finished() && !attempt.is_over;
    attempts
        .iter()
        .any(|attempt| goes_on(attempt) && Some(attempt.created) >= end)
}

/// The end of a job that was let run and not held back since; `None` while its attempts do not show
/// one beyond doubt.
pub fn finished(job: &Job, attempts: &[Attempt]) -> Option<End> {
    let started = job.started?;
    // Times are in seconds: one of before a restart may be of the same.
    let is_of_this_run = |attempt: &&Attempt| match job.is_rerun {
        true => attempt.created > started,
        false => attempt.created >= started,
    };
    let certain = attempts.iter().filter(|attempt| attempt.is_certain);
    let certain = certain.filter(is_of_this_run);
    let of = |state| {
        certain
            .clone()
            .filter(move |attempt| attempt.state == state)
    };
    let end = |status, attempt: &Attempt, failed| {
        let at = attempt.finished?;
        (!has_gone_on(attempts, Some(at))).then_some(End { status, at, failed })
    };
    if let Some(succeeded) = of(AttemptState::Succeeded).next() {
        return end(Status::Succeeded, succeeded, job.failed);
    }
    let retries = job.retries.as_ref()?;
    let action = |attempt: &Attempt| retries.action(attempt.exit_code.unwrap_or(0));
    let failed = |wanted| of(AttemptState::Failed).filter(move |attempt| action(attempt) == wanted);
    let fails = failed(FailureAction::FailJob).next();
    let mut counted = failed(FailureAction::Count);
    let count = u32::try_from(counted.clone().count()).unwrap_or(u32::MAX);
    let count = count + u32::from(fails.is_some());
    // Where pods that are gone are in the job's own count, the last may be one of them.
    let exhausts = counted
        .next_back()
        .filter(|_| count > retries.backoff_limit && count >= job.failed);
    end(Status::Failed, fails.or(exhausts)?, count.max(job.failed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ExitCodes;

    /// Attempts as `<state><exit code>[@second]…`: `s0`, `f1`, `r`, with `?` after one that is not
    /// certain.
    fn attempt(text: &str) -> Attempt {
        let (text, is_certain) = match text.strip_suffix('?') {
            Some(text) => (text, false),
            None => (text, true),
        };
        let (text, second) = text.split_once('@').unwrap_or((text, "10"));
        let second = Timestamp::at(second.parse().unwrap());
        let (state, code) = text.split_at(1);
        let state = match state {
            "s" => AttemptState::Succeeded,
            "f" => AttemptState::Failed,
            _ => AttemptState::Running,
        };
        Attempt {
            created: second,
            finished: Some(Timestamp::at(second.seconds() + 1)),
            exit_code: code.parse().ok(),
            is_certain,
            ..Attempt::sample("p", state, 1)
        }
    }

    fn check(change: impl Fn(&mut Job), attempts: &str, expected: Option<(Status, i64)>) {
        let rule = |action, codes| FailureRule {
            action,
            on_exit_codes: codes,
        };
        let rules = [
            rule(FailureAction::Ignore, ExitCodes::In(vec![42])),
            rule(FailureAction::FailJob, ExitCodes::In(vec![7, 42])),
        ];
        let mut job = Job {
            started: Some(Timestamp::at(10)),
            retries: Some(Retries {
                backoff_limit: 1,
                rules: rules.into(),
            }),
            ..Job::sample("a", Status::Running, 1)
        };
        change(&mut job);
        let all: Vec<Attempt> = attempts.split_whitespace().map(attempt).collect();
        let end = finished(&job, &all).map(|end| (end.status, end.at.seconds()));
        assert_eq!(end, expected, "{attempts}");
    }

    #[test]
    fn a_job_ends_with_its_container() {
        let (done, failed) = (
            |at| Some((Status::Succeeded, at)),
            |at| Some((Status::Failed, at)),
        );
        let as_is = |_: &mut Job| {};
        for (attempts, expected) in [
            ("", None),
            ("r", None),
            ("s0", done(11)),
            ("s0?", None),
            ("s0@9", None),
            ("f1 s0@20", done(21)),
            ("f1", None),
            ("f1 f2@20", failed(21)),
            ("f1? f2@20", None),
            ("s0 r@11", None),
            ("s0 r@10", done(11)),
            ("f1 f2@20 r@21", None),
            ("f1 r f42@20", None),
            ("f42 f42@20 f42@30", None),
            ("f7", failed(11)),
            ("f7?", None),
            ("f0 f0@20", failed(21)),
            ("f1@3 f1@20", None),
        ] {
            check(as_is, attempts, expected);
        }
        check(|job| job.failed = 1, "f1", None);
        check(|job| job.failed = 2, "f1@20", None);
        check(|job| job.failed = 2, "f1 f1@20", failed(21));
        check(|job| job.failed = 2, "f7@20", failed(21));
        check(|job| job.failed = 2, "f42@20", None);
        check(|job| job.started = None, "s0", None);
        check(|job| job.retries = None, "f7", None);
        check(|job| job.retries = None, "s0", done(11));
        check(|job| job.is_rerun = true, "s0", None);
        check(|job| job.is_rerun = true, "s0@11", done(12));
    }
}
