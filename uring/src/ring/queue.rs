//! The kernel's two queues: submissions go in, completions come out, one system call per turn.
//!
//! Owns: the ring's descriptor and mappings, the count of operations in flight. Refuses to know what an operation
//! does. Read next: `user_data.rs`, then the tables that own each operation's memory.

use super::user_data::{Kind, UserData};
use crate::features::{Features, StartError};
use crate::stats::RingStats;
use io_uring::{IoUring, opcode, squeue, types};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

/// From `linux/io_uring.h`; the crate keeps them to itself.
const ENTER_GETEVENTS: u32 = 1 << 0;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;

/// After a turn with this many completions, the next one waits for as many, but no longer than `BATCH_WAIT_US`.
const BATCH: usize = 16;
const BATCH_WAIT_US: u32 = 20;
const BATCH_WAIT: Duration = Duration::from_micros(BATCH_WAIT_US as u64);

/// So much of its own work the kernel does in one call when no more is waited for (Linux 6.13 and later,
/// `IO_LOCAL_TW_DEFAULT_MAX`): who finds that many completions has seen a part of what there is.
const TASKS_PER_CALL: usize = 20;

/// Completions of a turn, and received bytes in them, above which the kernel is not asked for more: what a turn works on
/// should still lie in the cache.
const TURN_COMPLETIONS: usize = 256;
const TURN_BYTES: usize = 256 << 10;

/// How long a stop waits for the kernel to let go of operations, one after the other, in the worst case.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct EnterArg {
    sigmask: u64,
    sigmask_len: u32,
    min_wait_us: u32,
    timeout: u64,
}

/// `struct io_uring_rsrc_update`, as ring descriptors are registered with.
#[repr(C)]
struct RingDescriptor {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanos: i64,
}

/// One completion, copied out of the shared ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) user_data: u64,
    pub(super) result: i32,
    pub(super) flags: u32,
}

impl Completion {
    /// Whether the operation goes on: its memory stays with the kernel.
    pub(super) fn more(self) -> bool {
        io_uring::cqueue::more(self.flags)
    }

    /// The provided buffer that the kernel filled.
    pub(super) fn buffer(self) -> Option<u16> {
        io_uring::cqueue::buffer_select(self.flags)
    }

    /// Bytes that the kernel put there.
    fn received(&self) -> usize {
        self.buffer().map_or(0, |_| usize::try_from(self.result).unwrap_or(0))
    }
}

pub(super) struct Queue {
    ring: IoUring,
    /// Index of the ring's descriptor in the kernel's per-thread table, if it was registered.
    registered: Option<u32>,
    /// Submissions that found the queue full while the kernel could not take more.
    backlog: VecDeque<squeue::Entry>,
    /// Operations whose last completion has not come yet.
    in_flight: usize,
    min_wait: bool,
    /// Completions of the last turn.
    last_batch: usize,
    pub(super) stats: RingStats,
}

impl Queue {
    pub(super) fn new(entries: u32, features: &Features) -> Result<Self, StartError> {
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(entries * 4);
        if features.no_sqarray {
            builder.setup_no_sqarray();
        }
        let ring = builder.build(entries).map_err(StartError::from_setup)?;
        let mut queue = Self {
            ring,
            registered: None,
            backlog: VecDeque::new(),
            in_flight: 0,
            min_wait: features.min_wait,
            last_batch: 0,
            stats: RingStats::default(),
        };
        queue.register_ring();
        Ok(queue)
    }

    /// Saves the kernel a table look-up per call. Not having it only costs time.
    fn register_ring(&mut self) {
        let mut update = RingDescriptor { offset: u32::MAX, reserved: 0, data: self.raw_fd() as u64 };
        // SAFETY: the argument is one `io_uring_rsrc_update`, which the kernel reads and writes during the call.
        let done =
            unsafe { libc::syscall(libc::SYS_io_uring_register, self.raw_fd(), REGISTER_RING_FDS, &raw mut update, 1) };
        self.registered = (done == 1).then_some(update.offset);
    }

    /// The thread's table would keep the ring alive after its descriptor is closed.
    fn unregister_ring(&mut self) {
        if let Some(offset) = self.registered.take() {
            let update = RingDescriptor { offset, reserved: 0, data: 0 };
            // SAFETY: as in `register_ring`; the kernel only reads it.
            unsafe {
                libc::syscall(libc::SYS_io_uring_register, self.raw_fd(), UNREGISTER_RING_FDS, &raw const update, 1)
            };
        }
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    pub(super) fn ring(&self) -> &IoUring {
        &self.ring
    }

    /// Queues one operation; it is submitted with the next `enter`.
    ///
    /// # Safety
    /// Every address in `entry` stays valid, and is not touched otherwise, until the operation's last completion was
    /// reaped. Each operation ends with exactly one completion without the MORE flag.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry, data: UserData) {
        let entry = entry.user_data(data.bits());
        self.in_flight += 1;
        self.stats.submissions += 1;
        if self.backlog.is_empty() && self.push_now(&entry) {
            return;
        }
        // The queue is full in the middle of a turn: let the kernel take what is there.
        self.stats.submission_overflows += 1;
        if self.submit_only().is_ok() {
            self.drain_backlog();
        }
        if !(self.backlog.is_empty() && self.push_now(&entry)) {
            self.backlog.push_back(entry);
        }
    }

    /// Cancels the operation with this word, if it still runs. `report` is the word of the cancellation itself.
    pub(super) fn cancel(&mut self, target: UserData, report: UserData) {
        let entry = opcode::AsyncCancel::new(target.bits()).build();
        // SAFETY: the entry holds no address.
        unsafe { self.push(entry, report) };
    }

    fn push_now(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: the caller of `push` vouches for the entry.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    fn drain_backlog(&mut self) {
        while let Some(entry) = self.backlog.pop_front() {
            if !self.push_now(&entry) {
                self.backlog.push_front(entry);
                break;
            }
        }
    }

    pub(super) fn submit_only(&mut self) -> io::Result<()> {
        let waiting = self.ring.submission().len() as u32;
        self.enter_raw(waiting, 0, 0, None).map(drop)
    }

    /// Submits everything and waits for a completion, for `timeout` (`None`: without limit), or not at all (`reap_only`).
    pub(super) fn enter(&mut self, timeout: Option<Duration>, reap_only: bool) -> io::Result<()> {
        if !self.backlog.is_empty() {
            self.drain_backlog();
            if !self.backlog.is_empty() {
                self.submit_only()?;
                self.drain_backlog();
            }
        }
        let (waiting, overflow) = {
            let submission = self.ring.submission();
            (submission.len() as u32, submission.cq_overflow())
        };
        if overflow {
            self.stats.completion_overflows += 1;
        }
        // Completions of an earlier call in this turn are worth a turn of their own.
        let ready = self.ring.completion().len();
        let timespec = timeout.map(|timeout| Timespec {
            seconds: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            nanos: i64::from(timeout.subsec_nanos()),
        });
        let mut arg = EnterArg {
            sigmask: 0,
            sigmask_len: 0,
            min_wait_us: 0,
            timeout: timespec.as_ref().map_or(0, |timespec| std::ptr::from_ref(timespec) as u64),
        };
        let want = if reap_only || ready > 0 {
            0
        } else if self.min_wait && self.last_batch >= BATCH && timeout.is_none_or(|timeout| timeout > BATCH_WAIT) {
            // Under load a few microseconds collect a batch; at low load they would be latency for nothing.
            self.stats.batched_waits += 1;
            arg.min_wait_us = BATCH_WAIT_US;
            BATCH as u32
        } else {
            1
        };
        let flags = ENTER_GETEVENTS | ENTER_EXT_ARG;
        match self.enter_raw(waiting, want, flags, Some(&arg)) {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // The deadline; a signal handler; too many completions kept aside (reaping makes room); no memory for a
                // request right now (it stays queued).
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    fn enter_raw(&mut self, submit: u32, want: u32, flags: u32, arg: Option<&EnterArg>) -> io::Result<u32> {
        self.stats.enters += 1;
        let (fd, flags) = match self.registered {
            Some(index) => (index, flags | ENTER_REGISTERED_RING),
            None => (self.raw_fd() as u32, flags),
        };
        let (address, len) = match arg {
            Some(arg) => (std::ptr::from_ref(arg), size_of::<EnterArg>()),
            None => (std::ptr::null(), 0),
        };
        // SAFETY: the argument lives through the call; what the submissions point to is the promise of `push`.
        let done = unsafe { libc::syscall(libc::SYS_io_uring_enter, fd, submit, want, flags, address, len) };
        u32::try_from(done).map_err(|_| io::Error::last_os_error())
    }

    /// Moves all completions to `batch`, and asks for what the kernel left undone: a batch is cheaper than as many turns, and
    /// those who have waited longest would else wait behind a crowd for as many turns as it is large.
    pub(super) fn gather(&mut self, batch: &mut Vec<Completion>) {
        let (first, mut bytes) = (batch.len(), 0);
        loop {
            let seen = batch.len();
            self.reap(batch);
            let new = &batch[seen..];
            bytes += new.iter().map(Completion::received).sum::<usize>();
            self.last_batch = batch.len() - first;
            if new.len() < TASKS_PER_CALL || self.last_batch >= TURN_COMPLETIONS || bytes >= TURN_BYTES {
                return;
            }
            self.stats.gathers += 1;
            // Nothing is lost by an error: the next wait meets it again.
            if self.enter_raw(0, 0, ENTER_GETEVENTS, None).is_err() {
                return;
            }
        }
    }

    /// Moves the completions that are there to `batch`.
    pub(super) fn reap(&mut self, batch: &mut Vec<Completion>) {
        let before = batch.len();
        for entry in self.ring.completion() {
            batch.push(Completion { user_data: entry.user_data(), result: entry.result(), flags: entry.flags() });
        }
        let reaped = &batch[before..];
        self.stats.completions += reaped.len() as u64;
        let ended = reaped.iter().filter(|completion| !completion.more());
        self.in_flight -= ended.count();
    }

    /// Cancels everything and waits until the kernel has let go of all memory; false: something is stuck, and what the
    /// operations point to has to stay for ever.
    pub(super) fn stop(&mut self, mut on_completion: impl FnMut(Completion)) -> bool {
        let give_up = Instant::now() + STOP_PATIENCE;
        let mut batch = Vec::new();
        let mut first = true;
        while self.in_flight > 0 || first {
            first = false;
            // Submits what is queued (closes among it), then cancels what is left.
            let _ = self.enter(Some(Duration::ZERO), true);
            let patience = types::Timespec::new().nsec(50_000_000);
            let cancel = types::CancelBuilder::any();
            let _ = self.ring.submitter().register_sync_cancel(Some(patience), cancel);
            let _ = self.enter(Some(Duration::from_millis(1)), self.in_flight == 0);
            batch.clear();
            self.reap(&mut batch);
            batch.drain(..).for_each(&mut on_completion);
            if Instant::now() > give_up {
                break;
            }
        }
        self.unregister_ring();
        self.in_flight == 0
    }

    /// The word of operations nobody waits for.
    pub(super) const IGNORED: UserData = UserData::new(Kind::Ignore, 0, 0);
}
