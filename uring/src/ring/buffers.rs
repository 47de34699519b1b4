//! A provided buffer ring: buffers of a pool that the kernel may fill, in the order they were posted.
//!
//! Owns: the ring's page and which buffers are posted. Few are posted at a time, the hottest first, so that receives
//! land in warm memory; when a burst runs them out while the pool still has some, more are posted from then on: many for
//! sockets that bring a little each, a few for those that bring much, since one of them may take all that are posted.

use crate::chunk::Lease;
use crate::features::StartError;
use crate::map::Mapping;
use crate::pool::Pool;
use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use std::sync::atomic::{AtomicU16, Ordering};

/// Size of a pool of receive buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Buffers in all.
    pub count: u16,
    /// Bytes in each.
    pub size: usize,
    /// Buffers posted to the kernel at once, to begin with; twice as many while bursts need more, and four times as many while
    /// they are bursts of small receives. So much can one socket take in one turn, before it can be paused.
    pub posted: u16,
}

/// Turns after which an unneeded large posting is halved.
const DECAY_TURNS: u32 = 4096;

pub(super) struct Buffers {
    pool: Pool,
    group: u16,
    page: Mapping,
    mask: u16,
    tail: u16,
    /// Posted and not yet filled.
    posted: u16,
    /// How many should be posted when a turn begins.
    target: u16,
    target_min: u16,
    /// Most that were filled in one turn since the last decay.
    busiest: u16,
    turns: u32,
    /// The kernel found the ring empty while the pool was not.
    short: bool,
    /// Bytes that were received in this turn, and in how many buffers.
    brought: usize,
    filled: usize,
}

/// Receives of so many bytes on average are small.
const SMALL_RECEIVE: usize = 4096;

impl Buffers {
    pub(super) fn new(ring: &IoUring, group: u16, config: PoolConfig) -> Result<Self, StartError> {
        let count = config.count.clamp(1, 1 << 14);
        let entries = count.next_power_of_two();
        let page = Mapping::new(usize::from(entries) * size_of::<BufRingEntry>())
            .map_err(|error| StartError::memory("provided buffer ring", error))?;
        let pool = Pool::new(count, config.size).map_err(|error| StartError::memory("receive buffers", error))?;
        let address = page.start().as_ptr() as u64;
        // SAFETY: the page holds `entries` entries and lives until after the ring is gone (see `Ring::drop`).
        unsafe { ring.submitter().register_buf_ring_with_flags(address, entries, group, 0) }
            .map_err(|error| StartError::refused("provided buffer rings", "5.19", error))?;
        let target = config.posted.clamp(1, count);
        let mut buffers = Self {
            pool,
            group,
            page,
            mask: entries - 1,
            tail: 0,
            posted: 0,
            target,
            target_min: target,
            busiest: 0,
            turns: 0,
            short: false,
            brought: 0,
            filled: 0,
        };
        buffers.refill();
        Ok(buffers)
    }

    pub(super) fn group(&self) -> u16 {
        self.group
    }

    /// Buffers nobody holds.
    pub(super) fn free(&self) -> usize {
        self.pool.free() + usize::from(self.posted)
    }

    pub(super) fn total(&self) -> usize {
        self.pool.total()
    }

    /// Buffers the kernel has.
    pub(super) fn posted(&self) -> usize {
        usize::from(self.posted)
    }

    /// Begins a turn: posts buffers up to the target.
    pub(super) fn refill(&mut self) {
        self.adapt();
        if self.posted >= self.target {
            return;
        }
        let before = self.tail;
        while self.posted < self.target {
            let Some(index) = self.pool.take() else { break };
            self.write_entry(index);
            self.posted += 1;
        }
        if self.tail != before {
            // SAFETY: the tail lies in the first entry of the page, which is mapped and aligned; the kernel reads it
            // concurrently, hence the atomic.
            let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.page.start().cast().as_ptr()).cast_mut()) };
            // Release: the entries are written before the kernel may read them.
            tail.store(self.tail, Ordering::Release);
        }
    }

    fn write_entry(&mut self, index: u16) {
        let at = usize::from(self.tail & self.mask);
        // SAFETY: `at` is inside the ring; the kernel reads no entry beyond the published tail, so this one is ours.
        // Only address, length and number are written: the first entry's fourth field is the tail itself.
        let entry = unsafe { &mut *self.page.start().cast::<BufRingEntry>().as_ptr().add(at) };
        entry.set_addr(self.pool.start(index).as_ptr() as u64);
        entry.set_len(u32::try_from(self.pool.size()).expect("buffers under 4 GiB"));
        entry.set_bid(index);
        self.tail = self.tail.wrapping_add(1);
    }

    /// The burst size decides how many are posted.
    fn adapt(&mut self) {
        let (brought, filled) = (std::mem::take(&mut self.brought), std::mem::take(&mut self.filled));
        // What one turn takes is what one socket can take before anybody can pause it.
        let times = if brought <= filled * SMALL_RECEIVE { 4 } else { 2 };
        let most = self.target_min.saturating_mul(times).min(self.pool.total() as u16);
        self.target = self.target.min(most);
        if std::mem::take(&mut self.short) {
            self.target = self.target.saturating_mul(2).min(most);
            self.turns = 0;
            self.busiest = 0;
            return;
        }
        self.turns += 1;
        if self.turns == DECAY_TURNS {
            if self.busiest < self.target / 2 {
                self.target = (self.target / 2).max(self.target_min);
            }
            self.turns = 0;
            self.busiest = 0;
        }
    }

    /// The kernel ended a receive because no buffer was posted.
    pub(super) fn ran_out(&mut self) {
        self.short |= self.pool.free() > 0;
    }

    /// Ends a turn that began with `before` buffers posted.
    pub(super) fn note_turn(&mut self, before: usize) {
        let filled = before.saturating_sub(self.posted()) as u16;
        self.busiest = self.busiest.max(filled);
    }

    /// The buffer that a completion names, of which the kernel filled `len` bytes.
    pub(super) fn filled(&mut self, index: u16, len: usize) -> Lease {
        self.posted -= 1;
        self.brought += len;
        self.filled += 1;
        self.pool.lease(index, 0, len)
    }

    /// Takes back a buffer whose bytes nobody wants.
    pub(super) fn discard(&mut self, index: u16) {
        self.posted -= 1;
        self.pool.put(index);
    }

    /// After the last operation: the kernel forgets the ring, so that its page may go.
    pub(super) fn unregister(&self, ring: &IoUring) {
        // It fails only if it was never registered.
        let _ = ring.submitter().unregister_buf_ring(self.group);
    }
}
