//! Rings over both feature sets, and turning them until something is seen.
#![allow(dead_code)]

use spooky_uring::*;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a loaded machine; reaching it is a failure.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Everything the kernel has, and nothing over Linux 6.1. `SPOOKY_URING_FEATURES=floor` leaves the second only.
pub fn feature_sets() -> Vec<Features> {
    let masks = match std::env::var("SPOOKY_URING_FEATURES").as_deref() {
        Ok("floor") => vec![FeatureMask::FLOOR],
        _ => vec![FeatureMask::ALL, FeatureMask::FLOOR],
    };
    masks.into_iter().map(|mask| Features::probe(mask).unwrap_or_else(|error| panic!("{error}"))).collect()
}

/// Runs a test once per feature set, with a ring of `config`.
pub fn each_ring(config: &RingConfig, test: impl Fn(&mut Host)) {
    for features in feature_sets() {
        println!("{features}");
        let ring = Ring::new(config, &features).unwrap_or_else(|error| panic!("{error}"));
        test(&mut Host { ring, events: Vec::new() });
    }
}

pub fn small() -> RingConfig {
    RingConfig { entries: 64, streams: 256, ..RingConfig::default() }
}

/// A ring with the events of its last turn.
pub struct Host {
    pub ring: Ring,
    pub events: Vec<Event>,
}

impl Host {
    /// Turns once, waiting for something to happen.
    pub fn turn(&mut self) -> std::vec::Drain<'_, Event> {
        let deadline = Instant::now() + PATIENCE;
        self.ring.wait(Some(deadline), &mut self.events).unwrap();
        assert!(Instant::now() < deadline, "nothing happened");
        self.events.drain(..)
    }

    /// Turns once without waiting.
    pub fn poll(&mut self) -> std::vec::Drain<'_, Event> {
        let past = self.ring.now();
        self.ring.wait(Some(past), &mut self.events).unwrap();
        self.events.drain(..)
    }

    /// Turns until `found` finds what it looks for; other events are dropped.
    pub fn until<T>(&mut self, mut found: impl FnMut(&mut Ring, Event) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.ring.wait(Some(deadline), &mut self.events).unwrap();
            assert!(Instant::now() < deadline, "not seen");
            let mut events = std::mem::take(&mut self.events);
            for event in events.drain(..) {
                if let Some(found) = found(&mut self.ring, event) {
                    return found;
                }
            }
            self.events = events;
        }
    }

    /// A connected pair of streams of this ring.
    pub fn pair(&mut self) -> (StreamId, StreamId) {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let near = self.ring.adopt_stream(near.into(), Token(1)).unwrap();
        let far = self.ring.adopt_stream(far.into(), Token(2)).unwrap();
        (near, far)
    }

    /// A connected TCP pair of this ring over loopback: the connecting and the accepted end.
    pub fn tcp_pair(&mut self) -> (StreamId, StreamId) {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap(), 16, false).unwrap();
        let to = listener.local_address().unwrap();
        let listener = self.ring.listen(listener, Token(90));
        let near = self.ring.connect(&StreamAddress::Tcp(to), Token(1)).unwrap();
        let (mut made, mut far) = (false, None);
        let far = self.until(|_, event| {
            match event {
                Event::Connected { result, stream, .. } => {
                    assert_eq!((result, stream), (Ok(()), near));
                    made = true;
                }
                Event::Accepted { stream, peer, .. } => {
                    assert!(peer.unwrap().ip().is_loopback());
                    far = Some(stream);
                }
                _ => {}
            }
            far.filter(|_| made)
        });
        self.ring.set_token(far, Token(2));
        self.ring.stop_listening(listener);
        (near, far)
    }
}

/// xorshift64*: small and seeded.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Byte `at` of a stream whose content is its position.
pub fn byte_at(at: usize) -> u8 {
    (at.wrapping_mul(31) >> 3) as u8
}

pub fn pattern(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(byte_at).collect()
}
