//! The simulated machine as the worker sees it ([`Io`]) and as a test holds it: two handles to one world.

use super::agenda::{Agenda, Due};
use super::clock::VirtualClock;
use super::datagrams::{Datagrams, PeerId, SimulatedSlot};
use super::peer::{Origin, Peer};
use super::plan::{Link, Plan};
use super::random::Random;
use super::sources::Sources;
use super::streams::Streams;
use super::trace::Trace;
use super::turn::Turn;
use crate::chunk::Chunk;
use crate::io::{Event, FileId, Io, ListenerId, Pressure, StreamAddress, StreamId, Token, Transmit, UdpId};
use crate::mailbox::Doorbell;
use crate::stats::RingStats;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

struct World {
    clock: VirtualClock,
    plan: Plan,
    random: Random,
    agenda: Agenda,
    trace: Trace,
    stats: RingStats,
    events: Vec<Event>,
    datagrams: Datagrams,
    streams: Streams,
    sources: Sources,
    stalled: bool,
    /// The wait ends now, event or not.
    woken: bool,
}

/// Splits a world into the moment and the part that acts in it.
macro_rules! at {
    ($world:expr, $part:ident) => {{
        let world = &mut *$world;
        let turn = Turn {
            now: world.clock.now(),
            elapsed: world.clock.elapsed(),
            plan: &world.plan,
            random: &mut world.random,
            agenda: &mut world.agenda,
            stats: &mut world.stats,
            trace: &mut world.trace,
            events: &mut world.events,
        };
        (&mut world.$part, turn)
    }};
}

impl World {
    /// Does what is due now.
    fn run_due(&mut self) {
        while let Some(due) = self.agenda.take_due(self.clock.now()) {
            self.run(due);
        }
    }

    fn run(&mut self, due: Due) {
        match due {
            Due::ToPeer { .. } | Due::ToMachine { .. } | Due::PeerWake { .. } => {
                let (datagrams, mut turn) = at!(self, datagrams);
                match due {
                    Due::ToPeer { peer, datagram } => datagrams.reach_peer(peer, datagram, &mut turn),
                    Due::ToMachine { datagram } => datagrams.reach_machine(datagram, &mut turn),
                    Due::PeerWake { peer, forced } => datagrams.wake_peer(peer, forced, &mut turn),
                    _ => {}
                }
            }
            Due::SlotFree { lease } => drop(lease),
            Due::Retry => {}
            Due::Alarm => self.woken = true,
            Due::Written { file } => {
                let (sources, mut turn) = at!(self, sources);
                sources.written(file, &mut turn);
            }
            due => self.run_stream(due),
        }
    }

    fn run_stream(&mut self, due: Due) {
        let (streams, mut turn) = at!(self, streams);
        let turn = &mut turn;
        match due {
            Due::Connected { connection, result } => streams.connected(connection, result, turn),
            Due::Sent { connection, taken } => streams.sent(connection, taken, turn),
            Due::ToSession { connection, bytes } => streams.reach_session(connection, bytes, turn),
            Due::FinToSession { connection } => streams.fin_reaches_session(connection, turn),
            Due::CloseToSession { connection, reset } => streams.close_reaches_session(connection, reset, turn),
            Due::SessionWake { connection } => {
                streams.with_session(connection, turn, |session, line| session.wake(line));
            }
            Due::FromSession { connection, bytes } => streams.reach_machine(connection, bytes, turn),
            Due::EndFromSession { connection, reset } => streams.end_reaches_machine(connection, reset, turn),
            _ => {}
        }
    }

    /// Hands out what waits at sockets and bells.
    fn offer(&mut self) {
        let (sources, mut turn) = at!(self, sources);
        sources.offer(&mut turn);
        let (datagrams, mut turn) = at!(self, datagrams);
        datagrams.offer(&mut turn);
        let (streams, mut turn) = at!(self, streams);
        streams.offer(&mut turn);
    }

    /// One turn's submission and wait.
    fn wait(&mut self, deadline: Option<Instant>) {
        self.stats.turns += 1;
        self.stats.enters += 1;
        self.stalled = false;
        let (streams, mut turn) = at!(self, streams);
        streams.submit(&mut turn);
        // The turn's work took time. Never none: a worker that does not sleep still grows older.
        let cost = self.random.up_to(self.plan.turn) + Duration::from_nanos(1);
        self.clock.advance(self.clock.now() + cost);
        loop {
            self.run_due();
            self.offer();
            if !self.events.is_empty() || std::mem::take(&mut self.woken) {
                return;
            }
            let now = self.clock.now();
            if deadline.is_some_and(|at| at <= now) {
                return;
            }
            let Some(next) = [self.agenda.next_at(), deadline].into_iter().flatten().min() else {
                self.stalled = true;
                return;
            };
            self.clock.advance(next.max(now));
        }
    }
}

/// The simulated machine. Clones are handles to the same one: the worker gets one, the test keeps another.
#[derive(Clone)]
pub struct SimulatedHost {
    world: Rc<RefCell<World>>,
    /// Of this handle's last wait.
    stats: RingStats,
}

impl SimulatedHost {
    /// A machine whose every chance comes from `seed`. It owns this thread's virtual clock.
    pub fn new(seed: u64, plan: Plan) -> Self {
        let world = World {
            clock: VirtualClock::new(),
            random: Random::new(seed),
            agenda: Agenda::default(),
            trace: Trace::new(),
            stats: RingStats::default(),
            events: Vec::new(),
            datagrams: Datagrams::new(&plan),
            streams: Streams::new(&plan),
            sources: Sources::default(),
            stalled: false,
            woken: false,
            plan,
        };
        Self { world: Rc::new(RefCell::new(world)), stats: RingStats::default() }
    }

    /// Adds a UDP socket of the machine.
    pub fn add_udp(&self, address: SocketAddr, token: Token) -> UdpId {
        self.world.borrow_mut().datagrams.add_socket(address, token)
    }

    /// Adds a peer with the links to and from it; it is woken at once.
    pub fn add_peer(&self, peer: impl Peer + 'static, address: SocketAddr, to: Link, from: Link) -> PeerId {
        let id = self.world.borrow_mut().datagrams.add_peer(Box::new(peer), address, to, from);
        self.poke(id);
        id
    }

    /// Adds an address to a peer.
    pub fn add_peer_address(&self, peer: PeerId, address: SocketAddr) {
        self.world.borrow_mut().datagrams.add_address(peer, address);
    }

    /// Changes a peer's links from now on.
    pub fn set_links(&self, peer: PeerId, to: Link, from: Link) {
        self.world.borrow_mut().datagrams.set_links(peer, to, from);
    }

    /// Wakes a peer now: a test changed what it wants.
    pub fn poke(&self, peer: PeerId) {
        let world = &mut *self.world.borrow_mut();
        world.agenda.add(world.clock.now(), Due::PeerWake { peer: peer.0, forced: true });
    }

    /// Adds or replaces who answers at an address. Where nobody does, connections are refused.
    pub fn add_origin(&self, address: StreamAddress, origin: impl Origin + 'static) {
        self.world.borrow_mut().streams.add_origin(address, Box::new(origin));
    }

    /// Adds a file that can be written to.
    pub fn add_file(&self, token: Token) -> FileId {
        self.world.borrow_mut().sources.add_file(token)
    }

    /// What stands in a file.
    pub fn file_content(&self, file: FileId) -> Vec<u8> {
        self.world.borrow().sources.content(file).to_vec()
    }

    /// The wait that is under way at this time ends then, for no reason, as any wait may.
    pub fn wake_at(&self, at: Instant) {
        self.world.borrow_mut().agenda.add(at, Due::Alarm);
    }

    /// Sends a signal.
    pub fn raise(&self, signal: i32) {
        self.world.borrow_mut().sources.raise(signal);
    }

    /// Changes the fault rates from now on; sizes of pools stay.
    pub fn set_plan(&self, change: impl FnOnce(&mut Plan)) {
        change(&mut self.world.borrow_mut().plan);
    }

    /// Virtual time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.world.borrow().clock.elapsed()
    }

    /// Whether `Instant::now()` in this executable follows the virtual clock.
    pub fn has_interposed_clock(&self) -> bool {
        self.world.borrow().clock.is_interposed()
    }

    /// The last wait had neither an event to come nor a deadline: nothing will ever happen again.
    pub fn is_stalled(&self) -> bool {
        self.world.borrow().stalled
    }

    /// A number that two runs of one seed share, and how many steps are in it.
    pub fn trace(&self) -> (u64, u64) {
        let world = self.world.borrow();
        (world.trace.hash(), world.trace.steps())
    }

    /// Stream sockets that are not closed, or whose operations are not complete.
    pub fn streams_open(&self) -> usize {
        self.world.borrow().streams.open()
    }

    /// Every buffer of every pool that somebody holds: stream receive, UDP receive, UDP send.
    pub fn buffers_held(&self) -> [usize; 3] {
        let world = self.world.borrow();
        let held = |(free, total): (usize, usize)| total - free;
        let streams = world.streams.pressure();
        [streams.total - streams.free, held(world.datagrams.receive_buffers()), held(world.datagrams.slots())]
    }
}

impl Io for SimulatedHost {
    type Slot = SimulatedSlot;

    fn now(&self) -> Instant {
        self.world.borrow().clock.now()
    }

    fn wait(&mut self, deadline: Option<Instant>, events: &mut Vec<Event>) -> io::Result<()> {
        let world = &mut *self.world.borrow_mut();
        world.wait(deadline);
        events.append(&mut world.events);
        self.stats = world.stats;
        Ok(())
    }

    fn udp_slot(&mut self) -> Option<SimulatedSlot> {
        let world = &mut *self.world.borrow_mut();
        let dry = world.random.chance(world.plan.slots_dry);
        let slot = if dry { None } else { world.datagrams.take_slot() };
        world.stats.udp_slots_dry += u64::from(slot.is_none());
        slot
    }

    fn udp_send(&mut self, socket: UdpId, slot: SimulatedSlot, transmit: Transmit) {
        let world = &mut *self.world.borrow_mut();
        let (datagrams, mut turn) = at!(world, datagrams);
        turn.note("train", u64::from(socket.0), transmit.len);
        datagrams.send(slot, transmit, socket, &mut turn);
    }

    fn connect(&mut self, to: &StreamAddress, token: Token) -> Option<StreamId> {
        let world = &mut *self.world.borrow_mut();
        let (streams, mut turn) = at!(world, streams);
        streams.connect(to, token, &mut turn)
    }

    fn local_address(&self, _: StreamId) -> Option<SocketAddr> {
        None
    }

    fn set_token(&mut self, stream: StreamId, token: Token) {
        self.world.borrow_mut().streams.set_token(stream, token);
    }

    fn resume(&mut self, stream: StreamId) {
        let world = &mut *self.world.borrow_mut();
        let (streams, mut turn) = at!(world, streams);
        streams.want(stream, true, &mut turn);
    }

    fn pause(&mut self, stream: StreamId) {
        let world = &mut *self.world.borrow_mut();
        let (streams, mut turn) = at!(world, streams);
        streams.want(stream, false, &mut turn);
    }

    fn send(&mut self, stream: StreamId, chunk: Chunk) {
        self.world.borrow_mut().streams.send(stream, chunk);
    }

    fn queued(&self, stream: StreamId) -> usize {
        self.world.borrow().streams.get(stream).map_or(0, |connection| connection.queued)
    }

    fn shutdown(&mut self, stream: StreamId) {
        self.world.borrow_mut().streams.shutdown(stream);
    }

    fn close(&mut self, stream: StreamId) {
        let world = &mut *self.world.borrow_mut();
        let (streams, mut turn) = at!(world, streams);
        streams.close(stream, false, &mut turn);
    }

    fn abort(&mut self, stream: StreamId) {
        let world = &mut *self.world.borrow_mut();
        let (streams, mut turn) = at!(world, streams);
        streams.close(stream, true, &mut turn);
    }

    fn ring(&mut self, doorbell: &Doorbell) {
        // Whoever watches it here is told by the next wait; other threads have no part in the simulation.
        doorbell.begin();
        self.world.borrow_mut().stats.doorbells_rung += 1;
    }

    fn watch(&mut self, doorbell: &Doorbell, token: Token) {
        self.world.borrow_mut().sources.watch(doorbell, token);
    }

    fn write(&mut self, file: FileId, chunk: Chunk) {
        let world = &mut *self.world.borrow_mut();
        let (sources, mut turn) = at!(world, sources);
        sources.write(file, chunk, &mut turn);
    }

    fn close_file(&mut self, file: FileId) {
        self.world.borrow_mut().sources.close(file);
    }

    fn stop_listening(&mut self, _listener: ListenerId) {
        // Incoming streams are not simulated, so there is nothing to stop.
    }

    fn stats(&self) -> &RingStats {
        &self.stats
    }

    fn pressure(&self) -> Pressure {
        self.world.borrow().streams.pressure()
    }
}
