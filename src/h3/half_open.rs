//! Owns which connections are in handshake: found by the IDs that their clients made up, in the order in which they came, and
//! bounded. For one more the oldest makes room, if it has had its chance; else clients that fall silent in the middle of a
//! handshake would keep everybody out for as long as a handshake may take.
//!
//! Knows no connections; [`super::endpoint`] asks, and has the ones that it is told end.

use super::endpoint::ConnKey;
use crate::limits::quic::{HALF_OPEN_GRACE, HALF_OPEN_LEAVING};
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// Longest connection ID of version 1 (RFC 9000 §17.2).
pub(super) const ID_LEN_MAX: usize = 20;

/// A connection ID that a client made up.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FirstId {
    bytes: [u8; ID_LEN_MAX],
    len: u8,
}

impl FirstId {
    pub(super) fn new(id: &[u8]) -> Option<Self> {
        let mut bytes = [0; ID_LEN_MAX];
        bytes.get_mut(..id.len())?.copy_from_slice(id);
        Some(Self { bytes, len: id.len() as u8 })
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Whether there is room for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    /// If this one makes it.
    Behind(ConnKey),
    No,
}

/// The handshakes of one endpoint.
pub(super) struct HalfOpen {
    /// Hashed with a secret: clients choose the keys.
    ids: HashMap<FirstId, u32>,
    /// These, the oldest first, and some that are over by now.
    order: VecDeque<(ConnKey, Instant)>,
    /// Bound on `ids`, without those that make room.
    max: usize,
}

impl HalfOpen {
    pub(super) fn new(max: usize) -> Self {
        Self { ids: HashMap::new(), order: VecDeque::new(), max }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The slot of the connection for which a client made this ID up.
    pub(super) fn find(&self, id: &FirstId) -> Option<u32> {
        self.ids.get(id).copied()
    }

    /// Whether one more may begin. `runs` says of each whether its handshake is still under way.
    pub(super) fn room(&mut self, now: Instant, runs: impl Fn(ConnKey) -> bool) -> Room {
        if self.ids.len() < self.max {
            return Room::Free;
        }
        // Those that were told to go count until they are gone, which is in the same turn.
        if self.ids.len() >= self.max + HALF_OPEN_LEAVING {
            return Room::No;
        }
        while self.order.front().is_some_and(|&(key, _)| !runs(key)) {
            self.order.pop_front();
        }
        match self.order.front() {
            Some(&(oldest, since)) if now >= since + HALF_OPEN_GRACE => Room::Behind(oldest),
            _ => Room::No,
        }
    }

    /// One began, behind all others.
    pub(super) fn insert(&mut self, id: FirstId, key: ConnKey, now: Instant, runs: impl Fn(ConnKey) -> bool) {
        // As many again are over at most: looking through them costs each a constant.
        if self.order.len() >= 2 * (self.max + HALF_OPEN_LEAVING) {
            self.order.retain(|&(key, _)| runs(key));
        }
        self.ids.insert(id, key.slot);
        self.order.push_back((key, now));
    }

    /// One is done or gone.
    pub(super) fn remove(&mut self, id: &FirstId) {
        self.ids.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::time::Duration;

    struct Crowd {
        half_open: HalfOpen,
        runs: HashSet<u32>,
        start: Instant,
    }

    fn key(slot: u32) -> ConnKey {
        ConnKey { slot, tag: 1 }
    }

    fn id(slot: u32) -> FirstId {
        FirstId::new(&slot.to_be_bytes()).unwrap()
    }

    impl Crowd {
        fn of(max: usize) -> Self {
            Self { half_open: HalfOpen::new(max), runs: HashSet::new(), start: Instant::now() }
        }

        fn at(&self, millis: u64) -> Instant {
            self.start + Duration::from_millis(millis)
        }

        fn room(&mut self, millis: u64) -> Room {
            let now = self.at(millis);
            self.half_open.room(now, |key| self.runs.contains(&key.slot))
        }

        fn insert(&mut self, slot: u32, millis: u64) {
            self.runs.insert(slot);
            let now = self.at(millis);
            self.half_open.insert(id(slot), key(slot), now, |key| self.runs.contains(&key.slot));
        }

        /// Its handshake is done, or it is gone.
        fn end(&mut self, slot: u32) {
            self.runs.remove(&slot);
            self.half_open.remove(&id(slot));
        }
    }

    #[test]
    fn the_oldest_makes_room_when_it_has_had_its_chance() {
        let mut crowd = Crowd::of(3);
        for slot in 0..3 {
            assert_eq!(crowd.room(u64::from(slot)), Room::Free);
            crowd.insert(slot, u64::from(slot));
        }
        assert_eq!(crowd.room(999), Room::No);
        assert_eq!(crowd.room(1_000), Room::Behind(key(0)));
        // It has gone on meanwhile: the next one is the oldest.
        crowd.end(0);
        assert_eq!(crowd.room(1_000), Room::Free);
        crowd.insert(3, 1_000);
        assert_eq!(crowd.room(1_000), Room::No);
        assert_eq!(crowd.room(1_001), Room::Behind(key(1)));
        assert_eq!((crowd.half_open.find(&id(1)), crowd.half_open.find(&id(0))), (Some(1), None));
    }

    #[test]
    fn those_that_make_room_count_until_they_are_gone() {
        let mut crowd = Crowd::of(40);
        for slot in 0..40 {
            crowd.insert(slot, 0);
        }
        for slot in 0..HALF_OPEN_LEAVING as u32 {
            assert_eq!(crowd.room(2_000), Room::Behind(key(slot)));
            // Told to go, but still there.
            crowd.runs.remove(&slot);
            crowd.insert(100 + slot, 2_000);
        }
        assert_eq!(crowd.room(2_000), Room::No);
        crowd.half_open.remove(&id(0));
        assert_eq!(crowd.room(2_000), Room::Behind(key(HALF_OPEN_LEAVING as u32)));
    }

    #[test]
    fn what_is_over_is_forgotten_in_time() {
        let mut crowd = Crowd::of(10);
        // The first one stays in front of all that come and go behind it.
        crowd.insert(0, 0);
        for slot in 1..1_000 {
            crowd.insert(slot, 1);
            crowd.end(slot);
            assert!(crowd.half_open.order.len() <= 2 * (10 + HALF_OPEN_LEAVING));
        }
        assert!(crowd.half_open.order.contains(&(key(0), crowd.start)));
    }

    #[test]
    fn ids_longer_than_any_are_none() {
        assert!(FirstId::new(&[1; ID_LEN_MAX]).is_some_and(|id| id.as_slice() == [1; ID_LEN_MAX]));
        assert!(FirstId::new(&[1; ID_LEN_MAX + 1]).is_none());
    }
}
