//! What a client may do but not for ever: every kind of flood closes its connection, and a busy client's does not.

use super::bad_input::serves_the_next;
use super::support::*;
use crate::h3::{CloseCause, Closer, Glitch, QuicSettings, code};
use quiche::Shutdown;

/// Does `act` before each turn until the connection is closed for it, in at most `turns`.
fn floods(kind: Glitch, turns: usize, mut act: impl FnMut(&mut World, usize)) {
    let mut world = World::ready();
    for turn in 0..turns {
        if world.client.quic.peer_error().is_some() {
            break;
        }
        act(&mut world, turn);
        world.turn();
    }
    world.settle();
    let error = world.client.quic.peer_error().unwrap_or_else(|| panic!("{kind:?}: still open"));
    assert_eq!((error.is_app, error.error_code), (true, code::EXCESSIVE_LOAD), "{error:?}");
    assert_eq!(error.reason, kind.token().as_bytes());
    assert_eq!(world.connection().flood(), Some(kind));
    // Every exchange heard of the end.
    for (stream, task) in &world.origin.tasks {
        assert!(task.ended || task.reset.is_some(), "{stream}: {task:?}");
    }
    let key = world.key.unwrap();
    world.endpoint.remove(key);
    let cause = CloseCause { by: Closer::Us, application: true, code: code::EXCESSIVE_LOAD };
    assert_eq!(world.endpoint.counters().closes(), [(cause, 1)]);
    serves_the_next(world.endpoint);
}

fn cancel(world: &mut World, stream: u64) {
    let _ = world.client.quic.stream_shutdown(stream, Shutdown::Write, code::REQUEST_CANCELLED);
    let _ = world.client.quic.stream_shutdown(stream, Shutdown::Read, code::REQUEST_CANCELLED);
}

#[test]
fn requests_that_are_given_up_at_once() {
    floods(Glitch::Resets, 300, |world, _| {
        for _ in 0..20 {
            let stream = world.client.request(&Client::head("POST", "/hold", &[]), false);
            world.client.turn();
            cancel(world, stream);
        }
    });
}

#[test]
fn answers_that_are_stopped_before_they_come() {
    let mut last = Vec::new();
    floods(Glitch::Resets, 300, |world, _| {
        for stream in last.drain(..) {
            cancel(world, stream);
        }
        last = (0..20).map(|_| world.client.get("/hold")).collect();
    });
}

#[test]
fn malformed_requests() {
    floods(Glitch::Malformed, 300, |world, turn| {
        for n in 0..10 {
            let head = [(":method", "GET"), (":scheme", "https"), (":path", "/"), ("X-Upper", "1")];
            world.client.raw_request(4 * (10 * turn as u64 + n), &head, true);
        }
    });
}

#[test]
fn requests_whose_heads_are_too_large() {
    let long = "v".repeat(QuicSettings::default().head.bytes);
    floods(Glitch::Malformed, 600, |world, _| {
        for _ in 0..4 {
            world.client.request(&Client::head("GET", "/a", &[("x", &long)]), true);
        }
    });
}

#[test]
fn pings() {
    floods(Glitch::Packets, 10_000, |world, _| world.client.quic.send_ack_eliciting().unwrap());
}

#[test]
fn path_challenges() {
    floods(Glitch::PathChallenges, 1000, |world, _| {
        let (local, peer) = (client_address(), server_address());
        let _ = world.client.quic.probe_path(local, peer);
    });
}

#[test]
fn connection_ids_retired_as_they_come() {
    let mut next = 1;
    floods(Glitch::ConnectionIds, 2000, |world, _| {
        if world.client.quic.available_dcids() > 0 {
            world.client.quic.retire_dcid(next).unwrap();
            next += 1;
        }
    });
}

#[test]
fn data_frames_of_one_byte() {
    let piece = [0x00, 0x01, b'a'].repeat(4000);
    floods(Glitch::Frames, 1000, |world, turn| {
        if turn == 0 {
            let head = Client::head("POST", "/echo", &[]);
            assert_eq!(world.client.request(&head, false), 0);
        }
        whole_frames(world, 0, &piece, 3);
    });
}

#[test]
fn unknown_frames_on_a_request_and_on_the_control_stream() {
    let piece = [0x21, 0x00].repeat(4000);
    for (stream, turns) in [(0, 1000), (2, 1000)] {
        floods(Glitch::Frames, turns, |world, _| whole_frames(world, stream, &piece, 2));
    }
}

/// Writes as many frames of `len` bytes as the windows take.
fn whole_frames(world: &mut World, stream: u64, piece: &[u8], len: usize) {
    let room = world.client.quic.stream_capacity(stream).unwrap_or(piece.len()).min(piece.len());
    let room = room - room % len;
    if room > 0 {
        let _ = world.client.quic.stream_send(stream, &piece[..room], false);
    }
}

#[test]
fn a_busy_client_with_a_thousand_requests_and_a_tenth_given_up_is_served() {
    let mut world = World::ready();
    let mut asked = 0;
    for round in 0..100 {
        let mut streams = Vec::new();
        for n in 0..10 {
            asked += 1;
            streams.push(match n {
                0 => world.client.get("/hold"),
                1..4 => world.client.post("/echo", 20_000),
                _ => world.client.get("/bytes/3000"),
            });
        }
        world.turn();
        cancel(&mut world, streams[0]);
        world.run(|world| streams[1..].iter().all(|id| world.client.answers.get(id).is_some_and(|a| a.finished)));
        assert!(world.client.quic.peer_error().is_none(), "closed in round {round}");
    }
    assert_eq!(asked, 1000);
    assert_eq!(world.connection().flood(), None);
    assert_eq!(world.endpoint.counters().client_stops.get(), 100);
}

#[test]
fn a_tab_that_closes_with_all_its_requests_is_no_flood() {
    let mut world = World::ready();
    for _ in 0..5 {
        let streams: Vec<u64> = (0..100).map(|_| world.client.get("/hold")).collect();
        world.settle();
        for stream in streams {
            cancel(&mut world, stream);
        }
        world.settle();
    }
    assert_eq!(world.connection().flood(), None);
    assert!(world.client.quic.peer_error().is_none());
}

#[test]
fn uploads_that_are_refused_while_they_come_are_no_flood() {
    let mut world = World::ready();
    for _ in 0..40 {
        let stream = world.client.request(&Client::head("POST", "/hold", &[]), false);
        world.client.upload(stream, 400_000, true);
        world.turn();
        world.with(|_, connection| connection.stop(stream, code::NO_ERROR));
        world.with(|_, connection| connection.reset(stream, code::REQUEST_CANCELLED));
        world.settle();
    }
    assert_eq!(world.connection().flood(), None);
    assert!(world.client.quic.peer_error().is_none());
}
