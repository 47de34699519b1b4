//! When a request that waits for its answer is asked of a second backend too.

use std::time::Duration;

/// The rules for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HedgePolicy {
    /// How long the attempts that run may be without a final head before another one begins.
    pub delay: HedgeDelay,
    /// Attempts at most that begin beside others.
    pub max: u32,
}

/// How long that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeDelay {
    /// Always the same.
    Fixed(Duration),
    /// What so many of a hundred answers of the way do not take longer than.
    Percentile {
        /// So many.
        percent: u32,
        /// But no less than this.
        least: Duration,
    },
}

impl HedgeDelay {
    /// The delay; `measured` is the percentile, if it is known. `None`: nobody knows yet.
    #[must_use]
    pub fn get(self, measured: Option<Duration>) -> Option<Duration> {
        match self {
            Self::Fixed(delay) => Some(delay),
            Self::Percentile { least, .. } => Some(measured?.max(least)),
        }
    }

    /// The percentile that it goes by.
    #[must_use]
    pub fn percent(self) -> Option<u32> {
        match self {
            Self::Fixed(_) => None,
            Self::Percentile { percent, .. } => Some(percent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_fixed_or_measured_with_a_floor() {
        let ms = Duration::from_millis;
        assert_eq!(HedgeDelay::Fixed(ms(50)).get(Some(ms(7))), Some(ms(50)));
        assert_eq!(HedgeDelay::Fixed(ms(50)).get(None), Some(ms(50)));
        let measured = HedgeDelay::Percentile { percent: 95, least: ms(5) };
        assert_eq!(measured.get(None), None);
        assert_eq!(measured.get(Some(ms(30))), Some(ms(30)));
        assert_eq!(measured.get(Some(ms(2))), Some(ms(5)));
        assert_eq!((measured.percent(), HedgeDelay::Fixed(ms(1)).percent()), (Some(95), None));
    }
}
