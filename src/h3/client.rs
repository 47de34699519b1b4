//! A small blocking HTTP/3 client: one request on one connection, for the demo's proof and for probes.
//!
//! Not part of the data path: it owns a plain UDP socket, blocks its thread, and trusts exactly one certificate (or none
//! at all, when only reachability is asked for). It shares nothing with the server side but the library.

use quiche::h3::NameValue;
use ring::rand::SecureRandom;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Bytes of a datagram that may come.
const DATAGRAM_BYTES: usize = 65_535;

/// Bytes of a datagram that we send.
const SEND_BYTES: usize = 1350;

/// What is asked.
#[derive(Debug, Clone)]
pub struct ClientRequest<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// Name for the handshake (SNI) and host of the authority.
    pub host: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// The certificate the server has to show, as DER; `None` takes any.
    pub certificate: Option<&'a [u8]>,
    /// For everything together.
    pub timeout: Duration,
    /// Bytes of body at most.
    pub body_max: usize,
}

/// What came.
#[derive(Debug, Clone, Default)]
pub struct ClientResponse {
    /// The final status.
    pub status: u16,
    /// Fields of the final head.
    pub fields: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// From the first packet to the completed handshake.
    pub handshake: Duration,
    /// From the request sent to the response head.
    pub first_byte: Duration,
    /// From the first packet to the end.
    pub total: Duration,
}

/// Why nothing came.
#[derive(Debug)]
pub enum ClientError {
    /// The socket failed.
    Socket(io::Error),
    /// The library refused something, or the server violated the protocol.
    Protocol(String),
    /// The server showed another certificate.
    Certificate,
    /// The server reset the request's stream.
    Reset(u64),
    /// The server closed the connection.
    Closed(String),
    /// More body than permitted.
    TooLarge,
    /// It took too long.
    Timeout,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(error) => write!(f, "the UDP socket failed: {error}"),
            Self::Protocol(error) => write!(f, "HTTP/3 failed: {error}"),
            Self::Certificate => write!(f, "the server showed another certificate"),
            Self::Reset(code) => write!(f, "the server reset the stream (code {code:#x})"),
            Self::Closed(why) => write!(f, "the server closed the connection ({why})"),
            Self::TooLarge => write!(f, "the body is larger than permitted"),
            Self::Timeout => write!(f, "no answer in time"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

impl From<quiche::Error> for ClientError {
    fn from(error: quiche::Error) -> Self {
        Self::Protocol(error.to_string())
    }
}

impl From<quiche::h3::Error> for ClientError {
    fn from(error: quiche::h3::Error) -> Self {
        Self::Protocol(error.to_string())
    }
}

/// Makes one GET request and waits for the whole response.
///
/// # Errors
/// Why there is none.
pub fn get(request: &ClientRequest<'_>) -> Result<ClientResponse, ClientError> {
    let mut client = Client::connect(request)?;
    client.run(request)?;
    Ok(client.response)
}

struct Client {
    socket: UdpSocket,
    local: SocketAddr,
    quic: quiche::Connection,
    http: Option<quiche::h3::Connection>,
    buffer: Vec<u8>,
    began: Instant,
    asked: Instant,
    response: ClientResponse,
}

impl Client {
    fn connect(request: &ClientRequest<'_>) -> Result<Self, ClientError> {
        let any: SocketAddr = match request.to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        // Connected: a port nobody listens on is told at once.
        socket.connect(request.to)?;
        let local = socket.local_addr()?;
        let mut config = quiche::Config::new(quiche::PROTOCOL_VERSION)?;
        config.set_application_protos(&[super::ALPN])?;
        // The chain of a self-signed certificate leads nowhere; the certificate itself is compared.
        config.verify_peer(false);
        config.set_max_idle_timeout(u64::try_from(request.timeout.as_millis()).unwrap_or(30_000));
        config.set_max_recv_udp_payload_size(DATAGRAM_BYTES);
        config.set_max_send_udp_payload_size(SEND_BYTES);
        config.set_initial_max_data(8 << 20);
        config.set_initial_max_stream_data_bidi_local(8 << 20);
        config.set_initial_max_stream_data_uni(64 << 10);
        config.set_initial_max_streams_uni(8);
        let mut id = [0; 16];
        ring::rand::SystemRandom::new()
            .fill(&mut id)
            .map_err(|_| ClientError::Protocol("the system has no randomness".to_owned()))?;
        let id = quiche::ConnectionId::from_ref(&id);
        let quic = quiche::connect(Some(request.host), &id, local, request.to, &mut config)?;
        let now = Instant::now();
        Ok(Self {
            socket,
            local,
            quic,
            http: None,
            buffer: vec![0; DATAGRAM_BYTES],
            began: now,
            asked: now,
            response: ClientResponse::default(),
        })
    }

    fn run(&mut self, request: &ClientRequest<'_>) -> Result<(), ClientError> {
        let deadline = self.began + request.timeout;
        loop {
            self.send()?;
            if self.quic.is_closed() {
                return Err(self.closed());
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(ClientError::Timeout);
            }
            let wait = self.quic.timeout().unwrap_or(request.timeout);
            // A read timeout of zero would mean none.
            let wait = wait.min(deadline - now).max(Duration::from_millis(1));
            self.receive(request.to, wait)?;
            if self.quic.is_established() && self.http.is_none() {
                self.ask(request)?;
            }
            if self.poll(request)? {
                self.response.total = self.began.elapsed();
                // H3_NO_ERROR; nobody waits for the answer.
                let _ = self.quic.close(true, 0x100, b"");
                return self.send();
            }
        }
    }

    fn ask(&mut self, request: &ClientRequest<'_>) -> Result<(), ClientError> {
        self.response.handshake = self.began.elapsed();
        if let Some(expected) = request.certificate
            && self.quic.peer_cert() != Some(expected)
        {
            return Err(ClientError::Certificate);
        }
        let config = quiche::h3::Config::new()?;
        let mut http = quiche::h3::Connection::with_transport(&mut self.quic, &config)?;
        let authority = format!("{}:{}", request.host, request.to.port());
        let head = [
            quiche::h3::Header::new(b":method", b"GET"),
            quiche::h3::Header::new(b":scheme", b"https"),
            quiche::h3::Header::new(b":authority", authority.as_bytes()),
            quiche::h3::Header::new(b":path", request.path.as_bytes()),
            quiche::h3::Header::new(b"user-agent", b"spooky"),
        ];
        http.send_request(&mut self.quic, &head, true)?;
        self.http = Some(http);
        self.asked = Instant::now();
        Ok(())
    }

    /// Takes in what came; true when the response is whole.
    fn poll(&mut self, request: &ClientRequest<'_>) -> Result<bool, ClientError> {
        let Some(http) = &mut self.http else {
            return Ok(false);
        };
        loop {
            match http.poll(&mut self.quic) {
                Ok((_, quiche::h3::Event::Headers { list, .. })) => {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let status = list.iter().find(|field| field.name() == b":status");
                    let Some(status) = status.and_then(|field| text(field.value()).parse().ok()) else {
                        // Trailers.
                        continue;
                    };
                    if status < 200 {
                        continue;
                    }
                    self.response.status = status;
                    self.response.first_byte = self.asked.elapsed();
                    self.response.fields = list
                        .iter()
                        .filter(|field| !field.name().starts_with(b":"))
                        .map(|field| (text(field.name()), text(field.value())))
                        .collect();
                }
                Ok((stream, quiche::h3::Event::Data)) => {
                    while let Ok(len) = http.recv_body(&mut self.quic, stream, &mut self.buffer) {
                        if self.response.body.len() + len > request.body_max {
                            return Err(ClientError::TooLarge);
                        }
                        self.response.body.extend_from_slice(&self.buffer[..len]);
                    }
                }
                Ok((_, quiche::h3::Event::Finished)) => return Ok(true),
                Ok((_, quiche::h3::Event::Reset(code))) => return Err(ClientError::Reset(code)),
                Ok((_, quiche::h3::Event::GoAway | quiche::h3::Event::PriorityUpdate)) => {}
                Err(quiche::h3::Error::Done) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn send(&mut self) -> Result<(), ClientError> {
        let mut packet = [0; SEND_BYTES];
        loop {
            match self.quic.send(&mut packet) {
                Ok((len, _)) => match self.socket.send(&packet[..len]) {
                    Ok(_) => {}
                    // A full buffer is a lost packet.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                },
                Err(quiche::Error::Done) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn receive(&mut self, from: SocketAddr, wait: Duration) -> Result<(), ClientError> {
        self.socket.set_read_timeout(Some(wait))?;
        match self.socket.recv(&mut self.buffer) {
            Ok(len) => {
                let to = self.local;
                let info = quiche::RecvInfo { from, to };
                match self.quic.recv(&mut self.buffer[..len], info) {
                    Ok(_) | Err(quiche::Error::Done) => {}
                    // The reason is told by the closed connection.
                    Err(_) if self.quic.is_closed() || self.quic.is_draining() => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                self.quic.on_timeout();
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn closed(&self) -> ClientError {
        if self.quic.is_timed_out() {
            return ClientError::Timeout;
        }
        let error = self.quic.peer_error().or(self.quic.local_error());
        ClientError::Closed(error.map_or_else(
            || "no reason given".to_owned(),
            |error| {
                let space = if error.is_app { "HTTP/3" } else { "QUIC" };
                let reason = String::from_utf8_lossy(&error.reason);
                format!("{space} code {:#x} {reason:?}", error.error_code)
            },
        ))
    }
}
