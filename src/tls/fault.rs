//! Owns why a connection's TLS ended: who broke off, over what, and the words for people and counters.

use super::records::BadHeader;
use super::verdict::Refusal;
use crate::telemetry::kinds::HandshakeFailure;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, OtherError, PeerIncompatible, PeerMisbehaved};
use std::fmt;

/// Who broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// We did, over what the peer sent.
    Us,
    /// The peer did: by an alert, or by closing.
    Peer,
}

macro_rules! fault_kinds {
    ($( $(#[$doc:meta])* $name:ident = $word:literal, )+) => {
        /// What it was over.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum FaultKind {
            $( $(#[$doc])* $name, )+
        }

        impl FaultKind {
            /// Every kind, in the order of the variants.
            pub const ALL: &[Self] = &[ $( Self::$name, )+ ];

            /// The kind in one word, for counters and logs.
            pub const fn word(self) -> &'static str {
                match self {
                    $( Self::$name => $word, )+
                }
            }
        }
    };
}

fault_kinds! {
    /// The peer showed no certificate, and one is required.
    NoCertificate = "no_certificate",
    /// The peer's certificate is revoked.
    Revoked = "revoked",
    /// The peer's certificate, or a revocation list for it, has expired.
    Expired = "expired",
    /// The peer's certificate is not valid yet.
    NotYetValid = "not_yet_valid",
    /// The peer's certificate leads to no authority that is trusted, or no revocation list covers it.
    UnknownCa = "unknown_ca",
    /// The peer's certificate is for other names.
    WrongName = "wrong_name",
    /// The peer's certificate is broken, forged or for another purpose.
    BadCertificate = "bad_certificate",
    /// The peer did not take our certificate, or misses one of ours.
    CertificateRefused = "certificate_refused",
    /// No protocol (ALPN) in common.
    NoProtocol = "no_protocol",
    /// No version of TLS in common.
    Version = "version",
    /// No cipher, group or signature in common.
    NoCommonCipher = "no_common_cipher",
    /// HTTP without TLS.
    PlainHttp = "plain_http",
    /// The first bytes are no TLS.
    NotTls = "not_tls",
    /// A record that was changed on its way, or sealed with another key.
    BadRecord = "bad_record",
    /// A record or message that is longer than it may be.
    TooLong = "too_long",
    /// A message that is malformed, or out of place.
    Malformed = "malformed",
    /// Too many records without content, key updates, renegotiations or alerts.
    Flood = "flood",
    /// The peer ended the connection with another alert.
    Alert = "alert",
    /// The peer closed the connection in the middle of the handshake.
    Closed = "closed",
    /// The peer closed the connection without saying that it is the end (RFC 8446 §6.1): what came may be cut.
    Truncated = "truncated",
    /// The library cannot go on.
    Internal = "internal",
}

/// Why a connection's TLS ended. Nothing can be received or sent any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Who broke off.
    pub by: Side,
    /// Over what.
    pub kind: FaultKind,
    /// The alert that came, by its number (RFC 8446 §6), or the one a certificate was refused with.
    pub alert: Option<u8>,
    /// Whether the output ends with an alert of ours: it is to be sent before the connection is closed.
    pub tells: bool,
    /// What was expected, what came and what to do about it, for people.
    pub text: Box<str>,
}

impl Fault {
    pub(super) fn new(by: Side, kind: FaultKind, text: impl Into<Box<str>>) -> Self {
        Self { by, kind, alert: None, tells: false, text: text.into() }
    }

    /// Bytes that are no record, at the beginning of a connection.
    pub(super) fn not_tls(first: u8) -> Self {
        if first.is_ascii_uppercase() {
            let text = "a request came without TLS; ask with https://";
            return Self::new(Side::Us, FaultKind::PlainHttp, text);
        }
        Self::new(Side::Us, FaultKind::NotTls, format!("the first byte, {first:#04x}, begins no TLS record"))
    }

    pub(super) fn bad_header(bad: BadHeader) -> Self {
        match bad {
            BadHeader::Unknown(header) => {
                let text = format!("no TLS record begins with {:02x?}", &header[..3]);
                Self::new(Side::Us, FaultKind::Malformed, text)
            }
            BadHeader::TooLong(_) => {
                Self::new(Side::Us, FaultKind::TooLong, "a record of over 16,384 bytes and its protection")
            }
        }
    }

    pub(super) fn flood() -> Self {
        Self::new(Side::Us, FaultKind::Flood, "too many records without content")
    }

    pub(super) fn too_long(bytes: usize) -> Self {
        Self::new(Side::Us, FaultKind::TooLong, format!("a handshake message of over {bytes} bytes"))
    }

    /// The library's objection. `tells`: it left an alert in the output.
    pub(super) fn of(error: &Error, tells: bool) -> Self {
        let mut fault = Self::new(Side::Us, kind_of(error), text_of(error));
        fault.tells = tells;
        match error {
            Error::AlertReceived(alert) => {
                fault.by = Side::Peer;
                fault.alert = Some(u8::from(*alert));
            }
            Error::InvalidCertificate(error) => fault.alert = Some(u8::from(AlertDescription::from(error.clone()))),
            _ => {}
        }
        fault
    }

    /// The same as the reason why a client's handshake did not complete.
    pub fn handshake_failure(&self) -> HandshakeFailure {
        use FaultKind as Kind;
        match self.kind {
            Kind::NoCertificate => HandshakeFailure::CertificateMissing,
            Kind::Revoked => HandshakeFailure::CertificateRevoked,
            Kind::Expired => HandshakeFailure::CertificateExpired,
            Kind::UnknownCa => HandshakeFailure::CertificateUnknownAuthority,
            Kind::NotYetValid | Kind::WrongName | Kind::BadCertificate => HandshakeFailure::CertificateBad,
            Kind::CertificateRefused => HandshakeFailure::CertificateRefused,
            Kind::NoProtocol => HandshakeFailure::NoProtocol,
            Kind::Closed | Kind::Truncated => HandshakeFailure::Closed,
            Kind::PlainHttp => HandshakeFailure::PlainHttp,
            Kind::NotTls | Kind::BadRecord | Kind::TooLong | Kind::Malformed | Kind::Flood => {
                HandshakeFailure::Transport
            }
            Kind::Version | Kind::NoCommonCipher | Kind::Alert | Kind::Internal => HandshakeFailure::Tls,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.word(), self.text)
    }
}

impl std::error::Error for Fault {}

fn kind_of(error: &Error) -> FaultKind {
    match error {
        Error::AlertReceived(alert) => kind_of_alert(*alert),
        Error::InvalidCertificate(error) => kind_of_certificate(error),
        Error::NoCertificatesPresented => FaultKind::NoCertificate,
        Error::NoApplicationProtocol => FaultKind::NoProtocol,
        Error::DecryptError => FaultKind::BadRecord,
        Error::PeerSentOversizedRecord
        | Error::InvalidMessage(
            InvalidMessage::MessageTooLarge
            | InvalidMessage::HandshakePayloadTooLarge
            | InvalidMessage::CertificatePayloadTooLarge,
        ) => FaultKind::TooLong,
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => FaultKind::Version,
        Error::PeerIncompatible(_) => FaultKind::NoCommonCipher,
        Error::PeerMisbehaved(
            PeerMisbehaved::TooManyEmptyFragments
            | PeerMisbehaved::TooManyKeyUpdateRequests
            | PeerMisbehaved::TooManyRenegotiationRequests
            | PeerMisbehaved::TooManyWarningAlertsReceived,
        ) => FaultKind::Flood,
        Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol) => FaultKind::NoProtocol,
        Error::PeerMisbehaved(_)
        | Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::UnsupportedNameType => FaultKind::Malformed,
        _ => FaultKind::Internal,
    }
}

fn kind_of_alert(alert: AlertDescription) -> FaultKind {
    match alert {
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::NoCertificate
        | AlertDescription::CertificateRequired
        | AlertDescription::DecryptError => FaultKind::CertificateRefused,
        AlertDescription::NoApplicationProtocol => FaultKind::NoProtocol,
        AlertDescription::ProtocolVersion => FaultKind::Version,
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => FaultKind::NoCommonCipher,
        AlertDescription::BadRecordMac => FaultKind::BadRecord,
        AlertDescription::UserCanceled | AlertDescription::CloseNotify => FaultKind::Closed,
        _ => FaultKind::Alert,
    }
}

pub(super) fn kind_of_certificate(error: &CertificateError) -> FaultKind {
    use CertificateError as Bad;
    match error {
        Bad::Revoked => FaultKind::Revoked,
        Bad::Expired
        | Bad::ExpiredContext { .. }
        | Bad::ExpiredRevocationList
        | Bad::ExpiredRevocationListContext { .. } => FaultKind::Expired,
        Bad::NotValidYet | Bad::NotValidYetContext { .. } => FaultKind::NotYetValid,
        Bad::UnknownIssuer | Bad::UnknownRevocationStatus => FaultKind::UnknownCa,
        Bad::NotValidForName | Bad::NotValidForNameContext { .. } => FaultKind::WrongName,
        Bad::Other(OtherError(other)) => {
            other.downcast_ref::<Refusal>().map_or(FaultKind::BadCertificate, Refusal::kind)
        }
        _ => FaultKind::BadCertificate,
    }
}

fn text_of(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => other.to_string(),
        Error::AlertReceived(alert) => {
            let number = u8::from(*alert);
            match alert {
                AlertDescription::CertificateRequired => {
                    format!("the peer asks for a certificate and got none (alert {number}); configure one")
                }
                AlertDescription::Unknown(_) => format!("the peer sent alert {number}"),
                _ => format!("the peer sent alert {number} ({alert:?})"),
            }
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn words_are_words_and_differ() {
        let words: HashSet<_> = FaultKind::ALL.iter().map(|kind| kind.word()).collect();
        assert_eq!(words.len(), FaultKind::ALL.len());
        assert!(words.iter().all(|word| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
    }

    #[test]
    fn alerts_mean_the_same_as_over_quic() {
        for alert in [42, 43, 44, 45, 46, 48, 120] {
            let fault = Fault::of(&Error::AlertReceived(AlertDescription::from(alert)), false);
            assert_eq!((fault.by, fault.alert), (Side::Peer, Some(alert)));
            assert_eq!(fault.handshake_failure(), HandshakeFailure::of_alert(alert, false), "{alert}");
        }
        for (error, alert) in [
            (CertificateError::Revoked, 44),
            (CertificateError::Expired, 45),
            (CertificateError::UnknownIssuer, 48),
            (CertificateError::BadSignature, 51),
            (CertificateError::InvalidPurpose, 43),
            (CertificateError::BadEncoding, 42),
        ] {
            let fault = Fault::of(&Error::InvalidCertificate(error), true);
            assert_eq!((fault.by, fault.alert, fault.tells), (Side::Us, Some(alert), true));
            assert_eq!(fault.handshake_failure(), HandshakeFailure::of_alert(alert, true), "{alert}");
        }
    }

    #[test]
    fn plain_http_is_told_from_noise() {
        assert_eq!(Fault::not_tls(b'G').kind, FaultKind::PlainHttp);
        assert_eq!(Fault::not_tls(0x80).kind, FaultKind::NotTls);
        assert!(Fault::not_tls(b'P').text.contains("https://"));
    }
}
