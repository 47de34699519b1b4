//! Which backend a key belongs to: a table of slots, each given to a backend by weighted rendezvous.
//!
//! For every slot each backend draws an exponential number whose rate is its weight, from the hash of its name and the
//! slot; the least one has the slot (Thaler and Ravishankar 1998, weighted as Schindelhauer and Schomaker 2005). So a
//! slot falls to each with the probability of its share, and a draw depends on nobody else: who leaves gives up its own
//! slots and moves no other, who joins takes its share from all alike, and a changed weight moves what it has to. The
//! table is those draws made once, so that a pick costs one look; whoever comes next when the first is left out is who
//! would have the slot without it. Names decide and not positions, so the order of the file does not matter.

use super::keyed_hash::KeyedHash;
use super::random::mix;

/// Slots of a table. A backend's share is off by a standard deviation of √(backends ÷ slots): 0.7 % of itself for
/// three, 4 % for a hundred, 12 % for a thousand.
pub const SLOTS: usize = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 16;

/// Backends that a table holds: beyond that a backend has fewer than sixteen slots, and its share is chance more than
/// weight. It bounds the time that making a table takes, too: a second or two.
pub const NODES_MAX: usize = SLOTS / 16;
const _: () = assert!(NODES_MAX <= u16::MAX as usize);

/// The table of one upstream. Never changed: other backends or weights make another one.
pub struct Table {
    nodes: Vec<Node>,
    /// Positions of nodes by slot; empty if there is no node with a weight.
    slots: Box<[u16]>,
}

#[derive(Clone, Copy)]
struct Node {
    /// The hash of its name.
    name: u64,
    weight: f64,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table({} backends)", self.nodes.len())
    }
}

impl Table {
    /// Of these names with their weights; positions count from 0. A weight of 0 is never picked. Names are different.
    ///
    /// # Panics
    /// With more than [`NODES_MAX`] names.
    #[must_use]
    pub fn new<'a>(backends: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        // Operators choose the names, so the key need not be secret; it is the same for ever, so that all hosts with the
        // same file agree.
        let hash = KeyedHash::new([0; 16]);
        let nodes: Vec<Node> = backends
            .into_iter()
            .map(|(name, weight)| Node { name: hash.of(name.as_bytes()), weight: f64::from(weight) })
            .collect();
        assert!(nodes.len() <= NODES_MAX, "a table of {} backends", nodes.len());
        let mut table = Self { nodes, slots: Box::default() };
        table.slots = (0..SLOTS).map_while(|slot| table.winner(slot, |_| false)).map(|at| at as u16).collect();
        table
    }

    /// Whom `key` belongs to; `None` if there is nobody with a weight. Keys are hashes: each of their high bits counts.
    #[inline]
    pub fn home(&self, key: u64) -> Option<usize> {
        self.slots.get(slot(key)).map(|&at| usize::from(at))
    }

    /// Whom `key` goes to, leaving out those that `skip` says; `None` when that leaves nobody.
    #[inline]
    pub fn pick(&self, key: u64, skip: impl Fn(usize) -> bool) -> Option<usize> {
        let home = self.home(key)?;
        if skip(home) { self.winner(slot(key), skip) } else { Some(home) }
    }

    /// Who has the least draw for a slot of those that `skip` leaves.
    fn winner(&self, slot: usize, skip: impl Fn(usize) -> bool) -> Option<usize> {
        let slot = mix(slot as u64 + 1);
        let mut winner = None;
        let mut least = f64::INFINITY;
        for (at, node) in self.nodes.iter().enumerate() {
            let uniform = unit(mix(node.name ^ slot));
            // −ln x ≥ 1 − x: most are out of the question without the logarithm.
            if node.weight == 0.0 || 1.0 - uniform >= least * node.weight {
                continue;
            }
            let draw = -uniform.ln() / node.weight;
            if draw < least && !skip(at) {
                (winner, least) = (Some(at), draw);
            }
        }
        winner
    }
}

#[inline]
fn slot(key: u64) -> usize {
    (key >> (u64::BITS - SLOT_BITS)) as usize
}

/// A number between 0 and 1, neither of them included: 53 bits, in the middle of their step.
#[inline]
fn unit(bits: u64) -> f64 {
    ((bits >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|at| format!("backend-{at}")).collect()
    }

    fn table(names: &[String], weight: impl Fn(usize) -> u32) -> Table {
        Table::new(names.iter().enumerate().map(|(at, name)| (name.as_str(), weight(at))))
    }

    /// Whom each slot belongs to, by name.
    fn owners<'a>(table: &Table, names: &'a [String]) -> Vec<&'a str> {
        table.slots.iter().map(|&at| names[usize::from(at)].as_str()).collect()
    }

    fn share(owners: &[&str], name: &str) -> f64 {
        owners.iter().filter(|owner| **owner == name).count() as f64 / SLOTS as f64
    }

    #[test]
    fn slots_go_by_weight() {
        for weights in [vec![1, 1, 1], vec![1, 2, 7], vec![1000, 100, 10], (1..=40).collect()] {
            let names = names(weights.len());
            let table = table(&names, |at| weights[at]);
            let owners = owners(&table, &names);
            let total = f64::from(weights.iter().sum::<u32>());
            for (at, &weight) in weights.iter().enumerate() {
                let expected = f64::from(weight) / total;
                let off = share(&owners, &names[at]) - expected;
                // Five standard deviations of a binomial.
                let bound = 5.0 * (expected * (1.0 - expected) / SLOTS as f64).sqrt();
                assert!(off.abs() < bound, "{weights:?}: {at} is off by {off}, more than {bound}");
            }
        }
    }

    #[test]
    fn who_leaves_moves_its_own_slots_and_no_other() {
        let all = names(10);
        let rest: Vec<String> = all.iter().filter(|name| *name != "backend-3").cloned().collect();
        let weight = |name: &str| if name.ends_with('3') { 300 } else { 100 };
        let make = |names: &[String]| Table::new(names.iter().map(|name| (name.as_str(), weight(name))));
        let (before, after) = (make(&all), make(&rest));
        let (before, after) = (owners(&before, &all), owners(&after, &rest));
        let mut inherited = 0;
        for (before, after) in before.iter().zip(&after) {
            match *before {
                "backend-3" => inherited += usize::from(*after == "backend-0"),
                stays => assert_eq!(stays, *after),
            }
        }
        // Its quarter goes to the other nine alike: each 1/36 of all, which is 1820 slots.
        assert!(inherited.abs_diff(SLOTS / 36) < 250, "{inherited}");
    }

    #[test]
    fn who_joins_takes_its_share_and_nothing_else_moves() {
        let after = names(8);
        let before = &after[..7];
        let (small, large) = (table(before, |_| 100), table(&after, |at| if at == 7 { 200 } else { 100 }));
        let (small, large) = (owners(&small, before), owners(&large, &after));
        let moved: Vec<_> = small.iter().zip(&large).filter(|(small, large)| small != large).collect();
        assert!(moved.iter().all(|(_, to)| **to == "backend-7"));
        // 2 of 9.
        assert!((moved.len() as f64 / SLOTS as f64 - 2.0 / 9.0).abs() < 0.01, "{}", moved.len());
    }

    #[test]
    fn a_changed_weight_moves_only_what_it_has_to() {
        let names = names(5);
        let (light, heavy) = (table(&names, |_| 100), table(&names, |at| if at == 2 { 200 } else { 100 }));
        let (light, heavy) = (owners(&light, &names), owners(&heavy, &names));
        for (light, heavy) in light.iter().zip(&heavy) {
            assert!(light == heavy || *heavy == "backend-2", "{light} became {heavy}");
        }
        assert!((share(&heavy, "backend-2") - 2.0 / 6.0).abs() < 0.01);
    }

    #[test]
    fn the_order_of_the_file_does_not_matter() {
        let forward = names(9);
        let backward: Vec<String> = forward.iter().rev().cloned().collect();
        let weight = |name: &str| name.bytes().map(u32::from).sum::<u32>();
        let make = |names: &[String]| Table::new(names.iter().map(|name| (name.as_str(), weight(name))));
        assert_eq!(owners(&make(&forward), &forward), owners(&make(&backward), &backward));
    }

    #[test]
    fn to_be_skipped_is_as_good_as_not_to_be_there() {
        let all = names(6);
        let without: Vec<String> = all[1..].to_vec();
        let (whole, part) = (table(&all, |at| 50 + at as u32), table(&without, |at| 51 + at as u32));
        for slot in 0..SLOTS as u64 {
            let key = slot << 48;
            let skipping = whole.pick(key, |at| at == 0).expect("five are left");
            assert_eq!(skipping - 1, part.pick(key, |_| false).expect("five"));
        }
    }

    #[test]
    fn nobody_left_is_said() {
        assert_eq!(Table::new([]).pick(1, |_| false), None);
        assert_eq!(Table::new([("a", 0)]).pick(1, |_| false), None);
        let table = Table::new([("a", 1), ("b", 0)]);
        assert_eq!(table.pick(u64::MAX, |_| false), Some(0));
        assert_eq!(table.pick(u64::MAX, |at| at == 0), None);
    }
}
