//! HTTP/1.1 from both ends: requests into the server machine, responses and chunked bodies into the client machine.

use crate::pieces;
use spooky::h1::{ClientConnection, Framing, Limits, Next, ServerConnection};
use spooky::http::{
    Event, Fields, Method, Output, RequestHead, RequestLine, ResponseHead, Scheme, WireRequest, WireVersion, normalize,
};
use spooky_uring::Chunk;
use std::fmt::Write;

/// What a connection told, in words; body pieces are joined, since where they are cut means nothing.
#[derive(Default, PartialEq, Debug)]
struct Story {
    text: String,
    in_body: bool,
}

impl Story {
    fn tell(&mut self, what: std::fmt::Arguments<'_>) {
        self.in_body = false;
        writeln!(self.text, "{what}").expect("a String takes everything");
    }

    fn body(&mut self, bytes: &[u8]) {
        if !self.in_body {
            self.text.push_str("body ");
        }
        self.in_body = true;
        write!(self.text, "{}", bytes.escape_ascii()).expect("a String takes everything");
    }

    fn fields(&mut self, what: &str, fields: &Fields) {
        self.tell(format_args!("{what}"));
        for (name, value) in fields.iter() {
            assert!(
                !name.name.is_empty() && !name.name.iter().any(u8::is_ascii_uppercase),
                "a name came out as it went in"
            );
            assert!(!value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)), "a value can split a head");
            self.tell(format_args!("{}: {}", name.name.escape_ascii(), value.escape_ascii()));
        }
    }
}

fn answer(status: u16) -> ResponseHead {
    ResponseHead::new(status)
}

/// A client's bytes, then FIN; every request is answered with an empty 200.
fn serve<'a>(input: impl Iterator<Item = &'a [u8]>) -> Story {
    let mut connection = ServerConnection::new(Scheme::Http, Limits::SERVER);
    let (mut story, mut out) = (Story::default(), Output::new());
    let mut turn = |connection: &mut ServerConnection, story: &mut Story| {
        loop {
            match connection.next_event() {
                Ok(None) => return true,
                Ok(Some(Event::Head { head, end })) => {
                    story.tell(format_args!(
                        "{} {:?} at {} end {end}",
                        head.method.as_str(),
                        head.target.matched(),
                        head.authority.as_str()
                    ));
                    story.fields("request", &head.fields);
                    connection.grant(usize::MAX);
                    connection.recycle(head);
                    if end {
                        connection.send_head(&answer(200), true, &mut out);
                    }
                }
                Ok(Some(Event::Refused(refusal))) => {
                    story.tell(format_args!("refused {}", refusal.reason.token()));
                    connection.send_head(&answer(refusal.status), true, &mut out);
                }
                Ok(Some(Event::Body(chunk))) => story.body(&chunk),
                Ok(Some(Event::Trailers(fields))) => story.fields("trailers", &fields),
                Ok(Some(Event::End)) => {
                    story.tell(format_args!("end"));
                    connection.send_head(&answer(200), true, &mut out);
                }
                Ok(Some(other)) => panic!("{other:?} from a server connection"),
                Err(fault) => {
                    story.tell(format_args!("fault {:?}", fault.reason().map(|reason| reason.token())));
                    if fault.next == Next::Respond {
                        connection.send_head(
                            &answer(fault.reason().expect("a reason to answer with").status()),
                            true,
                            &mut out,
                        );
                    }
                    return false;
                }
            }
            out.clear();
        }
    };
    for piece in input {
        connection.receive(Chunk::copy_from(piece));
        if !turn(&mut connection, &mut story) {
            return story;
        }
    }
    connection.receive_end();
    turn(&mut connection, &mut story);
    story
}

/// Bytes of a client.
pub fn h1_request(data: &[u8]) {
    assert_eq!(serve(std::iter::once(data)), serve(pieces(data)), "another cut, another story");
}

/// A backend's bytes in answer to a request, then FIN.
fn ask<'a>(method: &[u8], input: impl Iterator<Item = &'a [u8]>) -> Story {
    let mut connection = ClientConnection::new(Limits::CLIENT);
    let (mut story, mut out) = (Story::default(), Output::new());
    connection.send_head(&request(method), None, Framing::None, &mut out);
    connection.end(&mut out);
    connection.grant(usize::MAX);
    let turn = |connection: &mut ClientConnection, story: &mut Story| {
        loop {
            match connection.next_event() {
                Ok(None) => return true,
                Ok(Some(Event::Head { head, end })) => {
                    story.tell(format_args!("{} length {:?} end {end}", head.status, head.content_length));
                    story.fields("response", &head.fields);
                    assert!((200..=999).contains(&head.status), "status {}", head.status);
                    connection.recycle(head);
                }
                Ok(Some(Event::Informational(head))) => {
                    story.tell(format_args!("{}", head.status));
                    story.fields("informational", &head.fields);
                    assert!(head.is_informational() && head.status != 101, "status {}", head.status);
                }
                Ok(Some(Event::Body(chunk))) => story.body(&chunk),
                Ok(Some(Event::Trailers(fields))) => story.fields("trailers", &fields),
                Ok(Some(Event::End)) => story.tell(format_args!("end")),
                Ok(Some(other)) => panic!("{other:?} from a client connection"),
                Err(fault) => {
                    story.tell(format_args!("fault {:?}", fault.reason().map(|reason| reason.token())));
                    assert!(!connection.is_reusable(), "a broken connection goes back to the pool");
                    return false;
                }
            }
        }
    };
    for piece in input {
        connection.receive(Chunk::copy_from(piece));
        if !turn(&mut connection, &mut story) {
            return story;
        }
    }
    connection.receive_end();
    turn(&mut connection, &mut story);
    story
}

fn request(method: &[u8]) -> RequestHead {
    let wire = WireRequest {
        scheme: Scheme::Http,
        line: Some(RequestLine { method, target: b"/" }),
        fields: [(b"host".as_slice(), b"fuzz.test".as_slice())],
    };
    normalize::request(WireVersion::H1_1, wire, &normalize::HeadLimits::REQUEST).expect("a good request")
}

/// Bytes of a backend, in answer to GET and to HEAD.
pub fn h1_response(data: &[u8]) {
    for method in [b"GET".as_slice(), b"HEAD"] {
        assert_eq!(ask(method, std::iter::once(data)), ask(method, pieces(data)), "another cut, another story");
    }
    assert_eq!(request(b"GET").method, Method::Get);
}

/// A chunked body behind a good head.
pub fn h1_chunked(data: &[u8]) {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let whole = [HEAD, data].concat();
    assert_eq!(
        ask(b"GET", std::iter::once(whole.as_slice())),
        ask(b"GET", pieces(&whole)),
        "another cut, another story"
    );
}
