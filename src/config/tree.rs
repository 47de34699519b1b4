//! TOML text to a tree in which every key and value knows its place, over several files.
//!
//! Owns parsing (with recovery, so that one syntax error does not hide the others) and merging of included files.
//! Knows no key but what merging needs. Read next: `schema`, which walks the tree.

use std::fmt;

use rustc_hash::FxHashMap;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Findings};
use super::source::{Place, SourceId, Sources};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// The whole value; for a table with a header, the header.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// What a value is.
#[derive(Clone, Debug)]
pub enum Value {
    /// Any string form.
    Text(String),
    /// An integer that fits; other integers are reported while parsing.
    Integer(i64),
    /// A boolean.
    Bool(bool),
    /// A float or a date: no key takes one, so only the word for it is kept.
    Other(&'static str),
    /// An array, or an array of tables.
    List(Vec<Node>),
    /// A table of any form.
    Table(Table),
}

impl Value {
    /// The word for it in messages.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Bool(_) => "a boolean",
            Self::Other(word) => word,
            Self::List(_) => "an array",
            Self::Table(_) => "a table",
        }
    }
}

/// Entries of a table in the order of the text.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Keys are unique.
    pub entries: Vec<Entry>,
}

/// One key with its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The last segment of the key.
    pub key: String,
    /// Where that segment stands.
    pub key_place: Place,
    /// The value.
    pub node: Node,
}

impl Table {
    /// The entry of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

/// Parses one text. Syntax errors become findings; what could be read is returned all the same.
pub fn parse(sources: &Sources, id: SourceId, findings: &mut Findings) -> Table {
    let text = sources.get(id).text.as_str();
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        findings.push(syntax_error(text, id, error));
    }
    table(root.get_ref(), id, findings)
}

fn table(parsed: &DeTable<'_>, id: SourceId, findings: &mut Findings) -> Table {
    let mut entries: Vec<Entry> = parsed
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            key_place: Place::new(id, &key.span()),
            node: node(value, id, findings),
        })
        .collect();
    entries.sort_by_key(|entry| entry.key_place.start);
    Table { entries }
}

fn node(parsed: &toml::Spanned<DeValue<'_>>, id: SourceId, findings: &mut Findings) -> Node {
    let place = Place::new(id, &parsed.span());
    let value = match parsed.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => {
                findings.push(Diagnostic::error("this integer is too large").at(place, "does not fit 64 bits"));
                Value::Other("an integer")
            }
        },
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Float(_) => Value::Other("a float"),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(list) => Value::List(list.iter().map(|item| node(item, id, findings)).collect()),
        DeValue::Table(inner) => Value::Table(table(inner, id, findings)),
    };
    Node { place, value }
}

fn syntax_error(text: &str, id: SourceId, error: &toml::de::Error) -> Diagnostic {
    let span = error.span().unwrap_or(text.len()..text.len());
    let place = Place::new(id, &span);
    if error.message().starts_with("duplicate key") {
        let diagnostic = Diagnostic::error("this key is set twice").at(place, "here again");
        return diagnostic
            .at_some(first_of_duplicate(text, span.start).map(|first| Place::new(id, &first)), "first set here");
    }
    // The parser's words are good, but its spans may be empty: at a line end, say so.
    let remark = if span.is_empty() { "here" } else { "" };
    Diagnostic::error(format!("not valid TOML: {}", error.message())).at(place, remark)
}

/// Where a key that is set twice was set first, found in the text: the parser only tells of the second place.
/// `None` when the line does not start with the key (inline and dotted forms).
fn first_of_duplicate(text: &str, second: usize) -> Option<std::ops::Range<usize>> {
    let line_start = text[..second].rfind('\n').map_or(0, |at| at + 1);
    let line = text[line_start..].lines().next()?;
    let before: Vec<(usize, &str)> = text[..line_start]
        .split_inclusive('\n')
        .scan(0, |offset, line| {
            let start = *offset;
            *offset += line.len();
            Some((start, line))
        })
        .collect();
    let range = |start: usize, line: &str, length: usize| {
        let start = start + (line.len() - line.trim_start().len());
        start..start + length
    };
    if line.trim_start().starts_with('[') {
        let header = line.trim_start().split_inclusive(']').next()?;
        let (start, found) = before.iter().find(|(_, other)| other.trim_start().starts_with(header))?;
        return Some(range(*start, found, header.len()));
    }
    let key = line.trim_start().split(['=', '.', ' ', '\t']).next().filter(|key| !key.is_empty())?;
    if line_start + (line.len() - line.trim_start().len()) != second {
        return None;
    }
    for (start, other) in before.iter().rev() {
        let other_trimmed = other.trim_start();
        if other_trimmed.starts_with('[') {
            return None;
        }
        if other_trimmed.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(['=', '.'])) {
            return Some(range(*start, other, key.len()));
        }
    }
    None
}

/// Merges an included file's tree into the main one: tables key by key, arrays of tables one after the other.
/// A key set in both is an error with both places, and so is a name in a table of names (`is_named` tells by path).
pub fn merge(into: &mut Table, from: Table, is_named: &dyn Fn(&[&str]) -> bool, findings: &mut Findings) {
    merge_at(into, from, &mut Vec::new(), is_named, findings);
}

fn merge_at(
    into: &mut Table,
    from: Table,
    path: &mut Vec<String>,
    is_named: &dyn Fn(&[&str]) -> bool,
    findings: &mut Findings,
) {
    let named = is_named(&path.iter().map(String::as_str).collect::<Vec<_>>());
    // A table of names may hold many thousands: found by hash, not by search.
    let known: FxHashMap<String, usize> =
        into.entries.iter().enumerate().map(|(at, entry)| (entry.key.clone(), at)).collect();
    for entry in from.entries {
        let Some(existing) = known.get(&entry.key).map(|&at| &mut into.entries[at]) else {
            into.entries.push(entry);
            continue;
        };
        match (&mut existing.node.value, entry.node.value) {
            (Value::Table(into), Value::Table(from)) if !named => {
                path.push(entry.key);
                merge_at(into, from, path, is_named, findings);
                path.pop();
            }
            (Value::List(into), Value::List(from)) if is_tables(into) && is_tables(&from) => into.extend(from),
            // Each file may state the version it is written for; the value is checked once for all.
            (Value::Integer(into), Value::Integer(from))
                if path.is_empty() && entry.key == "version" && *into == from => {}
            _ => {
                let what = if named {
                    format!("{} `{}` is defined twice", path.join("."), entry.key)
                } else {
                    format!("`{}` is set twice", Dotted(path, &entry.key))
                };
                findings.push(
                    Diagnostic::error(what)
                        .at(entry.key_place, "here again")
                        .at(existing.key_place, "first here")
                        .help(if named {
                            "give one of them another name, or remove it"
                        } else {
                            "keep it in one file only"
                        }),
                );
            }
        }
    }
}

fn is_tables(list: &[Node]) -> bool {
    list.iter().all(|node| matches!(node.value, Value::Table(_)))
}

/// A key with the path to it.
struct Dotted<'a>(&'a [String], &'a str);

impl fmt::Display for Dotted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0 {
            write!(f, "{part}.")?;
        }
        f.write_str(self.1)
    }
}
