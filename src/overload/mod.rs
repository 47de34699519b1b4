//! When there is more work than room: who waits and whose turn it is, how much an upstream is given, and when only the core is
//! served.
//!
//! Pure policy: positions, client addresses, times and counts go in, decisions come out. Knows no upstream by name, no request
//! and no clock. Three parts that know nothing of each other: [`queue`], [`adaptive`], [`brownout`].

mod adaptive;
mod brownout;
mod queue;

pub use adaptive::{Adaptive, AdaptivePolicy, Window, spread};
pub use brownout::{Brownout, BrownoutChange, BrownoutPolicy, MemoryGate, demanded, percent};
pub use queue::{Crowded, Place, Queue, QueuePolicy, Ticket};
