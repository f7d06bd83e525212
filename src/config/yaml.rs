//! YAML events to a [`Node`], with every quantity bounded: depth, values, and the text that aliases
//! repeat.

use super::core_schema::plain_kind;
use super::tree::{Entry, Kind, Node, Value, duplicate, shown};
use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Span, Tag};
use std::collections::{BTreeSet, HashMap};

/// Lists and mappings inside one another.
const MAX_DEPTH: usize = 32;
/// Keys and values of the document, those that aliases repeat included.
const MAX_NODES: usize = 20_000;
/// Bytes of text of the document, that which aliases repeat included.
const MAX_TEXT_BYTES: usize = 4 << 20;

/// Why the bytes are of no use.
#[derive(Debug)]
pub enum YamlError {
    /// `line` is the line of the first byte that is not UTF-8.
    NotUtf8 {
        line: u32,
    },
    Syntax {
        line: u32,
        message: String,
    },
}

/// Reads the one document of `bytes`, whose size the caller has bounded.
pub fn read(bytes: &[u8]) -> Result<Node, YamlError> {
    let text = std::str::from_utf8(bytes).map_err(|error| YamlError::NotUtf8 {
        line: line_of(bytes, error.valid_up_to()),
    })?;
    if let Some(position) = text.find(is_control) {
        return Err(syntax(
            line_of(bytes, position),
            "a control character that YAML does not allow: remove it",
        ));
    }
    let options = granit_parser::options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
        disallow_directives: true,
    };
    let mut builder = Builder::default();
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| {
            let line = line_number(error.marker().line());
            match error.kind() {
                ErrorKind::RecursionLimitExceeded => too_deep(line),
                _ => match tab_near(text, line) {
                    Some(line) => syntax(line, "a tab in the indentation: use spaces"),
                    None => syntax(line, format!("is not YAML: {}", error.info())),
                },
            }
        })?;
        builder.take(event, span)?;
    }
    match builder.root {
        Some(root) if !root.is_null() => Ok(root),
        _ => Err(syntax(1, "the file is empty")),
    }
}

/// The line at or after `line` that a tab indents, which the parser may report a line early.
fn tab_near(text: &str, line: u32) -> Option<u32> {
    let is_indented_by_tab = |text: &str| {
        let end = text.find(|c| c != ' ' && c != '\t').unwrap_or(text.len());
        text.get(..end).is_some_and(|indent| indent.contains('\t'))
    };
    let first = usize::try_from(line).ok()?.checked_sub(1)?;
    let mut lines = (line..).zip(text.lines().skip(first).take(2));
    lines.find_map(|(number, text)| is_indented_by_tab(text).then_some(number))
}

fn is_control(c: char) -> bool {
    c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}')
}

fn line_of(bytes: &[u8], position: usize) -> u32 {
    let newlines = bytes
        .iter()
        .take(position)
        .filter(|byte| **byte == b'\n')
        .count();
    line_number(newlines + 1)
}

fn line_number(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX)
}

fn syntax(line: u32, message: impl Into<String>) -> YamlError {
    let message = message.into();
    YamlError::Syntax { line, message }
}

/// What a value amounts to, itself included.
#[derive(Clone, Copy, Default)]
struct Weight {
    nodes: usize,
    bytes: usize,
    depth: usize,
}

impl Weight {
    fn scalar(text: &str) -> Weight {
        Weight {
            nodes: 1,
            bytes: text.len(),
            depth: 0,
        }
    }

    fn add(&mut self, child: Weight) {
        self.nodes += child.nodes;
        self.bytes += child.bytes;
        self.depth = self.depth.max(child.depth + 1);
    }
}

/// A list or mapping that has begun.
struct Open {
    line: u32,
    /// The parser's number of its anchor; 0 is none.
    anchor: usize,
    weight: Weight,
    content: Content,
}

enum Content {
    Sequence(Vec<Node>),
    Mapping {
        entries: Vec<Entry>,
        /// The key whose value comes next.
        key: Option<Key>,
        /// The values of merge keys (`<<`).
        merged: Vec<Node>,
    },
}

struct Key {
    text: String,
    line: u32,
    merge: bool,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, Weight)>,
    spent: Weight,
    documents: usize,
    root: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), YamlError> {
        let line = line_number(span.start.line());
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(syntax(
                        line,
                        "a second document starts here: the file must hold one",
                    ));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let merge = &*text == "<<" && style == ScalarStyle::Plain && tag.is_none();
                let kind = scalar_kind(&text, style, tag.as_deref(), line)?;
                let weight = Weight::scalar(&text);
                self.spend(weight, line)?;
                let node = Node::scalar(line, text, kind);
                self.complete(node, weight, anchor, merge)
            }
            Event::Alias(anchor) => {
                let Some((node, weight)) = self.anchors.get(&anchor) else {
                    return Err(syntax(line, "an alias inside of what it stands for"));
                };
                let (node, weight) = (node, *weight);
                if self.open.len() + weight.depth > MAX_DEPTH {
                    return Err(too_deep(line));
                }
                // Paid for before it is copied.
                self.spent = spend(self.spent, weight, line)?;
                let node = node.clone();
                self.complete(node, weight, 0, false)
            }
            Event::SequenceStart(_, anchor, tag) => {
                core_tag(tag.as_deref(), "seq", line)?;
                self.begin(Content::Sequence(Vec::new()), anchor, line)
            }
            Event::MappingStart(_, anchor, tag) => {
                core_tag(tag.as_deref(), "map", line)?;
                let content = Content::Mapping {
                    entries: Vec::new(),
                    key: None,
                    merged: Vec::new(),
                };
                self.begin(content, anchor, line)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            _ => Ok(()),
        }
    }

    fn spend(&mut self, weight: Weight, line: u32) -> Result<(), YamlError> {
        self.spent = spend(self.spent, weight, line)?;
        Ok(())
    }

    fn begin(&mut self, content: Content, anchor: usize, line: u32) -> Result<(), YamlError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(line));
        }
        let weight = Weight {
            nodes: 1,
            ..Weight::default()
        };
        self.spend(weight, line)?;
        self.open.push(Open {
            line,
            anchor,
            weight,
            content,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), YamlError> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let value = match open.content {
            Content::Sequence(nodes) => Value::Sequence(nodes),
            Content::Mapping {
                entries, merged, ..
            } => {
                if let Some(entry) = duplicate(&entries) {
                    return Err(syntax(
                        entry.line,
                        format!(
                            "the key `{}` is there twice in one mapping: remove one",
                            shown(&entry.key)
                        ),
                    ));
                }
                Value::Mapping(merge(entries, merged)?)
            }
        };
        let line = open.line;
        self.complete(Node { line, value }, open.weight, open.anchor, false)
    }

    /// Puts a whole value where it belongs.
    fn complete(
        &mut self,
        node: Node,
        weight: Weight,
        anchor: usize,
        merge: bool,
    ) -> Result<(), YamlError> {
        if anchor != 0 {
            // The anchor keeps a copy, which counts as well.
            self.spend(weight, node.line)?;
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.weight.add(weight);
        match &mut parent.content {
            Content::Sequence(nodes) => nodes.push(node),
            Content::Mapping {
                entries,
                key,
                merged,
            } => match key.take() {
                None => {
                    let line = node.line;
                    match node.value {
                        Value::Scalar { text, kind } if kind != Kind::Null => {
                            *key = Some(Key { text, line, merge });
                        }
                        _ => return Err(syntax(line, "a key must be text")),
                    }
                }
                Some(key) if key.merge => merged.push(node),
                Some(key) => entries.push(Entry {
                    key: key.text,
                    line: key.line,
                    node,
                }),
            },
        }
        Ok(())
    }
}

fn spend(spent: Weight, weight: Weight, line: u32) -> Result<Weight, YamlError> {
    let spent = Weight {
        nodes: spent.nodes + weight.nodes,
        bytes: spent.bytes + weight.bytes,
        depth: 0,
    };
    if spent.nodes > MAX_NODES {
        return Err(syntax(
            line,
            format!(
                "the file has over {MAX_NODES} keys and values, counting those that aliases repeat: \
                 shorten it"
            ),
        ));
    }
    if spent.bytes > MAX_TEXT_BYTES {
        return Err(syntax(
            line,
            format!(
                "the file has over {MAX_TEXT_BYTES} bytes of text, counting what aliases repeat: \
                 shorten it"
            ),
        ));
    }
    Ok(spent)
}

fn too_deep(line: u32) -> YamlError {
    syntax(
        line,
        format!("lists and mappings are over {MAX_DEPTH} deep: nest less"),
    )
}

/// Adds what `<<` gives: a mapping, or a list of them of which earlier ones win. The mapping's own
/// keys win over both.
fn merge(mut entries: Vec<Entry>, merged: Vec<Node>) -> Result<Vec<Entry>, YamlError> {
    if merged.is_empty() {
        return Ok(entries);
    }
    let mut keys: BTreeSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
    let mut add = |node: Node| match node.value {
        Value::Mapping(more) => {
            for entry in more {
                if keys.insert(entry.key.clone()) {
                    entries.push(entry);
                }
            }
            Ok(())
        }
        _ => Err(syntax(
            node.line,
            "`<<` takes a mapping, or a list of mappings, such as `<<: *defaults`",
        )),
    };
    for node in merged {
        match node.value {
            Value::Sequence(nodes) => nodes.into_iter().try_for_each(&mut add)?,
            _ => add(node)?,
        }
    }
    Ok(entries)
}

fn core_tag(tag: Option<&Tag>, expected: &str, line: u32) -> Result<(), YamlError> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema_tag(expected) => Err(foreign_tag(tag, line)),
        _ => Ok(()),
    }
}

fn foreign_tag(tag: &Tag, line: u32) -> YamlError {
    let tag = shown(&tag.original());
    syntax(
        line,
        format!("the tag `{tag}` means nothing here: remove it"),
    )
}

fn scalar_kind(
    text: &str,
    style: ScalarStyle,
    tag: Option<&Tag>,
    line: u32,
) -> Result<Kind, YamlError> {
    match tag {
        None if style == ScalarStyle::Plain => Ok(plain_kind(text)),
        None => Ok(Kind::Text),
        Some(tag) => match tag.core_suffix() {
            Some("str") => Ok(Kind::Text),
            Some("int" | "float") => Ok(Kind::Number),
            Some("bool") => Ok(Kind::Bool),
            Some("null") => Ok(Kind::Null),
            _ if tag.original() == "!" => Ok(Kind::Text),
            _ => Err(foreign_tag(tag, line)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(yaml: &[u8]) -> String {
        match read(yaml) {
            Ok(node) => brief(&node),
            Err(YamlError::NotUtf8 { line }) => format!("{line}: not UTF-8"),
            Err(YamlError::Syntax { line, message }) => format!("{line}: {message}"),
        }
    }

    fn brief(node: &Node) -> String {
        match &node.value {
            Value::Scalar { text, kind } => format!("{kind:?}({text})"),
            Value::Sequence(nodes) => {
                let nodes: Vec<_> = nodes.iter().map(brief).collect();
                format!("[{}]", nodes.join(" "))
            }
            Value::Mapping(entries) => {
                let entry = |entry: &Entry| format!("{}={}", entry.key, brief(&entry.node));
                let entries: Vec<_> = entries.iter().map(entry).collect();
                format!("{{{}}}", entries.join(" "))
            }
        }
    }

    #[track_caller]
    fn check(yaml: &str, expected: &str) {
        assert_eq!(outcome(yaml.as_bytes()), expected, "{yaml:?}");
    }

    #[test]
    fn plain_scalars_follow_the_core_schema_and_keep_their_text() {
        check(
            "[1.10, 010, 0x1F, -2e3, .5, 1.]",
            "[Number(1.10) Number(010) Number(0x1F) Number(-2e3) Number(.5) Number(1.)]",
        );
        check(
            "[true, False, yes, on]",
            "[Bool(true) Bool(False) Text(yes) Text(on)]",
        );
        check(
            "[~, null, '', 'null']",
            "[Null(~) Null(null) Text() Text(null)]",
        );
        check(
            "['1', \"true\", 1.2.3, 1e, 0x, +, .]",
            "[Text(1) Text(true) Text(1.2.3) Text(1e) Text(0x) Text(+) Text(.)]",
        );
        check("[!!str 1, !!int '2', ! 3]", "[Text(1) Number(2) Text(3)]");
        check(
            "a: |\n  x\n  y\nb: >-\n  x\n  y\n",
            "{a=Text(x\ny\n) b=Text(x y)}",
        );
        check("\u{feff}a: 1", "{a=Number(1)}");
        check("a: 1\r\nb: 2\r\n", "{a=Number(1) b=Number(2)}");
    }

    #[test]
    fn aliases_and_merge_keys_are_followed() {
        check("a: &x [1]\nb: *x", "{a=[Number(1)] b=[Number(1)]}");
        check(
            "a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}",
            "{a={k=Number(1) l=Number(2)} b={k=Number(3) l=Number(2)}}",
        );
        check(
            "b: {<<: [{k: 1}, {k: 2, l: 2}]}",
            "{b={k=Number(1) l=Number(2)}}",
        );
        check("b: {\"<<\": 1}", "{b={<<=Number(1)}}");
        check(
            "a: 1\nb: {<<: 1}",
            "2: `<<` takes a mapping, or a list of mappings, such as `<<: *defaults`",
        );
        check("a: &x\n  b: *x", "2: an alias inside of what it stands for");
        check(
            "a: *nothing",
            "1: is not YAML: while parsing node, found unknown anchor",
        );
    }

    #[test]
    fn what_is_not_one_document_of_plain_values_is_refused_with_its_line() {
        check("", "1: the file is empty");
        check("# nothing\n---\n", "1: the file is empty");
        check(
            "a: 1\n---\nb: 2\n",
            "2: a second document starts here: the file must hold one",
        );
        check(
            "a:\n  b: 1\n  b: 2\n",
            "3: the key `b` is there twice in one mapping: remove one",
        );
        check("a: 1\n? [b]\n: 2\n", "2: a key must be text");
        check("a: 1\n~: 2\n", "2: a key must be text");
        check(
            "a: !secret b",
            "1: the tag `!secret` means nothing here: remove it",
        );
        check(
            "a: 1\nb: x\0y\nc: 3",
            "2: a control character that YAML does not allow: remove it",
        );
        check("a:\n\t- b", "2: a tab in the indentation: use spaces");
        check(
            "a:\n  b: 1\n\tc: 2",
            "3: a tab in the indentation: use spaces",
        );
        check(
            "a:\n  b:\n  \t c: 2",
            "3: a tab in the indentation: use spaces",
        );
        check(
            "a: [1\nb: 2",
            "2: is not YAML: illegal placement of ':' indicator",
        );
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused_with_their_line() {
        assert_eq!(outcome(b"a: 1\nb: \xff\n"), "2: not UTF-8");
        assert_eq!(outcome(b"\xff\xfea\0:\0"), "1: not UTF-8");
    }

    #[test]
    fn a_deep_file_is_refused() {
        let too_deep = "1: lists and mappings are over 32 deep: nest less";
        let (open, close) = ("[".repeat(20), "]".repeat(20));
        check(&"[".repeat(100_000), too_deep);
        check(&"- ".repeat(100_000), too_deep);
        check(&format!("{}{open}{close}", "- ".repeat(20)), too_deep);
        check(
            &format!("a: &x {open}{close}\nb: {open}*x{close}"),
            "2: lists and mappings are over 32 deep: nest less",
        );
    }

    #[test]
    fn an_alias_bomb_is_refused_before_it_is_built() {
        let mut bomb = String::from("a0: &a0 [x]\n");
        for level in 1..30 {
            let alias = format!("*a{},", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", alias.repeat(10));
        }
        check(
            &bomb,
            "5: the file has over 20000 keys and values, counting those that aliases repeat: shorten it",
        );

        let text = format!(
            "a: &a {}\nb: [{}]",
            "x".repeat(500_000),
            "*a,".repeat(10_000)
        );
        check(
            &text,
            "2: the file has over 4194304 bytes of text, counting what aliases repeat: shorten it",
        );
    }

    #[test]
    fn a_file_of_many_values_is_refused() {
        let yaml = "- 1\n".repeat(30_000);
        check(
            &yaml,
            "20000: the file has over 20000 keys and values, counting those that aliases repeat: shorten it",
        );
    }
}
