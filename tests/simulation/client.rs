//! A client: quiche's own HTTP/3 over the simulated network, doing a list of requests and remembering what came.

use crate::pattern::{Pattern, spoil};
use boring::ssl::{SslContext, SslMethod, SslSignatureAlgorithm};
use quiche::h3::{self, NameValue};
use spooky_uring::simulation::{Outgoing, Peer};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How a client takes a response's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    Eagerly,
    /// So many bytes each time.
    Slowly {
        bytes: usize,
        every: Duration,
    },
    /// So many bytes, then nothing more.
    UpTo(u64),
}

/// When a client gives a request up (RESET_STREAM and STOP_SENDING).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aborts {
    Never,
    AfterReceived(u64),
    AfterSent(u64),
    After(Duration),
}

/// A request to make.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: &'static str,
    pub path: String,
    pub fields: Vec<(String, String)>,
    /// Body bytes; `None`: the head ends the request.
    pub body: Option<u64>,
    /// Whether the body's length is announced.
    pub announced: bool,
    pub reads: Reads,
    pub aborts: Aborts,
    /// Starts when this one is over.
    pub behind: Option<usize>,
    /// Or this long after the client's start.
    pub at: Duration,
    /// A byte of the body that is not what it should be.
    pub wrong_at: Option<u64>,
}

impl Request {
    pub fn get(path: &str) -> Self {
        Self {
            method: "GET",
            path: path.to_owned(),
            fields: Vec::new(),
            body: None,
            announced: true,
            reads: Reads::Eagerly,
            aborts: Aborts::Never,
            behind: None,
            at: Duration::ZERO,
            wrong_at: None,
        }
    }

    pub fn post(path: &str, body: u64) -> Self {
        Self { method: "POST", body: Some(body), ..Self::get(path) }
    }
}

/// How an exchange stands or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Waiting,
    Running,
    /// The response came with a clean end.
    Finished,
    /// The server reset the response.
    Reset(u64),
    /// The client gave up.
    Aborted,
    /// The connection ended first.
    Lost,
}

/// A request and what became of it.
#[derive(Debug)]
pub struct Exchange {
    pub request: Request,
    pub outcome: Outcome,
    pub stream: Option<u64>,
    pub status: Option<u16>,
    pub fields: Vec<(String, String)>,
    pub sent: u64,
    sent_end: bool,
    /// The server wants no more of the request.
    pub stopped: bool,
    pub received: u64,
    /// Every byte was the one that belongs there (bodies of 200 only).
    pub intact: bool,
    pub began: Option<Instant>,
    pub answered: Option<Instant>,
    pub ended: Option<Instant>,
    readable: bool,
    reads_at: Option<Instant>,
}

impl Exchange {
    /// Whether nothing more will come.
    pub fn is_over(&self) -> bool {
        !matches!(self.outcome, Outcome::Waiting | Outcome::Running)
    }
}

/// A client with one connection.
pub struct Client {
    quic: quiche::Connection,
    http: Option<h3::Connection>,
    local: SocketAddr,
    /// The address that a NAT gives this client, which knows nothing of it; what comes to an earlier one is lost.
    pub outside: SocketAddr,
    start: Instant,
    now: Instant,
    pub exchanges: Vec<Exchange>,
    /// The highest request the server will serve, once it said so.
    pub goaway: Option<u64>,
    buffer: Vec<u8>,
    outgoing: VecDeque<Outgoing>,
}

impl Client {
    pub fn new(local: SocketAddr, server: SocketAddr, stream_window: u64, now: Instant) -> Self {
        let mut context = SslContext::builder(SslMethod::tls()).expect("a TLS context");
        // The test's certificate is an Ed25519 one, whose signatures have one length: so have all handshakes.
        context.set_verify_algorithm_prefs(&[SslSignatureAlgorithm::ED25519]).expect("Ed25519 is known");
        let mut config =
            quiche::Config::with_boring_ssl_ctx_builder(quiche::PROTOCOL_VERSION, context).expect("a configuration");
        config.set_application_protos(&[b"h3"]).expect("a short list");
        config.verify_peer(false);
        config.grease(false);
        config.set_max_idle_timeout(60_000);
        config.set_initial_max_data(stream_window * 8);
        config.set_initial_max_stream_data_bidi_local(stream_window);
        config.set_initial_max_stream_data_bidi_remote(stream_window);
        config.set_initial_max_stream_data_uni(1 << 20);
        config.set_initial_max_streams_bidi(0);
        config.set_initial_max_streams_uni(16);
        config.set_max_stream_window(stream_window);
        config.set_max_connection_window(stream_window * 8);
        config.set_max_recv_udp_payload_size(1452);
        config.set_max_send_udp_payload_size(1350);
        config.enable_pacing(false);
        let mut id = [0; 8];
        id[..2].copy_from_slice(&local.port().to_be_bytes());
        let id = quiche::ConnectionId::from_ref(&id);
        let quic = quiche::connect(Some("spooky.test"), &id, local, server, &mut config).expect("a connection");
        Self {
            quic,
            http: None,
            local,
            outside: local,
            start: now,
            now,
            exchanges: Vec::new(),
            goaway: None,
            buffer: vec![0; 64 << 10],
            outgoing: VecDeque::new(),
        }
    }

    /// Adds a request; its number. It starts when the client is woken next.
    pub fn ask(&mut self, request: Request) -> usize {
        self.exchanges.push(Exchange {
            request,
            outcome: Outcome::Waiting,
            stream: None,
            status: None,
            fields: Vec::new(),
            sent: 0,
            sent_end: false,
            stopped: false,
            received: 0,
            intact: true,
            began: None,
            answered: None,
            ended: None,
            readable: false,
            reads_at: None,
        });
        self.exchanges.len() - 1
    }

    /// Says something, if only that it is there.
    pub fn speak(&mut self) {
        let _ = self.quic.send_ack_eliciting();
    }

    pub fn is_done(&self) -> bool {
        self.exchanges.iter().all(Exchange::is_over)
    }

    pub fn close(&mut self) {
        // `Done`: it is closed already.
        let _ = self.quic.close(true, 0x100, b"bye");
    }

    /// Why the server closed the connection, if it did.
    pub fn closed_by_server(&self) -> Option<u64> {
        self.quic.peer_error().map(|error| error.error_code)
    }

    fn run(&mut self) {
        if self.quic.is_established() && self.http.is_none() && !self.quic.is_closed() {
            let config = h3::Config::new().expect("a configuration");
            self.http = h3::Connection::with_transport(&mut self.quic, &config).ok();
        }
        self.begin_requests();
        self.poll();
        for number in 0..self.exchanges.len() {
            self.send_body(number);
            self.read_body(number);
            self.abort_if_due(number);
        }
        // Those that waited for one that is over now.
        self.begin_requests();
        for number in 0..self.exchanges.len() {
            self.send_body(number);
        }
        if self.quic.is_closed() || self.quic.is_draining() {
            let now = self.now;
            for exchange in self.exchanges.iter_mut().filter(|exchange| !exchange.is_over()) {
                exchange.outcome = Outcome::Lost;
                exchange.ended = Some(now);
            }
        }
    }

    fn begins_at(&self, number: usize) -> Option<Instant> {
        let exchange = &self.exchanges[number];
        let free = exchange.request.behind.is_none_or(|before| self.exchanges[before].is_over());
        (exchange.outcome == Outcome::Waiting && free).then_some(self.start + exchange.request.at)
    }

    fn begin_requests(&mut self) {
        for number in 0..self.exchanges.len() {
            if self.begins_at(number).is_none_or(|at| at > self.now) {
                continue;
            }
            let Some(http) = &mut self.http else { return };
            let exchange = &mut self.exchanges[number];
            let request = &exchange.request;
            let (own, answer) = (2 * number, 2 * number + 1);
            let mut fields = vec![
                h3::Header::new(b":method", request.method.as_bytes()),
                h3::Header::new(b":scheme", b"https"),
                h3::Header::new(b":authority", b"spooky.test"),
                h3::Header::new(b":path", request.path.as_bytes()),
                h3::Header::new(b"x-pattern", own.to_string().as_bytes()),
                h3::Header::new(b"x-answer", answer.to_string().as_bytes()),
            ];
            // Pseudo-headers come first.
            let asked = request.fields.iter().filter(|(name, _)| name.starts_with(':'));
            let asked = asked.map(|(name, value)| h3::Header::new(name.as_bytes(), value.as_bytes()));
            fields.splice(4..4, asked);
            let more = request.fields.iter().filter(|(name, _)| !name.starts_with(':'));
            fields.extend(more.map(|(name, value)| h3::Header::new(name.as_bytes(), value.as_bytes())));
            if let (Some(length), true) = (request.body, request.announced) {
                fields.push(h3::Header::new(b"content-length", length.to_string().as_bytes()));
            }
            match http.send_request(&mut self.quic, &fields, request.body.is_none()) {
                Ok(stream) => {
                    exchange.stream = Some(stream);
                    exchange.outcome = Outcome::Running;
                    exchange.began = Some(self.now);
                    exchange.sent_end = request.body.is_none();
                }
                Err(h3::Error::StreamBlocked | h3::Error::Done) => return,
                Err(h3::Error::TransportError(quiche::Error::StreamLimit)) => return,
                Err(error) => {
                    let closed = self.quic.is_closed() || self.quic.is_draining();
                    assert!(self.goaway.is_some() || closed, "request: {error:?}, {:?}", self.quic.local_error());
                    exchange.outcome = Outcome::Lost;
                }
            }
        }
    }

    fn send_body(&mut self, number: usize) {
        let exchange = &mut self.exchanges[number];
        let (Some(stream), Some(length), Some(http)) = (exchange.stream, exchange.request.body, &mut self.http) else {
            return;
        };
        let pattern = Pattern::of(2 * number as u64);
        let stop_at = match exchange.request.aborts {
            Aborts::AfterSent(bytes) => bytes.min(length),
            _ => length,
        };
        while !exchange.is_over() && !exchange.sent_end && !exchange.stopped {
            let len = (stop_at - exchange.sent).min(32 << 10) as usize;
            let fin = exchange.sent + len as u64 == length;
            if len == 0 && !fin {
                return;
            }
            let mut bytes = pattern.bytes(exchange.sent, len);
            spoil(&mut bytes, exchange.sent, exchange.request.wrong_at);
            match http.send_body(&mut self.quic, stream, &bytes, fin) {
                Ok(sent) => {
                    exchange.sent += sent as u64;
                    exchange.sent_end = fin && sent == len;
                }
                Err(h3::Error::Done) => return,
                Err(h3::Error::TransportError(quiche::Error::StreamStopped(_))) => exchange.stopped = true,
                Err(error) => {
                    assert!(exchange.is_over() || self.quic.is_closed(), "body: {error:?}");
                    return;
                }
            }
        }
    }

    fn poll(&mut self) {
        let Some(http) = &mut self.http else { return };
        loop {
            let (stream, event) = match http.poll(&mut self.quic) {
                Ok(polled) => polled,
                Err(h3::Error::Done) => return,
                // A stream that was reset and is forgotten already.
                Err(h3::Error::TransportError(quiche::Error::InvalidStreamState(_))) => return,
                Err(error) => {
                    assert!(self.quic.peer_error().is_some() || self.quic.is_closed(), "poll: {error:?}");
                    return;
                }
            };
            if let h3::Event::GoAway = event {
                self.goaway = Some(stream);
                continue;
            }
            let Some(exchange) = self.exchanges.iter_mut().find(|exchange| exchange.stream == Some(stream)) else {
                continue;
            };
            match event {
                h3::Event::Headers { list, .. } => {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let status = list.iter().find(|field| field.name() == b":status");
                    let status = status.and_then(|field| text(field.value()).parse().ok());
                    if status.is_some_and(|status: u16| status >= 200) {
                        assert!(exchange.status.is_none(), "two final heads");
                        exchange.status = status;
                        exchange.answered = Some(self.now);
                        exchange.fields = list.iter().map(|field| (text(field.name()), text(field.value()))).collect();
                    }
                }
                h3::Event::Data => exchange.readable = true,
                h3::Event::Finished => {
                    assert!(exchange.status.is_some(), "an end without a head");
                    if !exchange.is_over() {
                        exchange.outcome = Outcome::Finished;
                        exchange.ended = Some(self.now);
                    }
                }
                h3::Event::Reset(code) if !exchange.is_over() => {
                    exchange.outcome = Outcome::Reset(code);
                    exchange.ended = Some(self.now);
                }
                _ => {}
            }
        }
    }

    fn read_body(&mut self, number: usize) {
        let exchange = &mut self.exchanges[number];
        let (Some(stream), true) = (exchange.stream, exchange.readable) else {
            return;
        };
        if exchange.is_over() || exchange.reads_at.is_some_and(|at| at > self.now) {
            return;
        }
        let mut left = match exchange.request.reads {
            Reads::Eagerly => usize::MAX,
            Reads::Slowly { bytes, every } => {
                exchange.reads_at = Some(self.now + every);
                bytes
            }
            Reads::UpTo(most) => (most - exchange.received) as usize,
        };
        let pattern = Pattern::of(2 * number as u64 + 1);
        let Some(http) = &mut self.http else { return };
        while left > 0 {
            let most = left.min(self.buffer.len());
            match http.recv_body(&mut self.quic, stream, &mut self.buffer[..most]) {
                Ok(len) => {
                    if exchange.status == Some(200) {
                        exchange.intact &= pattern.matches(exchange.received, &self.buffer[..len]);
                    }
                    exchange.received += len as u64;
                    left -= len;
                }
                Err(h3::Error::Done) => {
                    exchange.readable = false;
                    break;
                }
                Err(h3::Error::TransportError(quiche::Error::StreamReset(code))) => {
                    exchange.outcome = Outcome::Reset(code);
                    exchange.ended = Some(self.now);
                    return;
                }
                Err(error) => {
                    assert!(self.quic.is_closed() || self.quic.peer_error().is_some(), "read: {error:?}");
                    return;
                }
            }
        }
        // The end shows only when asked again.
        self.poll();
    }

    fn aborts_at(&self, number: usize) -> Option<Instant> {
        let exchange = &self.exchanges[number];
        let began = exchange.began.filter(|_| !exchange.is_over())?;
        match exchange.request.aborts {
            Aborts::Never => None,
            Aborts::AfterReceived(bytes) => (exchange.received >= bytes).then_some(self.now),
            Aborts::AfterSent(bytes) => (exchange.sent >= bytes).then_some(self.now),
            Aborts::After(time) => Some(began + time),
        }
    }

    fn abort_if_due(&mut self, number: usize) {
        if self.aborts_at(number).is_none_or(|at| at > self.now) {
            return;
        }
        let exchange = &mut self.exchanges[number];
        let Some(stream) = exchange.stream else { return };
        // Either direction may be over already.
        let _ = self.quic.stream_shutdown(stream, quiche::Shutdown::Read, 0x10c);
        let _ = self.quic.stream_shutdown(stream, quiche::Shutdown::Write, 0x10c);
        exchange.outcome = Outcome::Aborted;
        exchange.ended = Some(self.now);
    }

    fn flush(&mut self) {
        // Bounded: closed before its handshake is confirmed and with a full window, quiche acknowledges without end.
        for _ in 0..1000 {
            let mut packet = vec![0; 1350];
            let Ok((len, info)) = self.quic.send(&mut packet) else {
                return;
            };
            packet.truncate(len);
            self.outgoing.push_back(Outgoing { bytes: packet, from: info.from, to: info.to });
        }
    }
}

impl Peer for Client {
    fn receive(&mut self, bytes: &mut [u8], from: SocketAddr, to: SocketAddr, now: Instant) {
        self.now = now;
        if to != self.outside {
            return;
        }
        // An error closes the connection inside.
        let _ = self.quic.recv(bytes, quiche::RecvInfo { from, to: self.local });
        self.run();
        self.flush();
    }

    fn transmit(&mut self, now: Instant) -> Option<Outgoing> {
        self.now = now;
        let outgoing = self.outgoing.pop_front()?;
        Some(Outgoing { from: self.outside, ..outgoing })
    }

    fn deadline(&self) -> Option<Instant> {
        let mut at = self.quic.timeout_instant();
        let mut earlier = |other: Option<Instant>| at = [at, other].into_iter().flatten().min();
        for number in 0..self.exchanges.len() {
            let exchange = &self.exchanges[number];
            if self.http.is_some() {
                earlier(self.begins_at(number).filter(|at| *at > self.now));
            }
            earlier(self.aborts_at(number).filter(|at| *at > self.now));
            if exchange.readable && !exchange.is_over() {
                earlier(exchange.reads_at.filter(|at| *at > self.now));
            }
        }
        at
    }

    fn wake(&mut self, now: Instant) {
        self.now = now;
        if self.quic.timeout_instant().is_some_and(|at| at <= now) {
            self.quic.on_timeout();
        }
        self.run();
        self.flush();
    }
}
