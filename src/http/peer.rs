//! Owns the text forms of a client's address, made once per connection (and again after a migration), and the search for
//! the client behind trusted proxies.
//!
//! It refuses to know which proxies are trusted: the caller brings that as a function. Read [`super::forward`] next.

use super::fields::Fields;
use super::known::Known;
use super::list;
use std::io::Write;
use std::net::{IpAddr, Ipv6Addr};

/// The address of the other side of a connection, ready to be written into fields.
#[derive(Clone, Copy)]
pub struct Peer {
    ip: Option<IpAddr>,
    /// `for=192.0.2.1` or `for="[2001:db8::1]"`: at most 4 + 2 + 2 + 45 bytes.
    node: [u8; 56],
    node_len: u8,
    /// Where the bare address stands in `node`.
    start: u8,
    end: u8,
}

impl Peer {
    /// The peer at `ip`; `None` for a unix socket. A mapped address is the IPv4 address it maps.
    pub fn new(ip: Option<IpAddr>) -> Self {
        let ip = ip.map(|ip| ip.to_canonical());
        let mut node = [0; 56];
        let mut rest = &mut node[..];
        // The buffer holds every form, so writing cannot fail.
        let (written, quotes) = match ip {
            Some(IpAddr::V4(ip)) => (write!(rest, "for={ip}"), 0),
            Some(IpAddr::V6(ip)) => (write!(rest, "for=\"[{ip}]\""), 2),
            None => (write!(rest, "for=unknown"), 0),
        };
        debug_assert!(written.is_ok());
        let left = rest.len();
        let node_len = (node.len() - left) as u8;
        Self { ip, node, node_len, start: 4 + quotes, end: node_len - quotes }
    }

    /// The address; `None` for a unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    /// The address as X-Forwarded-For has it; `unknown` for a unix socket.
    pub fn address(&self) -> &[u8] {
        &self.node[usize::from(self.start)..usize::from(self.end)]
    }

    /// The `for` parameter of Forwarded (RFC 7239 §5.2).
    pub fn node(&self) -> &[u8] {
        &self.node[..usize::from(self.node_len)]
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Peer").field(&self.ip).finish()
    }
}

/// The client: the rightmost address that no trusted proxy has, seen from `peer`. If all are trusted it is the leftmost;
/// an element that is no address ends the search, because what stands left of it was vouched for by nobody known.
///
/// X-Forwarded-For is read if there is any, and Forwarded only otherwise: a proxy that writes one of them usually writes
/// the former and lets the latter through as its client sent it.
pub fn client_address(fields: &Fields, peer: IpAddr, trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    let peer = peer.to_canonical();
    if !trusted(peer) {
        return peer;
    }
    if fields.contains(Known::XForwardedFor) {
        let nodes = fields.get_all(Known::XForwardedFor).rev().flat_map(|value| list::elements(value).rev());
        return rightmost_untrusted(nodes, peer, trusted);
    }
    // Quoted lists are read from the left; only trusted peers bring them here, so collecting is rare and small.
    let nodes: Vec<&[u8]> =
        fields.get_all(Known::Forwarded).flat_map(list::quoted_elements).map(for_parameter).collect();
    rightmost_untrusted(nodes.into_iter().rev(), peer, trusted)
}

fn rightmost_untrusted<'a>(
    nodes: impl Iterator<Item = &'a [u8]>,
    peer: IpAddr,
    trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let mut client = peer;
    for node in nodes {
        let Some(address) = parse_node(node) else {
            return client;
        };
        client = address;
        if !trusted(address) {
            return client;
        }
    }
    client
}

/// The value of `for` in one element of Forwarded; empty if there is none, which is no address.
fn for_parameter(element: &[u8]) -> &[u8] {
    list::split_quoted(element, b';')
        .find_map(|pair| match pair {
            [b'f' | b'F', b'o' | b'O', b'r' | b'R', b'=', value @ ..] => Some(value),
            _ => None,
        })
        .unwrap_or_default()
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`, each maybe in quotes.
fn parse_node(node: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(node).ok()?;
    let text = match text.strip_prefix('"') {
        Some(inner) => inner.strip_suffix('"')?,
        None => text,
    };
    let address = if let Some(inner) = text.strip_prefix('[') {
        let (address, port) = inner.split_once(']')?;
        let port_is_fine = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        let address: Ipv6Addr = address.parse().ok().filter(|_| port_is_fine)?;
        IpAddr::V6(address)
    } else {
        match text.split_once(':') {
            Some((address, port)) if is_port(port) => IpAddr::V4(address.parse().ok()?),
            _ => text.parse().ok()?,
        }
    };
    Some(address.to_canonical())
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_their_text_forms() {
        for (ip, address, node) in [
            ("192.0.2.1", "192.0.2.1", "for=192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1", "for=192.0.2.1"),
            ("2001:db8::1", "2001:db8::1", "for=\"[2001:db8::1]\""),
            (
                "2001:1111:2222:3333:4444:5555:6666:7777",
                "2001:1111:2222:3333:4444:5555:6666:7777",
                "for=\"[2001:1111:2222:3333:4444:5555:6666:7777]\"",
            ),
            ("255.255.255.255", "255.255.255.255", "for=255.255.255.255"),
        ] {
            let peer = Peer::new(Some(ip.parse().unwrap()));
            assert_eq!(peer.address(), address.as_bytes());
            assert_eq!(peer.node(), node.as_bytes());
        }
        assert_eq!(Peer::new(None).node(), b"for=unknown");
        assert_eq!(Peer::new(None).address(), b"unknown");
    }

    fn client(fields: &[(&str, &str)]) -> String {
        let mut section = Fields::new();
        for (name, value) in fields {
            section.push(name.as_bytes(), value.as_bytes());
        }
        let trusted = |ip: IpAddr| matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 10);
        client_address(&section, "10.0.0.1".parse().unwrap(), trusted).to_string()
    }

    #[test]
    fn the_client_is_the_rightmost_untrusted_address() {
        let xff = "x-forwarded-for";
        for (fields, expected) in [
            (&[][..], "10.0.0.1"),
            (&[(xff, "192.0.2.9")], "192.0.2.9"),
            (&[(xff, "203.0.113.1, 192.0.2.9, 10.0.0.2")], "192.0.2.9"),
            (&[(xff, "203.0.113.1"), (xff, "192.0.2.9")], "192.0.2.9"),
            (&[(xff, "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
            (&[(xff, "192.0.2.9, nonsense, 10.0.0.2")], "10.0.0.2"),
            (&[(xff, "192.0.2.9:1234")], "192.0.2.9"),
            (&[(xff, "[2001:db8::1]:443")], "2001:db8::1"),
            (&[(xff, "2001:db8::1")], "2001:db8::1"),
            (&[(xff, "192.0.2.9"), ("forwarded", "for=192.0.2.1")], "192.0.2.9"),
            (&[("forwarded", "for=192.0.2.1;proto=http, For=\"[2001:db8::1]:80\";by=_x")], "2001:db8::1"),
            (&[("forwarded", "for=_hidden, for=10.0.0.9")], "10.0.0.9"),
            (&[("forwarded", "proto=https")], "10.0.0.1"),
        ] {
            assert_eq!(client(fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        let mut section = Fields::new();
        section.push(b"x-forwarded-for", b"192.0.2.9");
        let peer = "198.51.100.1".parse().unwrap();
        assert_eq!(client_address(&section, peer, |_| false), peer);
    }
}
