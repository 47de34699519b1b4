//! Sending datagram trains: a fixed pool of 64 KiB slots, one sendmsg with UDP_SEGMENT per train.
//!
//! A train is cut into pieces only where it must be: at 64 segments (older kernels take no more), at the longest payload
//! the kernel takes, and at every datagram once the egress has refused segmentation (EIO). The slot, its address and its
//! control messages belong to the operation until the last piece has completed.

use super::Ring;
use super::queue::Completion;
use super::user_data::{Kind, UserData, next_generation};
use crate::address::{RawAddress, SendControl, as_ipv6};
use crate::chunk::Lease;
use crate::features::StartError;
use crate::io::{Event, Transmit, UdpId};
use crate::pool::Pool;
use io_uring::{opcode, types};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd;

/// Bytes of a slot.
const SLOT_LEN: usize = 64 << 10;
/// Most datagrams in one sendmsg: UDP_MAX_SEGMENTS of older kernels.
const SEGMENTS_MAX: usize = 64;
/// Most bytes in one sendmsg: 65 535 less the IPv6, UDP and link headers, rounded down.
const PAYLOAD_MAX: usize = 65_000;

/// A UDP send buffer. Dropping it unsent gives it back.
#[derive(Debug)]
pub struct UdpSlot {
    lease: Lease,
}

impl Deref for UdpSlot {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.lease
    }
}

impl DerefMut for UdpSlot {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.lease
    }
}

/// Message header and its one-part vector.
struct Piece {
    header: libc::msghdr,
    vector: libc::iovec,
}

struct Send {
    generation: u32,
    /// The bytes, while a send runs.
    lease: Option<Lease>,
    socket: UdpId,
    transmit: Transmit,
    name: RawAddress,
    /// For pieces of one datagram.
    plain: SendControl,
    /// For pieces of several.
    segmented: SendControl,
    pieces: Vec<Piece>,
    /// Pieces that have not completed.
    pending: usize,
    /// The first error of a piece; 0: none.
    error: i32,
    /// Pieces were segmented by the kernel.
    offloaded: bool,
    /// Send all of it again as single datagrams.
    again: bool,
}

/// One send per slot of the pool.
pub(super) struct UdpSends {
    pool: Pool,
    sends: Box<[Send]>,
}

impl UdpSends {
    pub(super) fn new(count: u16) -> Result<Self, StartError> {
        let count = count.max(1);
        let pool = Pool::new(count, SLOT_LEN).map_err(|error| StartError::memory("UDP send buffers", error))?;
        let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
        let sends = (0..count).map(|_| Send {
            generation: 0,
            lease: None,
            socket: UdpId(0),
            transmit: Transmit { len: 0, segment: 0, to: unspecified, from: None },
            name: RawAddress::EMPTY,
            plain: SendControl::EMPTY,
            segmented: SendControl::EMPTY,
            pieces: Vec::new(),
            pending: 0,
            error: 0,
            offloaded: false,
            again: false,
        });
        Ok(Self { pool, sends: sends.collect() })
    }

    pub(super) fn slot(&self) -> Option<UdpSlot> {
        let lease = self.pool.lease_any()?;
        Some(UdpSlot { lease })
    }
}

impl Ring {
    pub(super) fn send_datagrams(&mut self, socket: UdpId, slot: UdpSlot, transmit: Transmit) {
        assert!(transmit.len <= slot.len(), "a train fits its slot");
        assert!(transmit.segment > 0, "datagrams have a size");
        let Some(entry) = self.udp.entries.get(socket.0 as usize) else {
            return;
        };
        let Some(udp) = entry.socket.as_ref().filter(|_| transmit.len > 0) else {
            return;
        };
        let index = self.udp_sends.pool.index_of(&slot.lease);
        let index = index.expect("a slot goes back to the ring it came from");
        let send = &mut self.udp_sends.sends[usize::from(index)];
        debug_assert_eq!(send.pending, 0);
        send.socket = socket;
        send.transmit = transmit;
        let offload = entry.gso;
        let ipv6 = udp.is_ipv6();
        send.name.set_internet(match transmit.to {
            to if ipv6 => as_ipv6(to),
            to => to,
        });
        send.plain.clear();
        // A socket bound to one address sends from it anyway.
        if let Some(from) = transmit.from
            && udp.local_address().ip().is_unspecified()
        {
            send.plain.push_source(from.ip(), ipv6);
        }
        send.segmented.clone_from(&send.plain);
        send.segmented.push_segment(transmit.segment);
        send.lease = Some(slot.lease);
        self.udp.entries[socket.0 as usize].sends += 1;
        self.submit_train(index, offload);
    }

    /// Cuts the train of a slot into pieces and submits them.
    fn submit_train(&mut self, index: u16, offload: bool) {
        let send = &mut self.udp_sends.sends[usize::from(index)];
        let (Some(lease), Some(socket)) =
            (send.lease.as_ref(), self.udp.entries[send.socket.0 as usize].socket.as_ref())
        else {
            // Closed while a train was to be sent again.
            send.lease = None;
            self.udp.train_completed(send.socket.0);
            return;
        };
        let segment = usize::from(send.transmit.segment);
        let segments = match offload {
            true => (PAYLOAD_MAX / segment).clamp(1, SEGMENTS_MAX),
            false => 1,
        };
        let step = segment * segments;
        let len = send.transmit.len;
        let count = len.div_ceil(step);
        send.error = 0;
        send.again = false;
        send.offloaded = false;
        send.pending = count;
        // Before any address of a piece is taken: the vector must not move afterwards. Usually one piece, so this
        // allocates in the first use of a slot only.
        send.pieces.clear();
        send.pieces.reserve(count);
        let fd = types::Fd(socket.as_raw_fd());
        let stats = &mut self.queue.stats;
        stats.udp_sends += count as u64;
        stats.udp_datagrams_sent += len.div_ceil(segment) as u64;
        for start in (0..len).step_by(step) {
            let size = step.min(len - start);
            let control = if size > segment {
                send.offloaded = true;
                &send.segmented
            } else {
                &send.plain
            };
            // SAFETY: a C structure for which all zeroes is a valid value.
            let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
            header.msg_name = send.name.as_ptr().cast_mut().cast();
            header.msg_namelen = send.name.len();
            header.msg_control = control.as_ptr().cast_mut().cast();
            header.msg_controllen = control.len();
            header.msg_iovlen = 1;
            let vector = libc::iovec {
                // SAFETY: `start < len`, which is inside the slot.
                iov_base: unsafe { lease.as_ptr().add(start) }.cast(),
                iov_len: size,
            };
            send.pieces.push(Piece { header, vector });
        }
        let data = UserData::new(Kind::UdpSend, send.generation, u32::from(index));
        for piece in &mut send.pieces {
            piece.header.msg_iov = &raw mut piece.vector;
            let entry = opcode::SendMsg::new(fd, &raw const piece.header).build();
            // SAFETY: piece, name, control and bytes belong to the slot's entry, which neither moves nor changes until
            // `pending` is 0.
            unsafe { self.queue.push(entry, data) };
        }
    }

    pub(super) fn udp_sent(&mut self, data: UserData, completion: Completion, events: &mut Vec<Event>) {
        let Some(send) = self.udp_sends.sends.get_mut(data.slot as usize) else {
            self.queue.stats.late_completions += 1;
            return;
        };
        if send.generation != data.generation || send.pending == 0 {
            self.queue.stats.late_completions += 1;
            return;
        }
        send.pending -= 1;
        if completion.result < 0 {
            let error = -completion.result;
            match error {
                libc::EIO if send.offloaded => {
                    send.again = true;
                    let entry = &mut self.udp.entries[send.socket.0 as usize];
                    if std::mem::replace(&mut entry.gso, false) {
                        self.queue.stats.gso_fallbacks += 1;
                    }
                }
                // Also said of segments longer than the device takes: single sends tell which it is.
                libc::EINVAL if send.offloaded => send.again = true,
                _ if send.error == 0 => send.error = error,
                _ => {}
            }
        }
        if send.pending > 0 {
            return;
        }
        send.generation = next_generation(send.generation);
        if send.again {
            self.submit_train(data.slot as u16, false);
            return;
        }
        send.lease = None;
        let entry = &self.udp.entries[send.socket.0 as usize];
        self.queue.stats.udp_send_errors += u64::from(send.error != 0);
        // Who closed it does not wait for this any more.
        if send.error != 0 && entry.socket.is_some() {
            events.push(Event::DatagramsRefused { token: entry.token, to: send.transmit.to, error: send.error });
        }
        self.udp.train_completed(send.socket.0);
    }
}
