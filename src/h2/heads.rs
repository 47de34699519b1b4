//! Owns the way of heads and trailers between the library's form and ours.
//!
//! On the way in everything passes [`normalize`]; on the way out the values of a head share one buffer, so that a head
//! costs a few allocations, not one per field.

use crate::http::known::rule;
use crate::http::normalize::{self, HeadLimits, ResponseFault, WireRequest};
use crate::http::{
    FieldName, Fields, Known, Method, Protocol, Refusal, RequestHead, ResponseHead, Scheme, Target, WireVersion,
};
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode, Uri, uri};

/// A head of ours that the library would not take: a byte that it knows to be wrong and we do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unsendable;

/// Takes a request in.
pub(super) fn request_in(
    parts: &http::request::Parts,
    connection: Scheme,
    limits: &HeadLimits,
) -> Result<RequestHead, Refusal> {
    // The library forgets the scheme where it stands without an authority; it was checked to be there.
    let plain_connect = parts.method == http::Method::CONNECT && protocol(parts).is_none();
    let scheme = parts.uri.scheme_str().unwrap_or(connection.as_str());
    let path = parts.uri.path_and_query().map(uri::PathAndQuery::as_str);
    let pseudo = [
        Some((&b":method"[..], parts.method.as_str().as_bytes())),
        Some((&b":scheme"[..], scheme.as_bytes())).filter(|_| !plain_connect),
        parts.uri.authority().map(|authority| (&b":authority"[..], authority.as_str().as_bytes())),
        path.filter(|_| !plain_connect).map(|path| (&b":path"[..], path.as_bytes())),
        protocol(parts).map(|protocol| (&b":protocol"[..], protocol.as_bytes())),
    ];
    let wire = WireRequest {
        scheme: connection,
        line: None,
        fields: pseudo.into_iter().flatten().chain(fields(&parts.headers)),
    };
    let bytes = fields(&parts.headers).map(|(name, value)| name.len() + value.len()).sum();
    let mut head = RequestHead::with_room(parts.headers.len(), bytes);
    normalize::request_into(WireVersion::H2, wire, limits, &mut head)?;
    Ok(head)
}

fn protocol(parts: &http::request::Parts) -> Option<&str> {
    parts.extensions.get::<::h2::ext::Protocol>().map(::h2::ext::Protocol::as_str)
}

/// Takes a response in; `tunnel`: its request asked for one.
pub(super) fn response_in(
    parts: &http::response::Parts,
    tunnel: bool,
    limits: &HeadLimits,
) -> Result<ResponseHead, ResponseFault> {
    let (status, fields) = (Some(parts.status.as_u16()), fields(&parts.headers));
    if !tunnel {
        return normalize::response(WireVersion::H2, status, fields, &Method::Get, limits);
    }
    let mut head = ResponseHead::default();
    normalize::tunnel_response_into(WireVersion::H2, status, fields, None, limits, &mut head)?;
    Ok(head)
}

/// Takes trailers in.
pub(super) fn trailers_in(map: &HeaderMap, limits: &HeadLimits) -> Result<Fields, Refusal> {
    normalize::trailers(WireVersion::H2, fields(map), limits)
}

fn fields(map: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    map.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
}

/// Makes the library's form of a response head.
pub(super) fn response_out(head: &ResponseHead) -> Result<Response<()>, Unsendable> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).map_err(|_| Unsendable)?;
    *response.headers_mut() = map(&head.fields, head.content_length)?;
    Ok(response)
}

/// Makes the library's form of trailers.
pub(super) fn trailers_out(fields: &Fields) -> Result<HeaderMap, Unsendable> {
    map(fields, None)
}

/// Makes the library's form of a request head. `authority` replaces the request's own.
pub(super) fn request_out(head: &RequestHead, authority: &str, scheme: Scheme) -> Result<Request<()>, Unsendable> {
    let mut request = Request::new(());
    *request.method_mut() = match head.protocol {
        // RFC 8441 §4.
        Some(Protocol::WebSocket { .. }) => {
            request.extensions_mut().insert(::h2::ext::Protocol::from_static("websocket"));
            http::Method::CONNECT
        }
        None => method_out(&head.method)?,
    };
    let mut parts = uri::Parts::default();
    parts.authority = Some(authority.parse().map_err(|_| Unsendable)?);
    let path = match &head.target {
        Target::Path(path) => Some(path_out(path.forwarded())?),
        Target::Asterisk => Some(uri::PathAndQuery::from_static("*")),
        Target::Authority => None,
    };
    if path.is_some() {
        parts.scheme = Some(match scheme {
            Scheme::Http => uri::Scheme::HTTP,
            Scheme::Https => uri::Scheme::HTTPS,
        });
    }
    parts.path_and_query = path;
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Unsendable)?;
    *request.headers_mut() = map(&head.fields, head.content_length)?;
    Ok(request)
}

/// The library takes only what RFC 3986 allows in a path; what else passed our gate is said by its escape.
fn path_out(path: &str) -> Result<uri::PathAndQuery, Unsendable> {
    if let Ok(path) = uri::PathAndQuery::try_from(path) {
        return Ok(path);
    }
    let mut escaped = Vec::with_capacity(path.len() + 16);
    for byte in path.bytes() {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x7f.. => {
                let digit = |value: u8| b"0123456789ABCDEF"[usize::from(value & 15)];
                escaped.extend([b'%', digit(byte >> 4), digit(byte)]);
            }
            byte => escaped.push(byte),
        }
    }
    uri::PathAndQuery::from_maybe_shared(Bytes::from(escaped)).map_err(|_| Unsendable)
}

fn method_out(method: &Method) -> Result<http::Method, Unsendable> {
    Ok(match method {
        Method::Get => http::Method::GET,
        Method::Head => http::Method::HEAD,
        Method::Post => http::Method::POST,
        Method::Put => http::Method::PUT,
        Method::Delete => http::Method::DELETE,
        Method::Options => http::Method::OPTIONS,
        Method::Patch => http::Method::PATCH,
        Method::Connect => http::Method::CONNECT,
        Method::Trace => http::Method::TRACE,
        Method::Other(name) => http::Method::from_bytes(name.as_bytes()).map_err(|_| Unsendable)?,
    })
}

fn map(fields: &Fields, content_length: Option<u64>) -> Result<HeaderMap, Unsendable> {
    let mut count = usize::from(content_length.is_some());
    let mut bytes = 0;
    for (_, value) in fields.iter().filter(|(name, value)| is_sent(name, value)) {
        count += 1;
        bytes += value.len();
    }
    if count == 0 {
        return Ok(HeaderMap::new());
    }
    // Copy: the library keeps its own values; all of them share this buffer.
    let mut shared = BytesMut::with_capacity(bytes);
    for (_, value) in fields.iter().filter(|(name, value)| is_sent(name, value)) {
        shared.extend_from_slice(value);
    }
    let mut shared = shared.freeze();
    let mut map = HeaderMap::try_with_capacity(count).map_err(|_| Unsendable)?;
    for (name, value) in fields.iter().filter(|(name, value)| is_sent(name, value)) {
        let mut sent = HeaderValue::from_maybe_shared(shared.split_to(value.len())).map_err(|_| Unsendable)?;
        sent.set_sensitive(is_secret(name.known));
        let name = HeaderName::from_lowercase(name.name).map_err(|_| Unsendable)?;
        map.try_append(name, sent).map_err(|_| Unsendable)?;
    }
    if let Some(length) = content_length {
        map.try_append(CONTENT_LENGTH, HeaderValue::from(length)).map_err(|_| Unsendable)?;
    }
    Ok(map)
}

/// Whether a field leaves: what speaks of one connection or of the framing is never taken from a head, but for
/// `te: trailers` (RFC 9113 §8.2.2).
fn is_sent(name: &FieldName<'_>, value: &[u8]) -> bool {
    name.known.is_none_or(|known| match known {
        Known::Te => value == b"trailers",
        Known::Host | Known::ContentLength => false,
        known => known.rules() & rule::CONNECTION == 0,
    })
}

/// Values that never enter the compression tables, which the requests of many clients share: else one of them could guess
/// another's by the size of its own (RFC 7541 §7.1.3).
fn is_secret(known: Option<Known>) -> bool {
    matches!(known, Some(Known::Authorization | Known::Cookie | Known::SetCookie | Known::ProxyAuthorization))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(map: &HeaderMap) -> Vec<(&str, &[u8])> {
        map.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
    }

    #[test]
    fn a_response_keeps_its_fields_and_loses_those_of_one_connection() {
        let mut head = ResponseHead::new(200);
        for (name, value) in [
            ("content-type", "text/plain"),
            ("connection", "x-a"),
            ("keep-alive", "5"),
            ("upgrade", "h2c"),
            ("x-own", "1"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("content-length", "9"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip"),
            ("x-empty", ""),
        ] {
            assert!(head.fields.push(name.as_bytes(), value.as_bytes()));
        }
        head.content_length = Some(7);
        let response = response_out(&head).unwrap();
        let expected: [(&str, &[u8]); 6] = [
            ("content-type", b"text/plain"),
            ("x-own", b"1"),
            ("set-cookie", b"a=1"),
            ("set-cookie", b"b=2"),
            ("x-empty", b""),
            ("content-length", b"7"),
        ];
        assert_eq!(names(response.headers()), expected);
        assert!(response.headers()["set-cookie"].is_sensitive() && !response.headers()["x-own"].is_sensitive());
    }

    #[test]
    fn a_head_without_fields_allocates_no_map() {
        let response = response_out(&ResponseHead::new(204)).unwrap();
        assert_eq!((response.status().as_u16(), response.headers().capacity()), (204, 0));
    }

    #[test]
    fn obs_text_passes_and_control_bytes_do_not() {
        let mut head = ResponseHead::new(200);
        assert!(head.fields.push(b"x", b"caf\xe9"));
        assert_eq!(response_out(&head).unwrap().headers()["x"].as_bytes(), b"caf\xe9");
        assert!(head.fields.push(b"y", b"a\nb"));
        assert_eq!(response_out(&head).err(), Some(Unsendable));
    }

    #[test]
    fn every_path_that_passes_the_gate_can_be_sent() {
        for byte in 0x21..=0xff_u8 {
            let path = [b'/', byte, b'?', byte];
            let Ok(pair) = crate::http::PathPair::parse(&path) else { continue };
            let head = RequestHead { target: Target::Path(pair), ..RequestHead::default() };
            let request = request_out(&head, "example.org", Scheme::Https);
            let sent = request.unwrap_or_else(|_| panic!("{}", path.escape_ascii()));
            let escaped = format!("/%{byte:02X}?%{byte:02X}");
            let path = path.escape_ascii().to_string();
            let sent = sent.uri().path_and_query().unwrap().as_str();
            assert!(
                sent == escaped || sent == path || sent == head.target.path().unwrap().forwarded(),
                "{sent} {path}"
            );
        }
    }
}
