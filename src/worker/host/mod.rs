//! A small HTTP/1.1 server on a ring: the host of the metrics and control addresses and of the demo's origin.
//!
//! It owns its connections, their timeouts and their bounds, and moves bytes between [`Io`](spooky_uring::Io) and
//! [`crate::h1::ServerConnection`]. What is answered is a [`Service`]'s business; what else happens on the ring is its
//! caller's: [`Host::handle`] gives back every event that is not its own.
//!
//! ```text
//! loop { io.wait(host.next_deadline(), &mut events)
//!        for event in events { host.handle(event, io) → not ours? … }      collect
//!        host.turn(io) }                                                   act
//! ```
//! Read [`service`] first, then [`connection`] (one connection's life), then [`server`] (all of them).

pub mod connection;
pub mod server;
pub mod service;

pub use server::{Counts, Host, Settings};
pub use service::{Answer, Body, NoSource, Piece, Request, Service, Source};

#[cfg(test)]
mod tests;
