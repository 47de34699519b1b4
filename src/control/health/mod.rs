//! The health of backends: probes on control's ring, and what workers count, become verdicts for all workers.
//!
//! Decides nothing by itself: when to probe whom and what follows is [`crate::health::Monitor`]'s. This is its shell.
//!
//! ```text
//! host    carries out what the monitor orders; news for the log, the counters and the workers
//! probe   one probe: its socket and what is spoken on it, until there is a result
//! ```

mod host;
mod probe;

pub use host::{Health, cells};
