//! Listening stream sockets: one multishot accept each.
//!
//! A connection costs its owner more than what is asked on it, so a crowd of them is told over several turns. Those that
//! wait are held here; when they are many, accepting rests, and more wait in the sockets' own queues.
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
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Connections that are told in one turn.
const TOLD_PER_TURN: usize = 64;

/// Accepted connections that wait for their turn when accepting rests. The kernel may have some more under way.
const WAITING: usize = TOLD_PER_TURN;

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
    /// Connections that were told in this turn.
    told: usize,
    /// Accepted, and not told yet.
    waiting: VecDeque<(UserData, Completion)>,
    /// Nothing is accepted until nothing waits any more. Invariant between turns: something waits then.
    resting: bool,
}

impl Listeners {
    /// Whether connections wait to be told.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The descriptors that were not told, at the end of a ring.
    pub(super) fn close_waiting(&mut self) {
        for (_, completion) in self.waiting.drain(..) {
            close_accepted(completion.result);
        }
    }
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
        let Listeners { entries, resting, .. } = &mut self.listeners;
        let entry = &mut entries[number as usize];
        if let Some(socket) = &entry.socket
            && !entry.armed
            && !*resting
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

    /// Begins a turn with those that have waited longest.
    pub(super) fn tell_waiting(&mut self, events: &mut Vec<Event>) {
        self.listeners.told = 0;
        while self.listeners.told < TOLD_PER_TURN
            && let Some((data, completion)) = self.listeners.waiting.pop_front()
        {
            self.tell_accepted(data, completion, events);
        }
        // In the turn that tells the last of them: nothing would wake another.
        if self.listeners.waiting.is_empty() && std::mem::take(&mut self.listeners.resting) {
            self.rearm_listeners();
        }
    }

    pub(super) fn accepted(&mut self, data: UserData, completion: Completion, events: &mut Vec<Event>) {
        if completion.result < 0 || self.listeners.told < TOLD_PER_TURN {
            self.tell_accepted(data, completion, events);
            return;
        }
        self.listeners.waiting.push_back((data, completion));
        if self.listeners.waiting.len() >= WAITING && !std::mem::replace(&mut self.listeners.resting, true) {
            self.queue.stats.accepts_rested += 1;
            for number in 0..self.listeners.entries.len() as u32 {
                if self.listeners.entries[number as usize].armed {
                    let target = UserData::new(Kind::Accept, 0, number);
                    self.queue.cancel(target, super::queue::Queue::IGNORED);
                }
            }
        }
    }

    fn tell_accepted(&mut self, data: UserData, completion: Completion, events: &mut Vec<Event>) {
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
                        self.listeners.told += 1;
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
