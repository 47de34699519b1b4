//! More requests than room: who waits, who is served when, and who is refused.

use crate::client::{Aborts, Outcome, Request};
use crate::origin::{Reaction, Reply};
use crate::scene::{ClientHandle, Scene, configuration};
use crate::seeds::seeds;
use spooky::http::Reason;
use spooky::telemetry::kinds::HealthState;
use spooky::telemetry::latency::Merged;
use spooky::worker::{Command, Verdict, Verdicts};
use spooky_uring::Io;
use spooky_uring::simulation::{Link, Plan, Random};
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// A scene whose backends answer each request after `takes`, and a client that may speak for others.
fn scene(seed: u64, backends: usize, takes: Duration, more: &str) -> (Scene, ClientHandle) {
    let text = format!("{}[routing]\ntrusted_proxies = [\"198.51.100.1\"]\n", configuration(backends, more));
    let mut scene = Scene::new(seed, Plan::calm(), &text);
    for number in 1..=backends {
        scene.origin(number, move |_| Reaction::Answer(Reply { after: takes, ..Reply::ok(10) }));
    }
    let client = scene.client(Link::clean(), Link::clean());
    (scene, client)
}

/// Requests of these clients, at once.
fn ask(scene: &Scene, client: &ClientHandle, numbers: impl Iterator<Item = u64>) {
    for number in numbers {
        scene.ask(client, of(number));
    }
}

/// A request of one of many clients.
fn of(number: u64) -> Request {
    let fields = vec![("x-forwarded-for".to_owned(), format!("203.0.113.{number}"))];
    Request { fields, ..Request::get("/length/10") }
}

/// When each request was answered, since the first one of them began; in the order of the requests, from a number on.
fn answered_from(client: &ClientHandle, first: usize) -> Vec<(Option<u16>, Duration)> {
    let client = client.get();
    let exchanges = &client.exchanges[first..];
    let began = exchanges.iter().filter_map(|one| one.began).min().expect("one began");
    exchanges.iter().map(|one| (one.status, one.answered.map_or(Duration::ZERO, |at| at - began))).collect()
}

fn answered(client: &ClientHandle) -> Vec<(Option<u16>, Duration)> {
    answered_from(client, 0)
}

/// Requests that were served after a wait.
fn waits(scene: &Scene) -> u64 {
    let mut all = Merged::default();
    scene.cells.queue_wait.merge_into(&mut all);
    all.count()
}

fn refusals(scene: &Scene, reason: Reason) -> u64 {
    scene.cells.refusals.get(reason)
}

/// Whatever limit is reached, who waits goes on when somebody else is through, at once.
#[test]
fn who_waits_is_served_when_there_is_room() {
    for (backends, limit) in [(1, "per_upstream_inflight_limit = 2"), (2, "per_backend_inflight_limit = 1")] {
        seeds(3, |seed| {
            let takes = 100 * MILLISECOND;
            let more = format!("[resilience.route_queue]\nmax_length = 100\n[performance]\n{limit}\n");
            let (mut scene, client) = scene(seed, backends, takes, &more);
            // The first pair makes the connections that the others use.
            for round in 0..2 {
                ask(&scene, &client, 0..2);
                scene.run_until("a pair", SECOND, |_| client.get().is_done());
                assert_eq!(waits(&scene), 0, "round {round}: there was room");
            }
            ask(&scene, &client, 0..10);
            scene.run_until("two in work and eight that wait", SECOND, |scene| scene.worker.census().waiting == 8);
            scene.worker.check_invariants();
            assert_eq!(scene.cells.route(0).waiting.get(), 8);
            scene.finish(10 * SECOND);
            let mut times: Vec<Duration> = answered_from(&client, 4)
                .into_iter()
                .map(|(status, at)| {
                    assert_eq!(status, Some(200));
                    at
                })
                .collect();
            times.sort();
            for (pair, times) in times.chunks(2).enumerate() {
                let least = (pair as u32 + 1) * takes;
                // The client's round trip, and next to nothing for each turn: nobody looks for room by the clock.
                let most = least + 21 * MILLISECOND + (pair as u32 + 1) * MILLISECOND;
                assert!(times.iter().all(|at| (least..most).contains(at)), "pair {pair}: {times:?}");
            }
            assert_eq!((scene.cells.route(0).queued.get(), waits(&scene)), (8, 8));
            assert_eq!(scene.cells.route(0).waiting.get(), 0);
            scene.close();
        });
    }
}

#[test]
fn clients_take_turns_however_many_requests_one_of_them_sends() {
    seeds(4, |seed| {
        let more = "[resilience.route_queue]\nmax_length = 100\nmax_length_per_address = 100\nmax_wait = \"60s\"\n\
                    [performance]\nper_upstream_inflight_limit = 1\n";
        let (mut scene, client) = scene(seed, 1, 50 * MILLISECOND, more);
        ask(&scene, &client, (0..40).map(|_| 1));
        scene.run_until("a queue", SECOND, |scene| scene.worker.census().waiting == 39);
        for number in 2..=4 {
            ask(&scene, &client, (0..2).map(|_| number));
        }
        scene.finish(60 * SECOND);
        let times = answered(&client);
        let latest = |range: std::ops::Range<usize>| times[range].iter().map(|(_, at)| *at).max().expect("some");
        // Two rounds of four clients, and the one that was in work.
        assert!(latest(40..46) <= 10 * 52 * MILLISECOND, "{:?}", &times[40..]);
        assert!(latest(0..40) >= 46 * 50 * MILLISECOND);
        // A client's own requests are served in their order.
        assert!(times[..40].is_sorted_by_key(|(_, at)| *at), "{times:?}");
        scene.close();
    });
}

#[test]
fn a_full_queue_a_full_share_and_a_long_wait_are_refused_by_name() {
    seeds(2, |seed| {
        let more = "[resilience.route_queue]\nmax_length = 3\nmax_length_per_address = 2\nmax_wait = \"300ms\"\n\
                    [performance]\nper_upstream_inflight_limit = 1\n";
        let (mut scene, client) = scene(seed, 1, SECOND, more);
        // One in work, two of the same client that wait, and one too many.
        for number in [1, 1, 1, 1, 2, 3] {
            scene.ask(&client, of(number));
            scene.run_for(10 * MILLISECOND);
        }
        assert_eq!(scene.worker.census().waiting, 3);
        scene.finish(5 * SECOND);
        let statuses: Vec<_> = answered(&client).iter().map(|(status, _)| status.expect("an answer")).collect();
        assert_eq!(statuses, [200, 503, 503, 503, 503, 503]);
        let times = answered(&client);
        for waited in [1, 2, 4] {
            let wait = client.get().exchanges[waited].answered.zip(client.get().exchanges[waited].began);
            let wait = wait.map(|(answered, began)| answered - began).expect("an answer");
            assert!((300 * MILLISECOND..330 * MILLISECOND).contains(&wait), "{waited} waited {wait:?}");
        }
        assert!(times[3].1 < 40 * MILLISECOND && times[5].1 < 60 * MILLISECOND, "refused at once: {times:?}");
        let reasons = [Reason::QueueFull, Reason::QueueShare, Reason::QueueTimeout, Reason::LimitUpstream];
        assert_eq!(reasons.map(|reason| refusals(&scene, reason)), [1, 1, 3, 0]);
        let retry_after = |number: usize| {
            let exchange = &client.get().exchanges[number];
            exchange.fields.iter().any(|(name, _)| name == "retry-after")
        };
        assert!((1..6).all(retry_after), "every refusal says when to come back");
        scene.close();
    });
}

#[test]
fn who_leaves_is_served_no_more_and_its_place_is_free() {
    seeds(4, |seed| {
        let more = "[resilience.route_queue]\nmax_length = 4\nmax_length_per_address = 4\n\
                    [performance]\nper_upstream_inflight_limit = 1\n";
        let (mut scene, client) = scene(seed, 1, 500 * MILLISECOND, more);
        scene.ask(&client, of(1));
        scene.run_for(20 * MILLISECOND);
        for _ in 0..4 {
            scene.ask(&client, Request { aborts: Aborts::After(100 * MILLISECOND), ..of(2) });
        }
        scene.run_until("a full queue", SECOND, |scene| scene.worker.census().waiting == 4);
        scene.run_for(150 * MILLISECOND);
        assert_eq!(scene.worker.census().waiting, 0, "they have left");
        scene.worker.check_invariants();
        let last = scene.ask(&client, of(3));
        scene.finish(5 * SECOND);
        assert_eq!(client.get().exchanges[last].status, Some(200));
        assert_eq!(scene.cells.backend(0).attempts.get(), 2, "nobody worked for those who left");
        scene.close();
    });
}

#[test]
fn a_client_has_as_many_in_flight_as_it_may_wherever_they_are() {
    seeds(2, |seed| {
        let more = "[performance]\nmax_inflight_per_address = 3\nper_upstream_inflight_limit = 2\n\
                    [resilience.route_queue]\nmax_length = 50\n";
        let (mut scene, client) = scene(seed, 1, 100 * MILLISECOND, more);
        for number in [1, 1, 1, 1, 1, 2, 3] {
            scene.ask(&client, of(number));
        }
        scene.finish(5 * SECOND);
        let statuses: Vec<_> = answered(&client).iter().map(|(status, _)| status.expect("an answer")).collect();
        assert_eq!(statuses, [200, 200, 200, 429, 429, 200, 200]);
        assert_eq!(refusals(&scene, Reason::LimitAddress), 2);
        // It may again.
        let again = scene.ask(&client, of(1));
        scene.finish(5 * SECOND);
        assert_eq!(client.get().exchanges[again].status, Some(200));
        scene.close();
    });
}

/// Whatever comes, leaves and breaks: every permit and every place comes back, and nobody waits for nothing.
#[test]
fn a_storm_leaves_nothing_behind() {
    seeds(12, |seed| {
        let mut random = Random::new(seed);
        let more = format!(
            "[resilience.route_queue]\nmax_length = {}\nmax_wait = \"{}ms\"\n[performance]\n\
             per_upstream_inflight_limit = {}\nper_backend_inflight_limit = {}\nmax_inflight_per_address = {}\n\
             global_inflight_limit = 60\n",
            random.between(1..=30),
            random.between(10..=400),
            random.between(1..=8),
            random.between(1..=4),
            random.between(2..=20),
        );
        let text = format!("{}[routing]\ntrusted_proxies = [\"198.51.100.1\"]\n", configuration(2, &more));
        let mut scene = Scene::new(seed, Plan::calm(), &text);
        for number in 1..=2 {
            scene.origin(number, move |seen| match seen.target.len() % 7 {
                0 => Reaction::Reset,
                length => {
                    Reaction::Answer(Reply { after: 20 * number as u32 * length as u32 * MILLISECOND, ..Reply::ok(10) })
                }
            });
        }
        let client = scene.client(Link::clean(), Link::clean());
        for _ in 0..12 {
            for _ in 0..random.between(1..=15) {
                let path = format!("/length/{}", "1".repeat(random.between(1..=9) as usize));
                let aborts = match random.between(0..=3) {
                    0 => Aborts::After(Duration::from_millis(random.between(1..=200))),
                    _ => Aborts::Never,
                };
                let fields = vec![("x-forwarded-for".to_owned(), format!("203.0.113.{}", random.between(1..=6)))];
                scene.ask(&client, Request { fields, aborts, ..Request::get(&path) });
            }
            scene.run_for(Duration::from_millis(random.between(1..=120)));
            scene.worker.check_invariants();
        }
        scene.finish(60 * SECOND);
        assert!(client.get().exchanges.iter().all(|one| matches!(one.outcome, Outcome::Finished | Outcome::Aborted)));
        let census = scene.worker.census();
        assert_eq!((census.waiting, census.admitted), (0, 0));
        assert_eq!(scene.cells.route(0).waiting.get(), 0);
        scene.close();
    });
}

/// What control gives the worker holds from the turn in which it is told, and who waits for it is served in that turn.
#[test]
fn more_room_at_an_upstream_is_given_to_those_who_wait() {
    seeds(3, |seed| {
        let (mut scene, client) =
            scene(seed, 1, SECOND, "[resilience.route_queue]\nmax_length = 100\nmax_wait = \"30s\"\n");
        scene.commands.send(Command::Admission(Box::new([1]))).expect("room in the mailbox");
        ask(&scene, &client, 0..5);
        scene.run_until("one in work and four that wait", SECOND, |scene| scene.worker.census().waiting == 4);
        scene.commands.send(Command::Admission(Box::new([3]))).expect("room in the mailbox");
        scene.run_until("two more in work", 100 * MILLISECOND, |scene| scene.worker.census().waiting == 2);
        assert_eq!(scene.cells.upstream(0).active.get(), 3);
        // Less than what is in flight ends nothing.
        scene.commands.send(Command::Admission(Box::new([1]))).expect("room in the mailbox");
        scene.finish(10 * SECOND);
        assert!(answered(&client).iter().all(|(status, _)| *status == Some(200)));
        assert_eq!((scene.cells.upstream(0).active.get(), scene.cells.upstream(0).over.get()), (0, 5));
        scene.close();
    });
}

/// A backend that is healthy again has room, and nobody has to give any back first.
#[test]
fn a_backend_that_comes_back_serves_those_who_wait() {
    seeds(3, |seed| {
        let more = "[resilience.route_queue]\nmax_length = 100\nmax_wait = \"60s\"\n[performance]\nper_backend_inflight_limit = 1\n";
        let (mut scene, client) = scene(seed, 2, 5 * SECOND, more);
        let tell = |scene: &Scene, second: HealthState| {
            let since = Some(scene.host.now());
            let backends = [HealthState::Healthy, second].map(|state| Verdict { state, since });
            let verdicts = Verdicts { backends: backends.into(), panics: vec![false] };
            scene.commands.send(Command::Health(Arc::new(verdicts))).expect("room in the mailbox");
        };
        tell(&scene, HealthState::Ejected);
        ask(&scene, &client, 0..2);
        scene.run_until("one waits", SECOND, |scene| scene.worker.census().waiting == 1);
        tell(&scene, HealthState::Healthy);
        scene.run_until("it is served", SECOND, |scene| scene.worker.census().waiting == 0);
        scene.finish(60 * SECOND);
        assert!(answered(&client).iter().all(|(status, _)| *status == Some(200)));
        scene.close();
    });
}
