//! What is read from a string: names, addresses, hosts, methods, paths, files.
//!
//! No message quotes the text itself: the diagnostic shows the line, and there a misplaced secret is hidden.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use spooky_uring::StreamAddress;

use crate::config::generation::{BackendScheme, Location, LogTarget};
use crate::config::schema::{Key, Reader, Shape, Value};
use crate::config::source::Place;
use crate::config::tree::{Node, Value as TreeValue};
use crate::http::{Authority, Method, PathPair};
use crate::identity::ServerName;
use crate::limits;
use crate::route::HostPattern;

/// A type read from a string: the word for it, and how.
pub(super) trait Textual: Sized {
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
                    return reader.refuse_type(node, key, "a string", "");
                };
                match <Self as Textual>::parse(text) {
                    Ok(value) => Some(value),
                    Err((wrong, help)) => reader.refuse(node, format!("`{}`: {wrong}", key.name()), help),
                }
            }
        }
    )*};
}
pub(super) use textual;
textual!(
    Name,
    IpAddr,
    IpNet,
    HostPattern,
    ServerName,
    MethodName,
    RoutePath,
    ExactPath,
    HostHeader,
    BackendAddress,
    DnsServer,
    IncludePattern
);

/// A name for logs and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub String);

impl Name {
    /// Names stand in metric labels, log lines and API paths, so they are plain.
    pub(super) fn check(text: &str) -> Result<(), &'static str> {
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
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match bare {
            Some(bare) => bare.parse::<Ipv6Addr>().map(Self::V6).map_err(|_| ()),
            None => text.parse().map_err(|_| ()),
        }
        .map_err(|()| {
            (
                "this is not an IP address",
                "write an address like \"0.0.0.0\", \"127.0.0.1\" or \"[::]\"; the port has its own key",
            )
        })
    }
}

impl Textual for IpNet {
    const WORD: &'static str = "network";

    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        let network = text.parse::<Self>().or_else(|_| text.parse::<IpAddr>().map(Self::from));
        network.map(|network| network.trunc()).map_err(|_| {
            ("this is not a network", "write a network like \"10.0.0.0/8\" or \"fd00::/8\", or one address")
        })
    }
}

impl Textual for HostPattern {
    const WORD: &'static str = "host name";

    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        Self::parse(text).map_err(|wrong| {
            (wrong, "write a host like \"www.example.com\" or \"*.example.com\", without scheme, port and path")
        })
    }
}

impl Textual for ServerName {
    const WORD: &'static str = "server name";

    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        Self::parse(text).map_err(|wrong| (wrong, "write a name like \"www.example.com\" or \"*.example.com\""))
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
            Some(method) if method.as_str().bytes().any(|byte| byte.is_ascii_lowercase()) => {
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
        let pair =
            PathPair::parse(text.as_bytes()).map_err(|fault| (fault.description(), "write a path like \"/api\""))?;
        if pair.query().is_some() {
            return Err(("a path has no query", "remove `?` and what follows: the query is no part of the match"));
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
        if text == "*" { Ok(Self(text.to_owned())) } else { RoutePath::parse(text).map(|path| Self(path.0)) }
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
            None => Err(("this is not a host", "write a host like \"app.internal\" or \"app.internal:8080\"")),
        }
    }
}

/// Where a backend listens, what is spoken there, and what its `Host` would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendAddress {
    /// What is spoken there.
    pub scheme: BackendScheme,
    /// Where it is.
    pub location: Location,
    /// `host[:port]`; the scheme's default port is left out.
    pub authority: String,
    /// The host without brackets and trailing dot.
    pub server_name: String,
}

const ADDRESS_HELP: &str =
    "write \"http://10.0.0.1:8080\", \"https://app.internal\", \"h2c://[fd00::1]:8080\" or \"unix:/run/app.sock\"";

impl Textual for BackendAddress {
    const WORD: &'static str = "backend address";

    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::unix(path);
        }
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (BackendScheme::Http, rest),
            Some(("https", rest)) => (BackendScheme::Https, rest),
            Some(("h2c", rest)) => (BackendScheme::H2c, rest),
            Some(_) => return Err(("this scheme is unknown", ADDRESS_HELP)),
            None => (BackendScheme::Https, text),
        };
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
        let parsed = Authority::parse(authority.as_bytes()).ok_or(("this is not host:port", ADDRESS_HELP))?;
        let host = parsed.host();
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        // A lone word is more likely half an address than one that means https.
        if rest.len() == text.len() && parsed.port().is_none() {
            return Err(("an address without scheme is \"host:port\"", ADDRESS_HELP));
        }
        let port = parsed.port().unwrap_or(scheme.default_port());
        let location = match bare.parse::<IpAddr>() {
            Ok(ip) => Location::Fixed(StreamAddress::Tcp(SocketAddr::new(ip, port))),
            Err(_) => {
                check_name(host)?;
                // The gate cut the dot that keeps a name out of the search list.
                let written = authority.split(':').next().unwrap_or_default();
                let dot = if written.ends_with('.') { "." } else { "" };
                Location::Named { host: format!("{host}{dot}").into(), port }
            }
        };
        let server_name = bare.to_owned();
        let authority = if port == scheme.default_port() { host.to_owned() } else { format!("{host}:{port}") };
        Ok(Self { scheme, location, authority, server_name })
    }
}

impl BackendAddress {
    fn unix(path: &str) -> Result<Self, (&'static str, &'static str)> {
        if !path.starts_with('/') {
            return Err(("the path of a unix socket is absolute", ADDRESS_HELP));
        }
        // sun_path holds 108 bytes with the closing NUL.
        if path.len() > 107 || path.contains('\0') {
            return Err(("the path of a unix socket has at most 107 bytes", ADDRESS_HELP));
        }
        let location = Location::Fixed(StreamAddress::Unix(Path::new(path).into()));
        let host = "localhost".to_owned();
        Ok(Self { scheme: BackendScheme::Http, location, authority: host.clone(), server_name: host })
    }
}

/// A name that can be asked for: letters, digits and hyphens (RFC 1123 §2.1), no escapes; international names as DNS has
/// them (`xn--…`, RFC 5891).
fn check_name(host: &str) -> Result<(), (&'static str, &'static str)> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.len() > limits::HOST_NAME_BYTES || !host.split('.').all(label) {
        return Err((
            "this is not a host name",
            "a host name has letters, digits and hyphens between its dots; an international one is written as \"xn--…\"",
        ));
    }
    // Somebody's half-written address, and some system's idea of one (`10.1` for 10.0.0.1).
    if host.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(("this is neither an IP address nor a host name", ADDRESS_HELP));
    }
    Ok(())
}

/// A DNS server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsServer(pub SocketAddr);

impl Textual for DnsServer {
    const WORD: &'static str = "address";

    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        let parsed = text.parse().ok().or_else(|| Some(SocketAddr::new(bare.parse().ok()?, 53)));
        match parsed {
            Some(address) if address.port() == 0 => Err(("nobody can be asked on port 0", DNS_SERVER_HELP)),
            Some(address) if address.ip().is_multicast() => Err(("this is not one server's address", DNS_SERVER_HELP)),
            Some(address) => Ok(Self(address)),
            None => Err(("this is not the address of a server", DNS_SERVER_HELP)),
        }
    }
}

const DNS_SERVER_HELP: &str = "write an IP address like \"127.0.0.53\", \"10.0.0.2:5353\" or \"[fd00::1]:53\"";

/// A pattern of files to include; only its form is checked here, `include` opens the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncludePattern(pub String);

impl Textual for IncludePattern {
    const WORD: &'static str = "file pattern";

    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        let folder = text.rfind('/').map_or("", |at| &text[..at]);
        if text.is_empty() || folder.contains('*') {
            return Err(("this is not a file pattern", "`*` can stand in the file name only, as in \"conf.d/*.toml\""));
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
            Place::NOWHERE => PathBuf::new(),
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
