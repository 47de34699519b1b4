//! The closed sets that label counters: each variant is one label value, spelled once.
//!
//! A counter array is indexed by `kind as usize`, so counting is one store; the words are read only when control
//! renders. Reasons for refusing a request are not here: they are [`crate::http::Reason`], the table that also
//! chooses the status.

/// An enum whose variants are the values of one label.
macro_rules! kinds {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vmeta])* $variant,)+ }

        impl $name {
            /// Every variant, in the order of the counter array.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The label value.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

kinds! {
    /// The protocol a client speaks to us.
    Protocol {
        /// HTTP/1.0 and HTTP/1.1.
        H1 = "h1",
        /// HTTP/2.
        H2 = "h2",
        /// HTTP/3.
        H3 = "h3",
    }
}

kinds! {
    /// Why a datagram was dropped before it reached a connection. The variants, their order and their words are those of
    /// `h3::DropReason`, which telemetry cannot see: `DatagramDrop::ALL[reason as usize]`.
    DatagramDrop {
        /// Too short for what its first bytes say.
        Truncated = "truncated",
        /// A connection ID that is not one of ours.
        ForeignId = "foreign_id",
        /// A connection ID of another worker, which the datagram could not be given to.
        Misdirected = "misdirected",
        /// A connection that is gone.
        NoConnection = "no_connection",
        /// An unknown version in a datagram too small to answer.
        VersionTooSmall = "version_too_small",
        /// A Version Negotiation packet; only clients get those.
        VersionNegotiation = "version_negotiation",
        /// A connection ID over 20 bytes, or under 8 in a client's first packet.
        IdLength = "id_length",
        /// A client's first datagram under 1200 bytes.
        InitialTooSmall = "initial_too_small",
        /// A client's first packet that does not decrypt or parse.
        InitialInvalid = "initial_invalid",
        /// The bound on connections is reached.
        ConnectionLimit = "connection_limit",
        /// The bound on handshakes is reached.
        HalfOpenLimit = "half_open_limit",
        /// We take no new connections.
        Draining = "draining",
        /// The library could not make a connection.
        Internal = "internal",
        /// A connection ID of another process.
        OtherProcess = "other_process",
        /// From an address that the listener's clients do not have.
        AddressDenied = "address_denied",
    }
}

kinds! {
    /// What a client did too often. The variants, their order and their words are those of `h3::Glitch`, which telemetry
    /// cannot see: `Flood::ALL[glitch as usize]`.
    Flood {
        /// Requests given up before they were answered.
        Resets = "resets",
        /// Malformed requests.
        Malformed = "malformed",
        /// Packets that brought nothing.
        Packets = "packets",
        /// PATH_CHALLENGE frames.
        PathChallenges = "path_challenges",
        /// Connection IDs retired.
        ConnectionIds = "connection_ids",
        /// Frames without content.
        Frames = "frames",
        /// Bytes that were neither body nor head.
        Bytes = "bytes",
    }
}

kinds! {
    /// What an HTTP/2 client did too often. The variants, their order and their words are those of `h2::Glitch`, which
    /// telemetry cannot see: `Http2Flood::ALL[glitch as usize]`.
    Http2Flood {
        /// RST_STREAM frames.
        Resets = "resets",
        /// Mistakes for which we had to reset a stream.
        Malformed = "malformed",
        /// CONTINUATION frames.
        Continuations = "continuations",
        /// SETTINGS frames.
        Settings = "settings",
        /// PING frames.
        Pings = "pings",
        /// DATA frames without content.
        Empty = "empty",
        /// PRIORITY frames.
        Priorities = "priorities",
        /// WINDOW_UPDATE frames.
        WindowUpdates = "window_updates",
        /// Frames of unknown types.
        Unknown = "unknown",
        /// What the library itself limits.
        Library = "library",
    }
}

kinds! {
    /// Why a handshake did not complete.
    HandshakeFailure {
        /// The client showed no certificate, and one is required.
        CertificateMissing = "client_certificate_missing",
        /// The client's certificate is revoked.
        CertificateRevoked = "client_certificate_revoked",
        /// The client's certificate, or a revocation list for it, has expired.
        CertificateExpired = "client_certificate_expired",
        /// The client's certificate is of another authority, or there is no revocation list for it.
        CertificateUnknownAuthority = "client_certificate_unknown_authority",
        /// The client's certificate is broken, forged or for another purpose.
        CertificateBad = "client_certificate_bad",
        /// The client speaks no protocol of ours.
        NoProtocol = "no_application_protocol",
        /// The client spoke HTTP without TLS.
        PlainHttp = "plain_http",
        /// The client did not take our certificate.
        CertificateRefused = "certificate_refused_by_client",
        /// TLS said no otherwise: no common cipher or group, a malformed message.
        Tls = "tls",
        /// It took too long, or nobody spoke any more.
        Timeout = "timeout",
        /// The client closed it, without an alert.
        Closed = "closed",
        /// A violation of the transport protocol.
        Transport = "transport",
        /// We ended it ourselves, at the end of a drain.
        Ended = "ended",
        /// Its address has too many connections, or opens them too fast; or it made room for another handshake.
        Refused = "refused",
    }
}

impl HandshakeFailure {
    /// What a TLS alert (RFC 8446 §6.2) means that ended a handshake; `ours` tells who sent it.
    pub const fn of_alert(alert: u8, ours: bool) -> Self {
        match (alert, ours) {
            (116, true) => Self::CertificateMissing,
            (44, true) => Self::CertificateRevoked,
            (45, true) => Self::CertificateExpired,
            (48, true) => Self::CertificateUnknownAuthority,
            (42 | 43 | 46 | 51, true) => Self::CertificateBad,
            (42..=46 | 48 | 51, false) => Self::CertificateRefused,
            (120, _) => Self::NoProtocol,
            _ => Self::Tls,
        }
    }
}

kinds! {
    /// A bounded queue, pool or table that was full, which is backpressure or a refusal, never an error.
    QueueFull {
        /// Pool of UDP send slots.
        UdpSlots = "udp_send_slots",
        /// Provided ring for datagrams.
        UdpLeases = "udp_receive_leases",
        /// The kernel's receive buffer of a UDP socket.
        UdpBuffer = "udp_socket_buffer",
        /// Provided ring for stream sockets.
        StreamLeases = "stream_receive_leases",
        /// Table of stream sockets.
        Streams = "stream_sockets",
        /// The submission queue was flushed in the middle of a turn.
        Submissions = "submission_queue",
        /// The kernel's completion queue overflowed.
        Completions = "completion_queue",
        /// Access-log batches from a worker to control.
        AccessLog = "access_log",
        /// Datagrams from one worker to another.
        Forwards = "forwarded_datagrams",
        /// Pieces of connections' traces from a worker to control.
        Qlog = "qlog",
        /// Client connections over TCP, against max_active_connections.
        Clients = "client_connections",
        /// TLS handshakes of clients over TCP at once.
        Handshakes = "tls_handshakes",
        /// QUIC handshakes at once: the oldest made room for another.
        HalfOpen = "quic_handshakes",
    }
}

kinds! {
    /// Who ended an HTTP/3 connection.
    Side {
        /// We did.
        Local = "local",
        /// The client did.
        Remote = "remote",
    }
}

kinds! {
    /// The code an HTTP/3 connection ended with.
    CloseCode {
        /// H3_NO_ERROR.
        NoError = "H3_NO_ERROR",
        /// H3_GENERAL_PROTOCOL_ERROR.
        GeneralProtocolError = "H3_GENERAL_PROTOCOL_ERROR",
        /// H3_INTERNAL_ERROR.
        InternalError = "H3_INTERNAL_ERROR",
        /// H3_STREAM_CREATION_ERROR.
        StreamCreationError = "H3_STREAM_CREATION_ERROR",
        /// H3_CLOSED_CRITICAL_STREAM.
        ClosedCriticalStream = "H3_CLOSED_CRITICAL_STREAM",
        /// H3_FRAME_UNEXPECTED.
        FrameUnexpected = "H3_FRAME_UNEXPECTED",
        /// H3_FRAME_ERROR.
        FrameError = "H3_FRAME_ERROR",
        /// H3_EXCESSIVE_LOAD.
        ExcessiveLoad = "H3_EXCESSIVE_LOAD",
        /// H3_ID_ERROR.
        IdError = "H3_ID_ERROR",
        /// H3_SETTINGS_ERROR.
        SettingsError = "H3_SETTINGS_ERROR",
        /// H3_MISSING_SETTINGS.
        MissingSettings = "H3_MISSING_SETTINGS",
        /// H3_REQUEST_REJECTED.
        RequestRejected = "H3_REQUEST_REJECTED",
        /// H3_REQUEST_CANCELLED.
        RequestCancelled = "H3_REQUEST_CANCELLED",
        /// H3_REQUEST_INCOMPLETE.
        RequestIncomplete = "H3_REQUEST_INCOMPLETE",
        /// H3_MESSAGE_ERROR.
        MessageError = "H3_MESSAGE_ERROR",
        /// H3_CONNECT_ERROR.
        ConnectError = "H3_CONNECT_ERROR",
        /// H3_VERSION_FALLBACK.
        VersionFallback = "H3_VERSION_FALLBACK",
        /// QPACK_DECOMPRESSION_FAILED.
        QpackDecompressionFailed = "QPACK_DECOMPRESSION_FAILED",
        /// QPACK_ENCODER_STREAM_ERROR.
        QpackEncoderStreamError = "QPACK_ENCODER_STREAM_ERROR",
        /// QPACK_DECODER_STREAM_ERROR.
        QpackDecoderStreamError = "QPACK_DECODER_STREAM_ERROR",
        /// Any other application code.
        OtherApplication = "other_application",
        /// A QUIC transport code other than NO_ERROR and a TLS alert.
        Transport = "transport",
        /// A TLS alert (CRYPTO_ERROR, RFC 9001 §4.8).
        Tls = "tls",
        /// The idle timeout: nobody said anything.
        IdleTimeout = "idle_timeout",
    }
}

impl CloseCode {
    /// The kind of an application close code (RFC 9114 §8.1, RFC 9204 §6).
    pub const fn application(code: u64) -> Self {
        match code {
            0x100 => Self::NoError,
            0x101 => Self::GeneralProtocolError,
            0x102 => Self::InternalError,
            0x103 => Self::StreamCreationError,
            0x104 => Self::ClosedCriticalStream,
            0x105 => Self::FrameUnexpected,
            0x106 => Self::FrameError,
            0x107 => Self::ExcessiveLoad,
            0x108 => Self::IdError,
            0x109 => Self::SettingsError,
            0x10a => Self::MissingSettings,
            0x10b => Self::RequestRejected,
            0x10c => Self::RequestCancelled,
            0x10d => Self::RequestIncomplete,
            0x10e => Self::MessageError,
            0x10f => Self::ConnectError,
            0x110 => Self::VersionFallback,
            0x200 => Self::QpackDecompressionFailed,
            0x201 => Self::QpackEncoderStreamError,
            0x202 => Self::QpackDecoderStreamError,
            _ => Self::OtherApplication,
        }
    }

    /// The kind of a transport close code (RFC 9000 §20.1); 0x100..=0x1ff are TLS alerts.
    pub const fn transport(code: u64) -> Self {
        match code {
            0 => Self::NoError,
            0x100..=0x1ff => Self::Tls,
            _ => Self::Transport,
        }
    }
}

kinds! {
    /// A TLS alert (RFC 8446 §6), by its name there.
    TlsAlert {
        /// Alert 0.
        CloseNotify = "close_notify",
        /// Alert 10.
        UnexpectedMessage = "unexpected_message",
        /// Alert 20.
        BadRecordMac = "bad_record_mac",
        /// Alert 22.
        RecordOverflow = "record_overflow",
        /// Alert 40.
        HandshakeFailure = "handshake_failure",
        /// Alert 42.
        BadCertificate = "bad_certificate",
        /// Alert 43.
        UnsupportedCertificate = "unsupported_certificate",
        /// Alert 44.
        CertificateRevoked = "certificate_revoked",
        /// Alert 45.
        CertificateExpired = "certificate_expired",
        /// Alert 46.
        CertificateUnknown = "certificate_unknown",
        /// Alert 47.
        IllegalParameter = "illegal_parameter",
        /// Alert 48.
        UnknownCa = "unknown_ca",
        /// Alert 49.
        AccessDenied = "access_denied",
        /// Alert 50.
        DecodeError = "decode_error",
        /// Alert 51.
        DecryptError = "decrypt_error",
        /// Alert 70.
        ProtocolVersion = "protocol_version",
        /// Alert 71.
        InsufficientSecurity = "insufficient_security",
        /// Alert 80.
        InternalError = "internal_error",
        /// Alert 86.
        InappropriateFallback = "inappropriate_fallback",
        /// Alert 90.
        UserCanceled = "user_canceled",
        /// Alert 109.
        MissingExtension = "missing_extension",
        /// Alert 110.
        UnsupportedExtension = "unsupported_extension",
        /// Alert 112.
        UnrecognizedName = "unrecognized_name",
        /// Alert 113.
        BadCertificateStatusResponse = "bad_certificate_status_response",
        /// Alert 115.
        UnknownPskIdentity = "unknown_psk_identity",
        /// Alert 116.
        CertificateRequired = "certificate_required",
        /// Alert 120.
        NoApplicationProtocol = "no_application_protocol",
        /// Any other number.
        Other = "other",
    }
}

impl TlsAlert {
    /// The alert in a transport close code (CRYPTO_ERROR, RFC 9001 §4.8); `None`: the code is of another kind.
    pub const fn in_code(code: u64) -> Option<Self> {
        if code < 0x100 || code > 0x1ff {
            return None;
        }
        Some(match code - 0x100 {
            0 => Self::CloseNotify,
            10 => Self::UnexpectedMessage,
            20 => Self::BadRecordMac,
            22 => Self::RecordOverflow,
            40 => Self::HandshakeFailure,
            42 => Self::BadCertificate,
            43 => Self::UnsupportedCertificate,
            44 => Self::CertificateRevoked,
            45 => Self::CertificateExpired,
            46 => Self::CertificateUnknown,
            47 => Self::IllegalParameter,
            48 => Self::UnknownCa,
            49 => Self::AccessDenied,
            50 => Self::DecodeError,
            51 => Self::DecryptError,
            70 => Self::ProtocolVersion,
            71 => Self::InsufficientSecurity,
            80 => Self::InternalError,
            86 => Self::InappropriateFallback,
            90 => Self::UserCanceled,
            109 => Self::MissingExtension,
            110 => Self::UnsupportedExtension,
            112 => Self::UnrecognizedName,
            113 => Self::BadCertificateStatusResponse,
            115 => Self::UnknownPskIdentity,
            116 => Self::CertificateRequired,
            120 => Self::NoApplicationProtocol,
            _ => Self::Other,
        })
    }
}

kinds! {
    /// Why a connection to a backend was not made.
    ConnectFailure {
        /// The backend refused it.
        Refused = "refused",
        /// It took longer than `backend_connect_timeout`.
        Timeout = "timeout",
        /// No route, no such unix socket, and every other errno.
        Unreachable = "unreachable",
        /// The TLS handshake failed.
        Tls = "tls",
        /// Our own table of stream sockets is full.
        Local = "local",
    }
}

kinds! {
    /// What a circuit breaker has become.
    BreakerChange {
        /// It lets nothing through.
        Opened = "opened",
        /// It lets a few attempts through.
        HalfOpened = "half_opened",
        /// It lets everything through.
        Closed = "closed",
    }
}

kinds! {
    /// How fit a backend is.
    HealthState {
        /// Nothing speaks against it.
        Healthy = "healthy",
        /// Probes say that it is not.
        Unhealthy = "unhealthy",
        /// Requests failed on it, and it is left alone for a while.
        Ejected = "ejected",
    }
}

kinds! {
    /// What changed a backend's health.
    HealthCause {
        /// So many probes in a row did not pass.
        ProbesFailed = "probes_failed",
        /// So many probes in a row passed.
        ProbesPassed = "probes_passed",
        /// So many requests in a row failed.
        ConsecutiveFailures = "consecutive_failures",
        /// Too large a share of its requests failed.
        FailurePercent = "failure_percent",
        /// The time of its ejection is over.
        EjectionOver = "ejection_over",
    }
}

impl HealthCause {
    /// What the backend has become by it.
    pub const fn state(self) -> HealthState {
        match self {
            Self::ProbesFailed => HealthState::Unhealthy,
            Self::ConsecutiveFailures | Self::FailurePercent => HealthState::Ejected,
            Self::ProbesPassed | Self::EjectionOver => HealthState::Healthy,
        }
    }
}

kinds! {
    /// What came of a probe.
    ProbeResult {
        /// What was expected.
        Passed = "passed",
        /// The backend refused the connection.
        Refused = "refused",
        /// No way leads there.
        Unreachable = "unreachable",
        /// It took too long.
        Timeout = "timeout",
        /// The TLS handshake failed, or did not settle on the protocol that was asked for.
        Tls = "tls",
        /// The connection ended before the answer was whole.
        Closed = "closed",
        /// The answer is not valid HTTP.
        Malformed = "malformed",
        /// The status is not among the expected ones.
        Status = "status",
        /// The body does not hold what was expected.
        Body = "body",
        /// It could not be made, or we were too late ourselves: it says nothing of the backend.
        Inconclusive = "inconclusive",
    }
}

kinds! {
    /// How an attempt on a backend failed after it was connected.
    AttemptFailure {
        /// The connection ended before the response was whole.
        Closed = "closed",
        /// The connection was reset.
        Reset = "reset",
        /// No response head in time.
        ResponseTimeout = "response_timeout",
        /// The body stopped coming.
        BodyTimeout = "body_timeout",
        /// The response broke HTTP/1.1 or its own content-length.
        Malformed = "malformed",
    }
}

kinds! {
    /// Why an idle or used connection to a backend was closed.
    UpstreamClose {
        /// The backend closed it while it was idle.
        Idle = "idle_closed_by_backend",
        /// It was idle longer than the pool keeps connections.
        Expired = "idle_expired",
        /// Its last exchange left it unusable (early answer, `Connection: close`, failure).
        NotReusable = "not_reusable",
        /// It sent bytes nobody asked for.
        Unsolicited = "unsolicited_bytes",
        /// The pool was full when it became idle.
        PoolFull = "pool_full",
        /// We are draining.
        Draining = "draining",
        /// Its address is no more among those of the backend's name.
        EndpointGone = "endpoint_gone",
        /// Another address of the backend accepted first.
        RaceLost = "race_lost",
    }
}

kinds! {
    /// What became of the header of the PROXY protocol that a trusted proxy's connection begins with.
    ProxyHeader {
        /// It names a client.
        Client = "client",
        /// It names nobody: the proxy itself is the client.
        Proxy = "proxy",
        /// What came is no header; the connection is closed.
        Malformed = "malformed",
        /// The connection ended, or its time was up, before the header was whole.
        Missing = "missing",
    }
}

kinds! {
    /// Why a name was not resolved.
    ResolverFailure {
        /// There is no such name.
        NoSuchName = "no_such_name",
        /// The name has no address that could be connected to.
        NoAddress = "no_address",
        /// No server answered in time.
        Timeout = "timeout",
        /// The servers answered that they will not or cannot.
        ServerFailure = "server_failure",
        /// No server could be reached.
        Unreachable = "unreachable",
        /// The servers' answers could not be read.
        Malformed = "malformed",
    }
}

kinds! {
    /// Classes of final response statuses.
    StatusClass {
        /// 2xx.
        Success = "2xx",
        /// 3xx.
        Redirection = "3xx",
        /// 4xx.
        ClientError = "4xx",
        /// 5xx.
        ServerError = "5xx",
        /// No final head was sent: the exchange ended before.
        None = "none",
    }
}

impl StatusClass {
    /// The class of `status`; 0 and everything that is no final status is [`StatusClass::None`].
    pub const fn of(status: u16) -> Self {
        match status {
            200..=299 => Self::Success,
            300..=399 => Self::Redirection,
            400..=499 => Self::ClientError,
            500..=599 => Self::ServerError,
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn words_are_unique_and_indexes_follow_the_order() {
        fn check<K: Copy>(all: &[K], index: impl Fn(K) -> usize, word: impl Fn(K) -> &'static str) {
            let mut seen = HashSet::new();
            for (at, kind) in all.iter().enumerate() {
                assert_eq!(index(*kind), at);
                assert!(seen.insert(word(*kind)), "{} twice", word(*kind));
            }
        }
        check(DatagramDrop::ALL, |k| k as usize, DatagramDrop::word);
        check(QueueFull::ALL, |k| k as usize, QueueFull::word);
        check(CloseCode::ALL, |k| k as usize, CloseCode::word);
        check(HandshakeFailure::ALL, |k| k as usize, HandshakeFailure::word);
        check(Flood::ALL, |k| k as usize, Flood::word);
        check(UpstreamClose::ALL, |k| k as usize, UpstreamClose::word);
        check(ProxyHeader::ALL, |k| k as usize, ProxyHeader::word);
        check(TlsAlert::ALL, |k| k as usize, TlsAlert::word);
    }

    #[test]
    fn alerts_are_named_by_their_number() {
        assert_eq!(TlsAlert::in_code(0x178).map(TlsAlert::word), Some("no_application_protocol"));
        assert_eq!(TlsAlert::in_code(0x100 + 48).map(TlsAlert::word), Some("unknown_ca"));
        assert_eq!(TlsAlert::in_code(0x1ff), Some(TlsAlert::Other));
        assert_eq!((TlsAlert::in_code(0xff), TlsAlert::in_code(0x200)), (None, None));
    }

    #[test]
    fn alerts_are_named_by_who_sent_them() {
        assert_eq!(HandshakeFailure::of_alert(116, true), HandshakeFailure::CertificateMissing);
        assert_eq!(HandshakeFailure::of_alert(48, true), HandshakeFailure::CertificateUnknownAuthority);
        assert_eq!(HandshakeFailure::of_alert(48, false), HandshakeFailure::CertificateRefused);
        assert_eq!(HandshakeFailure::of_alert(120, true), HandshakeFailure::NoProtocol);
        assert_eq!(HandshakeFailure::of_alert(40, true), HandshakeFailure::Tls);
    }

    #[test]
    fn close_codes_are_named_by_their_space() {
        assert_eq!(CloseCode::application(0x10e), CloseCode::MessageError);
        assert_eq!(CloseCode::application(7), CloseCode::OtherApplication);
        assert_eq!(CloseCode::transport(0x128), CloseCode::Tls);
        assert_eq!(CloseCode::transport(0xa), CloseCode::Transport);
    }
}
