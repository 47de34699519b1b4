//! Frames of RFC 9000 section 19: written for floods, and read as far as a flood has to understand its victim.

use crate::flood::prefixed;

/// H3_REQUEST_CANCELLED.
pub const CANCELLED: u64 = 0x10c;

/// Appends a varint of its shortest form.
pub fn varint(out: &mut Vec<u8>, value: u64) {
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// STREAM with offset and length.
pub fn stream(out: &mut Vec<u8>, id: u64, offset: u64, data: &[u8], last: bool) {
    out.push(0x0e | u8::from(last));
    for value in [id, offset, data.len() as u64] {
        varint(out, value);
    }
    out.extend_from_slice(data);
}

/// RESET_STREAM behind so many bytes, and STOP_SENDING: what a browser does on cancel.
pub fn cancel(out: &mut Vec<u8>, id: u64, sent: u64) {
    for value in [0x04, id, CANCELLED, sent, 0x05, id, CANCELLED] {
        varint(out, value);
    }
}

/// ACK of these ranges, the newest last; there must be one.
pub fn ack(out: &mut Vec<u8>, ranges: &[(u64, u64)]) {
    let Some((&(first, largest), rest)) = ranges.split_last() else {
        return;
    };
    for value in [0x02, largest, 0, rest.len() as u64, largest - first] {
        varint(out, value);
    }
    let mut before = first;
    for &(start, end) in rest.iter().rev() {
        varint(out, before - end - 2);
        varint(out, end - start);
        before = start;
    }
}

/// NEW_CONNECTION_ID that retires every one before it.
pub fn new_connection_id(out: &mut Vec<u8>, sequence: u64, id: &[u8]) {
    for value in [0x18, sequence, sequence, id.len() as u64] {
        varint(out, value);
    }
    out.extend_from_slice(id);
    out.extend_from_slice(&[0xaa; 16]);
}

/// An HTTP/3 frame.
pub fn http3(out: &mut Vec<u8>, kind: u64, payload: &[u8]) {
    varint(out, kind);
    varint(out, payload.len() as u64);
    out.extend_from_slice(payload);
}

/// A field section of literals with literal names (RFC 9204 section 4.5.6): what is written arrives as it is.
pub fn field_section<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut out = vec![0, 0];
    for (name, value) in fields {
        prefixed(&mut out, 0x20, 3, name.len());
        out.extend_from_slice(name.as_bytes());
        prefixed(&mut out, 0, 7, value.len());
        out.extend_from_slice(value.as_bytes());
    }
    out
}

/// What a flood heeds of what it is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// MAX_DATA.
    Data(u64),
    /// MAX_STREAM_DATA: stream and bytes.
    StreamData(u64, u64),
    /// MAX_STREAMS of bidirectional streams.
    Streams(u64),
    /// CONNECTION_CLOSE: of the application or not, code and reason.
    Close(bool, u64, String),
}

/// Reads a packet's frames; `None`: something that this reader does not know, and so cannot skip.
pub fn read(bytes: &[u8], mut told: impl FnMut(Told)) -> Option<()> {
    let mut at = Reader(bytes);
    while !at.0.is_empty() {
        let kind = at.varint()?;
        match kind {
            0x00 | 0x01 | 0x1e => {}
            0x02 | 0x03 => {
                let (_, _, count, _) = (at.varint()?, at.varint()?, at.varint()?, at.varint()?);
                let ecn = if kind == 3 { 3 } else { 0 };
                at.skip_varints(2 * count + ecn)?;
            }
            0x04 => at.skip_varints(3)?,
            0x05 => at.skip_varints(2)?,
            0x06 => {
                at.varint()?;
                at.skip_sized()?;
            }
            0x07 => at.skip_sized()?,
            0x08..=0x0f => {
                at.varint()?;
                at.skip_varints(u64::from(kind & 4 != 0))?;
                if kind & 2 == 0 {
                    return Some(());
                }
                at.skip_sized()?;
            }
            0x10 => told(Told::Data(at.varint()?)),
            0x11 => told(Told::StreamData(at.varint()?, at.varint()?)),
            0x12 => told(Told::Streams(at.varint()?)),
            0x13 | 0x14 | 0x16 | 0x17 | 0x19 => at.skip_varints(1)?,
            0x15 => at.skip_varints(2)?,
            0x18 => {
                at.skip_varints(2)?;
                at.skip_sized()?;
                at.take(16)?;
            }
            0x1a | 0x1b => drop(at.take(8)?),
            0x1c | 0x1d => {
                let code = at.varint()?;
                at.skip_varints(u64::from(kind == 0x1c))?;
                let len = usize::try_from(at.varint()?).ok()?;
                let reason = String::from_utf8_lossy(at.take(len)?).into_owned();
                told(Told::Close(kind == 0x1d, code, reason));
            }
            _ => return None,
        }
    }
    Some(())
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let len = 1 << (self.0.first()? >> 6);
        let bytes = self.take(len)?;
        let first = u64::from(bytes[0] & 0x3f);
        Some(bytes[1..].iter().fold(first, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn skip_varints(&mut self, count: u64) -> Option<()> {
        (0..count).try_for_each(|_| self.varint().map(drop))
    }

    /// A length and so many bytes; NEW_CONNECTION_ID's one byte of length is a varint too, as IDs are short.
    fn skip_sized(&mut self) -> Option<()> {
        let len = usize::try_from(self.varint()?).ok()?;
        self.take(len).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_that_is_written_is_passed_over_and_credit_is_heard() {
        let mut out = Vec::new();
        stream(&mut out, 4, 70_000, b"data", true);
        cancel(&mut out, 400, 4);
        ack(&mut out, &[(0, 3), (5, 5), (9, 20)]);
        new_connection_id(&mut out, 70_000, &[1; 16]);
        out.extend_from_slice(&[0x12, 0x40, 0x80, 0x10, 7, 0x11, 4, 9, 0x1a, 1, 2, 3, 4, 5, 6, 7, 8, 0]);
        out.extend_from_slice(b"\x1d\x41\x07\x05pings");
        let mut told = Vec::new();
        assert_eq!(read(&out, |one| told.push(one)), Some(()));
        let close = Told::Close(true, 0x107, "pings".to_owned());
        assert_eq!(told, [Told::Streams(128), Told::Data(7), Told::StreamData(4, 9), close]);
        for end in 0..out.len() {
            let _ = read(&out[..end], |_| {});
        }
    }

    #[test]
    fn ranges_are_written_as_the_rfc_says() {
        let mut out = Vec::new();
        ack(&mut out, &[(1, 2), (5, 7)]);
        // Largest 7, no delay, one more range, 2 below the largest; a gap of 2 (3 and 4), one below.
        assert_eq!(out, [2, 7, 0, 1, 2, 1, 1]);
    }
}
