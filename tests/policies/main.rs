//! The policies of an upstream together, in virtual time: balancing, circuit breakers, ejection, retries and their
//! budget, over backends that are slow, that flap, that half work, that die and come back.
//!
//! No sockets and no worker: [`world`] does with the real policies what a worker does, and nothing else, so that a
//! thousand seeds take seconds. Every story runs with every algorithm. What has to hold is in [`invariants`], and for
//! each of its rules [`sabotage`] breaks a policy so that it has to fail. `SPOOKY_SEED=7` runs one seed alone.

mod backends;
mod ejection;
mod figures;
mod invariants;
mod sabotage;
#[path = "../simulation/seeds.rs"]
mod seeds;
mod stories;
mod world;
