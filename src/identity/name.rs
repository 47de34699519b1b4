//! Owns the form of a server name in the configuration: one host, or every host one label below another.

use std::fmt;

/// Bytes of a host name at most (RFC 1035 §2.3.4, without the root's dot).
pub const NAME_BYTES_MAX: usize = 253;

/// Which names in a client's hello (RFC 6066 §3) an identity is for. In lower case, without a trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServerName {
    /// This host.
    Exact(Box<str>),
    /// Every host of one more label than this one: `example.com` stands for `*.example.com`.
    Wildcard(Box<str>),
}

impl ServerName {
    /// Reads `www.example.com` or `*.example.com`.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (wildcard, host) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.contains('*') {
            return Err("`*` can only be the whole first label");
        }
        // RFC 6066 §3: clients send no addresses.
        if host.parse::<std::net::IpAddr>().is_ok() || host.starts_with('[') {
            return Err("clients send host names only, never addresses");
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if host.len() > NAME_BYTES_MAX || !host.split('.').all(label) {
            return Err("this is not a host name");
        }
        let host = host.to_ascii_lowercase().into();
        Ok(if wildcard { Self::Wildcard(host) } else { Self::Exact(host) })
    }

    /// Whether a name of a certificate (a dNSName, RFC 6125 §6.4) stands for all hosts that this one stands for.
    pub fn is_covered_by(&self, certified: &str) -> bool {
        let certified = certified.strip_suffix('.').unwrap_or(certified);
        match self {
            Self::Exact(host) => {
                certified.eq_ignore_ascii_case(host)
                    || match (certified.strip_prefix("*."), host.split_once('.')) {
                        (Some(parent), Some((_, below))) => parent.eq_ignore_ascii_case(below),
                        _ => false,
                    }
            }
            Self::Wildcard(parent) => {
                certified.strip_prefix("*.").is_some_and(|certified| certified.eq_ignore_ascii_case(parent))
            }
        }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_one_spelling() {
        let shown = |text: &str| ServerName::parse(text).map(|name| name.to_string());
        assert_eq!(shown("WWW.Example.com."), Ok("www.example.com".to_owned()));
        assert_eq!(shown("*.Example.com"), Ok("*.example.com".to_owned()));
        assert_eq!(shown("localhost"), Ok("localhost".to_owned()));
        assert_eq!(shown("xn--bcher-kva.test"), Ok("xn--bcher-kva.test".to_owned()));
        for bad in
            ["", ".", "*", "*.", "a..b", "a.*.b", "-a.b", "a b", "a:1", "127.0.0.1", "[::1]", "::1", "*.10.0.0.1"]
        {
            assert!(ServerName::parse(bad).is_err(), "{bad}");
        }
        assert!(ServerName::parse(&"a.".repeat(127)).is_ok());
        assert!(ServerName::parse(&"a.".repeat(128)).is_err());
        assert!(ServerName::parse(&"a".repeat(64)).is_err());
    }

    #[test]
    fn certificates_cover_names_as_clients_judge_it() {
        let covered = |name: &str, certified| ServerName::parse(name).unwrap().is_covered_by(certified);
        assert!(covered("a.test", "A.test"));
        assert!(covered("a.b.test", "*.b.test"));
        assert!(covered("*.b.test", "*.B.test"));
        assert!(!covered("a.test", "b.test"));
        assert!(!covered("a.a.b.test", "*.b.test"));
        assert!(!covered("b.test", "*.b.test"));
        assert!(!covered("*.b.test", "a.b.test"));
        assert!(!covered("*.a.b.test", "*.b.test"));
    }
}
