//! Owns one connection of a client: its ClientHello until the site is known, then the handshake, then its bytes.

use super::engine::Engine;
use super::fault::{Fault, FaultKind, Side};
use super::hello::{Hello, read_hello};
use super::names;
use super::server_context::ServerContexts;
use super::settings::Alpn;
use crate::http::Output;
use crate::identity::{Handshake, ShownCertificate, Standing};
use crate::limits::TLS_HELLO_BYTES;
use crate::limits::quic::CLIENT_CERTIFICATES_BYTES;
use rustls::server::UnbufferedServerConnection;
use spooky_uring::{Chunk, Lease};
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

/// What the connections of a listener on one worker begin with.
#[derive(Debug)]
pub struct Acceptor {
    contexts: RefCell<Arc<ServerContexts>>,
    /// What is told of a handshake that runs.
    unsettled: Rc<Handshake>,
}

impl Acceptor {
    /// An acceptor with the contexts of its listener.
    pub fn new(contexts: &Arc<ServerContexts>) -> Rc<Self> {
        Rc::new(Self { contexts: RefCell::new(Arc::clone(contexts)), unsettled: Rc::default() })
    }

    /// Other contexts for the next handshakes; connections keep theirs.
    pub fn set_contexts(&self, contexts: &Arc<ServerContexts>) {
        *self.contexts.borrow_mut() = Arc::clone(contexts);
    }
}

/// One connection of a client.
pub struct ServerSession {
    acceptor: Rc<Acceptor>,
    stage: Stage,
    handshake: Rc<Handshake>,
    shown: Option<Rc<ShownCertificate>>,
}

enum Stage {
    /// The ClientHello is not whole; what there is of it.
    Hello(Vec<u8>),
    /// The site is chosen.
    Chosen(Box<Connection>),
    /// Nothing is received or sent any more.
    Over,
}

struct Connection {
    engine: Engine<UnbufferedServerConnection>,
    /// What the handshake is for, until it is done.
    pending: Option<Pending>,
}

struct Pending {
    server_name: Box<str>,
    standing: Arc<Standing>,
    /// Whether a client that offers no protocol can be served: what it speaks then is HTTP/1.1.
    takes_silence: bool,
}

impl fmt::Debug for ServerSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerSession").field("handshake", &self.handshake).finish_non_exhaustive()
    }
}

impl ServerSession {
    /// A connection that was just accepted.
    pub fn new(acceptor: &Rc<Acceptor>) -> Self {
        Self {
            acceptor: Rc::clone(acceptor),
            stage: Stage::Hello(Vec::new()),
            handshake: Rc::clone(&acceptor.unsettled),
            shown: None,
        }
    }

    /// Takes what came from the socket. Content goes to `plain`, as parts of the same memory where records are whole in it;
    /// what the handshake answers goes to `out`.
    ///
    /// # Errors
    /// What ends the connection: [`Fault::tells`] says whether an alert is in `out`, to be sent before it is closed. Content
    /// from before the fault has gone to `plain`.
    pub fn receive(&mut self, lease: Lease, mut plain: impl FnMut(Chunk), out: &mut Output) -> Result<(), Fault> {
        let received = self.receive_any(lease, &mut plain, out);
        if received.is_err() {
            self.stage = Stage::Over;
        }
        received
    }

    fn receive_any(&mut self, lease: Lease, plain: &mut dyn FnMut(Chunk), out: &mut Output) -> Result<(), Fault> {
        let lease = match &mut self.stage {
            Stage::Over => return Ok(()),
            Stage::Chosen(_) => lease,
            Stage::Hello(before) => {
                // Copy: a hello that comes in pieces has to be seen whole. Usually it comes in one.
                if !before.is_empty() {
                    before.extend_from_slice(&lease);
                }
                let seen: &[u8] = if before.is_empty() { &lease } else { before };
                match seen.first() {
                    None => return Ok(()),
                    Some(20..=23) => {}
                    Some(first) => return Err(Fault::not_tls(*first)),
                }
                let name = match read_hello(seen) {
                    Hello::Incomplete => {
                        if before.is_empty() {
                            before.extend_from_slice(&lease);
                        }
                        return Ok(());
                    }
                    Hello::TooLong => return Err(Fault::too_long(TLS_HELLO_BYTES)),
                    Hello::Whole(name) => name,
                };
                let whole = std::mem::take(before);
                self.choose(name)?;
                if whole.is_empty() { lease } else { Lease::from_vec(whole) }
            }
        };
        let Stage::Chosen(connection) = &mut self.stage else { return Ok(()) };
        let result = connection.engine.receive(lease, plain, out);
        if !connection.engine.is_handshaking() {
            self.settle()?;
        }
        result
    }

    /// Makes the connection, for the site of this name.
    fn choose(&mut self, name: Option<Box<str>>) -> Result<(), Fault> {
        let contexts = self.acceptor.contexts.borrow();
        let context = contexts.find(name.as_deref());
        let library =
            UnbufferedServerConnection::new(Arc::clone(&context.config)).map_err(|error| Fault::of(&error, false))?;
        let takes_silence = context.config.alpn_protocols.iter().any(|protocol| protocol == Alpn::H1.id());
        let standing = Arc::clone(&context.standing);
        let pending = Pending { server_name: name.unwrap_or_default(), standing, takes_silence };
        let connection = Connection { engine: Engine::new(library), pending: Some(pending) };
        self.stage = Stage::Chosen(Box::new(connection));
        Ok(())
    }

    /// Notes what the handshake ended with, once.
    fn settle(&mut self) -> Result<(), Fault> {
        let Stage::Chosen(connection) = &mut self.stage else { return Ok(()) };
        let Some(pending) = connection.pending.take() else { return Ok(()) };
        let state = connection.engine.state();
        self.handshake = Rc::new(Handshake {
            standing: pending.standing,
            server_name: pending.server_name,
            version: names::version(state),
            cipher: names::cipher(state),
            group: names::group(state),
            resumed: names::resumed(state),
        });
        if state.alpn_protocol().is_none() && !pending.takes_silence {
            let text = "the client offers no protocol (ALPN), and HTTP/1.1 is not spoken here";
            return Err(Fault::new(Side::Us, FaultKind::NoProtocol, text));
        }
        let certificates = state.peer_certificates().unwrap_or_default();
        if certificates.iter().map(|der| der.len()).sum::<usize>() > CLIENT_CERTIFICATES_BYTES {
            return Err(Fault::new(
                Side::Us,
                FaultKind::TooLong,
                format!("the client's certificates have over {CLIENT_CERTIFICATES_BYTES} bytes"),
            ));
        }
        self.shown = ShownCertificate::new(certificates.iter().map(|der| &**der)).map(Rc::new);
        Ok(())
    }

    /// Seals all of `plain` into `out`. While the handshake runs, everything stays where it is.
    ///
    /// # Errors
    /// What ends the connection.
    pub fn send(&mut self, plain: &mut Output, out: &mut Output) -> Result<(), Fault> {
        match &mut self.stage {
            Stage::Chosen(connection) => connection.engine.send(plain, out),
            Stage::Hello(_) | Stage::Over => Ok(()),
        }
    }

    /// Says that we send no more; nothing may be sent after it.
    pub fn close_notify(&mut self, out: &mut Output) {
        if let Stage::Chosen(connection) = &mut self.stage {
            connection.engine.close(out);
        }
    }

    /// The client's FIN.
    ///
    /// # Errors
    /// If the client did not say before that it sends no more: [`FaultKind::Closed`] in the handshake, and
    /// [`FaultKind::Truncated`] after it, where what came last may be cut. Sending is still possible then.
    pub fn receive_end(&mut self) -> Result<(), Fault> {
        match &mut self.stage {
            Stage::Hello(bytes) => {
                let text = match bytes.is_empty() {
                    true => "the client closed the connection without a word",
                    false => "the client closed the connection in the middle of its hello",
                };
                Err(Fault::new(Side::Peer, FaultKind::Closed, text))
            }
            Stage::Chosen(connection) => connection.engine.receive_end(),
            Stage::Over => Ok(()),
        }
    }

    /// Whether the client said that it sends no more: what a FIN says on a connection without TLS.
    pub fn peer_closed(&self) -> bool {
        matches!(&self.stage, Stage::Chosen(connection) if connection.engine.peer_closed())
    }

    /// Whether the handshake is not done.
    pub fn is_handshaking(&self) -> bool {
        match &self.stage {
            Stage::Hello(_) => true,
            Stage::Chosen(connection) => connection.pending.is_some(),
            Stage::Over => false,
        }
    }

    /// The protocol above; `None` where the client offered none, which means HTTP/1.1.
    pub fn alpn(&self) -> Option<Alpn> {
        match &self.stage {
            Stage::Chosen(connection) => Alpn::of(connection.engine.state().alpn_protocol()),
            Stage::Hello(_) | Stage::Over => None,
        }
    }

    /// What the handshake ended with; nothing while it runs.
    pub fn handshake(&self) -> &Rc<Handshake> {
        &self.handshake
    }

    /// The certificate that the client showed; it was found good.
    pub fn client_certificate(&self) -> Option<Rc<ShownCertificate>> {
        self.shown.clone()
    }

    /// Whether requests for this host belong on this connection (RFC 9110 §7.4): another handshake for it would have had
    /// the same identity and asked the same of the client.
    pub fn serves(&self, host: &str) -> bool {
        self.handshake.serves(self.acceptor.contexts.borrow().standing(host))
    }

    /// Bytes of incomplete records and messages.
    #[cfg(test)]
    pub(super) fn waiting_bytes(&self) -> usize {
        match &self.stage {
            Stage::Hello(bytes) => bytes.len(),
            Stage::Chosen(connection) => connection.engine.waiting_bytes(),
            Stage::Over => 0,
        }
    }
}
