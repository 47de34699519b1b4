//! Owns lists of networks that may come, and of those that may not: which of them an address is in.
//!
//! The longest prefix decides, whichever list it stands in. Both lists are compiled into one sorted row of boundaries for
//! each family of addresses, so that a question is a binary search: 15 comparisons for 10,000 entries, and no memory taken.
//! Who asks about whose address is the caller's: a listener about the other side of a connection, a route about the client.

use ipnet::IpNet;
use std::collections::HashSet;
use std::net::IpAddr;

/// Which addresses may come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRules {
    v4: Boundaries<u32>,
    v6: Boundaries<u128>,
}

/// A network that stands in both lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradiction(pub IpNet);

impl AddressRules {
    /// Compiles two lists. An address that is in no network of either may come if `otherwise` says so.
    ///
    /// # Errors
    /// The first network that stands in both.
    pub fn new(allow: &[IpNet], deny: &[IpNet], otherwise: bool) -> Result<Self, Contradiction> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (networks, allowed) in [(allow, true), (deny, false)] {
            for network in networks {
                match canonical(*network) {
                    IpNet::V4(network) => v4.push(Prefix {
                        first: network.network().to_bits(),
                        last: network.broadcast().to_bits(),
                        allowed,
                    }),
                    IpNet::V6(network) => v6.push(Prefix {
                        first: network.network().to_bits(),
                        last: network.broadcast().to_bits(),
                        allowed,
                    }),
                }
            }
        }
        let allowed: HashSet<IpNet> = allow.iter().copied().map(canonical).collect();
        if let Some(both) = deny.iter().find(|network| allowed.contains(&canonical(**network))) {
            return Err(Contradiction(*both));
        }
        Ok(Self {
            v4: Boundaries::new(v4, otherwise, |last| last.checked_add(1)),
            v6: Boundaries::new(v6, otherwise, |last| last.checked_add(1)),
        })
    }

    /// Whether an address may come. A mapped one is the IPv4 address it maps.
    #[inline]
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.admits(address.to_bits()),
            IpAddr::V6(address) => self.v6.admits(address.to_bits()),
        }
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (size_of_val(&*self.v4.edges) + size_of_val(&*self.v6.edges)) as u64
    }
}

/// The network whose word counts for an address, and whether it is allowed: the longest prefix of those that hold it. `None`: no
/// network does. For people: it looks at every entry of the lists that [`AddressRules`] is compiled from.
#[must_use]
pub fn deciding_network(allow: &[IpNet], deny: &[IpNet], address: IpAddr) -> Option<(IpNet, bool)> {
    let address = address.to_canonical();
    let of = |list: &[IpNet], allowed| -> Vec<(IpNet, bool)> {
        list.iter()
            .copied()
            .filter(|&network| canonical(network).contains(&address))
            .map(|one| (one, allowed))
            .collect()
    };
    let holding = [of(allow, true), of(deny, false)].concat();
    holding.into_iter().max_by_key(|&(network, _)| canonical(network).prefix_len())
}

/// A network as connections show it: one of mapped addresses is the IPv4 network that it maps.
fn canonical(network: IpNet) -> IpNet {
    /// Bits of `::ffff:0:0` that stand before the IPv4 address (RFC 4291 §2.5.5.2).
    const MAPPED: u8 = 96;
    let IpNet::V6(v6) = network else {
        return network;
    };
    match (v6.network().to_ipv4_mapped(), v6.prefix_len().checked_sub(MAPPED)) {
        (Some(v4), Some(len)) => ipnet::Ipv4Net::new(v4, len).map_or(network, IpNet::V4),
        _ => network,
    }
}

/// One network, as the first and the last of its addresses.
struct Prefix<A> {
    first: A,
    last: A,
    allowed: bool,
}

/// Where the answer changes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Boundaries<A> {
    /// From each of these addresses on, up to the next, the answer is the other one. Invariant: they rise.
    edges: Box<[A]>,
    /// The answer below the first of them.
    otherwise: bool,
}

impl<A: Copy + Ord> Boundaries<A> {
    /// Networks either hold each other or have nothing in common, so that one walk over them with a stack of those that are
    /// open is enough. `after` is the address behind one, if there is any.
    fn new(mut prefixes: Vec<Prefix<A>>, otherwise: bool, after: impl Fn(A) -> Option<A>) -> Self {
        // Wide ones before the narrow ones that begin at the same address.
        prefixes.sort_by(|one, other| one.first.cmp(&other.first).then(other.last.cmp(&one.last)));
        let mut steps: Vec<(A, bool)> = Vec::new();
        let mut open: Vec<&Prefix<A>> = Vec::new();
        let close = |open: &mut Vec<&Prefix<A>>, steps: &mut Vec<(A, bool)>, until: Option<A>| {
            while let Some(innermost) = open.last()
                && until.is_none_or(|until| innermost.last < until)
            {
                let next = after(innermost.last);
                open.pop();
                if let Some(next) = next {
                    step(steps, next, open.last().map_or(otherwise, |outer| outer.allowed));
                }
            }
        };
        for prefix in &prefixes {
            close(&mut open, &mut steps, Some(prefix.first));
            step(&mut steps, prefix.first, prefix.allowed);
            open.push(prefix);
        }
        close(&mut open, &mut steps, None);
        let mut before = otherwise;
        let changes = |(first, allowed)| (std::mem::replace(&mut before, allowed) != allowed).then_some(first);
        Self { edges: steps.into_iter().filter_map(changes).collect(), otherwise }
    }

    #[inline]
    fn admits(&self, address: A) -> bool {
        let changes = self.edges.partition_point(|edge| *edge <= address);
        self.otherwise ^ (changes % 2 == 1)
    }
}

/// From `first` on another answer holds; the last word on an address counts.
fn step<A: PartialEq>(steps: &mut Vec<(A, bool)>, first: A, allowed: bool) {
    match steps.last_mut() {
        Some(last) if last.0 == first => last.1 = allowed,
        _ => steps.push((first, allowed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator (xorshift64*): the same seed gives the same cases everywhere.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
        }
    }

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse::<IpNet>().expect("a network").trunc()).collect()
    }

    fn rules(allow: &[&str], deny: &[&str], otherwise: bool) -> AddressRules {
        AddressRules::new(&networks(allow), &networks(deny), otherwise).expect("no contradiction")
    }

    #[test]
    fn the_longest_prefix_decides_and_otherwise_the_default() {
        let rules = rules(&["10.0.0.0/8", "10.6.6.6/32"], &["10.6.0.0/16", "0.0.0.0/0"], true);
        for (address, admitted) in [
            ("10.0.0.0", true),
            ("10.5.255.255", true),
            ("10.6.0.0", false),
            ("10.6.6.5", false),
            ("10.6.6.6", true),
            ("10.6.6.7", false),
            ("10.7.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("0.0.0.0", false),
            ("255.255.255.255", false),
            // Of another family: no network of either list.
            ("2001:db8::1", true),
        ] {
            assert_eq!(rules.admits(address.parse().unwrap()), admitted, "{address}");
        }
    }

    #[test]
    fn a_mapped_address_is_an_ipv4_address_in_lists_too() {
        let rules = rules(&["::ffff:192.0.2.0/120", "2001:db8::/32"], &["192.0.2.7/32"], false);
        for (address, admitted) in [
            ("192.0.2.1", true),
            ("::ffff:192.0.2.1", true),
            ("::ffff:192.0.2.7", false),
            ("192.0.3.1", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
        ] {
            assert_eq!(rules.admits(address.parse().unwrap()), admitted, "{address}");
        }
    }

    #[test]
    fn a_network_in_both_lists_is_a_contradiction_however_it_is_written() {
        let found = AddressRules::new(&networks(&["10.0.0.0/8"]), &networks(&["::ffff:10.0.0.0/104"]), true);
        assert_eq!(found, Err(Contradiction("::ffff:10.0.0.0/104".parse().unwrap())));
    }

    #[test]
    fn the_whole_of_a_family_and_its_last_address_are_no_special_cases() {
        let closed = rules(&["255.255.255.255/32"], &["0.0.0.0/0", "::/0"], true);
        assert!(closed.admits([255, 255, 255, 255].into()));
        assert!(!closed.admits([255, 255, 255, 254].into()));
        assert!(!closed.admits("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap()));
        let open = rules(&[], &[], true);
        assert!(open.admits([1, 2, 3, 4].into()) && open.bytes() == 0);
    }

    /// The rule as a search over all entries: slow and plain.
    fn scan(allow: &[IpNet], deny: &[IpNet], otherwise: bool, address: IpAddr) -> bool {
        let longest = |list: &[IpNet]| {
            list.iter()
                .filter(|network| network.contains(&address))
                .map(|network| i16::from(network.prefix_len()))
                .max()
        };
        match (longest(allow), longest(deny)) {
            (None, None) => otherwise,
            (allow, deny) => allow > deny,
        }
    }

    /// Addresses and prefixes of few distinct bits, so that networks hold each other.
    fn address(random: &mut Random) -> IpAddr {
        let bits = |random: &mut Random| [0, 1, 2, 255][random.below(4)];
        match random.below(2) {
            0 => IpAddr::from([10, bits(random), bits(random), bits(random)]),
            _ => {
                let mut bytes = [0; 16];
                bytes[0] = 0x20;
                for at in [1, 2, 7, 8, 15] {
                    bytes[at] = bits(random);
                }
                IpAddr::from(bytes)
            }
        }
    }

    fn list(random: &mut Random) -> Vec<IpNet> {
        let entries = random.below(12);
        (0..entries)
            .map(|_| {
                let address = address(random);
                let longest = if address.is_ipv4() { 33 } else { 129 };
                IpNet::new(address, random.below(longest) as u8).expect("a prefix length").trunc()
            })
            .collect()
    }

    #[test]
    fn the_search_finds_what_a_scan_of_all_entries_finds() {
        for seed in 1..2_000 {
            let mut random = Random(seed);
            let allow = list(&mut random);
            let mut deny = list(&mut random);
            deny.retain(|network| !allow.contains(network));
            let otherwise = random.below(2) == 0;
            let rules = AddressRules::new(&allow, &deny, otherwise).expect("no contradiction");
            // Near the boundaries, too: the first and the last address of each network, and their neighbours.
            let mut asked: Vec<IpAddr> = (0..20).map(|_| address(&mut random)).collect();
            asked.extend(allow.iter().chain(&deny).flat_map(|network| [network.network(), network.broadcast()]));
            for address in asked {
                assert_eq!(
                    rules.admits(address),
                    scan(&allow, &deny, otherwise, address),
                    "seed {seed}: {address} of {allow:?} and {deny:?}"
                );
                let decided = deciding_network(&allow, &deny, address);
                assert_eq!(decided.map_or(otherwise, |(_, allowed)| allowed), rules.admits(address));
                assert!(decided.is_none_or(|(network, _)| network.contains(&address)));
            }
        }
    }
}
