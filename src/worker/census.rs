//! What a worker holds, counted; and whether all of its books agree.
//!
//! Nothing here is on a request's path: it is what a drain's caller, a test or a simulation asks between turns.

use super::Worker;
use super::origin::Speech;
use crate::config::BackendId;
use crate::exchange::{Exchange, ResponseState};
use spooky_uring::Io;

/// What a worker holds between two turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Client connections, closing ones included.
    pub clients: usize,
    /// Requests that are not over.
    pub exchanges: usize,
    /// Of these, admitted ones: they hold permits.
    pub admitted: usize,
    /// Of these, those that wait for room at their upstream.
    pub waiting: usize,
    /// Connections to origins that carry an exchange or are being made for one.
    pub origins_busy: usize,
    /// Connections to origins that wait in pools.
    pub origins_idle: usize,
    /// Entries of the timer wheel.
    pub timers: usize,
}

impl<I: Io> Worker<I> {
    /// Counts what is there.
    pub fn census(&self) -> Census {
        let origins_idle = self.origins.count_idle();
        Census {
            clients: self.clients.len(),
            exchanges: self.exchanges.len(),
            admitted: self.inflight.total() as usize,
            waiting: self.queue.len(),
            origins_busy: self.origins.count() - origins_idle,
            origins_idle,
            timers: self.wheel.len(),
        }
    }

    /// Whether no request is under way and no connection to an origin is in use.
    pub fn is_quiet(&self) -> bool {
        let census = self.census();
        census.exchanges == 0 && census.admitted == 0 && census.origins_busy == 0
    }

    /// Panics where two books disagree.
    pub fn check_invariants(&self) {
        self.wheel.check_invariants();
        for (slot, running) in &self.exchanges {
            for key in running.exchange.attempts().filter_map(|attempt| attempt.place) {
                let holds = self.origins.get(key.origin).is_some_and(|origin| match &origin.speech {
                    Speech::Unsettled => origin.waiting.contains(&(slot as u32)),
                    Speech::H1(_) => origin.exchange == Some(slot as u32),
                    // Its streams know their owners; without one it waits for the origin's settings.
                    Speech::H2(_) => (key.stream != 0) != origin.waiting.contains(&(slot as u32)),
                });
                assert!(holds, "exchange {slot} and its connection {} point at each other", key.origin);
            }
            if let Some((deadline, timer)) = running.exchange.armed {
                assert_eq!(self.wheel.deadline(timer), Some(deadline), "the timer of exchange {slot}");
            }
        }
        for (slot, origin) in self.origins.iter() {
            if let Some(exchange) = origin.exchange {
                let running = self.exchanges.get(exchange as usize).map(|running| &running.exchange);
                let mut held = running.into_iter().flat_map(Exchange::attempts).filter_map(|attempt| attempt.place);
                assert!(
                    held.any(|key| key.origin == slot),
                    "connection {slot} and its exchange {exchange} point at each other"
                );
            }
        }
        self.origins.check_invariants();
        let generation = &self.snapshot.generation;
        assert!(self.inflight.total() as usize <= self.exchanges.len(), "more permits than exchanges");
        let mut held = vec![0; generation.backends.len()];
        let attempts = || self.exchanges.iter().flat_map(|(_, running)| running.exchange.attempts());
        for permit in attempts().filter_map(|attempt| attempt.permit.as_ref()) {
            held[permit.backend().0 as usize] += 1;
        }
        let passes = attempts().filter(|attempt| attempt.pass.is_some()).count();
        assert_eq!(self.resilience.passes() as usize, passes, "passes, as they are counted and as attempts have them");
        let counted: Vec<u32> =
            (0..generation.backends.len()).map(|at| self.inflight.on_backend(BackendId(at as u32))).collect();
        assert_eq!(counted, held, "permits of backends, as they are counted and as attempts hold them");
        assert!(self.inflight.clients() <= self.inflight.total() as usize, "a client is counted while it has permits");
        self.check_queue();
    }

    /// Who waits is in the queue, holds nothing of its upstream, and waits for something that somebody holds.
    fn check_queue(&self) {
        self.queue.check_invariants();
        let waiting: Vec<_> = self.exchanges.iter().map(|(_, running)| &running.exchange).collect();
        let waiting: Vec<_> = waiting.into_iter().filter(|exchange| exchange.waiting.is_some()).collect();
        assert_eq!(waiting.len(), self.queue.len(), "who waits is in the queue, and nobody else");
        let generation = &self.snapshot.generation;
        for exchange in waiting {
            assert!(!exchange.permits.has_upstream() && exchange.response == ResponseState::Waiting, "it only waits");
            let upstream = exchange.upstream().expect("an upstream to wait for");
            let room = self.inflight.upstream_has_room(generation, upstream).is_ok();
            let mut backends = generation.upstream(upstream).backends.clone().map(BackendId);
            let busy = !room || backends.any(|backend| !self.inflight.backend_has_room(generation, backend));
            assert!(busy || self.queue.has_rooms(), "somebody waits for what nobody holds");
        }
    }
}

#[cfg(test)]
mod tests {
    //! The books, broken one by one: whoever checks them has to say so.

    use super::*;
    use crate::admit::Rates;
    use crate::balance::KeyedHash;
    use crate::config;
    use crate::h1;
    use crate::telemetry::{AccessSender, Scope, WorkerCells};
    use crate::worker::origin::Origin;
    use crate::worker::timers::Timer;
    use crate::worker::token::Owner;
    use crate::worker::{Setup, forward};
    use spooky_uring::mailbox;
    use spooky_uring::simulation::{Plan, SimulatedHost};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    const BACKEND: BackendId = BackendId(0);

    fn worker() -> Worker<SimulatedHost> {
        let text = "version = 1\n[listen]\nport = 443\n[upstream.one]\nroute = { path_prefix = \"/\" }\n\
                    backends = [ { id = \"b\", address = \"http://10.0.0.1:80\" } ]\n[resilience.circuit_breaker]\n";
        let (generation, _) = config::from_str("census.toml", text).unwrap();
        let scope = Scope { generation: 1, ..Scope::default() };
        let setup = Setup {
            generation: Arc::new(generation),
            listeners: Vec::new(),
            doors: Vec::new(),
            upstream_tls: vec![None],
            rates: Arc::new(Rates::new(&[], 1, Instant::now())),
            cells: Arc::new(WorkerCells::new(Arc::new(scope))),
            access: AccessSender::off(),
            qlog: None,
            commands: mailbox::channel(1).unwrap().1,
            reports: mailbox::channel(1).unwrap().0,
            lines: forward::Lines::none(),
            hash: KeyedHash::new([7; 16]),
            seed: [7; 16],
        };
        Worker::new(SimulatedHost::new(1, Plan::calm()), setup)
    }

    /// Adds a connection that has this exchange.
    fn connection(worker: &mut Worker<SimulatedHost>, exchange: Option<u32>) -> u32 {
        let address = "10.0.0.1:80".parse().map(spooky_uring::StreamAddress::Tcp).unwrap();
        let began = worker.now;
        let stream = worker.io.connect(&address, Owner::Mailbox.token()).unwrap();
        let speech = Speech::H1(Box::new(h1::ClientConnection::new(h1::Limits::CLIENT)));
        let origin = Origin::new(stream, BACKEND, 0, began);
        worker.origins.insert(Origin { speech, exchange, waiting: Default::default(), ..origin })
    }

    /// Breaks a worker's books and expects the check to fail with these words.
    fn caught(words: &str, sabotage: impl FnOnce(&mut Worker<SimulatedHost>)) {
        let mut worker = worker();
        worker.check_invariants();
        sabotage(&mut worker);
        let check = AssertUnwindSafe(|| worker.check_invariants());
        let panic = catch_unwind(check).expect_err("nobody noticed");
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        assert!(text.is_some_and(|text| text.contains(words)), "noticed, but as {text:?}");
    }

    #[test]
    fn a_connection_whose_exchange_is_gone() {
        caught("and its exchange 7 point at each other", |worker| {
            connection(worker, Some(7));
        });
    }

    #[test]
    fn a_connection_without_an_exchange_that_is_in_no_pool() {
        caught("connections without an exchange are in a pool", |worker| {
            connection(worker, None);
        });
    }

    #[test]
    fn a_pooled_connection_that_is_busy() {
        caught("point at each other", |worker| {
            let slot = connection(worker, Some(7));
            assert!(worker.origins.checkin(slot, worker.now));
            worker.check_invariants();
            worker.origins.get_mut(slot).unwrap().exchange = Some(7);
        });
    }

    #[test]
    fn a_connection_that_is_pooled_twice() {
        caught("left: 2", |worker| {
            let slot = connection(worker, Some(7));
            assert!(worker.origins.checkin(slot, worker.now));
            assert!(worker.origins.checkin(slot, worker.now));
        });
    }

    #[test]
    fn a_permit_that_nobody_gives_back() {
        caught("more permits than exchanges", |worker| {
            let generation = Arc::clone(&worker.snapshot.generation);
            let _ = worker.inflight.admit(&generation, None).unwrap();
        });
    }

    #[test]
    fn a_pass_that_nobody_gives_back() {
        caught("passes", |worker| {
            let _ = worker.resilience.take(BACKEND, worker.now);
        });
    }

    #[test]
    fn an_attempt_of_nobody() {
        caught("permits of backends", |worker| {
            let _ = worker.inflight.enter(BACKEND);
        });
    }

    #[test]
    fn a_place_in_the_queue_of_nobody() {
        caught("who waits is in the queue, and nobody else", |worker| {
            let client = crate::limits::AddressKey::V4(1);
            let place = crate::overload::Place { upstream: 0, way: 0, client };
            let _ = worker.queue.join(place, 1, 1, 7).expect("room");
        });
    }

    #[test]
    fn a_timer_of_nobody_is_counted() {
        let mut worker = worker();
        assert_eq!(worker.census(), Census::default());
        let _ = worker.wheel.insert(worker.now + Duration::from_secs(1), Timer::Pool);
        assert_eq!(worker.census(), Census { timers: 1, ..Census::default() });
    }
}
