//! What follows from a step of an exchange: another attempt, a connection given back or closed, the end.

use super::{Downkey, Worker};
use crate::exchange::{Downstream, Exchange, ResponseState, Step};
use spooky_uring::Io;

impl<I: Io> Worker<I> {
    /// Calls `act` with an exchange and the client's end of it. `None`: the client's connection is gone.
    pub(super) fn with_downstream<T>(
        &mut self,
        slot: u32,
        act: impl FnOnce(&mut Exchange, &mut Downstream<'_>) -> T,
    ) -> Option<T> {
        let running = self.exchanges.get_mut(slot as usize)?;
        let listener = &mut self.listeners[usize::from(running.downkey.listener)];
        let connection = listener.endpoint.get_mut(running.downkey.connection)?;
        let mut downstream = Downstream::H3 { connection, stream: running.stream };
        let result = act(&mut running.exchange, &mut downstream);
        let key = running.downkey;
        self.touch(key);
        Some(result)
    }

    /// Does what a step says, then sees whether the exchange is over.
    pub(super) fn apply(&mut self, slot: u32, step: Step) {
        match step {
            Step::Continue => {}
            Step::Retry => {
                self.drop_attempt(slot);
                self.attempt(slot);
                return;
            }
            Step::Discard => self.drop_attempt(slot),
        }
        self.settle(slot);
    }

    /// Gives the connection back once both directions are through it, ends the exchange once nothing is left, and
    /// keeps its timer right until then.
    pub(super) fn settle(&mut self, slot: u32) {
        let Some(running) = self.exchanges.get_mut(slot as usize) else {
            return;
        };
        if running.exchange.is_done_upstream()
            && let Some(origin) = running.exchange.upstream.take()
        {
            self.give_back(origin);
        }
        let running = &self.exchanges[slot as usize];
        let listener = &mut self.listeners[usize::from(running.downkey.listener)];
        let pending = listener
            .endpoint
            .get_mut(running.downkey.connection)
            .map_or(0, |connection| connection.pending(running.stream));
        if running.exchange.is_over(pending) {
            self.finish(slot);
        } else {
            self.arm_exchange(slot);
        }
    }

    /// Closes the connection of the running attempt, if there is one.
    fn drop_attempt(&mut self, slot: u32) {
        let Some(running) = self.exchanges.get_mut(slot as usize) else {
            return;
        };
        if let Some(origin) = running.exchange.upstream.take() {
            self.close_origin(origin);
        }
    }

    /// The exchange is over: it gives back all it holds and becomes a line of the log.
    pub(super) fn finish(&mut self, slot: u32) {
        self.drop_attempt(slot);
        let Some(mut running) = self.exchanges.try_remove(slot as usize) else {
            return;
        };
        if let Some((_, timer)) = running.exchange.armed.take() {
            self.wheel.cancel(timer);
        }
        running.exchange.release(&mut self.inflight);
        let Downkey { listener, connection } = running.downkey;
        if let Some(connection) = self.listeners[usize::from(listener)].endpoint.get_mut(connection) {
            connection.set_owner(running.stream, crate::h3::NO_OWNER);
        }
        self.record(&mut running.exchange);
    }

    /// The client's connection is gone: every exchange on it ends, whatever it was doing.
    pub(super) fn abandon(&mut self, slot: u32) {
        if let Some(running) = self.exchanges.get_mut(slot as usize) {
            running.exchange.blame(crate::http::Reason::ClientAbort);
            if running.exchange.response != ResponseState::Complete {
                running.exchange.response = ResponseState::Broken;
            }
            self.finish(slot);
        }
    }
}
