//! What happened, as one number: two runs that agree in it did the same at the same times.

use std::time::Duration;

/// A running hash of everything that crossed the seam. Lengths and moments, not contents: those may be encrypted.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    steps: u64,
    told: bool,
}

impl Trace {
    pub(super) fn new() -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            steps: 0,
            // For eyes: every step on stderr.
            told: std::env::var_os("SPOOKY_TRACE").is_some(),
        }
    }

    pub(super) fn note(&mut self, at: Duration, what: &str, who: u64, amount: u64) {
        self.steps += 1;
        if self.told {
            eprintln!("{:>12.6} {what:<12} {who:>6} {amount:>8}", at.as_secs_f64());
        }
        self.mix(at.as_nanos() as u64);
        what.bytes().for_each(|byte| self.mix(u64::from(byte)));
        self.mix(who);
        self.mix(amount);
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x100_0000_01b3).rotate_left(23);
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps
    }
}
