//! The rows of `keys` as documentation: a commented file with every key, and tables for docs/CONFIGURATION.md.
//!
//! Nothing here is written twice: text, default, range and scope come from the row. Tests hold config/spooky.reference.toml
//! and docs/CONFIGURATION.md to what this prints.

use std::fmt::Write as _;

use super::keys::Root;
use super::schema::{Key, Presence, Schema, Shape};
use super::values::{show_bytes, show_millis};

#[cfg(test)]
mod tests;

/// A configuration with every key at its default. Keys without one are shown with an example, commented out unless the
/// file needs them.
#[must_use]
pub fn toml() -> String {
    let mut out = String::from(
        "# Every key of Spooky with its default, what it takes and how far it reaches.\n\
         # This is a reference, not a start: config/minimal.toml is all that is needed.\n\
         # Times are \"250ms\", \"5s\", \"2m\", \"1h\" or integer milliseconds; sizes are \"16KiB\", \"8MiB\", \"1GiB\" or integer bytes.\n\n",
    );
    write_table(&mut out, &Root::SCHEMA, "");
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// One table of a file: its values first, then the tables inside it.
fn write_table(out: &mut String, schema: &Schema, path: &str) {
    for key in schema.keys.iter().filter(|key| inner(key.shape).is_none()) {
        let _ = writeln!(out, "# {} ({})", text(key.about), facts(schema, key));
        let (comment, value) = match key.presence {
            Presence::Default(default) => ("", quoted(default)),
            Presence::Required => ("", example(key)),
            Presence::Optional if is_shown(schema, key) => ("", example(key)),
            Presence::Optional => ("# ", example(key)),
        };
        let _ = writeln!(out, "{comment}{} = {value}", key.name());
    }
    for key in schema.keys {
        let Some(inner) = inner(key.shape) else {
            continue;
        };
        let path = if path.is_empty() { key.name().to_owned() } else { format!("{path}.{}", key.name()) };
        let _ = writeln!(out, "\n# {}", text(key.about));
        match key.shape {
            // The same keys as [listen]; both at once are refused.
            Shape::Tables(_) if inner.name == "Listener" => {
                let _ = writeln!(out, "# [[{path}]]");
            }
            shape if excludes(schema, key) => {
                let (open, close) = if matches!(shape, Shape::Tables(_)) { ("[[", "]]") } else { ("[", "]") };
                let mut table = format!("{open}{path}{close}\n");
                write_table(&mut table, inner, &path);
                for line in table.lines() {
                    let _ = writeln!(out, "{}", format!("#   {line}").trim_end());
                }
            }
            Shape::Tables(_) => {
                let _ = writeln!(out, "[[{path}]]");
                write_table(out, inner, &path);
            }
            Shape::Named(_) => {
                let _ = writeln!(out, "[{path}.{EXAMPLE_NAME}]");
                write_table(out, inner, &format!("{path}.{EXAMPLE_NAME}"));
            }
            _ => {
                let _ = writeln!(out, "[{path}]");
                write_table(out, inner, &path);
            }
        }
    }
}

const EXAMPLE_NAME: &str = "example";

/// Optional keys that stand in the file uncommented: without them two of its routes would be the same, or a table would be empty
/// that needs one of them.
fn is_shown(schema: &Schema, key: &Key) -> bool {
    matches!(
        (schema.name, key.name()),
        ("ShortRoute", "path_prefix") | ("Action", "upstream") | ("ValueMatch", "exact") | ("Hedging", "at")
    )
}

/// Tables that cannot stand in the file beside the others of theirs, or say nothing there: the example has one backend.
fn excludes(schema: &Schema, key: &Key) -> bool {
    matches!(
        (schema.name, key.name()),
        ("Action", "upstreams" | "redirect" | "respond") | ("Upstream" | "Route", "hedging")
    )
}

/// Tables of all keys, in Markdown. A table that stands in several places is shown once, under all its names.
#[must_use]
pub fn markdown() -> String {
    let mut sections: Vec<(&'static Schema, Vec<String>, &'static str)> = Vec::new();
    collect(&mut sections, &Root::SCHEMA, String::new(), text(Root::SCHEMA.about));
    let mut out = String::new();
    for (schema, paths, about) in sections {
        let title = if paths == [""] {
            "Top level".to_owned()
        } else {
            paths.iter().map(|path| format!("`{path}`")).collect::<Vec<_>>().join(" and ")
        };
        let _ = writeln!(
            out,
            "### {title}\n\n{about} Scope: {}.\n\n| key | default | takes | |\n|---|---|---|---|",
            schema.scope
        );
        for key in schema.keys {
            let default = match key.presence {
                // The tables inside have sections of their own.
                Presence::Default("{}" | "[]") if inner(key.shape).is_some() => String::new(),
                Presence::Default(default) => format!("`{}`", quoted(default)),
                Presence::Required => "required".to_owned(),
                Presence::Optional => "–".to_owned(),
            };
            let scope = scope(schema, key);
            let scope = if scope == schema.scope { String::new() } else { format!(" Scope: {scope}.") };
            let _ = writeln!(out, "| `{}` | {default} | {} | {}{scope} |", key.name(), takes(key), text(key.about));
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn collect(
    sections: &mut Vec<(&'static Schema, Vec<String>, &'static str)>,
    schema: &'static Schema,
    path: String,
    about: &'static str,
) {
    if let Some((_, paths, _)) = sections.iter_mut().find(|(known, ..)| known.name == schema.name) {
        paths.push(path);
        return;
    }
    sections.push((schema, vec![path.clone()], about));
    for key in schema.keys {
        let Some(inner) = inner(key.shape) else {
            continue;
        };
        let plain = if path.is_empty() {
            key.name().to_owned()
        } else {
            format!("{}.{}", path.trim_matches(['[', ']']), key.name())
        };
        let path = match key.shape {
            Shape::Tables(_) => format!("[[{plain}]]"),
            Shape::Named(_) => format!("[{plain}.<name>]"),
            _ => format!("[{plain}]"),
        };
        collect(sections, inner, path, text(key.about));
    }
}

/// The schema of a shape that is a table of some kind.
fn inner(shape: Shape) -> Option<&'static Schema> {
    match shape {
        Shape::Table(schema) | Shape::Tables(schema) | Shape::Named(schema) => Some(schema),
        _ => None,
    }
}

/// A doc comment as one line.
fn text(about: &'static str) -> &'static str {
    about.trim()
}

/// What a key takes and how far it reaches.
fn facts(schema: &Schema, key: &Key) -> String {
    let presence = match key.presence {
        Presence::Default(_) => "",
        Presence::Required => "; required",
        Presence::Optional => "; no default",
    };
    format!("{}; per {}{presence}", takes(key), scope(schema, key))
}

/// How far a key reaches: its table's scope, unless its name says otherwise.
fn scope(schema: &Schema, key: &Key) -> &'static str {
    match key.name() {
        name if name.ends_with("_per_worker") => "backend and worker",
        name if name.starts_with("per_upstream_") => "upstream",
        name if name.starts_with("per_backend_") => "backend",
        _ => schema.scope,
    }
}

/// What a key takes, in words.
fn takes(key: &Key) -> String {
    let range = |show: fn(u64) -> String| match key.range {
        None => String::new(),
        Some((min, max)) if min == max => format!(", only {}", show(min)),
        Some((min, max)) => format!(", {} to {}", show(min), show(max)),
    };
    fn words(shape: Shape, range: &dyn Fn(fn(u64) -> String) -> String) -> String {
        let plain = |shown: String| shown.replace('"', "");
        match shape {
            Shape::Bool => "true or false".to_owned(),
            Shape::Integer => format!("integer{}", range(|bound| bound.to_string())),
            Shape::Duration => format!("time{}", plain(range(show_millis))),
            Shape::Size => format!("size{}", plain(range(show_bytes))),
            Shape::Text(what) => what.to_owned(),
            Shape::Choice(known) => known.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", "),
            Shape::OrOff(shape) => format!("{}, or \"off\"", words(*shape, range)),
            Shape::OneOrMany(shape) => format!("{}, or array", words(*shape, range)),
            Shape::List(shape) => format!("array of {}", words(*shape, range)),
            Shape::Table(_) => "table".to_owned(),
            Shape::Tables(_) => "array of tables".to_owned(),
            Shape::Named(_) => "tables by name".to_owned(),
        }
    }
    words(key.shape, &range)
}

/// A default as it stands in a file.
fn quoted(default: &str) -> String {
    match toml::de::DeValue::parse(default) {
        Ok(_) => default.to_owned(),
        Err(_) => format!("\"{default}\""),
    }
}

/// A value for a key that has no default.
fn example(key: &Key) -> String {
    fn by_shape(shape: Shape) -> String {
        match shape {
            Shape::Text("host name" | "server name") => "\"www.example.com\"".to_owned(),
            Shape::Text("method") => "\"GET\"".to_owned(),
            Shape::Text("IP address") => "\"192.0.2.7\"".to_owned(),
            Shape::Text("network") => "\"192.0.2.0/24\"".to_owned(),
            Shape::Text("hash key") => "\"client_ip\"".to_owned(),
            Shape::Text("path") => "\"/api\"".to_owned(),
            Shape::Text("backend address") => "\"http://127.0.0.1:8080\"".to_owned(),
            Shape::Text(_) => format!("\"{EXAMPLE_NAME}\""),
            Shape::Duration => "\"10s\"".to_owned(),
            Shape::Size => "\"64KiB\"".to_owned(),
            Shape::Integer => "100".to_owned(),
            Shape::Bool => "true".to_owned(),
            Shape::Choice(known) => format!("\"{}\"", known.first().unwrap_or(&"")),
            Shape::OrOff(_) => "\"off\"".to_owned(),
            Shape::OneOrMany(shape) => by_shape(*shape),
            Shape::List(shape) => format!("[{}]", by_shape(*shape)),
            Shape::Table(_) | Shape::Tables(_) | Shape::Named(_) => "{}".to_owned(),
        }
    }
    match key.name() {
        "version" => "1".to_owned(),
        "attempts" => "3".to_owned(),
        "dir" => "\"/var/log/spooky/qlog\"".to_owned(),
        "cert" => "\"/etc/spooky/certs/fullchain.pem\"".to_owned(),
        "key" if !matches!(key.shape, Shape::Text("hash key")) => "\"/etc/spooky/certs/privkey.pem\"".to_owned(),
        "ca_file" => "\"/etc/spooky/certs/authorities.pem\"".to_owned(),
        "ca_dir" => "\"/etc/spooky/certs/authorities\"".to_owned(),
        "client_cert" => "\"/etc/spooky/certs/client.pem\"".to_owned(),
        "client_key" => "\"/etc/spooky/certs/client.key\"".to_owned(),
        "allow_file" | "deny_file" => "\"/etc/spooky/networks\"".to_owned(),
        "crl_file" => "\"/etc/spooky/certs/clients.crl\"".to_owned(),
        "id" => "\"backend1\"".to_owned(),
        "path" => "\"/exactly/this\"".to_owned(),
        "name" => "\"edge\"".to_owned(),
        "location" => "\"https://www.example.com/\"".to_owned(),
        "rewrite" => "\"/internal\"".to_owned(),
        "regex" => "\"v[0-9]+\"".to_owned(),
        "content_type" => "\"application/json\"".to_owned(),
        "status" => "404".to_owned(),
        "on" => "[\"503\"]".to_owned(),
        "sticky" => "\"cookie:session\"".to_owned(),
        _ => by_shape(key.shape),
    }
}
