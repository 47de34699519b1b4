//! How keys are described and read: one row per key serves the reader, "did you mean", the reference and its tests.
//!
//! Owns the machinery: [`Schema`] tables made by the [`schema!`](crate::config::schema::schema) macro, the
//! [`Value`] trait that every type of value implements, and the [`Reader`] that walks a tree along a schema and
//! reports all it finds. Knows no key. Read next: `keys`, the rows; `values`, the types.

use toml::de::DeValue;

use super::diagnostic::{Diagnostic, Findings};
use super::source::{Place, Sources};
use super::suggest;
use super::tree::{Entry, Node, Table, Value as TreeValue};

/// One table of keys.
#[derive(Debug)]
pub struct Schema {
    /// Its type, for telling whether two tables are the same.
    pub name: &'static str,
    /// What the table is for, from its doc comment.
    pub about: &'static str,
    /// What one copy of the table stands for: process, listener, upstream …
    pub scope: &'static str,
    /// The keys, in the order of the reference.
    pub keys: &'static [Key],
    /// Keys that are planned but do nothing yet; writing one is an error that says so.
    pub later: &'static [&'static str],
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// As it is written; ask [`Key::name`].
    pub(super) ident: &'static str,
    /// What it does, from its doc comment.
    pub about: &'static str,
    /// What holds when it is not written.
    pub presence: Presence,
    /// What it takes.
    pub shape: Shape,
    /// Smallest and largest value: a count, milliseconds or bytes by shape.
    pub range: Option<(u64, u64)>,
}

impl Key {
    /// As it is written.
    #[must_use]
    pub fn name(&self) -> &'static str {
        // Keys that are words of Rust are raw identifiers in the schema.
        self.ident.strip_prefix("r#").unwrap_or(self.ident)
    }
}

/// What holds when a key is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// This value: TOML, or the plain content of a string.
    Default(&'static str),
    /// Nothing; the doc comment says what that means.
    Optional,
    /// It is an error.
    Required,
}

/// What a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// true or false.
    Bool,
    /// A whole number.
    Integer,
    /// A time.
    Duration,
    /// A number of bytes.
    Size,
    /// A string; the word says of what.
    Text(&'static str),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// The inner shape, or "off".
    OrOff(&'static Shape),
    /// One, or an array of them.
    OneOrMany(&'static Shape),
    /// An array.
    List(&'static Shape),
    /// A table.
    Table(&'static Schema),
    /// An array of tables.
    Tables(&'static Schema),
    /// A table whose keys are names the operator chooses.
    Named(&'static Schema),
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// [`Place::NOWHERE`] for a default.
    pub place: Place,
}

impl<T> Located<T> {
    /// Whether the operator wrote it.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.place != Place::NOWHERE
    }
}

/// A type that a key can have.
pub trait Value: Sized {
    /// For messages and the reference.
    const SHAPE: Shape;

    /// Reads a value. `None`: it is wrong, and the reader was told why.
    fn read(node: &Node, key: &Key, reader: &mut Reader<'_>) -> Option<Self>;
}

/// Walks a tree along a schema.
pub struct Reader<'a> {
    /// For paths relative to the file that names them.
    pub sources: &'a Sources,
    findings: &'a mut Findings,
    /// Where in the tree the reader stands, for messages.
    path: Vec<String>,
    /// Whether all of the text was understood; if not, no key is called missing.
    whole: bool,
}

impl<'a> Reader<'a> {
    /// Starts at the root.
    pub fn new(sources: &'a Sources, findings: &'a mut Findings, whole: bool) -> Self {
        Self { sources, findings, path: Vec::new(), whole }
    }

    /// Adds a finding.
    pub fn report(&mut self, diagnostic: Diagnostic) {
        self.findings.push(diagnostic);
    }

    /// Reports a wrong value of a key.
    pub fn refuse<T>(&mut self, node: &Node, message: impl Into<String>, help: &str) -> Option<T> {
        let diagnostic = Diagnostic::error(message).at(node.place, "");
        self.report(if help.is_empty() { diagnostic } else { diagnostic.help(help) });
        None
    }

    /// Reports a value of the wrong type.
    pub fn refuse_type<T>(&mut self, node: &Node, key: &Key, wanted: &str, help: &str) -> Option<T> {
        let message = format!("`{}` takes {wanted}, not {}", key.name(), node.value.word());
        self.refuse(node, message, help)
    }

    /// Reports a number outside a key's range; `show` writes a bound as the operator would.
    pub fn within(&mut self, number: u64, node: &Node, key: &Key, show: fn(u64) -> String) -> Option<()> {
        match key.range {
            Some((min, max)) if number < min || number > max => {
                let bound = if min == max {
                    format!("only {} is possible", show(min))
                } else {
                    format!("from {} to {}", show(min), show(max))
                };
                self.refuse(node, format!("`{}` is out of range: {bound}", key.name()), "")
            }
            _ => Some(()),
        }
    }

    /// The tree path of the table being read, for messages.
    #[must_use]
    pub fn table_name(&self) -> String {
        if self.path.is_empty() { "at the top level".to_owned() } else { format!("in `{}`", self.path.join(".")) }
    }

    /// Reads inside a step of the path.
    pub fn inside<T>(&mut self, step: String, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        let result = read(self);
        self.path.pop();
        result
    }

    /// Reads the value of an entry.
    fn read<T: Value>(&mut self, entry: &Entry, key: &Key) -> Option<Located<T>> {
        let step = match T::SHAPE {
            Shape::Table(_) | Shape::Tables(_) | Shape::Named(_) => Some(entry.key.clone()),
            _ => None,
        };
        let value = match step {
            Some(step) => self.inside(step, |reader| T::read(&entry.node, key, reader)),
            None => T::read(&entry.node, key, self),
        }?;
        Some(Located { value, place: entry.node.place })
    }

    /// A key with a default. A wrong value counts as the default, so that what depends on it is still checked.
    ///
    /// # Panics
    /// When the schema's own default cannot be read; a test reads them all.
    pub fn read_default<T: Value>(&mut self, table: &Table, key: &Key, default: &str) -> Located<T> {
        if let Some(read) = table.get(key.name()).and_then(|entry| self.read(entry, key)) {
            return read;
        }
        let node = default_node(default);
        let value = T::read(&node, key, self).expect("the default of a key is valid");
        Located { value, place: Place::NOWHERE }
    }

    /// A key that may be missing.
    pub fn read_optional<T: Value>(&mut self, table: &Table, key: &Key) -> Option<Located<T>> {
        table.get(key.name()).and_then(|entry| self.read(entry, key))
    }

    /// A key that must be there.
    pub fn read_required<T: Value>(&mut self, table: &Table, place: Place, key: &Key) -> Option<Located<T>> {
        match table.get(key.name()) {
            Some(entry) => self.read(entry, key),
            None => {
                if !self.whole {
                    return None;
                }
                self.report(
                    Diagnostic::error(format!("`{}` is missing {}", key.name(), self.table_name()))
                        .at(place, "")
                        .help(format!("add `{}`: {}", key.name(), key.about)),
                );
                None
            }
        }
    }

    /// Reports keys that the schema does not know.
    pub fn check_keys(&mut self, table: &Table, schema: &Schema) {
        for entry in &table.entries {
            let name = entry.key.as_str();
            if schema.keys.iter().any(|key| key.name() == name) {
                continue;
            }
            let place = self.table_name();
            let diagnostic = if schema.later.contains(&name) {
                Diagnostic::error(format!("`{name}` {place} is not available in this version"))
                    .at(entry.key_place, "does nothing yet")
                    .help("remove it")
            } else {
                let diagnostic =
                    Diagnostic::error(format!("unknown key `{}` {place}", shortened(name))).at(entry.key_place, "");
                match suggest::nearest(name, schema.keys.iter().map(Key::name)) {
                    Some(known) => diagnostic.help(format!("did you mean `{known}`?")),
                    None => diagnostic.help(format!(
                        "known keys here: {}",
                        schema.keys.iter().map(Key::name).collect::<Vec<_>>().join(", ")
                    )),
                }
            };
            self.report(diagnostic);
        }
    }

    /// Reads a table along a schema's type; anything but a table is refused.
    pub fn table_of<'n, T>(
        &mut self,
        node: &'n Node,
        key: &Key,
        read: impl FnOnce(&'n Table, &mut Self) -> T,
    ) -> Option<T> {
        match &node.value {
            TreeValue::Table(table) => Some(read(table, self)),
            _ => self.refuse_type(
                node,
                key,
                "a table",
                &format!("write it as [{}] or {} = {{ … }}", self.path.join("."), key.name()),
            ),
        }
    }
}

/// An unknown key is quoted, but not at any length.
fn shortened(name: &str) -> String {
    const LONGEST: usize = 60;
    let cleaned: String =
        name.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect();
    if cleaned.chars().count() <= LONGEST { cleaned } else { cleaned.chars().take(LONGEST).chain(['…']).collect() }
}

/// A default as a node: TOML if it is TOML, else the content of a string.
fn default_node(text: &str) -> Node {
    fn convert(value: &DeValue<'_>) -> Option<TreeValue> {
        Some(match value {
            DeValue::String(text) => TreeValue::Text(text.to_string()),
            DeValue::Integer(number) => TreeValue::Integer(number.as_str().parse().ok()?),
            DeValue::Boolean(value) => TreeValue::Bool(*value),
            DeValue::Array(list) => TreeValue::List(
                list.iter()
                    .map(|item| convert(item.get_ref()).map(|value| Node { place: Place::NOWHERE, value }))
                    .collect::<Option<_>>()?,
            ),
            DeValue::Table(table) if table.is_empty() => TreeValue::Table(Table::default()),
            _ => return None,
        })
    }
    let value = DeValue::parse(text).ok().and_then(|parsed| convert(parsed.get_ref()));
    Node { place: Place::NOWHERE, value: value.unwrap_or_else(|| TreeValue::Text(text.to_owned())) }
}

/// Declares tables of keys: for each a struct with one field per key, and its [`Schema`].
///
/// A row is `name: presence Type = "default", min..=max;` where presence is `default`, `optional` or `required`.
macro_rules! schema {
    ($(
        $(#[doc = $about:literal])*
        $name:ident of $scope:literal {
            $( $(#[doc = $key_about:literal])* $key:ident : $presence:ident $type:ty $(= $default:literal)? $(, $min:literal ..= $max:literal)? ; )*
        }
        later [ $($later:literal),* $(,)? ]
    )*) => {$(
        $(#[doc = $about])*
        #[derive(Clone, Debug)]
        pub struct $name {
            $( $(#[doc = $key_about])* pub $key: $crate::config::schema::schema!(@stored $presence $type), )*
        }

        impl $name {
            /// The rows of this table.
            pub const SCHEMA: $crate::config::schema::Schema = $crate::config::schema::Schema {
                name: stringify!($name),
                about: concat!($($about),*),
                scope: $scope,
                keys: &[$(
                    $crate::config::schema::Key {
                        ident: stringify!($key),
                        about: concat!($($key_about),*),
                        presence: $crate::config::schema::schema!(@presence $presence $($default)?),
                        shape: <$type as $crate::config::schema::Value>::SHAPE,
                        range: $crate::config::schema::schema!(@range $($min $max)?),
                    }
                ),*],
                later: &[$($later),*],
            };

            /// Reads a table that stands at a place.
            #[allow(unused_assignments, unused_variables, reason = "the last row has no next one, and only required keys need the place")]
            pub fn read_table(table: &$crate::config::tree::Table, place: $crate::config::source::Place, reader: &mut $crate::config::schema::Reader<'_>) -> Self {
                const KEYS: &[$crate::config::schema::Key] = $name::SCHEMA.keys;
                reader.check_keys(table, &Self::SCHEMA);
                let mut row = 0;
                Self {
                    $( $key: {
                        let key = &KEYS[row];
                        row += 1;
                        $crate::config::schema::schema!(@read $presence reader, table, place, key $(, $default)?)
                    }, )*
                }
            }
        }

        impl $crate::config::schema::Value for $name {
            const SHAPE: $crate::config::schema::Shape = $crate::config::schema::Shape::Table(&Self::SCHEMA);

            fn read(node: &$crate::config::tree::Node, key: &$crate::config::schema::Key, reader: &mut $crate::config::schema::Reader<'_>) -> Option<Self> {
                reader.table_of(node, key, |table, reader| Self::read_table(table, node.place, reader))
            }
        }
    )*};

    (@stored default $type:ty) => { $crate::config::schema::Located<$type> };
    (@stored optional $type:ty) => { Option<$crate::config::schema::Located<$type>> };
    (@stored required $type:ty) => { Option<$crate::config::schema::Located<$type>> };

    (@presence default $default:literal) => { $crate::config::schema::Presence::Default($default) };
    (@presence optional) => { $crate::config::schema::Presence::Optional };
    (@presence required) => { $crate::config::schema::Presence::Required };

    (@range) => { None };
    (@range $min:literal $max:literal) => { Some(($min, $max)) };

    (@read default $reader:ident, $table:ident, $place:ident, $key:ident, $default:literal) => { $reader.read_default($table, $key, $default) };
    (@read optional $reader:ident, $table:ident, $place:ident, $key:ident) => { $reader.read_optional($table, $key) };
    (@read required $reader:ident, $table:ident, $place:ident, $key:ident) => { $reader.read_required($table, $place, $key) };
}

/// Declares a type whose values are words. A word may have other spellings (`|`); planned words are refused as such.
macro_rules! choice {
    ($(
        $(#[doc = $about:literal])*
        $name:ident { $( $(#[doc = $value_about:literal])* $value:ident = $word:literal $(| $alias:literal)* ),* $(,)? }
        later [ $($later:literal),* $(,)? ]
    )*) => {$(
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $( $(#[doc = $value_about])* $value, )* }

        impl $name {
            /// As it is written.
            #[must_use]
            #[allow(dead_code, reason = "not every choice is printed")]
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$value => $word, )* }
            }
        }

        impl $crate::config::schema::Value for $name {
            const SHAPE: $crate::config::schema::Shape = $crate::config::schema::Shape::Choice(&[$($word),*]);

            fn read(node: &$crate::config::tree::Node, key: &$crate::config::schema::Key, reader: &mut $crate::config::schema::Reader<'_>) -> Option<Self> {
                let word = $crate::config::values::word(node, key, reader)?;
                match word {
                    $( $word $(| $alias)* => Some(Self::$value), )*
                    _ => $crate::config::values::refuse_word(node, key, reader, &[$($word),*], &[$($later),*]),
                }
            }
        }
    )*};
}

pub(super) use {choice, schema};
