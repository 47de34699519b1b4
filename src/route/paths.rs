//! The paths of one host: a tree of segments with the routes that stand at each.
//!
//! A lookup walks the request's path once, remembers the deepest route that takes the request, and never allocates.
//! Its cost grows with the length of the path, not with the number of routes.

use rustc_hash::FxHashMap;

use super::choices::Choices;
use super::matcher::{Lens, Matcher, PatternList};
use super::pattern::PathPattern;
use super::{Request, RouteId, RouteSpec};
use crate::http::Method;

/// The routes at one point, by method.
#[derive(Clone, Debug, Default)]
struct Slot {
    any: Choices,
    /// In order of insertion; each method once.
    named: Vec<(Method, Choices)>,
}

impl Slot {
    fn is_empty(&self) -> bool {
        self.any.is_empty() && self.named.is_empty()
    }

    fn choices(&mut self, method: Option<&Method>) -> &mut Choices {
        let Some(method) = method else {
            return &mut self.any;
        };
        let at = self.named.iter().position(|(named, _)| named == method).unwrap_or_else(|| {
            self.named.push((method.clone(), Choices::default()));
            self.named.len() - 1
        });
        &mut self.named[at].1
    }

    fn of(&self, method: &Method) -> Option<&Choices> {
        self.named.iter().find(|(named, _)| named == method).map(|(_, choices)| choices)
    }

    #[inline]
    fn find(&self, request: &Request<'_>, lens: &mut Lens) -> Option<RouteId> {
        let named = self.of(request.method).and_then(|choices| choices.find(request, lens));
        named.or_else(|| self.any.find(request, lens))
    }

    fn each(&mut self) -> impl Iterator<Item = &mut Choices> {
        self.named.iter_mut().map(|(_, choices)| choices).chain([&mut self.any])
    }
}

/// One segment.
#[derive(Clone, Debug, Default)]
struct Node {
    /// Indices of [`Paths::nodes`].
    children: FxHashMap<Box<str>, u32>,
    /// Prefixes that end here: `/api`.
    here: Slot,
    /// Prefixes with a slash after this: `/api/`.
    below: Slot,
    /// Exact paths.
    exact: Slot,
}

/// The paths of one host.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    /// The first is the root.
    nodes: Vec<Node>,
    pathless: Slot,
    first: Option<RouteId>,
}

impl Default for Paths {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], pathless: Slot::default(), first: None }
    }
}

/// What was found at one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A route takes the request.
    Route(RouteId),
    /// Routes take the request but for its method.
    Refused,
    /// No route takes it, whatever its method.
    Nothing,
}

impl Paths {
    /// Puts a route in; the one that no rule can order it against is given back.
    pub(super) fn insert(&mut self, spec: &RouteSpec, method: Option<&Method>, route: RouteId) -> Result<(), RouteId> {
        self.first = Some(self.first.map_or(route, |first| first.min(route)));
        let slot = match &spec.path {
            PathPattern::Pathless => &mut self.pathless,
            PathPattern::Exact(path) => &mut self.node(path).exact,
            PathPattern::Prefix(path) => match path.strip_suffix('/') {
                Some(shorter) => &mut self.node(shorter).below,
                None => &mut self.node(path).here,
            },
        };
        slot.choices(method).insert(route, spec)
    }

    /// The node of a path, made where it is missing. The empty path is the root.
    fn node(&mut self, path: &str) -> &mut Node {
        let mut at = 0_usize;
        for segment in segments(path) {
            let next = self.nodes.len();
            let child =
                *self.nodes[at].children.entry(segment.into()).or_insert(u32::try_from(next).unwrap_or(u32::MAX));
            if child as usize == next {
                self.nodes.push(Node::default());
            }
            at = child as usize;
        }
        &mut self.nodes[at]
    }

    /// Brings the routes of every point into their order, once all are in.
    pub(super) fn seal(
        &mut self,
        specs: &[RouteSpec],
        patterns: &mut PatternList,
        conflict: &mut impl FnMut(RouteId, RouteId),
    ) {
        let slots = self.nodes.iter_mut().flat_map(|node| [&mut node.here, &mut node.below, &mut node.exact]);
        for slot in slots.chain([&mut self.pathless]) {
            slot.each().for_each(|choices| choices.seal(specs, patterns, conflict));
        }
    }

    /// Whether a prefix takes every path, whatever else a request has.
    pub(super) fn takes_every_path(&self) -> bool {
        let root = &self.nodes[0].below;
        root.any.has_plain() || root.named.iter().any(|(_, choices)| choices.has_plain())
    }

    /// The lowest route of this host.
    pub(super) fn first_route(&self) -> Option<RouteId> {
        self.first
    }

    /// Shows every set of routes whose path matches, the less specific first.
    #[inline]
    fn walk<'p>(&'p self, path: Option<&str>, mut look: impl FnMut(&'p Slot)) {
        let Some(path) = path else {
            look(&self.pathless);
            return;
        };
        let mut node = &self.nodes[0];
        for segment in segments(path) {
            look(&node.here);
            look(&node.below);
            match node.children.get(segment) {
                Some(&child) => node = &self.nodes[child as usize],
                None => return,
            }
        }
        look(&node.here);
        look(&node.exact);
    }

    /// The route of a request.
    pub(super) fn find(&self, request: &Request<'_>, lens: &mut Lens) -> Found {
        let mut best = None;
        let mut seen = false;
        self.walk(request.path, |slot| {
            // Later ones are more specific, so the last that takes the request wins.
            if !slot.is_empty() {
                seen = true;
                best = slot.find(request, lens).or(best);
            }
        });
        match best {
            Some(route) => Found::Route(route),
            None if seen && self.takes_other_methods(request, lens) => Found::Refused,
            None => Found::Nothing,
        }
    }

    fn takes_other_methods(&self, request: &Request<'_>, lens: &mut Lens) -> bool {
        let mut any = false;
        self.methods(request, lens, |_| any = true);
        any
    }

    /// The methods for which a route would take the request; one may be told twice.
    pub(super) fn methods<'p>(&'p self, request: &Request<'_>, lens: &mut Lens, mut tell: impl FnMut(&'p Method)) {
        self.walk(request.path, |slot| {
            for (method, choices) in &slot.named {
                if choices.find(request, lens).is_some() {
                    tell(method);
                }
            }
        });
    }

    /// Whether others take every request of this host that `route` would take with a method (`None`: with any), and which.
    /// `allowed`: no other methods come here at all.
    pub(super) fn covers(
        &self,
        route: RouteId,
        specs: &[RouteSpec],
        method: Option<&Method>,
        allowed: Option<&[Method]>,
        by: &mut Vec<RouteId>,
    ) -> bool {
        let RouteSpec { path, matchers, .. } = &specs[route.0 as usize];
        let (same, more) = match path {
            PathPattern::Pathless => (&self.pathless, None),
            PathPattern::Exact(path) => match self.get(path) {
                Some(node) => (&node.exact, None),
                None => return false,
            },
            PathPattern::Prefix(path) => {
                match (self.get(path.strip_suffix('/').unwrap_or(path)), path.ends_with('/')) {
                    (Some(node), true) => (&node.below, None),
                    // Together these take every path that the prefix takes.
                    (Some(node), false) => (&node.here, Some([&node.exact, &node.below])),
                    (None, _) => return false,
                }
            }
        };
        let mut covered = |method: Option<&Method>, named_wins: bool| {
            let asked = |slot: &Slot| covering(slot, route, specs, matchers, method);
            let here = method.filter(|_| named_wins).and_then(|method| same.of(method));
            let found: Vec<RouteId> = match (here.and_then(|choices| choices.covering(route, matchers, specs)), more) {
                (Some(one), _) => vec![one],
                (None, Some([exact, below])) => match (asked(exact), asked(below)) {
                    (Some(exact), Some(below)) => vec![exact, below],
                    _ => return false,
                },
                (None, None) => return false,
            };
            by.extend(found);
            true
        };
        if covered(method, false) {
            return true;
        }
        // A route for any method gets what the named ones leave.
        match (method, allowed) {
            (None, Some(allowed)) => allowed.iter().all(|method| covered(Some(method), true)),
            _ => false,
        }
    }

    fn get(&self, path: &str) -> Option<&Node> {
        let mut node = &self.nodes[0];
        for segment in segments(path) {
            node = &self.nodes[*node.children.get(segment)? as usize];
        }
        Some(node)
    }
}

/// A route that takes every request which reaches this slot with a method and satisfies `matchers`.
fn covering(
    slot: &Slot,
    route: RouteId,
    specs: &[RouteSpec],
    matchers: &[Matcher],
    method: Option<&Method>,
) -> Option<RouteId> {
    let named = method.and_then(|method| slot.of(method));
    named.into_iter().chain([&slot.any]).find_map(|choices| choices.covering(route, matchers, specs))
}

/// What stands between the slashes of a path: `/` has one empty segment, `/api/x` two, the empty path none.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    let mut parts = path.split('/');
    // Before the leading slash; for the empty path this is all there is.
    parts.next();
    parts
}
