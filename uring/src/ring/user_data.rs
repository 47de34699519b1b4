//! The word that travels with each operation and comes back with its completion: kind 8 | generation 24 | slot 32.
//!
//! The kind says which table the slot belongs to; the generation says which use of the slot. A completion whose
//! generation is not the slot's present one is late: it belongs to a use that is over, and is dropped and counted.

/// Which operation a completion belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Nobody waits for the result.
    Ignore = 1,
    UdpReceive,
    UdpSend,
    Accept,
    Socket,
    SocketOption,
    Connect,
    StreamReceive,
    StreamSend,
    StreamShutdown,
    StreamCancel,
    StreamClose,
    Watch,
    RingDoorbell,
    Signal,
    FileWrite,
}

impl Kind {
    fn from_bits(bits: u8) -> Option<Self> {
        const KINDS: [Kind; 16] = [
            Kind::Ignore,
            Kind::UdpReceive,
            Kind::UdpSend,
            Kind::Accept,
            Kind::Socket,
            Kind::SocketOption,
            Kind::Connect,
            Kind::StreamReceive,
            Kind::StreamSend,
            Kind::StreamShutdown,
            Kind::StreamCancel,
            Kind::StreamClose,
            Kind::Watch,
            Kind::RingDoorbell,
            Kind::Signal,
            Kind::FileWrite,
        ];
        let kind = KINDS.get(usize::from(bits.checked_sub(1)?)).copied()?;
        debug_assert_eq!(kind as u8, bits);
        Some(kind)
    }
}

/// Bits of a generation; a slot's count wraps there.
pub(super) const GENERATION_MASK: u32 = 0x00ff_ffff;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UserData {
    pub(super) kind: Kind,
    pub(super) generation: u32,
    pub(super) slot: u32,
}

impl UserData {
    pub(super) const fn new(kind: Kind, generation: u32, slot: u32) -> Self {
        Self { kind, generation: generation & GENERATION_MASK, slot }
    }

    pub(super) const fn bits(self) -> u64 {
        (self.kind as u64) << 56 | (self.generation as u64) << 32 | self.slot as u64
    }

    /// `None`: no word of ours.
    pub(super) fn from_bits(bits: u64) -> Option<Self> {
        Some(Self {
            kind: Kind::from_bits((bits >> 56) as u8)?,
            generation: (bits >> 32) as u32 & GENERATION_MASK,
            slot: bits as u32,
        })
    }
}

/// The generation after `generation`.
pub(super) fn next_generation(generation: u32) -> u32 {
    generation.wrapping_add(1) & GENERATION_MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip() {
        for kind in 1..=16_u8 {
            let kind = Kind::from_bits(kind).unwrap();
            let word = UserData::new(kind, 0xffff_ffff, 0x8000_0001);
            assert_eq!(word.generation, GENERATION_MASK);
            assert_eq!(UserData::from_bits(word.bits()), Some(word));
        }
        assert_eq!(UserData::from_bits(0), None);
        assert_eq!(UserData::from_bits(u64::MAX), None);
        assert_eq!(next_generation(GENERATION_MASK), 0);
    }
}
