//! Owns the accounts of what the other side may do but has no reason to do often: one small ledger per connection. When one
//! of its buckets runs over, the connection is closed with ENHANCE_YOUR_CALM (RFC 9113 §10.5).
//!
//! It is written from the headers of the frames that pass by, before the library sees them. The bounds and their reasons
//! stand in [`crate::limits::h2::glitch`].

use super::code;
use super::frames::{Frame, kind};
use crate::http::Buckets;
use crate::limits::h2::glitch;

/// Why a connection was closed for excessive load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Glitch {
    /// RST_STREAM frames, beyond one for each answered request.
    Resets,
    /// Mistakes for which we had to reset a stream.
    Malformed,
    /// CONTINUATION frames.
    Continuations,
    /// SETTINGS frames.
    Settings,
    /// PING frames.
    Pings,
    /// DATA frames without content that end nothing.
    Empty,
    /// PRIORITY frames.
    Priorities,
    /// WINDOW_UPDATE frames.
    WindowUpdates,
    /// Frames of types we do not know, GOAWAY frames among them.
    Unknown,
    /// The library closed the connection: it counts what costs it memory.
    Library,
}

/// Kinds with a bucket; the last kind is the library's.
const BUCKETS: usize = Glitch::ALL.len() - 1;

impl Glitch {
    /// Every kind, in the order of the variants.
    pub const ALL: [Self; 10] = [
        Self::Resets,
        Self::Malformed,
        Self::Continuations,
        Self::Settings,
        Self::Pings,
        Self::Empty,
        Self::Priorities,
        Self::WindowUpdates,
        Self::Unknown,
        Self::Library,
    ];

    /// The token of the metrics label.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Resets => "resets",
            Self::Malformed => "malformed",
            Self::Continuations => "continuations",
            Self::Settings => "settings",
            Self::Pings => "pings",
            Self::Empty => "empty",
            Self::Priorities => "priorities",
            Self::WindowUpdates => "window_updates",
            Self::Unknown => "unknown",
            Self::Library => "library",
        }
    }
}

/// The ledger of one connection.
#[derive(Debug, Default)]
pub(super) struct Glitches {
    buckets: Buckets<BUCKETS>,
}

impl Glitches {
    /// So many seconds after the connection began: what leaked since the last time.
    #[inline]
    pub(super) fn tick(&mut self, second: u64) {
        self.buckets.tick(second, &glitch::LEAK);
    }

    /// A frame came.
    #[inline]
    pub(super) fn received(&mut self, frame: &Frame) {
        let kind = match frame.kind {
            kind::DATA if frame.content() > 0 || frame.ends_stream() => {
                self.buckets.pay(Glitch::Pings as usize, 1);
                return;
            }
            kind::HEADERS => {
                self.buckets.pay(Glitch::Priorities as usize, 2);
                self.buckets.pay(Glitch::WindowUpdates as usize, 2);
                self.buckets.pay(Glitch::Unknown as usize, 2);
                return;
            }
            kind::DATA => Glitch::Empty,
            kind::PRIORITY => Glitch::Priorities,
            kind::RST_STREAM => Glitch::Resets,
            kind::SETTINGS => Glitch::Settings,
            kind::PING => Glitch::Pings,
            kind::WINDOW_UPDATE => Glitch::WindowUpdates,
            kind::CONTINUATION => Glitch::Continuations,
            _ => Glitch::Unknown,
        };
        self.buckets.charge(kind as usize, 1);
    }

    /// A request's head was refused for its size. It is charged twice, because its answer pays for one.
    pub(super) fn large_head(&mut self) {
        self.buckets.charge(Glitch::Malformed as usize, 2);
    }

    /// A frame of ours left.
    #[inline]
    pub(super) fn sent(&mut self, frame: &Frame) {
        if frame.kind == kind::DATA && frame.len >= glitch::PAYING_BYTES {
            self.buckets.pay(Glitch::WindowUpdates as usize, 2);
            self.buckets.pay(Glitch::Pings as usize, 1);
        }
        if frame.ends_stream() {
            self.buckets.pay(Glitch::Resets as usize, 1);
            self.buckets.pay(Glitch::Malformed as usize, 1);
            self.buckets.pay(Glitch::Continuations as usize, 1);
        }
        if frame.kind == kind::RST_STREAM && is_fault(frame.word()) {
            self.buckets.charge(Glitch::Malformed as usize, 1);
        }
    }

    /// The first bucket that ran over.
    #[inline]
    pub(super) fn overflow(&self) -> Option<Glitch> {
        self.buckets.overflow(&glitch::LIMIT).map(|kind| Glitch::ALL[kind])
    }
}

/// Whether the code of a RST_STREAM of ours says that the other side did something wrong.
fn is_fault(reset: u32) -> bool {
    matches!(
        u64::from(reset),
        code::PROTOCOL_ERROR
            | code::FLOW_CONTROL_ERROR
            | code::STREAM_CLOSED
            | code::FRAME_SIZE_ERROR
            | code::REFUSED_STREAM
            | code::ENHANCE_YOUR_CALM
    )
}

#[cfg(test)]
mod tests {
    use super::super::frames::Scanner;
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Frame {
        let mut bytes = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 1];
        bytes.extend(payload);
        let mut found = None;
        Scanner::new(false).scan(&bytes, |frame| found = Some(frame));
        found.expect("one frame")
    }

    const RESET: [u8; 4] = [0, 0, 0, 8];

    #[test]
    fn kinds_index_their_buckets_and_the_ledger_is_small() {
        for (index, kind) in Glitch::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
        assert!(size_of::<Glitches>() <= 24);
    }

    #[test]
    fn every_flood_of_frames_runs_over_its_own_bucket_and_leaks() {
        let floods = [
            (Glitch::Resets, frame(kind::RST_STREAM, 0, &RESET)),
            (Glitch::Continuations, frame(kind::CONTINUATION, 0, b"")),
            (Glitch::Settings, frame(kind::SETTINGS, 0, b"")),
            (Glitch::Pings, frame(kind::PING, 0, &[0; 8])),
            (Glitch::Empty, frame(kind::DATA, 0, b"")),
            (Glitch::Empty, frame(kind::DATA, 8, &[3, 0, 0, 0])),
            (Glitch::Priorities, frame(kind::PRIORITY, 0, &[0; 5])),
            (Glitch::WindowUpdates, frame(kind::WINDOW_UPDATE, 0, &[0, 0, 0, 1])),
            (Glitch::Unknown, frame(0xbe, 0, b"")),
            (Glitch::Unknown, frame(kind::GOAWAY, 0, &[0; 8])),
        ];
        for (kind, frame) in floods {
            let mut ledger = Glitches::default();
            for _ in 0..glitch::LIMIT[kind as usize] {
                ledger.received(&frame);
            }
            assert_eq!(ledger.overflow(), None, "{kind:?} at its limit");
            ledger.received(&frame);
            assert_eq!(ledger.overflow(), Some(kind));
            ledger.tick(1);
            assert_eq!(ledger.overflow(), None, "{kind:?} leaks");
        }
    }

    #[test]
    fn resets_that_we_are_made_to_send_count_and_others_do_not() {
        let mut ledger = Glitches::default();
        let ours = |reset: u64| frame(kind::RST_STREAM, 0, &(reset as u32).to_be_bytes());
        for _ in 0..10_000 {
            ledger.sent(&ours(code::NO_ERROR));
            ledger.sent(&ours(code::CANCEL));
            ledger.sent(&ours(code::INTERNAL_ERROR));
        }
        assert_eq!(ledger.overflow(), None);
        for _ in 0..=glitch::LIMIT[Glitch::Malformed as usize] {
            ledger.sent(&ours(code::PROTOCOL_ERROR));
        }
        assert_eq!(ledger.overflow(), Some(Glitch::Malformed));
    }

    #[test]
    fn useful_work_pays() {
        let mut ledger = Glitches::default();
        for _ in 0..100_000 {
            ledger.received(&frame(kind::RST_STREAM, 0, &RESET));
            ledger.sent(&frame(kind::HEADERS, 1, b"x"));
            // A download whose client measures the path and opens both windows for each frame.
            ledger.sent(&frame(kind::DATA, 0, &[1; 255]));
            ledger.received(&frame(kind::WINDOW_UPDATE, 0, &[0, 0, 64, 0]));
            ledger.received(&frame(kind::WINDOW_UPDATE, 0, &[0, 0, 64, 0]));
            ledger.received(&frame(kind::PING, 0, &[0; 8]));
            ledger.received(&frame(kind::HEADERS, 5, b"x"));
            ledger.received(&frame(kind::PRIORITY, 0, &[0; 5]));
        }
        assert_eq!(ledger.overflow(), None);
    }

    #[test]
    fn a_window_opened_byte_by_byte_is_not_paid_for() {
        let mut ledger = Glitches::default();
        let found = (0..10_000).find(|_| {
            ledger.received(&frame(kind::WINDOW_UPDATE, 0, &[0, 0, 0, 1]));
            ledger.sent(&frame(kind::DATA, 0, b"x"));
            ledger.overflow().is_some()
        });
        assert!(found.is_some());
        assert_eq!(ledger.overflow(), Some(Glitch::WindowUpdates));
    }
}
