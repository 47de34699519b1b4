//! The simulation itself: virtual time reaches quiche, and a seed is a run.

use crate::bodies::{any_link, as_asked};
use crate::client::Request;
use crate::scene::{Scene, configuration};
use spooky_uring::Io;
use spooky_uring::simulation::{Plan, Random, SimulatedHost};
use std::time::{Duration, Instant, SystemTime};

#[test]
fn the_clock_of_this_executable_follows_the_simulation() {
    let real = SystemTime::now();
    let mut host = SimulatedHost::new(1, Plan::calm());
    assert!(host.has_interposed_clock());
    let (before, mut events) = (Instant::now(), Vec::new());
    host.wait(Some(before + Duration::from_secs(86_400)), &mut events).unwrap();
    assert!(Instant::now() - before >= Duration::from_secs(86_400), "a day has passed");
    assert_eq!(Instant::now(), host.now());
    assert!(real.elapsed().unwrap() < Duration::from_secs(60), "for this thread's monotonic clock only");
    let elsewhere = std::thread::spawn(Instant::now).join().unwrap();
    drop(host);
    assert!(Instant::now() >= elsewhere, "real time again");
}

fn run(seed: u64) -> (u64, u64) {
    let mut random = Random::new(seed);
    let (plan, link) = (Plan::rough(&mut random), any_link(&mut random));
    let (mut scene, client, _) = Scene::simple(seed, plan, link, &configuration(1, ""), as_asked);
    for _ in 0..4 {
        scene.ask(&client, Request::get("/chunked/100000"));
        scene.ask(&client, Request::post("/length/50000", 100_000));
    }
    scene.finish(Duration::from_secs(120));
    scene.close();
    scene.host.trace()
}

#[test]
fn one_seed_is_one_run() {
    for seed in 1..=3 {
        let (one, other) = (run(seed), run(seed));
        assert_eq!(one, other, "seed {seed}: hash and number of steps");
        assert_ne!(one.0, run(seed + 100).0, "another seed is another run");
    }
}
