//! What becomes of attempts that fail: layers become one value, and what contradicts itself is found.

use std::time::Duration;

use super::upstreams::{Compiled, Upstreams};
use super::{Compiler, keys, timeouts};
use crate::config::diagnostic::Diagnostic;
use crate::config::generation::Timeouts;
use crate::config::schema::Located;
use crate::config::source::Place;
use crate::resilience::{BreakerPolicy, BudgetPolicy, Condition, Conditions, HedgeDelay, HedgePolicy, RetryPolicy};

/// The first written value of some layers, else that of the last one.
macro_rules! nearest {
    ($key:ident, $last:expr, $($layer:expr),+) => {
        None$(.or($layer.and_then(|layer| layer.$key.as_ref())))+.unwrap_or(&$last.$key).value
    };
}

/// Further attempts on a way: its route's word before its upstream's before `[resilience.retry]`.
pub(super) fn retry(
    route: Option<&keys::RetryOf>,
    upstream: Option<&keys::RetryOf>,
    retry: &keys::Retry,
) -> RetryPolicy {
    let backoff = nearest!(backoff, retry, route, upstream);
    let one = None.or(route.and_then(|own| own.per_try_timeout.as_ref()));
    let one = one.or(upstream.and_then(|own| own.per_try_timeout.as_ref()));
    let on = None.or(route.and_then(|own| own.on.as_ref())).or(upstream.and_then(|own| own.on.as_ref()));
    RetryPolicy {
        attempts: nearest!(attempts, retry, route, upstream),
        on: conditions(on.unwrap_or(&retry.on)),
        per_try_timeout: match one {
            Some(written) => written.value.0,
            None => retry.per_try_timeout.as_ref().map(|written| written.value),
        },
        backoff,
        max_backoff: nearest!(max_backoff, retry, route, upstream).max(backoff),
        replay_buffer: nearest!(replay_buffer, retry, route, upstream).to_u32() as usize,
    }
}

fn conditions(written: &Located<Vec<Located<Condition>>>) -> Conditions {
    written.value.iter().map(|condition| condition.value).collect()
}

/// Hedging on a way: the first written of its route's word, its upstream's and `[resilience.hedging]`.
pub(super) fn hedging(layers: [Option<&Located<keys::Hedging>>; 3]) -> Option<HedgePolicy> {
    let keys = &layers.into_iter().flatten().next()?.value;
    if !keys.enabled.value {
        return None;
    }
    let delay = match (&keys.delay, &keys.at) {
        (Some(delay), _) => HedgeDelay::Fixed(delay.value),
        (None, Some(at)) => HedgeDelay::Percentile {
            percent: match at.value {
                keys::Percentile::P90 => 90,
                keys::Percentile::P95 => 95,
                keys::Percentile::P99 => 99,
            },
            least: keys.least_delay.value,
        },
        // It is reported where it stands.
        (None, None) => return None,
    };
    Some(HedgePolicy { delay, max: keys.max.value })
}

/// The budget of an upstream.
pub(super) fn retry_budget(own: &keys::RetryBudgetOf, budget: &keys::RetryBudget) -> BudgetPolicy {
    let own = Some(own);
    BudgetPolicy {
        percent: nearest!(percent, budget, own),
        min_per_sec: nearest!(min_per_sec, budget, own),
        window: nearest!(window, budget, own),
    }
}

/// The breakers of an upstream's backends; `None`: there are none.
pub(super) fn circuit_breaker(
    own: Option<&Located<keys::CircuitBreakerOf>>,
    all: Option<&Located<keys::CircuitBreaker>>,
) -> Option<BreakerPolicy> {
    if let Some(own) = own.map(|own| &own.value) {
        return own.enabled.value.then_some(BreakerPolicy {
            failures: own.failures.value,
            open_for: own.open_for.value,
            trials: own.half_open_requests.value,
        });
    }
    all.map(|all| BreakerPolicy {
        failures: all.value.failures.value,
        open_for: all.value.open_for.value,
        trials: all.value.half_open_requests.value,
    })
}

/// Finds contradictions in `[resilience.retry]` and in what upstreams say. Each table is held against what it meets where it
/// stands; that a layer below has other times is a wish, not a contradiction.
pub(super) fn check(compiler: &mut Compiler<'_>, upstreams: &Upstreams<'_>) {
    let (performance, all) = (&compiler.root.performance.value, &compiler.root.resilience.value.retry.value);
    let written = |place: Place| (place != Place::NOWHERE).then_some(place);
    let own = Own {
        attempts: all.attempts.place,
        on: written(all.on.place),
        per_try: all.per_try_timeout.as_ref().map(|one| (one.value, one.place)),
        backoff: written(all.backoff.place),
        max_backoff: written(all.max_backoff.place).map(|place| (all.max_backoff.value, place)),
    };
    let (policy, times) = (retry(None, None, all), timeouts::resolve(None, None, performance));
    contradictions(compiler, &own, &policy, &times, &[]);
    hedging_contradictions(compiler, compiler.root.resilience.value.hedging.as_ref(), &policy, &times, None);
    for upstream in &upstreams.list {
        let keys = &upstream.keys;
        let policy = retry(None, Some(&keys.retry.value), all);
        let times = timeouts::resolve(None, Some(&keys.timeouts.value), performance);
        contradictions(compiler, &Own::of(&keys.retry.value), &policy, &times, &[&keys.timeouts.value]);
        hedging_contradictions(compiler, keys.hedging.as_ref(), &policy, &times, Some(upstream));
    }
}

/// The same for what a route says, once for all of its ways.
pub(super) fn check_route(compiler: &mut Compiler<'_>, route: &keys::Route, upstreams: &[&Compiled<'_>]) {
    let (performance, all) = (&compiler.root.performance.value, &compiler.root.resilience.value.retry.value);
    for upstream in upstreams {
        let layers = [&route.timeouts.value, &upstream.keys.timeouts.value];
        let policy = retry(Some(&route.retry.value), Some(&upstream.keys.retry.value), all);
        let times = timeouts::resolve(Some(layers[0]), Some(layers[1]), performance);
        let mut found = contradictions(compiler, &Own::of(&route.retry.value), &policy, &times, &layers);
        found |= hedging_contradictions(compiler, route.hedging.as_ref(), &policy, &times, Some(upstream));
        if found {
            return;
        }
    }
}

/// What one table says itself.
struct Own {
    /// Also where it is a default.
    attempts: Place,
    on: Option<Place>,
    per_try: Option<(Duration, Place)>,
    backoff: Option<Place>,
    max_backoff: Option<(Duration, Place)>,
}

impl Own {
    fn of(keys: &keys::RetryOf) -> Self {
        Self {
            attempts: keys.attempts.as_ref().map_or(Place::NOWHERE, |own| own.place),
            on: keys.on.as_ref().map(|own| own.place),
            per_try: keys.per_try_timeout.as_ref().and_then(|own| Some((own.value.0?, own.place))),
            backoff: keys.backoff.as_ref().map(|own| own.place),
            max_backoff: keys.max_backoff.as_ref().map(|own| (own.value, own.place)),
        }
    }
}

/// Reports what one table says that can never be. `policy` and `times` hold where it stands; `layers` are the tables above
/// `[performance]` that the times come from, the nearest first. Whether there was something.
fn contradictions(
    compiler: &mut Compiler<'_>,
    own: &Own,
    policy: &RetryPolicy,
    times: &Timeouts,
    layers: &[&keys::Timeouts],
) -> bool {
    let mut found = Vec::new();
    if let Some((most, place)) = own.max_backoff
        && most < policy.backoff
    {
        let longer = Diagnostic::error("`max_backoff` is shorter than `backoff`").at(place, "");
        let longer = own.backoff.into_iter().fold(longer, |longer, place| longer.at(place, "longer than that"));
        found.push(longer.help("the first pause is at most `backoff`: lengthen one or shorten the other"));
    }
    if let Some((one, place)) = own.per_try {
        let performance = &compiler.root.performance.value;
        let backend = layers.iter().find_map(|layer| layer.backend_timeout.as_ref()).map(|key| key.place);
        let total = layers.iter().find_map(|layer| layer.total_request_timeout.as_ref()).map(|key| key.place);
        let ends = [
            ("backend_timeout", Some(times.backend), backend.unwrap_or(performance.backend_timeout.place)),
            ("total_request_timeout", times.total, total.unwrap_or(performance.total_request_timeout.place)),
        ];
        let ends = ends.into_iter().find(|(_, end, _)| end.is_some_and(|end| one >= end));
        if let Some((name, _, end)) = ends {
            let never =
                Diagnostic::error(format!("`per_try_timeout` can never run out: `{name}` ends the request before"))
                    .at(place, format!("not shorter than `{name}`"));
            let never = if end == Place::NOWHERE { never } else { never.at(end, "this one") };
            found.push(never.help(format!("shorten `per_try_timeout`, or lengthen `{name}`")));
        }
        if !policy.on.timeout {
            let idle = Diagnostic::warning("`per_try_timeout` does nothing where `on` does not have \"timeout\"");
            let idle = own.on.into_iter().fold(idle.at(place, ""), |idle, place| idle.at(place, "this one"));
            found.push(idle.help("remove it, or add \"timeout\" to `on`"));
        }
    }
    let idle = [("per_try_timeout", own.per_try.map(|(_, place)| place)), ("on", own.on)];
    let idle = idle.into_iter().filter_map(|(name, place)| Some((name, place?)));
    for (name, place) in idle.filter(|_| policy.attempts == 1) {
        let idle = Diagnostic::warning(format!("`{name}` does nothing where `attempts` is 1")).at(place, "");
        let idle = if own.attempts == Place::NOWHERE { idle } else { idle.at(own.attempts, "no second attempt") };
        found.push(idle.help("remove it, or allow more attempts"));
    }
    let any = !found.is_empty();
    found.into_iter().for_each(|diagnostic| compiler.report(diagnostic));
    any
}

/// Reports what a table of hedging says that can never be; `policy` and `times` hold where it stands, `upstream` is the one it
/// stands for. Whether there was something.
fn hedging_contradictions(
    compiler: &mut Compiler<'_>,
    written: Option<&Located<keys::Hedging>>,
    policy: &RetryPolicy,
    times: &Timeouts,
    upstream: Option<&Compiled<'_>>,
) -> bool {
    let Some(written) = written.filter(|written| written.value.enabled.value) else {
        return false;
    };
    let (keys, place) = (&written.value, written.place);
    let mut found = Vec::new();
    match (&keys.delay, &keys.at) {
        (None, None) => found.push(
            Diagnostic::error("`hedging` does not say when: `delay` or `at` has to be written")
                .at(place, "")
                .help("write delay = \"50ms\", or at = \"p95\""),
        ),
        (Some(delay), Some(at)) => found.push(
            Diagnostic::error("`delay` and `at` both say when another attempt begins")
                .at(at.place, "this one")
                .at(delay.place, "and this one")
                .help("remove one of them; with `at`, `least_delay` is the least"),
        ),
        _ => {}
    }
    if keys.at.is_none() && keys.least_delay.is_written() {
        let idle = Diagnostic::warning("`least_delay` does nothing without `at`").at(keys.least_delay.place, "");
        found.push(idle.help("remove it, or write `at` in place of `delay`"));
    }
    let (least, least_place) = match &keys.delay {
        Some(delay) => (delay.value, delay.place),
        None => (keys.least_delay.value, keys.least_delay.place),
    };
    let ends = [("backend_timeout", Some(times.backend)), ("total_request_timeout", times.total)];
    if let Some((name, _)) = ends.into_iter().find(|(_, end)| end.is_some_and(|end| least >= end)) {
        let at = if least_place == Place::NOWHERE { place } else { least_place };
        let never = Diagnostic::error(format!("no hedge can ever begin: `{name}` ends the request before")).at(at, "");
        found.push(never.help(format!("shorten the delay, or lengthen `{name}`")));
    }
    if keys.max.value >= policy.attempts {
        let at = if keys.max.is_written() { keys.max.place } else { place };
        let never = Diagnostic::error(format!(
            "not so many hedges can ever begin: `attempts` of `retry` is {}, the first and the hedges included",
            policy.attempts
        ));
        found.push(never.at(at, "").help("allow more attempts, or fewer hedges"));
    }
    if upstream.is_some_and(|upstream| upstream.compiled.backends.len() == 1) {
        let alone = Diagnostic::warning("`hedging` does nothing on an upstream with one backend").at(place, "");
        found.push(alone.help("remove it, or add a backend"));
    }
    let any = !found.is_empty();
    found.into_iter().for_each(|diagnostic| compiler.report(diagnostic));
    any
}
