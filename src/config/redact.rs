//! One line of a configuration as a person may see it: secrets hidden, control characters harmless, long lines cut.
//!
//! Diagnostics quote the operator's file into terminals, logs and bug reports, so what looks like a secret never
//! leaves this file. The marked range is kept under what is shown.

use std::ops::Range;

use super::source::{Place, Source};

/// Characters of a line shown around the marked place; the rest is cut.
const SHOWN_MAX: usize = 120;

/// Words in a key that make its value a secret.
const SECRET_WORDS: [&str; 7] = ["token", "secret", "passw", "credential", "private", "api_key", "apikey"];

/// A line ready to print, with the range to underline.
#[derive(Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// The line.
    pub line: String,
    /// Columns before the mark.
    pub indent: usize,
    /// Columns of the mark; at least 1.
    pub marked: usize,
}

impl Excerpt {
    /// The line where a place starts.
    #[must_use]
    pub fn new(source: &Source, place: Place) -> Self {
        let index = source.line_index(place.start.min(u32::try_from(source.text.len()).unwrap_or(u32::MAX)));
        let range = source.line_range(index);
        let line = &source.text[range.clone()];
        let start = (place.start as usize).clamp(range.start, range.end) - range.start;
        let end = (place.end as usize).clamp(range.start, range.end) - range.start;
        if inside_pem(source, index) || line.contains("-----BEGIN") {
            return Self { line: "(hidden)".to_owned(), indent: 0, marked: 8 };
        }
        Self::of_line(line, start..end.max(start), &secrets(line))
    }

    fn of_line(line: &str, mark: Range<usize>, hidden: &[Range<usize>]) -> Self {
        // Columns are worked out on the line as shown: each source character becomes a cell of zero or more characters.
        let mut cells: Vec<(usize, String)> = Vec::new();
        for (at, character) in line.char_indices() {
            let cell = match hidden.iter().find(|range| range.contains(&at)) {
                Some(range) if range.start == at => "***".to_owned(),
                Some(_) => String::new(),
                None if character == '\t' => "    ".to_owned(),
                None if character.is_control() => '\u{fffd}'.to_string(),
                None => character.to_string(),
            };
            cells.push((at, cell));
        }
        let column = |offset: usize| {
            cells.iter().take_while(|(at, _)| *at < offset).map(|(_, cell)| cell.chars().count()).sum::<usize>()
        };
        let (mut indent, mut marked) = (column(mark.start), column(mark.end).saturating_sub(column(mark.start)).max(1));
        let mut shown: Vec<char> = cells.iter().flat_map(|(_, cell)| cell.chars()).collect();

        if shown.len() > SHOWN_MAX {
            let from = indent.saturating_sub(SHOWN_MAX / 2).min(shown.len() - SHOWN_MAX);
            let to = from + SHOWN_MAX;
            let cut_before = from > 0;
            let cut_after = to < shown.len();
            shown = shown[from..to].to_vec();
            if cut_after {
                shown.push('…');
            }
            if cut_before {
                shown.insert(0, '…');
            }
            indent = indent - from + usize::from(cut_before);
            marked = marked.min(shown.len().saturating_sub(indent)).max(1);
        }
        Self { line: shown.into_iter().collect(), indent, marked }
    }
}

/// Whether a line stands between the BEGIN and END of a PEM block somebody pasted.
fn inside_pem(source: &Source, index: usize) -> bool {
    // Only lines that could be PEM payload are searched upwards, so this stays cheap for ordinary lines.
    let payload = source.text[source.line_range(index)].trim();
    let looks_encoded = payload
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'"' | b'\'' | b' '));
    if payload.is_empty() || !looks_encoded {
        return false;
    }
    for above in (0..index).rev() {
        let line = &source.text[source.line_range(above)];
        if line.contains("-----BEGIN") {
            return true;
        }
        if line.contains("-----END") {
            return false;
        }
    }
    false
}

/// Byte ranges of a line that must not be shown.
fn secrets(line: &str) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    let lower = line.to_ascii_lowercase();
    if SECRET_WORDS.iter().any(|word| lower.contains(word)) {
        // From the first `=` after the word everything is hidden: the quotes may be what is broken.
        let word = SECRET_WORDS.iter().filter_map(|word| lower.find(word)).min().unwrap_or(0);
        if let Some(equals) = line[word..].find('=') {
            let value = word + equals + 1;
            let value = value + (line[value..].len() - line[value..].trim_start().len());
            if value < line.len() {
                hidden.push(value..line.len());
                return hidden;
            }
        }
    }
    // Credentials in an address: everything between `//`, or the quote of one without scheme, and `@`.
    let mut from = 0;
    while let Some(begin) = line[from..].find(['/', '"', '\'']) {
        let begin = from + begin;
        let start = begin + if line[begin..].starts_with("//") { 2 } else { 1 };
        let end = line[start..].find(['"', '\'', '/', ' ', ',']).map_or(line.len(), |length| start + length);
        if let Some(at) = line[start..end].rfind('@').filter(|at| *at > 0) {
            hidden.push(start..start + at);
        }
        from = start;
    }
    hidden
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source::SourceId;
    use std::path::Path;

    fn excerpt(text: &str, mark: &str) -> Excerpt {
        let source = Source::new("t", Path::new(""), text.to_owned());
        let start = text.find(mark).expect("the mark stands in the text");
        Excerpt::new(&source, Place::new(SourceId(0), &(start..start + mark.len())))
    }

    #[test]
    fn marks_what_is_shown() {
        let shown = excerpt("\tport = 1", "port");
        assert_eq!(shown, Excerpt { line: "    port = 1".to_owned(), indent: 4, marked: 4 });
    }

    #[test]
    fn hides_values_of_secret_keys_but_not_the_key() {
        let shown = excerpt("auth_token = \"hunter2\"", "auth_token");
        assert_eq!(shown, Excerpt { line: "auth_token = ***".to_owned(), indent: 0, marked: 10 });
        let broken = excerpt("a.password = hunter2'", "hunter2");
        assert_eq!(broken, Excerpt { line: "a.password = ***".to_owned(), indent: 13, marked: 3 });
    }

    #[test]
    fn hides_credentials_in_addresses() {
        let shown = excerpt("a = \"http://me:hunter2@10.0.0.1:80\"", "\"http");
        assert_eq!(shown.line, "a = \"http://***@10.0.0.1:80\"");
        let shown = excerpt("a = \"me:hunter2@10.0.0.1:80\"", "\"me");
        assert_eq!(shown.line, "a = \"***@10.0.0.1:80\"");
    }

    #[test]
    fn hides_pasted_keys() {
        let text = "key = \"\"\"\n-----BEGIN PRIVATE KEY-----\nMIGHAgEA\n-----END PRIVATE KEY-----\n\"\"\"\nport = x\n";
        assert_eq!(excerpt(text, "MIGH").line, "(hidden)");
        assert_eq!(excerpt(text, "-----BEGIN").line, "(hidden)");
        assert_eq!(excerpt(text, "port").line, "port = x");
    }

    #[test]
    fn cuts_long_lines_around_the_mark() {
        let text = format!("{}HERE{}", "a".repeat(500), "b".repeat(500));
        let shown = excerpt(&text, "HERE");
        let line: Vec<char> = shown.line.chars().collect();
        assert_eq!(line.len(), SHOWN_MAX + 2);
        assert_eq!(line[shown.indent..shown.indent + shown.marked].iter().collect::<String>(), "HERE");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(excerpt("a = \u{1b}[2J", "a").line, "a = \u{fffd}[2J");
    }
}
