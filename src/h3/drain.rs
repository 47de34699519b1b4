//! Owns how a connection drains: the client is told twice (RFC 9114 §5.2), what was on its way is served, and what comes later
//! rejected.

use super::connection::{Connection, rtt};
use std::time::{Duration, Instant};

/// How far a drain has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Goaway {
    /// None was asked for.
    #[default]
    No,
    /// Asked for, but the first notice is not sent yet.
    Wanted,
    /// The notice with the highest number is sent: the client opens no more, but what was on its way is served
    /// (RFC 9114 §5.2). The final one follows at this time.
    Noticed(Instant),
    /// Requests from this number on are rejected.
    Final(u64),
}

/// The highest request number there can be.
const STREAM_MAX: u64 = (1 << 62) - 4;

impl Goaway {
    /// When the final notice is due.
    pub(super) fn due(self) -> Option<Instant> {
        match self {
            Self::Noticed(at) => Some(at),
            Self::No | Self::Wanted | Self::Final(_) => None,
        }
    }
}

impl Connection {
    /// Starts to drain: the client is told to open no more requests; those on their way are still served, and later
    /// ones rejected one round trip later. Ends when [`Self::is_drained`].
    pub fn goaway(&mut self) {
        if self.goaway == Goaway::No {
            self.goaway = Goaway::Wanted;
        }
    }

    /// Moves the drain on; called with everything that is sent.
    pub(super) fn drain(&mut self, now: Instant) {
        let (Some(http), quic) = (&mut self.http, &mut self.quic) else {
            return;
        };
        match self.goaway {
            Goaway::Wanted => {
                // A blocked control stream is tried again with the next packets.
                if http.send_goaway(quic, STREAM_MAX).is_ok() {
                    let rtt = rtt(quic);
                    self.goaway = Goaway::Noticed(now + rtt.max(Duration::from_millis(10)));
                }
            }
            Goaway::Noticed(at) if at <= now => {
                if http.send_goaway(quic, self.next_request).is_ok() {
                    self.goaway = Goaway::Final(self.next_request);
                }
            }
            Goaway::No | Goaway::Noticed(_) | Goaway::Final(_) => {}
        }
    }

    /// Whether a request came too late for our GOAWAY.
    pub(super) fn rejects(&self, id: u64) -> bool {
        matches!(self.goaway, Goaway::Final(first) if id >= first)
    }

    /// Whether a drain has come to its end: no request is open and none will be. The caller closes then.
    pub fn is_drained(&self) -> bool {
        self.is_closing()
            || self.http.is_none() && self.goaway != Goaway::No
            || matches!(self.goaway, Goaway::Final(_)) && self.streams.is_empty() && self.held.bytes() == 0
    }
}
