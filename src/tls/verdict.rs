//! Owns the judgement of a backend's certificate, and how a refusal is told: which check failed, what the certificate says,
//! and what would mend it.

use super::fault::{FaultKind, kind_of_certificate};
use rustls::CertificateError;
use std::fmt;

/// Why a backend's certificate was refused.
#[derive(Debug)]
pub(super) struct Refusal {
    error: CertificateError,
    text: String,
}

impl Refusal {
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
