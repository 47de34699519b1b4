//! The origins' side of a turn: attempts, and what arrives for them on connections that carry one exchange at a time.
//!
//! How a connection comes to be and ends is [`super::link`]'s, how several exchanges share one [`super::shared`]'s.

use super::Worker;
use super::candidates::Candidates;
use super::origin::{Origin, Speech};
use super::origins::Found;
use super::record::count_attempt_failure;
use super::token::Owner;
use crate::balance::LeftOut;
use crate::config::BackendId;
use crate::exchange::{Attempt, Step, Turn, Upkey};
use crate::http::{Reason, Side};
use crate::limits;
use crate::telemetry::kinds::{ConnectFailure, Protocol, UpstreamClose};
use spooky_uring::Io;
use std::rc::Rc;

impl<I: Io> Worker<I> {
    /// Begins an attempt of an admitted exchange on a backend that may be taken; without one the client hears why. The first
    /// attempt waits while all backends are full, if its route has a queue; a later one does not, since its time runs.
    pub(super) fn attempt(&mut self, slot: u32) {
        match self.pick(slot) {
            Some(Ok(backend)) => self.begin(slot, backend, false),
            Some(Err(reason)) => self.go_without(slot, reason),
            None => {}
        }
    }

    /// Picks a backend for an exchange, or says why none can be taken. `None`: there is nobody to pick for.
    pub(super) fn pick(&mut self, slot: u32) -> Option<Result<BackendId, Reason>> {
        let exchange = &self.exchanges.get(slot as usize)?.exchange;
        let upstream = exchange.upstream()?;
        let generation = &*exchange.snapshot.generation;
        let first = generation.upstream(upstream).backends.start;
        let candidates = Candidates::new(&self.places, &self.health, &self.inflight, &self.resilience, self.now);
        let world = (&self.inflight, &mut self.ids, self.now);
        let picked = self.balancers.pick(generation, upstream, exchange.affinity, world, |index| {
            candidates.skips(exchange, BackendId(first + index as u32))
        });
        let told = candidates.told.get();
        let picked = picked.map(|index| BackendId(first + index as u32));
        // Beside who was picked it tells why that is not somebody else.
        self.exchanges[slot as usize].exchange.trail.skipped = told.map(LeftOut::word);
        Some(picked.ok_or_else(|| told.map_or(Reason::NoBackend, LeftOut::reason)))
    }

    /// Whether an exchange has a backend that another attempt could be made on now.
    pub(super) fn has_candidate(&self, slot: u32) -> bool {
        let Some(exchange) = self.exchanges.get(slot as usize).map(|running| &running.exchange) else {
            return false;
        };
        let Some(upstream) = exchange.upstream() else {
            return false;
        };
        let candidates = Candidates::new(&self.places, &self.health, &self.inflight, &self.resilience, self.now);
        let mut backends = exchange.snapshot.generation.upstream(upstream).backends.clone();
        backends.any(|backend| candidates.left_out(exchange, BackendId(backend)).is_none())
    }

    /// Begins an attempt on a backend: takes its permit and its breaker's pass, and a connection.
    pub(super) fn begin(&mut self, slot: u32, backend: BackendId, hedge: bool) {
        let taken = self.resilience.take(backend, self.now);
        let (pass, change) = taken.map_or((None, None), |(pass, change)| (Some(pass), change));
        let permit = self.inflight.enter(backend);
        let exchange = &mut self.exchanges[slot as usize].exchange;
        exchange.begin_attempt(Attempt::new(backend, permit, pass, hedge, self.now), self.now);
        let attempts = exchange.trail.attempts;
        exchange.hedge_at = match (exchange.plan, exchange.hedges_left()) {
            (None, _) | (_, 0) => None,
            (Some(plan), _) => {
                let policy = exchange.snapshot.generation.way(plan.way).hedging;
                let delay = policy.and_then(|policy| policy.delay.get(self.resilience.latency(plan.way)));
                delay.map(|delay| self.now + delay)
            }
        };
        let upstream = exchange.snapshot.generation.backend(backend).upstream;
        if attempts == 1 {
            self.resilience.request(upstream, self.now);
        }
        self.note_breaker(backend, change);
        let cells = self.cells.backend(backend.0 as usize);
        cells.attempts.add(1);
        match hedge {
            true => cells.hedges.add(1),
            false if attempts > 1 => cells.retries.add(1),
            false => {}
        }
        self.acquire(slot, backend);
    }

    /// A request has been without an answer for so long that another attempt begins beside those that run, if there is a
    /// backend for it that nobody waits for, and the retry budget permits it.
    pub(super) fn hedge(&mut self, slot: u32) {
        let Some(running) = self.exchanges.get_mut(slot as usize) else {
            return;
        };
        running.exchange.hedge_at = None;
        let upstream = running.exchange.upstream();
        let may = running.exchange.may_hedge();
        if let (true, Some(upstream)) = (may, upstream)
            && self.queue.waiting(upstream.0 as usize) == 0
            && let Some(Ok(backend)) = self.pick(slot)
            && self.take_from_budget(slot, upstream)
        {
            self.exchanges[slot as usize].exchange.stand_beside(self.now);
            self.begin(slot, backend, true);
        } else {
            self.arm_exchange(slot);
        }
    }

    /// Finds a connection for the running attempt, or makes one.
    pub(super) fn acquire(&mut self, slot: u32, backend: BackendId) {
        let client = self.announced(slot, backend);
        let exchange = &mut self.exchanges[slot as usize].exchange;
        if !exchange.turn_to(backend) {
            return;
        }
        let cells = self.cells.backend(backend.0 as usize);
        let origin_slot = match self.origins.find(backend, client, exchange.needs_fresh) {
            Some(Found::Idle(origin_slot)) => {
                cells.reuses.add(1);
                cells.connections_idle.leave();
                if let Some(origin) = self.origins.get_mut(origin_slot) {
                    origin.exchange = Some(slot);
                }
                exchange.attempt.place = Some(Upkey { origin: origin_slot, stream: 0 });
                self.start(slot, origin_slot);
                return;
            }
            Some(Found::Shared(origin_slot)) => {
                cells.reuses.add(1);
                // At once, so that it does not age out while the exchange waits for its settings.
                if self.origins.rouse(origin_slot) {
                    cells.connections_idle.leave();
                }
                exchange.attempt.place = Some(Upkey { origin: origin_slot, stream: 0 });
                self.start(slot, origin_slot);
                return;
            }
            Some(Found::Making(origin_slot)) => {
                if let Some(origin) = self.origins.get_mut(origin_slot) {
                    origin.waiting.push_back(slot);
                }
                origin_slot
            }
            None => {
                let token = Owner::Origin(self.origins.next_slot()).token();
                let begun = match self.begin_dial(backend, token) {
                    Ok(begun) => begun,
                    Err(reason) => {
                        match self.exchanges[slot as usize].exchange.has_others() {
                            true => self.leave(slot),
                            false => self.refuse(slot, reason),
                        }
                        return;
                    }
                };
                let origin = Origin::new(begun.stream, backend, slot, self.now);
                let origin_slot =
                    self.origins.insert(Origin { address: begun.address, dial: begun.dial, client, ..origin });
                self.cells.backend(backend.0 as usize).connections_active.enter();
                self.arm_dial(origin_slot);
                origin_slot
            }
        };
        self.exchanges[slot as usize].exchange.attempt.place = Some(Upkey { origin: origin_slot, stream: 0 });
        self.arm_exchange(slot);
    }

    /// A connection is there for a waiting exchange: the request goes out.
    pub(super) fn start(&mut self, slot: u32, origin_slot: u32) {
        let Some(backend) = self.origins.get(origin_slot).map(|origin| origin.backend) else {
            return;
        };
        let Some(running) = self.exchanges.get_mut(slot as usize) else {
            return;
        };
        if !running.exchange.turn_to(backend) {
            return;
        }
        if running.exchange.asks_tunnel() && !self.may_ask_tunnel(origin_slot, slot) {
            return;
        }
        let running = &mut self.exchanges[slot as usize];
        let key = running.downkey;
        let Some(origin) = self.origins.get(origin_slot) else {
            return;
        };
        let (backend, reused) = (origin.backend, origin.reused);
        let protocol = match origin.speech {
            Speech::H2(_) => Protocol::H2,
            Speech::H1(_) | Speech::Unsettled => Protocol::H1,
        };
        let upkey = Upkey { origin: origin_slot, stream: 0 };
        let (Some(mut upstream), Some(mut downstream)) =
            (self.origins.end(upkey, &mut self.output), self.clients.end(key, running.stream))
        else {
            return;
        };
        let snapshot = Rc::clone(&running.exchange.snapshot);
        let backend = snapshot.generation.backend(backend);
        running.exchange.send(&mut upstream, &mut downstream, backend, reused, protocol, self.now);
        if protocol == Protocol::H2 {
            let stream = upstream.stream();
            running.exchange.attempt.place = Some(Upkey { origin: origin_slot, stream });
            if stream == 0 {
                // A head that HTTP/2 has no words for.
                running.exchange.attempt.place = None;
                self.step(slot, |exchange, downstream, turn| exchange.fail_client(Reason::Internal, downstream, turn));
                return;
            }
            self.own_stream(origin_slot, stream, slot);
        }
        if running_is_open(&self.exchanges, slot) {
            // Bytes of its body may have come with the head.
            self.touch(key);
        }
        self.flush_origin(origin_slot);
        self.arm_exchange(slot);
    }

    /// The socket took bytes; the client may send more.
    pub(super) fn origin_took(&mut self, slot: u32, queued: usize) {
        let Some(origin) = self.origins.get_mut(slot) else {
            return;
        };
        match origin.speech {
            Speech::Unsettled => {}
            // What waits in it may go on; who waits for that hears of it then.
            Speech::H2(_) => self.mark_unsent(slot),
            Speech::H1(_) => {
                // A tunnel may wait for nothing but this.
                let tunnel = origin.is_tunnel();
                if let Some(exchange) = origin.exchange
                    && (tunnel || running_is_open(&self.exchanges, exchange))
                {
                    self.step(exchange, |exchange, downstream, turn| {
                        exchange.allow_request(downstream, queued, turn.now);
                        Step::Continue
                    });
                }
            }
        }
    }

    /// Runs a connection to an origin: takes what arrived to its exchanges, within a budget.
    pub(super) fn run_origin(&mut self, slot: u32) {
        let Some(origin) = self.origins.get_mut(slot) else {
            return;
        };
        origin.ready = false;
        match origin.speech {
            Speech::Unsettled => self.run_unsettled(slot),
            Speech::H1(_) => self.run_single(slot),
            Speech::H2(_) => self.run_shared(slot),
        }
    }

    /// Runs a connection of HTTP/1.1.
    fn run_single(&mut self, slot: u32) {
        let now = self.now;
        let Some(Origin { speech: Speech::H1(connection), exchange, backend, .. }) = self.origins.get_mut(slot) else {
            return;
        };
        let Some(exchange_slot) = *exchange else {
            // Nothing may arrive on an idle connection.
            if !matches!(connection.next_event(), Ok(None)) {
                self.close_idle(slot, UpstreamClose::Unsolicited);
            }
            return;
        };
        let backend = *backend;
        let Some(running) = self.exchanges.get_mut(exchange_slot as usize) else {
            return;
        };
        if !running.exchange.turn_to(backend) {
            return;
        }
        let key = running.downkey;
        let Some(mut downstream) = self.clients.end(key, running.stream) else {
            return;
        };
        let exchange = &mut running.exchange;
        let mut turn = Turn { now, date: &self.date, spare: None };
        let mut step = Step::Continue;
        let mut left = limits::EVENTS_PER_OWNER;
        let mut moved = false;
        while step == Step::Continue && left > 0 {
            left -= 1;
            match connection.next_event() {
                Ok(Some(event)) => {
                    moved = true;
                    step = exchange.on_response(event, &mut downstream, &mut turn);
                    if let Some(head) = turn.spare.take() {
                        connection.recycle(head);
                    }
                }
                Ok(None) => {
                    // What was passed on may have made room again, for bytes that are held here.
                    let mut upstream = crate::exchange::Upstream::H1 { connection, out: &mut self.output };
                    if !exchange.allow_response(&mut upstream, &downstream, now) {
                        break;
                    }
                }
                Err(fault) => {
                    let Some(reason) = fault.reason() else {
                        // Bytes behind the end of a response: it was delivered, only its connection is spoilt.
                        step = Step::Discard;
                        break;
                    };
                    if reason.side() == Side::Upstream {
                        count_attempt_failure(&self.cells, backend.0 as usize, reason);
                    }
                    step = exchange.fail(reason, &mut downstream, &mut turn);
                }
            }
        }
        if moved && let Some(origin) = self.origins.get_mut(slot) {
            origin.stuck = false;
        }
        if step == Step::Continue {
            if left == 0 {
                self.make_ready(slot);
            }
            self.pace_origin(slot);
        }
        self.touch(key);
        self.apply(exchange_slot, step);
    }

    /// Counts what a deadline says of the backend.
    pub(super) fn count_late(&self, slot: u32, reason: Reason) {
        let Some(backend) = self.exchanges.get(slot as usize).and_then(|running| running.exchange.attempt.backend)
        else {
            return;
        };
        match reason {
            Reason::ConnectTimeout => {
                self.cells.backend(backend.0 as usize).connect_failures.count(ConnectFailure::Timeout);
            }
            _ if reason.side() == Side::Upstream => count_attempt_failure(&self.cells, backend.0 as usize, reason),
            _ => {}
        }
    }
}

/// Whether the client of an exchange may still send.
pub(super) fn running_is_open(exchanges: &slab::Slab<super::Running>, slot: u32) -> bool {
    exchanges.get(slot as usize).is_some_and(|running| running.exchange.request_is_open())
}
