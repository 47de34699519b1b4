//! The one generic seam: what a worker asks of the machine below it, and what it is told.
//!
//! Two implementations: the real ring (`Ring`) and a simulated host. Nothing here knows a protocol.

use crate::chunk::{Chunk, Lease};
use crate::mailbox::Doorbell;
use crate::stats::RingStats;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

/// The caller's word for a socket or a source; handed back with each of its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Token(pub u64);

/// A UDP socket of this ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UdpId(pub u32);

/// A listening stream socket of this ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u32);

/// A file of this ring that is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Position in the table.
    pub slot: u32,
    /// Use of that position.
    pub generation: u32,
}

/// How much of the stream receive pool is left: the ring's own measure of back-pressure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// Buffers that nobody holds (those waiting in the kernel's ring count as free).
    pub free: usize,
    /// Buffers in all.
    pub total: usize,
}

/// A connected (or connecting) TCP or unix stream socket: slot and generation, so that a late use finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId {
    /// Position in the table.
    pub slot: u32,
    /// Use of that position.
    pub generation: u32,
}

/// Where to connect a stream socket to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StreamAddress {
    /// TCP over IPv4 or IPv6.
    Tcp(SocketAddr),
    /// A unix stream socket by path.
    Unix(Box<Path>),
}

/// What to send with one UDP send.
#[derive(Clone, Copy, Debug)]
pub struct Transmit {
    /// Bytes of the slot that are filled.
    pub len: usize,
    /// Size of each datagram but the last, which may be shorter; `len <= segment` means one datagram (no GSO).
    pub segment: u16,
    /// The receiver.
    pub to: SocketAddr,
    /// The address to send from (IP_PKTINFO); `None` leaves it to the kernel.
    pub from: Option<SocketAddr>,
}

/// Why no more bytes will come from a stream socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The other side finished its direction (FIN).
    Fin,
    /// The socket failed; the number is an errno.
    Error(i32),
}

/// What happened since the last turn.
#[derive(Debug)]
pub enum Event {
    /// One or more datagrams of equal size (the last may be shorter) from one sender.
    Datagrams {
        /// The socket's token.
        token: Token,
        /// The sender.
        from: SocketAddr,
        /// The local address the datagrams were sent to.
        to: SocketAddr,
        /// Size of each datagram but the last.
        segment: u16,
        /// The bytes.
        lease: Lease,
    },
    /// A UDP send failed (the datagrams are lost, as on any network), or the network refused earlier datagrams of a
    /// connected socket (ECONNREFUSED: nobody listens there); errno.
    DatagramsRefused {
        /// The socket's token.
        token: Token,
        /// The receiver.
        to: SocketAddr,
        /// errno.
        error: i32,
    },
    /// An outgoing connection is made, or failed with an errno (the stream is then closed already).
    Connected {
        /// The stream's token.
        token: Token,
        /// The stream.
        stream: StreamId,
        /// errno on failure.
        result: Result<(), i32>,
    },
    /// An incoming connection. Reading starts with [`Io::resume`].
    Accepted {
        /// The listener's token.
        token: Token,
        /// The stream.
        stream: StreamId,
        /// The other side (`None` for unix sockets).
        peer: Option<SocketAddr>,
    },
    /// Bytes arrived.
    Received {
        /// The stream's token.
        token: Token,
        /// The stream.
        stream: StreamId,
        /// The bytes; never empty.
        lease: Lease,
    },
    /// No more bytes will come.
    Ended {
        /// The stream's token.
        token: Token,
        /// The stream.
        stream: StreamId,
        /// Why.
        end: End,
    },
    /// The send queue of a stream moved; `queued` bytes are left. Sent when it falls to the low-water mark or below, and always when it empties.
    Sent {
        /// The stream's token.
        token: Token,
        /// The stream.
        stream: StreamId,
        /// Bytes still queued.
        queued: usize,
    },
    /// Sending failed with an errno; the queue is dropped. `Ended` tells of the other direction.
    SendFailed {
        /// The stream's token.
        token: Token,
        /// The stream.
        stream: StreamId,
        /// errno.
        error: i32,
    },
    /// A mailbox that is watched has messages.
    Doorbell {
        /// The watch's token.
        token: Token,
    },
    /// A process signal (signalfd).
    Signal {
        /// Signal number.
        signal: i32,
    },
    /// A write to a file ended.
    Written {
        /// The file's token.
        token: Token,
        /// Bytes of the whole chunk, or errno (the rest of that chunk is dropped; later ones are still written).
        result: Result<usize, i32>,
    },
}

/// Everything a worker can ask. All calls only queue; [`Io::wait`] submits them with one system call.
pub trait Io {
    /// A filled or to-be-filled UDP send buffer; the pool of them is fixed.
    type Slot: std::ops::DerefMut<Target = [u8]>;

    /// The time of this turn: read once by [`Io::wait`].
    fn now(&self) -> Instant;

    /// Submits everything that was asked, waits for one event or `deadline` (`None`: no limit; past: only reaps),
    /// and appends what happened to `events`.
    ///
    /// # Errors
    /// Only for what makes the ring unusable.
    fn wait(&mut self, deadline: Option<Instant>, events: &mut Vec<Event>) -> io::Result<()>;

    /// A send buffer of 64 KiB, or `None`: the pool is dry, try again after the next turn (that is backpressure).
    fn udp_slot(&mut self) -> Option<Self::Slot>;

    /// Sends one train of datagrams; the slot goes back to the pool when the kernel is done.
    fn udp_send(&mut self, socket: UdpId, slot: Self::Slot, transmit: Transmit);

    /// Starts a connection with TCP_NODELAY; [`Event::Connected`] follows. `None`: the table of streams is full.
    /// Reading starts with [`Io::resume`] after it is connected.
    fn connect(&mut self, to: &StreamAddress, token: Token) -> Option<StreamId>;

    /// The address that the other side of an accepted stream has connected to. Asks the kernel. `None`: it is no accepted one
    /// of TCP, or gone.
    fn local_address(&self, stream: StreamId) -> Option<SocketAddr>;

    /// Changes a stream's token.
    fn set_token(&mut self, stream: StreamId, token: Token);

    /// Starts or goes on receiving.
    fn resume(&mut self, stream: StreamId);

    /// Stops receiving; bytes already on their way still arrive.
    fn pause(&mut self, stream: StreamId);

    /// Queues bytes; one send is in flight per socket and takes all that is queued (vectored).
    fn send(&mut self, stream: StreamId, chunk: Chunk);

    /// Bytes queued or in flight on a stream.
    fn queued(&self, stream: StreamId) -> usize;

    /// Sends FIN once the queue is empty.
    fn shutdown(&mut self, stream: StreamId);

    /// Closes a stream now: queued bytes that are not yet sent are dropped, no event of it follows.
    fn close(&mut self, stream: StreamId);

    /// Closes a stream with RST (TCP).
    fn abort(&mut self, stream: StreamId);

    /// Rings the doorbell of another thread's mailbox.
    fn ring(&mut self, doorbell: &Doorbell);

    /// Reports every ring of this thread's own doorbell from now on ([`Event::Doorbell`]).
    fn watch(&mut self, doorbell: &Doorbell, token: Token);

    /// Queues a chunk for a file or pipe; one write is in flight per file, so chunks keep their order. Each is answered
    /// by one [`Event::Written`]. A file that is gone takes nothing and answers nothing.
    fn write(&mut self, file: FileId, chunk: Chunk);

    /// Closes a file once everything queued is written.
    fn close_file(&mut self, file: FileId);

    /// Stops accepting and closes the listening socket.
    fn stop_listening(&mut self, listener: ListenerId);

    /// What was counted since the start.
    fn stats(&self) -> &RingStats;

    /// How much of the stream receive pool is left.
    fn pressure(&self) -> Pressure;
}
