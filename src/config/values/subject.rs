//! What a request carries under a name: which names there can be, and the word for one, as in `cookie:session`.
//!
//! Matchers of routes, splits, consistent hashing and rate limits look at the same things and are judged here alike.

use crate::http::Known;
use crate::http::edits::EditedName;
use crate::http::syntax::is_token;
use crate::route::{Source, Subject};

/// What is wrong, and how it is written.
pub type Wrong = (&'static str, &'static str);

/// `header:NAME`, `cookie:NAME` or `query:NAME`, with the name as it is compared. `None`: it is no such word. `of_host` helps
/// whoever means the host.
///
/// # Errors
/// What is wrong with the name.
pub(super) fn named(text: &str, of_host: &'static str) -> Option<Result<(Source, Box<str>), Wrong>> {
    let (kind, name) = text.split_once(':')?;
    let source = [Source::Header, Source::Cookie, Source::Query].into_iter().find(|source| source.as_str() == kind)?;
    Some(judge(source, name, of_host).map(|()| match source {
        Source::Header => (source, name.to_ascii_lowercase().into()),
        Source::Cookie | Source::Query => (source, name.into()),
    }))
}

/// A value by its source and name.
///
/// # Errors
/// What is wrong with the name.
pub fn subject(source: Source, name: &str, of_host: &'static str) -> Result<Subject, Wrong> {
    judge(source, name, of_host).map(|()| Subject::new(source, name))
}

fn judge(source: Source, name: &str, of_host: &'static str) -> Result<(), Wrong> {
    match source {
        Source::Query if name.is_empty() => Err(("a parameter has a name", "write it as requests do")),
        // The names of cookies are tokens, too (RFC 6265 §4.1.1).
        Source::Cookie if !is_token(name.as_bytes()) => {
            Err(("this is not the name of a cookie", "write it like \"session\""))
        }
        Source::Header => match EditedName::parse(name) {
            None => Err(("this is not a field name", "write it like \"x-environment\"")),
            Some(field) if field.as_field().known == Some(Known::Host) => Err(("the host is no field here", of_host)),
            Some(field) if field.as_field().known == Some(Known::Cookie) => {
                Err(("cookies are looked at one by one", "use `cookies`, or \"cookie:<name>\""))
            }
            Some(field) if field.is_ours() => Err((
                "a field of this name belongs to one connection, so it says something else on every protocol",
                "look at another field",
            )),
            Some(_) => Ok(()),
        },
        Source::Query | Source::Cookie => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "use `host`";

    #[test]
    fn names_are_kept_as_they_are_compared() {
        for (text, source, name) in [
            ("header:X-Tenant", Source::Header, "x-tenant"),
            ("header:Authorization", Source::Header, "authorization"),
            ("cookie:SID", Source::Cookie, "SID"),
            ("query:User%20Name", Source::Query, "User%20Name"),
        ] {
            assert_eq!(named(text, HOST), Some(Ok((source, name.into()))), "{text}");
        }
        for text in ["", "header", "headers:x", "Header:x", "client_ip"] {
            assert_eq!(named(text, HOST), None, "{text}");
        }
    }

    #[test]
    fn what_no_request_has_or_every_protocol_has_otherwise_is_refused() {
        for (text, wrong) in [
            ("header:", "not a field name"),
            ("header:x y", "not a field name"),
            ("header:Cookie", "one by one"),
            ("header:connection", "belongs to one connection"),
            ("header:Content-Length", "belongs to one connection"),
            ("cookie:", "not the name of a cookie"),
            ("cookie:a=b", "not the name of a cookie"),
            ("query:", "has a name"),
        ] {
            let (said, _) = named(text, HOST).expect("a word of these").expect_err(text);
            assert!(said.contains(wrong), "{text}: {said}");
        }
        assert_eq!(named("header:Host", HOST), Some(Err(("the host is no field here", HOST))));
    }
}
