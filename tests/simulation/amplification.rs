//! A client that sends one first flight and falls silent: what it may be sent in all (RFC 9000 §8.1), and how long it costs
//! us something.

use crate::scene::{Scene, configuration};
use crate::seeds::seeds;
use boring::ssl::{SslContext, SslMethod, SslSignatureAlgorithm};
use spooky_uring::simulation::{Link, Outgoing, Peer, Plan};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Sends what it was given, and counts what comes.
pub struct Mute {
    local: SocketAddr,
    server: SocketAddr,
    flight: VecDeque<Vec<u8>>,
    sent: usize,
    received: usize,
}

impl Mute {
    /// With the first flight of a new client, which is one datagram.
    pub fn new(local: SocketAddr, server: SocketAddr) -> Self {
        Self { local, server, flight: first_flight(local, server), sent: 0, received: 0 }
    }
}

impl Peer for Mute {
    fn receive(&mut self, bytes: &mut [u8], _from: SocketAddr, _to: SocketAddr, _now: Instant) {
        self.received += bytes.len();
    }

    fn transmit(&mut self, _now: Instant) -> Option<Outgoing> {
        let bytes = self.flight.pop_front()?;
        self.sent += bytes.len();
        Some(Outgoing { bytes, from: self.local, to: self.server })
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn wake(&mut self, _now: Instant) {}
}

/// The first flight of a new client.
fn first_flight(local: SocketAddr, server: SocketAddr) -> VecDeque<Vec<u8>> {
    let mut context = SslContext::builder(SslMethod::tls()).unwrap();
    context.set_verify_algorithm_prefs(&[SslSignatureAlgorithm::ED25519]).unwrap();
    // A key share that leaves the flight one datagram, so that the bound is near.
    context.set_curves_list("X25519").unwrap();
    let mut config = quiche::Config::with_boring_ssl_ctx_builder(quiche::PROTOCOL_VERSION, context).unwrap();
    config.set_application_protos(&[b"h3"]).unwrap();
    config.set_initial_max_data(1 << 20);
    config.set_initial_max_streams_uni(8);
    config.set_initial_max_stream_data_uni(1 << 16);
    let scid = quiche::ConnectionId::from_ref(&[5; 16]);
    let mut client = quiche::connect(Some("example.test"), &scid, local, server, &mut config).unwrap();
    let mut buffer = [0; 1500];
    let mut flight = VecDeque::new();
    while let Ok((len, _)) = client.send(&mut buffer) {
        flight.push_back(buffer[..len].to_vec());
    }
    flight
}

/// A mute client behind a link like this never gets more than three times what it sent.
pub fn amplified(seed: u64, from: Link) {
    let mut scene = Scene::new(seed, Plan::calm(), &configuration(1, ""));
    let (local, server) = ("198.51.100.9:4444".parse().unwrap(), "192.0.2.1:443".parse().unwrap());
    let mute = Rc::new(RefCell::new(Mute::new(local, server)));
    assert_eq!(mute.borrow().flight.len(), 1);
    let peer = scene.host.add_peer(Rc::clone(&mute), local, Link::clean(), from);
    scene.host.poke(peer);
    scene.run_until("a connection", Duration::from_secs(1), |scene| scene.worker.census().clients == 1);
    let first = Duration::from_millis(500);
    scene.run_for(first);
    assert!(mute.borrow().received > 0);
    let after_first = mute.borrow().received;
    // The handshake may take 10 s; then it is closed, whether there is credit left to say so or not.
    scene.run_until("the end of the handshake", Duration::from_secs(20), |scene| scene.worker.census().clients == 0);
    scene.run_for(Duration::from_secs(60));
    let Mute { sent, received, .. } = *mute.borrow();
    assert!(received > after_first, "nothing was sent again: {after_first} of {}", 3 * sent);
    assert!(received <= 3 * sent, "{received} bytes to an unproved address that sent {sent}");
    scene.close();
}

#[test]
fn silence_behind_a_first_flight_is_never_answered_with_more_than_three_times_its_bytes() {
    seeds(4, |seed| amplified(seed, Link::clean()));
}
