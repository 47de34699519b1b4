//! Owns the traces of connections (qlog): which ones are traced, and what their transport wrote until the worker takes it.
//!
//! The transport writes whole records (JSON text sequences, RFC 7464) in the middle of a turn, so they go to memory. Both
//! the memory and the trace are bounded: a record that no longer fits ends the trace, whose last record then says so.

use super::connection::{Connection, Quic};
use crate::limits::{QLOG_GATHERED_BYTES, QLOG_PIECE_BYTES};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Which connections are traced.
#[derive(Clone, Debug)]
pub struct QlogSettings {
    /// Only those that this client began.
    pub client: Option<IpAddr>,
    /// Bytes of one trace.
    pub file_bytes: usize,
    /// Traces that may still begin. All workers share it; it is touched once for each traced connection.
    pub files_left: Arc<AtomicU32>,
}

/// A piece of one trace, on its way to a file.
#[derive(Debug, PartialEq, Eq)]
pub struct QlogPiece {
    /// The trace, for the life of the process.
    pub number: u32,
    /// When it began: with the next, a name for the file.
    pub began: Instant,
    /// Our first connection ID in hexadecimal.
    pub connection: Box<str>,
    /// Whole records.
    pub bytes: Vec<u8>,
    /// Nothing follows.
    pub last: bool,
}

/// One connection's trace.
pub(super) struct Qlog {
    number: u32,
    began: Instant,
    connection: Box<str>,
    gathered: Arc<Mutex<Gathered>>,
}

/// The end of the trace that the transport writes to. The lock is never contended: both ends are on the worker's thread,
/// but the transport wants a writer that may be sent.
struct Tap(Arc<Mutex<Gathered>>);

#[derive(Debug)]
struct Gathered {
    began: Instant,
    bytes: Vec<u8>,
    /// Where the record begins that is being written.
    record: usize,
    /// Bytes the trace may still have.
    left: usize,
    /// Something was left out: nothing more is taken in.
    cut: bool,
}

/// RS, which begins every record (RFC 7464 §2.2).
const RECORD: u8 = 0x1e;

impl QlogSettings {
    /// Begins a trace of a new connection, if it is to have one.
    pub(super) fn begin(&self, quic: &mut Quic, client: SocketAddr, now: Instant) -> Option<Qlog> {
        if self.client.is_some_and(|wanted| wanted != client.ip().to_canonical()) {
            return None;
        }
        // The number of traces left is unique at each decrement, so it names the trace.
        let number = self.files_left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).ok()?;
        let gathered = Gathered::new(self.file_bytes, now);
        let gathered = Arc::new(Mutex::new(gathered));
        let connection: Box<str> = quic.trace_id().into();
        let title = format!("connection {connection} of {client}");
        let tap = Box::new(Tap(Arc::clone(&gathered)));
        quic.set_qlog_with_level(tap, title, "spooky".to_owned(), quiche::QlogLevel::Base);
        Some(Qlog { number, began: now, connection, gathered })
    }
}

impl Connection {
    /// What the connection's trace has gathered: when it is worth a write, or, with `last`, whatever there is.
    pub fn take_qlog(&mut self, last: bool, now: Instant) -> Option<QlogPiece> {
        let qlog = self.qlog.as_ref()?;
        let bytes = lock(&qlog.gathered).take(last, now);
        if bytes.is_empty() && !last {
            return None;
        }
        let (number, began, connection) = (qlog.number, qlog.began, qlog.connection.clone());
        let piece = QlogPiece { number, began, connection, bytes, last };
        if last {
            self.qlog = None;
        }
        Some(piece)
    }

    /// A piece was lost: the trace ends.
    pub fn cut_qlog(&mut self) {
        if let Some(qlog) = &self.qlog {
            lock(&qlog.gathered).cut = true;
        }
    }
}

impl Gathered {
    fn new(left: usize, began: Instant) -> Self {
        Self { began, bytes: Vec::new(), record: 0, left, cut: false }
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.cut {
            return;
        }
        if bytes.first() == Some(&RECORD) {
            self.record = self.bytes.len();
        }
        if bytes.len() > self.left || self.bytes.len() + bytes.len() > QLOG_GATHERED_BYTES {
            self.bytes.truncate(self.record);
            self.cut = true;
            return;
        }
        self.left -= bytes.len();
        self.bytes.extend_from_slice(bytes);
    }

    fn take(&mut self, last: bool, now: Instant) -> Vec<u8> {
        if self.bytes.len() < QLOG_PIECE_BYTES && !last {
            return Vec::new();
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        self.record = 0;
        if last && self.cut {
            let time = now.saturating_duration_since(self.began).as_millis();
            bytes.push(RECORD);
            let message = "truncated: the bound of this trace was reached, or its writer was behind";
            let record = format!(r#"{{"time":{time},"name":"loglevel:warning","data":{{"message":"{message}"}}}}"#);
            bytes.extend_from_slice(record.as_bytes());
            bytes.push(b'\n');
        }
        bytes
    }
}

impl Write for Tap {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).write(bytes);
        // What does not fit is left out by intention: the transport need not know.
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock(gathered: &Mutex<Gathered>) -> MutexGuard<'_, Gathered> {
    gathered.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(left: usize, records: &[&str]) -> Gathered {
        let mut gathered = Gathered::new(left, Instant::now());
        for record in records {
            // As the transport does: the separator alone, then pieces of the text.
            for part in [b"\x1e".as_slice(), record.as_bytes(), b"\n"] {
                gathered.write(part);
            }
        }
        gathered
    }

    #[test]
    fn small_records_wait_for_more_or_for_the_end() {
        let mut all = gathered(1000, &["{1}", "{2}"]);
        assert!(all.take(false, Instant::now()).is_empty());
        assert_eq!(all.take(true, Instant::now()), b"\x1e{1}\n\x1e{2}\n");
        let long = "x".repeat(QLOG_PIECE_BYTES);
        assert_eq!(gathered(QLOG_PIECE_BYTES * 2, &[&long]).take(false, Instant::now()).len(), long.len() + 2);
    }

    #[test]
    fn a_record_that_does_not_fit_is_left_out_whole_and_the_trace_says_so() {
        let mut cut = gathered(12, &["{1}", "{second}", "{3}"]);
        let text = String::from_utf8(cut.take(true, Instant::now())).unwrap();
        let records: Vec<&str> = text.split('\x1e').skip(1).collect();
        assert_eq!((records.len(), records[0]), (2, "{1}\n"));
        let last: serde_json::Value = serde_json::from_str(records[1]).unwrap();
        assert!(last["data"]["message"].as_str().unwrap().starts_with("truncated"));
    }

    #[test]
    fn memory_is_bounded_whatever_the_trace_may_have() {
        let record = "x".repeat(1000);
        let mut full = Gathered::new(usize::MAX, Instant::now());
        for _ in 0..2 * QLOG_GATHERED_BYTES / record.len() {
            full.write(b"\x1e");
            full.write(record.as_bytes());
            assert!(full.bytes.len() <= QLOG_GATHERED_BYTES);
        }
        assert!(full.cut);
        assert_eq!(full.bytes.len() % 1001, 0, "whole records");
    }
}
