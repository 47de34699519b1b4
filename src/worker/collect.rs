//! Completions are noted on their owners; nothing is decided here.

use super::token::Owner;
use super::{Downkey, Worker};
use crate::h3::{DropReason, Received};
use crate::telemetry::kinds::DatagramDrop;
use spooky_uring::{Event, Io, Lease, StreamId, Token};
use std::net::SocketAddr;

impl<I: Io> Worker<I> {
    /// Notes one event.
    pub(super) fn collect(&mut self, event: Event) {
        match event {
            Event::Datagrams { token, from, to, segment, mut lease } => {
                if let Some(Owner::Listener(listener)) = Owner::of(token) {
                    self.collect_datagrams(listener, from, to, segment, &mut lease);
                }
            }
            Event::Received { token, stream, lease } => {
                if let Some(slot) = self.origin_of(token, stream) {
                    self.collect_bytes(slot, lease);
                }
            }
            Event::Sent { token, stream, queued } => {
                if let Some(slot) = self.origin_of(token, stream) {
                    self.origin_took(slot, queued);
                }
            }
            Event::Connected { token, stream, result } => {
                if let Some(slot) = self.origin_of(token, stream) {
                    self.origin_connected(slot, stream, result);
                }
            }
            Event::Ended { token, stream, end } => {
                if let Some(slot) = self.origin_of(token, stream) {
                    self.origin_ended(slot, end);
                }
            }
            Event::SendFailed { token, stream, .. } => {
                if let Some(slot) = self.origin_of(token, stream) {
                    self.origin_send_failed(slot);
                }
            }
            Event::DatagramsRefused { .. } => self.cells.quic.send_failures.add(1),
            Event::Doorbell { token } => match Owner::of(token) {
                Some(Owner::Forwards) => self.read_forwarded(),
                _ => self.read_commands(),
            },
            Event::Accepted { .. } | Event::Signal { .. } | Event::Written { .. } => {}
        }
    }

    /// Hands each datagram to its connection, in place.
    fn collect_datagrams(&mut self, listener: u16, from: SocketAddr, to: SocketAddr, segment: u16, lease: &mut Lease) {
        let now = self.now;
        self.cells.train_received(lease.len(), segment);
        let mut last = None;
        for datagram in lease.chunks_mut(usize::from(segment).max(1)) {
            let Some(at) = self.listeners.get_mut(usize::from(listener)) else {
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
            Received::Connection(connection) => self.touch(Downkey { listener, connection }),
            Received::Reply { .. } => self.send_reply(listener, to, from),
            Received::Dropped(reason) => self.cells.quic.drops.count(drop_kind(reason)),
            // Forwarded once already: two workers that disagree about an ID must not play ball with it.
            Received::Elsewhere { .. } => self.cells.quic.drops.count(DatagramDrop::Misdirected),
        }
    }

    /// The connection that an event is of. One event of a turn may close a connection, and another open a new one in its
    /// place, while the rest of the turn's events still speak of the first.
    fn origin_of(&self, token: Token, stream: StreamId) -> Option<u32> {
        match Owner::of(token) {
            Some(Owner::Origin(slot)) => self.origins.get(slot).filter(|origin| origin.owns(stream)).map(|_| slot),
            _ => None,
        }
    }

    fn collect_bytes(&mut self, slot: u32, lease: Lease) {
        if let Some(origin) = self.origins.get_mut(slot) {
            origin.protocol.receive(lease.into_chunk());
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
        if let Some(listener) = self.listeners.get_mut(usize::from(key.listener))
            && listener.mark(key.connection)
        {
            self.touched.push_back(key);
        }
    }
}

/// The counter of a dropped datagram: the same words in the same order (a test compares them).
pub(super) fn drop_kind(reason: DropReason) -> DatagramDrop {
    DatagramDrop::ALL[reason as usize]
}
