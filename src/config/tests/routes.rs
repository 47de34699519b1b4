//! Routes in full form: what they become, and what is wrong with them.

use super::*;
use crate::http::respond::{FixedResponse, Redirect};

/// Two upstreams without routes, then what a test adds.
fn with(more: &str) -> String {
    let upstream =
        |name: &str| format!("[upstream.{name}]\nbackends = [ {{ id = \"x\", address = \"http://127.0.0.1\" }} ]\n");
    let listen = "version = 1\n[listen]\ntls = { cert = \"/c.pem\", key = \"/k.pem\" }\n";
    format!("{listen}{}{}{more}", upstream("one"), upstream("two"))
}

/// The actions of routes that are accepted with nothing but warnings.
fn actions(more: &str) -> Vec<Action> {
    let (generation, _) = accept(&with(more));
    generation.routes.iter().map(|route| route.action.clone()).collect()
}

/// What is wrong; that no route leads to an upstream follows from it.
fn messages(more: &str) -> Vec<String> {
    let found = refuse(&with(more)).into_iter().map(|(_, _, message)| message);
    found.filter(|message| !message.starts_with("no route leads to")).collect()
}

/// A route with an action, and more of it.
fn route(action: &str, more: &str) -> String {
    format!("[[routes]]\nname = \"r\"\naction = {{ {action} }}\n{more}\n")
}

/// A route to an upstream with a match.
fn matching(written: &str) -> String {
    route("upstream = \"one\"", &format!("match = {{ {written} }}"))
}

#[test]
fn a_split_has_a_way_for_each_upstream() {
    let (generation, warnings) = accept(&with(&format!(
        "timeouts = {{ backend_timeout = \"3s\" }}\n{}",
        route(
            "upstreams = [ { upstream = \"two\", weight = 90 }, { upstream = \"one\", weight = 10 } ], sticky = \"cookie:id\"",
            "limits = { max_request_body_bytes = 7 }"
        )
    )));
    assert!(warnings.is_empty(), "{warnings}");
    assert_eq!(generation.routes[0].ways, 0..2);
    // In the order of the names, whatever the order of the file.
    let ways: Vec<_> =
        generation.ways.iter().map(|way| (way.route, way.upstream, way.timeouts.backend.as_secs())).collect();
    assert_eq!(ways, [(RouteId(0), Some(UpstreamId(0)), 15), (RouteId(0), Some(UpstreamId(1)), 3)]);
    assert!(generation.ways.iter().all(|way| way.limits.max_request_body_bytes == Some(7)));
    let subject = crate::route::Subject::new(crate::route::Source::Cookie, "id");
    let shares = crate::route::Shares::new([10, 90], Some(crate::route::Sticky::Value(subject)));
    assert!(
        matches!(&generation.routes[0].action, Action::Forward { shares: found, rewrite: None } if *found == shares)
    );
}

#[test]
fn redirects_and_fixed_responses_are_compiled() {
    let more = [
        route(
            "redirect = { location = \"https://b.example/x?y#z\", status = 302, keep_path = true }",
            "match = { path_prefix = \"/a\" }",
        ),
        route("redirect = { location = \"/b\", keep_query = true }", "match = { path = \"/b\" }")
            .replace("\"r\"", "\"s\""),
        route("respond = { status = 410, body = \"gone\" }", "match = { path = \"/c\" }").replace("\"r\"", "\"t\""),
        route("respond = { status = 204 }", "match = { path = \"/d\" }").replace("\"r\"", "\"u\""),
    ];
    let [Action::Redirect(first), Action::Redirect(second), Action::Respond(third), Action::Respond(fourth)] =
        &actions(&more.concat())[..]
    else {
        panic!("two redirects and two fixed responses")
    };
    let expected = Redirect {
        status: 302,
        base: "https://b.example/x".into(),
        query: Some("y".into()),
        fragment: Some("z".into()),
        behind: Some("/a".into()),
        keep_query: false,
    };
    assert_eq!(*first, expected);
    let plain =
        Redirect { status: 308, base: "/b".into(), query: None, fragment: None, behind: None, keep_query: true };
    assert_eq!(*second, plain);
    let text = "text/plain; charset=utf-8";
    assert_eq!(*third, FixedResponse { status: 410, body: b"gone"[..].into(), content_type: text.into() });
    assert_eq!(*fourth, FixedResponse { status: 204, body: [].into(), content_type: text.into() });
}

#[test]
fn a_rewrite_knows_what_it_replaces() {
    let more = [
        route("upstream = \"one\", rewrite = \"/v2\"", "match = { path_prefix = \"/api\" }"),
        route("upstream = \"two\", rewrite = \"/v2\"", "match = { path = \"/api\" }").replace("\"r\"", "\"s\""),
    ];
    let rewrites: Vec<_> = actions(&more.concat())
        .into_iter()
        .map(|action| match action {
            Action::Forward { rewrite: Some(Rewrite { base, behind }), .. } => (base, behind),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(rewrites, [("/v2".into(), Some("/api".into())), ("/v2".into(), None)]);
}

#[test]
fn mistakes_in_matchers_say_what_is_wrong() {
    for (written, expected) in [
        ("headers = [ { exact = \"1\" } ]", "`name` is missing in `routes.#1.match.headers.#1`"),
        ("headers = [ { name = \"x\" } ]", "a matcher needs `exact`, `regex` or `present`"),
        (
            "headers = [ { name = \"x\", exact = \"1\", present = true } ]",
            "a matcher has one of `exact`, `regex` and `present`",
        ),
        ("headers = [ { name = \"x\", present = false } ]", "a matcher cannot ask for what is not there"),
        ("headers = [ { name = \"a b\", present = true } ]", "`name`: this is not a field name"),
        ("headers = [ { name = \"Host\", present = true } ]", "`name`: the host is no field here"),
        ("headers = [ { name = \"cookie\", present = true } ]", "`name`: cookies are looked at one by one"),
        (
            "headers = [ { name = \"Transfer-Encoding\", present = true } ]",
            "`name`: a field of this name belongs to one connection, so it says something else on every protocol",
        ),
        ("headers = [ { name = \"x\", exact = \" 1\" } ]", "no header can have this value"),
        ("headers = [ { name = \"x\", exact = [\"1\", \"\\n\"] } ]", "no header can have this value"),
        ("headers = [ { name = \"x\", exact = [] } ]", "`exact` is an empty array"),
        ("headers = [ { name = \"x\", regex = \"(\" } ]", "`regex`: unclosed group"),
        (
            "headers = [ { name = \"x\", regex = \"[a-z]{900}{900}\" } ]",
            "`regex`: the compiled pattern is larger than 65536 bytes",
        ),
        (
            "headers = [ { name = \"x\", present = true }, { name = \"X\", exact = \"1\" } ]",
            "two matchers look at header x",
        ),
        ("query = [ { name = \"\", present = true } ]", "`name`: a parameter has a name"),
        ("cookies = [ { name = \"a=b\", present = true } ]", "`name`: this is not the name of a cookie"),
        ("cookies = [ { name = \"a\", exact = \"1;2\" } ]", "no cookie can have this value"),
    ] {
        let found = messages(&matching(written));
        assert!(found.iter().any(|message| message == expected), "{written}\n{found:#?}");
    }
    let many: Vec<String> = (0..17).map(|at| format!("{{ name = \"x{at}\", present = true }}")).collect();
    assert_eq!(messages(&matching(&format!("query = [ {} ]", many.join(", ")))), ["a route has 16 matchers at most"]);
}

#[test]
fn mistakes_in_actions_say_what_is_wrong() {
    let long = "x".repeat((16 << 10) + 1);
    let body = format!("respond = {{ status = 200, body = \"{long}\" }}");
    for (action, expected) in [
        ("", "an action needs `upstream`, `upstreams`, `redirect` or `respond`"),
        ("upstream = \"one\", respond = { status = 200 }", "an action has `upstream` or `respond`, not both"),
        ("upstream = \"on\"", "there is no upstream `on`"),
        ("upstream = \"one\", sticky = \"client_ip\"", "`sticky` does nothing without `upstreams`"),
        ("mirror = \"one\"", "`mirror` in `routes.#1.action` is not available in this version"),
        ("upstreams = []", "a split has at least two upstreams"),
        ("upstreams = [ { upstream = \"one\" } ]", "a split has at least two upstreams"),
        (
            "upstreams = [ { upstream = \"one\" }, { upstream = \"one\" } ]",
            "two shares of this split go to upstream `one`",
        ),
        ("upstreams = [ { upstream = \"one\" }, { upstream = \"three\" } ]", "there is no upstream `three`"),
        ("upstreams = [ { upstream = \"one\", weight = 0 } ]", "`weight` is out of range: from 1 to 1000"),
        ("upstream = \"one\", sticky = \"ip\"", "`sticky`: nothing of a request is called like this"),
        (
            "upstream = \"one\", sticky = \"header:connection\"",
            "`sticky`: a field of this name belongs to one connection, so it says something else on every protocol",
        ),
        ("respond = { status = 200 }, rewrite = \"/x\"", "`rewrite` does nothing on a route that forwards no request"),
        ("redirect = { status = 304, location = \"/x\" }", "status 304 sends nobody anywhere"),
        ("redirect = { location = \"x\" }", "`location`: this is neither a URL nor a path"),
        ("redirect = { location = \"//x\" }", "`location`: this is neither a URL nor a path"),
        ("redirect = { location = \"https:///x\" }", "`location`: the URL names no host"),
        ("redirect = { location = \"/a b\" }", "`location`: a URL has other characters escaped"),
        ("redirect = { location = \"/a%\" }", "`location`: the path of this URL is one that we would refuse ourselves"),
        ("respond = { status = 103 }", "`status` is out of range: from 200 to 599"),
        ("respond = { status = 204, body = \"x\" }", "a response with status 204 has no body"),
        ("respond = { status = 200, content_type = \"x/y\" }", "`content_type` does nothing without `body`"),
        (&body, "`body`: the body is longer than 16 KiB"),
    ] {
        let found = messages(&route(action, ""));
        assert!(found.iter().any(|message| message == expected), "{action}\n{found:#?}");
    }
    for (more, expected) in [
        ("timeouts = { backend_timeout = 1 }", "`timeouts` does nothing on a route that forwards no request"),
        ("limits = { max_request_body_bytes = 1 }", "`limits` does nothing on a route that forwards no request"),
        (
            "request_headers = { remove = [\"x\"] }",
            "`request_headers` does nothing on a route that forwards no request",
        ),
    ] {
        assert_eq!(messages(&route("respond = { status = 200 }", more)), [expected]);
    }
    let exact = "match = { path = \"/a\" }";
    assert_eq!(
        messages(&route("redirect = { location = \"/b\", keep_path = true }", exact)),
        ["`keep_path` does nothing: there is nothing behind an exact path"]
    );
    assert_eq!(
        messages(&route("upstream = \"one\", rewrite = \"/b\"", "match = { path = \"*\" }")),
        ["`rewrite` does nothing: the target \"*\" has no path"]
    );
}

#[test]
fn mistakes_in_changes_of_fields_say_what_is_wrong() {
    for (edits, expected) in [
        ("remove = [\"a b\"]", "`remove`: this is not a field name"),
        ("remove = [\"Connection\"]", "`remove`: a field of this name belongs to one connection"),
        (
            "set = [ { name = \"Content-Length\", value = \"1\" } ]",
            "`name`: a field of this name belongs to one connection",
        ),
        ("set = [ { name = \"host\", value = \"x\" } ]", "`name`: Host is not changed here"),
        ("set = [ { name = \"alt-svc\", value = \"x\" } ]", "`name`: Alt-Svc is not changed here"),
        ("set = [ { name = \"x\", value = \"a\\r\\nb: c\" } ]", "`value`: no field can have this value"),
        ("add = [ { name = \"x\" } ]", "`value` is missing in `routes.#1.request_headers.add.#1`"),
        ("remove = [\"x\", \"X\"]", "the fields of one name are removed or set twice"),
        (
            "remove = [\"x\"], set = [ { name = \"X\", value = \"1\" } ]",
            "the fields of one name are removed or set twice",
        ),
    ] {
        let found = messages(&route("upstream = \"one\"", &format!("request_headers = {{ {edits} }}")));
        assert_eq!(found, [expected], "{edits}");
    }
}

#[test]
fn conflicts_and_shadows_show_both_places() {
    let more = "[[routes]]
name = \"a\"
match = { path_prefix = \"/x\", headers = [ { name = \"x-a\", exact = \"1\" } ] }
action = { upstream = \"one\" }
[[routes]]
name = \"b\"
match = { path_prefix = \"/x\", headers = [ { name = \"x-b\", exact = \"hunter2\" } ] }
action = { upstream = \"two\" }
";
    let text = with(more);
    let shown = from_str("t", &text).map(|_| ()).expect_err("a request can have both").to_string();
    let line =
        |name: &str| text.lines().position(|line| line == format!("name = \"{name}\"")).expect("it is there") + 2;
    assert!(shown.starts_with("error: no rule can order the routes `a` and `b`: both take any host, path prefix /x, any method, and one request can satisfy the matchers of both\n"), "{shown}");
    assert!(shown.contains(&format!("t:{}:9", line("b"))) && shown.contains(&format!("t:{}:9", line("a"))), "{shown}");

    let more = "[[routes]]
name = \"whole\"
match = { path_prefix = \"/x\" }
action = { upstream = \"one\" }
[[routes]]
name = \"exact\"
match = { path = \"/x\" }
action = { upstream = \"two\" }
[[routes]]
name = \"below\"
match = { path_prefix = \"/x/\" }
action = { respond = { status = 404 } }
";
    let (_, warnings) = accept(&with(more));
    let shown = warnings.to_string();
    assert!(shown.contains("no request reaches route `whole`: `exact` and `below` take all that it would"), "{shown}");
    assert_eq!(shown.matches("comes first").count(), 2, "{shown}");
}

#[test]
fn patterns_count_in_the_budget() {
    let budget = |more: &str| {
        let (generation, _) = accept(&format!("{}[performance]\nworker_threads = 2\n", with(more)));
        generation.budget().bytes()
    };
    let pattern = "headers = [ { name = \"x\", regex = \"a\" } ], query = [ { name = \"x\", regex = \"b\" } ]";
    let plain = "headers = [ { name = \"x\", exact = \"a\" } ], query = [ { name = \"x\", exact = \"b\" } ]";
    let each = (crate::limits::PATTERN_COMPILED_BYTES + 2 * crate::limits::PATTERN_CACHE_BYTES) as u64;
    assert_eq!(budget(&matching(pattern)) - budget(&matching(plain)), 4 * each);
}
