//! Smooth weighted round-robin: each backend gets its share, spread as evenly as the weights allow.
//!
//! Every pick adds each candidate's weight to its credit, takes the largest credit and charges it the sum of the
//! weights. Over one cycle of `sum of weights` picks each gets exactly its weight, and 5:1:1 comes out as a a b a c a a,
//! not a a a a a b c. A pick costs one pass over the backends (a few tens at most in practice).

/// The state of one upstream on one worker.
#[derive(Clone, Debug)]
pub struct RoundRobin {
    candidates: Vec<Candidate>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    weight: i64,
    /// Sums to 0 over all candidates. Below the sum of the weights while nobody is skipped, and below that times the
    /// number of candidates whatever is skipped: far from overflow.
    credit: i64,
}

impl RoundRobin {
    /// With these weights; positions count from 0. A weight of 0 is never picked.
    #[must_use]
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        Self {
            candidates: weights.into_iter().map(|weight| Candidate { weight: i64::from(weight), credit: 0 }).collect(),
        }
    }

    /// The next position, leaving out those that `skip` says; `None` when that leaves nobody.
    ///
    /// Who is left out neither gains nor pays, so the others share by their weights alone, and one that comes back
    /// does not find a debt or a hoard.
    #[inline]
    pub fn pick(&mut self, skip: impl Fn(usize) -> bool) -> Option<usize> {
        let mut best: Option<usize> = None;
        let mut total = 0;
        for at in 0..self.candidates.len() {
            let Candidate { weight, .. } = self.candidates[at];
            if weight == 0 || skip(at) {
                continue;
            }
            total += weight;
            self.candidates[at].credit += weight;
            if best.is_none_or(|best| self.candidates[at].credit > self.candidates[best].credit) {
                best = Some(at);
            }
        }
        let best = best?;
        self.candidates[best].credit -= total;
        Some(best)
    }

    /// How many positions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.candidates.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(balancer: &mut RoundRobin, picks: usize, skip: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut counts = vec![0; balancer.len()];
        for _ in 0..picks {
            counts[balancer.pick(&skip).expect("somebody is left")] += 1;
        }
        counts
    }

    #[test]
    fn is_smooth() {
        let mut balancer = RoundRobin::new([5, 1, 1]);
        let order: Vec<_> = (0..7).filter_map(|_| balancer.pick(|_| false)).collect();
        assert_eq!(order, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn equal_weights_take_turns() {
        let mut balancer = RoundRobin::new([100; 4]);
        let order: Vec<_> = (0..8).filter_map(|_| balancer.pick(|_| false)).collect();
        assert_eq!(order, [0, 1, 2, 3, 0, 1, 2, 3]);
    }

    #[test]
    fn shares_are_exact_over_a_cycle() {
        for weights in [vec![1], vec![1, 1], vec![100, 50, 1], vec![1000, 1, 999, 37], (1..=40).collect()] {
            let cycle = weights.iter().sum::<u32>() as usize;
            let mut balancer = RoundRobin::new(weights.iter().copied());
            let expected: Vec<_> = weights.iter().map(|&weight| 3 * weight as usize).collect();
            assert_eq!(counts(&mut balancer, 3 * cycle, |_| false), expected);
        }
    }

    #[test]
    fn no_backend_waits_longer_than_its_share_asks() {
        // In a window of n picks a backend of weight w out of W is off its share by less than one per other backend.
        let weights = [7_u32, 3, 2, 1];
        let total: u32 = weights.iter().sum();
        let mut balancer = RoundRobin::new(weights);
        let mut seen = [0_i64; 4];
        for picks in 1..=1_000_i64 {
            seen[balancer.pick(|_| false).expect("somebody is left")] += 1;
            for (at, &weight) in weights.iter().enumerate() {
                let off = seen[at] * i64::from(total) - picks * i64::from(weight);
                assert!(off.abs() <= 2 * i64::from(total), "backend {at} is off by {off}/{total} after {picks}");
            }
        }
    }

    #[test]
    fn who_is_skipped_leaves_its_share_to_the_others_by_weight() {
        let mut balancer = RoundRobin::new([50, 30, 20]);
        assert_eq!(counts(&mut balancer, 500, |at| at == 0), [0, 300, 200]);
        // Back again, without catching up on what it missed.
        let after = counts(&mut balancer, 100, |_| false);
        assert!((49..=51).contains(&after[0]), "{after:?}");
    }

    #[test]
    fn nobody_left_is_said() {
        assert_eq!(RoundRobin::new([]).pick(|_| false), None);
        assert_eq!(RoundRobin::new([0]).pick(|_| false), None);
        let mut balancer = RoundRobin::new([1, 1]);
        assert_eq!(balancer.pick(|_| true), None);
        assert_eq!(balancer.pick(|_| false), Some(0));
    }

    #[test]
    fn credit_stays_bounded_whatever_is_skipped() {
        let mut balancer = RoundRobin::new([1000, 1, 500, 250]);
        for at in 0..100_000_usize {
            let _ = balancer.pick(|position| (at / 7 + position).is_multiple_of(3) || at % 5 == position);
        }
        let total: i64 = balancer.candidates.iter().map(|candidate| candidate.weight).sum();
        for candidate in &balancer.candidates {
            assert!(candidate.credit.abs() <= 2 * total, "{candidate:?}");
        }
    }
}
