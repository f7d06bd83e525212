//! What both `radixconfig.yaml` and a request may set for a job.

use super::Quantity;
use super::image::has_placeholder;
use std::collections::BTreeMap;

/// The settings of a job that an environment, and then a request, may override. `None` means not
/// set at this level.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// A container image, which may hold `{imageTagName}`.
    pub image: Option<String>,
    /// Fills `{imageTagName}`, or replaces the image's tag where there is no placeholder.
    pub image_tag_name: Option<String>,
    /// Seconds that one attempt may run, at least 1.
    pub time_limit_seconds: Option<u32>,
    /// Attempts after the first.
    pub backoff_limit: Option<u32>,
    /// What a failed attempt's exit code means.
    pub failure_policy: Option<FailurePolicy>,
    /// Whether the cluster autoscaler may move the job.
    pub safe_to_restart: Option<bool>,
    /// Requested and limited compute resources.
    pub resources: Option<Resources>,
    /// GPU requirements; `runtime.node_type` supersedes it.
    pub node: Option<Node>,
    /// Where the job runs.
    pub runtime: Option<Runtime>,
    /// Environment variables; a level adds to the one below it, by name.
    pub variables: BTreeMap<String, String>,
    /// The entry point; an empty list means the image's own.
    pub command: Option<Vec<String>>,
    /// The entry point's arguments; an empty list means the image's own.
    pub args: Option<Vec<String>>,
    /// The user id that the job runs as, over 0.
    pub run_as_user: Option<u32>,
}

/// Seconds that one attempt of a job may run where nothing else is said: 12 hours.
const DEFAULT_TIME_LIMIT_SECONDS: u32 = 43_200;
/// A job allowed to run this long (3 days) is moved by the cluster autoscaler unless it says
/// otherwise.
const SAFE_TO_RESTART_FROM_SECONDS: u32 = 259_200;

/// Requested and limited resources by name (`cpu`, `memory`, or an extended resource).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    pub requests: BTreeMap<String, Quantity>,
    pub limits: BTreeMap<String, Quantity>,
}

/// `failurePolicy`: the first rule that matches a failed attempt's exit code decides.
#[derive(Clone, Debug, PartialEq)]
pub struct FailurePolicy {
    pub rules: Vec<FailureRule>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FailureRule {
    pub action: FailureAction,
    pub on_exit_codes: ExitCodes,
}

/// What a rule does with the attempt, named as in Kubernetes' podFailurePolicy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FailureAction {
    /// The job fails at once.
    FailJob,
    /// The attempt does not count.
    Ignore,
    /// The attempt counts, as without a rule.
    Count,
}

impl FailureAction {
    pub fn as_str(self) -> &'static str {
        match self {
            FailureAction::FailJob => "FailJob",
            FailureAction::Ignore => "Ignore",
            FailureAction::Count => "Count",
        }
    }
}

/// The exit codes that a rule is about; 1 to 255 values.
#[derive(Clone, Debug, PartialEq)]
pub enum ExitCodes {
    In(Vec<i32>),
    NotIn(Vec<i32>),
}

impl ExitCodes {
    pub fn contain(&self, code: i32) -> bool {
        match self {
            ExitCodes::In(values) => values.contains(&code),
            ExitCodes::NotIn(values) => !values.contains(&code),
        }
    }

    /// The operator's name, and the values.
    pub fn parts(&self) -> (&'static str, &[i32]) {
        match self {
            ExitCodes::In(values) => ("In", values),
            ExitCodes::NotIn(values) => ("NotIn", values),
        }
    }
}

/// GPU requirements.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// GPU names, comma-separated; a leading `-` excludes one.
    pub gpu: Option<String>,
    /// At least so many GPUs.
    pub gpu_count: Option<u32>,
}

/// Where a job runs: one of the three.
#[derive(Clone, Debug, PartialEq)]
pub enum Runtime {
    /// `{}`: on any node, whatever the level below says.
    Any,
    Architecture(Architecture),
    /// A node pool's name.
    NodeType(String),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    pub fn as_str(self) -> &'static str {
        match self {
            Architecture::Amd64 => "amd64",
            Architecture::Arm64 => "arm64",
        }
    }
}

impl Settings {
    /// These settings of a component with those of an environment on top. As in Radix, `node` is
    /// the one object that merges by field.
    pub fn in_environment(&self, over: &Settings) -> Settings {
        let mut merged = self.overridden_by(over);
        if let (Some(over), Some(base)) = (&over.node, &self.node) {
            merged.node = Some(Node {
                gpu: pick(&over.gpu, &base.gpu),
                gpu_count: pick(&over.gpu_count, &base.gpu_count),
            });
        }
        merged
    }

    /// These settings of a job with those that its batch has for all below them. As in Radix,
    /// resources merge by name, requests and limits each, and `node` by field.
    pub fn over_batch(&self, batch: &Settings) -> Settings {
        let mut merged = batch.in_environment(self);
        if let (Some(own), Some(base)) = (&self.resources, &batch.resources) {
            let mut resources = base.clone();
            resources.requests.extend(own.requests.clone());
            resources.limits.extend(own.limits.clone());
            merged.resources = Some(resources);
        }
        merged
    }

    /// The names of resources of which more is requested than may be had.
    pub fn over_limit(&self) -> Vec<&str> {
        let resources = self.resources.iter();
        let requests = resources.flat_map(|all| all.requests.iter().map(|one| (one, &all.limits)));
        let over = requests.filter(|((name, request), limits)| {
            limits
                .get(*name)
                .is_some_and(|limit| request.milli > limit.milli)
        });
        over.map(|((name, _), _)| name.as_str()).collect()
    }

    /// These settings with those of `over` on top: variables merge by name, everything else is
    /// replaced.
    ///
    /// An image without a placeholder also ends the `imageTagName` below it, which was meant for
    /// another image.
    pub fn overridden_by(&self, over: &Settings) -> Settings {
        let mut variables = self.variables.clone();
        variables.extend(over.variables.iter().map(|(k, v)| (k.clone(), v.clone())));
        Settings {
            image: pick(&over.image, &self.image),
            image_tag_name: match &over.image {
                Some(image) if !has_placeholder(image) => over.image_tag_name.clone(),
                _ => pick(&over.image_tag_name, &self.image_tag_name),
            },
            time_limit_seconds: pick(&over.time_limit_seconds, &self.time_limit_seconds),
            backoff_limit: pick(&over.backoff_limit, &self.backoff_limit),
            failure_policy: pick(&over.failure_policy, &self.failure_policy),
            safe_to_restart: pick(&over.safe_to_restart, &self.safe_to_restart),
            resources: pick(&over.resources, &self.resources),
            node: pick(&over.node, &self.node),
            runtime: pick(&over.runtime, &self.runtime),
            variables,
            command: pick(&over.command, &self.command),
            args: pick(&over.args, &self.args),
            run_as_user: pick(&over.run_as_user, &self.run_as_user),
        }
    }

    /// The time limit, or its default.
    pub fn time_limit_seconds(&self) -> u32 {
        self.time_limit_seconds
            .unwrap_or(DEFAULT_TIME_LIMIT_SECONDS)
    }

    /// Whether the autoscaler may move the job: as set, else whether it may run for days.
    pub fn safe_to_restart(&self) -> bool {
        self.safe_to_restart
            .unwrap_or(self.time_limit_seconds() >= SAFE_TO_RESTART_FROM_SECONDS)
    }
}

/// What is set at the level above, or else what is at the level below.
pub fn pick<T: Clone>(over: &Option<T>, base: &Option<T>) -> Option<T> {
    over.as_ref().or(base.as_ref()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_ends_the_tag_of_the_image_below_it() {
        #[track_caller]
        fn check(base: (&str, &str), over: (&str, &str), expected: &str) {
            let settings = |(image, tag): (&str, &str)| Settings {
                image: (!image.is_empty()).then(|| image.to_owned()),
                image_tag_name: (!tag.is_empty()).then(|| tag.to_owned()),
                ..Settings::default()
            };
            let merged = settings(base).overridden_by(&settings(over));
            assert_eq!(merged.image_reference().as_deref(), Ok(expected));
        }
        check(("a:{imageTagName}", "1"), ("", ""), "a:1");
        check(("a:{imageTagName}", "1"), ("", "2"), "a:2");
        check(("a:1", ""), ("", "2"), "a:2");
        check(("a:{imageTagName}", "1"), ("b:7", ""), "b:7");
        check(("a:{imageTagName}", "1"), ("b:7", "8"), "b:8");
        check(("a:1", "2"), ("b:{imageTagName}", ""), "b:2");
    }

    #[test]
    fn a_job_adds_to_what_its_batch_has_for_all() {
        let resources = |requests: &[(&str, &str)], limits: &[(&str, &str)]| {
            let map = |list: &[(&str, &str)]| {
                let quantity = |(name, text): &(&str, &str)| {
                    (name.to_string(), text.parse::<Quantity>().unwrap())
                };
                list.iter().map(quantity).collect()
            };
            Some(Resources {
                requests: map(requests),
                limits: map(limits),
            })
        };
        let batch = Settings {
            resources: resources(&[("cpu", "1")], &[("memory", "1Gi"), ("cpu", "2")]),
            node: Some(Node {
                gpu: Some("a100".to_owned()),
                gpu_count: Some(1),
            }),
            backoff_limit: Some(5),
            args: Some(vec!["a".to_owned()]),
            ..Settings::default()
        };
        let job = Settings {
            resources: resources(&[("cpu", "3")], &[("memory", "2Gi")]),
            node: Some(Node {
                gpu: None,
                gpu_count: Some(2),
            }),
            backoff_limit: Some(0),
            args: Some(vec![]),
            ..Settings::default()
        };
        let merged = job.over_batch(&batch);
        let expected = resources(&[("cpu", "3")], &[("memory", "2Gi"), ("cpu", "2")]);
        assert_eq!(merged.resources, expected);
        assert_eq!(merged.over_limit(), ["cpu"]);
        assert_eq!(batch.over_limit(), [""; 0]);
        let node = merged.node.unwrap();
        assert_eq!(
            (node.gpu.as_deref(), node.gpu_count),
            (Some("a100"), Some(2))
        );
        assert_eq!((merged.backoff_limit, merged.args), (Some(0), Some(vec![])));
        assert_eq!(Settings::default().over_batch(&batch), batch);
    }

    #[test]
    fn a_job_of_days_may_be_moved_unless_it_says_otherwise() {
        let settings = |time_limit_seconds, safe_to_restart| Settings {
            time_limit_seconds,
            safe_to_restart,
            ..Settings::default()
        };
        assert!(!settings(None, None).safe_to_restart());
        assert!(!settings(Some(259_199), None).safe_to_restart());
        assert!(settings(Some(259_200), None).safe_to_restart());
        assert!(!settings(Some(259_200), Some(false)).safe_to_restart());
        assert_eq!(settings(None, None).time_limit_seconds(), 43_200);
    }
}
