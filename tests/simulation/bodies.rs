//! Bodies of many sizes arrive whole, both ways, whatever the network and the machine do.

use crate::client::{Outcome, Request};
use crate::origin::{Framing, Reaction, Reply, Seen};
use crate::scene::{ClientHandle, Scene, configuration};
use crate::seeds::seeds;
use spooky_uring::simulation::{Link, Plan, Random};
use std::time::Duration;

/// Sizes around every boundary on the way: nothing, a byte, one packet, what is copied, a receive buffer, many of them.
const SIZES: [u64; 10] = [0, 1, 1200, 4096, 4097, 16_384, 65_536, 65_537, 200_000, 1 << 20];

const MINUTE: Duration = Duration::from_secs(60);

/// Answers `/length/N`, `/chunked/N` and `/close/N` with N bytes.
pub fn as_asked(seen: &Seen) -> Reaction {
    let mut words = seen.target.trim_start_matches('/').split('/');
    let framing = match words.next() {
        Some("chunked") => Framing::Chunked,
        Some("close") => Framing::Close,
        Some("tunnel") => return Reaction::Answer(tunnel(words.next())),
        _ => Framing::Length,
    };
    let length = words.next().and_then(|length| length.parse().ok()).unwrap_or(0);
    Reaction::Answer(Reply::ok(length).framed(framing))
}

/// A tunnel with so many bytes, from now on.
fn tunnel(length: Option<&str>) -> Reply {
    let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    Reply { status: 101, early: true, ..Reply::ok(length).framed(Framing::Tunnel) }
}

/// Everything that can be drawn of a path.
pub fn any_link(random: &mut Random) -> Link {
    let mut rate = |most: f64| most * (random.between(0..=100) as f64 / 100.0);
    let faulty = Link::faulty(rate(0.05), rate(0.03), rate(0.05));
    Link { delay: Duration::from_micros(random.between(50..=30_000)), ..faulty }
}

/// Every exchange of a client ended well, with this many bytes each way.
pub fn check(client: &ClientHandle) {
    for (number, exchange) in client.get().exchanges.iter().enumerate() {
        let wanted: u64 = exchange.request.path.rsplit('/').next().and_then(|length| length.parse().ok()).unwrap_or(0);
        let wanted = if exchange.request.method == "HEAD" { 0 } else { wanted };
        assert_eq!((exchange.outcome, exchange.status), (Outcome::Finished, Some(200)), "request {number}");
        assert_eq!((exchange.received, exchange.intact), (wanted, true), "response {number}");
        assert_eq!(exchange.sent, exchange.request.body.unwrap_or(0), "request {number}");
    }
}

/// Every request came whole.
pub fn check_requests(log: &crate::origin::Log) {
    for seen in log.requests.borrow().iter() {
        assert!(seen.complete && seen.intact, "{} {} with {} bytes", seen.method, seen.target, seen.body);
    }
}

#[test]
fn one_request_is_answered() {
    seeds(1, |seed| {
        let (mut scene, client, log) =
            Scene::simple(seed, Plan::calm(), Link::clean(), &configuration(1, ""), as_asked);
        scene.ask(&client, Request::get("/length/13000"));
        scene.finish(Duration::from_secs(5));
        check(&client);
        assert_eq!(log.requests.borrow().len(), 1);
        scene.close();
    });
}

#[test]
fn bodies_of_every_size_pass_a_rough_machine_and_a_faulty_network() {
    seeds(24, |seed| {
        let mut random = Random::new(seed);
        let (plan, link) = (Plan::rough(&mut random), any_link(&mut random));
        let (mut scene, client, log) = Scene::simple(seed, plan, link, &configuration(1, ""), as_asked);
        for _ in 0..random.between(4..=12) {
            let mut size = || SIZES[random.between(0..=SIZES.len() as u64 - 1) as usize];
            let (up, down) = (size(), size());
            let way = ["length", "chunked", "close"][random.between(0..=2) as usize];
            let path = format!("/{way}/{down}");
            let request = match random.between(0..=3) {
                0 => Request::get(&path),
                1 => Request { method: "HEAD", ..Request::get(&format!("/length/{down}")) },
                2 => Request::post(&path, up),
                _ => Request { announced: false, ..Request::post(&path, up) },
            };
            scene.ask(&client, Request { at: random.up_to(Duration::from_millis(300)), ..request });
        }
        scene.finish(10 * MINUTE);
        check(&client);
        check_requests(&log);
        scene.close();
    });
}

#[test]
fn ten_mebibytes_down_at_one_and_five_percent_loss() {
    for loss in [0.01, 0.05] {
        seeds(1, |seed| {
            let link = Link::faulty(loss, 0.01, 0.02);
            let (mut scene, client, _) = Scene::simple(seed, Plan::calm(), link, &configuration(1, ""), as_asked);
            scene.ask(&client, Request::get("/length/10485760"));
            scene.finish(5 * MINUTE);
            check(&client);
            scene.close();
        });
    }
}

#[test]
fn a_shallow_queue_on_the_way_does_not_cost_the_rate() {
    // The path carries 500 KB, its queue 100 KB. The body alone takes 0.42 s at its rate; windows sent at once overflow
    // the queue each round trip and take several times as long.
    seeds(4, |seed| {
        let link = Link { queue: Duration::from_millis(4), ..Link::clean() };
        let (mut scene, client, _) = Scene::simple(seed, Plan::calm(), link, &configuration(1, ""), as_asked);
        scene.ask(&client, Request::get("/length/10485760"));
        scene.finish(Duration::from_millis(1500));
        check(&client);
        scene.close();
    });
}

#[test]
fn a_path_that_carries_less_than_an_ethernet_is_found_out() {
    seeds(4, |seed| {
        let link = Link { payload_max: 1300, ..Link::clean() };
        let (mut scene, client, _) = Scene::simple(seed, Plan::calm(), link, &configuration(1, ""), as_asked);
        scene.ask(&client, Request::get("/length/4194304"));
        // At the link's rate it takes 0.17 s. Lost probes are not congestion and hold nothing up.
        scene.finish(Duration::from_millis(600));
        check(&client);
        scene.close();
    });
}

#[test]
fn a_path_that_stops_carrying_large_packets_is_not_the_end_of_a_download() {
    seeds(4, |seed| {
        let (mut scene, client, _) = Scene::simple(seed, Plan::calm(), Link::clean(), &configuration(1, ""), as_asked);
        scene.ask(&client, Request::get("/length/10485760"));
        scene.run_until("half of it", Duration::from_secs(5), |_| client.get().exchanges[0].received > 5 << 20);
        let tunnel = Link { payload_max: 1300, ..Link::clean() };
        scene.host.set_links(client.peer, tunnel.clone(), tunnel);
        scene.finish(Duration::from_secs(5));
        check(&client);
        scene.close();
    });
}

#[test]
fn ten_mebibytes_up_at_one_and_five_percent_loss() {
    for loss in [0.01, 0.05] {
        seeds(1, |seed| {
            let link = Link::faulty(loss, 0.01, 0.02);
            let (mut scene, client, log) = Scene::simple(seed, Plan::calm(), link, &configuration(1, ""), as_asked);
            scene.ask(&client, Request::post("/length/5", 10 << 20));
            scene.finish(5 * MINUTE);
            check(&client);
            check_requests(&log);
            scene.close();
        });
    }
}

#[test]
fn ten_mebibytes_both_ways_through_exhausted_pools_and_partial_sends() {
    seeds(2, |seed| {
        let mut random = Random::new(seed);
        let plan = Plan { exhausted: 0.2, partial_send: 0.5, slots_dry: 0.2, ..Plan::rough(&mut random) };
        let link = Link::faulty(0.005, 0.005, 0.02);
        let (mut scene, client, log) = Scene::simple(seed, plan, link, &configuration(1, ""), as_asked);
        scene.ask(&client, Request::post("/chunked/10485760", 10 << 20));
        scene.finish(10 * MINUTE);
        check(&client);
        check_requests(&log);
        scene.close();
    });
}

#[test]
fn a_hundred_requests_at_once_share_one_connection() {
    seeds(2, |seed| {
        let mut random = Random::new(seed);
        let plan = Plan { streams: 1024, ..Plan::rough(&mut random) };
        let (mut scene, client, log) =
            Scene::simple(seed, plan, Link::faulty(0.01, 0.01, 0.01), &configuration(1, ""), as_asked);
        for _ in 0..100 {
            scene.ask(&client, Request::get("/length/30000"));
        }
        scene.finish(10 * MINUTE);
        check(&client);
        assert_eq!(log.requests.borrow().len(), 100);
        scene.close();
    });
}

#[test]
fn many_clients_share_small_pools() {
    seeds(4, |seed| {
        let mut random = Random::new(seed);
        let plan = Plan::rough(&mut random);
        let mut scene = Scene::new(seed, plan, &configuration(2, ""));
        let logs = [scene.origin(1, as_asked).0, scene.origin(2, as_asked).0];
        let clients: Vec<ClientHandle> = (0..8)
            .map(|_| {
                let (to, from) = (any_link(&mut random), any_link(&mut random));
                let client = scene.client(to, from);
                for _ in 0..3 {
                    scene.ask(&client, Request::get("/length/150000"));
                    scene.ask(&client, Request::post("/chunked/100", 70_000));
                }
                client
            })
            .collect();
        scene.finish(10 * MINUTE);
        clients.iter().for_each(check);
        logs.iter().for_each(|log| check_requests(log));
        assert!(logs.iter().all(|log| log.requests.borrow().len() == 24), "round-robin over two equal backends");
        scene.close();
    });
}
