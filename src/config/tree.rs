//! The small document tree that both YAML and JSON become, so that one reader serves both.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::cell::Cell;
use std::fmt;

/// Values that one JSON document may hold. Far over what a request needs, and it bounds what a body
/// of empty lists costs.
const MAX_JSON_NODES: usize = 100_000;

/// A value and where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// From 1; 0 is not known, as for JSON.
    pub line: u32,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Scalar {
        /// As written, after unescaping: the YAML number `1.10` is `1.10`.
        text: String,
        kind: Kind,
    },
    Sequence(Vec<Node>),
    /// In the document's order; keys are unique.
    Mapping(Vec<Entry>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: String,
    /// The key's line.
    pub line: u32,
    pub node: Node,
}

/// What a scalar is. YAML's plain scalars are told apart by the core schema of YAML 1.2, others are
/// text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Null,
    Bool,
    Number,
    /// A JSON number that is not a whole one of 64 bits: its text is rewritten, since the JSON
    /// reader keeps only its value.
    Rewritten,
    Text,
}

/// The bytes are not one JSON document. The message has the line and the column, and nothing of the
/// content.
#[derive(Debug)]
pub struct JsonError(serde_json::Error);

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Node {
    /// Reads one JSON document. Depth is bounded by serde_json (128), values by [`MAX_JSON_NODES`].
    pub fn from_json(bytes: &[u8]) -> Result<Node, JsonError> {
        let left = Cell::new(MAX_JSON_NODES);
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let node = JsonValue { left: &left }
            .deserialize(&mut json)
            .map_err(JsonError)?;
        json.end().map_err(JsonError)?;
        Ok(node)
    }

    pub fn scalar(line: u32, text: impl Into<String>, kind: Kind) -> Node {
        let text = text.into();
        let value = Value::Scalar { text, kind };
        Node { line, value }
    }

    pub fn is_null(&self) -> bool {
        matches!(
            self.value,
            Value::Scalar {
                kind: Kind::Null,
                ..
            }
        )
    }

    /// What the value is, for a message.
    pub fn described(&self) -> &'static str {
        match &self.value {
            Value::Scalar { kind, .. } => match kind {
                Kind::Null => "nothing",
                Kind::Bool => "true or false",
                Kind::Number | Kind::Rewritten => "a number",
                Kind::Text => "text",
            },
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }
}

/// An entry whose key an earlier one has. Sorts rather than searches: a hostile document has many
/// keys.
pub fn duplicate(entries: &[Entry]) -> Option<&Entry> {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by(|a, b| a.key.cmp(&b.key));
    sorted
        .windows(2)
        .find_map(|pair| match pair {
            [first, second] if first.key == second.key => Some(second),
            _ => None,
        })
        .copied()
}

/// Text of the user's in a message: cut, and with nothing that could end a line of a log.
pub fn shown(text: &str) -> String {
    const CHARACTERS: usize = 64;
    let mut shown: String = text
        .chars()
        .take(CHARACTERS)
        .flat_map(|c| c.escape_debug())
        .collect();
    if text.chars().nth(CHARACTERS).is_some() {
        shown.push('…');
    }
    shown
}

/// Reads any JSON value, of which `left` more are allowed.
struct JsonValue<'c> {
    left: &'c Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for JsonValue<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Node, D::Error> {
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => {
                return Err(D::Error::custom(format!(
                    "more than {MAX_JSON_NODES} values"
                )));
            }
        }
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for JsonValue<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::scalar(0, "null", Kind::Null))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::scalar(0, value.to_string(), Kind::Bool))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::scalar(0, value.to_string(), Kind::Number))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::scalar(0, value.to_string(), Kind::Number))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        Ok(Node::scalar(0, value.to_string(), Kind::Rewritten))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Node, E> {
        Ok(Node::scalar(0, text, Kind::Text))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Node, E> {
        Ok(Node::scalar(0, text, Kind::Text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = items.next_element_seed(JsonValue { left: self.left })? {
            nodes.push(node);
        }
        let value = Value::Sequence(nodes);
        Ok(Node { line: 0, value })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let node = map.next_value_seed(JsonValue { left: self.left })?;
            entries.push(Entry { key, line: 0, node });
        }
        if let Some(entry) = duplicate(&entries) {
            let key = shown(&entry.key);
            return Err(A::Error::custom(format!("the key `{key}` is there twice")));
        }
        let value = Value::Mapping(entries);
        Ok(Node { line: 0, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(json: &[u8]) -> String {
        match Node::from_json(json) {
            Ok(node) => brief(&node),
            Err(error) => format!("error: {error}"),
        }
    }

    fn brief(node: &Node) -> String {
        match &node.value {
            Value::Scalar { text, kind } => format!("{kind:?}({text})"),
            Value::Sequence(nodes) => {
                format!(
                    "[{}]",
                    nodes.iter().map(brief).collect::<Vec<_>>().join(" ")
                )
            }
            Value::Mapping(entries) => format!(
                "{{{}}}",
                entries
                    .iter()
                    .map(|entry| format!("{}={}", entry.key, brief(&entry.node)))
                    .collect::<Vec<_>>()
                    .join(" ")
            ),
        }
    }

    #[test]
    fn json_becomes_a_tree() {
        #[track_caller]
        fn check(json: &str, expected: &str) {
            assert_eq!(outcome(json.as_bytes()), expected);
        }
        check("null", "Null(null)");
        check(
            " [true, 1, -7, 1.50, \"1.50\"] ",
            "[Bool(true) Number(1) Number(-7) Rewritten(1.5) Text(1.50)]",
        );
        check("18446744073709551615", "Number(18446744073709551615)");
        check(
            r#"{"b": {"a": []}, "a": "\u00e6\n"}"#,
            "{b={a=[]} a=Text(æ\n)}",
        );
        check(
            r#"{"a": 1, "b": 2, "a": 3}"#,
            "error: the key `a` is there twice at line 1 column 24",
        );
        check("{\n\"a\": 1,}", "error: trailing comma at line 2 column 8");
        check("{} {}", "error: trailing characters at line 1 column 4");
        check(
            &"[".repeat(200),
            "error: recursion limit exceeded at line 1 column 128",
        );
    }

    #[test]
    fn json_that_is_not_utf8_is_refused() {
        assert!(outcome(b"\"\xff\"").starts_with("error: invalid unicode code point at line 1"));
    }

    #[test]
    fn a_body_of_empty_lists_costs_little() {
        let json = format!("[{}[]]", "[],".repeat(200_000));
        let error = outcome(json.as_bytes());
        assert!(
            error.starts_with("error: more than 100000 values at line 1"),
            "{error}"
        );
    }

    #[test]
    fn text_in_a_message_is_cut_and_stays_on_its_line() {
        assert_eq!(shown("a\nb\u{1b}[m"), "a\\nb\\u{1b}[m");
        assert_eq!(shown(&"x".repeat(100)), format!("{}…", "x".repeat(64)));
    }
}
