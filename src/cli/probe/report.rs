//! What is told of one request. The names of the JSON members are an interface: docs/OPERATING.md lists them.

use super::fault::Fault;
use super::millis;
use super::options::Ask;
use crate::cli::fetch::Fetched;
use crate::cli::json_line;
use crate::h3::client::{CertificateFacts, CertificateFault, ClientFacts, FieldList, Migration};
use crate::telemetry::clock::push_rfc3339;
use serde::Serialize;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds of a day.
const DAY: i64 = 86_400;

/// One request.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub url: String,
    pub method: String,
    /// Which of several, from 1.
    pub request: u32,
    pub address: Option<SocketAddr>,
    pub local: Option<SocketAddr>,
    pub status: Option<u16>,
    pub informational: Vec<Informational>,
    pub headers: FieldList,
    pub trailers: FieldList,
    pub body_bytes: u64,
    pub timings: Timings,
    pub quic: Option<Quic>,
    pub migration: Option<Moved>,
    pub certificate: Option<Certificate>,
    pub error: Option<Failed>,
    /// A short text body that went nowhere else; for people only.
    #[serde(skip)]
    pub preview: Option<String>,
}

/// A head before the final one.
#[derive(Debug, Serialize)]
pub(super) struct Informational {
    pub status: u16,
    pub headers: FieldList,
}

/// Milliseconds; `null`: it did not come so far.
#[derive(Debug, Default, Serialize)]
pub(super) struct Timings {
    /// Resolution of the name; `null` also if there was nothing to resolve.
    pub dns_ms: Option<f64>,
    /// First packet to completed handshake.
    pub handshake_ms: Option<f64>,
    /// Request to response head.
    pub first_byte_ms: Option<f64>,
    /// Everything.
    pub total_ms: f64,
}

impl Timings {
    pub(super) fn dns(&mut self, took: Option<Duration>) {
        self.dns_ms = took.map(millis);
    }
}

/// What QUIC and TLS did.
#[derive(Debug, Serialize)]
pub(super) struct Quic {
    /// `null` before the handshake was done, as the next three.
    pub version: Option<u32>,
    pub alpn: Option<String>,
    pub cipher: Option<&'static str>,
    pub group: Option<&'static str>,
    pub resumed: bool,
    pub ticket: bool,
    pub retry: bool,
    pub goaway: bool,
    pub rtt_ms: Option<f64>,
    pub rtt_min_ms: Option<f64>,
    pub rtt_variation_ms: Option<f64>,
    pub packets_sent: usize,
    pub packets_received: usize,
    pub packets_lost: usize,
    pub packets_retransmitted: usize,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub datagram_bytes: usize,
    pub congestion_window_bytes: usize,
}

/// The change of the local port.
#[derive(Debug, Serialize)]
pub(super) struct Moved {
    pub validated: bool,
    pub from: Option<SocketAddr>,
    pub to: Option<SocketAddr>,
    pub rtt_ms: Option<f64>,
    /// Why not.
    pub reason: Option<String>,
}

/// The server's certificate.
#[derive(Debug, Serialize)]
pub(super) struct Certificate {
    pub subject: String,
    pub issuer: String,
    pub names: Vec<String>,
    pub not_before: String,
    pub not_after: String,
    /// Whole days until it expires; negative afterwards.
    pub days_left: i64,
    pub sha256: String,
    /// Certificates the server sent.
    pub chain: usize,
    pub verified: bool,
    pub fault: Option<Failed>,
}

/// What went wrong.
#[derive(Debug, Serialize)]
pub(super) struct Failed {
    /// A stable word.
    pub kind: &'static str,
    pub message: String,
}

impl Report {
    pub(super) fn new(ask: &Ask, request: u32) -> Self {
        Self {
            url: ask.target.url(),
            method: ask.method.clone(),
            request,
            address: None,
            local: None,
            status: None,
            informational: Vec::new(),
            headers: Vec::new(),
            trailers: Vec::new(),
            body_bytes: 0,
            timings: Timings::default(),
            quic: None,
            migration: None,
            certificate: None,
            error: None,
            preview: None,
        }
    }

    /// Takes over what came from `address`, in `total` since the beginning.
    pub(super) fn take(&mut self, fetched: Fetched, address: SocketAddr, preview: Option<&str>, total: Duration) {
        self.address = Some(address);
        self.local = fetched.local;
        self.timings.handshake_ms = fetched.handshake.map(millis);
        self.timings.first_byte_ms = fetched.first_byte.map(millis);
        self.timings.total_ms = millis(total);
        let response = fetched.response;
        self.status = (response.status != 0).then_some(response.status);
        self.headers = response.fields;
        self.trailers = response.trailers;
        let informational = response.informational.into_iter();
        self.informational = informational.map(|(status, headers)| Informational { status, headers }).collect();
        self.body_bytes = response.body_bytes;
        self.preview = preview.map(str::to_owned);
        if let Some(facts) = fetched.facts {
            self.migration = moved(&facts.migration);
            self.certificate = facts.certificate.as_ref().map(|certificate| {
                let fault = facts.fault.as_ref();
                Certificate::new(certificate, facts.chain, facts.tls.is_some() && fault.is_none(), fault)
            });
            self.quic = Some(Quic::new(&facts));
        }
    }

    pub(super) fn failed(&mut self, fault: &Fault, total: Duration) {
        self.timings.total_ms = millis(total);
        self.error = Some(Failed { kind: fault.kind, message: fault.message.clone() });
    }

    /// One line.
    pub(super) fn json(&self) -> String {
        json_line(self)
    }
}

impl Quic {
    fn new(facts: &ClientFacts) -> Self {
        let tls = facts.tls.as_ref();
        let round_trip = facts.round_trip.as_ref();
        Self {
            version: tls.map(|_| facts.version),
            alpn: tls.map(|_| facts.alpn.clone()),
            cipher: tls.map(|tls| tls.cipher),
            group: tls.map(|tls| tls.group),
            resumed: facts.resumed,
            ticket: facts.ticket,
            retry: facts.retry,
            goaway: facts.goaway,
            rtt_ms: round_trip.map(|trip| millis(trip.smoothed)),
            rtt_min_ms: round_trip.and_then(|trip| trip.min).map(millis),
            rtt_variation_ms: round_trip.map(|trip| millis(trip.variation)),
            packets_sent: facts.packets.sent,
            packets_received: facts.packets.received,
            packets_lost: facts.packets.lost,
            packets_retransmitted: facts.packets.retransmitted,
            bytes_sent: facts.packets.bytes_sent,
            bytes_received: facts.packets.bytes_received,
            datagram_bytes: facts.datagram_bytes,
            congestion_window_bytes: facts.congestion_window,
        }
    }
}

fn moved(migration: &Migration) -> Option<Moved> {
    let failed = |reason: &str| {
        Some(Moved { validated: false, from: None, to: None, rtt_ms: None, reason: Some(reason.to_owned()) })
    };
    match migration {
        Migration::Unasked => None,
        Migration::Waiting => failed("it had not happened when the request ended"),
        Migration::Failed(why) => failed(why),
        Migration::Moved { before, now, round_trip } => Some(Moved {
            validated: true,
            from: Some(*before),
            to: Some(*now),
            rtt_ms: Some(millis(*round_trip)),
            reason: None,
        }),
    }
}

impl Certificate {
    fn new(facts: &CertificateFacts, chain: usize, verified: bool, fault: Option<&CertificateFault>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        Self {
            subject: facts.subject.clone(),
            issuer: facts.issuer.clone(),
            names: facts.names.clone(),
            not_before: date(facts.not_before),
            not_after: date(facts.not_after),
            days_left: facts.not_after.saturating_sub(now).div_euclid(DAY),
            sha256: facts.sha256.clone(),
            chain,
            verified,
            fault: fault.map(|fault| Failed { kind: fault.word(), message: fault.to_string() }),
        }
    }
}

/// RFC 3339 in whole seconds; years before 1970 are shown as 1970.
fn date(unix: i64) -> String {
    let mut text = Vec::new();
    push_rfc3339(u64::try_from(unix).unwrap_or(0).saturating_mul(1_000_000), &mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    text.split_once('.').map_or(text.clone(), |(seconds, _)| format!("{seconds}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_whole_seconds() {
        assert_eq!(date(1_795_257_239), "2026-11-21T10:33:59Z");
        assert_eq!(date(-1), "1970-01-01T00:00:00Z");
    }

    fn report() -> Report {
        let ask = Ask {
            target: super::super::target::Target::parse("https://a.net/").unwrap(),
            method: "GET".to_owned(),
            authority: "a.net".to_owned(),
            fields: vec![("authorization".to_owned(), b"hush-hush".to_vec())],
            body: Vec::new(),
            authorities: Vec::new(),
            addresses: Vec::new(),
        };
        Report::new(&ask, 1)
    }

    #[test]
    fn json_is_one_line_without_control_characters() {
        let mut report = report();
        report.headers.push(("x".to_owned(), "a\u{9b}31m\u{7f}\n\u{1b}".to_owned()));
        let text = report.json();
        assert!(!text.chars().any(char::is_control) && !text.contains("hush"), "{text}");
        let back: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(back["headers"][0][1], "a\u{9b}31m\u{7f}\n\u{1b}");
        assert_eq!(back["status"], serde_json::Value::Null);
    }

    #[test]
    fn every_member_is_documented() {
        fn members(value: &serde_json::Value, found: &mut Vec<String>) {
            for (name, inner) in value.as_object().into_iter().flatten() {
                found.push(name.clone());
                members(inner, found);
            }
        }
        let mut report = report();
        let identity = crate::identity::Identity::self_signed(&["a.net"]).unwrap();
        let facts = CertificateFacts::from_der(identity.leaf()).unwrap();
        report.certificate = Some(Certificate::new(&facts, 1, true, None));
        report.quic = Some(Quic::new(&ClientFacts::default()));
        report.migration = moved(&Migration::Waiting);
        report.error = Some(Failed { kind: "closed", message: String::new() });
        let mut names = Vec::new();
        members(&serde_json::from_str(&report.json()).unwrap(), &mut names);
        assert!(names.len() > 45, "{names:?}");
        let page = include_str!("../../../docs/OPERATING.md");
        let missing: Vec<_> = names.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "docs/OPERATING.md does not say what these are: {missing:?}");
    }
}
