//! How often: whether a request comes within the rate that its client, its route, or what it carries is allowed.
//!
//! Owns the limits of a configuration and the tables of what was used of them, which all workers share. Knows no
//! configuration, no socket and no answer: a head, an address and a time go in, a decision comes out. Read in this order:
//! [`pace`] (the arithmetic), [`table`] (where it is kept), [`key`] (what a request is counted by), [`rates`] (all of it).

mod key;
mod pace;
mod rates;
mod table;

pub use key::{CountBy, Networks};
pub use pace::Pace;
pub use rates::{Asked, Exceeded, Left, LimitId, Noted, RateLimit, Rates};
pub use table::{Charged, Table};
