//! Which backends are fit to be asked: what probes say of them, and what became of the requests that they were given.
//!
//! Owns one state for each backend ([`member`]), fed by both sources, and all of them together with the times of their probes
//! and the bound on how many may be ejected ([`monitor`]). What a probe's answer has to be like is [`expectation`]'s. Knows no
//! socket, no clock and no backend: positions stand for backends, `now` and random numbers come in with each call, and what is
//! to be done goes out as values. Control is the shell that carries it out, and workers are told what follows.

pub mod expectation;
pub mod member;
pub mod monitor;

#[cfg(test)]
mod tests;

pub use expectation::{Expectation, Reading};
pub use member::{Change, Member};
pub use monitor::{Group, GroupId, MemberId, Monitor, News, Order, Outcomes};

use std::time::Duration;

/// When a backend is probed, and what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbePolicy {
    /// From the beginning of one probe to that of the next, less or more a tenth by chance.
    pub interval: Duration,
    /// How long one may take. Invariant: not longer than the interval.
    pub timeout: Duration,
    /// Probes in a row that have to fail for a backend to become unhealthy.
    pub failures: u32,
    /// Probes in a row that have to pass for it to become healthy again.
    pub successes: u32,
}

/// When a backend is ejected because of the requests that fail on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierPolicy {
    /// Failures in a row, seen by one worker.
    pub consecutive: u32,
    /// Percentage of failures in an interval that is too much; `None`: none is.
    pub percent: Option<u32>,
    /// An interval with fewer requests says nothing.
    pub requests: u64,
    /// The interval.
    pub interval: Duration,
    /// How long the first ejection lasts; each further one twice as long as the one before.
    pub base_time: Duration,
    /// No ejection lasts longer, and a backend that was healthy for so long begins anew.
    /// Invariant: not shorter than `base_time`.
    pub max_time: Duration,
    /// Percentage of an upstream's backends that may be out at most for one more to be ejected, that one included.
    pub max_percent: u32,
}

impl OutlierPolicy {
    /// Whether one more of `members` may be ejected where `out` are out.
    #[must_use]
    pub fn permits(&self, members: usize, out: usize) -> bool {
        (out + 1) * 100 <= members * self.max_percent as usize
    }
}

/// Whether so few of `members` are healthy that health is disregarded. `threshold`: a percentage; 0: never.
#[must_use]
pub fn is_panic(members: usize, healthy: usize, threshold: u32) -> bool {
    healthy * 100 < members * threshold as usize
}
