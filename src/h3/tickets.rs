//! Owns the keys of the QUIC side's session tickets: which key seals a ticket now, and which one opens a ticket that comes
//! back. Secret and epochs are [`TicketKeys`]'; a ticket names its epoch.
//!
//! ```text
//! key name on the wire, 16 bytes:  epoch 64 | tag 64
//! epoch = HKDF-Expand(root, "ticket v1" | epoch, 56)  =  tag 8 | AES-128 key 16 | HMAC key 32
//! ```

pub use crate::identity::{ROTATION, TicketKeys};

/// Bytes of a key's name (fixed by the library).
pub(super) const NAME_LEN: usize = 16;
const TAG_LEN: usize = 8;

/// The key of one epoch.
#[derive(PartialEq, Eq)]
pub(super) struct TicketKey {
    pub(super) name: [u8; NAME_LEN],
    /// AES-128-CBC.
    pub(super) cipher: [u8; 16],
    /// HMAC-SHA-256.
    pub(super) mac: [u8; 32],
}

impl TicketKey {
    /// The key that seals now.
    pub(super) fn current(keys: &TicketKeys) -> Self {
        Self::of_epoch(keys, keys.epoch())
    }

    /// The key of a ticket that came; `None` if it is not ours, or too old.
    pub(super) fn find(keys: &TicketKeys, name: &[u8; NAME_LEN]) -> Option<Self> {
        let (epoch, _) = name.split_first_chunk()?;
        let epoch = u64::from_be_bytes(*epoch);
        // A name is public, so its comparison may take any time.
        keys.accepts(epoch).then(|| Self::of_epoch(keys, epoch)).filter(|key| key.name == *name)
    }

    fn of_epoch(keys: &TicketKeys, epoch: u64) -> Self {
        let number = epoch.to_be_bytes();
        let mut bytes = [0; TAG_LEN + 16 + 32];
        keys.expand(&[b"ticket v1", &number], &mut bytes);
        let mut key = Self { name: [0; NAME_LEN], cipher: [0; 16], mac: [0; 32] };
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
        let keys = |secret: &[u8]| TicketKey::current(&TicketKeys::derive(secret, || 80_000 * EPOCH + 5));
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
            let key = TicketKey::current(&other);
            assert!(TicketKey::find(&now, &key.name).map(|same| same == key).unwrap_or(false) == found);
        }
    }

    #[test]
    fn each_epoch_has_its_own_keys() {
        let keys = TicketKeys::derive(b"secret", || 0);
        let (one, next) = (TicketKey::of_epoch(&keys, 1), TicketKey::of_epoch(&keys, 2));
        assert!(one.cipher != next.cipher && one.mac != next.mac && one.name[8..] != next.name[8..]);
    }

    #[test]
    fn names_of_others_and_edges_of_time_are_refused() {
        let keys = TicketKeys::derive(b"secret", || 0);
        let mut name = TicketKey::current(&keys).name;
        name[15] ^= 1;
        assert!(TicketKey::find(&keys, &name).is_none());
        assert!(TicketKey::find(&keys, &[0xff; NAME_LEN]).is_none());
        assert!(TicketKey::find(&keys, &[0; NAME_LEN]).is_none());
        assert!(TicketKey::find(&TicketKeys::derive(b"secret", || u64::MAX), &[0xff; NAME_LEN]).is_none());
    }
}
