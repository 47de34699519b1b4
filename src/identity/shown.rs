//! Owns how the certificate that a client showed is told to others: as the byte sequences of RFC 9440 (RFC 8941 §3.3.5).

use super::base64;
use std::fmt;

/// A client's certificate in the words of RFC 9440. Made once for a connection.
#[derive(PartialEq, Eq)]
pub struct ShownCertificate {
    leaf: Box<[u8]>,
    chain: Option<Box<[u8]>>,
}

impl fmt::Debug for ShownCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShownCertificate(..)")
    }
}

impl ShownCertificate {
    /// From the certificates in DER, the client's own first; `None` if there is none.
    pub fn new<'a>(mut certificates: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let sequence = |der: &[u8]| format!(":{}:", base64(der));
        let leaf = sequence(certificates.next()?).into_bytes().into();
        let others: Vec<String> = certificates.map(sequence).collect();
        let chain = (!others.is_empty()).then(|| others.join(", ").into_bytes().into());
        Some(Self { leaf, chain })
    }

    /// The value of Client-Cert.
    pub fn leaf(&self) -> &[u8] {
        &self.leaf
    }

    /// The value of Client-Cert-Chain, without the client's own certificate; `None` if it sent no others.
    pub fn chain(&self) -> Option<&[u8]> {
        self.chain.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_byte_sequences() {
        let shown = |certificates: &[&'static [u8]]| ShownCertificate::new(certificates.iter().copied());
        assert!(shown(&[]).is_none());
        let one = shown(&[b"foob"]).unwrap();
        assert_eq!((one.leaf(), one.chain()), (&b":Zm9vYg==:"[..], None));
        let three = shown(&[b"f", b"fo", b"foo"]).unwrap();
        assert_eq!((three.leaf(), three.chain()), (&b":Zg==:"[..], Some(&b":Zm8=:, :Zm9v:"[..])));
    }
}
