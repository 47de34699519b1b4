//! Owns what is remembered of one stream: the state of both directions, and what waits in either.
//!
//! ```text
//! receiving:  Open ── End, Reset, stop() ──> Closed
//! sending:    Idle ── head ──> Open ── end, send_trailers ──> Ending ── the end has left ──> Closed
//!             any of them ── reset(), Stop ──> Closed
//! ```
//! A stream is forgotten when both directions are closed and every event about it was taken. RST_STREAM closes both at once
//! (RFC 9113 §5.4.2).

use super::pipe::Payload;
use crate::http::NO_OWNER;
use ::h2::{RecvStream, SendStream};
use bytes::Bytes;

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

/// What the library gave for the head that is still to be sent, or to come.
pub(super) enum Opening {
    /// A server's: the response's head goes here.
    Respond(::h2::server::SendResponse<Payload>),
    /// A client's: the response's head comes from here.
    Response(::h2::client::ResponseFuture),
    /// Nothing more: it was sent, or came.
    Done,
}

pub(super) struct Stream {
    pub(super) owner: u32,
    pub(super) receiving: Receiving,
    pub(super) sending: Sending,
    pub(super) opening: Opening,

    /// The other side's end passed by: a reset behind it takes nothing of its message back.
    pub(super) ended: bool,
    /// A client's: the request asks for a tunnel.
    pub(super) tunnel: bool,

    /// Where body bytes come from.
    pub(super) body: Option<RecvStream>,
    /// Body bytes the library gave that nobody has credit for yet; its window is closed by as much.
    pub(super) rest: Bytes,
    /// Body bytes that may still be handed out.
    pub(super) credit: usize,
    /// The library may have something of the body.
    pub(super) readable: bool,

    /// Where body bytes go to.
    pub(super) out: Option<SendStream<Payload>>,
    /// The last piece: kept until it is known whether the end comes with it.
    pub(super) held: Option<Payload>,
    /// Invariant: in the connection's `holding` list exactly when set.
    pub(super) in_holding: bool,
    /// Body bytes in `held` and in the library's queue.
    pub(super) queued: usize,
    /// Our message has no body, whatever its head says.
    pub(super) bodiless: bool,
    /// What the announced length of our message leaves, if one was announced.
    pub(super) send_left: Option<u64>,
    /// The library was not asked for the end of the body: it resets the stream when it is forgotten.
    pub(super) cut_short: bool,
    /// 1xx heads that were sent or came.
    pub(super) informational: usize,

    /// Events not yet taken.
    pub(super) reset: Option<u64>,
    /// The library found the other side's message malformed.
    pub(super) malformed: bool,
    pub(super) stopped: Option<u64>,
    pub(super) room: bool,
    /// The queue was full; [`Self::room`] is owed when it has drained.
    pub(super) full: bool,
    /// Invariant: in the connection's `ready` list exactly when set.
    pub(super) in_ready: bool,
}

impl Stream {
    /// Tells the library that it is over.
    pub(super) fn send_reset(&mut self, reason: ::h2::Reason) {
        match (&mut self.out, &mut self.opening) {
            (Some(out), _) => out.send_reset(reason),
            (None, Opening::Respond(respond)) => respond.send_reset(reason),
            (None, Opening::Response(_) | Opening::Done) => {}
        }
    }

    pub(super) fn new(opening: Opening, body: Option<RecvStream>, bodiless: bool) -> Self {
        Self {
            owner: NO_OWNER,
            receiving: if body.is_some() { Receiving::Open } else { Receiving::Closed },
            sending: Sending::Idle,
            opening,
            ended: false,
            tunnel: false,
            body,
            rest: Bytes::new(),
            credit: 0,
            readable: false,
            out: None,
            held: None,
            in_holding: false,
            queued: 0,
            bodiless,
            send_left: None,
            cut_short: false,
            informational: 0,
            reset: None,
            malformed: false,
            stopped: None,
            room: false,
            full: false,
            in_ready: false,
        }
    }

    /// Nothing will be sent or told about it any more.
    pub(super) fn is_over(&self) -> bool {
        self.receiving == Receiving::Closed && self.sending == Sending::Closed && !self.has_news()
    }

    /// Whether something happened that was not told.
    pub(super) fn has_news(&self) -> bool {
        self.reset.is_some() || self.malformed || self.stopped.is_some() || self.room
    }

    pub(super) fn takes_body(&self) -> bool {
        self.sending == Sending::Open
    }

    /// What the queue still takes; nothing rather than a few bytes.
    pub(super) fn free(&self, full: usize) -> usize {
        const SMALL: usize = 4096;
        let free = full.saturating_sub(self.queued);
        if free < SMALL.min(full / 2) { 0 } else { free }
    }

    /// Both directions end without more.
    pub(super) fn cut(&mut self, code: u64) {
        if self.receiving == Receiving::Open {
            self.close_receiving();
            self.reset = Some(code);
        }
        self.stop_sending(code);
    }

    /// The other side wants no more of ours.
    pub(super) fn stop_sending(&mut self, code: u64) {
        if self.sending != Sending::Closed {
            self.close_sending();
            self.stopped = Some(code);
            self.room = false;
        }
    }

    /// Nothing more is taken in.
    pub(super) fn close_receiving(&mut self) {
        self.receiving = Receiving::Closed;
        self.readable = false;
        self.rest = Bytes::new();
        self.body = None;
    }

    /// Nothing more is sent.
    pub(super) fn close_sending(&mut self) {
        self.sending = Sending::Closed;
        self.queued = 0;
        self.held = None;
    }
}
