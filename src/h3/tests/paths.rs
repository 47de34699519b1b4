//! Clients whose address changes: behind a NAT that forgets them, on purpose, or in somebody else's lies.

use super::support::*;
use std::net::SocketAddr;

fn outside(port: u16) -> SocketAddr {
    ([203, 0, 113, 7], port).into()
}

/// Lets the client offer as many connection IDs as it may, as most libraries do by themselves.
fn offer_ids(world: &mut World) {
    while world.client.quic.scids_left() > 0 {
        let id: Vec<u8> = (0..16).map(|_| world.random.next() as u8).collect();
        let token = u128::from(world.random.next());
        world.client.quic.new_scid(&quiche::ConnectionId::from_ref(&id), token, false).unwrap();
    }
    while world.client.quic.retired_scid_next().is_some() {}
}

/// The client acknowledges what it has, and all that the server sends then is lost, which is more than a few packets: on a busy
/// machine the pacing may let fewer go in one turn.
fn lose_a_flight(world: &mut World) {
    let sent = |world: &World| world.trains.iter().map(|train| train.packets).sum::<usize>();
    let before = sent(world);
    world.deaf = true;
    world.run(|world| sent(world) > before + 5);
    world.deaf = false;
}

/// A download during which the NAT gives the client that many addresses, one after the other.
fn download_through_a_nat(world: &mut World, rebindings: u16, offers: bool) {
    let len = 200_000 * (u64::from(rebindings) + 1);
    let stream = world.client.get(&format!("/bytes/{len}"));
    for at in 1..=rebindings {
        if offers {
            offer_ids(world);
        }
        let before = 200_000 * u64::from(at) - 100_000;
        world.run(|world| world.client.answers.get(&stream).is_some_and(|answer| answer.len > before));
        assert!(!world.client.answers[&stream].is_over(), "it is over before rebinding {at}");
        lose_a_flight(world);
        world.nat = Some(outside(at));
        // As soon as the client has something to say.
        world.client.quic.send_ack_eliciting().unwrap();
        world.run(|world| world.connection().client() == outside(at));
    }
    world.run(|world| world.client.answers[&stream].is_over());
    let answer = &world.client.answers[&stream];
    assert!(answer.finished && answer.intact && answer.len == len, "{answer:?}");
    assert_eq!(world.endpoint.counters().migrations.get(), u64::from(rebindings));
}

#[test]
fn a_download_survives_a_nat_that_forgets_the_client_twice() {
    for offers in [false, true] {
        download_through_a_nat(&mut World::ready(), 2, offers);
    }
}

#[test]
fn a_nat_may_forget_until_no_more_addresses_are_remembered() {
    for offers in [false, true] {
        let mut world = World::ready();
        download_through_a_nat(&mut world, crate::limits::quic::PATHS as u16 - 1, offers);
        // One more is bounded away: nothing of it reaches the connection, which stays where it was.
        let before = world.connection().client();
        world.nat = Some(outside(99));
        world.client.get("/bytes/10");
        world.settle();
        assert_eq!(world.connection().client(), before);
        assert!(!world.connection().is_closing());
    }
}

/// A client that moves on purpose in the middle of a download, each time with all that is on its way lost.
fn download_while_migrating(world: &mut World, moves: u16) {
    let len = 300_000 * (u64::from(moves) + 1);
    let stream = world.client.get(&format!("/bytes/{len}"));
    for at in 1..=moves {
        let there = ([127, 0, 0, 1], 7000 + at).into();
        offer_ids(world);
        let before = 300_000 * u64::from(at) - 150_000;
        world.run(|world| world.client.answers.get(&stream).is_some_and(|answer| answer.len > before));
        lose_a_flight(world);
        world.client.quic.migrate(there, server_address()).unwrap();
        world.client.quic.send_ack_eliciting().unwrap();
        world.nat = Some(there);
        world.run(|world| world.connection().client() == there);
    }
    world.run(|world| world.client.answers[&stream].is_over());
    let answer = &world.client.answers[&stream];
    assert!(answer.finished && answer.intact && answer.len == len, "{answer:?}");
}

#[test]
fn a_download_survives_a_client_that_moves_on_purpose() {
    let mut world = World::ready();
    offer_ids(&mut world);
    world.settle();
    download_while_migrating(&mut world, 2);
    // The IDs of the paths it left are used no more: it was asked for others.
    assert!(world.client.quic.retired_scids() > 0);
}

#[test]
fn an_address_that_is_not_proved_is_never_believed() {
    let mut world = World::ready();
    let stream = world.client.get("/bytes/2000000");
    world.run(|world| world.client.answers.get(&stream).is_some_and(|answer| answer.len > 500_000));
    // Somebody on the way sends one packet of the client's from an address of their own; the answers go nowhere.
    world.recorded = Some(Vec::new());
    world.client.quic.send_ack_eliciting().unwrap();
    let mut packet = vec![0; 2000];
    let (len, _) = world.client.quic.send(&mut packet).unwrap();
    let liar = outside(1);
    world.endpoint.receive(&mut packet[..len], liar, server_address(), std::time::Instant::now());
    world.nat = Some(client_address());
    assert_eq!(world.connection().client(), client_address());
    let to_liar =
        |world: &World| world.trains.iter().filter(|train| train.to == liar).map(|train| train.len).sum::<usize>();
    world.run(|world| {
        assert_eq!(world.connection().client(), client_address());
        world.client.answers[&stream].is_over()
    });
    assert!(world.client.answers[&stream].finished);
    assert!(to_liar(&world) <= 3 * len, "{} bytes to an address that sent {len}", to_liar(&world));
    assert_eq!(world.connection().facts().client, client_address());
    assert_eq!(world.endpoint.counters().migrations.get(), 0);
}

#[test]
fn a_flood_of_challenges_is_answered_within_bounds() {
    let mut world = World::ready();
    let before = world.trains.len();
    let (mut asked, mut sent) = (0, 0);
    // Fewer than would be taken for a flood and end the connection.
    for _ in 0..150 {
        world.client.quic.probe_path(client_address(), server_address()).unwrap();
        let mut packet = vec![0; 2000];
        let (len, _) = world.client.quic.send(&mut packet).unwrap();
        let info = (client_address(), server_address());
        world.endpoint.receive(&mut packet[..len], info.0, info.1, std::time::Instant::now());
        asked += len;
    }
    world.serve();
    sent += world.trains[before..].iter().map(|train| train.len).sum::<usize>();
    // All came in one turn: the last three are remembered.
    assert!(sent < asked / 20, "{sent} bytes answer {asked}");
    assert!(!world.connection().is_closing());
    let stream = world.client.get("/bytes/1000");
    world.run(|world| world.client.answers.get(&stream).is_some_and(|answer| answer.finished));
}
