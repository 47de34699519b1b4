//! Backends: where they are, what is spoken there, and how they are probed.

use super::{Generation, UpstreamId};
use crate::health::{Expectation, ProbePolicy};
use crate::http::PathPair;
use spooky_uring::StreamAddress;

/// One configured origin.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Unique within its upstream.
    pub id: Box<str>,
    /// The upstream it belongs to.
    pub upstream: UpstreamId,
    /// What is spoken there.
    pub scheme: BackendScheme,
    /// Where it is.
    pub location: Location,
    /// `host:port` as a `Host` field carries it (the scheme's default port left out); `localhost` for unix sockets.
    pub authority: Box<str>,
    /// The host of its address as TLS names it: a name without trailing dot, or an address without brackets; `localhost` for
    /// unix sockets.
    pub server_name: Box<str>,
    /// 1 to 1000.
    pub weight: u32,
    /// Exchanges at once on it.
    pub inflight_limit: u32,
    /// How it is probed; `None`: not at all.
    pub health_check: Option<HealthCheck>,
}

impl Backend {
    /// Its address as an operator writes it.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = self.scheme.as_str();
        match &self.location {
            Location::Fixed(StreamAddress::Tcp(address)) => format!("{scheme}://{address}"),
            Location::Fixed(StreamAddress::Unix(path)) => format!("unix:{}", path.display()),
            Location::Named { host, port } => format!("{scheme}://{host}:{port}"),
        }
    }
}

/// What is spoken to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackendScheme {
    /// HTTP/1.1 without TLS; always for unix sockets.
    Http,
    /// TLS, whose ALPN (h2, then http/1.1) says what is spoken in it.
    Https,
    /// HTTP/2 with prior knowledge, without TLS (RFC 9113 §3.3).
    H2c,
}

impl BackendScheme {
    /// As it stands in an address.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
        }
    }

    /// The port of addresses without one.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http | Self::H2c => 80,
            Self::Https => 443,
        }
    }
}

/// Where a backend is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// At this address, for ever.
    Fixed(StreamAddress),
    /// At the addresses of a name; control resolves it and keeps it fresh.
    Named {
        /// Lower case; ends with a dot if the search list does not apply to it.
        host: Box<str>,
        /// The port at each of its addresses.
        port: u16,
    },
}

/// How a backend is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// When, and what follows.
    pub policy: ProbePolicy,
    /// What is spoken.
    pub speech: ProbeSpeech,
    /// Where, if it is not the port of its address.
    pub port: Option<u16>,
    /// The value of `Host`.
    pub host: Box<str>,
    /// What is asked for.
    pub target: PathPair,
    /// The answer that passes.
    pub expectation: Expectation,
}

/// What a probe speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeSpeech {
    /// Nothing: a connection that is accepted is enough.
    Nothing,
    /// HTTP/1.1 in clear.
    H1,
    /// HTTP/2 in clear, with prior knowledge.
    H2,
    /// TLS, whose ALPN says what is spoken in it.
    Tls,
    /// TLS, and HTTP/2 in it.
    TlsH2,
}

impl ProbeSpeech {
    /// Whether there is TLS.
    #[must_use]
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::TlsH2)
    }
}

impl Generation {
    /// Whether a backend of an upstream is spoken to over TLS, be it by probes only.
    #[must_use]
    pub fn speaks_tls(&self, id: UpstreamId) -> bool {
        self.backends_of(id).iter().any(|backend| {
            let probe = backend.health_check.as_ref().is_some_and(|check| check.speech.is_tls());
            probe || backend.scheme == BackendScheme::Https
        })
    }

    /// Whether the health of an upstream's backends is watched, in whatever way.
    #[must_use]
    pub fn watches(&self, id: UpstreamId) -> bool {
        self.upstream(id).outliers.is_some()
            || self.backends_of(id).iter().any(|backend| backend.health_check.is_some())
    }
}
