//! What an attempt says of its backend: one value, from which the circuit breaker, the balancer and the count of its failures
//! take theirs.

use crate::balance::Outcome;
use std::time::Duration;

/// What an attempt has said of its backend. An attempt whose end was not the backend's doing says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A final head came.
    Answered {
        /// Its status.
        status: u16,
        /// How long the backend had the request.
        waited: Duration,
        /// Whether the client had sent all of the request: else the time is the client's, not the backend's.
        timed: bool,
    },
    /// It failed before a final head came.
    Failed(Duration),
    /// It broke off behind its final head.
    BrokeOff(Duration),
}

impl Verdict {
    /// What the circuit breaker takes from it: whether the backend was able to answer at all, whatever the status.
    #[must_use]
    pub fn is_good(self) -> bool {
        !matches!(self, Self::Failed(_))
    }

    /// What the health of the backend takes from it: statuses of 500 and above speak against it.
    #[must_use]
    pub fn speaks_for(self) -> bool {
        matches!(self, Self::Answered { status: ..500, .. })
    }

    /// What adaptive admission takes from it: how long an answer took, as far as that was the backend's doing. Errors are often
    /// quick, and say nothing of how much there is to do.
    #[must_use]
    pub fn answered_after(self) -> Option<Duration> {
        match self {
            Self::Answered { status: ..500, waited, timed: true } => Some(waited),
            _ => None,
        }
    }

    /// What the balancer takes from it; `None`: nothing. A status that says that the backend cannot serve is a failure.
    #[must_use]
    pub fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Answered { status: 502..=504, waited, .. } | Self::Failed(waited) | Self::BrokeOff(waited) => {
                Some(Outcome::Failed(waited))
            }
            Self::Answered { timed: false, .. } => None,
            Self::Answered { waited, .. } => Some(Outcome::Answered(waited)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaker_balancer_and_health_take_what_is_theirs() {
        let waited = Duration::from_millis(7);
        let answered = |status, timed| Verdict::Answered { status, waited, timed };
        for (verdict, good, healthy, outcome) in [
            (answered(200, true), true, true, Some(Outcome::Answered(waited))),
            (answered(499, true), true, true, Some(Outcome::Answered(waited))),
            (answered(500, true), true, false, Some(Outcome::Answered(waited))),
            (answered(200, false), true, true, None),
            // It answers, and cannot serve.
            (answered(503, true), true, false, Some(Outcome::Failed(waited))),
            (answered(502, false), true, false, Some(Outcome::Failed(waited))),
            (answered(504, true), true, false, Some(Outcome::Failed(waited))),
            (Verdict::Failed(waited), false, false, Some(Outcome::Failed(waited))),
            (Verdict::BrokeOff(waited), true, false, Some(Outcome::Failed(waited))),
        ] {
            assert_eq!((verdict.is_good(), verdict.outcome()), (good, outcome), "{verdict:?}");
            assert_eq!(verdict.speaks_for(), healthy, "{verdict:?}");
            let counts = matches!(verdict, Verdict::Answered { status: 200 | 499, timed: true, .. });
            assert_eq!(verdict.answered_after(), counts.then_some(waited), "{verdict:?}");
        }
    }
}
