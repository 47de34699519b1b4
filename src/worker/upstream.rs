//! The origins' side of a turn: attempts, connections, and what arrives on them.

use super::Worker;
use super::origins::Origin;
use super::record::{connect_failure, count_attempt_failure};
use super::token::Owner;
use crate::config::BackendId;
use crate::exchange::{Step, Turn, Upstream};
use crate::h1;
use crate::http::{HeadLimits, Reason, Side};
use crate::limits;
use crate::telemetry::kinds::{ConnectFailure, UpstreamClose};
use spooky_uring::{End, Io, StreamId};
use std::cell::Cell;
use std::rc::Rc;

impl<I: Io> Worker<I> {
    /// Picks an endpoint for an admitted exchange and begins an attempt on it.
    pub(super) fn attempt(&mut self, slot: u32) {
        let Some(running) = self.exchanges.get_mut(slot as usize) else {
            return;
        };
        let exchange = &mut running.exchange;
        let Some(plan) = exchange.plan else {
            return;
        };
        let snapshot = Rc::clone(&exchange.snapshot);
        let generation = &*snapshot.generation;
        let first = generation.upstream(plan.upstream).backends.start;
        let full = Cell::new(false);
        let missing = Cell::new(None);
        let picked = self.balancers[plan.upstream.0 as usize].pick(|index| {
            let backend = BackendId(first + index as u32);
            let room = self.inflight.backend_has_room(generation, backend);
            full.set(full.get() || !room);
            let nowhere = self.places.missing(backend);
            missing.set(missing.get().or(nowhere));
            exchange.was_tried(backend) || !room || nowhere.is_some()
        });
        let Some(index) = picked else {
            let reason = match exchange.failure {
                Some(failure) => failure,
                None if full.get() => Reason::LimitBackend,
                None => missing.get().unwrap_or(Reason::NoBackend),
            };
            self.refuse(slot, reason);
            return;
        };
        let backend = BackendId(first + index as u32);
        exchange.begin_attempt(backend, &mut self.inflight, self.now);
        let cells = self.cells.backend(backend.0 as usize);
        cells.attempts.add(1);
        if exchange.trail.attempts > 1 {
            cells.retries.add(1);
        }
        if !exchange.needs_fresh
            && let Some(origin_slot) = self.origins.checkout(backend)
        {
            cells.reuses.add(1);
            cells.connections_idle.leave();
            if let Some(origin) = self.origins.get_mut(origin_slot) {
                origin.exchange = Some(slot);
            }
            self.exchanges[slot as usize].exchange.upstream = Some(origin_slot);
            self.start(slot, origin_slot);
            return;
        }
        let token = Owner::Origin(self.origins.next_slot()).token();
        let begun = match self.begin_dial(backend, token) {
            Ok(begun) => begun,
            Err(reason) => {
                self.refuse(slot, reason);
                return;
            }
        };
        let bytes = generation.route(plan.route).limits.max_response_header_bytes as usize;
        let limits = h1::Limits { head: HeadLimits { bytes, ..HeadLimits::RESPONSE }, ..h1::Limits::CLIENT };
        let origin = self.origins.insert(Origin {
            stream: begun.stream,
            address: begun.address,
            dial: begun.dial,
            protocol: h1::ClientConnection::new(limits),
            backend,
            exchange: Some(slot),
            connected: false,
            reused: false,
            paused: false,
            ready: false,
            stuck: false,
            began: self.now,
        });
        self.cells.backend(backend.0 as usize).connections_active.enter();
        self.exchanges[slot as usize].exchange.upstream = Some(origin);
        self.arm_dial(origin);
        self.arm_exchange(slot);
    }

    /// A connection is there for a waiting exchange: the request goes out.
    fn start(&mut self, slot: u32, origin_slot: u32) {
        let Some(running) = self.exchanges.get_mut(slot as usize) else {
            return;
        };
        let key = running.downkey;
        let (Some(origin), Some(mut downstream)) =
            (self.origins.get_mut(origin_slot), self.clients.end(key, running.stream))
        else {
            return;
        };
        let snapshot = Rc::clone(&running.exchange.snapshot);
        let mut upstream = Upstream::H1 { connection: &mut origin.protocol, out: &mut self.output };
        let backend = snapshot.generation.backend(origin.backend);
        running.exchange.send(&mut upstream, &mut downstream, backend, origin.reused, self.now);
        while let Some(chunk) = self.output.pop() {
            self.io.send(origin.stream, chunk);
        }
        if running.exchange.request_is_open() {
            // Bytes of its body may have come with the head.
            self.touch(key);
        }
        self.arm_exchange(slot);
    }

    /// The outcome of a connect.
    pub(super) fn origin_connected(&mut self, slot: u32, stream: StreamId, result: Result<(), i32>) {
        let now = self.now;
        let Some(result) = self.dial_connected(slot, stream, result) else {
            return;
        };
        let Some(origin) = self.origins.get_mut(slot) else {
            return;
        };
        let cells = self.cells.backend(origin.backend.0 as usize);
        let exchange = origin.exchange;
        match result {
            Ok(()) => {
                origin.connected = true;
                cells.connect_duration.record(now.saturating_duration_since(origin.began));
                self.io.resume(origin.stream);
                match exchange {
                    Some(exchange) => self.start(exchange, slot),
                    None => self.give_back(slot),
                }
            }
            Err(errno) => {
                // The socket is closed already.
                let (reason, kind) = connect_failure(errno);
                cells.connect_failures.count(kind);
                cells.connections_active.leave();
                self.origins.remove(slot);
                if let Some(exchange) = exchange {
                    self.exchanges[exchange as usize].exchange.upstream = None;
                    self.step(exchange, |exchange, downstream, turn| exchange.fail(reason, downstream, turn));
                }
            }
        }
    }

    /// The socket took bytes; the client may send more.
    pub(super) fn origin_took(&mut self, slot: u32, queued: usize) {
        let Some(exchange) = self.origins.get_mut(slot).and_then(|origin| origin.exchange) else {
            return;
        };
        if self.exchanges[exchange as usize].exchange.request_is_open() {
            self.step(exchange, |exchange, downstream, turn| {
                exchange.allow_request(downstream, queued, turn.now);
                Step::Continue
            });
        }
    }

    /// The origin closed its direction, or the socket failed.
    pub(super) fn origin_ended(&mut self, slot: u32, end: End) {
        let Some(origin) = self.origins.get_mut(slot) else {
            return;
        };
        if origin.exchange.is_none() {
            self.close_idle(slot, UpstreamClose::Idle);
            return;
        }
        match end {
            End::Fin => origin.protocol.receive_end(),
            End::Error(_) => origin.protocol.receive_reset(),
        }
        self.make_ready(slot);
    }

    /// The origin takes no more of the request. What it has answered already, or still answers, is delivered: the
    /// other direction tells (RFC 9112 §9.5).
    pub(super) fn origin_send_failed(&mut self, slot: u32) {
        if let Some(origin) = self.origins.get_mut(slot)
            && origin.exchange.is_none()
        {
            self.close_idle(slot, UpstreamClose::Idle);
        }
    }

    /// Runs a connection to an origin: takes what arrived to its exchange, within a budget.
    pub(super) fn run_origin(&mut self, slot: u32) {
        let now = self.now;
        let Some(origin) = self.origins.get_mut(slot) else {
            return;
        };
        origin.ready = false;
        let Some(exchange_slot) = origin.exchange else {
            // Nothing may arrive on an idle connection.
            if !matches!(origin.protocol.next_event(), Ok(None)) {
                self.close_idle(slot, UpstreamClose::Unsolicited);
            }
            return;
        };
        let Some(running) = self.exchanges.get_mut(exchange_slot as usize) else {
            return;
        };
        let key = running.downkey;
        let Some(mut downstream) = self.clients.end(key, running.stream) else {
            return;
        };
        let exchange = &mut running.exchange;
        let mut turn = Turn { now, date: &self.date, spare: None };
        let mut step = Step::Continue;
        let mut left = limits::EVENTS_PER_OWNER;
        while step == Step::Continue && left > 0 {
            left -= 1;
            match origin.protocol.next_event() {
                Ok(Some(event)) => {
                    origin.stuck = false;
                    step = exchange.on_response(event, &mut downstream, &mut turn);
                    if let Some(head) = turn.spare.take() {
                        origin.protocol.recycle(head);
                    }
                }
                Ok(None) => {
                    // What was passed on may have made room again, for bytes that are held here.
                    let mut upstream = Upstream::H1 { connection: &mut origin.protocol, out: &mut self.output };
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
                        count_attempt_failure(&self.cells, origin.backend.0 as usize, reason);
                    }
                    step = exchange.fail(reason, &mut downstream, &mut turn);
                }
            }
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

    /// Stops or goes on receiving, as the protocol's held input demands.
    fn pace_origin(&mut self, slot: u32) {
        let Some(origin) = self.origins.get_mut(slot) else {
            return;
        };
        let wants = origin.protocol.wants_read();
        if wants == origin.paused {
            origin.paused = !wants;
            if wants { self.io.resume(origin.stream) } else { self.io.pause(origin.stream) }
        }
    }

    /// The connection has carried its exchange whole: it goes to the pool, if it may be used again.
    pub(super) fn give_back(&mut self, slot: u32) {
        let Some(origin) = self.origins.get_mut(slot) else {
            return;
        };
        origin.exchange = None;
        if !origin.protocol.is_reusable() || origin.paused {
            self.close_busy(slot, UpstreamClose::NotReusable);
            return;
        }
        let cells = self.cells.backend(origin.backend.0 as usize);
        if !self.origins.get(slot).is_some_and(|origin| self.is_current(origin)) {
            self.close_busy(slot, UpstreamClose::EndpointGone);
        } else if self.origins.checkin(slot, self.now) {
            cells.connections_idle.enter();
            self.arm_pool();
        } else {
            self.close_busy(slot, UpstreamClose::PoolFull);
        }
    }

    /// Closes an idle connection now.
    pub(super) fn close_idle(&mut self, slot: u32, why: UpstreamClose) {
        if let Some(origin) = self.origins.get_mut(slot) {
            self.cells.backend(origin.backend.0 as usize).connections_idle.leave();
            self.close_busy(slot, why);
        }
    }

    /// Closes a connection that is not in a pool now.
    pub(super) fn close_busy(&mut self, slot: u32, why: UpstreamClose) {
        let raced = self.end_dial(slot, false);
        if let Some(origin) = self.origins.remove(slot) {
            let cells = self.cells.backend(origin.backend.0 as usize);
            cells.closes.count(why);
            cells.connections_active.leave();
            if !raced {
                self.io.close(origin.stream);
            }
        }
    }

    /// Counts what a deadline says of the backend.
    pub(super) fn count_late(&self, slot: u32, reason: Reason) {
        let Some(backend) = self.exchanges.get(slot as usize).and_then(|running| running.exchange.trail.backend) else {
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
