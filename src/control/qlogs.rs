//! The files of traces (qlog): one for each traced connection, written by control's ring.
//!
//! What waits for the disk is bounded over all files; beyond it a trace is given up and its file ends where it is.

use super::failure::Failure;
use crate::h3::QlogPiece;
use crate::limits::QLOG_UNWRITTEN_BYTES;
use crate::telemetry::WallClock;
use crate::telemetry::log::open_append;
use crate::telemetry::registry::ControlCells;
use spooky_uring::io::FileId;
use spooky_uring::mailbox::{Doorbell, Receiver};
use spooky_uring::{Chunk, Io, Ring, Token};
use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

/// Tokens of these files begin here.
const TOKENS: u64 = 1 << 24;

/// All files of traces.
#[derive(Debug)]
pub struct Qlogs {
    pieces: Receiver<QlogPiece>,
    folder: PathBuf,
    /// By the trace's number; `None`: given up.
    open: HashMap<u32, Option<FileId>>,
    /// Lengths of the writes under way, by the trace's number.
    writes: HashMap<u32, VecDeque<usize>>,
    unwritten: usize,
    told: bool,
    clock: WallClock,
}

impl Qlogs {
    /// Writes what `pieces` brings to files in `folder`, which is made if need be.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn new(pieces: Receiver<QlogPiece>, folder: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(folder).map_err(|error| Failure::file(folder, "[observability.qlog] dir", &error))?;
        let (open, writes) = (HashMap::new(), HashMap::new());
        let clock = WallClock::new(Instant::now(), SystemTime::now());
        Ok(Self { pieces, folder: folder.into(), open, writes, unwritten: 0, told: false, clock })
    }

    /// The mailbox's bell, to watch.
    pub fn doorbell(&self) -> &Doorbell {
        self.pieces.doorbell()
    }

    /// The mailbox has something.
    pub fn read(&mut self, ring: &mut Ring, cells: &ControlCells) {
        while let Some(piece) = self.pieces.receive() {
            self.take(piece, ring, cells);
        }
    }

    fn take(&mut self, piece: QlogPiece, ring: &mut Ring, cells: &ControlCells) {
        let file = match self.open.get(&piece.number) {
            Some(file) => *file,
            None => {
                let file = self.create(&piece, ring, cells);
                self.open.insert(piece.number, file);
                file
            }
        };
        let len = piece.bytes.len();
        let room = self.unwritten + len <= QLOG_UNWRITTEN_BYTES;
        match file {
            Some(file) if room => {
                if len > 0 {
                    self.unwritten += len;
                    self.writes.entry(piece.number).or_default().push_back(len);
                    ring.write(file, Chunk::from_vec(piece.bytes));
                }
                if piece.last {
                    ring.close_file(file);
                }
            }
            _ => {
                cells.qlog_lost_bytes.add(len as u64);
                self.give_up(piece.number, ring);
            }
        }
        if piece.last {
            self.open.remove(&piece.number);
        }
    }

    fn give_up(&mut self, number: u32, ring: &mut Ring) {
        if let Some(open) = self.open.get_mut(&number)
            && let Some(file) = open.take()
        {
            ring.close_file(file);
        }
    }

    fn create(&mut self, piece: &QlogPiece, ring: &mut Ring, cells: &ControlCells) -> Option<FileId> {
        let path = self.folder.join(format!("{}-{}.sqlog", self.clock.unix_us(piece.began) / 1000, piece.connection));
        match open_append(&path) {
            Ok(file) => {
                cells.qlog_files.add(1);
                Some(ring.add_file(OwnedFd::from(file), Token(TOKENS + u64::from(piece.number))))
            }
            Err(error) => {
                self.tell(&format!("{} cannot be made: {error}", path.display()));
                None
            }
        }
    }

    /// A write ended. `false`: it was none of these files'.
    pub fn written(&mut self, token: Token, result: Result<usize, i32>, ring: &mut Ring, cells: &ControlCells) -> bool {
        let Some(number) = token.0.checked_sub(TOKENS).and_then(|number| u32::try_from(number).ok()) else {
            return false;
        };
        let Some(writes) = self.writes.get_mut(&number) else {
            return false;
        };
        let len = writes.pop_front().unwrap_or(0);
        if writes.is_empty() {
            self.writes.remove(&number);
        }
        self.unwritten -= len;
        if let Err(errno) = result {
            cells.qlog_lost_bytes.add(len as u64);
            self.tell(&format!("a write failed: {}", std::io::Error::from_raw_os_error(errno)));
            self.give_up(number, ring);
        }
        true
    }

    /// Whether everything was written.
    pub fn is_quiet(&self) -> bool {
        self.unwritten == 0
    }

    /// The first failure is said; the others are counted.
    fn tell(&mut self, what: &str) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::error!(folder = %self.folder.display(), "traces of connections are lost: {what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h3::QlogPiece;
    use spooky_uring::mailbox::{Sender, channel};
    use spooky_uring::{Event, FeatureMask, Features, PoolConfig, RingConfig};
    use std::os::unix::fs::PermissionsExt;

    struct World {
        ring: Ring,
        cells: ControlCells,
        qlogs: Qlogs,
        sender: Sender<QlogPiece>,
        folder: PathBuf,
        began: Instant,
    }

    impl World {
        fn new(name: &str) -> Self {
            let small = PoolConfig { count: 1, size: 4096, posted: 1 };
            let config = RingConfig {
                entries: 8,
                streams: 1,
                stream_receive: small,
                udp_receive: small,
                udp_send_slots: 1,
                ..RingConfig::default()
            };
            let ring = Ring::new(&config, &Features::probe(FeatureMask::ALL).unwrap()).unwrap();
            let folder = std::env::temp_dir().join(format!("spooky-qlogs-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&folder);
            let (sender, receiver) = channel(64).unwrap();
            let qlogs = Qlogs::new(receiver, &folder).unwrap();
            Self { ring, cells: ControlCells::default(), qlogs, sender, folder, began: Instant::now() }
        }

        fn send(&mut self, number: u32, bytes: Vec<u8>, last: bool) {
            self.sender
                .send(QlogPiece { number, began: self.began, connection: format!("c{number}").into(), bytes, last })
                .unwrap();
            self.qlogs.read(&mut self.ring, &self.cells);
        }

        /// Turns until all is written.
        fn settle(&mut self) {
            let mut events = Vec::new();
            while !self.qlogs.is_quiet() {
                self.ring.wait(None, &mut events).unwrap();
                for event in events.drain(..) {
                    if let Event::Written { token, result } = event {
                        assert!(self.qlogs.written(token, result, &mut self.ring, &self.cells));
                    }
                }
            }
        }

        /// Name behind the time, and content, of each file.
        fn files(&self) -> Vec<(String, Vec<u8>)> {
            let entries = std::fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path());
            let mut files: Vec<_> = entries
                .map(|path| {
                    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777 & !0o640, 0);
                    let name = path.file_name().unwrap().to_str().unwrap();
                    (name.split_once('-').unwrap().1.to_owned(), std::fs::read(&path).unwrap())
                })
                .collect();
            files.sort();
            files
        }
    }

    impl Drop for World {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    #[test]
    fn each_trace_has_its_file() {
        let mut world = World::new("each");
        world.send(7, b"one ".to_vec(), false);
        world.send(8, b"other".to_vec(), false);
        world.send(7, b"two".to_vec(), true);
        world.send(8, Vec::new(), true);
        world.settle();
        assert_eq!(world.files(), [("c7.sqlog".into(), b"one two".to_vec()), ("c8.sqlog".into(), b"other".to_vec())]);
        assert!(world.qlogs.open.is_empty() && world.qlogs.writes.is_empty());
        assert_eq!((world.cells.qlog_files.get(), world.cells.qlog_lost_bytes.get()), (2, 0));
        assert!(!world.qlogs.written(Token(17), Ok(1), &mut world.ring, &world.cells), "not one of these files");
    }

    #[test]
    fn what_waits_for_the_disk_is_bounded_and_a_trace_that_lost_something_ends() {
        let mut world = World::new("bound");
        const PIECE: usize = 1 << 20;
        // Nothing completes without a turn.
        for _ in 0..QLOG_UNWRITTEN_BYTES / PIECE {
            world.send(1, vec![b'x'; PIECE], false);
        }
        world.send(1, vec![b'y'; PIECE], false);
        world.settle();
        world.send(1, vec![b'z'; 10], true);
        assert_eq!(world.cells.qlog_lost_bytes.get(), PIECE as u64 + 10);
        assert_eq!(world.files()[0].1.len(), QLOG_UNWRITTEN_BYTES);
        assert!(world.qlogs.open.is_empty());
    }

    #[test]
    fn a_folder_that_is_gone_loses_traces_and_nothing_else() {
        let mut world = World::new("gone");
        std::fs::remove_dir(&world.folder).unwrap();
        world.send(1, b"12345".to_vec(), false);
        world.send(1, b"12345".to_vec(), true);
        assert_eq!((world.cells.qlog_files.get(), world.cells.qlog_lost_bytes.get()), (0, 10));
        assert!(world.qlogs.is_quiet() && world.qlogs.open.is_empty());
    }
}
