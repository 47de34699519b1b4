//! One pick of each balancing algorithm, over few and over many backends.

use crate::harness::Harness;
use spooky::balance::{
    Ask, Balancer, ConsistentHash, KeyedHash, LatencyAware, LeastConnections, Outcome, Random, RoundRobin, Table,
    TwoChoices,
};
use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Runs all of them.
pub fn run(harness: &mut Harness) {
    for count in [3, 100, 1_000] {
        algorithms(harness, count);
    }
    let mut balancer = RoundRobin::new((0..16).map(|_| 100));
    harness.bench("balance: weighted round-robin of 16, half out", || balancer.pick(|at| at % 2 == 0));
    let hash = KeyedHash::new([7; 16]);
    harness.bench("balance: hash of a key of 32 bytes", || hash.of(black_box(b"0123456789abcdef0123456789abcdef")));
}

fn algorithms(harness: &mut Harness, count: u32) {
    let weights = || (0..count).map(|at| 100 + at % 7);
    let names: Vec<String> = (0..count).map(|at| format!("backend-{at}")).collect();
    let named = || names.iter().map(String::as_str).zip(weights());
    harness.bench(&format!("balance: making the table of {count}"), || Table::new(named()));
    let table = Arc::new(Table::new(named()));
    let mut latency = LatencyAware::new(weights());
    let now = Instant::now();
    for at in 0..count {
        latency.observe(at as usize, Outcome::Answered(Duration::from_micros(u64::from(500 + at))), now);
    }
    let hashing = || Balancer::ConsistentHash(ConsistentHash::new(Arc::clone(&table), weights()));
    // Nearly as busy as each other, so that nobody is the obvious choice.
    let inflight: Vec<u32> = (0..count).map(|at| 20 + at * 7 % 5).collect();
    for (name, mut balancer) in [
        ("round-robin", Balancer::RoundRobin(RoundRobin::new(weights()))),
        ("random", Balancer::Random(Random::new(weights()))),
        ("least connections", Balancer::LeastConnections(LeastConnections::new(weights()))),
        ("two choices", Balancer::TwoChoices(TwoChoices::new(weights()))),
        ("latency-aware", Balancer::LatencyAware(latency)),
        ("consistent hash", hashing()),
        ("sticky", Balancer::StickyCid(Arc::clone(&table))),
    ] {
        harness.bench(&format!("balance: {name} of {count}"), || {
            pick(&mut balancer, now, count * 25, |at| inflight[at], |_| false)
        });
    }
    let mut balancer = hashing();
    let home = Cell::new(0);
    harness.bench(&format!("balance: consistent hash of {count}, home over its bound"), || {
        // Whoever is asked about first is at home.
        home.set(usize::MAX);
        let busy = |at: usize| {
            if home.get() == usize::MAX {
                home.set(at);
            }
            if home.get() == at { 1_000_000 } else { 20 }
        };
        pick(&mut balancer, now, count * 25, busy, |_| false)
    });
}

fn pick(
    balancer: &mut Balancer,
    now: Instant,
    running: u32,
    inflight: impl Fn(usize) -> u32,
    skip: impl Fn(usize) -> bool,
) -> Option<usize> {
    thread_local!(static NUMBER: Cell<u64> = const { Cell::new(1) });
    // Weyl's sequence: cheap, and spread well enough over tables.
    let number = NUMBER.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    NUMBER.set(number);
    let ask = Ask { affinity: Some(number), running, now, random: || number };
    balancer.pick(black_box(ask), inflight, skip)
}
