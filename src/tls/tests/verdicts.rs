//! Which backends' certificates are good, and what is told of those that are not.

use super::support::*;
use crate::identity::{ClientAuth, Identity, Site};
use crate::tls::{ClientSession, ClientSettings, FaultKind, Verify};
use std::sync::Arc;

fn believing(authority: &Authority, strict_sni: bool) -> ClientSettings {
    ClientSettings { verify: Verify::Certificates { authorities: authority.authorities(), strict_sni }, ..trusting() }
}

/// Kind and text of what the client objects to in a backend.
fn objection(settings: &ClientSettings, name: &str, shown: &Arc<Identity>) -> Option<(FaultKind, String)> {
    let contexts = contexts(Site::new(Arc::clone(shown), ClientAuth::Off), &[]);
    let mut pair = Pair::shaken(&client(settings), name, &contexts);
    match pair.client_fault {
        None => {
            pair.client_sends(b"a request");
            pair.run();
            assert_eq!(pair.at_server, b"a request");
            None
        }
        Some(fault) => {
            // The backend hears of it, and gets no request.
            assert!(fault.tells);
            assert_eq!(pair.server_fault.expect("an alert").kind, FaultKind::CertificateRefused);
            Some((fault.kind, fault.to_string()))
        }
    }
}

#[test]
fn a_backend_has_to_show_a_good_certificate_of_its_name() {
    let authority = Authority::new("our own authority");
    let settings = believing(&authority, true);
    let good = authority.identity(&["a.test", "*.b.test", "192.0.2.1", "2001:db8::1"], |_| {});
    for name in ["a.test", "A.TEST.", "x.b.test", "192.0.2.1", "[2001:db8::1]", "2001:db8::1"] {
        assert_eq!(objection(&settings, name, &good), None, "{name}");
    }
    for name in ["b.test", "192.0.2.2", "a.test.evil"] {
        let (kind, text) = objection(&settings, name, &good).expect("refused");
        assert_eq!((kind, kind.word()), (FaultKind::WrongName, "wrong_name"));
        assert!(text.contains("a.test, *.b.test, 192.0.2.1, 2001:db8::1") && text.contains(name), "{text}");
    }
}

#[test]
fn what_is_wrong_is_said_with_what_the_certificate_says_and_what_mends_it() {
    let authority = Authority::new("our own authority");
    let settings = believing(&authority, true);
    let told = |shown: &Arc<Identity>| objection(&settings, "a.test", shown).expect("refused");

    let old = authority.identity(&["a.test"], |parameters| parameters.not_after = rcgen::date_time_ymd(2021, 2, 3));
    let (kind, text) = told(&old);
    assert_eq!(kind, FaultKind::Expired);
    assert!(text.contains("ended on 2021-02-03") && text.contains("issuer our own authority"), "{text}");

    let early = authority.identity(&["a.test"], |parameters| parameters.not_before = rcgen::date_time_ymd(2099, 1, 1));
    let (kind, text) = told(&early);
    assert_eq!(kind, FaultKind::NotYetValid);
    assert!(text.contains("2099-01-01") && text.contains("clocks"), "{text}");

    let (kind, text) = told(&Authority::new("a stranger").identity(&["a.test"], |_| {}));
    assert_eq!(kind, FaultKind::UnknownCa);
    assert!(text.contains("issuer a stranger") && text.contains("ca_file") && text.contains(".pem"), "{text}");

    let (kind, text) = told(&Arc::new(Identity::self_signed(&["a.test"]).unwrap()));
    assert_eq!(kind, FaultKind::UnknownCa);
    assert!(text.contains("signed by itself"), "{text}");

    let (kind, _) = told(&authority.badge_with(7, |parameters| {
        parameters.subject_alt_names = vec![rcgen::SanType::DnsName("a.test".try_into().unwrap())];
    }));
    assert_eq!(kind, FaultKind::BadCertificate, "a client's certificate is none of a server");
}

#[test]
fn without_strict_sni_the_name_does_not_count_and_everything_else_does() {
    let authority = Authority::new("ca");
    let settings = believing(&authority, false);
    assert!(client(&settings).warning().is_some_and(|text| text.contains("strict_sni")));
    let other = authority.identity(&["other.test"], |_| {});
    assert_eq!(objection(&settings, "a.test", &other), None);
    let old = authority.identity(&["other.test"], |parameters| parameters.not_after = rcgen::date_time_ymd(2021, 1, 1));
    assert_eq!(objection(&settings, "a.test", &old).map(|told| told.0), Some(FaultKind::Expired));
    let strange = Authority::new("another").identity(&["a.test"], |_| {});
    assert_eq!(objection(&settings, "a.test", &strange).map(|told| told.0), Some(FaultKind::UnknownCa));
}

#[test]
fn without_verification_everybody_is_believed_and_that_is_said() {
    let anyone = client(&trusting());
    assert!(anyone.warning().is_some_and(|text| text.contains("NOT verified")));
    assert!(anyone.for_worker().warning().is_some());
    let old =
        Authority::new("x").identity(&["x"], |parameters| parameters.not_after = rcgen::date_time_ymd(2021, 1, 1));
    assert_eq!(objection(&trusting(), "a.test", &old), None);
    assert!(client(&believing(&Authority::new("ca"), true)).warning().is_none());
}

#[test]
fn a_backend_that_asks_for_a_certificate_gets_ours() {
    let authority = Authority::new("ca");
    let contexts = contexts(site("f", ClientAuth::Required(authority.trust(None))), &[]);
    let mut settings = trusting();
    let pair = Pair::shaken(&client(&settings), "a.test", &contexts);
    let fault = pair.client_fault.expect("refused");
    assert_eq!((fault.kind, fault.alert), (FaultKind::CertificateRefused, Some(116)));
    assert!(fault.text.contains("configure one"), "{fault}");
    settings.identity = Some(authority.badge(1));
    let pair = Pair::shaken(&client(&settings), "a.test", &contexts);
    assert!(pair.is_fine() && pair.server.client_certificate().is_some());
}

#[test]
fn certificates_over_several_records_are_put_together_up_to_a_bound() {
    let shown = |names: usize| {
        let names: Vec<String> = (0..names).map(|at| format!("a-name-of-thirty-two-bytes-{at:05}")).collect();
        Identity::self_signed(&names.iter().map(String::as_str).collect::<Vec<_>>()).unwrap()
    };
    for (names, refused) in [(1_200, None), (2_500, Some(FaultKind::TooLong))] {
        let contexts = contexts(Site::new(Arc::new(shown(names)), ClientAuth::Off), &[]);
        for cut in [7, 16_389, usize::MAX] {
            let mut pair = Pair::new(&client(&trusting()), "a.test", &contexts);
            pair.cut = cut;
            pair.run();
            assert_eq!(pair.client_fault.as_ref().map(|fault| fault.kind), refused, "{names} {cut}");
            assert!(pair.client.waiting_bytes() <= crate::limits::TLS_CLIENT_KEPT_BYTES);
            if refused.is_none() {
                assert!(pair.client.leaf().is_some_and(|leaf| leaf.len() > 40_000));
                assert_eq!(pair.client.waiting_bytes(), 0);
            }
        }
    }
}

#[test]
fn names_that_nobody_can_have_are_refused_before_anything_is_sent() {
    let context = client(&trusting());
    for name in ["", "a b", "a..b", "[::1", "http://a.test"] {
        let fault = ClientSession::new(&context, name).unwrap_err();
        assert!(fault.kind == FaultKind::Internal && fault.text.contains("neither"), "{name}: {fault}");
    }
}
