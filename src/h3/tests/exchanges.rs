//! Requests and responses: sizes, windows, weather, ends and aborts.

use super::support::*;
use crate::h3::{QuicSettings, code};
use crate::http::{Fields, ResponseHead};
use spooky_uring::Pressure;

const SIZES: [u64; 6] = [0, 1, 13_000, 14_000, 1 << 20, 20 << 20];

fn narrow() -> ClientSettings {
    ClientSettings { stream_window: 16 << 10, connection_window: 40 << 10, reads: true }
}

fn download(world: &mut World, len: u64) {
    let stream = world.client.get(&format!("/bytes/{len}"));
    world.run(|world| world.client.answers.get(&stream).is_some_and(Answer::is_over));
    let answer = &world.client.answers[&stream];
    assert_eq!(answer.status(), "200");
    assert_eq!((answer.len, answer.intact, answer.finished), (len, true, true));
}

fn upload(world: &mut World, len: u64) {
    let stream = world.client.post("/echo", len);
    world.run(|world| world.client.answers.get(&stream).is_some_and(Answer::is_over));
    let answer = &world.client.answers[&stream];
    assert_eq!(answer.field(0, "x-received"), Some(&*len.to_string()));
    assert_eq!(answer.field(0, "x-intact"), Some("true"));
}

#[test]
fn bodies_of_every_size_arrive_whole() {
    let mut world = World::ready();
    for len in SIZES {
        download(&mut world, len);
        upload(&mut world, len);
    }
}

#[test]
fn bodies_cross_narrow_windows_whole() {
    let settings =
        QuicSettings { max_data: 64 << 10, max_stream_data: 20 << 10, queue_bytes: 8 << 10, ..QuicSettings::default() };
    let mut world = World::ready_with(&settings, &narrow());
    world.origin.grant = 3000;
    for len in [1, 13_000, 14_000, 1 << 20, 4 << 20] {
        download(&mut world, len);
        upload(&mut world, len);
    }
}

#[test]
fn bodies_survive_bad_weather() {
    for seed in 1..=6 {
        let settings =
            QuicSettings { max_udp_payload: if seed % 2 == 0 { 1200 } else { 1350 }, ..QuicSettings::default() };
        let mut world = World::new(&settings, &ClientSettings::default());
        world.random = Random::new(seed);
        world.weather = Weather { lose: seed, double: 3, delay: 10 };
        println!("seed {seed}");
        world.handshake();
        download(&mut world, 300_000);
        upload(&mut world, 300_000);
    }
}

#[test]
fn a_paced_connection_delivers_too() {
    let settings = QuicSettings { congestion_control: crate::h3::CongestionControl::Bbr2, ..QuicSettings::default() };
    let mut world = World::ready_with(&settings, &ClientSettings::default());
    download(&mut world, 2 << 20);
    upload(&mut world, 1 << 20);
}

#[test]
fn a_bound_on_bytes_in_flight_is_kept() {
    let settings = QuicSettings { flight_bytes: 20_000, ..QuicSettings::default() };
    let mut world = World::ready_with(&settings, &ClientSettings::default());
    let stream = world.client.get("/bytes/1000000");
    world.run(|world| {
        let connection = world.connection();
        let stats = connection.quic.stats();
        let in_flight = stats.sent_bytes - stats.acked_bytes - stats.lost_bytes;
        let bound = connection.flight.bound();
        // Headers, probes of the path's size and, on a busy machine, of its loss, and acknowledgements, which are not
        // acknowledged.
        assert!(in_flight <= bound as u64 * 11 / 10 + 10_000, "{in_flight} of {bound}");
        let in_transport = connection.held.bytes() - connection.waiting;
        assert!(in_transport <= 2 * bound, "{in_transport} of {bound}");
        world.client.answers.get(&stream).is_some_and(|answer| answer.finished)
    });
    assert!(world.client.answers[&stream].intact);
}

#[test]
fn a_head_larger_than_the_congestion_window_and_the_stream_window_arrives() {
    let mut world = World::ready_with(&QuicSettings::default(), &narrow());
    let stream = world.client.get("/hold");
    world.run(|world| world.origin.tasks.contains_key(&stream));
    let long = "x".repeat(3000);
    let mut head = ResponseHead::new(200);
    for index in 0..20 {
        assert!(head.fields.push(format!("x-{index}").as_bytes(), long.as_bytes()));
    }
    world.connection().send_head(stream, &head, true);
    world.run(|world| world.client.answers.get(&stream).is_some_and(|answer| answer.finished));
    for index in 0..20 {
        assert_eq!(world.client.answers[&stream].field(0, &format!("x-{index}")), Some(&*long));
    }
}

#[test]
fn many_streams_share_a_connection() {
    let mut world = World::ready();
    for round in 0..6 {
        // The client gets new streams when half of its 128 are used, so 64 are always there.
        let streams = (0..64).map(|index| world.client.get(&format!("/bytes/{}", 1 + index * 300))).collect::<Vec<_>>();
        world.run(|world| {
            streams
                .iter()
                .all(|stream| world.client.answers.get(stream).is_some_and(|answer| answer.finished && answer.intact))
        });
        world.settle();
        let connection = world.connection();
        assert_eq!(connection.streams_open(), 0, "round {round}");
        assert_eq!(connection.held_bytes(), 0);
        assert!(connection.closing.is_empty(), "{:?}", connection.closing);
        assert_eq!(connection.streams.capacity(), 0, "an idle connection keeps nothing");
    }
}

#[test]
fn requests_without_pause_keep_the_list_of_closing_streams_short() {
    let mut world = World::ready();
    for index in 0..2000 {
        let stream = world.client.get("/bytes/100");
        // The next one starts before the last is over.
        world.turn();
        let _ = stream;
        let connection = world.connection();
        assert!(connection.closing.len() <= 64, "{} after {index}", connection.closing.len());
        world.client.answers.clear();
    }
}

#[test]
fn a_slow_reader_stops_its_own_stream_only() {
    let mut world = World::ready_with(&QuicSettings::default(), &narrow());
    world.client.reads = false;
    let stream = world.client.get("/bytes/10000000");
    world.settle();
    let queue = QuicSettings::default().queue_bytes;
    let connection = world.connection();
    assert_eq!(connection.room(stream), 0);
    // The queue and what the client's window took; nothing else.
    assert!(connection.held_bytes() <= queue + (16 << 10) + (64 << 10), "{}", connection.held_bytes());
    assert!(world.origin.log.iter().all(|(_, word)| word != "room"));
    world.client.reads = true;
    world.run(|world| world.client.answers.get(&stream).is_some_and(|answer| answer.finished));
    assert!(world.client.answers[&stream].intact);
    assert!(world.origin.log.iter().any(|(_, word)| word == "room"));
}

#[test]
fn a_slow_reader_does_not_hold_the_receive_pool() {
    let settings = QuicSettings { pooled_bytes: 48 << 10, ..QuicSettings::default() };
    let mut world = World::ready_with(&settings, &narrow());
    world.origin.pooled = true;
    world.client.reads = false;
    let streams = (0..10).map(|_| world.client.get("/bytes/1000000")).collect::<Vec<_>>();
    world.settle();
    let pooled = world.connection().pooled_bytes();
    assert!(pooled > 0 && pooled <= 48 << 10, "{pooled}");
    assert!(world.endpoint.counters().unpooled_bytes.get() > 0);
    // The count outlives the streams it came from.
    for &stream in &streams {
        world.connection().reset(stream, code::INTERNAL_ERROR);
    }
    assert_eq!(world.connection().pooled_bytes(), 0);
    assert_eq!(world.connection().held_bytes(), 0);
    world.client.reads = true;
    world.run(|world| streams.iter().all(|stream| world.client.answers.get(stream).is_some_and(Answer::is_over)));
    download(&mut world, 100_000);
}

#[test]
fn under_pressure_everything_is_copied() {
    let mut world = World::ready();
    world.origin.pooled = true;
    world.endpoint.pool().set(Pressure { free: 0, total: 48 }, 1 << 16);
    download(&mut world, 100_000);
    // Pieces up to 4 KiB are copied in any case.
    let copied = world.endpoint.counters().unpooled_bytes.get();
    assert!((100_000 - 4096..=100_000).contains(&copied), "{copied}");
}

#[test]
fn trailers_go_both_ways() {
    let mut world = World::ready();
    let stream = world.client.request(&Client::head("POST", "/trailed", &[]), false);
    world.client.upload_with_trailers(stream, 20_000, &[("x-sum", "17"), ("content-length", "3")]);
    world.run(|world| world.origin.tasks.get(&stream).is_some_and(|task| task.ended));
    let task = &world.origin.tasks[&stream];
    assert_eq!((task.received, task.intact), (20_000, true));
    assert_eq!(task.trailers, [("x-sum".to_owned(), "17".to_owned())]);
    let words = world.origin.log.iter().map(|(_, word)| word.as_str()).collect::<Vec<_>>();
    assert_eq!(words, ["head /trailed false", "trailers", "end"]);

    let mut trailers = Fields::new();
    trailers.push(b"grpc-status", b"0");
    world.with(|_, connection| {
        connection.send_head(stream, &ResponseHead::new(200), false);
        connection.send_body(stream, spooky_uring::Chunk::from_vec(body(0..50_000)));
        connection.send_trailers(stream, &trailers);
        connection.end(stream);
    });
    world.run(|world| world.client.answers.get(&stream).is_some_and(|answer| answer.finished));
    let answer = &world.client.answers[&stream];
    assert_eq!((answer.len, answer.intact), (50_000, true));
    assert_eq!(answer.field(1, "grpc-status"), Some("0"));
}

#[test]
fn informational_heads_come_before_the_final_one() {
    let mut world = World::ready();
    let stream = world.client.get("/hold");
    world.run(|world| world.origin.tasks.contains_key(&stream));
    let mut hints = ResponseHead::new(103);
    hints.fields.push(b"link", b"</a.css>; rel=preload");
    world.connection().send_informational(stream, &hints);
    world.run(|world| world.client.answers.contains_key(&stream));
    world.connection().send_head(stream, &ResponseHead::new(204), true);
    world.run(|world| world.client.answers[&stream].finished);
    let answer = &world.client.answers[&stream];
    assert_eq!(answer.field(0, ":status"), Some("103"));
    assert_eq!(answer.field(0, "link"), Some("</a.css>; rel=preload"));
    assert_eq!(answer.field(1, ":status"), Some("204"));
}

#[test]
fn head_keeps_the_length_and_has_no_body() {
    let mut world = World::ready();
    let stream = world.client.request(&Client::head("HEAD", "/bytes/12345", &[]), true);
    world.run(|world| world.client.answers.get(&stream).is_some_and(|answer| answer.finished));
    let answer = &world.client.answers[&stream];
    assert_eq!(answer.field(0, "content-length"), Some("12345"));
    assert_eq!(answer.len, 0);
}

#[test]
fn a_client_that_aborts_is_heard_at_once() {
    let mut world = World::ready();
    // Nothing is being sent: only the count of STOP_SENDING frames tells.
    let stream = world.client.get("/hold");
    world.run(|world| world.origin.tasks.contains_key(&stream));
    world.client.quic.stream_shutdown(stream, quiche::Shutdown::Read, code::REQUEST_CANCELLED).unwrap();
    world.settle();
    assert_eq!(world.origin.tasks[&stream].stopped, Some(code::REQUEST_CANCELLED));
    assert_eq!(world.connection().streams_open(), 0);

    // In the middle of a response.
    let stream = world.client.get("/bytes/10000000");
    world.run(|world| world.client.answers.get(&stream).is_some_and(|answer| answer.len > 0));
    world.client.quic.stream_shutdown(stream, quiche::Shutdown::Read, code::REQUEST_CANCELLED).unwrap();
    world.settle();
    assert_eq!(world.origin.tasks[&stream].stopped, Some(code::REQUEST_CANCELLED));
    assert_eq!(world.connection().held_bytes(), 0);

    // In the middle of an upload: both directions.
    let stream = world.client.request(&Client::head("POST", "/hold", &[]), false);
    world.client.upload(stream, 5000, false);
    world.run(|world| world.origin.tasks.get(&stream).is_some_and(|task| task.received == 5000));
    world.client.quic.stream_shutdown(stream, quiche::Shutdown::Write, code::REQUEST_CANCELLED).unwrap();
    world.client.quic.stream_shutdown(stream, quiche::Shutdown::Read, code::REQUEST_CANCELLED).unwrap();
    world.settle();
    let task = &world.origin.tasks[&stream];
    assert_eq!(task.reset, Some(code::REQUEST_CANCELLED));
    assert_eq!(task.stopped, Some(code::REQUEST_CANCELLED));
    assert_eq!(world.connection().streams_open(), 0);
    download(&mut world, 1000);
}

#[test]
fn a_reset_is_heard_even_without_credit() {
    let mut world = World::ready();
    world.origin.grant = 100;
    let stream = world.client.request(&Client::head("POST", "/slow", &[]), false);
    world.client.upload(stream, 50_000, false);
    world.run(|world| world.origin.tasks.get(&stream).is_some_and(|task| task.received == 100));
    world.settle();
    assert_eq!(world.origin.tasks[&stream].received, 100);
    world.client.quic.stream_shutdown(stream, quiche::Shutdown::Write, 0x77).unwrap();
    world.settle();
    assert_eq!(world.origin.tasks[&stream].reset, Some(0x77));
    world.connection().reset(stream, code::REQUEST_CANCELLED);
    world.settle();
    assert_eq!(world.connection().streams_open(), 0);
}

#[test]
fn streams_reset_before_or_without_a_head_leave_nothing() {
    let mut world = World::ready();
    for round in 0..300 {
        let id = world.client.get("/hold");
        world.client.quic.stream_shutdown(id, quiche::Shutdown::Write, code::REQUEST_CANCELLED).unwrap_or(());
        world.client.quic.stream_shutdown(id, quiche::Shutdown::Read, code::REQUEST_CANCELLED).unwrap();
        world.settle();
        assert!(world.client.error.is_none(), "{round}");
        assert_eq!(world.connection().streams_open(), 0, "{round}");
    }
    // The client's allowance of streams came back each time.
    assert!(world.client.quic.peer_streams_left_bidi() > 60);
    world.settle();
    assert!(world.connection().closing.is_empty());
    download(&mut world, 1000);
}

#[test]
fn an_early_answer_stops_the_upload_and_is_delivered_whole() {
    let mut world = World::ready();
    for _ in 0..200 {
        let stream = world.client.request(&Client::head("POST", "/early", &[]), false);
        world.client.upload(stream, 10 << 20, true);
        world.run(|world| world.origin.tasks.get(&stream).is_some_and(|task| task.received > 0));
        world.with(|origin, connection| {
            origin.answer(connection, stream, 30_000, true);
            connection.stop(stream, code::NO_ERROR);
        });
        world.run(|world| world.client.answers.get(&stream).is_some_and(|answer| answer.finished));
        let answer = &world.client.answers[&stream];
        assert_eq!((answer.len, answer.intact), (30_000, true));
        world.run(|world| world.client.uploads.is_empty());
    }
    world.settle();
    assert_eq!(world.connection().streams_open(), 0);
    download(&mut world, 1000);
}

#[test]
fn a_response_that_breaks_off_never_looks_complete() {
    let mut world = World::ready();
    let stream = world.client.get("/hold");
    world.run(|world| world.origin.tasks.contains_key(&stream));
    world.with(|_, connection| {
        connection.send_head(stream, &ResponseHead::new(200), false);
        connection.send_body(stream, spooky_uring::Chunk::from_vec(body(0..5000)));
    });
    world.settle();
    world.connection().reset(stream, code::INTERNAL_ERROR);
    world.run(|world| world.client.answers.get(&stream).is_some_and(Answer::is_over));
    let answer = &world.client.answers[&stream];
    assert_eq!((answer.finished, answer.reset), (false, Some(code::INTERNAL_ERROR)));

    // Too short, too long, and none at all where one was announced.
    for sent in [50, 150, 0] {
        let stream = world.client.get("/hold");
        world.run(|world| world.origin.tasks.contains_key(&stream));
        let mut head = ResponseHead::new(200);
        head.content_length = Some(100);
        world.with(|_, connection| {
            connection.send_head(stream, &head, sent == 0);
            connection.send_body(stream, spooky_uring::Chunk::from_vec(body(0..sent)));
            connection.end(stream);
        });
        world.run(|world| world.client.answers.get(&stream).is_some_and(Answer::is_over));
        let answer = &world.client.answers[&stream];
        assert_eq!((answer.finished, answer.reset), (false, Some(code::INTERNAL_ERROR)));
    }
    assert_eq!(world.endpoint.counters().response_length_mismatches.get(), 3);
}

#[test]
fn commands_about_unknown_streams_do_nothing() {
    let mut world = World::ready();
    world.with(|_, connection| {
        connection.send_head(400, &ResponseHead::new(200), false);
        connection.send_body(400, spooky_uring::Chunk::copy_from(b"x"));
        connection.send_trailers(400, &Fields::new());
        connection.end(400);
        connection.reset(400, 1);
        connection.stop(400, 1);
        connection.grant(400, 1);
        connection.set_owner(400, 1);
        assert_eq!(connection.room(400), 0);
        assert!(connection.next_event().is_none());
    });
}

#[test]
fn a_tunnel_is_a_stream_whose_directions_end_by_themselves() {
    let mut world = World::ready();
    world.settle();
    let http = world.client.http.as_ref().expect("handshake done");
    assert!(http.extended_connect_enabled_by_peer(), "RFC 9220 §3");
    let asking = [(":protocol", "websocket"), ("sec-websocket-version", "13")];
    let stream = world.client.request(&Client::head("CONNECT", "/bytes/5000", &asking), false);
    // Our direction ends at once; the client's has not begun.
    world.run(|world| world.client.answers.get(&stream).is_some_and(Answer::is_over));
    let answer = &world.client.answers[&stream];
    assert_eq!((answer.status(), answer.len, answer.finished), ("200", 5000, true));
    world.client.upload(stream, 9000, true);
    world.run(|world| world.origin.tasks[&stream].ended);
    let task = &world.origin.tasks[&stream];
    assert_eq!((task.received, task.intact, task.reset), (9000, true, None));
}
