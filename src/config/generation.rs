//! The compiled configuration: one immutable, numbered snapshot that workers and control run on.
//!
//! Owns no text and no positions: names are here only for logs and metrics, everything the request path follows is
//! an index. Knows nothing of TOML; see `compile` for how it is made and `keys` for what an operator can write.

mod backends;

pub use backends::{Backend, BackendScheme, HealthCheck, Location, ProbeSpeech};

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::admit::{LimitId, RateLimit};
use crate::balance::Table;
use crate::health::OutlierPolicy;
use crate::http::respond::{FixedResponse, ProxyStatus, Redirect};
use crate::http::{Edits, HeadLimits, Method};
use crate::identity::ServerName;
use crate::limits::{self, AddressLimits, AddressRules, Budget, Rate};
use crate::overload::{AdaptivePolicy, BrownoutPolicy, QueuePolicy};
use crate::proxy_protocol;
use crate::resilience::{BreakerPolicy, BudgetPolicy, HedgePolicy, RetryPolicy};
use crate::route::{self, RouteId, Shares};

/// Position of an upstream in [`Generation::upstreams`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamId(pub u32);

/// Position of a backend in [`Generation::backends`], over all upstreams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId(pub u32);

/// Position of a way in [`Generation::ways`], over all routes; counters and the access log use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WayId(pub u32);

/// One validated configuration. Built once by `config::load`, never changed.
#[derive(Debug)]
pub struct Generation {
    /// Counts up with each accepted configuration of this process; the first is 1.
    pub number: u64,
    /// Public listeners, at least one.
    pub listeners: Vec<Listener>,
    /// By [`UpstreamId`].
    pub upstreams: Vec<Upstream>,
    /// By [`BackendId`]; the backends of one upstream stand together.
    pub backends: Vec<Backend>,
    /// What a request asks for to [`RouteId`].
    pub table: route::Table,
    /// By [`RouteId`].
    pub routes: Vec<Route>,
    /// By [`LimitId`]; [`Route::rate_limits`] says where they apply.
    pub rate_limits: Vec<RateLimit>,
    /// By [`WayId`]; the ways of one route stand together.
    pub ways: Vec<Way>,
    /// How addresses and paths of requests are read.
    pub routing: Routing,
    /// How names of backends are resolved.
    pub resolver: Resolver,
    /// Process-wide limits, times and sizes.
    pub performance: Performance,
    /// What requests may look like before they are routed.
    pub protocol: ProtocolPolicy,
    /// When only core routes are served; `None`: never.
    pub brownout: Option<BrownoutPolicy>,
    /// Metrics, health and access log.
    pub observability: Observability,
    /// The program's own log.
    pub log: Log,
    /// Where the process's secret is.
    pub secret: SecretSource,
}

impl Generation {
    /// A route's compiled rule.
    #[inline]
    #[must_use]
    pub fn route(&self, id: RouteId) -> &Route {
        &self.routes[id.0 as usize]
    }

    /// One way of a route.
    #[inline]
    #[must_use]
    pub fn way(&self, id: WayId) -> &Way {
        &self.ways[id.0 as usize]
    }

    /// An upstream.
    #[inline]
    #[must_use]
    pub fn upstream(&self, id: UpstreamId) -> &Upstream {
        &self.upstreams[id.0 as usize]
    }

    /// The upstreams, in the order of their positions.
    pub fn upstream_ids(&self) -> impl Iterator<Item = UpstreamId> + use<> {
        (0..self.upstreams.len()).map(|at| UpstreamId(at as u32))
    }

    /// A backend.
    #[inline]
    #[must_use]
    pub fn backend(&self, id: BackendId) -> &Backend {
        &self.backends[id.0 as usize]
    }

    /// The backends of an upstream, in the order of the file: what a balancer's indices stand for.
    #[inline]
    #[must_use]
    pub fn backends_of(&self, id: UpstreamId) -> &[Backend] {
        let range = &self.upstream(id).backends;
        &self.backends[range.start as usize..range.end as usize]
    }

    /// Whether forwarding fields of this peer are believed.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        // An IPv4 peer of a dual-stack socket arrives mapped; the operator wrote it as IPv4.
        let peer = peer.to_canonical();
        self.routing.trusted_proxies.iter().any(|network| network.contains(&peer))
    }

    /// Requests that one client connection may have open at once, over whatever it speaks.
    #[must_use]
    pub fn streams_per_connection(&self) -> u64 {
        let most = |listener: &Listener| {
            let over_tcp = match listener.protocols {
                Protocols { h2: true, .. } => u64::from(limits::h2::STREAMS),
                _ => 1,
            };
            if listener.protocols.h3 { listener.quic.max_streams_bidi.max(over_tcp) } else { over_tcp }
        };
        self.listeners.iter().map(most).max().unwrap_or(1)
    }

    /// Attempts that one exchange may have at once.
    #[must_use]
    pub fn attempts_at_once(&self) -> u32 {
        1 + self.ways.iter().filter_map(|way| way.hedging).map(|hedging| hedging.max).max().unwrap_or(0)
    }

    /// The worst-case memory of a process with this configuration.
    #[must_use]
    pub fn budget(&self) -> Budget {
        super::budget::of(self)
    }
}

/// One public address.
#[derive(Clone, Debug)]
pub struct Listener {
    /// For logs and metrics.
    pub name: Box<str>,
    /// Where it listens: UDP for HTTP/3, TCP for the others.
    pub address: SocketAddr,
    /// Which addresses may connect; `None`: all.
    pub clients: Option<Arc<AddressRules>>,
    /// Whose connections over TCP begin with a header of the PROXY protocol; `None`: nobody's.
    pub proxies: Option<Proxies>,
    /// What is spoken there.
    pub protocols: Protocols,
    /// How connections are secured.
    pub security: Security,
    /// What clients over TCP are told of HTTP/3; `None`: nothing.
    pub alt_svc: Option<AltSvc>,
    /// Transport settings of HTTP/3.
    pub quic: Quic,
}

/// Proxies in front of a listener that say who their client is.
#[derive(Clone, Debug)]
pub struct Proxies {
    /// Where they are.
    pub from: Arc<AddressRules>,
    /// Connections over TCP from elsewhere are refused.
    pub only: bool,
}

impl Listener {
    /// Identities and client policies; `None`: it is not secured.
    #[must_use]
    pub fn tls(&self) -> Option<&ListenerTls> {
        match &self.security {
            Security::Tls(tls) => Some(tls),
            Security::Cleartext(_) => None,
        }
    }
}

/// What a listener speaks; at least one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protocols {
    /// HTTP/3.
    pub h3: bool,
    /// HTTP/2.
    pub h2: bool,
    /// HTTP/1.1 and 1.0.
    pub h1: bool,
}

impl Protocols {
    /// Whether there is a TCP socket.
    #[must_use]
    pub fn over_tcp(self) -> bool {
        self.h1 || self.h2
    }
}

/// What clients over TCP are told of HTTP/3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AltSvc {
    /// Where it is found from outside; `None`: where the listener is.
    pub port: Option<u16>,
    /// Seconds that clients remember it.
    pub max_age: u32,
}

/// How a listener's connections are secured.
#[derive(Clone, Debug)]
pub enum Security {
    /// By TLS, always.
    Tls(ListenerTls),
    /// Not at all.
    Cleartext(Cleartext),
}

/// What becomes of requests that come without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleartext {
    /// They are routed like others.
    Serve,
    /// They are sent to the same place at `https`, on this port.
    Redirect {
        /// 443 is left out of the URL.
        port: u16,
    },
}

/// Identities of a listener.
#[derive(Clone, Debug)]
pub struct ListenerTls {
    /// Certificate and key for every name that has none of its own.
    pub source: TlsSource,
    /// What is asked of clients that come for such a name.
    pub client_auth: ClientAuthSource,
    /// Certificates of single names.
    pub certificates: Vec<NamedCertificate>,
    /// The lowest version over TCP; QUIC has 1.3.
    pub min_version: MinVersion,
}

/// Where a listener's identity comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsSource {
    /// PEM files: the chain, leaf first, and its key.
    Files {
        /// Certificate chain.
        cert: Box<Path>,
        /// Private key.
        key: Box<Path>,
    },
    /// The caller brings it (the demo makes one in memory); only from [`super::from_str`].
    Supplied,
}

/// The certificate of a name, or of the names one label below another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedCertificate {
    /// Unique in its listener.
    pub server_name: ServerName,
    /// Certificate chain.
    pub cert: Box<Path>,
    /// Private key.
    pub key: Box<Path>,
    /// What is asked of clients that come for it.
    pub client_auth: ClientAuthSource,
}

/// Where the judgement of client certificates comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientAuthSource {
    /// Clients are asked for nothing.
    #[default]
    Off,
    /// Clients are asked for a certificate.
    On {
        /// Those without one are refused.
        required: bool,
        /// Certificates of authorities.
        ca_file: Box<Path>,
        /// Revocation lists.
        crl_file: Option<Box<Path>>,
    },
}

/// Where the process's secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In the file that the operator named.
    File(Box<Path>),
    /// In the usual file; in memory where that cannot be made.
    Usual(Box<Path>),
    /// In memory, a new one with each start (the demo leaves nothing behind).
    Memory,
}

/// QUIC transport settings of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quic {
    /// A connection without any packet for this long is forgotten.
    pub idle_timeout: Duration,
    /// Silence after which a client with running requests is asked whether it is there; `None`: never.
    pub keep_alive: Option<Duration>,
    /// Bytes a client may send on one connection ahead of what was consumed.
    pub max_data: u64,
    /// The same for one stream.
    pub max_stream_data: u64,
    /// Request streams a client may have open at once.
    pub max_streams_bidi: u64,
    /// Who decides the sending rate.
    pub congestion_control: CongestionControl,
    /// Bytes in one UDP datagram we send.
    pub max_udp_payload: u16,
    /// Packets sent before the first acknowledgement.
    pub initial_congestion_window: u16,
    /// When a client has to prove its address first.
    pub retry: RetryMode,
}

pub use crate::http::forward::HostPolicy;

pub use super::keys::{
    ClientCertHeader, CongestionControl, EncodedSlash, ForwardedMode, LogFormat, LogLevel, MinVersion, RetryMode,
};

/// A named group of backends.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// For logs and metrics; unique.
    pub name: Box<str>,
    /// Its [`BackendId`]s; never empty.
    pub backends: Range<u32>,
    /// How a backend is picked.
    pub balancing: Balancing,
    /// What the backend sees as `Host`.
    pub host_policy: HostPolicy,
    /// What becomes of forwarding fields.
    pub forwarded_headers: ForwardedMode,
    /// What the backend is told of the client's certificate.
    pub client_cert_header: ClientCertHeader,
    /// The header of the PROXY protocol that its connections begin with; `None`: they have none.
    pub proxy_protocol: Option<proxy_protocol::Version>,
    /// How its backends with [`BackendScheme::Https`] are spoken to; of no effect where there is none.
    pub tls: UpstreamTls,
    /// Exchanges at once over all its backends.
    pub inflight_limit: u32,
    /// How much of that it is given, by how it answers; `None`: all.
    pub adaptive: Option<AdaptivePolicy>,
    /// Further attempts of all its requests.
    pub retry_budget: BudgetPolicy,
    /// When a backend is not asked; `None`: it always is.
    pub circuit_breaker: Option<BreakerPolicy>,
    /// When a backend is ejected; `None`: never.
    pub outliers: Option<OutlierPolicy>,
    /// How long a backend that comes back takes to have its whole share; `None`: no time.
    pub slow_start: Option<Duration>,
    /// Percentage of healthy backends below which health is disregarded; 0: never.
    pub panic_threshold: u32,
}

/// TLS towards the backends of an upstream, resolved upstream > `[upstream_tls]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Whether a backend's certificate has to be good.
    pub verify_certificates: bool,
    /// Whether it has to name [`Backend::server_name`]; without effect where certificates are not verified.
    pub strict_sni: bool,
    /// Authorities that are believed, those of [`Self::ca_dir`] beside them. Neither: those of the system.
    pub ca_file: Option<Box<Path>>,
    /// See [`Self::ca_file`].
    pub ca_dir: Option<Box<Path>>,
    /// Certificate chain and key for backends that ask.
    pub client_cert: Option<(Box<Path>, Box<Path>)>,
}

impl UpstreamTls {
    /// Whether somebody else's authorities are believed: certificates of those name whoever paid for them.
    #[must_use]
    pub fn trusts_the_system(&self) -> bool {
        self.verify_certificates && self.ca_file.is_none() && self.ca_dir.is_none()
    }
}

/// How a backend is picked.
#[derive(Clone, Debug)]
pub enum Balancing {
    /// Smooth weighted round-robin.
    RoundRobin,
    /// By lot.
    Random,
    /// The least in flight.
    LeastConnections,
    /// The freer one of two.
    TwoChoices,
    /// The faster one of two.
    LatencyAware,
    /// By a key of the request. The table is the same for all workers, so they share it.
    ConsistentHash(HashKey, Arc<Table>),
    /// By the client's connection.
    StickyCid(Arc<Table>),
}

/// What consistent hashing keeps together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The path that routes look at, without the query.
    Path,
    /// The host, without the port.
    Authority,
    /// The method.
    Method,
    /// The client's connection.
    Cid,
    /// The other side of the client's connection.
    PeerIp,
    /// The client behind trusted proxies.
    ClientIp,
    /// The token of `Authorization: Bearer`.
    BearerToken,
    /// The first field of this name, in lower case.
    Header(Box<str>),
    /// The first cookie of this name.
    Cookie(Box<str>),
    /// The first parameter of this name in the query.
    Query(Box<str>),
}

/// What happens to a request that the table matched: everything is resolved, no fallback is left to the request path.
#[derive(Clone, Debug)]
pub struct Route {
    /// For logs and metrics; unique.
    pub name: Box<str>,
    /// Its [`WayId`]s; never empty, and one only unless a split shares requests out.
    pub ways: Range<u32>,
    /// Who answers, and how.
    pub action: Action,
    /// Changes to what goes upstream.
    pub request_fields: Edits,
    /// Changes to final responses.
    pub response_fields: Edits,
    /// Which clients' requests it takes; `None`: all.
    pub clients: Option<Arc<AddressRules>>,
    /// Whether it is served in a brownout, too.
    pub core: bool,
    /// How often they may come: those of [`Generation::rate_limits`] that apply.
    pub rate_limits: Box<[LimitId]>,
}

/// Who answers the requests of a route.
#[derive(Clone, Debug)]
pub enum Action {
    /// The upstreams of its ways.
    Forward {
        /// Which way a request goes.
        shares: Shares,
        /// What the upstream sees of the path.
        rewrite: Option<Rewrite>,
    },
    /// We send the client elsewhere.
    Redirect(Redirect),
    /// We have the answer.
    Respond(FixedResponse),
}

/// A path for the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// What it begins with.
    pub base: Box<str>,
    /// What the request's path has behind this prefix follows; `None`: nothing does.
    pub behind: Option<Box<str>>,
}

/// One way that requests of a route can go.
#[derive(Clone, Debug)]
pub struct Way {
    /// The route it belongs to.
    pub route: RouteId,
    /// Who answers; `None`: we do.
    pub upstream: Option<UpstreamId>,
    /// Bounds in time.
    pub timeouts: Timeouts,
    /// Bounds in size.
    pub limits: BodyLimits,
    /// Further attempts of one request.
    pub retry: RetryPolicy,
    /// Attempts beside one that has no answer yet; `None`: there are none.
    pub hedging: Option<HedgePolicy>,
    /// How its requests wait for room at the upstream; `None`: they do not.
    pub queue: Option<QueuePolicy>,
}

/// Times of one exchange, resolved route > upstream > performance. `None`: off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To a connected socket.
    pub backend_connect: Duration,
    /// From the request's last byte (or the head, while the body still streams) to the response head.
    pub backend: Duration,
    /// Between bytes of a response body while the client has room.
    pub backend_body_idle: Duration,
    /// From the first header byte to the last byte of the response.
    pub total: Option<Duration>,
    /// Between bytes of a request body while we have room.
    pub client_body_idle: Duration,
    /// For the client to take waiting response bytes.
    pub client_send: Duration,
    /// Between any two bytes of a tunnel, in whichever direction.
    pub tunnel_idle: Duration,
}

/// Sizes of one exchange, resolved route > upstream > performance. `None`: off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// Counted while streaming; more is 413.
    pub max_request_body_bytes: Option<u64>,
    /// Counted while streaming; more is 502 before the head, a reset after it.
    pub max_response_body_bytes: Option<u64>,
    /// More is 502.
    pub max_response_header_bytes: u32,
}

/// `[routing]`.
#[derive(Clone, Debug)]
pub struct Routing {
    /// Whether less specific hosts are tried when no path of the most specific one matches (already in the table).
    pub host_fallback: bool,
    /// What becomes of `%2F` and `%5C` in a path.
    pub encoded_slash: EncodedSlash,
    /// Peers whose forwarding fields are believed; ask [`Generation::trusts`].
    pub trusted_proxies: Vec<IpNet>,
}

/// `[resolver]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    /// Whom to ask; empty: what the system says.
    pub servers: Vec<SocketAddr>,
    /// For one answer of one server; `None`: what the system says.
    pub timeout: Option<Duration>,
    /// Rounds over all servers; `None`: what the system says.
    pub attempts: Option<u32>,
    /// An answer is asked for again no sooner.
    pub min_ttl: Duration,
    /// And no later.
    pub max_ttl: Duration,
    /// How long the start waits for names.
    pub start_timeout: Duration,
}

/// `[performance]`, as far as it is not resolved into routes, upstreams and backends.
#[derive(Clone, Debug)]
pub struct Performance {
    /// Worker threads.
    pub worker_threads: u16,
    /// Whether each worker stays on one CPU.
    pub pin_workers: bool,
    /// Exchanges at once in the process; see [`Self::share`].
    pub global_inflight_limit: u32,
    /// Exchanges at once of one client; `None`: any number.
    pub max_inflight_per_address: Option<u32>,
    /// Resident bytes above which new requests are refused; `None`: there is no such bound.
    pub memory_soft_limit: Option<u64>,
    /// Client connections at once in the process.
    pub max_active_connections: u32,
    /// Client connections at once of one address; `None`: any number.
    pub max_connections_per_address: Option<u32>,
    /// New ones of one address in a second, and at once; `None`: at any rate.
    pub new_connections: Option<(u32, u32)>,
    /// Unused connections kept, for each backend and worker.
    pub pool_idle_connections_per_worker: u32,
    /// How long an unused connection is kept.
    pub pool_idle_timeout: Duration,
    /// SO_RCVBUF of the UDP sockets.
    pub udp_receive_buffer_bytes: u32,
    /// SO_SNDBUF of the UDP sockets.
    pub udp_send_buffer_bytes: u32,
    /// For a request head over TCP.
    pub client_header_timeout: Duration,
    /// For the next request on a connection over TCP.
    pub client_idle_timeout: Duration,
    /// For a client over TCP to take what is left of a response.
    pub client_send_timeout: Duration,
    /// How long a drain waits for running exchanges.
    pub shutdown_drain_timeout: Duration,
}

impl Performance {
    /// One worker's share of a limit of the process, rounded up: no limit becomes 0, and together they exceed it by less
    /// than one for each worker.
    #[must_use]
    pub fn share(&self, limit: u32) -> u32 {
        limit.div_ceil(u32::from(self.worker_threads.max(1)))
    }

    /// One worker's share of what one address may open.
    #[must_use]
    pub fn address_limits(&self) -> AddressLimits {
        AddressLimits {
            connections: self.max_connections_per_address.map(|most| self.share(most)),
            rate: self
                .new_connections
                .map(|(per_second, burst)| Rate { per_second: self.share(per_second), burst: self.share(burst) }),
        }
    }
}

/// `[resilience.protocol]`.
#[derive(Clone, Debug)]
pub struct ProtocolPolicy {
    /// Methods that pass; `None`: all that this program forwards.
    pub allowed_methods: Option<AllowedMethods>,
    /// Paths that are answered 403; ask `http::PathPair::lies_under`.
    pub denied_path_prefixes: Vec<Box<str>>,
    /// Field lines in one request head; more is 431.
    pub max_headers_count: u32,
    /// Bytes of one request head, as RFC 9114 §4.2.2 counts them; more is 431.
    pub max_headers_bytes: u32,
}

impl ProtocolPolicy {
    /// Bounds on the heads of requests.
    #[must_use]
    pub fn head_limits(&self) -> HeadLimits {
        HeadLimits {
            fields: self.max_headers_count as usize,
            bytes: self.max_headers_bytes as usize,
            ..HeadLimits::REQUEST
        }
    }

    /// The same over HTTP/1.1, which finds fields in a table of its own.
    #[must_use]
    pub fn head_limits_h1(&self) -> HeadLimits {
        let limits = self.head_limits();
        HeadLimits { fields: limits.fields.min(limits::H1_FIELDS_CEILING), ..limits }
    }

    /// The value of `Allow` when this method is refused (405), `None` when it passes.
    #[must_use]
    pub fn refuses(&self, method: &Method) -> Option<&str> {
        match &self.allowed_methods {
            Some(allowed) if !allowed.methods.contains(method) => Some(&allowed.allow),
            _ => None,
        }
    }
}

/// A list of methods with its `Allow` value.
#[derive(Clone, Debug)]
pub struct AllowedMethods {
    /// In the order of the file.
    pub methods: Vec<Method>,
    /// The same, joined for the response field.
    pub allow: Box<str>,
}

/// `[observability]`.
#[derive(Clone, Debug)]
pub struct Observability {
    /// Prometheus endpoint; `None`: off.
    pub metrics: Option<MetricsEndpoint>,
    /// `/health` and `/ready`; `None`: off.
    pub control_api: Option<SocketAddr>,
    /// `None`: off.
    pub access_log: Option<LogTarget>,
    /// Traces of connections; `None`: off.
    pub qlog: Option<Qlog>,
    /// What Proxy-Status says in answers of our own.
    pub proxy_status: ProxyStatus,
}

/// `[observability.qlog]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qlog {
    /// Folder of the files.
    pub dir: Box<Path>,
    /// Only connections from this address.
    pub client: Option<IpAddr>,
    /// Files in the life of the process.
    pub max_files: u32,
    /// Bytes of one file.
    pub max_file_bytes: u64,
}

/// Where metrics are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsEndpoint {
    /// Listening address (TCP).
    pub address: SocketAddr,
    /// Request path.
    pub path: Box<str>,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to a file.
    File(Box<Path>),
}

/// `[log]`.
#[derive(Clone, Debug)]
pub struct Log {
    /// For every module that has none of its own.
    pub level: LogLevel,
    /// Modules (as written under `[log.modules]`) with a level of their own.
    pub modules: Vec<(Box<str>, LogLevel)>,
    /// Plain text or JSON lines.
    pub format: LogFormat,
    /// Where lines go.
    pub target: LogTarget,
}
