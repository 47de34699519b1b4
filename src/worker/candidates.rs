//! Who may take an attempt: the one place that says what speaks against a backend.

use super::endpoints::Places;
use super::health::Health;
use super::resilience::Resilience;
use crate::balance::LeftOut;
use crate::config::BackendId;
use crate::exchange::Exchange;
use crate::exchange::inflight::Inflight;
use crate::telemetry::kinds::HealthState;
use std::cell::Cell;
use std::time::Instant;

/// What a worker knows of its backends that speaks against one.
pub(super) struct Candidates<'a> {
    places: &'a Places,
    health: &'a Health,
    inflight: &'a Inflight,
    resilience: &'a Resilience,
    now: Instant,
    /// What speaks against those that were asked about: it is told if nobody is left.
    pub(super) told: Cell<Option<LeftOut>>,
}

impl<'a> Candidates<'a> {
    pub(super) fn new(
        places: &'a Places,
        health: &'a Health,
        inflight: &'a Inflight,
        resilience: &'a Resilience,
        now: Instant,
    ) -> Self {
        Self { places, health, inflight, resilience, now, told: Cell::new(None) }
    }

    /// Why a backend is not taken for another attempt of a request; `None`: it may be.
    #[inline]
    pub(super) fn left_out(&self, exchange: &Exchange, backend: BackendId) -> Option<LeftOut> {
        if exchange.was_tried(backend) || exchange.is_on(backend) {
            return Some(LeftOut::Tried);
        }
        if let Some(reason) = self.places.missing(backend) {
            return Some(LeftOut::Nowhere(reason));
        }
        match self.health.state(backend) {
            HealthState::Healthy => {}
            HealthState::Unhealthy => return Some(LeftOut::Unhealthy),
            HealthState::Ejected => return Some(LeftOut::Ejected),
        }
        if !self.inflight.backend_has_room(&exchange.snapshot.generation, backend) {
            return Some(LeftOut::Full);
        }
        (!self.resilience.admits(backend, self.now)).then_some(LeftOut::BreakerOpen)
    }

    /// The same in the words of a balancer.
    #[inline]
    pub(super) fn skips(&self, exchange: &Exchange, backend: BackendId) -> bool {
        let left_out = self.left_out(exchange, backend);
        if let Some(why) = left_out {
            self.told.set(Some(why.or(self.told.get())));
        }
        left_out.is_some()
    }
}
