//! Owns the reading of what a connection's transport measured about its path and its packets, for histograms, counters and
//! the access log. Nothing decides by it.

use super::connection::Connection;
use crate::telemetry::{QuicMeasures, QuicPath};

impl Connection {
    /// What was measured so far. Costs a look at each path; no system call, no allocation.
    pub fn measures(&self) -> QuicMeasures {
        let stats = self.quic.stats();
        let mut measures = QuicMeasures {
            packets_sent: stats.sent as u64,
            packets_received: stats.recv as u64,
            packets_lost: stats.lost as u64,
            packets_spurious: stats.spurious_lost as u64,
            packets_retransmitted: stats.retrans as u64,
            bytes_lost: stats.lost_bytes,
            bytes_retransmitted: stats.stream_retrans_bytes,
            ..QuicMeasures::default()
        };
        for path in self.quic.path_stats() {
            measures.probe_timeouts += path.total_pto_count as u64;
            // Before the first sample the transport tells its assumption, a third of a second.
            if let (true, Some(round_trip_min)) = (path.active, path.min_rtt) {
                measures.path = Some(QuicPath {
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
