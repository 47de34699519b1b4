//! What is wrong with a configuration, where, and what to do about it.
//!
//! Owns findings, their order and their rendering for people: the line, the place underlined, the fix. Never shows
//! what looks like a secret (see `redact`). Read next: `schema`, where most findings are made.

use std::fmt;

use super::redact::Excerpt;
use super::source::{Place, Position, Sources};
use crate::limits;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// It works, but probably not as meant.
    Warning,
}

/// One marked place of a finding.
#[derive(Clone, Debug)]
pub struct Label {
    /// What is underlined.
    pub place: Place,
    /// Said beside the underline; may be empty.
    pub text: String,
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong, one line without a full stop.
    pub message: String,
    /// The place itself, then other places that explain it.
    pub labels: Vec<Label>,
    /// What to do about it.
    pub help: Vec<String>,
    /// Lack of permission is the cause: the program's exit code differs.
    denied: bool,
}

impl Diagnostic {
    /// An error without a place yet.
    pub fn error(message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, message: message.into(), labels: Vec::new(), help: Vec::new(), denied: false }
    }

    /// A warning without a place yet.
    pub fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    /// Marks a place; the place of a default is not marked.
    #[must_use]
    pub fn at(mut self, place: Place, text: impl Into<String>) -> Self {
        if place != Place::NOWHERE {
            self.labels.push(Label { place, text: text.into() });
        }
        self
    }

    /// Marks a place where there is one.
    #[must_use]
    pub fn at_some(self, place: Option<Place>, text: &str) -> Self {
        self.at(place.unwrap_or(Place::NOWHERE), text)
    }

    /// Says that a file could not be read for lack of permission.
    #[must_use]
    pub fn denied(mut self, denied: bool) -> Self {
        self.denied = denied;
        self
    }

    /// Adds advice.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help.push(text.into());
        self
    }
}

/// Findings while they are collected.
#[derive(Debug, Default)]
pub struct Findings {
    list: Vec<Diagnostic>,
}

impl Findings {
    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.list.push(diagnostic);
    }

    /// Whether one of them refuses the configuration.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// Warnings if nothing refuses the configuration, else everything; in the order of the files.
    ///
    /// # Errors
    /// With all findings when one of them is an error.
    pub fn conclude(self, sources: Sources) -> Result<Warnings, Diagnostics> {
        if self.has_errors() { Err(self.refuse(sources)) } else { Ok(Warnings(self.report(sources))) }
    }

    /// Everything, in the order of the files, for a configuration that was not even read.
    #[must_use]
    pub fn refuse(self, sources: Sources) -> Diagnostics {
        Diagnostics(self.report(sources))
    }

    fn report(mut self, sources: Sources) -> Report {
        self.list.sort_by_key(|diagnostic| diagnostic.labels.first().map(|label| label.place));
        Report { sources, list: self.list }
    }
}

/// A sorted list of findings with the texts they point into.
#[derive(Clone, Debug)]
struct Report {
    sources: Sources,
    list: Vec<Diagnostic>,
}

/// Why a configuration was refused: at least one error. `Display` shows all of them.
#[derive(Clone, Debug)]
pub struct Diagnostics(Report);

/// What an accepted configuration should be told; may be empty. `Display` shows all of them.
#[derive(Clone, Debug)]
pub struct Warnings(Report);

impl Diagnostics {
    /// The findings, in the order of the files.
    pub fn iter(&self) -> impl Iterator<Item = Finding<'_>> {
        self.0.findings()
    }

    /// Whether lack of permission to read a file is among the causes.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.0.list.iter().any(|diagnostic| diagnostic.denied)
    }
}

impl Warnings {
    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.list.is_empty()
    }

    /// The findings, in the order of the files.
    pub fn iter(&self) -> impl Iterator<Item = Finding<'_>> {
        self.0.findings()
    }
}

/// A finding with its position worked out, for machine-readable output.
#[derive(Clone, Copy, Debug)]
pub struct Finding<'a> {
    sources: &'a Sources,
    diagnostic: &'a Diagnostic,
}

impl<'a> Finding<'a> {
    /// Error or warning.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.diagnostic.severity
    }

    /// What is wrong.
    #[must_use]
    pub fn message(&self) -> &'a str {
        &self.diagnostic.message
    }

    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> &'a [String] {
        &self.diagnostic.help
    }

    /// File name, position and remark of each marked place.
    pub fn places(&self) -> impl Iterator<Item = (&'a str, Position, &'a str)> {
        let sources = self.sources;
        self.diagnostic.labels.iter().map(move |label| {
            let source = sources.get(label.place.source);
            (source.name.as_str(), source.position(label.place.start), label.text.as_str())
        })
    }
}

impl fmt::Display for Finding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{word}: {}", self.diagnostic.message)?;
        let width = self.places().map(|(_, position, _)| position.line.to_string().len()).max().unwrap_or(0);
        for (label, (name, position, text)) in self.diagnostic.labels.iter().zip(self.places()) {
            let excerpt = Excerpt::new(self.sources.get(label.place.source), label.place);
            writeln!(f, "{:width$}--> {name}:{}:{}", "", position.line, position.column)?;
            writeln!(f, "{:width$} |", "")?;
            writeln!(f, "{:>width$} | {}", position.line, excerpt.line)?;
            let mark = format!("{}{} {text}", " ".repeat(excerpt.indent), "^".repeat(excerpt.marked));
            writeln!(f, "{:width$} | {}", "", mark.trim_end())?;
        }
        for help in &self.diagnostic.help {
            writeln!(f, "{:width$} = help: {help}", "")?;
        }
        Ok(())
    }
}

impl Report {
    fn findings(&self) -> impl Iterator<Item = Finding<'_>> {
        self.list.iter().map(|diagnostic| Finding { sources: &self.sources, diagnostic })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in self.findings().take(limits::CONFIG_DIAGNOSTICS_SHOWN) {
            writeln!(f, "{finding}")?;
        }
        if let Some(hidden @ 1..) = self.list.len().checked_sub(limits::CONFIG_DIAGNOSTICS_SHOWN) {
            writeln!(f, "… and {hidden} more\n")?;
        }
        let errors = self.list.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
        let counted = |count: usize, word: &str| match count {
            0 => None,
            1 => Some(format!("1 {word}")),
            _ => Some(format!("{count} {word}s")),
        };
        let parts: Vec<_> =
            [counted(errors, "error"), counted(self.list.len() - errors, "warning")].into_iter().flatten().collect();
        match (parts.is_empty(), self.sources.iter().next()) {
            (false, Some((_, main))) => writeln!(f, "{} in {}", parts.join(", "), main.name),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Warnings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Diagnostics {}
