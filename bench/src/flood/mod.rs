//! The attacker: one core that floods a server as fast as it can, and comes back whenever it is thrown out.
//!
//! [`quic`] floods HTTP/3 with packets of its own, [`http2`] sends frames over TLS, [`crowd`] is many connections over TCP
//! that each take their time; [`wire`] is one of those connections. Knows no server in particular; `scripts/bench floods`
//! looks at the victim meanwhile.

mod crowd;
mod http2;
mod quic;
mod wire;

use crate::machine::{self, Failure, parse_duration};
use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// A server that says nothing for so long has forgotten the connection, or can no longer reach it.
const SILENCE: Duration = Duration::from_secs(1);

/// Options of `flood`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// What to send without end
    kind: Kind,
    /// The server
    #[arg(long, value_name = "ADDRESS:PORT")]
    to: SocketAddr,
    /// Its name
    #[arg(long, default_value = "bench.test")]
    name: String,
    /// Path of the requests
    #[arg(long, default_value = "/")]
    path: String,
    /// For how long
    #[arg(long, short = 'd', default_value = "20s", value_parser = parse_duration)]
    duration: Duration,
    /// Crowds: connections at once (default: by the kind)
    #[arg(long, short = 'c')]
    connections: Option<usize>,
    /// Run on this CPU
    #[arg(long)]
    cpu: Option<usize>,
}

/// Any flood, by the transport it goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Quic(quic::Kind),
    Http2(http2::Kind),
    Crowd(crowd::Kind),
}

static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    let quic = quic::Kind::value_variants().iter().map(|kind| Kind::Quic(*kind));
    let http2 = http2::Kind::value_variants().iter().map(|kind| Kind::Http2(*kind));
    let crowd = crowd::Kind::value_variants().iter().map(|kind| Kind::Crowd(*kind));
    quic.chain(http2).chain(crowd).collect()
});

impl ValueEnum for Kind {
    fn value_variants<'a>() -> &'a [Self] {
        &KINDS
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::Quic(kind) => kind.to_possible_value(),
            Self::Http2(kind) => kind.to_possible_value(),
            Self::Crowd(kind) => kind.to_possible_value(),
        }
    }
}

/// What was sent, and how connections ended; printed as one JSON object.
#[derive(Debug, Default, Serialize)]
struct Report {
    seconds: f64,
    connections: u64,
    handshakes_failed: u64,
    /// Most connections open at once.
    open_most: u64,
    /// Over QUIC.
    packets: u64,
    /// Over HTTP/2.
    frames: u64,
    bytes: u64,
    /// Ends by code and reason.
    ends: BTreeMap<String, u64>,
    own_cpu_s: f64,
    /// Why the last handshake failed.
    handshake_failure: Option<String>,
}

impl Report {
    fn ended(&mut self, end: impl Into<String>) {
        *self.ends.entry(end.into()).or_default() += 1;
    }

    fn handshake_failed(&mut self, error: impl ToString) {
        self.handshakes_failed += 1;
        self.handshake_failure = Some(error.to_string());
    }
}

/// Floods, and prints the report.
pub fn run(options: &Options) -> Result<(), Failure> {
    if let Some(cpu) = options.cpu {
        machine::pin(cpu)?;
    }
    machine::raise_file_limit();
    let (start, mut report) = (Instant::now(), Report::default());
    let until = start + options.duration;
    match options.kind {
        Kind::Quic(kind) => quic::run(kind, options, until, &mut report)?,
        Kind::Http2(kind) => http2::run(kind, options, until, &mut report)?,
        Kind::Crowd(kind) => crowd::run(kind, options, until, &mut report)?,
    }
    report.seconds = start.elapsed().as_secs_f64();
    report.own_cpu_s = machine::own_cpu().as_secs_f64();
    if report.connections == 0 {
        return Err(report.handshake_failure.unwrap_or_else(|| "there was no time".to_owned()).into());
    }
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// An integer with a prefix of so many bits (RFC 7541 section 5.1, and so RFC 9204 section 4.1.1).
fn prefixed(out: &mut Vec<u8>, first: u8, bits: u32, value: usize) {
    let most = (1 << bits) - 1;
    if value < most {
        out.push(first | value as u8);
        return;
    }
    out.push(first | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flood_has_a_name_of_its_own() {
        let mut names: Vec<_> =
            KINDS.iter().map(|kind| kind.to_possible_value().expect("a name").get_name().to_owned()).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        assert_eq!(Kind::from_str("h2-resets", false), Ok(Kind::Http2(http2::Kind::Resets)));
    }

    #[test]
    fn integers_are_written_as_in_the_rfc() {
        // RFC 7541 appendix C.1.
        let written = |bits, value| {
            let mut out = Vec::new();
            prefixed(&mut out, 0, bits, value);
            out
        };
        assert_eq!(written(5, 10), [10]);
        assert_eq!(written(5, 1337), [31, 154, 10]);
        assert_eq!(written(8, 42), [42]);
    }
}
