//! Bytes that are nearly frames: whatever comes, nothing panics, what it costs is bounded, and nothing is kept at the end.
//!
//! How a connection ends that breaks the rules depends on how its bytes were cut, since the library judges frames of streams
//! it still remembers otherwise than of those it forgot. Stories that keep the rules are compared in `pairs`.

use super::super::{ClientConnection, ServerConnection, Settings, code};
use super::pairs::Random;
use super::support::*;
use crate::http::{Event, Method, Output, PoolShare, RequestHead, ResponseHead, Target};
use spooky_uring::Chunk;
use std::time::Instant;

/// A story of frames, some of them spoilt.
fn story(random: &mut Random, client: bool) -> Vec<u8> {
    let mut bytes = frame(kind::SETTINGS, 0, 0, &[]);
    let mut next = 1;
    for _ in 0..1 + random.below(30) {
        // Mostly in order, now and then about any stream.
        let id = if random.below(30) == 0 { random.below(12) as u32 } else { next };
        let size = random.below(300);
        let end = random.below(2) == 0;
        bytes.extend(match random.below(40) {
            0..=9 if client => {
                next += 2;
                headers(next, if end { &GET } else { &POST }, end)
            }
            0..=9 => {
                next = (next + 2) % 6;
                headers(next, &[(":status", ["200", "103", "204"][random.below(3)])], end)
            }
            10..=19 => data(id, &vec![7; size], random.below(5) == 0),
            20..=23 => reset(id, 8),
            24..=29 => window([0, id][random.below(2)], 1 + size as u32),
            30..=32 => frame(kind::PING, 0, 0, &[1; 8]),
            33..=35 => frame(kind::SETTINGS, 0, 0, &[]),
            36 => headers(id, &[("x-end", "1")], true),
            37 => frame(kind::GOAWAY, 0, 0, &[0, 0, 0, id as u8, 0, 0, 0, 0]),
            38 => frame(kind::HEADERS, 0, id, &block(&GET)[..random.below(40)]),
            _ => frame(random.below(12) as u8, random.below(256) as u8, id, &vec![random.below(256) as u8; size]),
        });
    }
    for _ in 0..random.below(8) / 7 {
        let at = random.below(bytes.len());
        bytes[at] = random.below(256) as u8;
    }
    bytes
}

fn pieces<'a>(mut bytes: &'a [u8], random: &mut Random, most: usize) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(bytes.len().min(1 + random.below(most)));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// How the connection ended, before the client did.
fn serve(pieces: &[&[u8]], answer: bool) -> Option<u64> {
    let now = Instant::now();
    let mut connection = ServerConnection::new(Settings::SERVER, PoolShare::unbounded(), now);
    connection.receive(Chunk::copy_from(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), now);
    let mut out = Output::new();
    for piece in pieces {
        connection.receive(Chunk::copy_from(piece), now);
        while let Some((stream, event)) = connection.next_event() {
            match event {
                Event::Head { .. } => connection.grant(stream.stream, 1 << 20),
                Event::Body(chunk) => assert!(!chunk.is_empty()),
                Event::End if answer => connection.send_head(stream.stream, &ResponseHead::new(204), true),
                _ => {}
            }
        }
        connection.transmit(&mut out);
        assert!(out.len() < 64 << 10);
        out.clear();
    }
    let cause = connection.close_cause().map(|cause| cause.code);
    connection.receive_end();
    while connection.next_event().is_some() {}
    connection.transmit(&mut out);
    assert_eq!(connection.streams_open(), 0, "a connection that ended keeps no stream");
    assert!(connection.is_closed());
    cause
}

#[test]
fn a_server_takes_garbage_and_keeps_nothing_of_it() {
    let mut closed = 0;
    for seed in 1..1500 {
        let mut random = Random(seed);
        let bytes = story(&mut random, true);
        let cut = pieces(&bytes, &mut random, 20);
        let cause = serve(&cut, seed % 2 == 0);
        closed += usize::from(cause.is_some());
    }
    assert!((300..1450).contains(&closed), "{closed}: some stories end badly, some do not");
}

#[test]
fn a_client_takes_garbage_and_ends_every_exchange_once() {
    let head = RequestHead { method: Method::Options, target: Target::Asterisk, ..RequestHead::default() };
    for seed in 1..1500 {
        let mut random = Random(seed);
        let bytes = story(&mut random, false);
        let now = Instant::now();
        let mut connection = ClientConnection::new(Settings::CLIENT, PoolShare::unbounded(), now);
        let mut ends = [0; 3];
        for n in 0..3 {
            assert_eq!(connection.open(&head, "a", true), Ok(2 * n + 1));
        }
        let mut out = Output::new();
        let mut cut = pieces(&bytes, &mut random, 50);
        cut.push(b"");
        let last = cut.len() - 1;
        for (at, piece) in cut.into_iter().enumerate() {
            connection.transmit(&mut out);
            assert!(out.len() < 64 << 10);
            out.clear();
            connection.receive(Chunk::copy_from(piece), now);
            if at == last {
                connection.receive_end();
            }
            while let Some((stream, event)) = connection.next_event() {
                let over = match event {
                    Event::Head { end, .. } => {
                        connection.grant(stream.stream, 1 << 20);
                        end
                    }
                    Event::End | Event::Reset(_) | Event::Refused(_) => true,
                    _ => false,
                };
                ends[(stream.stream / 2) as usize] += usize::from(over);
            }
        }
        assert_eq!(ends, [1; 3], "seed {seed}: each exchange ends once");
        assert_eq!(connection.streams_open(), 0, "seed {seed}");
        assert_ne!(connection.close_cause().map(|cause| cause.code), Some(code::ENHANCE_YOUR_CALM));
    }
}
