//! Owns what a listener serves its names with: an identity and what is asked of the clients that come for it.

use super::{ClientAuth, DuplicateName, Identity, PolicyDigest, ServerName, Table};
use ring::digest::{self, SHA256};
use std::sync::Arc;

/// What some server names are served with.
#[derive(Clone, Debug)]
pub struct Site {
    /// Certificate chain and key.
    pub identity: Arc<Identity>,
    /// What is asked of clients.
    pub client_auth: ClientAuth,
    standing: Arc<Standing>,
}

/// What a handshake settled: for which identity it was, and under which policy. A connection may be used for authorities of
/// the same standing only (RFC 9110 §7.4, RFC 9114 §3.3). It survives a renewed certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The first name of its certificate and policy as configured; empty where the fallback has both.
    name: Box<str>,
    policy: PolicyDigest,
}

impl Standing {
    /// The first name of its certificate and policy as configured; empty where the fallback has both.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// What a TLS handshake ended with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handshake {
    /// For whom, and under which policy.
    pub standing: Arc<Standing>,
    /// The name that the client asked for; empty if it asked for none.
    pub server_name: Box<str>,
    /// The version of TLS, as OpenSSL's tools write it; empty while the handshake runs.
    pub version: &'static str,
    /// The cipher suite, by its name in the IANA's registry.
    pub cipher: &'static str,
    /// The group of the key exchange.
    pub group: &'static str,
    /// With a ticket of an earlier session.
    pub resumed: bool,
}

impl Handshake {
    /// Whether there was one: connections without TLS have an empty one.
    pub fn is_secured(&self) -> bool {
        !self.cipher.is_empty()
    }

    /// Whether requests for what another handshake would have settled belong on this connection (RFC 9110 §7.4): it would
    /// have had the same identity, and asked the same of the client.
    pub fn serves(&self, other: &Arc<Standing>) -> bool {
        Arc::ptr_eq(other, &self.standing) || **other == *self.standing
    }
}

/// The sites of a listener.
pub type Sites = Table<Site>;

impl Site {
    /// A site that stands alone.
    pub fn new(identity: Arc<Identity>, client_auth: ClientAuth) -> Self {
        let standing = Standing { name: "".into(), policy: client_auth.digest() };
        Self { identity, client_auth, standing: Arc::new(standing) }
    }

    /// Which sessions it resumes: those of the same certificate and the same policy only.
    pub fn session_context(&self) -> [u8; 32] {
        let mut hash = digest::Context::new(&SHA256);
        hash.update(b"spooky session v1");
        hash.update(&self.standing.policy.0);
        hash.update(self.identity.leaf());
        let mut context = [0; 32];
        context.copy_from_slice(hash.finish().as_ref());
        context
    }

    /// What a handshake for it settles.
    pub fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    fn is_as(&self, other: &Self) -> bool {
        self.identity.leaf() == other.identity.leaf() && self.standing.policy == other.standing.policy
    }
}

/// The table of a listener's sites. Sites of one certificate and one policy get one standing.
///
/// # Errors
/// If a name stands there twice.
pub fn sites(fallback: Site, named: Vec<(ServerName, Site)>) -> Result<Sites, DuplicateName> {
    let mut rows: Vec<(ServerName, Site)> = Vec::with_capacity(named.len());
    for (name, mut site) in named {
        let known =
            std::iter::once(&fallback).chain(rows.iter().map(|(_, known)| known)).find(|known| site.is_as(known));
        site.standing = match known {
            Some(known) => Arc::clone(&known.standing),
            None => Arc::new(Standing { name: name.to_string().into(), policy: site.standing.policy }),
        };
        rows.push((name, site));
    }
    Table::new(fallback, rows)
}

#[cfg(test)]
mod tests {
    use super::super::Trust;
    use super::*;

    fn named(rows: &[(&str, &Site)]) -> Vec<(ServerName, Site)> {
        rows.iter().map(|(name, site)| (ServerName::parse(name).unwrap(), (*site).clone())).collect()
    }

    fn identity(name: &str) -> Arc<Identity> {
        Arc::new(Identity::self_signed(&[name]).unwrap())
    }

    #[test]
    fn sites_of_one_certificate_and_policy_have_one_standing() {
        let trust = Arc::new(Trust::from_pem(identity("ca").chain_pem().as_bytes(), None).unwrap());
        let (fallback, a, b) = (identity("fallback"), identity("a"), identity("b"));
        let open = |identity: &Arc<Identity>| Site::new(Arc::clone(identity), ClientAuth::Off);
        let closed = Site::new(Arc::clone(&b), ClientAuth::Required(trust));
        let rows = named(&[
            ("a.test", &open(&a)),
            ("*.a.test", &open(&a)),
            ("b.test", &open(&b)),
            ("closed.test", &closed),
            ("also.test", &open(&fallback)),
        ]);
        let table = sites(open(&fallback), rows).unwrap();
        let standing = |host: &str| Arc::clone(table.find(host).standing());
        assert_eq!(standing("a.test"), standing("x.a.test"));
        assert_eq!(standing("also.test"), standing("unknown.test"));
        let all = ["a.test", "b.test", "closed.test", "unknown.test"].map(standing);
        for (at, one) in all.iter().enumerate() {
            assert!(all[at + 1..].iter().all(|other| other != one), "{one:?}");
        }
    }

    #[test]
    fn a_renewed_certificate_keeps_the_standing() {
        let make = || {
            let rows = named(&[("a.test", &Site::new(identity("a.test"), ClientAuth::Off))]);
            sites(Site::new(identity("fallback"), ClientAuth::Off), rows).unwrap()
        };
        let (before, after) = (make(), make());
        for host in ["a.test", "unknown.test"] {
            assert_eq!(before.find(host).standing(), after.find(host).standing(), "{host}");
        }
    }
}
