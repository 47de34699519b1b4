//! Three words for bytes: [`Lease`] (a kernel-chosen buffer, ours alone), [`Chunk`] (shared, read-only) and
//! [`ChunkMut`] (being filled). All stay on the thread that made them, so their counts are plain integers.
//!
//! Owns: who holds which bytes, and when they go back to the pool or the free list they came from. Refuses to know
//! how bytes arrive or leave. Read next: `header.rs` (the counted memory behind all three), `../pool.rs`.

mod header;
#[cfg(test)]
mod tests;

pub(crate) use header::Header;

use crate::pool::PoolShared;
use header::HEADROOM;
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;

/// A range of counted memory: the common body of the three public types.
///
/// Invariant: `start..start + len` is initialised and lies inside the memory that `header` counts (or is `'static` if
/// there is no header); this handle owns one reference.
struct Bytes {
    start: NonNull<u8>,
    len: usize,
    header: Option<NonNull<Header>>,
}

impl Bytes {
    const EMPTY: Self = Self { start: NonNull::dangling(), len: 0, header: None };

    fn as_slice(&self) -> &[u8] {
        // SAFETY: by the invariant the range is initialised and kept alive by our reference. Nobody writes to it while
        // it is shared: writers (`ChunkMut`, `Lease`, `try_add_prefix`) need to be the only holder of their bytes.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes for writing; only for handles that are unique by their type.
    fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: called by `Lease` and `ChunkMut` only, which are never shared, so no other handle sees these bytes;
        // their memory is always of our own making (never `'static`), or empty.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// Moves the start by `n <= len` bytes.
    fn advance(&mut self, n: usize) {
        assert!(n <= self.len, "advance past the end");
        // SAFETY: `n <= len`, so the new start is inside the range or one past its end.
        self.start = unsafe { self.start.add(n) };
        self.len -= n;
    }

    fn truncate(&mut self, n: usize) {
        assert!(n <= self.len, "truncate past the end");
        self.len = n;
    }

    fn share(&self) -> Self {
        if let Some(header) = self.header {
            // SAFETY: we hold a reference, so the header is alive.
            unsafe { header.as_ref() }.retain();
        }
        Self { start: self.start, len: self.len, header: self.header }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        if let Some(header) = self.header {
            // SAFETY: this handle owns exactly one reference and is gone after this call.
            unsafe { Header::release(header) };
        }
    }
}

/// Refcounted read-only bytes that never leave their thread. Three words; a clone, split or slice is one increment.
///
/// ```compile_fail
/// let chunk = spooky_uring::Chunk::copy_from(b"mine");
/// std::thread::spawn(move || drop(chunk)); // a chunk is not `Send`
/// ```
pub struct Chunk {
    bytes: Bytes,
}

impl Chunk {
    /// Copies `bytes` to the heap.
    pub fn copy_from(bytes: &[u8]) -> Self {
        let mut buffer = ChunkMut::zeroed(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer.freeze(bytes.len())
    }

    /// Bytes that live as long as the program; nothing is counted.
    pub const fn from_static(bytes: &'static [u8]) -> Self {
        Self {
            bytes: Bytes {
                // SAFETY: a slice's pointer is never null.
                start: unsafe { NonNull::new_unchecked(bytes.as_ptr().cast_mut()) },
                len: bytes.len(),
                header: None,
            },
        }
    }

    /// Takes over a vector without a copy of its bytes.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        Lease::from_vec(bytes).into_chunk()
    }

    /// An empty vector with room for `capacity` bytes, for what [`Chunk::from_vec`] will take over: from 512 bytes to
    /// 2 KiB it has 2 KiB, and comes from those that chunks of this thread gave back (256 are kept) before the allocator.
    pub fn vector(capacity: usize) -> Vec<u8> {
        header::vector(capacity)
    }

    /// Cuts the first `at` bytes off and returns them; panics if `at > len()`.
    pub fn split_to(&mut self, at: usize) -> Self {
        let mut head = self.clone();
        head.truncate(at);
        self.advance(at);
        head
    }

    /// Cuts everything from `at` on off and returns it; panics if `at > len()`.
    pub fn split_off(&mut self, at: usize) -> Self {
        let mut tail = self.clone();
        tail.advance(at);
        self.truncate(at);
        tail
    }

    /// A view of part of the bytes; panics if out of range.
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len());
        let mut part = self.clone();
        part.truncate(range.end);
        part.advance(range.start);
        part
    }

    /// Drops the first `n` bytes; panics if `n > len()`.
    pub fn advance(&mut self, n: usize) {
        self.bytes.advance(n);
    }

    /// Keeps the first `n` bytes; panics if `n > len()`.
    pub fn truncate(&mut self, n: usize) {
        self.bytes.truncate(n);
    }

    /// Whether the bytes stand in a bounded receive pool (true) or on the heap.
    pub fn is_pooled(&self) -> bool {
        self.bytes.header.is_some_and(|header| {
            // SAFETY: we hold a reference, so the header is alive.
            unsafe { header.as_ref() }.is_pooled()
        })
    }

    /// Whether no other chunk shares this memory (chunks of static bytes always share).
    pub fn is_unique(&self) -> bool {
        self.bytes.header.is_some_and(|header| {
            // SAFETY: we hold a reference, so the header is alive.
            unsafe { header.as_ref() }.is_unique()
        })
    }

    /// Puts `prefix` before the bytes, in place. False (and nothing changed) if the memory is shared or has no room in
    /// front. Buffers of ours start with 16 bytes of room; so does whatever a unique chunk has advanced over.
    pub fn try_add_prefix(&mut self, prefix: &[u8]) -> bool {
        let Some(header) = self.bytes.header else {
            return false;
        };
        // SAFETY: we hold a reference, so the header is alive.
        let header = unsafe { header.as_ref() };
        if !header.is_unique() || header.room_before(self.bytes.start) < prefix.len() {
            return false;
        }
        // SAFETY: the room before `start` is inside the counted memory, initialised, and this is the only handle to
        // that memory, so no slice of those bytes exists. `prefix` cannot overlap for the same reason: a borrow of this
        // memory would borrow this very chunk, which is borrowed mutably.
        unsafe {
            let start = self.bytes.start.sub(prefix.len());
            std::ptr::copy_nonoverlapping(prefix.as_ptr(), start.as_ptr(), prefix.len());
            self.bytes.start = start;
        }
        self.bytes.len += prefix.len();
        true
    }
}

impl Clone for Chunk {
    fn clone(&self) -> Self {
        Self { bytes: self.bytes.share() }
    }
}

impl Default for Chunk {
    fn default() -> Self {
        Self { bytes: Bytes::EMPTY }
    }
}

impl Deref for Chunk {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.bytes.as_slice()
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Vec<u8>> for Chunk {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from_vec(bytes)
    }
}

/// Bytes being filled; `freeze` turns them into a [`Chunk`] without a copy.
pub struct ChunkMut {
    bytes: Bytes,
}

impl ChunkMut {
    /// A buffer of `len` bytes, with 16 bytes of room in front for [`Chunk::try_add_prefix`].
    ///
    /// Buffers of the usual sizes come from a small free list of this thread, so their content is whatever stood there
    /// before: initialised, but only zero the first time. Freeze no more than was written.
    pub fn zeroed(len: usize) -> Self {
        if len == 0 {
            return Self::default();
        }
        let header = Header::new_block(len);
        // SAFETY: a block has `HEADROOM + len` initialised bytes from `base` on, and we own its one reference.
        let start = unsafe { header.as_ref().base().add(HEADROOM) };
        Self { bytes: Bytes { start, len, header: Some(header) } }
    }

    /// Keeps the first `len` bytes as a chunk; panics if `len` is over the buffer's.
    pub fn freeze(mut self, len: usize) -> Chunk {
        self.bytes.truncate(len);
        Chunk { bytes: self.bytes }
    }
}

impl Default for ChunkMut {
    fn default() -> Self {
        Self { bytes: Bytes::EMPTY }
    }
}

impl Deref for ChunkMut {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.bytes.as_slice()
    }
}

impl DerefMut for ChunkMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes.as_mut_slice()
    }
}

/// A buffer that the kernel chose from a provided ring and filled. Unique, so it may be written in place.
/// Dropping it gives the buffer back; `into_chunk` keeps it beyond the turn.
pub struct Lease {
    bytes: Bytes,
}

impl Lease {
    /// Shares the bytes without a copy; the buffer goes back when the last chunk is dropped. Only up to
    /// [`Lease::SMALL`] bytes of a pooled buffer are copied to the heap instead, and the buffer goes back at once.
    pub fn into_chunk(self) -> Chunk {
        if self.len() <= Self::SMALL && self.pool_index().is_some() {
            // A copy, because a few bytes would pin a buffer of 64 KiB for as long as a slow reader likes, and a few
            // dozen of them the whole pool. It costs a fiftieth of the receive that brought them.
            return Chunk::copy_from(&self);
        }
        Chunk { bytes: self.bytes }
    }

    /// What does not justify holding a receive buffer: the smallest recycled heap block.
    pub const SMALL: usize = 2048;

    /// A lease over plain memory, for tests and simulated hosts.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        if bytes.is_empty() {
            return Self { bytes: Bytes::EMPTY };
        }
        let len = bytes.len();
        let header = Header::new_vector(bytes);
        Self {
            bytes: Bytes {
                // SAFETY: the header is fresh and alive.
                start: unsafe { header.as_ref() }.base(),
                len,
                header: Some(header),
            },
        }
    }

    /// Drops the first `n` bytes; panics if `n > len()`.
    pub fn advance(&mut self, n: usize) {
        self.bytes.advance(n);
    }

    /// Keeps the first `n` bytes; panics if `n > len()`.
    pub fn truncate(&mut self, n: usize) {
        self.bytes.truncate(n);
    }

    /// A handle to `start..start + len` of the memory behind `header`.
    ///
    /// # Safety
    /// The range is initialised and inside that memory; the caller hands over one reference, the only one.
    pub(crate) unsafe fn from_raw(header: NonNull<Header>, start: NonNull<u8>, len: usize) -> Self {
        Self { bytes: Bytes { start, len, header: Some(header) } }
    }

    /// The pool of a pooled buffer and the position in it.
    pub(crate) fn pool_index(&self) -> Option<(NonNull<PoolShared>, u16)> {
        self.bytes.header.and_then(|header| {
            // SAFETY: we hold a reference, so the header is alive.
            unsafe { header.as_ref() }.pool_index()
        })
    }

    /// The first byte, for an operation that keeps this lease until it is complete.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.bytes.start.as_ptr()
    }
}

impl Deref for Lease {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.bytes.as_slice()
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes.as_mut_slice()
    }
}

macro_rules! debug_as_length {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Payload is not for logs: the length says enough.
                write!(f, concat!(stringify!($name), "({} bytes)"), self.bytes.len)
            }
        }
    )*};
}
debug_as_length!(Chunk, ChunkMut, Lease);

const _: () = assert!(size_of::<Chunk>() == 24 && size_of::<Option<Chunk>>() == 24);
