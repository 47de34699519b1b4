//! One try of a request on one backend: where it stands, what it holds, and what it has said of its backend.
//!
//! Owns no decision: whether there is another one is [`super::request`]'s, what becomes of what it holds the worker's.

use super::inflight::BackendPermit;
use super::{Upkey, Verdict};
use crate::config::BackendId;
use crate::resilience::Pass;
use crate::telemetry::kinds::Protocol;
use std::time::Instant;

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
            since: now,
            taken: None,
            credit: 0,
        }
    }

    /// One that begins now, with the backend's permit and its breaker's pass.
    pub fn new(backend: BackendId, permit: BackendPermit, pass: Option<Pass>, now: Instant) -> Self {
        Self { backend: Some(backend), permit: Some(permit), pass, ..Self::none(now) }
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
}
