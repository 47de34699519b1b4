//! A hierarchical timer wheel: insert, cancel and reschedule in constant time, and the exact next deadline.
//!
//! Owns: values that wait for a deadline. Refuses to know the clock: the caller brings `now`. Eight levels of 64 slots
//! over ticks of 2^16 ns (65.5 µs) cover every `u64` of nanoseconds. A timer's level is the highest group of six bits in
//! which its tick differs from the wheel's, so everything on a lower level is earlier than everything above it, and the
//! first occupied slot of the lowest occupied level holds the earliest timer. Deadlines keep their nanoseconds: a timer
//! never fires early, and `next_deadline` is exact.
//!
//! ```
//! use spooky_uring::wheel::Wheel;
//! use std::time::{Duration, Instant};
//! let start = Instant::now();
//! let mut wheel = Wheel::new(start, 1024);
//! let key = wheel.insert(start + Duration::from_millis(3), "late").unwrap();
//! wheel.insert(start + Duration::from_millis(1), "soon").unwrap();
//! assert_eq!(wheel.next_deadline(), Some(start + Duration::from_millis(1)));
//! assert_eq!(wheel.expire(start + Duration::from_millis(2)), Some("soon"));
//! assert_eq!(wheel.expire(start + Duration::from_millis(2)), None);
//! assert_eq!(wheel.cancel(key), Some("late"));
//! ```

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

const TICK_BITS: u32 = 16;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = 8;
const _: () = assert!(TICK_BITS + SLOT_BITS * LEVELS as u32 == u64::BITS);

/// End of a list.
const NONE: u32 = u32::MAX;
/// List number of timers that are due and wait to be taken.
const DUE: u16 = (LEVELS * SLOTS) as u16;
/// List number of entries that hold no timer.
const FREE: u16 = DUE + 1;

/// Names one timer; a key whose timer fired or was cancelled finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerKey {
    slot: u32,
    generation: u32,
}

struct Entry<T> {
    /// Nanoseconds since the wheel's start.
    deadline: u64,
    value: Option<T>,
    generation: u32,
    /// The list this entry is in: level × 64 + slot, `DUE` or `FREE`.
    list: u16,
    before: u32,
    behind: u32,
}

#[derive(Clone, Copy)]
struct List {
    first: u32,
    /// Never over the earliest deadline in the list; equal to it unless `stale`.
    earliest: u64,
    /// The earliest timer was removed since `earliest` was computed.
    stale: bool,
}

const EMPTY: List = List { first: NONE, earliest: u64::MAX, stale: false };

/// Timers with values, at most `capacity` of them.
pub struct Wheel<T> {
    start: Instant,
    /// The tick up to which slots have been emptied.
    elapsed: u64,
    entries: Vec<Entry<T>>,
    free: u32,
    len: usize,
    capacity: usize,
    /// Per level, which slots are occupied.
    occupied: [u64; LEVELS],
    lists: Box<[List; LEVELS * SLOTS + 1]>,
}

impl<T> Wheel<T> {
    /// An empty wheel. Deadlines before `start` count as `start`.
    pub fn new(start: Instant, capacity: usize) -> Self {
        assert!(capacity < NONE as usize);
        Self {
            start,
            elapsed: 0,
            entries: Vec::new(),
            free: NONE,
            len: 0,
            capacity,
            occupied: [0; LEVELS],
            lists: Box::new([EMPTY; LEVELS * SLOTS + 1]),
        }
    }

    /// Timers that have neither been taken nor cancelled.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no timer waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a timer; `Err` gives the value back when the wheel is full.
    pub fn insert(&mut self, deadline: Instant, value: T) -> Result<TimerKey, T> {
        let deadline = self.nanos(deadline);
        let slot = if self.free != NONE {
            let slot = self.free;
            let entry = &mut self.entries[slot as usize];
            self.free = entry.behind;
            entry.deadline = deadline;
            entry.value = Some(value);
            slot
        } else if self.entries.len() < self.capacity {
            self.entries.push(Entry {
                deadline,
                value: Some(value),
                generation: 0,
                list: FREE,
                before: NONE,
                behind: NONE,
            });
            (self.entries.len() - 1) as u32
        } else {
            return Err(value);
        };
        self.len += 1;
        self.link(slot);
        Ok(TimerKey { slot, generation: self.entries[slot as usize].generation })
    }

    /// Removes a timer and returns its value.
    pub fn cancel(&mut self, key: TimerKey) -> Option<T> {
        let slot = self.find(key)?;
        self.unlink(slot);
        self.release(slot)
    }

    /// Moves a timer to another deadline; false if it is gone.
    pub fn reschedule(&mut self, key: TimerKey, deadline: Instant) -> bool {
        let Some(slot) = self.find(key) else {
            return false;
        };
        let deadline = self.nanos(deadline);
        if self.entries[slot as usize].deadline != deadline {
            self.unlink(slot);
            self.entries[slot as usize].deadline = deadline;
            self.link(slot);
        }
        true
    }

    /// The deadline of a timer that still waits.
    pub fn deadline(&self, key: TimerKey) -> Option<Instant> {
        let slot = self.find(key)?;
        Some(self.instant(self.entries[slot as usize].deadline))
    }

    /// The earliest deadline, exactly.
    pub fn next_deadline(&mut self) -> Option<Instant> {
        let list = if self.lists[DUE as usize].first != NONE { DUE } else { self.first_list()? };
        let earliest = self.earliest(list);
        Some(self.instant(earliest))
    }

    /// Takes one timer whose deadline is `now` or before; call until `None`. Timers of one tick come in no set order.
    pub fn expire(&mut self, now: Instant) -> Option<T> {
        if self.lists[DUE as usize].first == NONE {
            self.collect_due(self.nanos(now));
        }
        let slot = self.lists[DUE as usize].first;
        if slot == NONE {
            return None;
        }
        self.unlink(slot);
        self.release(slot)
    }

    /// Moves everything due to the `DUE` list and the wheel to `now`.
    fn collect_due(&mut self, now: u64) {
        let tick = now >> TICK_BITS;
        while let Some(list) = self.first_list() {
            let level = list as usize / SLOTS;
            let starts = self.slot_start(level, list as usize % SLOTS);
            if starts > tick {
                break;
            }
            if starts > self.elapsed {
                self.elapsed = starts;
            }
            if level == 0 && starts == tick && self.earliest(list) > now {
                // The current tick's slot, and nothing in it is due yet.
                break;
            }
            let mut slot = std::mem::replace(&mut self.lists[list as usize], EMPTY).first;
            self.occupied[level] &= !(1 << (list as usize % SLOTS));
            while slot != NONE {
                let next = self.entries[slot as usize].behind;
                if self.entries[slot as usize].deadline <= now {
                    self.link_to(slot, DUE);
                } else {
                    // From a higher level: one or more levels down. From the current tick: back to it.
                    self.link(slot);
                }
                slot = next;
            }
        }
        self.elapsed = self.elapsed.max(tick);
    }

    /// The first occupied slot of the lowest occupied level.
    fn first_list(&self) -> Option<u16> {
        let level = self.occupied.iter().position(|slots| *slots != 0)?;
        // No wrap-around: slots before the current one belong to a later round and so to a higher level.
        let slot = self.occupied[level].trailing_zeros() as usize;
        Some((level * SLOTS + slot) as u16)
    }

    /// First tick of a slot in the current round of its level.
    fn slot_start(&self, level: usize, slot: usize) -> u64 {
        let shift = SLOT_BITS * level as u32;
        // The top level's round is everything, and a shift by all bits is not defined.
        let round = self
            .elapsed
            .checked_shr(shift + SLOT_BITS)
            .and_then(|round| round.checked_shl(shift + SLOT_BITS))
            .unwrap_or(0);
        round | (slot as u64) << shift
    }

    fn earliest(&mut self, list: u16) -> u64 {
        if self.lists[list as usize].stale {
            let mut earliest = u64::MAX;
            let mut slot = self.lists[list as usize].first;
            while slot != NONE {
                let entry = &self.entries[slot as usize];
                earliest = earliest.min(entry.deadline);
                slot = entry.behind;
            }
            self.lists[list as usize].earliest = earliest;
            self.lists[list as usize].stale = false;
        }
        self.lists[list as usize].earliest
    }

    fn find(&self, key: TimerKey) -> Option<u32> {
        let entry = self.entries.get(key.slot as usize)?;
        (entry.list != FREE && entry.generation == key.generation).then_some(key.slot)
    }

    fn release(&mut self, slot: u32) -> Option<T> {
        let entry = &mut self.entries[slot as usize];
        entry.list = FREE;
        entry.generation = entry.generation.wrapping_add(1);
        entry.behind = self.free;
        self.free = slot;
        self.len -= 1;
        entry.value.take()
    }

    /// Puts an entry where its deadline belongs.
    fn link(&mut self, slot: u32) {
        let tick = (self.entries[slot as usize].deadline >> TICK_BITS).max(self.elapsed);
        let differs = tick ^ self.elapsed;
        let level = if differs == 0 { 0 } else { ((u64::BITS - 1 - differs.leading_zeros()) / SLOT_BITS) as usize };
        let position = (tick >> (SLOT_BITS * level as u32)) as usize % SLOTS;
        self.occupied[level] |= 1 << position;
        self.link_to(slot, (level * SLOTS + position) as u16);
    }

    fn link_to(&mut self, slot: u32, list: u16) {
        let head = &mut self.lists[list as usize];
        let next = std::mem::replace(&mut head.first, slot);
        let entry = &mut self.entries[slot as usize];
        head.earliest = head.earliest.min(entry.deadline);
        entry.list = list;
        entry.before = NONE;
        entry.behind = next;
        if next != NONE {
            self.entries[next as usize].before = slot;
        }
    }

    fn unlink(&mut self, slot: u32) {
        let Entry { list, before, behind, deadline, .. } = self.entries[slot as usize];
        if behind != NONE {
            self.entries[behind as usize].before = before;
        }
        if before != NONE {
            self.entries[before as usize].behind = behind;
        } else {
            self.lists[list as usize].first = behind;
        }
        let head = &mut self.lists[list as usize];
        if head.first == NONE {
            *head = EMPTY;
            if list != DUE {
                self.occupied[list as usize / SLOTS] &= !(1 << (list as usize % SLOTS));
            }
        } else if deadline == head.earliest {
            head.stale = true;
        }
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }

    fn instant(&self, nanos: u64) -> Instant {
        self.start + Duration::from_nanos(nanos)
    }

    /// Panics if a list and its bookkeeping disagree; for tests and the simulation.
    pub fn check_invariants(&self) {
        let mut seen = 0;
        for (number, list) in self.lists.iter().enumerate() {
            let (level, position) = (number / SLOTS, number % SLOTS);
            if number != DUE as usize {
                let occupied = self.occupied[level] >> position & 1 == 1;
                assert_eq!(occupied, list.first != NONE, "list {number}");
            }
            let (mut slot, mut before) = (list.first, NONE);
            let mut earliest = u64::MAX;
            while slot != NONE {
                let entry = &self.entries[slot as usize];
                assert_eq!((entry.list as usize, entry.before), (number, before));
                assert!(entry.value.is_some());
                if number != DUE as usize && level > 0 {
                    assert!(entry.deadline >> TICK_BITS >= self.slot_start(level, position));
                    assert!(self.slot_start(level, position) > self.elapsed);
                }
                earliest = earliest.min(entry.deadline);
                seen += 1;
                before = slot;
                slot = entry.behind;
            }
            assert!(list.earliest <= earliest && (list.stale || list.earliest == earliest));
        }
        assert_eq!(seen, self.len);
    }
}
