//! How much an upstream is given at once, by how its answers slow down: a limit that follows the upstream's own latency.
//!
//! ```text
//! window of answers ─▶ median ─▶ against the baseline ─▶ limit up (a quarter, if it is used), or down by the gradient
//! now and then, while loaded:  limit down to half of what the upstream carries ─▶ the median is the new baseline
//! ```
//! The baseline is what an answer takes when nothing waits before it. Whatever is quicker lowers it. Slower answers raise it only
//! where nothing can have waited: with no more in flight than when it was measured last. For that the upstream has to be asked less
//! for a moment, which is a probe. How much of the limit is in use says nothing: a limit that is too high is never filled.
//!
//! One limit stands for the whole process, and is [spread](spread) over the workers by what they are asked for: with a limit for
//! each worker, each would take what the others leave waiting at the upstream for the upstream's own time.
//!
//! Only answers count that are the backend's doing (the workers see to that), and only of times in which nothing is at the
//! upstream any more that began under another limit. What is refused here never counts as an answer.
//! [ADR 0015](../../docs/adr/0015-overload.md) has the reasons.

use std::time::{Duration, Instant};

/// The rules of one upstream's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptivePolicy {
    /// The limit falls no lower; at least 1.
    pub min: u32,
    /// The limit rises no higher.
    pub max: u32,
    /// Percent above the baseline that answers may take before the limit falls.
    pub tolerance_percent: u32,
}

/// From one probe to the next, while there is more to do than the upstream can.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// The limit before anything is known, unless the policy's bounds say otherwise.
const START: f64 = 64.0;
/// A window is closed with this many answers, after [`WINDOW`]: the median of fewer tells little where answers differ.
const ENOUGH: u64 = 24;
const WINDOW: Duration = Duration::from_millis(100);
/// After a window the next one waits until as many requests are over as were in flight, since those began under another limit; but
/// no longer than this, because some of them may be streams that stay.
const SETTLE_MOST: Duration = Duration::from_secs(10);
/// The limit rises by this part in a window in which nothing waits.
const RISE: f64 = 0.25;
/// What is added to a falling limit, so that it rests where some wait at the upstream, and slots that become free find work: where
/// answers take tolerance ÷ (1 - this) times the baseline, which is 1.43 with a tolerance of a quarter.
const HEADROOM: f64 = 0.125;
/// It falls by half at most, however slow answers are.
const STEEPEST: f64 = 0.5;
/// Part of a new median that a baseline takes over.
const BLEND: f64 = 0.125;
/// A probe that finds less than this part of the baseline was preceded by a false one: the next comes soon.
const CORRECTS: f64 = 0.8;
/// Windows from one probe to the next while the baseline is not proved.
const SOON: u32 = 2;
/// Windows at the lowest limit after which what is measured there is the baseline: nothing is left to ask less of. Only those
/// count in which answers became no faster, since what waited at the upstream before has to be worked off first.
const AT_FLOOR: u32 = 2;
const NO_FASTER: f64 = 0.9;

/// What was seen of an upstream for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// How long half of the answers took at most; above zero.
    pub median: Duration,
    /// What was in flight when answers came, on average; they themselves included.
    pub inflight: f64,
    /// What is in flight now.
    pub active: u64,
}

/// One upstream's limit.
#[derive(Clone, Debug)]
pub struct Adaptive {
    floor: f64,
    ceiling: f64,
    tolerance: f64,
    /// Invariant: between floor and ceiling.
    limit: f64,
    /// Microseconds; `None`: nothing was measured.
    baseline: Option<f64>,
    /// The limit to go back to when a probe is over.
    probing: Option<f64>,
    /// The baseline was measured with so much in flight, or less. One that is alone waits for nobody.
    alone: f64,
    /// The baseline was measured by a probe that found no less.
    proved: bool,
    /// The median of the last window, in microseconds.
    median: f64,
    /// What was in flight when the last window was closed, and when that was.
    before: u64,
    closed: Instant,
    probed: Instant,
    windows_since_probe: u32,
    windows_at_floor: u32,
}

impl Adaptive {
    /// Nothing is known.
    #[must_use]
    pub fn new(policy: AdaptivePolicy, now: Instant) -> Self {
        let floor = f64::from(policy.min.max(1));
        let ceiling = f64::from(policy.max).max(floor);
        Self {
            floor,
            ceiling,
            tolerance: 1.0 + f64::from(policy.tolerance_percent) / 100.0,
            limit: START.clamp(floor, ceiling),
            baseline: None,
            probing: None,
            alone: 1.0,
            proved: false,
            median: 0.0,
            before: 0,
            closed: now,
            probed: now,
            windows_since_probe: 0,
            windows_at_floor: 0,
        }
    }

    /// Requests that may be in flight.
    #[must_use]
    pub fn limit(&self) -> u32 {
        // Within the policy's bounds, which are such numbers.
        self.limit as u32
    }

    /// What an answer takes when nothing waits before it.
    #[must_use]
    pub fn baseline(&self) -> Option<Duration> {
        self.baseline.map(|micros| Duration::from_micros(micros as u64))
    }

    /// Whether the next window may begin: so many requests are over since the last one was closed.
    #[must_use]
    pub fn is_settled(&self, over: u64, now: Instant) -> bool {
        over >= self.before || now.saturating_duration_since(self.closed) >= SETTLE_MOST
    }

    /// Whether a window with so many answers that is so old says enough.
    #[must_use]
    pub fn is_enough(answers: u64, age: Duration) -> bool {
        answers >= ENOUGH && age >= WINDOW
    }

    /// Does what a window says.
    pub fn close(&mut self, window: &Window, now: Instant) {
        let median = window.median.as_micros().max(1) as f64;
        let slow = match self.probing.take() {
            Some(limit) => {
                self.end_probe(limit, median, window.inflight, now);
                false
            }
            None => self.adjust(median, window.inflight, now),
        };
        self.median = median;
        // While nobody is slow, a baseline does no harm, unless it is nothing but what an upstream with too much to do took at first.
        let due = match self.proved {
            true => slow && now.saturating_duration_since(self.probed) >= PROBE_EVERY,
            false => self.windows_since_probe >= SOON,
        };
        if due && self.is_loaded(window.inflight) {
            self.probe(window.inflight);
        }
        (self.before, self.closed) = (window.active, now);
    }

    /// Whether the limit is made use of.
    fn is_loaded(&self, inflight: f64) -> bool {
        inflight * 2.0 >= self.limit
    }

    /// Follows a median; `true`: answers are slow.
    fn adjust(&mut self, median: f64, inflight: f64, now: Instant) -> bool {
        let loaded = self.is_loaded(inflight);
        let alone = inflight <= self.alone;
        let baseline = self.baseline.get_or_insert(median);
        if alone || median < *baseline {
            *baseline += (median - *baseline) * BLEND;
        }
        if alone {
            self.proved = true;
            self.probed = now;
        }
        self.windows_since_probe += 1;
        let gradient = self.tolerance * *baseline / median;
        if gradient >= 1.0 {
            if loaded {
                self.limit += (self.limit * RISE).max(1.0);
            }
            self.windows_at_floor = 0;
        } else {
            let target = self.limit * gradient.max(STEEPEST) + (self.limit * HEADROOM).max(1.0);
            // Half of the way, unless there is no doubt: medians of few answers jump.
            self.limit = if gradient <= STEEPEST { target } else { (self.limit + target) / 2.0 };
            let settled = self.limit <= self.floor && median >= self.median * NO_FASTER;
            self.windows_at_floor = if settled { self.windows_at_floor + 1 } else { 0 };
            if self.windows_at_floor >= AT_FLOOR {
                *baseline = median;
                self.windows_at_floor = 0;
            }
        }
        self.limit = self.limit.clamp(self.floor, self.ceiling);
        gradient < 1.0
    }

    /// Asks so little of the upstream that what waits there is worked off, and nothing new waits.
    fn probe(&mut self, inflight: f64) {
        let Some(baseline) = self.baseline else { return };
        self.probing = Some(self.limit);
        // What is in flight, less what waits, is what it works on (Little's law); half of that leaves a margin for a false baseline.
        let carried = inflight * (baseline / self.median).min(1.0);
        self.limit = (carried / 2.0).clamp(self.floor, self.limit);
    }

    fn end_probe(&mut self, before: f64, median: f64, inflight: f64, now: Instant) {
        let was = self.baseline.replace(median).unwrap_or(median);
        self.alone = inflight.max(1.0);
        self.proved = median >= was * CORRECTS;
        self.probed = now;
        self.windows_since_probe = 0;
        // The old limit belonged to the old baseline.
        self.limit = (before * (median / was).min(1.0)).clamp(self.floor, self.ceiling);
    }

    /// Panics where it has left its bounds.
    #[cfg(test)]
    pub fn check_invariants(&self) {
        assert!((self.floor..=self.ceiling).contains(&self.limit), "a limit is within its bounds");
    }
}

/// A limit's parts for workers that are asked for so much: each gets what it is asked for and as much of the rest as the others, or
/// its proportion where there is less. Nobody is left without, so the parts are the limit together unless there are more workers.
#[must_use]
pub fn spread(limit: u32, asked: &[u64]) -> Vec<u32> {
    let wanted: u128 = asked.iter().map(|asked| u128::from(*asked)).sum();
    let (limit, count) = (u128::from(limit), asked.len() as u128);
    let part = |asked: u64| match limit.checked_sub(wanted) {
        Some(rest) => (u128::from(asked) + rest / count.max(1)).max(1),
        // One for each, and the rest in proportion.
        None => 1 + limit.saturating_sub(count) * u128::from(asked) / wanted,
    };
    let mut parts: Vec<u32> = asked.iter().map(|asked| u32::try_from(part(*asked)).unwrap_or(u32::MAX)).collect();
    // What rounding left; the first ones are as good as any.
    let given: u128 = parts.iter().map(|part| u128::from(*part)).sum();
    let left = usize::try_from(limit.saturating_sub(given)).unwrap_or(usize::MAX);
    parts.iter_mut().take(left).for_each(|part| *part += 1);
    parts
}

#[cfg(test)]
mod tests;
