//! Owns how one value is found in a query, among cookies and in credentials: the first of its name. It refuses to know what the
//! value is for.

use super::fields::Fields;
use super::known::Known;
use super::list::trim;
use super::syntax::hex;

/// The first value of `name` in a query (`a=1&b`), read as forms are written: escapes decoded once, `+` a space. A parameter
/// without `=` has the empty value. `scratch` takes what had to be decoded; its memory is kept.
pub fn query_value<'a>(query: &'a str, name: &[u8], scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    let mut parameters = query.as_bytes().split(|&byte| byte == b'&').map(halves);
    let (_, value) = parameters.find(|(written, _)| decodes_to(written, name))?;
    if !value.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Some(value);
    }
    scratch.clear();
    scratch.extend(decoded(value));
    Some(scratch)
}

/// The same as it was sent, nothing of it or of its name decoded.
pub fn query_value_as_sent<'a>(query: &'a str, name: &[u8]) -> Option<&'a [u8]> {
    let mut parameters = query.as_bytes().split(|&byte| byte == b'&').map(halves);
    parameters.find(|(written, _)| *written == name).map(|(_, value)| value)
}

/// The first cookie of `name` (RFC 6265 §4.2.1), as sent, in however many lines the client sent them.
pub fn cookie_value<'a>(fields: &'a Fields, name: &[u8]) -> Option<&'a [u8]> {
    let crumbs = fields.get_all(Known::Cookie).flat_map(|line| line.split(|&byte| byte == b';'));
    crumbs.map(|crumb| halves(trim(crumb))).find(|(written, _)| *written == name).map(|(_, value)| value)
}

/// The token of `Authorization: Bearer` (RFC 6750 §2.1); the word has no case.
pub fn bearer_token(fields: &Fields) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer";
    let (scheme, rest) = fields.get(Known::Authorization)?.split_at_checked(SCHEME.len())?;
    let token = trim(rest);
    (scheme.eq_ignore_ascii_case(SCHEME) && rest.starts_with(b" ") && !token.is_empty()).then_some(token)
}

/// What stands before and behind the first `=`.
fn halves(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|&byte| byte == b'=') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, b""),
    }
}

fn decodes_to(written: &[u8], name: &[u8]) -> bool {
    // An escape is longer than what it stands for, so most names differ in their length already.
    written.len() >= name.len() && decoded(written).eq(name.iter().copied())
}

/// The bytes that a part of a query stands for; a `%` that begins no escape is itself.
fn decoded(text: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (&first, behind) = rest.split_first()?;
        let escape = |high: u8, low: u8| Some(hex(high)? << 4 | hex(low)?);
        if let [b'%', high, low, ..] = *rest
            && let Some(byte) = escape(high, low)
        {
            rest = &rest[3..];
            return Some(byte);
        }
        rest = behind;
        Some(if first == b'+' { b' ' } else { first })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_parameter_of_a_name_counts() {
        for (query, name, expected) in [
            ("a=1&b=2", "b", Some("2")),
            ("a=1&a=2", "a", Some("1")),
            ("a", "a", Some("")),
            ("a=", "a", Some("")),
            ("a=b=c", "a", Some("b=c")),
            ("ab=1", "a", None),
            ("", "a", None),
            ("&&a=1", "a", Some("1")),
            ("%61=%31+2", "a", Some("1 2")),
            ("a+b=1", "a b", Some("1")),
            ("a=%zz%", "a", Some("%zz%")),
            ("a=%2561", "a", Some("%61")),
        ] {
            let mut scratch = Vec::new();
            let value = query_value(query, name.as_bytes(), &mut scratch);
            assert_eq!(value, expected.map(str::as_bytes), "{query} {name}");
        }
    }

    #[test]
    fn parameters_are_found_as_they_were_sent() {
        let query = "a=1&ab=2&a=3&b=%41&flag&c==&&=x&%61=9";
        for (name, expected) in [
            ("a", Some("1")),
            ("ab", Some("2")),
            ("b", Some("%41")),
            ("flag", Some("")),
            ("c", Some("=")),
            ("%61", Some("9")),
            ("A", None),
            ("fla", None),
        ] {
            assert_eq!(query_value_as_sent(query, name.as_bytes()), expected.map(str::as_bytes), "{name:?}");
        }
        assert_eq!(query_value_as_sent("", b"a"), None);
    }

    #[test]
    fn cookies_are_found_in_one_line_or_in_crumbs() {
        let mut fields = Fields::new();
        for line in ["a=1; b=2", "c=3;d", "a=4"] {
            fields.push_known(Known::Cookie, line.as_bytes());
        }
        for (name, expected) in
            [("a", Some("1")), ("b", Some("2")), ("c", Some("3")), ("d", Some("")), ("A", None), ("", None)]
        {
            assert_eq!(cookie_value(&fields, name.as_bytes()), expected.map(str::as_bytes), "{name}");
        }
    }

    fn authorized(value: &str) -> Fields {
        let mut fields = Fields::new();
        fields.push_known(Known::Authorization, value.as_bytes());
        fields
    }

    #[test]
    fn a_bearer_token_is_what_stands_behind_the_word() {
        for (value, expected) in [
            ("Bearer abc.def", Some("abc.def")),
            ("bearer  abc", Some("abc")),
            ("BEARER a b", Some("a b")),
            ("Bearer", None),
            ("Bearer ", None),
            ("Bearerabc", None),
            ("Basic YWJj", None),
            ("Be", None),
            ("", None),
        ] {
            assert_eq!(bearer_token(&authorized(value)), expected.map(str::as_bytes), "{value:?}");
        }
        assert_eq!(bearer_token(&Fields::new()), None);
    }
}
