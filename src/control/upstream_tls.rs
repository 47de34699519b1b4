//! From the files that a configuration names to what backends are spoken to with over TLS: whom to believe, what to show.
//!
//! Upstreams with the same settings share one context, and so its sessions; each worker has its own.

use super::failure::{Exit, Failure};
use crate::config::{Generation, UpstreamId, UpstreamTls};
use crate::identity::{Authorities, AuthoritiesError, Identity, IdentityError};
use crate::tls::{ClientContext, ClientSettings, ContextError, Verify};
use std::fmt::Display;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

/// The contexts of all upstreams.
pub struct UpstreamContexts {
    distinct: Vec<ClientContext>,
    /// By upstream, the position in `distinct`.
    by_upstream: Vec<Option<usize>>,
}

impl UpstreamContexts {
    /// Makes the contexts of upstreams with backends that are spoken to over TLS, and says whose judgement is switched off.
    ///
    /// # Errors
    /// The first file that cannot be used, with the upstream it is for.
    pub fn load(generation: &Generation) -> Result<Self, Failure> {
        // Settings, their context, and the upstreams with them.
        let mut known: Vec<(&UpstreamTls, ClientContext, Vec<&str>)> = Vec::new();
        let mut by_upstream = Vec::with_capacity(generation.upstreams.len());
        for (at, upstream) in generation.upstreams.iter().enumerate() {
            if !generation.speaks_tls(UpstreamId(at as u32)) {
                by_upstream.push(None);
                continue;
            }
            let place = match known.iter().position(|(settings, ..)| **settings == upstream.tls) {
                Some(place) => place,
                None => {
                    known.push((&upstream.tls, context(&upstream.name, &upstream.tls)?, Vec::new()));
                    known.len() - 1
                }
            };
            known[place].2.push(&upstream.name);
            by_upstream.push(Some(place));
        }
        for (settings, context, upstreams) in &known {
            // With an authority of one's own, certificates without the dialled name are what `strict_sni = false` is for.
            let meant = settings.verify_certificates && !settings.trusts_the_system();
            if let (Some(warning), false) = (context.warning(), meant) {
                tracing::warn!(upstreams = upstreams.join(", "), "{warning}");
            }
        }
        Ok(Self { distinct: known.into_iter().map(|(_, context, _)| context).collect(), by_upstream })
    }

    /// The same for one worker, by upstream: no handshake waits for another worker's.
    pub fn for_worker(&self) -> Vec<Option<ClientContext>> {
        let own: Vec<ClientContext> = self.distinct.iter().map(ClientContext::for_worker).collect();
        self.by_upstream.iter().map(|place| place.map(|place| own[place].clone())).collect()
    }
}

fn context(upstream: &str, tls: &UpstreamTls) -> Result<ClientContext, Failure> {
    let place = format!("upstream `{upstream}`: tls");
    let verify = if tls.verify_certificates {
        Verify::Certificates { authorities: Arc::new(authorities(&place, tls)?), strict_sni: tls.strict_sni }
    } else {
        Verify::Off
    };
    let identity = tls.client_cert.as_ref().map(|(cert, key)| identity(&place, cert, key)).transpose()?;
    let refused = |error: ContextError| match (&error, &tls.client_cert) {
        (ContextError::Identity(_), Some((cert, key))) => {
            Failure::new(identity_place(&place, cert, key), error).fix(IDENTITY_FIX).exit(Exit::Configuration)
        }
        _ => Failure::new(&*place, error).fix(AUTHORITIES_FIX).exit(Exit::Configuration),
    };
    ClientContext::new(&ClientSettings { identity: identity.map(Arc::new), ..ClientSettings::new(verify) })
        .map_err(refused)
}

const AUTHORITIES_FIX: &str =
    "give ca_file, ca_dir or the system certificates of authorities in PEM; `spooky check` looks at them";
const IDENTITY_FIX: &str =
    "give a PEM file with the certificate chain and one with its key; `spooky check` compares them";

/// Whom to believe: the system's authorities, or those of the file, the folder, or both.
fn authorities(place: &str, tls: &UpstreamTls) -> Result<Authorities, Failure> {
    let failed = |key: &str, error: &AuthoritiesError| {
        let read = match error {
            AuthoritiesError::File(error) => Some(error),
            _ => None,
        };
        failure(&format!("{place}: {key}"), error, read, AUTHORITIES_FIX)
    };
    let file = tls.ca_file.as_deref().map(|path| Authorities::file(path).map_err(|error| failed("ca_file", &error)));
    let folder = tls.ca_dir.as_deref().map(|path| Authorities::folder(path).map_err(|error| failed("ca_dir", &error)));
    match (file.transpose()?, folder.transpose()?) {
        (Some(file), Some(folder)) => Ok(file.and(folder)),
        (Some(one), None) | (None, Some(one)) => Ok(one),
        (None, None) => Authorities::system().map_err(|error| failed("the system's authorities", &error)),
    }
}

fn identity(place: &str, cert: &Path, key: &Path) -> Result<Identity, Failure> {
    Identity::from_files(cert, key)
        .map_err(|error| failure(&identity_place(place, cert, key), &error, Some(&error), IDENTITY_FIX))
}

fn identity_place(place: &str, cert: &Path, key: &Path) -> String {
    format!("{place}: client_cert {}, client_key {}", cert.display(), key.display())
}

fn failure(place: &str, error: &impl Display, read: Option<&IdentityError>, fix: &str) -> Failure {
    let denied = matches!(read, Some(IdentityError::Read { error, .. }) if error.kind() == ErrorKind::PermissionDenied);
    Failure::new(place, error).fix(fix).exit(if denied { Exit::Permission } else { Exit::Configuration })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_str;
    use std::fs;
    use std::path::PathBuf;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("spooky-upstream-tls-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, text: &str) -> String {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Upstreams named a, b, c …, each with a backend's address and more keys.
    fn generation(upstreams: &[(&str, &str)]) -> Generation {
        let mut text = "version = 1\n[listen]\n".to_owned();
        for (name, (address, keys)) in ('a'..='z').zip(upstreams) {
            text += &format!(
                "[upstream.{name}]\nroute = {{ path_prefix = \"/{name}\" }}\n\
                 backends = [{{ id = \"x\", address = \"{address}\" }}]\n{keys}\n"
            );
        }
        from_str("t", &text).unwrap_or_else(|diagnostics| panic!("{diagnostics}")).0
    }

    fn refused(tls: &str) -> Failure {
        UpstreamContexts::load(&generation(&[("https://10.0.0.1", tls)])).map(|_| ()).unwrap_err()
    }

    #[test]
    fn equal_settings_share_a_context_and_workers_do_not() {
        let folder = Folder::new("shared");
        let authority = folder.write("ca.pem", &Identity::self_signed(&["ca"]).unwrap().chain_pem());
        let own = format!("tls = {{ ca_file = \"{authority}\" }}");
        let loose = format!("tls = {{ ca_file = \"{authority}\", strict_sni = false }}");
        let contexts = UpstreamContexts::load(&generation(&[
            ("http://10.0.0.1", &own),
            ("https://10.0.0.1", &own),
            ("10.0.0.2:443", &own),
            ("h2c://10.0.0.1", ""),
            ("https://10.0.0.1", &loose),
            ("https://10.0.0.1", "tls.verify_certificates = false"),
        ]))
        .unwrap();
        assert_eq!(contexts.by_upstream, [None, Some(0), Some(0), None, Some(1), Some(2)]);
        let worker = contexts.for_worker();
        let has: Vec<bool> = worker.iter().map(Option::is_some).collect();
        assert_eq!(has, [false, true, true, false, true, true]);
        let warned: Vec<bool> = contexts.distinct.iter().map(|context| context.warning().is_some()).collect();
        assert_eq!(warned, [false, true, true]);
    }

    #[test]
    fn file_and_folder_are_believed_together() {
        let folder = Folder::new("both");
        let pem = |name| Identity::self_signed(&[name]).unwrap().chain_pem();
        let file = folder.write("one.pem", &pem("one"));
        fs::create_dir(folder.0.join("more")).unwrap();
        folder.write("more/two.pem", &pem("two"));
        let dir = folder.0.join("more").display().to_string();
        let believed = |keys: &str| {
            let generation = generation(&[("https://10.0.0.1", &format!("tls = {{ {keys} }}"))]);
            authorities("here", &generation.upstreams[0].tls).unwrap().certificates().len()
        };
        assert_eq!(believed(&format!("ca_file = \"{file}\"")), 1);
        assert_eq!(believed(&format!("ca_dir = \"{dir}\"")), 1);
        assert_eq!(believed(&format!("ca_file = \"{file}\", ca_dir = \"{dir}\"")), 2);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_told_with_upstream_key_and_fix() {
        let folder = Folder::new("refused");
        let failure = refused("tls.ca_file = \"/nonexistent/ca.pem\"");
        let told = failure.to_string();
        assert!(told.starts_with("upstream `a`: tls: ca_file: cannot read /nonexistent/ca.pem: "), "{told}");
        assert!(told.contains("check the path") && told.contains("\n  fix: "), "{told}");
        assert_eq!(failure.exit, Exit::Configuration);

        let empty = folder.write("empty.pem", "nothing");
        let told = refused(&format!("tls.ca_file = \"{empty}\"")).to_string();
        assert!(told.contains(&format!("no certificate found in {empty}")), "{told}");

        let (one, other) = (Identity::self_signed(&["one"]).unwrap(), rcgen::KeyPair::generate().unwrap());
        let cert = folder.write("one.pem", &one.chain_pem());
        let key = folder.write("other.key", &other.serialize_pem());
        let told = refused(&format!(
            "tls = {{ verify_certificates = false, client_cert = \"{cert}\", client_key = \"{key}\" }}"
        ))
        .to_string();
        assert!(
            told.starts_with(&format!(
                "upstream `a`: tls: client_cert {cert}, client_key {key}: the private key does not"
            )),
            "{told}"
        );
        // A certificate in form only: the library has the last word.
        let shape = folder.write("shape.pem", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n");
        let told = refused(&format!("tls.ca_file = \"{shape}\"")).to_string();
        assert!(told.contains("none of the certificates can be used") && told.contains(&shape), "{told}");
    }

    #[test]
    fn a_file_that_may_not_be_read_has_the_exit_code_of_permissions() {
        let denied = AuthoritiesError::File(IdentityError::Read {
            path: "/ca.pem".into(),
            error: std::io::Error::from(ErrorKind::PermissionDenied),
        });
        let AuthoritiesError::File(read) = &denied else { panic!("it is one") };
        assert_eq!(failure("here", &denied, Some(read), "").exit as u8, 77);
    }
}
