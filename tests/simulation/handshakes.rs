//! Crowds of clients that fall silent behind their first flight: what is kept of them, and who is served all the same.

use crate::amplification::Mute;
use crate::bodies::{as_asked, check};
use crate::client::Request;
use crate::scene::{Scene, configuration};
use crate::seeds::seeds;
use spooky::limits::quic::{HALF_OPEN, HALF_OPEN_GRACE, HALF_OPEN_LEAVING};
use spooky::telemetry::kinds::{DatagramDrop, HandshakeFailure, QueueFull};
use spooky_uring::simulation::{Link, Plan};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Clients of numbers in this range send their first flights, few enough at once for any receive buffer.
fn crowd(scene: &mut Scene, numbers: std::ops::Range<u16>) {
    let server = "192.0.2.1:443".parse().unwrap();
    for number in numbers {
        let local: SocketAddr = ([198, 51, 100, 2], 1024 + number).into();
        let mute = Rc::new(RefCell::new(Mute::new(local, server)));
        let peer = scene.host.add_peer(mute, local, Link::clean(), Link::clean());
        scene.host.poke(peer);
        if number % 20 == 19 {
            scene.run_for(Duration::from_millis(5));
            scene.worker.check_invariants();
        }
    }
    // The last ones are on their way.
    scene.run_for(Duration::from_millis(100));
}

#[test]
fn handshakes_that_go_nowhere_make_room_for_those_that_go_on() {
    seeds(2, |seed| {
        let mut scene = Scene::new(seed, Plan::calm(), &configuration(1, "[listen.quic]\nretry = \"never\"\n"));
        scene.origin(1, as_asked);
        let (first, second) = (HALF_OPEN as u16 + 100, 100);
        crowd(&mut scene, 0..first);
        assert_eq!(scene.worker.census().clients, HALF_OPEN, "a full house");
        assert_eq!(scene.cells.quic.drops.get(DatagramDrop::HalfOpenLimit), 100);
        assert_eq!(scene.cells.full.get(QueueFull::HalfOpen), 0, "nobody has had his second yet");
        scene.run_for(HALF_OPEN_GRACE);
        let client = scene.client(Link::clean(), Link::clean());
        scene.ask(&client, Request::get("/length/10000"));
        scene.finish(SECOND);
        check(&client);
        assert_eq!(scene.cells.full.get(QueueFull::HalfOpen), 1);
        crowd(&mut scene, first..first + second);
        // The client that was served is none of them any more, so the first one found room.
        assert_eq!(scene.cells.full.get(QueueFull::HalfOpen), u64::from(second));
        assert_eq!(scene.worker.census().clients, HALF_OPEN + 1, "those that made room are gone");
        assert_eq!(scene.cells.quic.handshake_failures.get(HandshakeFailure::Refused), u64::from(second));
        scene.run_until("the end of all others", 15 * SECOND, |scene| scene.worker.census().clients <= 1);
        scene.close();
    });
}

#[test]
fn a_crowd_that_comes_at_once_is_taken_in_within_bounds() {
    seeds(2, |seed| {
        let mut scene = Scene::new(seed, Plan::calm(), &configuration(1, "[listen.quic]\nretry = \"never\"\n"));
        crowd(&mut scene, 0..HALF_OPEN as u16);
        scene.run_for(HALF_OPEN_GRACE);
        // All in one turn: more than may be told to go in one.
        let server = "192.0.2.1:443".parse().unwrap();
        for number in 0..2 * HALF_OPEN_LEAVING as u16 {
            let local: SocketAddr = ([198, 51, 100, 3], 1024 + number).into();
            scene.host.add_peer(Rc::new(RefCell::new(Mute::new(local, server))), local, Link::clean(), Link::clean());
        }
        let until = scene.host.elapsed() + SECOND;
        while scene.host.elapsed() < until {
            scene.turn();
            assert!(scene.worker.census().clients <= HALF_OPEN + HALF_OPEN_LEAVING, "{}", scene.state());
            if scene.host.is_stalled() {
                break;
            }
        }
        scene.worker.check_invariants();
        assert_eq!(scene.worker.census().clients, HALF_OPEN);
        scene.run_until("the end of all", 15 * SECOND, |scene| scene.worker.census().clients == 0);
        scene.close();
    });
}
