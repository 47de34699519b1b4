//! One HTTP/3 connection: QUIC and HTTP/3 by quiche, requests and their bodies.
//!
//! It does no I/O but sending trains through the socket it is given.

use super::body::{Buffers, Piece};
use super::exchange::{Ending, Exchanges, Run};
use super::plan::Plan;
use super::tally::Fault;
use crate::quic::send_packet;
use crate::udp::{SEGMENTS_MAX, Socket};
use quiche::h3::{self, NameValue};
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

/// More than any congestion window here allows: a bound on what a mistake can cost. The rest goes with the next sweep.
const PACKETS_PER_FLUSH: usize = 16_384;
const H3_NO_ERROR: u64 = 0x100;
const H3_REQUEST_CANCELLED: u64 = 0x10c;

/// One connection.
pub struct Quic {
    quic: quiche::Connection<Buffers>,
    h3: Option<h3::Connection>,
    /// The server said GOAWAY.
    retiring: bool,
    /// Packets or body room since HTTP/3 was last polled.
    news: bool,
}

impl Quic {
    /// Wraps a fresh QUIC connection.
    pub fn new(quic: quiche::Connection<Buffers>) -> Self {
        Self { quic, h3: None, retiring: false, news: false }
    }

    /// Takes one datagram.
    pub fn receive(&mut self, packet: &mut [u8], from: SocketAddr, to: SocketAddr) {
        // What is wrong with a packet shows in the connection's state; a bad packet alone is no failure.
        let _ = self.quic.recv(packet, quiche::RecvInfo { from, to });
        self.news = true;
    }

    /// When the connection wants [`Quic::on_timer`].
    pub fn next_deadline(&self) -> Option<Instant> {
        self.quic.timeout_instant()
    }

    /// The deadline passed.
    pub fn on_timer(&mut self) {
        self.quic.on_timeout();
    }

    /// Whether HTTP/3 runs.
    pub fn is_ready(&self) -> bool {
        self.h3.is_some()
    }

    /// Whether the handshake resumed a session.
    pub fn is_resumed(&self) -> bool {
        self.quic.is_resumed()
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.quic.is_closed() || self.quic.is_draining()
    }

    /// Whether the server said GOAWAY.
    pub fn is_retiring(&self) -> bool {
        self.retiring
    }

    /// Whether the server allows one more request.
    pub fn can_open(&self) -> bool {
        self.h3.is_some() && self.quic.peer_streams_left_bidi() > 0
    }

    /// Starts a request; `None`: the transport has no room yet.
    pub fn open(&mut self, plan: &Plan) -> Option<u64> {
        let fields: Vec<h3::HeaderRef<'_>> =
            plan.fields.iter().map(|(name, value)| h3::HeaderRef::new(name, value)).collect();
        self.h3.as_mut()?.send_request(&mut self.quic, &fields, plan.body == 0).ok()
    }

    /// Does all that the received packets and the passed time allow.
    pub fn progress(&mut self, now: Instant, exchanges: &mut Exchanges, run: &mut Run<'_>, settings: &h3::Config) {
        if self.h3.is_none() && self.quic.is_established() {
            self.h3 = h3::Connection::with_transport(&mut self.quic, settings).ok();
        }
        if self.h3.is_none() {
            return;
        }
        if run.plan.options.read_rate.is_some() {
            self.read_slowly(now, exchanges, run);
        }
        if self.news {
            self.news = false;
            self.poll(now, exchanges, run);
        }
        if run.plan.body > 0 {
            self.upload(now, exchanges, run);
        }
    }

    fn poll(&mut self, now: Instant, exchanges: &mut Exchanges, run: &mut Run<'_>) {
        while let Some(h3) = &mut self.h3 {
            match h3.poll(&mut self.quic) {
                Ok((stream, h3::Event::Headers { list, .. })) => {
                    self.receive_head(stream, &list, now, exchanges, run);
                }
                Ok((stream, h3::Event::Data)) => self.read(stream, now, exchanges, run),
                Ok((stream, h3::Event::Finished)) => match exchanges.finish(stream, now, run) {
                    Ending::Done => {}
                    Ending::Early => {
                        let _ = self.quic.stream_shutdown(stream, quiche::Shutdown::Write, H3_NO_ERROR);
                    }
                    Ending::Failed => self.cancel(stream),
                },
                Ok((stream, h3::Event::Reset(_))) => {
                    exchanges.fail(stream, Fault::Reset, run);
                    self.cancel(stream);
                }
                Ok((_, h3::Event::GoAway)) => self.retiring = true,
                Ok((_, h3::Event::PriorityUpdate)) => {}
                // On an error quiche has closed the connection; the engine sees that.
                Err(_) => return,
            }
        }
    }

    fn receive_head(
        &mut self,
        stream: u64,
        list: &[h3::Header],
        now: Instant,
        exchanges: &mut Exchanges,
        run: &mut Run<'_>,
    ) {
        let Some(exchange) = exchanges.find(stream) else {
            return;
        };
        let find = |name: &[u8]| {
            list.iter().find(|field| field.name() == name).and_then(|field| std::str::from_utf8(field.value()).ok())
        };
        let status = find(b":status").and_then(|text| text.parse().ok()).unwrap_or(0);
        let announced = find(b"content-length").and_then(|text| text.parse().ok());
        if !exchange.receive_head(status, announced, now, run.tally) {
            exchanges.fail(stream, Fault::Protocol, run);
            self.cancel(stream);
        }
    }

    /// Takes body bytes: all there are, or as many as the slow reader may.
    fn read(&mut self, stream: u64, now: Instant, exchanges: &mut Exchanges, run: &mut Run<'_>) {
        let (Some(h3), Some(exchange)) = (&mut self.h3, exchanges.find(stream)) else {
            return;
        };
        exchange.pending = true;
        let slow = run.plan.options.read_rate.is_some();
        loop {
            let mut room = run.scratch.len();
            if slow {
                // A negative or huge allowance saturates, which is what is wanted.
                room = room.min(exchange.allowance as usize);
            }
            if room == 0 {
                return;
            }
            match h3.recv_body(&mut self.quic, stream, &mut run.scratch[..room]) {
                Ok(len) => {
                    exchange.allowance -= len as f64;
                    exchange.receive_body(&run.scratch[..len], now, run.tally);
                }
                Err(_) => {
                    exchange.pending = false;
                    return;
                }
            }
        }
    }

    fn read_slowly(&mut self, now: Instant, exchanges: &mut Exchanges, run: &mut Run<'_>) {
        let Some(rate) = run.plan.options.read_rate else {
            return;
        };
        let mut waiting = Vec::new();
        for exchange in exchanges.iter_mut() {
            exchange.refill(rate, now);
            if exchange.pending {
                waiting.push(exchange.stream);
            }
        }
        for stream in waiting {
            self.read(stream, now, exchanges, run);
            // The end of a stream is only told by a poll after the last byte was read.
            self.news = true;
        }
    }

    fn upload(&mut self, now: Instant, exchanges: &mut Exchanges, run: &mut Run<'_>) {
        let Some(h3) = &mut self.h3 else {
            return;
        };
        for exchange in exchanges.iter_mut() {
            while exchange.upload_left > 0 {
                let sent = run.plan.body - exchange.upload_left;
                let mut piece = Piece::of_body(sent, exchange.upload_left);
                let last = piece.len() as u64 == exchange.upload_left;
                match h3.send_body_zc(&mut self.quic, exchange.stream, &mut piece, last) {
                    Ok(len) => exchange.note_sent(len as u64, now, run.tally),
                    Err(h3::Error::Done | h3::Error::StreamBlocked) => break,
                    // The server stopped reading: its answer says why.
                    Err(_) => exchange.upload_left = 0,
                }
            }
        }
    }

    /// Gives a stream up, in both directions.
    pub fn cancel(&mut self, stream: u64) {
        for direction in [quiche::Shutdown::Read, quiche::Shutdown::Write] {
            let _ = self.quic.stream_shutdown(stream, direction, H3_REQUEST_CANCELLED);
        }
    }

    /// The newest session ticket.
    pub fn session(&self) -> Option<Vec<u8>> {
        self.quic.session().map(<[u8]>::to_vec)
    }

    /// Says goodbye; [`Quic::flush`] sends it.
    pub fn close(&mut self) {
        // Before the handshake is done there are no application errors, and quiche 0.30, told to send one all the same,
        // makes packets for ever.
        let done = self.quic.is_established();
        let _ = self.quic.close(done, if done { H3_NO_ERROR } else { 0 }, b"");
    }

    /// Packets that quiche declared lost on the way to the server.
    pub fn packets_lost(&self) -> u64 {
        self.quic.stats().lost as u64
    }

    /// Sends all that QUIC wants to send now, in trains of equal datagrams.
    pub fn flush(&mut self, socket: &mut Socket, out: &mut [u8]) -> io::Result<()> {
        let payload = self.quic.max_send_udp_payload_size();
        let (mut len, mut segment, mut count) = (0, 0, 0);
        for _ in 0..PACKETS_PER_FLUSH {
            if count == SEGMENTS_MAX || len + payload > out.len() {
                socket.send(&out[..len], segment)?;
                (len, segment, count) = (0, 0, 0);
            }
            let Some((size, _)) = send_packet(&mut self.quic, &mut out[len..len + payload]) else {
                break;
            };
            if count > 0 && size > segment {
                // A longer datagram cannot join the train: it begins the next one.
                socket.send(&out[..len], segment)?;
                out.copy_within(len..len + size, 0);
                (len, segment, count) = (size, size, 1);
                continue;
            }
            if count == 0 {
                segment = size;
            }
            len += size;
            count += 1;
            if size < segment {
                // A shorter one can only be the last.
                socket.send(&out[..len], segment)?;
                (len, segment, count) = (0, 0, 0);
            }
        }
        if len > 0 {
            socket.send(&out[..len], segment)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::udp::{BUFFER_BYTES, Settings};

    #[test]
    fn a_goodbye_before_the_handshake_is_done_ends_the_connection_at_once() {
        let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap();
        let settings = Settings { receive_buffer: None, gro: true, gso: true };
        let mut socket = Socket::connect(to, settings).unwrap();
        let mut config = quiche::Config::new(quiche::PROTOCOL_VERSION).unwrap();
        config.set_application_protos(h3::APPLICATION_PROTOCOL).unwrap();
        let id = quiche::ConnectionId::from_ref(&[1; 8]);
        let quic = quiche::connect_with_buffer_factory(None, &id, socket.local(), to, &mut config).unwrap();
        let mut client = Quic::new(quic);
        let mut out = vec![0; BUFFER_BYTES];
        // Closed before its first packet has left, the crypto stream is still full.
        client.close();
        client.flush(&mut socket, &mut out).unwrap();
        assert!(client.is_closed());
        assert!(client.quic.stats().sent < 5, "{:?}", client.quic.stats());
    }
}
