//! What will happen when: the simulated world's only clockwork.

use super::datagrams::Datagram;
use crate::chunk::Lease;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Something that happens at its time.
#[derive(Debug)]
pub(super) enum Due {
    /// A datagram reaches a peer.
    ToPeer { peer: usize, datagram: Datagram },
    /// A datagram reaches the machine.
    ToMachine { datagram: Datagram },
    /// A peer's deadline, or a test's wish.
    PeerWake { peer: usize, forced: bool },
    /// A UDP send is complete.
    SlotFree { lease: Lease },
    /// The outcome of a connect.
    Connected { connection: usize, result: Result<(), i32> },
    /// A stream send is complete: so many bytes were taken.
    Sent { connection: usize, taken: usize },
    /// Bytes reach a session.
    ToSession { connection: usize, bytes: Vec<u8> },
    /// The machine's FIN reaches a session.
    FinToSession { connection: usize },
    /// The machine's close reaches a session.
    CloseToSession { connection: usize, reset: bool },
    /// A session's own time.
    SessionWake { connection: usize },
    /// A session's bytes reach the machine.
    FromSession { connection: usize, bytes: Vec<u8> },
    /// A session's end reaches the machine.
    EndFromSession { connection: usize, reset: bool },
    /// A file took a chunk.
    Written { file: u32 },
    /// Something that rested looks again.
    Retry,
    /// A wait that ends for no reason.
    Alarm,
}

struct Entry {
    at: Instant,
    /// Entries of one moment keep their order.
    number: u64,
    due: Due,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest: the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

#[derive(Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Entry>,
    number: u64,
}

impl Agenda {
    pub(super) fn add(&mut self, at: Instant, due: Due) {
        self.number += 1;
        self.heap.push(Entry { at, number: self.number, due });
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// The next entry whose time has come.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Due> {
        if self.next_at()? > now {
            return None;
        }
        self.heap.pop().map(|entry| entry.due)
    }
}
