//! Owns the reading of frame headers (RFC 9113 §4.1) as bytes pass by, in either direction and however they are cut.
//!
//! It refuses to know what frames mean and checks nothing: the library does. What is learnt here is what the library does
//! not tell: how many frames of which kind came, which streams they were about, and which left.

/// Frame types (RFC 9113 §6).
pub mod kind {
    /// Body bytes, §6.1.
    pub const DATA: u8 = 0;
    /// A field section, §6.2.
    pub const HEADERS: u8 = 1;
    /// Deprecated, §6.3.
    pub const PRIORITY: u8 = 2;
    /// The end of a stream, §6.4.
    pub const RST_STREAM: u8 = 3;
    /// Parameters of the connection, §6.5.
    pub const SETTINGS: u8 = 4;
    /// A sign of life, §6.7.
    pub const PING: u8 = 6;
    /// No further streams, §6.8.
    pub const GOAWAY: u8 = 7;
    /// More credit, §6.9.
    pub const WINDOW_UPDATE: u8 = 8;
    /// The rest of a field section, §6.10.
    pub const CONTINUATION: u8 = 9;
}

/// Flags (RFC 9113 §6). ACK and END_STREAM are the same bit.
pub mod flag {
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const PADDED: u8 = 0x8;
}

/// Bytes of a frame header.
pub(super) const HEADER: usize = 9;

/// Bytes of the connection preface (RFC 9113 §3.4).
pub(super) const PREFACE: usize = 24;

/// Bytes kept of a payload: an error code, a last stream, or how much is padding.
const KEPT: usize = 4;

/// A frame that passed by whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// Bytes of the payload, padding included.
    pub(super) len: u32,
    /// The payload's first bytes; zeros behind a shorter one.
    start: [u8; KEPT],
}

impl Frame {
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether it ends its direction of its stream.
    pub(super) fn ends_stream(&self) -> bool {
        matches!(self.kind, kind::DATA | kind::HEADERS) && self.has(flag::END_STREAM)
    }

    /// The number in the payload's first four bytes: the code of RST_STREAM, the last stream of GOAWAY.
    pub(super) fn word(&self) -> u32 {
        u32::from_be_bytes(self.start)
    }

    /// Bytes of a DATA frame that are not padding.
    pub(super) fn content(&self) -> u32 {
        match self.has(flag::PADDED) {
            true => self.len.saturating_sub(1 + u32::from(self.start[0])),
            false => self.len,
        }
    }
}

/// Reads one direction.
#[derive(Debug)]
pub(super) struct Scanner {
    /// Bytes of the preface that are still to come.
    preface: usize,
    header: [u8; HEADER],
    /// Bytes in `header`. Invariant: less than [`HEADER`] unless a payload is under way.
    have: usize,
    /// Bytes of the payload that are still to come.
    left: u32,
    /// Of the frame whose payload is under way.
    frame: Frame,
}

impl Scanner {
    /// `preface`: the connection preface comes first.
    pub(super) fn new(preface: bool) -> Self {
        Self {
            preface: if preface { PREFACE } else { 0 },
            header: [0; HEADER],
            have: 0,
            left: 0,
            frame: Frame { kind: 0, flags: 0, stream: 0, len: 0, start: [0; KEPT] },
        }
    }

    /// Passes bytes by; each frame is told when its last byte did.
    pub(super) fn scan(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Frame)) {
        let preface = self.preface.min(bytes.len());
        self.preface -= preface;
        bytes = &bytes[preface..];
        while !bytes.is_empty() {
            if self.have < HEADER {
                let take = (HEADER - self.have).min(bytes.len());
                self.header[self.have..self.have + take].copy_from_slice(&bytes[..take]);
                self.have += take;
                bytes = &bytes[take..];
                if self.have < HEADER {
                    return;
                }
                self.begin();
            }
            let take = self.left.min(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            let payload = &bytes[..take as usize];
            let seen = (self.frame.len - self.left) as usize;
            if seen < KEPT {
                let keep = payload.len().min(KEPT - seen);
                self.frame.start[seen..seen + keep].copy_from_slice(&payload[..keep]);
            }
            self.left -= take;
            bytes = &bytes[take as usize..];
            if self.left == 0 {
                self.have = 0;
                tell(self.frame);
            }
        }
    }

    fn begin(&mut self) {
        let [a, b, c, kind, flags, d, e, f, g] = self.header;
        self.left = u32::from_be_bytes([0, a, b, c]);
        // The first bit is reserved (RFC 9113 §4.1).
        let stream = u32::from_be_bytes([d, e, f, g]) & (u32::MAX >> 1);
        self.frame = Frame { kind, flags, stream, len: self.left, start: [0; KEPT] };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend((stream | 1 << 31).to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn told(scanner: &mut Scanner, pieces: &[&[u8]]) -> Vec<Frame> {
        let mut frames = Vec::new();
        for piece in pieces {
            scanner.scan(piece, |frame| frames.push(frame));
        }
        frames
    }

    #[test]
    fn frames_are_told_the_same_however_they_are_cut() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(kind::SETTINGS, 0, 0, &[]));
        bytes.extend(frame(kind::DATA, flag::END_STREAM, 5, &[7; 300]));
        bytes.extend(frame(kind::RST_STREAM, 0, 5, &[0, 0, 0, 8]));
        bytes.extend(frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 5, 0, 0, 0, 11, b'x']));
        let whole = told(&mut Scanner::new(true), &[&bytes]);
        let of = |at: usize| (whole[at].kind, whole[at].stream, whole[at].len);
        assert_eq!(whole.len(), 4);
        assert_eq!((of(0), of(1)), ((kind::SETTINGS, 0, 0), (kind::DATA, 5, 300)));
        assert!(whole[1].ends_stream() && !whole[0].ends_stream());
        assert_eq!(whole[2].word(), 8);
        assert_eq!(whole[3].word(), 5);
        for size in 1..60 {
            let pieces = bytes.chunks(size).collect::<Vec<_>>();
            assert_eq!(told(&mut Scanner::new(true), &pieces), whole, "in pieces of {size}");
        }
    }

    #[test]
    fn padding_is_no_content() {
        let of =
            |flags: u8, payload: &[u8]| told(&mut Scanner::new(false), &[&frame(kind::DATA, flags, 1, payload)])[0];
        assert_eq!(of(0, b"abc").content(), 3);
        assert_eq!(of(flag::PADDED, &[2, b'a', 0, 0]).content(), 1);
        assert_eq!(of(flag::PADDED, &[200, 0, 0]).content(), 0, "more padding than there is");
        assert_eq!(of(flag::PADDED, &[]).content(), 0);
    }

    #[test]
    fn an_unfinished_frame_is_not_told() {
        let bytes = frame(kind::DATA, 0, 1, &[1; 20]);
        let mut scanner = Scanner::new(false);
        assert!(told(&mut scanner, &[&bytes[..28]]).is_empty());
        assert_eq!(told(&mut scanner, &[&bytes[28..]]).len(), 1);
    }
}
