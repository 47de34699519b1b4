//! HTTP/2 without I/O: what arrives becomes events, commands become bytes to send (RFC 9113), on either side.
//!
//! The only user of the `h2` crate, which is polled by hand over a transport in memory. It owns streams, their flow control
//! and what floods cost; it refuses to know sockets, TLS, timers, routes and the other side's connection, and reads no clock
//! (the library reads it to forget streams it reset).
//!
//! Read in this order: [`server`] (towards a client), [`client`] (towards a backend), `machine`, `receive`, `send` and `streams` (what both sides share: bodies, ends, resets),
//! `pipe` (the transport, and what leaves), `frames` (frame headers as they pass), `heads`, `glitches`.
//!
//! ```text
//! bytes ─> receive ─> frames, glitches ─> pipe ─> library ─> next_event ─> exchange
//! Output <─ transmit <─ pipe, frames <─ library <─ send_head, send_body, end, grant … ┘
//! ```
//!
//! Nothing is woken: the library is polled once when bytes came and once when commands were given, and the headers of the
//! frames that pass say which streams are worth asking. Flow control follows credit: a window opens by what was handed out,
//! and no more is handed out than was granted.

pub mod client;
mod frames;
mod glitches;
mod heads;
mod machine;
mod pipe;
mod receive;
mod send;
pub mod server;
mod settings;
mod streams;

pub use client::{ClientConnection, NotOpened};
pub use frames::kind;
pub use glitches::Glitch;
pub use server::ServerConnection;
pub use settings::Settings;

#[cfg(test)]
mod tests;

/// Error codes of RFC 9113 §7, for streams and connections.
pub mod code {
    /// NO_ERROR
    pub const NO_ERROR: u64 = 0x0;
    /// PROTOCOL_ERROR
    pub const PROTOCOL_ERROR: u64 = 0x1;
    /// INTERNAL_ERROR
    pub const INTERNAL_ERROR: u64 = 0x2;
    /// FLOW_CONTROL_ERROR
    pub const FLOW_CONTROL_ERROR: u64 = 0x3;
    /// SETTINGS_TIMEOUT
    pub const SETTINGS_TIMEOUT: u64 = 0x4;
    /// STREAM_CLOSED
    pub const STREAM_CLOSED: u64 = 0x5;
    /// FRAME_SIZE_ERROR
    pub const FRAME_SIZE_ERROR: u64 = 0x6;
    /// REFUSED_STREAM: nothing of the request was processed.
    pub const REFUSED_STREAM: u64 = 0x7;
    /// CANCEL
    pub const CANCEL: u64 = 0x8;
    /// COMPRESSION_ERROR
    pub const COMPRESSION_ERROR: u64 = 0x9;
    /// CONNECT_ERROR
    pub const CONNECT_ERROR: u64 = 0xa;
    /// ENHANCE_YOUR_CALM
    pub const ENHANCE_YOUR_CALM: u64 = 0xb;
    /// INADEQUATE_SECURITY
    pub const INADEQUATE_SECURITY: u64 = 0xc;
    /// HTTP_1_1_REQUIRED
    pub const HTTP_1_1_REQUIRED: u64 = 0xd;
}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closer {
    /// The other side: by GOAWAY or by ending its bytes.
    Peer,
    /// We did, or the library for us.
    Us,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CloseCause {
    /// Who ended it.
    pub by: Closer,
    /// The code of [`code`].
    pub code: u64,
}

/// A stream's number on the wire. The contract's is wider.
fn id(stream: u64) -> u32 {
    u32::try_from(stream).unwrap_or(0)
}

impl CloseCause {
    fn of(error: &::h2::Error) -> Self {
        let by = if error.is_remote() || error.is_io() { Closer::Peer } else { Closer::Us };
        // Bytes that just end say nothing.
        Self { by, code: if error.is_io() { code::NO_ERROR } else { receive::reason(error) } }
    }
}
