//! The state of one worker's policies for attempts that fail: a budget for each upstream, a breaker for each backend.

use crate::config::{BackendId, Generation, UpstreamId};
use crate::resilience::{Breaker, Budget, BudgetPolicy, Change, Pass};
use std::time::Instant;

/// Both, by position.
pub(super) struct Resilience {
    budgets: Vec<Budget>,
    /// Empty: there are none.
    breakers: Vec<Breaker>,
}

impl Resilience {
    pub(super) fn new(generation: &Generation, now: Instant) -> Self {
        let resilience = &generation.resilience;
        let policy = resilience.retry_budget;
        // Of 0 there is no share.
        let floor = if policy.min_per_sec == 0 { 0 } else { generation.performance.share(policy.min_per_sec) };
        let policy = BudgetPolicy { min_per_sec: floor, ..policy };
        Self {
            budgets: vec![Budget::new(policy, now); generation.upstreams.len()],
            breakers: resilience
                .circuit_breaker
                .map_or_else(Vec::new, |policy| vec![Breaker::new(policy); generation.backends.len()]),
        }
    }

    /// Counts a request that an upstream is to answer.
    pub(super) fn request(&mut self, upstream: UpstreamId, now: Instant) {
        self.budgets[upstream.0 as usize].request(now);
    }

    /// Takes the permit for another attempt of a request; `false`: there is none.
    pub(super) fn retry(&mut self, upstream: UpstreamId, now: Instant) -> bool {
        self.budgets[upstream.0 as usize].retry(now)
    }

    /// Whether a backend's breaker lets an attempt through.
    #[inline]
    pub(super) fn admits(&self, backend: BackendId, now: Instant) -> bool {
        self.breakers.get(backend.0 as usize).is_none_or(|breaker| breaker.admits(now))
    }

    /// Takes a backend's pass for an attempt that is admitted.
    pub(super) fn take(&mut self, backend: BackendId, now: Instant) -> Option<(Pass, Option<Change>)> {
        self.breakers.get_mut(backend.0 as usize).map(|breaker| breaker.take(now))
    }

    /// Gives a pass back, with what the attempt said of the backend.
    pub(super) fn give_back(
        &mut self,
        backend: BackendId,
        pass: Pass,
        good: Option<bool>,
        now: Instant,
    ) -> Option<Change> {
        self.breakers.get_mut(backend.0 as usize)?.give_back(pass, good, now)
    }
}
