//! How much of what there is is in use, looked at on control's timer: it decides for the whole process whether there is a
//! brownout and whether memory is short, says each change once, and tells the workers, which only read what they were told.

use crate::config::Generation;
use crate::control::workers::{Latest, WorkerLine};
use crate::http::Reason;
use crate::limits;
use crate::overload::{Brownout, BrownoutChange, MemoryGate, demanded, percent};
use crate::telemetry::WorkerCells;
use crate::telemetry::kinds::Protocol;
use crate::telemetry::process::ProcessFacts;
use crate::telemetry::registry::{AdaptiveCells, OverloadCells};
use crate::worker::{Command, Pressure};
use spooky_uring::Ring;
use std::sync::Arc;
use std::time::Instant;

/// What an upstream can have in flight, by the configuration alone.
struct Room {
    name: Box<str>,
    limit: u64,
    /// Its ways, whose queues wait for it.
    ways: Vec<usize>,
}

/// What can be full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limited {
    Global,
    /// By position.
    Upstream(usize),
    Memory,
}

/// Looks at the pressure and remembers what the workers know of it.
pub struct Watch {
    brownout: Option<Brownout>,
    memory: Option<MemoryGate>,
    global: u64,
    /// By position of the upstream; empty where there is no brownout to decide about.
    rooms: Vec<Room>,
    /// Requests begun and requests refused by the brownout, when it was looked last.
    asked: (u64, u64),
    next: Instant,
    now: Pressure,
    /// What the workers are told.
    told: Latest<Pressure>,
}

impl Watch {
    /// For a configuration; `None`: it wants nothing of this.
    #[must_use]
    pub fn new(generation: &Generation, workers: usize, now: Instant) -> Option<Self> {
        let brownout = generation.brownout.map(Brownout::new);
        let memory = generation.performance.memory_soft_limit.map(MemoryGate::new);
        if brownout.is_none() && memory.is_none() {
            return None;
        }
        let rooms = if brownout.is_some() { rooms(generation) } else { Vec::new() };
        let global = u64::from(generation.performance.global_inflight_limit);
        let told = Latest::new(Pressure::default(), workers);
        Some(Self { brownout, memory, global, rooms, asked: (0, 0), next: now, now: Pressure::default(), told })
    }

    /// When it looks again.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.next
    }

    /// Looks, if it is time, and tells the workers what has changed.
    pub fn turn(&mut self, now: Instant, ring: &mut Ring, workers: &[WorkerLine], cells: &OverloadCells) {
        if now < self.next {
            return;
        }
        self.next = now + limits::PRESSURE_EVERY;
        let before = self.now;
        let resident = self.memory.and_then(|_| ProcessFacts::resident());
        if let (Some(gate), Some(bytes)) = (&mut self.memory, resident) {
            let over = gate.observe(bytes);
            if over != self.now.memory {
                self.now.memory = over;
                match over {
                    true => {
                        tracing::warn!(bytes, "memory is at performance.memory_soft_limit: new requests are refused")
                    }
                    false => tracing::info!(bytes, "memory is below performance.memory_soft_limit again"),
                }
            }
        }
        let held: Vec<&Arc<WorkerCells>> = workers.iter().map(|worker| &worker.cells).collect();
        let (mut pressure, mut fullest) = self.pressure(&held, &cells.adaptive);
        let memory = self.memory.zip(resident).map_or(0, |(gate, bytes)| gate.pressure(bytes));
        if memory > pressure {
            (pressure, fullest) = (memory, Limited::Memory);
        }
        if let Some(brownout) = &mut self.brownout
            && let Some(change) = brownout.observe(pressure, now)
        {
            self.now.brownout = brownout.is_active();
            let fullest = self.name(fullest);
            match change {
                BrownoutChange::Entered => {
                    cells.brownouts_entered.add(1);
                    tracing::warn!(
                        pressure,
                        fullest,
                        "too much to do: only core routes are served (resilience.brownout)"
                    );
                }
                BrownoutChange::Left => {
                    cells.brownouts_left.add(1);
                    tracing::info!(pressure, fullest, "the brownout is over: all routes are served");
                }
            }
        }
        cells.brownout_active.set(u64::from(self.now.brownout));
        cells.memory_pressure_active.set(u64::from(self.now.memory));
        if before != self.now {
            self.told.set(self.now);
        }
        self.told.send(ring, workers, |_, pressure| Command::Pressure(**pressure));
    }

    fn name(&self, limited: Limited) -> String {
        match limited {
            Limited::Global => "performance.global_inflight_limit".into(),
            Limited::Upstream(at) => format!("upstream {}", self.rooms[at].name),
            Limited::Memory => "performance.memory_soft_limit".into(),
        }
    }

    /// How full the fullest of requests' limits is, in percent, as it would be without the brownout; and which it is.
    fn pressure(&mut self, workers: &[&Arc<WorkerCells>], adaptive: &[Option<AdaptiveCells>]) -> (u32, Limited) {
        let mut fullest = (0, Limited::Global);
        if self.brownout.is_none() {
            return fullest;
        }
        let sum = |of: &dyn Fn(&WorkerCells) -> u64| workers.iter().map(|cells| of(cells)).sum::<u64>();
        let begun =
            |cells: &WorkerCells| Protocol::ALL.iter().map(|protocol| cells.exchanges_started.get(*protocol)).sum();
        let asked = (sum(&begun), sum(&|cells| cells.refusals.get(Reason::Brownout)));
        let before = std::mem::replace(&mut self.asked, asked);
        fullest.0 = percent(sum(&|cells| cells.exchanges_admitted.get()), self.global);
        for (at, room) in self.rooms.iter().enumerate() {
            let limit = adaptive
                .get(at)
                .and_then(Option::as_ref)
                .map_or(room.limit, |cells| cells.limit.get().clamp(1, room.limit));
            let waiting =
                |cells: &WorkerCells| room.ways.iter().map(|way| cells.route(*way).waiting.get()).sum::<u64>();
            let used = sum(&|cells| cells.upstream(at).active.get()) + sum(&waiting);
            let used = percent(used, limit);
            if used > fullest.0 {
                fullest = (used, Limited::Upstream(at));
            }
        }
        (demanded(fullest.0, asked.0.saturating_sub(before.0), asked.1.saturating_sub(before.1)), fullest.1)
    }
}

fn rooms(generation: &Generation) -> Vec<Room> {
    let room = |id| {
        let backends: u64 = generation.backends_of(id).iter().map(|backend| u64::from(backend.inflight_limit)).sum();
        let ways = generation.ways.iter().enumerate();
        Room {
            name: generation.upstream(id).name.clone(),
            limit: u64::from(generation.upstream(id).inflight_limit).min(backends),
            ways: ways.filter(|(_, way)| way.upstream == Some(id) && way.queue.is_some()).map(|(at, _)| at).collect(),
        }
    };
    generation.upstream_ids().map(room).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_str;
    use crate::telemetry::{RouteName, Scope};

    fn watch(more: &str) -> (Watch, Arc<WorkerCells>) {
        let text = format!(
            "version = 1\n[listen]\n[upstream.one]\nroute = {{ path_prefix = \"/\" }}\n\
             backends = [{{ id = \"a\", address = \"http://127.0.0.1:1\" }}, {{ id = \"b\", address = \"http://127.0.0.1:2\" }}]\n{more}"
        );
        let (generation, _) = from_str("t", &text).unwrap_or_else(|wrong| panic!("{wrong}"));
        let route = RouteName { route: "one".into(), upstream: "one".into() };
        let scope = Scope { routes: vec![route], upstreams: vec!["one".into()], ..Scope::default() };
        let watch = Watch::new(&generation, 1, Instant::now()).expect("something to watch");
        (watch, Arc::new(WorkerCells::new(Arc::new(scope))))
    }

    const BROWNOUT: &str =
        "[resilience.brownout]\ncore_routes = [\"one\"]\n[resilience.route_queue]\nmax_length = 100\n";

    #[test]
    fn the_fullest_counts_and_who_waits_counts_too() {
        let limits = "[performance]\nglobal_inflight_limit = 1000\nper_upstream_inflight_limit = 200\nper_backend_inflight_limit = 50\n";
        let (mut watch, cells) = watch(&format!("{BROWNOUT}{limits}"));
        let mut pressure = |cells: &Arc<WorkerCells>| watch.pressure(&[cells], &[]);
        assert_eq!(pressure(&cells), (0, Limited::Global));
        cells.exchanges_admitted.set(420);
        assert_eq!(pressure(&cells), (42, Limited::Global));
        // Two backends of fifty are less than the upstream's two hundred.
        cells.upstream(0).active.set(80);
        assert_eq!(pressure(&cells), (80, Limited::Upstream(0)));
        (0..30).for_each(|_| cells.route(0).waiting.enter());
        assert_eq!(pressure(&cells), (110, Limited::Upstream(0)));
        let adaptive = AdaptiveCells::default();
        adaptive.limit.set(40);
        assert_eq!(watch.pressure(&[&cells], &[Some(adaptive)]), (275, Limited::Upstream(0)));
        assert_eq!(watch.name(Limited::Upstream(0)), "upstream one");
    }

    #[test]
    fn what_the_brownout_refuses_is_part_of_the_pressure() {
        let (mut watch, cells) = watch(&format!(
            "{BROWNOUT}[performance]\nglobal_inflight_limit = 100000\nper_backend_inflight_limit = 50\n"
        ));
        cells.upstream(0).active.set(30);
        let mut ask = |begun: u64, shed: u64| {
            (0..begun).for_each(|_| cells.exchanges_started.count(Protocol::H2));
            (0..shed).for_each(|_| cells.refusals.count(Reason::Brownout));
            watch.pressure(&[&cells], &[]).0
        };
        assert_eq!([ask(0, 0), ask(90, 60), ask(10, 0), ask(10, 10)], [30, 90, 30, 300]);
    }

    #[test]
    fn nothing_wanted_is_nothing_watched() {
        let (generation, _) = from_str(
            "t",
            "version = 1\n[listen]\n[upstream.one]\nroute = { path_prefix = \"/\" }\n\
             backends = [{ id = \"a\", address = \"http://127.0.0.1:1\" }]\n",
        )
        .expect("right");
        assert!(Watch::new(&generation, 1, Instant::now()).is_none());
    }
}
