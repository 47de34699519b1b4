//! What the kernel counts about the public UDP sockets, read from `/proc/net/udp` and `udp6` when a scrape asks.
//!
//! A worker learns of datagrams its socket could not hold only with the next one that arrives (SO_RXQ_OVFL); here they
//! are seen at once, and by listener. Sockets are known by their inode, so no descriptor is kept: a second one would hold
//! a worker's socket in its SO_REUSEPORT group after the worker is gone.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// One UDP socket of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpSource {
    /// The listener's name.
    pub listener: Box<str>,
    /// The worker's number.
    pub worker: Box<str>,
    inode: u64,
}

impl UdpSource {
    /// The source for a socket that is about to be given to a worker.
    ///
    /// # Errors
    /// Without `/proc`, the socket cannot be told from others.
    pub fn new(listener: &str, worker: usize, socket: &impl AsFd) -> io::Result<Self> {
        let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_fd().as_raw_fd()))?;
        let inode = link.to_str().and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        let inode = inode.ok_or_else(|| io::Error::other(format!("{} names no socket", link.display())))?;
        Ok(Self { listener: listener.into(), worker: worker.to_string().into(), inode })
    }
}

/// What the kernel says of one socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UdpFacts {
    /// Datagrams the kernel dropped, most of them because the receive buffer was full, since the socket was made.
    pub drops: u64,
    /// Memory that received datagrams take which nobody has read yet, the kernel's own overhead included.
    pub queued_bytes: u64,
}

/// The facts of each source, in their order; `None`: the kernel does not list the socket.
pub fn read(sources: &[UdpSource]) -> Vec<Option<UdpFacts>> {
    let mut found: HashMap<u64, Option<UdpFacts>> = sources.iter().map(|source| (source.inode, None)).collect();
    if !found.is_empty() {
        // Both lists: an IPv6 socket stands in the second only, and either file may be missing.
        for path in ["/proc/net/udp", "/proc/net/udp6"] {
            if let Ok(text) = fs::read_to_string(path) {
                parse(&text, &mut found);
            }
        }
    }
    sources.iter().map(|source| found.get(&source.inode).copied().flatten()).collect()
}

/// Fills the facts of the wanted inodes from one list of proc(5): `sl local remote st tx:rx tr:when retrnsmt uid timeout
/// inode ref pointer drops`.
fn parse(text: &str, wanted: &mut HashMap<u64, Option<UdpFacts>>) {
    for line in text.lines().skip(1) {
        let mut fields = line.split_whitespace();
        let queues = fields.nth(4).and_then(|queues| queues.split_once(':'));
        let inode = fields.nth(4).and_then(|inode| inode.parse::<u64>().ok());
        let drops = fields.nth(2).and_then(|drops| drops.parse::<u64>().ok());
        if let (Some((_, queued)), Some(inode), Some(drops)) = (queues, inode, drops)
            && let Some(facts) = wanted.get_mut(&inode)
            && let Ok(queued_bytes) = u64::from_str_radix(queued, 16)
        {
            *facts = Some(UdpFacts { drops, queued_bytes });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn a_full_socket_drops_and_the_kernel_says_so() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(receiver) = UdpSocket::bind(local) else {
                // No such family on this machine.
                assert!(local.starts_with('['), "{local}");
                continue;
            };
            let sender = UdpSocket::bind(local).unwrap();
            let sources = [UdpSource::new("public", 3, &receiver).unwrap()];
            assert_eq!(read(&sources), [Some(UdpFacts::default())]);
            assert_eq!((&*sources[0].listener, &*sources[0].worker), ("public", "3"));
            // Loopback delivers within the call. Far more than any default buffer takes.
            let to = receiver.local_addr().unwrap();
            let mut sent = 0;
            let facts = loop {
                for _ in 0..100 {
                    sender.send_to(&[0; 8192], to).unwrap();
                }
                sent += 100;
                let facts = read(&sources)[0].expect("listed");
                if facts.drops > 0 {
                    break facts;
                }
                assert!(sent < 1_000_000, "nothing is dropped");
            };
            assert!(facts.drops <= sent && facts.queued_bytes > 8192, "{facts:?} of {sent}");
        }
    }

    #[test]
    fn a_socket_that_is_gone_has_no_facts() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let source = UdpSource { inode: u64::MAX, ..UdpSource::new("public", 0, &socket).unwrap() };
        assert_eq!(read(&[source]), [None]);
        assert!(read(&[]).is_empty());
    }

    #[test]
    fn what_is_no_socket_is_refused() {
        let file = fs::File::open("/dev/null").unwrap();
        let error = UdpSource::new("public", 0, &file).unwrap_err();
        assert!(error.to_string().contains("/dev/null"), "{error}");
    }

    #[test]
    fn nonsense_is_passed_over() {
        let mut wanted = HashMap::from([(7, None), (8, None)]);
        parse(
            "sl\n\n1: a b 07 0:zz 0:0 0 0 0 7 2 0 5\n1: a b 07 0:0 0:0 0 0 0 8\n1: a b 07 0:0 0:0 0 0 0 9 2 0 1",
            &mut wanted,
        );
        assert_eq!(wanted, HashMap::from([(7, None), (8, None)]));
        parse("sl\n1: a b 07 00000000:00000300 00:00000000 00000000 0 0 8 2 0 12", &mut wanted);
        assert_eq!(wanted[&8], Some(UdpFacts { drops: 12, queued_bytes: 768 }));
    }
}
