//! The demo's request to itself: a blocking socket around [`crate::h3::client`].

use crate::h3::client::{Client, ClientError, ClientRequest, ClientResponse, DATAGRAM_BYTES, SEND_BYTES, Stage};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// A response and how long it took.
#[derive(Debug)]
pub(super) struct Fetched {
    /// The response.
    pub response: ClientResponse,
    /// From the first packet to the completed handshake.
    pub handshake: Duration,
    /// From the request to the response head.
    pub first_byte: Duration,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum FetchError {
    Socket(io::Error),
    Client(ClientError),
    Late,
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(error) => write!(f, "the UDP socket failed: {error}"),
            Self::Client(error) => error.fmt(f),
            Self::Late => write!(f, "no answer in time"),
        }
    }
}

impl From<io::Error> for FetchError {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

impl From<ClientError> for FetchError {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

/// Makes the request and waits for the whole response, at most `limit`.
pub(super) fn fetch(request: ClientRequest<'_>, limit: Duration) -> Result<Fetched, FetchError> {
    let any: SocketAddr = match request.to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    // Connected: a port nobody listens on is told at once.
    socket.connect(request.to)?;
    let mut client = Client::new(request, socket.local_addr()?)?;
    let mut buffer = vec![0; DATAGRAM_BYTES];
    let began = Instant::now();
    let mut reached = [(Stage::Asked, None), (Stage::Answered, None)];
    loop {
        send(&mut client, &socket)?;
        let spent = began.elapsed();
        for (stage, at) in &mut reached {
            if client.stage() >= *stage {
                at.get_or_insert(spent);
            }
        }
        if client.stage() == Stage::Done {
            let [handshake, head] = reached.map(|(_, at)| at.unwrap_or(spent));
            let first_byte = head.saturating_sub(handshake);
            return Ok(Fetched { response: client.into_response(), handshake, first_byte });
        }
        let Some(left) = limit.checked_sub(spent).filter(|left| !left.is_zero()) else {
            return Err(FetchError::Late);
        };
        // A read timeout of zero would mean none.
        let wait = client.timeout().min(left).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(wait))?;
        match socket.recv(&mut buffer) {
            Ok(len) => client.receive(&mut buffer[..len])?,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => client.expire(),
            // A ring that this thread had for a moment (the probe) still does its last work, which wakes the thread.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn send(client: &mut Client<'_>, socket: &UdpSocket) -> Result<(), FetchError> {
    let mut packet = [0; SEND_BYTES];
    loop {
        match client.transmit(&mut packet)? {
            0 => return Ok(()),
            len => match socket.send(&packet[..len]) {
                Ok(_) => {}
                // A full buffer is a lost packet.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            },
        }
    }
}
