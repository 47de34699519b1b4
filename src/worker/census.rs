//! What a worker holds, counted; and whether all of its books agree.
//!
//! Nothing here is on a request's path: it is what a drain's caller, a test or a simulation asks between turns.

use super::Worker;
use crate::config::BackendId;
use spooky_uring::Io;

/// What a worker holds between two turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Client connections, closing ones included.
    pub clients: usize,
    /// Requests that are not over.
    pub exchanges: usize,
    /// Of these, admitted ones: they hold permits.
    pub admitted: usize,
    /// Connections to origins that carry an exchange or are being made for one.
    pub origins_busy: usize,
    /// Connections to origins that wait in pools.
    pub origins_idle: usize,
    /// Entries of the timer wheel.
    pub timers: usize,
}

impl<I: Io> Worker<I> {
    /// Counts what is there.
    pub fn census(&self) -> Census {
        let origins_idle = self.origins.count_idle();
        Census {
            clients: self.clients.len(),
            exchanges: self.exchanges.len(),
            admitted: self.inflight.total() as usize,
            origins_busy: self.origins.count() - origins_idle,
            origins_idle,
            timers: self.wheel.len(),
        }
    }

    /// Whether no request is under way and no connection to an origin is in use.
    pub fn is_quiet(&self) -> bool {
        let census = self.census();
        census.exchanges == 0 && census.admitted == 0 && census.origins_busy == 0
    }

    /// Panics where two books disagree.
    pub fn check_invariants(&self) {
        self.wheel.check_invariants();
        for (slot, running) in &self.exchanges {
            if let Some(origin) = running.exchange.upstream {
                let held = self.origins.get(origin).and_then(|origin| origin.exchange);
                assert_eq!(held, Some(slot as u32), "exchange {slot} and its connection {origin} point at each other");
            }
            if let Some((deadline, timer)) = running.exchange.armed {
                assert_eq!(self.wheel.deadline(timer), Some(deadline), "the timer of exchange {slot}");
            }
        }
        for (slot, origin) in self.origins.iter() {
            if let Some(exchange) = origin.exchange {
                let held = self.exchanges.get(exchange as usize).and_then(|running| running.exchange.upstream);
                assert_eq!(held, Some(slot), "connection {slot} and its exchange {exchange} point at each other");
            }
        }
        self.origins.check_invariants();
        let generation = &self.snapshot.generation;
        let backends: u32 =
            (0..generation.backends.len()).map(|at| self.inflight.on_backend(BackendId(at as u32))).sum();
        assert!(self.inflight.total() as usize <= self.exchanges.len(), "more permits than exchanges");
        assert!(backends <= self.inflight.total(), "an attempt belongs to an admitted exchange");
    }
}
