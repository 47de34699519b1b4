//! The worst-case memory of the process at configured limits, item by item.

use super::*;
use std::fmt;

const KIB: u64 = 1 << 10;

/// The bounds that an operator sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Worker threads.
    pub workers: u64,
    /// Public listeners.
    pub listeners: u64,
    /// Client connections at once.
    pub connections: u64,
    /// Request streams at once on one connection.
    pub streams_per_connection: u64,
    /// Bytes a client may send ahead on one connection.
    pub connection_window: u64,
    /// Bytes a client may send ahead on one stream.
    pub stream_window: u64,
    /// Exchanges at once.
    pub exchanges: u64,
    /// Attempts that one exchange may have at once.
    pub attempts_at_once: u64,
    /// Bytes of a request's body that are kept to be sent again.
    pub replay: u64,
    /// Largest request head.
    pub request_head: u64,
    /// Largest response head.
    pub response_head: u64,
    /// Backends of all upstreams.
    pub backends: u64,
    /// Of these, backends that have a name.
    pub names: u64,
    /// Of these, backends that are probed.
    pub probed: u64,
    /// Upstreams with backends that are spoken to over TLS.
    pub upstreams_over_tls: u64,
    /// Unused connections kept to each backend by each worker.
    pub idle_connections: u64,
    /// Kernel receive buffer of one UDP socket.
    pub udp_receive_buffer: u64,
    /// Kernel send buffer of one UDP socket.
    pub udp_send_buffer: u64,
    /// Whether clients may speak HTTP/2.
    pub http2: bool,
    /// Whether connections are limited by address.
    pub limits_addresses: bool,
    /// Keys that rate limits remember.
    pub rate_keys: u64,
    /// Requests that may wait in the queues of all routes.
    pub queued: u64,
    /// Whether exchanges are limited by address.
    pub limits_inflight: bool,
    /// Bytes of all lists of clients' networks.
    pub address_rules: u64,
    /// Traces of connections, in the life of the process.
    pub traces: u64,
    /// Regular expressions of routes.
    pub patterns: u64,
}

/// The worst-case memory of the process, item by item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// One line each.
    pub items: Vec<Item>,
    /// The client connections that can be in handshake; the items have them among all connections.
    pub handshakes: Item,
}

/// One line of a [`Budget`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub what: &'static str,
    /// How many there can be.
    pub count: u64,
    /// Bytes of each.
    pub each: u64,
}

impl Item {
    /// Bytes of all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.count.saturating_mul(self.each)
    }
}

impl Budget {
    /// Adds up the bounds.
    #[must_use]
    pub fn of(demand: &Demand) -> Self {
        let Demand { workers, connections, .. } = *demand;
        let times = |count: u64, each: u32| count.saturating_mul(u64::from(each));
        // A stream without an exchange is refused in the turn that sees it, so exchanges bound what streams hold.
        let exchanges = demand.exchanges.min(connections.saturating_mul(demand.streams_per_connection));
        // Unread request bytes: bounded by the streams' windows and by the connections' windows, whichever is less.
        let by_stream =
            Item { what: "request bytes sent ahead, by stream", count: exchanges, each: demand.stream_window };
        let by_connection = Item {
            what: "request bytes sent ahead, by connection",
            count: connections,
            each: demand.connection_window,
        };
        // Clients announce heads of every stream at once; the library holds one head per stream until it is whole.
        let head =
            demand.request_head.saturating_mul(u64::from(LIBRARY_HEAD_FACTOR)).saturating_add(demand.response_head);
        let endpoints = workers.saturating_mul(demand.listeners);
        let handshakes = Item {
            what: "of the connections, in handshake",
            count: endpoints.saturating_mul((quic::HALF_OPEN + quic::HALF_OPEN_LEAVING) as u64).min(connections),
            each: u64::from(HALF_OPEN_BYTES),
        };
        // Whatever a client speaks, it is one of them: the dearest counts.
        let over_http2 =
            u64::from(h2::CONNECTION_BYTES + TLS_SESSION_BYTES) + (h2::OUTPUT_BYTES + h2::HELD_BYTES) as u64;
        let connection =
            if demand.http2 { over_http2.max(u64::from(CONNECTION_BYTES)) } else { u64::from(CONNECTION_BYTES) };
        let to_backend = match demand.upstreams_over_tls {
            0 => u64::from(BACKEND_CONNECTION_BYTES),
            _ => u64::from(BACKEND_CONNECTION_BYTES + TLS_SESSION_BYTES),
        };
        let items = vec![
            Item { what: "client connections", count: connections, each: connection },
            Item { what: "exchanges", count: exchanges, each: u64::from(EXCHANGE_BYTES) },
            Item { what: "request and response heads", count: exchanges, each: head },
            if by_stream.bytes() <= by_connection.bytes() { by_stream } else { by_connection },
            Item { what: "request bytes kept to be sent again", count: exchanges, each: demand.replay },
            Item { what: "request bytes waiting for backends", count: exchanges, each: REQUEST_QUEUE_BYTES as u64 },
            // Queued for the client, and held back before that; in the receive pool, or copied out of it.
            Item {
                what: "response bytes waiting for clients",
                count: exchanges,
                each: (quic::QUEUE_BYTES.max(CLIENT_QUEUE_BYTES) + H1_HELD_BYTES) as u64,
            },
            Item {
                what: "connections to backends",
                count: exchanges
                    .saturating_mul(demand.attempts_at_once)
                    .saturating_add(demand.backends.saturating_mul(demand.idle_connections).saturating_mul(workers)),
                each: to_backend,
            },
            Item {
                what: "datagram receive pools",
                count: workers,
                each: times(u64::from(UDP_RECEIVE_BUFFERS), UDP_RECEIVE_BUFFER_BYTES),
            },
            Item {
                what: "datagram send pools",
                count: workers,
                each: times(u64::from(UDP_SEND_SLOTS), UDP_SEND_SLOT_BYTES),
            },
            Item {
                what: "stream receive pools",
                count: workers,
                each: times(u64::from(STREAM_RECEIVE_BUFFERS), STREAM_RECEIVE_BUFFER_BYTES),
            },
            Item {
                what: "datagrams between workers",
                count: if workers > 1 { workers } else { 0 },
                each: (FORWARDS * FORWARD_BYTES) as u64,
            },
            Item {
                what: "access-log batches",
                count: (ACCESS_QUEUE_BATCHES as u64).saturating_add(workers),
                each: (ACCESS_BATCH_BYTES + ACCESS_BATCH_RECORDS * ACCESS_RECORD_BYTES) as u64,
            },
            Item {
                what: "addresses of clients with limits",
                count: if demand.limits_addresses { endpoints.saturating_mul(quic::ADDRESSES as u64) } else { 0 },
                each: u64::from(quic::ADDRESS_BYTES),
            },
            // They are among the exchanges, whose memory is counted there.
            Item { what: "places in queues of routes", count: demand.queued.min(exchanges), each: QUEUE_PLACE_BYTES },
            Item {
                what: "clients with requests in flight",
                count: if demand.limits_inflight { exchanges } else { 0 },
                each: INFLIGHT_ADDRESS_BYTES,
            },
            Item { what: "keys of rate limits", count: demand.rate_keys, each: RATE_KEY_BYTES },
            Item { what: "lists of clients' networks", count: demand.address_rules.min(1), each: demand.address_rules },
            Item { what: "log lines being written", count: 2, each: JOURNAL_BYTES as u64 },
            Item {
                what: "metrics and control connections",
                count: u64::from(CONTROL_CONNECTIONS),
                each: u64::from(CONTROL_CONNECTION_BYTES),
            },
            Item {
                what: "addresses of backends with names",
                // Control has its own, and so has each worker.
                count: demand.names.saturating_mul(workers.saturating_add(1)),
                each: ENDPOINTS as u64 * ENDPOINT_BYTES,
            },
            Item {
                what: "sessions with backends over TLS",
                // Upstreams of the same settings share one context; here each has its own.
                count: demand.upstreams_over_tls.saturating_mul(workers.saturating_add(u64::from(demand.probed > 0))),
                each: (TLS_CLIENT_SESSIONS * TLS_CLIENT_SESSION_BYTES) as u64,
            },
            Item {
                what: "questions to name servers",
                count: demand.names.saturating_mul(2).min(RESOLVER_QUESTIONS as u64),
                each: RESOLVER_QUESTION_BYTES,
            },
            Item { what: "probes of backends", count: demand.probed.min(PROBES as u64), each: PROBE_BYTES },
            Item {
                what: "traces of connections",
                // What gathers, what is on its way to control, and what waits for the disk.
                count: match demand.traces {
                    0 => 0,
                    traces => traces + (QLOG_QUEUE_PIECES + QLOG_UNWRITTEN_BYTES / QLOG_GATHERED_BYTES) as u64,
                },
                each: QLOG_GATHERED_BYTES as u64,
            },
            Item {
                what: "patterns of routes",
                count: demand.patterns.saturating_mul(workers),
                each: (PATTERN_COMPILED_BYTES + 2 * PATTERN_CACHE_BYTES) as u64,
            },
            Item {
                what: "UDP socket buffers (kernel)",
                count: demand.listeners.saturating_mul(workers),
                each: demand.udp_receive_buffer.saturating_add(demand.udp_send_buffer),
            },
        ];
        Self { items, handshakes }
    }

    /// Bytes of all items.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.items.iter().fold(0, |sum, item| sum.saturating_add(item.bytes()))
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "worst-case memory at these limits")?;
        let line = |f: &mut fmt::Formatter<'_>, item: &Item| {
            let sum = format!("{} × {}", item.count, human(item.each));
            writeln!(f, "  {:<40} {:>24} = {:>12}", item.what, sum, human(item.bytes()))
        };
        self.items.iter().try_for_each(|item| line(f, item))?;
        writeln!(f, "  {:<40} {:>24}   {:>12}", "together", "", human(self.bytes()))?;
        line(f, &self.handshakes)?;
        writeln!(f, "  not counted: the kernel's buffers of TCP sockets (net.ipv4.tcp_mem bounds them)")
    }
}

/// A size for people: two digits after the point from KiB on.
#[must_use]
pub fn human(bytes: u64) -> String {
    let units = [("TiB", MIB * MIB), ("GiB", KIB * MIB), ("MiB", MIB), ("KiB", KIB)];
    match units.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => {
            // In integers, so that no size is rounded up to one that is not reached.
            let hundredths = u128::from(bytes) * 100 / u128::from(*unit);
            let (whole, part) = (hundredths / 100, hundredths % 100);
            if part == 0 { format!("{whole} {name}") } else { format!("{whole}.{part:02} {name}") }
        }
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand() -> Demand {
        Demand {
            workers: 1,
            listeners: 1,
            connections: 10,
            streams_per_connection: 2,
            connection_window: 8 * MIB,
            stream_window: MIB,
            exchanges: 100,
            attempts_at_once: 1,
            request_head: 16 * KIB,
            response_head: 64 * KIB,
            replay: 16 * KIB,
            backends: 3,
            names: 0,
            probed: 0,
            upstreams_over_tls: 0,
            idle_connections: 4,
            udp_receive_buffer: 8 * MIB,
            udp_send_buffer: 8 * MIB,
            http2: false,
            limits_addresses: false,
            rate_keys: 0,
            queued: 0,
            limits_inflight: false,
            address_rules: 0,
            traces: 0,
            patterns: 0,
        }
    }

    fn bytes(budget: &Budget, what: &str) -> u64 {
        budget.items.iter().filter(|item| item.what.starts_with(what)).map(Item::bytes).sum()
    }

    #[test]
    fn streams_bound_exchanges_and_the_smaller_window_counts() {
        let budget = Budget::of(&demand());
        assert_eq!(bytes(&budget, "exchanges"), 20 * u64::from(EXCHANGE_BYTES));
        assert_eq!(bytes(&budget, "request bytes sent ahead"), 20 * MIB);
        let narrow = Budget::of(&Demand { connection_window: MIB, ..demand() });
        assert_eq!(bytes(&narrow, "request bytes sent ahead"), 10 * MIB);
        assert_eq!(bytes(&budget, "connections to backends"), (20 + 12) * u64::from(BACKEND_CONNECTION_BYTES));
    }

    #[test]
    fn handshakes_are_bounded_and_among_the_connections() {
        let budget = Budget::of(&demand());
        assert_eq!(budget.handshakes.count, 10);
        let wide = Budget::of(&Demand { connections: 100_000, workers: 2, listeners: 3, ..demand() });
        assert_eq!(wide.handshakes.count, 6 * 1_024);
        let text = wide.to_string();
        assert!(text.contains("in handshake") && text.contains("6144 × 32 KiB = "), "{text}");
        assert!(wide.items.iter().all(|item| item.what != wide.handshakes.what), "counted twice");
    }

    #[test]
    fn the_dearest_protocol_counts() {
        let quic = bytes(&Budget::of(&demand()), "client connections");
        assert_eq!(quic, 10 * u64::from(CONNECTION_BYTES));
        let http2 = bytes(&Budget::of(&Demand { http2: true, ..demand() }), "client connections");
        assert_eq!(http2, 10 * (64 + 4 + 128 + 64) * KIB);
        let tls = bytes(&Budget::of(&Demand { upstreams_over_tls: 1, ..demand() }), "connections to backends");
        assert_eq!(tls, 32 * 6 * KIB);
    }

    #[test]
    fn addresses_cost_something_only_with_limits() {
        assert_eq!(bytes(&Budget::of(&demand()), "addresses"), 0);
        let limited = Budget::of(&Demand { limits_addresses: true, workers: 2, ..demand() });
        assert_eq!(bytes(&limited, "addresses"), 2 * quic::ADDRESSES as u64 * u64::from(quic::ADDRESS_BYTES));
    }

    #[test]
    fn rate_limits_and_lists_cost_what_they_hold() {
        let some = Budget::of(&Demand { rate_keys: 65_536, address_rules: 1_000, ..demand() });
        assert_eq!((bytes(&some, "keys of rate"), bytes(&some, "lists of")), (512 * KIB, 1_000));
    }

    #[test]
    fn who_waits_is_among_the_exchanges() {
        let some = Budget::of(&Demand { queued: 7, limits_inflight: true, ..demand() });
        assert_eq!(bytes(&some, "places in queues"), 7 * QUEUE_PLACE_BYTES);
        assert_eq!(bytes(&some, "clients with requests"), 20 * INFLIGHT_ADDRESS_BYTES);
        let many = Budget::of(&Demand { queued: 1_000_000, ..demand() });
        assert_eq!(bytes(&many, "places in queues"), 20 * QUEUE_PLACE_BYTES);
        assert_eq!(bytes(&many, "clients with requests"), 0);
    }

    #[test]
    fn names_cost_something_only_where_there_are_some() {
        let none = Budget::of(&demand());
        assert_eq!(bytes(&none, "addresses of backends") + bytes(&none, "questions"), 0);
        let some = Budget::of(&Demand { names: 100, workers: 3, ..demand() });
        assert_eq!(bytes(&some, "addresses of backends"), 400 * ENDPOINTS as u64 * ENDPOINT_BYTES);
        assert_eq!(bytes(&some, "questions"), RESOLVER_QUESTIONS as u64 * RESOLVER_QUESTION_BYTES);
    }

    #[test]
    fn sessions_with_backends_are_kept_by_each_worker() {
        assert_eq!(bytes(&Budget::of(&demand()), "sessions"), 0);
        let some = Budget::of(&Demand { upstreams_over_tls: 3, workers: 2, ..demand() });
        assert_eq!(bytes(&some, "sessions"), 6 * 512 * KIB);
    }

    #[test]
    fn probes_cost_something_where_there_are_some_and_are_bounded() {
        assert_eq!(bytes(&Budget::of(&demand()), "probes"), 0);
        let few = Budget::of(&Demand { probed: 3, upstreams_over_tls: 1, ..demand() });
        assert_eq!((bytes(&few, "probes"), bytes(&few, "sessions")), (3 * PROBE_BYTES, 1024 * KIB));
        let many = Budget::of(&Demand { probed: 100_000, ..demand() });
        assert_eq!(bytes(&many, "probes"), PROBES as u64 * PROBE_BYTES);
    }

    #[test]
    fn the_sum_is_the_sum_and_absurd_limits_do_not_overflow() {
        let budget = Budget::of(&demand());
        assert_eq!(budget.bytes(), budget.items.iter().map(Item::bytes).sum::<u64>());
        let absurd = Budget::of(&Demand {
            connections: u64::MAX,
            streams_per_connection: u64::MAX,
            exchanges: u64::MAX,
            attempts_at_once: u64::MAX,
            workers: u64::MAX,
            ..demand()
        });
        assert_eq!(absurd.bytes(), u64::MAX);
        assert!(absurd.to_string().contains("together"));
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(human(0), "0 B");
        assert_eq!(human(1_023), "1023 B");
        assert_eq!(human(36 * KIB), "36 KiB");
        assert_eq!(human(1_536 * KIB), "1.50 MiB");
        assert_eq!(human(100_000 * 36 * KIB), "3.43 GiB");
    }
}
