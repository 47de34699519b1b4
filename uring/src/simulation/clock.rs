//! Virtual time: one number per thread, and the C library's clock in front of it.
//!
//! Code that is handed the time needs nothing of this. Libraries that read the clock themselves do: a test executable
//! that says `spooky_uring::interpose_clock!()` defines `clock_gettime` itself, so that every `Instant::now()` in it
//! asks [`read`]. On threads with a virtual clock it answers with that; everything else goes on to the kernel.

use std::cell::Cell;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

/// C's `struct timespec`.
pub type Timespec = libc::timespec;

/// Where virtual time begins, in nanoseconds: some days after a machine's start, so that subtracting from it works.
const BEGINNING: u64 = 1_000_000 * 1_000_000_000;

thread_local! {
    /// This thread's virtual time. Without a destructor, so that it may be asked at any time.
    static NOW: Cell<Option<u64>> = const { Cell::new(None) };
}

/// This thread's time, as long as it lives.
#[derive(Debug)]
pub struct VirtualClock {
    /// The instant of the beginning.
    base: Instant,
    offset: Duration,
    /// It belongs to its thread.
    _thread: PhantomData<*const ()>,
}

impl VirtualClock {
    /// Stops this thread's time at the beginning.
    pub fn new() -> Self {
        assert!(NOW.get().is_none(), "a thread has one virtual clock");
        NOW.set(Some(BEGINNING));
        Self { base: Instant::now(), offset: Duration::ZERO, _thread: PhantomData }
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.base + self.offset
    }

    /// Since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.offset
    }

    /// Moves on to `to`; time never goes back.
    pub fn advance(&mut self, to: Instant) {
        let offset = to.saturating_duration_since(self.base).max(self.offset);
        self.offset = offset;
        NOW.set(Some(BEGINNING + offset.as_nanos() as u64));
    }

    /// Whether `Instant::now()` follows this clock in this executable.
    pub fn is_interposed(&self) -> bool {
        let before = Instant::now();
        NOW.set(NOW.get().map(|now| now + 1_000_000_000_000));
        let after = Instant::now();
        NOW.set(NOW.get().map(|now| now - 1_000_000_000_000));
        after.saturating_duration_since(before) >= Duration::from_secs(1000)
    }
}

impl Default for VirtualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for VirtualClock {
    fn drop(&mut self) {
        NOW.set(None);
    }
}

/// What an interposed `clock_gettime` does.
///
/// # Safety
/// `time` is valid for a write.
pub unsafe fn read(clock: i32, time: *mut Timespec) -> i32 {
    if clock == libc::CLOCK_MONOTONIC
        && let Some(now) = NOW.get()
    {
        let virtual_time = Timespec { tv_sec: (now / 1_000_000_000) as i64, tv_nsec: (now % 1_000_000_000) as i64 };
        // SAFETY: the caller's promise.
        unsafe { time.write(virtual_time) };
        return 0;
    }
    // The system call itself: the library's own function is the one that is interposed.
    // SAFETY: as above; the call sets errno as the library's function would.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as i32 }
}

/// Defines `clock_gettime` in this executable, so that `Instant::now()` follows the simulation on the threads that have
/// one. Only for test executables: it is invoked by name, so that no other executable gets it.
#[macro_export]
macro_rules! interpose_clock {
    () => {
        /// The C library's clock, in the hands of the simulation.
        ///
        /// # Safety
        /// `time` is valid for a write.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn clock_gettime(clock: i32, time: *mut $crate::simulation::clock::Timespec) -> i32 {
            // SAFETY: the caller's promise is the same one.
            unsafe { $crate::simulation::clock::read(clock, time) }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_moves_only_when_told_and_never_back() {
        let mut clock = VirtualClock::new();
        let start = clock.now();
        clock.advance(start + Duration::from_secs(5));
        assert_eq!(clock.elapsed(), Duration::from_secs(5));
        clock.advance(start);
        assert_eq!(clock.now(), start + Duration::from_secs(5));
    }

    #[test]
    fn other_clocks_and_other_threads_go_on() {
        let ask = |clock| {
            // SAFETY: all zeroes is a time, and it is ours.
            let mut time: Timespec = unsafe { std::mem::zeroed() };
            // SAFETY: a valid place.
            assert_eq!(unsafe { read(clock, &raw mut time) }, 0);
            (time.tv_sec, time.tv_nsec)
        };
        let mut clock = VirtualClock::new();
        clock.advance(clock.now() + Duration::from_nanos(2_500_000_001));
        assert_eq!(ask(libc::CLOCK_MONOTONIC), (1_000_002, 500_000_001));
        assert!(ask(libc::CLOCK_REALTIME).0 > 1_700_000_000);
        let elsewhere = std::thread::spawn(move || ask(libc::CLOCK_MONOTONIC));
        assert_ne!(elsewhere.join().unwrap(), (1_000_002, 500_000_001));
        drop(clock);
        assert_ne!(ask(libc::CLOCK_MONOTONIC), (1_000_002, 500_000_001));
    }
}
