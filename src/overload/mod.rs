//! When there is more work than room: who waits, and whose turn it is.
//!
//! Pure policy: positions, client addresses and times go in, decisions come out. Knows no upstream by name, no request and
//! no clock. Read [`queue`].

mod queue;

pub use queue::{Crowded, Place, Queue, QueuePolicy, Ticket};
