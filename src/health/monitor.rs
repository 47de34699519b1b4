//! All backends: when each is probed, which of them may be ejected, and what changed.
//!
//! Each backend is probed by its own times, whatever becomes of the others' probes; only if more than [`limits::PROBES`] are on
//! their way, further ones wait. What is due first is a set in the order of time, so a turn costs what it does, not what is
//! configured.

use super::{Change, Member, OutlierPolicy, ProbePolicy, is_panic};
use crate::limits;
use crate::telemetry::kinds::{HealthCause, HealthState, ProbeResult};
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Draws a number that nobody can foresee.
pub type Random<'a> = &'a mut dyn FnMut() -> u64;

/// The position of a backend, over all groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u32);

/// The position of a group: an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

/// Backends that stand in for each other.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its members; those of one group stand together.
    pub members: Range<u32>,
    /// When one of them is ejected; `None`: never.
    pub outliers: Option<OutlierPolicy>,
    /// Percentage of healthy members below which health is disregarded; 0: never.
    pub panic_threshold: u32,
}

/// How many requests spoke for a backend and against it, from the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// For it.
    pub good: u64,
    /// Against it.
    pub bad: u64,
}

/// What the shell has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Probe this one, and tell by [`Monitor::probed`] what came of it.
    Probe(MemberId),
    /// Its probe has taken too long, and was judged: drop it.
    Drop(MemberId),
    /// Tell what became of the requests of its members, by [`Monitor::counted`].
    Count(GroupId),
}

/// What there is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// A backend's health changed.
    Changed(MemberId, Change),
    /// A probe was judged.
    Probed(MemberId, ProbeResult),
    /// A backend was not ejected, because enough others are out.
    Withheld(MemberId, HealthCause),
    /// Health is disregarded from now on, or no longer.
    Panic(GroupId, bool),
}

/// What happens at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Probe(MemberId),
    Late(MemberId),
    Return(MemberId),
    Count(GroupId),
}

/// Where the probes of a backend stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probing {
    /// The next one waits for its time, or for a place.
    Waiting,
    Running {
        began: Instant,
    },
}

#[derive(Debug)]
struct Watched {
    member: Member,
    group: GroupId,
    probes: Option<ProbePolicy>,
    probing: Probing,
    /// What was counted when its group was last looked at.
    seen: Outcomes,
}

/// All backends.
#[derive(Debug)]
pub struct Monitor {
    groups: Vec<Group>,
    panics: Vec<bool>,
    watched: Vec<Watched>,
    /// One entry for each member's next probe or the end of the running one, each ejection, and each group that is counted.
    due: BTreeSet<(Instant, Due)>,
    /// Members whose probe found no place. Invariant: each once, and none unless [`limits::PROBES`] run.
    waiting: VecDeque<MemberId>,
    running: usize,
    orders: VecDeque<Order>,
    news: VecDeque<News>,
}

impl Monitor {
    /// Everybody healthy. `probes` has an entry for each member of `groups`.
    pub fn new(groups: Vec<Group>, probes: &[Option<ProbePolicy>], now: Instant, random: Random<'_>) -> Self {
        let mut watched: Vec<Watched> = Vec::with_capacity(probes.len());
        let mut due = BTreeSet::new();
        for (at, group) in groups.iter().enumerate() {
            let id = GroupId(at as u32);
            debug_assert_eq!(group.members.start as usize, watched.len());
            for member in group.members.clone() {
                let probes = probes[member as usize];
                if let Some(policy) = probes {
                    let spread = part(policy.interval.min(limits::PROBE_SPREAD), random);
                    due.insert((now + spread, Due::Probe(MemberId(member))));
                }
                let (probing, seen) = (Probing::Waiting, Outcomes::default());
                watched.push(Watched { member: Member::new(), group: id, probes, probing, seen });
            }
            if let Some(outliers) = &group.outliers {
                due.insert((now + outliers.interval, Due::Count(id)));
            }
        }
        Self {
            panics: vec![false; groups.len()],
            groups,
            watched,
            due,
            waiting: VecDeque::new(),
            running: 0,
            orders: VecDeque::new(),
            news: VecDeque::new(),
        }
    }

    /// When [`Self::poll`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The next thing to do; asked until there is none.
    pub fn next_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// The next thing to tell; asked until there is none.
    pub fn next_news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// How fit a backend is, and since when.
    pub fn member(&self, id: MemberId) -> &Member {
        &self.watched[id.0 as usize].member
    }

    /// Whether health is disregarded in a group.
    pub fn is_panic(&self, id: GroupId) -> bool {
        self.panics[id.0 as usize]
    }

    /// Members that are not healthy.
    pub fn out(&self) -> usize {
        self.watched.iter().filter(|watched| watched.member.state() != HealthState::Healthy).count()
    }

    /// Time passed: begins what is due, and gives up what is late.
    pub fn poll(&mut self, now: Instant, random: Random<'_>) {
        while let Some(&(at, due)) = self.due.first()
            && at <= now
        {
            self.due.pop_first();
            match due {
                Due::Probe(id) => self.begin(id, now),
                Due::Late(id) => self.late(id, at, now, random),
                Due::Return(id) => {
                    let change = self.watched[id.0 as usize].member.tick(now);
                    self.note(id, change);
                }
                Due::Count(id) => {
                    self.orders.push_back(Order::Count(id));
                    if let Some(outliers) = &self.groups[id.0 as usize].outliers {
                        self.due.insert((now + outliers.interval, Due::Count(id)));
                    }
                }
            }
        }
    }

    /// A probe came to its end. What is said of one that does not run is late.
    pub fn probed(&mut self, id: MemberId, result: ProbeResult, now: Instant, random: Random<'_>) {
        let watched = &mut self.watched[id.0 as usize];
        let (Some(policy), Probing::Running { began }) = (watched.probes, watched.probing) else {
            return;
        };
        watched.probing = Probing::Waiting;
        self.due.remove(&(began + policy.timeout, Due::Late(id)));
        let wait = policy.interval * 9 / 10 + part(policy.interval / 5, random);
        self.due.insert(((began + wait).max(now), Due::Probe(id)));
        self.news.push_back(News::Probed(id, result));
        let change = match result {
            ProbeResult::Inconclusive => None,
            result => watched.member.probed(result == ProbeResult::Passed, &policy, now),
        };
        self.note(id, change);
        self.running -= 1;
        if let Some(next) = self.waiting.pop_front() {
            self.begin(next, now);
        }
    }

    /// So many requests in a row have failed that a backend may be ejected.
    pub fn failing(&mut self, id: MemberId, now: Instant) {
        self.eject(id, HealthCause::ConsecutiveFailures, now);
    }

    /// What became of the requests of a group's members, in their order, each counted from the start.
    pub fn counted(&mut self, id: GroupId, outcomes: &[Outcomes], now: Instant) {
        let Group { members, outliers: Some(policy), .. } = &self.groups[id.0 as usize] else {
            return;
        };
        let mut worst: Vec<(u64, MemberId)> = Vec::new();
        for (member, total) in members.clone().zip(outcomes) {
            let seen = std::mem::replace(&mut self.watched[member as usize].seen, *total);
            let (good, bad) = (total.good.saturating_sub(seen.good), total.bad.saturating_sub(seen.bad));
            let requests = good + bad;
            if let Some(percent) = policy.percent
                && requests >= policy.requests.max(1)
                && bad * 100 >= requests * u64::from(percent)
            {
                worst.push((bad * 10_000 / requests, MemberId(member)));
            }
        }
        // Where not all of them may go, the worst go.
        worst.sort_by_key(|(share, member)| (std::cmp::Reverse(*share), *member));
        for (_, member) in worst {
            self.eject(member, HealthCause::FailurePercent, now);
        }
    }

    fn begin(&mut self, id: MemberId, now: Instant) {
        if self.running >= limits::PROBES {
            self.waiting.push_back(id);
            return;
        }
        let watched = &mut self.watched[id.0 as usize];
        if let Some(policy) = watched.probes {
            watched.probing = Probing::Running { began: now };
            self.running += 1;
            self.due.insert((now + policy.timeout, Due::Late(id)));
            self.orders.push_back(Order::Probe(id));
        }
    }

    /// A probe did not end in time, which was at `at`. If we look at it far too late, we were not there to take the answer.
    fn late(&mut self, id: MemberId, at: Instant, now: Instant, random: Random<'_>) {
        let timeout = self.watched[id.0 as usize].probes.map_or(Duration::ZERO, |policy| policy.timeout);
        let ours = now.saturating_duration_since(at) > timeout / 2;
        self.orders.push_back(Order::Drop(id));
        self.probed(id, if ours { ProbeResult::Inconclusive } else { ProbeResult::Timeout }, now, random);
    }

    fn eject(&mut self, id: MemberId, cause: HealthCause, now: Instant) {
        let watched = &self.watched[id.0 as usize];
        let group = &self.groups[watched.group.0 as usize];
        let Some(policy) = group.outliers else {
            return;
        };
        if watched.member.state() != HealthState::Healthy {
            return;
        }
        let out = group.members.len() - self.healthy(group);
        if !policy.permits(group.members.len(), out) {
            self.news.push_back(News::Withheld(id, cause));
            return;
        }
        let member = &mut self.watched[id.0 as usize].member;
        let change = member.eject(cause, &policy, now);
        let until = member.ejected_until();
        self.due.extend(until.map(|until| (until, Due::Return(id))));
        self.note(id, change);
    }

    fn healthy(&self, group: &Group) -> usize {
        let members = &self.watched[group.members.start as usize..group.members.end as usize];
        members.iter().filter(|watched| watched.member.state() == HealthState::Healthy).count()
    }

    /// Tells of a change and of what follows for its group.
    fn note(&mut self, id: MemberId, change: Option<Change>) {
        let Some(change) = change else { return };
        self.news.push_back(News::Changed(id, change));
        let at = self.watched[id.0 as usize].group;
        let group = &self.groups[at.0 as usize];
        let panic = is_panic(group.members.len(), self.healthy(group), group.panic_threshold);
        if std::mem::replace(&mut self.panics[at.0 as usize], panic) != panic {
            self.news.push_back(News::Panic(at, panic));
        }
    }

    /// Panics unless times, places and shares are what they are to be.
    pub fn check_invariants(&self) {
        let running = |watched: &Watched| matches!(watched.probing, Probing::Running { .. });
        assert_eq!(self.watched.iter().filter(|watched| running(watched)).count(), self.running, "probes that run");
        assert!(self.running <= limits::PROBES && (self.waiting.is_empty() || self.running == limits::PROBES));
        for (at, watched) in self.watched.iter().enumerate() {
            let id = MemberId(at as u32);
            let of = |wanted: Due| self.due.iter().filter(|(_, due)| *due == wanted).count();
            let waits = self.waiting.iter().filter(|waiting| **waiting == id).count();
            let entries = of(Due::Probe(id)) + of(Due::Late(id)) + waits;
            assert_eq!(entries, usize::from(watched.probes.is_some()), "{id:?} has one next moment");
            assert_eq!(of(Due::Late(id)), usize::from(running(watched)), "{id:?} is late at one moment");
            // One that became unhealthy may have one that finds nothing any more.
            assert!(watched.member.ejected_until().is_none() || of(Due::Return(id)) >= 1, "{id:?} comes back");
        }
        for (group, panic) in self.groups.iter().zip(&self.panics) {
            let healthy = self.healthy(group);
            assert_eq!(is_panic(group.members.len(), healthy, group.panic_threshold), *panic);
        }
    }
}

/// A random part of a time.
fn part(of: Duration, random: Random<'_>) -> Duration {
    of * (random() % 1024) as u32 / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const PROBES: ProbePolicy =
        ProbePolicy { interval: Duration::from_secs(5), timeout: Duration::from_secs(1), failures: 3, successes: 2 };
    const OUTLIERS: OutlierPolicy = OutlierPolicy {
        consecutive: 5,
        percent: Some(50),
        requests: 10,
        interval: Duration::from_secs(10),
        base_time: Duration::from_secs(10),
        max_time: Duration::from_secs(60),
        max_percent: 50,
    };

    fn monitor(members: u32, probes: Option<ProbePolicy>, now: Instant) -> Monitor {
        let group = Group { members: 0..members, outliers: Some(OUTLIERS), panic_threshold: 0 };
        Monitor::new(vec![group], &vec![probes; members as usize], now, &mut || 512)
    }

    fn orders(monitor: &mut Monitor) -> Vec<Order> {
        std::iter::from_fn(|| monitor.next_order()).collect()
    }

    fn news(monitor: &mut Monitor) -> Vec<News> {
        std::iter::from_fn(|| monitor.next_news()).collect()
    }

    fn states(monitor: &Monitor) -> Vec<HealthState> {
        monitor.watched.iter().map(|watched| watched.member.state()).collect()
    }

    #[test]
    fn a_probe_that_hangs_keeps_no_other_waiting() {
        let now = Instant::now();
        let mut monitor = monitor(3, Some(PROBES), now);
        let start = now + 500 * MS;
        assert_eq!(monitor.deadline(), Some(start));
        monitor.poll(start, &mut || 512);
        assert_eq!(orders(&mut monitor), [0, 1, 2].map(|at| Order::Probe(MemberId(at))));
        // The first one says nothing; the others go on at their own times.
        let mut answered = 0;
        let mut at = start;
        for _ in 0..40 {
            monitor.probed(MemberId(1), ProbeResult::Passed, at, &mut || 512);
            monitor.probed(MemberId(2), ProbeResult::Passed, at, &mut || 512);
            at = monitor.deadline().expect("there is always a next one");
            monitor.poll(at, &mut || 512);
            answered += orders(&mut monitor).iter().filter(|order| **order == Order::Probe(MemberId(1))).count();
            monitor.check_invariants();
        }
        assert!(answered >= 10, "{answered}");
        assert_eq!(states(&monitor), [HealthState::Unhealthy, HealthState::Healthy, HealthState::Healthy]);
    }

    #[test]
    fn the_interval_is_from_beginning_to_beginning_and_never_shorter_than_the_probe() {
        let now = Instant::now();
        let mut monitor = monitor(1, Some(PROBES), now);
        monitor.poll(now + 500 * MS, &mut || 512);
        monitor.probed(MemberId(0), ProbeResult::Passed, now + 900 * MS, &mut || 0);
        assert_eq!(monitor.due.first(), Some(&(now + 5000 * MS, Due::Probe(MemberId(0)))));
        // By chance a tenth more or less.
        monitor.poll(now + 5000 * MS, &mut || 0);
        monitor.probed(MemberId(0), ProbeResult::Passed, now + 5100 * MS, &mut || 1023);
        let next = now + 9500 * MS + 1000 * MS * 1023 / 1024;
        assert!(monitor.due.contains(&(next, Due::Probe(MemberId(0)))));
        let slow = ProbePolicy { timeout: PROBES.interval, ..PROBES };
        let mut monitor = super::tests::monitor(1, Some(slow), now);
        monitor.poll(now + 500 * MS, &mut || 512);
        monitor.poll(now + 5500 * MS, &mut || 0);
        let id = MemberId(0);
        assert_eq!(orders(&mut monitor), [Order::Probe(id), Order::Drop(id), Order::Probe(id)]);
        monitor.check_invariants();
    }

    #[test]
    #[should_panic(expected = "has one next moment")]
    fn sabotage_a_backend_that_nobody_probes_again() {
        let mut monitor = monitor(1, Some(PROBES), Instant::now());
        monitor.due.retain(|(_, due)| *due != Due::Probe(MemberId(0)));
        monitor.check_invariants();
    }

    #[test]
    fn more_than_there_are_places_wait_in_their_order() {
        let now = Instant::now();
        let members = limits::PROBES as u32 + 3;
        let mut monitor = monitor(members, Some(PROBES), now);
        monitor.poll(now + PROBES.interval, &mut || 512);
        let begun = orders(&mut monitor).len();
        assert_eq!((begun, monitor.waiting.len()), (limits::PROBES, 3));
        let late = now + PROBES.interval + 10 * MS;
        monitor.probed(MemberId(7), ProbeResult::Passed, late, &mut || 512);
        assert_eq!(orders(&mut monitor), [Order::Probe(MemberId(limits::PROBES as u32))]);
        assert_eq!(monitor.waiting.len(), 2);
        monitor.check_invariants();
    }

    #[test]
    fn what_we_look_at_too_late_says_nothing() {
        let now = Instant::now();
        let results = [(0, ProbeResult::Timeout), (500, ProbeResult::Timeout), (501, ProbeResult::Inconclusive)];
        for (delay, result) in results {
            let mut monitor = monitor(1, Some(PROBES), now);
            monitor.poll(now + 500 * MS, &mut || 512);
            monitor.poll(now + (1500 + delay) * MS, &mut || 512);
            assert_eq!(news(&mut monitor), [News::Probed(MemberId(0), result)]);
            assert_eq!(orders(&mut monitor), [Order::Probe(MemberId(0)), Order::Drop(MemberId(0))]);
        }
    }

    #[test]
    fn inconclusive_probes_never_change_anything() {
        let mut now = Instant::now();
        let mut monitor = monitor(1, Some(PROBES), now);
        for _ in 0..100 {
            now += 6000 * MS;
            monitor.poll(now, &mut || 512);
            monitor.probed(MemberId(0), ProbeResult::Inconclusive, now, &mut || 512);
        }
        assert_eq!(states(&monitor), [HealthState::Healthy]);
    }

    #[test]
    fn no_more_are_ejected_than_may_be_out() {
        let now = Instant::now();
        let mut monitor = monitor(5, None, now);
        (0..5).for_each(|at| monitor.failing(MemberId(at), now));
        assert_eq!(states(&monitor).iter().filter(|state| **state == HealthState::Ejected).count(), 2);
        let withheld = news(&mut monitor).iter().filter(|news| matches!(news, News::Withheld(..))).count();
        assert_eq!((withheld, monitor.out()), (3, 2));
        // Whom probes took out counts, too.
        let now = Instant::now();
        let mut monitor = super::tests::monitor(4, Some(PROBES), now);
        for round in 1..=3 {
            monitor.poll(now + round * PROBES.interval * 2, &mut || 512);
            monitor.probed(MemberId(3), ProbeResult::Refused, now + round * PROBES.interval * 2, &mut || 512);
        }
        (0..3).for_each(|at| monitor.failing(MemberId(at), now));
        use HealthState::{Ejected, Healthy, Unhealthy};
        assert_eq!(states(&monitor), [Ejected, Healthy, Healthy, Unhealthy]);
    }

    #[test]
    fn one_backend_alone_is_never_ejected() {
        let now = Instant::now();
        let mut monitor = monitor(1, None, now);
        monitor.failing(MemberId(0), now);
        assert_eq!(news(&mut monitor), [News::Withheld(MemberId(0), HealthCause::ConsecutiveFailures)]);
    }

    #[test]
    fn a_share_of_failures_ejects_the_worst_if_there_are_requests_enough() {
        let now = Instant::now();
        let mut monitor = monitor(4, None, now);
        let at = now + OUTLIERS.interval;
        assert_eq!(monitor.deadline(), Some(at));
        monitor.poll(at, &mut || 0);
        assert_eq!(orders(&mut monitor), [Order::Count(GroupId(0))]);
        let totals = |counts: [(u64, u64); 4]| counts.map(|(good, bad)| Outcomes { good, bad });
        let before = totals([(0, 9), (10, 9), (100, 0), (0, 0)]);
        monitor.counted(GroupId(0), &before, at);
        assert_eq!(states(&monitor), [HealthState::Healthy; 4], "too few, too good, none");
        // Only what came since counts: 60 of 100, 20 of 20 and 11 of 20.
        let after = totals([(40, 69), (10, 29), (109, 11), (0, 0)]);
        monitor.counted(GroupId(0), &after, at);
        use HealthState::{Ejected, Healthy};
        assert_eq!(states(&monitor), [Ejected, Ejected, Healthy, Healthy]);
        let told = news(&mut monitor);
        assert_eq!(told[2], News::Withheld(MemberId(2), HealthCause::FailurePercent));
        assert!(matches!(told[0], News::Changed(MemberId(1), _)), "the worst first");
    }

    #[test]
    fn panic_is_told_when_it_begins_and_when_it_ends() {
        let now = Instant::now();
        let group = Group { members: 0..2, outliers: None, panic_threshold: 1 };
        let mut monitor = Monitor::new(vec![group], &[Some(PROBES); 2], now, &mut || 0);
        let mut at = now;
        let mut round = |monitor: &mut Monitor, result: ProbeResult| {
            at += 2 * PROBES.interval;
            monitor.poll(at, &mut || 0);
            (0..2).for_each(|id| monitor.probed(MemberId(id), result, at, &mut || 0));
            let told = news(monitor);
            told.into_iter().filter(|news| matches!(news, News::Panic(..))).collect::<Vec<_>>()
        };
        assert_eq!(round(&mut monitor, ProbeResult::Status), []);
        assert_eq!(round(&mut monitor, ProbeResult::Status), []);
        assert_eq!(round(&mut monitor, ProbeResult::Status), [News::Panic(GroupId(0), true)]);
        assert_eq!(round(&mut monitor, ProbeResult::Passed), []);
        assert_eq!(round(&mut monitor, ProbeResult::Passed), [News::Panic(GroupId(0), false)]);
        assert!(!monitor.is_panic(GroupId(0)));
    }
}
