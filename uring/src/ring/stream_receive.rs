//! Receiving from streams: one multishot receive per stream into the shared provided buffers.
//!
//! ```text
//!            resume                pause
//!   Idle ───────────────▶ Armed ─────────▶ Cancelling ──(last completion)──▶ Idle
//!    ▲    (buffers back)    │ │                               resumed meanwhile: Armed
//!    └── Starved ◀──ENOBUFS─┘ └──FIN, error──▶ Ended
//! ```
//! Bytes that arrive between the pause and the last completion are delivered: they have left the socket.

use super::Ring;
use super::queue::Completion;
use super::streams::{Handle, Phase, Receiving};
use super::user_data::{Kind, UserData};
use crate::io::{End, Event, StreamId};
use io_uring::{opcode, squeue, types};
use std::os::fd::AsRawFd;
use std::ptr::null_mut;

impl Ring {
    pub(super) fn want_bytes(&mut self, id: StreamId, wanted: bool) {
        if let Some(stream) = self.streams.get_mut(id)
            && stream.wanted != wanted
        {
            stream.wanted = wanted;
            self.streams.unsettle(id.slot);
        }
    }

    /// Brings the receive of an open stream to what its owner wants.
    pub(super) fn settle_receive(&mut self, slot: u32) {
        let stream = self.streams.slot(slot);
        match (stream.receiving, stream.wanted) {
            (Receiving::Idle, true) => self.arm_receive(slot),
            (Receiving::Armed, false) => {
                stream.receiving = Receiving::Cancelling;
                self.cancel_stream_operation(slot, Kind::StreamReceive);
            }
            // Its entry on the starved list finds it idle, and is skipped.
            (Receiving::Starved, false) => stream.receiving = Receiving::Idle,
            _ => {}
        }
    }

    fn arm_receive(&mut self, slot: u32) {
        let group = self.stream_buffers.group();
        let others_wait = self.streams.starved.iter().any(|list| !list.is_empty());
        let stream = self.streams.slot(slot);
        // While others wait for buffers nobody gets more than one: a socket with much to bring would take all there are.
        let one = others_wait || stream.receiving == Receiving::Starved;
        let entry = match (&stream.handle, one) {
            (Handle::Descriptor(fd), true) => {
                one_buffer(opcode::Recv::new(types::Fd(fd.as_raw_fd()), null_mut(), 0), group)
            }
            (Handle::Direct, true) => one_buffer(opcode::Recv::new(types::Fixed(slot), null_mut(), 0), group),
            (Handle::Descriptor(fd), false) => opcode::RecvMulti::new(types::Fd(fd.as_raw_fd()), group).build(),
            (Handle::Direct, false) => opcode::RecvMulti::new(types::Fixed(slot), group).build(),
            (Handle::None, _) => return,
        };
        stream.receiving = Receiving::Armed;
        // SAFETY: the entry holds no address; the buffers belong to the registered ring of buffers.
        unsafe { self.push_stream(Kind::StreamReceive, slot, entry) };
    }

    /// Buffers came back: the streams that waited longest go on, no more of them than there are buffers. Streams that have
    /// received before and newcomers take turns, so that a crowd of connections keeps none waiting that was there before.
    pub(super) fn rearm_starved_streams(&mut self) {
        let mut buffers = self.stream_buffers.posted();
        let mut turn = 0;
        while buffers > 0 {
            turn ^= 1;
            let [known, new] = &mut self.streams.starved;
            let (first, second) = if turn == 1 { (known, new) } else { (new, known) };
            let Some(slot) = first.pop_front().or_else(|| second.pop_front()) else {
                break;
            };
            let stream = self.streams.slot(slot);
            stream.starving = false;
            // It may have been paused or closed meanwhile, or be another use of the slot.
            if stream.phase == Phase::Open && stream.receiving == Receiving::Starved {
                self.arm_receive(slot);
                buffers -= 1;
            }
        }
    }

    pub(super) fn stream_received(&mut self, data: UserData, completion: Completion, events: &mut Vec<Event>) {
        let len = usize::try_from(completion.result).unwrap_or(0);
        let Some(stream) = self.streams.of_operation(data) else {
            self.queue.stats.late_completions += 1;
            self.discard_stream_buffer(completion);
            return;
        };
        let ended = !completion.more();
        if ended {
            stream.operations -= 1;
        }
        if stream.phase == Phase::Closing {
            self.queue.stats.late_completions += 1;
            self.discard_stream_buffer(completion);
            if ended {
                self.finish_if_closed(data.slot);
            }
            return;
        }
        let id = StreamId { slot: data.slot, generation: data.generation };
        let token = stream.token;
        if len > 0 {
            stream.received = true;
            if ended {
                self.receive_again(id);
            }
            let Some(index) = completion.buffer() else {
                return;
            };
            self.queue.stats.stream_receives += 1;
            let lease = self.stream_buffers.filled(index, len);
            events.push(Event::Received { token, stream: id, lease });
            return;
        }
        self.discard_stream_buffer(completion);
        let end = match -completion.result {
            0 => End::Fin,
            libc::ENOBUFS => {
                self.queue.stats.stream_buffers_exhausted += 1;
                self.stream_buffers.ran_out();
                self.starve(id);
                return;
            }
            // Ours, or a kernel that asks to try again.
            libc::ECANCELED | libc::EAGAIN | libc::EINTR => {
                if ended {
                    self.receive_again(id);
                }
                return;
            }
            error => End::Error(error),
        };
        self.streams.slot(data.slot).receiving = Receiving::Ended;
        events.push(Event::Ended { token, stream: id, end });
    }

    /// The receive is over, the stream is not.
    fn receive_again(&mut self, id: StreamId) {
        self.streams.slot(id.slot).receiving = Receiving::Idle;
        self.streams.unsettle(id.slot);
    }

    fn starve(&mut self, id: StreamId) {
        let stream = self.streams.slot(id.slot);
        if !stream.wanted {
            stream.receiving = Receiving::Idle;
            return;
        }
        stream.receiving = Receiving::Starved;
        if !stream.starving {
            stream.starving = true;
            let newcomer = usize::from(!stream.received);
            self.streams.starved[newcomer].push_back(id.slot);
        }
    }

    fn discard_stream_buffer(&mut self, completion: Completion) {
        if let Some(index) = completion.buffer() {
            self.stream_buffers.discard(index);
        }
    }
}

/// A receive into one buffer of the group.
fn one_buffer(receive: opcode::Recv, group: u16) -> squeue::Entry {
    receive.buf_group(group).build().flags(squeue::Flags::BUFFER_SELECT)
}
