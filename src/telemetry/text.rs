//! The Prometheus text form, version 0.0.4: families with HELP and TYPE, then samples.

use super::json::push_number;
use std::time::Duration;

/// The content type of the whole.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; the name ends in `_total`.
    Counter,
    /// Goes both ways.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
}

impl Kind {
    /// The word in the TYPE line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Writes the samples of one family.
#[derive(Debug)]
pub struct Samples<'a> {
    out: &'a mut Vec<u8>,
    name: &'static str,
    labels: &'static [&'static str],
}

impl<'a> Samples<'a> {
    /// Opens a family.
    pub fn open(
        out: &'a mut Vec<u8>,
        name: &'static str,
        kind: Kind,
        help: &str,
        labels: &'static [&'static str],
    ) -> Self {
        out.extend_from_slice(b"# HELP ");
        out.extend_from_slice(name.as_bytes());
        out.push(b' ');
        for byte in help.bytes() {
            match byte {
                b'\\' => out.extend_from_slice(b"\\\\"),
                b'\n' => out.extend_from_slice(b"\\n"),
                _ => out.push(byte),
            }
        }
        out.extend_from_slice(b"\n# TYPE ");
        out.extend_from_slice(name.as_bytes());
        out.push(b' ');
        out.extend_from_slice(kind.word().as_bytes());
        out.push(b'\n');
        Self { out, name, labels }
    }

    /// One sample; `values` follow the family's labels.
    pub fn number(&mut self, values: &[&str], value: u64) {
        self.start("", values, None);
        push_number(value, self.out);
        self.out.push(b'\n');
    }

    /// One sample in seconds.
    pub fn seconds(&mut self, values: &[&str], value: Duration) {
        self.start("", values, None);
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        push_micros(micros, self.out);
        self.out.push(b'\n');
    }

    /// One histogram: `(bound as text, cumulative count)` for each bucket, the sum as text, the count.
    pub fn histogram(&mut self, values: &[&str], buckets: impl Iterator<Item = (String, u64)>, sum: &str, count: u64) {
        for (bound, below) in buckets {
            self.start("_bucket", values, Some(&bound));
            push_number(below, self.out);
            self.out.push(b'\n');
        }
        self.start("_bucket", values, Some("+Inf"));
        push_number(count, self.out);
        self.out.push(b'\n');
        self.start("_sum", values, None);
        self.out.extend_from_slice(sum.as_bytes());
        self.out.push(b'\n');
        self.start("_count", values, None);
        push_number(count, self.out);
        self.out.push(b'\n');
    }

    fn start(&mut self, suffix: &str, values: &[&str], bound: Option<&str>) {
        assert_eq!(values.len(), self.labels.len(), "labels of {}", self.name);
        self.out.extend_from_slice(self.name.as_bytes());
        self.out.extend_from_slice(suffix.as_bytes());
        let pairs = self.labels.iter().copied().zip(values.iter().copied());
        let mut separator = b'{';
        for (label, value) in pairs.chain(bound.map(|bound| ("le", bound))) {
            self.out.push(separator);
            separator = b',';
            self.out.extend_from_slice(label.as_bytes());
            self.out.extend_from_slice(b"=\"");
            push_label(value, self.out);
            self.out.push(b'"');
        }
        if separator == b',' {
            self.out.push(b'}');
        }
        self.out.push(b' ');
    }
}

/// Microseconds as decimal seconds, exactly: `1024` → `0.001024`.
pub fn push_micros(micros: u64, out: &mut Vec<u8>) {
    push_number(micros / 1_000_000, out);
    let mut rest = micros % 1_000_000;
    if rest == 0 {
        return;
    }
    out.push(b'.');
    let mut unit = 100_000;
    while rest > 0 {
        out.push(b'0' + (rest / unit) as u8);
        rest %= unit;
        unit /= 10;
    }
}

fn push_label(value: &str, out: &mut Vec<u8>) {
    for byte in value.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_with_labels_that_need_escaping() {
        let mut out = Vec::new();
        let mut samples = Samples::open(&mut out, "x_total", Kind::Counter, "A\nB", &["a", "b"]);
        samples.number(&["1", "q\"\\\n"], 7);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "# HELP x_total A\\nB\n# TYPE x_total counter\nx_total{a=\"1\",b=\"q\\\"\\\\\\n\"} 7\n"
        );
    }

    #[test]
    fn a_histogram_ends_with_infinity_sum_and_count() {
        let mut out = Vec::new();
        let mut samples = Samples::open(&mut out, "h", Kind::Histogram, "H", &[]);
        samples.histogram(&[], [("0.1".to_owned(), 1)].into_iter(), "0.5", 2);
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("h_bucket{le=\"0.1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 0.5\nh_count 2\n"));
    }

    #[test]
    fn seconds_are_exact() {
        for (micros, text) in
            [(0, "0"), (1, "0.000001"), (1024, "0.001024"), (2_500_000, "2.5"), (134_217_728, "134.217728")]
        {
            let mut out = Vec::new();
            push_micros(micros, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}
