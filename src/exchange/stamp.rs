//! What the origin is told about the client: the rules of forwarding, applied once when a request is admitted.

use super::trail::{Ids, RequestId, hex};
use super::{Plan, Snapshot};
use crate::config::{ClientCertHeader, ForwardedMode, UpstreamId};
use crate::http::RequestHead;
use crate::http::forward::{self, ClientCert, IdentityMode, Onward, RequestRules};
use crate::http::peer::Peer;
use crate::http::trace::TraceParent;
use crate::identity::ShownCertificate;

/// Whom a request comes from.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// The other side of the client's connection, by its validated path.
    pub peer: &'a Peer,
    /// Whether it is one of the trusted proxies.
    pub trusted: bool,
    /// The certificate it showed.
    pub certificate: Option<&'a ShownCertificate>,
}

/// Turns the head that the client sent into the one that the origin gets.
pub fn stamp(
    head: &mut RequestHead,
    snapshot: &Snapshot,
    plan: Plan,
    upstream: UpstreamId,
    sender: Sender<'_>,
    id: &RequestId,
    ids: &mut Ids,
) -> Onward {
    let request_id: [u8; 32] = hex(id);
    let upstream = snapshot.generation.upstream(upstream);
    let rules = RequestRules {
        peer: sender.peer,
        trusted: sender.trusted,
        identity: match upstream.forwarded_headers {
            ForwardedMode::Overwrite => IdentityMode::Overwrite,
            ForwardedMode::Append => IdentityMode::Append,
            ForwardedMode::Preserve => IdentityMode::Preserve,
        },
        request_id: &request_id,
        // The request's identifier names the trace too, so that logs and traces meet.
        trace: Some(TraceParent { trace: *id, span: (ids.word() | 1).to_be_bytes(), sampled: false }),
        early_data: false,
        client_cert: sender.certificate.and_then(|shown| match upstream.client_cert_header {
            ClientCertHeader::Off => None,
            ClientCertHeader::Leaf => Some(ClientCert { cert: shown.leaf(), chain: None }),
            ClientCertHeader::Chain => Some(ClientCert { cert: shown.leaf(), chain: shown.chain() }),
        }),
    };
    let onward = forward::request_upstream(head, &rules);
    // The operator has the last word.
    snapshot.generation.route(plan.route).request_fields.apply(&mut head.fields);
    onward
}
