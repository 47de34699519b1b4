//! Owns what a route changes in a head: fields removed, set and added. It refuses to judge names; the configuration did.

use super::fields::{FieldName, Fields};
use super::known::{Known, rule};
use super::syntax::is_token;

/// The name of a field that stands in a configuration, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EditedName {
    known: Option<Known>,
    name: Box<[u8]>,
}

impl EditedName {
    /// The name, if it is a token.
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.to_ascii_lowercase().into_bytes();
        is_token(&name).then(|| Self { known: Known::from_lower(&name), name: name.into() })
    }

    /// As the forms of heads have it.
    pub fn as_field(&self) -> FieldName<'_> {
        FieldName { known: self.known, name: &self.name }
    }

    /// Whether fields of this name frame a message, belong to one connection, or are made by us for each of them.
    pub fn is_ours(&self) -> bool {
        match self.known {
            Some(known) => {
                known.rules() & rule::HOP != 0
                    || matches!(
                        known,
                        Known::Host
                            | Known::ContentLength
                            | Known::Trailer
                            | Known::Expect
                            | Known::AltSvc
                            | Known::SecWebsocketKey
                            | Known::SecWebsocketAccept
                            | Known::SecWebsocketVersion
                    )
            }
            None => false,
        }
    }

    fn push(&self, fields: &mut Fields, value: &[u8]) {
        // Limits on heads and on the configuration keep a section far below what it can hold.
        match self.known {
            Some(known) => fields.push_known(known, value),
            None => fields.push_unknown(&self.name, value),
        };
    }
}

/// Changes to the fields of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Names whose fields go: those that are removed, and those that are set.
    dropped: Vec<EditedName>,
    /// Fields that come, in their order: those that are set, then those that are added.
    pushed: Vec<(EditedName, Box<[u8]>)>,
}

impl Edits {
    /// Removes every field of a name.
    pub fn remove(&mut self, name: EditedName) {
        self.dropped.push(name);
    }

    /// Makes a field the only one of its name.
    pub fn set(&mut self, name: EditedName, value: &str) {
        self.dropped.push(name.clone());
        self.add(name, value);
    }

    /// Adds a field beside those of its name.
    pub fn add(&mut self, name: EditedName, value: &str) {
        self.pushed.push((name, value.as_bytes().into()));
    }

    /// Names whose fields go: those that are removed, and those that are set.
    pub fn dropped(&self) -> impl Iterator<Item = FieldName<'_>> {
        self.dropped.iter().map(EditedName::as_field)
    }

    /// Names of the fields that come.
    pub fn pushed(&self) -> impl Iterator<Item = FieldName<'_>> {
        self.pushed.iter().map(|(name, _)| name.as_field())
    }

    /// Changes `fields`.
    pub fn apply(&self, fields: &mut Fields) {
        if !self.dropped.is_empty() {
            fields.retain(|field, _| !self.dropped.iter().any(|dropped| dropped.as_field() == field));
        }
        for (name, value) in &self.pushed {
            name.push(fields, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> EditedName {
        EditedName::parse(text).expect("a name")
    }

    #[test]
    fn fields_go_are_replaced_and_come() {
        let mut fields = Fields::new();
        for (name, value) in [("x-gone", "1"), ("server", "a"), ("x-kept", "2"), ("x-set", "a"), ("x-set", "b")] {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        let mut edits = Edits::default();
        edits.remove(name("X-Gone"));
        edits.remove(name("Server"));
        edits.set(name("X-Set"), "c");
        edits.set(name("Cache-Control"), "no-store");
        edits.add(name("x-kept"), "3");
        edits.apply(&mut fields);
        let told: Vec<_> = fields
            .iter()
            .map(|(field, value)| (String::from_utf8_lossy(field.name), String::from_utf8_lossy(value)))
            .collect();
        let told: Vec<(&str, &str)> = told.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(told, [("x-kept", "2"), ("x-set", "c"), ("cache-control", "no-store"), ("x-kept", "3")]);
    }

    #[test]
    fn what_frames_a_message_is_ours() {
        for ours in ["Connection", "content-length", "TRANSFER-ENCODING", "host", "te", "upgrade", "alt-svc", "trailer"]
        {
            assert!(name(ours).is_ours(), "{ours}");
        }
        for theirs in ["x-env", "server", "set-cookie", "via", "x-forwarded-proto"] {
            assert!(!name(theirs).is_ours(), "{theirs}");
        }
        assert_eq!(EditedName::parse("a b"), None);
        assert_eq!(EditedName::parse(""), None);
    }
}
