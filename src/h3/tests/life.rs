//! The life of connections: accept, limits, duplicates, drain, close, migration.

use super::support::*;
use crate::h3::packet::INITIAL_LEN_MIN;
use crate::h3::{CloseCause, Closer, DropReason, QuicSettings, Received, Retry, code};
use crate::limits::quic::HALF_OPEN_GRACE;
use std::time::{Duration, Instant};

#[test]
fn a_handshake_tells_its_facts() {
    let mut world = World::ready();
    let facts = world.connection().facts();
    assert!(facts.established);
    assert_eq!(facts.alpn, b"h3");
    assert_eq!(facts.server_name.as_deref(), Some("example.test"));
    assert_eq!((facts.client, facts.local), (client_address(), server_address()));
    assert!(facts.handshake.is_some());
    assert_eq!(world.endpoint.counters().established.get(), 1);
    assert_eq!((world.endpoint.len(), world.endpoint.half_open()), (1, 0));
}

#[test]
fn doubled_first_packets_find_their_connection() {
    let mut endpoint = endpoint(&QuicSettings::default());
    let datagrams = first_datagrams(1);
    let first = receive(&mut endpoint, &datagrams[0]);
    assert!(matches!(first, Received::Connection(_)));
    for datagram in datagrams.iter().chain(&datagrams) {
        assert_eq!(receive(&mut endpoint, datagram), first);
    }
    assert_eq!(endpoint.len(), 1);
}

#[test]
fn connections_and_handshakes_are_bounded() {
    let settings = QuicSettings { half_open: 3, retry: Retry::Never, ..QuicSettings::default() };
    let mut bounded = endpoint(&settings);
    for seed in 1..=3 {
        let received = receive(&mut bounded, &first_datagrams(seed)[0]);
        assert!(matches!(received, Received::Connection(_)));
    }
    let fourth = first_datagrams(4);
    let limit = Received::Dropped(DropReason::HalfOpenLimit);
    assert_eq!(receive(&mut bounded, &fourth[0]), limit);
    let key = bounded.keys().next().unwrap();
    bounded.remove(key);
    assert!(bounded.get_mut(key).is_none());
    assert!(matches!(receive(&mut bounded, &fourth[0]), Received::Connection(new) if new != key));

    let settings = QuicSettings { connections: 0, ..QuicSettings::default() };
    let limit = Received::Dropped(DropReason::ConnectionLimit);
    assert_eq!(receive(&mut endpoint(&settings), &fourth[0]), limit);
    let mut draining = endpoint(&QuicSettings::default());
    draining.set_accepting(false);
    let dropped = Received::Dropped(DropReason::Draining);
    assert_eq!(receive(&mut draining, &fourth[0]), dropped);
}

#[test]
fn the_oldest_handshake_makes_room_when_it_has_had_its_chance() {
    let settings = QuicSettings { half_open: 3, retry: Retry::Never, ..QuicSettings::default() };
    let mut endpoint = endpoint(&settings);
    let start = Instant::now();
    let mut arrive = |seed, after| {
        let (from, to) = (client_address(), server_address());
        endpoint.receive(&mut first_datagrams(seed)[0].clone(), from, to, start + Duration::from_millis(after))
    };
    let Received::Connection(oldest) = arrive(1, 0) else { panic!("not accepted") };
    for seed in 2..=3 {
        assert!(matches!(arrive(seed, 1), Received::Connection(_)));
    }
    assert_eq!(arrive(4, 999), Received::Dropped(DropReason::HalfOpenLimit));
    // Noise with the header of a first packet pushes nobody out.
    let mut noise = first_datagrams(5)[0].clone();
    noise[600] ^= 1;
    let later = start + HALF_OPEN_GRACE;
    let dropped = endpoint.receive(&mut noise, client_address(), server_address(), later);
    assert_eq!(dropped, Received::Dropped(DropReason::InitialInvalid));
    let received = endpoint.receive(&mut first_datagrams(4)[0].clone(), client_address(), server_address(), later);
    let Received::InPlaceOf { connection, displaced } = received else { panic!("{received:?}") };
    assert_eq!(displaced, oldest);
    assert!(!endpoint.get_mut(connection).unwrap().is_closing());
    // It says so and is gone, without a wait for what the client has to say about it.
    let leaving = endpoint.get_mut(displaced).unwrap();
    let mut out = vec![0; 65_536];
    assert!(leaving.transmit(&mut out, later).is_some());
    assert_eq!(leaving.transmit(&mut out, later), None);
    assert!(leaving.is_closed());
    assert_eq!(leaving.close_cause(), Some(CloseCause { by: Closer::Us, application: false, code: 0x02 }));
    endpoint.remove(displaced);
    assert_eq!((endpoint.len(), endpoint.half_open()), (3, 3));
}

#[test]
fn unknown_versions_are_answered_within_bounds() {
    let mut endpoint = endpoint(&QuicSettings::default());
    let mut packet = vec![0; INITIAL_LEN_MIN];
    packet[..6].copy_from_slice(&[0xc0, 0xfa, 0xce, 0xb0, 0x0c, 8]);
    packet[14] = 5;
    let Received::Reply { len } = receive(&mut endpoint, &packet) else {
        panic!("no answer");
    };
    let mut reply = vec![0; 1500];
    assert_eq!(endpoint.take_reply(&mut reply), len);
    assert!(len < packet.len());
    let header = quiche::Header::from_slice(&mut reply[..len], 16).unwrap();
    assert_eq!(header.ty, quiche::Type::VersionNegotiation);
    assert!(header.versions.unwrap().contains(&1));
    assert_eq!(endpoint.take_reply(&mut reply), 0);

    let short = Received::Dropped(DropReason::VersionTooSmall);
    assert_eq!(receive(&mut endpoint, &packet[..INITIAL_LEN_MIN - 1]), short);
    packet[1..5].fill(0);
    let negotiation = Received::Dropped(DropReason::VersionNegotiation);
    assert_eq!(receive(&mut endpoint, &packet), negotiation);
    assert!(endpoint.is_empty());
}

#[test]
fn a_client_of_another_version_learns_ours() {
    let mut config = quiche::Config::new(0xbaba_baba).unwrap();
    config.set_application_protos(&[b"h3"]).unwrap();
    config.verify_peer(false);
    config.set_initial_max_data(1 << 20);
    config.set_initial_max_stream_data_bidi_local(1 << 20);
    config.set_initial_max_stream_data_uni(1 << 16);
    config.set_initial_max_streams_uni(8);
    let settings = QuicSettings::default();
    let mut endpoint = endpoint(&settings);
    let mut client = Client::with_config(1, &ClientSettings::default(), config);
    let mut buffer = vec![0; 2000];
    let (len, _) = client.quic.send(&mut buffer).unwrap();
    assert!(matches!(receive(&mut endpoint, &buffer[..len]), Received::Reply { .. }));
    let len = endpoint.take_reply(&mut buffer);
    let info = quiche::RecvInfo { from: server_address(), to: client_address() };
    client.quic.recv(&mut buffer[..len], info).unwrap();
    let mut world = World::over(endpoint, client, &settings);
    world.handshake();
}

#[test]
fn first_packets_too_small_or_with_short_ids_are_dropped() {
    let mut endpoint = endpoint(&QuicSettings::default());
    let datagram = &first_datagrams(1)[0];
    let small = Received::Dropped(DropReason::InitialTooSmall);
    assert_eq!(receive(&mut endpoint, &datagram[..INITIAL_LEN_MIN - 1]), small);
    let mut packet = vec![0; 1200];
    packet[..6].copy_from_slice(&[0xc0, 0, 0, 0, 1, 7]);
    let length = Received::Dropped(DropReason::IdLength);
    assert_eq!(receive(&mut endpoint, &packet), length);
    packet[5] = 21;
    assert_eq!(receive(&mut endpoint, &packet), length);
    packet[5] = 8;
    let invalid = Received::Dropped(DropReason::InitialInvalid);
    assert_eq!(receive(&mut endpoint, &packet), invalid);
    packet[0] = 0xe0;
    let unknown = Received::Dropped(DropReason::NoConnection);
    assert_eq!(receive(&mut endpoint, &packet), unknown);
    assert!(endpoint.is_empty());
}

#[test]
fn a_handshake_that_goes_nowhere_ends() {
    let settings = QuicSettings { handshake_timeout: Duration::from_secs(2), ..QuicSettings::default() };
    let mut endpoint = endpoint(&settings);
    let Received::Connection(key) = receive(&mut endpoint, &first_datagrams(1)[0]) else {
        panic!("not accepted");
    };
    let connection = endpoint.get_mut(key).unwrap();
    let at = connection.next_deadline().unwrap();
    assert!(at <= Instant::now() + Duration::from_secs(2));
    connection.handle_deadline(Instant::now() + Duration::from_secs(3));
    assert!(connection.is_closing());
    assert!(connection.next_event().is_none());
}

#[test]
fn a_close_before_the_handshake_is_done_ends_in_a_few_packets() {
    let mut endpoint = endpoint(&QuicSettings::default());
    let Received::Connection(key) = receive(&mut endpoint, &first_datagrams(1)[0]) else {
        panic!("not accepted");
    };
    let connection = endpoint.get_mut(key).unwrap();
    connection.close(super::super::code::NO_ERROR, b"");
    let mut out = vec![0; 65_536];
    let trains = (0..100).take_while(|_| connection.transmit(&mut out, Instant::now()).is_some()).count();
    assert!(trains < 5, "{trains} trains");
}

fn get(path: &str) -> [(&str, &str); 4] {
    [(":method", "GET"), (":scheme", "https"), (":authority", "example.test"), (":path", path)]
}

#[test]
fn a_drain_serves_what_is_on_its_way_and_rejects_what_comes_later() {
    let mut world = World::ready();
    let open = world.client.get("/hold");
    world.run(|world| world.origin.tasks.contains_key(&open));
    world.connection().goaway();
    world.run(|world| world.client.goaways.len() == 1);
    assert_eq!(world.client.goaways[0], (1 << 62) - 4);
    // Sent before the client could know the final number: still served.
    let late = open + 4;
    world.client.raw_request(late, &get("/bytes/10"), true);
    world.run(|world| world.client.goaways.len() == 2);
    assert_eq!(world.client.goaways[1], late + 4);
    assert!(world.client.answers[&late].finished);
    assert!(!world.connection().is_drained());
    // A client that does not listen.
    let deaf = late + 4;
    world.client.raw_request(deaf, &get("/bytes/10"), true);
    world.run(|world| world.client.answers.get(&deaf).is_some_and(Answer::is_over));
    assert_eq!(world.client.answers[&deaf].reset, Some(code::REQUEST_REJECTED));
    world.with(|origin, connection| origin.answer(connection, open, 1000, true));
    world.run(|world| world.client.answers.get(&open).is_some_and(|answer| answer.finished));
    world.run(|world| world.connection().is_drained());
    world.connection().close(code::NO_ERROR, b"");
    world.settle();
    let error = world.client.quic.peer_error().unwrap();
    assert!(error.is_app && error.error_code == code::NO_ERROR);
    let cause = world.connection().close_cause().unwrap();
    assert_eq!(cause, CloseCause { by: Closer::Us, application: true, code: code::NO_ERROR });
}

#[test]
fn a_client_that_leaves_ends_every_stream_in_both_directions() {
    let mut world = World::ready();
    let get = world.client.get("/hold");
    let post = world.client.request(&Client::head("POST", "/hold", &[]), false);
    world.run(|world| world.origin.tasks.len() == 2);
    world.client.quic.close(true, 0x100, b"bye").unwrap();
    world.settle();
    assert!(world.connection().is_closing());
    assert_eq!(world.origin.tasks[&get].reset, None);
    assert!(world.origin.tasks[&get].stopped.is_some());
    assert!(world.origin.tasks[&post].reset.is_some());
    assert!(world.origin.tasks[&post].stopped.is_some());
    assert_eq!(world.connection().streams_open(), 0);
    let key = world.key.unwrap();
    world.endpoint.remove(key);
    let cause = CloseCause { by: Closer::Client, application: true, code: 0x100 };
    assert_eq!(world.endpoint.counters().closes(), [(cause, 1)]);
}

#[test]
fn a_client_that_moves_is_believed_when_it_proved_it() {
    let mut world = World::ready();
    let elsewhere = "127.0.0.1:6666".parse().unwrap();
    let spare = quiche::ConnectionId::from_ref(&[0x5a; 16]);
    world.client.quic.new_scid(&spare, 1, false).unwrap();
    world.settle();
    world.client.quic.probe_path(elsewhere, server_address()).unwrap();
    world.run(|world| world.client.quic.is_path_validated(elsewhere, server_address()) == Ok(true));
    assert_eq!(world.connection().client(), client_address());
    world.client.quic.migrate(elsewhere, server_address()).unwrap();
    let stream = world.client.get("/bytes/100000");
    world.run(|world| world.client.answers.get(&stream).is_some_and(|answer| answer.finished));
    assert_eq!(world.connection().client(), elsewhere);
    assert_eq!(world.endpoint.counters().migrations.get(), 1);
}

#[test]
fn trains_carry_many_packets_of_one_size() {
    let mut world = World::ready();
    let stream = world.client.get("/bytes/2000000");
    world.run(|world| world.client.answers.get(&stream).is_some_and(|answer| answer.finished));
    // Sizes within a train are checked for every train of every test.
    let longest = world.trains.iter().map(|train| train.packets).max();
    assert_eq!(longest, Some(QuicSettings::default().burst_packets));
    let packets = world.trains.iter().map(|train| train.packets).sum::<usize>();
    assert!(packets > 1300 && world.trains.len() < packets / 5, "{} trains", world.trains.len());
}

#[test]
fn small_answers_of_many_sizes_keep_every_train_uniform() {
    let mut world = World::ready();
    let streams =
        (0..100).map(|index| world.client.get(&format!("/bytes/{}", 900 + index * 7 % 400))).collect::<Vec<_>>();
    world.run(|world| {
        streams
            .iter()
            .all(|stream| world.client.answers.get(stream).is_some_and(|answer| answer.finished && answer.intact))
    });
    assert!(world.endpoint.counters().packets_aside.get() > 0);
}
