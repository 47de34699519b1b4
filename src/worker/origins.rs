//! Connections to origins: one table per worker, with a pool of unused ones per backend, and those that more exchanges may
//! share.
//!
//! Owns which connection is unused, busy, shared or still being made. Knows nothing of exchanges but their slot; what a
//! connection is made of is [`super::origin`]'s.

use super::origin::{Origin, Speech};
use crate::config::{BackendId, BackendScheme, Generation};
use crate::exchange::{Upkey, Upstream};
use crate::h2;
use crate::http::Output;
use crate::limits;
use crate::proxy_protocol::Ends;
use slab::Slab;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A connection that an attempt can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// An unused one; it is the attempt's alone.
    Idle(u32),
    /// One that carries others too.
    Shared(u32),
    /// One that is being made, and will carry others too.
    Making(u32),
}

/// What is known of the connections to one backend.
#[derive(Default)]
struct Pool {
    /// The most recently used at the back, so that the hot ones are reused and the cold ones age out.
    idle: VecDeque<(u32, Instant)>,
    /// Those of HTTP/2. Invariant: each is in the table, and settled.
    shared: Vec<u32>,
    /// Those that are being made and may turn out to be of HTTP/2.
    making: Vec<u32>,
    /// TLS has said that this backend speaks HTTP/1.1: nobody waits for a connection that will not be shared.
    is_single: bool,
}

/// All connections of one worker to origins.
pub struct Origins {
    table: Slab<Origin>,
    /// By backend.
    pools: Vec<Pool>,
    idle_max: usize,
    idle_timeout: Duration,
}

impl Origins {
    /// An empty table with the pool's bounds of `generation`.
    pub fn new(generation: &Generation) -> Self {
        let pool = |scheme| Pool { is_single: scheme == BackendScheme::Http, ..Pool::default() };
        Self {
            table: Slab::new(),
            pools: generation.backends.iter().map(|backend| pool(backend.scheme)).collect(),
            idle_max: generation.performance.pool_idle_connections_per_worker as usize,
            idle_timeout: generation.performance.pool_idle_timeout,
        }
    }

    fn pool(&mut self, backend: BackendId) -> &mut Pool {
        &mut self.pools[backend.0 as usize]
    }

    /// The slot that the next [`Self::insert`] takes, for the socket's token.
    pub fn next_slot(&self) -> u32 {
        self.table.vacant_key() as u32
    }

    /// Adds a connection.
    pub fn insert(&mut self, origin: Origin) -> u32 {
        let (backend, settled) = (origin.backend, origin.is_settled());
        let slot = self.table.insert(origin) as u32;
        let pool = self.pool(backend);
        if !pool.is_single && !settled {
            pool.making.push(slot);
        }
        slot
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

    /// The origin's end of an exchange, once its connection is settled. `out` takes what HTTP/1.1 wants to send.
    #[inline]
    pub fn end<'a>(&'a mut self, key: Upkey, out: &'a mut Output) -> Option<Upstream<'a>> {
        match &mut self.table.get_mut(key.origin as usize)?.speech {
            Speech::Unsettled => None,
            Speech::H1(connection) => Some(Upstream::H1 { connection, out }),
            Speech::H2(connection) => Some(Upstream::H2 { connection, stream: key.stream }),
        }
    }

    /// Looks for a connection that an attempt on a backend can go on: one that was made for the same client, if it says for whom.
    pub fn find(&mut self, backend: BackendId, client: Option<Ends>, needs_fresh: bool) -> Option<Found> {
        let Self { table, pools, .. } = self;
        let pool = &mut pools[backend.0 as usize];
        let of_client = |slot: &u32| table.get(*slot as usize).filter(|origin| origin.client == client);
        let can_open = |slot: &u32| match of_client(slot).map(|origin| &origin.speech) {
            Some(Speech::H2(connection)) => connection.can_open(),
            _ => false,
        };
        // The first that has room: streams gather on few connections, and the others age out.
        if let Some(slot) = pool.shared.iter().copied().find(can_open) {
            return Some(Found::Shared(slot));
        }
        let has_room =
            |slot: &u32| of_client(slot).is_some_and(|origin| origin.waiting.len() < limits::h2::CLIENT_STREAMS_UNSAID);
        if !pool.is_single
            && let Some(slot) = pool.making.iter().copied().find(has_room)
        {
            return Some(Found::Making(slot));
        }
        if needs_fresh {
            return None;
        }
        let at = pool
            .idle
            .iter()
            .rposition(|(slot, _)| of_client(slot).is_some_and(|origin| matches!(origin.speech, Speech::H1(_))))?;
        let (slot, _) = pool.idle.remove(at)?;
        table[slot as usize].resting = false;
        Some(Found::Idle(slot))
    }

    /// A connection is unused no longer. Whether it was.
    pub fn rouse(&mut self, slot: u32) -> bool {
        let Some(origin) = self.table.get_mut(slot as usize) else {
            return false;
        };
        if !std::mem::take(&mut origin.resting) {
            return false;
        }
        let pool = &mut self.pools[origin.backend.0 as usize];
        pool.idle.retain(|(idle, _)| *idle != slot);
        true
    }

    /// It is known what a connection speaks; from now on others can go on it, if it is HTTP/2.
    pub fn settle(&mut self, slot: u32, speech: Speech) {
        let Some(origin) = self.table.get_mut(slot as usize) else {
            return;
        };
        let pool = &mut self.pools[origin.backend.0 as usize];
        pool.making.retain(|making| *making != slot);
        pool.is_single = matches!(speech, Speech::H1(_));
        if let Speech::H2(_) = speech {
            pool.shared.push(slot);
        }
        origin.speech = speech;
    }

    /// Puts an unused connection into its pool; `false`: the pool is full, and the caller closes it.
    #[must_use]
    pub fn checkin(&mut self, slot: u32, now: Instant) -> bool {
        let idle_max = self.idle_max;
        let Some(origin) = self.table.get_mut(slot as usize) else {
            return true;
        };
        let pool = &mut self.pools[origin.backend.0 as usize];
        if pool.idle.len() >= idle_max {
            return false;
        }
        origin.exchange = None;
        origin.reused = true;
        origin.resting = true;
        pool.idle.push_back((slot, now));
        true
    }

    /// Forgets a connection, unused or not.
    pub fn remove(&mut self, slot: u32) -> Option<Origin> {
        self.rouse(slot);
        let origin = self.table.try_remove(slot as usize)?;
        let pool = self.pool(origin.backend);
        pool.making.retain(|making| *making != slot);
        if let Speech::H2(_) = origin.speech {
            pool.shared.retain(|shared| *shared != slot);
        }
        Some(origin)
    }

    /// An unused connection that has waited for its whole time, if there is one.
    pub fn expired(&mut self, now: Instant) -> Option<u32> {
        let timeout = self.idle_timeout;
        self.pools
            .iter_mut()
            .find(|pool| pool.idle.front().is_some_and(|&(_, since)| since + timeout <= now))
            .and_then(|pool| pool.idle.front().map(|&(slot, _)| slot))
    }

    /// The connection to a backend that has been unused for longest.
    pub fn coldest(&self, backend: BackendId) -> Option<u32> {
        self.pools[backend.0 as usize].idle.front().map(|&(slot, _)| slot)
    }

    /// When the next unused connection will have waited for its whole time.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.pools.iter().filter_map(|pool| pool.idle.front()).map(|&(_, since)| since + self.idle_timeout).min()
    }

    /// Any unused connection, for a drain.
    pub fn any_idle(&self) -> Option<u32> {
        self.pools.iter().find_map(|pool| pool.idle.front().map(|&(slot, _)| slot))
    }

    /// Connections open or opening.
    pub fn count(&self) -> usize {
        self.table.len()
    }

    /// Connections that wait in pools.
    pub fn count_idle(&self) -> usize {
        self.pools.iter().map(|pool| pool.idle.len()).sum()
    }

    /// Panics unless exactly the unused connections stand in the pools, each once and in its own.
    pub fn check_invariants(&self) {
        for (backend, pool) in self.pools.iter().enumerate() {
            for &(slot, _) in &pool.idle {
                let origin = self.get(slot).expect("a pooled connection is in the table");
                assert!(origin.exchange.is_none(), "pooled connection {slot} has an exchange");
                assert!(origin.resting, "pooled connection {slot} knows it");
                assert_eq!(origin.backend.0 as usize, backend, "connection {slot} is in its backend's pool");
                assert_eq!(pool.idle.iter().filter(|&&(other, _)| other == slot).count(), 1);
            }
            for &slot in &pool.shared {
                let shared = self.get(slot).is_some_and(|origin| matches!(origin.speech, Speech::H2(_)));
                assert!(shared, "shared connection {slot} is one of HTTP/2");
            }
            for &slot in &pool.making {
                assert!(self.get(slot).is_some_and(|origin| !origin.is_settled()), "connection {slot} is being made");
            }
        }
        let unused = self.iter().filter(|(_, origin)| origin.is_unused()).count();
        assert_eq!(unused, self.count_idle(), "connections without an exchange are in a pool");
    }
}

/// The settings of HTTP/2 towards a backend.
pub fn h2_settings(scheme: BackendScheme, head_bytes: usize) -> h2::Settings {
    use crate::http::{HeadLimits, Scheme};
    h2::Settings {
        head: HeadLimits { bytes: head_bytes, ..HeadLimits::RESPONSE },
        scheme: if scheme == BackendScheme::Https { Scheme::Https } else { Scheme::Http },
        ..h2::Settings::CLIENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_str;
    use crate::h1;
    use spooky_uring::StreamId;

    const BACKEND: BackendId = BackendId(0);

    fn with(scheme: &str) -> Origins {
        let text = format!(
            r#"
            version = 1
            listen = {{}}
            upstream.app = {{ backends = [{{ id = "b", address = "{scheme}://127.0.0.1:1" }}], route = {{}} }}
            performance = {{ pool_idle_connections_per_worker = 2 }}
            "#
        );
        let (generation, _) = from_str("t", &text).unwrap_or_else(|wrong| panic!("{wrong}"));
        Origins::new(&generation)
    }

    /// The connection of a client from this port.
    fn client(port: u16) -> Option<Ends> {
        Some(Ends { source: ([192, 0, 2, 1], port).into(), destination: ([192, 0, 2, 9], 443).into() })
    }

    fn making(origins: &mut Origins, of: Option<Ends>, now: Instant) -> u32 {
        let slot = origins.next_slot();
        let origin = Origin { client: of, ..Origin::new(StreamId { slot, generation: 1 }, BACKEND, slot, now) };
        origins.insert(origin)
    }

    fn made(origins: &mut Origins, of: Option<Ends>, now: Instant) -> u32 {
        let slot = making(origins, of, now);
        origins.settle(slot, Speech::H1(Box::new(h1::ClientConnection::new(h1::Limits::CLIENT))));
        slot
    }

    fn resting(origins: &mut Origins, of: Option<Ends>, now: Instant) -> u32 {
        let slot = made(origins, of, now);
        assert!(origins.checkin(slot, now));
        slot
    }

    #[test]
    fn a_connection_made_for_one_client_is_found_for_no_other() {
        let now = Instant::now();
        let mut origins = with("http");
        let (one, nobodys) = (resting(&mut origins, client(1), now), resting(&mut origins, None, now));
        assert_eq!(origins.find(BACKEND, client(2), false), None);
        assert_eq!(origins.find(BACKEND, client(1), true), None, "a fresh one is wanted");
        assert_eq!(origins.find(BACKEND, client(1), false), Some(Found::Idle(one)));
        assert_eq!(origins.find(BACKEND, client(1), false), None, "it is in use");
        assert_eq!(origins.find(BACKEND, None, false), Some(Found::Idle(nobodys)));

        let mut origins = with("h2c");
        let making = making(&mut origins, client(1), now);
        assert_eq!(origins.find(BACKEND, client(2), false), None);
        assert_eq!(origins.find(BACKEND, None, false), None);
        assert_eq!(origins.find(BACKEND, client(1), false), Some(Found::Making(making)));
    }

    #[test]
    fn the_coldest_of_a_full_pool_is_the_one_that_has_rested_longest() {
        let now = Instant::now();
        let mut origins = with("http");
        assert_eq!(origins.coldest(BACKEND), None);
        let first = resting(&mut origins, client(1), now);
        let second = resting(&mut origins, client(2), now);
        let third = made(&mut origins, client(3), now);
        assert!(!origins.checkin(third, now), "the pool is full");
        assert_eq!(origins.coldest(BACKEND), Some(first));
        origins.remove(first);
        assert!(origins.checkin(third, now));
        assert_eq!(origins.coldest(BACKEND), Some(second));
        origins.check_invariants();
    }
}
