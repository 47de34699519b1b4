//! What a kernel rarely says: completions that are late, wrong, or that this machine's devices never give.

use super::*;
use crate::chunk::Chunk;
use crate::features::FeatureMask;
use crate::socket::{UdpOptions, UdpSocket};
use std::os::unix::net::UnixStream;

fn ring() -> Ring {
    let features = Features::probe(FeatureMask::FLOOR).unwrap_or_else(|error| panic!("{error}"));
    let config = RingConfig { entries: 32, streams: 8, ..RingConfig::default() };
    Ring::new(&config, &features).unwrap_or_else(|error| panic!("{error}"))
}

/// One turn in which `alter` may rewrite what the kernel said.
fn turn(ring: &mut Ring, mut alter: impl FnMut(UserData, &mut Completion)) -> Vec<Event> {
    ring.prepare();
    ring.queue.enter(Some(Duration::from_secs(10)), false).unwrap();
    let (mut batch, mut events) = (Vec::new(), Vec::new());
    ring.queue.reap(&mut batch);
    for mut completion in batch {
        let data = UserData::from_bits(completion.user_data).unwrap();
        alter(data, &mut completion);
        ring.dispatch(completion, &mut events);
    }
    events
}

fn pair(ring: &mut Ring) -> (StreamId, StreamId) {
    let (near, far) = UnixStream::pair().unwrap();
    let near = ring.adopt_stream(near.into(), Token(1)).unwrap();
    (near, ring.adopt_stream(far.into(), Token(2)).unwrap())
}

#[test]
fn completions_of_another_use_are_dropped_and_counted() {
    let mut ring = ring();
    let (near, _far) = pair(&mut ring);
    let mut events = Vec::new();
    let kinds = [
        Kind::StreamReceive,
        Kind::StreamSend,
        Kind::StreamShutdown,
        Kind::StreamClose,
        Kind::StreamCancel,
        Kind::Socket,
        Kind::SocketOption,
        Kind::Connect,
        Kind::UdpSend,
    ];
    for (count, kind) in (1..).zip(kinds) {
        for (slot, generation) in [(near.slot, near.generation + 1), (7777, 0)] {
            let completion =
                Completion { user_data: UserData::new(kind, generation, slot).bits(), result: 100, flags: 0 };
            ring.dispatch(completion, &mut events);
        }
        assert_eq!(ring.stats().late_completions, 2 * count, "{kind:?}");
    }
    let nonsense = Completion { user_data: u64::MAX, result: 0, flags: 0 };
    ring.dispatch(nonsense, &mut events);
    assert!(events.is_empty());
    ring.send(near, Chunk::from_static(b"the stream is untouched"));
    assert_eq!(ring.queued(near), 23);
}

#[test]
fn an_egress_without_offload_is_remembered_once() {
    let mut ring = ring();
    let options = UdpOptions::new("127.0.0.1:0".parse().unwrap());
    let socket = UdpSocket::bind(&options).unwrap();
    let to = socket.local_address();
    ring.add_udp(socket, Token(1));
    let sender = UdpSocket::bind(&options).unwrap();
    let sender = ring.add_udp(sender, Token(2));
    for round in 0..3 {
        let mut slot = ring.udp_slot().unwrap();
        slot[..5000].fill(round);
        let transmit = Transmit { len: 5000, segment: 1200, to, from: None };
        ring.udp_send(sender, slot, transmit);
        let mut singles = 0;
        while singles < 5 {
            let events = turn(&mut ring, |data, completion| {
                if data.kind == Kind::UdpSend && completion.result > 1200 {
                    completion.result = -libc::EIO;
                }
            });
            for event in events {
                match event {
                    // What the altered send carried arrives too, as one.
                    Event::Datagrams { lease, segment, .. } if lease.len() == 5000 => {
                        assert_eq!((round, segment), (0, 1200));
                    }
                    Event::Datagrams { lease, segment, .. } => {
                        assert!(lease.iter().all(|byte| *byte == round));
                        singles += lease.len().div_ceil(segment.into());
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(!ring.udp_gso(sender));
        assert_eq!(ring.stats().gso_fallbacks, 1);
    }
    // One offloaded send, and three times five single ones.
    assert_eq!(ring.stats().udp_sends, 16);
}

#[test]
fn a_short_send_goes_on_where_it_stopped() {
    let mut ring = ring();
    let (near, mut far) = {
        let (near, far) = UnixStream::pair().unwrap();
        (ring.adopt_stream(near.into(), Token(1)).unwrap(), far)
    };
    for chunk in [b"0123".as_slice(), b"4567", b"89"] {
        ring.send(near, Chunk::copy_from(chunk));
    }
    // The kernel took all ten bytes; it is made to say six, so the last four go twice.
    let mut said = [6, 3, 1].into_iter();
    let mut queued = Vec::new();
    while queued.last() != Some(&0) {
        let events = turn(&mut ring, |_, completion| {
            completion.result = said.next().unwrap();
        });
        for event in events {
            match event {
                Event::Sent { queued: left, .. } => queued.push(left),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(queued, [4, 1, 0]);
    assert_eq!(ring.stats().partial_sends, 2);
    let mut bytes = [0; 15];
    std::io::Read::read_exact(&mut far, &mut bytes).unwrap();
    assert_eq!(&bytes, b"012345678967899");
}

/// A receive may end with bytes and without MORE; the stream goes on by itself.
#[test]
fn a_receive_that_ends_with_bytes_is_armed_again() {
    let mut ring = ring();
    let (near, far) = pair(&mut ring);
    ring.resume(far);
    for round in 0..3 {
        ring.send(near, Chunk::copy_from(&[round]));
        let mut received = false;
        while !received {
            for event in turn(&mut ring, |_, _| {}) {
                if let Event::Received { lease, .. } = event {
                    assert_eq!(&*lease, [round]);
                    received = true;
                }
            }
        }
        // End the receive under it, as a kernel does that runs out of room for completions.
        let target = UserData::new(Kind::StreamReceive, far.generation, far.slot);
        ring.queue.cancel(target, Queue::IGNORED);
    }
    assert!(ring.stats().stream_receives == 3);
}

#[test]
fn busy_turns_wait_for_a_batch_and_quiet_ones_do_not() {
    let features = Features::probe(FeatureMask::ALL).unwrap_or_else(|error| panic!("{error}"));
    let config = RingConfig { streams: 64, ..RingConfig::default() };
    let mut ring = Ring::new(&config, &features).unwrap_or_else(|error| panic!("{error}"));
    let pairs: Vec<_> = (0..20).map(|_| pair(&mut ring)).collect();
    for (near, far) in &pairs {
        ring.resume(*far);
        ring.send(*near, Chunk::from_static(b"x"));
    }
    let mut events = Vec::new();
    ring.wait(None, &mut events).unwrap();
    assert_eq!(ring.stats().batched_waits, 0);
    ring.send(pairs[0].0, Chunk::from_static(b"y"));
    ring.wait(None, &mut events).unwrap();
    assert_eq!(ring.stats().batched_waits, u64::from(features.min_wait));
    ring.send(pairs[0].0, Chunk::from_static(b"z"));
    ring.wait(None, &mut events).unwrap();
    assert_eq!(ring.stats().batched_waits, u64::from(features.min_wait));
}

#[test]
fn a_closed_sockets_number_is_used_again_and_not_before_its_last_completion() {
    let mut ring = ring();
    let bind = || UdpSocket::bind(&UdpOptions::new("127.0.0.1:0".parse().unwrap())).unwrap();
    let far = bind();
    let to = far.local_address();
    let mut numbers = Vec::new();
    for at in 0..50 {
        let id = ring.add_udp(bind(), Token(at));
        let mut slot = ring.udp_slot().unwrap();
        slot[..3].copy_from_slice(b"abc");
        ring.udp_send(id, slot, Transmit { len: 3, segment: 3, to, from: None });
        // Its train is not even submitted: the descriptor stays, and so does the number.
        ring.close_udp(id);
        ring.close_udp(id);
        let other = ring.add_udp(bind(), Token(1000 + at));
        assert_ne!(id, other, "something of it is on its way");
        ring.close_udp(other);
        // Armed, then closed.
        let armed = ring.add_udp(bind(), Token(2000 + at));
        turn(&mut ring, |_, _| {});
        ring.close_udp(armed);
        turn(&mut ring, |_, _| {});
        numbers.extend([id.0, other.0, armed.0]);
    }
    assert!(numbers.iter().all(|number| *number < 8), "{numbers:?}");
    let stats = ring.stats();
    assert_eq!((stats.udp_sends, stats.udp_send_errors), (50, 0), "every train went out of its own socket");
}
