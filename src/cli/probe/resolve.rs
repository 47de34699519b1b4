//! From a host to its addresses, in bounded time.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Addresses that are tried at most.
const ADDRESSES: usize = 16;

/// Which addresses are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Any,
    V4,
    V6,
}

impl Family {
    fn takes(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }

    fn of_name(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::V4 => "IPv4 ",
            Self::V6 => "IPv6 ",
        }
    }
}

/// Where a host is.
#[derive(Debug)]
pub(super) struct Resolved {
    /// At least one.
    pub addresses: Vec<SocketAddr>,
    /// How long the system took; `None`: it was not asked.
    pub took: Option<Duration>,
}

/// Why there is no address.
#[derive(Debug)]
pub(super) enum ResolveError {
    /// The system said so.
    Unknown(String),
    /// The system said nothing.
    Late,
}

/// Keeps the wanted ones of `known`, or asks the system, at most `limit`.
pub(super) fn resolve(
    host: &str,
    port: u16,
    known: &[IpAddr],
    family: Family,
    limit: Duration,
) -> Result<Resolved, ResolveError> {
    let began = Instant::now();
    let addresses = if known.is_empty() {
        ask_system(host.to_owned(), port, limit)?
    } else {
        known.iter().map(|address| SocketAddr::new(*address, port)).collect()
    };
    let mut kept: Vec<SocketAddr> = Vec::new();
    for address in addresses {
        if family.takes(address.ip()) && !kept.contains(&address) && kept.len() < ADDRESSES {
            kept.push(address);
        }
    }
    if kept.is_empty() {
        return Err(ResolveError::Unknown(format!("it has no {}address", family.of_name())));
    }
    Ok(Resolved { addresses: kept, took: known.is_empty().then(|| began.elapsed()) })
}

/// getaddrinfo has no time limit of its own: a thread that is left behind has one.
fn ask_system(host: String, port: u16, limit: Duration) -> Result<Vec<SocketAddr>, ResolveError> {
    let (answer, answered) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("resolve".to_owned()).spawn(move || {
        let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // Nobody waits any more when the time is over.
        let _ = answer.send(found);
    });
    thread.map_err(|error| ResolveError::Unknown(error.to_string()))?;
    match answered.recv_timeout(limit) {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(ResolveError::Unknown(error.to_string())),
        Err(_) => Err(ResolveError::Late),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn known_addresses_are_not_asked_for() {
        let known: Vec<IpAddr> = vec!["192.0.2.7".parse().unwrap(), "::1".parse().unwrap(), "::1".parse().unwrap()];
        let found = |family| resolve("no.such.name.invalid", 9, &known, family, LIMIT).unwrap();
        assert_eq!(found(Family::Any).addresses.len(), 2);
        assert_eq!(found(Family::V4).addresses, ["192.0.2.7:9".parse().unwrap()]);
        assert_eq!(found(Family::V6).addresses, ["[::1]:9".parse().unwrap()]);
        assert!(found(Family::Any).took.is_none());
        let none = resolve("a", 9, &known[..1], Family::V6, LIMIT);
        assert!(matches!(none, Err(ResolveError::Unknown(why)) if why.contains("no IPv6 address")));
    }

    #[test]
    fn at_most_so_many_are_tried() {
        let known: Vec<IpAddr> = (0..100).map(|last| IpAddr::from([192, 0, 2, last])).collect();
        assert_eq!(resolve("a", 9, &known, Family::Any, LIMIT).unwrap().addresses.len(), ADDRESSES);
    }

    #[test]
    fn the_system_knows_this_machine() {
        let found = resolve("localhost", 9, &[], Family::Any, LIMIT).unwrap();
        assert!(found.addresses.iter().all(|address| address.ip().is_loopback()), "{found:?}");
        assert!(found.took.is_some());
    }
}
