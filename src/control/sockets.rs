//! Every listening socket of the process, inherited or bound once, in one place, before any thread starts.
//!
//! A public address of HTTP/3 is a group of UDP sockets, one for each worker (SO_REUSEPORT), whose size and order stay for the
//! life of the process: the position in the group is the number of the worker. The first socket takes the port alone, which
//! proves that nobody else has it, and lets the others in afterwards; or systemd bound it and handed it over, under the
//! listener's name. Then the group is given its steering: the kernel chooses the worker by the connection ID, see
//! [`crate::h3::steering`]. A public address over TCP is a group of listening sockets, which the kernel spreads
//! connections over.

use super::endpoints::Place;
use super::failure::{Exit, Failure, Protocol};
use crate::config::{Generation, Listener as Public, Performance};
use crate::h3::cid::CidKeys;
use crate::h3::steering;
use spooky_uring::inherited::{self, Inherited};
use spooky_uring::{Listener, UdpOptions, UdpSocket};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Connections the kernel keeps until control accepts them.
const BACKLOG: i32 = 128;

/// Connections the kernel keeps until a worker accepts them; `net.core.somaxconn` bounds it further.
const PUBLIC_BACKLOG: i32 = 4096;

/// One worker's sockets, each with the position of its listener in the configuration.
#[derive(Debug, Default)]
pub struct Share {
    /// One for each listener that speaks HTTP/3.
    pub udp: Vec<(usize, UdpSocket)>,
    /// One for each listener that speaks something else.
    pub tcp: Vec<(usize, Listener)>,
}

/// What was bound.
#[derive(Debug)]
pub struct Sockets {
    /// For each worker.
    pub workers: Vec<Share>,
    /// The metrics and control addresses.
    pub hosts: Vec<(Place, Listener)>,
    /// Where they are.
    pub addresses: Addresses,
}

/// The addresses the process listens on; ports that were 0 are known here.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    /// Public listeners, in the order of the configuration.
    pub public: Vec<SocketAddr>,
    /// `/metrics`.
    pub metrics: Option<SocketAddr>,
    /// `/health` and `/ready`.
    pub control: Option<SocketAddr>,
}

/// How the datagrams of one public listener find their worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steering {
    /// The kernel goes by the connection ID.
    Kernel,
    /// There is nothing to choose.
    OneWorker,
    /// The kernel goes by the addresses; workers forward what is not theirs. Why it is so.
    Forwarding(String),
}

impl fmt::Display for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel => write!(f, "cbpf"),
            Self::OneWorker => write!(f, "none: one worker"),
            Self::Forwarding(why) => write!(f, "none: {why}"),
        }
    }
}

impl Sockets {
    /// Takes over what was inherited and binds the rest of what `generation` names.
    ///
    /// # Errors
    /// The first address that cannot be had, with the fix.
    pub fn bind(generation: &Generation) -> Result<Self, Failure> {
        let inherited = inherited::take().map_err(|error| {
            Failure::new("inherited sockets", error).fix("start it through its systemd units, or without LISTEN_FDS")
        })?;
        let mut given = given(generation, inherited)?;
        let performance = &generation.performance;
        let count = usize::from(performance.worker_threads);
        let mut workers: Vec<Share> = (0..count).map(|_| Share::default()).collect();
        let mut addresses = Addresses::default();
        for (at, (listener, given)) in generation.listeners.iter().zip(&mut given).enumerate() {
            let group = listener_sockets(listener, count, std::mem::take(given), performance)?;
            if let Some(first) = group.udp.first() {
                for warning in first.buffers().warnings() {
                    tracing::warn!(listener = %listener.name, "{warning}");
                }
            }
            addresses.public.push(group.address);
            workers.iter_mut().zip(group.udp).for_each(|(worker, socket)| worker.udp.push((at, socket)));
            workers.iter_mut().zip(group.tcp).for_each(|(worker, socket)| worker.tcp.push((at, socket)));
        }
        let mut hosts = Vec::new();
        let observability = &generation.observability;
        if let Some(address) = observability.control_api {
            let listener = listen(address, "[observability] control_api")?;
            addresses.control = listener.local_address();
            hosts.push((Place::Control, listener));
        }
        if let Some(metrics) = &observability.metrics {
            let listener = listen(metrics.address, "[observability] metrics")?;
            addresses.metrics = listener.local_address();
            hosts.push((Place::Metrics, listener));
        }
        Ok(Self { workers, hosts, addresses })
    }

    /// Gives each group of datagrams its steering and says which it is, with the position of its listener. Without it
    /// everything works, slower: that is a warning, not a failure.
    pub fn steer(&self, generation: &Generation, keys: &CidKeys) -> Vec<(usize, Steering)> {
        let count = self.workers.len();
        let program = steering::program(keys, count as u16);
        let sockets = self.workers.first().into_iter().flat_map(|share| &share.udp);
        sockets
            .map(|(at, socket)| {
                let listener = &generation.listeners[*at];
                let steering = match count {
                    1 => Steering::OneWorker,
                    _ => socket.steer(&program).map_or_else(
                        |error| Steering::Forwarding(error.to_string()),
                        |()| Steering::Kernel,
                    ),
                };
                match &steering {
                    Steering::Forwarding(_) => tracing::warn!(
                        listener = %listener.name,
                        workers = count,
                        steering = %steering,
                        "the kernel goes by addresses alone: datagrams of clients that move are forwarded between workers; \
                         fix: let systemd hand over sockets with ReusePort=yes, or none"
                    ),
                    _ => tracing::info!(listener = %listener.name, workers = count, steering = %steering, "datagrams find their worker"),
                }
                (*at, steering)
            })
            .collect()
    }
}

/// The inherited sockets of each listener, in the order of both.
fn given(generation: &Generation, inherited: Vec<Inherited>) -> Result<Vec<Vec<Inherited>>, Failure> {
    let mut given: Vec<Vec<Inherited>> = generation.listeners.iter().map(|_| Vec::new()).collect();
    for socket in inherited {
        let Some(at) = generation.listeners.iter().position(|listener| *listener.name == *socket.name) else {
            let names: Vec<&str> = generation.listeners.iter().map(|listener| &*listener.name).collect();
            let cause = format!("no listener has this name; there is: {}", names.join(", "));
            return Err(Failure::new(format!("inherited socket `{}`", socket.name), cause)
                .fix("set FileDescriptorName= in the socket unit to the listener's name")
                .exit(Exit::Configuration));
        };
        given[at].push(socket);
    }
    Ok(given)
}

/// The sockets of one listener, and where they are.
struct Group {
    udp: Vec<UdpSocket>,
    tcp: Vec<Listener>,
    address: SocketAddr,
}

/// Ports that are tried where any will do: one may be free for datagrams and taken for connections.
const PORTS_TRIED: usize = 16;

/// All sockets of one listener; both groups are on one port.
fn listener_sockets(
    listener: &Public,
    count: usize,
    given: Vec<Inherited>,
    performance: &Performance,
) -> Result<Group, Failure> {
    let (streams, datagrams): (Vec<_>, Vec<_>) = given.into_iter().partition(Inherited::is_stream);
    let any_port = listener.address.port() == 0 && datagrams.is_empty() && streams.is_empty();
    let mut given = Some((streams, datagrams));
    let mut left = if any_port { PORTS_TRIED } else { 1 };
    loop {
        left -= 1;
        let (streams, datagrams) = given.take().unwrap_or_default();
        let mut address = listener.address;
        let mut udp = Vec::new();
        if listener.protocols.h3 {
            let options = UdpOptions {
                receive_buffer: performance.udp_receive_buffer_bytes as usize,
                send_buffer: performance.udp_send_buffer_bytes as usize,
                reuse_port: false,
                ..UdpOptions::new(address)
            };
            udp = group(listener, count, datagrams, options)?;
            address = udp[0].local_address();
        } else if !datagrams.is_empty() {
            return Err(nobody_reads(listener, "datagrams", "ListenDatagram="));
        }
        if !listener.protocols.over_tcp() {
            if !streams.is_empty() {
                return Err(nobody_reads(listener, "connections", "ListenStream="));
            }
            return Ok(Group { udp, tcp: Vec::new(), address });
        }
        match doors(listener, address, count, streams) {
            Ok(tcp) => {
                let address = tcp[0].local_address().unwrap_or(address);
                return Ok(Group { udp, tcp, address });
            }
            Err(_) if left > 0 => {}
            Err(failure) => return Err(failure),
        }
    }
}

fn nobody_reads(listener: &Public, what: &str, line: &str) -> Failure {
    let cause = format!("its protocols take no {what}");
    Failure::new(format!("inherited socket (listener `{}`)", listener.name), cause)
        .fix(format!("remove {line} from the socket unit, or add a protocol"))
        .exit(Exit::Configuration)
}

/// The listening sockets of one listener, one for each worker: `given` ones first, the rest bound beside them.
fn doors(
    listener: &Public,
    mut address: SocketAddr,
    count: usize,
    given: Vec<Inherited>,
) -> Result<Vec<Listener>, Failure> {
    let key = format!("listener `{}`", listener.name);
    check_count(&key, "ListenStream=", given.len(), count)?;
    let mut doors = Vec::with_capacity(count);
    for socket in given {
        let taken = Listener::from_inherited(socket.descriptor);
        let socket = taken.map_err(|error| Failure::new(format!("inherited socket ({key})"), error))?;
        if let Some(is) = socket.local_address() {
            check_address(&key, "ListenStream=", is, address)?;
        }
        doors.push(socket);
    }
    let failed = |address, error: io::Error| Failure::bind(Protocol::Tcp, address, &key, &error);
    if doors.is_empty() && count > 1 {
        // Alone first: a group lets others in, who may be another process of the same user.
        let alone = patiently(|| Listener::tcp(address, 1, false)).map_err(|error| failed(address, error))?;
        address = alone.local_address().unwrap_or(address);
    }
    if let Some(bound) = doors.first().and_then(Listener::local_address) {
        address = bound;
    }
    if doors.len() < count {
        doors.iter().try_for_each(Listener::share_port).map_err(|error| failed(address, error))?;
    }
    while doors.len() < count {
        let door = patiently(|| Listener::tcp(address, PUBLIC_BACKLOG, count > 1));
        doors.push(door.map_err(|error| failed(address, error))?);
        address = doors[0].local_address().unwrap_or(address);
    }
    Ok(doors)
}

/// No more sockets were handed over than there are workers to read them.
fn check_count(key: &str, line: &str, inherited: usize, count: usize) -> Result<(), Failure> {
    if inherited <= count {
        return Ok(());
    }
    let cause = format!("{inherited} sockets for {count} workers: nobody would read the others");
    Err(Failure::new(format!("inherited sockets ({key})"), cause)
        .fix(format!("as many {line} lines as worker_threads, or worker_threads = {inherited}"))
        .exit(Exit::Configuration))
}

/// A socket that was handed over is where the configuration says.
fn check_address(key: &str, line: &str, is: SocketAddr, wanted: SocketAddr) -> Result<(), Failure> {
    if is.ip() == wanted.ip() && (is.port() == wanted.port() || wanted.port() == 0) {
        return Ok(());
    }
    let cause = format!("it is bound to {is}, not to {wanted}");
    Err(Failure::new(format!("inherited socket ({key})"), cause)
        .fix(format!("the same address in {line} and in the configuration"))
        .exit(Exit::Configuration))
}

/// The datagram sockets of one listener, one for each worker: `given` ones first, the rest bound beside them.
fn group(
    listener: &Public,
    count: usize,
    given: Vec<Inherited>,
    mut options: UdpOptions,
) -> Result<Vec<UdpSocket>, Failure> {
    let key = format!("listener `{}`", listener.name);
    let inherited = given.len();
    check_count(&key, "ListenDatagram=", inherited, count)?;
    let mut group = Vec::with_capacity(count);
    for socket in given {
        let taken = UdpSocket::from_inherited(socket.descriptor, &options);
        let socket = taken.map_err(|error| Failure::new(format!("inherited socket ({key})"), error))?;
        check_address(&key, "ListenDatagram=", socket.local_address(), listener.address)?;
        group.push(socket);
    }
    let bind = |options: &UdpOptions| {
        patiently(|| UdpSocket::bind(options))
            .map_err(|error| Failure::bind(Protocol::Udp, options.address, &key, &error))
    };
    if group.is_empty() {
        group.push(bind(&options)?);
    }
    options.address = group[0].local_address();
    options.reuse_port = true;
    if group.len() < count {
        let shared = group.iter().try_for_each(UdpSocket::share_port);
        shared.map_err(|error| Failure::bind(Protocol::Udp, options.address, &key, &error))?;
    }
    while group.len() < count {
        group.push(
            bind(&options)
                .map_err(|failure| if inherited > 0 { beside(failure, inherited, count) } else { failure })?,
        );
    }
    Ok(group)
}

/// A socket that cannot stand beside inherited ones: only those of one user share a port.
fn beside(failure: Failure, inherited: usize, count: usize) -> Failure {
    failure.fix(format!(
        "the port was bound by another user (systemd), and only sockets of one user share a port: let the socket unit \
         hand over one for each worker ({count} ListenDatagram= lines and ReusePort=yes), or set worker_threads = {inherited}"
    ))
}

fn listen(address: SocketAddr, key: &str) -> Result<Listener, Failure> {
    patiently(|| Listener::tcp(address, BACKLOG, false))
        .map_err(|error| Failure::bind(Protocol::Tcp, address, key, &error))
}

/// Asks again for an address that is in use. The kernel takes a ring apart after its process has ended, some 30 ms in
/// which the process's ports stay bound: whoever starts us again at once must not be told that another process has them.
fn patiently<T>(bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
    const STEP: Duration = Duration::from_millis(10);
    const STEPS: u32 = 50;
    for _ in 0..STEPS {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => std::thread::sleep(STEP),
            done => return done,
        }
    }
    bind()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h3::cid::{CID_LEN, Cid, CidCoder};
    use std::collections::HashSet;
    use std::net::UdpSocket as Plain;
    use std::os::fd::AsFd;

    const WORKERS: u16 = 5;

    fn generation(more: &str) -> Generation {
        let text = format!(
            "version = 1\n[listen]\naddress = \"127.0.0.1\"\nport = 0\n[upstream.a]\nroute = {{ path_prefix = \"/\" }}\n\
             backends = [{{ id = \"b\", address = \"http://127.0.0.1:1\" }}]\n[observability]\n\
             metrics = {{ enabled = false }}\ncontrol_api = {{ enabled = false }}\n[performance]\n{more}"
        );
        crate::config::from_str("t", &text).expect("right").0
    }

    fn given_sockets(sockets: Vec<Plain>, name: &str) -> Vec<Inherited> {
        let one = |socket: Plain| Inherited { name: name.to_owned(), descriptor: socket.into() };
        sockets.into_iter().map(one).collect()
    }

    #[test]
    fn the_kernel_gives_a_datagram_to_the_worker_in_its_connection_id() {
        let generation = generation(&format!("worker_threads = {WORKERS}\nudp_receive_buffer_bytes = \"1MiB\""));
        let sockets = Sockets::bind(&generation).unwrap();
        let keys = CidKeys::derive(b"a secret of the tests");
        assert_eq!(sockets.steer(&generation, &keys), [(0, Steering::Kernel)]);
        let to = sockets.addresses.public[0];
        let group: Vec<Plain> =
            sockets.workers.iter().map(|own| own.udp[0].1.as_fd().try_clone_to_owned().unwrap().into()).collect();
        group.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
        let take = |packet: &[u8]| {
            Plain::bind("127.0.0.1:0").unwrap().send_to(packet, to).unwrap();
            let mut bytes = [0; 100];
            // On loopback a datagram has arrived when it is sent.
            group.iter().position(|socket| socket.recv(&mut bytes).is_ok())
        };
        let mut coder = CidCoder::new(&keys).unwrap();
        let mut initials = HashSet::new();
        for tag in 0..100 {
            let worker = tag as u16 % WORKERS;
            let id = coder.encode(Cid { epoch: 1, worker, slot: tag, tag, sequence: 0 });
            let there = Some(usize::from(worker));
            let long = |first| [&[first, 0, 0, 0, 1, CID_LEN as u8], &id[..], &[0; 30]].concat();
            assert_eq!(take(&[&[0x40], &id[..], &[0; 9]].concat()), there);
            assert_eq!(take(&long(0xe0)), there);
            initials.insert(take(&long(0xc0)));
        }
        assert!(!initials.contains(&None) && initials.len() > 1, "Initial packets go by the hash: {initials:?}");
        // The port stays ours.
        assert!(Plain::bind(to).is_err());
    }

    #[test]
    fn one_worker_needs_no_steering_and_shares_its_port_with_nobody() {
        let generation = generation("worker_threads = 1");
        let sockets = Sockets::bind(&generation).unwrap();
        assert_eq!(sockets.steer(&generation, &CidKeys::derive(b"s")), [(0, Steering::OneWorker)]);
        let beside = UdpOptions { reuse_port: true, ..UdpOptions::new(sockets.addresses.public[0]) };
        assert!(UdpSocket::bind(&beside).is_err());
    }

    #[test]
    fn steering_that_is_refused_is_told_with_its_cause() {
        let generation = generation("worker_threads = 2");
        // Sockets in no group: the kernel takes no program for them.
        let options = UdpOptions { reuse_port: false, ..UdpOptions::new("127.0.0.1:0".parse().unwrap()) };
        let socket = || UdpSocket::bind(&options).unwrap();
        let workers = (0..2).map(|_| Share { udp: vec![(0, socket())], tcp: Vec::new() }).collect();
        let sockets = Sockets { workers, hosts: Vec::new(), addresses: Addresses::default() };
        let steering = sockets.steer(&generation, &CidKeys::derive(b"s"));
        assert!(matches!(&steering[..], [(0, Steering::Forwarding(why))] if !why.is_empty()), "{steering:?}");
        assert!(steering[0].1.to_string().starts_with("none: "));
    }

    #[test]
    fn inherited_sockets_come_first_and_the_rest_beside_them() {
        let generation = generation("worker_threads = 3");
        let listener = &generation.listeners[0];
        let bound = Plain::bind("127.0.0.1:0").unwrap();
        let address = bound.local_addr().unwrap();
        let probe = bound.try_clone().unwrap();
        let options = UdpOptions { reuse_port: false, ..UdpOptions::new(listener.address) };
        let group = group(listener, 3, given_sockets(vec![bound], "listen"), options).unwrap();
        assert!(group.iter().all(|socket| socket.local_address() == address));
        // The program's position 0 is the inherited one.
        group[0].steer(&[spooky_uring::Instruction::choose(0)]).unwrap();
        Plain::bind("127.0.0.1:0").unwrap().send_to(b"x", address).unwrap();
        probe.set_nonblocking(true).unwrap();
        assert_eq!(probe.recv(&mut [0; 4]).unwrap(), 1);
    }

    #[test]
    fn inherited_sockets_that_do_not_fit_are_refused_with_the_fix() {
        let generation = generation("worker_threads = 1");
        let listener = &generation.listeners[0];
        let plain = || Plain::bind("127.0.0.1:0").unwrap();
        let options = UdpOptions::new(listener.address);
        let many = group(listener, 1, given_sockets(vec![plain(), plain()], "listen"), options).unwrap_err();
        assert_eq!(many.exit, Exit::Configuration);
        assert!(many.fix.contains("worker_threads = 2"), "{many}");
        let elsewhere = Plain::bind("127.0.0.2:0").unwrap();
        let elsewhere = group(listener, 1, given_sockets(vec![elsewhere], "listen"), options).unwrap_err();
        assert!(elsewhere.cause.contains("127.0.0.2:"), "{elsewhere}");
        let stranger = given(&generation, given_sockets(vec![plain()], "web")).unwrap_err();
        assert!(stranger.cause.contains("listen") && stranger.fix.contains("FileDescriptorName="), "{stranger}");
    }
}
