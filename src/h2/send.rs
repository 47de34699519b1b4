//! Owns the way out of bodies and ends. Nothing is ever refused: pieces wait in the library's queue until the other side's
//! windows take them; what waits is bounded by [`Machine::room`].
//!
//! The last piece is kept back until the turn is over, so that the end travels with it: an end of its own costs a frame.

use super::code;
use super::heads;
use super::machine::Machine;
use super::pipe::Payload;
use super::streams::{Sending, Stream};
use crate::http::Fields;
use spooky_uring::Chunk;

impl Machine {
    /// Body bytes; all of them are taken.
    pub(super) fn send_body(&mut self, id: u32, chunk: Chunk) {
        let full = self.settings.queue_bytes;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if chunk.is_empty() || stream.bodiless || !stream.takes_body() {
            return;
        }
        if let Some(left) = &mut stream.send_left {
            let Some(rest) = left.checked_sub(chunk.len() as u64) else {
                self.reset_mismatched(id);
                return;
            };
            *left = rest;
        }
        let chunk = self.pool.keep(chunk, self.pipe.pooled(), self.settings.pooled_bytes);
        stream.queued += chunk.len();
        stream.full |= stream.free(full) == 0;
        if let Some(before) = stream.held.replace(Payload::new(chunk, id, &self.pipe)) {
            give(stream, before, false);
        }
        if !std::mem::replace(&mut stream.in_holding, true) {
            self.holding.push(id);
        }
        self.dirty = true;
    }

    /// The trailers; they end our direction.
    pub(super) fn send_trailers(&mut self, id: u32, fields: &Fields) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if !stream.takes_body() {
            return;
        }
        if fields.is_empty() || stream.bodiless || stream.send_left.is_some_and(|left| left > 0) {
            self.end(id);
            return;
        }
        let Ok(map) = heads::trailers_out(fields) else {
            self.end(id);
            return;
        };
        if map.is_empty() {
            self.end(id);
            return;
        }
        if let Some(last) = stream.held.take() {
            give(stream, last, false);
        }
        if let Some(out) = &mut stream.out {
            // An error says that the stream is over, which its reset tells.
            let _ = out.send_trailers(map);
        }
        stream.sending = Sending::Ending;
        self.dirty = true;
    }

    /// Our direction is complete.
    pub(super) fn end(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if !stream.takes_body() {
            return;
        }
        if stream.send_left.is_some_and(|left| left > 0) {
            self.reset_mismatched(id);
            return;
        }
        let last = stream.held.take().unwrap_or_else(|| Payload::new(Chunk::default(), id, &self.pipe));
        give(stream, last, true);
        stream.sending = Sending::Ending;
        self.dirty = true;
    }

    /// A body that is not as long as its head said must not look complete.
    fn reset_mismatched(&mut self, id: u32) {
        self.reset(id, code::INTERNAL_ERROR);
    }

    /// Gives the library what was kept back: no end came with it.
    pub(super) fn give_held(&mut self) {
        for id in self.holding.drain(..) {
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            stream.in_holding = false;
            if let Some(piece) = stream.held.take() {
                give(stream, piece, false);
                // The library may have been polled since the piece came: bytes arrived in the same turn.
                self.dirty = true;
            }
        }
    }

    /// Body bytes that may be given now.
    pub(super) fn room(&self, id: u32) -> usize {
        match self.streams.get(&id) {
            Some(stream) if stream.takes_body() || stream.sending == Sending::Idle => {
                stream.free(self.settings.queue_bytes)
            }
            _ => 0,
        }
    }

    /// Bytes that wait here because the other side takes no more of them now.
    pub(super) fn pending(&self, id: u32) -> usize {
        self.streams.get(&id).map_or(0, |stream| match (stream.sending, stream.queued) {
            // The end itself waits too.
            (Sending::Ending, 0) => 1,
            (_, queued) => queued,
        })
    }

    /// Bytes left the library's queue.
    pub(super) fn drain(&mut self, id: u32, bytes: usize) {
        let full = self.settings.queue_bytes;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.queued = stream.queued.saturating_sub(bytes);
        // Room is told when half of the queue is free, so that it is worth a turn.
        if stream.full && stream.takes_body() && stream.queued <= full / 2 {
            stream.full = false;
            stream.room = true;
            self.tell(id);
        }
    }
}

fn give(stream: &mut Stream, payload: Payload, end: bool) {
    if let Some(out) = &mut stream.out {
        // An error says that the stream is over, which its reset tells.
        let _ = out.send_data(payload, end);
    }
}
