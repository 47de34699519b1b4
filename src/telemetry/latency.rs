//! Latency histograms: HDR layout, single-writer cells, no handover.
//!
//! An HDR histogram is an array of counters whose index is log-linear in the value: each power of two is cut into
//! [`SUB_BUCKETS`] equal cells, so a recorded value is off by at most 1/16. `hdrhistogram::Histogram` has that layout
//! too, but a worker would have to clone it for every scrape (a copy of some KiB in the middle of a turn, asked for
//! and answered by mailbox) or share it behind a lock. With one atomic cell per bucket, written by one worker with a
//! plain load and store, control reads whenever it likes and the worker never notices. Reads are not a snapshot:
//! a sample recorded during the read may or may not be in, which is what a scrape means anyway.
//!
//! Prometheus buckets are exact: their bounds are powers of two of a microsecond, which are cell edges.

use super::cells::Counter;
use std::sync::OnceLock;
use std::time::Duration;

/// log2 of the cells per power of two: 16 cells, ≤ 6.3 % error. There are two of these for each backend and worker.
const SUB_BITS: u32 = 4;
/// Cells per power of two.
const SUB_BUCKETS: usize = 1 << SUB_BITS;
/// Values at or above 2^36 µs (19 hours) count in the last cell.
const VALUE_BITS: u32 = 36;
/// Values below 16 have a cell each; then 16 cells for each further power of two: (36 - 4 + 1) × 16 = 528 cells, 4.1 KiB.
const CELLS: usize = (VALUE_BITS - SUB_BITS + 1) as usize * SUB_BUCKETS;

/// First and last power of two of a microsecond that has a Prometheus bucket: 16 µs … 2^27 µs (134 s).
const BUCKET_BITS: std::ops::RangeInclusive<u32> = 4..=27;

/// One latency histogram of one worker. Until something is recorded it has no cells: most backends are idle.
#[derive(Debug, Default)]
pub struct Latency {
    cells: OnceLock<Box<[Counter]>>,
    sum_us: Counter,
}

impl Latency {
    /// Records one duration; only the owning worker calls it.
    pub fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let cells = self.cells.get_or_init(|| (0..CELLS).map(|_| Counter::default()).collect());
        cells[index(us)].add(1);
        self.sum_us.add(us);
    }

    /// Adds this histogram's counts to `into`.
    pub fn merge_into(&self, into: &mut Merged) {
        let Some(cells) = self.cells.get() else {
            return;
        };
        for (to, cell) in into.counts.iter_mut().zip(cells) {
            *to += cell.get();
        }
        into.sum_us += self.sum_us.get();
    }
}

/// The sum of several workers' histograms, on control.
#[derive(Debug, Clone)]
pub struct Merged {
    counts: Box<[u64]>,
    sum_us: u64,
}

impl Default for Merged {
    fn default() -> Self {
        Self { counts: vec![0; CELLS].into_boxed_slice(), sum_us: 0 }
    }
}

impl Merged {
    /// Number of samples.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Sum of all samples in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// The value that `quantile` (0..=1) of the samples do not exceed, in microseconds; 0 without samples.
    pub fn quantile_us(&self, quantile: f64) -> u64 {
        let count = self.count();
        if count == 0 {
            return 0;
        }
        let rank = ((quantile * count as f64).ceil() as u64).clamp(1, count);
        let mut seen = 0;
        for (at, n) in self.counts.iter().enumerate() {
            seen += n;
            if seen >= rank {
                return highest(at);
            }
        }
        highest(CELLS - 1)
    }

    /// What came after `earlier`, which was read of the same histograms.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let counts = self.counts.iter().zip(&earlier.counts).map(|(now, before)| now.saturating_sub(*before));
        Self { counts: counts.collect(), sum_us: self.sum_us.saturating_sub(earlier.sum_us) }
    }

    /// The same as [`Self::quantile_us`], as if the samples of a cell were spread over it: no worse for one value, and values
    /// near each other can be compared.
    pub fn between_us(&self, quantile: f64) -> f64 {
        let rank = quantile * self.count() as f64;
        let mut below = 0.0;
        for (at, n) in self.counts.iter().enumerate().filter(|(_, n)| **n > 0) {
            let n = *n as f64;
            if below + n >= rank {
                let lowest = at.checked_sub(1).map_or(0, |before| highest(before) + 1) as f64;
                let width = highest(at) as f64 + 1.0 - lowest;
                return lowest + width * ((rank - below) / n).clamp(0.0, 1.0);
            }
            below += n;
        }
        0.0
    }

    /// `(upper bound in microseconds, samples below it)` for each Prometheus bucket, cumulative. The bound is exclusive
    /// by a microsecond's rounding: samples are whole microseconds, and `< 16` is `<= 15`.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut at = 0;
        let mut seen = 0;
        BUCKET_BITS.map(move |bits| {
            let edge = index(1 << bits);
            seen += self.counts[at..edge].iter().sum::<u64>();
            at = edge;
            (1 << bits, seen)
        })
    }
}

/// The cell of a value.
fn index(us: u64) -> usize {
    let us = us.min((1 << VALUE_BITS) - 1);
    if us < SUB_BUCKETS as u64 {
        return us as usize;
    }
    let exponent = us.ilog2() - SUB_BITS;
    // Top SUB_BITS + 1 bits of the value: 16..=31.
    let mantissa = (us >> exponent) as usize;
    exponent as usize * SUB_BUCKETS + mantissa
}

/// The highest value of a cell.
fn highest(at: usize) -> u64 {
    if at < SUB_BUCKETS {
        return at as u64;
    }
    let exponent = at / SUB_BUCKETS - 1;
    let mantissa = at % SUB_BUCKETS + SUB_BUCKETS;
    (((mantissa + 1) as u64) << exponent) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_falls_into_a_cell_that_spans_it() {
        assert_eq!(index(0), 0);
        assert_eq!(index((1 << VALUE_BITS) - 1), CELLS - 1);
        assert_eq!(index(u64::MAX), CELLS - 1);
        for at in 0..CELLS {
            assert_eq!(index(highest(at)), at, "cell {at}");
            if at + 1 < CELLS {
                assert_eq!(index(highest(at) + 1), at + 1, "cell {at}");
            }
        }
        for us in [1u64, 31, 32, 33, 63, 64, 1000, 123_456, 98_765_432] {
            let top = highest(index(us));
            assert!(top >= us && (top - us) as f64 <= us as f64 / 15.0);
        }
    }

    #[test]
    fn buckets_are_cumulative_and_exact_at_powers_of_two() {
        let latency = Latency::default();
        for us in [15, 16, 1023, 1024, 1025] {
            latency.record(Duration::from_micros(us));
        }
        latency.record(Duration::from_secs(100_000));
        let mut merged = Merged::default();
        latency.merge_into(&mut merged);
        let buckets: Vec<_> = merged.buckets().collect();
        assert_eq!(buckets[0], (16, 1));
        assert_eq!(buckets[6], (1024, 3));
        assert_eq!(buckets[7], (2048, 5));
        assert_eq!(buckets.last().unwrap().1, 5);
        assert_eq!(merged.count(), 6);
    }

    #[test]
    fn quantiles_come_from_the_merged_workers() {
        let (one, two) = (Latency::default(), Latency::default());
        for us in 1..=50 {
            one.record(Duration::from_micros(us));
        }
        for us in 51..=100 {
            two.record(Duration::from_micros(us));
        }
        let mut merged = Merged::default();
        assert_eq!(merged.quantile_us(0.5), 0);
        one.merge_into(&mut merged);
        two.merge_into(&mut merged);
        assert!((50..=51).contains(&merged.quantile_us(0.5)));
        assert!((99..=103).contains(&merged.quantile_us(0.99)));
        assert_eq!(merged.sum_us(), 5050);
    }
}
