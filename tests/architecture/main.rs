//! The house rules that a compiler does not know: who may import whom, where `unsafe`, QUIC and file descriptors may
//! stand, how long a file may get, which crates may come in. See docs/ARCHITECTURE.md for the reasons.
//!
//! `source` reads files and cuts Rust into tokens, `layers` holds the table, `proofs` holds docs/TESTING.md to its word, this
//! file the rules.

mod layers;
mod proofs;
mod source;

use layers::{Module, layer};
use source::{File, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Longer files are split along a noun.
const LINES_MAX: usize = 800;
/// A `mod.rs` is a table of contents with at most the main type in it.
const CONTENTS_LINES_MAX: usize = 350;

/// Fails with one line per finding.
fn expect_none(rule: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{rule}:\n  {}\n", found.join("\n  "));
}

/// The tokens of every Rust file under `folders`, flattened with their file.
fn each_token<'a>(
    files: &'a [File],
    mut rule: impl FnMut(&'a File, &'a [Token], usize) -> Option<String>,
) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        for at in 0..file.tokens.len() {
            if let Some(finding) = rule(file, &file.tokens, at) {
                found.push(format!("{}:{}: {finding}", file.path, file.tokens[at].line));
            }
        }
    }
    found
}

#[test]
fn every_module_has_a_layer() {
    let unknown = source::rust(&["src"])
        .iter()
        .filter_map(|file| Module::of(&file.path))
        .filter(|module| layer(&module.0).is_none())
        .map(|module| format!("{}: give it a row in tests/architecture/layers.rs", module.0))
        .collect::<BTreeSet<_>>();
    expect_none("modules that are not in the table of layers", unknown.into_iter().collect());
}

#[test]
fn arrows_point_down() {
    let mut found = Vec::new();
    for file in source::rust(&["src"]) {
        let Some(from) = Module::of(&file.path) else { continue };
        for (line, to) in layers::imports(&file) {
            if !from.may_import(&to) {
                found.push(format!("{}:{line}: `{}` may not know `{}`", file.path, from.0, to.0));
            }
        }
    }
    expect_none("arrows that point up or sideways", found);
}

#[test]
fn import_parser_sees_what_is_there() {
    let sees = |path: &str, text: &str| {
        let file = File::rust(path, text);
        layers::imports(&file).into_iter().map(|(_, to)| to.0).collect::<Vec<_>>()
    };
    assert_eq!(sees("src/h1/parse.rs", "use crate::{h3::{self, Event}, http};"), ["h3", "http"]);
    assert_eq!(sees("src/h1/parse.rs", "fn f() -> crate::worker::Worker {}"), ["worker"]);
    assert_eq!(sees("src/h1/parse.rs", "use super::super::exchange::Exchange;"), ["exchange"]);
    assert_eq!(sees("src/h1/parse.rs", "use super::input;"), ["h1"]);
    assert_eq!(sees("src/h1/mod.rs", "use super::cli;"), ["cli"]);
    assert_eq!(sees("src/h1/mod.rs", "mod tests { use super::super::cli; use super::parse; }"), ["cli", "h1"]);
    assert_eq!(sees("src/main.rs", "spooky::cli::main()"), ["cli"]);
    assert_eq!(
        sees("src/h1/a.rs", "// use crate::cli;\n/* crate::cli /* nested */ */ const A: &str = \"crate::cli\";"),
        [""; 0]
    );
    assert_eq!(
        sees("src/h1/a.rs", "const A: &str = r#\"crate::cli \"# ; const B: char = '\"'; use crate::http;"),
        ["http"]
    );
    assert_eq!(sees("src/h1/a.rs", "fn f<'a>(x: &'a str) { crate::http::x(b'\\'') }"), ["http"]);
}

#[test]
fn quic_stays_in_h3() {
    let found = each_token(&source::rust(&["src"]), |file, tokens, at| {
        let library = ["quiche", "boring", "boring_sys"].into_iter().find(|name| tokens[at].is(name))?;
        let is_path = tokens.get(at + 1).is_some_and(|next| next.is("::")) || at > 0 && tokens[at - 1].is("use");
        (is_path && !file.path.starts_with("src/h3/")).then(|| format!("`{library}` outside src/h3"))
    });
    expect_none("only src/h3 knows quiche and boring", found);
}

#[test]
fn rustls_stays_in_tls() {
    let found = each_token(&source::rust(&["src"]), |file, tokens, at| {
        let is_path = tokens.get(at + 1).is_some_and(|next| next.is("::")) || at > 0 && tokens[at - 1].is("use");
        (tokens[at].is("rustls") && is_path && !file.path.starts_with("src/tls/"))
            .then(|| "`rustls` outside src/tls".to_owned())
    });
    expect_none("only src/tls knows rustls", found);
}

#[test]
fn regular_expressions_stay_in_route() {
    let found = each_token(&source::rust(&["src"]), |file, tokens, at| {
        let is_path = tokens.get(at + 1).is_some_and(|next| next.is("::")) && (at == 0 || !tokens[at - 1].is("::"));
        (tokens[at].is("regex") && is_path && file.path != "src/route/matcher.rs")
            .then(|| "`regex` outside src/route/matcher.rs".to_owned())
    });
    expect_none(
        "only route::matcher knows regex: there its size is bounded and its caches belong to one thread",
        found,
    );
}

#[test]
fn the_library_of_http2_stays_in_h2() {
    // Our module has the library's name: the library is written `::h2`, or imported from the root of names.
    let library = |tokens: &[Token], at: usize| {
        let follows = at > 1 && tokens[at - 2].is_name() && !tokens[at - 2].is("use");
        let leading = at > 0 && tokens[at - 1].is("::") && !follows;
        tokens[at].is("h2") && (leading || at > 0 && tokens[at - 1].is("use"))
    };
    let sees = |text: &str| {
        let file = File::rust("src/worker/a.rs", text);
        (0..file.tokens.len()).any(|at| library(&file.tokens, at))
    };
    assert!(sees("fn f(e: ::h2::Error) {}") && sees("use ::h2::client;") && sees("use h2::Reason;"));
    assert!(!sees("use crate::h2::Settings;") && !sees("use crate::h2; fn f() { h2::code::CANCEL; }"));
    let found = each_token(&source::rust(&["src"]), |file, tokens, at| {
        let outside = !file.path.starts_with("src/h2/");
        (outside && library(tokens, at)).then(|| "the `h2` crate outside src/h2".to_owned())
    });
    expect_none("only src/h2 knows the h2 crate", found);
}

#[test]
fn unsafe_stays_in_uring() {
    let found = each_token(&source::rust(&["src", "bench", "tests"]), |file, tokens, at| {
        (tokens[at].is("unsafe") && file.path != "src/h3/boring_ffi.rs").then(|| "unsafe".to_owned())
    });
    expect_none("`unsafe` stands in uring/ and in src/h3/boring_ffi.rs only", found);
    let root = source::read("src/lib.rs");
    assert!(root.contains("#![deny(unsafe_code)]"), "src/lib.rs denies unsafe code");
}

#[test]
fn libc_stays_in_uring() {
    let found = each_token(&source::rust(&["src", "bench"]), |_, tokens, at| {
        (tokens[at].is("libc") && tokens.get(at + 1).is_some_and(|next| next.is("::"))).then(|| "libc".to_owned())
    });
    expect_none("only uring/ talks to libc", found);
}

#[test]
fn descriptors_stay_below_the_exchange() {
    let words =
        ["TcpStream", "TcpListener", "UdpSocket", "UnixStream", "UnixListener", "RawFd", "OwnedFd", "BorrowedFd"];
    let found = each_token(&source::rust(&["src"]), |file, tokens, at| {
        let level = Module::of(&file.path).and_then(|module| layer(&module.0))?;
        let word = words.into_iter().find(|word| tokens[at].is(word))?;
        (2..5)
            .contains(&level)
            .then(|| format!("`{word}`: sockets and descriptors belong to the worker and to control"))
    });
    expect_none("policies, protocols and the exchange own no descriptor", found);
}

#[test]
fn policies_and_protocols_read_no_clock() {
    let found = each_token(&source::rust(&["src"]), |file, tokens, at| {
        let level = Module::of(&file.path).and_then(|module| layer(&module.0))?;
        let pure = (1..=4).contains(&level) && !file.path.starts_with("src/config/") && !file.is_test();
        // The wall clock of logs and dates has one file; everything else gets the time as a value.
        let pure = pure && file.path != "src/telemetry/clock.rs";
        let clock = tokens[at].is("Instant") || tokens[at].is("SystemTime");
        let reads =
            clock && tokens.get(at + 1).is_some_and(|t| t.is("::")) && tokens.get(at + 2).is_some_and(|t| t.is("now"));
        (pure && reads && !file.in_tests(at))
            .then(|| format!("`{}::now`: the turn's time is handed down", tokens[at].text))
    });
    expect_none("the clock is read once per turn, by the worker", found);
}

#[test]
fn nothing_is_async() {
    let found = each_token(&source::rust(&["src", "uring", "bench"]), |_, tokens, at| {
        (tokens[at].is("async") || tokens[at].is("await")).then(|| tokens[at].text.clone())
    });
    expect_none("no `async`, no `await`: the reactor is the runtime", found);
}

#[test]
fn nothing_is_left_open() {
    let macros = ["todo", "unimplemented", "dbg"];
    let found = each_token(&source::rust(&["src", "uring", "bench", "tests"]), |_, tokens, at| {
        let name = macros.into_iter().find(|name| tokens[at].is(name))?;
        tokens.get(at + 1).is_some_and(|next| next.is("!")).then(|| format!("{name}!"))
    });
    expect_none("no open ends in committed code", found);
    let found = each_token(&source::rust(&["src", "uring", "bench", "tests"]), |_, tokens, at| {
        let ignored = tokens[at].is("ignore") && at > 1 && tokens[at - 1].is("[") && tokens[at - 2].is("#");
        (ignored && !tokens.get(at + 1).is_some_and(|next| next.is("=")))
            .then(|| "#[ignore] without a reason".to_owned())
    });
    expect_none("no test is ignored without a reason", found);
}

#[test]
fn files_stay_readable() {
    let mut found = Vec::new();
    for path in source::files(&["src", "uring", "bench", "tests", "scripts"]) {
        if !source::is_code(&path) {
            continue;
        }
        let lines = source::read(&path).lines().count();
        let most = if path.ends_with("/mod.rs") { CONTENTS_LINES_MAX } else { LINES_MAX };
        if lines > most {
            found.push(format!("{path}: {lines} lines, at most {most}"));
        }
    }
    expect_none("files to be split along a noun", found);
}

#[test]
fn every_file_says_what_it_is() {
    let found = source::rust(&["src", "uring", "bench", "tests"])
        .iter()
        .filter(|file| !file.text.trim_start().starts_with("//!") && !file.is_test())
        .map(|file| format!("{}: opens without `//!`", file.path))
        .collect();
    expect_none("every module says what it owns, what it refuses to know, where to read next", found);
}

#[test]
fn text_holds_on_every_machine() {
    // Taken apart so that this file does not find itself.
    let words = [
        concat!("../", "shared"),
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ];
    let mut found = Vec::new();
    for path in source::files(&["."]) {
        // Byte corpora and the licence are not prose of ours.
        if path.starts_with("tests/corpus/") || path == "LICENSE" || path == "Cargo.lock" {
            continue;
        }
        let Ok(text) = String::from_utf8(std::fs::read(source::root().join(&path)).expect("readable")) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(*word)) {
                found.push(format!("{path}:{}: `{word}`", number + 1));
            }
        }
    }
    expect_none("paths of one machine, or unfinished business", found);
}

/// Crates that bring a runtime, an event loop or another HTTP stack of their own.
const FORBIDDEN_CRATES: &[&str] = &[
    "actix-rt",
    "async-executor",
    "async-io",
    "async-std",
    "compio",
    "futures-executor",
    "glommio",
    "hyper",
    "hyper-util",
    "may",
    "mio",
    "monoio",
    "polling",
    "quinn",
    "reqwest",
    "smol",
    "tokio-macros",
    "tokio-uring",
];

#[test]
fn no_runtime_comes_in_through_a_crate() {
    let lock: toml::Table = source::read("Cargo.lock").parse().expect("Cargo.lock is TOML");
    let packages = lock["package"].as_array().expect("packages");
    let found = packages
        .iter()
        .filter_map(|package| package["name"].as_str())
        .filter(|name| FORBIDDEN_CRATES.contains(name))
        .map(|name| format!("{name}: see `cargo tree -i {name}`"))
        .collect();
    expect_none("crates with a runtime of their own", found);
    let deny = source::read("deny.toml");
    for name in FORBIDDEN_CRATES {
        assert!(deny.contains(&format!("\"{name}\"")), "deny.toml bans what this test bans: {name} is missing there");
    }
}

#[test]
fn every_direct_dependency_has_its_reason() {
    let page = source::read("docs/dependencies.md");
    let mut reasons = BTreeMap::new();
    for line in page.lines() {
        if let Some((name, reason)) = line.strip_prefix("| `").and_then(|rest| rest.split_once("` |")) {
            assert!(reason.split('|').nth(1).is_some_and(|why| why.trim().len() > 10), "`{name}` has no reason");
            reasons.insert(name.to_owned(), false);
        }
    }
    let mut found = Vec::new();
    for manifest in ["Cargo.toml", "uring/Cargo.toml", "bench/Cargo.toml", "tests/fuzz/Cargo.toml"] {
        if !Path::new(&source::root().join(manifest)).exists() {
            continue;
        }
        let table: toml::Table = source::read(manifest).parse().expect("a manifest is TOML");
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for name in
                table.get(section).and_then(|section| section.as_table()).into_iter().flat_map(|names| names.keys())
            {
                match reasons.get_mut(name) {
                    Some(seen) => *seen = true,
                    None if name.starts_with("spooky") => {}
                    None => found.push(format!("{manifest}: `{name}` has no line in docs/dependencies.md")),
                }
            }
        }
    }
    found
        .extend(reasons.iter().filter(|(_, seen)| !**seen).map(|(name, _)| format!("`{name}` is used by no manifest")));
    expect_none("docs/dependencies.md and the manifests agree", found);
}
