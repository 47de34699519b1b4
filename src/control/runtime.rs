//! The control thread: signals, orders to workers, the metrics and control addresses, and everything that is written.
//!
//! It is the same reactor as a worker, so nothing here blocks: a scrape is an HTTP exchange on this ring, a log line a
//! write on it. What it learns goes through [`Lifecycle`], which decides; this file only carries out.

use super::endpoints::{Facts, Place};
use super::failure::{Exit, Failure};
use super::health::Health;
use super::journal::Journal;
use super::lifecycle::{Lifecycle, Order, Phase};
use super::overload::Overload;
use super::qlogs::Qlogs;
use super::resolver::Resolver;
use super::service::ControlService;
use super::sockets::Addresses;
use super::workers::{News, Workers};
use crate::telemetry::log::{self, LogTarget};
use crate::telemetry::registry::Sources;
use crate::telemetry::{AccessBatch, registry};
use crate::worker::host::{Host, Settings};
use crate::worker::{Command, Report};
use spooky_uring::host::Signal;
use spooky_uring::mailbox::Receiver;
use spooky_uring::{Event, Io, Listener, ListenerId, Ring, Token};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

/// The signals control reads; they are blocked in every thread.
pub const SIGNALS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1];

const NEWS: Token = Token(1);
const REPORTS: Token = Token(2);
const ORDERS: Token = Token(3);
const LOG: Token = Token(4);
const ACCESS: Token = Token(5);
const QLOG: Token = Token(6);
/// Files: one more for each file that was opened.
const FILES: u64 = 16;
/// The host's half of the tokens.
const HOST: u32 = 1;

/// How long the ring goes on for journals when all workers have ended.
const FLUSH_TIME: Duration = Duration::from_secs(2);

/// What somebody inside the process may ask of control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// As TERM does: drain first, stop at the second time.
    End,
}

/// What control says once, to who started it.
pub type Started = Result<Addresses, Failure>;

/// Everything control is given.
pub struct Parts {
    /// The machine.
    pub ring: Ring,
    /// The workers.
    pub workers: Workers,
    /// Resolves names of backends; `None`: there are none.
    pub resolver: Option<Resolver>,
    /// Watches the health of backends; `None`: nobody wants that.
    pub health: Option<Health>,
    /// Looks how much there is to do.
    pub overload: Overload,
    /// Listening sockets of the metrics and control addresses.
    pub hosts: Vec<(Place, Listener)>,
    /// Where everything listens.
    pub addresses: Addresses,
    /// What the metrics are made from.
    pub sources: Sources,
    /// The path of the metrics.
    pub metrics_path: Box<str>,
    /// How long a drain may take.
    pub drain_time: Duration,
    /// Lines of threads that do not write themselves.
    pub log: Option<Receiver<Vec<u8>>>,
    /// Where they go.
    pub log_target: LogTarget,
    /// Access records and where they go.
    pub access: Option<(Receiver<AccessBatch>, LogTarget)>,
    /// Traces of connections.
    pub qlog: Option<Qlogs>,
    /// Orders from inside the process.
    pub asks: Receiver<Ask>,
    /// When the process started.
    pub started: Instant,
    /// Told once.
    pub tell: SyncSender<Started>,
}

/// A file of lines, and how to open it again.
struct Written {
    journal: Journal,
    target: LogTarget,
    token: Token,
}

/// The control thread.
pub struct Control {
    ring: Ring,
    workers: Workers,
    resolver: Option<Resolver>,
    health: Option<Health>,
    overload: Overload,
    host: Host<ControlService>,
    listeners: Vec<ListenerId>,
    life: Lifecycle,
    log: Option<(Receiver<Vec<u8>>, Written)>,
    access: Option<(Receiver<AccessBatch>, Written)>,
    qlog: Option<Qlogs>,
    asks: Receiver<Ask>,
    files_opened: u64,
    tell: Option<(SyncSender<Started>, Addresses)>,
    failure: Option<Failure>,
    cut: usize,
}

impl Control {
    /// A control thread that has not turned yet.
    ///
    /// # Errors
    /// If signals or a log file cannot be had.
    pub fn new(mut parts: Parts) -> Result<Self, Failure> {
        let ring = &mut parts.ring;
        ring.read_signals(&SIGNALS).map_err(|error| Failure::new("signals", error))?;
        ring.watch(parts.workers.news.doorbell(), NEWS);
        ring.watch(parts.workers.reports.doorbell(), REPORTS);
        ring.watch(parts.asks.doorbell(), ORDERS);
        let mut files_opened = 0;
        let mut open = |ring: &mut Ring, target: LogTarget, key| {
            files_opened += 1;
            Written::open(ring, target, Token(FILES + files_opened), key)
        };
        let log = match parts.log {
            Some(receiver) => {
                ring.watch(receiver.doorbell(), LOG);
                Some((receiver, open(ring, parts.log_target, "[log] file")?))
            }
            None => None,
        };
        let access = match parts.access {
            Some((receiver, target)) => {
                ring.watch(receiver.doorbell(), ACCESS);
                Some((receiver, open(ring, target, "[observability] access_log")?))
            }
            None => None,
        };
        if let Some(qlog) = &parts.qlog {
            ring.watch(qlog.doorbell(), QLOG);
        }
        let facts = Facts::new(parts.sources, parts.metrics_path, parts.started);
        let places = parts.hosts.iter().map(|(place, _)| *place).collect();
        let service = ControlService::new(facts, places, own_names());
        let settings = Settings::new(HOST, crate::limits::CONTROL_CONNECTIONS as usize);
        let host = Host::new(service, settings, ring.now());
        let listeners = parts.hosts.into_iter().enumerate();
        let listeners = listeners.map(|(at, (_, socket))| ring.listen(socket, host.listener_token(at))).collect();
        let mut life = Lifecycle::new(parts.workers.lines.len(), parts.drain_time);
        if parts.resolver.is_some() {
            life.await_names();
        }
        Ok(Self {
            host,
            listeners,
            life,
            workers: parts.workers,
            resolver: parts.resolver,
            health: parts.health,
            overload: parts.overload,
            log,
            access,
            qlog: parts.qlog,
            asks: parts.asks,
            files_opened,
            tell: Some((parts.tell, parts.addresses)),
            failure: None,
            cut: 0,
            ring: parts.ring,
        })
    }

    /// Turns until all workers have ended.
    ///
    /// # Errors
    /// What ended the process before its time.
    pub fn run(mut self) -> Result<(), Failure> {
        let mut events = Vec::new();
        while self.life.phase() != Phase::Over {
            let starting = self.life.phase() == Phase::Starting;
            let names = self.resolver.as_ref().and_then(|resolver| resolver.deadline(self.ring.now(), starting));
            let health = self.health.as_ref().and_then(|health| health.deadline(self.ring.now()));
            let times = [self.host.next_deadline(), self.life.deadline(), names, health, self.overload.deadline()];
            let deadline = times.into_iter().flatten().min();
            if let Err(error) = self.ring.wait(deadline, &mut events) {
                // Nothing can be asked of the machine any more; workers have their own rings and may still end well.
                self.workers.order(|| Command::Stop);
                return Err(Failure::new("the control thread's ring", error));
            }
            for event in events.drain(..) {
                self.collect(event);
            }
            self.resolve();
            self.watch_health();
            let cells = &self.host.service_mut().facts.sources.control.overload;
            self.overload.turn(&mut self.ring, &self.workers.lines, cells);
            let order = self.life.tick(self.ring.now());
            self.carry_out(order);
            self.tell_ready();
            self.publish();
            self.host.turn(&mut self.ring);
        }
        self.finish(events)
    }

    fn collect(&mut self, event: Event) {
        let event = match &mut self.resolver {
            Some(resolver) => match resolver.handle(event, &mut self.ring) {
                Some(event) => event,
                None => return,
            },
            None => event,
        };
        let event = match &mut self.health {
            Some(health) => match health.handle(event, &mut self.ring) {
                Some(event) => event,
                None => return,
            },
            None => event,
        };
        match self.host.handle(event, &mut self.ring) {
            None => {}
            Some(Event::Signal { signal }) => self.signal(signal),
            Some(Event::Doorbell { token: NEWS }) => self.read_news(),
            Some(Event::Doorbell { token: REPORTS }) => self.read_reports(),
            Some(Event::Doorbell { token: ORDERS }) => self.read_asks(),
            Some(Event::Doorbell { token: LOG }) => self.read_log(),
            Some(Event::Doorbell { token: ACCESS }) => self.read_access(),
            Some(Event::Doorbell { token: QLOG }) => self.read_qlog(),
            Some(Event::Written { token, result }) => self.written(token, result),
            Some(other) => tracing::debug!(?other, "an event of nobody"),
        }
    }

    fn signal(&mut self, number: i32) {
        let now = self.ring.now();
        match Signal::try_from(number) {
            Ok(Signal::SIGUSR1) => self.reopen(),
            Ok(signal @ (Signal::SIGTERM | Signal::SIGINT)) => {
                let again = self.life.phase() != Phase::Ready;
                tracing::info!(%signal, "{}", if again { "ends now" } else { "drains" });
                let order = self.life.end(now);
                self.carry_out(order);
            }
            _ => {}
        }
    }

    fn read_asks(&mut self) {
        while let Some(Ask::End) = self.asks.receive() {
            let order = self.life.end(self.ring.now());
            self.carry_out(order);
        }
    }

    fn read_news(&mut self) {
        while let Some(news) = self.workers.news.receive() {
            let order = match news {
                News::Up => {
                    self.life.worker_up();
                    Order::None
                }
                News::Failed(failure) => {
                    self.failure.get_or_insert(failure);
                    self.life.worker_ended(self.ring.now())
                }
                News::Ended(result) => {
                    if let Err(error) = result {
                        let failure = Failure::new("a worker's ring", error);
                        tracing::error!(%failure, "a worker ended");
                        self.failure.get_or_insert(failure);
                    }
                    self.life.worker_ended(self.ring.now())
                }
            };
            self.carry_out(order);
        }
    }

    /// Keeps the names of backends fresh; the first time, the start waits for them.
    fn resolve(&mut self) {
        if let Some(resolver) = &mut self.resolver {
            let facts = &mut self.host.service_mut().facts;
            resolver.turn(&mut self.ring, &self.workers.lines, &facts.sources.control);
            facts.names_unresolved = resolver.unresolved();
            if self.life.phase() == Phase::Starting && resolver.lets_start(self.ring.now()) {
                self.life.names_known();
            }
        }
    }

    /// Probes backends, and tells the workers what follows.
    fn watch_health(&mut self) {
        if let Some(health) = &mut self.health {
            let facts = &mut self.host.service_mut().facts;
            health.turn(&mut self.ring, &self.workers.lines, self.resolver.as_ref(), &facts.sources.control.health);
            facts.backends_out = health.out();
        }
    }

    /// Says once that everything serves.
    fn tell_ready(&mut self) {
        if self.life.phase() == Phase::Ready
            && let Some((tell, addresses)) = self.tell.take()
        {
            let or_off = |address: Option<SocketAddr>| address.map_or("off".to_owned(), |at| at.to_string());
            tracing::info!(
                workers = self.workers.lines.len(),
                listeners = ?addresses.public,
                metrics = %or_off(addresses.metrics),
                control = %or_off(addresses.control),
                "ready"
            );
            // Nobody waits for it if the starter is gone.
            let _ = tell.send(Ok(addresses));
        }
    }

    fn read_reports(&mut self) {
        // They ring without a message, too.
        if let Some(health) = &mut self.health {
            health.ring();
        }
        while let Some(Report::Ended { cut }) = self.workers.reports.receive() {
            self.cut += cut;
        }
    }

    fn read_log(&mut self) {
        if let Some((receiver, written)) = &mut self.log {
            while let Some(line) = receiver.receive() {
                written.journal.add(1, &mut self.ring, |out| out.extend_from_slice(&line));
            }
        }
    }

    fn read_access(&mut self) {
        if let Some((receiver, written)) = &mut self.access {
            while let Some(batch) = receiver.receive() {
                written.journal.add(batch.len() as u64, &mut self.ring, |out| batch.lines(out));
            }
        }
    }

    fn read_qlog(&mut self) {
        if let Some(qlog) = &mut self.qlog {
            qlog.read(&mut self.ring, &self.host.service_mut().facts.sources.control);
        }
    }

    fn written(&mut self, token: Token, result: Result<usize, i32>) {
        if let Some(qlog) = &mut self.qlog
            && qlog.written(token, result, &mut self.ring, &self.host.service_mut().facts.sources.control)
        {
            return;
        }
        let journals = [self.log.as_mut().map(|(_, w)| w), self.access.as_mut().map(|(_, w)| w)];
        for written in journals.into_iter().flatten() {
            if written.token == token
                && let Some(errno) = written.journal.written(result, &mut self.ring)
            {
                let error = io::Error::from_raw_os_error(errno);
                tracing::error!(file = %written.target, %error, "log lines are lost");
            }
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::None => {}
            Order::Drain { until } => {
                self.workers.order(|| Command::Drain { until });
            }
            Order::Stop => self.workers.order(|| Command::Stop),
        }
    }

    /// Makes what answers say current.
    fn publish(&mut self) {
        let counts = self.host.counts();
        let facts = &mut self.host.service_mut().facts;
        facts.phase = self.life.phase();
        let cells: &registry::ControlCells = &facts.sources.control;
        cells.host_connections.set(counts.accepted);
        cells.host_refused.set(counts.refused);
        cells.host_requests.set(counts.requests);
        if let Some((_, written)) = &self.access {
            let counts = written.journal.counts();
            cells.access_written.set(counts.written);
            cells.access_failed.set(counts.failed + counts.dropped);
        }
        let lines = self.log.as_ref().map(|(_, written)| written.journal.counts());
        let lost = lines.map_or(0, |counts| counts.failed + counts.dropped);
        cells.log_dropped.set(log::dropped() + lost);
    }

    /// Opens log files again by their names, after a rotation.
    fn reopen(&mut self) {
        let journals = [self.log.as_mut().map(|(_, w)| w), self.access.as_mut().map(|(_, w)| w)];
        for written in journals.into_iter().flatten() {
            if !matches!(written.target, LogTarget::File(_)) {
                continue;
            }
            self.files_opened += 1;
            let token = Token(FILES + self.files_opened);
            match descriptor(&written.target) {
                Ok(descriptor) => {
                    let file = self.ring.add_file(descriptor, token);
                    written.token = token;
                    written.journal.switch(file, &mut self.ring);
                    tracing::info!(file = %written.target, "opened again");
                }
                Err(error) => {
                    tracing::error!(file = %written.target, %error, "cannot be opened again; the old file stays");
                }
            }
        }
        if let Some((_, written)) = &self.log
            && let Err(error) = log::reopen(&written.target)
        {
            tracing::error!(%error, "the log cannot be opened again");
        }
    }

    /// The workers have ended: what they said last is written, and the process may go.
    fn finish(mut self, mut events: Vec<Event>) -> Result<(), Failure> {
        self.read_reports();
        self.host.drain();
        for listener in std::mem::take(&mut self.listeners) {
            self.ring.stop_listening(listener);
        }
        if self.cut > 0 {
            tracing::warn!(exchanges = self.cut, "cut short at the end of the drain");
        }
        tracing::info!("ended");
        let until = self.ring.now() + FLUSH_TIME;
        loop {
            self.read_access();
            self.read_qlog();
            self.read_log();
            self.host.turn(&mut self.ring);
            let journals = [self.log.as_ref().map(|(_, w)| w), self.access.as_ref().map(|(_, w)| w)];
            let quiet = journals.into_iter().flatten().all(|written| written.journal.is_quiet())
                && self.qlog.as_ref().is_none_or(Qlogs::is_quiet);
            if quiet || self.ring.now() >= until {
                break;
            }
            if self.ring.wait(Some(until), &mut events).is_err() {
                break;
            }
            for event in events.drain(..) {
                if let Some(Event::Written { token, result }) = self.host.handle(event, &mut self.ring) {
                    self.written(token, result);
                }
            }
        }
        let crashed = self.life.crashed();
        for line in self.workers.lines {
            // One that was given up is left to the end of the process.
            if line.is_over() || !crashed {
                line.join();
            }
        }
        let failure = match self.failure {
            Some(failure) => failure,
            None if crashed => Failure::new("a worker", "ended before its time").exit(Exit::Failure),
            None => return Ok(()),
        };
        match self.tell {
            // Who started us still waits and says it.
            Some((tell, _)) => {
                let _ = tell.send(Err(failure));
                Ok(())
            }
            None => Err(failure),
        }
    }
}

impl Written {
    fn open(ring: &mut Ring, target: LogTarget, token: Token, key: &str) -> Result<Self, Failure> {
        let descriptor = descriptor(&target).map_err(|error| match &target {
            LogTarget::File(path) => Failure::file(path, key, &error),
            LogTarget::Stderr | LogTarget::Stdout => Failure::new(key, error),
        })?;
        let journal = Journal::new(ring.add_file(descriptor, token));
        Ok(Self { journal, target, token })
    }
}

/// An own descriptor of the target.
fn descriptor(target: &LogTarget) -> io::Result<OwnedFd> {
    match target {
        LogTarget::Stderr => io::stderr().as_fd().try_clone_to_owned(),
        LogTarget::Stdout => io::stdout().as_fd().try_clone_to_owned(),
        LogTarget::File(path) => log::open_append(path).map(OwnedFd::from),
    }
}

/// The names this machine goes by.
fn own_names() -> Vec<Box<str>> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim().to_ascii_lowercase();
    if name.is_empty() { Vec::new() } else { vec![name.into_boxed_str()] }
}
