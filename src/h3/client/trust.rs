//! Whose certificate is good: the context of a client's handshake, and the verdict on what the server showed.
//!
//! The library judges the chain; the first objection is kept with the certificate it is about, so that the operator hears
//! which check failed and not just that one did.

use super::facts::{CertificateFacts, unix_seconds};
use super::{ClientError, ClientRequest};
use crate::h3::boring_context;
use crate::identity::BUNDLES;
use boring::error::ErrorStack;
use boring::ssl::{SslContext, SslContextBuilder, SslMethod, SslVerifyMode, SslVersion};
use boring::x509::{X509, X509StoreContextRef, X509VerifyError};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Which certificates are good.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// This one (DER) and no other.
    Exactly(&'a [u8]),
    /// Those that name the host and lead to an authority of the system, or to one of these (PEM).
    Authorities(&'a [u8]),
    /// Any; what [`Self::Authorities`] would have said is noted.
    Anyone(&'a [u8]),
}

/// Which check failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// It is over.
    Expired,
    /// It has not begun.
    NotYetValid,
    /// It names other hosts.
    WrongHost,
    /// It is signed by itself only.
    SelfSigned,
    /// No authority that is trusted stands behind it.
    UnknownIssuer,
    /// It is not the one that was expected.
    Other,
    /// Something else.
    Refused,
}

/// The library's objection to a certificate.
#[derive(Debug, Clone)]
pub struct CertificateFault {
    /// Which check failed.
    pub kind: FaultKind,
    /// The library's words.
    pub text: String,
    /// Which certificate of the chain; 0 is the server's own.
    pub depth: u32,
    /// That certificate.
    pub certificate: Option<CertificateFacts>,
}

impl CertificateFault {
    fn of(context: &X509StoreContextRef) -> Self {
        let error = context.verify_result().err();
        let kind = match error {
            Some(X509VerifyError::CERT_HAS_EXPIRED) => FaultKind::Expired,
            Some(X509VerifyError::CERT_NOT_YET_VALID) => FaultKind::NotYetValid,
            Some(X509VerifyError::HOSTNAME_MISMATCH | X509VerifyError::IP_ADDRESS_MISMATCH) => FaultKind::WrongHost,
            Some(X509VerifyError::DEPTH_ZERO_SELF_SIGNED_CERT | X509VerifyError::SELF_SIGNED_CERT_IN_CHAIN) => {
                FaultKind::SelfSigned
            }
            Some(
                X509VerifyError::UNABLE_TO_GET_ISSUER_CERT
                | X509VerifyError::UNABLE_TO_GET_ISSUER_CERT_LOCALLY
                | X509VerifyError::UNABLE_TO_VERIFY_LEAF_SIGNATURE,
            ) => FaultKind::UnknownIssuer,
            _ => FaultKind::Refused,
        };
        Self {
            kind,
            text: error.map_or("unspecified", |error| error.error_string()).to_owned(),
            depth: context.error_depth(),
            certificate: context.current_cert().map(CertificateFacts::of),
        }
    }

    /// Another certificate than the one expected.
    pub(super) fn other(shown: Option<&[u8]>) -> Self {
        let certificate = shown.and_then(CertificateFacts::from_der);
        Self { kind: FaultKind::Other, text: "another certificate".to_owned(), depth: 0, certificate }
    }

    /// The check in one word, for programs.
    pub fn word(&self) -> &'static str {
        match self.kind {
            FaultKind::Expired => "expired",
            FaultKind::NotYetValid => "not_yet_valid",
            FaultKind::WrongHost => "wrong_host",
            FaultKind::SelfSigned => "self_signed",
            FaultKind::UnknownIssuer => "unknown_issuer",
            FaultKind::Other => "other",
            FaultKind::Refused => "refused",
        }
    }
}

impl fmt::Display for CertificateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.certificate.as_ref().map_or("", |shown| &shown.subject);
        match self.kind {
            FaultKind::Expired => write!(f, "the certificate has expired")?,
            FaultKind::NotYetValid => write!(f, "the certificate is not valid yet")?,
            FaultKind::WrongHost => {
                write!(f, "the certificate is for other names")?;
                if let Some(shown) = &self.certificate {
                    write!(f, ": {}", shown.names_text())?;
                }
            }
            FaultKind::SelfSigned => write!(f, "the certificate is signed by itself, by no authority of this system")?,
            FaultKind::UnknownIssuer => write!(f, "the certificate's issuer is no authority of this system")?,
            FaultKind::Other => write!(f, "the server showed another certificate")?,
            FaultKind::Refused => write!(f, "the certificate was refused ({})", self.text)?,
        }
        if !subject.is_empty() {
            write!(f, " [{subject}")?;
            if self.depth > 0 {
                write!(f, ", {} above the server's own", self.depth)?;
            }
            write!(f, "]")?;
        }
        Ok(())
    }
}

/// The first objection, if there was one.
pub(super) type Verdict = Arc<OnceLock<CertificateFault>>;

/// A context for the handshake of `request`.
pub(super) fn context(request: &ClientRequest<'_>) -> Result<(SslContextBuilder, Verdict), ClientError> {
    let tls = |error: ErrorStack| ClientError::Protocol(format!("cannot set TLS up: {error}"));
    let mut context = SslContext::builder(SslMethod::tls()).map_err(tls)?;
    context.set_min_proto_version(Some(SslVersion::TLS1_3)).map_err(tls)?;
    context.set_max_proto_version(Some(SslVersion::TLS1_3)).map_err(tls)?;
    boring_context::offer_groups(&mut context).map_err(tls)?;
    let verdict = Verdict::default();
    let (more, required) = match request.trust {
        // The chain of a self-signed certificate leads nowhere; the certificate itself is compared.
        Trust::Exactly(_) => {
            context.set_verify(SslVerifyMode::NONE);
            return Ok((context, verdict));
        }
        Trust::Authorities(more) => (more, true),
        Trust::Anyone(more) => (more, false),
    };
    add_authorities(&mut context, more)?;
    let first = Arc::clone(&verdict);
    context.set_verify_callback(SslVerifyMode::PEER, move |fine, chain| {
        if !fine {
            first.get_or_init(|| CertificateFault::of(chain));
        }
        fine || !required
    });
    Ok((context, verdict))
}

fn add_authorities(context: &mut SslContextBuilder, more: &[u8]) -> Result<(), ClientError> {
    // What is missing here shows as an unknown issuer, with the way out.
    let _ = context.set_default_verify_paths();
    if std::env::var_os("SSL_CERT_FILE").is_none()
        && let Some(bundle) = BUNDLES.iter().map(Path::new).find(|path| path.exists())
    {
        let _ = context.set_ca_file(bundle);
    }
    let refused = |error: ErrorStack| ClientError::Protocol(format!("the authorities given are refused: {error}"));
    if !more.is_empty() {
        for certificate in X509::stack_from_pem(more).map_err(refused)? {
            context.cert_store_mut().add_cert(certificate).map_err(refused)?;
        }
    }
    Ok(())
}

/// How many certificates a PEM text holds; 0 if it is none.
/// Never fails
pub fn count_authorities(pem: &[u8]) -> usize {
    X509::stack_from_pem(pem)
        .map_or(0, |stack| stack.iter().filter(|one| unix_seconds(one.not_after()).is_some()).count())
}
