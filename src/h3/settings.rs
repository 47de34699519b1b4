//! Owns what an operator can set on the QUIC side, and how it becomes a quiche configuration.

use super::boring_context;
use super::packet::VERSION_1;
use super::qlog::QlogSettings;
use super::tickets::TicketKeys;
use crate::http::HeadLimits;
use crate::limits;
use crate::limits::{AddressLimits, AddressRules};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How the sending rate is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CongestionControl {
    /// RFC 9438, paced by the window and the round-trip time.
    #[default]
    Cubic,
    /// RFC 9002 appendix B, paced likewise.
    Reno,
    /// Paced by a model of bandwidth and round-trip time.
    Bbr2,
}

impl CongestionControl {
    /// The name in the configuration file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Reno => "reno",
            Self::Bbr2 => "bbr2",
        }
    }

    /// Reads the name in the configuration file.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Cubic, Self::Reno, Self::Bbr2].into_iter().find(|control| control.as_str() == name)
    }

    const fn to_quiche(self) -> quiche::CongestionControlAlgorithm {
        match self {
            Self::Cubic => quiche::CongestionControlAlgorithm::CUBIC,
            Self::Reno => quiche::CongestionControlAlgorithm::Reno,
            Self::Bbr2 => quiche::CongestionControlAlgorithm::Bbr2Gcongestion,
        }
    }

    /// Whether the transport itself says when packets leave.
    pub(super) const fn paces(self) -> bool {
        matches!(self, Self::Bbr2)
    }
}

/// When a client has to prove its address before we keep anything of it (RFC 9000 §8.1.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retry {
    /// While many handshakes of unproved addresses are open: see [`limits::quic::RETRY_SHARE`].
    #[default]
    Auto,
    /// Every time; costs each new client a round trip.
    Always,
    /// Never.
    Never,
}

/// The settings of one endpoint.
#[derive(Clone, Debug)]
pub struct QuicSettings {
    /// Silence after which a connection is gone.
    pub idle_timeout: Duration,
    /// Silence of a client with running requests after which it is asked whether it is there, sooner where an idle timeout
    /// needs it; `None`: it never is.
    pub keep_alive: Option<Duration>,
    /// Time a handshake may take.
    pub handshake_timeout: Duration,
    /// Bytes of request bodies one connection may have unread.
    pub max_data: u64,
    /// Bytes of a request body one stream may have unread; windows start at a quarter and grow to it.
    pub max_stream_data: u64,
    /// Requests one connection may have open.
    pub max_streams_bidi: u64,
    /// How the sending rate is found.
    pub congestion_control: CongestionControl,
    /// Largest UDP payload we send, 1200 or more. Connections begin with 1200 and probe for it (RFC 8899).
    pub max_udp_payload: u16,
    /// Whether reserved values are sent, so that peers stay tolerant. 4.5 KiB for each idle connection.
    pub grease: bool,
    /// Congestion window at the start, in packets (RFC 9002: 10).
    pub initial_window_packets: usize,
    /// Packets of one train at most, 1..=64.
    pub burst_packets: usize,
    /// How early a paced packet may leave; larger trains against smoother ones.
    pub pacing_slack: Duration,
    /// Bytes one stream queues before [`super::Connection::room`] is 0.
    pub queue_bytes: usize,
    /// Bytes in pool memory one connection may hold before they are copied.
    pub pooled_bytes: usize,
    /// Bytes one connection may have on its way, on a path that holds less than half of it; others may have twice what
    /// their path holds.
    pub flight_bytes: usize,
    /// Connections at most.
    pub connections: usize,
    /// Of these, in handshake at most.
    pub half_open: usize,
    /// When a client has to prove its address first.
    pub retry: Retry,
    /// What one address may open.
    pub address_limits: AddressLimits,
    /// Which addresses may come; `None`: all.
    pub clients: Option<Arc<AddressRules>>,
    /// Bounds on request heads and trailers.
    pub head: HeadLimits,
    /// Connections to trace; `None`: none.
    pub qlog: Option<QlogSettings>,
}

impl QuicSettings {
    /// Whether packets from there are dropped.
    pub(super) fn denies(&self, from: SocketAddr) -> bool {
        self.clients.as_ref().is_some_and(|rules| !rules.admits(from.ip()))
    }
}

impl Default for QuicSettings {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(30),
            keep_alive: Some(Duration::from_secs(10)),
            handshake_timeout: Duration::from_secs(10),
            max_data: 8 << 20,
            max_stream_data: 1 << 20,
            max_streams_bidi: 128,
            congestion_control: CongestionControl::default(),
            max_udp_payload: 1452,
            grease: false,
            initial_window_packets: 10,
            burst_packets: 44,
            pacing_slack: Duration::from_micros(250),
            queue_bytes: limits::quic::QUEUE_BYTES,
            pooled_bytes: limits::quic::POOLED_BYTES,
            flight_bytes: limits::quic::FLIGHT_BYTES,
            connections: limits::quic::CONNECTIONS,
            half_open: limits::quic::HALF_OPEN,
            retry: Retry::default(),
            address_limits: AddressLimits::default(),
            clients: None,
            head: HeadLimits::REQUEST,
            qlog: None,
        }
    }
}

/// Why an endpoint could not be made.
#[derive(Debug)]
pub enum StartError {
    /// The TLS library refused the identity.
    Identity(String),
    /// The TLS library refused an authority of clients or a revocation list.
    Trust(String),
    /// The TLS library refused something else.
    Tls(String),
    /// The transport refused a setting.
    Transport(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(why) => write!(f, "the TLS library refuses the certificate: {why}"),
            Self::Trust(why) => {
                write!(f, "the TLS library refuses the clients' authorities or revocation lists: {why}")
            }
            Self::Tls(why) => write!(f, "cannot set TLS up for QUIC: {why}"),
            Self::Transport(why) => write!(f, "cannot set QUIC up: {why}"),
        }
    }
}

impl std::error::Error for StartError {}

pub(super) fn transport(settings: &QuicSettings, tickets: &TicketKeys) -> Result<quiche::Config, StartError> {
    let failed = |error: quiche::Error| StartError::Transport(error.to_string());
    let context = boring_context::base(tickets)?;
    let mut config = quiche::Config::with_boring_ssl_ctx_builder(VERSION_1, context).map_err(failed)?;
    config.set_application_protos(&[super::ALPN]).map_err(failed)?;
    let millis = u64::try_from(settings.idle_timeout.as_millis()).unwrap_or(u64::MAX);
    config.set_max_idle_timeout(millis);
    config.set_max_send_udp_payload_size(usize::from(settings.max_udp_payload));
    // Also how many addresses of a client the transport remembers.
    config.set_active_connection_id_limit(limits::quic::PATHS as u64);
    config.set_max_recv_udp_payload_size(limits::quic::DATAGRAM_BYTES);
    config.discover_pmtu(settings.max_udp_payload > limits::quic::SAFE_UDP_PAYLOAD);
    config.grease(settings.grease);

    // Windows start small and grow with the client's speed up to what is set.
    config.set_initial_max_data(settings.max_data.min((settings.max_data / 4).max(1 << 16)));
    config.set_max_connection_window(settings.max_data);
    let stream = settings.max_stream_data.min((settings.max_stream_data / 4).max(1 << 16));
    config.set_initial_max_stream_data_bidi_remote(stream);
    config.set_max_stream_window(settings.max_stream_data);
    // We open no bidirectional stream.
    config.set_initial_max_stream_data_bidi_local(0);
    config.set_initial_max_stream_data_uni(limits::quic::UNI_STREAM_BYTES);
    config.set_initial_max_streams_bidi(settings.max_streams_bidi);
    config.set_initial_max_streams_uni(limits::quic::UNI_STREAMS);

    config.set_cc_algorithm(settings.congestion_control.to_quiche());
    config.set_initial_congestion_window_packets(settings.initial_window_packets);
    Ok(config)
}

pub(super) fn http(settings: &QuicSettings) -> Result<quiche::h3::Config, StartError> {
    let mut config = quiche::h3::Config::new().map_err(|error| StartError::Transport(error.to_string()))?;
    // Above this the library closes the whole connection; between our limit and this one we answer 431.
    config.set_max_field_section_size(2 * settings.head.bytes as u64);
    // RFC 9220: what `:protocol` asks for is the gate's to judge.
    config.enable_extended_connect(true);
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn congestion_controls_have_names() {
        for name in ["cubic", "reno", "bbr2"] {
            assert_eq!(CongestionControl::parse(name).unwrap().as_str(), name);
        }
        assert_eq!(CongestionControl::parse("vegas"), None);
    }

    #[test]
    fn defaults_make_an_endpoint_configuration() {
        assert!(transport(&QuicSettings::default(), &TicketKeys::derive(b"a secret", || 0)).is_ok());
    }
}
