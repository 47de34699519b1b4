//! Weighted random: each pick is a lot drawn by weight, whatever came before.
//!
//! An alias table (Walker 1977, Vose 1991) draws in constant time: a column by one half of the number, and by the other
//! half its own position or the one that fills it up. Only if that one is left out, a second draw goes over those that
//! are left.

/// The weights of one upstream, ready to be drawn from.
#[derive(Clone, Debug)]
pub struct Random {
    weights: Vec<u32>,
    columns: Vec<Column>,
}

#[derive(Clone, Copy, Debug)]
struct Column {
    /// Of 2^32 draws that fall on the column, so many stay.
    keep: u32,
    /// Where the others go.
    other: u32,
}

impl Random {
    /// With these weights; positions count from 0. A weight of 0 is never picked.
    #[must_use]
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let weights: Vec<u32> = weights.into_iter().collect();
        let total: u128 = weights.iter().copied().map(u128::from).sum();
        // Every column holds `total`: what a position has beyond that fills up those that have less.
        let mut held: Vec<u128> = weights.iter().map(|&weight| u128::from(weight) * weights.len() as u128).collect();
        let mut columns: Vec<Column> =
            (0..weights.len()).map(|at| Column { keep: u32::MAX, other: at as u32 }).collect();
        let (mut poor, mut rich): (Vec<usize>, Vec<usize>) = (0..weights.len()).partition(|&at| held[at] < total);
        while let (Some(&to), Some(from)) = (rich.last(), poor.pop()) {
            columns[from] = Column { keep: ((held[from] << 32) / total) as u32, other: to as u32 };
            held[to] -= total - held[from];
            if held[to] < total {
                rich.pop();
                poor.push(to);
            }
        }
        Self { weights, columns }
    }

    /// The position that `draw` falls on, leaving out those that `skip` says; `None` when that leaves nobody.
    #[inline]
    pub fn pick(&self, draw: u64, skip: impl Fn(usize) -> bool) -> Option<usize> {
        let at = self.lot(draw)?;
        if self.weights[at] != 0 && !skip(at) {
            return Some(at);
        }
        self.among(&mut Chance::new(draw), skip)
    }

    /// Two different positions drawn by weight, the second one among those that the first leaves.
    #[inline]
    pub(super) fn pair(&self, draw: u64, skip: impl Fn(usize) -> bool) -> Option<(usize, Option<usize>)> {
        let first = self.pick(draw, &skip)?;
        let mut chance = Chance::new(draw);
        let left_out = |at| at == first || skip(at);
        let second = match self.lot(chance.next()) {
            Some(at) if self.weights[at] != 0 && !left_out(at) => Some(at),
            _ => self.among(&mut chance, left_out),
        };
        Some((first, second))
    }

    /// The weight of a position.
    #[inline]
    pub(super) fn weight(&self, at: usize) -> u32 {
        self.weights[at]
    }

    /// By weight over all; with weights of nothing but 0 it is anybody.
    #[inline]
    fn lot(&self, draw: u64) -> Option<usize> {
        let at = ((draw >> 32) * self.columns.len() as u64) >> 32;
        let column = self.columns.get(at as usize)?;
        Some(if (draw as u32) < column.keep { at as usize } else { column.other as usize })
    }

    /// By weight over those that `skip` leaves, in one pass: each takes the place of the one before it with the
    /// probability of its share so far.
    fn among(&self, chance: &mut Chance, skip: impl Fn(usize) -> bool) -> Option<usize> {
        let mut chosen = None;
        let mut total = 0;
        for (at, &weight) in self.weights.iter().enumerate() {
            if weight == 0 || skip(at) {
                continue;
            }
            total += u64::from(weight);
            if chance.below(total) < u64::from(weight) {
                chosen = Some(at);
            }
        }
        chosen
    }
}

/// As many numbers as a pick needs, out of the one it was given (SplitMix64, Steele and others 2014).
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(draw: u64) -> Self {
        Self(draw)
    }

    #[inline]
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Below `bound`, with a bias of `bound`/2^64 at most.
    #[inline]
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// Spreads every bit over all others; no two numbers become one.
#[inline]
pub(super) fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The share of each column that comes to a position, summed over the table: exact, without drawing.
    fn shares(random: &Random) -> Vec<f64> {
        let mut shares = vec![0.0; random.columns.len()];
        for (at, column) in random.columns.iter().enumerate() {
            let keep = if column.other as usize == at { 1.0 } else { f64::from(column.keep) / 2_f64.powi(32) };
            shares[at] += keep / random.columns.len() as f64;
            shares[column.other as usize] += (1.0 - keep) / random.columns.len() as f64;
        }
        shares
    }

    #[test]
    fn the_table_holds_each_weight_exactly() {
        for weights in [vec![1], vec![1, 1], vec![100, 50, 0, 1], vec![1000, 1, 999, 37], (1..=400).collect()] {
            let total = f64::from(weights.iter().sum::<u32>());
            for (share, &weight) in shares(&Random::new(weights.iter().copied())).iter().zip(&weights) {
                assert!((share - f64::from(weight) / total).abs() < 1e-8, "{share} for {weight} of {weights:?}");
            }
        }
    }

    #[test]
    fn who_is_skipped_leaves_its_share_to_the_others_by_weight() {
        let random = Random::new([600, 300, 100, 0]);
        let mut chance = Chance::new(1);
        let mut counts = [0_u32; 4];
        for _ in 0..40_000 {
            counts[random.pick(chance.next(), |at| at == 0).expect("somebody is left")] += 1;
        }
        // 3:1 of 40,000; four times the standard deviation is 346.
        assert_eq!((counts[0], counts[3]), (0, 0));
        assert!((29_600..=30_400).contains(&counts[1]), "{counts:?}");
    }

    #[test]
    fn a_pair_is_two_different_ones_and_the_second_goes_by_weight_too() {
        let random = Random::new([1, 2, 7]);
        let mut chance = Chance::new(2);
        let mut counts = [[0_u32; 3]; 3];
        for _ in 0..100_000 {
            let (first, second) = random.pair(chance.next(), |_| false).expect("there are three");
            counts[first][second.expect("another is left")] += 1;
        }
        for (at, expected) in [(0, 10_000), (1, 20_000), (2, 70_000)] {
            assert_eq!(counts[at][at], 0);
            let first: u32 = counts[at].iter().sum();
            assert!(first.abs_diff(expected) < 700, "{at}: {counts:?}");
        }
        // Behind the heavy one the others share 1:2.
        assert!(counts[2][0].abs_diff(23_333) < 700, "{counts:?}");
    }

    #[test]
    fn nobody_left_is_said() {
        assert_eq!(Random::new([]).pick(7, |_| false), None);
        assert_eq!(Random::new([0, 0]).pick(7, |_| false), None);
        let random = Random::new([1, 1]);
        assert_eq!(random.pick(7, |_| true), None);
        assert_eq!(random.pair(7, |at| at == 0), Some((1, None)));
    }

    #[test]
    fn every_draw_falls_on_somebody() {
        let random = Random::new([3, 0, 5]);
        for draw in [0, 1, u64::MAX, u64::MAX << 32, u64::from(u32::MAX)] {
            assert!(matches!(random.pick(draw, |_| false), Some(0 | 2)), "{draw:x}");
        }
    }
}
