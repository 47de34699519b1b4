//! Owns the header of the PROXY protocol, versions 1 and 2: what a proxy says, before anything else on a connection, of the client
//! that it connects for (haproxy.org, `doc/proxy-protocol.txt`, §2).
//!
//! Bytes in, addresses out, and the other way round; [`crate::worker`] reads one from proxies that are trusted and from nobody
//! else, and writes one to backends whose upstream asks for it. Strict: what is not exactly a header of one of the two versions
//! for a byte stream is malformed, as soon as the first byte says so.

use crate::limits::PROXY_HEADER_BYTES;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Both ends of the connection that a header is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    /// The client.
    pub source: SocketAddr,
    /// What it has connected to.
    pub destination: SocketAddr,
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The connection that it is about; `None`: the proxy speaks for itself, or does not know.
    pub ends: Option<Ends>,
    /// Bytes of the header: what follows is the client's.
    pub len: usize,
}

/// It is no header that we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// How a header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// As a line of text (§2.1).
    V1,
    /// In binary (§2.2).
    V2,
}

/// How version 2 begins.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family and protocol, length.
const FIXED: usize = SIGNATURE.len() + 4;
/// How version 1 begins.
const WORD: &[u8] = b"PROXY ";
/// Bytes of the longest header of version 1 (§2.1).
const LINE_MAX: usize = 107;
const _: () = assert!(PROXY_HEADER_BYTES >= LINE_MAX && PROXY_HEADER_BYTES >= FIXED + UNIX);

/// Version 2 with the command LOCAL: the proxy speaks for itself.
const LOCAL: u8 = 0x20;
/// Version 2 with the command PROXY.
const PROXY: u8 = 0x21;
/// No address follows that could be read.
const UNSPECIFIED: u8 = 0x00;
/// TCP over IPv4: two addresses of 4 bytes, two ports.
const TCP4: u8 = 0x11;
/// TCP over IPv6: two addresses of 16 bytes, two ports.
const TCP6: u8 = 0x21;
/// A stream between unix sockets: two names of 108 bytes.
const UNIX_STREAM: u8 = 0x31;
const UNIX: usize = 216;

/// Reads the header that a connection begins with; `None`: more bytes are needed, [`PROXY_HEADER_BYTES`] at most in all.
///
/// # Errors
/// It is not a header, or a longer one than that.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(byte, expected)| byte == expected);
    if begins(SIGNATURE) {
        binary(bytes)
    } else if begins(WORD) {
        line(bytes)
    } else {
        Err(Malformed)
    }
}

/// Version 1: one line of words with a space between them.
fn line(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let within = &bytes[..bytes.len().min(LINE_MAX)];
    let Some(end) = within.windows(2).position(|two| two == b"\r\n") else {
        return if within.len() < LINE_MAX { Ok(None) } else { Err(Malformed) };
    };
    let text = str::from_utf8(&within[..end]).map_err(|_| Malformed)?;
    let mut words = text.split(' ').skip(1);
    let family = words.next().ok_or(Malformed)?;
    let len = end + 2;
    // Whatever follows is to be ignored.
    if family == "UNKNOWN" {
        return Ok(Some(Header { ends: None, len }));
    }
    let mut address = || {
        let word = words.next().ok_or(Malformed)?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| Malformed),
            "TCP6" => word.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| Malformed),
            _ => Err(Malformed),
        }
    };
    let (source, destination) = (address()?, address()?);
    let mut port = || words.next().and_then(decimal).ok_or(Malformed);
    let ends = Ends { source: SocketAddr::new(source, port()?), destination: SocketAddr::new(destination, port()?) };
    match words.next() {
        None => Ok(Some(Header { ends: Some(ends), len })),
        Some(_) => Err(Malformed),
    }
}

/// A port without sign or leading zeros.
fn decimal(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word.len() == 1 || !word.starts_with('0'));
    if plain { word.parse().ok() } else { None }
}

/// Version 2: a fixed part, addresses by family, and extensions by type and length.
fn binary(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some((command, family, rest)) = bytes.get(SIGNATURE.len()..FIXED).and_then(|fixed| match fixed {
        [command, family, high, low] => Some((*command, *family, usize::from(u16::from_be_bytes([*high, *low])))),
        _ => None,
    }) else {
        // A wrong version needs no length to be wrong.
        return match bytes.get(SIGNATURE.len()) {
            Some(&command) if command != LOCAL && command != PROXY => Err(Malformed),
            _ => Ok(None),
        };
    };
    let len = FIXED + rest;
    if command != LOCAL && command != PROXY || len > PROXY_HEADER_BYTES {
        return Err(Malformed);
    }
    let Some(body) = bytes.get(FIXED..len) else {
        return Ok(None);
    };
    if command == LOCAL {
        return Ok(Some(Header { ends: None, len }));
    }
    let (ends, extensions) = match family {
        UNSPECIFIED => (None, &[][..]),
        TCP4 => {
            let (addresses, extensions) = body.split_first_chunk::<12>().ok_or(Malformed)?;
            let [a, b, c, d, e, f, g, h, ports @ ..] = *addresses;
            (Some(ends(Ipv4Addr::new(a, b, c, d).into(), Ipv4Addr::new(e, f, g, h).into(), ports)), extensions)
        }
        TCP6 => {
            let (addresses, rest) = body.split_first_chunk::<32>().ok_or(Malformed)?;
            let (ports, extensions) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
            let (mut source, mut destination) = ([0; 16], [0; 16]);
            source.copy_from_slice(&addresses[..16]);
            destination.copy_from_slice(&addresses[16..]);
            (Some(ends(source.into(), destination.into(), *ports)), extensions)
        }
        // Its client has no address that means anything here.
        UNIX_STREAM => (None, body.get(UNIX..).ok_or(Malformed)?),
        // Datagrams do not come this way.
        _ => return Err(Malformed),
    };
    check_extensions(extensions)?;
    Ok(Some(Header { ends, len }))
}

fn ends(source: IpAddr, destination: IpAddr, [a, b, c, d]: [u8; 4]) -> Ends {
    Ends {
        source: SocketAddr::new(source, u16::from_be_bytes([a, b])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([c, d])),
    }
}

/// Extensions fill their room exactly; what they say is not looked at.
fn check_extensions(mut rest: &[u8]) -> Result<(), Malformed> {
    while let [_, high, low, behind @ ..] = rest {
        rest = behind.get(usize::from(u16::from_be_bytes([*high, *low]))..).ok_or(Malformed)?;
    }
    if rest.is_empty() { Ok(()) } else { Err(Malformed) }
}

/// Writes a header; without `about` it is one of a proxy that speaks for itself. Two addresses of different families are both
/// written as IPv6, IPv4 mapped.
pub fn write(version: Version, about: Option<Ends>, out: &mut Vec<u8>) {
    let Some(Ends { source, destination }) = about else {
        match version {
            Version::V1 => out.extend_from_slice(b"PROXY UNKNOWN\r\n"),
            Version::V2 => fixed(LOCAL, UNSPECIFIED, 0, out),
        }
        return;
    };
    // An IPv4 client of a dual-stack socket comes mapped.
    let (from, to) = match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (IpAddr::V4(from), IpAddr::V4(to)),
        (from, to) => (IpAddr::V6(wide(from)), IpAddr::V6(wide(to))),
    };
    match version {
        Version::V1 => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            let line = format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port());
            out.extend_from_slice(line.as_bytes());
        }
        Version::V2 => {
            match (from, to) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    fixed(PROXY, TCP4, 12, out);
                    out.extend(from.octets().into_iter().chain(to.octets()));
                }
                (from, to) => {
                    fixed(PROXY, TCP6, 36, out);
                    out.extend(wide(from).octets().into_iter().chain(wide(to).octets()));
                }
            }
            out.extend(source.port().to_be_bytes().into_iter().chain(destination.port().to_be_bytes()));
        }
    }
}

/// The part of version 2 before the addresses, which are so many bytes.
fn fixed(command: u8, family: u8, len: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(SIGNATURE);
    out.extend_from_slice(&[command, family]);
    out.extend_from_slice(&len.to_be_bytes());
}

fn wide(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

#[cfg(test)]
mod tests;
