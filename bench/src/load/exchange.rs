//! One request and its response, whatever protocol carries them: what was sent, what came, and what that counts as.
//!
//! Refuses to know connections: they say what arrived on which stream, and are told what to do about its end.

use super::plan::{Plan, Until};
use super::tally::{Fault, Tally};
use boring::sha::Sha256;
use std::time::Instant;

/// What all connections of a run share.
pub struct Run<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Counters of the current phase.
    pub tally: &'a mut Tally,
    /// Received bytes stand here for a moment.
    pub scratch: &'a mut [u8],
    /// Whether the warm-up is over.
    pub measuring: bool,
}

/// One request.
pub struct Exchange {
    /// Its stream on the connection.
    pub stream: u64,
    /// When it was due; latency counts from here.
    due: Instant,
    /// When bytes last moved.
    moved: Instant,
    /// Started during the warm-up.
    warm: bool,
    /// Request body bytes not yet given to the connection; 0 also after the server stopped reading.
    pub upload_left: u64,
    status: u16,
    /// Content-length of the response.
    announced: Option<u64>,
    received: u64,
    digest: Option<Sha256>,
    /// Slow reader: body bytes wait in the transport.
    pub pending: bool,
    /// Slow reader: body bytes that may be taken now.
    pub allowance: f64,
    refilled: Instant,
}

impl Exchange {
    /// A request that starts now.
    pub fn new(stream: u64, due: Instant, now: Instant, run: &Run<'_>) -> Self {
        Self {
            stream,
            due,
            moved: now,
            warm: !run.measuring,
            upload_left: run.plan.body,
            status: 0,
            announced: None,
            received: 0,
            digest: run.plan.options.digest.then(Sha256::new),
            pending: false,
            allowance: 0.0,
            refilled: now,
        }
    }

    /// Takes a head; of trailers nothing is kept. False: it is none.
    pub fn receive_head(&mut self, status: u16, announced: Option<u64>, now: Instant, tally: &mut Tally) -> bool {
        self.moved = now;
        if self.status >= 200 {
            return true;
        }
        (self.status, self.announced) = (status, announced);
        if status >= 200 {
            tally.first_byte.record(now - self.due);
        }
        status >= 100
    }

    /// Takes a piece of the response body.
    pub fn receive_body(&mut self, bytes: &[u8], now: Instant, tally: &mut Tally) {
        self.moved = now;
        self.received += bytes.len() as u64;
        tally.bytes_down += bytes.len() as u64;
        if let Some(digest) = &mut self.digest {
            digest.update(bytes);
        }
    }

    /// A piece of the request body left.
    pub fn note_sent(&mut self, bytes: u64, now: Instant, tally: &mut Tally) {
        self.moved = now;
        self.upload_left -= bytes;
        tally.bytes_up += bytes;
    }

    /// Slow reader: `rate` KiB a second more may be taken, for the time since the last call.
    pub fn refill(&mut self, rate: f64, now: Instant) {
        let since = now.saturating_duration_since(self.refilled);
        self.refilled = now;
        // Half a second's worth at most, so that a pause does not end in a burst.
        self.allowance = (self.allowance + since.as_secs_f64() * rate * 1024.0).min(rate * 512.0).max(0.0);
    }

    /// What is wrong with the whole response, if anything.
    fn fault(&self, plan: &Plan) -> Option<Fault> {
        let options = &plan.options;
        let status_fits =
            options.expect_status.map_or((200..300).contains(&self.status), |status| self.status == status);
        let is_head = options.method.as_deref() == Some("HEAD");
        let expected = options.expect_bytes.or(self.announced.filter(|_| !is_head));
        if self.status < 200 {
            return Some(Fault::Protocol);
        }
        if !status_fits {
            return Some(Fault::Status);
        }
        expected.is_some_and(|bytes| bytes != self.received).then_some(Fault::Length)
    }

    /// A fixed number of requests counts only those that began after the warm-up; a fixed time counts all that end in it.
    fn counts(&self, run: &Run<'_>) -> bool {
        !(self.warm && run.measuring && matches!(run.plan.until, Until::Requests(_)))
    }
}

/// What the connection has to do about a stream that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Nothing.
    Done,
    /// The answer is there and the rest of the request is of no use.
    Early,
    /// Give the stream up.
    Failed,
}

/// The requests in flight on one connection.
#[derive(Default)]
pub struct Exchanges(Vec<Exchange>);

impl Exchanges {
    /// Requests in flight.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One more.
    pub fn push(&mut self, exchange: Exchange) {
        self.0.push(exchange);
    }

    /// The one of a stream, unless it has ended.
    pub fn find(&mut self, stream: u64) -> Option<&mut Exchange> {
        self.0.iter_mut().find(|exchange| exchange.stream == stream)
    }

    /// All.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Exchange> {
        self.0.iter_mut()
    }

    /// All.
    pub fn iter(&self) -> std::slice::Iter<'_, Exchange> {
        self.0.iter()
    }

    /// The response is whole: counted as what it turned out to be.
    pub fn finish(&mut self, stream: u64, now: Instant, run: &mut Run<'_>) -> Ending {
        let Some(at) = self.0.iter().position(|exchange| exchange.stream == stream) else {
            return Ending::Done;
        };
        if let Some(fault) = self.0[at].fault(run.plan) {
            self.fail(stream, fault, run);
            return Ending::Failed;
        }
        let exchange = self.0.swap_remove(at);
        let early = exchange.upload_left > 0;
        if exchange.counts(run) {
            run.tally.succeeded += 1;
            run.tally.latency.record(now - exchange.due);
            if let Some(digest) = exchange.digest {
                run.tally.note_digest(&digest.finish());
            }
        }
        if early { Ending::Early } else { Ending::Done }
    }

    /// The exchange failed.
    pub fn fail(&mut self, stream: u64, fault: Fault, run: &mut Run<'_>) {
        if let Some(at) = self.0.iter().position(|exchange| exchange.stream == stream) {
            let exchange = self.0.swap_remove(at);
            if exchange.counts(run) {
                run.tally.fail(fault);
            }
        }
    }

    /// All fail.
    pub fn fail_all(&mut self, fault: Fault, run: &mut Run<'_>) {
        for exchange in std::mem::take(&mut self.0) {
            if exchange.counts(run) {
                run.tally.fail(fault);
            }
        }
    }

    /// Those that made no progress for the time-out; a slow reader's own slowness is none of the server's.
    pub fn stale(&self, now: Instant, run: &Run<'_>) -> Vec<u64> {
        let timeout = run.plan.options.timeout;
        let is_stale = |e: &&Exchange| !e.pending && now.saturating_duration_since(e.moved) > timeout;
        self.0.iter().filter(is_stale).map(|exchange| exchange.stream).collect()
    }
}
