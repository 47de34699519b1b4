//! Proofs of address, limits by address, stateless resets.

use super::support::*;
use crate::h3::cid::CID_LEN;
use crate::h3::{DropReason, Endpoint, EndpointKeys, QuicSettings, Received, Retry};
use crate::limits::quic::{RESETS_PER_SECOND, RETRY_TOKEN_LIFE};
use crate::limits::{AddressLimits, Rate};
use crate::telemetry::WallClock;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

const INVALID_TOKEN: u64 = 0x0b;
const CONNECTION_REFUSED: u64 = 0x02;

fn with_retry(retry: Retry) -> QuicSettings {
    QuicSettings { retry, ..QuicSettings::default() }
}

/// An endpoint of the tests' secret, on another worker or in another process.
fn elsewhere(settings: &QuicSettings, worker: u16, epoch: u16) -> Endpoint {
    let keys = EndpointKeys::derive(b"a secret of the tests");
    with_clock(Endpoint::new(settings, &contexts(), &keys, worker, epoch).unwrap())
}

fn with_clock(mut endpoint: Endpoint) -> Endpoint {
    endpoint.set_clock(WallClock::new(Instant::now(), SystemTime::now()));
    endpoint
}

fn take(endpoint: &mut Endpoint, received: Received) -> Vec<u8> {
    let Received::Reply { len } = received else {
        panic!("no answer: {received:?}");
    };
    let mut reply = vec![0; len];
    assert_eq!(endpoint.take_reply(&mut reply), len);
    reply
}

/// A client that has taken a Retry, and the first datagram that carries its token.
fn with_token(seed: u64) -> (Client, Vec<u8>) {
    // A process of its own: IDs are never drawn twice.
    let mut endpoint = elsewhere(&with_retry(Retry::Always), 3, seed as u16);
    let mut client = Client::new(seed, &ClientSettings::default());
    let first = client.flight().remove(0);
    let received = receive(&mut endpoint, &first);
    let retry = take(&mut endpoint, received);
    assert!(retry.len() < first.len() / 3);
    assert!(endpoint.is_empty() && endpoint.half_open() == 0, "something is kept of an unproved address");
    client.receive(&retry).unwrap();
    let second = client.flight().remove(0);
    (client, second)
}

/// The transport code by which the server's answer closed a client.
fn closed_by(client: &mut Client, answer: &[u8]) -> Option<u64> {
    let _ = client.receive(answer);
    client.quic.peer_error().filter(|error| !error.is_app).map(|error| error.error_code)
}

#[test]
fn a_client_comes_back_with_the_token_and_is_served() {
    let settings = with_retry(Retry::Always);
    let mut world = World::new(&settings, &ClientSettings::default());
    world.handshake();
    let stream = world.client.get("/bytes/20000");
    world.run(|world| world.client.answers.get(&stream).is_some_and(|answer| answer.finished && answer.intact));
    let counters = world.endpoint.counters();
    assert_eq!((counters.retries.get(), counters.tokens_valid.get(), counters.accepted.get()), (1, 1, 1));
}

#[test]
fn a_token_is_good_on_every_worker_and_process_of_the_secret() {
    for (worker, epoch) in [(3, 9), (4, 9), (3, 8)] {
        for retry in [Retry::Always, Retry::Auto, Retry::Never] {
            let (_, datagram) = with_token(1);
            let mut other = elsewhere(&with_retry(retry), worker, epoch);
            assert!(matches!(receive(&mut other, &datagram), Received::Connection(_)), "{worker} {epoch} {retry:?}");
            // The same again finds its connection; the token opens no second one.
            assert!(matches!(receive(&mut other, &datagram), Received::Connection(_)));
            assert_eq!((other.len(), other.counters().tokens_valid.get()), (1, 1));
        }
    }
}

#[test]
fn a_token_from_another_address_is_refused_at_once() {
    for address in ["127.0.0.1:5556", "127.0.0.2:5555", "[::1]:5555"] {
        let (mut client, mut datagram) = with_token(1);
        let mut endpoint = elsewhere(&with_retry(Retry::Auto), 3, 9);
        let from: SocketAddr = address.parse().unwrap();
        let received = endpoint.receive(&mut datagram, from, server_address(), Instant::now());
        let answer = take(&mut endpoint, received);
        assert_eq!(closed_by(&mut client, &answer), Some(INVALID_TOKEN), "{address}");
        assert!(endpoint.is_empty());
        assert_eq!(endpoint.counters().tokens_other_address.get(), 1);
    }
}

#[test]
fn an_expired_token_is_refused_at_once() {
    let (mut client, datagram) = with_token(1);
    let mut endpoint = elsewhere(&with_retry(Retry::Auto), 3, 9);
    let later = SystemTime::now() + RETRY_TOKEN_LIFE + Duration::from_secs(1);
    endpoint.set_clock(WallClock::new(Instant::now(), later));
    let received = receive(&mut endpoint, &datagram);
    let answer = take(&mut endpoint, received);
    assert_eq!(closed_by(&mut client, &answer), Some(INVALID_TOKEN));
    assert!(endpoint.is_empty());
    assert_eq!(endpoint.counters().tokens_expired.get(), 1);
}

#[test]
fn an_altered_token_is_refused_at_once() {
    let (mut client, mut datagram) = with_token(1);
    // The date in the token: header, two IDs of 16 bytes, two bytes of length, two of layout and kind.
    let date = 1 + 4 + 2 * 17 + 2 + 2;
    datagram[date + 7] ^= 1;
    let mut endpoint = elsewhere(&with_retry(Retry::Auto), 3, 9);
    let received = receive(&mut endpoint, &datagram);
    let answer = take(&mut endpoint, received);
    assert_eq!(closed_by(&mut client, &answer), Some(INVALID_TOKEN));
    assert!(endpoint.is_empty());
    assert_eq!(endpoint.counters().tokens_altered.get(), 1);
    let (_, datagram) = with_token(2);
    let keys = EndpointKeys::derive(b"another secret");
    let mut stranger = with_clock(Endpoint::new(&with_retry(Retry::Auto), &contexts(), &keys, 3, 9).unwrap());
    assert!(matches!(receive(&mut stranger, &datagram), Received::Reply { .. }));
    assert_eq!(stranger.counters().tokens_altered.get(), 1);
}

#[test]
fn a_token_of_a_strangers_making_is_as_good_as_none() {
    let first = first_datagrams(1).remove(0);
    let token_at = 1 + 4 + 2 * 17;
    assert_eq!(first[token_at], 0, "an empty token");
    let mut datagram = first[..token_at].to_vec();
    datagram.push(40);
    datagram.extend_from_slice(&[3; 40]);
    datagram.extend_from_slice(&first[token_at + 1..]);
    let mut endpoint = endpoint(&with_retry(Retry::Always));
    assert!(matches!(receive(&mut endpoint, &datagram), Received::Reply { .. }));
    assert_eq!((endpoint.counters().tokens_unknown.get(), endpoint.counters().retries.get()), (1, 1));
    let cut = &mut datagram;
    cut[token_at] = 0x7f;
    cut[token_at + 1] = 0xff;
    let received = receive(&mut endpoint, &datagram);
    assert_eq!(received, Received::Dropped(DropReason::InitialInvalid), "a token longer than its packet");
}

#[test]
fn automatic_retries_begin_at_half_of_the_handshakes_and_leave_the_rest_to_proved_addresses() {
    let settings = QuicSettings { half_open: 16, ..QuicSettings::default() };
    let mut endpoint = endpoint(&settings);
    for seed in 1..=8 {
        assert!(matches!(receive(&mut endpoint, &first_datagrams(seed)[0]), Received::Connection(_)));
    }
    for seed in 9..=40 {
        assert!(matches!(receive(&mut endpoint, &first_datagrams(seed)[0]), Received::Reply { .. }), "{seed}");
    }
    assert_eq!((endpoint.half_open(), endpoint.counters().retries.get()), (8, 32));
    for seed in 9..=16 {
        let (_, datagram) = with_token(seed);
        assert!(matches!(receive(&mut endpoint, &datagram), Received::Connection(_)), "{seed}");
    }
    let (_, datagram) = with_token(17);
    assert_eq!(receive(&mut endpoint, &datagram), Received::Dropped(DropReason::HalfOpenLimit));
    // When handshakes are done or gone, nobody has to prove anything.
    for key in endpoint.keys().collect::<Vec<_>>() {
        endpoint.remove(key);
    }
    assert!(matches!(receive(&mut endpoint, &first_datagrams(18)[0]), Received::Connection(_)));
}

/// A client in the middle of a connection, and a packet of it.
fn orphan() -> (World, Vec<u8>) {
    let mut world = World::ready();
    world.recorded = Some(Vec::new());
    world.client.get("/bytes/10");
    world.settle();
    let packets = world.recorded.take().unwrap();
    let packet = packets.into_iter().max_by_key(Vec::len).unwrap();
    (world, packet)
}

#[test]
fn a_packet_of_a_connection_that_is_gone_gets_a_reset_that_ends_the_client() {
    // Gone from this process; and gone with the process before.
    for restarted in [false, true] {
        let (mut world, packet) = orphan();
        if restarted {
            world.endpoint = elsewhere(&QuicSettings::default(), 3, 8);
        } else {
            world.endpoint.remove(world.key.unwrap());
        }
        let received = receive(&mut world.endpoint, &packet);
        let reset = take(&mut world.endpoint, received);
        assert!(reset.len() < packet.len());
        assert_eq!(world.endpoint.counters().resets.get(), 1);
        assert!(!world.client.quic.is_draining());
        let _ = world.client.receive(&reset);
        assert!(world.client.quic.is_draining() || world.client.quic.is_closed(), "restarted: {restarted}");
        assert!(world.endpoint.is_empty());
    }
}

#[test]
fn without_the_secret_there_is_no_reset() {
    let (mut world, packet) = orphan();
    let keys = EndpointKeys::derive(b"another secret");
    let mut stranger = Endpoint::new(&QuicSettings::default(), &contexts(), &keys, 3, 9).unwrap();
    if let Received::Reply { len } = receive(&mut stranger, &packet) {
        // One ID in 256 reads as ours by chance; the token says otherwise.
        let mut reset = vec![0; len];
        stranger.take_reply(&mut reset);
        let _ = world.client.receive(&reset);
    }
    assert!(!world.client.quic.is_draining() && !world.client.quic.is_closed());
}

#[test]
fn another_workers_connection_is_not_reset() {
    let (_, packet) = orphan();
    let mut other = elsewhere(&QuicSettings::default(), 4, 9);
    assert_eq!(receive(&mut other, &packet), Received::Elsewhere { worker: 3 });
    assert_eq!(other.counters().resets.get(), 0);
}

#[test]
fn resets_are_never_answers_to_small_packets_nor_without_end() {
    let (mut world, packet) = orphan();
    world.endpoint.remove(world.key.unwrap());
    let gone = Received::Dropped(DropReason::NoConnection);
    for len in CID_LEN + 1..=21 {
        assert_eq!(receive(&mut world.endpoint, &packet[..len]), gone, "{len}");
    }
    assert_eq!(world.endpoint.counters().resets_too_small.get(), 21 - CID_LEN as u64);
    // A reset that is taken for a packet is answered with a smaller one, and so on: it ends.
    let mut question = packet.clone();
    let mut answers = 0;
    while let Received::Reply { .. } = {
        question[1..=CID_LEN].copy_from_slice(&packet[1..=CID_LEN]);
        receive(&mut world.endpoint, &question)
    } {
        let mut reply = vec![0; 1500];
        let len = world.endpoint.take_reply(&mut reply);
        assert!(len < question.len());
        question = reply[..len].to_vec();
        answers += 1;
    }
    assert!(answers > 0 && answers < 60, "{answers}");
    // A new second.
    let now = Instant::now() + Duration::from_secs(10);
    let before = world.endpoint.counters().resets.get();
    let mut last = gone;
    for _ in 0..=RESETS_PER_SECOND {
        last = world.endpoint.receive(&mut packet.clone(), client_address(), server_address(), now);
    }
    assert_eq!(last, gone, "more than the bound");
    let counters = world.endpoint.counters();
    assert_eq!(counters.resets.get() - before, u64::from(RESETS_PER_SECOND));
    assert_eq!(counters.resets_limited.get(), 1);
    let later = now + Duration::from_secs(1);
    let received = world.endpoint.receive(&mut packet.clone(), client_address(), server_address(), later);
    assert!(matches!(received, Received::Reply { .. }));
}

fn limited(connections: Option<u32>, rate: Option<Rate>) -> QuicSettings {
    QuicSettings { address_limits: AddressLimits { connections, rate }, ..QuicSettings::default() }
}

#[test]
fn an_address_has_so_many_connections_and_no_more() {
    let settings = limited(Some(1), None);
    let mut world = World::new(&settings, &ClientSettings::default());
    world.handshake();
    let mut second = Client::new(2, &ClientSettings::default());
    let first = second.flight().remove(0);
    let received = receive(&mut world.endpoint, &first);
    let answer = take(&mut world.endpoint, received);
    assert_eq!(closed_by(&mut second, &answer), Some(CONNECTION_REFUSED));
    assert_eq!(world.endpoint.counters().refused_address_connections.get(), 1);
    assert_eq!(world.endpoint.len(), 1);
    // Another address may; and this one again when its connection is gone.
    let other: SocketAddr = "127.0.0.9:5555".parse().unwrap();
    let received = world.endpoint.receive(&mut first.clone(), other, server_address(), Instant::now());
    assert!(matches!(received, Received::Connection(_)));
    world.endpoint.remove(world.key.unwrap());
    assert!(matches!(receive(&mut world.endpoint, &first_datagrams(3)[0]), Received::Connection(_)));
}

#[test]
fn handshakes_at_once_do_not_get_past_the_limit() {
    let settings = limited(Some(1), None);
    let mut world = World::new(&settings, &ClientSettings::default());
    // This one is in handshake when the other's is done.
    let mut slow = Client::new(2, &ClientSettings::default());
    let mut received = Vec::new();
    for datagram in slow.flight() {
        received.push(receive(&mut world.endpoint, &datagram));
    }
    let Some(&Received::Connection(slow_key)) = received.last() else {
        panic!("not accepted: {received:?}");
    };
    world.handshake();
    let mut slot = vec![0; 65_536];
    for _ in 0..10 {
        let connection = world.endpoint.get_mut(slow_key).unwrap();
        while let Some(train) = connection.transmit(&mut slot, Instant::now()) {
            for packet in slot[..train.len].chunks(usize::from(train.segment)) {
                let _ = slow.receive(packet);
            }
        }
        for datagram in slow.flight() {
            receive(&mut world.endpoint, &datagram);
        }
    }
    let error = slow.quic.peer_error().expect("it may stay");
    assert_eq!((error.is_app, error.error_code), (false, CONNECTION_REFUSED));
    let counters = world.endpoint.counters();
    assert_eq!((counters.refused_address_connections.get(), counters.established.get()), (1, 1));
}

#[test]
fn packets_with_the_address_of_another_take_nothing_from_it() {
    let settings = QuicSettings { half_open: 100, ..limited(Some(2), Some(Rate { per_second: 1, burst: 2 })) };
    let mut endpoint = endpoint(&settings);
    for seed in 1..=100 {
        receive(&mut endpoint, &first_datagrams(seed)[0]);
    }
    assert_eq!(endpoint.counters().refused_address_rate.get(), 0);
    assert_eq!(endpoint.counters().refused_address_connections.get(), 0);
    assert!(endpoint.counters().retries.get() > 0, "the flood has not led to Retry");
    // The address itself: it proves that it is there, and is served.
    let client = Client::new(1000, &ClientSettings::default());
    let mut world = World::over(endpoint, client, &settings);
    world.handshake();
}

#[test]
fn an_address_that_proves_itself_again_and_again_meets_the_rate() {
    let settings = QuicSettings { retry: Retry::Always, ..limited(None, Some(Rate { per_second: 1, burst: 3 })) };
    let mut endpoint = elsewhere(&settings, 3, 9);
    let now = Instant::now();
    for seed in 1..=3 {
        let (_, mut datagram) = with_token(seed);
        let received = endpoint.receive(&mut datagram, client_address(), server_address(), now);
        assert!(matches!(received, Received::Connection(_)), "{seed}");
    }
    let (mut client, mut datagram) = with_token(4);
    let received = endpoint.receive(&mut datagram, client_address(), server_address(), now);
    let answer = take(&mut endpoint, received);
    assert_eq!(closed_by(&mut client, &answer), Some(CONNECTION_REFUSED));
    assert_eq!(endpoint.counters().refused_address_rate.get(), 1);
    let (_, mut datagram) = with_token(5);
    let later = now + Duration::from_secs(1);
    let received = endpoint.receive(&mut datagram, client_address(), server_address(), later);
    assert!(matches!(received, Received::Connection(_)));
}
