//! Owns the way out of a connection: packets of one size back to back, so that one system call sends them all.

use super::connection::Connection;
use crate::limits::quic::{TRAIN_BYTES, TRAIN_PACKETS};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Packets that leave together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Train {
    /// Bytes filled.
    pub len: usize,
    /// Size of every packet but the last, which may be shorter.
    pub segment: u16,
    /// How many packets.
    pub packets: usize,
    /// The receiver.
    pub to: SocketAddr,
    /// The address to send from.
    pub from: SocketAddr,
}

/// A packet the transport counts as sent that did not fit its train: it leads the next one.
pub(super) struct Aside {
    bytes: Vec<u8>,
    to: SocketAddr,
    from: SocketAddr,
    /// A probe for a larger packet size travels alone: if it is too large for the path, only it is lost.
    probe: bool,
}

impl Connection {
    /// Fills one train; call until `None`. All packets but the last have the same size, as UDP_SEGMENT wants it.
    /// Paced connections hold the rest back: [`Self::next_deadline`] says until when.
    ///
    /// `out` must hold at least two packets.
    pub fn transmit(&mut self, out: &mut [u8], now: Instant) -> Option<Train> {
        self.settle();
        self.drain(now);
        // Before the first packet, so that acknowledgements share it with data.
        self.flush();
        let limit = out.len().min(TRAIN_BYTES);
        let out = &mut out[..limit];
        let packets_max = self.shared.settings.burst_packets.clamp(1, TRAIN_PACKETS);
        let mut train: Option<Train> = None;
        let mut tries = None;

        if let Some(aside) = self.aside.take() {
            let len = aside.bytes.len();
            if len > out.len() {
                // A slot too small for one packet: the packet is lost, as on any network.
                debug_assert!(false, "slot of {} bytes", out.len());
                return None;
            }
            // Copied: it was written behind the train before.
            out[..len].copy_from_slice(&aside.bytes);
            let first = Train { len, segment: len as u16, packets: 1, to: aside.to, from: aside.from };
            if aside.probe {
                return Some(self.count(first));
            }
            train = Some(first);
        }

        loop {
            let filled = train.map_or(0, |train| train.len);
            if train.is_some_and(|train| train.packets == packets_max) || self.is_held_back(now) {
                break;
            }
            let usual = self.quic.max_send_udp_payload_size();
            if out.len() - filled < usual {
                break;
            }
            let room = self.credit.map_or(out.len(), |credit| out.len().min(filled + credit));
            if room == filled {
                // All that an unproved address may get: the next packet from it brings more.
                break;
            }
            let (len, info) = match self.quic.send(&mut out[filled..room]) {
                Ok((len, info)) => {
                    self.credit = self.credit.map(|credit| credit.saturating_sub(len));
                    (len, info)
                }
                Err(quiche::Error::Done) => {
                    if self.flush() {
                        continue;
                    }
                    let left = *tries.get_or_insert_with(|| self.tries());
                    if left == 0 {
                        break;
                    }
                    tries = Some(left - 1);
                    continue;
                }
                Err(_) => {
                    // A handshake that cannot go on; the close is the next packet, and if not even that can be made
                    // the connection is closed already.
                    if self.quic.close(false, 0x01, b"").is_err() {
                        break;
                    }
                    self.fresh = true;
                    continue;
                }
            };
            self.pacer.sent(len);
            let probe = len > usual;
            let Some(train) = &mut train else {
                let first = Train { len, segment: len as u16, packets: 1, to: info.to, from: info.from };
                if probe {
                    return Some(self.count(first));
                }
                train = Some(first);
                continue;
            };
            let segment = usize::from(train.segment);
            if len > segment || probe || info.to != train.to || info.from != train.from {
                self.shared.counters.packets_aside.add(1);
                self.aside = Some(Box::new(Aside {
                    bytes: out[filled..filled + len].to_vec(),
                    to: info.to,
                    from: info.from,
                    probe,
                }));
                break;
            }
            train.len += len;
            train.packets += 1;
            if len < segment {
                break;
            }
        }
        let train = train.or_else(|| self.send_for_left_path(out));
        // The transport waits for its close to leave before it is closed.
        let unsaid = self.quic.local_error().is_some() && !self.quic.is_draining();
        self.mute |= train.is_none() && self.credit.is_some() && self.release.is_none() && unsaid;
        train.map(|train| self.count(train))
    }

    /// How often the transport is asked again after it said that nothing is left.
    ///
    /// In quiche 0.30 a stream whose lost data is acknowledged late stays in the queue of streams with nothing to send.
    /// Found at the head, it makes the transport say `Done` whatever the streams behind it have. Streams are incremental,
    /// so it moves to the back and the next call finds another.
    fn tries(&self) -> usize {
        if self.sending.is_empty() && self.held.bytes() == 0 || !self.has_lost {
            return 0;
        }
        // No probe timer is as long as this, but the idle timer is: then nothing is in flight, and nothing may ever bring
        // another call.
        let nothing_in_flight = self.quic.timeout().is_none_or(|left| left > Duration::from_secs(5));
        if nothing_in_flight { 256 } else { 4 }
    }

    fn count(&mut self, train: Train) -> Train {
        self.flight.sent(train.len);
        self.shared.counters.trains.add(1);
        self.shared.counters.packets.add(train.packets as u64);
        train
    }

    /// Whether pacing wants the next packet later.
    fn is_held_back(&mut self, now: Instant) -> bool {
        let settings = &self.shared.settings;
        self.release = if settings.congestion_control.paces() {
            let decision = self.quic.get_next_release_time();
            let at = decision.and_then(|decision| decision.time(now));
            at.and_then(|at| at.checked_sub(settings.pacing_slack)).filter(|&at| at > now)
        } else {
            self.pacer.held_until(now)
        };
        self.release.is_some()
    }
}
