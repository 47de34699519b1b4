//! From rows as written to a [`Generation`]: names become indices, layers of defaults become single values, and what
//! cannot work is found.
//!
//! Owns every check that looks at more than one key. A part that is wrong is reported and left out, so that the rest is
//! still checked; the result only counts when nothing was reported. One file for each part; `files` looks at the disk.

mod actions;
mod admission;
mod files;
mod health;
mod listeners;
mod matchers;
mod overload;
mod resilience;
mod resolver;
mod routes;
mod service;
mod timeouts;
mod upstream_tls;
mod upstreams;

use super::Options;
use super::diagnostic::{Diagnostic, Findings};
use super::generation::{Generation, Performance, Routing};
use super::keys::{self, Root};
use super::notes::Notes;
use super::source::Place;

/// Worker threads at most: what the key's row in `keys` says.
const WORKERS_MAX: u16 = 4_096;

/// Compiles what the schema read. `whole` says that all of the text was understood.
pub fn compile(
    root: &Root,
    start: Place,
    whole: bool,
    options: &Options,
    findings: &mut Findings,
) -> (Generation, Notes) {
    // Two keys have acted before: the schema held `version` to what this program reads, and `include` was followed.
    debug_assert!(root.version.as_ref().is_none_or(|version| version.value == 1));
    debug_assert!(root.include.value.iter().all(|pattern| !pattern.value.0.is_empty()));
    let mut compiler = Compiler { root, start, whole, options, findings, notes: Notes::default() };
    let listeners = listeners::compile(&mut compiler);
    let upstreams = upstreams::compile(&mut compiler);
    let routes::Routes { table, mut routes, ways } = routes::compile(&mut compiler, &upstreams);
    resilience::check(&mut compiler, &upstreams);
    admission::of_routes(&mut compiler, &mut routes);
    let rate_limits = admission::rate_limits(&mut compiler, &mut routes);
    let (observability, log) = service::compile(&mut compiler);
    timeouts::check_performance(&mut compiler);
    overload::check_queues(&mut compiler, &ways);
    overload::core_routes(&mut compiler, &mut routes);
    let resolver = resolver::compile(&mut compiler);
    let generation = Generation {
        number: 1,
        listeners,
        upstreams: upstreams.list.into_iter().map(|upstream| upstream.compiled).collect(),
        backends: upstreams.backends,
        table,
        routes,
        rate_limits,
        ways,
        routing: routing(&root.routing.value),
        resolver,
        performance: performance(&mut compiler),
        protocol: service::protocol(&root.resilience.value.protocol.value),
        brownout: overload::brownout(&mut compiler),
        observability,
        log,
        secret: service::secret(&root.security.value),
    };
    (generation, compiler.notes)
}

/// What every part of the compiler needs.
struct Compiler<'a> {
    root: &'a Root,
    /// The start of the main file: the place of what is missing altogether.
    start: Place,
    whole: bool,
    options: &'a Options,
    findings: &'a mut Findings,
    notes: Notes,
}

impl Compiler<'_> {
    fn report(&mut self, diagnostic: Diagnostic) {
        self.findings.push(diagnostic);
    }

    /// Reports what may only seem to be missing because a line could not be read.
    fn report_missing(&mut self, diagnostic: Diagnostic) {
        if self.whole {
            self.findings.push(diagnostic);
        }
    }
}

fn routing(keys: &keys::Routing) -> Routing {
    Routing {
        host_fallback: keys.host_fallback.value,
        encoded_slash: keys.encoded_slash.value,
        trusted_proxies: keys.trusted_proxies.value.iter().map(|network| network.value).collect(),
    }
}

/// One worker for each CPU that this process may use.
fn usual_workers() -> u16 {
    let cpus = spooky_uring::host::allowed_cpus().map_or(1, |cpus| cpus.len());
    cpus.clamp(1, usize::from(WORKERS_MAX)) as u16
}

fn performance(compiler: &mut Compiler<'_>) -> Performance {
    let keys = &compiler.root.performance.value;
    let rate = keys.new_connections_per_sec.value.0;
    if let (None, Some(burst)) = (rate, &keys.new_connections_burst) {
        compiler.report(
            Diagnostic::warning("`new_connections_burst` does nothing without `new_connections_per_sec`")
                .at(burst.place, "")
                .help("set the rate too, or remove this"),
        );
    }
    Performance {
        worker_threads: keys.worker_threads.as_ref().map_or_else(usual_workers, |written| written.value),
        pin_workers: keys.pin_workers.value,
        global_inflight_limit: keys.global_inflight_limit.value,
        memory_soft_limit: keys.memory_soft_limit.value.0.map(|bytes| bytes.0),
        max_inflight_per_address: keys.max_inflight_per_address.value.0,
        max_active_connections: keys.max_active_connections.value,
        max_connections_per_address: keys.max_connections_per_address.value.0,
        new_connections: rate.map(|rate| (rate, keys.new_connections_burst.as_ref().map_or(rate, |burst| burst.value))),
        pool_idle_connections_per_worker: keys.pool_idle_connections_per_worker.value,
        pool_idle_timeout: keys.pool_idle_timeout.value,
        udp_receive_buffer_bytes: keys.udp_receive_buffer_bytes.value.to_u32(),
        udp_send_buffer_bytes: keys.udp_send_buffer_bytes.value.to_u32(),
        client_header_timeout: keys.client_header_timeout.value,
        client_idle_timeout: keys.client_idle_timeout.value,
        client_send_timeout: keys.client_send_timeout.value,
        shutdown_drain_timeout: keys.shutdown_drain_timeout.value,
    }
}
