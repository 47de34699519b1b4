//! A UDP relay that loses, delays and reorders datagrams, by a seed: bad networks for tests and benches, on kernels
//! without netem.
//!
//! Each client address gets its own socket towards the server, so the server sees as many peers as there are. The
//! decision about the n-th datagram of a direction of a client depends on the seed and n alone, never on time.
//! Knows nothing of what it carries.

use crate::machine::{Failure, Random, parse_duration, raise_file_limit};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Clients that are remembered; the relay is a test tool, so beyond that new ones are dropped and counted.
const CLIENTS_MAX: usize = 4096;
/// Datagrams that may wait for their delay: 64 MiB of 1,350-byte ones.
const WAITING_MAX: usize = 50_000;

/// Options of `relay`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Where clients send to (port 0: any; the address is printed)
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The server
    #[arg(long)]
    to: SocketAddr,
    /// Datagrams lost, percent, in both directions
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Datagrams held back longer than others so that they arrive late, percent
    #[arg(long, default_value_t = 0.0)]
    reorder: f64,
    /// Datagrams sent twice, percent
    #[arg(long, default_value_t = 0.0)]
    duplicate: f64,
    /// One-way delay
    #[arg(long, default_value = "0ms", value_parser = parse_duration)]
    delay: Duration,
    /// Further delay of a datagram that is held back
    #[arg(long, default_value = "5ms", value_parser = parse_duration)]
    hold: Duration,
    /// Seed of all decisions
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What became of the datagrams of one direction.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    passed: u64,
    lost: u64,
    held: u64,
    doubled: u64,
    /// No room in a bound of ours, or refused by the kernel: not part of the plan.
    failed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Lost,
    Sent { held: bool, twice: bool },
}

/// Decides what happens to the datagrams of one direction of one client.
struct Dice {
    random: Random,
    loss: f64,
    reorder: f64,
    duplicate: f64,
}

impl Dice {
    fn new(options: &Options, stream: u64) -> Self {
        Self {
            random: Random::new(options.seed ^ stream.wrapping_mul(0xa076_1d64_78bd_642f)),
            loss: options.loss / 100.0,
            reorder: options.reorder / 100.0,
            duplicate: options.duplicate / 100.0,
        }
    }

    fn roll(&mut self) -> Fate {
        // Three draws each time, so that one option does not shift the sequence of another.
        let (loss, hold, twice) = (self.random.share(), self.random.share(), self.random.share());
        if loss < self.loss {
            return Fate::Lost;
        }
        Fate::Sent { held: hold < self.reorder, twice: twice < self.duplicate }
    }
}

struct Client {
    address: SocketAddr,
    /// Connected to the server.
    socket: UdpSocket,
    up: Dice,
    down: Dice,
}

/// A datagram on its way: due time, order of arrival, then where it goes.
struct Waiting {
    client: usize,
    upwards: bool,
    bytes: Box<[u8]>,
}

struct Relay {
    options: Options,
    socket: UdpSocket,
    clients: Vec<Client>,
    by_address: HashMap<SocketAddr, usize>,
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    waiting: HashMap<u64, Waiting>,
    next: u64,
    up: Counts,
    down: Counts,
}

/// Runs until it is killed; prints the address it listens on, then the counts every time they changed and all is quiet.
pub fn run(options: Options) -> Result<(), Failure> {
    raise_file_limit();
    let socket =
        UdpSocket::bind(options.listen).map_err(|error| format!("cannot listen on {}: {error}", options.listen))?;
    socket.set_nonblocking(true)?;
    println!("relay {} -> {}", socket.local_addr()?, options.to);
    let mut relay = Relay {
        options,
        socket,
        clients: Vec::new(),
        by_address: HashMap::new(),
        due: BinaryHeap::new(),
        waiting: HashMap::new(),
        next: 0,
        up: Counts::default(),
        down: Counts::default(),
    };
    let mut reported = 0;
    loop {
        let quiet = relay.turn()?;
        let moved = relay.up.passed + relay.down.passed;
        if quiet && moved != reported {
            reported = moved;
            eprintln!("up {:?} down {:?}", relay.up, relay.down);
        }
    }
}

impl Relay {
    /// Waits for datagrams or the next due one, moves what there is; true: a second passed with nothing to do.
    fn turn(&mut self) -> io::Result<bool> {
        let now = Instant::now();
        let wait = self.due.peek().map_or(Duration::from_secs(1), |due| due.0.0.saturating_duration_since(now));
        let mut sockets: Vec<PollFd> = std::iter::once(&self.socket)
            .chain(self.clients.iter().map(|client| &client.socket))
            .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
            .collect();
        let ready = ppoll(&mut sockets, Some(TimeSpec::from_duration(wait)), None).unwrap_or(0);
        let readable: Vec<usize> = sockets
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.any().unwrap_or(false))
            .map(|(index, _)| index)
            .collect();
        drop(sockets);
        let now = Instant::now();
        for index in readable {
            match index.checked_sub(1) {
                None => self.take_from_clients(now)?,
                Some(client) => self.take_from_server(client, now)?,
            }
        }
        self.release(now);
        Ok(ready == 0 && self.due.is_empty())
    }

    fn take_from_clients(&mut self, now: Instant) -> io::Result<()> {
        let mut buffer = [0; 65_536];
        // A bound on one turn, so that the other direction is never starved.
        for _ in 0..64 {
            let (len, from) = match self.socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => continue,
            };
            let Some(client) = self.client(from)? else {
                self.up.failed += 1;
                continue;
            };
            self.accept(client, true, &buffer[..len], now);
        }
        Ok(())
    }

    fn take_from_server(&mut self, client: usize, now: Instant) -> io::Result<()> {
        let mut buffer = [0; 65_536];
        for _ in 0..64 {
            let len = match self.clients[client].socket.recv(&mut buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The server's port is closed just now: the datagram that caused it is lost, as on any network.
                Err(_) => continue,
            };
            self.accept(client, false, &buffer[..len], now);
        }
        Ok(())
    }

    fn client(&mut self, address: SocketAddr) -> io::Result<Option<usize>> {
        if let Some(&known) = self.by_address.get(&address) {
            return Ok(Some(known));
        }
        if self.clients.len() == CLIENTS_MAX {
            return Ok(None);
        }
        let any = match self.options.to {
            SocketAddr::V4(_) => "0.0.0.0:0",
            SocketAddr::V6(_) => "[::]:0",
        };
        let socket = UdpSocket::bind(any)?;
        socket.set_nonblocking(true)?;
        socket.connect(self.options.to)?;
        let index = self.clients.len();
        self.clients.push(Client {
            address,
            socket,
            up: Dice::new(&self.options, 2 * index as u64),
            down: Dice::new(&self.options, 2 * index as u64 + 1),
        });
        self.by_address.insert(address, index);
        Ok(Some(index))
    }

    fn accept(&mut self, client: usize, upwards: bool, bytes: &[u8], now: Instant) {
        let (dice, counts) = if upwards {
            (&mut self.clients[client].up, &mut self.up)
        } else {
            (&mut self.clients[client].down, &mut self.down)
        };
        let Fate::Sent { held, twice } = dice.roll() else {
            counts.lost += 1;
            return;
        };
        counts.held += u64::from(held);
        counts.doubled += u64::from(twice);
        let mut delay = self.options.delay;
        if held {
            delay += self.options.hold;
        }
        for _ in 0..1 + u32::from(twice) {
            if delay.is_zero() {
                self.deliver(client, upwards, bytes);
            } else if self.waiting.len() == WAITING_MAX {
                self.counts(upwards).failed += 1;
            } else {
                self.due.push(Reverse((now + delay, self.next)));
                let bytes = bytes.into();
                self.waiting.insert(self.next, Waiting { client, upwards, bytes });
                self.next += 1;
            }
        }
    }

    fn release(&mut self, now: Instant) {
        while let Some(&Reverse((at, id))) = self.due.peek() {
            if at > now {
                break;
            }
            self.due.pop();
            if let Some(waiting) = self.waiting.remove(&id) {
                self.deliver(waiting.client, waiting.upwards, &waiting.bytes);
            }
        }
    }

    fn deliver(&mut self, client: usize, upwards: bool, bytes: &[u8]) {
        let client = &self.clients[client];
        let sent = if upwards { client.socket.send(bytes) } else { self.socket.send_to(bytes, client.address) };
        let counts = self.counts(upwards);
        match sent {
            Ok(_) => counts.passed += 1,
            Err(_) => counts.failed += 1,
        }
    }

    fn counts(&mut self, upwards: bool) -> &mut Counts {
        if upwards { &mut self.up } else { &mut self.down }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(loss: f64, reorder: f64) -> Options {
        Options {
            listen: "127.0.0.1:0".parse().unwrap(),
            to: "127.0.0.1:9".parse().unwrap(),
            loss,
            reorder,
            duplicate: 0.0,
            delay: Duration::ZERO,
            hold: Duration::from_millis(5),
            seed: 42,
        }
    }

    #[test]
    fn the_seed_alone_decides_and_the_shares_are_kept() {
        let fates = |stream| {
            let mut dice = Dice::new(&options(5.0, 2.0), stream);
            (0..20_000).map(|_| dice.roll()).collect::<Vec<_>>()
        };
        assert_eq!(fates(0), fates(0));
        assert_ne!(fates(0), fates(1));
        let lost = fates(0).iter().filter(|fate| **fate == Fate::Lost).count();
        assert!((900..1100).contains(&lost), "{lost} of 20000 lost");
    }

    #[test]
    fn reordering_does_not_change_which_datagrams_are_lost() {
        let lost = |reorder| {
            let mut dice = Dice::new(&options(5.0, reorder), 3);
            (0..1000).map(|_| dice.roll() == Fate::Lost).collect::<Vec<_>>()
        };
        assert_eq!(lost(0.0), lost(50.0));
    }
}
