//! Bounds of TLS over TCP, on either side of a connection.

use std::time::Duration;

/// Bytes of one record in all: 5 of header, 16,384 of content, 256 of what its protection adds (RFC 8446 §5.2; TLS 1.2
/// permits 2,048, which no cipher we offer needs).
pub const TLS_RECORD_BYTES: usize = 5 + 16_384 + 256;

/// Handshakes of clients that one worker has under way over TCP; for one more the oldest silent one makes room. Each keeps
/// [`TLS_SERVER_KEPT_BYTES`] at most, and 16 KiB without a client certificate: some 16 MiB.
pub const TLS_HANDSHAKES: usize = 1024;

/// How long a client in a handshake may be silent before it makes room for another. Without it a flood of handshakes would
/// be one of signatures; with it a worker makes 1,024 a second for those who do not go on with them, and refuses the rest.
pub const TLS_HANDSHAKE_GRACE: Duration = Duration::from_secs(1);

/// Handshakes over TCP that one worker goes on with in a turn; more wait for the next. 8 × 0.2 ms.
pub const HANDSHAKES_PER_TURN: usize = 8;

/// Bytes of the records of a ClientHello, which are kept until it is whole. Usual ones have under 2 KiB, of which a hybrid
/// key share is 1.2 KiB.
pub const TLS_HELLO_BYTES: usize = 16 * 1024;

/// Records that a ClientHello may be cut into; they are walked again with each read. Clients that cut it to escape a filter
/// make a handful.
pub const TLS_HELLO_RECORDS: usize = 64;

/// Bytes that a handshake message of a client may keep with its records. The certificates of a client
/// ([`CLIENT_CERTIFICATES_BYTES`](super::quic::CLIENT_CERTIFICATES_BYTES)) are the longest, with one record behind them.
pub const TLS_SERVER_KEPT_BYTES: usize = super::quic::CLIENT_CERTIFICATES_BYTES + 1024 + TLS_RECORD_BYTES;

/// The same of a backend. Chains with many names are longer, and backends are ours to choose.
pub const TLS_CLIENT_KEPT_BYTES: usize = 64 * 1024 + TLS_RECORD_BYTES;

/// Records without a byte of content for us: the handshake's, and tickets, key updates and empty ones after it. One more is
/// permitted for every [`TLS_BYTES_PER_EMPTY_RECORD`] received. A handshake has ten or so.
pub const TLS_EMPTY_RECORDS: u32 = 256;

/// See [`TLS_EMPTY_RECORDS`]; a thousand times more bytes than a peer that changes its keys lets pass in between.
pub const TLS_BYTES_PER_EMPTY_RECORD: u64 = 16 * 1024;

/// Sessions that one client context remembers, over all of its servers. 256 × 2 KiB = 512 KiB.
pub const TLS_CLIENT_SESSIONS: usize = 256;
/// One of them: ticket, secret, and the backend's certificates.
pub const TLS_CLIENT_SESSION_BYTES: usize = 2 * 1024;

/// An idle TLS session on either side, the library's state included, beside what the protocol above holds: 3.5 KB towards a
/// client and 3.8 KB towards a backend by `spooky-micro tls`, rounded up.
pub const TLS_SESSION_BYTES: u32 = 4 * 1024;

const _: () = assert!(TLS_HELLO_BYTES < TLS_SERVER_KEPT_BYTES, "a hello is kept like any other message");
