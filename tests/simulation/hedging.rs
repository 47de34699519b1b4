//! Requests that wait for their answer and are asked of a second backend too: who wins, what becomes of the others, and that
//! nothing is left of anybody.

use crate::bodies::as_asked;
use crate::client::{Aborts, Outcome, Request};
use crate::origin::{Door, Log, Reaction, Reply, Seen};
use crate::scene::{ClientHandle, Scene, configuration};
use crate::seeds::seeds;
use spooky::telemetry::kinds::AttemptFailure;
use spooky_uring::simulation::{Link, Plan, Random};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const AFTER_50_MS: &str = "[resilience.hedging]\ndelay = \"50ms\"\n";

/// An answer as it is asked for, after a while.
fn later(seen: &Seen, after: Duration) -> Reaction {
    match as_asked(seen) {
        Reaction::Answer(reply) => Reaction::Answer(Reply { after, ..reply }),
        other => other,
    }
}

/// Two backends that answer so, and a client.
fn scene(
    seed: u64,
    more: &str,
    first: impl Fn(&Seen) -> Reaction + 'static,
    second: impl Fn(&Seen) -> Reaction + 'static,
) -> (Scene, ClientHandle, [Rc<Log>; 2]) {
    let mut scene = Scene::new(seed, Plan::calm(), &configuration(2, more));
    let logs = [scene.origin(1, first).0, scene.origin(2, second).0];
    let client = scene.client(Link::clean(), Link::clean());
    (scene, client, logs)
}

/// Makes one request: its status, and how long the head took.
fn ask(scene: &mut Scene, client: &ClientHandle, request: Request) -> (u16, Duration) {
    scene.ask(client, request);
    scene.finish(60 * SECOND);
    let client = client.get();
    let exchange = client.exchanges.last().expect("it was made");
    assert!(exchange.intact && exchange.outcome == Outcome::Finished, "{:?}", exchange.outcome);
    (exchange.status.expect("an answer"), exchange.answered.unwrap() - exchange.began.unwrap())
}

/// What the counters of a backend say: hedges begun, hedges that won, attempts cancelled.
fn counted(scene: &Scene, backend: usize) -> [u64; 3] {
    let cells = scene.cells.backend(backend);
    [cells.hedges.get(), cells.hedges_won.get(), cells.attempts_cancelled.get()]
}

/// Failures of a backend.
fn failures(scene: &Scene, backend: usize) -> u64 {
    AttemptFailure::ALL.iter().map(|kind| scene.cells.backend(backend).failures.get(*kind)).sum()
}

#[test]
fn a_slow_backend_is_overtaken_and_hears_that_nobody_waits() {
    seeds(8, |seed| {
        let (mut scene, client, [slow, _]) = scene(seed, AFTER_50_MS, |seen| later(seen, 5 * SECOND), as_asked);
        for method in ["GET", "HEAD", "OPTIONS", "GET"] {
            let (status, took) = ask(&mut scene, &client, Request { method, ..Request::get("/length/1000") });
            assert!(status == 200 && took < 200 * MS, "{method}: {status} after {took:?}");
        }
        let asked = slow.requests.borrow().len();
        assert_eq!(asked, 2, "by turns");
        // At once, not when it would have answered.
        scene.run_for(100 * MS);
        assert_eq!(slow.closed.borrow().len(), asked);
        assert_eq!(counted(&scene, 1), [2, 2, 0]);
        assert_eq!(counted(&scene, 0), [0, 0, 2]);
        assert_eq!(failures(&scene, 0), 0, "being slow is no failure");
        scene.close();
    });
}

#[test]
fn the_first_attempt_may_win_too() {
    seeds(4, |seed| {
        let (mut scene, client, [_, never]) =
            scene(seed, AFTER_50_MS, |seen| later(seen, 300 * MS), |_| Reaction::Silence);
        let (status, took) = ask(&mut scene, &client, Request::get("/length/100000"));
        assert!(status == 200 && took >= 300 * MS && took < 400 * MS, "{took:?}");
        assert_eq!(never.requests.borrow().len(), 1);
        assert_eq!((counted(&scene, 0), counted(&scene, 1)), ([0, 0, 0], [1, 0, 1]));
        scene.close();
    });
}

#[test]
fn what_has_a_body_or_changes_something_is_asked_once() {
    seeds(2, |seed| {
        let (mut scene, client, _) =
            scene(seed, AFTER_50_MS, |seen| later(seen, 300 * MS), |seen| later(seen, 300 * MS));
        for (method, body) in [("POST", Some(10)), ("PUT", None), ("DELETE", None), ("GET", Some(10)), ("POST", None)] {
            let (status, took) = ask(&mut scene, &client, Request { method, body, ..Request::get("/length/10") });
            assert!(status == 200 && took >= 300 * MS, "{method}");
        }
        assert_eq!((counted(&scene, 0), counted(&scene, 1)), ([0; 3], [0; 3]));
        scene.close();
    });
}

/// A backend that is always overtaken has nothing to say for itself; a balancer that goes by times has to learn it nevertheless.
#[test]
fn a_balancer_that_goes_by_times_learns_who_was_overtaken() {
    let text = configuration(2, AFTER_50_MS)
        .replace("[upstream.origin]\n", "[upstream.origin]\nload_balancing = { type = \"latency-aware\" }\n");
    let mut scene = Scene::new(1, Plan::calm(), &text);
    let (slow, _) = scene.origin(1, |seen| later(seen, 5 * SECOND));
    scene.origin(2, as_asked);
    let client = scene.client(Link::clean(), Link::clean());
    for _ in 0..100 {
        assert!(ask(&mut scene, &client, Request::get("/length/10")).1 < 200 * MS);
    }
    assert!(slow.requests.borrow().len() < 10, "{} of 100", slow.requests.borrow().len());
    scene.close();
}

#[test]
fn without_budget_there_is_no_hedge() {
    let spent = format!("{AFTER_50_MS}[resilience.retry_budget]\npercent = 0\nmin_per_sec = 0\n");
    let (mut scene, client, _) = scene(1, &spent, |seen| later(seen, 300 * MS), |seen| later(seen, 300 * MS));
    for _ in 0..4 {
        assert!(ask(&mut scene, &client, Request::get("/length/10")).1 >= 300 * MS);
    }
    assert_eq!((counted(&scene, 0), counted(&scene, 1)), ([0; 3], [0; 3]));
    assert_eq!(scene.cells.backend(0).retries_denied.get() + scene.cells.backend(1).retries_denied.get(), 4);
    scene.close();
}

#[test]
fn a_route_may_have_its_own_or_none() {
    let routes = "[[routes]]\nname = \"none\"\nmatch = { path_prefix = \"/none\" }\n\
                  action = { upstream = \"origin\" }\nhedging = { enabled = false }\n\
                  [[routes]]\nname = \"late\"\nmatch = { path_prefix = \"/late\" }\n\
                  action = { upstream = \"origin\" }\nhedging = { delay = \"200ms\" }\n";
    let slow = |seen: &Seen| later(seen, 500 * MS);
    let (mut scene, client, _) = scene(1, &format!("{AFTER_50_MS}{routes}"), slow, as_asked);
    for (path, least, most) in [("/none/10", 500, 600), ("/late/10", 200, 300), ("/length/10", 50, 150)] {
        // By turns: one of two meets the slow one.
        let slowest = (0..2).map(|_| ask(&mut scene, &client, Request::get(path)).1).max().unwrap();
        assert!(slowest >= least * MS && slowest < most * MS, "{path}: {slowest:?}");
    }
    scene.close();
}

#[test]
fn one_that_fails_leaves_the_others_alone() {
    let more = format!("{AFTER_50_MS}[resilience.retry]\non = [\"503\", \"reset\"]\nattempts = 2\n");
    let unable = |_: &Seen| Reaction::Answer(Reply { status: 503, ..Reply::ok(10) });
    let fail: [fn(&Seen) -> Reaction; 2] = [|_| Reaction::Reset, unable];
    for failing in fail {
        seeds(2, |seed| {
            // The hedge fails at once; the first one answers in its time.
            let (mut scene, client, [_, failed]) = scene(seed, &more, |seen| later(seen, 300 * MS), failing);
            let (status, took) = ask(&mut scene, &client, Request::get("/length/1000"));
            assert!(status == 200 && took >= 300 * MS && took < 400 * MS, "{status} after {took:?}");
            assert_eq!((failed.requests.borrow().len(), counted(&scene, 1)), (1, [1, 0, 0]));
            scene.close();
        });
    }
}

#[test]
fn all_that_are_silent_end_in_time() {
    // Each attempt has the backend's time; the whole has its own, and that is nobody's failure.
    for (timeout, failed, seconds) in [("backend_timeout", 2, 2), ("total_request_timeout", 0, 1)] {
        let more = format!("{AFTER_50_MS}[performance]\n{timeout} = \"{seconds}s\"\n");
        let (mut scene, client, _) = scene(1, &more, |_| Reaction::Silence, |_| Reaction::Silence);
        let (status, took) = ask(&mut scene, &client, Request::get("/length/10"));
        assert!(status == 504 && took >= seconds * SECOND && took < (seconds + 1) * SECOND, "{status} after {took:?}");
        assert_eq!(failures(&scene, 0) + failures(&scene, 1), failed, "{timeout}");
        scene.close();
    }
}

#[test]
fn a_backend_that_takes_no_connections_is_hedged_like_a_slow_one() {
    seeds(4, |seed| {
        let mut scene = Scene::new(seed, Plan::calm(), &configuration(2, AFTER_50_MS));
        scene.origin(1, as_asked).1.set(Door::Silent);
        scene.origin(2, as_asked);
        let client = scene.client(Link::clean(), Link::clean());
        for _ in 0..4 {
            let (status, took) = ask(&mut scene, &client, Request::get("/length/1000"));
            assert!(status == 200 && took < 200 * MS, "{took:?}");
        }
        assert_eq!(scene.cells.backend(0).attempts_cancelled.get(), 2);
        scene.close();
    });
}

#[test]
fn a_client_that_leaves_ends_all_attempts() {
    seeds(4, |seed| {
        let (mut scene, client, logs) = scene(seed, AFTER_50_MS, |_| Reaction::Silence, |_| Reaction::Silence);
        scene.ask(&client, Request { aborts: Aborts::After(SECOND), ..Request::get("/length/10") });
        scene.finish(10 * SECOND);
        scene.run_for(SECOND);
        assert_eq!(logs.map(|log| log.closed.borrow().len()), [1, 1]);
        scene.close();
    });
}

#[test]
fn a_measured_delay_is_that_of_the_route_and_waits_until_it_is_known() {
    let more = "[resilience.hedging]\nat = \"p95\"\nleast_delay = \"1ms\"\n";
    let slow = Rc::new(Cell::new(true));
    let reaction = {
        let slow = Rc::clone(&slow);
        move |seen: &Seen| later(seen, if slow.get() { 900 * MS } else { 10 * MS })
    };
    let (mut scene, client, _) = scene(1, more, reaction, |seen| later(seen, 10 * MS));
    let slowest = |scene: &mut Scene| (0..2).map(|_| ask(scene, &client, Request::get("/length/10")).1).max().unwrap();
    assert!(slowest(&mut scene) >= 900 * MS, "nobody knows yet");
    slow.set(false);
    for _ in 0..500 {
        ask(&mut scene, &client, Request::get("/length/10"));
    }
    slow.set(true);
    let took = slowest(&mut scene);
    assert!(took >= 15 * MS && took < 100 * MS, "{took:?}");
    scene.close();
}

/// Whatever backends and clients do: no permit, no pass, no connection and no timer is left, and nobody waits in vain.
#[test]
fn a_storm_leaves_nothing() {
    let more = "[resilience.hedging]\ndelay = \"20ms\"\nmax = 2\n\
                [resilience.retry]\non = [\"503\", \"reset\", \"timeout\", \"connect-failure\"]\n\
                attempts = 4\nper_try_timeout = \"200ms\"\n\
                [resilience.retry_budget]\npercent = 50\n\
                [resilience.circuit_breaker]\nfailures = 3\nopen_for = \"300ms\"\n\
                [performance]\nper_backend_inflight_limit = 12\nbackend_timeout = \"400ms\"\n";
    seeds(12, |seed| {
        let mut scene = Scene::new(seed, Plan::calm(), &configuration(3, more));
        let random = Rc::new(RefCell::new(Random::new(seed)));
        let mut doors = Vec::new();
        for number in 1..=3 {
            let random = Rc::clone(&random);
            let (_, door) = scene.origin(number, move |seen| {
                let draw = random.borrow_mut().between(0..=99);
                let after = random.borrow_mut().between(0..=60) as u32 * MS;
                match draw {
                    0..=9 => Reaction::Silence,
                    10..=24 => Reaction::Reset,
                    25..=39 => Reaction::Answer(Reply { status: 503, after, ..Reply::ok(100) }),
                    _ => later(seen, after),
                }
            });
            doors.push(door);
        }
        let clients: Vec<ClientHandle> = (0..3).map(|_| scene.client(Link::clean(), Link::clean())).collect();
        for round in 0..10 {
            for client in &clients {
                for _ in 0..10 {
                    let draw = |most: u64| random.borrow_mut().between(0..=most);
                    let mut request = match draw(5) {
                        0 => Request::post("/length/1000", draw(30_000)),
                        1 => Request { method: "PUT", ..Request::post("/length/1000", draw(30_000)) },
                        _ => Request::get(&format!("/length/{}", draw(50_000))),
                    };
                    if draw(4) == 0 {
                        request.aborts = Aborts::After(draw(80) as u32 * MS);
                    }
                    scene.ask(client, request);
                }
            }
            let door = &doors[random.borrow_mut().between(0..=2) as usize];
            door.set([Door::Open, Door::Refused, Door::Silent][random.borrow_mut().between(0..=2) as usize]);
            for _ in 0..20 {
                scene.run_for(5 * MS);
                scene.worker.check_invariants();
            }
            if round % 3 == 2 {
                doors.iter().for_each(|door| door.set(Door::Open));
            }
        }
        scene.finish(120 * SECOND);
        let hedged: u64 = (0..3).map(|backend| scene.cells.backend(backend).hedges.get()).sum();
        assert!(hedged > 20, "hedges: {hedged}");
        doors.iter().for_each(|door| door.set(Door::Open));
        // Half-open breakers have all their passes: sooner or later everybody is asked again.
        scene.run_for(SECOND);
        scene.close();
    });
}
