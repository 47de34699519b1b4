//! The clients' side of a turn: what arrives on their connections becomes exchanges.

use super::{Downkey, Running, Worker};
use crate::exchange::plan::{Refused, plan};
use crate::exchange::{Exchange, Trail, Upstream, identity};
use crate::h3::{NO_OWNER, StreamRef};
use crate::http::{Event, Refusal, RequestHead};
use crate::limits;
use spooky_uring::Io;
use std::rc::Rc;

impl<I: Io> Worker<I> {
    /// Runs a client's connection: takes what arrived to its exchanges, within a budget.
    pub(super) fn run_connection(&mut self, key: Downkey) {
        for _ in 0..limits::EVENTS_PER_OWNER {
            let listener = &mut self.listeners[usize::from(key.listener)];
            let Some(connection) = listener.endpoint.get_mut(key.connection) else {
                return;
            };
            let Some((stream, event)) = connection.next_event() else {
                return;
            };
            self.stream_event(key, stream, event);
        }
    }

    fn stream_event(&mut self, key: Downkey, at: StreamRef, event: Event<Box<RequestHead>>) {
        if at.owner != NO_OWNER {
            self.exchange_event(at.owner, event);
            return;
        }
        match event {
            Event::Head { head, end } => self.open(key, at.stream, Ok(head), end),
            // A malformed message is a stream error, which the protocol has sent already; it still leaves a line.
            Event::Refused(refusal) => self.open(key, at.stream, Err(refusal), false),
            // What is left of a stream whose exchange is over.
            _ => {}
        }
    }

    /// A request's head is there.
    fn open(&mut self, key: Downkey, stream: u64, head: Result<Box<RequestHead>, Refusal>, end: bool) {
        let now = self.now;
        let listener = &mut self.listeners[usize::from(key.listener)];
        let Some(connection) = listener.endpoint.get_mut(key.connection) else {
            return;
        };
        let facts = connection.facts();
        let id = self.ids.next();
        let mut trail = Trail::new(now, id, &facts);
        let snapshot = Rc::clone(&self.snapshot);
        let slot = self.exchanges.vacant_key() as u32;
        connection.set_owner(stream, slot);
        match head {
            Err(refusal) => {
                let exchange = Exchange::unread(snapshot, trail, now);
                self.exchanges.insert(Running { exchange, downkey: key, stream });
                self.exchange_event(slot, Event::Refused(refusal));
            }
            Ok(mut head) => {
                trail.note_request(&head);
                let planned = plan(&snapshot.generation, &head);
                let decision = planned.and_then(|plan| {
                    let permits = self.inflight.admit(&snapshot.generation, plan.upstream).map_err(Refused::from)?;
                    Ok((plan, permits))
                });
                match decision {
                    Ok((plan, permits)) => {
                        identity::stamp(&mut head, &snapshot.generation, plan, &facts, &mut self.ids, id);
                        let mut exchange = Exchange::new(head, end, Rc::clone(&snapshot), trail, now);
                        exchange.plan = Some(plan);
                        exchange.hold(permits);
                        self.exchanges.insert(Running { exchange, downkey: key, stream });
                        self.attempt(slot);
                    }
                    Err(refused) => {
                        let exchange = Exchange::new(head, end, Rc::clone(&snapshot), trail, now);
                        self.exchanges.insert(Running { exchange, downkey: key, stream });
                        let step = self
                            .with_downstream(slot, |exchange, downstream| exchange.refuse(refused, downstream, now));
                        if let Some(step) = step {
                            self.apply(slot, step);
                        }
                    }
                }
            }
        }
    }

    /// An event of a stream that has an exchange.
    fn exchange_event(&mut self, slot: u32, event: Event<Box<RequestHead>>) {
        let now = self.now;
        let Some(running) = self.exchanges.get_mut(slot as usize) else {
            return;
        };
        let origin_slot = running.exchange.upstream;
        let is_room = matches!(event, Event::Room);
        let mut out = std::mem::take(&mut self.output);
        let listener = &mut self.listeners[usize::from(running.downkey.listener)];
        let Some(connection) = listener.endpoint.get_mut(running.downkey.connection) else {
            return;
        };
        let mut downstream = crate::exchange::Downstream::H3 { connection, stream: running.stream };
        let origin = origin_slot.and_then(|slot| self.origins.get_mut(slot)).filter(|origin| origin.connected);
        let step = match origin {
            Some(origin) => {
                let stream = origin.stream;
                let mut upstream = Upstream::H1 { connection: &mut origin.protocol, out: &mut out };
                let step = running.exchange.on_request(event, Some(&mut upstream), &mut downstream, now);
                if is_room {
                    running.exchange.allow_response(&mut upstream, &downstream, now);
                }
                for chunk in out.drain() {
                    self.io.send(stream, chunk);
                }
                let unsent = self.io.queued(stream);
                running.exchange.allow_request(&mut downstream, unsent, now);
                step
            }
            None => running.exchange.on_request(event, None, &mut downstream, now),
        };
        self.output = out;
        if is_room && let Some(origin) = origin_slot {
            self.make_ready(origin);
        }
        self.apply(slot, step);
    }

    /// Answers an exchange by ourselves.
    pub(super) fn refuse(&mut self, slot: u32, reason: crate::http::Reason) {
        let now = self.now;
        let step = self.with_downstream(slot, |exchange, downstream| exchange.refuse(reason.into(), downstream, now));
        if let Some(step) = step {
            self.apply(slot, step);
        }
    }
}
