//! What may wait in the worker's receive pool.
//!
//! What is received lies in buffers of one pool, and goes out from there without a copy. What cannot go out yet would keep
//! others from receiving: a holder whose peer takes its time keeps its share of the pool, and what is above it is copied.

use crate::limits::POOL_RESERVE;
use spooky_uring::{Chunk, Pressure};
use std::cell::Cell;
use std::rc::Rc;

/// The share of the pool that one holder may have now. Clones are the same share.
#[derive(Clone, Debug)]
pub struct PoolShare(Rc<Cell<usize>>);

impl PoolShare {
    /// For those who share no pool with anybody: there is always enough of it.
    pub fn unbounded() -> Self {
        Self(Rc::new(Cell::new(usize::MAX)))
    }

    /// Tells what is left of the pool, with buffers of `size` bytes; once a turn. Each holder may have half of what is
    /// above the reserve, so that however many there are, what moves finds a buffer.
    pub fn set(&self, pressure: Pressure, size: usize) {
        let above = pressure.free.saturating_sub(pressure.total / POOL_RESERVE);
        self.0.set(above / 2 * size);
    }

    /// Whether nothing may wait there.
    pub fn is_spent(&self) -> bool {
        self.0.get() == 0
    }

    /// Whether a holder of `held` bytes may have `more`. `most`: its own bound.
    pub fn fits(&self, held: usize, more: usize, most: usize) -> bool {
        held + more <= most.min(self.0.get())
    }

    /// The chunk, or a copy of it if it lies in the pool and its holder has too much there.
    pub fn keep(&self, chunk: Chunk, held: usize, most: usize) -> Chunk {
        match chunk.is_pooled() && !self.fits(held, chunk.len(), most) {
            // Copy: a peer that takes its time holds its own memory, not the worker's receive pool.
            true => Chunk::copy_from(&chunk),
            false => chunk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(free: usize, total: usize) -> PoolShare {
        let share = PoolShare::unbounded();
        share.set(Pressure { free, total }, 1000);
        share
    }

    #[test]
    fn each_holder_has_half_of_what_is_above_the_reserve() {
        let share = share(48, 48);
        assert!(share.fits(0, 18_000, usize::MAX) && !share.fits(0, 18_001, usize::MAX));
        assert!(share.fits(10_000, 8000, usize::MAX) && !share.fits(10_000, 8001, usize::MAX));
        assert!(share.fits(0, 500, 500) && !share.fits(0, 501, 500));
    }

    #[test]
    fn holders_without_number_leave_the_reserve() {
        let total = 48;
        let mut free = total;
        for _ in 0..1000 {
            let share = share(free, total);
            let mut held = 0;
            while share.fits(held * 1000, 1000, usize::MAX) {
                held += 1;
                free -= 1;
            }
        }
        assert!(free >= total / POOL_RESERVE, "{free}");
        assert!(share(free, total).is_spent());
    }

    #[test]
    fn nothing_waits_in_a_pool_of_which_the_reserve_is_left() {
        assert!(share(12, 48).is_spent() && share(0, 48).is_spent() && !share(14, 48).is_spent());
        assert!(!PoolShare::unbounded().is_spent());
    }
}
