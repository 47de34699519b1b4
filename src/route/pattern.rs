//! What a route can ask for: hosts, a path, methods, matchers.
//!
//! Owns the forms of hosts and paths in routes. Paths are match paths (see `http::path`): the caller hands over text
//! that is already in that form.

use std::fmt;

use super::matcher::Matcher;
use crate::http::{Authority, Method};

/// A host, or all hosts below one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// Exactly this host, in the spelling of `http::Authority::host`.
    Exact(Box<str>),
    /// Every host that ends in this, which begins with a dot: `.example.com`.
    Suffix(Box<str>),
}

impl HostPattern {
    /// Reads `www.example.com` or `*.example.com`.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (wildcard, host) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if host.contains('*') {
            return Err("`*` can only be the whole first label");
        }
        if host.contains('/') {
            return Err("this is not a host name");
        }
        let authority = Authority::parse(host.as_bytes()).ok_or("this is not a host name")?;
        if authority.port().is_some() {
            return Err("a host has no port here: requests are matched without it");
        }
        // The one spelling: what requests are compared by.
        let host = authority.host();
        if host.is_empty() || host == "." {
            return Err("this is not a host name");
        }
        if !wildcard {
            return Ok(Self::Exact(host.into()));
        }
        if host.starts_with('[') {
            return Err("an address has no names below it");
        }
        Ok(Self::Suffix(format!(".{host}").into()))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// A path, or all paths below one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// This path and everything below it on a segment boundary: `/api` takes `/api` and `/api/x`, `/api/` only what is
    /// below, `/` everything.
    Prefix(Box<str>),
    /// This path only.
    Exact(Box<str>),
    /// No path at all: the target `*`.
    Pathless,
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(path) => write!(f, "path prefix {path}"),
            Self::Exact(path) => write!(f, "path {path}"),
            Self::Pathless => f.write_str("the target *"),
        }
    }
}

/// One route to compile: takes a request when one of the hosts, the path, one of the methods and all matchers match.
#[derive(Clone, Debug)]
pub struct RouteSpec {
    /// Empty: any host.
    pub hosts: Vec<HostPattern>,
    /// The path.
    pub path: PathPattern,
    /// Empty: any method.
    pub methods: Vec<Method>,
    /// What else has to hold; each looks at another value.
    pub matchers: Vec<Matcher>,
}
