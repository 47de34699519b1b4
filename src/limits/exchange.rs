//! Bounds of one exchange and of one turn.

use std::time::Duration;

/// A request that waits for room at its upstream, beside its exchange: what it and its client take in tables that grow by
/// doubling.
pub const QUEUE_PLACE_BYTES: u64 = 256;

/// A client with requests in flight, where they are limited by address: its entry in a table that grows by doubling.
pub const INFLIGHT_ADDRESS_BYTES: u64 = 64;

/// How often control looks at how much of what there is is in use.
pub const PRESSURE_EVERY: Duration = Duration::from_millis(250);

/// How often control looks at how upstreams answer, where that decides what they are given.
pub const ADMISSION_EVERY: Duration = Duration::from_millis(50);

/// Events of one owner in one pass of a turn; then the others have their go.
pub const EVENTS_PER_OWNER: usize = 256;

/// Trains of datagrams that one client connection sends in one turn.
pub const TRAINS_PER_TURN: usize = 4;

/// Body bytes of one request that wait for the origin's socket, and so what a client may send ahead of it.
pub const REQUEST_QUEUE_BYTES: usize = 256 * 1024;

/// Response bytes that may be left to the protocol's queue when an exchange ends: a small response is over as soon as it
/// is queued. A client that reads none of them holds this for each of its streams: 128 × 16 KiB = 2 MiB.
pub const RESPONSE_TAIL_BYTES: usize = 16 * 1024;

/// How long an origin may take to say 100 (Continue) before we say it for it. Clients wait for a second or so themselves, if
/// they do not wait for ever.
pub const CONTINUE_WAIT: Duration = Duration::from_millis(500);

/// Bytes of an answer that is dropped for another attempt, read so that its connection can be used again; above that a new
/// connection costs less.
pub const DISCARD_BYTES: usize = 16 * 1024;

/// How long answers that were given at the end of a drain may take to leave, above its own bound.
pub const CUT_GRACE: Duration = Duration::from_millis(200);

/// This part of the receive pool is for what moves: when only that is left, what stands still is copied out of it.
pub const POOL_RESERVE: usize = 4;

/// How long bytes may stand still in a receive pool that is nearly dry: longer than a response that moves takes for one
/// buffer, shorter than anybody notices.
pub const POOL_RELIEF: Duration = Duration::from_millis(5);
