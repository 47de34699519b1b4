//! What can be told of a client's connection: versions, TLS, packets, round trips, certificate.

use super::{CertificateFault, Migration};
use boring::asn1::{Asn1Time, Asn1TimeRef};
use boring::hash::MessageDigest;
use boring::ssl::SslRef;
use boring::x509::{X509, X509NameRef, X509Ref};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Names of a certificate that are kept.
const NAMES: usize = 100;

/// Everything at one moment.
#[derive(Debug, Clone, Default)]
pub struct ClientFacts {
    /// QUIC version in use.
    pub version: u32,
    /// The protocol agreed on; empty before the handshake is done.
    pub alpn: String,
    /// TLS, once the handshake is done.
    pub tls: Option<TlsFacts>,
    /// The handshake resumed an earlier session.
    pub resumed: bool,
    /// The server gave a ticket to resume from.
    pub ticket: bool,
    /// The server had the address validated first (RFC 9000 §8.1.2).
    pub retry: bool,
    /// The server announced its end.
    pub goaway: bool,
    /// Packets and bytes.
    pub packets: Packets,
    /// Round trips on the path in use.
    pub round_trip: Option<RoundTrip>,
    /// Bytes of a datagram on the path in use.
    pub datagram_bytes: usize,
    /// Congestion window of the path in use, in bytes.
    pub congestion_window: usize,
    /// What became of the change of the local port.
    pub migration: Migration,
    /// The server's certificate.
    pub certificate: Option<CertificateFacts>,
    /// Certificates the server sent, its own included.
    pub chain: usize,
    /// What is wrong with them. `None` also when one certificate was expected, or a session resumed: nobody looked.
    pub fault: Option<CertificateFault>,
}

/// What TLS agreed on.
#[derive(Debug, Clone)]
pub struct TlsFacts {
    /// The cipher suite, by its standard name.
    pub cipher: &'static str,
    /// The group of the key exchange.
    pub group: &'static str,
}

/// What was counted on all paths together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Packets {
    /// Packets sent.
    pub sent: usize,
    /// Packets received.
    pub received: usize,
    /// Packets of ours that were lost.
    pub lost: usize,
    /// Packets that carried lost data again.
    pub retransmitted: usize,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
}

/// Times to the server and back.
#[derive(Debug, Clone, Copy)]
pub struct RoundTrip {
    /// Smoothed.
    pub smoothed: Duration,
    /// The shortest.
    pub min: Option<Duration>,
    /// Its variation.
    pub variation: Duration,
}

/// A certificate.
#[derive(Debug, Clone)]
pub struct CertificateFacts {
    /// Subject, as `CN=…, O=…`; often empty today.
    pub subject: String,
    /// Issuer in the same form.
    pub issuer: String,
    /// Names and addresses it is for, the first hundred.
    pub names: Vec<String>,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
    /// SHA-256 of the whole certificate, in lower-case hexadecimal.
    pub sha256: String,
}

impl CertificateFacts {
    pub(super) fn of(certificate: &X509Ref) -> Self {
        let names = certificate.subject_alt_names().map_or_else(Vec::new, |names| {
            let text = |name: &boring::x509::GeneralNameRef| {
                name.dnsname().map(str::to_owned).or_else(|| Some(address(name.ipaddress()?)?.to_string()))
            };
            names.iter().filter_map(text).take(NAMES).collect()
        });
        let digest = certificate.digest(MessageDigest::sha256());
        Self {
            subject: name_text(certificate.subject_name()),
            issuer: name_text(certificate.issuer_name()),
            names,
            not_before: unix_seconds(certificate.not_before()).unwrap_or(0),
            not_after: unix_seconds(certificate.not_after()).unwrap_or(0),
            sha256: digest.map_or_else(|_| String::new(), |d| d.iter().map(|byte| format!("{byte:02x}")).collect()),
        }
    }

    /// Of a certificate in DER.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        X509::from_der(der).ok().map(|certificate| Self::of(&certificate))
    }

    /// All names in one line.
    pub fn names_text(&self) -> String {
        if self.names.is_empty() { "none".to_owned() } else { self.names.join(", ") }
    }
}

pub(super) fn tls(ssl: &SslRef) -> Option<TlsFacts> {
    let cipher = ssl.current_cipher()?;
    Some(TlsFacts {
        cipher: cipher.standard_name().unwrap_or_else(|| cipher.name()),
        group: ssl.curve_name().unwrap_or("unknown"),
    })
}

pub(super) fn packets(quic: &quiche::Connection) -> Packets {
    let stats = quic.stats();
    Packets {
        sent: stats.sent,
        received: stats.recv,
        lost: stats.lost,
        retransmitted: stats.retrans,
        bytes_sent: stats.sent_bytes,
        bytes_received: stats.recv_bytes,
    }
}

pub(super) fn unix_seconds(time: &Asn1TimeRef) -> Option<i64> {
    let epoch = Asn1Time::from_unix(0).ok()?;
    let since = epoch.diff(time).ok()?;
    Some(i64::from(since.days) * 86_400 + i64::from(since.secs))
}

fn name_text(name: &X509NameRef) -> String {
    let parts = name.entries().map(|entry| {
        let key = entry.object().nid().short_name().unwrap_or("?");
        let value = entry.data().as_utf8().map_or_else(|_| "?".to_owned(), |text| text.to_string());
        format!("{key}={value}")
    });
    parts.collect::<Vec<_>>().join(", ")
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into());
    let v6 = || Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into());
    v4().or_else(v6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    #[test]
    fn a_certificate_is_read() {
        let identity = Identity::self_signed(&["localhost", "127.0.0.1", "::1"]).unwrap();
        let facts = CertificateFacts::from_der(identity.leaf()).unwrap();
        assert_eq!(facts.names, ["localhost", "127.0.0.1", "::1"]);
        assert_eq!(facts.subject, facts.issuer);
        assert!(facts.not_before < facts.not_after);
        assert_eq!(facts.sha256.len(), 64);
        assert!(CertificateFacts::from_der(b"nonsense").is_none());
    }
}
