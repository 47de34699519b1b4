//! Owns what can be read from a datagram before any connection is known: the version-independent part of a QUIC packet
//! (RFC 8999), and the Version Negotiation answer.
//!
//! It allocates nothing and refuses to know connections: read [`super::endpoint`].

use super::cid::CID_LEN;

/// The one version spoken.
pub const VERSION_1: u32 = 1;

/// Smallest UDP payload that may open a connection or ask for version negotiation (RFC 9000 §14.1, §6.1).
pub const INITIAL_LEN_MIN: usize = 1200;

/// The invariant part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant<'a> {
    /// A short header. Its connection ID has our length, as we made it.
    Short {
        /// The destination connection ID.
        dcid: &'a [u8],
    },
    /// A long header.
    Long {
        /// The first byte.
        first: u8,
        /// The version.
        version: u32,
        /// The destination connection ID, up to 255 bytes.
        dcid: &'a [u8],
        /// The source connection ID, up to 255 bytes.
        scid: &'a [u8],
    },
}

/// The kinds of long header in version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LongType {
    /// Opens a connection.
    Initial,
    /// Early data.
    ZeroRtt,
    /// Goes on with a handshake.
    Handshake,
    /// Only servers send it.
    Retry,
}

impl LongType {
    /// The kind that the first byte tells (RFC 9000 §17.2).
    pub const fn of(first: u8) -> Self {
        match (first >> 4) & 3 {
            0 => Self::Initial,
            1 => Self::ZeroRtt,
            2 => Self::Handshake,
            _ => Self::Retry,
        }
    }
}

impl<'a> Invariant<'a> {
    /// Reads the invariant part; `None` if the packet is too short for what it says.
    #[inline]
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let (&first, rest) = packet.split_first()?;
        if first & 0x80 == 0 {
            return Some(Self::Short { dcid: rest.get(..CID_LEN)? });
        }
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let (&dcid_len, rest) = rest.split_first()?;
        let (dcid, rest) = rest.split_at_checked(usize::from(dcid_len))?;
        let (&scid_len, rest) = rest.split_first()?;
        let scid = rest.get(..usize::from(scid_len))?;
        Some(Self::Long { first, version: u32::from_be_bytes(*version), dcid, scid })
    }
}

/// The token of a client's Initial packet of version 1 (RFC 9000 §17.2.2), empty if it has none; `None` if the packet is too
/// short for what it says.
pub fn initial_token(packet: &[u8]) -> Option<&[u8]> {
    let (&dcid_len, rest) = packet.get(5..)?.split_first()?;
    let (&scid_len, rest) = rest.get(usize::from(dcid_len)..)?.split_first()?;
    let rest = rest.get(usize::from(scid_len)..)?;
    let (&first, _) = rest.split_first()?;
    let (number, rest) = rest.split_at_checked(1 << (first >> 6))?;
    let len = number.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)) & ((1 << (8 * number.len() - 2)) - 1);
    rest.get(..usize::try_from(len).ok()?)
}

/// Bytes of the longest Version Negotiation packet: first byte, version, two IDs of 255 bytes with their lengths, two
/// versions. Under half of [`INITIAL_LEN_MIN`], so an answer never amplifies.
pub const NEGOTIATION_LEN_MAX: usize = 1 + 4 + 2 * (1 + 255) + 2 * 4;
const _: () = assert!(NEGOTIATION_LEN_MAX < INITIAL_LEN_MIN);

/// Writes a Version Negotiation packet that answers a packet with these IDs (RFC 9000 §17.2.1).
/// `noise` fills the bits without meaning.
pub fn negotiate(dcid: &[u8], scid: &[u8], noise: u32, out: &mut Vec<u8>) {
    debug_assert!(dcid.len() <= 255 && scid.len() <= 255);
    out.clear();
    // The second bit is set as by other long headers, for middleboxes that look.
    out.push(0xc0 | noise as u8);
    out.extend_from_slice(&0u32.to_be_bytes());
    out.push(scid.len() as u8);
    out.extend_from_slice(scid);
    out.push(dcid.len() as u8);
    out.extend_from_slice(dcid);
    out.extend_from_slice(&VERSION_1.to_be_bytes());
    // A version of the reserved form, so that clients learn to ignore what they don't know (RFC 9000 §15).
    out.extend_from_slice(&(noise & 0xf0f0_f0f0 | 0x0a0a_0a0a).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_headers_carry_an_id_of_our_length() {
        let mut packet = [7; 40];
        packet[0] = 0x40;
        let Some(Invariant::Short { dcid }) = Invariant::parse(&packet) else {
            panic!("not short");
        };
        assert_eq!(dcid, &packet[1..=CID_LEN]);
        assert_eq!(Invariant::parse(&packet[..CID_LEN]), None);
        assert_eq!(Invariant::parse(&[]), None);
    }

    #[test]
    fn every_truncation_of_a_long_header_is_refused() {
        let mut packet = vec![0xc3, 0, 0, 0, 1, 8];
        packet.extend([1; 8]);
        packet.push(3);
        packet.extend([2; 3]);
        assert_eq!(
            Invariant::parse(&packet),
            Some(Invariant::Long { first: 0xc3, version: 1, dcid: &[1; 8], scid: &[2; 3] })
        );
        for len in 0..packet.len() {
            assert_eq!(Invariant::parse(&packet[..len]), None, "{len}");
        }
    }

    #[test]
    fn the_token_of_a_first_packet_is_found_and_every_truncation_refused() {
        let with = |number: &[u8], token: &[u8]| {
            let head = [0xc3, 0, 0, 0, 1, 8, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2];
            [&head, number, token].concat()
        };
        assert_eq!(initial_token(&with(&[0], &[])), Some(&[][..]));
        assert_eq!(initial_token(&with(&[2], &[7, 8, 9])), Some(&[7, 8][..]));
        let long = with(&[0x40, 100], &[5; 100]);
        assert_eq!(initial_token(&long), Some(&[5; 100][..]));
        assert_eq!(initial_token(&with(&[0x80, 0, 0, 3], &[1, 2, 3])), Some(&[1, 2, 3][..]));
        assert_eq!(initial_token(&with(&[0xff; 8], &[1, 2, 3])), None);
        for len in 0..long.len() {
            assert_eq!(initial_token(&long[..len]), None, "{len}");
        }
    }

    #[test]
    fn negotiation_swaps_the_ids_and_offers_version_1() {
        let mut out = Vec::new();
        negotiate(&[1; 255], &[2; 255], u32::MAX, &mut out);
        assert_eq!(out.len(), NEGOTIATION_LEN_MAX);
        let Some(Invariant::Long { version, dcid, scid, .. }) = Invariant::parse(&out) else {
            panic!("not long");
        };
        assert_eq!((version, dcid, scid), (0, &[2; 255][..], &[1; 255][..]));
        assert_eq!(&out[out.len() - 8..][..4], &[0, 0, 0, 1]);
        assert_eq!(out[out.len() - 1] & 0x0f, 0x0a);
    }
}
