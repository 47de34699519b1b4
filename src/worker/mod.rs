//! One worker: the only code that touches sockets. It moves bytes between the ring and the protocol machines, and
//! does what the exchanges decide.
//!
//! A turn is: wait, collect, act, flush. [`collect`] notes each completion on its owner and puts the owner on a ready
//! list; [`downstream`] and [`upstream`] run each ready owner once, within a budget; [`transmit`] lets every touched
//! connection send; one system call of the next wait submits it all. [`timers`] is the one place that arms the wheel,
//! [`drain`] the one that ends things, [`forward`] the one that speaks to other workers, [`overload`] the one that lets
//! requests wait.

mod announce;
mod balancers;
mod candidates;
pub mod census;
mod clients;
pub mod collect;
pub mod dial;
pub mod downstream;
pub mod drain;
pub mod endpoints;
pub mod forward;
mod health;
pub mod host;
mod link;
mod origin;
pub mod origins;
mod overload;
pub mod qlog;
mod record;
mod resilience;
pub mod settle;
mod shared;
pub mod timers;
pub mod token;
pub mod transmit;
pub mod upstream;

pub use census::Census;
pub use drain::{Command, Report};
pub use endpoints::{Endpoints, Resolved};
pub use health::{Verdict, Verdicts};
pub use overload::Pressure;

use crate::admit::Rates;
use crate::balance::KeyedHash;
use crate::config::Generation;
use crate::exchange::inflight::Inflight;
use crate::exchange::{Exchange, Snapshot};
use crate::h3;
use crate::http::date::{self, DateCache};
use crate::http::{Output, PoolShare};
use crate::limits;
use crate::overload::Queue;
use crate::telemetry::{AccessSender, WallClock, WorkerCells};
use crate::tls;
use crate::tls::ClientContext;
use balancers::Balancers;
pub use clients::Door;
use clients::{Clients, Downkey};
use origins::Origins;
use slab::Slab;
use spooky_uring::mailbox::{Receiver, Sender};
use spooky_uring::{Event, Io, TimerKey, UdpId, Wheel};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// Everything a worker is given at its start.
pub struct Setup {
    /// The configuration.
    pub generation: Arc<Generation>,
    /// One endpoint and socket for each listener that speaks HTTP/3, in the order of the configuration.
    pub listeners: Vec<(h3::Endpoint, UdpId)>,
    /// Listening TCP sockets, which accept with [`token::Owner::Door`] tokens in this order.
    pub doors: Vec<Door>,
    /// Its counters.
    pub cells: Arc<WorkerCells>,
    /// Where its log lines go.
    pub access: AccessSender,
    /// Where traces of connections go; `None`: there are none.
    pub qlog: Option<Sender<h3::QlogPiece>>,
    /// From control.
    pub commands: Receiver<Command>,
    /// To control.
    pub reports: Sender<Report>,
    /// To and from the other workers.
    pub lines: forward::Lines,
    /// What connections to backends over TLS are made with, by upstream; `None`: it has no such backend.
    pub upstream_tls: Vec<Option<ClientContext>>,
    /// What was used of the rate limits, shared by all workers.
    pub rates: Arc<Rates>,
    /// Hashes what clients choose and are kept together by: the same on all workers.
    pub hash: KeyedHash,
    /// Seeds request identifiers; unpredictable in production, fixed in simulation.
    pub seed: [u8; 16],
}

/// An exchange with its place on the client's side.
struct Running {
    exchange: Exchange,
    downkey: Downkey,
    stream: u64,
    /// It was counted as a tunnel.
    tunnel: bool,
}

/// One reactor thread's world. Generic over the machine below it, and over nothing else.
pub struct Worker<I: Io> {
    io: I,
    now: Instant,
    events: Vec<Event>,
    snapshot: Rc<Snapshot>,
    clients: Clients,
    exchanges: Slab<Running>,
    origins: Origins,
    places: endpoints::Places,
    balancers: Balancers,
    /// How fit backends are.
    health: health::Health,
    inflight: Inflight,
    /// Who waits for room at an upstream.
    queue: Queue,
    /// What control said last of the process as a whole.
    pressure: Pressure,
    resilience: resilience::Resilience,
    /// What was used of the rate limits, of all workers.
    rates: Arc<Rates>,
    wheel: Wheel<timers::Timer>,
    /// Client connections with news, each once (`Client::marked`).
    touched: VecDeque<Downkey>,
    /// Connections to origins with news, each once (`Origin::ready`).
    ready: VecDeque<u32>,
    /// Connections to origins that send at the end of the turn, each once (`Origin::unsent`).
    unsent: Vec<u32>,
    /// Spare output list, so that no turn allocates one.
    output: Output,
    /// What a connection may hold of the receive pool.
    pool: PoolShare,
    /// Why the last handshake with each backend failed.
    tls_faults: Vec<Option<tls::FaultKind>>,
    /// The largest response head that a route of each upstream permits.
    head_bytes: Vec<usize>,
    clock: WallClock,
    dates: DateCache,
    /// The value of `Date` in this turn.
    date: [u8; date::LENGTH],
    ids: crate::exchange::trail::Ids,
    cells: Arc<WorkerCells>,
    access: AccessSender,
    qlog: Option<Sender<h3::QlogPiece>>,
    commands: Receiver<Command>,
    reports: Sender<Report>,
    lines: forward::Lines,
    /// What connections to the backends of each upstream begin TLS with.
    upstream_tls: Vec<Option<ClientContext>>,
    drain: drain::Drain,
    cut_exchanges: usize,
    /// Set once what still ran was cut.
    cut_until: Option<Instant>,
    pool_timer: Option<TimerKey>,
    access_timer: Option<TimerKey>,
    relief_timer: Option<TimerKey>,
}

impl<I: Io> Worker<I> {
    /// A worker on `io`, whose sockets are already receiving with [`token::Owner::Listener`] tokens.
    pub fn new(io: I, setup: Setup) -> Self {
        let generation = &setup.generation;
        let now = io.now();
        let pool = PoolShare::unbounded();
        Self {
            now,
            events: Vec::new(),
            exchanges: Slab::new(),
            origins: Origins::new(generation),
            places: endpoints::Places::new(generation),
            health: health::Health::new(generation),
            inflight: Inflight::new(generation),
            queue: Queue::new(generation.upstreams.len(), generation.ways.len()),
            pressure: Pressure::default(),
            resilience: resilience::Resilience::new(generation, now),
            rates: setup.rates,
            balancers: Balancers::new(generation, setup.hash, setup.seed.first_chunk().copied().unwrap_or_default()),
            wheel: Wheel::new(now, timers::capacity(generation)),
            touched: VecDeque::new(),
            ready: VecDeque::new(),
            unsent: Vec::new(),
            output: Output::new(),
            tls_faults: vec![None; generation.backends.len()],
            head_bytes: head_bytes(generation),
            clock: WallClock::new(now, SystemTime::now()),
            dates: DateCache::default(),
            date: date::format(0),
            ids: crate::exchange::trail::Ids::new(setup.seed),
            clients: Clients::new(setup.listeners, setup.doors, generation, &pool),
            pool,
            snapshot: Rc::new(Snapshot::new(setup.generation)),
            cells: setup.cells,
            access: setup.access,
            qlog: setup.qlog,
            commands: setup.commands,
            reports: setup.reports,
            lines: setup.lines,
            upstream_tls: setup.upstream_tls,
            drain: drain::Drain::default(),
            cut_exchanges: 0,
            cut_until: None,
            relief_timer: None,
            pool_timer: None,
            access_timer: None,
            io,
        }
    }

    /// Turns until a drain is complete or a stop was ordered.
    ///
    /// # Errors
    /// Only when the ring itself fails.
    pub fn run(&mut self) -> io::Result<()> {
        while self.turn()? {}
        Ok(())
    }

    /// One turn. `false`: the worker is done.
    ///
    /// # Errors
    /// Only when the ring itself fails.
    pub fn turn(&mut self) -> io::Result<bool> {
        // Owners that ran out of their budget wait for nothing.
        let deadline = if self.has_work() { Some(self.now) } else { self.wheel.next_deadline() };
        let mut events = std::mem::take(&mut self.events);
        self.io.wait(deadline, &mut events)?;
        self.now = self.io.now();
        self.clock.refresh(self.now, SystemTime::now);
        self.date = *self.dates.at(self.clock.unix_us(self.now) / 1_000_000);
        self.note_pressure();
        for event in events.drain(..) {
            self.collect(event);
        }
        self.events = events;
        self.shake_hands();
        self.run_timers();
        self.act();
        self.serve_waiting();
        self.flush_unsent();
        self.transmit_touched();
        self.record_turn();
        Ok(!self.is_done())
    }

    /// Tells the endpoints the date and what is left of the receive pool, and looks for what pins it while that is little.
    fn note_pressure(&mut self) {
        let pressure = self.io.pressure();
        let size = limits::STREAM_RECEIVE_BUFFER_BYTES as usize;
        self.pool.set(pressure, size);
        for listener in &mut self.clients.quic {
            listener.endpoint.pool().set(pressure, size);
            listener.endpoint.set_clock(self.clock);
        }
        if self.pool.is_spent() {
            self.arm_relief();
        }
    }

    fn has_work(&self) -> bool {
        !self.touched.is_empty() || !self.ready.is_empty() || self.clients.tcp.has_deferred() || self.queue.has_rooms()
    }

    /// Runs every ready owner. Each pass may make owners of the other side ready, so there are a few passes: answers
    /// that arrived go out, what that made room for comes in, and so on; what is left waits for the next turn, which
    /// then does not sleep.
    fn act(&mut self) {
        const PASSES: usize = 3;
        for _ in 0..PASSES {
            for _ in 0..self.ready.len() {
                if let Some(slot) = self.ready.pop_front() {
                    self.run_origin(slot);
                }
            }
            for at in 0..self.touched.len() {
                if let Some(&key) = self.touched.get(at) {
                    self.run_client(key);
                }
            }
            if self.ready.is_empty() {
                break;
            }
        }
    }
}

/// Connections of an upstream serve all its routes: the most that one of them permits.
fn head_bytes(generation: &Generation) -> Vec<usize> {
    let mut most = vec![0; generation.upstreams.len()];
    for way in &generation.ways {
        if let Some(upstream) = way.upstream {
            let bytes = &mut most[upstream.0 as usize];
            *bytes = (*bytes).max(way.limits.max_response_header_bytes as usize);
        }
    }
    most
}
