//! Every bound in one place.

// HTTP/1.1 connections.

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

/// 1xx heads before one final head. One or two are usual; without a bound a backend could send them for ever.
pub const H1_INFORMATIONAL_MAX: usize = 16;
