//! Bounds of one QUIC connection and of one worker's QUIC endpoint. All of them are per worker or smaller, so the worst
//! case of a worker is `connections × (max_data + QUEUE_BYTES × streams)`, and of its receive pool
//! `connections × POOLED_BYTES` until the pool itself is dry.

/// Response bytes one stream queues before its upstream has to wait. One more chunk may be taken above it.
pub const QUEUE_BYTES: usize = 64 << 10;

/// Bytes of pool memory one connection may hold, queued or not yet acknowledged; above it they are copied to the
/// heap. A worker's receive pool has about 3 MiB: twelve stalled clients could hold it.
pub const POOLED_BYTES: usize = 256 << 10;

/// Largest piece of a request body handed out at once.
pub const BODY_PIECE_BYTES: usize = 64 << 10;

/// Connections of one worker.
pub const CONNECTIONS: usize = 100_000;

/// Of these, in handshake. Each costs some 30 KiB and 150 µs of a core.
pub const HALF_OPEN: usize = 4096;

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
/// they hold. A usual client's socket buffer takes it at once (212 KiB, of which packets use about two thirds).
pub const FLIGHT_BYTES: usize = 128 << 10;
