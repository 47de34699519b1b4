//! Answers over HTTP/2, many at once: bodies in turn, as far as each stream's window lets them.

use super::PIECE;
use super::action::Action;
use super::link::Link;
use spooky::h2::{ServerConnection, Settings, code};
use spooky::http::{Event, Output, PoolShare, RequestHead, ResponseHead, Scheme};
use spooky_uring::Chunk;
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read};
use std::time::{Duration, Instant};

/// More than anybody opens at once here: whoever opens streams before it knows the bound is not refused.
const STREAMS: u32 = 1024;

/// What happens when the body is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    End,
    Reset,
    Close,
}

/// One answer.
struct Answer {
    action: Action,
    /// The request's body so far.
    uploaded: u64,
    /// The request is whole, or nobody waits for the rest.
    asked: bool,
    /// When the head, or the next single byte, may leave.
    due: Option<Instant>,
    /// Body bytes that are still to leave; `None`: nor has the head left.
    left: Option<u64>,
    /// What they are.
    text: Option<String>,
    then: Then,
    done: bool,
}

impl Answer {
    fn new(head: &RequestHead, now: Instant) -> Self {
        let action = Action::of(head.target.path().map_or("", |path| path.forwarded()));
        let due = match action {
            Action::Wait(pause) => Some(now + pause),
            _ => None,
        };
        let then = match action {
            Action::Short(_) => Then::Close,
            Action::Reset(_) => Then::Reset,
            _ => Then::End,
        };
        let asked = action == Action::Early;
        Self { action, uploaded: 0, asked, due, left: None, text: None, then, done: false }
    }

    /// Whether something could leave now, were there room.
    fn is_due(&self, now: Instant) -> bool {
        !self.done && self.asked && self.action != Action::Sink && self.due.is_none_or(|due| due <= now)
    }

    /// Sends the head and as much of the body as there is room for. True: the connection is to be closed.
    fn advance(&mut self, stream: u64, h2: &mut ServerConnection, now: Instant) -> bool {
        if self.left.is_none() {
            self.send_head(stream, h2, now);
        }
        while self.is_due(now) && self.left.is_some_and(|left| left > 0) && h2.room(stream) > 0 {
            let left = self.left.unwrap_or(0);
            let most = if matches!(self.action, Action::Dribble(..)) { 1 } else { PIECE.len() };
            // At most a piece's length.
            let len = left.min(most as u64) as usize;
            let piece = match &self.text {
                Some(text) => Chunk::copy_from(text.as_bytes()),
                None => Chunk::from_static(&PIECE[..len]),
            };
            h2.send_body(stream, piece);
            self.left = Some(left - len as u64);
            if let Action::Dribble(_, pause) = self.action {
                self.due = Some(now + pause);
            }
        }
        if self.left != Some(0) || self.done {
            return false;
        }
        self.done = true;
        match self.then {
            Then::End => h2.end(stream),
            Then::Reset => h2.reset(stream, code::INTERNAL_ERROR),
            Then::Close => return true,
        }
        false
    }

    fn send_head(&mut self, stream: u64, h2: &mut ServerConnection, now: Instant) {
        if !self.is_due(now) {
            return;
        }
        let mut status = 200;
        let (announced, body) = match self.action {
            Action::Bytes(bytes) => (Some(bytes), bytes),
            Action::Short(bytes) | Action::Reset(bytes) => (Some(bytes), bytes / 2),
            Action::Chunked(bytes) | Action::Dribble(bytes, _) => (None, bytes),
            Action::Upload | Action::Early => {
                let text = match self.action {
                    Action::Early => "too large".to_owned(),
                    _ => self.uploaded.to_string(),
                };
                let bytes = text.len() as u64;
                self.text = Some(text);
                (Some(bytes), bytes)
            }
            Action::Status(_) | Action::Wait(_) | Action::Sink => (Some(0), 0),
        };
        match self.action {
            Action::Status(other) => status = other.clamp(200, 999),
            Action::Early => status = 413,
            _ => {}
        }
        let head = ResponseHead { content_length: announced, ..ResponseHead::new(status) };
        let end = body == 0 && self.then == Then::End;
        h2.send_head(stream, &head, end);
        self.left = Some(body);
        self.done = end;
    }
}

/// Serves until the client goes.
pub fn serve(mut link: Link) -> io::Result<()> {
    let scheme = if link.is_secure() { Scheme::Https } else { Scheme::Http };
    let settings = Settings { streams: STREAMS, scheme, ..Settings::SERVER };
    let mut h2 = ServerConnection::new(settings, PoolShare::unbounded(), Instant::now());
    let (mut answers, mut out) = (HashMap::<u64, Answer>::new(), Output::new());
    let mut input = vec![0; 64 << 10];
    loop {
        let now = Instant::now();
        let mut close = false;
        for (stream, answer) in &mut answers {
            close |= answer.advance(*stream, &mut h2, now);
        }
        answers.retain(|_, answer| !answer.done);
        transmit(&mut h2, &mut link, &mut out)?;
        if close || h2.is_closed() {
            return Ok(());
        }
        if collect(&mut h2, &mut answers, now) || answers.iter().any(|(id, a)| a.is_due(now) && h2.room(*id) > 0) {
            continue;
        }
        let due = answers.values().filter_map(|answer| answer.due).filter(|due| *due > now).min();
        // A time-out of no time at all would be none.
        let wait = due.map(|due| due.saturating_duration_since(now).max(Duration::from_millis(1)));
        link.socket.set_read_timeout(wait)?;
        match link.read(&mut input) {
            Ok(0) => return Ok(()),
            Ok(len) => h2.receive(Chunk::copy_from(&input[..len]), Instant::now()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
        collect(&mut h2, &mut answers, Instant::now());
    }
}

fn transmit(h2: &mut ServerConnection, link: &mut Link, out: &mut Output) -> io::Result<()> {
    loop {
        h2.transmit(out);
        if out.is_empty() {
            return Ok(());
        }
        link.send(out)?;
    }
}

/// Takes all events; whether there were any.
fn collect(h2: &mut ServerConnection, answers: &mut HashMap<u64, Answer>, now: Instant) -> bool {
    let mut any = false;
    while let Some((of, event)) = h2.next_event() {
        any = true;
        match &event {
            Event::Head { head, .. } => {
                answers.insert(of.stream, Answer::new(head, now));
            }
            Event::Refused(_) => h2.send_head(of.stream, &ResponseHead::new(400), true),
            _ => {}
        }
        let Some(answer) = answers.get_mut(&of.stream) else {
            continue;
        };
        match event {
            Event::Head { end, .. } => {
                answer.asked |= end;
                if answer.action != Action::Sink {
                    h2.grant(of.stream, usize::MAX);
                }
            }
            Event::Body(bytes) => answer.uploaded += bytes.len() as u64,
            Event::End => answer.asked = true,
            Event::Reset(_) | Event::Refused(_) => {
                answers.remove(&of.stream);
            }
            Event::Informational(_) | Event::Trailers(_) | Event::Stop(_) | Event::Room => {}
        }
    }
    any
}
