//! Addresses that may not come: nothing of theirs is kept, answered or believed.

use super::support::*;
use crate::h3::{DropReason, QuicSettings, Received};
use crate::limits::AddressRules;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// Everybody but those in 203.0.113.0/24, where the tests' NAT puts clients.
fn without_outside() -> QuicSettings {
    let denied = "203.0.113.0/24".parse().expect("a network");
    let rules = AddressRules::new(&[], &[denied], true).expect("no contradiction");
    QuicSettings { clients: Some(Arc::new(rules)), ..QuicSettings::default() }
}

fn outside() -> SocketAddr {
    ([203, 0, 113, 7], 4433).into()
}

const DENIED: Received = Received::Dropped(DropReason::AddressDenied);

#[test]
fn a_first_packet_from_there_is_dropped_and_the_same_from_elsewhere_is_not() {
    let mut endpoint = endpoint(&without_outside());
    let mut first = first_datagrams(1).remove(0);
    let mapped: SocketAddr = "[::ffff:203.0.113.7]:4433".parse().expect("an address");
    for from in [outside(), mapped] {
        assert_eq!(endpoint.receive(&mut first.clone(), from, server_address(), Instant::now()), DENIED);
    }
    assert!(endpoint.is_empty() && endpoint.half_open() == 0);
    let elsewhere = endpoint.receive(&mut first, client_address(), server_address(), Instant::now());
    assert!(matches!(elsewhere, Received::Connection(_)), "{elsewhere:?}");
}

#[test]
fn nothing_from_there_is_answered_without_a_connection() {
    let mut world = World::ready_with(&without_outside(), &ClientSettings::default());
    // A version that nobody speaks: others are told which we do.
    let mut unknown = first_datagrams(2).remove(0);
    unknown[1..5].copy_from_slice(&0x1a2a_3a4a_u32.to_be_bytes());
    let mut ask =
        |datagram: &[u8], from| world.endpoint.receive(&mut datagram.to_vec(), from, server_address(), Instant::now());
    assert_eq!(ask(&unknown, outside()), DENIED);
    assert!(matches!(ask(&unknown, client_address()), Received::Reply { .. }));
    // A packet of a connection that is gone: others get a stateless reset.
    world.recorded = Some(Vec::new());
    world.client.get("/bytes/10");
    world.settle();
    let packet = world.recorded.take().and_then(|sent| sent.into_iter().max_by_key(Vec::len)).expect("it asked");
    world.endpoint.remove(world.key.expect("it was connected"));
    let mut ask = |from| world.endpoint.receive(&mut packet.clone(), from, server_address(), Instant::now());
    assert_eq!(ask(outside()), Received::Dropped(DropReason::NoConnection));
    assert!(matches!(ask(client_address()), Received::Reply { .. }));
}

#[test]
fn a_client_cannot_move_there() {
    let mut world = World::ready_with(&without_outside(), &ClientSettings::default());
    let stream = world.client.get("/bytes/2000000");
    world.run(|world| world.client.answers.get(&stream).is_some_and(|answer| answer.len > 200_000));
    // Its NAT gives it such an address: nothing of it arrives any more, not even a proof.
    world.nat = Some(outside());
    for _ in 0..50 {
        world.client.quic.send_ack_eliciting().expect("it is connected");
        world.turn();
    }
    assert_eq!(world.connection().client(), client_address());
    assert!(world.trains.iter().all(|train| train.to == client_address()), "something was sent there");
    let counters = world.endpoint.counters();
    assert_eq!(counters.migrations.get(), 0);
    assert!(counters.dropped[DropReason::AddressDenied as usize].get() >= 50);
    // Back where it may come from it goes on.
    world.nat = None;
    world.run(|world| world.client.answers[&stream].is_over());
    assert!(world.client.answers[&stream].finished && world.client.answers[&stream].intact);
}
