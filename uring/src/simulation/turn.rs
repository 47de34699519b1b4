//! What everything that happens at one moment works with.

use super::agenda::Agenda;
use super::plan::Plan;
use super::random::Random;
use super::trace::Trace;
use crate::io::Event;
use crate::stats::RingStats;
use std::time::{Duration, Instant};

/// One moment of the simulated world, with what may be drawn, counted, told and planned in it.
pub(super) struct Turn<'a> {
    pub(super) now: Instant,
    pub(super) elapsed: Duration,
    pub(super) plan: &'a Plan,
    pub(super) random: &'a mut Random,
    pub(super) agenda: &'a mut Agenda,
    pub(super) stats: &'a mut RingStats,
    pub(super) trace: &'a mut Trace,
    pub(super) events: &'a mut Vec<Event>,
}

impl Turn<'_> {
    pub(super) fn note(&mut self, what: &str, who: u64, amount: usize) {
        self.trace.note(self.elapsed, what, who, amount as u64);
    }

    /// When something that is done now completes: now, or late.
    pub(super) fn completion(&mut self) -> Instant {
        let late = self.random.chance(self.plan.late);
        let by = self.random.up_to(self.plan.late_by);
        if late { self.now + by } else { self.now }
    }

    /// When something sent now is at the other end of a stream.
    pub(super) fn arrival(&mut self) -> Instant {
        self.now + self.plan.stream_delay + self.random.up_to(self.plan.stream_jitter)
    }
}
