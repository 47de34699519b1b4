//! Request bodies without copies: every piece is a view of one pattern that lives as long as the process.

use bytes::Bytes;
use quiche::{BufFactory, BufSplit};
use spooky_uring::Chunk;

/// Bytes of the pattern; also the largest piece handed to QUIC at once.
pub const PATTERN_BYTES: usize = 65_536;

/// One byte at each place, in steps that do not divide any packet size.
static PATTERN: [u8; PATTERN_BYTES] = pattern();

const fn pattern() -> [u8; PATTERN_BYTES] {
    let mut bytes = [0; PATTERN_BYTES];
    let mut at = 0;
    while at < PATTERN_BYTES {
        bytes[at] = (at % 251) as u8;
        at += 1;
    }
    bytes
}

/// Makes the buffers that QUIC keeps until they are acknowledged.
#[derive(Clone, Debug, Default)]
pub struct Buffers;

/// Shared bytes.
#[derive(Clone, Debug, Default)]
pub struct Piece(Bytes);

impl Piece {
    /// The body's bytes from `sent` on: `left` of them, or as many as the pattern holds from there.
    pub fn of_body(sent: u64, left: u64) -> Self {
        // In range: the remainder of a division by 65,536.
        let at = (sent % PATTERN_BYTES as u64) as usize;
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(PATTERN_BYTES - at);
        Self(Bytes::from_static(&PATTERN[at..at + len]))
    }

    /// Bytes in the piece.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl BufSplit for Piece {
    fn split_at(&mut self, at: usize) -> Self {
        Self(self.0.split_off(at))
    }
}

impl BufFactory for Buffers {
    type Buf = Piece;
    type DgramBuf = Vec<u8>;

    fn buf_from_slice(bytes: &[u8]) -> Piece {
        Piece(Bytes::copy_from_slice(bytes))
    }

    fn dgram_buf_from_slice(bytes: &[u8]) -> Vec<u8> {
        bytes.to_vec()
    }
}

/// The body's bytes from `sent` on for the protocols over TCP: `left` of them, or as many as the pattern holds from there.
pub fn chunk(sent: u64, left: u64) -> Chunk {
    // In range: the remainder of a division by 65,536.
    let at = (sent % PATTERN_BYTES as u64) as usize;
    let len = usize::try_from(left).unwrap_or(usize::MAX).min(PATTERN_BYTES - at);
    Chunk::from_static(&PATTERN[at..at + len])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_join_into_one_body_whatever_their_sizes() {
        let (total, mut sent, mut body) = (200_000u64, 0u64, Vec::new());
        for step in [1, 1000, 65_536, 70_000].iter().cycle() {
            if sent == total {
                break;
            }
            let piece = Piece::of_body(sent, (total - sent).min(*step));
            body.extend_from_slice(piece.as_ref());
            sent += piece.len() as u64;
        }
        assert_eq!(body.len() as u64, total);
        assert!(body.iter().enumerate().all(|(at, byte)| *byte == PATTERN[at % PATTERN_BYTES]));
    }
}
