//! The simulated machine by itself: what a worker may rely on, and what it is told when it loses count.

use super::*;
use crate::chunk::Chunk;
use crate::io::{End, Event, Io, StreamAddress, StreamId, Token, Transmit};
use crate::mailbox;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

const MACHINE: &str = "192.0.2.1:443";
const PEER: &str = "198.51.100.1:4000";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn origin_address() -> StreamAddress {
    StreamAddress::Tcp(address("10.0.0.1:80"))
}

/// Sends so many datagrams of this size at once, and counts what comes back.
struct Echo {
    left: usize,
    size: usize,
    arrived: Rc<RefCell<Vec<(Instant, usize)>>>,
}

impl Peer for Echo {
    fn receive(&mut self, bytes: &mut [u8], _from: SocketAddr, _to: SocketAddr, now: Instant) {
        self.arrived.borrow_mut().push((now, bytes.len()));
    }

    fn transmit(&mut self, _now: Instant) -> Option<Outgoing> {
        self.left = self.left.checked_sub(1)?;
        Some(Outgoing { bytes: vec![self.left as u8; self.size], from: address(PEER), to: address(MACHINE) })
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn wake(&mut self, _now: Instant) {}
}

/// What a session saw.
#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    fin: bool,
    closed: Option<bool>,
}

/// Greets with `greeting`, then ends as `ending` says.
struct Greeter {
    seen: Rc<RefCell<Seen>>,
    greeting: usize,
    ending: fn(&mut Line),
}

impl Session for Greeter {
    fn opened(&mut self, line: &mut Line) {
        line.write((0..self.greeting).map(|at| at as u8).collect::<Vec<u8>>());
        (self.ending)(line);
    }

    fn bytes(&mut self, bytes: &[u8], _line: &mut Line) {
        self.seen.borrow_mut().bytes.extend_from_slice(bytes);
    }

    fn fin(&mut self, _line: &mut Line) {
        self.seen.borrow_mut().fin = true;
    }

    fn closed(&mut self, reset: bool, _now: Instant) {
        self.seen.borrow_mut().closed = Some(reset);
    }
}

struct Greeters {
    seen: Rc<RefCell<Seen>>,
    greeting: usize,
    ending: fn(&mut Line),
}

impl Origin for Greeters {
    fn connect(&mut self, _now: Instant) -> Connect {
        let Self { seen, greeting, ending } = self;
        Connect::Accept(Box::new(Greeter { seen: Rc::clone(seen), greeting: *greeting, ending: *ending }))
    }
}

fn greeters(greeting: usize, ending: fn(&mut Line)) -> (Greeters, Rc<RefCell<Seen>>) {
    let seen = Rc::<RefCell<Seen>>::default();
    (Greeters { seen: Rc::clone(&seen), greeting, ending }, seen)
}

/// Waits for up to `seconds` and returns everything that came.
fn events(host: &mut SimulatedHost, seconds: u64) -> Vec<Event> {
    let (mut all, until) = (Vec::new(), host.now() + Duration::from_secs(seconds));
    while host.now() < until {
        host.wait(Some(until), &mut all).unwrap();
    }
    all
}

fn connect(host: &mut SimulatedHost) -> StreamId {
    let stream = host.connect(&origin_address(), Token(5)).unwrap();
    let told = events(host, 1);
    assert!(matches!(told[..], [Event::Connected { token: Token(5), stream: of, result: Ok(()) }] if of == stream));
    stream
}

#[test]
fn time_passes_in_wait_only_and_to_what_comes_next() {
    let mut host = SimulatedHost::new(1, Plan::calm());
    let start = host.now();
    let mut told = Vec::new();
    host.wait(Some(start), &mut told).unwrap();
    assert!(told.is_empty() && host.now() > start && host.now() < start + Duration::from_millis(1));
    host.wait(Some(start + Duration::from_secs(10)), &mut told).unwrap();
    assert_eq!(host.now(), start + Duration::from_secs(10));
    host.wait(None, &mut told).unwrap();
    assert!(host.is_stalled(), "nothing will ever happen");
    host.wake_at(host.now() + Duration::from_secs(1));
    host.wait(None, &mut told).unwrap();
    assert!(!host.is_stalled() && told.is_empty());
}

#[test]
fn datagrams_take_their_time_and_arrive_as_a_train() {
    let mut host = SimulatedHost::new(1, Plan::calm());
    let socket = host.add_udp(address(MACHINE), Token(1));
    let arrived = Rc::default();
    let peer = Echo { left: 10, size: 1200, arrived: Rc::clone(&arrived) };
    let link = Link { bytes_per_second: 0, ..Link::clean() };
    let start = host.now();
    host.add_peer(peer, address(PEER), link.clone(), link);
    let told = events(&mut host, 1);
    let [Event::Datagrams { token: Token(1), from, segment: 1200, lease, .. }] = &told[..] else { panic!("{told:?}") };
    assert_eq!((*from, lease.len()), (address(PEER), 12_000));
    let mut slot = host.udp_slot().unwrap();
    slot[..3000].fill(7);
    let transmit = Transmit { len: 3000, segment: 1300, to: address(PEER), from: None };
    let sent = host.now();
    host.udp_send(socket, slot, transmit);
    events(&mut host, 1);
    let sizes: Vec<usize> = arrived.borrow().iter().map(|&(_, len)| len).collect();
    assert_eq!(sizes, [1300, 1300, 400]);
    assert!(arrived.borrow().iter().all(|&(at, _)| at == sent + Duration::from_millis(10)));
    assert!(sent >= start + Duration::from_millis(10));
    drop(told);
    assert_eq!(host.buffers_held(), [0; 3]);
}

#[test]
fn links_lose_double_and_reorder_at_their_rates() {
    let mut plan = Plan::calm();
    plan.train_split = 1.0;
    let mut host = SimulatedHost::new(3, plan);
    host.add_udp(address(MACHINE), Token(1));
    let peer = Echo { left: 1000, size: 100, arrived: Rc::default() };
    let faulty = Link { bytes_per_second: 0, ..Link::faulty(0.1, 0.1, 0.1) };
    host.add_peer(peer, address(PEER), faulty.clone(), faulty);
    let (mut numbers, until) = (Vec::new(), host.now() + Duration::from_secs(1));
    while host.now() < until {
        let mut told = Vec::new();
        host.wait(Some(until), &mut told).unwrap();
        for event in told {
            if let Event::Datagrams { lease, .. } = event {
                numbers.push(lease[0]);
            }
        }
    }
    assert!((930..1060).contains(&numbers.len()), "{} of 1000", numbers.len());
    // They were sent counting down.
    assert!(numbers.windows(2).any(|two| two[1].wrapping_sub(two[0]) < 128), "some overtook others");
    assert!(host.stats().udp_buffers_exhausted > 0, "1000 datagrams at once are more than there are buffers");
}

#[test]
fn bytes_come_in_cuts_in_order_and_end_with_fin() {
    let mut random = Random::new(9);
    for seed in 0..20 {
        let plan = Plan::rough(&mut random);
        let mut host = SimulatedHost::new(seed, plan);
        let (origin, seen) = greeters(300_000, Line::fin);
        host.add_origin(origin_address(), origin);
        let stream = connect(&mut host);
        host.resume(stream);
        host.send(stream, Chunk::from_vec((0..100_000).map(|at| (at % 251) as u8).collect()));
        host.shutdown(stream);
        let (mut received, mut ended, mut left) = (Vec::new(), false, usize::MAX);
        for _ in 0..30 {
            for event in events(&mut host, 1) {
                match event {
                    Event::Received { lease, .. } => received.extend_from_slice(&lease),
                    Event::Ended { end: End::Fin, .. } => ended = true,
                    Event::Sent { queued, .. } => left = queued,
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(ended && left == 0);
        assert_eq!(received.len(), 300_000);
        assert!(received.iter().enumerate().all(|(at, byte)| *byte == at as u8));
        let seen = seen.borrow();
        assert!(seen.fin && seen.bytes.len() == 100_000);
        assert!(seen.bytes.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
    }
}

#[test]
fn held_buffers_are_backpressure_all_the_way_to_the_origin() {
    let mut plan = Plan::calm();
    plan.stream_receive.count = 2;
    plan.stream_receive.size = 1000;
    plan.socket_buffer = 5000;
    let mut host = SimulatedHost::new(1, plan);
    let (origin, _) = greeters(50_000, Line::fin);
    host.add_origin(origin_address(), origin);
    let stream = connect(&mut host);
    host.resume(stream);
    let held = events(&mut host, 1);
    assert_eq!((held.len(), host.pressure().free), (2, 0));
    assert!(host.stats().stream_buffers_exhausted > 0);
    let mut total: usize = 2000;
    drop(held);
    for _ in 0..100 {
        for event in events(&mut host, 1) {
            if let Event::Received { lease, .. } = event {
                total += lease.len();
            }
        }
    }
    assert_eq!(total, 50_000);
}

#[test]
fn a_reset_is_an_error_and_the_next_send_fails() {
    let mut host = SimulatedHost::new(1, Plan::calm());
    let (origin, _) = greeters(10, Line::reset);
    host.add_origin(origin_address(), origin);
    let stream = connect(&mut host);
    host.resume(stream);
    let told = events(&mut host, 1);
    assert!(matches!(told.last(), Some(Event::Ended { end: End::Error(libc::ECONNRESET), .. })), "{told:?}");
    host.send(stream, Chunk::from_static(b"late"));
    let told = events(&mut host, 1);
    assert!(matches!(told[..], [Event::SendFailed { error: libc::EPIPE, .. }]), "{told:?}");
}

#[test]
fn a_closed_sockets_number_is_used_again_with_a_new_generation() {
    let mut host = SimulatedHost::new(1, Plan::calm());
    let (origin, seen) = greeters(0, |_| {});
    host.add_origin(origin_address(), origin);
    let first = connect(&mut host);
    host.close(first);
    let second = connect(&mut host);
    assert_eq!(first.slot, second.slot);
    assert_ne!(first.generation, second.generation);
    events(&mut host, 1);
    assert_eq!(seen.borrow().closed, Some(false));
    assert_eq!(host.queued(first), 0, "asking of a closed socket finds nothing");
}

#[test]
fn nobody_there_is_refused() {
    let mut host = SimulatedHost::new(1, Plan::calm());
    host.connect(&origin_address(), Token(1)).unwrap();
    let told = events(&mut host, 1);
    assert!(matches!(told[..], [Event::Connected { result: Err(libc::ECONNREFUSED), .. }]), "{told:?}");
    assert_eq!(host.streams_open(), 0);
}

#[test]
#[should_panic(expected = "send on a closed socket")]
fn a_send_after_the_close_is_caught() {
    let mut host = SimulatedHost::new(1, Plan::calm());
    let (origin, _) = greeters(0, |_| {});
    host.add_origin(origin_address(), origin);
    let stream = connect(&mut host);
    host.close(stream);
    host.send(stream, Chunk::from_static(b"too late"));
}

#[test]
#[should_panic(expected = "bytes behind the FIN")]
fn bytes_behind_the_fin_are_caught() {
    let mut host = SimulatedHost::new(1, Plan::calm());
    let (origin, _) = greeters(0, |_| {});
    host.add_origin(origin_address(), origin);
    let stream = connect(&mut host);
    host.shutdown(stream);
    host.send(stream, Chunk::from_static(b"too late"));
}

#[test]
fn doorbells_signals_and_files_are_told() {
    let mut host = SimulatedHost::new(1, Plan::calm());
    let (sender, receiver) = mailbox::channel(4).unwrap();
    host.watch(receiver.doorbell(), Token(3));
    let file = host.add_file(Token(4));
    sender.send(1).unwrap();
    host.raise(15);
    host.write(file, Chunk::from_static(b"one "));
    host.write(file, Chunk::from_static(b"two"));
    let told = events(&mut host, 1);
    assert!(told.iter().any(|event| matches!(event, Event::Doorbell { token: Token(3) })));
    assert!(told.iter().any(|event| matches!(event, Event::Signal { signal: 15 })));
    let written = told.iter().filter(|event| matches!(event, Event::Written { token: Token(4), result: Ok(_) }));
    assert_eq!(written.count(), 2);
    assert_eq!(host.file_content(file), b"one two");
    sender.send_by(&mut host, 2).unwrap();
    assert!(matches!(events(&mut host, 1)[..], [Event::Doorbell { .. }]));
}

#[test]
fn a_seed_is_a_run() {
    let run = |seed| {
        let mut host = SimulatedHost::new(seed, Plan::rough(&mut Random::new(seed)));
        let (origin, _) = greeters(200_000, Line::close);
        host.add_origin(origin_address(), origin);
        host.add_udp(address(MACHINE), Token(1));
        let peer = Echo { left: 500, size: 700, arrived: Rc::default() };
        host.add_peer(peer, address(PEER), Link::clean(), Link::faulty(0.1, 0.1, 0.1));
        let stream = host.connect(&origin_address(), Token(2)).unwrap();
        events(&mut host, 1);
        host.resume(stream);
        for _ in 0..10 {
            events(&mut host, 1);
        }
        host.trace()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
