//! What a request is kept together with: the number that hashing balancers look up.
//!
//! It is taken from the head as the client sent it, but for the path where the route rewrites that; before the rules of
//! forwarding change it, and once: every attempt of an exchange has the same.

use crate::balance::KeyedHash;
use crate::config::{Balancing, Generation, HashKey};
use crate::http::peer::{self, Peer};
use crate::http::{RequestHead, parameters};
use std::net::IpAddr;

/// Whom a request comes from.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The other side of the client's connection, by its validated path.
    pub peer: &'a Peer,
    /// What names the client's connection for as long as it lives, and no other one of the process.
    pub connection: [u8; 16],
}

/// The hash of what `balancing` keeps together. `None`: it keeps nothing together, or the request lacks its key.
pub fn affinity(
    generation: &Generation,
    balancing: &Balancing,
    head: &RequestHead,
    asker: Asker<'_>,
    hash: &KeyedHash,
) -> Option<u64> {
    match balancing {
        Balancing::RoundRobin
        | Balancing::Random
        | Balancing::LeastConnections
        | Balancing::TwoChoices
        | Balancing::LatencyAware => None,
        Balancing::StickyCid(_) => Some(hash.of(&asker.connection)),
        Balancing::ConsistentHash(key, _) => of_key(generation, key, head, asker, hash),
    }
}

fn of_key(
    generation: &Generation,
    key: &HashKey,
    head: &RequestHead,
    asker: Asker<'_>,
    hash: &KeyedHash,
) -> Option<u64> {
    let query = || head.target.path().and_then(|path| path.query());
    let bytes = match key {
        HashKey::Path => head.target.matched().map(str::as_bytes),
        HashKey::Authority => Some(head.host().as_bytes()),
        HashKey::Method => Some(head.method.as_str().as_bytes()),
        HashKey::Cid => Some(&asker.connection[..]),
        HashKey::PeerIp => return asker.peer.ip().map(|ip| of_address(ip, hash)),
        HashKey::ClientIp => {
            let client = |ip| peer::client_address(&head.fields, ip, |ip| generation.trusts(ip));
            return asker.peer.ip().map(|ip| of_address(client(ip), hash));
        }
        HashKey::BearerToken => parameters::bearer_token(&head.fields),
        HashKey::Header(name) => head.fields.find(name.as_bytes()),
        HashKey::Cookie(name) => parameters::cookie_value(&head.fields, name.as_bytes()),
        HashKey::Query(name) => query().and_then(|query| parameters::query_value_as_sent(query, name.as_bytes())),
    };
    // Nothing is what many have in common who have nothing in common.
    bytes.filter(|bytes| !bytes.is_empty()).map(|bytes| hash.of(bytes))
}

fn of_address(ip: IpAddr, hash: &KeyedHash) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => hash.of(&ip.octets()),
        IpAddr::V6(ip) => hash.of(&ip.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{UpstreamId, from_str};
    use crate::http::{HeadLimits, Scheme, WireRequest, WireVersion, normalize};

    /// What is asked in one story: fields of HTTP/3, the peer, the connection.
    type Request<'a> = (&'a [(&'a str, &'a str)], &'a str, u8);

    /// The number of a request under a key.
    fn number(key: &str, (more, peer, connection): Request<'_>) -> Option<u64> {
        let text = format!(
            "version = 1\n[listen]\nport = 443\n[routing]\ntrusted_proxies = [\"10.0.0.0/8\"]\n[upstream.a]\n\
             backends = [{{ id = \"b\", address = \"http://10.0.0.1:80\" }}]\nroute = {{ path_prefix = \"/\" }}\n\
             load_balancing = {{ type = \"consistent-hash\", key = \"{key}\" }}\n"
        );
        let (generation, _) = from_str("t", &text).expect("right");
        let usual = [(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/")];
        let fields = usual.iter().filter(|(name, _)| more.iter().all(|(other, _)| other != name)).chain(more);
        let fields = fields.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let mut pairs: Vec<_> = fields.collect();
        // Pseudo-fields come first.
        pairs.sort_by_key(|(name, _)| name[0] != b':');
        let wire = WireRequest { scheme: Scheme::Https, line: None, fields: pairs };
        let head = normalize::request(WireVersion::H3, wire, &HeadLimits::REQUEST).expect("a good head");
        let peer = Peer::new(Some(peer.parse().expect("an address")));
        let asker = Asker { peer: &peer, connection: [connection; 16] };
        let balancing = &generation.upstream(UpstreamId(0)).balancing;
        affinity(&generation, balancing, &head, asker, &KeyedHash::new([3; 16]))
    }

    const HERE: &str = "192.0.2.1";

    #[test]
    fn each_key_keeps_together_what_it_says_and_nothing_else() {
        // For each key: two requests that belong together, and one that does not.
        let stories: [(&str, Request<'_>, Request<'_>, Request<'_>); 14] = [
            (
                "path",
                (&[(":path", "/a//b?x=1")], HERE, 1),
                (&[(":path", "/a/b?x=2")], HERE, 2),
                (&[(":path", "/a")], HERE, 1),
            ),
            (
                "authority",
                (&[(":authority", "A.test:443"), (":path", "/x")], HERE, 1),
                (&[(":authority", "a.test.")], HERE, 2),
                (&[(":authority", "b.test")], HERE, 1),
            ),
            ("method", (&[(":method", "PUT")], HERE, 1), (&[(":method", "PUT")], HERE, 2), (&[], HERE, 1)),
            ("cid", (&[(":path", "/a")], HERE, 1), (&[], "192.0.2.9", 1), (&[(":path", "/a")], HERE, 2)),
            (
                "peer_ip",
                (&[("x-forwarded-for", "1.2.3.4")], "10.0.0.1", 1),
                (&[], "::ffff:10.0.0.1", 2),
                (&[], "10.0.0.2", 1),
            ),
            (
                "client_ip",
                (&[("x-forwarded-for", "9.9.9.9, 192.0.2.1")], "10.0.0.1", 1),
                (&[("x-forwarded-for", "9.9.9.9")], HERE, 2),
                (&[], "10.0.0.1", 1),
            ),
            ("client_ip", (&[], "2001:db8::1", 1), (&[], "2001:db8::1", 2), (&[], "2001:db8::2", 1)),
            (
                "bearer_token",
                (&[("authorization", "Bearer t1")], HERE, 1),
                (&[("authorization", "bearer t1"), (":path", "/x")], HERE, 2),
                (&[("authorization", "Bearer t2")], HERE, 1),
            ),
            (
                "header:X-Tenant",
                (&[("x-tenant", "a"), ("x-tenant", "c")], HERE, 1),
                (&[("x-tenant", "a")], HERE, 2),
                (&[("x-tenant", "b")], HERE, 1),
            ),
            (
                "header:accept",
                (&[("accept", "a")], HERE, 1),
                (&[("accept", "a")], HERE, 2),
                (&[("accept", "b")], HERE, 1),
            ),
            (
                "cookie:id",
                (&[("cookie", "x=1; id=7")], HERE, 1),
                (&[("cookie", "id=7")], HERE, 2),
                (&[("cookie", "x=1; id=8")], HERE, 1),
            ),
            (
                "query:user",
                (&[(":path", "/a?user=7&x=1")], HERE, 1),
                (&[(":path", "/b?y&user=7")], HERE, 2),
                (&[(":path", "/a?user=8&x=1")], HERE, 1),
            ),
            (
                "query:user%5Bid%5D",
                (&[(":path", "/a?user%5Bid%5D=7")], HERE, 1),
                (&[(":path", "/b?x&user%5Bid%5D=7")], HERE, 2),
                (&[(":path", "/a?user%5Bid%5D=%37")], HERE, 1),
            ),
            (
                "query:user",
                (&[(":path", "/?user=a")], HERE, 1),
                (&[(":path", "/?user=a&user=b")], HERE, 1),
                (&[(":path", "/?user=b&user=a")], HERE, 1),
            ),
        ];
        for (key, one, same, other) in stories {
            let of = |request| number(key, request).unwrap_or_else(|| panic!("{key}: {request:?} has it"));
            assert_eq!(of(one), of(same), "{key}");
            assert_ne!(of(one), of(other), "{key}");
        }
    }

    #[test]
    fn a_request_without_its_key_or_with_an_empty_one_has_no_number() {
        for (key, fields) in [
            ("bearer_token", &[("authorization", "Basic YWJj")][..]),
            ("bearer_token", &[]),
            ("header:x-tenant", &[("x-other", "a")]),
            ("header:x-tenant", &[("x-tenant", "")]),
            ("cookie:id", &[("cookie", "id=")]),
            ("cookie:id", &[]),
            ("query:user", &[(":path", "/?user")]),
            ("query:user", &[(":path", "/user=1")]),
            ("path", &[(":method", "OPTIONS"), (":path", "*")]),
        ] {
            assert_eq!(number(key, (fields, HERE, 1)), None, "{key}: {fields:?}");
        }
    }
}
