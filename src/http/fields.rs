//! Owns a field section: one contiguous buffer and an index of ranges, no allocation per field.
//!
//! Names are always lower case; a known name is one byte of the index and takes no bytes of the buffer. This file checks
//! nothing: [`super::normalize`] is the gate that lets only valid names and values in. Removing touches the index only,
//! so the buffer may hold bytes nobody points at until [`Fields::clear`]; [`BYTES_MAX`] bounds them.

use super::known::Known;
use super::list;
use std::fmt;

/// Bytes one section can hold, unused ones included. Above every configurable limit on heads (1 MiB), so that
/// only a defect could reach it, and small enough for `u32` offsets.
pub const BYTES_MAX: usize = 4 << 20;

/// What RFC 9114 §4.2.2 adds to each field when the size of a section is counted.
pub const OVERHEAD: usize = 32;

/// The name of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldName<'a> {
    /// Which known name it is, if it is one.
    pub known: Option<Known>,
    /// The name in lower case.
    pub name: &'a [u8],
}

#[derive(Clone, Copy)]
struct Slot {
    /// Where an unknown name stands, with its value right behind it; of a known name, where the value stands.
    start: u32,
    value_len: u32,
    /// Bytes of the name in the buffer. Invariant: 0 exactly for known names.
    name_len: u16,
    known: Option<Known>,
}

impl Slot {
    #[inline]
    fn value<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let start = self.start as usize + usize::from(self.name_len);
        &bytes[start..start + self.value_len as usize]
    }

    #[inline]
    fn name<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        match self.known {
            Some(known) => known.as_str().as_bytes(),
            None => {
                let start = self.start as usize;
                &bytes[start..start + usize::from(self.name_len)]
            }
        }
    }

    #[inline]
    fn size(&self) -> usize {
        let name = match self.known {
            Some(known) => known.as_str().len(),
            None => usize::from(self.name_len),
        };
        name + self.value_len as usize + OVERHEAD
    }
}

/// An ordered list of fields.
#[derive(Clone, Default)]
pub struct Fields {
    bytes: Vec<u8>,
    index: Vec<Slot>,
    /// Invariant: the sum of [`Slot::size`] over the index.
    size: usize,
}

impl Fields {
    /// An empty section; allocates nothing.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), index: Vec::new(), size: 0 }
    }

    /// An empty section with room for so many fields and bytes.
    pub fn with_capacity(fields: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), index: Vec::with_capacity(fields), size: 0 }
    }

    /// Appends a field; upper case in `name` is lowered. `false`: over [`BYTES_MAX`] or the name over 64 KiB, not taken.
    #[inline]
    pub fn push(&mut self, name: &[u8], value: &[u8]) -> bool {
        match Known::from_any(name) {
            Some(known) => self.push_known(known, value),
            None => self.push_unknown(name, value),
        }
    }

    /// Appends a field with a known name. `false`: over [`BYTES_MAX`], not taken.
    #[inline]
    pub fn push_known(&mut self, known: Known, value: &[u8]) -> bool {
        let start = self.bytes.len();
        if value.len() > BYTES_MAX - start {
            return false;
        }
        self.bytes.extend_from_slice(value);
        self.append(Slot { start: start as u32, value_len: value.len() as u32, name_len: 0, known: Some(known) });
        true
    }

    /// Appends a field with a known name whose value is the parts in a row, without an intermediate copy.
    #[inline]
    pub fn push_parts(&mut self, known: Known, parts: &[&[u8]]) -> bool {
        let value_len: usize = parts.iter().map(|part| part.len()).sum();
        let start = self.bytes.len();
        if value_len > BYTES_MAX - start {
            return false;
        }
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.append(Slot { start: start as u32, value_len: value_len as u32, name_len: 0, known: Some(known) });
        true
    }

    /// Appends a field whose name is already known not to be a known one.
    pub(crate) fn push_unknown(&mut self, name: &[u8], value: &[u8]) -> bool {
        let start = self.bytes.len();
        let Ok(name_len) = u16::try_from(name.len()) else {
            return false;
        };
        // No overflow: slices are at most isize::MAX bytes long.
        if name_len == 0 || name.len() + value.len() > BYTES_MAX - start {
            return false;
        }
        self.bytes.extend_from_slice(name);
        self.bytes[start..].make_ascii_lowercase();
        self.bytes.extend_from_slice(value);
        self.append(Slot { start: start as u32, value_len: value.len() as u32, name_len, known: None });
        true
    }

    #[inline]
    fn append(&mut self, slot: Slot) {
        self.size += slot.size();
        self.index.push(slot);
    }

    /// The fields in order.
    #[inline]
    pub fn iter(&self) -> Iter<'_> {
        Iter { bytes: &self.bytes, index: self.index.iter() }
    }

    /// The first value of a known name.
    #[inline]
    pub fn get(&self, known: Known) -> Option<&[u8]> {
        self.index.iter().find(|slot| slot.known == Some(known)).map(|slot| slot.value(&self.bytes))
    }

    /// Every value of a known name, in order.
    #[inline]
    pub fn get_all(&self, known: Known) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.index.iter().filter(move |slot| slot.known == Some(known)).map(|slot| slot.value(&self.bytes))
    }

    /// The first value of any name; case does not matter.
    pub fn find(&self, name: &[u8]) -> Option<&[u8]> {
        match Known::from_any(name) {
            Some(known) => self.get(known),
            None => self
                .iter()
                .find(|(field, _)| field.known.is_none() && field.name.eq_ignore_ascii_case(name))
                .map(|(_, value)| value),
        }
    }

    /// Whether a known name occurs.
    #[inline]
    pub fn contains(&self, known: Known) -> bool {
        self.index.iter().any(|slot| slot.known == Some(known))
    }

    /// Whether any value of a known list field has this token; case does not matter.
    pub fn has_token(&self, known: Known, token: &[u8]) -> bool {
        self.get_all(known).any(|value| list::elements(value).any(|one| one.eq_ignore_ascii_case(token)))
    }

    /// Removes every field of a known name and says how many there were.
    pub fn remove(&mut self, known: Known) -> usize {
        let before = self.len();
        self.retain(|name, _| name.known != Some(known));
        before - self.len()
    }

    /// Keeps the fields for which `keep` holds.
    #[inline]
    pub fn retain(&mut self, mut keep: impl FnMut(FieldName<'_>, &[u8]) -> bool) {
        let bytes = &self.bytes;
        let mut size = 0;
        self.index.retain(|slot| {
            let name = FieldName { known: slot.known, name: slot.name(bytes) };
            let keep = keep(name, slot.value(bytes));
            if keep {
                size += slot.size();
            }
            keep
        });
        self.size = size;
    }

    /// Makes `value` the only one of a known name, at the place of the first.
    /// `false`: over [`BYTES_MAX`], nothing changed.
    pub fn set(&mut self, known: Known, value: &[u8]) -> bool {
        let Some(first) = self.index.iter().position(|slot| slot.known == Some(known)) else {
            return self.push_known(known, value);
        };
        if !self.push_known(known, value) {
            return false;
        }
        self.collapse(known, first);
        true
    }

    /// Joins every value of a known name into one, at the place of the first; empty ones are left out, so that no separator
    /// stands at an end. `false`: over [`BYTES_MAX`], nothing changed.
    pub fn join(&mut self, known: Known, separator: &[u8]) -> bool {
        let is_known = |slot: &&Slot| slot.known == Some(known);
        let Some(first) = self.index.iter().position(|slot| is_known(&slot)) else {
            return true;
        };
        let values = self.index.iter().filter(is_known);
        let (count, joined) = values
            .fold((0, 0), |(count, joined), slot| (count + 1, joined + slot.value_len as usize + separator.len()));
        if count == 1 {
            return true;
        }
        let start = self.bytes.len();
        // A little too much: there is one separator less than values.
        if joined > BYTES_MAX - start {
            return false;
        }
        self.bytes.reserve(joined);
        let mut between: &[u8] = b"";
        for slot in self.index.iter().filter(is_known) {
            if slot.value_len == 0 {
                continue;
            }
            self.bytes.extend_from_slice(between);
            between = separator;
            // A known name takes no bytes, so the slot's start is the value's.
            let from = slot.start as usize;
            self.bytes.extend_from_within(from..from + slot.value_len as usize);
        }
        self.append(Slot {
            start: start as u32,
            value_len: (self.bytes.len() - start) as u32,
            name_len: 0,
            known: Some(known),
        });
        self.collapse(known, first);
        true
    }

    /// Moves the last field, of the name `known`, to `first`, and drops the others of that name.
    fn collapse(&mut self, known: Known, first: usize) {
        if let Some(last) = self.index.pop() {
            self.index[first] = last;
            let mut position = 0;
            self.index.retain(|slot| {
                position += 1;
                slot.known != Some(known) || position - 1 == first
            });
            self.size = self.index.iter().map(Slot::size).sum();
        }
    }

    /// Drops the fields that the options of Connection name, and Connection itself (RFC 9110 §7.6.1).
    pub(crate) fn remove_named_by_connection(&mut self) {
        let Self { bytes, index, .. } = self;
        let bytes: &[u8] = bytes;
        // Options are few; each is looked for in the index, nothing is collected.
        let mut at = 0;
        while at < index.len() {
            let slot = index[at];
            at += 1;
            if slot.known != Some(Known::Connection) {
                continue;
            }
            for option in list::elements(slot.value(bytes)) {
                if option.eq_ignore_ascii_case(b"close") || option.eq_ignore_ascii_case(b"keep-alive") {
                    continue;
                }
                // `TE: trailers` is worth keeping and is always named; the caller judges it by its value.
                let before = index.len();
                let mut seen = 0;
                let mut removed_before = 0;
                index.retain(|slot| {
                    let keep = slot.known == Some(Known::Connection)
                        || slot.known == Some(Known::Te)
                        || !slot.name(bytes).eq_ignore_ascii_case(option);
                    if !keep && seen < at {
                        removed_before += 1;
                    }
                    seen += 1;
                    keep
                });
                if index.len() < before {
                    at -= removed_before;
                }
            }
        }
        self.remove(Known::Connection);
    }

    /// How many fields there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no field.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The size of the section as RFC 9114 §4.2.2 counts it: name, value and 32 bytes for each field.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.size
    }

    /// Forgets every field and keeps the memory, so that a pooled head costs no allocation.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.index.clear();
        self.size = 0;
    }

    /// Bytes of memory held, for the accounting of pools.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity() + self.index.capacity() * size_of::<Slot>()
    }
}

impl<'a> IntoIterator for &'a Fields {
    type Item = (FieldName<'a>, &'a [u8]);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Fields {}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(name, value)| {
                (String::from_utf8_lossy(name.name).into_owned(), String::from_utf8_lossy(value).into_owned())
            }))
            .finish()
    }
}

/// The fields of a section in order.
#[derive(Clone)]
pub struct Iter<'a> {
    bytes: &'a [u8],
    index: std::slice::Iter<'a, Slot>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (FieldName<'a>, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let slot = self.index.next()?;
        Some((FieldName { known: slot.known, name: slot.name(self.bytes) }, slot.value(self.bytes)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.index.size_hint()
    }
}

impl ExactSizeIterator for Iter<'_> {}

#[cfg(test)]
mod tests;
