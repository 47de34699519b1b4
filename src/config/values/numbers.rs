//! Integers, times and sizes.

use std::time::Duration;

use crate::config::schema::{Key, Reader, Shape, Value};
use crate::config::tree::{Node, Value as TreeValue};

/// Integers are read whole and then held to the key's range, so every narrower type needs a row with one.
macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Value for $type {
            const SHAPE: Shape = Shape::Integer;

            fn read(node: &Node, key: &Key, reader: &mut Reader<'_>) -> Option<Self> {
                let TreeValue::Integer(number) = node.value else {
                    return reader.refuse_type(node, key, "an integer", "");
                };
                let Ok(number) = u64::try_from(number) else {
                    return reader.refuse(node, format!("`{}` cannot be negative", key.name()), "");
                };
                reader.within(number, node, key, |bound| bound.to_string())?;
                match Self::try_from(number) {
                    Ok(number) => Some(number),
                    Err(_) => reader.refuse(node, format!("`{}` is at most {}", key.name(), Self::MAX), ""),
                }
            }
        }
    )*};
}
integers!(u16, u32, u64);

const DURATION_HELP: &str = "write a time as \"250ms\", \"5s\", \"2m\" or \"1h\"; a bare integer counts milliseconds";

impl Value for Duration {
    const SHAPE: Shape = Shape::Duration;

    fn read(node: &Node, key: &Key, reader: &mut Reader<'_>) -> Option<Self> {
        let millis = match &node.value {
            TreeValue::Integer(millis) => u64::try_from(*millis).ok(),
            TreeValue::Text(text) => parse_millis(text),
            _ => return reader.refuse_type(node, key, "a time", DURATION_HELP),
        };
        let Some(millis) = millis else {
            return reader.refuse(node, format!("`{}` is not a time", key.name()), DURATION_HELP);
        };
        reader.within(millis, node, key, show_millis)?;
        Some(Self::from_millis(millis))
    }
}

const SIZE_HELP: &str = "write a size as \"512B\", \"16KiB\", \"8MiB\" or \"1GiB\"; a bare integer counts bytes";

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl Bytes {
    /// For keys whose range fits; a larger value is cut to the largest.
    #[must_use]
    pub fn to_u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
}

impl Value for Bytes {
    const SHAPE: Shape = Shape::Size;

    fn read(node: &Node, key: &Key, reader: &mut Reader<'_>) -> Option<Self> {
        let bytes = match &node.value {
            TreeValue::Integer(bytes) => u64::try_from(*bytes).ok(),
            TreeValue::Text(text) => parse_bytes(text),
            _ => return reader.refuse_type(node, key, "a size", SIZE_HELP),
        };
        let Some(bytes) = bytes else {
            return reader.refuse(node, format!("`{}` is not a size", key.name()), SIZE_HELP);
        };
        reader.within(bytes, node, key, show_bytes)?;
        Some(Self(bytes))
    }
}

/// Milliseconds of `"250ms"`, `"5s"`, `"2m"` or `"1h"`.
#[must_use]
pub fn parse_millis(text: &str) -> Option<u64> {
    with_unit(text, &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)])
}

/// Bytes of `"512B"`, `"16KiB"`, `"8MiB"` or `"1GiB"`.
#[must_use]
pub fn parse_bytes(text: &str) -> Option<u64> {
    with_unit(text, &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("B", 1)])
}

/// A whole number with one of the units, the longer unit listed before one that ends it.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (digits, factor) = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))?;
    let digits = digits.strip_suffix(' ').unwrap_or(digits);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// A time as an operator would write it.
#[must_use]
pub fn show_millis(millis: u64) -> String {
    match millis {
        0 => "\"0ms\"".to_owned(),
        _ if millis.is_multiple_of(3_600_000) => format!("\"{}h\"", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("\"{}m\"", millis / 60_000),
        _ if millis.is_multiple_of(1_000) => format!("\"{}s\"", millis / 1_000),
        _ => format!("\"{millis}ms\""),
    }
}

/// A size as an operator would write it.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    for (unit, factor) in [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("\"{}{unit}\"", bytes / factor);
        }
    }
    format!("\"{bytes}B\"")
}
