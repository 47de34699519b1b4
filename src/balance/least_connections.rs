//! Least connections: the backend with the least in flight for its weight.
//!
//! Who is equally free is drawn by weight, so that an upstream with little to do is shared out by weight too, and not
//! by the order of the file. A pick costs one pass over the backends; with hundreds of them, two choices cost less.

use super::random::Chance;

/// The weights of one upstream.
#[derive(Clone, Debug)]
pub struct LeastConnections {
    weights: Vec<u32>,
}

impl LeastConnections {
    /// With these weights; positions count from 0. A weight of 0 is never picked.
    #[must_use]
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        Self { weights: weights.into_iter().collect() }
    }

    /// The position with the least of `inflight` for its weight, leaving out those that `skip` says; `None` when that
    /// leaves nobody.
    #[inline]
    pub fn pick(&self, draw: u64, inflight: impl Fn(usize) -> u32, skip: impl Fn(usize) -> bool) -> Option<usize> {
        let mut chance = Chance::new(draw);
        let mut best: Option<(usize, u64, u64)> = None;
        // The weights of those that are as free as the best.
        let mut tied = 0;
        for (at, &weight) in self.weights.iter().enumerate() {
            if weight == 0 {
                continue;
            }
            let (weight, load) = (u64::from(weight), u64::from(inflight(at)));
            // load / weight against the best's, without dividing.
            let order = best.map(|(_, least, of)| (load * of).cmp(&(least * weight)));
            if order.is_some_and(|order| order.is_gt()) || skip(at) {
                continue;
            }
            tied = if order.is_some_and(|order| order.is_eq()) { tied + weight } else { weight };
            if chance.below(tied) < weight {
                best = Some((at, load, weight));
            }
        }
        best.map(|(at, ..)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_for_its_weight_is_taken() {
        let balancer = LeastConnections::new([100, 200, 300]);
        for (inflight, expected) in [([1, 1, 1], 2), ([1, 2, 4], 0), ([1, 1, 2], 1), ([0, 1, 1], 0), ([9, 17, 27], 1)] {
            // 9:17:27 is 9.0, 8.5, 9.0; the others are as plain. No draw changes it, unless there are ties.
            let picked: Vec<_> = (0..64)
                .filter_map(|draw| balancer.pick(draw << 32, |at| inflight[at], |_| false))
                .filter(|&at| at != expected)
                .collect();
            let tied = inflight == [1, 2, 4];
            assert!(picked.is_empty() || tied && picked.iter().all(|&at| at == 1), "{inflight:?}: {picked:?}");
        }
    }

    #[test]
    fn ties_are_drawn_by_weight() {
        let balancer = LeastConnections::new([100, 300, 600]);
        let mut chance = Chance::new(3);
        let mut counts = [0_u32; 3];
        for _ in 0..40_000 {
            // The third is busy, the others are as free as each other for their weight.
            counts[balancer.pick(chance.next(), |at| [1, 3, 7][at], |_| false).expect("three")] += 1;
        }
        assert_eq!(counts[2], 0);
        assert!(counts[0].abs_diff(10_000) < 400, "{counts:?}");
    }

    #[test]
    fn who_is_skipped_is_not_taken_however_free() {
        let balancer = LeastConnections::new([1, 1, 0]);
        assert_eq!(balancer.pick(5, |at| at as u32, |at| at == 0), Some(1));
        assert_eq!(balancer.pick(5, |_| 0, |at| at < 2), None);
        assert_eq!(LeastConnections::new([]).pick(5, |_| 0, |_| false), None);
    }
}
