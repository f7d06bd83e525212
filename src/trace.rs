//! The trace that a request is part of, and so its job: two headers in, two variables out. Pure.
//!
//! Sources: <https://www.w3.org/TR/trace-context/> for the headers, and
//! <https://opentelemetry.io/docs/specs/otel/context/env-carriers/> for the variables.

use std::collections::{BTreeMap, BTreeSet};

const PARENT_VARIABLE: &str = "TRACEPARENT";
const STATE_VARIABLE: &str = "TRACESTATE";

/// `00-<trace id>-<parent id>-<flags>`.
const PARENT_LENGTH: usize = 55;
/// What a state is cut to; whoever propagates one is to let through as much.
const MAX_STATE_LENGTH: usize = 512;
/// A member that is longer goes first where a state is cut.
const LONG_MEMBER: usize = 128;
/// A state with more members is none.
const MAX_MEMBERS: usize = 32;
/// Of a member's key, and of its value.
const MAX_PART_LENGTH: usize = 256;

/// A valid `traceparent`, and what is valid of the `tracestate` beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceContext {
    parent: String,
    /// At most [`MAX_STATE_LENGTH`] characters; empty where there is none.
    state: String,
}

impl TraceContext {
    /// By the values of all headers of those names. `None` where the parent is not valid, whatever
    /// the state; a state that is not valid is left out.
    pub fn of<'a>(
        parents: impl Iterator<Item = &'a str>,
        states: impl Iterator<Item = &'a str>,
    ) -> Option<TraceContext> {
        let mut parents = parents.map(str::trim);
        let parent = parents.next().and_then(parse_parent)?;
        // Of two, nobody knows which counts.
        parents.next().is_none().then(|| TraceContext {
            parent,
            state: parse_state(states).unwrap_or_default(),
        })
    }

    /// Adds it to a job's variables, in whose values `$` has a meaning. What the job sets itself,
    /// there or as a secret, stays, and nothing is then added beside it.
    pub fn add_to(&self, variables: &mut BTreeMap<String, String>, secrets: &[String]) {
        let given = [
            (PARENT_VARIABLE, &self.parent),
            (STATE_VARIABLE, &self.state),
        ];
        let is_set = |name: &str| {
            variables.contains_key(name) || secrets.iter().any(|secret| secret == name)
        };
        if given.iter().any(|(name, _)| is_set(name)) {
            return;
        }
        for (name, value) in given.into_iter().filter(|(_, value)| !value.is_empty()) {
            variables.insert(name.to_string(), value.replace('$', "$$"));
        }
    }
}

/// A parent as version 00 has it; of a later version, what that knows of it.
fn parse_parent(text: &str) -> Option<String> {
    let (known, rest) = text.split_at_checked(PARENT_LENGTH)?;
    let parts: Vec<&str> = known.split('-').collect();
    let &[version, trace, parent, flags] = parts.as_slice() else {
        return None;
    };
    let is_hex = |text: &str, length: usize| {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        text.len() == length && text.bytes().all(is_digit)
    };
    let is_id = |text: &str, length| is_hex(text, length) && text.bytes().any(|b| b != b'0');
    let is_whole = is_hex(version, 2) && is_id(trace, 32) && is_id(parent, 16) && is_hex(flags, 2);
    match version {
        _ if !is_whole => None,
        "ff" => None,
        "00" => rest.is_empty().then(|| known.to_string()),
        _ if rest.is_empty() || rest.starts_with('-') => {
            // Of the flags, sampled alone means the same in every version.
            let sampled = u8::from_str_radix(flags, 16).ok()? & 1;
            Some(format!("00-{trace}-{parent}-{sampled:02x}"))
        }
        _ => None,
    }
}

/// All members of a state, as far as they have room.
fn parse_state<'a>(values: impl Iterator<Item = &'a str>) -> Option<String> {
    let members = values.flat_map(|value| value.split(','));
    let members = members.map(|member| member.trim_matches([' ', '\t']));
    let mut kept: Vec<&str> = members.filter(|member| !member.is_empty()).collect();
    let keys: BTreeSet<&str> = kept.iter().copied().map(key_of).collect::<Option<_>>()?;
    // A key that is there twice makes it none.
    if kept.len() > MAX_MEMBERS || keys.len() < kept.len() {
        return None;
    }
    while length(&kept) > MAX_STATE_LENGTH {
        let long = kept.iter().rposition(|member| member.len() > LONG_MEMBER);
        kept.remove(long.unwrap_or(kept.len() - 1));
    }
    Some(kept.join(","))
}

/// With the commas between them.
fn length(members: &[&str]) -> usize {
    let lengths: usize = members.iter().map(|member| member.len() + 1).sum();
    lengths.saturating_sub(1)
}

/// The key of a valid member.
fn key_of(member: &str) -> Option<&str> {
    let (key, value) = member.split_once('=')?;
    let begins = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_key = key.bytes().next().is_some_and(begins)
        && key
            .bytes()
            .all(|byte| begins(byte) || b"_-*/@".contains(&byte));
    let is_value = !value.is_empty()
        && value
            .bytes()
            .all(|b| (b' '..=b'~').contains(&b) && b != b'=');
    let is_short = key.len() <= MAX_PART_LENGTH && value.len() <= MAX_PART_LENGTH;
    (is_key && is_value && is_short).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    /// Headers to variables.
    fn variables(parents: &[&str], states: &[&str]) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        let context = TraceContext::of(parents.iter().copied(), states.iter().copied());
        if let Some(context) = context {
            context.add_to(&mut variables, &[]);
        }
        variables
    }

    #[track_caller]
    fn check_parent(given: &str, expected: Option<&str>) {
        let found = variables(&[given], &["a=1"]);
        assert_eq!(
            found.get("TRACEPARENT").map(String::as_str),
            expected,
            "{given}"
        );
        // Never without a parent.
        assert_eq!(found.contains_key("TRACESTATE"), expected.is_some());
    }

    #[test]
    fn a_valid_parent_comes_through() {
        check_parent(PARENT, Some(PARENT));
        check_parent(&format!(" {PARENT}\t"), Some(PARENT));
        let unsampled = PARENT.replace("-01", "-00");
        check_parent(&unsampled, Some(&unsampled));
    }

    #[test]
    fn a_parent_of_a_later_version_is_taken_for_what_is_known_of_it() {
        let later = |version: &str, end: &str| {
            let middle = PARENT
                .strip_prefix("00")
                .unwrap()
                .strip_suffix("01")
                .unwrap();
            format!("{version}{middle}{end}")
        };
        check_parent(&later("01", "01"), Some(PARENT));
        check_parent(&later("cc", "ff-what-the-future-has"), Some(PARENT));
        check_parent(&later("cc", "02"), Some(&later("00", "00")));
        check_parent(&later("cc", "01.x"), None);
        check_parent(&later("ff", "01"), None);
        check_parent(&later("00", "01-x"), None);
    }

    #[test]
    fn a_parent_that_is_none_is_as_if_it_were_not_there() {
        for bad in [
            "",
            "00",
            "é",
            &PARENT.to_uppercase(),
            &PARENT.replace('-', "_"),
            &PARENT.replace('b', "g"),
            &PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &PARENT.replace("b7ad6b7169203331", &"0".repeat(16)),
            &format!("{PARENT}0"),
            &format!("{PARENT},{PARENT}"),
            &PARENT.replace("00-0af", "0-00af"),
            &PARENT.replace("-01", "-é"),
            &format!("{}é", &PARENT[..54]),
        ] {
            check_parent(bad, None);
        }
        assert!(variables(&[], &["a=1"]).is_empty());
        assert!(variables(&[PARENT, PARENT], &["a=1"]).is_empty());
    }

    #[track_caller]
    fn check_state(given: &[&str], expected: Option<&str>) {
        let found = variables(&[PARENT], given);
        assert_eq!(found["TRACEPARENT"], PARENT, "{given:?}");
        assert_eq!(
            found.get("TRACESTATE").map(String::as_str),
            expected,
            "{given:?}"
        );
    }

    #[test]
    fn a_valid_state_comes_through() {
        check_state(&[], None);
        check_state(&["", " , "], None);
        check_state(&["rojo=00f067aa0ba902b7"], Some("rojo=00f067aa0ba902b7"));
        check_state(
            &["a=1, b=2 ,", "\tt61rcwkgmzpx@mx=x y"],
            Some("a=1,b=2,t61rcwkgmzpx@mx=x y"),
        );
        check_state(&["0a_-*/=!~"], Some("0a_-*/=!~"));
    }

    #[test]
    fn a_state_that_is_none_is_left_out() {
        for bad in [
            "a", "=1", "a=", "A=1", "_a=1", "a b=1", "a=1=2", "a=1,a=2", "a=\u{1a}", "ä=1",
        ] {
            check_state(&[bad], None);
        }
        check_state(&["a=1", "a=1"], None);
        let long = "x".repeat(257);
        check_state(&[&format!("a={long}")], None);
        check_state(&[&format!("{long}=a")], None);
        let members = |count: usize| (0..count).map(|n| format!("k{n}=1")).collect::<Vec<_>>();
        let most = members(32).join(",");
        check_state(&[&most], Some(&most));
        check_state(&[&members(33).join(",")], None);
    }

    #[test]
    fn a_state_that_is_too_long_loses_whole_members_the_long_ones_first() {
        let (short, long) = ("x".repeat(100), "y".repeat(200));
        let all = format!("a={short},b={long},c={short},d={long}");
        check_state(&[&all], Some(&format!("a={short},b={long},c={short}")));
        let short = format!("a={short},b={short},c={short},d={short},e={short}");
        assert_eq!(short.len(), 514);
        check_state(&[&short], short.rsplit_once(',').map(|(rest, _)| rest));
        let most = short.get(..512);
        check_state(&[most.unwrap()], most);
    }

    #[test]
    fn a_dollar_in_it_has_no_meaning() {
        check_state(&["a=$(HOME)$$"], Some("a=$$(HOME)$$$$"));
    }

    #[test]
    fn what_the_job_sets_itself_stays() {
        let context = TraceContext::of([PARENT].into_iter(), ["a=1"].into_iter()).unwrap();
        let own = BTreeMap::from([("TRACESTATE".to_string(), "mine".to_string())]);
        let mut variables = own.clone();
        context.add_to(&mut variables, &[]);
        assert_eq!(variables, own);
        let mut none = BTreeMap::new();
        context.add_to(&mut none, &["TRACEPARENT".to_string()]);
        assert!(none.is_empty());
    }
}
