//! UDP sockets on a real ring.

mod support;

use spooky_uring::*;
use std::net::SocketAddr;
use support::*;

fn bind(address: &str) -> UdpSocket {
    UdpSocket::bind(&UdpOptions::new(address.parse().unwrap())).unwrap()
}

/// Adds a socket; returns it with the address that others reach it by.
fn add(host: &mut Host, address: &str, token: u64) -> (UdpId, SocketAddr) {
    let id = host.ring.add_udp(bind(address), Token(token));
    (id, host.ring.udp_address(id).unwrap())
}

fn send(host: &mut Host, socket: UdpId, transmit: Transmit) {
    let mut slot = host.ring.udp_slot().expect("a free slot");
    assert_eq!(slot.len(), 65_536);
    let bytes = pattern(0, transmit.len);
    slot[..transmit.len].copy_from_slice(&bytes);
    host.ring.udp_send(socket, slot, transmit);
}

fn to(address: SocketAddr, len: usize, segment: u16) -> Transmit {
    Transmit { len, segment, to: address, from: None }
}

/// Receives until `total` bytes came; returns the datagrams' sizes and all bytes.
fn collect(host: &mut Host, total: usize) -> (Vec<usize>, Vec<u8>) {
    let (mut sizes, mut bytes) = (Vec::new(), Vec::new());
    host.until(|_, event| {
        if let Event::Datagrams { segment, lease, .. } = event {
            sizes.extend(lease.chunks(segment.into()).map(<[u8]>::len));
            bytes.extend_from_slice(&lease);
        }
        (bytes.len() >= total).then_some(())
    });
    (sizes, bytes)
}

#[test]
fn sixty_four_segments_travel_as_one() {
    each_ring(&small(), |host| {
        let (receiver, address) = add(host, "127.0.0.1:0", 1);
        let (sender, source) = add(host, "127.0.0.1:0", 2);
        send(host, sender, to(address, 64 * 1000, 1000));
        let mut trains = 0;
        let mut received = 0;
        host.until(|_, event| {
            if let Event::Datagrams { token, from, to, segment, mut lease } = event {
                assert_eq!((token, from, to, segment), (Token(1), source, address, 1000));
                assert_eq!(*lease, pattern(received, lease.len())[..]);
                // Unique: it may be written in place.
                lease[0] ^= 0xff;
                received += lease.len();
                trains += 1;
            }
            (received == 64_000).then_some(())
        });
        let stats = *host.ring.stats();
        assert_eq!((stats.udp_sends, stats.udp_datagrams_sent), (1, 64));
        assert_eq!(stats.udp_datagrams_received, 64);
        assert_eq!(trains, 1, "coalesced");
        assert!(host.ring.udp_gso(sender) && host.ring.udp_gso(receiver));
    });
}

#[test]
fn trains_of_every_shape_arrive_as_sent() {
    each_ring(&small(), |host| {
        let (_, address) = add(host, "127.0.0.1:0", 1);
        let (sender, _) = add(host, "127.0.0.1:0", 2);
        // (bytes, segment): one short, one exact, two equal, a short last, over 64 segments, over the longest payload.
        let shapes = [
            (1, 1200),
            (1200, 1200),
            (2400, 1200),
            (2401, 1200),
            (12_345, 1350),
            (100 * 300, 300),
            (65_536, 1452),
            (65_536, 9000),
            (50_000, 50_000),
        ];
        for (len, segment) in shapes {
            send(host, sender, to(address, len, segment));
            let (sizes, bytes) = collect(host, len);
            assert_eq!(bytes, pattern(0, len));
            let expected: Vec<usize> = pattern(0, len).chunks(segment.into()).map(<[u8]>::len).collect();
            assert_eq!(sizes, expected, "{len} by {segment}");
        }
        assert_eq!(host.ring.stats().udp_send_errors, 0);
    });
}

/// Trains of mixed sizes queued in one turn, from two senders: each arrives whole and in order.
#[test]
fn mixed_batches_keep_their_order() {
    each_ring(&small(), |host| {
        let (_, address) = add(host, "127.0.0.1:0", 1);
        let mut random = Random(77);
        for _ in 0..20 {
            let senders = [add(host, "127.0.0.1:0", 2), add(host, "127.0.0.1:0", 3)];
            let mut expected: [Vec<usize>; 2] = [Vec::new(), Vec::new()];
            for _ in 0..10 {
                for (which, (sender, _)) in senders.iter().enumerate() {
                    let segment = 1 + random.below(1400) as usize;
                    let segments = 1 + random.below(20) as usize;
                    let len = segment * (segments - 1) + 1 + random.below(segment as u64) as usize;
                    send(host, *sender, to(address, len, segment as u16));
                    let sizes = (0..len).step_by(segment).map(|at| segment.min(len - at));
                    expected[which].extend(sizes);
                }
            }
            let total: usize = expected.iter().map(Vec::len).sum();
            let mut received: [Vec<usize>; 2] = [Vec::new(), Vec::new()];
            host.until(|_, event| {
                if let Event::Datagrams { from, segment, lease, .. } = event {
                    let which = senders.iter().position(|(_, address)| *address == from);
                    let sizes = lease.chunks(segment.into()).map(<[u8]>::len);
                    received[which.unwrap()].extend(sizes);
                }
                (received.iter().map(Vec::len).sum::<usize>() == total).then_some(())
            });
            assert_eq!(received, expected);
            for (sender, _) in senders {
                host.ring.close_udp(sender);
            }
        }
    });
}

#[test]
fn both_families_meet_on_a_dual_stack_socket() {
    each_ring(&small(), |host| {
        let (server, address) = add(host, "[::]:0", 1);
        for client in ["127.0.0.1:0", "[::1]:0", "127.0.0.3:0"] {
            let (client, client_address) = add(host, client, 2);
            let there = SocketAddr::new(client_address.ip(), address.port());
            // To the address that a wildcard socket would not choose by itself.
            let there = match there {
                SocketAddr::V4(_) => SocketAddr::new([127, 0, 0, 2].into(), address.port()),
                SocketAddr::V6(_) => there,
            };
            send(host, client, to(there, 3000, 1200));
            let (from, at) = host.until(|_, event| match event {
                Event::Datagrams { from, to, .. } => Some((from, to)),
                _ => None,
            });
            assert_eq!((from, at), (client_address, there));
            // The answer leaves from the address that was asked.
            let answer = Transmit { from: Some(at), ..to(from, 2500, 1200) };
            send(host, server, answer);
            let (from, at) = host.until(|_, event| match event {
                Event::Datagrams { token: Token(2), from, to, .. } => Some((from, to)),
                _ => None,
            });
            assert_eq!((from, at), (there, client_address));
            host.ring.close_udp(client);
        }
        assert_eq!(host.ring.stats().udp_send_errors, 0);
    });
}

#[test]
fn the_slot_pool_is_bounded_and_refills() {
    let config = RingConfig { udp_send_slots: 3, ..small() };
    each_ring(&config, |host| {
        let (_, address) = add(host, "127.0.0.1:0", 1);
        let (sender, _) = add(host, "127.0.0.1:0", 2);
        let held: Vec<_> = (0..3).map(|_| host.ring.udp_slot().unwrap()).collect();
        assert!(host.ring.udp_slot().is_none());
        assert_eq!(host.ring.stats().udp_slots_dry, 1);
        drop(held);
        for _ in 0..3 {
            send(host, sender, to(address, 100, 100));
        }
        assert!(host.ring.udp_slot().is_none(), "they are with the kernel");
        collect(host, 300);
        while host.ring.udp_slot().is_none() {
            host.turn();
        }
    });
}

#[test]
fn exhausted_buffers_leave_datagrams_in_the_socket() {
    let config =
        RingConfig { udp_receive: PoolConfig { count: 3, posted: 1, ..RingConfig::default().udp_receive }, ..small() };
    each_ring(&config, |host| {
        let (_, address) = add(host, "127.0.0.1:0", 1);
        let clients: Vec<_> = (0..20).map(|_| add(host, "127.0.0.1:0", 2)).collect();
        for (client, _) in &clients {
            send(host, *client, to(address, 700, 700));
        }
        let (mut received, mut held) = (0, Vec::new());
        while received < 20 {
            let mut quiet = true;
            for event in host.poll() {
                if let Event::Datagrams { lease, .. } = event {
                    assert_eq!(*lease, pattern(0, 700)[..]);
                    held.push(lease);
                    received += 1;
                    quiet = false;
                }
            }
            assert!(held.len() <= 3);
            if quiet {
                held.clear();
            }
        }
        assert!(host.ring.stats().udp_buffers_exhausted > 0);
        assert_eq!(host.ring.stats().udp_receive_drops, 0);
    });
}

#[test]
fn refused_sends_are_told() {
    each_ring(&small(), |host| {
        let (sender, _) = add(host, "127.0.0.1:0", 7);
        // From loopback there is no way out.
        let away: SocketAddr = "192.0.2.1:9".parse().unwrap();
        send(host, sender, to(away, 100, 100));
        let (token, there, error) = host.until(|_, event| match event {
            Event::DatagramsRefused { token, to, error } => Some((token, to, error)),
            _ => None,
        });
        assert_eq!((token, there), (Token(7), away));
        assert!(error > 0);
        // A datagram longer than UDP can carry.
        let (_, address) = add(host, "127.0.0.1:0", 1);
        send(host, sender, to(address, 65_536, u16::MAX));
        let error = host.until(|_, event| match event {
            Event::DatagramsRefused { error, .. } => Some(error),
            _ => None,
        });
        assert_eq!(error, libc::EMSGSIZE);
        while host.ring.stats().udp_sends > host.ring.stats().udp_send_errors + 1 {
            host.poll();
        }
        assert!(host.ring.udp_gso(sender), "that says nothing of offload");
    });
}

/// The kernel answers EINVAL to segmentation on a socket without checksums: such a train goes out as single datagrams.
#[test]
fn a_train_that_cannot_be_segmented_is_sent_singly() {
    use std::os::fd::AsRawFd;
    each_ring(&small(), |host| {
        let (_, address) = add(host, "127.0.0.1:0", 1);
        let socket = bind("127.0.0.1:0");
        let (on, len) = (1_i32, size_of::<i32>() as u32);
        // SAFETY: the option's value is read during the call.
        let done = unsafe {
            let value = (&raw const on).cast();
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, value, len)
        };
        assert_eq!(done, 0);
        let sender = host.ring.add_udp(socket, Token(2));
        for _ in 0..3 {
            send(host, sender, to(address, 10 * 1200 + 7, 1200));
            let (sizes, bytes) = collect(host, 12_007);
            assert_eq!((sizes.len(), sizes[10]), (11, 7));
            assert_eq!(bytes, pattern(0, 12_007));
        }
        assert_eq!(host.ring.stats().udp_send_errors, 0);
        assert!(host.ring.stats().udp_sends >= 33);
    });
}

#[test]
fn closed_sockets_take_and_tell_nothing() {
    each_ring(&small(), |host| {
        let (receiver, address) = add(host, "127.0.0.1:0", 1);
        let (sender, _) = add(host, "127.0.0.1:0", 2);
        host.poll();
        send(host, sender, to(address, 100, 100));
        host.ring.close_udp(receiver);
        host.ring.close_udp(receiver);
        for _ in 0..3 {
            assert!(!host.poll().any(|event| matches!(event, Event::Datagrams { .. })));
        }
        host.ring.close_udp(sender);
        let slot = host.ring.udp_slot().unwrap();
        host.ring.udp_send(sender, slot, to(address, 100, 100));
        assert!(host.poll().next().is_none());
        assert!(host.ring.udp_address(receiver).is_none());
    });
}

#[test]
fn what_the_socket_drops_is_counted() {
    each_ring(&small(), |host| {
        let options = UdpOptions { receive_buffer: 8192, ..UdpOptions::new("127.0.0.1:0".parse().unwrap()) };
        let socket = UdpSocket::bind(&options).unwrap();
        let address = socket.local_address();
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..200 {
            client.send_to(&[1; 1000], address).unwrap();
        }
        host.ring.add_udp(socket, Token(1));
        // The count comes with a datagram that was received after the drops.
        let mut sent = 0;
        while host.ring.stats().udp_receive_drops == 0 {
            assert!(sent < 100);
            host.turn();
            client.send_to(&[2; 10], address).unwrap();
            sent += 1;
        }
        assert!(host.ring.stats().udp_receive_drops > 100);
    });
}

/// Garbage of any length is handed up as it is; an empty datagram is dropped and counted.
#[test]
fn odd_lengths_are_handed_up() {
    each_ring(&small(), |host| {
        let (_, address) = add(host, "127.0.0.1:0", 1);
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(&[], address).unwrap();
        client.send_to(&[9; 1], address).unwrap();
        client.send_to(&[9; 65_507], address).unwrap();
        let (sizes, _) = collect(host, 65_508);
        assert_eq!(sizes, [1, 65_507]);
        assert_eq!(host.ring.stats().udp_receives_invalid, 1);
    });
}

/// The kernel picks the local address of a connected socket, and tells it that nobody listens at the other end.
#[test]
fn a_connected_socket_hears_that_nobody_listens() {
    each_ring(&small(), |host| {
        for wildcard in ["0.0.0.0:0", "[::]:0"] {
            let loopback = if wildcard.starts_with('[') { "[::1]:0" } else { "127.0.0.1:0" };
            let closed = bind(loopback).local_address();
            let mut socket =
                UdpSocket::bind(&UdpOptions { reuse_port: false, ..UdpOptions::new(wildcard.parse().unwrap()) })
                    .unwrap();
            socket.connect(closed).unwrap();
            assert!(socket.local_address().ip().is_loopback(), "{}", socket.local_address());
            let sender = host.ring.add_udp(socket, Token(9));
            // The word may come on the receive or on a later send, whichever the kernel serves first.
            send(host, sender, to(closed, 100, 100));
            let refused = host.until(|_, event| match event {
                Event::DatagramsRefused { token, to, error } => Some((token, to, error)),
                _ => None,
            });
            assert_eq!(refused, (Token(9), closed, nix::errno::Errno::ECONNREFUSED as i32));
            host.ring.close_udp(sender);
        }
    });
}

#[test]
fn a_connected_socket_hears_its_peer_only() {
    each_ring(&small(), |host| {
        let (peer, peer_address) = add(host, "127.0.0.1:0", 1);
        let (stranger, _) = add(host, "127.0.0.1:0", 2);
        let mut socket = bind("0.0.0.0:0");
        socket.connect(peer_address).unwrap();
        let address = socket.local_address();
        host.ring.add_udp(socket, Token(3));
        send(host, stranger, to(address, 30, 30));
        send(host, peer, to(address, 20, 20));
        let first = host.until(|_, event| match event {
            Event::Datagrams { token: Token(3), from, lease, .. } => Some((from, lease.len())),
            _ => None,
        });
        assert_eq!(first, (peer_address, 20));
    });
}
