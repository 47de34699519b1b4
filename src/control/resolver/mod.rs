//! Names of backends become addresses, on control's ring: no thread, no getaddrinfo.
//!
//! Owns what is known of every name, and keeps it fresh: A and AAAA are asked for together, again when the shorter TTL is
//! over, and the last good answer is kept while there is no newer one, whatever the servers say meanwhile. It refuses to
//! know backends' health and who goes first; workers decide that (`worker::endpoints`).
//!
//! ```text
//! system    /etc/resolv.conf and /etc/hosts, read once at the start
//! message   one question and its answer on the wire                     values in, values out
//! names     all names: when to ask whom, what follows from an answer    values in, values out; the clock is handed down
//! host      sockets of the questions, news for the log and the workers
//! ```
//! Without EDNS, as the system's own resolver asks: answers over UDP have at most 512 bytes, a longer one comes over TCP.

pub mod host;
pub mod message;
pub mod names;
pub mod system;

pub use host::Resolver;
pub use names::Settings;
