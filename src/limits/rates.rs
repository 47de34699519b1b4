//! Bounds of rate limits, of lists of networks, and of what a proxy in front says.

/// Rate limits of one configuration: a request is held against each that applies to its route.
pub const RATE_LIMITS: usize = 16;

/// One key that a rate limit remembers: a word of 64 bits.
pub const RATE_KEY_BYTES: u64 = 8;

/// Networks in one list, those of its file included. Compiled, one takes two boundaries of 16 bytes at most: 3.2 MB in all.
pub const LIST_NETWORKS: usize = 100_000;

/// Bytes of a file of networks: every network of a full list in its longest form has room.
pub const LIST_FILE_BYTES: u64 = 8 << 20;

/// Bytes of a header of the PROXY protocol that is read. Senders need 232 for the addresses (doc/proxy-protocol.txt §2.2); the
/// rest is room for extensions, of which clients' certificates are the longest. With what one receive brings behind it, that is
/// all a connection holds before the header is whole: 68 KiB, less than one of HTTP/2 over TLS may later
/// ([`h2::CONNECTION_BYTES`](super::h2::CONNECTION_BYTES) and its queues).
pub const PROXY_HEADER_BYTES: usize = 4_096;
