//! The way of one request: an upstream connection, the body up, the response down.

use super::downstream::{Ask, Outbox};
use super::proxy::{FIRST_STREAM, Proxy, list};
use super::response::{Head, Part, Reader};
use spooky_uring::chunk::{Chunk, Lease};
use spooky_uring::io::{End, Io, StreamId, Token};

/// Response bytes of one exchange that QUIC has not taken; beyond it the origin is not read.
const OUTBOX_BYTES_MAX: usize = 128 << 10;
/// Request bytes on their way to the origin; beyond it the client is not read.
const UPLOAD_BYTES_MAX: usize = 256 << 10;
const H3_NO_ERROR: u64 = 0x100;
const H3_INTERNAL_ERROR: u64 = 0x102;
const H3_REQUEST_CANCELLED: u64 = 0x10c;

/// One request and its response.
pub struct Exchange {
    pub(super) downstream: usize,
    pub(super) stream: u64,
    pub(super) upstream: Option<usize>,
    pub(super) to_head: bool,
    /// The request body goes in chunks.
    pub(super) chunked: bool,
    /// The request is wholly with the upstream connection.
    pub(super) uploaded: bool,
    /// The upstream is not read until the outbox has room.
    pub(super) paused: bool,
    pub(super) outbox: Outbox,
}

/// One connection to the origin.
pub struct Upstream {
    pub(super) stream: StreamId,
    pub(super) connected: bool,
    /// What waits for the connection.
    pub(super) waiting: Vec<Chunk>,
    pub(super) reader: Reader,
    pub(super) exchange: Option<usize>,
}

impl<I: Io> Proxy<I> {
    pub(super) fn answer(&mut self, key: usize, ask: Ask) {
        let find = |proxy: &Self, stream| {
            let mut exchanges = proxy.downstreams[key].exchanges.iter().copied();
            exchanges.find(|exchange| proxy.exchanges[*exchange].stream == stream)
        };
        match ask {
            Ask::Request { stream, .. } if find(self, stream).is_some() => {} // request trailers
            Ask::Request { stream, head, body, chunked, to_head } => {
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
                if let Some(exchange) = find(self, stream).filter(|&e| !self.exchanges[e].uploaded) {
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
                    self.finish(exchange);
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
        if let Some(upstream) = self.exchanges[exchange].upstream.map(|key| &mut self.upstreams[key]) {
            if upstream.connected {
                self.io.send(upstream.stream, chunk);
            } else {
                upstream.waiting.push(chunk);
            }
        }
    }

    /// Moves request body bytes while the upstream takes them.
    pub(super) fn upload(&mut self, key: usize) {
        let exchange = &self.exchanges[key];
        let (downstream, stream, chunked) = (exchange.downstream, exchange.stream, exchange.chunked);
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
                self.send_up(key, Chunk::from_vec(format!("{:x}\r\n", piece.len()).into_bytes()));
                self.send_up(key, piece);
                self.send_up(key, Chunk::copy_from(b"\r\n"));
            } else {
                self.send_up(key, piece);
            }
        }
        list(&mut self.listed, downstream, &mut self.downstreams[downstream]);
    }

    pub(super) fn connected(&mut self, key: usize, made: bool) {
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

    pub(super) fn received(&mut self, key: usize, lease: Lease) {
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

    pub(super) fn respond(&mut self, key: usize) {
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
            return self.finish(key);
        }
        let waits = exchange.outbox.head.is_some() || exchange.outbox.bytes > 0 || exchange.outbox.complete;
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

    pub(super) fn ended(&mut self, key: usize, end: End) {
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
        self.finish(key);
    }

    /// Forgets an exchange; an upstream connection that is not through with it is closed.
    pub(super) fn finish(&mut self, key: usize) {
        let exchange = self.exchanges.remove(key);
        // The key will be another exchange's.
        let owner = &mut self.downstreams[exchange.downstream];
        owner.blocked.retain(|blocked| *blocked != key);
        if let Some(upstream) = exchange.upstream {
            self.upstreams[upstream].exchange = None;
            self.hang_up(upstream);
        }
    }
}
