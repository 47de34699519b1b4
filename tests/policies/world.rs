//! What a worker does with the policies of one upstream, in virtual time, and what came of it.

use crate::backends::{Backend, End};
use crate::ejection::{Ejection, SLOW_START};
use crate::sabotage::Sabotage;
use crate::stories::Story;
use spooky::balance::{
    Ask, Balancer, ConsistentHash, LatencyAware, LeastConnections, LeftOut, Outcome, Random as Lots, RoundRobin,
    SlowStart, Table, TwoChoices,
};
use spooky::resilience::{Breaker, BreakerPolicy, Budget, BudgetPolicy, Change, Conditions, Pass, RetryPolicy};
use spooky_uring::simulation::Random;
use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const RETRY: RetryPolicy = RetryPolicy {
    attempts: 3,
    on: Conditions::NONE,
    per_try_timeout: Some(Duration::from_millis(250)),
    backoff: Duration::from_millis(20),
    max_backoff: Duration::from_millis(100),
    replay_buffer: 0,
};

pub const BUDGET: BudgetPolicy = BudgetPolicy { percent: 5, min_per_sec: 1, window: Duration::from_secs(10) };

pub const BREAKER: BreakerPolicy = BreakerPolicy { failures: 5, open_for: Duration::from_secs(2), trials: 2 };

/// The algorithms, by the words of the configuration.
pub const ALGORITHMS: [&str; 7] = [
    "round-robin",
    "random",
    "least-connections",
    "power-of-two-choices",
    "latency-aware",
    "consistent-hash",
    "sticky-cid",
];

/// One request.
#[derive(Debug)]
struct Request {
    came: Duration,
    key: u64,
    /// Counts the attempts: what is due for an earlier one is late.
    attempts: u32,
    tried: Vec<usize>,
    running: Option<(usize, Pass, Duration)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Request,
    Answer,
    NoConnection,
    Broken,
    TooLong,
    GivenUp,
    Again,
}

/// When, in which order, for which attempt of which request, and what.
type Entry = (Duration, u64, usize, u32, Due);

/// What a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Answered,
    GivenUp,
    /// All attempts were made.
    Failed,
    /// The budget had no retry left.
    Denied,
    /// No backend was left to ask; what spoke against those that passes soonest.
    Nobody(Option<LeftOut>),
}

/// One attempt, when it began.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    pub at: Duration,
    pub backend: usize,
}

/// All that is remembered of a run.
#[derive(Debug, Default)]
pub struct Record {
    pub attempts: Vec<Attempt>,
    /// When the budget permitted a retry.
    pub retries: Vec<Duration>,
    /// When it came, how long it took, what it came to.
    pub requests: Vec<(Duration, Duration, Fate)>,
    pub changes: Vec<(Duration, usize, Change)>,
    /// When a backend was ejected (`true`), and when it was back.
    pub ejections: Vec<(Duration, usize, bool)>,
    /// In flight by backend when everything was over.
    pub left: Vec<u32>,
    /// Which breakers let nothing through, long after everything was over.
    pub stuck: Vec<usize>,
}

pub struct World<'a> {
    story: &'a Story,
    sabotage: Option<Sabotage>,
    backends: Vec<Backend>,
    random: Random,
    origin: Instant,
    now: Duration,
    agenda: BinaryHeap<Reverse<Entry>>,
    order: u64,
    requests: Vec<Request>,
    balancer: Balancer,
    breakers: Vec<Breaker>,
    /// Of those that came back from an ejection.
    slow: SlowStart,
    ejection: Option<Ejection>,
    budget: Budget,
    inflight: Vec<u32>,
    running: u32,
    record: Record,
}

impl<'a> World<'a> {
    /// Runs a story to its end.
    pub fn run(story: &'a Story, sabotage: Option<Sabotage>, seed: u64) -> Record {
        let mut world = Self::new(story, sabotage, seed);
        world.later(Duration::ZERO, usize::MAX, 0, Due::Request);
        while let Some(Reverse((at, _, request, attempt, due))) = world.agenda.pop() {
            world.eject_until(at);
            world.now = at;
            world.happen(request, attempt, due);
        }
        let long_after = world.origin + world.now + BREAKER.open_for;
        let closed = |breaker: &Breaker| breaker.admits(long_after);
        world.record.stuck = (0..world.breakers.len()).filter(|&at| !closed(&world.breakers[at])).collect();
        world.record.left = world.inflight;
        world.record
    }

    fn new(story: &'a Story, sabotage: Option<Sabotage>, seed: u64) -> Self {
        let origin = Instant::now();
        let count = story.weights.len();
        let breaker = BreakerPolicy { failures: if story.breaks { BREAKER.failures } else { u32::MAX }, ..BREAKER };
        let slow_start = if sabotage == Some(Sabotage::SlowStartNeverEnds) { story.lasts * 100 } else { SLOW_START };
        let ignores = sabotage == Some(Sabotage::WeightIgnored);
        let weights: Vec<u32> = story.weights.iter().map(|&weight| if ignores { 100 } else { weight }).collect();
        Self {
            random: Random::new(seed),
            origin,
            now: Duration::ZERO,
            agenda: BinaryHeap::new(),
            order: 0,
            requests: Vec::new(),
            balancer: balancer(story.algorithm, &weights),
            breakers: vec![Breaker::new(breaker); count],
            slow: SlowStart::new(slow_start),
            ejection: story.ejects.map(|bounds| Ejection::new(count, bounds, sabotage, origin)),
            budget: Budget::new(BUDGET, origin),
            inflight: vec![0; count],
            running: 0,
            record: Record::default(),
            backends: story.backends(),
            sabotage,
            story,
        }
    }

    fn later(&mut self, at: Duration, request: usize, attempt: u32, due: Due) {
        self.order += 1;
        self.agenda.push(Reverse((at, self.order, request, attempt, due)));
    }

    fn time(&self) -> Instant {
        self.origin + self.now
    }

    fn is(&self, sabotage: Sabotage) -> bool {
        self.sabotage == Some(sabotage)
    }

    fn happen(&mut self, request: usize, attempt: u32, due: Due) {
        if due == Due::Request {
            self.arrive();
            return;
        }
        // Late for an attempt that is over.
        if self.requests[request].attempts != attempt {
            return;
        }
        match due {
            Due::Request => {}
            Due::Again => self.attempt(request),
            Due::Answer => {
                let waited = self.waited(request);
                self.end_attempt(request, Some(true), Some(Outcome::Answered(waited)));
                self.end(request, Fate::Answered);
            }
            Due::GivenUp if self.requests[request].running.is_some() => {
                self.end_attempt(request, None, None);
                self.end(request, Fate::GivenUp);
            }
            Due::GivenUp => {}
            Due::NoConnection => {
                self.fail(request);
                // As a worker does: elsewhere, at once, and it costs no permit.
                self.attempt(request);
            }
            Due::Broken | Due::TooLong => {
                self.fail(request);
                self.retry(request);
            }
        }
    }

    fn arrive(&mut self) {
        let gap = Duration::from_secs(1) / self.story.per_second;
        let next = self.now + self.random.up_to(gap * 2);
        if next < self.story.lasts {
            self.later(next, usize::MAX, 0, Due::Request);
        }
        self.budget.request(self.time());
        self.running += 1;
        let key = self.random.word();
        let request = Request { came: self.now, key, attempts: 0, tried: Vec::new(), running: None };
        self.requests.push(request);
        self.attempt(self.requests.len() - 1);
    }

    fn attempt(&mut self, request: usize) {
        let (now, draw, key) = (self.time(), self.random.word(), self.requests[request].key);
        if self.requests[request].attempts >= RETRY.attempts {
            self.end(request, Fate::Failed);
            return;
        }
        let (inflight, breakers, forgets) = (&self.inflight, &self.breakers, self.is(Sabotage::TriedForgotten));
        let (tried, ejection) = (&self.requests[request].tried, self.ejection.as_ref());
        let left_out = |at: usize| match () {
            () if !forgets && tried.contains(&at) => Some(LeftOut::Tried),
            () if ejection.is_some_and(|ejection| ejection.leaves_out(at)) => Some(LeftOut::Ejected),
            () => (!breakers[at].admits(now)).then_some(LeftOut::BreakerOpen),
        };
        let told = Cell::new(None);
        let skip = |at: usize| left_out(at).inspect(|why| told.set(Some(why.or(told.get())))).is_some();
        let ask = Ask { affinity: Some(key), running: self.running, now, random: || draw };
        // As a worker does: who comes back is spared, unless nobody else is there.
        let spared = self.slow.at(now, || key).and_then(|warming| {
            let load = |at| warming.load(at, inflight[at]);
            self.balancer.pick(ask, load, |at| warming.leaves_out(at) || skip(at))
        });
        let Some(at) = spared.or_else(|| self.balancer.pick(ask, |at| inflight[at], skip)) else {
            let told = told.get();
            self.end(request, Fate::Nobody(told));
            return;
        };
        let (pass, change) = self.breakers[at].take(now);
        self.note(at, change);
        self.inflight[at] += 1;
        self.record.attempts.push(Attempt { at: self.now, backend: at });
        let running = &mut self.requests[request];
        running.attempts += 1;
        running.running = Some((at, pass, self.now));
        let attempt = running.attempts;
        let (end, most) = match self.backends[at].take(self.now, &mut self.random) {
            End::Answer(end) => ((end, Due::Answer), true),
            End::NoConnection(end) => ((end, Due::NoConnection), false),
            End::Broken(end) => ((end, Due::Broken), false),
            End::Never => ((Duration::MAX, Due::Answer), true),
        };
        let too_long = self.now + RETRY.per_try_timeout.expect("it has one");
        let (at, due) = if most && end.0 > too_long { (too_long, Due::TooLong) } else { end };
        self.later(at, request, attempt, due);
        if self.random.chance(self.story.given_up) {
            let until = self.random.up_to(Duration::from_millis(8));
            self.later(self.now + until, request, attempt, Due::GivenUp);
        }
    }

    fn waited(&self, request: usize) -> Duration {
        self.requests[request].running.map_or(Duration::ZERO, |(_, _, began)| self.now - began)
    }

    fn fail(&mut self, request: usize) {
        let waited = self.waited(request);
        let (at, ..) = self.requests[request].running.expect("an attempt runs");
        self.requests[request].tried.push(at);
        self.end_attempt(request, Some(false), Some(Outcome::Failed(waited)));
    }

    fn end_attempt(&mut self, request: usize, good: Option<bool>, outcome: Option<Outcome>) {
        let (at, pass, _) = self.requests[request].running.take().expect("an attempt runs");
        let now = self.time();
        let good = match good {
            Some(true) if self.is(Sabotage::BreakerNeverCloses) && !self.record.changes.is_empty() => None,
            Some(false) if self.is(Sabotage::BreakerNeverOpens) => None,
            good => good,
        };
        if !(self.is(Sabotage::PassLeaked) && good.is_none()) {
            let change = self.breakers[at].give_back(pass, good, now);
            self.note(at, change);
        }
        if !(self.is(Sabotage::PermitLeaked) && good.is_none()) {
            self.inflight[at] -= 1;
        }
        if let Some(outcome) = outcome {
            self.balancer.observe(at, outcome, now);
            if let Some(ejection) = &mut self.ejection {
                ejection.note(at, matches!(outcome, Outcome::Answered(_)), now);
                self.note_ejections();
            }
        }
    }

    /// What time does to those that are ejected, until then.
    fn eject_until(&mut self, until: Duration) {
        let due = |ejection: &Ejection, origin: Instant| Some(ejection.deadline()? - origin);
        while let Some(ejection) = &mut self.ejection
            && let Some(at) = due(ejection, self.origin).filter(|at| *at <= until)
        {
            self.now = at;
            ejection.poll(self.origin + at);
            self.note_ejections();
        }
    }

    fn note_ejections(&mut self) {
        let now = self.time();
        while let Some(change) = self.ejection.as_mut().and_then(Ejection::next_change) {
            self.record.ejections.push((self.now, change.backend, change.ejected));
            match change.ejected {
                true => self.slow.end(change.backend),
                false => self.slow.begin(change.backend, now),
            }
        }
    }

    fn retry(&mut self, request: usize) {
        let attempts = self.requests[request].attempts;
        if attempts >= RETRY.attempts {
            self.end(request, Fate::Failed);
            return;
        }
        if !self.budget.retry(self.time()) && !self.is(Sabotage::BudgetIgnored) {
            self.end(request, Fate::Denied);
            return;
        }
        self.record.retries.push(self.now);
        let pause = RETRY.pause(attempts, self.random.word());
        self.later(self.now + pause, request, attempts, Due::Again);
    }

    fn end(&mut self, request: usize, fate: Fate) {
        self.running -= 1;
        let came = self.requests[request].came;
        // Nothing that is still due is for it.
        self.requests[request].attempts = u32::MAX;
        self.record.requests.push((came, self.now - came, fate));
    }

    fn note(&mut self, at: usize, change: Option<Change>) {
        self.record.changes.extend(change.map(|change| (self.now, at, change)));
    }
}

fn balancer(algorithm: &str, weights: &[u32]) -> Balancer {
    let names: Vec<String> = (0..weights.len()).map(|at| format!("b{at}")).collect();
    let table = || Arc::new(Table::new(names.iter().map(String::as_str).zip(weights.iter().copied())));
    let weights = || weights.iter().copied();
    match algorithm {
        "round-robin" => Balancer::RoundRobin(RoundRobin::new(weights())),
        "random" => Balancer::Random(Lots::new(weights())),
        "least-connections" => Balancer::LeastConnections(LeastConnections::new(weights())),
        "power-of-two-choices" => Balancer::TwoChoices(TwoChoices::new(weights())),
        "latency-aware" => Balancer::LatencyAware(LatencyAware::new(weights())),
        "consistent-hash" => Balancer::ConsistentHash(ConsistentHash::new(table(), weights())),
        "sticky-cid" => Balancer::StickyCid(table()),
        other => unreachable!("no algorithm {other}"),
    }
}
