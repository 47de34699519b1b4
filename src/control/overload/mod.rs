//! What is to be decided for the whole process about overload: workers only read what they were told.
//!
//! Decides nothing by itself: [`crate::overload`] does. This is its shell.
//!
//! ```text
//! admission  answers that the workers count ─▶ limit of each upstream ─▶ each worker's part
//! watch      how full everything is, memory too ─▶ whether there is a brownout
//! ```

mod admission;
mod watch;

use super::workers::WorkerLine;
use crate::config::Generation;
use crate::telemetry::registry::OverloadCells;
use admission::Admission;
use spooky_uring::{Io, Ring};
use std::time::Instant;
use watch::Watch;

pub use admission::cells;

/// Everything about overload that is control's.
pub struct Overload {
    admission: Option<Admission>,
    watch: Option<Watch>,
}

impl Overload {
    /// For a configuration; what it does not want costs nothing.
    #[must_use]
    pub fn new(generation: &Generation, workers: usize, now: Instant) -> Self {
        Self { admission: Admission::new(generation, workers, now), watch: Watch::new(generation, workers, now) }
    }

    /// When [`Self::turn`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let admission = self.admission.as_ref().map(Admission::deadline);
        [admission, self.watch.as_ref().map(Watch::deadline)].into_iter().flatten().min()
    }

    /// Looks at what is due, and tells the workers what has changed.
    pub fn turn(&mut self, ring: &mut Ring, workers: &[WorkerLine], cells: &OverloadCells) {
        let now = ring.now();
        if let Some(admission) = &mut self.admission {
            admission.turn(now, ring, workers, cells);
        }
        if let Some(watch) = &mut self.watch {
            watch.turn(now, ring, workers, cells);
        }
    }
}
