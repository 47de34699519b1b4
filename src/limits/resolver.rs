//! Bounds of resolving names, all of them on the control thread, and of what workers keep of the result.

use std::time::Duration;

/// Bytes of a name that can be resolved, without the root's dot (RFC 1035 §2.3.4).
pub const HOST_NAME_BYTES: usize = 253;

/// Servers that are asked, at most; glibc takes three.
pub const RESOLVER_SERVERS: usize = 8;

/// Domains of a search list; more are left out.
pub const RESOLVER_SEARCH: usize = 16;

/// Questions on their way at once, a socket and at most one answer each; further names wait for their turn.
pub const RESOLVER_QUESTIONS: usize = 64;

/// One of them: an answer over TCP, one receive beyond it, and the question itself.
pub const RESOLVER_QUESTION_BYTES: u64 = (2 * RESOLVER_ANSWER_BYTES + 1024) as u64;

/// Bytes of an answer over TCP; a longer one counts as none. Enough for 500 addresses.
pub const RESOLVER_ANSWER_BYTES: usize = 16 << 10;

/// Records of an answer that are read; one that announces more counts as malformed.
pub const RESOLVER_RECORDS: usize = 512;

/// Links of a chain of aliases in one answer.
pub const RESOLVER_ALIASES: usize = 16;

/// Datagrams that answer another question than the one asked, for each question: then it is asked again over TCP, where
/// nobody can guess.
pub const RESOLVER_STRANGERS: u32 = 8;

/// Wait after a failed resolution, doubled with each further one in a row, less up to a quarter by chance.
pub const RESOLVER_RETRY_FIRST: Duration = Duration::from_secs(1);

/// And at most this long.
pub const RESOLVER_RETRY_MOST: Duration = Duration::from_secs(30);

/// Bytes of /etc/resolv.conf and of /etc/hosts that are read.
pub const RESOLVER_FILE_BYTES: u64 = 1 << 20;

/// Addresses kept for a name, in control and in each worker.
pub const ENDPOINTS: usize = 64;

/// One of them with what a worker has seen of it.
pub const ENDPOINT_BYTES: u64 = 64;

/// Addresses of a backend that one attempt tries: at 250 ms each, more would not have their turn within a usual
/// `backend_connect_timeout`, but those that refuse at once cost nothing.
pub const DIAL_ADDRESSES: usize = 8;

/// How long after the one before it the next address is tried too (RFC 8305 §5, Connection Attempt Delay).
pub const DIAL_DELAY: Duration = Duration::from_millis(250);

/// How long an address that did not accept, or lost a race it had begun first, stands behind the others.
pub const DIAL_PENALTY: Duration = Duration::from_secs(10);
