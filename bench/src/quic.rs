//! Sending with quiche 0.30 around a trap of its queue of streams.
//!
//! A stream whose data was marked for retransmission waits in the queue of streams with something to send. If the late
//! acknowledgement of that data comes first, the stream has nothing to send and stays in the queue all the same: `send`
//! finds it at the head, sends no stream data and says `Done`, whatever the streams behind it have. A stream that is not
//! incremental (the default of HTTP/3 responses) stays at the head for ever, and the connection stalls with nothing in
//! flight. An incremental one moves to the back, and the next call finds another: so our streams are incremental, and
//! `Done` is asked about again where packets were lost before.

use quiche::{BufFactory, Connection, SendInfo};
use std::time::Duration;

/// Further calls while packets are in flight: each passes one such stream, and acknowledgements bring more calls.
const TRIES: usize = 4;
/// Further calls when nothing is in flight, and so nothing may ever bring another.
const TRIES_LAST: usize = 256;
/// No probe timer is as long as this, but the idle timer is.
const NOTHING_IN_FLIGHT: Duration = Duration::from_secs(5);

/// The next packet, if there is one.
pub fn send_packet<F: BufFactory>(quic: &mut Connection<F>, out: &mut [u8]) -> Option<(usize, SendInfo)> {
    if let Ok(sent) = quic.send(out) {
        return Some(sent);
    }
    if !quic.is_established() || quic.stats().lost == 0 {
        return None;
    }
    let waiting = quic.timeout().is_some_and(|left| left < NOTHING_IN_FLIGHT);
    let tries = if waiting { TRIES } else { TRIES_LAST };
    (0..tries).find_map(|_| quic.send(out).ok())
}
