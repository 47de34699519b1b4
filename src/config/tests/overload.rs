//! Queues and what else is said of requests for which there is no room.

use super::{SMALLEST, accept, refuse};
use crate::config::generation::Generation;
use crate::overload::QueuePolicy;
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
