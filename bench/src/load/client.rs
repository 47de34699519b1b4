//! One connection of the generator as the engine sees it: requests in flight, their number, and the wire below.
//!
//! It decides nothing about pace: the engine says when a request starts. What differs between HTTP/3 and the protocols over
//! TCP is in [`Quic`] and [`Tcp`].

use super::exchange::{Exchange, Exchanges, Run};
use super::h3::Quic;
use super::plan::Plan;
use super::tally::Fault;
use super::tcp::Tcp;
use crate::udp::Socket;
use quiche::h3;
use std::io;
use std::time::Instant;

/// What carries the requests.
pub enum Wire {
    /// HTTP/3.
    Quic(Box<Quic>),
    /// HTTP/2 and HTTP/1.1.
    Tcp(Box<Tcp>),
}

/// One connection.
pub struct Client {
    /// What carries the requests.
    pub wire: Wire,
    exchanges: Exchanges,
    /// Over UDP: the socket's key in the engine.
    pub endpoint: Option<usize>,
    /// Tells uses of one slot apart.
    pub serial: u32,
    /// When the first datagram or segment was due.
    opened: Instant,
    /// The handshake is done, and was counted.
    established: bool,
    /// Requests started on this connection.
    pub issued: u64,
    /// Idle crowd: requests this connection may start in all.
    pub allowance: u64,
    /// Already in the engine's list of connections to act on.
    pub listed: bool,
    /// The earliest timer the engine has for this connection.
    pub armed: Option<Instant>,
}

impl Client {
    /// Wraps a fresh connection.
    pub fn new(wire: Wire, endpoint: Option<usize>, serial: u32, opened: Instant) -> Self {
        Self {
            wire,
            exchanges: Exchanges::default(),
            endpoint,
            serial,
            opened,
            established: false,
            issued: 0,
            allowance: 1,
            listed: false,
            armed: None,
        }
    }

    /// When the connection wants [`Client::on_timer`].
    pub fn next_deadline(&self) -> Option<Instant> {
        match &self.wire {
            Wire::Quic(quic) => quic.next_deadline(),
            // The kernel has TCP's timers.
            Wire::Tcp(_) => None,
        }
    }

    /// The deadline passed.
    pub fn on_timer(&mut self) {
        if let Wire::Quic(quic) = &mut self.wire {
            quic.on_timer();
        }
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.exchanges.len()
    }

    /// Whether requests can be sent.
    pub fn is_ready(&self) -> bool {
        self.established
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        match &self.wire {
            Wire::Quic(quic) => quic.is_closed(),
            Wire::Tcp(tcp) => tcp.is_closed(),
        }
    }

    /// Whether the server (or an exchange that was given up) lets no further request onto it.
    fn is_retiring(&self) -> bool {
        match &self.wire {
            Wire::Quic(quic) => quic.is_retiring(),
            Wire::Tcp(tcp) => tcp.is_retiring(),
        }
    }

    /// Whether the connection has done all it may and should be replaced.
    pub fn is_spent(&self, plan: &Plan) -> bool {
        self.established
            && self.exchanges.is_empty()
            && (self.is_retiring() || plan.options.per_connection.is_some_and(|max| self.issued >= max))
    }

    /// Whether one more request may start.
    pub fn has_room(&self, plan: &Plan) -> bool {
        let can_open = match &self.wire {
            Wire::Quic(quic) => quic.can_open(),
            Wire::Tcp(tcp) => tcp.can_open(),
        };
        self.established
            && can_open
            && !self.is_retiring()
            && !self.is_closed()
            && self.exchanges.len() < plan.options.streams
            && plan.options.per_connection.is_none_or(|max| self.issued < max)
    }

    /// Starts a request that was due at `due` (`None`: now; with churn the first one is due since the connection's
    /// start). False: the transport has no room yet.
    pub fn start(&mut self, due: Option<Instant>, now: Instant, run: &Run<'_>) -> bool {
        let stream = match &mut self.wire {
            Wire::Quic(quic) => quic.open(run.plan),
            Wire::Tcp(tcp) => tcp.open(run.plan),
        };
        let Some(stream) = stream else {
            return false;
        };
        let since_opening = run.plan.options.per_connection.is_some() && self.issued == 0;
        self.issued += 1;
        let due = due.unwrap_or(if since_opening { self.opened } else { now });
        self.exchanges.push(Exchange::new(stream, due, now, run));
        true
    }

    /// Does all that what was received and the passed time allow; returns how many requests ended.
    pub fn progress(&mut self, now: Instant, run: &mut Run<'_>, settings: &h3::Config) -> usize {
        let before = self.exchanges.len();
        let (ready, resumed) = match &mut self.wire {
            Wire::Quic(quic) => {
                quic.progress(now, &mut self.exchanges, run, settings);
                (quic.is_ready(), quic.is_resumed())
            }
            Wire::Tcp(tcp) => {
                tcp.progress(now, &mut self.exchanges, run);
                (tcp.is_ready(), tcp.is_resumed())
            }
        };
        if ready && !self.established {
            self.established = true;
            run.tally.connections += 1;
            run.tally.resumed += u64::from(resumed);
            run.tally.handshake.record(now - self.opened);
        }
        before - self.exchanges.len()
    }

    /// Whether there is more to do at once.
    pub fn is_eager(&self) -> bool {
        match &self.wire {
            Wire::Quic(_) => false,
            Wire::Tcp(tcp) => tcp.is_eager(&self.exchanges),
        }
    }

    /// Fails what made no progress for the time-out; true: the handshake itself did not.
    pub fn sweep(&mut self, now: Instant, run: &mut Run<'_>) -> bool {
        for stream in self.exchanges.stale(now, run) {
            self.exchanges.fail(stream, Fault::RequestTimeout, run);
            match &mut self.wire {
                Wire::Quic(quic) => quic.cancel(stream),
                Wire::Tcp(tcp) => tcp.cancel(stream),
            }
        }
        !self.established && now.saturating_duration_since(self.opened) > run.plan.options.timeout
    }

    /// Counts what ends with the connection.
    pub fn abandon(&mut self, fault: Fault, run: &mut Run<'_>) {
        if !self.established {
            run.tally.fail(fault);
        }
        self.exchanges.fail_all(fault, run);
    }

    /// QUIC: the newest session ticket. Over TCP the library keeps them.
    pub fn session(&self) -> Option<Vec<u8>> {
        match &self.wire {
            Wire::Quic(quic) => quic.session(),
            Wire::Tcp(_) => None,
        }
    }

    /// Says goodbye; [`Client::flush`] sends it.
    pub fn close(&mut self) {
        match &mut self.wire {
            Wire::Quic(quic) => quic.close(),
            Wire::Tcp(tcp) => tcp.close(),
        }
    }

    /// QUIC: packets that were declared lost on the way to the server.
    pub fn packets_lost(&self) -> u64 {
        match &self.wire {
            Wire::Quic(quic) => quic.packets_lost(),
            Wire::Tcp(_) => 0,
        }
    }

    /// Sends all that can be sent now; QUIC through the socket it is given.
    pub fn flush(&mut self, socket: Option<&mut Socket>, out: &mut [u8]) -> io::Result<()> {
        match (&mut self.wire, socket) {
            (Wire::Quic(quic), Some(socket)) => quic.flush(socket, out),
            (Wire::Quic(_), None) => Ok(()),
            (Wire::Tcp(tcp), _) => tcp.flush(),
        }
    }
}
