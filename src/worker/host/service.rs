//! What a host asks its service: one answer per request head, and the pieces of bodies that come bit by bit.

use crate::http::{Fields, Known, RequestHead, ResponseHead};
use spooky_uring::Chunk;
use std::net::SocketAddr;
use std::time::Instant;

/// A request as the service sees it: its head. Bodies are echoed or thrown away by the host.
#[derive(Debug)]
pub struct Request<'a> {
    /// The head, through the gate.
    pub head: &'a RequestHead,
    /// Which of the host's listeners it came in by.
    pub listener: usize,
    /// The other side; `None` on a unix socket.
    pub client: Option<SocketAddr>,
    /// The time of this turn.
    pub now: Instant,
}

/// Decides answers. Called on the ring's thread: it may not block.
pub trait Service {
    /// What makes bodies that come bit by bit.
    type Source: Source;

    /// The answer to one request.
    fn answer(&mut self, request: &Request<'_>) -> Answer<Self::Source>;
}

/// An answer: head and body. The host adds Date and the framing fields.
#[derive(Debug)]
pub struct Answer<S> {
    /// The head. A length announced here is kept; for [`Body::Whole`] it is filled in.
    pub head: ResponseHead,
    /// The body.
    pub body: Body<S>,
}

/// Where a body comes from.
#[derive(Debug)]
pub enum Body<S> {
    /// There is none.
    Empty,
    /// All of it is here.
    Whole(Chunk),
    /// Made while there is room to send.
    Source(S),
    /// The request's own body and trailers, as they arrive.
    Echo,
}

/// Makes a body while there is room to send it; nothing is made ahead, so a slow reader holds no memory.
pub trait Source {
    /// The next piece of at most `room` bytes.
    fn next(&mut self, room: usize, now: Instant) -> Piece;
}

/// A piece of a body.
#[derive(Debug)]
pub enum Piece {
    /// Bytes; never empty.
    Bytes(Chunk),
    /// Nothing before that moment, which lies ahead.
    Wait(Instant),
    /// Trailers; they end the body.
    Trailers(Fields),
    /// The body is over.
    End,
}

/// A service without such bodies.
#[derive(Debug)]
pub enum NoSource {}

impl Source for NoSource {
    fn next(&mut self, _room: usize, _now: Instant) -> Piece {
        match *self {}
    }
}

impl<S> Answer<S> {
    /// A body of which all is here.
    pub fn whole(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        let mut head = ResponseHead::new(status);
        head.fields.push_known(Known::ContentType, content_type.as_bytes());
        Self { head, body: Body::Whole(Chunk::from_vec(body)) }
    }

    /// A line of plain text.
    pub fn text(status: u16, line: &str) -> Self {
        let mut body = line.as_bytes().to_vec();
        body.push(b'\n');
        Self::whole(status, "text/plain; charset=utf-8", body)
    }

    /// A status and nothing else.
    pub fn empty(status: u16) -> Self {
        Self { head: ResponseHead::new(status), body: Body::Empty }
    }

    /// The same with one more field.
    #[must_use]
    pub fn with(mut self, known: Known, value: &[u8]) -> Self {
        self.head.fields.push_known(known, value);
        self
    }
}
