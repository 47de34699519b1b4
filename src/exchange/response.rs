//! The response's direction: from the origin to the client.

use super::attempt::Stage;
use super::request::is_endless;
use super::{Abort, Again, Downstream, Exchange, RequestState, ResponseState, Step, Turn, Upstream, Verdict};
use crate::http::{Event, Known, Protocol, Reason, ResponseHead, Side, forward};
use std::time::Instant;

/// A final head that was not passed on yet; `end` says that no body follows.
pub(super) struct Held {
    head: ResponseHead,
    end: bool,
}

impl Exchange {
    /// Allows the origin as much as the client's stream has room for.
    /// `false`: there is no more room than it was allowed already.
    pub fn allow_response(&mut self, upstream: &mut Upstream<'_>, downstream: &Downstream<'_>, now: Instant) -> bool {
        let room = downstream.room();
        let more = room > self.attempt.credit;
        if more {
            if self.attempt.credit == 0 {
                self.note_response(now);
            }
            upstream.grant(room - self.attempt.credit);
            self.attempt.credit = room;
        }
        more
    }

    /// Takes one event of the origin's side.
    pub fn on_response(
        &mut self,
        event: Event<ResponseHead>,
        downstream: &mut Downstream<'_>,
        turn: &mut Turn<'_>,
    ) -> Step {
        let now = turn.now;
        match event {
            // What the gate lets through as a success has opened the tunnel.
            Event::Head { head, end } if self.asks_tunnel() && head.status == 200 => {
                self.open_tunnel(head, end, downstream, turn)
            }
            Event::Head { head, end } => {
                self.note_answer(head.status, now);
                if self.may_replace(head.status) {
                    self.held = Some(Box::new(Held { head, end }));
                    self.leave_backend();
                    return Step::Retry(Again::Answered);
                }
                self.pass_on(head, end, downstream, turn)
            }
            Event::Informational(mut head) => {
                self.continue_owed &= head.status != 100;
                forward::response_downstream(&mut head, self.received_version(), turn.date);
                downstream.send_informational(&head);
                Step::Continue
            }
            Event::Body(chunk) => {
                self.attempt.credit = self.attempt.credit.saturating_sub(chunk.len());
                self.trail.response_bytes += chunk.len() as u64;
                self.note_response(now);
                if self.is_response_too_large(self.trail.response_bytes) {
                    return self.fail(Reason::UpstreamBodyTooLarge, downstream, turn);
                }
                downstream.send_body(chunk);
                Step::Continue
            }
            // Only the end counts that follows.
            Event::Trailers(_) if self.tunnel => Step::Continue,
            Event::Trailers(fields) => {
                downstream.send_trailers(&fields);
                self.complete(downstream)
            }
            Event::End => {
                if self.response == ResponseState::Streaming {
                    self.note_response(now);
                    downstream.end();
                    return self.complete(downstream);
                }
                Step::Continue
            }
            Event::Reset(_) => self.fail(Reason::UpstreamReset, downstream, turn),
            Event::Refused(refusal) => self.fail(refusal.reason, downstream, turn),
            // Half of a tunnel that nobody reads is broken.
            Event::Stop(_) if self.tunnel => self.fail(Reason::UpstreamReset, downstream, turn),
            // The origin does not want the rest of the request; its response says why.
            Event::Stop(_) | Event::Room => Step::Continue,
        }
    }

    /// The final head goes to the client: from here on there is no other attempt.
    fn pass_on(
        &mut self,
        mut head: ResponseHead,
        end: bool,
        downstream: &mut Downstream<'_>,
        turn: &mut Turn<'_>,
    ) -> Step {
        self.trail.note_head(head.status, turn.now);
        self.note_response(turn.now);
        self.note_taken(turn.now);
        if self.is_response_too_large(head.content_length.unwrap_or(0)) {
            return self.fail(Reason::UpstreamBodyTooLarge, downstream, turn);
        }
        self.endless |= is_endless(head.fields.get(Known::ContentType));
        forward::response_downstream(&mut head, self.received_version(), turn.date);
        self.edit_response(&mut head);
        if let Some(value) = downstream.alt_svc() {
            head.fields.push_known(Known::AltSvc, value);
        }
        downstream.send_head(&head, end);
        turn.spare = Some(head);
        self.response = ResponseState::Streaming;
        self.answered = true;
        if end { self.complete(downstream) } else { Step::Continue }
    }

    /// No other attempt is made: the answer that was held for it is the client's.
    pub fn release(&mut self, downstream: &mut Downstream<'_>, turn: &mut Turn<'_>) -> Step {
        match self.held.take() {
            Some(held) => self.pass_on(held.head, held.end, downstream, turn),
            None => Step::Continue,
        }
    }

    /// Another attempt is made: the answer that was held is dropped. Whether it is there to its end, and the request too.
    pub fn drop_held(&mut self) -> bool {
        self.failure = Some(Reason::UpstreamStatus);
        self.held.take().is_some_and(|held| held.end) && self.request == RequestState::Complete
    }

    /// The backend of the attempt is not asked again.
    fn leave_backend(&mut self) {
        if let Some(backend) = self.attempt.backend {
            self.mark_tried(backend);
        }
    }

    /// The origin has said nothing to a client that waits for its word: it is told to go on. An origin that does not know
    /// Expect would otherwise wait for the body, and the client for it (RFC 9110 §10.1.1).
    pub fn tell_to_continue(&mut self, downstream: &mut Downstream<'_>) -> Step {
        self.continue_owed = false;
        downstream.send_informational(&ResponseHead::new(100));
        Step::Continue
    }

    /// The origin has not looked at the request, and says so.
    pub fn reject(&mut self, downstream: &mut Downstream<'_>, turn: &mut Turn<'_>) -> Step {
        if self.response == ResponseState::Waiting {
            self.attempt.stage = Stage::Rejected;
        }
        self.fail(Reason::UpstreamReset, downstream, turn)
    }

    /// The attempt failed: another one, an answer of our own, or a broken stream, whatever is still possible.
    pub fn fail(&mut self, reason: Reason, downstream: &mut Downstream<'_>, turn: &mut Turn<'_>) -> Step {
        self.note_failure(reason, turn.now);
        match self.response {
            ResponseState::Waiting if self.has_others() && reason.side() == Side::Upstream => {
                if self.attempt.stage != Stage::Rejected && !self.was_stale(reason) {
                    self.leave_backend();
                }
                self.failure = Some(reason);
                Step::Leave
            }
            ResponseState::Waiting if self.may_retry(reason) => {
                match self.attempt.stage {
                    // A used connection that broke says nothing of the backend.
                    Stage::Sent if self.was_stale(reason) => {
                        self.needs_fresh = true;
                        self.failure = Some(reason);
                        return Step::Retry(Again::Stale);
                    }
                    // It may have been the last one that this connection took.
                    Stage::Rejected => {}
                    Stage::Connecting | Stage::Sent => self.leave_backend(),
                }
                self.failure = Some(reason);
                Step::Retry(if self.attempt.stage == Stage::Connecting { Again::Elsewhere } else { Again::Failed })
            }
            ResponseState::Waiting => self.refuse(reason.into(), downstream, turn),
            ResponseState::Streaming => {
                self.blame(reason);
                self.give_up(Abort::Internal, downstream)
            }
            ResponseState::Complete if self.tunnel => {
                self.blame(reason);
                self.give_up(Abort::Internal, downstream)
            }
            ResponseState::Complete | ResponseState::Broken => Step::Discard,
        }
    }

    /// The final head came.
    fn note_answer(&mut self, status: u16, now: Instant) {
        let timed = self.request != RequestState::Streaming || self.asks_tunnel();
        self.attempt.verdict = Some(Verdict::Answered { status, waited: self.waited(now), timed });
    }

    /// The attempt failed, which says something of the backend if it was the backend's doing.
    fn note_failure(&mut self, reason: Reason, now: Instant) {
        let late = matches!(reason, Reason::ResponseTimeout | Reason::UpstreamSendTimeout);
        let ours = matches!(reason, Reason::UpstreamBodyTooLarge | Reason::UpstreamNoTunnel);
        if reason.side() != Side::Upstream || ours {
            return;
        }
        // A connection that an origin has had enough of says nothing of the next one.
        let stale = self.attempt.stage == Stage::Rejected || self.attempt.is_reused();
        let waited = self.waited(now);
        self.attempt.verdict = match self.response {
            ResponseState::Waiting if !stale || late => Some(Verdict::Failed(waited)),
            ResponseState::Streaming if !self.tunnel => Some(Verdict::BrokeOff(waited)),
            _ => return,
        };
    }

    /// The origin agreed: from now on bytes go both ways, and mean nothing to us.
    fn open_tunnel(
        &mut self,
        mut head: ResponseHead,
        end: bool,
        downstream: &mut Downstream<'_>,
        turn: &mut Turn<'_>,
    ) -> Step {
        self.note_answer(head.status, turn.now);
        self.tunnel = true;
        self.note_request(turn.now);
        self.note_response(turn.now);
        self.note_taken(turn.now);
        forward::response_downstream(&mut head, self.received_version(), turn.date);
        self.edit_response(&mut head);
        let key = self.head.protocol.and_then(|Protocol::WebSocket { key }| key);
        let status = downstream.open_tunnel(&head, key);
        self.trail.note_head(status, turn.now);
        turn.spare = Some(head);
        self.response = ResponseState::Streaming;
        self.allow_request(downstream, 0, turn.now);
        if end {
            downstream.end();
            return self.complete(downstream);
        }
        Step::Continue
    }

    /// The origin's socket takes nothing more. While it may still answer, its own direction tells what became of it; where
    /// that has ended, nothing is left.
    pub fn tunnel_send_failed(&mut self, downstream: &mut Downstream<'_>, turn: &mut Turn<'_>) -> Step {
        match self.response {
            ResponseState::Complete => self.fail(Reason::UpstreamReset, downstream, turn),
            _ => Step::Continue,
        }
    }

    /// The whole response was given to the client's side.
    fn complete(&mut self, downstream: &mut Downstream<'_>) -> Step {
        self.response = ResponseState::Complete;
        self.attempt.credit = 0;
        // The client may go on in its direction of a tunnel.
        if self.tunnel || self.request != RequestState::Streaming {
            return Step::Continue;
        }
        // An early final response: it is delivered whole, the rest of the request is not wanted (RFC 9114 §4.1),
        // and the origin's connection is in the middle of a request, so nobody else may use it.
        self.request = RequestState::Abandoned;
        downstream.stop(Abort::NotNeeded);
        Step::Discard
    }

    /// What the route changes in a final response, and what is said of the client's rate.
    fn edit_response(&self, head: &mut ResponseHead) {
        if let Some(plan) = self.plan {
            self.snapshot.generation.route(plan.route).response_fields.apply(&mut head.fields);
        }
        self.tell_rate(head);
    }

    fn is_response_too_large(&self, bytes: u64) -> bool {
        let Some(plan) = self.plan else {
            return false;
        };
        if self.tunnel {
            return false;
        }
        let most = self.snapshot.generation.way(plan.way).limits.max_response_body_bytes;
        most.is_some_and(|most| bytes > most)
    }
}
