//! Owns an identity: a certificate chain and its private key, read from PEM and checked against each other. Beside it:
//! the names it is for ([`ServerName`], [`Table`]), what is asked of its clients ([`ClientAuth`]), all of that together
//! ([`Site`]), what its sessions are sealed with ([`TicketKeys`]), and whom to believe about other servers ([`Authorities`]).
//!
//! One type serves every TLS stack: the bytes are kept as DER. It refuses to know any of those stacks, and never prints
//! key material or the content of a file. `h3::TlsContexts` and `tls::ServerContexts` make the contexts of their sides from it.

mod authorities;
mod certificate;
mod client_auth;
mod name;
mod shown;
mod site;
mod table;
mod tickets;

pub use authorities::{Authorities, AuthoritiesError, BUNDLES};
pub use certificate::CertificateText;
pub use client_auth::{ClientAuth, PolicyDigest, Trust, TrustError};
pub use name::ServerName;
pub use shown::ShownCertificate;
pub use site::{Handshake, Site, Sites, Standing, sites};
pub use table::{DuplicateName, Table};
pub use tickets::{ROTATION, TicketKeys};

use ring::signature::{self, KeyPair as _};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Certificates one chain may have: leaf, a few intermediates, maybe the root. More is a concatenated trust store by mistake.
pub const CHAIN_MAX: usize = 16;

/// Bytes a PEM file may have; a chain of [`CHAIN_MAX`] large certificates has under 100 KiB.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// A certificate chain, leaf first, and the private key of the leaf.
#[derive(Clone)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: KeyDer,
}

#[derive(Clone)]
enum KeyDer {
    Pkcs8(Box<[u8]>),
    Pkcs1(Box<[u8]>),
    Sec1(Box<[u8]>),
}

/// The encoding of a private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyEncoding {
    /// `PRIVATE KEY`
    Pkcs8,
    /// `RSA PRIVATE KEY`
    Pkcs1,
    /// `EC PRIVATE KEY`
    Sec1,
}

/// Why no identity could be made.
#[derive(Debug)]
pub enum IdentityError {
    /// A file could not be read.
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file is too large to be what it should be.
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes it may have.
        most: u64,
    },
    /// The certificate source has no `CERTIFICATE` block.
    NoCertificate,
    /// A PEM block of the certificate source cannot be decoded.
    BadCertificatePem(String),
    /// A certificate is not one DER structure.
    BadCertificate {
        /// Its place in the chain, from 0.
        index: usize,
    },
    /// Over [`CHAIN_MAX`] certificates.
    ChainTooLong,
    /// The key source has no private key block.
    NoKey,
    /// The key source holds an encrypted key.
    EncryptedKey,
    /// A PEM block of the key source cannot be decoded.
    BadKeyPem(String),
    /// The key is broken or of a kind we cannot sign with.
    UnsupportedKey,
    /// The private key is not the one of the first certificate.
    KeyMismatch,
    /// Making a self-signed identity failed.
    Make(String),
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, error } => {
                write!(f, "cannot read {}: {error}", path.display())?;
                match error.kind() {
                    io::ErrorKind::NotFound => f.write_str("; check the path"),
                    io::ErrorKind::PermissionDenied => {
                        f.write_str("; make it readable for the user spooky runs as")
                    }
                    _ => Ok(()),
                }
            }
            Self::FileTooLarge { path, most } => {
                write!(f, "{} has over {most} bytes; that is not the file that is meant", path.display())
            }
            Self::NoCertificate => f.write_str(
                "no certificate found; a PEM file with \"-----BEGIN CERTIFICATE-----\" is expected",
            ),
            Self::BadCertificatePem(why) => write!(f, "the certificate PEM is broken: {why}"),
            Self::BadCertificate { index } => {
                write!(f, "certificate {} of the chain is not valid DER", index + 1)
            }
            Self::ChainTooLong => write!(
                f,
                "the chain has over {CHAIN_MAX} certificates; give the leaf and its intermediates only"
            ),
            Self::NoKey => f.write_str(
                "no private key found; a PEM file with \"-----BEGIN PRIVATE KEY-----\" is expected",
            ),
            Self::EncryptedKey => f.write_str(
                "the private key is encrypted; decrypt it with `openssl pkey -in KEY -out PLAIN`",
            ),
            Self::BadKeyPem(why) => write!(f, "the private key PEM is broken: {why}"),
            Self::UnsupportedKey => f.write_str(
                "the private key is broken or of an unsupported kind; ECDSA P-256 or P-384, RSA of 2048 bits or more, or Ed25519 is expected",
            ),
            Self::KeyMismatch => f.write_str(
                "the private key does not belong to the first certificate; the chain must start with the certificate of the key",
            ),
            Self::Make(why) => write!(f, "cannot make a self-signed certificate: {why}"),
        }
    }
}

impl std::error::Error for IdentityError {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("certificates", &self.chain.len())
            .field("key", &self.key_encoding())
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads chain and key from PEM files; they may be one file.
    ///
    /// # Errors
    /// For everything that would make a handshake fail later.
    pub fn from_files(chain: &Path, key: &Path) -> Result<Self, IdentityError> {
        Self::from_pem(&read(chain)?, &read(key)?)
    }

    /// Reads chain and key from PEM text; other blocks are skipped.
    ///
    /// # Errors
    /// For everything that would make a handshake fail later.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let mut certificates = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(chain) {
            let certificate = certificate.map_err(|error| IdentityError::BadCertificatePem(error.to_string()))?;
            if certificates.len() == CHAIN_MAX {
                return Err(IdentityError::ChainTooLong);
            }
            certificates.push(certificate.into_owned());
        }
        let key = match PrivateKeyDer::from_pem_slice(key) {
            Ok(key) => key,
            Err(pem::Error::NoItemsFound) if is_encrypted(key) => {
                return Err(IdentityError::EncryptedKey);
            }
            Err(pem::Error::NoItemsFound) => return Err(IdentityError::NoKey),
            Err(error) => return Err(IdentityError::BadKeyPem(error.to_string())),
        };
        Self::from_der(certificates, key)
    }

    fn from_der(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'_>) -> Result<Self, IdentityError> {
        if chain.is_empty() {
            return Err(IdentityError::NoCertificate);
        }
        for (index, certificate) in chain.iter().enumerate() {
            if !is_one_sequence(certificate) {
                return Err(IdentityError::BadCertificate { index });
            }
        }
        let key = match key {
            PrivateKeyDer::Pkcs8(key) => KeyDer::Pkcs8(key.secret_pkcs8_der().into()),
            PrivateKeyDer::Pkcs1(key) => KeyDer::Pkcs1(key.secret_pkcs1_der().into()),
            PrivateKeyDer::Sec1(key) => KeyDer::Sec1(key.secret_sec1_der().into()),
            _ => return Err(IdentityError::UnsupportedKey),
        };
        let public = public_key(&key).ok_or(IdentityError::UnsupportedKey)?;
        // The public key stands verbatim in the SubjectPublicKeyInfo of its certificate and, being that long and random,
        // nowhere else by chance.
        if !contains(&chain[0], &public) {
            return Err(IdentityError::KeyMismatch);
        }
        Ok(Self { chain, key })
    }

    /// Makes a new self-signed identity (ECDSA P-256) for the given names or addresses.
    ///
    /// # Errors
    /// If a name is not one, or the system has no randomness.
    pub fn self_signed(names: &[&str]) -> Result<Self, IdentityError> {
        let make = |error: rcgen::Error| IdentityError::Make(error.to_string());
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(make)?;
        let mut parameters = rcgen::CertificateParams::new(names).map_err(make)?;
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "spooky self-signed");
        parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = parameters.self_signed(&key).map_err(make)?;
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        Self::from_der(chain, PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    /// The chain, leaf first, each in DER.
    pub fn chain(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.chain.iter().map(AsRef::as_ref)
    }

    /// The leaf certificate in DER.
    pub fn leaf(&self) -> &[u8] {
        &self.chain[0]
    }

    /// The chain as PEM, for clients that should trust a self-signed identity.
    pub fn chain_pem(&self) -> String {
        let mut text = String::new();
        for certificate in &self.chain {
            text.push_str("-----BEGIN CERTIFICATE-----\n");
            for line in base64(certificate).as_bytes().chunks(64) {
                text.extend(line.iter().copied().map(char::from));
                text.push('\n');
            }
            text.push_str("-----END CERTIFICATE-----\n");
        }
        text
    }

    /// Whether the certificate says that it is for all hosts of `name`.
    pub fn covers(&self, name: &ServerName) -> bool {
        certificate::host_names(self.leaf()).into_iter().any(|certified| name.is_covered_by(certified))
    }

    /// The private key in DER; [`Self::key_encoding`] says in which form.
    pub fn key(&self) -> &[u8] {
        match &self.key {
            KeyDer::Pkcs8(der) | KeyDer::Pkcs1(der) | KeyDer::Sec1(der) => der,
        }
    }

    /// The form of [`Self::key`].
    pub fn key_encoding(&self) -> KeyEncoding {
        match self.key {
            KeyDer::Pkcs8(_) => KeyEncoding::Pkcs8,
            KeyDer::Pkcs1(_) => KeyEncoding::Pkcs1,
            KeyDer::Sec1(_) => KeyEncoding::Sec1,
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    read_at_most(path, FILE_BYTES_MAX)
}

fn read_at_most(path: &Path, most: u64) -> Result<Vec<u8>, IdentityError> {
    use io::Read as _;
    let failed = |error| IdentityError::Read { path: path.to_owned(), error };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(IdentityError::FileTooLarge { path: path.to_owned(), most });
    }
    Ok(bytes)
}

fn is_encrypted(pem: &[u8]) -> bool {
    contains(pem, b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// The public key as it stands in a SubjectPublicKeyInfo, or `None` for a key we cannot sign with.
fn public_key(key: &KeyDer) -> Option<Vec<u8>> {
    let random = ring::rand::SystemRandom::new();
    let der = match key {
        KeyDer::Pkcs1(der) => {
            let pair = signature::RsaKeyPair::from_der(der).ok()?;
            return Some(pair.public_key().as_ref().to_vec());
        }
        KeyDer::Sec1(der) => sec1_to_pkcs8(der)?,
        KeyDer::Pkcs8(der) => der.to_vec(),
    };
    for algorithm in [&signature::ECDSA_P256_SHA256_ASN1_SIGNING, &signature::ECDSA_P384_SHA384_ASN1_SIGNING] {
        if let Ok(pair) = signature::EcdsaKeyPair::from_pkcs8(algorithm, &der, &random) {
            return Some(pair.public_key().as_ref().to_vec());
        }
    }
    if let Ok(pair) = signature::RsaKeyPair::from_pkcs8(&der) {
        return Some(pair.public_key().as_ref().to_vec());
    }
    let pair = signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).ok()?;
    Some(pair.public_key().as_ref().to_vec())
}

/// Wraps an ECPrivateKey (RFC 5915) into PKCS#8, with the curve that its parameters name.
fn sec1_to_pkcs8(sec1: &[u8]) -> Option<Vec<u8>> {
    const EC_PUBLIC_KEY: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
    let curve = [P256, P384].into_iter().find(|curve| contains(sec1, curve))?;
    let algorithm = der(0x30, &[EC_PUBLIC_KEY, curve].concat());
    let version = [0x02, 0x01, 0x00];
    Some(der(0x30, &[&version[..], &algorithm, &der(0x04, sec1)].concat()))
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        len @ 0..=0x7f => out.push(len as u8),
        len @ 0x80..=0xff => out.extend([0x81, len as u8]),
        len => out.extend([0x82, (len >> 8) as u8, len as u8]),
    }
    out.extend_from_slice(content);
    out
}

/// Whether the bytes are one DER SEQUENCE and nothing behind it.
fn is_one_sequence(bytes: &[u8]) -> bool {
    let [0x30, first, rest @ ..] = bytes else {
        return false;
    };
    let length_bytes = match first {
        0..=0x7f => return rest.len() == usize::from(*first),
        0x81..=0x83 => usize::from(first & 0x7f),
        _ => return false,
    };
    let Some((length, content)) = rest.split_at_checked(length_bytes) else {
        return false;
    };
    let length = length.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
    content.len() == length
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            if place <= group.len() {
                let index = (word >> (18 - 6 * place)) & 63;
                text.push(char::from(ALPHABET[index as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests;
