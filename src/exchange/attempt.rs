//! One try of a request on one backend: where it stands, what it holds, and what it has said of its backend.
//!
//! An exchange keeps the attempt that is spoken of in place, and those that run beside it in a list that is empty for nearly
//! all ([`Exchange::turn_to`], ADR 0018). Attempts of one exchange that run at once are on different backends.
//!
//! Owns no decision: whether there is another one is [`super::request`]'s, what becomes of what it holds the worker's.

use super::inflight::BackendPermit;
use super::{Exchange, RequestState, ResponseState, Upkey, Verdict};
use crate::config::BackendId;
use crate::resilience::Pass;
use crate::telemetry::kinds::Protocol;
use std::time::{Duration, Instant};

/// How far an attempt has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// No connection yet.
    Connecting,
    /// The head was queued on a connection.
    Sent,
    /// The origin has said that it did not look at the request.
    Rejected,
}

/// A connection took the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) at: Instant,
    /// Others used the connection before, so it may turn out to be stale.
    pub(super) reused: bool,
    /// What is spoken there.
    pub(super) protocol: Protocol,
}

/// What an attempt holds, on its way back.
#[derive(Debug)]
#[must_use]
pub struct Holdings {
    /// Its place on a connection.
    pub place: Option<Upkey>,
    /// Its backend's permit.
    pub permit: Option<BackendPermit>,
    /// Its pass, with the backend whose it is.
    pub pass: Option<(BackendId, Pass)>,
}

/// One attempt. What is left of one that is over says how it went, until the next one begins.
#[derive(Debug)]
pub struct Attempt {
    /// Whom it is made on; `None`: there was no attempt yet.
    pub backend: Option<BackendId>,
    /// Its place; `None`: it has none yet, or no more.
    pub place: Option<Upkey>,
    /// The unit of its backend's limit. Goes back when it is over, or with the exchange.
    pub permit: Option<BackendPermit>,
    /// The circuit breaker's permission. Goes back with the first verdict, or when it is over.
    pub pass: Option<Pass>,
    /// What it has said of its backend since it was last asked.
    pub(super) verdict: Option<Verdict>,
    pub(super) stage: Stage,
    /// It began beside others.
    pub hedge: bool,
    /// When it began.
    began: Instant,
    /// When it began to connect, or was sent.
    pub(super) since: Instant,
    pub(super) taken: Option<Taken>,
    /// Response body bytes allowed to the origin and not yet received.
    pub(super) credit: usize,
}

impl Attempt {
    /// No attempt, before the first.
    pub fn none(now: Instant) -> Self {
        Self {
            backend: None,
            place: None,
            permit: None,
            pass: None,
            verdict: None,
            stage: Stage::Connecting,
            hedge: false,
            began: now,
            since: now,
            taken: None,
            credit: 0,
        }
    }

    /// One that begins now, with the backend's permit and its breaker's pass.
    pub fn new(backend: BackendId, permit: BackendPermit, pass: Option<Pass>, hedge: bool, now: Instant) -> Self {
        Self { backend: Some(backend), permit: Some(permit), pass, hedge, ..Self::none(now) }
    }

    /// How long ago it began.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    /// Whether it was sent on a connection that others used before.
    pub(super) fn is_reused(&self) -> bool {
        self.stage == Stage::Sent && self.taken.is_some_and(|taken| taken.reused)
    }

    /// What it has said of its backend since it was last asked.
    pub fn take_verdict(&mut self) -> Option<(BackendId, Verdict)> {
        Some((self.backend?, self.verdict.take()?))
    }

    /// Gives the pass out, with the backend whose it is.
    pub fn take_pass(&mut self) -> Option<(BackendId, Pass)> {
        Some((self.backend?, self.pass.take()?))
    }

    /// Gives out all it holds.
    pub fn surrender(&mut self) -> Holdings {
        Holdings { place: self.place.take(), permit: self.permit.take(), pass: self.take_pass() }
    }

    /// Whether it holds a place of this backend.
    fn holds(&self, backend: BackendId) -> bool {
        self.permit.as_ref().is_some_and(|permit| permit.backend() == backend)
    }
}

impl Exchange {
    /// All attempts, the one that is spoken of first.
    pub fn attempts(&self) -> impl Iterator<Item = &Attempt> {
        std::iter::once(&self.attempt).chain(&self.others)
    }

    /// Whether an attempt holds a place of `backend`.
    pub fn is_on(&self, backend: BackendId) -> bool {
        self.attempts().any(|attempt| attempt.holds(backend))
    }

    /// Speaks of the attempt on `backend` from now on. `false`: there is none.
    #[inline]
    pub fn turn_to(&mut self, backend: BackendId) -> bool {
        if self.attempt.backend == Some(backend) {
            return true;
        }
        match self.others.iter().position(|other| other.backend == Some(backend)) {
            Some(at) => {
                std::mem::swap(&mut self.attempt, &mut self.others[at]);
                true
            }
            None => false,
        }
    }

    /// Whether attempts run beside the one that is spoken of.
    #[inline]
    pub fn has_others(&self) -> bool {
        !self.others.is_empty()
    }

    /// The attempt that is spoken of stands beside those that come.
    pub fn stand_beside(&mut self, now: Instant) {
        let running = std::mem::replace(&mut self.attempt, Attempt::none(now));
        self.others.push(running);
    }

    /// The attempt that is spoken of is over: it is another one's turn.
    pub fn turn_to_another(&mut self) {
        if let Some(other) = self.others.pop() {
            self.attempt = other;
        }
    }

    /// Takes an attempt that nobody waits for any more: one has answered, or nobody will.
    pub fn take_loser(&mut self) -> Option<Attempt> {
        self.others.pop()
    }

    /// How many more attempts may begin beside those that run, if the request stays without an answer; 0 for a request that
    /// more than one backend must not see.
    pub fn hedges_left(&self) -> u32 {
        let Some(plan) = self.plan else { return 0 };
        let way = self.snapshot.generation.way(plan.way);
        let Some(policy) = way.hedging else { return 0 };
        if !self.head.method.is_safe() || self.asks_tunnel() || self.response != ResponseState::Waiting {
            return 0;
        }
        let attempts = way.retry.attempts.saturating_sub(u32::from(self.trail.attempts));
        policy.max.saturating_sub(u32::from(self.trail.hedges)).min(attempts)
    }

    /// Whether another attempt may begin now beside those that run: its request is whole and has no body (RFC 9110 §9.2.1).
    pub fn may_hedge(&self) -> bool {
        self.hedges_left() > 0
            && self.retry_at.is_none()
            && self.request == RequestState::Complete
            && self.replay.pieces().is_some()
            && self.replay.bytes() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_str;
    use crate::exchange::inflight::Inflight;
    use crate::exchange::{Snapshot, Trail};
    use crate::http::{Method, RequestHead};
    use crate::identity::Handshake;
    use crate::route::RouteId;
    use std::rc::Rc;
    use std::sync::Arc;

    const HEDGED: &str = "version = 1\n[listen]\n[upstream.one]\nroute = { path_prefix = \"/\" }\nbackends = [ \
        { id = \"a\", address = \"http://127.0.0.1:1\" }, { id = \"b\", address = \"http://127.0.0.1:2\" }, \
        { id = \"c\", address = \"http://127.0.0.1:3\" } ]\n[resilience.hedging]\ndelay = \"50ms\"\nmax = 2\n";

    fn exchange(method: Method, end: bool) -> (Exchange, Inflight) {
        let (generation, _) = from_str("t", HEDGED).expect("right");
        let inflight = Inflight::new(&generation);
        let snapshot = Rc::new(Snapshot::new(Arc::new(generation)));
        let now = Instant::now();
        let protocol = Protocol::H2;
        let client = "192.0.2.1:1".parse().unwrap();
        let trail = Trail::new(now, [0; 16], client, protocol, Rc::new(Handshake::default()));
        let plan = crate::exchange::Plan {
            route: RouteId(0),
            way: crate::config::WayId(0),
            upstream: Some(crate::config::UpstreamId(0)),
        };
        let head = Box::new(RequestHead { method, ..RequestHead::default() });
        (Exchange::new(head, end, Some(plan), snapshot, trail, now), inflight)
    }

    fn begin(exchange: &mut Exchange, inflight: &mut Inflight, backend: u32, hedge: bool) {
        let (backend, now) = (BackendId(backend), Instant::now());
        let permit = inflight.enter(backend);
        exchange.begin_attempt(Attempt::new(backend, permit, None, hedge, now), now);
    }

    #[test]
    fn the_attempt_that_speaks_is_the_one_that_is_spoken_of() {
        let (mut exchange, mut inflight) = exchange(Method::Get, true);
        begin(&mut exchange, &mut inflight, 0, false);
        assert!(exchange.turn_to(BackendId(0)) && !exchange.turn_to(BackendId(1)));
        for backend in [1, 2] {
            exchange.stand_beside(Instant::now());
            begin(&mut exchange, &mut inflight, backend, true);
        }
        for backend in [0, 2, 1, 0, 0, 2] {
            assert!(exchange.turn_to(BackendId(backend)));
            assert_eq!((exchange.attempt.backend, exchange.attempt.hedge), (Some(BackendId(backend)), backend != 0));
            assert_eq!(exchange.attempts().count(), 3);
            assert!((0..3).all(|one| exchange.is_on(BackendId(one))));
        }
        // Two are over; the last one is spoken of again.
        for left in [2, 1] {
            inflight.leave(exchange.attempt.permit.take().unwrap());
            exchange.turn_to_another();
            assert_eq!(exchange.attempts().count(), left);
        }
        assert!(!exchange.has_others() && exchange.attempt.permit.is_some());
        let held: u32 = (0..3).map(|one| inflight.on_backend(BackendId(one))).sum();
        assert_eq!(held, 1);
    }

    #[test]
    fn only_what_may_be_asked_twice_and_has_no_body_is_hedged() {
        for (method, end, may) in [
            (Method::Get, true, true),
            (Method::Head, true, true),
            (Method::Options, true, true),
            (Method::Get, false, false),
            (Method::Post, true, false),
            (Method::Put, true, false),
            (Method::Delete, true, false),
        ] {
            let (exchange, _) = exchange(method.clone(), end);
            assert_eq!(exchange.may_hedge(), may, "{method:?} {end}");
        }
    }

    #[test]
    fn hedges_have_a_bound() {
        let (mut exchange, mut inflight) = exchange(Method::Get, true);
        begin(&mut exchange, &mut inflight, 0, false);
        for left in [2, 1] {
            assert_eq!(exchange.hedges_left(), left);
            exchange.stand_beside(Instant::now());
            begin(&mut exchange, &mut inflight, 3 - left, true);
        }
        assert!(exchange.hedges_left() == 0 && !exchange.may_hedge());
    }
}
