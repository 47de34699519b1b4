//! The types a key can have, each with the one way it is written and the words for when it is not.
//!
//! Owns durations, sizes, addresses, names, paths of files. Knows no key. A new type is one `impl Value`.
//! Read next: `keys`, which uses them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use spooky_uring::StreamAddress;

use super::diagnostic::Diagnostic;
use super::generation::LogTarget;
use super::schema::{Key, Located, Reader, Schema, Shape, Value};
use super::suggest;
use super::tree::{Node, Value as TreeValue};
use crate::http::{Authority, Method, PathPair};
use crate::limits;
use crate::route::HostPattern;

/// The text of a choice, for the `choice!` macro.
pub fn word<'n>(node: &'n Node, key: &Key, reader: &mut Reader<'_>) -> Option<&'n str> {
    match &node.value {
        TreeValue::Text(text) => Some(text),
        _ => reader.refuse_type(node, key, "a string", ""),
    }
}

/// Refuses a word that a choice does not have.
pub fn refuse_word<T>(
    node: &Node,
    key: &Key,
    reader: &mut Reader<'_>,
    known: &[&str],
    later: &[&str],
) -> Option<T> {
    let TreeValue::Text(text) = &node.value else {
        return None;
    };
    if later.contains(&text.as_str()) {
        let only = known
            .iter()
            .map(|word| format!("\"{word}\""))
            .collect::<Vec<_>>()
            .join(", ");
        return reader.refuse(
            node,
            format!("\"{text}\" is not available in this version"),
            &format!("`{}` can be {only}", key.name()),
        );
    }
    let help = match suggest::nearest(text, known.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!(
            "it can be {}",
            known
                .iter()
                .map(|word| format!("\"{word}\""))
                .collect::<Vec<_>>()
                .join(", ")
        ),
    };
    reader.refuse(
        node,
        format!("`{}` does not know this word", key.name()),
        &help,
    )
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

/// Integers are read whole and then held to the key's range, so every narrower type needs a row with one.
macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Value for $type {
            const SHAPE: Shape = Shape::Integer;

            fn read(node: &Node, key: &Key, reader: &mut Reader<'_>) -> Option<Self> {
                let TreeValue::Integer(number) = node.value else {
                    return reader.refuse_type(node, key, "an integer", "");
                };
                let Ok(number) = u64::try_from(number) else {
                    return reader.refuse(node, format!("`{}` cannot be negative", key.name()), "");
                };
                reader.within(number, node, key, |bound| bound.to_string())?;
                match Self::try_from(number) {
                    Ok(number) => Some(number),
                    Err(_) => reader.refuse(node, format!("`{}` is at most {}", key.name(), Self::MAX), ""),
                }
            }
        }
    )*};
}
integers!(u16, u32, u64);

const DURATION_HELP: &str =
    "write a time as \"250ms\", \"5s\", \"2m\" or \"1h\"; a bare integer counts milliseconds";

impl Value for Duration {
    const SHAPE: Shape = Shape::Duration;

    fn read(node: &Node, key: &Key, reader: &mut Reader<'_>) -> Option<Self> {
        let millis = match &node.value {
            TreeValue::Integer(millis) => u64::try_from(*millis).ok(),
            TreeValue::Text(text) => with_unit(
                text,
                &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)],
            ),
            _ => return reader.refuse_type(node, key, "a time", DURATION_HELP),
        };
        let Some(millis) = millis else {
            return reader.refuse(
                node,
                format!("`{}` is not a time", key.name()),
                DURATION_HELP,
            );
        };
        reader.within(millis, node, key, show_millis)?;
        Some(Self::from_millis(millis))
    }
}

const SIZE_HELP: &str =
    "write a size as \"512B\", \"16KiB\", \"8MiB\" or \"1GiB\"; a bare integer counts bytes";

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl Bytes {
    /// For keys whose range fits; a larger value is cut to the largest.
    #[must_use]
    pub fn to_u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
}

impl Value for Bytes {
    const SHAPE: Shape = Shape::Size;

    fn read(node: &Node, key: &Key, reader: &mut Reader<'_>) -> Option<Self> {
        let bytes = match &node.value {
            TreeValue::Integer(bytes) => u64::try_from(*bytes).ok(),
            TreeValue::Text(text) => with_unit(
                text,
                &[
                    ("KiB", 1 << 10),
                    ("MiB", 1 << 20),
                    ("GiB", 1 << 30),
                    ("B", 1),
                ],
            ),
            _ => return reader.refuse_type(node, key, "a size", SIZE_HELP),
        };
        let Some(bytes) = bytes else {
            return reader.refuse(node, format!("`{}` is not a size", key.name()), SIZE_HELP);
        };
        reader.within(bytes, node, key, show_bytes)?;
        Some(Self(bytes))
    }
}

/// A whole number with one of the units, the longer unit listed before one that ends it.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (digits, factor) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))?;
    let digits = digits.strip_suffix(' ').unwrap_or(digits);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// A time as an operator would write it.
#[must_use]
pub fn show_millis(millis: u64) -> String {
    match millis {
        0 => "\"0ms\"".to_owned(),
        _ if millis.is_multiple_of(3_600_000) => format!("\"{}h\"", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("\"{}m\"", millis / 60_000),
        _ if millis.is_multiple_of(1_000) => format!("\"{}s\"", millis / 1_000),
        _ => format!("\"{millis}ms\""),
    }
}

/// A size as an operator would write it.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    for (unit, factor) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("\"{}{unit}\"", bytes / factor);
        }
    }
    format!("\"{bytes}B\"")
}

/// A value that can be switched off with the word "off".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrOff<T>(pub Option<T>);

impl<T: Value> Value for OrOff<T> {
    const SHAPE: Shape = Shape::OrOff(&T::SHAPE);

    fn read(node: &Node, key: &Key, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            TreeValue::Text(text) if text == "off" => Some(Self(None)),
            TreeValue::Bool(false) => reader.refuse(
                node,
                format!("`{}` is switched off with a word", key.name()),
                "write \"off\"",
            ),
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
                Shape::Table(_) => {
                    reader.inside(format!("#{}", at + 1), |reader| T::read(item, key, reader))
                }
                _ => T::read(item, key, reader),
            };
            Some(Located {
                value: value?,
                place: item.place,
            })
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
            TreeValue::List(items) if items.is_empty() => reader.refuse(
                node,
                format!("`{}` is an empty array", key.name()),
                "leave the key out to mean any",
            ),
            TreeValue::List(_) => Vec::read(node, key, reader).map(Self),
            _ => T::read(node, key, reader).map(|value| {
                Self(vec![Located {
                    value,
                    place: node.place,
                }])
            }),
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
                    reader.report(
                        Diagnostic::error("this is not a name")
                            .at(entry.key_place, "")
                            .help(help),
                    );
                });
                let value = reader.inside(entry.key.clone(), |reader| {
                    T::read(&entry.node, key, reader)
                })?;
                named.ok()?;
                Some((
                    Located {
                        value: entry.key.clone(),
                        place: entry.key_place,
                    },
                    value,
                ))
            };
            Self(table.entries.iter().filter_map(read).collect())
        })
    }
}

/// A type read from a string: the word for it, and how.
trait Textual: Sized {
    const WORD: &'static str;

    /// # Errors
    /// What is wrong and how it is written; neither may quote the text, which can be a misplaced secret.
    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)>;
}

macro_rules! textual {
    ($($type:ty),*) => {$(
        impl Value for $type {
            const SHAPE: Shape = Shape::Text(<Self as Textual>::WORD);

            fn read(node: &Node, key: &Key, reader: &mut Reader<'_>) -> Option<Self> {
                let TreeValue::Text(text) = &node.value else {
                    return reader.refuse_type(node, key, concat!("a string"), "");
                };
                match <Self as Textual>::parse(text) {
                    Ok(value) => Some(value),
                    Err((wrong, help)) => reader.refuse(node, format!("`{}`: {wrong}", key.name()), help),
                }
            }
        }
    )*};
}
textual!(
    Name,
    IpAddr,
    IpNet,
    HostPattern,
    MethodName,
    RoutePath,
    ExactPath,
    HostHeader,
    BackendAddress,
    IncludePattern
);

/// A name for logs and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub String);

impl Name {
    /// Names stand in metric labels, log lines and API paths, so they are plain.
    fn check(text: &str) -> Result<(), &'static str> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if (1..=limits::NAME_BYTES).contains(&text.len()) && text.bytes().all(plain) {
            Ok(())
        } else {
            Err("use 1 to 64 letters, digits, `-`, `_` and `.`")
        }
    }
}

impl Textual for Name {
    const WORD: &'static str = "name";

    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        Self::check(text).map_err(|help| ("this is not a name", help))?;
        Ok(Self(text.to_owned()))
    }
}

impl Textual for IpAddr {
    const WORD: &'static str = "IP address";

    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        match bare {
            Some(bare) => bare.parse::<Ipv6Addr>().map(Self::V6).map_err(|_| ()),
            None => text.parse().map_err(|_| ()),
        }
        .map_err(|()| ("this is not an IP address", "write an address like \"0.0.0.0\", \"127.0.0.1\" or \"[::]\"; the port has its own key"))
    }
}

impl Textual for IpNet {
    const WORD: &'static str = "network";

    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        let network = text
            .parse::<Self>()
            .or_else(|_| text.parse::<IpAddr>().map(Self::from));
        network.map(|network| network.trunc()).map_err(|_| {
            (
                "this is not a network",
                "write a network like \"10.0.0.0/8\" or \"fd00::/8\", or one address",
            )
        })
    }
}

impl Textual for HostPattern {
    const WORD: &'static str = "host name";

    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        Self::parse(text).map_err(|wrong| (wrong, "write a host like \"www.example.com\" or \"*.example.com\", without scheme, port and path"))
    }
}

/// A request method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodName(pub Method);

impl Textual for MethodName {
    const WORD: &'static str = "method";

    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        match Method::parse(text.as_bytes()) {
            Some(Method::Trace) => Err(("TRACE is never forwarded", "remove it")),
            Some(Method::Connect) => Err(("CONNECT is not available in this version", "remove it")),
            // Methods are case-sensitive: `get` would be a method of its own that no client sends.
            Some(method)
                if method
                    .as_str()
                    .bytes()
                    .any(|byte| byte.is_ascii_lowercase()) =>
            {
                Err(("methods are written in capitals", "write it like \"GET\""))
            }
            Some(method) => Ok(Self(method)),
            None => Err(("this is not a method", "write it like \"GET\"")),
        }
    }
}

/// A path as routes and policies see it: decoded, without dot segments and doubled slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePath(pub String);

impl Textual for RoutePath {
    const WORD: &'static str = "path";

    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        let pair = PathPair::parse(text.as_bytes())
            .map_err(|fault| (fault.description(), "write a path like \"/api\""))?;
        if pair.query().is_some() {
            return Err((
                "a path has no query",
                "remove `?` and what follows: the query is no part of the match",
            ));
        }
        if pair.matched() != text {
            return Err((
                "no request path looks like this",
                "write the path plainly: without `//`, `.`, `..` and escapes of ordinary characters",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A whole path, or the target `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExactPath(pub String);

impl Textual for ExactPath {
    const WORD: &'static str = "path or \"*\"";

    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        if text == "*" {
            Ok(Self(text.to_owned()))
        } else {
            RoutePath::parse(text).map(|path| Self(path.0))
        }
    }
}

/// What a backend sees as `Host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostHeader(pub String);

impl Textual for HostHeader {
    const WORD: &'static str = "host name, maybe with a port";

    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        match Authority::parse(text.as_bytes()) {
            Some(_) => Ok(Self(text.to_owned())),
            None => Err((
                "this is not a host",
                "write a host like \"app.internal\" or \"app.internal:8080\"",
            )),
        }
    }
}

/// Where a backend listens, and what its `Host` would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendAddress {
    /// Where to connect.
    pub address: StreamAddress,
    /// `host[:port]`; the default port is left out.
    pub authority: String,
}

const ADDRESS_HELP: &str =
    "write \"http://10.0.0.1:8080\", \"http://[fd00::1]:8080\" or \"unix:/run/app.sock\"";

impl Textual for BackendAddress {
    const WORD: &'static str = "backend address";

    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::unix(path);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err((
                "the address has no scheme: that would mean https, which is not available in this version",
                ADDRESS_HELP,
            ));
        };
        match scheme {
            "http" => {}
            "https" => {
                return Err((
                    "https to backends is not available in this version",
                    ADDRESS_HELP,
                ));
            }
            "h2c" => {
                return Err((
                    "HTTP/2 to backends is not available in this version",
                    ADDRESS_HELP,
                ));
            }
            _ => return Err(("this scheme is unknown", ADDRESS_HELP)),
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains('@') {
            return Err(("an address carries no credentials", ADDRESS_HELP));
        }
        if authority.contains(['/', '?', '#']) {
            return Err((
                "a backend address has no path",
                "remove what follows host and port: the request's own path is sent",
            ));
        }
        let parsed = Authority::parse(authority.as_bytes())
            .ok_or(("this is not host:port", ADDRESS_HELP))?;
        let host = parsed.host();
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        let Ok(ip) = bare.parse::<IpAddr>() else {
            return Err((
                "host names are not supported yet: give a literal IP address",
                ADDRESS_HELP,
            ));
        };
        let port = parsed.port().unwrap_or(80);
        let authority = if port == 80 {
            host.to_owned()
        } else {
            format!("{host}:{port}")
        };
        Ok(Self {
            address: StreamAddress::Tcp(SocketAddr::new(ip, port)),
            authority,
        })
    }
}

impl BackendAddress {
    fn unix(path: &str) -> Result<Self, (&'static str, &'static str)> {
        if !path.starts_with('/') {
            return Err(("the path of a unix socket is absolute", ADDRESS_HELP));
        }
        // sun_path holds 108 bytes with the closing NUL.
        if path.len() > 107 || path.contains('\0') {
            return Err((
                "the path of a unix socket has at most 107 bytes",
                ADDRESS_HELP,
            ));
        }
        Ok(Self {
            address: StreamAddress::Unix(std::path::Path::new(path).into()),
            authority: "localhost".to_owned(),
        })
    }
}

/// A pattern of files to include; only its form is checked here, `include` opens the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncludePattern(pub String);

impl Textual for IncludePattern {
    const WORD: &'static str = "file pattern";

    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        let folder = text.rfind('/').map_or("", |at| &text[..at]);
        if text.is_empty() || folder.contains('*') {
            return Err((
                "this is not a file pattern",
                "`*` can stand in the file name only, as in \"conf.d/*.toml\"",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A file, absolute or relative to the file that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath(pub PathBuf);

impl Value for FilePath {
    const SHAPE: Shape = Shape::Text("file");

    fn read(node: &Node, key: &Key, reader: &mut Reader<'_>) -> Option<Self> {
        let TreeValue::Text(text) = &node.value else {
            return reader.refuse_type(node, key, "the path of a file", "");
        };
        if text.contains("-----BEGIN") || text.contains('\n') {
            return reader.refuse(
                node,
                format!("`{}` takes the path of a file, not its content", key.name()),
                "put the content into a file that only the service's user can read",
            );
        }
        if text.is_empty() || text.contains('\0') {
            return reader.refuse(node, format!("`{}` is not a path", key.name()), "");
        }
        let folder = match node.place {
            super::source::Place::NOWHERE => PathBuf::new(),
            place => reader.sources.get(place.source).folder.clone(),
        };
        Some(Self(folder.join(text)))
    }
}

impl Value for LogTarget {
    const SHAPE: Shape = Shape::Text("\"stdout\", \"stderr\" or file");

    fn read(node: &Node, key: &Key, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            TreeValue::Text(text) if text == "stdout" => Some(Self::Stdout),
            TreeValue::Text(text) if text == "stderr" => Some(Self::Stderr),
            _ => FilePath::read(node, key, reader).map(|path| Self::File(path.0.into())),
        }
    }
}
