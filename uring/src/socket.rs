//! Making sockets: UDP and listening ones, with every option the reactor relies on.
//!
//! Runs at start and reload on any thread; the results are handed to a ring. What the kernel does not grant (buffer
//! sizes) is reported with the sysctl that raises it; what an option's absence only slows down is not an error.

use crate::address::{RawAddress, as_ipv6, parse_address};
use crate::bpf::{Instruction, PROGRAM_LEN_MAX};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

/// How a UDP socket is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpOptions {
    /// Where to bind. `[::]` takes IPv4 too.
    pub address: SocketAddr,
    /// Wanted receive buffer in bytes, as the kernel counts (payload and its own overhead).
    pub receive_buffer: usize,
    /// Wanted send buffer.
    pub send_buffer: usize,
    /// Share the port with the other sockets of this process (SO_REUSEPORT).
    pub reuse_port: bool,
    /// Let the kernel coalesce datagrams of one sender (UDP_GRO).
    pub coalesce: bool,
}

impl UdpOptions {
    /// The usual options for `address`.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, receive_buffer: 8 << 20, send_buffer: 8 << 20, reuse_port: true, coalesce: true }
    }
}

/// A bound UDP socket, for [`Ring::add_udp`](crate::Ring::add_udp).
#[derive(Debug)]
pub struct UdpSocket {
    descriptor: OwnedFd,
    local: SocketAddr,
    /// The socket's own family; its address does not tell if that is IPv4 in IPv6 clothes.
    ipv6: bool,
    /// The only one it talks to, if it is connected.
    peer: Option<SocketAddr>,
    buffers: SocketBuffers,
}

/// What the kernel gave of the buffers that were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketBuffers {
    /// Asked for.
    pub receive_wanted: usize,
    /// Given.
    pub receive: usize,
    /// Asked for.
    pub send_wanted: usize,
    /// Given.
    pub send: usize,
}

impl SocketBuffers {
    /// One line per clamped buffer, each with the command that raises the limit.
    pub fn warnings(&self) -> Vec<String> {
        let both = [
            ("receive", "rmem_max", self.receive_wanted, self.receive),
            ("send", "wmem_max", self.send_wanted, self.send),
        ];
        let clamped = both.into_iter().filter(|(.., wanted, given)| given < wanted);
        clamped
            .map(|(which, sysctl, wanted, given)| {
                format!(
                    "the UDP {which} buffer is {given} bytes instead of {wanted}; fix: sysctl -w net.core.{sysctl}={wanted}"
                )
            })
            .collect()
    }
}

impl UdpSocket {
    /// Makes and binds a socket.
    ///
    /// # Errors
    /// When the address cannot be bound, or the process has no descriptor left.
    pub fn bind(options: &UdpOptions) -> io::Result<Self> {
        let descriptor = new_socket(family(options.address), libc::SOCK_DGRAM)?;
        if options.reuse_port {
            set(&descriptor, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        }
        prepare_udp(&descriptor, options)?;
        bind(&descriptor, &RawAddress::internet(options.address))?;
        Self::finish(descriptor, options)
    }

    /// Takes over a bound socket (inherited from systemd or an earlier process) and sets the options on it. Its address is
    /// the one it has, whatever `options` say.
    ///
    /// # Errors
    /// When it is no UDP socket.
    pub fn from_inherited(descriptor: OwnedFd, options: &UdpOptions) -> io::Result<Self> {
        let local = local_address(&descriptor)?;
        if get(&descriptor, libc::SOL_SOCKET, libc::SO_TYPE)? != libc::SOCK_DGRAM {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a datagram socket"));
        }
        set_blocking(&descriptor)?;
        let options = UdpOptions { address: local, ..*options };
        prepare_udp(&descriptor, &options)?;
        Self::finish(descriptor, &options)
    }

    /// Lets further sockets of the same user bind beside this one, which stays the first of their group.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn share_port(&self) -> io::Result<()> {
        set(&self.descriptor, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)
    }

    /// Lets `program` choose, for every datagram to this socket's group, which of its sockets gets it. Positions count
    /// from the first socket that was bound. An earlier program of the group is replaced.
    ///
    /// # Errors
    /// When the socket is in no group, or the kernel refuses the program.
    pub fn steer(&self, program: &[Instruction]) -> io::Result<()> {
        if program.len() > PROGRAM_LEN_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut raw: Vec<libc::sock_filter> = program.iter().map(|instruction| instruction.raw()).collect();
        let program = libc::sock_fprog { len: raw.len() as u16, filter: raw.as_mut_ptr() };
        // SAFETY: the kernel reads `len` instructions during the call and keeps a copy of its own.
        check(unsafe {
            libc::setsockopt(
                self.descriptor.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_REUSEPORT_CBPF,
                (&raw const program).cast(),
                size_of::<libc::sock_fprog>() as u32,
            )
        })
        .map(drop)
    }

    fn finish(descriptor: OwnedFd, options: &UdpOptions) -> io::Result<Self> {
        let local = local_address(&descriptor)?;
        let buffers = SocketBuffers {
            receive_wanted: options.receive_buffer,
            receive: buffer_size(&descriptor, libc::SO_RCVBUF),
            send_wanted: options.send_buffer,
            send: buffer_size(&descriptor, libc::SO_SNDBUF),
        };
        let domain = get(&descriptor, libc::SOL_SOCKET, libc::SO_DOMAIN)?;
        Ok(Self { descriptor, local, ipv6: domain == libc::AF_INET6, peer: None, buffers })
    }

    /// Makes `to` the only one it talks to. The kernel then picks the local address, and tells the socket when nobody
    /// listens there ([`Event::DatagramsRefused`](crate::Event)).
    ///
    /// # Errors
    /// When no route leads there.
    pub fn connect(&mut self, to: SocketAddr) -> io::Result<()> {
        let raw = RawAddress::internet(if self.ipv6 { as_ipv6(to) } else { to });
        // SAFETY: the address is read during the call.
        check(unsafe { libc::connect(self.descriptor.as_raw_fd(), raw.as_ptr(), raw.len()) })?;
        self.local = local_address(&self.descriptor)?;
        self.peer = Some(to);
        Ok(())
    }

    /// The address it is bound to.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Whom it is connected to.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Whether it is an IPv6 socket, to which IPv4 addresses are known in their mapped form.
    pub(crate) fn is_ipv6(&self) -> bool {
        self.ipv6
    }

    /// What the kernel gave of the buffers.
    pub fn buffers(&self) -> SocketBuffers {
        self.buffers
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn prepare_udp(socket: &OwnedFd, options: &UdpOptions) -> io::Result<()> {
    force_buffer(socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, options.receive_buffer);
    force_buffer(socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, options.send_buffer);
    // Without the destination address replies of a wildcard socket could leave from another one: required.
    // Path MTU probing is ours: the kernel must neither fragment nor remember a path's size for us.
    if options.address.is_ipv6() {
        set(socket, libc::SOL_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        set(socket, libc::SOL_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
        let _ = set(socket, libc::SOL_IPV6, libc::IPV6_RECVTCLASS, 1);
        // For the IPv4 half of a dual-stack socket.
        let _ = set(socket, libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE);
        let _ = set(socket, libc::SOL_IP, libc::IP_RECVTOS, 1);
    } else {
        set(socket, libc::SOL_IP, libc::IP_PKTINFO, 1)?;
        set(socket, libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?;
        let _ = set(socket, libc::SOL_IP, libc::IP_RECVTOS, 1);
    }
    let _ = set(socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1);
    if options.coalesce {
        let _ = set(socket, libc::SOL_UDP, libc::UDP_GRO, 1);
    }
    Ok(())
}

/// With the privilege beyond the sysctl's limit, without it up to there. The kernel doubles what it is asked for.
fn force_buffer(socket: &OwnedFd, force: i32, plain: i32, wanted: usize) {
    let half = i32::try_from(wanted / 2).unwrap_or(i32::MAX / 2);
    if set(socket, libc::SOL_SOCKET, force, half).is_err() {
        let _ = set(socket, libc::SOL_SOCKET, plain, half);
    }
}

fn buffer_size(socket: &OwnedFd, option: i32) -> usize {
    let size = get(socket, libc::SOL_SOCKET, option).unwrap_or(0);
    usize::try_from(size).unwrap_or(0)
}

/// A listening stream socket, for [`Ring::listen`](crate::Ring::listen).
#[derive(Debug)]
pub struct Listener {
    descriptor: OwnedFd,
    local: Option<SocketAddr>,
}

impl Listener {
    /// Listens on a TCP address; `[::]` takes IPv4 too. Accepted connections have TCP_NODELAY.
    ///
    /// # Errors
    /// When the address cannot be bound, or the process has no descriptor left.
    pub fn tcp(address: SocketAddr, backlog: i32, reuse_port: bool) -> io::Result<Self> {
        let descriptor = new_socket(family(address), libc::SOCK_STREAM)?;
        // A restarted process binds although old connections are in TIME_WAIT.
        set(&descriptor, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        if reuse_port {
            set(&descriptor, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        }
        bind(&descriptor, &RawAddress::internet(address))?;
        Self::start(descriptor, backlog)
    }

    /// Listens on a unix socket at `path`. A socket file that an earlier process left is replaced; anything else there
    /// is an error.
    ///
    /// # Errors
    /// When the path cannot be bound, or somebody listens there.
    pub fn unix(path: &Path, backlog: i32) -> io::Result<Self> {
        use std::os::unix::fs::FileTypeExt;
        let raw = RawAddress::unix(path).ok_or(io::ErrorKind::InvalidInput)?;
        let descriptor = new_socket(libc::AF_UNIX, libc::SOCK_STREAM)?;
        if let Ok(file) = std::fs::symlink_metadata(path)
            && file.file_type().is_socket()
        {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            std::fs::remove_file(path)?;
        }
        bind(&descriptor, &raw)?;
        Self::start(descriptor, backlog)
    }

    /// Takes over a listening socket (inherited).
    ///
    /// # Errors
    /// When it is no socket.
    pub fn from_inherited(descriptor: OwnedFd) -> io::Result<Self> {
        set_blocking(&descriptor)?;
        let _ = set(&descriptor, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
        let local = local_address(&descriptor).ok();
        Ok(Self { descriptor, local })
    }

    /// Lets other sockets of the same user listen on its address beside it (SO_REUSEPORT).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn share_port(&self) -> io::Result<()> {
        set(&self.descriptor, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)
    }

    fn start(descriptor: OwnedFd, backlog: i32) -> io::Result<Self> {
        // SAFETY: takes no pointers.
        check(unsafe { libc::listen(descriptor.as_raw_fd(), backlog) })?;
        Self::from_inherited(descriptor)
    }

    /// The address it is bound to; `None` for unix sockets.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.local
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// A stream socket to connect: TCP with TCP_NODELAY, or unix (`None`).
pub(crate) fn stream_socket(tcp: Option<SocketAddr>) -> io::Result<OwnedFd> {
    let Some(address) = tcp else {
        return new_socket(libc::AF_UNIX, libc::SOCK_STREAM);
    };
    let socket = new_socket(family(address), libc::SOCK_STREAM)?;
    set(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    Ok(socket)
}

/// Closing the socket will reset the connection.
pub(crate) fn linger_reset(socket: &OwnedFd) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the option's value is read during the call.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as u32,
        )
    };
}

/// Sends FIN. An error means that the connection is gone, which receiving tells.
pub(crate) fn shutdown_write(socket: &OwnedFd) {
    // SAFETY: takes no pointers.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) };
}

/// The other side of an accepted connection; `None` for unix sockets.
pub(crate) fn peer_address(socket: &OwnedFd) -> Option<SocketAddr> {
    name(socket, libc::getpeername)
}

/// The address of our own end.
pub(crate) fn local_address(socket: &OwnedFd) -> io::Result<SocketAddr> {
    // Kept as the kernel says it: `[::]` must not become `0.0.0.0`.
    name(socket, libc::getsockname).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

type NameCall = unsafe extern "C" fn(RawFd, *mut libc::sockaddr, *mut u32) -> i32;

fn name(socket: &OwnedFd, call: NameCall) -> Option<SocketAddr> {
    let mut bytes = [0_u8; size_of::<libc::sockaddr_storage>()];
    let mut len = bytes.len() as u32;
    // SAFETY: `call` is getsockname or getpeername, which write at most `len` bytes and the length.
    let done = unsafe { call(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), &raw mut len) };
    if done != 0 {
        return None;
    }
    parse_address(&bytes[..bytes.len().min(len as usize)])
}

fn family(address: SocketAddr) -> i32 {
    match address {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    }
}

/// Blocking on purpose: the ring waits by itself, and answers EAGAIN on sockets that are not.
fn new_socket(family: i32, kind: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    if family == libc::AF_INET6 {
        // Whatever net.ipv6.bindv6only says: `[::]` takes IPv4 too.
        set(&socket, libc::SOL_IPV6, libc::IPV6_V6ONLY, 0)?;
    }
    Ok(socket)
}

/// The ring waits by itself, and answers EAGAIN on sockets that do not block.
fn set_blocking(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: takes no pointers.
    let flags = check(unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFL, flags & !libc::O_NONBLOCK) }).map(drop)
}

/// Whether a socket carries a stream of bytes.
pub(crate) fn is_stream(socket: &OwnedFd) -> bool {
    get(socket, libc::SOL_SOCKET, libc::SO_TYPE).is_ok_and(|kind| kind == libc::SOCK_STREAM)
}

fn bind(socket: &OwnedFd, address: &RawAddress) -> io::Result<()> {
    // SAFETY: the address is read during the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr(), address.len()) }).map(drop)
}

fn set(socket: &OwnedFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the value is read during the call.
    check(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), size_of::<i32>() as u32)
    })
    .map(drop)
}

fn get(socket: &OwnedFd, level: i32, option: i32) -> io::Result<i32> {
    let mut value = 0_i32;
    let mut len = size_of::<i32>() as u32;
    // SAFETY: the kernel writes at most `len` bytes of the value, and the length.
    check(unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut value).cast(), &raw mut len) })?;
    Ok(value)
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_that_were_clamped_name_the_sysctl() {
        let buffers = SocketBuffers { receive_wanted: 8 << 20, receive: 425_984, send_wanted: 1 << 20, send: 1 << 20 };
        let warnings = buffers.warnings();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].ends_with("sysctl -w net.core.rmem_max=8388608"));
    }

    #[test]
    fn udp_sockets_share_a_port_and_keep_their_wildcard() {
        let mut options = UdpOptions::new("[::]:0".parse().unwrap());
        let first = UdpSocket::bind(&options).unwrap();
        assert_eq!(first.local_address().ip().to_string(), "::");
        options.address = first.local_address();
        UdpSocket::bind(&options).unwrap();
        options.reuse_port = false;
        assert!(UdpSocket::bind(&options).is_err());
        assert!(first.buffers().receive > 0);
    }

    /// Which socket of the group gets a datagram with this first byte.
    fn reached(group: &[UdpSocket], first: u8) -> Option<usize> {
        let to = group[0].local_address();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.send_to(&[first], to).unwrap();
        let mut bytes = [0_u8; 4];
        // On loopback a datagram has arrived when it is sent.
        group.iter().position(|socket| {
            // SAFETY: the kernel writes at most `len` bytes.
            unsafe { libc::recv(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) == 1 }
        })
    }

    #[test]
    fn a_program_chooses_by_the_order_of_binding_and_leaves_the_rest_to_the_hash() {
        let mut options = UdpOptions { reuse_port: false, ..UdpOptions::new("127.0.0.1:0".parse().unwrap()) };
        // The first one is alone on its port until others are let in.
        let first = UdpSocket::bind(&options).unwrap();
        options.address = first.local_address();
        options.reuse_port = true;
        assert!(UdpSocket::bind(&options).is_err());
        assert!(first.steer(&[Instruction::choose(0)]).is_err(), "it is in no group");
        first.share_port().unwrap();
        let mut group = vec![first];
        group.extend((0..2).map(|_| UdpSocket::bind(&options).unwrap()));
        group[0].steer(&[Instruction::load_byte(0), Instruction::choose_a()]).unwrap();
        for (byte, socket) in [(0, 0), (1, 1), (2, 2), (2, 2), (0, 0)] {
            assert_eq!(reached(&group, byte), Some(socket));
        }
        let hashed: Vec<_> = (0..32).map(|_| reached(&group, 3)).collect();
        assert!(hashed.iter().all(Option::is_some));
        assert!(hashed.iter().any(|socket| *socket != hashed[0]), "the hash spreads: {hashed:?}");
        // A later program replaces the first, through whichever socket it comes.
        group[2].steer(&[Instruction::choose(1)]).unwrap();
        assert_eq!(reached(&group, 0), Some(1));
        let endless = vec![Instruction::choose(0); PROGRAM_LEN_MAX + 1];
        assert!(group[0].steer(&endless).is_err());
        assert!(group[0].steer(&[]).is_err(), "a program ends with a choice");
    }

    #[test]
    fn an_inherited_socket_keeps_its_address_and_must_be_one_for_datagrams() {
        let options = UdpOptions::new("[::1]:1".parse().unwrap());
        let bound = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        bound.set_nonblocking(true).unwrap();
        let address = bound.local_addr().unwrap();
        let socket = UdpSocket::from_inherited(bound.into(), &options).unwrap();
        assert_eq!(socket.local_address(), address);
        // SAFETY: takes no pointers.
        let flags = unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_GETFL) };
        assert_eq!(flags & libc::O_NONBLOCK, 0);
        let stream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(UdpSocket::from_inherited(stream.into(), &options).is_err());
    }

    #[test]
    fn a_left_over_socket_file_is_replaced_but_not_a_live_one() {
        let path = std::env::temp_dir().join(format!("uring-listener-{}", std::process::id()));
        let first = Listener::unix(&path, 8).unwrap();
        assert!(Listener::unix(&path, 8).is_err());
        drop(first);
        Listener::unix(&path, 8).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "a file").unwrap();
        assert!(Listener::unix(&path, 8).is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
