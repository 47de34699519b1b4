//! The control thread: the same reactor as the workers, for everything that is not a client's request.
//!
//! It owns the start and the end of the process, its signals, its log files and the metrics and control addresses. It
//! refuses to know how a request is served, never blocks a worker, and no worker ever waits for it.
//!
//! Read [`boot`] first (what is started, in which order), then [`runtime`] (the thread's loop) and [`lifecycle`] (what
//! it decides by); [`endpoints`] is the table of what is served.

pub mod boot;
pub mod endpoints;
pub mod failure;
pub mod health;
pub mod identities;
pub mod journal;
pub mod lifecycle;
pub mod overload;
pub mod qlogs;
pub mod resolver;
pub mod runtime;
pub mod secret;
pub mod service;
pub mod sockets;
pub mod upstream_tls;
pub mod workers;

pub use boot::{Running, Start, VERSION, start};
pub use failure::{Exit, Failure};
