//! All connections of a host: accepting within a bound, one timer each, draining.

use super::connection::{Connection, Verdict};
use super::service::Service;
use crate::h1;
use crate::telemetry::WallClock;
use crate::telemetry::clock::push_http_date;
use slab::Slab;
use spooky_uring::{End, Event, Io, StreamId, Token};
use spooky_uring::{TimerKey, Wheel};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

/// Bounds and times of a host.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Upper half of the host's tokens: tells its events from those of others on the same ring.
    pub space: u32,
    /// Connections at once; one more is closed at once.
    pub connections_max: usize,
    /// Of the HTTP/1.1 machine.
    pub limits: h1::Limits,
    /// From accepting, or the first byte of a later head, to the whole head.
    pub head_timeout: Duration,
    /// Between requests.
    pub idle_timeout: Duration,
    /// Between pieces of a request body.
    pub body_timeout: Duration,
    /// Without any progress of waiting bytes.
    pub send_timeout: Duration,
    /// How long what still comes is dropped after FIN was sent.
    pub linger: Duration,
    /// Bytes of a request body that nobody wants which are read before the answer is sent regardless.
    pub discard_bytes: usize,
}

impl Settings {
    /// The usual times, for `connections_max` connections.
    pub fn new(space: u32, connections_max: usize) -> Self {
        Self {
            space,
            connections_max,
            limits: h1::Limits::SERVER,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            send_timeout: Duration::from_secs(30),
            linger: Duration::from_secs(2),
            discard_bytes: 1 << 20,
        }
    }
}

/// What a host counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections closed at once because the table was full.
    pub refused: u64,
    /// Requests answered.
    pub requests: u64,
}

/// Lower half of a listener's token: the top bit, then the listener's number.
const LISTENER: u32 = 1 << 31;

struct Slot<S> {
    connection: Connection<S>,
    /// Its only timer: never later than what it waits for.
    timer: Option<(Instant, TimerKey)>,
    /// It stands on the ready list.
    ready: bool,
}

/// A server for one [`Service`].
pub struct Host<V: Service> {
    service: V,
    settings: Settings,
    slots: Slab<Slot<V::Source>>,
    wheel: Wheel<u32>,
    /// Connections with news, each once: never more than there are connections.
    ready: Vec<u32>,
    counts: Counts,
    draining: bool,
    clock: WallClock,
    /// The Date field, and the second it is of.
    date: (u64, Vec<u8>),
}

impl<V: Service> Host<V> {
    /// A host without connections.
    pub fn new(service: V, settings: Settings, now: Instant) -> Self {
        Self {
            service,
            slots: Slab::new(),
            wheel: Wheel::new(now, settings.connections_max),
            ready: Vec::new(),
            counts: Counts::default(),
            draining: false,
            clock: WallClock::new(now, SystemTime::now()),
            date: (u64::MAX, Vec::new()),
            settings,
        }
    }

    /// The token for the host's listener `number`.
    pub fn listener_token(&self, number: usize) -> Token {
        debug_assert!(number < LISTENER as usize);
        self.token(LISTENER | number as u32)
    }

    /// Notes what happened; gives back what is not the host's. [`Self::turn`] acts on it.
    pub fn handle(&mut self, event: Event, io: &mut impl Io) -> Option<Event> {
        let now = io.now();
        match event {
            Event::Accepted { token, stream, peer } => match self.own(token) {
                Some(low) => self.accepted((low & !LISTENER) as usize, stream, peer, io),
                None => {
                    return Some(Event::Accepted { token, stream, peer });
                }
            },
            Event::Received { token, stream, lease } => match self.own(token) {
                // Kept beyond the turn only while an unfinished head or body waits.
                Some(low) => self.note(low, stream, |c| c.received(lease.into_chunk(), now)),
                None => {
                    return Some(Event::Received { token, stream, lease });
                }
            },
            Event::Ended { token, stream, end } => match self.own(token) {
                Some(low) => self.note(low, stream, |c| match end {
                    End::Fin => c.received_end(),
                    End::Error(_) => c.failed(),
                }),
                None => return Some(Event::Ended { token, stream, end }),
            },
            Event::Sent { token, stream, queued } => match self.own(token) {
                Some(low) => self.note(low, stream, |_| {}),
                None => {
                    return Some(Event::Sent { token, stream, queued });
                }
            },
            Event::SendFailed { token, stream, error } => match self.own(token) {
                Some(low) => self.note(low, stream, Connection::failed),
                None => {
                    return Some(Event::SendFailed { token, stream, error });
                }
            },
            other => return Some(other),
        }
        None
    }

    /// Runs every connection that has news or whose time has come.
    pub fn turn(&mut self, io: &mut impl Io) {
        let now = io.now();
        while let Some(at) = self.wheel.expire(now) {
            if let Some(slot) = self.slots.get_mut(at as usize) {
                slot.timer = None;
                if !std::mem::replace(&mut slot.ready, true) {
                    self.ready.push(at);
                }
            }
        }
        if self.ready.is_empty() {
            return;
        }
        self.clock.refresh(now, SystemTime::now);
        self.refresh_date(now);
        // None of them makes another one ready.
        for at in std::mem::take(&mut self.ready) {
            self.run(at, io);
        }
    }

    /// When [`Self::turn`] has something to do without any event.
    pub fn next_deadline(&mut self) -> Option<Instant> {
        if !self.ready.is_empty() {
            // Not in the future: the ring only reaps.
            return Some(self.clock.taken_at());
        }
        self.wheel.next_deadline()
    }

    /// Takes no connection more and lets each end behind its present answer.
    pub fn drain(&mut self) {
        self.draining = true;
        for (at, slot) in &mut self.slots {
            slot.connection.drain();
            if !std::mem::replace(&mut slot.ready, true) {
                // At most one entry for each connection.
                self.ready.push(at as u32);
            }
        }
    }

    /// Connections open.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no connection.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The service.
    pub fn service_mut(&mut self) -> &mut V {
        &mut self.service
    }

    fn token(&self, low: u32) -> Token {
        Token(u64::from(self.settings.space) << 32 | u64::from(low))
    }

    fn own(&self, token: Token) -> Option<u32> {
        // Truncation: the lower half is what is wanted.
        (token.0 >> 32 == u64::from(self.settings.space)).then_some(token.0 as u32)
    }

    fn accepted(&mut self, listener: usize, stream: StreamId, client: Option<SocketAddr>, io: &mut impl Io) {
        if self.draining || self.slots.len() >= self.settings.connections_max {
            self.counts.refused += 1;
            io.close(stream);
            return;
        }
        self.counts.accepted += 1;
        let now = io.now();
        let connection = Connection::new(stream, listener, client, &self.settings, now);
        let at = self.slots.insert(Slot { connection, timer: None, ready: true }) as u32;
        io.set_token(stream, self.token(at));
        io.resume(stream);
        self.ready.push(at);
    }

    /// Notes news of a connection; a late event of an earlier one in the same slot finds another stream and nothing.
    fn note(&mut self, low: u32, stream: StreamId, note: impl FnOnce(&mut Connection<V::Source>)) {
        if let Some(slot) = self.slots.get_mut(low as usize)
            && slot.connection.stream == stream
        {
            note(&mut slot.connection);
            if !std::mem::replace(&mut slot.ready, true) {
                self.ready.push(low);
            }
        }
    }

    fn run(&mut self, at: u32, io: &mut impl Io) {
        let Some(slot) = self.slots.get_mut(at as usize) else {
            return;
        };
        slot.ready = false;
        let verdict =
            slot.connection.run(&mut self.service, &self.settings, &self.date.1, io, &mut self.counts.requests);
        match verdict {
            Verdict::Until(deadline) => self.arm(at, deadline),
            Verdict::Close => {
                io.close(slot.connection.stream);
                self.remove(at);
            }
            Verdict::Abort => {
                io.abort(slot.connection.stream);
                self.remove(at);
            }
        }
    }

    fn remove(&mut self, at: u32) {
        let slot = self.slots.remove(at as usize);
        if let Some((_, key)) = slot.timer {
            self.wheel.cancel(key);
        }
    }

    /// Makes sure that the timer fires no later than `deadline`; a timer that is early looks again.
    fn arm(&mut self, at: u32, deadline: Instant) {
        let Some(slot) = self.slots.get_mut(at as usize) else {
            return;
        };
        match slot.timer {
            Some((armed, _)) if armed <= deadline => return,
            Some((_, key)) if self.wheel.reschedule(key, deadline) => {
                slot.timer = Some((deadline, key));
                return;
            }
            _ => {}
        }
        // The wheel has room for every connection's one timer.
        slot.timer = self.wheel.insert(deadline, at).ok().map(|key| (deadline, key));
        debug_assert!(slot.timer.is_some());
    }

    fn refresh_date(&mut self, now: Instant) {
        let unix_us = self.clock.unix_us(now);
        let second = unix_us / 1_000_000;
        if self.date.0 != second {
            self.date.0 = second;
            self.date.1.clear();
            push_http_date(unix_us, &mut self.date.1);
        }
    }
}
