//! Reads [`Settings`], from a job component, an environment's overrides and a request alike.

use super::fields::{Fields, Item};
use super::suggestion::suggestion;
use super::tree::shown;
use super::{
    Architecture, ExitCodes, FailureAction, FailurePolicy, FailureRule, Node, Quantity,
    QuantityError, Resources, Runtime, Settings, image, names,
};
use std::collections::{BTreeMap, BTreeSet};

/// The most that Kubernetes has for seconds, attempts and user ids.
const MAX_I32: i64 = i32::MAX as i64;

/// Takes every field that is a setting, and reports what is wrong with it. The other fields, and
/// [`Fields::finish`], are the caller's.
pub fn read_settings(fields: &mut Fields<'_>) -> Settings {
    Settings {
        image: fields
            .take("image")
            .and_then(|item| item.parsed(image::image)),
        image_tag_name: fields
            .take("imageTagName")
            .and_then(|item| item.parsed(image::image_tag_name)),
        time_limit_seconds: fields
            .take("timeLimitSeconds")
            .and_then(|item| item.integer(1..=MAX_I32)),
        backoff_limit: fields
            .take("backoffLimit")
            .and_then(|item| item.integer(0..=MAX_I32)),
        failure_policy: fields.take("failurePolicy").and_then(failure_policy),
        safe_to_restart: fields.take("safeToRestart").and_then(Item::boolean),
        resources: fields.take("resources").and_then(resources),
        node: fields.take("node").and_then(node),
        runtime: fields.take("runtime").and_then(runtime),
        variables: fields
            .take("variables")
            .and_then(variables)
            .unwrap_or_default(),
        command: fields.take("command").and_then(words),
        args: fields.take("args").and_then(words),
        run_as_user: fields
            .take("runAsUser")
            .and_then(|item| item.integer(1..=MAX_I32)),
    }
}

fn variables(item: Item<'_>) -> Option<BTreeMap<String, String>> {
    let mut variables = BTreeMap::new();
    for (name, item) in item.entries()? {
        if let Err(message) = names::variable_name(&name) {
            item.error(message);
        } else if item.is_null() {
            item.error("has no value: write \"\" for an empty one");
        } else if let Some(value) = item.parsed(argument) {
            variables.insert(name, value);
        }
    }
    Some(variables)
}

fn words(item: Item<'_>) -> Option<Vec<String>> {
    if item.is_text() {
        item.error("must be a list of words, such as [\"sh\", \"-c\", \"date\"]");
        return None;
    }
    let items = item.items()?.into_iter();
    Some(items.filter_map(|item| item.parsed(argument)).collect())
}

/// A word of a command line, or the value of a variable.
fn argument(text: &str) -> Result<String, String> {
    match text.contains('\0') {
        false => Ok(text.to_owned()),
        true => Err("must not hold a NUL character, which no process can be given".to_owned()),
    }
}

fn resources(item: Item<'_>) -> Option<Resources> {
    let mut fields = item.mapping()?;
    let mut resources = Resources {
        requests: fields
            .take("requests")
            .and_then(quantities)
            .unwrap_or_default(),
        limits: fields
            .take("limits")
            .and_then(quantities)
            .unwrap_or_default(),
    };
    for (name, limit) in &resources.limits {
        let Some(request) = resources.requests.get(name) else {
            continue;
        };
        let field = format!("{}.requests.{name}", fields.field);
        if request.milli > limit.milli {
            let message = format!("is over its limit: {request} is more than {limit}");
            fields.report().error(&field, fields.line, message);
        } else if !is_overcommitted(name) && request.milli != limit.milli {
            let message =
                format!("must be equal to its limit {limit}: Kubernetes does not share it");
            fields.report().error(&field, fields.line, message);
        }
    }
    let Resources { requests, limits } = &mut resources;
    complete(requests, limits);
    complete(limits, requests);
    fields.finish();
    Some(resources)
}

/// Where only a request or only a limit is given, the other is the same. Not for cpu: a job may use
/// what is idle.
fn complete(from: &BTreeMap<String, Quantity>, to: &mut BTreeMap<String, Quantity>) {
    for (name, quantity) in from {
        if name == "memory" || !is_overcommitted(name) {
            to.entry(name.clone()).or_insert_with(|| quantity.clone());
        }
    }
}

fn is_overcommitted(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage")
}

fn quantities(item: Item<'_>) -> Option<BTreeMap<String, Quantity>> {
    let mut quantities = BTreeMap::new();
    for (name, item) in item.entries()? {
        if let Some(message) = wrong_resource(&name) {
            item.error(message);
        } else if let Some(quantity) = quantity(item, &name) {
            quantities.insert(name, quantity);
        }
    }
    Some(quantities)
}

/// Why a name is not one of a resource: those of Kubernetes itself are few, others have a domain.
///
/// Source: <https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/>
fn wrong_resource(name: &str) -> Option<String> {
    const NAMES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
    let is_extended = match name.split_once('/') {
        Some((domain, name)) => {
            domain.split('.').all(names::is_dns_label) && names::is_label_value(name)
        }
        None => name
            .strip_prefix("hugepages-")
            .is_some_and(|size| size.parse::<Quantity>().is_ok()),
    };
    if is_extended || NAMES.contains(&name) {
        return None;
    }
    Some(match suggestion(name, NAMES) {
        Some(name) => format!("is not a resource: did you mean `{name}`?"),
        None => {
            "is not a resource: there are cpu, memory, ephemeral-storage, and those with a domain \
                 such as nvidia.com/gpu"
                .to_owned()
        }
    })
}

fn quantity(item: Item<'_>, resource: &str) -> Option<Quantity> {
    item.parsed_number(|text| {
        let quantity: Quantity = text
            .parse()
            .map_err(|error: QuantityError| error.to_string())?;
        if resource == "memory" && text.ends_with('m') {
            let number = text.trim_end_matches('m');
            return Err(format!(
                "is a fraction of a byte, since `m` is a thousandth: did you mean {number}Mi?"
            ));
        }
        if !is_overcommitted(resource) && !quantity.is_whole() {
            return Err(format!("must be a whole number, not {quantity}"));
        }
        Ok(quantity)
    })
}

fn failure_policy(item: Item<'_>) -> Option<FailurePolicy> {
    let mut fields = item.mapping()?;
    let rules = fields
        .require("rules", "give the list of rules")
        .and_then(|item| item.items_within(0..=20));
    fields.finish();
    let rules = rules?.into_iter().filter_map(failure_rule).collect();
    Some(FailurePolicy { rules })
}

fn failure_rule(item: Item<'_>) -> Option<FailureRule> {
    let mut fields = item.mapping()?;
    let action = fields
        .require("action", "give FailJob, Ignore or Count")
        .and_then(|item| {
            item.parsed(|text| match text {
                "FailJob" => Ok(FailureAction::FailJob),
                "Ignore" => Ok(FailureAction::Ignore),
                "Count" => Ok(FailureAction::Count),
                _ => Err(format!(
                    "must be FailJob, Ignore or Count, not `{}`",
                    shown(text)
                )),
            })
        });
    let on_exit_codes = fields
        .require("onExitCodes", "give its operator and values")
        .and_then(exit_codes);
    fields.finish();
    Some(FailureRule {
        action: action?,
        on_exit_codes: on_exit_codes?,
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Operator {
    In,
    NotIn,
}

fn exit_codes(item: Item<'_>) -> Option<ExitCodes> {
    let mut fields = item.mapping()?;
    let operator = fields
        .require("operator", "give In or NotIn")
        .and_then(|item| {
            item.parsed(|text| match text {
                "In" => Ok(Operator::In),
                "NotIn" => Ok(Operator::NotIn),
                _ => Err(format!("must be In or NotIn, not `{}`", shown(text))),
            })
        });
    let values = fields
        .require("values", "give the list of exit codes")
        .and_then(|item| item.items_within(1..=255))
        .map(|items| exit_code_values(items, operator));
    fields.finish();
    Some(match operator? {
        Operator::In => ExitCodes::In(values?),
        Operator::NotIn => ExitCodes::NotIn(values?),
    })
}

/// In ascending order, which Kubernetes asks for.
fn exit_code_values(items: Vec<Item<'_>>, operator: Option<Operator>) -> Vec<i32> {
    let mut values = BTreeSet::new();
    for item in items {
        let (report, field, line) = item.place();
        let Some(value) = item.integer(0..=255) else {
            continue;
        };
        if value == 0 && operator == Some(Operator::In) {
            let message =
                "must not be 0 with the operator In: an attempt that ends with 0 has not failed";
            report.error(&field, line, message);
        } else if !values.insert(value) {
            report.error(&field, line, format!("is there twice: {value}"));
        }
    }
    values.into_iter().collect()
}

fn node(item: Item<'_>) -> Option<Node> {
    let mut fields = item.mapping()?;
    let node = Node {
        gpu: fields.take("gpu").and_then(|item| item.parsed(gpu_names)),
        gpu_count: fields
            .take("gpuCount")
            .and_then(|item| item.integer_or_text(1..=MAX_I32)),
    };
    fields.finish();
    Some(node)
}

/// Names of GPUs, without the spaces between them.
fn gpu_names(text: &str) -> Result<String, String> {
    let names: Vec<&str> = text.split(',').map(str::trim).collect();
    for name in &names {
        let excluded = name.strip_prefix('-');
        if !names::is_label_value(excluded.unwrap_or(name)) {
            return Err(format!(
                "must be names of GPUs with commas between, such as nvidia-v100 or, to exclude one, \
                 -nvidia-k80, not `{}`",
                shown(text)
            ));
        }
        if excluded.is_some_and(|name| names.contains(&name)) {
            return Err(format!(
                "both asks for a GPU and excludes it: `{}`",
                shown(text)
            ));
        }
    }
    Ok(names.join(","))
}

fn runtime(item: Item<'_>) -> Option<Runtime> {
    let mut fields = item.mapping()?;
    let architecture = fields.take("architecture").and_then(|item| {
        item.parsed(|text| match text {
            "" => Ok(None),
            "amd64" => Ok(Some(Architecture::Amd64)),
            "arm64" => Ok(Some(Architecture::Arm64)),
            _ => Err(format!("must be amd64 or arm64, not `{}`", shown(text))),
        })
    });
    let node_type = fields.take("nodeType").and_then(|item| {
        item.parsed(|text| match text {
            "" => Ok(None),
            _ => names::dns_label(text).map(Some),
        })
    });
    let runtime = match (architecture.flatten(), node_type.flatten()) {
        (Some(_), Some(_)) => {
            fields.error("must have architecture or nodeType, not both: a node type has its own");
            None
        }
        (Some(architecture), None) => Some(Runtime::Architecture(architecture)),
        (None, Some(name)) => Some(Runtime::NodeType(name)),
        (None, None) => Some(Runtime::Any),
    };
    fields.finish();
    runtime
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fields::Report;
    use crate::config::tree::Node as Document;

    /// The settings of a JSON document, or what is wrong with them.
    fn read(json: &str) -> Result<Settings, String> {
        let report = Report::default();
        let document = Document::from_json(json.as_bytes()).unwrap();
        let mut fields = Item::root(document, &report).mapping().unwrap();
        let settings = read_settings(&mut fields);
        fields.finish();
        match report.into_parts().0.as_slice() {
            [] => Ok(settings),
            errors => Err(errors.iter().map(|e| format!("{e}\n")).collect()),
        }
    }

    #[test]
    fn memory_and_extended_resources_have_their_request_and_limit_completed() {
        #[track_caller]
        fn check(resources: &str, expected: &str) {
            let settings = read(&format!(r#"{{"resources": {resources}}}"#)).unwrap();
            let Resources { requests, limits } = settings.resources.unwrap();
            let list = |quantities: &BTreeMap<String, Quantity>| {
                let each = quantities
                    .iter()
                    .map(|(name, quantity)| format!("{name}={quantity}"));
                each.collect::<Vec<_>>().join(",")
            };
            assert_eq!(format!("{} {}", list(&requests), list(&limits)), expected);
        }
        check(r#"{}"#, " ");
        check(
            r#"{"requests": {"memory": "1Gi"}}"#,
            "memory=1Gi memory=1Gi",
        );
        check(r#"{"limits": {"memory": "1Gi"}}"#, "memory=1Gi memory=1Gi");
        check(
            r#"{"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi"}}"#,
            "memory=1Gi memory=2Gi",
        );
        check(r#"{"requests": {"cpu": 1}}"#, "cpu=1 ");
        check(
            r#"{"requests": {"cpu": "1000m"}, "limits": {"cpu": 1}}"#,
            "cpu=1000m cpu=1",
        );
        check(r#"{"limits": {"cpu": 0.1}}"#, " cpu=0.1");
        check(
            r#"{"requests": {"nvidia.com/gpu": 1}}"#,
            "nvidia.com/gpu=1 nvidia.com/gpu=1",
        );
        check(
            r#"{"limits": {"hugepages-2Mi": "4Mi"}}"#,
            "hugepages-2Mi=4Mi hugepages-2Mi=4Mi",
        );
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        #[track_caller]
        fn check(json: &str, expected: &str) {
            assert_eq!(read(json).unwrap_err().trim_end(), expected);
        }
        check(
            r#"{"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "1G"}}}"#,
            "resources.requests.memory: is over its limit: 1Gi is more than 1G",
        );
        check(
            r#"{"resources": {"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": 2}}}"#,
            "resources.requests.nvidia.com/gpu: must be equal to its limit 2: Kubernetes does not share it",
        );
        check(
            r#"{"node": {"gpu": "a, -a"}}"#,
            "node.gpu: both asks for a GPU and excludes it: `a, -a`",
        );
        check(
            r#"{"args": ["a\u0000b"]}"#,
            "args[0]: must not hold a NUL character, which no process can be given",
        );
        check(
            r#"{"failurePolicy": {"rules": [null]}}"#,
            "failurePolicy.rules[0]: must be a mapping, not nothing",
        );
        check(
            r#"{"failurePolicy": {}}"#,
            "failurePolicy.rules: is missing: give the list of rules",
        );
    }

    #[test]
    fn failure_policies_are_as_large_as_kubernetes_allows() {
        let rule = |count| {
            let values: Vec<String> = (1..=count).map(|n: u32| n.to_string()).collect();
            let values = values.join(",");
            format!(
                r#"{{"action": "Ignore", "onExitCodes": {{"operator": "In", "values": [{values}]}}}}"#
            )
        };
        let policy = |rules: Vec<String>| {
            read(&format!(
                r#"{{"failurePolicy": {{"rules": [{}]}}}}"#,
                rules.join(",")
            ))
        };
        assert!(policy(vec![rule(255); 20]).is_ok());
        assert!(policy(vec![rule(256)]).is_err());
        assert!(policy(vec![rule(1); 21]).is_err());
    }
}
