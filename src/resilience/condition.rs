//! After which failures and answers another attempt is made.

use std::fmt;

/// One condition, as an operator names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// No connection was had: nobody has seen the request.
    ConnectFailure,
    /// The backend has said that it did not look at the request (RFC 9113 §8.7).
    RefusedStream,
    /// The connection or the stream broke before a final head.
    Reset,
    /// `per_try_timeout` ran out.
    Timeout,
    /// A final head with this status: 429, or one from 500 to 599.
    Status(u16),
    /// One with 502, 503 or 504.
    GatewayError,
    /// One from 500 to 599.
    ServerError,
}

impl Condition {
    /// Those that have a word; the others are statuses.
    pub const WORDS: [(&str, Self); 6] = [
        ("connect-failure", Self::ConnectFailure),
        ("refused-stream", Self::RefusedStream),
        ("reset", Self::Reset),
        ("timeout", Self::Timeout),
        ("gateway-error", Self::GatewayError),
        ("5xx", Self::ServerError),
    ];
}

/// What another attempt is made after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// [`Condition::ConnectFailure`].
    pub connect_failure: bool,
    /// [`Condition::RefusedStream`].
    pub refused_stream: bool,
    /// [`Condition::Reset`].
    pub reset: bool,
    /// [`Condition::Timeout`].
    pub timeout: bool,
    statuses: Statuses,
}

/// Bit `status - 500` for each status, and [`TOO_MANY`] for 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Statuses(u128);

/// The bit of 429.
const TOO_MANY: u32 = 127;

impl Statuses {
    fn bit(status: u16) -> u128 {
        match status {
            429 => 1 << TOO_MANY,
            500..=599 => 1 << (status - 500),
            _ => 0,
        }
    }
}

impl Conditions {
    /// Nothing.
    pub const NONE: Self =
        Self { connect_failure: false, refused_stream: false, reset: false, timeout: false, statuses: Statuses(0) };

    /// Whether a backend that answers with `status` is one of them.
    #[inline]
    #[must_use]
    pub fn has_status(&self, status: u16) -> bool {
        self.statuses.0 & Statuses::bit(status) != 0
    }

    /// Whether a status can be a condition.
    #[must_use]
    pub fn can_have(status: u16) -> bool {
        Statuses::bit(status) != 0
    }

    /// Whether a condition is among them, with all it stands for.
    fn has(&self, condition: Condition) -> bool {
        std::iter::once(condition).collect::<Self>().is_within(self)
    }

    fn is_within(&self, all: &Self) -> bool {
        (!self.connect_failure || all.connect_failure)
            && (!self.refused_stream || all.refused_stream)
            && (!self.reset || all.reset)
            && (!self.timeout || all.timeout)
            && self.statuses.0 & !all.statuses.0 == 0
    }

    fn add(&mut self, condition: Condition) {
        match condition {
            Condition::ConnectFailure => self.connect_failure = true,
            Condition::RefusedStream => self.refused_stream = true,
            Condition::Reset => self.reset = true,
            Condition::Timeout => self.timeout = true,
            Condition::Status(status) => self.statuses.0 |= Statuses::bit(status),
            Condition::GatewayError => (502..=504).for_each(|status| self.add(Condition::Status(status))),
            Condition::ServerError => (500..=599).for_each(|status| self.add(Condition::Status(status))),
        }
    }
}

impl FromIterator<Condition> for Conditions {
    fn from_iter<T: IntoIterator<Item = Condition>>(conditions: T) -> Self {
        let mut all = Self::NONE;
        conditions.into_iter().for_each(|condition| all.add(condition));
        all
    }
}

/// As an operator could write them, with commas between.
impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.has(Condition::ServerError);
        let words = Condition::WORDS.iter().filter(|(_, condition)| match condition {
            // Its statuses are told one by one, or as all of them.
            Condition::GatewayError => false,
            condition => self.has(*condition),
        });
        let words = words.map(|(word, _)| (*word).to_owned());
        let statuses = std::iter::once(429).chain(500..=599).filter(|status| self.has_status(*status));
        let statuses = statuses.filter(|status| !all || *status < 500).map(|status| status.to_string());
        let told: Vec<String> = words.chain(statuses).collect();
        f.write_str(if told.is_empty() { "nothing" } else { "" })?;
        f.write_str(&told.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_condition_is_itself_and_no_other() {
        let all = |conditions: &[Condition]| conditions.iter().copied().collect::<Conditions>();
        let none = Conditions::NONE;
        assert_eq!(all(&[]), none);
        assert_eq!(all(&[Condition::Reset]), Conditions { reset: true, ..none });
        assert_eq!(all(&[Condition::Timeout, Condition::Timeout]), Conditions { timeout: true, ..none });
        let has = |conditions: &[Condition]| {
            (0..=u16::MAX).filter(|status| all(conditions).has_status(*status)).collect::<Vec<_>>()
        };
        assert_eq!(has(&[Condition::ConnectFailure, Condition::RefusedStream, Condition::Reset]), Vec::<u16>::new());
        assert_eq!(has(&[Condition::Status(429), Condition::Status(500), Condition::Status(599)]), [429, 500, 599]);
        assert_eq!(has(&[Condition::GatewayError]), [502, 503, 504]);
        assert_eq!(has(&[Condition::ServerError]), (500..=599).collect::<Vec<_>>());
        assert_eq!((0..=u16::MAX).filter(|status| Conditions::can_have(*status)).count(), 101);
    }

    #[test]
    fn they_are_told_as_they_could_be_written() {
        let told = |conditions: &[Condition]| conditions.iter().copied().collect::<Conditions>().to_string();
        assert_eq!(told(&[]), "nothing");
        assert_eq!(told(&[Condition::Reset, Condition::ConnectFailure]), "connect-failure, reset");
        assert_eq!(told(&[Condition::GatewayError, Condition::Timeout]), "timeout, 502, 503, 504");
        assert_eq!(told(&[Condition::ServerError, Condition::Status(429)]), "5xx, 429");
    }
}
