//! Server names, client certificates and resumption, with clients that show and offer what they are told to.

use super::support::*;
use crate::h3::EndpointKeys;
use crate::h3::tickets::{ROTATION, TicketKeys};
use crate::h3::{Endpoint, QuicSettings, TlsContexts};
use crate::identity::{ClientAuth, Identity, ServerName, Site, Trust, sites};
use crate::limits::quic::CLIENT_CERTIFICATES_BYTES;
use boring::pkey::PKey;
use boring::ssl::{SslContext, SslMethod};
use boring::x509::X509;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// TLS alerts (RFC 8446 §6.2) as QUIC codes (RFC 9001 §4.8).
const CERTIFICATE_REVOKED: u64 = 0x100 + 44;
const CERTIFICATE_EXPIRED: u64 = 0x100 + 45;
const UNKNOWN_CA: u64 = 0x100 + 48;
const DECRYPT_ERROR: u64 = 0x100 + 51;
const UNSUPPORTED_CERTIFICATE: u64 = 0x100 + 43;
const CERTIFICATE_REQUIRED: u64 = 0x100 + 116;

struct Authority {
    pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

/// What a client shows.
struct Badge {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        let pem = parameters.self_signed(&key).unwrap().pem();
        Self { pem, issuer: rcgen::Issuer::new(parameters, key) }
    }

    fn badge(&self, serial: u64) -> Badge {
        self.badge_with(serial, |_| {})
    }

    fn badge_with(&self, serial: u64, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Badge {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "a client");
        parameters.serial_number = Some(serial.into());
        parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut parameters);
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        Badge { certificate: certificate.der().to_vec(), key: key.serialize_der() }
    }

    /// A list of revoked serial numbers, good until the given year.
    fn revoke(&self, serials: &[u64], until: i32) -> String {
        let revoked = serials.iter().map(|&serial| rcgen::RevokedCertParams {
            serial_number: serial.into(),
            revocation_time: rcgen::date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(until, 1, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    fn trust(&self, lists: Option<&str>) -> Arc<Trust> {
        Arc::new(Trust::from_pem(self.pem.as_bytes(), lists.map(str::as_bytes)).unwrap())
    }
}

fn site(name: &str, client_auth: ClientAuth) -> Site {
    Site::new(Arc::new(Identity::self_signed(&[name]).unwrap()), client_auth)
}

fn table(fallback: Site, named: &[(&str, &Site)]) -> Arc<TlsContexts> {
    table_with(fallback, named, &TicketKeys::derive(b"a secret of the tests", || 0))
}

fn table_with(fallback: Site, named: &[(&str, &Site)], tickets: &TicketKeys) -> Arc<TlsContexts> {
    let named = named.iter().map(|(name, site)| (ServerName::parse(name).unwrap(), (*site).clone()));
    Arc::new(TlsContexts::new(&sites(fallback, named.collect()).unwrap(), tickets).unwrap())
}

fn endpoint_of(worker: u16, contexts: &Arc<TlsContexts>) -> Endpoint {
    let keys = EndpointKeys::derive(b"a secret of the tests");
    Endpoint::new(&QuicSettings::default(), contexts, &keys, worker, 9).unwrap()
}

/// What a client does.
#[derive(Default)]
struct Visit<'a> {
    name: Option<&'a str>,
    badge: Option<&'a Badge>,
    session: Option<&'a [u8]>,
    /// Key exchange groups.
    groups: Option<&'a str>,
}

impl Visit<'_> {
    /// Comes to an endpoint; returns when the server is done with the handshake or the client was told why not.
    fn to(self, endpoint: Endpoint) -> World {
        let mut context = SslContext::builder(SslMethod::tls()).unwrap();
        if let Some(badge) = self.badge {
            context.set_certificate(&X509::from_der(&badge.certificate).unwrap()).unwrap();
            context.set_private_key(&PKey::private_key_from_der(&badge.key).unwrap()).unwrap();
        }
        if let Some(groups) = self.groups {
            context.set_curves_list(groups).unwrap();
        }
        let mut config = quiche::Config::with_boring_ssl_ctx_builder(1, context).unwrap();
        config.set_application_protos(&[b"h3"]).unwrap();
        config.verify_peer(false);
        config.set_initial_max_data(1 << 20);
        config.set_initial_max_stream_data_bidi_local(1 << 20);
        config.set_initial_max_stream_data_uni(1 << 16);
        config.set_initial_max_streams_uni(8);
        let mut client = Client::new(endpoint.counters().accepted.get() + 1, &ClientSettings::default());
        let id = [endpoint.counters().accepted.get() as u8 + 1; 16];
        let id = quiche::ConnectionId::from_ref(&id);
        client.quic = quiche::connect(self.name, &id, client_address(), server_address(), &mut config).unwrap();
        if let Some(session) = self.session {
            client.quic.set_session(session).unwrap();
        }
        let mut world = World::over(endpoint, client, &QuicSettings::default());
        world.run(|world| {
            world.client.quic.peer_error().is_some()
                || world.client.http.is_some() && world.key.is_some() && world.connection().facts().handshake.is_some()
        });
        world.settle();
        world
    }
}

/// The alert that ended a handshake, or `None` for one that was completed.
fn alert(world: &World) -> Option<u64> {
    world.client.quic.peer_error().map(|error| error.error_code)
}

fn shown(world: &World) -> &[u8] {
    world.client.quic.peer_cert().expect("a certificate")
}

#[test]
fn the_server_name_chooses_the_certificate() {
    let (fallback, a, b) = (site("f", ClientAuth::Off), site("a.test", ClientAuth::Off), site("b", ClientAuth::Off));
    let contexts = table(fallback.clone(), &[("a.test", &a), ("*.b.test", &b)]);
    for (name, expected) in [
        (Some("a.test"), &a),
        (Some("A.Test"), &a),
        (Some("x.b.test"), &b),
        (Some("b.test"), &fallback),
        (Some("x.y.b.test"), &fallback),
        (Some("unknown.test"), &fallback),
        (None, &fallback),
    ] {
        let world = Visit { name, ..Visit::default() }.to(endpoint_of(0, &contexts));
        assert_eq!((alert(&world), shown(&world)), (None, expected.identity.leaf()), "{name:?}");
    }
}

#[test]
fn new_identities_are_for_the_next_handshake() {
    let (old, new) = (site("a.test", ClientAuth::Off), site("a.test", ClientAuth::Off));
    let fallback = site("f", ClientAuth::Off);
    let mut world = Visit { name: Some("a.test"), ..Visit::default() }
        .to(endpoint_of(0, &table(fallback.clone(), &[("a.test", &old)])));
    assert_eq!(shown(&world), old.identity.leaf());
    world.endpoint.set_contexts(&table(fallback.clone(), &[("a.test", &new)]));
    // The connection goes on, and its name is still its own.
    assert!(world.connection().serves("a.test") && !world.connection().serves("b.test"));
    let key = world.key;
    let mut world = Visit { name: Some("a.test"), ..Visit::default() }.to(world.endpoint);
    assert_eq!(shown(&world), new.identity.leaf());
    // A name that asks for more than before is not served on the connections from before.
    let authority = Authority::new("ca");
    let closed = Site::new(Arc::clone(&new.identity), ClientAuth::Required(authority.trust(None)));
    world.endpoint.set_contexts(&table(fallback, &[("a.test", &closed)]));
    assert!(!world.endpoint.get_mut(key.unwrap()).unwrap().serves("a.test"));
}

#[test]
fn authorities_of_another_identity_or_policy_are_not_served() {
    let authority = Authority::new("ca");
    let badge = authority.badge(1);
    let required = ClientAuth::Required(authority.trust(None));
    let (fallback, a) = (site("f", ClientAuth::Off), site("a.test", ClientAuth::Off));
    let closed = Site::new(Arc::clone(&a.identity), required);
    let contexts =
        table(fallback.clone(), &[("a.test", &a), ("*.a.test", &a), ("closed.test", &closed), ("f.test", &fallback)]);
    let hosts = ["a.test", "x.a.test", "closed.test", "f.test", "unknown.test", "[::1]", "192.0.2.7"];
    for (name, badge, served) in [
        (Some("a.test"), None, [true, true, false, false, false, false, false]),
        (Some("y.a.test"), None, [true, true, false, false, false, false, false]),
        (Some("closed.test"), Some(&badge), [false, false, true, false, false, false, false]),
        (Some("f.test"), None, [false, false, false, true, true, true, true]),
        (None, None, [false, false, false, true, true, true, true]),
    ] {
        let mut world = Visit { name, badge, ..Visit::default() }.to(endpoint_of(0, &contexts));
        assert_eq!(alert(&world), None);
        assert_eq!(hosts.map(|host| world.connection().serves(host)), served, "{name:?}");
    }
}

#[test]
fn client_certificates_are_judged_by_the_policy_of_the_name() {
    let authority = Authority::new("ca");
    let (good, strange) = (authority.badge(1), Authority::new("another").badge(1));
    let forged = Authority::new("ca").badge(1);
    let expired = authority.badge_with(2, |parameters| parameters.not_after = rcgen::date_time_ymd(2021, 1, 1));
    let server = authority.badge_with(3, |parameters| {
        parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    let optional = site("optional.test", ClientAuth::Optional(authority.trust(None)));
    let required = site("required.test", ClientAuth::Required(authority.trust(None)));
    let off = site("off.test", ClientAuth::Off);
    let named = [("optional.test", &optional), ("required.test", &required), ("off.test", &off)];
    // Each policy is once the fallback, so that every one of them is switched away from.
    for fallback in [&off, &optional, &required] {
        let contexts = table(fallback.clone(), &named);
        for (name, badge, expected) in [
            ("off.test", None, None),
            ("off.test", Some(&good), None),
            ("off.test", Some(&strange), None),
            ("optional.test", None, None),
            ("optional.test", Some(&good), None),
            ("optional.test", Some(&strange), Some(UNKNOWN_CA)),
            ("required.test", None, Some(CERTIFICATE_REQUIRED)),
            ("required.test", Some(&good), None),
            ("required.test", Some(&strange), Some(UNKNOWN_CA)),
            ("required.test", Some(&forged), Some(DECRYPT_ERROR)),
            ("required.test", Some(&expired), Some(CERTIFICATE_EXPIRED)),
            ("required.test", Some(&server), Some(UNSUPPORTED_CERTIFICATE)),
        ] {
            let mut world = Visit { name: Some(name), badge, ..Visit::default() }.to(endpoint_of(0, &contexts));
            assert_eq!(alert(&world), expected, "{name} {}", badge.is_some());
            if expected.is_none() {
                let known = world.connection().client_certificate();
                let told = badge.filter(|_| name != "off.test").map(|badge| badge.certificate.as_slice());
                let told = crate::identity::ShownCertificate::new(told.into_iter());
                assert_eq!(known.as_deref(), told.as_ref(), "{name}");
            }
        }
    }
}

#[test]
fn revoked_certificates_are_refused() {
    let authority = Authority::new("ca");
    let (good, revoked) = (authority.badge(1), authority.badge(2));
    let list = authority.revoke(&[2], 2100);
    let with_list = |list: &str| table(site("f", ClientAuth::Required(authority.trust(Some(list)))), &[]);
    let contexts = with_list(&list);
    let come = |badge: &Badge, contexts: &Arc<TlsContexts>| {
        alert(&Visit { badge: Some(badge), ..Visit::default() }.to(endpoint_of(0, contexts)))
    };
    assert_eq!(come(&good, &contexts), None);
    assert_eq!(come(&revoked, &contexts), Some(CERTIFICATE_REVOKED));
    // Without a valid list of the authority nobody can be judged.
    let stale = authority.revoke(&[2], 2021);
    assert_eq!(come(&good, &with_list(&stale)), Some(CERTIFICATE_EXPIRED));
    let other = Authority::new("another").revoke(&[], 2100);
    assert_eq!(come(&good, &with_list(&other)), Some(UNKNOWN_CA));
}

#[test]
fn broken_authorities_and_lists_are_told_with_their_name() {
    let block = |kind: &str| format!("-----BEGIN {kind}-----\nMAA=\n-----END {kind}-----\n");
    let refused = |authorities: &str, lists: Option<&str>| {
        let trust = Trust::from_pem(authorities.as_bytes(), lists.map(str::as_bytes)).unwrap();
        let bad = site("a.test", ClientAuth::Optional(Arc::new(trust)));
        let named = vec![(ServerName::parse("a.test").unwrap(), bad)];
        let sites = sites(site("f", ClientAuth::Off), named).unwrap();
        TlsContexts::new(&sites, &TicketKeys::derive(b"", || 0)).unwrap_err().to_string()
    };
    let told = refused(&block("CERTIFICATE"), None);
    assert!(told.contains("a.test") && told.contains("authorities"), "{told}");
    let told = refused(&Authority::new("ca").pem, Some(&block("X509 CRL")));
    assert!(told.contains("a.test") && told.contains("revocation list 1"), "{told}");
}

#[test]
fn a_session_is_resumed_on_another_worker() {
    let fallback = site("f", ClientAuth::Off);
    let first = Visit { name: Some("a.test"), ..Visit::default() };
    let first = first.to(endpoint_of(1, &table(fallback.clone(), &[])));
    let session = first.client.quic.session().expect("a ticket").to_vec();
    assert!(!first.client.quic.is_resumed());
    // Another worker, with contexts that were made from the same files and secret, as in another process.
    let second = Visit { name: Some("a.test"), session: Some(&session), ..Visit::default() };
    let mut second = second.to(endpoint_of(2, &table(fallback, &[])));
    assert!(second.client.quic.is_resumed() && second.connection().facts().resumed);
    let counters = second.endpoint.counters();
    assert_eq!((counters.established.get(), counters.resumed.get()), (1, 1));
    // Early data is off: nothing was sent or taken before the handshake.
    assert!(!second.client.quic.is_in_early_data());
    // It gives a ticket again, and each connection belongs to its name all the same.
    assert!(second.client.quic.session().is_some() && second.connection().serves("a.test"));
}

#[test]
fn a_session_needs_the_secret_the_certificate_and_the_policy_it_was_made_with() {
    let authority = Authority::new("ca");
    let (fallback, a) = (site("f", ClientAuth::Off), site("a.test", ClientAuth::Off));
    let closed = Site::new(Arc::clone(&a.identity), ClientAuth::Optional(authority.trust(None)));
    let contexts = table(fallback.clone(), &[("a.test", &a)]);
    let come = |name, session, contexts: &Arc<TlsContexts>| {
        Visit { name: Some(name), session, ..Visit::default() }.to(endpoint_of(0, contexts))
    };
    let first = come("a.test", None, &contexts);
    let session = first.client.quic.session().map(<[u8]>::to_vec);
    let resumed = |name, contexts: &Arc<TlsContexts>| come(name, session.as_deref(), contexts).client.quic.is_resumed();
    assert!(resumed("a.test", &contexts));
    assert!(!resumed("f.test", &contexts));
    assert!(!resumed("a.test", &table(fallback.clone(), &[("a.test", &closed)])));
    assert!(!resumed("a.test", &table(fallback.clone(), &[("a.test", &site("a.test", ClientAuth::Off))])));
    let another = TicketKeys::derive(b"another secret", || 0);
    assert!(!resumed("a.test", &table_with(fallback, &[("a.test", &a)], &another)));
}

#[test]
fn connections_that_may_show_certificates_are_never_resumed() {
    let authority = Authority::new("ca");
    let badge = authority.badge(1);
    let contexts = table(site("f", ClientAuth::Required(authority.trust(None))), &[]);
    let world = Visit { badge: Some(&badge), ..Visit::default() }.to(endpoint_of(0, &contexts));
    assert_eq!((alert(&world), world.client.quic.session()), (None, None));
}

#[test]
fn tickets_outlive_one_rotation_of_the_key_and_not_two() {
    static NOW: AtomicU64 = AtomicU64::new(0);
    const START: u64 = 100_000 * ROTATION.as_secs();
    NOW.store(START, Ordering::Relaxed);
    let tickets = TicketKeys::derive(b"a secret", || NOW.load(Ordering::Relaxed));
    let contexts = table_with(site("f", ClientAuth::Off), &[], &tickets);
    let come = |session| Visit { session, ..Visit::default() }.to(endpoint_of(0, &contexts)).client.quic;
    let session = come(None).session().unwrap().to_vec();
    for (later, resumed) in [(0, true), (ROTATION.as_secs(), true), (2 * ROTATION.as_secs(), false)] {
        NOW.store(START + later, Ordering::Relaxed);
        assert_eq!(come(Some(&session)).is_resumed(), resumed, "{later} s later");
    }
}

#[test]
fn the_hybrid_key_exchange_is_taken_over_two_datagrams() {
    let contexts = table(site("f", ClientAuth::Off), &[]);
    for (groups, taken) in [
        ("X25519MLKEM768:X25519", "X25519MLKEM768"),
        ("X25519:P-256", "X25519"),
        ("P-384", "P-384"),
        ("P-256", "P-256"),
    ] {
        let visit = Visit { groups: Some(groups), ..Visit::default() };
        let mut world = visit.to(endpoint_of(0, &contexts));
        assert_eq!(alert(&world), None, "{groups}");
        let ssl: &mut boring::ssl::SslRef = world.client.quic.as_mut();
        assert_eq!(ssl.curve_name(), Some(taken));
        let told = world.connection().handshake();
        assert_eq!((told.group, &*told.server_name, told.resumed), (taken, "", false));
        assert!(told.cipher.starts_with("TLS_"), "{told:?}");
    }
}

#[test]
fn certificates_of_clients_are_bounded() {
    let authority = Authority::new("ca");
    let contexts = table(site("f", ClientAuth::Required(authority.trust(None))), &[]);
    let come = |names: usize| {
        let badge = authority.badge_with(1, |parameters| {
            let name =
                |at: usize| rcgen::SanType::DnsName(format!("a-name-of-thirty-two-bytes-{at:05}").try_into().unwrap());
            parameters.subject_alt_names = (0..names).map(name).collect();
        });
        let visit = Visit { badge: Some(&badge), ..Visit::default() };
        (badge.certificate.len(), alert(&visit.to(endpoint_of(0, &contexts))))
    };
    let (bytes, fits) = come(450);
    assert!(bytes < CLIENT_CERTIFICATES_BYTES && fits.is_none(), "{bytes} {fits:?}");
    let (bytes, fits) = come(500);
    assert!(bytes > CLIENT_CERTIFICATES_BYTES && fits.is_some(), "{bytes} {fits:?}");
}
