//! Every bound of the program, with the arithmetic of the memory it stands for.
//!
//! Two kinds: constants, which no configuration changes, and [`Demand`], the bounds an operator sets. [`Budget`] joins
//! them to the worst case of the process, which `spooky check` prints. A queue or pool anywhere in the program takes its
//! bound from here; who adds one adds its row to [`Budget::of`]. Knows no configuration: `config` fills the demand.

mod address_rules;
mod addresses;
mod budget;
mod exchange;
mod h1;
pub mod h2;
mod health;
pub mod quic;
mod rates;
mod resolver;
mod telemetry;
mod tls;

pub use address_rules::{AddressRules, Contradiction, deciding_network};
pub use addresses::{AddressKey, AddressLimits, Addresses, Rate, Reached};
pub use budget::{Budget, Demand, Item, human};
pub use exchange::*;
pub use h1::*;
pub use health::*;
pub use rates::*;
pub use resolver::*;
pub use telemetry::*;
pub use tls::*;

const MIB: u64 = 1 << 20;

/// Buffers the kernel receives datagrams into, per worker: one GRO train each. 32 × 64 KiB = 2 MiB.
pub const UDP_RECEIVE_BUFFERS: u16 = 32;
/// Room for one train of datagrams; 64 KiB is the most the kernel joins.
pub const UDP_RECEIVE_BUFFER_BYTES: u32 = 65_536;
/// Trains of datagrams on their way out, per worker; an empty pool is backpressure. 32 × 64 KiB = 2 MiB.
pub const UDP_SEND_SLOTS: u16 = 32;
/// Room for one train out.
pub const UDP_SEND_SLOT_BYTES: u32 = 65_536;
/// Buffers the kernel receives stream bytes into, per worker. Response bodies stay in them until the client
/// acknowledges, so this bounds unacknowledged bytes; a small hot pool is also faster than a large cold one.
/// 48 × 64 KiB = 3 MiB.
pub const STREAM_RECEIVE_BUFFERS: u16 = 48;
/// Room for one receive of a stream socket.
pub const STREAM_RECEIVE_BUFFER_BYTES: u32 = 65_536;

/// Everything else an exchange holds: its slot, timers, trail and small buffers.
pub const EXCHANGE_BYTES: u32 = 4_096;

/// An idle QUIC connection with HTTP/3, our state included; measured as resident memory, rounded up.
pub const CONNECTION_BYTES: u32 = 36 * 1024;
/// A QUIC connection in handshake, of a client that fell silent; measured as resident memory, rounded up.
pub const HALF_OPEN_BYTES: u32 = 32 * 1024;
const _: () = assert!(HALF_OPEN_BYTES <= CONNECTION_BYTES, "the worst case is that all are established");
/// An idle connection to a backend: our state, without the kernel's socket.
pub const BACKEND_CONNECTION_BYTES: u32 = 2_048;

/// The libraries' own limits stand at this multiple of ours, so that ours answers first.
pub const LIBRARY_HEAD_FACTOR: u32 = 2;

/// Messages a mailbox between control and a worker holds.
pub const MAILBOX_MESSAGES: u32 = 64;
/// Datagrams on their way to one worker that reached another; more are dropped. 256 × 1664 B = 416 KiB.
pub const FORWARDS: usize = 256;
/// One of them with its addresses and the mailbox's own bytes.
pub const FORWARD_BYTES: usize = 1_664;
/// Connections to the metrics and control endpoints at once.
pub const CONTROL_CONNECTIONS: u32 = 64;
/// One of them: a request head and a piece of the answer.
pub const CONTROL_CONNECTION_BYTES: u32 = 80 * 1024;

/// One configuration file.
pub const CONFIG_FILE_BYTES: u64 = 16 * MIB;
/// Files of one configuration, included ones and the main one.
pub const CONFIG_FILES: usize = 1_024;
/// Findings shown in full; the rest is counted.
pub const CONFIG_DIAGNOSTICS_SHOWN: usize = 50;
/// A name of an upstream, backend, route or listener.
pub const NAME_BYTES: usize = 64;
/// Matchers of one route.
pub const ROUTE_MATCHERS: usize = 16;
/// The text of a regular expression.
pub const PATTERN_BYTES: usize = 1_024;
/// Its compiled program, which all workers share.
pub const PATTERN_COMPILED_BYTES: usize = 64 << 10;
/// What each worker remembers of it, once for each direction of the search.
pub const PATTERN_CACHE_BYTES: usize = 128 << 10;
/// The body of a fixed response: it is queued for the client in one piece.
pub const FIXED_BODY_BYTES: usize = 16 << 10;
/// The value of a field, a parameter or a cookie that a configuration holds, and the location of a redirect.
pub const CONFIG_VALUE_BYTES: usize = 2_048;

const _: () = assert!(CONFIG_FILES < u16::MAX as usize, "a file's number fits the id of a source");
const _: () = assert!(FIXED_BODY_BYTES <= RESPONSE_TAIL_BYTES, "a fixed response needs no exchange while it is sent");
const _: () =
    assert!(quic::QUEUE_BYTES >= STREAM_RECEIVE_BUFFER_BYTES as usize, "one receive fits what an exchange may hold");
