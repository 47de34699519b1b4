//! Every bound in one place.

// HTTP/1.1 connections.

/// Extensions and blanks in one chunk-size line. They are skipped, so a bound is all they need.
pub const H1_CHUNK_EXTENSION_BYTES: usize = 256;

/// Extensions over one chunked body: else 1-byte chunks would each carry [`H1_CHUNK_EXTENSION_BYTES`] of freight.
pub const H1_MESSAGE_EXTENSION_BYTES: usize = 16 * 1024;
