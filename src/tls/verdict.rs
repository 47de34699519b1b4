//! Owns the judgement of a backend's certificate, and how a refusal is told: which check failed, what the certificate says,
//! and what would mend it.

use super::fault::{FaultKind, kind_of_certificate};
use crate::identity::CertificateText;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use std::fmt;
use std::sync::Arc;

/// Why a backend's certificate was refused.
#[derive(Debug)]
pub(super) struct Refusal {
    error: CertificateError,
    text: String,
}

impl Refusal {
    fn new(error: CertificateError, leaf: &[u8], server: &ServerName<'_>, source: &str) -> Self {
        let shown = CertificateText::of(leaf);
        let kind = kind_of_certificate(&error);
        let mut text = match kind {
            FaultKind::Expired => format!("the certificate ended on {}; renew it at the backend", shown.until),
            FaultKind::NotYetValid => {
                format!("the certificate begins on {}; check the clocks here and at the backend", shown.from)
            }
            FaultKind::UnknownCa if shown.subject == shown.issuer => format!(
                "the certificate is signed by itself and not among {source}; give it, or its authority, as ca_file"
            ),
            FaultKind::UnknownCa => format!(
                "no authority of {source} stands behind the certificate; give the authority as ca_file, or let the \
                 backend send its intermediate certificates too"
            ),
            FaultKind::WrongName => {
                let names = if shown.names.is_empty() { "no host at all".to_owned() } else { shown.names.join(", ") };
                format!(
                    "the certificate is for {names}, not for {}; dial the backend by a name of its certificate",
                    server.to_str()
                )
            }
            _ => format!("the certificate cannot be used: {}", Error::InvalidCertificate(error.clone())),
        };
        text.push_str(&format!(" [subject {}, issuer {}]", shown.subject, shown.issuer));
        Self { error, text }
    }

    pub(super) fn kind(&self) -> FaultKind {
        kind_of_certificate(&self.error)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Refusal {}

/// Believes the authorities it was made with.
#[derive(Debug)]
pub(super) struct Judge {
    library: Arc<WebPkiServerVerifier>,
    /// Whether the name counts.
    strict: bool,
    /// Where the authorities are from, for people.
    source: String,
}

impl Judge {
    pub(super) fn new(library: Arc<WebPkiServerVerifier>, strict: bool, source: String) -> Self {
        Self { library, strict, source }
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Err(error) = self.library.verify_server_cert(leaf, intermediates, server, ocsp, now) else {
            return Ok(ServerCertVerified::assertion());
        };
        match error {
            // The library looks at the name last: the chain is good.
            Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) if !self.strict => Ok(ServerCertVerified::assertion()),
            Error::InvalidCertificate(error) => {
                let refusal = Refusal::new(error, leaf, server, &self.source);
                Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal)))))
            }
            other => Err(other),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.library.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.library.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.library.supported_verify_schemes()
    }
}

/// Believes everybody; only that the backend has the key of the certificate it shows is checked.
#[derive(Debug)]
pub(super) struct Anyone {
    provider: Arc<CryptoProvider>,
}

impl Anyone {
    pub(super) fn new(provider: Arc<CryptoProvider>) -> Self {
        Self { provider }
    }
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
