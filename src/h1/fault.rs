//! What ends a connection: who did it, what it was, and what is left to do about it.

use crate::http::{Reason, Side};
use std::fmt;

/// A connection that cannot go on. It is closed; the exchange on it, if any, is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happened.
    pub what: What,
    /// What to do now.
    pub next: Next,
    /// Which rule was broken, for the log.
    pub detail: &'static str,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The backend sent bytes that nobody asked for: on an idle connection, or behind the end of its response.
    Unsolicited,
    /// The exchange failed.
    Exchange(Reason),
}

/// What to do beside closing the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: no exchange is harmed.
    Close,
    /// No final response head was delivered: another attempt, or an answer of our own.
    Respond,
    /// The response has begun: reset the client's stream.
    Reset,
}

impl Fault {
    /// The exchange's reason, if an exchange is harmed.
    pub fn reason(&self) -> Option<Reason> {
        match self.what {
            What::Unsolicited => None,
            What::Exchange(reason) => Some(reason),
        }
    }

    /// Whose doing it is.
    pub fn who(&self) -> Side {
        match self.what {
            What::Unsolicited => Side::Upstream,
            What::Exchange(reason) => reason.side(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            What::Unsolicited => "unsolicited",
            What::Exchange(reason) => reason.token(),
        };
        write!(f, "{what}: {}", self.detail)
    }
}

impl std::error::Error for Fault {}
