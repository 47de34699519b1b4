//! What consistent hashing keeps together: a word, or a kind and a name as in `cookie:session`.

use super::super::suggest;
use crate::config::generation::HashKey;
use crate::config::schema::{Key, Reader, Shape, Value};
use crate::config::tree::{Node, Value as TreeValue};
use crate::http::syntax;

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
    if let Some((kind, name)) = text.split_once(':') {
        return named(kind, name).unwrap_or_else(|| Err(unknown(kind)));
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
        _ => return Err(unknown(text)),
    })
}

/// A kind with a name; `None`: there is no such kind.
fn named(kind: &str, name: &str) -> Option<Result<HashKey, (&'static str, String)>> {
    let token = "use letters, digits and `-`, as in \"{}:NAME\"".replace("{}", kind);
    Some(match kind {
        "header" => header(name, token),
        "cookie" if syntax::is_token(name.as_bytes()) => Ok(HashKey::Cookie(name.into())),
        "cookie" => Err(("this is not the name of a cookie", token)),
        // Names are compared as they were sent, so what no request can send would never be found.
        "query" if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"&=#".contains(&byte)) => {
            Ok(HashKey::Query(name.into()))
        }
        "query" => Err(("this is not the name of a parameter", "write it as requests do, escapes included".to_owned())),
        _ => return None,
    })
}

fn header(name: &str, token: String) -> Result<HashKey, (&'static str, String)> {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "host" => Err(("requests have no Host in every version of HTTP", "write \"authority\"".to_owned())),
        "content-length" | "transfer-encoding" => {
            Err(("this field says how a request is framed, not what it is about", "use another field".to_owned()))
        }
        _ if syntax::is_token(name.as_bytes()) => Ok(HashKey::Header(name.into())),
        _ => Err(("this is not the name of a field", token)),
    }
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
            ("header:", "not the name of a field", "header:NAME"),
            ("header:a b", "not the name of a field", "letters"),
            ("header:Host", "no Host", "\"authority\""),
            ("header:Content-Length", "framed", "another field"),
            ("cookie:a;b", "not the name of a cookie", "cookie:NAME"),
            ("query:a=b", "not the name of a parameter", "escapes"),
            ("query:", "not the name of a parameter", "escapes"),
        ] {
            let (said, way) = parse(text).expect_err(text);
            assert!(said.contains(wrong) && way.contains(help), "{text}: {said}; {way}");
        }
    }
}
