//! One connected UDP socket of the generator: trains of datagrams out (GSO), merged datagrams in (GRO), and the
//! kernel's own count of what did not fit into its receive buffer.
//!
//! Knows nothing of QUIC. The proxy's sockets are the reactor's business, not this file's.

use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg, setsockopt, sockopt};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// The longest train: 64 segments is the limit of older kernels.
pub const SEGMENTS_MAX: usize = 64;
/// Room for one merged receive or one train; the kernel's limit is 65,535 with headers.
pub const BUFFER_BYTES: usize = 65_536;
/// The largest payload of a datagram (RFC 9000 §18.2): nginx refuses a client that announces more.
pub const PAYLOAD_MAX: usize = 65_527;

/// How sockets are made.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Receive buffer as the kernel counts it; `None` leaves the system's default (usually 212,992).
    pub receive_buffer: Option<usize>,
    /// Whether the kernel may hand over several datagrams at once.
    pub gro: bool,
    /// Whether several datagrams may be handed to the kernel at once.
    pub gso: bool,
}

/// What one receive brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes in the buffer.
    pub len: usize,
    /// Size of each datagram but the last.
    pub segment: usize,
}

/// A connected UDP socket.
#[derive(Debug)]
pub struct Socket {
    socket: UdpSocket,
    local: SocketAddr,
    settings: Settings,
    control: Vec<u8>,
    /// Datagrams the kernel dropped so far because the receive buffer was full, as last told.
    pub dropped: u32,
    /// Sends that had to wait for room in the send buffer.
    pub send_waits: u64,
}

impl Socket {
    /// Binds a port of the kernel's choice and connects it.
    pub fn connect(to: SocketAddr, settings: Settings) -> io::Result<Self> {
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.set_nonblocking(true)?;
        if let Some(bytes) = settings.receive_buffer {
            // The kernel doubles the number it is given and counts its own overhead against the result.
            let half = bytes / 2;
            if setsockopt(&socket, sockopt::RcvBufForce, &half).is_err() {
                setsockopt(&socket, sockopt::RcvBuf, &half)?;
            }
        }
        if settings.gro {
            setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
        }
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        socket.connect(to)?;
        let local = socket.local_addr()?;
        Ok(Self { socket, local, settings, control: cmsg_space!(i32, u32), dropped: 0, send_waits: 0 })
    }

    /// The local address.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Receives one datagram or several merged ones; `None`: nothing is there.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut parts = [IoSliceMut::new(buffer)];
        let message =
            match recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut self.control), MsgFlags::MSG_DONTWAIT) {
                Ok(message) => message,
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
        let mut received = Received { len: message.bytes, segment: message.bytes.max(1) };
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::UdpGroSegments(size) => {
                    received.segment = usize::try_from(size).unwrap_or(0).max(1);
                }
                ControlMessageOwned::RxqOvfl(count) => self.dropped = count,
                _ => {}
            }
        }
        Ok(Some(received))
    }

    /// Sends datagrams of `segment` bytes each (the last may be shorter). Waits while the send buffer is full.
    pub fn send(&mut self, bytes: &[u8], segment: usize) -> io::Result<()> {
        if self.settings.gso || bytes.len() <= segment {
            return self.send_once(bytes, segment);
        }
        bytes.chunks(segment).try_for_each(|datagram| self.send_once(datagram, datagram.len()))
    }

    fn send_once(&mut self, bytes: &[u8], segment: usize) -> io::Result<()> {
        let size = u16::try_from(segment).unwrap_or(u16::MAX);
        let train = [ControlMessage::UdpGsoSegments(&size)];
        // A single datagram carries no segment size: some egresses answer EIO to that.
        let control: &[ControlMessage] = if bytes.len() > segment { &train } else { &[] };
        loop {
            match sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_DONTWAIT, None)
            {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN | Errno::ENOBUFS) => {
                    self.send_waits += 1;
                    let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
                    let _ = poll(&mut ready, 10u16);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(gro: bool) -> (Socket, UdpSocket) {
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let settings = Settings { receive_buffer: Some(65_536), gro, gso: true };
        let socket = Socket::connect(other.local_addr().unwrap(), settings).unwrap();
        let to: SocketAddr = (Ipv4Addr::LOCALHOST, socket.local().port()).into();
        other.connect(to).unwrap();
        (socket, other)
    }

    #[test]
    fn a_train_arrives_as_datagrams_and_a_lone_one_as_itself() {
        let (mut socket, other) = pair(true);
        socket.send(&[7; 2500], 1000).unwrap();
        let mut buffer = [0; 2000];
        let sizes: Vec<_> = (0..3).map(|_| other.recv(&mut buffer).unwrap()).collect();
        assert_eq!(sizes, [1000, 1000, 500]);
        socket.send(&[7; 10], 1000).unwrap();
        assert_eq!(other.recv(&mut buffer).unwrap(), 10);
    }

    #[test]
    fn datagrams_beyond_the_receive_buffer_are_counted() {
        let (mut socket, other) = pair(false);
        for _ in 0..200 {
            other.send(&[1; 1200]).unwrap();
        }
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut seen = 0;
        while socket.receive(&mut buffer).unwrap().is_some() {
            seen += 1;
        }
        assert!(seen < 200);
        // The count travels with the next datagram that is received.
        other.send(&[2; 8]).unwrap();
        assert_eq!(socket.receive(&mut buffer).unwrap(), Some(Received { len: 8, segment: 8 }));
        assert_eq!(seen + socket.dropped, 200);
    }
}
