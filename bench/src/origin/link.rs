//! The bytes of one connection, with TLS by the proxy's own layer or without; both directions block.

use spooky::http::Output;
use spooky::tls::{Acceptor, Alpn, ServerContexts, ServerSession};
use spooky_uring::{Chunk, Lease};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// Bytes read from the socket at once.
const READ_BYTES: usize = 64 << 10;

/// One connection.
pub struct Link {
    /// The socket below.
    pub socket: TcpStream,
    tls: Option<Box<ServerSession>>,
    /// Content that came and was not read yet.
    came: VecDeque<Chunk>,
    sealed: Output,
    input: Vec<u8>,
}

impl Link {
    /// Wraps an accepted socket.
    pub fn new(socket: TcpStream, contexts: Option<&Arc<ServerContexts>>) -> Self {
        let tls = contexts.map(|contexts| Box::new(ServerSession::new(&Acceptor::new(contexts))));
        let input = if tls.is_some() { vec![0; READ_BYTES] } else { Vec::new() };
        Self { socket, tls, came: VecDeque::new(), sealed: Output::new(), input }
    }

    /// Does the handshake: what is spoken above.
    pub fn handshake(&mut self) -> io::Result<Option<Alpn>> {
        while self.tls.as_ref().is_some_and(|session| session.is_handshaking()) {
            if !self.fetch()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.tls.as_ref().and_then(|session| session.alpn()))
    }

    /// Without TLS: whether these are the first bytes, which stay to be read.
    pub fn begins_with(&self, wanted: &[u8]) -> io::Result<bool> {
        let mut first = vec![0; wanted.len()];
        loop {
            let len = self.socket.peek(&mut first)?;
            if len == wanted.len() || len == 0 || first[..len] != wanted[..len] {
                return Ok(len > 0 && first[..len] == *wanted);
            }
        }
    }

    /// Sends all of it.
    pub fn send(&mut self, plain: &mut Output) -> io::Result<()> {
        let from = match &mut self.tls {
            Some(session) => {
                session.send(plain, &mut self.sealed).map_err(io::Error::other)?;
                &mut self.sealed
            }
            None => plain,
        };
        while let Some(chunk) = from.pop() {
            self.socket.write_all(&chunk)?;
        }
        Ok(())
    }

    /// Takes what came next from the socket and opens it; false: the end.
    fn fetch(&mut self) -> io::Result<bool> {
        let Some(session) = &mut self.tls else {
            return Ok(false);
        };
        let len = self.socket.read(&mut self.input)?;
        if len == 0 {
            return Ok(false);
        }
        let lease = Lease::from_vec(self.input[..len].to_vec());
        let received = session.receive(lease, |content| self.came.push_back(content), &mut self.sealed);
        while let Some(chunk) = self.sealed.pop() {
            self.socket.write_all(&chunk)?;
        }
        received.map(|()| !session.peer_closed() || !self.came.is_empty()).map_err(io::Error::other)
    }
}

impl Read for Link {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.tls.is_none() {
            return self.socket.read(to);
        }
        while self.came.is_empty() {
            if !self.fetch()? {
                return Ok(0);
            }
        }
        let Some(chunk) = self.came.front_mut() else {
            return Ok(0);
        };
        let len = chunk.len().min(to.len());
        to[..len].copy_from_slice(&chunk[..len]);
        chunk.advance(len);
        if chunk.is_empty() {
            self.came.pop_front();
        }
        Ok(len)
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.tls.is_none() {
            return self.socket.write(bytes);
        }
        let mut plain = Output::new();
        plain.push(Chunk::copy_from(bytes));
        self.send(&mut plain)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
