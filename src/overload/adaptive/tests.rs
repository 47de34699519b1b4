//! An upstream with so many slots, workers with a limit each, and arrivals that do not care: in virtual time, by seed.

use super::*;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

const POLICY: AdaptivePolicy = AdaptivePolicy { min: 4, max: 4_096, tolerance_percent: 25 };
const MILLI: u64 = 1_000;
const SECOND: u64 = 1_000_000;

fn random(state: &mut u64) -> f64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
}

/// What the simulated upstream is like at a moment.
#[derive(Clone, Copy)]
struct Load {
    /// Arrivals in a second, over all workers.
    rate: f64,
    slots: usize,
    /// Microseconds of work for one request, in the middle.
    work: f64,
    /// How far single ones are from that: 0 not at all.
    spread: f64,
}

/// What became of the requests of one second.
#[derive(Clone, Debug, Default)]
struct Second {
    served: Vec<u64>,
    refused: u32,
    limit: u32,
}

impl Second {
    fn p99(&self) -> f64 {
        let mut all = self.served.clone();
        all.sort_unstable();
        all.get(all.len() * 99 / 100).map_or(0.0, |micros| *micros as f64 / MILLI as f64)
    }
}

/// How often it is looked whether a window begins or ends.
const LOOK_EVERY: u64 = 50 * MILLI;

/// What the shell around the policy keeps: the answers of the present window.
struct Seen {
    since: Option<u64>,
    took: Vec<u64>,
    inflight: u64,
    over: u64,
}

impl Seen {
    fn new() -> Self {
        Self { since: None, took: Vec::new(), inflight: 0, over: 0 }
    }

    /// `settles`: windows begin when they may.
    fn look(&mut self, adaptive: &mut Adaptive, active: u64, now: u64, start: Instant, settles: bool) {
        let at = start + Duration::from_micros(now);
        let Some(since) = self.since else {
            if adaptive.is_settled(self.over, at) || !settles {
                *self = Self { since: Some(now), ..Self::new() };
            }
            return;
        };
        if !Adaptive::is_enough(self.took.len() as u64, Duration::from_micros(now - since)) {
            return;
        }
        self.took.sort_unstable();
        let window = Window {
            median: Duration::from_micros(self.took[self.took.len() / 2]),
            inflight: self.inflight as f64 / self.took.len() as f64,
            active,
        };
        adaptive.close(&window, at);
        adaptive.check_invariants();
        *self = Self::new();
    }
}

/// Runs for so many seconds; `load` says what each moment is like. `None` of a limit: none is set. Connections, and with them
/// requests, are spread over the workers as `lean` says: the first one has so much more than the others.
fn run(
    seed: u64,
    workers: (usize, f64),
    seconds: usize,
    policy: Option<AdaptivePolicy>,
    load: impl Fn(u64) -> Load,
) -> Vec<Second> {
    run_with(seed, workers, seconds, policy, true, load)
}

fn run_with(
    seed: u64,
    (workers, lean): (usize, f64),
    seconds: usize,
    policy: Option<AdaptivePolicy>,
    settles: bool,
    load: impl Fn(u64) -> Load,
) -> Vec<Second> {
    let start = Instant::now();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut adaptive = policy.map(|policy| Adaptive::new(policy, start));
    let mut parts = adaptive.as_ref().map(|adaptive| spread(adaptive.limit(), &vec![0; workers]));
    let mut seen = Seen::new();
    let mut looked = 0;
    let mut inflight = vec![0_u32; workers];
    let mut turned_away = vec![0_u64; workers];
    let mut waiting: VecDeque<(usize, u64)> = VecDeque::new();
    // When a slot ends its work: for whom, and since when that one waits.
    let mut working: BinaryHeap<Reverse<(u64, usize, u64)>> = BinaryHeap::new();
    let mut report = vec![Second::default(); seconds];
    let mut arrival = 0_u64;
    let end = seconds as u64 * SECOND;
    while arrival < end {
        let done = working.peek().map(|Reverse((time, ..))| *time);
        let now = done.map_or(arrival, |time| time.min(arrival)).min(looked + LOOK_EVERY);
        if now == looked + LOOK_EVERY {
            looked = now;
            if let Some(adaptive) = &mut adaptive {
                let active = inflight.iter().copied().map(u64::from).sum();
                seen.look(adaptive, active, now, start, settles);
                let asked: Vec<u64> =
                    inflight.iter().zip(&turned_away).map(|(inflight, away)| u64::from(*inflight) + away).collect();
                parts = Some(spread(adaptive.limit(), &asked));
                turned_away.fill(0);
            }
        } else if done == Some(now) {
            let Reverse((_, worker, since)) = working.pop().expect("it was there");
            seen.took.push(now - since);
            seen.over += 1;
            seen.inflight += u64::from(inflight.iter().sum::<u32>());
            inflight[worker] -= 1;
            report[((now / SECOND) as usize).min(seconds - 1)].served.push(now - since);
        } else {
            let worker = (random(&mut state) * (workers as f64 + lean)) as usize;
            let worker = if worker < workers { worker } else { 0 };
            let second = &mut report[(now / SECOND) as usize];
            if parts.as_ref().is_none_or(|parts| inflight[worker] < parts[worker]) {
                inflight[worker] += 1;
                waiting.push_back((worker, now));
            } else {
                second.refused += 1;
                turned_away[worker] += 1;
            }
            second.limit = adaptive.as_ref().map_or(0, Adaptive::limit);
            arrival += ((-random(&mut state).max(1e-9).ln() / load(arrival).rate) * SECOND as f64) as u64 + 1;
        }
        let present = load(now);
        while working.len() < present.slots
            && let Some((worker, since)) = waiting.pop_front()
        {
            let factor = 1.0 + present.spread * (random(&mut state) * 2.0 - 1.0);
            working.push(Reverse((now + (present.work * factor) as u64, worker, since)));
        }
    }
    report
}

/// Twenty slots of 50 ms: 400 requests a second.
fn usual(rate: f64) -> Load {
    Load { rate, slots: 20, work: 50_000.0, spread: 0.1 }
}

fn served(seconds: &[Second]) -> f64 {
    seconds.iter().map(|second| second.served.len()).sum::<usize>() as f64 / seconds.len() as f64
}

fn worst(seconds: &[Second]) -> f64 {
    seconds.iter().map(Second::p99).fold(0.0, f64::max)
}

/// At three times what the upstream can do: all that it can do, and answers within twice of what they take unloaded.
#[test]
fn it_finds_the_knee_and_stays_there() {
    for workers in [(1, 0.0), (2, 0.0), (4, 0.0), (4, 12.0)] {
        for seed in 1..=25 {
            let seconds = run(seed, workers, 40, Some(POLICY), |_| usual(1_200.0));
            // A start into overload is settled with the first probes.
            let settled = &seconds[4..];
            assert!(served(settled) >= 380.0, "seed {seed}, {workers:?} workers: {} a second", served(settled));
            // Twice what the slowest answer takes alone, and little more; in a single second, a probe's end among them, somewhat more.
            let served = settled.iter().flat_map(|second| second.served.clone()).collect();
            let all = Second { served, ..Second::default() };
            assert!(all.p99() <= 115.0, "seed {seed}, {workers:?} workers: {} ms, {:?}", all.p99(), limits(settled));
            assert!(worst(settled) <= 150.0, "seed {seed}, {workers:?} workers: {} ms", worst(settled));
            let high = settled.iter().map(|second| second.limit).max().unwrap_or(0);
            assert!(high <= 45, "seed {seed}, {workers:?} workers: {:?}", limits(settled));
        }
    }
}

fn limits(seconds: &[Second]) -> Vec<u32> {
    seconds.iter().map(|second| second.limit).collect()
}

/// Without it the same upstream is useless to everybody.
#[test]
fn sabotage_no_limit_at_all() {
    let seconds = run(1, (1, 0.0), 10, None, |_| usual(1_200.0));
    assert!(worst(&seconds[5..]) > 2_000.0);
}

/// Answers to requests that began under an earlier limit make it go to and fro.
#[test]
fn sabotage_windows_begin_at_once() {
    let spread_of = |settles| {
        let all = (1..=25).map(|seed| {
            let seconds = run_with(seed, (1, 0.0), 40, Some(POLICY), settles, |_| usual(1_200.0));
            let limits = limits(&seconds[4..]);
            f64::from(*limits.iter().max().unwrap()) - f64::from(*limits.iter().min().unwrap())
        });
        all.sum::<f64>() / 25.0
    };
    let (right, wrong) = (spread_of(true), spread_of(false));
    assert!(wrong > 2.0 * right, "{right} against {wrong}");
}

#[test]
fn what_an_upstream_can_do_is_refused_to_nobody() {
    for seed in 1..=25 {
        let seconds = run(seed, (2, 0.0), 40, Some(POLICY), |_| usual(300.0));
        let refused: u32 = seconds[3..].iter().map(|second| second.refused).sum();
        assert!(refused <= 30, "seed {seed}: {refused} of 11,100");
    }
}

/// Ten seconds of three times too much, then again what it can do: soon all is as before.
#[test]
fn it_recovers_within_seconds() {
    for seed in 1..=25 {
        let seconds =
            run(seed, (2, 0.0), 30, Some(POLICY), |now| usual(if now / SECOND / 10 == 1 { 1_200.0 } else { 300.0 }));
        let after = &seconds[22..];
        assert!(worst(after) <= 100.0, "seed {seed}: {} ms", worst(after));
        let refused: u32 = after.iter().map(|second| second.refused).sum();
        // A probe has been made by then.
        assert!(refused <= 60, "seed {seed}: {refused} of 2,400");
    }
}

/// An upstream that is slow for a while by itself (a tenth of the slots), and fast again.
#[test]
fn it_follows_an_upstream_that_breaks_down_and_comes_back() {
    for seed in 1..=25 {
        let load = |now: u64| Load { slots: if (10..20).contains(&(now / SECOND)) { 2 } else { 20 }, ..usual(350.0) };
        let seconds = run(seed, (1, 0.0), 40, Some(POLICY), load);
        assert!(worst(&seconds[15..20]) <= 2_500.0, "seed {seed}: {}", worst(&seconds[17..20]));
        assert!(
            served(&seconds[25..]) >= 335.0,
            "seed {seed}: {} a second, {:?}",
            served(&seconds[25..]),
            limits(&seconds)
        );
    }
}

/// All answers take four times as long from now on, and nothing waits: that is the new baseline, not overload.
#[test]
fn it_learns_that_answers_take_longer_now() {
    for seed in 1..=25 {
        let load =
            |now: u64| Load { slots: 400, work: if now < 10 * SECOND { 50_000.0 } else { 200_000.0 }, ..usual(400.0) };
        let seconds = run(seed, (1, 0.0), 40, Some(POLICY), load);
        let refused: u32 = seconds[25..].iter().map(|second| second.refused).sum();
        assert!(refused <= 120, "seed {seed}: {refused} of 6,000, {:?}", limits(&seconds));
    }
}

/// Answers that take very different times are no overload either.
#[test]
fn mixed_answers_are_not_taken_for_slow_ones() {
    for seed in 1..=25 {
        let load = |_| Load { slots: 400, spread: 0.95, ..usual(800.0) };
        let seconds = run(seed, (1, 0.0), 30, Some(POLICY), load);
        let refused: u32 = seconds[5..].iter().map(|second| second.refused).sum();
        assert!(refused <= 400, "seed {seed}: {refused} of 20,000, {:?}", limits(&seconds));
    }
}

#[test]
fn extreme_answers_leave_it_within_its_bounds() {
    let start = Instant::now();
    let mut state = 7;
    for policy in [POLICY, AdaptivePolicy { min: 1, max: 1, tolerance_percent: 0 }] {
        let mut adaptive = Adaptive::new(policy, start);
        let mut now = start;
        for _ in 0..20_000 {
            now += Duration::from_micros((random(&mut state) * 1e6) as u64);
            let median = Duration::from_secs_f64(random(&mut state).powi(20) * 1e6);
            let window = Window { median, inflight: random(&mut state) * 5_000.0, active: 1 };
            adaptive.close(&window, now);
            adaptive.check_invariants();
            assert!(adaptive.is_settled(1, now) && adaptive.is_settled(0, now + SETTLE_MOST));
        }
        assert!(adaptive.limit() >= policy.min && adaptive.limit() <= policy.max);
    }
}

/// What began before the limit was what it is does not judge it.
#[test]
fn a_window_begins_when_what_was_there_before_is_answered() {
    let start = Instant::now();
    let mut adaptive = Adaptive::new(POLICY, start);
    assert!(adaptive.is_settled(0, start));
    let millis = Duration::from_millis;
    let window = Window { median: millis(50), inflight: 10.0, active: 12 };
    adaptive.close(&window, start);
    assert!(!adaptive.is_settled(11, start + millis(9_999)), "one of twelve is not answered");
    assert!(adaptive.is_settled(12, start) && adaptive.is_settled(0, start + millis(10_000)));
    assert_eq!(adaptive.baseline(), Some(millis(50)));
}

#[test]
fn few_answers_say_nothing() {
    let millis = Duration::from_millis;
    let cases = [(23, 9_000), (24, 99), (24, 100), (10_000, 99)];
    assert_eq!(cases.map(|(answers, age)| Adaptive::is_enough(answers, millis(age))), [false, false, true, false]);
}

#[test]
fn parts_are_the_whole_and_follow_the_asking() {
    assert_eq!(spread(20, &[0, 0, 0, 0]), [5; 4]);
    assert_eq!(spread(64, &[15, 0]), [40, 24], "what is left is for all");
    assert_eq!(spread(20, &[40, 0, 0, 0]), [17, 1, 1, 1]);
    assert_eq!(spread(3, &[7, 7, 7, 7]), [1; 4], "nobody is left without");
    assert_eq!((spread(0, &[5]), spread(u32::MAX, &[u64::MAX, u64::MAX])), (vec![1], vec![1 << 31, u32::MAX / 2]));
    let mut state = 3;
    for _ in 0..2_000 {
        let asked: Vec<u64> =
            (0..1 + (random(&mut state) * 16.0) as usize).map(|_| (random(&mut state) * 90.0) as u64).collect();
        let limit = asked.len() as u32 + (random(&mut state) * 5_000.0) as u32;
        let parts = spread(limit, &asked);
        assert_eq!(parts.iter().sum::<u32>(), limit);
        for (more, part) in asked.iter().zip(&parts) {
            let smaller = asked.iter().zip(&parts).filter(|(asked, _)| *asked <= more);
            assert!(smaller.into_iter().all(|(_, other)| *other <= part + 1), "{limit} for {asked:?}: {parts:?}");
        }
    }
}

/// Window by window, to the number.
#[test]
fn each_window_does_what_it_says() {
    let start = Instant::now();
    let mut adaptive = Adaptive::new(POLICY, start);
    let mut close = |median: u64, inflight: f64, after: u64| {
        let now = start + Duration::from_secs(after);
        adaptive.close(&Window { median: Duration::from_micros(median), inflight, active: 0 }, now);
        (adaptive.limit, adaptive.baseline.expect("measured"))
    };
    let is = |what: &str, (limit, baseline): (f64, f64), wanted: (f64, f64)| {
        let near = |one: f64, other: f64| (one - other).abs() < 1e-6 * other;
        assert!(near(limit, wanted.0) && near(baseline, wanted.1), "{what}: {limit} and {baseline}, not {wanted:?}");
    };
    is("half of the limit is used", close(50_000, 32.0, 0), (80.0, 50_000.0));
    is("it is not, and answers are quicker", close(40_000, 39.0, 0), (80.0, 48_750.0));
    // Nobody has proved the baseline: 60 in flight, of which half wait, are 30 that it works on.
    is("slow, and probed", close(97_500, 60.0, 1), (15.0, 48_750.0));
    is("confirmed, and back where it fell to", close(48_750, 15.0, 2), (70.0, 48_750.0));
    is("as slow as may be: no less, for it is used", close(60_937, 35.0, 3), (87.5, 48_750.0));
    is("a probe that found no less is enough", close(48_750, 60.0, 3), (109.375, 48_750.0));
    is("slower, with no more than in the probe", close(56_750, 15.0, 4), (109.375, 49_750.0));
    is("half of the way down", close(99_500, 80.0, 5), (95.703125, 49_750.0));
    is("no doubt: all of the way", close(500_000, 76.0, 6), (59.814453125, 49_750.0));
    // It works on 20 of them, and the last probe is ten seconds ago.
    is("probed again", close(99_500, 40.0, 14), (10.0, 49_750.0));
    let limit = (59.814453125 + (59.814453125 * 0.625 + 59.814453125 / 8.0)) / 2.0;
    is("everything takes less, the limit too", close(39_800, 10.0, 15), (limit * 0.8, 39_800.0));
}

/// Where less cannot be asked, what is measured is the baseline, once answers do not become quicker any more.
#[test]
fn at_the_lowest_limit_the_baseline_is_what_answers_take() {
    let start = Instant::now();
    let mut adaptive = Adaptive::new(AdaptivePolicy { max: 64, min: 60, ..POLICY }, start);
    let mut close = |median: u64| {
        adaptive.close(&Window { median: Duration::from_millis(median), inflight: 60.0, active: 0 }, start);
        (adaptive.probing, adaptive.proved) = (None, true);
        (adaptive.limit, adaptive.baseline.expect("measured") / 1_000.0)
    };
    assert_eq!([50, 400, 300, 290, 290].map(&mut close).map(|(_, baseline)| baseline), [50.0, 50.0, 50.0, 50.0, 290.0]);
    assert_eq!(close(290), (64.0, 290.0), "and nothing waits");
}
