//! A scripted HTTP/1.1 origin: what it answers is a function of the request, and it remembers all it saw.

use crate::pattern::{Pattern, spoil};
use spooky::http::websocket::Key;
use spooky_uring::simulation::{Connect, Line, Origin, Session};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Bytes written ahead of the machine: little, so that what a slow reader holds up stays here.
const PIECE: usize = 16 << 10;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub connection: usize,
    pub method: String,
    pub target: String,
    pub head: String,
    /// Body bytes so far.
    pub body: u64,
    /// All of them were those that were sent.
    pub intact: bool,
    /// The body's end was seen.
    pub complete: bool,
}

/// How a response's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length,
    Chunked,
    Close,
    /// There is no body but a tunnel, which was asked for; closed behind the client's end.
    Tunnel,
}

/// What follows the last byte that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Keep,
    Close,
    Reset,
    /// Nothing more, although something is owed.
    Silence,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    /// Further field lines, each with CRLF.
    pub fields: String,
    pub length: u64,
    pub framing: Framing,
    /// Body bytes really sent; the rest is owed.
    pub sent: u64,
    pub then: Then,
    /// Before the request's body has come.
    pub early: bool,
    pub after: Duration,
    /// Body pieces of this size with this pause behind each; else as fast as it goes.
    pub dribbles: Option<(u64, Duration)>,
    /// Raw bytes behind the response.
    pub behind: &'static [u8],
    /// A byte of the body that is not what it should be.
    pub wrong_at: Option<u64>,
}

impl Reply {
    /// 200 with that many bytes.
    pub fn ok(length: u64) -> Self {
        Self {
            status: 200,
            fields: String::new(),
            length,
            framing: Framing::Length,
            sent: length,
            then: Then::Keep,
            early: false,
            after: Duration::ZERO,
            dribbles: None,
            behind: b"",
            wrong_at: None,
        }
    }

    /// The same with its body delimited so; a body that ends with the connection closes it.
    pub fn framed(self, framing: Framing) -> Self {
        let then = if matches!(framing, Framing::Close | Framing::Tunnel) { Then::Close } else { self.then };
        Self { framing, then, ..self }
    }
}

/// What the origin does about a request.
#[derive(Clone, Debug)]
pub enum Reaction {
    Answer(Reply),
    Silence,
    Reset,
}

type Script = Box<dyn Fn(&Seen) -> Reaction>;

/// What an origin saw and did.
#[derive(Default)]
pub struct Log {
    pub requests: RefCell<Vec<Seen>>,
    pub connections: Cell<usize>,
    /// Connections that the proxy closed: which, when, and whether with RST.
    pub closed: RefCell<Vec<(usize, Instant, bool)>>,
    /// Body bytes handed to the network, all responses together.
    pub written: Cell<u64>,
}

/// How an origin treats connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Open,
    Refused,
    Silent,
}

/// One address.
pub struct Scripted {
    script: Rc<Script>,
    log: Rc<Log>,
    door: Rc<Cell<Door>>,
}

impl Scripted {
    pub fn new(script: impl Fn(&Seen) -> Reaction + 'static) -> (Self, Rc<Log>, Rc<Cell<Door>>) {
        let (log, door) = (Rc::<Log>::default(), Rc::new(Cell::new(Door::Open)));
        let script: Rc<Script> = Rc::new(Box::new(script));
        (Self { script, log: Rc::clone(&log), door: Rc::clone(&door) }, log, door)
    }
}

impl Origin for Scripted {
    fn connect(&mut self, _now: Instant) -> Connect {
        match self.door.get() {
            Door::Refused => return Connect::Refuse(111),
            Door::Silent => return Connect::Silent,
            Door::Open => {}
        }
        let number = self.log.connections.get();
        self.log.connections.set(number + 1);
        Connect::Accept(Box::new(Server {
            number,
            script: Rc::clone(&self.script),
            log: Rc::clone(&self.log),
            input: VecDeque::new(),
            reading: Reading::Head,
            answering: VecDeque::new(),
            at: None,
            key: None,
            finished: false,
        }))
    }
}

/// What of a request is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Head,
    Length(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    /// Everything is of the tunnel.
    Tunnel,
}

/// An answer under way.
struct Answer {
    reply: Reply,
    pattern: Pattern,
    /// Body bytes written; `None`: the head is not.
    written: Option<u64>,
}

struct Server {
    number: usize,
    script: Rc<Script>,
    log: Rc<Log>,
    input: VecDeque<u8>,
    reading: Reading,
    answering: VecDeque<Answer>,
    /// When the first answer may begin.
    at: Option<Instant>,
    /// Of a request for a tunnel.
    key: Option<Key>,
    /// The other side has ended its direction.
    finished: bool,
}

/// The number of a body's pattern, as the test's client writes it in every request.
fn pattern_of(head: &str, name: &str) -> u64 {
    let line = head.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

impl Server {
    fn with_last<T>(&self, act: impl FnOnce(&mut Seen) -> T) -> T {
        let mut requests = self.log.requests.borrow_mut();
        let last = requests.iter_mut().rev().find(|seen| seen.connection == self.number);
        act(last.expect("a body has a head"))
    }

    fn take_line(&mut self) -> Option<String> {
        let end = self.input.iter().position(|&byte| byte == b'\n')?;
        let line: Vec<u8> = self.input.drain(..=end).collect();
        Some(String::from_utf8(line).expect("requests are text").trim_end().to_owned())
    }

    /// Takes one step of reading; false: more bytes are needed.
    fn read(&mut self, line: &mut Line) -> bool {
        match self.reading {
            Reading::Head => {
                let bytes = self.input.make_contiguous();
                let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
                    return false;
                };
                let head: Vec<u8> = self.input.drain(..end + 4).collect();
                self.read_head(String::from_utf8(head).expect("heads are text"), line);
            }
            Reading::Length(0) => self.complete(line),
            Reading::Length(left) | Reading::Chunk(left) => {
                let len = self.input.len().min(left as usize);
                if len == 0 {
                    return false;
                }
                let bytes: Vec<u8> = self.input.drain(..len).collect();
                self.with_last(|seen| {
                    let pattern = Pattern::of(pattern_of(&seen.head, "x-pattern:"));
                    seen.intact &= pattern.matches(seen.body, &bytes);
                    seen.body += bytes.len() as u64;
                });
                let left = left - len as u64;
                self.reading = match self.reading {
                    Reading::Chunk(_) if left == 0 => Reading::ChunkEnd,
                    Reading::Chunk(_) => Reading::Chunk(left),
                    _ => Reading::Length(left),
                };
            }
            Reading::Tunnel => {
                let bytes: Vec<u8> = self.input.drain(..).collect();
                self.with_last(|seen| {
                    let pattern = Pattern::of(pattern_of(&seen.head, "x-pattern:"));
                    seen.intact &= pattern.matches(seen.body, &bytes);
                    seen.body += bytes.len() as u64;
                });
                return false;
            }
            Reading::ChunkSize => {
                let Some(size) = self.take_line() else { return false };
                let size = u64::from_str_radix(&size, 16).expect("chunk sizes are hexadecimal");
                self.reading = if size == 0 { Reading::Trailers } else { Reading::Chunk(size) };
            }
            Reading::ChunkEnd => {
                let Some(empty) = self.take_line() else { return false };
                assert_eq!(empty, "", "a chunk ends with CRLF");
                self.reading = Reading::ChunkSize;
            }
            Reading::Trailers => {
                let Some(field) = self.take_line() else { return false };
                if field.is_empty() {
                    self.complete(line);
                }
            }
        }
        true
    }

    fn read_head(&mut self, head: String, line: &mut Line) {
        let lower = head.to_ascii_lowercase();
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let seen = Seen {
            connection: self.number,
            method: method.to_owned(),
            target: target.to_owned(),
            head: lower.clone(),
            body: 0,
            intact: true,
            complete: false,
        };
        self.log.requests.borrow_mut().push(seen);
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
        let chunked = lower.contains("transfer-encoding: chunked");
        assert!(!(chunked && length.is_some()), "two framings:\n{head}");
        let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: "));
        self.key = key.map(|key| Key::parse(key.as_bytes()).expect("a key"));
        self.reading = match length {
            _ if self.key.is_some() => Reading::Tunnel,
            Some(length) => Reading::Length(length.trim().parse().expect("a length is a number")),
            None if chunked => Reading::ChunkSize,
            None => Reading::Length(0),
        };
        self.react(true, line);
    }

    fn complete(&mut self, line: &mut Line) {
        self.with_last(|seen| seen.complete = true);
        self.reading = Reading::Head;
        self.react(false, line);
    }

    /// Answers, if this is the moment for it.
    fn react(&mut self, early: bool, line: &mut Line) {
        let seen = self.with_last(|seen| seen.clone());
        match (self.script)(&seen) {
            Reaction::Answer(reply) if reply.early == early => {
                self.at = Some(line.now() + reply.after);
                let pattern = Pattern::of(pattern_of(&seen.head, "x-answer:"));
                let head_only = seen.method == "HEAD";
                let reply = if head_only { Reply { sent: 0, ..reply } } else { reply };
                self.answering.push_back(Answer { reply, pattern, written: None });
                self.wake(line);
            }
            Reaction::Reset if !early => line.reset(),
            _ => {}
        }
    }

    /// Writes what may be written now: a piece, then waits to be drained.
    fn write(&mut self, line: &mut Line) {
        let Some(answer) = self.answering.front_mut() else {
            return;
        };
        let reply = &answer.reply;
        let Some(written) = answer.written else {
            let mut head = format!("HTTP/1.1 {} Whatever\r\n{}", reply.status, reply.fields);
            match reply.framing {
                Framing::Length => head += &format!("Content-Length: {}\r\n", reply.length),
                Framing::Chunked => head += "Transfer-Encoding: chunked\r\n",
                Framing::Close => head += "Connection: close\r\n",
                Framing::Tunnel => {
                    let accept = self.key.expect("a tunnel was asked for").accept();
                    let accept = str::from_utf8(&accept).expect("base64");
                    head += "Connection: upgrade\r\nUpgrade: websocket\r\n";
                    head += &format!("Sec-WebSocket-Accept: {accept}\r\n");
                }
            }
            line.write(head + "\r\n");
            answer.written = Some(0);
            return;
        };
        if written < reply.sent {
            let piece = reply.dribbles.map_or(PIECE as u64, |(piece, _)| piece);
            let len = (reply.sent - written).min(piece) as usize;
            let mut bytes = answer.pattern.bytes(written, len);
            spoil(&mut bytes, written, reply.wrong_at);
            if reply.framing == Framing::Chunked {
                line.write(format!("{len:x}\r\n"));
                line.write(bytes);
                line.write("\r\n");
            } else {
                line.write(bytes);
            }
            answer.written = Some(written + len as u64);
            self.log.written.set(self.log.written.get() + len as u64);
            if let Some((_, pause)) = reply.dribbles {
                self.at = Some(line.now() + pause);
                line.wake_at(line.now() + pause);
            }
            return;
        }
        if reply.framing == Framing::Tunnel && reply.then == Then::Close && !self.finished {
            return;
        }
        if reply.framing == Framing::Chunked && reply.sent == reply.length {
            line.write("0\r\n\r\n");
        }
        line.write(reply.behind);
        let then = reply.then;
        self.answering.pop_front();
        match then {
            Then::Keep | Then::Silence => {}
            Then::Close => line.close(),
            Then::Reset => line.reset(),
        }
    }
}

impl Session for Server {
    fn bytes(&mut self, bytes: &[u8], line: &mut Line) {
        self.input.extend(bytes);
        while self.read(line) {
            if self.reading == Reading::Head && self.input.is_empty() {
                break;
            }
        }
    }

    fn fin(&mut self, line: &mut Line) {
        if self.reading != Reading::Tunnel {
            line.close();
            return;
        }
        self.with_last(|seen| seen.complete = true);
        self.finished = true;
        if self.answering.front().is_some_and(|answer| answer.written == Some(answer.reply.sent)) {
            self.write(line);
        }
    }

    fn closed(&mut self, reset: bool, now: Instant) {
        self.log.closed.borrow_mut().push((self.number, now, reset));
    }

    fn wake(&mut self, line: &mut Line) {
        match self.at {
            Some(at) if at > line.now() => line.wake_at(at),
            Some(_) => {
                self.at = None;
                self.write(line);
            }
            None => {}
        }
    }

    fn drained(&mut self, line: &mut Line) {
        if self.at.is_none() {
            self.write(line);
        }
    }
}
