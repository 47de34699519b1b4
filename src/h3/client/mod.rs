//! A small HTTP/3 client: one request on one connection, for the demo's proof and for `spooky probe`.
//!
//! Not part of the data path, and a machine without I/O as the rest of this folder: its user moves datagrams and waits. It
//! shares nothing with the server side but the library. Read in this order: this file (what is asked and what comes),
//! `life` (the machine), `trust` (whose certificate is good), `facts` (what can be told of the connection), `path` (the
//! change of the local port), `error` (why nothing came).

mod error;
mod facts;
mod life;
mod path;
mod trust;

pub use error::ClientError;
pub use facts::{CertificateFacts, ClientFacts, Packets, RoundTrip, TlsFacts};
pub use life::{Client, Stage};
pub use path::Migration;
pub use trust::{CertificateFault, FaultKind, Trust, count_authorities};

use std::net::SocketAddr;

/// Bytes of a datagram that may come: what UDP carries (RFC 9000 §18.2). Servers refuse a client that announces more.
pub const DATAGRAM_BYTES: usize = 65_527;

/// Bytes of a datagram that we send: every path that QUIC works on carries them (RFC 9000 §14).
pub const SEND_BYTES: usize = 1200;

/// Bytes of all field sections of a response together, as SETTINGS_MAX_FIELD_SECTION_SIZE counts them (RFC 9114
/// §4.2.2): more is an error.
pub const HEAD_BYTES: usize = 256 << 10;

/// Informational heads that are kept; more are an error.
pub const INFORMATIONAL: usize = 32;

/// What is asked.
#[derive(Debug, Clone)]
pub struct ClientRequest<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// A name, or an address without brackets: whom the certificate has to name. A name is also the handshake's SNI.
    pub host: &'a str,
    /// The method; the caller has checked that it is a token.
    pub method: &'a str,
    /// `host[:port]`.
    pub authority: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// Further fields, names in lower case; the caller has checked both.
    pub fields: &'a [(String, Vec<u8>)],
    /// The body; empty means none.
    pub body: &'a [u8],
    /// Which certificate is good.
    pub trust: Trust<'a>,
    /// What an earlier connection left to resume from: [`Client::session`].
    pub session: Option<&'a [u8]>,
    /// Bytes of response body at most.
    pub body_max: u64,
    /// Change the local port once the response began.
    pub migrate: bool,
}

impl<'a> ClientRequest<'a> {
    /// A plain GET.
    pub fn get(to: SocketAddr, host: &'a str, authority: &'a str, path: &'a str, trust: Trust<'a>) -> Self {
        Self {
            to,
            host,
            method: "GET",
            authority,
            path,
            fields: &[],
            body: &[],
            trust,
            session: None,
            body_max: 64 << 20,
            migrate: false,
        }
    }
}

/// Names and values as they came; text that is no UTF-8 has replacement characters.
pub type FieldList = Vec<(String, String)>;

/// What came.
#[derive(Debug, Clone, Default)]
pub struct ClientResponse {
    /// The final status; 0: none came.
    pub status: u16,
    /// Fields of the final head.
    pub fields: FieldList,
    /// Informational heads before it.
    pub informational: Vec<(u16, FieldList)>,
    /// Fields behind the body.
    pub trailers: FieldList,
    /// What came of the body and was not taken yet ([`Client::take_body`]).
    pub body: Vec<u8>,
    /// Bytes of body in all.
    pub body_bytes: u64,
}
