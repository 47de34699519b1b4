//! What the benches ask of the machine: pinning, descriptor limit, own CPU time, sizes and durations as text.
//!
//! Knows no protocol. Figures about *other* processes are in [`crate::load`]'s watch.

use nix::sys::resource::{UsageWho, getrusage};
use spooky_uring::host;
use std::time::Duration;

/// Why a bench could not run; shown as it is.
pub type Failure = Box<dyn std::error::Error>;

/// Binds the calling thread to one CPU.
pub fn pin(cpu: usize) -> Result<(), Failure> {
    host::pin_to_cpu(cpu).map_err(|error| format!("cannot pin to CPU {cpu}: {error}").into())
}

/// Raises the soft limit of open files to the hard one: an idle crowd has one socket per connection.
pub fn raise_file_limit() {
    // A refusal shows itself later as EMFILE, with the socket that failed.
    let _ = host::raise_descriptor_limit(0);
}

/// User and system time of this process so far.
pub fn own_cpu() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else {
        return Duration::ZERO;
    };
    let micros = |time: nix::sys::time::TimeVal| u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or(0);
    Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time()))
}

/// Reads `1024`, `64KiB`, `1MiB`, `1GiB` (also `64k`, `1m`, `1g`).
pub fn parse_size(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        unit => return Err(format!("unknown unit `{unit}` (use KiB, MiB or GiB)")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("`{text}` is not a size"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is too large"))
}

/// Reads `2`, `1.5` (seconds), `250ms`, `5s`, `2m`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match &text[digits.len()..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        unit => return Err(format!("unknown unit `{unit}` (use us, ms, s or m)")),
    };
    let number: f64 = digits.parse().map_err(|_| format!("`{text}` is not a duration"))?;
    Duration::try_from_secs_f64(number * scale).map_err(|error| format!("`{text}`: {error}"))
}

/// A small seeded generator (splitmix64): the same seed gives the same run.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts a sequence.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number in `0.0..1.0`.
    pub fn share(&mut self) -> f64 {
        // 53 bits are what an f64 holds exactly.
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_read_with_and_without_units() {
        assert_eq!(parse_size("1024"), Ok(1024));
        assert_eq!(parse_size("64KiB"), Ok(65536));
        assert_eq!(parse_size("1m"), Ok(1 << 20));
        assert!(parse_size("12 parsecs").is_err());
        assert!(parse_size("99999999999999999GiB").is_err());
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1.5"), Ok(Duration::from_millis(1500)));
        assert!(parse_duration("5h").is_err());
        assert!(parse_duration("-1s").is_err());
    }

    #[test]
    fn the_same_seed_gives_the_same_sequence_of_shares() {
        let (mut a, mut b) = (Random::new(7), Random::new(7));
        for _ in 0..1000 {
            let share = a.share();
            assert_eq!(share, b.share());
            assert!((0.0..1.0).contains(&share));
        }
    }
}
