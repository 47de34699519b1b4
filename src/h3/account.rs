//! Owns when a connection's ledger of glitches is written and judged: once per turn when packets came, and once when all
//! they brought was taken.

use super::code;
use super::connection::Connection;
use super::glitches::{Glitch, Totals};
use crate::limits::quic::{BODY_PIECE_BYTES, glitch};
use std::time::Instant;

impl Connection {
    /// Leaks the accounts of what the client does too often; called with its packets.
    #[inline]
    pub(super) fn tick(&mut self, now: Instant) {
        self.glitches.tick(now.saturating_duration_since(self.created).as_secs());
    }

    /// Once per turn with packets: charges what they brought.
    pub(super) fn account(&mut self, stats: &quiche::Stats) {
        if self.http.is_none() || self.is_closing() {
            return;
        }
        self.glitches.count(Totals {
            packets: stats.recv as u64,
            bytes: stats.recv_bytes,
            acknowledged: stats.acked_bytes,
            challenges: stats.path_challenge_rx_count,
        });
        // A client whose upload waits may say so with every packet: its library asks again with each acknowledgement.
        let blocked = stats.data_blocked_recv_count + stats.stream_data_blocked_recv_count;
        let newly = blocked - std::mem::replace(&mut self.blocked_seen, blocked);
        self.glitches.excuse_packets(newly);
        if self.glitches.wants_look() {
            self.glitches.look(self.readable_bytes());
        }
        self.judge(None);
    }

    /// Everything of a turn was taken. Whether the connection was closed for it.
    pub(super) fn account_taken(&mut self) -> bool {
        let over = match self.glitches.looks() {
            true => {
                let limit = glitch::WINDOWS * self.shared.settings.max_data;
                self.glitches.looked(self.readable_bytes(), limit)
            }
            false => None,
        };
        self.judge(over)
    }

    fn judge(&mut self, over: Option<Glitch>) -> bool {
        let Some(kind) = over.or_else(|| self.glitches.overflow()) else {
            return false;
        };
        if self.flood.is_some() || self.is_closing() {
            return false;
        }
        self.flood = Some(kind);
        self.close(code::EXCESSIVE_LOAD, kind.token().as_bytes());
        true
    }

    /// Bytes that streams have for us.
    fn readable_bytes(&self) -> usize {
        self.quic.readable().map(|id| self.quic.stream_readable_len(id, BODY_PIECE_BYTES)).sum()
    }

    /// What the client did too often, if that closed the connection.
    pub fn flood(&self) -> Option<Glitch> {
        self.flood
    }
}
