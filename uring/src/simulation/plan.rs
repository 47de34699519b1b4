//! What goes wrong, and how often: every fault of a run is drawn from here.

use super::random::Random;
use crate::ring::PoolConfig;
use std::time::Duration;

/// One direction of a path that datagrams take.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Time a datagram takes.
    pub delay: Duration,
    /// Up to this much more, so that datagrams may overtake each other.
    pub jitter: Duration,
    /// Rate of datagrams that never arrive.
    pub loss: f64,
    /// Rate of datagrams that arrive twice.
    pub duplicate: f64,
    /// Rate of datagrams that are held up by [`Self::reorder_by`].
    pub reorder: f64,
    /// How long those are held up.
    pub reorder_by: Duration,
    /// Datagrams larger than this vanish.
    pub payload_max: usize,
    /// The bottleneck; 0: none.
    pub bytes_per_second: u64,
    /// How long a datagram waits at the bottleneck at most; one that would wait longer is lost.
    pub queue: Duration,
}

impl Link {
    /// 10 ms, 200 Mbit/s, a queue of 50 ms, and nothing goes wrong.
    pub fn clean() -> Self {
        Self {
            delay: Duration::from_millis(10),
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_by: Duration::from_millis(5),
            payload_max: 1472,
            bytes_per_second: 25_000_000,
            queue: Duration::from_millis(50),
        }
    }

    /// A clean link that loses, doubles and reorders at these rates.
    pub fn faulty(loss: f64, duplicate: f64, reorder: f64) -> Self {
        Self { loss, duplicate, reorder, jitter: Duration::from_micros(200), ..Self::clean() }
    }
}

/// Sizes and fault rates of one simulated machine.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Receive buffers of stream sockets; `posted` is not simulated.
    pub stream_receive: PoolConfig,
    /// Receive buffers of UDP sockets.
    pub udp_receive: PoolConfig,
    /// UDP send buffers.
    pub udp_send_slots: u16,
    /// Stream sockets at once.
    pub streams: u32,
    /// As in [`RingConfig`](crate::RingConfig).
    pub low_water: usize,
    /// Bytes one direction of a stream socket takes that the other end has not read.
    pub socket_buffer: usize,
    /// Bytes of datagrams that wait at a socket; more are dropped.
    pub udp_socket_buffer: usize,
    /// Time between the machine and its origins, one way.
    pub stream_delay: Duration,
    /// Up to this much more.
    pub stream_jitter: Duration,
    /// What one turn of the worker costs, at most.
    pub turn: Duration,
    /// Rate of completions that come late.
    pub late: f64,
    /// By how much at most.
    pub late_by: Duration,
    /// Rate of stream sends of which only a part is taken.
    pub partial_send: f64,
    /// Rate of stream receives that bring only a part of what is there.
    pub cut: f64,
    /// Rate of receives that find no buffer, although the pool has some.
    pub exhausted: f64,
    /// Rate of requests for a UDP send slot that find none, although the pool has some.
    pub slots_dry: f64,
    /// Rate of UDP sends that the kernel refuses.
    pub udp_refused: f64,
    /// Rate at which datagrams that could be one train are not.
    pub train_split: f64,
}

impl Plan {
    /// A machine on which nothing goes wrong, of the usual sizes.
    pub fn calm() -> Self {
        let usual = crate::RingConfig::default();
        Self {
            stream_receive: usual.stream_receive,
            udp_receive: usual.udp_receive,
            udp_send_slots: usual.udp_send_slots,
            streams: 1024,
            low_water: usual.low_water,
            socket_buffer: 256 << 10,
            udp_socket_buffer: 4 << 20,
            stream_delay: Duration::from_micros(100),
            stream_jitter: Duration::ZERO,
            turn: Duration::from_micros(20),
            late: 0.0,
            late_by: Duration::from_millis(2),
            partial_send: 0.0,
            cut: 0.0,
            exhausted: 0.0,
            slots_dry: 0.0,
            udp_refused: 0.0,
            train_split: 0.0,
        }
    }

    /// A machine on which everything goes wrong now and then, and whose pools are small.
    pub fn rough(random: &mut Random) -> Self {
        let mut rate = |most: f64| most * (random.between(0..=100) as f64 / 100.0);
        let (late, partial_send, cut) = (rate(0.2), rate(0.5), rate(0.5));
        let (exhausted, slots_dry) = (rate(0.2), rate(0.2));
        let (udp_refused, train_split) = (rate(0.01), rate(0.3));
        let calm = Self::calm();
        Self {
            stream_receive: PoolConfig {
                count: random.between(4..=24) as u16,
                size: 1 << random.between(12..=16),
                posted: 4,
            },
            udp_receive: PoolConfig { count: random.between(4..=16) as u16, ..calm.udp_receive },
            udp_send_slots: random.between(2..=16) as u16,
            socket_buffer: 1 << random.between(13..=18),
            stream_jitter: Duration::from_micros(random.between(0..=500)),
            late,
            partial_send,
            cut,
            exhausted,
            slots_dry,
            udp_refused,
            train_split,
            ..calm
        }
    }
}
