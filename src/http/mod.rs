//! The neutral HTTP forms: heads, fields and paths, the gate that makes them, the rules of forwarding, and the one table
//! of reasons.
//!
//! It knows no connection, no socket and no clock. Read in this order: [`fields`], [`head`], [`path`], [`normalize`]
//! (wire → head, the only gate), [`forward`] (what changes between the client's head and the backend's), [`reason`] and
//! [`respond`] (our own answers), [`contract`] (what the protocol machines say).

pub mod authority;
pub mod contract;
pub mod fields;
pub mod head;
pub mod known;
pub mod list;
pub mod normalize;
pub mod path;
pub mod reason;
pub mod syntax;

pub use authority::Authority;
pub use contract::Event;
pub use fields::{FieldName, Fields};
pub use head::{Method, RequestHead, ResponseHead, Scheme, Target, WireVersion};
pub use known::Known;
pub use normalize::{HeadLimits, RequestLine, ResponseFault, WireRequest};
pub use path::{PathFault, PathPair};
pub use reason::{Reason, Refusal, Side};
