//! The routes that stand at one host, path and method: those with matchers, the most telling first, then the one without.
//!
//! Every route with matchers is listed under one value that it wants, the one that the fewest others want, so a request is only
//! held against routes that want a value it has. What a lookup costs grows with the number of different names and patterns
//! here, not with the number of values.

use rustc_hash::FxHashMap;

use super::matcher::{CompiledTest, Condition, Lens, Matcher, PatternList, Subject, Weight, implies, overlap};
use super::{Request, RouteId, RouteSpec};

/// The routes for one host, path and method.
#[derive(Clone, Debug, Default)]
pub(super) struct Choices {
    /// The one that asks for nothing more.
    plain: Option<RouteId>,
    /// Those with matchers; boxed, because most points have none.
    asking: Option<Box<Asking>>,
}

/// Routes with matchers.
#[derive(Clone, Debug, Default)]
struct Asking {
    /// Sorted by weight once sealed; a position is a rank then.
    candidates: Vec<Candidate>,
    /// Every candidate is listed once for each value under which it can be found.
    pivots: Vec<Pivot>,
}

#[derive(Clone, Debug)]
struct Candidate {
    route: RouteId,
    /// Empty until sealed.
    conditions: Box<[Condition]>,
}

/// Candidates by one value of the request.
#[derive(Clone, Debug)]
struct Pivot {
    subject: Subject,
    /// Ranks of those that want this value, the lowest first.
    values: FxHashMap<Box<[u8]>, Vec<u32>>,
    /// Ranks of those that want any value, or a pattern.
    present: Vec<u32>,
}

impl Choices {
    pub(super) fn is_empty(&self) -> bool {
        self.plain.is_none() && self.asking.is_none()
    }

    /// Whether a route here asks for nothing more.
    pub(super) fn has_plain(&self) -> bool {
        self.plain.is_some()
    }

    /// Puts a route in; another one that asks for nothing more is given back.
    pub(super) fn insert(&mut self, route: RouteId, spec: &RouteSpec) -> Result<(), RouteId> {
        if spec.matchers.is_empty() {
            return match self.plain {
                Some(there) => Err(there),
                None => {
                    self.plain = Some(route);
                    Ok(())
                }
            };
        }
        let candidates = &mut self.asking.get_or_insert_default().candidates;
        // The route may repeat a host or a method of its own.
        if candidates.last().is_none_or(|last| last.route != route) {
            candidates.push(Candidate { route, conditions: Box::default() });
        }
        Ok(())
    }

    /// Brings the routes into their order. Pairs that no rule can order are told.
    pub(super) fn seal(
        &mut self,
        specs: &[RouteSpec],
        patterns: &mut PatternList,
        conflict: &mut impl FnMut(RouteId, RouteId),
    ) {
        if let Some(asking) = &mut self.asking {
            asking.seal(specs, patterns, conflict);
        }
    }

    /// The most telling route whose matchers hold.
    #[inline]
    pub(super) fn find(&self, request: &Request<'_>, lens: &mut Lens) -> Option<RouteId> {
        match &self.asking {
            None => self.plain,
            Some(asking) => asking.find(request, lens).or(self.plain),
        }
    }

    /// A route that takes every request which satisfies `matchers`, and that is not `route` itself.
    pub(super) fn covering(&self, route: RouteId, matchers: &[Matcher], specs: &[RouteSpec]) -> Option<RouteId> {
        let asking = self.asking.iter().flat_map(|asking| &asking.candidates).map(|candidate| candidate.route);
        let covers = |other: &RouteId| *other != route && implies(matchers, &specs[other.0 as usize].matchers);
        self.plain.into_iter().chain(asking).find(covers)
    }
}

impl Asking {
    fn seal(&mut self, specs: &[RouteSpec], patterns: &mut PatternList, conflict: &mut impl FnMut(RouteId, RouteId)) {
        let matchers = |candidate: &Candidate| specs[candidate.route.0 as usize].matchers.as_slice();
        self.candidates.sort_by_key(|candidate| (Weight::of(matchers(candidate)).first(), candidate.route));
        for candidate in &mut self.candidates {
            let asked = &specs[candidate.route.0 as usize].matchers;
            candidate.conditions = asked.iter().map(|matcher| Condition::new(matcher, patterns)).collect();
        }
        self.index();
        self.conflicts(specs, conflict);
    }

    fn index(&mut self) {
        let mut wanted: FxHashMap<(&Subject, &str), u32> = FxHashMap::default();
        for condition in self.candidates.iter().flat_map(|candidate| &candidate.conditions) {
            for value in exact(condition) {
                *wanted.entry((&condition.subject, value)).or_default() += 1;
            }
        }
        let crowd = |condition: &Condition| -> u32 {
            exact(condition).iter().filter_map(|value| wanted.get(&(&condition.subject, &**value))).sum()
        };
        let mut pivots: Vec<Pivot> = Vec::new();
        let mut known: FxHashMap<&Subject, usize> = FxHashMap::default();
        for (rank, candidate) in self.candidates.iter().enumerate() {
            let rank = u32::try_from(rank).unwrap_or(u32::MAX);
            let by_value = candidate
                .conditions
                .iter()
                .filter(|condition| !exact(condition).is_empty())
                .min_by_key(|one| crowd(one));
            let Some(condition) = by_value.or(candidate.conditions.first()) else {
                continue;
            };
            let at = *known.entry(&condition.subject).or_insert_with(|| {
                let subject = condition.subject.clone();
                pivots.push(Pivot { subject, values: FxHashMap::default(), present: Vec::new() });
                pivots.len() - 1
            });
            let pivot = &mut pivots[at];
            match exact(condition) {
                [] => pivot.present.push(rank),
                values => {
                    for value in values {
                        let ranks = pivot.values.entry(value.as_bytes().into()).or_default();
                        if ranks.last() != Some(&rank) {
                            ranks.push(rank);
                        }
                    }
                }
            }
        }
        self.pivots = pivots;
    }

    /// Tells every two candidates of one weight that one request can satisfy.
    fn conflicts(&self, specs: &[RouteSpec], conflict: &mut impl FnMut(RouteId, RouteId)) {
        let matchers = |rank: u32| specs[self.candidates[rank as usize].route.0 as usize].matchers.as_slice();
        let ranks = 0..u32::try_from(self.candidates.len()).unwrap_or(u32::MAX);
        let weights: Vec<Weight> = ranks.clone().map(|rank| Weight::of(matchers(rank))).collect();
        for (rank, candidate) in ranks.zip(&self.candidates) {
            let (own, weight) = (matchers(rank), weights[rank as usize]);
            let mut judge = |other: u32| {
                if other > rank && weights[other as usize] == weight && overlap(own, matchers(other)) {
                    conflict(candidate.route, self.candidates[other as usize].route);
                }
            };
            for pivot in &self.pivots {
                pivot.present.iter().for_each(|&other| judge(other));
                let here = candidate.conditions.iter().find(|condition| condition.subject == pivot.subject);
                match here.map(exact).unwrap_or_default() {
                    // Who wants one of other values is never content with the same request.
                    values @ [_, ..] => {
                        let listed = values.iter().filter_map(|value| pivot.values.get(value.as_bytes()));
                        listed.flatten().for_each(|&other| judge(other));
                    }
                    [] => pivot.values.values().flatten().for_each(|&other| judge(other)),
                }
            }
        }
    }

    fn find(&self, request: &Request<'_>, lens: &mut Lens) -> Option<RouteId> {
        let mut best = self.candidates.len();
        for pivot in &self.pivots {
            let Some(value) = pivot.subject.value(request, &mut lens.scratch) else {
                continue;
            };
            let listed = pivot.values.get(value).map_or(&[][..], Vec::as_slice);
            for ranks in [listed, &pivot.present] {
                best = self.first_holding(ranks, best, request, lens);
            }
        }
        self.candidates.get(best).map(|candidate| candidate.route)
    }

    /// The lowest of `ranks` below `best` whose conditions hold, or `best`.
    fn first_holding(&self, ranks: &[u32], best: usize, request: &Request<'_>, lens: &mut Lens) -> usize {
        let better = ranks.iter().map(|&rank| rank as usize).take_while(|&rank| rank < best);
        let mut holding = better
            .filter(|&rank| self.candidates[rank].conditions.iter().all(|condition| condition.holds(request, lens)));
        holding.next().unwrap_or(best)
    }
}

/// The values of which a condition wants one; none: it wants something else.
fn exact(condition: &Condition) -> &[Box<str>] {
    match &condition.test {
        CompiledTest::Exact(values) => values,
        CompiledTest::Regex(_) | CompiledTest::Present => &[],
    }
}
