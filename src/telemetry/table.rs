//! The table of metrics: name, kind, labels, help, and where the samples come from.
//!
//! Counts that a worker makes carry its number; counts per route and backend are summed over workers, so that the
//! number of series does not multiply.

use super::cells::{
    BackendCells, HealthCells, NamedCells, RateCells, RouteCells, Statuses, UpstreamCells, WorkerCells,
};
use super::kinds::{
    AttemptFailure, BreakerChange, CloseCode, ConnectFailure, DatagramDrop, Flood, HandshakeFailure, HealthCause,
    HealthState, Http2Flood, ProbeResult, Protocol, ProxyHeader, QueueFull, ResolverFailure, Side, StatusClass,
    TlsAlert, UpstreamClose,
};
use super::latency::{Latency, Merged};
use super::registry::{AdaptiveCells, Metric, Sources};
use super::steps::Reading;
use super::text::{Kind, Samples, push_micros};
use super::udp::UdpFacts;
use crate::http::Reason;
use std::time::Duration;

const WORKER: &[&str] = &["worker"];
const SOCKET: &[&str] = &["listener", "worker"];
const ROUTE: &[&str] = &["route", "upstream", "class"];
const WAY: &[&str] = &["route", "upstream"];
const RATE_LIMIT: &[&str] = &["limit"];
const BACKEND: &[&str] = &["upstream", "backend"];

macro_rules! metrics {
    ($($kind:ident $name:literal $labels:expr, $help:literal, $sample:expr;)+) => {
        /// Every metric there is.
        pub static METRICS: &[Metric] = &[$(Metric {
            name: $name,
            kind: Kind::$kind,
            help: $help,
            labels: $labels,
            sample: $sample,
        },)+];
    };
}

metrics! {
    // The process.
    Gauge "spooky_build_info" &["version", "quiche", "boringssl", "kernel"],
        "Always 1; the labels name the versions.",
        |s, out| out.number(&[s.build.version, &s.build.quiche, &s.build.boringssl, &s.build.kernel], 1);
    Gauge "spooky_uptime_seconds" &[],
        "Time since the process started.",
        |s, out| out.seconds(&[], s.uptime);
    Gauge "spooky_ready" &[],
        "1 while /ready answers 200: all workers serve and no drain began.",
        |s, out| out.number(&[], u64::from(s.ready));
    Gauge "spooky_workers" &[],
        "Worker threads.",
        |s, out| out.number(&[], s.workers.len() as u64);
    Gauge "spooky_config_generation" &[],
        "Number of the configuration generation that serves.",
        |s, out| out.number(&[], s.config.generation);
    Gauge "spooky_config_activated_timestamp_seconds" &[],
        "When that generation was activated, Unix time.",
        |s, out| out.seconds(&[], Duration::from_micros(s.config.activated_unix_us));
    Gauge "spooky_config_last_load_ok" &[],
        "1 if the last attempt to load a configuration worked.",
        |s, out| out.number(&[], u64::from(s.config.last_load_ok));
    Counter "process_cpu_seconds_total" &[],
        "Processor time of all threads, user and system.",
        |s, out| if let Some(cpu) = s.process.cpu { out.seconds(&[], cpu) };
    Gauge "process_resident_memory_bytes" &[],
        "Resident memory.",
        |s, out| if let Some(n) = s.process.resident_bytes { out.number(&[], n) };
    Gauge "process_virtual_memory_bytes" &[],
        "Virtual memory.",
        |s, out| if let Some(n) = s.process.virtual_bytes { out.number(&[], n) };
    Gauge "process_open_fds" &[],
        "Open file descriptors.",
        |s, out| if let Some(n) = s.process.fds_open { out.number(&[], n) };
    Gauge "process_max_fds" &[],
        "Limit of open file descriptors.",
        |s, out| if let Some(n) = s.process.fds_max { out.number(&[], n) };
    Gauge "process_threads" &[],
        "Threads.",
        |s, out| if let Some(n) = s.process.threads { out.number(&[], n) };

    // Exchanges.
    Counter "spooky_requests_started_total" &["worker", "protocol"],
        "Requests begun, by the client's protocol.",
        |s, out| kinds(s, out, Protocol::ALL, Protocol::word, |c, k| c.exchanges_started.get(k));
    Counter "spooky_requests_total" &["worker", "status"],
        "Requests ended (with their response), by the final status sent to the client; none if it got no status.",
        |s, out| statuses(s, out, |c| &c.finished);
    Gauge "spooky_requests_active" WORKER,
        "Requests under way, until the last byte of their response.",
        |s, out| workers(s, out, |c| c.exchanges_active.get());
    Counter "spooky_tunnels_opened_total" &["worker", "protocol"],
        "Requests that became tunnels (WebSocket), by the client's protocol.",
        |s, out| kinds(s, out, Protocol::ALL, Protocol::word, |c, k| c.tunnels_opened.get(k));
    Gauge "spooky_tunnels_active" WORKER,
        "Tunnels open; each is one of the active requests too.",
        |s, out| workers(s, out, |c| c.tunnels_active.get());
    Counter "spooky_informational_responses_total" &["worker", "status"],
        "1xx responses relayed to clients.",
        |s, out| statuses(s, out, |c| &c.informational);
    Counter "spooky_refusals_total" &["worker", "reason"],
        "Requests refused, shed or failed, by reason.",
        |s, out| kinds(s, out, Reason::ALL, Reason::token, |c, k| c.refusals.get(k));
    Counter "spooky_request_body_bytes_total" WORKER,
        "Body bytes received from clients.",
        |s, out| workers(s, out, |c| c.request_body_bytes.get());
    Counter "spooky_response_body_bytes_total" WORKER,
        "Body bytes sent to clients.",
        |s, out| workers(s, out, |c| c.response_body_bytes.get());
    Histogram "spooky_request_duration_seconds" &[],
        "From the request head to the last byte of the response.",
        |s, out| latency(s, out, |c| &c.exchange_duration);
    Histogram "spooky_first_byte_seconds" &[],
        "From the request head to the response head on its way to the client.",
        |s, out| latency(s, out, |c| &c.first_byte);

    // Downstream connections.
    Counter "spooky_connections_opened_total" &["worker", "protocol"],
        "Client connections accepted.",
        |s, out| kinds(s, out, Protocol::ALL, Protocol::word, |c, k| c.connections_opened.get(k));
    Counter "spooky_connections_closed_total" &["worker", "protocol"],
        "Client connections gone.",
        |s, out| kinds(s, out, Protocol::ALL, Protocol::word, |c, k| c.connections_closed.get(k));
    Gauge "spooky_connections_active" WORKER,
        "Client connections open.",
        |s, out| workers(s, out, |c| c.connections_active.get());
    Counter "spooky_tcp_connections_denied_total" WORKER,
        "Connections over TCP closed at once because their address is not in the listener's clients; over QUIC they are datagrams dropped as address_denied.",
        |s, out| workers(s, out, |c| c.connections_denied.get());
    Counter "spooky_proxy_protocol_headers_total" &["worker", "result"],
        "Connections of proxies named in proxy_protocol: begun with a header that names a client or nobody (proxy), or closed because what came is none (malformed) or none came (missing).",
        |s, out| kinds(s, out, ProxyHeader::ALL, ProxyHeader::word, |c, k| c.proxy_headers.get(k));

    // QUIC.
    Counter "spooky_handshakes_total" &["worker", "transport", "kind"],
        "TLS handshakes completed: full ones, and those resumed with a ticket.",
        handshakes;
    Counter "spooky_handshake_failures_total" &["worker", "transport", "reason"],
        "TLS handshakes that did not complete.",
        handshake_failures;
    Histogram "spooky_handshake_duration_seconds" &[],
        "From a QUIC client's first packet to its completed handshake.",
        |s, out| latency(s, out, |c| &c.quic.handshake_duration);
    Histogram "spooky_tcp_handshake_duration_seconds" &[],
        "From accepting a TCP client to its completed TLS handshake.",
        |s, out| latency(s, out, |c| &c.tls.duration);
    Counter "spooky_quic_closes_total" &["worker", "side", "code"],
        "QUIC connections ended, by who ended them and with which code.",
        close_codes;
    Counter "spooky_tls_alerts_total" &["worker", "side", "alert"],
        "TLS alerts that ended QUIC connections, by who sent them, in the words of RFC 8446; only those that occurred.",
        alerts;
    Counter "spooky_quic_idle_closes_total" WORKER,
        "QUIC connections ended because nobody spoke any more.",
        |s, out| workers(s, out, |c| c.quic.closed_by_silence.get());
    Counter "spooky_quic_floods_total" &["worker", "kind"],
        "QUIC connections closed with H3_EXCESSIVE_LOAD, by what the client did too often.",
        |s, out| kinds(s, out, Flood::ALL, Flood::word, |c, k| c.quic.floods.get(k));
    Counter "spooky_http2_floods_total" &["worker", "kind"],
        "HTTP/2 connections closed because their client did something too often, by what it was.",
        |s, out| kinds(s, out, Http2Flood::ALL, Http2Flood::word, |c, k| c.http2_floods.get(k));
    Counter "spooky_quic_events_total" &["worker", "event"],
        "What the QUIC and HTTP/3 side did and met, by name.",
        |s, out| named(s, out, |c| &c.quic.events);
    Counter "spooky_quic_packets_sent_total" WORKER,
        "QUIC packets sent on connections that have ended.",
        |s, out| workers(s, out, |c| c.quic.packets_sent.get());
    Counter "spooky_quic_packets_received_total" WORKER,
        "QUIC packets received on connections that have ended.",
        |s, out| workers(s, out, |c| c.quic.packets_received.get());
    Counter "spooky_quic_packets_lost_total" WORKER,
        "QUIC packets declared lost on connections that have ended.",
        |s, out| workers(s, out, |c| c.quic.packets_lost.get());
    Counter "spooky_quic_packets_spuriously_lost_total" WORKER,
        "Of the packets declared lost, those acknowledged later after all: reordering, not loss.",
        |s, out| workers(s, out, |c| c.quic.packets_spurious.get());
    Counter "spooky_quic_packets_retransmitted_total" WORKER,
        "QUIC packets sent with data that had been sent before, on connections that have ended.",
        |s, out| workers(s, out, |c| c.quic.packets_retransmitted.get());
    Counter "spooky_quic_lost_bytes_total" WORKER,
        "Bytes of the packets declared lost.",
        |s, out| workers(s, out, |c| c.quic.bytes_lost.get());
    Counter "spooky_quic_retransmitted_bytes_total" WORKER,
        "Stream bytes sent again on connections that have ended.",
        |s, out| workers(s, out, |c| c.quic.bytes_retransmitted.get());
    Counter "spooky_quic_probe_timeouts_total" WORKER,
        "Probe timeouts on connections that have ended: the client was silent while packets were unacknowledged.",
        |s, out| workers(s, out, |c| c.quic.probe_timeouts.get());
    Histogram "spooky_quic_round_trip_seconds" &[],
        "Smoothed round-trip time at the end of each connection.",
        |s, out| latency(s, out, |c| &c.quic.round_trip);
    Histogram "spooky_quic_round_trip_min_seconds" &[],
        "Smallest round-trip time of each connection, at its end.",
        |s, out| latency(s, out, |c| &c.quic.round_trip_min);
    Histogram "spooky_quic_congestion_window_bytes" &[],
        "Congestion window at the end of each connection.",
        |s, out| steps(s, out, |c| c.quic.congestion_window.read());
    Histogram "spooky_quic_packet_size_bytes" &[],
        "UDP payload that each connection's path was found to carry, at its end.",
        |s, out| steps(s, out, |c| c.quic.packet_size.read());
    Counter "spooky_quic_version_negotiations_total" WORKER,
        "Version negotiation packets sent.",
        |s, out| workers(s, out, |c| c.quic.events.get("negotiations"));
    Counter "spooky_quic_retries_total" WORKER,
        "Retry packets sent.",
        |s, out| workers(s, out, |c| c.quic.events.get("retries"));
    Counter "spooky_quic_tokens_total" &["worker", "verdict"],
        "Address validation tokens that clients sent, by what they proved: valid, expired, other_address, altered, unknown.",
        |s, out| events(s, out, &[
            ("valid", "tokens_valid"),
            ("expired", "tokens_expired"),
            ("other_address", "tokens_other_address"),
            ("altered", "tokens_altered"),
            ("unknown", "tokens_unknown"),
        ]);
    Counter "spooky_quic_stateless_resets_total" &["worker", "outcome"],
        "Packets of connections that are no more: sent a stateless reset, too_small for one, or over the rate (limited).",
        |s, out| events(s, out, &[("sent", "resets"), ("too_small", "resets_too_small"), ("limited", "resets_limited")]);
    Counter "spooky_quic_address_refusals_total" &["worker", "limit"],
        "Connections refused because of their address: too many at once (connections), or too fast (rate).",
        |s, out| events(s, out, &[("connections", "refused_address_connections"), ("rate", "refused_address_rate")]);
    Counter "spooky_quic_addresses_untracked_total" WORKER,
        "Connections not limited by address because the table of addresses was full.",
        |s, out| workers(s, out, |c| c.quic.events.get("addresses_untracked"));
    // UDP.
    Counter "spooky_datagrams_received_total" WORKER,
        "Datagrams received.",
        |s, out| workers(s, out, |c| c.quic.receive_batches.sum());
    Counter "spooky_datagrams_received_bytes_total" WORKER,
        "Bytes of datagrams received.",
        |s, out| workers(s, out, |c| c.quic.bytes_received.get());
    Counter "spooky_datagrams_sent_total" WORKER,
        "Datagrams given to the kernel.",
        |s, out| workers(s, out, |c| c.quic.send_batches.sum());
    Counter "spooky_datagrams_sent_bytes_total" WORKER,
        "Bytes of datagrams given to the kernel.",
        |s, out| workers(s, out, |c| c.quic.bytes_sent.get());
    Counter "spooky_datagrams_dropped_total" &["worker", "reason"],
        "Datagrams received and dropped.",
        |s, out| kinds(s, out, DatagramDrop::ALL, DatagramDrop::word, |c, k| c.quic.drops.get(k));
    Counter "spooky_datagrams_forwarded_total" &["worker", "direction"],
        "Datagrams that reached another worker than their connection's: out, given on by the worker they reached; in, taken in by the one they were for.",
        |s, out| forwarded(s, out);
    Gauge "spooky_kernel_steering" &["listener"],
        "1 while the kernel chooses the worker of a datagram by its connection ID; 0 while it goes by addresses alone and clients that move are forwarded (or there is one worker).",
        |s, out| for (listener, steered) in &s.steering { out.number(&[listener], u64::from(*steered)) };
    Counter "spooky_datagram_send_failures_total" WORKER,
        "Sends of datagrams that the kernel refused.",
        |s, out| workers(s, out, |c| c.quic.send_failures.get());
    Histogram "spooky_gro_batch_datagrams" WORKER,
        "Datagrams per receive operation.",
        |s, out| worker_steps(s, out, |c| c.quic.receive_batches.read());
    Histogram "spooky_gso_batch_datagrams" WORKER,
        "Datagrams per send operation.",
        |s, out| worker_steps(s, out, |c| c.quic.send_batches.read());
    Counter "spooky_udp_kernel_drops_total" SOCKET,
        "Datagrams the kernel dropped at a worker's socket, most of them because its receive buffer was full.",
        |s, out| sockets(s, out, |facts| facts.drops);
    Gauge "spooky_udp_receive_queue_bytes" SOCKET,
        "Memory of received datagrams that the worker has not taken from its socket yet.",
        |s, out| sockets(s, out, |facts| facts.queued_bytes);

    // Bounds and the ring.
    Counter "spooky_queue_full_total" &["worker", "queue"],
        "Times a bounded queue, pool or table was full.",
        |s, out| kinds(s, out, QueueFull::ALL, QueueFull::word, |c, k| c.full.get(k));
    Counter "spooky_ring_events_total" &["worker", "event"],
        "What the worker's io_uring did, by name (turns, submissions, completions, partial_sends and so on).",
        |s, out| named(s, out, |c| &c.ring);

    // Routes.
    Counter "spooky_route_requests_total" ROUTE,
        "Requests ended, by route, the upstream they went to (empty: the route had the answer) and class of the final status.",
        routes;

    // Queues of routes.
    Gauge "spooky_route_queue_length" WAY,
        "Requests that wait for room at their upstream, by route.",
        |s, out| ways(s, out, |r| r.waiting.get());
    Counter "spooky_route_queued_total" WAY,
        "Requests that found their upstream full and waited, by route.",
        |s, out| ways(s, out, |r| r.queued.get());
    Histogram "spooky_route_queue_wait_seconds" &[],
        "How long requests that were served in the end have waited for room at their upstream.",
        |s, out| latency(s, out, |c| &c.queue_wait);

    // Overload.
    Gauge "spooky_upstream_requests_active" &["upstream"],
        "Requests that the upstream has been given and that are not over, by upstream.",
        |s, out| upstreams(s, out, |at, out, name| out.number(&[name], at.iter().map(|u| u.active.get()).sum()));
    Gauge "spooky_upstream_adaptive_limit" &["upstream"],
        "What resilience.adaptive_admission gives an upstream at once, over all workers; none where it is off.",
        |s, out| adaptive(s, |name, cells| out.number(&[name], cells.limit.get()));
    Gauge "spooky_upstream_adaptive_baseline_seconds" &["upstream"],
        "What resilience.adaptive_admission takes for the time of an answer when nothing waits; 0 before it knows.",
        |s, out| adaptive(s, |name, cells| out.seconds(&[name], Duration::from_micros(cells.baseline_us.get())));
    Gauge "spooky_brownout_active" &[],
        "1 while only core routes are served (resilience.brownout).",
        |s, out| out.number(&[], s.control.overload.brownout_active.get());
    Counter "spooky_brownout_changes_total" &["to"],
        "Brownouts that began (entered) and ended (left).",
        |s, out| for (to, count) in [("entered", &s.control.overload.brownouts_entered), ("left", &s.control.overload.brownouts_left)] { out.number(&[to], count.get()) };
    Gauge "spooky_memory_pressure_active" &[],
        "1 while new requests are refused because of performance.memory_soft_limit.",
        |s, out| out.number(&[], s.control.overload.memory_pressure_active.get());

    // Rate limits.
    Counter "spooky_rate_limit_refusals_total" RATE_LIMIT,
        "Requests refused because they were over a rate limit.",
        |s, out| rate_limits(s, out, |r| r.refused.get());
    Counter "spooky_rate_limit_dry_run_refusals_total" RATE_LIMIT,
        "Requests over a rate limit in a dry run, which were let through.",
        |s, out| rate_limits(s, out, |r| r.would_refuse.get());
    Counter "spooky_rate_limit_evictions_total" RATE_LIMIT,
        "Keys of a rate limit that were forgotten for others before their allowance was whole again: its table is too small.",
        |s, out| rate_limits(s, out, |r| r.evicted.get());

    // Backends.
    Counter "spooky_backend_attempts_total" BACKEND,
        "Attempts begun.",
        |s, out| backends(s, out, |b| b.attempts.get());
    Gauge "spooky_backend_attempts_active" BACKEND,
        "Attempts under way.",
        |s, out| backends(s, out, |b| b.attempts_active.get());
    Counter "spooky_backend_retries_total" BACKEND,
        "Attempts after the first of their exchange.",
        |s, out| backends(s, out, |b| b.retries.get());
    Counter "spooky_backend_retries_denied_total" BACKEND,
        "Attempts that would have followed one on this backend, had resilience.retry_budget permitted them.",
        |s, out| backends(s, out, |b| b.retries_denied.get());
    Counter "spooky_backend_hedges_total" BACKEND,
        "Attempts begun beside another one of their exchange that had no answer yet.",
        |s, out| backends(s, out, |b| b.hedges.get());
    Counter "spooky_backend_hedges_won_total" BACKEND,
        "Of these, those whose answer the client got.",
        |s, out| backends(s, out, |b| b.hedges_won.get());
    Counter "spooky_backend_attempts_cancelled_total" BACKEND,
        "Attempts given up because another one of their exchange answered first, or the exchange ended.",
        |s, out| backends(s, out, |b| b.attempts_cancelled.get());
    Gauge "spooky_backend_breakers_open" BACKEND,
        "Workers on which the backend's circuit breaker is open or half open.",
        |s, out| backends(s, out, |b| b.breakers_open.get());
    Counter "spooky_backend_breaker_changes_total" &["upstream", "backend", "to"],
        "What circuit breakers have become, over all workers.",
        |s, out| backend_kinds(s, out, BreakerChange::ALL, BreakerChange::word, |b, k| b.breaker.get(k));
    Gauge "spooky_backend_health" &["upstream", "backend", "state"],
        "1 for the state that a backend is in; only of backends that are probed or may be ejected.",
        |s, out| health_kinds(s, out, HealthState::ALL, |k| [k.word(), ""], |h, k| h.state.get(k));
    Counter "spooky_backend_health_changes_total" &["upstream", "backend", "to", "cause"],
        "Changes of a backend's health.",
        |s, out| health_kinds(s, out, HealthCause::ALL, |k| [k.state().word(), k.word()], |h, k| h.changes.get(k));
    Counter "spooky_backend_probes_total" &["upstream", "backend", "result"],
        "Probes of a backend, by what came of them; an inconclusive one says nothing of it.",
        |s, out| health_kinds(s, out, ProbeResult::ALL, |k| [k.word(), ""], |h, k| h.probes.get(k));
    Counter "spooky_backend_ejections_withheld_total" BACKEND,
        "Ejections that were not made because max_ejected_percent of the upstream's backends are out already.",
        |s, out| each_watched(s, |labels, health| out.number(&labels, health.withheld.get()));
    Gauge "spooky_upstream_panic" &["upstream"],
        "1 while fewer backends are healthy than panic_threshold says, and health is disregarded.",
        |s, out| for (name, panic) in &s.control.health.panics { out.number(&[name], panic.get()) };
    Counter "spooky_backend_responses_total" &["upstream", "backend", "class"],
        "Response heads received, by class of their status.",
        |s, out| backend_kinds(s, out, StatusClass::ALL, StatusClass::word, |b, k| b.responses.get(k));
    Counter "spooky_backend_failures_total" &["upstream", "backend", "reason"],
        "Attempts that failed after they were connected.",
        |s, out| backend_kinds(s, out, AttemptFailure::ALL, AttemptFailure::word, |b, k| b.failures.get(k));
    Counter "spooky_backend_connects_total" BACKEND,
        "Connections made.",
        |s, out| backends(s, out, |b| b.connects.get());
    Counter "spooky_backend_connect_failures_total" &["upstream", "backend", "reason"],
        "Connections that could not be made.",
        |s, out| backend_kinds(s, out, ConnectFailure::ALL, ConnectFailure::word, |b, k| b.connect_failures.get(k));
    Counter "spooky_backend_reuses_total" BACKEND,
        "Attempts that took a kept connection.",
        |s, out| backends(s, out, |b| b.reuses.get());
    Gauge "spooky_backend_connections_active" BACKEND,
        "Connections open, idle ones included.",
        |s, out| backends(s, out, |b| b.connections_active.get());
    Gauge "spooky_backend_connections_idle" BACKEND,
        "Connections open and idle.",
        |s, out| backends(s, out, |b| b.connections_idle.get());
    Counter "spooky_backend_closes_total" &["upstream", "backend", "reason"],
        "Connections closed or found closed, by cause.",
        |s, out| backend_kinds(s, out, UpstreamClose::ALL, UpstreamClose::word, |b, k| b.closes.get(k));
    Counter "spooky_backend_sent_bytes_total" BACKEND,
        "Bytes sent, heads included.",
        |s, out| backends(s, out, |b| b.bytes_sent.get());
    Counter "spooky_backend_received_bytes_total" BACKEND,
        "Bytes received, heads included.",
        |s, out| backends(s, out, |b| b.bytes_received.get());
    Histogram "spooky_backend_connect_duration_seconds" BACKEND,
        "From starting to connect to connected.",
        |s, out| backend_latency(s, out, |b| &b.connect_duration);
    Histogram "spooky_backend_response_seconds" BACKEND,
        "From the request head sent to the response head received.",
        |s, out| backend_latency(s, out, |b| &b.response_duration);

    // Names of backends.
    Gauge "spooky_resolver_names" &["state"],
        "Names of backends: fresh, kept from an earlier answer because they are not resolved now, and unresolved from the start.",
        |s, out| for (word, count) in ["fresh", "kept", "unresolved"].iter().zip(&s.control.resolver.names) { out.number(&[word], count.get()) };
    Counter "spooky_resolver_questions_total" &["transport"],
        "Questions sent to DNS servers.",
        |s, out| for (word, count) in [("udp", &s.control.resolver.questions_udp), ("tcp", &s.control.resolver.questions_tcp)] { out.number(&[word], count.get()) };
    Counter "spooky_resolver_answers_ignored_total" &[],
        "Messages that answered none of the questions: late ones have no socket any more, so these are mistaken or forged.",
        |s, out| out.number(&[], s.control.resolver.ignored.get());
    Counter "spooky_resolver_resolutions_total" &["result"],
        "Names resolved or refreshed (ok), and not, by cause.",
        resolutions;
    Counter "spooky_resolver_changes_total" &[],
        "Answers that moved a name to other addresses.",
        |s, out| out.number(&[], s.control.resolver.changed.get());

    // Logs and control's own listeners.
    Counter "spooky_access_records_dropped_total" WORKER,
        "Access records dropped because the queue to control was full.",
        |s, out| workers(s, out, |c| c.access_dropped.get());
    Counter "spooky_access_lines_written_total" &[],
        "Access-log lines written.",
        |s, out| out.number(&[], s.control.access_written.get());
    Counter "spooky_access_lines_failed_total" &[],
        "Access-log lines the file did not take.",
        |s, out| out.number(&[], s.control.access_failed.get());
    Counter "spooky_log_lines_dropped_total" &[],
        "Log lines dropped because the queue to control was full.",
        |s, out| out.number(&[], s.control.log_dropped.get());
    Counter "spooky_qlog_files_total" &[],
        "Files of connections' traces made.",
        |s, out| out.number(&[], s.control.qlog_files.get());
    Counter "spooky_qlog_dropped_bytes_total" WORKER,
        "Bytes of connections' traces dropped because the queue to control was full.",
        |s, out| workers(s, out, |c| c.qlog_dropped_bytes.get());
    Counter "spooky_qlog_lost_bytes_total" &[],
        "Bytes of connections' traces the disk did not take.",
        |s, out| out.number(&[], s.control.qlog_lost_bytes.get());
    Counter "spooky_control_connections_total" &[],
        "Connections accepted on the metrics and control addresses.",
        |s, out| out.number(&[], s.control.host_connections.get());
    Counter "spooky_control_connections_refused_total" &[],
        "Connections refused there because the table was full.",
        |s, out| out.number(&[], s.control.host_refused.get());
    Counter "spooky_control_requests_total" &[],
        "Requests answered there.",
        |s, out| out.number(&[], s.control.host_requests.get());
}

fn resolutions(s: &Sources, out: &mut Samples<'_>) {
    let cells = &s.control.resolver;
    out.number(&["ok"], cells.resolved.get());
    for (cause, count) in ResolverFailure::ALL.iter().zip(&cells.failed) {
        out.number(&[cause.word()], count.get());
    }
}

fn handshakes(s: &Sources, out: &mut Samples<'_>) {
    for worker in &s.workers {
        let events = &worker.cells.quic.events;
        let resumed = events.get("resumed");
        let tls = &worker.cells.tls;
        for (transport, full, resumed) in [
            ("quic", events.get("established").saturating_sub(resumed), resumed),
            ("tcp", tls.full.get(), tls.resumed.get()),
        ] {
            out.number(&[&worker.label, transport, "full"], full);
            out.number(&[&worker.label, transport, "resumed"], resumed);
        }
    }
}

fn handshake_failures(s: &Sources, out: &mut Samples<'_>) {
    for worker in &s.workers {
        let cells = &worker.cells;
        for (transport, failures) in [("quic", &cells.quic.handshake_failures), ("tcp", &cells.tls.failures)] {
            for reason in HandshakeFailure::ALL {
                out.number(&[&worker.label, transport, reason.word()], failures.get(*reason));
            }
        }
    }
}

fn workers(s: &Sources, out: &mut Samples<'_>, value: impl Fn(&WorkerCells) -> u64) {
    for worker in &s.workers {
        out.number(&[&worker.label], value(&worker.cells));
    }
}

fn kinds<K: Copy>(
    s: &Sources,
    out: &mut Samples<'_>,
    all: &[K],
    word: impl Fn(K) -> &'static str,
    value: impl Fn(&WorkerCells, K) -> u64,
) {
    for worker in &s.workers {
        for kind in all {
            out.number(&[&worker.label, word(*kind)], value(&worker.cells, *kind));
        }
    }
}

fn forwarded(s: &Sources, out: &mut Samples<'_>) {
    for worker in &s.workers {
        let quic = &worker.cells.quic;
        for (direction, count) in [("out", &quic.forwarded_out), ("in", &quic.forwarded_in)] {
            out.number(&[&worker.label, direction], count.get());
        }
    }
}

fn statuses(s: &Sources, out: &mut Samples<'_>, cells: impl Fn(&WorkerCells) -> &Statuses) {
    for worker in &s.workers {
        for (status, count) in cells(&worker.cells).seen() {
            if status == 0 {
                out.number(&[&worker.label, "none"], count);
            } else {
                out.number(&[&worker.label, &status.to_string()], count);
            }
        }
    }
}

fn close_codes(s: &Sources, out: &mut Samples<'_>) {
    for worker in &s.workers {
        for code in CloseCode::ALL {
            let quic = &worker.cells.quic;
            for (side, cells) in [(Side::Local, &quic.closed_by_us), (Side::Remote, &quic.closed_by_client)] {
                out.number(&[&worker.label, side.word(), code.word()], cells.get(*code));
            }
        }
    }
}

fn alerts(s: &Sources, out: &mut Samples<'_>) {
    for worker in &s.workers {
        let quic = &worker.cells.quic;
        for (side, cells) in [(Side::Local, &quic.alerts_sent), (Side::Remote, &quic.alerts_received)] {
            for alert in TlsAlert::ALL.iter().filter(|alert| cells.get(**alert) > 0) {
                out.number(&[&worker.label, side.word(), alert.word()], cells.get(*alert));
            }
        }
    }
}

/// A socket that the kernel does not list is left out: nothing is not zero.
fn sockets(s: &Sources, out: &mut Samples<'_>, value: impl Fn(UdpFacts) -> u64) {
    for (socket, facts) in s.sockets.iter().zip(&s.socket_facts) {
        if let Some(facts) = facts {
            out.number(&[&socket.listener, &socket.worker], value(*facts));
        }
    }
}

fn named(s: &Sources, out: &mut Samples<'_>, cells: impl Fn(&WorkerCells) -> &NamedCells) {
    for worker in &s.workers {
        for (name, count) in cells(&worker.cells).named() {
            out.number(&[&worker.label, name], count);
        }
    }
}

/// A label value for each of some events.
fn events(s: &Sources, out: &mut Samples<'_>, events: &[(&str, &str)]) {
    for worker in &s.workers {
        for (word, event) in events {
            out.number(&[&worker.label, word], worker.cells.quic.events.get(event));
        }
    }
}

fn latency(s: &Sources, out: &mut Samples<'_>, cells: impl Fn(&WorkerCells) -> &Latency) {
    let mut merged = Merged::default();
    for worker in &s.workers {
        cells(&worker.cells).merge_into(&mut merged);
    }
    push_latency(out, &[], &merged);
}

fn push_latency(out: &mut Samples<'_>, values: &[&str], merged: &Merged) {
    let text = |micros| {
        let mut text = Vec::new();
        push_micros(micros, &mut text);
        // Digits and a point.
        String::from_utf8(text).unwrap_or_default()
    };
    out.histogram(
        values,
        merged.buckets().map(|(bound, below)| (text(bound), below)),
        &text(merged.sum_us()),
        merged.count(),
    );
}

/// One histogram for all workers.
fn steps(s: &Sources, out: &mut Samples<'_>, read: impl Fn(&WorkerCells) -> Reading) {
    let all = s.workers.iter().map(|worker| read(&worker.cells)).reduce(|mut all, one| {
        all.merge(&one);
        all
    });
    if let Some(all) = all {
        push_steps(out, &[], &all);
    }
}

/// One histogram for each worker.
fn worker_steps(s: &Sources, out: &mut Samples<'_>, read: impl Fn(&WorkerCells) -> Reading) {
    for worker in &s.workers {
        push_steps(out, &[&worker.label], &read(&worker.cells));
    }
}

fn push_steps(out: &mut Samples<'_>, values: &[&str], read: &Reading) {
    let buckets = read.buckets().map(|(bound, below)| (bound.to_string(), below));
    out.histogram(values, buckets, &read.sum.to_string(), read.count());
}

fn routes(s: &Sources, out: &mut Samples<'_>) {
    let Some(first) = s.workers.first() else {
        return;
    };
    for (at, name) in first.cells.scope.scope.routes.iter().enumerate() {
        for class in StatusClass::ALL {
            let cells = s.workers.iter().filter_map(|w| w.cells.scope.routes.get(at));
            let count = cells.map(|c: &RouteCells| c.finished.get(*class)).sum();
            out.number(&[&name.route, &name.upstream, class.word()], count);
        }
    }
}

/// One sample for each way that leads to an upstream.
fn ways(s: &Sources, out: &mut Samples<'_>, value: impl Fn(&RouteCells) -> u64) {
    let Some(first) = s.workers.first() else {
        return;
    };
    for (at, name) in first.cells.scope.scope.routes.iter().enumerate().filter(|(_, name)| !name.upstream.is_empty()) {
        let cells = s.workers.iter().filter_map(|worker| worker.cells.scope.routes.get(at));
        out.number(&[&name.route, &name.upstream], cells.map(&value).sum());
    }
}

/// Calls `act` with the cells of each upstream of all workers, and its name.
fn upstreams(s: &Sources, out: &mut Samples<'_>, act: impl Fn(&[&UpstreamCells], &mut Samples<'_>, &str)) {
    let Some(first) = s.workers.first() else {
        return;
    };
    for (at, name) in first.cells.scope.scope.upstreams.iter().enumerate() {
        let cells: Vec<&UpstreamCells> =
            s.workers.iter().filter_map(|worker| worker.cells.scope.upstreams.get(at)).collect();
        act(&cells, out, name);
    }
}

/// Calls `act` with the name of each upstream with adaptive admission, and what that has found.
fn adaptive(s: &Sources, mut act: impl FnMut(&str, &AdaptiveCells)) {
    let names = s.workers.first().into_iter().flat_map(|worker| &worker.cells.scope.scope.upstreams);
    for (name, cells) in names.zip(&s.control.overload.adaptive) {
        if let Some(cells) = cells {
            act(name, cells);
        }
    }
}

fn rate_limits(s: &Sources, out: &mut Samples<'_>, value: impl Fn(&RateCells) -> u64) {
    let Some(first) = s.workers.first() else {
        return;
    };
    for (at, name) in first.cells.scope.scope.rate_limits.iter().enumerate() {
        let cells = s.workers.iter().filter_map(|worker| worker.cells.scope.rate_limits.get(at));
        out.number(&[name], cells.map(&value).sum());
    }
}

fn backends(s: &Sources, out: &mut Samples<'_>, value: impl Fn(&BackendCells) -> u64) {
    each_backend(s, |labels, cells| {
        out.number(&labels, cells.iter().map(|cells| value(cells)).sum());
    });
}

fn backend_kinds<K: Copy>(
    s: &Sources,
    out: &mut Samples<'_>,
    all: &[K],
    word: impl Fn(K) -> &'static str,
    value: impl Fn(&BackendCells, K) -> u64,
) {
    each_backend(s, |[upstream, backend], cells| {
        for kind in all {
            let count = cells.iter().map(|cells| value(cells, *kind)).sum();
            out.number(&[upstream, backend, word(*kind)], count);
        }
    });
}

/// `words`: one label value, or two.
fn health_kinds<K: Copy>(
    s: &Sources,
    out: &mut Samples<'_>,
    all: &[K],
    words: impl Fn(K) -> [&'static str; 2],
    value: impl Fn(&HealthCells, K) -> u64,
) {
    each_watched(s, |[upstream, backend], health| {
        for kind in all {
            match words(*kind) {
                [word, ""] => out.number(&[upstream, backend, word], value(health, *kind)),
                [one, two] => out.number(&[upstream, backend, one, two], value(health, *kind)),
            }
        }
    });
}

/// Calls `act` with the labels of each backend whose health is watched.
fn each_watched<'s>(s: &'s Sources, mut act: impl FnMut([&'s str; 2], &HealthCells)) {
    let names = s.workers.first().map(|first| &first.cells.scope.scope.backends);
    for (name, health) in names.into_iter().flatten().zip(&s.control.health.backends) {
        if let Some(health) = health {
            act([&name.upstream, &name.backend], health);
        }
    }
}

fn backend_latency(s: &Sources, out: &mut Samples<'_>, cell: impl Fn(&BackendCells) -> &Latency) {
    each_backend(s, |labels, cells| {
        let mut merged = Merged::default();
        for cells in cells {
            cell(cells).merge_into(&mut merged);
        }
        push_latency(out, &labels, &merged);
    });
}

/// Calls `act` with the labels of each backend and its cells of all workers.
fn each_backend<'s>(s: &'s Sources, mut act: impl FnMut([&'s str; 2], &[&'s BackendCells])) {
    let Some(first) = s.workers.first() else {
        return;
    };
    for (at, name) in first.cells.scope.scope.backends.iter().enumerate() {
        let cells: Vec<&BackendCells> =
            s.workers.iter().filter_map(|worker| worker.cells.scope.backends.get(at)).collect();
        act([&name.upstream, &name.backend], &cells);
    }
}
