//! Bytes in both directions: cuts, record sizes, copies, memory.

use super::support::*;
use crate::http::Output;
use crate::identity::ClientAuth;
use crate::limits::TLS_RECORD_BYTES;
use crate::tls::{Alpn, ClientContext, MinVersion, ServerSettings};
use rustls::crypto::ring;
use spooky_uring::{Chunk, Lease};
use std::sync::Arc;

/// Lengths of the records in `bytes`, headers included.
fn records(mut bytes: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while !bytes.is_empty() {
        let length = 5 + usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
        lengths.push(length);
        bytes = &bytes[length..];
    }
    lengths
}

#[test]
fn bytes_cross_unharmed_however_the_stream_is_cut() {
    let contexts = contexts(site("a.test", ClientAuth::Off), &[]);
    let (up, down) = (pattern(100_001), pattern(70_003));
    for (client, version) in [(client(&trusting()), "TLSv1.3"), (old_client(), "TLSv1.2")] {
        for cut in [1, 3, 5, 22, 1_000, 16_383, 16_389, 16_406, 50_000, 65_536, usize::MAX] {
            let mut pair = Pair::new(&client, "a.test", &contexts);
            pair.cut = cut;
            pair.run();
            assert!(pair.is_fine() && !pair.server.is_handshaking() && !pair.client.is_handshaking(), "{cut}");
            assert_eq!((pair.server.alpn(), pair.client.alpn()), (Some(Alpn::H2), Some(Alpn::H2)));
            let told = pair.server.handshake();
            assert_eq!((told.version, &*told.server_name), (version, "a.test"));
            assert!(told.cipher.starts_with("TLS_") && !told.cipher.starts_with("TLS13"), "{}", told.cipher);
            assert_eq!(pair.client.handshake().cipher, told.cipher);
            if !told.resumed {
                assert_eq!((told.group, pair.client.handshake().group), ("X25519", "X25519"));
            }
            pair.client_sends(&up);
            pair.server_sends(&down);
            pair.run();
            assert!(pair.at_server == up && pair.at_client == down, "{version} {cut}");
            // Nothing is held of a connection that is idle.
            assert_eq!((pair.server.waiting_bytes(), pair.client.waiting_bytes()), (0, 0));
        }
    }
}

#[test]
fn records_of_every_cipher_are_opened_where_they_stand() {
    let contexts = contexts(site("a.test", ClientAuth::Off), &[]);
    for suite in ring::ALL_CIPHER_SUITES {
        let provider = rustls::crypto::CryptoProvider { cipher_suites: vec![*suite], ..ring::default_provider() };
        let verifier = Arc::new(crate::tls::verdict::Anyone::new(crate::tls::settings::provider()));
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[suite.version()])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        let mut pair = Pair::shaken(&ClientContext::of(config), "a.test", &contexts);
        if pair.server_fault.is_some() {
            // Suites with RSA signatures find no key here.
            assert!(format!("{:?}", suite.suite()).contains("RSA"), "{suite:?}");
            continue;
        }
        let sent = pattern(40_000);
        pair.client_sends(&sent);
        let bytes = bytes(&mut pair.to_server);
        let memory = bytes.as_ptr_range();
        let mut chunks = Vec::new();
        pair.server.receive(Lease::from_vec(bytes), |chunk| chunks.push(chunk), &mut pair.to_client).unwrap();
        assert_eq!(chunks.len(), 3, "one piece for each record: {suite:?}");
        assert!(chunks.iter().all(|chunk| memory.contains(&chunk.as_ptr())), "{suite:?}");
        assert!(chunks.iter().flat_map(|chunk| chunk.to_vec()).eq(sent), "{suite:?}");
    }
}

#[test]
fn small_pieces_share_a_record_and_large_ones_fill_theirs() {
    let contexts = contexts(site("a.test", ClientAuth::Off), &[]);
    let mut pair = Pair::shaken(&client(&trusting()), "a.test", &contexts);
    let mut sealed = |pieces: &[usize]| {
        let mut plain = Output::new();
        pieces.iter().for_each(|length| plain.push(Chunk::from_vec(pattern(*length))));
        pair.server.send(&mut plain, &mut pair.to_client).unwrap();
        assert!(plain.is_empty());
        let bytes = bytes(&mut pair.to_client);
        let lengths = records(&bytes);
        pair.client
            .receive(Lease::from_vec(bytes), |chunk| pair.at_client.extend_from_slice(&chunk), &mut pair.to_server)
            .unwrap();
        let expected: Vec<u8> = pieces.iter().flat_map(|length| pattern(*length)).collect();
        assert!(std::mem::take(&mut pair.at_client) == expected, "{pieces:?}");
        lengths
    };
    const AROUND: usize = 22;
    assert_eq!(sealed(&[1]), [1 + AROUND]);
    assert_eq!(sealed(&[300, 1024]), [1324 + AROUND]);
    assert_eq!(sealed(&[600; 10]), [6000 + AROUND]);
    assert_eq!(sealed(&[600; 40]), [16_352 + AROUND, 24_000 - 16_352 + AROUND]);
    // A head in front of a large body goes by itself; the rest of the body waits for what follows.
    assert_eq!(sealed(&[300, 20_000, 600]), [300 + AROUND, 16_352 + AROUND, 20_000 - 16_352 + 600 + AROUND]);
    assert_eq!(sealed(&[65_536]), [16_374, 16_374, 16_374, 16_374, 65_536 - 4 * 16_352 + AROUND]);
    for most in sealed(&[500_000, 5, 4096, 4095, 16_352, 16_353]) {
        assert!(most <= TLS_RECORD_BYTES);
    }
}

#[test]
fn small_records_of_one_read_come_as_one_piece() {
    let contexts = contexts(site("a.test", ClientAuth::Off), &[]);
    let mut pair = Pair::shaken(&client(&trusting()), "a.test", &contexts);
    let sent = pattern(300);
    for byte in &sent {
        pair.client_sends(&[*byte]);
    }
    let mut chunks = Vec::new();
    let read = Lease::from_vec(bytes(&mut pair.to_server));
    pair.server.receive(read, |chunk| chunks.push(chunk.to_vec()), &mut pair.to_client).unwrap();
    assert_eq!(chunks, [sent]);
}

#[test]
fn nothing_is_sent_before_the_handshake_is_done() {
    let contexts = contexts(site("a.test", ClientAuth::Off), &[]);
    let mut pair = Pair::new(&client(&trusting()), "a.test", &contexts);
    let (mut up, mut down) = (output(b"up"), output(b"down"));
    pair.server.send(&mut down, &mut pair.to_client).unwrap();
    let hello = pair.to_server.len();
    pair.client.send(&mut up, &mut pair.to_server).unwrap();
    assert_eq!((up.len(), down.len(), pair.to_client.len(), pair.to_server.len()), (2, 4, 0, hello));
    pair.run();
    pair.client.send(&mut up, &mut pair.to_server).unwrap();
    pair.server.send(&mut down, &mut pair.to_client).unwrap();
    pair.run();
    assert_eq!((pair.at_server.as_slice(), pair.at_client.as_slice()), (&b"up"[..], &b"down"[..]));
}

#[test]
fn each_direction_ends_by_itself() {
    let contexts = contexts(site("a.test", ClientAuth::Off), &[]);
    for client in [client(&trusting()), old_client()] {
        let mut pair = Pair::shaken(&client, "a.test", &contexts);
        pair.client_sends(b"the last words");
        pair.client.close_notify(&mut pair.to_server);
        pair.run();
        assert_eq!(pair.at_server, b"the last words");
        assert!(pair.server.peer_closed() && pair.server.receive_end().is_ok());
        // The server goes on, and the client still hears it.
        pair.server_sends(b"an answer");
        pair.server.close_notify(&mut pair.to_client);
        pair.server.close_notify(&mut pair.to_client);
        pair.run();
        assert_eq!(pair.at_client, b"an answer");
        assert!(pair.client.peer_closed() && pair.client.receive_end().is_ok() && pair.is_fine());
        // What comes behind the end is nobody's.
        pair.server.receive(Lease::from_vec(b"more".to_vec()), |_| panic!("content"), &mut pair.to_client).unwrap();
        // And what is said behind one's own is not said.
        let mut late = output(b"late");
        pair.client.send(&mut late, &mut pair.to_server).unwrap();
        assert_eq!((late.len(), pair.to_server.len()), (4, 0));
    }
}

#[test]
fn version_and_protocol_are_those_in_common_in_our_order() {
    let h1_first = ServerSettings { protocols: vec![Alpn::H1, Alpn::H2], ..ServerSettings::default() };
    let only_13 = ServerSettings { min_version: MinVersion::Tls13, ..ServerSettings::default() };
    let with = |settings: &ServerSettings| contexts_with(site("a", ClientAuth::Off), &[], settings, &tickets());
    let pair = Pair::shaken(&client(&trusting()), "a.test", &with(&h1_first));
    assert_eq!(pair.server.alpn(), Some(Alpn::H1));
    let mut silent = trusting();
    silent.protocols.clear();
    let pair = Pair::shaken(&client(&silent), "a.test", &with(&h1_first));
    assert!(pair.is_fine() && pair.server.alpn().is_none() && pair.client.alpn().is_none());
    let pair = Pair::shaken(&old_client(), "a.test", &with(&only_13));
    let (server, client_side) = (pair.server_fault.unwrap(), pair.client_fault.unwrap());
    assert_eq!((server.kind.word(), server.tells, client_side.kind.word()), ("version", true, "version"));
    let only_h2 = ServerSettings { protocols: vec![Alpn::H2], ..ServerSettings::default() };
    let mut h1 = trusting();
    h1.protocols = vec![Alpn::H1];
    let pair = Pair::shaken(&client(&h1), "a.test", &with(&only_h2));
    let (server, client_side) = (pair.server_fault.unwrap(), pair.client_fault.unwrap());
    assert_eq!((server.kind.word(), client_side.kind.word()), ("no_protocol", "no_protocol"));
    assert_eq!(client_side.alert, Some(120));
}
