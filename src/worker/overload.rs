//! Requests that find their upstream full: who may wait does so, and is served in the turn in which there is room again. And
//! what an upstream is given, by how it answers; and what the process as a whole has no room for.

use super::Worker;
use crate::config::{Generation, UpstreamId};
use crate::exchange::inflight::Full;
use crate::exchange::{Plan, Waiting};
use crate::http::Reason;
use crate::overload::{Crowded, Place};
use spooky_uring::Io;
use std::rc::Rc;
use std::time::Duration;

/// What control has found of the process as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Only core routes are served.
    pub brownout: bool,
    /// Memory is short.
    pub memory: bool,
}

impl<I: Io> Worker<I> {
    /// Why the process as a whole has no room for a request; `None`: it has.
    #[inline]
    pub(super) fn sheds(&self, generation: &Generation, plan: Plan) -> Option<Reason> {
        let Pressure { brownout, memory } = self.pressure;
        // With nothing in flight there is nothing that could be given back: one request is served, whatever memory is held.
        if memory && self.inflight.total() > 0 {
            return Some(Reason::MemoryPressure);
        }
        (brownout && !generation.route(plan.route).core).then_some(Reason::Brownout)
    }

    /// What upstreams, by position, are given by this worker from now on. Where it is more, somebody who waits is served.
    pub(super) fn update_shares(&mut self, shares: &[u32]) {
        for (at, share) in shares.iter().enumerate() {
            self.inflight.adapt(UpstreamId(at as u32), *share);
            self.queue.note_room(at);
        }
    }

    /// A backend of an upstream has answered after this time: adaptive admission looks at that.
    pub(super) fn note_answer(&self, upstream: UpstreamId, took: Duration) {
        let cells = self.cells.upstream(upstream.0 as usize);
        cells.answers.add(1);
        cells.answer_duration.record(took);
        cells.inflight_at_answers.add(u64::from(self.inflight.on_upstream(upstream)));
    }

    /// What an upstream has been given is another number than before.
    pub(super) fn note_active(&self, upstream: UpstreamId) {
        self.cells.upstream(upstream.0 as usize).active.set(u64::from(self.inflight.on_upstream(upstream)));
    }

    /// There is no room for an exchange at its upstream: it waits for some if its route has a queue with a place for it, or is
    /// refused.
    pub(super) fn wait_or_refuse(&mut self, slot: u32, full: Full) {
        let Some(running) = self.exchanges.get_mut(slot as usize) else {
            return;
        };
        let exchange = &mut running.exchange;
        let snapshot = Rc::clone(&exchange.snapshot);
        let generation = &*snapshot.generation;
        let plan = exchange.plan;
        let policy = plan.and_then(|plan| generation.way(plan.way).queue);
        let (Some(plan), Some(policy), Some(client)) = (plan, policy, exchange.client) else {
            self.refuse_full(slot, full);
            return;
        };
        let Some(upstream) = plan.upstream else { return };
        // What waits holds nothing that others could have.
        self.inflight.leave_upstream(&mut exchange.permits);
        let (length, per_client) =
            (generation.performance.share(policy.length), generation.performance.share(policy.per_client));
        let place = Place { upstream: upstream.0 as usize, way: plan.way.0 as usize, client };
        match self.queue.join(place, length, per_client, slot) {
            Ok(ticket) => {
                exchange.waiting = Some(Waiting { ticket, since: self.now, until: self.now + policy.wait });
                let cells = self.cells.route(place.way);
                cells.waiting.enter();
                cells.queued.add(1);
                self.note_active(upstream);
                self.arm_exchange(slot);
            }
            Err(Crowded::Route) => self.refuse_full(slot, Full { reason: Reason::QueueFull, limit: length }),
            Err(Crowded::Client) => self.refuse_full(slot, Full { reason: Reason::QueueShare, limit: per_client }),
        }
    }

    /// Offers what was given back in this turn to those who wait for it.
    pub(super) fn serve_waiting(&mut self) {
        while let Some(upstream) = self.queue.take_room() {
            while let Some((_, slot)) = self.queue.next(upstream) {
                if !self.call(slot) {
                    break;
                }
            }
        }
    }

    /// Serves the exchange whose turn it is. `false`: there is no room for it.
    fn call(&mut self, slot: u32) -> bool {
        let exchange = &mut self.exchanges[slot as usize].exchange;
        let Some(upstream) = exchange.upstream() else {
            return false;
        };
        let generation = &exchange.snapshot.generation;
        if self.inflight.enter_upstream(&mut exchange.permits, generation, upstream).is_err() {
            return false;
        }
        let picked = self.pick(slot);
        if let Some(Err(Reason::LimitBackend)) = picked {
            self.inflight.leave_upstream(&mut self.exchanges[slot as usize].exchange.permits);
            return false;
        }
        if let Some(waiting) = self.stop_waiting(slot, true) {
            let waited = self.now.saturating_duration_since(waiting.since);
            self.cells.queue_wait.record(waited);
        }
        self.note_active(upstream);
        match picked {
            Some(Ok(backend)) => self.begin(slot, backend, false),
            Some(Err(reason)) => self.refuse(slot, reason),
            None => {}
        }
        true
    }

    /// No backend can be taken: a request that nobody has worked on may wait for one that is full.
    pub(super) fn go_without(&mut self, slot: u32, reason: Reason) {
        let Some(running) = self.exchanges.get(slot as usize) else {
            return;
        };
        let exchange = &running.exchange;
        let upstream = exchange.upstream();
        match (exchange.failure, upstream) {
            (Some(failure), _) => self.refuse(slot, failure),
            (None, Some(upstream)) if reason == Reason::LimitBackend => {
                let generation = &exchange.snapshot.generation;
                // All backends of an upstream have the same limit.
                let limit = generation.backends_of(upstream).first().map_or(0, |backend| backend.inflight_limit);
                let full = Full { reason, limit: generation.performance.share(limit) };
                match exchange.trail.attempts {
                    0 => self.wait_or_refuse(slot, full),
                    _ => self.refuse_full(slot, full),
                }
            }
            (None, _) => self.refuse(slot, reason),
        }
    }

    /// Takes an exchange out of the queue, if it waits there; `served`: because it is its turn.
    pub(super) fn stop_waiting(&mut self, slot: u32, served: bool) -> Option<Waiting> {
        let exchange = &mut self.exchanges.get_mut(slot as usize)?.exchange;
        let waiting = exchange.waiting.take()?;
        exchange.trail.queued = Some(self.now.saturating_duration_since(waiting.since));
        if let Some(plan) = exchange.plan {
            self.cells.route(plan.way.0 as usize).waiting.leave();
        }
        if served {
            self.queue.serve(waiting.ticket)
        } else {
            self.queue.leave(waiting.ticket)
        }
        Some(waiting)
    }

    /// Answers an exchange that a limit has no room for.
    pub(super) fn refuse_full(&mut self, slot: u32, full: Full) {
        if let Some(running) = self.exchanges.get_mut(slot as usize) {
            running.exchange.trail.refused_by = Some(full);
        }
        self.refuse(slot, full.reason);
    }
}
