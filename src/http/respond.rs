//! Owns what our own answers look like: short bodies, plain or JSON as Accept asks, with the request's id, and the fields
//! that go with a status. It refuses to choose a status: [`Reason::status`] did.

use super::date;
use super::fields::Fields;
use super::head::{Method, RequestHead, ResponseHead, phrase};
use super::known::Known;
use super::list;
use super::path::{PathPair, behind, join};
use super::reason::Reason;
use super::syntax::decimal;

/// Allow where the caller brings none: every method but the refused ones.
pub const ALLOW_DEFAULT: &[u8] = b"GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH";

/// Seconds in Retry-After where the caller brings none.
pub const RETRY_AFTER_DEFAULT: u32 = 1;

/// The form of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyForm {
    /// `text/plain`
    #[default]
    Plain,
    /// `application/json`
    Json,
    /// `application/problem+json` (RFC 9457)
    Problem,
}

impl BodyForm {
    /// The form a client asked for: JSON only if it names JSON, and likes it no less than plain text.
    pub fn asked_by(fields: &Fields) -> Self {
        // Weights are thousandths; 0 is "not at all".
        let (mut plain, mut json, mut problem) = (0, 0, 0);
        for range in fields.get_all(Known::Accept).flat_map(list::quoted_elements) {
            let mut parts = list::split_quoted(range, b';');
            let Some(kind) = parts.next() else { continue };
            let weight = parts.find_map(weight).unwrap_or(1000);
            if kind.eq_ignore_ascii_case(b"application/json") {
                json = weight;
            } else if kind.eq_ignore_ascii_case(b"application/problem+json") {
                problem = weight;
            } else if kind.eq_ignore_ascii_case(b"text/plain") || kind.eq_ignore_ascii_case(b"text/html") {
                plain = plain.max(weight);
            }
        }
        if problem > 0 && problem >= json.max(plain) {
            Self::Problem
        } else if json > 0 && json >= plain {
            Self::Json
        } else {
            Self::Plain
        }
    }

    /// The value of Content-Type.
    pub const fn content_type(self) -> &'static [u8] {
        match self {
            Self::Plain => b"text/plain; charset=utf-8",
            Self::Json => b"application/json",
            Self::Problem => b"application/problem+json",
        }
    }
}

/// `q=0.8` as thousandths; `None` for another parameter or a broken weight.
fn weight(parameter: &[u8]) -> Option<u16> {
    let [b'q' | b'Q', b'=', digits @ ..] = parameter else {
        return None;
    };
    let (whole, fraction) = match digits {
        [b'0', rest @ ..] => (0, rest),
        [b'1', rest @ ..] => (1000, rest),
        _ => return None,
    };
    let mut thousandths = whole;
    let mut unit = 100;
    match fraction {
        [] => {}
        [b'.', rest @ ..] if rest.len() <= 3 => {
            for digit in rest {
                if !digit.is_ascii_digit() {
                    return None;
                }
                thousandths += u16::from(digit - b'0') * unit;
                unit /= 10;
            }
        }
        _ => return None,
    }
    (thousandths <= 1000).then_some(thousandths)
}

/// What Proxy-Status says (RFC 9209).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyStatus {
    /// The error type.
    #[default]
    Error,
    /// The error type, and the token of the reason as details.
    Full,
    /// The field is left out.
    Off,
}

/// An answer to a request that ends here.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Why.
    pub reason: Reason,
    /// The request's id.
    pub request_id: &'a [u8],
    /// The form of the body.
    pub form: BodyForm,
    /// Allow, for 405; [`ALLOW_DEFAULT`] if none.
    pub allow: Option<&'a [u8]>,
    /// Seconds in Retry-After, for 429 and 503; [`RETRY_AFTER_DEFAULT`] if none.
    pub retry_after: Option<u32>,
    /// What Proxy-Status says.
    pub proxy_status: ProxyStatus,
    /// The current date.
    pub date: &'a [u8; date::LENGTH],
}

impl Answer<'_> {
    /// Writes the head and the body into memory already held. To a HEAD request the head goes with `end` and the body stays
    /// here: `content_length` is right either way.
    pub fn write(&self, head: &mut ResponseHead, body: &mut Vec<u8>) {
        head.clear();
        head.status = self.reason.status();
        body.clear();
        self.write_body(body);
        head.content_length = Some(body.len() as u64);

        let fields = &mut head.fields;
        fields.push_known(Known::Date, self.date);
        fields.push_known(Known::ContentType, self.form.content_type());
        // 404, 405, 414 and 501 could otherwise be kept by a cache (RFC 9110 §15.1).
        fields.push_known(Known::CacheControl, b"no-store");
        if head.status == 405 {
            fields.push_known(Known::Allow, self.allow.unwrap_or(ALLOW_DEFAULT));
        }
        if self.reason.retry_after() {
            let seconds = self.retry_after.unwrap_or(RETRY_AFTER_DEFAULT);
            fields.push_known(Known::RetryAfter, decimal(seconds.into(), &mut [0; 20]));
        }
        let error = self.reason.proxy_error().as_bytes();
        match self.proxy_status {
            ProxyStatus::Off => true,
            ProxyStatus::Error => fields.push_parts(Known::ProxyStatus, &[b"spooky; error=", error]),
            ProxyStatus::Full => fields.push_parts(
                Known::ProxyStatus,
                &[b"spooky; error=", error, b"; details=\"", self.reason.token().as_bytes(), b"\""],
            ),
        };
    }

    fn write_body(&self, body: &mut Vec<u8>) {
        let mut digits = [0; 20];
        let status = decimal(self.reason.status().into(), &mut digits);
        let title = phrase(self.reason.status()).as_bytes();
        // An id that would need escaping is none of ours; it is left out rather than escaped.
        let id = if super::forward::is_request_id(self.request_id) { self.request_id } else { b"-" };
        let parts: [&[u8]; 7] = match self.form {
            BodyForm::Plain => [status, b" ", title, b"\nrequest ", id, b"\n", b""],
            BodyForm::Json | BodyForm::Problem => {
                [b"{\"status\":", status, b",\"title\":\"", title, b"\",\"request_id\":\"", id, b"\"}\n"]
            }
        };
        for part in parts {
            body.extend_from_slice(part);
        }
    }
}

/// The answer to OPTIONS that ends here: nothing but Allow.
pub fn options(allow: &[u8], date: &[u8; date::LENGTH], head: &mut ResponseHead) {
    head.clear();
    head.status = 204;
    head.fields.push_known(Known::Date, date);
    head.fields.push_known(Known::Allow, allow);
}

/// Sends a request that came without TLS to the same URL at https (308, RFC 9110 §15.4.9), on `port`. `false`, and nothing
/// written: it names no host.
pub fn to_https(request: &RequestHead, port: u16, date: &[u8; date::LENGTH], head: &mut ResponseHead) -> bool {
    let host = request.host();
    if host.is_empty() {
        return false;
    }
    head.clear();
    head.status = 308;
    head.content_length = Some(0);
    head.fields.push_known(Known::Date, date);
    let mut digits = [0; 20];
    let port: [&[u8]; 2] = match port {
        443 => [b"", b""],
        port => [b":", decimal(port.into(), &mut digits)],
    };
    let path = request.target.path().map_or("/", |path| path.forwarded());
    head.fields.push_parts(Known::Location, &[b"https://", host.as_bytes(), port[0], port[1], path.as_bytes()])
}

/// Where a route sends its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// Scheme, authority and path of the location; or its path alone.
    pub base: Box<str>,
    /// Query of the location, without `?`.
    pub query: Option<Box<str>>,
    /// Fragment of the location, without `#`.
    pub fragment: Option<Box<str>>,
    /// What the request's path has behind this prefix is appended to the path.
    pub behind: Option<Box<str>>,
    /// The request's query is appended to the query.
    pub keep_query: bool,
}

impl Redirect {
    /// Writes the head of the answer to a request; it has no body.
    pub fn write(&self, request: &RequestHead, date: &[u8; date::LENGTH], head: &mut ResponseHead) {
        let path = request.target.path();
        let mut location = String::new();
        let below = self.behind.as_deref().zip(path).map_or("", |(prefix, path)| behind(path.path(), prefix));
        join(&self.base, below, &mut location);
        let kept = path.and_then(PathPair::query).filter(|_| self.keep_query);
        for (query, before) in [(self.query.as_deref(), '?'), (kept, if self.query.is_some() { '&' } else { '?' })] {
            if let Some(query) = query {
                location.push(before);
                location.push_str(query);
            }
        }
        if let Some(fragment) = &self.fragment {
            location.push('#');
            location.push_str(fragment);
        }
        head.clear();
        head.status = self.status;
        head.content_length = Some(0);
        head.fields.push_known(Known::Date, date);
        head.fields.push_known(Known::Location, location.as_bytes());
    }
}

/// What a route answers by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedResponse {
    /// 200 to 599.
    pub status: u16,
    /// Empty for statuses that have no body.
    pub body: Box<[u8]>,
    /// Of a body.
    pub content_type: Box<str>,
}

impl FixedResponse {
    /// Writes the head of the answer; its length is right for HEAD too.
    pub fn write(&self, date: &[u8; date::LENGTH], head: &mut ResponseHead) {
        head.clear();
        head.status = self.status;
        head.content_length = (!matches!(self.status, 204 | 304)).then_some(self.body.len() as u64);
        head.fields.push_known(Known::Date, date);
        if !self.body.is_empty() {
            head.fields.push_known(Known::ContentType, self.content_type.as_bytes());
        }
    }
}

/// What a client gets that spoke HTTP to a port of TLS. Nobody has read its request: it may not even be one.
pub const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 40\r\nconnection: close\r\n\r\nthis port speaks TLS: ask with https://\n";

/// Whether the body of an answer of ours is sent to a request with this method.
pub fn sends_body(method: &Method) -> bool {
    *method != Method::Head
}

#[cfg(test)]
mod tests;
