//! What is told of requests, against what the request path does with them.

use super::ask::Ask;
use super::decide::{World, decide};
use super::report::{Outcome, Report};
use super::*;
use crate::balance::KeyedHash;
use crate::config::{Generation, Notes};
use crate::exchange::affinity::{Asker, affinity};
use crate::http::{HeadLimits, Peer, Scheme};
use clap::Parser;

const TEXT: &str = r#"
version = 1
[[listeners]]
name = "plain"
port = 8080
cleartext = "serve"
[[listeners]]
name = "closed"
port = 8081
cleartext = "serve"
clients = { deny = ["198.51.100.0/24"] }
[[listeners]]
name = "redirects"
port = 80
cleartext = "redirect"
[upstream.main]
route = { path_prefix = "/" }
backends = [ { id = "m1", address = "http://127.0.0.1:1" }, { id = "m2", address = "http://127.0.0.1:2", weight = 300 } ]
[upstream.kept]
backends = [ { id = "k1", address = "http://127.0.0.1:1" }, { id = "k2", address = "http://127.0.0.1:2" }, { id = "k3", address = "http://127.0.0.1:3" } ]
load_balancing = { type = "consistent-hash", key = "cookie:sid" }
timeouts = { backend_timeout = "3s", backend_connect_timeout = "400ms" }
[[routes]]
name = "kept"
match = { path_prefix = "/kept" }
action = { upstream = "kept", rewrite = "/n" }
timeouts = { backend_connect_timeout = "200ms" }
request_headers = { set = [ { name = "x-key", value = "hush-set" } ], remove = ["cookie"] }
response_headers = { set = [ { name = "server", value = "hush-set" } ], add = [ { name = "vary", value = "hush-add" } ] }
[[routes]]
name = "beta"
match = { path_prefix = "/m", headers = [ { name = "x-beta", exact = "hush-wanted" } ] }
action = { upstream = "kept" }
[[routes]]
name = "posts"
match = { path_prefix = "/posts", host = "p.test", method = "POST" }
action = { upstream = "main" }
limits = { max_request_body_bytes = "10B" }
[[routes]]
name = "inside"
match = { path_prefix = "/inside" }
action = { upstream = "main" }
clients = { allow = ["192.0.2.0/24"], deny = ["192.0.2.66"] }
[[routes]]
name = "split"
match = { path_prefix = "/split" }
action = { upstreams = [ { upstream = "main", weight = 90 }, { upstream = "kept", weight = 10 } ], sticky = "cookie:sid" }
[[routes]]
name = "gone"
match = { path = "/gone" }
action = { respond = { status = 410, body = "gone" } }
[[routes]]
name = "old"
match = { path_prefix = "/old" }
action = { redirect = { location = "https://new.test/", keep_path = true } }
[[routes]]
name = "unmasked"
match = { path_prefix = "/pub" }
action = { upstream = "main", rewrite = "/" }
[[rate_limits]]
name = "tenant"
key = "header:X-Tenant"
requests = 5
routes = ["gone"]
[routing]
encoded_slash = "refuse"
[performance]
backend_body_idle_timeout = "7s"
[resilience]
protocol = { denied_path_prefixes = ["/admin"], allowed_methods = ["GET", "POST", "PUT", "OPTIONS"] }
"#;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

fn compiled(text: &str) -> (Generation, Notes) {
    let (generation, _, notes) = config::from_str_with_notes("t.toml", text).unwrap_or_else(|wrong| panic!("{wrong}"));
    (generation, notes)
}

fn hash() -> KeyedHash {
    KeyedHash::new([7; 16])
}

/// A request as it stands on the command line, without the name of the command.
fn asked(line: &str) -> (Options, Ask) {
    let words = std::iter::once("explain").chain(line.split('|').map(str::trim));
    let Line { options } = Line::try_parse_from(words).unwrap_or_else(|wrong| panic!("{line}: {wrong}"));
    let ask = options.ask().unwrap_or_else(|wrong| panic!("{line}: {wrong}"));
    (options, ask)
}

fn explained_with(text: &str, line: &str, hash: Result<KeyedHash, String>) -> Report {
    let (generation, notes) = compiled(text);
    let sites: Vec<_> = generation.listeners.iter().map(|_| None).collect();
    let world = World { generation: Arc::new(generation), notes: &notes, sites: &sites, hash };
    let (options, ask) = asked(line);
    decide(&world, &ask, options.protocol, options.listener.as_deref())
        .unwrap_or_else(|wrong| panic!("{line}: {wrong}"))
}

fn explained(line: &str) -> Report {
    explained_with(TEXT, line, Ok(hash()))
}

/// The check that ended a request.
fn ended(report: &Report) -> Option<&str> {
    let mut judged = report.checks.iter();
    judged.find(|check| matches!(check.outcome, Outcome::Refused | Outcome::Answered)).map(|check| check.check)
}

#[test]
fn every_refusal_names_its_check_and_has_the_reason_and_the_status_of_the_answer() {
    for (line, status, reason, check) in [
        ("GET | http://a.test:8080/a\\b", 400, "target", "head"),
        ("GET | http://a.test:8080/ | -H | content-length: x", 400, "content_length", "head"),
        ("CONNECT | http://a.test:8080/", 405, "method_refused", "head"),
        ("DELETE | http://a.test:8080/", 405, "method_refused", "method"),
        ("GET | http://a.test:8080/x%2Fy", 400, "encoded_slash", "encoded_slash"),
        ("GET | http://a.test:8080/x/../%61dmin/x", 403, "path_denied", "denied_paths"),
        ("GET | http://a.test:8080/pub/admin", 403, "path_denied", "rewritten_path"),
        ("OPTIONS | * | -H | host: a.test", 404, "no_route", "route"),
        ("POST | http://p.test:8080/posts | -H | content-length: 11", 413, "body_too_large", "body_size"),
        ("GET | http://a.test:8080/inside | --from | 192.0.2.66", 403, "address_denied", "clients"),
        ("GET | http://a.test:8080/inside", 403, "address_denied", "clients"),
    ] {
        let report = explained(line);
        let decision = &report.decision;
        assert_eq!(
            (decision.action, decision.status, decision.reason),
            ("refuse", Some(status), Some(reason)),
            "{line}"
        );
        assert_eq!(ended(&report), Some(check), "{line}");
        let behind = report.checks.iter().skip_while(|judged| judged.check != check).skip(1);
        assert!(behind.into_iter().all(|judged| judged.outcome == Outcome::NotReached), "{line}");
        assert_eq!(report.checks.len(), 12, "{line}");
    }
}

#[test]
fn a_listener_may_end_it_before_anything_is_read() {
    let report = explained("GET | http://a.test/gone | --listener | closed | --from | 198.51.100.7");
    assert_eq!((report.decision.status, report.decision.reason), (None, Some("address_denied")));
    assert_eq!(ended(&report), Some("listener_clients"));
    assert!(
        report.checks[0].detail.contains("198.51.100.0/24, which is denied (t.toml:11:11)"),
        "{:?}",
        report.checks[0]
    );
    // By its usual port it is the one that sends everything elsewhere.
    let report = explained("GET | http://a.test/gone?x");
    assert_eq!(report.listener.name, "redirects");
    assert_eq!(
        (report.decision.action, report.decision.location.as_deref()),
        ("redirect", Some("https://a.test/gone?x"))
    );
    let (generation, notes) = compiled(TEXT);
    let sites: Vec<_> = generation.listeners.iter().map(|_| None).collect();
    let world = World { generation: Arc::new(generation), notes: &notes, sites: &sites, hash: Ok(hash()) };
    for line in
        ["GET | https://a.test/", "GET | http://a.test/ | --protocol | h2", "GET | http://a.test/ | --listener | x"]
    {
        let (options, ask) = asked(line);
        let wrong = decide(&world, &ask, options.protocol, options.listener.as_deref()).expect_err(line);
        assert_eq!(wrong.exit, crate::control::Exit::Usage, "{line}");
    }
}

#[test]
fn routes_say_why_they_were_not_taken_in_the_words_of_the_file() {
    let report = explained("GET | http://a.test:8080/m | -H | x-beta: hush-sent");
    assert_eq!((report.decision.route.as_deref(), report.decision.at.as_deref()), (Some("main"), Some("t.toml:17:9")));
    let told = |name: &str| {
        let found = report.considered.iter().find(|route| route.route == name).expect("every route is told");
        (found.why_not, found.detail.clone())
    };
    assert_eq!(told("main").0, None);
    assert_eq!(told("beta").0, Some("header"));
    assert!(told("beta").1.contains("another value of header x-beta"), "{:?}", told("beta"));
    assert_eq!(told("kept"), (Some("path"), "it takes paths under `/kept`, the request has `/m`".to_owned()));
    assert_eq!(told("posts").0, Some("host"));
    let report = explained("GET | http://p.test:8080/posts");
    let posts = report.considered.iter().find(|route| route.route == "posts").expect("told");
    assert_eq!((posts.why_not, posts.detail.as_str()), (Some("method"), "it takes `POST`, not GET"));
    let report = explained("POST | http://p.test:8080/posts");
    let main = report.considered.iter().find(|route| route.route == "main").expect("told");
    assert_eq!(
        (main.why_not, main.detail.as_str()),
        (Some("less_specific"), "it fits, but `posts` has a more specific host")
    );
}

#[test]
fn each_value_says_which_table_it_is_of() {
    let report = explained("GET | http://a.test:8080/kept/x");
    let of = |key: &str| {
        let found = report.ways[0].settings.iter().find(|setting| setting.key == key).expect(key);
        (found.value.as_str(), found.from, found.at.is_some())
    };
    assert_eq!(of("backend_connect_timeout"), ("200ms", "route", true));
    assert_eq!(of("backend_timeout"), ("3s", "upstream", true));
    assert_eq!(of("backend_body_idle_timeout"), ("7s", "performance", true));
    assert_eq!(of("total_request_timeout"), ("off", "default", false));
    assert_eq!(of("max_response_header_bytes"), ("64KiB", "default", false));
    let way = &report.ways[0];
    assert_eq!(way.forwarded_path.as_deref(), Some("/n/x"));
    assert!(
        way.request_fields.added.contains(&"x-key".to_owned()) && way.request_fields.added.contains(&"via".to_owned())
    );
    assert_eq!(report.response_fields.changed, ["server"]);
    assert_eq!(report.response_fields.added, ["vary"]);
}

#[test]
fn the_backend_of_a_hash_is_the_one_that_the_request_path_would_pick() {
    let (generation, _) = compiled(TEXT);
    let kept = generation.upstream_ids().find(|id| &*generation.upstream(*id).name == "kept").expect("an upstream");
    let balancing = &generation.upstream(kept).balancing;
    let config::Balancing::ConsistentHash(_, table) = balancing else { panic!("{balancing:?}") };
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..60 {
        let line = format!("GET | http://a.test:8080/kept | -H | cookie: sid=user-{number}");
        let report = explained(&line);
        let (_, ask) = asked(&line);
        let head = ask.head((super::ask::Protocol::H1, Scheme::Http), &HeadLimits::REQUEST).expect("good");
        let asker = Asker { peer: &Peer::new(Some(ask.peer)), connection: [9; 16] };
        let number = affinity(&generation, balancing, &head, asker, &hash()).expect("it has its key");
        let expected = &generation.backends_of(kept)[table.pick(number, |_| false).expect("three")].id;
        assert_eq!(report.decision.backend.as_deref(), Some(&**expected), "{line}");
        let mut ranks: Vec<_> = report.decision.backend_scores.iter().map(|score| score.rank).collect();
        ranks.sort_unstable();
        assert_eq!(ranks, [Some(1), Some(2), Some(3)]);
        seen.insert(expected.clone());
    }
    assert_eq!(seen.len(), 3);
}

#[test]
fn what_chance_or_load_decides_is_not_claimed() {
    // No key, or no secret.
    for report in [
        explained("GET | http://a.test:8080/kept"),
        explained_with(TEXT, "GET | http://a.test:8080/kept | -H | cookie: sid=1", Err("it is not there".to_owned())),
    ] {
        assert_eq!((report.decision.upstream.as_deref(), report.decision.backend), (Some("kept"), None));
        assert!(
            report.decision.backend_scores.iter().all(|score| (score.share - 1.0 / 3.0).abs() < 1e-9 && !score.picked)
        );
    }
    let report = explained("GET | http://a.test:8080/");
    let shares: Vec<f64> = report.decision.backend_scores.iter().map(|score| score.share).collect();
    assert_eq!(shares, [0.25, 0.75]);
    let report = explained("GET | http://a.test:8080/split");
    assert_eq!((report.decision.action, report.decision.upstream.as_deref()), ("forward", None));
    assert_eq!(report.ways.iter().map(|way| way.chosen).collect::<Vec<_>>(), [None, None]);
    // With its key the way is certain, and both ways are taken by some.
    let chosen: std::collections::BTreeSet<_> = (0..40)
        .map(|at| explained(&format!("GET | http://a.test:8080/split | -H | cookie: sid={at}")).decision.upstream)
        .collect();
    assert_eq!(chosen, [Some("kept".to_owned()), Some("main".to_owned())].into());
    let report = explained("GET | http://a.test:8080/gone | -H | x-tenant: hush-sent");
    let limits = report.checks.iter().find(|check| check.check == "rate_limits").expect("all are told");
    assert_eq!(limits.outcome, Outcome::Depends);
    assert!(
        limits.detail.contains("`tenant`") && limits.detail.contains("by the request's header:x-tenant"),
        "{limits:?}"
    );
}

#[test]
fn a_body_that_only_some_upstreams_of_a_split_take_is_no_refusal() {
    let text = TEXT.replace(
        "timeouts = { backend_timeout",
        "limits = { max_request_body_bytes = 5 }\ntimeouts = { backend_timeout",
    );
    let outcome = |line: &str| {
        let report = explained_with(&text, line, Ok(hash()));
        let judged = report.checks.iter().find(|check| check.check == "body_size").expect("told").outcome;
        (judged, report.decision.reason)
    };
    let by_chance = "POST | http://a.test:8080/split | -H | content-length: ";
    assert_eq!(outcome(&format!("{by_chance}6")), (Outcome::Depends, None));
    assert_eq!(outcome(&format!("{by_chance}5")), (Outcome::Passed, None));
    assert_eq!(
        outcome("POST | http://a.test:8080/kept | -H | content-length: 6"),
        (Outcome::Refused, Some("body_too_large"))
    );
    let kept: std::collections::BTreeSet<_> =
        (0..40).map(|at| outcome(&format!("{by_chance}6 | -H | cookie: sid={at}")).1).collect();
    assert_eq!(kept, [None, Some("body_too_large")].into());
}

#[test]
fn answers_of_routes_are_told_whole() {
    let report = explained("GET | http://a.test:8080/old/x?y");
    let decision = &report.decision;
    let location = decision.location.as_deref();
    assert_eq!((decision.action, decision.status, location), ("redirect", Some(308), Some("https://new.test/x")));
    let report = explained("GET | http://a.test:8080/gone");
    let decision = &report.decision;
    assert_eq!((decision.action, decision.status, decision.route.as_deref()), ("respond", Some(410), Some("gone")));
    let report = explained("OPTIONS | http://a.test:8080/ | -H | max-forwards: 0");
    assert_eq!((report.decision.action, report.decision.status), ("answer_options", Some(204)));
}

#[test]
fn what_comes_before_the_request_is_told() {
    let proxied = TEXT.replacen(
        "cleartext = \"serve\"",
        "cleartext = \"serve\"\nproxy_protocol = { from = [\"10.0.0.0/8\"] }",
        1,
    );
    let tunnel = "GET | http://a.test:8080/ | -H | upgrade: websocket | -H | connection: upgrade \
                  | -H | sec-websocket-version: 13 | -H | sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==";
    let report = explained_with(&proxied, tunnel, Ok(hash()));
    assert_eq!((report.listener.proxy_protocol, report.request.tunnel), (Some("serve"), Some("websocket")));
    let plain = text::write(&report);
    assert!(plain.contains("PROXY protocol") && plain.contains("tunnel       websocket"), "{plain}");
    let report = explained("GET | http://a.test:8080/");
    assert_eq!((report.listener.proxy_protocol, report.request.tunnel), (None, None));
}

#[test]
fn no_value_of_a_field_is_told_and_nothing_writes_on_the_terminal() {
    for line in [
        "GET | http://a.test:8080/kept | -H | authorization: Bearer hush-sent | -H | cookie: sid=hush-sent",
        "GET | http://a.test:8080/m | -H | x-beta: hush-sent",
        "GET | http://a.test:8080/split | -H | cookie: sid=hush-sent",
        "GET | http://a.test:8080/x\u{1b}[31m\u{9b}\u{202e}",
    ] {
        let report = explained(line);
        let (plain, json) = (text::write(&report), json_line(&report));
        assert!(!plain.contains("hush") && !json.contains("hush"), "{plain}\n{json}");
        assert!(
            !plain.chars().any(|c| c.is_control() && c != '\n') && !json.chars().any(char::is_control),
            "{plain:?}"
        );
    }
}

#[test]
fn of_ten_thousand_routes_a_screenful_is_shown_and_json_has_all() {
    let route = |at| {
        format!(
            "[[routes]]\nname = \"r{at}\"\nmatch = {{ path_prefix = \"/r{at}\" }}\naction = {{ upstream = \"main\" }}\n"
        )
    };
    let more: String = (0..10_000).map(route).collect();
    let report = explained_with(&format!("{TEXT}\n{more}"), "GET | http://a.test:8080/r77/x", Ok(hash()));
    assert_eq!(report.decision.route.as_deref(), Some("r77"));
    assert!(report.considered.len() > 10_000);
    let plain = text::write(&report);
    assert!(plain.lines().count() < 80 && plain.contains("✓ r77"), "{plain}");
    assert!(plain.contains("more, for other hosts or paths"), "{plain}");
}

#[test]
fn every_member_is_documented() {
    fn members(value: &serde_json::Value, found: &mut Vec<String>) {
        for (name, inner) in value.as_object().into_iter().flatten() {
            found.push(name.clone());
            members(inner, found);
        }
        value.as_array().into_iter().flatten().for_each(|inner| members(inner, found));
    }
    let report = explained("GET | http://a.test:8080/kept");
    let mut names = Vec::new();
    members(&serde_json::from_str(&json_line(&report)).expect("JSON"), &mut names);
    names.extend(report.checks.iter().map(|check| check.check.to_owned()));
    names.extend(report.ways[0].policies.iter().map(|policy| policy.policy.to_owned()));
    names.sort_unstable();
    names.dedup();
    assert!(names.len() > 60, "{names:?}");
    let page = include_str!("../../../docs/OPERATING.md");
    let missing: Vec<_> = names.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/OPERATING.md does not say what these are: {missing:?}");
}
