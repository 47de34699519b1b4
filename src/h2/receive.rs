//! Owns the way in of bodies, trailers and ends: what the library has of a stream becomes events, within credit.

use super::code;
use super::heads;
use super::machine::{Machine, Role};
use super::streams::{Opening, Receiving, Sending, Stream};
use crate::http::{Event, Fields, HeadLimits, Reason, Refusal, StreamRef};
use spooky_uring::Chunk;
use std::task::{Context, Poll, Waker};

/// What the library had of a body.
enum Read {
    Body(Chunk),
    Trailers(Fields),
    End,
    /// Nothing now.
    Nothing,
    /// It is given up: the library's own doing, or the connection's end.
    Broken(::h2::Error),
    /// The trailers break the rules.
    Malformed,
}

impl Machine {
    /// The next event of a stream. `head` asks for heads, where they come from a stream.
    pub(super) fn next_ready<H>(
        &mut self,
        head: fn(&mut Self, u32) -> Option<Event<H>>,
    ) -> Option<(StreamRef, Event<H>)> {
        loop {
            let id = *self.ready.front()?;
            let Some(stream) = self.streams.get_mut(&id) else {
                self.ready.pop_front();
                continue;
            };
            let told = StreamRef { stream: u64::from(id), owner: stream.owner };
            let event = if std::mem::take(&mut stream.malformed) {
                Event::Refused(Refusal::new(match stream.opening {
                    Opening::Response(_) => Reason::UpstreamMalformed,
                    _ => Reason::UpstreamIncomplete,
                }))
            } else if let Some(code) = stream.reset.take() {
                Event::Reset(code)
            } else if let Some(code) = stream.stopped.take() {
                Event::Stop(code)
            } else if std::mem::take(&mut stream.room) {
                Event::Room
            } else if let Some(event) = head(self, id).or_else(|| self.read(id)) {
                event
            } else {
                if let Some(stream) = self.streams.get_mut(&id) {
                    if stream.has_news() {
                        continue;
                    }
                    stream.in_ready = false;
                }
                self.ready.pop_front();
                self.forget_if_over(id);
                continue;
            };
            if matches!(event, Event::Body(_)) {
                // One piece each in turn, so that no stream starves another.
                self.ready.rotate_left(1);
            }
            return Some((told, event));
        }
    }

    fn read<H>(&mut self, id: u32) -> Option<Event<H>> {
        let limits = self.settings.head;
        let stream = self.streams.get_mut(&id)?;
        if stream.receiving == Receiving::Closed {
            return None;
        }
        match read(stream, &limits) {
            Read::Body(chunk) => {
                // What was handed out opens the window.
                self.dirty = true;
                Some(Event::Body(chunk))
            }
            Read::Trailers(fields) => Some(Event::Trailers(fields)),
            Read::End => {
                stream.close_receiving();
                Some(Event::End)
            }
            Read::Nothing => None,
            Read::Broken(error) => {
                self.broken(id, &error);
                None
            }
            Read::Malformed => {
                self.give_up(id, code::PROTOCOL_ERROR);
                self.cut(id, code::PROTOCOL_ERROR);
                let stream = self.streams.get_mut(&id).filter(|_| self.role == Role::Client)?;
                stream.reset = None;
                Some(Event::Refused(Refusal::new(Reason::UpstreamTrailers)))
            }
        }
    }

    /// Allows so many more body bytes as events: what is handed out opens the window by as much, and nothing else does.
    pub(super) fn grant(&mut self, id: u32, bytes: usize) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.receiving == Receiving::Closed {
            return;
        }
        stream.credit = stream.credit.saturating_add(bytes);
        if stream.credit > 0 && (stream.readable || !stream.rest.is_empty()) {
            self.tell(id);
        }
    }

    /// No more of the other side's direction is wanted. It is told when ours has ended: RST_STREAM would end both.
    pub(super) fn stop(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            if stream.receiving == Receiving::Open {
                stream.close_receiving();
                stream.cut_short = true;
            }
            stream.reset = None;
        }
        self.forget_if_over(id);
    }
}

fn read(stream: &mut Stream, limits: &HeadLimits) -> Read {
    let mut context = Context::from_waker(Waker::noop());
    let Some(body) = &mut stream.body else {
        return Read::Nothing;
    };
    while stream.rest.is_empty() {
        if !stream.readable {
            return Read::Nothing;
        }
        match body.poll_data(&mut context) {
            Poll::Pending => {
                stream.readable = false;
                return Read::Nothing;
            }
            Poll::Ready(Some(Ok(bytes))) => stream.rest = bytes,
            Poll::Ready(Some(Err(error))) => return Read::Broken(error),
            Poll::Ready(None) => {
                return match body.poll_trailers(&mut context) {
                    Poll::Ready(Ok(Some(map))) => match heads::trailers_in(&map, limits) {
                        Ok(fields) => Read::Trailers(fields),
                        Err(_) => Read::Malformed,
                    },
                    Poll::Ready(Ok(None)) => Read::End,
                    Poll::Ready(Err(error)) => Read::Broken(error),
                    Poll::Pending => {
                        stream.readable = false;
                        Read::Nothing
                    }
                };
            }
        }
    }
    let take = stream.credit.min(stream.rest.len());
    if take == 0 {
        return Read::Nothing;
    }
    stream.credit -= take;
    // An error says that the stream is over, which shows when it is read next.
    let _ = body.flow_control().release_capacity(take);
    // Copy: the library's pieces share its read buffers, and a few bytes would keep a whole one.
    Read::Body(Chunk::copy_from(&stream.rest.split_to(take)))
}

/// The code of RFC 9113 §7 in the library's error.
pub(super) fn reason(error: &::h2::Error) -> u64 {
    if error.is_io() {
        return code::CANCEL;
    }
    error.reason().map_or(code::INTERNAL_ERROR, |reason| u64::from(u32::from(reason)))
}

impl Machine {
    /// Tells the other side that a stream is over. Says nothing to its owner.
    pub(super) fn give_up(&mut self, id: u32, code: u64) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let reason = ::h2::Reason::from(u32::try_from(code).unwrap_or(u32::MAX));
        stream.send_reset(reason);
        self.dirty = true;
    }

    /// Ends both directions of a stream at once, and drops what waits.
    pub(super) fn reset(&mut self, id: u32, code: u64) {
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        if stream.sending != Sending::Closed || stream.receiving == Receiving::Open || stream.cut_short {
            self.give_up(id, code);
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.close_receiving();
            stream.close_sending();
            stream.cut_short = false;
            stream.reset = None;
            stream.stopped = None;
            stream.room = false;
        }
        self.forget_if_over(id);
    }
}
