//! Owns the answers that need no connection: stateless resets (RFC 9000 §10.3), and the refusal of a first packet
//! (RFC 9000 §5.2.2), each one datagram smaller than its question.

use super::keys::EndpointKeys;
use super::packet::VERSION_1;
use crate::limits::quic::RESETS_PER_SECOND;
use ring::{aead, hkdf, hmac};
use std::time::Instant;

/// A stateless reset is at least this long: shorter ones cannot be packets of anybody (RFC 9000 §10.3).
pub(super) const RESET_LEN_MIN: usize = 21;

/// From this length on a reset looks like a packet with any connection ID (RFC 9000 §10.3).
const RESET_LEN_USUAL: usize = 43;

/// Bytes that look random: HMAC of a counter. What they are is no secret, so that one key serves for ever, but each worker
/// of each process has bytes of its own.
pub(super) struct Noise {
    key: hmac::Key,
    place: [u8; 4],
    counter: u64,
}

impl Noise {
    pub(super) fn new(keys: &EndpointKeys, worker: u16, epoch: u16) -> Self {
        let mut place = [0; 4];
        place[..2].copy_from_slice(&worker.to_be_bytes());
        place[2..].copy_from_slice(&epoch.to_be_bytes());
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &keys.noise), place, counter: 0 }
    }

    pub(super) fn next(&mut self) -> [u8; 32] {
        let mut input = [0; 12];
        input[..4].copy_from_slice(&self.place);
        input[4..].copy_from_slice(&self.counter.to_be_bytes());
        self.counter = self.counter.wrapping_add(1);
        let tag = hmac::sign(&self.key, &input);
        let mut noise = [0; 32];
        noise.copy_from_slice(&tag.as_ref()[..32]);
        noise
    }

    /// Four of them as a number.
    pub(super) fn number(&mut self) -> u32 {
        let [a, b, c, d, ..] = self.next();
        u32::from_be_bytes([a, b, c, d])
    }
}

/// How many resets may still be sent in this second.
#[derive(Default)]
pub(super) struct ResetBudget {
    since: Option<Instant>,
    left: u32,
}

impl ResetBudget {
    /// Takes one, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since).as_secs() >= 1) {
            *self = Self { since: Some(now), left: RESETS_PER_SECOND };
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// Writes a stateless reset in answer to a packet of `asked` bytes; `false` if that is too small to be answered. A reset
/// is always smaller than what it answers, so that two ends without state fall silent (RFC 9000 §10.3.3).
pub(super) fn reset(token: u128, asked: usize, noise: &mut Noise, out: &mut Vec<u8>) -> bool {
    if asked <= RESET_LEN_MIN {
        return false;
    }
    let (first, second) = (noise.next(), noise.next());
    // One byte shorter than a short packet; else of some length at which it could be any packet.
    let more = usize::from(first[31] & 0x0f);
    let len = (asked - 1).min(RESET_LEN_USUAL + more);
    out.clear();
    out.extend_from_slice(&first[..31]);
    out.extend_from_slice(&second);
    out.truncate(len - 16);
    // A short header: the fixed bit, and noise.
    out[0] = 0x40 | first[0] & 0x3f;
    out.extend_from_slice(&token.to_be_bytes());
    true
}

/// The salt of version 1 (RFC 9001 §5.2).
const INITIAL_SALT: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f,
    0x0a,
];

/// Writes an Initial packet that closes the connection which a client's first packet would have opened, with an error code
/// under 64 (RFC 9000 §20.1). `dcid` and `scid` are those of the client's packet. `None` if an ID is longer than version 1
/// allows.
pub(super) fn refuse(dcid: &[u8], scid: &[u8], code: u8, out: &mut Vec<u8>) -> Option<()> {
    debug_assert!(code < 64);
    // CONNECTION_CLOSE for no frame and without reason. With the tag that is just what the sample of header protection
    // needs: 16 bytes behind the longest packet number there could be.
    let frames = [0x1c, code, 0, 0];
    let packet_number = 0_u8;
    if dcid.len() > 20 || scid.len() > 20 {
        return None;
    }
    out.clear();
    out.push(0xc0);
    out.extend_from_slice(&VERSION_1.to_be_bytes());
    out.push(scid.len() as u8);
    out.extend_from_slice(scid);
    // The client has to send to this ID if it answers; nobody is there.
    out.push(dcid.len() as u8);
    out.extend_from_slice(dcid);
    out.push(0);
    out.push((1 + frames.len() + aead::AES_128_GCM.tag_len()) as u8);
    let number_at = out.len();
    out.push(packet_number);

    let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, &INITIAL_SALT).extract(dcid);
    let server = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &expand_label::<32>(&secret, b"server in"));
    let key = aead::UnboundKey::new(&aead::AES_128_GCM, &expand_label::<16>(&server, b"quic key")).ok()?;
    // Packet number 0 leaves the initialisation vector as it is.
    let nonce = aead::Nonce::assume_unique_for_key(expand_label(&server, b"quic iv"));
    let mut sealed = frames;
    let tag = aead::LessSafeKey::new(key)
        .seal_in_place_separate_tag(nonce, aead::Aad::from(out.as_slice()), &mut sealed)
        .ok()?;
    out.extend_from_slice(&sealed);
    out.extend_from_slice(tag.as_ref());

    let header =
        aead::quic::HeaderProtectionKey::new(&aead::quic::AES_128, &expand_label::<16>(&server, b"quic hp")).ok()?;
    let mask = header.new_mask(out.get(number_at + 4..number_at + 20)?).ok()?;
    out[0] ^= mask[0] & 0x0f;
    out[number_at] ^= mask[1];
    Some(())
}

/// HKDF-Expand-Label (RFC 8446 §7.1) with an empty context.
fn expand_label<const N: usize>(secret: &hkdf::Prk, label: &[u8]) -> [u8; N] {
    let mut info = Vec::with_capacity(2 + 1 + 6 + label.len() + 1);
    info.extend_from_slice(&(N as u16).to_be_bytes());
    info.push((6 + label.len()) as u8);
    info.extend_from_slice(b"tls13 ");
    info.extend_from_slice(label);
    info.push(0);
    let mut out = [0; N];
    super::cid::expand(secret, &info, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn noise() -> Noise {
        Noise::new(&EndpointKeys::derive(b"secret"), 1, 2)
    }

    #[test]
    fn a_reset_is_smaller_than_its_question_and_ends_with_the_token() {
        let mut noise = noise();
        let mut out = Vec::new();
        for asked in 0..1500 {
            let answered = reset(0x0102_0304, asked, &mut noise, &mut out);
            assert_eq!(answered, asked > RESET_LEN_MIN, "{asked}");
            if answered {
                assert!(out.len() < asked && out.len() >= RESET_LEN_MIN, "{asked}: {}", out.len());
                assert!(asked > 43 || out.len() == asked - 1, "{asked}: {}", out.len());
                assert_eq!(out[0] & 0xc0, 0x40);
                assert_eq!(&out[out.len() - 16..], 0x0102_0304_u128.to_be_bytes());
            }
        }
    }

    #[test]
    fn two_resets_share_nothing_but_the_token() {
        let mut noise = noise();
        let (mut one, mut two) = (Vec::new(), Vec::new());
        assert!(reset(1, 1200, &mut noise, &mut one) && reset(1, 1200, &mut noise, &mut two));
        assert_ne!(one[1..17], two[1..17]);
        let mut elsewhere = Noise::new(&EndpointKeys::derive(b"secret"), 1, 3);
        assert_ne!(elsewhere.next(), self::noise().next());
    }

    #[test]
    fn resets_in_a_second_are_bounded() {
        let start = Instant::now();
        let mut budget = ResetBudget::default();
        let taken = (0..3 * RESETS_PER_SECOND).filter(|_| budget.take(start)).count();
        assert_eq!(taken, RESETS_PER_SECOND as usize);
        assert!(!budget.take(start + Duration::from_millis(999)));
        assert!(budget.take(start + Duration::from_secs(1)));
    }

    #[test]
    fn the_keys_of_a_first_packet_are_those_of_the_rfc() {
        // RFC 9001 appendix A.1.
        let dcid = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, &INITIAL_SALT).extract(&dcid);
        let server = expand_label::<32>(&secret, b"server in");
        assert_eq!(server[..4], [0x3c, 0x19, 0x98, 0x28]);
        let server = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &server);
        assert_eq!(expand_label::<16>(&server, b"quic key")[..4], [0xcf, 0x3a, 0x53, 0x31]);
        assert_eq!(expand_label::<12>(&server, b"quic iv")[..4], [0x0a, 0xc1, 0x49, 0x3c]);
        assert_eq!(expand_label::<16>(&server, b"quic hp")[..4], [0xc2, 0x06, 0xb8, 0xd9]);
    }

    #[test]
    fn ids_too_long_for_version_1_are_not_answered() {
        assert_eq!(refuse(&[1; 21], &[], 2, &mut Vec::new()), None);
        assert_eq!(refuse(&[1; 8], &[1; 21], 2, &mut Vec::new()), None);
        let mut out = Vec::new();
        assert_eq!(refuse(&[1; 20], &[2; 20], 2, &mut out), Some(()));
        assert!(out.len() < 100, "{}", out.len());
    }
}
