//! The two ends of an exchange, as the exchange sees them: one closed set per side, each member a protocol machine
//! plus what names the stream on it. Adding a protocol is one variant here and one arm per verb.

use crate::h1::{self, Framing};
use crate::h2;
use crate::h3;
use crate::http::websocket::Key;
use crate::http::{Fields, Output, RequestHead, ResponseHead};
use crate::limits;
use spooky_uring::Chunk;

/// Why a direction is cut short, in neutral words; each protocol has its own code for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// Nothing is wrong; the rest is not wanted (RFC 9114 §4.1: H3_NO_ERROR).
    NotNeeded,
    /// The request was not processed at all and may be sent again.
    Rejected,
    /// The other side gave up on the exchange.
    Cancelled,
    /// The message breaks the protocol's rules.
    Malformed,
    /// The origin broke off, or we failed: the message is incomplete.
    Internal,
}

impl Abort {
    /// The code of RFC 9113 §7.
    fn h2(self) -> u64 {
        match self {
            Self::NotNeeded => h2::code::NO_ERROR,
            Self::Rejected => h2::code::REFUSED_STREAM,
            Self::Cancelled => h2::code::CANCEL,
            Self::Malformed => h2::code::PROTOCOL_ERROR,
            Self::Internal => h2::code::INTERNAL_ERROR,
        }
    }

    /// The code of RFC 9114 §8.1.
    fn h3(self) -> u64 {
        match self {
            Self::NotNeeded => h3::code::NO_ERROR,
            Self::Rejected => h3::code::REQUEST_REJECTED,
            Self::Cancelled => h3::code::REQUEST_CANCELLED,
            Self::Malformed => h3::code::MESSAGE_ERROR,
            Self::Internal => h3::code::INTERNAL_ERROR,
        }
    }
}

/// The client's end.
pub enum Downstream<'a> {
    /// A request stream of an HTTP/3 connection.
    H3 {
        /// The connection.
        connection: &'a mut h3::Connection,
        /// The stream's identifier.
        stream: u64,
    },
    /// An HTTP/1.1 connection, which carries one exchange at a time.
    H1 {
        /// The connection.
        connection: &'a mut h1::ServerConnection,
        /// What is to be written to its socket.
        out: &'a mut Output,
        /// Bytes that its socket's queue holds already.
        queued: usize,
        /// Set when the response will not be whole: HTTP/1.1 tells that by the connection's end only.
        cut: &'a mut bool,
        /// Where else the client finds us (RFC 7838).
        alt_svc: Option<&'a [u8]>,
    },
    /// A stream of an HTTP/2 connection.
    H2 {
        /// The connection.
        connection: &'a mut h2::ServerConnection,
        /// The stream's identifier.
        stream: u64,
        /// Where else the client finds us (RFC 7838).
        alt_svc: Option<&'a [u8]>,
    },
}

impl Downstream<'_> {
    /// Whether a request that is malformed gets an answer. On HTTP/2 and HTTP/3 its stream is
    /// reset instead (RFC 9113 §8.1.1, RFC 9114 §4.1.2).
    pub fn answers_malformed(&self) -> bool {
        match self {
            Self::H3 { .. } | Self::H2 { .. } => false,
            Self::H1 { .. } => true,
        }
    }

    /// Where else the client finds us: the value of Alt-Svc.
    pub fn alt_svc(&self) -> Option<&[u8]> {
        match self {
            Self::H3 { .. } => None,
            Self::H1 { alt_svc, .. } | Self::H2 { alt_svc, .. } => *alt_svc,
        }
    }

    /// Sends the final head; `end` says that no body follows.
    pub fn send_head(&mut self, head: &ResponseHead, end: bool) {
        match self {
            Self::H3 { connection, stream } => connection.send_head(*stream, head, end),
            Self::H1 { connection, out, .. } => connection.send_head(head, end, out),
            Self::H2 { connection, stream, .. } => connection.send_head(*stream, head, end),
        }
    }

    /// Sends the head that opens the tunnel which the request asked for, with its key if HTTP/1.1 brought one. Returns the
    /// status that the client gets.
    pub fn open_tunnel(&mut self, head: &ResponseHead, key: Option<Key>) -> u16 {
        match self {
            Self::H3 { connection, stream } => connection.send_head(*stream, head, false),
            Self::H1 { connection, out, cut, .. } => {
                match key {
                    Some(key) => connection.open_tunnel(head, &key, out),
                    // The gate lets no such request through.
                    None => **cut = true,
                }
                return 101;
            }
            Self::H2 { connection, stream, .. } => connection.send_head(*stream, head, false),
        }
        head.status
    }

    /// Sends an informational (1xx) head.
    pub fn send_informational(&mut self, head: &ResponseHead) {
        match self {
            Self::H3 { connection, stream } => connection.send_informational(*stream, head),
            Self::H1 { connection, out, .. } => connection.send_informational(head, out),
            Self::H2 { connection, stream, .. } => connection.send_informational(*stream, head),
        }
    }

    /// Queues body bytes; the caller keeps within [`Self::room`].
    pub fn send_body(&mut self, chunk: Chunk) {
        match self {
            Self::H3 { connection, stream } => connection.send_body(*stream, chunk),
            Self::H1 { connection, out, .. } => connection.send_body(chunk, out),
            Self::H2 { connection, stream, .. } => connection.send_body(*stream, chunk),
        }
    }

    /// Sends trailers; they end the response.
    pub fn send_trailers(&mut self, fields: &Fields) {
        match self {
            Self::H3 { connection, stream } => connection.send_trailers(*stream, fields),
            Self::H1 { connection, out, .. } => connection.send_trailers(fields, out),
            Self::H2 { connection, stream, .. } => connection.send_trailers(*stream, fields),
        }
    }

    /// Ends the response.
    pub fn end(&mut self) {
        match self {
            Self::H3 { connection, stream } => connection.end(*stream),
            Self::H1 { connection, out, .. } => connection.end(out),
            Self::H2 { connection, stream, .. } => connection.end(*stream),
        }
    }

    /// Cuts the response short; never a clean end.
    pub fn reset(&mut self, abort: Abort) {
        match self {
            Self::H3 { connection, stream } => connection.reset(*stream, abort.h3()),
            Self::H1 { cut, .. } => **cut = true,
            Self::H2 { connection, stream, .. } => connection.reset(*stream, abort.h2()),
        }
    }

    /// Tells the client that the rest of its request is not read.
    pub fn stop(&mut self, abort: Abort) {
        match self {
            Self::H3 { connection, stream } => connection.stop(*stream, abort.h3()),
            // Nobody reads it: the machine closes the connection behind the response.
            Self::H1 { .. } => {}
            Self::H2 { connection, stream, .. } => connection.stop(*stream, abort.h2()),
        }
    }

    /// Allows `bytes` more of the request's body.
    pub fn grant(&mut self, bytes: usize) {
        match self {
            Self::H3 { connection, stream } => connection.grant(*stream, bytes),
            Self::H1 { connection, .. } => connection.grant(bytes),
            Self::H2 { connection, stream, .. } => connection.grant(*stream, bytes),
        }
    }

    /// Bytes of body that may be given now.
    pub fn room(&self) -> usize {
        match self {
            Self::H3 { connection, stream } => connection.room(*stream),
            Self::H1 { out, queued, .. } => limits::CLIENT_QUEUE_BYTES.saturating_sub(out.len() + *queued),
            Self::H2 { connection, stream, .. } => connection.room(*stream),
        }
    }

    /// Bytes that were given and are still queued by the protocol.
    pub fn pending(&self) -> usize {
        match self {
            Self::H3 { connection, stream } => connection.pending(*stream),
            Self::H1 { out, queued, .. } => out.len() + *queued,
            Self::H2 { connection, stream, .. } => connection.pending(*stream),
        }
    }
}

/// The origin's end.
pub enum Upstream<'a> {
    /// An HTTP/1.1 connection, which carries one exchange at a time.
    H1 {
        /// The connection.
        connection: &'a mut h1::ClientConnection,
        /// What is to be written to its socket.
        out: &'a mut Output,
    },
    /// An HTTP/2 connection.
    H2 {
        /// The connection.
        connection: &'a mut h2::ClientConnection,
        /// The stream's identifier; 0 before there is one.
        stream: u64,
    },
}

impl Upstream<'_> {
    /// The stream that [`Self::send_head`] has opened; 0 where there is none.
    pub fn stream(&self) -> u64 {
        match self {
            Self::H1 { .. } => 0,
            Self::H2 { stream, .. } => *stream,
        }
    }

    /// Sends the request's head. `host` is what the host policy made of its authority.
    pub fn send_head(&mut self, head: &RequestHead, host: &str, framing: Framing) {
        match self {
            Self::H1 { connection, out } => connection.send_head(head, Some(host.as_bytes()), framing, out),
            Self::H2 { connection, stream } => {
                let end = matches!(framing, Framing::None | Framing::Length(0));
                *stream = connection.open(head, host, end).unwrap_or(0);
            }
        }
    }

    /// Sends the head of a request for a tunnel. `nonce` is what the key of HTTP/1.1 is made of.
    pub fn ask_tunnel(&mut self, head: &RequestHead, host: &str, nonce: &[u8; 16]) {
        match self {
            Self::H1 { connection, out } => connection.ask_tunnel(head, Some(host.as_bytes()), Key::of(nonce), out),
            Self::H2 { connection, stream } => *stream = connection.open(head, host, false).unwrap_or(0),
        }
    }

    /// Sends body bytes.
    pub fn send_body(&mut self, chunk: Chunk) {
        match self {
            Self::H1 { connection, out } => connection.send_body(chunk, out),
            Self::H2 { connection, stream } => connection.send_body(*stream, chunk),
        }
    }

    /// Sends trailers; they end the request.
    pub fn send_trailers(&mut self, fields: &Fields) {
        match self {
            Self::H1 { connection, out } => connection.send_trailers(fields, out),
            Self::H2 { connection, stream } => connection.send_trailers(*stream, fields),
        }
    }

    /// Ends the request.
    pub fn end(&mut self) {
        match self {
            Self::H1 { connection, out } => connection.end(out),
            Self::H2 { connection, stream } => connection.end(*stream),
        }
    }

    /// Allows `bytes` more of the response's body.
    pub fn grant(&mut self, bytes: usize) {
        match self {
            Self::H1 { connection, .. } => connection.grant(bytes),
            Self::H2 { connection, stream } => connection.grant(*stream, bytes),
        }
    }

    /// Request bytes that the protocol itself queues; those of the socket come on top.
    pub fn pending(&self) -> usize {
        match self {
            Self::H1 { .. } => 0,
            Self::H2 { connection, stream } => connection.pending(*stream),
        }
    }
}
