//! Times an operation: batches long enough for the clock, several samples, the median and the best.
//!
//! Knows no operation.

use stats_alloc::{INSTRUMENTED_SYSTEM, Region};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Length of one sample.
const SAMPLE: Duration = Duration::from_millis(20);
const SAMPLES: usize = 15;

/// Runs benchmarks and prints a line for each.
pub struct Harness {
    filter: Option<String>,
    json: bool,
    smoke: bool,
}

impl Harness {
    /// Prints the heading.
    pub fn new(filter: Option<String>, json: bool, smoke: bool) -> Self {
        if !json {
            println!("{:<44} {:>10} {:>10} {:>8}", "operation", "median ns", "best ns", "allocs");
        }
        Self { filter, json, smoke }
    }

    /// Whether a benchmark of this name is wanted: lets costly preparations be left out.
    pub fn wants(&self, name: &str) -> bool {
        self.filter.as_deref().is_none_or(|filter| name.contains(filter))
    }

    /// Times `operation`.
    pub fn bench<T>(&self, name: &str, operation: impl FnMut() -> T) {
        self.bench_many(name, 1, operation);
    }

    /// Times `operation`, which does `count` things at once; figures are for one.
    pub fn bench_many<T>(&self, name: &str, count: u64, mut operation: impl FnMut() -> T) {
        if !self.wants(name) {
            return;
        }
        let sample = if self.smoke { Duration::ZERO } else { SAMPLE };
        // Doubling also warms caches and lets buffers grow to their size.
        let mut batch = 1u64;
        while time(batch, &mut operation) < sample {
            batch *= 2;
        }
        let samples = if self.smoke { 1 } else { SAMPLES };
        let per_one = (batch * count) as f64;
        let mut nanos: Vec<f64> =
            (0..samples).map(|_| time(batch, &mut operation).as_nanos() as f64 / per_one).collect();
        nanos.sort_by(f64::total_cmp);
        let region = Region::new(&INSTRUMENTED_SYSTEM);
        time(batch, &mut operation);
        let change = region.change();
        let allocations = (change.allocations + change.reallocations) as f64 / per_one;
        self.print(name, nanos[nanos.len() / 2], nanos[0], allocations);
    }

    /// Prints how many bytes of the heap what `make` makes holds on to.
    pub fn held<T>(&self, name: &str, make: impl FnOnce() -> T) {
        if !self.wants(name) {
            return;
        }
        let region = Region::new(&INSTRUMENTED_SYSTEM);
        let made = black_box(make());
        let change = region.change();
        let held = change.bytes_allocated as i64 - change.bytes_deallocated as i64;
        drop(made);
        if self.json {
            println!(r#"{{"name":"{name}","held_bytes":{held}}}"#);
        } else {
            println!("{name:<44} {held:>10} bytes");
        }
    }

    fn print(&self, name: &str, median: f64, best: f64, allocations: f64) {
        if self.json {
            println!(
                r#"{{"name":"{name}","median_ns":{median:.2},"best_ns":{best:.2},"allocations":{allocations:.3}}}"#
            );
        } else {
            println!("{name:<44} {median:>10.1} {best:>10.1} {allocations:>8.2}");
        }
    }
}

fn time<T>(batch: u64, operation: &mut impl FnMut() -> T) -> Duration {
    let start = Instant::now();
    for _ in 0..batch {
        black_box(operation());
    }
    start.elapsed()
}
