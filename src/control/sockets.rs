//! Every listening socket of the process, inherited or bound once, in one place, before any thread starts.
//!
//! A public address is a group of UDP sockets, one for each worker (SO_REUSEPORT), whose size and order stay for the
//! life of the process: the position in the group is the number of the worker. The first socket takes the port alone, which
//! proves that nobody else has it, and lets the others in afterwards; or systemd bound it and handed it over, under the
//! listener's name. Then the group is given its steering: the kernel chooses the worker by the connection ID, see
//! [`crate::h3::steering`].

use super::endpoints::Place;
use super::failure::{Exit, Failure, Protocol};
use crate::config::{Generation, Listener as Public};
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

/// What was bound.
#[derive(Debug)]
pub struct Sockets {
    /// For each worker, one socket for each listener.
    pub workers: Vec<Vec<UdpSocket>>,
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
        let mut workers: Vec<Vec<UdpSocket>> = (0..count).map(|_| Vec::new()).collect();
        let mut addresses = Addresses::default();
        for (listener, given) in generation.listeners.iter().zip(&mut given) {
            let options = UdpOptions {
                receive_buffer: performance.udp_receive_buffer_bytes as usize,
                send_buffer: performance.udp_send_buffer_bytes as usize,
                reuse_port: false,
                ..UdpOptions::new(listener.address)
            };
            let group = group(listener, count, std::mem::take(given), options)?;
            if let Some(first) = group.first() {
                addresses.public.push(first.local_address());
                for warning in first.buffers().warnings() {
                    tracing::warn!(listener = %listener.name, "{warning}");
                }
            }
            workers.iter_mut().zip(group).for_each(|(worker, socket)| worker.push(socket));
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

    /// Gives each group its steering and says which it is; in the order of the listeners. Without it everything works,
    /// slower: that is a warning, not a failure.
    pub fn steer(&self, generation: &Generation, keys: &CidKeys) -> Vec<Steering> {
        let count = self.workers.len();
        let program = steering::program(keys, count as u16);
        let listeners = generation.listeners.iter().zip(self.workers.first().into_iter().flatten());
        listeners
            .map(|(listener, socket)| {
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
                steering
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

/// The sockets of one listener, one for each worker: `given` ones first, the rest bound beside them.
fn group(
    listener: &Public,
    count: usize,
    given: Vec<Inherited>,
    mut options: UdpOptions,
) -> Result<Vec<UdpSocket>, Failure> {
    let key = format!("listener `{}`", listener.name);
    let inherited = given.len();
    if inherited > count {
        let cause = format!("{inherited} sockets for {count} workers: nobody would read the others");
        return Err(Failure::new(format!("inherited sockets ({key})"), cause)
            .fix(format!("as many ListenDatagram= lines as worker_threads, or worker_threads = {inherited}"))
            .exit(Exit::Configuration));
    }
    let mut group = Vec::with_capacity(count);
    for socket in given {
        let taken = UdpSocket::from_inherited(socket.descriptor, &options);
        let socket = taken.map_err(|error| Failure::new(format!("inherited socket ({key})"), error))?;
        let (is, wanted) = (socket.local_address(), listener.address);
        if is.ip() != wanted.ip() || is.port() != wanted.port() && wanted.port() != 0 {
            return Err(Failure::new(
                format!("inherited socket ({key})"),
                format!("it is bound to {is}, not to {wanted}"),
            )
            .fix("the same address in ListenDatagram= and in the configuration")
            .exit(Exit::Configuration));
        }
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
        assert_eq!(sockets.steer(&generation, &keys), [Steering::Kernel]);
        let to = sockets.addresses.public[0];
        let group: Vec<Plain> =
            sockets.workers.iter().map(|own| own[0].as_fd().try_clone_to_owned().unwrap().into()).collect();
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
        assert_eq!(sockets.steer(&generation, &CidKeys::derive(b"s")), [Steering::OneWorker]);
        let beside = UdpOptions { reuse_port: true, ..UdpOptions::new(sockets.addresses.public[0]) };
        assert!(UdpSocket::bind(&beside).is_err());
    }

    #[test]
    fn steering_that_is_refused_is_told_with_its_cause() {
        let generation = generation("worker_threads = 2");
        // Sockets in no group: the kernel takes no program for them.
        let options = UdpOptions { reuse_port: false, ..UdpOptions::new("127.0.0.1:0".parse().unwrap()) };
        let workers = (0..2).map(|_| vec![UdpSocket::bind(&options).unwrap()]).collect();
        let sockets = Sockets { workers, hosts: Vec::new(), addresses: Addresses::default() };
        let steering = sockets.steer(&generation, &CidKeys::derive(b"s"));
        assert!(matches!(&steering[..], [Steering::Forwarding(why)] if !why.is_empty()), "{steering:?}");
        assert!(steering[0].to_string().starts_with("none: "));
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
