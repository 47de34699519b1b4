//! What follows from a step of an exchange: a word about the backend, another attempt, a connection given back or closed, the
//! end.

use super::{Downkey, Worker};
use crate::balance::Outcome;
use crate::config::{BackendId, UpstreamId};
use crate::exchange::attempt::Holdings;
use crate::exchange::{Again, Downstream, Exchange, ResponseState, Step, Turn, Verdict};
use crate::http::{NO_OWNER, Reason};
use crate::resilience::Change;
use crate::telemetry::kinds::BreakerChange;
use spooky_uring::Io;
use std::time::Duration;

impl<I: Io> Worker<I> {
    /// Calls `act` with an exchange and the client's end of it, then does what the step says.
    pub(super) fn step(
        &mut self,
        slot: u32,
        act: impl FnOnce(&mut Exchange, &mut Downstream<'_>, &mut Turn<'_>) -> Step,
    ) {
        let Some(running) = self.exchanges.get_mut(slot as usize) else {
            return;
        };
        let key = running.downkey;
        let Some(mut downstream) = self.clients.end(key, running.stream) else {
            self.orphan(slot);
            return;
        };
        let mut turn = Turn { now: self.now, date: &self.date, spare: None };
        let step = act(&mut running.exchange, &mut downstream, &mut turn);
        self.touch(key);
        self.apply(slot, step);
    }

    /// The client's connection is gone without a word to the exchange, which ends here: there is nobody to answer.
    pub(super) fn orphan(&mut self, slot: u32) {
        if let Some(running) = self.exchanges.get_mut(slot as usize) {
            running.exchange.blame(Reason::ClientGone);
            self.finish(slot);
        }
    }

    /// Does what a step says, then sees whether the exchange is over.
    pub(super) fn apply(&mut self, slot: u32, step: Step) {
        self.judge(slot);
        match step {
            Step::Continue => {}
            Step::Retry(Again::Answered) => {
                self.replace(slot);
                return;
            }
            Step::Retry(again) => {
                self.retry(slot, again);
                return;
            }
            Step::Leave => {
                self.leave(slot);
                return;
            }
            Step::Discard => self.drop_attempt(slot),
        }
        self.cancel_losers(slot);
        self.settle(slot);
    }

    /// Makes another attempt after a pause, if the upstream's budget permits it.
    fn retry(&mut self, slot: u32, again: Again) {
        self.end_attempt(slot);
        let Some(running) = self.exchanges.get_mut(slot as usize) else {
            return;
        };
        let exchange = &mut running.exchange;
        let upstream = exchange.upstream();
        let left = upstream.filter(|upstream| exchange.has_untried(*upstream));
        // A connection that was stale is made anew at once, one that was not made is made elsewhere; where nobody is left to
        // ask, the answer is given at once.
        let (Again::Failed, Some(upstream)) = (again, left) else {
            self.attempt(slot);
            return;
        };
        let failure = exchange.failure;
        if self.take_from_budget(slot, upstream) {
            self.pause(slot);
        } else {
            self.refuse(slot, failure.unwrap_or(Reason::Internal));
        }
    }

    /// The attempt had an answer that another one is made after, if there is a backend for it and the budget permits it; else
    /// the client gets that answer.
    fn replace(&mut self, slot: u32) {
        let Some(running) = self.exchanges.get(slot as usize) else {
            return;
        };
        if running.exchange.has_others() {
            self.discard_answer(slot);
            self.leave(slot);
            return;
        }
        let place = running.exchange.attempt.place;
        let upstream = running.exchange.upstream();
        if let Some(upstream) = upstream
            && self.has_candidate(slot)
            && self.take_from_budget(slot, upstream)
        {
            self.discard_answer(slot);
            self.end_attempt(slot);
            self.pause(slot);
            return;
        }
        self.step(slot, Exchange::release);
        if let Some(place) = place {
            // What came with the head waits to be read.
            self.make_ready(place.origin);
        }
    }

    /// Takes the permit for another attempt; `false`: the budget is spent.
    pub(super) fn take_from_budget(&mut self, slot: u32, upstream: UpstreamId) -> bool {
        let permitted = self.resilience.retry(upstream, self.now);
        let backend = self.exchanges.get(slot as usize).and_then(|running| running.exchange.attempt.backend);
        if let (false, Some(backend)) = (permitted, backend) {
            self.cells.backend(backend.0 as usize).retries_denied.add(1);
        }
        permitted
    }

    /// Waits before the next attempt.
    fn pause(&mut self, slot: u32) {
        let Some(running) = self.exchanges.get_mut(slot as usize) else {
            return;
        };
        let exchange = &mut running.exchange;
        let made = u32::from(exchange.trail.attempts);
        let pause = exchange.retry_policy().map_or(Duration::ZERO, |policy| policy.pause(made, self.ids.word()));
        exchange.retry_at = Some(self.now + pause);
        self.arm_exchange(slot);
    }

    /// Tells what the running attempt has said of its backend: the only place where a verdict goes anywhere. The balancer
    /// and the count of failures hear every one, the circuit breaker the first, which takes the attempt's pass back.
    fn judge(&mut self, slot: u32) {
        let Some(running) = self.exchanges.get_mut(slot as usize) else {
            return;
        };
        let Some((backend, verdict)) = running.exchange.attempt.take_verdict() else {
            return;
        };
        let pass = running.exchange.attempt.take_pass();
        if let Some(plan) = running.exchange.plan {
            let attempt = &running.exchange.attempt;
            match verdict {
                Verdict::Answered { status: ..500, .. } => {
                    self.resilience.observe_latency(plan.way, attempt, false, self.now);
                }
                Verdict::Failed(_) => self.resilience.observe_latency(plan.way, attempt, true, self.now),
                // A backend that cannot serve says so soon, and what follows a head is no time to it.
                Verdict::Answered { .. } | Verdict::BrokeOff(_) => {}
            }
        }
        let generation = &running.exchange.snapshot.generation;
        if let Some(outcome) = verdict.outcome() {
            self.balancers.observe(generation, backend, outcome, self.now);
        }
        let upstream = generation.backend(backend).upstream;
        if generation.upstream(upstream).adaptive.is_some()
            && let Some(took) = verdict.answered_after()
        {
            self.note_answer(upstream, took);
        }
        self.note_health(backend, verdict.speaks_for());
        if let Some((backend, pass)) = pass {
            let change = self.resilience.give_back(backend, pass, Some(verdict.is_good()), self.now);
            self.note_breaker(backend, change);
        }
    }

    /// Counts and says what a circuit breaker has become.
    pub(super) fn note_breaker(&mut self, backend: BackendId, change: Option<Change>) {
        let Some(change) = change else { return };
        let cells = self.cells.backend(backend.0 as usize);
        let generation = &self.snapshot.generation;
        let at = generation.backend(backend);
        let upstream = &generation.upstream(at.upstream).name;
        match change {
            Change::Opened => {
                cells.breaker.count(BreakerChange::Opened);
                cells.breakers_open.set(1);
                tracing::warn!(%upstream, backend = %at.id, "the backend fails time after time: its circuit breaker opens");
            }
            Change::HalfOpened => {
                cells.breaker.count(BreakerChange::HalfOpened);
                tracing::info!(%upstream, backend = %at.id, "the circuit breaker of the backend lets a few requests try");
            }
            Change::Closed => {
                cells.breaker.count(BreakerChange::Closed);
                cells.breakers_open.set(0);
                tracing::info!(%upstream, backend = %at.id, "the backend answers again: its circuit breaker closes");
                self.queue.note_room(at.upstream.0 as usize);
            }
        }
    }

    /// Gives the connection back once both directions are through it, ends the exchange once nothing is left, and
    /// keeps its timer right until then.
    fn settle(&mut self, slot: u32) {
        let unsent = self.last_words(slot);
        let answered = |exchange: &Exchange| exchange.response != ResponseState::Waiting;
        if self.exchanges.get(slot as usize).is_some_and(|running| answered(&running.exchange)) {
            self.stop_waiting(slot, false);
        }
        let Some(running) = self.exchanges.get_mut(slot as usize) else {
            return;
        };
        if running.exchange.is_tunnel() && !std::mem::replace(&mut running.tunnel, true) {
            self.cells.tunnel_opened(self.clients.kind(running.downkey));
        }
        let origin = match running.exchange.is_done_upstream() && !unsent {
            true => running.exchange.attempt.place.take(),
            false => None,
        };
        let pending = self.clients.pending(running.downkey, running.stream);
        let over = running.exchange.is_over(pending) && !unsent;
        if let Some(origin) = origin {
            self.give_back(origin);
        }
        if over {
            self.finish(slot);
        } else {
            self.arm_exchange(slot);
        }
    }

    /// Whether a tunnel is over but for bytes that its origin's socket has not taken: closing it would drop them.
    fn last_words(&self, slot: u32) -> bool {
        let Some(running) = self.exchanges.get(slot as usize) else {
            return false;
        };
        let over = running.exchange.is_tunnel() && running.exchange.is_done_upstream();
        let key = running.exchange.attempt.place.filter(|_| over);
        key.and_then(|key| self.origins.get(key.origin))
            .is_some_and(|origin| origin.is_tunnel() && self.io.queued(origin.stream) > 0)
    }

    /// The answer of the running attempt is dropped. Its connection serves others if all of it is there.
    fn discard_answer(&mut self, slot: u32) {
        let Some(running) = self.exchanges.get_mut(slot as usize) else {
            return;
        };
        let ended = running.exchange.drop_held();
        let Some(key) = running.exchange.attempt.place else {
            return;
        };
        if ended || self.drain_answer(key) {
            self.exchanges[slot as usize].exchange.attempt.place = None;
            self.give_back(key);
        }
    }

    /// Closes the connection of the running attempt, if there is one.
    fn drop_attempt(&mut self, slot: u32) {
        if let Some(running) = self.exchanges.get_mut(slot as usize)
            && let Some(key) = running.exchange.attempt.place.take()
        {
            self.abandon(key, slot);
        }
    }

    /// The running attempt is over, and gives back all it holds.
    pub(super) fn end_attempt(&mut self, slot: u32) {
        self.judge(slot);
        if let Some(running) = self.exchanges.get_mut(slot as usize) {
            let holdings = running.exchange.attempt.surrender();
            self.take_back(slot, holdings);
        }
    }

    /// Takes back what an attempt held: its connection, its backend's permit, and its pass, without a word if it has said
    /// nothing of its backend.
    fn take_back(&mut self, slot: u32, holdings: Holdings) {
        if let Some(key) = holdings.place {
            self.abandon(key, slot);
        }
        if let Some(permit) = holdings.permit {
            let upstream = self.snapshot.generation.backend(permit.backend()).upstream;
            self.inflight.leave(permit);
            self.queue.note_room(upstream.0 as usize);
        }
        if let Some((backend, pass)) = holdings.pass {
            let change = self.resilience.give_back(backend, pass, None, self.now);
            self.note_breaker(backend, change);
        }
    }

    /// The attempt that is spoken of is over, and another one goes on.
    pub(super) fn leave(&mut self, slot: u32) {
        self.end_attempt(slot);
        if let Some(running) = self.exchanges.get_mut(slot as usize) {
            running.exchange.turn_to_another();
            self.arm_exchange(slot);
        }
    }

    /// Once the client has its head, or will have none, attempts beside the one that is spoken of are cancelled on the wire. That
    /// says nothing of their backends.
    fn cancel_losers(&mut self, slot: u32) {
        while let Some(running) = self.exchanges.get_mut(slot as usize)
            && running.exchange.has_others()
            && running.exchange.response != ResponseState::Waiting
        {
            self.cancel_loser(slot);
        }
    }

    fn cancel_loser(&mut self, slot: u32) {
        let Some(running) = self.exchanges.get_mut(slot as usize) else {
            return;
        };
        let Some(mut loser) = running.exchange.take_loser() else {
            return;
        };
        if let Some(plan) = running.exchange.plan {
            self.resilience.observe_latency(plan.way, &loser, true, self.now);
        }
        if let Some(backend) = loser.backend {
            if running.exchange.has_answer() {
                let generation = &running.exchange.snapshot.generation;
                self.balancers.observe(generation, backend, Outcome::Overtaken(loser.age(self.now)), self.now);
            }
            self.cells.backend(backend.0 as usize).attempts_cancelled.add(1);
        }
        let holdings = loser.surrender();
        self.take_back(slot, holdings);
    }

    /// The exchange is over: it gives back all it holds and becomes a line of the log.
    pub(super) fn finish(&mut self, slot: u32) {
        self.end_attempt(slot);
        while self.exchanges.get(slot as usize).is_some_and(|running| running.exchange.has_others()) {
            self.cancel_loser(slot);
        }
        self.stop_waiting(slot, false);
        let Some(mut running) = self.exchanges.try_remove(slot as usize) else {
            return;
        };
        if let Some((_, timer)) = running.exchange.armed.take() {
            self.wheel.cancel(timer);
        }
        let held = running.exchange.permits.has_upstream();
        self.inflight.release(std::mem::take(&mut running.exchange.permits));
        if let Some(upstream) = running.exchange.upstream() {
            self.queue.note_room(upstream.0 as usize);
            self.note_active(upstream);
            if held {
                self.cells.upstream(upstream.0 as usize).over.add(1);
            }
        }
        self.clients.set_owner(running.downkey, running.stream, NO_OWNER, self.now);
        if running.tunnel {
            self.cells.tunnels_active.leave();
        }
        if let Downkey::Tcp(_) = running.downkey {
            // Its next request may have come already, or it is to be closed.
            self.touch(running.downkey);
        }
        self.record(&running.exchange, running.downkey);
    }
}
