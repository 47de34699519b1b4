//! Owns which of several things belongs to a server name: exact names before wildcards before the fallback.
//!
//! Generic, so that every TLS stack keeps what it makes of an identity under the same names. A table never changes: whoever
//! wants other identities makes another table and hands it over. A lookup allocates nothing.

use super::name::{NAME_BYTES_MAX, ServerName};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Things by server name.
#[derive(Clone, Debug)]
pub struct Table<T> {
    names: Arc<Names>,
    /// The fallback, then one row for each name.
    /// Invariant: one more than there are names.
    rows: Vec<T>,
}

#[derive(Debug, Default)]
struct Names {
    /// In the order of the rows behind the fallback.
    patterns: Vec<ServerName>,
    /// Rows by host.
    exact: FxHashMap<Box<str>, usize>,
    /// Rows by what follows the first label.
    wildcard: FxHashMap<Box<str>, usize>,
}

/// A name that stands in a table already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DuplicateName(pub ServerName);

impl<T> Table<T> {
    /// A table that knows no names.
    pub fn single(fallback: T) -> Self {
        Self { names: Arc::default(), rows: vec![fallback] }
    }

    /// A table of a fallback and what belongs to names.
    ///
    /// # Errors
    /// If a name stands there twice.
    pub fn new(fallback: T, named: impl IntoIterator<Item = (ServerName, T)>) -> Result<Self, DuplicateName> {
        let mut names = Names::default();
        let mut rows = vec![fallback];
        for (name, value) in named {
            let before = match &name {
                ServerName::Exact(host) => names.exact.insert(host.clone(), rows.len()),
                ServerName::Wildcard(parent) => names.wildcard.insert(parent.clone(), rows.len()),
            };
            if before.is_some() {
                return Err(DuplicateName(name));
            }
            names.patterns.push(name);
            rows.push(value);
        }
        Ok(Self { names: Arc::new(names), rows })
    }

    /// What belongs to a host, in any case, with or without a trailing dot.
    pub fn find(&self, host: &str) -> &T {
        &self.rows[self.index(host)]
    }

    fn index(&self, host: &str) -> usize {
        if self.names.patterns.is_empty() {
            return 0;
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        let mut bytes = [0; NAME_BYTES_MAX];
        let Some(bytes) = bytes.get_mut(..host.len()) else {
            return 0;
        };
        bytes.copy_from_slice(host.as_bytes());
        bytes.make_ascii_lowercase();
        let Ok(host) = str::from_utf8(bytes) else {
            return 0;
        };
        if let Some(&row) = self.names.exact.get(host) {
            return row;
        }
        let parent = host.split_once('.').filter(|(label, _)| !label.is_empty()).map(|(_, parent)| parent);
        parent.and_then(|parent| self.names.wildcard.get(parent)).copied().unwrap_or(0)
    }

    /// What belongs to names that nothing else belongs to, and to clients that send none.
    pub fn fallback(&self) -> &T {
        &self.rows[0]
    }

    /// All rows with their names; the fallback, which has none, comes first.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = (Option<&ServerName>, &T)> {
        let name = |row: usize| row.checked_sub(1).map(|at| &self.names.patterns[at]);
        self.rows.iter().enumerate().map(move |(row, value)| (name(row), value))
    }

    /// A table of the same names with what `make` makes of each row.
    ///
    /// # Errors
    /// The first of `make`.
    pub fn map<U, E>(&self, mut make: impl FnMut(Option<&ServerName>, &T) -> Result<U, E>) -> Result<Table<U>, E> {
        let rows = self.rows().map(|(name, value)| make(name, value)).collect::<Result<_, _>>()?;
        Ok(Table { names: Arc::clone(&self.names), rows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(names: &[&'static str]) -> Result<Table<&'static str>, DuplicateName> {
        Table::new("fallback", names.iter().map(|name| (ServerName::parse(name).unwrap(), *name)))
    }

    #[test]
    fn exact_names_come_before_wildcards_before_the_fallback() {
        let table = table(&["a.test", "*.b.test", "x.b.test"]).unwrap();
        for (host, expected) in [
            ("a.test", "a.test"),
            ("A.TEST", "a.test"),
            ("a.test.", "a.test"),
            ("x.b.test", "x.b.test"),
            ("y.b.test", "*.b.test"),
            ("Y.B.test.", "*.b.test"),
            ("b.test", "fallback"),
            ("z.y.b.test", "fallback"),
            (".b.test", "fallback"),
            ("c.test", "fallback"),
            ("", "fallback"),
            (".", "fallback"),
            ("..", "fallback"),
            ("a.test..", "fallback"),
        ] {
            assert_eq!(*table.find(host), expected, "{host}");
        }
        assert_eq!(*table.find(&"a".repeat(100_000)), "fallback");
        assert_eq!(*Table::single(1).find("a.test"), 1);
    }

    #[test]
    fn a_name_stands_once() {
        let twice = |text| Err(DuplicateName(ServerName::parse(text).unwrap()));
        assert_eq!(table(&["a.test", "A.test."]).map(|_| ()), twice("a.test"));
        assert_eq!(table(&["*.a.test", "*.a.test"]).map(|_| ()), twice("*.a.test"));
        assert!(table(&["*.a.test", "a.test"]).is_ok());
    }

    #[test]
    fn rows_keep_their_names_when_mapped() {
        let table = table(&["a.test", "*.b.test"]).unwrap();
        let lengths: Table<usize> = table.map(|_, text| Ok::<_, ()>(text.len())).unwrap();
        assert_eq!(*lengths.find("x.b.test"), "*.b.test".len());
        let shown: Vec<_> = lengths.rows().map(|(name, length)| (name.map(ToString::to_string), *length)).collect();
        assert_eq!(shown, [(None, 8), (Some("a.test".to_owned()), 6), (Some("*.b.test".to_owned()), 8)]);
        assert_eq!(table.map(|name, _| if name.is_none() { Ok(()) } else { Err(7) }).map(|_| ()), Err(7));
    }
}
