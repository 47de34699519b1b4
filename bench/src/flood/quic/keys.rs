//! Packet protection of 1-RTT packets (RFC 9001 section 5), so that a flood can send frames that no library would: with
//! AES-128-GCM and nothing else, from the secrets that the handshake logged.

use crate::machine::Failure;
use boring::aead::{AeadCtx, Algorithm};
use boring::hash::MessageDigest;
use boring::hkdf::HkdfSuite;
use boring::symm::{Cipher, Crypter, Mode};

const TAG_BYTES: usize = 16;
/// Every packet of ours has a number of four bytes, and the sample for header protection begins behind it.
const NUMBER_BYTES: usize = 4;
const SAMPLE_BYTES: usize = 16;
const AES_BLOCK_BYTES: usize = 16;

/// Keys of one direction.
pub struct Keys {
    aead: AeadCtx,
    iv: [u8; 12],
    mask: Crypter,
}

impl Keys {
    /// Derives the keys from a traffic secret of a SHA-256 cipher suite.
    pub fn new(secret: &[u8]) -> Result<Self, Failure> {
        let (mut key, mut iv, mut mask) = ([0; 16], [0; 12], [0; 16]);
        expand(secret, "quic key", &mut key)?;
        expand(secret, "quic iv", &mut iv)?;
        expand(secret, "quic hp", &mut mask)?;
        let mut mask = Crypter::new(Cipher::aes_128_ecb(), Mode::Encrypt, &mask, None)?;
        mask.pad(false);
        Ok(Self { aead: AeadCtx::new_default_tag(&Algorithm::aes_128_gcm(), &key)?, iv, mask })
    }

    /// Appends a packet to `id` with these frames, which must be four bytes or more.
    pub fn seal(&mut self, id: &[u8], number: u64, frames: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
        let start = out.len();
        // Short header, four bytes of packet number.
        out.push(0x43);
        out.extend_from_slice(id);
        // The low four bytes of the number.
        out.extend_from_slice(&(number as u32).to_be_bytes());
        let payload = out.len();
        out.extend_from_slice(frames);
        let mut tag = [0; TAG_BYTES];
        let nonce = self.nonce(number);
        let (head, body) = out[start..].split_at_mut(payload - start);
        self.aead.seal_in_place_mut(&nonce, body, &mut tag, head)?;
        out.extend_from_slice(&tag);
        let at = payload - NUMBER_BYTES;
        let mask = self.mask(&out[payload..payload + SAMPLE_BYTES])?;
        out[start] ^= mask[0] & 0x1f;
        out[at..payload].iter_mut().zip(&mask[1..]).for_each(|(byte, mask)| *byte ^= mask);
        Ok(())
    }

    /// Opens a packet to an ID of `id_len` bytes in place: its number and its frames. `None`: it is none of ours.
    pub fn open<'a>(&mut self, packet: &'a mut [u8], id_len: usize, largest: u64) -> Option<(u64, &'a [u8])> {
        let at = 1 + id_len;
        if packet.len() < at + NUMBER_BYTES + SAMPLE_BYTES || packet[0] & 0x80 != 0 {
            return None;
        }
        let sample = at + NUMBER_BYTES;
        let mask = self.mask(&packet[sample..sample + SAMPLE_BYTES]).ok()?;
        packet[0] ^= mask[0] & 0x1f;
        let len = usize::from(packet[0] & 3) + 1;
        packet[at..at + len].iter_mut().zip(&mask[1..]).for_each(|(byte, mask)| *byte ^= mask);
        let truncated = packet[at..at + len].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let number = full_number(truncated, len, largest);
        let nonce = self.nonce(number);
        let (head, rest) = packet.split_at_mut(at + len);
        let (body, tag) = rest.split_at_mut(rest.len().checked_sub(TAG_BYTES)?);
        self.aead.open_in_place_mut(&nonce, body, tag, head).ok()?;
        Some((number, body))
    }

    fn nonce(&self, number: u64) -> [u8; 12] {
        let mut nonce = self.iv;
        nonce[4..].iter_mut().zip(number.to_be_bytes()).for_each(|(byte, number)| *byte ^= number);
        nonce
    }

    fn mask(&mut self, sample: &[u8]) -> Result<[u8; 5], Failure> {
        let mut block = [0; 2 * AES_BLOCK_BYTES];
        self.mask.update(sample, &mut block)?;
        Ok([block[0], block[1], block[2], block[3], block[4]])
    }
}

/// HKDF-Expand-Label with no context (RFC 8446 section 7.1).
fn expand(secret: &[u8], label: &str, out: &mut [u8]) -> Result<(), Failure> {
    // Lengths and labels are ours and short.
    let mut info = vec![0, out.len() as u8, (6 + label.len()) as u8];
    info.extend_from_slice(b"tls13 ");
    info.extend_from_slice(label.as_bytes());
    info.push(0);
    Ok(HkdfSuite::new(MessageDigest::sha256()).expand(secret, &info, out)?)
}

/// The packet number nearest to the next one expected that ends in these bytes (RFC 9000 appendix A.3).
fn full_number(truncated: u64, len: usize, largest: u64) -> u64 {
    let (expected, window) = (largest + 1, 1 << (8 * len));
    let candidate = (expected & !(window - 1)) | truncated;
    if candidate + window / 2 <= expected {
        candidate + window
    } else if candidate > expected + window / 2 && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_can_be_opened_and_only_with_the_same_secret() {
        let (id, frames) = ([7; 18], b"\x01\0\0\0frames");
        let mut packet = Vec::new();
        Keys::new(&[1; 32]).unwrap().seal(&id, 70_000, frames, &mut packet).unwrap();
        assert_eq!(packet.len(), 1 + 18 + 4 + frames.len() + 16);
        let opened = |secret: u8, largest| {
            let mut packet = packet.clone();
            let (number, frames) = Keys::new(&[secret; 32]).unwrap().open(&mut packet, 18, largest)?;
            Some((number, frames.to_vec()))
        };
        assert_eq!(opened(1, 69_990), Some((70_000, frames.to_vec())));
        assert_eq!(opened(2, 69_990), None);
    }

    #[test]
    fn labels_expand_as_in_the_rfc() {
        // RFC 9001 appendix A.1: the client's Initial secret and its key.
        let secret = [
            0xc0, 0x0c, 0xf1, 0x51, 0xca, 0x5b, 0xe0, 0x75, 0xed, 0x0e, 0xbf, 0xb5, 0xc8, 0x03, 0x23, 0xc4, 0x2d, 0x6b,
            0x7d, 0xb6, 0x78, 0x81, 0x28, 0x9a, 0xf4, 0x00, 0x8f, 0x1f, 0x6c, 0x35, 0x7a, 0xea,
        ];
        let mut key = [0; 16];
        expand(&secret, "quic key", &mut key).unwrap();
        assert_eq!(key[..8], [0x1f, 0x36, 0x96, 0x13, 0xdd, 0x76, 0xd5, 0x46]);
    }

    #[test]
    fn numbers_are_completed_as_in_the_rfc() {
        assert_eq!(full_number(0x9b32, 2, 0xa82f_30ea), 0xa82f_9b32);
        assert_eq!(full_number(3, 1, 254), 259);
        assert_eq!(full_number(250, 1, 257), 250);
    }
}
