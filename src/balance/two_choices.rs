//! The power of two choices: two drawn by weight, and of these the one with less in flight for its weight.
//!
//! Nearly as even as looking at all of them (Mitzenmacher 2001), at a cost that does not grow with their number, and
//! without everybody rushing to the one that was free a moment ago.

use super::Random;

/// The weights of one upstream, ready to be drawn from.
#[derive(Clone, Debug)]
pub struct TwoChoices {
    lots: Random,
}

impl TwoChoices {
    /// With these weights; positions count from 0. A weight of 0 is never picked.
    #[must_use]
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        Self { lots: Random::new(weights) }
    }

    /// The freer of two positions, leaving out those that `skip` says; `None` when that leaves nobody. The first one
    /// stays if they are equally free, so that weight alone decides then.
    #[inline]
    pub fn pick(&self, draw: u64, inflight: impl Fn(usize) -> u32, skip: impl Fn(usize) -> bool) -> Option<usize> {
        let (first, second) = self.lots.pair(draw, skip)?;
        let Some(second) = second else {
            return Some(first);
        };
        let load = |at| u64::from(inflight(at));
        let weight = |at| u64::from(self.lots.weight(at));
        Some(if load(second) * weight(first) < load(first) * weight(second) { second } else { first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::random::Chance;

    #[test]
    fn of_two_the_freer_one_for_its_weight_is_always_taken() {
        let balancer = TwoChoices::new([100, 300]);
        let mut chance = Chance::new(4);
        for (inflight, expected) in [([1, 1], 1), ([1, 4], 0), ([0, 1], 0), ([2, 5], 1)] {
            for _ in 0..1_000 {
                assert_eq!(balancer.pick(chance.next(), |at| inflight[at], |_| false), Some(expected), "{inflight:?}");
            }
        }
    }

    #[test]
    fn the_busiest_of_many_is_taken_only_if_nobody_else_was_drawn() {
        let balancer = TwoChoices::new([1; 10]);
        let mut chance = Chance::new(5);
        for _ in 0..10_000 {
            assert_ne!(balancer.pick(chance.next(), |at| u32::from(at == 6), |_| false), Some(6));
        }
        assert_eq!(balancer.pick(1, |_| 9, |at| at != 6), Some(6));
    }

    #[test]
    fn many_at_once_spread_by_weight_and_far_more_evenly_than_by_lot() {
        let weights: Vec<u32> = (0..50).map(|at| if at % 2 == 0 { 100 } else { 200 }).collect();
        let balancer = TwoChoices::new(weights.iter().copied());
        let mut chance = Chance::new(6);
        let mut held = [0_u32; 50];
        for _ in 0..7_500 {
            let at = balancer.pick(chance.next(), |at| held[at], |_| false).expect("fifty");
            held[at] += 1;
        }
        // 100 and 200 for each. By lot alone the farthest of fifty would be off by some 25.
        for (at, &held) in held.iter().enumerate() {
            assert!(held.abs_diff(weights[at]) <= 8, "{at} holds {held} of {}", weights[at]);
        }
    }

    #[test]
    fn nobody_left_is_said() {
        assert_eq!(TwoChoices::new([]).pick(1, |_| 0, |_| false), None);
        assert_eq!(TwoChoices::new([1, 1]).pick(1, |_| 0, |_| true), None);
    }
}
