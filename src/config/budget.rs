//! The bounds of a configuration, as the demand that `limits` adds up.

use super::generation::{Generation, Location};
use crate::limits::{self, Budget, Demand};

/// The worst case of a generation.
pub(super) fn of(generation: &Generation) -> Budget {
    let largest =
        |of: fn(&super::Quic) -> u64| generation.listeners.iter().map(|listener| of(&listener.quic)).max().unwrap_or(0);
    let performance = &generation.performance;
    let http2 = generation.listeners.iter().any(|listener| listener.protocols.h2);
    let at_least = |window: u32| if http2 { u64::from(window) } else { 0 };
    Budget::of(&Demand {
        workers: u64::from(performance.worker_threads),
        listeners: generation.listeners.len() as u64,
        connections: u64::from(performance.max_active_connections),
        streams_per_connection: generation.streams_per_connection(),
        connection_window: largest(|quic| quic.max_data).max(at_least(limits::h2::CONNECTION_WINDOW)),
        stream_window: largest(|quic| quic.max_stream_data).max(at_least(limits::h2::STREAM_WINDOW)),
        http2,
        exchanges: u64::from(performance.global_inflight_limit),
        attempts_at_once: u64::from(generation.attempts_at_once()),
        replay: generation
            .ways
            .iter()
            .filter(|way| way.upstream.is_some() && way.retry.attempts > 1)
            .map(|way| way.retry.replay_buffer as u64)
            .max()
            .unwrap_or(0),
        request_head: u64::from(generation.protocol.max_headers_bytes),
        response_head: generation
            .ways
            .iter()
            .filter(|way| way.upstream.is_some())
            .map(|way| u64::from(way.limits.max_response_header_bytes))
            .max()
            .unwrap_or(0),
        backends: generation.backends.len() as u64,
        names: generation.backends.iter().filter(|backend| matches!(backend.location, Location::Named { .. })).count()
            as u64,
        probed: generation.backends.iter().filter(|backend| backend.health_check.is_some()).count() as u64,
        upstreams_over_tls: generation.upstream_ids().filter(|id| generation.speaks_tls(*id)).count() as u64,
        idle_connections: u64::from(performance.pool_idle_connections_per_worker),
        udp_receive_buffer: u64::from(performance.udp_receive_buffer_bytes),
        udp_send_buffer: u64::from(performance.udp_send_buffer_bytes),
        limits_addresses: performance.max_connections_per_address.is_some() || performance.new_connections.is_some(),
        rate_keys: generation.rate_limits.iter().map(|limit| limit.entries(generation.routes.len())).sum(),
        queued: generation.ways.iter().flat_map(|way| way.queue).map(|queue| u64::from(queue.length)).sum(),
        limits_inflight: performance.max_inflight_per_address.is_some(),
        address_rules: lists(generation),
        patterns: generation.table.patterns() as u64,
        traces: generation.observability.qlog.as_ref().map_or(0, |qlog| u64::from(qlog.max_files)),
    })
}

/// Bytes of the lists of all listeners and routes.
fn lists(generation: &Generation) -> u64 {
    let clients = generation.listeners.iter().map(|listener| listener.clients.as_ref());
    let proxies = generation.listeners.iter().map(|listener| listener.proxies.as_ref().map(|proxies| &proxies.from));
    let routes = generation.routes.iter().map(|route| route.clients.as_ref());
    clients.chain(proxies).chain(routes).flatten().map(|rules| rules.bytes()).sum()
}
