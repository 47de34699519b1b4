//! What becomes of a request on each way of its route: who gets it, with what changes, within what times and limits.

use super::decide::{Subject, World};
use super::policies::policies;
use super::report::{Balancing, Changes, Score, Setting, Way};
use super::words;
use crate::config::{self, Action, Backend, Generation, HashKey, HostPolicy, UpstreamId, WayId};
use crate::exchange::Snapshot;
use crate::exchange::affinity::{self, affinity};
use crate::exchange::plan::Plan;
use crate::exchange::stamp::{self, stamp};
use crate::exchange::trail::Ids;
use crate::http::forward::Onward;
use crate::http::{Fields, PathPair, RequestHead};
use crate::route::{self, Point, RouteId, Shares};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Backends whose order is told where a hash decides.
const RANKS: u32 = 8;

/// Where a request stands on the line that the shares of a split divide; `None`: its id decides.
fn kept(
    generation: &Generation,
    shares: &Shares,
    (original, client): (&RequestHead, IpAddr),
    trusted: bool,
) -> Option<Point> {
    let request = route::Request {
        host: original.host(),
        path: original.target.matched(),
        method: &original.method,
        query: original.target.path().and_then(PathPair::query),
        fields: &original.fields,
        trusted,
    };
    shares.kept(&request, || client, &mut generation.table.lens())
}

/// The upstream that a request goes to; `None`: chance decides, or the route has the answer itself.
pub(super) fn upstream(
    generation: &Generation,
    id: RouteId,
    (original, client): (&RequestHead, IpAddr),
    trusted: bool,
) -> Option<String> {
    let route = generation.route(id);
    let Action::Forward { shares, .. } = &route.action else { return None };
    let at = match route.ways.len() {
        1 => 0,
        _ => shares.at(kept(generation, shares, (original, client), trusted)?) as u32,
    };
    generation.way(WayId(route.ways.start + at)).upstream.map(|id| generation.upstream(id).name.to_string())
}

/// Whether a body is too large for some way of a route.
pub(super) fn some_refuse(generation: &Generation, id: RouteId, head: &RequestHead) -> bool {
    let mut ways = generation.route(id).ways.clone().map(|at| generation.way(WayId(at)));
    let most = |way: &config::Way| way.upstream.and(way.limits.max_request_body_bytes);
    ways.any(|way| head.content_length > most(way).or(head.content_length))
}

/// Every way of a route that forwards, and whether the rules of forwarding answer the request here.
pub(super) fn ways(
    world: &World<'_>,
    planned: Plan,
    shares: &Shares,
    (original, client): (&RequestHead, IpAddr),
    subject: &Subject<'_>,
) -> (Vec<Way>, Onward) {
    let generation = &*world.generation;
    let ids = generation.route(planned.route).ways.clone();
    let kept = kept(generation, shares, (original, client), subject.trusted);
    let only = ids.len() == 1;
    let (mut ways, mut onward) = (Vec::new(), Onward::Forward);
    for (at, id) in ids.map(WayId).enumerate() {
        let chosen = if only { Some(true) } else { kept.map(|point| shares.at(point) == at) };
        let by = match (shares.sticky(), kept) {
            _ if only => "the route's only upstream".to_owned(),
            (Some(sticky), Some(point)) => {
                format!("by {sticky}: it lies at {:.4} of the line that the shares divide", point.fraction())
            }
            (Some(sticky), None) => format!("by the request's id, because it has no {sticky}"),
            (None, _) => "by the request's id".to_owned(),
        };
        let Some(upstream) = generation.way(id).upstream else { continue };
        let mut head = subject.head.clone();
        let (backend, scores, balancing) = balance(world, upstream, subject);
        let host = match (&generation.upstream(upstream).host_policy, backend) {
            (HostPolicy::Upstream, None) => None,
            (policy, backend) => Some(policy.host(&head, backend.map_or("", |one| &one.authority)).to_owned()),
        };
        onward = stamped(world, Plan { way: id, upstream: Some(upstream), ..planned }, upstream, &mut head, subject);
        ways.push(Way {
            upstream: Some(generation.upstream(upstream).name.to_string()),
            share: shares.share(at),
            chosen,
            by,
            forwarded_path: head.target.path().map(|path| path.forwarded().to_owned()),
            host,
            balancing: Some(balancing),
            backend: backend.map(|backend| backend.id.to_string()),
            backend_scores: scores,
            settings: settings(world, id),
            policies: policies(generation, id, original),
            request_fields: changes(&subject.head.fields, &head.fields),
        });
    }
    (ways, onward)
}

/// Applies the rules of forwarding, as for a client that showed no certificate.
fn stamped(
    world: &World<'_>,
    plan: Plan,
    upstream: UpstreamId,
    head: &mut RequestHead,
    subject: &Subject<'_>,
) -> Onward {
    let snapshot = Snapshot::new(Arc::clone(&world.generation));
    let sender = stamp::Sender { peer: subject.peer, trusted: subject.trusted, certificate: None };
    stamp(head, &snapshot, plan, upstream, sender, &[0; 16], &mut Ids::new([0; 16]))
}

/// Who gets the request of an upstream's backends, with nothing in flight and all of them well; `None`: that is not certain.
fn balance<'a>(
    world: &'a World<'_>,
    id: UpstreamId,
    subject: &Subject<'_>,
) -> (Option<&'a Backend>, Vec<Score>, Balancing) {
    let generation = &*world.generation;
    let backends = generation.backends_of(id);
    let balancing = &generation.upstream(id).balancing;
    let (key, table) = match balancing {
        config::Balancing::ConsistentHash(key, table) => (Some(key), Some(table)),
        config::Balancing::StickyCid(table) => (None, Some(table)),
        _ => (None, None),
    };
    let (hash, detail) = hashed(world, balancing, key, subject);
    let mut ranks = vec![None; backends.len()];
    if let (Some(hash), Some(table)) = (hash, table) {
        for rank in 1..=RANKS {
            let Some(at) = table.pick(hash, |at| ranks[at].is_some()) else { break };
            ranks[at] = Some(rank);
        }
    }
    let picked = match backends.len() {
        1 => Some(0),
        _ => ranks.iter().position(|rank| *rank == Some(1)),
    };
    let total: f64 = backends.iter().map(|backend| f64::from(backend.weight)).sum();
    let score = |(at, backend): (usize, &Backend)| Score {
        backend: backend.id.to_string(),
        address: backend.url(),
        weight: backend.weight,
        health_check: backend.health_check.as_ref().map(|check| {
            let (interval, timeout) = (words::duration(check.policy.interval), words::duration(check.policy.timeout));
            format!("{} every {interval}, within {timeout}", check.target.forwarded())
        }),
        share: match picked {
            Some(picked) => f64::from(u8::from(picked == at)),
            None => f64::from(backend.weight) / total,
        },
        rank: ranks[at],
        picked: picked == Some(at),
    };
    let scores = backends.iter().enumerate().map(score).collect();
    let told = Balancing { kind: balancing.as_str(), key: key.map(ToString::to_string), detail };
    (picked.map(|at| &backends[at]), scores, told)
}

/// The number that a hash looks up, if it is known, and how backends are picked in words.
fn hashed(
    world: &World<'_>,
    balancing: &config::Balancing,
    key: Option<&HashKey>,
    subject: &Subject<'_>,
) -> (Option<u64>, String) {
    let idle = |how: &str| (None, format!("{how}; all at rest, it is by weight"));
    match balancing {
        config::Balancing::RoundRobin => return (None, "in turn, by weight; each worker counts its own".to_owned()),
        config::Balancing::Random => return (None, "by lot and weight".to_owned()),
        config::Balancing::LeastConnections => return idle("who has the least in flight for its weight"),
        config::Balancing::TwoChoices => return idle("of two drawn by weight, who has less in flight"),
        config::Balancing::LatencyAware => return idle("of two drawn by weight, who is faster and has less in flight"),
        config::Balancing::StickyCid(_) => {
            return (None, "by the client's connection: each new one is placed by weight and stays".to_owned());
        }
        config::Balancing::ConsistentHash(..) => {}
    }
    let key = key.map_or_else(String::new, ToString::to_string);
    if key == HashKey::Cid.to_string() {
        return (None, "by the client's connection: each new one is placed by weight and stays".to_owned());
    }
    let hash = match &world.hash {
        Ok(hash) => hash,
        Err(why) => return (None, format!("by {key}, but {why}: which backend that is cannot be told")),
    };
    let asker = affinity::Asker { peer: subject.peer, connection: [0; 16] };
    match affinity(&world.generation, balancing, &subject.head, asker, hash) {
        Some(number) => (Some(number), format!("by {key}, while the backend's load permits it")),
        None => (None, format!("the request has no {key}, so by lot and weight")),
    }
}

fn settings(world: &World<'_>, way: WayId) -> Vec<Setting> {
    let told = world.notes.settings(way).iter().map(|setting| Setting {
        key: setting.key,
        value: setting.value.clone(),
        from: setting.from.as_str(),
        at: world.notes.setting(setting),
    });
    told.collect()
}

/// What differs between two sections, by name.
fn changes(before: &Fields, after: &Fields) -> Changes {
    let (before, after) = (values(before), values(after));
    let mut changes = Changes::default();
    for (name, was) in &before {
        match after.get(name) {
            None => changes.removed.push(name.clone()),
            Some(is) if is != was => changes.changed.push(name.clone()),
            Some(_) => {}
        }
    }
    changes.added = after.into_keys().filter(|name| !before.contains_key(name)).collect();
    changes
}

fn values(fields: &Fields) -> BTreeMap<String, Vec<&[u8]>> {
    let mut all: BTreeMap<String, Vec<&[u8]>> = BTreeMap::new();
    for (name, value) in fields.iter() {
        all.entry(words::field_name(&name)).or_default().push(value);
    }
    all
}
