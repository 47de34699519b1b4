//! The last part of a turn: every touched client connection sends what it has, as trains of equal datagrams.

use super::clients::table;
use super::clients::tcp::Verdict;
use super::record;
use super::{Downkey, Running, Worker};
use crate::h3;
use crate::limits;
use crate::telemetry::kinds::{HandshakeFailure, ProxyHeader};
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
            let Some(client) = self.clients.client(key) else {
                continue;
            };
            client.marked = false;
            let unfinished = std::mem::take(&mut client.unfinished);
            match key {
                Downkey::Quic { listener, connection } => {
                    if self.transmit_quic(listener, connection) && !unfinished {
                        self.arm_client(key);
                    } else {
                        self.touch(key);
                    }
                    self.post_qlog(key, false);
                    self.forget_if_closed(listener, connection);
                }
                Downkey::Tcp(at) => {
                    self.transmit_tcp(at);
                    if unfinished {
                        self.touch(key);
                    }
                }
            }
        }
    }

    /// `false`: there is more to send.
    fn transmit_quic(&mut self, listener: u16, connection: h3::ConnKey) -> bool {
        let at = &mut self.clients.quic[usize::from(listener)];
        let socket = at.socket;
        let Some(connection) = at.endpoint.get_mut(connection) else {
            return true;
        };
        for _ in 0..limits::TRAINS_PER_TURN {
            let Some(mut slot) = self.io.udp_slot() else {
                return false;
            };
            let Some(train) = connection.transmit(&mut slot, self.now) else {
                return true;
            };
            self.cells.train_sent(train.len, train.segment);
            let transmit = Transmit { len: train.len, segment: train.segment, to: train.to, from: Some(train.from) };
            self.io.udp_send(socket, slot, transmit);
        }
        false
    }

    /// Hands what a connection wants to send to its socket, and does what becomes of it.
    fn transmit_tcp(&mut self, key: table::Key) {
        let times = self.clients.tcp.times;
        let Some(tcp) = self.clients.tcp.get_mut(key) else {
            return;
        };
        tcp.flush(&mut self.io);
        match tcp.verdict(&times, &mut self.io, self.now) {
            Verdict::Stay => {
                if tcp.has_events() {
                    self.touch(Downkey::Tcp(key));
                }
                return self.arm_client(Downkey::Tcp(key));
            }
            Verdict::Close => self.io.close(key.stream),
            Verdict::Abort => self.io.abort(key.stream),
        }
        self.forget_tcp(key);
    }

    /// Forgets a connection whose socket is closed.
    pub(super) fn forget_tcp(&mut self, key: table::Key) {
        let Some((tcp, handshakes)) = self.clients.tcp.remove(key) else {
            return;
        };
        if let Some((_, timer)) = tcp.client.armed {
            self.wheel.cancel(timer);
        }
        if tcp.exchanges > 0 {
            // Their streams ended before they heard of it, in the turn in which the connection did.
            let mine =
                |(slot, running): (usize, &Running)| (running.downkey == Downkey::Tcp(key)).then_some(slot as u32);
            let orphans: Vec<u32> = self.exchanges.iter().filter_map(mine).collect();
            orphans.into_iter().for_each(|slot| self.orphan(slot));
        }
        if let Some(glitch) = tcp.flood() {
            self.cells.http2_floods.count(record::http2_flood_kind(glitch));
        }
        if tcp.waits_for_header() {
            self.cells.proxy_headers.count(ProxyHeader::Missing);
        } else if handshakes {
            // It did not fail: nobody went on with it.
            let failure = if tcp.is_gone() { HandshakeFailure::Closed } else { HandshakeFailure::Timeout };
            self.cells.tls.failures.count(failure);
        }
    }

    /// Sends an answer that belongs to no connection.
    pub(super) fn send_reply(&mut self, listener: u16, from: SocketAddr, to: SocketAddr) {
        let Some(mut slot) = self.io.udp_slot() else {
            return;
        };
        let at = &mut self.clients.quic[usize::from(listener)];
        let len = at.endpoint.take_reply(&mut slot);
        let transmit = Transmit { len, segment: len as u16, to, from: Some(from) };
        self.io.udp_send(at.socket, slot, transmit);
    }

    fn forget_if_closed(&mut self, listener: u16, connection: h3::ConnKey) {
        let key = Downkey::Quic { listener, connection };
        let Some(it) = self.clients.quic(listener, connection) else {
            return;
        };
        if it.has_events() {
            // What was sent made room, or ended streams: their exchanges hear of it in the next turn.
            self.touch(key);
            return;
        }
        if !it.is_closed() {
            return;
        }
        record::count_quic_end(&self.cells, it);
        self.post_qlog(key, true);
        let at = &mut self.clients.quic[usize::from(listener)];
        if let Some((_, timer)) = std::mem::take(at.client(connection)).armed {
            self.wheel.cancel(timer);
        }
        at.endpoint.remove(connection);
    }
}
