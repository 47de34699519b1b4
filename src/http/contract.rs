//! Owns the words in which every protocol machine tells what it received, the same on both sides.
//!
//! Request and response are two directions of one stream: an end or an abort in one says nothing of the other. It refuses
//! to know how a machine is driven: read [`crate::h1`] and [`crate::h3`].

use super::fields::Fields;
use super::head::ResponseHead;
use super::reason::Refusal;
use spooky_uring::Chunk;

/// What a machine received on one stream. `H` is the kind of head it receives.
#[derive(Debug)]
pub enum Event<H> {
    /// The final head.
    Head {
        /// The head.
        head: H,
        /// No body and no trailers follow; there will be no [`Event::End`].
        end: bool,
    },
    /// A head that the gate refused; the stream takes nothing more from the other side.
    Refused(Refusal),
    /// A 1xx head; more heads follow.
    Informational(ResponseHead),
    /// Bytes of the body; never empty, never more than was granted.
    Body(Chunk),
    /// The trailers; [`Event::End`] follows.
    Trailers(Fields),
    /// The other side finished its direction cleanly.
    End,
    /// The other side gave up its direction, with its error code.
    Reset(u64),
    /// The other side wants no more of our direction, with its error code.
    Stop(u64),
    /// Sending was refused before and has room again.
    Room,
}

/// The owner of a stream nobody claimed.
pub const NO_OWNER: u32 = u32::MAX;

/// A stream, and who said it is theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamRef {
    /// The stream's number on its connection.
    pub stream: u64,
    /// What the connection's `set_owner` said, [`NO_OWNER`] before.
    pub owner: u32,
}
