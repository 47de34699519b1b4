//! worker.
pub mod host;
