//! Matchers of fields, query and cookies: which route comes first, what cannot be ordered, what is never reached.

use super::*;

/// A matcher written as `header x-a = 1|2`, `query a ~ pattern` or `cookie a`.
fn matcher(text: &str) -> Matcher {
    let mut words = text.splitn(4, ' ');
    let source = match words.next() {
        Some("header") => Source::Header,
        Some("query") => Source::Query,
        Some("cookie") => Source::Cookie,
        other => panic!("{other:?}"),
    };
    let subject = Subject::new(source, words.next().expect("a name"));
    let test = match (words.next(), words.next()) {
        (Some("="), values) => Test::Exact(values.unwrap_or("").split('|').map(Into::into).collect()),
        (Some("~"), Some(text)) => Test::Regex(pattern(text)),
        _ => Test::Present,
    };
    Matcher { subject, test }
}

fn asking(path: &str, methods: &[Method], matchers: &[&str]) -> RouteSpec {
    RouteSpec { matchers: matchers.iter().map(|text| matcher(text)).collect(), ..spec(&[], path, methods) }
}

/// What a request of an untrusted client finds, as the number of the route. Fields are written `name: value`.
fn route_of(specs: &[RouteSpec], method: &Method, query: &str, fields: &[&str]) -> Option<u32> {
    route_from(specs, method, query, fields, false)
}

fn route_from(specs: &[RouteSpec], method: &Method, query: &str, lines: &[&str], trusted: bool) -> Option<u32> {
    let mut fields = Fields::new();
    for (name, value) in lines.iter().filter_map(|line| line.split_once(": ")) {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    let table = table(specs);
    let query = Some(query).filter(|query| !query.is_empty());
    let request = Request { host: "h", path: Some("/a/b"), method, query, fields: &fields, trusted };
    match table.lookup(&request, &mut table.lens()) {
        Lookup::Found(route) => Some(route.0),
        Lookup::NoRoute | Lookup::MethodNotAllowed => None,
    }
}

#[test]
fn a_route_whose_matchers_do_not_hold_is_as_if_it_were_not_there() {
    let specs = [asking("/", &[], &[]), asking("/a", &[], &["header x-beta = 1"])];
    assert_eq!(route_of(&specs, &GET, "", &["x-beta: 1"]), Some(1));
    assert_eq!(route_of(&specs, &GET, "", &["X-Beta: 1"]), Some(1));
    assert_eq!(route_of(&specs, &GET, "", &["x-beta: 2"]), Some(0));
    assert_eq!(route_of(&specs, &GET, "", &[]), Some(0));
    assert_eq!(route_of(&specs[1..], &GET, "", &[]), None);
}

#[test]
fn the_first_value_of_a_name_counts() {
    let specs = [
        asking("/", &[], &[]),
        asking("/", &[], &["header x-a = 1"]),
        asking("/", &[], &["query a = 1"]),
        asking("/", &[], &["cookie a = 1"]),
    ];
    assert_eq!(route_of(&specs, &GET, "", &["x-a: 1", "x-a: 2"]), Some(1));
    assert_eq!(route_of(&specs, &GET, "", &["x-a: 2", "x-a: 1"]), Some(0));
    assert_eq!(route_of(&specs, &GET, "a=1&a=2", &[]), Some(2));
    assert_eq!(route_of(&specs, &GET, "%61=%31", &[]), Some(2));
    assert_eq!(route_of(&specs, &GET, "a=2&a=1", &[]), Some(0));
    assert_eq!(route_of(&specs, &GET, "", &["cookie: b=2; a=1"]), Some(3));
    assert_eq!(route_of(&specs, &GET, "", &["cookie: b=2", "cookie: a=1; a=2"]), Some(3));
    assert_eq!(route_of(&specs, &GET, "", &["cookie: a=2; a=1"]), Some(0));
}

#[test]
fn more_matchers_come_first_and_of_as_many_the_more_telling() {
    let specs = [
        asking("/", &[], &[]),
        asking("/", &[], &["cookie a"]),
        asking("/", &[], &["query a"]),
        asking("/", &[], &["header a"]),
        asking("/", &[], &["cookie a ~ 1.*"]),
        asking("/", &[], &["cookie a = 1"]),
        asking("/", &[], &["cookie a", "query a"]),
        asking("/a", &[], &[]),
    ];
    let of = |specs: &[RouteSpec], query, fields: &[&str]| route_of(specs, &GET, query, fields);
    let (query, cookie, header) = ("a", "cookie: a=1", "a: 1");
    // A longer path comes before any matcher.
    assert_eq!(of(&specs, query, &[cookie, header]), Some(7));
    let specs = &specs[..7];
    assert_eq!(of(specs, query, &[cookie, header]), Some(6));
    assert_eq!(of(specs, "", &[cookie, header]), Some(5));
    assert_eq!(of(specs, "", &["cookie: a=12", header]), Some(4));
    assert_eq!(of(specs, query, &["cookie: b=12", header]), Some(3));
    assert_eq!(of(specs, query, &[]), Some(2));
    assert_eq!(of(specs, "", &["cookie: a=x"]), Some(1));
    assert_eq!(of(specs, "", &[]), Some(0));
}

#[test]
fn a_named_method_comes_before_matchers() {
    let specs = [asking("/", &[GET], &[]), asking("/", &[], &["header x-a"]), asking("/", &[GET], &["header x-b"])];
    assert_eq!(route_of(&specs, &GET, "", &["x-a: 1"]), Some(0));
    assert_eq!(route_of(&specs, &GET, "", &["x-a: 1", "x-b: 1"]), Some(2));
    assert_eq!(route_of(&specs, &POST, "", &["x-a: 1"]), Some(1));
}

#[test]
fn allow_names_the_methods_of_routes_that_would_take_the_request() {
    let specs = [asking("/a", &[GET], &["header x-a = 1"]), asking("/a", &[POST], &["header x-b"])];
    let table = table(&specs);
    let allowed = |name: &str| {
        let mut fields = Fields::new();
        fields.push(name.as_bytes(), b"1");
        let request =
            Request { host: "h", path: Some("/a"), method: &Method::Put, query: None, fields: &fields, trusted: false };
        let lens = &mut table.lens();
        (table.lookup(&request, lens), table.allow(&request, lens))
    };
    assert_eq!(allowed("x-a"), (Lookup::MethodNotAllowed, "GET".to_owned()));
    assert_eq!(allowed("x-b"), (Lookup::MethodNotAllowed, "POST".to_owned()));
    assert_eq!(allowed("x-c"), (Lookup::NoRoute, String::new()));
}

#[test]
fn what_only_a_trusted_proxy_may_say_is_not_looked_at_in_others_requests() {
    for name in ["x-forwarded-proto", "x-real-ip", "client-cert-extra", "x_user", "x-request-id"] {
        let specs = [asking("/", &[], &[]), asking("/", &[], &[&format!("header {name} = 1")])];
        let line = format!("{name}: 1");
        assert_eq!(route_from(&specs, &GET, "", &[&line], false), Some(0), "{name}");
        assert_eq!(route_from(&specs, &GET, "", &[&line], true), Some(1), "{name}");
    }
}

#[test]
fn a_pattern_matches_the_whole_value() {
    let takes = |text: &str, value: &str| {
        let specs = [asking("/", &[], &[&format!("header x-a ~ {text}")])];
        route_of(&specs, &GET, "", &[&format!("x-a: {value}")]).is_some()
    };
    assert!(takes("v[0-9]+", "v12") && !takes("v[0-9]+", "v12 ") && !takes("v[0-9]+", "xv12"));
    assert!(takes("a|ab", "ab") && takes("a|ab", "a") && !takes("a|ab", "abc"));
    assert!(takes("(?i)chrome.*", "CHROME/1") && !takes("chrome.*", "CHROME/1"));
    assert!(takes(".*é", "caf\u{e9}"));
}

#[test]
fn bad_patterns_say_what_is_wrong() {
    let wrong = |text: &str| Pattern::parse(text).expect_err("not a pattern");
    assert_eq!(wrong("(a"), "unclosed group");
    // It would be one between `\A(?:` and `)\z`, and no longer held to the whole value.
    assert_eq!(wrong("a)|(?:b"), "unopened group");
    assert_eq!(wrong("a{1000}{1000}"), "the compiled pattern is larger than 65536 bytes");
    assert_eq!(wrong(&"a".repeat(1025)), "the pattern is longer than 1024 bytes");
    assert!(wrong(r"\p{Greek}").contains("Unicode"), "{}", wrong(r"\p{Greek}"));
}

#[test]
fn routes_that_one_request_can_satisfy_have_to_differ_in_weight() {
    let conflicts = |some: &[&str], others: &[&str]| {
        Table::build(&[asking("/", &[], some), asking("/", &[], others)], true).map(|_| ()).is_err()
    };
    for (some, others) in [
        (&["header x = 1"][..], &["header x = 1"][..]),
        (&["header x = 1|2"], &["header x = 2|3"]),
        (&["header x = 1"], &["header y = 1"]),
        (&["header x ~ a.*"], &["header x ~ b.*"]),
        (&["header x"], &["header y"]),
        (&["header x = 1", "query a = 1"], &["header x = 1", "query b = 1"]),
        (&["header x = 1", "header y ~ a.*"], &["header x ~ 1.*", "header y = ab"]),
    ] {
        assert!(conflicts(some, others) && conflicts(others, some), "{some:?} {others:?}");
    }
    for (some, others) in [
        (&["header x = 1"][..], &["header x = 2"][..]),
        (&["header x = 1"], &["query x = 1"]),
        (&["header x = 1"], &["header x ~ 1"]),
        (&["header x"], &["header y", "header z"]),
        (&["header x = 1", "query a = 1"], &["header x = 1", "query a = 2"]),
        (&["header x = 1", "header y ~ a.*"], &["header x ~ 2.*", "header y = ab"]),
    ] {
        assert!(!conflicts(some, others) && !conflicts(others, some), "{some:?} {others:?}");
    }
}

#[test]
fn conflicts_of_matchers_are_told_once_with_what_both_take() {
    let mut specs = vec![asking("/x", &[GET, POST], &["header x-a", "cookie b"])];
    specs.push(asking("/x", &[POST, GET], &["header x-b", "cookie b"]));
    let conflicts = Table::build(&specs, true).expect_err("one request can have all of them");
    let taken = "any host, path prefix /x, method POST, and one request can satisfy the matchers of both".to_owned();
    assert_eq!(conflicts, [Conflict { first: RouteId(0), second: RouteId(1), taken }]);
}

#[test]
fn routes_that_others_cover_are_shadows() {
    let shadows = |specs: &[RouteSpec], allowed: Option<&[Method]>| -> Vec<(u32, Vec<u32>)> {
        let found = table(specs).shadows(specs, allowed);
        found.into_iter().map(|shadow| (shadow.route.0, shadow.by.into_iter().map(|by| by.0).collect())).collect()
    };
    // Exactly the path, and all below it.
    let halves = [asking("/a", &[], &[]), asking("=/a", &[], &[]), asking("/a/", &[], &[])];
    assert_eq!(shadows(&halves, None), [(0, vec![1, 2])]);
    assert_eq!(shadows(&halves[..2], None), []);
    // The same with matchers: those of the others have to hold whenever its own do.
    let mut narrow = halves.clone();
    narrow[0].matchers = vec![matcher("header x = 1")];
    assert_eq!(shadows(&narrow, None), [(0, vec![1, 2])]);
    narrow[1].matchers = vec![matcher("header x ~ [0-9]")];
    assert_eq!(shadows(&narrow, None), [(0, vec![1, 2])]);
    narrow[1].matchers = vec![matcher("header x = 2")];
    assert_eq!(shadows(&narrow, None), []);
    // Named methods, where no others come.
    let methods = [asking("/a", &[], &[]), asking("/a", &[GET], &[]), asking("/a", &[POST], &[])];
    assert_eq!(shadows(&methods, None), []);
    assert_eq!(shadows(&methods, Some(&[GET, POST])), [(0, vec![1, 2])]);
    assert_eq!(shadows(&methods, Some(&[GET, POST, Method::Put])), []);
    // On every host that it names.
    let mut hosts = halves;
    hosts[0].hosts = vec![host("h"), host("i")];
    hosts[1].hosts = vec![host("h")];
    hosts[2].hosts = vec![host("h"), host("i")];
    assert_eq!(shadows(&hosts, None), []);
    hosts[1].hosts.push(host("i"));
    assert_eq!(shadows(&hosts, None), [(0, vec![1, 2])]);
}

#[test]
fn ten_thousand_values_at_one_point_are_found_and_do_not_conflict() {
    let specs: Vec<RouteSpec> =
        (0..10_000).map(|at| asking("/", &[], &["header x-stage = live", &format!("cookie tenant = t{at}")])).collect();
    assert_eq!(route_of(&specs, &GET, "", &["x-stage: live", "cookie: tenant=t7777"]), Some(7_777));
    assert_eq!(route_of(&specs, &GET, "", &["x-stage: test", "cookie: tenant=t7777"]), None);
}
