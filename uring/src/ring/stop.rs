//! The end of a ring: nothing is with the kernel any more, ports are free at once, and memory goes only then.
//!
//! Closing the ring's descriptor alone would end it asynchronously: sockets stayed bound for tens of milliseconds, and
//! buffers were freed while a receive could still write to them.

use super::Ring;
use super::user_data::{Kind, UserData};
use std::mem::ManuallyDrop;

impl Drop for Ring {
    fn drop(&mut self) {
        // What cancelled operations report is of no use any more, but buffers and descriptors in their reports are.
        let (stream_buffers, udp_buffers) = (&mut self.stream_buffers, &mut self.udp_buffers);
        let quiet = self.queue.stop(|completion| {
            let Some(data) = UserData::from_bits(completion.user_data) else {
                return;
            };
            match (data.kind, completion.buffer()) {
                (Kind::StreamReceive, Some(index)) => stream_buffers.discard(index),
                (Kind::UdpReceive, Some(index)) => udp_buffers.discard(index),
                (Kind::Accept, _) => super::listeners::close_accepted(completion.result),
                _ => {}
            }
        });
        self.listeners.close_waiting();
        if self.direct_connect {
            let _ = self.queue.ring().submitter().unregister_files();
        }
        self.stream_buffers.unregister(self.queue.ring());
        self.udp_buffers.unregister(self.queue.ring());
        if !quiet {
            // Some operation (a write to a hung file system, say) did not let go within the patience of `stop`. What it
            // points to must outlive us, so the tables stay for ever; the process is ending anyway.
            return;
        }
        // SAFETY: each is dropped once, here, and never used again; no operation is left that points into them.
        unsafe {
            ManuallyDrop::drop(&mut self.streams);
            ManuallyDrop::drop(&mut self.udp);
            ManuallyDrop::drop(&mut self.udp_sends);
            ManuallyDrop::drop(&mut self.sources);
            ManuallyDrop::drop(&mut self.stream_buffers);
            ManuallyDrop::drop(&mut self.udp_buffers);
        }
    }
}
