//! Counters that a worker writes and control reads, without a lock, an atomic read-modify-write or a shared cache line.
//!
//! Each block belongs to one worker: it is the **only writer**, so adding is a relaxed load, an addition and a relaxed
//! store (three plain instructions), and control's relaxed loads see every value a little late but never torn.
//! Two writers on one cell would lose counts; that is why nothing here is shared between workers, and why the blocks
//! are aligned to 128 bytes (two lines: the neighbour prefetcher of x86 fetches pairs).
//!
//! What the cells are called outside stands in [`super::registry`].

use super::kinds::{
    AttemptFailure, BreakerChange, CloseCode, ConnectFailure, DatagramDrop, Flood, HandshakeFailure, HealthCause,
    HealthState, Http2Flood, ProbeResult, Protocol, ProxyHeader, QueueFull, StatusClass, TlsAlert, UpstreamClose,
};
use super::latency::Latency;
use super::scope::Scope;
use super::steps::{Batches, PacketSizes, Windows};
use crate::http::Reason;
use spooky_uring::RingStats;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Counts up; one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`; only the owning worker calls it.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes over a count that is kept elsewhere (the ring's own statistics); only the owning worker calls it.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Goes up and down; one writer.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// One more.
    #[inline]
    pub fn enter(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// One less. Leaving more often than entering is a bug; the gauge stays at 0 instead of wrapping.
    #[inline]
    pub fn leave(&self) {
        let value = self.0.load(Relaxed);
        debug_assert!(value > 0, "a gauge fell below zero");
        self.0.store(value.saturating_sub(1), Relaxed);
    }

    /// The value as measured.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One counter per final or informational status, 100..=599, and one for "no status was sent".
#[derive(Debug)]
pub struct Statuses([Counter; 501]);

impl Default for Statuses {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl Statuses {
    /// Counts one response; a status outside 100..=599 counts as "none".
    #[inline]
    pub fn count(&self, status: u16) {
        self.0[Self::index(status)].add(1);
    }

    /// `(status, count)` of all that occurred; status 0 is "none".
    pub fn seen(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.0.iter().enumerate().filter_map(|(at, counter)| {
            let status = if at < 500 { at as u16 + 100 } else { 0 };
            let count = counter.get();
            (count > 0).then_some((status, count))
        })
    }

    fn index(status: u16) -> usize {
        match status {
            100..=599 => usize::from(status - 100),
            _ => 500,
        }
    }
}

/// An array of counters, one per variant of a kind.
macro_rules! per_kind {
    ($($kind:ident => $name:ident,)+) => {$(
        #[doc = concat!("One counter per [`", stringify!($kind), "`].")]
        #[derive(Debug)]
        pub struct $name([Counter; $kind::COUNT]);

        impl Default for $name {
            fn default() -> Self {
                Self(std::array::from_fn(|_| Counter::default()))
            }
        }

        impl $name {
            /// Counts one.
            #[inline]
            pub fn count(&self, kind: $kind) {
                self.0[kind as usize].add(1);
            }

            /// Adds several.
            #[inline]
            pub fn add(&self, kind: $kind, n: u64) {
                self.0[kind as usize].add(n);
            }

            /// Takes over a count that is kept elsewhere.
            #[inline]
            pub fn set(&self, kind: $kind, n: u64) {
                self.0[kind as usize].set(n);
            }

            /// The count of one kind.
            pub fn get(&self, kind: $kind) -> u64 {
                self.0[kind as usize].get()
            }
        }
    )+};
}

per_kind! {
    Protocol => PerProtocol,
    DatagramDrop => DatagramDrops,
    HandshakeFailure => HandshakeFailures,
    Flood => Floods,
    Http2Flood => Http2Floods,
    QueueFull => QueuesFull,
    CloseCode => CloseCodes,
    TlsAlert => TlsAlerts,
    ConnectFailure => ConnectFailures,
    AttemptFailure => AttemptFailures,
    BreakerChange => BreakerChanges,
    HealthState => HealthStates,
    HealthCause => HealthCauses,
    ProbeResult => ProbeResults,
    UpstreamClose => UpstreamCloses,
    ProxyHeader => ProxyHeaders,
    StatusClass => Classes,
    Reason => Refusals,
}

/// Numbers that another part counts by itself, under its own names; the worker copies them once in a while. Names come
/// with the first copy and stay.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct NamedCells(OnceLock<Box<[(&'static str, Counter)]>>);

impl NamedCells {
    /// Takes over all numbers; names and their order are the same each time.
    pub fn copy(&self, named: impl Iterator<Item = (&'static str, u64)>) {
        if let Some(cells) = self.0.get() {
            for ((name, cell), (same, count)) in cells.iter().zip(named) {
                debug_assert_eq!(*name, same);
                cell.set(count);
            }
            return;
        }
        let cells = named.map(|(name, count)| {
            let cell = Counter::default();
            cell.set(count);
            (name, cell)
        });
        self.0.get_or_init(|| cells.collect());
    }

    /// `(name, count)` of each; nothing before the first copy.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let cells = self.0.get().map_or(&[][..], |cells| cells);
        cells.iter().map(|(name, cell)| (*name, cell.get()))
    }

    /// The count of one name, 0 if there is none.
    pub fn get(&self, name: &str) -> u64 {
        self.named().find(|(same, _)| *same == name).map_or(0, |(_, count)| count)
    }
}

/// TLS over TCP, of clients.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct TlsCells {
    /// Handshakes completed, in full.
    pub full: Counter,
    /// Handshakes completed with a ticket.
    pub resumed: Counter,
    /// Handshakes that did not complete.
    pub failures: HandshakeFailures,
    /// From accepting to the completed handshake.
    pub duration: Latency,
}

/// UDP and QUIC.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct QuicCells {
    /// Bytes of datagrams received.
    pub bytes_received: Counter,
    /// Bytes of datagrams given to the kernel.
    pub bytes_sent: Counter,
    /// Datagrams per receive operation (GRO).
    pub receive_batches: Batches,
    /// Datagrams per send operation (GSO).
    pub send_batches: Batches,
    /// Trains of datagrams the kernel refused.
    pub send_failures: Counter,
    /// Datagrams dropped.
    pub drops: DatagramDrops,
    /// Datagrams given to the worker they were for.
    pub forwarded_out: Counter,
    /// Datagrams that other workers gave to this one.
    pub forwarded_in: Counter,
    /// What the QUIC side counts by itself.
    pub events: NamedCells,
    /// Handshakes that did not complete.
    pub handshake_failures: HandshakeFailures,
    /// From the first Initial to the completed handshake.
    pub handshake_duration: Latency,
    /// Packets of ended connections: sent.
    pub packets_sent: Counter,
    /// Packets of ended connections: received.
    pub packets_received: Counter,
    /// Packets of ended connections: declared lost.
    pub packets_lost: Counter,
    /// Packets of ended connections: declared lost, and acknowledged later.
    pub packets_spurious: Counter,
    /// Packets of ended connections: sent with data that had been sent before.
    pub packets_retransmitted: Counter,
    /// Bytes of the packets lost.
    pub bytes_lost: Counter,
    /// Stream bytes sent again on ended connections.
    pub bytes_retransmitted: Counter,
    /// Probe timeouts on ended connections.
    pub probe_timeouts: Counter,
    /// Smoothed round-trip time at the end of each connection.
    pub round_trip: Latency,
    /// Smallest round-trip time of each connection.
    pub round_trip_min: Latency,
    /// Congestion window at the end of each connection.
    pub congestion_window: Windows,
    /// Packet size that was found for each connection's path, at its end.
    pub packet_size: PacketSizes,
    /// TLS alerts that ended connections: sent.
    pub alerts_sent: TlsAlerts,
    /// TLS alerts that ended connections: received.
    pub alerts_received: TlsAlerts,
    /// Connection ends by code, ours.
    pub closed_by_us: CloseCodes,
    /// Connection ends by code, theirs.
    pub closed_by_client: CloseCodes,
    /// Connections that ended because nobody spoke any more.
    pub closed_by_silence: Counter,
    /// Connections we closed because their client did something too often.
    pub floods: Floods,
}

/// Everything one worker counts.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerCells {
    /// Exchanges that began, by downstream protocol.
    pub exchanges_started: PerProtocol,
    /// Exchanges under way.
    pub exchanges_active: Gauge,
    /// Exchanges that were admitted: they count for the limit of the process.
    pub exchanges_admitted: Gauge,
    /// Exchanges that became tunnels, by downstream protocol.
    pub tunnels_opened: PerProtocol,
    /// Tunnels that are open.
    pub tunnels_active: Gauge,
    /// Exchanges that ended, by the final status the client was sent.
    pub finished: Statuses,
    /// 1xx responses relayed.
    pub informational: Statuses,
    /// Exchanges refused, shed or failed, by reason.
    pub refusals: Refusals,
    /// Body bytes from clients.
    pub request_body_bytes: Counter,
    /// Body bytes to clients.
    pub response_body_bytes: Counter,
    /// From the request head to the last byte of the response.
    pub exchange_duration: Latency,
    /// From the request head to the first byte of the response head sent.
    pub first_byte: Latency,
    /// How long exchanges that were served in the end have waited for room at their upstream.
    pub queue_wait: Latency,

    /// Downstream connections accepted.
    pub connections_opened: PerProtocol,
    /// Downstream connections gone.
    pub connections_closed: PerProtocol,
    /// Downstream connections open.
    pub connections_active: Gauge,
    /// Downstream connections over TCP closed at once because their address may not come.
    pub connections_denied: Counter,
    /// Headers of the PROXY protocol that were expected.
    pub proxy_headers: ProxyHeaders,

    /// Access records that were dropped because the queue to control was full.
    pub access_dropped: Counter,
    /// Bytes of connections' traces that were dropped because the queue to control was full.
    pub qlog_dropped_bytes: Counter,
    /// Bounded things that were full.
    pub full: QueuesFull,

    /// HTTP/2 connections we closed because their client did something too often.
    pub http2_floods: Http2Floods,

    /// UDP and QUIC.
    pub quic: QuicCells,
    /// TLS over TCP, of clients.
    pub tls: TlsCells,
    /// The ring.
    pub ring: NamedCells,
    /// By route and backend.
    pub scope: ScopeCells,
}

/// What one worker counts for one route.
#[derive(Debug, Default)]
pub struct RouteCells {
    /// Exchanges that ended, by class of the final status.
    pub finished: Classes,
    /// Exchanges that wait for room at the upstream.
    pub waiting: Gauge,
    /// Exchanges that have waited, or wait.
    pub queued: Counter,
}

/// What one worker counts for one upstream.
#[derive(Debug, Default)]
pub struct UpstreamCells {
    /// Exchanges that hold a unit of it.
    pub active: Gauge,
    /// Exchanges that found no room for them when they came.
    pub turned_away: Counter,
    /// Exchanges that gave their unit back.
    pub over: Counter,
    /// Answers that adaptive admission looks at.
    pub answers: Counter,
    /// How long they took.
    pub answer_duration: Latency,
    /// What was in flight when each came, added up.
    pub inflight_at_answers: Counter,
}

/// What one worker counts for one rate limit.
#[derive(Debug, Default)]
pub struct RateCells {
    /// Requests refused.
    pub refused: Counter,
    /// Requests that would have been refused but for the dry run.
    pub would_refuse: Counter,
    /// Keys forgotten for others.
    pub evicted: Counter,
}

/// What one worker counts for one backend.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct BackendCells {
    /// Attempts begun.
    pub attempts: Counter,
    /// Attempts under way.
    pub attempts_active: Gauge,
    /// Attempts after the first of their exchange.
    pub retries: Counter,
    /// Attempts that would have followed one on this backend, had the budget permitted them.
    pub retries_denied: Counter,
    /// Attempts begun beside another one of their exchange.
    pub hedges: Counter,
    /// Of these, those whose answer the client got.
    pub hedges_won: Counter,
    /// Attempts given up because another one of their exchange answered first, or the exchange ended.
    pub attempts_cancelled: Counter,
    /// Changes of its circuit breaker.
    pub breaker: BreakerChanges,
    /// Whether its circuit breaker is open or half open: 0 or 1.
    pub breakers_open: Gauge,
    /// Attempts that spoke for it and against it; counted only where its upstream ejects outliers.
    pub good: Counter,
    /// See [`Self::good`].
    pub bad: Counter,
    /// How often so many attempts in a row spoke against it that it may be ejected.
    pub failing: Counter,
    /// Responses, by class of their status.
    pub responses: Classes,
    /// Attempts that failed after they were connected.
    pub failures: AttemptFailures,
    /// Connections made.
    pub connects: Counter,
    /// Connections that could not be made.
    pub connect_failures: ConnectFailures,
    /// Attempts that took a kept connection.
    pub reuses: Counter,
    /// Connections open, idle ones included.
    pub connections_active: Gauge,
    /// Connections open and idle.
    pub connections_idle: Gauge,
    /// Connections closed by us or found closed, by cause.
    pub closes: UpstreamCloses,
    /// Bytes sent to it, heads included.
    pub bytes_sent: Counter,
    /// Bytes received from it, heads included.
    pub bytes_received: Counter,
    /// From starting to connect to connected.
    pub connect_duration: Latency,
    /// From the request head sent to the response head received.
    pub response_duration: Latency,
}

/// What control counts of the health of one backend.
#[derive(Debug, Default)]
pub struct HealthCells {
    /// 1 for the state that it is in.
    pub state: HealthStates,
    /// Changes of its state.
    pub changes: HealthCauses,
    /// Ejections that were not made, because enough of its upstream's backends are out already.
    pub withheld: Counter,
    /// Probes, by what came of them.
    pub probes: ProbeResults,
}

/// One worker's cells for the routes, backends and rate limits of one generation.
#[derive(Debug, Default)]
pub struct ScopeCells {
    /// The names the indexes stand for.
    pub scope: Arc<Scope>,
    /// By route index.
    pub routes: Box<[RouteCells]>,
    /// By backend index.
    pub backends: Box<[BackendCells]>,
    /// By upstream index.
    pub upstreams: Box<[UpstreamCells]>,
    /// By index of the rate limit.
    pub rate_limits: Box<[RateCells]>,
}

impl ScopeCells {
    /// Zeroed cells for every name of `scope`.
    pub fn new(scope: Arc<Scope>) -> Self {
        Self {
            routes: scope.routes.iter().map(|_| RouteCells::default()).collect(),
            backends: scope.backends.iter().map(|_| BackendCells::default()).collect(),
            upstreams: scope.upstreams.iter().map(|_| UpstreamCells::default()).collect(),
            rate_limits: scope.rate_limits.iter().map(|_| RateCells::default()).collect(),
            scope,
        }
    }
}

/// What happens, in the words of the worker: each of these is a handful of stores.
impl WorkerCells {
    /// Zeroed cells for a worker that serves `scope`.
    pub fn new(scope: Arc<Scope>) -> Self {
        Self { scope: ScopeCells::new(scope), ..Self::default() }
    }

    /// The cells of a route.
    #[inline]
    pub fn route(&self, route: usize) -> &RouteCells {
        &self.scope.routes[route]
    }

    /// The cells of an upstream.
    #[inline]
    pub fn upstream(&self, upstream: usize) -> &UpstreamCells {
        &self.scope.upstreams[upstream]
    }

    /// The cells of a rate limit.
    #[inline]
    pub fn rate_limit(&self, limit: usize) -> &RateCells {
        &self.scope.rate_limits[limit]
    }

    /// The cells of a backend.
    #[inline]
    pub fn backend(&self, backend: usize) -> &BackendCells {
        &self.scope.backends[backend]
    }

    /// One receive operation brought `len` bytes in datagrams of `segment` bytes.
    #[inline]
    pub fn train_received(&self, len: usize, segment: u16) {
        self.quic.receive_batches.count(datagrams(len, segment));
        self.quic.bytes_received.add(len as u64);
    }

    /// One send operation took `len` bytes in datagrams of `segment` bytes.
    #[inline]
    pub fn train_sent(&self, len: usize, segment: u16) {
        self.quic.send_batches.count(datagrams(len, segment));
        self.quic.bytes_sent.add(len as u64);
    }

    /// An exchange began.
    #[inline]
    pub fn exchange_started(&self, protocol: Protocol) {
        self.exchanges_started.count(protocol);
        self.exchanges_active.enter();
    }

    /// An exchange became a tunnel; it leaves [`Self::tunnels_active`] when it ends.
    #[inline]
    pub fn tunnel_opened(&self, protocol: Protocol) {
        self.tunnels_opened.count(protocol);
        self.tunnels_active.enter();
    }

    /// An exchange ended.
    #[inline]
    pub fn exchange_finished(&self, end: &ExchangeEnd) {
        self.exchanges_active.leave();
        self.finished.count(end.status);
        if let Some(reason) = end.reason {
            self.refusals.count(reason);
        }
        if let Some(route) = end.route {
            self.route(route).finished.count(StatusClass::of(end.status));
        }
        self.request_body_bytes.add(end.request_bytes);
        self.response_body_bytes.add(end.response_bytes);
        self.exchange_duration.record(end.duration);
        if let Some(first_byte) = end.first_byte {
            self.first_byte.record(first_byte);
        }
    }

    /// Takes over how many connections of a protocol were accepted and are gone; the others are open.
    pub fn connections(&self, protocol: Protocol, opened: u64, closed: u64) {
        self.connections_opened.set(protocol, opened);
        self.connections_closed.set(protocol, closed);
        let sum = |cells: &PerProtocol| Protocol::ALL.iter().map(|p| cells.get(*p)).sum::<u64>();
        let open = sum(&self.connections_opened).saturating_sub(sum(&self.connections_closed));
        self.connections_active.set(open);
    }

    /// Takes over the ring's own numbers; those that tell of a full queue are shown among the queues too.
    pub fn copy_ring(&self, stats: &RingStats) {
        self.ring.copy(stats.named());
        for (queue, count) in [
            (QueueFull::UdpSlots, stats.udp_slots_dry),
            (QueueFull::UdpLeases, stats.udp_buffers_exhausted),
            (QueueFull::UdpBuffer, stats.udp_receive_drops),
            (QueueFull::StreamLeases, stats.stream_buffers_exhausted),
            (QueueFull::Streams, stats.accepts_refused + stats.connects_refused),
            (QueueFull::Submissions, stats.submission_overflows),
            (QueueFull::Completions, stats.completion_overflows),
        ] {
            self.full.set(queue, count);
        }
    }
}

/// What [`WorkerCells::exchange_finished`] counts.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExchangeEnd {
    /// The final status sent; 0 if none was.
    pub status: u16,
    /// Why the exchange did not end as meant.
    pub reason: Option<Reason>,
    /// Route index.
    pub route: Option<usize>,
    /// Body bytes from the client.
    pub request_bytes: u64,
    /// Body bytes to the client.
    pub response_bytes: u64,
    /// From the request head to the end.
    pub duration: Duration,
    /// From the request head to the response head on its way to the client.
    pub first_byte: Option<Duration>,
}

/// How many datagrams a train of `len` bytes holds.
#[inline]
fn datagrams(len: usize, segment: u16) -> u64 {
    match usize::from(segment) {
        0 => 1,
        segment => len.div_ceil(segment).max(1) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_own_counter() {
        let statuses = Statuses::default();
        for status in [100, 200, 200, 599, 0, 600, 99] {
            statuses.count(status);
        }
        let seen: Vec<_> = statuses.seen().collect();
        assert_eq!(seen, [(100, 1), (200, 2), (599, 1), (0, 3)]);
    }

    #[test]
    fn control_reads_while_a_worker_writes() {
        let cells = Arc::new(WorkerCells::default());
        let writer = Arc::clone(&cells);
        let worker = std::thread::spawn(move || {
            for _ in 0..10_000 {
                writer.exchanges_active.enter();
                writer.refusals.count(Reason::NoRoute);
                writer.exchanges_active.leave();
            }
        });
        while !worker.is_finished() {
            assert!(cells.exchanges_active.get() <= 1);
        }
        worker.join().expect("no panic");
        assert_eq!(cells.refusals.get(Reason::NoRoute), 10_000);
        assert_eq!(cells.exchanges_active.get(), 0);
    }

    #[test]
    fn a_finished_exchange_is_counted_everywhere_once() {
        let cells = WorkerCells::new(Arc::new(Scope {
            routes: vec![crate::telemetry::RouteName { route: "r".into(), upstream: "u".into() }],
            ..Scope::default()
        }));
        cells.exchange_started(Protocol::H3);
        cells.exchange_finished(&ExchangeEnd {
            status: 404,
            reason: Some(Reason::NoRoute),
            route: Some(0),
            response_bytes: 9,
            ..ExchangeEnd::default()
        });
        assert_eq!(cells.exchanges_active.get(), 0);
        assert_eq!(cells.finished.seen().collect::<Vec<_>>(), [(404, 1)]);
        assert_eq!(cells.refusals.get(Reason::NoRoute), 1);
        assert_eq!(cells.route(0).finished.get(StatusClass::ClientError), 1);
        assert_eq!(cells.response_body_bytes.get(), 9);
    }

    #[test]
    fn trains_are_counted_by_their_datagrams() {
        let cells = WorkerCells::default();
        cells.train_sent(1200, 1200);
        cells.train_sent(1201, 1200);
        cells.train_received(10, 0);
        assert_eq!(cells.quic.send_batches.sum(), 3);
        assert_eq!(cells.quic.bytes_sent.get(), 2401);
        assert_eq!(cells.quic.receive_batches.sum(), 1);
    }

    #[test]
    fn ring_statistics_keep_their_names() {
        let cells = WorkerCells::default();
        cells.copy_ring(&RingStats { turns: 7, udp_slots_dry: 2, ..RingStats::default() });
        assert_eq!(cells.ring.named().next(), Some(("turns", 7)));
        assert_eq!(cells.full.get(QueueFull::UdpSlots), 2);
    }

    #[test]
    fn blocks_of_two_workers_share_no_cache_line() {
        assert_eq!(std::mem::align_of::<WorkerCells>(), 128);
        assert_eq!(std::mem::size_of::<WorkerCells>() % 128, 0);
        assert_eq!(std::mem::size_of::<BackendCells>() % 128, 0);
    }
}
