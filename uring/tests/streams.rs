//! Stream sockets on a real ring.

mod support;

use spooky_uring::*;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use support::*;

/// Sends `total` patterned bytes near → far in pieces, and checks every byte.
fn transfer(host: &mut Host, near: StreamId, far: StreamId, total: usize, piece: usize) {
    host.ring.resume(far);
    let (mut queued, mut received) = (0, 0);
    while received < total {
        while queued < total && host.ring.queued(near) < 4 * piece {
            let len = piece.min(total - queued);
            host.ring.send(near, Chunk::from_vec(pattern(queued, len)));
            queued += len;
        }
        for event in host.turn() {
            match event {
                Event::Received { stream, lease, token } => {
                    assert_eq!((stream, token), (far, Token(2)));
                    for (at, byte) in (received..).zip(lease.iter()) {
                        assert_eq!(*byte, byte_at(at), "at {at}");
                    }
                    received += lease.len();
                }
                Event::Sent { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((received, host.ring.queued(near)), (total, 0));
}

#[test]
fn tcp_carries_bytes_and_ends() {
    each_ring(&small(), |host| {
        let (near, far) = host.tcp_pair();
        transfer(host, near, far, 3 << 20, 100_000);
        host.ring.send(near, Chunk::copy_from(b"last"));
        host.ring.shutdown(near);
        let mut last = Vec::new();
        host.until(|_, event| match event {
            Event::Received { lease, .. } => {
                last.extend_from_slice(&lease);
                None
            }
            Event::Ended { stream, end, .. } => {
                assert_eq!((stream, end), (far, End::Fin));
                Some(())
            }
            _ => None,
        });
        assert_eq!(last, b"last");
        transfer(host, far, near, 0, 1);
        host.ring.close(near);
        host.ring.close(far);
        host.poll();
    });
}

#[test]
fn unix_sockets_connect_by_path() {
    each_ring(&small(), |host| {
        let path = std::env::temp_dir().join(format!("uring-streams-{}", std::process::id()));
        let listener = Listener::unix(&path, 16).unwrap();
        assert_eq!(listener.local_address(), None);
        host.ring.listen(listener, Token(9));
        let to = StreamAddress::Unix(path.clone().into());
        let near = host.ring.connect(&to, Token(1)).unwrap();
        let far = host.until(|_, event| match event {
            Event::Accepted { stream, peer, .. } => {
                assert_eq!(peer, None);
                Some(stream)
            }
            _ => None,
        });
        host.ring.set_token(far, Token(2));
        transfer(host, near, far, 1 << 20, 65_536);
        std::fs::remove_file(&path).unwrap();
        let gone = host.ring.connect(&to, Token(3)).unwrap();
        let result = host.until(|_, event| match event {
            Event::Connected { stream, result, .. } if stream == gone => Some(result),
            _ => None,
        });
        assert_eq!(result, Err(libc::ENOENT));
    });
}

#[test]
fn refused_connections_say_so() {
    each_ring(&small(), |host| {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = StreamAddress::Tcp(free.local_addr().unwrap());
        drop(free);
        let stream = host.ring.connect(&to, Token(5)).unwrap();
        let result = host.until(|_, event| match event {
            Event::Connected { token, result, .. } => {
                assert_eq!(token, Token(5));
                Some(result)
            }
            _ => None,
        });
        assert_eq!(result, Err(libc::ECONNREFUSED));
        // It is closed already: nothing it is asked has an effect.
        host.ring.send(stream, Chunk::copy_from(b"x"));
        host.ring.resume(stream);
        host.ring.close(stream);
        assert_eq!(host.ring.queued(stream), 0);
        let long = StreamAddress::Unix(std::path::Path::new(&"x".repeat(200)).into());
        let stream = host.ring.connect(&long, Token(6)).unwrap();
        let result = host.until(|_, event| match event {
            Event::Connected { stream: s, result, .. } if s == stream => Some(result),
            _ => None,
        });
        assert_eq!(result, Err(libc::EINVAL));
    });
}

#[test]
fn a_full_table_takes_no_more() {
    let config = RingConfig { streams: 2, ..small() };
    each_ring(&config, |host| {
        let (near, _far) = host.pair();
        let (third, _) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(host.ring.adopt_stream(third.into(), Token(3)), None);
        let to = StreamAddress::Unix(std::path::Path::new("/nowhere").into());
        assert_eq!(host.ring.connect(&to, Token(3)), None);
        assert_eq!(host.ring.stats().connects_refused, 1);
        host.ring.close(near);
        while host.ring.connect(&to, Token(3)).is_none() {
            host.turn();
        }
    });
}

#[test]
fn connections_beyond_the_table_are_closed_at_once() {
    let config = RingConfig { streams: 1, ..small() };
    each_ring(&config, |host| {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap(), 16, false).unwrap();
        let to = listener.local_address().unwrap();
        host.ring.listen(listener, Token(9));
        let first = TcpStream::connect(to).unwrap();
        let mut second = TcpStream::connect(to).unwrap();
        while host.ring.stats().accepts_refused == 0 {
            host.turn();
        }
        assert_eq!(host.ring.stats().accepts, 1);
        assert_eq!(second.read(&mut [0; 1]).unwrap(), 0);
        drop(first);
    });
}

#[test]
fn a_crowd_of_connections_is_told_over_several_turns() {
    const CROWD: usize = 1000;
    let config = RingConfig { streams: 2000, ..small() };
    each_ring(&config, |host| {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap(), 2048, false).unwrap();
        let to = listener.local_address().unwrap();
        let clients: Vec<_> = (0..CROWD).map(|_| TcpStream::connect(to).unwrap()).collect();
        let id = host.ring.listen(listener, Token(9));
        let (mut told, mut most) = (0, 0);
        while told < CROWD {
            let accepted = host.poll().filter(|event| matches!(event, Event::Accepted { .. })).count();
            most = most.max(accepted);
            told += accepted;
        }
        assert!(most == 64 && host.ring.stats().accepts_rested > 0, "{most}");
        // It goes on by itself.
        let _late = TcpStream::connect(to).unwrap();
        while !host.poll().any(|event| matches!(event, Event::Accepted { .. })) {}
        drop(clients);
        host.ring.stop_listening(id);
    });
}

/// Twice what a turn tells: the last turn that had something to tell ends with nothing left, and accepting still rests.
#[test]
fn accepting_goes_on_when_a_crowd_ends_with_a_turn() {
    for crowd in [64, 128, 192, 256] {
        each_ring(&RingConfig { streams: 2000, ..small() }, |host| {
            let listener = Listener::tcp("127.0.0.1:0".parse().unwrap(), 2048, false).unwrap();
            let to = listener.local_address().unwrap();
            let clients: Vec<_> = (0..crowd).map(|_| TcpStream::connect(to).unwrap()).collect();
            host.ring.listen(listener, Token(9));
            let mut told = 0;
            while told < crowd {
                told += host.turn().filter(|event| matches!(event, Event::Accepted { .. })).count();
            }
            // Nothing else wakes the ring.
            let _late = TcpStream::connect(to).unwrap();
            host.until(|_, event| matches!(event, Event::Accepted { .. }).then_some(()));
            drop(clients);
        });
    }
}

#[test]
fn many_small_receives_find_a_buffer_each() {
    let config = RingConfig { stream_receive: PoolConfig { count: 48, size: 64 << 10, posted: 4 }, ..small() };
    each_ring(&config, |host| {
        let pairs: Vec<_> = (0..15).map(|_| host.pair()).collect();
        pairs.iter().for_each(|(_, far)| host.ring.resume(*far));
        let mut exhausted = Vec::new();
        for _ in 0..20 {
            let before = host.ring.stats().stream_buffers_exhausted;
            pairs.iter().for_each(|(near, _)| host.ring.send(*near, Chunk::from_vec(vec![1; 100])));
            let mut received = 0;
            while received < 100 * pairs.len() {
                received += host.poll().map(|event| received_by(&event)).sum::<usize>();
            }
            exhausted.push(host.ring.stats().stream_buffers_exhausted - before);
        }
        assert!(exhausted[0] > 0 && exhausted[19] == 0, "{exhausted:?}");
        // One socket that brings much does not get as many.
        let (near, far) = pairs[0];
        host.ring.send(near, Chunk::from_vec(vec![1; 8 << 20]));
        let (mut received, mut turns) = (0, Vec::new());
        while received < 8 << 20 {
            turns.push(host.poll().map(|event| received_by(&event)).sum::<usize>());
            received += turns[turns.len() - 1];
        }
        turns.drain(..turns.len() / 2);
        assert!(turns.iter().all(|bytes| *bytes <= 8 * (64 << 10)), "{turns:?}");
        host.ring.close(far);
    });
}

fn received_by(event: &Event) -> usize {
    match event {
        Event::Received { lease, .. } => lease.len(),
        _ => 0,
    }
}

#[test]
fn exhausted_buffers_lose_nothing() {
    let config = RingConfig { stream_receive: PoolConfig { count: 4, size: 4096, posted: 2 }, ..small() };
    each_ring(&config, |host| {
        let (near, far) = host.pair();
        let total = 40 * 4096;
        host.ring.send(near, Chunk::from_vec(pattern(0, total)));
        host.ring.resume(far);
        let (mut received, mut held) = (0, Vec::new());
        while received < total {
            // Everything is held until the pool is dry, then given back at once.
            let mut quiet = true;
            for event in host.poll() {
                if let Event::Received { lease, .. } = event {
                    for (at, byte) in (received..).zip(lease.iter()) {
                        assert_eq!(*byte, byte_at(at));
                    }
                    received += lease.len();
                    held.push(lease.into_chunk());
                    quiet = false;
                }
            }
            let pressure = host.ring.pressure();
            assert_eq!(pressure.total, 4);
            assert_eq!(pressure.free, 4 - held.len());
            if quiet {
                held.clear();
            }
        }
        assert!(host.ring.stats().stream_buffers_exhausted > 0);
    });
}

#[test]
fn many_starved_streams_all_go_on() {
    let config = RingConfig { stream_receive: PoolConfig { count: 3, size: 1024, posted: 1 }, ..small() };
    each_ring(&config, |host| {
        let pairs: Vec<_> = (0..50).map(|_| host.pair()).collect();
        for (near, far) in &pairs {
            host.ring.resume(*far);
            host.ring.send(*near, Chunk::from_vec(pattern(0, 5000)));
        }
        let mut received = std::collections::HashMap::new();
        let mut complete = 0;
        host.until(|_, event| {
            if let Event::Received { stream, lease, .. } = event {
                let at = received.entry(stream).or_insert(0_usize);
                assert_eq!(*lease, pattern(*at, lease.len())[..]);
                *at += lease.len();
                complete += usize::from(*at == 5000);
            }
            (complete == 50).then_some(())
        });
    });
}

#[test]
fn partial_sends_are_continued() {
    each_ring(&small(), |host| {
        let (near, mut far) = {
            let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
            (host.ring.adopt_stream(near.into(), Token(1)).unwrap(), far)
        };
        let total = 9 << 20;
        for at in (0..total).step_by(90_000) {
            let len = 90_000.min(total - at);
            host.ring.send(near, Chunk::from_vec(pattern(at, len)));
        }
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            far.read_to_end(&mut bytes).unwrap();
            bytes
        });
        host.ring.shutdown(near);
        let mut low = Vec::new();
        host.until(|_, event| match event {
            Event::Sent { queued, .. } => {
                low.push(queued);
                (queued == 0).then_some(())
            }
            other => panic!("{other:?}"),
        });
        host.poll();
        assert_eq!(reader.join().unwrap(), pattern(0, total));
        assert!(low.iter().all(|queued| *queued <= 64 << 10), "{low:?}");
        let stats = host.ring.stats();
        assert!(stats.stream_sends > 1 && stats.partial_sends > 0, "{stats:?}");
    });
}

#[test]
fn sends_of_one_turn_are_one_operation() {
    each_ring(&small(), |host| {
        let (near, far) = host.pair();
        host.ring.resume(far);
        for _ in 0..10 {
            host.ring.send(near, Chunk::copy_from(b"0123456789"));
        }
        assert_eq!(host.ring.queued(near), 100);
        let len = host.until(|_, event| match event {
            Event::Received { lease, .. } => Some(lease.len()),
            _ => None,
        });
        assert_eq!((len, host.ring.stats().stream_sends), (100, 1));
    });
}

/// Pauses and resumes at random while bytes flow: none is lost, none comes twice.
#[test]
fn pause_and_resume_storms_keep_every_byte() {
    for seed in 1..=4 {
        let config = RingConfig { stream_receive: PoolConfig { count: 6, size: 3000, posted: 2 }, ..small() };
        each_ring(&config, |host| {
            let mut random = Random(seed * 0x9e37_79b9);
            let (near, far) = host.tcp_pair();
            let total = 2 << 20;
            let (mut queued, mut received, mut held) = (0, 0, Vec::new());
            while received < total {
                if queued < total && host.ring.queued(near) < 50_000 {
                    let len = (1 + random.below(20_000) as usize).min(total - queued);
                    host.ring.send(near, Chunk::from_vec(pattern(queued, len)));
                    queued += len;
                }
                for _ in 0..random.below(4) {
                    match random.below(2) {
                        0 => host.ring.pause(far),
                        _ => host.ring.resume(far),
                    }
                }
                if random.below(3) == 0 {
                    held.clear();
                }
                for event in host.poll() {
                    match event {
                        Event::Received { lease, .. } => {
                            assert_eq!(*lease, pattern(received, lease.len())[..], "seed {seed}");
                            received += lease.len();
                            held.push(lease.into_chunk());
                        }
                        Event::Sent { .. } => {}
                        other => panic!("seed {seed}: {other:?}"),
                    }
                }
            }
        });
    }
}

#[test]
fn a_paused_stream_is_silent_until_resumed() {
    each_ring(&small(), |host| {
        let (near, far) = host.pair();
        host.ring.resume(far);
        host.ring.send(near, Chunk::copy_from(b"one"));
        host.until(|_, event| matches!(event, Event::Received { .. }).then_some(()));
        host.ring.pause(far);
        // Two turns: the cancellation, and its report.
        host.poll();
        host.poll();
        host.ring.send(near, Chunk::copy_from(b"two"));
        host.until(|_, event| matches!(event, Event::Sent { .. }).then_some(()));
        assert!(host.poll().next().is_none());
        host.ring.resume(far);
        let bytes = host.until(|_, event| match event {
            Event::Received { lease, .. } => Some(lease.to_vec()),
            _ => None,
        });
        assert_eq!(bytes, b"two");
    });
}

#[test]
fn closing_in_every_state_frees_the_slot_and_tells_nothing() {
    let config = RingConfig { streams: 8, stream_receive: PoolConfig { count: 2, size: 1000, posted: 1 }, ..small() };
    each_ring(&config, |host| {
        for round in 0..200_u32 {
            let (near, far) = host.pair();
            host.ring.resume(far);
            host.ring.send(near, Chunk::from_vec(vec![1; 1_000_000]));
            for _ in 0..round % 4 {
                host.poll();
            }
            if round % 3 == 0 {
                host.ring.pause(far);
            }
            match round % 2 {
                0 => host.ring.close(near),
                _ => host.ring.abort(near),
            }
            host.ring.close(far);
            let before = host.ring.stats().late_completions;
            for _ in 0..3 {
                assert!(host.poll().all(|event| !matches!(
                    event,
                    Event::Received { stream, .. } | Event::Sent { stream, .. } if stream == near || stream == far
                )));
            }
            assert!(round % 4 == 0 || host.ring.stats().late_completions >= before);
        }
        assert!(host.ring.stats().late_completions > 0);
        assert_eq!(host.ring.pressure().free, 2, "no buffer was lost");
        // All slots are free again.
        let pairs: Vec<_> = (0..4).map(|_| host.pair()).collect();
        assert_eq!(pairs.len(), 4);
    });
}

#[test]
fn closing_while_connecting_lets_go() {
    let config = RingConfig { streams: 4, ..small() };
    each_ring(&config, |host| {
        // A listener whose queue is full answers no SYN: the connect stays under way.
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap(), 0, false).unwrap();
        let to = StreamAddress::Tcp(listener.local_address().unwrap());
        let mut filled = Vec::new();
        for _ in 0..3 {
            filled.push(host.ring.connect(&to, Token(1)).unwrap());
            host.poll();
        }
        for _ in 0..50 {
            let late = loop {
                if let Some(late) = host.ring.connect(&to, Token(2)) {
                    break late;
                }
                host.turn();
            };
            host.ring.close(late);
        }
        drop(listener);
    });
}

#[test]
fn abort_resets_and_close_finishes() {
    each_ring(&small(), |host| {
        for (abort, expected) in [(true, Some(libc::ECONNRESET)), (false, None)] {
            for connected_side in [true, false] {
                let (near, far) = host.tcp_pair();
                let (ours, other) = match connected_side {
                    true => (near, far),
                    false => (far, near),
                };
                host.ring.resume(other);
                // Our receive runs too, so that it has to be cancelled.
                host.ring.resume(ours);
                host.poll();
                match abort {
                    true => host.ring.abort(ours),
                    false => host.ring.close(ours),
                }
                let end = host.until(|_, event| match event {
                    Event::Ended { stream, end, .. } => {
                        assert_eq!(stream, other);
                        Some(end)
                    }
                    _ => None,
                });
                assert_eq!(end, expected.map_or(End::Fin, End::Error));
                host.ring.close(other);
            }
        }
    });
}

#[test]
fn sending_to_a_closed_peer_fails_once() {
    each_ring(&small(), |host| {
        let (near, far) = host.tcp_pair();
        host.ring.abort(far);
        host.poll();
        host.ring.send(near, Chunk::copy_from(b"into the void"));
        let error = host.until(|ring, event| match event {
            Event::SendFailed { stream, error, .. } => {
                assert_eq!((stream, ring.queued(stream)), (near, 0));
                Some(error)
            }
            Event::Sent { .. } => {
                ring.send(near, Chunk::copy_from(b"again"));
                None
            }
            _ => None,
        });
        assert!([libc::EPIPE, libc::ECONNRESET].contains(&error), "{error}");
        host.ring.send(near, Chunk::copy_from(b"more"));
        assert_eq!(host.ring.queued(near), 0);
        assert!(host.poll().next().is_none());
    });
}

#[test]
fn keys_of_an_earlier_use_find_nothing() {
    each_ring(&small(), |host| {
        let (near, far) = host.pair();
        host.ring.close(near);
        host.ring.close(far);
        for _ in 0..3 {
            host.poll();
        }
        let (again, _) = host.pair();
        assert_ne!(again.generation, near.generation.max(far.generation));
        host.ring.close(near);
        host.ring.close(far);
        host.ring.send(again, Chunk::copy_from(b"alive"));
        assert_eq!(host.ring.queued(again), 5);
        assert_eq!(host.ring.queued(near) + host.ring.queued(far), 0);
    });
}

#[test]
fn a_dropped_ring_frees_its_ports_at_once() {
    for features in feature_sets() {
        for _ in 0..20 {
            let mut ring = Ring::new(&small(), &features).unwrap();
            let options = UdpOptions { reuse_port: false, ..UdpOptions::new("127.0.0.1:0".parse().unwrap()) };
            let socket = UdpSocket::bind(&options).unwrap();
            let udp = socket.local_address();
            ring.add_udp(socket, Token(1));
            let listener = Listener::tcp("127.0.0.1:0".parse().unwrap(), 4, false).unwrap();
            let tcp = listener.local_address().unwrap();
            ring.listen(listener, Token(2));
            let mut client = TcpStream::connect(tcp).unwrap();
            client.write_all(b"hello").unwrap();
            let mut events = Vec::new();
            let stream = loop {
                ring.wait(None, &mut events).unwrap();
                let accepted = events.drain(..).find_map(|event| match event {
                    Event::Accepted { stream, .. } => Some(stream),
                    _ => None,
                });
                if let Some(stream) = accepted {
                    break stream;
                }
            };
            ring.resume(stream);
            ring.send(stream, Chunk::from_vec(vec![0; 32 << 20]));
            ring.wait(None, &mut events).unwrap();
            // Leases outlive the ring they came from.
            let lease = loop {
                let lease = events.drain(..).find_map(|event| match event {
                    Event::Received { lease, .. } => Some(lease),
                    _ => None,
                });
                if let Some(lease) = lease {
                    break lease;
                }
                ring.wait(None, &mut events).unwrap();
            };
            drop(ring);
            assert_eq!(&*lease.into_chunk(), b"hello");
            UdpSocket::bind(&UdpOptions { address: udp, ..options }).expect("the UDP port is free");
            Listener::tcp(tcp, 4, false).expect("the TCP port is free");
        }
    }
}
