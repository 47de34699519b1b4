//! The table of layers, and the arrows that a file really has.

use crate::source::{File, Token};

/// Higher layers may import lower ones, never the other way round.
const LAYERS: &[(u8, &[&str])] = &[
    (7, &["main"]),
    (6, &["control", "cli"]),
    (5, &["worker"]),
    (4, &["exchange", "config"]),
    (3, &["route", "balance", "admit", "overload", "resilience", "health"]),
    (2, &["h1", "h2", "h3", "tls", "proxy_protocol"]),
    (1, &["http", "telemetry", "limits", "identity"]),
    (0, &["spooky_uring"]),
];

/// Arrows inside a layer: everything else there is forbidden, above all between protocols.
const SIDEWAYS: &[(&str, &str)] = &[
    ("cli", "control"),
    ("exchange", "config"),
    ("http", "limits"),
    ("telemetry", "http"),
    ("telemetry", "limits"),
    ("identity", "limits"),
];

/// The layer of a top-level module.
pub fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(_, modules)| modules.contains(&module)).map(|(level, _)| *level)
}

/// A top-level module of `src/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Module(pub String);

impl Module {
    /// The module a file belongs to; `None` for the crate root, which only lists modules.
    pub fn of(path: &str) -> Option<Self> {
        let inside = path.strip_prefix("src/")?;
        let name = inside.split('/').next()?.trim_end_matches(".rs");
        (name != "lib").then(|| Self(name.to_owned()))
    }

    /// Whether an arrow from here to there is in the table.
    pub fn may_import(&self, to: &Self) -> bool {
        if self == to {
            return true;
        }
        match (layer(&self.0), layer(&to.0)) {
            (Some(from), Some(below)) if from > below => true,
            (Some(from), Some(same)) if from == same => SIDEWAYS.contains(&(&self.0, &to.0)),
            // A name that is no module: an item that the crate root re-exports, or a macro.
            (_, None) => true,
            _ => false,
        }
    }
}

/// Every top-level module that a file's paths lead to, with the line: `crate::x`, `crate::{x, y}`, `super::…`, and
/// `spooky::x` in main.
pub fn imports(file: &File) -> Vec<(usize, Module)> {
    let home = module_path(&file.path);
    let tokens = &file.tokens;
    let mut found = Vec::new();
    // Names of the inline modules that are open here, each with the depth of braces it was opened at.
    let mut inline: Vec<usize> = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].is("{") {
            depth += 1;
            let opens = at >= 2 && tokens[at - 2].is("mod");
            if opens {
                inline.push(depth);
            }
        } else if tokens[at].is("}") {
            if inline.last() == Some(&depth) {
                inline.pop();
            }
            depth -= 1;
        }
        let starts = at == 0 || !tokens[at - 1].is("::");
        if starts && (tokens[at].is("crate") || file.path == "src/main.rs" && tokens[at].is("spooky")) {
            heads(tokens, at + 1, &mut found);
        } else if starts && tokens[at].is("super") {
            let mut up = 1;
            let mut next = at + 1;
            while tokens.get(next).is_some_and(|t| t.is("::")) && tokens.get(next + 1).is_some_and(|t| t.is("super")) {
                up += 1;
                next += 2;
            }
            let height = home.len() + inline.len();
            if up >= height {
                heads(tokens, next, &mut found);
            } else {
                found.push((tokens[at].line, Module(home[0].clone())));
            }
            at = next - 1;
        }
        at += 1;
    }
    found
}

/// The path of modules that a file is: `src/h1/parse.rs` is `h1::parse`, `src/h1/mod.rs` is `h1`.
fn module_path(path: &str) -> Vec<String> {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs");
    let mut parts: Vec<String> = inside.split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// The first names behind the `::` at `at`: one, or those of a group.
fn heads(tokens: &[Token], at: usize, found: &mut Vec<(usize, Module)>) {
    if !tokens.get(at).is_some_and(|t| t.is("::")) {
        return;
    }
    let Some(first) = tokens.get(at + 1) else { return };
    if !first.is("{") {
        if first.is_name() {
            found.push((first.line, Module(first.text.clone())));
        }
        return;
    }
    let mut depth = 1;
    let mut next = at + 2;
    let mut expects_name = true;
    while depth > 0 && next < tokens.len() {
        let token = &tokens[next];
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," if depth == 1 => expects_name = true,
            _ if depth == 1 && expects_name && token.is_name() => {
                found.push((token.line, Module(token.text.clone())));
                expects_name = false;
            }
            _ => {}
        }
        next += 1;
    }
}
