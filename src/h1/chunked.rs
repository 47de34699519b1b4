//! The chunked transfer coding (RFC 9112 §7.1): a decoder that only measures, and the encoder's two lines.
//!
//! The decoder never sees a body byte twice and never copies one: told of the bytes at hand, it answers how many of
//! them are framing and how many of the following ones are body. It may stop and go on at any byte. The trailer
//! section behind the last chunk has the form of a head's fields and is read by [`super::input`].
//!
//! Strict where two readers of the same bytes could disagree: CRLF only, 1 to 16 hexadecimal digits, no blanks after
//! the size except before an extension. Extensions are skipped, within bounds.

use crate::limits;

/// Sizes are at most `u64`, so more digits than this are an overflow or padding, both refused.
const SIZE_DIGITS_MAX: u8 = 16;

/// What stands at the front of the bytes at hand, after the framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Nothing more: bring the next bytes.
    More,
    /// This many body bytes (never 0).
    Body(usize),
    /// Body bytes, but no room was given for them.
    Blocked,
    /// The trailer section.
    Trailers,
}

/// Why the coding cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub &'static str);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Reading the digits of a size.
    Size { size: u64, digits: u8 },
    /// Behind a blank after the size: only more blanks or an extension may follow.
    Blank { size: u64 },
    /// Inside an extension, up to CR.
    Extension { size: u64 },
    /// Behind the CR of a size line.
    SizeEnd { size: u64 },
    /// Inside a chunk. Invariant: `left > 0`.
    Body { left: u64 },
    /// Behind the last body byte of a chunk.
    BodyCr,
    /// Behind the CR that follows a chunk.
    BodyLf,
    /// Behind the size line of the last chunk.
    Trailers,
}

/// Reads a chunked body. One per message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decoder {
    state: State,
    /// Bytes of extensions and blanks in this size line.
    line_extra: usize,
    /// The same over the whole message: many small extensions cost as much as a long one.
    message_extra: usize,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { state: State::Size { size: 0, digits: 0 }, line_extra: 0, message_extra: 0 }
    }

    /// Reads framing from the front of `bytes`: how many bytes of framing there are, and what follows them.
    /// At most `room` bytes are then declared body. Calls continue behind framing and body together.
    pub(super) fn decode(&mut self, bytes: &[u8], room: usize) -> Result<(usize, Piece), Malformed> {
        let mut at = 0;
        loop {
            if self.state == State::Trailers {
                return Ok((at, Piece::Trailers));
            }
            let rest = bytes.len() - at;
            if rest == 0 {
                return Ok((at, Piece::More));
            }
            if let State::Body { left } = self.state {
                if room == 0 {
                    return Ok((at, Piece::Blocked));
                }
                let body = usize::try_from(left).unwrap_or(usize::MAX).min(rest).min(room);
                self.state = match left - body as u64 {
                    0 => State::BodyCr,
                    left => State::Body { left },
                };
                return Ok((at, Piece::Body(body)));
            }
            self.state = self.step(bytes[at])?;
            at += 1;
        }
    }

    /// One byte of framing.
    fn step(&mut self, byte: u8) -> Result<State, Malformed> {
        match (self.state, byte) {
            (State::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if digits == SIZE_DIGITS_MAX {
                    return Err(Malformed("chunk size too long"));
                }
                let digit = match byte {
                    b'0'..=b'9' => byte - b'0',
                    _ => (byte | 0x20) - b'a' + 10,
                };
                Ok(State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 })
            }
            (State::Size { digits: 0, .. }, _) => Err(Malformed("chunk size without digits")),
            (State::Size { size, .. } | State::Extension { size }, b'\r') => Ok(State::SizeEnd { size }),
            (State::Size { size, .. } | State::Blank { size }, b';') => {
                self.count_extra()?;
                Ok(State::Extension { size })
            }
            (State::Size { size, .. } | State::Blank { size }, b' ' | b'\t') => {
                self.count_extra()?;
                Ok(State::Blank { size })
            }
            (State::Size { .. }, _) => Err(Malformed("not a digit in a chunk size")),
            (State::Blank { .. }, _) => Err(Malformed("blanks after a chunk size")),
            (State::Extension { size }, b'\t' | b' '..=b'~' | 0x80..) => {
                self.count_extra()?;
                Ok(State::Extension { size })
            }
            (State::Extension { .. }, _) => Err(Malformed("control byte in a chunk extension")),
            (State::SizeEnd { size }, b'\n') => {
                self.line_extra = 0;
                Ok(match size {
                    0 => State::Trailers,
                    left => State::Body { left },
                })
            }
            (State::SizeEnd { .. }, _) => Err(Malformed("CR without LF after a chunk size")),
            (State::BodyCr, b'\r') => Ok(State::BodyLf),
            (State::BodyLf, b'\n') => Ok(State::Size { size: 0, digits: 0 }),
            (State::BodyCr | State::BodyLf, _) => Err(Malformed("chunk is longer than its size")),
            // `decode` never steps in these two.
            (State::Body { .. } | State::Trailers, _) => Err(Malformed("not framing")),
        }
    }

    fn count_extra(&mut self) -> Result<(), Malformed> {
        self.line_extra += 1;
        self.message_extra += 1;
        if self.line_extra > limits::H1_CHUNK_EXTENSION_BYTES || self.message_extra > limits::H1_MESSAGE_EXTENSION_BYTES
        {
            return Err(Malformed("chunk extensions too long"));
        }
        Ok(())
    }
}

/// Writes the size line of a chunk of `len` bytes; `len` is not 0, that would end the body.
pub(super) fn put_size(to: &mut Vec<u8>, len: usize) {
    debug_assert!(len > 0);
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4);
    for digit in (0..digits).rev() {
        to.push(b"0123456789abcdef"[len >> (digit * 4) & 0xf]);
    }
    to.extend_from_slice(b"\r\n");
}

/// What follows the bytes of a chunk.
pub(super) const CHUNK_END: &[u8] = b"\r\n";

/// The last chunk; the trailer section and its empty line follow.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n";

#[cfg(test)]
#[path = "chunked/tests.rs"]
mod tests;
