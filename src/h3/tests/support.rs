//! A client on quiche, a network that loses, delays and doubles, and an origin that answers, all in memory.

use crate::h3::tickets::TicketKeys;
use crate::h3::{ConnKey, Connection, Endpoint, EndpointKeys, QuicSettings, Received, TlsContexts, Train};
use crate::http::{Event, Method, RequestHead, ResponseHead, StreamRef};
use crate::identity::Identity;
use crate::telemetry::WallClock;
use quiche::h3::NameValue as _;
use rustc_hash::FxHashMap;
use spooky_uring::Chunk;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub fn server_address() -> SocketAddr {
    "127.0.0.1:4433".parse().unwrap()
}

pub fn client_address() -> SocketAddr {
    "127.0.0.1:5555".parse().unwrap()
}

/// xorshift64*: the same numbers from the same seed everywhere.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Byte `at` of every body.
pub fn body_byte(at: u64) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}

pub fn body(range: std::ops::Range<u64>) -> Vec<u8> {
    range.map(body_byte).collect()
}

/// What a client got on one stream.
#[derive(Default, Debug)]
pub struct Answer {
    /// Heads in order, the trailers last.
    pub heads: Vec<Vec<(String, String)>>,
    pub len: u64,
    pub intact: bool,
    pub finished: bool,
    pub reset: Option<u64>,
}

impl Answer {
    pub fn status(&self) -> &str {
        self.field(0, ":status").unwrap_or("none")
    }

    pub fn field(&self, head: usize, name: &str) -> Option<&str> {
        let (_, value) = self.heads.get(head)?.iter().find(|(n, _)| n == name)?;
        Some(value)
    }

    pub fn is_over(&self) -> bool {
        self.finished || self.reset.is_some()
    }
}

/// A body the client still sends.
pub struct Upload {
    sent: u64,
    len: u64,
    end: bool,
    trailers: Option<Vec<quiche::h3::Header>>,
}

pub struct ClientSettings {
    pub stream_window: u64,
    pub connection_window: u64,
    pub reads: bool,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self { stream_window: 1 << 20, connection_window: 4 << 20, reads: true }
    }
}

pub struct Client {
    pub quic: quiche::Connection,
    pub http: Option<quiche::h3::Connection>,
    pub answers: BTreeMap<u64, Answer>,
    pub uploads: BTreeMap<u64, Upload>,
    pub goaways: Vec<u64>,
    pub error: Option<quiche::h3::Error>,
    pub reads: bool,
    pub address: SocketAddr,
}

impl Client {
    pub fn new(seed: u64, settings: &ClientSettings) -> Self {
        let mut config = quiche::Config::new(quiche::PROTOCOL_VERSION).unwrap();
        config.set_application_protos(&[b"h3"]).unwrap();
        config.verify_peer(false);
        config.set_max_idle_timeout(30_000);
        config.set_max_send_udp_payload_size(1350);
        config.set_initial_max_data(settings.connection_window);
        config.set_max_connection_window(settings.connection_window);
        config.set_initial_max_stream_data_bidi_local(settings.stream_window);
        config.set_max_stream_window(settings.stream_window);
        config.set_initial_max_stream_data_uni(64 << 10);
        config.set_initial_max_streams_uni(8);
        // Room to move.
        config.set_active_connection_id_limit(4);
        // So that heads of any size go in one piece, as its HTTP/3 layer wants.
        config.set_initial_congestion_window_packets(100);
        Self::with_config(seed, settings, config)
    }

    pub fn with_config(seed: u64, settings: &ClientSettings, mut config: quiche::Config) -> Self {
        let mut random = Random::new(seed);
        let scid = (0..16).map(|_| random.next() as u8).collect::<Vec<_>>();
        let scid = quiche::ConnectionId::from_ref(&scid);
        let quic =
            quiche::connect(Some("example.test"), &scid, client_address(), server_address(), &mut config).unwrap();
        Self {
            quic,
            http: None,
            answers: BTreeMap::new(),
            uploads: BTreeMap::new(),
            goaways: Vec::new(),
            error: None,
            reads: settings.reads,
            address: client_address(),
        }
    }

    /// Every datagram that it would send now.
    pub fn flight(&mut self) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 2000];
        let mut datagrams = Vec::new();
        while let Ok((len, _)) = self.quic.send(&mut buffer) {
            datagrams.push(buffer[..len].to_vec());
        }
        datagrams
    }

    /// Takes one datagram of the server.
    pub fn receive(&mut self, datagram: &[u8]) -> Result<usize, quiche::Error> {
        let info = quiche::RecvInfo { from: server_address(), to: client_address() };
        self.quic.recv(&mut datagram.to_vec(), info)
    }

    pub fn head(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<quiche::h3::Header> {
        let pseudo = [(":method", method), (":scheme", "https"), (":authority", "example.test"), (":path", path)];
        Self::fields(&[&pseudo[..], more].concat())
    }

    pub fn fields(fields: &[(&str, &str)]) -> Vec<quiche::h3::Header> {
        fields.iter().map(|(name, value)| quiche::h3::Header::new(name.as_bytes(), value.as_bytes())).collect()
    }

    pub fn request(&mut self, head: &[quiche::h3::Header], end: bool) -> u64 {
        let http = self.http.as_mut().expect("handshake done");
        http.send_request(&mut self.quic, head, end).expect("request fits")
    }

    /// A request written past the client's own HTTP/3 layer, which refuses or repairs some.
    pub fn raw_request(&mut self, stream: u64, fields: &[(&str, &str)], end: bool) {
        let mut section = vec![0, 0];
        for (name, value) in fields {
            crate::h3::qpack::prefixed(0x20, 3, name.len(), &mut section);
            section.extend_from_slice(name.as_bytes());
            crate::h3::qpack::prefixed(0x00, 7, value.len(), &mut section);
            section.extend_from_slice(value.as_bytes());
        }
        let mut frame = vec![0x01];
        frame.extend_from_slice(&(0x8000_0000 | section.len() as u32).to_be_bytes());
        frame.extend_from_slice(&section);
        let sent = self.quic.stream_send(stream, &frame, end);
        assert_eq!(sent, Ok(frame.len()));
    }

    pub fn get(&mut self, path: &str) -> u64 {
        self.request(&Self::head("GET", path, &[]), true)
    }

    pub fn post(&mut self, path: &str, len: u64) -> u64 {
        let announced = len.to_string();
        let head = Self::head("POST", path, &[("content-length", &announced)]);
        let stream = self.request(&head, false);
        self.upload(stream, len, true);
        stream
    }

    pub fn upload(&mut self, stream: u64, len: u64, end: bool) {
        let upload = Upload { sent: 0, len, end, trailers: None };
        self.uploads.insert(stream, upload);
    }

    pub fn upload_with_trailers(&mut self, stream: u64, len: u64, trailers: &[(&str, &str)]) {
        self.upload(stream, len, false);
        let upload = self.uploads.get_mut(&stream).unwrap();
        upload.trailers = Some(Self::fields(trailers));
    }

    /// Everything that does not need the network.
    pub fn turn(&mut self) {
        if self.http.is_none() && self.quic.is_established() {
            let mut config = quiche::h3::Config::new().unwrap();
            config.set_max_field_section_size(1 << 20);
            self.http = quiche::h3::Connection::with_transport(&mut self.quic, &config).ok();
        }
        self.send_uploads();
        self.poll();
    }

    fn send_uploads(&mut self) {
        let Some(http) = &mut self.http else {
            return;
        };
        let quic = &mut self.quic;
        self.uploads.retain(|&stream, upload| {
            loop {
                let left = upload.len - upload.sent;
                if left == 0 {
                    if let Some(trailers) = &upload.trailers {
                        return http
                            .send_additional_headers(quic, stream, trailers, true, true)
                            .is_err_and(|error| error == quiche::h3::Error::StreamBlocked);
                    }
                    if !upload.end {
                        return false;
                    }
                }
                let piece = body(upload.sent..upload.sent + left.min(16 << 10));
                let end = upload.end && piece.len() as u64 == left;
                match http.send_body(quic, stream, &piece, end) {
                    Ok(sent) => {
                        upload.sent += sent as u64;
                        if end && sent == piece.len() {
                            return false;
                        }
                    }
                    Err(quiche::h3::Error::Done) => return true,
                    Err(_) => return false,
                }
            }
        });
    }

    fn poll(&mut self) {
        let Some(http) = &mut self.http else {
            return;
        };
        if !self.reads {
            return;
        }
        let mut buffer = vec![0; 64 << 10];
        loop {
            match http.poll(&mut self.quic) {
                Ok((stream, quiche::h3::Event::Headers { list, .. })) => {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let head = list.iter().map(|field| (text(field.name()), text(field.value()))).collect();
                    let answer = self.answers.entry(stream).or_default();
                    answer.heads.push(head);
                    answer.intact |= answer.len == 0;
                }
                Ok((stream, quiche::h3::Event::Data)) => {
                    let answer = self.answers.entry(stream).or_default();
                    while let Ok(read) = http.recv_body(&mut self.quic, stream, &mut buffer) {
                        for &byte in &buffer[..read] {
                            answer.intact &= byte == body_byte(answer.len);
                            answer.len += 1;
                        }
                    }
                }
                Ok((stream, quiche::h3::Event::Finished)) => {
                    self.answers.entry(stream).or_default().finished = true;
                }
                Ok((stream, quiche::h3::Event::Reset(code))) => {
                    self.answers.entry(stream).or_default().reset = Some(code);
                }
                Ok((id, quiche::h3::Event::GoAway)) => self.goaways.push(id),
                Ok((_, quiche::h3::Event::PriorityUpdate)) => {}
                Err(quiche::h3::Error::Done) => break,
                Err(error) => {
                    self.error = Some(error);
                    break;
                }
            }
        }
    }
}

/// What the origin does with a request, told by its path.
#[derive(Debug)]
pub struct Task {
    pub path: String,
    pub received: u64,
    pub intact: bool,
    pub ended: bool,
    pub trailers: Vec<(String, String)>,
    pub reset: Option<u64>,
    pub stopped: Option<u64>,
    /// Body bytes still to be sent, and those sent.
    pub left: u64,
    pub sent: u64,
    pub sending: bool,
}

/// The origin: `/bytes/N` answers N bytes; `/echo` answers the length of what it got; `/hold` answers nothing;
/// others by the hook of a test.
#[derive(Default)]
pub struct Origin {
    pub tasks: FxHashMap<u64, Task>,
    /// Every event as a word, for stories about order.
    pub log: Vec<(u64, String)>,
    pub grant: usize,
    pub piece: usize,
    /// Pretend that bodies stand in the receive pool.
    pub pooled: bool,
    /// Announce no length.
    pub unknown_length: bool,
}

impl Origin {
    pub fn handle(&mut self, connection: &mut Connection, told: StreamRef, event: Event<Box<RequestHead>>) {
        let stream = told.stream;
        match event {
            Event::Head { head, end } => {
                let path = head.target.matched().unwrap_or("*").to_owned();
                self.log.push((stream, format!("head {path} {end}")));
                connection.set_owner(stream, stream as u32 + 7);
                let task = Task {
                    path: path.clone(),
                    received: 0,
                    intact: true,
                    ended: end,
                    trailers: Vec::new(),
                    reset: None,
                    stopped: None,
                    left: 0,
                    sent: 0,
                    sending: false,
                };
                self.tasks.insert(stream, task);
                if let Some(len) = path.strip_prefix("/bytes/") {
                    let len = len.parse().unwrap();
                    self.answer(connection, stream, len, head.method != Method::Head);
                }
                if !end {
                    connection.grant(stream, self.grant);
                }
            }
            Event::Body(chunk) => {
                assert_eq!(told.owner, stream as u32 + 7);
                let task = self.tasks.get_mut(&stream).unwrap();
                assert!(!task.ended, "body behind the end");
                assert!(chunk.len() <= self.grant, "more than granted");
                for &byte in chunk.iter() {
                    task.intact &= byte == body_byte(task.received);
                    task.received += 1;
                }
                if task.path != "/slow" {
                    connection.grant(stream, chunk.len());
                }
            }
            Event::Trailers(fields) => {
                let task = self.tasks.get_mut(&stream).unwrap();
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                task.trailers = fields.iter().map(|(name, value)| (text(name.name), text(value))).collect();
                self.log.push((stream, "trailers".to_owned()));
            }
            Event::End => {
                self.log.push((stream, "end".to_owned()));
                let task = self.tasks.get_mut(&stream).unwrap();
                task.ended = true;
                if task.path == "/echo" {
                    let mut head = ResponseHead::new(200);
                    head.fields.push(b"x-received", task.received.to_string().as_bytes());
                    head.fields.push(b"x-intact", task.intact.to_string().as_bytes());
                    connection.send_head(stream, &head, true);
                }
            }
            Event::Reset(code) => {
                self.log.push((stream, format!("reset {code:#x}")));
                if let Some(task) = self.tasks.get_mut(&stream) {
                    task.reset = Some(code);
                }
            }
            Event::Stop(code) => {
                self.log.push((stream, format!("stop {code:#x}")));
                if let Some(task) = self.tasks.get_mut(&stream) {
                    task.stopped = Some(code);
                    task.sending = false;
                }
            }
            Event::Room => {
                self.log.push((stream, "room".to_owned()));
                // Also told when the last byte of a finished response has left the queue.
                let finished = self.tasks.get(&stream).is_none_or(|task| !task.sending);
                assert!(connection.room(stream) > 0 || finished);
                self.pump(connection, stream);
            }
            Event::Refused(refusal) => {
                self.log.push((stream, format!("refused {}", refusal.reason.token())));
                if !refusal.malformed {
                    connection.send_head(stream, &ResponseHead::new(refusal.status), true);
                }
            }
            Event::Informational(_) => panic!("clients send no 1xx"),
        }
    }

    /// Answers 200 with so many bytes.
    pub fn answer(&mut self, connection: &mut Connection, stream: u64, len: u64, with_body: bool) {
        let mut head = ResponseHead::new(200);
        head.fields.push(b"content-type", b"application/octet-stream");
        head.content_length = (!self.unknown_length).then_some(len);
        connection.send_head(stream, &head, !with_body);
        if with_body {
            let task = self.tasks.get_mut(&stream).unwrap();
            task.left = len;
            task.sending = true;
            self.pump(connection, stream);
        }
    }

    /// Sends while there is room.
    pub fn pump(&mut self, connection: &mut Connection, stream: u64) {
        let Some(task) = self.tasks.get_mut(&stream) else {
            return;
        };
        while task.sending {
            if task.left == 0 {
                connection.end(stream);
                task.sending = false;
                return;
            }
            let room = connection.room(stream);
            if room == 0 {
                return;
            }
            let len = task.left.min(self.piece as u64).min(room as u64);
            let chunk = Chunk::from_vec(body(task.sent..task.sent + len));
            connection.send_piece(stream, chunk, self.pooled);
            task.sent += len;
            task.left -= len;
        }
    }
}

/// The datagrams of a new client's first flight.
pub fn first_datagrams(seed: u64) -> Vec<Vec<u8>> {
    Client::new(seed, &ClientSettings::default()).flight()
}

/// One datagram of the usual client.
pub fn receive(endpoint: &mut Endpoint, datagram: &[u8]) -> Received {
    endpoint.receive(&mut datagram.to_vec(), client_address(), server_address(), Instant::now())
}

/// How the network treats datagrams, in percent.
#[derive(Clone, Copy, Default)]
pub struct Weather {
    pub lose: u64,
    pub double: u64,
    pub delay: u64,
}

pub struct World {
    pub endpoint: Endpoint,
    pub key: Option<ConnKey>,
    pub client: Client,
    pub origin: Origin,
    pub weather: Weather,
    pub random: Random,
    /// Delayed datagrams: turns left, towards the server, bytes.
    delayed: VecDeque<(u64, bool, Vec<u8>)>,
    /// Every datagram of the client, for replays.
    pub recorded: Option<Vec<Vec<u8>>>,
    pub trains: Vec<Train>,
    pub mss: usize,
    pub turns: u64,
    /// The address that a NAT gives the client, which knows nothing of it; what is sent to an earlier one is lost.
    pub nat: Option<SocketAddr>,
    /// Nothing reaches the client.
    pub deaf: bool,
}

pub fn identity() -> Identity {
    Identity::self_signed(&["example.test"]).unwrap()
}

/// One identity for every name.
pub fn contexts() -> Arc<TlsContexts> {
    let tickets = TicketKeys::derive(b"a secret of the tests", || 0);
    Arc::new(TlsContexts::single(&identity(), &tickets).unwrap())
}

pub fn endpoint(settings: &QuicSettings) -> Endpoint {
    let keys = EndpointKeys::derive(b"a secret of the tests");
    let mut endpoint = Endpoint::new(settings, &contexts(), &keys, 3, 9).unwrap();
    endpoint.set_clock(WallClock::new(Instant::now(), SystemTime::now()));
    endpoint
}

impl World {
    pub fn new(settings: &QuicSettings, client: &ClientSettings) -> Self {
        Self::over(endpoint(settings), Client::new(1, client), settings)
    }

    pub fn over(endpoint: Endpoint, client: Client, settings: &QuicSettings) -> Self {
        Self {
            endpoint,
            key: None,
            client,
            origin: Origin { grant: 64 << 10, piece: 16 << 10, ..Origin::default() },
            weather: Weather::default(),
            random: Random::new(1),
            delayed: VecDeque::new(),
            recorded: None,
            trains: Vec::new(),
            mss: usize::from(settings.max_udp_payload),
            turns: 0,
            nat: None,
            deaf: false,
        }
    }

    /// Default settings and a finished handshake.
    pub fn ready() -> Self {
        Self::ready_with(&QuicSettings::default(), &ClientSettings::default())
    }

    pub fn ready_with(settings: &QuicSettings, client: &ClientSettings) -> Self {
        let mut world = Self::new(settings, client);
        world.handshake();
        world
    }

    pub fn handshake(&mut self) {
        self.run(|world| world.client.http.is_some() && world.connection().facts().handshake.is_some());
    }

    pub fn connection(&mut self) -> &mut Connection {
        self.endpoint.get_mut(self.key.expect("accepted")).expect("alive")
    }

    /// Server and origin for a command of a test.
    pub fn with<R>(&mut self, act: impl FnOnce(&mut Origin, &mut Connection) -> R) -> R {
        let connection = self.endpoint.get_mut(self.key.expect("accepted")).unwrap();
        act(&mut self.origin, connection)
    }

    /// Runs until `done`; fails if nothing moves any more and no timer is near.
    pub fn run(&mut self, done: impl Fn(&mut Self) -> bool) {
        for _ in 0..200_000 {
            if done(self) {
                return;
            }
            if !self.turn() && !self.wait() {
                break;
            }
        }
        assert!(
            done(self),
            "stuck after {} turns: {:?} {:?} {:?} client {:?} {:?}",
            self.turns,
            self.key.and_then(|key| self.endpoint.get_mut(key)?.close_cause()),
            self.origin.log,
            self.origin.tasks,
            self.client.answers,
            self.client.quic.local_error(),
        );
    }

    /// Runs until nothing moves.
    pub fn settle(&mut self) {
        while self.turn() {}
    }

    /// One turn of everybody; `true`: a datagram moved.
    pub fn turn(&mut self) -> bool {
        self.turns += 1;
        self.client.turn();
        let mut moved = false;
        let mut buffer = vec![0; 65_536];
        while let Ok((len, info)) = self.client.quic.send(&mut buffer) {
            moved = true;
            if let Some(recorded) = &mut self.recorded {
                recorded.push(buffer[..len].to_vec());
            }
            assert_eq!(info.to, server_address());
            self.client.address = info.from;
            self.travel(true, buffer[..len].to_vec());
        }
        moved |= self.serve();
        for index in (0..self.delayed.len()).rev() {
            self.delayed[index].0 -= 1;
            if self.delayed[index].0 == 0
                && let Some((_, to_server, bytes)) = self.delayed.remove(index)
            {
                self.arrive(to_server, bytes);
            }
            moved = true;
        }
        moved
    }

    /// The worker's part: events, commands, trains.
    pub fn serve(&mut self) -> bool {
        let Some(key) = self.key else {
            return false;
        };
        let mut moved = false;
        let mut slot = vec![0; 65_536];
        loop {
            let now = Instant::now();
            let Some(connection) = self.endpoint.get_mut(key) else {
                return moved;
            };
            while let Some((told, event)) = connection.next_event() {
                self.origin.handle(connection, told, event);
            }
            connection.check_invariants();
            let train = connection.transmit(&mut slot, now);
            connection.check_invariants();
            let Some(train) = train else {
                if connection.has_events() {
                    continue;
                }
                return moved;
            };
            moved = true;
            self.check_train(&train, &slot);
            if self.deaf || self.nat.is_some_and(|address| address != train.to) {
                continue;
            }
            for packet in slot[..train.len].chunks(usize::from(train.segment)) {
                self.travel(false, packet.to_vec());
            }
        }
    }

    fn check_train(&mut self, train: &Train, slot: &[u8]) {
        let segment = usize::from(train.segment);
        assert!(train.len > 0 && segment <= self.mss, "{train:?}");
        assert_eq!(train.packets, train.len.div_ceil(segment), "{train:?}");
        assert!(train.packets <= 64);
        assert_eq!(train.from, server_address());
        // A packet that stands on a boundary starts with a header: short, or long of version 1.
        for packet in slot[..train.len].chunks(segment) {
            assert!(packet[0] & 0x40 != 0, "not the start of a packet in {train:?}");
        }
        self.trains.push(*train);
    }

    fn travel(&mut self, to_server: bool, bytes: Vec<u8>) {
        let weather = self.weather;
        if self.random.chance(weather.lose) {
            return;
        }
        if self.random.chance(weather.double) {
            self.delayed.push_back((1 + self.random.below(3), to_server, bytes.clone()));
        }
        if self.random.chance(weather.delay) {
            self.delayed.push_back((1 + self.random.below(4), to_server, bytes));
        } else {
            self.arrive(to_server, bytes);
        }
    }

    fn arrive(&mut self, to_server: bool, mut bytes: Vec<u8>) {
        if to_server {
            let from = self.nat.unwrap_or(self.client.address);
            let received = self.endpoint.receive(&mut bytes, from, server_address(), Instant::now());
            match received {
                Received::Connection(key) | Received::InPlaceOf { connection: key, .. } => self.key = Some(key),
                Received::Reply { len } => {
                    let mut reply = vec![0; len];
                    assert_eq!(self.endpoint.take_reply(&mut reply), len);
                    self.travel(false, reply);
                }
                Received::Dropped(_) | Received::Elsewhere { .. } => {}
            }
        } else {
            let info = quiche::RecvInfo { from: server_address(), to: self.client.address };
            let _ = self.client.quic.recv(&mut bytes, info);
        }
    }

    /// Lets the nearest timer fire. quiche reads the real clock, so the time has to pass; lost packets need some 30 ms.
    pub fn wait(&mut self) -> bool {
        let client = self.client.quic.timeout_instant();
        let server = self.key.and_then(|key| self.endpoint.get_mut(key)?.next_deadline());
        let Some(at) = [client, server].into_iter().flatten().min() else {
            return false;
        };
        let left = at.saturating_duration_since(Instant::now());
        if left > Duration::from_secs(5) {
            return false;
        }
        while Instant::now() < at {
            std::thread::park_timeout(at.saturating_duration_since(Instant::now()));
        }
        self.fire();
        true
    }

    pub fn fire(&mut self) {
        let now = Instant::now();
        self.client.quic.on_timeout();
        if let Some(key) = self.key
            && let Some(connection) = self.endpoint.get_mut(key)
            && connection.next_deadline().is_some_and(|at| at <= now)
        {
            connection.handle_deadline(now);
        }
    }
}
