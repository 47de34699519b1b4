//! Making a connection to a backend that has several addresses: they are tried in turn, 250 ms apart or as soon as one
//! refuses, and the first that accepts is taken (RFC 8305 §5).
//!
//! Owns the sockets of a race until it is decided; the whole of it runs within the exchange's connect timeout. Who goes
//! first is [`super::endpoints`]'s business, what is done with the connection [`super::upstream`]'s.

use super::Worker;
use super::endpoints::Choice;
use super::record::connect_failure;
use super::timers::Timer;
use super::token::Owner;
use crate::config::BackendId;
use crate::http::Reason;
use crate::limits;
use crate::telemetry::kinds::{ConnectFailure, UpstreamClose};
use spooky_uring::{Io, StreamAddress, StreamId, TimerKey, Token};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

/// A race of addresses. Invariant: every open socket of the connection is among `racers`, at least one; with `waiting` they
/// are no more than [`limits::DIAL_ADDRESSES`].
#[derive(Default)]
pub struct Dial {
    /// In the order in which they began.
    racers: Vec<Racer>,
    /// Those that have not begun.
    waiting: VecDeque<SocketAddr>,
    timer: Option<TimerKey>,
}

struct Racer {
    stream: StreamId,
    address: SocketAddr,
    began: Instant,
}

impl Dial {
    /// Whether a socket is one of the race.
    pub fn has(&self, stream: StreamId) -> bool {
        self.racers.iter().any(|racer| racer.stream == stream)
    }
}

/// A connection that was begun.
pub(super) struct Begun {
    /// Its first socket.
    pub(super) stream: StreamId,
    /// Whom it leads to, if its backend has a name.
    pub(super) address: Option<SocketAddr>,
    /// The others that may come instead.
    pub(super) dial: Option<Box<Dial>>,
}

impl<I: Io> Worker<I> {
    /// Begins to connect to a backend.
    pub(super) fn begin_dial(&mut self, backend: BackendId, token: Token) -> Result<Begun, Reason> {
        let now = self.now;
        let (io, places) = (&mut self.io, &mut self.places);
        let begun = match places.choose(backend, now) {
            Choice::One(address) => {
                io.connect(address, token).map(|stream| Begun { stream, address: None, dial: None })
            }
            Choice::Race(order) => {
                let mut waiting = VecDeque::from(order);
                let first = waiting.pop_front();
                first.and_then(|address| {
                    let stream = io.connect(&StreamAddress::Tcp(address), token)?;
                    // One alone runs no race.
                    let dial = (!waiting.is_empty()).then(|| {
                        let racers = vec![Racer { stream, address, began: now }];
                        Box::new(Dial { racers, waiting, timer: None })
                    });
                    Some(Begun { stream, address: Some(address), dial })
                })
            }
            Choice::Nowhere(reason) => return Err(reason),
        };
        let cells = self.cells.backend(backend.0 as usize);
        match begun {
            Some(begun) => {
                cells.connects.add(1);
                Ok(begun)
            }
            None => {
                cells.connect_failures.count(ConnectFailure::Local);
                Err(Reason::PoolFull)
            }
        }
    }

    /// Makes sure that the next address has its turn.
    pub(super) fn arm_dial(&mut self, slot: u32) {
        if let Some(dial) = self.origins.get_mut(slot).and_then(|origin| origin.dial.as_mut())
            && dial.timer.is_none()
            && !dial.waiting.is_empty()
        {
            // The wheel has room for one entry of every connection that is being made: see `timers::capacity`.
            dial.timer = self.wheel.insert(self.now + limits::DIAL_DELAY, Timer::Dial(slot)).ok();
        }
    }

    pub(super) fn dial_due(&mut self, slot: u32) {
        if let Some(dial) = self.origins.get_mut(slot).and_then(|origin| origin.dial.as_mut()) {
            dial.timer = None;
            self.dial_next(slot);
        }
    }

    /// Tries the next address; `false`: there is none, or no socket for it.
    fn dial_next(&mut self, slot: u32) -> bool {
        let Some(origin) = self.origins.get_mut(slot) else {
            return false;
        };
        let Some(dial) = origin.dial.as_mut() else {
            return false;
        };
        let Some(address) = dial.waiting.pop_front() else {
            return false;
        };
        let cells = self.cells.backend(origin.backend.0 as usize);
        let Some(stream) = self.io.connect(&StreamAddress::Tcp(address), Owner::Origin(slot).token()) else {
            cells.connect_failures.count(ConnectFailure::Local);
            // The table of sockets is full: those that run may still get through.
            dial.waiting.clear();
            return false;
        };
        cells.connects.add(1);
        dial.racers.push(Racer { stream, address, began: self.now });
        self.arm_dial(slot);
        true
    }

    /// One socket of a connection is made, or failed. `None`: others are still on their way; else the outcome of all.
    pub(super) fn dial_connected(
        &mut self,
        slot: u32,
        stream: StreamId,
        result: Result<(), i32>,
    ) -> Option<Result<(), i32>> {
        let origin = self.origins.get_mut(slot)?;
        let backend = origin.backend;
        let Some(dial) = origin.dial.as_mut() else {
            return Some(result);
        };
        let at = dial.racers.iter().position(|racer| racer.stream == stream)?;
        let racer = dial.racers.remove(at);
        match result {
            Ok(()) => {
                origin.stream = stream;
                origin.address = Some(racer.address);
                // Who began before the winner and is not there yet is slow, or dead.
                for slower in &dial.racers[..at] {
                    self.places.note_failed(backend, slower.address, self.now);
                }
                self.places.note_accepted(backend, racer.address);
                self.end_dial(slot, true);
                Some(Ok(()))
            }
            Err(errno) => {
                self.places.note_failed(backend, racer.address, self.now);
                let timer = dial.timer.take();
                let alone = dial.racers.is_empty();
                // It is the next one's turn, at once (RFC 8305 §5).
                if let Some(timer) = timer {
                    self.wheel.cancel(timer);
                }
                if self.dial_next(slot) || !alone {
                    // Counted here, unless it is the outcome of all and counted with that.
                    self.cells.backend(backend.0 as usize).connect_failures.count(connect_failure(errno).1);
                    return None;
                }
                self.end_dial(slot, false);
                Some(Err(errno))
            }
        }
    }

    /// Ends a race that is decided, or that is given up as a whole: every socket still in it is closed. `false`: there is
    /// none.
    pub(super) fn end_dial(&mut self, slot: u32, decided: bool) -> bool {
        let Some(origin) = self.origins.get_mut(slot) else {
            return false;
        };
        let Some(dial) = origin.dial.take() else {
            return false;
        };
        let backend = origin.backend;
        if let Some(timer) = dial.timer {
            self.wheel.cancel(timer);
        }
        for racer in dial.racers {
            if decided {
                self.cells.backend(backend.0 as usize).closes.count(UpstreamClose::RaceLost);
            } else if self.now >= racer.began + limits::DIAL_DELAY {
                // Whoever had its time has not used it.
                self.places.note_failed(backend, racer.address, self.now);
            }
            self.io.close(racer.stream);
        }
        true
    }

    /// Control has new addresses: what leads elsewhere is used no more. Exchanges that run there finish.
    pub(super) fn update_endpoints(&mut self, endpoints: &super::Endpoints) {
        self.places.update(endpoints);
        let gone: Vec<u32> = self
            .origins
            .iter()
            .filter(|(_, origin)| origin.resting && !self.is_current(origin))
            .map(|(slot, _)| slot)
            .collect();
        for slot in gone {
            self.close_idle(slot, UpstreamClose::EndpointGone);
        }
    }

    /// Whether a connection leads to where its backend is.
    pub(super) fn is_current(&self, origin: &super::origin::Origin) -> bool {
        origin.address.is_none_or(|address| self.places.has(origin.backend, address))
    }
}
