//! From a request's head to the upstream that will answer it: method policy, denied paths, route, size of the body.

use crate::config::{EncodedSlash, Generation, UpstreamId};
use crate::http::{Reason, RequestHead};
use crate::route::{Lookup, RouteId};
use std::sync::Arc;

/// One generation as a worker holds it. Exchanges keep it by a thread-local reference; the last of them to end drops it.
pub struct Snapshot {
    /// The configuration.
    pub generation: Arc<Generation>,
}

/// What was decided for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The route that matched.
    pub route: RouteId,
    /// Who answers.
    pub upstream: UpstreamId,
}

/// Why a request is not forwarded, and what `Allow` has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused<'a> {
    /// The reason.
    pub reason: Reason,
    /// The methods that would pass, for 405.
    pub allow: Option<&'a str>,
}

impl<'a> From<Reason> for Refused<'a> {
    fn from(reason: Reason) -> Self {
        Self { reason, allow: None }
    }
}

/// Decides who answers `head`.
///
/// # Errors
/// The reason that the client is told (product statuses 403, 404, 405, 413).
pub fn plan<'a>(generation: &'a Generation, head: &RequestHead) -> Result<Plan, Refused<'a>> {
    if let Some(allow) = generation.protocol.refuses(&head.method) {
        return Err(Refused { reason: Reason::MethodRefused, allow: Some(allow) });
    }
    let path = head.target.matched();
    if let Some(path) = head.target.path() {
        if generation.routing.encoded_slash == EncodedSlash::Refuse && path.has_encoded_slash() {
            return Err(Reason::EncodedSlash.into());
        }
        if path.lies_under(&generation.protocol.denied_path_prefixes) {
            return Err(Reason::PathDenied.into());
        }
    }
    let route = match generation.table.lookup(head.host(), path, &head.method) {
        Lookup::Found(route) => route,
        Lookup::NoRoute => return Err(Reason::NoRoute.into()),
        Lookup::MethodNotAllowed { allow } => {
            return Err(Refused { reason: Reason::MethodNotAllowed, allow: Some(allow) });
        }
    };
    let chosen = generation.route(route);
    if let (Some(length), Some(most)) = (head.content_length, chosen.limits.max_request_body_bytes)
        && length > most
    {
        return Err(Reason::BodyTooLarge.into());
    }
    Ok(Plan { route, upstream: chosen.upstream })
}
