//! Socket addresses and control messages, between Rust's forms and the kernel's bytes.
//!
//! Everything here reads and writes plain byte arrays: what the kernel wrote is parsed like any other input.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes of a `sockaddr_in6`, the longest internet address.
pub(crate) const NAME_LEN: usize = size_of::<libc::sockaddr_in6>();

/// Room for a unix path address too.
const STORAGE_LEN: usize = size_of::<libc::sockaddr_un>();

/// A kernel socket address in a buffer that stays put while an operation uses it.
#[repr(C, align(8))]
pub(crate) struct RawAddress {
    bytes: [u8; STORAGE_LEN],
    len: u32,
}

impl RawAddress {
    pub(crate) const EMPTY: Self = Self { bytes: [0; STORAGE_LEN], len: 0 };

    pub(crate) fn internet(address: SocketAddr) -> Self {
        let mut raw = Self::EMPTY;
        raw.set_internet(address);
        raw
    }

    /// `None`: the path is empty, too long, or holds a NUL byte.
    pub(crate) fn unix(path: &Path) -> Option<Self> {
        let path = path.as_os_str().as_bytes();
        // One byte stays for the NUL that ends the path.
        if path.is_empty() || path.contains(&0) || path.len() + 3 > STORAGE_LEN {
            return None;
        }
        let mut raw = Self::EMPTY;
        raw.put_family(libc::AF_UNIX);
        raw.bytes[2..2 + path.len()].copy_from_slice(path);
        raw.len = (2 + path.len() + 1) as u32;
        Some(raw)
    }

    pub(crate) fn set_internet(&mut self, address: SocketAddr) {
        match address {
            SocketAddr::V4(address) => {
                self.put_family(libc::AF_INET);
                self.bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
                self.bytes[4..8].copy_from_slice(&address.ip().octets());
                self.bytes[8..16].fill(0);
                self.len = size_of::<libc::sockaddr_in>() as u32;
            }
            SocketAddr::V6(address) => {
                self.put_family(libc::AF_INET6);
                self.bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
                self.bytes[4..8].copy_from_slice(&address.flowinfo().to_be_bytes());
                self.bytes[8..24].copy_from_slice(&address.ip().octets());
                self.bytes[24..28].copy_from_slice(&address.scope_id().to_ne_bytes());
                self.len = NAME_LEN as u32;
            }
        }
    }

    fn put_family(&mut self, family: i32) {
        self.bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
    }

    pub(crate) fn as_ptr(&self) -> *const libc::sockaddr {
        self.bytes.as_ptr().cast()
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }
}

/// Reads an internet address as the kernel wrote it. IPv4 addresses in IPv6 clothes come out as IPv4.
pub(crate) fn parse_address(name: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(array(name, 0)?));
    let port = u16::from_be_bytes(array(name, 2)?);
    match family {
        libc::AF_INET => {
            let ip = Ipv4Addr::from(array::<4>(name, 4)?);
            Some(SocketAddrV4::new(ip, port).into())
        }
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(array::<16>(name, 8)?);
            if let Some(ip) = ip.to_ipv4_mapped() {
                return Some(SocketAddrV4::new(ip, port).into());
            }
            let flow = u32::from_be_bytes(array(name, 4)?);
            let scope = u32::from_ne_bytes(array(name, 24)?);
            Some(SocketAddrV6::new(ip, port, flow, scope).into())
        }
        _ => None,
    }
}

/// The address that an IPv6 socket needs to reach `address`.
pub(crate) fn as_ipv6(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into(),
        SocketAddr::V6(_) => address,
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// Bytes of a control message's header.
const CONTROL_HEADER: usize = size_of::<libc::cmsghdr>();

/// Room for what a UDP socket of ours is told with each receive: packet info (40), GRO size, TOS, drops (24 each).
pub(crate) const CONTROL_RECEIVE_LEN: usize = 160;

/// Room for what it says with each send: packet info (40) and segment size (24).
pub(crate) const CONTROL_SEND_LEN: usize = 64;

/// What the control messages of one received datagram train said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ReceiveFacts {
    /// The address the datagrams were sent to.
    pub(crate) to: Option<IpAddr>,
    /// GRO: the size of each datagram but the last.
    pub(crate) segment: Option<u16>,
    /// Datagrams this socket has dropped since it was made.
    pub(crate) dropped: Option<u32>,
    /// The congestion-experienced mark of RFC 3168 was set.
    pub(crate) congestion: bool,
}

/// Reads the control messages of a receive; unknown or short ones are skipped.
pub(crate) fn parse_control(mut control: &[u8]) -> ReceiveFacts {
    let mut facts = ReceiveFacts::default();
    while let (Some(len), Some(level), Some(kind)) = (
        array(control, 0).map(usize::from_ne_bytes),
        array(control, 8).map(i32::from_ne_bytes),
        array(control, 12).map(i32::from_ne_bytes),
    ) {
        if len < CONTROL_HEADER || len > control.len() {
            break;
        }
        let data = &control[CONTROL_HEADER..len];
        match (level, kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                let size = array(data, 0).map(i32::from_ne_bytes);
                facts.segment = size.and_then(|size| u16::try_from(size).ok());
            }
            // in_pktinfo: interface, local address, then the destination in the header, which is what we want.
            (libc::SOL_IP, libc::IP_PKTINFO) => {
                facts.to = array::<4>(data, 8).map(|ip| Ipv4Addr::from(ip).into());
            }
            (libc::SOL_IPV6, libc::IPV6_PKTINFO) => {
                facts.to = array::<16>(data, 0).map(|ip| Ipv6Addr::from(ip).to_canonical());
            }
            (libc::SOL_IP, libc::IP_TOS) | (libc::SOL_IPV6, libc::IPV6_TCLASS) => {
                facts.congestion = data.first().is_some_and(|tos| tos & 3 == 3);
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                facts.dropped = array(data, 0).map(u32::from_ne_bytes);
            }
            _ => {}
        }
        let step = len.next_multiple_of(8).min(control.len());
        control = &control[step..];
    }
    facts
}

/// Control messages for a send, in a buffer that stays put while an operation uses it.
#[derive(Clone)]
#[repr(C, align(8))]
pub(crate) struct SendControl {
    bytes: [u8; CONTROL_SEND_LEN],
    len: usize,
}

impl SendControl {
    pub(crate) const EMPTY: Self = Self { bytes: [0; CONTROL_SEND_LEN], len: 0 };

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Chooses the source address; on an IPv6 socket IPv4 goes in its mapped form, which the kernel understands there.
    pub(crate) fn push_source(&mut self, source: IpAddr, ipv6_socket: bool) {
        if ipv6_socket {
            let ip = match source {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            let mut info = [0; 20];
            info[..16].copy_from_slice(&ip.octets());
            self.push(libc::SOL_IPV6, libc::IPV6_PKTINFO, &info);
        } else if let IpAddr::V4(ip) = source {
            let mut info = [0; 12];
            info[4..8].copy_from_slice(&ip.octets());
            self.push(libc::SOL_IP, libc::IP_PKTINFO, &info);
        }
    }

    /// Asks the kernel to cut the payload into datagrams of `size` bytes.
    pub(crate) fn push_segment(&mut self, size: u16) {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
    }

    fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let at = self.len;
        let len = CONTROL_HEADER + data.len();
        let space = len.next_multiple_of(8);
        self.bytes[at..at + space].fill(0);
        self.bytes[at..at + 8].copy_from_slice(&len.to_ne_bytes());
        self.bytes[at + 8..at + 12].copy_from_slice(&level.to_ne_bytes());
        self.bytes[at + 12..at + 16].copy_from_slice(&kind.to_ne_bytes());
        self.bytes[at + 16..at + len].copy_from_slice(data);
        self.len += space;
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

const _: () = assert!(CONTROL_HEADER == 16 && size_of::<usize>() == 8, "Linux on 64-bit machines");

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(address: &str) -> String {
        let address: SocketAddr = address.parse().unwrap();
        let raw = RawAddress::internet(address);
        parse_address(&raw.bytes[..raw.len as usize]).unwrap().to_string()
    }

    #[test]
    fn addresses_survive_the_kernel_form() {
        for address in ["192.0.2.7:443", "[2001:db8::1]:9889", "[fe80::1%3]:1"] {
            assert_eq!(round_trip(address), address);
        }
        assert_eq!(round_trip("[::ffff:192.0.2.7]:443"), "192.0.2.7:443");
        assert_eq!(parse_address(&[]), None);
        assert_eq!(parse_address(&[10, 0, 1, 1, 0]), None);
        assert_eq!(parse_address(&[1, 0, 0, 0]), None);
    }

    #[test]
    fn unix_paths_are_bounded() {
        assert!(RawAddress::unix(Path::new("/run/app.sock")).is_some());
        assert!(RawAddress::unix(Path::new(&"x".repeat(107))).is_some());
        for path in ["", "a\0b", &"x".repeat(108)] {
            assert!(RawAddress::unix(Path::new(path)).is_none());
        }
    }

    #[test]
    fn control_messages_are_read_as_written() {
        let mut control = SendControl::EMPTY;
        control.push_source("2001:db8::5".parse().unwrap(), true);
        control.push(libc::SOL_UDP, libc::UDP_GRO, &1350_i32.to_ne_bytes());
        let facts = parse_control(&control.bytes[..control.len]);
        assert_eq!(facts.to, Some("2001:db8::5".parse().unwrap()));
        assert_eq!(facts.segment, Some(1350));
        control.clear();
        control.push_source("192.0.2.1".parse().unwrap(), true);
        let facts = parse_control(&control.bytes[..control.len]);
        assert_eq!(facts.to, Some("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn nonsense_control_bytes_are_skipped() {
        for len in [0_usize, 1, 15, 16, 40] {
            for fill in [0_u8, 1, 0xff] {
                parse_control(&vec![fill; len]);
            }
        }
        let mut control = SendControl::EMPTY;
        control.push(libc::SOL_UDP, libc::UDP_GRO, &[1]);
        assert_eq!(parse_control(&control.bytes[..control.len]).segment, None);
    }
}
