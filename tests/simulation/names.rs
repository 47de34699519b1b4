//! Backends by name, as a worker sees them: control's word of their addresses, races of them, and addresses that go.

use crate::bodies::{any_link, as_asked};
use crate::client::{Aborts, Outcome, Request};
use crate::origin::{Door, Log, Reaction, Reply};
use crate::scene::{ClientHandle, Scene};
use crate::seeds::seeds;
use spooky::config::BackendId;
use spooky::http::Reason;
use spooky::telemetry::kinds::{ConnectFailure, UpstreamClose};
use spooky::worker::{Command, Endpoints, Resolved};
use spooky_uring::Io;
use spooky_uring::simulation::{Link, Plan, Random};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// One backend with a name; `more` goes to `[performance]`.
fn configuration(more: &str) -> String {
    format!(
        "version = 1\n[listen]\naddress = \"192.0.2.1\"\nport = 443\n[upstream.origin]\nroute = {{ path_prefix = \"/\" }}\n\
         backends = [ {{ id = \"b\", address = \"http://app.test\" }} ]\n[performance]\n{more}\n"
    )
}

/// Control says where the name is: these of the origins at 10.0.0.n.
fn say(scene: &Scene, numbers: &[u8]) {
    let addresses = numbers.iter().map(|number| [10, 0, 0, *number].into()).collect();
    tell(scene, Resolved::At(addresses));
}

fn tell(scene: &Scene, resolved: Resolved) {
    let endpoints = Arc::new(Endpoints { backends: vec![(BackendId(0), resolved)] });
    scene.commands.send(Command::Endpoints(endpoints)).expect("room in the mailbox");
}

/// Origins at 10.0.0.1 and so on with these doors, all of them in the answer, and a client.
fn scene(seed: u64, more: &str, doors: &[Door]) -> (Scene, ClientHandle, Vec<Rc<Log>>) {
    let mut scene = Scene::new(seed, Plan::calm(), &configuration(more));
    let logs = doors.iter().enumerate().map(|(at, open)| {
        let (log, door) = scene.origin(at + 1, as_asked);
        door.set(*open);
        log
    });
    let logs = logs.collect();
    say(&scene, &(1..=doors.len() as u8).collect::<Vec<_>>());
    let client = scene.client(Link::clean(), Link::clean());
    (scene, client, logs)
}

/// How long the answer of a request took, without the ways between client and proxy.
fn took(client: &ClientHandle, number: usize) -> Duration {
    let client = client.get();
    let exchange = &client.exchanges[number];
    exchange.answered.unwrap() - exchange.began.unwrap() - 20 * MS
}

fn closes(scene: &Scene, why: UpstreamClose) -> u64 {
    scene.cells.backend(0).closes.get(why)
}

fn connects(scene: &Scene) -> u64 {
    scene.cells.backend(0).connects.get()
}

#[test]
fn a_name_is_refused_until_it_is_known_with_what_control_says() {
    let mut scene = Scene::new(1, Plan::calm(), &configuration(""));
    scene.origin(1, as_asked);
    let client = scene.client(Link::clean(), Link::clean());
    scene.ask(&client, Request::get("/length/1"));
    scene.finish(SECOND);
    tell(&scene, Resolved::Not(Reason::DnsError));
    scene.ask(&client, Request::get("/length/2"));
    scene.finish(SECOND);
    say(&scene, &[1]);
    scene.ask(&client, Request::get("/length/3"));
    scene.finish(SECOND);
    let statuses: Vec<_> = client.get().exchanges.iter().map(|exchange| exchange.status).collect();
    assert_eq!(statuses, [Some(504), Some(502), Some(200)]);
    scene.close();
}

#[test]
fn a_silent_first_address_is_followed_after_a_quarter_of_a_second() {
    let (mut scene, client, logs) = scene(1, "", &[Door::Silent, Door::Open]);
    scene.ask(&client, Request::get("/length/9"));
    scene.finish(2 * SECOND);
    let delay = took(&client, 0);
    assert!(delay >= 250 * MS && delay < 252 * MS, "{delay:?}");
    assert_eq!((connects(&scene), closes(&scene, UpstreamClose::RaceLost)), (2, 1));
    assert_eq!(logs[1].requests.borrow().len(), 1);
    // From then on the one that accepts goes first, whosever turn it would be.
    scene.run_until("the end of the pooled connection", 40 * SECOND, |scene| scene.worker.census().origins_idle == 0);
    say(&scene, &[1, 2]);
    scene.ask(&client, Request::get("/length/9"));
    scene.finish(2 * SECOND);
    scene.close();
}

#[test]
fn addresses_that_refuse_are_followed_at_once() {
    let (mut scene, client, logs) =
        scene(1, "", &[Door::Refused, Door::Refused, Door::Refused, Door::Open, Door::Open]);
    scene.ask(&client, Request::post("/length/9", 5_000));
    scene.finish(2 * SECOND);
    assert_eq!(client.get().exchanges[0].status, Some(200));
    assert!(took(&client, 0) < 20 * MS, "{:?}", took(&client, 0));
    let cells = scene.cells.backend(0);
    assert_eq!((cells.connects.get(), cells.attempts.get()), (4, 1), "one attempt");
    assert_eq!(cells.connect_failures.get(ConnectFailure::Refused), 3);
    assert_eq!((logs[3].requests.borrow().len(), logs[4].connections.get()), (1, 0));
    scene.close();
}

#[test]
fn when_all_refuse_it_is_502_and_each_was_tried_once() {
    let (mut scene, client, _) = scene(1, "", &[Door::Refused; 3]);
    scene.ask(&client, Request::get("/"));
    scene.finish(2 * SECOND);
    assert_eq!(client.get().exchanges[0].status, Some(502));
    let cells = scene.cells.backend(0);
    assert_eq!((cells.connects.get(), cells.connect_failures.get(ConnectFailure::Refused)), (3, 3));
    assert_eq!(cells.connections_active.get(), 0);
    scene.close();
}

#[test]
fn a_race_ends_with_the_connect_timeout_and_leaves_nothing() {
    let (mut scene, client, _) = scene(1, "backend_connect_timeout = \"700ms\"", &[Door::Silent; 8]);
    scene.ask(&client, Request::get("/"));
    scene.finish(2 * SECOND);
    assert_eq!(client.get().exchanges[0].status, Some(504));
    assert!(took(&client, 0) >= 700 * MS && took(&client, 0) < 702 * MS);
    assert_eq!(connects(&scene), 3, "at once, after 250 ms and after 500");
    scene.run_until("closed sockets", SECOND, |scene| scene.host.streams_open() == 0);
    scene.close();
}

#[test]
fn an_answer_longer_than_the_bound_is_tried_so_far_and_no_further() {
    let (mut scene, client, logs) = scene(1, "backend_connect_timeout = \"60s\"", &[Door::Refused; 12]);
    scene.ask(&client, Request::get("/"));
    scene.finish(2 * SECOND);
    assert_eq!((client.get().exchanges[0].status, connects(&scene)), (Some(502), 8));
    assert!(logs.iter().all(|log| log.requests.borrow().is_empty()));
    scene.close();
}

#[test]
fn a_client_that_goes_ends_the_race() {
    for after in [100 * MS, 300 * MS] {
        let (mut scene, client, _) = scene(1, "backend_connect_timeout = \"60s\"", &[Door::Silent; 4]);
        scene.ask(&client, Request { aborts: Aborts::After(after), ..Request::get("/") });
        scene.finish(5 * SECOND);
        assert_eq!(client.get().exchanges[0].outcome, Outcome::Aborted);
        scene.run_until("closed sockets", SECOND, |scene| scene.host.streams_open() == 0);
        scene.close();
    }
}

#[test]
fn a_full_table_of_sockets_leaves_the_race_to_those_that_run() {
    let plan = Plan { streams: 1, ..Plan::calm() };
    let mut scene = Scene::new(1, plan, &configuration(""));
    let (_, door) = scene.origin(1, as_asked);
    scene.origin(2, as_asked);
    door.set(Door::Silent);
    say(&scene, &[1, 2]);
    let client = scene.client(Link::clean(), Link::clean());
    scene.ask(&client, Request::get("/"));
    scene.finish(2 * SECOND);
    // The second would have accepted; there was no socket for it.
    assert_eq!(client.get().exchanges[0].status, Some(504));
    assert_eq!(scene.cells.backend(0).connect_failures.get(ConnectFailure::Local), 1);
    scene.close();
}

#[test]
fn idle_connections_to_an_address_that_is_gone_are_closed_and_running_exchanges_finish() {
    let mut scene = Scene::new(1, Plan::calm(), &configuration(""));
    let slow = |_: &_| Reaction::Answer(Reply { after: 3 * SECOND, ..Reply::ok(4) });
    let (first, _) = scene.origin(1, slow);
    let (second, _) = scene.origin(2, as_asked);
    say(&scene, &[1]);
    let client = scene.client(Link::clean(), Link::clean());
    // Two connections; the first is idle again when the address goes, the second still busy.
    scene.ask(&client, Request::get("/length/4"));
    scene.ask(&client, Request { at: 2 * SECOND, ..Request::get("/length/4") });
    scene.run_until("an idle connection", 5 * SECOND, |scene| scene.worker.census().origins_idle == 1);
    assert_eq!(first.connections.get(), 2);
    say(&scene, &[2]);
    scene.run_until("its end", SECOND, |scene| scene.worker.census().origins_idle == 0);
    assert_eq!(closes(&scene, UpstreamClose::EndpointGone), 1);
    assert_eq!(scene.worker.census().origins_busy, 1, "the other one goes on");
    scene.ask(&client, Request::get("/length/4"));
    scene.finish(10 * SECOND);
    assert!(client.get().exchanges.iter().all(|exchange| exchange.status == Some(200) && exchange.received == 4));
    assert_eq!(closes(&scene, UpstreamClose::EndpointGone), 2, "and is not kept");
    assert_eq!((first.requests.borrow().len(), second.requests.borrow().len()), (2, 1));
    scene.close();
}

#[test]
fn the_same_addresses_again_close_nothing() {
    let (mut scene, client, logs) = scene(1, "", &[Door::Open]);
    for _ in 0..3 {
        scene.ask(&client, Request::get("/length/4"));
        scene.finish(2 * SECOND);
        say(&scene, &[1]);
    }
    assert_eq!(logs[0].connections.get(), 1);
    scene.close();
}

#[test]
fn addresses_that_change_under_load_fail_no_request() {
    seeds(12, |seed| {
        let mut random = Random::new(seed);
        let (plan, link) = (Plan::rough(&mut random), any_link(&mut random));
        let mut scene = Scene::new(seed, plan, &configuration("backend_connect_timeout = \"20s\""));
        let mut seen = 0;
        let logs: Vec<_> = (1..=3).map(|number| scene.origin(number, as_asked).0).collect();
        // One that is in every answer, and never accepts.
        let (_, dead) = scene.origin(9, as_asked);
        dead.set(if seed % 2 == 0 { Door::Silent } else { Door::Refused });
        say(&scene, &[9, 1]);
        let client = scene.client(link.clone(), link);
        let asked = Rc::new(Cell::new(0));
        for round in 0..9_u8 {
            for number in 0..4 {
                let length = random.between(0..=60_000);
                let at = Duration::from_millis(random.between(0..=40) * number);
                scene.ask(&client, Request { at, ..Request::get(&format!("/length/{length}")) });
                asked.set(asked.get() + 1);
            }
            scene.run_for(Duration::from_millis(random.between(1..=300)));
            say(&scene, &[9, 1 + (round + 1) % 3]);
        }
        scene.finish(120 * SECOND);
        {
            let client = client.get();
            for exchange in &client.exchanges {
                assert_eq!((exchange.outcome, exchange.status), (Outcome::Finished, Some(200)), "{}", scene.state());
                assert!(exchange.intact);
                seen += 1;
            }
        }
        assert_eq!(seen, asked.get());
        assert!(logs.iter().all(|log| !log.requests.borrow().is_empty()), "each had its turn");
        scene.close();
    });
}

#[test]
fn a_drain_in_the_middle_of_a_race_ends_it_in_time() {
    let (mut scene, client, _) = scene(1, "backend_connect_timeout = \"60s\"", &[Door::Silent; 4]);
    scene.ask(&client, Request::get("/"));
    scene.run_until("two racers", 2 * SECOND, |scene| connects(scene) == 2);
    let until = scene.host.now() + SECOND;
    scene.commands.send(Command::Drain { until }).unwrap();
    scene.run_until("the end", 3 * SECOND, |scene| scene.done);
    assert_eq!(client.get().exchanges[0].status, Some(503));
    assert_eq!(scene.host.streams_open(), 0);
}
