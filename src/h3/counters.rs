//! Owns what the QUIC side counts. Plain numbers of one worker; who publishes them reads them between turns.

use super::close::CloseCause;
use crate::limits::quic::CLOSE_CAUSES;
use std::cell::{Cell, RefCell};

/// Why a datagram was dropped before it reached a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// Too short for what its first bytes say.
    Truncated,
    /// A connection ID that is not one of ours.
    ForeignId,
    /// A connection ID of another worker, which the datagram could not be given to.
    Misdirected,
    /// A connection that is gone.
    NoConnection,
    /// An unknown version in a datagram too small to answer.
    VersionTooSmall,
    /// A Version Negotiation packet; only clients get those.
    VersionNegotiation,
    /// A connection ID over 20 bytes, or under 8 in a client's first packet.
    IdLength,
    /// A client's first datagram under 1200 bytes.
    InitialTooSmall,
    /// A client's first packet that does not decrypt or parse.
    InitialInvalid,
    /// The bound on connections is reached.
    ConnectionLimit,
    /// The bound on handshakes is reached.
    HalfOpenLimit,
    /// We take no new connections.
    Draining,
    /// The library could not make a connection.
    Internal,
    /// A connection ID of another process: most likely the one before us.
    OtherProcess,
    /// From an address that may not come.
    AddressDenied,
}

impl DropReason {
    /// Every reason, in the order of the variants.
    pub const ALL: [Self; 15] = [
        Self::Truncated,
        Self::ForeignId,
        Self::Misdirected,
        Self::NoConnection,
        Self::VersionTooSmall,
        Self::VersionNegotiation,
        Self::IdLength,
        Self::InitialTooSmall,
        Self::InitialInvalid,
        Self::ConnectionLimit,
        Self::HalfOpenLimit,
        Self::Draining,
        Self::Internal,
        Self::OtherProcess,
        Self::AddressDenied,
    ];

    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The token of the metrics label.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::ForeignId => "foreign_id",
            Self::Misdirected => "misdirected",
            Self::NoConnection => "no_connection",
            Self::VersionTooSmall => "version_too_small",
            Self::VersionNegotiation => "version_negotiation",
            Self::IdLength => "id_length",
            Self::InitialTooSmall => "initial_too_small",
            Self::InitialInvalid => "initial_invalid",
            Self::ConnectionLimit => "connection_limit",
            Self::HalfOpenLimit => "half_open_limit",
            Self::Draining => "draining",
            Self::Internal => "internal",
            Self::OtherProcess => "other_process",
            Self::AddressDenied => "address_denied",
        }
    }
}

macro_rules! counters {
    ($( $(#[$doc:meta])* $name:ident, )+) => {
        /// What one endpoint counted since it was made.
        #[derive(Debug, Default)]
        pub struct Counters {
            $( $(#[$doc])* pub $name: Count, )+
            /// Datagrams dropped, by [`DropReason`].
            pub dropped: [Count; DropReason::COUNT],
            closes: RefCell<Vec<(CloseCause, u64)>>,
            /// Closes whose cause found no more room in the table.
            pub closes_other: Count,
        }

        impl Counters {
            /// Name and value of every plain counter.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
                [ $( (stringify!($name), self.$name.get()), )+ ].into_iter()
            }
        }
    };
}

counters! {
    /// Datagrams given to a connection.
    datagrams,
    /// Version Negotiation packets made.
    negotiations,
    /// Retry packets made.
    retries,
    /// Tokens that proved an address.
    tokens_valid,
    /// Genuine tokens that were too old.
    tokens_expired,
    /// Genuine tokens that came from another address.
    tokens_other_address,
    /// Tokens that were changed, or sent to another ID.
    tokens_altered,
    /// Tokens of no kind that we issue.
    tokens_unknown,
    /// Stateless resets made.
    resets,
    /// Packets of unknown connections too small to be answered with one.
    resets_too_small,
    /// Packets of unknown connections not answered because enough were in this second.
    resets_limited,
    /// Connections refused because their address has as many as it may.
    refused_address_connections,
    /// Connections refused because their address opens them too fast.
    refused_address_rate,
    /// Connections whose address found no room in the table of addresses.
    addresses_untracked,
    /// Clients refused because their transport parameters are wrong.
    parameters_refused,
    /// Connections accepted.
    accepted,
    /// Handshakes completed.
    established,
    /// Of these, with a ticket of an earlier session.
    resumed,
    /// Connections removed.
    removed,
    /// Request heads taken in.
    requests,
    /// Requests reset as malformed.
    requests_malformed,
    /// Requests whose body was not as long as announced.
    request_length_mismatches,
    /// Requests that came after our GOAWAY.
    requests_rejected,
    /// Requests without a head.
    requests_incomplete,
    /// Streams the client reset.
    client_resets,
    /// Streams the client wanted no response on any more.
    client_stops,
    /// Responses reset because their body was not as long as announced.
    response_length_mismatches,
    /// Body bytes copied because a connection held too much pool memory.
    unpooled_bytes,
    /// Trains made.
    trains,
    /// Packets in them.
    packets,
    /// Packets that were longer than their train's and waited for the next one.
    packets_aside,
    /// Paths that were taken for ones which no longer carry large packets.
    black_holes,
    /// Clients that moved to another address.
    migrations,
    /// Clients that were silent while their requests ran and were asked whether they are there.
    keep_alives,
}

/// A number that one thread counts up.
#[derive(Debug, Default)]
pub struct Count(Cell<u64>);

impl Count {
    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.set(self.0.get().wrapping_add(n));
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

impl Counters {
    pub(super) fn close(&self, cause: CloseCause) {
        let mut closes = self.closes.borrow_mut();
        if let Some((_, count)) = closes.iter_mut().find(|(known, _)| *known == cause) {
            *count += 1;
        } else if closes.len() < CLOSE_CAUSES {
            closes.push((cause, 1));
        } else {
            self.closes_other.add(1);
        }
    }

    /// How often connections were closed for each cause.
    pub fn closes(&self) -> Vec<(CloseCause, u64)> {
        self.closes.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::close::Closer;
    use super::*;

    #[test]
    fn drop_reasons_index_their_own_counter() {
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }

    #[test]
    fn the_table_of_causes_is_bounded() {
        let counters = Counters::default();
        for code in 0..2 * CLOSE_CAUSES as u64 {
            counters.close(CloseCause { by: Closer::Client, application: true, code });
        }
        assert_eq!(counters.closes().len(), CLOSE_CAUSES);
        assert_eq!(counters.closes_other.get(), CLOSE_CAUSES as u64);
    }
}
