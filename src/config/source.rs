//! The texts a configuration was read from, and places in them.
//!
//! Owns file names, contents and the arithmetic from byte offset to line and column. Knows nothing of TOML.
//! Read next: `diagnostic`, which shows places to people.

use std::ops::Range;
use std::path::{Path, PathBuf};

/// One text: a file, or what the caller passed as one.
#[derive(Clone, Debug)]
pub struct Source {
    /// As the operator named it.
    pub name: String,
    /// Where relative paths written in it start; empty: the working directory.
    pub folder: PathBuf,
    /// The content.
    pub text: String,
    /// Byte offset of each line's first byte; the first is 0.
    lines: Vec<u32>,
}

/// Position of a text in [`Sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u16);

/// A range of bytes in one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The text.
    pub source: SourceId,
    /// First byte.
    pub start: u32,
    /// One past the last byte; `start <= end`.
    pub end: u32,
}

impl Place {
    /// The place of a value nobody wrote: a default. It is never shown.
    pub const NOWHERE: Self = Self { source: SourceId(u16::MAX), start: 0, end: 0 };

    /// Of a byte range.
    #[must_use]
    pub fn new(source: SourceId, range: &Range<usize>) -> Self {
        let start = u32::try_from(range.start).unwrap_or(u32::MAX);
        let end = u32::try_from(range.end).unwrap_or(u32::MAX).max(start);
        Self { source, start, end }
    }
}

/// Line and column, both from 1; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// From 1.
    pub line: u32,
    /// From 1.
    pub column: u32,
}

impl Source {
    /// Indexes the lines of a text.
    #[must_use]
    pub fn new(name: impl Into<String>, folder: &Path, text: String) -> Self {
        let mut lines = vec![0];
        for (at, byte) in text.bytes().enumerate() {
            if byte == b'\n' {
                lines.push(u32::try_from(at + 1).unwrap_or(u32::MAX));
            }
        }
        Self { name: name.into(), folder: folder.to_owned(), text, lines }
    }

    /// Index (from 0) of the line that holds an offset.
    #[must_use]
    pub fn line_index(&self, offset: u32) -> usize {
        self.lines.partition_point(|&start| start <= offset).saturating_sub(1)
    }

    /// Byte range of a line, without its line end.
    #[must_use]
    pub fn line_range(&self, index: usize) -> Range<usize> {
        let start = self.lines[index] as usize;
        let end = self.lines.get(index + 1).map_or(self.text.len(), |&next| next as usize);
        let line = &self.text[start..end];
        let line = line.strip_suffix('\n').unwrap_or(line);
        let line = line.strip_suffix('\r').unwrap_or(line);
        start..start + line.len()
    }

    /// Line and column of an offset; an offset past the end, or inside a character, counts as the one before.
    #[must_use]
    pub fn position(&self, offset: u32) -> Position {
        let offset = offset.min(u32::try_from(self.text.len()).unwrap_or(u32::MAX));
        let index = self.line_index(offset);
        let start = self.lines[index] as usize;
        let column = self.text[start..].char_indices().take_while(|(at, _)| start + at < offset as usize).count();
        Position {
            line: u32::try_from(index + 1).unwrap_or(u32::MAX),
            column: u32::try_from(column + 1).unwrap_or(u32::MAX),
        }
    }
}

/// All texts of one configuration.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    list: Vec<Source>,
}

impl Sources {
    /// Adds a text. Callers keep within `limits::CONFIG_FILES`, which fits the id.
    pub fn add(&mut self, source: Source) -> SourceId {
        self.list.push(source);
        SourceId(u16::try_from(self.list.len() - 1).unwrap_or(u16::MAX))
    }

    /// A text.
    #[must_use]
    pub fn get(&self, id: SourceId) -> &Source {
        &self.list[id.0 as usize]
    }

    /// All, the main text first.
    pub fn iter(&self) -> impl Iterator<Item = (SourceId, &Source)> {
        self.list.iter().enumerate().map(|(at, source)| (SourceId(u16::try_from(at).unwrap_or(u16::MAX)), source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let source = Source::new("a", Path::new(""), "äb = 1\r\n\nc".to_owned());
        assert_eq!(source.position(0), Position { line: 1, column: 1 });
        assert_eq!(source.position(2), Position { line: 1, column: 2 });
        assert_eq!(source.position(9), Position { line: 2, column: 1 });
        assert_eq!(source.position(10), Position { line: 3, column: 1 });
        assert_eq!(source.position(500), Position { line: 3, column: 2 });
        assert_eq!(&source.text[source.line_range(0)], "äb = 1");
        assert_eq!(&source.text[source.line_range(1)], "");
    }

    #[test]
    fn an_empty_text_has_one_line() {
        let source = Source::new("a", Path::new(""), String::new());
        assert_eq!(source.position(0), Position { line: 1, column: 1 });
        assert_eq!(source.line_range(0), 0..0);
    }
}
