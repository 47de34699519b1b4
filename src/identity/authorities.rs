//! Owns whom to believe about servers: the authorities of the system, of a file or of a folder, as certificates in DER.

use super::{IdentityError, is_one_sequence, read_at_most};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::fmt;
use std::path::{Path, PathBuf};

/// Where distributions keep the authorities of the system in one file.
pub const BUNDLES: &[&str] = &[
    // Debian, Alpine, Arch
    "/etc/ssl/certs/ca-certificates.crt",
    // Fedora, RHEL
    "/etc/pki/tls/certs/ca-bundle.crt",
    // SUSE
    "/etc/ssl/ca-bundle.pem",
];

/// Where they are single files, if there is none of [`BUNDLES`].
const FOLDER: &str = "/etc/ssl/certs";

/// Bytes of a file of authorities; a system's has under 300 KiB.
pub const AUTHORITIES_BYTES_MAX: u64 = 4 << 20;

/// Files that are read of a folder: a system's has under 300, with every one twice.
pub const AUTHORITY_FILES_MAX: usize = 4_096;

/// Certificates of authorities.
#[derive(Clone)]
pub struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
    source: Box<str>,
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities")
            .field("certificates", &self.certificates.len())
            .field("source", &self.source)
            .finish()
    }
}

/// Why there are no authorities.
#[derive(Debug)]
pub enum AuthoritiesError {
    /// A file or folder cannot be read, or is too large.
    File(IdentityError),
    /// A certificate cannot be decoded.
    Broken {
        /// Where it stands.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// No certificate is there.
    None(PathBuf),
    /// None of the places where systems keep theirs exists.
    NoSystem,
    /// Over [`AUTHORITY_FILES_MAX`].
    TooManyFiles(PathBuf),
}

impl fmt::Display for AuthoritiesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Broken { path, why } => write!(f, "a certificate in {} is broken: {why}", path.display()),
            Self::None(path) => {
                write!(f, "no certificate found in {}; certificates of authorities in PEM are expected", path.display())
            }
            Self::NoSystem => f.write_str(
                "this system has no list of authorities; install the package `ca-certificates`, or give a ca_file",
            ),
            Self::TooManyFiles(path) => {
                write!(
                    f,
                    "{} has over {AUTHORITY_FILES_MAX} files; that is not the folder that is meant",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for AuthoritiesError {}

impl Authorities {
    /// Those of the system: of `$SSL_CERT_FILE` or `$SSL_CERT_DIR` where set, as OpenSSL has it, else where distributions
    /// keep them.
    ///
    /// # Errors
    /// If there are none.
    pub fn system() -> Result<Self, AuthoritiesError> {
        let named = |variable: &str| std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
        let mut found = match (named("SSL_CERT_FILE"), named("SSL_CERT_DIR")) {
            (Some(file), _) => Self::file(&file)?,
            (None, Some(folder)) => Self::folder(&folder)?,
            (None, None) => match BUNDLES.iter().map(Path::new).find(|path| path.exists()) {
                Some(bundle) => Self::file(bundle)?,
                None if Path::new(FOLDER).exists() => Self::folder(Path::new(FOLDER))?,
                None => return Err(AuthoritiesError::NoSystem),
            },
        };
        found.source = "the system's authorities".into();
        Ok(found)
    }

    /// Those of a PEM file; other blocks are skipped.
    ///
    /// # Errors
    /// If it cannot be read, or holds none, or a broken one.
    pub fn file(path: &Path) -> Result<Self, AuthoritiesError> {
        let mut found = Self { certificates: Vec::new(), source: path.display().to_string().into() };
        found.read(path)?;
        found.unless_empty(path)
    }

    /// Those of all files of a folder, in order of their names. Files without certificates are skipped, as are folders in it.
    ///
    /// # Errors
    /// If it cannot be read, or holds none, or a broken one.
    pub fn folder(path: &Path) -> Result<Self, AuthoritiesError> {
        let failed = |error| AuthoritiesError::File(IdentityError::Read { path: path.to_owned(), error });
        let mut files = Vec::new();
        for entry in std::fs::read_dir(path).map_err(failed)? {
            let file = entry.map_err(failed)?.path();
            if files.len() == AUTHORITY_FILES_MAX {
                return Err(AuthoritiesError::TooManyFiles(path.to_owned()));
            }
            // Links that lead nowhere are left behind by removed packages.
            if file.is_file() {
                files.push(file);
            }
        }
        files.sort();
        let mut found = Self { certificates: Vec::new(), source: path.display().to_string().into() };
        for file in files {
            found.read(&file)?;
        }
        found.certificates.sort_by(|one, other| one.as_ref().cmp(other.as_ref()));
        found.certificates.dedup();
        found.unless_empty(path)
    }

    fn read(&mut self, path: &Path) -> Result<(), AuthoritiesError> {
        let broken = |why: String| AuthoritiesError::Broken { path: path.to_owned(), why };
        let pem = read_at_most(path, AUTHORITIES_BYTES_MAX).map_err(AuthoritiesError::File)?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| broken(error.to_string()))?;
            if !is_one_sequence(&certificate) {
                return Err(broken("not valid DER".to_owned()));
            }
            self.certificates.push(certificate.into_owned());
        }
        Ok(())
    }

    fn unless_empty(self, path: &Path) -> Result<Self, AuthoritiesError> {
        if self.certificates.is_empty() { Err(AuthoritiesError::None(path.to_owned())) } else { Ok(self) }
    }

    /// These and the others.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.certificates.extend(others.certificates);
        self.certificates.sort_by(|one, other| one.as_ref().cmp(other.as_ref()));
        self.certificates.dedup();
        self.source = format!("{} and {}", self.source, others.source).into();
        self
    }

    /// The certificates in DER, at least one.
    pub fn certificates(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.certificates.iter().map(AsRef::as_ref)
    }

    /// Where they are from, for people.
    pub fn source(&self) -> &str {
        &self.source
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    #[test]
    fn a_file_and_a_folder_are_read_and_each_mistake_has_its_own_error() {
        let folder = std::env::temp_dir().join(format!("spooky-authorities-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("inner")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        let pem = |name: &str| Identity::self_signed(&[name]).unwrap().chain_pem();
        let (one, other) = (pem("one"), pem("other"));
        write("readme", "no certificate here");
        assert!(matches!(Authorities::folder(&folder), Err(AuthoritiesError::None(_))));
        assert!(matches!(Authorities::file(&folder.join("readme")), Err(AuthoritiesError::None(_))));
        write("one.pem", &one);
        write("both.pem", &format!("{one}{other}"));
        let both = Authorities::file(&folder.join("both.pem")).unwrap();
        assert_eq!((both.certificates().len(), both.source().ends_with("both.pem")), (2, true));
        // The same certificate twice is one.
        assert_eq!(Authorities::folder(&folder).unwrap().certificates().len(), 2);
        let joined = Authorities::file(&folder.join("one.pem")).unwrap().and(both);
        assert_eq!(joined.certificates().len(), 2);
        assert!(
            joined.source().contains("one.pem and ") && joined.source().ends_with("both.pem"),
            "{}",
            joined.source()
        );
        write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let error = Authorities::folder(&folder).unwrap_err().to_string();
        assert!(error.contains("broken.pem"), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();
        let error = Authorities::file(&folder.join("one.pem")).unwrap_err().to_string();
        assert!(error.contains("one.pem") && error.contains("check the path"), "{error}");
        assert!(matches!(Authorities::folder(&folder), Err(AuthoritiesError::File(_))));
    }
}
