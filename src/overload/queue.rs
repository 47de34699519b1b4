//! Requests that found their upstream full and wait for room there, on one worker.
//!
//! ```text
//! upstream ─▶ ring of lanes, one for each client ─▶ requests of that client, the oldest first
//!                 ▲ turn
//! ```
//! Clients take turns, whatever routes their requests came by: who sends a thousand requests is served as often as who sends
//! one. A route's queue is bounded by how many of its requests wait, and of one client by how many of them wait at the
//! upstream. Everything is linked by position, so that who leaves from the middle costs as little as who is served.
//!
//! A give-back is noted ([`Queue::note_room`]) and served later in the same turn of the worker, since it happens in the middle
//! of something else.

use crate::limits::{AddressKey, QUEUE_PLACE_BYTES};
use slab::Slab;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

/// The rules of a route's queue. Counts are the process's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePolicy {
    /// Requests of the route that may wait; at least 1.
    pub length: u32,
    /// Requests of one client that may wait at the upstream; at least 1.
    pub per_client: u32,
    /// None waits for longer.
    pub wait: Duration,
}

/// Where a request wants to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Position of the upstream that has no room.
    pub upstream: usize,
    /// Position of the way that the request took.
    pub way: usize,
    /// Whose request it is.
    pub client: AddressKey,
}

/// What a waiting request leaves the queue with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Ticket(u32);

/// Why a request may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crowded {
    /// The route's queue is full.
    Route,
    /// The client has its share of it.
    Client,
}

/// No position.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Waiter {
    item: u32,
    lane: u32,
    way: u32,
    next: u32,
    previous: u32,
}

/// One client's requests at one upstream; gone with the last of them.
#[derive(Clone, Copy, Debug)]
struct Lane {
    upstream: u32,
    client: AddressKey,
    first: u32,
    last: u32,
    length: u32,
    /// Neighbours in the upstream's ring.
    next: u32,
    previous: u32,
}

#[derive(Clone, Copy, Debug)]
struct Ring {
    /// The lane whose turn it is.
    turn: u32,
    waiting: u32,
    /// It stands in [`Queue::rooms`].
    noted: bool,
}

const _: () =
    assert!(2 * (size_of::<Waiter>() + size_of::<Lane>() + 48) as u64 <= QUEUE_PLACE_BYTES, "tables grow by doubling");

/// All that waits on one worker.
#[derive(Debug)]
pub struct Queue {
    waiters: Slab<Waiter>,
    lanes: Slab<Lane>,
    /// Upstream and client to lane. Hashed with a secret: clients choose the keys.
    index: HashMap<(u32, AddressKey), u32>,
    /// By position of the upstream.
    rings: Vec<Ring>,
    /// Requests that wait, by position of the way.
    ways: Vec<u32>,
    /// Upstreams where room was made for somebody who waits, each once.
    rooms: Vec<u32>,
}

impl Queue {
    /// Nobody waits.
    #[must_use]
    pub fn new(upstreams: usize, ways: usize) -> Self {
        Self {
            waiters: Slab::new(),
            lanes: Slab::new(),
            index: HashMap::new(),
            rings: vec![Ring { turn: NONE, waiting: 0, noted: false }; upstreams],
            ways: vec![0; ways],
            rooms: Vec::new(),
        }
    }

    /// Requests that wait for an upstream.
    #[inline]
    #[must_use]
    pub fn waiting(&self, upstream: usize) -> u32 {
        self.rings[upstream].waiting
    }

    /// Requests that wait, of all upstreams.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Whether an upstream has room that was not offered to those who wait.
    #[inline]
    #[must_use]
    pub fn has_rooms(&self) -> bool {
        !self.rooms.is_empty()
    }

    /// Puts `item` behind what its client has waiting. `length` and `per_client` are this worker's shares of the policy.
    ///
    /// # Errors
    /// Which bound is reached; nothing has changed.
    pub fn join(&mut self, place: Place, length: u32, per_client: u32, item: u32) -> Result<Ticket, Crowded> {
        if self.ways[place.way] >= length {
            return Err(Crowded::Route);
        }
        let key = (place.upstream as u32, place.client);
        let lane = match self.index.entry(key) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(vacant) => {
                let (upstream, client) = key;
                let lane = Lane { upstream, client, first: NONE, last: NONE, length: 0, next: NONE, previous: NONE };
                let at = self.lanes.insert(lane) as u32;
                vacant.insert(at);
                enter_ring(&mut self.lanes, &mut self.rings[place.upstream], at);
                at
            }
        };
        let row = &mut self.lanes[lane as usize];
        if row.length >= per_client.max(1) {
            return Err(Crowded::Client);
        }
        let waiter = Waiter { item, lane, way: place.way as u32, next: NONE, previous: row.last };
        let ticket = self.waiters.insert(waiter) as u32;
        match row.last {
            NONE => row.first = ticket,
            last => self.waiters[last as usize].next = ticket,
        }
        row.last = ticket;
        row.length += 1;
        self.rings[place.upstream].waiting += 1;
        self.ways[place.way] += 1;
        Ok(Ticket(ticket))
    }

    /// The request whose turn it is at an upstream.
    #[must_use]
    pub fn next(&self, upstream: usize) -> Option<(Ticket, u32)> {
        let lane = self.lanes.get(self.rings[upstream].turn as usize)?;
        Some((Ticket(lane.first), self.waiters[lane.first as usize].item))
    }

    /// The request of [`Self::next`] was served, and the next client has its turn.
    pub fn serve(&mut self, ticket: Ticket) {
        let lane = self.waiters[ticket.0 as usize].lane;
        let Lane { upstream, next, .. } = self.lanes[lane as usize];
        debug_assert_eq!(
            self.next(upstream as usize).map(|(first, _)| first),
            Some(ticket),
            "somebody jumped the queue"
        );
        self.rings[upstream as usize].turn = next;
        self.leave(ticket);
    }

    /// A request waits no more. Whose turn it is does not change, unless it was the last of that client's.
    pub fn leave(&mut self, ticket: Ticket) {
        let Waiter { lane, way, next, previous, .. } = self.waiters.remove(ticket.0 as usize);
        match previous {
            NONE => self.lanes[lane as usize].first = next,
            previous => self.waiters[previous as usize].next = next,
        }
        match next {
            NONE => self.lanes[lane as usize].last = previous,
            next => self.waiters[next as usize].previous = previous,
        }
        let row = &mut self.lanes[lane as usize];
        row.length -= 1;
        let Lane { upstream, client, length, .. } = *row;
        let ring = &mut self.rings[upstream as usize];
        ring.waiting -= 1;
        self.ways[way as usize] -= 1;
        if length == 0 {
            leave_ring(&mut self.lanes, ring, lane);
            self.lanes.remove(lane as usize);
            self.index.remove(&(upstream, client));
        }
    }

    /// Something was given back at an upstream: those who wait for it are to be offered it.
    #[inline]
    pub fn note_room(&mut self, upstream: usize) {
        let ring = &mut self.rings[upstream];
        if ring.waiting > 0 && !std::mem::replace(&mut ring.noted, true) {
            self.rooms.push(upstream as u32);
        }
    }

    /// An upstream where something was given back; each once.
    pub fn take_room(&mut self) -> Option<usize> {
        let upstream = self.rooms.pop()? as usize;
        self.rings[upstream].noted = false;
        Some(upstream)
    }

    /// Panics where links and counts disagree.
    pub fn check_invariants(&self) {
        let mut seen = 0;
        let mut ways = vec![0; self.ways.len()];
        for (upstream, ring) in self.rings.iter().enumerate() {
            let mut waiting = 0;
            let mut lane = ring.turn;
            while lane != NONE {
                let row = &self.lanes[lane as usize];
                assert_eq!(row.upstream as usize, upstream, "a lane is in its upstream's ring");
                assert_eq!(self.lanes[row.next as usize].previous, lane, "a ring is closed");
                assert_eq!(self.index.get(&(row.upstream, row.client)), Some(&lane), "a lane is found by its client");
                let (mut at, mut before, mut length) = (row.first, NONE, 0);
                while at != NONE {
                    let waiter = &self.waiters[at as usize];
                    assert_eq!((waiter.lane, waiter.previous), (lane, before), "who waits stands in one lane");
                    ways[waiter.way as usize] += 1;
                    length += 1;
                    (before, at) = (at, waiter.next);
                }
                assert!(
                    length > 0 && length == row.length && row.last == before,
                    "a lane knows its length and its end"
                );
                waiting += length;
                lane = if row.next == ring.turn { NONE } else { row.next };
            }
            assert_eq!(waiting, ring.waiting, "an upstream knows who waits");
            assert_eq!(ring.noted, self.rooms.contains(&(upstream as u32)), "a note is a note");
            seen += waiting as usize;
        }
        assert_eq!(seen, self.waiters.len(), "everybody who waits has a turn some time");
        assert_eq!(ways, self.ways, "a way knows who waits");
        assert_eq!(self.lanes.len(), self.index.len(), "no lane is empty");
    }
}

/// Puts a lane at the end of the round.
fn enter_ring(lanes: &mut Slab<Lane>, ring: &mut Ring, lane: u32) {
    let (next, previous) = match ring.turn {
        NONE => (lane, lane),
        turn => (turn, lanes[turn as usize].previous),
    };
    lanes[previous as usize].next = lane;
    lanes[next as usize].previous = lane;
    let row = &mut lanes[lane as usize];
    (row.next, row.previous) = (next, previous);
    if ring.turn == NONE {
        ring.turn = lane;
    }
}

fn leave_ring(lanes: &mut Slab<Lane>, ring: &mut Ring, lane: u32) {
    let Lane { next, previous, .. } = lanes[lane as usize];
    lanes[previous as usize].next = next;
    lanes[next as usize].previous = previous;
    if ring.turn == lane {
        ring.turn = if next == lane { NONE } else { next };
    }
}

#[cfg(test)]
mod tests;
