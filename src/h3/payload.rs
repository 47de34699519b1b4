//! Owns the buffers that stream bytes wait in: ours until quiche takes them, quiche's until the client acknowledges them,
//! the same bytes all along (no copy between the upstream's receive buffer and the cipher).
//!
//! Every payload counts in the [`Held`] of its connection for as long as it lives, so the count outlives streams and
//! exchanges. Payloads over pool memory count twice: one slow client must not hold the worker's receive pool.

use quiche::{BufFactory, BufSplit};
use spooky_uring::Chunk;
use std::cell::Cell;
use std::rc::Rc;

/// Bytes of one connection that are queued or not yet acknowledged.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// All of them.
    bytes: Cell<usize>,
    /// Those in pool memory. Invariant: pooled <= bytes.
    pooled: Cell<usize>,
}

impl Held {
    pub(super) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    pub(super) fn pooled(&self) -> usize {
        self.pooled.get()
    }
}

/// Bytes on their way to the client.
#[derive(Debug)]
pub(super) struct Payload {
    chunk: Chunk,
    held: Option<Rc<Held>>,
    pooled: bool,
}

impl Payload {
    pub(super) fn new(chunk: Chunk, pooled: bool, held: &Rc<Held>) -> Self {
        let payload = Self { chunk, held: Some(Rc::clone(held)), pooled };
        payload.count();
        payload
    }

    pub(super) fn len(&self) -> usize {
        self.chunk.len()
    }

    /// Cuts the first `at` bytes off and returns them.
    pub(super) fn split_to(&mut self, at: usize) -> Self {
        // Each byte stays counted once: in one part or in the other.
        Self { chunk: self.chunk.split_to(at), held: self.held.clone(), pooled: self.pooled }
    }

    fn count(&self) {
        if let Some(held) = &self.held {
            held.bytes.set(held.bytes.get() + self.chunk.len());
            if self.pooled {
                held.pooled.set(held.pooled.get() + self.chunk.len());
            }
        }
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        if let Some(held) = &self.held {
            held.bytes.set(held.bytes.get() - self.chunk.len());
            if self.pooled {
                held.pooled.set(held.pooled.get() - self.chunk.len());
            }
        }
    }
}

impl Clone for Payload {
    fn clone(&self) -> Self {
        let payload = Self { chunk: self.chunk.clone(), held: self.held.clone(), pooled: self.pooled };
        payload.count();
        payload
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        &self.chunk
    }
}

impl BufSplit for Payload {
    fn split_at(&mut self, at: usize) -> Self {
        let head = self.split_to(at);
        std::mem::replace(self, head)
    }
}

/// Makes quiche keep our payloads instead of copies.
#[derive(Clone, Debug, Default)]
pub(super) struct PayloadFactory;

impl BufFactory for PayloadFactory {
    type Buf = Payload;
    type DgramBuf = Vec<u8>;

    // What quiche writes itself: handshake bytes, settings, stream types.
    fn buf_from_slice(buf: &[u8]) -> Payload {
        Payload { chunk: Chunk::copy_from(buf), held: None, pooled: false }
    }

    fn dgram_buf_from_slice(buf: &[u8]) -> Vec<u8> {
        buf.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_counted_while_any_part_lives() {
        let held = Rc::new(Held::default());
        let mut payload = Payload::new(Chunk::copy_from(b"0123456789"), true, &held);
        drop(Payload::new(Chunk::copy_from(b"01"), false, &held));
        assert_eq!((held.bytes(), held.pooled()), (10, 10));
        let front = payload.split_to(4);
        assert_eq!((front.as_ref(), payload.as_ref()), (&b"0123"[..], &b"456789"[..]));
        assert_eq!(held.bytes(), 10);
        let copy = front.clone();
        assert_eq!(held.bytes(), 14);
        drop((front, copy));
        assert_eq!(held.bytes(), 6);
        let tail = BufSplit::split_at(&mut payload, 1);
        assert_eq!((payload.as_ref(), tail.as_ref()), (&b"4"[..], &b"56789"[..]));
        drop(payload);
        assert_eq!(held.bytes(), 5);
        drop(tail);
        assert_eq!((held.bytes(), held.pooled()), (0, 0));
    }
}
