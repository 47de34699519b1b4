//! Owns the beginning of a connection: a client's first packet becomes one, an answer or nothing, and a handshake that is done gives
//! the client its connection IDs.
//!
//! Whether it may begin `admission` and `half_open` decide.

use super::admission::{Entry, First};
use super::cid::{CID_LEN, Cid};
use super::connection::Connection;
use super::counters::DropReason;
use super::endpoint::{ConnKey, Endpoint, Received, Slot};
use super::glitches::Glitch;
use super::half_open::{FirstId, Room};
use super::packet::Invariant;
use super::payload::PayloadFactory;
use super::stateless;
use crate::limits;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

/// TRANSPORT_PARAMETER_ERROR (RFC 9000 §20.1).
const TRANSPORT_PARAMETER_ERROR: u8 = 0x08;

impl Endpoint {
    pub(super) fn accept(
        &mut self,
        first_id: FirstId,
        datagram: &mut [u8],
        from: SocketAddr,
        to: SocketAddr,
        now: Instant,
    ) -> Received {
        if self.denies(from) {
            return self.drop(DropReason::AddressDenied);
        }
        if !self.accepting {
            return self.drop(DropReason::Draining);
        }
        if self.len() >= self.shared.settings.connections {
            return self.drop(DropReason::ConnectionLimit);
        }
        let slots = &self.slots;
        let room = self.half_open.room(now, |key| runs(slots, key));
        if room == Room::No {
            return self.drop(DropReason::HalfOpenLimit);
        }
        let original = match self.enter(datagram, from, now) {
            Entry::Unproved => None,
            Entry::Proved(original) => Some(original),
            Entry::Answered => return Received::Reply { len: self.reply.len() },
            Entry::Invalid => return self.drop(DropReason::InitialInvalid),
        };
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(Slot::default());
                (self.slots.len() - 1) as u32
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.tag = slot.tag.wrapping_add(1);
        let tag = slot.tag;
        let wire: [u8; CID_LEN] =
            self.coder.encode(Cid { epoch: self.epoch, worker: self.worker, slot: index, tag, sequence: 0 });
        // The handshake's ID can be reset too: its token goes with the transport parameters.
        self.config.set_stateless_reset_token(Some(self.coder.reset_token(&wire)));
        let id = quiche::ConnectionId::from_ref(&wire);
        let config = &mut self.config;
        let accepted = match &original {
            None => quiche::accept_with_buf_factory::<PayloadFactory>(&id, None, to, from, config),
            Some(original) => {
                let ids = quiche::RetryConnectionIds {
                    original_destination_cid: &quiche::ConnectionId::from_ref(original.as_slice()),
                    retry_source_cid: &quiche::ConnectionId::from_ref(first_id.as_slice()),
                };
                quiche::accept_with_retry::<PayloadFactory>(&id, ids, to, from, config)
            }
        };
        let Ok(quic) = accepted else {
            self.free.push(index);
            return self.drop(DropReason::Internal);
        };
        let mut connection = Box::new(Connection::new(quic, Rc::clone(&self.shared), from, to, now));
        if original.is_some() {
            connection.prove_address();
        }
        connection.receive(datagram, from, to, now);
        // A handshake that TLS refuses (no common application protocol, say) is told so; its packet does not count as
        // received.
        let error = connection.quic.local_error().filter(|error| !error.is_app).map(|error| error.error_code);
        let refused = error.is_some_and(|code| (0x100..0x200).contains(&code));
        if connection.quic.is_closed() || connection.quic.stats().recv == 0 && !refused {
            self.free.push(index);
            // Transport parameters are only seen in packets that decrypt, and the transport ends a connection over those of the
            // first one without a word (RFC 9000 §7.4).
            if error == Some(u64::from(TRANSPORT_PARAMETER_ERROR)) && self.refuse(datagram) {
                self.shared.counters.parameters_refused.add(1);
                return Received::Reply { len: self.reply.len() };
            }
            // Noise with the header of a first packet: it leaves no state.
            return self.drop(DropReason::InitialInvalid);
        }
        slot.next_sequence = 1;
        if original.is_some() {
            slot.charged = self.admission.charge(from, now, &self.shared.counters);
        }
        slot.connection = Some(connection);
        slot.first_id = Some(first_id);
        self.shared.counters.accepted.add(1);
        self.shared.counters.datagrams.add(1);
        let key = ConnKey { slot: index, tag };
        let slots = &self.slots;
        self.half_open.insert(first_id, key, now, |key| runs(slots, key));
        if let Room::Behind(displaced) = room
            && let Some(oldest) = self.get_mut(displaced)
        {
            oldest.displace();
            return Received::InPlaceOf { connection: key, displaced };
        }
        Received::Connection(key)
    }

    /// Whether a client's first packet may open a connection.
    fn enter(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) -> Entry {
        let Some(Invariant::Long { dcid, scid, .. }) = Invariant::parse(datagram) else {
            return Entry::Invalid;
        };
        let first = First { datagram, dcid, scid, from, now };
        let half_open = self.half_open.len();
        self.admission.enter(&first, half_open, &mut self.coder, &self.shared.counters, &mut self.reply)
    }

    /// Answers a client's first packet, whose connection could not begin, with a close; `false`: there is no answer.
    fn refuse(&mut self, datagram: &[u8]) -> bool {
        match Invariant::parse(datagram) {
            Some(Invariant::Long { dcid, scid, .. }) => {
                stateless::refuse(dcid, scid, TRANSPORT_PARAMETER_ERROR, &mut self.reply).is_some()
            }
            _ => false,
        }
    }

    pub(super) fn establish(&mut self, index: u32, now: Instant) {
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return;
        };
        if let Some(first_id) = slot.first_id.take() {
            self.half_open.remove(&first_id);
        }
        if let Some(connection) = &mut slot.connection {
            if slot.charged.is_none() {
                // A completed handshake proves the address.
                let client = connection.client();
                if !self.admission.check(client, now, &self.shared.counters) {
                    connection.close_refused();
                    return;
                }
                slot.charged = self.admission.charge(client, now, &self.shared.counters);
            }
            connection.establish(now);
            self.shared.counters.established.add(1);
        }
        self.issue_ids(index);
    }

    /// Gives the client as many IDs as it takes and we keep, for its next paths.
    pub(super) fn issue_ids(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return;
        };
        let Some(connection) = &mut slot.connection else {
            return;
        };
        while connection.quic.retired_scid_next().is_some() {
            connection.glitches.charge(Glitch::ConnectionIds, 1);
        }
        while connection.quic.scids_left() > 0 && connection.quic.active_scids() < limits::quic::CONNECTION_IDS {
            let wire = self.coder.encode(Cid {
                epoch: self.epoch,
                worker: self.worker,
                slot: index,
                tag: slot.tag,
                sequence: slot.next_sequence,
            });
            slot.next_sequence += 1;
            let token = self.coder.reset_token(&wire);
            let id = quiche::ConnectionId::from_ref(&wire);
            if connection.quic.new_scid(&id, token, false).is_err() {
                break;
            }
        }
    }
}

/// Whether a handshake is under way, and nobody was told to make room.
fn runs(slots: &[Slot], key: ConnKey) -> bool {
    slots.get(key.slot as usize).is_some_and(|slot| {
        let connection = slot.connection.as_ref();
        slot.tag == key.tag && slot.first_id.is_some() && connection.is_some_and(|connection| !connection.is_closing())
    })
}
