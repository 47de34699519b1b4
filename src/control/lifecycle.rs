//! The life of the process as a state machine: what starts, serves, drains and ends, and what signals and workers
//! change about it. Values in, orders out; it reads no clock and owns no thread.
//!
//! ```text
//! Starting ──all workers up──▶ Ready ──TERM, INT, order──▶ Draining ──all workers ended──▶ Over
//!    │  └──TERM, INT──▶ Draining        └──a worker died──▶   │  └──TERM, INT again──▶ Stopping ──▶ Over
//!    └──a worker failed──▶ Stopping                           └──the bound passed──▶ Stopping ──time──▶ Over
//! ```

use std::time::{Duration, Instant};

/// Where the process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Workers are being started, and names resolved.
    Starting,
    /// All of them serve.
    Ready,
    /// No new work is taken; what runs may finish until then.
    Draining {
        /// The bound.
        until: Instant,
    },
    /// Workers were told to end now; one that has not by then is given up.
    Stopping {
        /// The bound.
        until: Instant,
    },
    /// No worker runs any more.
    Over,
}

impl Phase {
    /// The word `/ready` answers with.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining { .. } => "draining",
            Self::Stopping { .. } | Self::Over => "stopping",
        }
    }
}

/// What the workers are to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Nothing.
    None,
    /// Finish what runs, until then.
    Drain {
        /// The bound.
        until: Instant,
    },
    /// End now.
    Stop,
}

/// After a stop the workers get so long to send their last packets before control gives up on them.
pub const STOP_TIME: Duration = Duration::from_secs(5);

/// The state machine.
#[derive(Debug)]
pub struct Lifecycle {
    phase: Phase,
    /// Workers that were started and have neither failed nor ended.
    alive: usize,
    /// Workers not yet known to serve.
    awaited: usize,
    /// Names of backends are still being resolved for the first time.
    names_awaited: bool,
    drain_time: Duration,
    /// A worker ended without being asked.
    crashed: bool,
}

impl Lifecycle {
    /// `workers` are being started.
    pub fn new(workers: usize, drain_time: Duration) -> Self {
        Self {
            phase: Phase::Starting,
            alive: workers,
            awaited: workers,
            names_awaited: false,
            drain_time,
            crashed: false,
        }
    }

    /// There are names to resolve first: [`Self::names_known`] follows.
    pub fn await_names(&mut self) {
        self.names_awaited = true;
    }

    /// Every name is resolved, or has had its time.
    pub fn names_known(&mut self) {
        self.names_awaited = false;
        self.become_ready();
    }

    /// Where the process stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether a worker ended unasked.
    pub fn crashed(&self) -> bool {
        self.crashed
    }

    /// A worker serves.
    pub fn worker_up(&mut self) {
        self.awaited = self.awaited.saturating_sub(1);
        self.become_ready();
    }

    fn become_ready(&mut self) {
        if self.awaited == 0 && !self.names_awaited && self.phase == Phase::Starting {
            self.phase = Phase::Ready;
        }
    }

    /// A worker's thread ended.
    pub fn worker_ended(&mut self, now: Instant) -> Order {
        self.alive = self.alive.saturating_sub(1);
        let order = match self.phase {
            // One worker less is not what was configured: the others finish their work, and a supervisor starts anew.
            Phase::Starting => {
                self.crashed = true;
                self.stop(now)
            }
            Phase::Ready => {
                self.crashed = true;
                self.drain(now)
            }
            Phase::Draining { .. } | Phase::Stopping { .. } | Phase::Over => Order::None,
        };
        if self.alive == 0 {
            self.phase = Phase::Over;
        }
        order
    }

    /// TERM, INT or the order to end: the first drains, the next ends at once.
    pub fn end(&mut self, now: Instant) -> Order {
        match self.phase {
            Phase::Starting | Phase::Ready => self.drain(now),
            Phase::Draining { .. } => self.stop(now),
            Phase::Stopping { .. } | Phase::Over => Order::None,
        }
    }

    /// When [`Self::tick`] has something to say. Workers keep the drain's bound themselves; control only gives up on
    /// one that does not.
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Draining { until } => Some(until + STOP_TIME),
            Phase::Stopping { until } => Some(until),
            Phase::Starting | Phase::Ready | Phase::Over => None,
        }
    }

    /// Time passed.
    pub fn tick(&mut self, now: Instant) -> Order {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return Order::None;
        }
        if matches!(self.phase, Phase::Draining { .. }) {
            return self.stop(now);
        }
        self.crashed = true;
        self.phase = Phase::Over;
        Order::None
    }

    fn drain(&mut self, now: Instant) -> Order {
        let until = now + self.drain_time;
        self.phase = Phase::Draining { until };
        Order::Drain { until }
    }

    fn stop(&mut self, now: Instant) -> Order {
        let until = now + STOP_TIME;
        self.phase = Phase::Stopping { until };
        Order::Stop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN: Duration = Duration::from_secs(30);

    #[test]
    fn ready_when_the_last_worker_serves() {
        let mut life = Lifecycle::new(2, DRAIN);
        life.worker_up();
        assert_eq!(life.phase(), Phase::Starting);
        life.worker_up();
        assert_eq!(life.phase(), Phase::Ready);
    }

    #[test]
    fn ready_waits_for_names_and_workers_whichever_comes_last() {
        for names_first in [false, true] {
            let mut life = Lifecycle::new(1, DRAIN);
            life.await_names();
            if names_first {
                life.names_known()
            } else {
                life.worker_up()
            }
            assert_eq!(life.phase(), Phase::Starting);
            if names_first {
                life.worker_up()
            } else {
                life.names_known()
            }
            assert_eq!(life.phase(), Phase::Ready);
        }
        let mut life = Lifecycle::new(1, DRAIN);
        life.await_names();
        life.worker_up();
        life.end(Instant::now());
        life.names_known();
        assert_eq!(life.phase().word(), "draining");
    }

    #[test]
    fn the_first_signal_drains_and_the_second_stops() {
        let now = Instant::now();
        let mut life = Lifecycle::new(1, DRAIN);
        life.worker_up();
        assert_eq!(life.end(now), Order::Drain { until: now + DRAIN });
        assert_eq!(life.end(now), Order::Stop);
        assert_eq!(life.end(now), Order::None);
        assert_eq!(life.worker_ended(now), Order::None);
        assert_eq!(life.phase(), Phase::Over);
        assert!(!life.crashed());
    }

    #[test]
    fn a_worker_that_dies_drains_the_others() {
        let now = Instant::now();
        let mut life = Lifecycle::new(2, DRAIN);
        life.worker_up();
        life.worker_up();
        assert_eq!(life.worker_ended(now), Order::Drain { until: now + DRAIN });
        assert_eq!(life.worker_ended(now), Order::None);
        assert_eq!(life.phase(), Phase::Over);
        assert!(life.crashed());
    }

    #[test]
    fn a_worker_that_cannot_start_stops_all() {
        let now = Instant::now();
        let mut life = Lifecycle::new(2, DRAIN);
        life.worker_up();
        assert_eq!(life.worker_ended(now), Order::Stop);
        assert_eq!(life.phase().word(), "stopping");
        life.worker_ended(now);
        assert_eq!(life.phase(), Phase::Over);
    }

    #[test]
    fn a_worker_that_overstays_the_drain_is_stopped() {
        let now = Instant::now();
        let mut life = Lifecycle::new(1, DRAIN);
        life.worker_up();
        life.end(now);
        assert_eq!(life.tick(now + DRAIN), Order::None);
        assert_eq!(life.tick(now + DRAIN + STOP_TIME), Order::Stop);
        let late = life.deadline().unwrap();
        assert_eq!(life.tick(late), Order::None);
        assert_eq!(life.phase(), Phase::Over);
        assert!(life.crashed());
    }

    #[test]
    fn a_signal_during_start_drains() {
        let now = Instant::now();
        let mut life = Lifecycle::new(1, DRAIN);
        assert_eq!(life.end(now), Order::Drain { until: now + DRAIN });
        life.worker_up();
        assert_eq!(life.phase().word(), "draining");
    }
}
