//! A process without file descriptors. One test in a process of its own: the limit is everybody's.

mod support;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use spooky_uring::*;
use std::net::TcpStream;
use support::*;

#[test]
fn accepting_pauses_without_descriptors_and_goes_on_by_itself() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    each_ring(&small(), |host| {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap(), 16, false).unwrap();
        let to = listener.local_address().unwrap();
        let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(to).unwrap()).collect();
        // The limit bounds the number, so the lowest free one is where nothing new fits.
        let free = std::fs::File::open("/dev/null").unwrap();
        let used = std::os::fd::AsRawFd::as_raw_fd(&free) as u64;
        drop(free);
        setrlimit(Resource::RLIMIT_NOFILE, used, hard).unwrap();
        // Only now: the kernel keeps the limit that an accept was begun under.
        host.ring.listen(listener, Token(9));
        while host.ring.stats().accepts_stalled == 0 {
            for event in host.turn() {
                assert!(!matches!(event, Event::Accepted { .. }), "{event:?}");
            }
        }
        // Outgoing connections say so at once, where they need a descriptor.
        host.ring.connect(&StreamAddress::Tcp(to), Token(1)).unwrap();
        let mut direct = 0;
        let result = host.until(|_, event| match event {
            Event::Connected { result, .. } => Some(result),
            _ => None,
        });
        match result {
            Ok(()) => direct = 1,
            Err(error) => assert_eq!(error, libc::EMFILE),
        }
        let stalls = host.ring.stats().accepts_stalled;
        assert!(stalls < 100, "it does not spin");
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        drop(clients);
        let mut accepted = 0;
        host.until(|_, event| {
            accepted += usize::from(matches!(event, Event::Accepted { .. }));
            (accepted == 3 + direct).then_some(())
        });
    });
}
