//! HTTP/3 towards clients: QUIC packets in, events of requests out; commands for responses in, trains of packets out.
//!
//! The only user of quiche and BoringSSL. It owns connection IDs, handshakes, streams and the bytes in flight; it refuses
//! to know sockets, timers, routes and upstreams, and reads no clock of its own (quiche reads it on its own).
//!
//! Read in this order: [`endpoint`] (which connection a datagram is for), `accept` (how one begins), `connection` (the life
//! of one), `receive` (transport → events), `send` (commands → bytes that wait), `transmit` (bytes that wait → packets),
//! `streams` (what is kept of one request), `paths` (clients that move), `keep_alive` (clients that are silent), `drain` and
//! `close` (how a connection ends), `glitches` and `account` (what a client does too often), [`cid`] (what a connection ID
//! says), [`steering`] (how the kernel reads it). At the door stand `admission` and `half_open` (who may open a connection),
//! `token`, `addresses` and `stateless`.
//!
//! ```text
//! datagram ─> Endpoint::receive ─> Connection ─> next_event ─> exchange
//!                                       ^                         │ send_head, send_body, end, grant …
//! train   <─ Connection::transmit <─────┴─────────────────────────┘
//! ```

mod accept;
mod account;
mod admission;
mod boring_context;
mod boring_ffi;
pub mod cid;
pub mod client;
mod close;
mod connection;
mod counters;
mod drain;
pub mod endpoint;
mod flight;
mod glitches;
mod half_open;
mod keep_alive;
mod keys;
mod measures;
mod mtu;
mod pace;
pub mod packet;
mod paths;
mod payload;
mod qlog;
mod qpack;
mod receive;
mod send;
mod settings;
mod stateless;
pub mod steering;
mod streams;
pub mod tickets;
mod token;
mod transmit;
pub mod versions;

#[cfg(test)]
mod tests;

pub use boring_context::TlsContexts;
pub use close::{CloseCause, Closer};
pub use connection::{Connection, ConnectionFacts};
pub use counters::{Counters, DropReason};
pub use endpoint::{ConnKey, Endpoint, Received};
pub use glitches::Glitch;
pub use keys::EndpointKeys;
pub use qlog::{QlogPiece, QlogSettings};
pub use settings::{CongestionControl, QuicSettings, Retry, StartError};
pub use transmit::Train;

/// The one protocol negotiated.
const ALPN: &[u8] = b"h3";

/// Error codes of RFC 9114 §8.1, for streams and connections.
pub mod code {
    /// H3_NO_ERROR
    pub const NO_ERROR: u64 = 0x100;
    /// H3_GENERAL_PROTOCOL_ERROR
    pub const GENERAL_PROTOCOL_ERROR: u64 = 0x101;
    /// H3_INTERNAL_ERROR
    pub const INTERNAL_ERROR: u64 = 0x102;
    /// H3_STREAM_CREATION_ERROR
    pub const STREAM_CREATION_ERROR: u64 = 0x103;
    /// H3_CLOSED_CRITICAL_STREAM
    pub const CLOSED_CRITICAL_STREAM: u64 = 0x104;
    /// H3_FRAME_UNEXPECTED
    pub const FRAME_UNEXPECTED: u64 = 0x105;
    /// H3_FRAME_ERROR
    pub const FRAME_ERROR: u64 = 0x106;
    /// H3_EXCESSIVE_LOAD
    pub const EXCESSIVE_LOAD: u64 = 0x107;
    /// H3_ID_ERROR
    pub const ID_ERROR: u64 = 0x108;
    /// H3_SETTINGS_ERROR
    pub const SETTINGS_ERROR: u64 = 0x109;
    /// H3_MISSING_SETTINGS
    pub const MISSING_SETTINGS: u64 = 0x10a;
    /// H3_REQUEST_REJECTED
    pub const REQUEST_REJECTED: u64 = 0x10b;
    /// H3_REQUEST_CANCELLED
    pub const REQUEST_CANCELLED: u64 = 0x10c;
    /// H3_REQUEST_INCOMPLETE
    pub const REQUEST_INCOMPLETE: u64 = 0x10d;
    /// H3_MESSAGE_ERROR
    pub const MESSAGE_ERROR: u64 = 0x10e;
    /// H3_CONNECT_ERROR
    pub const CONNECT_ERROR: u64 = 0x10f;
    /// H3_VERSION_FALLBACK
    pub const VERSION_FALLBACK: u64 = 0x110;
    /// QPACK_DECOMPRESSION_FAILED (RFC 9204 §6)
    pub const QPACK_DECOMPRESSION_FAILED: u64 = 0x200;
}
