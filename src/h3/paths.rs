//! Owns a connection's client moving to another address: which address is believed, and what becomes of packets that were on
//! their way to the old one.
//!
//! A NAT that forgets the client and a client that changes its network look much alike: packets come from elsewhere. The
//! transport proves every new address (PATH_CHALLENGE, RFC 9000 §8.2), sends at most three times what came from it until
//! then, and goes back to the old one if the proof fails. Whatever looks at addresses here, policies, limits, logs, goes by
//! the last one that was proved.

use super::connection::Connection;
use super::transmit::Train;
use quiche::PathEvent;
use std::net::SocketAddr;

/// What is remembered of the addresses a client had.
#[derive(Debug, Default)]
pub(super) struct Paths {
    /// The client was seen elsewhere than where it began.
    several: bool,
    /// Addresses to which the client came with a connection ID that it had used before: it did not mean to move.
    unmeant: Option<(SocketAddr, SocketAddr)>,
    /// Paths that the client left may have something to send.
    left_due: bool,
}

impl Paths {
    /// Time went by: packets on paths that the client left may count as lost now.
    pub(super) fn look_again(&mut self) {
        self.left_due = self.several;
    }
}

impl Connection {
    /// Follows the client to a new address, but only after it proved to be there.
    pub(super) fn follow_paths(&mut self) {
        while let Some(event) = self.quic.path_event_next() {
            match event {
                PathEvent::New(..) => self.paths.several = true,
                PathEvent::ReusedSourceConnectionId(_, _, new) => self.paths.unmeant = Some(new),
                // The library says so only when the address is proved; whoever relies on it looks once more.
                PathEvent::PeerMigrated(local, client) if self.quic.is_path_validated(local, client) == Ok(true) => {
                    self.move_to(local, client);
                }
                _ => {}
            }
        }
    }

    fn move_to(&mut self, local: SocketAddr, client: SocketAddr) {
        let before = (self.local, self.client);
        if before == (local, client) {
            return;
        }
        self.shared.counters.migrations.add(1);
        (self.local, self.client) = (local, client);
        let left = self.left_paths();
        if self.paths.unmeant != Some((local, client)) {
            self.retire_id_of(before, &left);
        }
        for (local, client) in left {
            // Fails only for a path that is gone.
            let _ = self.quic.send_ack_eliciting_on_path(local, client);
        }
        self.paths.left_due = true;
    }

    /// Takes another connection ID of the client for a path that it left on purpose, if it gave any to spare. What follows
    /// on that path goes to the new address, where nobody shall recognise the old ID (RFC 9000 §9.5).
    fn retire_id_of(&mut self, (local, client): (SocketAddr, SocketAddr), left: &[(SocketAddr, SocketAddr)]) {
        if self.quic.available_dcids() == 0 {
            return;
        }
        // The library names a path's ID only to who asks it to prove the path once more, as §9.3.3 recommends anyway.
        let Ok(sequence) = self.quic.probe_path(local, client) else {
            return;
        };
        // Paths for which the client had no ID to spare share one, and would be left with none.
        let others = left.iter().copied().filter(|path| *path != (local, client)).chain([(self.local, self.client)]);
        let is_shared = others
            .fold(false, |shared, (local, client)| shared | (self.quic.probe_path(local, client) == Ok(sequence)));
        if !is_shared {
            // Refused only for the last one there is.
            let _ = self.quic.retire_dcid(sequence);
        }
    }

    /// Paths on which the client is no more, by our address and its; at most [`crate::limits::quic::PATHS`].
    fn left_paths(&self) -> Vec<(SocketAddr, SocketAddr)> {
        let left = self.quic.path_stats().filter(|path| !path.active);
        left.map(|path| (path.local_addr, path.peer_addr)).collect()
    }

    /// A packet of a path that the client left, for where the client is now.
    ///
    /// quiche 0.30 counts packets by path, and what was on its way to the old address is lost with it: it would wait there
    /// for an acknowledgement of something later on that same path, and send its two oldest packets again for ever. So
    /// something later is sent on that path, but to the new address; its acknowledgement makes everything before it lost,
    /// and lost bytes take the new path.
    pub(super) fn send_for_left_path(&mut self, out: &mut [u8]) -> Option<Train> {
        if !std::mem::take(&mut self.paths.left_due) || !self.quic.is_established() {
            return None;
        }
        for (local, client) in self.left_paths() {
            if let Ok((len, _)) = self.quic.send_on_path(out, Some(local), Some(client)) {
                // There may be more.
                self.paths.left_due = true;
                let (to, from) = (self.client, self.local);
                return Some(Train { len, segment: len as u16, packets: 1, to, from });
            }
        }
        None
    }
}
