//! What the counters and the access log learn of an exchange, and what the counters learn of the ring.

use super::Worker;
use crate::exchange::Exchange;
use crate::exchange::trail::hex;
use crate::h3;
use crate::http::{Reason, Side};
use crate::telemetry::kinds::{self, AttemptFailure, CloseCode, ConnectFailure, Protocol, StatusClass};
use crate::telemetry::{ExchangeEnd, QuicEnd, WorkerCells};
use spooky_uring::Io;
use std::io::{self, ErrorKind};

impl<I: Io> Worker<I> {
    /// An exchange is over: it is counted, and becomes a line.
    pub(super) fn record(&mut self, exchange: &Exchange) {
        let trail = &exchange.trail;
        self.cells.exchange_finished(&ExchangeEnd {
            status: trail.status.unwrap_or(0),
            reason: trail.reason,
            route: exchange.plan.map(|plan| plan.route.0 as usize),
            request_bytes: trail.request_bytes,
            response_bytes: trail.response_bytes,
            duration: self.now.saturating_duration_since(trail.received),
            first_byte: trail.first_byte(),
        });
        if let Some(backend) = trail.backend
            && trail.connected().is_some()
        {
            let cells = self.cells.backend(backend.0 as usize);
            match trail.reason {
                Some(reason) if reason.side() == Side::Upstream => {}
                _ => cells.responses.count(StatusClass::of(trail.status.unwrap_or(0))),
            }
            if let (Some(connected), Some(first)) = (trail.connected(), trail.first_byte()) {
                cells.response_duration.record(first.saturating_sub(connected));
            }
        }
        if self.access.is_on() {
            let id: [u8; 32] = hex(&trail.id);
            let entry = exchange.entry(&id, &self.clock, self.now);
            self.access.record(&entry, &mut self.io, &self.cells);
        }
    }

    /// The counters of the turn that are kept elsewhere.
    pub(super) fn record_turn(&mut self) {
        self.cells.copy_ring(self.io.stats());
        if let Some((first, others)) = self.listeners.split_first() {
            let others = || others.iter().map(|listener| listener.endpoint.counters());
            let sums = first.endpoint.counters().each().enumerate().map(|(at, (name, count))| {
                let rest: u64 = others().filter_map(|counters| counters.each().nth(at)).map(|(_, n)| n).sum();
                (name, count + rest)
            });
            self.cells.quic.events.copy(sums);
            let counters = || self.listeners.iter().map(|listener| listener.endpoint.counters());
            let opened = counters().map(|counters| counters.accepted.get()).sum();
            let closed = counters().map(|counters| counters.removed.get()).sum();
            self.cells.connections(Protocol::H3, opened, closed);
        }
        self.access.flush_due(&mut self.io, &self.cells);
        self.arm_access();
    }
}

/// Counts an attempt that failed after it was connected.
pub(super) fn count_attempt_failure(cells: &WorkerCells, backend: usize, reason: Reason) {
    let failure = match reason {
        Reason::UpstreamClosed | Reason::UpstreamIncomplete => AttemptFailure::Closed,
        Reason::UpstreamReset => AttemptFailure::Reset,
        Reason::ResponseTimeout | Reason::UpstreamSendTimeout => AttemptFailure::ResponseTimeout,
        Reason::UpstreamBodyIdle => AttemptFailure::BodyTimeout,
        _ => AttemptFailure::Malformed,
    };
    cells.backend(backend).failures.count(failure);
}

/// What a failed connect means: for the client and for the counters.
pub(super) fn connect_failure(errno: i32) -> (Reason, ConnectFailure) {
    match io::Error::from_raw_os_error(errno).kind() {
        ErrorKind::ConnectionRefused => (Reason::ConnectRefused, ConnectFailure::Refused),
        ErrorKind::TimedOut => (Reason::ConnectTimeout, ConnectFailure::Timeout),
        // No such unix socket is a backend that is not there.
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::NotFound => {
            (Reason::ConnectUnreachable, ConnectFailure::Unreachable)
        }
        _ => (Reason::ConnectFailed, ConnectFailure::Unreachable),
    }
}

/// The counter of a flood: the same words in the same order (a test compares them).
fn flood_kind(glitch: h3::Glitch) -> kinds::Flood {
    kinds::Flood::ALL[glitch as usize]
}

/// Counts how a client's connection ended.
pub(super) fn count_quic_end(cells: &WorkerCells, connection: &h3::Connection) {
    let facts = connection.facts();
    let cause = connection.close_cause();
    if let Some(glitch) = connection.flood() {
        cells.quic.floods.count(flood_kind(glitch));
    }
    cells.quic_ended(&QuicEnd {
        side: cause.and_then(|cause| match cause.by {
            h3::Closer::Client => Some(kinds::Side::Remote),
            h3::Closer::Us => Some(kinds::Side::Local),
            h3::Closer::Silence => None,
        }),
        code: match cause {
            Some(cause) if cause.application => CloseCode::application(cause.code),
            Some(cause) => CloseCode::transport(cause.code),
            None => CloseCode::NoError,
        },
        // CRYPTO_ERROR (RFC 9001 §4.8) carries the alert in its low byte.
        alert: cause.map_or(0, |cause| cause.code as u8),
        handshake: facts.handshake.filter(|_| facts.established),
        round_trip: facts.rtt,
        packets_sent: facts.packets_sent,
        packets_lost: facts.packets_lost,
    });
}

#[cfg(test)]
mod tests {
    use super::super::collect::drop_kind;
    use super::flood_kind;
    use crate::h3::{DropReason, Glitch};
    use crate::telemetry::kinds::{DatagramDrop, Flood};

    #[test]
    fn floods_have_the_same_words_on_both_sides() {
        assert_eq!(Glitch::ALL.len(), Flood::COUNT);
        for glitch in Glitch::ALL {
            assert_eq!(flood_kind(glitch).word(), glitch.token());
        }
    }

    #[test]
    fn dropped_datagrams_have_the_same_words_on_both_sides() {
        assert_eq!(DropReason::COUNT, DatagramDrop::COUNT);
        for reason in DropReason::ALL {
            assert_eq!(drop_kind(reason).word(), reason.token());
        }
    }
}
