//! Many seeds, and how to replay the one that failed.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Runs a story with the seeds 1 to `count`, or as many times more as `SPOOKY_SEEDS` says, or with `SPOOKY_SEED` alone.
pub fn seeds(count: u64, story: impl Fn(u64)) {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number("SPOOKY_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=count * number("SPOOKY_SEEDS").unwrap_or(1),
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| story(seed))) {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("").to_owned();
            eprintln!(
                "seed {seed} failed; replay it with\n  SPOOKY_SEED={seed} cargo test --test {} {name}",
                env!("CARGO_CRATE_NAME")
            );
            resume_unwind(panic);
        }
    }
}
