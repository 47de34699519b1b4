//! TLS over TCP as a layer of bytes: records in, plaintext out; plaintext in, records out.
//!
//! The only user of rustls. It owns handshakes, record protection, tickets and the judgement of certificates; it refuses to
//! know sockets, timers and the protocol above. Both directions are commands: [`ServerSession::receive`] takes what came
//! from the socket and hands plaintext on, [`ServerSession::send`] takes plaintext and fills what goes to the socket.
//!
//! Read in this order: `records` (where one record ends), `engine` (what both sides share: opening in place, sealing), `hello`
//! (the server name, before there is a connection), [`ServerContexts`], [`ServerSession`], `tickets`, [`ClientContext`],
//! [`ClientSession`], `verdict` (whose certificate is good), [`Fault`].
//!
//! ```text
//! lease ─> receive ─> records opened in place ─> chunks of the same memory ─> h1, h2
//! out   <─ send    <─ records of at most 16 KiB <──────────────────────────── plain
//! ```

mod client;
mod client_context;
mod engine;
mod fault;
mod hello;
mod names;
mod records;
mod seal;
mod server;
mod server_context;
mod settings;
mod tickets;
mod verdict;

#[cfg(test)]
mod tests;

pub use client::ClientSession;
pub use client_context::{ClientContext, ClientSettings, Verify};
pub use fault::{Fault, FaultKind, Side};
pub use hello::{Hello, read_hello};
pub use server::{Acceptor, ServerSession};
pub use server_context::{ServerContexts, check_trust};
pub use settings::{Alpn, ContextError, MinVersion, ServerSettings};
