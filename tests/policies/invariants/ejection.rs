//! What has to hold of ejections, by an arithmetic of its own: of the policies nothing is taken but their numbers.

use super::{Broken, Rule, holds};
use crate::backends::Trouble;
use crate::ejection::EJECTION;
use crate::stories::{Bounds, Story, Who};
use crate::world::{Fate, Record};
use spooky::balance::LeftOut;
use std::time::Duration;

/// One ejection.
#[derive(Debug)]
struct Out {
    backend: usize,
    from: Duration,
    /// [`Duration::MAX`]: it did not end.
    until: Duration,
}

pub fn check(story: &Story, record: &Record, bounds: Bounds) -> Result<(), Broken> {
    let (outs, count) = (outs(record), story.weights.len());
    let out_at = |at: Duration| outs.iter().filter(|out| out.from <= at && at < out.until).count();
    let is_panic = |at| (count - out_at(at)) * 100 < count * bounds.panic_threshold as usize;

    for backend in 0..count {
        let attempts = record.attempts.iter().filter(|one| one.backend == backend).map(|one| one.at);
        let attempts: Vec<Duration> = attempts.collect();
        let own: Vec<&Out> = outs.iter().filter(|out| out.backend == backend).collect();
        if story.who == Who::One(backend) && story.trouble == Trouble::Dead {
            begins(story, &attempts, &own)?;
        }
        for out in &own {
            let asked = attempts.iter().find(|&&at| out.from < at && at < out.until && !is_panic(at));
            holds(Rule::EjectedMeansOut, asked.is_none(), || format!("asked at {asked:?}, {out:?}"))?;
        }
        times(&own)?;
    }
    for out in &outs {
        let sum = out_at(out.from);
        let few = sum * 100 <= count * bounds.max_percent as usize;
        holds(Rule::ShareIsKept, few, || format!("{sum} of {count} are ejected at {:?}", out.from))?;
    }
    let refused = |(came, took, fate): &&(Duration, Duration, Fate)| {
        *fate == Fate::Nobody(Some(LeftOut::Ejected)) && is_panic(*came + *took)
    };
    let refused = record.requests.iter().find(refused);
    holds(Rule::PanicAsksEverybody, refused.is_none(), || format!("{refused:?}"))
}

fn outs(record: &Record) -> Vec<Out> {
    let begun = record.ejections.iter().enumerate().filter(|(_, (.., begins))| *begins);
    let out = |(nth, &(from, backend, _)): (usize, &(Duration, usize, bool))| {
        let end = record.ejections[nth..].iter().find(|(_, other, begins)| *other == backend && !begins);
        Out { backend, from, until: end.map_or(Duration::MAX, |(at, ..)| *at) }
    };
    begun.map(out).collect()
}

/// Of a backend that refuses everything: how often it is asked before it is ejected, first and whenever it is back.
fn begins(story: &Story, attempts: &[Duration], outs: &[&Out]) -> Result<(), Broken> {
    // Some are under way at the same time, and of some the client goes away before they fail.
    let most = 2 * EJECTION.consecutive as usize + 4;
    let starts = std::iter::once(story.from).chain(outs.iter().map(|out| out.until));
    let ends = outs.iter().map(|out| out.from).chain([story.until]);
    for (start, end) in starts.zip(ends) {
        let asked = attempts.iter().filter(|&&at| at >= start && at <= end.min(story.until)).count();
        holds(Rule::FailuresEject, asked <= most, || format!("asked {asked} times from {start:?} to {end:?}"))?;
    }
    Ok(())
}

/// Of one backend: how long its ejections are.
fn times(outs: &[&Out]) -> Result<(), Broken> {
    let (mut expected, mut back) = (EJECTION.base_time, None);
    for out in outs {
        // What is long ago is forgotten.
        if back.is_some_and(|back| out.from - back >= EJECTION.max_time) {
            expected = EJECTION.base_time;
        }
        let time = out.until - out.from;
        holds(Rule::EjectionsGrow, time >= expected, || format!("{out:?} is less than {expected:?}"))?;
        holds(Rule::EjectionsEnd, time <= expected, || format!("{out:?} is more than {expected:?}"))?;
        (expected, back) = ((expected * 2).min(EJECTION.max_time), Some(out.until));
    }
    Ok(())
}
