//! One question and its answer on the wire (RFC 1035), through `simple-dns`.
//!
//! Owns what makes an answer ours: the identifier, and the question letter by letter, whose capitals are drawn by chance
//! (as in draft-vixie-dnsext-dns0x20) so that who cannot see the question has to guess them too. Only the answer section
//! is read, within bounds; nothing in it can make more than a typed failure.

use crate::limits;
use crate::telemetry::kinds::ResolverFailure;
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, TYPE};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Bytes of a message's header.
const HEADER: usize = 12;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// A.
    V4,
    /// AAAA.
    V6,
}

impl Family {
    /// Both, as they are asked.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    fn type_(self) -> TYPE {
        match self {
            Self::V4 => TYPE::A,
            Self::V6 => TYPE::AAAA,
        }
    }
}

/// How a question travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// UDP.
    Datagram,
    /// TCP, with two bytes of length before each message (RFC 1035 §4.2.2).
    Stream,
}

/// A question as it goes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The whole message.
    bytes: Vec<u8>,
}

/// What an arrived message is to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// Not its answer.
    Stranger,
    /// Its answer, but cut short: the whole one comes over TCP.
    Cut,
    /// Its answer, but without the capitals that would prove it: over TCP nobody can guess.
    Unproved,
    /// Its answer.
    Answer(Answer),
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// At least one address, at most [`limits::ENDPOINTS`], each once.
    Addresses {
        /// In the order of the answer.
        addresses: Vec<IpAddr>,
        /// The shortest of the records on the way.
        ttl: Duration,
    },
    /// The name has no usable address of this family.
    NoAddress,
    /// There is no such name (NXDOMAIN).
    NoSuchName,
    /// The server did not answer the question.
    Failed(ResolverFailure),
}

impl Question {
    /// Asks for the addresses of `host`: lower case, without the root's dot; `plain` leaves it so. `None`: no message can
    /// carry that name.
    pub fn new(host: &str, family: Family, plain: bool, random: &mut dyn FnMut() -> u64) -> Option<Self> {
        let mut name = host.to_owned();
        let mut bits = 0;
        let mixed = name.bytes().enumerate().map(|(at, byte)| {
            if at % 64 == 0 {
                bits = random();
            }
            let upper = !plain && bits >> (at % 64) & 1 == 1;
            if upper { byte.to_ascii_uppercase() } else { byte }
        });
        // Capitals of ASCII are as long as its small letters, and other letters stay.
        name = String::from_utf8(mixed.collect()).ok()?;
        let mut packet = Packet::new_query(random() as u16);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let name = Name::new(&name).ok()?;
        packet.questions.push(simple_dns::Question::new(
            name,
            QTYPE::TYPE(family.type_()),
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        Some(Self { bytes: packet.build_bytes_vec().ok()? })
    }

    /// The whole message.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Judges a message that came from the server.
    pub fn read(&self, message: &[u8], over: Transport) -> Reading {
        let Some((header, rest)) = message.split_at_checked(HEADER) else {
            return Reading::Stranger;
        };
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let (flags, questions, records) = (word(2), word(4), word(6));
        let rcode = flags & 0xf;
        // QR, and the opcode of a plain query.
        if header[..2] != self.bytes[..2] || flags & 0xf800 != 0x8000 {
            return Reading::Stranger;
        }
        let asked = &self.bytes[HEADER..];
        if questions == 0 && rcode != 0 {
            // Too little was understood, or wanted, to repeat the question.
            return Reading::Answer(Answer::Failed(ResolverFailure::ServerFailure));
        }
        let Some(repeated) = rest.get(..asked.len()).filter(|_| questions == 1) else {
            return Reading::Stranger;
        };
        // Lengths of labels are below every letter, and the type and class asked for have no letter in them.
        if !repeated.eq_ignore_ascii_case(asked) {
            return Reading::Stranger;
        }
        // TC. Over TCP there is no whole answer to be had then.
        let cut = flags & 0x0200 != 0;
        match over {
            Transport::Datagram if repeated != asked => return Reading::Unproved,
            Transport::Datagram if cut => return Reading::Cut,
            Transport::Stream if cut => return Reading::Answer(Answer::Failed(ResolverFailure::Malformed)),
            _ => {}
        }
        Reading::Answer(match rcode {
            0 if usize::from(records) > limits::RESOLVER_RECORDS => Answer::Failed(ResolverFailure::Malformed),
            0 => self.addresses(message).unwrap_or(Answer::Failed(ResolverFailure::Malformed)),
            3 => Answer::NoSuchName,
            _ => Answer::Failed(ResolverFailure::ServerFailure),
        })
    }

    /// Follows the aliases to the addresses. `None`: malformed.
    fn addresses(&self, message: &[u8]) -> Option<Answer> {
        // Authorities and additions are nothing to go by, so they are not even parsed.
        let mut message = message.to_vec();
        message[8..HEADER].fill(0);
        let packet = Packet::parse(&message).ok()?;
        let question = packet.questions.first()?;
        let records = || packet.answers.iter().filter(|record| record.class == CLASS::IN);
        let mut target = &question.qname;
        let mut ttl = u32::MAX;
        for _ in 0..limits::RESOLVER_ALIASES {
            let found =
                records().filter(|record| same(&record.name, target)).filter_map(|record| match &record.rdata {
                    RData::A(a) => Some((record.ttl, IpAddr::V4(Ipv4Addr::from(a.address)))),
                    RData::AAAA(aaaa) => Some((record.ttl, IpAddr::V6(Ipv6Addr::from(aaaa.address)))),
                    _ => None,
                });
            let wanted = |ip: &IpAddr| ip.is_ipv4() == (question.qtype == QTYPE::TYPE(TYPE::A));
            let mut addresses = Vec::new();
            for (lives, ip) in found.filter(|(_, ip)| wanted(ip)) {
                let ip = ip.to_canonical();
                if usable(ip) && !addresses.contains(&ip) && addresses.len() < limits::ENDPOINTS {
                    addresses.push(ip);
                    ttl = ttl.min(seconds(lives));
                }
            }
            if !addresses.is_empty() {
                return Some(Answer::Addresses { addresses, ttl: Duration::from_secs(u64::from(ttl)) });
            }
            let alias = records().filter(|record| same(&record.name, target)).find_map(|record| match &record.rdata {
                RData::CNAME(name) => Some((record.ttl, &name.0)),
                _ => None,
            });
            let Some((lives, next)) = alias else {
                return Some(Answer::NoAddress);
            };
            ttl = ttl.min(seconds(lives));
            target = next;
        }
        // A ring of aliases, or a chain that nobody made for use.
        None
    }
}

/// RFC 2181 §8: a TTL with its highest bit set is none.
fn seconds(ttl: u32) -> u32 {
    if ttl > i32::MAX as u32 { 0 } else { ttl }
}

/// RFC 1035 §2.3.3: names are the same in capitals.
fn same(one: &Name<'_>, other: &Name<'_>) -> bool {
    let (one, other) = (one.get_labels(), other.get_labels());
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| a.as_ref().eq_ignore_ascii_case(b.as_ref()))
}

/// Whether a connection to this address can lead to a backend. Without its interface a link-local one leads nowhere.
fn usable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_multicast() && !v4.is_broadcast(),
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast() && !v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;
