//! Exchanges in flight: counted for the process, each client, each upstream and each backend, and held until the exchange ends.
//!
//! Limits are the process's; each worker admits its share of them, so that no request waits for another thread's count. A
//! request that waits for room at its upstream holds its units of the process and of its client, and no others.

use crate::config::{BackendId, Generation, UpstreamId};
use crate::http::Reason;
use crate::limits::AddressKey;
use std::collections::HashMap;

/// Running exchanges of one worker.
#[derive(Debug, Default)]
pub struct Inflight {
    total: u32,
    upstreams: Vec<u32>,
    /// What each upstream is given by how it answers; empty unless that is limited.
    adaptive: Vec<u32>,
    backends: Vec<u32>,
    /// Clients with something in flight; empty unless they are limited. Each holds a unit of `total`, which bounds the table.
    /// Hashed with a secret: clients choose the keys.
    clients: HashMap<AddressKey, u32>,
}

/// What one exchange holds, but for its attempts. Given back with [`Inflight::release`]; dropping it gives nothing back.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Permits {
    total: bool,
    client: Option<AddressKey>,
    upstream: Option<UpstreamId>,
}

/// What one attempt holds of its backend. Given back with [`Inflight::leave`]; dropping it gives nothing back.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct BackendPermit(BackendId);

impl BackendPermit {
    /// Whose it is.
    pub fn backend(&self) -> BackendId {
        self.0
    }
}

impl Permits {
    /// Whether the exchange is counted at its upstream.
    #[inline]
    #[must_use]
    pub fn has_upstream(&self) -> bool {
        self.upstream.is_some()
    }
}

/// A limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Which one.
    pub reason: Reason,
    /// What it permits on this worker.
    pub limit: u32,
}

impl Inflight {
    /// Counters for the upstreams and backends of `generation`.
    pub fn new(generation: &Generation) -> Self {
        Self {
            upstreams: vec![0; generation.upstreams.len()],
            backends: vec![0; generation.backends.len()],
            ..Self::default()
        }
    }

    /// Exchanges that hold a permit.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Exchanges on one backend.
    pub fn on_backend(&self, backend: BackendId) -> u32 {
        self.backends[backend.0 as usize]
    }

    /// Exchanges on one upstream, those without a backend included.
    pub fn on_upstream(&self, upstream: UpstreamId) -> u32 {
        self.upstreams[upstream.0 as usize]
    }

    /// Clients that are counted.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Whether `backend` has room for one more.
    pub fn backend_has_room(&self, generation: &Generation, backend: BackendId) -> bool {
        self.on_backend(backend) < generation.performance.share(generation.backend(backend).inflight_limit)
    }

    /// Takes a unit of the process, and one of the client where clients are limited.
    ///
    /// # Errors
    /// The limit that is full.
    pub fn admit(&mut self, generation: &Generation, client: Option<AddressKey>) -> Result<Permits, Full> {
        let performance = &generation.performance;
        let limit = performance.share(performance.global_inflight_limit);
        if self.total >= limit {
            return Err(Full { reason: Reason::LimitGlobal, limit });
        }
        let client = client.filter(|_| performance.max_inflight_per_address.is_some());
        if let (Some(client), Some(most)) = (client, performance.max_inflight_per_address) {
            let limit = performance.share(most);
            let count = self.clients.entry(client).or_default();
            // No entry is left behind: a limit is at least 1.
            if *count >= limit {
                return Err(Full { reason: Reason::LimitAddress, limit });
            }
            *count += 1;
        }
        self.total += 1;
        Ok(Permits { total: true, client, upstream: None })
    }

    /// Takes a unit of the upstream, beside those of [`Self::admit`].
    ///
    /// # Errors
    /// It is full.
    pub fn enter_upstream(
        &mut self,
        permits: &mut Permits,
        generation: &Generation,
        upstream: UpstreamId,
    ) -> Result<(), Full> {
        debug_assert!(permits.total && permits.upstream.is_none());
        self.upstream_has_room(generation, upstream)?;
        self.upstreams[upstream.0 as usize] += 1;
        permits.upstream = Some(upstream);
        Ok(())
    }

    /// Whether an upstream has room for one more.
    ///
    /// # Errors
    /// It is full.
    pub fn upstream_has_room(&self, generation: &Generation, upstream: UpstreamId) -> Result<(), Full> {
        let active = self.on_upstream(upstream);
        let limit = generation.performance.share(generation.upstream(upstream).inflight_limit);
        if active >= limit {
            return Err(Full { reason: Reason::LimitUpstream, limit });
        }
        match self.adaptive.get(upstream.0 as usize) {
            Some(&limit) if active >= limit => Err(Full { reason: Reason::LimitAdaptive, limit }),
            _ => Ok(()),
        }
    }

    /// Gives an upstream so much at once from now on, on this worker.
    pub fn adapt(&mut self, upstream: UpstreamId, limit: u32) {
        if self.adaptive.is_empty() {
            self.adaptive = vec![u32::MAX; self.upstreams.len()];
        }
        self.adaptive[upstream.0 as usize] = limit;
    }

    /// Gives the upstream's unit back: the exchange waits instead.
    pub fn leave_upstream(&mut self, permits: &mut Permits) {
        if let Some(upstream) = permits.upstream.take() {
            self.upstreams[upstream.0 as usize] -= 1;
        }
    }

    /// Takes a unit of `backend`, for an attempt.
    pub fn enter(&mut self, backend: BackendId) -> BackendPermit {
        self.backends[backend.0 as usize] += 1;
        BackendPermit(backend)
    }

    /// Gives a backend's unit back, as its attempt is over.
    pub fn leave(&mut self, permit: BackendPermit) {
        self.backends[permit.0.0 as usize] -= 1;
    }

    /// Gives back what an exchange holds.
    pub fn release(&mut self, mut permits: Permits) {
        self.leave_upstream(&mut permits);
        if let Some(client) = permits.client
            && let Some(count) = self.clients.get_mut(&client)
        {
            *count -= 1;
            if *count == 0 {
                self.clients.remove(&client);
            }
        }
        if permits.total {
            self.total -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_str;

    #[test]
    fn a_worker_admits_its_share_of_each_limit() {
        let upstream = |name, path| {
            format!(
                "[upstream.{name}]\nroute = {{ path_prefix = \"{path}\" }}\n\
                 backends = [{{ id = \"b\", address = \"http://127.0.0.1:1\" }}]\n"
            )
        };
        let text = format!(
            "version = 1\n[listen]\n{}{}[performance]\nworker_threads = 3\nglobal_inflight_limit = 10\n\
             per_upstream_inflight_limit = 7\nper_backend_inflight_limit = 2\n",
            upstream("one", "/"),
            upstream("two", "/two")
        );
        let (generation, _) = from_str("t", &text).expect("right");
        let (one, two, backend) = (UpstreamId(0), UpstreamId(1), BackendId(0));
        let mut inflight = Inflight::new(&generation);
        // ⌈2 ÷ 3⌉ for the backend: no worker is left without.
        assert!(inflight.backend_has_room(&generation, backend));
        let go = |inflight: &mut Inflight, upstream| {
            let mut permits = inflight.admit(&generation, None)?;
            assert!(!permits.has_upstream());
            match inflight.enter_upstream(&mut permits, &generation, upstream) {
                Ok(()) => Ok(permits),
                Err(full) => {
                    inflight.release(permits);
                    Err(full)
                }
            }
        };
        let first = go(&mut inflight, one).unwrap();
        assert!(first.has_upstream());
        let attempt = inflight.enter(backend);
        assert!(!inflight.backend_has_room(&generation, backend));
        // ⌈7 ÷ 3⌉ for the upstream, then ⌈10 ÷ 3⌉ for the process.
        let mut held = vec![first];
        held.extend((0..2).map(|_| go(&mut inflight, one).unwrap()));
        assert_eq!(go(&mut inflight, one), Err(Full { reason: Reason::LimitUpstream, limit: 3 }));
        held.push(go(&mut inflight, two).unwrap());
        assert_eq!(go(&mut inflight, two), Err(Full { reason: Reason::LimitGlobal, limit: 4 }));
        held.into_iter().for_each(|permits| inflight.release(permits));
        assert_eq!((inflight.total(), inflight.on_upstream(one), inflight.on_backend(backend)), (0, 0, 1));
        inflight.leave(attempt);
        assert_eq!(inflight.on_backend(backend), 0);
    }

    #[test]
    fn clients_have_their_own_limit_and_leave_nothing_behind() {
        let text = "version = 1\n[listen]\n[upstream.one]\nroute = { path_prefix = \"/\" }\n\
                    backends = [{ id = \"b\", address = \"http://127.0.0.1:1\" }]\n\
                    [performance]\nworker_threads = 2\nmax_inflight_per_address = 3\n";
        let (generation, _) = from_str("t", text).expect("right");
        let key = |last| AddressKey::of([192, 0, 2, last].into());
        let mut inflight = Inflight::new(&generation);
        let mut held: Vec<_> = (0..2).map(|_| inflight.admit(&generation, Some(key(1))).unwrap()).collect();
        // ⌈3 ÷ 2⌉.
        let full = Err(Full { reason: Reason::LimitAddress, limit: 2 });
        assert_eq!(inflight.admit(&generation, Some(key(1))), full);
        held.extend((2..100).map(|last| inflight.admit(&generation, Some(key(last))).unwrap()));
        assert_eq!((inflight.total(), inflight.clients()), (100, 99));
        inflight.release(held.remove(0));
        held.push(inflight.admit(&generation, Some(key(1))).unwrap());
        assert_eq!(inflight.admit(&generation, Some(key(1))), full);
        held.into_iter().for_each(|permits| inflight.release(permits));
        assert_eq!((inflight.total(), inflight.clients()), (0, 0));
    }
}
