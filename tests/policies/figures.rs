//! What each algorithm makes of each trouble: `cargo test --test policies figures -- --nocapture` prints the table.

use crate::stories::{HALF, Story, TROUBLES, Who};
use crate::world::{ALGORITHMS, Fate, Record, World};
use std::time::Duration;

/// Of the time of the trouble: the share of the one in trouble, the 99th percentile of what was answered, the part that failed.
struct Figures {
    share: f64,
    p99: Duration,
    failed: f64,
}

fn figures(algorithm: &'static str, trouble: crate::backends::Trouble, ejects: bool) -> Figures {
    let mut story = Story::of(algorithm, trouble, 1);
    story.weights = vec![100; 4];
    story.who = Who::One(0);
    story.given_up = 0.0;
    story.per_second = 200;
    (story.breaks, story.ejects) = (!ejects, ejects.then_some(HALF));
    let during = story.from..story.until;
    let record: Record = World::run(&story, None, 1);
    let attempts = || record.attempts.iter().filter(|one| during.contains(&one.at));
    let share = attempts().filter(|one| one.backend == 0).count() as f64 / attempts().count() as f64;
    let requests = || record.requests.iter().filter(|(came, ..)| during.contains(came));
    let mut times: Vec<Duration> =
        requests().filter(|(.., fate)| *fate == Fate::Answered).map(|(_, took, _)| *took).collect();
    times.sort();
    let failed = requests().filter(|(.., fate)| *fate != Fate::Answered).count() as f64 / requests().count() as f64;
    Figures { share, p99: times[times.len() * 99 / 100], failed }
}

#[test]
fn figures_of_each_algorithm_in_each_trouble() {
    for (ejects, by) in [(false, "circuit breakers"), (true, "ejection")] {
        println!("| {by} | {} |", TROUBLES.map(|trouble| format!("{trouble:?}")).join(" | "));
        for algorithm in ALGORITHMS {
            let row = TROUBLES.map(|trouble| {
                let Figures { share, p99, failed } = figures(algorithm, trouble, ejects);
                assert!(failed <= 0.05, "{algorithm} in {trouble:?}, {by}: {failed}");
                format!("{:.1} % · {:.1} ms · {:.2} %", share * 100.0, p99.as_secs_f64() * 1000.0, failed * 100.0)
            });
            println!("| {algorithm} | {} |", row.join(" | "));
        }
    }
}
