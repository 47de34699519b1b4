//! A simulated host: the same [`Io`](crate::Io) without a kernel, in virtual time, with scripted peers and seeded faults.
//!
//! Owns everything a worker can see of a machine: when it is, which datagrams and bytes arrive in which pieces, which
//! pools are dry, what comes late. Refuses to know any protocol. All chance comes from one seed, and nothing else does:
//! the same seed is the same run. Leases, chunks and pools are the real ones, so that whoever pins a buffer is seen.
//!
//! A test makes a [`SimulatedHost`] with a [`Plan`], adds sockets, [`Peer`]s and [`Origin`]s, gives a clone to the worker,
//! and turns it. Time passes in `wait` only, to whatever comes next. Read next: [`plan`] (what can go wrong), [`peer`]
//! (what a test scripts), then `host.rs`. [`clock`] brings libraries that read the clock themselves into virtual time.
//!
//! ```
//! use spooky_uring::simulation::{Link, Plan, SimulatedHost};
//! use spooky_uring::Io;
//! use std::time::Duration;
//!
//! let mut host = SimulatedHost::new(1, Plan::calm());
//! let mut events = Vec::new();
//! let deadline = host.now() + Duration::from_secs(3600);
//! host.wait(Some(deadline), &mut events).unwrap(); // an hour, at once
//! assert!(events.is_empty() && host.now() == deadline);
//! ```

mod agenda;
pub mod clock;
mod connection;
mod datagrams;
mod host;
pub mod peer;
pub mod plan;
pub mod random;
mod sources;
mod streams;
#[cfg(test)]
mod tests;
mod trace;
mod turn;

pub use clock::VirtualClock;
pub use datagrams::{PeerId, SimulatedSlot};
pub use host::SimulatedHost;
pub use peer::{Connect, Line, Origin, Outgoing, Peer, Session};
pub use plan::{Link, Plan};
pub use random::Random;
