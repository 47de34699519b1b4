//! Compiled values as an operator writes them: the way back from the generation to the words of the file.

use std::fmt;

use super::generation::{Balancing, HashKey};
use super::keys::BalancingType;

impl Balancing {
    /// Its `type`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        let word = match self {
            Self::RoundRobin => BalancingType::RoundRobin,
            Self::Random => BalancingType::Random,
            Self::LeastConnections => BalancingType::LeastConnections,
            Self::TwoChoices => BalancingType::PowerOfTwoChoices,
            Self::LatencyAware => BalancingType::LatencyAware,
            Self::ConsistentHash(..) => BalancingType::ConsistentHash,
            Self::StickyCid(_) => BalancingType::StickyCid,
        };
        word.as_str()
    }
}

impl fmt::Display for HashKey {
    /// As it is written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path => f.write_str("path"),
            Self::Authority => f.write_str("authority"),
            Self::Method => f.write_str("method"),
            Self::Cid => f.write_str("cid"),
            Self::PeerIp => f.write_str("peer_ip"),
            Self::ClientIp => f.write_str("client_ip"),
            Self::BearerToken => f.write_str("bearer_token"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Balancing, UpstreamId, from_str};

    #[test]
    fn what_is_written_comes_back() {
        for (kind, key) in [
            ("round-robin", None),
            ("random", None),
            ("least-connections", None),
            ("power-of-two-choices", None),
            ("latency-aware", None),
            ("sticky-cid", None),
            ("consistent-hash", Some("path")),
            ("consistent-hash", Some("authority")),
            ("consistent-hash", Some("method")),
            ("consistent-hash", Some("cid")),
            ("consistent-hash", Some("peer_ip")),
            ("consistent-hash", Some("client_ip")),
            ("consistent-hash", Some("bearer_token")),
            ("consistent-hash", Some("header:x-tenant")),
            ("consistent-hash", Some("cookie:SID")),
            ("consistent-hash", Some("query:user")),
        ] {
            let key_line = key.map_or_else(String::new, |key| format!(", key = \"{key}\""));
            let text = format!(
                "version = 1\n[listen]\n[upstream.a]\nbackends = [{{ id = \"b\", address = \"http://10.0.0.1:80\" }}]\n\
                 route = {{}}\nload_balancing = {{ type = \"{kind}\"{key_line} }}\n"
            );
            let (generation, _) = from_str("t", &text).unwrap_or_else(|wrong| panic!("{wrong}"));
            let balancing = &generation.upstream(UpstreamId(0)).balancing;
            assert_eq!(balancing.as_str(), kind);
            let told = match balancing {
                Balancing::ConsistentHash(key, _) => Some(key.to_string()),
                _ => None,
            };
            assert_eq!(told.as_deref(), key);
        }
    }
}
