//! The result of a run, for people and as JSON.

use super::plan::{Format, Protocol};
use super::tally::{Faults, Quantiles};
use super::watch::Watched;
use serde::Serialize;
use std::fmt::Write;

/// Everything a run found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was spoken.
    pub protocol: Protocol,
    /// Measured seconds.
    pub seconds: f64,
    /// Requests answered as expected.
    pub succeeded: u64,
    /// Requests (and handshakes) that failed.
    pub failed: u64,
    /// The failures by kind.
    pub faults: Faults,
    /// Successful requests a second.
    pub requests_per_second: f64,
    /// Response and request body bytes a second, in millions.
    pub megabytes_per_second: f64,
    /// Connections established in the measured time.
    pub connections: u64,
    /// Of these, with a resumed session.
    pub resumed: u64,
    /// Response body bytes.
    pub bytes_down: u64,
    /// Request body bytes.
    pub bytes_up: u64,
    /// Milliseconds from start (open loop: due time) to the last byte.
    pub latency_ms: Option<Quantiles>,
    /// Milliseconds from start (open loop: due time) to the response head.
    pub first_byte_ms: Option<Quantiles>,
    /// Milliseconds from the first datagram or segment to the established connection.
    pub handshake_ms: Option<Quantiles>,
    /// Open loop: requests that were due but could not be sent before the end.
    pub unsent: u64,
    /// Datagrams received; over TCP there are none.
    pub datagrams: u64,
    /// Receive calls that brought them.
    pub receives: u64,
    /// Datagrams (with GRO: merged ones) that full receive buffers of ours cost.
    pub dropped: u64,
    /// Dropped datagrams as a share of all that came; with GRO an estimate from the mean batch, without it exact.
    pub dropped_share: f64,
    /// Packets of ours that were lost on the way, as quiche saw it.
    pub packets_lost: u64,
    /// CPU seconds the generator used.
    pub own_cpu_s: f64,
    /// Busy share of the CPU the generator is pinned to, whoever used it.
    pub own_core_share: Option<f64>,
    /// The watched process.
    pub watched: Option<Watched>,
    /// CPU microseconds of the watched process for each successful request.
    pub watched_us_per_request: Option<f64>,
    /// What the idle crowd showed.
    pub idle: Option<Idle>,
    /// SHA-256 of the response bodies, each different one once, at most four.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub digests: Vec<String>,
}

/// What the idle crowd showed.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Idle {
    /// Connections open during the silence.
    pub connections: u64,
    /// Requests that succeeded before it.
    pub succeeded_before: u64,
    /// Requests that succeeded after it.
    pub succeeded_after: u64,
    /// Resident memory of the watched process before the first connection, KiB.
    pub rss_before_kib: Option<u64>,
    /// The same late in the silence.
    pub rss_idle_kib: Option<u64>,
    /// The difference for each connection.
    pub kib_per_connection: Option<f64>,
    /// CPU of the watched process in the silence, as a share of one core.
    pub cpu_share: Option<f64>,
}

impl Report {
    /// The report as text.
    pub fn render(&self, format: Format) -> String {
        match format {
            // A struct of numbers and strings always serialises.
            Format::Json => serde_json::to_string(self).unwrap_or_default(),
            Format::Text => self.text(),
        }
    }

    fn text(&self) -> String {
        let mut out = format!(
            "{} requests in {:.3} s: {:.1}/s, {:.2} MB/s\n",
            self.succeeded, self.seconds, self.requests_per_second, self.megabytes_per_second
        );
        if self.failed > 0 {
            let _ = writeln!(out, "{} FAILED: {:?}", self.failed, self.faults);
        }
        for (name, quantiles) in
            [("latency", &self.latency_ms), ("first byte", &self.first_byte_ms), ("handshake", &self.handshake_ms)]
        {
            if let Some(q) = quantiles {
                let _ = writeln!(
                    out,
                    "{name:<10} ms  mean {:.3}  p50 {:.3}  p90 {:.3}  p99 {:.3}  p99.9 {:.3}  max {:.3}",
                    q.mean, q.p50, q.p90, q.p99, q.p999, q.max
                );
            }
        }
        let _ = writeln!(
            out,
            "{} connections ({} resumed), {} bytes down, {} up, {} unsent",
            self.connections, self.resumed, self.bytes_down, self.bytes_up, self.unsent
        );
        if self.protocol == Protocol::H3 {
            let _ = writeln!(
                out,
                "{} datagrams in {} receives, {} dropped at our sockets ({:.3} %), {} packets lost on the way up",
                self.datagrams,
                self.receives,
                self.dropped,
                self.dropped_share * 100.0,
                self.packets_lost
            );
        }
        let _ = writeln!(out, "own CPU {:.2} s", self.own_cpu_s);
        if let Some(watched) = &self.watched {
            let _ = writeln!(out, "watched: {watched:?}");
        }
        if let Some(us) = self.watched_us_per_request {
            let _ = writeln!(out, "watched CPU {us:.2} µs per request");
        }
        if let Some(idle) = &self.idle {
            let _ = writeln!(out, "{idle:?}");
        }
        for digest in &self.digests {
            let _ = writeln!(out, "sha256 {digest}");
        }
        out
    }
}
