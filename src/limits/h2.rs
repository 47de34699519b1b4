//! Bounds of one HTTP/2 connection, on either side.
//!
//! Worst case of a connection with a client: [`CONNECTION_WINDOW`] of request bodies that wait for credit, and as much
//! again in the memory the library keeps for small frames (its own budget is half a window);
//! `streams × `[`QUEUE_BYTES`] of response bodies that wait for the client's windows; [`OUTPUT_BYTES`] and one frame on
//! their way to the socket; [`HELD_BYTES`] and one socket read of frames not looked at yet; the heads of
//! [`STREAMS`] requests being handed out. Of a connection with a backend likewise, with `streams` the ones it allows.

/// Requests one client may have open (RFC 9113 §6.5.2 recommends no less than 100).
pub const STREAMS: u32 = 128;

/// Exchanges one connection with a backend carries at most, whatever the backend allows.
pub const CLIENT_STREAMS: u32 = 128;

/// Exchanges opened on a connection before the backend's SETTINGS say how many it takes: the least that RFC 9113 §6.5.2
/// recommends to allow. What is too many is refused and safely sent again.
pub const CLIENT_STREAMS_UNSAID: usize = 100;

/// Bytes of one body that may be on their way or wait for credit: 40 Mbit/s at a round-trip time of 50 ms.
pub const STREAM_WINDOW: u32 = 256 << 10;

/// The same over all streams of one connection: eight bodies that stand still leave no room for a ninth.
pub const CONNECTION_WINDOW: u32 = 2 << 20;

/// The same towards a backend: as much as all its streams together, so that no client that reads slowly stops another's
/// response. 128 × 256 KiB = 32 MiB, only while 128 clients stand still.
pub const CLIENT_CONNECTION_WINDOW: u32 = CLIENT_STREAMS * STREAM_WINDOW;

/// A connection beside what waits in it: the library's buffers and tables of header fields. Measured as heap after requests in
/// bursts of ten (61 KiB; 37 KiB after single ones), rounded up.
pub const CONNECTION_BYTES: u32 = 64 << 10;

/// Body bytes one stream queues before its source has to wait. One more chunk may be taken above it.
pub const QUEUE_BYTES: usize = 64 << 10;

/// Bytes of the worker's receive pool that one connection may hold in its queues; above it they are copied to the heap.
pub const POOLED_BYTES: usize = 256 << 10;

/// Bytes on their way to one socket before the connection writes no more: the other side's TCP window is then what bounds
/// it, not the windows of HTTP/2, which it may set as high as it likes.
pub const OUTPUT_BYTES: usize = 128 << 10;

/// Received bytes that may wait because nothing can be written any more, before reading pauses. One socket read can come
/// on top.
pub const HELD_BYTES: usize = 64 << 10;

/// Streams a client opened and gave up within one read. The ledger is stricter over time: see [`glitch`].
pub const RESETS_UNSEEN: usize = 1_024;

/// Streams we gave up of which the library remembers that frames for them are late, not wrong.
pub const RESETS_REMEMBERED: usize = 128;

/// 1xx heads before one final head.
pub const INFORMATIONAL_MAX: usize = 16;

/// What a client (or backend) may do that has no use, before its connection is closed with ENHANCE_YOUR_CALM. Each kind of
/// `h2::Glitch` has a bucket; the arrays are in the order of its variants. Ordinary peers stay far below:
///
/// | kind | bucket | leaks per second | an ordinary peer's most |
/// |---|---|---|---|
/// | RST_STREAM frames | 1,000 | 50, and one per answered request | a closed tab with 128 requests: 1/8 |
/// | mistakes answered with RST_STREAM | 500 | 20, and one per answered request | a faulty one among many behind one proxy |
/// | CONTINUATION frames | 100 | 10, and one per answered request | a head over 16 KiB has one, and is refused |
/// | SETTINGS frames | 100 | 2 | two at the start: 1/50 |
/// | PING frames | 1,000 | 50, and one per frame of body | one a round trip while bodies move, and those are paid |
/// | frames without content | 100 | 2 | none; the library closes at 100 over the connection's life |
/// | PRIORITY frames | 1,000 | 50, and two per request | older browsers send six at the start and one per request |
/// | WINDOW_UPDATE frames | 4,000 | 200, and two per request or frame of body | two per frame of body |
/// | unknown frames | 1,000 | 50, and two per request | PRIORITY_UPDATE: one per request |
pub mod glitch {
    /// What each bucket holds.
    pub const LIMIT: [u16; 9] = [1_000, 500, 100, 100, 1_000, 100, 1_000, 4_000, 1_000];

    /// What leaks from each in a second.
    pub const LEAK: [u16; 9] = [50, 20, 10, 2, 50, 2, 50, 200, 50];

    /// Bytes from which a frame of body of ours pays for window updates: else one byte of window at a time would.
    pub const PAYING_BYTES: u32 = 128;
}

const _: () = assert!(STREAM_WINDOW <= CONNECTION_WINDOW / 4, "one body that stands still does not stop the others");
const _: () = assert!(RESETS_UNSEEN > glitch::LIMIT[0] as usize, "our ledger answers before the library does");
const _: () =
    assert!(QUEUE_BYTES >= super::STREAM_RECEIVE_BUFFER_BYTES as usize, "one receive fits what a stream may queue");
