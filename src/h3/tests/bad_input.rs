//! What peers may not send: noise, mutations, broken frames and malformed messages.

use super::support::*;
use crate::h3::{CloseCause, Closer, QuicSettings, code};
use std::time::Instant;

/// A client that does everything right is served.
pub(super) fn serves_the_next(endpoint: crate::h3::Endpoint) -> crate::h3::Endpoint {
    let settings = QuicSettings::default();
    let client = Client::new(77, &ClientSettings::default());
    let mut world = World::over(endpoint, client, &settings);
    world.handshake();
    let stream = world.client.get("/bytes/20000");
    world.run(|world| world.client.answers.get(&stream).is_some_and(|answer| answer.finished && answer.intact));
    world.endpoint
}

/// Lets every connection do what it would in a turn.
fn turn_all(endpoint: &mut crate::h3::Endpoint) {
    let mut slot = vec![0; 65_536];
    let keys = endpoint.keys().collect::<Vec<_>>();
    for key in keys {
        let connection = endpoint.get_mut(key).unwrap();
        while connection.next_event().is_some() {}
        while connection.transmit(&mut slot, Instant::now()).is_some() {}
        connection.check_invariants();
        if connection.is_closed() {
            endpoint.remove(key);
        }
    }
}

fn throw(endpoint: &mut crate::h3::Endpoint, mut datagram: Vec<u8>) {
    endpoint.receive(&mut datagram, client_address(), server_address(), Instant::now());
}

#[test]
fn noise_is_dropped() {
    let mut endpoint = endpoint(&QuicSettings::default());
    let mut random = Random::new(5);
    for round in 0..5000u64 {
        let len = random.below(1500) as usize;
        let mut datagram = (0..len).map(|_| random.next() as u8).collect::<Vec<_>>();
        if let Some(first) = datagram.first_mut() {
            // All kinds of first byte, half of them with version 1.
            *first = round as u8;
        }
        if round % 2 == 0 && len > 6 {
            datagram[1..5].copy_from_slice(&[0, 0, 0, 1]);
            datagram[5] = random.below(24) as u8;
        }
        throw(&mut endpoint, datagram);
    }
    assert!(endpoint.is_empty());
    let dropped = endpoint.counters().dropped.iter().map(|count| count.get()).sum::<u64>();
    let counters = endpoint.counters();
    assert_eq!(dropped + counters.negotiations.get() + counters.resets.get(), 5000);
    serves_the_next(endpoint);
}

#[test]
fn mutated_truncated_and_replayed_datagrams_of_a_client_harm_nobody_else() {
    let mut world = World::new(&QuicSettings::default(), &ClientSettings::default());
    world.recorded = Some(Vec::new());
    world.handshake();
    let stream = world.client.post("/echo", 30_000);
    world.run(|world| world.client.answers.get(&stream).is_some_and(|answer| answer.finished));
    let recorded = world.recorded.take().unwrap();
    let mut endpoint = world.endpoint;
    let mut random = Random::new(11);
    for round in 0..4000 {
        let mut datagram = recorded[random.below(recorded.len() as u64) as usize].clone();
        match round % 4 {
            0 => datagram.truncate(random.below(datagram.len() as u64 + 1) as usize),
            1 => {}
            _ => {
                for _ in 0..=random.below(8) {
                    let at = random.below(datagram.len() as u64) as usize;
                    datagram[at] ^= 1 << random.below(8);
                }
            }
        }
        throw(&mut endpoint, datagram);
        if round % 16 == 0 {
            turn_all(&mut endpoint);
        }
    }
    serves_the_next(endpoint);
}

#[test]
fn malformed_heads_reset_their_stream_only() {
    let mut world = World::ready();
    const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/")];
    let with = |more: &[(&'static str, &'static str)]| [&GET[..], more].concat();
    let without = |name: &str| {
        let mut fields = GET.to_vec();
        fields.retain(|field| field.0 != name);
        fields
    };
    let cases = [
        with(&[("X-Upper", "1")]),
        with(&[("connection", "close")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("te", "gzip")]),
        with(&[(":path", "/b")]),
        with(&[("x", "y"), (":unknown", "z")]),
        with(&[("x", "a\nb")]),
        with(&[("x y", "z")]),
        with(&[("", "z")]),
        with(&[("content-length", "1"), ("content-length", "1")]),
        with(&[("content-length", "x")]),
        // A length, and the end with the head.
        with(&[("content-length", "5")]),
        [&[("x", "y")], &GET[..]].concat(),
        without(":authority"),
        without(":scheme"),
        without(":method"),
        without(":path"),
        Vec::new(),
    ];
    let count = cases.len();
    for (index, case) in cases.into_iter().enumerate() {
        let stream = 4 * index as u64;
        world.client.raw_request(stream, &case, true);
        world.run(|world| world.client.answers.get(&stream).is_some_and(Answer::is_over));
        let answer = &world.client.answers[&stream];
        assert_eq!(answer.reset, Some(code::MESSAGE_ERROR), "case {index}: {:?}", world.origin.log);
    }
    assert!(world.client.quic.peer_error().is_none());
    assert_eq!(world.connection().streams_open(), 0);
    let counters = world.endpoint.counters();
    assert_eq!(counters.requests_malformed.get() + counters.request_length_mismatches.get(), count as u64);
    serves_the_next(world.endpoint);
}

#[test]
fn heads_over_our_limit_are_answered_and_over_twice_of_it_end_the_connection() {
    let mut world = World::ready();
    let limit = QuicSettings::default().head.bytes;
    let long = "v".repeat(limit);
    let stream = world.client.request(&Client::head("GET", "/a", &[("x", &long)]), true);
    world.run(|world| world.client.answers.get(&stream).is_some_and(Answer::is_over));
    assert_eq!(world.client.answers[&stream].status(), "431");

    let long = "v".repeat(3 * limit);
    world.client.request(&Client::head("GET", "/a", &[("x", &long)]), true);
    world.run(|world| world.client.quic.peer_error().is_some());
    assert_eq!(world.client.quic.peer_error().unwrap().error_code, code::EXCESSIVE_LOAD);
    assert!(world.connection().is_closing());
    serves_the_next(world.endpoint);
}

#[test]
fn bodies_that_are_not_as_long_as_announced_are_errors() {
    for sent in [50, 150] {
        let mut world = World::ready();
        let head = Client::head("POST", "/echo", &[("content-length", "100")]);
        let stream = world.client.request(&head, false);
        world.client.upload(stream, sent, true);
        world.run(|world| world.client.answers.get(&stream).is_some_and(Answer::is_over));
        assert_eq!(world.client.answers[&stream].reset, Some(code::MESSAGE_ERROR));
        assert_eq!(world.origin.tasks[&stream].reset, Some(code::MESSAGE_ERROR));
        assert!(!world.origin.tasks[&stream].ended);
        assert_eq!(world.endpoint.counters().request_length_mismatches.get(), 1);
        world.settle();
        assert_eq!(world.connection().streams_open(), 0);
    }
}

#[test]
fn malformed_trailers_reset_their_stream() {
    let mut world = World::ready();
    let stream = world.client.request(&Client::head("POST", "/trailed", &[]), false);
    world.client.upload_with_trailers(stream, 10, &[(":path", "/x")]);
    world.run(|world| world.client.answers.get(&stream).is_some_and(Answer::is_over));
    assert_eq!(world.client.answers[&stream].reset, Some(code::MESSAGE_ERROR));
    assert_eq!(world.origin.tasks[&stream].reset, Some(code::MESSAGE_ERROR));
}

/// Raw bytes on a stream of the client, and the code the connection is closed with.
fn closes_with(stream: u64, bytes: &[u8], end: bool) -> u64 {
    let mut world = World::ready();
    world.client.quic.stream_send(stream, bytes, end).unwrap();
    println!("{bytes:x?} on stream {stream}");
    world.run(|world| world.client.quic.peer_error().is_some());
    let code = world.client.quic.peer_error().unwrap().error_code;
    let key = world.key.unwrap();
    world.endpoint.remove(key);
    let cause = CloseCause { by: Closer::Us, application: true, code };
    assert_eq!(world.endpoint.counters().closes(), [(cause, 1)]);
    serves_the_next(world.endpoint);
    code
}

#[test]
fn forbidden_frames_and_streams_close_the_connection_with_their_code() {
    // DATA before HEADERS.
    assert_eq!(closes_with(0, &[0x00, 0x01, 0x61], false), code::FRAME_UNEXPECTED);
    // SETTINGS and CANCEL_PUSH on a request stream.
    assert_eq!(closes_with(0, &[0x04, 0x00], false), code::FRAME_UNEXPECTED);
    assert_eq!(closes_with(0, &[0x03, 0x01, 0x00], false), code::FRAME_UNEXPECTED);
    // A field section that does not decode: a static index beyond the table.
    assert_eq!(closes_with(0, &[0x01, 0x04, 0x00, 0x00, 0xff, 0x7f], false), code::QPACK_DECOMPRESSION_FAILED);
    // A second control stream, and a push stream.
    assert_eq!(closes_with(18, &[0x00], false), code::STREAM_CREATION_ERROR);
    assert_eq!(closes_with(18, &[0x01], false), code::STREAM_CREATION_ERROR);
    // A second SETTINGS frame, and the end of the control stream.
    assert_eq!(closes_with(2, &[0x04, 0x00], false), code::FRAME_UNEXPECTED);
    assert_eq!(closes_with(2, &[], true), code::CLOSED_CRITICAL_STREAM);
}

#[test]
fn a_stream_that_ends_without_a_head_is_incomplete() {
    let mut world = World::ready();
    for (stream, bytes) in [(0, &[][..]), (4, &[0x21, 0x00][..])] {
        world.client.quic.stream_send(stream, bytes, true).unwrap();
        world.settle();
    }
    assert_eq!(world.endpoint.counters().requests_incomplete.get(), 2);
    assert!(world.client.quic.peer_error().is_none());
    serves_the_next(world.endpoint);
}
