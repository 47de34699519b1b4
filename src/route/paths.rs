//! The paths of one host: a tree of segments with the routes that stand at each.
//!
//! A lookup walks the request's path once, remembers the deepest route that takes the method, and never allocates.
//! Its cost grows with the length of the path, not with the number of routes.

use rustc_hash::FxHashMap;

use super::RouteId;
use super::pattern::PathPattern;
use crate::http::Method;

/// The routes at one point, by method.
#[derive(Clone, Debug, Default)]
pub(super) struct Methods {
    any: Option<RouteId>,
    /// In order of insertion; each method once.
    named: Vec<(Method, RouteId)>,
}

impl Methods {
    fn is_empty(&self) -> bool {
        self.any.is_none() && self.named.is_empty()
    }

    /// Puts a route in; the one that already stands there is given back.
    fn insert(&mut self, method: Option<&Method>, route: RouteId) -> Result<(), RouteId> {
        match method {
            None => match self.any {
                Some(there) => Err(there),
                None => {
                    self.any = Some(route);
                    Ok(())
                }
            },
            Some(method) => match self.named.iter().find(|(named, _)| named == method) {
                Some((_, there)) => Err(*there),
                None => {
                    self.named.push((method.clone(), route));
                    Ok(())
                }
            },
        }
    }

    #[inline]
    fn find(&self, method: &Method) -> Option<RouteId> {
        self.named.iter().find(|(named, _)| named == method).map(|(_, route)| *route).or(self.any)
    }
}

/// Methods known to be taken somewhere, as an `Allow` value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AllowId(u32);

/// All `Allow` values of a table, each once.
#[derive(Clone, Debug, Default)]
pub(super) struct AllowValues {
    values: Vec<Box<str>>,
    known: FxHashMap<Box<str>, u32>,
}

impl AllowValues {
    /// The value of a set of methods.
    fn intern(&mut self, methods: &[Method]) -> AllowId {
        let mut names: Vec<&str> = methods.iter().map(Method::as_str).collect();
        names.sort_unstable();
        names.dedup();
        let text: Box<str> = names.join(", ").into();
        if let Some(&at) = self.known.get(&text) {
            return AllowId(at);
        }
        let at = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        self.known.insert(text.clone(), at);
        self.values.push(text);
        AllowId(at)
    }

    #[inline]
    pub(super) fn get(&self, id: AllowId) -> &str {
        &self.values[id.0 as usize]
    }
}

/// One set of routes, with the methods that a refusal at this point names.
#[derive(Clone, Debug, Default)]
struct Slot {
    methods: Methods,
    /// What the routes here and every prefix that leads here take; `None` until sealed, or when one takes any method.
    allow: Option<AllowId>,
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
    /// The path matches, the method does not.
    Refused(AllowId),
    /// No path matches.
    Nothing,
}

impl Paths {
    /// Puts a route in; the one that no rule can order it against is given back.
    pub(super) fn insert(
        &mut self,
        path: &PathPattern,
        method: Option<&Method>,
        route: RouteId,
    ) -> Result<(), RouteId> {
        self.first = Some(self.first.map_or(route, |first| first.min(route)));
        let slot = match path {
            PathPattern::Pathless => &mut self.pathless,
            PathPattern::Exact(path) => &mut self.node(path).exact,
            PathPattern::Prefix(path) => match path.strip_suffix('/') {
                Some(shorter) => &mut self.node(shorter).below,
                None => &mut self.node(path).here,
            },
        };
        slot.methods.insert(method, route)
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

    /// Whether a prefix takes every path.
    pub(super) fn takes_every_path(&self) -> bool {
        !self.nodes[0].below.methods.is_empty()
    }

    /// The lowest route of this host.
    pub(super) fn first_route(&self) -> Option<RouteId> {
        self.first
    }

    /// Works out the `Allow` values, once all routes are in.
    pub(super) fn seal(&mut self, values: &mut AllowValues) {
        seal_slot(&mut self.pathless, None, values);
        // `Some(methods)`: the prefixes so far take these; `None`: one of them takes any method.
        let mut open: Vec<(u32, Option<Vec<Method>>)> = vec![(0, Some(Vec::new()))];
        while let Some((at, so_far)) = open.pop() {
            let node = &mut self.nodes[at as usize];
            let here = seal_slot(&mut node.here, Some(so_far), values);
            seal_slot(&mut node.exact, Some(here.clone()), values);
            let below = seal_slot(&mut node.below, Some(here), values);
            open.extend(node.children.values().map(|&child| (child, below.clone())));
        }
    }

    /// The route of a path and method.
    pub(super) fn find(&self, path: Option<&str>, method: &Method) -> Found {
        let Some(path) = path else {
            return match self.pathless.methods.find(method) {
                Some(route) => Found::Route(route),
                None => self.pathless.allow.map_or(Found::Nothing, Found::Refused),
            };
        };
        let mut best = None;
        let mut allow = None;
        let mut look = |slot: &Slot| {
            // Later slots are more specific, so the last that takes the method wins, and the last `Allow` holds them all.
            if !slot.methods.is_empty() {
                best = slot.methods.find(method).or(best);
                allow = slot.allow.or(allow);
            }
        };
        let mut node = &self.nodes[0];
        let mut whole = true;
        for segment in segments(path) {
            look(&node.here);
            look(&node.below);
            match node.children.get(segment) {
                Some(&child) => node = &self.nodes[child as usize],
                None => {
                    whole = false;
                    break;
                }
            }
        }
        if whole {
            look(&node.here);
            look(&node.exact);
        }
        match (best, allow) {
            (Some(route), _) => Found::Route(route),
            (None, Some(allow)) => Found::Refused(allow),
            (None, None) => Found::Nothing,
        }
    }
}

/// What stands between the slashes of a path: `/` has one empty segment, `/api/x` two, the empty path none.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    let mut parts = path.split('/');
    // Before the leading slash; for the empty path this is all there is.
    parts.next();
    parts
}

/// Gives a slot its `Allow` value; returns what the routes up to and including it take.
fn seal_slot(slot: &mut Slot, so_far: Option<Option<Vec<Method>>>, values: &mut AllowValues) -> Option<Vec<Method>> {
    let mut methods = so_far.unwrap_or_else(|| Some(Vec::new()))?;
    if slot.methods.is_empty() {
        return Some(methods);
    }
    if slot.methods.any.is_some() {
        return None;
    }
    for (method, _) in &slot.methods.named {
        if !methods.contains(method) {
            methods.push(method.clone());
        }
    }
    slot.allow = Some(values.intern(&methods));
    Some(methods)
}
