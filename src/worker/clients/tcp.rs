//! Clients over TCP: one socket each, an optional layer of TLS above it, and the protocol above that.
//!
//! Owns what stands between a socket and a protocol machine: what arrived and what waits to leave, whether the socket is
//! read, how a connection ends (at once, lingering, by a reset) and what it waits for. Knows no exchange but its slot. The
//! worker calls in this order: `receive…` while it collects, [`Tcp::next_told`] when the connection runs, [`Tcp::flush`] and
//! [`Tcp::verdict`] when it transmits.

use super::{Client, Door};
use crate::h1::{self, Closing, Next, ServerConnection};
use crate::http::{Event, NO_OWNER, Output, Reason, RequestHead, Scheme, StreamRef};
use crate::identity::{Handshake, ShownCertificate};
use crate::limits;
use crate::tls::{self, ServerSession};
use slab::Slab;
use spooky_uring::{Chunk, Io, Lease, StreamId};
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

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Open,
    /// The other side is gone, or went away in the middle of something: the exchange, if there is one, has not heard yet.
    Gone,
    /// What was sent must not be taken for a whole response: only a reset tells it.
    Cut,
    /// Nothing more is received; what waits is sent, and then it lingers.
    Ending,
    /// FIN was sent; what still comes is dropped until then.
    Lingering {
        until: Instant,
    },
}

/// What a connection has to tell.
pub(in crate::worker) enum Told {
    /// Something for a stream.
    Event(StreamRef, Event<Box<RequestHead>>),
    /// The client's side of an exchange has come to its end too early.
    Gone(u32, Reason),
}

/// What becomes of a connection at the end of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Verdict {
    /// It stays.
    Stay,
    /// Everything was said.
    Close,
    /// With a reset.
    Abort,
}

/// One connection.
pub(in crate::worker) struct Tcp {
    /// Its socket.
    pub stream: StreamId,
    /// The listener that accepted it, by position in the configuration.
    pub listener: u16,
    /// The other side.
    pub peer: SocketAddr,
    /// What is kept for every connection.
    pub client: Client,
    /// TLS, above the socket.
    tls: Option<Box<ServerSession>>,
    /// The protocol above that; before a handshake is done it has nothing to say.
    pub protocol: ServerConnection,
    /// What the protocol wants to send.
    pub output: Output,
    /// The same sealed, and what TLS itself has to say.
    sealed: Output,
    /// Bytes that the socket's queue holds.
    pub queued: usize,
    /// Set when the response that was begun will not be whole.
    pub cut: bool,
    /// The exchange of the request under way.
    pub owner: u32,
    /// The queue moved and its exchange has not heard.
    room: bool,
    /// The handshake was done since somebody asked.
    settled: bool,
    /// It is one of [`Table::handshaking`].
    handshakes: bool,
    /// When it was accepted.
    accepted: Instant,
    /// close_notify was sent.
    said_goodbye: bool,
    /// Why TLS ended, once, for the worker to count.
    fault: Option<tls::Fault>,
    /// FIN was received.
    finished: bool,
    /// The protocol's fault was told.
    faulted: bool,
    reading: bool,
    life: Life,
    /// When what is waited for now began: the head, the next request, or the socket to take bytes.
    since: Instant,
    /// The head of the first request, or of one that has begun, is waited for, rather than a next request.
    within_head: bool,
}

impl Tcp {
    fn new(stream: StreamId, door: &Door, peer: SocketAddr, protocol: ServerConnection, now: Instant) -> Self {
        Self {
            stream,
            listener: door.listener,
            peer,
            client: Client::default(),
            tls: door.acceptor.as_ref().map(|acceptor| Box::new(ServerSession::new(acceptor))),
            protocol,
            output: Output::new(),
            sealed: Output::new(),
            fault: None,
            queued: 0,
            cut: false,
            owner: NO_OWNER,
            room: false,
            settled: false,
            handshakes: door.acceptor.is_some(),
            accepted: now,
            said_goodbye: false,
            finished: false,
            faulted: false,
            reading: true,
            life: Life::Open,
            since: now,
            within_head: true,
        }
    }

    /// Takes what arrived.
    pub(in crate::worker) fn receive(&mut self, lease: Lease, now: Instant) {
        if self.life != Life::Open {
            return;
        }
        match &mut self.tls {
            None => self.protocol.receive(lease.into_chunk()),
            Some(tls) => {
                let handshaking = tls.is_handshaking();
                let received = tls.receive(lease, |chunk| self.protocol.receive(chunk), &mut self.sealed);
                if handshaking && !tls.is_handshaking() {
                    self.settled = true;
                }
                if tls.peer_closed() {
                    self.receive_end();
                }
                if let Err(fault) = received {
                    self.fail(fault);
                    return;
                }
            }
        }
        if !self.within_head && self.protocol.is_within_head() {
            self.within_head = true;
            self.since = now;
        }
    }

    /// The client finished its direction.
    pub(in crate::worker) fn receive_end(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        // Clients that end without a word of TLS are many; what of theirs was cut, its framing tells.
        if self.is_handshaking()
            && let Some(Err(fault)) = self.tls.as_mut().map(|tls| tls.receive_end())
        {
            self.fail(fault);
        }
        self.protocol.receive_end();
    }

    /// TLS cannot go on: its exchange, if there is one, ends; an alert leaves first.
    fn fail(&mut self, fault: tls::Fault) {
        self.life = match (fault.tells, self.owner) {
            (true, NO_OWNER) => Life::Ending,
            _ => Life::Gone,
        };
        self.fault = Some(fault);
    }

    /// Whether the client left.
    pub(in crate::worker) fn is_gone(&self) -> bool {
        self.life == Life::Gone
    }

    /// Whether a TLS handshake runs.
    pub(in crate::worker) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// What the handshake ended with; empty without TLS.
    pub(in crate::worker) fn handshake(&self) -> Rc<Handshake> {
        self.tls.as_ref().map(|tls| Rc::clone(tls.handshake())).unwrap_or_default()
    }

    /// The certificate that the client showed.
    pub(in crate::worker) fn certificate(&self) -> Option<Rc<ShownCertificate>> {
        self.tls.as_ref()?.client_certificate()
    }

    /// Whether requests for this host belong on this connection.
    pub(in crate::worker) fn serves(&self, host: &str) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.serves(host))
    }

    /// The socket failed in either direction.
    pub(in crate::worker) fn receive_failure(&mut self) {
        self.finished = true;
        if !matches!(self.life, Life::Cut) {
            self.life = Life::Gone;
        }
    }

    /// The socket's queue moved to this many bytes.
    pub(in crate::worker) fn sent(&mut self, queued: usize, now: Instant) {
        self.queued = queued;
        self.since = now;
        self.room = self.owner != NO_OWNER;
    }

    /// Its exchange began or is over.
    pub(in crate::worker) fn set_owner(&mut self, owner: u32, now: Instant) {
        self.owner = owner;
        self.room = false;
        if owner == NO_OWNER {
            self.since = now;
            self.within_head = self.protocol.is_within_head();
        }
    }

    /// The next thing to tell, if any.
    pub(in crate::worker) fn next_told(&mut self) -> Option<Told> {
        let at = StreamRef { stream: 0, owner: self.owner };
        match self.life {
            Life::Gone if self.owner != NO_OWNER => return Some(Told::Gone(self.owner, Reason::ClientGone)),
            Life::Open => {}
            _ => return None,
        }
        if self.owner != NO_OWNER {
            if std::mem::take(&mut self.room) {
                return Some(Told::Event(at, Event::Room));
            }
            // The response is given, and what is queued of it keeps its exchange: the next request waits for both.
            if self.protocol.is_between() {
                return None;
            }
        }
        match self.protocol.next_event() {
            Ok(Some(event)) => Some(Told::Event(at, event)),
            // Whoever closes while a response is due has gone: a client that means to read it does not say that it ends.
            Ok(None) if self.finished && self.owner != NO_OWNER && !self.protocol.is_receiving() => {
                self.life = Life::Gone;
                Some(Told::Gone(self.owner, Reason::ClientGone))
            }
            Ok(None) => None,
            // A fault is said again for as long as one asks.
            Err(_) if std::mem::replace(&mut self.faulted, true) => None,
            Err(fault) => match (fault.next, fault.reason()) {
                (Next::Respond, Some(reason)) if self.owner != NO_OWNER => {
                    Some(Told::Event(at, Event::Refused(reason.into())))
                }
                (_, reason) => {
                    self.life = Life::Gone;
                    let reason = reason.unwrap_or(Reason::ClientGone);
                    (self.owner != NO_OWNER).then_some(Told::Gone(self.owner, reason))
                }
            },
        }
    }

    /// Hands what the protocol wants to send to the socket. Chunks of the receive pool stay what they are while the pool
    /// has room: of what is left a connection holds half at most, the rest of its queue is copied.
    pub(in crate::worker) fn flush(&mut self, io: &mut impl Io) {
        if self.cut {
            self.life = Life::Cut;
        }
        if matches!(self.life, Life::Cut | Life::Gone) {
            self.output.clear();
            self.sealed.clear();
            return;
        }
        let output = match &mut self.tls {
            None => &mut self.output,
            Some(tls) => {
                if let Err(fault) = tls.send(&mut self.output, &mut self.sealed) {
                    self.fault = Some(fault);
                    self.life = Life::Cut;
                    return;
                }
                &mut self.sealed
            }
        };
        let mut sent = false;
        while let Some(chunk) = output.pop() {
            sent = true;
            // Copy: a client that takes nothing must not hold the worker's receive pool.
            let chunk = match chunk.is_pooled() && self.queued + chunk.len() > pooled_bytes_max(io) {
                true => Chunk::copy_from(&chunk),
                false => chunk,
            };
            self.queued += chunk.len();
            io.send(self.stream, chunk);
        }
        if sent {
            self.queued = io.queued(self.stream);
        }
    }

    /// What becomes of the connection, and whether it is read.
    pub(in crate::worker) fn verdict(&mut self, times: &Times, io: &mut impl Io, now: Instant) -> Verdict {
        match self.life {
            Life::Cut => return Verdict::Abort,
            Life::Gone if self.owner == NO_OWNER => return Verdict::Close,
            Life::Gone => return Verdict::Stay,
            Life::Lingering { until } if self.finished || until <= now => return Verdict::Close,
            Life::Lingering { .. } => return Verdict::Stay,
            Life::Ending if self.queued > 0 => {}
            Life::Ending => return self.linger(io, now),
            Life::Open => {}
        }
        if self.life == Life::Open && self.owner == NO_OWNER && self.queued == 0 {
            let closing = self.protocol.closing();
            if closing != Closing::No && self.says_goodbye(io) {
                return Verdict::Stay;
            }
            match closing {
                Closing::Now => return Verdict::Close,
                Closing::Linger => return self.linger(io, now),
                Closing::No => {}
            }
        }
        if self.deadline(times).is_some_and(|deadline| deadline <= now) {
            return if self.queued > 0 { Verdict::Abort } else { Verdict::Close };
        }
        self.read(self.protocol.wants_read(), io);
        Verdict::Stay
    }

    /// Whether there was a last word of TLS to send.
    fn says_goodbye(&mut self, io: &mut impl Io) -> bool {
        let Some(tls) = self.tls.as_mut().filter(|tls| !tls.is_handshaking() && !self.said_goodbye) else {
            return false;
        };
        self.said_goodbye = true;
        tls.close_notify(&mut self.sealed);
        self.flush(io);
        self.queued > 0
    }

    /// FIN, and then what still comes is dropped for a while.
    fn linger(&mut self, io: &mut impl Io, now: Instant) -> Verdict {
        if self.finished {
            return Verdict::Close;
        }
        io.shutdown(self.stream);
        self.read(true, io);
        self.life = Life::Lingering { until: now + limits::LINGER };
        Verdict::Stay
    }

    /// The head that is waited for is late: the client is told, if it has begun one.
    pub(in crate::worker) fn time_out(&mut self, times: &Times, now: Instant) -> Option<Told> {
        let late = self.owner == NO_OWNER && self.deadline(times).is_some_and(|deadline| deadline <= now);
        if late && self.life == Life::Open && self.queued == 0 && self.protocol.is_within_head() {
            let event = self.protocol.refuse_head(Reason::ClientHeadTimeout);
            return Some(Told::Event(StreamRef { stream: 0, owner: NO_OWNER }, event));
        }
        None
    }

    /// When it has waited too long. While an exchange runs, that is the exchange's own business.
    pub(in crate::worker) fn deadline(&self, times: &Times) -> Option<Instant> {
        match self.life {
            Life::Lingering { until } => return Some(until),
            _ if self.owner != NO_OWNER => return None,
            _ => {}
        }
        let most = match self.queued {
            0 if self.within_head => times.head,
            0 => times.idle,
            _ => times.send,
        };
        Some(self.since + most)
    }

    /// Whether nothing is on its way in either direction.
    pub(in crate::worker) fn is_quiet(&self) -> bool {
        let lingers = matches!(self.life, Life::Lingering { .. });
        self.owner == NO_OWNER && self.queued == 0 && self.output.is_empty() && !lingers && self.life != Life::Ending
    }

    fn read(&mut self, wanted: bool, io: &mut impl Io) {
        if wanted != self.reading && !self.finished {
            self.reading = wanted;
            if wanted { io.resume(self.stream) } else { io.pause(self.stream) }
        }
    }
}

/// Bytes of the receive pool that one connection may hold now.
fn pooled_bytes_max(io: &impl Io) -> usize {
    io.pressure().free * limits::STREAM_RECEIVE_BUFFER_BYTES as usize / 2
}

/// All of a worker.
pub(in crate::worker) struct Table {
    slab: Slab<Tcp>,
    /// Of every connection.
    pub times: Times,
    limits: h1::Limits,
    opened: u64,
    /// Connections whose TLS handshake is not over.
    handshaking: usize,
}

impl Table {
    /// An empty one.
    pub(in crate::worker) fn new(times: Times, limits: h1::Limits) -> Self {
        Self { slab: Slab::new(), times, limits, opened: 0, handshaking: 0 }
    }

    /// Adds a connection that was just accepted at a door.
    pub(in crate::worker) fn insert(&mut self, stream: StreamId, door: &Door, peer: SocketAddr, now: Instant) -> Key {
        self.opened += 1;
        self.handshaking += usize::from(door.acceptor.is_some());
        let scheme = if door.acceptor.is_some() { Scheme::Https } else { Scheme::Http };
        let protocol = ServerConnection::new(scheme, self.limits);
        let slot = self.slab.insert(Tcp::new(stream, door, peer, protocol, now)) as u32;
        Key { slot, stream }
    }

    /// A connection, while it lives.
    pub(in crate::worker) fn get_mut(&mut self, key: Key) -> Option<&mut Tcp> {
        self.slab.get_mut(key.slot as usize).filter(|tcp| tcp.stream == key.stream)
    }

    /// The connection in a slot, if it is that of a socket.
    pub(in crate::worker) fn find(&self, slot: u32, stream: StreamId) -> Option<Key> {
        self.slab.get(slot as usize).filter(|tcp| tcp.stream == stream).map(|_| Key { slot, stream })
    }

    /// What is new of a connection's handshake: that it is done, or why it failed.
    pub(in crate::worker) fn take_handshake(
        &mut self,
        key: Key,
    ) -> Option<(Instant, Result<Rc<Handshake>, tls::Fault>)> {
        let tcp = self.get_mut(key).filter(|tcp| tcp.handshakes)?;
        let result = match tcp.fault.take() {
            Some(fault) => Err(fault),
            None if std::mem::take(&mut tcp.settled) => Ok(tcp.handshake()),
            None => return None,
        };
        tcp.handshakes = false;
        let accepted = tcp.accepted;
        self.handshaking -= 1;
        Some((accepted, result))
    }

    /// Forgets a connection. Whether its handshake was still under way.
    pub(in crate::worker) fn remove(&mut self, key: Key) -> Option<(Tcp, bool)> {
        let handshakes = self.get_mut(key)?.handshakes;
        self.handshaking -= usize::from(handshakes);
        Some((self.slab.remove(key.slot as usize), handshakes))
    }

    /// All keys.
    pub(in crate::worker) fn keys(&self) -> impl Iterator<Item = Key> {
        self.slab.iter().map(|(slot, tcp)| Key { slot: slot as u32, stream: tcp.stream })
    }

    /// How many there are.
    pub(in crate::worker) fn len(&self) -> usize {
        self.slab.len()
    }

    /// How many there were, and how many are gone.
    pub(in crate::worker) fn counts(&self) -> (u64, u64) {
        (self.opened, self.opened - self.slab.len() as u64)
    }

    /// How many of them are in a handshake.
    pub(in crate::worker) fn handshaking(&self) -> usize {
        self.handshaking
    }

    /// Whether nothing is on its way on any of them.
    pub(in crate::worker) fn is_quiet(&self) -> bool {
        self.slab.iter().all(|(_, tcp)| tcp.is_quiet())
    }
}
