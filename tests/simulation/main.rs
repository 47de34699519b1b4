//! A whole worker in simulation: real quiche at both ends, scripted origins, virtual time, seeded faults, no sleeps.
//!
//! Every story runs with many seeds: `SPOOKY_SEEDS=20` runs twenty times as many, `SPOOKY_SEED=7` that one alone, and
//! `SPOOKY_TRACE=1` shows what crosses the seam. After each run nothing may be left of anything: see [`scene::Scene::close`].

// Real quiche in virtual time, and drawing what the seed says: BoringSSL asks this function for its randomness.
spooky_uring::interpose_clock!();
spooky_uring::interpose_randomness!(RAND_bytes);

mod amplification;
mod bodies;
mod client;
mod clients;
mod determinism;
mod forwarding;
mod handshakes;
mod health;
mod hedging;
mod identity;
mod keep_alive;
mod measures;
mod names;
mod origin;
mod origins;
mod overload;
mod pattern;
mod resilience;
mod sabotage;
mod scene;
mod seeds;
mod tunnels;
