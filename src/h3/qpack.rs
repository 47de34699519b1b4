//! Owns how a response head becomes bytes: a QPACK field section (RFC 9204) in an HTTP/3 HEADERS frame, and the header of
//! a DATA frame.
//!
//! Only the static table is used, so nothing ever waits for the peer's decoder. Strings are not Huffman coded: it would
//! save some 50 bytes of a typical head and cost more time than sending them. Decoding is quiche's.
//!
//! Frames are written by us and not by quiche's HTTP/3 layer, because that one sends a head whole or not at all: a head
//! larger than the congestion window (2 packets after heavy loss) would wait for ever.

use crate::http::{Fields, ResponseHead};

const FRAME_DATA: u8 = 0x00;
/// 0x1f * 0 + 0x21
const FRAME_RESERVED: u8 = 0x21;
const FRAME_HEADERS: u8 = 0x01;

/// Bytes of the longest DATA frame header: type, and a length of 8 bytes.
pub(super) const DATA_HEADER_MAX: usize = 9;

/// More than the prefix, the frame header, `:status` and `content-length` take.
const HEAD_OVERHEAD: usize = 64;

/// More than a field takes beside its name and value: two lengths of up to 5 bytes each.
const FIELD_OVERHEAD: usize = 10;

/// Upper bound of the bytes [`response`] writes for this head.
pub(super) fn response_len_max(head: &ResponseHead) -> usize {
    HEAD_OVERHEAD + fields_len_max(&head.fields)
}

fn fields_len_max(fields: &Fields) -> usize {
    // `Fields::bytes` adds 32 for each field.
    const _: () = assert!(FIELD_OVERHEAD <= 32);
    fields.bytes()
}

/// Appends the HEADERS frame of a response.
pub(super) fn response(head: &ResponseHead, out: &mut Vec<u8>) {
    headers_frame(response_len_max(head), out, |out| {
        status(head.status, out);
        for (name, value) in head.fields.iter() {
            field(name.name, value, out);
        }
        if let Some(length) = head.content_length {
            let mut digits = [0; 20];
            let digits = crate::http::syntax::decimal(length, &mut digits);
            field(b"content-length", digits, out);
        }
    });
}

/// Appends the HEADERS frame of a trailer section.
pub(super) fn trailers(fields: &Fields, out: &mut Vec<u8>) {
    headers_frame(HEAD_OVERHEAD + fields_len_max(fields), out, |out| {
        for (name, value) in fields.iter() {
            field(name.name, value, out);
        }
    });
}

/// Appends the header of a DATA frame with a payload of `len` bytes.
pub(super) fn data_header(len: usize, out: &mut Vec<u8>) {
    out.push(FRAME_DATA);
    let len = len as u64;
    match len {
        0..0x40 => out.push(len as u8),
        0x40..0x4000 => out.extend_from_slice(&(0x4000 | len as u16).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend_from_slice(&(0x8000_0000 | len as u32).to_be_bytes()),
        _ => out.extend_from_slice(&(0xc000_0000_0000_0000 | len).to_be_bytes()),
    }
}

/// Writes an empty frame of a reserved type, which every receiver ignores (RFC 9114 §7.2.8).
pub(super) fn reserved_frame(out: &mut Vec<u8>) {
    out.extend_from_slice(&[FRAME_RESERVED, 0]);
}

/// Writes the frame header with a length field wide enough for `len_max`, then the section, then fills the length in.
fn headers_frame(len_max: usize, out: &mut Vec<u8>, section: impl FnOnce(&mut Vec<u8>)) {
    out.reserve(len_max);
    out.push(FRAME_HEADERS);
    // A varint need not be the shortest one (RFC 9000 §16).
    let wide = len_max >= 0x4000;
    let at = out.len();
    out.extend_from_slice(if wide { &[0; 4] } else { &[0; 2] });
    let start = out.len();
    // Required Insert Count and Base are 0: no dynamic table.
    out.extend_from_slice(&[0, 0]);
    section(out);
    let len = out.len() - start;
    assert!(len <= len_max && len < 0x4000_0000, "field section of {len} bytes");
    if wide {
        out[at..start].copy_from_slice(&(0x8000_0000 | len as u32).to_be_bytes());
    } else {
        out[at..start].copy_from_slice(&(0x4000 | len as u16).to_be_bytes());
    }
}

fn status(status: u16, out: &mut Vec<u8>) {
    let index = match status {
        103 => 24,
        200 => 25,
        304 => 26,
        404 => 27,
        503 => 28,
        100 => 63,
        204 => 64,
        206 => 65,
        302 => 66,
        400 => 67,
        403 => 68,
        421 => 69,
        425 => 70,
        500 => 71,
        _ => {
            let digits = [status / 100 % 10, status / 10 % 10, status % 10].map(|d| b'0' + d as u8);
            literal_with_name(25, &digits, out);
            return;
        }
    };
    indexed(index, out);
}

fn field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    match lookup(name, value) {
        Match::Field(index) => indexed(index, out),
        Match::Name(index) => literal_with_name(index, value, out),
        Match::None => {
            // 001N Hxxx: literal name, not Huffman coded.
            prefixed(0x20, 3, name.len(), out);
            out.extend_from_slice(name);
            string(value, out);
        }
    }
}

/// 11xx xxxx: a whole field of the static table.
fn indexed(index: u8, out: &mut Vec<u8>) {
    prefixed(0xc0, 6, usize::from(index), out);
}

/// 01N1 xxxx: a name of the static table and a literal value.
fn literal_with_name(index: u8, value: &[u8], out: &mut Vec<u8>) {
    prefixed(0x50, 4, usize::from(index), out);
    string(value, out);
}

fn string(value: &[u8], out: &mut Vec<u8>) {
    prefixed(0x00, 7, value.len(), out);
    out.extend_from_slice(value);
}

/// An integer behind a prefix of so many bits (RFC 7541 §5.1).
#[inline]
pub(super) fn prefixed(pattern: u8, bits: u8, value: usize, out: &mut Vec<u8>) {
    let limit = (1usize << bits) - 1;
    if value < limit {
        out.push(pattern | value as u8);
        return;
    }
    out.push(pattern | limit as u8);
    let mut rest = value - limit;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[derive(Clone, Copy)]
enum Match {
    /// Name and value stand in the table.
    Field(u8),
    /// The name does.
    Name(u8),
    /// Neither does.
    None,
}

/// Looks a response field up in the static table (RFC 9204 appendix A); request-only names are left out.
fn lookup(name: &[u8], value: &[u8]) -> Match {
    use Match::{Field, Name};
    let pick = |entries: &[(&[u8], u8)], name| {
        entries.iter().find(|(entry, _)| *entry == value).map_or(Name(name), |&(_, index)| Field(index))
    };
    match name {
        b"age" => pick(&[(b"0", 2)], 2),
        b"content-disposition" => Name(3),
        b"content-length" => pick(&[(b"0", 4)], 4),
        b"date" => Name(6),
        b"etag" => Name(7),
        b"last-modified" => Name(10),
        b"link" => Name(11),
        b"location" => Name(12),
        b"set-cookie" => Name(14),
        b"accept-ranges" => pick(&[(b"bytes", 32)], 32),
        b"access-control-allow-headers" => pick(&[(b"cache-control", 33), (b"content-type", 34), (b"*", 75)], 33),
        b"access-control-allow-origin" => pick(&[(b"*", 35)], 35),
        b"access-control-allow-credentials" => pick(&[(b"FALSE", 73), (b"TRUE", 74)], 73),
        b"access-control-allow-methods" => pick(&[(b"get", 76), (b"get, post, options", 77), (b"options", 78)], 76),
        b"access-control-expose-headers" => pick(&[(b"content-length", 79)], 79),
        b"cache-control" => pick(
            &[
                (b"max-age=0", 36),
                (b"max-age=2592000", 37),
                (b"max-age=604800", 38),
                (b"no-cache", 39),
                (b"no-store", 40),
                (b"public, max-age=31536000", 41),
            ],
            36,
        ),
        b"content-encoding" => pick(&[(b"br", 42), (b"gzip", 43)], 42),
        b"content-type" => pick(
            &[
                (b"application/dns-message", 44),
                (b"application/javascript", 45),
                (b"application/json", 46),
                (b"application/x-www-form-urlencoded", 47),
                (b"image/gif", 48),
                (b"image/jpeg", 49),
                (b"image/png", 50),
                (b"text/css", 51),
                (b"text/html; charset=utf-8", 52),
                (b"text/plain", 53),
                (b"text/plain;charset=utf-8", 54),
            ],
            44,
        ),
        b"strict-transport-security" => pick(
            &[
                (b"max-age=31536000", 56),
                (b"max-age=31536000; includesubdomains", 57),
                (b"max-age=31536000; includesubdomains; preload", 58),
            ],
            56,
        ),
        b"vary" => pick(&[(b"accept-encoding", 59), (b"origin", 60)], 59),
        b"x-content-type-options" => pick(&[(b"nosniff", 61)], 61),
        b"x-xss-protection" => pick(&[(b"1; mode=block", 62)], 62),
        b"alt-svc" => pick(&[(b"clear", 83)], 83),
        b"content-security-policy" => pick(&[(b"script-src 'none'; object-src 'none'; base-uri 'none'", 85)], 85),
        b"expect-ct" => Name(87),
        b"server" => Name(92),
        b"timing-allow-origin" => pick(&[(b"*", 93)], 93),
        b"x-frame-options" => pick(&[(b"deny", 97), (b"sameorigin", 98)], 97),
        _ => Match::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a HEADERS frame of ours back, with the table's names written out by the test.
    fn frame_payload(frame: &[u8]) -> &[u8] {
        assert_eq!(frame[0], FRAME_HEADERS);
        let (len, start) = match frame[1] >> 6 {
            1 => (usize::from(u16::from_be_bytes([frame[1] & 0x3f, frame[2]])), 3),
            2 => (u32::from_be_bytes([frame[1] & 0x3f, frame[2], frame[3], frame[4]]) as usize, 5),
            other => panic!("length form {other}"),
        };
        assert_eq!(frame.len(), start + len);
        &frame[start..]
    }

    fn head(status: u16, fields: &[(&str, &str)], content_length: Option<u64>) -> ResponseHead {
        let mut head = ResponseHead::new(status);
        for (name, value) in fields {
            assert!(head.fields.push(name.as_bytes(), value.as_bytes()));
        }
        head.content_length = content_length;
        head
    }

    #[test]
    fn known_fields_take_one_byte_and_unknown_ones_are_literal() {
        let mut out = Vec::new();
        response(&head(200, &[("content-type", "text/plain"), ("x-a", "b"), ("server", "s")], Some(0)), &mut out);
        assert_eq!(
            frame_payload(&out),
            [&[0, 0, 0xc0 | 25, 0xc0 | 53][..], &[0x20 | 3], b"x-a\x01b", &[0x5f, 92 - 15], b"\x01s", &[0xc0 | 4],]
                .concat()
        );
    }

    #[test]
    fn any_status_is_three_digits() {
        let mut out = Vec::new();
        response(&head(418, &[], None), &mut out);
        assert_eq!(frame_payload(&out), [&[0, 0, 0x5f, 25 - 15][..], b"\x03418"].concat());
    }

    #[test]
    fn a_large_head_uses_the_wide_length() {
        let long = "v".repeat(20_000);
        let mut out = Vec::new();
        response(&head(200, &[("x-long", &long)], None), &mut out);
        assert!(frame_payload(&out).ends_with(long.as_bytes()));
        assert_eq!(out[1] >> 6, 2);
    }

    #[test]
    fn data_headers_have_every_width() {
        for (len, expected) in [
            (1usize, &[0u8, 1][..]),
            (63, &[0, 63]),
            (64, &[0, 0x40, 64]),
            (0x3fff, &[0, 0x7f, 0xff]),
            (0x4000, &[0, 0x80, 0, 0x40, 0]),
            (0x3fff_ffff, &[0, 0xbf, 0xff, 0xff, 0xff]),
            (0x4000_0000, &[0, 0xc0, 0, 0, 0, 0x40, 0, 0, 0]),
        ] {
            let mut out = Vec::new();
            data_header(len, &mut out);
            assert_eq!(out, expected);
            assert!(out.len() <= DATA_HEADER_MAX);
        }
    }

    #[test]
    fn prefixed_integers_match_the_examples_of_rfc_7541() {
        let mut out = Vec::new();
        prefixed(0, 5, 10, &mut out);
        prefixed(0, 5, 1337, &mut out);
        assert_eq!(out, [10, 31, 154, 10]);
    }
}
