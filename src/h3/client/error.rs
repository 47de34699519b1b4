//! Why there is no response, in words an operator can act on.

use super::CertificateFault;
use crate::h3::code;
use std::fmt;

/// Why nothing came.
#[derive(Debug)]
pub enum ClientError {
    /// The library refused something, or the server violated the protocol.
    Protocol(String),
    /// The certificate is not good.
    Certificate(Box<CertificateFault>),
    /// The server ended the handshake with a TLS alert.
    Alert(u8),
    /// The server speaks other versions of QUIC only.
    Versions(Vec<u32>),
    /// The server reset the request's stream.
    Reset(u64),
    /// The server closed the connection: an error code of HTTP/3 (`application`) or of QUIC, and its words.
    Closed {
        /// Whose code it is.
        application: bool,
        /// The code.
        code: u64,
        /// The server's words.
        reason: String,
    },
    /// The server knows nothing of the connection any more.
    StatelessReset,
    /// The server is shutting down and did not take the request.
    GoAway,
    /// More body than permitted.
    TooLarge,
    /// The server went silent.
    Timeout,
}

impl ClientError {
    /// Whether TLS is what failed, the certificate apart.
    pub fn is_handshake(&self) -> bool {
        matches!(self, Self::Alert(_) | Self::Versions(_))
    }

    pub(super) fn of_close(error: &quiche::ConnectionError) -> Self {
        // CRYPTO_ERROR (RFC 9000 §20.1): the low byte is the alert.
        if !error.is_app
            && let Some(alert) = error.error_code.checked_sub(0x100)
            && let Ok(alert) = u8::try_from(alert)
        {
            return Self::Alert(alert);
        }
        let reason = String::from_utf8_lossy(&error.reason).into_owned();
        Self::Closed { application: error.is_app, code: error.error_code, reason }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(error) => write!(f, "HTTP/3 failed: {error}"),
            Self::Certificate(fault) => fault.fmt(f),
            Self::Alert(alert) => {
                write!(f, "the server ended the TLS handshake with alert {alert}: {}", alert_text(*alert))
            }
            Self::Versions(versions) => {
                write!(f, "the server does not speak QUIC version 1, only")?;
                for (at, version) in versions.iter().enumerate() {
                    write!(f, "{} {version:#010x}", if at == 0 { "" } else { "," })?;
                }
                Ok(())
            }
            Self::Reset(code) => write!(f, "the server reset the stream ({})", application_code(*code)),
            Self::Closed { application, code, reason } => {
                let name = if *application { application_code(*code) } else { transport_code(*code) };
                write!(f, "the server closed the connection ({name}")?;
                if !reason.is_empty() {
                    write!(f, ", {reason:?}")?;
                }
                write!(f, ")")
            }
            Self::StatelessReset => {
                write!(f, "stateless reset: the server does not know the connection any more, as after a restart")
            }
            Self::GoAway => write!(f, "the server is going away and did not take the request"),
            Self::TooLarge => write!(f, "the body is larger than permitted"),
            Self::Timeout => write!(f, "the server went silent"),
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
        match error {
            quiche::h3::Error::TransportError(quiche::Error::StreamReset(code)) => Self::Reset(code),
            // The library's word for a field section over the limit that we announced.
            quiche::h3::Error::ExcessiveLoad => {
                Self::Protocol(format!("the fields are larger than the permitted {} KiB", super::HEAD_BYTES >> 10))
            }
            error => Self::Protocol(error.to_string()),
        }
    }
}

/// The alerts that a server's configuration causes (RFC 8446 §6.2).
fn alert_text(alert: u8) -> &'static str {
    match alert {
        40 => "no cipher, group, version or certificate in common",
        42..=46 => "it does not like the client's certificate",
        48 => "it does not know who issued the client's certificate",
        49 => "access denied",
        70 => "it does not speak TLS 1.3",
        80 => "internal error",
        112 => "it serves no such host name",
        116 => "it wants a client certificate",
        120 => "it does not speak HTTP/3 (ALPN h3) here",
        _ => "see RFC 8446 section 6",
    }
}

/// An error code of RFC 9114 §8.1 or RFC 9204 §6 by its name.
fn application_code(number: u64) -> String {
    let name = match number {
        code::NO_ERROR => "H3_NO_ERROR",
        code::GENERAL_PROTOCOL_ERROR => "H3_GENERAL_PROTOCOL_ERROR",
        code::INTERNAL_ERROR => "H3_INTERNAL_ERROR",
        code::STREAM_CREATION_ERROR => "H3_STREAM_CREATION_ERROR",
        code::CLOSED_CRITICAL_STREAM => "H3_CLOSED_CRITICAL_STREAM",
        code::FRAME_UNEXPECTED => "H3_FRAME_UNEXPECTED",
        code::FRAME_ERROR => "H3_FRAME_ERROR",
        code::EXCESSIVE_LOAD => "H3_EXCESSIVE_LOAD",
        code::ID_ERROR => "H3_ID_ERROR",
        code::SETTINGS_ERROR => "H3_SETTINGS_ERROR",
        code::MISSING_SETTINGS => "H3_MISSING_SETTINGS",
        code::REQUEST_REJECTED => "H3_REQUEST_REJECTED",
        code::REQUEST_CANCELLED => "H3_REQUEST_CANCELLED",
        code::REQUEST_INCOMPLETE => "H3_REQUEST_INCOMPLETE",
        code::MESSAGE_ERROR => "H3_MESSAGE_ERROR",
        code::CONNECT_ERROR => "H3_CONNECT_ERROR",
        code::VERSION_FALLBACK => "H3_VERSION_FALLBACK",
        code::QPACK_DECOMPRESSION_FAILED => "QPACK_DECOMPRESSION_FAILED",
        _ => return format!("HTTP/3 code {number:#x}"),
    };
    name.to_owned()
}

/// An error code of RFC 9000 §20.1 by its name.
fn transport_code(number: u64) -> String {
    const NAMES: [&str; 17] = [
        "NO_ERROR",
        "INTERNAL_ERROR",
        "CONNECTION_REFUSED",
        "FLOW_CONTROL_ERROR",
        "STREAM_LIMIT_ERROR",
        "STREAM_STATE_ERROR",
        "FINAL_SIZE_ERROR",
        "FRAME_ENCODING_ERROR",
        "TRANSPORT_PARAMETER_ERROR",
        "CONNECTION_ID_LIMIT_ERROR",
        "PROTOCOL_VIOLATION",
        "INVALID_TOKEN",
        "APPLICATION_ERROR",
        "CRYPTO_BUFFER_EXCEEDED",
        "KEY_UPDATE_ERROR",
        "AEAD_LIMIT_REACHED",
        "NO_VIABLE_PATH",
    ];
    let name = usize::try_from(number).ok().and_then(|at| NAMES.get(at));
    name.map_or_else(|| format!("QUIC code {number:#x}"), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_names() {
        assert_eq!(application_code(0x10b), "H3_REQUEST_REJECTED");
        assert_eq!(application_code(0x999), "HTTP/3 code 0x999");
        assert_eq!(transport_code(0xb), "INVALID_TOKEN");
        assert_eq!(transport_code(0x10), "NO_VIABLE_PATH");
        assert_eq!(transport_code(u64::MAX), "QUIC code 0xffffffffffffffff");
    }

    #[test]
    fn a_close_with_a_crypto_error_is_an_alert() {
        let close = |is_app, error_code| {
            ClientError::of_close(&quiche::ConnectionError { is_app, error_code, reason: b"why".to_vec() })
        };
        assert!(matches!(close(false, 0x178), ClientError::Alert(120)));
        assert!(close(false, 0x178).to_string().contains("does not speak HTTP/3"));
        assert!(matches!(close(true, 0x178), ClientError::Closed { application: true, code: 0x178, .. }));
        assert!(matches!(close(false, 0x200), ClientError::Closed { application: false, .. }));
        assert_eq!(close(false, 2).to_string(), "the server closed the connection (CONNECTION_REFUSED, \"why\")");
    }

    #[test]
    fn versions_are_listed() {
        let text = ClientError::Versions(vec![0x6b33_43cf, 0xff00_001d]).to_string();
        assert!(text.ends_with("only 0x6b3343cf, 0xff00001d"), "{text}");
    }
}
