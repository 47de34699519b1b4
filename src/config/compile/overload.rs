//! What becomes of requests for which there is no room.

use super::Compiler;
use crate::config::diagnostic::Diagnostic;
use crate::config::generation::Way;
use crate::config::keys;
use crate::overload::QueuePolicy;

/// How requests of a way wait; `None`: they do not.
pub(super) fn queue(route: Option<&keys::RouteLimits>, keys: &keys::RouteQueue) -> Option<QueuePolicy> {
    let own = route.and_then(|limits| limits.max_queue_length.as_ref());
    let length = own.map_or(keys.max_length.value.0, |own| own.value.0)?;
    let per_client = keys.max_length_per_address.as_ref().map_or_else(|| length.div_ceil(4), |most| most.value);
    Some(QueuePolicy { length, per_client: per_client.min(length), wait: keys.max_wait.value })
}

/// Finds what contradicts itself in `[resilience.route_queue]`.
pub(super) fn check_queues(compiler: &mut Compiler<'_>, ways: &[Way]) {
    let performance = &compiler.root.performance.value;
    let keys = &compiler.root.resilience.value.route_queue.value;
    let share = keys.max_length_per_address.as_ref();
    if ways.iter().all(|way| way.queue.is_none()) {
        if let Some(share) = share {
            let idle = Diagnostic::warning("`max_length_per_address` does nothing: no route has a queue");
            compiler.report(idle.at(share.place, "").help("set `max_length`, or remove it"));
        }
        return;
    }
    let length = &keys.max_length;
    if let (Some(share), Some(most)) = (share, length.value.0)
        && share.value > most
    {
        let larger = Diagnostic::error("`max_length_per_address` is more than a whole queue holds")
            .at(share.place, "")
            .at(length.place, "the whole queue");
        compiler.report(larger.help("make it smaller than `max_length`, so that no client fills a queue alone"));
    }
    let all = &performance.global_inflight_limit;
    if let Some(most) = length.value.0.filter(|most| *most >= all.value) {
        let never = Diagnostic::error(format!("a queue of {most} can never be full: who waits is in flight, too"))
            .at(length.place, "not less than `global_inflight_limit`");
        let never = if all.is_written() { never.at(all.place, "this one") } else { never };
        compiler.report(never.help("shorten the queue, or raise `global_inflight_limit`"));
    }
    let (wait, total) = (&keys.max_wait, &performance.total_request_timeout);
    if let Some(limit) = total.value.0.filter(|limit| wait.value >= *limit) {
        let never = Diagnostic::error("`max_wait` can never run out: the whole request has less time")
            .at(if wait.is_written() { wait.place } else { length.place }, format!("it may wait for {:?}", wait.value))
            .at(total.place, format!("the whole has {limit:?}"));
        compiler.report(never.help("shorten `max_wait`, or lengthen `total_request_timeout`"));
    }
}
