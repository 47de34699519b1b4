//! What a rate limit counts requests by, as it is written.

use super::subject::{Wrong, named};
use crate::admit::CountBy;
use crate::config::schema::{Key, Reader, Shape, Value};
use crate::config::tree::{Node, Value as TreeValue};
use crate::route::Source;

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

fn parse(text: &str) -> Result<CountBy, Wrong> {
    match text {
        "client_ip" => return Ok(CountBy::Client),
        "route" => return Ok(CountBy::Route),
        "bearer_token" => return Ok(CountBy::Bearer),
        _ => {}
    }
    match named(text, "give each host a route of its own, and count by \"route\"") {
        Some(Ok((Source::Header, name))) => Ok(CountBy::Header(name)),
        Some(Ok((Source::Cookie, name))) => Ok(CountBy::Cookie(name)),
        Some(Err(wrong)) => Err(wrong),
        Some(Ok((Source::Query, _))) | None => Err(("nothing is counted by this", HELP)),
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
