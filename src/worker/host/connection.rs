//! One connection of a host: requests in, answers out, one after another.
//!
//! ```text
//! Idle ──head──▶ Reading ──request over, or too much of it──▶ Answering ──end──▶ Idle
//!        │ echo, or status ≥ 400                                ▲    └──▶ Lingering ──FIN or time──▶ closed
//!        └───────────────────────────────────────────────────────┘
//! ```
//! An answer waits until a small request body is over, because a response that ends before its request costs the
//! connection (RFC 9112 §9.3). Every wait has a deadline, read again when the host's timer fires.

use super::server::Settings;
use super::service::{Answer, Body, Piece, Request, Service, Source};
use crate::h1::{Closing, Next, ServerConnection};
use crate::http::Output;
use crate::http::{Event, Fields, Known, RequestHead, ResponseHead, Scheme};
use spooky_uring::{Chunk, Io, StreamId};
use std::net::SocketAddr;
use std::time::Instant;

/// Bytes of an answer that may wait to be sent; a source is asked for no more.
const SEND_QUEUE_BYTES: usize = 128 * 1024;

/// Request body that is read and thrown away at once.
const DISCARD_STEP_BYTES: usize = 64 * 1024;

/// What the connection does.
#[derive(Debug)]
enum State<S> {
    /// No request is under way.
    Idle,
    /// The answer is decided and waits for the end of the request; `left` bytes of it will still be read.
    Reading { answer: Answer<S>, left: usize },
    /// The answer's body is on its way.
    Answering(Sending<S>),
    /// FIN was sent; what still comes is dropped until then.
    Lingering { until: Instant },
}

/// Where the rest of the answer comes from.
#[derive(Debug)]
enum Sending<S> {
    Source {
        source: S,
        /// It has nothing before then.
        wait: Option<Instant>,
    },
    Echo {
        /// Bytes that came and were not granted again yet.
        owed: usize,
        /// They end the answer once the request is over.
        trailers: Option<Fields>,
    },
    /// All was given to the machine, before the request was over: the connection ends behind it.
    Over,
}

/// What the host does next with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It lives; run it again at that moment at the latest.
    Until(Instant),
    /// Close it.
    Close,
    /// Close it with a reset: the client must not take what it got for whole.
    Abort,
}

/// One accepted connection.
#[derive(Debug)]
pub struct Connection<S> {
    /// Its socket.
    pub stream: StreamId,
    listener: usize,
    client: Option<SocketAddr>,
    machine: ServerConnection,
    state: State<S>,
    output: Output,
    /// Whether the socket is being read.
    reading: bool,
    /// Something moved then.
    progress: Instant,
    /// What was queued when last looked at, to see progress of a slow reader.
    queued: usize,
    /// The request head began to arrive then.
    head_since: Option<Instant>,
    /// It served a request before: the longer idle time applies.
    served: bool,
    /// The socket failed, or its send direction did.
    failed: bool,
    finished: bool,
}

impl<S: Source> Connection<S> {
    /// A connection that was just accepted.
    pub fn new(
        stream: StreamId,
        listener: usize,
        client: Option<SocketAddr>,
        settings: &Settings,
        now: Instant,
    ) -> Self {
        Self {
            stream,
            listener,
            client,
            machine: ServerConnection::new(Scheme::Http, settings.limits),
            state: State::Idle,
            output: Output::new(),
            reading: true,
            progress: now,
            queued: 0,
            head_since: Some(now),
            served: false,
            failed: false,
            finished: false,
        }
    }

    /// Bytes arrived.
    pub fn received(&mut self, chunk: Chunk, now: Instant) {
        self.progress = now;
        if matches!(self.state, State::Idle) {
            self.head_since.get_or_insert(now);
        }
        if !matches!(self.state, State::Lingering { .. }) {
            self.machine.receive(chunk);
        }
    }

    /// The client finished its direction.
    pub fn received_end(&mut self) {
        self.finished = true;
        self.machine.receive_end();
    }

    /// The socket failed.
    pub fn failed(&mut self) {
        self.failed = true;
    }

    /// Lets no request follow the present one.
    pub fn drain(&mut self) {
        self.machine.drain();
    }

    /// Does everything that can be done now.
    pub fn run<V: Service<Source = S>>(
        &mut self,
        service: &mut V,
        settings: &Settings,
        date: &[u8],
        io: &mut impl Io,
        requests: &mut u64,
    ) -> Verdict {
        let now = io.now();
        if self.failed {
            return Verdict::Abort;
        }
        // Once the machine closes there is nothing more to read, and a fault would only be said again.
        while self.machine.closing() == Closing::No {
            self.pump(io, now, date);
            match self.machine.next_event() {
                Ok(Some(event)) => self.event(event, service, settings, date, now, requests),
                Ok(None) => break,
                Err(fault) => match fault.next {
                    Next::Respond => self.refuse(fault.reason().map_or(400, |r| r.status()), date),
                    Next::Close if self.output.is_empty() => return Verdict::Close,
                    Next::Close => break,
                    Next::Reset => return Verdict::Abort,
                },
            }
        }
        self.flush(io);
        self.settle(settings, io, now)
    }

    fn event<V: Service<Source = S>>(
        &mut self,
        event: Event<Box<RequestHead>>,
        service: &mut V,
        settings: &Settings,
        date: &[u8],
        now: Instant,
        requests: &mut u64,
    ) {
        match event {
            Event::Head { head, end } => {
                *requests += 1;
                self.served = true;
                self.head_since = None;
                let answer =
                    service.answer(&Request { head: &head, listener: self.listener, client: self.client, now });
                self.decide(answer, &head, end, settings, date);
                self.machine.recycle(head);
            }
            Event::Refused(refusal) => {
                *requests += 1;
                self.refuse(refusal.status, date);
            }
            Event::Body(chunk) => self.body(chunk),
            Event::Trailers(fields) => {
                if let State::Answering(Sending::Echo { trailers, .. }) = &mut self.state {
                    *trailers = Some(fields);
                }
            }
            Event::End => match std::mem::replace(&mut self.state, State::Idle) {
                State::Reading { answer, .. } => self.begin(answer, true, date),
                State::Answering(Sending::Echo { trailers, .. }) => self.end(trailers),
                other => self.state = other,
            },
            // The machine of this protocol has no other events on its server side.
            Event::Informational(_) | Event::Reset(_) | Event::Stop(_) | Event::Room => {}
        }
    }

    /// Chooses when the answer begins.
    fn decide(&mut self, mut answer: Answer<S>, head: &RequestHead, end: bool, settings: &Settings, date: &[u8]) {
        if !answer.head.has_body(&head.method) && !matches!(answer.body, Body::Whole(_)) {
            answer.body = Body::Empty;
        }
        let echo = matches!(answer.body, Body::Echo);
        if !end && echo {
            if head.expect_continue {
                self.machine.send_informational(&ResponseHead::new(100), &mut self.output);
            }
            self.begin(answer, false, date);
            self.machine.grant(DISCARD_STEP_BYTES);
        } else if !end && answer.head.status < 400 && !head.expect_continue {
            self.machine.grant(DISCARD_STEP_BYTES);
            let left = settings.discard_bytes;
            self.state = State::Reading { answer, left };
        } else {
            self.begin(answer, end, date);
        }
    }

    /// Sends the head and what of the body is there.
    fn begin(&mut self, mut answer: Answer<S>, request_over: bool, date: &[u8]) {
        answer.head.fields.push_known(Known::Date, date);
        if !request_over && !matches!(answer.body, Body::Echo) {
            // The rest of the request will not be read: nothing can follow it.
            self.machine.drain();
        }
        match answer.body {
            Body::Empty => {
                self.machine.send_head(&answer.head, true, &mut self.output);
                self.after_end(request_over);
            }
            Body::Whole(chunk) => {
                answer.head.content_length = Some(chunk.len() as u64);
                self.machine.send_head(&answer.head, false, &mut self.output);
                self.machine.send_body(chunk, &mut self.output);
                self.machine.end(&mut self.output);
                self.after_end(request_over);
            }
            Body::Source(source) => {
                self.machine.send_head(&answer.head, false, &mut self.output);
                self.state = State::Answering(Sending::Source { source, wait: None });
            }
            Body::Echo => {
                self.machine.send_head(&answer.head, request_over, &mut self.output);
                if request_over {
                    self.after_end(true);
                } else {
                    self.state = State::Answering(Sending::Echo { owed: 0, trailers: None });
                }
            }
        }
    }

    /// Ends an answer whose request is over.
    fn end(&mut self, trailers: Option<Fields>) {
        match trailers {
            Some(fields) => self.machine.send_trailers(&fields, &mut self.output),
            None => self.machine.end(&mut self.output),
        }
        self.after_end(true);
    }

    fn after_end(&mut self, request_over: bool) {
        self.state = if request_over { State::Idle } else { State::Answering(Sending::Over) };
    }

    fn body(&mut self, chunk: Chunk) {
        let len = chunk.len();
        match &mut self.state {
            State::Reading { left, .. } => {
                let next = (*left).min(len);
                *left -= next;
                self.machine.grant(next);
            }
            State::Answering(Sending::Echo { owed, .. }) => {
                *owed += len;
                self.machine.send_body(chunk, &mut self.output);
            }
            State::Answering(Sending::Source { .. } | Sending::Over) | State::Idle | State::Lingering { .. } => {}
        }
    }

    /// An answer for a request that the gate or the machine refused. The machine closes behind it.
    fn refuse(&mut self, status: u16, date: &[u8]) {
        let line = crate::http::head::phrase(status);
        self.begin(Answer::text(status, line), false, date);
    }

    /// Moves an answer on while there is room.
    fn pump(&mut self, io: &mut impl Io, now: Instant, date: &[u8]) {
        loop {
            let waiting = io.queued(self.stream) + self.output.len();
            let room = SEND_QUEUE_BYTES.saturating_sub(waiting);
            match &mut self.state {
                State::Answering(Sending::Source { source, wait }) => {
                    if room == 0 || wait.is_some_and(|wait| wait > now) {
                        return;
                    }
                    match source.next(room, now) {
                        Piece::Bytes(chunk) => {
                            *wait = None;
                            self.progress = now;
                            self.machine.send_body(chunk, &mut self.output);
                        }
                        Piece::Wait(until) => {
                            self.progress = now;
                            *wait = Some(until);
                            return;
                        }
                        Piece::Trailers(fields) => return self.end(Some(fields)),
                        Piece::End => return self.end(None),
                    }
                }
                State::Answering(Sending::Echo { owed, .. }) => {
                    if room > 0 {
                        self.machine.grant(std::mem::take(owed));
                    }
                    return;
                }
                State::Reading { left: 0, .. } => {
                    // More than is worth reading: the answer goes first, and the connection ends behind it.
                    if let State::Reading { answer, .. } = std::mem::replace(&mut self.state, State::Idle) {
                        self.begin(answer, false, date);
                    }
                }
                _ => return,
            }
        }
    }

    fn flush(&mut self, io: &mut impl Io) {
        while let Some(chunk) = self.output.pop() {
            io.send(self.stream, chunk);
        }
    }

    /// After everything was done: reads or not, closes or not, and when to look again.
    fn settle(&mut self, settings: &Settings, io: &mut impl Io, now: Instant) -> Verdict {
        let queued = io.queued(self.stream);
        if queued != self.queued {
            self.queued = queued;
            self.progress = now;
        }
        if let State::Lingering { until } = self.state {
            if self.finished || until <= now {
                return Verdict::Close;
            }
            return Verdict::Until(until);
        }
        let quiet = queued == 0;
        match self.machine.closing() {
            Closing::Now if quiet => return Verdict::Close,
            Closing::Linger if quiet => {
                if self.finished {
                    return Verdict::Close;
                }
                io.shutdown(self.stream);
                self.read(true, io);
                let until = now + settings.linger;
                self.state = State::Lingering { until };
                return Verdict::Until(until);
            }
            _ => {}
        }
        self.read(self.machine.wants_read(), io);
        if self.machine.is_within_head() {
            self.head_since.get_or_insert(now);
        } else if self.served && self.machine.is_idle() {
            self.head_since = None;
        }
        self.deadline(settings, now, quiet)
    }

    fn read(&mut self, wanted: bool, io: &mut impl Io) {
        if wanted != self.reading {
            self.reading = wanted;
            if wanted {
                io.resume(self.stream);
            } else {
                io.pause(self.stream);
            }
        }
    }

    /// What is waited for, until when, and what happens then.
    fn deadline(&mut self, settings: &Settings, now: Instant, quiet: bool) -> Verdict {
        let (until, then) = match &self.state {
            _ if !quiet => (self.progress + settings.send_timeout, Verdict::Abort),
            State::Idle => match self.head_since {
                Some(since) => (since + settings.head_timeout, Verdict::Close),
                None => (self.progress + settings.idle_timeout, Verdict::Close),
            },
            State::Answering(Sending::Source { wait, .. }) => {
                // It waits for its own moment only; with room and no wait, pump would have gone on.
                return Verdict::Until(wait.unwrap_or(now));
            }
            State::Reading { .. } | State::Answering(_) => (self.progress + settings.body_timeout, Verdict::Abort),
            State::Lingering { until } => (*until, Verdict::Close),
        };
        if until <= now { then } else { Verdict::Until(until) }
    }
}
