//! What has to hold of every run.

mod ejection;

use crate::backends::{LINE, Trouble};
use crate::ejection::{EJECTION, SLOW_START};
use crate::stories::{Story, Who};
use crate::world::{BREAKER, BUDGET, Fate, Record};
use spooky::resilience::Change;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// The rules, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// Whatever became of requests, nothing is in flight when all are over.
    PermitsComeBack,
    /// A breaker whose backend is well again closes, and lets everything through.
    BreakersClose,
    /// An open breaker lets nothing through, and a backend that only fails is asked to see whether it still does.
    OpenMeansOpen,
    /// The breaker of a backend without trouble never opens, nor is it ejected, and nothing changes long after the trouble.
    NothingOscillates,
    /// A backend that fails everything is ejected after a few attempts, and again whenever it comes back.
    FailuresEject,
    /// Who is ejected is not asked.
    EjectedMeansOut,
    /// No ejection is shorter than the arithmetic says: each is twice as long as the one before, up to the longest.
    EjectionsGrow,
    /// Nor longer: nobody is stuck.
    EjectionsEnd,
    /// No more are ejected than may be.
    ShareIsKept,
    /// Where so few are left that health is disregarded, nobody is refused for it.
    PanicAsksEverybody,
    /// Before the trouble shares are by weight.
    WeightsHold,
    /// And long after it.
    SharesReturn,
    /// Retries are no more than the budget's share of the requests.
    BudgetHolds,
    /// While one backend is in trouble, a request fails only for want of the budget's permit, and then the budget is spent.
    ErrorsAreAccounted,
}

type Broken = (Rule, String);

/// The first rule that does not hold.
pub fn check(story: &Story, record: &Record) -> Result<(), Broken> {
    permits(record)?;
    breakers(story, record)?;
    open(story, record)?;
    oscillation(story, record)?;
    if let Some(bounds) = story.ejects {
        ejection::check(story, record, bounds)?;
    }
    shares(Rule::WeightsHold, story, record, Duration::ZERO..story.from)?;
    shares(Rule::SharesReturn, story, record, story.lasts - story.from..story.lasts)?;
    budget(record)?;
    errors(story, record)
}

fn holds(rule: Rule, holds: bool, what: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err((rule, what())) }
}

fn permits(record: &Record) -> Result<(), Broken> {
    holds(Rule::PermitsComeBack, record.left.iter().all(|&left| left == 0), || format!("left: {:?}", record.left))
}

fn breakers(story: &Story, record: &Record) -> Result<(), Broken> {
    holds(Rule::BreakersClose, record.stuck.is_empty(), || format!("stuck: {:?}", record.stuck))?;
    for backend in 0..story.weights.len() {
        let last = record.changes.iter().rfind(|(_, at, _)| *at == backend);
        let open = last.filter(|(.., change)| *change != Change::Closed);
        holds(Rule::BreakersClose, open.is_none(), || format!("backend {backend} ends with {open:?}"))?;
    }
    Ok(())
}

fn open(story: &Story, record: &Record) -> Result<(), Broken> {
    for backend in 0..story.weights.len() {
        let of = |change| {
            let of = move |&&(_, at, what): &&(Duration, usize, Change)| at == backend && what == change;
            record.changes.iter().filter(of).map(|(at, ..)| *at)
        };
        let half: Vec<Duration> = of(Change::HalfOpened).collect();
        for opened in of(Change::Opened) {
            let until = half.iter().copied().find(|&at| at > opened).unwrap_or(Duration::MAX);
            let soon = until < opened + BREAKER.open_for;
            holds(Rule::OpenMeansOpen, !soon, || format!("backend {backend} opened at {opened:?}, half at {until:?}"))?;
            let let_through =
                record.attempts.iter().find(|one| one.backend == backend && one.at > opened && one.at < until);
            holds(Rule::OpenMeansOpen, let_through.is_none(), || {
                format!("{let_through:?} while open since {opened:?}")
            })?;
        }
        if story.breaks && story.is_troubled(backend) && matches!(story.trouble, Trouble::Dead | Trouble::Stopped) {
            // What was under way when it opened is counted before; then only trials are.
            let asked = record.attempts.iter().filter(|one| one.backend == backend);
            let asked = asked.filter(|one| one.at >= story.from + SECOND && one.at < story.until).count();
            let rounds = (story.until - story.from).div_duration_f64(BREAKER.open_for).ceil() as usize + 1;
            let most = BREAKER.failures as usize + rounds * BREAKER.trials as usize;
            holds(Rule::OpenMeansOpen, asked <= most, || {
                format!("backend {backend} does nothing, and was asked {asked} times")
            })?;
        }
    }
    Ok(())
}

fn oscillation(story: &Story, record: &Record) -> Result<(), Broken> {
    let late = if story.ejects.is_some() { EJECTION.max_time + SLOW_START } else { Duration::ZERO };
    let quiet = if story.algorithm == "latency-aware" { 120 * SECOND } else { BREAKER.open_for + late + 3 * SECOND };
    let restless = record
        .changes
        .iter()
        .find(|(at, backend, _)| !story.is_troubled(*backend) || *at < story.from || *at > story.until + quiet);
    holds(Rule::NothingOscillates, restless.is_none(), || format!("{restless:?}"))?;
    // What waited in line fails last, and is counted with the next interval.
    let quiet = EJECTION.interval + LINE + SECOND;
    let restless = record.ejections.iter().find(|(at, backend, begins)| {
        !story.is_troubled(*backend) || *at < story.from || *begins && *at > story.until + quiet
    });
    holds(Rule::NothingOscillates, restless.is_none(), || format!("{restless:?}"))
}

fn shares(rule: Rule, story: &Story, record: &Record, when: std::ops::Range<Duration>) -> Result<(), Broken> {
    let mut counts = vec![0_u32; story.weights.len()];
    for attempt in record.attempts.iter().filter(|attempt| when.contains(&attempt.at)) {
        counts[attempt.backend] += 1;
    }
    let (sum, total) = (f64::from(counts.iter().sum::<u32>()), f64::from(story.weights.iter().sum::<u32>()));
    // These look at how busy and how fast backends are, and that is chance as well.
    let loose = match story.algorithm {
        "latency-aware" => 0.3,
        "least-connections" | "power-of-two-choices" => 0.25,
        _ => 0.1,
    };
    let right = |count: u32, weight: u32| {
        let expected = sum * f64::from(weight) / total;
        (f64::from(count) - expected).abs() <= expected * loose + 4.0 * expected.sqrt()
    };
    let right = counts.iter().zip(&story.weights).all(|(&count, &weight)| right(count, weight));
    holds(rule, right, || format!("{counts:?} for {:?} in {when:?}", story.weights))
}

fn budget(record: &Record) -> Result<(), Broken> {
    let mut came: Vec<Duration> = record.requests.iter().map(|(came, ..)| *came).collect();
    came.sort();
    let count = |times: &[Duration], from: Duration, until: Duration| {
        times.partition_point(|&at| at <= until) - times.partition_point(|&at| at < from)
    };
    let floor = BUDGET.window.as_secs() as usize * BUDGET.min_per_sec as usize;
    for &end in &record.retries {
        // The window slides by a tenth: what it forgets early counts for no rule, what it forgets late counts for both.
        let retries = count(&record.retries, end.saturating_sub(BUDGET.window.mul_f64(0.9)), end);
        let requests = count(&came, end.saturating_sub(BUDGET.window.mul_f64(1.1)), end);
        let most = (requests * BUDGET.percent as usize / 100).max(floor);
        holds(Rule::BudgetHolds, retries <= most, || format!("{retries} retries for {requests} requests at {end:?}"))?;
    }
    Ok(())
}

fn errors(story: &Story, record: &Record) -> Result<(), Broken> {
    let failed = |fate: &Fate| matches!(fate, Fate::Failed | Fate::Nobody(_) | Fate::Denied);
    for (came, took, fate) in record.requests.iter().filter(|(.., fate)| failed(fate)) {
        let expected = match story.who {
            Who::All => *came < story.until + LINE + BREAKER.open_for && *came + *took >= story.from,
            Who::One(_) => *fate == Fate::Denied,
        };
        holds(Rule::ErrorsAreAccounted, expected, || format!("{fate:?} at {came:?} after {took:?}"))?;
        if *fate == Fate::Denied {
            let (end, window) = (*came + *took, BUDGET.window);
            let spent = record.retries.iter().filter(|&&at| at + window.mul_f64(1.1) > end && at <= end).count() as u64;
            let floor = window.as_secs() * u64::from(BUDGET.min_per_sec);
            holds(Rule::ErrorsAreAccounted, spent >= floor, || format!("denied at {end:?}, {spent} spent"))?;
        }
    }
    Ok(())
}
