//! The bytes a connection wants to send, as a list of chunks.
//!
//! Heads, chunk sizes and small body pieces are gathered into one buffer; large body pieces stay where they are and
//! are handed on by reference. Knows nothing of sockets: the worker moves what [`Output::pop`] gives to its send queue.
//!
//! The list is bounded by its callers: a machine writes one head or one body piece per command, and the worker gives
//! body pieces only while its socket's queue has room. Every machine on a byte stream (HTTP/1.1, HTTP/2, TLS) writes to one.

use spooky_uring::Chunk;
use std::collections::VecDeque;

/// Pieces up to this size are copied behind what is already gathered. A copy of this size costs less than one more
/// element in the vectored send, and frees the receive buffer it may stand in.
const COPY_BYTES_MAX: usize = 512;

/// First size of the gathering buffer: a usual request head with its fields fits without growing, and [`Chunk::vector`]
/// has them ready.
const GATHER_BYTES: usize = 2048;

/// Bytes to send, in order. Reused for turn after turn.
#[derive(Debug, Default)]
pub struct Output {
    /// Sealed pieces, all before `gathered`.
    sealed: VecDeque<Chunk>,
    /// Small pieces still being gathered.
    gathered: Vec<u8>,
    /// Bytes in `sealed`.
    sealed_bytes: usize,
}

impl Output {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes in the list.
    pub fn len(&self) -> usize {
        self.sealed_bytes + self.gathered.len()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the next chunk; chunks are never empty.
    pub fn pop(&mut self) -> Option<Chunk> {
        if self.sealed.is_empty() {
            self.seal();
        }
        let chunk = self.sealed.pop_front()?;
        self.sealed_bytes -= chunk.len();
        Some(chunk)
    }

    /// Forgets everything, for a connection that is going to be closed.
    pub fn clear(&mut self) {
        self.sealed.clear();
        self.sealed_bytes = 0;
        self.gathered.clear();
    }

    /// The buffer to append small pieces to.
    pub fn gather(&mut self) -> &mut Vec<u8> {
        if self.gathered.capacity() == 0 {
            self.gathered = Chunk::vector(GATHER_BYTES);
        }
        &mut self.gathered
    }

    /// Appends a body piece: by reference, or by a copy when it is small.
    pub fn push(&mut self, chunk: Chunk) {
        if chunk.is_empty() {
            return;
        }
        // Copy: small pieces, see COPY_BYTES_MAX.
        if chunk.len() <= COPY_BYTES_MAX {
            self.gather().extend_from_slice(&chunk);
            return;
        }
        self.seal();
        self.sealed_bytes += chunk.len();
        self.sealed.push_back(chunk);
    }

    fn seal(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let chunk = Chunk::from_vec(std::mem::take(&mut self.gathered));
        self.sealed_bytes += chunk.len();
        self.sealed.push_back(chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(len: usize, byte: u8) -> Chunk {
        Chunk::from_vec(vec![byte; len])
    }

    #[test]
    fn small_pieces_leave_as_one_chunk() {
        let mut out = Output::new();
        out.gather().extend_from_slice(b"HTTP");
        out.push(chunk(3, b'a'));
        out.gather().extend_from_slice(b"!");
        assert_eq!(out.len(), 8);
        assert_eq!(&*out.pop().unwrap(), b"HTTPaaa!");
        assert!(out.pop().is_none());
        assert!(out.is_empty());
    }

    #[test]
    fn a_large_piece_keeps_its_memory_and_its_place() {
        let mut out = Output::new();
        out.gather().extend_from_slice(b"before");
        let large = chunk(COPY_BYTES_MAX + 1, b'x');
        let memory = large.as_ptr();
        out.push(large);
        out.gather().extend_from_slice(b"behind");
        assert_eq!(out.len(), 12 + COPY_BYTES_MAX + 1);
        assert_eq!(&*out.pop().unwrap(), b"before");
        assert_eq!(out.pop().unwrap().as_ptr(), memory);
        assert_eq!(&*out.pop().unwrap(), b"behind");
        assert!(out.pop().is_none());
    }

    #[test]
    fn empty_pieces_leave_no_chunk() {
        let mut out = Output::new();
        out.push(Chunk::default());
        assert!(out.is_empty() && out.pop().is_none());
    }

    #[test]
    fn clearing_forgets_gathered_and_sealed() {
        let mut out = Output::new();
        out.push(chunk(4000, 1));
        out.push(chunk(4, 1));
        out.clear();
        assert!(out.is_empty() && out.pop().is_none());
    }
}
