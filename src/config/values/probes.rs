//! What probes ask for, and which statuses pass.

use super::text::{Textual, textual};
use crate::config::schema::{Key, Reader, Shape, Value};
use crate::config::tree::{Node, Value as TreeValue};
use crate::http::PathPair;
use std::ops::RangeInclusive;

textual!(ProbeTarget);

/// The target of a probe: a path, maybe with a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeTarget(pub PathPair);

impl Textual for ProbeTarget {
    const WORD: &'static str = "path, maybe with a query";

    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        let help = "write it like \"/health\" or \"/health?full=1\"";
        match PathPair::parse(text.as_bytes()) {
            Ok(pair) if pair.forwarded() == text => Ok(Self(pair)),
            Ok(_) => Err((
                "it would be sent otherwise than it is written",
                "write it without `.`, `..` and needless escapes",
            )),
            Err(fault) => Err((fault.description(), help)),
        }
    }
}

/// Final statuses: one, or a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusRange(pub RangeInclusive<u16>);

const STATUS_HELP: &str = "write one like 204, or a range like \"200-299\"; final statuses are those from 200 to 599";

impl Value for StatusRange {
    const SHAPE: Shape = Shape::Text("status or range of statuses");

    fn read(node: &Node, key: &Key, reader: &mut Reader<'_>) -> Option<Self> {
        let range = match &node.value {
            TreeValue::Integer(status) => u16::try_from(*status).ok().map(|status| status..=status),
            TreeValue::Text(text) => parse(text),
            _ => return reader.refuse_type(node, key, "a status or a range of them", STATUS_HELP),
        };
        match range {
            Some(range) if *range.start() >= 200 && *range.end() <= 599 && !range.is_empty() => Some(Self(range)),
            _ => reader.refuse(node, format!("`{}`: these are no final statuses", key.name()), STATUS_HELP),
        }
    }
}

fn parse(text: &str) -> Option<RangeInclusive<u16>> {
    let number = |text: &str| text.trim().parse::<u16>().ok();
    match text.split_once('-') {
        Some((first, last)) => Some(number(first)?..=number(last)?),
        None => number(text).map(|status| status..=status),
    }
}
