//! Exchanges in flight: counted for the process, each upstream and each backend, and held until the exchange ends.
//!
//! Limits are the process's; each worker admits its share of them, so that no request waits for another thread's count.

use crate::config::{BackendId, Generation, UpstreamId};
use crate::http::Reason;

/// Running exchanges of one worker.
#[derive(Debug, Default)]
pub struct Inflight {
    total: u32,
    upstreams: Vec<u32>,
    backends: Vec<u32>,
}

/// What one exchange holds, but for its attempts. Given back with [`Inflight::release`]; dropping it gives nothing back.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Permits {
    total: bool,
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

impl Inflight {
    /// Counters for the upstreams and backends of `generation`.
    pub fn new(generation: &Generation) -> Self {
        Self { total: 0, upstreams: vec![0; generation.upstreams.len()], backends: vec![0; generation.backends.len()] }
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

    /// Whether `backend` has room for one more.
    pub fn backend_has_room(&self, generation: &Generation, backend: BackendId) -> bool {
        self.on_backend(backend) < generation.performance.share(generation.backend(backend).inflight_limit)
    }

    /// Takes a unit of the process and of the upstream, or says which limit is reached.
    ///
    /// # Errors
    /// The limit that is full.
    pub fn admit(&mut self, generation: &Generation, upstream: UpstreamId) -> Result<Permits, Reason> {
        let performance = &generation.performance;
        if self.total >= performance.share(performance.global_inflight_limit) {
            return Err(Reason::LimitGlobal);
        }
        let count = &mut self.upstreams[upstream.0 as usize];
        if *count >= performance.share(generation.upstream(upstream).inflight_limit) {
            return Err(Reason::LimitUpstream);
        }
        *count += 1;
        self.total += 1;
        Ok(Permits { total: true, upstream: Some(upstream) })
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
    pub fn release(&mut self, permits: Permits) {
        if let Some(upstream) = permits.upstream {
            self.upstreams[upstream.0 as usize] -= 1;
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
        let first = inflight.admit(&generation, one).unwrap();
        let attempt = inflight.enter(backend);
        assert!(!inflight.backend_has_room(&generation, backend));
        // ⌈7 ÷ 3⌉ for the upstream, then ⌈10 ÷ 3⌉ for the process.
        let mut held = vec![first];
        held.extend((0..2).map(|_| inflight.admit(&generation, one).unwrap()));
        assert_eq!(inflight.admit(&generation, one), Err(Reason::LimitUpstream));
        held.push(inflight.admit(&generation, two).unwrap());
        assert_eq!(inflight.admit(&generation, two), Err(Reason::LimitGlobal));
        held.into_iter().for_each(|permits| inflight.release(permits));
        assert_eq!((inflight.total(), inflight.on_backend(backend)), (0, 1));
        inflight.leave(attempt);
        assert_eq!((inflight.total(), inflight.on_backend(backend)), (0, 0));
    }
}
