//! The life of one connection to an origin: made, settled on a protocol, read and written, unused, closed.

use super::Worker;
use super::origin::{Origin, Speech};
use super::origins::h2_settings;
use super::record::connect_failure;
use crate::config::{BackendId, BackendScheme};
use crate::exchange::{Exchange, Upkey};
use crate::h1;
use crate::h2;
use crate::http::{Event, HeadLimits, Reason};
use crate::limits;
use crate::telemetry::kinds::{ConnectFailure, UpstreamClose};
use crate::tls::{Alpn, ClientSession};
use spooky_uring::{End, Io, StreamId};

impl<I: Io> Worker<I> {
    /// The outcome of a connect.
    pub(super) fn origin_connected(&mut self, slot: u32, stream: StreamId, result: Result<(), i32>) {
        let Some(result) = self.dial_connected(slot, stream, result) else {
            return;
        };
        let Some(origin) = self.origins.get(slot) else {
            return;
        };
        let backend = origin.backend;
        match result {
            Ok(()) => {
                self.io.resume(origin.stream);
                self.announce(slot);
                match self.snapshot.generation.backend(backend).scheme {
                    BackendScheme::Http => self.settle_origin(slot, Alpn::H1),
                    BackendScheme::H2c => self.settle_origin(slot, Alpn::H2),
                    BackendScheme::Https => self.begin_tls(slot),
                }
            }
            Err(errno) => {
                let (reason, kind) = connect_failure(errno);
                // The socket is closed already.
                self.forget_making(slot, reason, kind, false);
            }
        }
    }

    /// Begins the handshake of TLS.
    fn begin_tls(&mut self, slot: u32) {
        let Some(origin) = self.origins.get_mut(slot) else {
            return;
        };
        let backend = self.snapshot.generation.backend(origin.backend);
        let Some(context) = &self.upstream_tls[backend.upstream.0 as usize] else {
            self.forget_making(slot, Reason::Internal, ConnectFailure::Tls, true);
            return;
        };
        let begun = ClientSession::new(context, &backend.server_name)
            .and_then(|mut session| session.start(&mut origin.sealed).map(|()| session));
        match begun {
            Ok(session) => {
                origin.tls = Some(session);
                self.flush_origin(slot);
            }
            Err(fault) => {
                origin.fault = Some(fault);
                self.run_unsettled(slot);
            }
        }
    }

    /// Looks what has become of a handshake.
    pub(super) fn run_unsettled(&mut self, slot: u32) {
        let Some(origin) = self.origins.get_mut(slot) else {
            return;
        };
        if let Some(fault) = origin.fault.take() {
            let backend = origin.backend;
            self.flush_origin(slot);
            self.note_tls_fault(backend, &fault);
            self.forget_making(slot, Reason::UpstreamTls, ConnectFailure::Tls, true);
            return;
        }
        match &origin.tls {
            Some(session) if !session.is_handshaking() => {
                let alpn = session.alpn().unwrap_or(Alpn::H1);
                self.flush_origin(slot);
                self.settle_origin(slot, alpn);
            }
            _ => self.flush_origin(slot),
        }
    }

    /// Says once why a backend's handshakes fail, and again when the cause is another.
    fn note_tls_fault(&mut self, backend: BackendId, fault: &crate::tls::Fault) {
        let known = &mut self.tls_faults[backend.0 as usize];
        if *known == Some(fault.kind) {
            return;
        }
        *known = Some(fault.kind);
        let generation = &self.snapshot.generation;
        let at = generation.backend(backend);
        tracing::warn!(
            upstream = %generation.upstream(at.upstream).name,
            backend = %at.id,
            cause = fault.kind.word(),
            "a TLS handshake with the backend failed: {}",
            fault.text
        );
    }

    /// The connection is made, and speaks this: who waited for it goes on.
    fn settle_origin(&mut self, slot: u32, alpn: Alpn) {
        let now = self.now;
        let Some(origin) = self.origins.get_mut(slot) else {
            return;
        };
        let backend = origin.backend;
        let generation = &self.snapshot.generation;
        let at = generation.backend(backend);
        let head_bytes = self.head_bytes[at.upstream.0 as usize];
        let speech = match alpn {
            Alpn::H1 => {
                let head = HeadLimits { bytes: head_bytes, ..HeadLimits::RESPONSE };
                Speech::H1(Box::new(h1::ClientConnection::new(h1::Limits { head, ..h1::Limits::CLIENT })))
            }
            Alpn::H2 => Speech::H2(Box::new(h2::ClientConnection::new(
                h2_settings(at.scheme, head_bytes),
                self.pool.clone(),
                now,
            ))),
        };
        let cells = self.cells.backend(backend.0 as usize);
        cells.connect_duration.record(now.saturating_duration_since(origin.began));
        let waiting = std::mem::take(&mut origin.waiting);
        self.tls_faults[backend.0 as usize] = None;
        self.origins.settle(slot, speech);
        if let Some(origin) = self.origins.get_mut(slot) {
            origin.take_early(now);
        }
        for exchange in waiting {
            let free = self.origins.get_mut(slot).is_some_and(|origin| match &origin.speech {
                Speech::Unsettled => false,
                Speech::H1(_) if origin.exchange.is_none() => {
                    origin.exchange = Some(exchange);
                    true
                }
                Speech::H1(_) => false,
                Speech::H2(connection) => connection.can_open(),
            });
            if free {
                self.start(exchange, slot);
            } else {
                // It waited for one that takes no more: there is another one for it, or it makes one.
                self.release_place(exchange, backend);
                self.acquire(exchange, backend);
            }
        }
        self.rest(slot);
        self.make_ready(slot);
    }

    /// The attempt of an exchange on a backend, which is spoken of from now on, has no place any more.
    pub(super) fn release_place(&mut self, slot: u32, backend: BackendId) {
        let exchange = &mut self.exchanges[slot as usize].exchange;
        if exchange.turn_to(backend) {
            exchange.attempt.place = None;
        }
    }

    /// A connection could not be made: who waited for it is told.
    fn forget_making(&mut self, slot: u32, reason: Reason, kind: ConnectFailure, open: bool) {
        let Some(origin) = self.origins.remove(slot) else {
            return;
        };
        let cells = self.cells.backend(origin.backend.0 as usize);
        cells.connect_failures.count(kind);
        cells.connections_active.leave();
        if open {
            self.io.close(origin.stream);
        }
        for exchange in origin.waiting {
            self.release_place(exchange, origin.backend);
            self.step(exchange, |exchange, downstream, turn| exchange.fail(reason, downstream, turn));
        }
    }

    /// The origin closed its direction, or the socket failed.
    pub(super) fn origin_ended(&mut self, slot: u32, end: End) {
        let Some(origin) = self.origins.get_mut(slot) else {
            return;
        };
        if origin.resting {
            self.close_idle(slot, UpstreamClose::Idle);
            return;
        }
        match (&origin.speech, end) {
            (Speech::Unsettled, End::Error(errno)) => {
                let (reason, kind) = connect_failure(errno);
                self.forget_making(slot, reason, kind, true);
                return;
            }
            (_, End::Fin) => origin.receive_end(),
            (_, End::Error(_)) => origin.receive_reset(),
        }
        self.make_ready(slot);
    }

    /// The origin takes no more of the request. What it has answered already, or still answers, is delivered: the
    /// other direction tells (RFC 9112 §9.5).
    pub(super) fn origin_send_failed(&mut self, slot: u32) {
        let Some(origin) = self.origins.get(slot) else {
            return;
        };
        if origin.resting {
            self.close_idle(slot, UpstreamClose::Idle);
        } else if origin.is_tunnel()
            && let Some(exchange) = origin.exchange
        {
            self.step(exchange, Exchange::tunnel_send_failed);
        }
    }

    /// Hands what wants to leave to the socket.
    pub(super) fn flush_origin(&mut self, slot: u32) {
        let Some(origin) = self.origins.get_mut(slot) else {
            self.output.clear();
            return;
        };
        if let Speech::H2(connection) = &mut origin.speech
            && self.io.queued(origin.stream) < limits::CLIENT_QUEUE_BYTES
        {
            connection.transmit(&mut self.output);
        }
        let out = match &mut origin.tls {
            None => &mut self.output,
            Some(session) => {
                if let Err(fault) = session.send(&mut self.output, &mut origin.sealed) {
                    self.output.clear();
                    origin.receive_reset();
                    origin.fault = Some(fault);
                    self.make_ready(slot);
                    return;
                }
                &mut origin.sealed
            }
        };
        while let Some(chunk) = out.pop() {
            let chunk = self.pool.keep(chunk, self.io.queued(origin.stream), usize::MAX);
            self.io.send(origin.stream, chunk);
        }
        if let Speech::H1(connection) = &origin.speech
            && connection.ends_sending()
            && !std::mem::replace(&mut origin.said_end, true)
        {
            if let Some(session) = &mut origin.tls {
                session.close_notify(&mut origin.sealed);
                while let Some(chunk) = origin.sealed.pop() {
                    self.io.send(origin.stream, chunk);
                }
            }
            self.io.shutdown(origin.stream);
        }
    }

    /// What an exchange has just given goes out: at once where the connection is its own, with what others give where it is
    /// shared.
    pub(super) fn send_on(&mut self, key: Upkey) {
        match self.origins.get(key.origin).map(|origin| &origin.speech) {
            Some(Speech::H2(_)) => self.mark_unsent(key.origin),
            _ => self.flush_origin(key.origin),
        }
    }

    /// Request bytes of an exchange that have not left.
    pub(super) fn unsent_on(&self, key: Upkey) -> usize {
        match self.origins.get(key.origin) {
            Some(Origin { speech: Speech::H2(connection), .. }) => connection.pending(key.stream),
            Some(origin) => self.io.queued(origin.stream),
            None => 0,
        }
    }

    /// Has a connection send at the end of the turn.
    pub(super) fn mark_unsent(&mut self, slot: u32) {
        if let Some(origin) = self.origins.get_mut(slot)
            && !std::mem::replace(&mut origin.unsent, true)
        {
            self.unsent.push(slot);
        }
    }

    /// Lets every connection send that was marked in this turn.
    pub(super) fn flush_unsent(&mut self) {
        let mut unsent = std::mem::take(&mut self.unsent);
        for slot in unsent.drain(..) {
            if let Some(origin) = self.origins.get_mut(slot) {
                origin.unsent = false;
                self.flush_origin(slot);
                self.look_after_shared(slot);
            }
        }
        self.unsent = unsent;
    }

    /// Stops or goes on receiving, as the protocol's held input demands. What nobody took does not wait in a receive pool
    /// that others need.
    pub(super) fn pace_origin(&mut self, slot: u32) {
        let Some(origin) = self.origins.get_mut(slot) else {
            return;
        };
        if self.pool.is_spent() {
            origin.unpin();
        }
        let wants = origin.wants_read();
        if wants == origin.paused {
            origin.paused = !wants;
            if wants { self.io.resume(origin.stream) } else { self.io.pause(origin.stream) }
        }
    }

    /// Reads what is there of a response that nobody gets. Whether that was all of it: then a connection of HTTP/1.1 is as
    /// good as before. What is not there yet is not waited for. On HTTP/2 a stream costs less than its rest.
    pub(super) fn drain_answer(&mut self, key: Upkey) -> bool {
        let Some(Origin { speech: Speech::H1(connection), .. }) = self.origins.get_mut(key.origin) else {
            return false;
        };
        let mut left = limits::DISCARD_BYTES;
        loop {
            match connection.next_event() {
                Ok(Some(Event::Body(chunk))) if chunk.len() <= left => left -= chunk.len(),
                Ok(Some(Event::End | Event::Trailers(_))) => return true,
                _ => return false,
            }
        }
    }

    /// The exchange is through with its place on a connection.
    pub(super) fn give_back(&mut self, key: Upkey) {
        let Some(origin) = self.origins.get_mut(key.origin) else {
            return;
        };
        match &mut origin.speech {
            Speech::Unsettled => {}
            Speech::H1(connection) => {
                origin.exchange = None;
                if !connection.is_reusable() || origin.paused {
                    self.close_busy(key.origin, UpstreamClose::NotReusable);
                } else {
                    self.rest(key.origin);
                }
            }
            Speech::H2(_) => {
                self.disown_stream(key);
                self.mark_unsent(key.origin);
            }
        }
    }

    /// The exchange gives its place on a connection up: nothing more is sent or received there for it.
    pub(super) fn abandon(&mut self, key: Upkey, exchange: u32) {
        let Some(origin) = self.origins.get_mut(key.origin) else {
            return;
        };
        match &mut origin.speech {
            Speech::Unsettled => {
                origin.waiting.retain(|waiting| *waiting != exchange);
                if origin.waiting.is_empty() {
                    self.close_busy(key.origin, UpstreamClose::NotReusable);
                }
            }
            // FIN would say that the client has come to its end.
            Speech::H1(connection) if connection.is_tunnel() => {
                self.end_busy(key.origin, UpstreamClose::NotReusable, true);
            }
            Speech::H1(_) => self.close_busy(key.origin, UpstreamClose::NotReusable),
            Speech::H2(connection) => {
                origin.waiting.retain(|waiting| *waiting != exchange);
                connection.reset(key.stream, h2::code::CANCEL);
                self.disown_stream(key);
                self.mark_unsent(key.origin);
            }
        }
    }

    /// A connection that nobody uses goes to the pool, if it may be used again.
    pub(super) fn rest(&mut self, slot: u32) {
        let Some(origin) = self.origins.get(slot).filter(|origin| origin.is_unused() && !origin.resting) else {
            return;
        };
        let (backend, for_one) = (origin.backend, origin.client.is_some());
        if !self.is_current(origin) {
            self.close_busy(slot, UpstreamClose::EndpointGone);
        } else if self.origins.checkin(slot, self.now) || for_one && self.checkin_instead(slot, backend) {
            self.cells.backend(backend.0 as usize).connections_idle.enter();
            self.arm_pool();
        } else {
            self.close_busy(slot, UpstreamClose::PoolFull);
        }
    }

    /// Makes room in a full pool. Of connections that are for one client each, the one that was unused for longest is the one
    /// whose client is least likely to come back.
    fn checkin_instead(&mut self, slot: u32, backend: BackendId) -> bool {
        let Some(coldest) = self.origins.coldest(backend) else {
            return false;
        };
        self.close_idle(coldest, UpstreamClose::PoolFull);
        self.origins.checkin(slot, self.now)
    }

    /// Closes an unused connection now.
    pub(super) fn close_idle(&mut self, slot: u32, why: UpstreamClose) {
        if let Some(origin) = self.origins.get(slot) {
            self.cells.backend(origin.backend.0 as usize).connections_idle.leave();
            self.close_busy(slot, why);
        }
    }

    /// Closes a connection that is not in a pool now.
    pub(super) fn close_busy(&mut self, slot: u32, why: UpstreamClose) {
        self.end_busy(slot, why, false);
    }

    fn end_busy(&mut self, slot: u32, why: UpstreamClose, abort: bool) {
        let raced = self.end_dial(slot, false);
        if let Some(origin) = self.origins.remove(slot) {
            let cells = self.cells.backend(origin.backend.0 as usize);
            cells.closes.count(why);
            cells.connections_active.leave();
            match abort {
                _ if raced => {}
                true => self.io.abort(origin.stream),
                false => self.io.close(origin.stream),
            }
        }
    }
}
