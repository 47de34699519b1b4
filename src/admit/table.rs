//! Where it is kept how much of a limit was used, by key: a table of fixed size that all workers share, without a lock.
//!
//! A key is 64 bits of a keyed hash. Some of them choose a bucket, one cache line of eight entries, and 16 others tell its keys
//! apart. An entry is one word, these 16 bits and the moment when the key's allowance is whole again, so that one
//! compare-exchange changes all of it and nobody sees half an entry. One that is whole says nothing any more, and is free.
//!
//! What follows from the fixed size: a new key takes the place of that one in its bucket that has used least, if all eight have
//! used something; what it had used is forgotten, and counted. Two keys with the same 16 bits in one bucket share an allowance;
//! with a table of 65,536 entries in full use that is one key in 8,192. Nobody can bring it about: the hash is keyed.

use super::pace::{MOMENT_BITS, Pace};
use crate::limits::RATE_KEY_BYTES;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Entries of a bucket: what a cache line holds.
const WAYS: usize = 8;

const _: () = assert!(size_of::<AtomicU64>() as u64 == RATE_KEY_BYTES);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket([AtomicU64; WAYS]);

/// What was used of one limit. Relaxed everywhere: an entry is one word, and no other memory hangs on it.
#[derive(Debug)]
pub struct Table {
    /// Invariant: a power of two of them.
    buckets: Box<[Bucket]>,
}

/// What became of a request in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charged {
    /// It is within the limit, and counted.
    Within {
        /// Another key's use was forgotten for it.
        evicted: bool,
    },
    /// It is over the limit, and not counted; in so many ticks it would be within.
    Over(u64),
}

/// Where a key stands in its bucket.
struct Place {
    at: usize,
    /// The word that stands there now.
    word: u64,
    /// Ticks until that word says nothing any more.
    ahead: u64,
    /// It is the key's own.
    own: bool,
}

impl Table {
    /// A table for so many keys at once, rounded up to a power of two of whole buckets.
    #[must_use]
    pub fn new(keys: usize) -> Self {
        let buckets = keys.div_ceil(WAYS).next_power_of_two();
        Self { buckets: (0..buckets).map(|_| Bucket::default()).collect() }
    }

    /// Entries that a table for so many keys has.
    #[must_use]
    pub fn entries(keys: u64) -> u64 {
        keys.div_ceil(WAYS as u64).next_power_of_two() * WAYS as u64
    }

    /// Whether a request would be within the limit; otherwise in how many ticks it would be. Counts nothing.
    #[inline]
    #[must_use]
    pub fn waits(&self, hash: u64, pace: Pace, now: u64) -> Option<u64> {
        let place = self.find(hash, pace, now);
        if place.own { pace.take(place.ahead, now).err() } else { None }
    }

    /// Ticks until all that a key has used is whole again.
    #[inline]
    #[must_use]
    pub fn used(&self, hash: u64, pace: Pace, now: u64) -> u64 {
        let place = self.find(hash, pace, now);
        if place.own { place.ahead } else { 0 }
    }

    /// Counts a request of a key, if it is within the limit.
    #[inline]
    pub fn charge(&self, hash: u64, pace: Pace, now: u64) -> Charged {
        let bucket = self.bucket(hash);
        loop {
            let place = self.find(hash, pace, now);
            let (used, evicted) = if place.own { (place.ahead, false) } else { (0, place.ahead > 0) };
            let empty_at = match pace.take(used, now) {
                Ok(empty_at) => empty_at,
                Err(wait) => return Charged::Over(wait),
            };
            // Whoever fails here has been overtaken by one who did not: somebody always gets on.
            let word = print(hash) << MOMENT_BITS | empty_at;
            if bucket[place.at].compare_exchange_weak(place.word, word, Relaxed, Relaxed).is_ok() {
                return Charged::Within { evicted };
            }
        }
    }

    /// The entry of a key, or that of its bucket which says least.
    #[inline]
    fn find(&self, hash: u64, pace: Pace, now: u64) -> Place {
        let print = print(hash);
        let mut least = Place { at: 0, word: 0, ahead: u64::MAX, own: false };
        for (at, entry) in self.bucket(hash).iter().enumerate() {
            let word = entry.load(Relaxed);
            // Never used: not a moment to which the moments come round.
            let ahead = if word == 0 { 0 } else { pace.ahead(word, now) };
            if word >> MOMENT_BITS == print && ahead > 0 {
                return Place { at, word, ahead, own: true };
            }
            if ahead < least.ahead {
                least = Place { at, word, ahead, own: false };
            }
        }
        least
    }

    #[inline]
    fn bucket(&self, hash: u64) -> &[AtomicU64; WAYS] {
        &self.buckets[hash as usize & (self.buckets.len() - 1)].0
    }
}

/// The bits that tell the keys of a bucket apart. No table has so many buckets that they chose it, too.
#[inline]
fn print(hash: u64) -> u64 {
    hash >> MOMENT_BITS
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::sync::Barrier;
    use std::time::Duration;

    const WITHIN: Charged = Charged::Within { evicted: false };

    fn pace(requests: u32, burst: u32) -> Pace {
        Pace::new(requests, Duration::from_secs(1), burst)
    }

    fn at(millis: u64) -> u64 {
        Pace::moment(Duration::from_millis(millis))
    }

    /// Keys of one bucket with bits of their own.
    fn key(number: u64) -> u64 {
        number << MOMENT_BITS
    }

    #[test]
    fn keys_are_counted_apart() {
        let table = Table::new(8);
        let pace = pace(1, 2);
        for key in [key(0), key(1), key(2)] {
            assert_eq!(table.waits(key, pace, at(1)), None);
            assert_eq!(table.charge(key, pace, at(1)), WITHIN);
            assert_eq!(table.charge(key, pace, at(1)), WITHIN);
            assert!(matches!(table.charge(key, pace, at(1)), Charged::Over(wait) if Pace::seconds(wait) == 1));
            assert_eq!(table.waits(key, pace, at(1)).map(Pace::seconds), Some(1));
            assert_eq!(table.charge(key, pace, at(1_001)), WITHIN);
        }
    }

    #[test]
    fn what_is_whole_again_is_free_and_the_one_that_used_least_is_forgotten() {
        let table = Table::new(8);
        let pace = pace(1, 10);
        for number in 1..=8 {
            // The fourth has used one, all others two.
            for _ in 0..if number == 4 { 1 } else { 2 } {
                assert_eq!(table.charge(key(number), pace, at(1)), WITHIN);
            }
        }
        assert_eq!(table.charge(key(9), pace, at(2)), Charged::Within { evicted: true });
        assert_eq!(table.charge(key(9), pace, at(2)), WITHIN);
        // Later the fourth's place would be free; the ninth still has it.
        assert_eq!(table.charge(key(10), pace, at(2_100)), WITHIN);
    }

    #[test]
    fn who_is_at_its_limit_is_not_forgotten_for_a_crowd() {
        let table = Table::new(8);
        let pace = pace(1, 10);
        (0..10).for_each(|_| assert_eq!(table.charge(key(1), pace, at(1)), WITHIN));
        let mut forgotten = 0;
        for number in 2..60_000 {
            forgotten += u32::from(table.charge(key(number), pace, at(1)) == Charged::Within { evicted: true });
        }
        assert_eq!(forgotten, 60_000 - 2 - 7, "seven found a place that was free");
        assert!(matches!(table.charge(key(1), pace, at(1)), Charged::Over(_)));
    }

    #[test]
    fn the_table_has_one_size_whatever_comes() {
        for (keys, entries) in [(0, 8), (1, 8), (8, 8), (9, 16), (1_000, 1_024), (65_536, 65_536), (65_537, 131_072)] {
            assert_eq!((Table::new(keys).buckets.len() * WAYS, Table::entries(keys as u64)), (entries, entries as u64));
        }
        assert_eq!(size_of::<Bucket>() as u64, WAYS as u64 * RATE_KEY_BYTES);
    }

    /// While nothing is forgotten, a table says of each key what the arithmetic says of that key alone.
    #[test]
    fn a_table_that_forgets_nothing_decides_as_if_every_key_had_one_of_its_own() {
        for seed in 1..200u64 {
            let mut state = seed;
            let mut random = |below: u64| {
                state ^= state >> 12;
                state ^= state << 25;
                state ^= state >> 27;
                (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
            };
            let pace = pace(1 + random(50) as u32, 1 + random(5) as u32);
            let table = Table::new(64);
            let mut alone: HashMap<u64, u64> = HashMap::new();
            let mut millis = 1;
            for turn in 0..500 {
                millis += random(40);
                // Eight keys in each of eight buckets.
                let (bucket, print) = (random(8), random(8) + 1);
                let hash = key(print) | bucket;
                let empty_at = alone.entry(hash).or_insert(0);
                let used = if *empty_at == 0 { 0 } else { pace.ahead(*empty_at, at(millis)) };
                let expected = pace.take(used, at(millis));
                assert_eq!(table.waits(hash, pace, at(millis)), expected.err(), "seed {seed}, {turn}");
                match table.charge(hash, pace, at(millis)) {
                    Charged::Within { evicted } => {
                        assert!(!evicted, "seed {seed}, {turn}");
                        *empty_at = expected.expect("within the limit");
                    }
                    Charged::Over(wait) => assert_eq!(expected, Err(wait), "seed {seed}, {turn}"),
                }
            }
        }
    }

    /// Many threads, one new key, one moment: as many as the burst, not one more or less.
    #[test]
    fn workers_that_count_at_once_count_each_request_once() {
        let table = Table::new(64);
        let pace = pace(1, 10_000);
        let barrier = Barrier::new(4);
        let within: u32 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        (0..5_000).map(|_| u32::from(table.charge(key(7), pace, at(5)) == WITHIN)).sum::<u32>()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(within, 10_000);
    }
}
