//! Why a backend is not taken for an attempt: the one list, whoever asks.

use crate::http::Reason;

/// What speaks against a backend; the first of these that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// The request was there, or is.
    Tried,
    /// Its name has no address; the reason is what a request is refused with.
    Nowhere(Reason),
    /// Probes say that it is not healthy.
    Unhealthy,
    /// Requests failed on it, and it is left alone for a while.
    Ejected,
    /// Its inflight limit is reached.
    Full,
    /// Its circuit breaker is open.
    BreakerOpen,
}

impl LeftOut {
    /// In a word, for people and logs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tried => "tried",
            Self::Nowhere(reason) => reason.token(),
            Self::Unhealthy => "unhealthy",
            Self::Ejected => "ejected",
            Self::Full => "full",
            Self::BreakerOpen => "breaker_open",
        }
    }

    /// What a request is refused with if this is what speaks against its backends.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Tried => Reason::NoBackend,
            Self::Nowhere(reason) => reason,
            Self::Unhealthy | Self::Ejected => Reason::NoHealthyBackend,
            Self::Full => Reason::LimitBackend,
            Self::BreakerOpen => Reason::BreakerOpen,
        }
    }

    /// Which of two is told where different things speak against different backends: what passes soonest.
    #[must_use]
    pub fn or(self, other: Option<Self>) -> Self {
        let rank = |one: Self| match one {
            Self::Full => 0,
            Self::BreakerOpen => 1,
            Self::Unhealthy | Self::Ejected => 2,
            Self::Nowhere(_) => 3,
            Self::Tried => 4,
        };
        match other {
            Some(other) if rank(other) <= rank(self) => other,
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_soonest_is_told_in_whatever_order_it_is_met() {
        let order = [
            LeftOut::Full,
            LeftOut::BreakerOpen,
            LeftOut::Unhealthy,
            LeftOut::Nowhere(Reason::DnsError),
            LeftOut::Tried,
        ];
        for (at, first) in order.iter().enumerate() {
            for later in &order[at..] {
                assert_eq!(first.or(Some(*later)), *first);
                assert_eq!(later.or(Some(*first)), *first);
            }
            assert_eq!(first.or(None), *first);
        }
        assert_eq!(LeftOut::Ejected.reason(), Reason::NoHealthyBackend);
    }
}
