//! Owns what a listener's connections are made with: for each site its identity, what it asks of clients, versions,
//! protocols and tickets. The same sites and the same policy as on the QUIC side.

use super::settings::{Alpn, ContextError, ServerSettings, provider};
use super::tickets::Tickets;
use crate::identity::{ClientAuth, Identity, KeyEncoding, Site, Sites, Standing, Table, TicketKeys, Trust};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use std::fmt;
use std::sync::Arc;

/// The contexts of a listener, shared by all workers; they never change. For other identities a listener gets others.
pub struct ServerContexts {
    table: Table<Context>,
}

/// What connections to one site are made with.
pub(super) struct Context {
    pub(super) config: Arc<ServerConfig>,
    pub(super) standing: Arc<Standing>,
}

impl fmt::Debug for ServerContexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerContexts").field("sites", &self.table.rows().len()).finish_non_exhaustive()
    }
}

impl ServerContexts {
    /// A context for each site.
    ///
    /// # Errors
    /// If the library refuses an identity, an authority or a revocation list.
    pub fn new(sites: &Sites, settings: &ServerSettings, tickets: &TicketKeys) -> Result<Self, ContextError> {
        let table = sites.map(|name, site| {
            Context::new(site, settings, tickets).map_err(|error| match name {
                Some(name) => error.of(name),
                None => error,
            })
        })?;
        Ok(Self { table })
    }

    /// What a connection for this name is made with.
    pub(super) fn find(&self, name: Option<&str>) -> &Context {
        match name {
            Some(name) => self.table.find(name),
            None => self.table.fallback(),
        }
    }

    /// What a handshake for this host settles.
    pub fn standing(&self, host: &str) -> &Arc<Standing> {
        &self.table.find(host).standing
    }
}

impl Context {
    fn new(site: &Site, settings: &ServerSettings, tickets: &TicketKeys) -> Result<Self, ContextError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(settings.min_version.versions())
            .map_err(|error| ContextError::Tls(error.to_string()))?;
        let builder = match site.client_auth.trust() {
            None => builder.with_no_client_auth(),
            Some(trust) => builder.with_client_cert_verifier(verifier(&site.client_auth, trust)?),
        };
        let key = certified_key(&site.identity)?;
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = Alpn::ids(&settings.protocols);
        // Tickets hold all there is; the library's own cache would be one more lock between workers.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // The same flight could be taken twice.
        config.max_early_data_size = 0;
        if site.client_auth.trust().is_none() {
            config.ticketer = Arc::new(Tickets::new(tickets.clone(), site.session_context()));
        } else {
            // Who has a certificate shows it each time: neither a revoked one nor a forged ticket outlives that.
            config.send_tls13_tickets = 0;
        }
        Ok(Self { config: Arc::new(config), standing: Arc::clone(site.standing()) })
    }
}

/// An identity in the library's form. That key and certificate belong together was checked when they were read.
pub(super) fn certified_key(identity: &Identity) -> Result<CertifiedKey, ContextError> {
    let chain = identity.chain().map(|der| CertificateDer::from(der.to_vec())).collect();
    let key = identity.key().to_vec();
    let key = match identity.key_encoding() {
        KeyEncoding::Pkcs8 => PrivateKeyDer::Pkcs8(key.into()),
        KeyEncoding::Pkcs1 => PrivateKeyDer::Pkcs1(key.into()),
        KeyEncoding::Sec1 => PrivateKeyDer::Sec1(key.into()),
    };
    let refused = |error: rustls::Error| ContextError::Identity(error.to_string());
    Ok(CertifiedKey::new(chain, provider().key_provider.load_private_key(key).map_err(refused)?))
}

/// Authorities in the library's form.
pub(super) fn root_store<'a>(authorities: impl Iterator<Item = &'a [u8]>) -> Result<RootCertStore, ContextError> {
    let mut roots = RootCertStore::empty();
    for (index, authority) in authorities.enumerate() {
        let refused = |error| ContextError::Trust(format!("authority {}: {error}", index + 1));
        roots.add(CertificateDer::from(authority.to_vec())).map_err(refused)?;
    }
    Ok(roots)
}

/// Whether clients can be judged by these authorities and lists.
///
/// # Errors
/// What the library refuses.
pub fn check_trust(trust: &Trust) -> Result<(), ContextError> {
    verifier(&ClientAuth::Off, trust).map(drop)
}

fn verifier(client_auth: &ClientAuth, trust: &Trust) -> Result<Arc<dyn ClientCertVerifier>, ContextError> {
    let roots = Arc::new(root_store(trust.authorities())?);
    let builder = || WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider());
    let lists = || trust.revocations().map(|list| CertificateRevocationListDer::from(list.to_vec()));
    for (index, list) in lists().enumerate() {
        // One by one, because the library does not say which of them it refuses.
        if let Err(VerifierBuilderError::InvalidCrl(error)) = builder().with_crls([list]).build() {
            return Err(ContextError::Trust(format!(
                "revocation list {} is not one of RFC 5280 §5 ({error:?}): it needs version 2 with the extensions CRL Number \
                 and Authority Key Identifier, for `openssl ca` crl_extensions with authorityKeyIdentifier=keyid",
                index + 1
            )));
        }
    }
    // Where there are lists, every certificate of a chain has to be covered by a list that has not expired.
    let mut builder = builder().with_crls(lists()).enforce_revocation_expiration();
    if !client_auth.is_required() {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|error| ContextError::Trust(error.to_string()))
}
