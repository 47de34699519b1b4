//! The types a key can have, each with the one way it is written and the words for when it is not.
//!
//! Here: words, switches and what holds other values. [`numbers`]: integers, times, sizes. [`text`]: names, addresses,
//! paths. [`routing`]: what only routes are made of. [`subject`]: what a request carries under a name. [`count_by`]: what rate
//! limits count by. [`hash_key`]: what requests are kept together by. [`retry_on`]: after what attempts are repeated.
//! [`probes`]: what probes ask for and expect. Knows no key.
//! A new type is one `impl Value`. Read next: `keys`, which uses them.

mod count_by;
mod hash_key;
mod numbers;
mod probes;
mod retry_on;
mod routing;
mod subject;
mod text;

#[cfg(test)]
mod tests;

pub use numbers::{Bytes, parse_bytes, parse_millis, show_bytes, show_millis};
pub use probes::{ProbeTarget, StatusRange};
pub use routing::{Body, FieldValue, Location, StickyKey, ValueText, is_possible};
pub use subject::subject;
pub use text::{
    BackendAddress, DnsServer, ExactPath, FilePath, HostHeader, IncludePattern, MethodName, Name, RoutePath,
};

use super::diagnostic::Diagnostic;
use super::schema::{Key, Located, Reader, Schema, Shape, Value};
use super::suggest;
use super::tree::{Node, Value as TreeValue};

/// The text of a choice, for the `choice!` macro.
pub fn word<'n>(node: &'n Node, key: &Key, reader: &mut Reader<'_>) -> Option<&'n str> {
    match &node.value {
        TreeValue::Text(text) => Some(text),
        _ => reader.refuse_type(node, key, "a string", ""),
    }
}

/// Refuses a word that a choice does not have.
pub fn refuse_word<T>(node: &Node, key: &Key, reader: &mut Reader<'_>, known: &[&str], later: &[&str]) -> Option<T> {
    let TreeValue::Text(text) = &node.value else {
        return None;
    };
    if later.contains(&text.as_str()) {
        let only = known.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        return reader.refuse(
            node,
            format!("\"{text}\" is not available in this version"),
            &format!("`{}` can be {only}", key.name()),
        );
    }
    let help = match suggest::nearest(text, known.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("it can be {}", known.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")),
    };
    reader.refuse(node, format!("`{}` does not know this word", key.name()), &help)
}

impl Value for bool {
    const SHAPE: Shape = Shape::Bool;

    fn read(node: &Node, key: &Key, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            TreeValue::Bool(value) => Some(*value),
            _ => reader.refuse_type(node, key, "true or false", ""),
        }
    }
}

/// A value that can be switched off with the word "off".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrOff<T>(pub Option<T>);

impl<T: Value> Value for OrOff<T> {
    const SHAPE: Shape = Shape::OrOff(&T::SHAPE);

    fn read(node: &Node, key: &Key, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            TreeValue::Text(text) if text == "off" => Some(Self(None)),
            TreeValue::Bool(false) => {
                reader.refuse(node, format!("`{}` is switched off with a word", key.name()), "write \"off\"")
            }
            _ => T::read(node, key, reader).map(|value| Self(Some(value))),
        }
    }
}

impl<T: Value> Value for Vec<Located<T>> {
    const SHAPE: Shape = match T::SHAPE {
        Shape::Table(schema) => Shape::Tables(schema),
        _ => Shape::List(&T::SHAPE),
    };

    fn read(node: &Node, key: &Key, reader: &mut Reader<'_>) -> Option<Self> {
        let TreeValue::List(items) = &node.value else {
            let help = match T::SHAPE {
                Shape::Table(_) => {
                    format!("write each as [[{0}]], or {0} = [ {{ … }}, … ]", key.name())
                }
                _ => format!("write {} = [ … ]", key.name()),
            };
            return reader.refuse_type(node, key, "an array", &help);
        };
        // A wrong item is reported and left out, so that the others are still checked.
        let read = |(at, item): (usize, &Node)| {
            let value = match T::SHAPE {
                Shape::Table(_) => reader.inside(format!("#{}", at + 1), |reader| T::read(item, key, reader)),
                _ => T::read(item, key, reader),
            };
            Some(Located { value: value?, place: item.place })
        };
        let values: Vec<_> = items.iter().enumerate().filter_map(read).collect();
        // All of them wrong is not the same as none written.
        (items.is_empty() || !values.is_empty()).then_some(values)
    }
}

/// One value or an array of them.
#[derive(Clone, Debug)]
pub struct OneOrMany<T>(pub Vec<Located<T>>);

impl<T: Value> Value for OneOrMany<T> {
    const SHAPE: Shape = Shape::OneOrMany(&T::SHAPE);

    fn read(node: &Node, key: &Key, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            TreeValue::List(items) if items.is_empty() => {
                reader.refuse(node, format!("`{}` is an empty array", key.name()), "leave the key out to mean any")
            }
            TreeValue::List(_) => Vec::read(node, key, reader).map(Self),
            _ => T::read(node, key, reader).map(|value| Self(vec![Located { value, place: node.place }])),
        }
    }
}

/// A type whose rows are known: what [`Named`] holds.
pub trait Rows: Value {
    /// The rows.
    const ROWS: &'static Schema;
}

/// Tables under names that the operator chooses, in the order of the text.
#[derive(Clone, Debug)]
pub struct Named<T>(pub Vec<(Located<String>, T)>);

impl<T: Rows> Value for Named<T> {
    const SHAPE: Shape = Shape::Named(T::ROWS);

    fn read(node: &Node, key: &Key, reader: &mut Reader<'_>) -> Option<Self> {
        reader.table_of(node, key, |table, reader| {
            let read = |entry: &super::tree::Entry| {
                let named = Name::check(&entry.key).map_err(|help| {
                    reader.report(Diagnostic::error("this is not a name").at(entry.key_place, "").help(help));
                });
                let value = reader.inside(entry.key.clone(), |reader| T::read(&entry.node, key, reader))?;
                named.ok()?;
                Some((Located { value: entry.key.clone(), place: entry.key_place }, value))
            };
            Self(table.entries.iter().filter_map(read).collect())
        })
    }
}
