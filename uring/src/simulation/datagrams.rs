//! The network of datagrams: UDP sockets of the machine, peers, and the links between them.
//!
//! A train that the machine sends is cut into its datagrams, each of which takes its own chances on the link. What arrives
//! waits at the socket until a receive buffer is free, and is joined to trains again as GRO does: same sender, same size.

use super::agenda::Due;
use super::peer::{Outgoing, Peer};
use super::plan::{Link, Plan};
use super::random::Random;
use super::turn::Turn;
use crate::chunk::Lease;
use crate::io::{Event, Token, Transmit, UdpId};
use crate::pool::Pool;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

/// Bytes of a send slot, as in the ring.
const SLOT_LEN: usize = 64 << 10;
/// Datagrams and bytes that one receive joins.
const TRAIN_MAX: usize = 64;
const TRAIN_BYTES: usize = 65_000;

/// A UDP send buffer of the simulated machine.
#[derive(Debug)]
pub struct SimulatedSlot {
    pub(super) lease: Lease,
}

impl Deref for SimulatedSlot {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.lease
    }
}

impl DerefMut for SimulatedSlot {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.lease
    }
}

/// A datagram on its way.
#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

struct Socket {
    address: SocketAddr,
    token: Token,
    waiting: VecDeque<Datagram>,
    waiting_bytes: usize,
}

/// One direction's state.
struct Way {
    link: Link,
    /// When the bottleneck has sent what it was given.
    free_at: Option<Instant>,
}

struct Connected {
    peer: Option<Box<dyn Peer>>,
    to_peer: Way,
    from_peer: Way,
    /// The earliest wake on the agenda.
    armed: Option<Instant>,
}

/// Number of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerId(pub(super) usize);

pub(super) struct Datagrams {
    sockets: Vec<Socket>,
    peers: Vec<Connected>,
    addresses: BTreeMap<SocketAddr, usize>,
    receive: Pool,
    send: Pool,
    /// Receives rest until then, although there are buffers.
    exhausted_until: Option<Instant>,
}

impl Datagrams {
    pub(super) fn new(plan: &Plan) -> Self {
        let pool = |count, size| Pool::new(count, size).expect("memory for simulated buffers");
        Self {
            sockets: Vec::new(),
            peers: Vec::new(),
            addresses: BTreeMap::new(),
            receive: pool(plan.udp_receive.count, plan.udp_receive.size),
            send: pool(plan.udp_send_slots, SLOT_LEN),
            exhausted_until: None,
        }
    }

    pub(super) fn add_socket(&mut self, address: SocketAddr, token: Token) -> UdpId {
        self.sockets.push(Socket { address, token, waiting: VecDeque::new(), waiting_bytes: 0 });
        UdpId(self.sockets.len() as u32 - 1)
    }

    pub(super) fn add_peer(&mut self, peer: Box<dyn Peer>, address: SocketAddr, to: Link, from: Link) -> PeerId {
        let number = self.peers.len();
        let way = |link| Way { link, free_at: None };
        self.peers.push(Connected { peer: Some(peer), to_peer: way(to), from_peer: way(from), armed: None });
        self.add_address(PeerId(number), address);
        PeerId(number)
    }

    /// A further address of a peer; one address has one peer.
    pub(super) fn add_address(&mut self, peer: PeerId, address: SocketAddr) {
        let before = self.addresses.insert(address, peer.0);
        assert!(before.is_none(), "{address} has two peers");
    }

    pub(super) fn set_links(&mut self, peer: PeerId, to: Link, from: Link) {
        let peer = &mut self.peers[peer.0];
        peer.to_peer.link = to;
        peer.from_peer.link = from;
    }

    /// Send slots nobody holds, and in all.
    pub(super) fn slots(&self) -> (usize, usize) {
        (self.send.free(), self.send.total())
    }

    /// Receive buffers nobody holds, and in all.
    pub(super) fn receive_buffers(&self) -> (usize, usize) {
        (self.receive.free(), self.receive.total())
    }

    pub(super) fn take_slot(&mut self) -> Option<SimulatedSlot> {
        self.send.lease_any().map(|lease| SimulatedSlot { lease })
    }

    /// Sends a train; the slot stays with the machine until the agenda says otherwise.
    pub(super) fn send(&mut self, slot: SimulatedSlot, transmit: Transmit, socket: UdpId, turn: &mut Turn<'_>) {
        let lease = slot.lease;
        assert!(self.send.index_of(&lease).is_some(), "a slot goes back to the machine it came from");
        assert!(transmit.len > 0 && transmit.segment > 0, "a train has datagrams and they have a size");
        assert!(transmit.len <= lease.len(), "a train fits its slot");
        let segment = usize::from(transmit.segment);
        let count = transmit.len.div_ceil(segment);
        assert!(count <= TRAIN_MAX && transmit.len <= TRAIN_BYTES + 507, "{count} datagrams in one train");
        let at = &self.sockets[socket.0 as usize];
        turn.stats.udp_sends += 1;
        turn.stats.udp_datagrams_sent += count as u64;
        if turn.random.chance(turn.plan.udp_refused) {
            turn.stats.udp_send_errors += 1;
            turn.events.push(Event::DatagramsRefused { token: at.token, to: transmit.to, error: libc::ENOBUFS });
        } else {
            let from = transmit.from.unwrap_or(at.address);
            let peer = self.addresses.get(&transmit.to).copied();
            for bytes in lease[..transmit.len].chunks(segment) {
                let Some(peer) = peer else { break };
                let way = &mut self.peers[peer].to_peer;
                for arrival in way.arrivals(bytes.len(), turn.now, turn.random) {
                    let datagram = Datagram { from, to: transmit.to, bytes: bytes.to_vec() };
                    turn.agenda.add(arrival, Due::ToPeer { peer, datagram });
                }
            }
        }
        let complete = turn.completion();
        turn.agenda.add(complete, Due::SlotFree { lease });
    }

    /// A datagram reached its peer.
    pub(super) fn reach_peer(&mut self, number: usize, mut datagram: Datagram, turn: &mut Turn<'_>) {
        let mut peer = self.peers[number].peer.take().expect("a peer is called once at a time");
        peer.receive(&mut datagram.bytes, datagram.from, datagram.to, turn.now);
        self.peers[number].peer = Some(peer);
        self.serve(number, turn);
    }

    /// A peer's time has come.
    pub(super) fn wake_peer(&mut self, number: usize, forced: bool, turn: &mut Turn<'_>) {
        let connected = &mut self.peers[number];
        if connected.armed.is_some_and(|at| at <= turn.now) {
            connected.armed = None;
        }
        let peer = connected.peer.as_mut().expect("a peer is called once at a time");
        if forced || peer.deadline().is_some_and(|at| at <= turn.now) {
            peer.wake(turn.now);
        }
        self.serve(number, turn);
    }

    /// Takes what a peer wants to send, and its next deadline.
    fn serve(&mut self, number: usize, turn: &mut Turn<'_>) {
        let Connected { peer, from_peer, armed, .. } = &mut self.peers[number];
        let peer = peer.as_mut().expect("a peer is called once at a time");
        while let Some(Outgoing { bytes, from, to }) = peer.transmit(turn.now) {
            turn.note("peer-sends", number as u64, bytes.len());
            for arrival in from_peer.arrivals(bytes.len(), turn.now, turn.random) {
                let datagram = Datagram { from, to, bytes: bytes.clone() };
                turn.agenda.add(arrival, Due::ToMachine { datagram });
            }
        }
        if let Some(at) = peer.deadline().map(|at| at.max(turn.now))
            && armed.is_none_or(|armed| at < armed)
        {
            *armed = Some(at);
            turn.agenda.add(at, Due::PeerWake { peer: number, forced: false });
        }
    }

    /// A datagram reached the machine: it waits at its socket, unless that is full.
    pub(super) fn reach_machine(&mut self, datagram: Datagram, turn: &mut Turn<'_>) {
        let Some(socket) = self.sockets.iter_mut().find(|socket| socket.address == datagram.to) else {
            return;
        };
        if socket.waiting_bytes + datagram.bytes.len() > turn.plan.udp_socket_buffer {
            turn.stats.udp_receive_drops += 1;
            return;
        }
        socket.waiting_bytes += datagram.bytes.len();
        socket.waiting.push_back(datagram);
    }

    /// Hands out what waits at the sockets, as far as there are buffers.
    pub(super) fn offer(&mut self, turn: &mut Turn<'_>) {
        if self.exhausted_until.is_some_and(|at| at > turn.now) {
            return;
        }
        self.exhausted_until = None;
        for number in 0..self.sockets.len() {
            while !self.sockets[number].waiting.is_empty() {
                if self.receive.free() == 0 {
                    turn.stats.udp_buffers_exhausted += 1;
                    return;
                }
                if turn.random.chance(turn.plan.exhausted) {
                    turn.stats.udp_buffers_exhausted += 1;
                    let until = turn.now + turn.random.up_to(turn.plan.late_by);
                    self.exhausted_until = Some(until);
                    turn.agenda.add(until, Due::Retry);
                    return;
                }
                self.deliver(number, turn);
            }
        }
    }

    /// Joins the first datagrams of a socket to a train.
    fn deliver(&mut self, number: usize, turn: &mut Turn<'_>) {
        let socket = &mut self.sockets[number];
        let (Some(first), Some(mut lease)) = (socket.waiting.pop_front(), self.receive.lease_any()) else {
            return;
        };
        let segment = first.bytes.len().min(lease.len());
        lease[..segment].copy_from_slice(&first.bytes[..segment]);
        let (mut len, mut count, mut last) = (segment, 1, segment);
        while count < TRAIN_MAX
            && last == segment
            && let Some(next) = socket.waiting.front()
            && next.bytes.len() <= segment
            && (next.from, next.to) == (first.from, first.to)
            && len + next.bytes.len() <= TRAIN_BYTES.min(lease.len())
            && !turn.random.chance(turn.plan.train_split)
        {
            last = next.bytes.len();
            lease[len..len + last].copy_from_slice(&next.bytes);
            len += last;
            count += 1;
            socket.waiting.pop_front();
        }
        socket.waiting_bytes = socket.waiting.iter().map(|datagram| datagram.bytes.len()).sum();
        lease.truncate(len);
        turn.stats.udp_receives += 1;
        turn.stats.udp_datagrams_received += count as u64;
        turn.note("datagrams", number as u64, len);
        turn.events.push(Event::Datagrams {
            token: socket.token,
            from: first.from,
            to: first.to,
            segment: segment as u16,
            lease,
        });
    }
}

impl Way {
    /// When a datagram arrives: never, once or twice.
    fn arrivals(&mut self, len: usize, now: Instant, random: &mut Random) -> impl Iterator<Item = Instant> + use<> {
        let link = &self.link;
        let (lost, twice) = (random.chance(link.loss), random.chance(link.duplicate));
        let held = if random.chance(link.reorder) { link.reorder_by } else { Duration::ZERO };
        let jitter = random.up_to(link.jitter);
        let mut leaves = now;
        let mut lost = lost || len > link.payload_max;
        if let Some(takes) = (len as u64 * 1_000_000_000).checked_div(link.bytes_per_second) {
            let begins = self.free_at.unwrap_or(now).max(now);
            if begins - now > link.queue {
                lost = true;
            } else {
                leaves = begins + Duration::from_nanos(takes);
                self.free_at = Some(leaves);
            }
        }
        let arrival = leaves + link.delay + jitter + held;
        let second = arrival + link.jitter;
        [(!lost).then_some(arrival), (!lost && twice).then_some(second)].into_iter().flatten()
    }
}
