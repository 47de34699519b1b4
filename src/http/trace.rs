//! Owns the text of a trace context (W3C Trace Context, `traceparent`). Ids are drawn by the caller.

/// What a `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// Id of the whole trace; not all zero.
    pub trace: [u8; 16],
    /// Id of the span that is the parent of the receiver's; not all zero.
    pub span: [u8; 8],
    /// Whether the sender records the trace.
    pub sampled: bool,
}

/// `00-<32 digits>-<16 digits>-<2 digits>`.
pub const LENGTH: usize = 55;

impl TraceParent {
    /// Reads a field value; `None` if it is not valid. A later version is read by the rules of version 00.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, more) = value.split_at_checked(LENGTH)?;
        let dashes = [known[2], known[35], known[52]];
        let mut version = [0; 1];
        let mut flags = [0; 1];
        let (mut trace, mut span) = ([0; 16], [0; 8]);
        let digits = read_hex(&known[..2], &mut version)
            && read_hex(&known[3..35], &mut trace)
            && read_hex(&known[36..52], &mut span)
            && read_hex(&known[53..], &mut flags);
        let length_is_fine = match version[0] {
            0 => more.is_empty(),
            0xff => false,
            _ => matches!(more, [] | [b'-', ..]),
        };
        let valid = digits && dashes == *b"---" && length_is_fine && trace != [0; 16] && span != [0; 8];
        valid.then_some(Self { trace, span, sampled: flags[0] & 1 == 1 })
    }

    /// The field value, of version 00.
    pub fn text(&self) -> [u8; LENGTH] {
        let mut text = [b'-'; LENGTH];
        text[..2].copy_from_slice(b"00");
        write_hex(&self.trace, &mut text[3..35]);
        write_hex(&self.span, &mut text[36..52]);
        write_hex(&[u8::from(self.sampled)], &mut text[53..]);
        text
    }
}

fn read_hex(text: &[u8], out: &mut [u8]) -> bool {
    text.len() == out.len() * 2
        && text.chunks_exact(2).zip(out).all(|(pair, byte)| match (lower_hex(pair[0]), lower_hex(pair[1])) {
            (Some(high), Some(low)) => {
                *byte = high << 4 | low;
                true
            }
            _ => false,
        })
}

/// Only lower case is valid in a `traceparent`.
fn lower_hex(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'F' => None,
        _ => super::syntax::hex(digit),
    }
}

/// Writes two lower-case digits per byte; `out` is twice as long as `bytes`.
pub fn write_hex(bytes: &[u8], out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(out.chunks_exact_mut(2)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_value_survives_the_way_there_and_back() {
        let parent = TraceParent::parse(GOOD.as_bytes()).unwrap();
        assert!(parent.sampled);
        assert_eq!(parent.text(), GOOD.as_bytes());
    }

    #[test]
    fn a_later_version_may_have_more() {
        assert!(TraceParent::parse(GOOD.replacen("00", "01", 1).as_bytes()).is_some());
        assert!(TraceParent::parse(format!("cc{}-x", &GOOD[2..]).as_bytes()).is_some());
        assert!(TraceParent::parse(format!("cc{}x", &GOOD[2..]).as_bytes()).is_none());
    }

    #[test]
    fn anything_else_is_not_valid() {
        for bad in [
            String::new(),
            GOOD[..54].to_owned(),
            format!("{GOOD}0"),
            format!("{GOOD}-0"),
            GOOD.replacen("00", "ff", 1),
            GOOD.to_uppercase(),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            GOOD.replace('-', "_"),
        ] {
            assert_eq!(TraceParent::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
