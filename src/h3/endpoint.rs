//! Owns the way from a datagram to its connection: connection IDs, the table of connections, and what is answered or
//! dropped when there is none.
//!
//! A short header is decoded to a slot of the table without a map. Only packets with an ID the client made up (its first
//! ones) go through one, which forgets them when the handshake is done.

use super::admission::{Admission, Entry, First};
use super::boring_context::TlsContexts;
use super::cid::{CID_LEN, Cid, CidCoder};
use super::connection::{Connection, Shared};
use super::counters::{Counters, DropReason};
use super::glitches::Glitch;
use super::half_open::{FirstId, HalfOpen, ID_LEN_MAX, Room};
use super::keys::EndpointKeys;
use super::packet::{self, INITIAL_LEN_MIN, Invariant, LongType, VERSION_1};
use super::payload::PayloadFactory;
use super::settings::{self, QuicSettings, StartError};
use super::stateless;
use crate::http::PoolShare;
use crate::limits;
use crate::limits::AddressKey;
use crate::telemetry::WallClock;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// Shortest one a client may make up for us (RFC 9000 §7.2).
const FIRST_ID_LEN_MIN: usize = 8;

/// TRANSPORT_PARAMETER_ERROR (RFC 9000 §20.1).
const TRANSPORT_PARAMETER_ERROR: u8 = 0x08;

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
    /// A new connection took it, and an older one that has not got through its handshake makes room: both have packets now.
    InPlaceOf {
        /// The new one.
        connection: ConnKey,
        /// The one that is to be removed as soon as it has said so.
        displaced: ConnKey,
    },
    /// It is to be answered with one datagram of this length, see [`Endpoint::take_reply`].
    Reply {
        /// Bytes of the answer.
        len: usize,
    },
    /// It is of a connection that another worker of this process made.
    Elsewhere {
        /// The worker.
        worker: u16,
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
    /// The address that was charged for the connection.
    charged: Option<AddressKey>,
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
    half_open: HalfOpen,
    accepting: bool,
    reply: Vec<u8>,
    admission: Admission,
}

impl Endpoint {
    /// An endpoint of worker `worker` in process `epoch`.
    ///
    /// # Errors
    /// If a library refuses a setting.
    pub fn new(
        settings: &QuicSettings,
        contexts: &Arc<TlsContexts>,
        keys: &EndpointKeys,
        worker: u16,
        epoch: u16,
    ) -> Result<Self, StartError> {
        let no_aes = || StartError::Tls("no AES for connection IDs".to_owned());
        Ok(Self {
            config: settings::transport(settings, contexts.tickets())?,
            shared: Rc::new(Shared {
                settings: settings.clone(),
                http: settings::http(settings)?,
                counters: Counters::default(),
                pool: PoolShare::unbounded(),
                contexts: RefCell::new(Arc::clone(contexts)),
            }),
            coder: CidCoder::new(&keys.cid).ok_or_else(no_aes)?,
            worker,
            epoch,
            slots: Vec::new(),
            free: Vec::new(),
            half_open: HalfOpen::new(settings.half_open),
            accepting: true,
            reply: Vec::new(),
            admission: Admission::new(settings, keys, worker, epoch),
        })
    }

    /// Takes one datagram, decrypted in place. Never panics, whatever the bytes are.
    pub fn receive(&mut self, datagram: &mut [u8], from: SocketAddr, to: SocketAddr, now: Instant) -> Received {
        match self.find(datagram, from, now) {
            Found::Slot(slot) => self.deliver(slot, datagram, from, to, now),
            Found::New(first_id) => self.accept(first_id, datagram, from, to, now),
            Found::Answered => Received::Reply { len: self.reply.len() },
            Found::Elsewhere(worker) => Received::Elsewhere { worker },
            Found::Nothing(reason) => self.drop(reason),
        }
    }

    fn find(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) -> Found {
        match Invariant::parse(datagram) {
            None => Found::Nothing(DropReason::Truncated),
            Some(Invariant::Short { dcid }) => match self.find_ours(dcid) {
                Found::Nothing(DropReason::NoConnection | DropReason::OtherProcess)
                    if !self.denies(from) && self.reset(dcid, datagram.len(), now) =>
                {
                    Found::Answered
                }
                found => found,
            },
            Some(Invariant::Long { version: 0, .. }) => Found::Nothing(DropReason::VersionNegotiation),
            Some(Invariant::Long { version, dcid, scid, .. }) if version != VERSION_1 => {
                if datagram.len() < INITIAL_LEN_MIN {
                    return Found::Nothing(DropReason::VersionTooSmall);
                }
                if self.denies(from) {
                    return Found::Nothing(DropReason::AddressDenied);
                }
                packet::negotiate(dcid, scid, self.admission.noise(), &mut self.reply);
                self.shared.counters.negotiations.add(1);
                Found::Answered
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
        if let Some(slot) = self.half_open.find(&first_id) {
            return Found::Slot(slot);
        }
        match self.find_ours(dcid) {
            Found::Nothing(DropReason::ForeignId) => {}
            Found::Nothing(_) if kind == LongType::Initial => {}
            found => return found,
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

    /// Where the connection is that an ID of ours names.
    #[inline]
    fn find_ours(&mut self, dcid: &[u8]) -> Found {
        let Some(cid) = self.coder.decode(dcid) else {
            return Found::Nothing(DropReason::ForeignId);
        };
        if cid.epoch != self.epoch {
            return Found::Nothing(DropReason::OtherProcess);
        }
        if cid.worker != self.worker {
            return Found::Elsewhere(cid.worker);
        }
        match self.slots.get(cid.slot as usize) {
            Some(slot) if slot.tag == cid.tag && slot.connection.is_some() => Found::Slot(cid.slot),
            _ => Found::Nothing(DropReason::NoConnection),
        }
    }

    /// Answers a packet whose connection is gone, in this process or an earlier one with the same secret, with a stateless
    /// reset. `false`: it is not answered.
    fn reset(&mut self, dcid: &[u8], asked: usize, now: Instant) -> bool {
        let Some(wire) = dcid.first_chunk() else {
            return false;
        };
        let token = self.coder.reset_token(wire);
        self.admission.reset(token, asked, now, &self.shared.counters, &mut self.reply)
    }

    fn deliver(&mut self, index: u32, datagram: &mut [u8], from: SocketAddr, to: SocketAddr, now: Instant) -> Received {
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return self.drop(DropReason::NoConnection);
        };
        let tag = slot.tag;
        let Some(connection) = &mut slot.connection else {
            return self.drop(DropReason::NoConnection);
        };
        // Where it is now was judged before. From where it may not come it never proves to be, and so never moves there.
        if from != connection.client() && self.shared.settings.denies(from) {
            return self.drop(DropReason::AddressDenied);
        }
        self.shared.counters.datagrams.add(1);
        connection.receive(datagram, from, to, now);
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

    fn accept(
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

    fn denies(&self, from: SocketAddr) -> bool {
        self.shared.settings.denies(from)
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
            self.half_open.remove(&first_id);
        }
        if let Some(charged) = slot.charged.take() {
            self.admission.release(charged);
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
        self.half_open.len()
    }

    /// Handshakes that begin from now on find other identities. Connections keep theirs.
    pub fn set_contexts(&mut self, contexts: &Arc<TlsContexts>) {
        self.shared.contexts.replace(Arc::clone(contexts));
    }

    /// Whether new connections are taken.
    pub fn set_accepting(&mut self, accepting: bool) {
        self.accepting = accepting;
    }

    /// What one connection may hold of the worker's receive pool.
    pub fn pool(&self) -> &PoolShare {
        &self.shared.pool
    }

    /// Tells the date, which tokens carry: before it is known, none are made or taken.
    pub fn set_clock(&mut self, clock: WallClock) {
        self.admission.set_clock(clock);
    }

    /// What was counted.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}

/// Whether a handshake is under way, and nobody was told to make room.
fn runs(slots: &[Slot], key: ConnKey) -> bool {
    slots.get(key.slot as usize).is_some_and(|slot| {
        let connection = slot.connection.as_ref();
        slot.tag == key.tag && slot.first_id.is_some() && connection.is_some_and(|connection| !connection.is_closing())
    })
}

enum Found {
    Slot(u32),
    New(FirstId),
    /// The answer is written.
    Answered,
    Elsewhere(u16),
    Nothing(DropReason),
}
