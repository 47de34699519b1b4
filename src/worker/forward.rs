//! Datagrams that reached the wrong worker: they are copied to the one whose connection they are of.
//!
//! With the kernel's steering these are few: Initial packets of a client whose port changed, or a group of sockets in
//! another order than that of the workers. Without it they are those of every client that moved. A worker that is behind
//! loses them, as a network would; nobody waits and nothing is allocated.

use super::Worker;
use crate::limits;
use crate::telemetry::kinds::{DatagramDrop, QueueFull};
use spooky_uring::Io;
use spooky_uring::mailbox::{self, Doorbell, Receiver, SendError, Sender};
use std::fmt;
use std::io;
use std::net::SocketAddr;

/// A datagram on its way to its worker. The bytes travel inside it: memory that one thread takes and another gives back
/// would make them wait for each other in the allocator.
pub struct Forwarded {
    listener: u16,
    from: SocketAddr,
    to: SocketAddr,
    len: u16,
    bytes: [u8; limits::quic::DATAGRAM_BYTES],
}

const _: () = assert!(size_of::<Forwarded>() <= limits::FORWARD_BYTES);

impl fmt::Debug for Forwarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Forwarded({} bytes from {})", self.len, self.from)
    }
}

impl Forwarded {
    /// `None` if it is longer than clients are told that a datagram may be.
    fn new(listener: u16, from: SocketAddr, to: SocketAddr, datagram: &[u8]) -> Option<Self> {
        let mut bytes = [0; limits::quic::DATAGRAM_BYTES];
        // A copy, because the buffer belongs to this thread's ring.
        bytes.get_mut(..datagram.len())?.copy_from_slice(datagram);
        Some(Self { listener, from, to, len: datagram.len() as u16, bytes })
    }

    fn datagram(&mut self) -> &mut [u8] {
        &mut self.bytes[..usize::from(self.len)]
    }
}

/// One worker's ends of the lines between all of them.
pub struct Lines {
    /// By number of the worker; its own place is never used.
    others: Vec<Sender<Forwarded>>,
    inbox: Option<Receiver<Forwarded>>,
}

impl Lines {
    /// The lines of a worker that is alone.
    pub fn none() -> Self {
        Self { others: Vec::new(), inbox: None }
    }

    /// Lines between `count` workers, in their order.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn between(count: usize) -> io::Result<Vec<Self>> {
        if count < 2 {
            return Ok((0..count).map(|_| Self::none()).collect());
        }
        let boxes = (0..count).map(|_| mailbox::channel(limits::FORWARDS)).collect::<io::Result<Vec<_>>>()?;
        let (senders, receivers): (Vec<_>, Vec<_>) = boxes.into_iter().unzip();
        Ok(receivers.into_iter().map(|inbox| Self { others: senders.clone(), inbox: Some(inbox) }).collect())
    }

    /// The bell to watch with [`super::token::Owner::Forwards`], if there is another worker.
    pub fn doorbell(&self) -> Option<&Doorbell> {
        self.inbox.as_ref().map(Receiver::doorbell)
    }
}

impl<I: Io> Worker<I> {
    /// Gives a datagram to the worker it is for, or drops and counts it.
    pub(super) fn forward(&mut self, worker: u16, listener: u16, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        let cells = &self.cells.quic;
        let line = self.lines.others.get(usize::from(worker));
        let Some((line, forwarded)) = line.zip(Forwarded::new(listener, from, to, datagram)) else {
            cells.drops.count(DatagramDrop::Misdirected);
            return;
        };
        match line.send_by(&mut self.io, forwarded) {
            Ok(()) => cells.forwarded_out.add(1),
            Err(SendError::Full(_)) => {
                self.cells.full.count(QueueFull::Forwards);
                cells.drops.count(DatagramDrop::Misdirected);
            }
            // That worker has ended, and its connections with it.
            Err(SendError::Closed(_)) => cells.drops.count(DatagramDrop::Misdirected),
        }
    }

    /// Takes in what other workers forwarded.
    pub(super) fn read_forwarded(&mut self) {
        // No more were there when the bell was answered; it rings again for later ones.
        for _ in 0..limits::FORWARDS {
            let Some(mut forwarded) = self.lines.inbox.as_ref().and_then(Receiver::receive) else {
                return;
            };
            self.cells.quic.forwarded_in.add(1);
            let Forwarded { listener, from, to, .. } = forwarded;
            let Some(at) = self.clients.quic.get_mut(usize::from(listener)) else {
                continue;
            };
            let received = at.endpoint.receive(forwarded.datagram(), from, to, self.now);
            self.received(listener, received, from, to);
        }
    }
}
