//! From a request's head to who will answer it: method policy, denied paths, route, way, path for the upstream, size of the body.

use super::trail::RequestId;
use crate::config::{Action, EncodedSlash, Generation, UpstreamId, WayId};
use crate::http::{PathPair, Reason, RequestHead, Target, peer};
use crate::route::{self, Lens, Lookup, RouteId};
use std::borrow::Cow;
use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

/// One generation as a worker holds it. Exchanges keep it by a thread-local reference; the last of them to end drops it.
pub struct Snapshot {
    /// The configuration.
    pub generation: Arc<Generation>,
    /// What this thread needs to look routes up.
    lens: RefCell<Lens>,
}

impl Snapshot {
    /// A generation for one thread.
    pub fn new(generation: Arc<Generation>) -> Self {
        let lens = RefCell::new(generation.table.lens());
        Self { generation, lens }
    }
}

/// What was decided for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The route that matched.
    pub route: RouteId,
    /// The way it takes.
    pub way: WayId,
    /// Who answers; `None`: the route itself.
    pub upstream: Option<UpstreamId>,
}

/// Whom a request comes from, as far as routes ask.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// What names the request.
    pub id: &'a RequestId,
    /// The other side of the client's connection, by its validated path.
    pub peer: IpAddr,
    /// Whether it is one of the trusted proxies.
    pub trusted: bool,
}

/// Why a request is not forwarded, and what `Allow` has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused<'a> {
    /// The reason.
    pub reason: Reason,
    /// The methods that would pass, for 405.
    pub allow: Option<Cow<'a, str>>,
}

impl<'a> From<Reason> for Refused<'a> {
    fn from(reason: Reason) -> Self {
        Self { reason, allow: None }
    }
}

/// Decides who answers `head`, and gives it the path that its upstream is asked for.
///
/// # Errors
/// The reason that the client is told (product statuses 400, 403, 404, 405, 413).
pub fn plan<'a>(snapshot: &'a Snapshot, head: &mut RequestHead, asker: &Asker<'_>) -> Result<Plan, Refused<'a>> {
    let generation = &*snapshot.generation;
    if let Some(allow) = generation.protocol.refuses(&head.method) {
        return Err(Refused { reason: Reason::MethodRefused, allow: Some(allow.into()) });
    }
    if let Some(path) = head.target.path() {
        if generation.routing.encoded_slash == EncodedSlash::Refuse && path.has_encoded_slash() {
            return Err(Reason::EncodedSlash.into());
        }
        judge(generation, path)?;
    }
    let (route, way) = find(snapshot, head, asker)?;
    let upstream = generation.way(way).upstream;
    let limits = &generation.way(way).limits;
    if let (Some(_), Some(length), Some(most)) = (upstream, head.content_length, limits.max_request_body_bytes)
        && length > most
    {
        return Err(Reason::BodyTooLarge.into());
    }
    if let (Action::Forward { rewrite: Some(rewrite), .. }, Target::Path(path)) =
        (&generation.route(route).action, &mut head.target)
    {
        path.rewrite_to(&rewrite.base, rewrite.behind.as_deref()).map_err(Reason::from)?;
        judge(generation, path)?;
    }
    Ok(Plan { route, way, upstream })
}

/// The policy on paths, for the one that was asked for and for the one that goes upstream.
fn judge(generation: &Generation, path: &PathPair) -> Result<(), Reason> {
    match path.lies_under(&generation.protocol.denied_path_prefixes) {
        true => Err(Reason::PathDenied),
        false => Ok(()),
    }
}

/// The route of a request, and the way it takes there.
fn find<'a>(snapshot: &'a Snapshot, head: &RequestHead, asker: &Asker<'_>) -> Result<(RouteId, WayId), Refused<'a>> {
    let generation = &*snapshot.generation;
    let request = route::Request {
        host: head.host(),
        path: head.target.matched(),
        method: &head.method,
        query: head.target.path().and_then(PathPair::query),
        fields: &head.fields,
        trusted: asker.trusted,
    };
    let mut lens = snapshot.lens.borrow_mut();
    let route = match generation.table.lookup(&request, &mut lens) {
        Lookup::Found(route) => route,
        Lookup::NoRoute => return Err(Reason::NoRoute.into()),
        Lookup::MethodNotAllowed => {
            let allow = generation.table.allow(&request, &mut lens);
            return Err(Refused { reason: Reason::MethodNotAllowed, allow: Some(allow.into()) });
        }
    };
    let chosen = generation.route(route);
    let at = match &chosen.action {
        Action::Forward { shares, .. } => {
            let client = || peer::client_address(&head.fields, asker.peer, |ip| generation.trusts(ip));
            shares.pick(&request, asker.id, client, &mut lens)
        }
        Action::Redirect(_) | Action::Respond(_) => 0,
    };
    Ok((route, WayId(chosen.ways.start + at as u32)))
}
