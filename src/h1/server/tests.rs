use super::*;
use crate::h1::testing::{Random, Story, corpus, every_cut, sent};
use crate::http::{Known, Protocol};
use crate::limits;

fn accepted() -> ServerConnection {
    ServerConnection::new(Scheme::Http, Limits::SERVER)
}

fn text(bytes: &[u8]) -> Chunk {
    Chunk::copy_from(bytes)
}

fn answer(status: u16, length: Option<u64>) -> ResponseHead {
    ResponseHead { content_length: length, ..ResponseHead::new(status) }
}

/// A request head in words.
fn told(head: &RequestHead, end: bool) -> String {
    format!(
        "{} {} at {}{}{}{}",
        head.method.as_str(),
        head.target.path().map_or("*", |path| path.forwarded()),
        head.authority.as_str(),
        head.content_length.map_or(String::new(), |n| format!(" length {n}")),
        if head.expect_continue { " expects" } else { "" },
        if end { " end" } else { "" },
    )
}

/// Tells every event that is to be had, and answers each request with an empty response once it is whole.
fn serve(connection: &mut ServerConnection, story: &mut Story, out: &mut Output) {
    loop {
        connection.check_invariants();
        match connection.next_event() {
            Ok(None) => return,
            Ok(Some(Event::Head { head, end })) => {
                story.tell(told(&head, end));
                connection.grant(usize::MAX);
                connection.recycle(head);
                if end {
                    connection.send_head(&answer(200, None), true, out);
                }
            }
            Ok(Some(Event::Refused(refusal))) => {
                story.tell(format!("refused {} {}", refusal.reason.token(), refusal.status));
                connection.send_head(&answer(refusal.status, None), true, out);
            }
            Ok(Some(Event::Body(chunk))) => story.body(&chunk),
            Ok(Some(Event::Trailers(fields))) => story.tell(format!("trailers{}", Story::fields(&fields))),
            Ok(Some(Event::End)) => {
                story.tell("end");
                connection.send_head(&answer(200, None), true, out);
            }
            Ok(Some(other)) => panic!("{other:?} from a server connection"),
            Err(fault) => {
                story.tell(format!("fault {} {:?}", fault.reason().unwrap().token(), fault.next));
                assert_eq!(connection.next_event().unwrap_err(), fault, "a fault is for ever");
                if fault.next == Next::Respond {
                    connection.send_head(&answer(fault.reason().unwrap().status(), None), true, out);
                }
                return;
            }
        }
    }
}

/// The events, the responses (status lines and whether they close), and what becomes of the connection.
fn talk(pieces: &[&[u8]], fin: bool) -> (Vec<String>, Vec<String>, Closing) {
    let mut connection = accepted();
    let (mut story, mut out) = (Story::default(), Output::new());
    for piece in pieces {
        connection.receive(text(piece));
        if connection.fault.is_none() {
            serve(&mut connection, &mut story, &mut out);
        }
    }
    if fin {
        connection.receive_end();
        if connection.fault.is_none() {
            serve(&mut connection, &mut story, &mut out);
        }
    }
    let responses = sent(&mut out)
        .split_terminator("\r\n\r\n")
        .map(|head| {
            let close = if head.contains("connection: close") { " close" } else { "" };
            format!("{}{close}", &head[9..12])
        })
        .collect();
    (story.lines, responses, connection.closing())
}

fn talks(input: &str) -> (Vec<String>, Vec<String>, Closing) {
    every_cut(input.as_bytes(), |pieces| talk(pieces, false))
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST /p HTTP/1.1\r\nHost: a\r\n";

#[test]
fn the_corpus_is_told_as_its_directories_say() {
    for (class, name, bytes) in corpus("request") {
        let (lines, responses, _) = every_cut(&bytes, |pieces| talk(pieces, true));
        let last = lines.last().expect("a story");
        let said = match last.split_once(' ') {
            Some(("fault" | "refused", rest)) => rest.split(' ').next().unwrap(),
            _ => "whole",
        };
        assert_eq!(said, class, "{name}: {lines:?}");
        // Whoever is refused is answered, and the connection does not go on.
        if !matches!(class.as_str(), "whole" | "client_gone") {
            let last = responses.last().expect("a response");
            assert!(last.ends_with(" close") && !last.starts_with('2'), "{name}: {responses:?}");
        }
    }
}

#[test]
fn pipelined_requests_are_answered_one_after_another() {
    let input = format!(
        "{GET}{POST}Content-Length: 5\r\n\r\nhello{POST}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-A: b\r\n\r\n{GET}"
    );
    let (lines, responses, closing) = talks(&input);
    assert_eq!(
        lines,
        [
            "GET / at a end",
            "POST /p at a length 5",
            "body hello",
            "end",
            "POST /p at a",
            "body hi",
            "trailers x-a=b",
            "end",
            "GET / at a end",
        ]
    );
    assert_eq!(responses, ["200"; 4]);
    assert_eq!(closing, Closing::No);
}

#[test]
fn the_second_request_waits_for_the_first_response() {
    let mut connection = accepted();
    let mut out = Output::new();
    connection.receive(text(format!("{GET}{GET}").as_bytes()));
    assert!(matches!(connection.next_event(), Ok(Some(Event::Head { .. }))));
    assert!(matches!(connection.next_event(), Ok(None)));
    connection.send_head(&answer(200, Some(2)), false, &mut out);
    assert!(matches!(connection.next_event(), Ok(None)));
    connection.send_body(text(b"ok"), &mut out);
    // The length is reached, but the response is over only when it is ended.
    assert!(matches!(connection.next_event(), Ok(None)));
    connection.end(&mut out);
    assert!(matches!(connection.next_event(), Ok(Some(Event::Head { .. }))));
}

#[test]
fn pipelining_is_bounded() {
    let mut connection = accepted();
    connection.receive(text(GET.as_bytes()));
    assert!(matches!(connection.next_event(), Ok(Some(Event::Head { .. }))));
    let many = GET.repeat(400);
    let mut waiting = 0;
    while connection.wants_read() {
        connection.receive(text(many.as_bytes()));
        waiting += many.len();
    }
    assert!(waiting >= limits::H1_HELD_BYTES);
    assert!(waiting < limits::H1_HELD_BYTES + many.len());
    let mut out = Output::new();
    connection.send_head(&answer(200, None), true, &mut out);
    let mut story = Story::default();
    serve(&mut connection, &mut story, &mut out);
    assert_eq!(story.lines.len(), waiting / GET.len());
    assert!(connection.wants_read() && connection.is_idle());
}

#[test]
fn persistence_follows_version_and_connection() {
    for (head, responses, closing) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "200", Closing::No),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "200 close", Closing::Now),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n", "200 close", Closing::Now),
        ("GET / HTTP/1.0\r\n\r\n", "200 close", Closing::Now),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "200", Closing::No),
    ] {
        let (_, told, closes) = talks(head);
        assert_eq!((told, closes), (vec![responses.to_owned()], closing), "{head}");
    }
}

#[test]
fn what_follows_a_closing_request_is_dropped_and_lingered_for() {
    let input = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n{GET}");
    let (lines, responses, closing) = talk(&[input.as_bytes()], false);
    assert_eq!((lines.len(), responses, closing), (1, vec!["200 close".to_owned()], Closing::Linger));
    let (.., closing) = talk(&[input.as_bytes()], true);
    assert_eq!(closing, Closing::Now, "after FIN nothing is on its way");
}

#[test]
fn http_1_0_gets_no_chunks_and_no_informational_heads() {
    let mut connection = accepted();
    let mut out = Output::new();
    connection.receive(text(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    assert!(matches!(connection.next_event(), Ok(Some(Event::Head { end: true, .. }))));
    connection.send_informational(&answer(103, None), &mut out);
    connection.send_head(&answer(200, None), false, &mut out);
    connection.send_body(text(b"all of it"), &mut out);
    let mut trailers = Fields::new();
    trailers.push(b"x-a", b"b");
    connection.send_trailers(&trailers, &mut out);
    assert_eq!(sent(&mut out), "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nall of it");
    assert_eq!(connection.closing(), Closing::Now);

    let mut connection = accepted();
    connection.receive(text(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    assert!(matches!(connection.next_event(), Ok(Some(Event::Head { .. }))));
    connection.send_head(&answer(200, Some(0)), true, &mut out);
    assert_eq!(sent(&mut out), "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n");
}

/// What is written in answer to `request` with this head and these pieces.
fn written(request: &str, head: &ResponseHead, end: bool, pieces: &[&[u8]]) -> (String, ServerConnection) {
    let mut connection = accepted();
    let mut out = Output::new();
    connection.receive(text(request.as_bytes()));
    assert!(matches!(connection.next_event(), Ok(Some(Event::Head { .. }))));
    connection.send_head(head, end, &mut out);
    for piece in pieces {
        connection.send_body(text(piece), &mut out);
    }
    if !end {
        connection.end(&mut out);
    }
    (sent(&mut out), connection)
}

#[test]
fn responses_are_framed() {
    let write = |head: &ResponseHead, end, pieces: &[&[u8]]| written(GET, head, end, pieces).0;
    assert_eq!(
        write(&answer(200, Some(5)), false, &[b"hel", b"lo"]),
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
    );
    assert_eq!(
        write(&answer(200, None), false, &[b"hello"]),
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    );
    assert_eq!(write(&answer(404, None), true, &[]), "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(write(&answer(299, Some(0)), false, &[]), "HTTP/1.1 299 \r\ncontent-length: 0\r\n\r\n");
    assert_eq!(write(&answer(204, None), true, &[]), "HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(write(&answer(204, Some(0)), true, &[]), "HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(write(&answer(304, Some(5)), true, &[]), "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n");
}

#[test]
fn a_response_to_head_has_the_head_only() {
    let head = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
    let (text, mut connection) = written(head, &answer(200, Some(5)), false, &[b"hello"]);
    assert_eq!(text, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
    assert_eq!(connection.closing(), Closing::No);
    // And the next one has its body again.
    let mut out = Output::new();
    connection.receive(super::tests::text(GET.as_bytes()));
    assert!(matches!(connection.next_event(), Ok(Some(Event::Head { .. }))));
    connection.send_head(&answer(200, Some(2)), false, &mut out);
    connection.send_body(super::tests::text(b"ok"), &mut out);
    assert!(sent(&mut out).ends_with("ok"));
    assert_eq!(written(head, &answer(200, None), true, &[]).0, "HTTP/1.1 200 OK\r\n\r\n");
    let refused = "HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n";
    let mut connection = accepted();
    connection.receive(super::tests::text(refused.as_bytes()));
    assert!(matches!(connection.next_event(), Ok(Some(Event::Refused(_)))));
    connection.send_head(&answer(400, Some(3)), false, &mut out);
    out.clear();
    connection.send_body(super::tests::text(b"bad"), &mut out);
    assert!(out.is_empty());
}

#[test]
fn fields_of_the_connection_are_never_taken_from_a_head() {
    let mut head = answer(200, Some(0));
    for (name, value) in [
        (&b"connection"[..], &b"close"[..]),
        (b"keep-alive", b"timeout=5"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"content-length", b"7"),
        (b"X-Kept", b"1"),
    ] {
        head.fields.push(name, value);
    }
    assert_eq!(written(GET, &head, true, &[]).0, "HTTP/1.1 200 OK\r\nx-kept: 1\r\ncontent-length: 0\r\n\r\n");
}

#[test]
fn a_response_that_breaks_its_length_resets_the_connection() {
    for pieces in [&[&b"hello!"[..]][..], &[b"hell"], &[b"hello", b"!"]] {
        let (text, mut connection) = written(GET, &answer(200, Some(5)), false, pieces);
        assert!(!text.contains('!'));
        let fault = connection.next_event().unwrap_err();
        assert_eq!((fault.reason(), fault.next), (Some(Reason::Internal), Next::Reset));
        assert!(connection.fault.is_some());
    }
    let (_, mut connection) = written(GET, &answer(200, Some(5)), true, &[]);
    assert!(connection.next_event().is_err());
}

#[test]
fn a_client_that_waits_is_told_to_continue() {
    let mut connection = accepted();
    let (mut story, mut out) = (Story::default(), Output::new());
    connection.receive(text(format!("{POST}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n").as_bytes()));
    serve(&mut connection, &mut story, &mut out);
    connection.send_informational(&answer(100, None), &mut out);
    assert_eq!(sent(&mut out), "HTTP/1.1 100 Continue\r\n\r\n");
    connection.receive(text(b"hi"));
    serve(&mut connection, &mut story, &mut out);
    assert_eq!(story.lines, ["POST /p at a length 2 expects", "body hi", "end"]);
    assert_eq!(connection.closing(), Closing::No);
}

#[test]
fn a_client_that_waits_and_is_answered_instead_ends_the_connection() {
    let mut connection = accepted();
    let mut out = Output::new();
    connection.receive(text(format!("{POST}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n").as_bytes()));
    assert!(matches!(connection.next_event(), Ok(Some(Event::Head { end: false, .. }))));
    connection.send_head(&answer(200, Some(1)), false, &mut out);
    connection.send_body(text(b"x"), &mut out);
    connection.end(&mut out);
    assert!(sent(&mut out).contains("connection: close\r\n"));
    assert_eq!(connection.closing(), Closing::Linger);
}

#[test]
fn an_early_answer_lingers_for_the_rest_of_the_upload() {
    let mut connection = accepted();
    let mut out = Output::new();
    connection.receive(text(format!("{POST}Content-Length: 100000\r\n\r\nabc").as_bytes()));
    assert!(matches!(connection.next_event(), Ok(Some(Event::Head { end: false, .. }))));
    connection.send_head(&answer(413, None), true, &mut out);
    assert!(sent(&mut out).contains("connection: close\r\n"));
    assert_eq!(connection.closing(), Closing::Linger);
    // What still comes is dropped and read on.
    connection.receive(Chunk::from_vec(vec![0; 200_000]));
    assert!(connection.wants_read());
    assert!(matches!(connection.next_event(), Ok(None)));
    connection.receive_end();
    assert_eq!(connection.closing(), Closing::Now);
}

#[test]
fn an_answer_may_begin_before_the_request_ends() {
    let mut connection = accepted();
    let mut out = Output::new();
    connection.receive(text(format!("{POST}Content-Length: 4\r\n\r\nec").as_bytes()));
    assert!(matches!(connection.next_event(), Ok(Some(Event::Head { end: false, .. }))));
    connection.grant(100);
    connection.send_head(&answer(200, Some(4)), false, &mut out);
    assert!(!sent(&mut out).contains("close"));
    let echo = |connection: &mut ServerConnection, out: &mut Output| {
        while let Ok(Some(event)) = connection.next_event() {
            if let Event::Body(chunk) = event {
                connection.send_body(chunk, out);
            }
        }
    };
    echo(&mut connection, &mut out);
    connection.receive(text(b"ho"));
    echo(&mut connection, &mut out);
    connection.end(&mut out);
    assert_eq!(sent(&mut out), "echo");
    assert_eq!(connection.closing(), Closing::No);
}

#[test]
fn a_broken_body_can_be_answered_until_the_response_has_begun() {
    let input = format!("{POST}Transfer-Encoding: chunked\r\n\r\nzz\r\n");
    let (lines, responses, closing) = talks(&input);
    assert_eq!(lines.last().unwrap(), "fault body_framing Respond");
    assert_eq!((responses, closing), (vec!["400 close".to_owned()], Closing::Linger));

    let mut connection = accepted();
    connection.receive(text(format!("{POST}Transfer-Encoding: chunked\r\n\r\n").as_bytes()));
    assert!(matches!(connection.next_event(), Ok(Some(Event::Head { .. }))));
    connection.send_head(&answer(200, None), false, &mut Output::new());
    connection.receive(text(b"zz\r\n"));
    assert_eq!(connection.next_event().unwrap_err().next, Next::Reset);
}

#[test]
fn request_bodies_wait_for_credit() {
    let mut connection = accepted();
    connection.receive(text(format!("{POST}Content-Length: 6\r\n\r\nabcdef").as_bytes()));
    assert!(matches!(connection.next_event(), Ok(Some(Event::Head { .. }))));
    assert!(matches!(connection.next_event(), Ok(None)));
    connection.grant(4);
    assert!(matches!(connection.next_event(), Ok(Some(Event::Body(chunk))) if &*chunk == b"abcd"));
    assert!(matches!(connection.next_event(), Ok(None)));
    // A client that half-closes behind its request still gets all of it delivered.
    connection.receive_end();
    assert!(matches!(connection.next_event(), Ok(None)));
    connection.grant(4);
    assert!(matches!(connection.next_event(), Ok(Some(Event::Body(chunk))) if &*chunk == b"ef"));
    assert!(matches!(connection.next_event(), Ok(Some(Event::End))));
    let mut out = Output::new();
    connection.send_head(&answer(200, None), true, &mut out);
    assert!(!out.is_empty());
    assert_eq!(connection.closing(), Closing::Now);
}

#[test]
fn heads_beyond_their_bounds_are_told_apart() {
    let bytes = Limits::SERVER.head.bytes;
    let long = "x".repeat(bytes);
    for (input, refused) in [
        (format!("GET /{long} HTTP/1.1\r\n"), "refused target_too_long 414"),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", &long[..bytes * 3 / 4]), "refused target_too_long 414"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {long}\r\n\r\n"), "refused head_too_large 431"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(200)), "refused too_many_fields 431"),
    ] {
        for cut in [1, 100, input.len() / 2, input.len()] {
            let (front, back) = input.as_bytes().split_at(cut);
            let (lines, responses, closing) = talk(&[front, back], false);
            assert_eq!(lines, [refused]);
            assert_eq!((responses.len(), closing), (1, Closing::Linger));
        }
    }
}

#[test]
fn draining_lets_the_present_request_be_the_last() {
    let mut connection = accepted();
    connection.drain();
    assert_eq!(connection.closing(), Closing::Now);

    let mut connection = accepted();
    let mut out = Output::new();
    connection.receive(text(GET.as_bytes()));
    assert!(matches!(connection.next_event(), Ok(Some(Event::Head { .. }))));
    connection.drain();
    assert_eq!(connection.closing(), Closing::No);
    connection.send_head(&answer(200, None), true, &mut out);
    assert!(sent(&mut out).contains("connection: close\r\n"));
    assert_eq!(connection.closing(), Closing::Linger);

    // A head that has begun to arrive is still taken.
    let mut connection = accepted();
    connection.receive(text(&GET.as_bytes()[..10]));
    assert!(matches!(connection.next_event(), Ok(None)));
    assert!(connection.is_within_head());
    connection.drain();
    connection.receive(text(&GET.as_bytes()[10..]));
    assert!(matches!(connection.next_event(), Ok(Some(Event::Head { .. }))));
    connection.send_head(&answer(200, None), true, &mut out);
    assert_eq!(connection.closing(), Closing::Linger);
}

#[test]
fn an_idle_connection_that_ends_is_closed_without_a_word() {
    let (lines, responses, closing) = talk(&[], true);
    assert_eq!((lines.len(), responses.len(), closing), (0, 0, Closing::Now));
    let (lines, _, closing) = talk(&[GET.as_bytes()], true);
    assert_eq!((lines.len(), closing), (1, Closing::Now));
}

#[test]
fn the_scheme_of_the_connection_is_the_request_s() {
    let mut connection = ServerConnection::new(Scheme::Https, Limits::SERVER);
    connection.receive(text(b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n"));
    let Ok(Some(Event::Refused(refusal))) = connection.next_event() else {
        panic!("a refusal");
    };
    assert_eq!(refusal.reason, Reason::Scheme);
}

#[test]
fn heads_can_be_used_again() {
    let mut connection = accepted();
    for _ in 0..3 {
        connection.receive(text(GET.as_bytes()));
        let Ok(Some(Event::Head { head, .. })) = connection.next_event() else {
            panic!("a head");
        };
        assert!(!head.fields.contains(Known::Host));
        let place: *const RequestHead = &*head;
        connection.recycle(head);
        assert!(std::ptr::eq(place, &**connection.spare.as_ref().unwrap()));
        connection.send_head(&answer(200, None), true, &mut Output::new());
    }
}

#[test]
fn garbage_never_panics_and_every_cut_agrees() {
    let seeds: Vec<_> = corpus("request").into_iter().map(|(_, _, bytes)| bytes).collect();
    for seed in 0..6000 {
        let mut random = Random::new(seed);
        let at = random.below(seeds.len());
        let input = random.mutated(&seeds[at]);
        let (lines, responses, _) = talk(&[&input], true);
        let pieces = random.cuts(&input);
        let (again, responses_again, _) = talk(&pieces, true);
        assert_eq!((again, responses_again), (lines, responses), "seed {seed}: {}", input.escape_ascii());
    }
}

#[test]
fn small_pieces_pause_reading_by_their_number() {
    let mut connection = accepted();
    connection.receive(text(GET.as_bytes()));
    assert!(matches!(connection.next_event(), Ok(Some(Event::Head { .. }))));
    for _ in 0..limits::H1_HELD_CHUNKS {
        assert!(connection.wants_read());
        connection.receive(text(b"G"));
    }
    assert!(!connection.wants_read());
}

const ASKING: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A connection that asked for a tunnel, with what came behind the head.
fn asking(behind: &str) -> ServerConnection {
    let mut connection = accepted();
    connection.receive(text(format!("{ASKING}{behind}").as_bytes()));
    let Ok(Some(Event::Head { head, end: false })) = connection.next_event() else {
        panic!("a head with more to come")
    };
    assert_eq!(head.protocol, Some(Protocol::WebSocket { key: Some(Key::of(b"the sample nonce")) }));
    connection
}

fn opened(behind: &str) -> (ServerConnection, Output) {
    let (mut connection, mut out) = (asking(behind), Output::new());
    let mut head = answer(200, None);
    head.fields.push(b"sec-websocket-protocol", b"chat");
    head.fields.push(b"connection", b"close");
    connection.open_tunnel(&head, &Key::of(b"the sample nonce"), &mut out);
    (connection, out)
}

#[test]
fn a_tunnel_opens_with_the_answer_to_the_client_s_own_key() {
    let (connection, mut out) = opened("");
    assert_eq!(
        sent(&mut out),
        "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-protocol: chat\r\nconnection: upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    );
    assert!(connection.is_tunnel() && !connection.ends_sending());
    assert_eq!(connection.closing(), Closing::No);
}

#[test]
fn what_the_client_sent_early_waits_until_the_tunnel_is_open() {
    let mut connection = asking("GET /smuggled HTTP/1.1\r\n\r\n");
    assert!(matches!(connection.next_event(), Ok(None)));
    connection.open_tunnel(&answer(200, None), &Key::of(b"the sample nonce"), &mut Output::new());
    connection.grant(100);
    let Ok(Some(Event::Body(body))) = connection.next_event() else { panic!("its bytes") };
    assert_eq!(&*body, b"GET /smuggled HTTP/1.1\r\n\r\n");
    connection.check_invariants();
}

#[test]
fn each_direction_of_a_tunnel_ends_by_itself() {
    // The client first.
    let (mut connection, mut out) = opened("question");
    sent(&mut out);
    connection.grant(100);
    connection.receive_end();
    assert!(matches!(connection.next_event(), Ok(Some(Event::Body(_)))));
    assert!(matches!(connection.next_event(), Ok(Some(Event::End))));
    assert!(matches!(connection.next_event(), Ok(None)));
    connection.check_invariants();
    assert!(!connection.ends_sending());
    connection.send_body(text(b"answer"), &mut out);
    connection.end(&mut out);
    assert_eq!(sent(&mut out), "answer");
    assert!(connection.ends_sending());
    assert_eq!(connection.closing(), Closing::Now);
    connection.check_invariants();

    // We first.
    let (mut connection, mut out) = opened("");
    connection.end(&mut out);
    assert!(connection.ends_sending());
    assert_eq!(connection.closing(), Closing::No, "the client may go on");
    connection.receive(text(b"still here"));
    connection.grant(100);
    assert!(matches!(connection.next_event(), Ok(Some(Event::Body(_)))));
    connection.receive_end();
    assert!(matches!(connection.next_event(), Ok(Some(Event::End))));
    assert_eq!(connection.closing(), Closing::Now);
    connection.check_invariants();
}

#[test]
fn a_request_for_a_tunnel_that_is_answered_otherwise_ends_the_connection() {
    for status in [200, 302, 403] {
        let (mut connection, mut out) = (asking("not a request"), Output::new());
        connection.send_head(&answer(status, Some(2)), false, &mut out);
        connection.send_body(text(b"no"), &mut out);
        connection.end(&mut out);
        let text = sent(&mut out);
        assert!(text.contains("connection: close\r\n") && text.ends_with("no"), "{text}");
        assert_eq!(connection.closing(), Closing::Linger);
        assert!(matches!(connection.next_event(), Ok(None)), "nothing behind it is read");
        connection.check_invariants();
    }
}

#[test]
fn a_client_that_leaves_before_the_tunnel_opens_is_gone() {
    let mut connection = asking("");
    connection.receive_end();
    let fault = connection.next_event().unwrap_err();
    assert_eq!((fault.reason(), fault.next), (Some(Reason::ClientGone), Next::Close));
}
