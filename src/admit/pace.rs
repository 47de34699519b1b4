//! The generic cell rate algorithm (ITU-T I.371, annex A), in its form of virtual scheduling: a bucket of so many requests
//! that leaks at a steady rate, told by one moment.
//!
//! That moment is when the bucket is empty again, the theoretical arrival time. What is kept of it is 48 bits of ticks, modulo
//! their number: they come round after 208 days, and [`Pace::ahead`] says what that means. It owns no clock: now comes in.

use std::time::Duration;

/// Nanoseconds of a tick, as a power of two: 64. Short enough that the step of 100,000 requests a second is 156 ticks, so
/// that rounding changes no rate by more than a third of a percent.
const TICK_SHIFT: u32 = 6;

/// Bits of a moment.
pub const MOMENT_BITS: u32 = 48;
const MOMENT_MASK: u64 = (1 << MOMENT_BITS) - 1;

/// How far behind another worker's clock ours may be: it is read once a turn, and no turn is this long. 17 s.
const LAG: u64 = 1 << 28;

/// Ticks of a whole bucket at most: with the lag, far from half of the moments there are. 52 days.
const DEPTH_MAX: u64 = 1 << 46;
const _: () = assert!(DEPTH_MAX + LAG < 1 << (MOMENT_BITS - 1));

/// So many requests in a while, of which some may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Ticks from one request to the next in the long run; at least 1.
    step: u64,
    /// Ticks that a full bucket takes to leak. Invariant: a multiple of `step`, at least one of it.
    depth: u64,
}

impl Pace {
    /// `requests` in every `period`, `burst` of them at once after a pause; both at least 1. What would take longer than 52 days
    /// is held to that.
    #[must_use]
    pub fn new(requests: u32, period: Duration, burst: u32) -> Self {
        let requests = u128::from(requests.max(1));
        // To the nearest tick.
        let ticks = (period.as_nanos() + (requests << TICK_SHIFT >> 1)) / (requests << TICK_SHIFT);
        let step = u64::try_from(ticks).unwrap_or(u64::MAX).clamp(1, DEPTH_MAX);
        let burst = u64::from(burst.max(1)).min(DEPTH_MAX / step);
        Self { step, depth: step * burst }
    }

    /// A time as a moment, counted from some beginning.
    #[inline]
    #[must_use]
    pub fn moment(since: Duration) -> u64 {
        // Wrapping is what moments do; 64 bits of nanoseconds are 584 years.
        (since.as_nanos() as u64 >> TICK_SHIFT) & MOMENT_MASK
    }

    /// Ticks until a bucket is empty that is so at `empty_at`; 0: it is already.
    ///
    /// A moment that lies further ahead than any bucket is deep is one that has passed: either lately, or so long ago that
    /// the moments came round. Only who comes back after 208 days, give or take the bucket's depth, finds a bucket that is
    /// not empty.
    #[inline]
    #[must_use]
    pub fn ahead(self, empty_at: u64, now: u64) -> u64 {
        let ahead = empty_at.wrapping_sub(now) & MOMENT_MASK;
        if ahead > self.depth + LAG { 0 } else { ahead }
    }

    /// One request more in a bucket that is `ahead` ticks from being empty: when it is empty then.
    ///
    /// # Errors
    /// There is no room: how many ticks until there is.
    #[inline]
    pub fn take(self, ahead: u64, now: u64) -> Result<u64, u64> {
        match (ahead + self.step).checked_sub(self.depth) {
            None | Some(0) => Ok(now.wrapping_add(ahead + self.step) & MOMENT_MASK),
            Some(wait) => Err(wait),
        }
    }

    /// How many requests may come at once in a bucket that is `ahead` ticks from being empty.
    #[must_use]
    pub fn room(self, ahead: u64) -> u32 {
        u32::try_from(self.depth.saturating_sub(ahead) / self.step).unwrap_or(u32::MAX)
    }

    /// Whole seconds in so many ticks, at least 1: a client that is told 0 comes back at once.
    #[must_use]
    pub fn seconds(ticks: u64) -> u32 {
        let seconds = u128::from(ticks).saturating_mul(1 << TICK_SHIFT).div_ceil(1_000_000_000);
        u32::try_from(seconds).unwrap_or(u32::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(millis: u64) -> u64 {
        Pace::moment(Duration::from_millis(millis))
    }

    /// A bucket by the book: a level in requests that leaks, as the other form of the algorithm has it. Rational numbers in
    /// 128 bits, so that it rounds nothing.
    struct Bucket {
        /// In requests × period.
        level: u128,
        at: u64,
    }

    impl Bucket {
        fn take(&mut self, pace: (u32, u64, u32), now: u64) -> bool {
            let (requests, period_ticks, burst) = (u128::from(pace.0), u128::from(pace.1), u128::from(pace.2));
            self.level = self.level.saturating_sub(u128::from(now - self.at) * requests);
            self.at = now;
            let fits = self.level + period_ticks <= burst * period_ticks;
            if fits {
                self.level += period_ticks;
            }
            fits
        }
    }

    /// xorshift64*.
    fn random(state: &mut u64) -> u64 {
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 20
    }

    #[test]
    fn it_decides_as_a_bucket_that_leaks() {
        for seed in 1..500u64 {
            let mut state = seed;
            let requests = 1 + (random(&mut state) % 1_000) as u32;
            let burst = 1 + (random(&mut state) % 50) as u32;
            // A period that the requests divide, so that neither rounds.
            let step_ticks = 1 + random(&mut state) % 100_000;
            let period_ticks = step_ticks * u64::from(requests);
            let pace = Pace::new(requests, Duration::from_nanos(period_ticks << TICK_SHIFT), burst);
            let mut bucket = Bucket { level: 0, at: 0 };
            // Near the end of the moments, so that they come round.
            let start = (1 << MOMENT_BITS) - step_ticks * 20;
            let (mut empty_at, mut passed) = (start, 0);
            for turn in 0..400 {
                passed += match random(&mut state) % 4 {
                    0 => 0,
                    1 => step_ticks,
                    2 => random(&mut state) % (step_ticks * 3),
                    _ => random(&mut state) % (step_ticks / 2 + 1),
                };
                let now = (start + passed) & MOMENT_MASK;
                let taken = pace.take(pace.ahead(empty_at, now), now);
                assert_eq!(taken.is_ok(), bucket.take((requests, period_ticks, burst), passed), "seed {seed}, {turn}");
                match taken {
                    Ok(then) => empty_at = then,
                    Err(wait) => {
                        let then = (now + wait) & MOMENT_MASK;
                        assert!(pace.take(pace.ahead(empty_at, then), then).is_ok(), "seed {seed}: told too early");
                        let before = then.wrapping_sub(1) & MOMENT_MASK;
                        assert!(pace.take(pace.ahead(empty_at, before), before).is_err(), "seed {seed}: told too late");
                    }
                }
            }
        }
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let pace = Pace::new(10, Duration::from_secs(1), 3);
        let (mut empty_at, mut taken) = (0, 0);
        for milli in 1_000..11_000 {
            let now = moment(milli);
            if let Ok(then) = pace.take(pace.ahead(empty_at, now), now) {
                (empty_at, taken) = (then, taken + 1);
            }
            if milli == 1_000 {
                assert_eq!(taken, 1);
            }
        }
        // Three at once, and ten for each of ten seconds.
        assert!((102..=103).contains(&taken), "{taken}");
    }

    #[test]
    fn rounding_changes_no_rate_by_more_than_a_third_of_a_percent() {
        for (requests, seconds) in [(100_000, 1), (99_999, 1), (77_777, 1), (7, 1), (1_000_000, 11), (3, 86_400)] {
            let pace = Pace::new(requests, Duration::from_secs(seconds), 1);
            let exact = seconds as f64 * 1e9 / f64::from(requests);
            let error = (pace.step << TICK_SHIFT) as f64 / exact - 1.0;
            assert!(error.abs() < 0.0033, "{requests} in {seconds} s: {error}");
        }
    }

    #[test]
    fn a_clock_that_is_behind_finds_the_bucket_as_full_as_it_is() {
        let pace = Pace::new(1, Duration::from_secs(1), 2);
        let now = moment(60_000);
        let mut empty_at = pace.take(0, now).unwrap();
        empty_at = pace.take(pace.ahead(empty_at, now), now).unwrap();
        let behind = moment(50_000);
        assert_eq!(pace.take(pace.ahead(empty_at, behind), behind).map_err(Pace::seconds), Err(11));
        // What passed is past, lately or long ago.
        for later in [62_001, 1_000_000, 86_400_000 * 100] {
            assert_eq!(pace.ahead(empty_at, moment(later)), 0, "{later}");
        }
    }

    #[test]
    fn nonsense_is_held_to_bounds() {
        let slow = Pace::new(1, Duration::from_secs(86_400 * 365), u32::MAX);
        assert!(slow.take(0, 0).is_ok() && slow.depth <= DEPTH_MAX);
        let none = Pace::new(0, Duration::ZERO, 0);
        assert!(none.take(0, 5).is_ok());
        assert_eq!((Pace::seconds(0), Pace::seconds(u64::MAX)), (1, u32::MAX));
    }
}
