//! One connection of the attacker: quiche shakes hands, then the packets are ours.

use super::frames::{Told, ack, read};
use super::keys::Keys;
use crate::machine::Failure;
use crate::udp::{BUFFER_BYTES, PAYLOAD_MAX, SEGMENTS_MAX, Settings, Socket};
use nix::poll::{PollFd, PollFlags, poll};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Length of our own connection IDs, the first and all later ones.
pub const ID_BYTES: usize = 16;
/// Frames of one packet at most, so that no train needs fragments.
pub const FRAMES_MAX: usize = 1150;
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);
/// Our packet numbers begin behind all that quiche may have used.
const FIRST_NUMBER: u64 = 1 << 16;
/// Ranges that an acknowledgement tells of: old holes are not worth a word.
const RANGES_MAX: usize = 32;

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// CONNECTION_CLOSE: code and reason.
    Closed(u64, String),
    /// Nobody listens at that port.
    Refused,
}

/// What the server allows.
#[derive(Clone, Copy, Debug)]
pub struct Credit {
    /// Requests in all.
    pub streams: u64,
    /// Bytes on all streams together.
    pub data: u64,
    /// Bytes on the stream that was told of last.
    pub stream_data: u64,
}

/// A connection with our own packets.
pub struct Link {
    socket: Socket,
    id: Vec<u8>,
    ours: Keys,
    theirs: Keys,
    number: u64,
    /// Packets that came, as ranges, the newest last.
    pub ranges: Vec<(u64, u64)>,
    news: bool,
    /// What the server allows.
    pub credit: Credit,
    /// How it ended, if it has.
    pub end: Option<End>,
    /// When the last packet came.
    pub heard: Instant,
    /// Packets and their bytes that were sent.
    pub sent: (u64, u64),
    train: Vec<u8>,
    input: Box<[u8]>,
}

/// Collects what quiche tells of its secrets.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Ok(mut log) = self.0.lock() {
            log.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The secret that a line of the NSS key log format gives.
    fn secret(&self, label: &str) -> Option<Vec<u8>> {
        let log = self.0.lock().ok()?;
        let line = std::str::from_utf8(&log).ok()?.lines().find_map(|line| line.strip_prefix(label)?.strip_prefix(' '));
        let hex = line?.split(' ').nth(1)?;
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect()
    }
}

impl Link {
    /// Shakes hands and takes over. An error: no connection came of it.
    pub fn connect(to: SocketAddr, name: &str, serial: u64, settings: &mut quiche::Config) -> Result<Self, Failure> {
        let mut socket = Socket::connect(to, Settings { receive_buffer: Some(4 << 20), gro: true, gso: true })?;
        let mut id = [0x5a; ID_BYTES];
        id[..8].copy_from_slice(&serial.to_be_bytes());
        let id = quiche::ConnectionId::from_ref(&id);
        let mut quic = quiche::connect(Some(name), &id, socket.local(), to, settings)?;
        let log = Log::default();
        quic.set_keylog(Box::new(log.clone()));
        let mut input = vec![0; BUFFER_BYTES].into_boxed_slice();
        let until = Instant::now() + HANDSHAKE_PATIENCE;
        let mut opened = false;
        // One round behind the handshake: the server's last words in it are quiche's to understand.
        let mut rounds = 0;
        while rounds < 1 {
            if quic.is_established() && !opened {
                // Control stream with empty SETTINGS.
                quic.stream_send(2, &[0x00, 0x04, 0x00], false)?;
                opened = true;
            }
            while let Ok((len, _)) = quic.send(&mut input[..1350]) {
                socket.send(&input[..len], len)?;
            }
            if Instant::now() > until || quic.is_closed() {
                return Err(format!("no handshake: {:?}", quic.peer_error()).into());
            }
            if !wait(&socket, if opened { 2 } else { 20 }) {
                quic.on_timeout();
                rounds += u32::from(opened);
                continue;
            }
            while let Some(received) = socket.receive(&mut input)? {
                for packet in input[..received.len].chunks_mut(received.segment) {
                    let _ = quic.recv(packet, quiche::RecvInfo { from: to, to: socket.local() });
                }
            }
            rounds += u32::from(opened);
        }
        let peer = quic.peer_transport_params().ok_or("no transport parameters")?;
        let credit = Credit {
            streams: peer.initial_max_streams_bidi,
            data: peer.initial_max_data,
            stream_data: peer.initial_max_stream_data_bidi_remote,
        };
        let keys = |label| log.secret(label).ok_or("the handshake logged no secret".into()).and_then(|s| Keys::new(&s));
        Ok(Self {
            id: quic.destination_id().to_vec(),
            ours: keys("CLIENT_TRAFFIC_SECRET_0")?,
            theirs: keys("SERVER_TRAFFIC_SECRET_0")?,
            number: FIRST_NUMBER,
            ranges: Vec::new(),
            news: false,
            credit,
            end: None,
            heard: Instant::now(),
            sent: (0, 0),
            train: Vec::with_capacity(BUFFER_BYTES),
            socket,
            input,
        })
    }

    /// Sends as many packets of equal size as `frames` fills, up to a train; false: it filled none.
    pub fn send_train(&mut self, mut frames: impl FnMut(&mut Self, &mut Vec<u8>) -> bool) -> Result<bool, Failure> {
        let mut train = std::mem::take(&mut self.train);
        train.clear();
        let (mut payload, mut segment, mut count) = (Vec::with_capacity(FRAMES_MAX), 0, 0);
        while count < SEGMENTS_MAX && train.len() + segment <= BUFFER_BYTES - 2048 {
            payload.clear();
            if !frames(self, &mut payload) {
                break;
            }
            // The first packet of a train gives the size; a header protection sample needs four bytes.
            let least = segment.max(1 + self.id.len() + 4 + 4 + 16) - (1 + self.id.len() + 4 + 16);
            if payload.len() < least {
                payload.resize(least, 0);
            }
            let before = train.len();
            self.ours.seal(&self.id, self.number, &payload, &mut train)?;
            self.number += 1;
            count += 1;
            let size = train.len() - before;
            if segment == 0 {
                segment = size;
            } else if size > segment {
                // Too long for this train: it goes behind it, alone.
                self.push(&train[..before], segment)?;
                train.drain(..before);
                segment = size;
            }
        }
        if count > 0 {
            self.push(&train, segment)?;
            self.sent.0 += count as u64;
            self.sent.1 += train.len() as u64;
        }
        self.train = train;
        Ok(count > 0)
    }

    fn push(&mut self, train: &[u8], segment: usize) -> Result<(), Failure> {
        match self.socket.send(train, segment) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => self.end = Some(End::Refused),
            other => other?,
        }
        Ok(())
    }

    /// Takes what came; waits for it at most so long.
    pub fn receive(&mut self, patience: Duration) -> Result<(), Failure> {
        if !patience.is_zero() && !wait(&self.socket, u16::try_from(patience.as_millis()).unwrap_or(u16::MAX)) {
            return Ok(());
        }
        let mut input = std::mem::take(&mut self.input);
        loop {
            match self.socket.receive(&mut input) {
                Ok(Some(received)) => {
                    for packet in input[..received.len].chunks_mut(received.segment) {
                        self.take(packet);
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    self.end = Some(End::Refused);
                    break;
                }
            }
        }
        self.input = input;
        Ok(())
    }

    fn take(&mut self, packet: &mut [u8]) {
        let largest = self.ranges.last().map_or(0, |range| range.1);
        let Some((number, frames)) = self.theirs.open(packet, ID_BYTES, largest) else {
            return;
        };
        self.heard = Instant::now();
        match self.ranges.last_mut() {
            Some(last) if number == last.1 + 1 => last.1 = number,
            Some(last) if number <= last.1 => {}
            _ => self.ranges.push((number, number)),
        }
        if self.ranges.len() > RANGES_MAX {
            self.ranges.remove(0);
        }
        self.news = true;
        let (credit, end) = (&mut self.credit, &mut self.end);
        read(frames, |told| match told {
            Told::Data(bytes) => credit.data = credit.data.max(bytes),
            Told::StreamData(_, bytes) => credit.stream_data = credit.stream_data.max(bytes),
            Told::Streams(count) => credit.streams = credit.streams.max(count),
            Told::Close(_, code, reason) => *end = Some(End::Closed(code, reason)),
        });
    }

    /// Acknowledges honestly what came since the last time.
    pub fn acknowledge(&mut self) -> Result<(), Failure> {
        if std::mem::take(&mut self.news) {
            let mut once = true;
            self.send_train(|link, out| {
                ack(out, &link.ranges);
                std::mem::take(&mut once)
            })?;
        }
        Ok(())
    }
}

fn wait(socket: &Socket, millis: u16) -> bool {
    poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], millis).is_ok_and(|ready| ready > 0)
}

/// What every connection of the attacker is made with; dear to make.
pub fn transport() -> Result<quiche::Config, Failure> {
    let mut quic = quiche::Config::new(quiche::PROTOCOL_VERSION)?;
    quic.set_application_protos(quiche::h3::APPLICATION_PROTOCOL)?;
    quic.verify_peer(false);
    quic.log_keys();
    quic.set_max_idle_timeout(30_000);
    quic.set_max_send_udp_payload_size(1350);
    quic.set_max_recv_udp_payload_size(PAYLOAD_MAX);
    // An optimist needs room for what it will claim to have.
    quic.set_initial_max_data(1 << 40);
    quic.set_initial_max_stream_data_bidi_local(1 << 40);
    quic.set_initial_max_stream_data_uni(1 << 20);
    quic.set_initial_max_streams_uni(16);
    Ok(quic)
}
