//! `spooky-micro`: what single operations cost, in nanoseconds and allocations.
//!
//! [`harness`] times, [`parts`] holds the pure parts of the proxy, [`admit`] who may come and how often, [`overload`] what
//! keeping to limits costs, [`balancers`] its picks, [`reactor`] the ring, [`tls`] TLS over TCP. Counting costs some nanoseconds
//! an allocation: compare runs of this program with each other, not with a profile of the proxy.

#![deny(unsafe_code)]

mod admit;
mod balancers;
mod harness;
mod overload;
mod parts;
mod reactor;
mod tls;

use clap::Parser;
use harness::Harness;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Microbenchmarks of the Spooky proxy
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Only those whose name contains this
    filter: Option<String>,
    /// Run on this CPU
    #[arg(long)]
    cpu: Option<usize>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// One short sample each: only to see that they run
    #[arg(long)]
    smoke: bool,
}

fn main() {
    let options = Options::parse();
    if let Some(cpu) = options.cpu
        && let Err(error) = spooky_uring::host::pin_to_cpu(cpu)
    {
        eprintln!("spooky-micro: cannot pin to CPU {cpu}: {error}");
    }
    let mut harness = Harness::new(options.filter, options.json, options.smoke);
    parts::run(&mut harness);
    admit::run(&mut harness);
    overload::run(&mut harness);
    balancers::run(&mut harness);
    reactor::run(&mut harness);
    tls::run(&mut harness);
}
