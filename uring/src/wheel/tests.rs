use super::*;
use std::collections::BTreeMap;

fn at(start: Instant, nanos: u64) -> Instant {
    start + Duration::from_nanos(nanos)
}

/// xorshift64*: small, seeded, good enough to find mistakes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// The wheel against a sorted map, over random inserts, cancels, reschedules and jumps of the clock.
#[test]
fn agrees_with_a_sorted_map() {
    for seed in 1..=60_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let start = Instant::now();
        let mut wheel = Wheel::new(start, 300);
        let mut model: BTreeMap<(u64, u64), TimerKey> = BTreeMap::new();
        let mut now = 0;
        for id in 0..4000_u64 {
            let spans = [1_000, 100_000, 5_000_000, 3_000_000_000, 1 << 45];
            let span = spans[random.below(5) as usize];
            match random.below(10) {
                0..=3 => {
                    let deadline = now + random.below(span);
                    match wheel.insert(at(start, deadline), (deadline, id)) {
                        Ok(key) => assert!(model.insert((deadline, id), key).is_none()),
                        Err(_) => assert_eq!(model.len(), 300, "seed {seed}"),
                    }
                }
                4 if !model.is_empty() => {
                    let nth = random.below(model.len() as u64) as usize;
                    let (&timer, &key) = model.iter().nth(nth).unwrap();
                    model.remove(&timer);
                    assert_eq!(wheel.deadline(key), Some(at(start, timer.0)));
                    assert_eq!(wheel.cancel(key).map(|(_, id)| id), Some(timer.1));
                    assert_eq!(wheel.cancel(key), None);
                    assert!(!wheel.reschedule(key, start));
                }
                5 if !model.is_empty() => {
                    let nth = random.below(model.len() as u64) as usize;
                    let (&timer, &key) = model.iter().nth(nth).unwrap();
                    model.remove(&timer);
                    let deadline = now.saturating_sub(50_000) + random.below(span);
                    assert!(wheel.reschedule(key, at(start, deadline)));
                    model.insert((deadline, timer.1), key);
                }
                _ => {
                    now += random.below(span / 4 + 1);
                    while let Some((_, id)) = wheel.expire(at(start, now)) {
                        let due = model.keys().copied().find(|(_, other)| *other == id);
                        let due = due.unwrap_or_else(|| panic!("seed {seed}: fired twice"));
                        assert!(due.0 <= now, "seed {seed}: fired early");
                        model.remove(&due);
                    }
                    let first = model.keys().next();
                    assert!(first.is_none_or(|(deadline, _)| *deadline > now), "seed {seed}: missed");
                }
            }
            assert_eq!(wheel.len(), model.len());
            let first = model.keys().next().map(|(deadline, _)| at(start, *deadline));
            assert_eq!(wheel.next_deadline(), first, "seed {seed} step {id}");
            if id % 64 == 0 {
                wheel.check_invariants();
            }
        }
    }
}

#[test]
fn a_full_wheel_gives_the_value_back() {
    let start = Instant::now();
    let mut wheel = Wheel::new(start, 2);
    wheel.insert(start, 1).unwrap();
    let key = wheel.insert(start, 2).unwrap();
    assert_eq!(wheel.insert(start, 3), Err(3));
    wheel.cancel(key);
    assert!(wheel.insert(start, 3).is_ok());
}

#[test]
fn timers_inserted_while_others_fire_are_seen() {
    let start = Instant::now();
    let mut wheel = Wheel::new(start, 8);
    wheel.insert(start, 0).unwrap();
    let now = at(start, 1_000_000_000);
    let mut fired = Vec::new();
    while let Some(value) = wheel.expire(now) {
        fired.push(value);
        if value < 3 {
            wheel.insert(now, value + 1).unwrap();
        }
    }
    assert_eq!(fired, [0, 1, 2, 3]);
}

#[test]
fn nothing_fires_before_its_nanosecond() {
    let start = Instant::now();
    let mut wheel = Wheel::new(start, 8);
    for nanos in [70_001, 70_000, 65_536, 65_535] {
        wheel.insert(at(start, nanos), nanos).unwrap();
    }
    assert_eq!(wheel.expire(at(start, 65_534)), None);
    assert_eq!(wheel.expire(at(start, 65_535)), Some(65_535));
    assert_eq!(wheel.expire(at(start, 65_535)), None);
    assert_eq!(wheel.next_deadline(), Some(at(start, 65_536)));
    assert_eq!(wheel.expire(at(start, 70_000)).map(|_| ()), Some(()));
    assert_eq!(wheel.expire(at(start, 70_000)).map(|_| ()), Some(()));
    assert_eq!(wheel.expire(at(start, 70_000)), None);
    assert_eq!(wheel.expire(at(start, 70_001)), Some(70_001));
}

#[test]
fn far_deadlines_do_not_overflow() {
    let start = Instant::now();
    let mut wheel = Wheel::new(start, 8);
    wheel.insert(at(start, u64::MAX), "far").unwrap();
    wheel.insert(start + Duration::from_secs(1 << 35), "farther").unwrap();
    assert_eq!(wheel.next_deadline(), Some(at(start, u64::MAX)));
    assert_eq!(wheel.expire(at(start, u64::MAX - 1)), None);
    assert!(wheel.expire(at(start, u64::MAX)).is_some());
    assert!(wheel.expire(at(start, u64::MAX)).is_some());
}
