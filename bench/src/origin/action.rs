//! What a path asks for.

use std::time::Duration;

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// So many bytes, announced.
    Bytes(u64),
    /// So many bytes, not announced.
    Chunked(u64),
    /// So many single bytes, each after a pause.
    Dribble(u64, Duration),
    /// Announces so many bytes, sends half of them, closes.
    Short(u64),
    /// Announces so many bytes, sends half of them, resets.
    Reset(u64),
    /// A status without a body.
    Status(u16),
    /// Nothing, after a pause.
    Wait(Duration),
    /// How long the request's body was.
    Upload,
    /// No answer, and nothing is read.
    Sink,
    /// An answer before the request's body is read.
    Early,
}

impl Action {
    /// Reads a path; what is none of ours is not found.
    pub fn of(path: &str) -> Self {
        let path = path.split('?').next().unwrap_or("");
        let mut parts = path.trim_start_matches('/').split('/');
        let name = parts.next().unwrap_or("");
        let mut number = || parts.next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let (first, second) = (number(), number());
        match name {
            "bytes" => Self::Bytes(first),
            "chunked" => Self::Chunked(first),
            "dribble" => Self::Dribble(first, Duration::from_millis(second)),
            "short" => Self::Short(first),
            "reset" => Self::Reset(first),
            "status" => Self::Status(u16::try_from(first).unwrap_or(0)),
            "wait" => Self::Wait(Duration::from_millis(first)),
            "upload" => Self::Upload,
            "sink" => Self::Sink,
            "early" => Self::Early,
            _ => Self::Status(404),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_with_and_without_their_numbers() {
        assert_eq!(Action::of("/bytes/12?a=b"), Action::Bytes(12));
        assert_eq!(Action::of("/dribble/3/20"), Action::Dribble(3, Duration::from_millis(20)));
        assert_eq!(Action::of("/wait"), Action::Wait(Duration::ZERO));
        assert_eq!(Action::of("/favicon.ico"), Action::Status(404));
    }
}
