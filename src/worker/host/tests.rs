//! A host on a scripted machine: bytes in, bytes out, time as told.

use super::*;
use crate::http::{Fields, Known, ResponseHead};
use spooky_uring::io::{FileId, Pressure};
use spooky_uring::mailbox::Doorbell;
use spooky_uring::{
    Chunk, End, Event, Io, Lease, ListenerId, RingStats, StreamAddress, StreamId, Token, Transmit, UdpId,
};
use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
struct Stream {
    token: Token,
    sent: Vec<u8>,
    /// Bytes the other side has not taken; only while `stuck`.
    queued: usize,
    stuck: bool,
    reading: bool,
    shut: bool,
    closed: Option<&'static str>,
}

struct Machine {
    now: Instant,
    streams: HashMap<u32, Stream>,
    stats: RingStats,
}

impl Machine {
    fn stream(&mut self, stream: StreamId) -> &mut Stream {
        let stream = self.streams.get_mut(&stream.slot).expect("a stream");
        assert_eq!(stream.closed, None, "used after it was closed");
        stream
    }
}

impl Io for Machine {
    type Slot = Vec<u8>;

    fn now(&self) -> Instant {
        self.now
    }
    fn wait(&mut self, _: Option<Instant>, _: &mut Vec<Event>) -> io::Result<()> {
        unreachable!("tests bring the events")
    }
    fn udp_slot(&mut self) -> Option<Vec<u8>> {
        None
    }
    fn udp_send(&mut self, _: UdpId, _: Vec<u8>, _: Transmit) {}
    fn connect(&mut self, _: &StreamAddress, _: Token) -> Option<StreamId> {
        None
    }
    fn set_token(&mut self, stream: StreamId, token: Token) {
        self.stream(stream).token = token;
    }
    fn resume(&mut self, stream: StreamId) {
        self.stream(stream).reading = true;
    }
    fn pause(&mut self, stream: StreamId) {
        self.stream(stream).reading = false;
    }
    fn send(&mut self, stream: StreamId, chunk: Chunk) {
        let stream = self.stream(stream);
        assert!(!stream.shut, "sent after FIN");
        stream.sent.extend_from_slice(&chunk);
        if stream.stuck {
            stream.queued += chunk.len();
        }
    }
    fn local_address(&self, _: StreamId) -> Option<std::net::SocketAddr> {
        None
    }
    fn queued(&self, stream: StreamId) -> usize {
        self.streams[&stream.slot].queued
    }
    fn shutdown(&mut self, stream: StreamId) {
        self.stream(stream).shut = true;
    }
    fn close(&mut self, stream: StreamId) {
        self.stream(stream).closed = Some("closed");
    }
    fn abort(&mut self, stream: StreamId) {
        self.stream(stream).closed = Some("aborted");
    }
    fn ring(&mut self, _: &Doorbell) {}
    fn watch(&mut self, _: &Doorbell, _: Token) {}
    fn write(&mut self, _: FileId, _: Chunk) {}
    fn close_file(&mut self, _: FileId) {}
    fn stop_listening(&mut self, _: ListenerId) {}
    fn stats(&self) -> &RingStats {
        &self.stats
    }

    fn pressure(&self) -> Pressure {
        Pressure { free: 1, total: 1 }
    }
}

/// Answers by path.
struct Paths;

/// Zeros up to a length, or ticks of a second each.
enum Made {
    Zeros(usize),
    Ticks { left: u32, next: Instant },
}

impl Source for Made {
    fn next(&mut self, room: usize, now: Instant) -> Piece {
        match self {
            Self::Zeros(0) => Piece::End,
            Self::Zeros(left) => {
                let len = room.min(*left).min(16 * 1024);
                *left -= len;
                Piece::Bytes(Chunk::from_vec(vec![b'0'; len]))
            }
            Self::Ticks { left: 0, .. } => {
                let mut trailers = Fields::new();
                trailers.push(b"x-end", b"yes");
                Piece::Trailers(trailers)
            }
            Self::Ticks { next, .. } if *next > now => Piece::Wait(*next),
            Self::Ticks { left, next } => {
                *left -= 1;
                *next = now + Duration::from_secs(1);
                Piece::Bytes(Chunk::copy_from(b"tick"))
            }
        }
    }
}

impl Service for Paths {
    type Source = Made;

    fn answer(&mut self, request: &Request<'_>) -> Answer<Made> {
        match request.head.target.matched().unwrap_or("") {
            "/" => Answer::text(200, "hello"),
            "/big" => Answer { head: ResponseHead::new(200), body: Body::Source(Made::Zeros(10 << 20)) },
            "/slow" => {
                Answer { head: ResponseHead::new(200), body: Body::Source(Made::Ticks { left: 2, next: request.now }) }
            }
            "/echo" => {
                let mut head = ResponseHead::new(200);
                head.content_length = request.head.content_length;
                Answer { head, body: Body::Echo }
            }
            _ => Answer::text(404, "nothing here").with(Known::CacheControl, b"no-store"),
        }
    }
}

/// A host, a machine, and the clients of both.
struct Stage {
    host: Host<Paths>,
    io: Machine,
}

const CLIENT: StreamId = StreamId { slot: 7, generation: 1 };

impl Stage {
    fn new(connections_max: usize) -> Self {
        let now = Instant::now();
        Self {
            host: Host::new(Paths, Settings::new(9, connections_max), now),
            io: Machine { now, streams: HashMap::new(), stats: RingStats::default() },
        }
    }

    fn connect(&mut self, stream: StreamId) {
        let token = self.host.listener_token(0);
        self.io.streams.insert(stream.slot, Stream::default());
        self.event(Event::Accepted { token, stream, peer: None });
    }

    fn event(&mut self, event: Event) {
        assert!(self.host.handle(event, &mut self.io).is_none());
        self.host.turn(&mut self.io);
    }

    fn send(&mut self, bytes: &[u8]) {
        let token = self.io.streams[&CLIENT.slot].token;
        self.event(Event::Received { token, stream: CLIENT, lease: Lease::from_vec(bytes.to_vec()) });
    }

    fn fin(&mut self) {
        let token = self.io.streams[&CLIENT.slot].token;
        self.event(Event::Ended { token, stream: CLIENT, end: End::Fin });
    }

    /// The client takes what is queued.
    fn drain_socket(&mut self) {
        let stream = self.io.streams.get_mut(&CLIENT.slot).unwrap();
        stream.queued = 0;
        let token = stream.token;
        self.event(Event::Sent { token, stream: CLIENT, queued: 0 });
    }

    fn pass(&mut self, duration: Duration) {
        self.io.now += duration;
        self.host.turn(&mut self.io);
    }

    fn client(&mut self) -> &mut Stream {
        self.io.streams.get_mut(&CLIENT.slot).unwrap()
    }

    /// What came since the last look.
    fn answer(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.client().sent)).unwrap()
    }
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes()
}

#[test]
fn requests_are_answered_in_order_on_one_connection() {
    let mut stage = Stage::new(4);
    stage.connect(CLIENT);
    let mut both = get("/");
    both.extend_from_slice(&get("/none"));
    stage.send(&both);
    let answer = stage.answer();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-length: 6\r\n\r\nhello\nHTTP/1.1 404 "), "{answer}");
    assert_eq!(answer.matches("\r\ndate: ").count(), 2, "{answer}");
    assert!(answer.ends_with("\r\n\r\nnothing here\n"));
    assert_eq!(stage.client().closed, None);
    assert_eq!(stage.host.counts().requests, 2);
}

#[test]
fn a_head_in_single_bytes_is_answered_and_a_slow_one_times_out() {
    let mut stage = Stage::new(4);
    stage.connect(CLIENT);
    for byte in get("/") {
        stage.send(&[byte]);
        stage.pass(Duration::from_millis(1));
    }
    assert!(stage.answer().ends_with("hello\n"));

    stage.send(b"GET / HT");
    stage.pass(Duration::from_secs(9));
    stage.send(b"TP");
    assert_eq!(stage.client().closed, None);
    stage.pass(Duration::from_secs(1));
    assert_eq!(stage.client().closed, Some("closed"), "dribbling buys no time");
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    let mut stage = Stage::new(4);
    stage.connect(CLIENT);
    stage.send(&get("/"));
    stage.pass(Duration::from_secs(59));
    assert_eq!(stage.client().closed, None);
    stage.pass(Duration::from_secs(1));
    assert_eq!(stage.client().closed, Some("closed"));
    assert!(stage.host.is_empty());
    assert_eq!(stage.host.next_deadline(), None, "no timer is left");
}

#[test]
fn a_body_is_made_only_while_there_is_room_and_a_stuck_reader_is_cut() {
    let mut stage = Stage::new(4);
    stage.connect(CLIENT);
    stage.client().stuck = true;
    stage.send(&get("/big"));
    let first = stage.client().sent.len();
    assert!(first < 200 * 1024, "{first}");
    stage.drain_socket();
    assert!(stage.client().sent.len() > first);
    stage.pass(Duration::from_secs(29));
    assert_eq!(stage.client().closed, None);
    stage.pass(Duration::from_secs(2));
    assert_eq!(stage.client().closed, Some("aborted"));
}

#[test]
fn a_slow_body_waits_by_the_timer_and_ends_with_trailers() {
    let mut stage = Stage::new(4);
    stage.connect(CLIENT);
    stage.send(&get("/slow"));
    assert!(stage.answer().ends_with("4\r\ntick\r\n"));
    stage.pass(Duration::from_millis(999));
    assert_eq!(stage.answer(), "");
    stage.pass(Duration::from_millis(1));
    assert_eq!(stage.answer(), "4\r\ntick\r\n0\r\nx-end: yes\r\n\r\n");
    stage.send(&get("/"));
    assert!(stage.answer().ends_with("hello\n"), "the connection goes on");
}

#[test]
fn an_echo_asks_for_the_body_and_keeps_its_trailers() {
    let mut stage = Stage::new(4);
    stage.connect(CLIENT);
    stage.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n");
    let answer = stage.answer();
    assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{answer}");
    stage.send(b"3\r\nabc\r\n");
    assert_eq!(stage.answer(), "3\r\nabc\r\n");
    stage.send(b"0\r\nx-sum: 1\r\n\r\n");
    assert_eq!(stage.answer(), "0\r\nx-sum: 1\r\n\r\n");
    stage.send(&get("/"));
    assert!(stage.answer().ends_with("hello\n"));
}

#[test]
fn an_echo_to_a_stuck_reader_stops_reading() {
    let mut stage = Stage::new(4);
    stage.connect(CLIENT);
    stage.client().stuck = true;
    stage.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10000000\r\n\r\n");
    for _ in 0..20 {
        if stage.client().reading {
            stage.send(&[b'x'; 32 * 1024]);
        }
    }
    assert!(!stage.client().reading, "the socket pushes back");
    assert!(stage.client().sent.len() < 400 * 1024);
    stage.drain_socket();
    assert!(stage.client().reading);
}

#[test]
fn an_answer_waits_for_a_small_body_and_not_for_a_large_one() {
    let mut stage = Stage::new(4);
    stage.connect(CLIENT);
    stage.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab");
    assert_eq!(stage.answer(), "");
    stage.send(b"cd");
    assert!(stage.answer().contains("hello"));
    assert_eq!(stage.client().closed, None);

    stage.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 999999999\r\n\r\n");
    for _ in 0..40 {
        if stage.client().sent.is_empty() {
            stage.send(&[b'x'; 32 * 1024]);
        }
    }
    let answer = stage.answer();
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert!(stage.client().shut, "FIN, then a while of dropping what comes");
    stage.send(&[b'x'; 1000]);
    assert_eq!(stage.client().closed, None);
    stage.pass(Duration::from_secs(2));
    assert_eq!(stage.client().closed, Some("closed"));
}

#[test]
fn nonsense_is_refused_and_the_next_client_is_served() {
    let mut stage = Stage::new(4);
    stage.connect(CLIENT);
    stage.send(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n");
    let answer = stage.answer();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    stage.fin();
    assert_eq!(stage.client().closed, Some("closed"));
    let next = StreamId { generation: 2, ..CLIENT };
    stage.connect(next);
    let token = stage.client().token;
    // A late event of the first connection finds nothing.
    stage.event(Event::Received { token, stream: CLIENT, lease: Lease::from_vec(b"GARBAGE\r\n\r\n".to_vec()) });
    stage.event(Event::Received { token, stream: next, lease: Lease::from_vec(get("/")) });
    assert!(stage.answer().ends_with("hello\n"));
}

#[test]
fn one_connection_over_the_bound_is_closed_and_counted() {
    let mut stage = Stage::new(1);
    stage.connect(CLIENT);
    let second = StreamId { slot: 8, generation: 1 };
    stage.connect(second);
    assert_eq!(stage.io.streams[&8].closed, Some("closed"));
    assert_eq!(stage.host.counts().refused, 1);
    stage.send(&get("/"));
    assert!(stage.answer().ends_with("hello\n"));
}

#[test]
fn a_drain_finishes_what_runs_and_closes_what_idles() {
    let mut stage = Stage::new(4);
    stage.connect(CLIENT);
    stage.send(&get("/slow"));
    stage.host.drain();
    stage.host.turn(&mut stage.io);
    assert_eq!(stage.host.len(), 1);
    stage.pass(Duration::from_secs(1));
    stage.fin();
    assert!(stage.answer().ends_with("x-end: yes\r\n\r\n"));
    assert!(stage.host.is_empty());
}

#[test]
fn head_has_the_length_and_no_body() {
    let mut stage = Stage::new(4);
    stage.connect(CLIENT);
    stage.send(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    let answer = stage.answer();
    assert!(answer.contains("content-length: 6\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    stage.send(b"HEAD /big HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(stage.answer().ends_with("\r\n\r\n"));
}

#[test]
fn events_of_others_come_back() {
    let mut stage = Stage::new(4);
    let event = Event::Doorbell { token: Token(3) };
    assert!(stage.host.handle(event, &mut stage.io).is_some());
    let event = Event::Ended { token: Token(3), stream: CLIENT, end: End::Fin };
    assert!(stage.host.handle(event, &mut stage.io).is_some());
}
