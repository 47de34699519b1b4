//! What may be written to a terminal: text from outside must not act on it, nor change how the rest is read.

/// Whether a terminal shows it and does nothing else with it.
pub(super) fn is_printable(c: char) -> bool {
    // Directions of writing can make a line read otherwise than it is.
    !c.is_control()
        && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The same with escapes for what is not printable.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_printable(c) { out.push(c) } else { out.extend(c.escape_unicode()) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_acts_on_a_terminal() {
        assert_eq!(printable("plain ü"), "plain ü");
        assert_eq!(printable("a\u{1b}[31m\r\u{9b}\u{202e}"), "a\\u{1b}[31m\\u{d}\\u{9b}\\u{202e}");
    }
}
