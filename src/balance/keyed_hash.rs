//! SipHash-1-3 under a secret key: what clients choose becomes a number that they cannot aim.
//!
//! Whoever could foresee the hash of a path or a cookie could send all of them to one backend. The same key gives the
//! same numbers on every worker, after a restart, and on other hosts that have it.

/// A hash function of our own choice among 2^128.
#[derive(Clone)]
pub struct KeyedHash {
    key: [u64; 2],
}

impl std::fmt::Debug for KeyedHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyedHash(..)")
    }
}

impl KeyedHash {
    /// With this key.
    #[must_use]
    pub fn new(key: [u8; 16]) -> Self {
        let key = u128::from_le_bytes(key);
        Self { key: [key as u64, (key >> 64) as u64] }
    }

    /// The number of `bytes`.
    #[inline]
    #[must_use]
    pub fn of(&self, bytes: &[u8]) -> u64 {
        self.sip::<1, 3>(bytes)
    }

    /// SipHash with so many rounds for each word and at the end (Aumasson and Bernstein, 2012).
    #[inline]
    fn sip<const EACH: usize, const LAST: usize>(&self, bytes: &[u8]) -> u64 {
        let [low, high] = self.key;
        let mut state = [
            low ^ 0x736f_6d65_7073_6575,
            high ^ 0x646f_7261_6e64_6f6d,
            low ^ 0x6c79_6765_6e65_7261,
            high ^ 0x7465_6462_7974_6573,
        ];
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            take::<EACH>(&mut state, u64::from_le_bytes(*word));
        }
        // The last word holds what is left, and the length in its highest byte.
        let last = rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        take::<EACH>(&mut state, last | (bytes.len() as u64) << 56);
        state[2] ^= 0xff;
        for _ in 0..LAST {
            round(&mut state);
        }
        state[0] ^ state[1] ^ state[2] ^ state[3]
    }
}

#[inline]
fn take<const ROUNDS: usize>(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    for _ in 0..ROUNDS {
        round(state);
    }
    state[0] ^= word;
}

#[inline]
fn round([a, b, c, d]: &mut [u64; 4]) {
    *a = a.wrapping_add(*b);
    *c = c.wrapping_add(*d);
    *b = b.rotate_left(13) ^ *a;
    *d = d.rotate_left(16) ^ *c;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*b);
    *a = a.wrapping_add(*d);
    *b = b.rotate_left(17) ^ *c;
    *d = d.rotate_left(21) ^ *a;
    *c = c.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::{DefaultHasher, Hasher};

    #[test]
    fn the_authors_vectors_hold() {
        // SipHash-2-4 of the first bytes 00 01 02 …, key 00 … 0f (the paper's appendix and reference code).
        let hash = KeyedHash::new(std::array::from_fn(|at| at as u8));
        let input: Vec<u8> = (0..15).collect();
        assert_eq!(hash.sip::<2, 4>(&[]), 0x726f_db47_dd0e_0e31);
        assert_eq!(hash.sip::<2, 4>(&input[..1]), 0x74f8_39c5_93dc_67fd);
        assert_eq!(hash.sip::<2, 4>(&input), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn with_fewer_rounds_it_is_the_standard_librarys() {
        let hash = KeyedHash::new([0; 16]);
        for length in 0..40_u8 {
            let bytes: Vec<u8> = (0..length).map(|at| at.wrapping_mul(37)).collect();
            let mut theirs = DefaultHasher::new();
            theirs.write(&bytes);
            assert_eq!(hash.of(&bytes), theirs.finish(), "{length} bytes");
        }
    }

    #[test]
    fn another_key_is_another_function_and_none_is_shown() {
        let (one, other) = (KeyedHash::new([1; 16]), KeyedHash::new([2; 16]));
        assert_ne!(one.of(b"/index.html"), other.of(b"/index.html"));
        assert_ne!(one.of(b"a"), one.of(b"a\0"));
        assert_eq!(format!("{one:?}"), "KeyedHash(..)");
    }
}
