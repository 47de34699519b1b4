//! What the system says about names: /etc/resolv.conf (resolv.conf(5)) and /etc/hosts (hosts(5)).
//!
//! Both are read once, at the start, and at most [`limits::RESOLVER_FILE_BYTES`] of each. What is not understood is
//! skipped, as the system's own resolver does: other programs' settings stand there too.

use crate::limits;
use rustc_hash::FxHashMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

/// The usual place.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The usual place.
pub const HOSTS: &str = "/etc/hosts";

/// Dots from which on a name is first asked for as it is; and the most that can be set (resolv.conf(5)).
const NDOTS: (u32, u32) = (1, 15);
/// Seconds that can be set for one answer.
const TIMEOUT_MOST: u64 = 30;
/// Rounds that can be set.
const ATTEMPTS_MOST: u32 = 5;

/// /etc/resolv.conf, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvConf {
    /// In the order of the file; at most [`limits::RESOLVER_SERVERS`].
    pub servers: Vec<SocketAddr>,
    /// Domains that are tried behind a name; at most [`limits::RESOLVER_SEARCH`].
    pub search: Vec<Box<str>>,
    /// A name with so many dots is first tried as it is.
    pub ndots: u32,
    /// For one answer.
    pub timeout: Option<Duration>,
    /// Rounds over all servers.
    pub attempts: Option<u32>,
    /// Begin each question with another server.
    pub rotate: bool,
    /// Ask over TCP only (`use-vc`).
    pub stream_only: bool,
}

impl Default for ResolvConf {
    /// What holds without the file: the machine's own server.
    fn default() -> Self {
        Self {
            servers: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 53))],
            search: Vec::new(),
            ndots: NDOTS.0,
            timeout: None,
            attempts: None,
            rotate: false,
            stream_only: false,
        }
    }
}

impl ResolvConf {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Self {
        let mut conf = Self { servers: Vec::new(), ..Self::default() };
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // An address with a zone (`fe80::1%eth0`) is none that could be asked without knowing interfaces.
                    if let Some(ip) = words.next().and_then(|word| word.parse::<IpAddr>().ok())
                        && conf.servers.len() < limits::RESOLVER_SERVERS
                    {
                        conf.servers.push(SocketAddr::new(ip, 53));
                    }
                }
                // The last of these lines counts.
                Some("search") => conf.search = words.filter_map(domain).take(limits::RESOLVER_SEARCH).collect(),
                Some("domain") => conf.search = words.filter_map(domain).take(1).collect(),
                Some("options") => words.for_each(|word| conf.set(word)),
                _ => {}
            }
        }
        if conf.servers.is_empty() {
            conf.servers = Self::default().servers;
        }
        conf
    }

    fn set(&mut self, option: &str) {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        match (name, value.parse::<u32>()) {
            ("ndots", Ok(dots)) => self.ndots = dots.min(NDOTS.1),
            ("timeout", Ok(seconds)) => {
                self.timeout = Some(Duration::from_secs(u64::from(seconds).clamp(1, TIMEOUT_MOST)));
            }
            ("attempts", Ok(attempts)) => self.attempts = Some(attempts.clamp(1, ATTEMPTS_MOST)),
            ("rotate", _) => self.rotate = true,
            ("use-vc", _) => self.stream_only = true,
            _ => {}
        }
    }
}

/// A domain of the search list, in lower case; `.` stands for none.
fn domain(word: &str) -> Option<Box<str>> {
    let word = word.strip_suffix('.').unwrap_or(word);
    let fits = !word.is_empty() && word.len() <= limits::HOST_NAME_BYTES;
    fits.then(|| word.to_ascii_lowercase().into())
}

/// /etc/hosts.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    names: FxHashMap<Box<str>, Vec<IpAddr>>,
}

impl Hosts {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Self {
        let mut hosts = Self::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let Some(ip) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else {
                continue;
            };
            for name in words {
                let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
                let addresses = hosts.names.entry(name.into()).or_default();
                if !addresses.contains(&ip) && addresses.len() < limits::ENDPOINTS {
                    addresses.push(ip);
                }
            }
        }
        hosts
    }

    /// The addresses of a name in lower case, with or without the root's dot. `localhost` and what is below it is this
    /// machine, whatever the file says or does not say of them (RFC 6761 §6.3).
    pub fn find(&self, host: &str) -> Option<Vec<IpAddr>> {
        let host = host.strip_suffix('.').unwrap_or(host);
        match self.names.get(host) {
            Some(addresses) => Some(addresses.clone()),
            None if host == "localhost" || host.ends_with(".localhost") => {
                Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
            }
            None => None,
        }
    }
}

/// A text file, at most [`limits::RESOLVER_FILE_BYTES`] of it.
///
/// # Errors
/// When it cannot be read. One that is not there is empty.
pub fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(limits::RESOLVER_FILE_BYTES).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(conf: &ResolvConf) -> Vec<String> {
        conf.servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn servers_search_and_options_are_read() {
        let conf = ResolvConf::parse(
            "# by hand\n; too\nnameserver 10.0.0.2\nnameserver\tfd00::53   \nnameserver fe80::1%eth0\nnameserver nonsense\n\
             search Example.com. corp.example\noptions ndots:2 timeout:3 attempts:4 rotate edns0 trust-ad\n\
             options use-vc\nsortlist 1.2.3.4\n",
        );
        assert_eq!(servers(&conf), ["10.0.0.2:53", "[fd00::53]:53"]);
        assert_eq!(conf.search, ["example.com".into(), "corp.example".into()]);
        assert_eq!((conf.ndots, conf.timeout, conf.attempts), (2, Some(Duration::from_secs(3)), Some(4)));
        assert!(conf.rotate && conf.stream_only);
    }

    #[test]
    fn the_last_search_line_counts_and_values_have_bounds() {
        let conf = ResolvConf::parse(
            "search a.example b.example\ndomain c.example d.example\noptions ndots:99 timeout:0 attempts:99 ndots:x\n",
        );
        assert_eq!(conf.search, ["c.example".into()]);
        assert_eq!((conf.ndots, conf.timeout, conf.attempts), (15, Some(Duration::from_secs(1)), Some(5)));
        let none = ResolvConf::parse("search a.example\nsearch .\n");
        assert!(none.search.is_empty());
    }

    #[test]
    fn without_a_server_it_is_the_machines_own() {
        assert_eq!(ResolvConf::parse(""), ResolvConf::default());
        assert_eq!(servers(&ResolvConf::parse("nameserver x\n")), ["127.0.0.1:53"]);
    }

    #[test]
    fn more_servers_and_domains_than_the_bounds_are_left_out() {
        let many: String = (0..20).map(|n| format!("nameserver 10.0.0.{n}\n")).collect();
        let search: String = (0..40).map(|n| format!(" d{n}.example")).collect();
        let conf = ResolvConf::parse(&format!("{many}search{search}\n"));
        assert_eq!((conf.servers.len(), conf.search.len()), (limits::RESOLVER_SERVERS, limits::RESOLVER_SEARCH));
    }

    #[test]
    fn hosts_have_names_in_any_case_and_several_addresses() {
        let hosts = Hosts::parse(
            "127.0.0.1 localhost\n10.0.0.1\tApp.Internal app # app2\n\n10.0.0.2 app.internal.\n10.0.0.1 app.internal\n\
             fd00::1 app.internal\nfe80::1%lo0 app.internal\nnonsense app.internal\n",
        );
        let find = |host: &str| {
            hosts.find(host).map(|found| found.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap_or_default()
        };
        assert_eq!(find("app.internal"), ["10.0.0.1", "10.0.0.2", "fd00::1"]);
        assert_eq!(find("app.internal."), ["10.0.0.1", "10.0.0.2", "fd00::1"]);
        assert_eq!(find("app"), ["10.0.0.1"]);
        assert_eq!(hosts.find("app2"), None);
        assert_eq!(find("localhost"), ["127.0.0.1"]);
        assert_eq!(find("a.localhost"), ["127.0.0.1", "::1"]);
        assert_eq!(hosts.find("notlocalhost"), None);
    }

    #[test]
    fn a_name_has_at_most_so_many_addresses() {
        let text: String = (0..200).map(|n| format!("10.0.0.{n} many\n")).collect();
        assert_eq!(Hosts::parse(&text).find("many").map(|found| found.len()), Some(limits::ENDPOINTS));
    }

    #[test]
    fn a_file_that_is_not_there_is_empty_and_a_long_one_is_cut() {
        assert_eq!(read(Path::new("/nonexistent/resolv.conf")).unwrap(), "");
        assert!(read(Path::new("/")).is_err());
        let endless = read(Path::new("/dev/zero")).unwrap();
        assert_eq!(endless.len() as u64, limits::RESOLVER_FILE_BYTES);
    }
}
