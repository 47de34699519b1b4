//! Crowds: many connections over TCP that each take their time, or come and go. Who is thrown out is replaced at once.

use super::http2::frames::{
    self, END_HEADERS, END_STREAM, INITIAL_WINDOW_SIZE, PREFACE, WINDOW_MAX, field, frame, kind, setting, word,
};
use super::wire::{Dialer, Wire};
use super::{Options, Report};
use crate::machine::Failure;
use spooky::tls::Alpn;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A crowd over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Connect and close
    Connects,
    /// Shake hands and close
    Handshakes,
    /// Nothing behind the first byte of a ClientHello
    TlsBytes,
    /// Nothing behind the ClientHello
    TlsHellos,
    /// A request's head over HTTP/1.1, a byte a second
    SlowHeads,
    /// A request's body over HTTP/1.1, a byte a second
    SlowBodies,
    /// A request's body over HTTP/1.1 that stands still behind its first byte
    StalledBodies,
    /// A response over HTTP/1.1 that is read a byte a second
    SlowReads,
    /// 100 responses on each connection over HTTP/2, whose windows stay shut
    H2ZeroWindows,
    /// 100 responses on each connection over HTTP/2, with windows wide open and a socket that nobody reads
    H2NeverReads,
}

/// How a crowd behaves.
impl Kind {
    /// Connections at once.
    fn connections(self) -> usize {
        match self {
            Self::Connects | Self::Handshakes => 1,
            Self::TlsBytes | Self::TlsHellos => 4_000,
            Self::SlowHeads => 2_000,
            Self::SlowBodies | Self::StalledBodies | Self::SlowReads => 500,
            // With 100 streams each, fewer exchanges than a backend is given by default.
            Self::H2ZeroWindows | Self::H2NeverReads => 8,
        }
    }

    fn protocol(self) -> Alpn {
        match self {
            Self::H2ZeroWindows | Self::H2NeverReads => Alpn::H2,
            _ => Alpn::H1,
        }
    }

    /// Whether a connection gets through the handshake.
    fn shakes_hands(self) -> bool {
        !matches!(self, Self::Connects | Self::TlsBytes | Self::TlsHellos)
    }

    /// What each connection sends at once, and what it sends a byte a second of.
    fn script(self, options: &Options, dialer: &Dialer) -> Result<(Vec<u8>, Vec<u8>), Failure> {
        let head = |method: &str, more: &str| {
            format!("{method} {} HTTP/1.1\r\nhost: {}\r\n{more}", options.path, options.name).into_bytes()
        };
        let body = format!("content-length: {}\r\n\r\na", 1 << 20);
        Ok(match self {
            Self::Connects | Self::Handshakes => (Vec::new(), Vec::new()),
            Self::TlsBytes => (vec![0x16], Vec::new()),
            Self::TlsHellos => (dialer.hello()?, Vec::new()),
            Self::SlowHeads => (Vec::new(), head("GET", &format!("x-slow: {}\r\n\r\n", "s".repeat(4_000)))),
            Self::SlowBodies => (head("POST", &body), vec![b'a'; 4_000]),
            Self::StalledBodies => (head("POST", &body), Vec::new()),
            Self::SlowReads => (head("GET", "\r\n"), Vec::new()),
            Self::H2ZeroWindows => (requests(options, 0), Vec::new()),
            Self::H2NeverReads => (requests(options, WINDOW_MAX), Vec::new()),
        })
    }

    /// Bytes that a connection reads in a turn.
    fn appetite(self) -> usize {
        match self {
            Self::SlowReads => 1,
            Self::H2NeverReads => 0,
            _ => usize::MAX,
        }
    }
}

/// The beginning of a connection over HTTP/2, and 100 requests.
fn requests(options: &Options, window: u32) -> Vec<u8> {
    let mut out = PREFACE.to_vec();
    frame(&mut out, kind::SETTINGS, 0, 0, &setting(INITIAL_WINDOW_SIZE, window));
    // Beside the 65,535 bytes that every connection begins with.
    word(&mut out, kind::WINDOW_UPDATE, 0, WINDOW_MAX - 65_535);
    let mut head = Vec::new();
    let fields = [(":method", "GET"), (":scheme", "https"), (":authority", &*options.name), (":path", &*options.path)];
    fields.iter().for_each(|(name, value)| field(&mut head, name, value));
    for stream in 0..100 {
        frame(&mut out, kind::HEADERS, END_STREAM | END_HEADERS, 2 * stream + 1, &head);
    }
    out
}

/// One of the crowd.
struct Member {
    wire: Wire,
    /// Bytes of the slow part that were sent.
    sent: usize,
    since: Instant,
    /// What was answered in the end: the status line or the GOAWAY.
    answer: Option<String>,
}

const SECOND: Duration = Duration::from_secs(1);
/// Between two looks at everybody.
const TURN: Duration = Duration::from_millis(20);

/// Keeps the crowd up until then.
pub fn run(kind: Kind, options: &Options, until: Instant, report: &mut Report) -> Result<(), Failure> {
    let mut dialer = Dialer::new(options.to, &options.name, kind.protocol())?;
    if matches!(kind, Kind::SlowReads | Kind::H2NeverReads) {
        dialer.receive_buffer = Some(4 << 10);
    }
    let (first, slow) = kind.script(options, &dialer)?;
    let most = options.connections.unwrap_or(kind.connections());
    let mut crowd: Vec<Member> = Vec::new();
    while Instant::now() < until {
        while crowd.len() < most && Instant::now() < until {
            let wire = if kind.shakes_hands() { dialer.connect_secure() } else { dialer.connect() };
            match wire {
                Ok(mut wire) => {
                    report.connections += 1;
                    wire.send(first.clone());
                    wire.flush();
                    crowd.push(Member { wire, sent: 0, since: Instant::now(), answer: None });
                }
                Err(error) => {
                    report.handshake_failed(error);
                    // Whoever is refused for a reason is not let in a moment later.
                    break;
                }
            }
        }
        report.open_most = report.open_most.max(crowd.len() as u64);
        let comes_and_goes = matches!(kind, Kind::Connects | Kind::Handshakes);
        crowd.retain_mut(|member| {
            let over = comes_and_goes || !member.turn(kind, &slow);
            if over {
                member.tell(report, if comes_and_goes { "closed by the attacker" } else { "still open" });
            }
            !over
        });
        if !comes_and_goes {
            sleep(TURN);
        }
    }
    crowd.iter().for_each(|member| member.tell(report, "still open"));
    Ok(())
}

impl Member {
    /// Does what is due; false: it is over.
    fn turn(&mut self, kind: Kind, slow: &[u8]) -> bool {
        let due = usize::try_from(self.since.elapsed().as_secs()).unwrap_or(usize::MAX).min(slow.len());
        if self.sent < due {
            self.wire.send(slow[self.sent..due].to_vec());
            self.sent = due;
        }
        self.wire.flush();
        self.wire.check();
        let reads = kind.appetite();
        if reads != 1 || self.wire.moved.elapsed() >= SECOND {
            self.wire.receive(reads);
        }
        if kind.protocol() == Alpn::H2 {
            if let Some(code) = frames::read(&mut self.wire.came) {
                self.answer = Some(format!("GOAWAY {code:#x}"));
            }
        } else if kind != Kind::SlowReads
            && self.answer.is_none()
            && self.wire.came.starts_with(b"HTTP/1")
            && let Some(end) = self.wire.came.iter().position(|byte| *byte == b'\r')
        {
            self.answer = Some(String::from_utf8_lossy(&self.wire.came[..end]).into_owned());
        }
        self.wire.end.is_none()
    }

    fn tell(&self, report: &mut Report, otherwise: &str) {
        report.bytes += self.wire.bytes;
        let end = self.wire.end.unwrap_or(otherwise);
        report.ended(match &self.answer {
            Some(answer) => format!("{answer}, {end}"),
            None => end.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_whole_frames_behind_the_preface() {
        let options = Options {
            kind: super::super::Kind::Crowd(Kind::H2ZeroWindows),
            to: ([127, 0, 0, 1], 1).into(),
            name: "bench.test".to_owned(),
            path: "/".to_owned(),
            duration: SECOND,
            connections: None,
            cpu: None,
        };
        let mut bytes = requests(&options, 0).split_off(PREFACE.len());
        assert_eq!(frames::read(&mut bytes), None);
        assert!(bytes.is_empty());
    }
}
