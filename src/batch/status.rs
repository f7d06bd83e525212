//! A batch's status: what its jobs' come to, by the rules of the job component or by default.

use crate::config::{BatchStatus, StatusRule};
use crate::job::Status;

/// The status of a batch whose jobs have these. One whose jobs somebody has deleted is over.
pub fn of_jobs(rules: &[StatusRule], jobs: &[Status]) -> BatchStatus {
    let rule = rules
        .iter()
        .find(|rule| !jobs.is_empty() && rule.holds(jobs));
    let by_default = || match () {
        () if jobs.iter().all(|status| status.is_finished()) => BatchStatus::Completed,
        () if jobs.iter().all(|status| *status == Status::Waiting) => BatchStatus::Waiting,
        () => BatchStatus::Active,
    };
    rule.map_or_else(by_default, |rule| rule.batch_status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RuleCondition, RuleOperator, RuleStatus};
    use Status::{Failed, Running, Stopped, Stopping, Succeeded, Waiting};

    fn rule(text: &str) -> StatusRule {
        let words: Vec<&str> = text.split(' ').collect();
        let [condition, operator, statuses, batch] = words[..] else {
            panic!("{text}");
        };
        let named = |name: &str| RuleStatus::ALL.into_iter().find(|s| s.as_str() == name);
        StatusRule {
            condition: match condition {
                "Any" => RuleCondition::Any,
                _ => RuleCondition::All,
            },
            operator: match operator {
                "In" => RuleOperator::In,
                _ => RuleOperator::NotIn,
            },
            job_statuses: statuses
                .split(',')
                .map(|name| named(name).unwrap())
                .collect(),
            batch_status: BatchStatus::ALL
                .into_iter()
                .find(|s| s.as_str() == batch)
                .unwrap(),
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
