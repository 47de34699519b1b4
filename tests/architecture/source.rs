//! The project's files, and Rust cut into tokens: no comments, no contents of strings, so that a rule about code does not
//! trip over prose.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The root of the repository: cargo says at run time where it stands, so that a moved checkout is no stale build.
pub fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
    });
    &ROOT
}

/// A file's text; panics when it is not there.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Paths of all files under `folders`, relative to the root, in order; build outputs and hidden folders left out.
pub fn files(folders: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for folder in folders {
        collect(&root().join(folder), &mut found);
    }
    let mut paths: Vec<String> = found
        .iter()
        .map(|path| {
            path.strip_prefix(root()).expect("under the root").to_string_lossy().trim_start_matches("./").to_owned()
        })
        .collect();
    paths.sort();
    paths
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().expect("a file type");
        if kind.is_dir() {
            let left_out = name == "target" || name == "__pycache__" || name.starts_with('.') && name != ".ci";
            if !left_out {
                collect(&entry.path(), found);
            }
        } else if kind.is_file() && name != ".git" {
            found.push(entry.path());
        }
    }
}

/// Whether people read this file as code.
pub fn is_code(path: &str) -> bool {
    path.ends_with(".rs") || path.ends_with(".py") || path.starts_with("scripts/")
}

/// The Rust files under `folders`.
pub fn rust(folders: &[&str]) -> Vec<File> {
    files(folders)
        .into_iter()
        .filter(|path| path.ends_with(".rs"))
        .map(|path| File::rust(&path, &read(&path)))
        .collect()
}

/// One Rust file.
pub struct File {
    /// Relative to the root, with `/`.
    pub path: String,
    /// As it is.
    pub text: String,
    /// Its code.
    pub tokens: Vec<Token>,
}

impl File {
    /// Cuts `text` into tokens.
    pub fn rust(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), tokens: tokens(text) }
    }

    /// Whether the whole file is a test's.
    pub fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/") || self.path.ends_with("/testing.rs")
    }

    /// Whether the token at `at` stands behind a `mod tests {` of this file (they stand last in a file here).
    pub fn in_tests(&self, at: usize) -> bool {
        self.tokens[..at].windows(3).any(|t| t[0].is("mod") && t[1].is("tests") && t[2].is("{"))
    }
}

/// A name, a number, `::`, or one other sign.
pub struct Token {
    /// Its text.
    pub text: String,
    /// Line, from 1.
    pub line: usize,
}

impl Token {
    /// Whether it is exactly this.
    pub fn is(&self, text: &str) -> bool {
        self.text == text
    }

    /// Whether it is an identifier (or keyword).
    pub fn is_name(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

/// Where the literal or comment that starts at `at` ends, if one starts there.
fn skipped(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let find = |needle: &[u8], from: usize| {
        bytes[from..].windows(needle.len()).position(|w| w == needle).map_or(bytes.len(), |p| from + p + needle.len())
    };
    if rest.starts_with(b"//") {
        return Some(find(b"\n", at) - usize::from(find(b"\n", at) < bytes.len()));
    }
    if rest.starts_with(b"/*") {
        let (mut depth, mut end) = (1, at + 2);
        while depth > 0 && end < bytes.len() {
            match &bytes[end..] {
                [b'/', b'*', ..] => (depth, end) = (depth + 1, end + 2),
                [b'*', b'/', ..] => (depth, end) = (depth - 1, end + 2),
                _ => end += 1,
            }
        }
        return Some(end);
    }
    // Raw strings: r"…", br#"…"#, cr"…".
    let prefix = rest.iter().take(2).take_while(|b| b"bcr".contains(b)).count();
    if prefix > 0 && rest[prefix - 1] == b'r' {
        let hashes = rest[prefix..].iter().take_while(|b| **b == b'#').count();
        if rest.get(prefix + hashes) == Some(&b'"') {
            let closing = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
            return Some(find(&closing, at + prefix + hashes + 1));
        }
    }
    let quote = usize::from(matches!(rest, [b'b' | b'c', b'"', ..] | [b'b', b'\'', ..]));
    match rest.get(quote) {
        Some(b'"') => Some(closing_quote(bytes, at + quote + 1, b'"')),
        // A character, not a lifetime: a closing quote stands behind one character or an escape.
        Some(b'\'') if rest.get(quote + 1) == Some(&b'\\') => Some(closing_quote(bytes, at + quote + 1, b'\'')),
        Some(b'\'') => {
            let width = std::str::from_utf8(&rest[quote + 1..]).ok()?.chars().next()?.len_utf8();
            (rest.get(quote + 1 + width) == Some(&b'\'')).then_some(at + quote + width + 2)
        }
        _ => None,
    }
}

fn closing_quote(bytes: &[u8], mut at: usize, quote: u8) -> usize {
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn tokens(text: &str) -> Vec<Token> {
    let bytes = text.as_bytes();
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80;
    let (mut found, mut at, mut line) = (Vec::new(), 0, 1);
    while at < bytes.len() {
        let end = if let Some(end) = skipped(bytes, at) {
            end
        } else if is_word(bytes[at]) {
            let end = at + bytes[at..].iter().take_while(|b| is_word(**b)).count();
            found.push(Token { text: text[at..end].to_owned(), line });
            end
        } else if bytes[at..].starts_with(b"::") {
            found.push(Token { text: "::".to_owned(), line });
            at + 2
        } else {
            if !bytes[at].is_ascii_whitespace() {
                found.push(Token { text: text[at..=at].to_owned(), line });
            }
            at + 1
        };
        line += bytes[at..end].iter().filter(|b| **b == b'\n').count();
        at = end;
    }
    found
}
