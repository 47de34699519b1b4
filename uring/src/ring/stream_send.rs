//! Sending on streams: a queue of chunks per stream, one send in flight that takes as much of it as fits a frame.
//!
//! The chunks of the running send stay at the head of the queue until its completion, so their bytes stay alive; the
//! frame (message header and vector) is on loan from a list that the table keeps, so a send allocates nothing.

use super::Ring;
use super::queue::Completion;
use super::streams::{Handle, Phase, Sending};
use super::user_data::{Kind, UserData};
use crate::chunk::Chunk;
use crate::io::{Event, StreamId};
use crate::socket;
use io_uring::{opcode, types};
use std::os::fd::AsRawFd;

/// Chunks one send may carry. A body of 16 KiB pieces fills a socket buffer well before that.
const FRAME_CHUNKS: usize = 64;

/// Frames kept for the next sends; more are in use only while as many streams send vectored at once.
const FRAMES_KEPT: usize = 256;

/// Message header and vector of one send.
pub(super) struct Frame {
    header: libc::msghdr,
    vector: [libc::iovec; FRAME_CHUNKS],
}

/// Frames that wait for the next vectored send. Boxed because the kernel keeps a frame's address while a send runs.
#[derive(Default)]
pub(super) struct FrameList {
    #[allow(clippy::vec_box)]
    free: Vec<Box<Frame>>,
}

impl FrameList {
    fn take(&mut self) -> Box<Frame> {
        self.free.pop().unwrap_or_else(|| {
            // SAFETY: plain C structures for which all zeroes is a valid value (null pointers, zero lengths).
            Box::new(unsafe { std::mem::zeroed() })
        })
    }

    fn put(&mut self, frame: Box<Frame>) {
        if self.free.len() < FRAMES_KEPT {
            self.free.push(frame);
        }
    }
}

impl Frame {
    /// Points the frame at `chunks`; returns how many chunks and bytes that is.
    fn fill<'a>(&mut self, chunks: impl Iterator<Item = &'a Chunk>) -> (usize, usize) {
        let (mut count, mut bytes) = (0, 0);
        for (chunk, slot) in chunks.zip(&mut self.vector) {
            slot.iov_base = chunk.as_ptr().cast_mut().cast();
            slot.iov_len = chunk.len();
            count += 1;
            bytes += chunk.len();
        }
        self.header.msg_iov = self.vector.as_mut_ptr();
        self.header.msg_iovlen = count;
        (count, bytes)
    }
}

impl Ring {
    pub(super) fn queue_chunk(&mut self, id: StreamId, chunk: Chunk) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        if chunk.is_empty() || stream.sending != Sending::Open {
            return;
        }
        stream.queued += chunk.len();
        stream.queue.push_back(chunk);
        self.streams.unsettle(id.slot);
    }

    pub(super) fn want_fin(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(id)
            && stream.sending == Sending::Open
        {
            stream.sending = Sending::FinWanted;
            self.streams.unsettle(id.slot);
        }
    }

    /// Starts the next send of an open stream, or its FIN, if none runs.
    pub(super) fn settle_send(&mut self, slot: u32) {
        let (stream, frames) = self.streams.slot_and_frames(slot);
        if stream.in_flight > 0 {
            return;
        }
        if stream.queue.is_empty() {
            if stream.sending == Sending::FinWanted {
                self.send_fin(slot);
            }
            return;
        }
        let flags = libc::MSG_NOSIGNAL;
        let entry = if stream.queue.len() == 1 {
            let chunk = &stream.queue[0];
            let (start, len) = (chunk.as_ptr(), u32::try_from(chunk.len()).unwrap_or(1 << 30));
            stream.in_flight = 1;
            stream.in_flight_bytes = len as usize;
            match &stream.handle {
                Handle::Descriptor(fd) => opcode::Send::new(types::Fd(fd.as_raw_fd()), start, len).flags(flags),
                Handle::Direct => opcode::Send::new(types::Fixed(slot), start, len).flags(flags),
                Handle::None => return,
            }
            .build()
        } else {
            debug_assert!(stream.frame.is_none(), "a frame is on loan for one send");
            let frame = frames.take();
            let frame = stream.frame.insert(frame);
            // Filled where it stays: its vector is part of it.
            let (count, bytes) = frame.fill(stream.queue.iter());
            let header = &raw const frame.header;
            stream.in_flight = count;
            stream.in_flight_bytes = bytes;
            let flags = flags as u32;
            match &stream.handle {
                Handle::Descriptor(fd) => opcode::SendMsg::new(types::Fd(fd.as_raw_fd()), header).flags(flags),
                Handle::Direct => opcode::SendMsg::new(types::Fixed(slot), header).flags(flags),
                Handle::None => return,
            }
            .build()
        };
        self.queue.stats.stream_sends += 1;
        // SAFETY: the bytes belong to the first `in_flight` chunks of the queue, which stay there until the completion,
        // also when the stream is closed; the frame is boxed and stays with the slot.
        unsafe { self.push_stream(Kind::StreamSend, slot, entry) };
    }

    fn send_fin(&mut self, slot: u32) {
        let stream = self.streams.slot(slot);
        stream.sending = Sending::Ended;
        match &stream.handle {
            // The ring would hand a shutdown to a kernel thread; the call itself never blocks.
            Handle::Descriptor(descriptor) => socket::shutdown_write(descriptor),
            Handle::Direct => {
                let entry = opcode::Shutdown::new(types::Fixed(slot), libc::SHUT_WR).build();
                // SAFETY: the entry holds no address.
                unsafe { self.push_stream(Kind::StreamShutdown, slot, entry) };
            }
            Handle::None => {}
        }
    }

    pub(super) fn stream_sent(&mut self, data: UserData, completion: Completion, events: &mut Vec<Event>) {
        let low_water = self.low_water;
        let Some(stream) = self.streams.of_operation(data) else {
            self.queue.stats.late_completions += 1;
            return;
        };
        stream.operations -= 1;
        let expected = std::mem::take(&mut stream.in_flight_bytes);
        stream.in_flight = 0;
        let frame = stream.frame.take();
        let sent = usize::try_from(completion.result);
        let retry = matches!(-completion.result, libc::EAGAIN | libc::EINTR);
        let mut event = None;
        if stream.phase == Phase::Closing {
            stream.queue.clear();
            self.queue.stats.late_completions += 1;
        } else if let Ok(sent) = sent {
            let mut left = sent.min(stream.queued);
            stream.queued -= left;
            while left > 0 {
                let Some(chunk) = stream.queue.front_mut() else {
                    break;
                };
                if chunk.len() > left {
                    chunk.advance(left);
                    break;
                }
                left -= chunk.len();
                stream.queue.pop_front();
            }
            if sent < expected {
                self.queue.stats.partial_sends += 1;
            }
            if stream.queued <= low_water {
                event = Some(Event::Sent {
                    token: stream.token,
                    stream: StreamId { slot: data.slot, generation: data.generation },
                    queued: stream.queued,
                });
            }
        } else if !retry {
            stream.queue.clear();
            stream.queued = 0;
            stream.sending = Sending::Ended;
            self.queue.stats.stream_send_errors += 1;
            event = Some(Event::SendFailed {
                token: stream.token,
                stream: StreamId { slot: data.slot, generation: data.generation },
                error: -completion.result,
            });
        }
        if let Some(frame) = frame {
            self.streams.frames.put(frame);
        }
        events.extend(event);
        self.streams.unsettle(data.slot);
        self.finish_if_closed(data.slot);
    }
}
