//! The opening handshake of WebSocket (RFC 6455 §4) in the one form that all versions share.
//!
//! Owns what is particular to HTTP/1.1: the key that a client draws, the answer that proves it was understood, and which
//! heads ask for the protocol. HTTP/2 and HTTP/3 say the same with `:protocol` (RFC 8441, RFC 9220) and have neither key nor
//! answer. It refuses to know frames of WebSocket: what a tunnel carries is nobody's business here.

use super::fields::Fields;
use super::known::Known;
use super::list;
use super::reason::Reason;
use ring::digest;

/// The protocol's name, as Upgrade and `:protocol` say it.
pub const NAME: &[u8] = b"websocket";

/// The only version there is (RFC 6455 §4.1).
const VERSION: &[u8] = b"13";

/// What is hashed behind the key (RFC 6455 §1.3).
const GUID: &[u8; 36] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The value of Sec-WebSocket-Key: sixteen bytes in base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key([u8; 24]);

impl Key {
    /// The key of a nonce, which is drawn anew for each request.
    pub fn of(nonce: &[u8; 16]) -> Self {
        let mut text = [b'='; 24];
        base64(nonce, &mut text);
        Self(text)
    }

    /// Reads a key; `None` if it is not sixteen bytes in base64.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text: [u8; 24] = value.try_into().ok()?;
        let (digits, padding) = text.split_at(22);
        let digit = |byte: &u8| ALPHABET.iter().position(|one| one == byte);
        // Of the last digit only the two bits count that are left of sixteen bytes.
        let whole =
            digits.iter().all(|byte| digit(byte).is_some()) && digit(&text[21]).is_some_and(|bits| bits % 16 == 0);
        (whole && padding == b"==").then_some(Self(text))
    }

    /// As it stands on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The answer that a server which understood gives: the value of Sec-WebSocket-Accept (RFC 6455 §4.2.2).
    pub fn accept(&self) -> [u8; 28] {
        let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        hash.update(&self.0);
        hash.update(GUID);
        let mut text = [b'='; 28];
        base64(hash.finish().as_ref(), &mut text);
        text
    }
}

/// Writes bytes in base64; what is left of `text` stays the padding that it holds.
fn base64(bytes: &[u8], text: &mut [u8]) {
    for (three, four) in bytes.chunks(3).zip(text.chunks_mut(4)) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for (at, digit) in four.iter_mut().enumerate().take(three.len() + 1) {
            *digit = ALPHABET[(bits >> (18 - 6 * at)) as usize % 64];
        }
    }
}

/// Whether the fields of a GET over HTTP/1.1 ask for WebSocket: without Connection naming it, Upgrade means nothing
/// (RFC 9110 §7.8), and every other protocol is ignored.
pub(super) fn is_asked_by(fields: &Fields) -> bool {
    fields.contains(Known::Upgrade)
        && fields.has_token(Known::Upgrade, NAME)
        && fields.has_token(Known::Connection, b"upgrade")
}

/// Takes the key out of a request's fields.
///
/// # Errors
/// If it is missing, doubled or none.
pub(super) fn take_key(fields: &mut Fields) -> Result<Key, Reason> {
    let key = only(fields, Known::SecWebsocketKey).and_then(Key::parse).ok_or(Reason::WebSocket)?;
    fields.remove(Known::SecWebsocketKey);
    Ok(key)
}

/// Checks the version that a request asks for.
///
/// # Errors
/// If it is missing, doubled or another than 13.
pub(super) fn check_version(fields: &Fields) -> Result<(), Reason> {
    match only(fields, Known::SecWebsocketVersion) {
        Some(VERSION) => Ok(()),
        _ => Err(Reason::WebSocket),
    }
}

/// Whether the fields of a 101 say that the protocol is WebSocket now, and that its server understood the key.
pub(super) fn is_answered_by(fields: &Fields, accept: &[u8; 28]) -> bool {
    let mut named = fields.get_all(Known::Upgrade).flat_map(list::elements);
    let switched = named.next().is_some_and(|name| name.eq_ignore_ascii_case(NAME))
        && named.next().is_none()
        && fields.has_token(Known::Connection, b"upgrade");
    switched && only(fields, Known::SecWebsocketAccept) == Some(accept.as_slice())
}

/// The value of a field that stands there once.
fn only(fields: &Fields, known: Known) -> Option<&[u8]> {
    let mut values = fields.get_all(known);
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_key_is_that_of_the_rfc() {
        // RFC 6455 §1.3.
        let key = Key::parse(b"dGhlIHNhbXBsZSBub25jZQ==").expect("a key");
        assert_eq!(&key.accept(), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(Key::of(b"the sample nonce"), key);
    }

    #[test]
    fn a_key_is_sixteen_bytes_in_base64_and_nothing_else() {
        for bad in [
            &b""[..],
            b"dGhlIHNhbXBsZSBub25jZQ=",
            b"dGhlIHNhbXBsZSBub25jZQ==x",
            b"dGhlIHNhbXBsZSBub25jZQ=A",
            b"dGhlIHNhbXBsZSBub25j!Q==",
            b"dGhlIHNhbXBsZSBub25jZR==",
            b"dGhlIHNhbXBsZSBub25jZQ\0\0",
        ] {
            assert_eq!(Key::parse(bad), None, "{}", bad.escape_ascii());
        }
        for byte in 0..=255 {
            let key = Key::of(&[byte; 16]);
            assert_eq!(Key::parse(key.as_bytes()), Some(key));
        }
    }
}
