//! Connections to origins: one table per worker, with a keep-alive pool per backend.
//!
//! Owns which connection is idle, busy or still connecting. Knows nothing of exchanges but their slot.

use super::dial::Dial;
use crate::config::{BackendId, Generation};
use crate::h1;
use slab::Slab;
use spooky_uring::StreamId;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// One connection to an origin.
pub struct Origin {
    /// Its socket; while `dial` races, the sockets are in there.
    pub stream: StreamId,
    /// Whom it leads to, if its backend has a name.
    pub address: Option<SocketAddr>,
    /// The addresses that race while it is being made, if its backend has a name.
    pub dial: Option<Box<Dial>>,
    /// Its protocol.
    pub protocol: h1::ClientConnection,
    /// The backend it leads to.
    pub backend: BackendId,
    /// The exchange that has it; `None`: idle in the pool.
    pub exchange: Option<u32>,
    /// Whether it is connected.
    pub connected: bool,
    /// Whether it carried an exchange before the one it has.
    pub reused: bool,
    /// Whether receiving is paused, because nobody takes what arrived.
    pub paused: bool,
    /// When connecting began.
    pub began: Instant,
    /// Nothing was taken off it since the receive pool was last looked through for what pins it.
    pub stuck: bool,
    /// Whether it stands on the worker's ready list.
    pub ready: bool,
}

impl Origin {
    /// Whether a socket is this connection's, or may become it.
    pub fn owns(&self, stream: StreamId) -> bool {
        self.stream == stream || self.dial.as_ref().is_some_and(|dial| dial.has(stream))
    }
}

/// All connections of one worker to origins.
pub struct Origins {
    table: Slab<Origin>,
    /// By backend; the most recently used at the back, so that the hot ones are reused and the cold ones age out.
    idle: Vec<VecDeque<(u32, Instant)>>,
    idle_max: usize,
    idle_timeout: Duration,
}

impl Origins {
    /// An empty table with the pool's bounds of `generation`.
    pub fn new(generation: &Generation) -> Self {
        Self {
            table: Slab::new(),
            idle: generation.backends.iter().map(|_| VecDeque::new()).collect(),
            idle_max: generation.performance.pool_idle_connections_per_worker as usize,
            idle_timeout: generation.performance.pool_idle_timeout,
        }
    }

    /// The slot that the next [`Self::insert`] takes, for the socket's token.
    pub fn next_slot(&self) -> u32 {
        self.table.vacant_key() as u32
    }

    /// Adds a connection.
    pub fn insert(&mut self, origin: Origin) -> u32 {
        self.table.insert(origin) as u32
    }

    /// A connection by slot.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Origin> {
        self.table.get_mut(slot as usize)
    }

    /// A connection by slot, to look at.
    pub fn get(&self, slot: u32) -> Option<&Origin> {
        self.table.get(slot as usize)
    }

    /// Every connection with its slot.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Origin> {
        self.table.iter_mut().map(|(_, origin)| origin)
    }

    /// Every connection by slot.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Origin)> {
        self.table.iter().map(|(slot, origin)| (slot as u32, origin))
    }

    /// Panics unless exactly the connections without an exchange stand in the pools, each once and in its own.
    pub fn check_invariants(&self) {
        for (backend, pool) in self.idle.iter().enumerate() {
            for &(slot, _) in pool {
                let origin = self.get(slot).expect("a pooled connection is in the table");
                assert!(origin.exchange.is_none(), "pooled connection {slot} has an exchange");
                assert_eq!(origin.backend.0 as usize, backend, "connection {slot} is in its backend's pool");
                assert_eq!(pool.iter().filter(|&&(other, _)| other == slot).count(), 1);
            }
        }
        let unused = self.iter().filter(|(_, origin)| origin.exchange.is_none()).count();
        assert_eq!(unused, self.count_idle(), "connections without an exchange are in a pool");
    }

    /// Connections open or opening.
    pub fn count(&self) -> usize {
        self.table.len()
    }

    /// Connections that wait in pools.
    pub fn count_idle(&self) -> usize {
        self.idle.iter().map(VecDeque::len).sum()
    }

    /// Takes the most recently used idle connection of a backend.
    pub fn checkout(&mut self, backend: BackendId) -> Option<u32> {
        self.idle[backend.0 as usize].pop_back().map(|(slot, _)| slot)
    }

    /// Puts a connection back; `false`: the pool is full, and the caller closes it.
    #[must_use]
    pub fn checkin(&mut self, slot: u32, now: Instant) -> bool {
        let Some(origin) = self.table.get_mut(slot as usize) else {
            return true;
        };
        let pool = &mut self.idle[origin.backend.0 as usize];
        if pool.len() >= self.idle_max {
            return false;
        }
        origin.exchange = None;
        origin.reused = true;
        pool.push_back((slot, now));
        true
    }

    /// Forgets a connection, idle or not.
    pub fn remove(&mut self, slot: u32) -> Option<Origin> {
        let origin = self.table.try_remove(slot as usize)?;
        if origin.exchange.is_none() && origin.connected {
            let pool = &mut self.idle[origin.backend.0 as usize];
            if let Some(at) = pool.iter().rposition(|&(idle, _)| idle == slot) {
                pool.remove(at);
            }
        }
        Some(origin)
    }

    /// An idle connection that has waited for its whole time, if there is one.
    pub fn expired(&mut self, now: Instant) -> Option<u32> {
        let timeout = self.idle_timeout;
        self.idle
            .iter_mut()
            .find(|pool| pool.front().is_some_and(|&(_, since)| since + timeout <= now))
            .and_then(|pool| pool.front().map(|&(slot, _)| slot))
    }

    /// When the next idle connection will have waited for its whole time.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.idle.iter().filter_map(|pool| pool.front()).map(|&(_, since)| since + self.idle_timeout).min()
    }

    /// Any idle connection, for a drain.
    pub fn any_idle(&self) -> Option<u32> {
        self.idle.iter().find_map(|pool| pool.front().map(|&(slot, _)| slot))
    }
}
