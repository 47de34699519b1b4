//! Which backend of an upstream takes the next attempt.
//!
//! Owns the algorithms, one file each. Knows no backend: it is given weights and answers with positions; health,
//! limits and what was tried already come in as a question about a position.

mod round_robin;

pub use round_robin::RoundRobin;
