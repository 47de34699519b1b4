//! All connections over TCP of one worker.

use super::Door;
use super::tcp::Tcp;
use crate::h1;
use crate::h2;
use crate::identity::Handshake;
use crate::limits::{AddressLimits, Addresses};
use crate::telemetry::kinds::Protocol;
use crate::tls;
use slab::Slab;
use spooky_uring::StreamId;
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
#[derive(Clone, Copy, Debug)]
pub(in crate::worker) struct Bounds {
    /// Of HTTP/1.1.
    pub h1: h1::Limits,
    /// Of HTTP/2.
    pub h2: h2::Settings,
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
}

fn place(protocol: Protocol) -> usize {
    usize::from(protocol == Protocol::H2)
}

impl Table {
    /// An empty one.
    pub(in crate::worker) fn new(times: Times, bounds: Bounds, addresses: AddressLimits) -> Self {
        let addresses = Addresses::new(addresses);
        Self { slab: Slab::new(), times, bounds, opened: [0; 2], closed: [0; 2], handshaking: 0, addresses }
    }

    /// Whether an address may open one more.
    pub(in crate::worker) fn takes(&self, address: SocketAddr, now: Instant) -> bool {
        self.addresses.check(address, now).is_ok()
    }

    /// Adds a connection that was just accepted at a door.
    pub(in crate::worker) fn insert(&mut self, stream: StreamId, door: &Door, peer: SocketAddr, now: Instant) -> Key {
        match door.acceptor {
            Some(_) => self.handshaking += 1,
            None => self.opened[0] += 1,
        }
        let mut tcp = Tcp::new(stream, door, peer, &self.bounds, now);
        if !self.addresses.is_off() {
            tcp.charged = self.addresses.charge(peer, now);
        }
        let slot = self.slab.insert(tcp) as u32;
        Key { slot, stream }
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
