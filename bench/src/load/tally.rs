//! What a run counted: requests by outcome, latencies, bytes and datagrams.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::time::Duration;

/// Why a request (or a connection) failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Fault {
    /// The handshake took too long.
    HandshakeTimeout,
    /// The handshake was refused: TLS, transport, or nobody listens.
    HandshakeFailed,
    /// No progress for the time-out.
    RequestTimeout,
    /// The stream was reset.
    Reset,
    /// The connection ended under the request.
    ConnectionLost,
    /// Another status than expected.
    Status,
    /// The body's size is not what content-length or `--expect-bytes` says.
    Length,
    /// The response breaks HTTP.
    Protocol,
}

const FAULTS: usize = Fault::Protocol as usize + 1;

/// Microsecond histogram of durations from 1 µs to an hour, three digits.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

impl Latency {
    fn new() -> Self {
        // The bounds are constants that the constructor accepts.
        Self(Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("valid bounds"))
    }

    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        self.0.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    fn summary(&self) -> Option<Quantiles> {
        if self.0.is_empty() {
            return None;
        }
        let ms = |micros: u64| micros as f64 / 1000.0;
        let at = |quantile| ms(self.0.value_at_quantile(quantile));
        Some(Quantiles {
            mean: self.0.mean() / 1000.0,
            p50: at(0.50),
            p90: at(0.90),
            p99: at(0.99),
            p999: at(0.999),
            max: ms(self.0.max()),
        })
    }
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quantiles {
    /// Arithmetic mean.
    pub mean: f64,
    /// Half are faster.
    pub p50: f64,
    /// 90 % are faster.
    pub p90: f64,
    /// 99 % are faster.
    pub p99: f64,
    /// 99.9 % are faster.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

/// Counters of one measured time.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Requests answered as expected.
    pub succeeded: u64,
    faults: [u64; FAULTS],
    /// From start (or due time) to the last byte.
    pub latency: Latency,
    /// From start (or due time) to the response head.
    pub first_byte: Latency,
    /// From the first datagram or segment to the established connection.
    pub handshake: Latency,
    /// Connections established.
    pub connections: u64,
    /// Of these, with a resumed session.
    pub resumed: u64,
    /// Response body bytes.
    pub bytes_down: u64,
    /// Request body bytes given to the connections.
    pub bytes_up: u64,
    /// Datagrams received.
    pub datagrams: u64,
    /// Receive calls that brought them, or a stream's bytes.
    pub receives: u64,
    /// SHA-256 of response bodies, each different one once, at most four.
    pub digests: Vec<String>,
}

impl Tally {
    /// All zero.
    pub fn new() -> Self {
        Self {
            succeeded: 0,
            faults: [0; FAULTS],
            latency: Latency::new(),
            first_byte: Latency::new(),
            handshake: Latency::new(),
            connections: 0,
            resumed: 0,
            bytes_down: 0,
            bytes_up: 0,
            datagrams: 0,
            receives: 0,
            digests: Vec::new(),
        }
    }

    /// Counts a failure.
    pub fn fail(&mut self, fault: Fault) {
        self.faults[fault as usize] += 1;
    }

    /// Notes the digest of a response body.
    pub fn note_digest(&mut self, digest: &[u8]) {
        let text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        if self.digests.len() < 4 && !self.digests.contains(&text) {
            self.digests.push(text);
        }
    }

    /// Failures of all kinds.
    pub fn failed(&self) -> u64 {
        self.faults.iter().sum()
    }

    /// Failures by kind.
    pub fn faults(&self) -> Faults {
        let count = |fault: Fault| self.faults[fault as usize];
        Faults {
            handshake_timeout: count(Fault::HandshakeTimeout),
            handshake_failed: count(Fault::HandshakeFailed),
            request_timeout: count(Fault::RequestTimeout),
            reset: count(Fault::Reset),
            connection_lost: count(Fault::ConnectionLost),
            status: count(Fault::Status),
            length: count(Fault::Length),
            protocol: count(Fault::Protocol),
        }
    }

    /// The latencies' quantiles: whole, first byte, handshake.
    pub fn quantiles(&self) -> [Option<Quantiles>; 3] {
        [self.latency.summary(), self.first_byte.summary(), self.handshake.summary()]
    }
}

/// Failures by kind, as they are printed.
#[derive(Clone, Copy, Debug, Serialize)]
#[allow(missing_docs)] // the names are those of `Fault`
pub struct Faults {
    pub handshake_timeout: u64,
    pub handshake_failed: u64,
    pub request_timeout: u64,
    pub reset: u64,
    pub connection_lost: u64,
    pub status: u64,
    pub length: u64,
    pub protocol: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_in_milliseconds_and_absent_without_requests() {
        let mut tally = Tally::new();
        assert!(tally.quantiles()[0].is_none());
        for ms in 1..=100 {
            tally.latency.record(Duration::from_millis(ms));
        }
        let whole = tally.quantiles()[0].unwrap();
        assert!((whole.p50 - 50.0).abs() < 0.1, "{whole:?}");
        assert!((whole.max - 100.0).abs() < 0.1, "{whole:?}");
    }

    #[test]
    fn a_digest_is_kept_once() {
        let mut tally = Tally::new();
        tally.note_digest(&[0, 255]);
        tally.note_digest(&[0, 255]);
        assert_eq!(tally.digests, ["00ff"]);
    }
}
