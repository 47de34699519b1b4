//! The clients' connections of one worker, over every transport.
//!
//! Owns where a connection is found ([`Downkey`]) and what the worker keeps for each beside its protocol ([`Client`]). A
//! connection belongs to one transport: [`quic`] has the datagram side; [`table`],
//! [`tcp`] and [`protocol`] the other. Who only needs the client's end of an exchange asks
//! [`Clients::end`] and never learns which it is.

pub mod protocol;
pub mod quic;
pub mod table;
pub mod tcp;

use crate::config::{Cleartext, Generation, Proxies, Security};
use crate::exchange::Downstream;
use crate::h1;
use crate::h2;
use crate::h3;
use crate::http::PoolShare;
use crate::http::peer::Peer;
use crate::identity::{Handshake, ShownCertificate};
use crate::limits::AddressRules;
use crate::telemetry::kinds::Protocol;
use crate::tls;
use spooky_uring::{ListenerId, TimerKey, UdpId};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tcp::Told;

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
    /// Over TCP.
    Tcp(table::Key),
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

/// A listening TCP socket of this worker.
#[derive(Clone, Debug)]
pub struct Door {
    /// The listener, by position in the configuration.
    pub listener: u16,
    /// Its socket.
    pub socket: ListenerId,
    /// Which addresses may connect; `None`: all.
    pub clients: Option<Arc<AddressRules>>,
    /// Whose connections begin with a header of the PROXY protocol; `None`: nobody's.
    pub proxies: Option<Proxies>,
    /// What connections begin with; `None`: without TLS.
    pub acceptor: Option<Rc<tls::Acceptor>>,
    /// The value of Alt-Svc in its responses.
    pub alt_svc: Option<Rc<[u8]>>,
}

impl Door {
    /// Whether a connection from there begins with a header of the PROXY protocol.
    pub(super) fn expects_header(&self, peer: SocketAddr) -> bool {
        self.proxies.as_ref().is_some_and(|proxies| proxies.from.admits(peer.ip()))
    }

    /// Whether connections without such a header are refused.
    pub(super) fn takes_only_proxies(&self) -> bool {
        self.proxies.as_ref().is_some_and(|proxies| proxies.only)
    }

    /// Whether a client at an address may come.
    pub(super) fn admits(&self, client: SocketAddr) -> bool {
        self.clients.as_ref().is_none_or(|clients| clients.admits(client.ip()))
    }
}

/// All of them.
pub(super) struct Clients {
    /// Listeners of datagrams, by position.
    pub quic: Vec<quic::Listener>,
    /// Connections over TCP, of all listeners.
    pub tcp: table::Table,
    /// Listening sockets of TCP, by position.
    pub doors: Vec<Door>,
    most: usize,
    /// What a connection without TLS has to show.
    unsecured: Rc<Handshake>,
}

impl Clients {
    /// No clients yet.
    pub(super) fn new(
        quic: Vec<(h3::Endpoint, UdpId)>,
        doors: Vec<Door>,
        generation: &Generation,
        pool: &PoolShare,
    ) -> Self {
        let performance = &generation.performance;
        let protocol = &generation.protocol;
        let times = table::Times {
            head: performance.client_header_timeout,
            idle: performance.client_idle_timeout,
            send: performance.client_send_timeout,
        };
        let bounds = table::Bounds {
            h1: h1::Limits { head: protocol.head_limits_h1(), ..h1::Limits::SERVER },
            h2: h2::Settings { head: protocol.head_limits(), ..h2::Settings::SERVER },
            pool: pool.clone(),
        };
        Self {
            quic: quic.into_iter().map(|(endpoint, socket)| quic::Listener::new(endpoint, socket)).collect(),
            tcp: table::Table::new(times, bounds, performance.address_limits()),
            doors,
            most: performance.share(performance.max_active_connections) as usize,
            unsecured: Rc::default(),
        }
    }

    /// Whether one more connection may come.
    pub(super) fn has_room(&self) -> bool {
        self.len() < self.most
    }

    /// The next thing that a connection has to tell.
    #[inline]
    pub(super) fn next_told(&mut self, key: Downkey, now: Instant) -> Option<Told> {
        match key {
            Downkey::Quic { listener, connection } => {
                let (stream, event) = self.quic(listener, connection)?.next_event()?;
                Some(Told::Event(stream, event))
            }
            Downkey::Tcp(key) => {
                let times = self.tcp.times;
                self.tcp.get_mut(key)?.next_told(&times, now)
            }
        }
    }

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
            Downkey::Tcp(key) => Some(self.tcp.get_mut(key)?.end(stream)),
        }
    }

    /// What is kept for a connection beside its protocol.
    #[inline]
    pub(super) fn client(&mut self, key: Downkey) -> Option<&mut Client> {
        match key {
            Downkey::Quic { listener, connection } => Some(self.quic[usize::from(listener)].client(connection)),
            Downkey::Tcp(key) => Some(&mut self.tcp.get_mut(key)?.client),
        }
    }

    /// Response bytes that the protocol still queues for a stream.
    pub(super) fn pending(&mut self, key: Downkey, stream: u64) -> usize {
        self.end(key, stream).map_or(0, |downstream| downstream.pending())
    }

    /// Says whose a stream is.
    pub(super) fn set_owner(&mut self, key: Downkey, stream: u64, owner: u32, now: Instant) {
        match key {
            Downkey::Quic { listener, connection } => {
                if let Some(connection) = self.quic(listener, connection) {
                    connection.set_owner(stream, owner);
                }
            }
            Downkey::Tcp(key) => {
                if let Some(tcp) = self.tcp.get_mut(key) {
                    tcp.set_owner(stream, owner, now);
                }
            }
        }
    }

    /// The client's address, by its validated path.
    pub(super) fn address(&mut self, key: Downkey) -> Option<SocketAddr> {
        match key {
            Downkey::Quic { listener, connection } => Some(self.quic(listener, connection)?.client()),
            Downkey::Tcp(key) => Some(self.tcp.get_mut(key)?.peer),
        }
    }

    /// What the client has connected to, where that is known without asking.
    pub(super) fn destination(&mut self, key: Downkey) -> Option<SocketAddr> {
        match key {
            Downkey::Quic { listener, connection } => Some(self.quic(listener, connection)?.local()),
            Downkey::Tcp(key) => self.tcp.get_mut(key)?.destination,
        }
    }

    /// What the handshake of a connection ended with.
    pub(super) fn handshake(&mut self, key: Downkey) -> Rc<Handshake> {
        match key {
            Downkey::Quic { listener, connection } => {
                self.quic(listener, connection).map(|connection| Rc::clone(connection.handshake())).unwrap_or_default()
            }
            Downkey::Tcp(key) => self
                .tcp
                .get_mut(key)
                .and_then(|tcp| tcp.handshake())
                .map_or_else(|| Rc::clone(&self.unsecured), Rc::clone),
        }
    }

    /// What is spoken on a connection.
    pub(super) fn kind(&self, key: Downkey) -> Protocol {
        match key {
            Downkey::Quic { .. } => Protocol::H3,
            Downkey::Tcp(key) => self.tcp.kind(key),
        }
    }

    /// Whether a request for `host` may come over this connection, as its handshake went (421 if not).
    pub(super) fn serves(&mut self, key: Downkey, host: &str) -> bool {
        match key {
            Downkey::Quic { listener, connection } => {
                self.quic(listener, connection).is_some_and(|connection| connection.serves(host))
            }
            Downkey::Tcp(key) => self.tcp.get_mut(key).is_some_and(|tcp| tcp.serves(host)),
        }
    }

    /// The port at https that requests of this connection are sent to instead of being served.
    pub(super) fn redirects(&mut self, key: Downkey, generation: &Generation) -> Option<u16> {
        let Downkey::Tcp(key) = key else { return None };
        match generation.listeners[usize::from(self.tcp.get_mut(key)?.listener)].security {
            Security::Cleartext(Cleartext::Redirect { port }) => Some(port),
            Security::Cleartext(Cleartext::Serve) | Security::Tls(_) => None,
        }
    }

    /// The certificate that the client showed.
    pub(super) fn certificate(&mut self, key: Downkey) -> Option<Rc<ShownCertificate>> {
        match key {
            Downkey::Quic { listener, connection } => self.quic(listener, connection)?.client_certificate(),
            Downkey::Tcp(key) => self.tcp.get_mut(key)?.certificate(),
        }
    }

    /// When a connection wants to be looked at without any event.
    pub(super) fn deadline(&mut self, key: Downkey) -> Option<Instant> {
        match key {
            Downkey::Quic { listener, connection } => self.quic(listener, connection)?.next_deadline(),
            Downkey::Tcp(key) => {
                let times = self.tcp.times;
                self.tcp.get_mut(key)?.deadline(&times)
            }
        }
    }

    /// Every connection there is.
    pub(super) fn keys(&self) -> Vec<Downkey> {
        let quic = self.quic.iter().enumerate().flat_map(|(at, listener)| {
            listener.endpoint.keys().map(move |connection| Downkey::Quic { listener: at as u16, connection })
        });
        quic.chain(self.tcp.keys().map(Downkey::Tcp)).collect()
    }

    /// How many there are, closing ones included.
    pub(super) fn len(&self) -> usize {
        self.quic.iter().map(|listener| listener.endpoint.len()).sum::<usize>() + self.tcp.len()
    }
}
