//! `batchStatusRules`: what a batch is called whose jobs are so and so.

use super::fields::Item;
use super::tree::shown;
use crate::job::Status;
use std::fmt;

/// The most rules of a job component.
const MAX_RULES: usize = 100;

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
    pub condition: RuleCondition,
    pub operator: RuleOperator,
    /// At least one.
    pub job_statuses: Vec<RuleStatus>,
    pub batch_status: BatchStatus,
}

/// How many of the jobs must be so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RuleCondition {
    Any,
    All,
}

impl RuleCondition {
    const BOTH: [RuleCondition; 2] = [RuleCondition::Any, RuleCondition::All];

    pub fn as_str(self) -> &'static str {
        match self {
            RuleCondition::Any => "Any",
            RuleCondition::All => "All",
        }
    }
}

/// Whether a job's status must be one of the rule's, or none of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RuleOperator {
    In,
    NotIn,
}

impl RuleOperator {
    const BOTH: [RuleOperator; 2] = [RuleOperator::In, RuleOperator::NotIn];

    pub fn as_str(self) -> &'static str {
        match self {
            RuleOperator::In => "In",
            RuleOperator::NotIn => "NotIn",
        }
    }
}

/// A job's status as rules call it. A job that has been let run is both Active and Running: which
/// of the two it is in Radix tells whether its container is ready, and a rule that names one means
/// what has begun and not ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RuleStatus {
    Waiting,
    Active,
    Running,
    Succeeded,
    Failed,
    Stopped,
}

impl RuleStatus {
    pub const ALL: [RuleStatus; 6] = [
        RuleStatus::Waiting,
        RuleStatus::Active,
        RuleStatus::Running,
        RuleStatus::Succeeded,
        RuleStatus::Failed,
        RuleStatus::Stopped,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            RuleStatus::Waiting => "Waiting",
            RuleStatus::Active => "Active",
            RuleStatus::Running => "Running",
            RuleStatus::Succeeded => "Succeeded",
            RuleStatus::Failed => "Failed",
            RuleStatus::Stopped => "Stopped",
        }
    }

    fn is(self, status: Status) -> bool {
        match status {
            Status::Waiting => self == RuleStatus::Waiting,
            // Until it has stopped it is what it was.
            Status::Running | Status::Stopping => {
                matches!(self, RuleStatus::Active | RuleStatus::Running)
            }
            Status::Stopped => self == RuleStatus::Stopped,
            Status::Succeeded => self == RuleStatus::Succeeded,
            Status::Failed => self == RuleStatus::Failed,
        }
    }
}

impl StatusRule {
    /// Whether a batch whose jobs have these statuses is as the rule says.
    pub fn holds(&self, jobs: &[Status]) -> bool {
        let is_one = |status: &Status| self.job_statuses.iter().any(|named| named.is(*status));
        let is_so = |status: &Status| is_one(status) == (self.operator == RuleOperator::In);
        match self.condition {
            RuleCondition::Any => jobs.iter().any(is_so),
            RuleCondition::All => jobs.iter().all(is_so),
        }
    }
}

/// Reads a list of rules.
pub fn batch_status_rules(item: Item<'_>) -> Option<Vec<StatusRule>> {
    let items = item.items_within(0..=MAX_RULES)?;
    Some(items.into_iter().filter_map(rule).collect())
}

fn rule(item: Item<'_>) -> Option<StatusRule> {
    let mut fields = item.mapping()?;
    let condition = fields
        .require("condition", "give Any or All")
        .and_then(|item| one_of(item, &RuleCondition::BOTH, RuleCondition::as_str));
    let operator = fields
        .require("operator", "give In or NotIn")
        .and_then(|item| one_of(item, &RuleOperator::BOTH, RuleOperator::as_str));
    let all = RuleStatus::ALL;
    let job_statuses = fields
        .require("jobStatuses", "give the list of the jobs' statuses")
        .and_then(|item| item.items_within(1..=all.len()));
    let job_statuses = job_statuses.map(|items| {
        let items = items.into_iter();
        items.filter_map(|item| one_of(item, &all, RuleStatus::as_str))
    });
    let job_statuses = job_statuses.map(Iterator::collect);
    let batch_status = fields
        .require("batchStatus", "give the batch's status, such as Failed")
        .and_then(|item| one_of(item, &BatchStatus::ALL, BatchStatus::as_str));
    fields.finish();
    Some(StatusRule {
        condition: condition?,
        operator: operator?,
        job_statuses: job_statuses?,
        batch_status: batch_status?,
    })
}

fn one_of<T: Copy>(item: Item<'_>, all: &[T], name: fn(T) -> &'static str) -> Option<T> {
    item.parsed(|text| {
        let found = all.iter().find(|one| name(**one) == text);
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(|one| name(*one)).collect();
            format!("must be one of {}, not `{}`", names.join(", "), shown(text))
        })
    })
}
