//! Whether a client may ask a route, and whether it may ask now: lists of networks first, then rate limits.

use super::Plan;
use crate::admit::{Asked, Exceeded, Left, LimitId, Noted, Rates};
use crate::config::Generation;
use crate::http::peer::{Peer, client_address};
use crate::http::{Reason, RequestHead};
use crate::limits::AddressKey;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

/// What was found of a request that has a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Why it is refused; `None`: it is not.
    pub refused: Option<Reason>,
    /// The rate limit that it is over; not refused, that was a dry run.
    pub exceeded: Option<Exceeded>,
    /// What its client is told is left of a rate limit.
    pub left: Option<Left>,
    /// Whose request it is, where anything is counted by that later: what is in flight, or who waits.
    pub client: Option<AddressKey>,
}

/// Judges a request by its client, which may be behind `peer` if that is a trusted proxy. `note` hears what is to be counted.
#[inline]
pub fn admit(
    generation: &Generation,
    rates: &Rates,
    plan: Plan,
    head: &RequestHead,
    (peer, trusted): (&Peer, bool),
    now: Instant,
    note: impl FnMut(LimitId, Noted),
) -> Admission {
    let route = generation.route(plan.route);
    let counted = generation.performance.max_inflight_per_address.is_some() || generation.way(plan.way).queue.is_some();
    if route.clients.is_none() && route.rate_limits.is_empty() && !counted {
        return Admission::default();
    }
    // A peer without an address is none of a list's networks.
    let peer = peer.ip().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let client = if trusted { client_address(&head.fields, peer, |address| generation.trusts(address)) } else { peer };
    if route.clients.as_ref().is_some_and(|rules| !rules.admits(client)) {
        return Admission { refused: Some(Reason::AddressDenied), ..Admission::default() };
    }
    let asked = Asked { fields: &head.fields, client, route: plan.route.0 };
    let exceeded = rates.admit(&generation.rate_limits, &route.rate_limits, asked, now, note);
    let refused = exceeded.filter(|exceeded| !exceeded.dry_run).map(|_| Reason::RateLimited);
    let left = match refused {
        Some(_) => None,
        None => rates.left(&generation.rate_limits, &route.rate_limits, asked, now),
    };
    Admission { refused, exceeded, left, client: counted.then(|| AddressKey::of(client)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_str;
    use crate::exchange::plan::{Asker, Snapshot, plan};
    use crate::http::Known;
    use std::sync::Arc;

    const TEXT: &str = r#"
        version = 1
        listen = {}
        upstream.app = { backends = [{ id = "b", address = "http://127.0.0.1:1" }], route = { path_prefix = "/" } }
        routing = { trusted_proxies = ["10.0.0.0/8"] }
        [[routes]]
        name = "inside"
        match = { path_prefix = "/inside" }
        action = { upstream = "app" }
        clients = { allow = ["192.0.2.0/24", "10.1.0.0/16"], deny = ["192.0.2.66"] }
        [[rate_limits]]
        name = "slow"
        requests = 1
        period = "10s"
        routes = ["inside"]
    "#;

    fn snapshot() -> Snapshot {
        let (generation, _) = from_str("t", TEXT).unwrap_or_else(|wrong| panic!("{wrong}"));
        Snapshot::new(Arc::new(generation))
    }

    fn ask(snapshot: &Snapshot, rates: &Rates, path: &str, peer: &str, forwarded: Option<&str>) -> Admission {
        let generation = &*snapshot.generation;
        let mut head = RequestHead::default();
        let target = crate::http::PathPair::parse(path.as_bytes()).expect("a path");
        head.target = crate::http::Target::Path(target);
        if let Some(forwarded) = forwarded {
            head.fields.push_known(Known::XForwardedFor, forwarded.as_bytes());
        }
        let peer: IpAddr = peer.parse().expect("an address");
        let trusted = generation.trusts(peer);
        let plan = plan(snapshot, &mut head, &Asker { id: &[0; 16], peer, trusted }).expect("a route");
        let now = Instant::now();
        admit(generation, rates, plan, &head, (&Peer::new(Some(peer)), trusted), now, |_, _| {})
    }

    #[test]
    fn the_client_behind_a_trusted_proxy_is_judged_and_nobody_elses_word_counts() {
        let snapshot = snapshot();
        let generation = &snapshot.generation;
        for (peer, forwarded, refused) in [
            ("192.0.2.1", None, None),
            ("::ffff:192.0.2.1", None, None),
            ("192.0.2.66", None, Some(Reason::AddressDenied)),
            ("203.0.113.1", None, Some(Reason::AddressDenied)),
            // Only trusted proxies are believed.
            ("203.0.113.1", Some("192.0.2.1"), Some(Reason::AddressDenied)),
            ("10.9.9.9", Some("192.0.2.1"), None),
            ("10.9.9.9", Some("192.0.2.1, 192.0.2.66"), Some(Reason::AddressDenied)),
            ("10.9.9.9", Some("192.0.2.66, 192.0.2.1, 10.2.2.2"), None),
            // All of the way is trusted: the leftmost is the client.
            ("10.9.9.9", Some("10.1.2.3, 10.9.9.8"), None),
            ("10.9.9.9", None, Some(Reason::AddressDenied)),
        ] {
            let rates = Rates::new(&generation.rate_limits, generation.routes.len(), Instant::now());
            let found = ask(&snapshot, &rates, "/inside/x", peer, forwarded);
            assert_eq!(found.refused, refused, "{peer} {forwarded:?}");
            assert_eq!(ask(&snapshot, &rates, "/x", peer, forwarded), Admission::default());
        }
    }

    #[test]
    fn who_is_counted_is_known_where_something_counts() {
        let more = |text: &str| {
            let (generation, _) = from_str("t", &format!("{TEXT}{text}")).unwrap_or_else(|wrong| panic!("{wrong}"));
            let snapshot = Snapshot::new(Arc::new(generation));
            let rates = Rates::new(&snapshot.generation.rate_limits, 2, Instant::now());
            ask(&snapshot, &rates, "/x", "10.9.9.9", Some("2001:db8::7")).client
        };
        let behind = Some(AddressKey::of("2001:db8::8".parse().expect("of the same network")));
        assert_eq!(more(""), None);
        assert_eq!(more("[performance]\nmax_inflight_per_address = 1"), behind);
        assert_eq!(more("[resilience.route_queue]\nmax_length = 1"), behind);
    }

    #[test]
    fn who_may_not_come_uses_nothing_and_who_comes_too_often_is_refused() {
        let snapshot = snapshot();
        let generation = &snapshot.generation;
        let rates = Rates::new(&generation.rate_limits, generation.routes.len(), Instant::now());
        let ask = |peer| ask(&snapshot, &rates, "/inside", peer, None);
        assert_eq!(ask("192.0.2.66").refused, Some(Reason::AddressDenied));
        assert_eq!(ask("192.0.2.1"), Admission::default());
        let over = ask("192.0.2.1");
        assert_eq!(over.refused, Some(Reason::RateLimited));
        assert_eq!(over.exceeded.map(|over| (over.limit, over.wait_s)), Some((LimitId(0), 10)));
    }
}
