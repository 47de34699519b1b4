//! The request's direction: from the client to the origin.

use super::attempt::{Stage, Taken};
use super::{Abort, Downstream, Exchange, RequestState, ResponseState, Step, Turn, Upstream};
use crate::config::Backend;
use crate::h1::Framing;
use crate::http::{Event, Known, Reason, RequestHead, Side};
use crate::limits;
use crate::resilience::RetryPolicy;
use crate::telemetry::kinds::Protocol;
use std::time::Instant;

impl Exchange {
    /// The attempt's connection is there: the request goes out on it, and both sides get their first credit.
    /// `reused` says that the connection carried others before, so that it may turn out to be stale.
    pub fn send(
        &mut self,
        upstream: &mut Upstream<'_>,
        downstream: &mut Downstream<'_>,
        backend: &Backend,
        reused: bool,
        protocol: Protocol,
        now: Instant,
    ) {
        let policy = &self.snapshot.generation.upstream(backend.upstream).host_policy;
        let host = policy.host(&self.head, &backend.authority);
        match self.asks_tunnel() {
            true => upstream.ask_tunnel(&self.head, host, &self.trail.id),
            false => upstream.send_head(&self.head, host, framing(&self.head, self.request, self.replay.bytes())),
        }
        self.attempt.stage = Stage::Sent;
        self.attempt.taken = Some(Taken { at: now, reused, protocol });
        self.note_attempt(now);
        // What an earlier attempt was given.
        for chunk in self.replay.pieces().unwrap_or_default() {
            upstream.send_body(chunk.clone());
        }
        if self.request == RequestState::Complete {
            upstream.end();
        } else {
            self.endless |= is_endless(self.head.fields.get(Known::ContentType));
            self.allow_request(downstream, 0, now);
        }
        self.attempt.credit = 0;
        self.allow_response(upstream, downstream, now);
    }

    /// Allows the client as much as the origin's socket has room for; `unsent` bytes are queued there.
    pub fn allow_request(&mut self, downstream: &mut Downstream<'_>, unsent: usize, now: Instant) {
        if self.request != RequestState::Streaming || self.attempt.stage != Stage::Sent {
            return;
        }
        // What a client sends before the origin agreed may be no message of its protocol.
        if self.asks_tunnel() && !self.tunnel {
            return;
        }
        let room = limits::REQUEST_QUEUE_BYTES.saturating_sub(unsent);
        // Small grants would make small reads: wait until half of the window is free.
        if room.saturating_sub(self.request_credit) >= limits::REQUEST_QUEUE_BYTES / 2 {
            if self.request_credit == 0 {
                self.note_request(now);
            }
            downstream.grant(room - self.request_credit);
            self.request_credit = room;
        }
    }

    /// Takes one event of the client's stream. `upstream` is there while the attempt is connected.
    pub fn on_request(
        &mut self,
        event: Event<Box<RequestHead>>,
        upstream: Option<&mut Upstream<'_>>,
        downstream: &mut Downstream<'_>,
        turn: &mut Turn<'_>,
    ) -> Step {
        let now = turn.now;
        match event {
            Event::Body(chunk) => {
                self.continue_owed = false;
                self.request_credit = self.request_credit.saturating_sub(chunk.len());
                self.trail.request_bytes += chunk.len() as u64;
                self.note_request(now);
                if self.is_request_too_large() {
                    return self.fail_client(Reason::BodyTooLarge, downstream, turn);
                }
                if self.request != RequestState::Streaming {
                    return Step::Continue;
                }
                self.replay.note(&chunk);
                match upstream {
                    Some(upstream) => upstream.send_body(chunk),
                    None => return self.check_replay(downstream, turn),
                }
                Step::Continue
            }
            // Nothing but bytes belongs into a tunnel (RFC 9113 §8.5); only the end counts that follows.
            Event::Trailers(_) if self.tunnel => Step::Continue,
            Event::Trailers(fields) => {
                if self.request != RequestState::Streaming {
                    return Step::Continue;
                }
                self.replay.lose();
                match upstream {
                    Some(upstream) => upstream.send_trailers(&fields),
                    None => return self.check_replay(downstream, turn),
                }
                Step::Continue
            }
            // It went before there was a tunnel to half-close.
            Event::End if self.asks_tunnel() && !self.tunnel => {
                self.blame(Reason::ClientAbort);
                self.give_up(Abort::Cancelled, downstream)
            }
            Event::End => {
                self.note_request(now);
                if self.request == RequestState::Streaming {
                    self.request = RequestState::Complete;
                    if let Some(upstream) = upstream {
                        upstream.end();
                    }
                }
                Step::Continue
            }
            Event::Refused(refusal) => {
                if refusal.malformed && !downstream.answers_malformed() {
                    self.blame(refusal.reason);
                    return self.give_up(Abort::Malformed, downstream);
                }
                self.fail_client(refusal.reason, downstream, turn)
            }
            // The response has begun: it is still wanted, only the rest of the request will not come.
            Event::Reset(_) if self.response == ResponseState::Streaming && !self.tunnel => {
                self.request = RequestState::Abandoned;
                Step::Continue
            }
            // A client that cuts its request short, or does not want the response, is gone for this exchange.
            Event::Reset(_) | Event::Stop(_) => {
                self.blame(Reason::ClientAbort);
                self.give_up(Abort::Cancelled, downstream)
            }
            Event::Room => {
                self.note_taken(now);
                Step::Continue
            }
            // A second head is the protocol's to refuse; none reaches an exchange.
            Event::Head { .. } | Event::Informational(_) => Step::Continue,
        }
    }

    /// The client did something that ends the exchange: an answer while that is possible, a broken stream after it.
    pub fn fail_client(&mut self, reason: Reason, downstream: &mut Downstream<'_>, turn: &mut Turn<'_>) -> Step {
        if self.response == ResponseState::Waiting {
            return self.refuse(reason.into(), downstream, turn);
        }
        self.blame(reason);
        self.give_up(Abort::Cancelled, downstream)
    }

    /// Ends both directions at once: nothing more is read from the client, and what was sent to it is no clean end.
    pub fn give_up(&mut self, abort: Abort, downstream: &mut Downstream<'_>) -> Step {
        if self.request == RequestState::Streaming {
            self.request = RequestState::Abandoned;
            downstream.stop(abort);
        }
        // A tunnel whose one direction ended cleanly does not end so as a whole.
        if self.tunnel || self.response != ResponseState::Complete || downstream.pending() > 0 {
            self.response = ResponseState::Broken;
            downstream.reset(abort);
        }
        Step::Discard
    }

    fn is_request_too_large(&self) -> bool {
        let Some(plan) = self.plan else {
            return false;
        };
        if self.tunnel {
            return false;
        }
        let most = self.snapshot.generation.way(plan.way).limits.max_request_body_bytes;
        most.is_some_and(|most| self.trail.request_bytes > most)
    }

    /// Bytes came between two attempts: if they are not kept, there is no second one.
    fn check_replay(&mut self, downstream: &mut Downstream<'_>, turn: &mut Turn<'_>) -> Step {
        if self.replay.pieces().is_some() {
            return Step::Continue;
        }
        let reason = self.failure.unwrap_or(Reason::UpstreamReset);
        self.refuse(reason.into(), downstream, turn)
    }

    /// Whether the failed attempt may be made again: nothing of a response was seen, the request is still there whole, and
    /// either nobody has read it or repeating it changes nothing (RFC 9110 §9.2.2).
    pub(super) fn may_retry(&self, reason: Reason) -> bool {
        // Time that is up for the whole is up for any attempt.
        if self.replay.pieces().is_none() || reason.side() != Side::Upstream {
            return false;
        }
        let Some(policy) = self.retry_policy() else {
            return false;
        };
        let (more, on) = (self.has_attempts(policy), &policy.on);
        match self.attempt.stage {
            Stage::Connecting => more && on.connect_failure,
            // Whatever the method (RFC 9113 §8.7).
            Stage::Rejected => more && on.refused_stream,
            Stage::Sent if self.was_stale(reason) => self.is_repeatable(),
            Stage::Sent if breaks(reason) => more && on.reset && self.is_repeatable(),
            Stage::Sent if matches!(reason, Reason::ResponseTimeout | Reason::UpstreamSendTimeout) => {
                more && on.timeout && policy.per_try_timeout.is_some() && self.is_repeatable()
            }
            Stage::Sent => false,
        }
    }

    /// Whether an answer with this status may be dropped for another attempt.
    pub(super) fn may_replace(&self, status: u16) -> bool {
        self.retry_policy().is_some_and(|policy| {
            policy.on.has_status(status) && (self.has_attempts(policy) || self.has_others()) && self.is_repeatable()
        })
    }

    fn has_attempts(&self, policy: &RetryPolicy) -> bool {
        // A stale connection was no attempt.
        let made = u32::from(self.trail.attempts).saturating_sub(u32::from(self.needs_fresh));
        made < policy.attempts
    }

    /// Whether a used connection was closed meanwhile, which says nothing of the backend: that is no attempt.
    pub(super) fn was_stale(&self, reason: Reason) -> bool {
        self.attempt.is_reused() && !self.needs_fresh && breaks(reason)
    }

    /// Whether another backend may be given the request after one may have read it.
    pub(super) fn is_repeatable(&self) -> bool {
        self.head.method.is_idempotent() && !self.asks_tunnel() && self.replay.pieces().is_some()
    }
}

/// Whether the connection broke, rather than said something wrong.
fn breaks(reason: Reason) -> bool {
    matches!(reason, Reason::UpstreamClosed | Reason::UpstreamReset)
}

/// How the request's body is framed towards an HTTP/1.1 origin; `kept` bytes of it are there already.
fn framing(head: &RequestHead, request: RequestState, kept: usize) -> Framing {
    match (request, head.content_length) {
        // All of it: its length is known by now.
        (RequestState::Complete, None) if kept > 0 => Framing::Length(kept as u64),
        // RFC 9110 §8.6: a method that anticipates content states that there is none.
        (RequestState::Complete, None) if head.method.expects_content() => Framing::Length(0),
        (RequestState::Complete, None) => Framing::None,
        (_, Some(length)) => Framing::Length(length),
        (_, None) => Framing::Chunked,
    }
}

/// Media types whose streams may be silent for as long as they like.
pub(super) fn is_endless(content_type: Option<&[u8]>) -> bool {
    let Some(value) = content_type else {
        return false;
    };
    let begins = |prefix: &[u8]| value.len() >= prefix.len() && value[..prefix.len()].eq_ignore_ascii_case(prefix);
    begins(b"text/event-stream") || begins(b"application/grpc")
}
