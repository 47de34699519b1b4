//! What control says of backends, as a worker goes by it, and what the worker counts for control.

use crate::bodies::as_asked;
use crate::client::{Outcome, Request};
use crate::origin::{Log, Reaction};
use crate::scene::{ClientHandle, Scene, configuration};
use crate::seeds::seeds;
use spooky::http::Reason;
use spooky::telemetry::kinds::HealthState::{self, Ejected, Healthy, Unhealthy};
use spooky::worker::{Command, Verdict, Verdicts};
use spooky_uring::Io;
use spooky_uring::simulation::{Link, Plan};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Two backends that serve, and a client.
fn scene(seed: u64, more: &str) -> (Scene, ClientHandle, [Rc<Log>; 2]) {
    let mut scene = Scene::new(seed, Plan::calm(), &configuration(2, more));
    let logs = [1, 2].map(|number| scene.origin(number, as_asked).0);
    let client = scene.client(Link::clean(), Link::clean());
    (scene, client, logs)
}

fn tell(scene: &Scene, states: [HealthState; 2], panic: bool) {
    let now = Some(scene.host.now());
    // The second one has been healthy from the start, where it is.
    let since = [now, now.filter(|_| states[1] != Healthy)];
    let backends = [0, 1].map(|at| Verdict { state: states[at], since: since[at] });
    let verdicts = Arc::new(Verdicts { backends: backends.to_vec(), panics: vec![panic] });
    scene.commands.send(Command::Health(verdicts)).expect("room in the mailbox");
}

/// The statuses of so many requests, one after the other.
fn statuses(scene: &mut Scene, client: &ClientHandle, count: usize) -> Vec<u16> {
    let made = |_| {
        scene.ask(client, Request::get("/length/10"));
        scene.finish(60 * SECOND);
        let client = client.get();
        let exchange = client.exchanges.last().expect("it was made");
        assert!(exchange.intact && exchange.outcome == Outcome::Finished);
        exchange.status.expect("an answer")
    };
    (0..count).map(made).collect()
}

fn asked(logs: &[Rc<Log>; 2]) -> [usize; 2] {
    [0, 1].map(|at| logs[at].requests.borrow().len())
}

#[test]
fn a_verdict_holds_from_the_next_request_on() {
    seeds(4, |seed| {
        let (mut scene, client, logs) = scene(seed, "");
        assert_eq!(statuses(&mut scene, &client, 4), [200; 4]);
        assert_eq!(asked(&logs), [2, 2]);
        for out in [Unhealthy, Ejected] {
            let before = asked(&logs);
            tell(&scene, [out, Healthy], false);
            assert_eq!(statuses(&mut scene, &client, 6), [200; 6]);
            assert_eq!(asked(&logs), [before[0], before[1] + 6]);
        }
        let before = asked(&logs);
        tell(&scene, [Healthy, Healthy], false);
        assert_eq!(statuses(&mut scene, &client, 6), [200; 6]);
        assert_eq!(asked(&logs), [before[0] + 3, before[1] + 3], "no slow start unless it is asked for");
        scene.close();
    });
}

#[test]
fn nobody_healthy_is_a_refusal_and_a_panic_is_none() {
    seeds(2, |seed| {
        let (mut scene, client, logs) = scene(seed, "");
        tell(&scene, [Unhealthy, Ejected], false);
        assert_eq!(statuses(&mut scene, &client, 2), [503; 2]);
        assert_eq!((asked(&logs), scene.cells.refusals.get(Reason::NoHealthyBackend)), ([0, 0], 2));
        tell(&scene, [Unhealthy, Ejected], true);
        assert_eq!(statuses(&mut scene, &client, 4), [200; 4]);
        assert_eq!(asked(&logs), [2, 2]);
        scene.close();
    });
}

#[test]
fn who_comes_back_is_spared() {
    seeds(4, |seed| {
        let (mut scene, client, logs) = scene(seed, "load_balancing = { slow_start = \"1h\" }\nhealth_check = {}\n");
        tell(&scene, [Unhealthy, Healthy], false);
        statuses(&mut scene, &client, 2);
        tell(&scene, [Healthy, Healthy], false);
        let before = asked(&logs);
        assert_eq!(statuses(&mut scene, &client, 40), [200; 40]);
        let taken = asked(&logs)[0] - before[0];
        assert!(taken < 12, "{taken} of 40 instead of about 2");
        scene.close();
    });
}

#[test]
fn failures_in_a_row_are_counted_and_told_only_where_it_is_asked_for() {
    seeds(4, |seed| {
        for (more, told) in [("", 0), ("outlier_ejection = { consecutive_failures = 3 }\n", 2)] {
            let mut scene = Scene::new(seed, Plan::calm(), &configuration(1, more));
            scene.origin(1, |_| Reaction::Reset);
            let client = scene.client(Link::clean(), Link::clean());
            assert_eq!(statuses(&mut scene, &client, 7), [502; 7]);
            let cells = scene.cells.backend(0);
            let counted = if told == 0 { 0 } else { 7 };
            assert_eq!((cells.failing.get(), cells.bad.get(), cells.good.get()), (told, counted, 0));
            scene.close();
        }
    });
}
