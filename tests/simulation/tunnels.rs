//! Tunnels: bytes both ways at once, ends that are passed on, and what breaks.

use crate::bodies::{any_link, as_asked, check, check_requests};
use crate::client::{Aborts, Outcome, Request};
use crate::origin::{Framing, Reaction, Reply, Then};
use crate::origins::check_broken_off;
use crate::scene::{Scene, configuration};
use crate::seeds::seeds;
use spooky_uring::simulation::{Link, Plan, Random};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// A request for a tunnel with so many bytes up and down.
pub fn tunnel(up: u64, down: u64) -> Request {
    let fields = [(":protocol", "websocket"), ("sec-websocket-version", "13")];
    Request {
        method: "CONNECT",
        announced: false,
        fields: fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..Request::post(&format!("/tunnel/{down}"), up)
    }
}

#[test]
fn bytes_pass_both_ways_through_a_rough_machine_and_a_faulty_network() {
    seeds(8, |seed| {
        let mut random = Random::new(seed);
        let (plan, link) = (Plan::rough(&mut random), any_link(&mut random));
        let (mut scene, client, log) = Scene::simple(seed, plan, link, &configuration(1, ""), as_asked);
        for _ in 0..random.between(1..=6) {
            let mut size = || [0, 1, 2000, 100_000, 1_000_000][random.between(0..=4) as usize];
            // A client that says nothing and ends may end before the tunnel opens.
            let (up, down) = (size().max(1), size());
            scene.ask(&client, Request { at: random.up_to(Duration::from_millis(300)), ..tunnel(up, down) });
        }
        scene.finish(10 * MINUTE);
        check(&client);
        scene.run_until("quiet", MINUTE, |scene| scene.worker.is_quiet());
        check_requests(&log);
        scene.close();
    });
}

#[test]
fn an_origin_that_breaks_a_tunnel_breaks_it_for_the_client() {
    seeds(8, |seed| {
        let mut random = Random::new(seed);
        let plan = Plan::rough(&mut random);
        // As with every reset: see `a_reset_that_is_overtaken_is_never_a_clean_end`.
        let link = Link { loss: 0.0, jitter: Duration::ZERO, reorder: 0.0, ..any_link(&mut random) };
        let (mut scene, client, _) = Scene::simple(seed, plan, link, &configuration(1, ""), |_| {
            let whole = Reply { status: 101, early: true, ..Reply::ok(100_000).framed(Framing::Tunnel) };
            Reaction::Answer(Reply { sent: 50_000, then: Then::Reset, ..whole })
        });
        scene.ask(&client, tunnel(50_000_000, 100_000));
        scene.finish(10 * MINUTE);
        check_broken_off(&client);
        scene.close();
    });
}

#[test]
fn a_client_that_gives_a_tunnel_up_resets_the_origin() {
    seeds(8, |seed| {
        let mut random = Random::new(seed);
        let aborts = Aborts::AfterReceived(random.between(1..=50_000));
        let plan = Plan::rough(&mut random);
        let (mut scene, client, log) =
            Scene::simple(seed, plan, any_link(&mut random), &configuration(1, ""), as_asked);
        scene.ask(&client, Request { aborts, ..tunnel(50_000_000, 50_000_000) });
        scene.finish(10 * MINUTE);
        assert_eq!(client.get().exchanges[0].outcome, Outcome::Aborted);
        scene.run_until("quiet", MINUTE, |scene| scene.worker.is_quiet());
        scene.run_for(MINUTE);
        let closed = log.closed.borrow();
        assert_eq!(closed.iter().map(|&(_, _, reset)| reset).collect::<Vec<_>>(), [true], "no clean end");
        drop(closed);
        scene.close();
    });
}
