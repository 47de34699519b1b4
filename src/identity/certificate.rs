//! Reads the little that we ask of a certificate ourselves: the host names it is for. Whether it can be trusted is for the
//! TLS stacks.

/// OID 2.5.29.17, subjectAltName (RFC 5280 §4.2.1.6).
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// The dNSNames of a certificate in DER; empty for one that has none or cannot be read.
pub fn host_names(certificate: &[u8]) -> Vec<&str> {
    let mut names = Vec::new();
    let Some(alternatives) = alternative_names(certificate) else {
        return names;
    };
    let mut alternatives = Der(alternatives);
    while let Some((tag, value)) = alternatives.next() {
        // [2] IMPLICIT IA5String
        if tag == 0x82
            && let Ok(name) = str::from_utf8(value)
        {
            names.push(name);
        }
    }
    names
}

/// The content of the subjectAltName extension.
fn alternative_names(certificate: &[u8]) -> Option<&[u8]> {
    let body = Der(Der(certificate).next_of(0x30)?).next_of(0x30)?;
    let mut body = Der(body);
    // [3] EXPLICIT Extensions
    let extensions = std::iter::from_fn(|| body.next()).find(|(tag, _)| *tag == 0xa3)?.1;
    let mut extensions = Der(Der(extensions).next_of(0x30)?);
    while let Some((0x30, extension)) = extensions.next() {
        let mut extension = Der(extension);
        if extension.next_of(0x06)? != SUBJECT_ALT_NAME {
            continue;
        }
        // The value stands last, maybe behind a `critical`.
        let value = std::iter::from_fn(|| extension.next()).find(|(tag, _)| *tag == 0x04)?.1;
        return Der(value).next_of(0x30);
    }
    None
}

/// Elements of DER, one after the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Tag and content of the next element; `None` at the end and for what is not DER.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk::<2>()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The content of the next element if it has this tag.
    fn next_of(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.next().filter(|(tag, _)| *tag == wanted).map(|(_, content)| content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    #[test]
    fn host_names_are_those_of_the_extension() {
        let identity = Identity::self_signed(&["a.test", "127.0.0.1", "*.b.test"]).unwrap();
        assert_eq!(host_names(identity.leaf()), ["a.test", "*.b.test"]);
        let addresses = Identity::self_signed(&["127.0.0.1"]).unwrap();
        assert!(host_names(addresses.leaf()).is_empty());
    }

    #[test]
    fn broken_certificates_have_no_names_and_harm_nobody() {
        let identity = Identity::self_signed(&["a.test", "b.test"]).unwrap();
        let leaf = identity.leaf();
        for length in 0..leaf.len() {
            assert!(host_names(&leaf[..length]).is_empty(), "cut at {length}");
        }
        for at in 0..leaf.len() {
            for value in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut broken = leaf.to_vec();
                broken[at] = value;
                assert!(host_names(&broken).len() <= 8);
            }
        }
    }
}
