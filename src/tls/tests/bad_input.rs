//! Bytes that no honest peer sends: nothing panics, everything has a word, and what is held is bounded.

use super::support::*;
use crate::http::Output;
use crate::identity::ClientAuth;
use crate::limits::{TLS_EMPTY_RECORDS, TLS_RECORD_BYTES};
use crate::tls::{Acceptor, Fault, FaultKind, ServerContexts, ServerSession, Side};
use spooky_uring::Lease;
use std::sync::Arc;

fn contexts_of_one() -> Arc<ServerContexts> {
    contexts(site("a.test", ClientAuth::Off), &[])
}

fn shaken() -> Pair {
    Pair::shaken(&client(&trusting()), "a.test", &contexts_of_one())
}

fn give(server: &mut ServerSession, bytes: &[u8]) -> (Option<Fault>, Vec<u8>) {
    let mut out = Output::new();
    let fault = server.receive(Lease::from_vec(bytes.to_vec()), |_| panic!("content"), &mut out).err();
    (fault, bytes_of(out))
}

fn bytes_of(mut out: Output) -> Vec<u8> {
    bytes(&mut out)
}

fn fresh() -> ServerSession {
    ServerSession::new(&Acceptor::new(&contexts_of_one()))
}

#[test]
fn what_is_no_tls_is_said_at_its_first_byte() {
    for (bytes, kind) in [
        (&b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n"[..], FaultKind::PlainHttp),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", FaultKind::PlainHttp),
        (b"P", FaultKind::PlainHttp),
        (b"\x80\x2e\x01\x03\x01", FaultKind::NotTls),
        (b"\0", FaultKind::NotTls),
        (b"ssh", FaultKind::NotTls),
    ] {
        let mut server = fresh();
        let (fault, answer) = give(&mut server, bytes);
        let fault = fault.expect("a fault");
        assert_eq!((fault.kind, fault.tells, answer.is_empty()), (kind, false, true), "{}", bytes.escape_ascii());
        // Whatever follows is dropped.
        assert_eq!(give(&mut server, bytes), (None, Vec::new()));
        assert!(server.receive_end().is_ok() && server.waiting_bytes() == 0);
    }
}

#[test]
fn records_that_are_none_are_answered_with_an_alert() {
    for (bytes, kind) in [
        // An alert, a change_cipher_spec, application data, a hello of another kind, a cut hello.
        (&[23, 3, 3, 0, 1, 0][..], FaultKind::Malformed),
        (&[22, 3, 3, 0, 4, 2, 0, 0, 0], FaultKind::Malformed),
        (&[22, 3, 3, 0, 5, 1, 0, 0, 1, 0], FaultKind::Malformed),
    ] {
        let (fault, answer) = give(&mut fresh(), bytes);
        let fault = fault.expect("a fault");
        assert_eq!((fault.kind, fault.by, fault.tells), (kind, Side::Us, true), "{bytes:?} {fault}");
        assert_eq!((answer[0], answer.len()), (21, 7), "{bytes:?}");
    }
    let (fault, _) = give(&mut fresh(), &[21, 3, 3, 0, 2, 2, 40]);
    let fault = fault.expect("a fault");
    assert_eq!((fault.by, fault.alert, fault.tells), (Side::Peer, Some(40), false));
}

#[test]
fn a_hello_without_end_is_given_up() {
    let mut server = fresh();
    let (first, _) = give(&mut server, &[[22, 3, 1, 0x20, 0, 1, 0, 0x3f, 0].as_slice(), &[0; 1000]].concat());
    assert!(first.is_none() && server.is_handshaking() && server.waiting_bytes() == 1009);
    let (fault, _) = give(&mut server, &[vec![0; 0x2000 + 5 - 1009], vec![22, 3, 1, 0x20, 0]].concat());
    assert_eq!(fault.map(|fault| fault.kind), Some(FaultKind::TooLong));
    assert_eq!(server.waiting_bytes(), 0);
    // One that says so at once is not waited for.
    let (fault, _) = give(&mut fresh(), &[22, 3, 1, 0, 4, 1, 0xff, 0, 0]);
    assert_eq!(fault.map(|fault| fault.kind), Some(FaultKind::TooLong));
}

#[test]
fn a_changed_bit_ends_the_connection_and_nothing_of_its_record_is_handed_on() {
    for at in [5, 11, 20] {
        let mut pair = shaken();
        pair.client_sends(b"before");
        let good = bytes(&mut pair.to_server);
        pair.client_sends(b"a secret");
        let mut changed = bytes(&mut pair.to_server);
        changed[at] ^= 1;
        pair.to_server = output(&[good, changed].concat());
        pair.run();
        assert_eq!(pair.at_server, b"before");
        let fault = pair.server_fault.expect("a fault");
        assert_eq!((fault.kind, fault.tells), (FaultKind::BadRecord, true), "{fault}");
        let told = pair.client_fault.expect("an alert");
        assert_eq!((told.kind, told.alert, told.by), (FaultKind::BadRecord, Some(20), Side::Peer));
    }
}

#[test]
fn oversized_and_unknown_records_end_an_open_connection() {
    let over = u16::try_from(TLS_RECORD_BYTES - 5 + 1).unwrap().to_be_bytes();
    for (header, kind) in [
        ([23, 3, 3, over[0], over[1]], FaultKind::TooLong),
        ([23, 3, 3, 0xff, 0xff], FaultKind::TooLong),
        ([99, 3, 3, 0, 1], FaultKind::Malformed),
        ([23, 9, 9, 0, 1], FaultKind::Malformed),
    ] {
        for cut in [1, 5] {
            let mut pair = shaken();
            pair.cut = cut;
            pair.to_server = output(&[header.as_slice(), &[0; 100]].concat());
            pair.run();
            let fault = pair.server_fault.expect("a fault");
            assert_eq!(fault.kind, kind, "{header:?}");
            // What our own bound refuses and the library would not yet is closed without an alert.
            assert_eq!(fault.tells, pair.client_fault.is_some(), "{header:?}");
            assert_eq!(pair.server.waiting_bytes(), 0);
        }
    }
}

#[test]
fn a_stream_that_ends_without_a_word_is_known_as_cut() {
    let mut server = fresh();
    let fault = server.receive_end().unwrap_err();
    assert_eq!((fault.kind, fault.by), (FaultKind::Closed, Side::Peer));
    assert!(fault.text.contains("without a word"), "{fault}");

    let mut pair = Pair::new(&client(&trusting()), "a.test", &contexts_of_one());
    let hello = bytes(&mut pair.to_server);
    give(&mut pair.server, &hello[..20]);
    let fault = pair.server.receive_end().unwrap_err();
    assert!(fault.kind == FaultKind::Closed && fault.text.contains("hello"), "{fault}");
    assert_eq!(pair.client.receive_end().unwrap_err().kind, FaultKind::Closed);

    let mut pair = shaken();
    pair.client_sends(b"whole");
    pair.run();
    let fault = pair.server.receive_end().unwrap_err();
    assert_eq!((fault.kind, fault.by), (FaultKind::Truncated, Side::Peer));
    pair.server_sends(b"cut");
    let mut sent = bytes(&mut pair.to_client);
    sent.pop();
    pair.to_client = output(&sent);
    pair.run();
    assert!(pair.at_client.is_empty());
    let fault = pair.client.receive_end().unwrap_err();
    assert!(fault.kind == FaultKind::Truncated && fault.text.contains("middle of a record"), "{fault}");
}

#[test]
fn key_updates_are_followed_and_too_many_are_a_flood() {
    let mut pair = shaken();
    for _ in 0..20 {
        pair.client.update_keys();
        pair.client_sends(b"x");
        pair.server_sends(b"y");
        pair.run();
    }
    assert!(pair.is_fine());
    assert_eq!((pair.at_server.len(), pair.at_client.len()), (20, 20));
    // A byte in between resets the library's own count, not ours.
    for _ in 0..TLS_EMPTY_RECORDS {
        pair.client.update_keys();
        pair.client_sends(b"x");
        pair.run();
    }
    let fault = pair.server_fault.take().expect("a flood");
    assert_eq!((fault.kind, fault.by), (FaultKind::Flood, Side::Us));
    // Who has received much in between may change keys as often.
    let mut pair = shaken();
    let much = pattern(16 * 1024);
    for _ in 0..TLS_EMPTY_RECORDS + 10 {
        pair.client.update_keys();
        pair.client_sends(&much);
        pair.run();
    }
    assert!(pair.is_fine());
}

#[test]
fn any_changed_byte_of_a_handshake_is_survived() {
    let contexts = contexts_of_one();
    let context = client(&trusting());
    let hello = bytes(&mut Pair::new(&context, "a.test", &contexts).to_server);
    for at in 0..hello.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut changed = hello.clone();
            changed[at] = value;
            let mut server = ServerSession::new(&Acceptor::new(&contexts));
            let _ = server.receive(Lease::from_vec(changed), |_| panic!("content"), &mut Output::new());
            assert!(server.waiting_bytes() <= hello.len());
        }
    }
    // And what the server answers, for the client.
    let mut pair = Pair::new(&context, "a.test", &contexts);
    let mut answer = Output::new();
    let hello = bytes(&mut pair.to_server);
    pair.server.receive(Lease::from_vec(hello), |_| panic!("content"), &mut answer).unwrap();
    let answer = bytes(&mut answer);
    for at in 0..answer.len() {
        let mut pair = Pair::new(&context, "a.test", &contexts);
        let mut changed = answer.clone();
        changed[at] ^= 0x55;
        let _ = pair.client.receive(Lease::from_vec(changed), |_| panic!("content"), &mut pair.to_server);
        assert!(pair.client.is_handshaking() || pair.client.receive_end().is_ok());
    }
}
