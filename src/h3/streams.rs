//! Owns what is remembered of one request stream: the state of both directions and the bytes that wait to be sent.
//!
//! ```text
//! receiving:  Open ── End, Reset, stop() ──> Closed
//! sending:    Idle ── send_head ──> Open ── end, send_trailers ──> Ending ── all given to the transport ──> Closed
//!             any of them ── reset(), Stop ──> Closed
//! ```
//! A stream is forgotten when both directions are closed and every event about it was taken.

use super::payload::{Held, Payload};
use crate::http::NO_OWNER;
use spooky_uring::Chunk;
use std::collections::VecDeque;
use std::rc::Rc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
    Open,
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    Idle,
    Open,
    Ending,
    Closed,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) owner: u32,
    pub(super) receiving: Receiving,
    pub(super) sending: Sending,

    /// Body bytes that may still be handed out.
    pub(super) credit: usize,
    /// What the announced length leaves, if one was announced.
    pub(super) request_left: Option<u64>,
    /// The transport said that body bytes wait; it says so only once until they are read.
    pub(super) readable: bool,
    /// Invariant: in the connection's `reading` list exactly when set.
    pub(super) in_reading: bool,

    /// The request was HEAD: no response has a body.
    pub(super) bodiless: bool,
    /// What the announced length of the response leaves, if one was announced.
    pub(super) response_left: Option<u64>,
    /// Bytes for the transport, in order; `tail` comes last.
    queue: VecDeque<Payload>,
    /// Frame headers, heads and small pieces of body, until something large follows or they are sent.
    pub(super) tail: Vec<u8>,
    /// Invariant: the length of `queue` and `tail`.
    queued: usize,
    /// The transport knows that we wait for its window.
    pub(super) blocked_told: bool,
    /// Invariant: in the connection's `sending` list exactly when set.
    pub(super) in_sending: bool,

    /// Events not yet taken.
    pub(super) reset: Option<u64>,
    pub(super) stopped: Option<u64>,
    pub(super) room: bool,
    /// The queue was full; [`Self::room`] is owed when it has drained.
    pub(super) full: bool,
    /// Invariant: in the connection's `news` list exactly when set.
    pub(super) in_news: bool,
}

impl Stream {
    pub(super) fn new(request_left: Option<u64>, ended: bool, bodiless: bool) -> Self {
        Self {
            owner: NO_OWNER,
            receiving: if ended { Receiving::Closed } else { Receiving::Open },
            sending: Sending::Idle,
            credit: 0,
            request_left,
            readable: false,
            in_reading: false,
            bodiless,
            response_left: None,
            queue: VecDeque::new(),
            tail: Vec::new(),
            queued: 0,
            blocked_told: false,
            in_sending: false,
            reset: None,
            stopped: None,
            room: false,
            full: false,
            in_news: false,
        }
    }

    /// Nothing will be sent or told about it any more.
    pub(super) fn is_over(&self) -> bool {
        self.receiving == Receiving::Closed
            && self.sending == Sending::Closed
            && self.reset.is_none()
            && self.stopped.is_none()
            && !self.room
    }

    pub(super) fn queued(&self) -> usize {
        self.queued + self.tail.len()
    }

    pub(super) fn takes_body(&self) -> bool {
        self.sending == Sending::Open
    }

    /// Queues bytes without a copy.
    pub(super) fn push(&mut self, chunk: Chunk, pooled: bool, held: &Rc<Held>) {
        self.seal(held);
        self.push_payload(Payload::new(chunk, pooled, held));
    }

    /// Makes the tail a piece of the queue.
    pub(super) fn seal(&mut self, held: &Rc<Held>) {
        if !self.tail.is_empty() {
            let tail = Chunk::from_vec(std::mem::take(&mut self.tail));
            self.push_payload(Payload::new(tail, false, held));
        }
    }

    fn push_payload(&mut self, payload: Payload) {
        self.queued += payload.len();
        self.queue.push_back(payload);
    }

    /// Takes at most `max` bytes off the front of the sealed queue; the flag says that nothing is left behind them.
    pub(super) fn pop(&mut self, max: usize) -> Option<(Payload, bool)> {
        debug_assert!(self.tail.is_empty(), "sealed before");
        let front = self.queue.front_mut()?;
        let payload = if front.len() <= max { self.queue.pop_front()? } else { front.split_to(max) };
        self.queued -= payload.len();
        Some((payload, self.queue.is_empty()))
    }

    pub(super) fn front_len(&self) -> usize {
        self.queue.front().map_or(0, Payload::len)
    }

    /// Bytes of the queue that count in [`Held`].
    pub(super) fn sealed(&self) -> usize {
        self.queued
    }

    /// Drops everything that waits.
    pub(super) fn clear(&mut self) {
        self.queue = VecDeque::new();
        self.tail = Vec::new();
        self.queued = 0;
    }
}
