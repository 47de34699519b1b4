//! The client's change of its local port (RFC 9000 §9): first the new path is validated, then the connection moves to it,
//! and only what comes back there counts as arrived.

use std::net::SocketAddr;
use std::time::Duration;

/// What became of the change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Migration {
    /// Nobody asked for it.
    #[default]
    Unasked,
    /// It has not happened yet.
    Waiting,
    /// The new path was validated and carries the connection.
    Moved {
        /// The local address before.
        before: SocketAddr,
        /// The local address now.
        now: SocketAddr,
        /// Round trip of the new path.
        round_trip: Duration,
    },
    /// It did not work: why.
    Failed(String),
}

/// How far the change is.
#[derive(Debug)]
pub(super) enum PathChange {
    Unasked,
    /// Until the response began and the server has given an identifier for another path.
    Waiting,
    /// PATH_CHALLENGE is on its way from there.
    Probing(SocketAddr),
    /// The connection uses the new path; `received` packets had come there before.
    Moving {
        local: SocketAddr,
        received: usize,
    },
    Settled(Migration),
}

impl PathChange {
    pub(super) fn new(asked: bool) -> Self {
        if asked { Self::Waiting } else { Self::Unasked }
    }

    /// Nothing more will happen.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self, Self::Unasked | Self::Settled(_))
    }

    /// It is over without success, unless it was over already.
    pub(super) fn fail(&mut self, why: &str) {
        if !self.is_settled() {
            *self = Self::Settled(Migration::Failed(why.to_owned()));
        }
    }

    /// A socket for the new path should be made now. `whole`: the response is complete.
    pub(super) fn wants_socket(&mut self, quic: &quiche::Connection, whole: bool) -> bool {
        if !matches!(self, Self::Waiting) {
            return false;
        }
        if quic.peer_transport_params().is_some_and(|server| server.disable_active_migration) {
            self.fail("the server forbids it (disable_active_migration)");
            return false;
        }
        if quic.available_dcids() > 0 {
            return true;
        }
        if whole {
            self.fail("the server gave no connection ID for another path");
        }
        false
    }

    /// The new path starts at `local`.
    pub(super) fn begin(&mut self, quic: &mut quiche::Connection, local: SocketAddr, to: SocketAddr) {
        match quic.probe_path(local, to) {
            Ok(_) => *self = Self::Probing(local),
            Err(error) => self.fail(&format!("the new path cannot be probed: {error}")),
        }
    }

    /// Looks at what became of the paths.
    pub(super) fn advance(&mut self, quic: &mut quiche::Connection, before: SocketAddr, to: SocketAddr) {
        while let Some(event) = quic.path_event_next() {
            match (&*self, event) {
                (&Self::Probing(local), quiche::PathEvent::Validated(at, _)) if at == local => {
                    // Something the server has to acknowledge there, if the response is over already.
                    match quic.migrate(local, to).and_then(|_| quic.send_ack_eliciting()) {
                        Ok(()) => *self = Self::Moving { local, received: received(quic, local) },
                        Err(error) => self.fail(&format!("the connection cannot move: {error}")),
                    }
                }
                (&Self::Probing(local), quiche::PathEvent::FailedValidation(at, _)) if at == local => {
                    self.fail("the new path was not validated: no answer to PATH_CHALLENGE");
                }
                _ => {}
            }
        }
        if let Self::Moving { local, received: known } = *self
            && received(quic, local) > known
        {
            let path = quic.path_stats().find(|path| path.local_addr == local);
            let round_trip = path.map_or(Duration::ZERO, |path| path.min_rtt.unwrap_or(path.rtt));
            *self = Self::Settled(Migration::Moved { before, now: local, round_trip });
        }
    }

    /// What can be told of it.
    pub(super) fn told(&self) -> Migration {
        match self {
            Self::Unasked => Migration::Unasked,
            Self::Waiting | Self::Probing(_) | Self::Moving { .. } => Migration::Waiting,
            Self::Settled(end) => end.clone(),
        }
    }
}

fn received(quic: &quiche::Connection, local: SocketAddr) -> usize {
    quic.path_stats().filter(|path| path.local_addr == local).map(|path| path.recv).sum()
}
