//! The side of a connection that asks: one exchange at a time, any number after one another.
//!
//! ```text
//! sending    Ended ──send_head──▶ Length│Chunked ──end──▶ Ended
//! receiving  Idle ──send_head──▶ Head ──final head──▶ Body ──end──▶ Idle   may ask again
//!                                  │ ▲                   │            Over   may not: close
//!                                  └─┘ 1xx               └─▶ Over
//! ```
//!
//! A tunnel (RFC 6455) is an exchange whose two bodies are everything that is sent and received behind its heads, until FIN in
//! either direction. It opens with a 101 that answers the key, and its connection carries nothing after it.
//!
//! The two directions are independent: a response may end before its request does (it is delivered whole, and the
//! connection is not used again). Nothing is pipelined. Knows no socket, no pool and no clock.

use super::Limits;
use super::fault::{Fault, Next, What};
use super::incoming::{Broken, Incoming, Step};
use super::input::{Input, Unreadable};
use super::lines::{put_field, put_length};
use super::outgoing::{LengthBroken, Outgoing};
use super::parse::{self, Bad};
use crate::http::normalize::{self, ResponseFault};
use crate::http::websocket::Key;
use crate::http::{Event, Fields, Known, Method, Output, Reason, RequestHead, ResponseHead, Target, WireVersion};
use crate::limits;
use spooky_uring::Chunk;

/// How the body of a request is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// Exactly so many bytes follow.
    Length(u64),
    /// Any number of bytes follow, in the chunked coding.
    Chunked,
}

impl Framing {
    /// The framing that says of a request's body what its head says. `end`: the head is all there is.
    pub fn of(head: &RequestHead, end: bool) -> Self {
        match head.content_length {
            _ if end => Self::None,
            Some(length) => Self::Length(length),
            None => Self::Chunked,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiving {
    /// No exchange; every byte is unsolicited.
    Idle,
    /// A head is awaited.
    Head,
    /// The final head was delivered and a body follows.
    Body,
    /// The response is over, and no exchange can follow on this connection.
    Over,
}

/// Why no more bytes will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finished {
    No,
    /// The backend finished its direction (FIN).
    Cleanly,
    /// The transport failed.
    Reset,
}

/// One connection to a backend.
#[derive(Debug)]
pub struct ClientConnection {
    limits: Limits,
    input: Input,
    finished: Finished,
    /// Body bytes that may still be given out.
    credit: usize,
    receiving: Receiving,
    incoming: Incoming,
    sending: Outgoing,
    /// The connection can outlive the exchange, as far as is known.
    keep: bool,
    /// Of the present exchange: HEAD and CONNECT change what a response means.
    method: Method,
    /// The present exchange asks for a tunnel: the right answer to its key.
    accept: Option<[u8; 28]>,
    /// What is received and sent is a tunnel.
    tunnel: bool,
    /// 1xx heads of the present exchange.
    informational: usize,
    /// Bytes of the present request given to the transport.
    written: u64,
    /// A byte of the present response arrived.
    started: bool,
    /// The final head of the present exchange was delivered.
    answered: bool,
    /// Memory of an earlier head.
    spare: ResponseHead,
    /// Once set, nothing else happens.
    fault: Option<Fault>,
}

impl ClientConnection {
    /// A connection that was just made.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            input: Input::default(),
            finished: Finished::No,
            credit: 0,
            receiving: Receiving::Idle,
            incoming: Incoming::Ended,
            sending: Outgoing::Ended,
            keep: true,
            method: Method::Get,
            accept: None,
            tunnel: false,
            informational: 0,
            written: 0,
            started: false,
            answered: false,
            spare: ResponseHead::default(),
            fault: None,
        }
    }

    /// No exchange is under way: both directions of the last one are over.
    pub fn is_idle(&self) -> bool {
        matches!(self.receiving, Receiving::Idle | Receiving::Over) && self.sending == Outgoing::Ended
    }

    /// Another exchange can start (RFC 9112 §9.3). Always asked just before [`Self::send_head`]: bytes or an end that
    /// arrived since the last exchange make it false.
    pub fn is_reusable(&self) -> bool {
        self.receiving == Receiving::Idle
            && self.keep
            && self.finished == Finished::No
            && self.input.is_empty()
            && self.fault.is_none()
    }

    /// Bytes of the present request that were handed out; 0 means that any method may be tried again elsewhere.
    pub fn bytes_written(&self) -> u64 {
        self.written
    }

    /// Whether any byte of the present response arrived.
    pub fn response_started(&self) -> bool {
        self.started
    }

    /// Whether a tunnel was opened, in whatever state its directions are.
    pub fn is_tunnel(&self) -> bool {
        self.tunnel
    }

    /// Whether our direction of a tunnel has ended: FIN is to be sent behind the output, also while the backend goes on.
    pub fn ends_sending(&self) -> bool {
        self.tunnel && self.sending == Outgoing::Ended
    }

    /// Whether the socket should be read: false while more waits than may, and when nothing more can be understood.
    /// Bytes that still arrive are taken nevertheless.
    pub fn wants_read(&self) -> bool {
        self.finished == Finished::No && self.fault.is_none() && !self.input.is_full(self.limits.held_bytes)
    }

    /// Moves what waits for credit out of the receive pool, so that an exchange that stands still holds no buffer of it.
    pub fn unpin(&mut self) {
        self.input.unpin();
    }

    /// Permits that many more body bytes to be given out.
    pub fn grant(&mut self, bytes: usize) {
        self.credit = self.credit.saturating_add(bytes);
    }

    /// Takes back a head whose memory may be used again. Large ones are not kept: idle connections are many.
    pub fn recycle(&mut self, head: ResponseHead) {
        if head.fields.capacity() <= limits::H1_SPARE_HEAD_BYTES {
            self.spare = head;
        }
    }

    /// Starts an exchange; only when [`Self::is_reusable`]. `host` replaces the request's own authority in Host.
    ///
    /// Fields that concern one connection only, Host, and those of the framing are never taken from the head.
    pub fn send_head(&mut self, head: &RequestHead, host: Option<&[u8]>, framing: Framing, out: &mut Output) {
        self.begin(head);
        self.sending = match framing {
            Framing::None => Outgoing::Ended,
            Framing::Length(length) => Outgoing::length(length),
            Framing::Chunked => Outgoing::Chunked,
        };
        let before = out.len();
        let to = out.gather();
        put_request(to, head, host);
        // RFC 9110 §10.1.4: who sends TE names it in Connection.
        if head.fields.has_token(Known::Te, b"trailers") {
            to.extend_from_slice(b"te: trailers\r\nconnection: te\r\n");
        }
        match framing {
            Framing::None if head.method.expects_content() => put_length(to, 0),
            Framing::None => {}
            Framing::Length(length) => put_length(to, length),
            Framing::Chunked => to.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        }
        to.extend_from_slice(b"\r\n");
        self.written = (out.len() - before) as u64;
    }

    /// Asks for a tunnel; as [`Self::send_head`]. Nothing is to be sent on it before the head of its response says 200,
    /// which is what the backend's 101 comes out as.
    pub fn ask_tunnel(&mut self, head: &RequestHead, host: Option<&[u8]>, key: Key, out: &mut Output) {
        self.begin(head);
        self.sending = Outgoing::Close;
        self.accept = Some(key.accept());
        let before = out.len();
        let to = out.gather();
        put_request(to, head, host);
        to.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\n");
        put_field(to, b"sec-websocket-key", key.as_bytes());
        to.extend_from_slice(b"\r\n");
        self.written = (out.len() - before) as u64;
    }

    fn begin(&mut self, head: &RequestHead) {
        debug_assert!(self.is_reusable());
        self.receiving = Receiving::Head;
        self.method.clone_from(&head.method);
        self.accept = None;
        self.credit = 0;
        self.informational = 0;
        self.started = false;
        self.answered = false;
    }

    /// Sends a piece of the request's body.
    pub fn send_body(&mut self, chunk: Chunk, out: &mut Output) {
        self.send(out, |sending, out| sending.body(chunk, out));
    }

    /// Ends the request's body with trailers, which are dropped unless the body is chunked.
    pub fn send_trailers(&mut self, fields: &Fields, out: &mut Output) {
        self.send(out, |sending, out| sending.trailers(fields, out));
    }

    /// Ends the request's body. Without effect when it has ended.
    pub fn end(&mut self, out: &mut Output) {
        self.send(out, Outgoing::end);
    }

    fn send(&mut self, out: &mut Output, write: impl FnOnce(&mut Outgoing, &mut Output) -> Result<(), LengthBroken>) {
        if self.fault.is_some() {
            return;
        }
        let before = out.len();
        if let Err(LengthBroken(detail)) = write(&mut self.sending, out) {
            self.fail(Reason::LengthMismatch, detail);
        }
        self.written += (out.len() - before) as u64;
    }

    /// Takes bytes that arrived. What they mean is told by [`Self::next_event`].
    pub fn receive(&mut self, bytes: Chunk) {
        if self.fault.is_some() {
            return;
        }
        self.started |= !bytes.is_empty() && self.receiving == Receiving::Head;
        self.input.push(bytes);
    }

    /// The backend finished its direction (FIN).
    pub fn receive_end(&mut self) {
        if self.finished == Finished::No {
            self.finished = Finished::Cleanly;
        }
    }

    /// The transport failed. What arrived before is still delivered; a body that only FIN could end is not complete.
    pub fn receive_reset(&mut self) {
        if self.finished == Finished::No {
            self.finished = Finished::Reset;
        }
    }

    /// What comes next, if anything.
    ///
    /// # Errors
    /// The connection is of no further use; said again when asked again.
    pub fn next_event(&mut self) -> Result<Option<Event<ResponseHead>>, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let event = match self.receiving {
            Receiving::Idle | Receiving::Over => self.receive_idle(),
            Receiving::Head => self.receive_head(),
            Receiving::Body => self.receive_body(),
        };
        event.map_err(|fault| *self.fault.insert(fault))
    }

    fn receive_idle(&mut self) -> Result<Option<Event<ResponseHead>>, Fault> {
        if self.input.is_empty() {
            return Ok(None);
        }
        self.input.clear();
        Err(Fault {
            what: What::Unsolicited,
            next: Next::Close,
            detail: match self.answered {
                true => "bytes behind the end of a response",
                false => "bytes before any request",
            },
        })
    }

    fn receive_head(&mut self) -> Result<Option<Event<ResponseHead>>, Fault> {
        let Some(head) = self.parse_head()? else {
            return match self.finished {
                Finished::No => Ok(None),
                Finished::Cleanly => Err(self.cut_head(Reason::UpstreamClosed)),
                Finished::Reset => Err(self.cut_head(Reason::UpstreamReset)),
            };
        };
        if head.is_informational() {
            self.informational += 1;
            if self.informational > limits::H1_INFORMATIONAL_MAX {
                return Err(self.failed(Reason::UpstreamMalformed, "too many 1xx heads"));
            }
            return Ok(Some(Event::Informational(head)));
        }
        if self.method == Method::Connect && (200..300).contains(&head.status) {
            return Err(self.failed(Reason::UpstreamUpgrade, "a tunnel that nobody can use"));
        }
        self.answered = true;
        // Of such a request no other success passes the gate.
        self.tunnel = self.accept.take().is_some() && head.status == 200;
        self.incoming = if !head.has_body(&self.method) {
            Incoming::Ended
        } else if head.chunked {
            Incoming::chunked()
        } else if let Some(length) = head.content_length {
            Incoming::length(length)
        } else {
            self.keep = false;
            Incoming::Close
        };
        self.receiving = Receiving::Body;
        let end = matches!(self.incoming, Incoming::Ended);
        if end {
            self.receive_over();
        }
        Ok(Some(Event::Head { head, end }))
    }

    /// Reads one head, final or not, and learns from it whether the connection can stay.
    fn parse_head(&mut self) -> Result<Option<ResponseHead>, Fault> {
        let limits = &self.limits.head;
        let (method, spare, keep) = (&self.method, &mut self.spare, &mut self.keep);
        let accept = self.accept.as_ref();
        let section = self.input.section(limits.bytes, |bytes| {
            parse::response(bytes, limits.fields, |line, fields| {
                let version = match line.minor {
                    0 => WireVersion::H1_0,
                    _ => WireVersion::H1_1,
                };
                super::reserve(&mut spare.fields, fields, (0, 0));
                let fields = fields.iter().map(|field| (field.name.as_bytes(), field.value));
                let status = Some(line.status);
                match accept {
                    None => normalize::response_into(version, status, fields, method, limits, spare)?,
                    accept => normalize::tunnel_response_into(version, status, fields, accept, limits, spare)?,
                }
                *keep &= super::keeps_alive(version, &spare.fields);
                Ok(std::mem::take(spare))
            })
        });
        section.map_err(|unreadable: Unreadable<BadHead>| match unreadable {
            Unreadable::TooLong { .. } => self.failed(Reason::UpstreamHeadTooLarge, "response head too long"),
            Unreadable::BareLf => self.failed(Reason::UpstreamMalformed, "line ends with LF alone"),
            Unreadable::Bad(BadHead { reason, detail }) => self.failed(reason, detail),
        })
    }

    /// What it means that the connection ended before a head did: `reason`, unless what came was none anyway.
    fn cut_head(&self, reason: Reason) -> Fault {
        let garbage =
            self.input.section_cut(|bytes| parse::response(bytes, self.limits.head.fields, |_, _| Ok::<(), Bad>(())));
        match garbage {
            Err(Bad::Malformed(detail)) => self.failed(Reason::UpstreamMalformed, detail),
            Err(Bad::TooManyFields) => self.failed(Reason::UpstreamHeadTooLarge, "too many fields"),
            Ok(()) => self.failed(reason, "the connection ended before a head"),
        }
    }

    fn receive_body(&mut self) -> Result<Option<Event<ResponseHead>>, Fault> {
        let step = self.incoming.step(&mut self.input, &mut self.credit, &self.limits.head);
        match step {
            Ok(Step::Body(chunk)) => Ok(Some(Event::Body(chunk))),
            Ok(Step::Trailers(fields)) => Ok(Some(Event::Trailers(fields))),
            Ok(Step::End) => {
                self.receive_over();
                Ok(Some(Event::End))
            }
            // Held back for want of credit.
            Ok(Step::Wait) if self.input.waiting() > 0 => Ok(None),
            Ok(Step::Wait) => match (self.finished, &self.incoming) {
                (Finished::No, _) => Ok(None),
                (Finished::Cleanly, Incoming::Close) => {
                    self.incoming = Incoming::Ended;
                    self.receive_over();
                    Ok(Some(Event::End))
                }
                (Finished::Cleanly, _) => Err(self.cut_body(Reason::UpstreamIncomplete)),
                (Finished::Reset, _) => Err(self.cut_body(Reason::UpstreamReset)),
            },
            Err(broken) => Err(self.broken(broken)),
        }
    }

    /// What it means that the connection ended before a body did: `reason`, unless what came was none anyway.
    fn cut_body(&self, reason: Reason) -> Fault {
        match self.incoming.cut(&self.input, &self.limits.head) {
            Some(broken) => self.broken(broken),
            None => self.failed(reason, "the connection ended within the body"),
        }
    }

    fn broken(&self, broken: Broken) -> Fault {
        match broken {
            Broken::Framing(detail) => self.failed(Reason::UpstreamFraming, detail),
            Broken::Trailers(detail) => self.failed(Reason::UpstreamTrailers, detail),
        }
    }

    /// The response is over. A request that is not over yet leaves the connection useless: the backend may or may not
    /// read the rest of it.
    fn receive_over(&mut self) {
        self.keep &= self.sending == Outgoing::Ended;
        self.receiving = match self.keep && self.finished == Finished::No {
            true => Receiving::Idle,
            false => Receiving::Over,
        };
    }

    /// Panics if the parts of the state contradict each other; for tests and simulation.
    pub fn check_invariants(&self) {
        self.input.check_invariants();
        let ended = matches!(self.incoming, Incoming::Ended);
        match self.receiving {
            // Only a connection that may be asked again goes back to Idle.
            Receiving::Idle => assert!(ended && self.keep),
            Receiving::Head => assert!(ended && !self.answered),
            Receiving::Body => assert!(self.answered),
            Receiving::Over => assert!(ended && self.answered),
        }
        if self.receiving == Receiving::Idle {
            assert_eq!(self.sending, Outgoing::Ended);
        }
        assert_ne!(self.sending, Outgoing::Withheld, "no request ends so");
        if self.tunnel {
            assert!(self.answered && self.accept.is_none() && !self.is_reusable());
        }
        if self.fault.is_some() {
            assert!(!self.is_reusable() && !self.wants_read());
        }
    }

    fn failed(&self, reason: Reason, detail: &'static str) -> Fault {
        Fault {
            what: What::Exchange(reason),
            next: match self.answered {
                true => Next::Reset,
                false => Next::Respond,
            },
            detail,
        }
    }

    fn fail(&mut self, reason: Reason, detail: &'static str) {
        self.fault = Some(self.failed(reason, detail));
    }
}

/// A head that is refused, in the words of the client side.
struct BadHead {
    reason: Reason,
    detail: &'static str,
}

impl From<Bad> for BadHead {
    fn from(bad: Bad) -> Self {
        match bad {
            Bad::Malformed(detail) => Self { reason: Reason::UpstreamMalformed, detail },
            Bad::TooManyFields => Self { reason: Reason::UpstreamHeadTooLarge, detail: "too many fields" },
        }
    }
}

impl From<ResponseFault> for BadHead {
    fn from(fault: ResponseFault) -> Self {
        Self { reason: fault.reason, detail: fault.reason.description() }
    }
}

/// Writes the request line and the fields, without the framing and the empty line.
fn put_request(to: &mut Vec<u8>, head: &RequestHead, host: Option<&[u8]>) {
    let host = host.unwrap_or(head.authority.as_str().as_bytes());
    let target = match &head.target {
        Target::Path(path) => path.forwarded(),
        Target::Asterisk => "*",
        Target::Authority => head.authority.as_str(),
    };
    // The fields' size counts 32 bytes more for each than ": " and the line end need: room for the other lines.
    to.reserve(target.len() + host.len() + head.fields.bytes() + 160);
    to.extend_from_slice(head.method.as_str().as_bytes());
    to.push(b' ');
    to.extend_from_slice(target.as_bytes());
    to.extend_from_slice(b" HTTP/1.1\r\n");
    put_field(to, b"host", host);
    for (name, value) in &head.fields {
        if !super::is_ours(name.known) {
            put_field(to, name.name, value);
        }
    }
}

#[cfg(test)]
#[path = "client/tests.rs"]
mod tests;
