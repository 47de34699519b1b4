//! The client's machine: handshake, one request, one response, and the close.

use super::facts::{self, CertificateFacts, ClientFacts, RoundTrip};
use super::path::PathChange;
use super::trust::{self, Verdict};
use super::{
    CertificateFault, ClientError, ClientRequest, ClientResponse, DATAGRAM_BYTES, FieldList, HEAD_BYTES, INFORMATIONAL,
    SEND_BYTES, Trust,
};
use crate::h3::code;
use crate::http::fields::OVERHEAD;
use quiche::h3::NameValue;
use ring::rand::SecureRandom;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Silence after which the connection is gone.
const IDLE: Duration = Duration::from_secs(30);

/// Bytes of the flow-control windows to begin with; the library makes them grow.
const WINDOW: u64 = 8 << 20;

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
    verdict: Verdict,
    /// The request's stream, once its head is sent.
    stream: Option<u64>,
    /// Bytes of the request's body that are sent; all of them also when the server wants no more.
    uploaded: usize,
    buffer: Vec<u8>,
    stage: Stage,
    response: ClientResponse,
    /// Bytes of field sections so far.
    head_bytes: usize,
    path: PathChange,
    retry: bool,
    goaway: bool,
    closing: bool,
}

impl<'a> Client<'a> {
    /// Starts a connection from `local`.
    ///
    /// # Errors
    /// If the library refuses a setting.
    pub fn new(request: ClientRequest<'a>, local: SocketAddr) -> Result<Self, ClientError> {
        let (context, verdict) = trust::context(&request)?;
        let mut config = quiche::Config::with_boring_ssl_ctx_builder(quiche::PROTOCOL_VERSION, context)?;
        config.set_application_protos(&[crate::h3::ALPN])?;
        config.set_max_idle_timeout(u64::try_from(IDLE.as_millis()).unwrap_or(u64::MAX));
        config.set_max_recv_udp_payload_size(DATAGRAM_BYTES);
        config.set_max_send_udp_payload_size(SEND_BYTES);
        config.set_initial_max_data(WINDOW);
        config.set_initial_max_stream_data_bidi_local(WINDOW);
        config.set_initial_max_stream_data_uni(64 << 10);
        config.set_initial_max_streams_uni(8);
        let id = random::<16>()?;
        let id = quiche::ConnectionId::from_ref(&id);
        let address = request.host.parse::<IpAddr>().ok();
        // An address is no server name (RFC 6066 §3).
        let name = address.is_none().then_some(request.host);
        let mut quic = quiche::connect(name, &id, local, request.to, &mut config)?;
        if let Some(address) = address {
            let verify = quic.as_mut().verify_param_mut();
            verify.set_ip(address).map_err(|error| ClientError::Protocol(error.to_string()))?;
        }
        if let Some(session) = request.session {
            quic.set_session(session)?;
        }
        Ok(Self {
            path: PathChange::new(request.migrate),
            request,
            local,
            quic,
            http: None,
            verdict,
            stream: None,
            uploaded: 0,
            buffer: vec![0; 16 << 10],
            stage: Stage::Connecting,
            response: ClientResponse::default(),
            head_bytes: 0,
            retry: false,
            goaway: false,
            closing: false,
        })
    }

    /// How far it is.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Nothing more is expected: the response is whole, and the change of the port is over.
    pub fn is_finished(&self) -> bool {
        self.stage == Stage::Done && self.path.is_settled()
    }

    /// Waits no longer for the change of the port.
    pub fn give_up_path(&mut self, why: &str) {
        self.path.fail(why);
    }

    /// What came so far; whole at [`Stage::Done`].
    pub fn into_response(self) -> ClientResponse {
        self.response
    }

    /// What came of the body since the last call; the caller empties it.
    pub fn take_body(&mut self) -> &mut Vec<u8> {
        &mut self.response.body
    }

    /// What the next connection to this server can resume from.
    pub fn session(&self) -> Option<&[u8]> {
        self.quic.session()
    }

    /// Ends the connection; [`Self::transmit`] has the packet that says so.
    pub fn close(&mut self) {
        // Closed already is as good.
        let _ = self.quic.close(true, code::NO_ERROR, b"");
        self.closing = true;
    }

    /// The next datagram into `out`, of at least [`SEND_BYTES`], and the local address it leaves from.
    ///
    /// # Errors
    /// If the connection failed.
    pub fn transmit(&mut self, out: &mut [u8]) -> Result<Option<(usize, SocketAddr)>, ClientError> {
        match self.quic.send(out) {
            Ok((len, info)) => Ok(Some((len, info.from))),
            Err(quiche::Error::Done) if self.is_over() => Err(self.closed()),
            Err(quiche::Error::Done) => Ok(None),
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
        self.path.advance(&mut self.quic, self.local, self.request.to);
    }

    /// Whether a socket for another path should be made now, to be told by [`Self::move_to`].
    pub fn wants_path(&mut self) -> bool {
        self.stage >= Stage::Answered && self.path.wants_socket(&self.quic, self.stage == Stage::Done)
    }

    /// The other path starts at `local`; `None`: no socket could be made.
    pub fn move_to(&mut self, local: Option<SocketAddr>) {
        match local {
            Some(local) => self.path.begin(&mut self.quic, local, self.request.to),
            None => self.path.fail("no second socket could be made"),
        }
    }

    /// Takes a datagram that came to the local address `to`.
    ///
    /// # Errors
    /// Why there will be no response.
    pub fn receive(&mut self, datagram: &mut [u8], to: SocketAddr) -> Result<(), ClientError> {
        let first = if self.quic.is_established() { None } else { First::of(datagram) };
        let info = quiche::RecvInfo { from: self.request.to, to };
        match self.quic.recv(datagram, info) {
            Ok(_) | Err(quiche::Error::Done) => {}
            // The closed connection tells the reason; what came before the close is still taken.
            Err(_) if self.quic.peer_error().is_some() => {}
            Err(quiche::Error::UnknownVersion) => {
                let versions = if let Some(First::Versions(versions)) = first { versions } else { Vec::new() };
                return Err(ClientError::Versions(versions));
            }
            Err(error) => {
                return Err(match self.verdict.get() {
                    Some(fault) if !self.quic.is_established() => ClientError::Certificate(Box::new(fault.clone())),
                    _ => ClientError::Protocol(format!("{error:?}")),
                });
            }
        }
        // The library takes a Retry once, and only a genuine one: then it goes on with the connection ID from it.
        self.retry |= matches!(first, Some(First::Retry(id)) if id == self.quic.destination_id());
        if self.quic.is_established() {
            while self.quic.scids_left() > 0 {
                // For other paths of ours; the library knows which are in use.
                let (id, token) = (random::<16>()?, u128::from_ne_bytes(random()?));
                if self.quic.new_scid(&quiche::ConnectionId::from_ref(&id), token, false).is_err() {
                    break;
                }
            }
            self.ask()?;
        }
        self.poll()?;
        self.path.advance(&mut self.quic, self.local, self.request.to);
        if self.is_over() {
            return Err(self.closed());
        }
        if self.stage == Stage::Done && (self.quic.is_draining() || self.quic.is_closed()) {
            self.path.fail("the server closed the connection");
        }
        Ok(())
    }

    /// Ended before the response was whole.
    fn is_over(&self) -> bool {
        self.stage != Stage::Done && !self.closing && (self.quic.is_closed() || self.quic.is_draining())
    }

    /// Sends what is still to be sent of the request.
    fn ask(&mut self) -> Result<(), ClientError> {
        if self.http.is_none() {
            if let Trust::Exactly(expected) = self.request.trust
                && self.quic.peer_cert() != Some(expected)
            {
                let fault = CertificateFault::other(self.quic.peer_cert());
                return Err(ClientError::Certificate(Box::new(fault)));
            }
            let mut config = quiche::h3::Config::new()?;
            config.set_max_field_section_size(HEAD_BYTES as u64);
            self.http = Some(quiche::h3::Connection::with_transport(&mut self.quic, &config)?);
            self.stage = Stage::Asked;
        }
        if self.stream.is_none() {
            self.ask_head()?;
        }
        while let (Some(http), Some(stream)) = (&mut self.http, self.stream)
            && self.uploaded < self.request.body.len()
        {
            match http.send_body(&mut self.quic, stream, &self.request.body[self.uploaded..], true) {
                Ok(len) => self.uploaded += len,
                Err(quiche::h3::Error::Done | quiche::h3::Error::StreamBlocked) => break,
                // The server wants no more of it, and may answer all the same.
                Err(quiche::h3::Error::TransportError(quiche::Error::StreamStopped(_))) => {
                    self.uploaded = self.request.body.len();
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn ask_head(&mut self) -> Result<(), ClientError> {
        let Some(http) = &mut self.http else {
            return Ok(());
        };
        let request = &self.request;
        let mut head = vec![
            quiche::h3::Header::new(b":method", request.method.as_bytes()),
            quiche::h3::Header::new(b":scheme", b"https"),
            quiche::h3::Header::new(b":authority", request.authority.as_bytes()),
            quiche::h3::Header::new(b":path", request.path.as_bytes()),
        ];
        head.extend(request.fields.iter().map(|(name, value)| quiche::h3::Header::new(name.as_bytes(), value)));
        match http.send_request(&mut self.quic, &head, request.body.is_empty()) {
            Ok(stream) => self.stream = Some(stream),
            // The server does not allow a stream yet.
            Err(quiche::h3::Error::StreamBlocked | quiche::h3::Error::TransportError(quiche::Error::StreamLimit)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Takes in what came.
    fn poll(&mut self) -> Result<(), ClientError> {
        while let Some(http) = &mut self.http {
            match http.poll(&mut self.quic) {
                Ok((_, quiche::h3::Event::Headers { list, .. })) => self.take_head(&list)?,
                Ok((stream, quiche::h3::Event::Data)) => {
                    while let Ok(len) = http.recv_body(&mut self.quic, stream, &mut self.buffer) {
                        self.response.body_bytes += len as u64;
                        if self.response.body_bytes > self.request.body_max {
                            return Err(ClientError::TooLarge);
                        }
                        self.response.body.extend_from_slice(&self.buffer[..len]);
                    }
                }
                Ok((_, quiche::h3::Event::Finished)) if self.stage == Stage::Answered => self.stage = Stage::Done,
                Ok((_, quiche::h3::Event::Finished)) => {
                    return Err(ClientError::Protocol("the stream ended without a response".to_owned()));
                }
                // A reset behind a whole response only says that the server wants no more of the request.
                Ok((_, quiche::h3::Event::Reset(code))) if self.stage != Stage::Done => {
                    return Err(ClientError::Reset(code));
                }
                Ok((id, quiche::h3::Event::GoAway)) => {
                    self.goaway = true;
                    // Requests from that one on are not processed (RFC 9114 §5.2).
                    if self.stream.is_some_and(|stream| stream >= id) && self.stage < Stage::Answered {
                        return Err(ClientError::GoAway);
                    }
                }
                Ok((_, quiche::h3::Event::Reset(_) | quiche::h3::Event::PriorityUpdate)) => {}
                Err(quiche::h3::Error::Done) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn take_head(&mut self, list: &[quiche::h3::Header]) -> Result<(), ClientError> {
        let malformed = |what: &str| Err(ClientError::Protocol(format!("malformed response: {what}")));
        self.head_bytes += list.iter().map(|field| field.name().len() + field.value().len() + OVERHEAD).sum::<usize>();
        if self.head_bytes > HEAD_BYTES {
            return malformed("too many fields");
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let status = list.iter().find(|field| field.name() == b":status").map(|field| text(field.value()));
        let fields = list.iter().filter(|field| !field.name().starts_with(b":"));
        let fields: FieldList = fields.map(|field| (text(field.name()), text(field.value()))).collect();
        if self.stage >= Stage::Answered {
            if status.is_some() {
                return malformed("a status behind the final head");
            }
            self.response.trailers = fields;
            return Ok(());
        }
        match status.and_then(|status| status.parse().ok()) {
            Some(status @ 100..200) => {
                if self.response.informational.len() == INFORMATIONAL {
                    return malformed("too many informational heads");
                }
                self.response.informational.push((status, fields));
            }
            Some(status @ 200..1000) => {
                self.stage = Stage::Answered;
                self.response.status = status;
                self.response.fields = fields;
            }
            _ => return malformed("no status"),
        }
        Ok(())
    }

    fn closed(&self) -> ClientError {
        if let Some(error) = self.quic.peer_error() {
            return ClientError::of_close(error);
        }
        if self.quic.is_timed_out() {
            return ClientError::Timeout;
        }
        match self.quic.local_error() {
            Some(error) => ClientError::Protocol(format!("code {:#x}", error.error_code)),
            // Nobody said anything, and it ended at once.
            None => ClientError::StatelessReset,
        }
    }

    /// What can be told of the connection now.
    pub fn facts(&mut self) -> ClientFacts {
        let established = self.quic.is_established();
        let path = self.quic.path_stats().find(|path| path.active);
        let fault = self.verdict.get().cloned();
        ClientFacts {
            version: quiche::PROTOCOL_VERSION,
            alpn: String::from_utf8_lossy(self.quic.application_proto()).into_owned(),
            tls: if established { facts::tls(self.quic.as_mut()) } else { None },
            resumed: self.quic.is_resumed(),
            ticket: self.quic.session().is_some(),
            retry: self.retry,
            goaway: self.goaway,
            packets: facts::packets(&self.quic),
            // Before the first acknowledgement there is only a guess.
            round_trip: path.as_ref().filter(|path| path.min_rtt.is_some()).map(|path| RoundTrip {
                smoothed: path.rtt,
                min: path.min_rtt,
                variation: path.rttvar,
            }),
            datagram_bytes: path.as_ref().map_or(0, |path| path.pmtu),
            congestion_window: path.as_ref().map_or(0, |path| path.cwnd),
            migration: self.path.told(),
            certificate: self
                .quic
                .peer_cert()
                .and_then(CertificateFacts::from_der)
                .or_else(|| fault.as_ref().filter(|fault| fault.depth == 0)?.certificate.clone()),
            chain: self.quic.peer_cert_chain().map_or(0, |chain| chain.len()),
            fault,
        }
    }
}

/// What a server may send first instead of going on.
enum First {
    /// The connection ID to go on with.
    Retry(quiche::ConnectionId<'static>),
    Versions(Vec<u32>),
}

impl First {
    fn of(datagram: &mut [u8]) -> Option<Self> {
        let header = quiche::Header::from_slice(datagram, quiche::MAX_CONN_ID_LEN).ok()?;
        match header.ty {
            quiche::Type::Retry => Some(Self::Retry(header.scid)),
            quiche::Type::VersionNegotiation => Some(Self::Versions(header.versions.unwrap_or_default())),
            _ => None,
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N], ClientError> {
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| ClientError::Protocol("the system has no randomness".to_owned()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
