//! The compiled table: hosts to their paths.

use rustc_hash::{FxHashMap, FxHashSet};

use super::matcher::{Lens, PatternList};
use super::paths::{Found, Paths};
use super::pattern::{HostPattern, RouteSpec};
use super::{Request, RouteId};
use crate::http::Method;

/// All routes, compiled. Lookups never allocate, and do not get slower with the number of routes.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Exact hosts, and suffixes with their leading dot: neither can be taken for the other.
    hosts: FxHashMap<Box<str>, Paths>,
    /// Lengths of the suffixes, the longest first, so that a host is only cut where a suffix can begin.
    suffix_lengths: Vec<u16>,
    any_host: Paths,
    patterns: PatternList,
    host_fallback: bool,
}

/// What a lookup says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// This route.
    Found(RouteId),
    /// No route takes the request at any host that was asked: 404.
    NoRoute,
    /// Routes take the request but for its method: 405; [`Table::allow`] names the methods.
    MethodNotAllowed,
}

/// Two routes that no rule can order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The one given first.
    pub first: RouteId,
    /// The other.
    pub second: RouteId,
    /// What both take, for people.
    pub taken: String,
}

/// A route that no request reaches, because others take all that it would take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// The route.
    pub route: RouteId,
    /// The others.
    pub by: Vec<RouteId>,
}

/// A host with routes of its own whose other paths fall back to a less specific route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// The host.
    pub host: HostPattern,
    /// A route of that host.
    pub own: RouteId,
    /// A route that also answers on it.
    pub exposed: RouteId,
}

impl Table {
    /// Compiles routes; each gets the [`RouteId`] of its position.
    ///
    /// # Errors
    /// Every pair of routes that no rule can order, once.
    pub fn build(specs: &[RouteSpec], host_fallback: bool) -> Result<Self, Vec<Conflict>> {
        let mut table = Self { host_fallback, ..Self::default() };
        let mut conflicts: FxHashSet<(RouteId, RouteId)> = FxHashSet::default();
        for (at, spec) in specs.iter().enumerate() {
            let route = RouteId(u32::try_from(at).unwrap_or(u32::MAX));
            for host in hosts(spec) {
                for method in methods(spec) {
                    // A route that repeats a host or method of its own contradicts nobody.
                    if let Err(first) = table.paths(host).insert(spec, method, route)
                        && first != route
                    {
                        conflicts.insert((first, route));
                    }
                }
            }
        }
        let Self { hosts, any_host, patterns, .. } = &mut table;
        for paths in hosts.values_mut().chain([any_host]) {
            paths.seal(specs, patterns, &mut |one, other| {
                conflicts.insert((one.min(other), one.max(other)));
            });
        }
        if !conflicts.is_empty() {
            let mut pairs: Vec<(RouteId, RouteId)> = conflicts.into_iter().collect();
            pairs.sort_unstable_by_key(|&(first, second)| (second, first));
            let told = |(first, second)| Conflict { first, second, taken: taken(specs, first, second) };
            return Err(pairs.into_iter().map(told).collect());
        }
        table.suffix_lengths.sort_unstable_by(|a, b| b.cmp(a));
        Ok(table)
    }

    /// What one thread needs for lookups.
    #[must_use]
    pub fn lens(&self) -> Lens {
        Lens::new(&self.patterns)
    }

    /// How many regular expressions it holds.
    #[must_use]
    pub fn patterns(&self) -> usize {
        self.patterns.len()
    }

    fn paths(&mut self, host: Option<&HostPattern>) -> &mut Paths {
        match host {
            None => &mut self.any_host,
            Some(HostPattern::Exact(host)) => self.hosts.entry(host.clone()).or_default(),
            Some(HostPattern::Suffix(suffix)) => {
                let length = u16::try_from(suffix.len()).unwrap_or(u16::MAX);
                if !self.suffix_lengths.contains(&length) {
                    self.suffix_lengths.push(length);
                }
                self.hosts.entry(suffix.clone()).or_default()
            }
        }
    }

    /// The route of a request.
    #[must_use]
    pub fn lookup(&self, request: &Request<'_>, lens: &mut Lens) -> Lookup {
        for paths in self.hosts_for(request.host) {
            match paths.find(request, lens) {
                Found::Route(route) => return Lookup::Found(route),
                Found::Refused => return Lookup::MethodNotAllowed,
                Found::Nothing if self.host_fallback => {}
                // `any_host` is always asked last; without fallback only a host's own routes count.
                Found::Nothing => break,
            }
        }
        Lookup::NoRoute
    }

    /// The value of Allow for a request that found [`Lookup::MethodNotAllowed`].
    #[must_use]
    pub fn allow(&self, request: &Request<'_>, lens: &mut Lens) -> String {
        let mut methods: Vec<&str> = Vec::new();
        for paths in self.hosts_for(request.host) {
            paths.methods(request, lens, |method| methods.push(method.as_str()));
            if !methods.is_empty() {
                break;
            }
        }
        methods.sort_unstable();
        methods.dedup();
        methods.join(", ")
    }

    /// The paths of a host, the most specific pattern first.
    fn hosts_for<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a Paths> {
        // The less specific hosts of one that begins with a dot would be itself: no valid host does, and none matches.
        let exact = if host.starts_with('.') { None } else { self.hosts.get(host) };
        exact.into_iter().chain(self.suffixes(host)).chain([&self.any_host])
    }

    /// Routes that no request reaches. `specs` are those the table was built from; `allowed`: the methods that come here, where
    /// that is known.
    #[must_use]
    pub fn shadows(&self, specs: &[RouteSpec], allowed: Option<&[Method]>) -> Vec<Shadow> {
        let mut found = Vec::new();
        for (at, spec) in specs.iter().enumerate() {
            let route = RouteId(u32::try_from(at).unwrap_or(u32::MAX));
            let mut by = Vec::new();
            let paths = |host: Option<&HostPattern>| match host {
                None => Some(&self.any_host),
                Some(HostPattern::Exact(host) | HostPattern::Suffix(host)) => self.hosts.get(host),
            };
            let mut covered = |host: Option<&HostPattern>, method: Option<&Method>| {
                paths(host).is_some_and(|paths| paths.covers(route, specs, method, allowed, &mut by))
            };
            if hosts(spec).into_iter().all(|host| methods(spec).into_iter().all(|method| covered(host, method))) {
                by.sort_unstable();
                by.dedup();
                found.push(Shadow { route, by });
            }
        }
        found
    }

    /// The wildcard suffixes of a host, the longest first.
    fn suffixes<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a Paths> {
        let cut = move |&length: &u16| {
            // At least one character stands for the star.
            let start = host.len().checked_sub(usize::from(length)).filter(|&start| start > 0)?;
            if host.as_bytes()[start] != b'.' {
                return None;
            }
            self.hosts.get(&host[start..])
        };
        self.suffix_lengths.iter().filter_map(cut)
    }

    /// Hosts with routes of their own on which a less specific route answers too, in a fixed order.
    #[must_use]
    pub fn exposures(&self) -> Vec<Exposure> {
        if !self.host_fallback {
            return Vec::new();
        }
        let mut found = Vec::new();
        for (host, paths) in &self.hosts {
            if paths.takes_every_path() {
                continue;
            }
            let less_specific = self.suffixes(host).chain([&self.any_host]);
            let exposed = less_specific.filter_map(Paths::first_route).next();
            if let (Some(own), Some(exposed)) = (paths.first_route(), exposed) {
                let host = if host.starts_with('.') {
                    HostPattern::Suffix(host.clone())
                } else {
                    HostPattern::Exact(host.clone())
                };
                found.push(Exposure { host, own, exposed });
            }
        }
        found.sort_by(|a, b| a.host.cmp(&b.host));
        found
    }
}

/// The hosts under which a route stands; `None` is any.
fn hosts(spec: &RouteSpec) -> Vec<Option<&HostPattern>> {
    if spec.hosts.is_empty() { vec![None] } else { spec.hosts.iter().map(Some).collect() }
}

/// The methods under which a route stands; `None` is any.
fn methods(spec: &RouteSpec) -> Vec<Option<&Method>> {
    if spec.methods.is_empty() { vec![None] } else { spec.methods.iter().map(Some).collect() }
}

/// What two routes both take. Values of matchers are left out: they may be secrets.
fn taken(specs: &[RouteSpec], first: RouteId, second: RouteId) -> String {
    let (first, second) = (&specs[first.0 as usize], &specs[second.0 as usize]);
    let host = second.hosts.iter().find(|host| first.hosts.contains(host));
    let host = host.map_or_else(|| "any host".to_owned(), |host| format!("host {host}"));
    let method = second.methods.iter().find(|method| first.methods.contains(method));
    let method = method.map_or_else(|| "any method".to_owned(), |method| format!("method {}", method.as_str()));
    let mut taken = format!("{host}, {}, {method}", second.path);
    if !second.matchers.is_empty() {
        taken.push_str(", and one request can satisfy the matchers of both");
    }
    taken
}
