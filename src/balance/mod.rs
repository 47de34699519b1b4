//! Which backend of an upstream takes the next attempt.
//!
//! Owns the algorithms, one file each, and [`Balancer`], which is one of them. Knows no backend: it is given weights and
//! answers with positions; health, limits and what was tried already come in as a question about a position, and so does
//! what is in flight. It keeps no clock, draws no number and allocates nothing once it is made.
//!
//! [`random`] draws by weight, and [`two_choices`] and [`latency`] draw from it; [`rendezvous`] is the table that
//! [`consistent_hash`] and sticky connections look up, with keys that [`keyed_hash`] makes. [`slow_start`] stands before any of
//! them, and [`left_out`] lists what speaks against a backend.

mod balancer;
mod consistent_hash;
mod keyed_hash;
mod latency;
mod least_connections;
mod left_out;
mod random;
mod rendezvous;
mod round_robin;
mod slow_start;
mod two_choices;

pub use balancer::{Ask, Balancer};
pub use consistent_hash::ConsistentHash;
pub use keyed_hash::KeyedHash;
pub use latency::{LatencyAware, Outcome};
pub use least_connections::LeastConnections;
pub use left_out::LeftOut;
pub use random::Random;
pub use rendezvous::{NODES_MAX, Table};
pub use round_robin::RoundRobin;
pub use slow_start::{SlowStart, Warming};
pub use two_choices::TwoChoices;
