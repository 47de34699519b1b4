//! What a request is counted by.
//!
//! A request that has not what a limit counts by (no such field, cookie or token) is counted by its client's address, apart
//! from those that are always counted so: who leaves a key out gets no way around the limit. Values are hashed whole and kept
//! nowhere.

use crate::http::{Fields, parameters};
use std::fmt;
use std::hash::Hasher;
use std::net::IpAddr;

/// What a limit counts requests by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CountBy {
    /// The client's address.
    Client,
    /// The route: everybody together.
    Route,
    /// The first field of this name, in lower case.
    Header(Box<str>),
    /// The first cookie of this name.
    Cookie(Box<str>),
    /// The token of `Authorization: Bearer` (RFC 6750 §2.1).
    Bearer,
}

impl fmt::Display for CountBy {
    /// As it is written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("client_ip"),
            Self::Route => f.write_str("route"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Bearer => f.write_str("bearer_token"),
        }
    }
}

/// How much of an address is one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Networks {
    /// Bits of an IPv4 address, at most 32.
    pub v4: u8,
    /// Bits of an IPv6 address, at most 128.
    pub v6: u8,
}

impl CountBy {
    /// What a request has of it; `None`: its client's address counts.
    #[inline]
    #[must_use]
    pub fn value<'a>(&self, fields: &'a Fields) -> Option<&'a [u8]> {
        let value = match self {
            Self::Client | Self::Route => None,
            Self::Header(name) => fields.find(name.as_bytes()),
            Self::Cookie(name) => parameters::cookie_value(fields, name.as_bytes()),
            Self::Bearer => parameters::bearer_token(fields),
        };
        // Nothing is what many have in common who have nothing in common.
        value.filter(|value| !value.is_empty())
    }

    /// Writes the key of a request into a hash.
    #[inline]
    pub(super) fn write(&self, fields: &Fields, client: IpAddr, networks: Networks, hash: &mut impl Hasher) {
        match self.value(fields) {
            Some(value) => {
                hash.write_u8(b'v');
                hash.write(value);
            }
            None => networks.write(client, hash),
        }
    }
}

impl Networks {
    fn write(self, client: IpAddr, hash: &mut impl Hasher) {
        // Shifting all bits out is no shift.
        match client.to_canonical() {
            IpAddr::V4(address) => {
                let bits = address.to_bits().checked_shr(32 - u32::from(self.v4.min(32))).unwrap_or(0);
                hash.write_u8(b'4');
                hash.write_u32(bits);
            }
            IpAddr::V6(address) => {
                let bits = address.to_bits().checked_shr(128 - u32::from(self.v6.min(128))).unwrap_or(0);
                hash.write_u8(b'6');
                hash.write_u128(bits);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::DefaultHasher;

    const USUAL: Networks = Networks { v4: 32, v6: 64 };

    fn key(by: &CountBy, fields: &[(&str, &str)], client: &str, networks: Networks) -> u64 {
        let mut section = Fields::new();
        for (name, value) in fields {
            section.push(name.as_bytes(), value.as_bytes());
        }
        let mut hash = DefaultHasher::new();
        by.write(&section, client.parse().expect("an address"), networks, &mut hash);
        hash.finish()
    }

    #[test]
    fn an_address_counts_as_far_as_its_prefix() {
        let by = |client, v4, v6| key(&CountBy::Client, &[("x-any", client)], client, Networks { v4, v6 });
        assert_eq!(by("192.0.2.1", 32, 64), by("::ffff:192.0.2.1", 32, 64));
        assert_ne!(by("192.0.2.1", 32, 64), by("192.0.2.2", 32, 64));
        assert_eq!(by("192.0.2.1", 24, 64), by("192.0.2.2", 24, 64));
        assert_eq!(by("192.0.2.1", 0, 64), by("203.0.113.9", 0, 64));
        assert_eq!(by("2001:db8::1", 32, 64), by("2001:db8::ffff", 32, 64));
        assert_ne!(by("2001:db8::1", 32, 64), by("2001:db8:0:1::1", 32, 64));
        assert_ne!(by("2001:db8::1", 32, 128), by("2001:db8::2", 32, 128));
        assert_eq!(by("2001:db8::1", 32, 0), by("fe80::1", 32, 0));
    }

    #[test]
    fn values_are_found_however_they_are_written() {
        let header = CountBy::Header("x-tenant".into());
        let same = |by: &CountBy, one: &[(&str, &str)], other: &[(&str, &str)]| {
            key(by, one, "192.0.2.1", USUAL) == key(by, other, "192.0.2.2", USUAL)
        };
        assert!(same(&header, &[("x-tenant", "a")], &[("x-other", "b"), ("x-tenant", "a"), ("x-tenant", "b")]));
        assert!(!same(&header, &[("x-tenant", "a")], &[("x-tenant", "b")]));

        let cookie = CountBy::Cookie("sid".into());
        assert!(same(&cookie, &[("cookie", "sid=a")], &[("cookie", "x=1; xsid=b;sid=a; sid=c")]));
        assert!(same(&cookie, &[("cookie", "x=1; sid=a")], &[("cookie", "x=2"), ("cookie", "sid=a")]));
        assert!(!same(&cookie, &[("cookie", "sid=a")], &[("cookie", "sid=a=")]));
        assert!(!same(&cookie, &[("cookie", "sid=a")], &[("cookie", "sid")]));

        let token = |value| [("authorization", value)];
        assert!(same(&CountBy::Bearer, &token("Bearer abc"), &token("bEARER  abc")));
        assert!(!same(&CountBy::Bearer, &token("Bearer abc"), &token("Bearer abd")));
    }

    #[test]
    fn they_are_told_as_they_are_written() {
        for (by, written) in [
            (CountBy::Client, "client_ip"),
            (CountBy::Route, "route"),
            (CountBy::Header("x-tenant".into()), "header:x-tenant"),
            (CountBy::Cookie("sid".into()), "cookie:sid"),
            (CountBy::Bearer, "bearer_token"),
        ] {
            assert_eq!(by.to_string(), written);
        }
    }

    #[test]
    fn without_a_value_the_address_counts() {
        for (by, without) in [
            (CountBy::Header("x-tenant".into()), &[("x-other", "a")][..]),
            (CountBy::Cookie("sid".into()), &[("cookie", "sidx=1; other=2")]),
            (CountBy::Bearer, &[("authorization", "Basic abc")]),
            (CountBy::Bearer, &[("authorization", "Bearer ")]),
            (CountBy::Bearer, &[("authorization", "Bear")]),
        ] {
            let [one, other, again] =
                ["192.0.2.1", "192.0.2.2", "192.0.2.1"].map(|client| key(&by, without, client, USUAL));
            assert!(one == again && one != other, "{by:?}");
            assert_ne!(one, key(&by, &[("x-tenant", "192.0.2.1"), ("cookie", "sid=1")], "192.0.2.9", USUAL));
        }
    }
}
