//! Starting worker threads, and the lines to them.
//!
//! A ring belongs to the thread that makes it, so each thread makes its own, reports whether it serves, and reports
//! again when it has ended, whatever the cause. Everything it needs is made before and handed over.

use super::failure::Failure;
use super::sockets::Share;
use super::upstream_tls::UpstreamContexts;
use crate::admit::Rates;
use crate::balance::KeyedHash;
use crate::config::{CongestionControl, Generation, Listener, RetryMode};
use crate::h3::{self, Endpoint, EndpointKeys, QlogPiece, QlogSettings, QuicSettings, Retry, TlsContexts};
use crate::limits;
use crate::telemetry::{AccessBatch, AccessSender, Scope, WorkerCells, log};
use crate::tls::{Acceptor, ServerContexts};
use crate::worker::forward::Lines;
use crate::worker::token::Owner;
use crate::worker::{Command, Door, Report, Setup, Worker};
use spooky_uring::mailbox::{self, Receiver, SendError, Sender};
use spooky_uring::{Features, Io, PoolConfig, Ring, RingConfig, host};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

/// What all workers share at their start.
pub struct Shared {
    /// The configuration.
    pub generation: Arc<Generation>,
    /// Names for counters and the access log.
    pub scope: Arc<Scope>,
    /// One for each listener.
    pub contexts: Vec<Option<Arc<TlsContexts>>>,
    /// The same of TLS over TCP.
    pub tcp_contexts: Vec<Option<Arc<ServerContexts>>>,
    /// What connections to backends over TLS are made with.
    pub upstream_tls: UpstreamContexts,
    /// Keys of connection IDs, tokens and resets.
    pub keys: EndpointKeys,
    /// Hashes what requests are kept together by.
    pub hash: KeyedHash,
    /// Tells this process's connection IDs from an earlier one's.
    pub epoch: u16,
    /// What was used of the rate limits.
    pub rates: Arc<Rates>,
    /// What the kernel has.
    pub features: Features,
    /// Batches of access records; `None`: no access log.
    pub access: Option<Sender<AccessBatch>>,
    /// Traces of connections, and where they go; `None`: none.
    pub qlog: Option<(QlogSettings, Sender<QlogPiece>)>,
}

/// What a worker's thread tells control about itself.
#[derive(Debug)]
pub enum News {
    /// It serves.
    Up,
    /// It could not start.
    Failed(Failure),
    /// Its thread ends.
    Ended(io::Result<()>),
}

/// Control's end of one worker.
pub struct WorkerLine {
    /// What it counts.
    pub cells: Arc<WorkerCells>,
    /// Orders.
    pub commands: Sender<Command>,
    thread: JoinHandle<()>,
}

impl WorkerLine {
    /// Waits for the thread, which has said that it ends.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("a worker panicked");
        }
    }

    /// Whether the thread is gone.
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Control's end of all workers.
pub struct Workers {
    /// By number.
    pub lines: Vec<WorkerLine>,
    /// What their threads say.
    pub news: Receiver<News>,
    /// What they say when they drained.
    pub reports: Receiver<Report>,
}

impl Workers {
    /// Starts one thread for each entry of `sockets`.
    ///
    /// # Errors
    /// If the system gives no thread or descriptor.
    pub fn start(shared: Arc<Shared>, sockets: Vec<Share>) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::new("worker threads", error);
        let count = sockets.len();
        // Each says at most two things here, and one in a report: the boxes cannot be full.
        let (tell, news) = mailbox::channel(2 * count).map_err(failed)?;
        let (report, reports) = mailbox::channel(count).map_err(failed)?;
        let cpus = host::allowed_cpus().unwrap_or_default();
        let pin = shared.generation.performance.pin_workers;
        let mut lines = Vec::with_capacity(count);
        let between = Lines::between(count).map_err(failed)?;
        for (number, (sockets, between)) in sockets.into_iter().zip(between).enumerate() {
            let (commands, orders) = mailbox::channel(limits::MAILBOX_MESSAGES as usize).map_err(failed)?;
            let cells = Arc::new(WorkerCells::new(Arc::clone(&shared.scope)));
            let start = Start {
                number: number as u16,
                cpu: cpus.get(number % cpus.len().max(1)).copied().filter(|_| pin),
                shared: Arc::clone(&shared),
                sockets,
                cells: Arc::clone(&cells),
                orders,
                report: report.clone(),
                lines: between,
            };
            let tell = tell.clone();
            let thread = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    // A worker that panics has lost its own state only; control still has to hear of its end.
                    let ended = catch_unwind(AssertUnwindSafe(|| start.run(&tell)));
                    let panicked = |_| News::Ended(Err(io::Error::other("panicked")));
                    // Refused only when control is gone.
                    let _ = tell.send(ended.unwrap_or_else(panicked));
                })
                .map_err(failed)?;
            lines.push(WorkerLine { cells, commands, thread });
        }
        Ok(Self { lines, news, reports })
    }

    /// Tells every worker the same.
    pub fn order(&self, command: impl Fn() -> Command) {
        for line in &self.lines {
            if line.commands.send(command()).is_err() && !line.is_over() {
                tracing::error!("a worker's mailbox is full; it does not answer");
            }
        }
    }
}

/// What all workers are to know, whole: the newest wins, and a worker whose mailbox is full is told again.
pub struct Latest<T> {
    state: Arc<T>,
    /// Workers, by number, that have not been told of the present state.
    behind: Vec<bool>,
}

impl<T> Latest<T> {
    /// What so many workers believe by themselves.
    pub fn new(state: T, workers: usize) -> Self {
        Self { state: Arc::new(state), behind: vec![false; workers] }
    }

    /// What they are to know from now on.
    pub fn set(&mut self, state: T) {
        self.state = Arc::new(state);
        self.behind.fill(true);
    }

    /// Tells those that have not been told; `command`: what a worker, by number, is told of the state.
    pub fn send(&mut self, ring: &mut Ring, workers: &[WorkerLine], command: impl Fn(usize, &Arc<T>) -> Command) {
        for (number, (behind, line)) in self.behind.iter_mut().zip(workers).enumerate() {
            if *behind {
                let sent = line.commands.send_by(ring, command(number, &self.state));
                *behind = matches!(sent, Err(SendError::Full(_)));
            }
        }
    }

    /// Whether somebody is still to be told.
    pub fn is_unsent(&self) -> bool {
        self.behind.contains(&true)
    }

    /// Whether every worker has read it: each drops its hold on it with that.
    pub fn is_read(&self) -> bool {
        !self.is_unsent() && Arc::strong_count(&self.state) == 1
    }
}

/// What one thread is given.
struct Start {
    number: u16,
    cpu: Option<usize>,
    shared: Arc<Shared>,
    sockets: Share,
    cells: Arc<WorkerCells>,
    orders: Receiver<Command>,
    report: Sender<Report>,
    lines: Lines,
}

impl Start {
    fn run(self, tell: &Sender<News>) -> News {
        log::queue_on_this_thread(true);
        if let Some(cpu) = self.cpu
            && let Err(error) = host::pin_to_cpu(cpu)
        {
            tracing::warn!(worker = self.number, cpu, %error, "cannot stay on its CPU");
        }
        match self.prepare() {
            Ok(mut worker) => {
                let _ = tell.send(News::Up);
                News::Ended(worker.run())
            }
            Err(failure) => News::Failed(failure),
        }
    }

    fn prepare(self) -> Result<Worker<Ring>, Failure> {
        let shared = &self.shared;
        let generation = &shared.generation;
        let place = format!("worker {}", self.number);
        let mut ring =
            Ring::new(&ring_config(generation), &shared.features).map_err(|error| Failure::new(&*place, error))?;
        let mut listeners = Vec::with_capacity(self.sockets.udp.len());
        for (place, (at, socket)) in self.sockets.udp.into_iter().enumerate() {
            let listener = &generation.listeners[at];
            let failed = |cause: &dyn std::fmt::Display| Failure::new(format!("listener `{}`", listener.name), cause);
            let contexts = shared.contexts[at].as_ref().ok_or_else(|| failed(&"it has no identity"))?;
            let qlog = shared.qlog.as_ref().map(|(settings, _)| settings.clone());
            let settings = QuicSettings { qlog, ..quic_settings(generation, listener) };
            let endpoint = Endpoint::new(&settings, contexts, &shared.keys, self.number, shared.epoch)
                .map_err(|error| failed(&error))?;
            listeners.push((endpoint, ring.add_udp(socket, Owner::Listener(place as u16).token())));
        }
        let mut doors = Vec::with_capacity(self.sockets.tcp.len());
        for (place, (at, socket)) in self.sockets.tcp.into_iter().enumerate() {
            let listener = &generation.listeners[at];
            let acceptor = shared.tcp_contexts[at].as_ref().map(Acceptor::new);
            let port = socket.local_address().map_or(listener.address.port(), |address| address.port());
            let alt_svc = listener.alt_svc.map(|told| {
                let port = told.port.unwrap_or(port);
                format!("h3=\":{port}\"; ma={}", told.max_age).into_bytes().into()
            });
            let socket = ring.listen(socket, Owner::Door(place as u16).token());
            doors.push(Door {
                listener: at as u16,
                socket,
                clients: listener.clients.clone(),
                proxies: listener.proxies.clone(),
                acceptor,
                alt_svc,
            });
        }
        ring.watch(self.orders.doorbell(), Owner::Mailbox.token());
        if let Some(doorbell) = self.lines.doorbell() {
            ring.watch(doorbell, Owner::Forwards.token());
        }
        let access = match &shared.access {
            Some(sender) => AccessSender::new(Arc::clone(&shared.scope), sender.clone()),
            None => AccessSender::off(),
        };
        Ok(Worker::new(
            ring,
            Setup {
                generation: Arc::clone(generation),
                listeners,
                doors,
                cells: self.cells,
                access,
                qlog: shared.qlog.as_ref().map(|(_, sender)| sender.clone()),
                commands: self.orders,
                reports: self.report,
                lines: self.lines,
                upstream_tls: shared.upstream_tls.for_worker(),
                rates: Arc::clone(&shared.rates),
                hash: shared.hash.clone(),
                seed: random()?,
            },
        ))
    }
}

/// Unpredictable bytes.
///
/// # Errors
/// If the system has none.
pub fn random<const N: usize>() -> Result<[u8; N], Failure> {
    use ring::rand::SecureRandom;
    let mut bytes = [0; N];
    match ring::rand::SystemRandom::new().fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => Err(Failure::new("getrandom", "the system has no randomness")),
    }
}

/// Unpredictable, as identifiers of questions and the times of probes have to be.
pub fn chance() -> u64 {
    match random::<8>() {
        Ok(bytes) => u64::from_ne_bytes(bytes),
        // The standard library's hash keys come from the same source, but were drawn when it still gave some.
        Err(_) => RandomState::new().build_hasher().finish(),
    }
}

/// The pools of a worker's ring, as `limits` counts them.
fn ring_config(generation: &Generation) -> RingConfig {
    let usual = RingConfig::default();
    let performance = &generation.performance;
    let over_tcp = generation.listeners.iter().any(|listener| listener.protocols.over_tcp());
    let clients = if over_tcp { performance.share(performance.max_active_connections) } else { 0 };
    let backends = performance.share(performance.global_inflight_limit).saturating_mul(generation.attempts_at_once());
    RingConfig {
        streams: usual.streams.max(clients.saturating_add(backends)),
        stream_receive: PoolConfig {
            count: limits::STREAM_RECEIVE_BUFFERS,
            size: limits::STREAM_RECEIVE_BUFFER_BYTES as usize,
            ..usual.stream_receive
        },
        udp_receive: PoolConfig { count: limits::UDP_RECEIVE_BUFFERS, ..usual.udp_receive },
        udp_send_slots: limits::UDP_SEND_SLOTS,
        ..usual
    }
}

/// One listener's settings in the words of the QUIC side.
fn quic_settings(generation: &Generation, listener: &Listener) -> QuicSettings {
    let performance = &generation.performance;
    let protocol = &generation.protocol;
    let quic = &listener.quic;
    QuicSettings {
        idle_timeout: quic.idle_timeout,
        keep_alive: quic.keep_alive,
        max_data: quic.max_data,
        max_stream_data: quic.max_stream_data,
        max_streams_bidi: quic.max_streams_bidi,
        congestion_control: match quic.congestion_control {
            CongestionControl::Cubic => h3::CongestionControl::Cubic,
            CongestionControl::Reno => h3::CongestionControl::Reno,
            CongestionControl::Bbr2 => h3::CongestionControl::Bbr2,
        },
        max_udp_payload: quic.max_udp_payload,
        initial_window_packets: usize::from(quic.initial_congestion_window),
        connections: performance.share(performance.max_active_connections) as usize,
        retry: match quic.retry {
            RetryMode::Auto => Retry::Auto,
            RetryMode::Always => Retry::Always,
            RetryMode::Never => Retry::Never,
        },
        address_limits: performance.address_limits(),
        clients: listener.clients.clone(),
        head: protocol.head_limits(),
        ..QuicSettings::default()
    }
}
