//! What the process knows about itself: counters, latencies, the access log, the operator's log.
//!
//! Owns the cells that workers write and control reads, the one table of metrics, and the form of every log line.
//! Refuses to know sockets, routing and protocols: a worker says *what happened* in the words of [`kinds`], and
//! everything that formats or writes runs on the control thread. Nothing here blocks a worker: cells are plain
//! stores, a full queue drops and counts.
//!
//! Read [`cells`] first (what is counted), then [`registry`] (how it is shown), then [`access`].

pub mod access;
pub mod cells;
pub mod clock;
pub mod json;
pub mod kinds;
pub mod latency;
pub mod log;
pub mod process;
pub mod quic;
pub mod registry;
pub mod scope;
pub mod steps;
pub mod table;
pub mod text;
pub mod udp;

pub use access::{AccessBatch, AccessBatcher, AccessEntry, AccessSender, TlsEntry};
pub use cells::{BackendCells, Counter, ExchangeEnd, Gauge, RateCells, RouteCells, WorkerCells};
pub use clock::WallClock;
pub use quic::{QuicEnd, QuicMeasures, QuicPath};
pub use scope::{BackendName, RouteName, Scope};
