//! What the answer to a probe has to be like.

use crate::limits;
use crate::telemetry::kinds::ProbeResult;
use std::ops::RangeInclusive;

/// The answer that passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Final statuses, at least one range.
    pub statuses: Vec<RangeInclusive<u16>>,
    /// What the first [`limits::PROBE_BODY_BYTES`] of the body hold, never empty; `None`: nobody looks at it.
    pub body: Option<Box<[u8]>>,
}

/// One answer as it comes in.
#[derive(Debug, Default)]
pub struct Reading {
    /// As much of the body as is looked at.
    /// Invariant: at most [`limits::PROBE_BODY_BYTES`], whatever comes.
    body: Vec<u8>,
}

impl Reading {
    /// The final head came; `end`: no body follows. `None`: the body tells.
    pub fn head(&self, status: u16, end: bool, expected: &Expectation) -> Option<ProbeResult> {
        if !expected.statuses.iter().any(|range| range.contains(&status)) {
            return Some(ProbeResult::Status);
        }
        match &expected.body {
            None => Some(ProbeResult::Passed),
            Some(_) if end => Some(ProbeResult::Body),
            Some(_) => None,
        }
    }

    /// A piece of the body came. `None`: the rest tells, and if there is none, [`ProbeResult::Body`] it is.
    pub fn body(&mut self, bytes: &[u8], expected: &Expectation) -> Option<ProbeResult> {
        let wanted = expected.body.as_deref()?;
        // What was found to be missing stays so, but for a piece of it at the end.
        let from = self.body.len().saturating_sub(wanted.len().saturating_sub(1));
        let room = limits::PROBE_BODY_BYTES - self.body.len();
        self.body.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if self.body[from..].windows(wanted.len()).any(|window| window == wanted) {
            return Some(ProbeResult::Passed);
        }
        (self.body.len() >= limits::PROBE_BODY_BYTES).then_some(ProbeResult::Body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expecting(body: Option<&str>) -> Expectation {
        Expectation { statuses: vec![200..=299, 304..=304], body: body.map(|text| text.as_bytes().into()) }
    }

    #[test]
    fn the_status_is_in_one_of_the_ranges() {
        let (reading, expected) = (Reading::default(), expecting(None));
        for (status, passes) in [(199, false), (200, true), (299, true), (300, false), (304, true), (503, false)] {
            let result = if passes { ProbeResult::Passed } else { ProbeResult::Status };
            assert_eq!(reading.head(status, true, &expected), Some(result), "{status}");
        }
    }

    #[test]
    fn the_body_is_found_wherever_it_is_cut() {
        let (text, expected) = (b"all is well, \"status\": \"up\", and so on", expecting(Some("\"status\": \"up\"")));
        for at in 0..text.len() {
            for more in 1..8 {
                let mut reading = Reading::default();
                assert_eq!(reading.head(200, false, &expected), None);
                let first = reading.body(&text[..at], &expected);
                let pieces = text[at..].chunks(more).map(|piece| reading.body(piece, &expected));
                let passed = first.into_iter().chain(pieces.flatten()).any(|result| result == ProbeResult::Passed);
                assert!(passed, "cut at {at} and then every {more}");
            }
        }
    }

    #[test]
    fn what_is_not_there_is_said_at_the_end_or_at_the_bound() {
        let expected = expecting(Some("up"));
        let mut reading = Reading::default();
        assert_eq!(reading.head(200, true, &expected), Some(ProbeResult::Body));
        assert_eq!(reading.body(b"u p", &expected), None);
        let endless = vec![b'u'; 1 << 20];
        assert_eq!(reading.body(&endless, &expected), Some(ProbeResult::Body));
        assert_eq!(reading.body.len(), limits::PROBE_BODY_BYTES, "no more is held, whatever comes");
        // Behind the bound nobody looks.
        let mut reading = Reading::default();
        assert_eq!(reading.body(&endless[..limits::PROBE_BODY_BYTES - 1], &expected), None);
        assert_eq!(reading.body(b"p", &expected), Some(ProbeResult::Passed));
    }
}
