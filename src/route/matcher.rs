//! What a route can ask of a request beside host, path and method: fields, query and cookies.
//!
//! Each matcher looks at one value, the first of its name; so two that want different values are never both content.
//! [`Pattern`] bounds what a regular expression may cost. Read [`super::choices`] next.

use regex::bytes::{Regex, RegexBuilder};
use std::cmp::Reverse;
use std::fmt;

use super::Request;
use crate::http::{FieldName, Known, forward, parameters};
use crate::limits;

/// Where a matcher looks. In the order of what tells more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A field of the request's head.
    Header,
    /// A parameter of the query.
    Query,
    /// A cookie.
    Cookie,
}

impl Source {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Query => "query",
            Self::Cookie => "cookie",
        }
    }
}

/// One value of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    source: Source,
    /// Of a field: in lower case.
    name: Box<str>,
    known: Option<Known>,
    /// Only a trusted peer's word counts: from others the field is dropped before it goes upstream.
    guarded: bool,
}

impl Subject {
    /// The value of this name; names of fields are compared without case.
    #[must_use]
    pub fn new(source: Source, name: &str) -> Self {
        if source != Source::Header {
            return Self { source, name: name.into(), known: None, guarded: false };
        }
        let name = name.to_ascii_lowercase();
        let known = Known::from_lower(name.as_bytes());
        let guarded = forward::needs_trust(&FieldName { known, name: name.as_bytes() });
        Self { source, name: name.into(), known, guarded }
    }

    /// Where it looks.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source
    }

    /// Its name; of a field: in lower case.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether only a trusted peer's word counts for it.
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        self.guarded
    }

    /// The first value of this name. `scratch` may be used for it.
    pub(super) fn value<'a>(&self, request: &Request<'a>, scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        let name = self.name.as_bytes();
        match (self.source, self.known) {
            (Source::Header, _) if self.guarded && !request.trusted => None,
            (Source::Header, Some(known)) => request.fields.get(known),
            (Source::Header, None) => request
                .fields
                .iter()
                .find(|(field, _)| field.known.is_none() && field.name == name)
                .map(|(_, value)| value),
            (Source::Query, _) => parameters::query_value(request.query?, name, scratch),
            (Source::Cookie, _) => parameters::cookie_value(request.fields, name),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.source.as_str(), self.name)
    }
}

/// A regular expression that the whole of a value has to match. Works on bytes; classes like `\d` are ASCII.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Box<str>,
    regex: Regex,
}

impl Pattern {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong, for people, without the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > limits::PATTERN_BYTES {
            return Err(format!("the pattern is longer than {} bytes", limits::PATTERN_BYTES));
        }
        // Alone first: what closes the group around it and opens another would be no longer anchored.
        Self::build(text)?;
        let regex = Self::build(&format!(r"\A(?:{text})\z"))?;
        Ok(Self { text: text.into(), regex })
    }

    /// Whether the whole of a value matches. Threads that ask at once may wait for each other: requests ask their [`Lens`].
    pub(super) fn matches(&self, value: &[u8]) -> bool {
        self.regex.is_match(value)
    }

    fn build(text: &str) -> Result<Regex, String> {
        let mut builder = RegexBuilder::new(text);
        builder.unicode(false).size_limit(limits::PATTERN_COMPILED_BYTES).dfa_size_limit(limits::PATTERN_CACHE_BYTES);
        builder.build().map_err(|error| match error {
            regex::Error::CompiledTooBig(limit) => format!("the compiled pattern is larger than {limit} bytes"),
            // Several lines, which quote the pattern; the last one says what is wrong.
            other => {
                let whole = other.to_string();
                let last = whole.lines().last().unwrap_or_default();
                last.strip_prefix("error: ").unwrap_or(last).to_owned()
            }
        })
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

/// What a value has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// One of these.
    Exact(Vec<Box<str>>),
    /// Anything that matches.
    Regex(Pattern),
    /// Anything at all.
    Present,
}

/// One thing that a route asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher {
    /// Where it looks.
    pub subject: Subject,
    /// What it wants to see.
    pub test: Test,
}

/// How telling the matchers of a route are; the larger one is asked first. In this order: how many there are, how many want exact
/// values, how many a pattern, how many look at fields, how many at the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Weight([usize; 5]);

impl Weight {
    pub(super) fn of(matchers: &[Matcher]) -> Self {
        let count = |wanted: fn(&Matcher) -> bool| matchers.iter().filter(|one| wanted(one)).count();
        Self([
            matchers.len(),
            count(|one| matches!(one.test, Test::Exact(_))),
            count(|one| matches!(one.test, Test::Regex(_))),
            count(|one| one.subject.source == Source::Header),
            count(|one| one.subject.source == Source::Query),
        ])
    }

    /// For sorting the most telling first.
    pub(super) fn first(self) -> Reverse<Self> {
        Reverse(self)
    }
}

/// Whether one request can satisfy both: `false` only if it is certain that none can.
pub(super) fn overlap(some: &[Matcher], others: &[Matcher]) -> bool {
    let apart = |one: &Matcher, other: &Matcher| match (&one.test, &other.test) {
        (Test::Exact(some), Test::Exact(others)) => !some.iter().any(|value| others.contains(value)),
        (Test::Exact(values), Test::Regex(pattern)) | (Test::Regex(pattern), Test::Exact(values)) => {
            !values.iter().any(|value| pattern.regex.is_match(value.as_bytes()))
        }
        _ => false,
    };
    !some.iter().any(|one| others.iter().any(|other| one.subject == other.subject && apart(one, other)))
}

/// Whether every request that satisfies `narrow` satisfies `wide` too: `true` only if that is certain.
pub(super) fn implies(narrow: &[Matcher], wide: &[Matcher]) -> bool {
    let enough = |have: &Test, want: &Test| match (have, want) {
        (_, Test::Present) => true,
        (Test::Exact(have), Test::Exact(want)) => have.iter().all(|value| want.contains(value)),
        (Test::Exact(have), Test::Regex(want)) => have.iter().all(|value| want.regex.is_match(value.as_bytes())),
        (Test::Regex(have), Test::Regex(want)) => have == want,
        _ => false,
    };
    wide.iter().all(|want| narrow.iter().any(|have| have.subject == want.subject && enough(&have.test, &want.test)))
}

/// All patterns of a table.
#[derive(Clone, Debug, Default)]
pub(super) struct PatternList(Vec<Pattern>);

impl PatternList {
    /// The position of a pattern; each text is kept once.
    pub(super) fn intern(&mut self, pattern: &Pattern) -> usize {
        let known = self.0.iter().position(|one| one == pattern);
        known.unwrap_or_else(|| {
            self.0.push(pattern.clone());
            self.0.len() - 1
        })
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// What a thread needs to look requests up: its own caches of every pattern, so that no two threads wait for one, and memory for
/// decoded values.
#[derive(Debug)]
pub struct Lens {
    patterns: Vec<Regex>,
    pub(super) scratch: Vec<u8>,
}

impl Lens {
    /// For one thread.
    pub(super) fn new(list: &PatternList) -> Self {
        // A clone shares the program and has caches of its own.
        Self { patterns: list.0.iter().map(|pattern| pattern.regex.clone()).collect(), scratch: Vec::new() }
    }
}

/// A matcher of a compiled table.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    pub(super) subject: Subject,
    pub(super) test: CompiledTest,
}

/// A [`Test`] whose pattern stands in the [`Lens`].
#[derive(Clone, Debug)]
pub(super) enum CompiledTest {
    Exact(Vec<Box<str>>),
    Regex(usize),
    Present,
}

impl Condition {
    pub(super) fn new(matcher: &Matcher, patterns: &mut PatternList) -> Self {
        let test = match &matcher.test {
            Test::Exact(values) => CompiledTest::Exact(values.clone()),
            Test::Regex(pattern) => CompiledTest::Regex(patterns.intern(pattern)),
            Test::Present => CompiledTest::Present,
        };
        Self { subject: matcher.subject.clone(), test }
    }

    pub(super) fn holds(&self, request: &Request<'_>, lens: &mut Lens) -> bool {
        let Lens { patterns, scratch } = lens;
        let Some(value) = self.subject.value(request, scratch) else {
            return false;
        };
        match &self.test {
            CompiledTest::Exact(values) => values.iter().any(|wanted| wanted.as_bytes() == value),
            CompiledTest::Regex(at) => patterns[*at].is_match(value),
            CompiledTest::Present => true,
        }
    }
}
