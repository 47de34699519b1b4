//! The demo's origin: a few pages and bodies that show what the proxy does with them.
//!
//! An ordinary HTTP/1.1 server on its own thread and ring, by the same host as the control addresses. Bodies of any size
//! are slices of one block; nothing is read from disk.

use super::page;
use crate::control::failure::Failure;
use crate::http::{Fields, Known, RequestHead, ResponseHead};
use crate::worker::host::{Answer, Body, Host, Piece, Request, Service, Settings, Source};
use spooky_uring::mailbox::Doorbell;
use spooky_uring::{Chunk, Event, Features, Io, Listener, PoolConfig, Ring, RingConfig, Token};
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Byte `i` of every sized body is `i % 251`: a prime, so that no buffer size hides a misplaced piece.
const PERIOD: usize = 251;

/// The block that bodies are slices of: whole periods, a little over 64 KiB.
const BLOCK: usize = PERIOD * 262;

/// The largest `/bytes/N`.
pub const BYTES_MAX: u64 = 1 << 40;

/// The longest wait between two pieces of a slow body.
const DELAY_MAX: Duration = Duration::from_secs(60);

/// Pieces of a slow body and events of a stream at most.
const PIECES_MAX: u64 = 100_000;

/// Answers the demo's pages.
#[derive(Debug)]
pub struct DemoService {
    block: Chunk,
}

/// A body that comes bit by bit.
#[derive(Debug)]
pub enum DemoSource {
    /// A sized body.
    Bytes {
        /// The block it is cut from.
        block: Chunk,
        /// Position in the body.
        at: u64,
        /// Its length.
        len: u64,
    },
    /// A line now and then.
    Lines {
        /// Lines sent.
        sent: u64,
        /// Lines in all.
        count: u64,
        /// Between two.
        delay: Duration,
        /// The next one is due.
        due: Instant,
        /// How a line looks.
        form: Form,
    },
}

/// How the lines of [`DemoSource::Lines`] look, and what follows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Plain text.
    Plain,
    /// Server-sent events.
    Events,
    /// Plain text, and trailers behind it.
    Trailers,
}

impl Source for DemoSource {
    fn next(&mut self, room: usize, now: Instant) -> Piece {
        match self {
            Self::Bytes { block, at, len } => {
                let rest = *len - *at;
                if rest == 0 {
                    return Piece::End;
                }
                let start = (*at % PERIOD as u64) as usize;
                let most = room.min(block.len() - start);
                let piece = usize::try_from(rest).map_or(most, |rest| rest.min(most));
                *at += piece as u64;
                Piece::Bytes(block.slice(start..start + piece))
            }
            Self::Lines { sent, count, form, .. } if sent == count => match form {
                Form::Trailers => {
                    let mut trailers = Fields::new();
                    trailers.push(b"x-demo-lines", sent.to_string().as_bytes());
                    trailers.push(b"x-demo-end", b"behind the body");
                    Piece::Trailers(trailers)
                }
                Form::Plain | Form::Events => Piece::End,
            },
            Self::Lines { due, .. } if *due > now => Piece::Wait(*due),
            Self::Lines { sent, count, delay, due, form } => {
                *sent += 1;
                *due = now + *delay;
                let line = match form {
                    Form::Events => {
                        format!("id: {sent}\ndata: event {sent} of {count}\n\n")
                    }
                    Form::Plain | Form::Trailers => format!("line {sent} of {count}\n"),
                };
                Piece::Bytes(Chunk::from_vec(line.into_bytes()))
            }
        }
    }
}

impl Default for DemoService {
    fn default() -> Self {
        let block = (0..BLOCK).map(|i| (i % PERIOD) as u8).collect();
        Self { block: Chunk::from_vec(block) }
    }
}

impl Service for DemoService {
    type Source = DemoSource;

    fn answer(&mut self, request: &Request<'_>) -> Answer<DemoSource> {
        let head = request.head;
        let Some(path) = head.target.path() else {
            return Answer::empty(204).with(Known::Allow, b"GET, HEAD, POST, PUT, OPTIONS");
        };
        let query = Query(path.query().unwrap_or(""));
        let lines = |form, count, delay| {
            let asked = query.number("chunks").or(query.number("count"));
            let count = asked.unwrap_or(count).min(PIECES_MAX);
            let delay = query.number("delay").map_or(delay, Duration::from_millis);
            Body::Source(DemoSource::Lines { sent: 0, count, delay: delay.min(DELAY_MAX), due: request.now, form })
        };
        match path.matched() {
            "/" => Answer::whole(200, "text/html; charset=utf-8", page::index().into_bytes()),
            "/echo" => echo(head),
            "/headers" => Answer::whole(200, "text/plain; charset=utf-8", listing(head)),
            "/slow" => answer("text/plain; charset=utf-8", lines(Form::Plain, 5, Duration::from_millis(300))),
            "/events" => answer("text/event-stream", lines(Form::Events, 10, Duration::from_secs(1))),
            "/trailers" => {
                let body = lines(Form::Trailers, 3, Duration::ZERO);
                answer("text/plain; charset=utf-8", body).with(Known::Trailer, b"x-demo-lines, x-demo-end")
            }
            other => self.numbered(other),
        }
    }
}

impl DemoService {
    /// `/bytes/N` and `/status/N`.
    fn numbered(&self, path: &str) -> Answer<DemoSource> {
        if let Some(len) = path.strip_prefix("/bytes/").and_then(size) {
            let body = Body::Source(DemoSource::Bytes { block: self.block.clone(), at: 0, len });
            let mut answer = answer("application/octet-stream", body);
            answer.head.content_length = Some(len);
            return answer;
        }
        if let Some(status) = path.strip_prefix("/status/").and_then(|n| n.parse().ok())
            && (200..=599).contains(&status)
        {
            return match status {
                204 | 304 => Answer::empty(status),
                _ => Answer::text(status, crate::http::head::phrase(status)),
            };
        }
        Answer::text(404, "nothing here; / lists what there is")
    }
}

fn answer(content_type: &str, body: Body<DemoSource>) -> Answer<DemoSource> {
    let mut head = ResponseHead::new(200);
    head.fields.push_known(Known::ContentType, content_type.as_bytes());
    head.fields.push_known(Known::CacheControl, b"no-store");
    Answer { head, body }
}

fn echo(request: &RequestHead) -> Answer<DemoSource> {
    let content_type = request.fields.get(Known::ContentType);
    let content_type = content_type.and_then(|value| std::str::from_utf8(value).ok());
    let mut answer = answer(content_type.unwrap_or("application/octet-stream"), Body::Echo);
    answer.head.content_length = request.content_length;
    answer
}

/// The request as it arrived here, behind the proxy.
fn listing(request: &RequestHead) -> Vec<u8> {
    let mut text = Vec::new();
    let target = request.target.path().map_or("*", |path| path.forwarded());
    for part in [request.method.as_str(), " ", target, " HTTP/1.1\nhost: "] {
        text.extend_from_slice(part.as_bytes());
    }
    text.extend_from_slice(request.authority.as_str().as_bytes());
    text.push(b'\n');
    for (name, value) in request.fields.iter() {
        text.extend_from_slice(name.name);
        text.extend_from_slice(b": ");
        text.extend_from_slice(value);
        text.push(b'\n');
    }
    text
}

/// `17`, `16KiB`, `100MiB`, `1GiB`.
fn size(text: &str) -> Option<u64> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let (digits, shift) =
        units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift))).unwrap_or((text, 0));
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(1 << shift).filter(|size| *size <= BYTES_MAX)
}

/// A query of `key=number` pairs.
struct Query<'a>(&'a str);

impl Query<'_> {
    fn number(&self, key: &str) -> Option<u64> {
        self.0
            .split('&')
            .find_map(|pair| pair.split_once('=').filter(|(name, _)| *name == key))
            .and_then(|(_, value)| value.parse().ok())
    }
}

/// The running origin.
#[derive(Debug)]
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    stop: Doorbell,
    thread: JoinHandle<()>,
}

const SPACE: u32 = 1;
const STOP: Token = Token(0);
const CONNECTIONS: usize = 1024;

impl Origin {
    /// Starts the origin on a free loopback port.
    ///
    /// # Errors
    /// If no socket, thread or ring can be had.
    pub fn start(features: &Features) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::new("the demo's origin", error);
        let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = Listener::tcp(wanted, 1024, false).map_err(|e| failed(&e))?;
        let address = listener.local_address().unwrap_or(wanted);
        let stop = Doorbell::new().map_err(|e| failed(&e))?;
        let (bell, features) = (stop.clone(), features.clone());
        let (up, came_up) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("demo-origin".to_owned())
            .spawn(move || {
                let config = RingConfig {
                    entries: 256,
                    streams: CONNECTIONS as u32 + 1,
                    udp_receive: PoolConfig { count: 1, size: 4096, posted: 1 },
                    udp_send_slots: 1,
                    ..RingConfig::default()
                };
                // A closed channel means that nobody waits for the word any more.
                match Ring::new(&config, &features) {
                    Ok(ring) => {
                        let _ = up.send(Ok(()));
                        serve(ring, listener, &bell);
                    }
                    Err(error) => {
                        let _ = up.send(Err(error.to_string()));
                    }
                }
            })
            .map_err(|e| failed(&e))?;
        match came_up.recv() {
            Ok(Ok(())) => Ok(Self { address, stop, thread }),
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) => Err(failed(&"its thread ended")),
        }
    }

    /// Ends it.
    pub fn stop(self) {
        self.stop.ring();
        // It ends by the bell; a panic of a demo's thread has been said by itself.
        let _ = self.thread.join();
    }
}

fn serve(mut ring: Ring, listener: Listener, stop: &Doorbell) {
    let settings = Settings::new(SPACE, CONNECTIONS);
    let mut host = Host::new(DemoService::default(), settings, ring.now());
    ring.listen(listener, host.listener_token(0));
    ring.watch(stop, STOP);
    let mut events = Vec::new();
    loop {
        let deadline = host.next_deadline();
        if let Err(error) = ring.wait(deadline, &mut events) {
            tracing::error!(%error, "the demo's origin lost its ring");
            return;
        }
        for event in events.drain(..) {
            if let Some(Event::Doorbell { token: STOP }) = host.handle(event, &mut ring) {
                return;
            }
        }
        host.turn(&mut ring);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sized_bodies_are_exact_whatever_the_room() {
        let service = DemoService::default();
        for (len, room) in [(0u64, 10), (1, 10), (13_000, 999), (200_000, 1 << 20)] {
            let Body::Source(mut source) = service.numbered(&format!("/bytes/{len}")).body else {
                panic!("a source");
            };
            let mut body = Vec::new();
            while let Piece::Bytes(chunk) = source.next(room, Instant::now()) {
                assert!(!chunk.is_empty() && chunk.len() <= room);
                body.extend_from_slice(&chunk);
            }
            assert_eq!(body.len() as u64, len);
            assert!(body.iter().enumerate().all(|(i, b)| *b == (i % PERIOD) as u8));
        }
    }

    #[test]
    fn sizes_have_units_and_a_bound() {
        assert_eq!(size("17"), Some(17));
        assert_eq!(size("100MiB"), Some(100 << 20));
        assert_eq!(size("1024GiB"), Some(BYTES_MAX));
        for bad in ["", "x", "-1", "1025GiB", "99999999999999999999", "1MB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn lines_keep_their_delay_and_trailers_end_them() {
        let now = Instant::now();
        let delay = Duration::from_millis(5);
        let mut source = DemoSource::Lines { sent: 0, count: 2, delay, due: now, form: Form::Trailers };
        assert!(matches!(source.next(100, now), Piece::Bytes(_)));
        assert!(matches!(source.next(100, now), Piece::Wait(at) if at == now + delay));
        assert!(matches!(source.next(100, now + delay), Piece::Bytes(_)));
        assert!(matches!(source.next(100, now + delay), Piece::Trailers(_)));
    }

    #[test]
    fn queries_are_numbers_or_nothing() {
        let query = Query("chunks=3&delay=x&count=");
        assert_eq!(query.number("chunks"), Some(3));
        assert_eq!(query.number("delay"), None);
        assert_eq!(query.number("count"), None);
    }
}
