//! Histograms of things that are counted in few, fixed steps: datagrams of a batch, bytes of a packet or of a window.
//!
//! Durations are no such thing: they go over seven orders of magnitude and have [`super::latency`].

use super::cells::Counter;

/// A histogram type with fixed upper bounds; each bound is inclusive, and there is one cell more for what exceeds them.
macro_rules! steps {
    ($($(#[$meta:meta])* $name:ident [$($bound:expr),+];)+) => {$(
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub struct $name {
            cells: [Counter; Self::BOUNDS.len() + 1],
            sum: Counter,
        }

        impl $name {
            /// Upper bounds of the buckets, ascending.
            pub const BOUNDS: &'static [u64] = &[$($bound),+];

            /// Counts one `value`; only the owning worker calls it.
            #[inline]
            pub fn count(&self, value: u64) {
                // At most a dozen bounds, and the common values are found at the front: no worse than a division.
                let at = Self::BOUNDS.iter().position(|bound| value <= *bound).unwrap_or(Self::BOUNDS.len());
                self.cells[at].add(1);
                self.sum.add(value);
            }

            /// Sum of all values.
            pub fn sum(&self) -> u64 {
                self.sum.get()
            }

            /// What was counted.
            pub fn read(&self) -> Reading {
                Reading {
                    bounds: Self::BOUNDS,
                    counts: self.cells.iter().map(Counter::get).collect(),
                    sum: self.sum.get(),
                }
            }
        }
    )+};
}

steps! {
    /// How many datagrams went or came in one operation (GSO, GRO).
    Batches [1, 2, 4, 8, 16, 32, 64];
    /// Bytes of a UDP payload, as the search for the path's packet size ends: 1200 is what every path of QUIC carries,
    /// 1232 and 1252 fit IPv6 and IPv4 links of 1280, 1452 and 1472 those of 1500.
    PacketSizes [1200, 1232, 1252, 1350, 1400, 1452, 1472];
    /// Bytes of a congestion window, in powers of two.
    Windows [1 << 13, 1 << 14, 1 << 15, 1 << 16, 1 << 17, 1 << 18, 1 << 19, 1 << 20, 1 << 21, 1 << 22, 1 << 23, 1 << 24];
}

/// What one histogram, or several of one type, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Upper bounds, inclusive.
    pub bounds: &'static [u64],
    /// Values per bucket, not cumulative; one more than there are bounds.
    pub counts: Vec<u64>,
    /// Sum of the values.
    pub sum: u64,
}

impl Reading {
    /// Adds another worker's counts of the same type.
    pub fn merge(&mut self, other: &Self) {
        debug_assert_eq!(self.bounds, other.bounds);
        for (to, count) in self.counts.iter_mut().zip(&other.counts) {
            *to += count;
        }
        self.sum += other.sum;
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// `(bound, values not above it)`, cumulative.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut below = 0;
        self.bounds.iter().zip(&self.counts).map(move |(bound, count)| {
            below += count;
            (*bound, below)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_below_their_bound() {
        let batches = Batches::default();
        for n in [1, 2, 3, 4, 5, 64, 65] {
            batches.count(n);
        }
        let read = batches.read();
        assert_eq!(read.counts, [1, 1, 2, 1, 0, 0, 1, 1]);
        assert_eq!((read.sum, batches.sum(), read.count()), (144, 144, 7));
        assert_eq!(read.buckets().last(), Some((64, 6)));
    }

    #[test]
    fn bounds_ascend() {
        for bounds in [Batches::BOUNDS, PacketSizes::BOUNDS, Windows::BOUNDS] {
            assert!(bounds.is_sorted_by(|one, two| one < two), "{bounds:?}");
        }
    }

    #[test]
    fn workers_add_up() {
        let (one, two) = (PacketSizes::default(), PacketSizes::default());
        one.count(1200);
        two.count(1200);
        two.count(9000);
        let mut read = one.read();
        read.merge(&two.read());
        assert_eq!((read.counts[0], *read.counts.last().unwrap()), (2, 1));
        assert_eq!(read.sum, 11_400);
    }
}
