//! A small origin that behaves as its paths say: sized, chunked and dribbling bodies, lies about the length, resets, and a
//! sink that never reads. For scenarios that a good origin cannot play.
//!
//! It speaks HTTP/1.1 and HTTP/2, with TLS if it has a certificate. One thread for each connection: it is a tool for tens of
//! connections, not for load (nginx does that). [`action`] is what a path means, [`link`](self::link) the bytes of a
//! connection, [`h1`] and [`h2`] answer.
//!
//! | path | answer |
//! |---|---|
//! | `/bytes/N` | N bytes with content-length |
//! | `/chunked/N` | N bytes without content-length; over HTTP/1.1 in chunks of 16 KiB |
//! | `/dribble/N/MS` | N times one byte, MS milliseconds apart |
//! | `/short/N` | announces N bytes, sends half of them, closes the connection |
//! | `/reset/N` | announces N bytes, sends half of them, resets the connection; over HTTP/2 the stream |
//! | `/status/S` | status S without body |
//! | `/wait/MS` | an empty 200 after MS milliseconds |
//! | `/upload` | reads the whole request body, then says how many bytes there were |
//! | `/sink` | reads nothing of the request body and says nothing |
//! | `/early` | 413 before the request body is read |

mod action;
mod h1;
mod h2;
mod link;

use crate::machine::Failure;
use link::Link;
use spooky::identity::{ClientAuth, Identity, Site, Table, TicketKeys};
use spooky::tls::{Alpn, ServerContexts, ServerSettings};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

/// A piece of a response body.
static PIECE: [u8; 16 << 10] = [b'x'; 16 << 10];

/// What HTTP/2 begins with, as far as it takes to tell (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI";

/// Options of `origin`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Where to listen (port 0: any; the address is printed)
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Certificate chain in PEM: everything is over TLS then
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
}

/// Serves until it is killed.
pub fn run(options: &Options) -> Result<(), Failure> {
    let contexts = match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => Some(Arc::new(contexts(Identity::from_files(cert, key)?)?)),
        _ => None,
    };
    let listener =
        TcpListener::bind(options.listen).map_err(|error| format!("cannot listen on {}: {error}", options.listen))?;
    println!("origin {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let (stream, contexts) = (stream?, contexts.clone());
        // The end of a connection, clean or not, is the end of its thread and nobody else's business.
        thread::spawn(move || serve(stream, contexts.as_ref()));
    }
    Ok(())
}

fn contexts(identity: Identity) -> Result<ServerContexts, Failure> {
    let site = Site::new(Arc::new(identity), ClientAuth::default());
    // Its tickets are for itself, and die with it.
    let tickets = TicketKeys::derive(b"the bench's origin", || 0);
    Ok(ServerContexts::new(&Table::single(site), &ServerSettings::default(), &tickets)?)
}

fn serve(stream: TcpStream, contexts: Option<&Arc<ServerContexts>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut link = Link::new(stream, contexts);
    let is_h2 = if contexts.is_some() { link.handshake()? == Some(Alpn::H2) } else { link.begins_with(PREFACE)? };
    if is_h2 { h2::serve(link) } else { h1::serve(link) }
}
