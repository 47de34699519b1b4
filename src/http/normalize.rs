//! The only gate from the wire to a head, for every HTTP version.
//!
//! Owns the defence against smuggling: pseudo-header rules, agreement of Host and authority, the two ways to state a
//! length, names, values, targets and the limits on heads. Whoever parsed the bytes brings slices; what comes out is a
//! [`RequestHead`] or [`ResponseHead`] that every layer above trusts. It refuses to know framing on the wire, policy and
//! routes. Its cases stand in `tests/corpus/normalize/`. Read [`super::forward`] next.
//!
//! Where the RFCs leave a choice, the strict one is taken:
//! - A repeated Content-Length is refused even if all values agree (RFC 9110 §8.6 permits either).
//! - An absolute-form target and a Host that disagree are refused instead of Host being ignored (RFC 9112 §3.2.2).
//! - A scheme other than the connection's is refused.
//! - A request for WebSocket that breaks the rules of its handshake is refused instead of its Upgrade being ignored.
//! - Spaces around values are trimmed on HTTP/1 and malformed on HTTP/2 and HTTP/3 (RFC 9113 §8.2.1).
//! - Fields that may not stand in trailers are dropped, not merged and not an error (RFC 9110 §6.5.1).

use super::authority::Authority;
use super::fields::{Fields, OVERHEAD};
use super::head::{Method, Protocol, RequestHead, ResponseHead, Scheme, Target, WireVersion};
use super::known::{Known, rule};
use super::list;
use super::path::PathPair;
use super::reason::{Reason, Refusal};
use super::syntax;
use super::websocket;

/// Connection options that one head may have: each costs a walk over the fields.
pub const CONNECTION_OPTIONS_MAX: usize = 32;

/// Bounds on one head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Fields, pseudo-headers not counted.
    pub fields: usize,
    /// Size as RFC 9114 §4.2.2 counts it, pseudo-headers (or the request line) included.
    pub bytes: usize,
    /// Bytes of the request target.
    pub target: usize,
    /// Whether CONNECT passes.
    pub connect: bool,
}

impl HeadLimits {
    /// The defaults for requests: 128 fields, 16 KiB, a target of 8 KiB, no CONNECT.
    pub const REQUEST: Self = Self { fields: 128, bytes: 16 << 10, target: 8 << 10, connect: false };

    /// The defaults for responses: 256 fields, 64 KiB.
    pub const RESPONSE: Self = Self { fields: 256, bytes: 64 << 10, target: 0, connect: false };
}

/// The request line of HTTP/1.
#[derive(Clone, Copy, Debug)]
pub struct RequestLine<'a> {
    /// The method as sent.
    pub method: &'a [u8],
    /// The target as sent.
    pub target: &'a [u8],
}

/// A request head as a parser saw it.
#[derive(Clone, Debug)]
pub struct WireRequest<'a, I> {
    /// How the connection is secured.
    pub scheme: Scheme,
    /// The request line; `None` on HTTP/2 and HTTP/3, where pseudo-headers say it.
    pub line: Option<RequestLine<'a>>,
    /// Names and values in order, pseudo-headers included.
    pub fields: I,
}

/// Takes a request head in.
///
/// # Errors
/// Why it is refused.
pub fn request<'a, I>(
    version: WireVersion,
    wire: WireRequest<'a, I>,
    limits: &HeadLimits,
) -> Result<RequestHead, Refusal>
where
    I: IntoIterator<Item = (&'a [u8], &'a [u8])>,
{
    let mut head = RequestHead::default();
    request_into(version, wire, limits, &mut head)?;
    Ok(head)
}

/// Takes a request head in, into memory already held.
///
/// # Errors
/// Why it is refused; the head is not to be used then.
pub fn request_into<'a, I>(
    version: WireVersion,
    wire: WireRequest<'a, I>,
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<(), Refusal>
where
    I: IntoIterator<Item = (&'a [u8], &'a [u8])>,
{
    head.clear();
    head.version = version;
    head.scheme = wire.scheme;
    take_request(wire, limits, head).map_err(Refusal::new)
}

fn take_request<'a, I>(wire: WireRequest<'a, I>, limits: &HeadLimits, head: &mut RequestHead) -> Result<(), Reason>
where
    I: IntoIterator<Item = (&'a [u8], &'a [u8])>,
{
    let mut section = Section::new(head.version, limits);
    let mut pseudo = Pseudo::default();
    let mut host = None;
    let mut expect = false;
    let mut cookies = 0;

    if let Some(line) = wire.line {
        if line.target.len() > limits.target {
            return Err(Reason::TargetTooLong);
        }
        pseudo.method = Some(line.method);
        pseudo.path = Some(line.target);
        section.count(b":method", line.method)?;
        section.count(b":path", line.target)?;
    }

    for (name, value) in wire.fields {
        if let [b':', ..] = name {
            // A long path is told by 414, so it is looked at before the size of the whole.
            if name == b":path" && value.len() > limits.target {
                return Err(Reason::TargetTooLong);
            }
            section.count(name, value)?;
            if head.version.is_h1() {
                return Err(Reason::FieldName);
            }
            if section.fields > 0 {
                return Err(Reason::PseudoField);
            }
            pseudo.take(name, value)?;
            continue;
        }
        let (known, value) = section.check(name, value)?;
        match known {
            None => section.push_unknown(&mut head.fields, name, value)?,
            Some(Known::Host) => {
                if host.replace(value).is_some() {
                    return Err(Reason::Authority);
                }
            }
            Some(Known::ContentLength) => section.framing.length(value)?,
            Some(Known::TransferEncoding) => section.framing.coding(value)?,
            Some(Known::Expect) => {
                let mut expectations = list::elements(value);
                if !expectations.all(|one| one.eq_ignore_ascii_case(b"100-continue")) {
                    return Err(Reason::Expectation);
                }
                // RFC 9110 §10.1.1: an expectation in HTTP/1.0 is ignored.
                expect |= head.version != WireVersion::H1_0 && list::elements(value).next().is_some();
            }
            Some(known) => {
                cookies += usize::from(known == Known::Cookie);
                section.push_known(&mut head.fields, known, value)?;
            }
        }
    }

    if cookies > 1 && !head.fields.join(Known::Cookie, b"; ") {
        return Err(Reason::HeadTooLarge);
    }
    if expect {
        head.expect_continue = true;
        section.push_known(&mut head.fields, Known::Expect, b"100-continue")?;
    }
    if head.version.is_h1() {
        request_line(&pseudo, host, head)?;
    } else {
        pseudo_fields(&pseudo, host, head)?;
    }
    let framing = section.framing.finish()?;
    head.content_length = framing.length;
    head.chunked = framing.chunked;
    ask_tunnel(pseudo.protocol, head)?;
    match head.method {
        Method::Trace => Err(Reason::MethodRefused),
        Method::Connect if !limits.connect => Err(Reason::MethodRefused),
        _ => Ok(()),
    }
}

/// Sees whether a request asks for a tunnel. Routes and policies see the same GET from every version.
fn ask_tunnel(protocol: Option<&[u8]>, head: &mut RequestHead) -> Result<(), Reason> {
    let key = if let Some(protocol) = protocol {
        if !protocol.eq_ignore_ascii_case(websocket::NAME) {
            return Err(Reason::Protocol);
        }
        head.fields.remove(Known::SecWebsocketKey);
        None
    } else {
        let may_ask = head.version == WireVersion::H1_1 && head.method == Method::Get;
        if !may_ask || !websocket::is_asked_by(&head.fields) {
            return Ok(());
        }
        Some(websocket::take_key(&mut head.fields)?)
    };
    websocket::check_version(&head.fields)?;
    // What looks like a body to one reader would be frames to another.
    if head.chunked || head.content_length.is_some_and(|length| length > 0) {
        return Err(Reason::WebSocket);
    }
    head.content_length = None;
    if std::mem::take(&mut head.expect_continue) {
        head.fields.remove(Known::Expect);
    }
    head.protocol = Some(Protocol::WebSocket { key });
    Ok(())
}

/// Pseudo-headers of a request; on HTTP/1 the request line stands here.
#[derive(Default)]
struct Pseudo<'a> {
    method: Option<&'a [u8]>,
    scheme: Option<&'a [u8]>,
    authority: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
    protocol: Option<&'a [u8]>,
}

impl<'a> Pseudo<'a> {
    fn take(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Reason> {
        let place = match name {
            b":method" => &mut self.method,
            b":scheme" => &mut self.scheme,
            b":authority" => &mut self.authority,
            b":path" => &mut self.path,
            b":protocol" => &mut self.protocol,
            _ => return Err(Reason::PseudoField),
        };
        let clean = syntax::is_field_value(value) && list::trim(value).len() == value.len();
        if !clean || place.replace(value).is_some() {
            return Err(Reason::PseudoField);
        }
        Ok(())
    }
}

/// Method, authority and target of HTTP/2 and HTTP/3 (RFC 9113 §8.3.1, RFC 9114 §4.3.1).
fn pseudo_fields(pseudo: &Pseudo<'_>, host: Option<&[u8]>, head: &mut RequestHead) -> Result<(), Reason> {
    let method = pseudo.method.ok_or(Reason::PseudoField)?;
    head.method = Method::parse(method).ok_or(Reason::Method)?;

    match (&head.method, pseudo.protocol) {
        (Method::Connect, None) => {
            if pseudo.scheme.is_some() || pseudo.path.is_some() {
                return Err(Reason::PseudoField);
            }
            let authority = pseudo.authority.ok_or(Reason::PseudoField)?;
            return connect_target(authority, host, head);
        }
        // RFC 8441 §4: a request about a path like any other, which names its authority itself.
        (Method::Connect, Some(_)) if pseudo.authority.is_some() => head.method = Method::Get,
        (_, Some(_)) => return Err(Reason::PseudoField),
        (_, None) => {}
    }

    let (Some(scheme), Some(path)) = (pseudo.scheme, pseudo.path) else {
        return Err(Reason::PseudoField);
    };
    if path.is_empty() || scheme.is_empty() {
        return Err(Reason::PseudoField);
    }
    let named = pseudo.authority.or(host).ok_or(Reason::Authority)?;
    set_authority(named, host.filter(|_| pseudo.authority.is_some()), head)?;
    check_scheme(scheme, head.scheme)?;
    set_path(path, head)
}

/// Method, authority and target of HTTP/1 (RFC 9112 §3.2).
fn request_line(pseudo: &Pseudo<'_>, host: Option<&[u8]>, head: &mut RequestHead) -> Result<(), Reason> {
    let (Some(method), Some(target)) = (pseudo.method, pseudo.path) else {
        return Err(Reason::Syntax);
    };
    head.method = Method::parse(method).ok_or(Reason::Method)?;
    if host.is_none() && head.version != WireVersion::H1_0 {
        return Err(Reason::Authority);
    }
    if head.method == Method::Connect {
        return connect_target(target, host, head);
    }
    if matches!(target, [b'/', ..] | b"*") {
        if let Some(host) = host {
            set_authority(host, None, head)?;
        }
        return set_path(target, head);
    }

    // Absolute-form: scheme "://" authority path-abempty [ "?" query ].
    let colon = target.iter().position(|&byte| byte == b':').ok_or(Reason::TargetForm)?;
    let (scheme, rest) = target.split_at(colon);
    let rest = rest.strip_prefix(b"://").ok_or(Reason::TargetForm)?;
    let end = rest.iter().position(|&byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    set_authority(authority, host, head)?;
    check_scheme(scheme, head.scheme)?;
    match path {
        // RFC 9112 §3.2.4: what a proxy is asked about the server as a whole.
        [] if head.method == Method::Options => set_path(b"*", head),
        [] => set_path(b"/", head),
        [b'?', ..] => {
            let mut with_slash = Vec::with_capacity(path.len() + 1);
            with_slash.push(b'/');
            with_slash.extend_from_slice(path);
            set_path(&with_slash, head)
        }
        _ => set_path(path, head),
    }
}

/// CONNECT names the authority and nothing else, and always a port (RFC 9110 §9.3.6).
fn connect_target(authority: &[u8], host: Option<&[u8]>, head: &mut RequestHead) -> Result<(), Reason> {
    set_authority(authority, None, head)?;
    if head.authority.port().is_none() {
        return Err(Reason::Authority);
    }
    if let Some(host) = host {
        // Host may leave the port out: clients send the name alone as well.
        let host = Authority::parse(host).ok_or(Reason::Authority)?;
        let port_differs = host.port().is_some_and(|port| Some(port) != head.authority.port());
        if host.host() != head.authority.host() || port_differs {
            return Err(Reason::AuthorityMismatch);
        }
    }
    head.target = Target::Authority;
    Ok(())
}

/// Takes the authority, and checks that `host`, where it was sent beside it, says the same.
fn set_authority(authority: &[u8], host: Option<&[u8]>, head: &mut RequestHead) -> Result<(), Reason> {
    if !head.authority.set(authority) {
        return Err(Reason::Authority);
    }
    match host {
        // Most clients that send both send the same bytes.
        Some(host) if host != authority => {
            let host = Authority::parse(host).ok_or(Reason::Authority)?;
            if !host.agrees_with(&head.authority, head.scheme) {
                return Err(Reason::AuthorityMismatch);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn set_path(path: &[u8], head: &mut RequestHead) -> Result<(), Reason> {
    if path == b"*" {
        if head.method != Method::Options {
            return Err(Reason::TargetForm);
        }
        head.target = Target::Asterisk;
        return Ok(());
    }
    if path.first() != Some(&b'/') {
        return Err(Reason::TargetForm);
    }
    match &mut head.target {
        Target::Path(pair) => pair.set(path)?,
        Target::Asterisk | Target::Authority => head.target = Target::Path(PathPair::parse(path)?),
    }
    Ok(())
}

fn check_scheme(scheme: &[u8], connection: Scheme) -> Result<(), Reason> {
    if scheme.eq_ignore_ascii_case(connection.as_str().as_bytes()) { Ok(()) } else { Err(Reason::Scheme) }
}

/// Takes a response head in. `status` is the one of an HTTP/1 status line; HTTP/2 and HTTP/3 bring `:status`.
/// 1xx heads come out too ([`ResponseHead::is_informational`]).
///
/// # Errors
/// Why it is not valid; each is the backend's doing.
pub fn response<'a, I>(
    version: WireVersion,
    status: Option<u16>,
    fields: I,
    request_method: &Method,
    limits: &HeadLimits,
) -> Result<ResponseHead, ResponseFault>
where
    I: IntoIterator<Item = (&'a [u8], &'a [u8])>,
{
    let mut head = ResponseHead::default();
    response_into(version, status, fields, request_method, limits, &mut head)?;
    Ok(head)
}

/// A response head that the gate did not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseFault {
    /// Why.
    pub reason: Reason,
}

/// [`response`] into memory already held.
///
/// # Errors
/// Why it is not valid; the head is not to be used then.
pub fn response_into<'a, I>(
    version: WireVersion,
    status: Option<u16>,
    fields: I,
    request_method: &Method,
    limits: &HeadLimits,
    head: &mut ResponseHead,
) -> Result<(), ResponseFault>
where
    I: IntoIterator<Item = (&'a [u8], &'a [u8])>,
{
    head.clear();
    take_response(version, status, fields, Asked::Method(request_method), limits, head).map_err(ResponseFault::of)
}

/// Takes the head of a response to a request for a tunnel in, into memory already held. `accept` is the right answer to the
/// key that was sent; `None` on HTTP/2 and HTTP/3, which know none. What opens the tunnel comes out as 200, from every
/// version; no other success comes out.
///
/// # Errors
/// Why it is not valid, or that it claims to open a tunnel and does not; the head is not to be used then.
pub fn tunnel_response_into<'a, I>(
    version: WireVersion,
    status: Option<u16>,
    fields: I,
    accept: Option<&[u8; 28]>,
    limits: &HeadLimits,
    head: &mut ResponseHead,
) -> Result<(), ResponseFault>
where
    I: IntoIterator<Item = (&'a [u8], &'a [u8])>,
{
    head.clear();
    take_response(version, status, fields, Asked::Tunnel(accept), limits, head).map_err(ResponseFault::of)
}

impl ResponseFault {
    fn of(reason: Reason) -> Self {
        let reason = match reason {
            Reason::HeadTooLarge | Reason::TooManyFields => Reason::UpstreamHeadTooLarge,
            Reason::ContentLength | Reason::LengthConflict => Reason::UpstreamLength,
            Reason::TransferCoding => Reason::UpstreamCoding,
            Reason::UpstreamUpgrade => reason,
            _ => Reason::UpstreamMalformed,
        };
        Self { reason }
    }
}

/// What a response answers, as far as that changes its meaning.
#[derive(Clone, Copy)]
enum Asked<'r> {
    Method(&'r Method),
    /// A tunnel, with the right answer to its key where there is one.
    Tunnel(Option<&'r [u8; 28]>),
}

fn take_response<'a, I>(
    version: WireVersion,
    status: Option<u16>,
    fields: I,
    asked: Asked<'_>,
    limits: &HeadLimits,
    head: &mut ResponseHead,
) -> Result<(), Reason>
where
    I: IntoIterator<Item = (&'a [u8], &'a [u8])>,
{
    let mut section = Section::new(version, limits);
    let mut status = status;
    for (name, value) in fields {
        if let [b':', ..] = name {
            section.count(name, value)?;
            let misplaced = version.is_h1() || section.fields > 0 || status.is_some();
            if misplaced || name != b":status" {
                return Err(Reason::PseudoField);
            }
            status = Some(three_digits(value).ok_or(Reason::PseudoField)?);
            continue;
        }
        let (known, value) = section.check(name, value)?;
        match known {
            None => section.push_unknown(&mut head.fields, name, value)?,
            Some(Known::ContentLength) => section.framing.length(value)?,
            Some(Known::TransferEncoding) => section.framing.coding(value)?,
            Some(known) => section.push_known(&mut head.fields, known, value)?,
        }
    }
    head.status = status.ok_or(Reason::PseudoField)?;
    match head.status {
        101 if opens_tunnel(version, asked, head) => head.status = 200,
        // Nobody asked, or not for this.
        101 => return Err(Reason::UpstreamUpgrade),
        // On HTTP/1.1 the switch is the only success; and one without an end of its own would be taken for it elsewhere.
        200..=299 if version.is_h1() && matches!(asked, Asked::Tunnel(_)) => return Err(Reason::UpstreamUpgrade),
        100..=999 => {}
        _ => return Err(Reason::PseudoField),
    }
    let framing = section.framing.finish()?;
    // RFC 9110 §8.6 and RFC 9112 §6.1: neither field means anything here.
    let connects = matches!(asked, Asked::Tunnel(_) | Asked::Method(Method::Connect));
    let tunnel = connects && (200..300).contains(&head.status);
    if tunnel {
        head.status = 200;
        // It answers our key; a client has one of its own, or none.
        head.fields.remove(Known::SecWebsocketAccept);
    }
    if !(head.is_informational() || head.status == 204 || tunnel) {
        head.content_length = framing.length;
        head.chunked = framing.chunked;
    }
    Ok(())
}

/// Whether a 101 switches to what was asked for (RFC 6455 §4.1). HTTP/2 and HTTP/3 have no 101 (RFC 9113 §8.6).
fn opens_tunnel(version: WireVersion, asked: Asked<'_>, head: &ResponseHead) -> bool {
    match asked {
        Asked::Tunnel(Some(accept)) if version == WireVersion::H1_1 => websocket::is_answered_by(&head.fields, accept),
        _ => false,
    }
}

fn three_digits(value: &[u8]) -> Option<u16> {
    match value {
        [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
            Some(u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0'))
        }
        _ => None,
    }
}

/// Takes a trailer section in. Fields that may not stand there are dropped: framing, routing, identity, authentication,
/// conditions, controls and descriptions of the content.
///
/// # Errors
/// Why it is refused; for a response the caller says [`Reason::UpstreamTrailers`] instead.
pub fn trailers<'a, I>(version: WireVersion, fields: I, limits: &HeadLimits) -> Result<Fields, Refusal>
where
    I: IntoIterator<Item = (&'a [u8], &'a [u8])>,
{
    let mut section = Section::new(version, limits);
    let mut out = Fields::new();
    for (name, value) in fields {
        // A pseudo-header is not a token: `check` would say so, but with less precise a reason.
        if let [b':', ..] = name {
            return Err(Refusal::new(Reason::PseudoField));
        }
        let (known, value) = section.check(name, value)?;
        match known {
            Some(known) if known.rules() & rule::NO_TRAILER != 0 => {}
            Some(known) => section.push_known(&mut out, known, value)?,
            None if is_forbidden_trailer(name) => {}
            None => section.push_unknown(&mut out, name, value)?,
        }
    }
    Ok(out)
}

/// Unknown names of the families that may not stand in trailers.
fn is_forbidden_trailer(name: &[u8]) -> bool {
    const FAMILIES: [&[u8]; 6] = [b"content-", b"x-forwarded-", b"client-cert", b"sec-", b"proxy-", b"access-control-"];
    FAMILIES.iter().any(|family| name.get(..family.len()).is_some_and(|start| start.eq_ignore_ascii_case(family)))
}

/// What holds for every field of every section: limits, names, values, connection-specific fields.
struct Section<'l> {
    version: WireVersion,
    limits: &'l HeadLimits,
    /// Fields so far, pseudo-headers not counted.
    fields: usize,
    bytes: usize,
    connection_options: usize,
    framing: Framing,
}

impl<'l> Section<'l> {
    fn new(version: WireVersion, limits: &'l HeadLimits) -> Self {
        Self { version, limits, fields: 0, bytes: 0, connection_options: 0, framing: Framing::new(version) }
    }

    #[inline]
    fn count(&mut self, name: &[u8], value: &[u8]) -> Result<(), Reason> {
        // No overflow: slices are at most isize::MAX bytes long, and the sum is checked each time.
        self.bytes += name.len() + value.len() + OVERHEAD;
        if self.bytes > self.limits.bytes {
            return Err(Reason::HeadTooLarge);
        }
        Ok(())
    }

    /// Counts and checks one field; returns its known name and its value without spaces at the ends.
    #[inline]
    fn check<'v>(&mut self, name: &[u8], value: &'v [u8]) -> Result<(Option<Known>, &'v [u8]), Reason> {
        self.count(name, value)?;
        self.fields += 1;
        if self.fields > self.limits.fields {
            return Err(Reason::TooManyFields);
        }
        // A known name is a token as it is found; only the others are looked at byte by byte.
        let h1 = self.version.is_h1();
        let known = if h1 { Known::from_any(name) } else { Known::from_lower(name) };
        if known.is_none() {
            let token = if h1 { syntax::is_token(name) } else { syntax::is_lower_token(name) };
            if !token {
                return Err(Reason::FieldName);
            }
        }
        let trimmed = list::trim(value);
        if !syntax::is_field_value(trimmed) || (!h1 && trimmed.len() != value.len()) {
            return Err(Reason::FieldValue);
        }
        if let Some(known) = known {
            self.check_connection(known, trimmed)?;
        }
        Ok((known, trimmed))
    }

    #[inline]
    fn check_connection(&mut self, known: Known, value: &[u8]) -> Result<(), Reason> {
        let rules = known.rules();
        if rules & rule::HOP == 0 {
            return Ok(());
        }
        if self.version.is_h1() {
            if known == Known::Connection {
                self.connection_options += list::elements(value).count();
                if self.connection_options > CONNECTION_OPTIONS_MAX {
                    return Err(Reason::ConnectionField);
                }
            }
            return Ok(());
        }
        let te = known == Known::Te && !value.eq_ignore_ascii_case(b"trailers");
        if te || rules & rule::CONNECTION != 0 {
            return Err(Reason::ConnectionField);
        }
        Ok(())
    }

    #[inline]
    fn push_known(&self, fields: &mut Fields, known: Known, value: &[u8]) -> Result<(), Reason> {
        // Limits above what a section can hold are cut by the section itself.
        match fields.push_known(known, value) {
            true => Ok(()),
            false => Err(Reason::HeadTooLarge),
        }
    }

    #[inline]
    fn push_unknown(&self, fields: &mut Fields, name: &[u8], value: &[u8]) -> Result<(), Reason> {
        match fields.push_unknown(name, value) {
            true => Ok(()),
            false => Err(Reason::HeadTooLarge),
        }
    }
}

/// The two ways to state the length of a body, seen together.
struct Framing {
    version: WireVersion,
    length: Option<u64>,
    /// A Transfer-Encoding field was seen.
    coded: bool,
    chunked: bool,
    other_coding: bool,
}

impl Framing {
    fn new(version: WireVersion) -> Self {
        Self { version, length: None, coded: false, chunked: false, other_coding: false }
    }

    /// One Content-Length field (RFC 9110 §8.6): digits, once.
    fn length(&mut self, value: &[u8]) -> Result<(), Reason> {
        let length = parse_length(value).ok_or(Reason::ContentLength)?;
        if self.length.replace(length).is_some() {
            return Err(Reason::ContentLength);
        }
        Ok(())
    }

    /// One Transfer-Encoding field (RFC 9112 §6.1): nothing may follow chunked.
    fn coding(&mut self, value: &[u8]) -> Result<(), Reason> {
        if self.version == WireVersion::H1_0 {
            return Err(Reason::TransferEncoding);
        }
        self.coded = true;
        for coding in list::elements(value) {
            if self.chunked {
                return Err(Reason::TransferEncoding);
            }
            match coding.eq_ignore_ascii_case(b"chunked") {
                true => self.chunked = true,
                false => self.other_coding = true,
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Self, Reason> {
        if self.coded && self.length.is_some() {
            return Err(Reason::LengthConflict);
        }
        if self.coded && !self.chunked {
            return Err(Reason::TransferEncoding);
        }
        if self.other_coding {
            return Err(Reason::TransferCoding);
        }
        Ok(self)
    }
}

/// `1*DIGIT` that fits; `str::parse` alone would take a sign.
fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |sum, &digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests;
