//! What this folder's tests share: every way to cut an input, and a small seeded generator.

use crate::http::Fields;
use crate::http::Output;
use std::fmt::Debug;

/// Runs `run` over the whole input, then over the input cut in two at every point, then byte by byte, and insists on
/// the same outcome. Returns it.
pub(super) fn every_cut<T: PartialEq + Debug>(input: &[u8], run: impl Fn(&[&[u8]]) -> T) -> T {
    let whole = run(&[input]);
    let shown = input.escape_ascii();
    for at in 1..input.len() {
        let (front, back) = input.split_at(at);
        assert_eq!(run(&[front, back]), whole, "cut at {at} of \"{shown}\"");
    }
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(run(&bytes), whole, "byte by byte: \"{shown}\"");
    whole
}

/// A small seeded generator (xorshift64*): enough to vary inputs, and a failure names its seed.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// The input cut at random points.
    pub(super) fn cuts<'a>(&mut self, mut input: &'a [u8]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        while !input.is_empty() {
            let most = input.len().min(64);
            let (piece, rest) = input.split_at(1 + self.below(most));
            pieces.push(piece);
            input = rest;
        }
        pieces
    }

    /// The input with a few bytes changed, lost or doubled.
    pub(super) fn mutated(&mut self, input: &[u8]) -> Vec<u8> {
        const TELLING: &[u8] = b"\r\n\0 \t:;,0159afAFx\x7f\xff-";
        let mut output = input.to_vec();
        for _ in 0..=self.below(4) {
            if output.is_empty() {
                break;
            }
            let at = self.below(output.len());
            let byte = TELLING[self.below(TELLING.len())];
            match self.below(5) {
                0 => output[at] = byte,
                1 => output.insert(at, byte),
                2 => drop(output.remove(at)),
                3 => output.truncate(at),
                _ => {
                    let end = (at + self.below(32)).min(output.len());
                    let copy = output[at..end].to_vec();
                    output.splice(at..at, copy);
                }
            }
        }
        output
    }
}

/// Every file of a corpus folder, with the name of the directory it stands in: what is expected of it.
pub(super) fn corpus(folder: &str) -> Vec<(String, String, Vec<u8>)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/h1").join(folder);
    let mut files = Vec::new();
    for class in std::fs::read_dir(&root).unwrap() {
        let class = class.unwrap();
        for file in std::fs::read_dir(class.path()).unwrap() {
            let file = file.unwrap();
            let text = |name: std::ffi::OsString| name.into_string().unwrap();
            let bytes = std::fs::read(file.path()).unwrap();
            files.push((text(class.file_name()), text(file.file_name()), bytes));
        }
    }
    assert!(!files.is_empty(), "{root:?} is empty");
    files.sort();
    files
}

/// What was handed out, in words; adjoining body pieces become one, so that cuts do not show.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Story {
    pub lines: Vec<String>,
    in_body: bool,
}

impl Story {
    pub(super) fn tell(&mut self, line: impl Into<String>) {
        self.in_body = false;
        self.lines.push(line.into());
    }

    pub(super) fn body(&mut self, bytes: &[u8]) {
        assert!(!bytes.is_empty(), "an empty body piece");
        let text = bytes.escape_ascii().to_string();
        match self.lines.last_mut() {
            Some(line) if self.in_body => line.push_str(&text),
            _ => self.lines.push(format!("body {text}")),
        }
        self.in_body = true;
    }

    pub(super) fn fields(fields: &Fields) -> String {
        fields.iter().map(|(name, value)| format!(" {}={}", name.name.escape_ascii(), value.escape_ascii())).collect()
    }
}

/// Everything a list holds, as one text.
pub(super) fn sent(out: &mut Output) -> String {
    let mut text = Vec::new();
    while let Some(chunk) = out.pop() {
        text.extend_from_slice(&chunk);
    }
    String::from_utf8(text).unwrap()
}
