//! A running estimate of a quantile: the time that so many of a hundred answers do not take longer than.
//!
//! Each answer moves the estimate up by a part of itself if it took longer, and down by a smaller part if not; the parts are
//! such that it rests where so many are longer. Two words for each route, no clock, and what is old is forgotten by itself.
//! Only "longer or not" counts, so an attempt that was cancelled because it took longer says as much as one that was
//! waited for: hedging does not blind its own eyes.

use std::time::Duration;

/// Answers before the estimate is told to anybody.
const ANSWERS_LEAST: u32 = 100;

/// How far an answer moves the estimate, once it is settled: about 1 in 20 up, and what keeps the balance down.
const GAIN: f64 = 0.05;

/// No more than this while there are few answers: the first one may be far off, and must be forgotten soon.
const GAIN_MOST: f64 = 2.0;

/// The gain falls with the answers: this, divided by how many there were.
const GAIN_OF_FIRST: f64 = 64.0;

/// The estimate of one quantile.
#[derive(Clone, Copy, Debug)]
pub struct Quantile {
    /// Between 0 and 1.
    at: f64,
    seconds: f64,
    answers: u32,
}

impl Quantile {
    /// No answers yet. `percent`: so many of a hundred are to be no longer.
    #[must_use]
    pub fn new(percent: u32) -> Self {
        Self { at: f64::from(percent) / 100.0, seconds: 0.0, answers: 0 }
    }

    /// The estimate, once there were enough answers.
    #[must_use]
    pub fn get(&self) -> Option<Duration> {
        (self.answers >= ANSWERS_LEAST).then(|| Duration::from_secs_f64(self.seconds))
    }

    /// An answer took this long.
    pub fn observe(&mut self, time: Duration) {
        let time = time.as_secs_f64();
        if self.answers == 0 {
            self.seconds = time;
        }
        self.step(time > self.seconds);
        self.seconds = self.seconds.clamp(1e-6, 3600.0);
    }

    /// An answer was not waited for any longer after this time.
    pub fn observe_at_least(&mut self, time: Duration) {
        if self.answers > 0 && time.as_secs_f64() >= self.seconds {
            self.step(true);
        }
    }

    fn step(&mut self, longer: bool) {
        self.answers = self.answers.saturating_add(1);
        let gain = (GAIN_OF_FIRST / f64::from(self.answers)).clamp(GAIN, GAIN_MOST);
        self.seconds *= if longer { 1.0 + gain * self.at } else { 1.0 - gain * (1.0 - self.at) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers between 0 and 1.
    fn draws(seed: u64) -> impl Iterator<Item = f64> {
        let mut random = seed;
        std::iter::repeat_with(move || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 11) as f64 / (1_u64 << 53) as f64
        })
    }

    fn share_below(estimate: Duration, times: impl Iterator<Item = Duration>) -> f64 {
        times.take(20_000).filter(|time| *time <= estimate).count() as f64 / 20_000.0
    }

    /// Times around 10 ms with a long tail.
    fn exponential(seed: u64) -> impl Iterator<Item = Duration> {
        draws(seed).map(|draw| Duration::from_secs_f64(-0.01 * (1.0 - draw).ln()))
    }

    #[test]
    fn it_finds_the_quantile_and_stays_there() {
        // The nearer to the middle, the more answers are on either side, and move it.
        for (percent, mean_off, each_off) in [(50, 0.04, 0.2), (90, 0.015, 0.06), (95, 0.015, 0.06), (99, 0.015, 0.06)]
        {
            let wanted = f64::from(percent) / 100.0;
            let share = |seed| {
                let mut quantile = Quantile::new(percent);
                exponential(seed).take(5_000).for_each(|time| quantile.observe(time));
                share_below(quantile.get().unwrap(), exponential(seed + 100))
            };
            let shares: Vec<f64> = (0..20).map(share).collect();
            let mean = shares.iter().sum::<f64>() / 20.0;
            assert!((mean - wanted).abs() < mean_off, "p{percent}: {mean}");
            assert!(shares.iter().all(|share| (share - wanted).abs() < each_off), "p{percent}: {shares:?}");
        }
    }

    #[test]
    fn it_says_nothing_before_it_knows_enough() {
        let mut quantile = Quantile::new(95);
        assert_eq!(quantile.get(), None);
        (0..99).for_each(|_| quantile.observe(Duration::from_millis(10)));
        assert_eq!(quantile.get(), None);
        quantile.observe(Duration::from_millis(10));
        let estimate = quantile.get().unwrap().as_secs_f64();
        assert!(estimate > 0.004 && estimate < 0.025, "{estimate}");
    }

    #[test]
    fn what_is_as_long_as_the_estimate_is_not_longer() {
        let mut quantile = Quantile::new(95);
        quantile.observe(Duration::from_millis(10));
        assert!(quantile.seconds < 0.01, "{quantile:?}");
    }

    #[test]
    fn what_was_given_up_before_there_was_an_answer_says_nothing() {
        let mut quantile = Quantile::new(95);
        quantile.observe_at_least(Duration::from_millis(10));
        (0..99).for_each(|_| quantile.observe(Duration::from_millis(10)));
        assert_eq!(quantile.get(), None);
    }

    #[test]
    fn it_follows_times_that_change_both_ways() {
        let mut quantile = Quantile::new(95);
        exponential(1).take(2_000).for_each(|time| quantile.observe(time));
        exponential(2).take(500).for_each(|time| quantile.observe(time * 10));
        let share = share_below(quantile.get().unwrap(), exponential(3).map(|time| time * 10));
        assert!(share > 0.9, "{share}");
        exponential(4).take(3_000).for_each(|time| quantile.observe(time));
        let share = share_below(quantile.get().unwrap(), exponential(5));
        assert!(share < 0.985, "{share}");
    }

    /// What takes longer than the estimate is cancelled there, and the estimate is the same.
    #[test]
    fn what_is_cancelled_says_as_much_as_what_is_waited_for() {
        let (mut whole, mut cut) = (Quantile::new(95), Quantile::new(95));
        for time in exponential(7).take(5_000) {
            whole.observe(time);
            match cut.get() {
                // The one that overtakes it needs a moment, too.
                Some(at) if time > at => cut.observe_at_least(at + Duration::from_micros(1)),
                _ => cut.observe(time),
            }
        }
        let (whole, cut) = (whole.get().unwrap().as_secs_f64(), cut.get().unwrap().as_secs_f64());
        assert!((whole / cut - 1.0).abs() < 1e-6, "{whole} {cut}");
        // What was given up early for another cause says nothing.
        let mut quantile = Quantile::new(95);
        (0..200).for_each(|_| quantile.observe(Duration::from_millis(10)));
        let before = quantile.get();
        (0..200).for_each(|_| quantile.observe_at_least(Duration::from_millis(1)));
        assert_eq!(quantile.get(), before);
    }
}
