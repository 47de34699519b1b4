//! Owns the tickets of the server side: sessions sealed with keys that [`TicketKeys`] computes, so that any worker, and any
//! process of the same secret, resumes them.
//!
//! ```text
//! ticket        = epoch 64 | salt 128 | AES-256-GCM(key, nonce, made 64 | session)
//! key and nonce = HKDF-Expand(root, "tls ticket v1" | session context | epoch | salt, 32 + 12)
//! ```
//!
//! The session context (certificate and client policy, [`Site::session_context`](crate::identity::Site::session_context))
//! is part of the key: a ticket of another site does not open. Each ticket has a key of its own, so that nobody has to count
//! how many one key sealed.

use crate::identity::{ROTATION, TicketKeys};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;
use std::fmt;

const EPOCH_LEN: usize = 8;
const SALT_LEN: usize = 16;
const MADE_LEN: usize = 8;

/// Tickets of one site.
pub(super) struct Tickets {
    keys: TicketKeys,
    context: [u8; 32],
    random: SystemRandom,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets(..)")
    }
}

impl Tickets {
    pub(super) fn new(keys: TicketKeys, context: [u8; 32]) -> Self {
        Self { keys, context, random: SystemRandom::new() }
    }

    fn key(&self, epoch: &[u8], salt: &[u8]) -> Option<(LessSafeKey, Nonce)> {
        let mut bytes = [0; 32 + 12];
        self.keys.expand(&[b"tls ticket v1", &self.context, epoch, salt], &mut bytes);
        let (key, nonce) = bytes.split_first_chunk::<32>()?;
        let key = UnboundKey::new(&AES_256_GCM, key).ok()?;
        Some((LessSafeKey::new(key), Nonce::try_assume_unique_for_key(nonce).ok()?))
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        ROTATION.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut ticket = Vec::with_capacity(EPOCH_LEN + SALT_LEN + MADE_LEN + plain.len() + AES_256_GCM.tag_len());
        ticket.extend_from_slice(&self.keys.epoch().to_be_bytes());
        let mut salt = [0; SALT_LEN];
        self.random.fill(&mut salt).ok()?;
        ticket.extend_from_slice(&salt);
        let (key, nonce) = self.key(&ticket[..EPOCH_LEN], &salt)?;
        let sealed = ticket.len();
        ticket.extend_from_slice(&self.keys.now().to_be_bytes());
        ticket.extend_from_slice(plain);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut ticket[sealed..]).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (epoch, rest) = ticket.split_first_chunk::<EPOCH_LEN>()?;
        let (salt, sealed) = rest.split_first_chunk::<SALT_LEN>()?;
        if !self.keys.accepts(u64::from_be_bytes(*epoch)) {
            return None;
        }
        let (key, nonce) = self.key(epoch, salt)?;
        let mut plain = sealed.to_vec();
        let length = key.open_in_place(nonce, Aad::empty(), &mut plain).ok()?.len();
        plain.truncate(length);
        let (made, _) = plain.split_first_chunk::<MADE_LEN>()?;
        let age = self.keys.now().saturating_sub(u64::from_be_bytes(*made));
        plain.drain(..MADE_LEN);
        (age <= ROTATION.as_secs()).then_some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    const HOURS_6: u64 = ROTATION.as_secs();

    fn tickets(secret: &[u8], context: u8, clock: fn() -> u64) -> Tickets {
        Tickets::new(TicketKeys::derive(secret, clock), [context; 32])
    }

    #[test]
    fn any_process_of_the_same_secret_opens_a_ticket_of_the_same_site() {
        let clock = || 80_000 * HOURS_6;
        let one = tickets(b"secret", 1, clock);
        let ticket = one.encrypt(b"a session").unwrap();
        assert_eq!(tickets(b"secret", 1, clock).decrypt(&ticket).as_deref(), Some(b"a session".as_slice()));
        assert_eq!(tickets(b"another", 1, clock).decrypt(&ticket), None);
        assert_eq!(tickets(b"secret", 2, clock).decrypt(&ticket), None);
        // The same session is never the same ticket.
        assert_ne!(one.encrypt(b"a session").unwrap(), ticket);
    }

    #[test]
    fn a_ticket_lives_for_six_hours_whenever_it_was_made() {
        static NOW: AtomicU64 = AtomicU64::new(0);
        let tickets = tickets(b"secret", 1, || NOW.load(Ordering::Relaxed));
        for start in [100 * HOURS_6, 100 * HOURS_6 + 1, 101 * HOURS_6 - 1] {
            NOW.store(start, Ordering::Relaxed);
            let ticket = tickets.encrypt(b"x").unwrap();
            for (now, opens) in [
                (start, true),
                (start + HOURS_6, true),
                (start + HOURS_6 + 1, false),
                // A host whose clock is behind.
                (start - 60, true),
                (start - 2 * HOURS_6, false),
            ] {
                NOW.store(now, Ordering::Relaxed);
                assert_eq!(tickets.decrypt(&ticket).is_some(), opens, "{start} {now}");
            }
        }
    }

    #[test]
    fn changed_and_cut_tickets_do_not_open() {
        let tickets = tickets(b"secret", 1, || 5);
        let ticket = tickets.encrypt(b"a session").unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "{at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None, "{at}");
        }
    }
}
