//! A batch's status: what its jobs' come to, by the rules of the job component or by default.

use crate::job::Status;
use std::fmt;

/// A batch as its users see it, named as in Radix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchStatus {
    Waiting,
    Active,
    Running,
    Stopping,
    Stopped,
    Succeeded,
    Failed,
    /// All of its jobs have come to an end.
    Completed,
}

impl BatchStatus {
    pub const ALL: [BatchStatus; 8] = [
        BatchStatus::Waiting,
        BatchStatus::Active,
        BatchStatus::Running,
        BatchStatus::Stopping,
        BatchStatus::Stopped,
        BatchStatus::Succeeded,
        BatchStatus::Failed,
        BatchStatus::Completed,
    ];

    /// The status of this name.
    pub fn parse(text: &str) -> Option<BatchStatus> {
        let mut all = BatchStatus::ALL.into_iter();
        all.find(|status| status.as_str() == text)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            BatchStatus::Waiting => "Waiting",
            BatchStatus::Active => "Active",
            BatchStatus::Running => "Running",
            BatchStatus::Stopping => "Stopping",
            BatchStatus::Stopped => "Stopped",
            BatchStatus::Succeeded => "Succeeded",
            BatchStatus::Failed => "Failed",
            BatchStatus::Completed => "Completed",
        }
    }
}

impl fmt::Display for BatchStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One of `batchStatusRules`: what a batch is called whose jobs are so. The first that holds
/// decides.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusRule {
    pub condition: Condition,
    pub operator: Operator,
    /// At least one.
    pub job_statuses: Vec<JobStatus>,
    pub batch_status: BatchStatus,
}

/// How many of the jobs must be so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Condition {
    Any,
    All,
}

/// Whether a job's status must be one of the rule's, or none of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operator {
    In,
    NotIn,
}

/// A job's status as rules call it. A job that has been let run is both Active and Running: which
/// of the two it is in Radix tells whether its container is ready, and a rule that names one means
/// what has begun and not ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum JobStatus {
    Waiting,
    Active,
    Running,
    Succeeded,
    Failed,
    Stopped,
}

impl JobStatus {
    pub const ALL: [JobStatus; 6] = [
        JobStatus::Waiting,
        JobStatus::Active,
        JobStatus::Running,
        JobStatus::Succeeded,
        JobStatus::Failed,
        JobStatus::Stopped,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            JobStatus::Waiting => "Waiting",
            JobStatus::Active => "Active",
            JobStatus::Running => "Running",
            JobStatus::Succeeded => "Succeeded",
            JobStatus::Failed => "Failed",
            JobStatus::Stopped => "Stopped",
        }
    }

    fn is(self, status: Status) -> bool {
        match status {
            Status::Waiting => self == JobStatus::Waiting,
            // Until it has stopped it is what it was.
            Status::Running | Status::Stopping => {
                matches!(self, JobStatus::Active | JobStatus::Running)
            }
            Status::Stopped => self == JobStatus::Stopped,
            Status::Succeeded => self == JobStatus::Succeeded,
            Status::Failed => self == JobStatus::Failed,
        }
    }
}

impl StatusRule {
    fn holds(&self, jobs: &[Status]) -> bool {
        let is_one = |status: &Status| self.job_statuses.iter().any(|named| named.is(*status));
        let is_so = |status: &Status| is_one(status) == (self.operator == Operator::In);
        match self.condition {
            Condition::Any => jobs.iter().any(is_so),
            Condition::All => jobs.iter().all(is_so),
        }
    }
}

/// The status of a batch whose jobs have these, of which there is at least one.
pub fn of_jobs(rules: &[StatusRule], jobs: &[Status]) -> BatchStatus {
    let rule = rules.iter().find(|rule| rule.holds(jobs));
    let by_default = || match () {
        () if jobs.iter().all(|status| *status == Status::Waiting) => BatchStatus::Waiting,
        () if jobs.iter().all(|status| status.is_finished()) => BatchStatus::Completed,
        () => BatchStatus::Active,
    };
    rule.map_or_else(by_default, |rule| rule.batch_status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Status::{Failed, Running, Stopped, Stopping, Succeeded, Waiting};

    fn rule(text: &str) -> StatusRule {
        let words: Vec<&str> = text.split(' ').collect();
        let [condition, operator, statuses, batch] = words[..] else {
            panic!("{text}");
        };
        let named = |name: &str| JobStatus::ALL.into_iter().find(|s| s.as_str() == name);
        StatusRule {
            condition: match condition {
                "Any" => Condition::Any,
                _ => Condition::All,
            },
            operator: match operator {
                "In" => Operator::In,
                _ => Operator::NotIn,
            },
            job_statuses: statuses
                .split(',')
                .map(|name| named(name).unwrap())
                .collect(),
            batch_status: BatchStatus::parse(batch).unwrap(),
        }
    }

    #[track_caller]
    fn check(rules: &[&str], jobs: &[Status], expected: BatchStatus) {
        let rules: Vec<StatusRule> = rules.iter().map(|text| rule(text)).collect();
        assert_eq!(of_jobs(&rules, jobs), expected, "{rules:?} {jobs:?}");
    }

    #[test]
    fn without_rules_a_batch_waits_then_is_active_until_all_is_over() {
        check(&[], &[Waiting, Waiting], BatchStatus::Waiting);
        check(&[], &[Waiting, Running], BatchStatus::Active);
        check(&[], &[Succeeded, Waiting], BatchStatus::Active);
        check(&[], &[Stopping], BatchStatus::Active);
        check(&[], &[Succeeded, Failed, Stopped], BatchStatus::Completed);
    }

    #[test]
    fn the_first_rule_that_holds_decides() {
        let any_failed = "Any In Failed Failed";
        let all_well = "All In Succeeded Succeeded";
        let rules = [any_failed, all_well];
        check(&rules, &[Succeeded, Failed], BatchStatus::Failed);
        check(&rules, &[Succeeded, Succeeded], BatchStatus::Succeeded);
        check(&rules, &[Succeeded, Stopped], BatchStatus::Completed);
        check(&rules, &[Running, Failed], BatchStatus::Failed);
        check(&[all_well, any_failed], &[Failed], BatchStatus::Failed);
    }

    #[test]
    fn a_rule_is_about_one_job_or_all() {
        check(
            &["Any NotIn Waiting Running"],
            &[Waiting, Running],
            BatchStatus::Running,
        );
        check(
            &["Any NotIn Waiting Running"],
            &[Waiting, Waiting],
            BatchStatus::Waiting,
        );
        let over = "All NotIn Waiting,Active,Running Completed";
        check(&[over], &[Waiting], BatchStatus::Waiting);
        check(&[over], &[Succeeded, Running], BatchStatus::Active);
        check(&[over], &[Succeeded, Stopped], BatchStatus::Completed);
    }

    #[test]
    fn what_runs_is_active_and_running_until_it_has_stopped() {
        check(&["Any In Active Running"], &[Running], BatchStatus::Running);
        check(
            &["Any In Running Running"],
            &[Stopping],
            BatchStatus::Running,
        );
        check(
            &["All In Stopped Stopped"],
            &[Stopping],
            BatchStatus::Active,
        );
    }
}
