//! The loop: completions to connections and exchanges, then each connection with news acts once and is flushed once.
//! What becomes of a request is in `exchange.rs`.

use super::buffers::Buffers;
use super::downstream::{Burst, Downstream};
use super::exchange::{Exchange, Upstream};
use super::response::Part;
use crate::machine::Failure;
use quiche::h3;
use slab::Slab;
use spooky_uring::io::{End, Event, Io, StreamAddress, StreamId, Token, UdpId};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::time::Instant;

/// Our connection IDs: slot and tag.
const ID_BYTES: usize = 8;
/// Tokens of streams are slots of `upstreams`, from here on.
pub(super) const FIRST_STREAM: u64 = 1;

/// All state of the floor.
pub struct Proxy<I: Io> {
    pub(super) io: I,
    pub(super) socket: UdpId,
    pub(super) origin: StreamAddress,
    pub(super) quic: quiche::Config,
    pub(super) h3: h3::Config,
    pub(super) downstreams: Slab<Box<Downstream>>,
    /// By the ID of a client's first packets.
    pub(super) by_first_id: HashMap<Vec<u8>, usize>,
    pub(super) exchanges: Slab<Exchange>,
    pub(super) upstreams: Slab<Upstream>,
    /// Upstream connections that wait for a request; the last used first.
    pub(super) idle: Vec<usize>,
    pub(super) timers: BinaryHeap<Reverse<(Instant, usize, u32)>>,
    pub(super) listed: Vec<usize>,
    pub(super) tag: u32,
    pub(super) parts: Vec<Part>,
    pub(super) burst: Burst,
}

impl<I: Io> Proxy<I> {
    /// A proxy from a bound UDP socket to an origin.
    pub fn new(
        io: I,
        socket: UdpId,
        origin: StreamAddress,
        quic: quiche::Config,
        burst: Burst,
    ) -> Result<Self, Failure> {
        Ok(Self {
            io,
            socket,
            origin,
            quic,
            h3: h3::Config::new()?,
            downstreams: Slab::new(),
            by_first_id: HashMap::new(),
            exchanges: Slab::new(),
            upstreams: Slab::new(),
            idle: Vec::new(),
            timers: BinaryHeap::new(),
            listed: Vec::new(),
            tag: 0,
            parts: Vec::new(),
            burst,
        })
    }

    /// Serves until the ring fails.
    pub fn run(&mut self) -> Result<(), Failure> {
        let mut events = Vec::new();
        loop {
            let deadline = if self.listed.is_empty() {
                self.timers.peek().map(|Reverse((at, ..))| *at)
            } else {
                Some(self.io.now())
            };
            self.io.wait(deadline, &mut events)?;
            for event in events.drain(..) {
                self.collect(event);
            }
            self.expire(self.io.now());
            self.act();
        }
    }

    /// Notes what happened; connections act later, once.
    fn collect(&mut self, event: Event) {
        match event {
            Event::Datagrams { from, to, segment, mut lease, .. } => {
                for packet in lease.chunks_mut(usize::from(segment).max(1)) {
                    self.receive_packet(packet, from, to);
                }
            }
            Event::Connected { token, stream, result } => {
                if let Some(key) = self.upstream(token, stream) {
                    self.connected(key, result.is_ok());
                }
            }
            Event::Received { token, stream, lease } => {
                if let Some(key) = self.upstream(token, stream) {
                    self.received(key, lease);
                }
            }
            Event::Ended { token, stream, end } => {
                if let Some(key) = self.upstream(token, stream) {
                    self.ended(key, end);
                }
            }
            Event::SendFailed { token, stream, error } => {
                if let Some(key) = self.upstream(token, stream) {
                    self.ended(key, End::Error(error));
                }
            }
            Event::Sent { token, stream, .. } => {
                // Room for more of an upload.
                let upstream = self.upstream(token, stream);
                if let Some(exchange) = upstream.and_then(|key| self.upstreams[key].exchange) {
                    self.upload(exchange);
                }
            }
            _ => {}
        }
    }

    /// The upstream connection an event is about; `None` if it was closed earlier in the same batch.
    fn upstream(&self, token: Token, stream: StreamId) -> Option<usize> {
        // Tokens of streams are made from slab keys.
        let key = token.0.checked_sub(FIRST_STREAM)? as usize;
        (self.upstreams.get(key)?.stream == stream).then_some(key)
    }

    fn receive_packet(&mut self, packet: &mut [u8], from: SocketAddr, to: SocketAddr) {
        let Some(key) = self.addressee(packet).or_else(|| self.accept(packet, from, to)) else {
            return;
        };
        let downstream = &mut self.downstreams[key];
        downstream.receive(packet, from, to);
        list(&mut self.listed, key, downstream);
    }

    /// Whose packet it is, without parsing more than the connection ID.
    fn addressee(&self, packet: &[u8]) -> Option<usize> {
        let id = if packet.first()? & 0x80 == 0 {
            packet.get(1..=ID_BYTES)?
        } else {
            let len = usize::from(*packet.get(5)?);
            packet.get(6..6 + len)?
        };
        if let Some((slot, tag)) = id.split_first_chunk::<4>()
            && let Ok(tag) = tag.try_into()
        {
            let key = u32::from_be_bytes(*slot) as usize;
            if self.downstreams.get(key).is_some_and(|d| d.tag == u32::from_be_bytes(tag)) {
                return Some(key);
            }
        }
        self.by_first_id.get(id).copied()
    }

    fn accept(&mut self, packet: &mut [u8], from: SocketAddr, to: SocketAddr) -> Option<usize> {
        let header = quiche::Header::from_slice(packet, ID_BYTES).ok()?;
        if header.ty != quiche::Type::Initial || !quiche::version_is_supported(header.version) {
            return None;
        }
        let key = self.downstreams.vacant_key();
        self.tag = self.tag.wrapping_add(1);
        let mut id = [0; ID_BYTES];
        id[..4].copy_from_slice(&(key as u32).to_be_bytes());
        id[4..].copy_from_slice(&self.tag.to_be_bytes());
        let id = quiche::ConnectionId::from_ref(&id);
        let quic = quiche::accept_with_buf_factory::<Buffers>(&id, None, to, from, &mut self.quic).ok()?;
        let first_id = header.dcid.to_vec();
        self.by_first_id.insert(first_id.clone(), key);
        self.downstreams.insert(Box::new(Downstream::new(quic, self.tag, first_id)));
        Some(key)
    }

    fn expire(&mut self, now: Instant) {
        while let Some(&Reverse((at, key, tag))) = self.timers.peek() {
            if at > now {
                return;
            }
            self.timers.pop();
            let Some(downstream) = self.downstreams.get_mut(key) else {
                continue;
            };
            if downstream.tag != tag || downstream.armed != Some(at) {
                continue;
            }
            downstream.armed = None;
            if downstream.next_deadline().is_some_and(|deadline| deadline <= now) {
                downstream.on_timer();
                list(&mut self.listed, key, downstream);
            } else {
                self.arm(key);
            }
        }
    }

    fn arm(&mut self, key: usize) {
        let downstream = &mut self.downstreams[key];
        if let Some(deadline) = downstream.next_deadline()
            && downstream.armed.is_none_or(|armed| deadline < armed)
        {
            downstream.armed = Some(deadline);
            self.timers.push(Reverse((deadline, key, downstream.tag)));
        }
    }

    fn act(&mut self) {
        let mut listed = std::mem::take(&mut self.listed);
        for key in listed.drain(..) {
            self.downstreams[key].listed = false;
            while let Some(ask) = self.downstreams[key].next_ask(&self.h3) {
                self.answer(key, ask);
            }
            for exchange in std::mem::take(&mut self.downstreams[key].blocked) {
                self.respond(exchange);
            }
            let downstream = &mut self.downstreams[key];
            if !downstream.flush(&mut self.io, self.socket, self.burst) {
                list(&mut self.listed, key, downstream);
            }
            if downstream.is_closed() {
                self.forget(key);
            } else {
                self.arm(key);
            }
        }
    }

    fn forget(&mut self, key: usize) {
        for exchange in std::mem::take(&mut self.downstreams[key].exchanges) {
            self.finish(exchange);
        }
        let downstream = self.downstreams.remove(key);
        self.by_first_id.remove(&downstream.first_id);
        self.listed.retain(|listed| *listed != key);
    }
}

pub(super) fn list(listed: &mut Vec<usize>, key: usize, downstream: &mut Downstream) {
    if !downstream.listed {
        downstream.listed = true;
        listed.push(key);
    }
}
