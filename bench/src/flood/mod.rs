//! The attacker: one core that floods an HTTP/3 server as fast as it can, and comes back whenever it is thrown out.
//!
//! [`keys`] protects packets, [`frames`] writes and reads what they carry, [`link`] is one connection, [`kinds`] what each
//! flood sends. Knows no server in particular; `scripts/bench floods` looks at the victim meanwhile.

mod frames;
mod keys;
mod kinds;
mod link;

use crate::machine::{self, Failure, parse_duration};
use kinds::{Flood, Kind};
use link::{End, Link};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A server that says nothing for so long has forgotten the connection, or can no longer reach it.
const SILENCE: Duration = Duration::from_secs(1);
/// With no credit left, or none to ask for, the attacker waits so long for more.
const NO_CREDIT: Duration = Duration::from_millis(1);

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
    /// Run on this CPU
    #[arg(long)]
    cpu: Option<usize>,
}

/// What was sent, and how connections ended; printed as one JSON object.
#[derive(Debug, Default, Serialize)]
struct Report {
    seconds: f64,
    connections: u64,
    handshakes_failed: u64,
    packets: u64,
    bytes: u64,
    /// Ends by code and reason.
    ends: BTreeMap<String, u64>,
    own_cpu_s: f64,
}

/// Floods, and prints the report.
pub fn run(options: &Options) -> Result<(), Failure> {
    if let Some(cpu) = options.cpu {
        machine::pin(cpu)?;
    }
    let (start, mut report) = (Instant::now(), Report::default());
    let until = start + options.duration;
    let (mut settings, mut failure) = (link::transport()?, None);
    while Instant::now() < until {
        match Link::connect(options.to, &options.name, report.connections, &mut settings) {
            Ok(link) => {
                report.connections += 1;
                flood(options, link, until, &mut report)?;
            }
            Err(error) => {
                report.handshakes_failed += 1;
                failure = Some(error);
            }
        }
    }
    report.seconds = start.elapsed().as_secs_f64();
    report.own_cpu_s = machine::own_cpu().as_secs_f64();
    if report.connections == 0 {
        return Err(failure.unwrap_or_else(|| "there was no time".into()));
    }
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// One connection, to its end.
fn flood(options: &Options, mut link: Link, until: Instant, report: &mut Report) -> Result<(), Failure> {
    let mut flood = Flood::new(options.kind, &options.name, &options.path);
    let end = loop {
        let sent = link.send_train(|link, out| flood.fill(link, out))?;
        link.receive(if sent { Duration::ZERO } else { NO_CREDIT })?;
        if flood.is_honest() {
            link.acknowledge()?;
        }
        match &link.end {
            Some(End::Closed(code, reason)) => break format!("{code:#x} {reason}").trim_end().to_owned(),
            Some(End::Refused) => break "refused".to_owned(),
            None if Instant::now() > until => break "still open".to_owned(),
            None if link.heard.elapsed() > SILENCE => break "silent".to_owned(),
            None => {}
        }
    };
    *report.ends.entry(end).or_default() += 1;
    report.packets += link.sent.0;
    report.bytes += link.sent.1;
    Ok(())
}
