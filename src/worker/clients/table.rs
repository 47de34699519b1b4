//! All connections over TCP of one worker.

use super::Door;
use super::tcp::{Header, Tcp};
use crate::h1;
use crate::h2;
use crate::http::PoolShare;
use crate::identity::Handshake;
use crate::limits::{AddressLimits, Addresses, TLS_HANDSHAKE_GRACE, TLS_HANDSHAKES};
use crate::proxy_protocol::Malformed;
use crate::telemetry::kinds::Protocol;
use crate::tls;
use slab::Slab;
use spooky_uring::{Lease, StreamId};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A connection in the table. A late use finds nothing instead of a stranger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) struct Key {
    /// Its place.
    pub slot: u32,
    /// Its socket.
    pub stream: StreamId,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(in crate::worker) struct Times {
    /// From accepting, or the first byte of a later head, to the whole head.
    pub head: Duration,
    /// Between requests.
    pub idle: Duration,
    /// For what waits behind the end of an exchange.
    pub send: Duration,
}

/// How much one connection may do.
#[derive(Clone, Debug)]
pub(in crate::worker) struct Bounds {
    /// Of HTTP/1.1.
    pub h1: h1::Limits,
    /// Of HTTP/2.
    pub h2: h2::Settings,
    /// Of the worker's receive pool.
    pub pool: PoolShare,
}

/// The table.
pub(in crate::worker) struct Table {
    slab: Slab<Tcp>,
    /// Of every connection.
    pub times: Times,
    bounds: Bounds,
    /// How many there were and how many are gone, of HTTP/1.1 and of HTTP/2. A connection counts when it is known what it
    /// speaks, which is when its handshake is done, or at once.
    opened: [u64; 2],
    closed: [u64; 2],
    /// Connections whose TLS handshake is not over.
    handshaking: usize,
    /// What addresses have open.
    addresses: Addresses,
    /// These, the oldest first, and some whose handshake is over by now.
    shaking: VecDeque<Key>,
    /// Those whose client waits for us, each once, the longest first; and some that are gone.
    deferred: VecDeque<Key>,
}

/// Connections looked at for one that is silent: more are refused rather than looked for without end.
const SILENT_LOOKS: usize = 64;

fn is_shaking(slab: &Slab<Tcp>, key: Key) -> bool {
    slab.get(key.slot as usize).is_some_and(|tcp| tcp.stream == key.stream && tcp.handshakes)
}

fn place(protocol: Protocol) -> usize {
    usize::from(protocol == Protocol::H2)
}

impl Table {
    /// An empty one.
    pub(in crate::worker) fn new(times: Times, bounds: Bounds, addresses: AddressLimits) -> Self {
        Self {
            slab: Slab::new(),
            times,
            bounds,
            opened: [0; 2],
            closed: [0; 2],
            handshaking: 0,
            addresses: Addresses::new(addresses),
            shaking: VecDeque::new(),
            deferred: VecDeque::new(),
        }
    }

    /// Whether an address may open one more.
    pub(in crate::worker) fn takes(&self, address: SocketAddr, now: Instant) -> bool {
        self.addresses.check(address, now).is_ok()
    }

    /// Adds a connection that was just accepted at a door.
    pub(in crate::worker) fn insert(&mut self, stream: StreamId, door: &Door, peer: SocketAddr, now: Instant) -> Key {
        let mut tcp = Tcp::new(stream, door, peer, &self.bounds, now);
        // Who speaks for others is charged for none of them: they are, once it has said who they are.
        if door.expects_header(peer) {
            tcp.expect_header();
        } else if !self.addresses.is_off() {
            tcp.charged = self.addresses.charge(peer, now);
        }
        let key = Key { slot: self.slab.insert(tcp) as u32, stream };
        match door.acceptor {
            Some(_) => {
                self.handshaking += 1;
                if self.shaking.len() >= 2 * TLS_HANDSHAKES {
                    self.shaking.retain(|key| is_shaking(&self.slab, *key));
                }
                self.shaking.push_back(key);
            }
            None => self.opened[0] += 1,
        }
        key
    }

    /// What arrived on a connection that may have to begin with a header of the PROXY protocol.
    ///
    /// # Errors
    /// It is not a header.
    pub(in crate::worker) fn take_header(&mut self, key: Key, lease: Lease) -> Result<Header, Malformed> {
        match self.get_mut(key) {
            Some(tcp) => tcp.take_header(lease),
            None => Ok(Header::None(lease)),
        }
    }

    /// Charges the client of a connection whose header is read, as [`Self::insert`] does others.
    pub(in crate::worker) fn charge(&mut self, key: Key, now: Instant) {
        if !self.addresses.is_off()
            && let Some(tcp) = self.slab.get_mut(key.slot as usize).filter(|tcp| tcp.stream == key.stream)
        {
            tcp.charged = self.addresses.charge(tcp.peer, now);
        }
    }

    /// Takes the oldest connection that is in a handshake and says nothing, if it has had its chance.
    pub(in crate::worker) fn silent(&mut self, now: Instant) -> Option<Key> {
        for _ in 0..self.shaking.len().min(SILENT_LOOKS) {
            let key = self.shaking.pop_front()?;
            match self.slab.get(key.slot as usize).filter(|_| is_shaking(&self.slab, key)) {
                Some(tcp) if now < tcp.accepted + TLS_HANDSHAKE_GRACE => {
                    self.shaking.push_front(key);
                    return None;
                }
                Some(tcp) if !tcp.is_deferred() => return Some(key),
                Some(_) => self.shaking.push_back(key),
                None => {}
            }
        }
        None
    }

    /// Keeps what arrived if it is part of a handshake, which has its turn later: it costs as much as a hundred requests, and
    /// a crowd of them must not keep the others waiting. Gives anything else back.
    pub(in crate::worker) fn defer(&mut self, key: Key, lease: Lease) -> Option<Lease> {
        let Some(tcp) = self.get_mut(key).filter(|tcp| tcp.shakes_hands()) else {
            return Some(lease);
        };
        let waits = tcp.is_deferred();
        tcp.defer(&lease);
        if !waits {
            self.deferred.push_back(key);
        }
        None
    }

    /// The next connection whose handshake has its turn.
    pub(in crate::worker) fn next_deferred(&mut self) -> Option<Key> {
        loop {
            let key = self.deferred.pop_front()?;
            if self.get_mut(key).is_some_and(|tcp| tcp.is_deferred()) {
                return Some(key);
            }
        }
    }

    /// Whether a handshake waits for its turn.
    pub(in crate::worker) fn has_deferred(&self) -> bool {
        !self.deferred.is_empty()
    }

    /// A connection, while it lives.
    pub(in crate::worker) fn get_mut(&mut self, key: Key) -> Option<&mut Tcp> {
        self.slab.get_mut(key.slot as usize).filter(|tcp| tcp.stream == key.stream)
    }

    /// A connection, and what bounds it.
    pub(in crate::worker) fn with_bounds(&mut self, key: Key) -> Option<(&mut Tcp, &Bounds)> {
        let tcp = self.slab.get_mut(key.slot as usize).filter(|tcp| tcp.stream == key.stream)?;
        Some((tcp, &self.bounds))
    }

    /// What a connection speaks.
    pub(in crate::worker) fn kind(&self, key: Key) -> Protocol {
        self.slab.get(key.slot as usize).map_or(Protocol::H1, Tcp::kind)
    }

    /// The connection in a slot, if it is that of a socket.
    pub(in crate::worker) fn find(&self, slot: u32, stream: StreamId) -> Option<Key> {
        self.slab.get(slot as usize).filter(|tcp| tcp.stream == stream).map(|_| Key { slot, stream })
    }

    /// What is new of a connection's handshake, which began then: that it is done, or why it failed.
    pub(in crate::worker) fn take_handshake(
        &mut self,
        key: Key,
    ) -> Option<(Instant, Result<Rc<Handshake>, tls::Fault>)> {
        let tcp = self.get_mut(key).filter(|tcp| tcp.handshakes)?;
        let settled = tcp.settled.take()?;
        tcp.handshakes = false;
        let (accepted, kind) = (tcp.accepted, tcp.kind());
        let result = settled.map(|()| tcp.handshake().map(Rc::clone).unwrap_or_default());
        self.handshaking -= 1;
        self.opened[place(kind)] += 1;
        Some((accepted, result))
    }

    /// Forgets a connection. Whether its handshake was still under way.
    pub(in crate::worker) fn remove(&mut self, key: Key) -> Option<(Tcp, bool)> {
        self.get_mut(key)?;
        let tcp = self.slab.remove(key.slot as usize);
        if let Some(charged) = tcp.charged {
            self.addresses.release(charged);
        }
        let handshakes = tcp.handshakes;
        if handshakes {
            self.handshaking -= 1;
            self.opened[place(tcp.kind())] += 1;
        }
        self.closed[place(tcp.kind())] += 1;
        Some((tcp, handshakes))
    }

    /// All keys.
    pub(in crate::worker) fn keys(&self) -> impl Iterator<Item = Key> {
        self.slab.iter().map(|(slot, tcp)| Key { slot: slot as u32, stream: tcp.stream })
    }

    /// How many there are.
    pub(in crate::worker) fn len(&self) -> usize {
        self.slab.len()
    }

    /// How many of a protocol there were, and how many are gone.
    pub(in crate::worker) fn counts(&self, protocol: Protocol) -> (u64, u64) {
        (self.opened[place(protocol)], self.closed[place(protocol)])
    }

    /// How many of them are in a handshake.
    pub(in crate::worker) fn handshaking(&self) -> usize {
        self.handshaking
    }

    /// Whether nothing is on its way on any of them.
    pub(in crate::worker) fn is_quiet(&self) -> bool {
        self.slab.iter().all(|(_, tcp)| tcp.is_quiet())
    }

    /// Copies what stands still on any of them out of the receive pool.
    pub(in crate::worker) fn relieve(&mut self) {
        self.slab.iter_mut().for_each(|(_, tcp)| tcp.relieve());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{ClientAuth, Identity, Site, Table as Sites, TicketKeys};
    use crate::tls::{Acceptor, FaultKind, ServerContexts, ServerSettings};
    use spooky_uring::ListenerId;
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    fn door() -> Door {
        let identity = Identity::self_signed(&["a.test"]).unwrap();
        let sites = Sites::single(Site::new(Arc::new(identity), ClientAuth::Off));
        let tickets = TicketKeys::derive(b"a secret", || 0);
        let contexts = ServerContexts::new(&sites, &ServerSettings::default(), &tickets).unwrap();
        let acceptor = Some(Acceptor::new(&Arc::new(contexts)));
        Door { listener: 0, socket: ListenerId(0), clients: None, proxies: None, acceptor, alt_svc: None }
    }

    /// A table with so many connections, in their order, none of which has said anything.
    fn crowd(count: usize, now: Instant) -> (Table, Vec<Key>) {
        let second = Duration::from_secs(1);
        let bounds = Bounds { h1: h1::Limits::SERVER, h2: h2::Settings::SERVER, pool: PoolShare::unbounded() };
        let mut table =
            Table::new(Times { head: second, idle: second, send: second }, bounds, AddressLimits::default());
        let (door, peer) = (door(), (Ipv4Addr::LOCALHOST, 1).into());
        let keys = (0..count)
            .map(|slot| table.insert(StreamId { slot: slot as u32, generation: 0 }, &door, peer, now))
            .collect();
        (table, keys)
    }

    fn said(bytes: &[u8]) -> Lease {
        Lease::from_vec(bytes.to_vec())
    }

    #[test]
    fn handshakes_have_their_turn_in_the_order_in_which_clients_spoke() {
        let (mut table, keys) = crowd(4, Instant::now());
        for at in [2, 0, 2, 3] {
            assert!(table.defer(keys[at], said(b"\x16")).is_none());
        }
        table.remove(keys[0]);
        assert_eq!(table.next_deferred(), Some(keys[2]));
        assert_eq!(table.next_deferred(), Some(keys[3]));
        assert_eq!(table.next_deferred(), None, "each once, and none that is gone");
        assert!(!table.has_deferred());
    }

    #[test]
    fn the_oldest_silent_handshake_makes_room_and_nobody_who_waits_for_us() {
        let start = Instant::now();
        let (mut table, keys) = crowd(4, start);
        table.defer(keys[0], said(b"\x16"));
        table.remove(keys[1]);
        let now = start + TLS_HANDSHAKE_GRACE;
        assert_eq!(table.silent(now - Duration::from_millis(1)), None, "it may still speak");
        assert_eq!(table.silent(now), Some(keys[2]));
        table.remove(keys[2]);
        assert_eq!(table.silent(now), Some(keys[3]));
        table.remove(keys[3]);
        assert_eq!(table.silent(now), None);
        assert_eq!(table.handshaking(), 1);
    }

    #[test]
    fn the_list_of_handshakes_forgets_those_that_are_over() {
        let now = Instant::now();
        let (mut table, keys) = crowd(TLS_HANDSHAKES, now);
        let door = door();
        for key in &keys[1..] {
            table.remove(*key);
        }
        for slot in 0..5 * TLS_HANDSHAKES as u32 {
            let stream = StreamId { slot, generation: 1 };
            let key = table.insert(stream, &door, (Ipv4Addr::LOCALHOST, 1).into(), now);
            table.remove(key);
            assert!(table.shaking.len() <= 2 * TLS_HANDSHAKES);
        }
        assert!(table.shaking.contains(&keys[0]), "and no other");
    }

    #[test]
    fn an_end_behind_what_waits_is_heard_behind_it() {
        let now = Instant::now();
        let (mut table, keys) = crowd(1, now);
        table.defer(keys[0], said(b"GET / HTTP/1.1\r\n\r\n"));
        table.get_mut(keys[0]).unwrap().receive_end();
        assert!(table.take_handshake(keys[0]).is_none());
        let key = table.next_deferred().unwrap();
        let (tcp, bounds) = table.with_bounds(key).unwrap();
        tcp.shake_hands(&bounds.clone(), now);
        let (_, result) = table.take_handshake(key).unwrap();
        assert_eq!(result.unwrap_err().kind, FaultKind::PlainHttp, "and not that it closed in the middle");
    }
}
