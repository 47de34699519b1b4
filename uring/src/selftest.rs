//! Proving at start that the kernel does what its version promises.
//!
//! `floor` refuses to start where something is missing; `optional` only switches features on. Each runs real rings on a
//! socket pair or the loopback device for a few hundred microseconds.

use crate::chunk::Chunk;
use crate::features::{FeatureMask, Features, StartError};
use crate::io::{Event, Io, StreamAddress, StreamId, Token, Transmit, UdpId};
use crate::ring::{PoolConfig, Ring, RingConfig};
use crate::socket::{Listener, UdpOptions, UdpSocket};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// The longest wait of one turn. Steps are bounded in turns and not by the clock, which goes on while a machine is suspended,
/// migrated or starved: none of these says anything about its kernel.
const WAIT: Duration = Duration::from_millis(1);

/// The turns that any one step may take, of some ten that it needs: two seconds of waiting, if no answer comes at all.
const PATIENCE: u32 = 2000;

/// Turns that wait for the FIN of a closed connection. Kernels before 6.13 get there, and lose the feature.
const FIN_PATIENCE: u32 = 200;

/// Small: two or four buffers, so that running out is part of the test.
fn config() -> RingConfig {
    let pool = |size| PoolConfig { count: 4, size, posted: 2 };
    RingConfig {
        entries: 16,
        streams: 8,
        stream_receive: pool(1024),
        udp_receive: pool(RingConfig::default().udp_receive.size),
        udp_send_slots: 2,
        ..RingConfig::default()
    }
}

/// Turns the ring until `found` finds what it looks for.
fn until<T>(
    ring: &mut Ring,
    feature: &'static str,
    mut found: impl FnMut(&Event) -> Option<T>,
) -> Result<T, StartError> {
    let mut events = Vec::new();
    for _ in 0..PATIENCE {
        let waited = ring.wait(Some(Instant::now() + WAIT), &mut events);
        waited.map_err(|error| StartError::refused(feature, "6.1", error))?;
        for event in events.drain(..) {
            if let Some(found) = found(&event) {
                return Ok(found);
            }
        }
    }
    Err(misbehaved(feature, "no answer"))
}

fn misbehaved(feature: &'static str, seen: impl Into<String>) -> StartError {
    StartError::Misbehaved { feature, seen: seen.into() }
}

/// Everything that Linux 6.1 has; also finds whether UDP is segmented and coalesced, which a network sandbox may lack.
pub(crate) fn floor(features: &mut Features) -> Result<(), StartError> {
    let mut ring = Ring::new(&config(), features)?;
    receive_into_buffers(&mut ring)?;
    features.udp_gso = false;
    let (gso, gro) = datagram_train(&mut ring)?;
    features.udp_gso = gso;
    features.udp_gro = gro;
    Ok(())
}

/// Multishot receive into provided buffers, running them out and going on.
fn receive_into_buffers(ring: &mut Ring) -> Result<(), StartError> {
    const FEATURE: &str = "multishot receive into provided buffers";
    let refused = |error| StartError::refused(FEATURE, "6.0", error);
    let (near, far) = UnixStream::pair().map_err(refused)?;
    let full = || misbehaved(FEATURE, "a fresh table of streams is full");
    let near = ring.adopt_stream(near.into(), Token(1)).ok_or_else(full)?;
    let far = ring.adopt_stream(far.into(), Token(2)).ok_or_else(full)?;
    // Six buffers' worth into a pool of four that is held: the kernel has to run out, and nothing may be lost.
    let message: Vec<u8> = (0..6 * 1024).map(|i| (i % 251) as u8).collect();
    ring.resume(far);
    ring.send(near, Chunk::copy_from(&message));
    let mut received = Vec::new();
    let mut held = Vec::new();
    let mut turns = 0;
    while received.len() < message.len() {
        if turns == PATIENCE {
            let seen = format!("{} of {} bytes arrived", received.len(), message.len());
            return Err(misbehaved(FEATURE, seen));
        }
        turns += 1;
        let mut events = Vec::new();
        ring.wait(Some(Instant::now() + WAIT), &mut events).map_err(refused)?;
        if events.is_empty() {
            held.clear();
        }
        for event in events {
            match event {
                Event::Received { lease, .. } => {
                    received.extend_from_slice(&lease);
                    held.push(lease);
                }
                Event::Ended { end, .. } => {
                    return Err(misbehaved(FEATURE, format!("receive ended: {end:?}")));
                }
                Event::SendFailed { error, .. } => {
                    return Err(refused(io::Error::from_raw_os_error(error)));
                }
                _ => {}
            }
        }
    }
    drop(held);
    ring.close(near);
    ring.close(far);
    if received == message { Ok(()) } else { Err(misbehaved(FEATURE, "the bytes were not the ones sent")) }
}

/// Two datagrams of equal size and a shorter one, over loopback.
fn datagram_train(ring: &mut Ring) -> Result<(bool, bool), StartError> {
    const FEATURE: &str = "multishot datagram receive";
    let refused = |error| StartError::refused(FEATURE, "6.0", error);
    let mut options = UdpOptions::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    options.receive_buffer = 256 << 10;
    options.send_buffer = 256 << 10;
    let receiver = UdpSocket::bind(&options).map_err(refused)?;
    let to = receiver.local_address();
    let receiver = ring.add_udp(receiver, Token(3));
    let sender = UdpSocket::bind(&options).map_err(refused)?;
    let sender = ring.add_udp(sender, Token(4));
    // Offload is tried whatever `features` says yet: this is where it is found out.
    ring.set_udp_gso(sender, true);
    send_train(ring, sender, to)?;
    let mut expected = 1000 + 1000 + 500;
    let mut coalesced = false;
    until(ring, FEATURE, |event| {
        if let Event::Datagrams { segment, lease, .. } = event {
            coalesced |= lease.len() > usize::from(*segment);
            expected -= lease.len().min(expected);
        }
        (expected == 0).then_some(())
    })?;
    let offloaded = ring.udp_gso(sender) && ring.stats().udp_sends == 1;
    ring.close_udp(receiver);
    ring.close_udp(sender);
    Ok((offloaded, coalesced))
}

fn send_train(ring: &mut Ring, socket: UdpId, to: SocketAddr) -> Result<(), StartError> {
    let slot = ring.udp_slot();
    let mut slot = slot.ok_or_else(|| misbehaved("UDP send buffers", "a fresh pool is dry"))?;
    slot[..2500].fill(7);
    let transmit = Transmit { len: 2500, segment: 1000, to, from: None };
    ring.udp_send(socket, slot, transmit);
    Ok(())
}

/// Switches on what is newer than the floor, allowed by `mask`, and works.
pub(crate) fn optional(features: &mut Features, mask: FeatureMask) {
    if mask.no_sqarray {
        let with = Features { no_sqarray: true, ..features.clone() };
        let works = Ring::new(&config(), &with).and_then(|mut ring| receive_into_buffers(&mut ring));
        features.no_sqarray = works.is_ok();
    }
    if mask.min_wait {
        features.min_wait = Ring::new(&config(), features).is_ok_and(|ring| ring.has_min_wait());
    }
    if mask.direct_connect {
        let with = Features { direct_connect: true, ..features.clone() };
        features.direct_connect = direct_connect_works(&with).is_ok();
    }
}

/// Two connections made in the ring; the second is closed while the first still receives. Kernels before 6.13 hold a
/// closed direct descriptor back until every older operation has ended, which would leave peers without their FIN.
fn direct_connect_works(features: &Features) -> Result<(), StartError> {
    const FEATURE: &str = "sockets on direct descriptors";
    let refused = |error| StartError::refused(FEATURE, "6.7", error);
    let mut ring = Ring::new(&config(), features)?;
    if !ring.connects_direct() {
        return Err(misbehaved(FEATURE, "no table of descriptors"));
    }
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = Listener::tcp(address, 8, false).map_err(refused)?;
    let to = listener.local_address().unwrap_or(address);
    ring.listen(listener, Token(1));
    let connect = |ring: &mut Ring, token| -> Result<(StreamId, StreamId), StartError> {
        let stream = ring.connect(&StreamAddress::Tcp(to), token);
        let stream = stream.ok_or_else(|| misbehaved(FEATURE, "a fresh table is full"))?;
        let (mut made, mut accepted) = (None, None);
        until(ring, FEATURE, |event| {
            match event {
                Event::Connected { result, .. } => made = Some(*result),
                Event::Accepted { stream, .. } => accepted = Some(*stream),
                _ => {}
            }
            made.filter(|made| made.is_err()).map(drop).or(made.zip(accepted).map(drop))
        })?;
        match (made, accepted) {
            (Some(Ok(())), Some(accepted)) => Ok((stream, accepted)),
            (made, _) => Err(misbehaved(FEATURE, format!("connect answered {made:?}"))),
        }
    };
    let (first, _first_far) = connect(&mut ring, Token(2))?;
    ring.resume(first);
    let (second, second_far) = connect(&mut ring, Token(3))?;
    ring.resume(second);
    ring.resume(second_far);
    ring.send(second, Chunk::from_static(b"hello"));
    until(&mut ring, FEATURE, |event| {
        matches!(event, Event::Received { stream, .. } if *stream == second_far).then_some(())
    })?;
    ring.close(second);
    let mut events = Vec::new();
    for _ in 0..FIN_PATIENCE {
        ring.wait(Some(Instant::now() + WAIT), &mut events).map_err(refused)?;
        let ended = |event: Event| matches!(event, Event::Ended { stream, .. } if stream == second_far);
        if events.drain(..).any(ended) {
            return Ok(());
        }
    }
    Err(misbehaved(FEATURE, "a closed connection stayed open"))
}
