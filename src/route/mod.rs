//! Which route a request takes: host, then path, then method, then matchers, whatever the order of the file.
//!
//! Owns patterns, the compiled table, its conflicts and its shadows, and the shares of a split. Knows no upstream and no
//! configuration: routes are numbers. Read in this order: [`pattern`] and [`matcher`] (what can be written), [`table`] (how it is
//! found), [`paths`] (the tree of one host), [`choices`] (the routes at one point of it), [`split`]; [`explain()`] says
//! the same rule for people.
//! The rule a route is chosen by, most telling first:
//!
//! 1. exact host, then the longest wildcard suffix, then no host; the first of these where any route takes the request decides;
//! 2. exact path, then the longest prefix on a segment boundary;
//! 3. a route that names the method, then one for any method;
//! 4. more matchers, then fewer; of as many, more that want exact values, then more that want a pattern, then more that look at
//!    fields, then more that look at the query.
//!
//! A route that does not take the method is passed over, and one whose matchers do not hold is as if it were not there. If all
//! but the method of a request fits at a host and no route there takes the method, the answer is 405 and less specific hosts are
//! not asked.

mod choices;
mod explain;
mod matcher;
mod paths;
mod pattern;
mod split;
mod table;

#[cfg(test)]
mod tests;

pub use explain::{Explained, Rule, WhyNot, explain};
pub use matcher::{Lens, Matcher, Pattern, Source, Subject, Test};
pub use pattern::{HostPattern, PathPattern, RouteSpec};
pub use split::{Point, Shares, Sticky};
pub use table::{Conflict, Exposure, Lookup, Shadow, Table};

use crate::http::{Fields, Method};

/// Position of a route in the list the table was built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub u32);

/// What routes look at.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// In its one spelling (`http::Authority::host`).
    pub host: &'a str,
    /// The match path; `None` for the target `*`.
    pub path: Option<&'a str>,
    /// The method.
    pub method: &'a Method,
    /// As sent, without `?`.
    pub query: Option<&'a str>,
    /// As the client sent them.
    pub fields: &'a Fields,
    /// Whether the client is a trusted proxy.
    pub trusted: bool,
}
