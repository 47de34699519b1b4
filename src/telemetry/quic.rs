//! What a QUIC connection leaves in the counters when it ends: how, with what handshake, and what its path was like.

use super::cells::WorkerCells;
use super::kinds::{CloseCode, HandshakeFailure, Side, TlsAlert};
use std::time::Duration;

impl WorkerCells {
    /// A QUIC connection ended, whether it was established or not.
    pub fn quic_ended(&self, end: &QuicEnd) {
        let quic = &self.quic;
        match end.side {
            Some(Side::Local) => quic.closed_by_us.count(end.code),
            Some(Side::Remote) => quic.closed_by_client.count(end.code),
            None => quic.closed_by_silence.add(1),
        }
        match (end.alert, end.side) {
            (Some(alert), Some(Side::Local)) => quic.alerts_sent.count(alert),
            (Some(alert), Some(Side::Remote)) => quic.alerts_received.count(alert),
            (Some(_), None) | (None, _) => {}
        }
        match end.handshake {
            Ok(duration) => {
                quic.handshake_duration.record(duration);
                if let Some(path) = end.measures.path {
                    quic.round_trip.record(path.round_trip);
                    quic.round_trip_min.record(path.round_trip_min);
                    quic.congestion_window.count(path.congestion_window);
                    quic.packet_size.count(path.packet_size);
                }
            }
            Err(failure) => quic.handshake_failures.count(failure),
        }
        let measures = &end.measures;
        for (counter, n) in [
            (&quic.packets_sent, measures.packets_sent),
            (&quic.packets_received, measures.packets_received),
            (&quic.packets_lost, measures.packets_lost),
            (&quic.packets_spurious, measures.packets_spurious),
            (&quic.packets_retransmitted, measures.packets_retransmitted),
            (&quic.bytes_lost, measures.bytes_lost),
            (&quic.bytes_retransmitted, measures.bytes_retransmitted),
            (&quic.probe_timeouts, measures.probe_timeouts),
        ] {
            counter.add(n);
        }
    }
}

/// What [`WorkerCells::quic_ended`] counts.
#[derive(Debug, Clone, Copy)]
pub struct QuicEnd {
    /// Who closed it; `None`: nobody spoke any more.
    pub side: Option<Side>,
    /// With which code; of no meaning without a side.
    pub code: CloseCode,
    /// The TLS alert in that code.
    pub alert: Option<TlsAlert>,
    /// How long the handshake took, or why it did not complete.
    pub handshake: Result<Duration, HandshakeFailure>,
    /// What was measured until then.
    pub measures: QuicMeasures,
}

/// What the transport of a QUIC connection measured since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuicMeasures {
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets received.
    pub packets_received: u64,
    /// Packets sent and declared lost.
    pub packets_lost: u64,
    /// Of these, packets that were acknowledged later after all.
    pub packets_spurious: u64,
    /// Packets sent with data that had been sent before.
    pub packets_retransmitted: u64,
    /// Bytes of the packets lost.
    pub bytes_lost: u64,
    /// Bytes of streams that were sent again.
    pub bytes_retransmitted: u64,
    /// Probe timeouts (RFC 9002 §6.2) on all paths.
    pub probe_timeouts: u64,
    /// The active path, once it has a round trip.
    pub path: Option<QuicPath>,
}

/// What was measured of a connection's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuicPath {
    /// Smoothed round-trip time (RFC 9002 §5.3).
    pub round_trip: Duration,
    /// The smallest round-trip time seen.
    pub round_trip_min: Duration,
    /// Bytes of the congestion window.
    pub congestion_window: u64,
    /// Bytes of UDP payload that the path was found to carry.
    pub packet_size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::cells::Counter;
    use crate::telemetry::latency::{Latency, Merged};

    fn end() -> QuicEnd {
        QuicEnd {
            side: Some(Side::Local),
            code: CloseCode::transport(0x128),
            alert: TlsAlert::in_code(0x128),
            handshake: Err(HandshakeFailure::Tls),
            measures: QuicMeasures {
                path: None,
                packets_sent: 3,
                packets_received: 2,
                packets_lost: 1,
                packets_spurious: 1,
                packets_retransmitted: 1,
                bytes_lost: 1200,
                bytes_retransmitted: 1000,
                probe_timeouts: 4,
            },
        }
    }

    #[test]
    fn a_connection_that_never_was_is_a_failed_handshake() {
        let cells = WorkerCells::default();
        cells.quic_ended(&end());
        cells.quic_ended(&QuicEnd {
            side: None,
            code: CloseCode::NoError,
            alert: None,
            handshake: Err(HandshakeFailure::Timeout),
            ..end()
        });
        let quic = &cells.quic;
        assert_eq!(quic.handshake_failures.get(HandshakeFailure::Tls), 1);
        assert_eq!(quic.handshake_failures.get(HandshakeFailure::Timeout), 1);
        assert_eq!(quic.handshake_failures.get(HandshakeFailure::Closed), 0);
        assert_eq!(quic.alerts_sent.get(TlsAlert::HandshakeFailure), 1);
        assert_eq!(quic.alerts_received.get(TlsAlert::HandshakeFailure), 0);
        assert_eq!((quic.closed_by_us.get(CloseCode::Tls), quic.closed_by_silence.get()), (1, 1));
        assert_eq!(quic.packet_size.read().count(), 0, "it had no path");
    }

    #[test]
    fn a_connection_that_was_leaves_what_it_measured() {
        let cells = WorkerCells::default();
        let ms = Duration::from_millis;
        let path =
            QuicPath { round_trip: ms(30), round_trip_min: ms(20), congestion_window: 50_000, packet_size: 1452 };
        for path in [Some(path), None] {
            cells.quic_ended(&QuicEnd {
                side: Some(Side::Remote),
                code: CloseCode::application(0x100),
                alert: None,
                handshake: Ok(ms(60)),
                measures: QuicMeasures { path, ..end().measures },
            });
        }
        let quic = &cells.quic;
        assert_eq!(quic.closed_by_client.get(CloseCode::NoError), 2);
        let sum = |latency: &Latency| {
            let mut merged = Merged::default();
            latency.merge_into(&mut merged);
            merged.sum_us()
        };
        assert_eq!(sum(&quic.handshake_duration), 120_000);
        assert_eq!((sum(&quic.round_trip), sum(&quic.round_trip_min)), (30_000, 20_000));
        assert_eq!((quic.congestion_window.sum(), quic.packet_size.sum()), (50_000, 1452));
        let packets = [&quic.packets_sent, &quic.packets_received, &quic.packets_lost, &quic.packets_spurious];
        assert_eq!(packets.map(Counter::get), [6, 4, 2, 2]);
        let again = [&quic.packets_retransmitted, &quic.bytes_lost, &quic.bytes_retransmitted, &quic.probe_timeouts];
        assert_eq!(again.map(Counter::get), [2, 2400, 2000, 8]);
    }
}
