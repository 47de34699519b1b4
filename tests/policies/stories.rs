//! The stories: who is in trouble, which, and when.

use crate::backends::{Backend, Trouble};
use crate::invariants::check;
use crate::seeds::seeds;
use crate::world::{ALGORITHMS, World};
use spooky_uring::simulation::Random;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// What can be wrong.
pub const TROUBLES: [Trouble; 6] =
    [Trouble::None, Trouble::Slow, Trouble::Flaps, Trouble::HalfDead, Trouble::Dead, Trouble::Stopped];

/// Who is in trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    One(usize),
    All,
}

/// How many may be ejected, in percent of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub max_percent: u32,
    /// With fewer left nobody is left out; 0: never.
    pub panic_threshold: u32,
}

/// At most half, so that there is never reason to panic.
pub const HALF: Bounds = Bounds { max_percent: 50, panic_threshold: 0 };

/// Everybody, but if fewer than half are left they are asked all the same.
const EVERYBODY: Bounds = Bounds { max_percent: 100, panic_threshold: 50 };

/// What is to happen.
#[derive(Clone, Debug)]
pub struct Story {
    pub algorithm: &'static str,
    pub weights: Vec<u32>,
    pub who: Who,
    pub trouble: Trouble,
    pub from: Duration,
    pub until: Duration,
    pub lasts: Duration,
    pub per_second: u32,
    /// The part of requests whose clients go away while they run.
    pub given_up: f64,
    /// There are circuit breakers.
    pub breaks: bool,
    /// Whose requests fail is ejected.
    pub ejects: Option<Bounds>,
}

impl Story {
    /// Three to six backends of different weights; one of them, or all, have five seconds of trouble. Breakers or ejection keep
    /// requests from them, or both.
    pub fn of(algorithm: &'static str, trouble: Trouble, seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5070_6f6f_6b79);
        let count = random.between(3..=6) as usize;
        let weights: Vec<u32> = (0..count).map(|_| random.between(1..=3) as u32 * 100).collect();
        let all = random.chance(0.25);
        let who = if all { Who::All } else { Who::One(random.between(0..=count as u64 - 1) as usize) };
        // It forgets slowly what it has seen; see `balance::latency`.
        let slowly = algorithm == "latency-aware";
        let given_up = [0.0, 0.02, 0.3][random.between(0..=2) as usize];
        let (from, per_second, rest) =
            if slowly { (12 * SECOND, 50, 140 * SECOND) } else { (5 * SECOND, 150, 11 * SECOND) };
        let (until, lasts) = (from + 5 * SECOND, from + 5 * SECOND + rest);
        let (breaks, ejects) = [(true, false), (false, true), (true, true)][random.between(0..=2) as usize];
        let bounds = if random.chance(0.5) { HALF } else { EVERYBODY };
        let ejects = ejects.then_some(bounds);
        Self { algorithm, weights, who, trouble, from, until, lasts, per_second, given_up, breaks, ejects }
    }

    pub fn is_troubled(&self, backend: usize) -> bool {
        self.trouble != Trouble::None && (self.who == Who::All || self.who == Who::One(backend))
    }

    pub fn backends(&self) -> Vec<Backend> {
        let trouble = |at| if self.is_troubled(at) { self.trouble } else { Trouble::None };
        (0..self.weights.len()).map(|at| Backend::new(trouble(at), self.from, self.until)).collect()
    }
}

/// A thousand seeds, the algorithms in turn, and with each of them the troubles.
#[test]
fn whatever_happens_to_backends_the_policies_keep_their_word() {
    seeds(1000, |seed| {
        let algorithm = ALGORITHMS[seed as usize % ALGORITHMS.len()];
        let trouble = TROUBLES[seed as usize / ALGORITHMS.len() % TROUBLES.len()];
        let story = Story::of(algorithm, trouble, seed);
        let record = World::run(&story, None, seed);
        if let Err((rule, what)) = check(&story, &record) {
            panic!("{rule:?}: {what}\n{story:?}");
        }
    });
}
