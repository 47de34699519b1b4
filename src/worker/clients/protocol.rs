//! What is spoken on one connection over TCP: HTTP/1.1 or HTTP/2, in the same verbs.
//!
//! Owns what differs between the two for the connection around them: how many exchanges there are, what a FIN means, when
//! the connection has come to its end. The verbs of an exchange itself are [`crate::exchange::Downstream`]'s.

use super::tcp::Told;
use crate::exchange::Downstream;
use crate::h1::{self, Closing, Next};
use crate::h2;
use crate::http::{Event, NO_OWNER, Output, Reason, StreamRef};
use crate::limits;
use crate::telemetry::kinds;
use spooky_uring::Chunk;
use std::time::Instant;

/// One of the two.
pub(super) enum Protocol {
    /// HTTP/1.1 or 1.0.
    H1(Box<H1>),
    /// HTTP/2.
    H2(Box<h2::ServerConnection>),
}

/// HTTP/1.1 carries one exchange at a time.
pub(super) struct H1 {
    connection: h1::ServerConnection,
    /// The exchange of the request under way.
    owner: u32,
    /// The socket's queue moved and the exchange has not heard.
    room: bool,
    /// The connection's fault was told.
    faulted: bool,
    /// Set when the response that was begun will not be whole.
    cut: bool,
}

impl H1 {
    pub(super) fn new(connection: h1::ServerConnection) -> Self {
        Self { connection, owner: NO_OWNER, room: false, faulted: false, cut: false }
    }

    /// The next thing to tell. `gone`: nobody is at the other end, or it said that it sends no more.
    fn next_told(&mut self, gone: bool) -> Option<Told> {
        let at = StreamRef { stream: 0, owner: self.owner };
        if self.owner != NO_OWNER {
            if std::mem::take(&mut self.room) {
                return Some(Told::Event(at, Event::Room));
            }
            // The response is given, and what is queued of it keeps its exchange: the next request waits for both.
            if self.connection.is_between() {
                return None;
            }
        }
        match self.connection.next_event() {
            Ok(Some(event)) => Some(Told::Event(at, event)),
            // Whoever closes while a response is due has gone: a client that means to read it does not say that it ends. In
            // a tunnel it may.
            Ok(None) if gone && self.owner != NO_OWNER && !self.waits_for_client() => {
                Some(Told::Gone(self.owner, Reason::ClientGone))
            }
            Ok(None) => None,
            // A fault is said again for as long as one asks.
            Err(_) if std::mem::replace(&mut self.faulted, true) => None,
            Err(fault) => match (fault.next, fault.reason()) {
                (Next::Respond, Some(reason)) if self.owner != NO_OWNER => {
                    Some(Told::Event(at, Event::Refused(reason.into())))
                }
                (_, reason) => Some(Told::Gone(self.owner, reason.unwrap_or(Reason::ClientGone))),
            },
        }
    }

    fn waits_for_client(&self) -> bool {
        self.connection.is_receiving() || self.connection.is_tunnel()
    }
}

impl Protocol {
    /// Its name.
    pub(super) fn kind(&self) -> kinds::Protocol {
        match self {
            Self::H1(_) => kinds::Protocol::H1,
            Self::H2(_) => kinds::Protocol::H2,
        }
    }

    /// Takes what arrived.
    pub(super) fn receive(&mut self, bytes: Chunk, now: Instant) {
        match self {
            Self::H1(h1) => h1.connection.receive(bytes),
            Self::H2(connection) => connection.receive(bytes, now),
        }
    }

    /// The client finished its direction.
    pub(super) fn receive_end(&mut self) {
        match self {
            Self::H1(h1) => h1.connection.receive_end(),
            Self::H2(connection) => connection.receive_end(),
        }
    }

    /// The connection is lost.
    pub(super) fn receive_reset(&mut self) {
        match self {
            Self::H1(_) => {}
            Self::H2(connection) => connection.receive_reset(),
        }
    }

    /// The socket's queue moved.
    pub(super) fn sent(&mut self) {
        match self {
            Self::H1(h1) => h1.room = h1.owner != NO_OWNER,
            // It hears of it when it may transmit again.
            Self::H2(_) => {}
        }
    }

    /// Says whose a stream is.
    pub(super) fn set_owner(&mut self, stream: u64, owner: u32) {
        match self {
            Self::H1(h1) => {
                h1.owner = owner;
                h1.room = false;
            }
            Self::H2(connection) => connection.set_owner(stream, owner),
        }
    }

    /// The next thing to tell. `gone`: the other side sends no more.
    pub(super) fn next_told(&mut self, gone: bool) -> Option<Told> {
        match self {
            Self::H1(h1) => h1.next_told(gone),
            Self::H2(connection) => connection.next_event().map(|(stream, event)| Told::Event(stream, event)),
        }
    }

    /// The next thing to tell when the client is gone: HTTP/2 tells each of its streams itself.
    pub(super) fn next_bereaved(&mut self) -> Option<Told> {
        match self {
            Self::H1(h1) => Some(Told::Gone(h1.owner, Reason::ClientGone)).filter(|_| h1.owner != NO_OWNER),
            Self::H2(_) => self.next_told(true),
        }
    }

    /// Whether there may be something to tell although nothing arrived.
    pub(super) fn has_events(&self) -> bool {
        match self {
            Self::H1(_) => false,
            Self::H2(connection) => connection.has_events(),
        }
    }

    /// The client's end of an exchange.
    pub(super) fn end<'a>(
        &'a mut self,
        stream: u64,
        out: &'a mut Output,
        queued: usize,
        alt_svc: Option<&'a [u8]>,
    ) -> Downstream<'a> {
        match self {
            Self::H1(h1) => {
                let H1 { connection, cut, .. } = &mut **h1;
                Downstream::H1 { connection, out, queued, cut, alt_svc }
            }
            Self::H2(connection) => Downstream::H2 { connection, stream, alt_svc },
        }
    }

    /// Moves what wants to leave to `out`, as far as the socket's queue has room.
    pub(super) fn transmit(&mut self, out: &mut Output, queued: usize) {
        if let Self::H2(connection) = self
            && queued < limits::CLIENT_QUEUE_BYTES
        {
            connection.transmit(out);
        }
    }

    /// Whether nothing more will be sent although the client may go on: the end of our direction of a tunnel.
    pub(super) fn ends_sending(&self) -> bool {
        matches!(self, Self::H1(h1) if h1.connection.ends_sending())
    }

    /// Whether a response was begun that will not be whole, which only a reset of the connection can tell.
    pub(super) fn is_cut(&self) -> bool {
        matches!(self, Self::H1(h1) if h1.cut)
    }

    /// Whether no exchange is under way.
    pub(super) fn is_idle(&self) -> bool {
        match self {
            Self::H1(h1) => h1.owner == NO_OWNER,
            Self::H2(connection) => connection.streams_open() == 0 && !connection.has_events(),
        }
    }

    /// Whether and how the connection ends, once no exchange runs and what it wrote has left.
    pub(super) fn closing(&self) -> Closing {
        match self {
            Self::H1(h1) => h1.connection.closing(),
            Self::H2(connection) if connection.is_closed() => Closing::Linger,
            Self::H2(_) => Closing::No,
        }
    }

    /// Whether a request head has begun to arrive and is not whole.
    pub(super) fn is_within_head(&self) -> bool {
        matches!(self, Self::H1(h1) if h1.connection.is_within_head())
    }

    /// Gives up on such a head: the refusal wants an answer. HTTP/2 has heads of many streams, and no answer for half of one.
    pub(super) fn refuse_head(&mut self, reason: Reason) -> Option<Told> {
        match self {
            Self::H1(h1) if h1.connection.is_within_head() => {
                let at = StreamRef { stream: 0, owner: NO_OWNER };
                Some(Told::Event(at, h1.connection.refuse_head(reason)))
            }
            _ => None,
        }
    }

    /// Whether the socket should be read.
    pub(super) fn wants_read(&self) -> bool {
        match self {
            Self::H1(h1) => h1.connection.wants_read(),
            Self::H2(connection) => connection.wants_read(),
        }
    }

    /// Moves received bytes that wait out of the worker's receive pool.
    pub(super) fn unpin(&mut self) {
        match self {
            Self::H1(h1) => h1.connection.unpin(),
            Self::H2(connection) => connection.unpin(),
        }
    }

    /// Takes no new request and ends behind those that run.
    pub(super) fn drain(&mut self) {
        match self {
            Self::H1(h1) => h1.connection.drain(),
            Self::H2(connection) => connection.goaway(),
        }
    }

    /// Nothing was asked for too long: what is said before the end.
    pub(super) fn retire(&mut self) {
        match self {
            Self::H1(_) => {}
            Self::H2(connection) => connection.close(h2::code::NO_ERROR),
        }
    }

    /// What the client did too often, if that closed the connection.
    pub(super) fn flood(&self) -> Option<h2::Glitch> {
        match self {
            Self::H1(_) => None,
            Self::H2(connection) => connection.flood(),
        }
    }
}
