//! Three words for bytes: [`Lease`] (kernel-chosen buffer, ours alone), [`Chunk`] (shared, read-only) and
//! [`ChunkMut`] (being filled). All stay on the thread that made them.

use std::ops::{Deref, DerefMut, Range};
use std::rc::Rc;

/// Refcounted read-only bytes that never leave their thread.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    bytes: Rc<Vec<u8>>,
    start: usize,
    end: usize,
}

impl Chunk {
    /// Copies `bytes` to the heap.
    pub fn copy_from(bytes: &[u8]) -> Self {
        Self::from_vec(bytes.to_vec())
    }

    /// Takes over a vector without a copy.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        let end = bytes.len();
        Self {
            bytes: Rc::new(bytes),
            start: 0,
            end,
        }
    }

    /// Cuts the first `at` bytes off and returns them; panics if `at > len()`.
    pub fn split_to(&mut self, at: usize) -> Self {
        assert!(at <= self.len());
        let head = Self {
            bytes: Rc::clone(&self.bytes),
            start: self.start,
            end: self.start + at,
        };
        self.start += at;
        head
    }

    /// A view of part of the bytes; panics if out of range.
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len());
        Self {
            bytes: Rc::clone(&self.bytes),
            start: self.start + range.start,
            end: self.start + range.end,
        }
    }

    /// Drops the first `n` bytes; panics if `n > len()`.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.len());
        self.start += n;
    }

    /// Keeps the first `n` bytes; panics if `n > len()`.
    pub fn truncate(&mut self, n: usize) {
        assert!(n <= self.len());
        self.end = self.start + n;
    }

    /// Whether the bytes stand in a bounded receive pool (true) or on the heap.
    pub fn is_pooled(&self) -> bool {
        false
    }
}

impl Deref for Chunk {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Bytes being filled; `freeze` turns them into a [`Chunk`] without a copy.
#[derive(Debug, Default)]
pub struct ChunkMut {
    bytes: Vec<u8>,
}

impl ChunkMut {
    /// A zeroed buffer of `len` bytes.
    pub fn zeroed(len: usize) -> Self {
        Self {
            bytes: vec![0; len],
        }
    }

    /// Keeps the first `len` bytes as a chunk; panics if `len` is over the buffer's.
    pub fn freeze(mut self, len: usize) -> Chunk {
        assert!(len <= self.bytes.len());
        self.bytes.truncate(len);
        Chunk::from_vec(self.bytes)
    }
}

impl Deref for ChunkMut {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for ChunkMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// A buffer that the kernel chose from a provided ring and filled. Unique, so it may be written in place.
/// Dropping it gives the buffer back; `into_chunk` keeps it beyond the turn.
#[derive(Debug)]
pub struct Lease {
    bytes: Vec<u8>,
}

impl Lease {
    /// Shares the bytes without a copy; the buffer goes back when the last chunk is dropped.
    pub fn into_chunk(self) -> Chunk {
        Chunk::from_vec(self.bytes)
    }

    /// A lease over plain memory, for tests and simulated hosts.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }
}

impl Deref for Lease {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}
