//! Answers of our own: what a client gets when its request is not forwarded, or the origin gave nothing to pass on.

use super::plan::Refused;
use super::trail::hex;
use super::{Abort, Downstream, Exchange, RequestState, ResponseState, Step, Turn};
use crate::config::Action;
use crate::http::respond::{self, Answer, BodyForm};
use crate::http::{Known, Reason, ResponseHead};
use spooky_uring::Chunk;
use std::rc::Rc;

impl Exchange {
    /// Answers with the status of a reason. Only while no final head was sent.
    pub fn refuse(&mut self, refused: Refused<'_>, downstream: &mut Downstream<'_>, turn: &mut Turn<'_>) -> Step {
        debug_assert_eq!(self.response, ResponseState::Waiting);
        self.blame(refused.reason);
        let id: [u8; 32] = hex(&self.trail.id);
        let exceeded = self.trail.exceeded.filter(|_| refused.reason == Reason::RateLimited);
        let answer = Answer {
            reason: refused.reason,
            request_id: &id,
            form: BodyForm::asked_by(&self.head.fields),
            allow: refused.allow.as_deref().map(str::as_bytes),
            retry_after: exceeded.map(|exceeded| exceeded.wait_s),
            proxy_status: self.snapshot.generation.observability.proxy_status,
            date: turn.date,
        };
        let mut head = ResponseHead::default();
        let mut body = Vec::new();
        answer.write(&mut head, &mut body);
        if let Some(exceeded) = exceeded {
            self.trail.left = Some(exceeded.into());
        }
        self.answer(head, body, downstream, turn)
    }

    /// Answers OPTIONS whose hops are used up (RFC 9110 §7.6.2).
    pub fn answer_options(&mut self, downstream: &mut Downstream<'_>, turn: &mut Turn<'_>) -> Step {
        let mut head = ResponseHead::default();
        respond::options(respond::ALLOW_DEFAULT, turn.date, &mut head);
        let id: [u8; 32] = hex(&self.trail.id);
        head.fields.push_known(Known::XRequestId, &id);
        self.answer(head, Vec::new(), downstream, turn)
    }

    /// Sends a request that came without TLS to the same URL at https.
    pub fn redirect_to_https(&mut self, port: u16, downstream: &mut Downstream<'_>, turn: &mut Turn<'_>) -> Step {
        let mut head = ResponseHead::default();
        if !respond::to_https(&self.head, port, turn.date, &mut head) {
            return self.refuse(Reason::Authority.into(), downstream, turn);
        }
        let id: [u8; 32] = hex(&self.trail.id);
        head.fields.push_known(Known::XRequestId, &id);
        self.answer(head, Vec::new(), downstream, turn)
    }

    /// Answers as the route says that takes the request.
    pub fn answer_route(&mut self, downstream: &mut Downstream<'_>, turn: &mut Turn<'_>) -> Step {
        let snapshot = Rc::clone(&self.snapshot);
        let Some(route) = self.plan.map(|plan| snapshot.generation.route(plan.route)) else {
            return self.refuse(Reason::Internal.into(), downstream, turn);
        };
        let mut head = ResponseHead::default();
        let body = match &route.action {
            Action::Redirect(redirect) => {
                redirect.write(&self.head, turn.date, &mut head);
                Vec::new()
            }
            Action::Respond(response) => {
                response.write(turn.date, &mut head);
                response.body.to_vec()
            }
            // It has no answer of its own.
            Action::Forward { .. } => return self.refuse(Reason::Internal.into(), downstream, turn),
        };
        let id: [u8; 32] = hex(&self.trail.id);
        head.fields.push_known(Known::XRequestId, &id);
        route.response_fields.apply(&mut head.fields);
        self.answer(head, body, downstream, turn)
    }

    /// Tells a client what is left of its rate.
    pub(super) fn tell_rate(&self, head: &mut ResponseHead) {
        if let Some(left) = self.trail.left {
            self.snapshot.generation.rate_limits[usize::from(left.limit.0)].tell(left, &mut head.fields);
        }
    }

    fn answer(
        &mut self,
        mut head: ResponseHead,
        body: Vec<u8>,
        downstream: &mut Downstream<'_>,
        turn: &mut Turn<'_>,
    ) -> Step {
        self.trail.note_head(head.status, turn.now);
        self.note_taken(turn.now);
        let bodiless = body.is_empty() || !respond::sends_body(&self.head.method);
        self.tell_rate(&mut head);
        if let Some(value) = downstream.alt_svc() {
            head.fields.push_known(Known::AltSvc, value);
        }
        downstream.send_head(&head, bodiless);
        if !bodiless {
            self.trail.response_bytes += body.len() as u64;
            downstream.send_body(Chunk::from_vec(body));
            downstream.end();
        }
        self.response = ResponseState::Complete;
        self.attempt.credit = 0;
        if self.request == RequestState::Streaming {
            self.request = RequestState::Abandoned;
            downstream.stop(Abort::NotNeeded);
        }
        Step::Discard
    }
}
