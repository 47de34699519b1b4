//! A backend that fails time after time is not asked for a while: its requests go elsewhere, or are refused at once instead of
//! after a timeout.
//!
//! ```text
//!          failures in a row                    after a while
//! Closed ────────────────────▶ Open ───────────────────────────▶ HalfOpen
//!    ▲                          ▲                                   │ │
//!    │                          └────────── one of them fails ──────┘ │
//!    └───────────────── so many trials in a row succeed ──────────────┘
//! ```
//! A pass is taken for each attempt and always comes back, with what the attempt said of the backend or with nothing. What
//! began before the state changed says nothing of the state it ends in.

use std::time::{Duration, Instant};

/// The rules of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Failures in a row that open it.
    pub failures: u32,
    /// How long it stays open.
    pub open_for: Duration,
    /// Trials at once while it is half open, and successes in a row that close it.
    pub trials: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { out: u32, successes: u32 },
}

/// The breaker of one backend on one worker.
#[derive(Clone, Debug)]
pub struct Breaker {
    policy: BreakerPolicy,
    state: State,
    /// Counts the changes of state.
    epoch: u32,
}

/// The permission for one attempt; goes back by [`Breaker::give_back`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Pass {
    epoch: u32,
}

/// What a breaker has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It lets nothing through.
    Opened,
    /// It lets a few attempts through, to see.
    HalfOpened,
    /// It lets everything through.
    Closed,
}

impl Breaker {
    /// A closed one.
    #[must_use]
    pub fn new(policy: BreakerPolicy) -> Self {
        Self { policy, state: State::Closed { failures: 0 }, epoch: 0 }
    }

    /// Whether an attempt may be made now.
    #[inline]
    #[must_use]
    pub fn admits(&self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until } => until <= now,
            State::HalfOpen { out, .. } => out < self.policy.trials,
        }
    }

    /// Takes the pass for an attempt that [`Self::admits`] has allowed, and tells what changed by it.
    pub fn take(&mut self, now: Instant) -> (Pass, Option<Change>) {
        let mut change = None;
        if let State::Open { until } = self.state
            && until <= now
        {
            change = Some(self.become_state(State::HalfOpen { out: 0, successes: 0 }, Change::HalfOpened));
        }
        if let State::HalfOpen { out, .. } = &mut self.state {
            *out += 1;
        }
        (Pass { epoch: self.epoch }, change)
    }

    /// The attempt is over. `good`: what it said of the backend; `None`: nothing, because the cause lay elsewhere.
    pub fn give_back(&mut self, pass: Pass, good: Option<bool>, now: Instant) -> Option<Change> {
        if pass.epoch != self.epoch {
            return None;
        }
        match &mut self.state {
            State::Closed { failures } => match good {
                Some(true) => *failures = 0,
                Some(false) => {
                    *failures += 1;
                    if *failures >= self.policy.failures {
                        return Some(self.open(now));
                    }
                }
                None => {}
            },
            State::HalfOpen { out, successes } => {
                *out -= 1;
                match good {
                    Some(true) => {
                        *successes += 1;
                        if *successes >= self.policy.trials {
                            return Some(self.become_state(State::Closed { failures: 0 }, Change::Closed));
                        }
                    }
                    Some(false) => return Some(self.open(now)),
                    None => {}
                }
            }
            // Nothing is let through, so nothing of this epoch comes back.
            State::Open { .. } => {}
        }
        None
    }

    fn open(&mut self, now: Instant) -> Change {
        self.become_state(State::Open { until: now + self.policy.open_for }, Change::Opened)
    }

    fn become_state(&mut self, state: State, change: Change) -> Change {
        self.state = state;
        self.epoch = self.epoch.wrapping_add(1);
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const POLICY: BreakerPolicy = BreakerPolicy { failures: 3, open_for: Duration::from_secs(5), trials: 2 };

    /// Makes an attempt at once, if it is allowed.
    fn attempt(breaker: &mut Breaker, good: Option<bool>, now: Instant) -> Vec<Change> {
        if !breaker.admits(now) {
            return vec![];
        }
        let (pass, first) = breaker.take(now);
        first.into_iter().chain(breaker.give_back(pass, good, now)).collect()
    }

    #[test]
    fn failures_in_a_row_open_it_and_successes_close_it() {
        let (now, mut breaker) = (Instant::now(), Breaker::new(POLICY));
        for good in [Some(false), Some(false), Some(true), Some(false), Some(false), None] {
            assert_eq!(attempt(&mut breaker, good, now), []);
        }
        assert_eq!(attempt(&mut breaker, Some(false), now), [Change::Opened]);
        assert!(!breaker.admits(now) && !breaker.admits(now + 4 * SECOND));
        let later = now + 5 * SECOND;
        assert_eq!(attempt(&mut breaker, Some(true), later), [Change::HalfOpened]);
        assert_eq!(attempt(&mut breaker, Some(true), later), [Change::Closed]);
        // Failures of before are forgotten.
        assert_eq!(attempt(&mut breaker, Some(false), later), []);
        assert!(breaker.admits(later));
    }

    #[test]
    fn a_trial_that_fails_opens_it_again() {
        let (now, mut breaker) = (Instant::now(), Breaker::new(POLICY));
        (0..3).for_each(|_| drop(attempt(&mut breaker, Some(false), now)));
        let later = now + 5 * SECOND;
        assert_eq!(attempt(&mut breaker, Some(false), later), [Change::HalfOpened, Change::Opened]);
        assert!(!breaker.admits(later + 4 * SECOND) && breaker.admits(later + 5 * SECOND));
    }

    #[test]
    fn trials_are_few_and_their_passes_come_back_whatever_they_say() {
        let (now, mut breaker) = (Instant::now(), Breaker::new(POLICY));
        (0..3).for_each(|_| drop(attempt(&mut breaker, Some(false), now)));
        let later = now + 5 * SECOND;
        let (one, _) = breaker.take(later);
        let (two, _) = breaker.take(later);
        assert!(!breaker.admits(later) && !breaker.admits(later + 100 * SECOND));
        assert_eq!(breaker.give_back(one, None, later), None);
        assert!(breaker.admits(later));
        assert_eq!(breaker.give_back(two, None, later), None);
        // For ever neither good nor bad: it goes on trying, two at a time.
        for _ in 0..100 {
            assert_eq!(attempt(&mut breaker, None, later), []);
        }
        assert!(breaker.admits(later));
    }

    #[test]
    fn what_began_earlier_says_nothing_of_what_it_has_become() {
        let (now, mut breaker) = (Instant::now(), Breaker::new(POLICY));
        let (slow, _) = breaker.take(now);
        (0..3).for_each(|_| drop(attempt(&mut breaker, Some(false), now)));
        assert_eq!(breaker.give_back(slow, Some(true), now), None);
        assert!(!breaker.admits(now));
        let later = now + 5 * SECOND;
        let (trial, _) = breaker.take(later);
        let (failing, _) = breaker.take(later);
        assert_eq!(breaker.give_back(failing, Some(false), later), Some(Change::Opened));
        assert_eq!(breaker.give_back(trial, Some(false), later + 6 * SECOND), None);
        assert!(breaker.admits(later + 6 * SECOND));
    }

    #[test]
    fn it_never_sticks_and_never_lets_more_than_its_trials_through() {
        let (mut now, mut random) = (Instant::now(), 7_u64);
        let mut breaker = Breaker::new(POLICY);
        let mut out = Vec::new();
        for _ in 0..50_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            now += Duration::from_millis(random >> 55);
            if random >> 40 & 1 == 0 && breaker.admits(now) {
                out.push(breaker.take(now).0);
            } else if !out.is_empty() {
                let pass = out.swap_remove((random >> 20) as usize % out.len());
                let good = [Some(true), Some(false), Some(false), None][(random >> 33 & 3) as usize];
                breaker.give_back(pass, good, now);
            }
            let of_now = out.iter().filter(|pass| pass.epoch == breaker.epoch).count();
            match breaker.state {
                State::HalfOpen { out, .. } => assert!(out as usize == of_now && out <= POLICY.trials),
                State::Open { until } => assert!(until <= now + POLICY.open_for),
                State::Closed { failures } => assert!(failures < POLICY.failures),
            }
        }
        for pass in out {
            breaker.give_back(pass, None, now);
        }
        assert!(breaker.admits(now + POLICY.open_for), "it is tried again, whatever came before");
    }
}
