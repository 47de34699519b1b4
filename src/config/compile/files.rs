//! Files that a configuration refers to: are they there, may we read them, are they what they should be.
//!
//! Never shows their content, not even a piece of it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use super::Compiler;
use super::admission::{not_a_network, parse_networks};
use crate::config::diagnostic::Diagnostic;
use crate::config::include::plain;
use crate::config::schema::Located;
use crate::config::source::Place;
use crate::config::values::FilePath;
use crate::identity::{Authorities, AuthoritiesError, Identity, IdentityError, ServerName, Trust, TrustError};
use crate::limits;
use crate::tls::{self, Verify};
use ipnet::IpNet;

/// A certificate chain and its key, and whether they are for `name`.
pub(super) fn check_identity(
    compiler: &mut Compiler<'_>,
    name: Option<&Located<ServerName>>,
    cert: &Located<FilePath>,
    key: &Located<FilePath>,
) {
    let cert_text = read(compiler, cert);
    let key_text = read(compiler, key);
    let has_cert = |text: &str| text.contains("-----BEGIN CERTIFICATE-----");
    let has_key = |text: &str| text.contains("PRIVATE KEY-----");
    if let Some(text) = &cert_text
        && !has_cert(text)
    {
        let swapped = has_key(text) && key_text.as_deref().is_some_and(has_cert);
        let help = if swapped {
            "it holds a private key: certificate and key are swapped"
        } else {
            "give a PEM file that begins with -----BEGIN CERTIFICATE-----"
        };
        compiler.report(Diagnostic::error("there is no certificate in this file").at(cert.place, "").help(help));
    }
    if let Some(text) = &key_text
        && !has_key(text)
    {
        compiler.report(
            Diagnostic::error("there is no private key in this file")
                .at(key.place, "")
                .help("give a PEM file that begins with -----BEGIN PRIVATE KEY-----"),
        );
    }
    if let (Some(cert_text), Some(key_text)) = (&cert_text, &key_text)
        && has_cert(cert_text)
        && has_key(key_text)
    {
        match Identity::from_pem(cert_text.as_bytes(), key_text.as_bytes()) {
            Ok(identity) => check_cover(compiler, name, cert, &identity),
            Err(IdentityError::KeyMismatch) => compiler.report(
                Diagnostic::error("this private key does not belong to the certificate")
                    .at(key.place, "")
                    .at(cert.place, "the first certificate of this file")
                    .help(
                        "give the key that the certificate was made for; its own certificate stands first in the chain",
                    ),
            ),
            Err(error) => {
                let of_key = matches!(
                    error,
                    IdentityError::NoKey
                        | IdentityError::EncryptedKey
                        | IdentityError::BadKeyPem(_)
                        | IdentityError::UnsupportedKey
                );
                let place = if of_key { key.place } else { cert.place };
                compiler.report(Diagnostic::error(error.to_string()).at(place, ""));
            }
        }
    }
    let readable_by_all = fs::metadata(&key.value.0).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0);
    if key_text.as_deref().is_some_and(has_key) && readable_by_all {
        let warning = Diagnostic::warning("every user of this machine can read this private key").at(key.place, "");
        compiler.report(warning.help(format!("chmod o-r {}", key.value.0.display())));
    }
}

/// A client that verifies would refuse a certificate that is not for the name it asked for. Only a warning: the operator
/// may know clients that do not, and renewing a certificate must not stop everything else.
fn check_cover(
    compiler: &mut Compiler<'_>,
    name: Option<&Located<ServerName>>,
    cert: &Located<FilePath>,
    identity: &Identity,
) {
    if let Some(name) = name
        && !identity.covers(&name.value)
    {
        compiler.report(
            Diagnostic::warning(format!("this certificate is not for `{}`: clients will refuse it", name.value))
                .at(cert.place, "")
                .at(name.place, "the name")
                .help("get a certificate with the name in its subjectAltName, or correct `server_name`"),
        );
    }
}

/// The authorities of clients, and their revocation lists.
pub(super) fn check_trust(
    compiler: &mut Compiler<'_>,
    authorities: &Located<FilePath>,
    lists: Option<&Located<FilePath>>,
) {
    let error = match Trust::from_files(&authorities.value.0, lists.map(|lists| lists.value.0.as_path())) {
        Ok(trust) => {
            // Two TLS stacks judge by the same files, and the one for TCP is the stricter reader.
            if let Err(error) = tls::check_trust(&trust) {
                compiler.report(Diagnostic::error(error.to_string()).at(lists.unwrap_or(authorities).place, ""));
            }
            return;
        }
        Err(error) => error,
    };
    let of_lists = match &error {
        TrustError::NoRevocationList | TrustError::BadRevocationList(_) | TrustError::TooManyRevocationLists => true,
        TrustError::File(IdentityError::Read { path, .. } | IdentityError::FileTooLarge { path, .. }) => {
            *path != authorities.value.0
        }
        _ => false,
    };
    let denied = matches!(&error, TrustError::File(IdentityError::Read { error, .. })
        if error.kind() == io::ErrorKind::PermissionDenied);
    let place = lists.filter(|_| of_lists).unwrap_or(authorities).place;
    compiler.report(Diagnostic::error(error.to_string()).at(place, "").denied(denied));
}

/// What a path of authorities leads to.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    File,
    Folder,
}

/// Authorities that backends are judged by.
pub(super) fn check_authorities(compiler: &mut Compiler<'_>, path: &Located<FilePath>, kind: Kind) {
    let found = match kind {
        Kind::File => Authorities::file(&path.value.0),
        Kind::Folder => Authorities::folder(&path.value.0),
    };
    check_found(compiler, found, path.place, "");
}

/// The system's authorities, which backends at `address` are judged by.
pub(super) fn check_system_authorities(compiler: &mut Compiler<'_>, address: Place) {
    check_found(compiler, Authorities::system(), address, "is judged by the system's authorities");
}

fn check_found(compiler: &mut Compiler<'_>, found: Result<Authorities, AuthoritiesError>, place: Place, label: &str) {
    match found {
        // Certificates that are well-formed can still be none that TLS takes.
        Ok(found) => {
            let verify = Verify::Certificates { authorities: Arc::new(found), strict_sni: true };
            if let Err(error) = tls::ClientContext::new(&tls::ClientSettings::new(verify)) {
                compiler.report(Diagnostic::error(error.to_string()).at(place, label));
            }
        }
        Err(error) => {
            let denied = matches!(&error, AuthoritiesError::File(IdentityError::Read { error, .. })
                if error.kind() == io::ErrorKind::PermissionDenied);
            compiler.report(Diagnostic::error(error.to_string()).at(place, label).denied(denied));
        }
    }
}

/// The networks of a file, one a line; `#` begins a comment. `None`: what is wrong with it has been told.
pub(super) fn networks(compiler: &mut Compiler<'_>, path: &Located<FilePath>) -> Option<Vec<IpNet>> {
    let mut text = String::new();
    let read =
        File::open(&path.value.0).and_then(|file| file.take(limits::LIST_FILE_BYTES + 1).read_to_string(&mut text));
    match read {
        Ok(_) if text.len() as u64 > limits::LIST_FILE_BYTES => {
            let most = limits::human(limits::LIST_FILE_BYTES);
            compiler.report(Diagnostic::error(format!("this file has more than {most}")).at(path.place, ""));
            return None;
        }
        Ok(_) => {}
        Err(error) => {
            unreadable(compiler, &path.value.0, path.place, &error);
            return None;
        }
    }
    let wrong = |line| {
        compiler.report(
            Diagnostic::error(not_a_network(&path.value.0, line))
                .at(path.place, "")
                .help("write one network like 10.0.0.0/8, or one address, on a line; `#` begins a comment"),
        );
    };
    parse_networks(&text).map_err(wrong).ok()
}

/// The text of a file, at most 1 MiB: no certificate chain comes near that.
fn read(compiler: &mut Compiler<'_>, path: &Located<FilePath>) -> Option<String> {
    let mut bytes = Vec::new();
    let read = File::open(&path.value.0).and_then(|file| file.take(1 << 20).read_to_end(&mut bytes));
    match read {
        Ok(_) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => {
            unreadable(compiler, &path.value.0, path.place, &error);
            None
        }
    }
}

/// The folder of a file that will be written.
pub(super) fn check_folder(compiler: &mut Compiler<'_>, path: &Path, place: Place) {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    match fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => compiler.report(Diagnostic::error(format!("{} is not a folder", folder.display())).at(place, "")),
        Err(error) => unreadable(compiler, folder, place, &error),
    }
}

fn unreadable(compiler: &mut Compiler<'_>, path: &Path, place: Place, error: &io::Error) {
    let denied = error.kind() == io::ErrorKind::PermissionDenied;
    let diagnostic =
        Diagnostic::error(format!("cannot read {}: {}", path.display(), plain(error))).at(place, "").denied(denied);
    compiler.report(if denied { diagnostic.help("give the user that runs this read permission") } else { diagnostic });
}
