//! The side of a connection that answers: requests in order, one at a time.
//!
//! ```text
//! receiving  Head ──head──▶ Body ──end──▶ Over ──response over too──▶ Head
//!              │ refused                                        └──▶ Shut   Connection: close, HTTP/1.0, draining
//!              └──────────▶ Shut          (what still arrives is dropped)
//! sending    Ready ──head──▶ Head ──send_head──▶ Body ──end──▶ Ready
//! ```
//!
//! A request for a tunnel (RFC 6455) is one whose body is everything that follows, and its response one whose body is
//! everything that is sent. [`ServerConnection::open_tunnel`] begins both; each ends by itself, with FIN, and the connection
//! with the later one. Any other answer ends the connection behind it.
//!
//! A pipelined request waits, unread, until the one before it is answered; the bound on waiting bytes is the bound on
//! pipelining. A request whose framing is in doubt is refused and ends the connection behind the answer. Knows no socket,
//! no timer and no route.

use super::Limits;
use super::fault::{Fault, Next, What};
use super::incoming::{Broken, Incoming, Step};
use super::input::{Input, Unreadable};
use super::lines::{put_field, put_length};
use super::outgoing::{LengthBroken, Outgoing};
use super::parse::{self, Bad};
use crate::http::forward;
use crate::http::head::phrase;
use crate::http::normalize::{self, RequestLine, WireRequest};
use crate::http::websocket::Key;
use crate::http::{Event, Fields, Method, Output, Reason, Refusal, RequestHead, ResponseHead, Scheme, WireVersion};
use crate::limits;
use spooky_uring::Chunk;

/// Whether, and how, the connection ends once its output is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// It stays.
    No,
    /// Close it: the client has nothing more on its way that we know of.
    Now,
    /// Send FIN, go on reading and dropping for a bounded time, then close: a client that still sends would
    /// otherwise get a reset and lose the answer (RFC 9112 §9.6).
    Linger,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiving {
    /// A request head is awaited.
    Head,
    /// A head was delivered and its body follows.
    Body,
    /// The request is over; its response is not.
    Over,
    /// Nothing that arrives has a meaning any more.
    Shut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    /// No request waits for a response.
    Ready,
    /// A response head is owed.
    Head,
    /// The final head was sent.
    Body(Outgoing),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tunnel {
    No,
    /// It was asked for, and no answer was given.
    Asked,
    /// What is received and sent is a tunnel.
    Open,
}

/// One connection from a client.
#[derive(Debug)]
pub struct ServerConnection {
    limits: Limits,
    scheme: Scheme,
    input: Input,
    /// The client finished its direction.
    finished: bool,
    /// Body bytes that may still be given out.
    credit: usize,
    receiving: Receiving,
    incoming: Incoming,
    sending: Sending,
    /// The connection can outlive the present exchange, as far as is known.
    keep: bool,
    /// The connection ends behind this response, and more may be on its way from the client.
    linger: bool,
    /// Of the present request.
    head_only: bool,
    version: WireVersion,
    /// The client waits for 100 (Continue) and did not get it.
    continue_owed: bool,
    /// Whether the present request asks for a tunnel.
    tunnel: Tunnel,
    /// Memory of an earlier head.
    spare: Option<Box<RequestHead>>,
    /// Once set, nothing more is read.
    fault: Option<Fault>,
}

impl ServerConnection {
    /// A connection that was just accepted; `scheme` says whether it is secured.
    pub fn new(scheme: Scheme, limits: Limits) -> Self {
        Self {
            limits,
            scheme,
            input: Input::default(),
            finished: false,
            credit: 0,
            receiving: Receiving::Head,
            incoming: Incoming::Ended,
            sending: Sending::Ready,
            keep: true,
            linger: false,
            head_only: false,
            version: WireVersion::H1_1,
            continue_owed: false,
            tunnel: Tunnel::No,
            spare: None,
            fault: None,
        }
    }

    /// No request is under way and none has begun to arrive: the connection may be closed without harm.
    pub fn is_idle(&self) -> bool {
        self.sending == Sending::Ready && self.input.is_empty()
    }

    /// Whether a request head has begun to arrive and is not whole: what a header timeout watches.
    pub fn is_within_head(&self) -> bool {
        self.receiving == Receiving::Head && self.sending == Sending::Ready && !self.input.is_empty()
    }

    /// Whether no response is due: the request before was answered whole, and none has followed it.
    pub fn is_between(&self) -> bool {
        self.sending == Sending::Ready
    }

    /// Whether more of a request's body is awaited.
    pub fn is_receiving(&self) -> bool {
        self.receiving == Receiving::Body
    }

    /// Whether a tunnel was opened, in whatever state its directions are.
    pub fn is_tunnel(&self) -> bool {
        self.tunnel == Tunnel::Open
    }

    /// Whether our direction of a tunnel has ended: FIN is to be sent behind the output, also while the client goes on.
    pub fn ends_sending(&self) -> bool {
        self.is_tunnel() && matches!(self.sending, Sending::Ready | Sending::Body(Outgoing::Ended))
    }

    /// Gives up on a head that is not whole; nothing more is read. The refusal wants an answer.
    pub fn refuse_head(&mut self, reason: Reason) -> Event<Box<RequestHead>> {
        debug_assert!(self.is_within_head());
        self.head_only = false;
        self.version = WireVersion::H1_1;
        self.refuse(reason.into())
    }

    /// What becomes of the connection once the output is sent. Ask it after each turn's events and commands.
    pub fn closing(&self) -> Closing {
        match (self.sending, self.receiving) {
            (Sending::Ready, Receiving::Shut) if self.linger && !self.finished => Closing::Linger,
            (Sending::Ready, Receiving::Shut) => Closing::Now,
            // Nothing more can come; what waits was all looked at unless a request is in it.
            (Sending::Ready, Receiving::Head) if self.finished && self.input.is_empty() => Closing::Now,
            _ => Closing::No,
        }
    }

    /// Lets no request follow the present one: its response says `Connection: close` if its head was not sent yet.
    pub fn drain(&mut self) {
        if self.is_idle() && self.receiving == Receiving::Head {
            self.receiving = Receiving::Shut;
        } else if self.keep {
            // The client did not ask for the end, so its next request may be on its way.
            self.linger = true;
        }
        self.keep = false;
    }

    /// Whether the socket should be read: false while more waits than may.
    pub fn wants_read(&self) -> bool {
        !self.finished && (self.receiving == Receiving::Shut || !self.input.is_full(self.limits.held_bytes))
    }

    /// Permits that many more body bytes to be given out.
    pub fn grant(&mut self, bytes: usize) {
        self.credit = self.credit.saturating_add(bytes);
    }

    /// Takes back a head whose memory may be used again. Large ones are not kept: idle connections are many.
    pub fn recycle(&mut self, head: Box<RequestHead>) {
        if head.fields.capacity() <= limits::H1_SPARE_HEAD_BYTES {
            self.spare = Some(head);
        }
    }

    /// Moves bytes that wait out of the receive pool, which others need.
    pub fn unpin(&mut self) {
        self.input.unpin();
    }

    /// Takes bytes that arrived. What they mean is told by [`Self::next_event`].
    pub fn receive(&mut self, bytes: Chunk) {
        if self.receiving != Receiving::Shut {
            self.input.push(bytes);
        }
    }

    /// The client finished its direction (FIN). A request that is whole is still answered.
    pub fn receive_end(&mut self) {
        self.finished = true;
    }

    /// What comes next, if anything. A refused request is an event: it wants an answer.
    ///
    /// # Errors
    /// The request cannot be read on; said again when asked again. If [`Fault::next`] is [`Next::Respond`], a
    /// response can still be sent; the connection closes behind it.
    pub fn next_event(&mut self) -> Result<Option<Event<Box<RequestHead>>>, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let event = match self.receiving {
            Receiving::Head if self.sending == Sending::Ready => self.receive_head(),
            Receiving::Body => self.receive_body(),
            Receiving::Head | Receiving::Over | Receiving::Shut => Ok(None),
        };
        event.map_err(|fault| {
            self.shut();
            *self.fault.insert(fault)
        })
    }

    fn receive_head(&mut self) -> Result<Option<Event<Box<RequestHead>>>, Fault> {
        self.head_only = false;
        self.version = WireVersion::H1_1;
        let limits = &self.limits.head;
        let (scheme, spare) = (self.scheme, &mut self.spare);
        let (head_only, version) = (&mut self.head_only, &mut self.version);
        let section = self.input.section(limits.bytes, |bytes| {
            parse::request(bytes, limits.fields, |line, fields| {
                // Known even of a request that is refused: the answer's form depends on them.
                *head_only = line.method == Method::Head.as_str();
                *version = match line.minor {
                    0 => WireVersion::H1_0,
                    _ => WireVersion::H1_1,
                };
                let wire = WireRequest {
                    scheme,
                    line: Some(RequestLine { method: line.method.as_bytes(), target: line.target.as_bytes() }),
                    fields: fields.iter().map(|field| (field.name.as_bytes(), field.value)),
                };
                let mut head = spare.take().unwrap_or_default();
                super::reserve(&mut head.fields, fields, (forward::ADDED_FIELDS, forward::ADDED_BYTES));
                normalize::request_into(*version, wire, limits, &mut head)?;
                Ok(head)
            })
        });
        match section {
            Ok(Some(head)) => Ok(Some(self.receive_request(head))),
            Ok(None) if self.finished && !self.input.is_empty() => self.cut_head(),
            Ok(None) => Ok(None),
            Err(unreadable) => Ok(Some(self.refuse(match unreadable {
                Unreadable::TooLong { first_line: true } => Reason::TargetTooLong.into(),
                Unreadable::TooLong { first_line: false } => Reason::HeadTooLarge.into(),
                Unreadable::BareLf => Reason::Syntax.into(),
                Unreadable::Bad(Refused(refusal)) => refusal,
            }))),
        }
    }

    /// What it means that the connection ended before a head did.
    fn cut_head(&mut self) -> Result<Option<Event<Box<RequestHead>>>, Fault> {
        let garbage = self
            .input
            .section_cut(|bytes| parse::request(bytes, self.limits.head.fields, |_, _| Ok::<(), Refused>(())));
        match garbage {
            Err(Refused(refusal)) => Ok(Some(self.refuse(refusal))),
            Ok(()) => Err(self.failed(Reason::ClientGone, "closed within a request head")),
        }
    }

    fn receive_request(&mut self, head: Box<RequestHead>) -> Event<Box<RequestHead>> {
        self.credit = 0;
        self.keep &= super::keeps_alive(head.version, &head.fields);
        self.tunnel = if head.protocol.is_some() { Tunnel::Asked } else { Tunnel::No };
        self.incoming = match head.content_length {
            _ if self.tunnel == Tunnel::Asked => Incoming::Close,
            _ if head.chunked => Incoming::chunked(),
            Some(length) => Incoming::length(length),
            None => Incoming::Ended,
        };
        let end = matches!(self.incoming, Incoming::Ended);
        self.continue_owed = head.expect_continue && !end;
        self.receiving = match end {
            true => Receiving::Over,
            false => Receiving::Body,
        };
        self.sending = Sending::Head;
        Event::Head { head, end }
    }

    /// Where the next request would begin is not known, or not believed: nothing more is read.
    fn refuse(&mut self, refusal: Refusal) -> Event<Box<RequestHead>> {
        self.sending = Sending::Head;
        self.continue_owed = false;
        self.shut();
        Event::Refused(refusal)
    }

    fn shut(&mut self) {
        self.keep = false;
        self.linger = true;
        self.continue_owed = false;
        self.receiving = Receiving::Shut;
        self.input.clear();
    }

    fn receive_body(&mut self) -> Result<Option<Event<Box<RequestHead>>>, Fault> {
        let step = self.incoming.step(&mut self.input, &mut self.credit, &self.limits.head);
        match step {
            Ok(Step::Body(chunk)) => {
                // It did not wait.
                self.continue_owed = false;
                Ok(Some(Event::Body(chunk)))
            }
            Ok(Step::Trailers(fields)) => Ok(Some(Event::Trailers(fields))),
            Ok(Step::End) => {
                self.continue_owed = false;
                self.receiving = Receiving::Over;
                Ok(Some(Event::End))
            }
            // Held back for want of credit.
            Ok(Step::Wait) if !self.finished || self.input.waiting() > 0 => Ok(None),
            Ok(Step::Wait) if self.is_tunnel() => {
                self.incoming = Incoming::Ended;
                self.receiving = Receiving::Over;
                self.finish();
                Ok(Some(Event::End))
            }
            Ok(Step::Wait) => match self.incoming.cut(&self.input, &self.limits.head) {
                Some(broken) => Err(self.broken(broken)),
                None => Err(self.failed(Reason::ClientGone, "closed within the body")),
            },
            Err(broken) => Err(self.broken(broken)),
        }
    }

    fn broken(&self, broken: Broken) -> Fault {
        match broken {
            Broken::Framing(detail) | Broken::Trailers(detail) => self.failed(Reason::BodyFraming, detail),
        }
    }

    /// Sends a 1xx head. HTTP/1.0 does not know them: nothing is sent then.
    pub fn send_informational(&mut self, head: &ResponseHead, out: &mut Output) {
        if self.sending != Sending::Head || self.version == WireVersion::H1_0 {
            return;
        }
        self.continue_owed &= head.status != 100;
        let to = out.gather();
        put_head(to, head);
        to.extend_from_slice(b"\r\n");
    }

    /// Sends the final head. `end`: no body follows. The body's framing follows from the head, the request's method and
    /// its version.
    pub fn send_head(&mut self, head: &ResponseHead, end: bool, out: &mut Output) {
        debug_assert!(!head.is_informational());
        if self.sending != Sending::Head {
            debug_assert!(false, "no response is owed");
            return;
        }
        // The rest of a body nobody wants may or may not come: what follows cannot be told from it.
        let unread = self.receiving == Receiving::Body;
        let refused = std::mem::replace(&mut self.tunnel, Tunnel::No) == Tunnel::Asked;
        if unread && (refused || end || self.continue_owed || head.status >= 400) {
            self.keep = false;
        }
        let bodiless = matches!(head.status, 204 | 304) || self.head_only;
        let outgoing = match head.content_length {
            _ if bodiless => Outgoing::Withheld,
            Some(length) => Outgoing::length(length),
            None if end => Outgoing::Ended,
            None if self.version == WireVersion::H1_0 => Outgoing::Close,
            None => Outgoing::Chunked,
        };
        self.keep &= outgoing != Outgoing::Close;

        let to = out.gather();
        put_head(to, head);
        match (outgoing, head.content_length) {
            (Outgoing::Chunked, _) => to.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            (Outgoing::Close, _) => {}
            // RFC 9110 §8.6: what the body would have been long, if that is known; never with 204.
            (Outgoing::Withheld, Some(length)) if head.status != 204 => put_length(to, length),
            (Outgoing::Withheld, _) => {}
            (_, length) => put_length(to, length.unwrap_or(0)),
        }
        if !self.keep {
            to.extend_from_slice(b"connection: close\r\n");
        } else if self.version == WireVersion::H1_0 {
            to.extend_from_slice(b"connection: keep-alive\r\n");
        }
        to.extend_from_slice(b"\r\n");
        self.sending = Sending::Body(outgoing);
        if end {
            self.end(out);
        }
    }

    /// Sends the 101 that opens the tunnel which the request asked for; what says so is written here and not taken from the
    /// head. `key` is the request's.
    pub fn open_tunnel(&mut self, head: &ResponseHead, key: &Key, out: &mut Output) {
        if self.sending != Sending::Head || self.tunnel != Tunnel::Asked {
            debug_assert!(false, "no tunnel was asked for");
            return;
        }
        let to = out.gather();
        put_fields(to, 101, head);
        to.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\n");
        put_field(to, b"sec-websocket-accept", &key.accept());
        to.extend_from_slice(b"\r\n");
        self.sending = Sending::Body(Outgoing::Close);
        self.tunnel = Tunnel::Open;
        self.keep = false;
    }

    /// Sends a piece of the response's body.
    pub fn send_body(&mut self, chunk: Chunk, out: &mut Output) {
        self.send(out, |sending, out| sending.body(chunk, out));
    }

    /// Ends the response with trailers, which are dropped unless its body is chunked.
    pub fn send_trailers(&mut self, fields: &Fields, out: &mut Output) {
        self.send(out, |sending, out| sending.trailers(fields, out));
        self.finish();
    }

    /// Ends the response. Without effect when it has ended.
    pub fn end(&mut self, out: &mut Output) {
        self.send(out, Outgoing::end);
        self.finish();
    }

    fn send(&mut self, out: &mut Output, write: impl FnOnce(&mut Outgoing, &mut Output) -> Result<(), LengthBroken>) {
        let Sending::Body(outgoing) = &mut self.sending else {
            return;
        };
        if let Err(LengthBroken(detail)) = write(outgoing, out) {
            // The client must not take a broken response for a whole one: only a reset tells it.
            self.fault = Some(Fault { what: What::Exchange(Reason::Internal), next: Next::Reset, detail });
            self.shut();
        }
    }

    /// Once the response is over: the next request, or the end.
    fn finish(&mut self) {
        if self.sending != Sending::Body(Outgoing::Ended) {
            return;
        }
        // The client may go on for as long as it likes.
        if self.is_tunnel() && self.receiving == Receiving::Body {
            return;
        }
        self.sending = Sending::Ready;
        match self.receiving {
            Receiving::Over if self.keep => self.receiving = Receiving::Head,
            Receiving::Over => {
                // A pipelined request that will not be answered is something on its way, too.
                let linger = self.linger || !self.input.is_empty();
                self.shut();
                self.linger = linger;
            }
            Receiving::Head | Receiving::Body | Receiving::Shut => self.shut(),
        }
    }

    /// Panics if the parts of the state contradict each other; for tests and simulation.
    pub fn check_invariants(&self) {
        self.input.check_invariants();
        match self.receiving {
            Receiving::Head => assert_eq!(self.sending, Sending::Ready),
            Receiving::Body => {}
            Receiving::Over => {
                assert_ne!(self.sending, Sending::Ready, "a request without an answer")
            }
            Receiving::Shut => assert!(self.input.is_empty() && !self.keep),
        }
        if self.continue_owed {
            assert_eq!(self.receiving, Receiving::Body);
        }
        if self.is_tunnel() {
            assert!(!self.keep);
        }
        if self.fault.is_some() {
            assert_eq!(self.receiving, Receiving::Shut);
        }
    }

    fn failed(&self, reason: Reason, detail: &'static str) -> Fault {
        Fault {
            what: What::Exchange(reason),
            next: match self.sending {
                // Nobody is left to answer.
                _ if reason == Reason::ClientGone => Next::Close,
                Sending::Head => Next::Respond,
                Sending::Ready | Sending::Body(_) => Next::Reset,
            },
            detail,
        }
    }
}

/// A request that is refused.
struct Refused(Refusal);

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl From<Bad> for Refused {
    fn from(bad: Bad) -> Self {
        Self(match bad {
            Bad::Malformed(_) => Reason::Syntax.into(),
            Bad::TooManyFields => Reason::TooManyFields.into(),
        })
    }
}

/// Writes the status line and the fields, without the framing and the empty line.
fn put_head(to: &mut Vec<u8>, head: &ResponseHead) {
    put_fields(to, head.status, head);
}

/// The same with another status.
fn put_fields(to: &mut Vec<u8>, status: u16, head: &ResponseHead) {
    let phrase = phrase(status);
    // The fields' size counts 32 bytes more for each than ": " and the line end need: room for the other lines.
    to.reserve(head.fields.bytes() + phrase.len() + 128);
    to.extend_from_slice(b"HTTP/1.1 ");
    let digits = [status / 100 % 10, status / 10 % 10, status % 10];
    to.extend(digits.map(|digit| b'0' + digit as u8));
    to.push(b' ');
    to.extend_from_slice(phrase.as_bytes());
    to.extend_from_slice(b"\r\n");
    for (name, value) in &head.fields {
        if !super::is_ours(name.known) {
            put_field(to, name.name, value);
        }
    }
}

#[cfg(test)]
#[path = "server/tests.rs"]
mod tests;
