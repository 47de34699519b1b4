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

#[cfg(test)]
mod tests {
    use super::*;
    use spooky_uring::{Event, FeatureMask, Features, PoolConfig, Ring, RingConfig, Token};
    use std::fs::File;
    use std::os::fd::OwnedFd;
    use std::path::PathBuf;

    fn ring() -> Ring {
        let small = PoolConfig { count: 1, size: 4096, posted: 1 };
        let config = RingConfig {
            entries: 8,
            streams: 1,
            stream_receive: small,
            udp_receive: small,
            udp_send_slots: 1,
            ..RingConfig::default()
        };
        Ring::new(&config, &Features::probe(FeatureMask::ALL).unwrap()).unwrap()
    }

    fn file(name: &str) -> (PathBuf, OwnedFd) {
        let path = std::env::temp_dir().join(format!("spooky-journal-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let file = crate::telemetry::log::open_append(&path).unwrap();
        (path, file.into())
    }

    /// Turns until everything is written; what went wrong first.
    fn settle(journal: &mut Journal, ring: &mut Ring) -> Option<i32> {
        let (mut events, mut first) = (Vec::new(), None);
        while !journal.is_quiet() {
            ring.wait(None, &mut events).unwrap();
            for event in events.drain(..) {
                if let Event::Written { result, .. } = event {
                    first = first.or(journal.written(result, ring));
                }
            }
        }
        first
    }

    #[test]
    fn lines_keep_their_order_and_gather_behind_a_write() {
        let mut ring = ring();
        let (path, descriptor) = file("order");
        let mut journal = Journal::new(ring.add_file(descriptor, Token(1)));
        let mut expected = String::new();
        for n in 0..1000 {
            let line = format!("line {n}\n");
            journal.add(1, &mut ring, |out| out.extend_from_slice(line.as_bytes()));
            expected.push_str(&line);
        }
        assert_eq!(settle(&mut journal, &mut ring), None);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        assert_eq!(journal.counts(), JournalCounts { written: 1000, ..JournalCounts::default() });
        assert_eq!(ring.stats().file_writes, 2, "the first, and all that gathered behind it");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_counted() {
        let mut ring = ring();
        let (path, descriptor) = file("full");
        let mut journal = Journal::new(ring.add_file(descriptor, Token(1)));
        let line = [b'x'; 1 << 20];
        // One is written, four fill the room; nothing completes without a turn.
        for _ in 0..1 + JOURNAL_BYTES / line.len() + 3 {
            journal.add(1, &mut ring, |out| out.extend_from_slice(&line));
        }
        assert_eq!(journal.counts().dropped, 3);
        settle(&mut journal, &mut ring);
        assert_eq!(journal.counts().written, 5);
        journal.add(1, &mut ring, |out| out.push(b'y'));
        settle(&mut journal, &mut ring);
        assert_eq!(journal.counts(), JournalCounts { written: 6, failed: 0, dropped: 3 });
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_target_that_refuses_loses_those_lines_and_says_so_once() {
        let mut ring = ring();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut journal = Journal::new(ring.add_file(full.into(), Token(1)));
        journal.add(2, &mut ring, |out| out.extend_from_slice(b"a\nb\n"));
        let enospc = settle(&mut journal, &mut ring);
        assert!(enospc.is_some());
        journal.add(1, &mut ring, |out| out.extend_from_slice(b"c\n"));
        assert_eq!(settle(&mut journal, &mut ring), None, "said already");
        assert_eq!(journal.counts(), JournalCounts { written: 0, failed: 3, dropped: 0 });
    }

    #[test]
    fn a_rotation_splits_between_lines() {
        let mut ring = ring();
        let (path, descriptor) = file("rotated");
        let old = path.with_extension("1");
        let mut journal = Journal::new(ring.add_file(descriptor, Token(1)));
        journal.add(1, &mut ring, |out| out.extend_from_slice(b"before\n"));
        std::fs::rename(&path, &old).unwrap();
        let (_, descriptor) = file("rotated");
        journal.switch(ring.add_file(descriptor, Token(2)), &mut ring);
        journal.add(1, &mut ring, |out| out.extend_from_slice(b"behind\n"));
        let mut events = Vec::new();
        while journal.counts().written < 2 {
            ring.wait(None, &mut events).unwrap();
            for event in events.drain(..) {
                if let Event::Written { token: Token(2), result } = event {
                    journal.written(result, &mut ring);
                }
            }
        }
        assert_eq!(std::fs::read(&old).unwrap(), b"before\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"behind\n");
        std::fs::remove_file(path).unwrap();
        std::fs::remove_file(old).unwrap();
    }
}
