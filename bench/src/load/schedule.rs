//! When requests start: closed loop, open loop, idle crowd; and when the measured time begins.
//!
//! Sees time and counts only, no sockets.

use super::client::Client;
use super::plan::{Pace, Plan, Until};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Due requests that wait for room; beyond that the server is hopelessly behind and the rest stays uncounted as unsent.
const BACKLOG_MAX: usize = 1 << 20;

/// The state of the pace.
#[derive(Debug)]
pub struct Schedule {
    pace: Pace,
    until: Until,
    measuring: bool,
    /// Requests started in this phase.
    started: u64,
    /// Open loop: when the next one is due.
    next: Instant,
    /// Open loop: due, not yet started.
    backlog: VecDeque<Instant>,
}

impl Schedule {
    /// Starts with the warm-up.
    pub fn new(plan: &Plan, now: Instant) -> Self {
        Self { pace: plan.pace, until: plan.until, measuring: false, started: 0, next: now, backlog: VecDeque::new() }
    }

    /// The warm-up is over.
    pub fn begin_measuring(&mut self) {
        self.measuring = true;
        self.started = 0;
    }

    /// Whether the warm-up is over.
    pub fn is_measuring(&self) -> bool {
        self.measuring
    }

    /// Whether new connections are of use when `ended` requests have ended.
    pub fn wants_more(&self, ended: u64) -> bool {
        !matches!(self.until, Until::Requests(limit) if self.measuring && ended >= limit)
    }

    /// Closed loop and idle crowd: whether this connection may start a request now.
    pub fn may_start(&self, client: &Client) -> bool {
        match self.pace {
            Pace::Closed => self.below_limit(),
            Pace::Open { .. } => false,
            Pace::Idle { .. } => client.issued < client.allowance,
        }
    }

    /// One more has started.
    pub fn note_start(&mut self) {
        self.started += 1;
    }

    fn below_limit(&self) -> bool {
        !matches!(self.until, Until::Requests(limit) if self.measuring && self.started >= limit)
    }

    /// Open loop: makes due what is due by now.
    pub fn advance(&mut self, now: Instant) {
        let Pace::Open { interval } = self.pace else {
            return;
        };
        while self.next <= now && self.backlog.len() < BACKLOG_MAX {
            self.backlog.push_back(self.next);
            self.next += interval.max(Duration::from_nanos(1));
        }
    }

    /// Open loop: the oldest due request.
    pub fn peek_due(&self) -> Option<Instant> {
        self.backlog.front().copied().filter(|_| self.below_limit())
    }

    /// Open loop: that request has started.
    pub fn take_due(&mut self) {
        self.backlog.pop_front();
        self.started += 1;
    }

    /// Open loop: due, not yet started.
    pub fn unsent(&self) -> u64 {
        self.backlog.len() as u64
    }

    /// Open loop: when there is something to do without any answer.
    pub fn next_due(&self) -> Option<Instant> {
        match self.pace {
            Pace::Open { .. } if self.below_limit() => Some(self.next),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(interval_ms: u64, until: Until, now: Instant) -> Schedule {
        Schedule {
            pace: Pace::Open { interval: Duration::from_millis(interval_ms) },
            until,
            measuring: true,
            started: 0,
            next: now,
            backlog: VecDeque::new(),
        }
    }

    #[test]
    fn a_stall_leaves_every_request_due_at_its_own_time() {
        let now = Instant::now();
        let mut schedule = open(10, Until::Time(Duration::from_secs(1)), now);
        schedule.advance(now + Duration::from_millis(35));
        let mut due = Vec::new();
        while let Some(at) = schedule.peek_due() {
            due.push((at - now).as_millis());
            schedule.take_due();
        }
        assert_eq!(due, [0, 10, 20, 30]);
        assert_eq!(schedule.next_due(), Some(now + Duration::from_millis(40)));
    }

    #[test]
    fn no_more_requests_start_than_are_asked_for() {
        let now = Instant::now();
        let mut schedule = open(1, Until::Requests(3), now);
        schedule.advance(now + Duration::from_millis(100));
        for _ in 0..3 {
            assert!(schedule.peek_due().is_some());
            schedule.take_due();
        }
        assert_eq!(schedule.peek_due(), None);
        assert_eq!(schedule.next_due(), None);
    }
}
