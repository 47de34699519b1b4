//! TLS towards backends: two layers become one, and what makes it weak or does nothing is told.

use super::{Compiler, files};
use crate::config::diagnostic::Diagnostic;
use crate::config::generation::{BackendScheme, UpstreamTls};
use crate::config::keys;
use crate::config::schema::Located;
use crate::config::source::Place;
use crate::config::values::FilePath;

/// What one table says, both kinds of tables alike.
#[derive(Clone, Copy)]
struct Layer<'a> {
    verify_certificates: Option<&'a Located<bool>>,
    strict_sni: Option<&'a Located<bool>>,
    ca_file: Option<&'a Located<FilePath>>,
    ca_dir: Option<&'a Located<FilePath>>,
    client_cert: Option<&'a Located<FilePath>>,
    client_key: Option<&'a Located<FilePath>>,
}

/// `[upstream_tls]`, for the upstreams to be compiled on.
pub(super) struct Defaults<'a> {
    layer: Layer<'a>,
    /// The system's authorities were asked for.
    asked_system: bool,
}

impl<'a> Defaults<'a> {
    /// Checks `[upstream_tls]` itself.
    pub(super) fn check(compiler: &mut Compiler<'a>) -> Self {
        let root = compiler.root;
        let keys::UpstreamTlsDefaults { verify_certificates, strict_sni, ca_file, ca_dir, client_cert, client_key } =
            &root.upstream_tls.value;
        let layer = Layer {
            verify_certificates: Some(verify_certificates),
            strict_sni: Some(strict_sni),
            ca_file: ca_file.as_ref(),
            ca_dir: ca_dir.as_ref(),
            client_cert: client_cert.as_ref(),
            client_key: client_key.as_ref(),
        };
        layer.check(compiler);
        let verifies = |keys: &keys::Upstream| keys.tls.value.verify_certificates.as_ref().is_some_and(|on| on.value);
        if !verify_certificates.value && !root.upstream.value.0.iter().any(|(_, keys)| verifies(keys)) {
            layer.report_unverified(compiler, verify_certificates.place);
        }
        Self { layer, asked_system: false }
    }

    /// Compiles `tls` of an upstream.
    pub(super) fn compile(
        &mut self,
        compiler: &mut Compiler<'a>,
        name: &Located<String>,
        keys: &'a keys::Upstream,
    ) -> UpstreamTls {
        let own = Layer::of(&keys.tls.value);
        own.check(compiler);
        let nearest = |of: fn(Layer<'a>) -> Option<&'a Located<bool>>| of(own).or(of(self.layer));
        let verify = nearest(|layer| layer.verify_certificates);
        let strict = nearest(|layer| layer.strict_sni);
        let trust = if own.names_authorities() { own } else { self.layer };
        let identity = if own.client_cert.is_some() { own } else { self.layer };
        let path = |file: &Located<FilePath>| file.value.0.clone().into();
        let tls = UpstreamTls {
            verify_certificates: verify.is_none_or(|verify| verify.value),
            strict_sni: strict.is_none_or(|strict| strict.value),
            ca_file: trust.ca_file.map(path),
            ca_dir: trust.ca_dir.map(path),
            // A table with one of them has been refused.
            client_cert: identity.client_cert.zip(identity.client_key).map(|(cert, key)| (path(cert), path(key))),
        };
        let mut addresses =
            keys.backends.iter().flat_map(|backends| &backends.value).map(|backend| &backend.value.address);
        let secured = addresses.clone().flatten().find(|address| address.value.scheme == BackendScheme::Https);
        let Some(secured) = secured else {
            // An address that could not be read may have been the one.
            if let Some(idle) = own.first()
                && addresses.all(Option::is_some)
            {
                let warning =
                    Diagnostic::warning(format!("no backend of upstream `{}` is spoken to over TLS", name.value));
                let warning = warning.at(idle, "does nothing").at(name.place, "the upstream");
                compiler.report(warning.help("write the backend's address with https://, or remove `tls`"));
            }
            return tls;
        };
        if tls.verify_certificates {
            self.check_trust(compiler, name, &tls, strict, secured.place);
        } else {
            own.report_unverified(compiler, verify.map_or(Place::NOWHERE, |verify| verify.place));
            let off = Diagnostic::warning(format!(
                "certificates of upstream `{}` are NOT verified: whoever sits between can read and change everything",
                name.value
            ))
            .at_some(verify.map(|verify| verify.place), "")
            .at(name.place, "the upstream");
            compiler.report(off.help("set verify_certificates = true, with ca_file for an authority of your own"));
        }
        tls
    }

    /// Whom an upstream believes that verifies.
    fn check_trust(
        &mut self,
        compiler: &mut Compiler<'_>,
        name: &Located<String>,
        tls: &UpstreamTls,
        strict: Option<&Located<bool>>,
        address: Place,
    ) {
        if !tls.trusts_the_system() {
            return;
        }
        if let (false, Some(strict)) = (tls.strict_sni, strict) {
            let off = Diagnostic::warning(format!(
                "names in certificates of upstream `{}` are NOT verified: everybody with a certificate of a public authority \
                 can stand in for its backends",
                name.value
            ));
            let off = off.at(strict.place, "").at(name.place, "the upstream");
            compiler.report(off.help("set strict_sni = true, or ca_file to an authority of your own"));
        }
        if compiler.options.check_files && !self.asked_system {
            self.asked_system = true;
            files::check_system_authorities(compiler, address);
        }
    }
}

impl<'a> Layer<'a> {
    fn of(keys: &'a keys::UpstreamTls) -> Self {
        let keys::UpstreamTls { verify_certificates, strict_sni, ca_file, ca_dir, client_cert, client_key } = keys;
        Self {
            verify_certificates: verify_certificates.as_ref(),
            strict_sni: strict_sni.as_ref(),
            ca_file: ca_file.as_ref(),
            ca_dir: ca_dir.as_ref(),
            client_cert: client_cert.as_ref(),
            client_key: client_key.as_ref(),
        }
    }

    fn names_authorities(&self) -> bool {
        self.ca_file.is_some() || self.ca_dir.is_some()
    }

    /// The first place where something is written.
    fn first(&self) -> Option<Place> {
        let switches = [self.verify_certificates, self.strict_sni].into_iter().flatten().map(|switch| switch.place);
        let files = [self.ca_file, self.ca_dir, self.client_cert, self.client_key].into_iter().flatten();
        switches.chain(files.map(|file| file.place)).min_by_key(|place| place.start)
    }

    /// What is wrong with it whatever the other layer says.
    fn check(&self, compiler: &mut Compiler<'_>) {
        match (self.client_cert, self.client_key) {
            (Some(cert), Some(key)) if compiler.options.check_files => files::check_identity(compiler, None, cert, key),
            (Some(cert), None) => compiler.report_missing(
                Diagnostic::error("`client_cert` needs `client_key`")
                    .at(cert.place, "")
                    .help("add client_key = \"…\" to the same table: the private key of this certificate"),
            ),
            (None, Some(key)) => compiler.report_missing(
                Diagnostic::error("`client_key` needs `client_cert`")
                    .at(key.place, "")
                    .help("add client_cert = \"…\" to the same table: the certificate that this key belongs to"),
            ),
            _ => {}
        }
        if compiler.options.check_files {
            for (file, kind) in [(self.ca_file, files::Kind::File), (self.ca_dir, files::Kind::Folder)] {
                if let Some(file) = file {
                    files::check_authorities(compiler, file, kind);
                }
            }
        }
    }

    /// Names what does nothing where certificates are not verified.
    fn report_unverified(&self, compiler: &mut Compiler<'_>, off: Place) {
        for (name, file) in [("ca_file", self.ca_file), ("ca_dir", self.ca_dir)] {
            if let Some(file) = file {
                let idle = Diagnostic::warning(format!("`{name}` does nothing: certificates are not verified"));
                let idle = idle.at(file.place, "").at(off, "switched off here");
                compiler.report(idle.help("set verify_certificates = true"));
            }
        }
    }
}
