//! Owns what a connection's transport measured about its path and its packets: for histograms, counters and the access
//! log. Nothing decides by it.

use super::connection::Connection;
use std::time::Duration;

/// What the transport measured since the connection began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measures {
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
    pub path: Option<PathMeasures>,
}

/// What is known of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathMeasures {
    /// Smoothed round-trip time (RFC 9002 §5.3).
    pub round_trip: Duration,
    /// The smallest round-trip time seen.
    pub round_trip_min: Duration,
    /// Bytes of the congestion window.
    pub congestion_window: u64,
    /// Bytes of UDP payload that the path was found to carry.
    pub packet_size: u64,
}

impl Connection {
    /// What was measured so far. Costs a look at each path; no system call, no allocation.
    pub fn measures(&self) -> Measures {
        let stats = self.quic.stats();
        let mut measures = Measures {
            packets_sent: stats.sent as u64,
            packets_received: stats.recv as u64,
            packets_lost: stats.lost as u64,
            packets_spurious: stats.spurious_lost as u64,
            packets_retransmitted: stats.retrans as u64,
            bytes_lost: stats.lost_bytes,
            bytes_retransmitted: stats.stream_retrans_bytes,
            ..Measures::default()
        };
        for path in self.quic.path_stats() {
            measures.probe_timeouts += path.total_pto_count as u64;
            // Before the first sample the transport tells its assumption, a third of a second.
            if let (true, Some(round_trip_min)) = (path.active, path.min_rtt) {
                measures.path = Some(PathMeasures {
                    round_trip: path.rtt,
                    round_trip_min,
                    congestion_window: path.cwnd as u64,
                    packet_size: path.pmtu as u64,
                });
            }
        }
        measures
    }
}
