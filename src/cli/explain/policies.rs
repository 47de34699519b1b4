//! What becomes of a request on its way that meets failures, sick backends or a crowd: the rules, in words.

use super::report::Policy;
use super::words::duration;
use crate::config::{Generation, WayId};
use crate::http::RequestHead;
use crate::resilience::{HedgeDelay, HedgePolicy, RetryPolicy};

/// The rules of a way that leads to an upstream.
pub(super) fn policies(generation: &Generation, id: WayId, head: &RequestHead) -> Vec<Policy> {
    let way = generation.way(id);
    let Some(upstream) = way.upstream.map(|id| generation.upstream(id)) else { return Vec::new() };
    let off = || "off".to_owned();
    let budget = &upstream.retry_budget;
    let performance = &generation.performance;
    let told = [
        ("retry", retry(&way.retry, head)),
        (
            "retry_budget",
            format!(
                "{} % of the requests of {}, and {} a second",
                budget.percent,
                duration(budget.window),
                budget.min_per_sec
            ),
        ),
        ("hedging", hedging(way.hedging, head)),
        (
            "circuit_breaker",
            upstream.circuit_breaker.as_ref().map_or_else(off, |policy| {
                let (failures, open, trials) = (policy.failures, duration(policy.open_for), policy.trials);
                format!("opens after {failures} failures in a row, for {open}; then {trials} trials")
            }),
        ),
        ("global_inflight_limit", format!("{} exchanges in the process", performance.global_inflight_limit)),
    ];
    told.map(|(policy, detail)| Policy { policy, detail }).into()
}

fn retry(policy: &RetryPolicy, head: &RequestHead) -> String {
    let method = head.method.as_str();
    match policy.attempts {
        0 | 1 => "off: one attempt".to_owned(),
        attempts if head.method.is_idempotent() => format!(
            "{attempts} attempts at most; {method} is idempotent: also after a backend failed, if no more than {} bytes of a body \
             came; on {}",
            policy.replay_buffer, policy.on
        ),
        attempts => format!(
            "{attempts} attempts at most; {method} is not idempotent: only where no backend can have seen the request; on {}",
            policy.on
        ),
    }
}

fn hedging(policy: Option<HedgePolicy>, head: &RequestHead) -> String {
    let Some(HedgePolicy { delay, max }) = policy else { return "off".to_owned() };
    if !head.method.is_safe() {
        return format!("none, because {} is not safe", head.method.as_str());
    }
    let after = match delay {
        HedgeDelay::Fixed(delay) => duration(delay),
        HedgeDelay::Percentile { percent, least } => {
            format!("what {percent} of a hundred answers take, {} at least", duration(least))
        }
    };
    format!("a request without body and without an answer gets up to {max} more attempts, each after {after}")
}
