//! How fit backends are, as this worker knows it, and what it tells control of them.
//!
//! Control owns the verdicts: it tells the whole of them whenever one changes, and the newest wins. A worker counts what its
//! attempts say of each backend in cells that control reads; only when so many in a row failed that something has to follow at
//! once, it rings. No message is sent for a request.

use super::Worker;
use crate::config::{BackendId, Generation, UpstreamId};
use crate::telemetry::kinds::HealthState;
use spooky_uring::Io;
use std::time::Instant;

/// What control knows of the health of every backend, whole: who missed one is right again with the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// By backend.
    pub backends: Vec<Verdict>,
    /// By upstream: whether health is disregarded.
    pub panics: Vec<bool>,
}

/// What is known of one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// How fit it is.
    pub state: HealthState,
    /// When it became so; `None`: it has been healthy from the start.
    pub since: Option<Instant>,
}

/// The health of all backends.
pub(super) struct Health {
    /// By backend, as picks go by it: nobody is out where health is disregarded.
    states: Vec<HealthState>,
    /// By backend, as control says.
    verdicts: Vec<Verdict>,
    /// By backend; empty if no upstream ejects any.
    counts: Vec<Count>,
}

/// What attempts say of a backend.
#[derive(Clone, Copy, Default)]
struct Count {
    /// Failures in a row that are told; 0: nothing is counted.
    threshold: u32,
    /// Failures in a row, since the last ones that were told.
    /// Invariant: below the threshold.
    streak: u32,
}

impl Health {
    /// Everybody is healthy.
    pub(super) fn new(generation: &Generation) -> Self {
        let threshold = |backend: &crate::config::Backend| {
            generation.upstream(backend.upstream).outliers.map_or(0, |policy| policy.consecutive)
        };
        let counts: Vec<Count> =
            generation.backends.iter().map(|backend| Count { threshold: threshold(backend), streak: 0 }).collect();
        let backends = generation.backends.len();
        Self {
            states: vec![HealthState::Healthy; backends],
            verdicts: vec![Verdict { state: HealthState::Healthy, since: None }; backends],
            counts: if counts.iter().all(|count| count.threshold == 0) { Vec::new() } else { counts },
        }
    }

    /// How fit a backend is, as far as picks go by it.
    #[inline]
    pub(super) fn state(&self, backend: BackendId) -> HealthState {
        self.states[backend.0 as usize]
    }

    /// Counts what an attempt says; `true`: one more time so many in a row failed. `None`: it is not counted.
    #[inline]
    fn count(&mut self, backend: BackendId, good: bool) -> Option<bool> {
        let count = self.counts.get_mut(backend.0 as usize).filter(|count| count.threshold > 0)?;
        count.streak = if good { 0 } else { count.streak + 1 };
        let failing = count.streak >= count.threshold;
        if failing {
            count.streak = 0;
        }
        Some(failing)
    }

    /// Takes over what control says. Calls `changed` with each backend that became fit or unfit, and since when it is fit.
    fn update(
        &mut self,
        generation: &Generation,
        verdicts: &Verdicts,
        mut changed: impl FnMut(UpstreamId, usize, Option<Instant>),
    ) {
        for (at, verdict) in verdicts.backends.iter().enumerate().take(self.verdicts.len()) {
            let backend = &generation.backends[at];
            let panic = verdicts.panics.get(backend.upstream.0 as usize).copied().unwrap_or(false);
            self.states[at] = if panic { HealthState::Healthy } else { verdict.state };
            let before = std::mem::replace(&mut self.verdicts[at], *verdict);
            if before == *verdict {
                continue;
            }
            // What failed before says nothing of what it is now.
            if let Some(count) = self.counts.get_mut(at) {
                count.streak = 0;
            }
            let first = generation.upstream(backend.upstream).backends.start as usize;
            let healthy = verdict.state == HealthState::Healthy;
            changed(backend.upstream, at - first, verdict.since.filter(|_| healthy));
        }
    }
}

impl<I: Io> Worker<I> {
    /// Counts what an attempt says of its backend, and rings for control if that has to know at once.
    #[inline]
    pub(super) fn note_health(&mut self, backend: BackendId, good: bool) {
        let Some(failing) = self.health.count(backend, good) else {
            return;
        };
        let cells = self.cells.backend(backend.0 as usize);
        if good {
            cells.good.add(1)
        } else {
            cells.bad.add(1)
        }
        if failing {
            cells.failing.add(1);
            self.io.ring(self.reports.doorbell());
        }
    }

    /// Control has new verdicts: the next pick goes by them. What runs on a backend that is out finishes there.
    pub(super) fn update_health(&mut self, verdicts: &Verdicts) {
        let Self { health, balancers, snapshot, .. } = self;
        health.update(&snapshot.generation, verdicts, |upstream, at, since| match since {
            Some(since) => balancers.came_back(upstream, at, since),
            None => balancers.went_away(upstream, at),
        });
        // A backend that may be taken again has room for those who wait.
        (0..self.snapshot.generation.upstreams.len()).for_each(|upstream| self.queue.note_room(upstream));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_str;

    fn generation(more: &str) -> Generation {
        let backends = |of: &str| {
            let each = |at| format!("{{ id = \"{of}{at}\", address = \"http://10.0.0.{at}\" }}");
            (1..=2).map(each).collect::<Vec<_>>().join(", ")
        };
        let text = format!(
            "version = 1\n[listen]\n[upstream.a]\nroute = {{ path_prefix = \"/\" }}\nbackends = [{}]\n{more}\n\
             [upstream.b]\nroute = {{ path_prefix = \"/b\" }}\nbackends = [{}]\n",
            backends("a"),
            backends("b")
        );
        from_str("t", &text).unwrap_or_else(|diagnostics| panic!("{diagnostics}")).0
    }

    fn verdicts(states: [HealthState; 4], since: Instant, panics: [bool; 2]) -> Verdicts {
        let backends = states.map(|state| Verdict { state, since: Some(since) });
        Verdicts { backends: backends.to_vec(), panics: panics.to_vec() }
    }

    #[test]
    fn only_what_may_be_ejected_is_counted_and_told_at_each_threshold() {
        let generation = generation("outlier_ejection = { consecutive_failures = 3 }");
        let mut health = Health::new(&generation);
        let mut counted = |backend, goods: &str| {
            goods.chars().map(|good| health.count(BackendId(backend), good == '+')).collect::<Vec<_>>()
        };
        let told = [Some(false), Some(false), Some(true)];
        assert_eq!(counted(0, "--+"), [Some(false); 3]);
        assert_eq!(counted(0, "------"), [told, told].concat());
        assert_eq!(counted(1, "--"), [Some(false); 2], "each backend by itself");
        assert_eq!(counted(2, "---"), [None; 3]);
        assert!(Health::new(&super::tests::generation("")).counts.is_empty());
    }

    #[test]
    fn verdicts_are_taken_over_whole_and_told_once() {
        use HealthState::{Ejected, Healthy, Unhealthy};
        let generation = generation("outlier_ejection = { consecutive_failures = 3 }");
        let mut health = Health::new(&generation);
        let now = Instant::now();
        let update = |health: &mut Health, verdicts: &Verdicts| {
            let mut told = Vec::new();
            health.update(&generation, verdicts, |upstream, at, since| told.push((upstream.0, at, since.is_some())));
            told
        };
        let first = verdicts([Healthy, Unhealthy, Healthy, Ejected], now, [false; 2]);
        let told = update(&mut health, &first);
        assert_eq!(told, [(0, 0, true), (0, 1, false), (1, 0, true), (1, 1, false)]);
        assert_eq!(update(&mut health, &first), []);
        assert_eq!((health.state(BackendId(1)), health.state(BackendId(3))), (Unhealthy, Ejected));
        // Failures of before do not count against one that came back.
        health.count(BackendId(1), false);
        health.count(BackendId(1), false);
        let mut second = first.clone();
        second.backends[1] = Verdict { state: Healthy, since: Some(now) };
        assert_eq!(update(&mut health, &second), [(0, 1, true)]);
        assert_eq!(health.count(BackendId(1), false), Some(false));
    }

    #[test]
    fn in_a_panic_nobody_is_out() {
        use HealthState::{Healthy, Unhealthy};
        let generation = generation("");
        let mut health = Health::new(&generation);
        let out = [Unhealthy; 4];
        health.update(&generation, &verdicts(out, Instant::now(), [true, false]), |_, _, _| {});
        let states = [0, 1, 2, 3].map(|at| health.state(BackendId(at)));
        assert_eq!(states, [Healthy, Healthy, Unhealthy, Unhealthy]);
        health.update(&generation, &verdicts(out, Instant::now(), [false, false]), |_, _, _| {});
        assert_eq!(health.state(BackendId(0)), Unhealthy);
    }
}
