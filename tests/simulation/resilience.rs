//! Attempts that fail: what is tried again and what is not, within which budget, and when a backend is left alone.

use crate::bodies::as_asked;
use crate::client::{Outcome, Request};
use crate::origin::{Door, Reaction, Reply, Then};
use crate::scene::{ClientHandle, Scene, configuration};
use crate::seeds::seeds;
use spooky::telemetry::kinds::BreakerChange;
use spooky_uring::simulation::{Link, Plan};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Two backends, the first of which treats each request so, and a client.
fn scene(seed: u64, more: &str, first: Reaction) -> (Scene, ClientHandle, Rc<crate::origin::Log>) {
    let mut scene = Scene::new(seed, Plan::calm(), &configuration(2, more));
    let (log, _) = scene.origin(1, move |_| first.clone());
    scene.origin(2, as_asked);
    let client = scene.client(Link::clean(), Link::clean());
    (scene, client, log)
}

fn put(path: &str, bytes: u64) -> Request {
    Request { method: "PUT", ..Request::post(path, bytes) }
}

/// The statuses of requests that are made one after the other.
fn statuses(scene: &mut Scene, client: &ClientHandle, requests: impl IntoIterator<Item = Request>) -> Vec<u16> {
    let made = |request| {
        scene.ask(client, request);
        scene.finish(60 * SECOND);
        let client = client.get();
        let exchange = client.exchanges.last().expect("it was made");
        assert!(exchange.intact && exchange.outcome == Outcome::Finished);
        exchange.status.expect("an answer")
    };
    requests.into_iter().map(made).collect()
}

#[test]
fn what_may_have_been_read_is_tried_again_if_repeating_it_changes_nothing() {
    seeds(4, |seed| {
        let (mut scene, client, first) = scene(seed, "", Reaction::Reset);
        let repeatable = (0..4).flat_map(|_| [Request::get("/length/10"), put("/length/10", 9000)]);
        assert_eq!(statuses(&mut scene, &client, repeatable), [200; 8]);
        assert!(first.requests.borrow().len() >= 3, "the first one was asked too");
        // By turns: every other one meets the backend that breaks.
        let posts = statuses(&mut scene, &client, (0..4).map(|_| Request::post("/length/10", 100)));
        assert_eq!(posts.iter().filter(|status| **status == 502).count(), 2, "{posts:?}");
        let long = statuses(&mut scene, &client, (0..4).map(|_| put("/length/10", 100_000)));
        assert_eq!(long.iter().filter(|status| **status == 502).count(), 2, "{long:?}");
        scene.close();
    });
}

#[test]
fn a_body_that_is_sent_twice_is_whole() {
    seeds(4, |seed| {
        let mut scene = Scene::new(seed, Plan::calm(), &configuration(2, ""));
        scene.origin(1, |_| Reaction::Reset);
        let (second, _) = scene.origin(2, as_asked);
        let client = scene.client(Link::clean(), Link::clean());
        assert_eq!(statuses(&mut scene, &client, (0..6).map(|_| put("/length/10", 16_384))), [200; 6]);
        for seen in second.requests.borrow().iter() {
            assert_eq!((seen.body, seen.complete, seen.intact), (16_384, true, true));
        }
        scene.close();
    });
}

#[test]
fn one_attempt_is_one_attempt() {
    seeds(2, |seed| {
        let (mut scene, client, _) = scene(seed, "[resilience.retry]\nattempts = 1\n", Reaction::Reset);
        let all = statuses(&mut scene, &client, (0..4).map(|_| Request::get("/length/10")));
        assert_eq!(all.iter().filter(|status| **status == 502).count(), 2, "{all:?}");
        scene.close();
    });
}

#[test]
fn a_silent_backend_is_left_for_another_one_in_time() {
    seeds(2, |seed| {
        let (mut scene, client, _) =
            scene(seed, "[resilience.retry]\nper_try_timeout = \"500ms\"\n", Reaction::Silence);
        assert_eq!(statuses(&mut scene, &client, (0..4).map(|_| Request::get("/length/10"))), [200; 4]);
        let slowest =
            client.get().exchanges.iter().map(|one| one.answered.unwrap() - one.began.unwrap()).max().unwrap();
        let (least, most) = (Duration::from_millis(500), Duration::from_millis(600));
        assert!(slowest >= least && slowest < most, "{slowest:?}");
        // What must not be repeated has the time of the backend.
        let posts = statuses(&mut scene, &client, (0..2).map(|_| Request::post("/length/10", 10)));
        assert!(posts.contains(&504), "{posts:?}");
        let slowest =
            client.get().exchanges.iter().map(|one| one.answered.unwrap() - one.began.unwrap()).max().unwrap();
        assert!(slowest >= 15 * SECOND, "{slowest:?}");
        scene.close();
    });
}

#[test]
fn a_spent_budget_denies_retries_and_says_what_failed() {
    seeds(2, |seed| {
        let none = "[resilience.retry_budget]\npercent = 0\nmin_per_sec = 0\n";
        let (mut scene, client, _) = scene(seed, none, Reaction::Reset);
        let all = statuses(&mut scene, &client, (0..6).map(|_| Request::get("/length/10")));
        assert_eq!(all.iter().filter(|status| **status == 502).count(), 3, "{all:?}");
        assert_eq!(scene.cells.backend(0).retries_denied.get(), 3);
        assert_eq!(scene.cells.backend(1).retries.get(), 0);
        scene.close();
    });
}

#[test]
fn a_breaker_opens_tries_and_closes() {
    seeds(4, |seed| {
        let breaker = "[resilience.circuit_breaker]\nfailures = 3\nopen_for = \"5s\"\n";
        let mut scene = Scene::new(seed, Plan::calm(), &configuration(1, breaker));
        let broken = Rc::new(Cell::new(true));
        let (log, door) = scene.origin(1, {
            let broken = Rc::clone(&broken);
            move |seen| if broken.get() { Reaction::Reset } else { as_asked(seen) }
        });
        let client = scene.client(Link::clean(), Link::clean());
        let gets = |count| (0..count).map(|_| Request::get("/length/10"));
        assert_eq!(statuses(&mut scene, &client, gets(3)), [502; 3]);
        let asked = log.connections.get();
        assert_eq!(statuses(&mut scene, &client, gets(5)), [503; 5]);
        assert_eq!(log.connections.get(), asked, "nobody went there");
        assert_eq!(scene.cells.backend(0).breakers_open.get(), 1);
        // One that tries, and fails.
        scene.run_for(5 * SECOND);
        door.set(Door::Refused);
        assert_eq!(statuses(&mut scene, &client, gets(3)), [502, 503, 503]);
        scene.run_for(5 * SECOND);
        door.set(Door::Open);
        broken.set(false);
        assert_eq!(statuses(&mut scene, &client, gets(4)), [200; 4]);
        let cells = scene.cells.backend(0);
        let changes = [BreakerChange::Opened, BreakerChange::HalfOpened, BreakerChange::Closed];
        assert_eq!(changes.map(|change| cells.breaker.get(change)), [2, 2, 1]);
        assert_eq!(cells.breakers_open.get(), 0);
        scene.close();
    });
}

#[test]
fn a_client_that_leaves_a_trial_gives_its_pass_back() {
    seeds(4, |seed| {
        let breaker = "[resilience.circuit_breaker]\nfailures = 1\nopen_for = \"1s\"\n";
        let mut scene = Scene::new(seed, Plan::calm(), &configuration(1, breaker));
        let silent = Rc::new(Cell::new(false));
        let (log, door) = scene.origin(1, {
            let silent = Rc::clone(&silent);
            move |seen| if silent.get() { Reaction::Silence } else { as_asked(seen) }
        });
        let client = scene.client(Link::clean(), Link::clean());
        door.set(Door::Refused);
        assert_eq!(statuses(&mut scene, &client, [Request::get("/length/10")]), [502]);
        door.set(Door::Open);
        silent.set(true);
        for round in 0..3 {
            scene.run_for(2 * SECOND);
            let aborts = crate::client::Aborts::After(SECOND);
            scene.ask(&client, Request { aborts, ..Request::get("/length/10") });
            scene.finish(30 * SECOND);
            assert_eq!(log.requests.borrow().len(), round + 1, "it was let through");
        }
        silent.set(false);
        scene.run_for(SECOND);
        assert_eq!(statuses(&mut scene, &client, [Request::get("/length/10")]), [200]);
        scene.close();
    });
}

/// An answer with this status and so many bytes.
fn answer(status: u16, length: u64) -> Reaction {
    Reaction::Answer(Reply { status, fields: "X-Which: backend\r\n".into(), ..Reply::ok(length) })
}

const ON_503: &str = "[resilience.retry]\non = [\"503\"]\n";

#[test]
fn an_answer_that_is_listed_is_dropped_for_another_backend() {
    seeds(4, |seed| {
        let (mut scene, client, first) = scene(seed, ON_503, answer(503, 1000));
        let repeatable = (0..4).flat_map(|_| [Request::get("/length/10"), put("/length/10", 9000)]);
        assert_eq!(statuses(&mut scene, &client, repeatable), [200; 8]);
        let asked = first.requests.borrow().len();
        assert!(asked >= 3, "the first one was asked too");
        assert_eq!(first.connections.get(), 1, "the rest of what was dropped was read, and its connection kept");
        assert_eq!(scene.cells.backend(1).retries.get(), asked as u64);
        // What must not be repeated gets the answer as it came.
        let posts = statuses(&mut scene, &client, (0..4).map(|_| Request::post("/length/10", 100)));
        assert_eq!(posts.iter().filter(|status| **status == 503).count(), 2, "{posts:?}");
        scene.close();
    });
}

#[test]
fn a_long_answer_that_is_dropped_ends_its_connection() {
    seeds(4, |seed| {
        let (mut scene, client, first) = scene(seed, ON_503, answer(503, 1_000_000));
        assert_eq!(statuses(&mut scene, &client, (0..6).map(|_| Request::get("/length/10"))), [200; 6]);
        let asked = first.requests.borrow().len();
        assert!(asked >= 3 && first.connections.get() == asked, "{asked} requests");
        assert!(first.written.get() < asked as u64 * 700_000, "nobody waited for it: {}", first.written.get());
        scene.close();
    });
}

#[test]
fn the_last_answer_is_the_clients_as_it_came() {
    let spent = format!("{ON_503}[resilience.retry_budget]\npercent = 0\nmin_per_sec = 0\n");
    let alone = format!("{ON_503}attempts = 1\n");
    for (more, asked) in [(ON_503, 4), (&*spent, 2), (&*alone, 2)] {
        seeds(2, |seed| {
            let mut scene = Scene::new(seed, Plan::calm(), &configuration(2, more));
            let logs = [1, 2].map(|number| scene.origin(number, |_| answer(503, 3000)).0);
            let client = scene.client(Link::clean(), Link::clean());
            assert_eq!(statuses(&mut scene, &client, (0..2).map(|_| Request::get("/"))), [503; 2]);
            for exchange in &client.get().exchanges {
                assert_eq!(exchange.received, 3000);
                assert!(exchange.fields.iter().any(|(name, value)| (&**name, &**value) == ("x-which", "backend")));
            }
            assert_eq!(logs.iter().map(|log| log.requests.borrow().len()).sum::<usize>(), asked, "{more}");
            scene.close();
        });
    }
}

#[test]
fn what_is_not_listed_is_not_tried_again() {
    for (on, reaction, status) in [
        ("[\"reset\"]", answer(503, 10), 503),
        ("[\"502\", \"504\"]", answer(503, 10), 503),
        ("[\"503\"]", Reaction::Reset, 502),
        ("[]", Reaction::Reset, 502),
    ] {
        let (mut scene, client, _) = scene(1, &format!("[resilience.retry]\non = {on}\n"), reaction);
        let all = statuses(&mut scene, &client, (0..4).map(|_| Request::get("/length/10")));
        assert_eq!(all.iter().filter(|one| **one == status).count(), 2, "{on}: {all:?}");
        scene.close();
    }
}

#[test]
fn an_answer_that_broke_off_behind_its_head_is_dropped_like_any_other() {
    seeds(2, |seed| {
        let broken = Reaction::Answer(Reply { status: 503, sent: 10, then: Then::Close, ..Reply::ok(1000) });
        let (mut scene, client, _) = scene(seed, ON_503, broken);
        assert_eq!(statuses(&mut scene, &client, (0..4).map(|_| Request::get("/length/10"))), [200; 4]);
        scene.close();
    });
}

#[test]
fn a_route_has_rules_of_its_own() {
    let route = "[[routes]]\nname = \"once\"\nmatch = { path_prefix = \"/once\" }\n\
                 action = { upstream = \"origin\" }\nretry = { attempts = 1 }\n";
    let (mut scene, client, _) = scene(1, route, Reaction::Reset);
    assert_eq!(statuses(&mut scene, &client, (0..4).map(|_| Request::get("/length/10"))), [200; 4]);
    let once = statuses(&mut scene, &client, (0..4).map(|_| Request::get("/once/10")));
    assert_eq!(once.iter().filter(|status| **status == 502).count(), 2, "{once:?}");
    scene.close();
}

#[test]
fn an_answer_that_was_dropped_for_nobody_is_told_as_that() {
    let more = format!(
        "{ON_503}backoff = \"10s\"\nmax_backoff = \"10s\"\n\
         [performance]\nper_backend_inflight_limit = 1\nbackend_timeout = \"60s\"\n"
    );
    let mut scene = Scene::new(1, Plan::calm(), &configuration(2, &more));
    scene.origin(1, |_| answer(503, 10));
    let (second, _) = scene.origin(2, |_| Reaction::Silence);
    let client = scene.client(Link::clean(), Link::clean());
    let dropped = scene.ask(&client, Request::get("/length/10"));
    scene.run_until("the first answer", SECOND, |scene| scene.cells.backend(0).attempts.get() == 1);
    // While the first one waits for its next attempt, the other backend fills up.
    let aborts = crate::client::Aborts::After(30 * SECOND);
    scene.ask(&client, Request { aborts, ..Request::get("/length/10") });
    scene.finish(60 * SECOND);
    assert_eq!(second.requests.borrow().len(), 1);
    let client = client.get();
    let exchange = &client.exchanges[dropped];
    assert_eq!((exchange.status, exchange.outcome), (Some(502), Outcome::Finished));
    let told = |name: &str| exchange.fields.iter().any(|(field, _)| field == name);
    assert!(told("proxy-status") && !told("x-which"), "{:?}", exchange.fields);
}
