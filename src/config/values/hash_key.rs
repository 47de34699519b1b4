//! What consistent hashing keeps together: a word, or a kind and a name as in `cookie:session`.

use super::super::suggest;
use super::subject::named;
use crate::config::generation::HashKey;
use crate::config::schema::{Key, Reader, Shape, Value};
use crate::config::tree::{Node, Value as TreeValue};
use crate::route::Source;

const FORMS: [&str; 10] = [
    "path",
    "authority",
    "method",
    "cid",
    "peer_ip",
    "client_ip",
    "bearer_token",
    "header:NAME",
    "cookie:NAME",
    "query:NAME",
];

impl Value for HashKey {
    const SHAPE: Shape = Shape::Text("hash key");

    fn read(node: &Node, key: &Key, reader: &mut Reader<'_>) -> Option<Self> {
        let TreeValue::Text(text) = &node.value else {
            return reader.refuse_type(node, key, "a string", "");
        };
        match parse(text) {
            Ok(hash_key) => Some(hash_key),
            Err((wrong, help)) => reader.refuse(node, format!("`{}`: {wrong}", key.name()), &help),
        }
    }
}

/// # Errors
/// What is wrong and how it is written.
fn parse(text: &str) -> Result<HashKey, (&'static str, String)> {
    if let Some(found) = named(text, "write \"authority\"") {
        let (source, name) = found.map_err(|(wrong, help)| (wrong, help.to_owned()))?;
        return match source {
            Source::Header => Ok(HashKey::Header(name)),
            Source::Cookie => Ok(HashKey::Cookie(name)),
            // Names are compared as they were sent, so what no request can send would never be found.
            Source::Query if name.bytes().all(|byte| byte.is_ascii_graphic() && !b"&=#".contains(&byte)) => {
                Ok(HashKey::Query(name))
            }
            Source::Query => {
                Err(("this is not the name of a parameter", "write it as requests do, escapes included".to_owned()))
            }
        };
    }
    Ok(match text {
        "path" => HashKey::Path,
        "authority" => HashKey::Authority,
        "method" => HashKey::Method,
        "cid" => HashKey::Cid,
        "peer_ip" => HashKey::PeerIp,
        "client_ip" => HashKey::ClientIp,
        "bearer_token" => HashKey::BearerToken,
        "header" | "cookie" | "query" => return Err(("the name is missing", format!("write \"{text}:NAME\""))),
        _ => return Err(unknown(text.split(':').next().unwrap_or(text))),
    })
}

fn unknown(word: &str) -> (&'static str, String) {
    let help =
        match suggest::nearest(word, FORMS.iter().map(|form| form.trim_end_matches("NAME").trim_end_matches(':'))) {
            Some(near) => {
                let form = FORMS.iter().find(|form| form.starts_with(near)).copied().unwrap_or(near);
                format!("did you mean \"{form}\"?")
            }
            None => format!("it can be {}", FORMS.map(|form| format!("\"{form}\"")).join(", ")),
        };
    ("this is no part of a request", help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        for (text, expected) in [
            ("path", HashKey::Path),
            ("authority", HashKey::Authority),
            ("method", HashKey::Method),
            ("cid", HashKey::Cid),
            ("peer_ip", HashKey::PeerIp),
            ("client_ip", HashKey::ClientIp),
            ("bearer_token", HashKey::BearerToken),
            ("header:X-Tenant", HashKey::Header("x-tenant".into())),
            ("cookie:Session", HashKey::Cookie("Session".into())),
            ("query:user%5Bid%5D", HashKey::Query("user%5Bid%5D".into())),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        assert!(FORMS.iter().all(|form| parse(form).is_ok()));
    }

    #[test]
    fn what_is_wrong_is_said_with_a_way_out() {
        for (text, wrong, help) in [
            ("client-ip", "no part of a request", "did you mean \"client_ip\"?"),
            ("paht", "no part of a request", "did you mean \"path\"?"),
            ("headers:x", "no part of a request", "did you mean \"header:NAME\"?"),
            ("", "no part of a request", "it can be \"path\""),
            ("cookie", "the name is missing", "\"cookie:NAME\""),
            ("header:", "not a field name", "x-environment"),
            ("header:a b", "not a field name", "x-environment"),
            ("header:Host", "no field", "\"authority\""),
            ("header:Content-Length", "one connection", "another field"),
            ("cookie:a;b", "not the name of a cookie", "session"),
            ("query:a=b", "not the name of a parameter", "escapes"),
            ("query:", "has a name", "as requests do"),
        ] {
            let (said, way) = parse(text).expect_err(text);
            assert!(said.contains(wrong) && way.contains(help), "{text}: {said}; {way}");
        }
    }
}
