//! The one source of chance: a generator with one word of state, so that a seed is a whole run.
//!
//! Also lends itself to libraries that draw random bytes through a C function of their own, see
//! [`interpose_randomness`](crate::interpose_randomness).

use std::cell::Cell;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A seeded generator (splitmix64: every seed is as good as any other).
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// 64 bits.
    pub fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// A number of the range.
    pub fn between(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (low, high) = (*range.start(), *range.end());
        assert!(low <= high, "an empty range has no number");
        match (high - low).checked_add(1) {
            // The bias of a modulus is far below anything a test could notice.
            Some(span) => low + self.word() % span,
            None => self.word(),
        }
    }

    /// True at this rate, from 0.0 (never) to 1.0 (always).
    pub fn chance(&mut self, rate: f64) -> bool {
        // Drawn in any case: a plan that only changes a rate keeps the rest of the run alike.
        let drawn = (self.word() >> 11) as f64 / (1_u64 << 53) as f64;
        drawn < rate
    }

    /// A time from nothing to `most`.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.between(0..=most))
    }

    /// A generator of its own, so that what it draws shifts nobody else.
    pub fn fork(&mut self) -> Self {
        Self::new(self.word())
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            let word = self.word().to_le_bytes();
            piece.copy_from_slice(&word[..piece.len()]);
        }
    }

    /// Brings a list into any order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for at in (1..list.len()).rev() {
            list.swap(at, self.between(0..=at as u64) as usize);
        }
    }
}

thread_local! {
    /// The state of this thread's lent generator. Without a destructor, so that it may be asked at any time.
    static LENT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on this thread's draws through an interposed function come from a seed; `None`: from the system again.
pub fn lend(seed: Option<u64>) {
    LENT.set(seed);
}

/// What an interposed function does: this thread's seeded bytes, or the system's.
///
/// # Safety
/// `out` is valid for writes of `len` bytes.
pub unsafe fn draw(out: *mut u8, len: usize) -> i32 {
    if let Some(state) = LENT.get() {
        let mut random = Random::new(state);
        for at in 0..len {
            // SAFETY: `at < len`, and the caller vouches for `len` bytes.
            unsafe { out.add(at).write(random.word() as u8) };
        }
        LENT.set(Some(random.state));
        return 1;
    }
    let mut filled = 0;
    while filled < len {
        // SAFETY: the rest of the caller's bytes.
        let got = unsafe { libc::getrandom(out.add(filled).cast(), len - filled, 0) };
        match usize::try_from(got) {
            Ok(got) => filled += got,
            Err(_) if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return 0,
        }
    }
    1
}

/// Defines the C function `int NAME(uint8_t *out, size_t len)` in this executable, in front of the one of a library that
/// would draw its randomness there. Draws are seeded on threads that asked for it with [`lend`], and stay the system's
/// elsewhere. Only for test executables: it is invoked by name, so that no other executable gets it.
#[macro_export]
macro_rules! interpose_randomness {
    ($name:ident) => {
        /// A library's source of random bytes, in the hands of the simulation.
        ///
        /// # Safety
        /// `out` is valid for writes of `len` bytes.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(out: *mut u8, len: usize) -> i32 {
            // SAFETY: the caller's promise is the same one.
            unsafe { $crate::simulation::random::draw(out, len) }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_sequence_and_rates_are_kept() {
        let (mut one, mut other) = (Random::new(7), Random::new(7));
        let words: Vec<u64> = (0..100).map(|_| one.word()).collect();
        assert!(words.iter().all(|word| other.word() == *word));
        assert_ne!(Random::new(8).word(), words[0]);
        let hits = (0..10_000).filter(|_| one.chance(0.05)).count();
        assert!((350..650).contains(&hits), "{hits} of 10000 at 5 %");
        assert!(!(0..1000).any(|_| one.chance(0.0)));
        assert!((0..1000).all(|_| one.chance(1.0)));
        assert!((0..1000).all(|_| (3..=5).contains(&one.between(3..=5))));
    }

    #[test]
    fn drawing_is_seeded_only_while_lent() {
        let drawn = |bytes: &mut [u8; 16]| {
            // SAFETY: 16 bytes of ours.
            assert_eq!(unsafe { draw(bytes.as_mut_ptr(), 16) }, 1);
        };
        let (mut one, mut two, mut three) = ([0; 16], [0; 16], [0; 16]);
        lend(Some(1));
        drawn(&mut one);
        lend(Some(1));
        drawn(&mut two);
        lend(None);
        drawn(&mut three);
        assert_eq!(one, two);
        assert_ne!(one, three);
    }
}
