//! Routing rules one by one, and the compiled table against a linear scan that says the rules out loud.

use super::*;
use crate::http::Method;

fn host(text: &str) -> HostPattern {
    HostPattern::parse(text).expect("a valid host")
}

fn spec(hosts: &[&str], path: &str, methods: &[Method]) -> RouteSpec {
    let path = match path.strip_prefix('=') {
        Some("*") => PathPattern::Pathless,
        Some(exact) => PathPattern::Exact(exact.into()),
        None => PathPattern::Prefix(path.into()),
    };
    RouteSpec { hosts: hosts.iter().map(|text| host(text)).collect(), path, methods: methods.to_vec() }
}

fn table(specs: &[RouteSpec]) -> Table {
    Table::build(specs, true).expect("no conflicts")
}

fn found(route: u32) -> Lookup<'static> {
    Lookup::Found(RouteId(route))
}

const GET: Method = Method::Get;
const POST: Method = Method::Post;

#[test]
fn a_prefix_ends_at_a_segment() {
    let table = table(&[spec(&[], "/api", &[])]);
    assert_eq!(table.lookup("h", Some("/api"), &GET), found(0));
    assert_eq!(table.lookup("h", Some("/api/"), &GET), found(0));
    assert_eq!(table.lookup("h", Some("/api/x"), &GET), found(0));
    assert_eq!(table.lookup("h", Some("/apix"), &GET), Lookup::NoRoute);
    assert_eq!(table.lookup("h", Some("/ap"), &GET), Lookup::NoRoute);
    assert_eq!(table.lookup("h", Some("/"), &GET), Lookup::NoRoute);
}

#[test]
fn a_prefix_with_a_slash_takes_only_what_is_below() {
    let table = table(&[spec(&[], "/api/", &[]), spec(&[], "/", &[])]);
    assert_eq!(table.lookup("h", Some("/api"), &GET), found(1));
    assert_eq!(table.lookup("h", Some("/api/"), &GET), found(0));
    assert_eq!(table.lookup("h", Some("/api/x"), &GET), found(0));
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
    assert_eq!(table.lookup("h", Some("/a"), &GET), found(2));
    assert_eq!(table.lookup("h", Some("/a/"), &GET), found(1));
    assert_eq!(table.lookup("h", Some("/a/b/c"), &GET), found(3));
    assert_eq!(table.lookup("h", Some("/"), &GET), found(4));
    assert_eq!(table.lookup("h", Some("/x"), &GET), found(0));
}

#[test]
fn hosts_go_from_exact_over_the_longest_suffix_to_any() {
    let table = table(&[
        spec(&[], "/", &[]),
        spec(&["*.example.com"], "/", &[]),
        spec(&["*.a.example.com"], "/", &[]),
        spec(&["b.a.example.com"], "/", &[]),
    ]);
    assert_eq!(table.lookup("b.a.example.com", Some("/"), &GET), found(3));
    assert_eq!(table.lookup("c.a.example.com", Some("/"), &GET), found(2));
    assert_eq!(table.lookup("c.b.a.example.com", Some("/"), &GET), found(2));
    assert_eq!(table.lookup("a.example.com", Some("/"), &GET), found(1));
    assert_eq!(table.lookup("example.com", Some("/"), &GET), found(0));
    assert_eq!(table.lookup("xexample.com", Some("/"), &GET), found(0));
    assert_eq!(table.lookup(".example.com", Some("/"), &GET), found(0));
    assert_eq!(table.lookup("", Some("/"), &GET), found(0));
}

#[test]
fn a_named_method_beats_any_and_is_passed_over_when_it_does_not_fit() {
    let table = table(&[spec(&[], "/", &[]), spec(&[], "/a", &[GET]), spec(&[], "/a", &[])]);
    assert_eq!(table.lookup("h", Some("/a"), &GET), found(1));
    assert_eq!(table.lookup("h", Some("/a"), &POST), found(2));
    let table = self::table(&[spec(&[], "/", &[]), spec(&[], "/a", &[GET])]);
    assert_eq!(table.lookup("h", Some("/a"), &POST), found(0));
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
    assert_eq!(table.lookup("h", Some("/a"), &Method::Patch), Lookup::MethodNotAllowed { allow: "GET, POST, PUT" });
    assert_eq!(table.lookup("h", Some("/a/x"), &put), Lookup::MethodNotAllowed { allow: "GET, POST" });
    assert_eq!(table.lookup("h", Some("/a/b"), &put), Lookup::MethodNotAllowed { allow: "DELETE, GET, POST" });
    assert_eq!(table.lookup("h", Some("/x"), &put), found(4));
}

#[test]
fn fallback_can_be_switched_off() {
    let specs = [spec(&["h"], "/a", &[]), spec(&["*.h"], "/b", &[]), spec(&[], "/", &[])];
    let open = Table::build(&specs, true).expect("no conflicts");
    let closed = Table::build(&specs, false).expect("no conflicts");
    assert_eq!(open.lookup("h", Some("/x"), &GET), found(2));
    assert_eq!(closed.lookup("h", Some("/x"), &GET), Lookup::NoRoute);
    assert_eq!(closed.lookup("x.h", Some("/x"), &GET), Lookup::NoRoute);
    assert_eq!(closed.lookup("other", Some("/x"), &GET), found(2));
}

#[test]
fn only_routes_that_name_it_take_the_asterisk() {
    let table = table(&[spec(&[], "/", &[]), spec(&[], "=*", &[Method::Options])]);
    assert_eq!(table.lookup("h", None, &Method::Options), found(1));
    assert_eq!(table.lookup("h", None, &GET), Lookup::MethodNotAllowed { allow: "OPTIONS" });
    let table = self::table(&[spec(&[], "/", &[])]);
    assert_eq!(table.lookup("h", None, &Method::Options), Lookup::NoRoute);
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
fn scan(
    specs: &[RouteSpec],
    fallback: bool,
    host: &str,
    path: Option<&str>,
    method: &Method,
) -> Result<u32, Option<Vec<Method>>> {
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
    let every: Vec<(usize, Option<usize>, &RouteSpec, usize)> = specs
        .iter()
        .enumerate()
        .flat_map(|(at, spec)| {
            let hosts: Vec<_> = if spec.hosts.is_empty() { vec![None] } else { spec.hosts.iter().map(Some).collect() };
            hosts
                .into_iter()
                .filter_map(host_rank)
                .map(move |rank| (rank, path_rank(&spec.path), spec, at))
                .collect::<Vec<_>>()
        })
        .collect();
    let ranks = every.iter().filter(|(_, path, ..)| !fallback || path.is_some()).map(|(rank, ..)| *rank);
    let Some(rank) = ranks.max() else {
        return Err(None);
    };
    let at_host: Vec<_> = every.iter().filter(|(host, path, ..)| *host == rank && path.is_some()).collect();
    let taking = at_host.iter().filter(|(_, _, spec, _)| spec.methods.is_empty() || spec.methods.contains(method));
    if let Some((_, _, _, at)) = taking.max_by_key(|(_, path, spec, _)| (*path, !spec.methods.is_empty())) {
        return Ok(u32::try_from(*at).expect("few routes"));
    }
    let mut allowed: Vec<Method> = at_host.iter().flat_map(|(_, _, spec, _)| spec.methods.iter().cloned()).collect();
    allowed.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    allowed.dedup();
    Err((!allowed.is_empty()).then_some(allowed))
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

#[test]
fn the_table_equals_a_linear_scan() {
    let hosts = ["a", "b.a", "c.b.a", "x.c.b.a", "d", "*.a", "*.b.a", "*.d", "*.x.c.b.a"];
    let methods = [Method::Get, Method::Post, Method::Put, Method::Other("PURGE".into())];
    for seed in 0..400_u64 {
        let mut random = Random(seed);
        let mut specs: Vec<RouteSpec> = Vec::new();
        for _ in 0..random.below(30) + 1 {
            let some_hosts: Vec<&str> = (0..random.below(3)).map(|_| *random.pick(&hosts)).collect();
            let some_methods: Vec<Method> = (0..random.below(3)).map(|_| random.pick(&methods).clone()).collect();
            let path = match random.below(12) {
                0 => "=*".to_owned(),
                1..=3 => format!("={}", random.path()),
                _ => random.path(),
            };
            specs.push(spec(&some_hosts, &path, &some_methods));
            // Keep only sets without conflicts; the conflicts have their own test.
            if Table::build(&specs, true).is_err() {
                specs.pop();
            }
        }
        for fallback in [true, false] {
            let table = Table::build(&specs, fallback).expect("conflicting routes were left out");
            for _ in 0..200 {
                let host = *random.pick(&["a", "b.a", "c.b.a", "x.c.b.a", "y.x.c.b.a", "d", "e.d", "z", ""]);
                let path = if random.below(10) == 0 { None } else { Some(random.path()) };
                let method = random.pick(&methods).clone();
                let expected = scan(&specs, fallback, host, path.as_deref(), &method);
                let got = match table.lookup(host, path.as_deref(), &method) {
                    Lookup::Found(route) => Ok(route.0),
                    Lookup::NoRoute => Err(None),
                    Lookup::MethodNotAllowed { allow } => Err(Some(
                        allow.split(", ").map(|name| Method::parse(name.as_bytes()).expect("a method")).collect(),
                    )),
                };
                assert_eq!(got, expected, "seed {seed}, fallback {fallback}, {host} {path:?} {method:?}\n{specs:#?}");
            }
        }
    }
}

#[test]
fn a_hundred_thousand_routes_and_hostile_names_are_found_fast() {
    let specs: Vec<RouteSpec> =
        (0..100_000).map(|at| spec(&[&format!("h{}.example.com", at % 1_000)], &format!("/p{at}/x"), &[])).collect();
    let table = table(&specs);
    assert_eq!(table.lookup("h7.example.com", Some("/p4007/x/y"), &GET), found(4_007));
    assert_eq!(table.lookup(&"a.".repeat(120), Some(&"/a".repeat(8_000)), &GET), Lookup::NoRoute);
}
