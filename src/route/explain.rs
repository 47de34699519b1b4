//! Why each route takes a request or does not: the rule of this module read aloud, one route after the other.
//!
//! It walks all routes as they were written, so it is for people and not for the request path; that it finds what the
//! compiled table finds, a property test says. Read [`super::table`] for how lookups are really made.

use std::cmp::Ordering;

use super::matcher::{Matcher, Test, Weight};
use super::pattern::{HostPattern, PathPattern, RouteSpec};
use super::{Lookup, Request, RouteId};
use crate::http::path::has_prefix;

/// What the rule says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// What a lookup finds.
    pub outcome: Lookup,
    /// By [`RouteId`]: why not; `None` for the route that was found.
    pub why_not: Vec<Option<WhyNot>>,
}

/// The first thing that keeps a request from a route, in the order in which routes are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyNot {
    /// None of its hosts is the request's.
    Host,
    /// Its path is another.
    Path,
    /// It takes other methods.
    Method,
    /// One of its matchers does not hold, at this position; `there`: the request has a value, but another one.
    Matcher {
        /// Position among the matchers of the route.
        at: usize,
        /// Whether the request has a value there.
        there: bool,
    },
    /// It would take the request, but another one comes first.
    After {
        /// The one that comes first; `None`: a more specific host has routes for the path, and none of them takes the method.
        first: Option<RouteId>,
        /// By which rule.
        by: Rule,
    },
}

/// What orders two routes that both take a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A more specific host has a route for the request.
    Host,
    /// A more specific host has routes, and less specific ones are not asked (`host_fallback = false`).
    NoFallback,
    /// A more telling path.
    Path,
    /// A named method comes before any.
    Method,
    /// More matchers, or more telling ones.
    Matchers,
}

/// How well one route fits; the larger one comes first.
type Rank = (usize, bool, Weight);

/// Holds a request against every route.
#[must_use]
pub fn explain(specs: &[RouteSpec], host_fallback: bool, request: &Request<'_>) -> Explained {
    let mut scratch = Vec::new();
    let hosts: Vec<Option<usize>> = specs.iter().map(|spec| host_rank(spec, request.host)).collect();
    let faults: Vec<Option<WhyNot>> = specs
        .iter()
        .zip(&hosts)
        .map(|(spec, host)| if host.is_none() { Some(WhyNot::Host) } else { fault(spec, request, &mut scratch) })
        .collect();
    // A route that takes the request but for its method decides as one that takes it.
    let fits_but_method = |at: usize, scratch: &mut Vec<u8>| match faults[at] {
        None => true,
        Some(WhyNot::Method) => first_unmet(&specs[at].matchers, request, scratch).is_none(),
        Some(_) => false,
    };
    let asked = (0..specs.len()).filter(|&at| !host_fallback || fits_but_method(at, &mut scratch));
    let deciding = asked.filter_map(|at| hosts[at]).max();
    let here = |at: &usize| hosts[*at].is_some() && hosts[*at] == deciding;
    let rank = |at: usize| -> Rank {
        let spec = &specs[at];
        (path_rank(&spec.path, request.path).unwrap_or(0), !spec.methods.is_empty(), Weight::of(&spec.matchers))
    };
    let taking = (0..specs.len()).filter(here).filter(|&at| faults[at].is_none());
    let found = taking.max_by_key(|&at| rank(at));
    let outcome = match found {
        Some(at) => Lookup::Found(id(at)),
        None if (0..specs.len()).filter(here).any(|at| fits_but_method(at, &mut Vec::new())) => {
            Lookup::MethodNotAllowed
        }
        None => Lookup::NoRoute,
    };
    let after = |at: usize| {
        let first = found.map(id);
        let by = match found {
            _ if hosts[at] != deciding && host_fallback => Rule::Host,
            _ if hosts[at] != deciding => Rule::NoFallback,
            Some(found) => rule(&rank(found), &rank(at)),
            None => Rule::Host,
        };
        WhyNot::After { first, by }
    };
    let why_not =
        (0..specs.len()).map(|at| if found == Some(at) { None } else { faults[at].or_else(|| Some(after(at))) });
    Explained { outcome, why_not: why_not.collect() }
}

fn id(at: usize) -> RouteId {
    RouteId(u32::try_from(at).unwrap_or(u32::MAX))
}

/// The first thing beside the host that does not fit.
fn fault(spec: &RouteSpec, request: &Request<'_>, scratch: &mut Vec<u8>) -> Option<WhyNot> {
    if path_rank(&spec.path, request.path).is_none() {
        return Some(WhyNot::Path);
    }
    if !spec.methods.is_empty() && !spec.methods.contains(request.method) {
        return Some(WhyNot::Method);
    }
    first_unmet(&spec.matchers, request, scratch)
}

fn first_unmet(matchers: &[Matcher], request: &Request<'_>, scratch: &mut Vec<u8>) -> Option<WhyNot> {
    matchers.iter().enumerate().find_map(|(at, matcher)| {
        let value = matcher.subject.value(request, scratch);
        let holds = value.is_some_and(|value| match &matcher.test {
            Test::Exact(wanted) => wanted.iter().any(|wanted| wanted.as_bytes() == value),
            Test::Regex(pattern) => pattern.matches(value),
            Test::Present => true,
        });
        (!holds).then_some(WhyNot::Matcher { at, there: value.is_some() })
    })
}

/// How telling the host is under which a route stands for a request; `None`: under none.
fn host_rank(spec: &RouteSpec, host: &str) -> Option<usize> {
    if spec.hosts.is_empty() {
        return Some(0);
    }
    let rank = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(exact) => (**exact == *host).then_some(usize::MAX),
        HostPattern::Suffix(suffix) => (host.len() > suffix.len() && host.ends_with(&**suffix)).then_some(suffix.len()),
    };
    spec.hosts.iter().filter_map(rank).max()
}

/// How telling a path is that takes the request's; `None`: it does not.
fn path_rank(pattern: &PathPattern, path: Option<&str>) -> Option<usize> {
    match (pattern, path) {
        (PathPattern::Pathless, None) => Some(0),
        (PathPattern::Exact(exact), Some(path)) => (**exact == *path).then_some(usize::MAX),
        (PathPattern::Prefix(prefix), Some(path)) => has_prefix(path, prefix).then_some(prefix.len()),
        _ => None,
    }
}

/// The rule by which the first of two comes before the other.
fn rule(first: &Rank, second: &Rank) -> Rule {
    match (first.0.cmp(&second.0), first.1.cmp(&second.1)) {
        (Ordering::Equal, Ordering::Equal) => Rule::Matchers,
        (Ordering::Equal, _) => Rule::Method,
        _ => Rule::Path,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Source, Subject};
    use super::*;
    use crate::http::{Fields, Method};

    fn spec(host: &str, path: &str, method: Option<Method>, header: Option<&str>) -> RouteSpec {
        let matcher =
            |name| Matcher { subject: Subject::new(Source::Header, name), test: Test::Exact(vec!["1".into()]) };
        RouteSpec {
            hosts: (!host.is_empty()).then(|| HostPattern::parse(host).expect("a host")).into_iter().collect(),
            path: PathPattern::Prefix(path.into()),
            methods: method.into_iter().collect(),
            matchers: header.map(matcher).into_iter().collect(),
        }
    }

    fn ask(specs: &[RouteSpec], fallback: bool, method: &Method, fields: &[(&str, &str)]) -> Explained {
        let mut all = Fields::new();
        for (name, value) in fields {
            all.push(name.as_bytes(), value.as_bytes());
        }
        let request =
            Request { host: "www.a.test", path: Some("/api/x"), method, query: None, fields: &all, trusted: false };
        explain(specs, fallback, &request)
    }

    #[test]
    fn each_route_says_the_first_thing_that_does_not_fit() {
        let specs = [
            spec("", "/", None, None),
            spec("b.test", "/api", None, None),
            spec("*.a.test", "/other", Some(Method::Post), Some("x-a")),
            spec("", "/api", Some(Method::Post), None),
            spec("", "/api", None, Some("x-a")),
            spec("", "/api", None, Some("x-b")),
            spec("*.a.test", "/api", None, None),
        ];
        let explained = ask(&specs, true, &Method::Get, &[("x-b", "2")]);
        assert_eq!(explained.outcome, Lookup::Found(RouteId(6)));
        let after = Some(WhyNot::After { first: Some(RouteId(6)), by: Rule::Host });
        assert_eq!(
            explained.why_not,
            [
                after,
                Some(WhyNot::Host),
                Some(WhyNot::Path),
                Some(WhyNot::Method),
                Some(WhyNot::Matcher { at: 0, there: false }),
                Some(WhyNot::Matcher { at: 0, there: true }),
                None
            ]
        );
    }

    #[test]
    fn the_rule_that_decides_between_two_is_named() {
        let by = |specs: &[RouteSpec], fallback, method: &Method| {
            let explained = ask(specs, fallback, method, &[("x-a", "1")]);
            let Some(WhyNot::After { by, .. }) = explained.why_not[0] else { panic!("{explained:?}") };
            (explained.outcome, by)
        };
        let (first, found) = (spec("", "/api", None, None), Lookup::Found(RouteId(1)));
        let pair = |second| [first.clone(), second];
        assert_eq!(by(&pair(spec("", "/api/x", None, None)), true, &Method::Get), (found, Rule::Path));
        assert_eq!(by(&pair(spec("", "/api", Some(Method::Get), None)), true, &Method::Get), (found, Rule::Method));
        assert_eq!(by(&pair(spec("", "/api", None, Some("x-a"))), true, &Method::Get), (found, Rule::Matchers));
        assert_eq!(by(&pair(spec("www.a.test", "/", None, None)), true, &Method::Get), (found, Rule::Host));
        // The host's own routes take the path, but not the method; or not even the path.
        let posts = pair(spec("www.a.test", "/", Some(Method::Post), None));
        assert_eq!(by(&posts, true, &Method::Get), (Lookup::MethodNotAllowed, Rule::Host));
        let others = pair(spec("www.a.test", "/other", None, None));
        assert_eq!(by(&others, false, &Method::Get), (Lookup::NoRoute, Rule::NoFallback));
        assert_eq!(ask(&others, true, &Method::Get, &[]).outcome, Lookup::Found(RouteId(0)));
    }
}
