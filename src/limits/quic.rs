//! Bounds of one QUIC connection and of one worker's QUIC endpoint. All of them are per worker or smaller, so the worst
//! case of a worker is `connections × (max_data + QUEUE_BYTES × streams)`, and of its receive pool
//! `connections × POOLED_BYTES` until the pool itself is dry.

use std::time::Duration;

/// Response bytes one stream queues before its upstream has to wait. One more chunk may be taken above it.
pub const QUEUE_BYTES: usize = 64 << 10;

/// Bytes of pool memory one connection may hold, queued or not yet acknowledged; above it they are copied to the
/// heap. A worker's receive pool has about 3 MiB: twelve stalled clients could hold it.
pub const POOLED_BYTES: usize = 256 << 10;

/// Largest piece of a request body handed out at once.
pub const BODY_PIECE_BYTES: usize = 64 << 10;

/// Connections of one worker.
pub const CONNECTIONS: usize = 100_000;

/// Of these, in handshake, for each listener. Each costs [`super::HALF_OPEN_BYTES`] and 150 µs of a core. At a round-trip time of
/// 75 ms these are 13,000 new connections per second, twice what one core can do.
pub const HALF_OPEN: usize = 1_000;

/// Those that were told to make room for others and are not gone yet; they go in the same turn. With them all handshakes of a
/// listener hold 32 MiB.
pub const HALF_OPEN_LEAVING: usize = 24;
const _: () = assert!((HALF_OPEN + HALF_OPEN_LEAVING) * super::HALF_OPEN_BYTES as usize <= 32 << 20);

/// How long a handshake is safe from making room for another. Without it a flood of first packets would be one of signatures; with
/// it a worker makes 1,000 a second for those who do not go on with them, and refuses the rest.
pub const HALF_OPEN_GRACE: Duration = Duration::from_secs(1);

/// Bytes of the certificates a client may show. A usual chain of three has under 4 KiB; as fields for a backend they are a
/// third longer, and origins take heads of 8 to 32 KiB.
pub const CLIENT_CERTIFICATES_BYTES: usize = 16 << 10;
/// The part of the handshakes, one in so many, above which `retry = "auto"` wants addresses proved first: 500 of 1,000, which is
/// 6,700 new connections per second at a round-trip time of 75 ms, what one core can do.
pub const RETRY_SHARE: usize = 2;

/// How long a client may take to come back after a Retry: several round trips of the slowest path.
pub const RETRY_TOKEN_LIFE: Duration = Duration::from_secs(10);

/// How far the clocks of two processes that share a secret may differ.
pub const TOKEN_CLOCK_SKEW: Duration = Duration::from_secs(2);

/// Stateless resets one listener of one worker sends in a second; what is above goes unanswered. A crash leaves so many
/// clients that each has an answer within some of its retransmissions, and noise is not answered without end.
pub const RESETS_PER_SECOND: u32 = 1_000;

/// Addresses one listener of one worker keeps account of, when limits per address are set. When all of them matter,
/// connections of further addresses are not limited by address.
pub const ADDRESSES: usize = 65_536;

/// Memory of one of them: key and entry are 33 bytes, the table is half full at worst, and holds both its old and its new
/// memory while it grows.
pub const ADDRESS_BYTES: u32 = 100;

/// The part of the idle timeout, one in so many, after which a silent client with running requests is asked whether it is there:
/// the question can be lost and repeated before either end gives up.
pub const KEEP_ALIVE_PART: u32 = 3;

/// Nobody is asked more often than this, whatever idle timeout a client announces. A third of the shortest that can be
/// configured, one second, is longer.
pub const KEEP_ALIVE_LEAST: Duration = Duration::from_millis(300);

/// Packets of one train: what one send with UDP_SEGMENT can carry on every kernel.
pub const TRAIN_PACKETS: usize = 64;

/// Bytes of one train: the largest UDP payload over IPv4 is 65,507.
pub const TRAIN_BYTES: usize = 65_000;

/// The largest datagram a client may send (`max_udp_payload_size`, RFC 9000 §18.2): what an Ethernet frame holds, since
/// one that reached the wrong worker is copied whole.
pub const DATAGRAM_BYTES: usize = 1_500;

/// Addresses that one client may have in the life of a connection, each some 3 KiB (quiche 0.30 forgets none), and
/// connection IDs of the client's. Packets from further ones are dropped.
pub const PATHS: usize = 8;

/// Connection IDs of ours that a client has at once: the one it uses and some to move with.
pub const CONNECTION_IDS: usize = 4;
const _: () = assert!(CONNECTION_IDS <= PATHS, "the transport counts both against one limit");

/// Unidirectional streams a client may open: control, two for QPACK, and a few greased ones.
pub const UNI_STREAMS: u64 = 16;

/// Receive window of each of those.
pub const UNI_STREAM_BYTES: u64 = 16 << 10;

/// Distinct close causes counted by name; more are counted together.
pub const CLOSE_CAUSES: usize = 128;

/// Response bytes of one connection that may be on their way on the shortest path; longer ones are allowed twice what
/// they hold. A usual client's socket buffer takes it at once: 212 KiB hold 92 datagrams of up to an Ethernet's size, and
/// these are 73.
pub const FLIGHT_BYTES: usize = 96 << 10;

/// A UDP payload that every path carries which carries QUIC at all (RFC 9000 §14.1).
pub const SAFE_UDP_PAYLOAD: u16 = 1200;

/// Timeouts in a row without an acknowledgement after which a path is taken for one that no longer carries large packets
/// (RFC 8899 §4.3); the third probe is then a small one.
pub const SILENT_TIMEOUTS: u8 = 2;

/// What a client may do that has no use, before its connection is closed with H3_EXCESSIVE_LOAD. Each kind of `h3::Glitch`
/// has a bucket; the arrays are in the order of its variants. Ordinary clients stay far below:
///
/// | kind | bucket | leaks per second | an ordinary client's most |
/// |---|---|---|---|
/// | resets before the answer is whole | 1,000 | 50, and one per answered request | a closed tab with 128 requests: 1/8 |
/// | malformed requests | 500 | 20, and one per answered request | a faulty one among the many behind one proxy |
/// | packets that bring nothing | 5,000 | 500 | some PINGs a minute, lost probes: 1/100 |
/// | PATH_CHALLENGE frames | 200 | 5 | one or two each time it moves: 1/50 |
/// | connection IDs retired | 200 | 5 | one each time it moves: 1/100 |
/// | frames without content | 64 KiB | 1 KiB | greased frames and priorities, some KiB: 1/16 |
/// | bytes that were neither body nor head | twice `max_data` | 256 KiB | a lost packet holds back one window: 1/2 |
pub mod glitch {
    /// What each bucket holds.
    pub const LIMIT: [u16; 6] = [1_000, 500, 5_000, 200, 200, 4_096];

    /// What leaks from each in a second.
    pub const LEAK: [u16; 6] = [50, 20, 500, 5, 5, 64];

    /// Bytes of empty frames in one unit of their bucket.
    pub const FRAME_STEP: u32 = 16;

    /// Unexplained bytes that are forgotten in a second.
    pub const BYTES_LEAK: i32 = 256 << 10;

    /// Unexplained bytes above which turns are looked at: 14 full packets.
    pub const LOOK_BYTES: i32 = 16 << 10;

    /// Connection windows of bytes that may stay unexplained: one is a gap in a stream, which a lost packet leaves.
    pub const WINDOWS: u64 = 2;

    /// Bytes that are excused in advance at most, for uploads that were refused while they came.
    pub const BYTES_EXCUSED: i32 = 8 << 20;

    /// A packet with so many bytes is paid for by them.
    pub const FULL_PACKET_BYTES: u32 = 600;

    /// Bytes of each packet that are its own: header, tag, an acknowledgement.
    pub const PACKET_BYTES: u32 = 64;

    /// Packets without much in them that come with a request: its own, and acknowledgements of a small answer.
    pub const PACKETS_PER_REQUEST: u16 = 8;
}
