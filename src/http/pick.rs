//! Owns the reading of one thing out of a request's head by its name: a cookie, a parameter of the query, a bearer token.
//! What comes out is borrowed and stands as it was sent: nothing is decoded, nothing unquoted. It refuses to know what it
//! is wanted for. A field by its name is [`Fields::find`].

use super::fields::Fields;
use super::known::Known;
use super::list;

/// The value of the first cookie with this name (RFC 6265 §4.2.1); names have their case.
pub fn cookie<'a>(fields: &'a Fields, name: &[u8]) -> Option<&'a [u8]> {
    let pairs = fields.get_all(Known::Cookie).flat_map(|value| value.split(|&byte| byte == b';'));
    pairs.map(list::trim).find_map(|pair| value_of(pair, name))
}

/// The value of the first parameter with this name in a query; it is empty for one without `=`.
pub fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| match pair.split_once('=') {
        Some((found, value)) => (found == name).then_some(value),
        None => (pair == name).then_some(""),
    })
}

/// The token of `Authorization: Bearer` (RFC 6750 §2.1); the word has no case.
pub fn bearer_token(fields: &Fields) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer";
    let (scheme, rest) = fields.get(Known::Authorization)?.split_at_checked(SCHEME.len())?;
    let token = list::trim(rest);
    (scheme.eq_ignore_ascii_case(SCHEME) && rest.starts_with(b" ") && !token.is_empty()).then_some(token)
}

fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let at = pair.iter().position(|&byte| byte == b'=')?;
    (&pair[..at] == name).then(|| &pair[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in pairs {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields
    }

    fn text(found: Option<&[u8]>) -> Option<&str> {
        found.map(|found| str::from_utf8(found).expect("the tests write text"))
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let head = fields(&[("cookie", "a=1; ab=2;b=x=y;  c = 3 ; d=\"q;r\"; flag"), ("cookie", "a=9; e=5; f=")]);
        for (name, expected) in [
            ("a", Some("1")),
            ("ab", Some("2")),
            ("b", Some("x=y")),
            ("A", None),
            ("c", None),
            ("c ", Some(" 3")),
            // A `;` always ends a cookie, quoted or not (RFC 6265 §4.1.1).
            ("d", Some("\"q")),
            ("flag", None),
            ("e", Some("5")),
            ("f", Some("")),
            ("", None),
        ] {
            assert_eq!(text(cookie(&head, name.as_bytes())), expected, "{name:?}");
        }
        assert_eq!(cookie(&Fields::new(), b"a"), None);
        assert_eq!(cookie(&fields(&[("cookie", "; ;=;")]), b"a"), None);
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
            assert_eq!(parameter(query, name), expected, "{name:?}");
        }
        assert_eq!(parameter("", "a"), None);
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
            assert_eq!(text(bearer_token(&fields(&[("authorization", value)]))), expected, "{value:?}");
        }
        assert_eq!(bearer_token(&Fields::new()), None);
    }
}
