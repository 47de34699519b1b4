//! The reactor of Spooky: one io_uring per thread with its operations, buffers, sockets, timers and mailbox.
//!
//! Owns: every byte the kernel may touch, every file descriptor, and all `unsafe` of the proxy but a few TLS calls.
//! Refuses to know: any protocol. A thread makes a [`Ring`] from probed [`Features`], adds sockets, and turns:
//!
//! ```no_run
//! use spooky_uring::{Event, FeatureMask, Features, Io, Ring, RingConfig, Token, UdpOptions, UdpSocket};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let features = Features::probe(FeatureMask::ALL)?;
//! let mut ring = Ring::new(&RingConfig::default(), &features)?;
//! let socket = UdpSocket::bind(&UdpOptions::new("[::]:9889".parse()?))?;
//! ring.add_udp(socket, Token(1));
//! let mut events = Vec::new();
//! loop {
//!     ring.wait(None, &mut events)?;
//!     for event in events.drain(..) {
//!         if let Event::Datagrams { from, lease, .. } = event {
//!             println!("{} bytes from {from}", lease.len());
//!         }
//!     }
//! }
//! # }
//! ```
//!
//! Read next: [`io`] (what can be asked and what is told), [`chunk`] (who holds bytes), then `ring.rs`.

mod address;
pub mod bpf;
pub mod chunk;
pub mod features;
pub mod host;
pub mod inherited;
pub mod io;
pub mod mailbox;
mod map;
mod pool;
mod ring;
mod selftest;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod socket;
mod stats;
pub mod wheel;

pub use bpf::Instruction;
pub use chunk::{Chunk, ChunkMut, Lease};
pub use features::{FeatureMask, Features, StartError};
pub use io::{End, Event, FileId, Io, ListenerId, Pressure, StreamAddress, StreamId, Token, Transmit, UdpId};
pub use ring::{PoolConfig, Ring, RingConfig, UdpSlot};
pub use socket::{Listener, UdpOptions, UdpSocket};
pub use stats::RingStats;
pub use wheel::{TimerKey, Wheel};
