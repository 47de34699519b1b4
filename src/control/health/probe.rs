//! One probe: a connection of its own, what is spoken on it, and what comes of it.
//!
//! Owns the socket from connecting to the result; knows no time. The machines are those that requests go over: what a probe
//! finds out is true of them.

use crate::config::{Backend, HealthCheck, Location, ProbeSpeech};
use crate::control::boot::VERSION;
use crate::exchange::Upstream;
use crate::h1::{self, Framing};
use crate::h2;
use crate::health::Reading;
use crate::http::{
    Event, HeadLimits, Known, Method, Output, PoolShare, Reason, RequestHead, ResponseHead, Scheme, Target,
};
use crate::limits;
use crate::proxy_protocol::{self, Version};
use crate::telemetry::kinds::ProbeResult;
use crate::tls::{Alpn, ClientContext, ClientSession};
use spooky_uring::{Chunk, End, Io, Lease, Ring, StreamAddress, StreamId, Token};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// What came of a probe, and what people are told of it.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) result: ProbeResult,
    /// Empty if the result says it all.
    pub(super) detail: String,
}

impl From<ProbeResult> for Verdict {
    fn from(result: ProbeResult) -> Self {
        Self { result, detail: String::new() }
    }
}

/// What is spoken.
enum Speech {
    /// The connection, or TLS, is being made.
    Unsettled,
    H1(Box<h1::ClientConnection>),
    H2(Box<h2::ClientConnection>),
}

/// A probe on its way.
pub(super) struct Probe {
    stream: StreamId,
    token: Token,
    /// Addresses that are tried if the one before refuses.
    left: VecDeque<SocketAddr>,
    tls: Option<ClientSession>,
    /// What the protocol wants to send.
    plain: Output,
    /// The same, sealed.
    sealed: Output,
    speech: Speech,
    reading: Reading,
    /// The status that came, for the detail.
    status: u16,
}

/// What a probe is made with.
pub(super) struct Subject<'a> {
    pub(super) backend: &'a Backend,
    pub(super) check: &'a HealthCheck,
    /// What TLS begins with.
    pub(super) context: Option<&'a ClientContext>,
    /// The header of the PROXY protocol that connections to it begin with.
    pub(super) proxy_protocol: Option<Version>,
}

impl Probe {
    /// Begins to connect. `addresses`: where the name of a backend leads to, the first to be tried first.
    ///
    /// # Errors
    /// No probe is possible now; that says nothing of the backend.
    pub(super) fn begin(
        subject: &Subject<'_>,
        addresses: Vec<IpAddr>,
        token: Token,
        ring: &mut Ring,
    ) -> Result<Self, Verdict> {
        let port = subject.check.port;
        let mut left = VecDeque::new();
        let first = match &subject.backend.location {
            Location::Fixed(StreamAddress::Tcp(address)) => {
                StreamAddress::Tcp(SocketAddr::new(address.ip(), port.unwrap_or(address.port())))
            }
            Location::Fixed(unix) => unix.clone(),
            Location::Named { port: own, .. } => {
                left = addresses.into_iter().map(|ip| SocketAddr::new(ip, port.unwrap_or(*own))).collect();
                match left.pop_front() {
                    Some(address) => StreamAddress::Tcp(address),
                    None => return Err(inconclusive("the name has no address")),
                }
            }
        };
        let stream = ring.connect(&first, token).ok_or_else(|| inconclusive("no socket is left"))?;
        Ok(Self {
            stream,
            token,
            left,
            tls: None,
            plain: Output::new(),
            sealed: Output::new(),
            speech: Speech::Unsettled,
            reading: Reading::default(),
            status: 0,
        })
    }

    /// Whether a socket is this probe's.
    pub(super) fn owns(&self, stream: StreamId) -> bool {
        self.stream == stream
    }

    /// The outcome of connecting.
    pub(super) fn connected(
        &mut self,
        result: Result<(), i32>,
        subject: &Subject<'_>,
        ring: &mut Ring,
    ) -> Option<Verdict> {
        if let Err(errno) = result {
            // The socket is closed already; another address may accept.
            return match self.left.pop_front().map(|next| ring.connect(&StreamAddress::Tcp(next), self.token)) {
                Some(Some(stream)) => {
                    self.stream = stream;
                    None
                }
                _ => Some(refused(errno)),
            };
        }
        if subject.check.speech == ProbeSpeech::Nothing {
            return Some(ProbeResult::Passed.into());
        }
        // On another port there is another listener.
        if let (Some(version), None) = (subject.proxy_protocol, subject.check.port) {
            let mut header = Vec::new();
            proxy_protocol::write(version, None, &mut header);
            ring.send(self.stream, Chunk::from_vec(header));
        }
        match subject.check.speech {
            ProbeSpeech::Nothing => {}
            ProbeSpeech::H1 => self.ask(Alpn::H1, subject, ring.now()),
            ProbeSpeech::H2 => self.ask(Alpn::H2, subject, ring.now()),
            ProbeSpeech::Tls | ProbeSpeech::TlsH2 => {
                let Some(context) = subject.context else {
                    return Some(inconclusive("there are no settings of TLS"));
                };
                let begun = ClientSession::new(context, &subject.backend.server_name)
                    .and_then(|mut session| session.start(&mut self.sealed).map(|()| session));
                match begun {
                    Ok(session) => self.tls = Some(session),
                    Err(fault) => return Some(tls(&fault)),
                }
            }
        }
        ring.resume(self.stream);
        self.flush(ring)
    }

    /// Bytes came.
    pub(super) fn received(&mut self, lease: Lease, subject: &Subject<'_>, ring: &mut Ring) -> Option<Verdict> {
        let now = ring.now();
        let Some(session) = &mut self.tls else {
            self.take(lease.into_chunk(), now);
            return self.run(subject, ring);
        };
        let mut chunks = Vec::new();
        let received = session.receive(lease, |chunk| chunks.push(chunk), &mut self.sealed);
        let (settled, ended) = (!session.is_handshaking(), session.peer_closed());
        if matches!(self.speech, Speech::Unsettled) && settled && received.is_ok() {
            let alpn = session.alpn().unwrap_or(Alpn::H1);
            if subject.check.speech == ProbeSpeech::TlsH2 && alpn != Alpn::H2 {
                return Some(Verdict {
                    result: ProbeResult::Tls,
                    detail: "it does not offer HTTP/2 (ALPN)".to_owned(),
                });
            }
            self.ask(alpn, subject, now);
        }
        for chunk in chunks {
            self.take(chunk, now);
        }
        if ended {
            self.end(true);
        }
        let verdict = self.run(subject, ring);
        // What came before a fault counts.
        verdict.or_else(|| received.err().map(|fault| tls(&fault)))
    }

    /// No more bytes will come.
    pub(super) fn ended(&mut self, end: End, subject: &Subject<'_>, ring: &mut Ring) -> Option<Verdict> {
        let truncated = self.tls.as_mut().is_some_and(|session| session.receive_end().is_err());
        self.end(end == End::Fin && !truncated);
        let verdict = self.run(subject, ring);
        Some(verdict.unwrap_or_else(|| closed("the backend closed the connection")))
    }

    /// Ends it, with a word of TLS where there is TLS.
    pub(super) fn close(mut self, ring: &mut Ring) {
        if let Some(session) = &mut self.tls {
            session.close_notify(&mut self.sealed);
            while let Some(chunk) = self.sealed.pop() {
                ring.send(self.stream, chunk);
            }
        }
        ring.close(self.stream);
    }

    /// It is known what is spoken: the request goes out.
    fn ask(&mut self, alpn: Alpn, subject: &Subject<'_>, now: Instant) {
        let check = subject.check;
        let head = request(check);
        let answer = HeadLimits { bytes: limits::PROBE_HEAD_BYTES, ..HeadLimits::RESPONSE };
        let credit = if check.expectation.body.is_some() { limits::PROBE_BODY_BYTES } else { 0 };
        self.speech = match alpn {
            Alpn::H1 => {
                let limits = h1::Limits { head: answer, ..h1::Limits::CLIENT };
                Speech::H1(Box::new(h1::ClientConnection::new(limits)))
            }
            Alpn::H2 => {
                let scheme = if check.speech.is_tls() { Scheme::Https } else { Scheme::Http };
                let settings = h2::Settings { head: answer, scheme, ..h2::Settings::CLIENT };
                Speech::H2(Box::new(h2::ClientConnection::new(settings, PoolShare::unbounded(), now)))
            }
        };
        let mut upstream = match &mut self.speech {
            Speech::Unsettled => return,
            Speech::H1(connection) => Upstream::H1 { connection, out: &mut self.plain },
            Speech::H2(connection) => Upstream::H2 { connection, stream: 0 },
        };
        upstream.send_head(&head, &check.host, Framing::None);
        upstream.grant(credit);
    }

    fn take(&mut self, chunk: Chunk, now: Instant) {
        match &mut self.speech {
            Speech::Unsettled => {}
            Speech::H1(connection) => connection.receive(chunk),
            Speech::H2(connection) => connection.receive(chunk, now),
        }
    }

    fn end(&mut self, cleanly: bool) {
        match (&mut self.speech, cleanly) {
            (Speech::Unsettled, _) => {}
            (Speech::H1(connection), true) => connection.receive_end(),
            (Speech::H1(connection), false) => connection.receive_reset(),
            (Speech::H2(connection), true) => connection.receive_end(),
            (Speech::H2(connection), false) => connection.receive_reset(),
        }
    }

    /// Looks what has come.
    fn run(&mut self, subject: &Subject<'_>, ring: &mut Ring) -> Option<Verdict> {
        loop {
            let event = match &mut self.speech {
                Speech::Unsettled => None,
                Speech::H1(connection) => match connection.next_event() {
                    Ok(event) => event,
                    Err(fault) => return Some(broken(fault.reason().unwrap_or(Reason::UpstreamMalformed))),
                },
                Speech::H2(connection) => connection.next_event().map(|(_, event)| event),
            };
            let Some(event) = event else { break };
            if let Some(verdict) = self.look_at(event, subject) {
                return Some(verdict);
            }
        }
        if let Speech::H2(connection) = &self.speech
            && connection.is_closed()
        {
            return Some(closed("the backend ended the HTTP/2 connection"));
        }
        self.flush(ring)
    }

    fn look_at(&mut self, event: Event<ResponseHead>, subject: &Subject<'_>) -> Option<Verdict> {
        let expected = &subject.check.expectation;
        let result = match event {
            Event::Head { head, end } => {
                self.status = head.status;
                self.reading.head(head.status, end, expected)
            }
            Event::Body(chunk) => self.reading.body(&chunk, expected),
            Event::End | Event::Trailers(_) => Some(ProbeResult::Body),
            Event::Reset(_) => return Some(closed("the backend reset the stream")),
            Event::Refused(refusal) => return Some(broken(refusal.reason)),
            Event::Informational(_) | Event::Stop(_) | Event::Room => None,
        }?;
        let detail = match result {
            ProbeResult::Status => format!("it answered {}", self.status),
            ProbeResult::Body => format!("it answered {} without the expected text", self.status),
            _ => String::new(),
        };
        Some(Verdict { result, detail })
    }

    /// Hands what wants to leave to the socket.
    fn flush(&mut self, ring: &mut Ring) -> Option<Verdict> {
        if let Speech::H2(connection) = &mut self.speech {
            connection.transmit(&mut self.plain);
        }
        let out = match &mut self.tls {
            None => &mut self.plain,
            Some(session) => {
                if let Err(fault) = session.send(&mut self.plain, &mut self.sealed) {
                    return Some(tls(&fault));
                }
                &mut self.sealed
            }
        };
        while let Some(chunk) = out.pop() {
            ring.send(self.stream, chunk);
        }
        None
    }
}

fn request(check: &HealthCheck) -> RequestHead {
    let mut head =
        RequestHead { method: Method::Get, target: Target::Path(check.target.clone()), ..RequestHead::default() };
    head.fields.push_known(Known::UserAgent, format!("spooky/{VERSION}").as_bytes());
    head.fields.push_known(Known::Accept, b"*/*");
    head
}

fn inconclusive(detail: &str) -> Verdict {
    Verdict { result: ProbeResult::Inconclusive, detail: detail.to_owned() }
}

fn closed(detail: &str) -> Verdict {
    Verdict { result: ProbeResult::Closed, detail: detail.to_owned() }
}

fn broken(reason: Reason) -> Verdict {
    let result = match reason {
        Reason::UpstreamClosed | Reason::UpstreamReset | Reason::UpstreamIncomplete => ProbeResult::Closed,
        _ => ProbeResult::Malformed,
    };
    Verdict { result, detail: reason.description().to_owned() }
}

fn tls(fault: &crate::tls::Fault) -> Verdict {
    Verdict { result: ProbeResult::Tls, detail: format!("{}: {}", fault.kind.word(), fault.text) }
}

/// What a connection that was not made says.
fn refused(errno: i32) -> Verdict {
    let error = io::Error::from_raw_os_error(errno);
    let result = match error.kind() {
        ErrorKind::ConnectionRefused => ProbeResult::Refused,
        ErrorKind::TimedOut => ProbeResult::Timeout,
        // Ours: descriptors, memory or ports have run out.
        ErrorKind::AddrNotAvailable | ErrorKind::OutOfMemory => ProbeResult::Inconclusive,
        _ if is_ours(errno) => ProbeResult::Inconclusive,
        _ => ProbeResult::Unreachable,
    };
    Verdict { result, detail: error.to_string() }
}

/// EMFILE, ENFILE and ENOBUFS, which have no kind.
fn is_ours(errno: i32) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = 105;
    matches!(errno, ENFILE | EMFILE | ENOBUFS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_out_on_our_side_says_nothing_of_the_backend() {
        for (errno, result) in [
            (111, ProbeResult::Refused),
            (110, ProbeResult::Timeout),
            (113, ProbeResult::Unreachable),
            (101, ProbeResult::Unreachable),
            // No such unix socket, and one that we may not use.
            (2, ProbeResult::Unreachable),
            (13, ProbeResult::Unreachable),
            (99, ProbeResult::Inconclusive),
            (24, ProbeResult::Inconclusive),
            (23, ProbeResult::Inconclusive),
            (105, ProbeResult::Inconclusive),
            (12, ProbeResult::Inconclusive),
        ] {
            assert_eq!(refused(errno).result, result, "errno {errno}");
        }
    }
}
