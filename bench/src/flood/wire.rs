//! One connection of the attacker over TCP, with TLS or without: what is given leaves as it is, when the kernel takes it.
//!
//! TLS is the proxy's own; what it carries is the flood's. Plain calls without a ring: the attacker has nothing to prove.

use super::SILENCE;
use crate::machine::Failure;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{setsockopt, sockopt};
use spooky::http::Output;
use spooky::tls::{Alpn, ClientContext, ClientSession, ClientSettings, MinVersion, Verify};
use spooky_uring::{Chunk, Lease};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);
/// One read takes so much.
const READ_BYTES: usize = 16 << 10;

/// What connections are made with, for one protocol.
pub struct Dialer {
    to: SocketAddr,
    name: String,
    context: ClientContext,
    protocol: Alpn,
    /// The kernel's receive buffer, if not its own choice.
    pub receive_buffer: Option<usize>,
}

impl Dialer {
    pub fn new(to: SocketAddr, name: &str, protocol: Alpn) -> Result<Self, Failure> {
        let settings = ClientSettings { protocols: vec![protocol], ..ClientSettings::new(Verify::Off) };
        let settings = ClientSettings { min_version: MinVersion::Tls12, ..settings };
        let context = ClientContext::new(&settings)?;
        Ok(Self { to, name: name.to_owned(), context, protocol, receive_buffer: None })
    }

    /// A socket and nothing more.
    pub fn connect(&self) -> Result<Wire, Failure> {
        let socket = TcpStream::connect_timeout(&self.to, SILENCE)?;
        socket.set_nodelay(true)?;
        if let Some(bytes) = self.receive_buffer {
            setsockopt(&socket, sockopt::RcvBuf, &bytes)?;
        }
        socket.set_nonblocking(true)?;
        let now = Instant::now();
        let (sealed, moved) = (Output::new(), now);
        Ok(Wire { socket, tls: None, sealed, leaving: None, moved, came: Vec::new(), end: None, bytes: 0 })
    }

    /// With TLS, and the protocol agreed.
    pub fn connect_secure(&self) -> Result<Wire, Failure> {
        let mut wire = self.connect()?;
        let mut tls = Box::new(self.session()?);
        tls.start(&mut wire.sealed)?;
        wire.tls = Some(tls);
        let until = Instant::now() + HANDSHAKE_PATIENCE;
        while wire.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            wire.flush();
            wire.wait(Duration::from_millis(20));
            wire.receive(usize::MAX);
            if wire.end.is_some() || Instant::now() > until {
                return Err(format!("no handshake: {}", wire.end.unwrap_or("time is up")).into());
            }
        }
        if wire.tls.as_ref().and_then(|tls| tls.alpn()) != Some(self.protocol) {
            return Err("the server does not speak that protocol".into());
        }
        Ok(wire)
    }

    /// The bytes of a ClientHello.
    pub fn hello(&self) -> Result<Vec<u8>, Failure> {
        let (mut out, mut bytes) = (Output::new(), Vec::new());
        self.session()?.start(&mut out)?;
        while let Some(chunk) = out.pop() {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn session(&self) -> Result<ClientSession, Failure> {
        // A context of its own has no session to resume: every handshake costs the server a full one.
        Ok(ClientSession::new(&self.context.for_worker(), &self.name).map_err(|fault| fault.text.to_string())?)
    }
}

/// A connection.
pub struct Wire {
    socket: TcpStream,
    tls: Option<Box<ClientSession>>,
    sealed: Output,
    leaving: Option<Chunk>,
    /// When the kernel last took or gave something.
    pub moved: Instant,
    /// What came and was not looked at.
    pub came: Vec<u8>,
    /// How it ended, if it has.
    pub end: Option<&'static str>,
    /// Bytes that the kernel took.
    pub bytes: u64,
}

impl Wire {
    /// Gives it something to send.
    pub fn send(&mut self, bytes: Vec<u8>) {
        let chunk = Chunk::from_vec(bytes);
        match &mut self.tls {
            None => self.sealed.push(chunk),
            Some(tls) => {
                let mut plain = Output::new();
                plain.push(chunk);
                if tls.send(&mut plain, &mut self.sealed).is_err() {
                    self.end = Some("cannot be sealed");
                }
            }
        }
    }

    /// Writes what the kernel takes; whether that was all.
    pub fn flush(&mut self) -> bool {
        while self.end.is_none() {
            let Some(chunk) = self.leaving.take().or_else(|| self.sealed.pop()) else {
                return true;
            };
            match self.socket.write(&chunk) {
                Ok(count) => {
                    self.bytes += count as u64;
                    self.moved = Instant::now();
                    let mut rest = chunk;
                    rest.advance(count);
                    self.leaving = Some(rest).filter(|rest| !rest.is_empty());
                }
                Err(error) => {
                    self.leaving = Some(chunk);
                    self.failed(error.kind());
                    return false;
                }
            }
        }
        false
    }

    /// Takes what came, up to so many bytes of the socket; it is in [`Self::came`] then.
    pub fn receive(&mut self, most: usize) {
        let mut left = most;
        while left > 0 && self.end.is_none() {
            let mut buffer = vec![0; READ_BYTES.min(left)];
            match self.socket.read(&mut buffer) {
                Ok(0) => self.end = Some("closed"),
                Ok(count) => {
                    self.moved = Instant::now();
                    left -= count;
                    buffer.truncate(count);
                    match &mut self.tls {
                        None => self.came.extend_from_slice(&buffer),
                        Some(tls) => {
                            let came = &mut self.came;
                            let lease = Lease::from_vec(buffer);
                            let take = |chunk: Chunk| came.extend_from_slice(&chunk);
                            if tls.receive(lease, take, &mut self.sealed).is_err() {
                                self.end = Some("broken TLS");
                            }
                        }
                    }
                }
                Err(error) => return self.failed(error.kind()),
            }
        }
    }

    /// Hears of a reset at once: whoever reads slowly would meet it behind all that came before.
    pub fn check(&mut self) {
        if let Ok(Some(error)) = self.socket.take_error() {
            self.failed(error.kind());
        }
    }

    /// Waits until something can move.
    pub fn wait(&self, patience: Duration) {
        let writes = if self.leaving.is_some() { PollFlags::POLLOUT } else { PollFlags::empty() };
        let millis = u16::try_from(patience.as_millis()).unwrap_or(u16::MAX);
        // An error shows itself at the next call.
        let _ = poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN | writes)], millis);
    }

    fn failed(&mut self, kind: ErrorKind) {
        match kind {
            ErrorKind::WouldBlock | ErrorKind::Interrupted => {}
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => self.end = Some("reset"),
            _ => self.end = Some("failed"),
        }
    }
}
