//! Connections to origins that carry many exchanges: each event finds its own, each exchange its stream.

use super::Worker;
use super::origin::{Origin, Speech};
use super::record::count_attempt_failure;
use crate::exchange::{Step, Turn, Upkey, Upstream};
use crate::h2::{self, code};
use crate::http::{Event, NO_OWNER, Reason, ResponseHead, StreamRef};
use crate::limits;
use crate::telemetry::kinds::UpstreamClose;
use spooky_uring::Io;

impl<I: Io> Worker<I> {
    fn shared(&mut self, slot: u32) -> Option<&mut h2::ClientConnection> {
        match self.origins.get_mut(slot) {
            Some(Origin { speech: Speech::H2(connection), .. }) => Some(connection),
            _ => None,
        }
    }

    /// An exchange has a stream.
    pub(super) fn own_stream(&mut self, slot: u32, stream: u64, exchange: u32) {
        if self.origins.rouse(slot)
            && let Some(origin) = self.origins.get(slot)
        {
            self.cells.backend(origin.backend.0 as usize).connections_idle.leave();
        }
        if let Some(connection) = self.shared(slot) {
            connection.set_owner(stream, exchange);
        }
        self.mark_unsent(slot);
    }

    /// An exchange has no use for its stream any more.
    pub(super) fn disown_stream(&mut self, key: Upkey) {
        if let Some(connection) = self.shared(key.origin) {
            connection.set_owner(key.stream, NO_OWNER);
        }
    }

    /// Runs a connection: takes what arrived to the exchanges, within a budget.
    pub(super) fn run_shared(&mut self, slot: u32) {
        let mut left = limits::EVENTS_PER_OWNER;
        while left > 0 {
            left -= 1;
            let Some((at, event)) = self.shared(slot).and_then(|connection| connection.next_event()) else {
                break;
            };
            if at.owner != NO_OWNER {
                self.shared_event(slot, at, event);
            }
        }
        self.start_tunnels(slot);
        if let Some(origin) = self.origins.get_mut(slot) {
            origin.stuck = false;
            if left == 0 {
                self.make_ready(slot);
            }
            self.pace_origin(slot);
            // Windows open by what was taken, and questions are answered.
            self.mark_unsent(slot);
        }
    }

    /// An exchange that wants a tunnel needs to know whether the origin takes one (RFC 8441 §3). Whether it goes on now; if
    /// not, it waits for the origin's settings, or goes elsewhere.
    pub(super) fn may_ask_tunnel(&mut self, slot: u32, exchange: u32) -> bool {
        let Some(Origin { speech: Speech::H2(connection), waiting, .. }) = self.origins.get_mut(slot) else {
            return true;
        };
        if !connection.is_settled() {
            waiting.push_back(exchange);
            self.arm_exchange(exchange);
            return false;
        }
        if connection.takes_extended_connect() {
            return true;
        }
        let reason = Reason::UpstreamNoTunnel;
        self.step(exchange, |exchange, downstream, turn| exchange.fail(reason, downstream, turn));
        false
    }

    /// Lets those go on that waited for the origin's settings, once these came or will not come.
    fn start_tunnels(&mut self, slot: u32) {
        let Some(Origin { speech: Speech::H2(connection), waiting, backend, .. }) = self.origins.get_mut(slot) else {
            return;
        };
        let ended = connection.is_draining();
        if waiting.is_empty() || !(connection.is_settled() || ended) {
            return;
        }
        let (waiting, backend) = (std::mem::take(waiting), *backend);
        for exchange in waiting {
            if ended {
                let reason = Reason::UpstreamClosed;
                count_attempt_failure(&self.cells, backend.0 as usize, reason);
                self.step(exchange, |exchange, downstream, turn| exchange.fail(reason, downstream, turn));
            } else if self.shared(slot).is_some_and(|connection| connection.can_open()) {
                self.start(exchange, slot);
            } else {
                // It takes no more now: there is another one, or one is made.
                self.release_place(exchange, backend);
                self.acquire(exchange, backend);
            }
        }
    }

    /// Something for one exchange.
    fn shared_event(&mut self, slot: u32, at: StreamRef, event: Event<ResponseHead>) {
        let now = self.now;
        let key = Upkey { origin: slot, stream: at.stream };
        let Some(running) = self.exchanges.get_mut(at.owner as usize) else {
            return;
        };
        let Some(Origin { speech: Speech::H2(connection), backend, .. }) = self.origins.get_mut(slot) else {
            return;
        };
        if !running.exchange.turn_to(*backend) || running.exchange.attempt.place != Some(key) {
            return;
        }
        let downkey = running.downkey;
        let Some(mut downstream) = self.clients.end(downkey, running.stream) else {
            return;
        };
        let exchange = &mut running.exchange;
        let mut turn = Turn { now, date: &self.date, spare: None };
        let step = match event {
            Event::Room => {
                exchange.allow_request(&mut downstream, connection.pending(at.stream), now);
                Step::Continue
            }
            Event::Reset(code::REFUSED_STREAM) => exchange.reject(&mut downstream, &mut turn),
            Event::Reset(_) => {
                count_attempt_failure(&self.cells, backend.0 as usize, Reason::UpstreamReset);
                exchange.fail(Reason::UpstreamReset, &mut downstream, &mut turn)
            }
            event => exchange.on_response(event, &mut downstream, &mut turn),
        };
        if step == Step::Continue {
            let mut upstream = Upstream::H2 { connection, stream: at.stream };
            exchange.allow_response(&mut upstream, &downstream, now);
        }
        self.touch(downkey);
        self.apply(at.owner, step);
    }

    /// After a connection has sent: it may have news, be unused, or have come to its end.
    pub(super) fn look_after_shared(&mut self, slot: u32) {
        let queued = self.origins.get(slot).map_or(0, |origin| self.io.queued(origin.stream));
        // What could not be read before may be now.
        self.pace_origin(slot);
        let Some(connection) = self.shared(slot) else {
            return;
        };
        if connection.has_events() {
            self.make_ready(slot);
            return;
        }
        if connection.streams_open() > 0 {
            return;
        }
        if self.origins.get(slot).is_some_and(|origin| !origin.waiting.is_empty()) {
            // They are told when it runs, and their deadlines bound the wait.
            return;
        }
        let Some(connection) = self.shared(slot) else {
            return;
        };
        if connection.is_draining() || connection.is_closed() {
            if connection.is_closed() || queued == 0 {
                self.close_ended(slot);
            } else {
                connection.close(code::NO_ERROR);
            }
            return;
        }
        self.rest(slot);
    }

    /// Closes a connection that takes no more exchanges.
    fn close_ended(&mut self, slot: u32) {
        match self.origins.get(slot).is_some_and(|origin| origin.resting) {
            true => self.close_idle(slot, UpstreamClose::Idle),
            false => self.close_busy(slot, UpstreamClose::NotReusable),
        }
    }
}
