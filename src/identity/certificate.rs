//! Reads the little that we ask of a certificate ourselves: the host names it is for, and what a refusal tells of it. Whether
//! it can be trusted is for the TLS stacks.

use std::net::{Ipv4Addr, Ipv6Addr};

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

/// What a certificate says, for people. What cannot be read is shown as `?`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateText {
    /// The common name, or else the organisation, it is for.
    pub subject: String,
    /// The same of who signed it.
    pub issuer: String,
    /// The first day on which it is good, in UTC: `2026-01-31`.
    pub from: String,
    /// The last one.
    pub until: String,
    /// Host names and addresses that it is for.
    pub names: Vec<String>,
}

/// Names that are shown of a certificate.
const NAMES_SHOWN: usize = 8;

impl CertificateText {
    /// Reads a certificate in DER.
    pub fn of(certificate: &[u8]) -> Self {
        let unknown = || "?".to_owned();
        let read = || {
            let mut body = Der(Der(Der(certificate).next_of(0x30)?).next_of(0x30)?);
            let mut next = body.next()?;
            // [0] EXPLICIT Version
            if next.0 == 0xa0 {
                next = body.next()?;
            }
            let (_serial, _algorithm) = (next, body.next_of(0x30)?);
            let issuer = common_name(body.next_of(0x30)?);
            let mut validity = Der(body.next_of(0x30)?);
            let days = (validity.next().and_then(day), validity.next().and_then(day));
            Some((issuer, days, common_name(body.next_of(0x30)?)))
        };
        let (issuer, (from, until), subject) = read().unwrap_or_default();
        Self {
            subject: subject.unwrap_or_else(unknown),
            issuer: issuer.unwrap_or_else(unknown),
            from: from.unwrap_or_else(unknown),
            until: until.unwrap_or_else(unknown),
            names: alternative_names(certificate).map(names).unwrap_or_default(),
        }
    }
}

/// The first [`NAMES_SHOWN`] host names and addresses of a GeneralNames, and that there are more.
fn names(alternatives: &[u8]) -> Vec<String> {
    let mut alternatives = Der(alternatives);
    let mut names = Vec::new();
    while let Some((tag, value)) = alternatives.next() {
        let name = match tag {
            // [2] IMPLICIT IA5String
            0x82 => value.escape_ascii().to_string(),
            // [7] IMPLICIT OCTET STRING
            0x87 => match (<[u8; 4]>::try_from(value), <[u8; 16]>::try_from(value)) {
                (Ok(address), _) => Ipv4Addr::from(address).to_string(),
                (_, Ok(address)) => Ipv6Addr::from(address).to_string(),
                _ => continue,
            },
            _ => continue,
        };
        if names.len() == NAMES_SHOWN {
            names.push("…".to_owned());
            break;
        }
        names.push(name);
    }
    names
}

/// The common name of a Name (RFC 5280 §4.1.2.4), or else its organisation.
fn common_name(name: &[u8]) -> Option<String> {
    const COMMON_NAME: &[u8] = &[0x55, 4, 3];
    const ORGANISATION: &[u8] = &[0x55, 4, 10];
    let mut sets = Der(name);
    let mut organisation = None;
    while let Some(set) = sets.next_of(0x31) {
        let mut attribute = Der(Der(set).next_of(0x30)?);
        let (kind, (_, value)) = (attribute.next_of(0x06)?, attribute.next()?);
        let text = || String::from_utf8_lossy(value).chars().filter(|c| !c.is_control()).take(64).collect();
        if kind == COMMON_NAME {
            return Some(text());
        }
        if kind == ORGANISATION {
            organisation = Some(text());
        }
    }
    organisation
}

/// The day of a UTCTime (0x17) or GeneralizedTime (0x18), RFC 5280 §4.1.2.5.
fn day((tag, text): (u8, &[u8])) -> Option<String> {
    let digits = str::from_utf8(text).ok().filter(|text| text.is_ascii())?;
    let (century, digits) = match tag {
        0x17 if digits.get(..2)? < "50" => ("20", digits),
        0x17 => ("19", digits),
        0x18 => (digits.get(..2)?, digits.get(2..)?),
        _ => return None,
    };
    Some(format!("{century}{}-{}-{}", digits.get(..2)?, digits.get(2..4)?, digits.get(4..6)?))
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
    fn a_certificate_tells_whose_it_is_and_until_when() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec!["a.test".to_owned(), "192.0.2.1".to_owned()]).unwrap();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::OrganizationName, "An organisation");
        parameters.not_before = rcgen::date_time_ymd(1999, 12, 31);
        parameters.not_after = rcgen::date_time_ymd(2051, 2, 3);
        let text =
            |parameters: &rcgen::CertificateParams| CertificateText::of(parameters.self_signed(&key).unwrap().der());
        let told = text(&parameters);
        assert_eq!((told.subject.as_str(), told.issuer.as_str()), ("An organisation", "An organisation"));
        assert_eq!((told.from.as_str(), told.until.as_str()), ("1999-12-31", "2051-02-03"));
        assert_eq!(told.names, ["a.test", "192.0.2.1"]);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "A name\n");
        assert_eq!(text(&parameters).subject, "A name");
        let broken = CertificateText::of(b"nonsense");
        assert_eq!((broken.subject.as_str(), broken.until.as_str(), broken.names.len()), ("?", "?", 0));
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
                assert!(CertificateText::of(&broken).names.len() <= NAMES_SHOWN + 1);
            }
        }
    }
}
