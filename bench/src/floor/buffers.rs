//! Response bodies reach the packets without a copy: QUIC keeps the very buffers that the kernel filled.

use quiche::{BufFactory, BufSplit};
use spooky_uring::chunk::Chunk;

/// Makes the buffers that QUIC keeps until they are acknowledged.
#[derive(Clone, Debug, Default)]
pub struct Buffers;

/// A view of received bytes.
#[derive(Clone, Debug, Default)]
pub struct Piece(pub Chunk);

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl BufSplit for Piece {
    fn split_at(&mut self, at: usize) -> Self {
        let head = self.0.split_to(at);
        Self(std::mem::replace(&mut self.0, head))
    }
}

impl BufFactory for Buffers {
    type Buf = Piece;
    type DgramBuf = Vec<u8>;

    fn buf_from_slice(bytes: &[u8]) -> Piece {
        Piece(Chunk::copy_from(bytes))
    }

    fn dgram_buf_from_slice(bytes: &[u8]) -> Vec<u8> {
        bytes.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_leaves_the_front_and_returns_the_rest() {
        let mut piece = Piece(Chunk::copy_from(b"hello world"));
        let rest = piece.split_at(5);
        assert_eq!(piece.as_ref(), b"hello");
        assert_eq!(rest.as_ref(), b" world");
    }
}
