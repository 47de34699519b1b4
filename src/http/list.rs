//! Owns the comma-separated lists of field values (RFC 9110 §5.6.1). It refuses to know which field it reads.

/// The elements of a list of tokens: trimmed, empty ones skipped. Quoted strings are not understood; use it for
/// fields whose elements are tokens (Connection, TE, Transfer-Encoding, Expect).
pub fn elements(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|element| !element.is_empty())
}

/// The elements of a list in which a comma may stand inside a quoted string (Forwarded).
pub fn quoted_elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    split_quoted(value, b',').filter(|element| !element.is_empty())
}

/// The parts of `value` between separators that stand outside quoted strings, trimmed.
pub fn split_quoted(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped) = (false, false);
        for (at, &byte) in text.iter().enumerate() {
            if escaped {
                escaped = false;
            } else if quoted && byte == b'\\' {
                escaped = true;
            } else if byte == b'"' {
                quoted = !quoted;
            } else if byte == separator && !quoted {
                rest = Some(&text[at + 1..]);
                return Some(trim(&text[..at]));
            }
        }
        rest = None;
        Some(trim(text))
    })
}

/// `value` without spaces and tabs at its ends.
#[inline]
pub fn trim(value: &[u8]) -> &[u8] {
    let mut value = value;
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_trimmed_and_empty_ones_skipped() {
        let all: Vec<_> = elements(b" a ,,\tb\t,c d, ").collect();
        assert_eq!(all, [b"a".as_slice(), b"b", b"c d"]);
        assert_eq!(elements(b"").count(), 0);
    }

    #[test]
    fn a_comma_inside_quotes_does_not_split() {
        let all: Vec<_> = quoted_elements(br#"for="a,\",b" , for=c,"#).collect();
        assert_eq!(all, [br#"for="a,\",b""#.as_slice(), b"for=c"]);
        // An unterminated string takes the rest.
        assert_eq!(quoted_elements(br#"a, "b, c"#).count(), 2);
    }
}
