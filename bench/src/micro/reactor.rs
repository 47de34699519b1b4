//! The reactor: what a turn, a datagram, a train, a round trip and a timer cost, all on one thread.
//!
//! Both ends are on the same ring, so a figure holds the sender's and the receiver's part and the kernel's between.

use crate::harness::Harness;
use spooky_uring::io::{Event, Io, StreamAddress, StreamId, Token, Transmit, UdpId};
use spooky_uring::{Chunk, FeatureMask, Features, Listener, Ring, RingConfig, UdpOptions, UdpSocket, Wheel};
use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const SERVER: Token = Token(1);
const CLIENT: Token = Token(2);
const PAYLOAD: u16 = 1452;

/// A ring with what it told.
struct Bench {
    ring: Ring,
    events: Vec<Event>,
}

impl Bench {
    fn new(features: &Features) -> Result<Self, Box<dyn Error>> {
        Ok(Self { ring: Ring::new(&RingConfig::default(), features)?, events: Vec::new() })
    }

    /// Turns until `done` says so of an event.
    fn until(&mut self, mut done: impl FnMut(&Event) -> bool) {
        let give_up = Instant::now() + Duration::from_secs(5);
        loop {
            self.events.clear();
            self.ring.wait(Some(give_up), &mut self.events).expect("a working ring");
            // Not every turn tells something: some completions are the ring's own business.
            if self.events.iter().any(&mut done) {
                return;
            }
            assert!(Instant::now() < give_up, "nothing happened for five seconds");
        }
    }

    /// Connects a stream through a listener; both ends, receiving.
    fn pair(&mut self, to: &StreamAddress) -> (StreamId, StreamId) {
        let client = self.ring.connect(to, CLIENT).expect("room for a stream");
        let (mut accepted, mut connected) = (None, false);
        self.until(|event| {
            match event {
                Event::Accepted { stream, .. } => accepted = Some(*stream),
                Event::Connected { result, .. } => connected = result.is_ok(),
                _ => {}
            }
            accepted.is_some() && connected
        });
        let server = accepted.expect("an accepted stream");
        self.ring.set_token(server, SERVER);
        self.ring.resume(server);
        self.ring.resume(client);
        (client, server)
    }

    /// Sends `bytes` from one end and turns until the other has them all.
    fn carry(&mut self, from: StreamId, to: Token, bytes: &Chunk) {
        self.ring.send(from, bytes.clone());
        let mut left = bytes.len();
        self.until(|event| {
            if let Event::Received { token, lease, .. } = event
                && *token == to
            {
                left -= lease.len();
            }
            left == 0
        });
    }

    /// Sends one train and turns until all of it came back.
    fn train(&mut self, socket: UdpId, to: SocketAddr, packets: usize) {
        let mut slot = loop {
            if let Some(slot) = self.ring.udp_slot() {
                break slot;
            }
            self.ring.wait(Some(Instant::now()), &mut self.events).expect("a working ring");
        };
        let len = packets * usize::from(PAYLOAD);
        slot[..len].fill(7);
        self.ring.udp_send(socket, slot, Transmit { len, segment: PAYLOAD, to, from: None });
        let mut left = len;
        self.until(|event| {
            if let Event::Datagrams { lease, .. } = event {
                left -= lease.len();
            }
            left == 0
        });
    }
}

/// Runs all of them; says so and goes on if this machine has no usable ring.
pub fn run(harness: &mut Harness) {
    if let Err(error) = try_run(harness) {
        eprintln!("spooky-micro: the reactor's benchmarks cannot run here: {error}");
    }
    timers(harness);
}

fn try_run(harness: &mut Harness) -> Result<(), Box<dyn Error>> {
    let features = Features::probe(FeatureMask::ALL)?;
    let mut bench = Bench::new(&features)?;
    harness.bench("ring: turn with nothing to do", || {
        bench.events.clear();
        bench.ring.wait(Some(Instant::now()), &mut bench.events).is_ok()
    });
    datagrams(harness, &features)?;
    let tcp = Listener::tcp("127.0.0.1:0".parse()?, 128, false)?;
    let address = StreamAddress::Tcp(tcp.local_address().ok_or("a TCP listener has an address")?);
    streams(harness, &features, tcp, "TCP", &address)?;
    let path = std::env::temp_dir().join(format!("spooky-micro-{}.sock", std::process::id()));
    let unix = Listener::unix(&path, 128)?;
    let done = streams(harness, &features, unix, "unix", &StreamAddress::Unix(path.as_path().into()));
    // It may be gone already.
    let _ = std::fs::remove_file(&path);
    done
}

fn datagrams(harness: &mut Harness, features: &Features) -> Result<(), Box<dyn Error>> {
    let mut bench = Bench::new(features)?;
    let socket = UdpSocket::bind(&UdpOptions::new("127.0.0.1:0".parse()?))?;
    let to = socket.local_address();
    let socket = bench.ring.add_udp(socket, SERVER);
    harness.bench("ring: UDP, one datagram there and in", || bench.train(socket, to, 1));
    harness.bench_many("ring: UDP, each datagram of a train of 10", 10, || bench.train(socket, to, 10));
    harness.bench_many("ring: UDP, each datagram of a train of 44", 44, || bench.train(socket, to, 44));
    Ok(())
}

fn streams(
    harness: &mut Harness,
    features: &Features,
    listener: Listener,
    kind: &str,
    to: &StreamAddress,
) -> Result<(), Box<dyn Error>> {
    let mut bench = Bench::new(features)?;
    bench.ring.listen(listener, SERVER);
    let (client, server) = bench.pair(to);
    for (name, size) in [("100 bytes", 100), ("64 KiB", 65_536)] {
        let bytes = Chunk::from_vec(vec![7; size]);
        harness.bench(&format!("ring: {kind}, {name} one way"), || bench.carry(client, SERVER, &bytes));
    }
    let bytes = Chunk::from_vec(vec![7; 100]);
    harness.bench(&format!("ring: {kind}, round trip of 100 bytes"), || {
        bench.carry(client, SERVER, &bytes);
        bench.carry(server, CLIENT, &bytes);
    });
    harness.bench(&format!("ring: {kind}, connect, accept, close both"), || {
        let (client, server) = bench.pair(to);
        bench.ring.close(client);
        bench.ring.close(server);
    });
    Ok(())
}

fn timers(harness: &mut Harness) {
    let start = Instant::now();
    let mut wheel = Wheel::new(start, 4096);
    for step in 0..2048u32 {
        wheel.insert(start + Duration::from_millis(u64::from(step) * 37), step).expect("room for a timer");
    }
    let mut step = 0u64;
    harness.bench("wheel: insert and cancel among 2048", || {
        step = (step + 7919) % 60_000;
        let key = wheel.insert(start + Duration::from_millis(step), 0).expect("room for a timer");
        wheel.cancel(key)
    });
    let key = wheel.insert(start + Duration::from_secs(1), 0).expect("room for a timer");
    harness.bench("wheel: reschedule among 2048", || {
        step = (step + 7919) % 60_000;
        wheel.reschedule(key, start + Duration::from_millis(step))
    });
}
