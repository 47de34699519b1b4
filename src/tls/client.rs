//! Owns one connection to a backend: the handshake, then its bytes.

use super::client_context::ClientContext;
use super::engine::Engine;
use super::fault::Fault;
use super::names;
use super::settings::Alpn;
use crate::http::Output;
use crate::identity::Handshake;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use spooky_uring::{Chunk, Lease};
use std::fmt;

/// One connection to a backend.
pub struct ClientSession {
    engine: Box<Engine<UnbufferedClientConnection>>,
    /// Nothing is received or sent any more.
    over: bool,
}

impl fmt::Debug for ClientSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSession").field("handshaking", &self.is_handshaking()).finish_non_exhaustive()
    }
}

impl ClientSession {
    /// A connection to a backend of this name (a host name, or an address with or without brackets), which is what its
    /// certificate has to name.
    ///
    /// # Errors
    /// If the name is neither, or the library refuses.
    pub fn new(context: &ClientContext, name: &str) -> Result<Self, Fault> {
        let refused = |text: String| Fault::new(super::Side::Us, super::FaultKind::Internal, text);
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let bare = bare.strip_suffix('.').unwrap_or(bare);
        let server = ServerName::try_from(bare.to_owned())
            .map_err(|_| refused(format!("\"{name}\" is neither a host name nor an address")))?;
        let library = UnbufferedClientConnection::new(context.config(), server)
            .map_err(|error| refused(format!("a handshake with \"{name}\" cannot begin: {error}")))?;
        Ok(Self { engine: Box::new(Engine::new(library)), over: false })
    }

    /// Puts the first message into `out`. To be called once, when the socket is connected.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn start(&mut self, out: &mut Output) -> Result<(), Fault> {
        self.engine.start(out)
    }

    /// Takes what came from the socket. Content goes to `plain`, as parts of the same memory where records are whole in it;
    /// what the handshake answers goes to `out`.
    ///
    /// # Errors
    /// What ends the connection: [`Fault::tells`] says whether an alert is in `out`, to be sent before it is closed. Content
    /// from before the fault has gone to `plain`.
    pub fn receive(&mut self, lease: Lease, mut plain: impl FnMut(Chunk), out: &mut Output) -> Result<(), Fault> {
        if self.over {
            return Ok(());
        }
        let received = self.engine.receive(lease, &mut plain, out);
        self.over = received.is_err();
        received
    }

    /// Seals all of `plain` into `out`. While the handshake runs, everything stays where it is.
    ///
    /// # Errors
    /// What ends the connection.
    pub fn send(&mut self, plain: &mut Output, out: &mut Output) -> Result<(), Fault> {
        if self.over { Ok(()) } else { self.engine.send(plain, out) }
    }

    /// Says that we send no more; nothing may be sent after it.
    pub fn close_notify(&mut self, out: &mut Output) {
        if !self.over {
            self.engine.close(out);
        }
    }

    /// The backend's FIN.
    ///
    /// # Errors
    /// If the backend did not say before that it sends no more: [`FaultKind::Closed`](super::FaultKind::Closed) in the
    /// handshake, and [`FaultKind::Truncated`](super::FaultKind::Truncated) after it, where what came last may be cut.
    pub fn receive_end(&mut self) -> Result<(), Fault> {
        if self.over { Ok(()) } else { self.engine.receive_end() }
    }

    /// Whether the backend said that it sends no more: what a FIN says on a connection without TLS.
    pub fn peer_closed(&self) -> bool {
        self.engine.peer_closed()
    }

    /// Whether the handshake is not done.
    pub fn is_handshaking(&self) -> bool {
        !self.over && self.engine.is_handshaking()
    }

    /// The protocol above; `None` where the backend chose none, which means HTTP/1.1.
    pub fn alpn(&self) -> Option<Alpn> {
        Alpn::of(self.engine.state().alpn_protocol())
    }

    /// What the handshake ended with, in the words of the server side; the server name is known to who made the session.
    pub fn handshake(&self) -> Handshake {
        let state = self.engine.state();
        Handshake {
            version: names::version(state),
            cipher: names::cipher(state),
            group: names::group(state),
            resumed: names::resumed(state),
            ..Handshake::default()
        }
    }

    /// The server's own certificate.
    #[cfg(test)]
    pub(super) fn leaf(&self) -> Option<Vec<u8>> {
        self.engine.state().peer_certificates()?.first().map(|leaf| leaf.to_vec())
    }

    /// Has the next record announce other keys.
    #[cfg(test)]
    pub(super) fn update_keys(&mut self) {
        self.engine.update_keys();
    }

    /// Bytes of incomplete records and messages.
    #[cfg(test)]
    pub(super) fn waiting_bytes(&self) -> usize {
        self.engine.waiting_bytes()
    }
}
