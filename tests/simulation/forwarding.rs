//! Datagrams that reached the wrong worker.

use crate::scene::{PROXY, Scene, configuration};
use spooky::h3::cid::{Cid, CidCoder, CidKeys};
use spooky::limits;
use spooky::telemetry::kinds::{DatagramDrop, QueueFull};
use spooky::worker::forward::Lines;
use spooky_uring::simulation::{Link, Outgoing, Peer, Plan};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// Sends what it is given, and listens to nothing.
struct Sender {
    from: SocketAddr,
    datagrams: VecDeque<Vec<u8>>,
}

impl Peer for Sender {
    // Stateless resets come, where the connection is an earlier process's.
    fn receive(&mut self, _: &mut [u8], _: SocketAddr, _: SocketAddr, _: Instant) {}

    fn transmit(&mut self, _: Instant) -> Option<Outgoing> {
        let bytes = self.datagrams.pop_front()?;
        Some(Outgoing { bytes, from: self.from, to: PROXY.parse().expect("an address") })
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn wake(&mut self, _: Instant) {}
}

/// A short header with an ID that worker `worker` of process `epoch` could have made, in `len` bytes.
fn packet(worker: u16, epoch: u16, len: usize) -> Vec<u8> {
    let mut coder = CidCoder::new(&CidKeys::derive(b"simulation")).expect("AES");
    let mut packet = vec![0x40];
    packet.extend(coder.encode(Cid { epoch, worker, slot: 0, tag: 1, sequence: 0 }));
    packet.resize(len, 0);
    packet
}

/// Worker 0 of two, and the other one's end of the lines, once it was sent these.
fn send(datagrams: impl IntoIterator<Item = Vec<u8>>) -> (Scene, Lines) {
    let mut lines = Lines::between(2).expect("descriptors");
    let other = lines.pop().expect("two");
    let mut scene = Scene::with_lines(1, Plan::calm(), &configuration(1, ""), lines.pop().expect("two"));
    let from = ([198, 51, 100, 9], 9).into();
    let datagrams: VecDeque<_> = datagrams.into_iter().collect();
    let link = Link { bytes_per_second: 0, payload_max: 2000, ..Link::clean() };
    scene.host.add_peer(Sender { from, datagrams }, from, link.clone(), link);
    scene.run_for(SECOND);
    (scene, other)
}

#[test]
fn a_worker_that_reads_nothing_loses_datagrams_and_they_are_counted() {
    let more = 44;
    let (scene, other) = send((0..limits::FORWARDS + more).map(|_| packet(1, 0, 100)));
    let quic = &scene.cells.quic;
    assert_eq!(quic.forwarded_out.get(), limits::FORWARDS as u64);
    assert_eq!(quic.drops.get(DatagramDrop::Misdirected), more as u64);
    assert_eq!(scene.cells.full.get(QueueFull::Forwards), more as u64);
    drop(other);
}

#[test]
fn a_worker_that_has_ended_gets_nothing() {
    let mut lines = Lines::between(2).expect("descriptors");
    drop(lines.pop());
    let mut scene = Scene::with_lines(1, Plan::calm(), &configuration(1, ""), lines.pop().expect("two"));
    let from = ([198, 51, 100, 9], 9).into();
    let sender = Sender { from, datagrams: [packet(1, 0, 100)].into() };
    scene.host.add_peer(sender, from, Link::clean(), Link::clean());
    scene.run_for(SECOND);
    assert_eq!(scene.cells.quic.forwarded_out.get(), 0);
    assert_eq!(scene.cells.quic.drops.get(DatagramDrop::Misdirected), 1);
    assert_eq!(scene.cells.full.get(QueueFull::Forwards), 0);
}

#[test]
fn what_cannot_be_forwarded_is_dropped_by_its_reason() {
    let longest = limits::quic::DATAGRAM_BYTES;
    let (scene, _other) = send([
        packet(1, 0, longest),
        // Longer than clients may send.
        packet(1, 0, longest + 1),
        // A worker that there is not.
        packet(2, 0, 100),
        // The process before this one, in packets too short for a stateless reset.
        packet(0, 1, 21),
        packet(1, 1, 21),
        // Ours, but the connection is gone.
        packet(0, 0, 21),
    ]);
    let quic = &scene.cells.quic;
    assert_eq!((quic.forwarded_out.get(), quic.forwarded_in.get()), (1, 0));
    assert_eq!(quic.drops.get(DatagramDrop::Misdirected), 2);
    assert_eq!(quic.drops.get(DatagramDrop::OtherProcess), 2);
    assert_eq!(quic.drops.get(DatagramDrop::NoConnection), 1);
    assert_eq!(scene.cells.full.get(QueueFull::Forwards), 0);
}
