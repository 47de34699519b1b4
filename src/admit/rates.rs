//! All limits of a configuration, and whether a request comes within those of its route.
//!
//! First all of them are asked, then all are charged: a request that one limit refuses has used nothing of the others, so that
//! a client over its own limit cannot use up one that it shares. Two workers that ask at once may both be told yes and then
//! one of them no; only then has it used something of the limits before.

use super::CountBy;
use super::key::Networks;
use super::pace::Pace;
use super::table::{Charged, Table};
use crate::http::syntax::decimal;
use crate::http::{Fields, Known};
use crate::limits::RATE_LIMITS;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Position of a limit in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimitId(pub u8);

const _: () = assert!(RATE_LIMITS <= u8::MAX as usize + 1);

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// For clients, logs and metrics; unique.
    pub name: Box<str>,
    /// What requests are counted by.
    pub by: CountBy,
    /// How much of an address is one client, where addresses count.
    pub networks: Networks,
    /// How often.
    pub pace: Pace,
    /// Keys that are remembered at once; without meaning for [`CountBy::Route`].
    pub keys: u32,
    /// Requests over it are only counted.
    pub dry_run: bool,
    /// Requests in a period, in the long run.
    pub requests: u32,
    /// Every response says what is left of it, and not only a refusal that nothing is.
    pub tells: bool,
    /// What clients are told of it: an item of RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-11 §3).
    pub policy: Box<str>,
}

impl RateLimit {
    /// The policy as clients are told of it: what may come in the long run, without the burst. Windows are whole seconds
    /// (draft-ietf-httpapi-ratelimit-headers-11 §3.1.3), so a part of one counts as one. A name needs no escaping.
    #[must_use]
    pub fn policy(name: &str, requests: u32, period: Duration) -> Box<str> {
        let window = period.as_millis().div_ceil(1_000);
        format!("\"{name}\";q={requests};w={window}").into()
    }

    /// Tells a client of the policy and what is left of it, as draft-ietf-httpapi-ratelimit-headers-11 §3 and §4 have it:
    /// strings as names, `q` requests in `w` seconds, `r` left for the next `t` seconds.
    pub fn tell(&self, left: Left, fields: &mut Fields) {
        let (mut some, mut other) = ([0; 20], [0; 20]);
        let (requests, seconds) = (decimal(left.requests.into(), &mut some), decimal(left.seconds.into(), &mut other));
        fields.push_known(Known::RateLimitPolicy, self.policy.as_bytes());
        let name = self.name.as_bytes();
        fields.push_parts(Known::RateLimit, &[b"\"", name, b"\";r=", requests, b";t=", seconds]);
    }

    /// Entries of its table; `routes` are those of the configuration.
    #[must_use]
    pub fn entries(&self, routes: usize) -> u64 {
        Table::entries(self.keys_of(routes) as u64)
    }

    fn keys_of(&self, routes: usize) -> usize {
        match self.by {
            // A bucket for each, so that they are told apart by their numbers alone.
            CountBy::Route => routes.saturating_mul(8),
            _ => self.keys as usize,
        }
    }
}

/// What is counted of a limit beside the requests that were within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// A request was over it, and is refused.
    Refused,
    /// A request was over it, and would be refused but for the dry run.
    WouldRefuse,
    /// A key was forgotten for another one.
    Evicted,
}

/// What is looked at of a request.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its fields as the client sent them.
    pub fields: &'a Fields,
    /// Its client.
    pub client: IpAddr,
    /// Its route's number.
    pub route: u32,
}

/// A request was over a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// The limit.
    pub limit: LimitId,
    /// Whole seconds until a request would be within it, at least 1.
    pub wait_s: u32,
    /// It is let through.
    pub dry_run: bool,
}

/// What a client is told of a limit: at least so many requests may come within so many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// The limit.
    pub limit: LimitId,
    /// Requests that may come, at most as many as in a period: a burst is no promise.
    pub requests: u32,
    /// Whole seconds until the allowance is whole again, or where nothing is left, until one request may come; at least 1.
    pub seconds: u32,
}

impl From<Exceeded> for Left {
    fn from(exceeded: Exceeded) -> Self {
        Self { limit: exceeded.limit, requests: 0, seconds: exceeded.wait_s }
    }
}

/// What was used of every limit, shared by all workers.
#[derive(Debug)]
pub struct Rates {
    /// Moments are counted from here.
    start: Instant,
    /// Keyed by the system's randomness with each start: clients choose what is hashed.
    hasher: RandomState,
    /// By [`LimitId`].
    tables: Box<[Table]>,
}

impl Rates {
    /// Nothing was used yet.
    #[must_use]
    pub fn new(limits: &[RateLimit], routes: usize, start: Instant) -> Self {
        let tables = limits.iter().map(|limit| Table::new(limit.keys_of(routes))).collect();
        Self { start, hasher: RandomState::new(), tables }
    }

    /// Whether a request is within those limits that apply to its route (`of_route`), out of all there are. If it is, it is
    /// counted in each. The first limit that refuses it is told, or else the first that would.
    #[inline]
    pub fn admit(
        &self,
        limits: &[RateLimit],
        of_route: &[LimitId],
        asked: Asked<'_>,
        now: Instant,
        mut note: impl FnMut(LimitId, Noted),
    ) -> Option<Exceeded> {
        let now = Pace::moment(now.saturating_duration_since(self.start));
        let mut hashes = [0; RATE_LIMITS];
        // Those in a dry run that the request is over.
        let mut over = [false; RATE_LIMITS];
        let mut exceeded = None;
        for (at, id) in of_route.iter().enumerate() {
            let (limit, table) = (&limits[usize::from(id.0)], &self.tables[usize::from(id.0)]);
            hashes[at] = self.hash(limit, asked);
            if let Some(wait) = table.waits(hashes[at], limit.pace, now) {
                let told = Exceeded { limit: *id, wait_s: Pace::seconds(wait), dry_run: limit.dry_run };
                if !limit.dry_run {
                    note(*id, Noted::Refused);
                    return Some(told);
                }
                over[at] = true;
                exceeded.get_or_insert(told);
            }
        }
        for (at, id) in of_route.iter().enumerate() {
            let (limit, table) = (&limits[usize::from(id.0)], &self.tables[usize::from(id.0)]);
            let charged = if over[at] { Charged::Over(0) } else { table.charge(hashes[at], limit.pace, now) };
            match charged {
                Charged::Within { evicted: false } => {}
                Charged::Within { evicted: true } => note(*id, Noted::Evicted),
                Charged::Over(wait) => {
                    let told = Exceeded { limit: *id, wait_s: Pace::seconds(wait), dry_run: limit.dry_run };
                    if !limit.dry_run {
                        note(*id, Noted::Refused);
                        return Some(told);
                    }
                    note(*id, Noted::WouldRefuse);
                    exceeded.get_or_insert(told);
                }
            }
        }
        exceeded
    }

    /// What is left to a client of that limit of its route, among those that tell it, of which the least is left. Charges
    /// nothing.
    #[must_use]
    pub fn left(&self, limits: &[RateLimit], of_route: &[LimitId], asked: Asked<'_>, now: Instant) -> Option<Left> {
        let now = Pace::moment(now.saturating_duration_since(self.start));
        let telling = of_route.iter().filter(|id| limits[usize::from(id.0)].tells);
        let left = telling.map(|id| {
            let (limit, table) = (&limits[usize::from(id.0)], &self.tables[usize::from(id.0)]);
            let used = table.used(self.hash(limit, asked), limit.pace, now);
            Left { limit: *id, requests: limit.pace.room(used).min(limit.requests), seconds: Pace::seconds(used) }
        });
        left.min_by_key(|left| (left.requests, std::cmp::Reverse(left.seconds)))
    }

    #[inline]
    fn hash(&self, limit: &RateLimit, asked: Asked<'_>) -> u64 {
        if limit.by == CountBy::Route {
            // Its own bucket: nothing to hide from clients, and nothing to confuse.
            return u64::from(asked.route);
        }
        let mut hash = self.hasher.build_hasher();
        limit.by.write(asked.fields, asked.client, limit.networks, &mut hash);
        hash.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn limit(by: CountBy, requests: u32, dry_run: bool) -> RateLimit {
        let period = Duration::from_secs(10);
        RateLimit {
            name: "it".into(),
            by,
            networks: Networks { v4: 32, v6: 64 },
            pace: Pace::new(requests, period, requests),
            keys: 1_024,
            dry_run,
            requests,
            tells: false,
            policy: RateLimit::policy("it", requests, period),
        }
    }

    struct World {
        limits: Vec<RateLimit>,
        rates: Rates,
        now: Instant,
        noted: Vec<(u8, Noted)>,
    }

    impl World {
        fn new(limits: Vec<RateLimit>) -> Self {
            let now = Instant::now();
            Self { rates: Rates::new(&limits, 3, now), limits, now, noted: Vec::new() }
        }

        fn ask(&mut self, client: IpAddr, route: u32) -> Option<Exceeded> {
            let ids: Vec<_> = (0..self.limits.len() as u8).map(LimitId).collect();
            let asked = Asked { fields: &Fields::new(), client, route };
            let noted = &mut self.noted;
            self.rates.admit(&self.limits, &ids, asked, self.now, |id, what| noted.push((id.0, what)))
        }
    }

    #[test]
    fn over_the_rate_a_request_is_refused_and_told_when_to_come_back() {
        let mut world = World::new(vec![limit(CountBy::Client, 2, false)]);
        assert_eq!((world.ask(CLIENT, 0), world.ask(CLIENT, 1)), (None, None));
        let over = Some(Exceeded { limit: LimitId(0), wait_s: 5, dry_run: false });
        assert_eq!(world.ask(CLIENT, 2), over);
        assert_eq!(world.ask([192, 0, 2, 2].into(), 0), None);
        world.now += Duration::from_millis(4_100);
        assert_eq!(world.ask(CLIENT, 0).map(|over| over.wait_s), Some(1));
        world.now += Duration::from_millis(901);
        assert_eq!(world.ask(CLIENT, 0), None);
        assert_eq!(world.noted, [(0, Noted::Refused); 2]);
    }

    #[test]
    fn routes_are_counted_apart_and_exactly() {
        let mut world = World::new(vec![limit(CountBy::Route, 1, false)]);
        for route in 0..3 {
            assert_eq!(world.ask(CLIENT, route), None);
            assert!(world.ask([203, 0, 113, 9].into(), route).is_some());
        }
        assert!(world.noted.iter().all(|(_, what)| *what == Noted::Refused));
        assert_eq!(world.limits[0].entries(3), 4 * 8);
    }

    #[test]
    fn a_dry_run_refuses_nothing_and_counts_what_it_would() {
        let mut world = World::new(vec![limit(CountBy::Client, 1, true), limit(CountBy::Client, 3, false)]);
        assert_eq!(world.ask(CLIENT, 0), None);
        let would = Some(Exceeded { limit: LimitId(0), wait_s: 10, dry_run: true });
        assert_eq!((world.ask(CLIENT, 0), world.ask(CLIENT, 0)), (would, would));
        // The other limit refuses now, and is the one that is told; nothing is noted of the first.
        assert_eq!(world.ask(CLIENT, 0).map(|over| (over.limit.0, over.dry_run)), Some((1, false)));
        assert_eq!(world.noted, [(0, Noted::WouldRefuse), (0, Noted::WouldRefuse), (1, Noted::Refused)]);
        // What would have been refused has used nothing, as if it had been.
        world.now += Duration::from_secs(10);
        assert_eq!(world.ask(CLIENT, 0), None);
    }

    #[test]
    fn who_is_over_a_limit_of_its_own_uses_nothing_of_a_shared_one() {
        for order in [[0, 1], [1, 0]] {
            let both = [limit(CountBy::Route, 3, false), limit(CountBy::Client, 1, false)];
            let mut world = World::new(order.map(|at: usize| both[at].clone()).into());
            assert_eq!(world.ask(CLIENT, 0), None);
            for _ in 0..100 {
                assert!(world.ask(CLIENT, 0).is_some());
            }
            assert_eq!(world.ask([192, 0, 2, 2].into(), 0), None);
            assert_eq!(world.ask([192, 0, 2, 3].into(), 0), None);
            let shared = world.ask([192, 0, 2, 4].into(), 0).expect("the route's limit is used up");
            assert_eq!(world.limits[usize::from(shared.limit.0)].by, CountBy::Route);
        }
    }

    /// A million clients, each its own reference: who is within its rate is never refused by more than the table forgets, and
    /// the table has one size.
    #[test]
    fn a_million_addresses_cost_the_memory_of_a_few() {
        let mut world = World::new(vec![limit(CountBy::Client, 1, false)]);
        let mut refused = 0;
        for bits in 0..1_000_000u32 {
            refused += u32::from(world.ask(IpAddr::V4(bits.into()), 0).is_some());
        }
        let evicted = world.noted.iter().filter(|(_, what)| *what == Noted::Evicted).count();
        assert!(evicted > 1_000_000 - 2 * 1_024, "{evicted}");
        // Each came once. Only who has another one's bits, 8 of 65,536, is taken for it: 122 expected.
        assert!(refused < 250, "{refused}");
    }

    #[test]
    fn clients_are_told_in_structured_fields() {
        assert_eq!(&*RateLimit::policy("per-client", 100, Duration::from_secs(60)), "\"per-client\";q=100;w=60");
        assert_eq!(&*RateLimit::policy("x", 5, Duration::from_millis(1_500)), "\"x\";q=5;w=2");
        let exceeded = Exceeded { limit: LimitId(0), wait_s: 7, dry_run: false };
        let left = Left { limit: LimitId(0), requests: 2, seconds: 4 };
        for (left, told) in [(exceeded.into(), "\"it\";r=0;t=7"), (left, "\"it\";r=2;t=4")] {
            let mut fields = Fields::new();
            limit(CountBy::Client, 3, false).tell(left, &mut fields);
            assert_eq!(fields.get(Known::RateLimitPolicy), Some(&b"\"it\";q=3;w=10"[..]));
            assert_eq!(fields.get(Known::RateLimit), Some(told.as_bytes()));
        }
    }

    #[test]
    fn what_is_left_is_of_the_limit_that_tells_and_has_the_least() {
        let telling = |by, requests| RateLimit { tells: true, ..limit(by, requests, false) };
        let mut world =
            World::new(vec![limit(CountBy::Client, 4, false), telling(CountBy::Client, 5), telling(CountBy::Route, 7)]);
        let ids = [LimitId(0), LimitId(1), LimitId(2)];
        let left = |world: &World, client| {
            let asked = Asked { fields: &Fields::new(), client, route: 0 };
            world
                .rates
                .left(&world.limits, &ids, asked, world.now)
                .map(|left| (left.limit.0, left.requests, left.seconds))
        };
        // Nothing was used; a whole allowance is told as one second.
        assert_eq!(left(&world, CLIENT), Some((1, 5, 1)));
        for (asked, seconds) in [(1, 2), (2, 4), (3, 6)] {
            assert_eq!(world.ask(CLIENT, 0), None);
            assert_eq!(left(&world, CLIENT), Some((1, 5 - asked, seconds)));
        }
        // The route has four left, another client its five.
        let other = IpAddr::from([192, 0, 2, 2]);
        assert_eq!(left(&world, other).map(|(limit, requests, _)| (limit, requests)), Some((2, 4)));
        world.now += Duration::from_secs(4);
        assert_eq!(left(&world, CLIENT), Some((1, 4, 2)));
        // Looking uses nothing, and a burst is not told.
        assert_eq!(left(&world, CLIENT), Some((1, 4, 2)));
        let bursting = RateLimit { pace: Pace::new(2, Duration::from_secs(10), 50), ..telling(CountBy::Client, 2) };
        let world = World::new(vec![bursting]);
        let asked = Asked { fields: &Fields::new(), client: CLIENT, route: 0 };
        let left = world.rates.left(&world.limits, &[LimitId(0)], asked, world.now);
        assert_eq!(left, Some(Left { limit: LimitId(0), requests: 2, seconds: 1 }));
        let silent = World::new(vec![limit(CountBy::Client, 4, false)]);
        assert_eq!(silent.rates.left(&silent.limits, &[LimitId(0)], asked, silent.now), None);
    }
}
