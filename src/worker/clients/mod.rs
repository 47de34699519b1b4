//! The clients' connections of one worker, over every transport.
//!
//! Owns where a connection is found ([`Downkey`]) and what the worker keeps for each beside its protocol ([`Client`]). A
//! connection belongs to one transport: [`quic`] has the datagram side. Who only needs the client's end of an exchange asks
//! [`Clients::end`] and never learns which it is.

pub mod quic;

use crate::exchange::Downstream;
use crate::h3;
use crate::http::peer::Peer;
use crate::identity::{Handshake, ShownCertificate};
use crate::telemetry::kinds::Protocol;
use spooky_uring::TimerKey;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

/// A client's connection. A late use finds nothing instead of a stranger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Downkey {
    /// Over QUIC: the listener's position and the connection in its endpoint.
    Quic {
        /// The position in [`Clients::quic`].
        listener: u16,
        /// The connection.
        connection: h3::ConnKey,
    },
}

/// What a worker keeps for each client connection beside the protocol.
#[derive(Clone, Copy, Default)]
pub(super) struct Client {
    /// Whether it stands on the touched list.
    pub marked: bool,
    /// It had more events than one turn takes.
    pub unfinished: bool,
    /// Its entry in the wheel.
    pub armed: Option<(Instant, TimerKey)>,
    /// Its address in the forms that fields need, and whether it is a trusted proxy; made with the first request.
    pub peer: Option<(SocketAddr, Peer, bool)>,
}

/// All of them.
pub(super) struct Clients {
    /// Listeners of datagrams, by position.
    pub quic: Vec<quic::Listener>,
}

impl Clients {
    /// A connection over QUIC, while it lives.
    pub(super) fn quic(&mut self, listener: u16, connection: h3::ConnKey) -> Option<&mut h3::Connection> {
        self.quic[usize::from(listener)].endpoint.get_mut(connection)
    }

    /// The client's end of an exchange, while its connection lives.
    #[inline]
    pub(super) fn end(&mut self, key: Downkey, stream: u64) -> Option<Downstream<'_>> {
        match key {
            Downkey::Quic { listener, connection } => {
                self.quic(listener, connection).map(|connection| Downstream::H3 { connection, stream })
            }
        }
    }

    /// What is kept for a connection beside its protocol.
    #[inline]
    pub(super) fn client(&mut self, key: Downkey) -> Option<&mut Client> {
        match key {
            Downkey::Quic { listener, connection } => Some(self.quic[usize::from(listener)].client(connection)),
        }
    }

    /// Response bytes that the protocol still queues for a stream.
    pub(super) fn pending(&mut self, key: Downkey, stream: u64) -> usize {
        self.end(key, stream).map_or(0, |downstream| downstream.pending())
    }

    /// Says whose a stream is.
    pub(super) fn set_owner(&mut self, key: Downkey, stream: u64, owner: u32) {
        match key {
            Downkey::Quic { listener, connection } => {
                if let Some(connection) = self.quic(listener, connection) {
                    connection.set_owner(stream, owner);
                }
            }
        }
    }

    /// The client's address, by its validated path.
    pub(super) fn address(&mut self, key: Downkey) -> Option<SocketAddr> {
        match key {
            Downkey::Quic { listener, connection } => Some(self.quic(listener, connection)?.client()),
        }
    }

    /// What the handshake of a connection ended with.
    pub(super) fn handshake(&mut self, key: Downkey) -> Rc<Handshake> {
        match key {
            Downkey::Quic { listener, connection } => {
                self.quic(listener, connection).map(|connection| Rc::clone(connection.handshake())).unwrap_or_default()
            }
        }
    }

    /// Whether a request for `host` may come over this connection, as its handshake went (421 if not).
    pub(super) fn serves(&mut self, key: Downkey, host: &str) -> bool {
        match key {
            Downkey::Quic { listener, connection } => {
                self.quic(listener, connection).is_some_and(|connection| connection.serves(host))
            }
        }
    }

    /// The certificate that the client showed.
    pub(super) fn certificate(&mut self, key: Downkey) -> Option<Rc<ShownCertificate>> {
        match key {
            Downkey::Quic { listener, connection } => self.quic(listener, connection)?.client_certificate(),
        }
    }

    /// When a connection wants to be looked at without any event.
    pub(super) fn deadline(&mut self, key: Downkey) -> Option<Instant> {
        match key {
            Downkey::Quic { listener, connection } => self.quic(listener, connection)?.next_deadline(),
        }
    }

    /// Every connection there is.
    pub(super) fn keys(&self) -> Vec<Downkey> {
        let quic = self.quic.iter().enumerate().flat_map(|(at, listener)| {
            listener.endpoint.keys().map(move |connection| Downkey::Quic { listener: at as u16, connection })
        });
        quic.collect()
    }

    /// How many there are, closing ones included.
    pub(super) fn len(&self) -> usize {
        self.quic.iter().map(|listener| listener.endpoint.len()).sum()
    }
}

impl Downkey {
    /// What is spoken there.
    pub(super) fn protocol(self) -> Protocol {
        match self {
            Self::Quic { .. } => Protocol::H3,
        }
    }
}
