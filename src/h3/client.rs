//! A small HTTP/3 client: one GET request on one connection, for the demo's proof and for probes.
//!
//! Not part of the data path, and a machine without I/O as the rest of this folder: its user moves datagrams and waits.
//! It trusts exactly one certificate, or any when only reachability is asked for. It shares nothing with the server side
//! but the library.

use quiche::h3::NameValue;
use ring::rand::SecureRandom;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// Bytes of a datagram that may come.
pub const DATAGRAM_BYTES: usize = 65_535;

/// Bytes of a datagram that we send.
pub const SEND_BYTES: usize = 1350;

/// Silence after which the connection is gone.
const IDLE: Duration = Duration::from_secs(30);

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
}

/// Why nothing came.
#[derive(Debug)]
pub enum ClientError {
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
    /// The server went silent.
    Timeout,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(error) => write!(f, "HTTP/3 failed: {error}"),
            Self::Certificate => write!(f, "the server showed another certificate"),
            Self::Reset(code) => write!(f, "the server reset the stream (code {code:#x})"),
            Self::Closed(why) => write!(f, "the server closed the connection ({why})"),
            Self::TooLarge => write!(f, "the body is larger than permitted"),
            Self::Timeout => write!(f, "the server does not answer"),
        }
    }
}

impl std::error::Error for ClientError {}

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

/// How far the request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The handshake runs.
    Connecting,
    /// The request is on its way.
    Asked,
    /// The response head came.
    Answered,
    /// The response is whole.
    Done,
}

/// One connection with one request.
pub struct Client<'a> {
    request: ClientRequest<'a>,
    local: SocketAddr,
    quic: quiche::Connection,
    http: Option<quiche::h3::Connection>,
    buffer: Vec<u8>,
    stage: Stage,
    response: ClientResponse,
}

impl<'a> Client<'a> {
    /// Starts a connection from `local`.
    ///
    /// # Errors
    /// If the library refuses a setting.
    pub fn new(request: ClientRequest<'a>, local: SocketAddr) -> Result<Self, ClientError> {
        let mut config = quiche::Config::new(quiche::PROTOCOL_VERSION)?;
        config.set_application_protos(&[super::ALPN])?;
        // The chain of a self-signed certificate leads nowhere; the certificate itself is compared.
        config.verify_peer(false);
        config.set_max_idle_timeout(u64::try_from(IDLE.as_millis()).unwrap_or(u64::MAX));
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
        Ok(Self {
            request,
            local,
            quic,
            http: None,
            buffer: vec![0; 16 << 10],
            stage: Stage::Connecting,
            response: ClientResponse::default(),
        })
    }

    /// How far it is.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// What came; whole at [`Stage::Done`].
    pub fn into_response(self) -> ClientResponse {
        self.response
    }

    /// The next datagram into `out`, of at least [`SEND_BYTES`]; 0 when there is none.
    ///
    /// # Errors
    /// If the connection failed.
    pub fn transmit(&mut self, out: &mut [u8]) -> Result<usize, ClientError> {
        match self.quic.send(out) {
            Ok((len, _)) => Ok(len),
            Err(quiche::Error::Done) if self.stage != Stage::Done && self.quic.is_closed() => Err(self.closed()),
            Err(quiche::Error::Done) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// How long to wait for a datagram before [`Self::expire`].
    pub fn timeout(&self) -> Duration {
        self.quic.timeout().unwrap_or(IDLE)
    }

    /// That time passed.
    pub fn expire(&mut self) {
        self.quic.on_timeout();
    }

    /// Takes a datagram.
    ///
    /// # Errors
    /// Why there will be no response.
    pub fn receive(&mut self, datagram: &mut [u8]) -> Result<(), ClientError> {
        let info = quiche::RecvInfo { from: self.request.to, to: self.local };
        match self.quic.recv(datagram, info) {
            Ok(_) | Err(quiche::Error::Done) => {}
            // The closed connection tells the reason.
            Err(_) if self.quic.is_closed() || self.quic.is_draining() => {}
            Err(error) => return Err(error.into()),
        }
        if self.quic.is_established() && self.http.is_none() {
            self.ask()?;
        }
        self.poll()?;
        if self.stage == Stage::Done {
            // H3_NO_ERROR; nobody waits for the answer.
            let _ = self.quic.close(true, super::code::NO_ERROR, b"");
        }
        Ok(())
    }

    fn ask(&mut self) -> Result<(), ClientError> {
        if let Some(expected) = self.request.certificate
            && self.quic.peer_cert() != Some(expected)
        {
            return Err(ClientError::Certificate);
        }
        let config = quiche::h3::Config::new()?;
        let mut http = quiche::h3::Connection::with_transport(&mut self.quic, &config)?;
        let authority = format!("{}:{}", self.request.host, self.request.to.port());
        let head = [
            quiche::h3::Header::new(b":method", b"GET"),
            quiche::h3::Header::new(b":scheme", b"https"),
            quiche::h3::Header::new(b":authority", authority.as_bytes()),
            quiche::h3::Header::new(b":path", self.request.path.as_bytes()),
            quiche::h3::Header::new(b"user-agent", b"spooky"),
        ];
        http.send_request(&mut self.quic, &head, true)?;
        self.http = Some(http);
        self.stage = Stage::Asked;
        Ok(())
    }

    /// Takes in what came.
    fn poll(&mut self) -> Result<(), ClientError> {
        let Some(http) = &mut self.http else {
            return Ok(());
        };
        loop {
            match http.poll(&mut self.quic) {
                Ok((_, quiche::h3::Event::Headers { list, .. })) => {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let status = list.iter().find(|field| field.name() == b":status");
                    let status = status.and_then(|field| text(field.value()).parse().ok());
                    // Trailers have none, and 1xx is not the end.
                    let Some(status @ 200..) = status else {
                        continue;
                    };
                    self.stage = Stage::Answered;
                    self.response.status = status;
                    let fields = list.iter().filter(|field| !field.name().starts_with(b":"));
                    self.response.fields = fields.map(|field| (text(field.name()), text(field.value()))).collect();
                }
                Ok((stream, quiche::h3::Event::Data)) => {
                    while let Ok(len) = http.recv_body(&mut self.quic, stream, &mut self.buffer) {
                        if self.response.body.len() + len > self.request.body_max {
                            return Err(ClientError::TooLarge);
                        }
                        self.response.body.extend_from_slice(&self.buffer[..len]);
                    }
                }
                Ok((_, quiche::h3::Event::Finished)) => {
                    self.stage = Stage::Done;
                    return Ok(());
                }
                Ok((_, quiche::h3::Event::Reset(code))) => return Err(ClientError::Reset(code)),
                Ok((_, quiche::h3::Event::GoAway | quiche::h3::Event::PriorityUpdate)) => {}
                Err(quiche::h3::Error::Done) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
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
