//! Bounds of probes, all of them on the control thread.

use std::time::Duration;

/// Probes on their way at once, a socket each; further ones wait for their turn, in the order in which they were due.
pub const PROBES: usize = 1024;

/// Bytes of a body that are looked at for what is expected in it.
pub const PROBE_BODY_BYTES: usize = 16 << 10;

/// Largest head of an answer; a longer one is malformed.
pub const PROBE_HEAD_BYTES: usize = 16 << 10;

/// One probe: what it holds of the answer, one receive beyond it, and a connection with TLS and HTTP/2.
pub const PROBE_BYTES: u64 = (PROBE_BODY_BYTES + super::LIBRARY_HEAD_FACTOR as usize * PROBE_HEAD_BYTES + (16 << 10))
    as u64
    + super::h2::CONNECTION_BYTES as u64
    + super::TLS_SESSION_BYTES as u64;

/// The first probes after the start are spread over this, or over the interval if that is shorter.
pub const PROBE_SPREAD: Duration = Duration::from_secs(1);
