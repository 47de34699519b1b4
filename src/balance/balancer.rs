//! One of the algorithms, with one way to ask it.

use super::{ConsistentHash, LatencyAware, LeastConnections, Outcome, Random, RoundRobin, Table, TwoChoices};
use std::sync::Arc;
use std::time::Instant;

/// How one upstream picks on one worker.
#[derive(Clone, Debug)]
pub enum Balancer {
    /// In turn, by weight.
    RoundRobin(RoundRobin),
    /// By lot.
    Random(Random),
    /// The least busy one.
    LeastConnections(LeastConnections),
    /// The less busy one of two.
    TwoChoices(TwoChoices),
    /// The faster one of two.
    LatencyAware(LatencyAware),
    /// By a key of the request, while the load permits it.
    ConsistentHash(ConsistentHash),
    /// By the client's connection, whatever the load.
    StickyCid(Arc<Table>),
}

/// What a pick may depend on beside what is known of the backends.
#[derive(Clone, Copy, Debug)]
pub struct Ask<R> {
    /// The hash of what the request is to be kept together by; `None`: it lacks that, and a lot decides.
    pub affinity: Option<u64>,
    /// Exchanges in flight on the upstream, this one included.
    pub running: u32,
    /// The time of the turn.
    pub now: Instant,
    /// Numbers that nobody can foresee; asked only by what needs them.
    pub random: R,
}

impl Balancer {
    /// The position of the next attempt's backend, leaving out those that `skip` says; `None` when that leaves nobody, and
    /// then `skip` was asked about everybody with a weight. `inflight` is what runs on a position.
    #[inline]
    pub fn pick(
        &mut self,
        ask: Ask<impl FnOnce() -> u64>,
        inflight: impl Fn(usize) -> u32,
        skip: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let Ask { affinity, running, now, random } = ask;
        match self {
            Self::RoundRobin(balancer) => balancer.pick(skip),
            Self::Random(balancer) => balancer.pick(random(), skip),
            Self::LeastConnections(balancer) => balancer.pick(random(), inflight, skip),
            Self::TwoChoices(balancer) => balancer.pick(random(), inflight, skip),
            Self::LatencyAware(balancer) => balancer.pick(now, random(), inflight, skip),
            // A table is shared out by weight, so a number for a key is a lot drawn by weight.
            Self::ConsistentHash(balancer) => balancer.pick(affinity.unwrap_or_else(random), running, inflight, skip),
            Self::StickyCid(table) => table.pick(affinity.unwrap_or_else(random), skip),
        }
    }

    /// Takes in how an attempt at a position went.
    #[inline]
    pub fn observe(&mut self, at: usize, outcome: Outcome, now: Instant) {
        if let Self::LatencyAware(balancer) = self {
            balancer.observe(at, outcome, now);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    //! What holds for every algorithm: a new one is a row in [`all`].

    use super::*;
    use crate::balance::random::Chance;
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use std::time::Duration;

    const WEIGHTS: [u32; 5] = [100, 50, 250, 0, 600];

    /// One of each, with these weights.
    pub(in crate::balance) fn all(weights: &[u32]) -> Vec<Balancer> {
        let names: Vec<String> = (0..weights.len()).map(|at| format!("b{at}")).collect();
        let table = Arc::new(Table::new(names.iter().map(String::as_str).zip(weights.iter().copied())));
        let weights = || weights.iter().copied();
        vec![
            Balancer::RoundRobin(RoundRobin::new(weights())),
            Balancer::Random(Random::new(weights())),
            Balancer::LeastConnections(LeastConnections::new(weights())),
            Balancer::TwoChoices(TwoChoices::new(weights())),
            Balancer::LatencyAware(LatencyAware::new(weights())),
            Balancer::ConsistentHash(ConsistentHash::new(Arc::clone(&table), weights())),
            Balancer::StickyCid(table),
        ]
    }

    /// One story of an upstream: requests that come one by one and stay for a while, all equally fast. What each got.
    fn shares(balancer: &mut Balancer, seed: u64, at_once: usize, skip: impl Fn(usize) -> bool) -> Vec<u32> {
        const PICKS: usize = 40_000;
        let mut chance = Chance::new(seed);
        let (mut counts, mut inflight) = (vec![0; WEIGHTS.len()], vec![0_u32; WEIGHTS.len()]);
        let mut running = std::collections::VecDeque::new();
        let mut now = Instant::now();
        for _ in 0..PICKS {
            now += Duration::from_millis(1);
            if running.len() == at_once {
                let at = running.pop_front().expect("as many as run at once");
                inflight[at] -= 1;
                balancer.observe(at, Outcome::Answered(Duration::from_millis(at_once as u64)), now);
            }
            let (key, draw) = (chance.next(), chance.next());
            let ask = Ask { affinity: Some(key), running: running.len() as u32 + 1, now, random: || draw };
            let at = balancer.pick(ask, |at| inflight[at], &skip).expect("somebody is left");
            counts[at] += 1;
            inflight[at] += 1;
            running.push_back(at);
        }
        counts
    }

    /// Whether counts are by weight, within a tenth of each share.
    fn is_by_weight(counts: &[u32], weights: &[u32]) -> bool {
        let (sum, total): (u32, u32) = (counts.iter().sum(), weights.iter().sum());
        counts.iter().zip(weights).all(|(&count, &weight)| {
            let expected = f64::from(sum) * f64::from(weight) / f64::from(total);
            (f64::from(count) - expected).abs() <= expected / 10.0
        })
    }

    #[test]
    fn every_algorithm_shares_by_weight_idle_and_busy() {
        for at_once in [1, 100] {
            for (seed, mut balancer) in all(&WEIGHTS).into_iter().enumerate() {
                let counts = shares(&mut balancer, seed as u64, at_once, |_| false);
                assert!(is_by_weight(&counts, &WEIGHTS), "{at_once} at once, seed {seed}: {counts:?} by {balancer:?}");
            }
        }
    }

    #[test]
    fn sabotage_an_algorithm_that_forgets_weights_is_seen() {
        // The same stories with equal weights: the check above has to fail for every one of them.
        for at_once in [1, 100] {
            for (seed, mut balancer) in all(&[100, 100, 100, 0, 100]).into_iter().enumerate() {
                let counts = shares(&mut balancer, seed as u64, at_once, |_| false);
                assert!(!is_by_weight(&counts, &WEIGHTS), "{at_once} at once: {counts:?} by {balancer:?}");
            }
        }
    }

    #[test]
    fn who_is_left_out_is_never_picked_and_the_others_share_by_weight() {
        for (seed, mut balancer) in all(&WEIGHTS).into_iter().enumerate() {
            let counts = shares(&mut balancer, seed as u64, 100, |at| at == 4);
            assert!(is_by_weight(&counts, &[100, 50, 250, 0, 0]), "{counts:?} by {balancer:?}");
        }
    }

    #[test]
    fn nobody_is_given_up_before_everybody_was_asked_for() {
        for mut balancer in all(&WEIGHTS) {
            for draw in [0, 1 << 40, u64::MAX] {
                let asked = RefCell::new(BTreeSet::new());
                let ask = Ask { affinity: Some(draw), running: 1, now: Instant::now(), random: || draw };
                let picked = balancer.pick(
                    ask,
                    |_| 0,
                    |at| {
                        asked.borrow_mut().insert(at);
                        true
                    },
                );
                assert_eq!(picked, None);
                assert_eq!(asked.into_inner(), BTreeSet::from([0, 1, 2, 4]), "{balancer:?}");
            }
        }
    }

    #[test]
    fn only_hashing_looks_at_the_key_and_then_at_nothing_else() {
        for (at, mut balancer) in all(&[100; 5]).into_iter().enumerate() {
            let mut chance = Chance::new(7);
            let kept = (0..100).all(|_| {
                let key = chance.next();
                let mut pick = |draw| {
                    let ask = Ask { affinity: Some(key), running: 1, now: Instant::now(), random: move || draw };
                    balancer.pick(ask, |_| 0, |_| false)
                };
                (0..5).map(|draw| pick(draw << 61)).collect::<BTreeSet<_>>().len() == 1
            });
            assert_eq!(kept, at >= 5, "{balancer:?}");
        }
    }

    #[test]
    fn only_latency_aware_looks_at_how_attempts_went() {
        for (at, mut balancer) in all(&[100; 4]).into_iter().enumerate() {
            let (mut chance, now) = (Chance::new(9), Instant::now());
            (1..4).for_each(|good| balancer.observe(good, Outcome::Answered(Duration::from_millis(10)), now));
            balancer.observe(0, Outcome::Failed(Duration::from_millis(10)), now);
            let picks = (0..100).map(|_| {
                let (key, draw) = (chance.next(), chance.next());
                let ask = Ask { affinity: Some(key), running: 1, now, random: || draw };
                balancer.pick(ask, |_| 0, |_| false)
            });
            assert_eq!(picks.filter(|pick| *pick == Some(0)).count() == 0, at == 4, "{balancer:?}");
        }
    }

    #[test]
    fn a_request_without_its_key_goes_by_lot_and_weight() {
        for mut balancer in all(&WEIGHTS).split_off(5) {
            let mut chance = Chance::new(8);
            let mut counts = vec![0; WEIGHTS.len()];
            for _ in 0..40_000 {
                let ask = Ask { affinity: None, running: 1, now: Instant::now(), random: || chance.next() };
                counts[balancer.pick(ask, |_| 0, |_| false).expect("five")] += 1;
            }
            assert!(is_by_weight(&counts, &WEIGHTS), "{counts:?} by {balancer:?}");
        }
    }
}
