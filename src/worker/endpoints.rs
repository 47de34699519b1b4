//! Where each backend is: what control last said of the names, and which address a new connection tries first.
//!
//! Owns the worker's copy of the resolved addresses, and what it has seen of them itself: who did not accept lately, and
//! which family did. Opens no socket; read [`super::dial`] for that.

use crate::config::{BackendId, Generation, Location};
use crate::http::Reason;
use crate::limits;
use spooky_uring::StreamAddress;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

/// What control knows of every backend with a name, whole: who missed one is right again with the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Backends that have a name.
    pub backends: Vec<(BackendId, Resolved)>,
}

/// What is known of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// The addresses of the last good answer, at least one and at most [`limits::ENDPOINTS`].
    At(Arc<[IpAddr]>),
    /// There never was a good answer; requests are refused with this.
    Not(Reason),
}

/// Where one backend is, as a worker knows it.
enum Place {
    /// For ever.
    Fixed(StreamAddress),
    /// At any of these.
    Named(Named),
}

struct Named {
    port: u16,
    /// Empty before the first good answer.
    endpoints: Vec<Endpoint>,
    /// Why there are none.
    reason: Reason,
    /// Connections begun: turns the order.
    turn: usize,
    /// IPv4 accepted where IPv6 did not: it goes first until the addresses change or it fails itself.
    prefers_v4: bool,
}

struct Endpoint {
    address: SocketAddr,
    /// When it last did not accept, or was slower than one that was tried after it.
    failed: Option<Instant>,
}

/// What a new connection to a backend tries.
#[derive(Debug, PartialEq, Eq)]
pub enum Choice<'a> {
    /// This one.
    One(&'a StreamAddress),
    /// These, in this order; at least one, at most [`limits::DIAL_ADDRESSES`].
    Race(Vec<SocketAddr>),
    /// None is known.
    Nowhere(Reason),
}

/// Every backend's place.
pub struct Places {
    places: Vec<Place>,
}

impl Places {
    /// Before control has said anything: names are nowhere.
    pub fn new(generation: &Generation) -> Self {
        let places = generation.backends.iter().map(|backend| match &backend.location {
            Location::Fixed(address) => Place::Fixed(address.clone()),
            Location::Named { port, .. } => Place::Named(Named {
                port: *port,
                endpoints: Vec::new(),
                reason: Reason::DnsTimeout,
                turn: 0,
                prefers_v4: false,
            }),
        });
        Self { places: places.collect() }
    }

    /// Takes over what control says.
    pub fn update(&mut self, endpoints: &Endpoints) {
        for (backend, resolved) in &endpoints.backends {
            if let Some(Place::Named(named)) = self.places.get_mut(backend.0 as usize) {
                match resolved {
                    Resolved::At(addresses) => named.update(addresses),
                    Resolved::Not(reason) => named.reason = *reason,
                }
            }
        }
    }

    /// Why a backend is nowhere; `None`: it is somewhere.
    #[inline]
    pub fn missing(&self, backend: BackendId) -> Option<Reason> {
        match &self.places[backend.0 as usize] {
            Place::Named(named) if named.endpoints.is_empty() => Some(named.reason),
            _ => None,
        }
    }

    /// Whether connections to `address` may go on being used for `backend`.
    pub fn has(&self, backend: BackendId, address: SocketAddr) -> bool {
        match &self.places[backend.0 as usize] {
            Place::Fixed(_) => true,
            Place::Named(named) => named.endpoints.iter().any(|endpoint| endpoint.address == address),
        }
    }

    /// What the next connection to a backend tries.
    pub fn choose(&mut self, backend: BackendId, now: Instant) -> Choice<'_> {
        match &mut self.places[backend.0 as usize] {
            Place::Fixed(address) => Choice::One(address),
            Place::Named(named) if named.endpoints.is_empty() => Choice::Nowhere(named.reason),
            Place::Named(named) => Choice::Race(named.order(now)),
        }
    }

    /// An address accepted.
    pub fn note_accepted(&mut self, backend: BackendId, address: SocketAddr) {
        if let Some((named, at)) = self.find(backend, address) {
            named.endpoints[at].failed = None;
            named.prefers_v4 = address.is_ipv4();
        }
    }

    /// An address refused, or did not accept although it had its time.
    pub fn note_failed(&mut self, backend: BackendId, address: SocketAddr, now: Instant) {
        if let Some((named, at)) = self.find(backend, address) {
            named.endpoints[at].failed = Some(now);
            if address.is_ipv4() {
                named.prefers_v4 = false;
            }
        }
    }

    fn find(&mut self, backend: BackendId, address: SocketAddr) -> Option<(&mut Named, usize)> {
        match &mut self.places[backend.0 as usize] {
            Place::Fixed(_) => None,
            Place::Named(named) => {
                let at = named.endpoints.iter().position(|endpoint| endpoint.address == address)?;
                Some((named, at))
            }
        }
    }
}

impl Named {
    /// What stays keeps what is known of it.
    fn update(&mut self, addresses: &[IpAddr]) {
        let before = std::mem::take(&mut self.endpoints);
        self.endpoints = addresses
            .iter()
            .take(limits::ENDPOINTS)
            .map(|ip| {
                let address = SocketAddr::new(*ip, self.port);
                let failed =
                    before.iter().find(|endpoint| endpoint.address == address).and_then(|endpoint| endpoint.failed);
                Endpoint { address, failed }
            })
            .collect();
        self.prefers_v4 = false;
    }

    /// Families in turn, IPv6 first (RFC 8305 §4), each begun one further with each connection; whoever did not accept
    /// lately stands behind the others.
    fn order(&mut self, now: Instant) -> Vec<SocketAddr> {
        let turn = self.turn;
        self.turn = turn.wrapping_add(1);
        let lately = |endpoint: &Endpoint| endpoint.failed.is_some_and(|at| now < at + limits::DIAL_PENALTY);
        let family = |v4: bool, late: bool| {
            let fitting = move |endpoint: &&Endpoint| endpoint.address.is_ipv4() == v4 && lately(endpoint) == late;
            let count = self.endpoints.iter().filter(fitting).count().max(1);
            let ring = self.endpoints.iter().filter(fitting).cycle();
            ring.skip(turn % count).take(count).map(|endpoint| endpoint.address)
        };
        let mut order = Vec::with_capacity(self.endpoints.len().min(limits::DIAL_ADDRESSES));
        for late in [false, true] {
            let (mut first, mut second) = (family(self.prefers_v4, late), family(!self.prefers_v4, late));
            loop {
                let pair = (first.next(), second.next());
                order.extend(pair.0.into_iter().chain(pair.1));
                if pair == (None, None) {
                    break;
                }
            }
        }
        order.truncate(limits::DIAL_ADDRESSES);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const BACKEND: BackendId = BackendId(0);

    fn ips(list: &[&str]) -> Arc<[IpAddr]> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    fn places(list: &[&str]) -> Places {
        let named = Named { port: 80, endpoints: Vec::new(), reason: Reason::DnsTimeout, turn: 0, prefers_v4: false };
        let mut places = Places { places: vec![Place::Named(named)] };
        if !list.is_empty() {
            say(&mut places, Resolved::At(ips(list)));
        }
        places
    }

    fn say(places: &mut Places, resolved: Resolved) {
        places.update(&Endpoints { backends: vec![(BACKEND, resolved)] });
    }

    fn race(places: &mut Places, now: Instant) -> Vec<String> {
        match places.choose(BACKEND, now) {
            Choice::Race(order) => order.iter().map(|address| address.ip().to_string()).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn families_take_turns_and_each_connection_begins_one_further() {
        let now = Instant::now();
        let mut places = places(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "2001:db8::1", "2001:db8::2"]);
        assert_eq!(race(&mut places, now), ["2001:db8::1", "10.0.0.1", "2001:db8::2", "10.0.0.2", "10.0.0.3"]);
        assert_eq!(race(&mut places, now), ["2001:db8::2", "10.0.0.2", "2001:db8::1", "10.0.0.3", "10.0.0.1"]);
        assert_eq!(race(&mut places, now), ["2001:db8::1", "10.0.0.3", "2001:db8::2", "10.0.0.1", "10.0.0.2"]);
    }

    #[test]
    fn who_did_not_accept_stands_behind_for_a_while() {
        let now = Instant::now();
        let mut places = places(&["10.0.0.1", "10.0.0.2"]);
        places.note_failed(BACKEND, "10.0.0.1:80".parse().unwrap(), now);
        for _ in 0..3 {
            assert_eq!(race(&mut places, now), ["10.0.0.2", "10.0.0.1"]);
        }
        // An answer that still has it tells nothing new of it.
        say(&mut places, Resolved::At(ips(&["10.0.0.1", "10.0.0.2"])));
        assert_eq!(race(&mut places, now), ["10.0.0.2", "10.0.0.1"]);
        let later = now + limits::DIAL_PENALTY;
        assert_eq!(race(&mut places, later), ["10.0.0.1", "10.0.0.2"]);
        places.note_failed(BACKEND, "10.0.0.1:80".parse().unwrap(), later);
        places.note_accepted(BACKEND, "10.0.0.1:80".parse().unwrap());
        let first: Vec<String> = (0..2).map(|_| race(&mut places, later).remove(0)).collect();
        assert!(first.contains(&"10.0.0.1".to_owned()), "{first:?}");
    }

    #[test]
    fn the_family_that_accepts_goes_first_until_it_fails_or_the_answer_changes() {
        let now = Instant::now();
        let mut places = places(&["10.0.0.1", "2001:db8::1"]);
        let v4: SocketAddr = "10.0.0.1:80".parse().unwrap();
        places.note_accepted(BACKEND, v4);
        assert_eq!(race(&mut places, now), ["10.0.0.1", "2001:db8::1"]);
        places.note_failed(BACKEND, v4, now - limits::DIAL_PENALTY);
        assert_eq!(race(&mut places, now), ["2001:db8::1", "10.0.0.1"]);
        places.note_accepted(BACKEND, v4);
        say(&mut places, Resolved::At(ips(&["10.0.0.1", "2001:db8::2"])));
        assert_eq!(race(&mut places, now), ["2001:db8::2", "10.0.0.1"]);
    }

    #[test]
    fn a_name_without_an_answer_is_nowhere_and_says_why() {
        let now = Instant::now();
        let mut places = places(&[]);
        assert_eq!(places.choose(BACKEND, now), Choice::Nowhere(Reason::DnsTimeout));
        say(&mut places, Resolved::Not(Reason::DnsError));
        assert_eq!(places.missing(BACKEND), Some(Reason::DnsError));
        say(&mut places, Resolved::At(ips(&["10.0.0.1"])));
        assert_eq!(places.missing(BACKEND), None);
        assert!(places.has(BACKEND, "10.0.0.1:80".parse().unwrap()));
        assert!(!places.has(BACKEND, "10.0.0.1:81".parse().unwrap()));
    }

    #[test]
    fn a_long_answer_is_cut_where_the_bounds_are() {
        let now = Instant::now();
        let many: Vec<String> = (0..100).map(|last| format!("10.0.0.{last}")).collect();
        let mut places = places(&many.iter().map(String::as_str).collect::<Vec<_>>());
        let Place::Named(named) = &places.places[0] else { panic!("it has a name") };
        assert_eq!(named.endpoints.len(), limits::ENDPOINTS);
        assert_eq!(race(&mut places, now).len(), limits::DIAL_ADDRESSES);
        // Every one of them has its turn all the same.
        let mut first: Vec<String> = (1..limits::ENDPOINTS).map(|_| race(&mut places, now).remove(0)).collect();
        first.sort();
        first.dedup();
        assert_eq!(first.len(), limits::ENDPOINTS - 1);
        assert!(limits::DIAL_DELAY * limits::DIAL_ADDRESSES as u32 <= Duration::from_secs(2));
    }
}
