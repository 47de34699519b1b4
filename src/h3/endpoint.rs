//! Owns the way from a datagram to its connection: connection IDs, the table of connections, and what is answered or
//! dropped when there is none.
//!
//! A short header is decoded to a slot of the table without a map. Only packets with an ID the client made up (its first
//! ones) go through one, which forgets them when the handshake is done. `accept` makes connections of those.

use super::admission::Admission;
use super::boring_context::TlsContexts;
use super::cid::CidCoder;
use super::connection::{Connection, Shared};
use super::counters::{Counters, DropReason};
use super::half_open::{FirstId, HalfOpen, ID_LEN_MAX};
use super::keys::EndpointKeys;
use super::packet::{self, INITIAL_LEN_MIN, Invariant, LongType, VERSION_1};
use super::settings::{self, QuicSettings, StartError};
use crate::http::PoolShare;
use crate::limits::AddressKey;
use crate::telemetry::WallClock;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// Shortest connection ID that a client may make up for us (RFC 9000 §7.2).
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
pub(super) struct Slot {
    /// Use of the slot; counts up with every connection.
    pub(super) tag: u32,
    pub(super) connection: Option<Box<Connection>>,
    /// The ID the client made up; `Some` while the handshake runs.
    pub(super) first_id: Option<FirstId>,
    /// Sequence of the next ID of ours.
    pub(super) next_sequence: u32,
    /// The address that was charged for the connection.
    pub(super) charged: Option<AddressKey>,
}

/// The QUIC side of one worker.
pub struct Endpoint {
    pub(super) config: quiche::Config,
    pub(super) shared: Rc<Shared>,
    pub(super) coder: CidCoder,
    pub(super) worker: u16,
    pub(super) epoch: u16,
    pub(super) slots: Vec<Slot>,
    pub(super) free: Vec<u32>,
    pub(super) half_open: HalfOpen,
    pub(super) accepting: bool,
    pub(super) reply: Vec<u8>,
    pub(super) admission: Admission,
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

    pub(super) fn denies(&self, from: SocketAddr) -> bool {
        self.shared.settings.denies(from)
    }

    pub(super) fn drop(&self, reason: DropReason) -> Received {
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

enum Found {
    Slot(u32),
    New(FirstId),
    /// The answer is written.
    Answered,
    Elsewhere(u16),
    Nothing(DropReason),
}
