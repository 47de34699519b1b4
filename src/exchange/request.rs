//! The request's direction: from the client to the origin.

use super::{Abort, Attempt, Downstream, Exchange, RequestState, ResponseState, Step, Upstream};
use crate::config::{Backend, HostPolicy};
use crate::h1::Framing;
use crate::http::{Event, Known, Method, Reason, RequestHead};
use crate::limits;
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
        now: Instant,
    ) {
        let snapshot = &self.snapshot;
        let host = self.plan.and_then(|plan| match &snapshot.generation.upstream(plan.upstream).host_policy {
            HostPolicy::PassThrough => None,
            HostPolicy::Rewrite(host) => Some(&**host),
            HostPolicy::Upstream => Some(&*backend.authority),
        });
        upstream.send_head(&self.head, host, framing(&self.head, self.request));
        self.attempt = Attempt::Sent { reused };
        self.note_attempt(now);
        self.trail.note_sent(now);
        if self.request == RequestState::Complete {
            upstream.end();
        } else {
            self.endless |= is_endless(self.head.fields.get(Known::ContentType));
            self.allow_request(downstream, 0, now);
        }
        self.response_credit = 0;
        self.allow_response(upstream, downstream, now);
    }

    /// Allows the client as much as the origin's socket has room for; `unsent` bytes are queued there.
    pub fn allow_request(&mut self, downstream: &mut Downstream<'_>, unsent: usize, now: Instant) {
        if self.request != RequestState::Streaming || !matches!(self.attempt, Attempt::Sent { .. }) {
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
        now: Instant,
    ) -> Step {
        match event {
            Event::Body(chunk) => {
                self.request_credit = self.request_credit.saturating_sub(chunk.len());
                self.trail.request_bytes += chunk.len() as u64;
                self.note_request(now);
                if self.is_request_too_large() {
                    return self.refuse(Reason::BodyTooLarge.into(), downstream, now);
                }
                if let Some(upstream) = upstream
                    && self.request == RequestState::Streaming
                {
                    upstream.send_body(chunk);
                }
                Step::Continue
            }
            Event::Trailers(fields) => {
                if let Some(upstream) = upstream
                    && self.request == RequestState::Streaming
                {
                    upstream.send_trailers(&fields);
                }
                Step::Continue
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
                self.blame(refusal.reason);
                if refusal.malformed || self.response != ResponseState::Waiting {
                    return self.give_up(Abort::Malformed, downstream);
                }
                self.refuse(refusal.reason.into(), downstream, now)
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

    /// Ends both directions at once: nothing more is read from the client, and what was sent to it is no clean end.
    pub fn give_up(&mut self, abort: Abort, downstream: &mut Downstream<'_>) -> Step {
        if self.request == RequestState::Streaming {
            self.request = RequestState::Abandoned;
            downstream.stop(abort);
        }
        if self.response != ResponseState::Complete || downstream.pending() > 0 {
            self.response = ResponseState::Broken;
            downstream.reset(abort);
        }
        Step::Discard
    }

    fn is_request_too_large(&self) -> bool {
        let Some(plan) = self.plan else {
            return false;
        };
        let most = self.snapshot.generation.route(plan.route).limits.max_request_body_bytes;
        most.is_some_and(|most| self.trail.request_bytes > most)
    }

    /// Whether the failed attempt may be made again: nothing of a response was seen, and either nothing of the
    /// request was read by anybody, or the connection was stale and repeating the request changes nothing.
    pub fn may_retry(&self) -> bool {
        if self.response != ResponseState::Waiting || self.tried.len() >= limits::ATTEMPTS_MAX {
            return false;
        }
        match self.attempt {
            Attempt::Connecting => true,
            Attempt::Sent { reused } => reused && self.head.method.is_idempotent() && self.trail.request_bytes == 0,
        }
    }

    /// The next attempt begins.
    pub fn connect(&mut self, now: Instant) {
        self.attempt = Attempt::Connecting;
        self.note_attempt(now);
    }
}

/// How the request's body is framed towards an HTTP/1.1 origin.
fn framing(head: &RequestHead, request: RequestState) -> Framing {
    match (request, head.content_length) {
        (RequestState::Complete, None) => match head.method {
            // RFC 9110 §8.6: a method that anticipates content states that there is none.
            Method::Post | Method::Put | Method::Patch => Framing::Length(0),
            _ => Framing::None,
        },
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
