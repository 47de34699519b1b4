//! Requests of a client that writes its frames by hand.

use super::super::Settings;
use super::super::code;
use super::support::*;
use crate::http::{Event, HeadLimits, Known, Method, Reason, ResponseHead};
use spooky_uring::Chunk;

#[test]
fn a_get_is_answered_in_two_frames() {
    let mut server = Server::new();
    server.send(&headers(1, &[&GET[..], &[("x-a", "1"), ("cookie", "a=1"), ("cookie", "b=2")]].concat(), true));
    let Event::Head { head, end } = server.event() else { panic!("no head") };
    assert!(end);
    assert_eq!((head.method, head.authority.host(), head.target.matched()), (Method::Get, "example.org", Some("/")));
    assert_eq!(head.fields.find(b"x-a"), Some(&b"1"[..]));
    assert_eq!(head.fields.get(Known::Cookie), Some(&b"a=1; b=2"[..]));
    server.all_frames();

    server.connection.set_owner(1, 7);
    server.answer(1, b"hello");
    let frames = server.frames();
    assert_eq!(frames.len(), 2, "{frames:?}");
    assert_eq!((frames[0].kind, frames[0].flags, frames[0].stream), (kind::HEADERS, END_HEADERS, 1));
    assert_eq!(frames[0].payload[0], 0x88, ":status 200 of the static table");
    assert_eq!((frames[1].kind, frames[1].flags, &frames[1].payload[..]), (kind::DATA, END_STREAM, &b"hello"[..]));
    // The end of what was queued is told to the owner, then the stream is forgotten.
    assert_eq!(shapes(&server.events()), ["1: room"]);
    assert_eq!(server.connection.streams_open(), 0);
}

#[test]
fn settings_leave_before_the_client_says_anything() {
    let mut server = Server::silent(Settings::SERVER);
    let frames = server.all_frames();
    assert_eq!(frames[0].kind, kind::SETTINGS);
    let settings = frames[0].payload.chunks(6).map(|one| (one[1], u32::from_be_bytes(one[2..].try_into().unwrap())));
    let settings = settings.collect::<Vec<_>>();
    assert!(settings.contains(&(3, 128)), "MAX_CONCURRENT_STREAMS");
    assert!(settings.contains(&(4, 256 << 10)), "INITIAL_WINDOW_SIZE");
    assert!(settings.contains(&(6, 32 << 10)), "MAX_HEADER_LIST_SIZE");
    assert!(settings.contains(&(8, 1)), "ENABLE_CONNECT_PROTOCOL");
}

#[test]
fn an_upload_comes_by_credit_and_the_window_opens_by_what_was_handed_out() {
    let mut server = Server::new();
    server.send(&headers(1, &[&POST[..], &[("content-length", "40000")]].concat(), false));
    server.send(&data(1, &[7; 16_384], false));
    assert_eq!(shapes(&server.events()), ["1: head"]);
    assert!(server.frames().is_empty(), "no credit, no window");
    server.connection.grant(1, 10_000);
    assert_eq!(shapes(&server.events()), ["1: body 10000"]);
    server.connection.grant(1, 10_000);
    assert_eq!(shapes(&server.events()), ["1: body 6384"]);
    server.send(&data(1, &[7; 16_384], false));
    server.send(&data(1, &[7; 7_232], true));
    assert_eq!(shapes(&server.events()), ["1: body 3616"]);
    server.connection.grant(1, 1 << 20);
    assert_eq!(shapes(&server.events()), ["1: body 12768", "1: body 7232", "1: end"]);
}

#[test]
fn windows_open_for_a_long_upload() {
    let mut server = Server::new();
    server.send(&headers(1, &POST, false));
    server.connection.next_event();
    server.connection.grant(1, 8 << 20);
    let mut opened = 0;
    for _ in 0..64 {
        server.send(&data(1, &[7; 16_384], false));
        assert_eq!(shapes(&server.events()), ["1: body 16384"]);
        for frame in server.frames() {
            assert_eq!(frame.kind, kind::WINDOW_UPDATE);
            opened += u32::from_be_bytes(frame.payload[..].try_into().unwrap());
        }
    }
    let sent = 64 * 16_384;
    assert!(opened <= sent && opened > sent - (256 << 10), "{opened} of {sent}");
}

#[test]
fn a_client_above_its_window_is_reset() {
    let settings = Settings { stream_window: 65_535, ..Settings::SERVER };
    let mut server = Server::with(settings);
    server.send(&headers(1, &POST, false));
    server.connection.next_event();
    for _ in 0..4 {
        server.send(&data(1, &[7; 16_384], false));
    }
    assert_eq!(shapes(&server.events()), ["1: reset 3", "1: stop 3"]);
    let resets = server.frames();
    assert_eq!(
        resets.iter().map(|frame| (frame.kind, frame.code())).collect::<Vec<_>>(),
        [(3, code::FLOW_CONTROL_ERROR)]
    );
    assert_eq!(server.connection.streams_open(), 0);
}

#[test]
fn trailers_of_a_request_come_before_its_end() {
    let mut server = Server::new();
    server.send(&headers(1, &POST, false));
    server.send(&data(1, b"abc", false));
    server.send(&headers(1, &[("x-sum", "1"), ("content-length", "3")], true));
    server.connection.next_event();
    server.connection.grant(1, 100);
    assert_eq!(shapes(&server.events()), ["1: body 3", "1: trailers 1", "1: end"]);
}

#[test]
fn trailers_of_a_response_come_after_its_body() {
    let mut server = Server::new();
    server.send(&headers(1, &GET, true));
    server.event();
    server.all_frames();
    server.connection.send_head(1, &ResponseHead::new(200), false);
    server.connection.send_body(1, Chunk::copy_from(b"abc"));
    let mut fields = crate::http::Fields::new();
    assert!(fields.push(b"grpc-status", b"0"));
    server.connection.send_trailers(1, &fields);
    let expected = [(kind::HEADERS, END_HEADERS, 1), (kind::DATA, 0, 1), (kind::HEADERS, END_HEADERS | END_STREAM, 1)];
    assert_eq!(server.shapes(), expected);
    assert_eq!(server.connection.streams_open(), 0);
}

#[test]
fn a_piece_leaves_although_bytes_came_behind_it_in_the_same_turn() {
    let mut server = Server::new();
    server.send(&headers(1, &POST, false));
    server.event();
    server.connection.send_head(1, &ResponseHead::new(200), false);
    server.all_frames();
    server.connection.send_body(1, Chunk::copy_from(b"abc"));
    // Looking at them is the library's one poll of the turn, before it has the piece.
    server.send(&window(0, 1000));
    server.events();
    assert!(server.connection.has_output());
    let frames = server.frames();
    assert_eq!((frames.len(), &frames[0].payload[..]), (1, &b"abc"[..]));
    assert!(!server.connection.has_output());
}

#[test]
fn informational_heads_come_first_and_are_bounded() {
    let mut server = Server::new();
    server.send(&headers(1, &GET, true));
    server.event();
    server.all_frames();
    for _ in 0..100 {
        server.connection.send_informational(1, &ResponseHead::new(103));
    }
    server.answer(1, b"");
    let shapes = server.shapes();
    assert_eq!(shapes.len(), 17);
    assert!(shapes[..16].iter().all(|&shape| shape == (kind::HEADERS, END_HEADERS, 1)));
    assert_eq!(shapes[16], (kind::HEADERS, END_HEADERS | END_STREAM, 1));
}

#[test]
fn head_and_bodiless_statuses_end_with_their_head() {
    for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304)] {
        let mut server = Server::new();
        server.send(&headers(1, &[&[(":method", method)][..], &GET[1..]].concat(), true));
        server.event();
        server.all_frames();
        let mut head = ResponseHead::new(status);
        head.content_length = (status != 204).then_some(1000);
        server.connection.send_head(1, &head, false);
        server.connection.send_body(1, Chunk::copy_from(b"not sent"));
        server.connection.end(1);
        assert_eq!(server.shapes(), [(kind::HEADERS, END_HEADERS | END_STREAM, 1)], "{method} {status}");
    }
}

#[test]
fn a_response_that_is_not_as_long_as_it_said_is_broken() {
    for (length, body) in [(10, &b"short"[..]), (3, b"too long"), (5, b"")] {
        let mut server = Server::new();
        server.send(&headers(1, &GET, true));
        server.event();
        server.all_frames();
        let mut head = ResponseHead::new(200);
        head.content_length = Some(length);
        server.connection.send_head(1, &head, false);
        server.connection.send_body(1, Chunk::copy_from(body));
        server.connection.end(1);
        let frames = server.frames();
        let last = frames.last().unwrap();
        assert_eq!((last.kind, last.code()), (kind::RST_STREAM, code::INTERNAL_ERROR), "{length}");
        assert!(frames.iter().all(|frame| frame.flags & END_STREAM == 0 || frame.kind == kind::RST_STREAM));
        assert_eq!(server.connection.streams_open(), 0);
    }
}

#[test]
fn an_early_response_is_delivered_whole_and_then_the_upload_is_stopped() {
    let mut server = Server::new();
    server.send(&headers(1, &POST, false));
    server.send(&data(1, &[1; 1000], false));
    server.connection.next_event();
    server.all_frames();
    server.answer(1, b"no thanks");
    server.connection.stop(1, code::NO_ERROR);
    let frames = server.frames();
    let kinds = frames.iter().map(|frame| frame.kind).collect::<Vec<_>>();
    assert_eq!(kinds, [kind::HEADERS, kind::DATA, kind::RST_STREAM]);
    assert_eq!(frames[1].flags, END_STREAM);
    assert_eq!(frames[2].code(), code::NO_ERROR);
    // What is still on its way does no harm.
    server.send(&data(1, &[1; 1000], false));
    assert!(server.events().is_empty());
    assert!(server.frames().is_empty());
    assert_eq!(server.connection.flood(), None);
}

#[test]
fn a_reset_of_the_client_ends_both_directions() {
    let mut server = Server::new();
    server.send(&headers(1, &POST, false));
    server.event();
    server.connection.set_owner(1, 3);
    server.connection.send_head(1, &ResponseHead::new(200), false);
    server.all_frames();
    server.send(&reset(1, code::CANCEL));
    let told = server.events();
    assert_eq!(shapes(&told), ["1: reset 8", "1: stop 8"]);
    assert!(told.iter().all(|(stream, _)| stream.owner == 3));
    assert_eq!(server.connection.streams_open(), 0);
    server.connection.send_body(1, Chunk::copy_from(b"late"));
    server.connection.end(1);
    assert!(server.frames().is_empty(), "nothing is said about it any more");
}

#[test]
fn a_request_given_up_in_the_same_read_is_never_seen() {
    let mut server = Server::new();
    let mut bytes = headers(1, &GET, true);
    bytes.extend(reset(1, code::CANCEL));
    bytes.extend(headers(3, &GET, true));
    server.send(&bytes);
    assert_eq!(shapes(&server.events()), ["3: head end"]);
    server.answer(3, b"x");
    assert_eq!(server.shapes().len(), 2);
    assert_eq!(server.connection.streams_open(), 0);
}

#[test]
fn our_reset_says_its_code() {
    let mut server = Server::new();
    server.send(&headers(1, &POST, false));
    server.event();
    server.all_frames();
    server.connection.stop(1, code::CANCEL);
    server.connection.reset(1, code::CANCEL);
    let frames = server.frames();
    assert_eq!((frames.len(), frames[0].kind, frames[0].code()), (1, kind::RST_STREAM, code::CANCEL));
    assert_eq!(server.connection.streams_open(), 0);
}

#[test]
fn malformed_requests_are_stream_errors_and_the_connection_lives() {
    let bad: [&[(&str, &str)]; 7] = [
        &[(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "x")],
        &[(":method", "GET"), (":scheme", "https"), (":path", "/")],
        &[(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/"), ("host", "b")],
        &[(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/"), ("te", "gzip")],
        &[(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/"), ("connection", "x")],
        &[(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/"), ("x", " padded")],
        &[(":method", "GET"), (":scheme", "https"), (":authority", "a@b"), (":path", "/")],
    ];
    let mut server = Server::new();
    server.all_frames();
    for (at, fields) in bad.into_iter().enumerate() {
        let id = 2 * at as u32 + 1;
        server.send(&headers(id, fields, true));
        for (_, event) in server.events() {
            assert!(matches!(event, Event::Refused(refusal) if refusal.malformed), "{fields:?}");
        }
        let frames = server.frames();
        assert_eq!(frames.len(), 1, "{fields:?}: {frames:?}");
        assert_eq!((frames[0].kind, frames[0].stream, frames[0].code()), (kind::RST_STREAM, id, code::PROTOCOL_ERROR));
    }
    server.send(&headers(99, &GET, true));
    assert!(matches!(server.event(), Event::Head { .. }));
}

#[test]
fn heads_above_our_limits_are_ours_to_answer() {
    let limits = HeadLimits { fields: 8, bytes: 2000, ..HeadLimits::REQUEST };
    let many = (0..9).map(|_| ("x", "y")).collect::<Vec<_>>();
    let long = "z".repeat(2000);
    let cases: [(Vec<(&str, &str)>, Reason); 2] =
        [(many, Reason::TooManyFields), (vec![("x", &*long)], Reason::HeadTooLarge)];
    for (fields, reason) in cases {
        let mut server = Server::with(Settings { head: limits, ..Settings::SERVER });
        server.send(&headers(1, &[&POST[..], &fields].concat(), false));
        let Event::Refused(refusal) = server.event() else { panic!("not refused") };
        assert_eq!((refusal.reason, refusal.malformed), (reason, false));
        server.all_frames();
        server.answer(1, b"431");
        let kinds = server.frames().iter().map(|frame| frame.kind).collect::<Vec<_>>();
        assert_eq!(kinds, [kind::HEADERS, kind::DATA, kind::RST_STREAM]);
    }
}

#[test]
fn more_requests_than_allowed_are_refused_by_the_library() {
    let mut server = Server::with(Settings { streams: 2, ..Settings::SERVER });
    server.all_frames();
    for id in [1, 3, 5] {
        server.send(&headers(id, &GET, true));
    }
    assert_eq!(shapes(&server.events()), ["1: head end", "3: head end"]);
    let frames = server.frames();
    assert_eq!((frames[0].stream, frames[0].code()), (5, code::REFUSED_STREAM));
}

#[test]
fn a_slow_reader_holds_a_bounded_queue_and_is_told_when_there_is_room() {
    let mut server = Server::new();
    server.send(&headers(1, &GET, true));
    server.event();
    server.all_frames();
    server.connection.send_head(1, &ResponseHead::new(200), false);
    let mut given = 0;
    while server.connection.room(1) > 0 {
        let piece = server.connection.room(1).min(10_000);
        server.connection.send_body(1, Chunk::copy_from(&vec![5; piece]));
        given += piece;
        server.frames();
    }
    // The client's window of 65,535 bytes left, and the queue is full.
    assert!((65_535 + (60 << 10)..=65_535 + (64 << 10)).contains(&given), "{given}");
    assert!(server.events().is_empty());
    assert_eq!(server.connection.pending(1), given - 65_535);
    server.send(&[window(0, 1 << 20), window(1, 40_000)].concat());
    assert!(server.events().iter().all(|(_, event)| matches!(event, Event::Room)));
    let sent = server.frames().iter().map(|frame| frame.payload.len()).sum::<usize>();
    assert_eq!(sent, 40_000);
    assert!(server.connection.room(1) > 0);
    assert_eq!(server.connection.pending(1), given - 65_535 - 40_000);
}

#[test]
fn large_pieces_leave_by_reference() {
    let mut server = Server::new();
    server.send(&headers(1, &GET, true));
    server.event();
    server.all_frames();
    let body = Chunk::from_vec(vec![9; 16_000]);
    let memory = body.as_ptr() as usize..body.as_ptr() as usize + body.len();
    server.connection.send_head(1, &ResponseHead::new(200), false);
    server.connection.send_body(1, body);
    server.connection.end(1);
    let mut out = crate::http::Output::new();
    server.connection.transmit(&mut out);
    let mut by_reference = 0;
    while let Some(chunk) = out.pop() {
        if memory.contains(&(chunk.as_ptr() as usize)) {
            by_reference += chunk.len();
        }
    }
    assert!(by_reference > 15_000, "{by_reference}");
}

/// What docs/TESTING.md says of the library.
#[test]
fn answers_that_the_library_makes() {
    let with = |extra: &[(&'static str, &'static str)]| [&GET[..], extra].concat();
    let path = |path: &'static str| [&GET[..3], &[(":path", path)]].concat();
    let closed = (kind::GOAWAY, code::PROTOCOL_ERROR);
    let reset = (kind::RST_STREAM, code::PROTOCOL_ERROR);
    let cases = [
        (with(&[("X-Upper", "1")]), closed),
        (with(&[("x", "a\nb")]), closed),
        (with(&[("", "no name")]), closed),
        ([&[(":unknown", "1")], &GET[..]].concat(), closed),
        ([&GET[..], &[(":path", "/")]].concat(), reset),
        (with(&[("upgrade", "websocket")]), reset),
        (with(&[("transfer-encoding", "chunked")]), reset),
        (with(&[("content-length", "x")]), reset),
        (with(&[("content-length", "1"), ("content-length", "2")]), reset),
        (with(&[("content-length", "1")]), reset),
        (path("/?a=\""), reset),
        (path(""), reset),
        (GET[1..].to_vec(), reset),
        ([&[(":protocol", "websocket")], &GET[..]].concat(), reset),
        ([&[(":status", "200")], &GET[..]].concat(), reset),
    ];
    for (fields, expected) in cases {
        let mut server = Server::new();
        server.all_frames();
        server.send(&headers(1, &fields, true));
        assert!(server.events().is_empty(), "{fields:?}");
        let frames = server.all_frames();
        let said = frames.iter().find(|frame| matches!(frame.kind, kind::GOAWAY | kind::RST_STREAM));
        assert_eq!(said.map(|frame| (frame.kind, frame.code())), Some(expected), "{fields:?}");
    }
}

#[test]
fn a_fragment_never_reaches_us_and_a_huge_head_is_answered_by_the_library() {
    let mut server = Server::new();
    server.send(&headers(1, &[&GET[..3], &[(":path", "/a?b#c")]].concat(), true));
    let Event::Head { head, .. } = server.event() else { panic!("no head") };
    assert_eq!(head.target.path().map(|path| path.forwarded()), Some("/a?b"));
    server.all_frames();
    let long = "x".repeat(12_000);
    server.send(&frame(kind::HEADERS, 1, 3, &block(&[&GET[..], &[("a", &*long)]].concat())));
    server.send(&frame(kind::CONTINUATION, 0, 3, &block(&[("b", &*long)])));
    server.send(&frame(kind::CONTINUATION, END_HEADERS, 3, &block(&[("c", &*long)])));
    assert!(server.events().is_empty());
    let frames = server.frames();
    assert_eq!((frames[0].kind, frames[0].flags, frames[0].stream), (kind::HEADERS, END_HEADERS | END_STREAM, 3));
    assert_eq!(server.connection.close_cause(), None);
    server.send(&headers(5, &GET, true));
    assert_eq!(shapes(&server.events()), ["5: head end"]);
}

const WEBSOCKET: [(&str, &str); 6] = [
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "https"),
    (":authority", "example.org"),
    (":path", "/chat"),
    ("sec-websocket-version", "13"),
];

#[test]
fn a_tunnel_is_a_stream_whose_directions_end_by_themselves() {
    let mut server = Server::new();
    server.send(&headers(1, &WEBSOCKET, false));
    let Event::Head { head, end: false } = server.event() else { panic!("a head with more to come") };
    assert_eq!((head.method, head.protocol.is_some()), (Method::Get, true));
    server.connection.send_head(1, &ResponseHead::new(200), false);
    server.connection.send_body(1, Chunk::copy_from(b"greeting"));
    server.connection.end(1);
    assert_eq!(server.shapes(), [(kind::HEADERS, END_HEADERS, 1), (kind::DATA, END_STREAM, 1)]);
    // Ours has ended; the client's goes on.
    server.connection.grant(1, 100);
    server.send(&data(1, b"still here", false));
    server.send(&data(1, b"", true));
    assert_eq!(shapes(&server.events()), ["1: body 10", "1: end"]);
    assert_eq!(server.connection.streams_open(), 0);
}
