//! The state of one backend.
//!
//! ```text
//!              so many probes in a row fail
//! Healthy ──────────────────────────────────────────────▶ Unhealthy
//!  ▲ ▲ │                                                    │ ▲
//!  │ │ └── requests fail ──▶ Ejected ── probes fail ──────────┼─┘
//!  │ └──────── its time is over ──┘                           │
//!  └─────────────── so many probes in a row pass ─────────────┘
//! ```
//! Probes that pass end no ejection: what they ask may be fine where requests fail. Requests say nothing of a backend that is
//! unhealthy, because they are not sent there; those of before are late.

use super::{OutlierPolicy, ProbePolicy};
use crate::telemetry::kinds::{HealthCause, HealthState};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Healthy,
    Unhealthy,
    Ejected { until: Instant },
}

/// One backend.
#[derive(Clone, Debug)]
pub struct Member {
    state: State,
    /// When the state began; `None`: it has been healthy from the start.
    since: Option<Instant>,
    /// Probes in a row that speak against the state.
    /// Invariant: fewer than it takes to change it.
    streak: u32,
    /// Ejections, each of which came before the backend was healthy for the longest ejection's time again.
    ejections: u32,
}

/// What a backend has become, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The cause; it tells the state, too.
    pub cause: HealthCause,
    /// For how long it is ejected.
    pub ejected_for: Option<Duration>,
}

impl Default for Member {
    fn default() -> Self {
        Self::new()
    }
}

impl Member {
    /// A backend that nothing is known of: it is healthy until something else is.
    #[must_use]
    pub fn new() -> Self {
        Self { state: State::Healthy, since: None, streak: 0, ejections: 0 }
    }

    /// The state, in the words of telemetry.
    #[must_use]
    pub fn state(&self) -> HealthState {
        match self.state {
            State::Healthy => HealthState::Healthy,
            State::Unhealthy => HealthState::Unhealthy,
            State::Ejected { .. } => HealthState::Ejected,
        }
    }

    /// When it became what it is; `None`: it has been healthy from the start.
    #[must_use]
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// When its ejection is over, if it is ejected.
    #[must_use]
    pub fn ejected_until(&self) -> Option<Instant> {
        match self.state {
            State::Ejected { until } => Some(until),
            State::Healthy | State::Unhealthy => None,
        }
    }

    /// A probe passed, or did not.
    pub fn probed(&mut self, passed: bool, policy: &ProbePolicy, now: Instant) -> Option<Change> {
        let unhealthy = self.state == State::Unhealthy;
        if passed != unhealthy {
            self.streak = 0;
            return None;
        }
        self.streak += 1;
        let (most, state, cause) = match unhealthy {
            false => (policy.failures, State::Unhealthy, HealthCause::ProbesFailed),
            true => (policy.successes, State::Healthy, HealthCause::ProbesPassed),
        };
        (self.streak >= most).then(|| self.become_state(state, cause, now))
    }

    /// Its requests fail, and it may be ejected.
    pub fn eject(&mut self, cause: HealthCause, policy: &OutlierPolicy, now: Instant) -> Option<Change> {
        debug_assert_eq!(cause.state(), HealthState::Ejected);
        if self.state != State::Healthy {
            return None;
        }
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= policy.max_time) {
            self.ejections = 0;
        }
        let doubled = policy.base_time.saturating_mul(2_u32.saturating_pow(self.ejections));
        let time = doubled.min(policy.max_time);
        self.ejections = self.ejections.saturating_add(1);
        let change = self.become_state(State::Ejected { until: now + time }, cause, now);
        Some(Change { ejected_for: Some(time), ..change })
    }

    /// Time passed.
    pub fn tick(&mut self, now: Instant) -> Option<Change> {
        let over = self.ejected_until().is_some_and(|until| until <= now);
        over.then(|| self.become_state(State::Healthy, HealthCause::EjectionOver, now))
    }

    fn become_state(&mut self, state: State, cause: HealthCause, now: Instant) -> Change {
        if (self.state == State::Unhealthy) != (state == State::Unhealthy) {
            // Ejections come and go, and probes that failed go on counting.
            self.streak = 0;
        }
        self.state = state;
        self.since = Some(now);
        debug_assert_eq!(self.state(), cause.state());
        Change { cause, ejected_for: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use HealthCause::{ConsecutiveFailures, EjectionOver, ProbesFailed, ProbesPassed};
    use HealthState::{Ejected, Healthy, Unhealthy};

    const SECOND: Duration = Duration::from_secs(1);
    const PROBES: ProbePolicy = ProbePolicy { interval: SECOND, timeout: SECOND, failures: 3, successes: 2 };
    const OUTLIERS: OutlierPolicy = OutlierPolicy {
        consecutive: 5,
        percent: None,
        requests: 1,
        interval: SECOND,
        base_time: Duration::from_secs(10),
        max_time: Duration::from_secs(60),
        max_percent: 50,
    };

    fn probes(member: &mut Member, results: &str, now: Instant) -> Vec<HealthCause> {
        let changes = results.chars().filter_map(|one| member.probed(one == '+', &PROBES, now));
        changes.map(|change| change.cause).collect()
    }

    #[test]
    fn only_probes_in_a_row_change_it() {
        let (mut member, now) = (Member::new(), Instant::now());
        assert_eq!(probes(&mut member, "--+--+--+", now), []);
        assert_eq!(probes(&mut member, "---", now), [ProbesFailed]);
        assert_eq!(member.state(), Unhealthy);
        assert_eq!(probes(&mut member, "+-+-+-", now), []);
        assert_eq!(probes(&mut member, "++", now), [ProbesPassed]);
        assert_eq!(member.state(), Healthy);
        // What was counted before counts no more.
        assert_eq!(probes(&mut member, "--", now), []);
    }

    #[test]
    fn an_ejection_ends_by_itself_and_grows_until_it_is_forgotten() {
        let (mut member, mut now) = (Member::new(), Instant::now());
        let mut times = Vec::new();
        for _ in 0..5 {
            let change = member.eject(ConsecutiveFailures, &OUTLIERS, now).expect("healthy");
            let time = change.ejected_for.expect("ejected");
            times.push(time.as_secs());
            assert_eq!((member.state(), member.ejected_until()), (Ejected, Some(now + time)));
            assert_eq!(member.since(), Some(now));
            assert_eq!(member.tick(now + time - SECOND), None);
            now += time;
            assert_eq!(member.tick(now).map(|change| change.cause), Some(EjectionOver));
            now += SECOND;
        }
        assert_eq!(times, [10, 20, 40, 60, 60]);
        now += 59 * SECOND;
        let change = member.eject(ConsecutiveFailures, &OUTLIERS, now).expect("healthy");
        assert_eq!(change.ejected_for, Some(10 * SECOND));
    }

    #[test]
    fn who_is_out_is_not_ejected() {
        let (mut member, now) = (Member::new(), Instant::now());
        member.eject(ConsecutiveFailures, &OUTLIERS, now);
        assert_eq!(member.eject(ConsecutiveFailures, &OUTLIERS, now), None);
        let mut member = Member::new();
        probes(&mut member, "---", now);
        assert_eq!(member.eject(ConsecutiveFailures, &OUTLIERS, now), None);
    }

    #[test]
    fn probes_end_no_ejection_but_may_make_it_more() {
        let (mut member, now) = (Member::new(), Instant::now());
        member.eject(ConsecutiveFailures, &OUTLIERS, now);
        assert_eq!(probes(&mut member, "+++++", now), []);
        assert_eq!(probes(&mut member, "---", now), [ProbesFailed]);
        // Its time passes without a word: probes have the last one.
        assert_eq!(member.tick(now + 100 * SECOND), None);
        assert_eq!(probes(&mut member, "++", now), [ProbesPassed]);
    }

    #[test]
    fn ejections_take_nothing_from_what_probes_found_out() {
        let (mut member, now) = (Member::new(), Instant::now());
        assert_eq!(probes(&mut member, "-", now), []);
        member.eject(ConsecutiveFailures, &OUTLIERS, now);
        assert_eq!(probes(&mut member, "-", now), []);
        assert!(member.tick(now + 10 * SECOND).is_some());
        assert_eq!(probes(&mut member, "-", now), [ProbesFailed]);
    }

    #[test]
    fn the_diagram_is_the_table() {
        let now = Instant::now();
        let make = |state: HealthState| {
            let mut member = Member::new();
            match state {
                Healthy => {}
                Unhealthy => drop(probes(&mut member, "---", now)),
                Ejected => drop(member.eject(ConsecutiveFailures, &OUTLIERS, now)),
            }
            member
        };
        let after = |state, act: &dyn Fn(&mut Member)| {
            let mut member = make(state);
            act(&mut member);
            member.state()
        };
        let fail = |member: &mut Member| drop(probes(member, "---", now));
        let pass = |member: &mut Member| drop(probes(member, "++", now));
        let eject = |member: &mut Member| {
            let _ = member.eject(ConsecutiveFailures, &OUTLIERS, now);
        };
        let wait = |member: &mut Member| {
            let _ = member.tick(now + 100 * SECOND);
        };
        let table = [
            // from, probes fail, probes pass, requests fail, time passes
            (Healthy, [Unhealthy, Healthy, Ejected, Healthy]),
            (Unhealthy, [Unhealthy, Healthy, Unhealthy, Unhealthy]),
            (Ejected, [Unhealthy, Ejected, Ejected, Healthy]),
        ];
        for (from, to) in table {
            assert_eq!(
                [after(from, &fail), after(from, &pass), after(from, &eject), after(from, &wait)],
                to,
                "{from:?}"
            );
        }
    }
}
