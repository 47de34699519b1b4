//! Owns the one internal form of a request head and a response head, the same for every HTTP version.
//!
//! A head says what is meant, not how it is framed: `Host`, `Content-Length` and `Transfer-Encoding` are never among its
//! fields. Who serialises writes `Host` from [`RequestHead::authority`] (or what `host_policy` says) and the length from
//! `content_length`. It refuses to check anything: [`super::normalize`] is the gate. Heads can be pooled: `clear` keeps
//! their memory.

use super::authority::Authority;
use super::fields::Fields;
use super::forward;
use super::path::PathPair;
use super::websocket;

/// A request method. Methods are case-sensitive (RFC 9110 §9.1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Method {
    /// GET
    #[default]
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// OPTIONS
    Options,
    /// PATCH
    Patch,
    /// CONNECT
    Connect,
    /// TRACE
    Trace,
    /// Any other token.
    Other(Box<str>),
}

impl Method {
    /// The longest method taken.
    pub const LENGTH_MAX: usize = 64;

    /// Reads a method; `None` if it is not a token of 1 to [`Self::LENGTH_MAX`] bytes.
    pub fn parse(text: &[u8]) -> Option<Self> {
        Some(match text {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"PATCH" => Self::Patch,
            b"CONNECT" => Self::Connect,
            b"TRACE" => Self::Trace,
            _ => {
                let token = !text.is_empty()
                    && text.len() <= Self::LENGTH_MAX
                    && text.iter().all(|&byte| super::syntax::is_token_byte(byte));
                if !token {
                    return None;
                }
                Self::Other(str::from_utf8(text).ok()?.into())
            }
        })
    }

    /// As it stands on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Patch => "PATCH",
            Self::Connect => "CONNECT",
            Self::Trace => "TRACE",
            Self::Other(name) => name,
        }
    }

    /// Whether it asks for no change (RFC 9110 §9.2.1).
    pub fn is_safe(&self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options | Self::Trace)
    }

    /// Whether asking twice means asking once (RFC 9110 §9.2.2).
    pub fn is_idempotent(&self) -> bool {
        self.is_safe() || matches!(self, Self::Put | Self::Delete)
    }

    /// Whether a request without content says so with `Content-Length: 0` (RFC 9110 §8.6).
    pub fn expects_content(&self) -> bool {
        matches!(self, Self::Post | Self::Put | Self::Patch)
    }
}

/// How the client's connection is secured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In clear.
    Http,
    /// Over TLS or QUIC.
    #[default]
    Https,
}

impl Scheme {
    /// As it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that is meant when none is given.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The HTTP version a message came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WireVersion {
    /// HTTP/1.0
    H1_0,
    /// HTTP/1.1
    H1_1,
    /// HTTP/2
    H2,
    /// HTTP/3
    #[default]
    H3,
}

impl WireVersion {
    /// HTTP/1.0 or HTTP/1.1.
    pub const fn is_h1(self) -> bool {
        matches!(self, Self::H1_0 | Self::H1_1)
    }

    /// The received-protocol of a Via field (RFC 9110 §7.6.3).
    pub const fn as_via(self) -> &'static str {
        match self {
            Self::H1_0 => "1.0",
            Self::H1_1 => "1.1",
            Self::H2 => "2",
            Self::H3 => "3",
        }
    }
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A path and maybe a query.
    Path(PathPair),
    /// `*`, with OPTIONS only.
    Asterisk,
    /// The authority, with CONNECT only.
    Authority,
}

impl Default for Target {
    fn default() -> Self {
        Self::Path(PathPair::new())
    }
}

impl Target {
    /// The path pair, if the target has a path.
    #[inline]
    pub fn path(&self) -> Option<&PathPair> {
        match self {
            Self::Path(path) => Some(path),
            Self::Asterisk | Self::Authority => None,
        }
    }

    /// The path that routes and policies look at.
    #[inline]
    pub fn matched(&self) -> Option<&str> {
        self.path().map(PathPair::matched)
    }
}

/// What a request asks to turn its stream into: bytes both ways that are no messages of HTTP any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// WebSocket: RFC 6455 on HTTP/1.1, RFC 8441 on HTTP/2, RFC 9220 on HTTP/3.
    WebSocket {
        /// What the client's answer is computed from; only HTTP/1.1 has one.
        key: Option<websocket::Key>,
    },
}

/// A request head that passed the gate.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// The version it came in.
    pub version: WireVersion,
    /// The method.
    pub method: Method,
    /// The scheme of the client's connection; the client's own word is checked against it.
    pub scheme: Scheme,
    /// Whom the request is for; empty only for HTTP/1.0 without Host.
    pub authority: Authority,
    /// What it is about.
    pub target: Target,
    /// Every field but pseudo-headers, Host, Content-Length and Transfer-Encoding.
    pub fields: Fields,
    /// The length that the client announced.
    pub content_length: Option<u64>,
    /// HTTP/1.1 with `Transfer-Encoding: chunked`. Always false on HTTP/2 and HTTP/3.
    pub chunked: bool,
    /// The client waits for 100 (Continue) before it sends the body; the Expect field is kept. Never from HTTP/1.0.
    pub expect_continue: bool,
    /// The request asks for a tunnel. Its method is GET then, whatever the version said, and it has no body.
    pub protocol: Option<Protocol>,
}

impl RequestHead {
    /// An empty head with room for so many fields of so many bytes, and for what forwarding adds to them.
    pub fn with_room(fields: usize, bytes: usize) -> Self {
        let fields = Fields::with_capacity(fields + forward::ADDED_FIELDS, bytes + forward::ADDED_BYTES);
        Self { fields, ..Self::default() }
    }

    /// The host that routes look at: lower case, no port, no trailing dot; IPv6 in brackets in its shortest form.
    #[inline]
    pub fn host(&self) -> &str {
        self.authority.host()
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.version = WireVersion::default();
        self.method = Method::default();
        self.scheme = Scheme::default();
        self.authority.clear();
        match &mut self.target {
            Target::Path(path) => path.clear(),
            Target::Asterisk | Target::Authority => self.target = Target::default(),
        }
        self.fields.clear();
        self.content_length = None;
        self.chunked = false;
        self.expect_continue = false;
        self.protocol = None;
    }
}

/// A response head that passed the gate, or that we made.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// 100..=999.
    pub status: u16,
    /// Every field but pseudo-headers, Content-Length and Transfer-Encoding.
    pub fields: Fields,
    /// The length that was announced: of the body, or for HEAD and 304 the one a GET would have had.
    /// Always `None` for 1xx and 204.
    pub content_length: Option<u64>,
    /// HTTP/1.1 with `Transfer-Encoding: chunked`.
    pub chunked: bool,
}

impl ResponseHead {
    /// A head of ours without fields.
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// 1xx: more heads follow.
    pub fn is_informational(&self) -> bool {
        (100..200).contains(&self.status)
    }

    /// Whether a body can follow this head in answer to `method` (RFC 9112 §6.3).
    pub fn has_body(&self, method: &Method) -> bool {
        !(self.is_informational() || matches!(self.status, 204 | 304) || *method == Method::Head)
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.status = 0;
        self.fields.clear();
        self.content_length = None;
        self.chunked = false;
    }
}

/// The reason phrase HTTP/1 writes behind a status; empty for one without a name.
pub const fn phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_keep_their_spelling() {
        for name in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "PROPFIND", "get"]
        {
            assert_eq!(Method::parse(name.as_bytes()).unwrap().as_str(), name);
        }
        assert_eq!(Method::parse(b"get"), Some(Method::Other("get".into())));
        for bad in [&b""[..], b"GE T", b"GET\r", b"G\xc3\xa9T", &[b'A'; 65]] {
            assert_eq!(Method::parse(bad), None);
        }
    }

    #[test]
    fn safe_methods_are_idempotent() {
        assert!(Method::Put.is_idempotent() && !Method::Put.is_safe());
        assert!(!Method::Post.is_idempotent() && !Method::Patch.is_idempotent());
        assert!(Method::Get.is_idempotent() && Method::Options.is_safe());
    }

    #[test]
    fn bodies_are_told_by_status_and_method() {
        for (status, method, body) in [
            (200, Method::Get, true),
            (200, Method::Head, false),
            (204, Method::Get, false),
            (304, Method::Get, false),
            (103, Method::Get, false),
            (404, Method::Post, true),
        ] {
            assert_eq!(ResponseHead::new(status).has_body(&method), body, "{status}");
        }
    }
}
