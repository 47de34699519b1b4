//! Owns the TLS context of the QUIC side: identity, versions, groups.

use super::settings::StartError;
use crate::identity::{Identity, KeyEncoding};
use boring::ec::EcKey;
use boring::error::ErrorStack;
use boring::pkey::{PKey, Private};
use boring::rsa::Rsa;
use boring::ssl::{SslContext, SslContextBuilder, SslMethod, SslVersion};
use boring::x509::X509;

/// Key exchange groups, the preferred one first. The hybrid costs a client two datagrams and resists recording now and
/// decrypting later.
const GROUPS: &str = "X25519MLKEM768:X25519:P-256:P-384";
/// For a library without the hybrid.
const GROUPS_CLASSIC: &str = "X25519:P-256:P-384";

/// A context for servers that present `identity`.
pub(super) fn server(identity: &Identity) -> Result<SslContextBuilder, StartError> {
    let tls = |error: ErrorStack| StartError::Tls(error.to_string());
    let mut context = SslContext::builder(SslMethod::tls()).map_err(tls)?;
    context.set_min_proto_version(Some(SslVersion::TLS1_3)).map_err(tls)?;
    context.set_max_proto_version(Some(SslVersion::TLS1_3)).map_err(tls)?;
    offer_groups(&mut context).map_err(tls)?;
    present(&mut context, identity).map_err(|error| StartError::Identity(error.to_string()))?;
    Ok(context)
}

/// Sets the groups for either side.
pub(super) fn offer_groups(context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    context.set_curves_list(GROUPS).or_else(|_| context.set_curves_list(GROUPS_CLASSIC))
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
