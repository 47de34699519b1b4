//! Owns the way from a datagram to its connection: connection IDs, the table of connections, and what is answered or
//! dropped when there is none.
//!
//! A short header is decoded to a slot of the table without a map. Only packets with an ID the client made up (its first
//! ones) go through one, which forgets them when the handshake is done.

use super::cid::{CID_LEN, Cid, CidCoder, CidKeys};
use super::connection::{Connection, Shared};
use super::counters::{Counters, DropReason};
use super::glitches::Glitch;
use super::packet::{self, INITIAL_LEN_MIN, Invariant, LongType, VERSION_1};
use super::payload::PayloadFactory;
use super::settings::{self, QuicSettings, StartError};
use crate::identity::Identity;
use std::cell::Cell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

/// Longest connection ID of version 1 (RFC 9000 §17.2).
const ID_LEN_MAX: usize = 20;
/// Shortest one a client may make up for us (RFC 9000 §7.2).
const FIRST_ID_LEN_MIN: usize = 8;

/// A connection of this endpoint. A late use finds nothing instead of a stranger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnKey {
    /// Position in the table; small numbers, reused.
    pub slot: u32,
    /// Use of that position.
    pub tag: u32,
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A connection took it: it has events and packets now.
    Connection(ConnKey),
    /// It is to be answered with one datagram of this length, see [`Endpoint::take_reply`].
    Reply {
        /// Bytes of the answer.
        len: usize,
    },
    /// Nothing happens.
    Dropped(DropReason),
}

#[derive(Default)]
struct Slot {
    /// Use of the slot; counts up with every connection.
    tag: u32,
    connection: Option<Box<Connection>>,
    /// The ID the client made up; `Some` while the handshake runs.
    first_id: Option<FirstId>,
    /// Sequence of the next ID of ours.
    next_sequence: u32,
}

/// A connection ID that a client made up.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct FirstId {
    bytes: [u8; ID_LEN_MAX],
    len: u8,
}

impl FirstId {
    fn new(id: &[u8]) -> Option<Self> {
        let mut bytes = [0; ID_LEN_MAX];
        bytes.get_mut(..id.len())?.copy_from_slice(id);
        Some(Self { bytes, len: id.len() as u8 })
    }
}

/// The QUIC side of one worker.
pub struct Endpoint {
    config: quiche::Config,
    shared: Rc<Shared>,
    coder: CidCoder,
    worker: u16,
    epoch: u16,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// IDs that clients made up, while their handshakes run; bounded by `half_open`. Hashed with a secret: clients choose
    /// the keys.
    first_ids: HashMap<FirstId, u32>,
    accepting: bool,
    reply: Vec<u8>,
    /// For bits without meaning in answers.
    noise: u32,
}

impl Endpoint {
    /// An endpoint of worker `worker` in process `epoch`.
    ///
    /// # Errors
    /// If a library refuses the identity or a setting.
    pub fn new(
        settings: &QuicSettings,
        identity: &Identity,
        keys: &CidKeys,
        worker: u16,
        epoch: u16,
    ) -> Result<Self, StartError> {
        let no_aes = || StartError::Tls("no AES for connection IDs".to_owned());
        Ok(Self {
            config: settings::transport(settings, identity)?,
            shared: Rc::new(Shared {
                settings: settings.clone(),
                http: settings::http(settings)?,
                counters: Counters::default(),
                pool_free: Cell::new(usize::MAX),
            }),
            coder: CidCoder::new(keys).ok_or_else(no_aes)?,
            worker,
            epoch,
            slots: Vec::new(),
            free: Vec::new(),
            first_ids: HashMap::new(),
            accepting: true,
            reply: Vec::new(),
            noise: 0x9e37_79b9,
        })
    }

    /// Takes one datagram, decrypted in place. Never panics, whatever the bytes are.
    pub fn receive(&mut self, datagram: &mut [u8], from: SocketAddr, to: SocketAddr, now: Instant) -> Received {
        match self.find(datagram) {
            Found::Slot(slot) => self.deliver(slot, datagram, from, to, now),
            Found::New(first_id) => self.accept(first_id, datagram, from, to, now),
            Found::Negotiate => {
                self.shared.counters.negotiations.add(1);
                Received::Reply { len: self.reply.len() }
            }
            Found::Nothing(reason) => self.drop(reason),
        }
    }

    fn find(&mut self, datagram: &[u8]) -> Found {
        match Invariant::parse(datagram) {
            None => Found::Nothing(DropReason::Truncated),
            Some(Invariant::Short { dcid }) => match self.find_ours(dcid) {
                Ok(slot) => Found::Slot(slot),
                Err(reason) => Found::Nothing(reason),
            },
            Some(Invariant::Long { version: 0, .. }) => Found::Nothing(DropReason::VersionNegotiation),
            Some(Invariant::Long { version, dcid, scid, .. }) if version != VERSION_1 => {
                if datagram.len() < INITIAL_LEN_MIN {
                    return Found::Nothing(DropReason::VersionTooSmall);
                }
                self.noise = self.noise.wrapping_mul(0x9e37_79b1).wrapping_add(version);
                packet::negotiate(dcid, scid, self.noise, &mut self.reply);
                Found::Negotiate
            }
            Some(Invariant::Long { first, dcid, scid, .. }) => {
                self.find_long(LongType::of(first), dcid, scid, datagram.len())
            }
        }
    }

    fn find_long(&mut self, kind: LongType, dcid: &[u8], scid: &[u8], len: usize) -> Found {
        if scid.len() > ID_LEN_MAX {
            return Found::Nothing(DropReason::IdLength);
        }
        let Some(first_id) = FirstId::new(dcid) else {
            return Found::Nothing(DropReason::IdLength);
        };
        if let Some(&slot) = self.first_ids.get(&first_id) {
            return Found::Slot(slot);
        }
        match self.find_ours(dcid) {
            Ok(slot) => return Found::Slot(slot),
            Err(DropReason::ForeignId) => {}
            Err(reason) if kind != LongType::Initial => return Found::Nothing(reason),
            Err(_) => {}
        }
        if kind != LongType::Initial {
            return Found::Nothing(DropReason::NoConnection);
        }
        if dcid.len() < FIRST_ID_LEN_MIN {
            return Found::Nothing(DropReason::IdLength);
        }
        if len < INITIAL_LEN_MIN {
            return Found::Nothing(DropReason::InitialTooSmall);
        }
        Found::New(first_id)
    }

    /// The slot that an ID of ours names.
    #[inline]
    fn find_ours(&mut self, dcid: &[u8]) -> Result<u32, DropReason> {
        let cid = self.coder.decode(dcid).ok_or(DropReason::ForeignId)?;
        if cid.epoch != self.epoch || cid.worker != self.worker {
            return Err(DropReason::Misdirected);
        }
        match self.slots.get(cid.slot as usize) {
            Some(slot) if slot.tag == cid.tag && slot.connection.is_some() => Ok(cid.slot),
            _ => Err(DropReason::NoConnection),
        }
    }

    fn deliver(&mut self, index: u32, datagram: &mut [u8], from: SocketAddr, to: SocketAddr, now: Instant) -> Received {
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return self.drop(DropReason::NoConnection);
        };
        let tag = slot.tag;
        let Some(connection) = &mut slot.connection else {
            return self.drop(DropReason::NoConnection);
        };
        self.shared.counters.datagrams.add(1);
        connection.tick(now);
        connection.receive(datagram, from, to);
        let handshaking = slot.first_id.is_some();
        if handshaking && connection.quic.is_established() {
            self.establish(index, now);
        } else if !handshaking && connection.quic.retired_scids() > 0 {
            self.issue_ids(index);
        }
        Received::Connection(ConnKey { slot: index, tag })
    }

    fn establish(&mut self, index: u32, now: Instant) {
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return;
        };
        if let Some(first_id) = slot.first_id.take() {
            self.first_ids.remove(&first_id);
        }
        if let Some(connection) = &mut slot.connection {
            connection.establish(now);
            self.shared.counters.established.add(1);
        }
        self.issue_ids(index);
    }

    /// Gives the client as many IDs as it takes, for its next paths.
    fn issue_ids(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return;
        };
        let Some(connection) = &mut slot.connection else {
            return;
        };
        while connection.quic.retired_scid_next().is_some() {
            connection.glitches.charge(Glitch::ConnectionIds, 1);
        }
        while connection.quic.scids_left() > 0 {
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

    fn accept(
        &mut self,
        first_id: FirstId,
        datagram: &mut [u8],
        from: SocketAddr,
        to: SocketAddr,
        now: Instant,
    ) -> Received {
        if !self.accepting {
            return self.drop(DropReason::Draining);
        }
        if self.len() >= self.shared.settings.connections {
            return self.drop(DropReason::ConnectionLimit);
        }
        if self.first_ids.len() >= self.shared.settings.half_open {
            return self.drop(DropReason::HalfOpenLimit);
        }
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
        let id = quiche::ConnectionId::from_ref(&wire);
        let accepted = quiche::accept_with_buf_factory::<PayloadFactory>(&id, None, to, from, &mut self.config);
        let Ok(quic) = accepted else {
            self.free.push(index);
            return self.drop(DropReason::Internal);
        };
        let mut connection = Box::new(Connection::new(quic, Rc::clone(&self.shared), from, to, now));
        connection.receive(datagram, from, to);
        // A handshake that TLS refuses (no common application protocol, say) is told so; its packet does not count as
        // received.
        let refused = connection
            .quic
            .local_error()
            .is_some_and(|error| !error.is_app && (0x100..0x200).contains(&error.error_code));
        if connection.quic.is_closed() || connection.quic.stats().recv == 0 && !refused {
            // Noise with the header of a first packet: it leaves no state.
            self.free.push(index);
            return self.drop(DropReason::InitialInvalid);
        }
        slot.next_sequence = 1;
        slot.connection = Some(connection);
        slot.first_id = Some(first_id);
        self.first_ids.insert(first_id, index);
        self.shared.counters.accepted.add(1);
        self.shared.counters.datagrams.add(1);
        Received::Connection(ConnKey { slot: index, tag })
    }

    fn drop(&self, reason: DropReason) -> Received {
        self.shared.counters.dropped[reason as usize].add(1);
        Received::Dropped(reason)
    }

    /// Copies the answer that [`Self::receive`] announced; returns its length, or 0 if `out` is too small.
    pub fn take_reply(&mut self, out: &mut [u8]) -> usize {
        let reply = std::mem::take(&mut self.reply);
        match out.get_mut(..reply.len()) {
            Some(out) => {
                out.copy_from_slice(&reply);
                reply.len()
            }
            None => 0,
        }
    }

    /// The connection of a key.
    #[inline]
    pub fn get_mut(&mut self, key: ConnKey) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        if slot.tag != key.tag {
            return None;
        }
        slot.connection.as_deref_mut()
    }

    /// Forgets a connection, closed or not; late packets find nothing.
    pub fn remove(&mut self, key: ConnKey) {
        let Some(slot) = self.slots.get_mut(key.slot as usize) else {
            return;
        };
        if slot.tag != key.tag {
            return;
        }
        let Some(connection) = slot.connection.take() else {
            return;
        };
        if let Some(first_id) = slot.first_id.take() {
            self.first_ids.remove(&first_id);
        }
        self.free.push(key.slot);
        self.shared.counters.removed.add(1);
        if let Some(cause) = connection.close_cause() {
            self.shared.counters.close(cause);
        }
    }

    /// Every connection.
    pub fn keys(&self) -> impl Iterator<Item = ConnKey> + '_ {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.connection.is_some())
            .map(|(index, slot)| ConnKey { slot: index as u32, tag: slot.tag })
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of them are in handshake.
    pub fn half_open(&self) -> usize {
        self.first_ids.len()
    }

    /// Whether new connections are taken.
    pub fn set_accepting(&mut self, accepting: bool) {
        self.accepting = accepting;
    }

    /// Tells how many bytes of the worker's receive pool nobody holds: a connection whose share is used up copies instead.
    pub fn set_pool_free(&self, bytes: usize) {
        self.shared.pool_free.set(bytes);
    }

    /// What was counted.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}

enum Found {
    Slot(u32),
    New(FirstId),
    Negotiate,
    Nothing(DropReason),
}
