//! The life of one request: route → admit → balance → attempt → stream → finish.
//!
//! Owns what is decided about a request and how far each of its two directions has come. It refuses to know sockets,
//! HTTP versions and the clock: the worker hands in events, the two [`ends`] and the time of the turn, and does what
//! the returned step says. Read [`ends`] for the verbs, [`request`] and [`response`] for the two directions,
//! [`deadline`] for what may take how long, [`refuse`] for the answers of our own.
//!
//! ```text
//! request:   Streaming ──end──▶ Complete          response:  Waiting ──head──▶ Streaming ──end──▶ Complete
//!               └──reset/stop──▶ Abandoned                      │                  └──abort──▶ Broken
//!                                                               └──our own answer──▶ Complete
//! ```
//! A tunnel is an exchange whose head asked for one and whose origin agreed ([`response`]): both bodies then go on at once,
//! without limits on their length, and an end of one is passed on as an end of one. Until the origin agreed the client
//! is granted nothing.
//!
//! The exchange is over once the request is not `Streaming` and the response is `Broken`, or `Complete` with nothing
//! left in the protocol's queue but a short tail. An end in one direction says nothing of the other.

pub mod admission;
pub mod affinity;
pub mod attempt;
pub mod deadline;
pub mod ends;
pub mod inflight;
pub mod plan;
pub mod refuse;
pub mod replay;
pub mod request;
pub mod response;
pub mod stamp;
pub mod trail;
pub mod verdict;

pub use attempt::Attempt;
pub use ends::{Abort, Downstream, Upstream};
pub use plan::{Plan, Snapshot};
pub use trail::Trail;
pub use verdict::Verdict;

use crate::config::{BackendId, UpstreamId};
use crate::http::date;
use crate::http::{Reason, RequestHead, ResponseHead};
use crate::limits::{self, AddressKey};
use crate::overload::Ticket;
use crate::resilience::RetryPolicy;
use std::rc::Rc;
use std::time::Instant;

/// How far the request's direction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestState {
    /// The client may send more.
    Streaming,
    /// The client's end was seen.
    Complete,
    /// The rest is not read, or will not come.
    Abandoned,
}

/// How far the response's direction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseState {
    /// No final head was sent.
    Waiting,
    /// A final head was sent, the body follows.
    Streaming,
    /// All of it was given to the protocol.
    Complete,
    /// It was cut short.
    Broken,
}

/// What the worker has to do after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing but what the ends queued.
    Continue,
    /// The attempt failed in a way that another one may mend.
    Retry(Again),
    /// The attempt is over, and others go on.
    Leave,
    /// The attempt is over and its connection must not be used again; the exchange goes on or ends by itself.
    Discard,
}

/// Why another attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// The connection was closed while nobody used it: the same again on a fresh one, at once.
    Stale,
    /// The backend did not take the connection, so nobody has worked on the request: another one is asked, at once.
    Elsewhere,
    /// The backend failed: another one is asked after a pause, if the budget permits it.
    Failed,
    /// The backend answered with a status that another one is asked after: as [`Self::Failed`], but if there is no other
    /// attempt, that answer is the client's.
    Answered,
}

/// A place in the queue of requests whose upstream is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// What the place is left with.
    pub ticket: Ticket,
    /// Since when.
    pub since: Instant,
    /// When the exchange has waited for long enough.
    pub until: Instant,
}

/// Where an attempt stands: a connection by its slot in the worker's table, and a stream on it. While the connection is being
/// made, and on HTTP/1.1, the stream is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upkey {
    /// The connection.
    pub origin: u32,
    /// The stream.
    pub stream: u64,
}

/// What a step needs of the turn it happens in.
pub struct Turn<'a> {
    /// The time of the turn.
    pub now: Instant,
    /// The value of `Date`.
    pub date: &'a [u8; date::LENGTH],
    /// A response head that was passed on, so that its memory can be used again.
    pub spare: Option<ResponseHead>,
}

/// One request with its response.
pub struct Exchange {
    /// The request as it goes upstream.
    pub head: Box<RequestHead>,
    /// What was decided for it; `None` while (or because) it was refused before a route was found.
    pub plan: Option<Plan>,
    /// The hash of what it is kept together with; `None`: nothing.
    pub affinity: Option<u64>,
    /// The generation that admitted it.
    pub snapshot: Rc<Snapshot>,
    /// The next attempt takes no used connection: one of them was stale.
    pub needs_fresh: bool,
    /// How far the request is.
    pub request: RequestState,
    /// How far the response is.
    pub response: ResponseState,
    /// What the log line will say.
    pub trail: Trail,
    /// The attempt that is spoken of: the one that runs, or the last one.
    pub attempt: Attempt,
    /// Attempts that run beside it.
    /// Invariant: no more than the way's hedging has, each on another backend.
    others: Vec<Attempt>,
    /// The client's head is the one of the attempt that is spoken of.
    answered: bool,
    /// When another attempt begins beside those that run.
    pub hedge_at: Option<Instant>,
    /// When the next attempt begins, while the exchange pauses before it.
    pub retry_at: Option<Instant>,
    /// Backends that were tried and failed.
    /// Invariant: no more entries than a request has attempts.
    tried: Vec<BackendId>,
    /// What is kept of the request's body, to be sent again.
    replay: replay::Replay,
    /// A final head that may be dropped for another attempt, until that is decided.
    held: Option<Box<response::Held>>,
    /// Why the attempt before this one failed.
    pub failure: Option<Reason>,
    /// Body bytes allowed to the client and not yet received.
    request_credit: usize,
    /// When each direction last moved, for the idle timers.
    moved: deadline::Moved,
    /// Permits that are given back when the exchange ends.
    pub permits: inflight::Permits,
    /// Whose request it is, where anything is counted by that.
    pub client: Option<AddressKey>,
    /// Its place among those who wait for room at the upstream.
    /// Invariant: one that waits holds no unit of its upstream, and no final head was sent.
    pub waiting: Option<Waiting>,
    /// The client waits for 100 (Continue) before it sends its body.
    continue_owed: bool,
    /// The tunnel that the request asked for is open.
    tunnel: bool,
    /// Set once an origin-side stream of unbounded duration was recognised (event streams, gRPC).
    endless: bool,
    /// The deadline that the worker's wheel holds for this exchange, to re-arm it lazily.
    pub armed: Option<(Instant, spooky_uring::TimerKey)>,
}

impl Exchange {
    /// An exchange that has just got its head; `end` says that no body follows, `plan` where it goes.
    pub fn new(
        head: Box<RequestHead>,
        end: bool,
        plan: Option<Plan>,
        snapshot: Rc<Snapshot>,
        trail: Trail,
        now: Instant,
    ) -> Self {
        let continue_owed = head.expect_continue && !end;
        // Without a way there is no attempt.
        let replay = plan.map_or(replay::Replay::Lost, |plan| {
            replay::Replay::new(&head, end, &snapshot.generation.way(plan.way).retry)
        });
        Self {
            head,
            plan,
            affinity: None,
            snapshot,
            needs_fresh: false,
            request: if end { RequestState::Complete } else { RequestState::Streaming },
            response: ResponseState::Waiting,
            trail,
            attempt: Attempt::none(now),
            others: Vec::new(),
            answered: false,
            hedge_at: None,
            retry_at: None,
            tried: Vec::new(),
            replay,
            held: None,
            failure: None,
            request_credit: 0,
            moved: deadline::Moved::new(now),
            permits: inflight::Permits::default(),
            client: None,
            waiting: None,
            continue_owed,
            tunnel: false,
            endless: false,
            armed: None,
        }
    }

    /// Whether nothing is left to do; `pending` is what the downstream protocol still queues.
    pub fn is_over(&self, pending: usize) -> bool {
        self.request != RequestState::Streaming
            && match self.response {
                ResponseState::Broken => true,
                ResponseState::Complete => pending <= limits::RESPONSE_TAIL_BYTES,
                ResponseState::Waiting | ResponseState::Streaming => false,
            }
    }

    /// Whether the attempt's connection has carried all of both directions.
    pub fn is_done_upstream(&self) -> bool {
        self.request == RequestState::Complete && self.response == ResponseState::Complete
    }

    /// Whether `backend` was tried already.
    pub fn was_tried(&self, backend: BackendId) -> bool {
        self.tried.contains(&backend)
    }

    /// Whether an upstream has a backend that was not tried.
    pub fn has_untried(&self, upstream: UpstreamId) -> bool {
        let backends = self.snapshot.generation.upstream(upstream).backends.clone();
        backends.map(BackendId).any(|backend| !self.was_tried(backend))
    }

    /// Counts `backend` as tried; the next attempt goes elsewhere.
    pub fn mark_tried(&mut self, backend: BackendId) {
        if !self.was_tried(backend) {
            self.tried.push(backend);
        }
    }

    /// The next attempt begins.
    pub fn begin_attempt(&mut self, attempt: Attempt, now: Instant) {
        self.trail.attempts = self.trail.attempts.saturating_add(1);
        self.trail.retried_for = self.failure;
        self.trail.hedges = self.trail.hedges.saturating_add(attempt.hedge.into());
        self.attempt = attempt;
        self.note_attempt(now);
    }

    /// The upstream that is to answer; `None`: the request has no route, or one that answers itself.
    pub fn upstream(&self) -> Option<UpstreamId> {
        self.plan?.upstream
    }

    /// The rules of further attempts.
    pub fn retry_policy(&self) -> Option<&RetryPolicy> {
        Some(&self.snapshot.generation.way(self.plan?.way).retry)
    }

    /// Whether the exchange has become a tunnel.
    pub fn is_tunnel(&self) -> bool {
        self.tunnel
    }

    /// Whether the exchange asks for a tunnel, or has become one.
    pub fn asks_tunnel(&self) -> bool {
        self.head.protocol.is_some()
    }

    /// Whether the client may still send.
    pub fn request_is_open(&self) -> bool {
        self.request == RequestState::Streaming
    }

    /// Notes why the exchange did not go as asked; the first reason stays.
    pub fn blame(&mut self, reason: Reason) {
        self.trail.reason.get_or_insert(reason);
    }
}
