//! What is neither datagram nor stream: doorbells of this thread, bells of others, signals, and files written to.
//!
//! Each entry owns the few bytes its operation reads or writes, boxed, for as long as the ring lives.

use super::Ring;
use super::queue::Completion;
use super::user_data::{Kind, UserData, next_generation};
use crate::chunk::Chunk;
use crate::host::Signal;
use crate::io::{Event, FileId, Token};
use crate::mailbox::Doorbell;
use io_uring::{opcode, types};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// A doorbell of this thread.
struct Watch {
    doorbell: Doorbell,
    token: Token,
    /// The eventfd's count lands here.
    count: Box<u64>,
}

/// A bell of another thread that is being rung.
struct Ringing {
    /// Keeps the descriptor open until the write is done.
    doorbell: Option<Doorbell>,
}

struct File {
    generation: u32,
    /// `None`: free, or closed while nothing runs.
    descriptor: Option<OwnedFd>,
    token: Token,
    /// The first one is being written while `running`.
    queue: VecDeque<Chunk>,
    /// Bytes of the first chunk that are written.
    written: usize,
    running: bool,
    closing: bool,
}

#[derive(Default)]
pub(super) struct Sources {
    watches: Vec<Watch>,
    ringing: Vec<Ringing>,
    ringing_free: Vec<u32>,
    signals: Option<SignalFd>,
    files: Vec<File>,
}

/// What a doorbell is rung with.
static ONE: u64 = 1;

impl Ring {
    pub(super) fn watch_doorbell(&mut self, doorbell: &Doorbell, token: Token) {
        let number = self.sources.watches.len() as u32;
        self.sources.watches.push(Watch { doorbell: doorbell.clone(), token, count: Box::new(0) });
        self.arm_watch(number);
    }

    fn arm_watch(&mut self, number: u32) {
        let watch = &mut self.sources.watches[number as usize];
        let fd = types::Fd(watch.doorbell.raw_fd());
        let place = (&raw mut *watch.count).cast();
        let entry = opcode::Read::new(fd, place, size_of::<u64>() as u32).build();
        // SAFETY: the count is boxed and its entry is never removed; nothing else reads it.
        unsafe {
            self.queue.push(entry, UserData::new(Kind::Watch, 0, number));
        }
    }

    pub(super) fn watch_rang(&mut self, data: UserData, completion: Completion, events: &mut Vec<Event>) {
        if completion.result == -libc::ECANCELED {
            return;
        }
        let watch = &self.sources.watches[data.slot as usize];
        // Silenced before the owner looks into its box: whatever comes later rings again.
        watch.doorbell.answer();
        events.push(Event::Doorbell { token: watch.token });
        self.arm_watch(data.slot);
    }

    pub(super) fn ring_doorbell(&mut self, doorbell: &Doorbell) {
        if !doorbell.begin() {
            return;
        }
        self.queue.stats.doorbells_rung += 1;
        let slot = self.sources.ringing_free.pop().unwrap_or_else(|| {
            self.sources.ringing.push(Ringing { doorbell: None });
            (self.sources.ringing.len() - 1) as u32
        });
        self.sources.ringing[slot as usize].doorbell = Some(doorbell.clone());
        let fd = types::Fd(doorbell.raw_fd());
        let value = (&raw const ONE).cast();
        let entry = opcode::Write::new(fd, value, size_of::<u64>() as u32).build();
        // SAFETY: the value is static, and the descriptor stays open until the completion.
        unsafe {
            self.queue.push(entry, UserData::new(Kind::RingDoorbell, 0, slot));
        }
    }

    pub(super) fn doorbell_rung(&mut self, data: UserData) {
        self.sources.ringing[data.slot as usize].doorbell = None;
        self.sources.ringing_free.push(data.slot);
    }

    /// Reports these signals from now on ([`Event::Signal`]). They have to be blocked in every thread
    /// ([`block_signals`](crate::host::block_signals)), or the default action runs instead.
    ///
    /// # Errors
    /// When the process has no file descriptor left, or signals are read already.
    pub fn read_signals(&mut self, signals: &[Signal]) -> io::Result<()> {
        if self.sources.signals.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut set = SigSet::empty();
        signals.iter().for_each(|signal| set.add(*signal));
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        self.sources.signals = Some(SignalFd::with_flags(&set, flags)?);
        self.arm_signals();
        Ok(())
    }

    fn arm_signals(&mut self) {
        let Some(signals) = &self.sources.signals else {
            return;
        };
        // The ring only waits: older kernels would give the read itself to a kernel thread.
        let fd = types::Fd(signals.as_raw_fd());
        let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).build();
        // SAFETY: the entry holds no address.
        unsafe { self.queue.push(entry, UserData::new(Kind::Signal, 0, 0)) };
    }

    pub(super) fn signals_arrived(&mut self, completion: Completion, events: &mut Vec<Event>) {
        let Some(signals) = &mut self.sources.signals else {
            return;
        };
        while let Ok(Some(info)) = signals.read_signal() {
            events.push(Event::Signal { signal: info.ssi_signo as i32 });
        }
        if completion.result != -libc::ECANCELED {
            self.arm_signals();
        }
    }

    /// Takes over a file, pipe or terminal to write to with [`Io::write`](crate::Io::write).
    pub fn add_file(&mut self, descriptor: OwnedFd, token: Token) -> FileId {
        let free = self.sources.files.iter().position(File::is_free);
        let slot = free.unwrap_or_else(|| {
            self.sources.files.push(File {
                generation: 0,
                descriptor: None,
                token,
                queue: VecDeque::new(),
                written: 0,
                running: false,
                closing: false,
            });
            self.sources.files.len() - 1
        });
        let file = &mut self.sources.files[slot];
        file.descriptor = Some(descriptor);
        file.token = token;
        file.closing = false;
        FileId { slot: slot as u32, generation: file.generation }
    }

    fn file(&mut self, id: FileId) -> Option<&mut File> {
        let file = self.sources.files.get_mut(id.slot as usize)?;
        (file.generation == id.generation && !file.closing).then_some(file)
    }

    pub(super) fn write_chunk(&mut self, id: FileId, chunk: Chunk) {
        let Some(file) = self.file(id) else { return };
        if chunk.is_empty() {
            return;
        }
        file.queue.push_back(chunk);
        if !file.running {
            self.start_write(id.slot);
        }
    }

    pub(super) fn close_file_when_written(&mut self, id: FileId) {
        let Some(file) = self.file(id) else { return };
        file.closing = true;
        file.release_if_done();
    }

    fn start_write(&mut self, slot: u32) {
        let file = &mut self.sources.files[slot as usize];
        let (Some(chunk), Some(descriptor)) = (file.queue.front(), &file.descriptor) else {
            return;
        };
        let rest = &chunk[file.written..];
        let len = u32::try_from(rest.len()).unwrap_or(1 << 30);
        // Offset -1: at the file's own position, as write(2).
        let entry = opcode::Write::new(types::Fd(descriptor.as_raw_fd()), rest.as_ptr(), len).offset(u64::MAX).build();
        file.running = true;
        self.queue.stats.file_writes += 1;
        let data = UserData::new(Kind::FileWrite, file.generation, slot);
        // SAFETY: the chunk stays at the head of the queue, and the file in its slot, until the completion.
        unsafe { self.queue.push(entry, data) };
    }

    pub(super) fn file_written(&mut self, data: UserData, completion: Completion, events: &mut Vec<Event>) {
        let file = &mut self.sources.files[data.slot as usize];
        debug_assert!(file.running && file.generation == data.generation);
        file.running = false;
        let len = file.queue.front().map_or(0, |chunk| chunk.len());
        let result = match completion.result {
            // A write that takes nothing would be tried for ever.
            0 => Some(Err(libc::EIO)),
            n if n > 0 => {
                file.written += n as usize;
                (file.written >= len).then_some(Ok(len))
            }
            n if matches!(-n, libc::EAGAIN | libc::EINTR) => None,
            n => Some(Err(-n)),
        };
        if let Some(result) = result {
            file.queue.pop_front();
            file.written = 0;
            events.push(Event::Written { token: file.token, result });
        }
        if file.queue.is_empty() {
            file.release_if_done();
        } else if completion.result != -libc::ECANCELED {
            self.start_write(data.slot);
        }
    }
}

impl File {
    fn is_free(&self) -> bool {
        self.descriptor.is_none()
    }

    /// A closed file whose queue is written leaves its slot.
    fn release_if_done(&mut self) {
        if self.closing && !self.running && self.queue.is_empty() {
            self.descriptor = None;
            self.generation = next_generation(self.generation);
        }
    }
}
