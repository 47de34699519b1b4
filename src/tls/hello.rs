//! Reads the server name out of a client's first message (RFC 8446 §4.1.2, RFC 6066 §3), before there is a connection: the
//! name chooses the context that the connection is made with.
//!
//! It judges nothing. What is no ClientHello, or a strange one, has no name, and the library says what is wrong with it
//! once the connection is made. Every bound here is of [`limits`](crate::limits).

use super::records::{self, HANDSHAKE, HEADER};
use crate::limits::{TLS_HELLO_BYTES, TLS_HELLO_RECORDS};

/// What the first bytes of a client say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// Not yet enough to tell.
    Incomplete,
    /// All there is: the host name asked for, or that there is none.
    Whole(Option<Box<str>>),
    /// It will have over [`TLS_HELLO_BYTES`], or is in over [`TLS_HELLO_RECORDS`].
    TooLong,
}

const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// Reads records from the first byte of a connection on; `bytes` may end anywhere.
pub fn read_hello(bytes: &[u8]) -> Hello {
    let mut rest = bytes;
    // Of a message in one record, nothing is copied.
    let mut gathered = Vec::new();
    let mut first: Option<&[u8]> = None;
    for _ in 0..=TLS_HELLO_RECORDS {
        let message = if gathered.is_empty() { first.unwrap_or_default() } else { &gathered };
        if let Some(&[kind, high, middle, low]) = message.first_chunk() {
            if kind != CLIENT_HELLO {
                return Hello::Whole(None);
            }
            let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            if 4 + length > TLS_HELLO_BYTES {
                return Hello::TooLong;
            }
            if let Some(body) = message.get(4..4 + length) {
                return Hello::Whole(server_name(body));
            }
        }
        let Some(header) = rest.first_chunk() else {
            return Hello::Incomplete;
        };
        let length = match records::length(*header) {
            Ok(length) if header[0] == HANDSHAKE => length,
            Ok(_) | Err(_) => return Hello::Whole(None),
        };
        if bytes.len() - rest.len() + length > TLS_HELLO_BYTES {
            return Hello::TooLong;
        }
        let Some((record, behind)) = rest.split_at_checked(length) else {
            return Hello::Incomplete;
        };
        rest = behind;
        let content = &record[HEADER..];
        match first {
            None => first = Some(content),
            Some(before) => {
                if gathered.is_empty() {
                    gathered.extend_from_slice(before);
                }
                gathered.extend_from_slice(content);
            }
        }
    }
    Hello::TooLong
}

/// The host name in the body of a ClientHello.
fn server_name(body: &[u8]) -> Option<Box<str>> {
    let mut body = Fields(body);
    body.take(2 + 32)?; // legacy_version, random
    body.vector_8()?; // legacy_session_id
    body.vector_16()?; // cipher_suites
    body.vector_8()?; // legacy_compression_methods
    let mut extensions = Fields(body.vector_16()?);
    while let Some(kind) = extensions.number_16() {
        let content = extensions.vector_16()?;
        if kind != SERVER_NAME {
            continue;
        }
        let mut names = Fields(Fields(content).vector_16()?);
        // There is one of each type at most, and no other type than this.
        let kind = names.take(1)?[0];
        let name = names.vector_16()?;
        return (kind == HOST_NAME).then(|| host_name(name)).flatten();
    }
    None
}

/// A name that a host can have; addresses are none (RFC 6066 §3).
fn host_name(name: &[u8]) -> Option<Box<str>> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 254 || !name.iter().all(plain) {
        return None;
    }
    let name = str::from_utf8(name).ok()?;
    name.parse::<std::net::Ipv4Addr>().is_err().then(|| name.into())
}

/// Fields of the TLS presentation language (RFC 8446 §3).
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn number_16(&mut self) -> Option<u16> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*number))
    }

    fn vector_8(&mut self) -> Option<&'a [u8]> {
        let length = self.take(1)?[0];
        self.take(usize::from(length))
    }

    fn vector_16(&mut self) -> Option<&'a [u8]> {
        let length = self.number_16()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector_16(content: &[u8]) -> Vec<u8> {
        [&u16::try_from(content.len()).unwrap().to_be_bytes(), content].concat()
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [kind.to_be_bytes().as_slice(), &vector_16(content)].concat()
    }

    fn named(kind: u8, name: &[u8]) -> Vec<u8> {
        extension(0, &vector_16(&[&[kind], vector_16(name).as_slice()].concat()))
    }

    fn message(extensions: &[u8]) -> Vec<u8> {
        let body = [
            [3, 3].as_slice(),
            &[7; 32],
            &[2, 1, 1],
            &vector_16(&[0x13, 1]),
            &[1, 0],
            vector_16(extensions).as_slice(),
        ]
        .concat();
        [&[1, 0, (body.len() >> 8) as u8, body.len() as u8], body.as_slice()].concat()
    }

    fn records(message: &[u8], most: usize) -> Vec<u8> {
        message.chunks(most).flat_map(|part| [[22, 3, 1].as_slice(), &vector_16(part)].concat()).collect()
    }

    fn name(extensions: &[u8]) -> Hello {
        read_hello(&records(&message(extensions), 16_384))
    }

    fn found(name: &str) -> Hello {
        Hello::Whole(Some(name.into()))
    }

    #[test]
    fn the_name_is_found_wherever_the_records_are_cut() {
        let hello = message(&[extension(43, &[2, 3, 4]), named(0, b"a.test"), extension(16, b"")].concat());
        for most in [2, 3, 5, 64, 16_384] {
            let bytes = records(&hello, most);
            for cut in 0..bytes.len() {
                assert_eq!(read_hello(&bytes[..cut]), Hello::Incomplete, "{most} {cut}");
            }
            assert_eq!(read_hello(&bytes), found("a.test"));
            assert_eq!(read_hello(&[bytes.as_slice(), b"more"].concat()), found("a.test"));
        }
    }

    #[test]
    fn names_are_those_a_host_can_have() {
        assert_eq!(name(&named(0, b"A.Test.")), found("A.Test."));
        for bad in [b"".as_slice(), b"a b", b"a/b", b"\xffa", b"a\0.test", b"192.0.2.1", b"[::1]", &[b'a'; 255]] {
            assert_eq!(name(&named(0, bad)), Hello::Whole(None), "{bad:?}");
        }
        assert_eq!(name(&named(1, b"a.test")), Hello::Whole(None));
        assert_eq!(name(b""), Hello::Whole(None));
        // The first one counts; that there are two is for the library to say.
        assert_eq!(name(&[named(0, b"a.test"), named(0, b"b.test")].concat()), found("a.test"));
    }

    #[test]
    fn hellos_of_others_are_read() {
        for (file, expected) in [
            ("openssl-tls13", found("a.fuzz.test")),
            ("openssl-tls12", found("a.fuzz.test")),
            ("in-small-records", found("a.fuzz.test")),
            ("hello-and-more", found("a.fuzz.test")),
            ("no-name", Hello::Whole(None)),
            ("plain-http", Hello::Whole(None)),
            ("alert-first", Hello::Whole(None)),
            ("cut", Hello::Incomplete),
            ("announces-too-much", Hello::TooLong),
        ] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/fuzz/tls_hello").join(file);
            assert_eq!(read_hello(&std::fs::read(path).unwrap()), expected, "{file}");
        }
    }

    #[test]
    fn nonsense_has_no_name_and_is_not_waited_for() {
        let hello = message(&named(0, b"a.test"));
        for length in 4..hello.len() {
            // A message that says it is shorter than what is in it.
            let mut cut = hello[..length].to_vec();
            cut[2..4].copy_from_slice(&u16::try_from(length - 4).unwrap().to_be_bytes());
            assert_eq!(read_hello(&records(&cut, 16_384)), Hello::Whole(None), "{length}");
        }
        let mut other = hello.clone();
        other[0] = 2;
        assert_eq!(read_hello(&records(&other, 16_384)), Hello::Whole(None));
        assert_eq!(read_hello(&[21, 3, 1, 0, 2, 1, 0]), Hello::Whole(None));
        assert_eq!(read_hello(b"GET / HTTP/1.1"), Hello::Whole(None));
    }

    #[test]
    fn a_hello_is_bounded_in_what_it_says_and_in_what_it_takes() {
        assert_eq!(read_hello(&[22, 3, 1, 0, 4, 1, 0, 0x40, 0]), Hello::TooLong);
        assert_eq!(read_hello(&[22, 3, 1, 0, 4, 1, 0, 0x3f, 0]), Hello::Incomplete);
        let begun = [[1, 0, 0x3f, 0].as_slice(), &[0; 200]].concat();
        assert_eq!(read_hello(&records(&begun[..TLS_HELLO_RECORDS], 1)), Hello::Incomplete);
        assert_eq!(read_hello(&records(&begun[..TLS_HELLO_RECORDS + 1], 1)), Hello::TooLong);
        // The message fits, but not what else its record says it holds.
        assert_eq!(read_hello(&[22, 3, 1, 0x3f, 0xfb, 1, 0]), Hello::Incomplete);
        assert_eq!(read_hello(&[22, 3, 1, 0x3f, 0xfc]), Hello::TooLong);
    }
}
