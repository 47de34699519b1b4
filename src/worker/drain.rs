//! The end of a worker: take no new work, finish what runs, within a bound; or stop at once.

use super::timers::Timer;
use super::{Downkey, Endpoints, Pressure, Verdicts, Worker};
use crate::exchange::{Abort, ResponseState};
use crate::h3;
use crate::http::Reason;
use crate::limits;
use crate::telemetry::kinds::UpstreamClose;
use spooky_uring::Io;
use std::sync::Arc;
use std::time::Instant;

/// What control tells a worker.
#[derive(Debug)]
pub enum Command {
    /// Take no new connections and requests, and end when the last exchange has, or at this moment.
    Drain {
        /// The bound.
        until: Instant,
    },
    /// End now.
    Stop,
    /// What control has found of the process as a whole.
    Pressure(Pressure),
    /// How much this worker gives the upstreams now, by position.
    Admission(Box<[u32]>),
    /// Where the backends with names are now.
    Endpoints(Arc<Endpoints>),
    /// How fit the backends are now.
    Health(Arc<Verdicts>),
}

/// What a worker tells control.
#[derive(Debug)]
pub enum Report {
    /// The worker has ended; `cut` exchanges were not finished.
    Ended {
        /// Exchanges that the drain's bound, or a stop, cut short.
        cut: usize,
    },
}

/// How far the end is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drain {
    /// Serving.
    #[default]
    No,
    /// Finishing what runs.
    Running,
    /// Nothing runs any more; the closing packets are on their way.
    Done,
}

impl<I: Io> Worker<I> {
    /// Reads what control says.
    pub(super) fn read_commands(&mut self) {
        while let Some(command) = self.commands.receive() {
            match command {
                Command::Drain { until } if self.drain == Drain::No => self.begin_drain(until),
                Command::Drain { .. } => {}
                Command::Stop => self.cut(),
                Command::Pressure(pressure) => self.pressure = pressure,
                Command::Admission(shares) => self.update_shares(&shares),
                Command::Endpoints(endpoints) => self.update_endpoints(&endpoints),
                Command::Health(verdicts) => self.update_health(&verdicts),
            }
        }
    }

    fn begin_drain(&mut self, until: Instant) {
        self.drain = Drain::Running;
        if self.wheel.insert(until, Timer::Drain).is_err() {
            // No timer, no bound: cut at once rather than never.
            self.cut();
        }
        for listener in &mut self.clients.quic {
            listener.endpoint.set_accepting(false);
        }
        for door in &self.clients.doors {
            self.io.stop_listening(door.socket);
        }
        for key in self.clients.keys() {
            match key {
                Downkey::Quic { listener, connection } => {
                    if let Some(connection) = self.clients.quic(listener, connection) {
                        connection.goaway();
                    }
                }
                Downkey::Tcp(key) => {
                    if let Some(tcp) = self.clients.tcp.get_mut(key) {
                        tcp.drain();
                    }
                }
            }
            self.touch(key);
        }
        while let Some(slot) = self.origins.any_idle() {
            self.close_idle(slot, UpstreamClose::Draining);
        }
    }

    pub(super) fn drain_due(&mut self) {
        if self.drain == Drain::Running && self.cut_until.is_none() {
            self.cut();
        }
    }

    /// Cuts every exchange that still runs.
    fn cut(&mut self) {
        self.drain = Drain::Running;
        let running: Vec<u32> = self.exchanges.iter().map(|(slot, _)| slot as u32).collect();
        self.cut_exchanges += running.len();
        for slot in running {
            self.step(slot, |exchange, downstream, turn| match exchange.response {
                ResponseState::Waiting => exchange.refuse(Reason::DrainTimeout.into(), downstream, turn),
                _ => {
                    exchange.blame(Reason::DrainTimeout);
                    exchange.give_up(Abort::Internal, downstream)
                }
            });
            self.finish(slot);
        }
        // What was said just now still leaves where sockets take it.
        let until = self.now + limits::CUT_GRACE;
        self.cut_until = Some(until);
        let _ = self.wheel.insert(until, Timer::Drain);
    }

    /// Whether no connection over TCP has to be waited for.
    fn tcp_may_end(&self) -> bool {
        self.clients.tcp.is_quiet() || self.cut_until.is_some_and(|until| until <= self.now)
    }

    /// Whether the worker may end: a drain began, no exchange runs, and the last packets are sent.
    pub(super) fn is_done(&mut self) -> bool {
        match self.drain {
            Drain::No => false,
            Drain::Running if self.exchanges.is_empty() && !self.has_work() && self.tcp_may_end() => {
                self.drain = Drain::Done;
                for key in self.clients.keys() {
                    match key {
                        Downkey::Quic { listener, connection } => {
                            if let Some(connection) = self.clients.quic(listener, connection) {
                                connection.close(h3::code::NO_ERROR, b"");
                            }
                        }
                        // Idle ones, and what is left of others after a cut.
                        Downkey::Tcp(at) => {
                            self.io.close(at.stream);
                            self.forget_tcp(at);
                        }
                    }
                    self.touch(key);
                }
                self.transmit_touched();
                self.access.flush(&mut self.io, &self.cells);
                self.flush_qlogs();
                // The channel is read until the workers are joined, so only a full one can lose the word.
                let _ = self.reports.send_by(&mut self.io, Report::Ended { cut: self.cut_exchanges });
                false
            }
            Drain::Running => false,
            Drain::Done => true,
        }
    }
}
