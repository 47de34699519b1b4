//! What a client does too often ends its connection with the right code, and costs a bounded amount before.

use super::super::{Closer, Glitch, code};
use super::support::*;
use crate::limits::h2 as limits;
use std::time::Duration;

/// Sends the same bytes until the connection is closed; how often, and how many bytes came back.
fn flood(server: &mut Server, mut bytes: impl FnMut(u32) -> Vec<u8>) -> (u32, usize) {
    let mut back = 0;
    for n in 0..100_000 {
        if server.connection.close_cause().is_some() {
            return (n, back);
        }
        server.send(&bytes(n));
        server.events();
        back += server.all_frames().iter().map(|frame| frame.payload.len() + 9).sum::<usize>();
    }
    panic!("never closed");
}

fn assert_calmed(server: &mut Server, kind: Glitch) {
    assert_eq!(server.connection.flood(), Some(kind));
    let cause = server.connection.close_cause().unwrap();
    assert_eq!((cause.by, cause.code), (Closer::Us, code::ENHANCE_YOUR_CALM));
    assert!(!server.connection.wants_read());
    server.all_frames();
    server.events();
    assert!(server.connection.is_closed());
    assert_eq!(server.connection.streams_open(), 0);
}

fn limit(kind: Glitch) -> u32 {
    u32::from(limits::glitch::LIMIT[kind as usize])
}

#[test]
fn frames_of_no_use_are_borne_up_to_their_bound() {
    let floods: [(Glitch, Vec<u8>); 6] = [
        (Glitch::Settings, frame(kind::SETTINGS, 0, 0, &[])),
        (Glitch::Pings, frame(kind::PING, 0, 0, &[1; 8])),
        (Glitch::Priorities, frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 3, 1])),
        (Glitch::WindowUpdates, window(0, 1)),
        (Glitch::Unknown, frame(0xee, 0, 0, &[])),
        (Glitch::Pings, frame(kind::PING, ACK, 0, &[1; 8])),
    ];
    for (kind, bytes) in floods {
        let mut server = Server::new();
        let (times, back) = flood(&mut server, |_| bytes.clone());
        assert!((limit(kind) - 10..=limit(kind) + 1).contains(&times), "{kind:?}: {times}");
        assert!(back < 40 * times as usize, "{kind:?}: {back} bytes back");
        assert_calmed(&mut server, kind);
    }
}

#[test]
fn the_client_is_told_by_goaway() {
    let mut server = Server::new();
    server.all_frames();
    for _ in 0..=limit(Glitch::Pings) {
        server.send(&frame(kind::PING, 0, 0, &[1; 8]));
    }
    let frames = server.all_frames();
    let last = frames.last().unwrap();
    assert_eq!((last.kind, last.code()), (kind::GOAWAY, code::ENHANCE_YOUR_CALM));
}

#[test]
fn rapid_reset_ends_with_a_bounded_number_of_requests() {
    let mut server = Server::new();
    let mut heads = 0;
    for n in 0.. {
        if server.connection.close_cause().is_some() {
            break;
        }
        server.send(&headers(2 * n + 1, &GET, true));
        heads += server.events().len();
        server.send(&reset(2 * n + 1, code::CANCEL));
        server.events();
        server.all_frames();
        assert_eq!(server.connection.streams_open(), 0);
    }
    assert_eq!(heads, limits::glitch::LIMIT[0] as usize + 1);
    assert_calmed(&mut server, Glitch::Resets);
}

#[test]
fn rapid_reset_in_one_read_costs_no_request_at_all() {
    let mut server = Server::new();
    let bytes = (0..900).flat_map(|n| [headers(2 * n + 1, &GET, true), reset(2 * n + 1, code::CANCEL)].concat());
    server.send(&bytes.collect::<Vec<_>>());
    assert!(server.events().is_empty());
    assert_eq!(server.connection.close_cause(), None);
    server.send(&headers(1801, &GET, true));
    assert_eq!(shapes(&server.events()), ["1801: head end"]);
}

#[test]
fn a_client_that_is_answered_may_reset_for_ever() {
    let mut server = Server::new();
    for n in 0..5_000 {
        let id = 2 * n + 1;
        server.send(&headers(id, &POST, false));
        server.events();
        server.answer(u64::from(id), b"x");
        server.all_frames();
        server.send(&reset(id, code::NO_ERROR));
        server.events();
        server.wait(Duration::from_micros(10));
    }
    assert_eq!(server.connection.close_cause(), None);
}

#[test]
fn being_made_to_reset_counts_as_much() {
    // MadeYouReset: each request is well-formed, and then something is done that forces our reset.
    let tricks: [fn(u32) -> Vec<u8>; 4] = [
        |id| window(id, 0x7fff_ffff),
        |id| headers(id, &[("x", "trailers without an end")], false),
        |id| data(id, b"longer than it said", false),
        |id| frame(kind::PRIORITY, 0, id, &[&id.to_be_bytes()[..], &[0]].concat()),
    ];
    for trick in tricks {
        let mut server = Server::new();
        let (times, _) = flood(&mut server, |n| {
            let id = 2 * n + 1;
            [headers(id, &[&POST[..], &[("content-length", "3")]].concat(), false), trick(id)].concat()
        });
        assert!((500..520).contains(&times), "{times}");
        assert_calmed(&mut server, Glitch::Malformed);
    }
}

#[test]
fn heads_that_are_too_large_are_ended_although_they_are_answered() {
    // Above our limit, below the library's, and within one frame.
    let long = "v".repeat(135);
    let mut fields = POST.to_vec();
    fields.extend([("x", long.as_str()); 100]);
    let mut server = Server::new();
    let (times, _) = flood(&mut server, |n| headers(2 * n + 1, &fields, true));
    assert!((250..1_100).contains(&times), "{times}");
    assert_calmed(&mut server, Glitch::Malformed);
}

#[test]
fn malformed_requests_without_end_are_ended() {
    let mut server = Server::new();
    let (times, _) = flood(&mut server, |n| headers(2 * n + 1, &[(":method", "GET")], true));
    assert!((500..520).contains(&times), "{times}");
    assert_calmed(&mut server, Glitch::Malformed);
}

#[test]
fn continuation_frames_without_end_are_ended() {
    let mut server = Server::new();
    server.send(&frame(kind::HEADERS, 0, 1, &block(&GET)));
    let (times, _) = flood(&mut server, |_| frame(kind::CONTINUATION, 0, 1, &block(&[("a", "b")])));
    assert!(times <= limit(Glitch::Continuations) + 1, "{times}");
    assert!(matches!(server.connection.flood(), Some(Glitch::Continuations | Glitch::Library)));
    assert_eq!(server.connection.close_cause().unwrap().code, code::ENHANCE_YOUR_CALM);
}

#[test]
fn empty_data_without_end_is_ended() {
    for padded in [false, true] {
        let mut server = Server::new();
        server.send(&headers(1, &POST, false));
        server.events();
        let empty = if padded { frame(kind::DATA, 8, 1, &[7; 8]) } else { data(1, b"", false) };
        let (times, _) = flood(&mut server, |_| empty.clone());
        assert!(times <= limit(Glitch::Empty) + 1, "{times}");
        assert_calmed(&mut server, Glitch::Empty);
    }
}

#[test]
fn data_byte_by_byte_that_nobody_takes_is_ended_by_the_library() {
    let mut server = Server::new();
    server.send(&headers(1, &POST, false));
    server.events();
    let (times, _) = flood(&mut server, |_| data(1, b"x", false));
    assert!(times < 10_000, "{times}");
    assert_calmed(&mut server, Glitch::Library);
}

#[test]
fn a_header_bomb_costs_what_one_head_may() {
    // One entry of 4 KB in the table, and then a byte each for it.
    let mut server = Server::new();
    let mut bomb = block(&GET);
    bomb.push(0x40);
    bomb.extend([1, b'x', 127, 0xa1, 0x1e]);
    bomb.extend([b'y'; 4000]);
    bomb.extend([0x80 | 62; 8_000]);
    server.send(&frame(kind::HEADERS, END_HEADERS | 1, 1, &bomb));
    assert!(server.events().is_empty());
    assert_calmed(&mut server, Glitch::Library);
}

#[test]
fn a_client_that_reads_nothing_holds_bounded_output() {
    let mut server = Server::new();
    server.all_frames();
    // Pings are answered until the socket's share is full; then nothing more is read.
    let ping = frame(kind::PING, 0, 0, &[1; 8]);
    let mut sent = 0;
    let mut out = crate::http::Output::new();
    out.push(spooky_uring::Chunk::from_vec(vec![0; limits::OUTPUT_BYTES]));
    while server.connection.wants_read() {
        for _ in 0..100 {
            server.send(&ping);
            sent += ping.len();
        }
        server.wait(Duration::from_secs(2));
        server.events();
        server.connection.transmit(&mut out);
        assert!(sent < 1 << 20, "reading never pauses");
    }
    assert!(out.len() < 2 * limits::OUTPUT_BYTES + (32 << 10), "{}", out.len());
    assert_eq!(server.connection.close_cause(), None);
    // When it reads again everything goes on.
    out.clear();
    let pongs = server.all_frames().len();
    assert!(pongs > 1000, "{pongs}");
    assert!(server.connection.wants_read());
    server.send(&headers(1, &GET, true));
    assert_eq!(shapes(&server.events()), ["1: head end"]);
}

#[test]
fn what_does_not_speak_http2_is_told_so() {
    let mut server = Server::silent(super::super::Settings::SERVER);
    server.send(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n");
    assert!(server.events().is_empty());
    let frames = server.all_frames();
    let last = frames.last().unwrap();
    assert_eq!((last.kind, last.code()), (kind::GOAWAY, code::PROTOCOL_ERROR));
    assert!(server.connection.is_closed());
}

#[test]
fn connection_errors_say_their_code() {
    let cases: [(Vec<u8>, u64); 6] = [
        (data(1, b"on an idle stream", false), code::PROTOCOL_ERROR),
        (frame(kind::DATA, 0, 0, b"on no stream"), code::PROTOCOL_ERROR),
        (frame(kind::PING, 0, 0, b"short"), code::PROTOCOL_ERROR),
        (headers(2, &GET, true), code::PROTOCOL_ERROR),
        (frame(kind::CONTINUATION, END_HEADERS, 1, b""), code::PROTOCOL_ERROR),
        (window(0, 0x7fff_ffff), code::FLOW_CONTROL_ERROR),
    ];
    for (bytes, expected) in cases {
        let mut server = Server::new();
        server.send(&headers(1, &GET, true)[..0]);
        server.all_frames();
        server.send(&bytes);
        server.events();
        let frames = server.all_frames();
        let last = frames.last().unwrap_or_else(|| panic!("nothing said to {bytes:?}"));
        assert_eq!((last.kind, last.code()), (kind::GOAWAY, expected), "{bytes:?}");
        assert_eq!(server.connection.close_cause().unwrap().by, Closer::Us);
        assert!(server.connection.is_closed());
    }
}
