//! Bounds of rate limits and of lists of networks.

/// Rate limits of one configuration: a request is held against each that applies to its route.
pub const RATE_LIMITS: usize = 16;

/// One key that a rate limit remembers: a word of 64 bits.
pub const RATE_KEY_BYTES: u64 = 8;

/// Networks in one list, those of its file included. Compiled, one takes two boundaries of 16 bytes at most: 3.2 MB in all.
pub const LIST_NETWORKS: usize = 100_000;

/// Bytes of a file of networks: every network of a full list in its longest form has room.
pub const LIST_FILE_BYTES: u64 = 8 << 20;
