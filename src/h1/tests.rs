//! Both sides against each other: what one writes the other reads, whatever the cuts, the credit and the framing.

use super::testing::Random;
use super::*;
use crate::http::{Authority, Event, Method, Output, PathPair, RequestHead, ResponseHead, Scheme, Target};
use spooky_uring::Chunk;

/// One side's body: what it wants to send, and what it heard.
#[derive(Debug, Default)]
struct Half {
    to_send: Vec<u8>,
    sent: usize,
    trailers: Fields,
    ended: bool,
    heard: Vec<u8>,
    heard_trailers: Fields,
    heard_end: bool,
}

impl Half {
    fn random(random: &mut Random, most: usize) -> Self {
        let len = random.below(most + 1);
        let mut trailers = Fields::new();
        if random.below(2) == 0 {
            trailers.push(b"x-sum", b"1");
        }
        Self { to_send: random.bytes(len), trailers, ..Self::default() }
    }

    fn next_piece(&mut self, random: &mut Random) -> Option<Chunk> {
        let left = &self.to_send[self.sent..];
        if left.is_empty() {
            return None;
        }
        let piece = &left[..(1 + random.below(2000)).min(left.len())];
        self.sent += piece.len();
        Some(Chunk::copy_from(piece))
    }

    fn hear<H>(&mut self, event: Event<H>) {
        match event {
            Event::Body(chunk) => self.heard.extend_from_slice(&chunk),
            Event::Trailers(fields) => self.heard_trailers = fields,
            Event::End => self.heard_end = true,
            _ => panic!("not part of a body"),
        }
    }
}

/// Moves what was written to the other side, cut at random.
fn carry(out: &mut Output, random: &mut Random, mut receive: impl FnMut(Chunk)) {
    let mut wire = Vec::new();
    while let Some(chunk) = out.pop() {
        wire.extend_from_slice(&chunk);
    }
    for piece in random.cuts(&wire) {
        receive(Chunk::copy_from(piece));
    }
}

fn exchange(random: &mut Random, client: &mut ClientConnection, server: &mut ServerConnection) {
    let methods = [Method::Get, Method::Post, Method::Put, Method::Head];
    let method = methods[random.below(methods.len())].clone();
    let mut up = Half::random(random, 5000);
    let mut down = Half::random(random, 5000);
    let mut request = RequestHead {
        method: method.clone(),
        authority: Authority::parse(b"example.com").unwrap(),
        target: Target::Path(PathPair::parse(b"/a?b").unwrap()),
        ..RequestHead::default()
    };
    request.fields.push(b"x-request", b"yes");
    let framing = match random.below(3) {
        0 => {
            up.to_send.clear();
            Framing::None
        }
        1 => Framing::Length(up.to_send.len() as u64),
        _ => Framing::Chunked,
    };
    let mut response = ResponseHead::new([200, 404, 500][random.below(3)]);
    response.fields.push(b"x-response", b"yes");
    let counted = random.below(2) == 0;
    if counted {
        response.content_length = Some(down.to_send.len() as u64);
    }

    let (mut upload, mut download) = (Output::new(), Output::new());
    client.send_head(&request, None, framing, &mut upload);
    if framing == Framing::None {
        up.ended = true;
    }
    let mut answering = false;
    let mut answered = false;
    for _ in 0..100_000 {
        if up.ended && up.heard_end && down.ended && down.heard_end {
            break;
        }
        if !up.ended && random.below(2) == 0 {
            match up.next_piece(random) {
                Some(piece) => client.send_body(piece, &mut upload),
                None => {
                    client.send_trailers(&up.trailers, &mut upload);
                    up.ended = true;
                }
            }
        }
        carry(&mut upload, random, |chunk| server.receive(chunk));
        server.grant(random.below(3000));
        while let Some(event) = server.next_event().expect("a good request") {
            match event {
                Event::Head { head, end } => {
                    assert_eq!(head.method, method);
                    assert_eq!(head.host(), "example.com");
                    assert_eq!(head.target.matched(), Some("/a"));
                    assert_eq!(head.fields, request.fields);
                    answering = true;
                    up.heard_end |= end;
                }
                event => up.hear(event),
            }
        }
        // The answer begins before or after the request's end, but ends behind it: else the connection could not go on.
        let may_begin = up.heard_end || (response.status < 400 && method != Method::Head);
        if answering && random.below(3) == 0 && may_begin && !down.to_send.is_empty() || answering && up.heard_end {
            server.send_head(&response, false, &mut download);
            answering = false;
            answered = true;
        }
        let may_end = up.heard_end || down.to_send.len() - down.sent > 2000;
        if answered && !down.ended && may_end && random.below(2) == 0 {
            match down.next_piece(random) {
                Some(piece) => server.send_body(piece, &mut download),
                None if up.heard_end => {
                    server.send_trailers(&down.trailers, &mut download);
                    down.ended = true;
                }
                None => {}
            }
        }
        carry(&mut download, random, |chunk| client.receive(chunk));
        client.grant(random.below(3000));
        while let Some(event) = client.next_event().expect("a good response") {
            match event {
                Event::Head { head, end } => {
                    assert_eq!(head.status, response.status);
                    assert_eq!(head.fields.get(Known::Connection), None);
                    assert_eq!(head.fields.find(b"x-response"), Some(&b"yes"[..]));
                    down.heard_end |= end;
                }
                event => down.hear(event),
            }
        }
        client.check_invariants();
        server.check_invariants();
    }
    assert!(up.heard_end && down.heard_end, "the exchange ends");
    assert_eq!(up.heard, up.to_send);
    let bodiless = method == Method::Head;
    assert_eq!(down.heard, if bodiless { &[][..] } else { &down.to_send[..] });
    if framing == Framing::Chunked {
        assert_eq!(up.heard_trailers, up.trailers);
    }
    if !counted && !bodiless {
        assert_eq!(down.heard_trailers, down.trailers);
    }
}

#[test]
fn both_sides_understand_each_other_and_go_on() {
    for seed in 0..150 {
        let mut random = Random::new(seed);
        let mut client = ClientConnection::new(Limits::CLIENT);
        let mut server = ServerConnection::new(Scheme::Https, Limits::SERVER);
        for turn in 0..5 {
            exchange(&mut random, &mut client, &mut server);
            assert!(client.is_reusable(), "seed {seed}, exchange {turn}");
            assert_eq!(server.closing(), Closing::No, "seed {seed}, exchange {turn}");
        }
    }
}
