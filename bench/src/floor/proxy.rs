//! The loop: completions to connections and exchanges, then each connection with news acts once and is flushed once.

use super::buffers::Buffers;
use super::downstream::{Ask, Downstream, Outbox};
use super::response::{Head, Part, Reader};
use crate::machine::Failure;
use quiche::h3;
use slab::Slab;
use spooky_uring::chunk::{Chunk, Lease};
use spooky_uring::io::{End, Event, Io, StreamAddress, StreamId, Token, UdpId};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::time::Instant;

/// Response bytes of one exchange that QUIC has not taken; beyond it the origin is not read.
const OUTBOX_BYTES_MAX: usize = 128 << 10;
/// Request bytes on their way to the origin; beyond it the client is not read.
const UPLOAD_BYTES_MAX: usize = 256 << 10;
/// Our connection IDs: slot and tag.
const ID_BYTES: usize = 8;
const H3_NO_ERROR: u64 = 0x100;
const H3_INTERNAL_ERROR: u64 = 0x102;
const H3_REQUEST_CANCELLED: u64 = 0x10c;
/// Tokens of streams are slots of `upstreams`, from here on.
const FIRST_STREAM: u64 = 1;

struct Exchange {
    downstream: usize,
    stream: u64,
    upstream: Option<usize>,
    to_head: bool,
    /// The request body goes in chunks.
    chunked: bool,
    /// The request is wholly with the upstream connection.
    uploaded: bool,
    /// The upstream is not read until the outbox has room.
    paused: bool,
    outbox: Outbox,
}

struct Upstream {
    stream: StreamId,
    connected: bool,
    /// What waits for the connection.
    waiting: Vec<Chunk>,
    reader: Reader,
    exchange: Option<usize>,
}

/// All state of the floor.
pub struct Proxy<I: Io> {
    io: I,
    socket: UdpId,
    origin: StreamAddress,
    quic: quiche::Config,
    h3: h3::Config,
    downstreams: Slab<Box<Downstream>>,
    /// By the ID of a client's first packets.
    by_first_id: HashMap<Vec<u8>, usize>,
    exchanges: Slab<Exchange>,
    upstreams: Slab<Upstream>,
    /// Upstream connections that wait for a request; the last used first.
    idle: Vec<usize>,
    timers: BinaryHeap<Reverse<(Instant, usize, u32)>>,
    listed: Vec<usize>,
    tag: u32,
    parts: Vec<Part>,
}

impl<I: Io> Proxy<I> {
    /// A proxy from a bound UDP socket to an origin.
    pub fn new(
        io: I,
        socket: UdpId,
        origin: StreamAddress,
        quic: quiche::Config,
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
            Event::Datagrams {
                from,
                to,
                segment,
                mut lease,
                ..
            } => {
                for packet in lease.chunks_mut(usize::from(segment).max(1)) {
                    self.receive_packet(packet, from, to);
                }
            }
            Event::Connected {
                token,
                stream,
                result,
            } => {
                if let Some(key) = self.upstream(token, stream) {
                    self.connected(key, result.is_ok());
                }
            }
            Event::Received {
                token,
                stream,
                lease,
            } => {
                if let Some(key) = self.upstream(token, stream) {
                    self.received(key, lease);
                }
            }
            Event::Ended { token, stream, end } => {
                if let Some(key) = self.upstream(token, stream) {
                    self.ended(key, end);
                }
            }
            Event::SendFailed {
                token,
                stream,
                error,
            } => {
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
        let Some(key) = self
            .addressee(packet)
            .or_else(|| self.accept(packet, from, to))
        else {
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
            if self
                .downstreams
                .get(key)
                .is_some_and(|d| d.tag == u32::from_be_bytes(tag))
            {
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
        let quic =
            quiche::accept_with_buf_factory::<Buffers>(&id, None, to, from, &mut self.quic).ok()?;
        let first_id = header.dcid.to_vec();
        self.by_first_id.insert(first_id.clone(), key);
        self.downstreams
            .insert(Box::new(Downstream::new(quic, self.tag, first_id)));
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
            if downstream
                .next_deadline()
                .is_some_and(|deadline| deadline <= now)
            {
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
            if !downstream.flush(&mut self.io, self.socket) {
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
            self.finish(exchange, false);
        }
        let downstream = self.downstreams.remove(key);
        self.by_first_id.remove(&downstream.first_id);
        self.listed.retain(|listed| *listed != key);
    }

    fn answer(&mut self, key: usize, ask: Ask) {
        let find = |proxy: &Self, stream| {
            let mut exchanges = proxy.downstreams[key].exchanges.iter().copied();
            exchanges.find(|exchange| proxy.exchanges[*exchange].stream == stream)
        };
        match ask {
            Ask::Request { stream, .. } if find(self, stream).is_some() => {} // request trailers
            Ask::Request {
                stream,
                head,
                body,
                chunked,
                to_head,
            } => {
                let exchange = self.exchanges.insert(Exchange {
                    downstream: key,
                    stream,
                    upstream: None,
                    to_head,
                    chunked,
                    uploaded: !body,
                    paused: false,
                    outbox: Outbox::default(),
                });
                self.downstreams[key].exchanges.push(exchange);
                self.dial(exchange, head);
            }
            Ask::Body(stream) => {
                if let Some(exchange) = find(self, stream) {
                    self.upload(exchange);
                }
            }
            Ask::End(stream) => {
                if let Some(exchange) = find(self, stream).filter(|&e| !self.exchanges[e].uploaded)
                {
                    self.exchanges[exchange].uploaded = true;
                    if self.exchanges[exchange].chunked {
                        self.send_up(exchange, Chunk::copy_from(b"0\r\n\r\n"));
                    }
                }
            }
            Ask::Reset(stream) => {
                if let Some(exchange) = find(self, stream) {
                    self.downstreams[key].reset(stream, H3_REQUEST_CANCELLED);
                    self.downstreams[key].exchanges.retain(|e| *e != exchange);
                    self.finish(exchange, false);
                }
            }
        }
    }

    /// Gives an exchange an upstream connection: the one used last, or a new one.
    fn dial(&mut self, exchange: usize, head: Vec<u8>) {
        let key = match self.idle.pop() {
            Some(key) => key,
            None => {
                let key = self.upstreams.vacant_key();
                let token = Token(key as u64 + FIRST_STREAM);
                let Some(stream) = self.io.connect(&self.origin, token) else {
                    return self.fail(exchange);
                };
                self.upstreams.insert(Upstream {
                    stream,
                    connected: false,
                    waiting: Vec::new(),
                    reader: Reader::new(),
                    exchange: None,
                })
            }
        };
        self.upstreams[key].exchange = Some(exchange);
        self.exchanges[exchange].upstream = Some(key);
        self.send_up(exchange, Chunk::from_vec(head));
    }

    fn send_up(&mut self, exchange: usize, chunk: Chunk) {
        if let Some(upstream) = self.exchanges[exchange]
            .upstream
            .map(|key| &mut self.upstreams[key])
        {
            if upstream.connected {
                self.io.send(upstream.stream, chunk);
            } else {
                upstream.waiting.push(chunk);
            }
        }
    }

    /// Moves request body bytes while the upstream takes them.
    fn upload(&mut self, key: usize) {
        let exchange = &self.exchanges[key];
        let (downstream, stream, chunked) =
            (exchange.downstream, exchange.stream, exchange.chunked);
        let Some(upstream) = exchange.upstream.map(|key| &self.upstreams[key]) else {
            return;
        };
        if !upstream.connected || exchange.uploaded {
            return;
        }
        let to = upstream.stream;
        while self.io.queued(to) < UPLOAD_BYTES_MAX {
            let Some(piece) = self.downstreams[downstream].read(stream) else {
                break;
            };
            if chunked {
                self.send_up(
                    key,
                    Chunk::from_vec(format!("{:x}\r\n", piece.len()).into_bytes()),
                );
                self.send_up(key, piece);
                self.send_up(key, Chunk::copy_from(b"\r\n"));
            } else {
                self.send_up(key, piece);
            }
        }
        list(
            &mut self.listed,
            downstream,
            &mut self.downstreams[downstream],
        );
    }

    fn connected(&mut self, key: usize, made: bool) {
        let Some(upstream) = self.upstreams.get_mut(key) else {
            return;
        };
        if !made {
            let exchange = upstream.exchange;
            self.upstreams.remove(key);
            if let Some(exchange) = exchange {
                self.exchanges[exchange].upstream = None;
                self.fail(exchange);
            }
            return;
        }
        upstream.connected = true;
        for chunk in std::mem::take(&mut upstream.waiting) {
            self.io.send(upstream.stream, chunk);
        }
        self.io.resume(upstream.stream);
        if let Some(exchange) = upstream.exchange {
            self.upload(exchange);
        }
    }

    fn received(&mut self, key: usize, lease: Lease) {
        let Some(upstream) = self.upstreams.get_mut(key) else {
            return;
        };
        let Some(exchange_key) = upstream.exchange else {
            // Nobody asked for these bytes.
            return self.hang_up(key);
        };
        let exchange = &mut self.exchanges[exchange_key];
        let mut parts = std::mem::take(&mut self.parts);
        let sense = upstream.reader.receive(lease, exchange.to_head, &mut parts);
        let mut heads = Vec::new();
        for part in parts.drain(..) {
            match part {
                Part::Head(head) => heads.push(head),
                Part::Body(bytes) => {
                    exchange.outbox.bytes += bytes.len();
                    exchange.outbox.body.push_back(bytes);
                }
                Part::End => exchange.outbox.complete = true,
            }
        }
        self.parts = parts;
        if sense.is_err() {
            return self.fail(exchange_key);
        }
        if exchange.outbox.bytes > OUTBOX_BYTES_MAX && !exchange.paused {
            exchange.paused = true;
            self.io.pause(upstream.stream);
        }
        for head in heads {
            if head.informational {
                let downstream = &mut self.downstreams[exchange.downstream];
                downstream.inform(exchange.stream, &head, &mut exchange.outbox);
            } else {
                exchange.outbox.head = Some(head);
            }
        }
        if exchange.outbox.complete {
            self.release(exchange_key);
        }
        self.want_response(exchange_key);
    }

    /// The response waits for its connection's turn.
    fn want_response(&mut self, key: usize) {
        let owner = self.exchanges[key].downstream;
        let downstream = &mut self.downstreams[owner];
        if !downstream.blocked.contains(&key) {
            downstream.blocked.push(key);
        }
        list(&mut self.listed, owner, downstream);
    }

    fn respond(&mut self, key: usize) {
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return;
        };
        let downstream = &mut self.downstreams[exchange.downstream];
        let done = downstream.send(exchange.stream, &mut exchange.outbox);
        if done {
            if !exchange.uploaded {
                downstream.stop(exchange.stream, H3_NO_ERROR);
            }
            downstream.exchanges.retain(|other| *other != key);
            return self.finish(key, true);
        }
        let waits =
            exchange.outbox.head.is_some() || exchange.outbox.bytes > 0 || exchange.outbox.complete;
        if waits {
            downstream.blocked.push(key);
        }
        if exchange.paused
            && exchange.outbox.bytes < OUTBOX_BYTES_MAX / 2
            && let Some(upstream) = exchange.upstream
        {
            exchange.paused = false;
            self.io.resume(self.upstreams[upstream].stream);
        }
    }

    /// The response is read: the upstream connection is free for another request.
    fn release(&mut self, key: usize) {
        let exchange = &mut self.exchanges[key];
        let Some(upstream_key) = exchange.upstream.take() else {
            return;
        };
        let upstream = &mut self.upstreams[upstream_key];
        upstream.exchange = None;
        if !exchange.uploaded || !upstream.reader.reusable {
            return self.hang_up(upstream_key);
        }
        if exchange.paused {
            exchange.paused = false;
            self.io.resume(upstream.stream);
        }
        self.idle.push(upstream_key);
    }

    fn hang_up(&mut self, key: usize) {
        let upstream = self.upstreams.remove(key);
        self.io.close(upstream.stream);
        self.idle.retain(|idle| *idle != key);
    }

    fn ended(&mut self, key: usize, end: End) {
        let Some(upstream) = self.upstreams.get_mut(key) else {
            return;
        };
        let Some(exchange) = upstream.exchange else {
            return self.hang_up(key);
        };
        if upstream.reader.receive_end() && end == End::Fin {
            self.exchanges[exchange].outbox.complete = true;
            self.release(exchange);
            self.want_response(exchange);
        } else {
            self.fail(exchange);
        }
    }

    /// The origin failed: 502 if no head was sent, else a reset.
    fn fail(&mut self, key: usize) {
        let exchange = &mut self.exchanges[key];
        let downstream = &mut self.downstreams[exchange.downstream];
        let mut refusal = Outbox {
            head: Some(Head::new(502)),
            informed: exchange.outbox.informed,
            complete: true,
            ..Outbox::default()
        };
        if exchange.outbox.headed || !downstream.send(exchange.stream, &mut refusal) {
            downstream.reset(exchange.stream, H3_INTERNAL_ERROR);
        }
        downstream.exchanges.retain(|other| *other != key);
        list(&mut self.listed, exchange.downstream, downstream);
        self.finish(key, false);
    }

    /// Forgets an exchange; an upstream connection that is not through with it is closed.
    fn finish(&mut self, key: usize, clean: bool) {
        let exchange = self.exchanges.remove(key);
        // The key will be another exchange's.
        let owner = &mut self.downstreams[exchange.downstream];
        owner.blocked.retain(|blocked| *blocked != key);
        if let Some(upstream) = exchange.upstream {
            debug_assert!(!clean, "a clean end releases its upstream first");
            self.upstreams[upstream].exchange = None;
            self.hang_up(upstream);
        }
    }
}

fn list(listed: &mut Vec<usize>, key: usize, downstream: &mut Downstream) {
    if !downstream.listed {
        downstream.listed = true;
        listed.push(key);
    }
}
