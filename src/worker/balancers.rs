//! How this worker picks backends: a balancer for each upstream, and what names a client's connection to them.

use super::Downkey;
use crate::balance::{
    Ask, Balancer, ConsistentHash, KeyedHash, LatencyAware, LeastConnections, Outcome, Random, RoundRobin, SlowStart,
    TwoChoices,
};
use crate::config::{BackendId, Balancing, Generation, UpstreamId};
use crate::exchange::inflight::Inflight;
use crate::exchange::trail::Ids;
use std::sync::Arc;
use std::time::Instant;

/// The balancers of one worker, by [`UpstreamId`].
#[derive(Debug)]
pub(super) struct Balancers {
    list: Vec<Balancer>,
    /// Who has come back lately; `None`: who does has its whole share at once.
    slow: Vec<Option<SlowStart>>,
    /// Of keys that clients choose; the same on all workers.
    pub hash: KeyedHash,
    /// Connections of other workers have the same places; this tells them apart.
    salt: [u8; 4],
}

impl Balancers {
    pub(super) fn new(generation: &Generation, hash: KeyedHash, salt: [u8; 4]) -> Self {
        let slow = generation.upstreams.iter().map(|upstream| upstream.slow_start.map(SlowStart::new)).collect();
        Self { list: generation.upstream_ids().map(|id| balancer(generation, id)).collect(), slow, hash, salt }
    }

    /// The position of a backend for an admitted exchange.
    #[inline]
    pub(super) fn pick(
        &mut self,
        generation: &Generation,
        upstream: UpstreamId,
        affinity: Option<u64>,
        (inflight, ids, now): (&Inflight, &mut Ids, Instant),
        skip: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let first = generation.upstream(upstream).backends.start;
        let running = inflight.on_upstream(upstream);
        let on = |at: usize| inflight.on_backend(BackendId(first + at as u32));
        let balancer = &mut self.list[upstream.0 as usize];
        if let Some(slow) = &mut self.slow[upstream.0 as usize]
            && let Some(warming) = slow.at(now, || affinity.unwrap_or_else(|| ids.word()))
        {
            let ask = Ask { affinity, running, now, random: || ids.word() };
            let load = |at| warming.load(at, on(at));
            let picked = balancer.pick(ask, load, |at| warming.leaves_out(at) || skip(at));
            if picked.is_some() {
                return picked;
            }
            // Nobody else is there to spare those that come back.
        }
        balancer.pick(Ask { affinity, running, now, random: || ids.word() }, on, skip)
    }

    /// A position of an upstream is fit again, since then.
    pub(super) fn came_back(&mut self, upstream: UpstreamId, at: usize, since: Instant) {
        if let Some(slow) = &mut self.slow[upstream.0 as usize] {
            slow.begin(at, since);
        }
    }

    /// A position of an upstream is fit no longer.
    pub(super) fn went_away(&mut self, upstream: UpstreamId, at: usize) {
        if let Some(slow) = &mut self.slow[upstream.0 as usize] {
            slow.end(at);
        }
    }

    /// What names a client's connection for as long as it lives, wherever its packets come from and whatever connection IDs
    /// it has by now.
    pub(super) fn connection_name(&self, key: Downkey) -> [u8; 16] {
        let (kind, place, uses) = match key {
            Downkey::Quic { listener, connection } => (u32::from(listener), connection.slot, connection.tag),
            Downkey::Tcp(key) => (u32::MAX, key.stream.slot, key.stream.generation),
        };
        let mut name = [0; 16];
        let parts = [self.salt, kind.to_le_bytes(), place.to_le_bytes(), uses.to_le_bytes()];
        for (into, part) in name.as_chunks_mut().0.iter_mut().zip(parts) {
            *into = part;
        }
        name
    }
}

fn balancer(generation: &Generation, id: UpstreamId) -> Balancer {
    let weights = || generation.backends_of(id).iter().map(|backend| backend.weight);
    match &generation.upstream(id).balancing {
        Balancing::RoundRobin => Balancer::RoundRobin(RoundRobin::new(weights())),
        Balancing::Random => Balancer::Random(Random::new(weights())),
        Balancing::LeastConnections => Balancer::LeastConnections(LeastConnections::new(weights())),
        Balancing::TwoChoices => Balancer::TwoChoices(TwoChoices::new(weights())),
        Balancing::LatencyAware => Balancer::LatencyAware(LatencyAware::new(weights())),
        Balancing::ConsistentHash(_, table) => {
            Balancer::ConsistentHash(ConsistentHash::new(Arc::clone(table), weights()))
        }
        Balancing::StickyCid(table) => Balancer::StickyCid(Arc::clone(table)),
    }
}

impl Balancers {
    /// Takes in how an attempt on a backend went.
    #[inline]
    pub(super) fn observe(&mut self, generation: &Generation, backend: BackendId, outcome: Outcome, now: Instant) {
        let upstream = generation.backend(backend).upstream;
        let at = backend.0 - generation.upstream(upstream).backends.start;
        self.list[upstream.0 as usize].observe(at as usize, outcome, now);
    }
}
