//! Our two sides with each other, and a backend that writes its frames by hand.

use super::super::{ClientConnection, Closer, NotOpened, ServerConnection, Settings, code};
use super::support::*;
use crate::http::{
    Authority, Event, Fields, Known, Method, Output, PathPair, PoolShare, Protocol, Reason, RequestHead, ResponseHead,
    StreamRef, Target,
};
use spooky_uring::Chunk;
use std::time::Instant;

fn request(method: Method, path: &str) -> RequestHead {
    RequestHead {
        method,
        authority: Authority::parse(b"example.org").unwrap(),
        target: Target::Path(PathPair::parse(path.as_bytes()).unwrap()),
        ..RequestHead::default()
    }
}

fn get() -> RequestHead {
    request(Method::Get, "/")
}

/// A small generator (xorshift64*).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}

/// A client and a server of ours, with bytes that go between them in pieces of any size.
struct Pair {
    client: ClientConnection,
    server: ServerConnection,
    now: Instant,
    pieces: Random,
}

impl Pair {
    fn new() -> Self {
        Self::with(Settings::CLIENT, Settings::SERVER, 1)
    }

    fn with(client: Settings, server: Settings, seed: u64) -> Self {
        let now = Instant::now();
        let pieces = Random(seed);
        Self {
            client: ClientConnection::new(client, PoolShare::unbounded(), now),
            server: ServerConnection::new(server, PoolShare::unbounded(), now),
            now,
            pieces,
        }
    }

    /// Carries bytes once in each direction; whether there were any.
    fn carry(&mut self) -> bool {
        let (mut up, mut down) = (Output::new(), Output::new());
        self.client.transmit(&mut up);
        self.server.transmit(&mut down);
        let (up, down) = (bytes_of(&mut up), bytes_of(&mut down));
        for piece in cut_at_random(&up, &mut self.pieces) {
            self.server.receive(Chunk::copy_from(piece), self.now);
        }
        for piece in cut_at_random(&down, &mut self.pieces) {
            self.client.receive(Chunk::copy_from(piece), self.now);
        }
        !(up.is_empty() && down.is_empty())
    }

    /// Everything that both sides are told until nothing moves any more.
    fn run(&mut self) -> (Vec<Told>, Vec<(StreamRef, Event<ResponseHead>)>) {
        let (mut server, mut client) = (Vec::new(), Vec::new());
        loop {
            let moved = self.carry();
            while let Some(told) = self.server.next_event() {
                server.push(told);
            }
            while let Some(told) = self.client.next_event() {
                client.push(told);
            }
            if !moved && !self.server.has_output() && !self.client.has_output() {
                return (server, client);
            }
        }
    }
}

fn cut_at_random<'a>(mut bytes: &'a [u8], random: &mut Random) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let most = [3, 40, 5_000, 100_000][random.below(4)];
        let (piece, rest) = bytes.split_at(bytes.len().min(1 + random.below(most)));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

fn said(told: &[(StreamRef, Event<ResponseHead>)]) -> Vec<String> {
    told.iter().map(|(stream, event)| format!("{}: {}", stream.stream, shape(event))).collect()
}

#[test]
fn a_request_reaches_the_other_side_as_it_was() {
    let mut pair = Pair::new();
    let mut head = request(Method::Other("PROPFIND".into()), "/a%20b/c?d=%2F");
    for (name, value) in
        [("x-a", "1"), ("cookie", "a=1; b=2"), ("te", "trailers"), ("connection", "x-a"), ("accept", "")]
    {
        assert!(head.fields.push(name.as_bytes(), value.as_bytes()));
    }
    pair.client.open(&head, "other.example:8443", true).unwrap();
    let (server, _) = pair.run();
    let (_, Event::Head { head: got, end: true }) = &server[0] else { panic!("{server:?}") };
    assert_eq!(got.method, head.method);
    assert_eq!(got.authority.as_str(), "other.example:8443");
    assert_eq!(got.target, head.target);
    let fields = got.fields.iter().map(|(name, value)| (name.name.to_vec(), value.to_vec())).collect::<Vec<_>>();
    let expected = [("x-a", "1"), ("cookie", "a=1; b=2"), ("te", "trailers"), ("accept", "")];
    assert_eq!(fields, expected.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())));
}

#[test]
fn bodies_and_trailers_pass_both_ways_however_bytes_are_cut() {
    for seed in 1..40 {
        let mut pair = Pair::with(Settings::CLIENT, Settings::SERVER, seed);
        let mut random = Random(seed * 7);
        let up = (0..random.below(300_000)).map(|n| n as u8).collect::<Vec<_>>();
        let down = (0..random.below(300_000)).map(|n| (n / 3) as u8).collect::<Vec<_>>();
        let mut fields = Fields::new();
        assert!(fields.push(b"x-end", b"yes"));

        let stream = pair.client.open(&request(Method::Post, "/"), "a", false).unwrap();
        let (mut sent, mut answered) = (0, 0);
        let (mut came, mut back) = (Vec::new(), Vec::new());
        let (mut ended, mut taken, mut over) = (false, false, false);
        let mut open = false;
        let mut idle = 0;
        while !(over && taken) {
            let mut moved = pair.carry();
            while sent < up.len() && pair.client.room(stream) > 0 {
                let piece = (1 + random.below(20_000)).min(up.len() - sent).min(pair.client.room(stream));
                pair.client.send_body(stream, Chunk::copy_from(&up[sent..sent + piece]));
                sent += piece;
                moved = true;
            }
            if sent == up.len() && !ended {
                ended = true;
                pair.client.send_trailers(stream, &fields);
            }
            while let Some((told, event)) = pair.server.next_event() {
                moved = true;
                match event {
                    Event::Head { .. } => {
                        open = true;
                        pair.server.send_head(told.stream, &ResponseHead::new(200), false);
                        pair.server.grant(told.stream, 30_000);
                    }
                    Event::Body(chunk) => {
                        came.extend_from_slice(&chunk);
                        pair.server.grant(told.stream, chunk.len());
                    }
                    Event::Trailers(got) => assert_eq!(got.find(b"x-end"), Some(&b"yes"[..])),
                    Event::End => {
                        assert!(came == up, "seed {seed}");
                        taken = true;
                    }
                    Event::Room => {}
                    other => panic!("seed {seed}: {other:?}"),
                }
            }
            while open && pair.server.room(1) > 0 {
                let piece = (1 + random.below(20_000)).min(down.len() - answered).min(pair.server.room(1));
                pair.server.send_body(1, Chunk::copy_from(&down[answered..answered + piece]));
                answered += piece;
                if answered == down.len() {
                    pair.server.send_trailers(1, &fields);
                    open = false;
                }
            }
            while let Some((told, event)) = pair.client.next_event() {
                moved = true;
                match event {
                    Event::Head { .. } => pair.client.grant(told.stream, 50_000),
                    Event::Body(chunk) => {
                        back.extend_from_slice(&chunk);
                        pair.client.grant(told.stream, chunk.len());
                    }
                    Event::Trailers(got) => assert_eq!(got.find(b"x-end"), Some(&b"yes"[..])),
                    Event::End => {
                        assert!(back == down, "seed {seed}");
                        over = true;
                    }
                    Event::Room => {}
                    other => panic!("seed {seed}: {other:?}"),
                }
            }
            idle = if moved { 0 } else { idle + 1 };
            assert!(idle < 10, "seed {seed}: stands still at {sent} up, {answered} down");
        }
        pair.run();
        assert_eq!((pair.client.streams_open(), pair.server.streams_open()), (0, 0), "seed {seed}");
    }
}

#[test]
fn a_thousand_exchanges_pass_over_one_connection() {
    let mut pair = Pair::new();
    let mut done = 0;
    let mut opened = 0;
    while done < 1000 {
        while opened < 1000 && pair.client.can_open() {
            pair.client.open(&get(), "a", true).unwrap();
            opened += 1;
        }
        assert!(pair.client.streams_open() <= 128);
        pair.carry();
        while let Some((told, event)) = pair.server.next_event() {
            if let Event::Head { .. } = event {
                let mut head = ResponseHead::new(200);
                head.content_length = Some(4);
                pair.server.send_head(told.stream, &head, false);
                pair.server.send_body(told.stream, Chunk::copy_from(b"body"));
                pair.server.end(told.stream);
            }
        }
        while let Some((told, event)) = pair.client.next_event() {
            match event {
                Event::Head { end: false, .. } => pair.client.grant(told.stream, 100),
                Event::End => done += 1,
                Event::Body(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    pair.run();
    assert_eq!((pair.client.streams_open(), pair.server.streams_open()), (0, 0));
    assert_eq!((pair.client.close_cause(), pair.server.close_cause()), (None, None));
}

#[test]
fn informational_heads_reach_the_client_before_the_final_one() {
    let mut pair = Pair::new();
    let stream = pair.client.open(&get(), "a", true).unwrap();
    pair.run();
    let mut hints = ResponseHead::new(103);
    assert!(hints.fields.push(b"link", b"</a>"));
    pair.server.send_informational(stream, &hints);
    pair.server.send_informational(stream, &ResponseHead::new(100));
    pair.server.send_head(stream, &ResponseHead::new(204), true);
    let (_, client) = pair.run();
    assert_eq!(said(&client), ["1: informational 103", "1: informational 100", "1: head end"]);
}

#[test]
fn a_slow_client_of_one_response_does_not_stop_another() {
    let mut pair = Pair::new();
    let slow = pair.client.open(&get(), "a", true).unwrap();
    let quick = pair.client.open(&get(), "a", true).unwrap();
    pair.run();
    for stream in [slow, quick] {
        pair.server.send_head(stream, &ResponseHead::new(200), false);
    }
    pair.client.grant(quick, 10 << 20);
    let mut came = 0;
    for _ in 0..200 {
        for stream in [slow, quick] {
            while pair.server.room(stream) > 0 {
                pair.server.send_body(stream, Chunk::copy_from(&[1; 16_000]));
            }
        }
        for (told, event) in pair.run().1 {
            if let Event::Body(chunk) = event {
                assert_eq!(told.stream, quick, "no credit, no bytes");
                came += chunk.len();
            }
        }
    }
    assert!(came > 4 << 20, "{came}");
    assert!(pair.server.pending(slow) < 100_000);
}

#[test]
fn resets_pass_both_ways() {
    let mut pair = Pair::new();
    let stream = pair.client.open(&request(Method::Post, "/"), "a", false).unwrap();
    pair.run();
    pair.client.reset(stream, code::CANCEL);
    let (server, client) = pair.run();
    assert_eq!(shapes(&server), ["1: reset 8", "1: stop 8"]);
    assert!(client.is_empty());
    let stream = pair.client.open(&request(Method::Post, "/"), "a", false).unwrap();
    pair.run();
    pair.server.reset(stream, code::REFUSED_STREAM);
    let (server, client) = pair.run();
    assert!(server.is_empty());
    assert_eq!(said(&client), ["3: reset 7", "3: stop 7"]);
    assert_eq!((pair.client.streams_open(), pair.server.streams_open()), (0, 0));
}

#[test]
fn an_early_response_is_delivered_whole_and_then_says_that_no_more_is_wanted() {
    let mut pair = Pair::new();
    let stream = pair.client.open(&request(Method::Post, "/"), "a", false).unwrap();
    pair.run();
    pair.server.send_head(stream, &ResponseHead::new(413), false);
    pair.server.send_body(stream, Chunk::copy_from(&[b'x'; 3000]));
    pair.server.end(stream);
    pair.server.stop(stream, code::NO_ERROR);
    pair.client.grant(stream, 1 << 20);
    let (_, client) = pair.run();
    let mut said = said(&client);
    said.sort();
    assert_eq!(said, ["1: body 3000", "1: end", "1: head", "1: stop 0"]);
    assert_eq!((pair.client.streams_open(), pair.server.streams_open()), (0, 0));
}

#[test]
fn a_drain_serves_what_is_on_its_way_and_then_ends() {
    let mut pair = Pair::new();
    let stream = pair.client.open(&get(), "a", true).unwrap();
    pair.run();
    pair.server.goaway();
    pair.run();
    assert!(pair.client.is_draining() && !pair.client.can_open());
    assert_eq!(pair.client.open(&get(), "a", true), Err(NotOpened::Full));
    assert!(!pair.server.is_drained());
    pair.server.send_head(stream, &ResponseHead::new(204), true);
    let (_, client) = pair.run();
    assert_eq!(said(&client), ["1: head end"]);
    assert!(pair.server.is_drained() && pair.server.is_closed());
}

#[test]
fn an_idle_connection_drains_at_once() {
    let mut pair = Pair::new();
    pair.run();
    pair.server.goaway();
    pair.run();
    assert!(pair.server.is_drained() && pair.server.is_closed());
}

#[test]
fn a_sign_of_life_is_answered() {
    let mut pair = Pair::new();
    pair.run();
    assert!(pair.client.ping() && !pair.client.ping());
    assert!(!pair.client.take_pong());
    pair.run();
    assert!(pair.client.take_pong() && !pair.client.take_pong());
    assert!(pair.client.ping());
}

/// A client of ours whose backend is the test.
struct Backend {
    client: ClientConnection,
    now: Instant,
}

impl Backend {
    fn new() -> Self {
        let now = Instant::now();
        Self { client: ClientConnection::new(Settings::CLIENT, PoolShare::unbounded(), now), now }
    }

    fn settled(settings: &[u8]) -> Self {
        let mut backend = Self::new();
        backend.send(&frame(kind::SETTINGS, 0, 0, settings));
        backend.send(&frame(kind::SETTINGS, ACK, 0, &[]));
        assert!(backend.told().is_empty());
        backend.frames();
        backend
    }

    fn send(&mut self, bytes: &[u8]) {
        self.client.receive(Chunk::copy_from(bytes), self.now);
    }

    fn told(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(event) = self.client.next_event() {
            told.push(event);
        }
        said(&told)
    }

    fn frames(&mut self) -> Vec<Got> {
        let mut out = Output::new();
        let mut bytes = Vec::new();
        while self.client.has_output() {
            self.client.transmit(&mut out);
            bytes.extend(bytes_of(&mut out));
        }
        cut(bytes.strip_prefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap_or(&bytes))
    }
}

const OK: [(&str, &str); 1] = [(":status", "200")];

#[test]
fn the_backend_says_how_many_exchanges_it_takes() {
    let mut backend = Backend::new();
    assert_eq!((backend.client.most_streams(), backend.client.is_settled()), (100, false));
    let mut backend2 = Backend::settled(&[0, 3, 0, 0, 0, 2]);
    assert_eq!((backend2.client.most_streams(), backend2.client.is_settled()), (2, true));
    backend2.client.open(&get(), "a", true).unwrap();
    backend2.client.open(&get(), "a", true).unwrap();
    assert_eq!(backend2.client.open(&get(), "a", true), Err(NotOpened::Full));
    backend2.frames();
    backend2.send(&headers(1, &OK, true));
    assert_eq!(backend2.told(), ["1: head end"]);
    assert!(backend2.client.can_open());
    backend.send(&frame(kind::SETTINGS, 0, 0, &[]));
    backend.told();
    assert_eq!(backend.client.most_streams(), 128, "no word means no limit but ours");
}

#[test]
fn what_was_refused_or_not_looked_at_may_be_sent_again() {
    let mut backend = Backend::settled(&[]);
    for _ in 0..3 {
        backend.client.open(&request(Method::Post, "/"), "a", true).unwrap();
    }
    backend.frames();
    backend.send(&reset(1, code::REFUSED_STREAM));
    assert_eq!(backend.told(), ["1: reset 7"]);
    // Stream 3 is served; stream 5 was not looked at.
    backend.send(&[frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]), headers(3, &OK, true)].concat());
    let mut told = backend.told();
    told.sort();
    assert_eq!(told, ["3: head end", "5: reset 7"]);
    assert!(backend.client.is_draining());
    assert_eq!(backend.client.streams_open(), 0);
}

#[test]
fn a_whole_response_is_delivered_although_the_connection_ends_behind_it() {
    let mut backend = Backend::settled(&[]);
    for _ in 0..2 {
        backend.client.open(&get(), "a", true).unwrap();
    }
    backend.frames();
    backend.send(
        &[headers(1, &OK, false), data(1, b"whole", true), headers(3, &OK, false), data(3, b"half", false)].concat(),
    );
    backend.send(&frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]));
    backend.client.receive_end();
    let mut told = backend.told();
    told.sort();
    assert_eq!(told, ["1: head", "3: head"]);
    backend.client.grant(1, 100);
    backend.client.grant(3, 100);
    let mut told = backend.told();
    told.sort();
    assert_eq!(told, ["1: body 5", "1: end", "3: body 4", "3: reset 8"]);
    assert_eq!(backend.client.close_cause().unwrap().by, Closer::Peer);
    assert_eq!(backend.client.streams_open(), 0);
}

#[test]
fn a_reset_behind_a_whole_response_takes_nothing_back() {
    let mut backend = Backend::settled(&[]);
    backend.client.open(&request(Method::Post, "/"), "a", false).unwrap();
    backend.frames();
    backend.send(&[headers(1, &OK, false), data(1, b"early", true), reset(1, code::NO_ERROR)].concat());
    assert_eq!(backend.told(), ["1: stop 0", "1: head"]);
    backend.client.grant(1, 100);
    assert_eq!(backend.told(), ["1: body 5", "1: end"]);
    assert_eq!(backend.client.streams_open(), 0);
}

#[test]
fn malformed_responses_are_refused_and_the_connection_lives() {
    let cases: [(&[(&str, &str)], Reason); 5] = [
        (&[("x", "no status")], Reason::UpstreamMalformed),
        (&[(":status", "200"), ("connection", "close")], Reason::UpstreamMalformed),
        (&[(":status", "200"), ("content-length", "x")], Reason::UpstreamMalformed),
        (&[(":status", "101")], Reason::UpstreamUpgrade),
        (&[(":status", "200"), ("x", " padded")], Reason::UpstreamMalformed),
    ];
    let mut backend = Backend::settled(&[]);
    for (fields, reason) in cases {
        let stream = backend.client.open(&get(), "a", true).unwrap();
        backend.frames();
        backend.send(&headers(stream as u32, fields, false));
        let mut refused = None;
        while let Some((_, event)) = backend.client.next_event() {
            if let Event::Refused(refusal) = event {
                refused = Some(refusal.reason);
            }
        }
        let frames = backend.frames();
        assert_eq!(refused, Some(reason), "{fields:?}");
        assert_eq!((frames[0].kind, frames[0].code()), (kind::RST_STREAM, code::PROTOCOL_ERROR), "{fields:?}");
        assert_eq!(backend.client.streams_open(), 0);
    }
    assert!(backend.client.can_open());
}

#[test]
fn malformed_responses_that_end_at_once_are_refused_too() {
    for fields in [&[("x", "no status")][..], &[(":status", "200"), ("content-length", "5")]] {
        let mut backend = Backend::settled(&[]);
        backend.client.open(&get(), "a", true).unwrap();
        backend.frames();
        backend.send(&headers(1, fields, true));
        let event = backend.client.next_event();
        let Some((_, Event::Refused(refusal))) = event else { panic!("{fields:?}: {event:?}") };
        assert_eq!(refusal.reason, Reason::UpstreamMalformed);
        assert!(backend.told().is_empty());
        assert_eq!(backend.client.streams_open(), 0);
    }
}

#[test]
fn a_body_that_is_not_as_long_as_it_said_is_no_end() {
    for body in [&b"abc"[..], b"abcdefgh"] {
        let mut backend = Backend::settled(&[]);
        backend.client.open(&get(), "a", true).unwrap();
        backend.frames();
        backend.client.grant(1, 100);
        backend.send(&headers(1, &[(":status", "200"), ("content-length", "5")], false));
        assert_eq!(backend.told(), ["1: head"]);
        backend.send(&data(1, body, true));
        let mut told = backend.told();
        backend.frames();
        told.extend(backend.told());
        assert_eq!(told, ["1: refused 502"]);
    }
}

#[test]
fn a_flood_of_the_backend_ends_its_connection() {
    let mut backend = Backend::settled(&[]);
    backend.client.open(&get(), "a", true).unwrap();
    backend.frames();
    for _ in 0..2_000 {
        backend.send(&frame(kind::PING, 0, 0, &[0; 8]));
    }
    assert_eq!(backend.client.flood(), Some(super::super::Glitch::Pings));
    assert_eq!(backend.told(), ["1: reset 8"]);
    let frames = backend.frames();
    assert_eq!(frames.last().map(|last| (last.kind, last.code())), Some((kind::GOAWAY, code::ENHANCE_YOUR_CALM)));
    assert!(backend.client.is_closed());
}

/// A request for a tunnel.
fn websocket() -> RequestHead {
    let mut head = request(Method::Get, "/chat");
    head.protocol = Some(Protocol::WebSocket { key: None });
    head.fields.push(b"sec-websocket-version", b"13");
    head
}

#[test]
fn a_tunnel_passes_from_one_side_to_the_other() {
    let mut pair = Pair::new();
    while pair.carry() {}
    assert!(!pair.client.is_settled(), "its settings came, but nobody read them");
    assert!(pair.client.next_event().is_none());
    assert!(pair.client.is_settled() && pair.client.takes_extended_connect());
    let stream = pair.client.open(&websocket(), "example.org", false).unwrap();
    while pair.carry() {}
    let Some((at, Event::Head { head, end: false })) = pair.server.next_event() else { panic!("a head") };
    assert_eq!((head.protocol, head.method), (Some(Protocol::WebSocket { key: None }), Method::Get));
    assert_eq!(head.target.path().map(PathPair::forwarded), Some("/chat"));
    pair.server.send_head(at.stream, &ResponseHead::new(200), false);
    pair.server.grant(at.stream, 100);
    while pair.carry() {}
    let Some((_, Event::Head { head, end: false })) = pair.client.next_event() else { panic!("a head") };
    assert_eq!(head.status, 200);
    pair.client.send_body(stream, Chunk::copy_from(b"up"));
    pair.client.end(stream);
    while pair.carry() {}
    assert!(matches!(pair.server.next_event(), Some((_, Event::Body(body))) if &*body == b"up"));
    assert!(matches!(pair.server.next_event(), Some((_, Event::End))));
    pair.server.send_body(at.stream, Chunk::copy_from(b"down"));
    pair.server.end(at.stream);
    pair.client.grant(stream, 100);
    while pair.carry() {}
    assert!(matches!(pair.client.next_event(), Some((_, Event::Body(body))) if &*body == b"down"));
    assert!(matches!(pair.client.next_event(), Some((_, Event::End))));
    assert!(pair.client.next_event().is_none());
    assert_eq!((pair.client.streams_open(), pair.server.streams_open()), (0, 0));
}

#[test]
fn a_backend_that_does_not_offer_tunnels_is_not_asked() {
    let mut backend = Backend::settled(&[]);
    assert!(!backend.client.takes_extended_connect());
    assert_eq!(backend.client.open(&websocket(), "a", false), Err(NotOpened::Unsendable));
    assert!(backend.frames().is_empty());
    assert!(backend.client.open(&get(), "a", true).is_ok());
}

#[test]
fn a_backend_opens_a_tunnel_by_success_and_refuses_it_by_anything_else() {
    for (status, told, passed) in [("204", "head", 200), ("403", "head", 403), ("101", "refused 502", 0)] {
        let mut backend = Backend::settled(&[0, 8, 0, 0, 0, 1]);
        backend.client.open(&websocket(), "a", false).unwrap();
        backend.frames();
        backend.send(&headers(1, &[(":status", status), ("sec-websocket-accept", "x")], false));
        let Some((_, event)) = backend.client.next_event() else { panic!("{status}") };
        assert_eq!(shape(&event), told, "{status}");
        if let Event::Head { head, .. } = event {
            assert_eq!(head.status, passed);
            assert_eq!(head.fields.contains(Known::SecWebsocketAccept), status == "403");
        }
    }
}
