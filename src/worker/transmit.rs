//! The last part of a turn: every touched client connection sends what it has, as trains of equal datagrams.

use super::{Downkey, Worker};
use crate::limits;
use spooky_uring::{Io, Transmit};
use std::net::SocketAddr;

impl<I: Io> Worker<I> {
    /// Lets each touched connection send, once. Those that ran out of send buffers or out of their share stay on the
    /// list; the next turn begins with them.
    pub(super) fn transmit_touched(&mut self) {
        for _ in 0..self.touched.len() {
            let Some(key) = self.touched.pop_front() else {
                return;
            };
            let listener = &mut self.listeners[usize::from(key.listener)];
            listener.connections[key.connection.slot()].marked = false;
            if self.transmit(key) {
                self.arm_connection(key);
            } else {
                self.touch(key);
            }
            self.forget_if_closed(key);
        }
    }

    /// `false`: there is more to send.
    fn transmit(&mut self, key: Downkey) -> bool {
        let listener = &mut self.listeners[usize::from(key.listener)];
        let socket = listener.socket;
        let Some(connection) = listener.endpoint.get_mut(key.connection) else {
            return true;
        };
        for _ in 0..limits::TRAINS_PER_TURN {
            let Some(mut slot) = self.io.udp_slot() else {
                self.cells.send_pool_dry();
                return false;
            };
            let Some(train) = connection.transmit(&mut slot, self.now) else {
                return true;
            };
            self.cells.train_sent(train.len, train.segment);
            let transmit =
                Transmit { len: train.len, segment: train.segment, to: train.to, from: Some(train.from) };
            self.io.udp_send(socket, slot, transmit);
        }
        false
    }

    /// Sends an answer that belongs to no connection (version negotiation).
    pub(super) fn send_reply(&mut self, listener: u16, from: SocketAddr, to: SocketAddr, reply: &[u8]) {
        let Some(mut slot) = self.io.udp_slot() else {
            self.cells.send_pool_dry();
            return;
        };
        slot[..reply.len()].copy_from_slice(reply);
        let transmit = Transmit { len: reply.len(), segment: reply.len() as u16, to, from: Some(from) };
        self.io.udp_send(self.listeners[usize::from(listener)].socket, slot, transmit);
    }

    fn forget_if_closed(&mut self, key: Downkey) {
        let listener = &mut self.listeners[usize::from(key.listener)];
        let Some(connection) = listener.endpoint.get_mut(key.connection) else {
            return;
        };
        if !connection.is_closed() {
            return;
        }
        let owners: Vec<u32> = connection.owners().collect();
        for owner in owners {
            self.abandon(owner);
        }
        let listener = &mut self.listeners[usize::from(key.listener)];
        let at = std::mem::take(&mut listener.connections[key.connection.slot()]);
        if let Some((_, timer)) = at.armed {
            self.wheel.cancel(timer);
        }
        let facts = listener.endpoint.remove(key.connection);
        self.cells.connection_closed(facts);
    }
}
