//! Routing rules one by one, and the compiled table against a linear scan that says the rules out loud.

use super::*;
use std::sync::LazyLock;

mod matchers;

use crate::http::{Fields, Known, Method};

fn host(text: &str) -> HostPattern {
    HostPattern::parse(text).expect("a valid host")
}

fn spec(hosts: &[&str], path: &str, methods: &[Method]) -> RouteSpec {
    let path = match path.strip_prefix('=') {
        Some("*") => PathPattern::Pathless,
        Some(exact) => PathPattern::Exact(exact.into()),
        None => PathPattern::Prefix(path.into()),
    };
    RouteSpec {
        hosts: hosts.iter().map(|text| host(text)).collect(),
        path,
        methods: methods.to_vec(),
        matchers: Vec::new(),
    }
}

fn table(specs: &[RouteSpec]) -> Table {
    Table::build(specs, true).expect("no conflicts")
}

/// What is found for a request that has nothing but host, path and method.
fn ask(table: &Table, host: &str, path: Option<&str>, method: &Method) -> Lookup {
    let request = Request { host, path, method, query: None, fields: &Fields::new(), trusted: false };
    table.lookup(&request, &mut table.lens())
}

/// The value of Allow for such a request.
fn allow(table: &Table, host: &str, path: &str, method: &Method) -> Option<String> {
    let request = Request { host, path: Some(path), method, query: None, fields: &Fields::new(), trusted: false };
    let lens = &mut table.lens();
    (table.lookup(&request, lens) == Lookup::MethodNotAllowed).then(|| table.allow(&request, lens))
}

fn found(route: u32) -> Lookup {
    Lookup::Found(RouteId(route))
}

const GET: Method = Method::Get;
const POST: Method = Method::Post;

#[test]
fn a_prefix_ends_at_a_segment() {
    let table = table(&[spec(&[], "/api", &[])]);
    assert_eq!(ask(&table, "h", Some("/api"), &GET), found(0));
    assert_eq!(ask(&table, "h", Some("/api/"), &GET), found(0));
    assert_eq!(ask(&table, "h", Some("/api/x"), &GET), found(0));
    assert_eq!(ask(&table, "h", Some("/apix"), &GET), Lookup::NoRoute);
    assert_eq!(ask(&table, "h", Some("/ap"), &GET), Lookup::NoRoute);
    assert_eq!(ask(&table, "h", Some("/"), &GET), Lookup::NoRoute);
}

#[test]
fn a_prefix_with_a_slash_takes_only_what_is_below() {
    let table = table(&[spec(&[], "/api/", &[]), spec(&[], "/", &[])]);
    assert_eq!(ask(&table, "h", Some("/api"), &GET), found(1));
    assert_eq!(ask(&table, "h", Some("/api/"), &GET), found(0));
    assert_eq!(ask(&table, "h", Some("/api/x"), &GET), found(0));
}

#[test]
fn exact_beats_prefix_and_longer_beats_shorter() {
    let table = table(&[
        spec(&[], "/", &[]),
        spec(&[], "/a", &[]),
        spec(&[], "=/a", &[]),
        spec(&[], "/a/b", &[]),
        spec(&[], "=/", &[]),
    ]);
    assert_eq!(ask(&table, "h", Some("/a"), &GET), found(2));
    assert_eq!(ask(&table, "h", Some("/a/"), &GET), found(1));
    assert_eq!(ask(&table, "h", Some("/a/b/c"), &GET), found(3));
    assert_eq!(ask(&table, "h", Some("/"), &GET), found(4));
    assert_eq!(ask(&table, "h", Some("/x"), &GET), found(0));
}

#[test]
fn hosts_go_from_exact_over_the_longest_suffix_to_any() {
    let table = table(&[
        spec(&[], "/", &[]),
        spec(&["*.example.com"], "/", &[]),
        spec(&["*.a.example.com"], "/", &[]),
        spec(&["b.a.example.com"], "/", &[]),
    ]);
    assert_eq!(ask(&table, "b.a.example.com", Some("/"), &GET), found(3));
    assert_eq!(ask(&table, "c.a.example.com", Some("/"), &GET), found(2));
    assert_eq!(ask(&table, "c.b.a.example.com", Some("/"), &GET), found(2));
    assert_eq!(ask(&table, "a.example.com", Some("/"), &GET), found(1));
    assert_eq!(ask(&table, "example.com", Some("/"), &GET), found(0));
    assert_eq!(ask(&table, "xexample.com", Some("/"), &GET), found(0));
    assert_eq!(ask(&table, ".example.com", Some("/"), &GET), found(0));
    assert_eq!(ask(&table, "", Some("/"), &GET), found(0));
}

#[test]
fn a_named_method_beats_any_and_is_passed_over_when_it_does_not_fit() {
    let table = table(&[spec(&[], "/", &[]), spec(&[], "/a", &[GET]), spec(&[], "/a", &[])]);
    assert_eq!(ask(&table, "h", Some("/a"), &GET), found(1));
    assert_eq!(ask(&table, "h", Some("/a"), &POST), found(2));
    let table = self::table(&[spec(&[], "/", &[]), spec(&[], "/a", &[GET])]);
    assert_eq!(ask(&table, "h", Some("/a"), &POST), found(0));
}

#[test]
fn a_refused_method_names_all_that_fit_and_ends_the_search() {
    let put = Method::Put;
    let table = table(&[
        spec(&["h"], "/a", &[POST]),
        spec(&["h"], "/a", &[GET]),
        spec(&["h"], "=/a", std::slice::from_ref(&put)),
        spec(&["h"], "/a/b", &[Method::Delete, GET]),
        spec(&[], "/", &[]),
    ]);
    assert_eq!(allow(&table, "h", "/a", &Method::Patch).as_deref(), Some("GET, POST, PUT"));
    assert_eq!(allow(&table, "h", "/a/x", &put).as_deref(), Some("GET, POST"));
    assert_eq!(allow(&table, "h", "/a/b", &put).as_deref(), Some("DELETE, GET, POST"));
    assert_eq!(allow(&table, "h", "/a/b", &GET), None);
    assert_eq!(ask(&table, "h", Some("/x"), &put), found(4));
}

#[test]
fn fallback_can_be_switched_off() {
    let specs = [spec(&["h"], "/a", &[]), spec(&["*.h"], "/b", &[]), spec(&[], "/", &[])];
    let open = Table::build(&specs, true).expect("no conflicts");
    let closed = Table::build(&specs, false).expect("no conflicts");
    assert_eq!(ask(&open, "h", Some("/x"), &GET), found(2));
    assert_eq!(ask(&closed, "h", Some("/x"), &GET), Lookup::NoRoute);
    assert_eq!(ask(&closed, "x.h", Some("/x"), &GET), Lookup::NoRoute);
    assert_eq!(ask(&closed, "other", Some("/x"), &GET), found(2));
}

#[test]
fn only_routes_that_name_it_take_the_asterisk() {
    let table = table(&[spec(&[], "/", &[]), spec(&[], "=*", &[Method::Options])]);
    assert_eq!(ask(&table, "h", None, &Method::Options), found(1));
    assert_eq!(ask(&table, "h", None, &GET), Lookup::MethodNotAllowed);
    let table = self::table(&[spec(&[], "/", &[])]);
    assert_eq!(ask(&table, "h", None, &Method::Options), Lookup::NoRoute);
}

#[test]
fn routes_that_no_rule_can_order_are_told_once_per_pair() {
    let specs = [
        spec(&["a", "b"], "/x", &[GET, POST]),
        spec(&["b", "a"], "/x", &[POST, GET]),
        spec(&["a", "a"], "/y", &[]),
        spec(&["a"], "/x", &[]),
    ];
    let conflicts = Table::build(&specs, true).expect_err("0 and 1 take the same");
    assert_eq!(
        conflicts,
        [Conflict { first: RouteId(0), second: RouteId(1), taken: "host b, path prefix /x, method POST".to_owned() }]
    );
}

#[test]
fn hosts_have_one_spelling() {
    assert_eq!(host("WWW.Example.COM."), HostPattern::Exact("www.example.com".into()));
    assert_eq!(host("*.Example.com"), HostPattern::Suffix(".example.com".into()));
    for wrong in ["", "*", "*.", "a.*.b", "a:80", "a b", "a/b", "http://a", "*.[::1]", "user@a", "."] {
        assert!(HostPattern::parse(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn exposed_routes_are_found() {
    let specs = [
        spec(&[], "/admin", &[]),
        spec(&["a"], "/api", &[]),
        spec(&["b"], "/", &[]),
        spec(&["x.c"], "/", &[GET]),
        spec(&["*.c"], "/z", &[]),
    ];
    let exposures = table(&specs).exposures();
    let told: Vec<_> =
        exposures.iter().map(|exposure| (exposure.host.to_string(), exposure.own.0, exposure.exposed.0)).collect();
    assert_eq!(told, [("a".to_owned(), 1, 0), ("*.c".to_owned(), 4, 0)]);
    assert!(Table::build(&specs, false).expect("no conflicts").exposures().is_empty());
}

/// The rules as a search over all routes: slow and plain.
fn scan(specs: &[RouteSpec], fallback: bool, request: &Request<'_>) -> Result<u32, Option<Vec<Method>>> {
    let Request { host, path, method, .. } = *request;
    let host_rank = |pattern: Option<&HostPattern>| match pattern {
        None => Some(0),
        Some(HostPattern::Suffix(suffix)) => {
            (host.len() > suffix.len() && host.ends_with(&**suffix)).then_some(suffix.len())
        }
        Some(HostPattern::Exact(exact)) => (**exact == *host).then_some(usize::MAX),
    };
    let path_rank = |pattern: &PathPattern| match (pattern, path) {
        (PathPattern::Pathless, None) => Some(1),
        (PathPattern::Exact(exact), Some(path)) => (**exact == *path).then_some(usize::MAX),
        (PathPattern::Prefix(prefix), Some(path)) => {
            let rest = path.strip_prefix(&**prefix)?;
            (rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/')).then_some(prefix.len())
        }
        _ => None,
    };
    // Matchers whose values are not there make a route as if it were not there.
    let path_rank =
        |spec: &RouteSpec| path_rank(&spec.path).filter(|_| spec.matchers.iter().all(|one| holds(one, request)));
    let every: Vec<(usize, Option<usize>, &RouteSpec, usize)> = specs
        .iter()
        .enumerate()
        .flat_map(|(at, spec)| {
            let hosts: Vec<_> = if spec.hosts.is_empty() { vec![None] } else { spec.hosts.iter().map(Some).collect() };
            hosts
                .into_iter()
                .filter_map(host_rank)
                .map(move |rank| (rank, path_rank(spec), spec, at))
                .collect::<Vec<_>>()
        })
        .collect();
    let ranks = every.iter().filter(|(_, path, ..)| !fallback || path.is_some()).map(|(rank, ..)| *rank);
    let Some(rank) = ranks.max() else {
        return Err(None);
    };
    let at_host: Vec<_> = every.iter().filter(|(host, path, ..)| *host == rank && path.is_some()).collect();
    let taking = at_host.iter().filter(|(_, _, spec, _)| spec.methods.is_empty() || spec.methods.contains(method));
    let telling = |spec: &RouteSpec| {
        let count = |wanted: &dyn Fn(&Matcher) -> bool| spec.matchers.iter().filter(|one| wanted(one)).count();
        let of = |word: &str| count(&|one| one.subject.to_string().starts_with(word));
        let exact = count(&|one| matches!(one.test, Test::Exact(_)));
        (spec.matchers.len(), exact, count(&|one| matches!(one.test, Test::Regex(_))), of("header"), of("query"))
    };
    if let Some((_, _, _, at)) =
        taking.max_by_key(|(_, path, spec, _)| (*path, !spec.methods.is_empty(), telling(spec)))
    {
        return Ok(u32::try_from(*at).expect("few routes"));
    }
    let mut allowed: Vec<Method> = at_host.iter().flat_map(|(_, _, spec, _)| spec.methods.iter().cloned()).collect();
    allowed.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    allowed.dedup();
    Err((!allowed.is_empty()).then_some(allowed))
}

/// Whether a matcher holds, said without anything that the table uses.
fn holds(matcher: &Matcher, request: &Request<'_>) -> bool {
    let subject = matcher.subject.to_string();
    let value = match subject.split_once(' ').expect("two words") {
        ("header", name) => {
            let all = request.fields.iter().map(|(field, value)| (field.name.to_vec(), value.to_vec()));
            all.into_iter().find(|(field, _)| field == name.as_bytes()).map(|(_, value)| value)
        }
        ("query", name) => request.query.and_then(|query| {
            let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            // The one escape of this test.
            let decoded = |text: &str| text.replace("%31", "1").replace('+', " ");
            pairs.into_iter().find(|(key, _)| decoded(key) == name).map(|(_, value)| decoded(value).into_bytes())
        }),
        ("cookie", name) => {
            let crumbs = request.fields.get_all(Known::Cookie).flat_map(|line| line.split(|&byte| byte == b';'));
            let crumbs: Vec<String> = crumbs.map(|crumb| String::from_utf8_lossy(crumb).trim().to_owned()).collect();
            crumbs
                .iter()
                .find_map(|crumb| crumb.strip_prefix(&format!("{name}=")))
                .map(|value| value.as_bytes().to_vec())
        }
        other => panic!("{other:?}"),
    };
    match (&matcher.test, value) {
        (_, None) => false,
        (Test::Present, Some(_)) => true,
        (Test::Exact(values), Some(value)) => values.iter().any(|wanted| wanted.as_bytes() == value),
        // The patterns of this test take what begins with a digit, and what is one letter.
        (Test::Regex(pattern), Some(value)) if *pattern == *DIGIT => value.first().is_some_and(u8::is_ascii_digit),
        (Test::Regex(_), Some(value)) => value.len() == 1 && value[0].is_ascii_alphabetic(),
    }
}

static DIGIT: LazyLock<Pattern> = LazyLock::new(|| pattern(r"\d.*"));
static LETTER: LazyLock<Pattern> = LazyLock::new(|| pattern("[a-zA-Z]"));

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).expect("a pattern")
}

/// SplitMix64: enough for tests, and the seed replays them.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).expect("below a usize")
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    fn path(&mut self) -> String {
        let mut path = String::new();
        for _ in 0..=self.below(4) {
            path.push('/');
            path.push_str(self.pick::<&str>(&["a", "b", "ab", "a%2Fb"]));
        }
        if self.below(4) == 0 {
            path.push('/');
        }
        if self.below(12) == 0 { "/".to_owned() } else { path }
    }
}

const VALUES: [&str; 5] = ["a", "b", "1", "12", ""];

/// Matchers on different values, as a route has them.
fn some_matchers(random: &mut Random) -> Vec<Matcher> {
    let mut matchers: Vec<Matcher> = Vec::new();
    for _ in 0..[0, 0, 1, 1, 2, 3][random.below(6)] {
        let source = *random.pick(&[Source::Header, Source::Query, Source::Cookie]);
        let subject = Subject::new(source, random.pick::<&str>(&["x-a", "accept", "k1"]));
        let test = match random.below(6) {
            0 => Test::Present,
            1 => Test::Regex(DIGIT.clone()),
            2 => Test::Regex(LETTER.clone()),
            _ => Test::Exact((0..=random.below(2)).map(|_| (*random.pick(&VALUES)).into()).collect()),
        };
        if matchers.iter().all(|known| known.subject != subject) {
            matchers.push(Matcher { subject, test });
        }
    }
    matchers
}

/// Fields and a query in which the values may stand, or stand twice.
fn some_values(random: &mut Random) -> (Fields, Option<String>) {
    let mut fields = Fields::new();
    let mut query = None;
    for _ in 0..random.below(7) {
        let (name, value) = (*random.pick(&["x-a", "accept", "k1"]), *random.pick(&VALUES));
        match random.below(3) {
            0 => drop(fields.push(name.as_bytes(), value.as_bytes())),
            1 => drop(fields.push(b"cookie", format!("{name}={value}; other={value}").as_bytes())),
            _ => {
                let query = query.get_or_insert_with(String::new);
                let escaped = if random.below(2) == 0 { value.replace('1', "%31") } else { value.to_owned() };
                query.push_str(&format!("{}={escaped}&", name.replace('1', "%31")));
            }
        }
    }
    (fields, query)
}

#[test]
fn the_table_equals_a_linear_scan() {
    let hosts = ["a", "b.a", "c.b.a", "x.c.b.a", "d", "*.a", "*.b.a", "*.d", "*.x.c.b.a"];
    let methods = [Method::Get, Method::Post, Method::Put, Method::Other("PURGE".into())];
    let (mut with_matchers, mut by_fallback) = (0, 0);
    for seed in 0..400_u64 {
        let mut random = Random(seed);
        // Few points, so that many routes meet at one; or many.
        let crowded = random.below(2) == 0;
        let mut specs: Vec<RouteSpec> = Vec::new();
        for _ in 0..random.below(30) + 1 {
            let some_hosts: Vec<&str> =
                (0..random.below(3)).map(|_| *random.pick(&hosts[..if crowded { 2 } else { 9 }])).collect();
            let some_methods: Vec<Method> = (0..random.below(3)).map(|_| random.pick(&methods).clone()).collect();
            let path = match random.below(12) {
                0 => "=*".to_owned(),
                _ if crowded => (*random.pick(&["/", "/a", "=/a", "/a/"])).to_owned(),
                1..=3 => format!("={}", random.path()),
                _ => random.path(),
            };
            specs.push(RouteSpec { matchers: some_matchers(&mut random), ..spec(&some_hosts, &path, &some_methods) });
            // Keep only sets without conflicts; the conflicts have their own test.
            if Table::build(&specs, true).is_err() {
                specs.pop();
            }
        }
        for fallback in [true, false] {
            let table = Table::build(&specs, fallback).expect("conflicting routes were left out");
            let mut lens = table.lens();
            for _ in 0..200 {
                let host = match crowded {
                    true => *random.pick(&["a", "b.a", "z"]),
                    false => *random.pick(&["a", "b.a", "c.b.a", "x.c.b.a", "y.x.c.b.a", "d", "e.d", "z", ""]),
                };
                let path = match random.below(10) {
                    0 => None,
                    _ if crowded => Some((*random.pick(&["/", "/a", "/a/", "/a/b"])).to_owned()),
                    _ => Some(random.path()),
                };
                let method = random.pick(&methods).clone();
                let (fields, query) = some_values(&mut random);
                let request = Request {
                    host,
                    path: path.as_deref(),
                    method: &method,
                    query: query.as_deref(),
                    fields: &fields,
                    trusted: false,
                };
                let expected = scan(&specs, fallback, &request);
                let got = match table.lookup(&request, &mut lens) {
                    Lookup::Found(route) => Ok(route.0),
                    Lookup::NoRoute => Err(None),
                    Lookup::MethodNotAllowed => {
                        let allow = table.allow(&request, &mut lens);
                        let methods = allow.split(", ").map(|name| Method::parse(name.as_bytes()).expect("a method"));
                        Err(Some(methods.collect()))
                    }
                };
                assert_eq!(got, expected, "seed {seed}, fallback {fallback}, {request:?}\n{specs:#?}");
                let explained = explain(&specs, fallback, &request);
                let found = table.lookup(&request, &mut lens);
                by_fallback += usize::from(explain(&specs, !fallback, &request).outcome != found);
                assert_eq!(explained.outcome, found, "seed {seed}, fallback {fallback}, {request:?}\n{specs:#?}");
                for (at, why_not) in explained.why_not.iter().enumerate() {
                    assert_eq!(why_not.is_none(), found == Lookup::Found(RouteId(at as u32)), "{explained:?}");
                }
                with_matchers += usize::from(got.is_ok_and(|at| !specs[at as usize].matchers.is_empty()));
            }
        }
    }
    assert!(with_matchers > 5_000, "matchers hardly ever decide: {with_matchers}");
    // An explanation by another rule is seen.
    assert!(by_fallback > 1_000, "the rule of hosts hardly ever decides: {by_fallback}");
}

#[test]
fn a_hundred_thousand_routes_and_hostile_names_are_found_fast() {
    let specs: Vec<RouteSpec> =
        (0..100_000).map(|at| spec(&[&format!("h{}.example.com", at % 1_000)], &format!("/p{at}/x"), &[])).collect();
    let table = table(&specs);
    assert_eq!(ask(&table, "h7.example.com", Some("/p4007/x/y"), &GET), found(4_007));
    assert_eq!(ask(&table, &"a.".repeat(120), Some(&"/a".repeat(8_000)), &GET), Lookup::NoRoute);
}
