//! A bounded mailbox between threads, with a doorbell that a ring can wait on.
//!
//! Owns: the queue and the eventfd beside it. Nobody ever parks: sending to a full box gives the value back, receiving
//! from an empty one gives nothing. The bell is coalesced: it is rung only if it was not ringing already. A plain thread
//! rings it by write(2), a ring thread through its own ring ([`Sender::send_by`]), which costs it no system call.

use crate::io::Io;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

/// Makes a mailbox for `capacity` messages.
///
/// # Errors
/// When the process has no file descriptor left.
pub fn channel<T>(capacity: usize) -> io::Result<(Sender<T>, Receiver<T>)> {
    assert!(capacity > 0, "a mailbox without room delivers nothing");
    let doorbell = Doorbell::new()?;
    let (sender, receiver) = mpsc::sync_channel(capacity);
    let watched = doorbell.clone();
    Ok((Sender { sender, doorbell }, Receiver { receiver, doorbell: watched }))
}

/// Rings the mailbox's owner awake.
#[derive(Debug, Clone)]
pub struct Doorbell {
    bell: Arc<Bell>,
}

#[derive(Debug)]
struct Bell {
    event: OwnedFd,
    /// Rung, and not yet answered: another ring would tell nothing new.
    rung: AtomicBool,
}

impl Doorbell {
    /// A bell that nobody has rung.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        // Non-blocking, or a ring's write would not be carried out while it is submitted but go round through a poll.
        // Reads wait all the same: eventfds are among the files for which the ring does that.
        // SAFETY: eventfd takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            bell: Arc::new(Bell {
                // SAFETY: the descriptor is new and nobody else's.
                event: unsafe { OwnedFd::from_raw_fd(fd) },
                rung: AtomicBool::new(false),
            }),
        })
    }

    /// Rings from a thread without a ring, with one write(2) unless it rings already.
    pub fn ring(&self) {
        if self.begin() {
            let one = 1_u64.to_ne_bytes();
            // An eventfd write of 8 bytes fails only when the counter is full, and then the reader is awake anyway.
            let _ = nix::unistd::write(&self.bell.event, &one);
        }
    }

    /// True if the bell was silent: the caller now writes to its descriptor.
    pub fn begin(&self) -> bool {
        // AcqRel: the message was queued before; whoever answers after us sees it.
        !self.bell.rung.swap(true, Ordering::AcqRel)
    }

    /// Silences the bell, before the owner empties the box: what is sent from here on rings again. True if it was rung.
    pub fn answer(&self) -> bool {
        self.bell.rung.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.bell.event.as_raw_fd()
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.event.as_fd()
    }
}

/// Why a message was not taken; it comes back.
#[derive(Debug, PartialEq, Eq)]
pub enum SendError<T> {
    /// The box is full.
    Full(T),
    /// Nobody will ever read it.
    Closed(T),
}

impl<T> From<mpsc::TrySendError<T>> for SendError<T> {
    fn from(error: mpsc::TrySendError<T>) -> Self {
        match error {
            mpsc::TrySendError::Full(value) => Self::Full(value),
            mpsc::TrySendError::Disconnected(value) => Self::Closed(value),
        }
    }
}

/// The sending end; clone one for each thread.
#[derive(Debug)]
pub struct Sender<T> {
    sender: mpsc::SyncSender<T>,
    doorbell: Doorbell,
}

impl<T> Sender<T> {
    /// Sends from a thread without a ring.
    ///
    /// # Errors
    /// The box is full or closed; the value comes back.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.sender.try_send(value)?;
        self.doorbell.ring();
        Ok(())
    }

    /// Sends from a ring thread: the bell rings with the next turn's submission.
    ///
    /// # Errors
    /// The box is full or closed; the value comes back.
    pub fn send_by(&self, io: &mut impl Io, value: T) -> Result<(), SendError<T>> {
        self.sender.try_send(value)?;
        io.ring(&self.doorbell);
        Ok(())
    }

    /// The bell, to ring without a message.
    pub fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), doorbell: self.doorbell.clone() }
    }
}

/// The receiving end. Watch it with [`Io::watch`]; on [`Event::Doorbell`](crate::Event::Doorbell), empty it.
#[derive(Debug)]
pub struct Receiver<T> {
    receiver: mpsc::Receiver<T>,
    doorbell: Doorbell,
}

impl<T> Receiver<T> {
    /// The next message, if there is one.
    pub fn receive(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    /// The bell, to watch.
    pub fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_box_gives_the_message_back() {
        let (sender, receiver) = channel(2).unwrap();
        assert_eq!(sender.send(1), Ok(()));
        assert_eq!(sender.send(2), Ok(()));
        assert_eq!(sender.send(3), Err(SendError::Full(3)));
        assert_eq!(receiver.receive(), Some(1));
        assert_eq!(sender.send(3), Ok(()));
        assert_eq!((receiver.receive(), receiver.receive()), (Some(2), Some(3)));
        assert_eq!(receiver.receive(), None);
        drop(receiver);
        assert_eq!(sender.send(4), Err(SendError::Closed(4)));
    }

    #[test]
    fn the_bell_is_coalesced() {
        let bell = Doorbell::new().unwrap();
        assert!(!bell.answer());
        assert!(bell.begin());
        assert!(!bell.begin());
        assert!(bell.answer());
        assert!(bell.begin());
    }
}
