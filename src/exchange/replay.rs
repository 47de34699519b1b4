//! What is kept of a request's body, so that it can be sent to another backend.
//!
//! Only the bodies of idempotent requests are kept (RFC 9110 §9.2.2), and only short ones: what grows above the bound, or ends
//! with trailers, is sent once.

use crate::http::RequestHead;
use crate::resilience::RetryPolicy;
use spooky_uring::Chunk;

/// What is kept.
#[derive(Clone, Debug)]
pub(super) enum Replay {
    /// All that came, in order, and the bound.
    Kept { chunks: Vec<Chunk>, bytes: usize, most: usize },
    /// Not all of it.
    Lost,
}

impl Replay {
    /// For a request whose head has come; `end` says that no body follows.
    pub(super) fn new(head: &RequestHead, end: bool, policy: &RetryPolicy) -> Self {
        let again = end || head.method.is_idempotent();
        let long = head.content_length.is_some_and(|length| length > policy.replay_buffer as u64);
        let most = if again && !long && policy.attempts > 1 { policy.replay_buffer } else { 0 };
        Self::Kept { chunks: Vec::new(), bytes: 0, most }
    }

    /// A piece of the body has come.
    pub(super) fn note(&mut self, chunk: &Chunk) {
        let Self::Kept { chunks, bytes, most } = self else {
            return;
        };
        if *bytes + chunk.len() > *most {
            *self = Self::Lost;
            return;
        }
        *bytes += chunk.len();
        // Copy: what waits for a failure that rarely comes holds its own memory, not the worker's receive pool.
        chunks.push(Chunk::copy_from(chunk));
    }

    /// Something has come that is not kept.
    pub(super) fn lose(&mut self) {
        *self = Self::Lost;
    }

    /// Bytes that are kept.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Kept { bytes, .. } => *bytes,
            Self::Lost => 0,
        }
    }

    /// What has come so far; `None`: it is not all there.
    pub(super) fn pieces(&self) -> Option<&[Chunk]> {
        match self {
            Self::Kept { chunks, .. } => Some(chunks),
            Self::Lost => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Method;
    use crate::resilience::Conditions;
    use std::time::Duration;

    const POLICY: RetryPolicy = RetryPolicy {
        attempts: 3,
        on: Conditions::NONE,
        per_try_timeout: None,
        backoff: Duration::ZERO,
        max_backoff: Duration::ZERO,
        replay_buffer: 10,
    };

    fn kept(method: Method, length: Option<u64>, policy: RetryPolicy, pieces: &[&[u8]]) -> Option<Vec<u8>> {
        let head = RequestHead { method, content_length: length, ..RequestHead::default() };
        let mut replay = Replay::new(&head, false, &policy);
        pieces.iter().for_each(|piece| replay.note(&Chunk::copy_from(piece)));
        replay.pieces().map(|chunks| chunks.iter().flat_map(|chunk| chunk.to_vec()).collect())
    }

    #[test]
    fn short_bodies_of_idempotent_requests_are_kept() {
        assert_eq!(kept(Method::Put, None, POLICY, &[b"01234", b"56789"]).unwrap(), b"0123456789");
        assert_eq!(kept(Method::Put, None, POLICY, &[b"01234", b"567890"]), None);
        assert_eq!(kept(Method::Put, None, POLICY, &[b"01234567890", b"", b"1"]), None);
        assert_eq!(kept(Method::Put, Some(11), POLICY, &[b"0"]), None);
        assert_eq!(kept(Method::Post, None, POLICY, &[b"0"]), None);
        assert_eq!(kept(Method::Put, None, RetryPolicy { attempts: 1, ..POLICY }, &[b"0"]), None);
        // What has not begun to come is all there.
        assert_eq!(kept(Method::Post, Some(100), POLICY, &[]).unwrap(), b"");
    }
}
