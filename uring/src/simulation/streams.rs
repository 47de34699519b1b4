//! Stream sockets of the machine: the table of them, and the machine's end of each.
//!
//! A socket's number is used again as in the ring, with a new generation, and only when its last operation is complete;
//! the connection behind it (`connection.rs`) stays for ever, so that late events find the right one. What the ring lets
//! pass in silence is an error here: whoever uses a socket after its close has lost count of it.

use super::agenda::Due;
use super::connection::{Connection, Phase, Sending};
use super::peer::{Connect, Origin};
use super::plan::Plan;
use super::turn::Turn;
use crate::chunk::Chunk;
use crate::io::{Event, Pressure, StreamAddress, StreamId, Token};
use crate::pool::Pool;

/// One use after another of a socket's number.
struct Slot {
    generation: u32,
    /// `None`: free.
    connection: Option<usize>,
}

pub(super) struct Streams {
    slots: Vec<Slot>,
    free: Vec<u32>,
    pub(super) connections: Vec<Connection>,
    origins: Vec<(StreamAddress, Box<dyn Origin>)>,
    pub(super) receive: Pool,
    /// Connections with something to settle when the turn is submitted.
    unsettled: Vec<usize>,
    /// Connections with bytes or an end that wait for the machine to take them.
    readable: Vec<usize>,
}

impl Streams {
    pub(super) fn new(plan: &Plan) -> Self {
        let config = plan.stream_receive;
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            connections: Vec::new(),
            origins: Vec::new(),
            receive: Pool::new(config.count, config.size).expect("memory for simulated buffers"),
            unsettled: Vec::new(),
            readable: Vec::new(),
        }
    }

    pub(super) fn add_origin(&mut self, address: StreamAddress, origin: Box<dyn Origin>) {
        self.origins.retain(|(known, _)| *known != address);
        self.origins.push((address, origin));
    }

    /// Sockets that are not closed.
    pub(super) fn open(&self) -> usize {
        self.slots.iter().filter(|slot| slot.connection.is_some()).count()
    }

    pub(super) fn pressure(&self) -> Pressure {
        Pressure { free: self.receive.free(), total: self.receive.total() }
    }

    fn find(&self, id: StreamId) -> Option<usize> {
        let slot = self.slots.get(id.slot as usize).filter(|slot| slot.generation == id.generation)?;
        slot.connection.filter(|&number| self.connections[number].phase != Phase::Closed)
    }

    /// A socket that its user says is open.
    fn demand(&self, id: StreamId, what: &str) -> usize {
        match self.find(id) {
            Some(number) => number,
            None => panic!("{what} on a closed socket: {id:?}"),
        }
    }

    pub(super) fn get(&self, id: StreamId) -> Option<&Connection> {
        self.find(id).map(|number| &self.connections[number])
    }

    pub(super) fn connect(&mut self, to: &StreamAddress, token: Token, turn: &mut Turn<'_>) -> Option<StreamId> {
        turn.stats.connects += 1;
        if self.open() >= turn.plan.streams as usize {
            turn.stats.connects_refused += 1;
            return None;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, connection: None });
            self.slots.len() as u32 - 1
        });
        let number = self.connections.len();
        let generation = self.slots[slot as usize].generation;
        let id = StreamId { slot, generation };
        self.slots[slot as usize].connection = Some(number);
        turn.note("connect", number as u64, slot as usize);
        let origin = self.origins.iter_mut().find(|(address, _)| address == to);
        let outcome = origin.map_or(Connect::Refuse(libc::ECONNREFUSED), |(_, origin)| origin.connect(turn.now));
        let mut connection = Connection::new(id, token, turn.now);
        // There and back again.
        let at = turn.arrival() + turn.plan.stream_delay;
        match outcome {
            Connect::Accept(session) => {
                connection.session = Some(session);
                turn.agenda.add(at, Due::Connected { connection: number, result: Ok(()) });
            }
            Connect::Refuse(errno) => {
                turn.agenda.add(at, Due::Connected { connection: number, result: Err(errno) });
            }
            Connect::Silent => {}
        }
        self.connections.push(connection);
        Some(id)
    }

    /// The outcome of a connect reaches the machine.
    pub(super) fn connected(&mut self, number: usize, result: Result<(), i32>, turn: &mut Turn<'_>) {
        let connection = &mut self.connections[number];
        if connection.phase == Phase::Closed {
            turn.stats.late_completions += 1;
            return;
        }
        turn.note("connected", number as u64, result.err().unwrap_or(0) as usize);
        turn.events.push(Event::Connected { token: connection.token, stream: connection.id, result });
        if result.is_err() {
            connection.phase = Phase::Closed;
            self.release(number);
            return;
        }
        connection.phase = Phase::Open;
        self.with_session(number, turn, |session, line| session.opened(line));
        self.settle(number);
    }

    pub(super) fn set_token(&mut self, id: StreamId, token: Token) {
        let number = self.demand(id, "set_token");
        self.connections[number].token = token;
    }

    pub(super) fn want(&mut self, id: StreamId, wanted: bool, turn: &mut Turn<'_>) {
        let number = self.demand(id, if wanted { "resume" } else { "pause" });
        let connection = &mut self.connections[number];
        // A receive that runs may have taken bytes already: they still arrive.
        if connection.wanted && !wanted {
            connection.on_its_way = turn.random.chance(0.5);
        }
        connection.wanted = wanted;
        turn.note(if wanted { "resume" } else { "pause" }, number as u64, 0);
    }

    pub(super) fn send(&mut self, id: StreamId, chunk: Chunk) {
        let number = self.demand(id, "send");
        let connection = &mut self.connections[number];
        assert!(connection.sending != Sending::FinWanted && !connection.fin_sent, "bytes behind the FIN of {id:?}");
        // After a failed send the queue takes nothing, as in the ring.
        if chunk.is_empty() || connection.sending != Sending::Open {
            return;
        }
        connection.queued += chunk.len();
        connection.queue.push_back(chunk);
        self.settle(number);
    }

    pub(super) fn shutdown(&mut self, id: StreamId) {
        let number = self.demand(id, "shutdown");
        let connection = &mut self.connections[number];
        if connection.sending == Sending::Open {
            connection.sending = Sending::FinWanted;
            self.settle(number);
        }
    }

    pub(super) fn close(&mut self, id: StreamId, reset: bool, turn: &mut Turn<'_>) {
        let number = self.demand(id, "close");
        turn.note(if reset { "abort" } else { "close" }, number as u64, 0);
        let connection = &mut self.connections[number];
        let unread = connection.has_unread();
        let reset = reset || unread;
        connection.phase = Phase::Closed;
        connection.closed_at = Some(turn.now);
        connection.drop_arrived();
        if connection.in_flight == 0 {
            connection.queue.clear();
        } else {
            // What the running send points to stays until it is complete.
            connection.queue.truncate(connection.in_flight);
        }
        connection.queued = 0;
        let at = turn.arrival().max(connection.last_sent);
        connection.last_sent = at;
        turn.agenda.add(at, Due::CloseToSession { connection: number, reset });
        if self.connections[number].in_flight == 0 {
            self.release(number);
        }
    }

    /// The number of a closed socket is free again: nothing of it is with the machine any more.
    fn release(&mut self, number: usize) {
        let slot = self.connections[number].id.slot;
        let at = &mut self.slots[slot as usize];
        assert_eq!(at.connection, Some(number));
        at.connection = None;
        at.generation += 1;
        self.free.push(slot);
    }

    pub(super) fn settle(&mut self, number: usize) {
        if !self.unsettled.contains(&number) {
            self.unsettled.push(number);
        }
    }

    pub(super) fn note_readable(&mut self, number: usize) {
        if !self.readable.contains(&number) {
            self.readable.push(number);
        }
    }

    /// What was asked of sockets since the last turn becomes operations.
    pub(super) fn submit(&mut self, turn: &mut Turn<'_>) {
        for number in std::mem::take(&mut self.unsettled) {
            self.connections[number].start_send(number, turn);
        }
    }

    /// A send is complete.
    pub(super) fn sent(&mut self, number: usize, taken: usize, turn: &mut Turn<'_>) {
        let connection = &mut self.connections[number];
        connection.in_flight = 0;
        if connection.phase == Phase::Closed {
            connection.queue.clear();
            turn.stats.late_completions += 1;
            self.release(number);
            return;
        }
        turn.note("sent", number as u64, taken);
        connection.finish_send(taken, turn);
        self.settle(number);
        // The next send of the queue belongs to this turn's submission only if somebody waits, so it starts now.
        self.submit(turn);
    }

    /// Hands out what arrived, as far as there are buffers: in any order, as completions come.
    pub(super) fn offer(&mut self, turn: &mut Turn<'_>) {
        let mut readable = std::mem::take(&mut self.readable);
        turn.random.shuffle(&mut readable);
        for number in readable {
            let connection = &mut self.connections[number];
            let before = connection.arrived_bytes;
            let more = connection.offer(&self.receive, number, turn);
            let taken = before - connection.arrived_bytes;
            if more {
                self.note_readable(number);
            }
            if taken > 0 {
                self.pump(number, turn);
            }
        }
    }
}
