//! Adaptive admission: the answers that the workers count become a limit for each upstream, and each worker's part of it.

use crate::config::Generation;
use crate::control::workers::{Latest, WorkerLine};
use crate::limits;
use crate::overload::{Adaptive, Window, spread};
use crate::telemetry::cells::UpstreamCells;
use crate::telemetry::latency::Merged;
use crate::telemetry::registry::{AdaptiveCells, OverloadCells};
use crate::worker::Command;
use spooky_uring::Ring;
use std::time::{Duration, Instant};

/// The limits of all upstreams.
pub struct Admission {
    /// By position; `None`: as much as its other limits permit.
    upstreams: Vec<Option<Upstream>>,
    next: Instant,
    /// What the workers are told: by worker, then by upstream.
    parts: Latest<Vec<Box<[u32]>>>,
}

/// What is known of one upstream.
struct Upstream {
    adaptive: Adaptive,
    stretch: Stretch,
    /// By worker: those who found no room, when it was looked last.
    turned_away: Vec<u64>,
    /// What each worker has of the limit.
    parts: Vec<u32>,
}

/// A window, or the time before the next one.
struct Stretch {
    /// What had been counted when it began.
    counts: Counts,
    /// The same of answer times, and when that was; `None`: no window is open.
    window: Option<(Instant, Merged)>,
}

/// What all workers have counted.
#[derive(Clone, Copy)]
struct Counts {
    over: u64,
    answers: u64,
    inflight: u64,
}

impl Counts {
    fn read(cells: &[&UpstreamCells]) -> Self {
        let sum = |of: fn(&UpstreamCells) -> u64| cells.iter().map(|cells| of(cells)).sum();
        Self {
            over: sum(|cells| cells.over.get()),
            answers: sum(|cells| cells.answers.get()),
            inflight: sum(|cells| cells.inflight_at_answers.get()),
        }
    }

    /// What came after `earlier`.
    fn since(self, earlier: Self) -> Self {
        Self {
            over: self.over.saturating_sub(earlier.over),
            answers: self.answers.saturating_sub(earlier.answers),
            inflight: self.inflight.saturating_sub(earlier.inflight),
        }
    }
}

fn times(cells: &[&UpstreamCells]) -> Merged {
    let mut times = Merged::default();
    cells.iter().for_each(|cells| cells.answer_duration.merge_into(&mut times));
    times
}

impl Upstream {
    fn new(adaptive: Adaptive, workers: usize) -> Self {
        let parts = spread(adaptive.limit(), &vec![0; workers]);
        let counts = Counts { over: 0, answers: 0, inflight: 0 };
        let stretch = Stretch { counts, window: None };
        Self { adaptive, stretch, turned_away: vec![0; workers], parts }
    }

    /// Looks at what each worker has counted. `true`: somebody's part is another one now.
    fn look(&mut self, cells: &[&UpstreamCells], now: Instant) -> bool {
        let limit = self.adaptive.limit();
        let counts = Counts::read(cells);
        let lately = counts.since(self.stretch.counts);
        match &self.stretch.window {
            None if self.adaptive.is_settled(lately.over, now) => {
                self.stretch = Stretch { counts, window: Some((now, times(cells))) };
            }
            Some((since, before)) if Adaptive::is_enough(lately.answers, now.saturating_duration_since(*since)) => {
                let median = times(cells).since(before).between_us(0.5);
                let window = Window {
                    median: Duration::from_micros(median as u64),
                    inflight: lately.inflight as f64 / lately.answers as f64,
                    active: cells.iter().map(|cells| cells.active.get()).sum(),
                };
                self.adaptive.close(&window, now);
                self.stretch = Stretch { counts, window: None };
            }
            _ => {}
        }
        self.divide(cells, limit != self.adaptive.limit())
    }

    /// Gives each worker its part: where the limit has changed, or somebody found no room that another may have had.
    fn divide(&mut self, cells: &[&UpstreamCells], changed: bool) -> bool {
        let asked = cells.iter().zip(&mut self.turned_away).map(|(cells, before)| {
            let turned_away = cells.turned_away.get();
            let lately = turned_away.saturating_sub(std::mem::replace(before, turned_away));
            (cells.active.get(), lately)
        });
        let asked: Vec<(u64, u64)> = asked.collect();
        if !changed && asked.iter().all(|(_, lately)| *lately == 0) {
            return false;
        }
        let asked: Vec<u64> = asked.iter().map(|(active, lately)| active + lately).collect();
        let parts = spread(self.adaptive.limit(), &asked);
        std::mem::replace(&mut self.parts, parts) != self.parts
    }

    fn tell(&self, cells: &AdaptiveCells) {
        cells.limit.set(u64::from(self.adaptive.limit()));
        let baseline = self.adaptive.baseline().unwrap_or_default();
        cells.baseline_us.set(u64::try_from(baseline.as_micros()).unwrap_or(u64::MAX));
    }
}

/// The cells of a generation, by upstream.
pub fn cells(generation: &Generation) -> Box<[Option<AdaptiveCells>]> {
    generation.upstreams.iter().map(|upstream| upstream.adaptive.map(|_| AdaptiveCells::default())).collect()
}

impl Admission {
    /// For a configuration; `None`: it is off.
    pub fn new(generation: &Generation, workers: usize, now: Instant) -> Option<Self> {
        let policies = generation.upstreams.iter().map(|upstream| upstream.adaptive);
        let upstream = |policy| Upstream::new(Adaptive::new(policy, now), workers);
        let upstreams: Vec<_> = policies.map(|policy| policy.map(upstream)).collect();
        upstreams.iter().find(|upstream| upstream.is_some())?;
        let mut admission = Self { upstreams, next: now, parts: Latest::new(Vec::new(), workers) };
        admission.set(workers);
        Some(admission)
    }

    pub fn deadline(&self) -> Instant {
        self.next
    }

    pub fn turn(&mut self, now: Instant, ring: &mut Ring, workers: &[WorkerLine], cells: &OverloadCells) {
        if now < self.next {
            return;
        }
        self.next = now + limits::ADMISSION_EVERY;
        let mut changed = false;
        for (at, upstream) in self.upstreams.iter_mut().enumerate() {
            let Some(upstream) = upstream else { continue };
            let counted: Vec<&UpstreamCells> = workers.iter().map(|line| line.cells.upstream(at)).collect();
            changed |= upstream.look(&counted, now);
            if let Some(Some(cells)) = cells.adaptive.get(at) {
                upstream.tell(cells);
            }
        }
        if changed {
            self.set(workers.len());
        }
        self.parts.send(ring, workers, |worker, parts| Command::Admission(parts[worker].clone()));
    }

    fn set(&mut self, workers: usize) {
        let part = |upstream: &Option<Upstream>, worker| upstream.as_ref().map_or(u32::MAX, |of| of.parts[worker]);
        let of = |worker: usize| self.upstreams.iter().map(|upstream| part(upstream, worker)).collect();
        self.parts.set((0..workers).map(of).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overload::AdaptivePolicy;

    const POLICY: AdaptivePolicy = AdaptivePolicy { min: 4, max: 1_000, tolerance_percent: 25 };

    fn upstream(workers: usize, now: Instant) -> (Upstream, Vec<UpstreamCells>) {
        let cells = (0..workers).map(|_| UpstreamCells::default()).collect();
        (Upstream::new(Adaptive::new(POLICY, now), workers), cells)
    }

    fn answer(cells: &UpstreamCells, took: Duration, inflight: u64) {
        cells.answers.add(1);
        cells.answer_duration.record(took);
        cells.inflight_at_answers.add(inflight);
    }

    #[test]
    fn what_workers_count_together_is_one_window() {
        let start = Instant::now();
        let (mut upstream, cells) = upstream(2, start);
        let [one, other] = &cells[..] else { panic!("two") };
        assert_eq!(upstream.parts, [32, 32]);
        assert!(!upstream.look(&[one, other], start));
        // Neither has enough alone; both together use more than half of the limit, and nothing is slow: it rises.
        for _ in 0..15 {
            answer(one, Duration::from_millis(10), 40);
            answer(other, Duration::from_millis(10), 40);
        }
        one.active.set(30);
        other.active.set(10);
        assert!(upstream.look(&[one, other], start + Duration::from_millis(150)));
        assert_eq!(upstream.parts.iter().sum::<u32>(), 80);
        assert!(upstream.parts[0] == 50, "who is asked for more has more: {:?}", upstream.parts);
        let baseline = upstream.adaptive.baseline().expect("measured").as_secs_f64();
        assert!((baseline - 0.01).abs() < 0.0005, "{baseline}");
        assert!(upstream.stretch.window.is_none());
        assert!(!upstream.look(&[one, other], start + Duration::from_millis(200)));
        assert!(upstream.stretch.window.is_none(), "what began before is to be over first");
        one.over.add(30);
        other.over.add(10);
        upstream.look(&[one, other], start + Duration::from_millis(250));
        assert!(upstream.stretch.window.is_some());
    }

    #[test]
    fn what_was_counted_before_a_window_is_not_in_it() {
        let start = Instant::now();
        let (mut upstream, cells) = upstream(1, start);
        (0..1_000).for_each(|_| answer(&cells[0], Duration::from_secs(3), 900));
        upstream.look(&[&cells[0]], start);
        (0..30).for_each(|_| answer(&cells[0], Duration::from_millis(7), 1));
        upstream.look(&[&cells[0]], start + Duration::from_secs(1));
        let baseline = upstream.adaptive.baseline().expect("measured").as_secs_f64();
        assert!((baseline - 0.007).abs() < 0.0005, "{baseline}");
        assert_eq!(upstream.adaptive.limit(), 64, "it is lightly used");
    }

    #[test]
    fn a_worker_that_turns_away_takes_from_one_that_does_not() {
        let start = Instant::now();
        let (mut upstream, cells) = upstream(4, start);
        let cells: Vec<&UpstreamCells> = cells.iter().collect();
        cells[2].active.set(16);
        assert!(!upstream.look(&cells, start), "nobody was turned away");
        cells[2].turned_away.add(5);
        assert!(upstream.look(&cells, start + limits::ADMISSION_EVERY));
        assert_eq!(upstream.parts.iter().sum::<u32>(), 64);
        assert!(upstream.parts[2] >= 30, "{:?}", upstream.parts);
        assert!(!upstream.look(&cells, start + limits::ADMISSION_EVERY * 2), "they were turned away before");
    }
}
