//! What only routes are made of: names and values that requests may have, patterns, locations, bodies, what a split goes by.

use super::subject::named;
use super::text::{Textual, textual};
use crate::config::schema::{Key, Reader, Shape, Value};
use crate::config::tree::{Node, Value as TreeValue};
use crate::http::edits::EditedName;
use crate::http::list::trim;
use crate::http::syntax::is_field_value;
use crate::http::{Authority, Known, PathPair};
use crate::limits;
use crate::route::{Pattern, Source, Sticky, Subject};

textual!(EditedName, FieldValue, ValueText, Location, Body, StickyKey);

const EDIT_HELP: &str = "leave it out: what frames a message is written anew on every connection";

impl Textual for EditedName {
    const WORD: &'static str = "field name";

    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        let name = Self::parse(text).ok_or(("this is not a field name", "write it like \"x-environment\""))?;
        match name.as_field().known {
            Some(Known::Host) => Err(("Host is not changed here", "use `host_policy` of the upstream")),
            Some(Known::AltSvc) => Err(("Alt-Svc is not changed here", "use `alt_svc` of the listener")),
            _ if name.is_ours() => Err(("a field of this name belongs to one connection", EDIT_HELP)),
            _ => Ok(name),
        }
    }
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldValue(pub String);

impl Textual for FieldValue {
    const WORD: &'static str = "field value";

    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        if text.len() > limits::CONFIG_VALUE_BYTES {
            return Err(("the value is longer than 2048 bytes", "shorten it"));
        }
        if !is_field_value(text.as_bytes()) || trim(text.as_bytes()) != text.as_bytes() {
            return Err((
                "no field can have this value",
                "write it in one line, without control characters and without spaces at its ends",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The name of a value, or the value that is wanted; what is possible where is judged when the source is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueText(pub String);

impl Textual for ValueText {
    const WORD: &'static str = "text";

    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        if text.len() > limits::CONFIG_VALUE_BYTES {
            return Err(("the text is longer than 2048 bytes", "shorten it"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Whether a value of this source can be `text` at all.
pub fn is_possible(source: Source, text: &str) -> bool {
    let field = is_field_value(text.as_bytes()) && trim(text.as_bytes()) == text.as_bytes();
    match source {
        Source::Query => true,
        Source::Header => field,
        Source::Cookie => field && !text.contains(';'),
    }
}

impl Value for Pattern {
    const SHAPE: Shape = Shape::Text("regular expression");

    fn read(node: &Node, key: &Key, reader: &mut Reader<'_>) -> Option<Self> {
        let TreeValue::Text(text) = &node.value else {
            return reader.refuse_type(node, key, "a string", "");
        };
        match Self::parse(text) {
            Ok(pattern) => Some(pattern),
            Err(wrong) => reader.refuse(
                node,
                format!("`{}`: {wrong}", key.name()),
                "write it in the syntax of Rust's regex crate; the whole value has to match, so it needs no `^` and `$`",
            ),
        }
    }
}

/// Where a redirect leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Scheme, authority and path; or the path alone.
    pub base: String,
    /// Without `?`.
    pub query: Option<String>,
    /// Without `#`.
    pub fragment: Option<String>,
}

const LOCATION_HELP: &str = "write \"https://www.example.com/path\", or \"/path\" for the same host";

impl Textual for Location {
    const WORD: &'static str = "URL or path";

    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        if text.len() > limits::CONFIG_VALUE_BYTES {
            return Err(("the location is longer than 2048 bytes", LOCATION_HELP));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte)) {
            return Err(("a URL has other characters escaped", LOCATION_HELP));
        }
        let (rest, fragment) = match text.split_once('#') {
            Some((rest, fragment)) => (rest, Some(fragment.to_owned())),
            None => (text, None),
        };
        let (base, query) = match rest.split_once('?') {
            Some((base, query)) => (base, Some(query.to_owned())),
            None => (rest, None),
        };
        let path = match base.strip_prefix("https://").or_else(|| base.strip_prefix("http://")) {
            Some(rest) => {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                if Authority::parse(authority.as_bytes()).is_none_or(|authority| authority.host().is_empty()) {
                    return Err(("the URL names no host", LOCATION_HELP));
                }
                path
            }
            // Two slashes would begin another host.
            None if base.starts_with('/') && !base.starts_with("//") => base,
            None => return Err(("this is neither a URL nor a path", LOCATION_HELP)),
        };
        if !path.is_empty() && PathPair::parse(path.as_bytes()).is_err() {
            return Err(("the path of this URL is one that we would refuse ourselves", LOCATION_HELP));
        }
        Ok(Self { base: base.to_owned(), query, fragment })
    }
}

/// The body of a fixed response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body(pub String);

impl Textual for Body {
    const WORD: &'static str = "text of at most 16 KiB";

    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        if text.len() > limits::FIXED_BODY_BYTES {
            return Err(("the body is longer than 16 KiB", "serve it from a backend"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// What a split goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickyKey(pub Sticky);

impl Textual for StickyKey {
    const WORD: &'static str = "client_ip, header:<name>, cookie:<name> or query:<name>";

    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        if text == "client_ip" {
            return Ok(Self(Sticky::ClientIp));
        }
        let (source, name) = named(text, "give each host a route of its own").unwrap_or(Err((
            "nothing of a request is called like this",
            "write \"client_ip\", \"header:x-user\", \"cookie:session\" or \"query:user\"",
        )))?;
        Ok(Self(Sticky::Value(Subject::new(source, &name))))
    }
}

const _: () =
    assert!(limits::CONFIG_VALUE_BYTES == 2048 && limits::FIXED_BODY_BYTES == 16 << 10, "the messages say so");
