//! Owns the TLS contexts of the QUIC side: identities, what is asked of clients, versions, groups, tickets; and the choice
//! between them by server name.
//!
//! An endpoint's connections begin with a [`base`] context without an identity. When a ClientHello has come, the context of
//! its server name takes the place: certificate, key, trust and session context change with it, what to ask of the client
//! and whether to give tickets are set on the connection, because the library does not take them from a context then.
//!
//! Client certificates are judged by the library's own verifier with the store of the context. There is deliberately no
//! callback of ours: `boring` finds callbacks by their type in the current context and panics when a switched-to context
//! lacks one. The callbacks that there must be (tickets, ALPN) are set on every context by [`context`].

use super::boring_ffi;
use super::settings::StartError;
use super::tickets::{self, TicketKeys};
use crate::identity::{ClientAuth, Handshake, Identity, KeyEncoding, ServerName, Site, Sites, Standing, Table, Trust};
use crate::limits;
use boring::ec::EcKey;
use boring::error::ErrorStack;
use boring::ex_data::Index;
use boring::pkey::{PKey, Private};
use boring::rsa::Rsa;
use boring::ssl::{
    AlpnError, ClientHello, NameType, SelectCertError, Ssl, SslCipherRef, SslContext, SslContextBuilder, SslMethod,
    SslOptions, SslRef, SslSessionCacheMode, SslVerifyMode, SslVersion,
};
use boring::x509::X509;
use boring::x509::store::{X509Store, X509StoreBuilder};
use boring::x509::verify::X509VerifyFlags;
use std::fmt;
use std::sync::{Arc, LazyLock};

/// Key exchange groups, the preferred one first. The hybrid costs a client two datagrams and resists recording now and
/// decrypting later.
const GROUPS: &str = "X25519MLKEM768:X25519:P-256:P-384";
/// For a library without the hybrid.
const GROUPS_CLASSIC: &str = "X25519:P-256:P-384";

/// The contexts of a listener, shared by all workers; they never change. For other identities a listener gets others.
pub struct TlsContexts {
    table: Table<Context>,
    tickets: TicketKeys,
}

struct Context {
    tls: SslContext,
    verify: SslVerifyMode,
    standing: Arc<Standing>,
}

impl fmt::Debug for TlsContexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsContexts").field("sites", &self.table.rows().len()).finish_non_exhaustive()
    }
}

impl TlsContexts {
    /// A context for each site.
    ///
    /// # Errors
    /// If the library refuses an identity, an authority or a revocation list.
    pub fn new(sites: &Sites, tickets: &TicketKeys) -> Result<Self, StartError> {
        let table = sites.map(|name, site| {
            Context::new(site, tickets).map_err(|error| match name {
                Some(name) => error.of(name),
                None => error,
            })
        })?;
        Ok(Self { table, tickets: tickets.clone() })
    }

    /// Contexts of one identity for every name, which ask clients for nothing.
    ///
    /// # Errors
    /// If the library refuses the identity.
    pub fn single(identity: &Identity, tickets: &TicketKeys) -> Result<Self, StartError> {
        Self::new(&Table::single(Site::new(Arc::new(identity.clone()), ClientAuth::Off)), tickets)
    }

    /// What a handshake for this host settles.
    pub(super) fn standing(&self, host: &str) -> &Arc<Standing> {
        &self.table.find(host).standing
    }

    pub(super) fn tickets(&self) -> &TicketKeys {
        &self.tickets
    }
}

impl StartError {
    /// The same error, of one of several sites.
    fn of(self, name: &ServerName) -> Self {
        let told = |why: String| format!("server_name \"{name}\": {why}");
        match self {
            Self::Identity(why) => Self::Identity(told(why)),
            Self::Trust(why) => Self::Trust(told(why)),
            Self::Tls(why) => Self::Tls(told(why)),
            Self::Transport(why) => Self::Transport(told(why)),
        }
    }
}

/// The contexts of the connection's endpoint, from its start until its ClientHello was answered.
static OFFERED: LazyLock<Option<Index<Ssl, Option<Arc<TlsContexts>>>>> = LazyLock::new(|| Ssl::new_ex_index().ok());
/// What a handshake with the context settles.
static STANDING: LazyLock<Option<Index<SslContext, Arc<Standing>>>> = LazyLock::new(|| SslContext::new_ex_index().ok());

/// The context that connections of an endpoint begin with.
pub(super) fn base(tickets: &TicketKeys) -> Result<SslContextBuilder, StartError> {
    let mut base = context(tickets).map_err(tls)?;
    base.set_select_certificate_callback(select);
    boring_ffi::bound_client_certificates(&mut base, limits::quic::CLIENT_CERTIFICATES_BYTES);
    Ok(base)
}

/// Tells a new connection which contexts there are.
pub(super) fn offer(ssl: &mut SslRef, contexts: &Arc<TlsContexts>) {
    if let Some(index) = *OFFERED {
        ssl.replace_ex_data(index, Some(Arc::clone(contexts)));
    }
}

/// What the handshake of a connection ended with. What only the handshake needed is let go.
pub(super) fn settle(ssl: &mut SslRef) -> Handshake {
    if let Some(index) = *OFFERED {
        ssl.replace_ex_data(index, None);
    }
    let standing = STANDING.and_then(|index| ssl.ssl_context().ex_data(index)).cloned();
    Handshake {
        standing: standing.unwrap_or_default(),
        server_name: ssl.servername(NameType::HOST_NAME).unwrap_or_default().into(),
        version: "TLSv1.3",
        cipher: ssl.current_cipher().and_then(SslCipherRef::standard_name).unwrap_or_default(),
        group: ssl.curve_name().unwrap_or_default(),
        resumed: ssl.session_reused(),
    }
}

/// Puts the context of the client's server name in place. Called once for each connection, before a ticket is looked at.
fn select(mut hello: ClientHello<'_>) -> Result<(), SelectCertError> {
    let offered = OFFERED.and_then(|index| hello.ssl().ex_data(index)).and_then(Option::as_ref);
    let contexts = Arc::clone(offered.ok_or(SelectCertError::ERROR)?);
    let chosen = match hello.servername(NameType::HOST_NAME) {
        Some(name) => contexts.table.find(name),
        None => contexts.table.fallback(),
    };
    let ssl = hello.ssl_mut();
    ssl.set_ssl_context(&chosen.tls).map_err(|_| SelectCertError::ERROR)?;
    ssl.set_verify(chosen.verify);
    if chosen.verify != SslVerifyMode::NONE {
        // Who has a certificate shows it each time: neither a revoked one nor a forged ticket outlives that.
        ssl.set_options(SslOptions::NO_TICKET);
    }
    Ok(())
}

fn select_protocol<'a>(_: &mut SslRef, offered: &'a [u8]) -> Result<&'a [u8], AlpnError> {
    let mut rest = offered;
    while let Some((&length, behind)) = rest.split_first() {
        let (name, others) = behind.split_at_checked(usize::from(length)).ok_or(AlpnError::ALERT_FATAL)?;
        if name == super::ALPN {
            return Ok(name);
        }
        rest = others;
    }
    Err(AlpnError::ALERT_FATAL)
}

fn tls(error: ErrorStack) -> StartError {
    StartError::Tls(error.to_string())
}

/// What every context has.
fn context(tickets: &TicketKeys) -> Result<SslContextBuilder, ErrorStack> {
    let mut context = SslContext::builder(SslMethod::tls())?;
    context.set_min_proto_version(Some(SslVersion::TLS1_3))?;
    context.set_max_proto_version(Some(SslVersion::TLS1_3))?;
    offer_groups(&mut context)?;
    context.set_alpn_select_callback(select_protocol);
    boring_ffi::seal_tickets(&mut context, tickets.clone(), tickets::ROTATION.as_secs() as u32);
    // Tickets hold all there is; the library's own cache would be one more lock between workers.
    context.set_session_cache_mode(SslSessionCacheMode::OFF);
    Ok(context)
}

/// Sets the groups for either side.
pub(super) fn offer_groups(context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    context.set_curves_list(GROUPS).or_else(|_| context.set_curves_list(GROUPS_CLASSIC))
}

impl Context {
    fn new(site: &Site, tickets: &TicketKeys) -> Result<Self, StartError> {
        let standing_index = (*STANDING).ok_or_else(|| StartError::Tls("out of memory".to_owned()))?;
        let mut context = context(tickets).map_err(tls)?;
        present(&mut context, &site.identity).map_err(|error| StartError::Identity(error.to_string()))?;
        let verify = match &site.client_auth {
            ClientAuth::Off => SslVerifyMode::NONE,
            ClientAuth::Optional(_) => SslVerifyMode::PEER,
            ClientAuth::Required(_) => SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT,
        };
        context.set_verify(verify);
        if let Some(trust) = site.client_auth.trust() {
            ask_for_certificates(&mut context, trust)?;
        }
        context.set_session_id_context(&site.session_context()).map_err(tls)?;
        context.set_ex_data(standing_index, Arc::clone(site.standing()));
        Ok(Self { tls: context.build(), verify, standing: Arc::clone(site.standing()) })
    }
}

fn present(context: &mut SslContextBuilder, identity: &Identity) -> Result<(), ErrorStack> {
    let mut chain = identity.chain();
    if let Some(leaf) = chain.next() {
        let leaf = X509::from_der(leaf)?;
        context.set_certificate(&leaf)?;
    }
    for certificate in chain {
        context.add_extra_chain_cert(X509::from_der(certificate)?)?;
    }
    let key = private_key(identity)?;
    context.set_private_key(&key)?;
    context.check_private_key()
}

fn private_key(identity: &Identity) -> Result<PKey<Private>, ErrorStack> {
    match identity.key_encoding() {
        KeyEncoding::Pkcs8 => PKey::private_key_from_der(identity.key()),
        KeyEncoding::Pkcs1 => PKey::from_rsa(Rsa::private_key_from_der(identity.key())?),
        KeyEncoding::Sec1 => PKey::from_ec_key(EcKey::private_key_from_der(identity.key())?),
    }
}

fn ask_for_certificates(context: &mut SslContextBuilder, trust: &Trust) -> Result<(), StartError> {
    for authority in trust.authorities() {
        let authority = X509::from_der(authority).map_err(|error| StartError::Trust(error.to_string()))?;
        // Its name stands in the request, so that clients with several certificates know which one is meant.
        context.add_client_ca(&authority).map_err(tls)?;
    }
    context.set_verify_cert_store(store(trust)?).map_err(tls)
}

fn store(trust: &Trust) -> Result<X509Store, StartError> {
    let refused = |error: ErrorStack| StartError::Trust(error.to_string());
    let mut store = X509StoreBuilder::new().map_err(tls)?;
    for authority in trust.authorities() {
        store.add_cert(X509::from_der(authority).map_err(refused)?).map_err(refused)?;
    }
    for (index, list) in trust.revocations().enumerate() {
        if !boring_ffi::add_revocation_list(&mut store, list) {
            return Err(StartError::Trust(format!("revocation list {} is not valid DER", index + 1)));
        }
    }
    if trust.revocations().len() > 0 {
        store.try_set_flags(X509VerifyFlags::CRL_CHECK | X509VerifyFlags::CRL_CHECK_ALL).map_err(tls)?;
    }
    Ok(store.build())
}
