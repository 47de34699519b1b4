//! Silence while requests run: slow backends and silent tunnels keep their clients, clients that are gone are found out, and
//! nobody is kept for nothing.

use crate::bodies::{any_link, as_asked};
use crate::client::{Outcome, Request};
use crate::origin::{Framing, Log, Reaction, Reply};
use crate::scene::{ClientHandle, Scene, configuration};
use crate::seeds::seeds;
use crate::tunnels::tunnel;
use spooky_uring::simulation::{Link, Plan, Random};
use std::rc::Rc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// Of the listener by default; clients take connections for dead after twice of it.
const IDLE: Duration = Duration::from_secs(30);
/// The question comes after a third of it, and the last probe for its answer within an idle timeout behind that.
const FOUND_OUT: Duration = Duration::from_secs(30 + 10 + 2);
/// Exchanges wait for longer than any connection lives unheard.
const PATIENT: &str = "[performance]\nbackend_timeout = \"10m\"\nbackend_body_idle_timeout = \"10m\"\n";

fn silent_for(seed: u64, link: Link, more: &str) -> (Scene, ClientHandle, Rc<Log>) {
    let text = configuration(1, &format!("{PATIENT}{more}"));
    Scene::simple(seed, Plan::calm(), link, &text, |_| {
        Reaction::Answer(Reply { after: 4 * IDLE, ..Reply::ok(100_000) })
    })
}

/// The client has its whole answer.
fn has(client: &ClientHandle, length: u64) {
    let exchange = &client.get().exchanges[0];
    assert_eq!((exchange.outcome, exchange.received, exchange.intact), (Outcome::Finished, length, true));
}

#[test]
fn a_client_that_waits_for_a_slow_backend_keeps_its_connection() {
    seeds(8, |seed| {
        let (mut scene, client, _) = silent_for(seed, any_link(&mut Random::new(seed)), "");
        scene.ask(&client, Request::get("/"));
        scene.finish(5 * IDLE);
        has(&client, 100_000);
        scene.close();
    });
}

#[test]
fn without_keep_alive_a_slow_backend_loses_its_client() {
    seeds(2, |seed| {
        let (mut scene, client, _) = silent_for(seed, Link::clean(), "[listen.quic]\nkeep_alive = \"off\"\n");
        scene.ask(&client, Request::get("/"));
        scene.finish(5 * IDLE);
        assert_eq!(client.get().exchanges[0].outcome, Outcome::Lost);
        scene.close();
    });
}

#[test]
fn a_silent_tunnel_lives_on() {
    seeds(8, |seed| {
        let link = any_link(&mut Random::new(seed));
        let (mut scene, client, _) = Scene::simple(seed, Plan::calm(), link, &configuration(1, ""), |_| {
            let reply = Reply { status: 101, early: true, ..Reply::ok(5_000).framed(Framing::Tunnel) };
            Reaction::Answer(Reply { dribbles: Some((1_000, 4 * IDLE)), ..reply })
        });
        scene.ask(&client, tunnel(1, 5_000));
        scene.finish(25 * IDLE);
        has(&client, 5_000);
        scene.close();
    });
}

#[test]
fn a_client_that_vanishes_while_it_waits_is_found_out() {
    seeds(4, |seed| {
        let (mut scene, client, log) =
            Scene::simple(seed, Plan::calm(), Link::clean(), &configuration(1, PATIENT), |_| Reaction::Silence);
        scene.ask(&client, Request::get("/"));
        scene.run_until("the request", SECOND, |_| !log.requests.borrow().is_empty());
        // It has answered for a while before it goes.
        scene.run_for(Random::new(seed).up_to(3 * IDLE));
        assert_eq!(scene.worker.census().clients, 1, "kept until then");
        let nothing = Link { loss: 1.0, ..Link::clean() };
        scene.host.set_links(client.peer, nothing.clone(), nothing);
        scene.run_until("the end of its connection", FOUND_OUT, |scene| scene.worker.census().clients == 0);
        scene.run_for(SECOND);
        assert_eq!(log.closed.borrow().len(), 1, "the origin is let go");
        scene.close();
    });
}

#[test]
fn a_connection_without_requests_is_not_kept() {
    seeds(4, |seed| {
        let (mut scene, client, _) = Scene::simple(seed, Plan::calm(), Link::clean(), &configuration(1, ""), as_asked);
        scene.ask(&client, Request::get("/length/1000"));
        scene.finish(SECOND);
        scene.run_until("its end", IDLE + SECOND, |scene| scene.worker.census().clients == 0);
        scene.close();
    });
}
