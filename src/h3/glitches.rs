//! Owns the accounts of what a client may do but has no reason to do often: one small ledger per connection. Each kind has
//! a bucket that leaks with time and with useful work; when one runs over, the connection is closed with
//! H3_EXCESSIVE_LOAD.
//!
//! It refuses to know the transport: the connection tells it what was counted. The bounds and their reasons stand in
//! [`crate::limits::quic::glitch`].
//!
//! Frames on streams are not counted one by one, since the HTTP/3 layer shows only what it understood. Instead bytes are
//! explained: each byte on the wire should be a byte of body, of a head, or a packet's own. While too many are not, turns
//! are *looked at*: what the layer took from the streams and did not hand on was frames without content.

use crate::http::Buckets;
use crate::limits::quic::glitch;

/// Why a connection was closed for excessive load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Glitch {
    /// Requests the client gave up before they were answered.
    Resets,
    /// Requests that broke the rules of their stream.
    Malformed,
    /// Packets that brought nothing: no bytes to speak of, no acknowledgement of ours.
    Packets,
    /// PATH_CHALLENGE frames.
    PathChallenges,
    /// Connection IDs of ours that the client retired.
    ConnectionIds,
    /// Bytes of frames without content: headers of tiny DATA frames, unknown frames, settings.
    Frames,
    /// Bytes that were neither body nor head nor waiting for us: padding, repetition, tiny STREAM frames.
    Bytes,
}

impl Glitch {
    /// Every kind, in the order of the variants.
    pub const ALL: [Self; 7] = [
        Self::Resets,
        Self::Malformed,
        Self::Packets,
        Self::PathChallenges,
        Self::ConnectionIds,
        Self::Frames,
        Self::Bytes,
    ];

    /// The token of the metrics label and of the reason phrase.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Resets => "resets",
            Self::Malformed => "malformed",
            Self::Packets => "packets",
            Self::PathChallenges => "path_challenges",
            Self::ConnectionIds => "connection_ids",
            Self::Frames => "frames",
            Self::Bytes => "bytes",
        }
    }
}

/// Kinds with a bucket; the last kind has a balance instead.
const BUCKETS: usize = Glitch::ALL.len() - 1;

/// What the transport counted since the connection began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    /// Packets that were authentic and new.
    pub(super) packets: u64,
    /// Their bytes, with those of datagrams that were not.
    pub(super) bytes: u64,
    /// Bytes of ours that were acknowledged.
    pub(super) acknowledged: u64,
    /// PATH_CHALLENGE frames.
    pub(super) challenges: u64,
}

/// Bytes of ours in one step of [`Glitches::acknowledged`].
const ACKNOWLEDGED_STEP: u64 = 256;

/// The ledger of one connection.
#[derive(Debug, Default)]
pub(super) struct Glitches {
    buckets: Buckets<BUCKETS>,
    /// Wraps, as the two below.
    challenges: u16,
    packets: u16,
    acknowledged: u16,
    bytes: u32,
    /// Bytes that were not explained yet; below zero they are excused in advance.
    unexplained: i32,
    /// One more than the bytes that streams had for us when this turn began, less what was handed on since; 0: nobody
    /// looks.
    look: u32,
}

impl Glitches {
    /// So many seconds after the connection began: what leaked since the last time.
    #[inline]
    pub(super) fn tick(&mut self, second: u64) {
        let passed = self.buckets.tick(second, &glitch::LEAK);
        if passed == 0 {
            return;
        }
        let leak = glitch::BYTES_LEAK.saturating_mul(i32::from(passed));
        self.unexplained = if self.unexplained < 0 {
            self.unexplained.saturating_add(leak).min(0)
        } else {
            self.unexplained.saturating_sub(leak).max(0)
        };
    }

    /// The client did something of this kind `n` times.
    #[inline]
    pub(super) fn charge(&mut self, kind: Glitch, n: u32) {
        self.buckets.charge(kind as usize, n);
    }

    /// So many packets said that their sender is blocked, and needed nothing else.
    pub(super) fn excuse_packets(&mut self, n: u64) {
        self.pay(Glitch::Packets, u16::try_from(n).unwrap_or(u16::MAX));
    }

    /// Takes over what the transport counted.
    pub(super) fn count(&mut self, totals: Totals) {
        let packets = (totals.packets as u16).wrapping_sub(self.packets);
        let bytes = (totals.bytes as u32).wrapping_sub(self.bytes);
        let step = (totals.acknowledged / ACKNOWLEDGED_STEP) as u16;
        let acknowledged = step.wrapping_sub(self.acknowledged);
        let challenges = (totals.challenges as u16).wrapping_sub(self.challenges);
        self.packets = totals.packets as u16;
        self.bytes = totals.bytes as u32;
        self.acknowledged = step;
        self.challenges = totals.challenges as u16;

        self.charge(Glitch::PathChallenges, u32::from(challenges));
        // Large packets are accounted by their bytes.
        let useful = bytes / glitch::FULL_PACKET_BYTES + u32::from(acknowledged);
        self.charge(Glitch::Packets, u32::from(packets).saturating_sub(useful));
        let own = u32::from(packets) * glitch::PACKET_BYTES;
        let rest = i32::try_from(bytes.saturating_sub(own)).unwrap_or(i32::MAX);
        self.unexplained = self.unexplained.saturating_add(rest);
    }

    /// A request's head came, or its trailers, of about so many bytes.
    pub(super) fn head(&mut self, bytes: usize) {
        self.pay(Glitch::Packets, glitch::PACKETS_PER_REQUEST);
        self.explain(bytes + bytes / 2);
    }

    /// A request's head was refused for its size. It is charged twice, because its answer pays for one: nothing is dearer to
    /// read than heads that lead to nothing.
    pub(super) fn large_head(&mut self) {
        self.charge(Glitch::Malformed, 2);
    }

    /// So many bytes of body were handed on.
    #[inline]
    pub(super) fn body(&mut self, bytes: usize) {
        self.pay(Glitch::Packets, 1);
        self.explain(bytes + bytes / 2);
    }

    /// A request was answered to its end.
    #[inline]
    pub(super) fn answered(&mut self) {
        self.pay(Glitch::Resets, 1);
        self.pay(Glitch::Malformed, 1);
    }

    /// We want no more of a request, of which so many bytes may be on their way.
    pub(super) fn refused(&mut self, window: u64) {
        let window = i32::try_from(window).unwrap_or(i32::MAX);
        self.unexplained = self.unexplained.saturating_sub(window).max(-glitch::BYTES_EXCUSED);
        self.look_away();
    }

    fn pay(&mut self, kind: Glitch, n: u16) {
        self.buckets.pay(kind as usize, n);
    }

    fn explain(&mut self, bytes: usize) {
        if self.unexplained > 0 {
            let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
            self.unexplained = self.unexplained.saturating_sub(bytes).max(0);
        }
        if self.look > 0 {
            self.look = self.look.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX)).max(1);
        }
    }

    /// Whether this turn should be looked at.
    pub(super) fn wants_look(&self) -> bool {
        self.look == 0 && (self.unexplained > glitch::LOOK_BYTES || self.unexplained < 0)
    }

    /// Begins to look: streams have so many bytes for us.
    pub(super) fn look(&mut self, readable: usize) {
        self.look = u32::try_from(readable).unwrap_or(u32::MAX).saturating_add(1);
    }

    /// Whether a turn is being looked at.
    #[inline]
    pub(super) fn looks(&self) -> bool {
        self.look > 0
    }

    /// The comparison makes no sense any more: bytes were dropped unread.
    pub(super) fn look_away(&mut self) {
        self.look = 0;
    }

    /// Everything was taken that will be; streams still have so many bytes, which wait for us. `limit`: bytes that may stay
    /// unexplained. Tells if they are too many.
    pub(super) fn looked(&mut self, readable: usize, limit: u64) -> Option<Glitch> {
        let readable = u32::try_from(readable).unwrap_or(u32::MAX);
        let empty = self.look.saturating_sub(1).saturating_sub(readable);
        self.look = 0;
        self.charge(Glitch::Frames, empty.div_ceil(glitch::FRAME_STEP));
        let unexplained = u64::try_from(self.unexplained).unwrap_or(0);
        (unexplained.saturating_sub(u64::from(readable)) > limit).then_some(Glitch::Bytes)
    }

    /// The first bucket that ran over.
    #[inline]
    pub(super) fn overflow(&self) -> Option<Glitch> {
        self.buckets.overflow(&glitch::LIMIT).map(|kind| Glitch::ALL[kind])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_is_small_and_kinds_index_their_buckets() {
        assert!(size_of::<Glitches>() <= 32, "{}", size_of::<Glitches>());
        for (index, kind) in Glitch::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
        assert_eq!((glitch::LIMIT.len(), glitch::LEAK.len()), (BUCKETS, BUCKETS));
    }

    #[test]
    fn every_bucket_runs_over_and_leaks() {
        for kind in &Glitch::ALL[..BUCKETS] {
            let (limit, leak) = (glitch::LIMIT[*kind as usize], glitch::LEAK[*kind as usize]);
            let mut ledger = Glitches::default();
            ledger.charge(*kind, u32::from(limit));
            assert_eq!(ledger.overflow(), None, "{kind:?} at its limit");
            ledger.charge(*kind, 1);
            assert_eq!(ledger.overflow(), Some(*kind));
            ledger.tick(1);
            assert_eq!(ledger.overflow(), None, "{kind:?} leaks");
            ledger.charge(*kind, u32::from(leak));
            assert_eq!(ledger.overflow(), Some(*kind), "{kind:?} leaks no more than it should");
            ledger.charge(*kind, u32::MAX);
            assert_eq!(ledger.overflow(), Some(*kind), "{kind:?} does not wrap");
        }
    }

    #[test]
    fn a_flood_at_just_the_leak_rate_is_borne_for_ever() {
        let mut ledger = Glitches::default();
        for second in 1..200_000 {
            ledger.tick(second);
            for kind in &Glitch::ALL[..BUCKETS] {
                ledger.charge(*kind, u32::from(glitch::LEAK[*kind as usize]));
            }
            assert_eq!(ledger.overflow(), None);
        }
    }

    #[test]
    fn packets_with_nothing_in_them_count_and_others_do_not() {
        let packets = u64::from(glitch::LIMIT[Glitch::Packets as usize]) + 1;
        let turns = |bytes: u64, acknowledged: u64| {
            let mut ledger = Glitches::default();
            for n in (0..=packets).step_by(10) {
                let totals = Totals { packets: n, bytes: n * bytes, acknowledged: n * acknowledged, challenges: 0 };
                ledger.count(totals);
            }
            ledger.count(Totals {
                packets: packets + 600,
                bytes: (packets + 600) * bytes,
                acknowledged: 0,
                challenges: 0,
            });
            ledger.overflow()
        };
        assert_eq!(turns(40, 0), Some(Glitch::Packets), "PING");
        assert_eq!(turns(1200, 0), None, "full ones count by their bytes");
        assert_eq!(turns(40, 1200), None, "acknowledgements of a download");
    }

    #[test]
    fn frames_without_content_are_found_by_looking() {
        let mut ledger = Glitches::default();
        let mut total = Totals::default();
        let mut wire = 0;
        while ledger.overflow().is_none() {
            total.packets += 10;
            total.bytes += 12_000;
            wire += 12_000;
            ledger.count(total);
            if ledger.wants_look() {
                ledger.look(11_500);
                assert_eq!(ledger.looked(0, 16 << 20), None);
            }
            assert!(wire < 256 << 10, "found late");
        }
        assert_eq!(ledger.overflow(), Some(Glitch::Frames));
    }

    #[test]
    fn an_upload_is_explained_by_its_body_and_a_stalled_one_by_waiting() {
        let mut ledger = Glitches::default();
        let mut total = Totals::default();
        for _ in 0..100_000 {
            total.packets += 10;
            total.bytes += 12_000;
            ledger.count(total);
            if ledger.wants_look() {
                ledger.look(11_500);
            }
            ledger.body(11_450);
            if ledger.looks() {
                assert_eq!(ledger.looked(0, 16 << 20), None);
            }
        }
        assert_eq!(ledger.overflow(), None);
        // A window of bytes that nobody reads.
        let mut waiting = 0;
        for _ in 0..3000 {
            total.packets += 10;
            total.bytes += 12_000;
            ledger.count(total);
            waiting += 11_500;
            if ledger.wants_look() {
                ledger.look(waiting);
                assert_eq!(ledger.looked(waiting, 1 << 20), None);
            }
        }
        assert_eq!(ledger.overflow(), None);
    }

    #[test]
    fn bytes_that_nothing_explains_run_over() {
        let mut ledger = Glitches::default();
        let mut total = Totals::default();
        let limit = 1 << 20;
        let found = (0..1000).position(|_| {
            total.packets += 10;
            total.bytes += 12_000;
            ledger.count(total);
            ledger.look(0);
            ledger.looked(0, limit).is_some()
        });
        assert!((80..120).contains(&found.unwrap()), "{found:?}");
        assert_eq!(ledger.overflow(), None, "no packet and no frame was too many");
    }

    #[test]
    fn what_a_refused_upload_had_on_its_way_is_excused_once() {
        let mut ledger = Glitches::default();
        ledger.refused(1 << 20);
        let mut total = Totals { packets: 800, bytes: 900_000, ..Totals::default() };
        ledger.count(total);
        assert!(ledger.wants_look(), "excused bytes are looked at");
        ledger.look(0);
        assert_eq!(ledger.looked(0, 10_000), None);
        total.packets += 800;
        total.bytes += 900_000;
        ledger.count(total);
        ledger.look(0);
        assert_eq!(ledger.looked(0, 10_000), Some(Glitch::Bytes));
    }

    #[test]
    fn packets_that_say_that_their_sender_is_blocked_are_excused() {
        let mut total = Totals::default();
        let mut ledger = Glitches::default();
        for _ in 0..20_000 {
            total.packets += 1;
            total.bytes += 60;
            ledger.count(total);
            ledger.excuse_packets(1);
        }
        assert_eq!(ledger.overflow(), None, "an upload that waits asks for more with every packet");
        let ran_over = (0..20_000).position(|_| {
            total.packets += 1;
            total.bytes += 60;
            ledger.count(total);
            ledger.overflow().is_some()
        });
        assert!(ran_over.is_some(), "packets that say nothing are counted");
    }

    #[test]
    fn answers_pay_for_resets() {
        let mut ledger = Glitches::default();
        for _ in 0..100_000 {
            ledger.charge(Glitch::Resets, 1);
            ledger.answered();
        }
        assert_eq!(ledger.overflow(), None);
    }
}
