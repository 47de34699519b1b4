//! What docs/TESTING.md says is proved: by tests that exist.
//!
//! Owns the reading of that page's tables and of test names; refuses to know what a test does.

use crate::expect_none;
use crate::source;
use std::collections::BTreeSet;

/// Sections of the page whose tables name tests in backticks.
const SECTIONS: [&str; 3] =
    ["## Clients that we did not write", "## Every pair of protocols", "## What the RFCs ask, and what proves it"];

/// The names of all tests: Rust functions behind `#[test]`, Python functions that pytest collects.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in source::rust(&["src", "uring", "tests", "bench"]) {
        for (at, token) in file.tokens.iter().enumerate() {
            let marked = token.is("test") && at > 1 && file.tokens[at - 1].is("[") && file.tokens[at - 2].is("#");
            let name = file.tokens[at..].iter().skip_while(|token| !token.is("fn")).nth(1);
            names.extend(name.filter(|_| marked).map(|name| name.text.clone()));
        }
    }
    for path in source::files(&["tests/e2e"]).iter().filter(|path| path.ends_with(".py")) {
        for line in source::read(path).lines() {
            let line = line.trim_start();
            let line = line.strip_prefix("async ").unwrap_or(line);
            let name = line.strip_prefix("def ").and_then(|rest| rest.split('(').next());
            names.extend(name.filter(|name| name.starts_with("test_")).map(str::to_owned));
        }
    }
    names
}

/// The rows of the tables in a section: line and cells without the heads.
fn rows<'a>(page: &'a str, section: &str) -> Vec<(usize, Vec<&'a str>)> {
    let lines = page.lines().enumerate().skip_while(|(_, line)| *line != section).skip(1);
    let inside: Vec<_> = lines.take_while(|(_, line)| !line.starts_with("## ")).collect();
    let is_head = |at: usize| inside.get(at + 1).is_some_and(|(_, next)| next.starts_with("|---"));
    inside
        .iter()
        .enumerate()
        .filter(|(at, (_, line))| line.starts_with("| ") && !is_head(*at))
        .map(|(_, (number, line))| (number + 1, line.trim_matches('|').split(" | ").map(str::trim).collect()))
        .collect()
}

/// What stands in backticks and is a name.
fn named(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2).filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_'))
}

#[test]
fn what_testing_says_is_proved_has_a_test() {
    let page = source::read("docs/TESTING.md");
    let tests = tests();
    assert!(tests.contains("what_testing_says_is_proved_has_a_test") && tests.contains("test_flood"), "{tests:?}");
    let mut found = Vec::new();
    for section in SECTIONS {
        let rows = rows(&page, section);
        assert!(rows.len() > 10, "no tables under `{section}`");
        for (line, cells) in rows {
            let names: Vec<_> = cells[1..].iter().copied().flat_map(named).collect();
            found.extend(
                names
                    .iter()
                    .filter(|name| !tests.contains(**name))
                    .map(|name| format!("docs/TESTING.md:{line}: there is no test `{name}`")),
            );
            // What is not proved says so.
            let honest = ["gap", "not ", "cannot"].iter().any(|word| cells[1..].concat().contains(word));
            if names.is_empty() && !honest {
                found.push(format!("docs/TESTING.md:{line}: neither a test nor a gap"));
            }
        }
    }
    expect_none("the page names tests that exist", found);
}

#[test]
fn tables_and_names_are_read_as_people_read_them() {
    let page =
        "## A\n| x | y |\n|---|---|\n| 1 | `one_test`, `scripts/bench` |\n### b\n| 2 | gap |\n## B\n| 3 | `c` |\n";
    let rows = rows(page, "## A");
    assert_eq!(rows, [(4, vec!["1", "`one_test`, `scripts/bench`"]), (6, vec!["2", "gap"])]);
    assert_eq!(named(rows[0].1[1]).collect::<Vec<_>>(), ["one_test"]);
}
