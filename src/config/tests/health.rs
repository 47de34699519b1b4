//! `health_check`, `outlier_ejection` and what acts on health: defaults, who says it for whom, and what is refused.

use super::{SMALLEST, accept, refuse, told};
use crate::config::{BackendId, Generation, HealthCheck, ProbeSpeech, UpstreamId};
use std::time::Duration;

fn upstream(backends: &str, more: &str) -> String {
    format!(
        "version = 1\n[listen]\ntls = {{ cert = \"/c.pem\", key = \"/k.pem\" }}\n[upstream.u]\n\
         route = {{ path_prefix = \"/\" }}\nbackends = [ {backends} ]\n{more}\n"
    )
}

fn one(address: &str, check: &str) -> String {
    upstream(&format!("{{ id = \"a\", address = \"{address}\", health_check = {{ {check} }} }}"), "")
}

fn check(generation: &Generation, at: u32) -> &HealthCheck {
    generation.backend(BackendId(at)).health_check.as_ref().expect("it is probed")
}

#[test]
fn nobody_is_probed_or_ejected_unless_it_is_written() {
    let (generation, _) = accept(SMALLEST);
    assert!(generation.backend(BackendId(0)).health_check.is_none());
    let upstream = generation.upstream(UpstreamId(0));
    assert!(upstream.outliers.is_none() && upstream.slow_start.is_none() && upstream.panic_threshold == 0);
    assert!(!generation.watches(UpstreamId(0)));
}

#[test]
fn the_smallest_check_has_the_defaults_of_the_reference() {
    let (generation, warnings) = accept(&one("http://10.0.0.1:8080", "path = \"/health\", interval = \"5s\""));
    assert!(warnings.is_empty(), "{warnings}");
    let check = check(&generation, 0);
    let policy = check.policy;
    assert_eq!((policy.interval, policy.timeout), (Duration::from_secs(5), Duration::from_secs(1)));
    assert_eq!((policy.failures, policy.successes), (3, 2));
    assert_eq!((check.speech, check.target.forwarded(), &*check.host), (ProbeSpeech::H1, "/health", "10.0.0.1:8080"));
    assert_eq!((check.expectation.statuses.as_slice(), &check.expectation.body), (&[200..=399][..], &None));
    assert!(generation.watches(UpstreamId(0)));
}

#[test]
fn a_probe_speaks_as_requests_do_unless_it_is_told_otherwise() {
    for (address, keys, speech) in [
        ("http://10.0.0.1", "", ProbeSpeech::H1),
        ("unix:/run/a.sock", "", ProbeSpeech::H1),
        ("https://10.0.0.1", "", ProbeSpeech::Tls),
        ("10.0.0.1:443", "", ProbeSpeech::Tls),
        ("h2c://10.0.0.1", "", ProbeSpeech::H2),
        ("http://10.0.0.1", "type = \"h2\"", ProbeSpeech::H2),
        ("https://10.0.0.1", "type = \"h2\"", ProbeSpeech::TlsH2),
        ("https://10.0.0.1", "type = \"tcp\"", ProbeSpeech::Nothing),
        ("http://10.0.0.1", "type = \"https\", port = 8443", ProbeSpeech::Tls),
        ("https://10.0.0.1", "type = \"http\", port = 8080", ProbeSpeech::H1),
    ] {
        let (generation, warnings) = accept(&one(address, keys));
        assert!(warnings.is_empty(), "{warnings}");
        assert_eq!(check(&generation, 0).speech, speech, "{address} {keys}");
        let tls = speech.is_tls() || address.starts_with("https") || address.starts_with("10.");
        assert_eq!(generation.speaks_tls(UpstreamId(0)), tls, "{address} {keys}");
    }
}

#[test]
fn a_backends_own_check_stands_in_place_of_its_upstreams() {
    let text = upstream(
        "{ id = \"a\", address = \"http://10.0.0.1\" }, \
         { id = \"b\", address = \"http://10.0.0.2\", health_check = { path = \"/b?x=1\", host = \"b.internal\" } }",
        "health_check = { interval = \"9s\", expected_status = 204, expected_body = \"up\" }",
    );
    let (generation, _) = accept(&text);
    let (first, second) = (check(&generation, 0), check(&generation, 1));
    assert_eq!(first.policy.interval, Duration::from_secs(9));
    assert_eq!(
        (first.expectation.statuses.as_slice(), first.expectation.body.as_deref()),
        (&[204..=204][..], Some(&b"up"[..]))
    );
    assert_eq!(
        (second.policy.interval, second.target.forwarded(), &*second.host),
        (Duration::from_secs(5), "/b?x=1", "b.internal")
    );
}

#[test]
fn an_upstreams_ejections_stand_in_place_of_the_processs() {
    let two = "{ id = \"a\", address = \"http://10.0.0.1\" }, { id = \"b\", address = \"http://10.0.0.2\" }";
    let everywhere = "[resilience.outlier_ejection]\nconsecutive_failures = 7\nfailure_percent = \"off\"";
    let outliers = |own: &str| {
        let (generation, warnings) = accept(&upstream(two, &format!("{own}\n{everywhere}")));
        assert!(warnings.is_empty(), "{warnings}");
        generation.upstream(UpstreamId(0)).outliers
    };
    let shared = outliers("").expect("on");
    assert_eq!((shared.consecutive, shared.percent, shared.max_percent), (7, None, 50));
    let own = outliers("outlier_ejection = { failure_percent = 20 }").expect("on");
    assert_eq!((own.consecutive, own.percent, own.requests), (5, Some(20), 20));
    assert_eq!(outliers("outlier_ejection = { enabled = false }"), None);
}

#[test]
fn what_contradicts_itself_is_refused_once_with_a_way_out() {
    let unix = one("unix:/run/a.sock", "port = 80");
    let two = "{ id = \"a\", address = \"http://10.0.0.1\" }, { id = \"b\", address = \"http://10.0.0.2\" }";
    let check = |keys: &str| one("http://10.0.0.1", keys);
    for (text, expected) in [
        (
            check("timeout = \"6s\""),
            "`timeout` is longer than `interval`: the next probe would be due before this one ends",
        ),
        (
            check("interval = \"500ms\""),
            "`timeout` is longer than `interval`: the next probe would be due before this one ends",
        ),
        // Once, however many backends it is for.
        (
            upstream(two, "health_check = { timeout = \"6s\" }"),
            "`timeout` is longer than `interval`: the next probe would be due before this one ends",
        ),
        (check("type = \"tcp\", path = \"/x\""), "`path` does nothing with type \"tcp\""),
        (check("type = \"tcp\", expected_body = \"x\""), "`expected_body` does nothing with type \"tcp\""),
        (check("type = \"https\""), "no probe of type \"https\" can pass there"),
        (one("https://10.0.0.1", "type = \"http\""), "no probe of type \"http\" can pass there"),
        (one("h2c://10.0.0.1", "type = \"http\""), "no probe of type \"http\" can pass there"),
        (unix, "a unix socket has no port"),
        (check("expected_body = \"\""), "every body contains the empty text"),
        (check("expected_status = 101"), "`expected_status`: these are no final statuses"),
        (check("expected_status = \"299-200\""), "`expected_status`: these are no final statuses"),
        (check("expected_status = [\"200-299\", \"4xx\"]"), "`expected_status`: these are no final statuses"),
        (check("path = \"health\""), "`path`: the path does not begin with `/`"),
        (check("path = \"/a/../health\""), "`path`: it would be sent otherwise than it is written"),
        (check("type = \"grpc\""), "`type` does not know this word"),
        (
            upstream(two, "outlier_ejection = { base_ejection_time = \"10m\" }"),
            "`base_ejection_time` is longer than `max_ejection_time`",
        ),
        (
            upstream(two, "[resilience.outlier_ejection]\nmax_ejection_time = \"1s\""),
            "`base_ejection_time` is longer than `max_ejection_time`",
        ),
        (
            upstream(two, "load_balancing = { panic_threshold = 101 }"),
            "`panic_threshold` is out of range: from 0 to 100",
        ),
    ] {
        let messages: Vec<String> = refuse(&text).into_iter().map(|(.., message)| message).collect();
        assert_eq!(messages, [expected], "{text}");
    }
}

#[test]
fn what_would_do_nothing_is_told() {
    let two = "{ id = \"a\", address = \"http://10.0.0.1\" }, { id = \"b\", address = \"http://10.0.0.2\" }";
    for (text, expected) in [
        (
            upstream(two, "load_balancing = { slow_start = \"10s\" }"),
            "`slow_start` does nothing: no backend here is ever unhealthy",
        ),
        (
            upstream(two, "load_balancing = { panic_threshold = 50 }"),
            "`panic_threshold` does nothing: no backend here is ever unhealthy",
        ),
        (
            upstream(two, "outlier_ejection = { max_ejected_percent = 49 }"),
            "upstream `u` has 2 backends: 49 % of them is less than one, and none is ever ejected",
        ),
    ] {
        let (_, warnings) = accept(&text);
        let messages: Vec<String> = told(warnings.iter()).into_iter().map(|(.., message)| message).collect();
        assert_eq!(messages, [expected], "{text}");
    }
    let both = upstream(two, "load_balancing = { slow_start = \"10s\", panic_threshold = 1 }\nhealth_check = {}");
    assert!(accept(&both).1.is_empty());
}
