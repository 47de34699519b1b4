//! From a configuration to a serving process: sockets, identities, workers, control, in this order.
//!
//! Everything that can be refused is asked for before the first thread starts, in the order in which an operator would
//! look: the ring, the certificates, the secret, the addresses. The caller waits in [`start`] until every worker serves.

use super::failure::{Exit, Failure};
use super::health::{self, Health};
use super::identities;
use super::overload::{self, Overload};
use super::qlogs::Qlogs;
use super::resolver::Resolver;
use super::runtime::{Ask, Control, Parts, SIGNALS};
use super::secret;
use super::sockets::{Addresses, Sockets, Steering};
use super::upstream_tls::UpstreamContexts;
use super::workers::{Shared, Workers, random};
use crate::admit::Rates;
use crate::config::{self, Generation};
use crate::h3::tickets::TicketKeys;
use crate::h3::{EndpointKeys, QlogSettings, versions};
use crate::identity::Identity;
use crate::limits;
use crate::telemetry::log::{LogTarget, queue_on_this_thread};
use crate::telemetry::registry::{BuildInfo, ConfigFacts, ControlCells, OverloadCells, Sources, WorkerSource};
use crate::telemetry::udp::UdpSource;
use crate::telemetry::{BackendName, RouteName, Scope, WallClock};
use spooky_uring::mailbox::{self, Receiver, Sender};
use spooky_uring::{FeatureMask, Features, Io, PoolConfig, Ring, RingConfig, StartError, host};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

/// This program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a process is started with.
pub struct Start {
    /// The configuration.
    pub generation: Generation,
    /// For listeners whose identity the caller supplies.
    pub identity: Option<Identity>,
    /// Control's end of the log queue, if the log was started.
    pub log: Option<Receiver<Vec<u8>>>,
    /// What the kernel has.
    pub features: Features,
    /// When the process started.
    pub started: Instant,
}

/// A serving process.
pub struct Running {
    /// Where it listens.
    pub addresses: Addresses,
    asks: Sender<Ask>,
    thread: JoinHandle<Result<(), Failure>>,
}

impl Running {
    /// Drains, or stops when it drains already.
    pub fn end(&self) {
        // Full or closed: it is ending already.
        let _ = self.asks.send(Ask::End);
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// What ended the process before its time.
    pub fn wait(self) -> Result<(), Failure> {
        match self.thread.join() {
            Ok(result) => result,
            Err(_) => Err(Failure::new("the control thread", "panicked")),
        }
    }
}

/// Looks what the kernel has.
///
/// # Errors
/// What is refused, with the fix.
pub fn probe() -> Result<Features, Failure> {
    Features::probe(FeatureMask::ALL).map_err(|error| {
        let exit = match error {
            StartError::DisabledBySysctl { .. } | StartError::DisabledByFilter { .. } => Exit::Permission,
            _ => Exit::Failure,
        };
        // The error names its fix by itself.
        Failure::new("io_uring", error).exit(exit)
    })
}

/// Starts everything and returns when all workers serve.
///
/// # Errors
/// The first thing that is refused.
pub fn start(start: Start) -> Result<Running, Failure> {
    host::block_signals(&SIGNALS).map_err(|error| Failure::new("signals", error))?;
    let generation = Arc::new(start.generation);
    raise_descriptors(&generation);
    let sites = identities::load(&generation, start.identity)?;
    let upstream_tls = UpstreamContexts::load(&generation)?;
    let secret = secret::load(&generation.secret)?;
    let tickets = TicketKeys::derive(secret.as_bytes(), identities::unix_seconds);
    let contexts = identities::contexts(&generation, &sites, &tickets)?;
    let tcp_contexts = identities::tcp_contexts(&generation, &sites, &tickets)?;
    let sockets = Sockets::bind(&generation)?;
    let scope = Arc::new(scope(&generation));
    let machine = |error: std::io::Error| Failure::new("mailboxes", error);
    let (access_sender, access) = match &generation.observability.access_log {
        Some(target) => {
            let (sender, receiver) = mailbox::channel(limits::ACCESS_QUEUE_BATCHES).map_err(machine)?;
            (Some(sender), Some((receiver, log_target(target))))
        }
        None => (None, None),
    };
    let (qlog_sender, qlog) = match &generation.observability.qlog {
        Some(wanted) => {
            let settings = QlogSettings {
                client: wanted.client,
                file_bytes: usize::try_from(wanted.max_file_bytes).unwrap_or(usize::MAX),
                files_left: Arc::new(AtomicU32::new(wanted.max_files)),
            };
            let (sender, receiver) = mailbox::channel(limits::QLOG_QUEUE_PIECES).map_err(machine)?;
            (Some((settings, sender)), Some(Qlogs::new(receiver, &wanted.dir)?))
        }
        None => (None, None),
    };
    let (asks, asked) = mailbox::channel(2).map_err(machine)?;
    let keys = EndpointKeys::derive(secret.as_bytes());
    let steering = sockets.steer(&generation, &keys.cid);
    let shared = Arc::new(Shared {
        generation: Arc::clone(&generation),
        scope,
        contexts,
        tcp_contexts,
        upstream_tls,
        keys,
        hash: secret.request_hash(),
        epoch: u16::from_ne_bytes(random()?),
        rates: Arc::new(Rates::new(&generation.rate_limits, generation.routes.len(), Instant::now())),
        features: start.features,
        access: access_sender,
        qlog: qlog_sender,
    });
    let features = shared.features.clone();
    let common = Arc::clone(&shared);
    let resolver = Resolver::new(&generation, usize::from(generation.performance.worker_threads), Instant::now());
    let public = public_sockets(&generation, &sockets);
    let workers = Workers::start(shared, sockets.workers)?;
    let steered = steering.iter().map(|(at, steering)| {
        let listener = &generation.listeners[*at];
        (listener.name.clone(), *steering == Steering::Kernel)
    });
    let sources = Sources { sockets: public, steering: steered.collect(), ..sources(&generation, &workers, &features) };
    let (tell, told) = sync_channel(1);
    let observability = &generation.observability;
    let metrics_path = observability.metrics.as_ref().map_or("/metrics".into(), |metrics| metrics.path.clone());
    let log_target = log_target(&generation.log.target);
    let drain_time = generation.performance.shutdown_drain_timeout;
    let (log, started) = (start.log, start.started);
    let (hosts, addresses) = (sockets.hosts, sockets.addresses);
    let thread = std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            queue_on_this_thread(log.is_some());
            let ring = Ring::new(&ring_config(resolver.is_some(), probes(&common.generation)), &features)
                .map_err(|error| Failure::new("the control thread's ring", error));
            let control = ring.and_then(|ring| {
                let contexts = common.upstream_tls.for_worker();
                let health = Health::new(&common.generation, contexts, workers.lines.len(), ring.now());
                let overload = Overload::new(&common.generation, workers.lines.len(), ring.now());
                Control::new(Parts {
                    ring,
                    workers,
                    resolver,
                    health,
                    overload,
                    hosts,
                    addresses,
                    sources,
                    metrics_path,
                    drain_time,
                    log,
                    log_target,
                    access,
                    qlog,
                    asks: asked,
                    started,
                    tell,
                })
            });
            let ended = control.and_then(Control::run);
            queue_on_this_thread(false);
            ended
        })
        .map_err(|error| Failure::new("the control thread", error))?;
    match told.recv() {
        Ok(Ok(addresses)) => Ok(Running { addresses, asks, thread }),
        Ok(Err(failure)) => Err(failure),
        // It ended before it could say anything: it says why by its result.
        Err(_) => match thread.join() {
            Ok(Err(failure)) => Err(failure),
            Ok(Ok(())) => Err(Failure::new("the start", "ended by a signal")),
            Err(_) => Err(Failure::new("the control thread", "panicked")),
        },
    }
}

/// Client connections over QUIC share one UDP socket; a descriptor is needed for each one over TCP, each connection to a
/// backend and each of control.
fn raise_descriptors(generation: &Generation) {
    const OTHERS: u64 = 256;
    // Sockets, two mailboxes and a ring of each worker.
    let workers = u64::from(generation.performance.worker_threads) * (generation.listeners.len() as u64 + 3);
    let backends = u64::from(generation.performance.global_inflight_limit) * u64::from(generation.attempts_at_once());
    let traces = generation.observability.qlog.as_ref().map_or(0, |qlog| u64::from(qlog.max_files));
    let over_tcp = generation.listeners.iter().any(|listener| listener.protocols.over_tcp());
    let clients = if over_tcp { u64::from(generation.performance.max_active_connections) } else { 0 };
    let wanted = clients + backends + u64::from(limits::CONTROL_CONNECTIONS) + workers + traces + OTHERS;
    let wanted = wanted + probes(generation) as u64;
    match host::raise_descriptor_limit(wanted) {
        Ok(limit) if limit < wanted => tracing::warn!(
            limit,
            wanted,
            "file descriptors may run out; fix: LimitNOFILE={wanted} in the unit, or `ulimit -n {wanted}`"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit of file descriptors cannot be raised"),
    }
}

/// The names of a generation, as counters and the access log use them.
fn scope(generation: &Generation) -> Scope {
    let upstream = |id| generation.upstream(id).name.clone();
    Scope {
        generation: generation.number,
        routes: generation
            .ways
            .iter()
            .map(|way| RouteName {
                route: generation.route(way.route).name.clone(),
                upstream: way.upstream.map_or_else(Box::default, upstream),
            })
            .collect(),
        backends: generation
            .backends
            .iter()
            .map(|backend| BackendName {
                upstream: upstream(backend.upstream),
                backend: backend.id.clone(),
                address: backend.url().into(),
            })
            .collect(),
        upstreams: generation.upstreams.iter().map(|upstream| upstream.name.clone()).collect(),
        rate_limits: generation.rate_limits.iter().map(|limit| limit.name.clone()).collect(),
    }
}

/// The workers' sockets, as the metrics name them.
fn public_sockets(generation: &Generation, sockets: &Sockets) -> Vec<UdpSource> {
    let mut public = Vec::new();
    for (worker, share) in sockets.workers.iter().enumerate() {
        for (at, socket) in &share.udp {
            let listener = &generation.listeners[*at];
            match UdpSource::new(&listener.name, worker, socket) {
                Ok(source) => public.push(source),
                Err(error) => {
                    tracing::warn!(listener = %listener.name, worker, %error, "datagrams the kernel drops are not shown");
                }
            }
        }
    }
    public
}

fn sources(generation: &Generation, workers: &Workers, features: &Features) -> Sources {
    let now = Instant::now();
    let lines = workers.lines.iter().enumerate();
    Sources {
        workers: lines.map(|(at, line)| WorkerSource::new(at, Arc::clone(&line.cells))).collect(),
        config: ConfigFacts {
            generation: generation.number,
            activated_unix_us: WallClock::new(now, SystemTime::now()).unix_us(now),
            last_load_ok: true,
        },
        build: BuildInfo {
            version: VERSION,
            quiche: versions::quiche().to_owned(),
            boringssl: versions::boringssl(),
            kernel: features.kernel.clone(),
        },
        control: ControlCells {
            health: health::cells(generation),
            overload: OverloadCells { adaptive: overload::cells(generation), ..OverloadCells::default() },
            ..ControlCells::default()
        },
        ..Sources::default()
    }
}

/// Probes that may be on their way at once.
fn probes(generation: &Generation) -> usize {
    let probed = generation.backends.iter().filter(|backend| backend.health_check.is_some());
    probed.count().min(limits::PROBES)
}

/// The configuration's word for where lines go, in telemetry's.
pub fn log_target(target: &config::LogTarget) -> LogTarget {
    match target {
        config::LogTarget::Stdout => LogTarget::Stdout,
        config::LogTarget::Stderr => LogTarget::Stderr,
        config::LogTarget::File(path) => LogTarget::File(path.to_path_buf()),
    }
}

/// Control's ring: few streams, small buffers; datagrams only where there are names to resolve.
fn ring_config(names: bool, probes: usize) -> RingConfig {
    let (questions, datagrams, slots) = if names { (limits::RESOLVER_QUESTIONS as u32, 16, 2) } else { (0, 1, 1) };
    RingConfig {
        entries: 256,
        // A probe's socket that is being closed may still have its place when the next one begins.
        streams: limits::CONTROL_CONNECTIONS + questions + 2 * probes as u32 + 16,
        stream_receive: PoolConfig { count: 32, size: 16 << 10, posted: 8 },
        udp_receive: PoolConfig { count: datagrams, size: 4096, posted: datagrams },
        udp_send_slots: slots,
        ..RingConfig::default()
    }
}
