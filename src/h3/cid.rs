//! Owns the layout of our connection IDs. Nothing else knows what stands in one.
//!
//! ```text
//! plain, 16 bytes:  layout 8 | epoch 16 | worker 16 | slot 32 | tag 32 | sequence 24
//! on the wire, 18:  block = AES-128 of the plain bytes | steering 16 = worker XOR mask(block)
//! ```
//! * `layout` tells this layout from later ones.
//! * `epoch` is the process's: a packet for the process before us is known as such.
//! * `worker` owns the connection (room for 65,536).
//! * `slot` and `tag` find the connection in the worker's table without a map; the tag is the use of the slot, so that a
//!   late packet finds nothing instead of a stranger.
//! * `sequence` counts the IDs of one connection.
//! * `steering` tells the kernel the worker: it chooses the socket of a datagram, and cannot do AES. The mask is a keyed
//!   mix of the block that a program of classic BPF can compute too, see [`super::steering`].
//!
//! Two IDs of a connection look unrelated to everybody without the keys, and decoding costs one AES block and no memory. A
//! guessed ID decodes to noise, which the steering, `layout`, `epoch`, `worker` and `tag` reject. The mask is no cipher;
//! what is behind it is only the number of the worker (docs/adr/0005-steering-bits.md).

use boring::symm::{Cipher, Crypter, Mode};
use ring::{hkdf, hmac};

/// Bytes of every connection ID we make.
pub const CID_LEN: usize = BLOCK_LEN + STEERING_LEN;

/// Bytes of the encrypted part, which stands first.
pub const BLOCK_LEN: usize = 16;

/// Bytes of the masked number of the worker behind it, big-endian.
pub const STEERING_LEN: usize = 2;

/// Layouts known. A new one gets a new number, so that packets of both can be told apart during an upgrade.
const LAYOUT: u8 = 0x51;

/// What a connection ID says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cid {
    /// The process.
    pub epoch: u16,
    /// The worker in the process.
    pub worker: u16,
    /// The slot in the worker's table.
    pub slot: u32,
    /// The use of the slot.
    pub tag: u32,
    /// Which ID of the connection; only its low 24 bits are kept.
    pub sequence: u32,
}

impl Cid {
    fn to_block(self) -> [u8; BLOCK_LEN] {
        let mut block = [0; BLOCK_LEN];
        block[0] = LAYOUT;
        block[1..3].copy_from_slice(&self.epoch.to_be_bytes());
        block[3..5].copy_from_slice(&self.worker.to_be_bytes());
        block[5..9].copy_from_slice(&self.slot.to_be_bytes());
        block[9..13].copy_from_slice(&self.tag.to_be_bytes());
        block[13..16].copy_from_slice(&self.sequence.to_be_bytes()[1..]);
        block
    }

    fn from_block(block: &[u8]) -> Option<Self> {
        let &[layout, e0, e1, w0, w1, s0, s1, s2, s3, t0, t1, t2, t3, n0, n1, n2] = block else {
            return None;
        };
        (layout == LAYOUT).then_some(Self {
            epoch: u16::from_be_bytes([e0, e1]),
            worker: u16::from_be_bytes([w0, w1]),
            slot: u32::from_be_bytes([s0, s1, s2, s3]),
            tag: u32::from_be_bytes([t0, t1, t2, t3]),
            sequence: u32::from_be_bytes([0, n0, n1, n2]),
        })
    }
}

/// The keys that connection IDs and reset tokens are made with; the same on all workers of a process.
#[derive(Clone)]
pub struct CidKeys {
    block: [u8; BLOCK_LEN],
    reset: [u8; 32],
    pub(super) mask: Mask,
}

/// The mix that hides the number of the worker from who has not the keys: for each 32-bit word of the block,
/// `h = (h ^ word) * factor; h ^= h >> 16`, and the low half of it in the end.
#[derive(Clone, Copy)]
pub(super) struct Mask {
    pub(super) start: u32,
    /// Odd, or the low bits of `h` would be lost.
    pub(super) factors: [u32; BLOCK_LEN / 4],
}

impl Mask {
    fn of(self, block: &[u8; BLOCK_LEN]) -> u16 {
        let (words, _) = block.as_chunks::<4>();
        let mixed = words.iter().zip(self.factors).fold(self.start, |mixed, (word, factor)| {
            let mixed = (mixed ^ u32::from_be_bytes(*word)).wrapping_mul(factor);
            mixed ^ (mixed >> 16)
        });
        mixed as u16
    }
}

impl std::fmt::Debug for CidKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CidKeys(..)")
    }
}

impl CidKeys {
    /// Derives the keys from the process's secret (HKDF-SHA-256).
    pub fn derive(secret: &[u8]) -> Self {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"spooky connection id").extract(secret);
        let (mut block, mut reset, mut mask) = ([0; BLOCK_LEN], [0; 32], [0; 4 + BLOCK_LEN]);
        expand(&root, b"block v1", &mut block);
        expand(&root, b"reset v1", &mut reset);
        expand(&root, b"steering v1", &mut mask);
        let (words, _) = mask.as_chunks::<4>();
        let word = |at: usize| words.get(at).map_or(0, |bytes| u32::from_be_bytes(*bytes));
        Self { block, reset, mask: Mask { start: word(0), factors: std::array::from_fn(|at| word(1 + at) | 1) } }
    }
}

/// Fills `out` from a root key and a label (HKDF-Expand).
pub(super) fn expand(root: &hkdf::Prk, info: &[u8], out: &mut [u8]) {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    // Both fail only for outputs over 255 hashes.
    let info = [info];
    let filled = root.expand(&info, Length(out.len())).and_then(|okm| okm.fill(out));
    assert!(filled.is_ok(), "HKDF output of {} bytes", out.len());
}

/// Makes and reads connection IDs.
pub struct CidCoder {
    encrypt: Crypter,
    decrypt: Crypter,
    reset: hmac::Key,
    mask: Mask,
}

impl CidCoder {
    /// `None` if the library has no AES (out of memory).
    pub fn new(keys: &CidKeys) -> Option<Self> {
        let cipher = |mode| {
            let mut crypter = Crypter::new(Cipher::aes_128_ecb(), mode, &keys.block, None).ok()?;
            // One whole block in, one whole block out.
            crypter.pad(false);
            Some(crypter)
        };
        Some(Self {
            encrypt: cipher(Mode::Encrypt)?,
            decrypt: cipher(Mode::Decrypt)?,
            reset: hmac::Key::new(hmac::HMAC_SHA256, &keys.reset),
            mask: keys.mask,
        })
    }

    /// The ID on the wire.
    pub fn encode(&mut self, cid: Cid) -> [u8; CID_LEN] {
        let mut out = [0; 2 * BLOCK_LEN];
        let written = self.encrypt.update(&cid.to_block(), &mut out);
        assert!(matches!(written, Ok(BLOCK_LEN)), "AES of one block");
        let mut block = [0; BLOCK_LEN];
        block.copy_from_slice(&out[..BLOCK_LEN]);
        let steering = cid.worker ^ self.mask.of(&block);
        let mut wire = [0; CID_LEN];
        wire[..BLOCK_LEN].copy_from_slice(&block);
        wire[BLOCK_LEN..].copy_from_slice(&steering.to_be_bytes());
        wire
    }

    /// What an ID says; `None` if it is not one of ours. The caller still compares epoch, worker and tag.
    pub fn decode(&mut self, wire: &[u8]) -> Option<Cid> {
        let (block, steering) = wire.split_first_chunk::<BLOCK_LEN>()?;
        let steered = self.mask.of(block) ^ u16::from_be_bytes(*steering.as_array::<STEERING_LEN>()?);
        let mut out = [0; 2 * BLOCK_LEN];
        match self.decrypt.update(block, &mut out) {
            // The kernel went by the one, we go by the other: an ID of ours says the same in both.
            Ok(BLOCK_LEN) => Cid::from_block(&out[..BLOCK_LEN]).filter(|cid| cid.worker == steered),
            _ => None,
        }
    }

    /// The stateless reset token of an ID (RFC 9000 §10.3.2): the same in every process that shares the secret.
    pub fn reset_token(&self, wire: &[u8; CID_LEN]) -> u128 {
        let tag = hmac::sign(&self.reset, wire);
        let mut token = [0; 16];
        token.copy_from_slice(&tag.as_ref()[..16]);
        u128::from_be_bytes(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coder(secret: &[u8]) -> CidCoder {
        CidCoder::new(&CidKeys::derive(secret)).unwrap()
    }

    fn sample(sequence: u32) -> Cid {
        Cid { epoch: 7, worker: 4095, slot: 0x0102_0304, tag: 0xfffe_fdfc, sequence }
    }

    #[test]
    fn every_field_survives_the_round_trip() {
        let mut coder = coder(b"secret");
        for cid in [
            sample(0),
            sample(0xff_ffff),
            Cid { epoch: u16::MAX, worker: u16::MAX, slot: u32::MAX, tag: u32::MAX, sequence: 0xff_ffff },
            Cid { epoch: 0, worker: 0, slot: 0, tag: 0, sequence: 0 },
        ] {
            let wire = coder.encode(cid);
            assert_eq!(coder.decode(&wire), Some(cid));
            // The coder keeps no state between blocks.
            assert_eq!(coder.encode(cid), wire);
        }
    }

    #[test]
    fn two_ids_of_one_connection_share_nothing_that_shows() {
        let mut coder = coder(b"secret");
        let ids = (0..64).map(|sequence| coder.encode(sample(sequence))).collect::<Vec<_>>();
        for (i, a) in ids.iter().enumerate() {
            for b in &ids[i + 1..] {
                let different = a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
                // 144 fair coins: 72 expected, 6 sigma is 36.
                assert!((36..=108).contains(&different), "{different} of 144 bits differ");
            }
        }
    }

    #[test]
    fn the_steering_of_one_worker_looks_like_noise_and_depends_on_the_key() {
        let steering = |coder: &mut CidCoder, sequence| {
            let wire = coder.encode(sample(sequence));
            u16::from_be_bytes([wire[BLOCK_LEN], wire[BLOCK_LEN + 1]])
        };
        let (mut one, mut other) = (coder(b"secret"), coder(b"another"));
        let count = 4096;
        let mut ones = [0_u32; 16];
        let mut seen = std::collections::HashSet::new();
        for sequence in 0..count {
            let value = steering(&mut one, sequence);
            seen.insert(value);
            assert_eq!(steering(&mut one, sequence), value);
            for (bit, ones) in ones.iter_mut().enumerate() {
                *ones += u32::from(value >> bit & 1);
            }
        }
        // 4096 fair coins: 2048 expected, 6 sigma is 192.
        assert!(ones.iter().all(|ones| (1856..=2240).contains(ones)), "{ones:?}");
        // 65,536 values, 4096 draws: 3970 different ones expected.
        assert!(seen.len() > 3900, "{} different", seen.len());
        let same = (0..count).filter(|&at| steering(&mut one, at) == steering(&mut other, at)).count();
        assert!(same < 5, "{same}");
    }

    #[test]
    fn an_id_whose_steering_was_changed_is_not_ours() {
        let mut coder = coder(b"secret");
        let wire = coder.encode(sample(3));
        for bit in 0..8 * CID_LEN {
            let mut changed = wire;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(coder.decode(&changed), None, "bit {bit}");
        }
    }

    #[test]
    fn ids_of_other_keys_and_other_lengths_are_noise() {
        let mut ours = coder(b"secret");
        let mut theirs = coder(b"another");
        let wire = theirs.encode(sample(1));
        assert_ne!(ours.decode(&wire), Some(sample(1)));
        assert_eq!(ours.decode(&[]), None);
        assert_eq!(ours.decode(&wire[..CID_LEN - 1]), None);
        assert_eq!(ours.decode(&[&wire[..], &[0]].concat()), None);
        assert_eq!(ours.decode(&[0; 20]), None);
    }

    #[test]
    fn random_ids_rarely_decode_and_never_to_a_given_connection() {
        let mut coder = coder(b"secret");
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut decoded = 0;
        for _ in 0..20_000 {
            let mut wire = [0; CID_LEN];
            for byte in &mut wire {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *byte = state as u8;
            }
            if let Some(cid) = coder.decode(&wire) {
                decoded += 1;
                assert_ne!((cid.slot, cid.tag), (sample(0).slot, sample(0).tag));
            }
        }
        // A byte of layout and the steering: 1 in 2^24.
        assert!(decoded < 3, "{decoded} of 20000");
    }

    #[test]
    fn reset_tokens_depend_on_the_id_and_the_secret() {
        let mut ours = coder(b"secret");
        let wire = ours.encode(sample(1));
        let other = ours.encode(sample(2));
        assert_eq!(ours.reset_token(&wire), coder(b"secret").reset_token(&wire));
        assert_ne!(ours.reset_token(&wire), ours.reset_token(&other));
        assert_ne!(ours.reset_token(&wire), coder(b"another").reset_token(&wire));
    }
}
