//! The origins' side of a turn: attempts, connections, and what arrives on them.

use super::origins::Origin;
use super::token::Owner;
use super::{Downkey, Listener, Running, Worker};
use crate::config::BackendId;
use crate::exchange::{Downstream, Step, Upstream};
use crate::h1;
use crate::http::Reason;
use crate::limits;
use spooky_uring::{End, Io};

/// The two ends of a running exchange, for as long as both are there.
fn downstream_of<'a>(listeners: &'a mut [Listener], running: &Running) -> Option<Downstream<'a>> {
    let Downkey { listener, connection } = running.downkey;
    let connection = listeners[usize::from(listener)].endpoint.get_mut(connection)?;
    Some(Downstream::H3 { connection, stream: running.stream })
}

impl<I: Io> Worker<I> {
    /// Picks an endpoint for an admitted exchange and begins an attempt on it.
    pub(super) fn attempt(&mut self, slot: u32) {
        let now = self.now;
        let Some(running) = self.exchanges.get_mut(slot as usize) else {
            return;
        };
        let exchange = &mut running.exchange;
        let Some(plan) = exchange.plan else {
            return;
        };
        let generation = &exchange.snapshot.generation;
        let first = generation.upstream(plan.upstream).backends.start;
        let inflight = &self.inflight;
        let picked = self.balancers[plan.upstream.0 as usize].pick(|index| {
            let backend = BackendId(first + index as u32);
            exchange.was_tried(backend) || !inflight.backend_has_room(generation, backend)
        });
        let Some(index) = picked else {
            let reason = exchange.last_failure().unwrap_or(Reason::LimitBackend);
            self.refuse(slot, reason);
            return;
        };
        let backend = BackendId(first + index as u32);
        exchange.begin_attempt(backend, &mut self.inflight, now);

        if !exchange.wants_fresh_connection()
            && let Some(origin) = self.origins.checkout(backend)
        {
            exchange.upstream = Some(origin);
            if let Some(origin) = self.origins.get_mut(origin) {
                origin.exchange = Some(slot);
            }
            self.cells.upstream_reused(backend);
            self.start(slot, origin);
            return;
        }
        let token = Owner::Origin(self.origins.next_slot()).token();
        let address = &generation.backend(backend).address;
        let Some(stream) = self.io.connect(address, token) else {
            self.refuse(slot, Reason::PoolFull);
            return;
        };
        let limits = h1::Limits {
            head_bytes: generation.route(plan.route).limits.max_response_header_bytes as usize,
            ..h1::Limits::default()
        };
        let origin = self.origins.insert(Origin {
            stream,
            protocol: h1::ClientConnection::new(limits),
            backend,
            exchange: Some(slot),
            connected: false,
            reused: false,
            paused: false,
            ready: false,
        });
        self.exchanges[slot as usize].exchange.upstream = Some(origin);
        self.cells.upstream_connecting(backend);
        self.arm_exchange(slot);
    }

    /// A connection is there for a waiting exchange: the request goes out.
    fn start(&mut self, slot: u32, origin_slot: u32) {
        let now = self.now;
        let mut out = std::mem::take(&mut self.output);
        let running = &mut self.exchanges[slot as usize];
        if let (Some(origin), Some(mut downstream)) =
            (self.origins.get_mut(origin_slot), downstream_of(&mut self.listeners, running))
        {
            let reused = origin.reused;
            let mut upstream = Upstream::H1 { connection: &mut origin.protocol, out: &mut out };
            running.exchange.send(&mut upstream, &mut downstream, reused, now);
            let stream = origin.stream;
            for chunk in out.drain() {
                self.io.send(stream, chunk);
            }
        }
        self.output = out;
        if self.exchanges[slot as usize].exchange.request_is_open() {
            // Its body may have arrived with the head.
            let key = self.exchanges[slot as usize].downkey;
            self.touch(key);
        }
        self.arm_exchange(slot);
    }

    /// The outcome of a connect.
    pub(super) fn origin_connected(&mut self, slot: u32, result: Result<(), i32>) {
        let Some(origin) = self.origins.get_mut(slot) else {
            return;
        };
        let backend = origin.backend;
        let exchange = origin.exchange;
        match result {
            Ok(()) => {
                origin.connected = true;
                let stream = origin.stream;
                self.io.resume(stream);
                self.cells.upstream_connected(backend);
                match exchange {
                    Some(exchange) => {
                        self.exchanges[exchange as usize].exchange.trail.note_connected(self.now);
                        self.start(exchange, slot);
                    }
                    None => self.give_back(slot),
                }
            }
            Err(error) => {
                // The socket is closed already.
                self.origins.remove(slot);
                self.cells.upstream_connect_failed(backend);
                if let Some(exchange) = exchange {
                    let reason = Reason::of_connect_error(error);
                    self.attempt_failed(exchange, reason);
                }
            }
        }
    }

    /// An attempt is over without an answer; the exchange decides what is still possible.
    fn attempt_failed(&mut self, slot: u32, reason: Reason) {
        let now = self.now;
        if let Some(running) = self.exchanges.get_mut(slot as usize) {
            running.exchange.upstream = None;
        }
        let step = self.with_downstream(slot, |exchange, downstream| exchange.fail(reason, downstream, now));
        if let Some(step) = step {
            self.apply(slot, step);
        }
    }

    /// The socket took bytes; the client may send more.
    pub(super) fn origin_took(&mut self, slot: u32, queued: usize) {
        let now = self.now;
        let Some(exchange) = self.origins.get_mut(slot).and_then(|origin| origin.exchange) else {
            return;
        };
        let Some(running) = self.exchanges.get_mut(exchange as usize) else {
            return;
        };
        if !running.exchange.request_is_open() {
            return;
        }
        self.with_downstream(exchange, |exchange, downstream| exchange.allow_request(downstream, queued, now));
        self.arm_exchange(exchange);
    }

    /// The origin closed its direction, or the socket failed.
    pub(super) fn origin_ended(&mut self, slot: u32, end: End) {
        let Some(origin) = self.origins.get_mut(slot) else {
            return;
        };
        if origin.exchange.is_none() {
            self.close_origin(slot);
            return;
        }
        match end {
            End::Fin => origin.protocol.receive_end(),
            End::Error(_) => origin.protocol.receive_reset(),
        }
        self.make_ready(slot);
    }

    /// The origin takes no more of the request. It may still answer: RFC 9112 §9.5.
    pub(super) fn origin_send_failed(&mut self, slot: u32, _error: i32) {
        let Some(origin) = self.origins.get_mut(slot) else {
            return;
        };
        origin.protocol.send_failed();
        if origin.exchange.is_none() {
            self.close_origin(slot);
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
            if origin.protocol.next_event().map_or(true, |event| event.is_some()) {
                self.cells.upstream_unsolicited();
                self.close_origin(slot);
            }
            return;
        };
        let Some(running) = self.exchanges.get_mut(exchange_slot as usize) else {
            self.close_origin(slot);
            return;
        };
        let key = running.downkey;
        let Some(mut downstream) = downstream_of(&mut self.listeners, running) else {
            return;
        };
        let exchange = &mut running.exchange;
        let date = self.dates.at(self.io.wall_clock());
        let mut out = std::mem::take(&mut self.output);
        let mut step = Step::Continue;
        let mut left = limits::EVENTS_PER_OWNER;
        while step == Step::Continue && left > 0 {
            left -= 1;
            match origin.protocol.next_event() {
                Ok(Some(event)) => step = exchange.on_response(event, &mut downstream, date, now),
                Ok(None) => {
                    // What was sent may have made room again, for bytes that are held here.
                    let mut upstream = Upstream::H1 { connection: &mut origin.protocol, out: &mut out };
                    if !exchange.allow_response(&mut upstream, &downstream, now) {
                        break;
                    }
                }
                Err(fault) => {
                    step = match exchange.fail(fault.reason, &mut downstream, now) {
                        Step::Continue => Step::Discard,
                        step => step,
                    }
                }
            }
        }
        self.output = out;
        if step == Step::Continue && left == 0 {
            self.make_ready(slot);
        }
        self.pace_origin(slot);
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
            let stream = origin.stream;
            if wants { self.io.resume(stream) } else { self.io.pause(stream) }
        }
    }

    /// The connection has carried its exchange whole: it goes to the pool, if it may be used again.
    pub(super) fn give_back(&mut self, slot: u32) {
        let now = self.now;
        let Some(origin) = self.origins.get_mut(slot) else {
            return;
        };
        if origin.protocol.is_reusable() && self.origins.checkin(slot, now) {
            self.arm_pool();
        } else {
            self.close_origin(slot);
        }
    }

    /// Closes a connection to an origin now.
    pub(super) fn close_origin(&mut self, slot: u32) {
        if let Some(origin) = self.origins.remove(slot) {
            self.io.close(origin.stream);
        }
    }
}
