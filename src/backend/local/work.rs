//! What a job is to do, as it is kept on disk, and what follows from how an attempt ended. Pure.

use super::admission::Amount;
use crate::backend::NewJob;
use crate::config::{ExitCodes, FailureAction};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a job is to do. Values of secrets are not in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    pub command: Vec<String>,
    pub args: Vec<String>,
    pub variables: BTreeMap<String, String>,
    pub time_limit_seconds: u32,
    /// Failed attempts that are followed by another one.
    pub backoff_limit: u32,
    pub rules: Vec<Rule>,
    pub cpu_milli: u64,
    pub memory: u64,
}

/// A rule of the failure policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    action: Action,
    /// Whether it is about the codes, or about all others.
    within: bool,
    codes: Vec<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Action {
    FailJob,
    Ignore,
    Count,
}

impl Work {
    pub fn of(new: &NewJob, need: Amount) -> Work {
        let settings = new.settings;
        let policy = settings.failure_policy.iter();
        let rules = policy.flat_map(|policy| &policy.rules).map(|rule| {
            let (within, codes) = match &rule.on_exit_codes {
                ExitCodes::In(codes) => (true, codes.clone()),
                ExitCodes::NotIn(codes) => (false, codes.clone()),
            };
            Rule {
                action: match rule.action {
                    FailureAction::FailJob => Action::FailJob,
                    FailureAction::Ignore => Action::Ignore,
                    FailureAction::Count => Action::Count,
                },
                within,
                codes,
            }
        });
        Work {
            command: settings.command.clone().unwrap_or_default(),
            args: settings.args.clone().unwrap_or_default(),
            variables: settings.variables.clone(),
            time_limit_seconds: settings.time_limit_seconds(),
            backoff_limit: settings.backoff_limit.unwrap_or(0),
            rules: rules.collect(),
            cpu_milli: need.cpu_milli,
            memory: need.memory,
        }
    }

    pub fn need(&self) -> Amount {
        Amount {
            cpu_milli: self.cpu_milli,
            memory: self.memory,
        }
    }

    /// What the first rule about the exit code does. No rule is about success, which is a failure only where a time limit
    /// cut it short, nor about a code that nobody saw.
    fn action(&self, exit_code: i32) -> Action {
        let about = |rule: &&Rule| exit_code != 0 && rule.codes.contains(&exit_code) == rule.within;
        self.rules
            .iter()
            .find(about)
            .map_or(Action::Count, |rule| rule.action)
    }

    /// What follows when the last of these attempts, by their exit codes, has failed.
    pub fn after_failure(&self, exit_codes: &[i32]) -> Next {
        let actions: Vec<Action> = exit_codes.iter().map(|code| self.action(*code)).collect();
        if actions.last() == Some(&Action::FailJob) {
            return Next::Fail;
        }
        let counted = actions.iter().filter(|a| **a == Action::Count).count();
        if actions.last() == Some(&Action::Count) && counted > self.backoff_limit as usize {
            return Next::Fail;
        }
        Next::TryAgain {
            delay: delay_after(exit_codes.len()),
        }
    }
}

/// What follows from a failed attempt.
#[derive(Debug, PartialEq)]
pub enum Next {
    Fail,
    TryAgain { delay: Duration },
}

const FIRST_DELAY: Duration = Duration::from_secs(1);
/// As in Kubernetes.
const MAX_DELAY: Duration = Duration::from_secs(360);

/// The pause before another attempt doubles each time, as in Kubernetes; it begins with one second where Kubernetes has
/// ten, since somebody sits before this machine.
fn delay_after(failures: usize) -> Duration {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    FIRST_DELAY
        .saturating_mul(2u32.saturating_pow(doublings))
        .min(MAX_DELAY)
}

/// Replaces `$(NAME)` by the variable's value; `$$` is a `$`, and a name that is not there stays as it is.
///
/// Source: <https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/>
pub fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let reference = after
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'));
        match reference {
            _ if after.starts_with('$') => {
                expanded.push('$');
                rest = after.get(1..).unwrap_or_default();
            }
            Some((name, behind)) => {
                match variables.get(name) {
                    Some(value) => expanded.push_str(value),
                    None => expanded.extend(["$(", name, ")"]),
                }
                rest = behind;
            }
            None => {
                expanded.push('$');
                rest = after;
            }
        }
    }
    expanded + rest
}

/// The job's environment, the same as in a cluster: its own variables, then secrets, then what every job gets. A
/// variable's value may refer to those before it.
pub fn environment(
    work: &Work,
    secrets: &BTreeMap<String, String>,
    of_every_job: impl IntoIterator<Item = (&'static str, String)>,
) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    for (name, value) in &work.variables {
        let value = expand(value, &environment);
        environment.insert(name.clone(), value);
    }
    let given = of_every_job.into_iter().map(|(n, v)| (n.to_string(), v));
    environment.extend(secrets.iter().map(|(n, v)| (n.clone(), v.clone())));
    environment.extend(given);
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter()
            .map(|(n, v)| (n.to_string(), v.to_string()))
            .collect()
    }

    #[test]
    fn references_are_expanded_as_in_kubernetes() {
        let known = variables(&[("A", "1"), ("B C", "2"), ("EMPTY", "")]);
        let check = |text: &str, expected: &str| assert_eq!(expand(text, &known), expected);
        check("", "");
        check("plain", "plain");
        check("$(A)", "1");
        check("x$(A)y$(B C)z", "x1y2z");
        check("[$(EMPTY)]", "[]");
        check("$(NONE)", "$(NONE)");
        check("$$(A)", "$(A)");
        check("$$$(A)", "$1");
        check("$A ${A} $", "$A ${A} $");
        check("$(A", "$(A");
        check("$($(A))", "$($(A))");
        check("$$", "$");
        check("æ$(A)ø", "æ1ø");
    }

    #[test]
    fn a_jobs_own_variables_give_way_to_the_schedulers() {
        let work = Work {
            variables: variables(&[
                ("A", "1"),
                ("B", "$(A)2$(C)"),
                ("C", "3"),
                ("RADIX_APP", "no"),
            ]),
            ..Work::default()
        };
        let environment = environment(
            &work,
            &variables(&[("KEY", "$(A)")]),
            [("RADIX_APP", "app".to_string())],
        );
        assert_eq!(
            environment,
            variables(&[
                ("A", "1"),
                ("B", "12$(C)"),
                ("C", "3"),
                ("KEY", "$(A)"),
                ("RADIX_APP", "app")
            ])
        );
    }

    /// What follows from attempts with these exit codes: `=` for failed, or the seconds to the next attempt.
    fn after(backoff_limit: u32, rules: &[(Action, bool, &[i32])], codes: &[i32]) -> String {
        let work = Work {
            backoff_limit,
            rules: rules
                .iter()
                .map(|(action, within, codes)| Rule {
                    action: *action,
                    within: *within,
                    codes: codes.to_vec(),
                })
                .collect(),
            ..Work::default()
        };
        match work.after_failure(codes) {
            Next::Fail => "=".to_string(),
            Next::TryAgain { delay } => delay.as_secs().to_string(),
        }
    }

    #[test]
    fn a_failed_job_is_tried_again_up_to_its_backoff_limit() {
        assert_eq!(after(0, &[], &[1]), "=");
        assert_eq!(after(1, &[], &[1]), "1");
        assert_eq!(after(1, &[], &[1, 1]), "=");
        assert_eq!(after(3, &[], &[1, 1, 1]), "4");
        assert_eq!(after(100, &[], &[1; 40]), "360");
    }

    #[test]
    fn the_first_rule_about_the_exit_code_decides() {
        use Action::{Count, FailJob, Ignore};
        let rules: &[(Action, bool, &[i32])] = &[
            (Count, true, &[7]),
            (FailJob, true, &[42, 7]),
            (Ignore, false, &[1]),
        ];
        assert_eq!(after(5, rules, &[42]), "=", "fails at once");
        assert_eq!(
            after(0, rules, &[7]),
            "=",
            "an earlier rule beats a later one"
        );
        assert_eq!(after(0, rules, &[3]), "1", "ignored, so not counted");
        assert_eq!(after(0, rules, &[3, 3, 3]), "4", "however often");
        assert_eq!(after(1, rules, &[3, 1, 3]), "4");
        assert_eq!(
            after(0, rules, &[3, 1]),
            "=",
            "no rule is about it, so it counts"
        );
    }
}
