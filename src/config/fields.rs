//! A typed reader over a [`Node`]: takes fields by name, and collects every problem instead of
//! stopping at the first.
//!
//! The same code reads `radixconfig.yaml` and requests, so a mistake has the same message in both.

use super::error::FieldError;
use super::names::is_dns_label;
use super::suggestion::suggestion;
use super::tree::{Entry, Kind, Node, Value, shown};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// Problems that are told of one document. More help nobody, and a hostile document may have
/// thousands.
const MAX_PROBLEMS: usize = 50;

/// What has been found wrong so far.
#[derive(Default)]
pub struct Report {
    errors: RefCell<Vec<FieldError>>,
    warnings: RefCell<Vec<FieldError>>,
}

impl Report {
    /// Adds an error; `line` 0 is not known.
    pub fn error(&self, field: &str, line: u32, message: impl Into<String>) {
        add(&self.errors, field, line, message.into());
    }

    /// Adds a warning; `line` 0 is not known.
    pub fn warn(&self, field: &str, line: u32, message: impl Into<String>) {
        add(&self.warnings, field, line, message.into());
    }

    pub fn has_errors(&self) -> bool {
        !self.errors.borrow().is_empty()
    }

    /// The errors and the warnings, each in the order of the document.
    pub fn into_parts(self) -> (Vec<FieldError>, Vec<FieldError>) {
        let sorted = |problems: RefCell<Vec<FieldError>>| {
            let mut problems = problems.into_inner();
            problems.sort_by_key(|problem| problem.line);
            problems
        };
        (sorted(self.errors), sorted(self.warnings))
    }
}

fn add(problems: &RefCell<Vec<FieldError>>, field: &str, line: u32, message: String) {
    let mut problems = problems.borrow_mut();
    let problem = FieldError {
        field: field.to_owned(),
        line: (line > 0).then_some(line),
        message,
    };
    // An alias repeats what is wrong with what it stands for.
    if problems.len() < MAX_PROBLEMS && !problems.contains(&problem) {
        problems.push(problem);
    }
}

/// A value and the path to it. Each reading method reports what is wrong and then gives `None`.
pub struct Item<'r> {
    pub field: String,
    /// 0 is not known.
    pub line: u32,
    report: &'r Report,
    node: Node,
}

impl<'r> Item<'r> {
    /// The document as a whole, whose path is empty.
    pub fn root(node: Node, report: &'r Report) -> Item<'r> {
        Item {
            field: String::new(),
            line: node.line,
            report,
            node,
        }
    }

    pub fn error(&self, message: impl Into<String>) {
        self.report.error(&self.field, self.line, message);
    }

    /// Calls the item of a list by the text of its field `name` instead of by its number, if that
    /// is short and plain: `spec.jobs[compute]`.
    pub fn name_by(&mut self, name: &str) {
        let Value::Mapping(entries) = &self.node.value else {
            return;
        };
        let entry = position(entries, name).and_then(|position| entries.get(position));
        let (Some(Value::Scalar { text, .. }), Some(bracket)) =
            (entry.map(|entry| &entry.node.value), self.field.rfind('['))
        else {
            return;
        };
        if is_dns_label(text) {
            self.field.truncate(bracket);
            self.field.push_str(&format!("[{text}]"));
        }
    }

    /// Where an error goes that is found after the value has been read.
    pub fn place(&self) -> (&'r Report, String, u32) {
        (self.report, self.field.clone(), self.line)
    }

    pub fn is_null(&self) -> bool {
        self.node.is_null()
    }

    pub fn is_text(&self) -> bool {
        matches!(
            self.node.value,
            Value::Scalar {
                kind: Kind::Text,
                ..
            }
        )
    }

    /// What the value is, for a message.
    pub fn described(&self) -> &'static str {
        self.node.described()
    }

    fn wrong(&self, expected: &str) {
        let found = self.node.described();
        self.error(format!("must be {expected}, not {found}"));
    }

    /// Text, and nothing that only looks like it.
    pub fn string(self) -> Option<String> {
        match self.node.value {
            Value::Scalar {
                text,
                kind: Kind::Text,
            } => Some(text),
            _ => {
                self.wrong("text");
                None
            }
        }
    }

    /// Text; a number or a boolean is taken as it is written.
    pub fn text(self) -> Option<String> {
        match self.node.value {
            Value::Scalar {
                text,
                kind: Kind::Text | Kind::Number | Kind::Bool,
            } => Some(text),
            Value::Scalar {
                kind: Kind::Rewritten,
                ..
            } => {
                self.error("must be text: put the number in quotes, so that it stays as written");
                None
            }
            _ => {
                self.wrong("text");
                None
            }
        }
    }

    /// A number's text, or a text that is to be one such as `250m`, that `read` makes something of.
    pub fn parsed_number<T>(self, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match &self.node.value {
            Value::Scalar {
                text,
                kind: Kind::Text | Kind::Number | Kind::Rewritten,
            } => read(text).map_err(|message| self.error(message)).ok(),
            _ => {
                self.wrong("text or a number");
                None
            }
        }
    }

    /// [`text`](Self::text) that `read` makes something of.
    pub fn parsed<T>(self, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let (report, field, line) = self.place();
        let text = self.text()?;
        read(&text)
            .map_err(|message| report.error(&field, line, message))
            .ok()
    }

    pub fn boolean(self) -> Option<bool> {
        match &self.node.value {
            Value::Scalar {
                text,
                kind: Kind::Bool,
            } => Some(text.eq_ignore_ascii_case("true")),
            Value::Scalar {
                text,
                kind: Kind::Text,
            } => {
                self.error(match text.to_ascii_lowercase().as_str() {
                    "true" | "false" => "must be true or false, without quotes".to_owned(),
                    _ => format!("must be true or false, not `{}`", shown(text)),
                });
                None
            }
            _ => {
                self.wrong("true or false");
                None
            }
        }
    }

    /// A whole number in `range`, which `T` can hold.
    pub fn integer<T: TryFrom<i64>>(self, range: RangeInclusive<i64>) -> Option<T> {
        match &self.node.value {
            Value::Scalar {
                text,
                kind: Kind::Number | Kind::Rewritten,
            } => self.in_range(text, range),
            Value::Scalar {
                text,
                kind: Kind::Text,
            } => {
                self.error(match whole_number(text) {
                    Some(_) => "must be a whole number, without quotes".to_owned(),
                    None => format!("must be a whole number, not `{}`", shown(text)),
                });
                None
            }
            _ => {
                self.wrong("a whole number");
                None
            }
        }
    }

    /// As [`integer`](Self::integer), and the number may be in quotes.
    pub fn integer_or_text<T: TryFrom<i64>>(self, range: RangeInclusive<i64>) -> Option<T> {
        match &self.node.value {
            Value::Scalar {
                text,
                kind: Kind::Text,
            } => self.in_range(text, range),
            _ => self.integer(range),
        }
    }

    fn in_range<T: TryFrom<i64>>(&self, text: &str, range: RangeInclusive<i64>) -> Option<T> {
        let number = whole_number(text)
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok());
        if number.is_none() {
            self.error(format!(
                "must be a whole number from {} to {}, not {}",
                range.start(),
                range.end(),
                shown(text)
            ));
        }
        number
    }

    pub fn mapping(self) -> Option<Fields<'r>> {
        match self.node.value {
            Value::Mapping(entries) => Some(Fields {
                field: self.field,
                line: self.line,
                report: self.report,
                entries,
                known: BTreeSet::new(),
                refused: Vec::new(),
                unserved: Vec::new(),
            }),
            _ => {
                self.wrong("a mapping");
                None
            }
        }
    }

    /// The entries of a mapping whose keys are the user's to choose.
    pub fn entries(self) -> Option<Vec<(String, Item<'r>)>> {
        let fields = self.mapping()?;
        let (path, report) = (fields.field, fields.report);
        let entries = fields.entries.into_iter().map(|entry| {
            let item = Item {
                field: join(&path, &entry.key),
                line: entry.line,
                report,
                node: entry.node,
            };
            (entry.key, item)
        });
        Some(entries.collect())
    }

    /// The items of a list of so many.
    pub fn items_within(self, range: RangeInclusive<usize>) -> Option<Vec<Item<'r>>> {
        let (report, field, line) = self.place();
        let items = self.items()?;
        if range.contains(&items.len()) {
            return Some(items);
        }
        let (least, most, count) = (range.start(), range.end(), items.len());
        report.error(
            &field,
            line,
            format!("must have {least} to {most} items, not {count}"),
        );
        None
    }

    /// The items of a list.
    pub fn items(self) -> Option<Vec<Item<'r>>> {
        match self.node.value {
            Value::Sequence(nodes) => {
                let (path, report) = (self.field, self.report);
                let item = |(index, node): (usize, Node)| Item {
                    field: format!("{path}[{index}]"),
                    line: node.line,
                    report,
                    node,
                };
                Some(nodes.into_iter().enumerate().map(item).collect())
            }
            _ => {
                self.wrong("a list");
                None
            }
        }
    }
}

/// A mapping whose fields are known by name. Whoever makes one takes what it may have and then
/// calls [`finish`](Self::finish), which reports what is left.
pub struct Fields<'r> {
    pub field: String,
    /// 0 is not known.
    pub line: u32,
    report: &'r Report,
    entries: Vec<Entry>,
    known: BTreeSet<&'static str>,
    refused: Vec<(&'static str, &'static str)>,
    unserved: Vec<(&'static str, &'static str)>,
}

impl<'r> Fields<'r> {
    /// The field of the name, if it is there and not null.
    ///
    /// Its name may be in another case, as Go's JSON reader, and so Radix, allows.
    pub fn take(&mut self, name: &'static str) -> Option<Item<'r>> {
        self.known.insert(name);
        let position = position(&self.entries, name)?;
        let entry = self.entries.remove(position);
        if entry.key != name {
            let field = join(&self.field, &entry.key);
            let message = format!("is taken for `{name}`: write it so");
            self.report.warn(&field, entry.line, message);
        }
        (!entry.node.is_null()).then(|| Item {
            field: join(&self.field, name),
            line: entry.line,
            report: self.report,
            node: entry.node,
        })
    }

    /// As [`take`](Self::take); a missing field is an error that `fix` ends.
    pub fn require(&mut self, name: &'static str, fix: &str) -> Option<Item<'r>> {
        let item = self.take(name);
        if item.is_none() {
            self.missing(name, fix);
        }
        item
    }

    /// Whether the field is there, is not null and has not been taken.
    pub fn has(&self, name: &str) -> bool {
        let entry = position(&self.entries, name).and_then(|position| self.entries.get(position));
        entry.is_some_and(|entry| !entry.node.is_null())
    }

    /// Whether the field is there and is a mapping without a field.
    pub fn is_empty_mapping(&self, name: &str) -> bool {
        let entry = position(&self.entries, name).and_then(|position| self.entries.get(position));
        entry.is_some_and(
            |entry| matches!(&entry.node.value, Value::Mapping(fields) if fields.is_empty()),
        )
    }

    /// Reports a field that is missing.
    pub fn missing(&self, name: &str, fix: &str) {
        let field = join(&self.field, name);
        let message = format!("is missing: {fix}");
        self.report.error(&field, self.line, message);
    }

    /// Fields that may not be here, each with the reason.
    pub fn refuse(&mut self, names: &[(&'static str, &'static str)]) {
        self.refused.extend_from_slice(names);
    }

    /// Fields that are right but without effect, each with what to know about it.
    pub fn unserved(&mut self, names: &[(&'static str, &'static str)]) {
        self.unserved.extend_from_slice(names);
    }

    /// Fields that are right and somebody else's.
    pub fn leave(&mut self, names: &[&'static str]) {
        for name in names {
            self.take(name);
        }
    }

    pub fn error(&self, message: impl Into<String>) {
        self.report.error(&self.field, self.line, message);
    }

    /// Where errors about several fields at once go.
    pub fn report(&self) -> &'r Report {
        self.report
    }

    /// Reports every field that nobody took.
    pub fn finish(self) {
        let find = |list: &[(&'static str, &'static str)], key: &str| {
            let found = list.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
            found.map(|(_, reason)| *reason)
        };
        let taken = |key: &str| {
            let mut known = self.known.iter();
            known.find(|name| name.eq_ignore_ascii_case(key))
        };
        let candidates: Vec<&str> = self
            .known
            .iter()
            .copied()
            .chain(self.unserved.iter().map(|(name, _)| *name))
            .collect();
        for entry in &self.entries {
            let field = join(&self.field, &entry.key);
            if let Some(reason) = find(&self.refused, &entry.key) {
                self.report.error(&field, entry.line, reason);
            } else if let Some(note) = find(&self.unserved, &entry.key) {
                self.report.warn(&field, entry.line, note);
            } else if let Some(name) = taken(&entry.key) {
                let message = format!("is `{name}` again, in another case: remove one");
                self.report.error(&field, entry.line, message);
            } else {
                let message = match suggestion(&entry.key, candidates.iter().copied()) {
                    Some(name) => format!("is not a field: did you mean `{name}`?"),
                    None => format!(
                        "is not a field: remove it, or write one of {}",
                        self.known.iter().copied().collect::<Vec<_>>().join(", ")
                    ),
                };
                self.report.error(&field, entry.line, message);
            }
        }
    }
}

/// Where the field of a name is: the one that is written so, or else one in another case.
fn position(entries: &[Entry], name: &str) -> Option<usize> {
    let exact = entries.iter().position(|entry| entry.key == name);
    exact.or_else(|| {
        entries
            .iter()
            .position(|entry| entry.key.eq_ignore_ascii_case(name))
    })
}

fn join(path: &str, name: &str) -> String {
    let name = shown(name);
    if path.is_empty() {
        name
    } else {
        format!("{path}.{name}")
    }
}

/// An integer of YAML's core schema or of JSON.
fn whole_number(text: &str) -> Option<i64> {
    if let Some(digits) = text.strip_prefix("0x") {
        return i64::from_str_radix(digits, 16).ok();
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return i64::from_str_radix(digits, 8).ok();
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_read_in_every_base_of_yaml() {
        assert_eq!(whole_number("0x1F"), Some(31));
        assert_eq!(whole_number("0o17"), Some(15));
        assert_eq!(whole_number("010"), Some(10));
        assert_eq!(whole_number("+5"), Some(5));
        assert_eq!(whole_number("1.5"), None);
        assert_eq!(whole_number("1e3"), None);
        assert_eq!(whole_number("99999999999999999999"), None);
    }

    #[test]
    fn problems_are_bounded() {
        let report = Report::default();
        for line in 1..1000 {
            report.error("a", line, "wrong");
            report.error("a", line, "wrong");
        }
        assert_eq!(report.into_parts().0.len(), MAX_PROBLEMS);
    }
}
