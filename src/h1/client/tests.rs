use super::*;
use crate::h1::testing::{Random, Story, corpus, every_cut, sent};
use crate::http::{Authority, PathPair, Side};

const GET: &[u8] = b"GET";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Open,
    Fin,
    Reset,
}

fn request(method: &[u8], target: &str) -> RequestHead {
    let mut head = RequestHead {
        method: Method::parse(method).unwrap(),
        authority: Authority::parse(b"example.com").unwrap(),
        target: Target::Path(PathPair::parse(target.as_bytes()).unwrap()),
        ..RequestHead::default()
    };
    head.fields.push(b"accept", b"*/*");
    head
}

/// A connection that asked `method /` without a body.
fn asked(method: &[u8]) -> ClientConnection {
    let mut connection = ClientConnection::new(Limits::CLIENT);
    ask(&mut connection, method);
    connection
}

fn ask(connection: &mut ClientConnection, method: &[u8]) {
    let head = request(method, "/");
    connection.send_head(&head, None, Framing::None, &mut Output::new());
    connection.grant(usize::MAX);
}

fn text(bytes: &[u8]) -> Chunk {
    Chunk::copy_from(bytes)
}

/// Tells every event that is to be had.
fn listen(connection: &mut ClientConnection, story: &mut Story) {
    loop {
        connection.check_invariants();
        match connection.next_event() {
            Ok(None) => return,
            Ok(Some(Event::Head { head, end })) => {
                let length = head.content_length.map_or(String::new(), |n| format!(" length {n}"));
                let end = if end { " end" } else { "" };
                story.tell(format!("head {}{length}{}{end}", head.status, Story::fields(&head.fields)));
            }
            Ok(Some(Event::Informational(head))) => {
                story.tell(format!("informational {}{}", head.status, Story::fields(&head.fields)));
            }
            Ok(Some(Event::Body(chunk))) => story.body(&chunk),
            Ok(Some(Event::Trailers(fields))) => story.tell(format!("trailers{}", Story::fields(&fields))),
            Ok(Some(Event::End)) => story.tell("end"),
            Ok(Some(other)) => panic!("{other:?} from a client connection"),
            Err(fault) => {
                let what = fault.reason().map_or("unsolicited", |reason| reason.token());
                story.tell(format!("fault {what} {:?}", fault.next));
                assert_eq!(connection.next_event().unwrap_err(), fault, "a fault is for ever");
                assert!(!connection.is_reusable() && !connection.wants_read());
                return;
            }
        }
    }
}

/// What an answer to `method /` is told as, and whether the connection can be used again.
fn answer(method: &[u8], pieces: &[&[u8]], then: Then) -> (Vec<String>, bool) {
    let mut connection = asked(method);
    let mut story = Story::default();
    for piece in pieces {
        connection.receive(text(piece));
        listen(&mut connection, &mut story);
        if connection.fault.is_some() {
            return (story.lines, false);
        }
    }
    match then {
        Then::Open => {}
        Then::Fin => connection.receive_end(),
        Then::Reset => connection.receive_reset(),
    }
    if then != Then::Open {
        listen(&mut connection, &mut story);
    }
    (story.lines, connection.is_reusable())
}

fn answers(method: &[u8], input: &str, then: Then) -> (Vec<String>, bool) {
    every_cut(input.as_bytes(), |pieces| answer(method, pieces, then))
}

#[test]
fn the_corpus_is_told_as_its_directories_say() {
    for (class, name, bytes) in corpus("response") {
        let (lines, _) = every_cut(&bytes, |pieces| answer(GET, pieces, Then::Fin));
        let last = lines.last().expect("a story");
        let told = match last.strip_prefix("fault ") {
            Some(fault) => fault.split(' ').next().unwrap(),
            None => {
                assert!(last == "end" || last.ends_with(" end"), "{class}/{name}: {lines:?}");
                "whole"
            }
        };
        assert_eq!(told, class, "{name}: {lines:?}");
    }
}

#[test]
fn an_answer_with_a_length_leaves_the_connection_for_the_next_request() {
    let input = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";
    let (lines, reusable) = answers(GET, input, Then::Open);
    assert_eq!(lines, ["head 200 length 5 content-type=text/plain", "body hello", "end"]);
    assert!(reusable);

    let mut connection = asked(GET);
    let mut story = Story::default();
    for _ in 0..3 {
        connection.receive(text(input.as_bytes()));
        listen(&mut connection, &mut story);
        ask(&mut connection, GET);
        assert!(!connection.response_started() && connection.bytes_written() > 0);
    }
    assert_eq!(story.lines.len(), 9);
}

#[test]
fn chunks_and_trailers_are_told_apart() {
    let input = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n";
    let (lines, reusable) = answers(GET, input, Then::Open);
    assert_eq!(lines, ["head 200", "body hello!", "trailers x-sum=1", "end"]);
    assert!(reusable);
}

#[test]
fn answers_without_a_body_end_with_their_head() {
    for (method, input) in [
        (&b"HEAD"[..], "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        (b"HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (b"HEAD", "HTTP/1.1 200 OK\r\n\r\n"),
        (b"GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        (b"GET", "HTTP/1.1 304 Not Modified\r\n\r\n"),
        (b"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ] {
        let (lines, reusable) = answers(method, input, Then::Open);
        assert_eq!(lines.len(), 1, "{input}");
        assert!(lines[0].ends_with(" end") && reusable, "{input}: {lines:?}");
    }
}

#[test]
fn persistence_follows_version_and_connection() {
    for (head, reusable) in [
        ("HTTP/1.1 200 OK\r\n", true),
        ("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n", true),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n", false),
        ("HTTP/1.1 200 OK\r\nConnection: Keep-Alive, CLOSE\r\n", false),
        ("HTTP/1.1 200 OK\r\nConnection: x-a\r\nConnection: close\r\n", false),
        ("HTTP/1.0 200 OK\r\n", false),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", true),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive, close\r\n", false),
    ] {
        let input = format!("{head}Content-Length: 2\r\n\r\nok");
        let (lines, kept) = answers(GET, &input, Then::Open);
        assert_eq!(lines.last().unwrap(), "end");
        assert_eq!(kept, reusable, "{head}");
    }
}

#[test]
fn an_answer_until_close_ends_with_fin_and_not_with_a_reset() {
    let input = "HTTP/1.1 200 OK\r\n\r\nsome bytes";
    let (lines, reusable) = answers(GET, input, Then::Fin);
    assert_eq!(lines, ["head 200", "body some bytes", "end"]);
    assert!(!reusable);
    let (lines, _) = answers(GET, input, Then::Reset);
    assert_eq!(lines, ["head 200", "body some bytes", "fault upstream_reset Reset"]);
    let (lines, reusable) = answers(GET, input, Then::Open);
    assert_eq!(lines, ["head 200", "body some bytes"]);
    assert!(!reusable);
}

#[test]
fn a_connection_lost_before_the_final_head_leaves_room_for_another_attempt() {
    for (input, then, line) in [
        ("", Then::Fin, "fault upstream_closed Respond"),
        ("", Then::Reset, "fault upstream_reset Respond"),
        ("HTTP/1.1 200 OK\r\nA", Then::Fin, "fault upstream_closed Respond"),
        ("HTTP/1.1 200 OK\r\nA", Then::Reset, "fault upstream_reset Respond"),
        ("HTTP/1.1 103 Early Hints\r\n\r\n", Then::Fin, "fault upstream_closed Respond"),
    ] {
        let (lines, _) = answers(GET, input, then);
        assert_eq!(lines.last().unwrap(), line, "{input:?}");
    }
}

#[test]
fn what_retries_ask_is_known() {
    let mut connection = ClientConnection::new(Limits::CLIENT);
    assert_eq!((connection.bytes_written(), connection.response_started()), (0, false));
    let mut out = Output::new();
    connection.send_head(&request(b"POST", "/"), None, Framing::Length(10), &mut out);
    assert_eq!(connection.bytes_written(), out.len() as u64);
    connection.send_body(text(b"0123456789"), &mut out);
    assert_eq!(connection.bytes_written(), out.len() as u64);
    assert!(!connection.response_started());
    connection.receive(text(b"H"));
    assert!(connection.response_started());
}

#[test]
fn a_complete_answer_before_a_reset_is_delivered() {
    let input = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\ntoo";
    let (lines, reusable) = answers(b"POST", input, Then::Reset);
    assert_eq!(lines, ["head 413 length 3", "body too", "end"]);
    assert!(!reusable);
}

#[test]
fn an_early_answer_is_delivered_whole_and_ends_the_connection() {
    let mut connection = ClientConnection::new(Limits::CLIENT);
    let mut out = Output::new();
    connection.send_head(&request(b"POST", "/"), None, Framing::Length(10), &mut out);
    connection.grant(usize::MAX);
    connection.send_body(text(b"01234"), &mut out);
    let mut story = Story::default();
    connection.receive(text(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\ntoo"));
    listen(&mut connection, &mut story);
    assert_eq!(story.lines, ["head 413 length 3", "body too", "end"]);
    assert!(!connection.is_idle() && !connection.is_reusable());
    // Even if the rest of the request is sent after all.
    connection.send_body(text(b"56789"), &mut out);
    connection.end(&mut out);
    assert!(connection.is_idle() && !connection.is_reusable());
}

#[test]
fn a_request_that_ends_before_its_answer_does_keeps_the_connection() {
    let mut connection = ClientConnection::new(Limits::CLIENT);
    let mut out = Output::new();
    connection.send_head(&request(b"POST", "/"), None, Framing::Chunked, &mut out);
    connection.grant(usize::MAX);
    let mut story = Story::default();
    connection.receive(text(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nec"));
    listen(&mut connection, &mut story);
    connection.end(&mut out);
    assert!(!connection.is_reusable());
    connection.receive(text(b"ho"));
    listen(&mut connection, &mut story);
    assert_eq!(story.lines, ["head 200 length 4", "body echo", "end"]);
    assert!(connection.is_reusable());
}

#[test]
fn unsolicited_bytes_on_an_idle_connection_end_it() {
    let mut connection = ClientConnection::new(Limits::CLIENT);
    assert!(connection.is_idle() && connection.is_reusable());
    connection.receive(text(b"HTTP/1.1 408 Request Timeout\r\n\r\n"));
    assert!(!connection.is_reusable());
    let fault = connection.next_event().unwrap_err();
    assert_eq!((fault.what, fault.next, fault.who()), (What::Unsolicited, Next::Close, Side::Upstream));
    assert_eq!(fault.to_string(), "unsolicited: bytes before any request");

    let (lines, reusable) = answers(GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok?", Then::Open);
    assert_eq!(lines, ["head 200 length 2", "body ok", "end", "fault unsolicited Close"]);
    assert!(!reusable);
}

#[test]
fn an_idle_connection_that_the_backend_closes_is_no_fault_but_no_use() {
    let (lines, reusable) = answers(GET, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Then::Fin);
    assert_eq!(lines, ["head 200 length 0 end"]);
    assert!(!reusable);
}

#[test]
fn informational_heads_come_before_the_final_one() {
    let input = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let (lines, reusable) = answers(GET, input, Then::Open);
    assert_eq!(lines, ["informational 100", "informational 103 link=a", "head 200 length 0 end"]);
    assert!(reusable);
}

#[test]
fn informational_heads_are_bounded() {
    let flood = |n: usize| format!("{}HTTP/1.1 204 x\r\n\r\n", "HTTP/1.1 102 x\r\n\r\n".repeat(n));
    let (lines, _) = answer(GET, &[flood(limits::H1_INFORMATIONAL_MAX).as_bytes()], Then::Open);
    assert_eq!(lines.last().unwrap(), "head 204 end");
    let (lines, _) = answer(GET, &[flood(limits::H1_INFORMATIONAL_MAX + 1).as_bytes()], Then::Open);
    assert_eq!(lines.last().unwrap(), "fault upstream_malformed Respond");
    // The bound is one exchange's, not the connection's.
    let mut connection = asked(GET);
    for _ in 0..3 {
        connection.receive(text(flood(limits::H1_INFORMATIONAL_MAX).as_bytes()));
        listen(&mut connection, &mut Story::default());
        ask(&mut connection, GET);
    }
}

/// A connection that asked for a tunnel with the key of RFC 6455 §1.3, and the request it wrote.
fn asked_for_a_tunnel() -> (ClientConnection, String) {
    let mut connection = ClientConnection::new(Limits::CLIENT);
    let mut head = request(GET, "/chat");
    head.fields.push(b"sec-websocket-version", b"13");
    head.fields.push(b"te", b"trailers");
    let mut out = Output::new();
    connection.ask_tunnel(&head, None, Key::of(b"the sample nonce"), &mut out);
    (connection, sent(&mut out))
}

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[test]
fn a_request_for_a_tunnel_asks_for_the_switch() {
    let (_, request) = asked_for_a_tunnel();
    assert_eq!(
        request,
        "GET /chat HTTP/1.1\r\nhost: example.com\r\naccept: */*\r\nsec-websocket-version: 13\r\n\
         connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
}

#[test]
fn a_tunnel_carries_everything_both_ways_until_each_end() {
    let input = format!("{SWITCH}first words\0\r\n\r\n");
    every_cut(input.as_bytes(), |pieces| {
        let (mut connection, _) = asked_for_a_tunnel();
        let (mut story, mut out) = (Story::default(), Output::new());
        connection.grant(usize::MAX);
        for piece in pieces {
            connection.receive(text(piece));
            listen(&mut connection, &mut story);
        }
        assert!(connection.is_tunnel() && !connection.ends_sending() && !connection.is_reusable());
        connection.send_body(text(b"GET / HTTP/1.1"), &mut out);
        connection.receive_end();
        listen(&mut connection, &mut story);
        // The backend has ended; we have not.
        assert!(!connection.ends_sending());
        connection.send_body(text(b" and more"), &mut out);
        connection.end(&mut out);
        assert!(connection.ends_sending() && connection.is_idle() && !connection.is_reusable());
        assert_eq!(sent(&mut out), "GET / HTTP/1.1 and more");
        let head = "head 200 upgrade=websocket connection=Upgrade";
        assert_eq!(story.lines, [head, "body first words\\x00\\r\\n\\r\\n", "end"]);
    });
}

#[test]
fn what_a_tunnel_brings_waits_for_credit() {
    let (mut connection, _) = asked_for_a_tunnel();
    let mut story = Story::default();
    connection.receive(text(SWITCH.as_bytes()));
    connection.receive(text(b"0123456789"));
    connection.receive_end();
    listen(&mut connection, &mut story);
    assert_eq!(story.lines.len(), 1, "the head alone: {story:?}");
    connection.grant(4);
    listen(&mut connection, &mut story);
    connection.grant(6);
    listen(&mut connection, &mut story);
    assert_eq!(story.lines[1..], ["body 0123456789", "end"]);
}

#[test]
fn a_tunnel_that_breaks_does_not_end() {
    let (mut connection, _) = asked_for_a_tunnel();
    let mut story = Story::default();
    connection.grant(usize::MAX);
    connection.receive(text(SWITCH.as_bytes()));
    connection.receive(text(b"half"));
    connection.receive_reset();
    listen(&mut connection, &mut story);
    assert_eq!(story.lines[1..], ["body half", "fault upstream_reset Reset"]);
}

#[test]
fn a_tunnel_needs_the_right_answer() {
    let wrong = SWITCH.replace("s3pPLM", "S3pPLM");
    let hints = format!("HTTP/1.1 103 x\r\n\r\n{SWITCH}");
    for (input, lines) in [
        (wrong.as_str(), &["fault upstream_upgrade Respond"][..]),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", &["fault upstream_upgrade Respond"]),
        ("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno", &["head 403 length 2", "body no", "end"]),
        (&hints, &["informational 103", "head 200 upgrade=websocket connection=Upgrade"]),
    ] {
        let (mut connection, _) = asked_for_a_tunnel();
        let mut story = Story::default();
        connection.grant(usize::MAX);
        connection.receive(text(input.as_bytes()));
        listen(&mut connection, &mut story);
        assert_eq!(story.lines, lines);
        assert_eq!(connection.is_tunnel(), input == hints);
        assert!(!connection.is_reusable(), "whatever became of it");
    }
}

#[test]
fn a_switch_that_nobody_asked_for_is_refused() {
    let (lines, _) = answers(GET, SWITCH, Then::Open);
    assert_eq!(lines, ["fault upstream_upgrade Respond"]);
}

#[test]
fn connect_is_never_a_tunnel() {
    let (lines, _) = answers(b"CONNECT", "HTTP/1.1 200 OK\r\n\r\n", Then::Open);
    assert_eq!(lines, ["fault upstream_upgrade Respond"]);
    let (lines, _) = answers(b"CONNECT", "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", Then::Open);
    assert_eq!(lines, ["head 403 length 0 end"]);
}

#[test]
fn heads_at_their_bound_are_read_and_larger_ones_refused() {
    let limits = Limits::CLIENT.head;
    let padded = |bytes: usize| {
        let frame = "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n";
        format!("HTTP/1.1 200 {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(bytes - frame.len()))
    };
    for cut in [1000, limits.bytes - 1] {
        let fits = padded(limits.bytes);
        let (front, back) = fits.as_bytes().split_at(cut);
        assert_eq!(answer(GET, &[front, back], Then::Open).0, ["head 200 length 0 end"]);
        let over = padded(limits.bytes + 1);
        let (front, back) = over.as_bytes().split_at(cut);
        let (lines, _) = answer(GET, &[front, back], Then::Open);
        assert_eq!(lines, ["fault upstream_head_too_large Respond"]);
    }
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(limits.fields + 1));
    assert_eq!(answer(GET, &[many.as_bytes()], Then::Open).0, ["fault upstream_head_too_large Respond"]);
}

#[test]
fn body_bytes_wait_for_credit_and_reading_pauses_at_the_bound() {
    let mut connection = ClientConnection::new(Limits::CLIENT);
    connection.send_head(&request(GET, "/"), None, Framing::None, &mut Output::new());
    let length = limits::H1_HELD_BYTES * 2;
    connection.receive(text(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes()));
    assert!(matches!(connection.next_event(), Ok(Some(Event::Head { end: false, .. }))));
    assert!(connection.wants_read());

    connection.receive(Chunk::from_vec(vec![7; limits::H1_HELD_BYTES - 1]));
    assert!(matches!(connection.next_event(), Ok(None)), "no credit, no body");
    assert!(connection.wants_read());
    connection.receive(Chunk::from_vec(vec![7; 1]));
    assert!(!connection.wants_read(), "full");
    // What was on its way already is taken too.
    connection.receive(Chunk::from_vec(vec![7; limits::H1_HELD_BYTES]));

    let mut got = 0;
    while got < length {
        assert!(matches!(connection.next_event(), Ok(None)));
        connection.grant(10_000);
        let mut granted = 0;
        while let Ok(Some(event)) = connection.next_event() {
            match event {
                Event::Body(chunk) => granted += chunk.len(),
                Event::End => assert_eq!(got + granted, length),
                other => panic!("{other:?}"),
            }
        }
        assert!(granted <= 10_000);
        got += granted;
        assert_eq!(connection.wants_read(), length - got < limits::H1_HELD_BYTES);
    }
    assert!(connection.is_reusable());
}

#[test]
fn a_chunked_body_waits_for_credit_but_its_end_does_not() {
    let mut connection = ClientConnection::new(Limits::CLIENT);
    connection.send_head(&request(GET, "/"), None, Framing::None, &mut Output::new());
    connection.receive(text(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"));
    connection.grant(3);
    let mut story = Story::default();
    listen(&mut connection, &mut story);
    assert_eq!(story.lines, ["head 200", "body abc"]);
    // The end of the connection is not the end of what waits.
    connection.receive_end();
    listen(&mut connection, &mut story);
    connection.grant(1);
    listen(&mut connection, &mut story);
    assert_eq!(story.lines, ["head 200", "body abcd", "end"]);
}

#[test]
fn credit_does_not_outlive_its_exchange() {
    let mut connection = asked(GET);
    connection.receive(text(b"HTTP/1.1 204 x\r\n\r\n"));
    listen(&mut connection, &mut Story::default());
    connection.send_head(&request(GET, "/"), None, Framing::None, &mut Output::new());
    connection.receive(text(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
    let mut story = Story::default();
    listen(&mut connection, &mut story);
    assert_eq!(story.lines, ["head 200 length 2"]);
}

#[test]
fn body_pieces_are_slices_of_what_was_received() {
    let mut connection = asked(GET);
    let wire = text(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let body_at = wire.len() - 5;
    let memory = wire.as_ptr().wrapping_add(body_at);
    connection.receive(wire);
    assert!(matches!(connection.next_event(), Ok(Some(Event::Head { .. }))));
    let Ok(Some(Event::Body(body))) = connection.next_event() else {
        panic!("a body");
    };
    assert_eq!(body.as_ptr(), memory);
}

#[test]
fn requests_are_written_whole_into_one_buffer() {
    let mut connection = ClientConnection::new(Limits::CLIENT);
    let mut out = Output::new();
    let mut head = request(GET, "/a%2Fb//c?d=e");
    head.fields.push(b"X-Other", b"1");
    connection.send_head(&head, None, Framing::None, &mut out);
    let first = out.pop().unwrap();
    assert!(out.pop().is_none());
    assert_eq!(
        str::from_utf8(&first).unwrap(),
        "GET /a%2Fb//c?d=e HTTP/1.1\r\nhost: example.com\r\naccept: */*\r\nx-other: 1\r\n\r\n"
    );
}

#[test]
fn host_can_be_replaced_and_targets_have_their_forms() {
    let mut out = Output::new();
    let mut connection = ClientConnection::new(Limits::CLIENT);
    connection.send_head(&request(GET, "/"), Some(b"other:81"), Framing::None, &mut out);
    assert!(sent(&mut out).starts_with("GET / HTTP/1.1\r\nhost: other:81\r\n"));
    let mut head = request(b"OPTIONS", "/");
    head.target = Target::Asterisk;
    ClientConnection::new(Limits::CLIENT).send_head(&head, None, Framing::None, &mut out);
    assert!(sent(&mut out).starts_with("OPTIONS * HTTP/1.1\r\n"));
}

#[test]
fn the_framing_is_ours_whatever_the_head_holds() {
    let write = |method: &[u8], framing: Framing, extra: &[(&[u8], &[u8])]| {
        let mut head = request(method, "/");
        for (name, value) in extra {
            head.fields.push(name, value);
        }
        let mut out = Output::new();
        ClientConnection::new(Limits::CLIENT).send_head(&head, None, framing, &mut out);
        let text = sent(&mut out);
        text.strip_prefix(&format!(
            "{} / HTTP/1.1\r\nhost: example.com\r\naccept: */*\r\n",
            str::from_utf8(method).unwrap()
        ))
        .expect("the usual beginning")
        .to_owned()
    };
    assert_eq!(write(b"POST", Framing::None, &[]), "content-length: 0\r\n\r\n");
    assert_eq!(write(b"PUT", Framing::None, &[]), "content-length: 0\r\n\r\n");
    assert_eq!(write(b"DELETE", Framing::None, &[]), "\r\n");
    assert_eq!(write(b"POST", Framing::Length(0), &[]), "content-length: 0\r\n\r\n");
    assert_eq!(write(b"GET", Framing::Length(7), &[]), "content-length: 7\r\n\r\n");
    assert_eq!(write(b"POST", Framing::Chunked, &[]), "transfer-encoding: chunked\r\n\r\n");
    let smuggled: &[(&[u8], &[u8])] = &[
        (b"content-length", b"9"),
        (b"transfer-encoding", b"chunked"),
        (b"connection", b"close"),
        (b"keep-alive", b"1"),
        (b"proxy-connection", b"close"),
        (b"upgrade", b"h2c"),
        (b"host", b"evil"),
        (b"te", b"gzip"),
    ];
    assert_eq!(write(b"GET", Framing::None, smuggled), "\r\n");
    assert_eq!(write(b"GET", Framing::None, &[(b"te", b"trailers, gzip")]), "te: trailers\r\nconnection: te\r\n\r\n");
}

/// Gives `pieces` as the body and returns what leaves behind the head.
fn upload(framing: Framing, pieces: &[&[u8]], trailers: Option<&[(&[u8], &[u8])]>) -> (String, ClientConnection) {
    let mut connection = ClientConnection::new(Limits::CLIENT);
    let mut out = Output::new();
    connection.send_head(&request(b"POST", "/"), None, framing, &mut out);
    for piece in pieces {
        connection.send_body(text(piece), &mut out);
    }
    match trailers {
        None => connection.end(&mut out),
        Some(list) => {
            let mut fields = Fields::new();
            for (name, value) in list {
                fields.push(name, value);
            }
            connection.send_trailers(&fields, &mut out);
        }
    }
    let text = sent(&mut out);
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    (body.to_owned(), connection)
}

#[test]
fn bodies_are_framed() {
    assert_eq!(upload(Framing::Length(5), &[b"hel", b"", b"lo"], None).0, "hello");
    assert_eq!(
        upload(Framing::Chunked, &[b"hello", b"", b"0123456789abcdef"], None).0,
        "5\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"
    );
    assert_eq!(upload(Framing::Chunked, &[], None).0, "0\r\n\r\n");
    assert_eq!(upload(Framing::Chunked, &[b"a"], Some(&[(b"x-sum", b"1")])).0, "1\r\na\r\n0\r\nx-sum: 1\r\n\r\n");
    assert_eq!(upload(Framing::Length(1), &[b"a"], Some(&[(b"x-sum", b"1")])).0, "a");
}

#[test]
fn a_body_that_breaks_its_length_never_leaves() {
    for (framing, pieces) in [
        (Framing::Length(5), &[&b"hello!"[..]][..]),
        (Framing::Length(5), &[b"hello", b"!"]),
        (Framing::Length(5), &[b"hell"]),
        (Framing::Length(5), &[]),
        (Framing::None, &[b"x"]),
    ] {
        let (body, mut connection) = upload(framing, pieces, None);
        assert!(body.len() <= 5 && !body.contains('!') && !body.contains('x'));
        let fault = connection.next_event().unwrap_err();
        assert_eq!((fault.reason(), fault.next), (Some(Reason::LengthMismatch), Next::Respond));
        assert!(!connection.is_reusable());
        let mut out = Output::new();
        connection.send_body(text(b"more"), &mut out);
        connection.end(&mut out);
        assert!(out.is_empty(), "nothing follows a broken body");
    }
}

#[test]
fn ending_twice_is_ending_once() {
    let (_, mut connection) = upload(Framing::Chunked, &[b"a"], None);
    let mut out = Output::new();
    connection.end(&mut out);
    assert!(out.is_empty() && connection.fault.is_none());
}

#[test]
fn heads_can_be_used_again() {
    let mut connection = asked(GET);
    for status in [200, 404] {
        connection
            .receive(text(format!("HTTP/1.1 {status} x\r\nX-A: {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()));
        let Ok(Some(Event::Head { head, end: true })) = connection.next_event() else {
            panic!("a head");
        };
        assert_eq!((head.status, head.fields.len()), (status, 1));
        let capacity = head.fields.capacity();
        connection.recycle(head);
        assert_eq!(connection.spare.fields.capacity(), capacity);
        ask(&mut connection, GET);
    }
}

#[test]
fn garbage_never_panics_and_every_cut_agrees() {
    let seeds: Vec<_> = corpus("response").into_iter().map(|(_, _, bytes)| bytes).collect();
    for seed in 0..6000 {
        let mut random = Random::new(seed);
        let input = {
            let at = random.below(seeds.len());
            random.mutated(&seeds[at])
        };
        let method = [GET, b"HEAD"][random.below(2)];
        let then = [Then::Fin, Then::Reset][random.below(2)];
        let whole = answer(method, &[&input], then);
        let pieces = random.cuts(&input);
        assert_eq!(answer(method, &pieces, then), whole, "seed {seed}: {}", input.escape_ascii());
    }
}

#[test]
fn framing_follows_the_head() {
    let mut head = request(b"POST", "/");
    assert_eq!(Framing::of(&head, true), Framing::None);
    assert_eq!(Framing::of(&head, false), Framing::Chunked);
    head.content_length = Some(3);
    assert_eq!(Framing::of(&head, false), Framing::Length(3));
}

#[test]
fn large_heads_are_not_kept() {
    let mut connection = asked(GET);
    let mut large = ResponseHead::new(200);
    large.fields.push(b"x-a", &vec![b'a'; limits::H1_SPARE_HEAD_BYTES]);
    connection.recycle(large);
    assert_eq!(connection.spare.fields.capacity(), 0);
}
