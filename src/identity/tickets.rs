//! Owns what keys of session tickets are computed from, for every TLS stack: the process's secret and the time.
//!
//! Keys belong to epochs of [`ROTATION`], counted from 1970. So every worker, every restart and every host that shares the
//! secret has the same keys at the same time without a word between them. What opens a ticket is accepted in the epochs
//! before and after its own, which lets a ticket live for [`ROTATION`] at least and forgives clocks that differ.
//!
//! ```text
//! root = HKDF-Extract("spooky session ticket", secret)
//! key  = HKDF-Expand(root, a label of the stack | the epoch | …)
//! ```
//!
//! What a ticket looks like is for the stacks: `h3::tickets` and `tls::tickets`.

use ring::hkdf;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long one key seals.
pub const ROTATION: Duration = Duration::from_secs(6 * 60 * 60);

/// The root of the keys of all epochs. Cheap to clone; all workers share one.
#[derive(Clone)]
pub struct TicketKeys(Arc<Root>);

struct Root {
    secret: hkdf::Prk,
    /// Seconds since 1970.
    clock: fn() -> u64,
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKeys(..)")
    }
}

impl TicketKeys {
    /// Derives the root from the process's secret. `clock` tells the seconds since 1970: it is asked by the libraries'
    /// callbacks in the middle of a handshake, where no turn's time comes along.
    pub fn derive(secret: &[u8], clock: fn() -> u64) -> Self {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, b"spooky session ticket").extract(secret);
        Self(Arc::new(Root { secret, clock }))
    }

    /// Seconds since 1970.
    pub fn now(&self) -> u64 {
        (self.0.clock)()
    }

    /// The epoch whose key seals now.
    pub fn epoch(&self) -> u64 {
        self.now() / ROTATION.as_secs()
    }

    /// Whether tickets of this epoch are still, or already, opened.
    pub fn accepts(&self, epoch: u64) -> bool {
        epoch.abs_diff(self.epoch()) <= 1
    }

    /// Fills `out`, at most 255 × 32 bytes, with what belongs to `info` alone.
    pub fn expand(&self, info: &[&[u8]], out: &mut [u8]) {
        struct Length(usize);
        impl hkdf::KeyType for Length {
            fn len(&self) -> usize {
                self.0
            }
        }
        let filled = self.0.secret.expand(info, Length(out.len())).and_then(|okm| okm.fill(out));
        assert!(filled.is_ok(), "HKDF gives up to 255 × 32 bytes");
    }
}
