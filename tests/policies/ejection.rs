//! What a worker and control do together where requests that fail have their backend ejected: the worker counts, control
//! judges, and picks go by the verdict. They speak with each other within a turn, so here it takes no time.

use crate::sabotage::Sabotage;
use crate::stories::Bounds;
use spooky::health::{Group, GroupId, MemberId, Monitor, News, Order, Outcomes, OutlierPolicy};
use spooky::telemetry::kinds::HealthState;
use std::time::{Duration, Instant};

/// But for the shares, which are the story's.
pub const EJECTION: OutlierPolicy = OutlierPolicy {
    consecutive: 3,
    percent: Some(50),
    requests: 10,
    interval: Duration::from_secs(1),
    base_time: Duration::from_millis(200),
    max_time: Duration::from_millis(1600),
    max_percent: 50,
};

/// Who comes back has its whole share after this.
pub const SLOW_START: Duration = Duration::from_millis(500);

pub struct Ejection {
    monitor: Monitor,
    sabotage: Option<Sabotage>,
    /// What became of the attempts on each, and how many in a row failed.
    outcomes: Vec<(Outcomes, u32)>,
}

/// A backend that is ejected from now on, or no longer.
pub struct Change {
    pub backend: usize,
    pub ejected: bool,
}

impl Ejection {
    pub fn new(backends: usize, bounds: Bounds, sabotage: Option<Sabotage>, now: Instant) -> Self {
        let mut policy = OutlierPolicy { max_percent: bounds.max_percent, ..EJECTION };
        match sabotage {
            Some(Sabotage::EjectionsDoNotGrow) => policy.max_time = policy.base_time,
            Some(Sabotage::EjectionShareIgnored) => policy.max_percent = 100,
            _ => {}
        }
        let panic_threshold = if sabotage == Some(Sabotage::PanicIgnored) { 0 } else { bounds.panic_threshold };
        let group = Group { members: 0..backends as u32, outliers: Some(policy), panic_threshold };
        let monitor = Monitor::new(vec![group], &vec![None; backends], now, &mut || 0);
        Self { monitor, sabotage, outcomes: vec![(Outcomes::default(), 0); backends] }
    }

    /// Whether picks leave a backend out.
    pub fn leaves_out(&self, backend: usize) -> bool {
        let ejected = self.monitor.member(MemberId(backend as u32)).state() == HealthState::Ejected;
        ejected && !self.monitor.is_panic(GroupId(0)) && self.sabotage != Some(Sabotage::VerdictsUnheard)
    }

    /// What an attempt says of its backend.
    pub fn note(&mut self, backend: usize, good: bool, now: Instant) {
        let misplaced = !good && self.sabotage == Some(Sabotage::FailuresMisplaced);
        let backend = if misplaced { (backend + 1) % self.outcomes.len() } else { backend };
        let (outcomes, streak) = &mut self.outcomes[backend];
        match good {
            true => (outcomes.good, *streak) = (outcomes.good + 1, 0),
            false if self.sabotage == Some(Sabotage::FailuresUnheard) => {}
            false => (outcomes.bad, *streak) = (outcomes.bad + 1, *streak + 1),
        }
        if *streak >= EJECTION.consecutive {
            *streak = 0;
            self.monitor.failing(MemberId(backend as u32), now);
        }
    }

    /// When time alone does something.
    pub fn deadline(&self) -> Option<Instant> {
        self.monitor.deadline().filter(|_| self.sabotage != Some(Sabotage::EjectionNeverEnds))
    }

    /// Time passed.
    pub fn poll(&mut self, now: Instant) {
        self.monitor.poll(now, &mut || 0);
        while let Some(order) = self.monitor.next_order() {
            let Order::Count(id) = order else { unreachable!("nobody is probed: {order:?}") };
            let totals: Vec<Outcomes> = self.outcomes.iter().map(|(outcomes, _)| *outcomes).collect();
            self.monitor.counted(id, &totals, now);
        }
    }

    /// What has changed; asked until nothing has.
    pub fn next_change(&mut self) -> Option<Change> {
        while let Some(news) = self.monitor.next_news() {
            if let News::Changed(MemberId(id), change) = news {
                self.monitor.check_invariants();
                // What failed before says nothing of what it is now.
                self.outcomes[id as usize].1 = 0;
                return Some(Change { backend: id as usize, ejected: change.ejected_for.is_some() });
            }
        }
        None
    }
}
