//! One stream connection: the machine's socket at one end, a session at the other, and two bounded directions of bytes.
//!
//! Towards the session: the machine's queue of chunks → the running send → what is on its way or unread. Towards the
//! machine: what the session wrote → what is on its way → what arrived and waits for a receive buffer. Each direction
//! takes `Plan::socket_buffer` bytes that its reader has not read; then its writer waits.

use super::agenda::Due;
use super::peer::{Ending, Line, Session};
use super::streams::Streams;
use super::turn::Turn;
use crate::chunk::Chunk;
use crate::io::{End, Event, StreamId, Token};
use crate::pool::Pool;
use std::collections::VecDeque;
use std::time::Instant;

/// Chunks of one vectored send, as in the ring.
const SEND_CHUNKS: usize = 64;
/// Bytes of one arrival: what a train of segments on loopback carries.
const ARRIVAL_MAX: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    Open,
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    Open,
    FinWanted,
    Ended,
}

pub(super) struct Connection {
    pub(super) id: StreamId,
    pub(super) token: Token,
    pub(super) phase: Phase,
    pub(super) closed_at: Option<Instant>,

    pub(super) queue: VecDeque<Chunk>,
    /// Bytes in `queue`.
    pub(super) queued: usize,
    /// Chunks of the running send; 0: none runs.
    pub(super) in_flight: usize,
    pub(super) sending: Sending,
    pub(super) fin_sent: bool,
    /// The other side has reset: the next send fails with this errno.
    broken: Option<i32>,
    /// Bytes that the session has not read.
    unread_by_session: usize,
    held_by_session: VecDeque<Vec<u8>>,
    fin_held: bool,
    /// When the last thing sent reaches the session: nothing overtakes it.
    pub(super) last_sent: Instant,

    pub(super) session: Option<Box<dyn Session>>,
    session_reads: bool,
    written: VecDeque<Vec<u8>>,
    /// Bytes of the first of them that have left.
    written_at: usize,
    ending: Option<Ending>,
    end_sent: bool,
    /// The session closed its socket: bytes for it are answered with RST.
    gone: bool,
    on_the_way: usize,
    last_arrival: Instant,

    pub(super) wanted: bool,
    /// A receive that was cancelled still brings something.
    pub(super) on_its_way: bool,
    arrived: VecDeque<Vec<u8>>,
    pub(super) arrived_bytes: usize,
    arrived_end: Option<End>,
    end_told: bool,
    /// Receives rest until then.
    rests_until: Option<Instant>,
}

impl Connection {
    pub(super) fn new(id: StreamId, token: Token, now: Instant) -> Self {
        Self {
            id,
            token,
            phase: Phase::Connecting,
            closed_at: None,
            queue: VecDeque::new(),
            queued: 0,
            in_flight: 0,
            sending: Sending::Open,
            fin_sent: false,
            broken: None,
            unread_by_session: 0,
            held_by_session: VecDeque::new(),
            fin_held: false,
            last_sent: now,
            session: None,
            session_reads: true,
            written: VecDeque::new(),
            written_at: 0,
            ending: None,
            end_sent: false,
            gone: false,
            on_the_way: 0,
            last_arrival: now,
            wanted: false,
            on_its_way: false,
            arrived: VecDeque::new(),
            arrived_bytes: 0,
            arrived_end: None,
            end_told: false,
            rests_until: None,
        }
    }

    pub(super) fn has_unread(&self) -> bool {
        self.arrived_bytes > 0
    }

    pub(super) fn drop_arrived(&mut self) {
        self.arrived.clear();
        self.arrived_bytes = 0;
        self.arrived_end = None;
    }

    /// Starts the next send of the queue, or the FIN behind it, if none runs.
    pub(super) fn start_send(&mut self, number: usize, turn: &mut Turn<'_>) {
        if self.phase != Phase::Open || self.in_flight > 0 {
            return;
        }
        if self.queue.is_empty() {
            if self.sending == Sending::FinWanted {
                self.sending = Sending::Ended;
                self.fin_sent = true;
                self.last_sent = turn.arrival().max(self.last_sent);
                turn.agenda.add(self.last_sent, Due::FinToSession { connection: number });
            }
            return;
        }
        if let Some(error) = self.broken {
            self.queue.clear();
            self.queued = 0;
            self.sending = Sending::Ended;
            turn.stats.stream_send_errors += 1;
            turn.events.push(Event::SendFailed { token: self.token, stream: self.id, error });
            return;
        }
        let offered: usize = self.queue.iter().take(SEND_CHUNKS).map(|chunk| chunk.len()).sum();
        let room = turn.plan.socket_buffer.saturating_sub(self.unread_by_session);
        if room == 0 && !self.gone {
            // As a blocked send: it is tried again when the session has read.
            return;
        }
        let mut taken = if self.gone { offered } else { offered.min(room) };
        if turn.random.chance(turn.plan.partial_send) {
            taken = turn.random.between(1..=taken as u64) as usize;
        }
        self.in_flight = self.queue.len().min(SEND_CHUNKS);
        turn.stats.stream_sends += 1;
        if taken < offered {
            turn.stats.partial_sends += 1;
        }
        let mut bytes = Vec::with_capacity(taken);
        for chunk in &self.queue {
            let part = chunk.len().min(taken - bytes.len());
            bytes.extend_from_slice(&chunk[..part]);
        }
        self.unread_by_session += taken;
        self.last_sent = turn.arrival().max(self.last_sent);
        turn.agenda.add(self.last_sent, Due::ToSession { connection: number, bytes });
        let complete = turn.completion();
        turn.agenda.add(complete, Due::Sent { connection: number, taken });
    }

    /// The kernel took so many bytes of the queue.
    pub(super) fn finish_send(&mut self, taken: usize, turn: &mut Turn<'_>) {
        let mut left = taken;
        self.queued -= left;
        while left > 0
            && let Some(chunk) = self.queue.front_mut()
        {
            if chunk.len() > left {
                chunk.advance(left);
                break;
            }
            left -= chunk.len();
            self.queue.pop_front();
        }
        if self.queued <= turn.plan.low_water {
            turn.events.push(Event::Sent { token: self.token, stream: self.id, queued: self.queued });
        }
    }

    /// Brings what arrived to the machine, one buffer after the other. True: there is more, look again.
    pub(super) fn offer(&mut self, pool: &Pool, number: usize, turn: &mut Turn<'_>) -> bool {
        if self.phase != Phase::Open {
            return false;
        }
        if self.rests_until.is_some_and(|at| at > turn.now) {
            return true;
        }
        self.rests_until = None;
        let some = self.arrived_bytes > 0 || self.arrived_end.is_some();
        if !(self.wanted || self.on_its_way) {
            return some;
        }
        while self.arrived_bytes > 0 {
            let exhausted = turn.random.chance(turn.plan.exhausted);
            if exhausted || pool.free() == 0 {
                turn.stats.stream_buffers_exhausted += 1;
                turn.note("exhausted", number as u64, pool.free());
                if exhausted {
                    let until = turn.now + turn.random.up_to(turn.plan.late_by);
                    self.rests_until = Some(until);
                    turn.agenda.add(until, Due::Retry);
                }
                return true;
            }
            let Some(mut lease) = pool.lease_any() else { return true };
            let mut most = lease.len().min(self.arrived_bytes);
            if turn.random.chance(turn.plan.cut) {
                most = turn.random.between(1..=most as u64) as usize;
            }
            let len = self.read(&mut lease[..most]);
            lease.truncate(len);
            turn.stats.stream_receives += 1;
            turn.note("received", number as u64, len);
            turn.events.push(Event::Received { token: self.token, stream: self.id, lease });
            if !self.wanted {
                self.on_its_way = false;
                return true;
            }
        }
        if let Some(end) = self.arrived_end.take()
            && !self.end_told
        {
            self.end_told = true;
            turn.note("ended", number as u64, usize::from(end == End::Fin));
            turn.events.push(Event::Ended { token: self.token, stream: self.id, end });
        }
        self.on_its_way = false;
        false
    }

    fn read(&mut self, out: &mut [u8]) -> usize {
        let mut len = 0;
        while len < out.len()
            && let Some(piece) = self.arrived.front_mut()
        {
            let part = piece.len().min(out.len() - len);
            out[len..len + part].copy_from_slice(&piece[..part]);
            len += part;
            if part == piece.len() {
                self.arrived.pop_front();
            } else {
                piece.drain(..part);
            }
        }
        self.arrived_bytes -= len;
        len
    }
}

impl Streams {
    /// Calls a session, then does what it wants.
    pub(super) fn with_session(
        &mut self,
        number: usize,
        turn: &mut Turn<'_>,
        act: impl FnOnce(&mut dyn Session, &mut Line),
    ) {
        let connection = &mut self.connections[number];
        let Some(mut session) = connection.session.take() else {
            return;
        };
        let mut line = Line::new(turn.now, connection.session_reads);
        act(session.as_mut(), &mut line);
        connection.session = Some(session);
        if connection.ending.is_none() {
            connection.written.append(&mut line.written);
            connection.ending = line.ending;
        }
        if let Some(at) = line.wake_at {
            turn.agenda.add(at.max(turn.now), Due::SessionWake { connection: number });
        }
        let resumed = line.reading && !connection.session_reads;
        connection.session_reads = line.reading;
        if resumed {
            for bytes in std::mem::take(&mut connection.held_by_session) {
                turn.agenda.add(turn.now, Due::ToSession { connection: number, bytes });
            }
            if std::mem::take(&mut connection.fin_held) {
                turn.agenda.add(turn.now, Due::FinToSession { connection: number });
            }
        }
        self.pump(number, turn);
    }

    /// Bytes reach the session.
    pub(super) fn reach_session(&mut self, number: usize, bytes: Vec<u8>, turn: &mut Turn<'_>) {
        let connection = &mut self.connections[number];
        if connection.gone || connection.session.is_none() {
            connection.unread_by_session = 0;
            self.answer_with_reset(number, turn);
            return;
        }
        if !connection.session_reads {
            connection.held_by_session.push_back(bytes);
            return;
        }
        connection.unread_by_session -= bytes.len();
        turn.note("to-session", number as u64, bytes.len());
        self.with_session(number, turn, |session, line| session.bytes(&bytes, line));
        self.settle(number);
        self.submit(turn);
    }

    pub(super) fn fin_reaches_session(&mut self, number: usize, turn: &mut Turn<'_>) {
        let connection = &mut self.connections[number];
        if !connection.session_reads {
            connection.fin_held = true;
            return;
        }
        self.with_session(number, turn, |session, line| session.fin(line));
    }

    pub(super) fn close_reaches_session(&mut self, number: usize, reset: bool, turn: &mut Turn<'_>) {
        turn.note("closed", number as u64, usize::from(reset));
        if let Some(mut session) = self.connections[number].session.take() {
            session.closed(reset, turn.now);
        }
    }

    /// Moves what the session wrote towards the machine, as far as that takes it.
    pub(super) fn pump(&mut self, number: usize, turn: &mut Turn<'_>) {
        let connection = &mut self.connections[number];
        if connection.phase == Phase::Connecting {
            return;
        }
        let had = !connection.written.is_empty();
        while let Some(piece) = connection.written.front() {
            let room = turn.plan.socket_buffer.saturating_sub(connection.on_the_way + connection.arrived_bytes);
            if room == 0 {
                return;
            }
            let left = &piece[connection.written_at..];
            let mut len = left.len().min(room).min(ARRIVAL_MAX);
            if turn.random.chance(turn.plan.cut) {
                len = turn.random.between(1..=len as u64) as usize;
            }
            let bytes = left[..len].to_vec();
            connection.written_at += len;
            if connection.written_at == piece.len() {
                connection.written.pop_front();
                connection.written_at = 0;
            }
            connection.on_the_way += len;
            connection.last_arrival = turn.arrival().max(connection.last_arrival);
            turn.agenda.add(connection.last_arrival, Due::FromSession { connection: number, bytes });
        }
        if let Some(ending) = connection.ending
            && !connection.gone
            && !connection.end_sent
        {
            connection.end_sent = true;
            connection.gone = ending != Ending::Fin;
            connection.last_arrival = turn.arrival().max(connection.last_arrival);
            let reset = ending == Ending::Reset;
            turn.agenda.add(connection.last_arrival, Due::EndFromSession { connection: number, reset });
        }
        if had && connection.ending.is_none() {
            self.with_session(number, turn, |session, line| session.drained(line));
        }
    }

    /// A session's bytes reach the machine.
    pub(super) fn reach_machine(&mut self, number: usize, bytes: Vec<u8>, turn: &mut Turn<'_>) {
        let connection = &mut self.connections[number];
        connection.on_the_way -= bytes.len();
        if connection.phase == Phase::Closed || connection.end_told {
            return;
        }
        turn.note("arrived", number as u64, bytes.len());
        connection.arrived_bytes += bytes.len();
        connection.arrived.push_back(bytes);
        self.note_readable(number);
    }

    /// A session's end reaches the machine.
    pub(super) fn end_reaches_machine(&mut self, number: usize, reset: bool, turn: &mut Turn<'_>) {
        let connection = &mut self.connections[number];
        if connection.phase == Phase::Closed {
            return;
        }
        if reset {
            // What waits unread is lost or not, as the kernel happens to look.
            if turn.random.chance(0.5) {
                connection.arrived.clear();
                connection.arrived_bytes = 0;
            }
            connection.arrived_end = Some(End::Error(libc::ECONNRESET));
            connection.broken = Some(libc::EPIPE);
        } else {
            connection.arrived_end.get_or_insert(End::Fin);
        }
        self.note_readable(number);
        self.settle(number);
        self.submit(turn);
    }

    fn answer_with_reset(&mut self, number: usize, turn: &mut Turn<'_>) {
        let connection = &mut self.connections[number];
        if connection.phase == Phase::Closed {
            return;
        }
        connection.last_arrival = turn.arrival().max(connection.last_arrival);
        turn.agenda.add(connection.last_arrival, Due::EndFromSession { connection: number, reset: true });
    }
}
