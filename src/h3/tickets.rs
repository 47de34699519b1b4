//! Owns the keys of session tickets: which key seals a ticket now, and which one opens a ticket that comes back.
//!
//! Keys belong to epochs of [`ROTATION`], counted from 1970, and are derived from the process's secret and the epoch's
//! number. So every worker, every restart and every host that shares the secret has the same keys at the same time without
//! a word between them. A ticket names its epoch; tickets of the epochs before and after this one are opened too, which
//! lets a ticket live for [`ROTATION`] at least and forgives clocks that differ.
//!
//! ```text
//! key name on the wire, 16 bytes:  epoch 64 | tag 64
//! root  = HKDF-Extract("spooky session ticket", secret)
//! epoch = HKDF-Expand(root, "ticket v1" | epoch, 56)  =  tag 8 | AES-128 key 16 | HMAC key 32
//! ```

use ring::hkdf;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long one key seals.
pub const ROTATION: Duration = Duration::from_secs(6 * 60 * 60);

/// Bytes of a key's name (fixed by the library).
pub(super) const NAME_LEN: usize = 16;
const TAG_LEN: usize = 8;

/// The keys of all epochs. Cheap to clone; all workers share one.
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

/// The key of one epoch.
#[derive(PartialEq, Eq)]
pub(super) struct TicketKey {
    pub(super) name: [u8; NAME_LEN],
    /// AES-128-CBC.
    pub(super) cipher: [u8; 16],
    /// HMAC-SHA-256.
    pub(super) mac: [u8; 32],
}

impl TicketKeys {
    /// Derives the keys from the process's secret. `clock` tells the seconds since 1970: it is asked by the library's
    /// callback in the middle of a handshake, where no turn's time comes along.
    pub fn derive(secret: &[u8], clock: fn() -> u64) -> Self {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, b"spooky session ticket").extract(secret);
        Self(Arc::new(Root { secret, clock }))
    }

    /// The key that seals now.
    pub(super) fn current(&self) -> TicketKey {
        self.key(self.epoch())
    }

    /// The key of a ticket that came; `None` if it is not ours, or too old.
    pub(super) fn find(&self, name: &[u8; NAME_LEN]) -> Option<TicketKey> {
        let (epoch, _) = name.split_first_chunk()?;
        let epoch = u64::from_be_bytes(*epoch);
        // A name is public, so its comparison may take any time.
        (epoch.abs_diff(self.epoch()) <= 1).then(|| self.key(epoch)).filter(|key| key.name == *name)
    }

    fn epoch(&self) -> u64 {
        (self.0.clock)() / ROTATION.as_secs()
    }

    fn key(&self, epoch: u64) -> TicketKey {
        struct Length;
        impl hkdf::KeyType for Length {
            fn len(&self) -> usize {
                TAG_LEN + 16 + 32
            }
        }
        let number = epoch.to_be_bytes();
        let mut bytes = [0; TAG_LEN + 16 + 32];
        let info = [b"ticket v1", &number[..]];
        let filled = self.0.secret.expand(&info, Length).and_then(|okm| okm.fill(&mut bytes));
        assert!(filled.is_ok(), "HKDF gives up to 255 × 32 bytes");
        let mut key = TicketKey { name: [0; NAME_LEN], cipher: [0; 16], mac: [0; 32] };
        key.name[..8].copy_from_slice(&number);
        key.name[8..].copy_from_slice(&bytes[..TAG_LEN]);
        key.cipher.copy_from_slice(&bytes[TAG_LEN..TAG_LEN + 16]);
        key.mac.copy_from_slice(&bytes[TAG_LEN + 16..]);
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: u64 = ROTATION.as_secs();

    #[test]
    fn the_same_secret_gives_the_same_keys_and_another_one_does_not() {
        let keys = |secret: &[u8]| TicketKeys::derive(secret, || 80_000 * EPOCH + 5).current();
        assert!(keys(b"secret") == keys(b"secret"));
        let (one, other) = (keys(b"secret"), keys(b"another"));
        assert!(one.cipher != other.cipher && one.mac != other.mac && one.name != other.name);
        // Both say when they were made, and nothing else that is equal.
        assert_eq!(one.name[..8], 80_000_u64.to_be_bytes());
        assert_eq!(other.name[..8], one.name[..8]);
    }

    #[test]
    fn keys_of_the_epochs_before_and_after_are_found_and_no_others() {
        let at = |clock| TicketKeys::derive(b"secret", clock);
        let now = at(|| 7 * EPOCH);
        for (other, found) in [
            (at(|| 7 * EPOCH + EPOCH - 1), true),
            (at(|| 7 * EPOCH - 1), true),
            (at(|| 6 * EPOCH), true),
            (at(|| 8 * EPOCH), true),
            (at(|| 6 * EPOCH - 1), false),
            (at(|| 9 * EPOCH), false),
        ] {
            let key = other.current();
            assert!(now.find(&key.name).map(|same| same == key).unwrap_or(false) == found);
        }
    }

    #[test]
    fn each_epoch_has_its_own_keys() {
        let keys = TicketKeys::derive(b"secret", || 0);
        let (one, next) = (keys.key(1), keys.key(2));
        assert!(one.cipher != next.cipher && one.mac != next.mac && one.name[8..] != next.name[8..]);
    }

    #[test]
    fn names_of_others_and_edges_of_time_are_refused() {
        let keys = TicketKeys::derive(b"secret", || 0);
        let mut name = keys.current().name;
        name[15] ^= 1;
        assert!(keys.find(&name).is_none());
        assert!(keys.find(&[0xff; NAME_LEN]).is_none());
        assert!(keys.find(&[0; NAME_LEN]).is_none());
        assert!(TicketKeys::derive(b"secret", || u64::MAX).find(&[0xff; NAME_LEN]).is_none());
    }
}
