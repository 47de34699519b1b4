//! What a worker writes on its sockets, to know whose an event is.

use spooky_uring::Token;

const KIND_SHIFT: u32 = 56;

/// The owner that a [`Token`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A public listener, by position.
    Listener(u16),
    /// A connection to an origin, by slot.
    Origin(u32),
    /// The worker's mailbox.
    Mailbox,
    /// A listening TCP socket, by position.
    Door(u16),
    /// A client's connection over TCP, by slot.
    Client(u32),
    /// The box for datagrams that other workers forward.
    Forwards,
}

impl Owner {
    /// The token that stands for this owner.
    pub fn token(self) -> Token {
        let (kind, index) = match self {
            Self::Listener(index) => (1, u64::from(index)),
            Self::Origin(slot) => (2, u64::from(slot)),
            Self::Mailbox => (3, 0),
            Self::Forwards => (4, 0),
            Self::Door(index) => (5, u64::from(index)),
            Self::Client(slot) => (6, u64::from(slot)),
        };
        Token(kind << KIND_SHIFT | index)
    }

    /// The owner of a token; `None` for a token that no worker made.
    pub fn of(token: Token) -> Option<Self> {
        let index = token.0 & ((1 << KIND_SHIFT) - 1);
        match token.0 >> KIND_SHIFT {
            1 => u16::try_from(index).ok().map(Self::Listener),
            2 => u32::try_from(index).ok().map(Self::Origin),
            3 => Some(Self::Mailbox),
            4 => Some(Self::Forwards),
            5 => u16::try_from(index).ok().map(Self::Door),
            6 => u32::try_from(index).ok().map(Self::Client),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_owner_survives_the_way_through_a_token() {
        for owner in [
            Owner::Listener(0),
            Owner::Listener(u16::MAX),
            Owner::Origin(0),
            Owner::Origin(u32::MAX),
            Owner::Mailbox,
            Owner::Forwards,
            Owner::Door(u16::MAX),
            Owner::Client(u32::MAX),
        ] {
            assert_eq!(Owner::of(owner.token()), Some(owner));
        }
        assert_eq!(Owner::of(Token(0)), None);
    }
}
