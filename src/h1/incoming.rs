//! A body on its way in: where it ends, and its bytes as slices of what was received.
//!
//! The same for requests and responses. Gives out no more than the credit it is shown, and knows nothing of heads,
//! connections or statuses: the connection turns its [`Broken`] into the reason that fits its side.

use super::chunked::{Decoder, Piece};
use super::input::{Input, Unreadable};
use super::parse::{self, Bad};
use crate::http::normalize::{self, HeadLimits};
use crate::http::{Fields, WireVersion};
use spooky_uring::Chunk;

/// How the end of a body is told (RFC 9112 §6.3).
#[derive(Debug)]
pub(super) enum Incoming {
    /// By its length. Invariant: `left > 0`.
    Length { left: u64 },
    /// By the last chunk.
    Chunked(Decoder),
    /// The last chunk came; the trailer section follows.
    Trailers,
    /// By the end of the connection.
    Close,
    /// Everything came.
    Ended,
}

/// What was found.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing that can be given out: more bytes or more credit are needed.
    Wait,
    /// Bytes of the body, never empty.
    Body(Chunk),
    /// Trailers, never empty. [`Step::End`] follows.
    Trailers(Fields),
    /// The body is over. Said again when asked again.
    End,
}

/// Why a body cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The chunked coding.
    Framing(&'static str),
    /// The trailer section.
    Trailers(&'static str),
}

impl From<Bad> for Broken {
    fn from(bad: Bad) -> Self {
        match bad {
            Bad::Malformed(detail) => Self::Trailers(detail),
            Bad::TooManyFields => Self::Trailers("too many trailers"),
        }
    }
}

impl Incoming {
    pub(super) fn length(length: u64) -> Self {
        match length {
            0 => Self::Ended,
            left => Self::Length { left },
        }
    }

    pub(super) fn chunked() -> Self {
        Self::Chunked(Decoder::new())
    }

    /// Takes the next piece from `input`, within `credit`.
    pub(super) fn step(&mut self, input: &mut Input, credit: &mut usize, limits: &HeadLimits) -> Result<Step, Broken> {
        match self {
            Self::Length { left } => {
                let body = usize::try_from(*left).unwrap_or(usize::MAX).min(input.front().len()).min(*credit);
                if body == 0 {
                    return Ok(Step::Wait);
                }
                *left -= body as u64;
                if *left == 0 {
                    *self = Self::Ended;
                }
                Ok(take(input, body, credit))
            }
            Self::Close => match input.front().len().min(*credit) {
                0 => Ok(Step::Wait),
                body => Ok(take(input, body, credit)),
            },
            Self::Chunked(_) => self.step_chunked(input, credit, limits),
            Self::Trailers => self.step_trailers(input, limits),
            Self::Ended => Ok(Step::End),
        }
    }

    fn step_chunked(&mut self, input: &mut Input, credit: &mut usize, limits: &HeadLimits) -> Result<Step, Broken> {
        let Self::Chunked(decoder) = self else {
            return Ok(Step::Wait);
        };
        while !input.is_empty() {
            let (framing, piece) =
                decoder.decode(input.front(), *credit).map_err(|malformed| Broken::Framing(malformed.0))?;
            input.skip(framing);
            match piece {
                Piece::More => {}
                Piece::Blocked => break,
                Piece::Body(body) => return Ok(take(input, body, credit)),
                Piece::Trailers => {
                    *self = Self::Trailers;
                    return self.step_trailers(input, limits);
                }
            }
        }
        Ok(Step::Wait)
    }

    /// What is wrong with the bytes in hand when no more will come; `None`: nothing but that they are too few.
    pub(super) fn cut(&self, input: &Input, limits: &HeadLimits) -> Option<Broken> {
        match self {
            Self::Trailers => {
                input.section_cut(|bytes| parse::trailers(bytes, limits.fields, |_| Ok::<(), Broken>(()))).err()
            }
            _ => None,
        }
    }

    fn step_trailers(&mut self, input: &mut Input, limits: &HeadLimits) -> Result<Step, Broken> {
        let section = input.section(limits.bytes, |bytes| {
            parse::trailers(bytes, limits.fields, |fields| {
                if fields.is_empty() {
                    return Ok(Fields::new());
                }
                let fields = fields.iter().map(|field| (field.name.as_bytes(), field.value));
                normalize::trailers(WireVersion::H1_1, fields, limits)
                    .map_err(|refusal| Broken::Trailers(refusal.reason.token()))
            })
        });
        match section {
            Ok(None) => Ok(Step::Wait),
            Ok(Some(fields)) => {
                *self = Self::Ended;
                Ok(match fields.is_empty() {
                    true => Step::End,
                    false => Step::Trailers(fields),
                })
            }
            Err(Unreadable::TooLong { .. }) => Err(Broken::Trailers("trailer section too long")),
            Err(Unreadable::BareLf) => Err(Broken::Trailers("line ends with LF alone")),
            Err(Unreadable::Bad(broken)) => Err(broken),
        }
    }
}

fn take(input: &mut Input, body: usize, credit: &mut usize) -> Step {
    *credit -= body;
    Step::Body(input.take(body))
}
