//! Files that a configuration refers to: are they there, may we read them, are they what they should be.
//!
//! Never shows their content, not even a piece of it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Compiler;
use crate::config::diagnostic::Diagnostic;
use crate::config::include::plain;
use crate::config::schema::Located;
use crate::config::source::Place;
use crate::config::values::FilePath;

/// A certificate chain and its key: enough to say which file is wrong; whether they fit is for whoever loads them.
pub(super) fn check_identity(compiler: &mut Compiler<'_>, cert: &Located<FilePath>, key: &Located<FilePath>) {
    let cert_text = read(compiler, cert);
    let key_text = read(compiler, key);
    let has_cert = |text: &str| text.contains("-----BEGIN CERTIFICATE-----");
    let has_key = |text: &str| text.contains("PRIVATE KEY-----");
    if let Some(text) = &cert_text
        && !has_cert(text)
    {
        let swapped = has_key(text) && key_text.as_deref().is_some_and(has_cert);
        let help = if swapped {
            "it holds a private key: `cert` and `key` are swapped"
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
    let readable_by_all = fs::metadata(&key.value.0).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0);
    if key_text.as_deref().is_some_and(has_key) && readable_by_all {
        let warning = Diagnostic::warning("every user of this machine can read this private key").at(key.place, "");
        compiler.report(warning.help(format!("chmod o-r {}", key.value.0.display())));
    }
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
