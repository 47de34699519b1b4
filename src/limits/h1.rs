//! Bounds of one HTTP/1.1 connection, on either side.

use std::time::Duration;

/// Extensions and blanks in one chunk-size line. They are skipped, so a bound is all they need.
pub const H1_CHUNK_EXTENSION_BYTES: usize = 256;

/// Extensions over one chunked body: else 1-byte chunks would each carry [`H1_CHUNK_EXTENSION_BYTES`] of freight.
pub const H1_MESSAGE_EXTENSION_BYTES: usize = 16 * 1024;

/// Most fields of an HTTP/1.1 head or trailer section, whatever is configured: the parser's index of them stands on the
/// stack, 32 bytes each, 16 KiB in all.
pub const H1_FIELDS_CEILING: usize = 512;

/// Received bytes of one HTTP/1.1 connection that may wait for credit, or behind a request being answered, before reading
/// pauses. One socket read can come on top.
pub const H1_HELD_BYTES: usize = 64 * 1024;

/// The same in received pieces: each may keep a receive buffer of 16 KiB or more from its pool, however few its bytes.
pub const H1_HELD_CHUNKS: usize = 16;

/// 1xx heads before one final head. One or two are usual; without a bound a backend could send them for ever.
pub const H1_INFORMATIONAL_MAX: usize = 16;

/// How long what a client still sends is read and dropped after the last response, so that it does not lose that to a
/// reset (RFC 9112 §9.6).
pub const LINGER: Duration = Duration::from_secs(2);

/// Response bytes that wait for one client over TCP, above what the kernel's socket holds; its origin has to wait then. One
/// chunk may come on top.
pub const CLIENT_QUEUE_BYTES: usize = 128 * 1024;

/// Memory of a used head that one connection keeps for its next one.
pub const H1_SPARE_HEAD_BYTES: usize = 4 * 1024;
