//! Owns the bound on what a connection has on its way: twice what the path holds. More only fills queues, on a short path
//! the client's own socket buffer, where a congestion window grows far beyond it.
//!
//! The transport does not tell how many bytes are in flight. What its buffers hold is no measure: a buffer is freed whole,
//! so one lost packet keeps tens of kilobytes that the client has long acknowledged. A sender that waited for those would
//! send nothing behind the loss, and so nothing that lets the client's acknowledgements reveal it: each loss would cost a
//! probe timeout. The congestion window less its free part is the measure.

use std::time::Duration;

/// What may be on its way.
#[derive(Debug)]
pub(super) struct Flight {
    /// Bound on bytes in flight.
    max: usize,
    /// Bytes that the transport held in flight at most when the last packet came.
    congestion_window: usize,
    /// Bytes the transport was given and has not put into packets, too few by the packets' headers at most.
    unsent: usize,
}

impl Flight {
    pub(super) fn new(max: usize) -> Self {
        Self { max, congestion_window: 0, unsent: 0 }
    }

    /// Packets came: the path is measured anew. On a path that can carry more, the bound doubles with each round trip, as
    /// in slow start.
    pub(super) fn measure(&mut self, path: &quiche::PathStats, least: usize) {
        let round_trip = path.min_rtt.unwrap_or(path.rtt).min(Duration::from_secs(10)).as_micros();
        let held = u128::from(path.delivery_rate) * round_trip / 1_000_000;
        self.max = usize::try_from(2 * held).unwrap_or(usize::MAX).max(least);
        self.congestion_window = path.cwnd;
    }

    /// Bytes that may be in flight.
    #[cfg(test)]
    pub(super) fn bound(&self) -> usize {
        self.max
    }

    /// Bytes that may be given to the transport, of which `window` has room and `in_transport` are not released.
    ///
    /// Behind a loss twice the bound may wait for release, no more: a client that never acknowledges one packet does not
    /// make us hold all that its window allows.
    pub(super) fn left(&self, window: usize, in_transport: usize) -> usize {
        // Too high where flow control is what bounds the window; never above what the transport holds. A window without
        // bound is that of a probe and tells nothing.
        let in_flight = match self.congestion_window.checked_sub(window) {
            Some(taken) => (taken + self.unsent).min(in_transport),
            None => in_transport,
        };
        let unreleased = self.max.saturating_mul(2).saturating_sub(in_transport);
        self.max.saturating_sub(in_flight).min(unreleased)
    }

    /// The transport was given stream bytes.
    pub(super) fn given(&mut self, bytes: usize) {
        self.unsent += bytes;
    }

    /// Packets left.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.unsent = self.unsent.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight(max: usize, congestion_window: usize) -> Flight {
        Flight { max, congestion_window, unsent: 0 }
    }

    #[test]
    fn the_free_part_of_the_congestion_window_tells_what_is_in_flight() {
        let mut flight = flight(100, 1000);
        assert_eq!(flight.left(1000, 0), 100);
        assert_eq!(flight.left(940, 60), 40);
        assert_eq!(flight.left(900, 100), 0);
        flight.given(30);
        assert_eq!(flight.left(940, 90), 10);
        flight.sent(45);
        assert_eq!(flight.left(910, 90), 10);
    }

    #[test]
    fn bytes_kept_behind_a_loss_do_not_stop_the_sender() {
        let flight = flight(100, 1000);
        assert_eq!(flight.left(990, 99), 90);
        assert_eq!(flight.left(990, 160), 40);
        assert_eq!(flight.left(990, 200), 0);
    }

    #[test]
    fn a_probe_opens_no_window() {
        assert_eq!(flight(100, 1000).left(usize::MAX, 70), 30);
    }

    #[test]
    fn a_closed_flow_control_window_is_not_taken_for_flight() {
        // The congestion window is free, but the client's window has only 10 left.
        assert_eq!(flight(100, 1000).left(10, 20), 80);
    }
}
