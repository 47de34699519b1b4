//! The compiled table: hosts to their paths.

use rustc_hash::FxHashMap;

use super::RouteId;
use super::paths::{AllowValues, Found, Paths};
use super::pattern::{HostPattern, PathPattern, RouteSpec};
use crate::http::Method;

/// All routes, compiled. Lookups never allocate, and do not get slower with the number of routes.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Exact hosts, and suffixes with their leading dot: neither can be taken for the other.
    hosts: FxHashMap<Box<str>, Paths>,
    /// Lengths of the suffixes, the longest first, so that a host is only cut where a suffix can begin.
    suffix_lengths: Vec<u16>,
    any_host: Paths,
    allow: AllowValues,
    host_fallback: bool,
}

/// What a lookup says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// This route.
    Found(RouteId),
    /// No path matches at any host that was asked: 404.
    NoRoute,
    /// The path matches, no route takes the method: 405 with this `Allow`.
    MethodNotAllowed {
        /// Value of the field.
        allow: &'a str,
    },
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
        let mut table = Self {
            hosts: FxHashMap::default(),
            suffix_lengths: Vec::new(),
            any_host: Paths::default(),
            allow: AllowValues::default(),
            host_fallback,
        };
        let mut conflicts: Vec<Conflict> = Vec::new();
        for (at, spec) in specs.iter().enumerate() {
            let route = RouteId(u32::try_from(at).unwrap_or(u32::MAX));
            let hosts: Vec<Option<&HostPattern>> =
                if spec.hosts.is_empty() { vec![None] } else { spec.hosts.iter().map(Some).collect() };
            let methods: Vec<Option<&Method>> =
                if spec.methods.is_empty() { vec![None] } else { spec.methods.iter().map(Some).collect() };
            for host in hosts {
                for method in &methods {
                    if let Err(first) = table.paths(host).insert(&spec.path, *method, route) {
                        // A route that repeats a host or method of its own contradicts nobody.
                        let seen = |known: &Conflict| known.first == first && known.second == route;
                        if first != route && !conflicts.iter().rev().take_while(|known| known.second == route).any(seen)
                        {
                            conflicts.push(Conflict { first, second: route, taken: taken(host, &spec.path, *method) });
                        }
                    }
                }
            }
        }
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        let Self { hosts, any_host, allow, .. } = &mut table;
        hosts.values_mut().chain([any_host]).for_each(|paths| paths.seal(allow));
        table.suffix_lengths.sort_unstable_by(|a, b| b.cmp(a));
        Ok(table)
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

    /// The route of a request. `host` in its one spelling (`http::Authority::host`), `path` the match path or `None`
    /// for the target `*`.
    #[must_use]
    pub fn lookup(&self, host: &str, path: Option<&str>, method: &Method) -> Lookup<'_> {
        // The less specific hosts of one that begins with a dot would be itself: no valid host does, and none matches.
        let exact = if host.starts_with('.') { None } else { self.hosts.get(host) };
        for paths in exact.into_iter().chain(self.suffixes(host)).chain([&self.any_host]) {
            match paths.find(path, method) {
                Found::Route(route) => return Lookup::Found(route),
                Found::Refused(allow) => {
                    return Lookup::MethodNotAllowed { allow: self.allow.get(allow) };
                }
                Found::Nothing if self.host_fallback => {}
                // `any_host` is always asked last; without fallback only a host's own routes count.
                Found::Nothing => break,
            }
        }
        Lookup::NoRoute
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

/// What two routes both take.
fn taken(host: Option<&HostPattern>, path: &PathPattern, method: Option<&Method>) -> String {
    let host = host.map_or_else(|| "any host".to_owned(), |host| format!("host {host}"));
    let method = method.map_or_else(|| "any method".to_owned(), |method| format!("method {}", method.as_str()));
    format!("{host}, {path}, {method}")
}
