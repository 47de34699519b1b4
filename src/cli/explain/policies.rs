//! What becomes of a request on its way that meets failures, sick backends or a crowd: the rules, in words.

use super::report::Policy;
use super::words::duration;
use crate::config::{Generation, UpstreamId, WayId};
use crate::health::OutlierPolicy;
use crate::http::RequestHead;
use crate::overload::AdaptivePolicy;
use crate::resilience::{HedgeDelay, HedgePolicy, RetryPolicy};

/// The rules of a way that leads to an upstream.
pub(super) fn policies(generation: &Generation, id: WayId, head: &RequestHead) -> Vec<Policy> {
    let way = generation.way(id);
    let Some(upstream_id) = way.upstream else { return Vec::new() };
    let upstream = generation.upstream(upstream_id);
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
        ("health_check", probes(generation, upstream_id)),
        ("outlier_ejection", upstream.outliers.as_ref().map_or_else(off, ejection)),
        (
            "slow_start",
            upstream.slow_start.map_or_else(off, |time| {
                format!("a backend that is healthy again has its whole share after {}", duration(time))
            }),
        ),
        (
            "panic_threshold",
            match upstream.panic_threshold {
                0 => "off: without a healthy backend the answer is 503".to_owned(),
                percent => format!("while less than {percent} % of the backends are healthy, health is disregarded"),
            },
        ),
        (
            "route_queue",
            way.queue.as_ref().map_or_else(off, |queue| {
                let (length, client, wait) = (queue.length, queue.per_client, duration(queue.wait));
                format!("{length} requests may wait for room at the upstream, {client} of one client, {wait} at most")
            }),
        ),
        (
            "max_inflight_per_address",
            performance.max_inflight_per_address.map_or_else(off, |most| format!("{most} exchanges of one client")),
        ),
        (
            "adaptive_admission",
            upstream.adaptive.map_or_else(off, |AdaptivePolicy { min, max, tolerance_percent }| {
                format!("{min} to {max} at once, less where answers take {tolerance_percent} % longer than unloaded")
            }),
        ),
        (
            "brownout",
            match (generation.brownout, generation.route(way.route).core) {
                (None, _) => off(),
                (Some(_), true) => "a core route: served in any case".to_owned(),
                (Some(policy), false) => {
                    let (enter, leave) = (policy.enter, policy.leave);
                    format!("refused from {enter} % of pressure on, until there is less than {leave} %")
                }
            },
        ),
        (
            "memory_soft_limit",
            performance
                .memory_soft_limit
                .map_or_else(off, |bytes| format!("refused while the process holds {bytes} bytes or more")),
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

fn probes(generation: &Generation, id: UpstreamId) -> String {
    let backends = generation.backends_of(id);
    match backends.iter().filter(|backend| backend.health_check.is_some()).count() {
        0 => "off: nobody is probed".to_owned(),
        probed => format!("{probed} of {} backends are probed; who does not pass is left out", backends.len()),
    }
}

fn ejection(policy: &OutlierPolicy) -> String {
    let rate = policy.percent.map_or_else(String::new, |percent| {
        format!(", or {percent} % of at least {} in {}", policy.requests, duration(policy.interval))
    });
    format!(
        "after {} failures in a row{rate}: out for {} and longer each time, up to {}; never more than {} % of the backends",
        policy.consecutive,
        duration(policy.base_time),
        duration(policy.max_time),
        policy.max_percent
    )
}
