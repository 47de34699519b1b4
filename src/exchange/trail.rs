//! What is remembered of an exchange for its log line: the decision, the bytes, the times.

use super::attempt::Taken;
use super::inflight::Full;
use super::{Exchange, Plan};
use crate::admit::{Exceeded, Left};
use crate::http::trace::write_hex;
use crate::http::{Known, Reason, Target, WireVersion};
use crate::identity::Handshake;
use crate::telemetry::kinds::Protocol;
use crate::telemetry::{AccessEntry, TlsEntry, WallClock};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// 16 unpredictable bytes that name one request: what `X-Request-ID` and the trace are made of.
pub type RequestId = [u8; 16];

/// A notable event's moment, as time since the head was read.
type At = Option<Duration>;

/// The short memory of one exchange.
#[derive(Clone, Debug)]
pub struct Trail {
    /// When the head was read.
    pub received: Instant,
    /// What names the request.
    pub id: RequestId,
    /// The client's validated address.
    pub client: SocketAddr,
    /// What the client speaks.
    pub protocol: Protocol,
    /// What the handshake of the client's connection ended with.
    pub tls: Rc<Handshake>,
    /// The status of the final head, once sent.
    pub status: Option<u16>,
    /// The first thing that went otherwise than asked.
    pub reason: Option<Reason>,
    /// The rate limit that it was over.
    pub exceeded: Option<Exceeded>,
    /// What its client is told is left of a rate limit.
    pub left: Option<Left>,
    /// The limit that it was refused by, with its value on this worker.
    pub refused_by: Option<Full>,
    /// How long it waited for room at its upstream; `None`: there was room.
    pub queued: Option<Duration>,
    /// Attempts made.
    pub attempts: u16,
    /// What spoke against backends that were asked for before the latest one was picked.
    pub skipped: Option<&'static str>,
    /// What the latest attempt was made for, if another one had failed before it.
    pub retried_for: Option<Reason>,
    /// Of these, such that began beside others.
    pub hedges: u16,
    /// Body bytes from the client.
    pub request_bytes: u64,
    /// Body bytes to the client.
    pub response_bytes: u64,
    first_byte: At,
}

impl Trail {
    /// The trail of a request whose head has just been read.
    pub fn new(received: Instant, id: RequestId, client: SocketAddr, protocol: Protocol, tls: Rc<Handshake>) -> Self {
        Self {
            received,
            id,
            client,
            protocol,
            tls,
            status: None,
            reason: None,
            exceeded: None,
            left: None,
            refused_by: None,
            queued: None,
            attempts: 0,
            skipped: None,
            retried_for: None,
            hedges: 0,
            request_bytes: 0,
            response_bytes: 0,
            first_byte: None,
        }
    }

    /// The final head came.
    pub(super) fn note_head(&mut self, status: u16, now: Instant) {
        self.status = Some(status);
        self.first_byte = Some(now.saturating_duration_since(self.received));
    }

    /// From the head to the response's first byte.
    pub fn first_byte(&self) -> Option<Duration> {
        self.first_byte
    }
}

impl Exchange {
    /// From the head to a connection that took the request.
    pub fn connected(&self) -> Option<Duration> {
        self.attempt.taken.map(|taken| taken.at.saturating_duration_since(self.trail.received))
    }

    /// Whether the client's answer is that of an attempt.
    pub fn has_answer(&self) -> bool {
        self.answered
    }

    /// Whether it is that of one that began beside others.
    pub fn answered_by_hedge(&self) -> bool {
        self.attempt.hedge && self.answered
    }

    /// What the response comes in, for Via (RFC 9110 §7.6.3).
    pub(super) fn received_version(&self) -> WireVersion {
        match self.attempt.taken {
            Some(Taken { protocol: Protocol::H2, .. }) => WireVersion::H2,
            _ => WireVersion::H1_1,
        }
    }

    /// The exchange as a record of the access log.
    pub fn entry<'a>(&'a self, id: &'a [u8], clock: &WallClock, now: Instant) -> AccessEntry<'a> {
        let trail = &self.trail;
        AccessEntry {
            received_unix_us: clock.unix_us(trail.received),
            client: Some(trail.client),
            protocol: trail.protocol,
            upstream_protocol: self.attempt.taken.map(|taken| taken.protocol),
            status: trail.status,
            reason: trail.reason,
            rate_limit: trail.exceeded.map(|exceeded| exceeded.limit.0),
            limit: trail.refused_by.map(|full| full.limit),
            queued: trail.queued,
            route: self.plan.map(|Plan { way, .. }| way.0),
            backend: self.attempt.backend.map(|backend| backend.0),
            attempts: trail.attempts,
            skipped: trail.skipped,
            retried_for: trail.retried_for,
            hedge: self.answered_by_hedge(),
            reused: self.attempt.taken.is_some_and(|taken| taken.reused),
            request_bytes: trail.request_bytes,
            response_bytes: trail.response_bytes,
            routed: self.plan.map(|_| Duration::ZERO),
            connected: self.connected(),
            first_byte: trail.first_byte,
            finished: now.saturating_duration_since(trail.received),
            round_trip: None,
            packets_lost: None,
            method: self.head.method.as_str().as_bytes(),
            authority: self.head.authority.as_str().as_bytes(),
            path: match &self.head.target {
                Target::Path(path) => path.forwarded().as_bytes(),
                Target::Asterisk => b"*",
                Target::Authority => b"",
            },
            request_id: id,
            tls: trail.tls.is_secured().then(|| TlsEntry {
                server_name: trail.tls.server_name.as_bytes(),
                cipher: trail.tls.cipher,
                group: trail.tls.group,
                resumed: trail.tls.resumed,
            }),
            user_agent: self.head.fields.get(Known::UserAgent).unwrap_or_default(),
        }
    }
}

/// Makes request identifiers: unpredictable to others, cheap to us (xorshift over a seeded state, not a secret).
#[derive(Clone, Debug)]
pub struct Ids {
    state: [u64; 2],
}

impl Ids {
    /// A generator; `seed` comes from the system's randomness.
    pub fn new(seed: [u8; 16]) -> Self {
        let (low, high) = seed.split_at(8);
        let word = |bytes: &[u8]| bytes.iter().fold(0u64, |word, &byte| word << 8 | u64::from(byte));
        // An all-zero state would stay zero for ever.
        Self { state: [word(low) | 1, word(high)] }
    }

    /// 64 bits (xoroshiro128+).
    pub fn word(&mut self) -> u64 {
        let [a, mut b] = self.state;
        let result = a.wrapping_add(b);
        b ^= a;
        self.state = [a.rotate_left(24) ^ b ^ b << 16, b.rotate_left(37)];
        result
    }

    /// The next request's identifier.
    pub fn next_id(&mut self) -> RequestId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.word().to_be_bytes());
        id[8..].copy_from_slice(&self.word().to_be_bytes());
        id
    }
}

/// `bytes` in lower-case hexadecimal; `N` is twice `M`.
pub fn hex<const M: usize, const N: usize>(bytes: &[u8; M]) -> [u8; N] {
    const { assert!(N == 2 * M) };
    let mut text = [0; N];
    write_hex(bytes, &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ten_thousand_identifiers_differ_even_from_a_zero_seed() {
        let mut ids = Ids::new([0; 16]);
        let seen: HashSet<RequestId> = (0..10_000).map(|_| ids.next_id()).collect();
        assert_eq!(seen.len(), 10_000);
    }

    #[test]
    fn identifiers_are_written_in_lower_case_hexadecimal() {
        assert_eq!(&hex::<2, 4>(&[0x0f, 0xa0]), b"0fa0");
    }
}
