//! The rules of forwarding: what changes between the head a client sent and the one its backend gets, and back.
//!
//! Owns which fields end here (hop by hop, or named by Connection), which of the client's words about itself are believed,
//! and which fields are ours. Pure: ids, dates and addresses come from the caller. Heads are changed in place, one pass over
//! the index each way. It refuses to know framing and the upstream's version. Read [`super::respond`] next.
//!
//! A serialiser of HTTP/1 that finds `te` among the fields adds `Connection: te` (RFC 9110 §10.1.4).

use super::fields::{FieldName, Fields};
use super::head::{Method, RequestHead, ResponseHead, WireVersion};
use super::known::{Known, rule};
use super::peer::Peer;
use super::syntax::{decimal, is_token};
use super::trace::TraceParent;

/// What becomes of Forwarded and X-Forwarded-For, -Proto, -Host and -Port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdentityMode {
    /// Ours replace the client's.
    #[default]
    Overwrite,
    /// From a trusted peer: the address is appended to Forwarded and X-Forwarded-For, the others are kept and added
    /// where missing. From anyone else: as overwrite.
    Append,
    /// From a trusted peer: what is there is kept, what is missing is added. From anyone else: as overwrite.
    Preserve,
}

/// Which host the backend is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostPolicy {
    /// The client's.
    #[default]
    PassThrough,
    /// This one.
    Rewrite(Box<str>),
    /// The backend's own address.
    Upstream,
}

impl HostPolicy {
    /// The value of Host or `:authority` upstream; `backend` is the backend's own.
    pub fn host<'a>(&'a self, head: &'a RequestHead, backend: &'a str) -> &'a str {
        match self {
            Self::Rewrite(host) => host,
            Self::PassThrough if !head.authority.is_empty() => head.authority.as_str(),
            Self::PassThrough | Self::Upstream => backend,
        }
    }
}

/// What the rules need to know beside the request head.
#[derive(Clone, Copy, Debug)]
pub struct RequestRules<'a> {
    /// The other side of the client's connection, by its validated path.
    pub peer: &'a Peer,
    /// Whether the peer is one of the trusted proxies.
    pub trusted: bool,
    /// What becomes of the client's words about itself.
    pub identity: IdentityMode,
    /// Our id of this request.
    pub request_id: &'a [u8],
    /// The trace context to send if the client sent no valid one; `None` adds none.
    pub trace: Option<TraceParent>,
    /// The request came in early data (RFC 8470 §5.1).
    pub early_data: bool,
    /// Client-Cert and Client-Cert-Chain (RFC 9440), where the upstream asked for them and the client has a certificate.
    pub client_cert: Option<ClientCert<'a>>,
}

/// Values of the fields of RFC 9440.
#[derive(Clone, Copy, Debug)]
pub struct ClientCert<'a> {
    /// Client-Cert.
    pub cert: &'a [u8],
    /// Client-Cert-Chain, if there is more than the certificate.
    pub chain: Option<&'a [u8]>,
}

/// What to do with a request after the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Onward {
    /// Send it upstream.
    Forward,
    /// OPTIONS with `Max-Forwards: 0` (RFC 9110 §7.6.2): answer it here.
    AnswerHere,
}

/// How many fields [`request_upstream`] adds to most requests.
pub const ADDED_FIELDS: usize = 8;

/// Bytes of those fields' values, with a host of the usual length.
pub const ADDED_BYTES: usize = 256;

/// Turns the head a client sent into the one its backend gets. The id that goes upstream is then in X-Request-ID.
pub fn request_upstream(head: &mut RequestHead, rules: &RequestRules<'_>) -> Onward {
    if head.method == Method::Options && !count_hop(&mut head.fields) {
        return Onward::AnswerHere;
    }
    let found = strip_request(&mut head.fields, rules);
    if found.te_list {
        head.fields.set(Known::Te, b"trailers");
    }
    add_identity(head, rules);

    let fields = &mut head.fields;
    if !found.request_id {
        fields.push_known(Known::XRequestId, rules.request_id);
    }
    if !found.trace_parent || !keep_trace(fields) {
        if found.trace {
            // A state without its parent means nothing.
            fields.retain(|field, _| !matches!(field.known, Some(Known::Traceparent | Known::Tracestate)));
        }
        if let Some(trace) = rules.trace {
            fields.push_known(Known::Traceparent, &trace.text());
        }
    }
    if rules.early_data {
        fields.set(Known::EarlyData, b"1");
    }
    if let Some(client) = rules.client_cert {
        fields.set(Known::ClientCert, client.cert);
        fields.remove(Known::ClientCertChain);
        if let Some(chain) = client.chain {
            fields.push_known(Known::ClientCertChain, chain);
        }
    }
    fields.push_known(Known::Via, via(head.version));
    Onward::Forward
}

/// What [`strip_request`] left standing.
#[derive(Default)]
struct Found {
    request_id: bool,
    trace_parent: bool,
    /// Traceparent or Tracestate.
    trace: bool,
    /// TE has trailers among other things.
    te_list: bool,
}

/// Drops what is not to go upstream, in one pass.
fn strip_request(fields: &mut Fields, rules: &RequestRules<'_>) -> Found {
    if fields.contains(Known::Connection) {
        fields.remove_named_by_connection();
    }
    let overwrite = !rules.trusted || rules.identity == IdentityMode::Overwrite;
    let mut found = Found::default();
    let mut te = false;
    fields.retain(|field, value| {
        let Some(known) = field.known else {
            return rules.trusted || !is_untrusted_name(&field);
        };
        let bits = known.rules();
        if bits & rule::HOP != 0 {
            let keep = known == Known::Te && !te && has_trailers(value);
            te |= keep;
            found.te_list |= keep && value != b"trailers";
            return keep;
        }
        if bits & rule::IDENTITY != 0 {
            return rules.trusted && !(overwrite && is_family(known));
        }
        match known {
            Known::XRequestId => {
                let keep = rules.trusted && !found.request_id && is_request_id(value);
                found.request_id |= keep;
                keep
            }
            Known::Traceparent | Known::Tracestate => {
                found.trace = true;
                found.trace_parent |= known == Known::Traceparent;
                true
            }
            _ => true,
        }
    });
    found
}

/// The fields that [`IdentityMode`] speaks of.
fn is_family(known: Known) -> bool {
    matches!(
        known,
        Known::Forwarded
            | Known::XForwardedFor
            | Known::XForwardedProto
            | Known::XForwardedHost
            | Known::XForwardedPort
    )
}

/// Names outside the table that only a trusted peer may send: other members of the identity families, and names with `_`,
/// which a CGI-like backend cannot tell from the same name with `-`.
fn is_untrusted_name(field: &FieldName<'_>) -> bool {
    field.name.starts_with(b"x-forwarded-") || field.name.starts_with(b"client-cert") || field.name.contains(&b'_')
}

/// Whether only a trusted peer's word counts for a field of this name: from anyone else it is dropped or replaced.
pub fn needs_trust(field: &FieldName<'_>) -> bool {
    match field.known {
        Some(known) => known == Known::XRequestId || known.rules() & rule::IDENTITY != 0,
        None => is_untrusted_name(field),
    }
}

fn has_trailers(value: &[u8]) -> bool {
    super::list::elements(value).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

/// Whether an id a trusted peer sent is kept: short, and needs no escaping in a log or in JSON.
pub fn is_request_id(value: &[u8]) -> bool {
    (1..=128).contains(&value.len())
        && value.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"-._~+/=:@".contains(&byte))
}

/// Whether the trace context may stay: one parent, and a valid one.
fn keep_trace(fields: &Fields) -> bool {
    let mut parents = fields.get_all(Known::Traceparent);
    let first = parents.next().and_then(TraceParent::parse);
    first.is_some() && parents.next().is_none()
}

/// Writes who the client is, where [`strip_request`] left nothing or the mode appends.
fn add_identity(head: &mut RequestHead, rules: &RequestRules<'_>) {
    let RequestHead { fields, authority, scheme, .. } = head;
    // An untrusted peer's fields are gone, so appending to them and adding what is missing is overwriting.
    let append = rules.identity == IdentityMode::Append;
    let host = authority.as_str().as_bytes();
    let proto = scheme.as_str().as_bytes();

    if append || !fields.contains(Known::Forwarded) {
        // RFC 7239 §4: a value that is no token (a port, an IPv6 address) is quoted.
        let quote: &[u8] = if is_token(host) { b"" } else { b"\"" };
        let node = rules.peer.node();
        if host.is_empty() {
            fields.push_parts(Known::Forwarded, &[node, b";proto=", proto]);
        } else {
            fields.push_parts(Known::Forwarded, &[node, b";host=", quote, host, quote, b";proto=", proto]);
        }
    }
    if append || !fields.contains(Known::XForwardedFor) {
        fields.push_known(Known::XForwardedFor, rules.peer.address());
    }
    if append && rules.trusted {
        // Many backends read one line only.
        fields.join(Known::Forwarded, b", ");
        fields.join(Known::XForwardedFor, b", ");
    }
    if !fields.contains(Known::XForwardedProto) {
        fields.push_known(Known::XForwardedProto, proto);
    }
    if !host.is_empty() && !fields.contains(Known::XForwardedHost) {
        fields.push_known(Known::XForwardedHost, host);
    }
    if !fields.contains(Known::XForwardedPort) {
        // The port the client asked for, which behind an address translation is not the listener's.
        let port = authority.port().unwrap_or(scheme.default_port());
        fields.push_known(Known::XForwardedPort, decimal(port.into(), &mut [0; 20]));
    }
}

/// Counts Max-Forwards down; `false` if it was 0. One that is no number is kept and means nothing.
fn count_hop(fields: &mut Fields) -> bool {
    let Some(value) = fields.get(Known::MaxForwards) else {
        return true;
    };
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    match str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok()) {
        Some(0) if digits => false,
        Some(hops) if digits => {
            fields.set(Known::MaxForwards, decimal(hops - 1, &mut [0; 20]));
            true
        }
        _ => true,
    }
}

/// The Via element we add for a message received in this version.
pub const fn via(received: WireVersion) -> &'static [u8] {
    match received {
        WireVersion::H1_0 => b"1.0 spooky",
        WireVersion::H1_1 => b"1.1 spooky",
        WireVersion::H2 => b"2 spooky",
        WireVersion::H3 => b"3 spooky",
    }
}

/// Turns the head a backend sent (final or 1xx) into the one the client gets. `received` is the backend's version, `date`
/// the current date for a final head that has none.
pub fn response_downstream(head: &mut ResponseHead, received: WireVersion, date: &[u8]) {
    let informational = head.is_informational();
    let fields = &mut head.fields;
    if fields.contains(Known::Connection) {
        fields.remove_named_by_connection();
    }
    let mut dated = false;
    fields.retain(|field, _| match field.known {
        // The backend's alternatives are not ours; ours are added by the listener.
        Some(Known::AltSvc) => false,
        Some(known) => {
            dated |= known == Known::Date;
            known.rules() & rule::HOP == 0
        }
        None => true,
    });
    if informational {
        return;
    }
    fields.push_known(Known::Via, via(received));
    if !dated {
        fields.push_known(Known::Date, date);
    }
}

/// Drops from the trailers of a request what an untrusted client may not say; the gate dropped what no trailer may hold.
pub fn request_trailers(trailers: &mut Fields, trusted: bool) {
    if !trusted {
        trailers.retain(|field, _| field.known.is_some() || !is_untrusted_name(&field));
    }
}

#[cfg(test)]
mod tests;
