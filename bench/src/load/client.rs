//! One HTTP/3 client connection: QUIC and HTTP/3 by quiche, requests in flight, their bodies and outcomes.
//!
//! It decides nothing about pace: the engine says when a request starts. It does no I/O but sending trains through
//! the socket it is given.

use super::body::{Buffers, Piece};
use super::plan::{Plan, Until};
use super::tally::{Fault, Tally};
use crate::quic::send_packet;
use crate::udp::{SEGMENTS_MAX, Socket};
use boring::sha::Sha256;
use quiche::h3::{self, NameValue};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// More than any congestion window here allows: a bound on what a mistake can cost. The rest goes with the next sweep.
const PACKETS_PER_FLUSH: usize = 16_384;
const H3_NO_ERROR: u64 = 0x100;
const H3_REQUEST_CANCELLED: u64 = 0x10c;

/// What all connections of a run share.
pub struct Run<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Counters of the current phase.
    pub tally: &'a mut Tally,
    /// Response bytes end here.
    pub scratch: &'a mut [u8],
    /// Whether the warm-up is over.
    pub measuring: bool,
}

/// One request.
struct Exchange {
    stream: u64,
    /// When it was due; latency counts from here.
    due: Instant,
    /// When bytes last moved.
    moved: Instant,
    /// Started during the warm-up.
    warm: bool,
    /// Request body bytes not yet given to QUIC; 0 also after the server stopped reading.
    upload_left: u64,
    status: u16,
    /// Content-length of the response.
    announced: Option<u64>,
    received: u64,
    digest: Option<Sha256>,
    /// Slow reader: body bytes wait in QUIC, and this many may be taken.
    pending: bool,
    allowance: f64,
    refilled: Instant,
}

/// One connection.
pub struct Client {
    quic: quiche::Connection<Buffers>,
    h3: Option<h3::Connection>,
    exchanges: Vec<Exchange>,
    /// The socket's key in the engine.
    pub socket: usize,
    /// Tells uses of one slot apart.
    pub serial: u32,
    /// When the first datagram was due.
    opened: Instant,
    /// Requests started on this connection.
    pub issued: u64,
    /// Idle crowd: requests this connection may start in all.
    pub allowance: u64,
    /// The server said GOAWAY.
    retiring: bool,
    /// Packets or body room since HTTP/3 was last polled.
    news: bool,
    /// Already in the engine's list of connections to act on.
    pub listed: bool,
    /// The earliest timer the engine has for this connection.
    pub armed: Option<Instant>,
}

impl Client {
    /// Wraps a fresh QUIC connection.
    pub fn new(quic: quiche::Connection<Buffers>, socket: usize, serial: u32, opened: Instant) -> Self {
        Self {
            quic,
            h3: None,
            exchanges: Vec::new(),
            socket,
            serial,
            opened,
            issued: 0,
            allowance: 1,
            retiring: false,
            news: false,
            listed: false,
            armed: None,
        }
    }

    /// Takes one datagram.
    pub fn receive(&mut self, packet: &mut [u8], from: SocketAddr, to: SocketAddr) {
        // What is wrong with a packet shows in the connection's state; a bad packet alone is no failure.
        let _ = self.quic.recv(packet, quiche::RecvInfo { from, to });
        self.news = true;
    }

    /// When the connection wants [`Client::on_timer`].
    pub fn next_deadline(&self) -> Option<Instant> {
        self.quic.timeout_instant()
    }

    /// The deadline passed.
    pub fn on_timer(&mut self) {
        self.quic.on_timeout();
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.exchanges.len()
    }

    /// Whether HTTP/3 runs.
    pub fn is_ready(&self) -> bool {
        self.h3.is_some()
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.quic.is_closed() || self.quic.is_draining()
    }

    /// Whether the connection has done all it may and should be replaced.
    pub fn is_spent(&self, plan: &Plan) -> bool {
        self.exchanges.is_empty()
            && (self.retiring || plan.options.per_connection.is_some_and(|max| self.issued >= max))
    }

    /// Whether one more request may start.
    pub fn has_room(&self, plan: &Plan) -> bool {
        self.h3.is_some()
            && !self.retiring
            && !self.is_closed()
            && self.exchanges.len() < plan.options.streams
            && plan.options.per_connection.is_none_or(|max| self.issued < max)
            && self.quic.peer_streams_left_bidi() > 0
    }

    /// Starts a request that was due at `due` (`None`: now; with churn the first one is due since the connection's
    /// start). False: the transport has no room yet.
    pub fn start(&mut self, due: Option<Instant>, now: Instant, run: &Run<'_>) -> bool {
        let Some(h3) = &mut self.h3 else {
            return false;
        };
        let plan = run.plan;
        let fields: Vec<h3::HeaderRef<'_>> =
            plan.fields.iter().map(|(name, value)| h3::HeaderRef::new(name, value)).collect();
        let Ok(stream) = h3.send_request(&mut self.quic, &fields, plan.body == 0) else {
            return false;
        };
        let since_opening = plan.options.per_connection.is_some() && self.issued == 0;
        self.issued += 1;
        self.exchanges.push(Exchange {
            stream,
            due: due.unwrap_or(if since_opening { self.opened } else { now }),
            moved: now,
            warm: !run.measuring,
            upload_left: plan.body,
            status: 0,
            announced: None,
            received: 0,
            digest: plan.options.digest.then(Sha256::new),
            pending: false,
            allowance: 0.0,
            refilled: now,
        });
        true
    }

    /// Does all that the received packets and the passed time allow; returns how many requests ended.
    pub fn progress(&mut self, now: Instant, run: &mut Run<'_>, settings: &h3::Config) -> usize {
        let before = self.exchanges.len();
        if self.h3.is_none() && !self.establish(now, run, settings) {
            return 0;
        }
        if run.plan.options.read_rate.is_some() {
            self.read_slowly(now, run);
        }
        if self.news {
            self.news = false;
            self.poll(now, run);
        }
        if run.plan.body > 0 {
            self.upload(now, run);
        }
        before - self.exchanges.len()
    }

    fn establish(&mut self, now: Instant, run: &mut Run<'_>, settings: &h3::Config) -> bool {
        if !self.quic.is_established() {
            return false;
        }
        let Ok(h3) = h3::Connection::with_transport(&mut self.quic, settings) else {
            return false;
        };
        self.h3 = Some(h3);
        run.tally.connections += 1;
        run.tally.resumed += u64::from(self.quic.is_resumed());
        run.tally.handshake.record(now - self.opened);
        true
    }

    fn poll(&mut self, now: Instant, run: &mut Run<'_>) {
        while let Some(h3) = &mut self.h3 {
            match h3.poll(&mut self.quic) {
                Ok((stream, h3::Event::Headers { list, .. })) => {
                    self.receive_head(stream, &list, now, run);
                }
                Ok((stream, h3::Event::Data)) => self.read(stream, now, run),
                Ok((stream, h3::Event::Finished)) => self.finish(stream, now, run),
                Ok((stream, h3::Event::Reset(_))) => self.fail(stream, Fault::Reset, run),
                Ok((_, h3::Event::GoAway)) => self.retiring = true,
                Ok((_, h3::Event::PriorityUpdate)) => {}
                // On an error quiche has closed the connection; the engine sees that.
                Err(_) => return,
            }
        }
    }

    fn receive_head(&mut self, stream: u64, list: &[h3::Header], now: Instant, run: &mut Run<'_>) {
        let Some(exchange) = self.exchanges.iter_mut().find(|e| e.stream == stream) else {
            return;
        };
        exchange.moved = now;
        if exchange.status >= 200 {
            return; // trailers
        }
        let find = |name: &[u8]| {
            list.iter().find(|field| field.name() == name).and_then(|field| std::str::from_utf8(field.value()).ok())
        };
        exchange.status = find(b":status").and_then(|text| text.parse().ok()).unwrap_or(0);
        exchange.announced = find(b"content-length").and_then(|text| text.parse().ok());
        if exchange.status < 100 {
            self.fail(stream, Fault::Protocol, run);
        } else if exchange.status >= 200 {
            run.tally.first_byte.record(now - exchange.due);
        }
    }

    /// Takes body bytes: all there are, or as many as the slow reader may.
    fn read(&mut self, stream: u64, now: Instant, run: &mut Run<'_>) {
        let (Some(h3), Some(exchange)) = (&mut self.h3, self.exchanges.iter_mut().find(|e| e.stream == stream)) else {
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
                    exchange.moved = now;
                    exchange.received += len as u64;
                    exchange.allowance -= len as f64;
                    run.tally.bytes_down += len as u64;
                    if let Some(digest) = &mut exchange.digest {
                        digest.update(&run.scratch[..len]);
                    }
                }
                Err(_) => {
                    exchange.pending = false;
                    return;
                }
            }
        }
    }

    fn read_slowly(&mut self, now: Instant, run: &mut Run<'_>) {
        let Some(rate) = run.plan.options.read_rate else {
            return;
        };
        let mut waiting = Vec::new();
        for exchange in &mut self.exchanges {
            let since = now.saturating_duration_since(exchange.refilled);
            exchange.refilled = now;
            // Half a second's worth at most, so that a pause does not end in a burst.
            exchange.allowance = (exchange.allowance + since.as_secs_f64() * rate * 1024.0).min(rate * 512.0).max(0.0);
            if exchange.pending {
                waiting.push(exchange.stream);
            }
        }
        for stream in waiting {
            self.read(stream, now, run);
            // The end of a stream is only told by a poll after the last byte was read.
            self.news = true;
        }
    }

    fn upload(&mut self, now: Instant, run: &mut Run<'_>) {
        let Some(h3) = &mut self.h3 else {
            return;
        };
        for exchange in &mut self.exchanges {
            while exchange.upload_left > 0 {
                let sent = run.plan.body - exchange.upload_left;
                let mut piece = Piece::of_body(sent, exchange.upload_left);
                let last = piece.len() as u64 == exchange.upload_left;
                match h3.send_body_zc(&mut self.quic, exchange.stream, &mut piece, last) {
                    Ok(len) => {
                        exchange.upload_left -= len as u64;
                        exchange.moved = now;
                        run.tally.bytes_up += len as u64;
                    }
                    Err(h3::Error::Done | h3::Error::StreamBlocked) => break,
                    // The server stopped reading: its answer says why.
                    Err(_) => exchange.upload_left = 0,
                }
            }
        }
    }

    fn finish(&mut self, stream: u64, now: Instant, run: &mut Run<'_>) {
        let Some(at) = self.exchanges.iter().position(|e| e.stream == stream) else {
            return;
        };
        let exchange = &self.exchanges[at];
        let options = &run.plan.options;
        let status_fits =
            options.expect_status.map_or((200..300).contains(&exchange.status), |status| exchange.status == status);
        let is_head = options.method.as_deref() == Some("HEAD");
        let expected = options.expect_bytes.or(exchange.announced.filter(|_| !is_head));
        if exchange.status < 200 {
            return self.fail(stream, Fault::Protocol, run);
        }
        if !status_fits {
            return self.fail(stream, Fault::Status, run);
        }
        if expected.is_some_and(|bytes| bytes != exchange.received) {
            return self.fail(stream, Fault::Length, run);
        }
        let exchange = self.exchanges.swap_remove(at);
        if exchange.upload_left > 0 {
            // Answered early: the rest of the request is of no use.
            let _ = self.quic.stream_shutdown(stream, quiche::Shutdown::Write, H3_NO_ERROR);
        }
        if counts(&exchange, run) {
            run.tally.succeeded += 1;
            run.tally.latency.record(now - exchange.due);
            if let Some(digest) = exchange.digest {
                run.tally.note_digest(&digest.finish());
            }
        }
    }

    fn fail(&mut self, stream: u64, fault: Fault, run: &mut Run<'_>) {
        if let Some(at) = self.exchanges.iter().position(|e| e.stream == stream) {
            let exchange = self.exchanges.swap_remove(at);
            if counts(&exchange, run) {
                run.tally.fail(fault);
            }
            for direction in [quiche::Shutdown::Read, quiche::Shutdown::Write] {
                let _ = self.quic.stream_shutdown(stream, direction, H3_REQUEST_CANCELLED);
            }
        }
    }

    /// Fails what made no progress for the time-out; true: the handshake itself did not.
    pub fn sweep(&mut self, now: Instant, run: &mut Run<'_>) -> bool {
        let timeout: Duration = run.plan.options.timeout;
        let stale: Vec<u64> = self
            .exchanges
            .iter()
            .filter(|e| !e.pending && now.saturating_duration_since(e.moved) > timeout)
            .map(|e| e.stream)
            .collect();
        for stream in stale {
            self.fail(stream, Fault::RequestTimeout, run);
        }
        self.h3.is_none() && now.saturating_duration_since(self.opened) > timeout
    }

    /// Counts what ends with the connection.
    pub fn abandon(&mut self, fault: Fault, run: &mut Run<'_>) {
        if self.h3.is_none() {
            run.tally.fail(fault);
        }
        for exchange in std::mem::take(&mut self.exchanges) {
            if counts(&exchange, run) {
                run.tally.fail(fault);
            }
        }
    }

    /// The newest session ticket.
    pub fn session(&self) -> Option<Vec<u8>> {
        self.quic.session().map(<[u8]>::to_vec)
    }

    /// Says goodbye; [`Client::flush`] sends it.
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

/// A fixed number of requests counts only those that began after the warm-up; a fixed time counts all that end in it.
fn counts(exchange: &Exchange, run: &Run<'_>) -> bool {
    !(exchange.warm && run.measuring && matches!(run.plan.until, Until::Requests(_)))
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
        let mut client = Client::new(quic, 0, 1, Instant::now());
        let mut out = vec![0; BUFFER_BYTES];
        // Closed before its first packet has left, the crypto stream is still full.
        client.close();
        client.flush(&mut socket, &mut out).unwrap();
        assert!(client.is_closed());
        assert!(client.quic.stats().sent < 5, "{:?}", client.quic.stats());
    }
}
