//! The URL of a probe: which host and port, and which path, byte by byte as it was typed.

use crate::http::authority::Authority;
use std::net::IpAddr;

/// The port of `https`.
const PORT: u16 = 443;

/// Bytes of a URL at most.
const URL_BYTES: usize = 64 << 10;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    host: String,
    /// The UDP port.
    pub port: u16,
    /// Path and query.
    pub path: String,
}

impl Target {
    /// Reads `https://HOST[:PORT][/PATH][?QUERY]`; the scheme may be left out.
    ///
    /// # Errors
    /// What is wrong. The URL is not repeated: it may hold a password.
    pub(super) fn parse(url: &str) -> Result<Self, &'static str> {
        if url.len() > URL_BYTES {
            return Err("longer than 64 KiB");
        }
        if !url.bytes().all(|byte| (0x21..0x7f).contains(&byte)) {
            return Err("only visible ASCII: write other characters as %XX, and a name in its xn-- form");
        }
        let rest = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => rest,
            Some(_) => return Err("HTTP/3 knows https:// only"),
            None => url,
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err("no user and password in the URL: write -H 'authorization: Basic …' instead");
        }
        let authority =
            Authority::parse(authority.as_bytes()).filter(|one| !one.host().is_empty()).ok_or("no host there")?;
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        if authority.port() == Some(0) {
            return Err("0 is no port");
        }
        Ok(Self { host: authority.host().to_owned(), port: authority.port().unwrap_or(PORT), path })
    }

    /// The host in its one spelling; an IPv6 address stands in brackets.
    pub(super) fn host_text(&self) -> &str {
        &self.host
    }

    /// The name, or the address without brackets: whom the certificate has to name.
    pub(super) fn host(&self) -> &str {
        self.host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(&self.host)
    }

    /// The address, if the host is one.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.host().parse().ok()
    }

    /// `host[:port]`, without the usual port.
    pub(super) fn authority(&self) -> String {
        if self.port == PORT { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    /// The whole in its one spelling.
    pub(super) fn url(&self) -> String {
        format!("https://{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> (String, u16, String, String) {
        let target = Target::parse(url).unwrap_or_else(|why| panic!("{url}: {why}"));
        (target.host().to_owned(), target.port, target.path.clone(), target.authority())
    }

    #[test]
    fn urls_are_read() {
        let is = |url: &str, host: &str, port: u16, path: &str, authority: &str| {
            assert_eq!(parsed(url), (host.to_owned(), port, path.to_owned(), authority.to_owned()), "{url}");
        };
        is("https://example.net", "example.net", 443, "/", "example.net");
        is("example.net:8443/a", "example.net", 8443, "/a", "example.net:8443");
        is("HTTPS://Example.NET.:443/", "example.net", 443, "/", "example.net");
        is("https://example.net?q=1#part", "example.net", 443, "/?q=1", "example.net");
        is("https://example.net/%2e%2E//x?a=/b#c", "example.net", 443, "/%2e%2E//x?a=/b", "example.net");
        is("https://127.0.0.1:9889/", "127.0.0.1", 9889, "/", "127.0.0.1:9889");
        is("https://[2001:DB8:0::1]/", "2001:db8::1", 443, "/", "[2001:db8::1]");
        is("https://[::1]:9889/x", "::1", 9889, "/x", "[::1]:9889");
        assert_eq!(Target::parse("https://[::1]/").unwrap().address(), Some("::1".parse().unwrap()));
        assert_eq!(Target::parse("https://a.net/").unwrap().address(), None);
        assert_eq!(Target::parse("A.net?x").unwrap().url(), "https://a.net/?x");
    }

    #[test]
    fn urls_are_refused() {
        for bad in [
            "",
            "https://",
            "https:///path",
            "http://example.net/",
            "ftp://example.net/",
            "https://exa mple.net/",
            "https://example.net/ü",
            "https://example.net:99999/",
            "https://example.net:0/",
            "https://example.net:x/",
            "https://[::1/",
            "https://::1/",
            "https://user:hush@example.net/",
            "https://example.net/\u{1b}[31m",
        ] {
            let why = Target::parse(bad).unwrap_err();
            assert!(!why.contains("hush"), "{why}");
        }
        assert!(Target::parse(&format!("https://a/{}", "x".repeat(URL_BYTES))).is_err());
    }
}
