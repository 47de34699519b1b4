//! The generator's loop: sockets, connections and timers on one thread.
//!
//! One turn: open what is wanted, start what is due, let each connection with news act once and flush it, wait, take
//! in all that arrived. What counts as due is the [`Schedule`]'s business.

use super::body::Buffers;
use super::client::{Client, Wire};
use super::exchange::Run;
use super::h3::Quic;
use super::plan::{Pace, Plan, Protocol};
use super::schedule::Schedule;
use super::tally::{Fault, Tally};
use super::tcp::{Dialer, Tcp};
use crate::machine::Failure;
use crate::udp::{BUFFER_BYTES, PAYLOAD_MAX, Socket};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use quiche::h3;
use slab::Slab;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Between two looks for stalled requests.
const SWEEP_INTERVAL: Duration = Duration::from_millis(200);
/// Between two helpings of a slow reader.
const HELPING_INTERVAL: Duration = Duration::from_millis(20);
/// After a failed handshake, before the next try.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Datagram batches taken from one socket before the next one has its turn.
const RECEIVES_PER_TURN: usize = 16;
/// Length of the connection IDs we choose: slot and serial, four bytes each.
const ID_BYTES: usize = 8;
/// In what epoll tells: the rest is a connection over TCP, not a UDP socket.
const OVER_TCP: u64 = 1 << 63;

struct Endpoint {
    socket: Socket,
    /// Connections that use it.
    users: usize,
    /// The only connection that ever uses it (none with shared sockets).
    only: Option<usize>,
}

/// Sockets, connections, timers.
pub struct Engine {
    /// The plan.
    pub plan: Plan,
    /// Counters of the current phase.
    pub tally: Tally,
    /// When what starts.
    pub schedule: Schedule,
    quic: quiche::Config,
    h3: h3::Config,
    /// Makes connections over TCP, if the plan is about those.
    dialer: Option<Dialer>,
    epoll: Epoll,
    endpoints: Slab<Endpoint>,
    clients: Slab<Box<Client>>,
    serial: u32,
    timers: BinaryHeap<Reverse<(Instant, usize, u32)>>,
    /// Connections with news.
    listed: Vec<usize>,
    /// No new connection before this.
    open_at: Instant,
    opened: u64,
    sweep_at: Instant,
    helping_at: Instant,
    cursor: usize,
    ticket: Option<Vec<u8>>,
    /// Of sockets and connections that are gone.
    dropped_before: u64,
    lost_before: u64,
    input: Box<[u8]>,
    output: Box<[u8]>,
    scratch: Box<[u8]>,
}

impl Engine {
    /// Prepares a run; nothing is sent yet.
    pub fn new(plan: Plan, now: Instant) -> Result<Self, Failure> {
        let quic = transport(&plan)?;
        let dialer = if plan.protocol == Protocol::H3 { None } else { Some(Dialer::new(&plan)?) };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut engine = Self {
            schedule: Schedule::new(&plan, now),
            tally: Tally::new(),
            quic,
            h3: h3::Config::new()?,
            dialer,
            epoll,
            endpoints: Slab::new(),
            clients: Slab::new(),
            serial: 0,
            timers: BinaryHeap::new(),
            listed: Vec::new(),
            open_at: now,
            opened: 0,
            sweep_at: now + SWEEP_INTERVAL,
            helping_at: now + HELPING_INTERVAL,
            cursor: 0,
            ticket: None,
            dropped_before: 0,
            lost_before: 0,
            input: vec![0; BUFFER_BYTES].into(),
            output: vec![0; BUFFER_BYTES].into(),
            scratch: vec![0; BUFFER_BYTES].into(),
            plan,
        };
        for _ in 0..engine.plan.options.sockets.filter(|_| engine.dialer.is_none()).unwrap_or(0) {
            engine.add_endpoint()?;
        }
        Ok(engine)
    }

    /// One turn, up to `until` at the latest.
    pub fn turn(&mut self, until: Instant) -> Result<(), Failure> {
        let now = Instant::now();
        self.open(now)?;
        self.start_due(now);
        self.periodic(now);
        self.act(now);
        let deadline = self.next_deadline(now, until);
        self.wait_and_receive(deadline)?;
        self.expire(Instant::now());
        Ok(())
    }

    /// Starts counting anew.
    pub fn restart_tally(&mut self) {
        self.tally = Tally::new();
        self.dropped_before = 0;
        self.lost_before = 0;
        // Counters of living sockets and connections go on; what they had so far is taken off at the end.
        self.dropped_before = 0u64.wrapping_sub(self.dropped());
        self.lost_before = 0u64.wrapping_sub(self.packets_lost());
    }

    /// Datagrams dropped at our sockets in this phase.
    pub fn dropped(&self) -> u64 {
        self.endpoints
            .iter()
            .fold(self.dropped_before, |sum, (_, endpoint)| sum.wrapping_add(u64::from(endpoint.socket.dropped)))
    }

    /// Packets of ours lost on the way in this phase.
    pub fn packets_lost(&self) -> u64 {
        self.clients.iter().fold(self.lost_before, |sum, (_, client)| sum.wrapping_add(client.packets_lost()))
    }

    /// Connections that can send requests now.
    pub fn ready_connections(&self) -> u64 {
        self.clients.iter().filter(|(_, client)| client.is_ready()).count() as u64
    }

    fn all_opened(&self) -> bool {
        self.opened >= self.plan.options.connections as u64
    }

    /// Idle crowd: lets a connection start one more request.
    pub fn release(&mut self, key: usize) {
        if let Some(client) = self.clients.get_mut(key) {
            client.allowance += 1;
            list(&mut self.listed, key, client);
        }
    }

    /// The connections there are now.
    pub fn keys(&self) -> Vec<usize> {
        self.clients.iter().map(|(key, _)| key).collect()
    }

    /// Idle crowd: every connection was tried, and each that lives has had its answer.
    pub fn is_settled(&self) -> bool {
        self.all_opened()
            && self
                .clients
                .iter()
                .all(|(_, client)| client.is_ready() && client.in_flight() == 0 && client.issued >= client.allowance)
    }

    /// Closes all connections.
    pub fn close_all(&mut self) {
        for key in self.keys() {
            self.clients[key].close();
            self.flush(key);
        }
    }

    fn add_endpoint(&mut self) -> Result<usize, Failure> {
        let socket = Socket::connect(self.plan.to, self.plan.socket)?;
        let entry = self.endpoints.vacant_entry();
        let key = entry.key();
        self.epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, key as u64))?;
        entry.insert(Endpoint { socket, users: 0, only: None });
        Ok(key)
    }

    fn open(&mut self, now: Instant) -> Result<(), Failure> {
        while now >= self.open_at && self.wants_connections() {
            let since = self.open_at.max(now - self.plan.connect_interval);
            self.open_at = since + self.plan.connect_interval;
            self.open_one(now)?;
        }
        Ok(())
    }

    fn wants_connections(&self) -> bool {
        self.clients.len() < self.plan.options.connections
            && !(matches!(self.plan.pace, Pace::Idle { .. }) && self.all_opened())
            && self.schedule.wants_more(self.tally.succeeded + self.tally.failed())
    }

    fn open_one(&mut self, now: Instant) -> Result<(), Failure> {
        let key = self.clients.vacant_key();
        self.serial = self.serial.wrapping_add(1);
        let client = match &self.dialer {
            Some(dialer) => {
                let tcp = Box::new(Tcp::connect(dialer)?);
                // Both directions, once and for all: edge-triggered, a connection asks until it is told to wait.
                let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
                self.epoll.add(tcp.socket(), EpollEvent::new(flags, OVER_TCP | key as u64))?;
                Client::new(Wire::Tcp(tcp), None, self.serial, now)
            }
            None => {
                let endpoint = match self.plan.options.sockets {
                    Some(count) => (self.opened % count as u64) as usize,
                    None => self.add_endpoint()?,
                };
                let quic = self.connect_quic(key, endpoint)?;
                Client::new(Wire::Quic(Box::new(quic)), Some(endpoint), self.serial, now)
            }
        };
        self.opened += 1;
        self.clients.insert(Box::new(client));
        list(&mut self.listed, key, &mut self.clients[key]);
        Ok(())
    }

    fn connect_quic(&mut self, key: usize, endpoint: usize) -> Result<Quic, Failure> {
        let mut id = [0; ID_BYTES];
        // Slots are far fewer than 2^32: each has a file descriptor or at least 8 KiB of memory.
        id[..4].copy_from_slice(&(key as u32).to_be_bytes());
        id[4..].copy_from_slice(&self.serial.to_be_bytes());
        let entry = &mut self.endpoints[endpoint];
        let mut quic = quiche::connect_with_buffer_factory::<Buffers>(
            Some(&self.plan.sni),
            &quiche::ConnectionId::from_ref(&id),
            entry.socket.local(),
            self.plan.to,
            &mut self.quic,
        )?;
        if let Some(ticket) = &self.ticket {
            quic.set_session(ticket)?;
        }
        entry.users += 1;
        entry.only = self.plan.options.sockets.is_none().then_some(key);
        Ok(Quic::new(quic))
    }

    /// Open loop: gives due requests to connections with room, in turn.
    fn start_due(&mut self, now: Instant) {
        self.schedule.advance(now);
        let slots = self.clients.capacity().max(1);
        while let Some(due) = self.schedule.peek_due() {
            let free = (0..slots)
                .map(|step| (self.cursor + step) % slots)
                .find(|&key| self.clients.get(key).is_some_and(|client| client.has_room(&self.plan)));
            let Some(key) = free else {
                return;
            };
            self.cursor = key + 1;
            let run = Run {
                plan: &self.plan,
                tally: &mut self.tally,
                scratch: &mut self.scratch,
                measuring: self.schedule.is_measuring(),
            };
            let client = &mut self.clients[key];
            list(&mut self.listed, key, client);
            if !client.start(Some(due), now, &run) {
                return;
            }
            self.schedule.take_due();
        }
    }

    fn periodic(&mut self, now: Instant) {
        if self.plan.options.read_rate.is_some() && now >= self.helping_at {
            self.helping_at = now + HELPING_INTERVAL;
            for (key, client) in &mut self.clients {
                list(&mut self.listed, key, client);
            }
        }
        if now < self.sweep_at {
            return;
        }
        self.sweep_at = now + SWEEP_INTERVAL;
        let mut late = Vec::new();
        for (key, client) in &mut self.clients {
            let mut run = Run {
                plan: &self.plan,
                tally: &mut self.tally,
                scratch: &mut self.scratch,
                measuring: self.schedule.is_measuring(),
            };
            // A crowd that has nothing to do costs nothing here. What the sweep ends leaves room for the next.
            let busy = client.in_flight() > 0 || !client.is_ready();
            if client.sweep(now, &mut run) {
                late.push(key);
            }
            if busy {
                list(&mut self.listed, key, client);
            }
        }
        for key in late {
            self.remove(key, Some(Fault::HandshakeTimeout), now);
        }
    }

    /// Lets every connection with news act once, and flushes it.
    fn act(&mut self, now: Instant) {
        let mut listed = std::mem::take(&mut self.listed);
        for key in listed.drain(..) {
            let Some(client) = self.clients.get_mut(key) else {
                continue;
            };
            client.listed = false;
            let mut run = Run {
                plan: &self.plan,
                tally: &mut self.tally,
                scratch: &mut self.scratch,
                measuring: self.schedule.is_measuring(),
            };
            client.progress(now, &mut run, &self.h3);
            while client.has_room(&self.plan) && self.schedule.may_start(client) {
                if !client.start(None, now, &run) {
                    break;
                }
                self.schedule.note_start();
            }
            // The first body bytes go with the head. What ends here leaves room that nothing else tells of.
            let ended = client.progress(now, &mut run, &self.h3);
            if client.is_spent(&self.plan) {
                if self.plan.options.resume {
                    self.ticket = client.session().or(self.ticket.take());
                }
                client.close();
                self.flush(key);
                self.remove(key, None, now);
                continue;
            }
            let reachable = self.flush(key);
            let client = &mut self.clients[key];
            if client.is_closed() || !reachable {
                let fault = if client.is_ready() { Fault::ConnectionLost } else { Fault::HandshakeFailed };
                self.remove(key, Some(fault), now);
                continue;
            }
            if ended > 0 || client.is_eager() {
                list(&mut self.listed, key, client);
            }
            self.arm(key);
        }
        // Whoever was listed meanwhile has its turn next time; keep the larger allocation.
        listed.append(&mut self.listed);
        self.listed = listed;
    }

    /// Sends what a connection has; false: nobody listens there.
    fn flush(&mut self, key: usize) -> bool {
        let client = &mut self.clients[key];
        let socket = client.endpoint.map(|endpoint| &mut self.endpoints[endpoint].socket);
        client.flush(socket, &mut self.output).is_ok()
    }

    fn arm(&mut self, key: usize) {
        let client = &mut self.clients[key];
        let Some(deadline) = client.next_deadline() else {
            return;
        };
        if client.armed.is_none_or(|armed| deadline < armed) {
            client.armed = Some(deadline);
            self.timers.push(Reverse((deadline, key, client.serial)));
        }
    }

    /// Lazy timers: an entry only says "look again"; the connection knows its real deadline.
    fn expire(&mut self, now: Instant) {
        while let Some(&Reverse((at, key, serial))) = self.timers.peek() {
            if at > now {
                return;
            }
            self.timers.pop();
            let Some(client) = self.clients.get_mut(key) else {
                continue;
            };
            if client.serial != serial || client.armed != Some(at) {
                continue;
            }
            client.armed = None;
            match client.next_deadline() {
                Some(deadline) if deadline <= now => {
                    client.on_timer();
                    list(&mut self.listed, key, client);
                }
                _ => self.arm(key),
            }
        }
    }

    fn remove(&mut self, key: usize, fault: Option<Fault>, now: Instant) {
        let mut client = self.clients.remove(key);
        self.lost_before = self.lost_before.wrapping_add(client.packets_lost());
        if let Some(fault) = fault {
            let mut run = Run {
                plan: &self.plan,
                tally: &mut self.tally,
                scratch: &mut self.scratch,
                measuring: self.schedule.is_measuring(),
            };
            client.abandon(fault, &mut run);
            self.open_at = self.open_at.max(now + RETRY_PAUSE);
        }
        let Some(key) = client.endpoint else {
            return;
        };
        let endpoint = &mut self.endpoints[key];
        endpoint.users -= 1;
        if endpoint.only.is_some() {
            let endpoint = self.endpoints.remove(key);
            // Closing the descriptor takes it out of the epoll set.
            self.dropped_before = self.dropped_before.wrapping_add(u64::from(endpoint.socket.dropped));
        }
    }

    fn next_deadline(&self, now: Instant, until: Instant) -> Instant {
        if !self.listed.is_empty() {
            return now;
        }
        let mut deadline = until.min(self.sweep_at);
        if let Some(Reverse((at, ..))) = self.timers.peek() {
            deadline = deadline.min(*at);
        }
        if let Some(at) = self.schedule.next_due() {
            deadline = deadline.min(at);
        }
        if self.plan.options.read_rate.is_some() {
            deadline = deadline.min(self.helping_at);
        }
        if self.wants_connections() {
            deadline = deadline.min(self.open_at.max(now));
        }
        deadline
    }

    fn wait_and_receive(&mut self, deadline: Instant) -> Result<(), Failure> {
        let mut ready = [EpollEvent::empty(); 256];
        let wait = deadline.saturating_duration_since(Instant::now());
        let mut timeout = EpollTimeout::ZERO;
        if wait > Duration::from_millis(2) {
            timeout = u16::try_from(wait.as_millis()).unwrap_or(u16::MAX).into();
        } else if !wait.is_zero() {
            // epoll_wait counts whole milliseconds; an open loop needs better.
            let mut epoll = [PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN)];
            let _ = ppoll(&mut epoll, Some(TimeSpec::from_duration(wait)), None);
        }
        let count = match self.epoll.wait(&mut ready, timeout) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in &ready[..count] {
            if event.data() & OVER_TCP == 0 {
                // Keys are slab indices, put there by `add_endpoint`.
                self.receive(event.data() as usize);
            } else if let Some(client) = self.clients.get_mut((event.data() & !OVER_TCP) as usize)
                && let Wire::Tcp(tcp) = &mut client.wire
            {
                // The event of a connection that is gone, told to another in its slot, makes that one look in vain.
                let flags = event.events();
                let gone = flags.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP | EpollFlags::EPOLLRDHUP);
                tcp.wake(flags.contains(EpollFlags::EPOLLIN), flags.contains(EpollFlags::EPOLLOUT), gone);
                list(&mut self.listed, (event.data() & !OVER_TCP) as usize, client);
            }
        }
        Ok(())
    }

    fn receive(&mut self, key: usize) {
        let Some(endpoint) = self.endpoints.get_mut(key) else {
            return;
        };
        let local = endpoint.socket.local();
        for _ in 0..RECEIVES_PER_TURN {
            let received = match endpoint.socket.receive(&mut self.input) {
                Ok(Some(received)) => received,
                Ok(None) => return,
                Err(_) => {
                    // Refused: the next send tells the connection.
                    if let Some(owner) = endpoint.only
                        && let Some(client) = self.clients.get_mut(owner)
                    {
                        client.close();
                        list(&mut self.listed, owner, client);
                    }
                    return;
                }
            };
            self.tally.receives += 1;
            for packet in self.input[..received.len].chunks_mut(received.segment) {
                self.tally.datagrams += 1;
                let Some(owner) = endpoint.only.or_else(|| addressee(packet, &self.clients)) else {
                    continue;
                };
                if let Some(client) = self.clients.get_mut(owner)
                    && let Wire::Quic(quic) = &mut client.wire
                {
                    quic.receive(packet, self.plan.to, local);
                    list(&mut self.listed, owner, client);
                }
            }
            // A short batch was most likely all there was; if not, epoll says so again.
            if received.len < BUFFER_BYTES / 4 {
                return;
            }
        }
    }
}

fn list(listed: &mut Vec<usize>, key: usize, client: &mut Client) {
    if !client.listed {
        client.listed = true;
        listed.push(key);
    }
}

/// The connection a packet on a shared socket is for.
fn addressee(packet: &[u8], clients: &Slab<Box<Client>>) -> Option<usize> {
    let long = packet.first()? & 0x80 != 0;
    let id = if long {
        if usize::from(*packet.get(5)?) != ID_BYTES {
            return None;
        }
        packet.get(6..6 + ID_BYTES)?
    } else {
        packet.get(1..=ID_BYTES)?
    };
    let key = u32::from_be_bytes(id[..4].try_into().ok()?) as usize;
    let serial = u32::from_be_bytes(id[4..].try_into().ok()?);
    (clients.get(key)?.serial == serial).then_some(key)
}

fn transport(plan: &Plan) -> Result<quiche::Config, Failure> {
    let options = &plan.options;
    let mut quic = quiche::Config::new(quiche::PROTOCOL_VERSION)?;
    quic.set_application_protos(h3::APPLICATION_PROTOCOL)?;
    quic.verify_peer(!options.insecure);
    if !options.insecure {
        let file = options.ca.to_str().ok_or("the path of --ca is not text")?;
        quic.load_verify_locations_from_file(file)
            .map_err(|_| format!("cannot read certificates to trust from `{file}`"))?;
    }
    quic.grease(false);
    // Longer than any silence that is asked for: an idle crowd takes minutes to come, too.
    quic.set_max_idle_timeout(900_000);
    quic.set_max_recv_udp_payload_size(PAYLOAD_MAX);
    quic.set_max_send_udp_payload_size(options.payload);
    quic.set_initial_max_data(options.connection_window);
    quic.set_max_connection_window(options.connection_window);
    quic.set_initial_max_stream_data_bidi_local(options.window);
    quic.set_initial_max_stream_data_uni(1 << 20);
    quic.set_max_stream_window(options.window);
    // The server opens three: control and the two of QPACK; some send a reserved one too.
    quic.set_initial_max_streams_uni(16);
    quic.set_cc_algorithm_name(&options.congestion)
        .map_err(|_| format!("`{}` is no congestion control", options.congestion))?;
    Ok(quic)
}
