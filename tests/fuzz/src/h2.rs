//! An HTTP/2 connection whose other side is a stranger: whatever comes, what it costs is bounded and nothing is kept at the end.

use crate::pieces;
use spooky::h2::{ClientConnection, ServerConnection, Settings};
use spooky::http::{Event, Method, Output, PoolShare, RequestHead, ResponseHead, Target};
use spooky_uring::Chunk;
use std::time::Instant;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a client, behind the preface, to a server that answers every second time.
pub fn h2_server(data: &[u8]) {
    let answer = data.first().is_some_and(|byte| byte % 2 == 0);
    let now = Instant::now();
    let mut connection = ServerConnection::new(Settings::SERVER, PoolShare::unbounded(), now);
    let mut out = Output::new();
    for piece in std::iter::once(PREFACE).chain(pieces(data)) {
        connection.receive(Chunk::copy_from(piece), now);
        while let Some((stream, event)) = connection.next_event() {
            match event {
                Event::Head { end, .. } => {
                    connection.grant(stream.stream, 1 << 20);
                    if end && answer {
                        connection.send_head(stream.stream, &ResponseHead::new(204), true);
                    }
                }
                Event::Refused(refusal) if !refusal.malformed => {
                    connection.send_head(stream.stream, &ResponseHead::new(431), true);
                }
                Event::Body(chunk) => assert!(!chunk.is_empty()),
                Event::End if answer => connection.send_head(stream.stream, &ResponseHead::new(204), true),
                _ => {}
            }
        }
        assert!(connection.streams_open() <= 2 * Settings::SERVER.streams as usize, "streams are bounded");
        connection.transmit(&mut out);
        assert!(out.len() <= 256 << 10, "{} bytes for one read", out.len());
        out.clear();
    }
    connection.receive_end();
    while connection.next_event().is_some() {}
    connection.transmit(&mut out);
    assert_eq!(connection.streams_open(), 0, "a connection that ended keeps no stream");
    assert!(connection.is_closed());
}

/// Bytes of a backend to a client that asked three times.
pub fn h2_client(data: &[u8]) {
    let now = Instant::now();
    let mut connection = ClientConnection::new(Settings::CLIENT, PoolShare::unbounded(), now);
    let head = RequestHead { method: Method::Options, target: Target::Asterisk, ..RequestHead::default() };
    for _ in 0..3 {
        connection.open(&head, "fuzz.test", true).expect("three fit");
    }
    let mut out = Output::new();
    for piece in pieces(data) {
        connection.transmit(&mut out);
        assert!(out.len() <= 256 << 10, "{} bytes for one read", out.len());
        out.clear();
        connection.receive(Chunk::copy_from(piece), now);
        while let Some((stream, event)) = connection.next_event() {
            match event {
                Event::Head { end: false, .. } => connection.grant(stream.stream, 1 << 20),
                Event::Body(chunk) => assert!(!chunk.is_empty()),
                _ => {}
            }
        }
        assert!(connection.streams_open() <= 3);
    }
    connection.receive_end();
    while connection.next_event().is_some() {}
    assert_eq!(connection.streams_open(), 0, "every exchange ends with its connection");
}
