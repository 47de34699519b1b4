//! Owns `host[:port]`: its syntax, and the one spelling of a host that routes, certificates and policies compare.
//!
//! Stricter than RFC 3986: a name has only unreserved bytes, because escapes and sub-delimiters stand in no DNS name and no
//! certificate, and would only let one host have two spellings. Userinfo is refused (RFC 9110 §4.2.4).

use super::head::Scheme;
use super::syntax::is_unreserved;
use std::fmt::Write;
use std::net::Ipv6Addr;

/// The longest host taken: 253 bytes of a DNS name and a trailing dot, rounded up.
pub const HOST_MAX: usize = 255;

/// Whom a request is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authority {
    /// As sent.
    text: String,
    /// The host's one spelling where `text` does not begin with it; empty otherwise.
    rewritten: String,
    /// Invariant: `text[..host_len]` is the host if `rewritten` is empty.
    host_len: usize,
    port: Option<u16>,
}

impl Authority {
    /// The empty authority of an HTTP/1.0 request without Host.
    pub const fn new() -> Self {
        Self { text: String::new(), rewritten: String::new(), host_len: 0, port: None }
    }

    /// Reads `host[:port]`; `None` if it is not one.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut authority = Self::new();
        authority.set(text).then_some(authority)
    }

    /// Reads `host[:port]` into memory already held. `false`: not an authority; this one is empty then.
    #[must_use]
    pub fn set(&mut self, text: &[u8]) -> bool {
        self.clear();
        let taken = self.take(text).is_some();
        if !taken {
            self.clear();
        }
        taken
    }

    fn take(&mut self, bytes: &[u8]) -> Option<()> {
        let text = str::from_utf8(bytes).ok()?;
        let host = if text.starts_with('[') {
            let end = text.find(']')?;
            let address: Ipv6Addr = text[1..end].parse().ok()?;
            self.port = port(&text[end + 1..])?;
            // One spelling for every way to write the same address (RFC 5952).
            let _ = write!(self.rewritten, "[{address}]");
            &text[..end + 1]
        } else {
            let end = bytes.iter().position(|&byte| byte == b':');
            let host = &text[..end.unwrap_or(text.len())];
            self.port = port(&text[host.len()..])?;
            let name = host.strip_suffix('.').unwrap_or(host);
            if is_name(name)? == Case::Mixed {
                self.rewritten.push_str(name);
                self.rewritten.make_ascii_lowercase();
            }
            name
        };
        if self.rewritten == host {
            self.rewritten.clear();
        }
        self.host_len = host.len();
        self.text.push_str(text);
        Some(())
    }

    /// As sent.
    #[inline]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Lower case, without port and trailing dot; an IPv6 address stands in brackets in its shortest form.
    #[inline]
    pub fn host(&self) -> &str {
        if self.rewritten.is_empty() { &self.text[..self.host_len] } else { &self.rewritten }
    }

    /// The port, if one was sent.
    #[inline]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Whether there is none (HTTP/1.0 without Host).
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Whether both mean the same host and port on a connection of this scheme.
    pub fn agrees_with(&self, other: &Self, scheme: Scheme) -> bool {
        let port = |one: &Self| one.port.unwrap_or(scheme.default_port());
        self.host() == other.host() && port(self) == port(other)
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.rewritten.clear();
        self.host_len = 0;
        self.port = None;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Lower,
    Mixed,
}

/// A name or an IPv4 address: labels of unreserved bytes, none empty. `None`: it is not one.
fn is_name(name: &str) -> Option<Case> {
    if name.is_empty() || name.len() > HOST_MAX {
        return None;
    }
    let (mut upper, mut bad) = (false, false);
    let mut before = b'.';
    for byte in name.bytes() {
        upper |= byte.is_ascii_uppercase();
        bad |= !UNRESERVED[usize::from(byte)] | ((byte == b'.') & (before == b'.'));
        before = byte;
    }
    match bad | (before == b'.') {
        true => None,
        false if upper => Some(Case::Mixed),
        false => Some(Case::Lower),
    }
}

const UNRESERVED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = is_unreserved(byte as u8);
        byte += 1;
    }
    table
};

/// Reads what stands behind a host: nothing, or a colon and 1 to 65535. `None`: neither.
fn port(text: &str) -> Option<Option<u16>> {
    let Some(digits) = text.strip_prefix(':') else {
        return text.is_empty().then_some(None);
    };
    // `parse` alone would take a sign.
    if digits.len() > 5 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match digits.parse() {
        Ok(0) | Err(_) => None,
        Ok(port) => Some(Some(port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_one_spelling() {
        for (text, host, port) in [
            ("example.com", "example.com", None),
            ("Example.COM:8443", "example.com", Some(8443)),
            ("example.com.", "example.com", None),
            ("EXAMPLE.com.:1", "example.com", Some(1)),
            ("127.0.0.1:65535", "127.0.0.1", Some(65535)),
            ("[::1]", "[::1]", None),
            ("[0:0:0:0:0:0:0:1]:443", "[::1]", Some(443)),
            ("[2001:DB8::1]", "[2001:db8::1]", None),
            ("a_b~c-d", "a_b~c-d", None),
        ] {
            let authority = Authority::parse(text.as_bytes()).expect(text);
            assert_eq!(authority.host(), host);
            assert_eq!(authority.port(), port);
            assert_eq!(authority.as_str(), text);
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            ":80",
            "a:",
            "a:0",
            "a:65536",
            "a:+80",
            "a:80:80",
            "a:000080",
            "u@a",
            "u:p@a:80",
            "a/b",
            "a b",
            "a%41",
            "a,b",
            "a;b",
            "a\\b",
            "a?b",
            "a#b",
            "[::1",
            "[::1]x",
            "[::1]:",
            "::1",
            "[fe80::1%25eth0]",
            "[v1.x]",
            "[]",
            "[127.0.0.1]",
            "é",
            "a\0b",
            "a\tb",
        ] {
            assert_eq!(Authority::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(Authority::parse(b"\xff"), None);
        assert_eq!(Authority::parse(&[b'a'; HOST_MAX + 1]), None);
        assert!(Authority::parse(&[b'a'; HOST_MAX]).is_some());
    }

    #[test]
    fn a_failed_set_leaves_nothing_behind() {
        let mut authority = Authority::parse(b"Example.com:80").unwrap();
        assert!(!authority.set(b"[::1]:x"));
        assert_eq!(authority, Authority::new());
        assert!(authority.set(b"b") && authority.host() == "b");
    }

    #[test]
    fn the_default_port_may_be_left_out() {
        let plain = Authority::parse(b"a").unwrap();
        let with = Authority::parse(b"A:443").unwrap();
        assert!(plain.agrees_with(&with, Scheme::Https));
        assert!(!plain.agrees_with(&with, Scheme::Http));
    }
}
