//! Owns what both sides of HTTP/2 share: the streams of one connection, the lists of those that have something to tell, and
//! what the frames that pass say of them.
//!
//! It refuses to know heads. The halves that move bodies stand beside it: `receive` and `send`.

use super::code;
use super::frames::{Scanner, flag, kind};
use super::glitches::Glitch;
use super::pipe::{Pipe, Sent};
use super::receive::reason;
use super::settings::Settings;
use super::streams::{Receiving, Sending, Stream};
use crate::http::{NO_OWNER, PoolShare};
use rustc_hash::FxHashMap;
use spooky_uring::Chunk;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

/// Which side ours is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The other side opens streams.
    Server,
    /// We open streams, and send the preface.
    Client,
}

pub(super) struct Machine {
    pub(super) role: Role,
    pub(super) pipe: Rc<Pipe>,
    pub(super) settings: Settings,
    pub(super) streams: FxHashMap<u32, Stream>,
    /// Streams with something to tell, or to ask the library about. Each stands here once, so the bound is the number of
    /// streams; likewise for the list below.
    pub(super) ready: VecDeque<u32>,
    /// Streams that keep their last piece back.
    pub(super) holding: Vec<u32>,
    /// Streams that were reset before their head was taken; forgotten when everything was read.
    pub(super) unseen_resets: Vec<u32>,
    /// The highest stream of the other side's that was taken.
    pub(super) last_taken: u32,
    scanner: Scanner,
    created: Instant,
    /// What it may hold of the worker's receive pool.
    pub(super) pool: PoolShare,

    /// Bytes came that the library has not looked at.
    pub(super) fresh: bool,
    /// Commands were given that the library has not acted on.
    pub(super) dirty: bool,
    /// The library stopped reading because it could not write: streams are asked again when it can.
    pub(super) recheck: bool,
    /// The other side acknowledged or sent its settings.
    pub(super) settings_came: bool,
    /// The last stream that a GOAWAY of the other side's says it looks at.
    pub(super) goaway_came: Option<u32>,
    /// What the other side did too often.
    pub(super) flood: Option<Glitch>,

    /// Memory for the two looks at the pipe.
    sent: Vec<Sent>,
    drained: Vec<(u32, usize)>,
}

impl Machine {
    pub(super) fn new(settings: Settings, role: Role, pool: PoolShare, now: Instant) -> Self {
        Self {
            role,
            pipe: Pipe::new(role == Role::Client),
            settings,
            streams: FxHashMap::default(),
            ready: VecDeque::new(),
            holding: Vec::new(),
            unseen_resets: Vec::new(),
            last_taken: 0,
            scanner: Scanner::new(role == Role::Server),
            created: now,
            pool,
            fresh: false,
            // The library writes its settings first.
            dirty: true,
            recheck: false,
            settings_came: false,
            goaway_came: None,
            flood: None,
            sent: Vec::new(),
            drained: Vec::new(),
        }
    }

    /// Bytes came. Tells what was too much, if anything is: they are not looked at then.
    pub(super) fn receive(&mut self, bytes: Chunk, now: Instant) -> Option<Glitch> {
        self.fresh = true;
        let (scanner, pipe) = (&mut self.scanner, &self.pipe);
        let mut glitches = pipe.glitches.borrow_mut();
        glitches.tick(now.saturating_duration_since(self.created).as_secs());
        let (streams, ready) = (&mut self.streams, &mut self.ready);
        let (unseen, last, settings) = (&mut self.unseen_resets, self.last_taken, &mut self.settings_came);
        let goaway = &mut self.goaway_came;
        scanner.scan(&bytes, |frame| {
            glitches.received(&frame);
            let stream = match frame.kind {
                kind::DATA | kind::HEADERS | kind::CONTINUATION | kind::RST_STREAM => streams.get_mut(&frame.stream),
                kind::SETTINGS => {
                    *settings |= !frame.has(flag::ACK);
                    return;
                }
                kind::GOAWAY => {
                    // They never rise; a server's first one may say that everything is still looked at.
                    let last = frame.word() & (u32::MAX >> 1);
                    *goaway = Some(goaway.map_or(last, |before| before.min(last)));
                    return;
                }
                _ => return,
            };
            match stream {
                Some(stream) if frame.kind == kind::RST_STREAM => {
                    if stream.ended {
                        // The message before it came whole (RFC 9113 §8.1).
                        stream.stop_sending(u64::from(frame.word()));
                    } else {
                        stream.cut(u64::from(frame.word()));
                    }
                }
                Some(stream) => {
                    stream.readable = true;
                    stream.ended |= frame.ends_stream();
                }
                None => {
                    // As many as fit one read; the ledger stops a flood of them.
                    if frame.kind == kind::RST_STREAM && frame.stream > last {
                        unseen.push(frame.stream);
                    }
                    return;
                }
            }
            enqueue(streams, ready, frame.stream);
        });
        let over = glitches.overflow();
        drop(glitches);
        if over.is_none() {
            self.pipe.push(bytes);
        }
        over
    }

    /// Before output is taken, of which so many bytes are still unsent.
    pub(super) fn begin_transmit(&mut self, unsent: usize) {
        let was_blocked = self.pipe.is_blocked();
        self.pipe.allow(unsent);
        self.give_held();
        self.dirty |= was_blocked && !self.pipe.is_blocked();
    }

    /// Whether the library has to be polled before output is taken.
    pub(super) fn wants_poll(&self) -> bool {
        self.dirty && !self.pipe.is_blocked()
    }

    /// Whether something wants to leave, given room.
    pub(super) fn has_output(&self) -> bool {
        self.dirty || !self.holding.is_empty() || self.pipe.has_output() || self.pipe.is_blocked()
    }

    /// After the library was polled: what left, and what that means.
    pub(super) fn settle(&mut self) {
        let mut drained = std::mem::take(&mut self.drained);
        self.pipe.take_drained(&mut drained);
        for (id, bytes) in drained.drain(..) {
            self.drain(id, bytes);
        }
        self.drained = drained;

        let mut sent = std::mem::take(&mut self.sent);
        self.pipe.take_sent(&mut sent);
        for sent in sent.drain(..) {
            match sent {
                Sent::End(id) => self.sent_end(id),
                Sent::Reset(id, code) => self.library_reset(id, u64::from(code)),
            }
        }
        self.sent = sent;

        if self.pipe.is_blocked() {
            self.recheck = true;
            return;
        }
        self.unseen_resets.clear();
        if std::mem::take(&mut self.recheck) {
            let open = self.streams.iter().filter(|(_, stream)| stream.receiving == Receiving::Open);
            let open = open.map(|(&id, _)| id).collect::<Vec<_>>();
            for id in open {
                self.expect_body(id);
            }
        }
    }

    /// The end of our direction has left.
    fn sent_end(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.sending == Sending::Closed {
            return;
        }
        stream.close_sending();
        if stream.owner != NO_OWNER {
            // Somebody still waits for the end of what was queued.
            stream.room = true;
            self.tell(id);
        }
        self.forget_if_over(id);
    }

    /// A stream was reset, by either side: both directions end.
    pub(super) fn cut(&mut self, id: u32, code: u64) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.cut(code);
            self.tell(id);
        }
    }

    /// The library has nothing more of a stream.
    pub(super) fn broken(&mut self, id: u32, error: &::h2::Error) {
        match error.is_library() {
            true => self.library_reset(id, reason(error)),
            false => self.cut(id, reason(error)),
        }
    }

    /// The library ended a stream, because the other side made a mistake.
    fn library_reset(&mut self, id: u32, code: u64) {
        let Some(stream) = self.streams.get_mut(&id) else {
            // Ours: it was forgotten when it was given up.
            return;
        };
        stream.cut(code);
        if self.role == Role::Client && stream.reset.take().is_some() {
            stream.malformed = true;
        }
        self.tell(id);
    }

    /// Streams above this one were not looked at: they may be sent again elsewhere (RFC 9113 §6.8).
    pub(super) fn refuse_above(&mut self, last: u32) {
        let above = self.streams.keys().copied().filter(|&id| id > last).collect::<Vec<_>>();
        for id in above {
            self.cut(id, code::REFUSED_STREAM);
        }
    }

    /// The connection is over. What came whole is still handed out; streams of which more was to come are told when that
    /// shows.
    pub(super) fn end_all(&mut self) {
        let ids = self.streams.keys().copied().collect::<Vec<_>>();
        for id in ids {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.close_sending();
                stream.room = false;
            }
            self.expect_body(id);
        }
    }

    /// Remembers whom events of this stream are for.
    pub(super) fn set_owner(&mut self, stream: u64, owner: u32) {
        if let Some(stream) = self.streams.get_mut(&super::id(stream)) {
            stream.owner = owner;
        }
    }

    /// Every stream ends with its connection.
    pub(super) fn cut_all(&mut self, code: u64) {
        self.pipe.clear_input();
        let ids = self.streams.keys().copied().collect::<Vec<_>>();
        for id in ids {
            self.cut(id, code);
        }
    }

    /// Puts a stream on the list of those with something to tell.
    pub(super) fn tell(&mut self, id: u32) {
        enqueue(&mut self.streams, &mut self.ready, id);
    }

    /// A stream whose body may have come already.
    pub(super) fn expect_body(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.readable = true;
        }
        self.tell(id);
    }

    /// Forgets a stream that is over.
    pub(super) fn forget_if_over(&mut self, id: u32) {
        if self.streams.get(&id).is_some_and(Stream::is_over) {
            // Of a request that was not read to its end, the library says RST_STREAM(NO_ERROR) now (RFC 9113 §8.1).
            self.dirty |= self.streams.remove(&id).is_some_and(|stream| stream.cut_short);
            if self.streams.is_empty() {
                self.shrink();
            }
        }
    }

    /// An idle connection keeps little memory of the requests it had.
    fn shrink(&mut self) {
        const KEPT: usize = 16;
        if self.streams.capacity() > KEPT {
            self.streams = FxHashMap::default();
        }
        self.ready = VecDeque::new();
        self.holding = Vec::new();
        self.sent = Vec::new();
        self.drained = Vec::new();
    }
}

fn enqueue(streams: &mut FxHashMap<u32, Stream>, ready: &mut VecDeque<u32>, id: u32) {
    if let Some(stream) = streams.get_mut(&id)
        && !std::mem::replace(&mut stream.in_ready, true)
    {
        ready.push_back(id);
    }
}
