//! One wheel for everything that waits for a moment.
//!
//! Timers are lazy: an owner whose deadline moves later leaves its entry where it is; when it fires, the deadline is
//! read again and the entry set anew. So the common case, a deadline that moves with each packet, costs nothing.

use super::{Downkey, Listener, Worker};
use crate::exchange::{ResponseState, Step};
use crate::h3;
use spooky_uring::{Io, TimerKey};
use std::time::Instant;

/// Whose moment it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// A client's connection: loss detection, acknowledgements, pacing, idle time.
    Connection(Downkey),
    /// An exchange.
    Exchange(u32),
    /// The oldest idle connection of the pools.
    Pool,
    /// The end of a drain.
    Drain,
}

/// What a worker keeps for each client connection beside the protocol.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ConnectionTimer {
    /// Whether it stands on the touched list.
    pub marked: bool,
    /// Its entry in the wheel.
    pub armed: Option<(Instant, TimerKey)>,
}

impl Listener {
    /// Sets the mark of a connection; `false` if it was set already.
    pub(super) fn mark(&mut self, connection: h3::ConnKey) -> bool {
        let slot = connection.slot();
        if slot >= self.connections.len() {
            self.connections.resize(slot + 1, ConnectionTimer::default());
        }
        !std::mem::replace(&mut self.connections[slot].marked, true)
    }
}

impl<I: Io> Worker<I> {
    /// Runs what is due.
    pub(super) fn run_timers(&mut self) {
        while let Some(timer) = self.wheel.pop_expired(self.now) {
            match timer {
                Timer::Connection(key) => self.connection_due(key),
                Timer::Exchange(slot) => self.exchange_due(slot),
                Timer::Pool => self.pool_due(),
                Timer::Drain => self.drain_due(),
            }
        }
    }

    fn connection_due(&mut self, key: Downkey) {
        let now = self.now;
        let listener = &mut self.listeners[usize::from(key.listener)];
        let Some(connection) = listener.endpoint.get_mut(key.connection) else {
            return;
        };
        listener.connections[key.connection.slot()].armed = None;
        if connection.next_deadline().is_some_and(|deadline| deadline <= now) {
            connection.handle_deadline(now);
            self.touch(key);
        } else {
            self.arm_connection(key);
        }
    }

    /// Makes sure that the wheel fires no later than the connection's deadline.
    pub(super) fn arm_connection(&mut self, key: Downkey) {
        let listener = &mut self.listeners[usize::from(key.listener)];
        let Some(deadline) = listener.endpoint.get_mut(key.connection).and_then(|it| it.next_deadline()) else {
            return;
        };
        let armed = &mut listener.connections[key.connection.slot()].armed;
        match *armed {
            Some((at, _)) if at <= deadline => return,
            Some((_, timer)) => {
                self.wheel.cancel(timer);
            }
            None => {}
        }
        *armed = Some((deadline, self.wheel.insert(deadline, Timer::Connection(key))));
    }

    fn exchange_due(&mut self, slot: u32) {
        let Some(running) = self.exchanges.get_mut(slot as usize) else {
            return;
        };
        running.exchange.armed = None;
        let (deadline, reason) = self.exchange_deadline(slot);
        if deadline > self.now {
            self.arm_exchange(slot);
            return;
        }
        let now = self.now;
        let step = self.with_downstream(slot, |exchange, downstream| match exchange.response {
            ResponseState::Waiting => exchange.fail(reason, downstream, now),
            _ => {
                exchange.blame(reason);
                exchange.give_up(crate::exchange::Abort::Internal, downstream)
            }
        });
        self.apply(slot, step.unwrap_or(Step::Continue));
    }

    fn exchange_deadline(&mut self, slot: u32) -> (Instant, crate::http::Reason) {
        let upstream = self.exchanges[slot as usize].exchange.upstream;
        let unsent = upstream
            .and_then(|origin| self.origins.get_mut(origin))
            .map_or(0, |origin| self.io.queued(origin.stream));
        let running = &self.exchanges[slot as usize];
        let listener = &mut self.listeners[usize::from(running.downkey.listener)];
        let pending = listener
            .endpoint
            .get_mut(running.downkey.connection)
            .map_or(0, |connection| connection.pending(running.stream));
        running.exchange.deadline(pending, unsent)
    }

    /// Makes sure that the wheel fires no later than the exchange's deadline.
    pub(super) fn arm_exchange(&mut self, slot: u32) {
        let (deadline, _) = self.exchange_deadline(slot);
        let armed = &mut self.exchanges[slot as usize].exchange.armed;
        match *armed {
            Some((at, _)) if at <= deadline => return,
            Some((_, timer)) => {
                self.wheel.cancel(timer);
            }
            None => {}
        }
        *armed = Some((deadline, self.wheel.insert(deadline, Timer::Exchange(slot))));
    }

    /// Makes sure that idle connections are closed in time.
    pub(super) fn arm_pool(&mut self) {
        if !self.pool_timer_armed
            && let Some(expiry) = self.origins.next_expiry()
        {
            self.pool_timer_armed = true;
            self.wheel.insert(expiry, Timer::Pool);
        }
    }

    fn pool_due(&mut self) {
        self.pool_timer_armed = false;
        while let Some(slot) = self.origins.expired(self.now) {
            self.close_origin(slot);
        }
        self.arm_pool();
    }
}
