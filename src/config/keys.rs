//! Every key an operator can write: one row each, with what it does, its default and its range.
//!
//! This file and those below it are the reference: docs/CONFIGURATION.md is generated from it and config/spooky.reference.toml is checked
//! against it. A key that does nothing does not stand here; planned ones stand under `later`, where writing one is an
//! error that says so. To add a key: one row here, one field in `generation`, one line in `compile`.

mod attempts;
mod health;
mod overload;
mod routes;

pub use attempts::*;
pub use health::*;
pub use overload::*;
pub use routes::*;

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::generation::{HashKey, LogTarget};
use super::schema::{Located, choice, schema};
use super::values::{
    BackendAddress, Bytes, DnsServer, FilePath, HostHeader, IncludePattern, MethodName, Name, Named, OneOrMany, OrOff,
    RoutePath, Rows,
};
use crate::identity::ServerName;
use crate::resilience::Condition;
use crate::route::HostPattern;

schema! {
    /// The whole file.
    Root of "process" {
        /// Version of the configuration language.
        version: required u64, 1..=1;
        /// More files, merged in name order; `*` can stand in the file name. Works in the main file only.
        include: default Vec<Located<IncludePattern>> = "[]";
        /// The public listener. Several are written as [[listeners]].
        listen: optional Listener;
        /// Public listeners, where one is not enough.
        listeners: default Vec<Located<Listener>> = "[]";
        /// Named groups of backends.
        upstream: default Named<Upstream> = "{}";
        /// Routes in full form; the short form is `route` of an upstream.
        routes: default Vec<Located<Route>> = "[]";
        /// How often requests may come, by client, by route or by what they carry: more are answered 429. A request has to be within every limit that applies to its route, and one that is refused counts in none. Counted for the process, whatever worker they reach.
        rate_limits: default Vec<Located<RateLimit>> = "[]";
        /// How hosts, paths and addresses are read.
        routing: default Routing = "{}";
        /// How names of backends are resolved.
        resolver: default Resolver = "{}";
        /// TLS towards backends, for upstreams that say nothing else.
        upstream_tls: default UpstreamTlsDefaults = "{}";
        /// Limits, times and sizes. For times and limits of one exchange a route's own value comes first, then its upstream's, then this.
        performance: default Performance = "{}";
        /// Protection.
        resilience: default Resilience = "{}";
        /// Metrics, health and access log.
        observability: default Observability = "{}";
        /// The program's own log.
        log: default Log = "{}";
        /// What the program keeps to itself.
        security: default Security = "{}";
    }
    later []

    /// A public address.
    Listener of "listener" {
        /// For logs and metrics; left out, it is made from the position.
        name: optional Name;
        /// Address to listen on; `[::]` is dual stack.
        address: default IpAddr = "0.0.0.0";
        /// Port to listen on; 0 takes a free one.
        port: default u16 = "9889";
        /// Which addresses may come. The longest prefix decides, in whichever list it stands; who is in neither may come unless something is allowed. A listener leaves others out before a handshake, over TCP by a reset, over QUIC without a word; a route answers them 403.
        clients: default AddressLists = "{}";
        /// Protocols spoken; a listener with `cleartext` speaks `http/1.1`.
        protocols: default Vec<Located<Protocol>> = "[\"h3\", \"h2\", \"http/1.1\"]";
        /// Serve this listener without TLS, as for port 80; it then has no `tls`. `redirect` sends every request to the same URL at https (308), `serve` routes it.
        cleartext: optional CleartextAction;
        /// The port that `cleartext = "redirect"` names; 443 is left out of the URL.
        https_port: default u16 = "443", 1..=65_535;
        /// Proxies in front that say who their client is by the PROXY protocol, over TCP. Left out: nobody.
        proxy_protocol: optional ProxyProtocol;
        /// Certificates, keys, and what is asked of clients.
        tls: optional ListenerTls;
        /// What clients of HTTP/1.1 and HTTP/2 over TLS are told of HTTP/3 (RFC 7838).
        alt_svc: default AltSvc = "{}";
        /// QUIC transport.
        quic: default Quic = "{}";
    }
    later ["kind"]

    /// Connections over TCP from these proxies begin with a header of the PROXY protocol, version 1 or 2, or are closed; the client that it names is the one that connects, for `clients`, `trusted_proxies`, limits, logs and backends. Where it names nobody (LOCAL, UNKNOWN, unix sockets) the proxy itself is the client. QUIC has no such header.
    ProxyProtocol of "listener" {
        /// Networks or addresses of the proxies.
        from: required Vec<Located<IpNet>>;
        /// Connections over TCP from elsewhere, which have no header: served, or refused by a reset.
        others: default OtherPeers = "serve";
    }
    later []

    /// The Alt-Svc field, in every response over TLS of a listener that speaks HTTP/3 too. A backend's own is removed.
    AltSvc of "listener" {
        /// Send it.
        enabled: default bool = "true";
        /// The UDP port where HTTP/3 is found from outside. Left out: the listener's.
        port: optional u16, 1..=65_535;
        /// For how many seconds clients remember it.
        max_age: default u32 = "86400", 0..=31_536_000;
    }
    later []

    /// Certificates and keys of a listener. `cert` and `key` serve every name that no entry of `certificates` is for.
    ListenerTls of "listener" {
        /// PEM file with the certificate chain, the server's own certificate first.
        cert: required FilePath;
        /// PEM file with the private key.
        key: required FilePath;
        /// Further certificates, by the name that the client asks for; an exact name comes before a wildcard.
        certificates: default Vec<Located<Certificate>> = "[]";
        /// What is asked of clients.
        client_auth: default ClientAuth = "{}";
        /// The lowest version of TLS over TCP. QUIC has 1.3 and no other.
        min_version: default MinVersion = "\"1.2\"";
    }
    later []

    /// A certificate for one name, or for all names one label below another.
    Certificate of "listener" {
        /// `www.example.com`, or `*.example.com` for names of one more label.
        server_name: required ServerName;
        /// PEM file with the certificate chain, the server's own certificate first.
        cert: required FilePath;
        /// PEM file with the private key.
        key: required FilePath;
        /// What is asked of clients that come for this name. Left out: what the listener asks.
        client_auth: optional ClientAuth;
    }
    later []

    /// Certificates of clients. Connections that may show one are never resumed, so each is judged anew.
    ClientAuth of "listener" {
        /// Ask for a certificate; one that is shown must be good.
        enabled: default bool = "false";
        /// Refuse clients that show none.
        require_client_cert: default bool = "true";
        /// PEM file with the certificates of the authorities that clients' certificates come from.
        ca_file: optional FilePath;
        /// PEM file with revocation lists, one for every authority of a chain. Left out: nothing is revoked.
        crl_file: optional FilePath;
    }
    later []

    /// QUIC transport of a listener.
    Quic of "listener" {
        /// A connection on which nothing arrives for this long is forgotten.
        idle_timeout: default Duration = "30s", 1_000..=3_600_000;
        /// A client with running requests that is silent for this long is asked whether it is there (PING), or "off". Sooner where
        /// a third of the idle timeout, ours or the client's, is less. Connections without requests are never kept.
        keep_alive: default OrOff<Duration> = "10s", 1_000..=600_000;
        /// Bytes a client may send on one connection ahead of what was forwarded.
        max_data: default Bytes = "8MiB", 65_536..=1_073_741_824;
        /// The same for one stream.
        max_stream_data: default Bytes = "1MiB", 16_384..=1_073_741_824;
        /// Requests a client may have open at once on one connection.
        max_streams_bidi: default u64 = "128", 1..=65_536;
        /// Who decides how fast we send; `bbr2` holds its rate on lossy paths and costs about twice the CPU.
        congestion_control: default CongestionControl = "cubic";
        /// Bytes in one UDP datagram that we send at most: connections begin with 1200, probe for more, and fall back when
        /// the path carries less. 1452 fills an ethernet frame.
        max_udp_payload: default u16 = "1452", 1_200..=1_472;
        /// Packets sent before the first acknowledgement.
        initial_congestion_window: default u16 = "10", 2..=1_000;
        /// When a client has to prove its address before anything is kept of it, which costs it a round trip: while many handshakes are open, always, or never.
        retry: default RetryMode = "auto";
    }
    later []

    /// A named group of backends.
    Upstream of "upstream" {
        /// Which requests come here, in short form; a route with the upstream's name.
        route: optional ShortRoute;
        /// How a backend is picked.
        load_balancing: default LoadBalancing = "{}";
        /// The origins.
        backends: required Vec<Located<Backend>>;
        /// What the backend sees as Host.
        host_policy: default HostPolicy = "{}";
        /// What becomes of Forwarded and X-Forwarded-*.
        forwarded_headers: default ForwardedHeaders = "{}";
        /// Whether the client's certificate is sent in Client-Cert (RFC 9440), and the rest of its chain in Client-Cert-Chain.
        client_cert_header: default ClientCertHeader = "off";
        /// Begin every connection to its backends with a header of the PROXY protocol, before TLS, that names the client of the connection for which it is made. Such a connection carries requests of that client's connection alone, so fewer are reused.
        proxy_protocol: default ProxyHeader = "off";
        /// TLS towards its backends with `https`; what is left out is as [upstream_tls] says.
        tls: default UpstreamTls = "{}";
        /// Times for this upstream.
        timeouts: default Timeouts = "{}";
        /// Limits for this upstream.
        limits: default UpstreamLimits = "{}";
        /// Further attempts for its requests.
        retry: default RetryOf = "{}";
        /// How many further attempts its requests may have together.
        retry_budget: default RetryBudgetOf = "{}";
        /// Another attempt beside one that has no answer yet.
        hedging: optional Hedging;
        /// When its backends are not asked for a while.
        circuit_breaker: optional CircuitBreakerOf;
        /// How its backends are probed that have no table of their own.
        health_check: optional HealthCheck;
        /// When a backend is ejected, which means that it is given no requests for a while, because of what became of those that it had: connections that it refuses, breaks or leaves without an answer, TLS that fails, responses that are no HTTP, and statuses of 500 and above. A client who knows what makes backends answer 500 can have them ejected, as many as `max_ejected_percent` says: that is why it has to be asked for. An upstream's table stands in place of that in [resilience]. Left out of both: nobody is ejected.
        outlier_ejection: optional OutlierEjection;
        /// How much it is given at once, by how it answers. Stands in place of the table in [resilience]. Left out of both: as much as its inflight limits permit.
        adaptive_admission: optional AdaptiveAdmission;
    }
    later []

    /// A route in short form.
    ShortRoute of "route" {
        /// Host name, or an array of them; `*.example.com` takes every name below. Left out: any.
        host: optional OneOrMany<HostPattern>;
        /// Path prefix, on a segment boundary. Left out: any path.
        path_prefix: optional RoutePath;
        /// Method, or an array of them. Left out: any.
        method: optional OneOrMany<MethodName>;
    }
    later []

    /// How a backend is picked.
    LoadBalancing of "upstream" {
        /// The algorithm; `weight` counts in each. `round-robin`: in turn, as even as weights allow. `random`: by lot. `least-connections`: the one with the least in flight. `power-of-two-choices`: the freer one of two by lot, which costs the same with any number of backends. `latency-aware`: of two by lot the one that answers sooner, what is in flight considered. `consistent-hash`: by `key`, while the backend has less than its share of what is in flight and a quarter more. `sticky-cid`: one backend for each connection of a client, for the life of the connection.
        r#type: default BalancingType = "round-robin";
        /// What "consistent-hash" keeps together: `path` (without query), `authority` (the host without port), `method`, `cid` (the client's connection), `peer_ip`, `client_ip` (behind `trusted_proxies`), `bearer_token`, `header:NAME`, `cookie:NAME` or `query:NAME`, the first of that name, as it was sent. A request that lacks it, or has it empty, goes by lot and weight.
        key: optional HashKey;
        /// How long a backend that is healthy again takes to have its whole share: it begins with a tenth. Left out: it has it at once.
        slow_start: optional Duration, 1..=3_600_000;
        /// Percentage of the backends: while fewer are healthy, health is disregarded, because the others could not carry the load, or it is the probes that are wrong. 1: while none is. 0: never; while no backend is healthy, requests are answered 503.
        panic_threshold: default u32 = "0", 0..=100;
    }
    later []

    /// An origin.
    Backend of "backend" {
        /// Name, unique in its upstream.
        id: required Name;
        /// `https://host:port` (also `host:port`): TLS, with HTTP/2 or HTTP/1.1 as the backend chooses. `http://host:port` or `unix:/path`: HTTP/1.1 in clear. `h2c://host:port`: HTTP/2 in clear. The host is an IP address or a name.
        address: required BackendAddress;
        /// Share of the requests, relative to the other backends.
        weight: default u32 = "100", 1..=1_000;
        /// How a backend is probed, each time on a connection of its own; one that does not pass is given no requests until it does. A backend's table stands in place of its upstream's. Left out of both: nobody probes it.
        health_check: optional HealthCheck;
    }
    later ["tags"]

    /// What the backend sees as Host.
    HostPolicy of "upstream" {
        /// The client's host, a fixed one, or the backend's own address.
        mode: default HostMode = "pass_through";
        /// The fixed host for mode "rewrite".
        host: optional HostHeader;
    }
    later []

    /// What becomes of Forwarded and X-Forwarded-*.
    ForwardedHeaders of "upstream" {
        /// Replace, extend or keep; "append" and "preserve" act only for peers in `trusted_proxies`.
        mode: default ForwardedMode = "overwrite";
    }
    later []

    /// Times of an exchange that differ from [performance].
    Timeouts of "upstream or route" {
        /// Time to a connected socket.
        backend_connect_timeout: optional Duration, 1..=300_000;
        /// Time to the response head.
        backend_timeout: optional Duration, 1..=86_400_000;
        /// Longest gap in a response body.
        backend_body_idle_timeout: optional Duration, 1..=86_400_000;
        /// Time for the whole exchange, or "off".
        total_request_timeout: optional OrOff<Duration>, 1..=86_400_000;
        /// Longest gap in a request body.
        client_body_idle_timeout: optional Duration, 1..=86_400_000;
        /// Longest wait for a client that does not take its response.
        client_send_timeout: optional Duration, 1..=86_400_000;
        /// How long nothing may pass through a tunnel (WebSocket); once it is open, no other time here applies to it.
        tunnel_idle_timeout: optional Duration, 1..=604_800_000;
    }
    later []

    /// Limits of an upstream that differ from [performance].
    UpstreamLimits of "upstream" {
        /// Exchanges at once on this upstream.
        per_upstream_inflight_limit: optional u32, 1..=10_000_000;
        /// Exchanges at once on each of its backends.
        per_backend_inflight_limit: optional u32, 1..=10_000_000;
        /// Largest request body, or "off".
        max_request_body_bytes: optional OrOff<Bytes>, 0..=1_125_899_906_842_624;
        /// Largest response body, or "off".
        max_response_body_bytes: optional OrOff<Bytes>, 0..=1_125_899_906_842_624;
        /// Largest response head.
        max_response_header_bytes: optional Bytes, 1_024..=1_048_576;
    }
    later []

    /// How hosts, paths and addresses are read.
    Routing of "process" {
        /// Try less specific hosts when no path of the most specific host matches.
        host_fallback: default bool = "true";
        /// What becomes of %2F and %5C in a path: sent on as they are, or refused with 400.
        encoded_slash: default EncodedSlash = "keep";
        /// Networks whose Forwarded and X-Forwarded-* are believed.
        trusted_proxies: default Vec<Located<IpNet>> = "[]";
    }
    later []

    /// TLS towards backends, for upstreams that say nothing else.
    UpstreamTlsDefaults of "process" {
        /// Refuse backends whose certificate is not good. Switched off, whoever sits between can read and change everything.
        verify_certificates: default bool = "true";
        /// Refuse backends whose certificate does not name the host of their address. Switched off, every certificate of the authorities will do; the name is sent in either case.
        strict_sni: default bool = "true";
        /// PEM file with certificates of authorities to believe, in place of the system's.
        ca_file: optional FilePath;
        /// Folder of such files; with `ca_file`, both are believed.
        ca_dir: optional FilePath;
        /// PEM file with the certificate chain that is shown to backends that ask.
        client_cert: optional FilePath;
        /// PEM file with its private key.
        client_key: optional FilePath;
    }
    later []

    /// TLS towards the backends of an upstream. What is left out is as [upstream_tls] says; `ca_file` with `ca_dir`, and `client_cert` with `client_key`, are one thing each.
    UpstreamTls of "upstream" {
        /// Refuse backends whose certificate is not good. Switched off, whoever sits between can read and change everything.
        verify_certificates: optional bool;
        /// Refuse backends whose certificate does not name the host of their address. Switched off, every certificate of the authorities will do; the name is sent in either case.
        strict_sni: optional bool;
        /// PEM file with certificates of authorities to believe, in place of the system's.
        ca_file: optional FilePath;
        /// Folder of such files; with `ca_file`, both are believed.
        ca_dir: optional FilePath;
        /// PEM file with the certificate chain that is shown to backends that ask.
        client_cert: optional FilePath;
        /// PEM file with its private key.
        client_key: optional FilePath;
    }
    later []

    /// How names of backends are resolved: /etc/hosts first, then DNS, A and AAAA both. The last good answer is kept while there is no newer one.
    Resolver of "process" {
        /// DNS servers, each "ip" or "ip:port". Left empty: those of /etc/resolv.conf.
        servers: default Vec<Located<DnsServer>> = "[]";
        /// How long one server has for one answer. Left out: what /etc/resolv.conf says, or two seconds.
        timeout: optional Duration, 100..=30_000;
        /// How often all servers are asked before a name counts as failed. Left out: what /etc/resolv.conf says, or two.
        attempts: optional u32, 1..=5;
        /// An answer is asked for again no sooner than this, whatever its TTL.
        min_ttl: default Duration = "1s", 100..=3_600_000;
        /// An answer is asked for again no later than this, whatever its TTL.
        max_ttl: default Duration = "1h", 1_000..=86_400_000;
        /// How long the start waits for names; requests to those that are not resolved by then are answered 502 or 504 until they are.
        start_timeout: default Duration = "5s", 0..=300_000;
    }
    later []

    /// Limits, times and sizes.
    Performance of "process" {
        /// Worker threads; left out, one for each CPU that the process may use.
        worker_threads: optional u16, 1..=4_096;
        /// Keep each worker on one CPU.
        pin_workers: default bool = "true";
        /// Exchanges at once; more are answered 503.
        global_inflight_limit: default u32 = "16384", 1..=10_000_000;
        /// Exchanges at once on each upstream.
        per_upstream_inflight_limit: default u32 = "8192", 1..=10_000_000;
        /// Exchanges at once on each backend.
        per_backend_inflight_limit: default u32 = "1024", 1..=10_000_000;
        /// Exchanges at once of one client, or "off"; more are answered 429. The client is the rightmost address that is no trusted proxy's, an IPv6 address counts as its /64, and workers share it evenly.
        max_inflight_per_address: default OrOff<u32> = "off", 1..=10_000_000;
        /// Resident memory of the process above which new requests are answered 503, or "off". A worker with nothing in flight takes one in any case.
        memory_soft_limit: default OrOff<Bytes> = "off", 4_194_304..=1_125_899_906_842_624;
        /// Client connections at once; more are refused.
        max_active_connections: default u32 = "100000", 1..=10_000_000;
        /// Client connections at once of one address, or "off"; more are refused. QUIC and TCP count apart, an IPv6 address counts as its /64, and workers share it evenly.
        max_connections_per_address: default OrOff<u32> = "off", 1..=10_000_000;
        /// New client connections of one address in a second, or "off"; more are refused. QUIC and TCP count apart, an IPv6 address counts as its /64, and workers share it evenly.
        new_connections_per_sec: default OrOff<u32> = "off", 1..=1_000_000;
        /// How many of them may come at once, after a pause. Left out: as many as in a second.
        new_connections_burst: optional u32, 1..=1_000_000;
        /// Time to a connected socket of a backend.
        backend_connect_timeout: default Duration = "1s", 1..=300_000;
        /// Time to the response head of a backend.
        backend_timeout: default Duration = "15s", 1..=86_400_000;
        /// Longest gap in a response body.
        backend_body_idle_timeout: default Duration = "30s", 1..=86_400_000;
        /// Time for a whole exchange, or "off".
        total_request_timeout: default OrOff<Duration> = "off", 1..=86_400_000;
        /// Time for a request head over TCP, from its first byte, or from the connection's beginning; a late one is answered 408.
        client_header_timeout: default Duration = "10s", 1..=86_400_000;
        /// How long a connection over TCP may wait for its next request.
        client_idle_timeout: default Duration = "60s", 1..=86_400_000;
        /// Longest gap in a request body.
        client_body_idle_timeout: default Duration = "30s", 1..=86_400_000;
        /// Longest wait for a client that does not take its response.
        client_send_timeout: default Duration = "30s", 1..=86_400_000;
        /// How long nothing may pass through a tunnel (WebSocket); once it is open, no other time here applies to it.
        tunnel_idle_timeout: default Duration = "1h", 1..=604_800_000;
        /// Largest request body, or "off"; counted while it streams, more is answered 413.
        max_request_body_bytes: default OrOff<Bytes> = "off", 0..=1_125_899_906_842_624;
        /// Largest response body, or "off"; counted while it streams.
        max_response_body_bytes: default OrOff<Bytes> = "off", 0..=1_125_899_906_842_624;
        /// Largest response head of a backend; more is answered 502.
        max_response_header_bytes: default Bytes = "64KiB", 1_024..=1_048_576;
        /// Unused connections kept to each backend, by each worker.
        pool_idle_connections_per_worker: default u32 = "1024", 0..=1_000_000;
        /// How long an unused connection to a backend is kept.
        pool_idle_timeout: default Duration = "30s", 1..=3_600_000;
        /// Receive buffer of the UDP sockets.
        udp_receive_buffer_bytes: default Bytes = "8MiB", 65_536..=1_073_741_824;
        /// Send buffer of the UDP sockets.
        udp_send_buffer_bytes: default Bytes = "8MiB", 65_536..=1_073_741_824;
        /// How long a drain waits for running exchanges.
        shutdown_drain_timeout: default Duration = "30s", 0..=86_400_000;
    }
    later []

    /// What the program keeps to itself.
    Security of "process" {
        /// Root of the keys for connection IDs, stateless resets and Retry tokens.
        secret: default Secret = "{}";
    }
    later ["privileges"]

    /// Root of the keys for connection IDs, stateless resets and Retry tokens.
    Secret of "process" {
        /// File of at least 32 random bytes that only the service's user can read; made at the first start. Processes that share it accept each other's tokens. Left out, and the folder of the default cannot be made: a new secret with each start, in memory.
        file: default FilePath = "/var/lib/spooky/secret";
    }
    later ["env", "credential"]

    /// Protection.
    Resilience of "process" {
        /// What requests may look like.
        protocol: default ProtocolRules = "{}";
        /// Further attempts for requests whose backend failed.
        retry: default Retry = "{}";
        /// How many further attempts the requests of one upstream may have together.
        retry_budget: default RetryBudget = "{}";
        /// Backends that only fail are not asked for a while. Left out: they are always asked.
        circuit_breaker: optional CircuitBreaker;
        /// Another attempt beside one that has no answer yet. Left out: none.
        hedging: optional Hedging;
        /// Requests that find their upstream full may wait for room.
        route_queue: default RouteQueue = "{}";
        /// When backends are ejected, for upstreams that have no table of their own.
        outlier_ejection: optional OutlierEjection;
        /// How much an upstream is given at once, for upstreams that have no table of their own.
        adaptive_admission: optional AdaptiveAdmission;
        /// When there is too much to do for too long, only some routes are served. Left out: all are.
        brownout: optional Brownout;
    }
    later ["watchdog"]

    /// Further attempts, each on a backend that has not failed this request. Any request is tried again while no backend can have seen it: the connection could not be made, or HTTP/2 says that it was not looked at. What may have been seen is tried again only with an idempotent method (RFC 9110 §9.2.2), a body that is still there whole, and no response head yet.
    Retry of "process" {
        /// Attempts for one request at most, the first one included. A kept connection that turns out to be stale is no attempt.
        attempts: default u32 = "3", 1..=10;
        /// After what another attempt is made. `connect-failure`: the connection could not be made. `refused-stream`: HTTP/2 says that the request was not looked at. `reset`: the connection or the stream broke before a final head. `timeout`: `per_try_timeout` ran out. A status ("503", "429"), `gateway-error` (502, 503 and 504) or `5xx`: the backend answered so, to a request that may be repeated; that answer is dropped, and where no further attempt is permitted the client gets the last one as it came.
        on: default Vec<Located<Condition>> = "[\"connect-failure\", \"refused-stream\", \"reset\", \"timeout\"]";
        /// How long a backend may take to answer an idempotent request with a head before the next one is asked. Left out: backend_timeout ends the request.
        per_try_timeout: optional Duration, 1..=86_400_000;
        /// The pause before the second attempt at most; it doubles with each further one, and a random part of it is waited.
        backoff: default Duration = "25ms", 0..=60_000;
        /// No pause is longer.
        max_backoff: default Duration = "250ms", 0..=60_000;
        /// Bytes of an idempotent request's body that are kept to be sent again; a longer one is sent once.
        replay_buffer: default Bytes = "16KiB", 0..=1_048_576;
    }
    later []

    /// When everything fails, trying everything again makes it worse: retries are a share of the requests. A connection that could not be made is no burden to anybody, and does not count.
    RetryBudget of "process" {
        /// Retries for a hundred requests.
        percent: default u32 = "20", 0..=1_000;
        /// Retries a second that are permitted however few requests there are.
        min_per_sec: default u32 = "10", 0..=1_000_000;
        /// How long requests and retries count.
        window: default Duration = "10s", 1_000..=600_000;
    }
    later []

    /// One breaker for each backend, on each worker. Only failures of the backend count: connections that it refuses, breaks or leaves without an answer, TLS that fails, responses that are no HTTP; not statuses, and nothing that a client or a limit of ours did.
    CircuitBreaker of "process" {
        /// Failures in a row that open it.
        failures: default u32 = "5", 1..=1_000_000;
        /// How long it stays open; then a few requests try.
        open_for: default Duration = "5s", 1..=3_600_000;
        /// How many try at once, and must succeed in a row for it to close.
        half_open_requests: default u32 = "1", 1..=1_000;
    }
    later []

    /// What requests may look like, before they are routed.
    ProtocolRules of "process" {
        /// Methods that pass; others are answered 405. Left out: all but TRACE and CONNECT.
        allowed_methods: optional Vec<Located<MethodName>>;
        /// Paths under these prefixes are answered 403, however they are escaped.
        denied_path_prefixes: default Vec<Located<RoutePath>> = "[]";
        /// Field lines in one request head; more is answered 431.
        max_headers_count: default u32 = "128", 1..=4_096;
        /// Bytes of one request head, 32 for each field line included; more is answered 431.
        max_headers_bytes: default Bytes = "16KiB", 1_024..=1_048_576;
    }
    later ["allow_connect"]

    /// Metrics, health and access log.
    Observability of "process" {
        /// Prometheus endpoint.
        metrics: default Metrics = "{}";
        /// Endpoint for /health and /ready.
        control_api: default ControlApi = "{}";
        /// One JSON line for each exchange.
        access_log: default AccessLog = "{}";
        /// Traces of QUIC connections; left out: none.
        qlog: optional Qlog;
        /// What Proxy-Status (RFC 9209) says in answers of our own.
        proxy_status: default ProxyStatusMode = "error";
    }
    later ["tracing"]

    /// Prometheus endpoint.
    Metrics of "process" {
        /// Serve it.
        enabled: default bool = "true";
        /// Address to listen on.
        address: default IpAddr = "127.0.0.1";
        /// Port to listen on; 0 takes a free one.
        port: default u16 = "9901";
        /// Path it is served at.
        path: default RoutePath = "/metrics";
    }
    later []

    /// Endpoint for /health and /ready.
    ControlApi of "process" {
        /// Serve it.
        enabled: default bool = "true";
        /// Address to listen on.
        address: default IpAddr = "127.0.0.1";
        /// Port to listen on; 0 takes a free one.
        port: default u16 = "9902";
    }
    later ["auth_token", "socket"]

    /// One JSON line for each exchange.
    AccessLog of "process" {
        /// Write it.
        enabled: default bool = "true";
        /// "stdout", "stderr", or a file that lines are appended to.
        file: default LogTarget = "stdout";
    }
    later ["format"]

    /// Traces of QUIC connections for debugging: one qlog file (JSON-SEQ) each. They hold the fields of requests, secrets
    /// among them.
    Qlog of "process" {
        /// Folder of the files.
        dir: required FilePath;
        /// Trace only connections that come from this address.
        client: optional IpAddr;
        /// Files from the start of the process on; later connections are not traced.
        max_files: default u32 = "100", 1..=10_000;
        /// Bytes of one file; the rest is left out, and the file says so.
        max_file_size: default Bytes = "16MiB", 65_536..=1_073_741_824;
    }
    later []

    /// The program's own log.
    Log of "process" {
        /// Least weight of a line that is written. RUST_LOG wins.
        level: default LogLevel = "spooky";
        /// Levels of single modules.
        modules: default LogModules = "{}";
        /// Plain text or JSON lines.
        format: default LogFormat = "plain";
        /// "stdout", "stderr", or a file that lines are appended to.
        file: default LogTarget = "stderr";
    }
    later []

    /// Levels of single modules; `level` holds for those left out.
    LogModules of "process" {
        /// Start, signals, endpoints.
        control: optional LogLevel;
        /// Reading the configuration.
        config: optional LogLevel;
        /// The life of requests.
        exchange: optional LogLevel;
        /// HTTP/1.1.
        h1: optional LogLevel;
        /// HTTP/3 and QUIC.
        h3: optional LogLevel;
        /// Sockets and connections.
        worker: optional LogLevel;
    }
    later []
}

choice! {
    /// A protocol of a listener.
    Protocol {
        /// HTTP/3 over QUIC.
        H3 = "h3",
        /// HTTP/2 over TLS.
        H2 = "h2",
        /// HTTP/1.1 and 1.0 over TCP.
        H1 = "http/1.1",
    }
    later []

    /// A version of TLS.
    MinVersion {
        /// RFC 5246.
        Tls12 = "1.2",
        /// RFC 8446.
        Tls13 = "1.3",
    }
    later []

    /// What becomes of requests without TLS.
    CleartextAction {
        /// They are sent to https.
        Redirect = "redirect",
        /// They are routed.
        Serve = "serve",
    }
    later []

    /// Who decides the sending rate.
    CongestionControl {
        /// RFC 9438.
        Cubic = "cubic",
        /// RFC 9002 §7.
        Reno = "reno",
        /// Model-based and paced.
        Bbr2 = "bbr2" | "bbr",
    }
    later []

    /// When a client has to prove its address first.
    RetryMode {
        /// While many handshakes are open.
        Auto = "auto",
        /// Every time.
        Always = "always",
        /// Never.
        Never = "never",
    }
    later []

    /// How a backend is picked.
    BalancingType {
        /// Smooth weighted round-robin.
        RoundRobin = "round-robin",
        /// By lot.
        Random = "random",
        /// The least in flight.
        LeastConnections = "least-connections",
        /// The freer one of two.
        PowerOfTwoChoices = "power-of-two-choices",
        /// The faster one of two.
        LatencyAware = "latency-aware",
        /// By a key of the request.
        ConsistentHash = "consistent-hash",
        /// By the client's connection.
        StickyCid = "sticky-cid",
    }
    later []

    /// What the backend sees as `Host`.
    HostMode {
        /// What the client asked for.
        PassThrough = "pass_through",
        /// A fixed value.
        Rewrite = "rewrite",
        /// The backend's own address.
        Upstream = "upstream",
    }
    later []

    /// What Proxy-Status says.
    ProxyStatusMode {
        /// The type of the error.
        Error = "error",
        /// The type, and the word of the access log as `details`.
        Full = "full",
        /// Nothing: there is no such field.
        Off = "off",
    }
    later []

    /// What becomes of forwarding fields.
    ForwardedMode {
        /// Replaced by what we see.
        Overwrite = "overwrite",
        /// Extended by what we see, for trusted peers; else overwritten.
        Append = "append",
        /// Kept, for trusted peers; else overwritten.
        Preserve = "preserve",
    }
    later []

    /// What becomes of connections that do not come from a proxy that is named.
    OtherPeers {
        /// They are those of clients.
        Serve = "serve",
        /// They are closed.
        Refuse = "refuse",
    }
    later []

    /// How a backend is told of the client before anything else on a connection.
    ProxyHeader {
        /// Not at all.
        Off = "off",
        /// By a line of text.
        V1 = "v1",
        /// In binary.
        V2 = "v2",
    }
    later []

    /// What a backend is told of the client's certificate.
    ClientCertHeader {
        /// Nothing.
        Off = "off",
        /// The certificate.
        Leaf = "leaf",
        /// The certificate, and the others that the client sent with it.
        Chain = "chain",
    }
    later []

    /// What becomes of `%2F` and `%5C` in a path.
    EncodedSlash {
        /// Sent on as they came.
        Keep = "keep",
        /// Refused with 400.
        Refuse = "refuse",
    }
    later []

    /// Weight of a log line.
    LogLevel {
        /// trace
        Whisper = "whisper" | "trace",
        /// debug
        Haunt = "haunt" | "debug",
        /// info
        Spooky = "spooky" | "info",
        /// warn
        Scream = "scream" | "warn",
        /// error
        Poltergeist = "poltergeist" | "error",
        /// off
        Silence = "silence" | "off",
    }
    later []

    /// Form of log lines.
    LogFormat {
        /// For people.
        Plain = "plain",
        /// For machines.
        Json = "json",
    }
    later []
}

impl Rows for Upstream {
    const ROWS: &'static super::schema::Schema = &Self::SCHEMA;
}
