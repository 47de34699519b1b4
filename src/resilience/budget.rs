//! How many retries the requests of an upstream may have together: when everything fails, asking everything twice makes it
//! worse.

use std::time::{Duration, Instant};

/// The rules of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetPolicy {
    /// Retries for a hundred requests of the window.
    pub percent: u32,
    /// Retries a second that are permitted however few requests there are. A worker has its share, one at least.
    pub min_per_sec: u32,
    /// How long requests and retries count.
    pub window: Duration,
}

/// Parts of the window: it slides by one of them.
const PARTS: usize = 10;

/// One upstream's retries on one worker.
#[derive(Clone, Debug)]
pub struct Budget {
    policy: BudgetPolicy,
    parts: [Part; PARTS],
    /// The part that is counted in, and when it began.
    at: usize,
    since: Instant,
    /// Sums over all parts.
    sum: Part,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Part {
    requests: u64,
    retries: u64,
}

impl Budget {
    /// A budget that counts from `now`.
    #[must_use]
    pub fn new(policy: BudgetPolicy, now: Instant) -> Self {
        Self { policy, parts: [Part::default(); PARTS], at: 0, since: now, sum: Part::default() }
    }

    /// Counts a request.
    pub fn request(&mut self, now: Instant) {
        self.slide(now);
        self.parts[self.at].requests += 1;
        self.sum.requests += 1;
    }

    /// Takes the permit for a retry; `false`: there is none.
    #[must_use]
    pub fn retry(&mut self, now: Instant) -> bool {
        self.slide(now);
        let earned = self.sum.requests.saturating_mul(u64::from(self.policy.percent)) / 100;
        let floor = self.policy.window.as_secs_f64() * f64::from(self.policy.min_per_sec);
        if self.sum.retries >= earned.max(floor as u64) {
            return false;
        }
        self.parts[self.at].retries += 1;
        self.sum.retries += 1;
        true
    }

    /// Forgets what the window has left behind.
    fn slide(&mut self, now: Instant) {
        let part = (self.policy.window / PARTS as u32).max(Duration::from_millis(1));
        let passed = now.saturating_duration_since(self.since).as_nanos() / part.as_nanos();
        if passed == 0 {
            return;
        }
        let passed = usize::try_from(passed).unwrap_or(usize::MAX);
        for _ in 0..passed.min(PARTS) {
            self.at = (self.at + 1) % PARTS;
            let old = std::mem::take(&mut self.parts[self.at]);
            self.sum.requests -= old.requests;
            self.sum.retries -= old.retries;
        }
        self.since += part * u32::try_from(passed).unwrap_or(u32::MAX);
        if passed > PARTS {
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const POLICY: BudgetPolicy = BudgetPolicy { percent: 20, min_per_sec: 1, window: Duration::from_secs(10) };

    fn granted(budget: &mut Budget, tries: usize, now: Instant) -> usize {
        (0..tries).filter(|_| budget.retry(now)).count()
    }

    #[test]
    fn retries_are_a_share_of_the_requests() {
        let now = Instant::now();
        let mut budget = Budget::new(POLICY, now);
        (0..1000).for_each(|_| budget.request(now));
        assert_eq!(granted(&mut budget, 1000, now), 200);
    }

    #[test]
    fn few_requests_may_be_retried_too() {
        let now = Instant::now();
        let mut budget = Budget::new(POLICY, now);
        budget.request(now);
        assert_eq!(granted(&mut budget, 100, now), 10);
        let none = BudgetPolicy { percent: 0, min_per_sec: 0, ..POLICY };
        let mut budget = Budget::new(none, now);
        (0..1000).for_each(|_| budget.request(now));
        assert_eq!(granted(&mut budget, 100, now), 0);
    }

    #[test]
    fn what_is_spent_comes_back_when_the_window_has_passed_it() {
        let start = Instant::now();
        let mut budget = Budget::new(POLICY, start);
        (0..1000).for_each(|_| budget.request(start));
        assert_eq!(granted(&mut budget, 1000, start), 200);
        (0..500).for_each(|_| budget.request(start + 5 * SECOND));
        assert_eq!(granted(&mut budget, 1000, start + 5 * SECOND), 100);
        // The first thousand are gone, and so are their retries; the five hundred have had theirs.
        assert_eq!(granted(&mut budget, 1000, start + 10 * SECOND), 0);
        assert_eq!(granted(&mut budget, 1000, start + 16 * SECOND), 10);
        // A long silence leaves nothing.
        assert_eq!(granted(&mut budget, 1000, start + 100_000 * SECOND), 10);
        assert_eq!(budget.sum, Part { requests: 0, retries: 10 });
    }

    #[test]
    fn parts_follow_each_other_without_gaps_unless_all_are_past() {
        let start = Instant::now();
        for (tenths, begins) in [(9, 0), (19, 10), (99, 90), (109, 100), (110, 110), (119, 119)] {
            let mut budget = Budget::new(POLICY, start);
            budget.request(start + SECOND * tenths / 10);
            assert_eq!(budget.since, start + SECOND * begins / 10, "after {tenths} tenths of a second");
        }
    }

    #[test]
    fn sums_are_those_of_the_parts_whatever_the_pace() {
        let (mut now, mut random) = (Instant::now(), 1_u64);
        let mut budget = Budget::new(POLICY, now);
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            now += Duration::from_millis(random >> 54);
            match random >> 40 & 3 {
                0 => drop(budget.retry(now)),
                _ => budget.request(now),
            }
            let requests: u64 = budget.parts.iter().map(|part| part.requests).sum();
            let retries: u64 = budget.parts.iter().map(|part| part.retries).sum();
            assert_eq!(budget.sum, Part { requests, retries });
            assert!(retries <= (requests / 5).max(10) + 200, "{retries} of {requests}");
        }
    }
}
