//! From the files that a configuration names to the sites of each listener: certificates, keys, what is asked of clients.

use super::failure::{Exit, Failure};
use crate::config::{ClientAuthSource, Generation, Listener, ListenerTls, MinVersion, TlsSource};
use crate::h3::TlsContexts;
use crate::h3::tickets::TicketKeys;
use crate::identity::{ClientAuth, Identity, IdentityError, Site, Sites, Trust, TrustError, sites};
use crate::tls::{self, Alpn, ServerContexts, ServerSettings};
use std::fmt::Display;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Reads what every listener is identified by; `None` for one without TLS. `supplied` is for listeners without files.
///
/// # Errors
/// The first file that cannot be used, with the listener and the name it is for.
pub fn load(generation: &Generation, supplied: Option<Identity>) -> Result<Vec<Option<Sites>>, Failure> {
    let supplied = supplied.map(Arc::new);
    let load = |listener: &Listener| {
        let load = |tls| load_one(&listener.name, tls, supplied.as_ref());
        listener.tls().map(load).transpose()
    };
    generation.listeners.iter().map(load).collect()
}

/// Makes the QUIC side's contexts of every listener that has a QUIC side.
///
/// # Errors
/// What the TLS library refuses.
pub fn contexts(
    generation: &Generation,
    sites: &[Option<Sites>],
    tickets: &TicketKeys,
) -> Result<Vec<Option<Arc<TlsContexts>>>, Failure> {
    let listeners = generation.listeners.iter().zip(sites);
    let make = |(listener, sites): (&Listener, &Option<Sites>)| match sites {
        Some(sites) if listener.protocols.h3 => quic_contexts(listener, sites, tickets).map(Some),
        _ => Ok(None),
    };
    listeners.map(make).collect()
}

/// Makes the contexts of TLS over TCP of every listener that has it.
///
/// # Errors
/// What the TLS library refuses.
pub fn tcp_contexts(
    generation: &Generation,
    sites: &[Option<Sites>],
    tickets: &TicketKeys,
) -> Result<Vec<Option<Arc<ServerContexts>>>, Failure> {
    let listeners = generation.listeners.iter().zip(sites);
    let make = |(listener, sites): (&Listener, &Option<Sites>)| match (listener.tls(), sites) {
        (Some(tls), Some(sites)) if listener.protocols.over_tcp() => {
            let settings = ServerSettings {
                min_version: match tls.min_version {
                    MinVersion::Tls12 => tls::MinVersion::Tls12,
                    MinVersion::Tls13 => tls::MinVersion::Tls13,
                },
                protocols: [(listener.protocols.h2, Alpn::H2), (listener.protocols.h1, Alpn::H1)]
                    .into_iter()
                    .filter_map(|(spoken, protocol)| spoken.then_some(protocol))
                    .collect(),
            };
            let made = ServerContexts::new(sites, &settings, tickets);
            made.map(|contexts| Some(Arc::new(contexts))).map_err(|error| {
                Failure::new(format!("listener `{}`: tls", listener.name), error).exit(Exit::Configuration)
            })
        }
        _ => Ok(None),
    };
    listeners.map(make).collect()
}

fn quic_contexts(listener: &Listener, sites: &Sites, tickets: &TicketKeys) -> Result<Arc<TlsContexts>, Failure> {
    match TlsContexts::new(sites, tickets) {
        Ok(contexts) => Ok(Arc::new(contexts)),
        Err(error) => Err(Failure::new(format!("listener `{}`: tls", listener.name), error).exit(Exit::Configuration)),
    }
}

/// Seconds since 1970, for the keys of tickets.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn load_one(listener: &str, tls: &ListenerTls, supplied: Option<&Arc<Identity>>) -> Result<Sites, Failure> {
    let place = format!("listener `{listener}`: tls");
    let fallback = match &tls.source {
        TlsSource::Files { cert, key } => identity(&place, cert, key)?,
        TlsSource::Supplied => {
            let missing = || Failure::new(&*place, "no certificate").exit(Exit::Configuration);
            Arc::clone(supplied.ok_or_else(missing)?)
        }
    };
    let fallback = Site::new(fallback, client_auth(&place, &tls.client_auth)?);
    let mut named = Vec::with_capacity(tls.certificates.len());
    for certificate in &tls.certificates {
        let place = format!("{place}: server_name \"{}\"", certificate.server_name);
        let identity = identity(&place, &certificate.cert, &certificate.key)?;
        // The listener's own policy is read once.
        let client_auth = match &certificate.client_auth {
            same if *same == tls.client_auth => fallback.client_auth.clone(),
            other => client_auth(&place, other)?,
        };
        named.push((certificate.server_name.clone(), Site::new(identity, client_auth)));
    }
    sites(fallback, named).map_err(|twice| {
        Failure::new(&*place, format!("server_name \"{}\" is there twice", twice.0)).exit(Exit::Configuration)
    })
}

fn identity(place: &str, cert: &Path, key: &Path) -> Result<Arc<Identity>, Failure> {
    Identity::from_files(cert, key).map(Arc::new).map_err(|error| failure(place, &error, Some(&error)))
}

fn client_auth(place: &str, source: &ClientAuthSource) -> Result<ClientAuth, Failure> {
    let ClientAuthSource::On { required, ca_file, crl_file } = source else {
        return Ok(ClientAuth::Off);
    };
    let trust = Trust::from_files(ca_file, crl_file.as_deref()).map(Arc::new).map_err(|error| {
        let file = match &error {
            TrustError::File(error) => Some(error),
            _ => None,
        };
        failure(&format!("{place}: client_auth"), &error, file)
    })?;
    Ok(if *required { ClientAuth::Required(trust) } else { ClientAuth::Optional(trust) })
}

fn failure(place: &str, error: &impl Display, file: Option<&IdentityError>) -> Failure {
    let denied = matches!(file, Some(IdentityError::Read { error, .. }) if error.kind() == ErrorKind::PermissionDenied);
    Failure::new(place, error.to_string()).exit(if denied { Exit::Permission } else { Exit::Configuration })
}
