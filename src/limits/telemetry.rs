//! Bounds of what workers have on their way to control, and of what control holds.

/// Access records in one batch.
pub const ACCESS_BATCH_RECORDS: usize = 128;

/// Bytes of text in one batch: some 500 for each record, and room for one record of the longest fields.
pub const ACCESS_BATCH_BYTES: usize = 64 * 1024;

/// Bytes kept of one text field of an access record; the rest is cut and the line says so.
pub const ACCESS_TEXT_BYTES: usize = 4096;

/// Batches from all workers waiting for control: 64 × (128 × 232 B + 64 KiB) ≤ 6 MiB, only while control is behind.
pub const ACCESS_QUEUE_BATCHES: usize = 64;

/// Log lines from worker threads waiting for control.
pub const LOG_QUEUE_LINES: usize = 1024;

/// Bytes of log lines gathered while a write is under way; more are dropped and counted.
pub const JOURNAL_BYTES: usize = 4 << 20;

/// A record of the access log beside its text.
pub const ACCESS_RECORD_BYTES: usize = 232;

/// Bytes of a connection's trace that wait for the worker; a turn writes far less.
pub const QLOG_GATHERED_BYTES: usize = 256 << 10;

/// Bytes of a trace that are worth a message to control.
pub const QLOG_PIECE_BYTES: usize = 32 << 10;

/// Pieces of traces from all workers waiting for control: some 2 MiB, 16 MiB at most.
pub const QLOG_QUEUE_PIECES: usize = 64;

/// Bytes of traces waiting for the disk.
pub const QLOG_UNWRITTEN_BYTES: usize = 16 << 20;
