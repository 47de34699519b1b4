//! HTTP/2 and HTTP/1.1 in the same verbs.

use super::super::plan::Protocol;
use super::super::tally::Fault;
use super::dial::Terms;
use spooky::http::{Event, Output, PoolShare, Reason, RequestHead, ResponseHead};
use spooky::{h1, h2};
use spooky_uring::Chunk;
use std::time::Instant;

/// The one stream that HTTP/1.1 has.
const ONLY_STREAM: u64 = 0;

/// What came.
pub enum Told {
    /// An event of a stream.
    Event(u64, Event<ResponseHead>),
    /// The connection cannot go on, and its only exchange with it.
    Broken(u64, Fault),
    /// Nothing.
    Nothing,
}

/// Speaks.
pub enum Machine {
    /// HTTP/1.1, and whether its exchange was given up.
    H1(Box<h1::ClientConnection>, bool),
    /// HTTP/2.
    H2(Box<h2::ClientConnection>),
}

impl Machine {
    /// On a connection that was just made.
    pub fn new(terms: &Terms, now: Instant) -> Self {
        match terms.protocol {
            Protocol::H2 => Self::H2(Box::new(h2::ClientConnection::new(terms.h2, PoolShare::unbounded(), now))),
            _ => Self::H1(Box::new(h1::ClientConnection::new(h1::Limits::CLIENT)), false),
        }
    }

    /// Whether one more request may be sent.
    pub fn can_open(&self) -> bool {
        match self {
            Self::H1(h1, cancelled) => !cancelled && h1.is_reusable(),
            Self::H2(h2) => h2.can_open(),
        }
    }

    /// Whether no further request is of use here.
    pub fn is_retiring(&self) -> bool {
        match self {
            Self::H1(h1, cancelled) => *cancelled || h1.is_idle() && !h1.is_reusable(),
            Self::H2(h2) => h2.is_draining(),
        }
    }

    /// Whether the server ended the connection, in the protocol's words.
    pub fn is_over(&self) -> bool {
        match self {
            Self::H1(..) => false,
            Self::H2(h2) => h2.close_cause().is_some(),
        }
    }

    /// Sends a head; `end`: no body follows.
    pub fn open(&mut self, head: &RequestHead, end: bool, out: &mut Output) -> Option<u64> {
        match self {
            Self::H1(h1, _) if h1.is_reusable() => {
                h1.send_head(head, None, h1::Framing::of(head, end), out);
                Some(ONLY_STREAM)
            }
            Self::H1(..) => None,
            Self::H2(h2) => h2.open(head, head.authority.as_str(), end).ok(),
        }
    }

    /// Lets so many more body bytes come.
    pub fn grant(&mut self, stream: u64, bytes: usize) {
        match self {
            Self::H1(h1, _) => h1.grant(bytes),
            Self::H2(h2) => h2.grant(stream, bytes),
        }
    }

    /// Whether the socket should be read.
    pub fn wants_read(&self) -> bool {
        match self {
            Self::H1(h1, _) => h1.wants_read(),
            Self::H2(h2) => h2.wants_read(),
        }
    }

    /// Takes what arrived.
    pub fn receive(&mut self, bytes: Chunk, now: Instant) {
        match self {
            Self::H1(h1, _) => h1.receive(bytes),
            Self::H2(h2) => h2.receive(bytes, now),
        }
    }

    /// The socket ended: `cleanly`, or not.
    pub fn receive_end(&mut self, cleanly: bool) {
        match (self, cleanly) {
            (Self::H1(h1, _), true) => h1.receive_end(),
            (Self::H1(h1, _), false) => h1.receive_reset(),
            (Self::H2(h2), true) => h2.receive_end(),
            (Self::H2(h2), false) => h2.receive_reset(),
        }
    }

    /// What came next.
    pub fn next_event(&mut self) -> Told {
        match self {
            Self::H1(h1, _) => match h1.next_event() {
                Ok(Some(event)) => Told::Event(ONLY_STREAM, event),
                Ok(None) => Told::Nothing,
                Err(fault) => Told::Broken(ONLY_STREAM, judged(fault)),
            },
            Self::H2(h2) => match h2.next_event() {
                Some((of, event)) => Told::Event(of.stream, event),
                None => Told::Nothing,
            },
        }
    }

    /// Whether [`Machine::next_event`] may have something.
    pub fn has_events(&self) -> bool {
        match self {
            // All are taken each time.
            Self::H1(..) => false,
            Self::H2(h2) => h2.has_events(),
        }
    }

    /// Body bytes that may be given now, where `free` are left on the way to the socket.
    pub fn room(&self, stream: u64, free: usize) -> usize {
        match self {
            Self::H1(..) => free,
            Self::H2(h2) => h2.room(stream),
        }
    }

    /// Sends a piece of the request's body.
    pub fn send_body(&mut self, stream: u64, bytes: Chunk, out: &mut Output) {
        match self {
            Self::H1(h1, _) => h1.send_body(bytes, out),
            Self::H2(h2) => h2.send_body(stream, bytes),
        }
    }

    /// The request is complete.
    pub fn end(&mut self, stream: u64, out: &mut Output) {
        match self {
            Self::H1(h1, _) => h1.end(out),
            Self::H2(h2) => h2.end(stream),
        }
    }

    /// Gives an exchange up: on HTTP/1.1 the connection with it.
    pub fn cancel(&mut self, stream: u64) {
        match self {
            Self::H1(_, cancelled) => *cancelled = true,
            Self::H2(h2) => h2.reset(stream, h2::code::CANCEL),
        }
    }

    /// Says goodbye, where the protocol has a word for it.
    pub fn close(&mut self) {
        if let Self::H2(h2) = self {
            h2.close(h2::code::NO_ERROR);
        }
    }

    /// Whether [`Machine::transmit`] may have something.
    pub fn has_output(&self) -> bool {
        match self {
            Self::H1(..) => false,
            Self::H2(h2) => h2.has_output(),
        }
    }

    /// Gives what wants to leave; HTTP/1.1 gave it with each command.
    pub fn transmit(&mut self, out: &mut Output) {
        if let Self::H2(h2) = self {
            h2.transmit(out);
        }
    }
}

/// What a fault of HTTP/1.1 counts as.
fn judged(fault: h1::Fault) -> Fault {
    match fault.reason() {
        Some(Reason::UpstreamClosed | Reason::UpstreamReset | Reason::UpstreamIncomplete) => Fault::ConnectionLost,
        _ => Fault::Protocol,
    }
}
