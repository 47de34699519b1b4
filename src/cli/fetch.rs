//! One HTTP/3 request on a ring: sockets, waiting and time around [`crate::h3::client`]. The demo's proof and `probe` share it.

use super::Stop;
use crate::control::Failure;
use crate::h3::client::{Client, ClientError, ClientFacts, ClientRequest, ClientResponse, Stage};
use spooky_uring::{Event, Features, Io, PoolConfig, Ring, RingConfig, Token, Transmit, UdpId, UdpOptions, UdpSocket};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Datagrams under way to the kernel at once; when they are used up, the next turn comes soon.
const SEND_SLOTS: u16 = 32;

/// Until then, when the send slots are used up.
const SOON: Duration = Duration::from_millis(1);

/// Wanted socket buffers, in bytes: what the kernel gives without privilege is enough as well.
const SOCKET_BUFFER: usize = 2 << 20;

/// How much time there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For the handshake.
    pub handshake: Duration,
    /// For everything.
    pub whole: Duration,
}

/// What became of one request.
#[derive(Debug)]
pub(super) struct Fetched {
    /// What came; the body went to the caller.
    pub response: ClientResponse,
    /// What can be told of the connection; `None`: there was none.
    pub facts: Option<ClientFacts>,
    /// Our address of the first path.
    pub local: Option<SocketAddr>,
    /// From the first packet to the completed handshake.
    pub handshake: Option<Duration>,
    /// From the request to the response head.
    pub first_byte: Option<Duration>,
    /// From the first packet to the end.
    pub whole: Duration,
    /// What the next connection can resume from.
    pub session: Option<Vec<u8>>,
    /// Why it did not come to its end.
    pub error: Option<FetchError>,
}

/// Why there is no whole response.
#[derive(Debug)]
pub(super) enum FetchError {
    /// Nobody listens there: the host said so.
    Refused,
    /// The network says that there is no way.
    Unreachable(io::Error),
    /// A socket failed.
    Socket(io::Error),
    /// The protocol failed.
    Client(ClientError),
    /// The time is over: how far it had come.
    Late(Stage),
    /// The body could not be written.
    Output(io::Error),
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => write!(f, "nothing listens there: the host refuses the UDP port (ICMP)"),
            Self::Unreachable(error) => write!(f, "no way leads there: {error}"),
            Self::Socket(error) => write!(f, "the UDP socket failed: {error}"),
            Self::Client(error) => error.fmt(f),
            Self::Late(Stage::Connecting) => write!(f, "no answer to the QUIC handshake in time"),
            Self::Late(Stage::Asked) => write!(f, "no response in time, after a good handshake"),
            Self::Late(_) => write!(f, "the response did not end in time"),
            Self::Output(error) => write!(f, "the body cannot be written: {error}"),
        }
    }
}

impl From<ClientError> for FetchError {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl FetchError {
    /// What a system call, or the network through the socket, said.
    fn of_socket(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Self::Unreachable(error),
            _ => Self::Socket(error),
        }
    }
}

/// A ring to fetch with, one request at a time.
pub(super) struct Fetcher {
    ring: Ring,
    events: Vec<Event>,
    /// Sockets made so far: the next one's token.
    sockets: u64,
}

/// One socket of a connection.
struct Path {
    local: SocketAddr,
    id: UdpId,
    token: Token,
}

impl Fetcher {
    /// Makes the ring.
    pub(super) fn new(features: &Features) -> Result<Self, Stop> {
        let config = RingConfig {
            entries: 128,
            streams: 1,
            stream_receive: PoolConfig { count: 1, size: 4096, posted: 1 },
            udp_receive: PoolConfig { count: 16, posted: 8, ..RingConfig::default().udp_receive },
            udp_send_slots: SEND_SLOTS,
            ..RingConfig::default()
        };
        let ring = Ring::new(&config, features).map_err(|error| Failure::new("io_uring", error))?;
        Ok(Self { ring, events: Vec::new(), sockets: 0 })
    }

    /// Makes the request; the body goes to `body` as it comes. Ends within `limits.whole`.
    pub(super) fn fetch(
        &mut self,
        request: ClientRequest<'_>,
        limits: Limits,
        body: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Fetched {
        let mut fetched = Fetched {
            response: ClientResponse::default(),
            facts: None,
            local: None,
            handshake: None,
            first_byte: None,
            whole: Duration::ZERO,
            session: None,
            error: None,
        };
        let to = request.to;
        let mut paths = Vec::with_capacity(2);
        let client = self.open(to).map_err(FetchError::of_socket).and_then(|path| {
            fetched.local = Some(path.local);
            let client = Client::new(request, path.local);
            paths.push(path);
            Ok(client?)
        });
        match client {
            Ok(mut client) => {
                // Not before: reading the system's authorities is none of the server's time.
                let began = Instant::now();
                let mut turns =
                    Turns { fetcher: self, client: &mut client, paths: &mut paths, to, began, limits, body };
                fetched.error = turns.run(&mut fetched).err();
                fetched.whole = began.elapsed();
                turns.part();
                fetched.facts = Some(client.facts());
                fetched.session = client.session().map(<[u8]>::to_vec);
                fetched.response = client.into_response();
            }
            Err(error) => fetched.error = Some(error),
        }
        for path in paths {
            self.ring.close_udp(path.id);
        }
        // A ring that fails here fails again when it is used next.
        let _ = self.turn(None);
        self.events.clear();
        fetched
    }

    /// A socket that talks to `to` only, so that a port nobody listens on is told at once.
    fn open(&mut self, to: SocketAddr) -> io::Result<Path> {
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let mut socket = UdpSocket::bind(&UdpOptions {
            receive_buffer: SOCKET_BUFFER,
            send_buffer: SOCKET_BUFFER,
            reuse_port: false,
            ..UdpOptions::new(any)
        })?;
        socket.connect(to)?;
        let token = Token(self.sockets);
        self.sockets += 1;
        let local = socket.local_address();
        Ok(Path { local, id: self.ring.add_udp(socket, token), token })
    }

    /// Submits, and waits for an event, at most so long; `None` does not wait.
    fn turn(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let deadline = Instant::now() + wait.unwrap_or_default();
        self.ring.wait(Some(deadline), &mut self.events)
    }
}

/// The turns of one request.
struct Turns<'f, 'c, 'a> {
    fetcher: &'f mut Fetcher,
    client: &'c mut Client<'a>,
    paths: &'f mut Vec<Path>,
    to: SocketAddr,
    began: Instant,
    limits: Limits,
    body: &'f mut dyn FnMut(&[u8]) -> io::Result<()>,
}

impl Turns<'_, '_, '_> {
    fn run(&mut self, fetched: &mut Fetched) -> Result<(), FetchError> {
        loop {
            let all_sent = self.transmit()?;
            let spent = self.began.elapsed();
            self.note(fetched, spent);
            if self.client.is_finished() {
                return Ok(());
            }
            let stage = self.client.stage();
            let limit = if stage == Stage::Connecting { self.limits.handshake } else { self.limits.whole };
            let Some(left) = limit.checked_sub(spent).filter(|left| !left.is_zero()) else {
                if stage == Stage::Done {
                    self.client.give_up_path("not in time");
                    return Ok(());
                }
                return Err(FetchError::Late(stage));
            };
            let timeout = self.client.timeout();
            let due = Instant::now() + timeout;
            let wait = if all_sent { timeout.min(left) } else { SOON };
            self.fetcher.turn(Some(wait)).map_err(FetchError::Socket)?;
            self.take_events()?;
            if Instant::now() >= due {
                self.client.expire();
            }
            let body = self.client.take_body();
            if !body.is_empty() {
                (self.body)(body).map_err(FetchError::Output)?;
                body.clear();
            }
            if self.client.wants_path() {
                let path = self.fetcher.open(self.to).ok();
                self.client.move_to(path.as_ref().map(|path| path.local));
                self.paths.extend(path);
            }
        }
    }

    /// Notes when the request came to which stage.
    fn note(&self, fetched: &mut Fetched, spent: Duration) {
        if self.client.stage() >= Stage::Asked {
            fetched.handshake.get_or_insert(spent);
        }
        if self.client.stage() >= Stage::Answered {
            let handshake = fetched.handshake.unwrap_or_default();
            fetched.first_byte.get_or_insert(spent.saturating_sub(handshake));
        }
    }

    /// Sends what there is; `false`: there is more, but no slot for it.
    fn transmit(&mut self) -> Result<bool, FetchError> {
        loop {
            let Some(mut slot) = self.fetcher.ring.udp_slot() else {
                return Ok(false);
            };
            let Some((len, from)) = self.client.transmit(&mut slot)? else {
                return Ok(true);
            };
            // A datagram for a path that is gone is a lost one.
            if let Some(path) = self.paths.iter().find(|path| path.local == from) {
                let segment = u16::try_from(len).unwrap_or(u16::MAX);
                self.fetcher.ring.udp_send(path.id, slot, Transmit { len, segment, to: self.to, from: None });
            }
        }
    }

    fn take_events(&mut self) -> Result<(), FetchError> {
        let mut events = std::mem::take(&mut self.fetcher.events);
        let taken = events.drain(..).try_for_each(|event| self.take_event(event));
        self.fetcher.events = events;
        taken
    }

    fn take_event(&mut self, event: Event) -> Result<(), FetchError> {
        match event {
            Event::Datagrams { token, segment, mut lease, .. } => {
                // Those of an earlier request's socket find no path.
                if let Some(path) = self.paths.iter().find(|path| path.token == token) {
                    for datagram in lease.chunks_mut(usize::from(segment.max(1))) {
                        self.client.receive(datagram, path.local)?;
                    }
                }
            }
            Event::DatagramsRefused { token, error, .. } => {
                let error = io::Error::from_raw_os_error(error);
                match self.paths.iter().position(|path| path.token == token) {
                    Some(0) if self.client.stage() != Stage::Done => return Err(FetchError::of_socket(error)),
                    Some(1) => self.client.give_up_path(&format!("the new path is refused: {error}")),
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Says goodbye; nobody waits for the answer.
    fn part(&mut self) {
        self.client.close();
        let _ = self.transmit();
        let _ = self.fetcher.turn(None);
    }
}
