//! What may take how long: one deadline per exchange, derived from where it stands, never stored twice.
//!
//! A body's idle time runs only while the side that is waited for owes bytes: a client that may not send, or an
//! origin whose bytes nobody can take, is not late. A tunnel has one time for both.

use super::attempt::Stage;
use super::{Attempt, Exchange, RequestState, ResponseState};
use crate::config::Timeouts;
use crate::http::Reason;
use crate::limits;
use std::time::{Duration, Instant};

/// When something last moved.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// The first header byte of the request.
    began: Instant,
    /// Body bytes came from the client, or were allowed to it after a pause.
    request: Instant,
    /// Body bytes came from the origin, or were allowed to it after a pause.
    response: Instant,
    /// The client took bytes.
    taken: Instant,
}

impl Moved {
    /// Everything counts from `now`.
    pub fn new(now: Instant) -> Self {
        Self { began: now, request: now, response: now, taken: now }
    }
}

/// An upper bound for exchanges that no time limit applies to right now; they are looked at again then.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

impl Exchange {
    /// The attempt began, or was sent.
    pub(super) fn note_attempt(&mut self, now: Instant) {
        self.attempt.since = now;
        if self.request == RequestState::Streaming {
            self.moved.request = now;
        }
        self.moved.response = now;
    }

    /// The client sent body bytes or was allowed to.
    pub(super) fn note_request(&mut self, now: Instant) {
        self.moved.request = now;
    }

    /// The origin sent body bytes or was allowed to.
    pub(super) fn note_response(&mut self, now: Instant) {
        self.moved.response = now;
    }

    /// The client took response bytes.
    pub fn note_taken(&mut self, now: Instant) {
        self.moved.taken = now;
    }

    /// How long the origin has had the request: since its head was sent, or its last byte if that came later.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.attempt.since.max(self.moved.request))
    }

    /// The next moment at which something is late, with what it then is. `pending` is what the downstream protocol
    /// queues for the client, `unsent` what our socket queues for the origin.
    pub fn deadline(&self, pending: usize, unsent: usize) -> (Instant, Reason) {
        if self.tunnel && !self.is_ended() {
            return self.late_tunnel();
        }
        let late = self.late(pending, unsent);
        match self.timeouts().and_then(|timeouts| timeouts.total) {
            Some(total) if self.moved.began + total < late.0 => (self.moved.began + total, Reason::RequestTimeout),
            _ => late,
        }
    }

    /// When a client that waits for 100 (Continue) has waited for long enough.
    pub fn continue_at(&self) -> Option<Instant> {
        let waits = self.continue_owed
            && self.response == ResponseState::Waiting
            && self.request == RequestState::Streaming
            && self.attempt.stage == Stage::Sent;
        waits.then(|| self.attempt.since + limits::CONTINUE_WAIT)
    }

    /// When something is to be done although nothing came: the next attempt begins, or one beside those that run, or the client
    /// is told to go on.
    pub fn wake_at(&self) -> Option<Instant> {
        self.retry_at.or(self.hedge_at).or_else(|| self.continue_at())
    }

    /// A tunnel may be silent in one direction for as long as it likes: only if nothing passes at all, it is late.
    fn late_tunnel(&self) -> (Instant, Reason) {
        let moved = self.moved.request.max(self.moved.response).max(self.moved.taken);
        let idle = self.timeouts().map_or(LOOK_AGAIN, |timeouts| timeouts.tunnel_idle);
        (moved + idle, Reason::TunnelIdle)
    }

    /// Whether both directions have ended; what is queued may still be on its way.
    fn is_ended(&self) -> bool {
        self.request != RequestState::Streaming
            && matches!(self.response, ResponseState::Complete | ResponseState::Broken)
    }

    fn late(&self, pending: usize, unsent: usize) -> (Instant, Reason) {
        let idle = (self.moved.taken + LOOK_AGAIN, Reason::RequestTimeout);
        let Some(timeouts) = self.timeouts() else {
            return idle;
        };
        // Bytes for the client stand in the queue and it does not take them.
        if pending > 0 && self.attempt.credit == 0 || self.response == ResponseState::Complete {
            return (self.moved.taken + timeouts.client_send, Reason::ClientSendTimeout);
        }
        if let Some(waiting) = self.waiting {
            return (waiting.until, Reason::QueueTimeout);
        }
        match self.response {
            // No attempt is under way; the next one begins at a time of its own.
            ResponseState::Waiting if self.retry_at.is_some() => idle,
            ResponseState::Waiting => {
                let first = self.late_attempt(&self.attempt, unsent, timeouts);
                let others = self.others.iter().map(|other| self.late_attempt(other, 0, timeouts));
                others.fold(first, |first, other| if other.0 < first.0 { other } else { first })
            }
            ResponseState::Streaming if !self.endless && self.attempt.credit > 0 => {
                (self.moved.response.max(self.moved.request) + timeouts.backend_body_idle, Reason::UpstreamBodyIdle)
            }
            _ => idle,
        }
    }

    /// When an attempt that has no answer is late.
    fn late_attempt(&self, attempt: &Attempt, unsent: usize, timeouts: &Timeouts) -> (Instant, Reason) {
        match (attempt.stage, self.request) {
            (Stage::Connecting | Stage::Rejected, _) => {
                (attempt.since + timeouts.backend_connect, Reason::ConnectTimeout)
            }
            (Stage::Sent, RequestState::Streaming) if self.request_credit > 0 && !self.endless => {
                (self.moved.request + timeouts.client_body_idle, Reason::ClientBodyIdle)
            }
            (Stage::Sent, RequestState::Streaming) if self.endless => {
                (self.moved.taken + LOOK_AGAIN, Reason::RequestTimeout)
            }
            // The origin has to take the body, or to answer it.
            (Stage::Sent, _) => {
                let late = if unsent > 0 { Reason::UpstreamSendTimeout } else { Reason::ResponseTimeout };
                let most = self.per_try().map_or(timeouts.backend, |most| most.min(timeouts.backend));
                (self.moved.request.max(attempt.since) + most, late)
            }
        }
    }

    /// Speaks of an attempt that is late, if the one that is spoken of is not.
    pub fn turn_to_late(&mut self, unsent: usize, now: Instant) {
        let Some(timeouts) = self.timeouts() else { return };
        if self.response != ResponseState::Waiting || self.late_attempt(&self.attempt, unsent, timeouts).0 <= now {
            return;
        }
        let late = self.others.iter().position(|other| self.late_attempt(other, 0, timeouts).0 <= now);
        if let Some(at) = late {
            std::mem::swap(&mut self.attempt, &mut self.others[at]);
        }
    }

    /// How long this attempt may take to answer, if another one may follow it or it is one that followed.
    fn per_try(&self) -> Option<Duration> {
        let policy = self.retry_policy().filter(|policy| policy.on.timeout)?;
        policy.per_try_timeout.filter(|_| self.is_repeatable())
    }

    fn timeouts(&self) -> Option<&Timeouts> {
        let plan = self.plan.as_ref()?;
        Some(&self.snapshot.generation.way(plan.way).timeouts)
    }
}
