//! The load generator: many connections on one thread, driving any server of HTTP/3, HTTP/2 or HTTP/1.1.
//!
//! [`plan`] is what was asked, [`engine`] the loop, [`client`] one connection, [`h3`] and [`tcp`] what carries its requests,
//! [`exchange`] one of them, [`schedule`] when requests start, [`tally`] what is counted, [`watch`] the look at the server's
//! process, [`report`] the result. It refuses to know which server it drives. Start reading at [`run`].

mod body;
mod client;
mod engine;
mod exchange;
mod h3;
mod plan;
mod report;
mod schedule;
mod tally;
mod tcp;
mod watch;

pub use plan::Options;

use crate::machine::{self, Failure};
use engine::Engine;
use plan::{Pace, Plan, Until};
use report::{Idle, Report};
use std::io::{self, Write};
use std::time::{Duration, Instant};
use watch::{Sample, Watch, core_busy_seconds};

/// What is known at the beginning of the measured time.
struct Beginning {
    at: Instant,
    own_cpu: Duration,
    own_core_busy_s: Option<f64>,
    watched: Option<Sample>,
}

/// Runs the generator and prints the report; fails if nothing succeeded.
pub fn run(options: Options) -> Result<(), Failure> {
    let plan = Plan::new(options)?;
    machine::raise_file_limit();
    if let Some(cpu) = plan.options.cpu {
        machine::pin(cpu)?;
    }
    let format = plan.options.format;
    let watch = plan.options.watch.map(|pid| Watch::new(pid, plan.options.watch_cpu));
    let report = drive(plan, watch)?;
    // A closed pipe is the reader's choice, not a failure.
    let _ = writeln!(io::stdout(), "{}", report.render(format).trim_end());
    if report.succeeded == 0 {
        return Err("no request succeeded".into());
    }
    Ok(())
}

fn drive(plan: Plan, watch: Option<Watch>) -> Result<Report, Failure> {
    let mut engine = Engine::new(plan, Instant::now())?;
    let warm_end = Instant::now() + engine.plan.options.warmup;
    while Instant::now() < warm_end {
        engine.turn(warm_end)?;
    }
    engine.restart_tally();
    engine.schedule.begin_measuring();
    let beginning = Beginning {
        at: Instant::now(),
        own_cpu: machine::own_cpu(),
        own_core_busy_s: engine.plan.options.cpu.map(core_busy_seconds),
        watched: watch.map(|watch| watch.sample()),
    };
    let mut idle = None;
    match (engine.plan.pace, engine.plan.until) {
        (Pace::Idle { gap }, _) => idle = Some(idle_crowd(&mut engine, gap, watch, &beginning)?),
        (_, Until::Time(time)) => {
            let end = beginning.at + time;
            while Instant::now() < end {
                engine.turn(end)?;
            }
        }
        (_, Until::Requests(count)) => {
            while engine.tally.succeeded + engine.tally.failed() < count {
                engine.turn(Instant::now() + Duration::from_secs(1))?;
            }
        }
    }
    let report = conclude(&engine, &beginning, watch, idle);
    engine.close_all();
    Ok(report)
}

/// One request on each connection, silence, one more on each.
fn idle_crowd(
    engine: &mut Engine,
    gap: Duration,
    watch: Option<Watch>,
    beginning: &Beginning,
) -> Result<Idle, Failure> {
    let second = Duration::from_secs(1);
    while !engine.is_settled() {
        engine.turn(Instant::now() + second)?;
    }
    let mut idle =
        Idle { connections: engine.ready_connections(), succeeded_before: engine.tally.succeeded, ..Idle::default() };
    let failed_before = engine.tally.failed();
    let silence = Instant::now();
    // After the first fifth acknowledgements and tickets are through; late in the silence the server has freed what it wants to.
    let (from, to) = (silence + gap.mul_f64(0.2), silence + gap.mul_f64(0.8));
    while Instant::now() < from {
        engine.turn(from)?;
    }
    let quiet = watch.map(|watch| watch.sample());
    while Instant::now() < to {
        engine.turn(to)?;
    }
    if let (Some(watch), Some(before), Some(quiet)) = (watch, beginning.watched, quiet) {
        let now = watch.sample();
        let kib = now.rss_kib() as f64 - before.rss_kib() as f64;
        idle.rss_before_kib = Some(before.rss_kib());
        idle.rss_idle_kib = Some(now.rss_kib());
        idle.kib_per_connection = Some(kib / idle.connections.max(1) as f64);
        idle.cpu_share = Some(watch.between(quiet, now, (to - from).as_secs_f64()).cpu_share);
    }
    while silence.elapsed() < gap {
        engine.turn(silence + gap)?;
    }
    // The second round at the pace of the first.
    let mut next = Instant::now();
    for key in engine.keys() {
        engine.release(key);
        next += engine.plan.connect_interval;
        loop {
            engine.turn(next)?;
            if Instant::now() >= next {
                break;
            }
        }
    }
    while !engine.is_settled() {
        engine.turn(Instant::now() + second)?;
    }
    idle.succeeded_after = engine.tally.succeeded - idle.succeeded_before;
    // A connection that died in the silence never got to fail its second request: it counts all the same.
    let missing = idle.connections.saturating_sub(idle.succeeded_after + engine.tally.failed() - failed_before);
    for _ in 0..missing {
        engine.tally.fail(tally::Fault::ConnectionLost);
    }
    Ok(idle)
}

fn conclude(engine: &Engine, beginning: &Beginning, watch: Option<Watch>, idle: Option<Idle>) -> Report {
    let seconds = beginning.at.elapsed().as_secs_f64().max(1e-9);
    let watched = watch.zip(beginning.watched).map(|(watch, start)| watch.between(start, watch.sample(), seconds));
    let own_cpu = machine::own_cpu().saturating_sub(beginning.own_cpu);
    let tally = &engine.tally;
    let [latency_ms, first_byte_ms, handshake_ms] = tally.quantiles();
    let dropped = engine.dropped();
    // The kernel counts a dropped batch once: assume it held as many datagrams as those that came through.
    let lost = dropped as f64 * tally.datagrams as f64 / tally.receives.max(1) as f64;
    Report {
        protocol: engine.plan.protocol,
        seconds,
        succeeded: tally.succeeded,
        failed: tally.failed(),
        faults: tally.faults(),
        requests_per_second: tally.succeeded as f64 / seconds,
        megabytes_per_second: (tally.bytes_down + tally.bytes_up) as f64 / 1e6 / seconds,
        connections: tally.connections,
        resumed: tally.resumed,
        bytes_down: tally.bytes_down,
        bytes_up: tally.bytes_up,
        latency_ms,
        first_byte_ms,
        handshake_ms,
        unsent: engine.schedule.unsent(),
        datagrams: tally.datagrams,
        receives: tally.receives,
        dropped,
        dropped_share: lost / (tally.datagrams as f64 + lost).max(1.0),
        packets_lost: engine.packets_lost(),
        own_cpu_s: own_cpu.as_secs_f64(),
        own_core_share: engine
            .plan
            .options
            .cpu
            .zip(beginning.own_core_busy_s)
            .map(|(cpu, busy)| (core_busy_seconds(cpu) - busy) / seconds),
        watched,
        watched_us_per_request: watched
            .filter(|_| tally.succeeded > 0)
            .map(|watched| watched.cpu_s * 1e6 / tally.succeeded as f64),
        idle,
        digests: tally.digests.clone(),
    }
}
