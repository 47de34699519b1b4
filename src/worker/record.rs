//! What the counters and the access log learn of an exchange, and what the counters learn of the ring.

use super::{Downkey, Worker};
use crate::exchange::Exchange;
use crate::exchange::trail::hex;
use crate::h2;
use crate::h3;
use crate::http::{Reason, Side};
use crate::telemetry::kinds::{
    self, AttemptFailure, CloseCode, ConnectFailure, HandshakeFailure, Protocol, StatusClass, TlsAlert,
};
use crate::telemetry::{ExchangeEnd, QuicEnd, WorkerCells};
use spooky_uring::Io;
use std::io::{self, ErrorKind};

impl<I: Io> Worker<I> {
    /// An exchange is over: it is counted, and becomes a line.
    pub(super) fn record(&mut self, exchange: &Exchange, downkey: Downkey) {
        let trail = &exchange.trail;
        self.cells.exchange_finished(&ExchangeEnd {
            status: trail.status.unwrap_or(0),
            reason: trail.reason,
            route: exchange.plan.map(|plan| plan.way.0 as usize),
            request_bytes: trail.request_bytes,
            response_bytes: trail.response_bytes,
            duration: self.now.saturating_duration_since(trail.received),
            first_byte: trail.first_byte(),
        });
        if let Some(backend) = exchange.attempt.backend
            && let Some(connected) = exchange.connected()
        {
            let cells = self.cells.backend(backend.0 as usize);
            if exchange.answered_by_hedge() {
                cells.hedges_won.add(1);
            }
            match trail.reason {
                Some(reason) if reason.side() == Side::Upstream => {}
                _ => cells.responses.count(StatusClass::of(trail.status.unwrap_or(0))),
            }
            if let Some(first) = trail.first_byte() {
                cells.response_duration.record(first.saturating_sub(connected));
            }
        }
        if self.access.is_on() {
            let id: [u8; 32] = hex(&trail.id);
            let mut entry = exchange.entry(&id, &self.clock, self.now);
            if let Downkey::Quic { listener, connection } = downkey
                && let Some(connection) = self.clients.quic(listener, connection)
            {
                let measures = connection.measures();
                entry.round_trip = measures.path.map(|path| path.round_trip);
                entry.packets_lost = Some(measures.packets_lost);
            }
            self.access.record(&entry, &mut self.io, &self.cells);
        }
    }

    /// The counters of the turn that are kept elsewhere.
    pub(super) fn record_turn(&mut self) {
        self.cells.copy_ring(self.io.stats());
        self.cells.exchanges_admitted.set(u64::from(self.inflight.total()));
        if let Some((first, others)) = self.clients.quic.split_first() {
            let others = || others.iter().map(|listener| listener.endpoint.counters());
            let sums = first.endpoint.counters().each().enumerate().map(|(at, (name, count))| {
                let rest: u64 = others().filter_map(|counters| counters.each().nth(at)).map(|(_, n)| n).sum();
                (name, count + rest)
            });
            self.cells.quic.events.copy(sums);
            let counters = || self.clients.quic.iter().map(|listener| listener.endpoint.counters());
            let opened = counters().map(|counters| counters.accepted.get()).sum();
            let closed = counters().map(|counters| counters.removed.get()).sum();
            self.cells.connections(Protocol::H3, opened, closed);
        }
        for protocol in [Protocol::H1, Protocol::H2] {
            let (opened, closed) = self.clients.tcp.counts(protocol);
            self.cells.connections(protocol, opened, closed);
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

/// The counter of a flood over HTTP/2: the same words in the same order (a test compares them).
pub(super) fn http2_flood_kind(glitch: h2::Glitch) -> kinds::Http2Flood {
    kinds::Http2Flood::ALL[glitch as usize]
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
        alert: cause.filter(|cause| !cause.application).and_then(|cause| TlsAlert::in_code(cause.code)),
        handshake: facts.handshake.ok_or_else(|| handshake_failure(cause)),
        measures: connection.measures(),
    });
}

/// Why a handshake that ended by `cause` did not complete. Before its end only codes of the transport can be sent.
fn handshake_failure(cause: Option<h3::CloseCause>) -> HandshakeFailure {
    /// CONNECTION_REFUSED (RFC 9000 §20.1): a limit by address, seen when the handshake had proved the address; or it made
    /// room for another.
    const CONNECTION_REFUSED: u64 = 0x02;
    /// APPLICATION_ERROR (RFC 9000 §20.1): what stands in for a close by HTTP/3 that early.
    const APPLICATION_ERROR: u64 = 0x0c;
    let Some(cause) = cause else {
        return HandshakeFailure::Timeout;
    };
    match (cause.by, cause.code) {
        (h3::Closer::Silence, _) => HandshakeFailure::Timeout,
        // CRYPTO_ERROR (RFC 9001 §4.8) carries the alert in its low byte.
        (by, 0x100..=0x1ff) => HandshakeFailure::of_alert(cause.code as u8, by == h3::Closer::Us),
        (h3::Closer::Client, _) => HandshakeFailure::Closed,
        // NO_ERROR is our own patience, see `h3::Connection::handle_deadline`.
        (h3::Closer::Us, 0) => HandshakeFailure::Timeout,
        (h3::Closer::Us, CONNECTION_REFUSED) => HandshakeFailure::Refused,
        (h3::Closer::Us, APPLICATION_ERROR) => HandshakeFailure::Ended,
        (h3::Closer::Us, _) => HandshakeFailure::Transport,
    }
}

#[cfg(test)]
mod tests {
    use super::super::collect::drop_kind;
    use super::{flood_kind, handshake_failure, http2_flood_kind};
    use crate::h2;
    use crate::h3::{CloseCause, Closer, DropReason, Glitch};
    use crate::telemetry::kinds::{DatagramDrop, Flood, HandshakeFailure, Http2Flood};

    #[test]
    fn floods_have_the_same_words_on_both_sides() {
        assert_eq!(Glitch::ALL.len(), Flood::COUNT);
        for glitch in Glitch::ALL {
            assert_eq!(flood_kind(glitch).word(), glitch.token());
        }
    }

    #[test]
    fn floods_over_http2_have_the_same_words_on_both_sides() {
        assert_eq!(h2::Glitch::ALL.len(), Http2Flood::COUNT);
        for glitch in h2::Glitch::ALL {
            assert_eq!(http2_flood_kind(glitch).word(), glitch.token());
        }
    }

    #[test]
    fn dropped_datagrams_have_the_same_words_on_both_sides() {
        assert_eq!(DropReason::COUNT, DatagramDrop::COUNT);
        for reason in DropReason::ALL {
            assert_eq!(drop_kind(reason).word(), reason.token());
        }
    }

    #[test]
    fn a_failed_handshake_has_a_reason() {
        let of = |by, code| handshake_failure(Some(CloseCause { by, application: false, code }));
        assert_eq!(handshake_failure(None), HandshakeFailure::Timeout);
        assert_eq!(of(Closer::Silence, 0), HandshakeFailure::Timeout);
        assert_eq!(of(Closer::Us, 0), HandshakeFailure::Timeout);
        assert_eq!(of(Closer::Us, 0x178), HandshakeFailure::NoProtocol);
        assert_eq!(of(Closer::Us, 0x174), HandshakeFailure::CertificateMissing);
        assert_eq!(of(Closer::Us, 0x128), HandshakeFailure::Tls);
        assert_eq!(of(Closer::Client, 0x130), HandshakeFailure::CertificateRefused);
        assert_eq!(of(Closer::Client, 0), HandshakeFailure::Closed);
        assert_eq!(of(Closer::Client, 0x0c), HandshakeFailure::Closed);
        assert_eq!(of(Closer::Us, 0x02), HandshakeFailure::Refused);
        assert_eq!(of(Closer::Us, 0x0c), HandshakeFailure::Ended);
        assert_eq!(of(Closer::Us, 0x07), HandshakeFailure::Transport);
    }
}
