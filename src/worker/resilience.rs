//! The state of one worker's policies for attempts that fail or take long: a budget for each upstream, a breaker for each
//! backend, what the answers of a way take where it is hedged by that.

use crate::config::{BackendId, Generation, UpstreamId, WayId};
use crate::exchange::Attempt;
use crate::resilience::{Breaker, Budget, BudgetPolicy, Change, Pass, Quantile};
use std::time::{Duration, Instant};

/// All of them, by position.
pub(super) struct Resilience {
    budgets: Vec<Budget>,
    /// `None`: its upstream has none.
    breakers: Vec<Option<Breaker>>,
    /// Passes that are out.
    passes: u32,
    /// `None`: nobody asks.
    latencies: Vec<Option<Quantile>>,
}

impl Resilience {
    pub(super) fn new(generation: &Generation, now: Instant) -> Self {
        let budget = |policy: BudgetPolicy| {
            // Of 0 there is no share.
            let floor = if policy.min_per_sec == 0 { 0 } else { generation.performance.share(policy.min_per_sec) };
            Budget::new(BudgetPolicy { min_per_sec: floor, ..policy }, now)
        };
        let breaker = |upstream: UpstreamId| generation.upstream(upstream).circuit_breaker.map(Breaker::new);
        Self {
            budgets: generation.upstreams.iter().map(|upstream| budget(upstream.retry_budget)).collect(),
            breakers: generation.backends.iter().map(|backend| breaker(backend.upstream)).collect(),
            passes: 0,
            latencies: generation.ways.iter().map(|way| way.hedging?.delay.percent().map(Quantile::new)).collect(),
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
        self.breakers[backend.0 as usize].as_ref().is_none_or(|breaker| breaker.admits(now))
    }

    /// Takes a backend's pass for an attempt that is admitted.
    pub(super) fn take(&mut self, backend: BackendId, now: Instant) -> Option<(Pass, Option<Change>)> {
        let taken = self.breakers[backend.0 as usize].as_mut().map(|breaker| breaker.take(now));
        self.passes += u32::from(taken.is_some());
        taken
    }

    /// Gives a pass back, with what the attempt said of the backend.
    pub(super) fn give_back(
        &mut self,
        backend: BackendId,
        pass: Pass,
        good: Option<bool>,
        now: Instant,
    ) -> Option<Change> {
        self.passes -= 1;
        self.breakers[backend.0 as usize].as_mut()?.give_back(pass, good, now)
    }

    /// Passes that attempts have and did not give back.
    pub(super) fn passes(&self) -> u32 {
        self.passes
    }

    /// What so many answers of a way do not take longer than, once that is known.
    pub(super) fn latency(&self, way: WayId) -> Option<Duration> {
        self.latencies[way.0 as usize]?.get()
    }

    /// The first attempt of a request had its answer now, or is not waited for any longer (`over`).
    pub(super) fn observe_latency(&mut self, way: WayId, attempt: &Attempt, over: bool, now: Instant) {
        let Some(latency) = self.latencies[way.0 as usize].as_mut().filter(|_| !attempt.hedge) else {
            return;
        };
        match over {
            true => latency.observe_at_least(attempt.age(now)),
            false => latency.observe(attempt.age(now)),
        }
    }
}
