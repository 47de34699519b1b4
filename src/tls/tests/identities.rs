//! Server names and client certificates: the same rules as over QUIC, told by the tests of the same names there.

use super::support::*;
use crate::identity::{ClientAuth, Identity, ServerName, ShownCertificate, Site, Trust, sites};
use crate::limits::quic::CLIENT_CERTIFICATES_BYTES;
use crate::telemetry::kinds::HandshakeFailure;
use crate::tls::{Acceptor, ClientContext, FaultKind, ServerContexts, ServerSession, ServerSettings, Side};
use std::sync::Arc;

/// An address is no server name: none is sent for it.
const NO_NAME: &str = "192.0.2.1";

fn showing(badge: Option<&Arc<Identity>>) -> ClientContext {
    let mut settings = trusting();
    settings.identity = badge.map(Arc::clone);
    client(&settings)
}

/// The leaf that the server showed.
fn leaf(pair: &Pair) -> Vec<u8> {
    pair.client.leaf().expect("a certificate")
}

/// What the server ended a handshake over; it told the client.
fn refusal(pair: &Pair) -> Option<FaultKind> {
    let fault = pair.server_fault.as_ref()?;
    assert!(fault.tells && fault.by == Side::Us, "{fault}");
    let told = pair.client_fault.as_ref().expect("an alert");
    assert!(told.by == Side::Peer && told.alert.is_some() && !told.tells, "{told}");
    assert!(fault.alert.is_none_or(|alert| told.alert == Some(alert)), "{fault} {told}");
    Some(fault.kind)
}

#[test]
fn the_server_name_chooses_the_certificate() {
    let (fallback, a, b) = (site("f", ClientAuth::Off), site("a.test", ClientAuth::Off), site("b", ClientAuth::Off));
    let contexts = contexts(fallback.clone(), &[("a.test", &a), ("*.b.test", &b)]);
    for client in [client(&trusting()), old_client()] {
        for (name, expected) in [
            ("a.test", &a),
            ("A.Test", &a),
            ("x.b.test", &b),
            ("b.test", &fallback),
            ("x.y.b.test", &fallback),
            ("unknown.test", &fallback),
            (NO_NAME, &fallback),
        ] {
            let pair = Pair::shaken(&client, name, &contexts);
            assert!(pair.is_fine());
            assert_eq!(leaf(&pair), expected.identity.leaf(), "{name}");
            let told = if name == NO_NAME { "" } else { name };
            assert!(pair.server.handshake().server_name.eq_ignore_ascii_case(told));
        }
    }
}

#[test]
fn new_identities_are_for_the_next_handshake() {
    let (old, new) = (site("a.test", ClientAuth::Off), site("a.test", ClientAuth::Off));
    let fallback = site("f", ClientAuth::Off);
    let acceptor = Acceptor::new(&contexts(fallback.clone(), &[("a.test", &old)]));
    let come = || {
        let mut pair = Pair::new(&client(&trusting()), "a.test", &contexts(fallback.clone(), &[]));
        pair.server = ServerSession::new(&acceptor);
        pair.run();
        pair
    };
    let mut first = come();
    assert_eq!(leaf(&first), old.identity.leaf());
    acceptor.set_contexts(&contexts(fallback.clone(), &[("a.test", &new)]));
    // The connection goes on, and its name is still its own.
    first.client_sends(b"still here");
    first.run();
    assert_eq!(first.at_server, b"still here");
    assert!(first.server.serves("a.test") && !first.server.serves("b.test"));
    assert_eq!(leaf(&come()), new.identity.leaf());
    // A name that asks for more than before is not served on the connections from before.
    let closed = Site::new(Arc::clone(&new.identity), ClientAuth::Required(Authority::new("ca").trust(None)));
    acceptor.set_contexts(&contexts(fallback.clone(), &[("a.test", &closed)]));
    assert!(!first.server.serves("a.test"));
}

#[test]
fn authorities_of_another_identity_or_policy_are_not_served() {
    let authority = Authority::new("ca");
    let badge = authority.badge(1);
    let (fallback, a) = (site("f", ClientAuth::Off), site("a.test", ClientAuth::Off));
    let closed = Site::new(Arc::clone(&a.identity), ClientAuth::Required(authority.trust(None)));
    let contexts = contexts(
        fallback.clone(),
        &[("a.test", &a), ("*.a.test", &a), ("closed.test", &closed), ("f.test", &fallback)],
    );
    let hosts = ["a.test", "x.a.test", "closed.test", "f.test", "unknown.test", "[::1]", "192.0.2.7"];
    for (name, badge, served) in [
        ("a.test", None, [true, true, false, false, false, false, false]),
        ("y.a.test", None, [true, true, false, false, false, false, false]),
        ("closed.test", Some(&badge), [false, false, true, false, false, false, false]),
        ("f.test", None, [false, false, false, true, true, true, true]),
        (NO_NAME, None, [false, false, false, true, true, true, true]),
    ] {
        let pair = Pair::shaken(&showing(badge), name, &contexts);
        assert_eq!(refusal(&pair), None);
        assert_eq!(hosts.map(|host| pair.server.serves(host)), served, "{name:?}");
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
    for fallback in [&off, &optional, &required] {
        let contexts = contexts(fallback.clone(), &named);
        for (name, badge, expected) in [
            ("off.test", None, None),
            ("off.test", Some(&good), None),
            ("off.test", Some(&strange), None),
            ("optional.test", None, None),
            ("optional.test", Some(&good), None),
            ("optional.test", Some(&strange), Some(HandshakeFailure::CertificateUnknownAuthority)),
            ("required.test", None, Some(HandshakeFailure::CertificateMissing)),
            ("required.test", Some(&good), None),
            ("required.test", Some(&strange), Some(HandshakeFailure::CertificateUnknownAuthority)),
            ("required.test", Some(&forged), Some(HandshakeFailure::CertificateBad)),
            ("required.test", Some(&expired), Some(HandshakeFailure::CertificateExpired)),
            ("required.test", Some(&server), Some(HandshakeFailure::CertificateBad)),
        ] {
            let pair = Pair::shaken(&showing(badge), name, &contexts);
            let over = refusal(&pair).and(pair.server_fault.as_ref()).map(|fault| fault.handshake_failure());
            assert_eq!(over, expected, "{name} {:?}", pair.server_fault);
            if expected.is_none() {
                let told = badge.filter(|_| name != "off.test").map(|badge| badge.leaf());
                let told = ShownCertificate::new(told.into_iter());
                assert_eq!(pair.server.client_certificate().as_deref(), told.as_ref(), "{name}");
            } else {
                // Nothing of a refused client is known or taken.
                assert!(pair.server.client_certificate().is_none() && !pair.server.is_handshaking());
            }
        }
    }
}

#[test]
fn revoked_certificates_are_refused() {
    let authority = Authority::new("ca");
    let (good, revoked) = (authority.badge(1), authority.badge(2));
    let list = authority.revoke(&[2], 2100);
    let with_list = |list: &str| contexts(site("f", ClientAuth::Required(authority.trust(Some(list)))), &[]);
    let come = |badge: &Arc<Identity>, contexts: &Arc<ServerContexts>| {
        refusal(&Pair::shaken(&showing(Some(badge)), "a.test", contexts))
    };
    assert_eq!(come(&good, &with_list(&list)), None);
    assert_eq!(come(&revoked, &with_list(&list)), Some(FaultKind::Revoked));
    // Without a valid list of the authority nobody can be judged.
    let stale = authority.revoke(&[2], 2021);
    assert_eq!(come(&good, &with_list(&stale)), Some(FaultKind::Expired));
    let other = Authority::new("another").revoke(&[], 2100);
    assert_eq!(come(&good, &with_list(&other)), Some(FaultKind::UnknownCa));
}

#[test]
fn broken_authorities_and_lists_are_told_with_their_name() {
    let block = |kind: &str| format!("-----BEGIN {kind}-----\nMAA=\n-----END {kind}-----\n");
    let refused = |authorities: &str, lists: Option<&str>| {
        let trust = Trust::from_pem(authorities.as_bytes(), lists.map(str::as_bytes)).unwrap();
        let bad = site("a.test", ClientAuth::Optional(Arc::new(trust)));
        let named = vec![(ServerName::parse("a.test").unwrap(), bad)];
        let sites = sites(site("f", ClientAuth::Off), named).unwrap();
        ServerContexts::new(&sites, &ServerSettings::default(), &tickets()).unwrap_err().to_string()
    };
    let told = refused(&block("CERTIFICATE"), None);
    assert!(told.contains("a.test") && told.contains("authority 1"), "{told}");
    let told = refused(&Authority::new("ca").pem, Some(&block("X509 CRL")));
    assert!(told.contains("a.test") && told.contains("revocation list 1"), "{told}");
}

#[test]
fn certificates_of_clients_are_bounded() {
    let authority = Authority::new("ca");
    let contexts = contexts(site("f", ClientAuth::Required(authority.trust(None))), &[]);
    let come = |names: usize| {
        let badge = authority.badge_with(1, |parameters| {
            let name =
                |at: usize| rcgen::SanType::DnsName(format!("a-name-of-thirty-two-bytes-{at:05}").try_into().unwrap());
            parameters.subject_alt_names = (0..names).map(name).collect();
        });
        let pair = Pair::shaken(&showing(Some(&badge)), "a.test", &contexts);
        (badge.leaf().len(), pair.server_fault.map(|fault| fault.kind))
    };
    let (bytes, fault) = come(450);
    assert!(bytes < CLIENT_CERTIFICATES_BYTES && fault.is_none(), "{bytes} {fault:?}");
    let (bytes, fault) = come(500);
    assert!(bytes > CLIENT_CERTIFICATES_BYTES && fault == Some(FaultKind::TooLong), "{bytes} {fault:?}");
    let (bytes, fault) = come(2_000);
    assert!(bytes > 64_000 && fault == Some(FaultKind::TooLong), "{bytes} {fault:?}");
}
