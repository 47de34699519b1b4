//! HTTP/1.1 and 1.0 without I/O: what arrives becomes events, commands become bytes to send (RFC 9112).
//!
//! Owns framing, persistence and the strictness that keeps two readers of one connection in agreement. It refuses to know
//! sockets, timers, pools, routes and what fields mean: bytes come in as chunks, heads pass [`crate::http::normalize`],
//! and the worker moves an [`crate::http::Output`] to its socket.
//!
//! Read in this order: [`client`] (towards a backend) and [`server`] (towards a client), then what both stand on:
//! `input` (received bytes), `parse` (sections), `incoming` and `outgoing` (bodies), `chunked` (the coding), `lines`,
//! and [`fault`].
//!
//! Memory of one connection at its limits: [`Limits::held_bytes`] and what one socket read brings on top, one head of
//! [`HeadLimits::bytes`] being gathered, and one head being handed out.

pub mod client;
pub mod fault;
pub mod server;

mod chunked;
mod incoming;
mod input;
mod lines;
mod outgoing;
mod parse;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use client::{ClientConnection, Framing};
pub use fault::{Fault, Next, What};
pub use server::{Closing, ServerConnection};

use crate::http::known::rule;
use crate::http::normalize::HeadLimits;
use crate::http::{Fields, Known, WireVersion};
use crate::limits;

/// Bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of each head and each trailer section that is received. Its `bytes` bounds the bytes on the wire too.
    pub head: HeadLimits,
    /// Received bytes that may wait for credit or for their turn before reading pauses.
    pub held_bytes: usize,
}

impl Limits {
    /// The defaults towards backends.
    pub const CLIENT: Self = Self { head: HeadLimits::RESPONSE, held_bytes: limits::H1_HELD_BYTES };

    /// The defaults towards clients.
    pub const SERVER: Self = Self { head: HeadLimits::REQUEST, held_bytes: limits::H1_HELD_BYTES };
}

/// Whether the sender of these fields lets the connection live on (RFC 9112 §9.3).
fn keeps_alive(version: WireVersion, fields: &Fields) -> bool {
    let says = |option| fields.has_token(Known::Connection, option);
    match version {
        WireVersion::H1_0 => says(b"keep-alive") && !says(b"close"),
        _ => !says(b"close"),
    }
}

/// Whether a field says something of this connection or of the framing. Such fields are written by the machines and never
/// taken from a head, whatever was left in it.
#[inline]
fn is_ours(known: Option<Known>) -> bool {
    known.is_some_and(|known| {
        known.rules() & rule::CONNECTION != 0 || matches!(known, Known::Te | Known::Host | Known::ContentLength)
    })
}

/// Makes room for parsed fields and so many more fields of so many bytes at once, in memory that was not used before.
fn reserve(to: &mut Fields, fields: &[httparse::Header<'_>], more: (usize, usize)) {
    if to.capacity() == 0 {
        let bytes: usize = fields.iter().map(|field| field.name.len() + field.value.len()).sum();
        *to = Fields::with_capacity(fields.len() + more.0, bytes + more.1);
    }
}
