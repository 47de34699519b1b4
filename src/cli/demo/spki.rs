//! The hash by which Chromium can be told to trust a certificate's key.

use crate::identity::base64;
use ring::digest;

/// SHA-256 of the certificate's SubjectPublicKeyInfo, in base64.
pub(super) fn hash(certificate: &[u8]) -> Option<String> {
    let info = public_key_info(certificate)?;
    Some(base64(digest::digest(&digest::SHA256, info).as_ref()))
}

/// The SubjectPublicKeyInfo of a certificate, with its header (RFC 5280 §4.1).
fn public_key_info(certificate: &[u8]) -> Option<&[u8]> {
    const CONTEXT_0: u8 = 0xa0;
    let (_, certificate, _) = element(certificate)?;
    let (_, mut rest, _) = element(certificate)?;
    // version (may be absent), serial number, signature, issuer, validity, subject, subject public key info
    if element(rest)?.0 == CONTEXT_0 {
        rest = element(rest)?.2;
    }
    for _ in 0..5 {
        rest = element(rest)?.2;
    }
    let behind = element(rest)?.2;
    Some(&rest[..rest.len() - behind.len()])
}

/// The first DER element: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, behind) = rest.split_at_checked(len)?;
    Some((tag, content, behind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    #[test]
    fn the_key_of_our_own_certificate_is_found() {
        let identity = Identity::self_signed(&["localhost"]).unwrap();
        let info = public_key_info(identity.leaf()).unwrap();
        // SEQUENCE { SEQUENCE { ecPublicKey, prime256v1 }, BIT STRING of an uncompressed point }: always 91 bytes.
        assert_eq!(info.len(), 91);
        assert!(info.starts_with(&[0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce]));
        assert_eq!(hash(identity.leaf()).unwrap().len(), 44);
    }

    #[test]
    fn nonsense_has_no_key() {
        let certificate = Identity::self_signed(&["localhost"]).unwrap().leaf().to_vec();
        for len in 0..certificate.len().min(200) {
            assert_eq!(hash(&certificate[..len]), None);
        }
        assert_eq!(hash(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0]), None);
    }
}
