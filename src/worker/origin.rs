//! One connection to an origin: a socket, an optional layer of TLS above it, and the protocol above that.
//!
//! Owns what stands between the socket and the protocol machine, and who waits for the connection to be made. How many there
//! are and who may use one is [`super::origins`]'s.

use super::dial::Dial;
use crate::config::BackendId;
use crate::h1;
use crate::h2;
use crate::http::Output;
use crate::proxy_protocol::Ends;
use crate::tls;
use spooky_uring::{Chunk, Lease, StreamId};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

/// What is spoken.
pub enum Speech {
    /// The connection is being made, or TLS has not said yet.
    Unsettled,
    /// HTTP/1.1: one exchange at a time.
    H1(Box<h1::ClientConnection>),
    /// HTTP/2: many.
    H2(Box<h2::ClientConnection>),
}

impl Speech {
    fn receive_end(&mut self) {
        match self {
            Self::Unsettled => {}
            Self::H1(connection) => connection.receive_end(),
            Self::H2(connection) => connection.receive_end(),
        }
    }

    fn receive_reset(&mut self) {
        match self {
            Self::Unsettled => {}
            Self::H1(connection) => connection.receive_reset(),
            Self::H2(connection) => connection.receive_reset(),
        }
    }
}

/// One connection.
pub struct Origin {
    /// Its socket.
    pub stream: StreamId,
    /// Whom it leads to, if its backend has a name.
    pub address: Option<SocketAddr>,
    /// The addresses that race while it is being made, if its backend has a name.
    pub dial: Option<Box<Dial>>,
    /// The backend it leads to.
    pub backend: BackendId,
    /// Whose connection it was made for, as its header of the PROXY protocol says: it carries nobody else's requests. `None`: it
    /// has no header, or one that names nobody.
    pub client: Option<Ends>,
    /// TLS, above the socket.
    pub tls: Option<tls::ClientSession>,
    /// What is sealed and goes to the socket.
    pub sealed: Output,
    /// Why TLS ended.
    pub fault: Option<tls::Fault>,
    /// The protocol.
    pub speech: Speech,
    /// What came before it was settled: no more than one turn brings.
    pub early: Vec<Chunk>,
    /// Exchanges that wait for it to be made, or want a tunnel and wait for HTTP/2 to say whether it takes one. Each exchange
    /// waits in one place.
    pub waiting: VecDeque<u32>,
    /// The exchange that has it, if it is one of HTTP/1.1.
    pub exchange: Option<u32>,
    /// Invariant: it stands in the pool of unused connections exactly when set.
    pub resting: bool,
    /// Whether it carried an exchange before the one it has.
    pub reused: bool,
    /// Whether FIN was sent, because one direction of a tunnel has ended.
    pub said_end: bool,
    /// Whether receiving is paused, because nobody takes what arrived.
    pub paused: bool,
    /// When connecting began.
    pub began: Instant,
    /// Nothing was taken off it since the receive pool was last looked through for what pins it.
    pub stuck: bool,
    /// Whether it stands on the worker's ready list.
    pub ready: bool,
    /// Whether it stands on the worker's list of those that have something to send.
    pub unsent: bool,
}

impl Origin {
    /// A connection that is being made for an exchange.
    pub fn new(stream: StreamId, backend: BackendId, exchange: u32, now: Instant) -> Self {
        Self {
            stream,
            address: None,
            dial: None,
            backend,
            client: None,
            tls: None,
            sealed: Output::new(),
            fault: None,
            speech: Speech::Unsettled,
            early: Vec::new(),
            waiting: VecDeque::from([exchange]),
            exchange: None,
            resting: false,
            reused: false,
            said_end: false,
            paused: false,
            began: now,
            stuck: false,
            ready: false,
            unsent: false,
        }
    }

    /// Whether a socket is this connection's, or may become it.
    pub fn owns(&self, stream: StreamId) -> bool {
        self.stream == stream || self.dial.as_ref().is_some_and(|dial| dial.has(stream))
    }

    /// Whether it is known what is spoken.
    pub fn is_settled(&self) -> bool {
        !matches!(self.speech, Speech::Unsettled)
    }

    /// Whether it is made and nobody uses it.
    pub fn is_unused(&self) -> bool {
        match &self.speech {
            Speech::Unsettled => false,
            Speech::H1(_) => self.exchange.is_none(),
            Speech::H2(connection) => {
                connection.streams_open() == 0 && !connection.is_draining() && self.waiting.is_empty()
            }
        }
    }

    /// Whether it is a tunnel: nothing else will ever go over it.
    pub fn is_tunnel(&self) -> bool {
        matches!(&self.speech, Speech::H1(connection) if connection.is_tunnel())
    }

    /// Takes what arrived.
    pub fn receive(&mut self, lease: Lease, now: Instant) {
        let Self { tls, speech, early, sealed, .. } = self;
        let mut take = |chunk: Chunk| match speech {
            Speech::Unsettled => early.push(chunk),
            Speech::H1(connection) => connection.receive(chunk),
            Speech::H2(connection) => connection.receive(chunk, now),
        };
        let Some(tls) = tls else {
            take(lease.into_chunk());
            return;
        };
        let received = tls.receive(lease, &mut take, sealed);
        if tls.peer_closed() {
            speech.receive_end();
        }
        if let Err(fault) = received {
            speech.receive_reset();
            self.fault = Some(fault);
        }
    }

    /// The origin closed its direction. Without a word of TLS before, what came may be cut (RFC 8446 §6.1).
    pub fn receive_end(&mut self) {
        match self.tls.as_mut().map_or(Ok(()), tls::ClientSession::receive_end) {
            Ok(()) => self.speech.receive_end(),
            Err(fault) => {
                self.speech.receive_reset();
                self.fault = Some(fault);
            }
        }
    }

    /// The socket failed.
    pub fn receive_reset(&mut self) {
        self.speech.receive_reset();
    }

    /// Gives the protocol what came before it was settled.
    pub fn take_early(&mut self, now: Instant) {
        for chunk in std::mem::take(&mut self.early) {
            match &mut self.speech {
                Speech::Unsettled => {}
                Speech::H1(connection) => connection.receive(chunk),
                Speech::H2(connection) => connection.receive(chunk, now),
            }
        }
    }

    /// Whether the socket should be read.
    pub fn wants_read(&self) -> bool {
        match &self.speech {
            Speech::Unsettled => true,
            Speech::H1(connection) => connection.wants_read(),
            Speech::H2(connection) => connection.wants_read(),
        }
    }

    /// Copies what waits out of the receive pool.
    pub fn unpin(&mut self) {
        match &mut self.speech {
            Speech::Unsettled => {}
            Speech::H1(connection) => connection.unpin(),
            Speech::H2(connection) => connection.unpin(),
        }
    }

    /// The same, if it stands still.
    pub fn relieve(&mut self) {
        if std::mem::replace(&mut self.stuck, true) {
            self.unpin();
        }
    }
}
