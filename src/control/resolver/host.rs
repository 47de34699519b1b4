//! The sockets of the questions, and what becomes of the news: log lines, counters, and addresses for the workers.
//!
//! Each question over UDP has a socket of its own, connected to its server: the kernel draws the port, and drops what others
//! send to it. Decides nothing: that is [`super::names`]'s business.

use super::message::Transport;
use super::names::{NameId, Names, News, Order, QuestionKey, Settings};
use super::system::{self, Hosts, ResolvConf};
use crate::config::{BackendId, Generation, Location};
use crate::control::workers::{Latest, WorkerLine, chance};
use crate::http::Reason;
use crate::limits;
use crate::telemetry::kinds::ResolverFailure;
use crate::telemetry::registry::ControlCells;
use crate::worker::{Command, Endpoints, Resolved};
use rustc_hash::FxHashMap;
use spooky_uring::{Chunk, Event, Io, Ring, StreamAddress, StreamId, Token, Transmit, UdpId, UdpOptions, UdpSocket};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The upper half of the tokens of these sockets.
const SPACE: u64 = 2;

/// The wait for a send buffer, for room in a worker's mailbox, or at the start for workers to read theirs: rare, and nobody
/// tells when it is over.
const SOON: Duration = Duration::from_millis(5);

/// One question's socket.
enum Socket {
    Datagram {
        id: UdpId,
        server: SocketAddr,
    },
    Stream {
        id: StreamId,
        /// What is sent once it is connected.
        question: Vec<u8>,
        /// What has come: two bytes of length, then the message.
        answer: Vec<u8>,
    },
}

/// Resolves the names of a configuration's backends, and tells the workers.
pub struct Resolver {
    names: Names,
    /// Whose addresses a name's are.
    backends: Vec<(BackendId, NameId)>,
    /// At most [`limits::RESOLVER_QUESTIONS`].
    sockets: FxHashMap<QuestionKey, Socket>,
    /// Questions that found no send buffer; among those with a socket.
    unsent: VecDeque<(QuestionKey, Vec<u8>)>,
    /// When the start stops waiting for names.
    start_until: Instant,
    /// What the workers are told.
    endpoints: Latest<Endpoints>,
    /// Something was received: the names are looked at in this turn.
    touched: bool,
}

impl Resolver {
    /// Reads what the system says and takes the names of `generation`. `None`: there are none, and nothing is ever asked.
    pub fn new(generation: &Generation, workers: usize, now: Instant) -> Option<Self> {
        let mut list: Vec<Box<str>> = Vec::new();
        let mut backends = Vec::new();
        for (at, backend) in generation.backends.iter().enumerate() {
            if let Location::Named { host, .. } = &backend.location {
                let known = list.iter().position(|known| known == host);
                let name = known.unwrap_or_else(|| {
                    list.push(host.clone());
                    list.len() - 1
                });
                backends.push((BackendId(at as u32), NameId(name as u32)));
            }
        }
        if list.is_empty() {
            return None;
        }
        let conf = ResolvConf::parse(&read(system::RESOLV_CONF));
        let hosts = Hosts::parse(&read(system::HOSTS));
        let settings = Settings::new(&generation.resolver, conf);
        tracing::debug!(names = list.len(), servers = ?settings.servers, search = ?settings.search, "resolves names");
        Some(Self {
            names: Names::new(settings, &hosts, list, now),
            backends,
            sockets: FxHashMap::default(),
            unsent: VecDeque::new(),
            start_until: now + generation.resolver.start_timeout,
            endpoints: Latest::new(Endpoints::default(), workers),
            touched: true,
        })
    }

    /// Whether the start need not wait any more: every name has had its first outcome and the workers know it, or the time
    /// is over.
    pub fn lets_start(&self, now: Instant) -> bool {
        self.names.is_begun() && self.endpoints.is_read() || now >= self.start_until
    }

    /// The addresses of a backend with a name; none while it is not resolved.
    pub fn addresses(&self, backend: BackendId) -> Vec<IpAddr> {
        let name = self.backends.iter().find(|(known, _)| *known == backend);
        name.and_then(|(_, name)| self.names.addresses(*name).ok()).unwrap_or_default()
    }

    /// Names that have no address.
    pub fn unresolved(&self) -> u64 {
        self.names.standing()[2]
    }

    /// When [`Self::turn`] has something to do; with `starting`, also when the start has waited long enough.
    pub fn deadline(&self, now: Instant, starting: bool) -> Option<Instant> {
        let waits = !self.unsent.is_empty() || self.endpoints.is_unsent() || starting && self.names.is_begun();
        let soon = waits.then(|| now + SOON);
        let start = starting.then_some(self.start_until);
        [self.names.deadline(), soon, start].into_iter().flatten().min()
    }

    /// Notes what happened; gives back what is not the resolver's. [`Self::turn`] acts on it.
    pub fn handle(&mut self, event: Event, ring: &mut Ring) -> Option<Event> {
        let now = ring.now();
        match event {
            Event::Datagrams { token, from, to, segment, lease } => {
                let Some(key) = own(token) else {
                    return Some(Event::Datagrams { token, from, to, segment, lease });
                };
                if matches!(self.sockets.get(&key), Some(Socket::Datagram { server, .. }) if same(*server, from)) {
                    self.names.receive(key, &lease, now, &mut chance);
                }
            }
            Event::DatagramsRefused { token, to, error } => match own(token) {
                Some(key) => self.fail(key, now),
                None => return Some(Event::DatagramsRefused { token, to, error }),
            },
            Event::Connected { token, stream, result } => match own(token) {
                Some(key) => self.connected(key, result, ring),
                None => return Some(Event::Connected { token, stream, result }),
            },
            Event::Received { token, stream, lease } => match own(token) {
                Some(key) => self.received(key, &lease, now),
                None => return Some(Event::Received { token, stream, lease }),
            },
            Event::Ended { token, stream, end } => match own(token) {
                // The answer would have come before.
                Some(key) => self.fail(key, now),
                None => return Some(Event::Ended { token, stream, end }),
            },
            Event::SendFailed { token, stream, error } => match own(token) {
                Some(key) => self.fail(key, now),
                None => return Some(Event::SendFailed { token, stream, error }),
            },
            Event::Sent { token, .. } if own(token).is_some() => {}
            other => return Some(other),
        }
        self.touched = true;
        None
    }

    /// Does what is due, and tells workers, log and counters.
    pub fn turn(&mut self, ring: &mut Ring, workers: &[WorkerLine], cells: &ControlCells) {
        let now = ring.now();
        for (key, bytes) in std::mem::take(&mut self.unsent) {
            self.send(key, bytes, ring);
        }
        // An order that cannot be carried out is another failure, and may make another order.
        while std::mem::take(&mut self.touched) || self.names.deadline().is_some_and(|due| due <= now) {
            self.names.poll(now, &mut chance);
            while let Some(order) = self.names.next_order() {
                self.carry_out(order, ring, now);
            }
        }
        let mut moved = false;
        while let Some(news) = self.names.next_news() {
            moved |= self.tell(&news);
        }
        if moved {
            self.endpoints.set(self.present());
        }
        self.endpoints.send(ring, workers, |_, endpoints| Command::Endpoints(Arc::clone(endpoints)));
        self.count(cells);
    }

    fn fail(&mut self, key: QuestionKey, now: Instant) {
        self.touched = true;
        self.names.fail(key, ResolverFailure::Unreachable, now, &mut chance);
    }

    fn connected(&mut self, key: QuestionKey, result: Result<(), i32>, ring: &mut Ring) {
        match (self.sockets.get_mut(&key), result) {
            (Some(Socket::Stream { id, question, .. }), Ok(())) => {
                ring.send(*id, Chunk::from_vec(std::mem::take(question)));
                ring.resume(*id);
            }
            (Some(Socket::Stream { .. }), Err(_)) => {
                // The socket is closed already.
                self.sockets.remove(&key);
                self.fail(key, ring.now());
            }
            _ => {}
        }
    }

    fn received(&mut self, key: QuestionKey, bytes: &[u8], now: Instant) {
        let Some(Socket::Stream { answer, .. }) = self.sockets.get_mut(&key) else {
            return;
        };
        answer.extend_from_slice(bytes);
        let Some((length, message)) = answer.split_first_chunk::<2>() else {
            return;
        };
        let length = usize::from(u16::from_be_bytes(*length));
        if length > limits::RESOLVER_ANSWER_BYTES {
            self.names.fail(key, ResolverFailure::Malformed, now, &mut chance);
        } else if let Some(message) = message.get(..length) {
            self.names.receive(key, message, now, &mut chance);
        }
    }

    fn carry_out(&mut self, order: Order, ring: &mut Ring, now: Instant) {
        match order {
            Order::Ask { key, server, over: Transport::Datagram, bytes } => match connect(server) {
                Ok(socket) => {
                    let id = ring.add_udp(socket, token(key));
                    self.sockets.insert(key, Socket::Datagram { id, server });
                    self.send(key, bytes, ring);
                }
                Err(error) => {
                    tracing::debug!(%server, %error, "no socket for a question");
                    self.fail(key, now);
                }
            },
            Order::Ask { key, server, over: Transport::Stream, bytes } => {
                match ring.connect(&StreamAddress::Tcp(server), token(key)) {
                    Some(id) => {
                        let mut question = Vec::with_capacity(bytes.len() + 2);
                        // A question is a name and a few bytes.
                        question.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
                        question.extend_from_slice(&bytes);
                        self.sockets.insert(key, Socket::Stream { id, question, answer: Vec::new() });
                    }
                    None => self.fail(key, now),
                }
            }
            Order::Drop(key) => match self.sockets.remove(&key) {
                Some(Socket::Datagram { id, .. }) => ring.close_udp(id),
                Some(Socket::Stream { id, .. }) => ring.close(id),
                None => {}
            },
        }
    }

    fn send(&mut self, key: QuestionKey, bytes: Vec<u8>, ring: &mut Ring) {
        let Some(Socket::Datagram { id, server }) = self.sockets.get(&key) else {
            return;
        };
        let Some(mut slot) = ring.udp_slot() else {
            self.unsent.push_back((key, bytes));
            return;
        };
        let (len, to) = (bytes.len(), *server);
        slot[..len].copy_from_slice(&bytes);
        ring.udp_send(*id, slot, Transmit { len, segment: len as u16, to, from: None });
    }

    /// Logs what changed; `true`: workers are to know.
    fn tell(&self, news: &News) -> bool {
        match news {
            News::Found { name, addresses } => {
                tracing::info!(name = self.names.host(*name), ?addresses, "resolved");
                true
            }
            News::Recovered { name } => {
                tracing::info!(name = self.names.host(*name), "resolves again");
                false
            }
            News::Plain { server } => {
                tracing::warn!(%server, "a DNS server that repeats no capitals and takes no TCP; forgers have less to guess");
                false
            }
            News::Failing { name, cause } => {
                let (host, cause) = (self.names.host(*name), cause.word());
                match self.names.addresses(*name) {
                    Ok(addresses) => {
                        tracing::warn!(
                            name = host,
                            cause,
                            kept = addresses.len(),
                            "not resolved; the last answer is kept"
                        );
                        false
                    }
                    Err(_) => {
                        tracing::warn!(
                            name = host,
                            cause,
                            "not resolved; requests to its backends are refused until it is; check the name, and \
                             `nameserver` in /etc/resolv.conf or `servers` in [resolver]"
                        );
                        true
                    }
                }
            }
        }
    }

    /// Where every backend with a name is now.
    fn present(&self) -> Endpoints {
        let mut lists: FxHashMap<NameId, Resolved> = FxHashMap::default();
        let mut resolved = |name: NameId| {
            let of = || match self.names.addresses(name) {
                Ok(addresses) => Resolved::At(addresses.into()),
                Err(ResolverFailure::Timeout | ResolverFailure::Unreachable) => Resolved::Not(Reason::DnsTimeout),
                Err(_) => Resolved::Not(Reason::DnsError),
            };
            lists.entry(name).or_insert_with(of).clone()
        };
        Endpoints { backends: self.backends.iter().map(|(backend, name)| (*backend, resolved(*name))).collect() }
    }

    fn count(&self, cells: &ControlCells) {
        let (counts, to) = (self.names.counts(), &cells.resolver);
        to.questions_udp.set(counts.datagrams);
        to.questions_tcp.set(counts.streams);
        to.ignored.set(counts.strangers);
        to.resolved.set(counts.resolved);
        to.changed.set(counts.changed);
        for (cell, count) in to.failed.iter().zip(counts.failed) {
            cell.set(count);
        }
        for (cell, count) in to.names.iter().zip(self.names.standing()) {
            cell.set(count);
        }
    }
}

fn token(key: QuestionKey) -> Token {
    // The lower half comes round after 2^32 questions, when the first are long forgotten.
    Token(SPACE << 32 | key.0 & u64::from(u32::MAX))
}

fn own(token: Token) -> Option<QuestionKey> {
    (token.0 >> 32 == SPACE).then_some(QuestionKey(token.0 & u64::from(u32::MAX)))
}

/// The same socket address; zones and flow labels are the kernel's business.
fn same(one: SocketAddr, other: SocketAddr) -> bool {
    one.ip().to_canonical() == other.ip().to_canonical() && one.port() == other.port()
}

/// A socket on a port that the kernel draws, which talks to `server` only.
fn connect(server: SocketAddr) -> std::io::Result<UdpSocket> {
    /// For one answer.
    const BUFFER: usize = 32 << 10;
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut socket = UdpSocket::bind(&UdpOptions {
        receive_buffer: BUFFER,
        send_buffer: BUFFER,
        reuse_port: false,
        coalesce: false,
        ..UdpOptions::new(SocketAddr::new(any, 0))
    })?;
    socket.connect(server)?;
    Ok(socket)
}

/// A file of the system's; one that cannot be read counts as empty.
fn read(path: &str) -> String {
    system::read(Path::new(path)).unwrap_or_else(|error| {
        tracing::warn!(path, %error, "cannot be read; goes on without it");
        String::new()
    })
}
