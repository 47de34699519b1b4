//! One wheel for everything that waits for a moment.
//!
//! Timers are lazy: an owner whose deadline moves later leaves its entry where it is; when it fires, the deadline is
//! read again and the entry set anew. So the common case, a deadline that moves with each packet, costs nothing.

use super::{Downkey, Worker};
use crate::config::Generation;
use crate::exchange::{Abort, ResponseState};
use crate::http::{Reason, Side};
use crate::limits;
use crate::telemetry::kinds::UpstreamClose;
use spooky_uring::Io;
use std::time::Instant;

/// Whose moment it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// A client's connection: loss detection, acknowledgements, pacing, idle time.
    Client(Downkey),
    /// An exchange.
    Exchange(u32),
    /// The next address of a connection that is being made.
    Dial(u32),
    /// The oldest idle connection of the pools.
    Pool,
    /// Access records that have waited long enough.
    Access,
    /// A look at what pins the receive pool.
    Relief,
    /// The end of a drain.
    Drain,
}

/// Entries that the wheel holds at most: one for each client connection, exchange and connection being made, and the
/// worker's own.
pub(super) fn capacity(generation: &Generation) -> usize {
    let performance = &generation.performance;
    // An exchange that was refused holds an entry too, until the client has its answer.
    let streams = generation.streams_per_connection();
    let clients = performance.share(performance.max_active_connections);
    let inflight = performance.share(performance.global_inflight_limit);
    let dials = u64::from(inflight) * u64::from(generation.attempts_at_once());
    let exchanges = u64::from(clients) * streams.max(1) + dials;
    let clients = clients as usize;
    clients + usize::try_from(exchanges).unwrap_or(usize::MAX - clients - 8) + 8
}

impl<I: Io> Worker<I> {
    /// Runs what is due.
    pub(super) fn run_timers(&mut self) {
        while let Some(timer) = self.wheel.expire(self.now) {
            match timer {
                Timer::Client(key) => self.client_due(key),
                Timer::Exchange(slot) => self.exchange_due(slot),
                Timer::Dial(slot) => self.dial_due(slot),
                Timer::Pool => self.pool_due(),
                Timer::Access => self.access_timer = None,
                Timer::Relief => self.relief_due(),
                Timer::Drain => self.drain_due(),
            }
        }
    }

    fn client_due(&mut self, key: Downkey) {
        if let Some(client) = self.clients.client(key) {
            client.armed = None;
        }
        match self.clients.deadline(key) {
            Some(deadline) if deadline <= self.now => {
                match key {
                    Downkey::Quic { listener, connection } => {
                        if let Some(connection) = self.clients.quic(listener, connection) {
                            connection.handle_deadline(self.now);
                        }
                    }
                    // It looks for itself when it runs.
                    Downkey::Tcp(_) => {}
                }
                self.touch(key);
            }
            _ => self.arm_client(key),
        }
    }

    /// Makes sure that the wheel fires no later than the connection's deadline.
    pub(super) fn arm_client(&mut self, key: Downkey) {
        let (Some(deadline), Some(client)) = (self.clients.deadline(key), self.clients.client(key)) else {
            return;
        };
        match client.armed {
            Some((at, _)) if at <= deadline => {}
            Some((_, timer)) if self.wheel.reschedule(timer, deadline) => client.armed = Some((deadline, timer)),
            _ => {
                // The wheel has room for one entry of every connection and exchange: see `capacity`.
                client.armed = self.wheel.insert(deadline, Timer::Client(key)).ok().map(|timer| (deadline, timer));
            }
        }
    }

    fn exchange_due(&mut self, slot: u32) {
        let Some(running) = self.exchanges.get_mut(slot as usize) else {
            return;
        };
        running.exchange.armed = None;
        if running.exchange.retry_at.is_some_and(|at| at <= self.now) {
            running.exchange.retry_at = None;
            self.attempt(slot);
            return;
        }
        if running.exchange.hedge_at.is_some_and(|at| at <= self.now) {
            self.hedge(slot);
            return;
        }
        if running.exchange.continue_at().is_some_and(|at| at <= self.now) {
            self.step(slot, |exchange, downstream, _| exchange.tell_to_continue(downstream));
            return;
        }
        let (deadline, reason) = self.exchange_deadline(slot);
        if deadline > self.now {
            self.arm_exchange(slot);
            return;
        }
        let reason = self.turn_to_late(slot, reason);
        self.count_late(slot, reason);
        self.step(slot, |exchange, downstream, turn| match exchange.response {
            ResponseState::Waiting if exchange.waiting.is_some() => exchange.refuse(reason.into(), downstream, turn),
            ResponseState::Waiting => exchange.fail(reason, downstream, turn),
            _ => {
                exchange.blame(reason);
                exchange.give_up(Abort::Internal, downstream)
            }
        });
    }

    fn exchange_deadline(&mut self, slot: u32) -> (Instant, Reason) {
        let running = &self.exchanges[slot as usize];
        let unsent = running.exchange.attempt.place.map_or(0, |key| self.unsent_on(key));
        let pending = self.clients.pending(running.downkey, running.stream);
        running.exchange.deadline(pending, unsent)
    }

    /// Has an exchange speak of an attempt that is late, and says over what it is.
    fn turn_to_late(&mut self, slot: u32, reason: Reason) -> Reason {
        let running = &mut self.exchanges[slot as usize];
        if !running.exchange.has_others() || reason.side() != Side::Upstream {
            return reason;
        }
        running.exchange.turn_to_late(0, self.now);
        self.exchange_deadline(slot).1
    }

    /// Makes sure that the wheel fires no later than the exchange's deadline.
    pub(super) fn arm_exchange(&mut self, slot: u32) {
        if !self.exchanges.contains(slot as usize) {
            return;
        }
        let (deadline, _) = self.exchange_deadline(slot);
        let exchange = &mut self.exchanges[slot as usize].exchange;
        let deadline = exchange.wake_at().map_or(deadline, |at| at.min(deadline));
        match exchange.armed {
            Some((at, _)) if at <= deadline => {}
            Some((_, timer)) if self.wheel.reschedule(timer, deadline) => exchange.armed = Some((deadline, timer)),
            _ => {
                exchange.armed = self.wheel.insert(deadline, Timer::Exchange(slot)).ok().map(|timer| (deadline, timer));
            }
        }
    }

    /// Makes sure that idle connections are closed in time.
    pub(super) fn arm_pool(&mut self) {
        if self.pool_timer.is_none()
            && let Some(expiry) = self.origins.next_expiry()
        {
            self.pool_timer = self.wheel.insert(expiry, Timer::Pool).ok();
        }
    }

    fn pool_due(&mut self) {
        self.pool_timer = None;
        while let Some(slot) = self.origins.expired(self.now) {
            self.close_idle(slot, UpstreamClose::Expired);
        }
        self.arm_pool();
    }

    /// Makes sure that a receive pool that is nearly dry is looked through soon.
    pub(super) fn arm_relief(&mut self) {
        if self.relief_timer.is_none() {
            self.relief_timer = self.wheel.insert(self.now + limits::POOL_RELIEF, Timer::Relief).ok();
        }
    }

    /// What stands still is copied out of the pool: a handful of clients that take nothing would else hold every buffer
    /// there is, and nobody could receive. Responses that move keep their buffers, which go back by themselves.
    fn relief_due(&mut self) {
        self.relief_timer = None;
        for origin in self.origins.iter_mut() {
            origin.relieve();
        }
        self.clients.tcp.relieve();
        self.note_pressure();
    }

    /// Makes sure that the last records of a busy time do not wait for the next one.
    pub(super) fn arm_access(&mut self) {
        if self.access_timer.is_none()
            && let Some(due) = self.access.deadline()
        {
            self.access_timer = self.wheel.insert(due, Timer::Access).ok();
        }
    }
}
