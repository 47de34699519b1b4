//! What it costs to keep to limits: units of what is in flight, places in a queue, and what retries and breakers are asked.

use crate::harness::Harness;
use spooky::config::{BackendId, UpstreamId, from_str};
use spooky::exchange::inflight::Inflight;
use spooky::limits::AddressKey;
use spooky::overload::{Place, Queue, spread};
use spooky::resilience::{Breaker, BreakerPolicy, Budget, BudgetPolicy};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// Runs all of them.
pub fn run(harness: &mut Harness) {
    units(harness);
    queues(harness);
    verdicts(harness);
}

fn client(number: u32) -> AddressKey {
    AddressKey::of(IpAddr::V4(Ipv4Addr::from(0xc000_0200 + number)))
}

fn units(harness: &mut Harness) {
    for (name, more) in [("", ""), (", limited by client", "[performance]\nmax_inflight_per_address = 100\n")] {
        let text = format!(
            "version = 1\n[listen]\n[upstream.one]\nroute = {{ path_prefix = \"/\" }}\n\
             backends = [{{ id = \"a\", address = \"http://127.0.0.1:1\" }}]\n{more}"
        );
        let (generation, _) = from_str("bench", &text).unwrap_or_else(|wrong| panic!("{wrong}"));
        let mut inflight = Inflight::new(&generation);
        inflight.adapt(UpstreamId(0), 100);
        harness.bench(&format!("admission: units of one exchange{name}"), || {
            let mut permits = inflight.admit(&generation, Some(black_box(client(1)))).expect("room");
            inflight.enter_upstream(&mut permits, &generation, UpstreamId(0)).expect("room");
            assert!(inflight.backend_has_room(&generation, BackendId(0)));
            let permit = inflight.enter(BackendId(0));
            inflight.leave(permit);
            inflight.release(permits);
        });
    }
    for workers in [4u64, 64] {
        let asked: Vec<u64> = (0..workers).collect();
        harness.bench(&format!("adaptive limit: spread over {workers} workers"), || spread(black_box(1_000), &asked));
    }
}

/// Lets a client's request into a queue that holds so many; `false`: it is full.
fn join(queue: &mut Queue, number: u32, most: u32) -> bool {
    queue.join(Place { upstream: 0, way: 0, client: client(number) }, most, most, number).is_ok()
}

fn queues(harness: &mut Harness) {
    for clients in [1u32, 100, 10_000] {
        let mut queue = Queue::new(1, 1);
        assert!((0..clients).all(|number| join(&mut queue, number, u32::MAX)));
        let mut number = 0;
        harness.bench(&format!("queue: in and out again, among {clients} that wait"), || {
            number = (number + 1) % clients;
            assert!(join(&mut queue, number, u32::MAX));
            let (ticket, _) = queue.next(0).expect("somebody");
            queue.serve(ticket);
        });
    }
    let mut queue = Queue::new(1, 1);
    assert!(join(&mut queue, 0, 1));
    harness.bench("queue: full", || join(&mut queue, black_box(1), 1));
}

fn verdicts(harness: &mut Harness) {
    let start = Instant::now();
    let policy = BreakerPolicy { failures: 5, open_for: Duration::from_secs(10), trials: 1 };
    let mut breaker = Breaker::new(policy);
    harness.bench("breaker: asked, told of a success", || {
        assert!(breaker.admits(black_box(start)));
        let (pass, _) = breaker.take(start);
        breaker.give_back(pass, Some(true), start)
    });
    let policy = BudgetPolicy { percent: 20, window: Duration::from_secs(10), min_per_sec: 10 };
    let mut budget = Budget::new(policy, start);
    let mut now = start;
    harness.bench("retry budget: a request and a retry", || {
        now += Duration::from_micros(20);
        budget.request(now);
        budget.retry(now)
    });
}
