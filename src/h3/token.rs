//! Owns the layout of the tokens that prove an address (RFC 9000 §8.1): made without state, checked without state, on any
//! worker and in any process that shares the secret.
//!
//! ```text
//! layout 8 | kind 8 | issued 64 | address 128 | port 16 | ID length 8 | original ID | HMAC-SHA-256 over all of it and the Retry's ID
//! ```
//! * `kind` makes a token good for one purpose. There is one, Retry: the library sends no NEW_TOKEN frame.
//! * `issued` is in milliseconds since the Unix epoch, so that processes agree on it.
//! * the address is the one the token was sent to: nothing in a token is secret from who holds it.
//! * the Retry's own ID is where the client has to send the token to; it is signed but not repeated.
//!
//! There is no nonce: a token is good once per ID, because the second use of the ID finds the connection of the first.

use super::keys::EndpointKeys;
use crate::limits::quic::{RETRY_TOKEN_LIFE, TOKEN_CLOCK_SKEW};
use ring::hmac;
use std::net::{IpAddr, SocketAddr};

const LAYOUT: u8 = 0xa5;
const RETRY: u8 = 1;
const HEAD_LEN: usize = 2 + 8 + 16 + 2 + 1;
const TAG_LEN: usize = 32;
const ID_LEN_MAX: usize = 20;

/// Bytes of the longest token.
pub const TOKEN_LEN_MAX: usize = HEAD_LEN + ID_LEN_MAX + TAG_LEN;

/// The connection ID of the packet that a Retry answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginalId {
    bytes: [u8; ID_LEN_MAX],
    len: u8,
}

impl OriginalId {
    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// What a token says of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was sent to this address a moment ago, in answer to this ID.
    Valid(OriginalId),
    /// It is genuine, but too old, or issued by a clock that runs ahead.
    Expired,
    /// It is genuine, but was sent to another address.
    OtherAddress,
    /// It looks like one of ours, but the signature does not fit it and the ID it was sent to.
    Altered,
    /// It is of no kind that we issue: as good as none (RFC 9000 §8.1.3).
    Unknown,
}

/// Makes and checks tokens.
pub struct TokenKey {
    key: hmac::Key,
}

impl TokenKey {
    /// With the key for tokens.
    pub fn new(keys: &EndpointKeys) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &keys.token) }
    }

    /// A token for the Retry that answers `original` with the ID `retry_id`. `unix_ms` is the time.
    pub fn seal(&self, original: &[u8], retry_id: &[u8], to: SocketAddr, unix_ms: u64, out: &mut Vec<u8>) {
        debug_assert!(original.len() <= ID_LEN_MAX);
        out.clear();
        out.extend_from_slice(&[LAYOUT, RETRY]);
        out.extend_from_slice(&unix_ms.to_be_bytes());
        out.extend_from_slice(&address_bytes(to.ip()));
        out.extend_from_slice(&to.port().to_be_bytes());
        out.push(original.len() as u8);
        out.extend_from_slice(original);
        if let Some(signed) = Signed::new(out, retry_id) {
            let tag = hmac::sign(&self.key, signed.as_slice());
            out.extend_from_slice(tag.as_ref());
        }
    }

    /// Checks a token that came from an address, in a packet to the ID `dcid`.
    pub fn open(&self, token: &[u8], dcid: &[u8], from: SocketAddr, unix_ms: u64) -> Verdict {
        let Some((content, tag)) = token.len().checked_sub(TAG_LEN).and_then(|at| token.split_at_checked(at)) else {
            return Verdict::Unknown;
        };
        let Some((head, original)) = content.split_at_checked(HEAD_LEN) else {
            return Verdict::Unknown;
        };
        let (fixed, address) = head.split_at(2 + 8);
        let (address, port) = address.split_at(16);
        let same_length = usize::from(port[2]) == original.len() && original.len() <= ID_LEN_MAX;
        if fixed[..2] != [LAYOUT, RETRY] || !same_length {
            return Verdict::Unknown;
        }
        // The comparison takes the same time wherever the tags differ.
        let Some(signed) = Signed::new(content, dcid) else {
            return Verdict::Altered;
        };
        if hmac::verify(&self.key, signed.as_slice(), tag).is_err() {
            return Verdict::Altered;
        }
        let mut issued = [0; 8];
        issued.copy_from_slice(&fixed[2..]);
        let issued = u64::from_be_bytes(issued);
        let millis = |time: std::time::Duration| time.as_millis() as u64;
        let old = unix_ms.saturating_sub(issued) > millis(RETRY_TOKEN_LIFE);
        if old || issued.saturating_sub(unix_ms) > millis(TOKEN_CLOCK_SKEW) {
            return Verdict::Expired;
        }
        if address != address_bytes(from.ip()) || port[..2] != from.port().to_be_bytes() {
            return Verdict::OtherAddress;
        }
        let mut bytes = [0; ID_LEN_MAX];
        bytes[..original.len()].copy_from_slice(original);
        Verdict::Valid(OriginalId { bytes, len: original.len() as u8 })
    }
}

/// What is signed: the content of a token and the ID it has to come back to.
struct Signed {
    bytes: [u8; HEAD_LEN + 2 * ID_LEN_MAX],
    len: usize,
}

impl Signed {
    /// `None` if an ID is longer than version 1 allows.
    fn new(content: &[u8], retry_id: &[u8]) -> Option<Self> {
        let mut bytes = [0; HEAD_LEN + 2 * ID_LEN_MAX];
        let len = content.len() + retry_id.len();
        bytes.get_mut(..content.len())?.copy_from_slice(content);
        bytes.get_mut(content.len()..len)?.copy_from_slice(retry_id);
        Some(Self { bytes, len })
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// An IPv4 client of a dual-stack socket and of an IPv4 socket is the same client.
fn address_bytes(ip: IpAddr) -> [u8; 16] {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000_000;
    const ORIGINAL: [u8; 8] = [7; 8];
    const RETRY_ID: [u8; 16] = [9; 16];

    fn key(secret: &[u8]) -> TokenKey {
        TokenKey::new(&EndpointKeys::derive(secret))
    }

    fn client() -> SocketAddr {
        "192.0.2.7:40000".parse().unwrap()
    }

    fn token() -> Vec<u8> {
        let mut token = Vec::new();
        key(b"secret").seal(&ORIGINAL, &RETRY_ID, client(), NOW, &mut token);
        token
    }

    fn open(token: &[u8], from: SocketAddr, at: u64) -> Verdict {
        key(b"secret").open(token, &RETRY_ID, from, at)
    }

    #[test]
    fn a_token_is_good_for_its_address_id_and_time() {
        let token = token();
        let Verdict::Valid(original) = open(&token, client(), NOW + 50) else {
            panic!("refused");
        };
        assert_eq!(original.as_slice(), ORIGINAL);
        let mapped = "[::ffff:192.0.2.7]:40000".parse().unwrap();
        assert!(matches!(open(&token, mapped, NOW), Verdict::Valid(_)));
        let mut long = Vec::new();
        key(b"secret").seal(&[1; 20], &RETRY_ID, client(), NOW, &mut long);
        assert_eq!(long.len(), TOKEN_LEN_MAX);
        assert!(matches!(open(&long, client(), NOW), Verdict::Valid(id) if id.as_slice() == [1; 20]));
    }

    #[test]
    fn other_addresses_ports_ids_times_and_secrets_are_refused() {
        let token = token();
        for other in ["192.0.2.8:40000", "192.0.2.7:40001", "[2001:db8::1]:40000"] {
            assert_eq!(open(&token, other.parse().unwrap(), NOW), Verdict::OtherAddress, "{other}");
        }
        let life = RETRY_TOKEN_LIFE.as_millis() as u64;
        let skew = TOKEN_CLOCK_SKEW.as_millis() as u64;
        assert!(matches!(open(&token, client(), NOW + life), Verdict::Valid(_)));
        assert_eq!(open(&token, client(), NOW + life + 1), Verdict::Expired);
        assert!(matches!(open(&token, client(), NOW - skew), Verdict::Valid(_)));
        assert_eq!(open(&token, client(), NOW - skew - 1), Verdict::Expired);
        assert_eq!(key(b"secret").open(&token, &[8; 16], client(), NOW), Verdict::Altered);
        assert_eq!(key(b"secret").open(&token, &[8; 21], client(), NOW), Verdict::Altered);
        assert_eq!(key(b"another").open(&token, &RETRY_ID, client(), NOW), Verdict::Altered);
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_noticed() {
        let good = token();
        for bit in 0..good.len() * 8 {
            let mut token = good.clone();
            token[bit / 8] ^= 1 << (bit % 8);
            let verdict = open(&token, client(), NOW);
            assert!(matches!(verdict, Verdict::Altered | Verdict::Unknown), "bit {bit}: {verdict:?}");
        }
        for len in 0..good.len() {
            assert!(matches!(open(&good[..len], client(), NOW), Verdict::Unknown), "{len}");
        }
        assert_eq!(open(&[good.as_slice(), &[0]].concat(), client(), NOW), Verdict::Unknown);
    }

    #[test]
    fn a_genuine_token_of_another_kind_proves_nothing() {
        let key = key(b"secret");
        let mut token = token();
        let content = token.len() - TAG_LEN;
        token[1] = RETRY + 1;
        let signed = Signed::new(&token[..content], &RETRY_ID).unwrap();
        let tag = hmac::sign(&key.key, signed.as_slice());
        token[content..].copy_from_slice(tag.as_ref());
        assert_eq!(key.open(&token, &RETRY_ID, client(), NOW), Verdict::Unknown);
    }
}
