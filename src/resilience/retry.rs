//! How often a request is tried, and how long the pause before another attempt is.

use super::Conditions;
use std::time::Duration;

/// The rules for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts at most, the first one included. A connection that turns out to be stale is no attempt.
    pub attempts: u32,
    /// After what another attempt is made.
    pub on: Conditions,
    /// How long one attempt may take to answer with a head before another one is made; `None`: as long as the backend has.
    pub per_try_timeout: Option<Duration>,
    /// The pause before the second attempt at most; it doubles with each further one.
    pub backoff: Duration,
    /// No pause is longer.
    pub max_backoff: Duration,
    /// Bytes of a request's body that are kept to be sent again.
    pub replay_buffer: usize,
}

impl RetryPolicy {
    /// The pause after `attempts` attempts. A random part of the bound (`random` is any number): clients that failed together
    /// must not come back together.
    #[must_use]
    pub fn pause(&self, attempts: u32, random: u64) -> Duration {
        let doublings = attempts.saturating_sub(1).min(20);
        let most = self.backoff.saturating_mul(1 << doublings).min(self.max_backoff);
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(if nanos == 0 { 0 } else { random % nanos })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        attempts: 3,
        on: Conditions::NONE,
        per_try_timeout: None,
        backoff: Duration::from_millis(20),
        max_backoff: Duration::from_millis(50),
        replay_buffer: 0,
    };

    #[test]
    fn a_pause_doubles_up_to_its_bound_and_is_spread_below_it() {
        for (attempts, most) in [(1, 20), (2, 40), (3, 50), (40, 50), (u32::MAX, 50)] {
            let pauses: Vec<_> =
                (0..1000).map(|at| POLICY.pause(attempts, u64::wrapping_mul(at, 0x9E37_79B9_7F4A_7C15))).collect();
            let most = Duration::from_millis(most);
            assert!(pauses.iter().all(|pause| *pause < most), "{attempts}");
            let mean = pauses.iter().sum::<Duration>() / 1000;
            assert!(mean > most * 2 / 5 && mean < most * 3 / 5, "{attempts}: {mean:?}");
        }
    }

    #[test]
    fn no_pause_is_none() {
        let policy = RetryPolicy { backoff: Duration::ZERO, ..POLICY };
        assert_eq!(policy.pause(5, 12345), Duration::ZERO);
    }
}
