//! Latency-aware: of two backends drawn by weight the one that answers sooner, as far as what it has in flight allows.
//!
//! What a backend costs is a moving average of its times to the response head that rises at once and falls slowly (peak
//! EWMA, as Finagle has it), times what is in flight there. It falls on, too, while a backend is not asked, so that one
//! that was slow is tried again. A backend that fails does not look fast: a failure counts as a slow answer.
//!
//! The first of the two stays unless the other is clearly better. So backends that are equally fast share by weight, and
//! chance in their times does not undo that.

use super::Random;
use std::time::{Duration, Instant};

/// The time in which what was measured loses its weight (to 1/e).
const MEMORY: Duration = Duration::from_secs(10);

/// The other one has to cost less than this part of the first. Below one idle backend against one with a request (1/2).
const CLEARLY: f64 = 0.75;

/// A failure counts as an answer after this long, or after twice what the backend cost, if that is more.
const FAILED_LEAST: f64 = 1.0;

/// Failures in a row do not count for more, so that a backend that has recovered is tried again within two minutes or so.
const FAILED_MOST: f64 = 60.0;

/// How an attempt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The response head came after this time.
    Answered(Duration),
    /// None came, or one that says that the backend cannot serve.
    Failed(Duration),
    /// It was not waited for any longer after this time, because another backend had answered.
    Overtaken(Duration),
}

/// One upstream on one worker.
#[derive(Clone, Debug)]
pub struct LatencyAware {
    lots: Random,
    measured: Vec<Option<Cost>>,
    mean_weight: f64,
}

/// What a backend cost when it was last heard of.
#[derive(Clone, Copy, Debug)]
struct Cost {
    seconds: f64,
    at: Instant,
}

impl Cost {
    /// The part that is left of it.
    fn left(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.at).as_secs_f64();
        (-age / MEMORY.as_secs_f64()).exp()
    }
}

impl LatencyAware {
    /// With these weights; positions count from 0. A weight of 0 is never picked.
    #[must_use]
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let weights: Vec<u32> = weights.into_iter().collect();
        let total: f64 = weights.iter().copied().map(f64::from).sum();
        Self {
            measured: vec![None; weights.len()],
            mean_weight: total / weights.len().max(1) as f64,
            lots: Random::new(weights),
        }
    }

    /// The cheaper of two positions, leaving out those that `skip` says; `None` when that leaves nobody.
    #[inline]
    pub fn pick(
        &self,
        now: Instant,
        draw: u64,
        inflight: impl Fn(usize) -> u32,
        skip: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let (first, second) = self.lots.pair(draw, skip)?;
        let Some(second) = second else {
            return Some(first);
        };
        let load = |at| self.load(at, inflight(at), now);
        Some(if load(second) < load(first) * CLEARLY { second } else { first })
    }

    /// Takes in how an attempt at a position went.
    pub fn observe(&mut self, at: usize, outcome: Outcome, now: Instant) {
        let before = self.measured[at];
        let seconds = match outcome {
            // It would have taken longer: how much, nobody knows.
            Outcome::Overtaken(time) => {
                let time = time.as_secs_f64();
                if before.is_some_and(|cost| cost.seconds * cost.left(now) > time) {
                    return;
                }
                time
            }
            Outcome::Answered(time) => {
                let time = time.as_secs_f64();
                match before {
                    Some(cost) if cost.seconds > time => time + (cost.seconds - time) * cost.left(now),
                    _ => time,
                }
            }
            Outcome::Failed(time) => {
                let doubled = before.map_or(0.0, |cost| 2.0 * cost.seconds * cost.left(now));
                doubled.max(time.as_secs_f64()).clamp(FAILED_LEAST, FAILED_MOST)
            }
        };
        self.measured[at] = Some(Cost { seconds, at: now });
    }

    /// What a request would cost there. What is in flight counts in units of the mean weight: an idle backend costs its
    /// time whatever its weight, and twice the weight carries twice as much at the same cost.
    fn load(&self, at: usize, inflight: u32, now: Instant) -> f64 {
        let queue = f64::from(inflight) * self.mean_weight / f64::from(self.lots.weight(at));
        match self.measured[at] {
            Some(cost) => cost.seconds * cost.left(now) * (1.0 + queue),
            // Nobody knows: one request finds out, and until it has its answer the others go elsewhere.
            None if inflight == 0 => 0.0,
            None => FAILED_MOST * (1.0 + queue),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::random::Chance;

    const MS: Duration = Duration::from_millis(1);

    /// Picks one after the other, each answered after what `answer` says, at 1000 a second; what each got.
    fn run(
        balancer: &mut LatencyAware,
        picks: usize,
        mut answer: impl FnMut(usize, &mut Chance) -> Outcome,
    ) -> Vec<u32> {
        let mut chance = Chance::new(9);
        let mut counts = vec![0; balancer.measured.len()];
        let mut now = Instant::now();
        for _ in 0..picks {
            now += MS;
            let at = balancer.pick(now, chance.next(), |_| 0, |_| false).expect("somebody is left");
            counts[at] += 1;
            let outcome = answer(at, &mut chance);
            balancer.observe(at, outcome, now);
        }
        counts
    }

    #[test]
    fn equally_fast_backends_share_by_weight_whatever_chance_does_to_their_times() {
        let mut balancer = LatencyAware::new([100, 300, 600]);
        let counts = run(&mut balancer, 40_000, |_, chance| {
            // 10 ms, give or take a tenth.
            Outcome::Answered(Duration::from_micros(9_000 + chance.below(2_000)))
        });
        for (at, expected) in [(0, 4_000), (1, 12_000), (2, 24_000)] {
            assert!(counts[at].abs_diff(expected) < expected / 10, "{counts:?}");
        }
    }

    #[test]
    fn a_slow_backend_gets_next_to_nothing() {
        let mut balancer = LatencyAware::new([100; 3]);
        let counts = run(&mut balancer, 40_000, |at, _| Outcome::Answered(if at == 1 { 20 * MS } else { 5 * MS }));
        assert!(counts[1] > 0 && counts[1] < 400, "{counts:?}");
        assert!(counts[0].abs_diff(counts[2]) < 2_000, "{counts:?}");
    }

    #[test]
    fn a_backend_that_fails_at_once_does_not_look_fast() {
        let mut balancer = LatencyAware::new([100, 100]);
        let counts = run(&mut balancer, 20_000, |at, _| match at {
            0 => Outcome::Failed(Duration::from_micros(10)),
            _ => Outcome::Answered(50 * MS),
        });
        assert!(counts[0] > 0 && counts[0] < 20, "{counts:?}");
    }

    #[test]
    fn who_was_slow_is_tried_again_when_that_is_long_ago() {
        let mut balancer = LatencyAware::new([1, 1]);
        let start = Instant::now();
        balancer.observe(0, Outcome::Failed(Duration::ZERO), start);
        let picks = |balancer: &LatencyAware, now| {
            let mut chance = Chance::new(1);
            (0..100).filter(|_| balancer.pick(now, chance.next(), |_| 0, |_| false) == Some(0)).count()
        };
        for second in 0..120 {
            let now = start + Duration::from_secs(second);
            balancer.observe(1, Outcome::Answered(10 * MS), now);
            match second {
                // 1 s · e^(−age/10 s) falls below ¾ · 10 ms after 48.9 s.
                0..=43 => assert_eq!(picks(&balancer, now), 0, "{second} s"),
                60.. => assert_eq!(picks(&balancer, now), 100, "{second} s"),
                _ => {}
            }
        }
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_is_forgotten_slowly() {
        let mut balancer = LatencyAware::new([1]);
        let start = Instant::now();
        let cost = |balancer: &LatencyAware| balancer.measured[0].expect("measured").seconds;
        balancer.observe(0, Outcome::Answered(10 * MS), start);
        balancer.observe(0, Outcome::Answered(100 * MS), start);
        assert!((cost(&balancer) - 0.1).abs() < 1e-9);
        balancer.observe(0, Outcome::Answered(10 * MS), start + MEMORY);
        assert!((cost(&balancer) - (0.01 + 0.09 / 1_f64.exp())).abs() < 1e-9, "{}", cost(&balancer));
    }

    /// Without a word of it, a backend that others always overtake would be forgotten, and look ever faster.
    #[test]
    fn one_that_is_always_overtaken_is_slow() {
        let mut balancer = LatencyAware::new([1, 1]);
        let counts = run(&mut balancer, 20_000, |at, _| match at {
            0 => Outcome::Overtaken(60 * MS),
            _ => Outcome::Answered(10 * MS),
        });
        assert!(counts[0] > 0 && counts[0] < 200, "{counts:?}");
        // It says no more than that: what was known to be worse stays.
        let mut balancer = LatencyAware::new([1]);
        let now = Instant::now();
        balancer.observe(0, Outcome::Answered(100 * MS), now);
        balancer.observe(0, Outcome::Overtaken(60 * MS), now);
        assert!((balancer.measured[0].expect("measured").seconds - 0.1).abs() < 1e-9);
    }

    #[test]
    fn what_is_in_flight_counts_by_weight() {
        let mut balancer = LatencyAware::new([100, 300]);
        let now = Instant::now();
        balancer.observe(0, Outcome::Answered(10 * MS), now);
        balancer.observe(1, Outcome::Answered(10 * MS), now);
        let only = |inflight: [u32; 2]| {
            let mut chance = Chance::new(2);
            let picks: Vec<_> =
                (0..100).map(|_| balancer.pick(now, chance.next(), |at| inflight[at], |_| false)).collect();
            picks.iter().all(|pick| *pick == picks[0]).then_some(picks[0])
        };
        // As busy as each other for their weight: weight decides, so both are picked.
        assert_eq!(only([10, 30]), None);
        assert_eq!(only([10, 10]), Some(Some(1)));
        assert_eq!(only([2, 30]), Some(Some(0)));
    }

    /// To the number: twice what is left of the cost, or what it took, and a load per unit of the mean weight.
    #[test]
    fn a_failure_doubles_what_is_left_of_the_cost() {
        let now = Instant::now();
        let mut balancer = LatencyAware::new([100, 300]);
        let cost = |balancer: &LatencyAware, at: usize| balancer.measured[at].expect("measured").seconds;
        balancer.observe(0, Outcome::Answered(4_000 * MS), now);
        balancer.observe(0, Outcome::Failed(MS), now);
        assert!((cost(&balancer, 0) - 8.0).abs() < 1e-9, "{}", cost(&balancer, 0));
        balancer.observe(0, Outcome::Failed(9_000 * MS), now + MEMORY * 20);
        assert!((cost(&balancer, 0) - 9.0).abs() < 1e-3, "{}", cost(&balancer, 0));

        balancer.observe(1, Outcome::Answered(10 * MS), now);
        // The mean weight is 200: six of them are four of this backend's.
        assert!((balancer.load(1, 6, now) - 0.01 * 5.0).abs() < 1e-9, "{}", balancer.load(1, 6, now));
        let unknown = LatencyAware::new([100, 300]);
        assert_eq!((unknown.load(0, 0, now), unknown.load(0, 1, now)), (0.0, FAILED_MOST * 3.0));
    }

    #[test]
    fn one_request_finds_out_about_a_backend_that_nobody_knows() {
        let mut balancer = LatencyAware::new([1, 1]);
        let now = Instant::now();
        balancer.observe(0, Outcome::Answered(10 * MS), now);
        for draw in 0..100_u64 {
            let draw = draw.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            assert_eq!(balancer.pick(now, draw, |_| 0, |_| false), Some(1));
            assert_eq!(balancer.pick(now, draw, |at| [5, 1][at], |_| false), Some(0));
        }
        assert_eq!(balancer.pick(now, 1, |_| 0, |_| true), None);
    }
}
