//! Received bytes that are not yet understood: chunks in order, and the start of a head that straddles them.
//!
//! A section (a head, or the trailer section of a chunked body) is parsed where it stands when one chunk holds it
//! whole, which is nearly always. Otherwise its bytes, and only its bytes, are copied into one bounded buffer, line by
//! line. Both ways give the same answer for the same bytes, wherever they were cut; the tests try every cut.
//!
//! Knows lines and empty lines, not what is in them: that is [`super::parse`]'s.

use crate::limits;
use spooky_uring::Chunk;
use std::collections::VecDeque;

/// What a section parser says of the bytes it was shown.
pub(super) enum Parsed<T, E> {
    /// The section is not at its end yet.
    Partial,
    /// The section took this many bytes.
    Complete(usize, T),
    /// It can never become a section.
    Bad(E),
}

/// Why no section can be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable<E> {
    /// It does not end within its bound.
    TooLong {
        /// Not even its first line does.
        first_line: bool,
    },
    /// A line ends with LF alone.
    BareLf,
    /// The parser refused it.
    Bad(E),
}

/// Received bytes in order.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// None is empty.
    chunks: VecDeque<Chunk>,
    /// Bytes in `chunks`.
    held: usize,
    /// The beginning of the present section when it straddles chunks; stands before `chunks`.
    section: Vec<u8>,
}

impl Input {
    pub(super) fn push(&mut self, chunk: Chunk) {
        if !chunk.is_empty() {
            self.held += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    /// Copies what waits in pool memory to the heap; its buffers go back.
    pub(super) fn unpin(&mut self) {
        for chunk in self.chunks.iter_mut().filter(|chunk| chunk.is_pooled()) {
            *chunk = Chunk::copy_from(chunk);
        }
    }

    /// Bytes that wait, those of a section's beginning included.
    pub(super) fn held(&self) -> usize {
        self.held + self.section.len()
    }

    /// Bytes that wait, but for a section's beginning: that has its own bound, and only more bytes can end it.
    pub(super) fn waiting(&self) -> usize {
        self.held
    }

    /// Whether no more should be taken. Pieces count too: a small one may keep a whole receive buffer from its pool.
    pub(super) fn is_full(&self, bytes_max: usize) -> bool {
        self.held >= bytes_max || self.chunks.len() >= limits::H1_HELD_CHUNKS
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held() == 0
    }

    /// The next bytes that lie together; empty when there are none. Not within a section.
    pub(super) fn front(&self) -> &[u8] {
        debug_assert!(self.section.is_empty());
        self.chunks.front().map_or(&[], |chunk| chunk)
    }

    /// Drops `n` bytes of the front; not more than [`Input::front`] has.
    pub(super) fn skip(&mut self, n: usize) {
        let Some(front) = self.chunks.front_mut() else {
            debug_assert_eq!(n, 0);
            return;
        };
        front.advance(n);
        self.held -= n;
        if front.is_empty() {
            self.chunks.pop_front();
        }
    }

    /// Takes `n` bytes of the front without a copy; not more than [`Input::front`] has.
    pub(super) fn take(&mut self, n: usize) -> Chunk {
        let Some(front) = self.chunks.front_mut() else {
            debug_assert_eq!(n, 0);
            return Chunk::default();
        };
        self.held -= n;
        if n < front.len() {
            return front.split_to(n);
        }
        self.chunks.pop_front().unwrap_or_default()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Reads a section of at most `bytes_max` bytes; `Ok(None)`: its end did not arrive yet.
    pub(super) fn section<T, E>(
        &mut self,
        bytes_max: usize,
        mut parse: impl FnMut(&[u8]) -> Parsed<T, E>,
    ) -> Result<Option<T>, Unreadable<E>> {
        if self.section.is_empty() {
            let Some(front) = self.chunks.front() else {
                return Ok(None);
            };
            match parse(&front[..front.len().min(bytes_max)]) {
                Parsed::Complete(used, value) => {
                    self.skip(used);
                    return Ok(Some(value));
                }
                Parsed::Bad(error) => return Err(Unreadable::Bad(error)),
                Parsed::Partial => {}
            }
        }
        self.section_straddling(bytes_max, parse)
    }

    /// What the bytes of an unfinished section are when no more will come; `Ok(())`: a beginning, as far as one sees.
    pub(super) fn section_cut<T, E>(&self, mut parse: impl FnMut(&[u8]) -> Parsed<T, E>) -> Result<(), E> {
        match parse(&self.section) {
            Parsed::Bad(error) => Err(error),
            Parsed::Partial | Parsed::Complete(..) => Ok(()),
        }
    }

    pub(super) fn check_invariants(&self) {
        let held: usize = self.chunks.iter().map(|chunk| chunk.len()).sum();
        assert_eq!(held, self.held);
        assert!(self.chunks.iter().all(|chunk| !chunk.is_empty()));
    }

    /// Copies line after line to `section`, and parses at each empty line only: a head that comes byte by byte must
    /// not cost its length squared.
    fn section_straddling<T, E>(
        &mut self,
        bytes_max: usize,
        mut parse: impl FnMut(&[u8]) -> Parsed<T, E>,
    ) -> Result<Option<T>, Unreadable<E>> {
        while let Some(front) = self.chunks.front() {
            let room = bytes_max - self.section.len();
            let line = match front.iter().position(|&byte| byte == b'\n') {
                Some(at) => at + 1,
                None => front.len(),
            };
            let taken = line.min(room);
            // Copy: the parser needs a section's bytes in one piece.
            self.section.extend_from_slice(&front[..taken]);
            self.skip(taken);
            let section = self.section.as_slice();
            if section.last() == Some(&b'\n') {
                let bare = !section.ends_with(b"\r\n");
                let empty = matches!(section, b"\r\n" | b"\n") || section.ends_with(b"\n\r\n");
                if bare || empty {
                    match parse(section) {
                        Parsed::Complete(used, value) => {
                            // An empty line ends a section, so the parser had to take all of it.
                            debug_assert_eq!(used, section.len());
                            // Freed, not kept: straddling is rare, idle connections are many.
                            self.section = Vec::new();
                            return Ok(Some(value));
                        }
                        Parsed::Bad(error) => return Err(Unreadable::Bad(error)),
                        Parsed::Partial if bare => return Err(Unreadable::BareLf),
                        Parsed::Partial => {}
                    }
                }
            }
            if self.section.len() == bytes_max {
                if let Parsed::Bad(error) = parse(&self.section) {
                    return Err(Unreadable::Bad(error));
                }
                let first_line = !self.section.contains(&b'\n');
                return Err(Unreadable::TooLong { first_line });
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
#[path = "input/tests.rs"]
mod tests;
