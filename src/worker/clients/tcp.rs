//! One client over TCP: a socket, an optional layer of TLS above it, and the protocol above that.
//!
//! Owns what stands between a socket and a protocol machine: what arrived and what waits to leave, whether the socket is
//! read, how the connection ends (at once, lingering, by a reset) and what it waits for. Knows no exchange but its slot. The
//! worker calls in this order: `receive…` while it collects, [`Tcp::next_told`] when the connection runs, [`Tcp::flush`] and
//! [`Tcp::verdict`] when it transmits. What is spoken is [`super::protocol`]'s, where it is found [`super::table`]'s.

use super::protocol::{H1, Protocol};
use super::table::{Bounds, Times};
use super::{Client, Door};
use crate::exchange::Downstream;
use crate::h1::{Closing, ServerConnection};
use crate::h2;
use crate::http::respond;
use crate::http::{Event, NO_OWNER, Output, PoolShare, Reason, RequestHead, Scheme, StreamRef};
use crate::identity::{Handshake, ShownCertificate};
use crate::limits::{self, AddressKey};
use crate::proxy_protocol::{self, Malformed};
use crate::telemetry::kinds;
use crate::tls::{self, Alpn, ServerSession};
use spooky_uring::{Chunk, Io, Lease, StreamId};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Open,
    /// The other side is gone, or went away in the middle of something; exchanges may not have heard yet.
    Gone,
    /// What was sent must not be taken for a whole response: only a reset tells it.
    Cut,
    /// TLS cannot go on: its last word is sent, and then it lingers. Exchanges may not have heard yet.
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

/// What became of the header that a connection may begin with.
pub(in crate::worker) enum Header {
    /// None is expected: these are the client's bytes.
    None(Lease),
    /// The rest of it is to come.
    Partial,
    /// It is whole, and was followed.
    Whole {
        /// It named a client.
        named: bool,
        /// What came behind it.
        rest: Vec<u8>,
    },
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
    /// The other side, or the client that it has named.
    pub peer: SocketAddr,
    /// What that has connected to; `None`: nobody has asked yet, or it is not known.
    pub destination: Option<SocketAddr>,
    /// Exchanges that are not over.
    pub exchanges: u32,
    /// What was charged for it.
    pub(super) charged: Option<AddressKey>,
    /// What is kept for every connection.
    pub client: Client,
    /// What came of the header that it begins with; `None`: there is none, or it was read.
    /// Invariant: at most `limits::PROXY_HEADER_BYTES` and what one receive brings.
    header: Option<Vec<u8>>,
    /// The value of Alt-Svc in responses.
    alt_svc: Option<Rc<[u8]>>,
    /// TLS, above the socket.
    tls: Option<Box<ServerSession>>,
    /// The protocol above that; before a handshake is done it has nothing to say.
    protocol: Protocol,
    /// What the protocol wants to send.
    output: Output,
    /// The same sealed, and what TLS itself has to say.
    sealed: Output,
    /// Bytes that the socket's queue holds.
    queued: usize,
    /// What it may hold of the worker's receive pool.
    pool: PoolShare,
    /// Nothing was taken off it since the receive pool was last looked through for what pins it.
    stuck: bool,
    /// It is one of [`super::table::Table::handshaking`].
    pub(super) handshakes: bool,
    /// Bytes of a handshake that wait for their turn; the socket is not read until then.
    early: Vec<u8>,
    /// The client finished its direction behind them.
    early_end: bool,
    /// The handshake was done, or failed, and nobody has asked yet.
    pub(super) settled: Option<Result<(), tls::Fault>>,
    /// When it was accepted.
    pub(super) accepted: Instant,
    /// close_notify was sent.
    said_goodbye: bool,
    /// FIN was received.
    finished: bool,
    reading: bool,
    life: Life,
    /// When what is waited for now began: the head, the next request, or the socket to take bytes.
    since: Instant,
    /// The head of the first request, or of one that has begun, is waited for, rather than a next request.
    within_head: bool,
}

impl Tcp {
    /// A connection that was just accepted at a door.
    pub(super) fn new(stream: StreamId, door: &Door, peer: SocketAddr, bounds: &Bounds, now: Instant) -> Self {
        let scheme = if door.acceptor.is_some() { Scheme::Https } else { Scheme::Http };
        Self {
            stream,
            listener: door.listener,
            peer,
            destination: None,
            exchanges: 0,
            charged: None,
            client: Client::default(),
            header: None,
            alt_svc: door.alt_svc.clone(),
            tls: door.acceptor.as_ref().map(|acceptor| Box::new(ServerSession::new(acceptor))),
            protocol: Protocol::H1(Box::new(H1::new(ServerConnection::new(scheme, bounds.h1)))),
            output: Output::new(),
            sealed: Output::new(),
            queued: 0,
            pool: bounds.pool.clone(),
            stuck: false,
            handshakes: door.acceptor.is_some(),
            early: Vec::new(),
            early_end: false,
            settled: None,
            accepted: now,
            said_goodbye: false,
            finished: false,
            reading: true,
            life: Life::Open,
            since: now,
            within_head: true,
        }
    }

    /// It begins with a header of the PROXY protocol.
    pub(super) fn expect_header(&mut self) {
        self.header = Some(Vec::new());
    }

    /// Takes the header that it begins with, if it does, and the client from it.
    ///
    /// # Errors
    /// It is not a header.
    pub(super) fn take_header(&mut self, lease: Lease) -> Result<Header, Malformed> {
        let Some(mut bytes) = self.header.take() else {
            return Ok(Header::None(lease));
        };
        // Copy: once in the life of a connection, and mostly of one packet.
        bytes.extend_from_slice(&lease);
        match proxy_protocol::parse(&bytes)? {
            None => {
                self.header = Some(bytes);
                Ok(Header::Partial)
            }
            Some(header) => {
                if let Some(ends) = header.ends {
                    (self.peer, self.destination) = (ends.source, Some(ends.destination));
                }
                bytes.drain(..header.len);
                Ok(Header::Whole { named: header.ends.is_some(), rest: bytes })
            }
        }
    }

    /// Whether the header that it begins with is not whole.
    pub(in crate::worker) fn waits_for_header(&self) -> bool {
        self.header.is_some()
    }

    /// Takes what arrived, except of a handshake: see [`super::table::Table::defer`].
    pub(in crate::worker) fn receive(&mut self, lease: Lease, now: Instant) {
        if self.life != Life::Open {
            return;
        }
        match &mut self.tls {
            None => self.protocol.receive(lease.into_chunk(), now),
            Some(tls) => {
                let received = tls.receive(lease, |chunk| self.protocol.receive(chunk, now), &mut self.sealed);
                let ended = tls.peer_closed();
                self.received(received, ended);
            }
        }
        self.note_head(now);
    }

    /// Whether what arrives is part of a handshake.
    pub(super) fn shakes_hands(&self) -> bool {
        self.life == Life::Open && self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Whether it has waited for us since the client said something.
    pub(super) fn is_deferred(&self) -> bool {
        !self.early.is_empty()
    }

    /// Keeps part of a handshake for later: as much as one turn brings, for then the socket is not read.
    pub(super) fn defer(&mut self, bytes: &[u8]) {
        // Copy: the receive buffer is not held while others have their turn.
        self.early.extend_from_slice(bytes);
    }

    /// Takes what was deferred. What comes behind the end of a handshake waits until it says what is spoken.
    pub(in crate::worker) fn shake_hands(&mut self, bounds: &Bounds, now: Instant) {
        let bytes = std::mem::take(&mut self.early);
        let Some(tls) = self.tls.as_mut().filter(|_| self.life == Life::Open) else { return };
        let mut early = Vec::new();
        let received = tls.receive(Lease::from_vec(bytes), |chunk| early.push(chunk), &mut self.sealed);
        let ended = tls.peer_closed();
        if !tls.is_handshaking() && received.is_ok() {
            self.settled = Some(Ok(()));
            if tls.alpn() == Some(Alpn::H2) {
                self.protocol = Protocol::H2(Box::new(h2::ServerConnection::new(bounds.h2, self.pool.clone(), now)));
                self.within_head = false;
                self.since = now;
            }
            for chunk in early {
                self.protocol.receive(chunk, now);
            }
        }
        self.received(received, ended);
        if std::mem::take(&mut self.early_end) {
            self.receive_end();
        }
        self.note_head(now);
    }

    /// A head has begun to arrive.
    fn note_head(&mut self, now: Instant) {
        if !self.within_head && self.protocol.is_within_head() {
            self.within_head = true;
            self.since = now;
        }
    }

    /// What TLS said of what came.
    fn received(&mut self, received: Result<(), tls::Fault>, ended: bool) {
        match received {
            Ok(()) if ended => self.receive_end(),
            Ok(()) => {}
            Err(fault) => self.fail(fault),
        }
    }

    /// The client finished its direction.
    pub(in crate::worker) fn receive_end(&mut self) {
        if self.is_deferred() {
            self.early_end = true;
            return;
        }
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        match &mut self.tls {
            Some(tls) if tls.is_handshaking() => {
                if let Err(fault) = tls.receive_end() {
                    self.fail(fault);
                }
            }
            // Clients that end without a word of TLS are many; what of theirs was cut, its framing tells.
            _ => self.protocol.receive_end(),
        }
    }

    /// TLS cannot go on.
    fn fail(&mut self, fault: tls::Fault) {
        let mistaken = fault.kind == tls::FaultKind::PlainHttp;
        if mistaken {
            self.sealed.push(Chunk::from_static(respond::SPEAK_TLS));
        }
        self.life = if fault.tells || mistaken { Life::Ending } else { Life::Gone };
        self.protocol.receive_reset();
        self.settled = Some(Err(fault));
    }

    /// The socket failed in either direction.
    pub(in crate::worker) fn receive_failure(&mut self) {
        self.finished = true;
        if self.life != Life::Cut {
            self.life = Life::Gone;
            self.protocol.receive_reset();
        }
    }

    /// The socket's queue moved to this many bytes.
    pub(in crate::worker) fn sent(&mut self, queued: usize, now: Instant) {
        self.queued = queued;
        self.since = now;
        self.protocol.sent();
    }

    /// What is spoken.
    pub(in crate::worker) fn kind(&self) -> kinds::Protocol {
        self.protocol.kind()
    }

    /// What the handshake ended with; `None` without TLS.
    pub(in crate::worker) fn handshake(&self) -> Option<&Rc<Handshake>> {
        self.tls.as_ref().map(|tls| tls.handshake())
    }

    /// The certificate that the client showed.
    pub(in crate::worker) fn certificate(&self) -> Option<Rc<ShownCertificate>> {
        self.tls.as_ref()?.client_certificate()
    }

    /// Whether requests for this host belong on this connection.
    pub(in crate::worker) fn serves(&self, host: &str) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.serves(host))
    }

    /// Whether the client left.
    pub(in crate::worker) fn is_gone(&self) -> bool {
        self.life == Life::Gone
    }

    /// What the client did too often, if that closed the connection.
    pub(in crate::worker) fn flood(&self) -> Option<h2::Glitch> {
        self.protocol.flood()
    }

    /// The client's end of an exchange.
    pub(in crate::worker) fn end(&mut self, stream: u64) -> Downstream<'_> {
        self.protocol.end(stream, &mut self.output, self.queued, self.alt_svc.as_deref())
    }

    /// Says whose a stream is; an exchange began or is over.
    pub(in crate::worker) fn set_owner(&mut self, stream: u64, owner: u32, now: Instant) {
        match owner {
            NO_OWNER => self.exchanges = self.exchanges.saturating_sub(1),
            _ => self.exchanges += 1,
        }
        self.protocol.set_owner(stream, owner);
        if owner == NO_OWNER {
            self.since = now;
            self.within_head = self.protocol.is_within_head();
        }
    }

    /// The next thing to tell, if any.
    pub(in crate::worker) fn next_told(&mut self, times: &Times, now: Instant) -> Option<Told> {
        self.stuck = false;
        let told = match self.life {
            Life::Gone | Life::Ending => return self.protocol.next_bereaved(),
            Life::Cut | Life::Lingering { .. } => return None,
            Life::Open if self.is_late(times, now) && self.queued == 0 => {
                self.protocol.refuse_head(Reason::ClientHeadTimeout)?
            }
            Life::Open => self.protocol.next_told(self.finished)?,
        };
        if let Told::Gone(owner, _) = told {
            self.life = Life::Gone;
            return Some(told).filter(|_| owner != NO_OWNER);
        }
        Some(told)
    }

    /// Whether there may be something to tell although nothing arrived.
    pub(in crate::worker) fn has_events(&self) -> bool {
        !matches!(self.life, Life::Cut | Life::Lingering { .. }) && self.protocol.has_events()
    }

    /// Hands what the protocol wants to send to the socket.
    pub(in crate::worker) fn flush(&mut self, io: &mut impl Io) {
        if self.protocol.is_cut() {
            self.life = Life::Cut;
        }
        match self.life {
            Life::Cut | Life::Gone => {
                self.output.clear();
                self.sealed.clear();
                return;
            }
            Life::Ending => self.output.clear(),
            Life::Open | Life::Lingering { .. } => {
                self.protocol.transmit(&mut self.output, self.queued);
            }
        }
        if let Some(tls) = &mut self.tls
            // An error is one of the library: there is nothing that could be said of it.
            && tls.send(&mut self.output, &mut self.sealed).is_err()
        {
            self.life = Life::Cut;
            return;
        }
        self.queue(io);
        if self.protocol.ends_sending() && !std::mem::replace(&mut self.said_goodbye, true) {
            if let Some(tls) = &mut self.tls {
                tls.close_notify(&mut self.sealed);
            }
            self.queue(io);
            io.shutdown(self.stream);
        }
    }

    /// Puts what is ready into the socket's queue.
    fn queue(&mut self, io: &mut impl Io) {
        let output = if self.tls.is_some() { &mut self.sealed } else { &mut self.output };
        while let Some(chunk) = output.pop() {
            let chunk = self.pool.keep(chunk, self.queued, usize::MAX);
            self.queued += chunk.len();
            io.send(self.stream, chunk);
        }
    }

    /// What becomes of the connection, and whether it is read.
    pub(in crate::worker) fn verdict(&mut self, times: &Times, io: &mut impl Io, now: Instant) -> Verdict {
        match self.life {
            Life::Cut => return Verdict::Abort,
            Life::Gone if self.protocol.is_idle() => return Verdict::Close,
            Life::Gone => return Verdict::Stay,
            Life::Lingering { until } if self.finished || until <= now => return Verdict::Close,
            Life::Lingering { .. } => return Verdict::Stay,
            Life::Ending if self.queued == 0 && self.protocol.is_idle() => return self.linger(io, now),
            Life::Ending => {}
            Life::Open if self.protocol.is_idle() && self.queued == 0 => {
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
            Life::Open => {}
        }
        if self.is_late(times, now) {
            if self.queued > 0 {
                return Verdict::Abort;
            }
            self.protocol.retire();
            return if self.says_goodbye(io) { Verdict::Stay } else { Verdict::Close };
        }
        if self.pool.is_spent() {
            self.protocol.unpin();
        }
        self.read(self.protocol.wants_read() && !self.is_deferred(), io);
        Verdict::Stay
    }

    /// Whether there was a last word to send.
    fn says_goodbye(&mut self, io: &mut impl Io) -> bool {
        if std::mem::replace(&mut self.said_goodbye, true) {
            return false;
        }
        self.flush(io);
        if let Some(tls) = &mut self.tls {
            tls.close_notify(&mut self.sealed);
            self.flush(io);
        }
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

    fn is_late(&self, times: &Times, now: Instant) -> bool {
        self.deadline(times).is_some_and(|deadline| deadline <= now)
    }

    /// When it has waited too long. While an exchange runs, that is the exchange's own business.
    pub(in crate::worker) fn deadline(&self, times: &Times) -> Option<Instant> {
        match self.life {
            Life::Lingering { until } => return Some(until),
            _ if !self.protocol.is_idle() => return None,
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
    pub(super) fn is_quiet(&self) -> bool {
        self.protocol.is_idle() && self.queued == 0 && self.output.is_empty() && matches!(self.life, Life::Open)
    }

    /// Takes no new request and ends behind those that run.
    pub(in crate::worker) fn drain(&mut self) {
        self.protocol.drain();
    }

    /// Copies what stands still out of the receive pool.
    pub(super) fn relieve(&mut self) {
        if std::mem::replace(&mut self.stuck, true) {
            self.protocol.unpin();
        }
    }

    fn read(&mut self, wanted: bool, io: &mut impl Io) {
        if wanted != self.reading && !self.finished {
            self.reading = wanted;
            if wanted { io.resume(self.stream) } else { io.pause(self.stream) }
        }
    }
}
