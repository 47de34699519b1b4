//! Tickets: on any worker, after a restart, for six hours, and never from one site or policy to another.

use super::support::*;
use crate::identity::{ClientAuth, ROTATION, Site, TicketKeys};
use crate::tls::{ClientContext, ServerContexts, ServerSettings};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Comes and reads what the server sends behind the handshake, so that its tickets are taken.
fn come(client: &ClientContext, name: &str, contexts: &Arc<ServerContexts>) -> bool {
    let mut pair = Pair::shaken(client, name, contexts);
    assert!(pair.is_fine(), "{:?} {:?}", pair.server_fault, pair.client_fault);
    // Each connection belongs to its name all the same.
    assert!(pair.server.serves(name));
    pair.client_sends(b"x");
    pair.run();
    assert_eq!(pair.at_server, b"x");
    assert_eq!(pair.client.handshake().resumed, pair.server.handshake().resumed);
    pair.server.handshake().resumed
}

fn clients() -> [ClientContext; 2] {
    [client(&trusting()), old_client()]
}

#[test]
fn a_session_is_resumed_on_another_worker_and_after_a_restart() {
    let fallback = site("f", ClientAuth::Off);
    for client in clients() {
        assert!(!come(&client, "a.test", &contexts(fallback.clone(), &[])));
        // Contexts that were made from the same files and secret, as in another process.
        assert!(come(&client, "a.test", &contexts(fallback.clone(), &[])));
        // A ticket is given again, and sessions are the client's own by name.
        assert!(come(&client, "a.test", &contexts(fallback.clone(), &[])));
        assert!(!come(&client, "b.test", &contexts(fallback.clone(), &[])));
        assert!(!come(&client.for_worker(), "a.test", &contexts(fallback.clone(), &[])));
    }
}

#[test]
fn a_session_needs_the_secret_the_certificate_and_the_policy_it_was_made_with() {
    let authority = Authority::new("ca");
    let (fallback, a) = (site("f", ClientAuth::Off), site("a.test", ClientAuth::Off));
    let closed = Site::new(Arc::clone(&a.identity), ClientAuth::Optional(authority.trust(None)));
    let another = TicketKeys::derive(b"another secret", || 0);
    let same = || contexts(fallback.clone(), &[("a.test", &a)]);
    for (other, resumed) in [
        (same(), true),
        (contexts(fallback.clone(), &[]), false),
        (contexts(fallback.clone(), &[("a.test", &closed)]), false),
        (contexts(fallback.clone(), &[("a.test", &site("a.test", ClientAuth::Off))]), false),
        (contexts_with(fallback.clone(), &[("a.test", &a)], &ServerSettings::default(), &another), false),
    ] {
        for client in clients() {
            assert!(!come(&client, "a.test", &same()));
            assert_eq!(come(&client, "a.test", &other), resumed);
        }
    }
}

#[test]
fn connections_that_may_show_certificates_are_never_resumed() {
    let authority = Authority::new("ca");
    for badge in [None, Some(authority.badge(1))] {
        let contexts = contexts(site("f", ClientAuth::Optional(authority.trust(None))), &[]);
        let mut settings = trusting();
        settings.identity = badge;
        for client in [client(&settings), old_client()] {
            assert!(!come(&client, "a.test", &contexts));
            assert!(!come(&client, "a.test", &contexts));
        }
    }
}

#[test]
fn tickets_live_for_one_rotation_of_the_key() {
    static NOW: AtomicU64 = AtomicU64::new(0);
    const START: u64 = 100_000 * ROTATION.as_secs() + 77;
    let tickets = TicketKeys::derive(b"a secret", || NOW.load(Ordering::Relaxed));
    let contexts = contexts_with(site("f", ClientAuth::Off), &[], &ServerSettings::default(), &tickets);
    for (later, resumed) in [(0, true), (ROTATION.as_secs(), true), (ROTATION.as_secs() + 1, false)] {
        for client in clients() {
            NOW.store(START, Ordering::Relaxed);
            assert!(!come(&client, "a.test", &contexts));
            NOW.store(START + later, Ordering::Relaxed);
            assert_eq!(come(&client, "a.test", &contexts), resumed, "{later} s later");
        }
    }
}
