//! Owns a connection with a client: its requests, its drain and its end.
//!
//! Each turn with bytes: [`ServerConnection::receive`], then [`ServerConnection::next_event`] until `None`; whenever commands
//! were given, [`ServerConnection::transmit`]. Of a connection that [`ServerConnection::is_closed`] the socket is closed when
//! what it wrote has left.

use super::code;
use super::glitches::Glitch;
use super::heads;
use super::machine::{Machine, Role};
use super::pipe::{Payload, Transport};
use super::settings::Settings;
use super::streams::{Opening, Sending, Stream};
use super::{CloseCause, Closer, id};
use crate::http::{Event, Fields, Method, NO_OWNER, Output, PoolShare, RequestHead, ResponseHead, StreamRef};
use crate::limits::h2 as limits;
use ::h2::server;
use http::Request;
use spooky_uring::Chunk;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// An event and the stream it is about.
type Told = (StreamRef, Event<Box<RequestHead>>);

enum Library {
    /// The client's preface is awaited.
    Handshake(Box<server::Handshake<Transport, Payload>>),
    Open(Box<server::Connection<Transport, Payload>>),
    Closed,
}

/// One connection with a client.
pub struct ServerConnection {
    machine: Machine,
    library: Library,
    /// Heads that were taken: at most as many as streams, and those refused in one read.
    taken: VecDeque<Told>,
    goaway: bool,
    cause: Option<CloseCause>,
}

impl ServerConnection {
    /// A connection that was just made. Our settings are the first thing that [`Self::transmit`] gives.
    pub fn new(settings: Settings, pool: PoolShare, now: Instant) -> Self {
        let machine = Machine::new(settings, Role::Server, pool, now);
        let handshake = settings.server().handshake(Transport(Rc::clone(&machine.pipe)));
        Self {
            machine,
            library: Library::Handshake(Box::new(handshake)),
            taken: VecDeque::new(),
            goaway: false,
            cause: None,
        }
    }

    /// Takes bytes that arrived. What they mean is told by [`Self::next_event`].
    pub fn receive(&mut self, bytes: Chunk, now: Instant) {
        if self.cause.is_some() {
            return;
        }
        if let Some(flood) = self.machine.receive(bytes, now) {
            self.machine.flood = Some(flood);
            self.close(code::ENHANCE_YOUR_CALM);
        }
    }

    /// The client finished its direction (FIN): HTTP/2 has no half-closed connections, so it is over.
    pub fn receive_end(&mut self) {
        self.machine.pipe.end(true);
        self.machine.fresh = true;
    }

    /// The transport failed.
    pub fn receive_reset(&mut self) {
        self.machine.pipe.end(false);
        self.machine.fresh = true;
    }

    /// Whether the socket should be read: false while more waits than may because nothing can be written, and when the
    /// connection is over. Bytes that still arrive are taken nevertheless.
    pub fn wants_read(&self) -> bool {
        self.cause.is_none() && !self.machine.pipe.has_ended() && self.machine.pipe.unread() < limits::HELD_BYTES
    }

    /// What happened next. Call until `None` after bytes came and after [`Self::grant`]; after [`Self::transmit`] there may
    /// be [`Event::Room`], which also tells that the last byte of a finished response left the queue of an owned stream.
    pub fn next_event(&mut self) -> Option<Told> {
        if self.machine.fresh {
            self.poll();
        }
        if let Some(told) = self.taken.pop_front() {
            return Some(told);
        }
        self.machine.next_ready(|_, _| None)
    }

    /// Whether [`Self::next_event`] may have something.
    pub fn has_events(&self) -> bool {
        self.machine.fresh || !self.taken.is_empty() || !self.machine.ready.is_empty()
    }

    /// Remembers whom events of this stream are for.
    pub fn set_owner(&mut self, stream: u64, owner: u32) {
        self.machine.set_owner(stream, owner);
    }

    /// The final head. `end`: no body and no trailers follow.
    pub fn send_head(&mut self, stream: u64, head: &ResponseHead, end: bool) {
        if head.is_informational() {
            self.send_informational(stream, head);
            return;
        }
        let id = id(stream);
        let Some(stream) = self.machine.streams.get_mut(&id) else {
            return;
        };
        if stream.sending != Sending::Idle {
            return;
        }
        stream.bodiless |= matches!(head.status, 204 | 304);
        let end = end || stream.bodiless;
        stream.send_left = if stream.bodiless { Some(0) } else { head.content_length };
        if end && stream.send_left.is_some_and(|left| left > 0) {
            // It must not look complete.
            self.machine.reset(id, code::INTERNAL_ERROR);
            return;
        }
        let Opening::Respond(mut respond) = std::mem::replace(&mut stream.opening, Opening::Done) else {
            return;
        };
        let sent = match heads::response_out(head) {
            Ok(response) => respond.send_response(response, end).ok(),
            Err(heads::Unsendable) => None,
        };
        match sent {
            Some(out) => {
                stream.out = Some(out);
                stream.sending = if end { Sending::Ending } else { Sending::Open };
                self.machine.dirty = true;
            }
            None => {
                stream.opening = Opening::Respond(respond);
                self.machine.reset(id, code::INTERNAL_ERROR);
            }
        }
    }

    /// A 1xx head; the final one follows.
    pub fn send_informational(&mut self, stream: u64, head: &ResponseHead) {
        let Some(stream) = self.machine.streams.get_mut(&id(stream)) else {
            return;
        };
        // They are only hints: a client that reads none must not make us hold many.
        if stream.sending != Sending::Idle || stream.informational == limits::INFORMATIONAL_MAX {
            return;
        }
        stream.informational += 1;
        if let (Opening::Respond(respond), Ok(response)) = (&mut stream.opening, heads::response_out(head)) {
            // An error says that the stream is over, which its reset tells.
            let _ = respond.send_informational(response);
            self.machine.dirty = true;
        }
    }

    /// Body bytes; all of them are taken. Give no more than [`Self::room`] says, or one piece if that is less.
    pub fn send_body(&mut self, stream: u64, chunk: Chunk) {
        self.machine.send_body(id(stream), chunk);
    }

    /// The trailers; they end the response.
    pub fn send_trailers(&mut self, stream: u64, fields: &Fields) {
        self.machine.send_trailers(id(stream), fields);
    }

    /// The response is complete.
    pub fn end(&mut self, stream: u64) {
        self.machine.end(id(stream));
    }

    /// Gives both directions up: what waits is dropped, the client is told the code.
    pub fn reset(&mut self, stream: u64, code: u64) {
        self.machine.reset(id(stream), code);
    }

    /// No more of the request is wanted. The client learns of it when the response is complete, by RST_STREAM(NO_ERROR)
    /// (RFC 9113 §8.1), or by [`Self::reset`]; the code is of use to other protocols.
    pub fn stop(&mut self, stream: u64, _code: u64) {
        self.machine.stop(id(stream));
    }

    /// Allows so many more body bytes as events: the only backpressure there is. Windows open by what was handed out.
    pub fn grant(&mut self, stream: u64, bytes: usize) {
        self.machine.grant(id(stream), bytes);
    }

    /// Body bytes that may be given now. When it was 0, [`Event::Room`] tells of the next time.
    pub fn room(&self, stream: u64) -> usize {
        self.machine.room(id(stream))
    }

    /// Response bytes that wait here because the client takes no more of them now.
    pub fn pending(&self, stream: u64) -> usize {
        self.machine.pending(id(stream))
    }

    /// Moves received bytes that wait out of the worker's receive pool.
    pub fn unpin(&mut self) {
        self.machine.pipe.unpin();
    }

    /// Whether [`Self::transmit`] may have something, given room.
    pub fn has_output(&self) -> bool {
        self.machine.has_output()
    }

    /// Moves everything that wants to leave to `out`, until that holds [`limits::OUTPUT_BYTES`]: call again when it has
    /// less. There may be events afterwards.
    pub fn transmit(&mut self, out: &mut Output) {
        self.machine.begin_transmit(out.len());
        while self.machine.wants_poll() {
            self.poll();
        }
        self.machine.pipe.take(out);
    }

    /// Starts to drain: the client is told to open no more requests; those on their way are still served, and later ones
    /// ignored one round trip later (RFC 9113 §6.8). Ends when [`Self::is_drained`].
    pub fn goaway(&mut self) {
        self.goaway = true;
        if let Library::Open(library) = &mut self.library {
            library.graceful_shutdown();
            self.machine.dirty = true;
        }
    }

    /// Whether a drain has come to its end: no request is open and none will be.
    pub fn is_drained(&self) -> bool {
        self.cause.is_some() || self.goaway && matches!(self.library, Library::Handshake(_))
    }

    /// Closes the connection, with GOAWAY. Every stream is told.
    pub fn close(&mut self, code: u64) {
        if self.cause.is_some() {
            return;
        }
        self.finish(Closer::Us, code);
        match &mut self.library {
            Library::Open(library) => {
                library.abrupt_shutdown(::h2::Reason::from(u32::try_from(code).unwrap_or(u32::MAX)));
                self.machine.dirty = true;
            }
            Library::Handshake(_) => self.close_handshake(code),
            Library::Closed => {}
        }
    }

    /// Whether the connection is over, and has nothing left to write.
    pub fn is_closed(&self) -> bool {
        matches!(self.library, Library::Closed) && !self.machine.pipe.has_output()
    }

    /// Why it ended, as soon as that is known.
    pub fn close_cause(&self) -> Option<CloseCause> {
        self.cause
    }

    /// What the client did too often, if that closed the connection.
    pub fn flood(&self) -> Option<Glitch> {
        self.machine.flood
    }

    /// Streams that somebody may still wait for.
    pub fn streams_open(&self) -> usize {
        self.machine.streams.len()
    }

    /// Asks the library once: it reads what came, and writes what may leave.
    fn poll(&mut self) {
        self.machine.fresh = false;
        self.machine.dirty = false;
        let mut context = Context::from_waker(Waker::noop());
        loop {
            match &mut self.library {
                Library::Handshake(handshake) => match Pin::new(&mut **handshake).poll(&mut context) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(mut library)) => {
                        if self.goaway {
                            library.graceful_shutdown();
                        }
                        self.library = Library::Open(Box::new(library));
                    }
                    Poll::Ready(Err(error)) => {
                        // The library says nothing to who does not speak HTTP/2.
                        self.fail(&error);
                        match error.is_io() {
                            true => self.library = Library::Closed,
                            false => self.close_handshake(code::PROTOCOL_ERROR),
                        }
                        break;
                    }
                },
                Library::Open(library) => match library.poll_accept(&mut context) {
                    Poll::Pending => break,
                    Poll::Ready(Some(Ok((request, respond)))) => self.take(request, respond),
                    Poll::Ready(Some(Err(error))) => {
                        self.library = Library::Closed;
                        self.fail(&error);
                        break;
                    }
                    Poll::Ready(None) => {
                        self.library = Library::Closed;
                        let by = if self.machine.pipe.has_ended() { Closer::Peer } else { Closer::Us };
                        self.finish(by, code::NO_ERROR);
                        break;
                    }
                },
                Library::Closed => break,
            }
        }
        self.machine.settle();
    }

    fn fail(&mut self, error: &::h2::Error) {
        let cause = CloseCause::of(error);
        if cause == (CloseCause { by: Closer::Us, code: code::ENHANCE_YOUR_CALM }) {
            self.machine.flood.get_or_insert(Glitch::Library);
        }
        self.finish(cause.by, cause.code);
    }

    /// The connection is over: every stream is told.
    fn finish(&mut self, by: Closer, code: u64) {
        self.cause.get_or_insert(CloseCause { by, code });
        self.taken.clear();
        self.machine.cut_all(code::CANCEL);
    }

    /// Ends a connection that did not begin.
    fn close_handshake(&mut self, code: u64) {
        self.library = Library::Closed;
        self.machine.pipe.put_goaway(code);
    }

    fn take(&mut self, request: Request<::h2::RecvStream>, mut respond: server::SendResponse<Payload>) {
        let id = respond.stream_id().as_u32();
        self.machine.last_taken = id;
        if let Some(at) = self.machine.unseen_resets.iter().position(|&reset| reset == id) {
            // Given up before anybody saw it.
            self.machine.unseen_resets.swap_remove(at);
            return;
        }
        let told = StreamRef { stream: u64::from(id), owner: NO_OWNER };
        let (parts, body) = request.into_parts();
        let settings = &self.machine.settings;
        let bodiless = parts.method == http::Method::HEAD;
        let end = body.is_end_stream();
        let event = match heads::request_in(&parts, settings.scheme, &settings.head) {
            Ok(head) => {
                debug_assert_eq!(bodiless, head.method == Method::Head);
                let stream = Stream::new(Opening::Respond(respond), Some(body).filter(|_| !end), bodiless);
                self.machine.streams.insert(id, stream);
                if !end {
                    // What came with the head passed before the stream was known.
                    self.machine.expect_body(id);
                }
                Event::Head { head: Box::new(head), end }
            }
            Err(refusal) if refusal.malformed => {
                respond.send_reset(::h2::Reason::PROTOCOL_ERROR);
                self.machine.dirty = true;
                Event::Refused(refusal)
            }
            Err(refusal) => {
                if refusal.status == 431 {
                    self.machine.pipe.glitches.borrow_mut().large_head();
                }
                // It is answered; of the request nothing more is wanted.
                let mut stream = Stream::new(Opening::Respond(respond), None, bodiless);
                stream.cut_short = !end;
                self.machine.streams.insert(id, stream);
                Event::Refused(refusal)
            }
        };
        self.taken.push_back((told, event));
    }
}
