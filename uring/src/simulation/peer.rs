//! The other ends of the simulated machine's sockets, as tests script them.
//!
//! A [`Peer`] sends and receives datagrams (a QUIC client). An [`Origin`] is an address that stream sockets connect to;
//! it makes one [`Session`] per connection. All of them are called with the virtual time and answer at once; what a test
//! wants to ask them later it keeps in an `Rc<RefCell<…>>` of its own, for which the traits are implemented too.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

/// A datagram that a peer sends.
#[derive(Debug)]
pub struct Outgoing {
    /// The payload.
    pub bytes: Vec<u8>,
    /// The sender's address.
    pub from: SocketAddr,
    /// The receiver's.
    pub to: SocketAddr,
}

/// Sends and receives datagrams.
pub trait Peer {
    /// A datagram arrived.
    fn receive(&mut self, bytes: &mut [u8], from: SocketAddr, to: SocketAddr, now: Instant);

    /// The next datagram to send. Asked after every call of the others until there is none.
    fn transmit(&mut self, now: Instant) -> Option<Outgoing>;

    /// When [`Self::wake`] is to be called.
    fn deadline(&self) -> Option<Instant>;

    /// The deadline has come, or a test asked for it.
    fn wake(&mut self, now: Instant);
}

impl<T: Peer> Peer for Rc<RefCell<T>> {
    fn receive(&mut self, bytes: &mut [u8], from: SocketAddr, to: SocketAddr, now: Instant) {
        self.borrow_mut().receive(bytes, from, to, now);
    }

    fn transmit(&mut self, now: Instant) -> Option<Outgoing> {
        self.borrow_mut().transmit(now)
    }

    fn deadline(&self) -> Option<Instant> {
        self.borrow().deadline()
    }

    fn wake(&mut self, now: Instant) {
        self.borrow_mut().wake(now);
    }
}

/// What becomes of an attempt to connect.
pub enum Connect {
    /// It is accepted.
    Accept(Box<dyn Session>),
    /// It fails with this errno.
    Refuse(i32),
    /// Nothing ever comes back.
    Silent,
}

/// An address that can be connected to.
pub trait Origin {
    /// Somebody connects.
    fn connect(&mut self, now: Instant) -> Connect;
}

impl<T: Origin> Origin for Rc<RefCell<T>> {
    fn connect(&mut self, now: Instant) -> Connect {
        self.borrow_mut().connect(now)
    }
}

/// The far end of one stream socket.
pub trait Session {
    /// The connection is made.
    fn opened(&mut self, line: &mut Line) {
        let _ = line;
    }

    /// Bytes arrived.
    fn bytes(&mut self, bytes: &[u8], line: &mut Line);

    /// The machine finished its direction.
    fn fin(&mut self, line: &mut Line) {
        let _ = line;
    }

    /// The machine closed the socket, with RST if `reset`. Nothing follows.
    fn closed(&mut self, reset: bool, now: Instant) {
        let _ = (reset, now);
    }

    /// The time asked for with [`Line::wake_at`] has come.
    fn wake(&mut self, line: &mut Line) {
        let _ = line;
    }

    /// Everything written is on its way: more may be written. Told whenever the queue becomes empty.
    fn drained(&mut self, line: &mut Line) {
        let _ = line;
    }
}

/// How a session ends its own direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// FIN behind what was written; the session still reads.
    Fin,
    /// FIN behind what was written, and whatever arrives from then on is answered with RST.
    Close,
    /// RST behind what was written.
    Reset,
}

/// A session's hold on its connection.
#[derive(Debug)]
pub struct Line {
    now: Instant,
    pub(super) written: VecDeque<Vec<u8>>,
    pub(super) ending: Option<Ending>,
    pub(super) wake_at: Option<Instant>,
    pub(super) reading: bool,
}

impl Line {
    pub(super) fn new(now: Instant, reading: bool) -> Self {
        Self { now, written: VecDeque::new(), ending: None, wake_at: None, reading }
    }

    /// The virtual time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Sends bytes; they leave as fast as the machine takes them.
    pub fn write(&mut self, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        if !bytes.is_empty() {
            self.written.push_back(bytes);
        }
    }

    /// Finishes this direction behind what was written.
    pub fn fin(&mut self) {
        self.ending = Some(Ending::Fin);
    }

    /// Closes the socket behind what was written: late bytes are answered with RST.
    pub fn close(&mut self) {
        self.ending = Some(Ending::Close);
    }

    /// Resets the connection behind what was written.
    pub fn reset(&mut self) {
        self.ending = Some(Ending::Reset);
    }

    /// Asks for [`Session::wake`].
    pub fn wake_at(&mut self, at: Instant) {
        self.wake_at = Some(at);
    }

    /// Stops or goes on reading: unread bytes fill the sockets' buffers.
    pub fn read(&mut self, reading: bool) {
        self.reading = reading;
    }
}
