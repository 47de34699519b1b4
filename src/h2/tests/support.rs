//! A client that writes its frames by hand, and readers of what comes back.

use super::super::{ServerConnection, Settings, frames};
use crate::http::{Event, Output, PoolShare, RequestHead, ResponseHead, StreamRef};
use spooky_uring::Chunk;
use std::time::{Duration, Instant};

pub use frames::kind;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const ACK: u8 = 1;

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Got {
    pub fn code(&self) -> u64 {
        let at = if self.kind == kind::GOAWAY { 4 } else { 0 };
        u64::from(u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("a code")))
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).expect("short").to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field block without compression.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            length(text.len(), &mut bytes);
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

fn length(len: usize, bytes: &mut Vec<u8>) {
    if len < 127 {
        bytes.push(len as u8);
        return;
    }
    bytes.push(127);
    let mut rest = len - 127;
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
}

pub const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":authority", "example.org"), (":path", "/")];
pub const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "https"), (":authority", "example.org"), (":path", "/up")];

pub fn headers(stream: u32, fields: &[(&str, &str)], end: bool) -> Vec<u8> {
    frame(kind::HEADERS, END_HEADERS | u8::from(end), stream, &block(fields))
}

pub fn data(stream: u32, bytes: &[u8], end: bool) -> Vec<u8> {
    frame(kind::DATA, u8::from(end), stream, bytes)
}

pub fn reset(stream: u32, code: u64) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &(code as u32).to_be_bytes())
}

pub fn window(stream: u32, bytes: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

/// Cuts bytes into frames.
pub fn cut(mut bytes: &[u8]) -> Vec<Got> {
    let mut frames = Vec::new();
    while let [a, b, c, kind, flags, d, e, f, g, rest @ ..] = bytes {
        let (payload, behind) = rest.split_at(u32::from_be_bytes([0, *a, *b, *c]) as usize);
        let stream = u32::from_be_bytes([*d, *e, *f, *g]);
        frames.push(Got { kind: *kind, flags: *flags, stream, payload: payload.to_vec() });
        bytes = behind;
    }
    assert!(bytes.is_empty(), "half a frame left");
    frames
}

pub fn bytes_of(out: &mut Output) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(chunk) = out.pop() {
        bytes.extend_from_slice(&chunk);
    }
    bytes
}

pub type Told = (StreamRef, Event<Box<RequestHead>>);

/// A server of ours whose client is the test.
pub struct Server {
    pub connection: ServerConnection,
    pub now: Instant,
}

impl Server {
    /// A connection whose client has said hello.
    pub fn new() -> Self {
        Self::with(Settings::SERVER)
    }

    pub fn with(settings: Settings) -> Self {
        let mut server = Self::silent(settings);
        server.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        server.send(&frame(kind::SETTINGS, 0, 0, &[]));
        server.send(&frame(kind::SETTINGS, ACK, 0, &[]));
        assert!(server.events().is_empty());
        server
    }

    /// A connection whose client has said nothing.
    pub fn silent(settings: Settings) -> Self {
        let now = Instant::now();
        Self { connection: ServerConnection::new(settings, PoolShare::unbounded(), now), now }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.connection.receive(Chunk::copy_from(bytes), self.now);
    }

    pub fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    /// Everything that happened.
    pub fn events(&mut self) -> Vec<Told> {
        let mut told = Vec::new();
        while let Some(event) = self.connection.next_event() {
            told.push(event);
        }
        assert!(!self.connection.has_events());
        told
    }

    /// The one thing that happened.
    pub fn event(&mut self) -> Event<Box<RequestHead>> {
        let mut told = self.events();
        assert_eq!(told.len(), 1, "{told:?}");
        told.remove(0).1
    }

    /// The frames that leave, those of the connection itself left out.
    pub fn frames(&mut self) -> Vec<Got> {
        self.all_frames().into_iter().filter(|got| got.stream != 0).collect()
    }

    pub fn all_frames(&mut self) -> Vec<Got> {
        let mut out = Output::new();
        let mut bytes = Vec::new();
        while self.connection.has_output() {
            self.connection.transmit(&mut out);
            bytes.extend(bytes_of(&mut out));
        }
        cut(&bytes)
    }

    /// Which frames leave, without their payload.
    pub fn shapes(&mut self) -> Vec<(u8, u8, u32)> {
        self.frames().iter().map(|got| (got.kind, got.flags, got.stream)).collect()
    }

    /// Answers a stream whole.
    pub fn answer(&mut self, stream: u64, body: &[u8]) {
        let mut head = ResponseHead::new(200);
        head.content_length = Some(body.len() as u64);
        self.connection.send_head(stream, &head, body.is_empty());
        self.connection.send_body(stream, Chunk::copy_from(body));
        self.connection.end(stream);
    }
}

/// A shape of an event, to compare.
pub fn shape<H>(event: &Event<H>) -> String {
    match event {
        Event::Head { end, .. } => format!("head{}", if *end { " end" } else { "" }),
        Event::Refused(refusal) => format!("refused {}", refusal.reason.status()),
        Event::Informational(head) => format!("informational {}", head.status),
        Event::Body(chunk) => format!("body {}", chunk.len()),
        Event::Trailers(fields) => format!("trailers {}", fields.len()),
        Event::End => "end".into(),
        Event::Reset(code) => format!("reset {code}"),
        Event::Stop(code) => format!("stop {code}"),
        Event::Room => "room".into(),
    }
}

pub fn shapes(told: &[Told]) -> Vec<String> {
    told.iter().map(|(stream, event)| format!("{}: {}", stream.stream, shape(event))).collect()
}
