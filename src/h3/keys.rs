//! Owns what the QUIC side derives from the process's secret, each with a label of its own (HKDF-SHA-256): nothing that
//! is shown to a client tells anything of another key.

use super::cid::{CidKeys, expand};
use ring::hkdf;

/// Every key of an endpoint; the same on all workers, and in all processes that share the secret.
#[derive(Clone)]
pub struct EndpointKeys {
    /// Of connection IDs and stateless resets.
    pub cid: CidKeys,
    /// Of address validation tokens.
    pub(super) token: [u8; 32],
    /// Of bytes that have to look random and need not be secret.
    pub(super) noise: [u8; 32],
}

impl std::fmt::Debug for EndpointKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EndpointKeys(..)")
    }
}

impl EndpointKeys {
    /// Derives the keys from the process's secret.
    pub fn derive(secret: &[u8]) -> Self {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"spooky address validation").extract(secret);
        let mut keys = Self { cid: CidKeys::derive(secret), token: [0; 32], noise: [0; 32] };
        expand(&root, b"token v1", &mut keys.token);
        expand(&root, b"noise v1", &mut keys.noise);
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_depend_on_the_secret_and_differ_from_each_other() {
        let keys = EndpointKeys::derive(b"secret");
        let again = EndpointKeys::derive(b"secret");
        let other = EndpointKeys::derive(b"another");
        assert_eq!((keys.token, keys.noise), (again.token, again.noise));
        assert_ne!(keys.token, other.token);
        assert_ne!(keys.token, keys.noise);
        assert_eq!(format!("{keys:?}"), "EndpointKeys(..)");
    }
}
