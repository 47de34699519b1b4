//! The neutral HTTP forms: heads, fields and paths, the gate that makes them, the rules of forwarding, and the one table
//! of reasons.
//!
//! It knows no connection, no socket and no clock. Read in this order: [`fields`], [`head`], [`path`], [`normalize`]
//! (wire → head, the only gate), [`forward`] (what changes between the client's head and the backend's), [`reason`] and
//! [`respond`] (our own answers), [`edits`] (what a route changes), [`parameters`] (queries, cookies and tokens), [`websocket`] (what
//! opens a tunnel), [`contract`] (what the protocol machines say), [`buckets`] (what is too often), [`output`] (what they
//! send), [`pool`] (what may wait in the worker's receive buffers).

pub mod authority;
pub mod buckets;
pub mod contract;
pub mod date;
pub mod edits;
pub mod fields;
pub mod forward;
pub mod head;
pub mod known;
pub mod list;
pub mod normalize;
pub mod output;
pub mod parameters;
pub mod path;
pub mod peer;
pub mod pool;
pub mod reason;
pub mod respond;
pub mod syntax;
#[cfg(test)]
mod testing;
pub mod trace;
pub mod websocket;

pub use authority::Authority;
pub use buckets::Buckets;
pub use contract::{Event, NO_OWNER, StreamRef};
pub use edits::Edits;
pub use fields::{FieldName, Fields};
pub use head::{Method, Protocol, RequestHead, ResponseHead, Scheme, Target, WireVersion};
pub use known::Known;
pub use normalize::{HeadLimits, RequestLine, ResponseFault, WireRequest};
pub use output::Output;
pub use path::{PathFault, PathPair};
pub use peer::Peer;
pub use pool::PoolShare;
pub use reason::{Reason, Refusal, Side};
