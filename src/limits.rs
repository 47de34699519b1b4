//! Every bound in one place.

// HTTP/1.1 connections.

/// Extensions and blanks in one chunk-size line. They are skipped, so a bound is all they need.
pub const H1_CHUNK_EXTENSION_BYTES: usize = 256;

/// Extensions over one chunked body: else 1-byte chunks would each carry [`H1_CHUNK_EXTENSION_BYTES`] of freight.
pub const H1_MESSAGE_EXTENSION_BYTES: usize = 16 * 1024;

/// Most fields of an HTTP/1.1 head or trailer section, whatever is configured: the parser's index of them stands on the
/// stack, 32 bytes each, 16 KiB in all.
pub const H1_FIELDS_CEILING: usize = 512;
// Telemetry: what a worker may have on its way to control, and what control may hold.

/// Access records in one batch.
pub const ACCESS_BATCH_RECORDS: usize = 128;

/// Bytes of text in one batch: some 500 for each record, and room for one record of the longest fields.
pub const ACCESS_BATCH_BYTES: usize = 64 * 1024;

/// Bytes kept of one text field of an access record; the rest is cut and the line says so.
pub const ACCESS_TEXT_BYTES: usize = 4096;

/// Batches from all workers waiting for control: 64 × (128 × ~200 B + 64 KiB) ≤ 6 MiB, only while control is behind.
pub const ACCESS_QUEUE_BATCHES: usize = 64;

/// Log lines from worker threads waiting for control.
pub const LOG_QUEUE_LINES: usize = 1024;

// HTTP/1.1 connections.

// Workers and exchanges.

/// Backends that one exchange tries at most.
pub const ATTEMPTS_MAX: usize = 3;

/// Events of one owner in one pass of a turn; then the others have their go.
pub const EVENTS_PER_OWNER: usize = 256;

/// Trains of datagrams that one client connection sends in one turn.
pub const TRAINS_PER_TURN: usize = 4;

/// Body bytes of one request that wait for the origin's socket, and so what a client may send ahead of it.
pub const REQUEST_QUEUE_BYTES: usize = 256 * 1024;

/// Received bytes of one HTTP/1.1 connection that may wait for credit, or behind a request being answered, before reading
/// pauses. One socket read can come on top.
pub const H1_HELD_BYTES: usize = 64 * 1024;

/// The same in received pieces: each may keep a receive buffer of 16 KiB or more from its pool, however few its bytes.
pub const H1_HELD_CHUNKS: usize = 16;

/// 1xx heads before one final head. One or two are usual; without a bound a backend could send them for ever.
pub const H1_INFORMATIONAL_MAX: usize = 16;

/// Memory of a used head that one connection keeps for its next one.
pub const H1_SPARE_HEAD_BYTES: usize = 4 * 1024;
//! Every bound of the program, with the arithmetic of the memory it stands for.
//!
//! Two kinds: constants, which no configuration changes, and [`Demand`], the bounds an operator sets. [`Budget`] joins
//! them to the worst case of the process, which `spooky check` prints. A queue or pool anywhere in the program takes its
//! bound from here; who adds one adds its row to [`Budget::of`]. Knows no configuration: `config` fills the demand.

use std::fmt;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Buffers the kernel receives datagrams into, per worker: one GRO train each. 32 × 64 KiB = 2 MiB.
pub const UDP_RECEIVE_BUFFERS: u16 = 32;
/// Room for one train of datagrams; 64 KiB is the most the kernel joins.
pub const UDP_RECEIVE_BUFFER_BYTES: u32 = 65_536;
/// Trains of datagrams on their way out, per worker; an empty pool is backpressure. 32 × 64 KiB = 2 MiB.
pub const UDP_SEND_SLOTS: u16 = 32;
/// Room for one train out.
pub const UDP_SEND_SLOT_BYTES: u32 = 65_536;
/// Buffers the kernel receives stream bytes into, per worker. Response bodies stay in them until the client
/// acknowledges, so this bounds unacknowledged bytes; a small hot pool is also faster than a large cold one.
/// 48 × 64 KiB = 3 MiB.
pub const STREAM_RECEIVE_BUFFERS: u16 = 48;
/// Room for one receive of a stream socket.
pub const STREAM_RECEIVE_BUFFER_BYTES: u32 = 65_536;

/// Response bytes of one exchange that wait for the client: taken from the backend, not yet acknowledged.
pub const RESPONSE_PENDING_BYTES: u32 = 65_536;
/// Request bytes of one exchange that wait for the backend: taken from the client, not yet sent.
pub const REQUEST_PENDING_BYTES: u32 = 65_536;
/// Everything else an exchange holds: its slot, timers, trail and small buffers.
pub const EXCHANGE_BYTES: u32 = 4_096;

/// An idle QUIC connection with HTTP/3, our state included; measured as resident memory, rounded up.
pub const CONNECTION_BYTES: u32 = 36 * 1024;
/// An idle connection to a backend: our state, without the kernel's socket.
pub const BACKEND_CONNECTION_BYTES: u32 = 2_048;

/// The libraries' own limits stand at this multiple of ours, so that ours answers first.
pub const LIBRARY_HEAD_FACTOR: u32 = 2;

/// Access-log records a worker may be ahead of the log; more are dropped and counted.
pub const ACCESS_RECORDS: u32 = 8_192;
/// One access-log record, its strings included.
pub const ACCESS_RECORD_BYTES: u32 = 512;
/// Messages a mailbox between control and a worker holds.
pub const MAILBOX_MESSAGES: u32 = 64;
/// Connections to the metrics and control endpoints at once.
pub const CONTROL_CONNECTIONS: u32 = 64;
/// One of them: a request head and a piece of the answer.
pub const CONTROL_CONNECTION_BYTES: u32 = 80 * 1024;

/// One configuration file.
pub const CONFIG_FILE_BYTES: u64 = 16 * MIB;
/// Files of one configuration, included ones and the main one.
pub const CONFIG_FILES: usize = 1_024;
/// Findings shown in full; the rest is counted.
pub const CONFIG_DIAGNOSTICS_SHOWN: usize = 50;
/// A name of an upstream, backend, route or listener.
pub const NAME_BYTES: usize = 64;

const _: () = assert!(
    CONFIG_FILES < u16::MAX as usize,
    "a file's number fits the id of a source"
);
const _: () = assert!(
    RESPONSE_PENDING_BYTES >= STREAM_RECEIVE_BUFFER_BYTES,
    "one receive fits what an exchange may hold"
);

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
    /// Largest request head.
    pub request_head: u64,
    /// Largest response head.
    pub response_head: u64,
    /// Backends of all upstreams.
    pub backends: u64,
    /// Unused connections kept to each backend by each worker.
    pub idle_connections: u64,
    /// Kernel receive buffer of one UDP socket.
    pub udp_receive_buffer: u64,
    /// Kernel send buffer of one UDP socket.
    pub udp_send_buffer: u64,
}

/// The worst-case memory of the process, item by item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// One line each.
    pub items: Vec<Item>,
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
        let Demand {
            workers,
            connections,
            ..
        } = *demand;
        let times = |count: u64, each: u32| count.saturating_mul(u64::from(each));
        // A stream without an exchange is refused in the turn that sees it, so exchanges bound what streams hold.
        let exchanges = demand
            .exchanges
            .min(connections.saturating_mul(demand.streams_per_connection));
        // Unread request bytes: bounded by the streams' windows and by the connections' windows, whichever is less.
        let by_stream = Item {
            what: "request bytes sent ahead, by stream",
            count: exchanges,
            each: demand.stream_window,
        };
        let by_connection = Item {
            what: "request bytes sent ahead, by connection",
            count: connections,
            each: demand.connection_window,
        };
        // Clients announce heads of every stream at once; the library holds one head per stream until it is whole.
        let head = demand
            .request_head
            .saturating_mul(u64::from(LIBRARY_HEAD_FACTOR))
            .saturating_add(demand.response_head);
        let items = vec![
            Item {
                what: "client connections",
                count: connections,
                each: u64::from(CONNECTION_BYTES),
            },
            Item {
                what: "exchanges",
                count: exchanges,
                each: u64::from(EXCHANGE_BYTES),
            },
            Item {
                what: "request and response heads",
                count: exchanges,
                each: head,
            },
            if by_stream.bytes() <= by_connection.bytes() {
                by_stream
            } else {
                by_connection
            },
            Item {
                what: "request bytes waiting for backends",
                count: exchanges,
                each: u64::from(REQUEST_PENDING_BYTES),
            },
            // Response bodies live in the receive pool; only what was copied out of it is bounded by exchange.
            Item {
                what: "response bytes waiting for clients",
                count: exchanges,
                each: u64::from(RESPONSE_PENDING_BYTES),
            },
            Item {
                what: "connections to backends",
                count: exchanges.saturating_add(
                    demand
                        .backends
                        .saturating_mul(demand.idle_connections)
                        .saturating_mul(workers),
                ),
                each: u64::from(BACKEND_CONNECTION_BYTES),
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
                each: times(
                    u64::from(STREAM_RECEIVE_BUFFERS),
                    STREAM_RECEIVE_BUFFER_BYTES,
                ),
            },
            Item {
                what: "access-log queues",
                count: workers,
                each: times(u64::from(ACCESS_RECORDS), ACCESS_RECORD_BYTES),
            },
            Item {
                what: "metrics and control connections",
                count: u64::from(CONTROL_CONNECTIONS),
                each: u64::from(CONTROL_CONNECTION_BYTES),
            },
            Item {
                what: "UDP socket buffers (kernel)",
                count: demand.listeners.saturating_mul(workers),
                each: demand
                    .udp_receive_buffer
                    .saturating_add(demand.udp_send_buffer),
            },
        ];
        Self { items }
    }

    /// Bytes of all items.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.items
            .iter()
            .fold(0, |sum, item| sum.saturating_add(item.bytes()))
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "worst-case memory at these limits")?;
        for item in &self.items {
            let sum = format!("{} × {}", item.count, human(item.each));
            writeln!(
                f,
                "  {:<40} {:>24} = {:>12}",
                item.what,
                sum,
                human(item.bytes())
            )?;
        }
        writeln!(
            f,
            "  {:<40} {:>24}   {:>12}",
            "together",
            "",
            human(self.bytes())
        )
    }
}

/// A size for people: two digits after the point from KiB on.
#[must_use]
pub fn human(bytes: u64) -> String {
    let units = [
        ("TiB", MIB * MIB),
        ("GiB", KIB * MIB),
        ("MiB", MIB),
        ("KiB", KIB),
    ];
    match units.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => {
            // In integers, so that no size is rounded up to one that is not reached.
            let hundredths = u128::from(bytes) * 100 / u128::from(*unit);
            let (whole, part) = (hundredths / 100, hundredths % 100);
            if part == 0 {
                format!("{whole} {name}")
            } else {
                format!("{whole}.{part:02} {name}")
            }
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
            request_head: 16 * KIB,
            response_head: 64 * KIB,
            backends: 3,
            idle_connections: 4,
            udp_receive_buffer: 8 * MIB,
            udp_send_buffer: 8 * MIB,
        }
    }

    fn bytes(budget: &Budget, what: &str) -> u64 {
        budget
            .items
            .iter()
            .filter(|item| item.what.starts_with(what))
            .map(Item::bytes)
            .sum()
    }

    #[test]
    fn streams_bound_exchanges_and_the_smaller_window_counts() {
        let budget = Budget::of(&demand());
        assert_eq!(bytes(&budget, "exchanges"), 20 * u64::from(EXCHANGE_BYTES));
        assert_eq!(bytes(&budget, "request bytes sent ahead"), 20 * MIB);
        let narrow = Budget::of(&Demand {
            connection_window: MIB,
            ..demand()
        });
        assert_eq!(bytes(&narrow, "request bytes sent ahead"), 10 * MIB);
        assert_eq!(
            bytes(&budget, "connections to backends"),
            (20 + 12) * u64::from(BACKEND_CONNECTION_BYTES)
        );
    }

    #[test]
    fn the_sum_is_the_sum_and_absurd_limits_do_not_overflow() {
        let budget = Budget::of(&demand());
        assert_eq!(
            budget.bytes(),
            budget.items.iter().map(Item::bytes).sum::<u64>()
        );
        let absurd = Budget::of(&Demand {
            connections: u64::MAX,
            streams_per_connection: u64::MAX,
            exchanges: u64::MAX,
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
/// Bounds of one QUIC connection and of one worker's QUIC endpoint. All of them are per worker or smaller, so the worst
/// case of a worker is `connections × (max_data + QUIC_QUEUE_BYTES × streams)`, and of its receive pool
/// `connections × QUIC_POOLED_BYTES` until the pool itself is dry.
pub mod quic {
    /// Response bytes one stream queues before its upstream has to wait. One more chunk may be taken above it.
    pub const QUEUE_BYTES: usize = 128 << 10;

    /// Bytes of pool memory one connection may hold, queued or not yet acknowledged; above it they are copied to the
    /// heap. A worker's receive pool has about 3 MiB: twelve stalled clients could hold it.
    pub const POOLED_BYTES: usize = 256 << 10;

    /// Largest piece of a request body handed out at once.
    pub const BODY_PIECE_BYTES: usize = 64 << 10;

    /// Connections of one worker.
    pub const CONNECTIONS: usize = 100_000;

    /// Of these, in handshake. Each costs some 30 KiB and 150 µs of a core.
    pub const HALF_OPEN: usize = 4096;

    /// Packets of one train: what one send with UDP_SEGMENT can carry on every kernel.
    pub const TRAIN_PACKETS: usize = 64;

    /// Bytes of one train: the largest UDP payload over IPv4 is 65,507.
    pub const TRAIN_BYTES: usize = 65_000;

    /// Unidirectional streams a client may open: control, two for QPACK, and a few greased ones.
    pub const UNI_STREAMS: u64 = 16;

    /// Receive window of each of those.
    pub const UNI_STREAM_BYTES: u64 = 16 << 10;

    /// Distinct close causes counted by name; more are counted together.
    pub const CLOSE_CAUSES: usize = 128;
}
// The control thread.

/// Bytes of log lines gathered while a write is under way; more are dropped and counted.
pub const JOURNAL_BYTES: usize = 4 << 20;

/// Connections on the metrics and control addresses together, 64 KiB and a page of metrics each at most.
pub const CONTROL_CONNECTIONS: usize = 256;
