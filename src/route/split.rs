//! The shares of a split: which of several ways a request goes, the same for the same key on every worker and after every start.
//!
//! A key becomes a [`Point`] on a line, on which every way owns a stretch as long as its share.

use super::Request;
use super::matcher::{Lens, Subject};
use std::fmt;
use std::net::IpAddr;

/// Where a request stands on the line from 0 to 2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point(u64);

impl Point {
    /// How far along the line it lies, between 0 and 1.
    #[must_use]
    pub fn fraction(self) -> f64 {
        self.0 as f64 / 2_f64.powi(64)
    }

    /// The point of a key: FNV-1a, then the finalizer of MurmurHash3, so that keys which differ in one character lie apart.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for &byte in key {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        Self(hash ^ (hash >> 33))
    }
}

/// What keeps a client on the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// Its address.
    ClientIp,
    /// A value that it sends.
    Value(Subject),
}

impl fmt::Display for Sticky {
    /// As it is written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientIp => f.write_str("client_ip"),
            Self::Value(subject) => write!(f, "{}:{}", subject.source().as_str(), subject.name()),
        }
    }
}

/// Ways with their shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Where each stretch ends, in units of weight; the last is the sum.
    ends: Vec<u64>,
    sticky: Option<Sticky>,
}

impl Shares {
    /// Shares by weight. Each way gets the number of its position.
    #[must_use]
    pub fn new(weights: impl IntoIterator<Item = u32>, sticky: Option<Sticky>) -> Self {
        let ends = weights.into_iter().scan(0_u64, |sum, weight| {
            *sum += u64::from(weight);
            Some(*sum)
        });
        Self { ends: ends.collect(), sticky }
    }

    /// Which way a request goes: by what is sticky; by its id where nothing is, or the request does not have it. `client` is
    /// asked for the client's address only where that counts.
    pub fn pick(&self, request: &Request<'_>, id: &[u8], client: impl FnOnce() -> IpAddr, lens: &mut Lens) -> usize {
        if self.ends.len() < 2 {
            return 0;
        }
        self.at(self.kept(request, client, lens).unwrap_or_else(|| Point::of(id)))
    }

    /// The point of what is sticky; `None`: nothing is, or the request does not have it.
    pub fn kept(&self, request: &Request<'_>, client: impl FnOnce() -> IpAddr, lens: &mut Lens) -> Option<Point> {
        match self.sticky.as_ref()? {
            Sticky::ClientIp => Some(match client() {
                IpAddr::V4(address) => Point::of(&address.octets()),
                IpAddr::V6(address) => Point::of(&address.octets()),
            }),
            Sticky::Value(subject) => subject.value(request, &mut lens.scratch).map(Point::of),
        }
    }

    /// What keeps a client on the same way.
    #[must_use]
    pub fn sticky(&self) -> Option<&Sticky> {
        self.sticky.as_ref()
    }

    /// How much of the line the way at a position owns, between 0 and 1.
    #[must_use]
    pub fn share(&self, at: usize) -> f64 {
        let end = |at: usize| self.ends.get(at).copied().unwrap_or(0);
        let start = at.checked_sub(1).map_or(0, end);
        let sum = self.ends.last().copied().unwrap_or(0).max(1);
        end(at).saturating_sub(start) as f64 / sum as f64
    }

    /// The way that owns a point.
    #[must_use]
    pub fn at(&self, point: Point) -> usize {
        let sum = self.ends.last().copied().unwrap_or(0);
        let reached = (u128::from(point.0) * u128::from(sum)) >> 64;
        self.ends.iter().position(|&end| u128::from(end) > reached).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Fields, Method};
    use crate::route::{Source, Table};

    #[test]
    fn shares_are_as_large_as_their_weights() {
        let shares = Shares::new([90, 10], None);
        let mut counts = [0_u32; 2];
        for key in 0..100_000_u32 {
            counts[shares.at(Point::of(&key.to_be_bytes()))] += 1;
        }
        // Three standard deviations of a binomial with 100,000 tries and p = 0.1 are 285.
        assert!(counts[1].abs_diff(10_000) < 300, "{counts:?}");
    }

    #[test]
    fn the_ends_of_the_line_belong_to_the_first_and_the_last() {
        let shares = Shares::new([1, 2, 1], None);
        assert_eq!(
            [0, 1 << 62, (3 << 62) - 1, 3 << 62, u64::MAX].map(|point| shares.at(Point(point))),
            [0, 1, 1, 2, 2]
        );
    }

    #[test]
    fn stretches_are_told_as_parts_of_the_line() {
        let shares = Shares::new([1, 2, 1], None);
        assert_eq!([0, 1, 2, 3].map(|at| shares.share(at)), [0.25, 0.5, 0.25, 0.0]);
        assert!((Point(3 << 62).fraction() - 0.75).abs() < 1e-9);
    }

    #[test]
    fn a_share_that_grows_keeps_what_it_had() {
        let (small, large) = (Shares::new([5, 95], None), Shares::new([10, 90], None));
        let moved = (0..10_000_u32).map(|key| Point::of(&key.to_be_bytes())).filter(|&point| small.at(point) == 0);
        assert!(moved.into_iter().all(|point| large.at(point) == 0));
    }

    /// Which of two ways a request goes: one with an id, from an address, whose field `x-user` has a value.
    fn way(sticky: Option<Sticky>, id: u8, client: &str, user: Option<&str>) -> usize {
        let (mut fields, method) = (Fields::new(), Method::Get);
        if let Some(user) = user {
            fields.push(b"x-user", user.as_bytes());
        }
        let request = Request { host: "h", path: None, method: &method, query: None, fields: &fields, trusted: false };
        let client = || client.parse().expect("an address");
        Shares::new([1, 1], sticky).pick(&request, &[id], client, &mut Table::default().lens())
    }

    /// Whether requests that differ in something go both ways.
    fn differ(way: impl Fn(u8) -> usize) -> bool {
        (0..100).map(&way).collect::<Vec<_>>().windows(2).any(|two| two[0] != two[1])
    }

    #[test]
    fn only_what_is_sticky_decides_and_the_id_where_it_is_missing() {
        assert!(differ(|id| way(None, id, "192.0.2.1", Some("a"))));
        assert!(!differ(|last| way(None, 7, &format!("192.0.2.{last}"), Some(&last.to_string()))));
        let address = || Some(Sticky::ClientIp);
        assert!(differ(|last| way(address(), 7, &format!("192.0.2.{last}"), None)));
        assert!(differ(|last| way(address(), 7, &format!("2001:db8::{last}"), None)));
        assert!(!differ(|id| way(address(), id, "192.0.2.1", Some(&id.to_string()))));
        let user = || Some(Sticky::Value(Subject::new(Source::Header, "X-User")));
        assert!(differ(|name| way(user(), 7, "192.0.2.1", Some(&name.to_string()))));
        assert!(!differ(|id| way(user(), id, &format!("192.0.2.{id}"), Some("a"))));
        assert!(differ(|id| way(user(), id, "192.0.2.1", None)));
    }

    #[test]
    fn points_never_change() {
        // Written down: another value would send the clients of a running experiment elsewhere after an update.
        assert_eq!(Point::of(b""), Point(0xefd0_1f60_ba99_2926));
        assert_eq!(Point::of(b"alice"), Point(0x3507_d047_a67c_08f4));
    }
}
