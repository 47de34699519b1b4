//! The real ring: one io_uring with every socket, buffer and source of one thread.
//!
//! Owns: the operation tables. Each table (streams, UDP sends, listeners, …) owns the memory that its operations point
//! to, and keeps it until the last completion of the operation: a closed socket's slot is reused only after that.
//! Sockets are plain descriptors, except outgoing streams where the kernel can make them in the ring (`direct_connect`).
//!
//! Refuses to know: what the bytes mean. Read next: `ring/queue.rs` (submission and completion), `ring/streams.rs`,
//! `ring/udp.rs`.

mod buffers;
mod listeners;
mod queue;
mod sources;
mod stop;
mod stream_receive;
mod stream_send;
mod streams;
mod udp;
mod udp_send;
mod user_data;

#[cfg(test)]
mod tests;

pub use buffers::PoolConfig;
pub use udp_send::UdpSlot;

use crate::chunk::Chunk;
use crate::features::{Features, StartError};
use crate::io::{Event, FileId, Io, ListenerId, Pressure, StreamAddress, StreamId, Token, Transmit, UdpId};
use crate::mailbox::Doorbell;
use crate::stats::RingStats;
use buffers::Buffers;
use listeners::Listeners;
use queue::{Completion, Queue};
use sources::Sources;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use streams::Streams;
use udp::UdpSockets;
use udp_send::UdpSends;
use user_data::{Kind, UserData};

/// Sizes of a ring's queues, tables and pools. Every bound of the reactor is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingConfig {
    /// Submission queue entries; the completion queue has four times as many.
    pub entries: u32,
    /// Streams that may exist at once.
    pub streams: u32,
    /// Receive buffers shared by all streams. Small receives do not stay in them ([`Lease::SMALL`](crate::Lease)). 48 × 64 KiB: a small hot pool beat a large one by a fifth and more on big
    /// bodies, and running dry is the back-pressure.
    pub stream_receive: PoolConfig,
    /// Receive buffers shared by all UDP sockets. A coalesced train is up to 64 KiB.
    pub udp_receive: PoolConfig,
    /// UDP send buffers of 64 KiB.
    pub udp_send_slots: u16,
    /// [`Event::Sent`] is told when a stream's queue falls to this many bytes, and when it empties.
    pub low_water: usize,
}

impl Default for RingConfig {
    fn default() -> Self {
        Self {
            entries: 1024,
            streams: 16_384,
            stream_receive: PoolConfig { count: 48, size: 64 << 10, posted: 4 },
            udp_receive: PoolConfig { count: 64, size: UDP_BUFFER, posted: 16 },
            udp_send_slots: 64,
            low_water: 64 << 10,
        }
    }
}

/// A whole coalesced train with its header, sender and control messages.
const UDP_BUFFER: usize = (64 << 10) + 256;

/// Bytes of datagrams that go to the kernel without waiting for the end of the turn: a few trains, which still share a
/// system call and fit the second-level cache. Measured at 1 MiB and 64 KiB responses: twice as many lose the cache,
/// half as many pay for the calls.
const SUBMIT_EARLY: usize = 192 << 10;

/// Group numbers of the provided buffer rings.
const STREAM_GROUP: u16 = 0;
const UDP_GROUP: u16 = 1;

/// How long accepting rests when no file descriptor is left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// One thread's io_uring. It works on the thread that made it and cannot be sent to another.
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<spooky_uring::Ring>();
/// ```
pub struct Ring {
    queue: Queue,
    low_water: usize,
    direct_connect: bool,
    udp_gso: bool,
    /// When this turn began.
    now: Instant,
    /// When stalled listeners are tried again.
    accept_retry: Option<Instant>,
    batch: Vec<Completion>,
    /// Bytes of datagrams queued since the kernel last took some.
    unsubmitted: usize,
    /// Completions that an early submission brought beside those of datagrams; the next wait tells them.
    early: Vec<Completion>,
    /// Events of datagrams that an early submission brought.
    early_events: Vec<Event>,
    // Tables and pools that the kernel points into: `stop.rs` drops them, when it no longer does.
    streams: ManuallyDrop<Streams>,
    stream_buffers: ManuallyDrop<Buffers>,
    listeners: Listeners,
    udp: ManuallyDrop<UdpSockets>,
    udp_buffers: ManuallyDrop<Buffers>,
    udp_sends: ManuallyDrop<UdpSends>,
    sources: ManuallyDrop<Sources>,
    _thread: PhantomData<*const ()>,
}

impl Ring {
    /// Makes a ring for this thread.
    ///
    /// # Errors
    /// What the machine refuses, with the fix.
    pub fn new(config: &RingConfig, features: &Features) -> Result<Self, StartError> {
        let queue = Queue::new(config.entries, features)?;
        let stream_buffers = Buffers::new(queue.ring(), STREAM_GROUP, config.stream_receive)?;
        let udp_buffers = Buffers::new(queue.ring(), UDP_GROUP, config.udp_receive)?;
        let mut ring = Self {
            low_water: config.low_water,
            direct_connect: features.direct_connect,
            udp_gso: features.udp_gso,
            now: Instant::now(),
            accept_retry: None,
            batch: Vec::with_capacity(256),
            unsubmitted: 0,
            early: Vec::new(),
            early_events: Vec::new(),
            streams: ManuallyDrop::new(Streams::new(config.streams)),
            stream_buffers: ManuallyDrop::new(stream_buffers),
            listeners: Listeners::default(),
            udp: ManuallyDrop::default(),
            udp_buffers: ManuallyDrop::new(udp_buffers),
            udp_sends: ManuallyDrop::new(UdpSends::new(config.udp_send_slots)?),
            sources: ManuallyDrop::default(),
            queue,
            _thread: PhantomData,
        };
        if ring.direct_connect {
            ring.direct_connect = ring.register_direct_table();
        }
        Ok(ring)
    }

    /// What this ring has counted.
    pub fn stats(&self) -> &RingStats {
        &self.queue.stats
    }

    /// Whether the kernel of this ring can wait for a small batch.
    pub(crate) fn has_min_wait(&self) -> bool {
        self.queue.ring().params().is_feature_min_timeout()
    }

    /// Whether outgoing streams are made in the ring.
    pub(crate) fn connects_direct(&self) -> bool {
        self.direct_connect
    }

    /// Hands one completion to the table it belongs to.
    fn dispatch(&mut self, completion: Completion, events: &mut Vec<Event>) {
        let Some(data) = UserData::from_bits(completion.user_data) else {
            self.queue.stats.late_completions += 1;
            return;
        };
        match data.kind {
            Kind::StreamReceive => self.stream_received(data, completion, events),
            Kind::StreamSend => self.stream_sent(data, completion, events),
            Kind::UdpReceive => self.udp_received(data, completion, events),
            Kind::UdpSend => self.udp_sent(data, completion, events),
            Kind::Accept => self.accepted(data, completion, events),
            Kind::Socket | Kind::SocketOption => self.stream_prepared(data, completion),
            Kind::Connect => self.connected(data, completion, events),
            Kind::StreamShutdown | Kind::StreamClose => self.stream_operation_ended(data),
            Kind::StreamCancel => self.stream_cancelled(data, completion),
            Kind::Watch => self.watch_rang(data, completion, events),
            Kind::RingDoorbell => self.doorbell_rung(data),
            Kind::Signal => self.signals_arrived(completion, events),
            Kind::FileWrite => self.file_written(data, completion, events),
            Kind::Ignore => {}
        }
    }

    /// Lets the kernel take the datagrams that wait, in the middle of a turn. Their bytes are still in the cache then, and
    /// so are the slots that come back: over a whole turn both would be megabytes.
    fn submit_datagrams(&mut self) {
        self.unsubmitted = 0;
        // What it does not take now, the next wait submits.
        let _ = self.queue.submit_only();
        let mut batch = std::mem::take(&mut self.batch);
        self.queue.reap(&mut batch);
        let mut events = std::mem::take(&mut self.early_events);
        for completion in batch.drain(..) {
            match UserData::from_bits(completion.user_data) {
                Some(data) if data.kind == Kind::UdpSend => self.udp_sent(data, completion, &mut events),
                _ => self.early.push(completion),
            }
        }
        self.early_events = events;
        self.batch = batch;
    }

    /// What the turn's calls asked for becomes submissions.
    fn prepare(&mut self) {
        self.stream_buffers.refill();
        self.udp_buffers.refill();
        self.settle_streams();
        self.rearm_starved_streams();
        self.rearm_udp();
        if self.accept_retry.is_some_and(|at| at <= self.now) {
            self.accept_retry = None;
            self.rearm_listeners();
        }
    }
}

impl Io for Ring {
    type Slot = UdpSlot;

    fn now(&self) -> Instant {
        self.now
    }

    fn wait(&mut self, deadline: Option<Instant>, events: &mut Vec<Event>) -> io::Result<()> {
        self.queue.stats.turns += 1;
        self.prepare();
        let deadline = match (deadline, self.accept_retry) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        // The turn's work took time: the wait is measured from here, not from the turn's beginning.
        let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let early = !(self.early.is_empty() && self.early_events.is_empty()) || self.listeners.has_waiting();
        self.queue.enter(timeout, early || timeout.is_some_and(|left| left.is_zero()))?;
        self.unsubmitted = 0;
        self.now = Instant::now();
        events.append(&mut self.early_events);
        self.tell_waiting(events);
        let mut batch = std::mem::take(&mut self.batch);
        batch.append(&mut self.early);
        self.queue.gather(&mut batch);
        events.reserve(batch.len());
        let posted = (self.stream_buffers.posted(), self.udp_buffers.posted());
        for completion in batch.drain(..) {
            self.dispatch(completion, events);
        }
        self.batch = batch;
        self.stream_buffers.note_turn(posted.0);
        self.udp_buffers.note_turn(posted.1);
        Ok(())
    }

    fn udp_slot(&mut self) -> Option<UdpSlot> {
        let slot = self.udp_sends.slot();
        if slot.is_none() {
            self.queue.stats.udp_slots_dry += 1;
        }
        slot
    }

    fn udp_send(&mut self, socket: UdpId, slot: UdpSlot, transmit: Transmit) {
        self.send_datagrams(socket, slot, transmit);
        self.unsubmitted += transmit.len;
        if self.unsubmitted >= SUBMIT_EARLY {
            self.submit_datagrams();
        }
    }

    fn connect(&mut self, to: &StreamAddress, token: Token) -> Option<StreamId> {
        self.start_connect(to, token)
    }

    fn local_address(&self, stream: StreamId) -> Option<SocketAddr> {
        self.streams.get(stream)?.local_address()
    }

    fn set_token(&mut self, stream: StreamId, token: Token) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.token = token;
        }
    }

    fn resume(&mut self, stream: StreamId) {
        self.want_bytes(stream, true);
    }

    fn pause(&mut self, stream: StreamId) {
        self.want_bytes(stream, false);
    }

    fn send(&mut self, stream: StreamId, chunk: Chunk) {
        self.queue_chunk(stream, chunk);
    }

    fn queued(&self, stream: StreamId) -> usize {
        self.streams.get(stream).map_or(0, |stream| stream.queued)
    }

    fn shutdown(&mut self, stream: StreamId) {
        self.want_fin(stream);
    }

    fn close(&mut self, stream: StreamId) {
        self.close_stream(stream, false);
    }

    fn abort(&mut self, stream: StreamId) {
        self.close_stream(stream, true);
    }

    fn ring(&mut self, doorbell: &Doorbell) {
        self.ring_doorbell(doorbell);
    }

    fn watch(&mut self, doorbell: &Doorbell, token: Token) {
        self.watch_doorbell(doorbell, token);
    }

    fn write(&mut self, file: FileId, chunk: Chunk) {
        self.write_chunk(file, chunk);
    }

    fn close_file(&mut self, file: FileId) {
        self.close_file_when_written(file);
    }

    fn stop_listening(&mut self, listener: ListenerId) {
        self.remove_listener(listener);
    }

    fn stats(&self) -> &RingStats {
        Ring::stats(self)
    }

    fn pressure(&self) -> Pressure {
        Pressure { free: self.stream_buffers.free(), total: self.stream_buffers.total() }
    }
}
