//! Owns what TLS can be told: versions, protocols; and why a context cannot be made.

use crate::identity::ServerName;
use rustls::crypto::CryptoProvider;
use rustls::{SupportedProtocolVersion, version};
use std::fmt;
use std::sync::{Arc, LazyLock};

/// The lowest version that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2 (RFC 5246), with forward secrecy and authenticated encryption only.
    #[default]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl MinVersion {
    pub(super) fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        static VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
        match self {
            Self::Tls12 => &VERSIONS,
            Self::Tls13 => &VERSIONS[..1],
        }
    }
}

/// A protocol above TLS (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2.
    H2,
    /// HTTP/1.1; also what is spoken where nothing was negotiated.
    H1,
}

impl Alpn {
    /// Its name on the wire.
    pub const fn id(self) -> &'static [u8] {
        match self {
            Self::H2 => b"h2",
            Self::H1 => b"http/1.1",
        }
    }

    pub(super) fn ids(protocols: &[Self]) -> Vec<Vec<u8>> {
        protocols.iter().map(|protocol| protocol.id().to_vec()).collect()
    }

    pub(super) fn of(id: Option<&[u8]>) -> Option<Self> {
        [Self::H2, Self::H1].into_iter().find(|protocol| Some(protocol.id()) == id)
    }
}

/// How a listener speaks TLS.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// The lowest version.
    pub min_version: MinVersion,
    /// Protocols, the preferred one first.
    pub protocols: Vec<Alpn>,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self { min_version: MinVersion::default(), protocols: vec![Alpn::H2, Alpn::H1] }
    }
}

/// Why a context cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContextError {
    /// The identity cannot be used.
    Identity(String),
    /// The authorities or revocation lists cannot be used.
    Trust(String),
    /// The library says no otherwise.
    Tls(String),
}

impl ContextError {
    /// The same error, of one of several sites.
    pub(super) fn of(self, name: &ServerName) -> Self {
        let told = |why: String| format!("server_name \"{name}\": {why}");
        match self {
            Self::Identity(why) => Self::Identity(told(why)),
            Self::Trust(why) => Self::Trust(told(why)),
            Self::Tls(why) => Self::Tls(told(why)),
        }
    }
}

impl fmt::Display for ContextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(why) => write!(f, "the TLS library refuses the certificate or its key: {why}"),
            Self::Trust(why) => write!(f, "the TLS library refuses the authorities or revocation lists: {why}"),
            Self::Tls(why) => write!(f, "cannot set TLS up: {why}"),
        }
    }
}

impl std::error::Error for ContextError {}

/// Ciphers, groups and signatures, all of `ring`.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    Arc::clone(&PROVIDER)
}
