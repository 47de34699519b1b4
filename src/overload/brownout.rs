//! When the process has too much to do for too long, only its core routes are served, until it would have little to do again.
//!
//! ```text
//!            pressure at `enter` or more, for `enter_after`
//! everything ────────────────────────────────────────────▶ core routes only
//!     ▲                                                          │
//!     └──────── pressure below `leave`, for `leave_after` ───────┘
//! ```
//! While it lasts, what is refused makes no pressure. So the pressure that counts then is an estimate: what there would be if
//! all that asked had been let in ([`demanded`]). Otherwise refusing would end its own cause, and the process would go to and fro.

use std::time::{Duration, Instant};

/// The rules of a brownout. Pressure is in percent of what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrownoutPolicy {
    /// It begins at this pressure.
    pub enter: u32,
    /// It ends below this one; less than `enter`.
    pub leave: u32,
    /// Once the pressure has been there for so long.
    pub enter_after: Duration,
    /// The same for the end.
    pub leave_after: Duration,
}

/// Whether there is a brownout.
#[derive(Clone, Debug)]
pub struct Brownout {
    policy: BrownoutPolicy,
    active: bool,
    /// Since when the pressure speaks for the other state without a break.
    since: Option<Instant>,
}

/// What happened to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrownoutChange {
    /// Only core routes are served now.
    Entered,
    /// Everything is.
    Left,
}

impl Brownout {
    /// There is none.
    #[must_use]
    pub fn new(policy: BrownoutPolicy) -> Self {
        Self { policy, active: false, since: None }
    }

    /// Whether only core routes are served.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Takes the pressure of this moment, as it would be without the brownout.
    pub fn observe(&mut self, pressure: u32, now: Instant) -> Option<BrownoutChange> {
        let (speaks, after) = match self.active {
            false => (pressure >= self.policy.enter, self.policy.enter_after),
            true => (pressure < self.policy.leave, self.policy.leave_after),
        };
        if !speaks {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) < after {
            return None;
        }
        self.since = None;
        self.active = !self.active;
        Some(if self.active { BrownoutChange::Entered } else { BrownoutChange::Left })
    }
}

/// A part in percent, rounded down; of nothing there is none.
#[must_use]
pub fn percent(part: u64, whole: u64) -> u32 {
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    u32::try_from(percent).unwrap_or(u32::MAX)
}

/// The pressure if `shed` of the `asked` requests had not been refused: in proportion.
#[must_use]
pub fn demanded(pressure: u32, asked: u64, shed: u64) -> u32 {
    if shed == 0 {
        return pressure;
    }
    let let_in = asked.saturating_sub(shed);
    let demanded = u128::from(pressure) * u128::from(let_in + shed) / u128::from(let_in.max(1));
    u32::try_from(demanded).unwrap_or(u32::MAX)
}

/// Whether the process holds more memory than it should. A sixteenth less than the limit ends it.
#[derive(Clone, Copy, Debug)]
pub struct MemoryGate {
    limit: u64,
    over: bool,
}

impl MemoryGate {
    /// Below the limit, in bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { limit, over: false }
    }

    /// Takes what is held now. `true`: it is too much.
    pub fn observe(&mut self, bytes: u64) -> bool {
        let limit = if self.over { self.limit - self.limit / 16 } else { self.limit };
        self.over = bytes >= limit;
        self.over
    }

    /// What is held, in percent of the limit.
    #[must_use]
    pub fn pressure(&self, bytes: u64) -> u32 {
        percent(bytes, self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(250);
    const POLICY: BrownoutPolicy = BrownoutPolicy {
        enter: 90,
        leave: 70,
        enter_after: Duration::from_secs(2),
        leave_after: Duration::from_secs(10),
    };

    /// Changes with their ticks, for so many ticks of a pressure.
    fn run(pressures: impl IntoIterator<Item = u32>) -> Vec<(usize, BrownoutChange)> {
        let (start, mut brownout) = (Instant::now(), Brownout::new(POLICY));
        let observed = pressures.into_iter().enumerate();
        observed
            .filter_map(|(at, pressure)| Some((at, brownout.observe(pressure, start + TICK * at as u32)?)))
            .collect()
    }

    #[test]
    fn it_begins_and_ends_after_its_times() {
        let pressures = [50; 4].into_iter().chain([90; 20]).chain([69; 60]);
        assert_eq!(run(pressures), [(4 + 8, BrownoutChange::Entered), (24 + 40, BrownoutChange::Left)]);
    }

    #[test]
    fn a_break_begins_the_wait_anew() {
        let spikes = (0..1_000).map(|at| if at % 8 == 0 { 89 } else { 200 });
        assert_eq!(run(spikes), []);
        let dips = [100; 9].into_iter().chain((0..1_000).map(|at| if at % 40 == 39 { 70 } else { 0 }));
        assert_eq!(run(dips), [(8, BrownoutChange::Entered)]);
    }

    /// Whatever the pressure does, changes are as far apart as the times say.
    #[test]
    fn it_never_goes_to_and_fro() {
        for seed in 1..=200_u64 {
            let mut state = seed;
            let mut pressure = 80_i64;
            let walk = (0..4_000).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                pressure = (pressure + (state >> 59) as i64 - 15).clamp(0, 160);
                pressure as u32
            });
            let changes = run(walk);
            for pair in changes.windows(2) {
                let least = if pair[1].1 == BrownoutChange::Left { 40 } else { 8 };
                assert!(pair[0].1 != pair[1].1 && pair[1].0 - pair[0].0 >= least, "seed {seed}: {pair:?}");
            }
        }
    }

    /// What clients ask for in each tick, of core routes and of others, and a process that can do a hundred. `estimated`:
    /// whether what is refused counts.
    fn feedback(demand: impl Fn(u64) -> (u64, u64), ticks: u64, estimated: bool) -> Vec<BrownoutChange> {
        let (start, mut brownout) = (Instant::now(), Brownout::new(POLICY));
        let tick = |tick| {
            let (core, others) = demand(tick);
            let shed = if brownout.is_active() { others } else { 0 };
            let pressure = percent((core + others - shed).min(100), 100);
            let pressure = if estimated { demanded(pressure, core + others, shed) } else { pressure };
            brownout.observe(pressure, start + TICK * tick as u32)
        };
        (0..ticks).filter_map(tick).collect()
    }

    /// Ten minutes of too much, of which a third is of core routes, then as much as before: one beginning, one end.
    #[test]
    fn what_it_refuses_does_not_end_it() {
        let demand = |tick| if (400..2_800).contains(&tick) { (50, 100) } else { (20, 30) };
        assert_eq!(feedback(demand, 4_000, true), [BrownoutChange::Entered, BrownoutChange::Left]);
    }

    #[test]
    fn sabotage_what_is_refused_is_not_counted() {
        let demand = |tick| if (400..2_800).contains(&tick) { (50, 100) } else { (20, 30) };
        let changes = feedback(demand, 4_000, false);
        assert!(changes.len() > 20, "it goes to and fro: {}", changes.len());
    }

    #[test]
    fn demand_is_in_proportion_and_nothing_is_nothing() {
        assert_eq!((demanded(50, 0, 0), demanded(50, 100, 0), demanded(50, 100, 50)), (50, 50, 100));
        assert_eq!((demanded(1, 100, 100), demanded(0, 100, 100)), (100, 0));
        assert_eq!(demanded(u32::MAX, u64::MAX, u64::MAX - 1), u32::MAX);
        assert_eq!((percent(1, 3), percent(5, 0), percent(u64::MAX, 1)), (33, 500, u32::MAX));
    }

    #[test]
    fn memory_has_a_margin() {
        let mut gate = MemoryGate::new(1_600);
        let over = [1_599, 1_600, 1_599, 1_500, 1_499, 1_599, 1_600].map(|bytes| gate.observe(bytes));
        assert_eq!(over, [false, true, true, true, false, false, true]);
        assert_eq!(gate.pressure(800), 50);
        let mut none = MemoryGate::new(0);
        assert!(none.observe(0), "of nothing everything is too much");
    }
}
