//! A body on its way out: its framing, and the promise that exactly the announced length leaves.
//!
//! The same for requests and responses. A body that would break its announced length is not written: what follows on the
//! connection would be read as something else. The connection is then of no further use.

use super::chunked::{CHUNK_END, LAST_CHUNK, put_size};
use super::lines::put_field;
use crate::http::{Fields, Output};
use spooky_uring::Chunk;

/// How the end of a body is told (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// By its length. Invariant: `left > 0`.
    Length { left: u64 },
    /// By the last chunk.
    Chunked,
    /// By the end of the connection.
    Close,
    /// The message has none: what is given is not sent (a response to HEAD).
    Withheld,
    /// Everything was given.
    Ended,
}

/// More or less was given than had been announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LengthBroken(pub &'static str);

impl Outgoing {
    pub(super) fn length(length: u64) -> Self {
        match length {
            0 => Self::Ended,
            left => Self::Length { left },
        }
    }

    /// Writes a piece of the body.
    pub(super) fn body(&mut self, chunk: Chunk, out: &mut Output) -> Result<(), LengthBroken> {
        if chunk.is_empty() {
            return Ok(());
        }
        match self {
            Self::Length { left } => {
                let rest = left.checked_sub(chunk.len() as u64);
                let rest = rest.ok_or(LengthBroken("body longer than announced"))?;
                *self = Self::length(rest);
                out.push(chunk);
            }
            Self::Chunked => {
                put_size(out.gather(), chunk.len());
                out.push(chunk);
                out.gather().extend_from_slice(CHUNK_END);
            }
            Self::Close => out.push(chunk),
            Self::Withheld => {}
            Self::Ended => return Err(LengthBroken("body longer than announced")),
        }
        Ok(())
    }

    /// Ends the body with trailers. Only a chunked body can carry them; elsewhere they are dropped, as RFC 9110 §6.5.1
    /// permits.
    pub(super) fn trailers(&mut self, fields: &Fields, out: &mut Output) -> Result<(), LengthBroken> {
        if *self != Self::Chunked {
            return self.end(out);
        }
        let to = out.gather();
        to.extend_from_slice(LAST_CHUNK);
        for (name, value) in fields {
            put_field(to, name.name, value);
        }
        to.extend_from_slice(b"\r\n");
        *self = Self::Ended;
        Ok(())
    }

    /// Ends the body.
    pub(super) fn end(&mut self, out: &mut Output) -> Result<(), LengthBroken> {
        match self {
            Self::Length { .. } => return Err(LengthBroken("body shorter than announced")),
            Self::Chunked => {
                let to = out.gather();
                to.extend_from_slice(LAST_CHUNK);
                to.extend_from_slice(b"\r\n");
            }
            Self::Close | Self::Withheld | Self::Ended => {}
        }
        *self = Self::Ended;
        Ok(())
    }
}
