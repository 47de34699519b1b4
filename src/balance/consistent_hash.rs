//! Consistent hashing with bounded loads: a key keeps its backend for as long as that is not far busier than its share.
//!
//! A backend takes its share of what the upstream has in flight and a quarter more; beyond that its keys go on to the
//! next in the table's order, each to its own (Mirrokni, Thorup and Zadimoghaddam 2018). Whose share it is depends on who is
//! left, so that the bound spreads load and refuses none.

use super::Table;
use std::sync::Arc;

/// How far beyond its share a backend may be: 5/4.
const BOUND: (u64, u64) = (5, 4);

/// A backend with fewer in flight is never at its bound. Shares of a handful are no load worth moving a key for: without
/// this, the second request for a key would find its backend at the bound while the first runs.
const FREE: u64 = 16;

/// One upstream on one worker.
#[derive(Clone, Debug)]
pub struct ConsistentHash {
    table: Arc<Table>,
    weights: Vec<u32>,
    total: u64,
}

impl ConsistentHash {
    /// With the weights that `table` was made with.
    #[must_use]
    pub fn new(table: Arc<Table>, weights: impl IntoIterator<Item = u32>) -> Self {
        let weights: Vec<u32> = weights.into_iter().collect();
        let total = weights.iter().copied().map(u64::from).sum();
        Self { table, weights, total }
    }

    /// Whom the request with the hash `key` goes to, leaving out those that `skip` says; `None` when that leaves nobody.
    /// `running` is what the upstream has in flight, this request included.
    #[inline]
    pub fn pick(
        &self,
        key: u64,
        running: u32,
        inflight: impl Fn(usize) -> u32,
        skip: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let has_room = |at: usize, total: u64| u64::from(inflight(at)) < self.bound(at, running, total);
        let home = self.table.home(key)?;
        if has_room(home, self.total) && !skip(home) {
            return Some(home);
        }
        // Those that are left share what runs, so their bounds are higher by what the others would have carried.
        let left = |&at: &usize| self.weights[at] != 0 && !skip(at);
        let total = (0..self.weights.len()).filter(left).map(|at| u64::from(self.weights[at])).sum();
        self.table.pick(key, |at| !has_room(at, total) || skip(at)).or_else(|| self.table.pick(key, skip))
    }

    /// What a position may have in flight if the weights that share it are `total`.
    #[inline]
    fn bound(&self, at: usize, running: u32, total: u64) -> u64 {
        let share = u64::from(running) * u64::from(self.weights[at]) * BOUND.0;
        share.div_ceil((total * BOUND.1).max(1)).max(FREE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::random::Chance;

    fn balancer(weights: &[u32]) -> ConsistentHash {
        let names: Vec<String> = (0..weights.len()).map(|at| format!("b{at}")).collect();
        let table = Table::new(names.iter().map(String::as_str).zip(weights.iter().copied()));
        ConsistentHash::new(Arc::new(table), weights.iter().copied())
    }

    #[test]
    fn a_key_keeps_its_backend_while_that_is_not_busy() {
        let balancer = balancer(&[1, 2, 3]);
        let mut chance = Chance::new(1);
        for _ in 0..1_000 {
            let key = chance.next();
            let home = balancer.pick(key, 1, |_| 0, |_| false);
            assert_eq!(balancer.pick(key, 16, |_| 15, |_| false), home);
        }
    }

    #[test]
    fn no_backend_takes_a_quarter_more_than_its_share_even_of_one_key() {
        let weights = [100, 200, 300, 400];
        let balancer = balancer(&weights);
        let mut held = [0_u32; 4];
        for running in 1..=10_000 {
            let at = balancer.pick(u64::MAX / 3, running, |at| held[at], |_| false).expect("four");
            held[at] += 1;
            let bound = (u64::from(running) * u64::from(weights[at]) * 5).div_ceil(4_000).max(FREE);
            assert!(u64::from(held[at]) <= bound, "{at} holds {} of {running}", held[at]);
        }
        // The key's own backend is at its bound, and nobody has all: without a bound one would hold 10,000.
        assert!(held.iter().all(|&held| held < 5_100), "{held:?}");
    }

    #[test]
    fn what_is_over_the_bound_goes_to_the_next_in_the_tables_order() {
        let balancer = balancer(&[1, 1, 1]);
        let key = 12345 << 40;
        let home = balancer.pick(key, 100, |_| 0, |_| false).expect("three");
        let next = balancer.pick(key, 100, |at| if at == home { 42 } else { 29 }, |_| false).expect("three");
        assert_ne!(next, home);
        assert_eq!(balancer.pick(key, 100, |_| 0, |at| at == home), Some(next));
        // 100 · 5/4 ÷ 3 is 41.7: with 41 there is room for one more.
        assert_eq!(balancer.pick(key, 100, |at| if at == home { 41 } else { 29 }, |_| false), Some(home));
    }

    #[test]
    fn who_is_left_may_carry_what_the_others_would_have() {
        let balancer = balancer(&[1, 1, 2]);
        // Alone they may have ⌈100 · 5/4 ÷ 2⌉ = 63 each, with the third 32.
        for key in (0..64).map(|at| at << 58) {
            let home = balancer.pick(key, 100, |_| 0, |at| at == 2);
            let other = home.map(|home| 1 - home);
            assert_eq!(balancer.pick(key, 100, |_| 62, |at| at == 2), home);
            assert_eq!(balancer.pick(key, 100, |at| if Some(at) == home { 63 } else { 62 }, |at| at == 2), other);
        }
    }

    #[test]
    fn nobody_is_refused_over_a_bound() {
        let balancer = balancer(&[1, 1, 1]);
        assert_eq!(balancer.pick(7, 30, |_| 100, |at| at != 1), Some(1));
        assert_eq!(balancer.pick(7, 30, |_| 100, |_| true), None);
    }
}
