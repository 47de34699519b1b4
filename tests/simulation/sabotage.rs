//! Who guards the guards: for each thing that is checked of every run, a run in which it is not so, and the check that must
//! say so.
//!
//! Nothing of the product is bent for it. A peer, the machine or the scene does what a fault of the worker would look like
//! from outside: a wrong byte, a clean end too early, a socket or a buffer that nobody gives back. What
//! only the worker itself can break, its own books and its timers, is broken beside them: `worker::census::tests`.

use crate::amplification::amplified;
use crate::bodies::{as_asked, check, check_requests};
use crate::client::{Client, Request};
use crate::origin::{Framing, Reaction, Reply, Then};
use crate::origins::check_broken_off;
use crate::scene::{PROXY, Scene, backend, configuration};
use spooky::worker::token::Owner;
use spooky_uring::Io;
use spooky_uring::simulation::{Link, Plan};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Runs a story that must fail, with these words.
fn caught(words: &str, story: impl FnOnce()) {
    let panic = catch_unwind(AssertUnwindSafe(story)).expect_err("nobody noticed");
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
    assert!(text.contains(words), "noticed, but as something else than `{words}`: {text}");
}

/// A scene whose origin does as it is asked.
fn honest(request: Request) -> (Scene, crate::scene::ClientHandle, Rc<crate::origin::Log>) {
    let (scene, client, log) = Scene::simple(1, Plan::calm(), Link::clean(), &configuration(1, ""), as_asked);
    scene.ask(&client, request);
    (scene, client, log)
}

/// The same, over and with nothing left but what the sabotage leaves.
fn over() -> Scene {
    let (mut scene, client, _) = honest(Request::get("/length/30000"));
    scene.finish(10 * SECOND);
    check(&client);
    scene
}

#[test]
fn without_sabotage_nothing_is_noticed() {
    over().close();
}

#[test]
fn a_wrong_byte_of_a_response() {
    caught("response 0", || {
        let (mut scene, client, _) = Scene::simple(1, Plan::calm(), Link::clean(), &configuration(1, ""), |_| {
            Reaction::Answer(Reply { wrong_at: Some(20_000), ..Reply::ok(30_000) })
        });
        scene.ask(&client, Request::get("/length/30000"));
        scene.finish(10 * SECOND);
        check(&client);
    });
}

#[test]
fn a_response_that_lacks_its_end() {
    caught("response 0", || {
        let (mut scene, client, _) = Scene::simple(1, Plan::calm(), Link::clean(), &configuration(1, ""), |_| {
            Reaction::Answer(Reply::ok(29_999))
        });
        scene.ask(&client, Request::get("/length/30000"));
        scene.finish(10 * SECOND);
        check(&client);
    });
}

#[test]
fn a_wrong_byte_of_a_request() {
    caught("POST /length/10", || {
        let (mut scene, _, log) = honest(Request { wrong_at: Some(70_000), ..Request::post("/length/10", 100_000) });
        scene.finish(10 * SECOND);
        check_requests(&log);
    });
}

#[test]
fn a_request_that_lacks_its_end() {
    caught("GET /length/10", || {
        let (mut scene, _, log) = honest(Request::get("/length/10"));
        scene.finish(10 * SECOND);
        log.requests.borrow_mut()[0].complete = false;
        check_requests(&log);
    });
}

#[test]
fn a_broken_off_body_that_ends_as_if_it_were_whole() {
    caught("Finished with status Some(200)", || {
        // The origin's end is a clean one to everybody: its body is as long as the connection.
        let (mut scene, client, _) = Scene::simple(1, Plan::calm(), Link::clean(), &configuration(1, ""), |_| {
            Reaction::Answer(Reply { sent: 70_000, then: Then::Close, ..Reply::ok(500_000).framed(Framing::Close) })
        });
        scene.ask(&client, Request::get("/"));
        scene.finish(10 * SECOND);
        check_broken_off(&client);
    });
}

#[test]
fn a_request_that_nobody_answers() {
    caught("the end of all requests has not come", || {
        let (mut scene, client, _) =
            Scene::simple(1, Plan::calm(), Link::clean(), &configuration(1, ""), |_| Reaction::Silence);
        scene.ask(&client, Request::get("/"));
        scene.finish(SECOND);
    });
}

#[test]
fn a_worker_that_nothing_will_ever_wake() {
    caught("nothing will ever happen", || {
        let mut scene = Scene::new(1, Plan::calm(), &configuration(1, ""));
        scene.run_until("a client", SECOND, |scene| scene.worker.census().clients > 0);
    });
}

#[test]
fn a_gauge_that_is_not_taken_back() {
    caught("gauges of the telemetry", || {
        let mut scene = over();
        scene.cells.exchanges_active.enter();
        scene.close();
    });
}

#[test]
fn a_connection_that_stays() {
    caught("the end of all connections has not come", || {
        let mut scene = over();
        // The scene does not know this client, and it never falls silent for as long as the idle timeout.
        let (local, server) = ("198.51.100.77:7777".parse().unwrap(), PROXY.parse().unwrap());
        let client = Rc::new(RefCell::new(Client::new(local, server, 1 << 20, scene.host.now())));
        let peer = scene.host.add_peer(Rc::clone(&client), local, Link::clean(), Link::clean());
        for minute in 0..20 {
            let at = minute * 20 * SECOND;
            client.borrow_mut().ask(Request { at, ..Request::get("/length/10") });
        }
        scene.host.poke(peer);
        scene.run_until("the client", SECOND, |scene| scene.worker.census().clients == 2);
        scene.close();
    });
}

#[test]
fn a_socket_that_is_not_closed() {
    caught("sockets are open", || {
        let mut scene = over();
        let mut host = scene.host.clone();
        host.connect(&backend(1), Owner::Mailbox.token()).expect("a socket");
        scene.close();
    });
}

#[test]
fn a_buffer_that_is_not_given_back() {
    caught("buffers are held", || {
        let mut scene = over();
        let slot = scene.host.clone().udp_slot();
        assert!(slot.is_some());
        scene.close();
    });
}

#[test]
fn more_bytes_than_an_unproved_address_may_get() {
    // A network that doubles everything makes six times the bytes of three.
    caught("bytes to an unproved address", || amplified(1, Link { duplicate: 1.0, ..Link::clean() }));
}
