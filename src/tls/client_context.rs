//! Owns what connections to the backends of one upstream are made with: whom to believe, what to show, which protocols to
//! offer, and the sessions to resume.

use super::server_context::certified_key;
use super::settings::{Alpn, ContextError, MinVersion, provider};
use super::verdict::{Anyone, Judge};
use crate::identity::{Authorities, Identity};
use crate::limits::TLS_CLIENT_SESSIONS;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::CertificateDer;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::sync::Arc;

/// What a backend's certificate has to be.
#[derive(Clone, Debug)]
pub enum Verify {
    /// Good: `verify_certificates = true`.
    Certificates {
        /// Whom to believe.
        authorities: Arc<Authorities>,
        /// Whether it has to name the host that was dialled (its name, or its address if that was dialled). If not, any
        /// certificate of the authorities will do: for backends that are dialled by address and have certificates for
        /// names. Only for authorities of one's own: with those of the system, everybody who has a certificate could stand
        /// in for the backend. The name is sent to the backend in either case.
        strict_sni: bool,
    },
    /// Anything: `verify_certificates = false`.
    Off,
}

/// How an upstream speaks TLS.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// What a backend's certificate has to be.
    pub verify: Verify,
    /// What to show to backends that ask.
    pub identity: Option<Arc<Identity>>,
    /// The lowest version.
    pub min_version: MinVersion,
    /// Protocols to offer, the preferred one first.
    pub protocols: Vec<Alpn>,
}

impl ClientSettings {
    /// What HTTP needs, and nothing to show.
    pub fn new(verify: Verify) -> Self {
        Self { verify, identity: None, min_version: MinVersion::default(), protocols: vec![Alpn::H2, Alpn::H1] }
    }
}

const ANYONE: &str = "certificates of backends are NOT verified: whoever sits between can read and change everything. Set \
                      verify_certificates = true, with ca_file for an authority of your own";
const ANY_NAME: &str = "names in certificates of backends are NOT verified: every server with a certificate of a trusted \
                        authority can stand in for a backend. Set strict_sni = true, or ca_file to an authority of your own";

/// The context of an upstream. Cheap to clone; clones share what they resume, behind a lock that handshakes take.
#[derive(Clone)]
pub struct ClientContext {
    config: Arc<ClientConfig>,
    warning: Option<&'static str>,
}

impl fmt::Debug for ClientContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientContext").field("warning", &self.warning).finish_non_exhaustive()
    }
}

impl ClientContext {
    /// A context of these settings.
    ///
    /// # Errors
    /// If the library refuses the identity, or none of the authorities can be used.
    pub fn new(settings: &ClientSettings) -> Result<Self, ContextError> {
        let (verifier, warning): (Arc<dyn ServerCertVerifier>, _) = match &settings.verify {
            Verify::Certificates { authorities, strict_sni } => {
                let library = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(authorities)?), provider())
                    .build()
                    .map_err(|error| ContextError::Trust(error.to_string()))?;
                let judge = Judge::new(library, *strict_sni, authorities.source().to_owned());
                (Arc::new(judge), (!strict_sni).then_some(ANY_NAME))
            }
            Verify::Off => (Arc::new(Anyone::new(provider())), Some(ANYONE)),
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(settings.min_version.versions())
            .map_err(|error| ContextError::Tls(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &settings.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified_key(identity)?)))
            }
        };
        config.alpn_protocols = Alpn::ids(&settings.protocols);
        config.resumption = Resumption::in_memory_sessions(TLS_CLIENT_SESSIONS);
        Ok(Self { config: Arc::new(config), warning })
    }

    /// The same with sessions of its own: where each worker has one, no handshake waits for another's.
    #[must_use]
    pub fn for_worker(&self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = Resumption::in_memory_sessions(TLS_CLIENT_SESSIONS);
        Self { config: Arc::new(config), ..*self }
    }

    /// What an operator should hear who has switched judgement off.
    pub fn warning(&self) -> Option<&'static str> {
        self.warning
    }

    /// A context of a configuration that the settings cannot say.
    #[cfg(test)]
    pub(super) fn of(config: ClientConfig) -> Self {
        Self { config: Arc::new(config), warning: None }
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

/// The authorities in the library's form. Of a system's store some may be too old for the library, which the others outlive.
fn roots(authorities: &Authorities) -> Result<RootCertStore, ContextError> {
    let mut roots = RootCertStore::empty();
    let all = authorities.certificates().map(|der| CertificateDer::from(der.to_vec()));
    let (_, refused) = roots.add_parsable_certificates(all);
    if roots.is_empty() {
        let why = if refused == 0 { "there is no certificate" } else { "none of the certificates can be used" };
        return Err(ContextError::Trust(format!("{}: {why}", authorities.source())));
    }
    Ok(roots)
}
