//! Owns when packets of a window-based congestion control leave: spread over the round trip instead of all at once
//! (RFC 9002 §7.7). A burst as large as the window overflows the first shallow queue on the way, and the loss then halves
//! a rate that the path could have carried.
//!
//! A bucket of bytes fills at 5/4 of the rate that the window allows, so that pacing never is what limits it. Packets
//! leave in quanta of a millisecond's worth: trains stay long, timers few. Below a round trip of a millisecond there is
//! nothing to spread; the bound on what is in flight ([`super::flight`]) keeps bursts small there.

use std::time::{Duration, Instant};

/// Paths shorter than this are not paced.
const SHORT: Duration = Duration::from_millis(1);
/// Quanta a second.
const QUANTA: u64 = 1000;
/// Packets of the smallest quantum: a fresh connection's window (RFC 9002 §7.2).
const QUANTUM_PACKETS: usize = 10;

/// The bucket of one connection.
#[derive(Debug)]
pub(super) struct Pacer {
    /// Bytes a second; 0: not paced.
    rate: u64,
    /// Bytes that may leave now; below 0 by a packet at most.
    budget: i64,
    /// When `budget` was right.
    at: Instant,
    /// What is waited for once the bucket is empty.
    quantum: i64,
    /// The full bucket: what may leave after a silence.
    burst: i64,
    held_until: Option<Instant>,
}

impl Pacer {
    /// A full bucket of `burst` bytes.
    pub(super) fn new(burst: usize, now: Instant) -> Self {
        let burst = i64::try_from(burst).unwrap_or(i64::MAX);
        Self { rate: 0, budget: burst, at: now, quantum: burst, burst, held_until: None }
    }

    /// The path was measured.
    pub(super) fn measure(&mut self, round_trip: Duration, congestion_window: usize, packet: usize) {
        if round_trip < SHORT {
            self.rate = 0;
            self.held_until = None;
            return;
        }
        let window = congestion_window as u128 * 5 / 4;
        let rate = (window * 1_000_000 / round_trip.as_micros()).clamp(1, 1 << 40);
        self.rate = rate as u64;
        let least = ((QUANTUM_PACKETS * packet) as i64).min(self.burst);
        self.quantum = ((self.rate / QUANTA) as i64).clamp(least, self.burst);
    }

    /// When the next packet may leave; `None`: now.
    pub(super) fn held_until(&mut self, now: Instant) -> Option<Instant> {
        if self.rate == 0 {
            return None;
        }
        if let Some(at) = self.held_until {
            if now < at {
                return Some(at);
            }
            self.held_until = None;
        }
        if now > self.at {
            // A longer silence fills the bucket anyway.
            let silence = now.duration_since(self.at).min(Duration::from_secs(10)).as_nanos();
            let earned = u128::from(self.rate) * silence / 1_000_000_000;
            self.budget = (i128::from(self.budget) + earned as i128).min(i128::from(self.burst)) as i64;
            self.at = now;
        }
        if self.budget > 0 {
            return None;
        }
        let missing = (self.quantum - self.budget) as u128;
        let wait = Duration::from_nanos((missing * 1_000_000_000 / u128::from(self.rate)) as u64);
        self.held_until = Some(now + wait);
        self.held_until
    }

    /// A packet left.
    pub(super) fn sent(&mut self, bytes: usize) {
        if self.rate != 0 {
            self.budget -= bytes as i64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: usize = 1000;

    /// Sends what may be sent until `end`; returns the times and sizes of bursts.
    fn bursts(pacer: &mut Pacer, start: Instant, end: Duration) -> Vec<(Duration, usize)> {
        let (mut now, mut bursts) = (start, Vec::new());
        while now < start + end {
            let mut sent = 0;
            let next = loop {
                match pacer.held_until(now) {
                    Some(at) => break at,
                    None => {
                        pacer.sent(PACKET);
                        sent += PACKET;
                    }
                }
            };
            assert!(next > now, "a wait that does not pass");
            bursts.push((now - start, sent));
            now = next;
        }
        bursts
    }

    #[test]
    fn a_window_is_spread_over_four_fifths_of_the_round_trip() {
        let start = Instant::now();
        let mut pacer = Pacer::new(44 * PACKET, start);
        pacer.measure(Duration::from_millis(100), 1000 * PACKET, PACKET);
        let bursts = bursts(&mut pacer, start, Duration::from_millis(400));
        assert_eq!(bursts[0].1, 44 * PACKET, "a full bucket at first");
        assert!(bursts[1..].iter().all(|&(_, sent)| (10 * PACKET..=13 * PACKET).contains(&sent)), "{bursts:?}");
        let sum = bursts.iter().map(|&(_, sent)| sent).sum::<usize>();
        let wanted = 5 * 1000 * PACKET + 44 * PACKET;
        assert!(sum.abs_diff(wanted) < 15 * PACKET, "{sum}");
    }

    #[test]
    fn a_fast_path_is_paced_in_whole_trains() {
        let start = Instant::now();
        let mut pacer = Pacer::new(44 * PACKET, start);
        pacer.measure(Duration::from_millis(10), 2000 * PACKET, PACKET);
        let bursts = bursts(&mut pacer, start, Duration::from_millis(10));
        assert!(bursts[1..].iter().all(|&(_, sent)| (44 * PACKET..=45 * PACKET).contains(&sent)), "{bursts:?}");
    }

    #[test]
    fn a_slow_path_still_sends_ten_packets_at_once() {
        let start = Instant::now();
        let mut pacer = Pacer::new(44 * PACKET, start);
        pacer.measure(Duration::from_millis(200), 20 * PACKET, PACKET);
        let bursts = bursts(&mut pacer, start, Duration::from_secs(2));
        assert!(bursts[1..].iter().all(|&(_, sent)| (10 * PACKET..=11 * PACKET).contains(&sent)), "{bursts:?}");
    }

    #[test]
    fn a_short_path_is_not_paced() {
        let start = Instant::now();
        let mut pacer = Pacer::new(44 * PACKET, start);
        pacer.measure(Duration::from_millis(100), 20 * PACKET, PACKET);
        while pacer.held_until(start).is_none() {
            pacer.sent(PACKET);
        }
        pacer.measure(Duration::from_micros(900), 20 * PACKET, PACKET);
        assert_eq!(pacer.held_until(start), None);
    }

    #[test]
    fn a_silence_fills_the_bucket_and_no_more() {
        let start = Instant::now();
        let mut pacer = Pacer::new(44 * PACKET, start);
        pacer.measure(Duration::from_millis(100), 1000 * PACKET, PACKET);
        while pacer.held_until(start).is_none() {
            pacer.sent(PACKET);
        }
        let later = start + Duration::from_secs(3600);
        assert_eq!(bursts(&mut pacer, later, Duration::from_nanos(1))[0].1, 44 * PACKET);
    }
}
