//! The reactor: ring, operations, buffers, sockets, timers, mailbox. Knows nothing of HTTP.

pub mod chunk;
pub mod io;
pub mod mailbox;

pub use chunk::{Chunk, ChunkMut, Lease};
pub use io::{End, Event, Io, ListenerId, StreamAddress, StreamId, Token, Transmit, UdpId};
