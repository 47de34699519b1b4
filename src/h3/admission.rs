//! Owns what is decided of a client's first packet before anything is kept of it: whether its address has proved itself,
//! has to, or has reached its limit (RFC 9000 §8.1).
//!
//! Knows no connections; [`super::endpoint`] asks, and keeps. Limits by address hold for proved and unproved packets
//! alike, but only proved addresses are charged: see [`super::addresses`].

use super::cid::{Cid, CidCoder};
use super::counters::Counters;
use super::keys::EndpointKeys;
use super::packet::{self, VERSION_1};
use super::settings::{QuicSettings, Retry};
use super::stateless::{self, Noise, ResetBudget};
use super::token::{OriginalId, TOKEN_LEN_MAX, TokenKey, Verdict};
use crate::limits::quic::RETRY_SHARE;
use crate::limits::{AddressKey, Addresses, Reached};
use crate::telemetry::WallClock;
use std::net::SocketAddr;
use std::time::Instant;

/// INVALID_TOKEN and CONNECTION_REFUSED (RFC 9000 §20.1).
const INVALID_TOKEN: u8 = 0x0b;
const CONNECTION_REFUSED: u8 = 0x02;

/// A client's first packet.
pub(super) struct First<'a> {
    pub(super) datagram: &'a [u8],
    pub(super) dcid: &'a [u8],
    pub(super) scid: &'a [u8],
    pub(super) from: SocketAddr,
    pub(super) now: Instant,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// It may open a connection; nothing is known of its address.
    Unproved,
    /// It may open a connection, and its address is proved: it is the answer to our Retry of a packet to this ID.
    Proved(OriginalId),
    /// The answer is written.
    Answered,
    /// It is cut off within its token.
    Invalid,
}

/// The door of one endpoint.
pub(super) struct Admission {
    tokens: TokenKey,
    noise: Noise,
    resets: ResetBudget,
    addresses: Addresses,
    /// Tokens carry the date, so that other processes can read them; until it is known there are none.
    clock: Option<WallClock>,
    retry: Retry,
    /// Handshakes from which on `auto` wants proofs.
    pressure: usize,
    worker: u16,
    epoch: u16,
}

impl Admission {
    pub(super) fn new(settings: &QuicSettings, keys: &EndpointKeys, worker: u16, epoch: u16) -> Self {
        Self {
            tokens: TokenKey::new(keys),
            noise: Noise::new(keys, worker, epoch),
            resets: ResetBudget::default(),
            addresses: Addresses::new(settings.address_limits),
            clock: None,
            retry: settings.retry,
            pressure: settings.half_open.div_ceil(RETRY_SHARE),
            worker,
            epoch,
        }
    }

    pub(super) fn set_clock(&mut self, clock: WallClock) {
        self.clock = Some(clock);
    }

    /// Bits for answers, where they mean nothing.
    pub(super) fn noise(&mut self) -> u32 {
        self.noise.number()
    }

    /// Decides on a client's first packet while so many handshakes are open. An answer goes to `reply`.
    pub(super) fn enter(
        &mut self,
        first: &First<'_>,
        half_open: usize,
        coder: &mut CidCoder,
        counters: &Counters,
        reply: &mut Vec<u8>,
    ) -> Entry {
        let Some(token) = packet::initial_token(first.datagram) else {
            return Entry::Invalid;
        };
        let mut proved = None;
        let unix_ms = self.clock.map(|clock| clock.unix_us(first.now) / 1_000);
        if !token.is_empty() {
            let verdict = match unix_ms {
                Some(unix_ms) => self.tokens.open(token, first.dcid, first.from, unix_ms),
                None => Verdict::Unknown,
            };
            match verdict {
                Verdict::Valid(original) => {
                    counters.tokens_valid.add(1);
                    proved = Some(original);
                }
                Verdict::Unknown => counters.tokens_unknown.add(1),
                Verdict::Expired => counters.tokens_expired.add(1),
                Verdict::OtherAddress => counters.tokens_other_address.add(1),
                Verdict::Altered => counters.tokens_altered.add(1),
            }
            // Who comes with a bad token of a Retry takes no second Retry: it is told at once (RFC 9000 §8.1.2).
            if matches!(verdict, Verdict::Expired | Verdict::OtherAddress | Verdict::Altered) {
                return close(first, INVALID_TOKEN, reply);
            }
        }
        if let Err(reached) = self.addresses.check(first.from, first.now) {
            count_refusal(counters, reached);
            return close(first, CONNECTION_REFUSED, reply);
        }
        match (proved, unix_ms) {
            (Some(original), _) => Entry::Proved(original),
            (None, Some(unix_ms)) if self.wants_proof(half_open) => self.retry(first, unix_ms, coder, counters, reply),
            (None, _) => Entry::Unproved,
        }
    }

    fn wants_proof(&self, half_open: usize) -> bool {
        match self.retry {
            Retry::Always => true,
            Retry::Auto => half_open >= self.pressure,
            Retry::Never => false,
        }
    }

    /// Writes a Retry. Nothing is kept of it: all that is needed later stands in the token.
    fn retry(
        &mut self,
        first: &First<'_>,
        unix_ms: u64,
        coder: &mut CidCoder,
        counters: &Counters,
        reply: &mut Vec<u8>,
    ) -> Entry {
        let noise = self.noise.next();
        let word = |at: usize| u32::from_be_bytes([noise[at], noise[at + 1], noise[at + 2], noise[at + 3]]);
        // An ID of ours, so that what answers it comes to this worker; it names a place that no connection has.
        let retry_id = coder.encode(Cid {
            epoch: self.epoch,
            worker: self.worker,
            slot: word(0) | 1 << 31,
            tag: word(4),
            sequence: word(8),
        });
        let mut token = Vec::with_capacity(TOKEN_LEN_MAX);
        self.tokens.seal(first.dcid, &retry_id, first.from, unix_ms, &mut token);
        reply.clear();
        reply.resize(RETRY_LEN_MAX, 0);
        let id = quiche::ConnectionId::from_ref;
        match quiche::retry(&id(first.scid), &id(first.dcid), &id(&retry_id), &token, VERSION_1, reply) {
            Ok(len) => {
                reply.truncate(len);
                counters.retries.add(1);
                Entry::Answered
            }
            Err(_) => {
                reply.clear();
                Entry::Invalid
            }
        }
    }

    /// Charges the address of a connection that has proved it; remember the key until it is gone.
    pub(super) fn charge(&mut self, address: SocketAddr, now: Instant, counters: &Counters) -> Option<AddressKey> {
        if self.addresses.is_off() {
            return None;
        }
        let key = self.addresses.charge(address, now);
        if key.is_none() {
            counters.addresses_untracked.add(1);
        }
        key
    }

    /// Whether an address that has just proved itself may keep its connection: others of its may have come first.
    pub(super) fn check(&self, address: SocketAddr, now: Instant, counters: &Counters) -> bool {
        let checked = self.addresses.check(address, now);
        if let Err(reached) = checked {
            count_refusal(counters, reached);
        }
        checked.is_ok()
    }

    /// A connection that was charged is gone.
    pub(super) fn release(&mut self, key: AddressKey) {
        self.addresses.release(key);
    }

    /// Writes the stateless reset for a connection of ours that is no more; `false`: nothing is answered.
    pub(super) fn reset(
        &mut self,
        token: u128,
        asked: usize,
        now: Instant,
        counters: &Counters,
        reply: &mut Vec<u8>,
    ) -> bool {
        if asked <= stateless::RESET_LEN_MIN {
            counters.resets_too_small.add(1);
            return false;
        }
        if !self.resets.take(now) {
            counters.resets_limited.add(1);
            return false;
        }
        counters.resets.add(1);
        stateless::reset(token, asked, &mut self.noise, reply)
    }
}

/// Bytes of the longest Retry: first byte, version, two IDs, a token, the integrity tag. A tenth of what asks for it.
const RETRY_LEN_MAX: usize = 1 + 4 + 2 * (1 + 20) + TOKEN_LEN_MAX + 16;
const _: () = assert!(RETRY_LEN_MAX < packet::INITIAL_LEN_MIN);

fn close(first: &First<'_>, code: u8, reply: &mut Vec<u8>) -> Entry {
    match stateless::refuse(first.dcid, first.scid, code, reply) {
        Some(()) => Entry::Answered,
        None => Entry::Invalid,
    }
}

fn count_refusal(counters: &Counters, reached: Reached) {
    match reached {
        Reached::Connections => counters.refused_address_connections.add(1),
        Reached::Rate => counters.refused_address_rate.add(1),
    }
}
