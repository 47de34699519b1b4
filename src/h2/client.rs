//! Owns a connection with a backend: many exchanges at once, how many it takes, and which may be sent again elsewhere.
//!
//! A request that was refused, or that a GOAWAY says was not looked at, is told as [`Event::Reset`] with
//! [`code::REFUSED_STREAM`]: any of them may safely be sent again, whatever the method (RFC 9113 §8.7).

use super::code;
use super::glitches::Glitch;
use super::heads;
use super::machine::{Machine, Role};
use super::pipe::{Payload, Transport};
use super::settings::Settings;
use super::streams::{Opening, Receiving, Sending, Stream};
use super::{CloseCause, Closer, id};
use crate::http::{Event, Fields, Output, PoolShare, Reason, Refusal, RequestHead, ResponseHead, StreamRef};
use crate::limits::h2 as limits;
use ::h2::client::{self, SendRequest};
use ::h2::{Ping, PingPong};
use spooky_uring::Chunk;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// Why no exchange was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOpened {
    /// The connection takes no more now: ask [`ClientConnection::can_open`] first.
    Full,
    /// The head cannot be said in HTTP/2, or asks for a protocol that the backend does not offer.
    Unsendable,
}

struct Library {
    connection: client::Connection<Transport, Payload>,
    requests: SendRequest<Payload>,
    ping: Option<PingPong>,
}

/// One connection with a backend.
pub struct ClientConnection {
    machine: Machine,
    /// `None`: closed.
    library: Option<Box<Library>>,
    settled: bool,
    cause: Option<CloseCause>,
}

impl ClientConnection {
    /// A connection that was just made. The preface is the first thing that [`Self::transmit`] gives.
    pub fn new(settings: Settings, pool: PoolShare, now: Instant) -> Self {
        let machine = Machine::new(settings, Role::Client, pool, now);
        let handshake = pin!(settings.client().handshake(Transport(Rc::clone(&machine.pipe))));
        // It only writes the preface, and everything is taken that is written.
        let library = match handshake.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok((requests, connection))) => Some(Box::new(Library { connection, requests, ping: None })),
            Poll::Ready(Err(_)) | Poll::Pending => None,
        };
        let cause = library.is_none().then_some(CloseCause { by: Closer::Us, code: code::INTERNAL_ERROR });
        Self { machine, library, settled: false, cause }
    }

    /// Whether another exchange can be opened now. Before the backend's settings came it takes
    /// [`limits::CLIENT_STREAMS_UNSAID`].
    pub fn can_open(&self) -> bool {
        let most = self.most_streams();
        !self.is_draining() && self.machine.streams.len() < most
    }

    /// Exchanges that the backend, and we, allow at once.
    pub fn most_streams(&self) -> usize {
        let theirs = self.library.as_ref().map_or(0, |library| library.requests.current_max_send_streams());
        theirs.min(self.machine.settings.streams as usize)
    }

    /// Whether the backend's settings came and were read: what [`Self::most_streams`] says is its own word then.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether the backend offers extended CONNECT (RFC 8441). Known when [`Self::is_settled`].
    pub fn takes_extended_connect(&self) -> bool {
        self.library.as_ref().is_some_and(|library| library.requests.is_extended_connect_protocol_enabled())
    }

    /// Opens an exchange. `authority` is what the host policy made of the request's own; `end`: no body follows.
    ///
    /// # Errors
    /// Why none was opened; the connection is as it was.
    pub fn open(&mut self, head: &RequestHead, authority: &str, end: bool) -> Result<u64, NotOpened> {
        if !self.can_open() {
            return Err(NotOpened::Full);
        }
        let scheme = self.machine.settings.scheme;
        let request = heads::request_out(head, authority, scheme).map_err(|heads::Unsendable| NotOpened::Unsendable)?;
        if head.protocol.is_some() && !self.takes_extended_connect() {
            return Err(NotOpened::Unsendable);
        }
        if end && head.content_length.is_some_and(|length| length > 0) {
            return Err(NotOpened::Unsendable);
        }
        let Some(library) = &mut self.library else {
            return Err(NotOpened::Full);
        };
        let mut context = Context::from_waker(Waker::noop());
        if !matches!(library.requests.poll_ready(&mut context), Poll::Ready(Ok(()))) {
            return Err(NotOpened::Full);
        }
        let Ok((response, out)) = library.requests.send_request(request, end) else {
            return Err(NotOpened::Unsendable);
        };
        let id = response.stream_id().as_u32();
        let mut stream = Stream::new(Opening::Response(response), None, false);
        stream.receiving = Receiving::Open;
        stream.tunnel = head.protocol.is_some();
        stream.sending = if end { Sending::Ending } else { Sending::Open };
        stream.send_left = if end { Some(0) } else { head.content_length };
        stream.out = Some(out);
        self.machine.streams.insert(id, stream);
        self.machine.dirty = true;
        Ok(u64::from(id))
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
        if let Some(last) = self.machine.goaway_came {
            self.machine.refuse_above(last);
        }
    }

    /// The backend finished its direction (FIN): HTTP/2 has no half-closed connections, so it is over.
    pub fn receive_end(&mut self) {
        self.machine.pipe.end(true);
        self.machine.fresh = true;
    }

    /// The transport failed.
    pub fn receive_reset(&mut self) {
        self.machine.pipe.end(false);
        self.machine.fresh = true;
    }

    /// Whether the socket should be read; see [`super::ServerConnection::wants_read`].
    pub fn wants_read(&self) -> bool {
        self.cause.is_none() && !self.machine.pipe.has_ended() && self.machine.pipe.unread() < limits::HELD_BYTES
    }

    /// What happened next. Call until `None` after bytes came and after [`Self::grant`]; after [`Self::transmit`] there may
    /// be [`Event::Room`].
    pub fn next_event(&mut self) -> Option<(StreamRef, Event<ResponseHead>)> {
        if self.machine.fresh {
            self.poll();
        }
        self.machine.next_ready(read_head)
    }

    /// Whether [`Self::next_event`] may have something.
    pub fn has_events(&self) -> bool {
        self.machine.fresh || !self.machine.ready.is_empty()
    }

    /// Remembers whom events of this stream are for.
    pub fn set_owner(&mut self, stream: u64, owner: u32) {
        self.machine.set_owner(stream, owner);
    }

    /// Body bytes; all of them are taken. Give no more than [`Self::room`] says, or one piece if that is less.
    pub fn send_body(&mut self, stream: u64, chunk: Chunk) {
        self.machine.send_body(id(stream), chunk);
    }

    /// The trailers; they end the request.
    pub fn send_trailers(&mut self, stream: u64, fields: &Fields) {
        self.machine.send_trailers(id(stream), fields);
    }

    /// The request is complete.
    pub fn end(&mut self, stream: u64) {
        self.machine.end(id(stream));
    }

    /// Gives the exchange up: what waits is dropped, the backend is told the code ([`code::CANCEL`]).
    pub fn reset(&mut self, stream: u64, code: u64) {
        self.machine.reset(id(stream), code);
    }

    /// Allows so many more body bytes as events: the only backpressure there is. Windows open by what was handed out.
    pub fn grant(&mut self, stream: u64, bytes: usize) {
        self.machine.grant(id(stream), bytes);
    }

    /// Body bytes that may be given now. When it was 0, [`Event::Room`] tells of the next time.
    pub fn room(&self, stream: u64) -> usize {
        self.machine.room(id(stream))
    }

    /// Request bytes that wait here because the backend takes no more of them now.
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

    /// Asks the backend for a sign of life. One at a time: `false` while another is unanswered.
    pub fn ping(&mut self) -> bool {
        let Some(library) = &mut self.library else {
            return false;
        };
        if library.ping.is_none() {
            library.ping = library.connection.ping_pong();
        }
        let sent = library.ping.as_mut().is_some_and(|ping| ping.send_ping(Ping::opaque()).is_ok());
        self.machine.dirty |= sent;
        sent
    }

    /// Whether the answer came; told once.
    pub fn take_pong(&mut self) -> bool {
        let ping = self.library.as_mut().and_then(|library| library.ping.as_mut());
        let mut context = Context::from_waker(Waker::noop());
        ping.is_some_and(|ping| matches!(ping.poll_pong(&mut context), Poll::Ready(Ok(_))))
    }

    /// Whether no further exchange will ever be taken: the backend said GOAWAY, or the connection is over. Close it when
    /// [`Self::streams_open`] is 0.
    pub fn is_draining(&self) -> bool {
        self.cause.is_some() || self.machine.goaway_came.is_some() || self.machine.pipe.has_ended()
    }

    /// Closes the connection, with GOAWAY. Every stream is told.
    pub fn close(&mut self, code: u64) {
        if self.cause.is_none() {
            self.cause = Some(CloseCause { by: Closer::Us, code });
            self.machine.cut_all(code::CANCEL);
            self.library = None;
            self.machine.pipe.put_goaway(code);
        }
    }

    /// Whether the connection is over, and has nothing left to write.
    pub fn is_closed(&self) -> bool {
        self.library.is_none() && !self.machine.pipe.has_output()
    }

    /// Why it ended, as soon as that is known.
    pub fn close_cause(&self) -> Option<CloseCause> {
        self.cause
    }

    /// What the backend did too often, if that closed the connection.
    pub fn flood(&self) -> Option<Glitch> {
        self.machine.flood
    }

    /// Exchanges that are open.
    pub fn streams_open(&self) -> usize {
        self.machine.streams.len()
    }

    /// Asks the library once: it reads what came, and writes what may leave.
    fn poll(&mut self) {
        self.machine.fresh = false;
        self.machine.dirty = false;
        let mut context = Context::from_waker(Waker::noop());
        let polled = match &mut self.library {
            Some(library) => Pin::new(&mut library.connection).poll(&mut context),
            None => Poll::Pending,
        };
        self.machine.settle();
        // Bytes that passed are not read yet while the library waits to write.
        self.settled |= self.machine.settings_came && !self.machine.recheck;
        match polled {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => self.finish(CloseCause { by: Closer::Peer, code: code::NO_ERROR }),
            Poll::Ready(Err(error)) => {
                let cause = CloseCause::of(&error);
                if cause == (CloseCause { by: Closer::Us, code: code::ENHANCE_YOUR_CALM }) {
                    self.machine.flood.get_or_insert(Glitch::Library);
                }
                self.finish(cause);
            }
        }
    }

    /// The connection is over: what came whole is still delivered, every other stream is told.
    fn finish(&mut self, cause: CloseCause) {
        self.cause.get_or_insert(cause);
        self.machine.end_all();
        self.library = None;
    }
}

/// The next head of a response: while one is awaited, nothing else of it can be read.
fn read_head(machine: &mut Machine, id: u32) -> Option<Event<ResponseHead>> {
    let limits = machine.settings.head;
    let stream = machine.streams.get_mut(&id)?;
    let tunnel = stream.tunnel;
    let Opening::Response(response) = &mut stream.opening else {
        return None;
    };
    if !stream.readable || stream.receiving == Receiving::Closed {
        return None;
    }
    let mut context = Context::from_waker(Waker::noop());
    let broken = match response.poll_informational(&mut context) {
        Poll::Ready(Some(Ok(response))) => {
            stream.informational += 1;
            let enough = stream.informational > limits::INFORMATIONAL_MAX;
            return Some(match heads::response_in(&response.into_parts().0, tunnel, &limits) {
                Ok(_) if enough => refuse(machine, id, Reason::UpstreamMalformed),
                Ok(head) => Event::Informational(head),
                Err(fault) => refuse(machine, id, fault.reason),
            });
        }
        Poll::Ready(None) => match Pin::new(response).poll(&mut context) {
            Poll::Ready(Ok(response)) => {
                let (parts, body) = response.into_parts();
                let head = match heads::response_in(&parts, tunnel, &limits) {
                    Ok(head) => head,
                    Err(fault) => return Some(refuse(machine, id, fault.reason)),
                };
                stream.opening = Opening::Done;
                let end = body.is_end_stream();
                if end {
                    stream.close_receiving();
                } else {
                    stream.body = Some(body);
                }
                return Some(Event::Head { head, end });
            }
            Poll::Ready(Err(error)) => error,
            Poll::Pending => {
                stream.readable = false;
                return None;
            }
        },
        Poll::Ready(Some(Err(error))) => error,
        Poll::Pending => {
            stream.readable = false;
            return None;
        }
    };
    machine.broken(id, &broken);
    None
}

/// A response that did not pass the gate: the stream is over, the connection lives.
fn refuse(machine: &mut Machine, id: u32, reason: Reason) -> Event<ResponseHead> {
    machine.give_up(id, code::PROTOCOL_ERROR);
    if let Some(stream) = machine.streams.get_mut(&id) {
        stream.close_receiving();
        stream.close_sending();
    }
    Event::Refused(Refusal::new(reason))
}
