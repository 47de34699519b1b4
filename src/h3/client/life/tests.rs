//! The client against datagrams that no server sent; against servers it stands in the end-to-end tests.

use super::*;
use crate::h3::tests::support;
use crate::h3::{QuicSettings, Received};

fn client(host: &str) -> Client<'_> {
    let (to, local) = ("127.0.0.1:9".parse().unwrap(), "127.0.0.1:10".parse().unwrap());
    Client::new(ClientRequest::get(to, host, "a.net", "/", Trust::Anyone(&[])), local).unwrap()
}

/// A small xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn the_first_flight_is_padded_and_leaves_from_the_first_path() {
    let mut client = client("a.net");
    let mut out = [0; SEND_BYTES];
    let mut datagrams = 0;
    while let Some((len, from)) = client.transmit(&mut out).unwrap() {
        // RFC 9000 section 14.1.
        assert!(len >= 1200, "{len}");
        assert_eq!(from, "127.0.0.1:10".parse().unwrap());
        datagrams += 1;
    }
    // The hybrid key share does not fit one.
    assert_eq!(datagrams, 2);
    assert!(client.facts().tls.is_none() && client.facts().round_trip.is_none());
}

/// nginx ends the handshake of a client that announces more than UDP carries.
#[test]
fn the_payload_that_a_client_announces_is_one_that_udp_carries() {
    let mut client = client("example.test");
    let mut server = support::endpoint(&QuicSettings::default());
    let mut out = [0; SEND_BYTES];
    let mut key = None;
    while let Some((len, _)) = client.transmit(&mut out).unwrap() {
        match support::receive(&mut server, &out[..len]) {
            Received::Connection(connection) => key = Some(connection),
            other => panic!("{other:?}"),
        }
    }
    let connection = server.get_mut(key.unwrap()).unwrap();
    assert_eq!(connection.quic.peer_transport_params().unwrap().max_udp_payload_size, 65_527);
}

#[test]
fn nonsense_is_no_answer() {
    let mut random = Random(0x5eed);
    let mut client = client("a.net");
    let mut first = vec![0; SEND_BYTES];
    let (_, local) = client.transmit(&mut first).unwrap().unwrap();
    for round in 0..5000 {
        let mut datagram: Vec<u8> = (0..random.next() % 1500).map(|_| random.next() as u8).collect();
        match round % 4 {
            // Our own packets, damaged: the long header is right, the rest is not.
            0 => {
                datagram.clone_from(&first);
                let at = random.next() as usize % datagram.len();
                datagram[at] ^= 1 << (random.next() % 8);
            }
            // Version negotiation and Retry with connection IDs that are not ours.
            1 if datagram.len() > 6 => datagram[..5].copy_from_slice(&[0xc0, 0, 0, 0, 0]),
            2 if datagram.len() > 6 => datagram[..5].copy_from_slice(&[0xf0, 0, 0, 0, 1]),
            _ => {}
        }
        match client.receive(&mut datagram, local) {
            Ok(()) => {}
            // The library gives a connection up for some packets that it could have dropped.
            Err(ClientError::Protocol(_)) => {
                client = self::client("a.net");
                while client.transmit(&mut first).unwrap().is_some() {}
            }
            Err(error) => panic!("round {round}: {error}"),
        }
        assert_eq!(client.stage(), Stage::Connecting);
        assert!(!client.facts().retry, "a Retry that is not for us counts for nothing");
    }
}

#[test]
fn a_name_is_asked_for_and_an_address_is_not() {
    let named = |host| client(host).quic.server_name().map(str::to_owned);
    assert_eq!(named("a.net").as_deref(), Some("a.net"));
    assert_eq!((named("192.0.2.7"), named("2001:db8::7")), (None, None));
}

#[test]
fn a_session_that_is_nonsense_is_an_error() {
    let (to, local) = ("127.0.0.1:9".parse().unwrap(), "127.0.0.1:10".parse().unwrap());
    let mut request = ClientRequest::get(to, "a.net", "a.net", "/", Trust::Authorities(b""));
    request.session = Some(b"nonsense");
    assert!(Client::new(request.clone(), local).is_err());
    request.session = None;
    request.trust = Trust::Authorities(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert!(Client::new(request, local).is_err());
}
