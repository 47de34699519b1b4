//! Owns leaking accounts of what the other side of a connection may do but has no reason to do often: a bucket per kind.
//!
//! It refuses to know the kinds and their bounds: each protocol has its own closed set, in an enum whose numbers index the
//! buckets, and its table in [`crate::limits`].

/// One bucket per kind.
#[derive(Clone, Copy, Debug)]
pub struct Buckets<const KINDS: usize> {
    levels: [u16; KINDS],
    /// Seconds since the connection began when the buckets leaked last; wraps.
    second: u16,
}

impl<const KINDS: usize> Default for Buckets<KINDS> {
    fn default() -> Self {
        Self { levels: [0; KINDS], second: 0 }
    }
}

impl<const KINDS: usize> Buckets<KINDS> {
    /// So many seconds after the connection began: what leaked since the last time. The seconds that passed.
    #[inline]
    pub fn tick(&mut self, second: u64, leak: &[u16; KINDS]) -> u16 {
        let passed = (second as u16).wrapping_sub(self.second);
        if passed > 0 {
            self.second = second as u16;
            for (level, leak) in self.levels.iter_mut().zip(leak) {
                *level = level.saturating_sub(leak.saturating_mul(passed));
            }
        }
        passed
    }

    /// It happened `n` times. A kind without a bucket is not counted.
    #[inline]
    pub fn charge(&mut self, kind: usize, n: u32) {
        if let Some(level) = self.levels.get_mut(kind) {
            *level = level.saturating_add(u16::try_from(n).unwrap_or(u16::MAX));
        }
    }

    /// Something useful was done, which excuses `n` of a kind.
    #[inline]
    pub fn pay(&mut self, kind: usize, n: u16) {
        if let Some(level) = self.levels.get_mut(kind) {
            *level = level.saturating_sub(n);
        }
    }

    /// The first kind whose bucket ran over.
    #[inline]
    pub fn overflow(&self, limit: &[u16; KINDS]) -> Option<usize> {
        self.levels.iter().zip(limit).position(|(level, limit)| level > limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: [u16; 2] = [3, 10];
    const LEAK: [u16; 2] = [1, 5];

    #[test]
    fn a_bucket_runs_over_above_its_limit_and_leaks() {
        let mut buckets = Buckets::default();
        buckets.charge(0, 3);
        assert_eq!(buckets.overflow(&LIMIT), None);
        buckets.charge(0, 1);
        assert_eq!(buckets.overflow(&LIMIT), Some(0));
        assert_eq!(buckets.tick(1, &LEAK), 1);
        assert_eq!(buckets.overflow(&LIMIT), None);
        assert_eq!(buckets.tick(1, &LEAK), 0, "leaks once a second");
    }

    #[test]
    fn useful_work_pays_and_nothing_wraps() {
        let mut buckets = Buckets::default();
        buckets.pay(1, 5);
        buckets.charge(1, u32::MAX);
        buckets.charge(1, 7);
        assert_eq!(buckets.overflow(&LIMIT), Some(1));
        for second in (0..3 << 16).step_by(1000) {
            buckets.tick(second, &LEAK);
        }
        assert_eq!(buckets.overflow(&LIMIT), None);
        buckets.charge(9, 1);
        buckets.pay(9, 1);
    }
}
