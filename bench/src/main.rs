//! `spooky-bench`: load generators, the platform's floor, microbenchmarks and small network tools.
//!
//! Owns no part of the proxy and is not shipped with it. `scripts/bench compare` drives it; `docs/PERFORMANCE.md`
//! says how figures are taken.

#![deny(unsafe_code)]

mod flood;
mod floor;
mod load;
mod machine;
mod origin;
mod quic;
mod relay;
mod udp;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(version, about = "Benches of the Spooky proxy")]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Attacks a server with what no client has a reason to send
    Flood(flood::Options),
    /// The least that a proxy can do on this platform, to measure the real one against
    Floor(floor::Options),
    /// Drives a server over HTTP/3, HTTP/2 or HTTP/1.1 and reports rate, latency, errors and drops
    Load(Box<load::Options>),
    /// Serves HTTP/1.1 and HTTP/2 as the paths say: dribbles, lies, resets, sinks
    Origin(origin::Options),
    /// Passes UDP on with loss, delay and reordering, by a seed
    Relay(relay::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().bench {
        Bench::Flood(options) => flood::run(&options),
        Bench::Floor(options) => floor::run(&options),
        Bench::Load(options) => load::run(*options),
        Bench::Origin(options) => origin::run(&options),
        Bench::Relay(options) => relay::run(options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("spooky-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}
