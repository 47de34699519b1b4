//! Bodies of many sizes arrive whole, both ways, whatever the network and the machine do.

use crate::client::{Outcome, Request};
use crate::origin::{Reaction, Reply, Seen};
use crate::scene::{Scene, configuration};
use crate::seeds::seeds;
use spooky_uring::simulation::{Link, Plan, Random};
use std::time::Duration;

/// Answers `/bytes/N` with N bytes.
fn as_asked(seen: &Seen) -> Reaction {
    let length = seen.target.rsplit('/').next().and_then(|length| length.parse().ok()).unwrap_or(0);
    Reaction::Answer(Reply::ok(length))
}

#[test]
fn one_request_is_answered() {
    seeds(1, |seed| {
        let (mut scene, client, log) = Scene::simple(seed, Plan::calm(), Link::clean(), &configuration(1, ""), as_asked);
        let number = scene.ask(&client, Request::get("/bytes/13000"));
        scene.finish(Duration::from_secs(5));
        {
            let client = client.get();
            let exchange = &client.exchanges[number];
            assert_eq!((exchange.outcome, exchange.status), (Outcome::Finished, Some(200)));
            assert_eq!((exchange.received, exchange.intact), (13_000, true));
        }
        assert_eq!(log.requests.borrow().len(), 1);
        scene.close();
    });
}
