//! Owns the way out of a response: commands become bytes that wait on a stream, and bytes that wait go to the transport as
//! far as windows and congestion control take them.
//!
//! Nothing is ever refused: a head waits like a body, in pieces if need be. What waits on a stream is bounded by
//! [`Connection::room`]; what a client leaves unacknowledged in pool memory is bounded by copying above a cap.

use super::code;
use super::connection::Connection;
use super::qpack;
use super::streams::{Sending, Stream};
use crate::http::{Fields, NO_OWNER, ResponseHead};
use quiche::Shutdown;
use spooky_uring::Chunk;

/// Body pieces up to this size are copied behind the head or the piece before: one buffer and one pass through the
/// transport instead of two, and no pool buffer of 16 KiB pinned by a few bytes.
const SMALL: usize = 4096;

/// A tail over this size is not appended to any more.
const TAIL_MAX: usize = 4 * SMALL;

/// Bytes on a stream from which they are given to the transport at once, not with the next train.
const FLUSH_EARLY: usize = 16 << 10;

/// Bytes one stream gives before the next one gets its turn.
const QUANTUM: usize = 64 << 10;

enum Flushed {
    /// Nothing waits any more.
    All,
    /// The turn is over, more could go.
    Some,
    /// A window is full.
    Blocked(bool),
}

impl Connection {
    /// The final head. `end`: no body and no trailers follow.
    pub fn send_head(&mut self, stream: u64, head: &ResponseHead, end: bool) {
        if head.is_informational() {
            self.send_informational(stream, head);
            return;
        }
        let id = stream;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.sending != Sending::Idle {
            return;
        }
        let bodiless = stream.bodiless || matches!(head.status, 204 | 304);
        stream.response_left = if bodiless { Some(0) } else { head.content_length };
        // Room for a small body too, so that both share one buffer.
        let body = stream.response_left.unwrap_or(0).min(SMALL as u64) as usize;
        let room = qpack::response_len_max(head) + body + qpack::DATA_HEADER_MAX;
        if stream.tail.capacity() == 0 {
            stream.tail = Chunk::vector(room);
        } else {
            // Behind an informational head.
            stream.tail.reserve(room);
        }
        qpack::response(head, &mut stream.tail);
        stream.sending = Sending::Open;
        self.schedule(id);
        if end {
            self.end(id);
        }
    }

    /// A 1xx head; the final one follows.
    pub fn send_informational(&mut self, stream: u64, head: &ResponseHead) {
        let id = stream;
        let full = self.shared.settings.queue_bytes;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        // A client that reads nothing gets no more of them: they are only hints.
        if stream.sending == Sending::Idle && stream.queued() < full {
            qpack::response(head, &mut stream.tail);
            self.schedule(id);
        }
    }

    /// Body bytes; all of them are taken. Give no more than [`Self::room`] says, or one piece if that is less.
    pub fn send_body(&mut self, stream: u64, chunk: Chunk) {
        let pooled = chunk.is_pooled();
        self.send_piece(stream, chunk, pooled);
    }

    pub(super) fn send_piece(&mut self, id: u64, chunk: Chunk, pooled: bool) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        // HEAD and the like: the head says the length, but no byte follows.
        if chunk.is_empty() || stream.bodiless || !stream.takes_body() {
            return;
        }
        if let Some(left) = &mut stream.response_left {
            let Some(rest) = left.checked_sub(chunk.len() as u64) else {
                self.mismatch(id);
                return;
            };
            *left = rest;
        }
        qpack::data_header(chunk.len(), &mut stream.tail);
        if chunk.len() <= SMALL && stream.tail.len() <= TAIL_MAX {
            stream.tail.extend_from_slice(&chunk);
        } else {
            let sealed = stream.sealed();
            let most = self.shared.settings.pooled_bytes;
            if pooled && !self.shared.pool.fits(self.held.pooled(), chunk.len(), most) {
                // Copied so that a client that takes its time holds its own memory, not the worker's receive pool.
                self.shared.counters.unpooled_bytes.add(chunk.len() as u64);
                stream.push(Chunk::copy_from(&chunk), false, &self.held);
            } else {
                stream.push(chunk, pooled, &self.held);
            }
            self.waiting += stream.sealed() - sealed;
        }
        self.schedule(id);
        self.flush_early(id);
    }

    /// The trailers; they end the response.
    pub fn send_trailers(&mut self, stream: u64, fields: &Fields) {
        let id = stream;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if !stream.takes_body() {
            return;
        }
        if stream.response_left.is_none_or(|left| left == 0) {
            // An empty section is not worth a frame.
            if !fields.is_empty() && !stream.bodiless {
                qpack::trailers(fields, &mut stream.tail);
            }
        }
        self.end(id);
    }

    /// The response is complete.
    pub fn end(&mut self, stream: u64) {
        let id = stream;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if !stream.takes_body() {
            return;
        }
        if stream.response_left.is_some_and(|left| left > 0) {
            self.mismatch(id);
            return;
        }
        if stream.queued() == 0 {
            // The end never travels alone. The transport forgets a stream whose bytes are all acknowledged, also when an
            // end behind them was not sent yet or was lost, and then the client waits for ever. Two bytes carry it.
            if stream.bodiless {
                qpack::reserved_frame(&mut stream.tail);
            } else {
                qpack::data_header(0, &mut stream.tail);
            }
        }
        stream.sending = Sending::Ending;
        self.schedule(id);
    }

    /// Gives the response up: what waits is dropped, the client is told the code.
    pub fn reset(&mut self, stream: u64, code: u64) {
        let id = stream;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.sending != Sending::Closed {
            stream.sending = Sending::Closed;
            self.waiting -= stream.sealed();
            stream.clear();
            // `Done`: the client has stopped it already.
            let _ = self.quic.stream_shutdown(id, Shutdown::Write, code);
        }
        stream.stopped = None;
        self.forget_if_over(id);
    }

    /// Body bytes that may be given now. When it was 0, [`crate::http::Event::Room`] tells of the next time.
    pub fn room(&self, stream: u64) -> usize {
        match self.streams.get(&stream) {
            Some(stream) if stream.takes_body() || stream.sending == Sending::Idle => {
                free(stream, self.shared.settings.queue_bytes)
            }
            _ => 0,
        }
    }

    /// Response bytes that wait here because the transport takes no more of them now.
    pub fn pending(&self, stream: u64) -> usize {
        self.streams.get(&stream).map_or(0, Stream::queued)
    }

    /// A body that is not as long as its head said must not look complete.
    fn mismatch(&mut self, id: u64) {
        self.shared.counters.response_length_mismatches.add(1);
        self.reset(id, code::INTERNAL_ERROR);
    }

    fn schedule(&mut self, id: u64) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !std::mem::replace(&mut stream.in_sending, true)
        {
            self.sending.push_back(id);
        }
    }

    fn flush_early(&mut self, id: u64) {
        let full = self.shared.settings.queue_bytes;
        let early = match self.streams.get(&id) {
            // While others wait in front, it waits its turn.
            Some(stream) => stream.queued() >= FLUSH_EARLY && self.sending.len() == 1,
            None => return,
        };
        if early {
            self.flush();
        }
        if let Some(stream) = self.streams.get_mut(&id)
            && free(stream, full) == 0
        {
            stream.full = true;
        }
    }

    /// Gives the transport what it takes, each stream in turn. `true`: something went.
    pub(super) fn flush(&mut self) -> bool {
        let mut any = false;
        loop {
            let mut progress = false;
            for _ in 0..self.sending.len() {
                let Some(id) = self.sending.pop_front() else {
                    break;
                };
                match self.flush_stream(id) {
                    Flushed::All => progress = true,
                    Flushed::Some => {
                        progress = true;
                        self.sending.push_back(id);
                    }
                    Flushed::Blocked(moved) => {
                        progress |= moved;
                        self.sending.push_back(id);
                    }
                }
            }
            any |= progress;
            if !progress || self.sending.is_empty() {
                return any;
            }
        }
    }

    fn flush_stream(&mut self, id: u64) -> Flushed {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Flushed::All;
        };
        if stream.sending == Sending::Closed {
            stream.in_sending = false;
            return Flushed::All;
        }
        let sealed = stream.sealed();
        stream.seal(&self.held);
        self.waiting += stream.sealed() - sealed;

        let mut moved = 0;
        let flushed = loop {
            if stream.front_len() == 0 {
                break Flushed::All;
            }
            if moved >= QUANTUM {
                break Flushed::Some;
            }
            let window = match self.quic.stream_capacity(id) {
                Ok(window) => window,
                Err(error) => {
                    stream.in_sending = false;
                    match error {
                        quiche::Error::StreamStopped(code) => self.take_stop(id, code),
                        // A stream with bytes of ours to send is never gone otherwise.
                        _ => self.reset(id, code::INTERNAL_ERROR),
                    }
                    return Flushed::All;
                }
            };
            let take = window.min(self.flight.left(window, self.held.bytes() - self.waiting));
            if take == 0 {
                if window == 0 && !std::mem::replace(&mut stream.blocked_told, true) {
                    // Tells the client which window is full.
                    let _ = self.quic.stream_writable(id, 1);
                }
                break Flushed::Blocked(moved > 0);
            }
            let Some((payload, last)) = stream.pop(take) else {
                break Flushed::All;
            };
            let len = payload.len();
            self.waiting -= len;
            self.flight.given(len);
            moved += len;
            stream.blocked_told = false;
            let fin = last && stream.sending == Sending::Ending;
            match self.quic.stream_send_zc(id, payload, fin) {
                Ok((sent, None)) if sent == len => {}
                // Never more than the window is given, so it is taken whole. Bytes lost here would corrupt the body.
                result => {
                    debug_assert!(false, "stream {id}: {len} bytes within the window, {result:?}");
                    stream.in_sending = false;
                    self.reset(id, code::INTERNAL_ERROR);
                    return Flushed::All;
                }
            }
            if fin {
                stream.sending = Sending::Closed;
                self.glitches.answered();
            }
        };
        debug_assert!(
            stream.sending != Sending::Ending || !matches!(flushed, Flushed::All),
            "stream {id}: an end behind nothing"
        );
        note_room(stream, self.shared.settings.queue_bytes);
        if stream.sending == Sending::Closed && stream.owner != NO_OWNER {
            // Somebody still waits for the end of what was queued.
            stream.room = true;
        }
        let (room, all) = (stream.room, matches!(flushed, Flushed::All));
        if all {
            stream.in_sending = false;
        }
        if room {
            self.tell(id);
        }
        if all {
            self.forget_if_over(id);
        }
        flushed
    }
}

/// What the queue of a stream still takes; nothing rather than a few bytes.
fn free(stream: &Stream, full: usize) -> usize {
    let free = full.saturating_sub(stream.queued());
    if free < SMALL.min(full / 2) { 0 } else { free }
}

/// Room is told when half of the queue is free, so that it is worth a turn.
fn note_room(stream: &mut Stream, full: usize) {
    if stream.full && stream.takes_body() && stream.queued() <= full / 2 {
        stream.full = false;
        stream.room = true;
    }
}
