//! Carries out what the monitor orders: probes on control's ring, counts of the workers' cells; and tells what follows.

use super::probe::{Probe, Subject, Verdict};
use crate::config::{BackendId, Generation, UpstreamId};
use crate::control::resolver::Resolver;
use crate::control::workers::{Latest, WorkerLine, chance};
use crate::health::{Change, Group, GroupId, MemberId, Monitor, News, Order, Outcomes};
use crate::telemetry::cells::{Gauge, HealthCells};
use crate::telemetry::kinds::{HealthCause, HealthState, ProbeResult};
use crate::telemetry::registry::WatchCells;
use crate::tls::ClientContext;
use crate::worker::{self, Command, Verdicts};
use rustc_hash::FxHashMap;
use spooky_uring::{Event, Io, Ring, StreamId, Token};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The upper half of the tokens of probes' sockets.
const SPACE: u64 = 3;

/// The wait for room in a worker's mailbox: rare, and nobody tells when it is over.
const SOON: Duration = Duration::from_millis(5);

/// The health of all backends.
pub struct Health {
    generation: Arc<Generation>,
    monitor: Monitor,
    /// Those on their way; at most [`crate::limits::PROBES`].
    probes: FxHashMap<MemberId, Probe>,
    /// By upstream.
    contexts: Vec<Option<ClientContext>>,
    /// By backend: what is known of its probes beside their results.
    known: Vec<Known>,
    /// What the workers are told.
    verdicts: Latest<Verdicts>,
    /// A worker rang.
    rung: bool,
}

/// What is known of the probes and the requests of one backend.
#[derive(Clone, Default)]
struct Known {
    /// Turns the addresses of its name.
    turn: usize,
    /// What its last probe was told with.
    detail: String,
    /// What came of it.
    last: Option<ProbeResult>,
    /// How often workers said that its requests fail.
    failing: u64,
}

/// The cells of a generation, by backend, and those of its upstreams; empty if nobody is watched.
pub fn cells(generation: &Generation) -> WatchCells {
    let watched = |id: UpstreamId| generation.watches(id);
    let cells = generation.backends.iter().map(|backend| {
        watched(backend.upstream).then(|| {
            let cells = HealthCells::default();
            cells.state.set(HealthState::Healthy, 1);
            cells
        })
    });
    let panics = generation
        .upstream_ids()
        .filter(|id| watched(*id))
        .map(|id| (generation.upstream(id).name.clone(), Gauge::default()));
    WatchCells { backends: cells.collect(), panics: panics.collect() }
}

impl Health {
    /// Takes the backends of a generation; `None`: nobody is watched. `contexts`: what TLS begins with, by upstream.
    pub fn new(
        generation: &Arc<Generation>,
        contexts: Vec<Option<ClientContext>>,
        workers: usize,
        now: Instant,
    ) -> Option<Self> {
        if !generation.upstream_ids().any(|id| generation.watches(id)) {
            return None;
        }
        let groups = generation.upstreams.iter().map(|upstream| Group {
            members: upstream.backends.clone(),
            outliers: upstream.outliers,
            panic_threshold: upstream.panic_threshold,
        });
        let probes: Vec<_> =
            generation.backends.iter().map(|backend| backend.health_check.as_ref().map(|check| check.policy)).collect();
        Some(Self {
            monitor: Monitor::new(groups.collect(), &probes, now, &mut chance),
            generation: Arc::clone(generation),
            probes: FxHashMap::default(),
            contexts,
            known: vec![Known::default(); generation.backends.len()],
            verdicts: Latest::new(Verdicts::default(), workers),
            rung: false,
        })
    }

    /// When [`Self::turn`] has something to do.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let soon = self.verdicts.is_unsent().then(|| now + SOON);
        [self.monitor.deadline(), soon].into_iter().flatten().min()
    }

    /// Backends that are not healthy.
    pub fn out(&self) -> u64 {
        self.monitor.out() as u64
    }

    /// A worker rang: it may have seen so many failures in a row that something has to follow.
    pub fn ring(&mut self) {
        self.rung = true;
    }

    /// Notes what happened; gives back what is not a probe's. [`Self::turn`] acts on what follows.
    pub fn handle(&mut self, event: Event, ring: &mut Ring) -> Option<Event> {
        match event {
            Event::Connected { token, stream, result } => match own(token) {
                Some(id) => self.step(id, stream, ring, |probe, subject, ring| probe.connected(result, subject, ring)),
                None => return Some(Event::Connected { token, stream, result }),
            },
            Event::Received { token, stream, lease } => match own(token) {
                Some(id) => self.step(id, stream, ring, |probe, subject, ring| probe.received(lease, subject, ring)),
                None => return Some(Event::Received { token, stream, lease }),
            },
            Event::Ended { token, stream, end } => match own(token) {
                Some(id) => self.step(id, stream, ring, |probe, subject, ring| probe.ended(end, subject, ring)),
                None => return Some(Event::Ended { token, stream, end }),
            },
            // What it has answered, or its silence, tells.
            Event::Sent { token, .. } | Event::SendFailed { token, .. } if own(token).is_some() => {}
            other => return Some(other),
        }
        None
    }

    /// Does what is due, and tells workers, log and counters.
    pub fn turn(&mut self, ring: &mut Ring, workers: &[WorkerLine], names: Option<&Resolver>, cells: &WatchCells) {
        let now = ring.now();
        if std::mem::take(&mut self.rung) {
            self.heed(workers, now);
        }
        self.monitor.poll(now, &mut chance);
        while let Some(order) = self.monitor.next_order() {
            match order {
                Order::Probe(id) => self.begin(id, names, ring),
                Order::Drop(id) => {
                    self.known[id.0 as usize].detail.clear();
                    if let Some(probe) = self.probes.remove(&id) {
                        probe.close(ring);
                    }
                }
                Order::Count(id) => {
                    let outcomes = self.outcomes(id, workers);
                    self.monitor.counted(id, &outcomes, now);
                }
            }
        }
        let mut changed = false;
        while let Some(news) = self.monitor.next_news() {
            changed |= self.tell(news, cells);
        }
        if changed {
            self.verdicts.set(self.present());
        }
        self.verdicts.send(ring, workers, |_, verdicts| Command::Health(Arc::clone(verdicts)));
    }

    fn subject<'a>(
        generation: &'a Generation,
        contexts: &'a [Option<ClientContext>],
        id: MemberId,
    ) -> Option<Subject<'a>> {
        let backend = generation.backend(BackendId(id.0));
        let context = contexts.get(backend.upstream.0 as usize).and_then(Option::as_ref);
        let proxy_protocol = generation.upstream(backend.upstream).proxy_protocol;
        Some(Subject { backend, check: backend.health_check.as_ref()?, context, proxy_protocol })
    }

    fn begin(&mut self, id: MemberId, names: Option<&Resolver>, ring: &mut Ring) {
        let Some(subject) = Self::subject(&self.generation, &self.contexts, id) else {
            return;
        };
        let mut addresses = names.map(|names| names.addresses(BackendId(id.0))).unwrap_or_default();
        let known = &mut self.known[id.0 as usize];
        // One that hangs takes the whole time of a probe: the next probe begins with another.
        if !addresses.is_empty() {
            let first = known.turn % addresses.len();
            addresses.rotate_left(first);
            known.turn = known.turn.wrapping_add(1);
        }
        match Probe::begin(&subject, addresses, token(id), ring) {
            Ok(probe) => {
                self.probes.insert(id, probe);
            }
            Err(verdict) => self.judge(id, verdict, ring.now()),
        }
    }

    /// Lets a probe look at what happened, and ends it if that tells.
    fn step(
        &mut self,
        id: MemberId,
        stream: StreamId,
        ring: &mut Ring,
        act: impl FnOnce(&mut Probe, &Subject<'_>, &mut Ring) -> Option<Verdict>,
    ) {
        let Some(subject) = Self::subject(&self.generation, &self.contexts, id) else {
            return;
        };
        let Some(probe) = self.probes.get_mut(&id).filter(|probe| probe.owns(stream)) else {
            return;
        };
        if let Some(verdict) = act(probe, &subject, ring) {
            if let Some(probe) = self.probes.remove(&id) {
                probe.close(ring);
            }
            self.judge(id, verdict, ring.now());
        }
    }

    fn judge(&mut self, id: MemberId, verdict: Verdict, now: Instant) {
        self.known[id.0 as usize].detail = verdict.detail;
        self.monitor.probed(id, verdict.result, now, &mut chance);
    }

    /// Looks which backends' requests fail.
    fn heed(&mut self, workers: &[WorkerLine], now: Instant) {
        for at in 0..self.known.len() {
            let failing = workers.iter().map(|line| line.cells.backend(at).failing.get()).sum();
            if std::mem::replace(&mut self.known[at].failing, failing) != failing {
                self.monitor.failing(MemberId(at as u32), now);
            }
        }
    }

    fn outcomes(&self, id: GroupId, workers: &[WorkerLine]) -> Vec<Outcomes> {
        let members = self.generation.upstream(UpstreamId(id.0)).backends.clone();
        let of = |at: u32| {
            let cells = workers.iter().map(|line| line.cells.backend(at as usize));
            cells.fold(Outcomes::default(), |sum, cells| Outcomes {
                good: sum.good + cells.good.get(),
                bad: sum.bad + cells.bad.get(),
            })
        };
        members.map(of).collect()
    }

    fn present(&self) -> Verdicts {
        let verdict = |at: usize| {
            let member = self.monitor.member(MemberId(at as u32));
            worker::Verdict { state: member.state(), since: member.since() }
        };
        Verdicts {
            backends: (0..self.generation.backends.len()).map(verdict).collect(),
            panics: (0..self.generation.upstreams.len()).map(|at| self.monitor.is_panic(GroupId(at as u32))).collect(),
        }
    }

    /// Logs and counts what there is; `true`: workers are to know.
    fn tell(&mut self, news: News, cells: &WatchCells) -> bool {
        let of = |id: MemberId| cells.backends.get(id.0 as usize).and_then(Option::as_ref);
        match news {
            News::Probed(id, result) => {
                if let Some(cells) = of(id) {
                    cells.probes.count(result);
                }
                self.known[id.0 as usize].last = Some(result);
                if result != ProbeResult::Passed {
                    let (upstream, backend) = self.names(id);
                    let detail = &self.known[id.0 as usize].detail;
                    tracing::debug!(upstream, backend, result = result.word(), detail, "a probe did not pass");
                }
                false
            }
            News::Changed(id, change) => {
                if let Some(cells) = of(id) {
                    cells.changes.count(change.cause);
                    for state in HealthState::ALL {
                        cells.state.set(*state, u64::from(*state == self.monitor.member(id).state()));
                    }
                }
                self.say(id, change);
                true
            }
            News::Withheld(id, cause) => {
                if let Some(cells) = of(id) {
                    cells.withheld.add(1);
                }
                let (upstream, backend) = self.names(id);
                tracing::debug!(upstream, backend, cause = cause.word(), "not ejected: enough others are out");
                false
            }
            News::Panic(id, on) => {
                let name = &self.generation.upstream(UpstreamId(id.0)).name;
                if let Some((_, cell)) = cells.panics.iter().find(|(upstream, _)| upstream == name) {
                    cell.set(u64::from(on));
                }
                match on {
                    true => tracing::error!(upstream = %name, "too few backends are healthy: health is disregarded"),
                    false => tracing::info!(upstream = %name, "backends enough are healthy: health is regarded again"),
                }
                true
            }
        }
    }

    fn say(&self, id: MemberId, change: Change) {
        let (upstream, backend) = self.names(id);
        let cause = change.cause.word();
        match change.cause {
            HealthCause::ProbesFailed => {
                let Known { detail, last, .. } = &self.known[id.0 as usize];
                let result = last.map_or("", ProbeResult::word);
                tracing::warn!(upstream, backend, cause, result, detail, "unhealthy: its probes fail");
            }
            HealthCause::ConsecutiveFailures | HealthCause::FailurePercent => {
                let time = change.ejected_for.unwrap_or_default();
                tracing::warn!(upstream, backend, cause, ?time, "ejected: its requests fail");
            }
            HealthCause::ProbesPassed => tracing::info!(upstream, backend, cause, "healthy: its probes pass"),
            HealthCause::EjectionOver => tracing::info!(upstream, backend, cause, "healthy: its ejection is over"),
        }
    }

    fn names(&self, id: MemberId) -> (&str, &str) {
        let backend = self.generation.backend(BackendId(id.0));
        (&self.generation.upstream(backend.upstream).name, &backend.id)
    }
}

fn token(id: MemberId) -> Token {
    Token(SPACE << 32 | u64::from(id.0))
}

fn own(token: Token) -> Option<MemberId> {
    (token.0 >> 32 == SPACE).then_some(MemberId(token.0 as u32))
}
