//! Owns what is asked of clients: no certificate, one if they have it, or one in any case; and whom to believe.
//!
//! Reads the authorities and revocation lists from PEM. Whether a client's certificate passes is for the TLS stacks.

use super::{IdentityError, is_one_sequence, read_at_most};
use ring::digest::{self, SHA256};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Certificates a file of client authorities may have. Their names stand in each handshake that asks for a certificate, so
/// a trust store of the whole Web would not fit; it would not be meant either.
pub const AUTHORITIES_MAX: usize = 64;

/// Revocation lists a file may have: one for each authority, with room for delta lists.
pub const REVOCATION_LISTS_MAX: usize = 256;

/// Bytes of a file of revocation lists: some 400,000 revoked certificates.
pub const REVOCATION_BYTES_MAX: u64 = 16 << 20;

/// What is asked of the clients of an identity.
#[derive(Clone, Debug, Default)]
pub enum ClientAuth {
    /// Nothing.
    #[default]
    Off,
    /// A certificate if they have one; it must be good then.
    Optional(Arc<Trust>),
    /// A good certificate.
    Required(Arc<Trust>),
}

/// Which policy it is: equal for equal policies in every process, and 0 for [`ClientAuth::Off`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PolicyDigest(pub [u8; 32]);

impl ClientAuth {
    /// Whom to believe, where something is asked for.
    pub fn trust(&self) -> Option<&Trust> {
        match self {
            Self::Off => None,
            Self::Optional(trust) | Self::Required(trust) => Some(trust),
        }
    }

    /// Whether a client without a certificate is refused.
    pub fn is_required(&self) -> bool {
        matches!(self, Self::Required(_))
    }

    /// Tells policies apart, by everything in them.
    pub fn digest(&self) -> PolicyDigest {
        let Some(trust) = self.trust() else {
            return PolicyDigest::default();
        };
        let mut hash = digest::Context::new(&SHA256);
        hash.update(&[u8::from(self.is_required())]);
        let authorities = trust.authorities.iter().map(AsRef::as_ref);
        for (kind, der) in authorities.map(|der| (0, der)).chain(trust.revocations().map(|der| (1, der))) {
            hash.update(&[kind]);
            hash.update(&(der.len() as u64).to_be_bytes());
            hash.update(der);
        }
        let mut digest = PolicyDigest::default();
        digest.0.copy_from_slice(hash.finish().as_ref());
        digest
    }
}

/// Authorities of client certificates, and what they revoked.
pub struct Trust {
    authorities: Vec<CertificateDer<'static>>,
    revocations: Vec<CertificateRevocationListDer<'static>>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust")
            .field("authorities", &self.authorities.len())
            .field("revocation_lists", &self.revocations.len())
            .finish()
    }
}

impl Trust {
    /// Reads authorities and, where given, revocation lists from PEM files.
    ///
    /// # Errors
    /// If a file cannot be read or holds nothing of its kind.
    pub fn from_files(authorities: &Path, revocations: Option<&Path>) -> Result<Self, TrustError> {
        let authorities = read_at_most(authorities, super::FILE_BYTES_MAX).map_err(TrustError::File)?;
        let revocations =
            revocations.map(|path| read_at_most(path, REVOCATION_BYTES_MAX)).transpose().map_err(TrustError::File)?;
        Self::from_pem(&authorities, revocations.as_deref())
    }

    /// Reads authorities and, where given, revocation lists from PEM text; other blocks are skipped.
    ///
    /// # Errors
    /// If there is nothing of a kind, too much of it, or a block that is broken.
    pub fn from_pem(authorities: &[u8], revocations: Option<&[u8]>) -> Result<Self, TrustError> {
        let mut trust = Self { authorities: Vec::new(), revocations: Vec::new() };
        for authority in CertificateDer::pem_slice_iter(authorities) {
            let authority = authority.map_err(|error| TrustError::BadAuthority(error.to_string()))?;
            if !is_one_sequence(&authority) {
                return Err(TrustError::BadAuthority("not valid DER".to_owned()));
            }
            if trust.authorities.len() == AUTHORITIES_MAX {
                return Err(TrustError::TooManyAuthorities);
            }
            trust.authorities.push(authority.into_owned());
        }
        if trust.authorities.is_empty() {
            return Err(TrustError::NoAuthority);
        }
        for list in revocations.into_iter().flat_map(CertificateRevocationListDer::pem_slice_iter) {
            let list = list.map_err(|error| TrustError::BadRevocationList(error.to_string()))?;
            if trust.revocations.len() == REVOCATION_LISTS_MAX {
                return Err(TrustError::TooManyRevocationLists);
            }
            trust.revocations.push(list);
        }
        if revocations.is_some() && trust.revocations.is_empty() {
            return Err(TrustError::NoRevocationList);
        }
        Ok(trust)
    }

    /// The authorities in DER, at least one.
    pub fn authorities(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.authorities.iter().map(AsRef::as_ref)
    }

    /// The revocation lists in DER. If there is one, every certificate of a chain must be covered by one.
    pub fn revocations(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.revocations.iter().map(AsRef::as_ref)
    }
}

/// Why clients cannot be judged.
#[derive(Debug)]
pub enum TrustError {
    /// A file cannot be read or is too large.
    File(IdentityError),
    /// No certificate among the authorities.
    NoAuthority,
    /// A certificate of an authority cannot be decoded.
    BadAuthority(String),
    /// Over [`AUTHORITIES_MAX`].
    TooManyAuthorities,
    /// No list among the revocation lists.
    NoRevocationList,
    /// A list cannot be decoded.
    BadRevocationList(String),
    /// Over [`REVOCATION_LISTS_MAX`].
    TooManyRevocationLists,
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::NoAuthority => f.write_str(
                "no certificate found; a PEM file with the certificates of the clients' authorities is expected",
            ),
            Self::BadAuthority(why) => write!(f, "the certificate of an authority is broken: {why}"),
            Self::TooManyAuthorities => write!(
                f,
                "there are over {AUTHORITIES_MAX} authorities; give only those that issue certificates to your clients"
            ),
            Self::NoRevocationList => {
                f.write_str("no revocation list found; a PEM file with \"-----BEGIN X509 CRL-----\" is expected")
            }
            Self::BadRevocationList(why) => write!(f, "a revocation list is broken: {why}"),
            Self::TooManyRevocationLists => write!(f, "there are over {REVOCATION_LISTS_MAX} revocation lists"),
        }
    }
}

impl std::error::Error for TrustError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    fn pem() -> String {
        Identity::self_signed(&["an authority"]).unwrap().chain_pem()
    }

    #[test]
    fn each_mistake_has_its_own_error() {
        let good = pem();
        let load =
            |authorities: &str, lists: Option<&str>| Trust::from_pem(authorities.as_bytes(), lists.map(str::as_bytes));
        assert_eq!(load(&good, None).unwrap().authorities().len(), 1);
        assert!(matches!(load("", None), Err(TrustError::NoAuthority)));
        assert!(matches!(load(&good.repeat(AUTHORITIES_MAX), None), Ok(trust) if trust.authorities.len() == 64));
        assert!(matches!(load(&good.repeat(AUTHORITIES_MAX + 1), None), Err(TrustError::TooManyAuthorities)));
        let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(load(junk, None), Err(TrustError::BadAuthority(_))));
        assert!(matches!(load(&good, Some(&good)), Err(TrustError::NoRevocationList)));
        let list = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
        assert_eq!(load(&good, Some(list)).unwrap().revocations().len(), 1);
        let many = list.repeat(REVOCATION_LISTS_MAX + 1);
        assert!(matches!(load(&good, Some(&many)), Err(TrustError::TooManyRevocationLists)));
        let broken = "-----BEGIN X509 CRL-----\n!\n-----END X509 CRL-----\n";
        assert!(matches!(load(&good, Some(broken)), Err(TrustError::BadRevocationList(_))));
        let error = Trust::from_files(Path::new("/nonexistent/ca.pem"), None).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/ca.pem") && error.contains("check the path"), "{error}");
    }

    #[test]
    fn the_digest_tells_every_difference() {
        let (one, other) = (pem(), pem());
        let list = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
        let trust = |pem: &str, lists: Option<&str>| {
            Arc::new(Trust::from_pem(pem.as_bytes(), lists.map(str::as_bytes)).unwrap())
        };
        let required = ClientAuth::Required(trust(&one, None));
        assert_eq!(required.digest(), ClientAuth::Required(trust(&one, None)).digest());
        let all = [
            ClientAuth::Off,
            required,
            ClientAuth::Optional(trust(&one, None)),
            ClientAuth::Required(trust(&other, None)),
            ClientAuth::Required(trust(&one, Some(list))),
        ];
        for (at, policy) in all.iter().enumerate() {
            for later in &all[at + 1..] {
                assert_ne!(policy.digest(), later.digest(), "{policy:?} {later:?}");
            }
        }
    }
}
