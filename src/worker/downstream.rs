//! The clients' side of a turn: what arrives on their connections becomes exchanges.

use super::clients::tcp::Told;
use super::upstream::running_is_open;
use super::{Downkey, Running, Worker};
use crate::admit::Noted;
use crate::config::{ClientCertHeader, Generation};
use crate::exchange::admission::{self, Admission};
use crate::exchange::inflight::{Full, Permits};
use crate::exchange::plan::{Asker, Refused, plan};
use crate::exchange::stamp::Sender;
use crate::exchange::{Abort, Exchange, Plan, Trail, Turn, affinity, stamp};
use crate::http::forward::Onward;
use crate::http::peer::Peer;
use crate::http::{Event, NO_OWNER, Reason, Refusal, RequestHead, StreamRef};
use crate::limits;
use spooky_uring::Io;
use std::net::SocketAddr;
use std::rc::Rc;

/// What was found of a request that has a route.
#[derive(Default)]
struct Judged {
    permits: Permits,
    found: Admission,
    /// The limit that has no room for it. Not refused: it may wait.
    full: Option<Full>,
    /// Why it is refused; `None`: it is not.
    refused: Option<Reason>,
}

impl<I: Io> Worker<I> {
    /// Runs a client's connection: takes what arrived to its exchanges, within a budget.
    pub(super) fn run_client(&mut self, key: Downkey) {
        for _ in 0..limits::EVENTS_PER_OWNER {
            match self.clients.next_told(key, self.now) {
                Some(Told::Event(stream, event)) => self.stream_event(key, stream, event),
                Some(Told::Gone(slot, reason)) => self.step(slot, |exchange, downstream, _| {
                    exchange.blame(reason);
                    exchange.give_up(Abort::Cancelled, downstream)
                }),
                None => return,
            }
        }
        if let Some(client) = self.clients.client(key) {
            client.unfinished = true;
        }
    }

    fn stream_event(&mut self, key: Downkey, at: StreamRef, event: Event<Box<RequestHead>>) {
        if at.owner != NO_OWNER {
            self.exchange_event(at.owner, event);
            return;
        }
        match event {
            Event::Head { head, end } => self.open(key, at.stream, head, end),
            Event::Refused(refusal) => self.open_refused(key, at.stream, refusal),
            // What is left of a stream whose exchange is over.
            _ => {}
        }
    }

    /// The client behind a connection, by its validated path.
    fn peer(&mut self, key: Downkey) -> Option<(SocketAddr, Peer, bool)> {
        let address = self.clients.address(key)?;
        let client = self.clients.client(key)?;
        match client.peer {
            Some(known) if known.0 == address => Some(known),
            _ => {
                let trusted = self.snapshot.generation.trusts(address.ip());
                client.peer = Some((address, Peer::new(Some(address.ip())), trusted));
                client.peer
            }
        }
    }

    /// A request's head is there.
    fn open(&mut self, key: Downkey, stream: u64, mut head: Box<RequestHead>, end: bool) {
        let Some((address, peer, trusted)) = self.peer(key) else {
            return;
        };
        let id = self.ids.next_id();
        let snapshot = Rc::clone(&self.snapshot);
        let generation = &*snapshot.generation;
        let (mut judged, mut onward) = (Judged::default(), Onward::Forward);
        if let Some(port) = self.clients.redirects(key, generation) {
            let trail = Trail::new(self.now, id, address, self.clients.kind(key), self.clients.handshake(key));
            let slot = self.add(key, stream, Exchange::new(head, end, None, snapshot, trail, self.now));
            self.step(slot, |exchange, downstream, turn| exchange.redirect_to_https(port, downstream, turn));
            return;
        }
        let served = self.clients.serves(key, head.host());
        let decided = match served {
            // A tunnel whose one direction has ended before it is open is none.
            true if end && head.protocol.is_some() => Err(Reason::WebSocket.into()),
            true => plan(&snapshot, &mut head, &Asker { id: &id, peer: address.ip(), trusted }),
            false => Err(Reason::Misdirected.into()),
        };
        let mut kept = None;
        let (planned, refused) = match decided {
            Ok(plan) => {
                judged = self.admit(generation, plan, &head, (&peer, trusted));
                match (judged.refused, plan.upstream) {
                    (Some(reason), _) => (Some(plan), Some(Refused::from(reason))),
                    // The route itself answers, which takes no room.
                    (None, None) => (Some(plan), None),
                    (None, Some(upstream)) => {
                        let asker = affinity::Asker { peer: &peer, connection: self.balancers.connection_name(key) };
                        let balancing = &generation.upstream(upstream).balancing;
                        kept = affinity::affinity(generation, balancing, &head, asker, &self.balancers.hash);
                        let asked = generation.upstream(upstream).client_cert_header != ClientCertHeader::Off;
                        let certificate = if asked { self.clients.certificate(key) } else { None };
                        let sender = Sender { peer: &peer, trusted, certificate: certificate.as_deref() };
                        onward = stamp::stamp(&mut head, &snapshot, plan, upstream, sender, &id, &mut self.ids);
                        (Some(plan), None)
                    }
                }
            }
            Err(refused) => (None, Some(refused)),
        };
        let mut trail = Trail::new(self.now, id, address, self.clients.kind(key), self.clients.handshake(key));
        (trail.exceeded, trail.left) = (judged.found.exceeded, judged.found.left);
        trail.refused_by = judged.full.filter(|_| judged.refused.is_some());
        let mut exchange = Exchange::new(head, end, planned, Rc::clone(&snapshot), trail, self.now);
        exchange.affinity = kept;
        exchange.permits = judged.permits;
        exchange.client = judged.found.client;
        let slot = self.add(key, stream, exchange);
        match (refused, onward) {
            (Some(refused), _) => {
                self.step(slot, |exchange, downstream, turn| exchange.refuse(refused, downstream, turn));
            }
            (None, Onward::AnswerHere) => {
                self.step(slot, |exchange, downstream, turn| exchange.answer_options(downstream, turn));
            }
            (None, Onward::Forward) => match planned.and_then(|plan| plan.upstream) {
                None => self.step(slot, |exchange, downstream, turn| exchange.answer_route(downstream, turn)),
                Some(_) => match judged.full {
                    None => self.attempt(slot),
                    Some(full) => self.wait_or_refuse(slot, full),
                },
            },
        }
    }

    /// Whether a request with a route may go on: its client may come, comes within its rates, and there is room.
    fn admit(&mut self, generation: &Generation, plan: Plan, head: &RequestHead, client: (&Peer, bool)) -> Judged {
        // Before anything is counted: a client that is refused for this has used nothing of its rate.
        if let Some(reason) = plan.upstream.and_then(|_| self.sheds(generation, plan)) {
            return Judged { refused: Some(reason), ..Judged::default() };
        }
        let cells = &self.cells;
        let found = admission::admit(generation, &self.rates, plan, head, client, self.now, |limit, what| {
            let cells = cells.rate_limit(usize::from(limit.0));
            match what {
                Noted::Refused => cells.refused.add(1),
                Noted::WouldRefuse => cells.would_refuse.add(1),
                Noted::Evicted => cells.evicted.add(1),
            }
        });
        let judged = Judged { found, refused: found.refused, ..Judged::default() };
        let (None, Some(upstream)) = (found.refused, plan.upstream) else {
            return judged;
        };
        let refuse = |full: Full| Some(full.reason);
        let mut permits = match self.inflight.admit(generation, found.client) {
            Ok(permits) => permits,
            Err(full) => return Judged { full: Some(full), refused: refuse(full), ..judged },
        };
        let waits = generation.way(plan.way).queue.is_some();
        let entered = match waits && self.queue.waiting(upstream.0 as usize) > 0 {
            // Others were here before. It waits, or is refused by the queue: no other limit is asked.
            true => Err(Full { reason: Reason::QueueFull, limit: 0 }),
            false => self.inflight.enter_upstream(&mut permits, generation, upstream),
        };
        match entered {
            Ok(()) => {
                self.note_active(upstream);
                Judged { permits, ..judged }
            }
            Err(full) => {
                self.cells.upstream(upstream.0 as usize).turned_away.add(1);
                if waits {
                    return Judged { permits, full: Some(full), ..judged };
                }
                self.inflight.release(permits);
                Judged { full: Some(full), refused: refuse(full), ..judged }
            }
        }
    }

    /// A head that the gate did not let through. A malformed message is a stream error, which the protocol has sent
    /// already; it still leaves a line in the log.
    fn open_refused(&mut self, key: Downkey, stream: u64, refusal: Refusal) {
        let Some((address, ..)) = self.peer(key) else {
            return;
        };
        let trail =
            Trail::new(self.now, self.ids.next_id(), address, self.clients.kind(key), self.clients.handshake(key));
        let exchange = Exchange::new(Box::default(), false, None, Rc::clone(&self.snapshot), trail, self.now);
        let slot = self.add(key, stream, exchange);
        self.exchange_event(slot, Event::Refused(refusal));
    }

    fn add(&mut self, key: Downkey, stream: u64, exchange: Exchange) -> u32 {
        self.cells.exchange_started(self.clients.kind(key));
        let slot = self.exchanges.insert(Running { exchange, downkey: key, stream, tunnel: false }) as u32;
        self.clients.set_owner(key, stream, slot, self.now);
        slot
    }

    /// An event of a stream that has an exchange.
    fn exchange_event(&mut self, slot: u32, event: Event<Box<RequestHead>>) {
        let now = self.now;
        let Some(running) = self.exchanges.get_mut(slot as usize) else {
            return;
        };
        let Some(mut downstream) = self.clients.end(running.downkey, running.stream) else {
            return;
        };
        let mut turn = Turn { now, date: &self.date, spare: None };
        let room = matches!(event, Event::Room);
        let key = running.exchange.attempt.place;
        let Some((key, mut upstream)) = key.and_then(|key| Some((key, self.origins.end(key, &mut self.output)?)))
        else {
            let step = running.exchange.on_request(event, None, &mut downstream, &mut turn);
            self.apply(slot, step);
            return;
        };
        let step = running.exchange.on_request(event, Some(&mut upstream), &mut downstream, &mut turn);
        if room && running.exchange.allow_response(&mut upstream, &downstream, now) {
            self.make_ready(key.origin);
        }
        self.send_on(key);
        if running_is_open(&self.exchanges, slot) {
            let unsent = self.unsent_on(key);
            if let Some(running) = self.exchanges.get_mut(slot as usize)
                && let Some(mut downstream) = self.clients.end(running.downkey, running.stream)
            {
                running.exchange.allow_request(&mut downstream, unsent, now);
            }
        }
        self.apply(slot, step);
    }

    /// Answers an exchange by ourselves.
    pub(super) fn refuse(&mut self, slot: u32, reason: Reason) {
        self.step(slot, |exchange, downstream, turn| exchange.refuse(reason.into(), downstream, turn));
    }
}
