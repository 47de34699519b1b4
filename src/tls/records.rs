//! Owns where one record ends and the next begins (RFC 8446 §5.1), and the one that has only come in part. Knows nothing
//! of what stands in a record.

use crate::limits::TLS_RECORD_BYTES;

/// Bytes of a record's header: type, version, length.
pub(super) const HEADER: usize = 5;

/// The type of a record that carries handshake messages.
pub(super) const HANDSHAKE: u8 = 22;

/// What cannot be the header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    /// Its type or version does not exist.
    Unknown([u8; HEADER]),
    /// Its content is longer than any may be.
    TooLong([u8; HEADER]),
}

/// Bytes of the record that begins with `header`, header included.
pub(super) fn length(header: [u8; HEADER]) -> Result<usize, BadHeader> {
    let [kind, major, _, high, low] = header;
    // change_cipher_spec, alert, handshake, application_data.
    if !(20..=23).contains(&kind) || major != 3 {
        return Err(BadHeader::Unknown(header));
    }
    let length = HEADER + usize::from(u16::from_be_bytes([high, low]));
    if length > TLS_RECORD_BYTES { Err(BadHeader::TooLong(header)) } else { Ok(length) }
}

/// The length of the record that `bytes` begins with; `None` while it is not whole.
pub(super) fn whole(bytes: &[u8]) -> Result<Option<usize>, BadHeader> {
    let Some(header) = bytes.first_chunk() else {
        return Ok(None);
    };
    length(*header).map(|length| Some(length).filter(|length| *length <= bytes.len()))
}

/// The beginning of a record whose rest has not come.
#[derive(Debug, Default)]
pub(super) struct Partial {
    /// Invariant: shorter than the record it begins.
    bytes: Vec<u8>,
}

impl Partial {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes so far.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes what belongs to the record from the front of `bytes`: how much that is, and the record once it is whole.
    ///
    /// This copies because a record is opened in one piece: of one read of 64 KiB of full records, every fourth.
    pub(super) fn fill(&mut self, bytes: &[u8]) -> Result<(usize, Option<Vec<u8>>), BadHeader> {
        let mut taken = 0;
        if self.bytes.len() < HEADER {
            taken = bytes.len().min(HEADER - self.bytes.len());
            self.bytes.extend_from_slice(&bytes[..taken]);
        }
        let Some(header) = self.bytes.first_chunk() else {
            return Ok((taken, None));
        };
        let length = length(*header)?;
        let missing = length - self.bytes.len();
        let more = missing.min(bytes.len() - taken);
        // Room for all of it where a good part is here: a peer that only announces a record gets no memory for it.
        let had = self.bytes.len() + more;
        if had * 4 >= length {
            self.bytes.reserve_exact(missing);
        }
        self.bytes.extend_from_slice(&bytes[taken..taken + more]);
        let record = (had == length).then(|| std::mem::take(&mut self.bytes));
        Ok((taken + more, record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[kind, 3, 3, length[0], length[1]], content].concat()
    }

    #[test]
    fn a_record_is_whole_when_its_last_byte_is_there() {
        let bytes = record(23, b"content");
        for cut in 0..bytes.len() {
            assert_eq!(whole(&bytes[..cut]), Ok(None), "{cut}");
        }
        assert_eq!(whole(&bytes), Ok(Some(12)));
        assert_eq!(whole(&[bytes.as_slice(), b"more"].concat()), Ok(Some(12)));
        assert_eq!(whole(&record(23, b"")), Ok(Some(5)));
    }

    #[test]
    fn what_is_no_record_is_said_at_its_header() {
        for header in [*b"GET /", [19, 3, 3, 0, 1], [24, 3, 3, 0, 1], [22, 2, 3, 0, 1], [0x80, 3, 3, 0, 1]] {
            assert_eq!(whole(&header), Err(BadHeader::Unknown(header)));
        }
        let most = u16::try_from(TLS_RECORD_BYTES - HEADER).unwrap();
        let with = |length: u16| [23, 3, 3, length.to_be_bytes()[0], length.to_be_bytes()[1]];
        assert_eq!(whole(&with(most)), Ok(None));
        assert_eq!(whole(&with(most + 1)), Err(BadHeader::TooLong(with(most + 1))));
    }

    #[test]
    fn a_record_in_pieces_is_put_together_and_its_memory_let_go() {
        let bytes = [record(22, b"one").as_slice(), b"behind"].concat();
        for first in 1..8 {
            for second in 1..8 {
                let mut partial = Partial::default();
                let (mut at, mut found) = (0, None);
                for piece in [first, second, bytes.len()] {
                    let piece = &bytes[at..bytes.len().min(at + piece)];
                    let (taken, record) = partial.fill(piece).unwrap();
                    at += taken;
                    found = record;
                    if found.is_some() {
                        break;
                    }
                    assert_eq!(taken, piece.len());
                }
                assert_eq!((found, at), (Some(record(22, b"one")), 8), "{first} {second}");
                assert!(partial.is_empty() && partial.bytes.capacity() == 0);
            }
        }
    }

    #[test]
    fn an_announced_record_gets_memory_as_it_comes() {
        let mut partial = Partial::default();
        assert_eq!(partial.fill(&[23, 3, 3, 0x40, 0, 1]), Ok((6, None)));
        assert!(partial.bytes.capacity() < 64);
        assert_eq!(partial.fill(&[0; 5000]), Ok((5000, None)));
        let all = partial.bytes.capacity();
        assert!((16_389..17_000).contains(&all), "{all}");
    }
}
