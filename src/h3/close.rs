//! Owns the end of a connection: who ended it and why, and what its streams hear of it.

use super::code;
use super::connection::Connection;
use super::streams::{Receiving, Sending};

/// Who closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closer {
    /// The client.
    Client,
    /// We did.
    Us,
    /// Nobody spoke any more.
    Silence,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CloseCause {
    /// Who ended it.
    pub by: Closer,
    /// The code is one of HTTP/3 (RFC 9114 §8.1), not of the transport (RFC 9000 §20.1).
    pub application: bool,
    /// The code.
    pub code: u64,
}

/// CONNECTION_REFUSED (RFC 9000 §20.1).
const CONNECTION_REFUSED: u64 = 0x02;

/// APPLICATION_ERROR (RFC 9000 §20.1).
const APPLICATION_ERROR: u64 = 0x0c;

impl Connection {
    /// Whether nothing more can be received or sent but the close itself.
    pub fn is_closing(&self) -> bool {
        self.quic.is_closed() || self.quic.is_draining() || self.quic.local_error().is_some()
    }

    /// Every stream ends with its connection: each open direction gets its own event.
    pub(super) fn abort_streams(&mut self) {
        self.poll = false;
        if std::mem::replace(&mut self.aborted, true) {
            return;
        }
        self.reading.clear();
        self.sending.clear();
        self.closing = Vec::new();
        for (&id, stream) in &mut self.streams {
            stream.in_reading = false;
            stream.in_sending = false;
            stream.room = false;
            self.waiting -= stream.sealed();
            stream.clear();
            if stream.receiving == Receiving::Open {
                stream.receiving = Receiving::Closed;
                stream.reset = Some(code::REQUEST_CANCELLED);
            }
            if stream.sending != Sending::Closed {
                stream.sending = Sending::Closed;
                stream.stopped = Some(code::REQUEST_CANCELLED);
            }
            if !std::mem::replace(&mut stream.in_news, true) {
                self.news.push_back(id);
            }
        }
    }

    /// Closes the connection with a code of RFC 9114; [`Self::transmit`] sends it.
    pub fn close(&mut self, code: u64, reason: &[u8]) {
        // Before the handshake is done only the transport may close (RFC 9000 §10.2.3); quiche 0.30, told otherwise, sends
        // padding without end. `Done`: it is closing already.
        let _ = match self.quic.is_established() {
            true => self.quic.close(true, code, reason),
            false => self.quic.close(false, APPLICATION_ERROR, b""),
        };
        self.fresh = true;
    }

    /// Closes a connection that its address may not have (CONNECTION_REFUSED, RFC 9000 §20.1).
    pub(super) fn close_refused(&mut self) {
        let _ = self.quic.close(false, CONNECTION_REFUSED, b"");
        self.fresh = true;
    }

    /// Ends a handshake whose place is needed (CONNECTION_REFUSED, RFC 9000 §20.1).
    pub(super) fn displace(&mut self) {
        self.close_refused();
        self.displaced = true;
    }

    /// Whether it can be removed.
    pub fn is_closed(&self) -> bool {
        // One that makes room does not wait for the client to have heard of it: the transport drains once that is said.
        self.quic.is_closed() || self.mute || self.displaced && self.quic.is_draining()
    }

    /// Why it ended; `None` while it has not.
    pub fn close_cause(&self) -> Option<CloseCause> {
        if !self.is_closing() {
            return None;
        }
        let told =
            |by, error: &quiche::ConnectionError| CloseCause { by, application: error.is_app, code: error.error_code };
        if let Some(error) = self.quic.peer_error() {
            return Some(told(Closer::Client, error));
        }
        if let Some(error) = self.quic.local_error() {
            return Some(told(Closer::Us, error));
        }
        Some(CloseCause { by: Closer::Silence, application: false, code: 0 })
    }
}
