//! A file of lines, written by control's ring: the access log, and the operator's log.
//!
//! Lines gather while a write is under way and leave together with the next one, so a slow disk makes writes larger, not
//! more. What gathers is bounded; beyond it lines are dropped and counted. A target that refuses a write loses those
//! lines only: the next ones are tried again, because disks are emptied and pipes are read again.

use crate::limits::JOURNAL_BYTES;
use spooky_uring::io::FileId;
use spooky_uring::{Chunk, Io};

/// Lines on their way to one target.
#[derive(Debug)]
pub struct Journal {
    file: FileId,
    gathered: Vec<u8>,
    gathered_lines: u64,
    /// Lines in the write that is under way.
    writing: Option<u64>,
    counts: JournalCounts,
}

/// What became of lines.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct JournalCounts {
    /// Written.
    pub written: u64,
    /// The target refused them.
    pub failed: u64,
    /// There was no room for them.
    pub dropped: u64,
}

impl Journal {
    /// Writes to `file`.
    pub fn new(file: FileId) -> Self {
        Self { file, gathered: Vec::new(), gathered_lines: 0, writing: None, counts: JournalCounts::default() }
    }

    /// Takes what `write` appends as `lines` whole lines, or drops them if there is no room.
    pub fn add(&mut self, lines: u64, io: &mut impl Io, write: impl FnOnce(&mut Vec<u8>)) {
        if self.gathered.len() >= JOURNAL_BYTES {
            self.counts.dropped += lines;
            return;
        }
        write(&mut self.gathered);
        self.gathered_lines += lines;
        self.go_on(io);
    }

    /// A write ended. Returns the error if it is the first after a success.
    pub fn written(&mut self, result: Result<usize, i32>, io: &mut impl Io) -> Option<i32> {
        let lines = self.writing.take().unwrap_or(0);
        let mut first = None;
        match result {
            Ok(_) => self.counts.written += lines,
            Err(error) => {
                first = (self.counts.failed == 0).then_some(error);
                self.counts.failed += lines;
            }
        }
        self.go_on(io);
        first
    }

    /// Goes on with another file: what was asked of the old one is still written there.
    pub fn switch(&mut self, file: FileId, io: &mut impl Io) {
        io.close_file(std::mem::replace(&mut self.file, file));
        // The old write's answer carries the old token; its lines are as good as written.
        self.counts.written += self.writing.take().unwrap_or(0);
        self.go_on(io);
    }

    /// Whether everything was written.
    pub fn is_quiet(&self) -> bool {
        self.writing.is_none() && self.gathered.is_empty()
    }

    /// What became of lines.
    pub fn counts(&self) -> JournalCounts {
        self.counts
    }

    fn go_on(&mut self, io: &mut impl Io) {
        if self.writing.is_none() && !self.gathered.is_empty() {
            self.writing = Some(std::mem::take(&mut self.gathered_lines));
            io.write(self.file, Chunk::from_vec(std::mem::take(&mut self.gathered)));
        }
    }
}
