//! What the origin is told about the client: the rules of forwarding, applied once when a request is admitted.

use super::trail::{Ids, RequestId, hex};
use super::{Plan, Snapshot};
use crate::config::ForwardedMode;
use crate::http::RequestHead;
use crate::http::forward::{self, IdentityMode, Onward, RequestRules};
use crate::http::peer::Peer;
use crate::http::trace::TraceParent;

/// Turns the head that the client sent into the one that the origin gets.
pub fn stamp(
    head: &mut RequestHead,
    snapshot: &Snapshot,
    plan: Plan,
    peer: &Peer,
    trusted: bool,
    id: &RequestId,
    ids: &mut Ids,
) -> Onward {
    let request_id: [u8; 32] = hex(id);
    let rules = RequestRules {
        peer,
        trusted,
        identity: match snapshot.generation.upstream(plan.upstream).forwarded_headers {
            ForwardedMode::Overwrite => IdentityMode::Overwrite,
            ForwardedMode::Append => IdentityMode::Append,
            ForwardedMode::Preserve => IdentityMode::Preserve,
        },
        request_id: &request_id,
        // The request's identifier names the trace too, so that logs and traces meet.
        trace: Some(TraceParent { trace: *id, span: (ids.word() | 1).to_be_bytes(), sampled: false }),
        early_data: false,
        client_cert: None,
    };
    forward::request_upstream(head, &rules)
}
