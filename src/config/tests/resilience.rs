//! `retry`, `retry_budget`, `circuit_breaker` and `hedging`: whose word holds, and what contradicts itself.

use super::{SMALLEST, accept, refuse};
use crate::config::{Generation, UpstreamId, WayId};
use crate::resilience::{BreakerPolicy, BudgetPolicy, Condition, Conditions, HedgeDelay, HedgePolicy};
use std::time::Duration;

const ROUTE: &str =
    "[[routes]]\nname = \"own\"\nmatch = { path_prefix = \"/own\" }\naction = { upstream = \"default\" }\n";

/// Two backends, what the upstream says, and what stands below.
fn with(upstream: &str, more: &str) -> String {
    let second = "backends = [ { id = \"backend2\", address = \"http://127.0.0.1:8081\" },";
    format!("{}{upstream}\n{more}\n", SMALLEST.replace("backends = [", second))
}

fn conditions(conditions: &[Condition]) -> Conditions {
    conditions.iter().copied().collect()
}

/// The policies of the short route and of the other one.
fn ways(generation: &Generation) -> [crate::config::Way; 2] {
    [0, 1].map(|at| generation.way(WayId(at)).clone())
}

#[test]
fn a_route_comes_before_its_upstream_and_that_before_all_key_by_key() {
    let usual = [Condition::ConnectFailure, Condition::RefusedStream, Condition::Reset, Condition::Timeout];
    let (generation, warnings) = accept(&with("", ROUTE));
    assert!(warnings.is_empty(), "{warnings}");
    for way in ways(&generation) {
        assert_eq!((way.retry.attempts, way.retry.on, way.hedging), (3, conditions(&usual), None));
    }
    let (generation, warnings) = accept(&with(
        "retry = { attempts = 4, backoff = \"10ms\", per_try_timeout = \"2s\" }",
        &format!(
            "{ROUTE}retry = {{ on = [\"503\", \"timeout\"], backoff = \"1s\", per_try_timeout = \"off\" }}\n\
             [resilience.retry]\nattempts = 2\nreplay_buffer = \"1KiB\"\nper_try_timeout = \"3s\"\n"
        ),
    ));
    assert!(warnings.is_empty(), "{warnings}");
    let [short, own] = ways(&generation);
    assert_eq!((short.retry.attempts, own.retry.attempts), (4, 4));
    assert_eq!(short.retry.on, conditions(&usual));
    assert_eq!(own.retry.on, conditions(&[Condition::Status(503), Condition::Timeout]));
    assert_eq!((short.retry.per_try_timeout, own.retry.per_try_timeout), (Some(Duration::from_secs(2)), None));
    assert_eq!((short.retry.replay_buffer, own.retry.replay_buffer), (1024, 1024));
    assert_eq!(short.retry.backoff, Duration::from_millis(10));
    // The first pause bounds the longest from below, wherever they are written.
    assert_eq!((own.retry.backoff, own.retry.max_backoff), (Duration::from_secs(1), Duration::from_secs(1)));
}

#[test]
fn every_condition_is_read_and_nothing_else() {
    let text = |on: &str| format!("{SMALLEST}[resilience.retry]\non = [{on}]\n");
    let all = "\"connect-failure\", \"refused-stream\", \"reset\", \"timeout\", \"gateway-error\", \"5xx\", \"429\"";
    let (generation, _) = accept(&text(all));
    let on = generation.way(WayId(0)).retry.on;
    assert!(on.connect_failure && on.refused_stream && on.reset && on.timeout);
    assert!(on.has_status(429) && on.has_status(500) && on.has_status(599) && !on.has_status(404));
    assert_eq!(accept(&text("")).0.way(WayId(0)).retry.on, Conditions::NONE);
    for (wrong, message) in [
        ("\"404\"", "`on` does not know this status"),
        ("\"200\"", "`on` does not know this status"),
        ("\"rset\"", "`on` does not know this word"),
        ("503", "`on` takes"),
    ] {
        let told = refuse(&text(wrong));
        assert!(told[0].2.contains(message), "{wrong}: {told:?}");
    }
}

#[test]
fn budgets_and_breakers_may_be_an_upstreams_own() {
    let text = with(
        "retry_budget = { percent = 5 }\ncircuit_breaker = { failures = 2 }",
        "[upstream.other]\nroute = { path_prefix = \"/other\" }\n\
         backends = [ { id = \"b\", address = \"http://127.0.0.1:1\" } ]\ncircuit_breaker = { enabled = false }\n\
         [upstream.third]\nroute = { path_prefix = \"/third\" }\n\
         backends = [ { id = \"b\", address = \"http://127.0.0.1:1\" } ]\n\
         [resilience.retry_budget]\nmin_per_sec = 3\n[resilience.circuit_breaker]\nfailures = 9\nopen_for = \"9s\"\n",
    );
    let (generation, _) = accept(&text);
    let of = |name: &str| generation.upstreams.iter().find(|upstream| &*upstream.name == name).unwrap();
    let window = Duration::from_secs(10);
    assert_eq!(of("default").retry_budget, BudgetPolicy { percent: 5, min_per_sec: 3, window });
    assert_eq!(of("third").retry_budget, BudgetPolicy { percent: 20, min_per_sec: 3, window });
    let breaker =
        |failures, seconds| Some(BreakerPolicy { failures, open_for: Duration::from_secs(seconds), trials: 1 });
    // As a whole: what it does not say is the default, not what stands above.
    assert_eq!(of("default").circuit_breaker, breaker(2, 5));
    assert_eq!(of("other").circuit_breaker, None);
    assert_eq!(of("third").circuit_breaker, breaker(9, 9));
    assert_eq!(accept(SMALLEST).0.upstream(UpstreamId(0)).circuit_breaker, None);
}

#[test]
fn the_nearest_table_of_hedging_holds_as_a_whole() {
    let measured = HedgeDelay::Percentile { percent: 95, least: Duration::from_millis(5) };
    let (generation, warnings) = accept(&with(
        "hedging = { at = \"p95\" }",
        &format!("{ROUTE}hedging = {{ delay = \"70ms\", max = 2 }}\n[resilience.hedging]\ndelay = \"1s\"\n"),
    ));
    assert!(warnings.is_empty(), "{warnings}");
    let [short, own] = ways(&generation);
    assert_eq!(short.hedging, Some(HedgePolicy { delay: measured, max: 1 }));
    assert_eq!(own.hedging, Some(HedgePolicy { delay: HedgeDelay::Fixed(Duration::from_millis(70)), max: 2 }));
    assert_eq!(generation.attempts_at_once(), 3);
    let off = format!("{ROUTE}hedging = {{ enabled = false }}\n[resilience.hedging]\ndelay = \"1s\"\n");
    let (generation, _) = accept(&with("", &off));
    let [short, own] = ways(&generation);
    assert!(short.hedging.is_some() && own.hedging.is_none());
    assert_eq!(accept(SMALLEST).0.attempts_at_once(), 1);
}

#[test]
fn what_can_never_be_is_refused_with_its_cause() {
    let never = "`per_try_timeout` can never run out: ";
    for (upstream, more, expected) in [
        (
            "",
            "[resilience.retry]\nper_try_timeout = \"15s\"",
            format!("{never}`backend_timeout` ends the request before"),
        ),
        (
            "",
            "[performance]\ntotal_request_timeout = \"1s\"\n[resilience.retry]\nper_try_timeout = \"1s\"",
            format!("{never}`total_request_timeout` ends the request before"),
        ),
        (
            "retry = { per_try_timeout = \"3s\" }\ntimeouts = { backend_timeout = \"2s\" }",
            "",
            format!("{never}`backend_timeout` ends the request before"),
        ),
        (
            "timeouts = { total_request_timeout = \"2s\" }",
            &format!("{ROUTE}retry = {{ per_try_timeout = \"2s\" }}"),
            format!("{never}`total_request_timeout` ends the request before"),
        ),
        ("retry = { max_backoff = \"1ms\" }", "", "`max_backoff` is shorter than `backoff`".into()),
        ("hedging = {}", "", "`hedging` does not say when: `delay` or `at` has to be written".into()),
        (
            "hedging = { delay = \"1s\", at = \"p99\" }",
            "",
            "`delay` and `at` both say when another attempt begins".into(),
        ),
        (
            "hedging = { delay = \"15s\" }",
            "",
            "no hedge can ever begin: `backend_timeout` ends the request before".into(),
        ),
        (
            "retry = { attempts = 1 }\nhedging = { delay = \"1s\" }",
            "",
            "not so many hedges can ever begin: `attempts` of `retry` is 1, the first and the hedges included".into(),
        ),
        (
            "",
            &format!("{ROUTE}hedging = {{ delay = \"1s\", max = 3 }}"),
            "not so many hedges can ever begin: `attempts` of `retry` is 3, the first and the hedges included".into(),
        ),
    ] {
        let told = refuse(&with(upstream, more));
        let messages: Vec<&String> = told.iter().map(|(_, _, message)| message).collect();
        assert_eq!(messages, [&expected], "{upstream} {more}");
        assert!(told[0].0 > 0, "it has a place");
    }
}

#[test]
fn a_percentile_is_one_of_three() {
    for percent in [90, 95, 99] {
        let (generation, _) = accept(&with(&format!("hedging = {{ at = \"p{percent}\" }}"), ""));
        assert_eq!(generation.way(WayId(0)).hedging.unwrap().delay.percent(), Some(percent));
    }
    let told = refuse(&with("hedging = { at = \"p96\" }", ""));
    assert!(told.iter().any(|(_, _, message)| message == "`at` does not know this word"), "{told:?}");
}

#[test]
fn that_a_layer_below_has_other_times_is_no_contradiction() {
    let (generation, warnings) = accept(&with(
        "timeouts = { backend_timeout = \"1s\" }",
        &format!(
            "{ROUTE}timeouts = {{ backend_timeout = \"5s\" }}\nretry = {{ per_try_timeout = \"4s\" }}\n\
             [resilience.retry]\nper_try_timeout = \"2s\"\n"
        ),
    ));
    assert!(warnings.is_empty(), "{warnings}");
    assert_eq!(ways(&generation)[1].retry.per_try_timeout, Some(Duration::from_secs(4)));
}

#[test]
fn what_does_nothing_is_a_warning() {
    for (upstream, more, expected) in [
        ("retry = { attempts = 1, on = [\"503\"] }", "", "`on` does nothing where `attempts` is 1"),
        (
            "retry = { attempts = 1, per_try_timeout = \"1s\" }",
            "",
            "`per_try_timeout` does nothing where `attempts` is 1",
        ),
        (
            "retry = { on = [\"reset\"], per_try_timeout = \"1s\" }",
            "",
            "`per_try_timeout` does nothing where `on` does not have \"timeout\"",
        ),
        ("hedging = { delay = \"1s\", least_delay = \"10ms\" }", "", "`least_delay` does nothing without `at`"),
    ] {
        let warnings = accept(&with(upstream, more)).1.to_string();
        assert!(warnings.contains(expected), "{upstream}: {warnings}");
    }
    let (_, warnings) = accept(&format!("{SMALLEST}hedging = {{ delay = \"1s\" }}\n"));
    assert!(warnings.to_string().contains("`hedging` does nothing on an upstream with one backend"), "{warnings}");
    let answers = "[[routes]]\nname = \"x\"\nmatch = { path = \"/x\" }\naction = { respond = { status = 204 } }\n";
    for table in ["retry = { attempts = 2 }", "hedging = { delay = \"1s\" }"] {
        let told = refuse(&format!("{SMALLEST}{answers}{table}\n"));
        assert!(told[0].2.contains("does nothing on a route that forwards no request"), "{told:?}");
    }
}
