//! Owns the two readings of a request path, made by one parse.
//!
//! - **forwarded path**: escapes of unreserved bytes decoded once, dot segments removed (RFC 3986 §5.2.4); everything else,
//!   `%2F`, `%5C`, `;` and the spelling of escapes included, stays as sent. It goes upstream with the query.
//! - **match path**: the forwarded path with runs of `/` folded. Routes and every policy judge this one.
//!
//! The match path is made from the forwarded path and never from the wire, so what is judged is what the backend gets,
//! but for repeated slashes. A path that needs no change is scanned once and both readings share its buffer. It refuses to
//! know routes; [`super::normalize`] calls it, and so does the configuration for the prefixes it compiles.

use super::reason::Reason;
use super::syntax::{hex, is_unreserved};

/// Why a path was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathFault {
    /// It does not begin with `/`.
    NotAbsolute,
    /// A control byte, NUL or a space.
    Control,
    /// A raw backslash, which some servers read as `/`.
    Backslash,
    /// A `#`: a fragment is never sent.
    Fragment,
    /// A `%` without two hexadecimal digits.
    Escape,
    /// An escape of a control byte, `%00` to `%1F` or `%7F`.
    EscapedControl,
    /// A segment `.` or `..` followed by `;`, which some servers read as a dot segment.
    DotParameter,
    /// Bytes over 127 that are not UTF-8.
    NotUtf8,
}

impl PathFault {
    /// What is wrong, for people.
    pub const fn description(self) -> &'static str {
        match self {
            Self::NotAbsolute => "the path does not begin with `/`",
            Self::Control => "the path has a control byte or a space",
            Self::Backslash => "the path has a backslash",
            Self::Fragment => "the path has a `#`",
            Self::Escape => "a `%` is not followed by two hexadecimal digits",
            Self::EscapedControl => "the path has an escaped control byte",
            Self::DotParameter => "a segment `.` or `..` is followed by `;`",
            Self::NotUtf8 => "the path has bytes that are not UTF-8",
        }
    }
}

impl From<PathFault> for Reason {
    fn from(_: PathFault) -> Self {
        Reason::Target
    }
}

/// The two readings of one path, and its query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathPair {
    /// The forwarded path, then `?` and the query if there is one.
    text: String,
    /// Invariant: `text[..path_len]` is the forwarded path.
    path_len: usize,
    /// The match path where it differs from the forwarded path; empty otherwise.
    folded: String,
    encoded_slash: bool,
}

impl PathPair {
    /// An empty pair, to be filled by [`Self::set`].
    pub const fn new() -> Self {
        Self { text: String::new(), path_len: 0, folded: String::new(), encoded_slash: false }
    }

    /// Reads `/path[?query]`.
    ///
    /// # Errors
    /// The first fault found.
    pub fn parse(raw: &[u8]) -> Result<Self, PathFault> {
        let mut pair = Self::new();
        pair.set(raw)?;
        Ok(pair)
    }

    /// Reads `/path[?query]` into memory already held.
    ///
    /// # Errors
    /// The first fault found; the pair is empty then.
    pub fn set(&mut self, raw: &[u8]) -> Result<(), PathFault> {
        self.clear();
        let taken = self.take(raw);
        if taken.is_err() {
            self.clear();
        }
        taken
    }

    fn take(&mut self, raw: &[u8]) -> Result<(), PathFault> {
        if raw.first() != Some(&b'/') {
            return Err(PathFault::NotAbsolute);
        }
        let scan = scan(raw)?;
        let text = str::from_utf8(raw).map_err(|_| PathFault::NotUtf8)?;
        if scan.plain {
            self.text.push_str(text);
            self.path_len = scan.path_len;
        } else {
            let (path, query) = text.split_at(scan.path_len);
            self.rewrite(path)?;
            self.path_len = self.text.len();
            // A dot segment may have taken it away again.
            self.encoded_slash = self.encoded_slash && has_encoded_slash(&self.text);
            self.text.push_str(query);
        }
        if scan.doubled || !scan.plain {
            self.fold();
        }
        Ok(())
    }

    /// Appends `path` to `text`, decoded and without dot segments.
    fn rewrite(&mut self, path: &str) -> Result<(), PathFault> {
        // Segments stand between slashes; the first is the empty one before the leading slash.
        let mut segments = path[1..].split('/').peekable();
        while let Some(segment) = segments.next() {
            let last = segments.peek().is_none();
            let start = self.text.len();
            self.text.push('/');
            self.decode(segment)?;
            match &self.text[start + 1..] {
                "." => self.text.truncate(start),
                ".." => {
                    let parent = self.text[..start].rfind('/').unwrap_or(0);
                    self.text.truncate(parent);
                }
                decoded => {
                    if decoded.starts_with(".;") || decoded.starts_with("..;") {
                        return Err(PathFault::DotParameter);
                    }
                    continue;
                }
            }
            // `/a/.` and `/a/b/..` name the directory: they end in a slash.
            if last {
                self.text.push('/');
            }
        }
        Ok(())
    }

    /// Appends one segment with the escapes of unreserved bytes decoded; [`scan`] saw that every escape is whole.
    fn decode(&mut self, segment: &str) -> Result<(), PathFault> {
        let mut rest = segment;
        while let Some(at) = rest.find('%') {
            self.text.push_str(&rest[..at]);
            let byte = escaped(&rest.as_bytes()[at..]).ok_or(PathFault::Escape)?;
            if is_unreserved(byte) {
                self.text.push(char::from(byte));
            } else {
                self.encoded_slash |= matches!(byte, b'/' | b'\\');
                self.text.push_str(&rest[at..at + 3]);
            }
            rest = &rest[at + 3..];
        }
        self.text.push_str(rest);
        Ok(())
    }

    /// Puts `base` in the place of `prefix`, under which the match path lies, or of the whole path, and reads the result again;
    /// the query stays.
    ///
    /// # Errors
    /// A fault of the new path; the pair is empty then.
    pub fn rewrite_to(&mut self, base: &str, prefix: Option<&str>) -> Result<(), PathFault> {
        let mut whole = String::with_capacity(base.len() + 1 + self.text.len());
        join(base, prefix.map_or("", |prefix| behind(self.path(), prefix)), &mut whole);
        whole.push_str(&self.text[self.path_len..]);
        self.set(whole.as_bytes())
    }

    /// Makes the match path if the forwarded path has `//`.
    fn fold(&mut self) {
        let path = &self.text[..self.path_len];
        if path.contains("//") {
            fold_slashes(path, &mut self.folded);
        }
    }

    /// What goes upstream: the forwarded path, then `?` and the query as sent if there is one.
    #[inline]
    pub fn forwarded(&self) -> &str {
        &self.text
    }

    /// The forwarded path without the query.
    #[inline]
    pub fn path(&self) -> &str {
        &self.text[..self.path_len]
    }

    /// The match path: what routes and policies look at.
    #[inline]
    pub fn matched(&self) -> &str {
        if self.folded.is_empty() { self.path() } else { &self.folded }
    }

    /// The query as sent, without `?`; `None` if there was no `?`.
    #[inline]
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.path_len + 1..)
    }

    /// Whether the path has `%2F` or `%5C`.
    #[inline]
    pub fn has_encoded_slash(&self) -> bool {
        self.encoded_slash
    }

    /// Whether the match path lies under one of `prefixes`, read as it is, and read with `%2F` and `%5C` as `/` and the dot
    /// segments this makes removed: a backend that decodes them would see that path.
    pub fn lies_under(&self, prefixes: &[impl AsRef<str>]) -> bool {
        let any = |path: &str| prefixes.iter().any(|one| has_prefix(path, one.as_ref()));
        if any(self.matched()) {
            return true;
        }
        if !self.encoded_slash || prefixes.is_empty() {
            return false;
        }
        // Rare enough to allocate. `\` is refused raw, so the text that comes out parses again.
        let mut open = String::with_capacity(self.matched().len());
        let mut rest = self.matched();
        while let Some(at) = rest.find('%') {
            open.push_str(&rest[..at]);
            match escaped(&rest.as_bytes()[at..]) {
                Some(b'/' | b'\\') => open.push('/'),
                _ => open.push_str(&rest[at..at + 3]),
            }
            rest = &rest[at + 3..];
        }
        open.push_str(rest);
        if any(&open) {
            return true;
        }
        match Self::parse(open.as_bytes()) {
            Ok(pair) => any(pair.matched()),
            // `..%2F` before `;` and its like: what it means is anyone's guess, so it is denied.
            Err(_) => true,
        }
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.path_len = 0;
        self.folded.clear();
        self.encoded_slash = false;
    }
}

/// Whether `path` is `prefix` or lies below it: `/api` holds `/api` and `/api/x`, not `/apix`; `/api/` holds `/api/x` only.
#[inline]
pub fn has_prefix(path: &str, prefix: &str) -> bool {
    match path.strip_prefix(prefix) {
        Some(rest) => rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/'),
        None => false,
    }
}

/// What a forwarded path has behind the prefix that its match path lies under: `/x` of `//api/x` behind `/api` or `/api/`;
/// empty, or it begins with a slash.
pub fn behind<'a>(forwarded: &'a str, prefix: &str) -> &'a str {
    let mut rest = forwarded;
    for segment in prefix.split('/').filter(|segment| !segment.is_empty()) {
        rest = rest.trim_start_matches('/');
        rest = rest.strip_prefix(segment).unwrap_or(rest);
    }
    rest
}

/// `base`, and what [`behind`] gave. Between them stands one slash, so that no path becomes one that names a host (`//host/`).
pub fn join(base: &str, below: &str, into: &mut String) {
    if below.is_empty() {
        into.push_str(base);
        return;
    }
    into.push_str(base.trim_end_matches('/'));
    into.push('/');
    into.push_str(below.trim_start_matches('/'));
}

fn fold_slashes(path: &str, out: &mut String) {
    let mut before = '\0';
    for letter in path.chars() {
        if letter != '/' || before != '/' {
            out.push(letter);
        }
        before = letter;
    }
}

fn has_encoded_slash(path: &str) -> bool {
    path.bytes()
        .enumerate()
        .filter(|&(_, byte)| byte == b'%')
        .any(|(at, _)| matches!(escaped(&path.as_bytes()[at..]), Some(b'/' | b'\\')))
}

/// The byte that `%XX` at the start of `text` stands for.
#[inline]
fn escaped(text: &[u8]) -> Option<u8> {
    match text {
        [b'%', high, low, ..] => Some(hex(*high)? << 4 | hex(*low)?),
        _ => None,
    }
}

struct Scan {
    path_len: usize,
    /// No escape and no segment that begins with a dot: the forwarded path is the text as sent.
    plain: bool,
    /// A `//`: the match path differs.
    doubled: bool,
}

mod class {
    pub const PLAIN: u8 = 0;
    pub const SLASH: u8 = 1;
    pub const DOT: u8 = 2;
    pub const PERCENT: u8 = 3;
    pub const QUERY: u8 = 4;
    pub const FAULT: u8 = 5;
}

const CLASS: [u8; 256] = {
    let mut table = [class::PLAIN; 256];
    let mut byte = 0;
    while byte <= 0x20 {
        table[byte] = class::FAULT;
        byte += 1;
    }
    table[0x7f] = class::FAULT;
    table[b'\\' as usize] = class::FAULT;
    table[b'#' as usize] = class::FAULT;
    table[b'/' as usize] = class::SLASH;
    table[b'.' as usize] = class::DOT;
    table[b'%' as usize] = class::PERCENT;
    table[b'?' as usize] = class::QUERY;
    table
};

/// One pass over the raw target: checks every byte and tells what has to be rewritten.
fn scan(raw: &[u8]) -> Result<Scan, PathFault> {
    let mut scan = Scan { path_len: raw.len(), plain: true, doubled: false };
    // Most bytes are plain: the inner loop is one load and one test a byte, the rest runs once per special byte.
    let mut at = 0;
    // Where the next byte would stand right behind a slash; nowhere at first.
    let mut behind_slash = usize::MAX;
    while let Some(plain) = raw[at..].iter().position(|&byte| CLASS[usize::from(byte)] != class::PLAIN) {
        let special = at + plain;
        at = special + 1;
        let after_slash = special == behind_slash;
        match CLASS[usize::from(raw[special])] {
            class::SLASH => {
                scan.doubled |= after_slash;
                behind_slash = at;
            }
            class::DOT => scan.plain &= !after_slash,
            class::PERCENT => {
                let escape = escaped(&raw[special..]).ok_or(PathFault::Escape)?;
                if escape < 0x20 || escape == 0x7f {
                    return Err(PathFault::EscapedControl);
                }
                scan.plain = false;
            }
            class::QUERY => {
                scan.path_len = special;
                query(&raw[at..])?;
                break;
            }
            _ => return Err(fault(raw[special])),
        }
    }
    Ok(scan)
}

/// Checks a query, which is kept as sent: no control bytes, no space, no fragment.
fn query(query: &[u8]) -> Result<(), PathFault> {
    let bad = |&byte: &u8| (byte <= 0x20) | (byte == 0x7f) | (byte == b'#');
    if query.iter().fold(false, |any, byte| any | bad(byte)) {
        return Err(query.iter().copied().find(bad).map_or(PathFault::Control, fault));
    }
    Ok(())
}

fn fault(byte: u8) -> PathFault {
    match byte {
        b'\\' => PathFault::Backslash,
        b'#' => PathFault::Fragment,
        _ => PathFault::Control,
    }
}

#[cfg(test)]
mod tests;
