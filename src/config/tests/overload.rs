//! Queues and what else is said of requests for which there is no room.

use super::{SMALLEST, accept, refuse};
use crate::config::generation::{Generation, UpstreamId};
use crate::overload::{AdaptivePolicy, BrownoutPolicy, QueuePolicy};
use std::time::Duration;

const ROUTES: &str = r#"
[[routes]]
name = "api"
match = { path_prefix = "/api" }
action = { upstream = "default" }
limits = { max_queue_length = 7 }
[[routes]]
name = "bulk"
match = { path_prefix = "/bulk" }
action = { upstream = "default" }
limits = { max_queue_length = "off" }
[[routes]]
name = "gone"
match = { path_prefix = "/gone" }
action = { respond = { status = 410 } }
"#;

fn with(more: &str) -> String {
    format!("{SMALLEST}{ROUTES}{more}")
}

fn told(text: &str) -> Vec<String> {
    refuse(text).into_iter().map(|(_, _, message)| message).collect()
}

fn queue(generation: &Generation, route: &str) -> Option<QueuePolicy> {
    let named = |way: &&crate::config::Way| &*generation.route(way.route).name == route;
    generation.ways.iter().find(named).expect("a route").queue
}

#[test]
fn nobody_waits_unless_it_is_wanted() {
    let (generation, warnings) = accept(SMALLEST);
    assert!(warnings.is_empty() && queue(&generation, "default").is_none());
    assert_eq!(generation.performance.max_inflight_per_address, None);
    let budget = generation.budget().to_string();
    let places = budget.lines().find(|line| line.contains("places in queues")).expect("an item");
    assert!(places.contains(" 0 × 256 B"), "{places}");
}

#[test]
fn a_route_has_the_queue_of_all_or_its_own() {
    let (generation, warnings) = accept(&with("[resilience.route_queue]\nmax_length = 100\nmax_wait = \"300ms\"\n"));
    assert!(warnings.is_empty(), "{warnings}");
    let wait = Duration::from_millis(300);
    assert_eq!(queue(&generation, "default"), Some(QueuePolicy { length: 100, per_client: 25, wait }));
    assert_eq!(queue(&generation, "api"), Some(QueuePolicy { length: 7, per_client: 2, wait }));
    assert_eq!((queue(&generation, "bulk"), queue(&generation, "gone")), (None, None));
    assert!(generation.budget().to_string().contains("107 × 256 B"), "{}", generation.budget());

    let own = accept(&with("[resilience.route_queue]\nmax_length_per_address = 5\n")).0;
    let wait = Duration::from_secs(1);
    assert_eq!(queue(&own, "api"), Some(QueuePolicy { length: 7, per_client: 5, wait }));
    assert_eq!(queue(&own, "default"), None);
}

#[test]
fn queues_that_contradict_themselves_are_refused() {
    let one = |more: &str| {
        let told = told(&with(more));
        assert_eq!(told.len(), 1, "{told:?}");
        told[0].clone()
    };
    let larger = one("[resilience.route_queue]\nmax_length = 10\nmax_length_per_address = 11\n");
    assert!(larger.contains("`max_length_per_address` is more than a whole queue holds"), "{larger}");
    let never = one("[resilience.route_queue]\nmax_length = 100\n[performance]\nglobal_inflight_limit = 100\n");
    assert!(never.contains("a queue of 100 can never be full"), "{never}");
    let total =
        "[resilience.route_queue]\nmax_length = 9\nmax_wait = \"5s\"\n[performance]\ntotal_request_timeout = \"5s\"\n";
    assert!(one(total).contains("`max_wait` can never run out"));
    assert!(told(&with("[resilience.route_queue]\nmax_length = 0\n"))[0].contains("max_length"));
}

#[test]
fn what_does_nothing_is_said() {
    let (_, warnings) = accept(&format!("{SMALLEST}[resilience.route_queue]\nmax_length_per_address = 1\n"));
    let text = warnings.to_string();
    assert!(text.contains("`max_length_per_address` does nothing"), "{text}");
}

#[test]
fn an_upstream_is_given_no_more_than_it_may_have() {
    let text = |keys: &str| with(&format!("[resilience.adaptive_admission]\n{keys}\n"));
    let of = |generation: &Generation| generation.upstream(UpstreamId(0)).adaptive.expect("it is on");
    let (generation, warnings) = accept(&text(""));
    assert!(warnings.is_empty(), "{warnings}");
    assert_eq!(of(&generation), AdaptivePolicy { min: 16, max: 8_192, tolerance_percent: 25 });
    let (generation, _) = accept(&text("min_limit = 1\nmax_limit = 10\ntolerance_percent = 50"));
    assert_eq!(of(&generation), AdaptivePolicy { min: 1, max: 10, tolerance_percent: 50 });
    assert_eq!(accept(SMALLEST).0.upstream(UpstreamId(0)).adaptive, None);

    assert!(told(&text("min_limit = 9\nmax_limit = 8"))[0].contains("`max_limit` is less than `min_limit`"));
    // The table of all upstreams is for small ones, too.
    let small = "[resilience.adaptive_admission]\nmin_limit = 9\n[performance]\nper_upstream_inflight_limit = 8\n";
    assert_eq!(of(&accept(&with(small)).0), AdaptivePolicy { min: 8, max: 8, tolerance_percent: 25 });
    let own = |keys: &str| format!("{small}[upstream.default.adaptive_admission]\n{keys}\n");
    assert_eq!(of(&accept(&with(&own("min_limit = 2"))).0).min, 2);
    assert_eq!(accept(&with(&own("enabled = false"))).0.upstream(UpstreamId(0)).adaptive, None);
    let more = told(&with(&own("min_limit = 9")));
    assert_eq!((more.len(), more[0].contains("`min_limit` is more than the upstream may have in flight")), (1, true));
}

#[test]
fn a_brownout_knows_its_core_routes() {
    let brownout = |keys: &str| with(&format!("[resilience.brownout]\n{keys}\n"));
    let (generation, warnings) = accept(&brownout("core_routes = [\"api\", \"default\"]"));
    assert!(warnings.is_empty(), "{warnings}");
    let core = |name: &str| generation.routes.iter().find(|route| &*route.name == name).expect("a route").core;
    assert_eq!(["api", "default", "bulk", "gone"].map(core), [true, true, false, false]);
    let seconds = Duration::from_secs;
    let policy = BrownoutPolicy { enter: 90, leave: 70, enter_after: seconds(2), leave_after: seconds(10) };
    assert_eq!(generation.brownout, Some(policy));

    let one = |keys: &str| told(&brownout(keys)).join("; ");
    assert!(one("core_routes = [\"apu\"]").contains("there is no route `apu`"));
    assert!(refuse(&brownout("core_routes = [\"apu\"]")).len() == 1);
    assert!(one("core_routes = []").contains("would refuse every request"));
    assert!(one("").contains("core_routes"));
    assert!(one("core_routes = [\"api\"]\nenter = 50\nleave = 50").contains("would go to and fro"));
    assert!(one("core_routes = [\"api\"]\nenter = 60").contains("would go to and fro"), "70 is the default");

    let all = accept(&brownout("core_routes = [\"api\", \"default\", \"bulk\"]")).1.to_string();
    assert!(all.contains("does nothing where all routes are core routes"), "{all}");
    let own = accept(&brownout("core_routes = [\"gone\", \"api\"]")).1.to_string();
    assert!(own.contains("route `gone` answers by itself"), "{own}");
}

#[test]
fn memory_has_a_soft_limit() {
    assert_eq!(accept(SMALLEST).0.performance.memory_soft_limit, None);
    let (generation, _) = accept(&format!("{SMALLEST}[performance]\nmemory_soft_limit = \"512MiB\"\n"));
    assert_eq!(generation.performance.memory_soft_limit, Some(512 << 20));
    assert!(told(&format!("{SMALLEST}[performance]\nmemory_soft_limit = \"1MiB\"\n"))[0].contains("memory_soft_limit"));
}
