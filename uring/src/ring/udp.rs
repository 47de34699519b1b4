//! UDP sockets: one multishot receive of coalesced trains each, into the shared provided buffers.
//!
//! A filled buffer holds the kernel's `io_uring_recvmsg_out`, the sender's name, control messages, then the payload; the
//! lease that goes up is the payload alone, in place. Read next: `udp_send.rs`.

use super::Ring;
use super::queue::{Completion, Queue};
use super::user_data::{Kind, UserData};
use crate::address::{self, CONTROL_RECEIVE_LEN, NAME_LEN};
use crate::io::{Event, Token, UdpId};
use crate::socket::UdpSocket;
use io_uring::{opcode, types};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

/// Bytes before the payload: header, name, control messages.
const PAYLOAD_AT: usize = HEADER_LEN + NAME_LEN + CONTROL_RECEIVE_LEN;
/// `struct io_uring_recvmsg_out`: name, control and payload lengths, flags; 32 bits each.
const HEADER_LEN: usize = 16;

pub(super) struct UdpEntry {
    /// `None`: closed.
    pub(super) socket: Option<UdpSocket>,
    pub(super) token: Token,
    /// Tells the kernel how much room name and control messages have; boxed because the receive keeps its address.
    layout: Box<libc::msghdr>,
    armed: bool,
    /// Trains on their way.
    pub(super) sends: u32,
    /// A closed socket whose trains are still on their way: their entries in the queue name its descriptor, which must
    /// not become another socket's before the kernel has read them.
    leaving: Option<UdpSocket>,
    /// The kernel's drop count at the last receive.
    drops: u32,
    /// Segmentation offload works here; cleared for good when the egress refuses it.
    pub(super) gso: bool,
}

/// UDP sockets by number. A number is used again once nothing of the closed socket is on its way, so that no completion
/// finds a stranger.
#[derive(Default)]
pub(super) struct UdpSockets {
    pub(super) entries: Vec<UdpEntry>,
    free: Vec<u32>,
    /// A receive ended and has to be armed again.
    disarmed: bool,
}

impl UdpSockets {
    /// One train of a socket has completed.
    pub(super) fn train_completed(&mut self, number: u32) {
        let entry = &mut self.entries[number as usize];
        entry.sends -= 1;
        if entry.sends == 0 {
            entry.leaving = None;
        }
        self.release(number);
    }

    /// Frees a closed socket's number if nothing of it is on its way.
    fn release(&mut self, number: u32) {
        let entry = &self.entries[number as usize];
        if entry.socket.is_none() && !entry.armed && entry.sends == 0 {
            debug_assert!(!self.free.contains(&number));
            self.free.push(number);
        }
    }
}

impl Ring {
    /// Receives datagrams from now on ([`Event::Datagrams`]).
    pub fn add_udp(&mut self, socket: UdpSocket, token: Token) -> UdpId {
        // SAFETY: a C structure for which all zeroes is a valid value.
        let mut layout: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        layout.msg_namelen = NAME_LEN as u32;
        layout.msg_controllen = CONTROL_RECEIVE_LEN;
        let entry = UdpEntry {
            socket: Some(socket),
            token,
            layout,
            armed: false,
            sends: 0,
            leaving: None,
            drops: 0,
            gso: self.udp_gso,
        };
        self.udp.disarmed = true;
        match self.udp.free.pop() {
            Some(number) => {
                // Nothing is on its way that knew the earlier entry, so its layout may go.
                self.udp.entries[number as usize] = entry;
                UdpId(number)
            }
            None => {
                self.udp.entries.push(entry);
                UdpId(self.udp.entries.len() as u32 - 1)
            }
        }
    }

    /// Closes a UDP socket; the port is free when the next turn has let go of it. The number may then be another's: its
    /// owner forgets it.
    pub fn close_udp(&mut self, id: UdpId) {
        let udp = &mut *self.udp;
        let Some(entry) = udp.entries.get_mut(id.0 as usize) else {
            return;
        };
        let Some(socket) = entry.socket.take() else {
            return;
        };
        if entry.sends > 0 {
            entry.leaving = Some(socket);
        }
        if entry.armed {
            self.queue.cancel(UserData::new(Kind::UdpReceive, 0, id.0), Queue::IGNORED);
        }
        udp.release(id.0);
    }

    /// The address a UDP socket is bound to.
    pub fn udp_address(&self, id: UdpId) -> Option<SocketAddr> {
        let entry = self.udp.entries.get(id.0 as usize)?;
        Some(entry.socket.as_ref()?.local_address())
    }

    /// Whether a socket's sends are segmented by the kernel; false after its egress refused that once.
    pub fn udp_gso(&self, id: UdpId) -> bool {
        let entry = self.udp.entries.get(id.0 as usize);
        entry.is_some_and(|entry| entry.gso)
    }

    /// Before it is known whether segmentation works.
    pub(crate) fn set_udp_gso(&mut self, id: UdpId, gso: bool) {
        self.udp.entries[id.0 as usize].gso = gso;
    }

    /// Starts the receives that ended, if there are buffers for them.
    pub(super) fn rearm_udp(&mut self) {
        if !self.udp.disarmed || self.udp_buffers.posted() == 0 {
            return;
        }
        self.udp.disarmed = false;
        let group = self.udp_buffers.group();
        for (number, entry) in (0..).zip(self.udp.entries.iter_mut()) {
            let Some(socket) = entry.socket.as_ref().filter(|_| !entry.armed) else {
                continue;
            };
            entry.armed = true;
            let fd = types::Fd(socket.as_raw_fd());
            let receive = opcode::RecvMsgMulti::new(fd, &raw const *entry.layout, group).build();
            // SAFETY: the layout is boxed and its entry is never removed while the ring lives; the buffers belong to
            // the registered ring of buffers.
            unsafe {
                self.queue.push(receive, UserData::new(Kind::UdpReceive, 0, number));
            }
        }
    }

    pub(super) fn udp_received(&mut self, data: UserData, completion: Completion, events: &mut Vec<Event>) {
        let udp = &mut *self.udp;
        let entry = &mut udp.entries[data.slot as usize];
        if !completion.more() {
            entry.armed = false;
            udp.disarmed = true;
            if entry.socket.is_none() {
                udp.release(data.slot);
            }
        }
        let entry = &mut udp.entries[data.slot as usize];
        let Some(index) = completion.buffer() else {
            if completion.result == -libc::ENOBUFS {
                self.queue.stats.udp_buffers_exhausted += 1;
                self.udp_buffers.ran_out();
            } else if completion.result < 0
                && let Some(to) = entry.socket.as_ref().and_then(UdpSocket::peer)
            {
                // What the network said about datagrams of this socket; only connected ones are told.
                let error = -completion.result;
                events.push(Event::DatagramsRefused { token: entry.token, to, error });
            }
            return;
        };
        let Some(socket) = entry.socket.as_ref().filter(|_| completion.result > 0) else {
            self.queue.stats.late_completions += 1;
            self.udp_buffers.discard(index);
            return;
        };
        let local = socket.local_address();
        let mut lease = self.udp_buffers.filled(index, completion.result as usize);
        let stats = &mut self.queue.stats;
        let Some(parsed) = parse(&lease) else {
            stats.udp_receives_invalid += 1;
            return;
        };
        let facts = parsed.facts;
        stats.udp_receives += 1;
        stats.udp_congestion_marks += u64::from(facts.congestion);
        if let Some(drops) = facts.dropped {
            stats.udp_receive_drops += u64::from(drops.wrapping_sub(entry.drops));
            entry.drops = drops;
        }
        lease.advance(PAYLOAD_AT);
        // The kernel's own length bounds it; a datagram is never longer than 16 bits can say.
        let len = lease.len().min(usize::from(u16::MAX));
        lease.truncate(len);
        let segment = facts.segment.filter(|size| *size > 0).unwrap_or(len as u16);
        stats.udp_datagrams_received += len.div_ceil(usize::from(segment)) as u64;
        events.push(Event::Datagrams {
            token: entry.token,
            from: parsed.from,
            to: match facts.to {
                Some(ip) => SocketAddr::new(ip, local.port()),
                None => local,
            },
            segment,
            lease,
        });
    }
}

struct Parsed {
    from: SocketAddr,
    facts: address::ReceiveFacts,
}

/// Reads what stands before the payload; `None`: no payload, cut short, or without a sender.
fn parse(buffer: &[u8]) -> Option<Parsed> {
    if buffer.len() <= PAYLOAD_AT {
        return None;
    }
    let word = |at: usize| buffer[at..at + 4].try_into().map(u32::from_ne_bytes).unwrap_or(0);
    let (name_len, control_len, flags) = (word(0) as usize, word(4) as usize, word(12));
    if flags & (libc::MSG_TRUNC as u32) != 0 {
        return None;
    }
    let name = &buffer[HEADER_LEN..HEADER_LEN + name_len.min(NAME_LEN)];
    let control = HEADER_LEN + NAME_LEN;
    let control = &buffer[control..control + control_len.min(CONTROL_RECEIVE_LEN)];
    Some(Parsed { from: address::parse_address(name)?, facts: address::parse_control(control) })
}

const _: () = assert!(PAYLOAD_AT + (u16::MAX as usize) <= super::UDP_BUFFER);
