//! Connections over TCP, with TLS or without: a socket, the proxy's own TLS, and on it the proxy's own HTTP/2 or HTTP/1.1.
//!
//! The protocols are those of the proxy, so what both sides misunderstand alike goes unseen here: whether they are right is
//! for tests with other people's clients and servers to say. The sockets are not the proxy's: no ring, plain calls, driven by
//! readiness like those of the HTTP/3 side.
//!
//! [`dial`] is what connections have in common, [`machine`] the protocols in the same verbs; start reading at
//! [`Tcp::progress`].

mod connection;
mod dial;
mod machine;

pub use connection::Tcp;
pub use dial::Dialer;
