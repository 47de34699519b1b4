//! Frames of RFC 9113 section 6 and field sections of RFC 7541: written for floods, and read as far as one has to know why it
//! was thrown out.

use crate::flood::prefixed;

pub use spooky::h2::kind;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// CANCEL.
pub const CANCEL: u32 = 8;
/// SETTINGS_INITIAL_WINDOW_SIZE.
pub const INITIAL_WINDOW_SIZE: u16 = 4;
/// The largest window.
pub const WINDOW_MAX: u32 = i32::MAX as u32;

/// Length of a frame's header, and the largest payload without another agreement.
pub const HEADER_BYTES: usize = 9;
pub const PAYLOAD_BYTES_MAX: usize = 16 << 10;

/// Appends a frame; the payload is at most [`PAYLOAD_BYTES_MAX`] long.
pub fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A frame whose payload is one number.
pub fn word(out: &mut Vec<u8>, kind: u8, stream: u32, value: u32) {
    frame(out, kind, 0, stream, &value.to_be_bytes());
}

/// A setting, as its payload.
pub fn setting(id: u16, value: u32) -> [u8; 6] {
    let ([a, b], [c, d, e, f]) = (id.to_be_bytes(), value.to_be_bytes());
    [a, b, c, d, e, f]
}

/// A literal without indexing and without Huffman's code: what is written arrives as it is.
pub fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(0);
    text(out, name);
    text(out, value);
}

/// A literal that both sides remember; the next one to be remembered has index 62 until then.
pub fn field_remembered(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(0x40);
    text(out, name);
    text(out, value);
}

fn text(out: &mut Vec<u8>, text: &str) {
    prefixed(out, 0, 7, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// Takes whole frames off the front of what came. The code of a GOAWAY, if there was one with an error.
pub fn read(came: &mut Vec<u8>) -> Option<u32> {
    let (mut at, mut code) = (0, None);
    while let Some(header) = came.get(at..at + HEADER_BYTES) {
        let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        let kind = header[3];
        let Some(payload) = came.get(at + HEADER_BYTES..at + HEADER_BYTES + length) else {
            break;
        };
        if kind == kind::GOAWAY
            && let Some(&[a, b, c, d]) = payload.get(4..8)
        {
            code = Some(u32::from_be_bytes([a, b, c, d])).filter(|code| *code != 0).or(code);
        }
        at += HEADER_BYTES + length;
    }
    came.drain(..at);
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goaway_is_heard_between_other_frames_and_what_is_cut_waits() {
        let mut came = Vec::new();
        frame(&mut came, kind::DATA, END_STREAM, 1, &[1; 300]);
        frame(&mut came, kind::GOAWAY, 0, 0, &[0, 0, 0, 9, 0, 0, 0, 11, b'!']);
        word(&mut came, kind::RST_STREAM, 3, CANCEL);
        let whole = came.clone();
        assert_eq!(read(&mut came), Some(11));
        assert!(came.is_empty());
        let mut cut = whole[..HEADER_BYTES + 300 + 12].to_vec();
        assert_eq!(read(&mut cut), None);
        assert_eq!(cut.len(), 12);
        cut.extend_from_slice(&whole[HEADER_BYTES + 300 + 12..]);
        assert_eq!(read(&mut cut), Some(11));
    }

    #[test]
    fn a_graceful_end_has_no_code() {
        let mut came = Vec::new();
        frame(&mut came, kind::GOAWAY, 0, 0, &[0; 8]);
        assert_eq!(read(&mut came), None);
    }

    #[test]
    fn fields_are_written_as_in_the_rfc() {
        let mut out = Vec::new();
        field_remembered(&mut out, "custom-key", "custom-header");
        // RFC 7541 appendix C.2.1.
        assert_eq!(out, b"\x40\x0acustom-key\x0dcustom-header");
    }
}
