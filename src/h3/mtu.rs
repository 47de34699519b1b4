//! Owns the suspicion that a path no longer carries packets as large as it did. Nothing tells: they vanish, and small ones
//! pass (RFC 8899 §4.3). The transport searches for the size (it begins with 1200 bytes and probes upwards), but never
//! looks back.

use crate::limits::quic::{SAFE_UDP_PAYLOAD, SILENT_TIMEOUTS};

/// Counts timeouts that follow each other without an acknowledgement.
#[derive(Debug, Default)]
pub(super) struct BlackHole {
    /// Bytes that had been acknowledged at the last timeout.
    acknowledged: u64,
    silent_timeouts: u8,
}

impl BlackHole {
    /// A timeout of the transport passed, with so many bytes acknowledged in all and packets of `payload` bytes. `true`:
    /// packets should be small again, and the size be searched anew.
    pub(super) fn suspects(&mut self, acknowledged: u64, payload: usize) -> bool {
        if std::mem::replace(&mut self.acknowledged, acknowledged) != acknowledged {
            self.silent_timeouts = 0;
        }
        self.silent_timeouts = self.silent_timeouts.saturating_add(1);
        payload > usize::from(SAFE_UDP_PAYLOAD) && self.silent_timeouts >= SILENT_TIMEOUTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_in_a_row_are_suspect() {
        let mut hole = BlackHole::default();
        assert!(!hole.suspects(100, 1452));
        assert!(!hole.suspects(200, 1452), "something was acknowledged meanwhile");
        assert!(hole.suspects(200, 1452));
        assert!(!hole.suspects(200, 1200), "packets are small already");
        assert!(!hole.suspects(300, 1452));
    }
}
