//! The files of a configuration: the main text, what it includes, one tree.
//!
//! Owns reading files (bounded, UTF-8) and the `*` of file names. Read next: `tree`, which merges.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Findings};
use super::keys::Root;
use super::schema::Shape;
use super::source::{Place, Source, SourceId, Sources};
use super::tree::{self, Table, Value};
use crate::limits;

/// Adds the main file. `None`: it cannot be read, and a finding says why.
pub fn read_main(path: &Path, sources: &mut Sources, findings: &mut Findings) -> Option<SourceId> {
    let name = path.display().to_string();
    match read(path) {
        Ok(text) => Some(sources.add(Source::new(name, path.parent().unwrap_or(Path::new("")), text))),
        Err(fault) => {
            findings.push(fault.diagnostic(&name));
            // The report names the main text even when there is none.
            sources.add(Source::new(name, Path::new(""), String::new()));
            None
        }
    }
}

/// Parses the main text and everything it includes into one tree.
pub fn read_tree(main: SourceId, sources: &mut Sources, findings: &mut Findings) -> Table {
    let mut root = tree::parse(sources, main, findings);
    let mut seen: Vec<PathBuf> = Vec::new();
    for (pattern, place) in patterns(&root) {
        for path in matching(&pattern, place, sources, findings) {
            // Two patterns may name the same file; reading it twice would only double every name.
            if seen.contains(&path) {
                continue;
            }
            if sources.iter().count() >= limits::CONFIG_FILES {
                findings.push(
                    Diagnostic::error(format!("more than {} files", limits::CONFIG_FILES))
                        .at(place, "this one is too much"),
                );
                return root;
            }
            let name = path.display().to_string();
            match read(&path) {
                Ok(text) => {
                    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
                    let id = sources.add(Source::new(name, &folder, text));
                    let mut included = tree::parse(sources, id, findings);
                    refuse_nested(&mut included, findings);
                    tree::merge(&mut root, included, &is_named, findings);
                }
                Err(fault) => findings.push(fault.diagnostic(&name).at(place, "included here")),
            }
            seen.push(path);
        }
    }
    root
}

/// The patterns under `include`; what is wrong with their form is the schema's to say.
fn patterns(root: &Table) -> Vec<(String, Place)> {
    let Some(entry) = root.get("include") else {
        return Vec::new();
    };
    let Value::List(items) = &entry.node.value else {
        return Vec::new();
    };
    let text = |node: &tree::Node| match &node.value {
        Value::Text(text) if !text.is_empty() && !folder_of(text).contains('*') => Some((text.clone(), node.place)),
        _ => None,
    };
    items.iter().filter_map(text).collect()
}

fn folder_of(pattern: &str) -> &str {
    pattern.rfind('/').map_or("", |at| &pattern[..=at])
}

/// The files of a pattern, in the order of their names.
fn matching(pattern: &str, place: Place, sources: &Sources, findings: &mut Findings) -> Vec<PathBuf> {
    let base = &sources.get(place.source).folder;
    let folder = folder_of(pattern);
    let name = &pattern[folder.len()..];
    if !name.contains('*') {
        return vec![base.join(pattern)];
    }
    let folder = base.join(folder);
    let listed = if folder.as_os_str().is_empty() { fs::read_dir(".") } else { fs::read_dir(&folder) };
    let listing = match listed {
        Ok(listing) => listing,
        Err(error) => {
            let diagnostic =
                Diagnostic::error(format!("cannot read the folder {}: {}", folder.display(), plain(&error)))
                    .at(place, "");
            findings.push(diagnostic.denied(error.kind() == io::ErrorKind::PermissionDenied));
            return Vec::new();
        }
    };
    let mut names: Vec<String> = listing
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|file| matches(name, file))
        .collect();
    names.sort_unstable();
    names.into_iter().map(|name| folder.join(name)).collect()
}

/// Whether a file name fits a pattern in which `*` stands for any characters. Hidden files have to be named.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty()
}

/// Includes do not nest: one look at the main file tells which files there are.
fn refuse_nested(included: &mut Table, findings: &mut Findings) {
    included.entries.retain(|entry| {
        if entry.key != "include" {
            return true;
        }
        findings.push(
            Diagnostic::error("an included file cannot include others")
                .at(entry.key_place, "")
                .help("move it to the main file"),
        );
        false
    });
}

/// Whether the keys of a table are names that the operator chose: those cannot be merged, only defined once.
fn is_named(path: &[&str]) -> bool {
    let mut shape = Shape::Table(&Root::SCHEMA);
    for step in path {
        shape = match shape {
            Shape::Table(schema) => match schema.keys.iter().find(|key| key.name() == *step) {
                Some(key) => key.shape,
                None => return false,
            },
            _ => return false,
        };
    }
    matches!(shape, Shape::Named(_))
}

/// Why a file gave no text.
enum Fault {
    Io(io::Error),
    TooLarge,
    NotUtf8 { line: usize },
}

impl Fault {
    fn diagnostic(&self, name: &str) -> Diagnostic {
        match self {
            Self::Io(error) => {
                let diagnostic = Diagnostic::error(format!("cannot read {name}: {}", plain(error)))
                    .denied(error.kind() == io::ErrorKind::PermissionDenied);
                match error.kind() {
                    io::ErrorKind::PermissionDenied => diagnostic.help("give the user that runs this read permission"),
                    io::ErrorKind::NotFound => diagnostic.help("check the path"),
                    _ => diagnostic,
                }
            }
            Self::TooLarge => {
                Diagnostic::error(format!("{name} is larger than {}", limits::human(limits::CONFIG_FILE_BYTES)))
            }
            Self::NotUtf8 { line } => {
                Diagnostic::error(format!("{name}:{line}: the file is not UTF-8 text")).help("save it as UTF-8")
            }
        }
    }
}

/// The words of an error without the number the library adds.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

fn read(path: &Path) -> Result<String, Fault> {
    let file = fs::File::open(path).map_err(Fault::Io)?;
    let mut bytes = Vec::new();
    file.take(limits::CONFIG_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(Fault::Io)?;
    if bytes.len() as u64 > limits::CONFIG_FILE_BYTES {
        return Err(Fault::TooLarge);
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        Fault::NotUtf8 { line: error.as_bytes()[..good].iter().filter(|&&byte| byte == b'\n').count() + 1 }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything_but_a_leading_dot() {
        for (pattern, name, expected) in [
            ("*.toml", "a.toml", true),
            ("*.toml", ".a.toml", false),
            ("*.toml", "a.toml~", false),
            ("*.toml", ".toml", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxcyyb", false),
            ("a*a", "a", false),
            ("*", "anything", true),
            (".*", ".hidden", true),
            ("*aab", "aaab", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn only_tables_of_names_are_named() {
        assert!(is_named(&["upstream"]));
        assert!(!is_named(&[]));
        assert!(!is_named(&["performance"]));
        assert!(!is_named(&["upstream", "api"]));
        assert!(!is_named(&["nonsense", "api"]));
    }
}
