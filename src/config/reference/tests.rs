//! What is printed for operators is true, complete and current.

use std::fs;
use std::path::Path;

use super::*;
use crate::config::{Options, from_str, load_with};

fn accept(text: &str) {
    if let Err(diagnostics) = from_str("reference", text) {
        panic!("refused:\n{diagnostics}");
    }
}

/// The project's folder.
fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Holds a file to what the schema says; with SPOOKY_BLESS=1 it is written instead.
fn hold(path: &Path, expected: &str) {
    let written = fs::read_to_string(path).unwrap_or_default();
    if written == expected {
        return;
    }
    if std::env::var_os("SPOOKY_BLESS").is_some() {
        fs::write(path, expected).expect("the project's folder can be written");
        return;
    }
    let line = written.lines().zip(expected.lines()).take_while(|(written, expected)| written == expected).count();
    panic!(
        "{} differs from src/config/keys.rs from line {}; SPOOKY_BLESS=1 cargo test reference writes it anew",
        path.display(),
        line + 1
    );
}

#[test]
fn the_reference_file_has_every_key_and_parses() {
    let text = toml();
    hold(&project().join("config/spooky.reference.toml"), &text);
    accept(&text);
    // The optional keys too: all of them but those that exclude another or need a file, or that make the two routes the same.
    let excluded = [
        "path = ",
        "cleartext = ",
        "path_prefix = ",
        "host = \"example\"",
        "deny = ",
        "delay = ",
        "allow_file = ",
        "deny_file = ",
        "key = \"client_ip",
        "regex = ",
        "present = ",
        "sticky = ",
    ];
    let uncommented: Vec<&str> = text
        .lines()
        .map(|line| {
            match line.strip_prefix("# ").filter(|rest| {
                rest.split_once(" = ")
                    .is_some_and(|(key, _)| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
            }) {
                Some(key) if !excluded.iter().any(|excluded| key.starts_with(excluded)) => key,
                _ => line,
            }
        })
        .collect();
    let whole = uncommented.join("\n");
    accept(&whole);
    assert!(
        whole.lines().filter(|line| !line.starts_with('#')).count()
            > text.lines().filter(|line| !line.starts_with('#')).count() + 10
    );
}

#[test]
fn the_reference_of_the_documentation_is_that_of_the_schema() {
    let path = project().join("docs/CONFIGURATION.md");
    let written = fs::read_to_string(&path).expect("docs/CONFIGURATION.md");
    let (begin, end) = (
        "<!-- reference: made from src/config/keys.rs; SPOOKY_BLESS=1 cargo test reference -->\n",
        "<!-- end of reference -->\n",
    );
    let (before, rest) = written.split_once(begin).expect("the mark where the reference begins");
    let (_, after) = rest.split_once(end).expect("the mark where the reference ends");
    hold(&path, &format!("{before}{begin}\n{}\n{end}{after}", markdown()));
}

#[test]
fn every_file_an_operator_reads_is_accepted_without_warnings() {
    let mut files = vec![project().join("config/spooky.reference.toml"), project().join("config/minimal.toml")];
    let examples = fs::read_dir(project().join("config/examples")).expect("config/examples");
    files.extend(examples.filter_map(|entry| Some(entry.ok()?.path())));
    assert!(files.len() > 4);
    for file in files {
        let options = Options { check_files: false, supplied_tls: false };
        match load_with(&file, &options) {
            Ok((_, warnings, _)) => assert!(warnings.is_empty(), "{warnings}"),
            Err(diagnostics) => panic!("{diagnostics}"),
        }
    }
}

#[test]
fn the_rows_of_the_schema_are_sound() {
    fn check(schema: &'static Schema, path: &str, depth: usize) {
        assert!(depth < 8, "{path}: the schema does not end");
        assert!(!schema.about.trim().is_empty() && !schema.scope.is_empty(), "{path}");
        for (at, key) in schema.keys.iter().enumerate() {
            let name = format!("{path}.{}", key.name());
            assert!(key.about.trim().ends_with('.'), "{name}: the comment is a sentence");
            assert!(!schema.keys[..at].iter().any(|other| other.name() == key.name()), "{name} twice");
            assert!(!schema.later.contains(&key.name()), "{name} is there and planned");
            assert!(key.range.is_none_or(|(min, max)| min <= max), "{name}");
            if let Shape::Table(inner) | Shape::Tables(inner) | Shape::Named(inner) = key.shape {
                check(inner, &name, depth + 1);
            }
        }
    }
    check(&Root::SCHEMA, "", 0);
}
