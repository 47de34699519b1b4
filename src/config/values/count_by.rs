//! What a rate limit counts requests by, as it is written.

use crate::admit::CountBy;
use crate::config::schema::{Key, Reader, Shape, Value};
use crate::config::tree::{Node, Value as TreeValue};
use crate::http::Known;
use crate::http::syntax::is_token;

const HELP: &str = "write \"client_ip\", \"route\", \"bearer_token\", \"header:X-Tenant\" or \"cookie:session\"";

impl Value for CountBy {
    const SHAPE: Shape = Shape::Text("\"client_ip\", \"route\", \"bearer_token\", \"header:NAME\" or \"cookie:NAME\"");

    fn read(node: &Node, key: &Key, reader: &mut Reader<'_>) -> Option<Self> {
        let TreeValue::Text(text) = &node.value else {
            return reader.refuse_type(node, key, "a string", HELP);
        };
        match parse(text) {
            Ok(by) => Some(by),
            Err((wrong, help)) => reader.refuse(node, format!("`{}`: {wrong}", key.name()), help),
        }
    }
}

fn parse(text: &str) -> Result<CountBy, (&'static str, &'static str)> {
    match text {
        "client_ip" => return Ok(CountBy::Client),
        "route" => return Ok(CountBy::Route),
        "bearer_token" => return Ok(CountBy::Bearer),
        _ => {}
    }
    let (kind, name) = text.split_once(':').ok_or(("nothing is counted by this", HELP))?;
    // The names of cookies are tokens, too (RFC 6265 §4.1.1).
    if !is_token(name.as_bytes()) {
        return Err(("this is not a name of a field or cookie", HELP));
    }
    match kind {
        "cookie" => Ok(CountBy::Cookie(name.into())),
        "header" => {
            let name = name.to_ascii_lowercase();
            match Known::from_lower(name.as_bytes()) {
                Some(Known::Host) => {
                    Err(("the host is no field here", "give each host a route of its own, and count by \"route\""))
                }
                Some(known) if known.is_hop_by_hop() => {
                    Err(("this field says something of a connection, not of a request", HELP))
                }
                _ => Ok(CountBy::Header(name.into())),
            }
        }
        _ => Err(("nothing is counted by this", HELP)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_nothing_else() {
        for (text, by) in [
            ("client_ip", CountBy::Client),
            ("route", CountBy::Route),
            ("bearer_token", CountBy::Bearer),
            ("header:X-Tenant", CountBy::Header("x-tenant".into())),
            ("header:Authorization", CountBy::Header("authorization".into())),
            ("cookie:SID", CountBy::Cookie("SID".into())),
        ] {
            assert_eq!(parse(text), Ok(by), "{text}");
        }
        for text in [
            "",
            "client",
            "header",
            "header:",
            "header:x y",
            "cookie:a=b",
            "query:x",
            "header:Host",
            "header:connection",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
