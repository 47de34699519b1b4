//! JSON text written by hand: the few shapes a log line and an answer of the control API need.
//!
//! The bytes come from clients, so the writer decides what a string may hold: output is always valid UTF-8 and valid
//! RFC 8259, and never holds a raw control character, so one record is one line whatever was in it.

/// Writes one JSON object, key by key.
#[derive(Debug)]
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Object<'a> {
    /// Opens an object.
    pub fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    /// A string member; `value` may be any bytes.
    pub fn string(&mut self, key: &'static str, value: &[u8]) -> &mut Self {
        self.key(key);
        push_string(value, self.out);
        self
    }

    /// A string member, left out when empty.
    pub fn string_if(&mut self, key: &'static str, value: &[u8]) -> &mut Self {
        if !value.is_empty() {
            self.string(key, value);
        }
        self
    }

    /// A number member.
    pub fn number(&mut self, key: &'static str, value: u64) -> &mut Self {
        self.key(key);
        push_number(value, self.out);
        self
    }

    /// A boolean member.
    pub fn boolean(&mut self, key: &'static str, value: bool) -> &mut Self {
        self.key(key);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
        self
    }

    /// A member whose value the caller writes; it must be one valid JSON value.
    pub fn raw(&mut self, key: &'static str, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        self.key(key);
        write(self.out);
        self
    }

    /// Closes the object.
    pub fn close(self) {
        self.out.push(b'}');
    }

    fn key(&mut self, key: &'static str) {
        if !std::mem::replace(&mut self.first, false) {
            self.out.push(b',');
        }
        push_string(key.as_bytes(), self.out);
        self.out.push(b':');
    }
}

/// Appends a decimal number.
pub fn push_number(mut value: u64, out: &mut Vec<u8>) {
    // u64::MAX has 20 digits.
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends `value` as a JSON string. Bytes that are no UTF-8 become U+FFFD, one for each maximal bad part; control
/// characters (also DEL and C1, which terminals act on) and the line separators U+2028/2029 are escaped.
pub fn push_string(value: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for part in value.utf8_chunks() {
        push_text(part.valid(), out);
        if !part.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out.push(b'"');
}

fn push_text(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    // The common case copies runs; only the rare byte is looked at closer.
    let mut copied = 0;
    for (at, c) in text.char_indices() {
        let short = match c {
            '"' => Some(b'"'),
            '\\' => Some(b'\\'),
            '\n' => Some(b'n'),
            '\r' => Some(b'r'),
            '\t' => Some(b't'),
            ' '..='~' => continue,
            '\0'..='\u{9f}' | '\u{2028}' | '\u{2029}' => None,
            _ => continue,
        };
        out.extend_from_slice(&bytes[copied..at]);
        copied = at + c.len_utf8();
        match short {
            Some(letter) => out.extend_from_slice(&[b'\\', letter]),
            None => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let code = c as u32;
                out.extend_from_slice(b"\\u");
                for shift in [12, 8, 4, 0] {
                    out.push(HEX[(code >> shift & 0xf) as usize]);
                }
            }
        }
    }
    out.extend_from_slice(&bytes[copied..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(value: &[u8]) -> String {
        let mut out = Vec::new();
        push_string(value, &mut out);
        String::from_utf8(out).expect("always UTF-8")
    }

    #[test]
    fn plain_text_and_short_escapes() {
        assert_eq!(string(b"/a?b=c"), r#""/a?b=c""#);
        assert_eq!(string(b"a\"b\\c\nd\re\tf"), r#""a\"b\\c\nd\re\tf""#);
        assert_eq!(string("é→😀".as_bytes()), "\"é→😀\"");
    }

    #[test]
    fn controls_and_separators_are_escaped() {
        assert_eq!(string(b"\0\x1b[31m\x7f"), "\"\\u0000\\u001b[31m\\u007f\"");
        assert_eq!(string("\u{9b}31m\u{2028}".as_bytes()), "\"\\u009b31m\\u2028\"");
    }

    #[test]
    fn bytes_that_are_no_text_become_replacement_characters() {
        assert_eq!(string(b"\xff"), "\"\u{fffd}\"");
        assert_eq!(string(b"a\xf0\x9f\x98b\xc0\xaf"), { "\"a\u{fffd}b\u{fffd}\u{fffd}\"" });
        // A surrogate half in UTF-8 is no UTF-8.
        assert_eq!(string(b"\xed\xa0\x80").chars().count(), 5);
    }

    #[test]
    fn any_bytes_make_one_line_that_parses_back() {
        // A small xorshift: every byte value and many broken sequences.
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..2000 {
            let bytes: Vec<u8> = (0..(state % 40))
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state as u8
                })
                .collect();
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let text = string(&bytes);
            assert!(!text.bytes().any(|b| b < 0x20 || b == 0x7f));
            let back: String = serde_json::from_str(&text).expect("valid JSON");
            assert_eq!(back, String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn objects_have_commas_between_members() {
        let mut out = Vec::new();
        let mut object = Object::open(&mut out);
        object
            .string("a", b"x")
            .string_if("none", b"")
            .number("b", u64::MAX)
            .boolean("c", true)
            .raw("d", |out| out.extend_from_slice(b"[1,2]"));
        object.close();
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"a":"x","b":18446744073709551615,"c":true,"d":[1,2]}"#);
    }
}
