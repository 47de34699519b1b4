//! Every bound in one place.

// Telemetry: what a worker may have on its way to control, and what control may hold.

/// Access records in one batch.
pub const ACCESS_BATCH_RECORDS: usize = 128;

/// Bytes of text in one batch: some 500 for each record, and room for one record of the longest fields.
pub const ACCESS_BATCH_BYTES: usize = 64 * 1024;

/// Bytes kept of one text field of an access record; the rest is cut and the line says so.
pub const ACCESS_TEXT_BYTES: usize = 4096;

/// Batches from all workers waiting for control: 64 × (128 × ~200 B + 64 KiB) ≤ 6 MiB, only while control is behind.
pub const ACCESS_QUEUE_BATCHES: usize = 64;

/// Log lines from worker threads waiting for control.
pub const LOG_QUEUE_LINES: usize = 1024;

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

// The control thread.

/// Bytes of log lines gathered while a write is under way; more are dropped and counted.
pub const JOURNAL_BYTES: usize = 4 << 20;

/// Connections on the metrics and control addresses together, 64 KiB and a page of metrics each at most.
pub const CONTROL_CONNECTIONS: usize = 256;
