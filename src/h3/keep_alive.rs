//! Owns when a client that is silent while its requests run is asked whether it is there (PING), so that nobody takes the wait
//! for a slow backend, or the silence of a tunnel, for the end of the connection (RFC 9000 §10.1.2).
//!
//! A connection without requests is never kept (RFC 9114 §5.1). Each silence has one question: the transport repeats it until it
//! is answered, but its idle timeout begins anew with the first one only. So a client that is gone is found out one wait and
//! one idle timeout after its last packet, and what an exchange may wait for is bounded by its own times, as on every protocol.

use super::connection::Connection;
use super::streams::{Receiving, Sending};
use crate::limits::quic::{KEEP_ALIVE_LEAST, KEEP_ALIVE_PART};
use std::time::{Duration, Instant};

/// What is remembered of a client's silence.
#[derive(Debug)]
pub(super) struct KeepAlive {
    /// Silence after which it is asked; `None`: it never is.
    wait: Option<Duration>,
    /// Its last packet came.
    heard: Instant,
    /// It was asked since.
    asked: bool,
}

impl KeepAlive {
    /// Never asks, until [`Self::begin`].
    pub(super) fn new(now: Instant) -> Self {
        Self { wait: None, heard: now, asked: false }
    }

    /// The handshake is done. `wanted` is what an operator wants, `ours` and `theirs` after what silence the two ends
    /// take the connection for dead; zero: never.
    pub(super) fn begin(&mut self, wanted: Option<Duration>, ours: Duration, theirs: Duration) {
        let idle = [ours, theirs].into_iter().filter(|timeout| !timeout.is_zero()).min();
        let most = idle.map_or(Duration::MAX, |idle| (idle / KEEP_ALIVE_PART).max(KEEP_ALIVE_LEAST));
        self.wait = wanted.map(|wanted| wanted.min(most));
    }

    /// A packet came.
    #[inline]
    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.asked = false;
    }

    /// When the client is to be asked, if it says nothing before.
    #[inline]
    pub(super) fn due(&self) -> Option<Instant> {
        self.wait.filter(|_| !self.asked).and_then(|wait| self.heard.checked_add(wait))
    }

    /// Whether this silence has lasted long enough; once for each.
    fn take_due(&mut self, now: Instant) -> bool {
        let due = self.due().is_some_and(|at| at <= now);
        self.asked |= due;
        due
    }
}

impl Connection {
    /// Time has come for [`Self::keep_alive_due`]: asks the client, if there is something to keep it for.
    pub(super) fn keep_alive(&mut self, now: Instant) {
        if self.keep_alive.take_due(now) && self.has_running() {
            // Refused only where there is no path, and so nobody to ask.
            if self.quic.send_ack_eliciting().is_ok() {
                self.shared.counters.keep_alives.add(1);
            }
        }
    }

    /// When [`Self::keep_alive`] wants to be called.
    #[inline]
    pub(super) fn keep_alive_due(&self) -> Option<Instant> {
        if self.streams.is_empty() || self.is_closing() { None } else { self.keep_alive.due() }
    }

    /// Whether more is to come in either direction of any request. A response of which only its last bytes wait for the
    /// client's window has no time of its own any more: the client has to come for it.
    fn has_running(&self) -> bool {
        self.streams.values().any(|stream| {
            stream.receiving == Receiving::Open || matches!(stream.sending, Sending::Idle | Sending::Open)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn begun(wanted: Option<Duration>, ours: Duration, theirs: Duration) -> (KeepAlive, Instant) {
        let start = Instant::now();
        let mut keep_alive = KeepAlive::new(start);
        assert_eq!(keep_alive.due(), None, "not before the handshake is done");
        keep_alive.begin(wanted, ours, theirs);
        (keep_alive, start)
    }

    #[test]
    fn the_shorter_idle_timeout_bounds_the_wait() {
        let zero = Duration::ZERO;
        for (wanted, ours, theirs, wait) in [
            (15 * SECOND, 30 * SECOND, zero, 10 * SECOND),
            (15 * SECOND, 30 * SECOND, 300 * SECOND, 10 * SECOND),
            (15 * SECOND, 300 * SECOND, 6 * SECOND, 2 * SECOND),
            (15 * SECOND, 300 * SECOND, 300 * SECOND, 15 * SECOND),
            (15 * SECOND, zero, zero, 15 * SECOND),
            // Who wants to be asked all the time is not.
            (15 * SECOND, 30 * SECOND, Duration::from_millis(1), KEEP_ALIVE_LEAST),
        ] {
            let (keep_alive, start) = begun(Some(wanted), ours, theirs);
            assert_eq!(keep_alive.due(), Some(start + wait), "{wanted:?} {ours:?} {theirs:?}");
        }
    }

    #[test]
    fn nobody_is_asked_where_it_is_off() {
        let (mut keep_alive, start) = begun(None, 30 * SECOND, 30 * SECOND);
        assert_eq!(keep_alive.due(), None);
        assert!(!keep_alive.take_due(start + 100 * SECOND));
    }

    #[test]
    fn each_silence_has_one_question() {
        let (mut keep_alive, start) = begun(Some(SECOND), 30 * SECOND, 30 * SECOND);
        assert!(!keep_alive.take_due(start));
        assert!(keep_alive.take_due(start + SECOND));
        assert_eq!(keep_alive.due(), None, "the transport repeats it");
        assert!(!keep_alive.take_due(start + 9 * SECOND));
        keep_alive.hear(start + 10 * SECOND);
        assert_eq!(keep_alive.due(), Some(start + 11 * SECOND));
        keep_alive.hear(start + Duration::from_millis(10_500));
        assert!(!keep_alive.take_due(start + 11 * SECOND), "it spoke meanwhile");
    }
}
