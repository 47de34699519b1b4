//! What becomes of requests for which there is no room.

use super::Compiler;
use crate::config::diagnostic::Diagnostic;
use crate::config::generation::{Action, Route, Way};
use crate::config::keys;
use crate::config::schema::Located;
use crate::config::suggest;
use crate::overload::{AdaptivePolicy, BrownoutPolicy, QueuePolicy};
use std::fmt::Display;

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

/// Looks at a table of adaptive admission by itself: once, however many upstreams it is for.
pub(super) fn look_at_adaptive(compiler: &mut Compiler<'_>, written: &Located<keys::AdaptiveAdmission>) {
    let keys::AdaptiveAdmission { min_limit, max_limit, .. } = &written.value;
    if let Some(most) = max_limit.as_ref().filter(|most| most.value < min_limit.value) {
        let wrong = "`max_limit` is less than `min_limit`";
        contradiction(compiler, wrong, most, min_limit, "the limit stays between them");
    }
}

/// How much an upstream is given; `most`: what it may have in any case.
pub(super) fn adaptive(
    compiler: &mut Compiler<'_>,
    upstream: &keys::Upstream,
    most: &Located<u32>,
) -> Option<AdaptivePolicy> {
    let root = compiler.root;
    let own = upstream.adaptive_admission.as_ref();
    if let Some(own) = own {
        look_at_adaptive(compiler, own);
    }
    let written = &own.or(root.resilience.value.adaptive_admission.as_ref())?.value;
    if !written.enabled.value {
        return None;
    }
    let keys::AdaptiveAdmission { min_limit, max_limit, tolerance_percent, .. } = written;
    // The table of the process is for all upstreams, small ones too.
    if own.is_some() && min_limit.value > most.value {
        let wrong = "`min_limit` is more than the upstream may have in flight";
        contradiction(compiler, wrong, min_limit, most, "lower it, or raise `per_upstream_inflight_limit`");
    }
    let max = max_limit.as_ref().map_or(most.value, |max| max.value.min(most.value));
    Some(AdaptivePolicy { min: min_limit.value.min(max), max, tolerance_percent: tolerance_percent.value })
}

/// When only core routes are served.
pub(super) fn brownout(compiler: &mut Compiler<'_>) -> Option<BrownoutPolicy> {
    let root = compiler.root;
    let written = root.resilience.value.brownout.as_ref()?;
    let keys::Brownout { enter, enter_after, leave, leave_after, .. } = &written.value;
    if leave.value >= enter.value {
        let wrong = "a brownout that ends where it begins would go to and fro";
        contradiction(compiler, wrong, leave, enter, "make `leave` less than `enter`, by a fifth or so");
    }
    Some(BrownoutPolicy {
        enter: enter.value,
        leave: leave.value,
        enter_after: enter_after.value,
        leave_after: leave_after.value,
    })
}

/// Tells the routes which of them are served in a brownout, too.
pub(super) fn core_routes(compiler: &mut Compiler<'_>, routes: &mut [Route]) {
    let root = compiler.root;
    let Some(written) = &root.resilience.value.brownout else { return };
    let Some(core) = &written.value.core_routes else { return };
    if core.value.is_empty() {
        let none = Diagnostic::error("a brownout without core routes would refuse every request").at(core.place, "");
        compiler.report(none.help("name the routes that matter most, or remove [resilience.brownout]"));
        return;
    }
    for name in &core.value {
        let known = routes.iter().position(|route| *route.name == *name.value.0);
        let Some(at) = known else {
            let unknown = Diagnostic::error(format!("there is no route `{}`", name.value.0)).at(name.place, "");
            match suggest::nearest(&name.value.0, routes.iter().map(|route| &*route.name)) {
                Some(near) => compiler.report(unknown.help(format!("did you mean `{near}`?"))),
                None => compiler.report_missing(unknown.help("name a [[routes]] entry, or an upstream with a `route`")),
            }
            continue;
        };
        if !matches!(routes[at].action, Action::Forward { .. }) {
            let idle = Diagnostic::warning(format!("route `{}` answers by itself: it is always served", name.value.0));
            compiler.report(idle.at(name.place, "does nothing here").help("remove it from `core_routes`"));
        }
        routes[at].core = true;
    }
    let mut forwarding = routes.iter().filter(|route| matches!(route.action, Action::Forward { .. }));
    if !routes.is_empty() && forwarding.all(|route| route.core) {
        let idle = Diagnostic::warning("a brownout does nothing where all routes are core routes").at(core.place, "");
        compiler.report(idle.help("leave out those that can be done without"));
    }
}

/// Reports two values that do not go together.
fn contradiction<A: Display, B: Display>(
    compiler: &mut Compiler<'_>,
    wrong: &str,
    one: &Located<A>,
    other: &Located<B>,
    help: &'static str,
) {
    let error = Diagnostic::error(wrong).at(one.place, format!("{}", one.value));
    let error = if other.is_written() { error.at(other.place, format!("{}", other.value)) } else { error };
    compiler.report(error.help(help));
}
