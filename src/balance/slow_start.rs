//! Slow start: who comes back takes its share little by little, so that what is cold is not met by all that was waiting for it.
//!
//! It stands before whatever algorithm picks. A backend that came back is left out of a part of the picks that shrinks to
//! nothing over its time, and what it has in flight looks as much larger as its weight is smaller meanwhile. So every algorithm
//! that has weights acts as if this one grew, and none has to know of it.
//!
//! Which picks those are a number decides that the caller draws; where requests are kept together by a key, the key is that
//! number. So each key comes back to its backend once, at its own moment, and does not go to and fro.

use super::random::mix;
use std::time::{Duration, Instant};

/// The part of its share that a backend has at once, in units of [`WHOLE`]: a tenth.
const LEAST: u64 = WHOLE / 10;

/// All of its share.
const WHOLE: u64 = 1 << 16;

/// Who has come back to one upstream, on one worker.
#[derive(Clone, Debug)]
pub struct SlowStart {
    time: Duration,
    /// Positions with the time of their return; each once.
    warming: Vec<(usize, Instant)>,
}

/// The same at one moment, for one pick.
#[derive(Clone, Copy, Debug)]
pub struct Warming<'a> {
    of: &'a SlowStart,
    now: Instant,
    draw: u64,
}

impl SlowStart {
    /// With so much time for each.
    #[must_use]
    pub fn new(time: Duration) -> Self {
        Self { time, warming: Vec::new() }
    }

    /// A position came back then.
    pub fn begin(&mut self, at: usize, since: Instant) {
        self.end(at);
        self.warming.push((at, since));
    }

    /// A position is gone again.
    pub fn end(&mut self, at: usize) {
        self.warming.retain(|(other, _)| *other != at);
    }

    /// What a pick has to look at; `None`: nobody is warming, and that stays so without looking at the time.
    #[inline]
    pub fn at(&mut self, now: Instant, draw: impl FnOnce() -> u64) -> Option<Warming<'_>> {
        if self.warming.is_empty() {
            return None;
        }
        self.warming.retain(|(_, since)| now.saturating_duration_since(*since) < self.time);
        if self.warming.is_empty() { None } else { Some(Warming { of: self, now, draw: draw() }) }
    }
}

impl Warming<'_> {
    /// The part that a position has of its share.
    fn part(&self, at: usize) -> Option<u64> {
        let (_, since) = self.of.warming.iter().find(|(warming, _)| *warming == at)?;
        let gone = self.now.saturating_duration_since(*since).as_nanos();
        let part = gone * u128::from(WHOLE) / self.of.time.as_nanos().max(1);
        Some((part as u64).clamp(LEAST, WHOLE))
    }

    /// Whether this pick leaves a position out. The same answer each time it is asked.
    #[inline]
    #[must_use]
    pub fn leaves_out(&self, at: usize) -> bool {
        self.part(at).is_some_and(|part| mix(self.draw ^ mix(at as u64 + 1)) % WHOLE >= part)
    }

    /// What a position has in flight, as the balancer is to see it.
    #[inline]
    #[must_use]
    pub fn load(&self, at: usize, inflight: u32) -> u32 {
        match self.part(at) {
            Some(part) => (u64::from(inflight) * WHOLE / part).min(u64::from(u32::MAX)) as u32,
            None => inflight,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::balancer::tests::all;
    use crate::balance::random::Chance;
    use crate::balance::{Ask, Balancer, LeastConnections, Outcome};
    use std::collections::VecDeque;

    const TIME: Duration = Duration::from_secs(100);

    /// The share of position 0 of four while it is so far in its time, with so many requests at once.
    fn share(balancer: &mut Balancer, slow: &mut SlowStart, now: Instant, at_once: usize) -> f64 {
        const PICKS: u32 = 20_000;
        let mut chance = Chance::new(9);
        let (mut count, mut inflight, mut running) = (0, [0_u32; 4], VecDeque::new());
        for _ in 0..PICKS {
            if running.len() == at_once {
                let at = running.pop_front().expect("as many as run at once");
                inflight[at] -= 1;
                balancer.observe(at, Outcome::Answered(Duration::from_millis(50)), now);
            }
            let (key, draw) = (chance.next(), chance.next());
            let ask = Ask { affinity: Some(key), running: running.len() as u32 + 1, now, random: || draw };
            let hashes = matches!(balancer, Balancer::ConsistentHash(_) | Balancer::StickyCid(_));
            let at = match slow.at(now, || if hashes { key } else { draw }) {
                None => balancer.pick(ask, |at| inflight[at], |_| false),
                Some(warming) => balancer.pick(ask, |at| warming.load(at, inflight[at]), |at| warming.leaves_out(at)),
            };
            let at = at.expect("three others");
            count += u32::from(at == 0);
            inflight[at] += 1;
            running.push_back(at);
        }
        f64::from(count) / f64::from(PICKS)
    }

    #[test]
    fn in_every_algorithm_the_share_grows_and_returns() {
        for at_once in [1, 80] {
            for mut balancer in all(&[100; 4]) {
                let start = Instant::now();
                let mut slow = SlowStart::new(TIME);
                slow.begin(0, start);
                let shares = [0, 10, 25, 50, 75, 100]
                    .map(|percent| share(&mut balancer, &mut slow, start + TIME * percent / 100, at_once));
                let told = format!("{at_once} at once: {shares:?} by {balancer:?}");
                // A tenth of a quarter at first, a quarter at last.
                assert!((0.005..0.06).contains(&shares[0]), "{told}");
                assert!((0.05..0.20).contains(&shares[3]), "{told}");
                assert!((0.24..0.26).contains(&shares[5]), "{told}");
                assert!(shares.is_sorted_by(|one, next| *one <= next + 0.01), "{told}");
            }
        }
    }

    #[test]
    fn sabotage_without_it_the_free_one_gets_everything() {
        let mut balancer = Balancer::LeastConnections(LeastConnections::new([100; 4]));
        let now = Instant::now();
        let inflight = [0, 10, 10, 10];
        let taken = (0..100).filter(|draw| {
            let ask = Ask { affinity: None, running: 31, now, random: || draw << 56 };
            balancer.pick(ask, |at| inflight[at], |_| false) == Some(0)
        });
        assert_eq!(taken.count(), 100);
    }

    #[test]
    fn a_key_comes_back_once() {
        let start = Instant::now();
        let mut slow = SlowStart::new(TIME);
        slow.begin(2, start);
        let mut chance = Chance::new(3);
        for _ in 0..1000 {
            let key = chance.next();
            let out = (0..=100).map(|percent| {
                slow.at(start + TIME * percent / 100, || key).is_some_and(|warming| warming.leaves_out(2))
            });
            assert!(out.collect::<Vec<_>>().is_sorted_by(|before, after| before >= after));
        }
    }

    #[test]
    fn it_ends_with_its_time_or_when_the_backend_is_gone_again() {
        let (start, mut slow) = (Instant::now(), SlowStart::new(TIME));
        assert!(slow.at(start, || 0).is_none());
        slow.begin(1, start);
        slow.begin(1, start + TIME / 2);
        assert!(slow.at(start + TIME, || 0).is_some());
        assert!(slow.at(start + TIME * 3 / 2, || 0).is_none());
        assert!(slow.warming.is_empty());
        slow.begin(1, start);
        slow.end(1);
        assert!(slow.at(start, || 0).is_none());
    }

    #[test]
    fn who_is_warm_is_left_as_it_is() {
        let (start, mut slow) = (Instant::now(), SlowStart::new(TIME));
        slow.begin(1, start);
        let warming = slow.at(start + TIME / 4, || 7).expect("one");
        assert_eq!((warming.load(0, 8), warming.load(1, 8), warming.load(1, u32::MAX)), (8, 32, u32::MAX));
        assert!(!warming.leaves_out(0));
    }
}
