//! What happens to a datagram before a connection is known, and to connection IDs of a stranger's making.

use spooky::h3::cid::{CID_LEN, CidCoder};
use spooky::h3::tickets::TicketKeys;
use spooky::h3::{Endpoint, EndpointKeys, QuicSettings, Received, TlsContexts};
use spooky::identity::Identity;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

struct World {
    coder: CidCoder,
    endpoint: Endpoint,
    client: SocketAddr,
    server: SocketAddr,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new({
        let keys = EndpointKeys::derive(b"a secret for fuzzing");
        let identity = Identity::self_signed(&["fuzz.test"]).expect("a certificate");
        let tickets = TicketKeys::derive(b"a secret for fuzzing", || 0);
        let contexts = Arc::new(TlsContexts::single(&identity, &tickets).expect("contexts"));
        World {
            coder: CidCoder::new(&keys.cid).expect("AES"),
            endpoint: Endpoint::new(&QuicSettings::default(), &contexts, &keys, 3, 7).expect("an endpoint"),
            client: "192.0.2.1:4433".parse().expect("an address"),
            server: "192.0.2.2:443".parse().expect("an address"),
        }
    });
}

/// Bytes as a connection ID, and as a datagram.
pub fn connection_id(data: &[u8]) {
    WORLD.with_borrow_mut(|world| {
        for id in data.chunks(CID_LEN) {
            if let Some(cid) = world.coder.decode(id) {
                assert_eq!(world.coder.encode(cid), id, "an ID that reads as ours is the one we would make");
            }
        }
        let mut packet = data.to_vec();
        match world.endpoint.receive(&mut packet, world.client, world.server, Instant::now()) {
            Received::Connection(key) => {
                assert!(data.len() >= 1200, "a small datagram opened a connection");
                while world.endpoint.get_mut(key).is_some_and(|connection| connection.next_event().is_some()) {}
                world.endpoint.remove(key);
            }
            Received::Reply { len } => {
                let mut reply = vec![0; len];
                assert_eq!(world.endpoint.take_reply(&mut reply), len);
                assert!(len <= data.len(), "an answer larger than its question amplifies");
            }
            Received::InPlaceOf { .. } => panic!("nobody is there to make room"),
            Received::Elsewhere { .. } | Received::Dropped(_) => {}
        }
        assert!(world.endpoint.is_empty(), "a connection is left over");
    });
}
