//! Where a response's body goes, and the first bytes of it for those who only look.

use crate::control::{Exit, Failure};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Bytes of a body that are shown beside the facts; a longer one is not.
const PREVIEW_BYTES: usize = 4 << 10;

/// Takes bodies.
#[derive(Debug)]
pub(super) struct Sink {
    to: To,
    /// The first bytes of this request's body, one more than are shown at most.
    first: Vec<u8>,
}

#[derive(Debug)]
enum To {
    Nowhere,
    Stdout,
    File(File),
}

impl Sink {
    /// Opens `path`; `-` is standard output, nothing is nowhere.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let to = match path {
            None => To::Nowhere,
            Some(path) if path == Path::new("-") => To::Stdout,
            Some(path) => To::File(
                File::create(path).map_err(|error| Failure::file(path, "--output", &error).exit(Exit::Output))?,
            ),
        };
        Ok(Self { to, first: Vec::new() })
    }

    /// Whether bodies go to standard output.
    pub(super) fn takes_stdout(&self) -> bool {
        matches!(self.to, To::Stdout)
    }

    /// Another body follows.
    pub(super) fn begin(&mut self) {
        self.first.clear();
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.to {
            To::Nowhere => {
                let room = (PREVIEW_BYTES + 1).saturating_sub(self.first.len());
                self.first.extend_from_slice(&bytes[..bytes.len().min(room)]);
                Ok(())
            }
            To::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            To::File(file) => file.write_all(bytes),
        }
    }

    /// The body, if it went nowhere and is a short text without control characters.
    pub(super) fn preview(&self) -> Option<&str> {
        if self.first.is_empty() || self.first.len() > PREVIEW_BYTES {
            return None;
        }
        let text = str::from_utf8(&self.first).ok()?;
        text.chars().all(|c| matches!(c, '\n' | '\r' | '\t') || crate::cli::terminal::is_printable(c)).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_texts_are_shown() {
        let preview = |parts: &[&[u8]]| {
            let mut sink = Sink::open(None).unwrap();
            parts.iter().for_each(|part| sink.write(part).unwrap());
            sink.preview().map(str::to_owned)
        };
        assert_eq!(preview(&[b"bad ", b"gateway\n"]).as_deref(), Some("bad gateway\n"));
        assert_eq!(preview(&[]), None);
        assert_eq!(preview(&[b"\x1b[31m"]), None);
        assert_eq!(preview(&[b"\xff"]), None);
        assert_eq!(preview(&[&[b'a'; PREVIEW_BYTES]]).map(|text| text.len()), Some(PREVIEW_BYTES));
        assert_eq!(preview(&[&[b'a'; PREVIEW_BYTES], b"a", &[b'a'; PREVIEW_BYTES]]), None);
    }

    #[test]
    fn bodies_go_to_a_file_one_behind_the_other() {
        let path = std::env::temp_dir().join(format!("spooky-probe-sink-{}", std::process::id()));
        let mut sink = Sink::open(Some(&path)).unwrap();
        for body in ["one", "two"] {
            sink.begin();
            sink.write(body.as_bytes()).unwrap();
            assert_eq!(sink.preview(), None);
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"onetwo");
        std::fs::remove_file(&path).unwrap();
        let refused = Sink::open(Some(Path::new("/no/such/folder/file"))).unwrap_err();
        assert_eq!(refused.exit, Exit::Output);
    }
}
