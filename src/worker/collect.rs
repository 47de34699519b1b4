//! Completions are noted on their owners; nothing is decided here.

use super::Worker;
use super::clients::Downkey;
use super::clients::table::{self, Bounds};
use super::clients::tcp::{Header, Tcp};
use super::drain::Drain;
use super::token::Owner;
use crate::h3::{DropReason, Received};
use crate::limits;
use crate::proxy_protocol::Malformed;
use crate::telemetry::kinds::{DatagramDrop, HandshakeFailure, ProxyHeader, QueueFull};
use spooky_uring::{End, Event, Io, Lease, StreamId, Token};
use std::net::SocketAddr;
use std::time::Instant;

/// Whose stream socket an event is of.
enum Of {
    Origin(u32),
    Client(table::Key),
}

impl<I: Io> Worker<I> {
    /// Notes one event.
    pub(super) fn collect(&mut self, event: Event) {
        match event {
            Event::Datagrams { token, from, to, segment, mut lease } => {
                if let Some(Owner::Listener(listener)) = Owner::of(token) {
                    self.collect_datagrams(listener, from, to, segment, &mut lease);
                }
            }
            Event::Accepted { token, stream, peer } => self.accepted(token, stream, peer),
            Event::Received { token, stream, lease } => match self.stream_of(token, stream) {
                Some(Of::Origin(slot)) => self.collect_bytes(slot, lease),
                Some(Of::Client(key)) => {
                    if let Some(lease) = self.take_header(key, lease) {
                        match self.clients.tcp.defer(key, lease) {
                            Some(lease) => self.note_client(key, |tcp, _, now| tcp.receive(lease, now)),
                            // It is not read until it has had its turn.
                            None => self.touch(Downkey::Tcp(key)),
                        }
                    }
                }
                None => {}
            },
            Event::Sent { token, stream, queued } => match self.stream_of(token, stream) {
                Some(Of::Origin(slot)) => self.origin_took(slot, queued),
                Some(Of::Client(key)) => self.note_client(key, |tcp, _, now| tcp.sent(queued, now)),
                None => {}
            },
            Event::Connected { token, stream, result } => {
                if let Some(Of::Origin(slot)) = self.stream_of(token, stream) {
                    self.origin_connected(slot, stream, result);
                }
            }
            Event::Ended { token, stream, end } => match self.stream_of(token, stream) {
                Some(Of::Origin(slot)) => self.origin_ended(slot, end),
                Some(Of::Client(key)) => self.note_client(key, |tcp, _, _| match end {
                    End::Fin => tcp.receive_end(),
                    End::Error(_) => tcp.receive_failure(),
                }),
                None => {}
            },
            Event::SendFailed { token, stream, .. } => match self.stream_of(token, stream) {
                Some(Of::Origin(slot)) => self.origin_send_failed(slot),
                Some(Of::Client(key)) => self.note_client(key, |tcp, _, _| tcp.receive_failure()),
                None => {}
            },
            Event::DatagramsRefused { .. } => self.cells.quic.send_failures.add(1),
            Event::Doorbell { token } => match Owner::of(token) {
                Some(Owner::Forwards) => self.read_forwarded(),
                _ => self.read_commands(),
            },
            Event::Signal { .. } | Event::Written { .. } => {}
        }
    }

    /// Hands each datagram to its connection, in place.
    fn collect_datagrams(&mut self, listener: u16, from: SocketAddr, to: SocketAddr, segment: u16, lease: &mut Lease) {
        let now = self.now;
        self.cells.train_received(lease.len(), segment);
        let mut last = None;
        for datagram in lease.chunks_mut(usize::from(segment).max(1)) {
            let Some(at) = self.clients.quic.get_mut(usize::from(listener)) else {
                return;
            };
            match at.endpoint.receive(datagram, from, to, now) {
                // A train of datagrams is of one sender, so mostly of one connection.
                received @ Received::Connection(_) if last == Some(received) => {}
                Received::Elsewhere { worker } => self.forward(worker, listener, from, to, datagram),
                received => {
                    last = Some(received);
                    self.received(listener, received, from, to);
                }
            }
        }
    }

    /// Does what a datagram that is not forwarded asks for.
    #[inline]
    pub(super) fn received(&mut self, listener: u16, received: Received, from: SocketAddr, to: SocketAddr) {
        match received {
            Received::Connection(connection) => self.touch(Downkey::Quic { listener, connection }),
            Received::InPlaceOf { connection, displaced } => {
                self.cells.full.count(QueueFull::HalfOpen);
                self.touch(Downkey::Quic { listener, connection: displaced });
                self.touch(Downkey::Quic { listener, connection });
            }
            Received::Reply { .. } => self.send_reply(listener, to, from),
            Received::Dropped(reason) => self.cells.quic.drops.count(drop_kind(reason)),
            // Forwarded once already: two workers that disagree about an ID must not play ball with it.
            Received::Elsewhere { .. } => self.cells.quic.drops.count(DatagramDrop::Misdirected),
        }
    }

    /// The connection that an event is of. One event of a turn may close a connection, and another open a new one in its
    /// place, while the rest of the turn's events still speak of the first.
    fn stream_of(&self, token: Token, stream: StreamId) -> Option<Of> {
        match Owner::of(token) {
            Some(Owner::Origin(slot)) => {
                self.origins.get(slot).filter(|origin| origin.owns(stream)).map(|_| Of::Origin(slot))
            }
            Some(Owner::Client(slot)) => self.clients.tcp.find(slot, stream).map(Of::Client),
            _ => None,
        }
    }

    /// Notes something on a client's connection, which then runs.
    fn note_client(&mut self, key: table::Key, note: impl FnOnce(&mut Tcp, &Bounds, Instant)) {
        if let Some((tcp, bounds)) = self.clients.tcp.with_bounds(key) {
            note(tcp, bounds, self.now);
            self.touch(Downkey::Tcp(key));
            self.count_tls(key);
        }
    }

    /// Goes on with some of the handshakes whose clients wait; the others have their turn in the next one, which does not
    /// sleep.
    pub(super) fn shake_hands(&mut self) {
        for _ in 0..limits::HANDSHAKES_PER_TURN {
            let Some(key) = self.clients.tcp.next_deferred() else {
                return;
            };
            self.note_client(key, |tcp, bounds, now| tcp.shake_hands(bounds, now));
        }
    }

    /// Counts what became of a connection's handshake.
    fn count_tls(&mut self, key: table::Key) {
        let Some((accepted, result)) = self.clients.tcp.take_handshake(key) else {
            return;
        };
        let cells = &self.cells.tls;
        match result {
            Ok(handshake) => {
                if handshake.resumed {
                    cells.resumed.add(1)
                } else {
                    cells.full.add(1)
                }
                cells.duration.record(self.now.saturating_duration_since(accepted));
            }
            Err(fault) => {
                cells.failures.count(fault.handshake_failure());
                tracing::debug!(cause = fault.kind.word(), "a TLS handshake failed: {}", fault.text);
            }
        }
    }

    /// A client connected; one too many is closed at once. Among those in a handshake the oldest that says nothing makes room,
    /// or a thousand silent sockets would keep everybody out.
    fn accepted(&mut self, token: Token, stream: StreamId, peer: Option<SocketAddr>) {
        let Some(Owner::Door(at)) = Owner::of(token) else {
            return;
        };
        let Some(peer) = peer.filter(|_| self.drain == Drain::No) else {
            self.io.abort(stream);
            return;
        };
        let door = &self.clients.doors[usize::from(at)];
        // Who speaks for others is judged by whom it speaks for, in its header.
        if !door.expects_header(peer) {
            let only_proxies = door.takes_only_proxies();
            if only_proxies {
                self.cells.connections_denied.add(1);
            }
            if only_proxies || !self.takes(at, peer) {
                self.io.abort(stream);
                return;
            }
        }
        let door = &self.clients.doors[usize::from(at)];
        if door.acceptor.is_some() && self.clients.tcp.handshaking() >= limits::TLS_HANDSHAKES {
            self.cells.full.count(QueueFull::Handshakes);
            let Some(silent) = self.clients.tcp.silent(self.now) else {
                self.io.abort(stream);
                return;
            };
            self.io.abort(silent.stream);
            self.forget_tcp(silent);
        }
        let door = &self.clients.doors[usize::from(at)];
        if !self.clients.has_room() {
            self.cells.full.count(QueueFull::Clients);
            self.io.abort(stream);
            return;
        }
        let key = self.clients.tcp.insert(stream, door, peer, self.now);
        self.io.set_token(stream, Owner::Client(key.slot).token());
        self.io.resume(stream);
        self.touch(Downkey::Tcp(key));
    }

    /// Whether a client may connect at a door; if not, it is counted.
    fn takes(&self, at: u16, client: SocketAddr) -> bool {
        if !self.clients.doors[usize::from(at)].admits(client) {
            self.cells.connections_denied.add(1);
            return false;
        }
        let takes = self.clients.tcp.takes(client, self.now);
        if !takes {
            self.cells.tls.failures.count(HandshakeFailure::Refused);
        }
        takes
    }

    /// What a client sent behind the header of the PROXY protocol, where its connection begins with one. Who is the client then
    /// is judged as if it had connected itself; what is no header ends the connection.
    fn take_header(&mut self, key: table::Key, lease: Lease) -> Option<Lease> {
        let (named, rest) = match self.clients.tcp.take_header(key, lease) {
            Ok(Header::None(lease)) => return Some(lease),
            Ok(Header::Partial) => {
                self.touch(Downkey::Tcp(key));
                return None;
            }
            Ok(Header::Whole { named, rest }) => (named, rest),
            Err(Malformed) => {
                self.cells.proxy_headers.count(ProxyHeader::Malformed);
                self.end_tcp(key);
                return None;
            }
        };
        self.cells.proxy_headers.count(if named { ProxyHeader::Client } else { ProxyHeader::Proxy });
        let tcp = self.clients.tcp.get_mut(key)?;
        let (listener, client) = (tcp.listener, tcp.peer);
        let at = self.clients.doors.iter().position(|door| door.listener == listener)?;
        if !self.takes(at as u16, client) {
            self.end_tcp(key);
            return None;
        }
        self.clients.tcp.charge(key, self.now);
        self.touch(Downkey::Tcp(key));
        (!rest.is_empty()).then(|| Lease::from_vec(rest))
    }

    /// Ends a connection that came no further than its header: what was wrong with it is counted, and no handshake has failed.
    fn end_tcp(&mut self, key: table::Key) {
        self.io.abort(key.stream);
        if let Some((tcp, _)) = self.clients.tcp.remove(key)
            && let Some((_, timer)) = tcp.client.armed
        {
            self.wheel.cancel(timer);
        }
    }

    fn collect_bytes(&mut self, slot: u32, lease: Lease) {
        if let Some(origin) = self.origins.get_mut(slot) {
            origin.receive(lease, self.now);
            self.make_ready(slot);
        }
    }

    /// Puts a connection to an origin on the ready list, once.
    pub(super) fn make_ready(&mut self, slot: u32) {
        if let Some(origin) = self.origins.get_mut(slot)
            && !origin.ready
        {
            origin.ready = true;
            self.ready.push_back(slot);
        }
    }

    /// Puts a client's connection on the list of those that run and send in this turn, once.
    pub(super) fn touch(&mut self, key: Downkey) {
        if let Some(client) = self.clients.client(key)
            && !std::mem::replace(&mut client.marked, true)
        {
            self.touched.push_back(key);
        }
    }
}

/// The counter of a dropped datagram: the same words in the same order (a test compares them).
pub(super) fn drop_kind(reason: DropReason) -> DatagramDrop {
    DatagramDrop::ALL[reason as usize]
}
