//! Owns the character classes of HTTP and URIs as tables. It refuses to know messages.

/// A byte of a token (RFC 9110 §5.6.2).
#[inline]
pub const fn is_token_byte(byte: u8) -> bool {
    TOKEN[byte as usize]
}

/// Whether `name` is a token without upper case.
#[inline]
pub fn is_lower_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&byte| is_token_byte(byte) && !byte.is_ascii_uppercase())
}

/// Whether `name` is a token.
#[inline]
pub fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&byte| is_token_byte(byte))
}

/// Whether `value` may stand in a field (RFC 9110 §5.5): no control bytes but the tab. Bytes over 127 pass.
/// One pass without branches, so that the compiler makes vectors of it.
#[inline]
pub fn is_field_value(value: &[u8]) -> bool {
    !value.iter().fold(false, |bad, &byte| bad | ((byte < 0x20) & (byte != b'\t')) | (byte == 0x7f))
}

/// An unreserved byte of a URI (RFC 3986 §2.3).
#[inline]
pub const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The value of a hexadecimal digit.
#[inline]
pub const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Writes `number` in decimal into the end of `buffer` and returns the digits.
pub fn decimal(number: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut at = buffer.len();
    let mut rest = number;
    loop {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return &buffer[at..];
        }
    }
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric()
            || matches!(
                byte as u8,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_whole() {
        let mut buffer = [0; 20];
        for (number, text) in [(0, "0"), (7, "7"), (1024, "1024"), (u64::MAX, "18446744073709551615")] {
            assert_eq!(decimal(number, &mut buffer), text.as_bytes());
        }
    }

    #[test]
    fn tokens_and_values() {
        assert!(is_lower_token(b"x-a_b.c!#$%&'*+^`|~") && !is_lower_token(b"X") && !is_lower_token(b""));
        assert!(is_token(b"X") && !is_token(b"a b") && !is_token(b"a:") && !is_token(b"\xc3\xa9"));
        assert!(is_field_value(b"") && is_field_value(b"a\tb \xff"));
        for bad in [&b"\0"[..], b"a\nb", b"a\rb", b"\x7f", b"0123456789abcdef\x1b"] {
            assert!(!is_field_value(bad));
        }
    }
}
