//! The lines of a head that are written the same way on both sides.

use crate::http::syntax;

/// Appends `name: value` and the line's end.
#[inline]
pub(super) fn put_field(to: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    // Heads come from the gate or from us; a line end in one would let its author write fields or messages.
    debug_assert!(!name.is_empty() && syntax::is_field_value(value));
    to.extend_from_slice(name);
    to.extend_from_slice(b": ");
    to.extend_from_slice(value);
    to.extend_from_slice(b"\r\n");
}

/// Appends a Content-Length field.
pub(super) fn put_length(to: &mut Vec<u8>, length: u64) {
    put_field(to, b"content-length", syntax::decimal(length, &mut [0; 20]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_lines() {
        let mut text = Vec::new();
        put_field(&mut text, b"a", b"b");
        put_field(&mut text, b"empty", b"");
        put_length(&mut text, u64::MAX);
        assert_eq!(text, b"a: b\r\nempty: \r\ncontent-length: 18446744073709551615\r\n");
    }
}
