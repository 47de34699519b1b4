//! Listening stream sockets: one multishot accept each.
//!
//! Accepted sockets are plain descriptors: the peer's address of a direct one cannot be asked for on the floor kernel.
//! TCP_NODELAY is inherited from the listener (`socket.rs` sets it there).

use super::queue::Completion;
use super::streams::Phase;
use super::user_data::{GENERATION_MASK, Kind, UserData};
use super::{ACCEPT_RETRY, Ring};
use crate::io::{Event, ListenerId, Token};
use crate::socket::{self, Listener};
use io_uring::{opcode, types};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

struct Entry {
    /// `None`: listening stopped.
    socket: Option<Listener>,
    token: Token,
    armed: bool,
}

/// Listeners by number. Numbers are never reused: a process has few listeners, and each of a reload gets a new one.
#[derive(Default)]
pub(super) struct Listeners {
    entries: Vec<Entry>,
}

impl Ring {
    /// Accepts connections from now on ([`Event::Accepted`]).
    pub fn listen(&mut self, socket: Listener, token: Token) -> ListenerId {
        let number = self.listeners.entries.len() as u32;
        assert!(number < GENERATION_MASK, "listeners are few");
        self.listeners.entries.push(Entry { socket: Some(socket), token, armed: false });
        self.arm_accept(number);
        ListenerId(number)
    }

    fn arm_accept(&mut self, number: u32) {
        let entry = &mut self.listeners.entries[number as usize];
        if let Some(socket) = &entry.socket
            && !entry.armed
        {
            entry.armed = true;
            let fd = types::Fd(socket.as_raw_fd());
            // Not SOCK_NONBLOCK: the ring would then answer EAGAIN instead of waiting.
            let accept = opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build();
            let data = UserData::new(Kind::Accept, 0, number);
            // SAFETY: the entry holds no address.
            unsafe { self.queue.push(accept, data) };
        }
    }

    pub(super) fn rearm_listeners(&mut self) {
        for number in 0..self.listeners.entries.len() as u32 {
            self.arm_accept(number);
        }
    }

    pub(super) fn remove_listener(&mut self, id: ListenerId) {
        let Some(entry) = self.listeners.entries.get_mut(id.0 as usize) else {
            return;
        };
        // Dropping our descriptor frees the port once the accept has let go of the socket.
        if entry.socket.take().is_some() && entry.armed {
            let target = UserData::new(Kind::Accept, 0, id.0);
            self.queue.cancel(target, super::queue::Queue::IGNORED);
        }
    }

    pub(super) fn accepted(&mut self, data: UserData, completion: Completion, events: &mut Vec<Event>) {
        let entry = &mut self.listeners.entries[data.slot as usize];
        let token = entry.token;
        let listening = entry.socket.is_some();
        if !completion.more() {
            entry.armed = false;
        }
        if completion.result >= 0 {
            // SAFETY: the kernel made this descriptor for us just now.
            let socket = unsafe { OwnedFd::from_raw_fd(completion.result) };
            if !listening {
                // Accepted while the listener was being removed: the client sees a reset instead of silence.
                self.queue.stats.late_completions += 1;
                socket::linger_reset(&socket);
            } else {
                let peer = socket::peer_address(&socket);
                match self.adopt_stream(socket, token) {
                    Some(stream) => {
                        debug_assert_eq!(self.streams.slot(stream.slot).phase, Phase::Open);
                        self.queue.stats.accepts += 1;
                        events.push(Event::Accepted { token, stream, peer });
                    }
                    None => self.queue.stats.accepts_refused += 1,
                }
            }
        }
        if completion.more() || !listening {
            return;
        }
        match -completion.result {
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => {
                // Trying at once would spin: the connection stays in the queue until a descriptor is free.
                self.queue.stats.accepts_stalled += 1;
                self.accept_retry = Some(self.now + ACCEPT_RETRY);
            }
            _ => self.arm_accept(data.slot),
        }
    }
}

/// Closes what was accepted while the ring stopped.
pub(super) fn close_accepted(result: i32) {
    if result >= 0 {
        // SAFETY: the kernel made this descriptor for us, and nobody else knows it.
        drop(unsafe { OwnedFd::from_raw_fd(result) });
    }
}
