//! The names behind the indexes: which route, upstream and backend a counter or an access record speaks of.
//!
//! A generation has one `Scope`; workers hold indexes, and only control looks names up.

/// One way of a route by name, and the upstream it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteName {
    /// The route's name (for the short form: the upstream's).
    pub route: Box<str>,
    /// The upstream's name; empty where the route has the answer itself.
    pub upstream: Box<str>,
}

/// A backend by name within its upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendName {
    /// The upstream's name.
    pub upstream: Box<str>,
    /// The backend's id.
    pub backend: Box<str>,
    /// Its address as configured.
    pub address: Box<str>,
}

/// All names of one generation.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The generation's number.
    pub generation: u64,
    /// By the index of the way: a route that splits has several.
    pub routes: Vec<RouteName>,
    /// By backend index.
    pub backends: Vec<BackendName>,
    /// Names of upstreams, by index.
    pub upstreams: Vec<Box<str>>,
    /// Names of rate limits, by index.
    pub rate_limits: Vec<Box<str>>,
}
