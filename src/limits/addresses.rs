//! Owns what one address may open: connections at once, and new ones per second. Off unless an operator sets them.
//!
//! Only an address that has proved itself is charged, by a token, a completed handshake or a TCP connection: nobody can use up
//! the share of another by writing its address on packets. An IPv6 client is its /64, since it has all of that to choose from.
//!
//! The table is bounded. An entry leaves it only when it says nothing any more: no connection is open and the rate's credit
//! is whole again. So filling the table frees nobody; addresses that find no room are not limited, and counted.

use super::quic::ADDRESSES;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// New connections over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In the long run.
    pub per_second: u32,
    /// At once, after a pause; at least 1.
    pub burst: u32,
}

/// What one address may open, over QUIC on one endpoint, or over TCP on one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressLimits {
    /// Connections at once; `None`: any number.
    pub connections: Option<u32>,
    /// New ones over time; `None`: at any rate.
    pub rate: Option<Rate>,
}

/// Which limit an address has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// Connections at once.
    Connections,
    /// New ones over time.
    Rate,
}

/// An address as far as it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressKey {
    /// All of it.
    V4(u32),
    /// The upper half.
    V6(u64),
}

impl AddressKey {
    /// The key of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.to_bits()),
            IpAddr::V6(ip) => Self::V6((ip.to_bits() >> 64) as u64),
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    connections: u32,
    /// When the credit is whole again, in microseconds since [`Addresses::start`]: the theoretical arrival time of the
    /// generic cell rate algorithm, which needs no more state than this.
    whole_at: u64,
}

/// The addresses that have something open, or had a moment ago.
pub struct Addresses {
    limits: AddressLimits,
    bound: usize,
    /// Hashed with a secret: clients choose the keys.
    table: HashMap<AddressKey, Entry>,
    /// The first charge.
    start: Option<Instant>,
    /// When the table was last looked through, in microseconds since `start`.
    swept: Option<u64>,
}

/// A full table is looked through this often at most: it takes about a millisecond.
const SWEEP_PERIOD: Duration = Duration::from_secs(1);

impl Addresses {
    /// None yet.
    pub fn new(limits: AddressLimits) -> Self {
        Self { limits, bound: ADDRESSES, table: HashMap::new(), start: None, swept: None }
    }

    /// Whether nothing is limited, so that nothing has to be kept.
    pub fn is_off(&self) -> bool {
        self.limits == AddressLimits::default()
    }

    /// Whether an address may open one more.
    ///
    /// # Errors
    /// The limit that it has reached.
    pub fn check(&self, address: SocketAddr, now: Instant) -> Result<(), Reached> {
        if self.is_off() {
            return Ok(());
        }
        let Some(entry) = self.table.get(&AddressKey::of(address.ip())) else {
            return if self.limits.connections == Some(0) { Err(Reached::Connections) } else { Ok(()) };
        };
        if self.limits.connections.is_some_and(|most| entry.connections >= most) {
            return Err(Reached::Connections);
        }
        if let Some(rate) = self.limits.rate {
            let step = step(rate);
            let ahead = entry.whole_at.saturating_sub(self.micros(now));
            if ahead + step > step.saturating_mul(u64::from(rate.burst.max(1))) {
                return Err(Reached::Rate);
            }
        }
        Ok(())
    }

    /// Charges an address that has proved itself for one connection. The key goes back to [`Self::release`] with the
    /// connection; `None`: there is no room to remember it.
    pub fn charge(&mut self, address: SocketAddr, now: Instant) -> Option<AddressKey> {
        let key = AddressKey::of(address.ip());
        self.start.get_or_insert(now);
        let at = self.micros(now);
        if self.table.len() >= self.bound && !self.table.contains_key(&key) {
            self.sweep(at);
            if self.table.len() >= self.bound {
                return None;
            }
        }
        let entry = self.table.entry(key).or_default();
        entry.connections += 1;
        if let Some(rate) = self.limits.rate {
            entry.whole_at = entry.whole_at.max(at) + step(rate);
        }
        Some(key)
    }

    /// A connection that was charged is gone.
    pub fn release(&mut self, key: AddressKey) {
        if let Some(entry) = self.table.get_mut(&key) {
            entry.connections = entry.connections.saturating_sub(1);
            if entry.connections == 0 && entry.whole_at == 0 {
                self.table.remove(&key);
            }
        }
    }

    fn sweep(&mut self, at: u64) {
        if self.swept.is_some_and(|last| at.saturating_sub(last) < SWEEP_PERIOD.as_micros() as u64) {
            return;
        }
        self.swept = Some(at);
        self.table.retain(|_, entry| entry.connections > 0 || entry.whole_at > at);
    }

    fn micros(&self, now: Instant) -> u64 {
        self.start.map_or(0, |start| now.saturating_duration_since(start).as_micros() as u64)
    }
}

/// Microseconds of credit that one connection costs.
fn step(rate: Rate) -> u64 {
    1_000_000 / u64::from(rate.per_second.clamp(1, 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(connections: Option<u32>, rate: Option<Rate>) -> (Addresses, Instant) {
        (Addresses::new(AddressLimits { connections, rate }), Instant::now())
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn connections_at_once_are_counted_by_address_whatever_the_port() {
        let (mut addresses, now) = addresses(Some(2), None);
        let first = addresses.charge(at("192.0.2.1:1"), now).unwrap();
        assert_eq!(addresses.check(at("192.0.2.1:2"), now), Ok(()));
        addresses.charge(at("[::ffff:192.0.2.1]:3"), now).unwrap();
        assert_eq!(addresses.check(at("192.0.2.1:4"), now), Err(Reached::Connections));
        assert_eq!(addresses.check(at("192.0.2.2:4"), now), Ok(()));
        addresses.release(first);
        assert_eq!(addresses.check(at("192.0.2.1:4"), now), Ok(()));
        addresses.release(first);
        assert!(addresses.table.is_empty(), "an entry that says nothing is left");
    }

    #[test]
    fn an_ipv6_client_is_its_64() {
        let (mut addresses, now) = addresses(Some(1), None);
        addresses.charge(at("[2001:db8:0:1::1]:1"), now).unwrap();
        assert_eq!(addresses.check(at("[2001:db8:0:1:ffff::2]:9"), now), Err(Reached::Connections));
        assert_eq!(addresses.check(at("[2001:db8:0:2::1]:1"), now), Ok(()));
    }

    #[test]
    fn a_burst_is_allowed_and_then_the_rate() {
        let (mut addresses, now) = addresses(None, Some(Rate { per_second: 10, burst: 3 }));
        let address = at("192.0.2.1:1");
        for _ in 0..3 {
            assert_eq!(addresses.check(address, now), Ok(()));
            addresses.charge(address, now).unwrap();
        }
        assert_eq!(addresses.check(address, now + Duration::from_millis(99)), Err(Reached::Rate));
        let later = now + Duration::from_millis(100);
        assert_eq!(addresses.check(address, later), Ok(()));
        addresses.charge(address, later).unwrap();
        assert_eq!(addresses.check(address, later), Err(Reached::Rate));
        // In the long run: ten per second.
        let mut opened = 0;
        for milli in 1_000..11_000 {
            let then = now + Duration::from_millis(milli);
            if addresses.check(address, then).is_ok() {
                addresses.charge(address, then).unwrap();
                opened += 1;
            }
        }
        assert!((100..=103).contains(&opened), "{opened}");
    }

    #[test]
    fn a_full_table_forgets_only_what_says_nothing() {
        let (mut addresses, now) = addresses(Some(1), Some(Rate { per_second: 1, burst: 1 }));
        addresses.bound = 3;
        let open = addresses.charge(at("192.0.2.1:1"), now).unwrap();
        let spent = addresses.charge(at("192.0.2.2:1"), now).unwrap();
        addresses.release(spent);
        let third = addresses.charge(at("192.0.2.3:1"), now + Duration::from_millis(900)).unwrap();
        addresses.release(third);
        // One is connected, the others have not won their credit back.
        assert_eq!(addresses.charge(at("192.0.2.4:1"), now), None);
        assert_eq!(addresses.check(at("192.0.2.1:1"), now), Err(Reached::Connections));
        assert_eq!(addresses.check(at("192.0.2.2:1"), now), Err(Reached::Rate));
        // A moment later one of them has, but the table was looked through already.
        let later = now + Duration::from_millis(1_000);
        addresses.swept = Some(500_000);
        assert_eq!(addresses.charge(at("192.0.2.4:1"), later), None);
        let later = now + Duration::from_millis(1_500);
        assert!(addresses.charge(at("192.0.2.4:1"), later).is_some());
        assert_eq!(addresses.table.len(), 3);
        assert_eq!(addresses.check(at("192.0.2.3:1"), later), Err(Reached::Rate));
        addresses.release(open);
    }

    #[test]
    fn without_limits_nothing_is_refused() {
        let (addresses, now) = addresses(None, None);
        assert!(addresses.is_off());
        assert_eq!(addresses.check(at("192.0.2.1:1"), now), Ok(()));
    }
}
