//! Which route a request takes: host, then path, then method, whatever the order of the file.
//!
//! Owns patterns, the compiled table and its conflicts. Knows no upstream and no configuration: routes are numbers.
//! Read in this order: [`pattern`] (what can be written), [`table`] (how it is found), [`paths`] (the tree of one host).
//! The rule a route is chosen by, most telling first:
//!
//! 1. exact host, then the longest wildcard suffix, then no host; the first of these where any path matches decides;
//! 2. exact path, then the longest prefix on a segment boundary;
//! 3. a route that names the method, then one for any method.
//!
//! A route that does not take the method is passed over. If the path matches at a host and no route there takes the
//! method, the answer is 405 and less specific hosts are not asked.

mod paths;
mod pattern;
mod table;

#[cfg(test)]
mod tests;

pub use pattern::{HostPattern, PathPattern, RouteSpec};
pub use table::{Conflict, Exposure, Lookup, Table};

/// Position of a route in the list the table was built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub u32);
